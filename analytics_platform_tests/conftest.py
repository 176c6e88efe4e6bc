"""Fixtures for every test: a home of its own, one small sandbox, and the guard that keeps the suite on this machine."""

from __future__ import annotations

import os
import runpy
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from analytics_platform.sandbox.server import VENDORS, Sandbox
from analytics_platform.sandbox.truth import generate
from analytics_platform.settings import Home, Settings, load_settings
from analytics_platform_tests.demo_home import DemoRun, made_demo

GUARD_FOLDER = Path(__file__).parent / "network_guard"
GUARD = runpy.run_path(str(GUARD_FOLDER / "sitecustomize.py"))
"""Installed on import, before any test module is."""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Begun in a shell's background: every run in this process would leave SIGTERM ignored (`cli.keep_sigterm`), also
    # for the processes that tests start and end.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says how busy the machine is: speed is shown by benchmarks. The examples are those of the
# commit, so that what passed here passes there; `make test-search` looks for others.
hypothesis.settings.register_profile(
    "shared machine",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    derandomize="ANALYTICS_PLATFORM_TEST_SEARCH" not in os.environ,
)
hypothesis.settings.load_profile("shared machine")

FIRST_DAY = date(2026, 10, 5)
DAYS = 4

_PLATFORM_VARIABLES = ("ANALYTICS_PLATFORM_", "SMARTLOOK_", "INSPECTLET_", "PIRSCH_", "KAMELEOON_", "KISSMETRICS_")


@pytest.fixture(scope="session", autouse=True)
def only_loopback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Nothing the suite starts reaches beyond loopback: not a test, not a child process, not somebody's telemetry."""
    refused = tmp_path_factory.mktemp("guard") / "refused"
    before = {name: os.environ.get(name) for name in (GUARD["REFUSED_VARIABLE"], "PYTHONPATH")}
    os.environ[GUARD["REFUSED_VARIABLE"]] = str(refused)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(GUARD_FOLDER), before["PYTHONPATH"])))
    yield refused
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    attempts = refused.read_text(encoding="utf-8") if refused.exists() else ""
    assert not attempts, f"something tried to leave this machine:\n{attempts}"


@dataclass(frozen=True)
class House:
    """A home on disk, the environment that points at it, and the sandbox the environment points at."""

    home: Home
    environment: dict[str, str]

    @property
    def settings(self) -> Settings:
        return load_settings()

    @property
    def root(self) -> Path:
        return self.home.root


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """An empty home of this test alone, with no platform variable left over from the shell."""
    for name in list(os.environ):
        if name.startswith(_PLATFORM_VARIABLES) and name != GUARD["REFUSED_VARIABLE"]:
            monkeypatch.delenv(name)
    root = tmp_path / "home"
    root.mkdir()
    config = root / "sites.yaml"
    config.write_text("sites: []\n", encoding="utf-8")
    monkeypatch.setenv("ANALYTICS_PLATFORM_HOME", str(root))
    monkeypatch.setenv("ANALYTICS_PLATFORM_CONFIG", str(config))
    return Home(root=root)


@pytest.fixture(scope="session")
def running_sandbox() -> Iterator[Sandbox]:
    """Five vendors over four quiet days of two sites, one server for the whole session."""
    with Sandbox(generate(first_day=FIRST_DAY, days=DAYS, scale=0.05)) as sandbox:
        yield sandbox


@pytest.fixture
def vendors(running_sandbox: Sandbox) -> Iterator[Sandbox]:
    """The session's sandbox with no fault ordered and an empty request log."""
    running_sandbox.faults.clear()
    running_sandbox.requests.clear()
    yield running_sandbox
    running_sandbox.faults.clear()


@pytest.fixture(scope="session")
def demo_run(only_loopback: Path, tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    """A home the demo made: to read, or to copy."""
    return made_demo(tmp_path_factory)


@pytest.fixture(scope="module")
def writable_sandbox() -> Iterator[Callable[..., Sandbox]]:
    """Sandboxes of this module alone, for tests that write: call it for one that runs until the module ends.

    `writable_sandbox(days=1, scale=0.03, vendors=[…], profiles={…}, …)`: the first words are `generate`'s, the last two
    `Sandbox`'s. The same words give the same server, so that a fixture and its tests may both ask; `key="…"` makes it
    another one.
    """
    with ExitStack() as running:
        started: dict[str, Sandbox] = {}

        def start(
            *,
            vendors: Sequence[str] = VENDORS,
            profiles: Mapping[str, Mapping[str, object]] | None = None,
            key: str = "",
            **world: Any,
        ) -> Sandbox:
            chosen: dict[str, Any] = {"first_day": FIRST_DAY, "days": 2, "scale": 0.03, **world}
            name = repr((key, tuple(vendors), profiles, sorted(chosen.items())))
            if name not in started:
                sandbox = Sandbox(generate(**chosen), vendors=vendors, profiles=profiles)
                started[name] = running.enter_context(sandbox)
            return started[name]

        yield start


@pytest.fixture
def house(home: Home, vendors: Sandbox, monkeypatch: pytest.MonkeyPatch) -> House:
    """A home whose sites.yaml and credentials are the sandbox's."""
    environment = vendors.environment()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    Path(os.environ["ANALYTICS_PLATFORM_CONFIG"]).write_text(vendors.sites_yaml(), encoding="utf-8")
    return House(home=home, environment=environment)


_TOGETHER = {
    "analytics_platform_tests/dbt_project/": "dbt_project",
    "analytics_platform_tests/demonstration/": "demonstration",
    "analytics_platform_tests/test_cli.py": "demonstration",
}
"""Tests go to workers file by file, these as one: a minute of set-up is theirs together, and would be made twice, or
one worker would wait for what the other makes."""

_LONGEST_FIRST = (
    "demonstration",
    "dbt_project",
    "analytics_platform_tests/test_forget.py",
    "analytics_platform_tests/ui/test_webserver.py",
    "analytics_platform_tests/crash/test_dbt_kill.py",
    "analytics_platform_tests/transform/test_assets.py",
    "analytics_platform_tests/test_real_log.py",
)
"""What takes minutes must not be the last to start."""


def _unit(node_id: str) -> str:
    """What goes to a worker whole."""
    together = (unit for beginning, unit in _TOGETHER.items() if node_id.startswith(beginning))
    return next(together, node_id.partition("::")[0])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest first, everything else as it was."""
    order = {name: number for number, name in enumerate(_LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(_unit(item.nodeid), len(order)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`--dist loadfile`, by `_unit`; any other way is xdist's own."""
    from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

    class LoadUnitScheduling(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return _unit(nodeid)

    return LoadUnitScheduling(config, log) if config.getvalue("dist") == "loadfile" else None
