"""What the marts of pages, events and breakdowns say about the small lake, and that late data ends in the same rows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from analytics_platform_tests.dbt_project.conftest import (
    DST_SUNDAY,
    MONDAY,
    SATURDAY,
    Warehouse,
    at,
    failures,
    saturday_sessions,
    sunday_sessions,
    write_counter,
)
from analytics_platform_tests.dbt_project.lake_fixture import FixtureLake
from analytics_platform_tests.dbt_project.pages_events_lake import smartlook_event, write_pages_and_events

MARTS = {
    "fct_page_views": "session_date_local",
    "fct_events": "session_date_local",
    "fct_page_daily": "stat_date",
    "fct_event_daily": "stat_date",
    "fct_daily_breakdown": "stat_date",
}
"""The incremental marts of pages, events and breakdowns, and the date their window is of."""


def test_views_are_numbered_and_count_on_their_session_s_date(built: Warehouse) -> None:
    rows = built.rows(
        "SELECT vendor_session_id, view_number, path, is_entry, is_exit, v.session_date_local FROM fct_page_views v "
        "JOIN fct_sessions USING (session_key) WHERE v.vendor = 'smartlook' AND v.site_key = 'shop' "
        "AND vendor_session_id IN ('s1', 's2', 's5') ORDER BY ALL"
    )
    assert rows == [
        ("s1", 1, "/", True, True, DST_SUNDAY),
        ("s2", 1, "/", True, False, DST_SUNDAY),
        ("s2", 2, "/a", False, False, DST_SUNDAY),
        ("s2", 3, "/b", False, True, DST_SUNDAY),
        ("s5", 1, "/", True, True, MONDAY),
    ]


def _page(built: Warehouse, vendor: str, path: str) -> list[tuple[Any, ...]]:
    return built.rows(
        "SELECT visitors, views, sessions, bounces, entries, exits, average_time_seconds, reason_null "
        f"FROM fct_page_daily WHERE vendor = '{vendor}' AND site_key = 'shop' "
        f"AND stat_date = DATE '{DST_SUNDAY}' AND path = '{path}'"
    )


def test_pages_of_a_date_derived_and_reported(built: Warehouse) -> None:
    # s1, s2 and s4 began on '/', of three visitors; s1 and s4 saw nothing else.
    assert _page(built, "smartlook", "/") == [(3, 3, 3, 2, 3, 2, None, "average_time_seconds=no_page_times")]
    assert _page(built, "pirsch", "/") == [(30, 60, 35, 2, 34, 20, 8.0, None)]
    # Whole lists: what they leave out is zero. A rate that was not reported stays unknown.
    assert _page(built, "pirsch", "/late") == [
        (1, 0, 1, 0, 0, 1, None, "entry_rate=list_cut, average_time_seconds=no_views")
    ]


def test_a_page_is_the_same_for_every_vendor_that_saw_it(built: Warehouse) -> None:
    rows = built.rows(
        "SELECT path, depth, seen_by FROM dim_page WHERE site_key = 'shop' AND path IN ('/', '/late') ORDER BY 1"
    )
    assert rows == [("/", 0, "inspectlet, kameleoon, pirsch, smartlook"), ("/late", 1, "pirsch")]


def test_events_keep_their_date_and_lose_their_values(built: Warehouse) -> None:
    rows = built.rows(
        "SELECT vendor_event_id, session_key IS NOT NULL, session_date_local, event_date_local, event_type, url, "
        "sample_rate FROM fct_events WHERE vendor = 'smartlook' ORDER BY 1"
    )
    assert rows == [
        ("e1", True, DST_SUNDAY, DST_SUNDAY, "click", "https://shop.example/a", 0.5),
        ("e2", True, DST_SUNDAY, MONDAY, "rage_click", "https://shop.example/a", 0.5),
        ("e3", False, DST_SUNDAY, DST_SUNDAY, "click", None, 0.5),
    ]


def test_daily_events_of_every_source(built: Warehouse) -> None:
    rows = built.rows(
        "SELECT vendor, stat_date, event_name, occurrences, unique_visitors, source, day_basis, reason_null "
        "FROM fct_event_daily ORDER BY ALL"
    )
    assert rows == [
        ("inspectlet", SATURDAY, "email", 1, 1, "derived", "site", None),
        ("inspectlet", SATURDAY, "plan", 2, 1, "derived", "site", None),
        ("kameleoon", DST_SUNDAY, "goal 85", 1, 1, "derived", "site", None),
        (
            "kissmetrics",
            DST_SUNDAY,
            "Visited Site",
            40,
            None,
            "counter_growth",
            "snapshot",
            "unique_visitors=not_offered",
        ),
        ("pirsch", DST_SUNDAY, "Signup", 5, 3, "reported", "site", None),
        ("smartlook", DST_SUNDAY, "click", 9, 4, "reported", "utc", None),
    ]


def test_a_cut_list_has_a_row_for_what_it_leaves_out(built: Warehouse) -> None:
    rows = built.rows(
        "SELECT dimension, value, visitors, is_list_cut FROM fct_daily_breakdown WHERE vendor = 'pirsch' AND is_other"
    )
    assert rows == [("city", "(other)", 48, True)]


@pytest.mark.parametrize(
    ("vendor", "dimension", "expected"),
    [
        ("pirsch", "os", [("", "other", 9, None), ("Windows", "windows", 40, None)]),
        ("smartlook", "os", [("windows", "windows", 3, 4)]),
        ("pirsch", "country", [("de", "DE", 49, None)]),
        ("smartlook", "country", [("DE", "DE", 3, 4)]),
        ("kameleoon", "platform", [("mobile", "mobile", 1, 1)]),
        ("kameleoon", "device", [("tablet", "tablet", 1, 1)]),
        ("smartlook", "utm_source", []),
    ],
)
def test_vendors_break_down_in_the_same_words(
    built: Warehouse, vendor: str, dimension: str, expected: list[tuple[Any, ...]]
) -> None:
    rows = built.rows(
        "SELECT value, value_norm, visitors, sessions FROM fct_daily_breakdown WHERE site_key = 'shop' "
        f"AND vendor = '{vendor}' AND dimension = '{dimension}' AND stat_date = DATE '{DST_SUNDAY}' ORDER BY ALL"
    )
    assert rows == expected


@pytest.fixture
def late_lake(lake: FixtureLake) -> Iterator[FixtureLake]:
    """A session moves over midnight (its old row stays behind), another vanishes, an event is late, a counter grew."""
    sessions = sunday_sessions()
    moved = {**saturday_sessions()[0], "started_at": sessions[0]["started_at"], "ended_at": sessions[0]["ended_at"]}
    lake.write("smartlook", "sessions", "shop", DST_SUNDAY, [moved, *sessions[:-1]], at("2026-11-21 02:00"))
    late = smartlook_event("e9", "s0", "v0", "2026-10-25 10:02", event_name="late")
    lake.write("smartlook", "events", "shop", DST_SUNDAY, [late])
    write_counter(lake, MONDAY, total=150)
    yield lake
    lake.write("smartlook", "sessions", "shop", DST_SUNDAY, sessions)
    write_counter(lake, MONDAY, total=140)
    write_pages_and_events(lake)


def test_late_data_gives_what_a_full_build_gives(built: Warehouse, late_lake: FixtureLake) -> None:
    """What the marts held before leaves no trace in the window: not a row, not a number."""
    warehouse = Warehouse(late_lake, built.folder.parent / "late")
    shutil.copytree(built.folder, warehouse.folder)
    build = ("build", "--exclude-resource-type", "unit_test", "test", "--select", *(f"+{mart}" for mart in MARTS))
    queries = {
        mart: f"SELECT * FROM {mart} WHERE {column} BETWEEN DATE '{SATURDAY}' AND DATE '{MONDAY}' ORDER BY ALL"
        for mart, column in MARTS.items()
    }

    assert failures(warehouse.dbt(*build, window=(SATURDAY, MONDAY))) == []
    incremental = {mart: warehouse.rows(query) for mart, query in queries.items()}
    assert failures(warehouse.dbt(*build, "--full-refresh", window=(SATURDAY, MONDAY))) == []

    assert incremental == {mart: warehouse.rows(query) for mart, query in queries.items()}
    unchanged = [mart for mart, query in queries.items() if incremental[mart] == built.rows(query)]
    assert unchanged == [], "the late data did not reach these"
    assert warehouse.rows("SELECT session_date_local FROM fct_events WHERE event_name = 'late'") == [(DST_SUNDAY,)]
