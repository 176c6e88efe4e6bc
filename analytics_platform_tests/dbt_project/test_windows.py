"""A rebuilt window is replaced whole; nothing outside it moves, on the first build as on later ones."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import date

import duckdb
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


KEYS_AND_VALUES = (
    "dim_visitor_one_row_per_visitor",
    "dim_visitor_one_vendor_id_one_row",
    "fct_page_views_session_is_known",
)


def test_what_a_build_wrote_is_held_against_everything(built: Warehouse, lake: FixtureLake) -> None:
    """A visitor of the window who has an old row too, and a view of an unknown session, fail; what the build did not
    touch is left to the build that wrote it.
    """
    warehouse = Warehouse(lake, built.folder.parent / "wrote")
    shutil.copytree(built.folder, warehouse.folder)

    def found(window: tuple[date, date] | None) -> list[str]:
        told = failures(warehouse.dbt("test", "--select", *KEYS_AND_VALUES, window=window))
        return sorted(text.split(":")[0].removeprefix("fail ") for text in told)

    assert found((MONDAY, MONDAY)) == []
    (visitor,) = warehouse.rows(
        f"SELECT min(visitor_key) FROM dim_visitor WHERE last_seen_date = DATE '{DST_SUNDAY}' AND first_seen_date "
        f"= DATE '{DST_SUNDAY}'"
    )[0]
    with duckdb.connect(str(warehouse.database)) as connection:
        connection.execute(
            "INSERT INTO dim_visitor SELECT * REPLACE (DATE '2026-01-01' AS first_seen_date, DATE '2026-01-02' AS "
            "last_seen_date) FROM dim_visitor WHERE visitor_key = ?",
            [visitor],
        )
        connection.execute(
            "INSERT INTO fct_page_views SELECT * REPLACE ('nobody' AS session_key) FROM fct_page_views "
            f"WHERE session_date_local = DATE '{DST_SUNDAY}' LIMIT 1"
        )
    assert found((DST_SUNDAY, DST_SUNDAY)) == sorted(KEYS_AND_VALUES)
    assert found(None) == sorted(KEYS_AND_VALUES)
    assert found((date(2026, 11, 20), date(2026, 11, 20))) == []
