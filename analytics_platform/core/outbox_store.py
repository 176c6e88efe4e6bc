"""Where the outbox's rows live: an SQLite file in the home, or the database the ledger shares by URL.

Belongs here: the table, the two engines, transactions, rewriting the file. Does not belong here: what the states mean
(`core.outbox`).

SQLite writes are `BEGIN IMMEDIATE` with synchronous=FULL: what is committed survives kill -9 and a power cut, and two
processes never claim the same row. `secure_delete` overwrites deleted content with zeros.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError

from analytics_platform.core.errors import ConfigurationError, StorageError

__all__ = ["OutboxStore", "from_us", "messages", "to_us"]

_T = TypeVar("_T")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_BUSY_SECONDS: Final = 30

_metadata = sa.MetaData()
messages = sa.Table(
    "outbox_messages",
    _metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("vendor", sa.String(60), nullable=False),
    sa.Column("operation", sa.String(60), nullable=False),
    sa.Column("site_key", sa.String(120), nullable=False),
    sa.Column("dedupe_digest", sa.String(64), nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),
    sa.Column("nonce", sa.String(64), nullable=False),
    sa.Column("guarantee", sa.String(16), nullable=False),
    sa.Column("state", sa.String(12), nullable=False),
    sa.Column("reason", sa.String(400), nullable=False, default="", server_default=""),
    sa.Column("attempts", sa.Integer, nullable=False, default=0, server_default="0"),
    sa.Column("holder", sa.String(200), nullable=False, default="", server_default=""),
    sa.Column("enqueued_us", sa.BigInteger, nullable=False),
    sa.Column("claimed_us", sa.BigInteger),
    sa.Column("settled_us", sa.BigInteger),
    sa.Column("run_id", sa.String(80), nullable=False, default="", server_default=""),
    sa.UniqueConstraint("vendor", "operation", "site_key", "dedupe_digest", name="outbox_one_message_a_thing"),
    sa.Index("outbox_by_state", "state", "vendor", "operation", "site_key", "id"),
    sqlite_autoincrement=True,
)


def to_us(instant: datetime) -> int:
    """Microseconds since 1970 of an aware instant."""
    return (instant - _EPOCH) // timedelta(microseconds=1)


def from_us(microseconds: int) -> datetime:
    """The aware UTC instant."""
    return _EPOCH + timedelta(microseconds=microseconds)


class OutboxStore:
    """Transactions over the messages. Opened at first use, again after a fork."""

    def __init__(self, location: str) -> None:
        self._location = location.removeprefix("sqlite:///")
        self._lock = threading.RLock()
        self._engine: sa.Engine | None = None
        self._pid = os.getpid()

    @property
    def _is_file(self) -> bool:
        return "://" not in self._location

    def read(self, work: Callable[[sa.Connection], _T]) -> _T:
        """One transaction that changes nothing."""
        return self._run(work, "read")

    def write(self, work: Callable[[sa.Connection], _T]) -> _T:
        """One transaction, alone among writers, on the device when it returns."""
        return self._run(work, "write")

    def compact(self) -> None:
        """Rewrite the file without what was deleted, and empty its write-ahead log."""
        try:
            with self._opened().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("VACUUM" if self._is_file else "VACUUM outbox_messages")
                if self._is_file:
                    blocked = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar()
                    if blocked:
                        raise StorageError(
                            "the outbox's write-ahead log is still being read: deleted bytes stay in it for now",
                            "End other analytics-platform processes and run it again.",
                        )
        except DBAPIError as error:
            raise _storage_error(error) from error

    def serialise(self, connection: sa.Connection, name: str) -> None:
        """One at a time under this name until the transaction ends; SQLite's writers are anyhow."""
        if name and connection.dialect.name == "postgresql":
            key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            if self._engine is not None:
                self._engine.dispose(close=self._pid == os.getpid())
                self._engine = None

    def _run(self, work: Callable[[sa.Connection], _T], mode: str) -> _T:
        try:
            with self._opened().connect().execution_options(outbox_mode=mode) as connection, connection.begin():
                return work(connection)
        except DBAPIError as error:
            raise _storage_error(error) from error

    def _opened(self) -> sa.Engine:
        with self._lock:
            if self._engine is not None and self._pid != os.getpid():
                self.close()
            if self._engine is None:
                self._pid = os.getpid()
                self._engine = _file_engine(Path(self._location)) if self._is_file else _server_engine(self._location)
                with self._engine.connect().execution_options(outbox_mode="write") as connection, connection.begin():
                    self.serialise(connection, "outbox/create")
                    _metadata.create_all(connection)
            return self._engine


def _file_engine(path: Path) -> sa.Engine:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Private before SQLite opens it: its -wal and -shm inherit the mode. Never opened where it is there already:
        # closing a descriptor drops the locks that another connection of this process holds on the file.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise StorageError(
            f"the outbox cannot be opened: {error.strerror or type(error).__name__}",
            "check that the data home exists, has space and belongs to this user; nothing was sent.",
        ) from error
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        poolclass=sa.pool.QueuePool,
        pool_size=2,
        max_overflow=4,
        pool_reset_on_return=None,
        hide_parameters=True,
        connect_args={"check_same_thread": False, "timeout": _BUSY_SECONDS},
    )

    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver must not start transactions by itself: ours are IMMEDIATE
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def _on_begin(connection: sa.Connection) -> None:
        mode = connection.get_execution_options().get("outbox_mode")
        if mode is not None:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if mode == "write" else "BEGIN")

    return engine


def _server_engine(url: str) -> sa.Engine:
    try:
        if sa.engine.make_url(url).get_backend_name() == "postgresql":
            return sa.create_engine(url, pool_size=2, max_overflow=4, pool_pre_ping=True, hide_parameters=True)
    except (SQLAlchemyError, NoSuchModuleError, ImportError):
        # The URL may hold a password: neither it nor the cause is shown.
        pass
    raise ConfigurationError(
        "the outbox can live in an SQLite file or in Postgres; this database URL cannot be used",
        "check ANALYTICS_PLATFORM_DATABASE_URL, for example postgresql+psycopg2://user@host/db.",
    )


def _storage_error(error: DBAPIError) -> StorageError:
    name = str(getattr(error.orig, "sqlite_errorname", "")) or type(error.orig).__name__
    if name.startswith("SQLITE_BUSY"):
        return StorageError(
            f"the outbox was held by another process for {_BUSY_SECONDS} s",
            "look for a stopped or hanging analytics-platform process; nothing was sent.",
        )
    return StorageError(
        f"the outbox cannot be used ({name})", "check the disk and the data home; nothing that was sent is forgotten."
    )
