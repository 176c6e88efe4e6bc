"""Replay links stay in the lake: the warehouse holds references, in a schema of their own, that lead back to them."""

from __future__ import annotations

import duckdb
import pytest

from analytics_platform_tests.dbt_project.conftest import Warehouse

PARTS_OF_LINKS = (
    "app.smartlook.com/",
    "watchsession",
    "accessresourcekey",
    "://inspectlet.com",
    "://www.inspectlet.com",
)


def test_links_live_in_their_own_schema_and_nowhere_else(built: Warehouse) -> None:
    found = built.rows(
        "SELECT schema_name, table_name FROM duckdb_columns() JOIN duckdb_tables() USING (schema_name, table_name) "
        "WHERE column_name IN ('link_ref', 'link_host')"
    )
    assert set(found) == {("replay", "fct_replay_links")}
    assert built.rows("SELECT DISTINCT schema_name FROM duckdb_tables() ORDER BY 1") == [("main",), ("replay",)]


def test_no_relation_and_no_view_shows_a_part_of_a_link(built: Warehouse) -> None:
    relations = built.rows(
        "SELECT schema_name, table_name FROM duckdb_tables() UNION ALL "
        "SELECT schema_name, view_name FROM duckdb_views() WHERE NOT internal"
    )
    assert len(relations) > 40
    for schema, name in relations:
        tests = " OR ".join(f"contains(lower(CAST(t AS VARCHAR)), '{part}')" for part in PARTS_OF_LINKS)
        assert built.rows(f'SELECT count(*) FROM "{schema}"."{name}" AS t WHERE {tests}') == [(0,)], name


def test_a_reference_leads_back_to_its_link_in_the_lake(built: Warehouse) -> None:
    rows = built.rows(
        "SELECT vendor, site_key, partition_date, link_ref, link_host FROM replay.fct_replay_links UNION "
        "SELECT 'inspectlet', site_key, partition_date, link_ref, link_host FROM stg_inspectlet__sessions ORDER BY ALL"
    )
    assert {row[0] for row in rows} == {"smartlook", "inspectlet"}
    columns = {"smartlook": "dashboard_url", "inspectlet": "session_link"}
    for vendor, site, day, reference, host in rows:
        path = built.lake.root / vendor / "sessions" / f"site={site}" / f"day={day}" / "part.parquet"
        link = columns[vendor]
        with duckdb.connect() as connection:
            found = connection.execute(
                f"SELECT DISTINCT {link} FROM '{path}' WHERE left(sha256('replay link' || chr(31) || {link}), 24) = ?",
                [reference],
            ).fetchall()
        assert len(found) == 1
        assert f"//{host}" in str(found[0][0]).replace("www.", "")


def test_outcomes_of_the_fixture(built: Warehouse) -> None:
    rows = built.rows(
        "SELECT vendor, outcome, count(*) FROM replay.fct_replay_links WHERE site_key = 'shop' "
        "GROUP BY ALL ORDER BY ALL"
    )
    # Inspectlet's session saw two pages and none of the funnel: nothing to watch it for.
    assert rows == [("smartlook", "bounced", 3), ("smartlook", "rage_clicked", 1)]


@pytest.mark.parametrize(
    ("vendor", "coverage", "reason"),
    [("smartlook", None, None), ("inspectlet", None, "partition_blocked"), ("any", None, "vendor_missing")],
)
def test_coverage_of_a_date_says_what_is_missing(
    built: Warehouse, vendor: str, coverage: float | None, reason: str | None
) -> None:
    (row,) = built.rows(
        "SELECT recorded_sessions, estimated_sessions, coverage, reason_null FROM fct_replay_coverage_daily "
        f"WHERE vendor = '{vendor}' AND site_key = 'shop' AND stat_date = DATE '2026-10-25' "
        "AND segment_dimension = 'all'"
    )
    if reason is None:
        # s2 and s3 are one common session, 20 minutes apart; s4 and s5 begin on either side of midnight in Berlin.
        assert row == (3, 50.0, 3 / 50, None)
    else:
        assert row == (None, 50.0, coverage, reason)
