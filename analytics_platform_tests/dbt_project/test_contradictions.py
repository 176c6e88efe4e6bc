"""Every contradiction of the vendors' documents is found by the dbt test of its name, were it in the data."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from analytics_platform_tests.dbt_project.conftest import DST_SUNDAY, SATURDAY, Warehouse, at, write_counter
from analytics_platform_tests.dbt_project.lake_fixture import FixtureLake

SITE = "other"
"""A site the small lake has nothing of: its partitions are written here and removed."""

FAILS = "fail"
WARNS = "warn"

CASES = {
    "assert_inspectlet_duration_unit": WARNS,
    "assert_inspectlet_page_count_consistent": WARNS,
    "assert_inspectlet_country_is_iso3166": WARNS,
    "assert_pirsch_bounce_rate_basis": WARNS,
    "assert_pirsch_day_is_local_date": FAILS,
    "assert_pirsch_goal_units": WARNS,
    "assert_pirsch_os_version_endpoint": WARNS,
    "assert_pirsch_breakdown_not_truncated": FAILS,
    "assert_kissmetrics_total_monotone": WARNS,
    "assert_kissmetrics_metric_status_type": WARNS,
    "assert_kameleoon_ms_epoch": FAILS,
    "assert_smartlook_cursor_not_persisted": FAILS,
}


def _inspectlet_session(sid: int, raw: float) -> dict[str, Any]:
    return {
        "wid": 1,
        "sid": sid,
        "started_at": at("2026-10-24 12:00"),
        "ended_at": at("2026-10-24 12:01"),
        "session_duration_raw": raw,
        "num_pages": 1,
        "listed_page_count": 2,
        "country_code": "EN",
    }


def _contradict(lake: FixtureLake) -> list[tuple[str, str, date]]:
    """Write what the documents say and the wire does not; returns the partitions written."""
    breakdown = {"stat_date": SATURDAY, "parent_value": "", "visitors": 1, "relative_visitors": 0.1}
    totals = {"visitors": 40, "views": 90, "sessions": 50, "bounces": 20, "bounce_rate": 0.5}
    goal = {"stat_date": SATURDAY, "goal_id": "g", "visitors": 4, "cr": 10.0, "path_pattern": "/a", "pattern": "^/a$"}
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {
        ("inspectlet", "sessions"): [_inspectlet_session(1, 60_000), _inspectlet_session(2, 60)],
        # Bounces divided by visitors, and a date shifted by a time zone.
        ("pirsch", "daily_stats"): [{**totals, "stat_date": DST_SUNDAY}, {**totals, "stat_date": SATURDAY}],
        ("pirsch", "goals"): [{**goal, "possibly_truncated": False}],
        ("pirsch", "breakdowns"): [
            {**breakdown, "dimension": "os", "value": "Windows", "possibly_truncated": True},
            {**breakdown, "dimension": "os_version", "value": "Windows", "possibly_truncated": False},
        ],
        ("kissmetrics", "metrics"): [{"snapshot_date": SATURDAY, "metric_id": "m", "status": "sometimes"}],
        ("kameleoon", "visits"): [{"visitor_code": "c", "started_at": at("1970-01-21 17:41")}],
        ("smartlook", "events"): [{"event_id": "e", "started_at": at("2026-10-24 12:00"), "selector": CURSOR_LINK}],
    }
    for (vendor, table), written in rows.items():
        lake.write(vendor, table, SITE, SATURDAY, written)
    write_counter(lake, SATURDAY, total=100, site=SITE)
    write_counter(lake, DST_SUNDAY, total=90, site=SITE)
    counted = [("kissmetrics", "events", day) for day in (SATURDAY, DST_SUNDAY)]
    return [*((vendor, table, SATURDAY) for vendor, table in rows), *counted]


CURSOR_LINK = "/api/events?after=HellOW0rLD&limit=10"


@pytest.fixture
def contradicting_lake(lake: FixtureLake) -> Iterator[FixtureLake]:
    written = _contradict(lake)
    yield lake
    for vendor, table, day in written:
        lake.remove(vendor, table, SITE, day)


def test_each_contradiction_is_found_by_its_test(built: Warehouse, contradicting_lake: FixtureLake) -> None:
    warehouse = Warehouse(contradicting_lake, Path(built.folder.parent) / "contradictions")
    shutil.copytree(built.folder, warehouse.folder)

    result = warehouse.dbt("test", "--select", *CASES)

    assert {r.node.name: str(r.status) for r in result.result} == CASES
