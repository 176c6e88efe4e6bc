# ruff: noqa: T201  (the counts are what the run is for)
"""kill -9 at every step of a row's path: each partition is old or new, and the rerun equals a run without a fault.

RELIABILITY §5, patterns 1-3: the first run traces the failpoints, every one of them is then killed at, starting from an
old generation of the partitions (else "empty" hides a loss), and recovery runs twice.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import generate
from analytics_platform.vendors import streams_of

SITE = "shop"
TABLES = next(stream for stream in streams_of("inspectlet") if stream.name == "sessions").tables

LEAST_POINTS = 37
"""Failpoints on the traced path with two pages (measured 2026-11-21; three pages have 40). It may grow; fewer means
that a step lost its failpoint."""

LEAST_DAGSTER_POINTS = 40
"""The same path as an asset: the verdict of the checks is recorded on top (measured 2026-11-21)."""

State = dict[tuple[str, date], str]


class Zygote:
    """The forking process. `run` is one child from start to end or kill."""

    def __init__(self, *preload: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("zygote.py")), *preload],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        assert self._from.readline() == "ready\n"

    def run(self, path: str, days: list[date], environment: dict[str, str]) -> str:
        command = {"path": path, "environment": environment, "first_day": str(days[0]), "last_day": str(days[-1])}
        self._to.write(json.dumps(command) + "\n")
        self._to.flush()
        return self._from.readline().strip()

    def close(self) -> None:
        self._to.close()
        self._process.wait(20)
        self._from.close()


@dataclass
class Scene:
    """Two generations of one vendor's truth, the home as the old one left it, and what each looks like."""

    root: Path
    days: list[date]
    environment: dict[str, str]
    old: State
    new: State
    points: list[str]

    @contextmanager
    def home(self) -> Iterator[tuple[Path, dict[str, str]]]:
        """A copy of the home with the old generation, and the environment of a run in it."""
        home = self.root / "work"
        shutil.copytree(self.root / "old", home)
        try:
            yield home, {**self.environment, "ANALYTICS_PLATFORM_HOME": str(home)}
        finally:
            shutil.rmtree(home)


def state(home: Path, days: list[date]) -> State:
    """A digest of every partition's rows, without when and by which run they were landed. Reading proves it whole."""
    lake = Lake(home / "lake")
    found: State = {}
    with duckdb.connect() as engine:
        for spec in TABLES:
            for day in days:
                path = lake.partition_path(spec, SITE, day)
                rows, digest = engine.execute(
                    "SELECT count(*), md5(string_agg(CAST(t AS VARCHAR), '\n' ORDER BY CAST(t AS VARCHAR))) FROM "
                    "(SELECT * EXCLUDE (_landed_at, _run_id) FROM read_parquet(?, hive_partitioning = false)) AS t",
                    [str(path)],
                ).fetchall()[0]
                assert rows, f"{spec.name} {day} is empty: a loss could not be seen"
                found[spec.name, day] = digest
    return found


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    process = Zygote()
    yield process
    process.close()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, zygote: Zygote) -> Iterator[Scene]:
    root = tmp_path_factory.mktemp("crash")
    today = datetime.now(UTC).date()
    # Days the vendor may still revise, so that a second run asks again; the second world is the revision.
    first = today - timedelta(days=3)
    days = [first + timedelta(days=1), first + timedelta(days=2)]
    worlds = [generate(seed=seed, first_day=first, days=3, scale=0.6) for seed in (7, 8)]
    with (
        Sandbox(worlds[0], vendors=["inspectlet"]) as before,
        Sandbox(worlds[1], vendors=["inspectlet"]) as after,
    ):
        (root / "sites.yaml").write_text(before.sites_yaml(), encoding="utf-8")
        common = {"ANALYTICS_PLATFORM_CONFIG": str(root / "sites.yaml")}
        old_home = {**common, **before.environment(), "ANALYTICS_PLATFORM_HOME": str(root / "old")}
        assert zygote.run("fetch", days, old_home) == "exit:0"
        scene = Scene(
            root=root,
            days=days,
            environment={**common, **after.environment()},
            old=state(root / "old", days),
            new={},
            points=[],
        )
        with scene.home() as (home, environment):
            trace = root / "trace"
            assert (
                zygote.run("fetch", days, {**environment, "ANALYTICS_PLATFORM_FAILPOINT_TRACE": str(trace)}) == "exit:0"
            )
            scene.new = state(home, days)
            scene.points = numbered(trace)
        assert set(scene.old.values()).isdisjoint(scene.new.values())
        yield scene


def numbered(trace: Path) -> list[str]:
    """`name:n` of every failpoint passed, in order."""
    seen: Counter[str] = Counter()
    points = []
    for name in trace.read_text(encoding="ascii").splitlines():
        seen[name] += 1
        points.append(f"{name}:{seen[name]}")
    return points


def assert_old_or_new(found: State, scene: Scene, point: str) -> None:
    for partition, digest in found.items():
        assert digest in (scene.old[partition], scene.new[partition]), f"{partition} is neither after {point}"


def test_every_point_of_the_path_without_dagster(scene: Scene, zygote: Zygote) -> None:
    assert len(scene.points) >= LEAST_POINTS
    assert {point.split(":")[0] for point in scene.points} >= {
        "landing.before_append",
        "landing.after_bytes",
        "landing.after_index",
        "landing.before_seal",
        "landing.after_seal",
        "lake.decoded",
        "lake.before_rename",
        "lake.after_rename",
        "durable.before_rename",
        "durable.before_directory_fsync",
    }
    sealed = scene.points.index("landing.after_seal:1")
    mixed = 0
    begun = time.monotonic()
    for number, point in enumerate(scene.points):
        with scene.home() as (home, environment):
            killed = zygote.run("fetch", scene.days, {**environment, "ANALYTICS_PLATFORM_FAILPOINT": point})
            assert killed == "signal:9", point
            found = state(home, scene.days)
            assert_old_or_new(found, scene, point)
            mixed += found not in (scene.old, scene.new)
            if number < sealed:
                # Nothing of an unsealed batch is decoded, and a sealed one names its pages exactly.
                assert found == scene.old, point
            # Recovering twice is the same as once; at every sixth point, since each costs a run.
            for recovery in (1, 2) if number % 6 == 0 else (1,):
                assert zygote.run("fetch", scene.days, environment) == "exit:0", point
                assert state(home, scene.days) == scene.new, f"recovery {recovery} after {point}"
            assert list((home / "lake" / ".scratch").glob("decode-*")) == [], point
            assert leftovers(home) == [], point
    print(
        f"\n{len(scene.points)} crash points, {mixed} left old and new side by side, {time.monotonic() - begun:.1f} s"
    )
    assert mixed > 0, "no kill fell between two partitions: the matrix proves too little"


def leftovers(home: Path) -> list[str]:
    """Files that are neither a partition, nor a table's anchor, nor a list a reader may count on."""
    lake = home / "lake"
    return [
        str(path.relative_to(lake))
        for path in lake.rglob("*")
        if path.is_file() and path.suffix != ".parquet" and path.name != ".lock"
    ]


def test_what_was_sealed_is_decoded_without_a_request(scene: Scene, zygote: Zygote) -> None:
    """H6: between manifest and load a kill costs no request, also when the vendor is gone."""
    with scene.home() as (home, environment):
        point = {**environment, "ANALYTICS_PLATFORM_FAILPOINT": "landing.after_seal:1"}
        assert zygote.run("fetch", scene.days, point) == "signal:9"
        covering = Landing(home / "landing").newest_complete("inspectlet", "sessions", SITE, scene.days)
        (batch,) = {str(batch.path): batch for batch in covering.values()}.values()
        lake = Lake(home / "lake")
        for spec in TABLES:
            lake.decode(spec, [(batch, scene.days)], site=SITE)
        assert state(home, scene.days) == scene.new


def test_pages_landed_before_a_kill_are_not_paid_for_again(scene: Scene, zygote: Zygote) -> None:
    """A call that is complete when the process dies is skipped by the next run: the batch goes on where it was."""
    with scene.home() as (home, environment):
        point = {**environment, "ANALYTICS_PLATFORM_FAILPOINT": "landing.before_seal:1"}
        assert zygote.run("fetch", scene.days, point) == "signal:9"
        (open_batch,) = [
            b for b in Landing(home / "landing").batches("inspectlet", "sessions", SITE) if not b.is_complete
        ]
        landed = [line.sha256 for line in open_batch.index()]
        assert landed
        nobody = {**environment, "INSPECTLET_BASE_URL": "http://127.0.0.1:9"}
        assert zygote.run("fetch", scene.days, nobody) == "exit:0"
        assert state(home, scene.days) == scene.new


def test_points_of_the_path_through_dagster(scene: Scene) -> None:
    zygote = Zygote("dagster")
    try:
        with scene.home() as (home, environment):
            trace = scene.root / "dagster-trace"
            traced = {**environment, "ANALYTICS_PLATFORM_FAILPOINT_TRACE": str(trace)}
            assert zygote.run("dagster", scene.days, traced) == "exit:0"
            assert state(home, scene.days) == scene.new
            points = numbered(trace)
        print(f"\n{len(points)} crash points through Dagster")
        assert len(points) >= LEAST_DAGSTER_POINTS
        # Seconds a point: one between two partitions, one while the checks' verdict is being recorded.
        for point in ("lake.after_rename:3", points[-1]):
            with scene.home() as (home, environment):
                killed = {**environment, "ANALYTICS_PLATFORM_FAILPOINT": point}
                assert zygote.run("dagster", scene.days, killed) == "signal:9", point
                assert_old_or_new(state(home, scene.days), scene, point)
                Lake(home / "lake").blocked()
                assert zygote.run("dagster", scene.days, environment) == "exit:0", point
                assert state(home, scene.days) == scene.new, point
                assert Lake(home / "lake").blocked() == []
    finally:
        zygote.close()


def test_the_switch_itself() -> None:
    """Without the variables a failpoint is nothing; with them it kills at the n-th pass and not before."""
    script = (
        "from analytics_platform.core.failpoints import passing\nfor n in range(3): passing('x'); print(n, flush=True)"
    )
    outputs = {}
    for name, more in {"off": {}, "second": {"ANALYTICS_PLATFORM_FAILPOINT": "x:2"}}.items():
        child = subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, **more}, stdout=subprocess.PIPE, text=True
        )
        outputs[name] = (child.returncode, child.stdout.split())
    assert outputs == {"off": (0, ["0", "1", "2"]), "second": (-9, ["0"])}
