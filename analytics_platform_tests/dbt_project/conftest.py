"""One small lake, built once by dbt in this process, for every test of this folder."""

from __future__ import annotations

import gc
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pytest

from analytics_platform.transform.project import manifest_path, parsed_for, prepared_parse
from analytics_platform_tests.dbt_project.lake_fixture import FixtureLake
from analytics_platform_tests.dbt_project.pages_events_lake import write_pages_and_events
from analytics_platform_tests.transform.synthetic import settings_for

PROJECT = Path(__file__).parents[2] / "dbt_project"

SATURDAY, DST_SUNDAY, MONDAY = date(2026, 10, 24), date(2026, 10, 25), date(2026, 10, 26)
"""Berlin leaves summer time on the Sunday: 25 hours."""


def at(text: str) -> datetime:
    """A UTC instant as the lake stores it: without a zone."""
    return datetime.fromisoformat(text)


@dataclass
class Warehouse:
    """A dbt project, a lake, and the database file the one makes of the other."""

    lake: FixtureLake
    folder: Path

    @property
    def database(self) -> Path:
        return self.folder / "warehouse.duckdb"

    def dbt(self, *arguments: str, window: tuple[date, date] | None = None) -> Any:
        """Run dbt in this process (start-up and parse once), leave no connection open, and return dbt's result."""
        # Variables of one's own may decide what is parsed; a window is asked for when a model runs.
        manifest = None if "--vars" in arguments else parsed_for(self.lake.root, prepared())
        command = list(arguments)
        if window:
            days = {"window_start": window[0].isoformat(), "window_end": window[1].isoformat()}
            command += ["--vars", json.dumps(days)]
        return run_dbt(command, self.lake.root, self.database, self.folder / "target", manifest)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.database), read_only=True) as connection:
            return connection.execute(sql).fetchall()

    def manifest(self) -> Mapping[str, Any]:
        loaded: Mapping[str, Any] = json.loads((self.folder / "target" / "manifest.json").read_text())
        return loaded


def run_dbt(
    command: list[str], lake: Path, database: Path, target: Path, manifest: Any = None, *, directory: Path = PROJECT
) -> Any:
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner

    command += ["--project-dir", str(directory), "--profiles-dir", str(PROJECT)]
    command += ["--quiet", "--log-level-file", "none"]  # dbt never closes its log file: a ResourceWarning here
    environment = {
        "ANALYTICS_PLATFORM_LAKE": str(lake),
        "ANALYTICS_PLATFORM_WAREHOUSE": str(database),
        "DBT_TARGET_PATH": str(target),
        "DBT_NO_COLORS": "1",
    }
    before = dict(os.environ)
    os.environ.update(environment)
    with warnings.catch_warnings():  # dbt-duckdb gives each Python model an event loop and closes none
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            return dbtRunner(manifest=manifest).invoke(command)
        finally:
            os.environ.clear()
            os.environ.update(before)
            DuckDBConnectionManager.close_all_connections()
            gc.collect()


@cache
def prepared() -> Path:
    """What `make install` parsed; made here where it was not, or is no longer what the project says."""
    with TemporaryDirectory() as folder:
        settings = settings_for(Path(folder))
        manifest_path(settings)
        found = prepared_parse(settings)
    assert found is not None
    return found


def failures(result: Any) -> list[str]:
    """What did not go well in a dbt result, in words; warnings included."""
    if result.exception:
        return [repr(result.exception)]
    return [
        f"{r.status} {r.node.name}: {r.message}" for r in result.result if r.status not in ("success", "pass", "no-op")
    ]


def _smartlook_session(
    session_id: str, visitor: str, start: datetime, end: datetime, pages: list[str]
) -> dict[str, Any]:
    urls = [f"https://shop.example{page}" for page in pages]
    return {
        "session_id": session_id,
        "visitor_id": visitor,
        "started_at": start,
        "ended_at": end,
        "duration_seconds": (end - start).total_seconds(),
        "page_urls": urls,
        "page_count": len(urls),
        "landing_url": urls[0],
        "exit_url": urls[-1],
        "device_type": "desktop",
        "browser_name": "Chrome",
        "os_name": "Windows",
        "country_code": "DE",
        "email": "canary@example.org",
        "dashboard_url": "https://app.smartlook.com/canary",
    }


def _inspectlet_session(sid: int, start: datetime, end: datetime, raw: float, pages: int) -> dict[str, Any]:
    return {
        "wid": 1,
        "sid": sid,
        "uid": 7,
        "started_at": start,
        "ended_at": end,
        "session_duration_raw": raw,
        "duration_unit": "milliseconds" if raw > 1000 else "seconds",
        "num_pages": pages,
        "listed_page_count": 1,
        "is_new_visitor": True,
        "landing_url": "http://www.shop.example\\/?utm_source=Mail&kmi=canary%40example.org",
        "exit_url": "http://www.shop.example/product-1123",
        "referrer_source": "d",
        "browser_name": "mobile safari",
        "user_agent": "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X)",
        "country_code": "UK",
        "device_type": "phone",
        "session_link": "http://www.inspectlet.com/x?accessResourceKey=canary",
    }


def saturday_sessions() -> list[dict[str, Any]]:
    """One at noon; one that starts after midnight in Berlin."""
    return [
        _smartlook_session("s0", "v0", at("2026-10-24 10:00"), at("2026-10-24 10:10"), ["/", "/a"]),
        _smartlook_session("s1", "v1", at("2026-10-24 22:30"), at("2026-10-24 22:30:05"), ["/"]),
    ]


def sunday_sessions() -> list[dict[str, Any]]:
    """Two of one visitor 20 minutes apart; two of another 25 minutes apart across midnight in Berlin."""
    return [
        _smartlook_session("s2", "v2", at("2026-10-25 10:00"), at("2026-10-25 10:15"), ["/", "/a", "/b"]),
        _smartlook_session("s3", "v2", at("2026-10-25 10:35"), at("2026-10-25 10:35:04"), ["/c"]),
        _smartlook_session("s4", "v3", at("2026-10-25 22:59"), at("2026-10-25 23:05"), ["/"]),
        _smartlook_session("s5", "v3", at("2026-10-25 23:30"), at("2026-10-25 23:30:03"), ["/"]),
    ]


def _write_smartlook(lake: FixtureLake) -> None:
    lake.write("smartlook", "sessions", "shop", SATURDAY, saturday_sessions())
    lake.write("smartlook", "sessions", "shop", DST_SUNDAY, sunday_sessions())
    lake.write("smartlook", "sessions", "shop", MONDAY, [])
    first_seen = {"visitor_id": "v2", "first_seen_at": at("2026-10-25 10:00")}
    lake.write("smartlook", "visitors", "shop", DST_SUNDAY, [first_seen])
    blog = [
        _smartlook_session("b1", "w1", at("2026-10-24 06:59"), at("2026-10-24 07:00"), ["/"]),
        _smartlook_session("b2", "w1", at("2026-10-24 20:00"), at("2026-10-24 20:01"), ["/"]),
    ]
    lake.write("smartlook", "sessions", "blog", SATURDAY, blog)


def _write_inspectlet(lake: FixtureLake) -> None:
    start, end = at("2026-10-24 12:00"), at("2026-10-24 12:04:49")
    lake.write("inspectlet", "sessions", "shop", SATURDAY, [_inspectlet_session(2606721012, start, end, 286893, 1)])
    page = {
        "wid": 1,
        "sid": 2606721012,
        "page_index": 1,
        "session_started_at": start,
        "page_url": "http://shop.example/",
    }
    lake.write("inspectlet", "session_pages", "shop", SATURDAY, [page])
    refused = _inspectlet_session(5, at("2026-10-25 12:00"), at("2026-10-25 12:01"), 60, 1)
    lake.write("inspectlet", "sessions", "shop", DST_SUNDAY, [refused])
    lake.block([("inspectlet", "sessions", "shop", DST_SUNDAY)])


def _write_pirsch(lake: FixtureLake) -> None:
    for day, sessions in ((SATURDAY, 48), (DST_SUNDAY, 50), (MONDAY, 2)):
        row = {
            "stat_date": day,
            "visitors": sessions - 1,
            "views": sessions * 2,
            "sessions": sessions,
            "bounces": 2,
            "bounce_rate": 2 / sessions,
            "average_session_seconds": 30.0 if sessions > 2 else 0.0,
        }
        lake.write("pirsch", "daily_stats", "shop", day, [row])


def _write_kameleoon(lake: FixtureLake) -> None:
    visit = {
        "visitor_code": "code1",
        "started_at": at("2026-10-25 09:00"),
        "last_event_at": at("2026-10-25 09:00:04"),
        "duration_seconds": 4.0,
        "page_count": 1,
        "landing_url": "https://shop.example/",
        "visit_number": 0,
        "device_type": "TABLET",
        "browser": "OTHER",
        "os": "MAC",
        "country": "France",
    }
    conversion = {
        "visitor_code": "code1",
        "visit_started_at": at("2026-10-25 09:00"),
        "conversion_number": 1,
        "goal_id": "85",
        "is_reversal": False,
    }
    page = {
        "visitor_code": "code1",
        "visit_started_at": at("2026-10-25 09:00"),
        "page_number": 1,
        "url": "https://shop.example/",
    }
    lake.write("kameleoon", "visits", "shop", DST_SUNDAY, [visit])
    lake.write("kameleoon", "visit_pages", "shop", DST_SUNDAY, [page])
    lake.write("kameleoon", "conversions", "shop", DST_SUNDAY, [conversion])
    lake.write("kameleoon", "visits", "shop", MONDAY, [])


def write_counter(lake: FixtureLake, day: date, *, total: int, site: str = "shop") -> None:
    """The lifetime counter of Visited Site as read on a date at ten."""
    row = {"snapshot_date": day, "event_id": "e1", "name": "Visited Site", "total": total}
    lake.write("kissmetrics", "events", site, day, [row], at(f"{day} 10:00"))


@contextmanager
def fixture_lake(root: Path) -> Iterator[FixtureLake]:
    """The lake of this folder's tests, open for writing inside the block."""
    made = FixtureLake(root)
    vendors = ("smartlook", "inspectlet", "pirsch", "kameleoon", "kissmetrics")
    shop = [("shop", "Europe/Berlin", "www.Shop.example", SATURDAY, v, "id", True) for v in vendors]
    blog = [("blog", "America/Los_Angeles", None, SATURDAY, v, "id", v == "smartlook") for v in vendors[:2]]
    made.sites([*shop, *blog])
    _write_smartlook(made)
    _write_inspectlet(made)
    _write_pirsch(made)
    _write_kameleoon(made)
    write_counter(made, DST_SUNDAY, total=100)
    write_counter(made, MONDAY, total=140)
    write_pages_and_events(made)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FixtureLake]:
    with fixture_lake(tmp_path_factory.mktemp("lake")) as made:
        yield made


@pytest.fixture(scope="session")
def built(lake: FixtureLake, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """The whole project, unit tests included, built once with an open window. Read only."""
    warehouse = Warehouse(lake, tmp_path_factory.mktemp("built"))
    result = warehouse.dbt("build")
    assert [f for f in failures(result) if not f.startswith("warn")] == []
    return warehouse
