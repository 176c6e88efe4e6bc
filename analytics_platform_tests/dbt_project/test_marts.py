"""What the marts say about a lake small enough to count by hand (see conftest)."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from analytics_platform_tests.dbt_project.conftest import DST_SUNDAY, MONDAY, SATURDAY, Warehouse

MEASURES = "visitors, sessions, views, bounces"


def _traffic(
    warehouse: Warehouse, vendor: str, day: date, basis: str = "native", site: str = "shop"
) -> tuple[Any, ...] | None:
    rows = warehouse.rows(
        f"SELECT {MEASURES} FROM fct_daily_traffic WHERE vendor = '{vendor}' AND site_key = '{site}' "
        f"AND stat_date = DATE '{day}' AND basis = '{basis}'"
    )
    assert len(rows) <= 1
    return rows[0] if rows else None


def _reason(warehouse: Warehouse, vendor: str, day: date, basis: str = "native") -> str | None:
    rows = warehouse.rows(
        f"SELECT reason_null FROM fct_daily_traffic WHERE vendor = '{vendor}' AND site_key = 'shop' "
        f"AND stat_date = DATE '{day}' AND basis = '{basis}'"
    )
    return rows[0][0]


@pytest.mark.parametrize(
    ("vendor", "day", "basis", "expected"),
    [
        pytest.param("smartlook", SATURDAY, "native", (1, 1, 2, 0), id="a-session-belongs-to-its-start-date"),
        pytest.param("smartlook", DST_SUNDAY, "native", (3, 4, 6, 3), id="25-hour-sunday"),
        pytest.param("smartlook", MONDAY, "native", (1, 1, 1, 1), id="after-midnight-in-berlin-not-in-utc"),
        pytest.param("smartlook", DST_SUNDAY, "common", (3, 3, 7, 1), id="common-merges-20-minutes-and-over-midnight"),
        pytest.param("smartlook", MONDAY, "common", (0, 0, 0, 0), id="landed-and-empty-is-a-true-zero"),
        pytest.param("inspectlet", SATURDAY, "native", (1, 1, 1, 1), id="one-page-by-num-pages"),
        pytest.param("inspectlet", SATURDAY, "common", (1, 1, 1, 0), id="landing-and-exit-differ-so-no-common-bounce"),
        pytest.param("kameleoon", DST_SUNDAY, "native", (1, 1, 1, 1), id="panel"),
        pytest.param("kameleoon", DST_SUNDAY, "common", (1, 1, 1, 0), id="a-conversion-is-no-bounce"),
        pytest.param("pirsch", DST_SUNDAY, "native", (49, 50, 100, 2), id="pirsch-local-date-as-it-is"),
        pytest.param("pirsch", DST_SUNDAY, "common", (49, 50, 100, None), id="pirsch-has-no-session-rows"),
        pytest.param("kissmetrics", DST_SUNDAY, "native", (None, 40, None, None), id="growth-of-the-counter"),
        pytest.param("kissmetrics", MONDAY, "native", (None, None, None, None), id="no-second-snapshot"),
    ],
)
def test_daily_traffic_counts(
    built: Warehouse, vendor: str, day: date, basis: str, expected: tuple[int | None, ...]
) -> None:
    assert _traffic(built, vendor, day, basis) == expected


@pytest.mark.parametrize(
    ("vendor", "day", "reason"),
    [
        ("inspectlet", DST_SUNDAY, "all=partition_blocked"),
        ("inspectlet", MONDAY, "all=partition_blocked"),
        ("kameleoon", SATURDAY, "all=not_landed"),
        ("kissmetrics", MONDAY, "all=fewer_than_two_snapshots"),
        ("pirsch", MONDAY, "average_session_seconds=no_durations"),
        ("pirsch", SATURDAY, None),
    ],
)
def test_null_has_a_reason(built: Warehouse, vendor: str, day: date, reason: str | None) -> None:
    assert _reason(built, vendor, day) == reason


def test_every_enabled_vendor_has_every_site_day_on_both_bases(built: Warehouse) -> None:
    rows = built.rows("SELECT site_key, vendor, count(*) FROM fct_daily_traffic GROUP BY ALL ORDER BY ALL")
    shop = [("shop", v, 6) for v in ("inspectlet", "kameleoon", "kissmetrics", "pirsch", "smartlook")]
    assert rows == [("blog", "smartlook", 2), *shop]


def test_a_day_is_complete_only_with_all_its_utc_partitions(built: Warehouse) -> None:
    rows = built.rows(
        "SELECT site_key, stat_date, is_complete_day FROM fct_daily_traffic "
        "WHERE vendor = 'smartlook' AND basis = 'native' ORDER BY ALL"
    )
    assert rows == [
        ("blog", SATURDAY, False),
        ("shop", SATURDAY, False),
        ("shop", DST_SUNDAY, True),
        ("shop", MONDAY, True),
    ]


def test_sessions_of_refused_partitions_are_unseen(built: Warehouse) -> None:
    assert built.rows("SELECT vendor_session_id FROM fct_sessions WHERE vendor = 'inspectlet'") == [("1-2606721012",)]


def test_sessions_speak_one_language(built: Warehouse) -> None:
    rows = built.rows(
        "SELECT vendor, device_class, browser_family, os_family, country_code, duration_seconds, duration_source, "
        "is_new_visitor, landing_url FROM fct_sessions WHERE vendor <> 'smartlook' ORDER BY vendor"
    )
    assert rows == [
        (
            "inspectlet", "phone", "safari", "ios", "GB", 286.893, "inferred", True,
            "http://www.shop.example/?utm_source=Mail",
        ),
        ("kameleoon", "tablet", "other", "macos", "FR", 4.0, "wallclock", True, "https://shop.example/"),
    ]  # fmt: skip


def test_a_new_visitor_is_unknown_where_the_visitor_list_is_missing(built: Warehouse) -> None:
    rows = built.rows(
        "SELECT vendor_session_id, is_new_visitor FROM fct_sessions "
        "WHERE vendor = 'smartlook' AND site_key = 'shop' ORDER BY 1"
    )
    assert rows == [("s0", None), ("s1", None), ("s2", True), ("s3", False), ("s4", False), ("s5", False)]


def test_no_canary_reaches_a_mart_or_the_file(built: Warehouse) -> None:
    assert b"canary" not in built.database.read_bytes()


def test_dimensions(built: Warehouse) -> None:
    assert built.rows("SELECT site_key, timezone, hostname, enabled_vendor_count FROM dim_site ORDER BY 1") == [
        ("blog", "America/Los_Angeles", None, 1),
        ("shop", "Europe/Berlin", "shop.example", 5),
    ]
    assert built.rows("SELECT vendor, enabled_site_count FROM dim_vendor ORDER BY 1") == [
        ("inspectlet", 1),
        ("kameleoon", 1),
        ("kissmetrics", 1),
        ("pirsch", 1),
        ("smartlook", 2),
    ]
    assert built.rows("SELECT count(*) FROM dim_metric_definition") == [(90,)]


def test_a_window_prunes_files_by_path(built: Warehouse) -> None:
    plan = built.rows(
        f"EXPLAIN ANALYZE SELECT count(*) FROM stg_smartlook__sessions WHERE partition_date = DATE '{DST_SUNDAY}'"
    )
    assert "Scanning Files: 1/5" in plan[0][1]
