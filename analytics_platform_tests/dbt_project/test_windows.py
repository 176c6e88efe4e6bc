"""A rebuilt window is replaced whole; nothing outside it moves, on the first build as on later ones."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from analytics_platform_tests.dbt_project.conftest import (
    DST_SUNDAY,
    MONDAY,
    SATURDAY,
    Warehouse,
    failures,
    saturday_sessions,
    sunday_sessions,
)
from analytics_platform_tests.dbt_project.lake_fixture import FixtureLake

MARTS = (
    "--select",
    "+fct_sessions",
    "+fct_daily_traffic",
    "+fct_replay_links",
    "+fct_replay_coverage_daily",
    "+fct_visitor_windows",
    "+fct_event_daily",
)
SESSIONS = "SELECT vendor_session_id FROM fct_sessions WHERE vendor = 'smartlook' AND site_key = 'shop' ORDER BY 1"


@pytest.fixture
def thinned_lake(lake: FixtureLake) -> Iterator[FixtureLake]:
    """Sessions vanish: all but one of Sunday's (to be rebuilt), and one of Saturday's (outside the window)."""
    lake.write("smartlook", "sessions", "shop", DST_SUNDAY, sunday_sessions()[:1])
    lake.write("smartlook", "sessions", "shop", SATURDAY, saturday_sessions()[1:])
    yield lake
    lake.write("smartlook", "sessions", "shop", DST_SUNDAY, sunday_sessions())
    lake.write("smartlook", "sessions", "shop", SATURDAY, saturday_sessions())


def test_vanished_rows_leave_the_window_and_only_the_window(built: Warehouse, thinned_lake: FixtureLake) -> None:
    warehouse = Warehouse(thinned_lake, built.folder.parent / "vanish")
    shutil.copytree(built.folder, warehouse.folder)
    assert [row[0] for row in warehouse.rows(SESSIONS)] == ["s0", "s1", "s2", "s3", "s4", "s5"]

    result = warehouse.dbt("run", *MARTS, window=(DST_SUNDAY, MONDAY))

    assert failures(result) == []
    assert [row[0] for row in warehouse.rows(SESSIONS)] == ["s0", "s1", "s2"]
    traffic = warehouse.rows(
        "SELECT stat_date, sessions FROM fct_daily_traffic "
        "WHERE vendor = 'smartlook' AND site_key = 'shop' AND basis = 'native' ORDER BY 1"
    )
    assert traffic == [(SATURDAY, 1), (DST_SUNDAY, 2), (MONDAY, 0)]
    for mart in ("fct_visitor_windows", "fct_event_daily"):
        beside = warehouse.rows(
            f"SELECT count(*) FROM {mart} WHERE stat_date NOT BETWEEN '{DST_SUNDAY}' AND '{MONDAY}'"
        )
        assert beside == built.rows(
            f"SELECT count(*) FROM {mart} WHERE stat_date NOT BETWEEN '{DST_SUNDAY}' AND '{MONDAY}'"
        ), "what is replaced with a margin comes back once"


def test_a_first_build_with_a_window_builds_the_window(
    built: Warehouse, lake: FixtureLake, tmp_path_factory: pytest.TempPathFactory
) -> None:
    warehouse = Warehouse(lake, tmp_path_factory.mktemp("first"))

    result = warehouse.dbt(
        "build", *MARTS, "--exclude-resource-type", "unit_test", "test", window=(DST_SUNDAY, DST_SUNDAY)
    )

    assert failures(result) == []
    for mart, column in (
        ("fct_sessions", "session_date_local"),
        ("fct_daily_traffic", "stat_date"),
        ("replay.fct_replay_links", "session_date_local"),
        ("fct_replay_coverage_daily", "stat_date"),
    ):
        there = f"SELECT * FROM {mart} WHERE {column} = DATE '{DST_SUNDAY}' ORDER BY ALL"
        assert warehouse.rows(f"SELECT DISTINCT {column} FROM {mart}") == [(DST_SUNDAY,)]
        assert warehouse.rows(there) == built.rows(there), "the window decides which rows, never what they say"
