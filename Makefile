# The verbs people and CI share. Every target sets itself up: a fresh machine needs Python 3.11 and make.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PORT ?= 3000

.PHONY: install demo ui test test-fast lint check clean sandbox

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
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-fast: $(STAMP)
	$(BIN)/python -m pytest -x -m "not slow"

lint: $(STAMP)
	$(BIN)/ruff check analytics_platform analytics_platform_tests
	$(BIN)/ruff format --check analytics_platform analytics_platform_tests
	$(BIN)/mypy

check: lint test

clean:
	rm -rf $(VENV) .analytics_platform dbt_project/target dbt_project/logs
