"""Where a ledger is kept: the SQLite file with its marker, or a Postgres server; what their errors mean.

Belongs here: engines, the marker that tells a lost ledger from a new home, errors in words. Does not belong here: what
is in the tables.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

import sqlalchemy as sa
from filelock import FileLock
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError

from analytics_platform.core import quota_tables as tables
from analytics_platform.core.errors import ConfigurationError, StorageError

__all__ = [
    "BUSY_SECONDS",
    "LedgerFile",
    "inspect",
    "os_error",
    "says_unusable",
    "server_engine",
    "sqlite_engine",
    "storage_error",
]

BUSY_SECONDS: Final = 30


class LedgerFile:
    """The SQLite file, and the marker beside it that tells a lost ledger from a new home.

    The marker is one line of JSON (ledger id, creation instant) and one line of 20 digits: the number of the last
    request row. The digits are rewritten in place after each commit, without a sync: they matter when the database
    ends earlier than they say (truncated or deleted WAL, a restored backup, a power cut).
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.marker = self.path.with_name(self.path.name + ".created")
        self.inode: tuple[int, int] | None = None
        self._marker_fd: int | None = None
        self._digits_at = 0

    def lock(self) -> FileLock:
        """Held only while opening, creating or quarantining; the kernel frees it when its holder dies."""
        return FileLock(self.path.with_name(self.path.name + ".lock"), timeout=BUSY_SECONDS, mode=0o600)

    def read_marker(self) -> tuple[str, int] | None:
        """(ledger id, number of the last row), ("", 0) if it cannot be read, None if the home is new."""
        try:
            text = self.marker.read_text(encoding="ascii")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError):
            return ("", 0)
        head, _, digits = text.partition("\n")
        try:
            return (str(json.loads(head)["ledger_id"]), int(digits or 0))
        except (ValueError, KeyError, TypeError):
            return ("", 0)

    def write_marker(self, ledger_id: str, created_at: datetime, last_row: int) -> None:
        head = json.dumps({"ledger_id": ledger_id, "created_at": created_at.isoformat(timespec="seconds")})
        temporary = self.marker.with_name(f"{self.marker.name}.{os.getpid()}.tmp")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(fd, f"{head}\n{last_row:020d}\n".encode("ascii"))
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.replace(self.marker)

    def remember(self) -> None:
        """Note which file is open, so that its replacement or removal is seen before the next decision."""
        self.forget()
        status = self.path.stat()
        self.inode = (status.st_dev, status.st_ino)
        self._marker_fd = os.open(self.marker, os.O_RDWR)
        self._digits_at = self.marker.read_bytes().index(b"\n") + 1

    def forget(self) -> None:
        if self._marker_fd is not None:
            os.close(self._marker_fd)
        self._marker_fd, self.inode = None, None

    def still_there(self) -> bool:
        try:
            status = self.path.stat()
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self.inode

    def note_last_row(self, row: int) -> None:
        if self._marker_fd is None:
            return
        known = os.pread(self._marker_fd, 20, self._digits_at)
        if not known.isdigit() or int(known) < row:
            os.pwrite(self._marker_fd, b"%020d" % row, self._digits_at)

    def quarantine(self, at: datetime) -> None:
        """Move the database and its -wal and -shm aside. They are kept for a person to look at."""
        suffix = f".corrupt-{at:%Y%m%dT%H%M%S%fZ}"
        for part in ("", "-wal", "-shm"):
            source = self.path.with_name(self.path.name + part)
            if source.exists():
                source.replace(source.with_name(source.name + suffix))

    def create_private(self) -> None:
        """An empty file of mode 0600 before SQLite opens it: its -wal and -shm inherit the mode.

        One that is there is not opened: closing any descriptor of a file drops the POSIX locks that the process holds
        on it through another connection, and the next process to leave would delete the log under it.
        """
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def sqlite_engine(path: Path) -> sa.Engine:
    """Transactions begin as the execution option `ledger_mode` says: read, quick (committed) or durable (synced)."""
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        poolclass=sa.pool.QueuePool,
        pool_size=2,  # one for decisions, kept; one for everything else
        max_overflow=0,
        pool_reset_on_return=None,
        hide_parameters=True,
        connect_args={"check_same_thread": False, "timeout": BUSY_SECONDS},
    )

    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver must not start transactions by itself: ours are IMMEDIATE
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    @sa.event.listens_for(engine, "begin")
    def _on_begin(connection: sa.Connection) -> None:
        mode = connection.get_execution_options().get("ledger_mode", "read")
        if mode == "read":
            connection.exec_driver_sql("BEGIN")
            return
        wanted = "NORMAL" if mode == "quick" else "FULL"
        if connection.info.get("synchronous") != wanted:
            connection.exec_driver_sql(f"PRAGMA synchronous={wanted}")
            connection.info["synchronous"] = wanted
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def server_engine(url: str) -> sa.Engine:
    """Postgres. Raises ConfigurationError for anything else."""
    try:
        parsed = sa.engine.make_url(url)
        if parsed.get_backend_name() != "postgresql":
            raise ConfigurationError(
                "the ledger can live in an SQLite file or in Postgres, nothing else",
                next_step="set ANALYTICS_PLATFORM_DATABASE_URL to postgresql+psycopg2://… or leave it unset.",
            )
        return sa.create_engine(url, pool_size=2, max_overflow=0, pool_pre_ping=True, hide_parameters=True)
    except (SQLAlchemyError, NoSuchModuleError, ImportError):
        # The URL may hold a password: neither it nor the cause is shown.
        raise ConfigurationError(
            "the ledger's database URL cannot be used (malformed, or its driver is not installed)",
            next_step="check ANALYTICS_PLATFORM_DATABASE_URL, for example postgresql+psycopg2://user@host/db.",
        ) from None


def inspect(path: Path) -> tuple[Literal["sound", "unusable", "empty"], int, str]:
    """(state, number of the last request row, ledger id) of a file that may be anything."""
    engine = sqlite_engine(path)
    try:
        with engine.connect() as connection, connection.begin():
            if connection.exec_driver_sql("PRAGMA quick_check(1)").scalar() != "ok":
                return ("unusable", 0, "")
            if not connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar():
                return ("empty", 0, "")
            ledger_id = connection.execute(sa.select(tables.ledger.c.ledger_id)).scalar()
            last_row = connection.exec_driver_sql("SELECT seq FROM sqlite_sequence WHERE name = 'requests'").scalar()
            return ("sound", int(last_row or 0), str(ledger_id)) if ledger_id else ("unusable", 0, "")
    except DBAPIError as error:
        if says_unusable(error):
            return ("unusable", 0, "")
        raise
    finally:
        engine.dispose()


def says_unusable(error: DBAPIError) -> bool:
    """Whether SQLite says the file is no ledger (any more), as opposed to busy, full or read-only."""
    name = str(getattr(error.orig, "sqlite_errorname", ""))
    return name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or "no such table" in str(error.orig)


def storage_error(error: DBAPIError) -> StorageError:
    """What a database's refusal means to people."""
    name = str(getattr(error.orig, "sqlite_errorname", "")) or type(error.orig).__name__
    reasons = {
        "SQLITE_FULL": ("the disk is full", "free some space; nothing was sent."),
        "SQLITE_READONLY": ("its file or folder is read-only", "give this user write access to the data home."),
        "SQLITE_CANTOPEN": ("its file cannot be opened", "check that the data home exists and belongs to this user."),
        "SQLITE_BUSY": (
            f"another process held it for {BUSY_SECONDS} s",
            "look for a stopped or hanging analytics-platform process; nothing was sent.",
        ),
    }
    for prefix, (reason, next_step) in reasons.items():
        if name.startswith(prefix):
            return StorageError(f"the request ledger cannot be written: {reason}", next_step=next_step)
    return StorageError(
        f"the request ledger cannot be used ({name})", next_step="check the disk and the data home; nothing was sent."
    )


def os_error(error: OSError) -> StorageError:
    """What a file system's refusal means to people."""
    return StorageError(
        f"the request ledger cannot be used: {error.strerror or type(error).__name__}",
        next_step="check that the data home exists, has space and belongs to this user; nothing was sent.",
    )
