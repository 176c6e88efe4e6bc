"""Dagster's SQLite event log with its connections kept open, written by a thread of its own.

Belongs here: one class, named in the dagster.yaml of a home on SQLite. Does not belong here: any change of what is
stored.

The stock class opens a new engine and connection for every statement and syncs every commit; a range of days writes
two events a partition and table. Measured on 2 cores (2026-11-21): a run of 140 partitions 3.4 s stock, 0.8 s with
kept connections and `synchronous=NORMAL`; a run of 1,400 then 7.1 CPU seconds event by event, 2.1 in bulk. In WAL mode
that setting cannot corrupt the file; a power cut may lose the last events, whose rows are in the lake all the same and
are recorded again by the next run, without a request.

A run of all vendors and the marts tells of 4,400 events one by one, 7 CPU seconds of statements and commits. They are
gathered for a twentieth of a second and stored together; whoever reads through the same object sees all that was told
before, and what begins or ends a run is stored before anything goes on.

The file of a run has 25 tables and indexes, 0.08 CPU seconds of statements; the runs of a process copy the first one's.
"""

from __future__ import annotations

import atexit
import os
import sqlite3
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from dagster._core.events import (
    ASSET_CHECK_EVENTS,
    ASSET_EVENTS,
    EVENT_TYPE_TO_PIPELINE_RUN_STATUS,
    DagsterEventType,
)
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, SqlEventLogStorageTable
from dagster._serdes import ConfigurableClassData
from sqlalchemy.pool import QueuePool

__all__ = ["KeptSqliteEventLogStorage"]

_KEPT_SHARDS: Final = 8
_BUSY_SECONDS: Final = 60
_GATHER_SECONDS: Final = 0.05
_IDLE_SECONDS: Final = 1.0
_CHECKS: Final = AssetCheckExecutionsTable.c


class KeptSqliteEventLogStorage(SqliteEventLogStorage):
    """`SqliteEventLogStorage`, same files and same schema, at most eight connections kept."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines: OrderedDict[str, sa.Engine] = OrderedDict()
        self._asset_columns: set[str] = set()
        self._empty_file = b""
        self._tables: set[str] = set()
        self._migrations: set[str] = set()
        self._writer = _Writer(self._store)
        super().__init__(base_dir, inst_data=inst_data)

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> KeptSqliteEventLogStorage:
        return cls(inst_data=inst_data, **config_value)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[sa.Connection]:
        self._writer.drain()
        with self._db_lock:
            if shard not in self._initialized_dbs:
                self._make_file(shard)
                self._initialized_dbs.add(shard)
            engine = self._engine(shard)
            with engine.connect() as connection, connection.begin():
                yield connection

    def _make_file(self, shard: str) -> None:
        """A run's file as the stock class makes it, by statements the first time and then from that one's bytes."""
        path = Path(self.path_for_shard(shard))
        if not path.exists() and self._empty_file:
            scratch = path.with_name(f".{path.name}.{os.getpid()}")
            scratch.write_bytes(self._empty_file)
            try:
                # Another process may make it too; whoever comes second leaves what is there.
                with suppress(FileExistsError):
                    os.link(scratch, path)
            finally:
                scratch.unlink()
            return
        is_new = not path.exists()
        self._initdb(self._engine(shard))
        if is_new:
            with sqlite3.connect(path) as connection:
                is_empty = connection.execute("SELECT count(*) FROM event_logs").fetchone() == (0,)
                self._empty_file = connection.serialize() if is_empty else b""
            connection.close()

    def _engine(self, shard: str) -> sa.Engine:
        engine = self._engines.get(shard)
        if engine is None:
            engine = sa.create_engine(
                self.conn_string_for_shard(shard),
                poolclass=QueuePool,
                pool_size=1,
                connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False},
            )
            sa.event.listen(engine, "connect", _relax_sync)
            self._engines[shard] = engine
        self._engines.move_to_end(shard)
        while len(self._engines) > _KEPT_SHARDS:
            _, oldest = self._engines.popitem(last=False)
            oldest.dispose()
        return engine

    def store_event(self, event: EventLogEntry) -> None:
        """Store with the next batch; at once where the run itself begins or ends."""
        if _kind(event) in EVENT_TYPE_TO_PIPELINE_RUN_STATUS:
            self.store_event_batch([event])
        else:
            self._writer.put(event)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store after all that was told before."""
        self._writer.drain()
        self._store(events)

    def _store(self, events: Sequence[EventLogEntry]) -> None:
        """A batch of a run's events in two transactions, where the stock class needs one to three an event."""
        by_run: dict[str, list[EventLogEntry]] = {}
        for event in events:
            by_run.setdefault(event.run_id, []).append(event)
        for run_id, of_run in by_run.items():
            if not run_id:
                # Told from outside of any run: seldom, and the stock class has rules of its own for it.
                for event in of_run:
                    super().store_event(event)
                continue
            rows = [self._event_to_row(event) for event in of_run]
            with self.run_connection(run_id) as connection:
                connection.execute(SqlEventLogStorageTable.insert(), rows)
            mirrored = [(event, row) for event, row in zip(of_run, rows, strict=True) if _is_mirrored(event)]
            if mirrored:
                with self.index_transaction() as connection:
                    self._store_in_index(connection, mirrored)

    def _store_in_index(
        self, connection: sa.Connection, mirrored: Sequence[tuple[EventLogEntry, Mapping[str, Any]]]
    ) -> None:
        inserted = SqlEventLogStorageTable.insert().returning(
            SqlEventLogStorageTable.c.id, sort_by_parameter_order=True
        )
        ids = connection.execute(inserted, [row for _, row in mirrored]).scalars().all()
        numbered = [(event, number, row) for (event, row), number in zip(mirrored, ids, strict=True)]
        planned = [each for each in numbered if _kind(each[0]) is DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED]
        if planned:
            connection.execute(AssetCheckExecutionsTable.insert(), list(_planned_checks(planned)))
        evaluated = [each for each in numbered if _kind(each[0]) is DagsterEventType.ASSET_CHECK_EVALUATION]
        if evaluated:
            _store_evaluated(connection, [_evaluated_check(*each) for each in evaluated])
        of_assets = [(event, number) for event, number, _ in numbered if _kind(event) in ASSET_EVENTS]
        self._store_asset_event_tags(connection, [event for event, _ in of_assets], [number for _, number in of_assets])
        # One row an asset, overwritten by each event: only the last of each kind leaves anything there.
        last = {
            (str(event.get_dagster_event().asset_key), _kind(event)): (event, number) for event, number in of_assets
        }
        for event, number in sorted(last.values(), key=lambda each: each[1]):
            self._store_asset_event(connection, event, number)

    def has_table(self, table_name: str) -> bool:
        """Asked once a table that is there: the stock class opens a connection to see, for every event of a check."""
        if table_name not in self._tables and super().has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    def has_secondary_index(self, name: str) -> bool:
        """Asked once a migration that is done: the stock class asks its table twice for every record of an asset."""
        if name not in self._migrations and super().has_secondary_index(name):
            self._migrations.add(name)
        return name in self._migrations

    def has_asset_key_col(self, column_name: str) -> bool:
        """Asked once: the stock class reflects the table to see, whenever a record of an asset is read."""
        return column_name in self._asset_columns or super().has_asset_key_col(column_name)

    def _has_asset_key_col_on_connection(self, conn: sa.Connection, column_name: str) -> bool:
        """Columns of a table do not go away; also asked for every event of an asset."""
        if column_name not in self._asset_columns and super()._has_asset_key_col_on_connection(conn, column_name):
            self._asset_columns.add(column_name)
        return column_name in self._asset_columns

    def dispose(self) -> None:
        """Store what waits, close what is kept."""
        self._writer.stop()
        for engine in self._engines.values():
            engine.dispose()
        self._engines.clear()
        super().dispose()


def _kind(event: EventLogEntry) -> DagsterEventType | None:
    return event.dagster_event_type if event.is_dagster_event else None


def _is_mirrored(event: EventLogEntry) -> bool:
    """Whether the index of all runs has the event too."""
    kind = _kind(event)
    return kind in ASSET_EVENTS or kind in ASSET_CHECK_EVENTS or kind in EVENT_TYPE_TO_PIPELINE_RUN_STATUS


def _planned_checks(
    numbered: Iterable[tuple[EventLogEntry, int, Mapping[str, Any]]],
) -> Iterator[dict[str, Any]]:
    """Rows of asset_check_executions, one a check and partition, as the stock class writes them."""
    for event, number, row in numbered:
        planned: Any = event.get_dagster_event().event_specific_data
        subset = planned.partitions_subset
        for partition in subset.get_partition_keys() if subset else [None]:
            yield {
                "asset_key": planned.asset_key.to_string(),
                "check_name": planned.check_name,
                "partition": partition,
                "run_id": event.run_id,
                "execution_status": AssetCheckExecutionRecordStatus.PLANNED.value,
                "evaluation_event": row["event"],
                "evaluation_event_timestamp": row["timestamp"],
                "evaluation_event_storage_id": number,
            }


def _evaluated_check(event: EventLogEntry, number: int, row: Mapping[str, Any]) -> dict[str, Any]:
    """The row of asset_check_executions that an evaluation leaves, as the stock class writes it."""
    evaluation: Any = event.get_dagster_event().event_specific_data
    target = evaluation.target_materialization_data
    status = AssetCheckExecutionRecordStatus.SUCCEEDED if evaluation.passed else AssetCheckExecutionRecordStatus.FAILED
    return {
        "asset_key": evaluation.asset_key.to_string(),
        "check_name": evaluation.check_name,
        "partition": evaluation.partition,
        "run_id": event.run_id,
        "execution_status": status.value,
        "evaluation_event": row["event"],
        "evaluation_event_timestamp": row["timestamp"],
        "evaluation_event_storage_id": number,
        "materialization_event_storage_id": target.storage_id if target else None,
    }


_ROW_OF_CHECK: Final = ("asset_key", "check_name", "partition", "run_id")


def _store_evaluated(connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Each takes the place of the row that planned it; of one that nobody planned a row is made."""
    last = {tuple(row[name] for name in _ROW_OF_CHECK): row for row in rows}
    runs = sorted({str(row["run_id"]) for row in rows})
    query = sa.select(*(_CHECKS[name] for name in _ROW_OF_CHECK)).where(_CHECKS.run_id.in_(runs))
    there = {tuple(found) for found in connection.execute(query)}
    update = AssetCheckExecutionsTable.update().values(
        {name: sa.bindparam(f"new_{name}") for name in rows[0] if name not in _ROW_OF_CHECK}
    )
    # IS also where there is no partition: NULL equals nothing.
    for name in _ROW_OF_CHECK:
        update = update.where(_CHECKS[name].is_not_distinct_from(sa.bindparam(f"new_{name}")))
    planned = [{f"new_{name}": value for name, value in row.items()} for key, row in last.items() if key in there]
    if planned:
        connection.execute(update, planned)
    unplanned = [row for key, row in last.items() if key not in there]
    if unplanned:
        connection.execute(AssetCheckExecutionsTable.insert(), unplanned)


def _relax_sync(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")


class _Writer:
    """Stores what it is given, in order, together with what comes within a twentieth of a second, in a thread that ends
    when nothing comes any more. What it failed to store fails the next call.
    """

    def __init__(self, store: Callable[[Sequence[EventLogEntry]], None]) -> None:
        self._store = store
        self._begin()
        _writers.add(self)

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._waiting: list[EventLogEntry] = []
        self._is_storing = False
        self._is_awaited = False
        self._is_stopping = False
        self._failure: Exception | None = None
        self._thread: threading.Thread | None = None

    def put(self, event: EventLogEntry) -> None:
        """Give an event; it is stored soon."""
        self._begin_after_fork()
        with self._changed:
            self._raise_failure()
            self._waiting.append(event)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="event log", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def drain(self) -> None:
        """Return when all that was given before is stored. Does nothing in the thread that stores."""
        self._begin_after_fork()
        if threading.current_thread() is self._thread or not (self._waiting or self._is_storing or self._failure):
            return
        with self._changed:
            self._is_awaited = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._waiting and not self._is_storing)
            self._is_awaited = False
            self._raise_failure()

    def stop(self) -> None:
        """`drain`, and the thread is gone; what is given later begins another.

        A thread that is alive while the interpreter ends keeps modules alive, and engines report them as leaked.
        """
        try:
            self.drain()
        finally:
            with self._changed:
                thread = self._thread
                self._is_stopping = True
                self._changed.notify_all()
            if thread is not None and thread is not threading.current_thread():
                thread.join()
            self._is_stopping = False

    def _begin_after_fork(self) -> None:
        """A forked child has no such thread, and what waited is its parent's to store."""
        if self._pid != os.getpid():
            self._begin()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting) or self._is_stopping, timeout=_IDLE_SECONDS)
                if not self._waiting:
                    self._thread = None
                    return
                self._changed.wait_for(lambda: self._is_awaited, timeout=_GATHER_SECONDS)
                self._is_storing = True
                taken, self._waiting = self._waiting, []
            try:
                self._store(taken)
            except Exception as error:
                self._failure = error
            with self._changed:
                self._is_storing = False
                self._changed.notify_all()


_writers: weakref.WeakSet[_Writer] = weakref.WeakSet()


@atexit.register
def _store_what_waits() -> None:
    for writer in list(_writers):
        writer.stop()
