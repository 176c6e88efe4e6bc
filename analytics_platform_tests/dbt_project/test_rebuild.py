"""A full refresh and any sequence of incremental builds with late data give the same marts (see `rebuild`)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from analytics_platform.core.truths import HELD_BACK
from analytics_platform_tests.dbt_project.conftest import DST_SUNDAY, Warehouse
from analytics_platform_tests.dbt_project.rebuild import (
    Landing,
    Rebuilder,
    Tally,
    check_sequences,
    compile_project,
    differences_after,
)

# A dbt invocation in this process left event loops to the garbage collector (2026-11-21; the cause is not found).
pytestmark = [
    pytest.mark.timeout(280),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SEQUENCES = 2
SITE = "shop"
COUNTERS = frozenset({"kissmetrics"})
"""Vendors that tell lifetime counters: see the test that is expected to fail."""


@pytest.fixture(scope="module")
def rebuilder(built: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rebuilder]:
    own = Warehouse(built.lake, tmp_path_factory.mktemp("rebuild") / "built")
    shutil.copytree(built.folder, own.folder)
    made = Rebuilder(compile_project(own))
    yield made
    made.close()


def test_the_executor_makes_the_tables_dbt_makes(rebuilder: Rebuilder, built: Warehouse) -> None:
    rebuilder.load_fixture()
    rebuilder.new_warehouse("executed")
    try:
        rebuilder.build("executed", None)
        assert rebuilder.differences("executed", "seeded") == {}
    finally:
        rebuilder.drop_warehouse("executed")


def test_any_sequence_of_incremental_builds_ends_as_a_full_refresh_does(rebuilder: Rebuilder) -> None:
    tally = Tally()
    check_sequences(rebuilder, SEQUENCES, tally=tally, shrink=False, without=COUNTERS)
    assert tally.sequences >= SEQUENCES


@pytest.mark.xfail(strict=True, reason="growth between snapshots further apart than the window is not rebuilt")
def test_a_corrected_snapshot_rebuilds_every_date_its_growth_was_given_to(rebuilder: Rebuilder) -> None:
    """Known wrong since 2026-11-21: a counter's growth is spread over the dates between two snapshots, and a snapshot
    that is corrected, or vanishes, days later changes dates outside the window that is rebuilt for it.
    """
    vendor = next(iter(COUNTERS))
    days = sorted(day for name, site, day in rebuilder.keys if name == vendor and site == SITE)
    first, last = days[0], days[-1]
    landed = [Landing(vendor=vendor, site=SITE, day=day, state="first") for day in (first, last)]
    removed = Landing(vendor=vendor, site=SITE, day=last, state="removed")
    assert differences_after(rebuilder, landed, [[removed]]) == {}


def test_a_build_that_misses_a_landing_is_found(rebuilder: Rebuilder) -> None:
    """What the comparison is worth: a day landed outside the window that was built."""
    vendor, site, day = next(key for key in rebuilder.keys if key[0] == "smartlook")
    other = max(key for key in rebuilder.keys if key[0] == "pirsch")
    late = Landing(vendor=vendor, site=site, day=day, state="first")
    seen = Landing(vendor=other[0], site=other[1], day=other[2], state="first")
    assert differences_after(rebuilder, [], [[late], [seen]]) == {}
    assert differences_after(rebuilder, [], [[seen]], unbuilt=[late]) != {}


def test_a_failing_truth_leaves_out_that_vendors_day_and_the_other_four_speak(rebuilder: Rebuilder) -> None:
    """The marts' side of `core.truths`: an entry `truth:…` of the list of blocked partitions stands for all tables."""
    held_back = f"vendor = 'smartlook' AND site_key = '{SITE}' AND stat_date = DATE '{DST_SUNDAY}'"
    rebuilder.load_fixture()
    for name in ("whole", "held"):
        rebuilder.new_warehouse(name)
    try:
        rebuilder.build("whole", None)
        rebuilder.connection.execute(
            "INSERT INTO lake.blocked (vendor, table_name, site_key, partition_date) VALUES (?, ?, ?, ?)",
            ["smartlook", f"{HELD_BACK}events_are_of_landed_sessions", SITE, DST_SUNDAY],
        )
        rebuilder.build("held", None)

        def traffic(name: str, where: str) -> list[tuple[Any, ...]]:
            sql = f"SELECT * FROM {name}.main.fct_daily_traffic WHERE {where} ORDER BY ALL"
            return rebuilder.connection.execute(sql).fetchall()

        def reasons(name: str) -> set[tuple[Any, ...]]:
            sql = f"SELECT DISTINCT reason_null FROM {name}.main.fct_daily_traffic WHERE {held_back}"
            return set(rebuilder.connection.execute(sql).fetchall())

        assert reasons("held") == {("all=partition_blocked",)}
        assert reasons("whole") != reasons("held")
        assert traffic("held", "vendor <> 'smartlook'") == traffic("whole", "vendor <> 'smartlook'")
        left_out = rebuilder.connection.execute(
            "SELECT count(*) FROM held.main.fct_sessions WHERE vendor = 'smartlook' AND site_key = ? "
            "AND partition_date = ?",
            [SITE, DST_SUNDAY],
        ).fetchall()
        assert left_out == [(0,)]
    finally:
        for name in ("whole", "held"):
            rebuilder.drop_warehouse(name)
