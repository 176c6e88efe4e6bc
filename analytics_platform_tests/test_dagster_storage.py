"""Our event log stores what Dagster's own stores: the same rows, whatever way they came."""

# No `from __future__ import annotations` here: Dagster reads the type of an asset's `context` parameter.

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._core.utils import make_new_run_id

from analytics_platform import dagster_home
from analytics_platform.dagster_storage import KeptSqliteEventLogStorage
from analytics_platform.settings import Home, load_settings

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


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    overrides = {
        "event_log_storage": {"module": OURS[0], "class": OURS[1], "config": {"base_dir": str(tmp_path / "runs")}},
        "telemetry": {"enabled": False},
    }
    with dg.instance_for_test(temp_dir=str(tmp_path), overrides=overrides) as made:
        yield made


def _log_line(run_id: str, text: str) -> EventLogEntry:
    return EventLogEntry(
        error_info=None, level=20, user_message=text, run_id=run_id, timestamp=time.time(), job_name="a_job"
    )


def _lines(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    return [record.event_log_entry.user_message for record in instance.get_records_for_run(run_id).records]


def test_whoever_reads_sees_all_that_was_told_before_in_order(instance: dg.DagsterInstance) -> None:
    run_id = make_new_run_id()
    told = [f"line {number}" for number in range(500)]
    for text in told[:250]:
        instance.event_log_storage.store_event(_log_line(run_id, text))
    assert _lines(instance, run_id) == told[:250]
    for text in told[250:]:
        instance.event_log_storage.store_event(_log_line(run_id, text))
    assert _lines(instance, run_id) == told


def test_what_could_not_be_stored_fails_whoever_goes_on(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = instance.event_log_storage
    run_id = make_new_run_id()

    def refuse(event: EventLogEntry) -> dict[str, Any]:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(storage, "_event_to_row", refuse)
        storage.store_event(_log_line(run_id, "lost"))
        with pytest.raises(OSError, match="No space left"):
            _lines(instance, run_id)
    storage.store_event(_log_line(run_id, "stored"))
    assert _lines(instance, run_id) == ["stored"]


def test_a_forked_child_stores_its_own_events_and_not_its_parents(instance: dg.DagsterInstance) -> None:
    """What waits at the moment of the fork is the parent's to store, and the child has no thread of the parent's."""
    storage: Any = instance.event_log_storage
    run_id = make_new_run_id()
    storage.store_event(_log_line(run_id, "of the parent"))
    child = os.fork()
    if not child:  # pragma: no cover
        try:
            storage.store_event(_log_line(run_id, "of the child"))
            storage._writer.drain()
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert sorted(_lines(instance, run_id)) == ["of the child", "of the parent"]


def test_a_check_that_nobody_planned_has_a_row_and_its_next_result_replaces_it(instance: dg.DagsterInstance) -> None:
    run_id = make_new_run_id()
    key = dg.AssetKey("by_place")

    def told(passed: bool, partition: str | None) -> DagsterEvent:
        evaluation = dg.AssetCheckEvaluation(
            asset_key=key, check_name="adds_up", passed=passed, partition=partition, metadata={}
        )
        return DagsterEvent(
            DagsterEventType.ASSET_CHECK_EVALUATION.value, "a_job", event_specific_data=evaluation, step_key="a_step"
        )

    for passed, partition in ((True, "2026-10-01|shop"), (False, "2026-10-01|blog"), (True, None), (False, None)):
        instance.report_dagster_event(told(passed, partition), run_id)
    instance.report_dagster_event(told(True, "2026-10-01|blog"), run_id)
    history = instance.event_log_storage.get_asset_check_execution_history(dg.AssetCheckKey(key, "adds_up"), limit=10)
    found = {record.partition: record.status.value for record in history}
    assert len(history) == 3
    assert found == {"2026-10-01|shop": "SUCCEEDED", "2026-10-01|blog": "SUCCEEDED", None: "FAILED"}


def test_no_thread_is_left_when_the_storage_is_closed(instance: dg.DagsterInstance) -> None:
    def threads() -> int:
        return sum(thread.name == "event log" for thread in threading.enumerate())

    before = threads()
    instance.event_log_storage.store_event(_log_line(make_new_run_id(), "told"))
    assert threads() == before + 1
    instance.event_log_storage.dispose()
    assert threads() == before


def test_runs_of_this_process_print_where_it_prints(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    """Runs that the UI starts are captured for it; one from a terminal would start four processes to do so."""

    @dg.asset
    def talkative() -> None:
        print("said in a run")  # noqa: T201

    with dagster_home.instance(load_settings()) as opened:
        assert dg.materialize([talkative], instance=opened).success
        assert capfd.readouterr().out == "said in a run\n"
        assert not [path for path in home.dagster.rglob("*") if path.suffix in (".out", ".err")]
    with dg.DagsterInstance.get() as of_the_ui:
        assert dg.materialize([talkative], instance=of_the_ui).success
    assert [path for path in home.dagster.rglob("*.out") if path.read_text() == "said in a run\n"]
