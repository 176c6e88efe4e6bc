"""kill -9 of the daemon at its own crash points while the quota-reset sensor's tick is on its way (RELIABILITY D12).

A fresh daemon then has asked for every deferred partition exactly once. The process, the kill, Dagster's storage and
its queue are real; nobody takes runs from the queue, so that every tick sees what the one before left. By default three
points, with `ANALYTICS_PLATFORM_ALL_KILLS=1` every one that a tick passes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import yaml

from analytics_platform.core.partitions import partition_key
from analytics_platform.core.resources import open_ledger
from analytics_platform.settings import load_settings

VENDOR = "inspectlet"
START, END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
DEFERRED = {"shop": (date(2026, 11, 8), date(2026, 11, 10)), "blog": (date(2026, 11, 4), date(2026, 11, 9))}
ALL_KILLS = bool(os.environ.get("ANALYTICS_PLATFORM_ALL_KILLS"))
POINTS = ("RUN_IDS_RESERVED", "RUN_CREATED:1", "RUN_CREATED:2")
"""Of a tick with two runs: with run ids and no run; with a run that is not queued; with one that is and one that is
not."""
MORE_POINTS = ("TICK_CREATED", "TICK_HELD", "RUN_LAUNCHED:1", "RUN_LAUNCHED:2")

DAGSTER_YAML = """
telemetry: {enabled: false}
run_coordinator: {module: dagster._core.run_coordinator, class: QueuedRunCoordinator}
"""


class Zygote:
    """The forking process; `live` is one daemon from start to end or kill."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(Path(__file__).with_name("sensor_zygote.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, **environment},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        assert self._from.readline() == "ready\n"

    def live(self, environment: dict[str, str], *, ticks: int, kill: str = "") -> str:
        self._to.write(json.dumps({"environment": environment, "ticks": ticks, "kill": kill}) + "\n")
        self._to.flush()
        return self._from.readline().strip()

    def close(self) -> None:
        self._to.close()
        self._process.wait(timeout=30)
        self._from.close()


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("sensor")
    sites = [
        {"key": key, "start_date": "2026-10-05", "vendors": {VENDOR: {"wid": number}}}
        for number, key in enumerate(DEFERRED, 1)
    ]
    (root / "sites.yaml").write_text(yaml.safe_dump({"sites": sites}), encoding="utf-8")
    return {
        "ANALYTICS_PLATFORM_CONFIG": str(root / "sites.yaml"),
        "ANALYTICS_PLATFORM_HOME": str(root / "old"),
        "DAGSTER_HOME": str(root / "old" / "dagster"),
        "INSPECTLET_USERNAME": "ops@example.invalid",
        "INSPECTLET_API_TOKEN": "token-of-a-test",
    }


@pytest.fixture(scope="module")
def zygote(environment: dict[str, str]) -> Iterator[Zygote]:
    started = Zygote(environment)
    yield started
    started.close()


@pytest.fixture(scope="module")
def old(environment: dict[str, str], zygote: Zygote) -> Path:
    """A home where the sensor is on, has found nothing to do, and then work was deferred."""
    home = Path(environment["ANALYTICS_PLATFORM_HOME"])
    Path(environment["DAGSTER_HOME"]).mkdir(parents=True)
    (Path(environment["DAGSTER_HOME"]) / "dagster.yaml").write_text(DAGSTER_YAML, encoding="utf-8")
    assert zygote.live(environment, ticks=1) == "exit:0"
    with open_ledger(load_settings(environment)) as ledger:
        for site, (first_day, last_day) in DEFERRED.items():
            ledger.defer(
                vendor=VENDOR,
                stream="sessions",
                site=site,
                first_day=first_day,
                last_day=last_day,
                resume_at=datetime.now(UTC) - timedelta(seconds=5),
                reason="spent",
            )
    return home


def asked(home: Path) -> Counter[str]:
    """How many runs hold each partition."""
    found: Counter[str] = Counter()
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        for run in instance.get_runs():
            assert run.status is dg.DagsterRunStatus.QUEUED
            first, _, site = run.tags[START].partition("|")
            last = run.tags[END].partition("|")[0]
            days = range(date.fromisoformat(first).toordinal(), date.fromisoformat(last).toordinal() + 1)
            found.update(partition_key(date.fromordinal(number), site) for number in days)
    return found


def test_every_partition_is_asked_for_once_wherever_the_daemon_dies(
    old: Path, environment: dict[str, str], zygote: Zygote
) -> None:
    wanted = {
        partition_key(date.fromordinal(number), site)
        for site, (first, last) in DEFERRED.items()
        for number in range(first.toordinal(), last.toordinal() + 1)
    }
    at_the_kill = set()
    for point in POINTS + (MORE_POINTS if ALL_KILLS else ()):
        home = old.with_name("work")
        shutil.copytree(old, home)
        here = {**environment, "ANALYTICS_PLATFORM_HOME": str(home), "DAGSTER_HOME": str(home / "dagster")}
        try:
            assert zygote.live(here, ticks=1, kill=point) == "signal:9", point
            with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
                at_the_kill.add(tuple(sorted(run.status.value for run in instance.get_runs())))
            # The first tick ends what the dead daemon began, the second finds that everything is asked for.
            assert zygote.live(here, ticks=2) == "exit:0", point
            assert asked(home) == Counter(wanted), point
        finally:
            shutil.rmtree(home)
    # The kills really fell at different stages.
    assert {(), ("NOT_STARTED",), ("NOT_STARTED", "QUEUED")} <= at_the_kill, at_the_kill
