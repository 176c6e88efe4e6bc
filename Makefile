# The verbs people and CI share. Every target sets itself up: a fresh machine needs Python 3.11 and make.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PORT ?= 3000
CLIENTS := .clients
CLIENTS_SOURCE := analytics_platform_tests/official_clients

.PHONY: install demo ui test test-search test-fast clients test-clients lint check clean sandbox bench bench-peers bench-quota bench-rebuild bench-marts score

install: $(STAMP)

# Compiled bytecode halves the start of every Dagster process, also where PYTHONDONTWRITEBYTECODE is set.
$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m compileall -q analytics_platform
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m analytics_platform.transform.project
	touch $@

demo: $(STAMP)
	$(BIN)/analytics-platform demo

ui: $(STAMP)
	$(BIN)/analytics-platform ui --port $(PORT)

sandbox: $(STAMP)
	$(BIN)/analytics-platform sandbox

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not official_clients"

# The same with other examples of every property than the commit's own.
test-search: $(STAMP)
	ANALYTICS_PLATFORM_TEST_SEARCH=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not official_clients"

test-fast: $(STAMP)
	$(BIN)/python -m pytest -x -m "not slow and not official_clients"

# The vendors' own clients (docs/official_clients.md). They live in a folder of their own, outside the project's
# environment; here they must be present, elsewhere their tests are left out.
clients: $(CLIENTS)/node/.installed $(CLIENTS)/python/.installed

test-clients: $(STAMP) clients
	ANALYTICS_PLATFORM_REQUIRE_CLIENTS=1 $(BIN)/python -m pytest -m official_clients $(CLIENTS_SOURCE)

$(CLIENTS)/node/.installed: $(CLIENTS_SOURCE)/package.json $(CLIENTS_SOURCE)/package-lock.json
	mkdir -p $(@D)
	cp $^ $(@D)/
	cd $(@D) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

$(CLIENTS)/python/.installed: $(CLIENTS_SOURCE)/requirements.txt
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r $<
	touch $@

lint: $(STAMP)
	$(BIN)/ruff check analytics_platform analytics_platform_tests
	$(BIN)/ruff format --check analytics_platform analytics_platform_tests
	$(BIN)/mypy

check: lint test

# The figures of docs/benchmarks.md: twenty minutes on a quiet machine; BENCH="--short --only pipe" to iterate.
bench: $(STAMP)
	$(BIN)/python -m analytics_platform_tests.benchmarks $(BENCH)

# The same rows through other loaders, each in an environment of its own below .peers, made when it is first needed.
bench-peers: $(STAMP)
	$(BIN)/python -m analytics_platform_tests.benchmarks --peers $(BENCH)

# The figures of docs/quota.md: an hour; BENCH=--short takes minutes.
bench-quota: $(STAMP)
	$(BIN)/python -m analytics_platform_tests.simulation.figures $(BENCH)

# The explanation beside the sandbox's truth, and docs/score.md: ten minutes; SCORE="--seeds 1 --keep FOLDER" to iterate.
score: $(STAMP)
	$(BIN)/python -m analytics_platform_tests.score $(SCORE)

clean:
	rm -rf $(VENV) $(CLIENTS) .peers .analytics_platform dbt_project/target dbt_project/logs

# Rebuild equality: 200 random sequences of incremental builds with late data end as a full refresh does.
bench-rebuild: $(STAMP)
	$(BIN)/python -m analytics_platform_tests.dbt_project.rebuild --sequences 200

# What full and daily builds cost on two years of 100 thousand and 10 million sessions, and docs/marts_benchmark.md: an hour.
# BENCH="--sessions 20000 --keep FOLDER --seed HOME" to iterate.
bench-marts: $(STAMP)
	$(BIN)/python -m analytics_platform_tests.benchmarks_marts $(BENCH)
