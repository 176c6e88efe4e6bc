"""Publishing is all or nothing, and knows when it is behind the lake."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from analytics_platform.catalog import Catalog
from analytics_platform.core.errors import DataError
from analytics_platform.settings import Settings
from analytics_platform.transform.publish import (
    Build,
    current,
    inputs_digest,
    marts_are_current,
    publish,
    published_version,
    record_build,
    versions,
)
from analytics_platform.transform.warehouse import warehouse_connection
from analytics_platform_tests.transform.synthetic import (
    FIRST,
    NOVEMBER,
    SECOND,
    build_warehouse,
    manifest,
    settings_for,
    warehouse_with_lake,
    write_partition,
)

FAILPOINTS = [
    "publish.copied:1",
    "publish.exported:1",
    "publish.before_rename:1",
    "publish.before_pointer:1",
    "publish.after_pointer:1",
]

PUBLISH_ONCE = (
    "import sys; from pathlib import Path; from analytics_platform.transform.publish import publish; "
    "from analytics_platform_tests.transform.synthetic import manifest, settings_for; "
    "publish(settings_for(Path(sys.argv[1])), manifest=manifest())"
)


def _in_child(root: Path, failpoint: str) -> int:
    environment = {**os.environ, "ANALYTICS_PLATFORM_FAILPOINT": failpoint, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, "-c", PUBLISH_ONCE, str(root)], env=environment, check=False).returncode


def _sessions(settings: Settings) -> int:
    return int(Catalog.open(settings.home.root).sql("SELECT count(*) AS n FROM fct_sessions")["n"][0])


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return warehouse_with_lake(tmp_path)


def test_a_version_holds_the_marts_and_nothing_else(settings: Settings) -> None:
    made = publish(settings, manifest=manifest())
    assert made.version == 1 == published_version(settings)
    assert made.row_counts == {"fct_sessions": 6, "dim_vendor": 1}
    with duckdb.connect(str(made.database), read_only=True) as connection:
        tables = {
            n
            for (n,) in connection.execute(
                "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main'"
            ).fetchall()
        }
        views = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
        comments = connection.execute(
            "SELECT comment FROM duckdb_columns() WHERE column_name = 'session_key'"
        ).fetchall()
    assert tables == {"fct_sessions", "dim_vendor"}
    assert views == []
    assert comments == [("Key; it's unique.",)]


def test_published_files_are_read_only_and_readable_by_duckdb_1_5(settings: Settings) -> None:
    made = publish(settings, manifest=manifest())
    modes = {
        stat.S_IMODE(path.stat().st_mode) for path in made.path.rglob("*") if path.suffix in (".duckdb", ".parquet")
    }
    assert modes == {0o444}
    with duckdb.connect(str(made.database), read_only=True) as connection:
        (tags,) = connection.execute("SELECT tags FROM duckdb_databases() WHERE NOT internal").fetchall()[0]
    assert tags["storage_version"].startswith("v1.5.0")


def test_parquet_has_the_same_rows_by_month(settings: Settings) -> None:
    made = publish(settings, manifest=manifest())
    files = sorted(str(path.relative_to(made.path)) for path in made.path.rglob("*.parquet"))
    assert files == [
        "dim_vendor/part.parquet",
        "fct_sessions/month=2026-10/part.parquet",
        "fct_sessions/month=2026-11/part.parquet",
    ]
    rows = duckdb.sql(
        f"SELECT count(*), count(DISTINCT session_key) FROM '{made.path}/fct_sessions/*/*.parquet'"
    ).fetchall()
    assert rows == [(6, 6)]


def test_an_empty_mart_is_published_with_its_schema(settings: Settings) -> None:
    build_warehouse(settings, sessions=0)
    made = publish(settings, manifest=manifest())
    assert [path.parent.name for path in made.path.glob("fct_sessions/*/*.parquet")] == ["month=none"]
    assert next(iter(Catalog.open(settings.home.root).read("fct_sessions").columns)) == "session_key"


def test_erased_rows_leave_no_byte_in_a_version(settings: Settings) -> None:
    canary = "erase-me-" * 8
    with warehouse_connection(settings) as connection:
        connection.execute(
            "INSERT INTO fct_sessions BY NAME SELECT ? AS session_key, DATE '2026-10-30' AS session_date_local",
            [canary],
        )
    assert publish(settings, manifest=manifest()).row_counts["fct_sessions"] == 7
    with warehouse_connection(settings) as connection:
        connection.execute("DELETE FROM fct_sessions WHERE session_key = ?", [canary])
    made = publish(settings, manifest=manifest())
    assert all(canary.encode() not in path.read_bytes() for path in made.path.rglob("*") if path.is_file())


def test_the_last_three_versions_are_kept(settings: Settings) -> None:
    for _ in range(5):
        publish(settings, manifest=manifest())
    assert versions(settings.home) == [3, 4, 5]
    assert sorted(path.name for path in settings.home.published.glob("v=*")) == ["v=3", "v=4", "v=5"]


def test_a_mart_never_built_stops_the_publish_and_keeps_the_old_version(settings: Settings) -> None:
    publish(settings, manifest=manifest())
    with warehouse_connection(settings) as connection:
        connection.execute("DROP TABLE dim_vendor")
    with pytest.raises(DataError, match="Not built yet: dim_vendor"):
        publish(settings, manifest=manifest())
    assert published_version(settings) == 1
    build_warehouse(settings)
    assert publish(settings, manifest=manifest()).version == 2


@pytest.mark.parametrize("failpoint", FAILPOINTS)
def test_killed_anywhere_readers_see_a_whole_version(settings: Settings, failpoint: str) -> None:
    publish(settings, manifest=manifest())
    build_warehouse(settings, sessions=60)
    assert _in_child(settings.home.root, failpoint) == -signal.SIGKILL
    # Only a pointer that was moved shows the new rows; before that, the old version is untouched.
    assert _sessions(settings) == (60 if failpoint.startswith("publish.after_pointer") else 6)
    before = published_version(settings) or 0
    assert publish(settings, manifest=manifest()).version == before + 1
    assert _sessions(settings) == 60
    left = {path.name for path in settings.home.published.iterdir()} - {".lock", "current"}
    assert left == {f"v={number}" for number in versions(settings.home)}


def test_the_failpoints_tested_are_all_there_are(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = tmp_path / "trace"
    monkeypatch.setenv("ANALYTICS_PLATFORM_FAILPOINT_TRACE", str(trace))
    publish(settings, manifest=manifest())
    assert [f"{name}:1" for name in trace.read_text().split() if name.startswith("publish.")] == FAILPOINTS


# ------------------------------------------------------------------------------------------------------- currentness


def _build(settings: Settings, *, started: datetime | None = None, inputs: str | None = None) -> None:
    record_build(
        settings,
        Build(
            first_day=FIRST,
            last_day=NOVEMBER,
            started_at=started or datetime.now(UTC) + timedelta(seconds=1),  # after what the fixture just wrote
            inputs=inputs or inputs_digest(settings),
        ),
    )
    publish(settings, manifest=manifest())


def test_marts_are_current_right_after_a_build(settings: Settings) -> None:
    assert not marts_are_current(settings, FIRST, SECOND)
    _build(settings)
    assert marts_are_current(settings, FIRST, SECOND)
    found = current(settings.home)
    assert found is not None
    assert json.loads((settings.home.published / "current").read_text())["window"] == [str(FIRST), str(NOVEMBER)]


def test_days_no_build_covered_are_not_current(settings: Settings) -> None:
    _build(settings)
    assert not marts_are_current(settings, FIRST - timedelta(days=1), SECOND)
    assert not marts_are_current(settings, FIRST, NOVEMBER + timedelta(days=1))


def _touch(path: Path, seconds_later: float) -> None:
    later = datetime.now(UTC).timestamp() + seconds_later
    os.utime(path, (later, later))


def test_a_newer_partition_makes_its_day_and_the_neighbours_stale(settings: Settings) -> None:
    _build(settings)
    path = write_partition(settings, "shop", FIRST - timedelta(days=1), ["z"])
    _touch(path, 60)
    assert not marts_are_current(settings, FIRST, FIRST)
    assert marts_are_current(settings, SECOND, SECOND)


def test_a_newer_blocked_list_makes_everything_stale(settings: Settings) -> None:
    blocked = settings.home.lake / "_blocked" / "partitions.parquet"
    blocked.parent.mkdir(parents=True)
    blocked.write_bytes(b"")
    _build(settings)
    assert marts_are_current(settings, FIRST, SECOND)
    _touch(blocked, 60)
    assert not marts_are_current(settings, FIRST, SECOND)


def test_another_project_or_other_sites_make_everything_stale(settings: Settings) -> None:
    _build(settings, inputs="of another project")
    assert not marts_are_current(settings, FIRST, SECOND)
    _build(settings)
    assert marts_are_current(settings, FIRST, SECOND)
    moved = settings.model_copy(update={"sites": (settings.sites[0].model_copy(update={"timezone": "UTC"}),)})
    assert not marts_are_current(moved, FIRST, SECOND)


def test_a_build_that_was_not_published_does_not_count(settings: Settings) -> None:
    publish(settings, manifest=manifest())
    record_build(
        settings,
        Build(first_day=FIRST, last_day=SECOND, started_at=datetime.now(UTC), inputs=inputs_digest(settings)),
    )
    assert not marts_are_current(settings, FIRST, SECOND)


def test_nothing_published(tmp_path: Path) -> None:
    assert published_version(settings_for(tmp_path)) is None
    assert not marts_are_current(settings_for(tmp_path), FIRST, SECOND)
