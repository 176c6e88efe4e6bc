"""The ledger's database: opened, reopened, noticed to be lost; transactions on it; its time line.

Belongs here: connections and their mending, the instants of the ledger's own time line. Does not belong here: what is
written and read (`core.quota`, `core.quota_questions`).
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import sqlite3
import threading
import uuid
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, TypeVar, cast

import sqlalchemy as sa
from filelock import Timeout
from sqlalchemy.exc import DBAPIError

from analytics_platform.core import quota_tables as tables
from analytics_platform.core.clock import Clock, ManualClock, SystemClock
from analytics_platform.core.errors import StorageError
from analytics_platform.core.quota_file import (
    BUSY_SECONDS,
    LedgerFile,
    inspect,
    os_error,
    says_unusable,
    server_engine,
    sqlite_engine,
    storage_error,
)
from analytics_platform.core.quota_policy import MICROSECONDS
from analytics_platform.core.quota_statements import DriverStatements
from analytics_platform.core.quota_tables import to_us

__all__ = ["LONGEST_WAIT_SECONDS", "LedgerStore"]

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_KEEP_DAYS: Final = 400
LONGEST_WAIT_SECONDS: Final = 120
"""Nobody waits longer for a slot, so no row is stamped further ahead of its ledger's present."""


class LedgerStore:
    """One per process and data home; thread-safe."""

    def __init__(self, *, file: LedgerFile | None, url: str, clock: Clock) -> None:
        self._file = file
        self._url = url
        self._clock = clock
        self._lock = threading.RLock()
        self._engine: sa.Engine | None = None
        self._offset_us = 0
        self._pid = os.getpid()
        self._driver: sa.PoolProxiedConnection | None = None
        self._driver_mode = ""

    def _before_transaction(self) -> None:
        """Before whatever is no decision."""

    def _opened_anew(self) -> None:
        """Before the database is opened, for the first time or again."""

    def _close(self) -> None:
        self._close_driver()
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None
        if self._file is not None:
            self._file.forget()

    def _now_us(self) -> int:
        return self._offset_us + math.floor(self._clock.monotonic() * MICROSECONDS)

    def _run(self, work: Callable[[sa.Connection], _T], *, mode: Literal["read", "quick", "durable"]) -> _T:
        """One transaction, in which no row of this process stands for a request that was not sent."""
        with self._lock:
            self._before_transaction()
            return self._run_on_core(work, mode=mode)

    def _run_on_core(self, work: Callable[[sa.Connection], _T], *, mode: Literal["read", "quick", "durable"]) -> _T:
        """One transaction. `work` touches only the database, so that it may run again after the file was replaced."""
        with self._lock:
            for last_attempt in (False, True):
                try:
                    engine = self._checked_engine()
                    with engine.connect().execution_options(ledger_mode=mode) as connection, connection.begin():
                        return work(connection)
                except DBAPIError as error:
                    if last_attempt or self._file is None or not says_unusable(error):
                        raise storage_error(error) from error
                    self._connect()
                except OSError as error:
                    raise os_error(error) from error
            raise AssertionError("unreachable")

    def _run_on_driver(
        self, work: Callable[[DriverStatements], _T], *, mode: Literal["read", "quick", "durable"]
    ) -> _T:
        """As `_run`, without SQLAlchemy between: decisions of one process are limited by it, not by SQLite."""
        for last_attempt in (False, True):
            try:
                connection = self._driver_connection(mode)
                if mode == "read":
                    return work(DriverStatements(connection))  # one statement is a transaction
                connection.execute("BEGIN IMMEDIATE")
                try:
                    result = work(DriverStatements(connection))
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._close_driver()
                wrapped = DBAPIError(None, None, error)
                if last_attempt or not says_unusable(wrapped):
                    raise storage_error(wrapped) from error
                self._connect()
            except OSError as error:
                raise os_error(error) from error
            else:
                return result
        raise AssertionError("unreachable")

    def _driver_connection(self, mode: str) -> sqlite3.Connection:
        engine = self._checked_engine()
        if self._driver is None:
            try:
                self._driver = engine.raw_connection()
            except DBAPIError as error:
                raise error.orig if isinstance(error.orig, sqlite3.Error) else error from error
            self._driver_mode = ""
        connection = cast(sqlite3.Connection, self._driver.driver_connection)
        if mode not in (self._driver_mode, "read"):
            connection.execute(f"PRAGMA synchronous={'NORMAL' if mode == 'quick' else 'FULL'}")
            self._driver_mode = mode
        return connection

    def _close_driver(self) -> None:
        """A connection that met an error, or whose file is gone, is not used again."""
        if self._driver is not None:
            if self._pid == os.getpid():
                self._driver.invalidate()
            self._driver = None

    def _checked_engine(self) -> sa.Engine:
        """The engine, reopened after a fork, a close, or when somebody removed or replaced the file under us."""
        forked = self._pid != os.getpid()
        gone = self._file is not None and not self._file.still_there()
        if self._engine is None or forked or gone:
            self._close_driver()
            if forked and self._engine is not None:
                self._engine.dispose(close=False)
                self._engine = None
            self._connect()
        if self._engine is None:
            raise AssertionError("unreachable")
        return self._engine

    def _connect(self) -> None:
        """(Re)open, and notice a new home or a loss. Raises StorageError."""
        self._close_driver()
        self._opened_anew()
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None
        self._pid = os.getpid()
        try:
            if self._file is None:
                engine = server_engine(self._url)
                with engine.begin() as connection:
                    self._serialise(connection, "ledger", "create")
                    self._prepare(connection)
                self._engine = engine
            else:
                self._engine = self._open_file(self._file)
        except DBAPIError as error:
            raise storage_error(error) from error
        except Timeout as error:
            raise StorageError(
                f"another process has been opening the request ledger for {BUSY_SECONDS} s",
                next_step="look for a stopped or hanging analytics-platform process.",
            ) from error
        except OSError as error:
            raise os_error(error) from error

    def _open_file(self, file: LedgerFile) -> sa.Engine:
        file.path.parent.mkdir(parents=True, exist_ok=True)
        with file.lock():
            marker = file.read_marker()
            empty = not file.path.exists() or file.path.stat().st_size == 0
            state, last_row, ledger_id = ("empty", 0, "") if empty else inspect(file.path)
            lost = ""
            if state == "unusable" or (state == "empty" and marker is not None):
                lost = "cannot be read" if state == "unusable" else "is missing"
                file.quarantine(self._clock.now())
            elif state == "sound" and marker is not None and marker[0]:
                if marker[0] != ledger_id:
                    lost = "is another one than this home's"
                elif marker[1] > last_row:
                    lost = f"ends at request {last_row} of {marker[1]}"
            file.create_private()
            engine = sqlite_engine(file.path)
            with engine.connect().execution_options(ledger_mode="durable") as connection, connection.begin():
                ledger_id = self._prepare(connection)
                if lost:
                    connection.execute(tables.ledger.update().values(lost_us=self._now_us()))
            if lost or marker is None or not marker[0]:
                file.write_marker(ledger_id, self._clock.now(), last_row)
            file.remember()
        if lost:
            logger.error("the request ledger %s: every quota window counts as spent, for one window from now", lost)
        return engine

    def _prepare(self, connection: sa.Connection) -> str:
        """Create what is missing, join the time line, drop what is too old to matter. Returns the ledger's id."""
        tables.metadata.create_all(connection)
        wall_us = to_us(self._clock.now())
        ledger_id = connection.execute(sa.select(tables.ledger.c.ledger_id)).scalar()
        if ledger_id is None:
            ledger_id = str(uuid.uuid4())
            connection.execute(
                tables.ledger.insert(), {"ledger_id": ledger_id, "schema_version": 1, "created_us": wall_us}
            )
        self._join_time_line(connection, wall_us)
        too_old_us = self._now_us() - _KEEP_DAYS * 86_400 * MICROSECONDS
        connection.execute(tables.requests.delete().where(tables.requests.c.ledger_us < too_old_us))
        connection.execute(tables.refusals.delete().where(tables.refusals.c.ledger_us < too_old_us))
        return str(ledger_id)

    def _join_time_line(self, connection: sa.Connection, wall_us: int) -> None:
        source = time_source(self._clock)
        monotonic_us = math.floor(self._clock.monotonic() * MICROSECONDS)
        known = connection.execute(
            sa.select(tables.timelines.c.offset_us).where(tables.timelines.c.source == source)
        ).scalar()
        if known is None:
            # Not the newest row alone: it may leave before one that was written earlier, for a turn or ahead.
            late = (
                sa.select(tables.requests.c.ledger_us, tables.requests.c.sent_us)
                .order_by(tables.requests.c.id.desc())
                .limit(1000)
            )
            late = sa.select(late.subquery()).order_by(sa.desc("ledger_us")).limit(1)
            newest = connection.execute(late).one_or_none()
            lost_us = connection.execute(sa.select(tables.ledger.c.lost_us)).scalar()
            if connection.dialect.name == "postgresql":
                now_us = _server_us(connection, newest.ledger_us if newest else 0)
            elif newest is not None:
                now_us = newest.ledger_us + min(max(0, wall_us - newest.sent_us), monotonic_us)
            elif lost_us is not None:
                # Stamped by the wall clock: its time line began with it.
                now_us = lost_us + min(max(0, wall_us - lost_us), monotonic_us)
            else:
                now_us = wall_us
            known = now_us - monotonic_us
            connection.execute(tables.timelines.insert(), {"source": source, "offset_us": known})
        self._offset_us = int(known)

    def _serialise(self, connection: sa.Connection, account: str, method_class: str) -> None:
        """SQLite is already serial (BEGIN IMMEDIATE). Postgres: one decision at a time per bucket, freed at commit."""
        if connection.dialect.name == "postgresql":
            digest = hashlib.blake2b(f"{account}/{method_class}".encode(), digest_size=8).digest()
            key = int.from_bytes(digest, "big", signed=True)
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})


def _server_us(connection: sa.Connection, newest_us: int) -> int:
    """The database server's instant: hosts join one time line by the one clock they share, however their own differ.

    A server whose clock was set back by more than anybody waits adds nothing, as everywhere.
    """
    query = sa.text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)")
    server_us = int(connection.execute(query).scalar_one())
    was_set_back = newest_us > server_us + LONGEST_WAIT_SECONDS * MICROSECONDS
    return newest_us if was_set_back else server_us


@lru_cache(maxsize=1)
def _boot_id() -> str:
    """What identifies this boot of this machine; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def time_source(clock: Clock) -> str:
    """Processes with the same source share a monotonic clock. An unknown clock, or system, stands alone."""
    boot = _boot_id() if type(clock) is SystemClock else ""
    if isinstance(clock, ManualClock):
        boot = clock.boot_id
    return f"boot:{boot}" if boot else f"alone:{uuid.uuid4()}"
