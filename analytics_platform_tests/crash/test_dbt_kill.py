# ruff: noqa: T201  (the counts are what the run is for)
"""kill -9 inside dbt, between dbt and publish, and everybody at work at once: what readers see stays whole.

RELIABILITY H12-H14 and M15-M16, PRACTICE §7 test 1. The run is the real transform step (Dagster, dbt, DuckDB) on a lake
that changed since the last publish; `dbt_zygote` says how the n-th statement is hit. By default four statements are
killed at, with `ANALYTICS_PLATFORM_ALL_KILLS=1` every writing statement of every model.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import pytest
import yaml

from analytics_platform.catalog import Catalog
from analytics_platform.core.lake import Lake
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import generate
from analytics_platform.settings import Home, Settings, load_settings
from analytics_platform.transform.publish import current, marts_are_current, publish
from analytics_platform.vendors import all_tables
from analytics_platform_tests.dbt_project.conftest import saturday_sessions, sunday_sessions
from analytics_platform_tests.dbt_project.lake_fixture import FixtureLake

ALL_KILLS = bool(os.environ.get("ANALYTICS_PLATFORM_ALL_KILLS"))
pytestmark = [pytest.mark.timeout(3600 if ALL_KILLS else 900)]

SITE = "shop"
SATURDAY, SUNDAY = date(2026, 10, 24), date(2026, 10, 25)
MARTS = (
    "dim_metric_definition",
    "dim_site",
    "dim_vendor",
    "fct_audience_members",
    "fct_daily_traffic",
    "fct_offline_conversions",
    "fct_sessions",
)
REBUILT = (
    *MARTS,
    "int_partitions_landed",
    "int_sessions_enriched",
    "int_sessions_unioned",
    "int_site_days",
    "stg_smartlook__sessions",
)
"""All marts, all tables they are made of, and two of the views: one build in a third of the time of all 50 relations,
with every kind of statement in it."""

WRITES = ("create", "alter", "drop", "delete", "insert", "commit")
LEAST_STATEMENTS = 28
"""Writing statements of models in the traced build (30 on 2026-11-22). Fewer means that the count no longer sees all.
What only reads or begins is not killed at: the state is the one before the next write."""


@dataclass(frozen=True, kw_only=True)
class Kill:
    """Where, and whom: before the statement or in its middle; dbt alone or its whole process group."""

    label: str
    during: bool = False
    victim: str = "group"

    def __str__(self) -> str:
        return f"{'in' if self.during else 'before'} {self.label} ({self.victim})"


KILLS = (
    # The window's old rows are gone, the new ones not there yet.
    Kill(label="fct_sessions insert into"),
    # The new table has its columns and no row yet.
    Kill(label="dim_site insert into"),
    Kill(label="fct_daily_traffic commit", during=True),
    # While a view is replaced; Dagster lives to tell.
    Kill(label="stg_smartlook__sessions create or", during=True, victim="dbt"),
)


class Zygote:
    """The forking process; `run` is one child from start to end or kill."""

    def __init__(self, parse_target: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(Path(__file__).with_name("dbt_zygote.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "DBT_PARSE_TARGET": str(parse_target)},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        assert self._from.readline() == "ready\n"

    def run(self, **command: Any) -> dict[str, Any]:
        self.order(**command)
        return self.answer()

    def order(self, **command: Any) -> None:
        self._to.write(json.dumps({"first_day": str(SATURDAY), "last_day": str(SUNDAY), **command}) + "\n")
        self._to.flush()

    def answer(self) -> dict[str, Any]:
        answered: dict[str, Any] = json.loads(self._from.readline())
        return answered

    def close(self) -> None:
        self._to.close()
        self._process.wait(20)
        self._from.close()


State = Mapping[str, str]


@dataclass
class Scene:
    """A home as the last publish left it, the same with a changed lake, and what its marts are before and after."""

    root: Path
    zygote: Zygote
    sandbox: Sandbox
    killed_run: dict[str, Any]
    current_after_kill: bool
    requests_before: int
    finishing_run: dict[str, Any]
    third_run: dict[str, Any]
    old: State = field(default_factory=dict)
    new: State = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        return load_settings()

    @property
    def home(self) -> Home:
        return Home(root=self.root / "work")

    def restore(self, name: str) -> None:
        shutil.rmtree(self.home.root)
        shutil.copytree(self.root / name, self.home.root)

    def rebuild(self, **dbt: Any) -> dict[str, Any]:
        return self.zygote.run(assets=[*REBUILT, "published"], dbt=dbt)


def marts(database: Path) -> dict[str, str]:
    """A digest of each mart's rows, in no order. Opening the file and reading every column proves it whole.

    Averages to the microsecond: their last bit depends on which thread added first.
    """
    digests = {}
    with duckdb.connect(str(database), read_only=True) as connection:
        for mart in MARTS:
            columns = connection.execute(f"DESCRIBE {mart}").fetchall()
            values = ", ".join(f"round({name}, 6)" if kind == "DOUBLE" else name for name, kind, *_ in columns)
            row = f"CAST(row({values}) AS VARCHAR)"
            (found,) = connection.execute(f"SELECT md5(string_agg({row}, '\n' ORDER BY {row})) FROM {mart}").fetchall()
            digests[mart] = found[0]
    return digests


def between(database: Path) -> list[str]:
    """Relations that are neither old nor new: what dbt has while it swaps."""
    with duckdb.connect(str(database), read_only=True) as connection:
        found = connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_name LIKE '%\\_\\_dbt\\_%' ESCAPE '\\'"
        ).fetchall()
    return sorted(name for (name,) in found)


def published(home: Home) -> dict[str, str]:
    """Every published file by content."""
    return {
        str(path.relative_to(home.published)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(home.published.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def change_the_lake(home: Home, sessions: list[dict[str, Any]]) -> None:
    lake = FixtureLake(home.lake)
    lake.write("smartlook", "sessions", SITE, SATURDAY, saturday_sessions())
    lake.write("smartlook", "sessions", SITE, SUNDAY, sessions)
    lake.close()


def sites(sandbox: Sandbox, hostname: str) -> str:
    """The sandbox's shop with Smartlook and Inspectlet, whoever serves them."""
    (shop,) = [site for site in yaml.safe_load(sandbox.sites_yaml())["sites"] if site["key"] == SITE]
    kept = {vendor: shop["vendors"][vendor] for vendor in ("smartlook", "inspectlet")}
    return yaml.safe_dump({"sites": [{**shop, "hostname": hostname, "vendors": kept}]})


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    root = tmp_path_factory.mktemp("dbt-kill")
    # One place for every copy: dbt writes the lake's path into what it parses.
    work = root / "work"
    work.mkdir()
    with (
        Sandbox(generate(first_day=SATURDAY, days=2, scale=0.2), vendors=["inspectlet"]) as sandbox,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in sandbox.environment().items():
            patch.setenv(name, value)
        patch.setenv("ANALYTICS_PLATFORM_HOME", str(work))
        patch.setenv("ANALYTICS_PLATFORM_CONFIG", str(work / "sites.yaml"))
        (work / "sites.yaml").write_text(sites(sandbox, "old.example"), encoding="utf-8")
        change_the_lake(Home(root=work), sunday_sessions())
        zygote = Zygote(root / "parsed")
        failpoint = {"ANALYTICS_PLATFORM_FAILPOINT": "publish.before_pointer:1"}
        killed = zygote.run(vendors=["inspectlet"], environment=failpoint)
        is_current = marts_are_current(load_settings(), SATURDAY, SUNDAY)
        requests_before = len(sandbox.requests)
        finishing = zygote.run(vendors=["inspectlet"])
        made = Scene(
            root=root,
            zygote=zygote,
            sandbox=sandbox,
            killed_run=killed,
            current_after_kill=is_current,
            requests_before=requests_before,
            finishing_run=finishing,
            third_run=zygote.run(vendors=["inspectlet"]),
        )
        assert finishing["success"], finishing
        made.old = marts(made.home.warehouse)
        shutil.copytree(work, root / "old")
        (work / "sites.yaml").write_text(sites(sandbox, "new.example"), encoding="utf-8")
        change_the_lake(made.home, sunday_sessions()[:2])
        shutil.copytree(work, root / "changed")
        trace = root / "trace"
        traced = made.rebuild(trace=str(trace))
        assert traced["success"], traced
        made.new = marts(made.home.warehouse)
        made.labels = [json.loads(line)[0] for line in trace.read_text().splitlines()]
        yield made
        zygote.close()


# ---------------------------------------------------------------------------------------------- between dbt and publish


def test_the_command_finishes_what_a_kill_between_dbt_and_publish_left(scene: Scene) -> None:
    """The marts were built and recorded, but nobody can read them: the next run says so and asks no vendor."""
    assert scene.killed_run["status"] == -9
    assert scene.requests_before > 0
    assert not scene.current_after_kill
    assert scene.finishing_run == {
        "success": True,
        "failures": [],
        "requests": 0,
        "marts": "done",
        "vendors": ["complete"],
        "dbt_runs": 1,
        "status": 0,
    }
    assert len(scene.sandbox.requests) == scene.requests_before
    assert scene.third_run["failures"] == ["nothing new since the last publish"]


# ----------------------------------------------------------------------------------------------------------- inside dbt


def test_killed_inside_dbt_marts_are_old_or_new_and_readers_notice_nothing(scene: Scene) -> None:
    statements = [label for label in scene.labels if label.split()[0] in REBUILT and label.split()[1] in WRITES]
    assert len(statements) >= LEAST_STATEMENTS
    assert {mart for mart in MARTS if scene.old[mart] != scene.new[mart]} == {
        "dim_site",
        "fct_daily_traffic",
        "fct_sessions",
    }
    kills: tuple[Kill, ...] = KILLS
    if ALL_KILLS:
        kills += tuple(Kill(label=label) for label in statements)
        kills += tuple(Kill(label=label, during=True) for label in statements if " commit" in label)
    begun = time.monotonic()
    mixed = reruns = 0
    left: set[str] = set()
    for number, kill in enumerate(kills):
        scene.restore("changed")
        before = published(scene.home)
        answer = scene.rebuild(kill=kill.label, during=kill.during, victim=kill.victim)
        assert answer["status"] == (0 if kill.victim == "dbt" else -9), (kill, answer)
        if kill.victim == "dbt":
            assert "dbt was ended from outside by SIGKILL" in answer["failures"][0]
        found = marts(scene.home.warehouse)
        for mart, digest in found.items():
            assert digest in (scene.old[mart], scene.new[mart]), f"{mart} is neither, killed {kill}"
        mixed += found not in (scene.old, scene.new)
        left_here = between(scene.home.warehouse)
        left.update(left_here)
        assert published(scene.home) == before, kill
        assert len(Catalog.open().read("fct_sessions", vendor="smartlook")) == 6, kill
        assert not marts_are_current(scene.settings, SATURDAY, SUNDAY), kill
        publish_a_half_built_warehouse(scene, kill)
        if left_here or number % 6 == 0:  # a rerun costs more than the kill
            healed = scene.rebuild()
            assert healed["success"], (kill, healed)
            assert marts(scene.home.warehouse) == scene.new, kill
            assert between(scene.home.warehouse) == [], kill
            assert len(Catalog.open().read("fct_sessions", vendor="smartlook")) == 4, kill
            reruns += 1
    print(
        f"\n{len(kills)} kills, {len(statements)} writing statements of models, {mixed} left marts old and new side "
        f"by side, left for the next run: {sorted(left)}, {reruns} reruns, {time.monotonic() - begun:.1f} s"
    )
    assert mixed > 0, "no kill fell between two marts: the matrix proves too little"
    assert not left, "relations are replaced, not swapped: nothing is left beside them"


def publish_a_half_built_warehouse(scene: Scene, kill: Kill) -> None:
    """Somebody materialises `published` alone now: marts by name, nothing of a swap, and still called behind."""
    aside = scene.root / "aside"
    shutil.copytree(scene.home.root, aside)
    try:
        settings = scene.settings.model_copy(update={"home": Home(root=aside)})
        made = publish(settings)
        assert set(MARTS) <= set(made.row_counts), kill
        assert [name for name in made.row_counts if not name.startswith(("fct_", "dim_")) or "__" in name] == [], kill
        assert between(made.database) == [], kill
        assert not [path for path in made.path.rglob("*") if "__dbt_" in path.name], kill
        assert not marts_are_current(settings, SATURDAY, SUNDAY), kill
        assert current(settings.home) == made
    finally:
        shutil.rmtree(aside)


# ---------------------------------------------------------------------------------------------------- everybody at work

# Both go on until a line comes; the pause leaves the build some of the machine.
WRITER = """
import json, select, sys
from datetime import UTC, date, datetime
from pathlib import Path
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.paging import Page
from analytics_platform.vendors import all_tables

home, day = Path(sys.argv[1]), date.fromisoformat(sys.argv[2])
landing, lake, spec = Landing(home / "landing"), Lake(home / "lake"), all_tables()["inspectlet/sessions"]
pages = list(landing.newest_complete("inspectlet", "sessions", "shop", [day])[day].pages())
listed = [record for _, body in pages for record in json.loads(body)["response"]["sessions"]]
records = [r for r in listed if datetime.fromtimestamp(int(r["date_start_session"]), UTC).date() == day]
first = pages[0][0]

def write(kept):
    with landing.open_batch(
        vendor="inspectlet", stream="sessions", site="shop", first_day=day, last_day=day, run_id="writer", fresh=True
    ) as writer:
        writer.append(Page(
            call=first.call, call_kind=first.call_kind, sequence=0, is_last=True, status=200, endpoint=first.endpoint,
            body=json.dumps({"response": {"sessions": kept}}).encode(), received_at=landing.clock.now(),
            context=first.context, records=len(kept), attempts=1))
        batch = writer.complete()
    (partition,) = lake.decode(spec, [(batch, [day])], site="shop")
    print(partition.rows, flush=True)

written = 0
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0.1)[0]:
    write(records[: len(records) - 1 - written % 3])
    written += 1
write(records)
"""

READER = """
import select, sys
from analytics_platform.catalog import Catalog
catalog = Catalog.open(sys.argv[1])
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0.1)[0]:
    print(len(catalog.read("fct_sessions")), flush=True)
"""


class Busy:
    """A process that does one thing over and over until it is told to stop, or the test ends otherwise."""

    def __init__(self, script: str, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        with suppress(BrokenPipeError):
            self._process.communicate()

    def stop(self) -> list[int]:
        """The number each time reported."""
        found = [int(line) for line in self._process.communicate("stop\n", timeout=60)[0].split()]
        assert self._process.returncode == 0
        return found


def test_two_writers_a_build_and_a_reader_at_once(scene: Scene) -> None:
    """PRACTICE §7 test 1: no error anywhere, and every count exact.

    A build reads the lake many times. The writers end after the marts were built from what they wrote and before a test
    compares the marts with the lake, the worst moment, unless a file replaced under DuckDB failed a model before.
    """
    scene.restore("old")
    lake = Lake(scene.home.lake)
    spec = all_tables()["inspectlet/sessions"]
    rows = lake.row_counts(spec, SITE, [SATURDAY, SUNDAY])
    in_marts = len(Catalog.open().read("fct_sessions"))
    fifos = {name: scene.root / name for name in ("paused", "resume")}
    for fifo in fifos.values():
        os.mkfifo(fifo)
    pause = {"pause": "fct_sessions_equals_staging select count(*)", **{n: str(path) for n, path in fifos.items()}}
    with ExitStack() as stack:
        busy = {day: stack.enter_context(Busy(WRITER, scene.home.root, day)) for day in (SATURDAY, SUNDAY)}
        reader = stack.enter_context(Busy(READER, scene.home.root))
        scene.zygote.order(assets=list(REBUILT), dbt=pause)
        with fifos["paused"].open():
            pass
        written = {day: writer.stop() for day, writer in busy.items()}
        with fifos["resume"].open("w"):
            pass
        built = scene.zygote.answer()
        read = reader.stop()
    print(f"\n{ {str(day): len(counts) for day, counts in written.items()} } writes, {len(read)} reads, {built}")
    assert built == {"success": True, "failures": [], "dbt_runs": 2, "status": 0}
    assert marts(scene.home.warehouse) == scene.old
    assert len(read) > 1
    assert set(read) == {in_marts}
    for day, counts in written.items():
        assert set(counts) == {rows[day] - n for n in range(4)}
        assert counts[-1] == rows[day]
    assert lake.row_counts(spec, SITE, [SATURDAY, SUNDAY]) == rows
