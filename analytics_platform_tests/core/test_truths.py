"""Truths between the tables of a site's day: judged by partition, told by partition, holding back by partition."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import dagster as dg
import duckdb
import pytest

from analytics_platform.core import lake as lake_module
from analytics_platform.core.lake import Lake
from analytics_platform.core.partitions import partition_key
from analytics_platform.core.tables import TableSpec
from analytics_platform.core.truths import HELD_BACK, Truth, hold_back, judge
from analytics_platform.definitions import build_definitions
from analytics_platform.runner import Runner, VendorResult
from analytics_platform.sandbox import faults
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.vendors import all_tables, streams_of, vendor_names
from analytics_platform_tests.conftest import FIRST_DAY, House

SECOND_DAY = FIRST_DAY + timedelta(days=1)
TWO_DAYS = (FIRST_DAY, SECOND_DAY)
PAGES = dg.AssetCheckKey(dg.AssetKey(["inspectlet", "session_pages"]), "listed_pages_are_landed")
HOURS = dg.AssetCheckKey(dg.AssetKey(["pirsch", "hourly"]), "hours_add_up_to_the_day")


def truths_of(vendor: str) -> tuple[Truth, ...]:
    return tuple(importlib.import_module(f"analytics_platform.vendors.{vendor}.checks").TRUTHS)


EVERY_TRUTH = [(vendor, truth) for vendor in vendor_names() for truth in truths_of(vendor)]


@pytest.mark.parametrize(("vendor", "truth"), EVERY_TRUTH, ids=lambda value: getattr(value, "name", value))
def test_a_truth_is_shown_where_the_last_of_its_tables_is_written(vendor: str, truth: Truth) -> None:
    assert re.fullmatch(r"[a-z0-9_]+", truth.name)
    assert f"{vendor}/{truth.table}" in truth.reads
    assert len(truth.reads) >= 2
    streams = [stream.name for stream in streams_of(vendor) for name in truth.reads for spec in stream.tables
               if spec.qualified_name == name]  # fmt: skip
    written_by = next(s.name for s in streams_of(vendor) if truth.table in {spec.name for spec in s.tables})
    order = [stream.name for stream in streams_of(vendor)]
    assert order.index(written_by) == max(order.index(name) for name in streams)


# ------------------------------------------------------------------------------------------------------------- judging

LEFT = all_tables()["pirsch/daily_stats"]
RIGHT = all_tables()["pirsch/hourly"]
SPECS = {spec.qualified_name: spec for spec in (LEFT, RIGHT)}


def write(lake: Lake, spec: TableSpec, day: date, rows: list[dict[str, Any]]) -> None:
    """A partition as the lake lays it out."""
    path = lake.partition_path(spec, "shop", day)
    path.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as engine:
        columns = ", ".join(f'"{column.name}" {column.type}' for column in spec.all_columns)
        engine.execute(f"CREATE TABLE partition ({columns})")
        for row in rows:
            given = {"_site": "shop", "_day": day, "stat_date": day} | row
            names, marks = ", ".join(f'"{name}"' for name in given), ", ".join("?" * len(given))
            engine.execute(f"INSERT INTO partition ({names}) VALUES ({marks})", list(given.values()))
        engine.execute(f"COPY partition TO '{path}' (FORMAT parquet)")


@pytest.fixture
def lake(tmp_path: Any) -> Lake:
    made = Lake(tmp_path / "lake")
    for spec in SPECS.values():
        made.ensure_anchor(spec)
    return made


def hours_truth(*, blocking: bool = False) -> Truth:
    return replace(next(t for t in truths_of("pirsch") if t.name == HOURS.name), blocking=blocking)


def test_each_day_is_judged_by_itself_and_a_day_that_is_not_whole_is_not(lake: Lake) -> None:
    for day, views in zip(TWO_DAYS, (40, 60), strict=True):
        write(lake, LEFT, day, [{"views": 40, "sessions": 10}])
        write(lake, RIGHT, day, [{"hour": 1, "views": views, "sessions": 10}])
    third = SECOND_DAY + timedelta(days=1)
    write(lake, LEFT, third, [{"views": 40, "sessions": 10}])
    verdicts = list(judge([hours_truth()], lake, "shop", [*TWO_DAYS, third], SPECS))
    assert [(v.day, v.passed, v.checked, v.broken) for v in verdicts] == [
        (FIRST_DAY, True, 1, 0),
        (SECOND_DAY, False, 1, 1),
    ]
    assert verdicts[1].description.startswith(f"1 of 1 rows on {SECOND_DAY}: the hours")


def test_a_blocking_truth_holds_its_day_back_until_it_holds_and_a_warning_never_does(lake: Lake) -> None:
    write(lake, LEFT, FIRST_DAY, [{"views": 40, "sessions": 10}])
    write(lake, RIGHT, FIRST_DAY, [])

    def verdicts(*, blocking: bool) -> list[Any]:
        return list(judge([hours_truth(blocking=blocking)], lake, "shop", [FIRST_DAY], SPECS))

    assert not verdicts(blocking=False)[0].passed
    hold_back(lake, "pirsch", "shop", verdicts(blocking=False))
    assert lake.blocked() == []
    hold_back(lake, "pirsch", "shop", verdicts(blocking=True))
    assert lake.blocked() == [("pirsch", f"{HELD_BACK}{HOURS.name}", "shop", FIRST_DAY)]
    # A table's own verdict is another entry and does not let the day in.
    lake.block(RIGHT, "shop", failing=[], passing_days=[FIRST_DAY])
    assert len(lake.blocked()) == 1
    write(lake, RIGHT, FIRST_DAY, [{"hour": 1, "views": 40, "sessions": 10}])
    hold_back(lake, "pirsch", "shop", verdicts(blocking=True))
    assert lake.blocked() == []


# ------------------------------------------------------------------------------------------------------ through Dagster


def evaluations(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> dict[str, dg.AssetCheckEvaluation]:
    """The newest evaluation of a check by partition."""
    found: dict[str, dg.AssetCheckEvaluation] = {}
    records = instance.event_log_storage.get_asset_check_execution_history(key, limit=50)
    for record in records:
        assert record.event is not None
        assert record.event.dagster_event is not None
        if record.event.dagster_event.event_type is not dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            continue  # planned, and not begun
        evaluation = record.event.dagster_event.asset_check_evaluation_data
        assert evaluation.partition is not None
        found.setdefault(evaluation.partition, evaluation)
    return found


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def run(house: House, instance: dg.DagsterInstance, vendor: str) -> None:
    results = Runner(house.settings, instance).run(*TWO_DAYS, vendors=[vendor], sites=["shop"], marts=False)
    (result,) = [item for item in results if isinstance(item, VendorResult)]
    assert result.state == "done", result.message


def test_a_record_lost_on_the_way_fails_the_truth_of_its_day_and_that_vendors_day_alone(
    house: House, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seeded fault: the decoder drops a page row of the first day. No rule over one table can notice."""
    decode_rows = lake_module._decode_rows

    def losing(engine: duckdb.DuckDBPyConnection, spec: TableSpec, site: str, typing: Callable[[str], str]) -> None:
        decode_rows(engine, spec, site, typing)
        if spec.name == PAGES.asset_key.path[-1]:
            first = f"(SELECT min((sid, page_index)) FROM decoded WHERE _day = DATE '{FIRST_DAY}')"
            engine.execute(f"DELETE FROM decoded WHERE (sid, page_index) = {first}")

    with monkeypatch.context() as patch:
        patch.setattr(lake_module, "_decode_rows", losing)
        run(house, instance, "inspectlet")
    found = evaluations(instance, PAGES)
    assert {key: each.passed for key, each in found.items()} == {
        partition_key(FIRST_DAY, "shop"): False,
        partition_key(SECOND_DAY, "shop"): True,
    }
    failed = found[partition_key(FIRST_DAY, "shop")]
    assert (failed.severity, failed.metadata["broken_rows"].value) == (dg.AssetCheckSeverity.ERROR, 1)
    assert "replay-landing" in str(failed.description)
    lake = Lake(house.home.lake)
    assert lake.blocked() == [("inspectlet", f"{HELD_BACK}{PAGES.name}", "shop", FIRST_DAY)]

    # Executed on its own, as the UI does: landed pages are decoded again, now without the fault, the day is let in.
    (asset,) = [
        definition
        for definition in build_definitions(house.settings).assets or ()
        if isinstance(definition, dg.AssetsDefinition) and PAGES in definition.check_keys
    ]
    resources = dict(build_definitions(house.settings).resources or {})
    outcome = dg.materialize([asset], selection=dg.AssetSelection.checks(PAGES), resources=resources, instance=instance)
    assert outcome.success
    assert evaluations(instance, PAGES)[partition_key(FIRST_DAY, "shop")].passed
    assert lake.blocked() == []


def test_answers_that_disagree_warn_and_block_nothing(
    house: House, vendors: Sandbox, instance: dg.DagsterInstance
) -> None:
    vendors.faults.add("pirsch", "statistics/hours", fault=faults.drift("add", "views", value=0), times=1)
    run(house, instance, "pirsch")
    found = evaluations(instance, HOURS)
    assert sorted(each.passed for each in found.values()) == [False, True]
    assert {each.severity for each in found.values() if not each.passed} == {dg.AssetCheckSeverity.WARN}
    assert Lake(house.home.lake).blocked() == []
