"""Our event log stores what Dagster's own stores: the same rows, whatever way they came."""

# No `from __future__ import annotations` here: Dagster reads the type of an asset's `context` parameter.

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from analytics_platform.dagster_storage import KeptSqliteEventLogStorage

DAYS = dg.DailyPartitionsDefinition("2026-10-01", end_date="2026-10-06")
PLACES = dg.MultiPartitionsDefinition({"day": DAYS, "site": dg.StaticPartitionsDefinition(["blog", "shop"])})
STOCK = ("dagster._core.storage.event_log", "SqliteEventLogStorage")
OURS = (KeptSqliteEventLogStorage.__module__, KeptSqliteEventLogStorage.__name__)


@dg.multi_asset(
    specs=[
        dg.AssetSpec("by_day", partitions_def=DAYS, skippable=True),
        dg.AssetSpec("whole", skippable=True),
        dg.AssetSpec("left_out", skippable=True),
    ],
    check_specs=[dg.AssetCheckSpec("rows_arrived", asset="by_day"), dg.AssetCheckSpec("is_whole", asset="whole")],
    can_subset=True,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def relations(context: dg.AssetExecutionContext) -> Any:
    """As the transform step does it: relations with days and without, and checks."""
    context.add_asset_metadata({"plot": "a picture"}, asset_key="by_day", partition_key=max(context.partition_keys))
    yield dg.MaterializeResult(asset_key="by_day", metadata={"rows": 4}, tags={"told": "yes"})
    yield dg.MaterializeResult(asset_key="whole")
    yield dg.AssetObservation("by_day", partition="2026-10-03", metadata={"state": "deferred"})
    yield dg.AssetCheckResult(asset_key="by_day", check_name="rows_arrived", passed=True)
    yield dg.AssetCheckResult(asset_key="whole", check_name="is_whole", passed=False)


@dg.asset(partitions_def=PLACES, backfill_policy=dg.BackfillPolicy.single_run())
def by_place() -> None:
    """As a vendor's table does it."""


def stored(home: Path, storage: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, Any]]]:
    """Every row of the index and of the runs' own files after three runs, without ids and times."""
    home.mkdir()
    folder = home / "history" / "runs"
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "1000")
    overrides = {
        "event_log_storage": {"module": storage[0], "class": storage[1], "config": {"base_dir": str(folder)}},
        "telemetry": {"enabled": False},
    }
    with dg.instance_for_test(temp_dir=str(home), overrides=overrides) as instance:
        for first, last in (("2026-10-01", "2026-10-03"), ("2026-10-02", "2026-10-04")):
            assert dg.materialize([relations], instance=instance, tags=_range(first, last)).success
        places = _range("2026-10-01|shop", "2026-10-02|shop")
        assert dg.materialize([by_place], instance=instance, tags=places).success
        assert len(instance.get_materialized_partitions(dg.AssetKey("by_day"))) == 4
    found: dict[str, list[dict[str, Any]]] = {}
    for file in sorted(folder.glob("*.db")):
        engine = sa.create_engine(f"sqlite:///{file}")
        with engine.connect() as connection:
            name = "index" if file.name == "index.db" else "run"
            for table in ("event_logs", "asset_keys", "asset_event_tags", "asset_check_executions"):
                found.setdefault(f"{name} {table}", []).extend(
                    _plain(dict(row._mapping)) for row in connection.execute(sa.text(f"SELECT * FROM {table}"))
                )
        engine.dispose()
    return {name: sorted(rows, key=str) for name, rows in found.items()}


def _range(first: str, last: str) -> dict[str, str]:
    return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Without what differs from one run to the next: ids, instants, data versions, the times in an event's text."""
    kept = {
        name: value
        for name, value in row.items()
        if not name.endswith(("id", "timestamp", "created", "_event", "cached_status_data"))
    }
    if not str(row.get("dagster_event_type")).startswith("ASSET_"):
        kept.pop("event", None)  # of the run itself: both store it in the same way, and it holds durations and paths
    for name in ("event", "last_materialization", "evaluation_event"):
        if kept.get(name) or (row.get(name) and name != "event"):
            kept[name] = _shape(json.loads(row[name]))
    if "data_version" in str(row.get("key")):
        kept.pop("value")
    kept["has_event_id"] = row.get("evaluation_event_storage_id") is not None or row.get("event_id") is not None
    return kept


def _shape(event: Any) -> Any:
    if isinstance(event, dict):
        changing = {
            "log_key",
            "run_id",
            "timestamp",
            "pid",
            "storage_id",
            "message",
            "duration_ms",
            "user_message",
            "batch_id",
        }
        return {name: _shape(value) for name, value in event.items() if name not in changing and "version" not in name}
    if isinstance(event, list):
        return [_shape(item) for item in event]
    return event if not isinstance(event, str) or "-" not in event else len(event)


def test_a_batch_is_stored_as_the_stock_class_stores_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = stored(tmp_path / "ours", OURS, monkeypatch)
    stock = stored(tmp_path / "stock", STOCK, monkeypatch)
    assert set(ours) == set(stock)
    for name in stock:
        assert len(ours[name]) == len(stock[name]), name
        assert ours[name] == stock[name], name
    kinds = {row["dagster_event_type"] for row in ours["index event_logs"]}
    assert {"ASSET_MATERIALIZATION", "ASSET_MATERIALIZATION_PLANNED", "ASSET_CHECK_EVALUATION_PLANNED"} <= kinds
    assert ours["index asset_event_tags"]
    assert ours["index asset_check_executions"]
