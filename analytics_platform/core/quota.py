"""The request ledger: every request any process sends is written down first, so no vendor window is ever exceeded.

Belongs here: the persisted sliding log, what a vendor's 429 or usage endpoint teaches it, the meter `core.http`
calls before each attempt, the list of deferred work, and questions about requests spent. Sources: DESIGN section 3,
RELIABILITY D1-D14.
Does not belong here: any vendor's figures (`vendors/<v>/` own their `QuotaPolicy`), HTTP, planning, Dagster.

How it decides. One row is one request, stamped with the instant it may leave. A request may leave at the latest of:
now; for each window, the stamp of the `limit`-th newest row plus the window's span, and of the newest plus what the
policy wants them apart; the end of a block or of a loss.
That is a sliding log: no span of `seconds`, and so no fixed window either, ever holds more than `limit` sends,
whichever process sends them. If the instant is near (per-second limits) the row is written with it and the caller
sleeps until then, so waiters leave in order; if it is far, nothing is written and `QuotaExhausted(resume_at)` is
raised. A limit learned from the vendor is read with the facts, so every meter of every process obeys it at once.

Ahead. Whoever asks again and again has rows written ahead, for the same label, in one transaction: as many as it used
lately, at most a sixtieth of a window and a fifth of what is free in it: a plan of 100 requests never has any. They are
stamped with the last instant they may be used, at most a quarter of a second (and half the guard) later: counted from
their latest possible departure, decided by their earliest. What is not used by then is given back with the next
statement of this process; a process that is killed has spent it.

Guard. The vendor counts arrivals, we count sends. A request delayed by up to `guard_seconds` more than its
successors cannot break the limit, because spans are `seconds + guard_seconds`: 5 % of the window, at most 2 s,
unless the policy says otherwise (D8: jitter of 0-500 ms at 5 a second needs `guard_seconds=0.5`).

Time. Stamps are on the ledger's own time line, driven by the monotonic clock, which all processes of one boot
share: wall clock jumps neither free nor block anything (D6). A new boot continues from the newest row by the wall
clock, but by no more than the machine has been up: nobody can tell hours switched off from a clock that was corrected
meanwhile, so they count like hours of sleep, for nothing, and cost at most one window. A wall clock that went backwards
adds nothing. Hosts that share a Postgres ledger join by the server's clock: theirs may differ by hours. `resume_at` and
`sent_at` are wall clock, for people and sensors.

Loss. Beside an SQLite ledger stands `<ledger>.created`, written once when the home is new, with the number of the
last row. Where it says there was a ledger and the file is missing, unreadable or ends earlier (D7), every window
counts as spent for one span from now, or until the vendor's own figure is adopted. The unreadable file is kept as
`<ledger>.corrupt-<instant>`.

Durability. A decision is committed before the request leaves; kill -9 forgets nothing. For windows longer than a
minute the commit is also synced to disk; shorter windows are over before a machine is back from a power cut.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import sqlite3
import threading
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, Protocol, Self, TypeVar, cast

import sqlalchemy as sa
from filelock import FileLock, Timeout
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError

from analytics_platform.core.clock import Clock, ManualClock, SystemClock
from analytics_platform.core.errors import ConfigurationError, QuotaExhausted, StorageError, Where
from analytics_platform.core.quota_policy import (
    MICROSECONDS,
    SYNCED_FROM_SECONDS,
    DayUsage,
    Deferral,
    HourlyRequests,
    QuotaPolicy,
    Spending,
    Spent,
    Window,
    WindowUsage,
    account_key,
    per_minute_windows,
    spending,
    spending_now,
)
from analytics_platform.core.waiting import waiting

__all__ = [
    "AccountMeter",
    "Deferral",
    "Ledger",
    "NotingMeter",
    "QuotaPolicy",
    "Spending",
    "Spent",
    "Window",
    "WindowUsage",
    "account_key",
    "per_minute_windows",
    "spending",
]

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_BUSY_SECONDS: Final = 30
_LONGEST_TRUSTED_RETRY_AFTER_SECONDS: Final = 86_400.0
_LONGEST_ESCALATION_SECONDS: Final = 3_600.0
_KEEP_DAYS: Final = 400
_LONGEST_WAIT_SECONDS: Final = 120
"""Nobody waits longer for a slot, so no row is stamped further ahead of its ledger's present."""
_LATE_TRIES: Final = 8
"""A host that oversleeps as often as that in a row cannot keep any appointment: the request leaves."""
_LEAST_LATE_US: Final = 5_000
"""What a thread oversleeps on a quiet host."""
_ASK_AGAIN_AFTER_SECONDS: Final = 600.0
"""A vendor's own count is asked for at most once in this time and account: it may cost a request itself."""
_LEARNED_LIMIT_SECONDS: Final = 86_400.0
"""How long a limit is believed that a 429 taught; then the declared one is tried again, at the price of one 429."""
_LONGEST_AHEAD_US: Final = 250_000
"""A row written ahead is used within this time or given back."""
_MOST_AHEAD: Final = 32
_SHARE_AHEAD: Final = 60
"""One process holds at most this part (one in so many) of a window ahead,"""
_ROOM_AHEAD: Final = 5
"""and only while so many times as much is free: others may be about to need it."""
_MOST_LABELS: Final = 64
"""Labels whose pace is remembered."""


# ----------------------------------------------------------------------------------------------------------- tables

_metadata = sa.MetaData()
_Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

_ledger = sa.Table(
    "ledger",
    _metadata,
    sa.Column("ledger_id", sa.String(36), primary_key=True),
    sa.Column("schema_version", sa.Integer, nullable=False),
    sa.Column("created_us", sa.BigInteger, nullable=False),
    sa.Column("lost_us", sa.BigInteger),
)
_timelines = sa.Table(
    "timelines",
    _metadata,
    sa.Column("source", sa.String(80), primary_key=True),
    sa.Column("offset_us", sa.BigInteger, nullable=False),
)
_requests = sa.Table(
    "requests",
    _metadata,
    sa.Column("id", _Id, primary_key=True, autoincrement=True),
    sa.Column("account", sa.String(80), nullable=False),
    sa.Column("method_class", sa.String(16), nullable=False),
    sa.Column("ledger_us", sa.BigInteger, nullable=False),
    sa.Column("sent_us", sa.BigInteger, nullable=False),
    sa.Column(
        "kind", sa.String(8), nullable=False
    ),  # "sent", or "adopted": counted by the vendor, sent by somebody else
    sa.Column("endpoint", sa.String(200), nullable=False),
    sa.Column("vendor", sa.String(60), nullable=False),
    sa.Column("stream", sa.String(120), nullable=False),
    sa.Column("site", sa.String(120), nullable=False),
    sa.Column("run_id", sa.String(80), nullable=False),
    sa.Index("requests_by_window", "account", "method_class", "ledger_us"),
    sa.Index("requests_by_instant", "sent_us"),
    sqlite_autoincrement=True,
)
_buckets = sa.Table(
    "buckets",
    _metadata,
    sa.Column("account", sa.String(80), primary_key=True),
    sa.Column("method_class", sa.String(16), primary_key=True),
    sa.Column("blocked_until_us", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("strikes", sa.Integer, nullable=False, server_default="0"),
    sa.Column("trusted_us", sa.BigInteger, nullable=False, server_default="0"),
)
_windows = sa.Table(
    "windows",
    _metadata,
    sa.Column("account", sa.String(80), primary_key=True),
    sa.Column("method_class", sa.String(16), primary_key=True),
    sa.Column("seconds", sa.Float, primary_key=True),
    sa.Column("request_limit", sa.Integer, nullable=False),
    sa.Column("guard_seconds", sa.Float, nullable=False),
)
_refusals = sa.Table(
    "refusals",
    _metadata,
    sa.Column("id", _Id, primary_key=True, autoincrement=True),
    sa.Column("account", sa.String(80), nullable=False),
    sa.Column("method_class", sa.String(16), nullable=False),
    sa.Column("ledger_us", sa.BigInteger, nullable=False),
    sa.Column("endpoint", sa.String(200), nullable=False),
    sa.Column("retry_after_seconds", sa.Float),
)
_reports = sa.Table(
    "vendor_reports",
    _metadata,
    sa.Column("account", sa.String(80), primary_key=True),
    sa.Column("method_class", sa.String(16), primary_key=True),
    sa.Column("asked_us", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("learned_limit", sa.Integer),
    sa.Column("learned_us", sa.BigInteger, nullable=False, server_default="0"),
)
_deferrals = sa.Table(
    "deferrals",
    _metadata,
    sa.Column("vendor", sa.String(60), primary_key=True),
    sa.Column("stream", sa.String(120), primary_key=True),
    sa.Column("site", sa.String(120), primary_key=True),
    sa.Column("first_day", sa.Date, primary_key=True),
    sa.Column("last_day", sa.Date, primary_key=True),
    sa.Column("resume_us", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.String(400), nullable=False),
    sa.Column("landed_records", sa.BigInteger, nullable=False),
    sa.Column("recorded_us", sa.BigInteger, nullable=False),
)


@dataclass(frozen=True)
class _Facts:
    """All a decision depends on, read in one statement of the transaction that writes it. Microseconds, ledger time."""

    newest_us: int
    nth_us: tuple[int | None, ...]
    blocked_until_us: int
    strikes: int
    trusted_us: int
    lost_us: int | None
    learned_limit: int | None
    learned_us: int

    def limit_in_force(self, now_us: int) -> int | None:
        """What a 429 taught about the longest window, as long as it is believed."""
        return self.learned_limit if self.learned_us > now_us - _LEARNED_LIMIT_SECONDS * MICROSECONDS else None


def _bucket_of(table: sa.Table) -> sa.ColumnElement[bool]:
    return (table.c.account == sa.bindparam("account")) & (table.c.method_class == sa.bindparam("method_class"))


@lru_cache(maxsize=16)
def _facts_query(window_count: int) -> sa.Select[Any]:
    scope, bucket, report = _bucket_of(_requests), _bucket_of(_buckets), _bucket_of(_reports)
    by_stamp = sa.select(_requests.c.ledger_us).where(scope).order_by(_requests.c.ledger_us.desc()).limit(1)
    columns = [
        sa.select(_ledger.c.lost_us).scalar_subquery(),
        sa.select(_buckets.c.blocked_until_us).where(bucket).scalar_subquery(),
        sa.select(_buckets.c.strikes).where(bucket).scalar_subquery(),
        sa.select(_buckets.c.trusted_us).where(bucket).scalar_subquery(),
        sa.select(_reports.c.learned_limit).where(report).scalar_subquery(),
        sa.select(_reports.c.learned_us).where(report).scalar_subquery(),
        by_stamp.scalar_subquery(),
        # Rows older than a window's span cannot hold anybody back, and walking them would make every decision slower.
        *(
            by_stamp.where(_requests.c.ledger_us > sa.bindparam(f"since_{i}", type_=sa.BigInteger))
            .offset(sa.bindparam(f"offset_{i}", type_=sa.Integer))
            .scalar_subquery()
            for i in range(window_count)
        ),
    ]
    return sa.select(*(column.label(f"f{i}") for i, column in enumerate(columns)))


@lru_cache(maxsize=16)
def _counts_query(window_count: int) -> sa.Select[Any]:
    """Rows inside each window."""
    count = sa.select(sa.func.count()).select_from(_requests).where(_bucket_of(_requests))
    inside = [
        count.where(_requests.c.ledger_us > sa.bindparam(f"since_{i}", type_=sa.BigInteger))
        for i in range(window_count)
    ]
    return sa.select(*(query.scalar_subquery().label(f"c{i}") for i, query in enumerate(inside)))


_BLOCKED_UNTIL: Final = sa.select(_buckets.c.blocked_until_us).where(_bucket_of(_buckets))
_INSERT_REQUEST: Final = _requests.insert()
# A vendor's figure adopted meanwhile was compared with these rows among our own: then they stay spent.
_TAKE_BACK: Final = _requests.delete().where(
    _requests.c.id.between(sa.bindparam("first_row"), sa.bindparam("last_row")),
    _bucket_of(_requests),
    _requests.c.ledger_us == sa.bindparam("stamp_us", type_=sa.BigInteger),
    ~sa.exists().where(_bucket_of(_buckets), _buckets.c.trusted_us >= sa.bindparam("written_us", type_=sa.BigInteger)),
)


@dataclass(frozen=True)
class _Rows:
    """Rows of one bucket with one stamp, written by one transaction: no other row of the bucket is between them."""

    account: str
    method_class: str
    first_row: int
    last_row: int
    stamp_us: int
    written_us: int


_Label = tuple[object, ...]
"""Bucket, windows, reserve and everything a row says: requests of one label can use each other's rows."""


@dataclass(eq=False)
class _Ahead:
    """Rows of a label that are written and not used yet. Guarded by the ledger's lock for them.

    `ids` are used up from the front; a database may number the rows of a transaction with gaps.
    """

    label: _Label
    rows: _Rows
    ids: deque[int]
    size: int
    is_followed: bool = False
    """Somebody is writing the next ones."""
    pid: int = field(default_factory=os.getpid)

    def is_usable(self, now_us: int) -> bool:
        """By this process, at this instant."""
        return self.pid == os.getpid() and now_us <= self.rows.stamp_us

    @property
    def unused(self) -> _Rows:
        return replace(self.rows, first_row=self.ids[0], last_row=self.ids[-1])


@dataclass(eq=False)
class _Pace:
    """How fast a label asks: how many rows of its last transaction it used, and when that was."""

    used: int = 1
    written_us: int = 0

    def next_size(self, now_us: int, allowance: _Allowance) -> int:
        """What it will use in the time rows may be held; at most twice as many as before."""
        at_this_pace = self.used * allowance.hold_us // max(1, now_us - self.written_us)
        return max(1, min(at_this_pace, self.used * 2, allowance.most))


@dataclass(frozen=True)
class _Allowance:
    """What may be written ahead under these windows: at most so many rows, for so long."""

    most: int
    hold_us: int

    @classmethod
    @lru_cache(maxsize=256)
    def under(cls, windows: tuple[Window, ...]) -> _Allowance:
        most = min(_MOST_AHEAD, *(window.limit // _SHARE_AHEAD for window in windows))
        guard_us = math.floor(min(window.guard_seconds for window in windows) * MICROSECONDS)
        hold_us = min(_LONGEST_AHEAD_US, guard_us // 2)
        is_possible = hold_us > 0 and not any(window.apart_seconds for window in windows)
        return cls(most=most if is_possible else 1, hold_us=hold_us)


@dataclass(eq=False)
class _Ask:
    """One caller's question to the ledger and, once decided, its answer."""

    windows: tuple[Window, ...]
    offsets: dict[str, object]
    row: dict[str, object]
    cost: int
    keep_free: int
    longest_wait_us: float
    label: _Label | None
    follows: bool = False
    """There are rows written ahead still: this one goes and writes the next, while others use those."""
    instead_of: _Rows | None = None
    answer: _Answer | None = None
    error: Exception | None = None

    @property
    def is_settled(self) -> bool:
        return self.answer is not None or self.error is not None

    @property
    def bucket(self) -> dict[str, object]:
        return {"account": self.row["account"], "method_class": self.row["method_class"]}

    def again(self, *, instead_of: _Rows) -> _Ask:
        """The same question, giving back these rows."""
        return replace(self, instead_of=instead_of, label=None, answer=None, error=None)

    def below(self, learned_limit: int) -> _Ask:
        """The same question under a lower limit of the longest window."""
        windows = _with_limit(self.windows, learned_limit)
        smallest = min((w.limit for w in windows if w.seconds > SYNCED_FROM_SECONDS), default=learned_limit)
        if self.cost > min(w.limit for w in windows):
            return self  # never fits: the vendor itself has to say so
        keep_free = max(0, min(self.keep_free, smallest - self.cost))
        offsets = _offsets(windows, cost=self.cost, keep_free=keep_free)
        return replace(self, windows=windows, offsets=offsets, keep_free=keep_free)


@dataclass(frozen=True)
class _Answer:
    """`rows` is None where nothing was written: the slot is too far away, or (`is_granted`) was written ahead."""

    leave_us: int
    wait_us: int
    wall: datetime
    windows: tuple[Window, ...]
    strikes: int = 0
    is_granted: bool = False
    rows: _Rows | None = None


class _Statements(Protocol):
    """The statements of a decision, on whichever road to the database is open."""

    def facts(self, ask: _Ask, now_us: int) -> _Facts: ...

    def counts(self, ask: _Ask, now_us: int) -> Sequence[int]: ...

    def write(self, row: Mapping[str, object], times: int) -> Sequence[int]: ...

    def take_back(self, rows: _Rows) -> None: ...


class _CoreStatements:
    """Through SQLAlchemy: any database."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def facts(self, ask: _Ask, now_us: int) -> _Facts:
        return _facts_of(self._connection.execute(_facts_query(len(ask.windows)), _facts_binds(ask, now_us)).one())

    def counts(self, ask: _Ask, now_us: int) -> Sequence[int]:
        binds = ask.bucket | _since(now_us, ask.windows)
        return tuple(self._connection.execute(_counts_query(len(ask.windows)), binds).one())

    def write(self, row: Mapping[str, object], times: int) -> Sequence[int]:
        written = self._connection.execute(_INSERT_REQUEST.returning(_requests.c.id), [row] * times)
        return sorted(written.scalars())

    def take_back(self, rows: _Rows) -> None:
        self._connection.execute(_TAKE_BACK, vars(rows))


class _DriverStatements:
    """The same statements, compiled once, straight to SQLite's driver: most of a decision's time was on the way
    through the toolkit.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def facts(self, ask: _Ask, now_us: int) -> _Facts:
        return _facts_of(self._row(_driver_facts(len(ask.windows)), _facts_binds(ask, now_us)))

    def counts(self, ask: _Ask, now_us: int) -> Sequence[int]:
        counts: Sequence[int] = self._row(_driver_counts(len(ask.windows)), ask.bucket | _since(now_us, ask.windows))
        return counts

    def _row(self, compiled: _Compiled, binds: Mapping[str, object]) -> Any:
        sql, names, constants = compiled
        values = [binds[name] if name in binds else constants[name] for name in names]
        return self._connection.execute(sql, values).fetchone()

    def write(self, row: Mapping[str, object], times: int) -> Sequence[int]:
        sql, names, _ = _driver_insert()
        values = [row[name] for name in names]
        return [int(self._connection.execute(sql, values).lastrowid or 0) for _ in range(times)]

    def blocked_until_us(self, bucket: Mapping[str, object]) -> int | None:
        """Reads alone."""
        row = self._row(_driver_blocked_until(), bucket)
        return None if row is None else int(row[0])

    def take_back(self, rows: _Rows) -> None:
        sql, names, _ = _driver_take_back()
        binds = vars(rows)
        self._connection.execute(sql, [binds[name] for name in names])


def _since(now_us: int, windows: Sequence[Window]) -> dict[str, object]:
    return {f"since_{i}": now_us - window.span_us for i, window in enumerate(windows)}


def _facts_binds(ask: _Ask, now_us: int) -> dict[str, object]:
    return ask.bucket | ask.offsets | _since(now_us, ask.windows)


_Compiled = tuple[str, tuple[str, ...], Mapping[str, object]]
"""SQL text, the names of its positions in order, and the values of those that are constants."""


@lru_cache(maxsize=16)
def _driver_facts(window_count: int) -> _Compiled:
    return _compiled(_facts_query(window_count).compile(dialect=sqlite_dialect.dialect()))


@lru_cache(maxsize=16)
def _driver_counts(window_count: int) -> _Compiled:
    return _compiled(_counts_query(window_count).compile(dialect=sqlite_dialect.dialect()))


@lru_cache(maxsize=1)
def _driver_blocked_until() -> _Compiled:
    return _compiled(_BLOCKED_UNTIL.compile(dialect=sqlite_dialect.dialect()))


@lru_cache(maxsize=1)
def _driver_insert() -> _Compiled:
    names = [column.name for column in _requests.c if column.name != "id"]
    return _compiled(_INSERT_REQUEST.compile(dialect=sqlite_dialect.dialect(), column_keys=names))


@lru_cache(maxsize=1)
def _driver_take_back() -> _Compiled:
    return _compiled(_TAKE_BACK.compile(dialect=sqlite_dialect.dialect()))


def _compiled(statement: Any) -> _Compiled:
    return str(statement), tuple(statement.positiontup), dict(statement.params)


def _facts_of(row: Sequence[Any]) -> _Facts:
    lost_us, blocked_until_us, strikes, trusted_us, learned_limit, learned_us, newest_us, *nth_us = row
    return _Facts(
        newest_us=newest_us or 0,
        nth_us=tuple(nth_us),
        blocked_until_us=blocked_until_us or 0,
        strikes=strikes or 0,
        trusted_us=trusted_us or 0,
        lost_us=lost_us,
        learned_limit=learned_limit,
        learned_us=learned_us or 0,
    )


def earliest_us(now_us: int, windows: Sequence[Window], facts: _Facts) -> int:
    """The instant the next request may leave, by the rule of the module docstring. Pure: property-tested on its own."""
    instants = [now_us, facts.blocked_until_us]
    for window, nth_us in zip(windows, facts.nth_us, strict=True):
        if window.apart_seconds > 0:
            instants.append(facts.newest_us + math.ceil(window.apart_seconds * MICROSECONDS))
        if nth_us is not None:
            instants.append(nth_us + window.span_us)
        if facts.lost_us is not None and facts.trusted_us < facts.lost_us:
            instants.append(facts.lost_us + window.span_us)
    return max(instants)


# ---------------------------------------------------------------------------------------------------------- SQLite file


class _LedgerFile:
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
        return FileLock(self.path.with_name(self.path.name + ".lock"), timeout=_BUSY_SECONDS, mode=0o600)

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


def _sqlite_engine(path: Path) -> sa.Engine:
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        poolclass=sa.pool.QueuePool,
        pool_size=2,  # one for decisions, kept; one for everything else
        max_overflow=0,
        pool_reset_on_return=None,
        hide_parameters=True,
        connect_args={"check_same_thread": False, "timeout": _BUSY_SECONDS},
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


def _server_engine(url: str) -> sa.Engine:
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


def _says_unusable(error: DBAPIError) -> bool:
    """Whether SQLite says the file is no ledger (any more), as opposed to busy, full or read-only."""
    name = str(getattr(error.orig, "sqlite_errorname", ""))
    return name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or "no such table" in str(error.orig)


def _storage_error(error: DBAPIError) -> StorageError:
    name = str(getattr(error.orig, "sqlite_errorname", "")) or type(error.orig).__name__
    reasons = {
        "SQLITE_FULL": ("the disk is full", "free some space; nothing was sent."),
        "SQLITE_READONLY": ("its file or folder is read-only", "give this user write access to the data home."),
        "SQLITE_CANTOPEN": ("its file cannot be opened", "check that the data home exists and belongs to this user."),
        "SQLITE_BUSY": (
            f"another process held it for {_BUSY_SECONDS} s",
            "look for a stopped or hanging analytics-platform process; nothing was sent.",
        ),
    }
    for prefix, (reason, next_step) in reasons.items():
        if name.startswith(prefix):
            return StorageError(f"the request ledger cannot be written: {reason}", next_step=next_step)
    return StorageError(
        f"the request ledger cannot be used ({name})", next_step="check the disk and the data home; nothing was sent."
    )


# ----------------------------------------------------------------------------------------------------------- ledger


class Ledger:
    """One per process and data home; thread-safe. See the module docstring for what it promises.

    Every method raises StorageError where the database cannot be read or written: then nothing may be sent.
    """

    def __init__(self, *, file: _LedgerFile | None, url: str, clock: Clock) -> None:
        self._file = file
        self._url = url
        self._clock = clock
        self._lock = threading.RLock()
        self._engine: sa.Engine | None = None
        self._offset_us = 0
        self._pid = os.getpid()
        self._struck: set[tuple[str, str]] = set()
        self._asks: list[_Ask] = []
        self._asks_lock = threading.Lock()
        self._driver: sa.PoolProxiedConnection | None = None
        self._driver_mode = ""
        self._ahead: dict[_Label, list[_Ahead]] = {}
        self._ahead_lock = threading.Lock()
        self._paces: dict[_Label, _Pace] = {}

    @classmethod
    def open(cls, url_or_path: str | Path, clock: Clock | None = None) -> Self:
        """Open or create: a path (or `sqlite:///path`) is a file, `postgresql+psycopg2://…` is for several hosts."""
        text = str(url_or_path)
        clock = clock or SystemClock()
        if text.startswith("sqlite:///"):
            text = text.removeprefix("sqlite:///")
        if "://" in text:
            ledger = cls(file=None, url=text, clock=clock)
        else:
            ledger = cls(file=_LedgerFile(Path(text)), url="", clock=clock)
        with ledger._lock:
            ledger._connect()
        return ledger

    def meter(self, policy: QuotaPolicy, *, max_wait_seconds: float = 5.0) -> AccountMeter:
        """What a vendor's client asks before each attempt; see `AccountMeter` for how long it may sleep."""
        return AccountMeter(self, policy, max_wait_seconds=max_wait_seconds)

    def noting_meter(self, policy: QuotaPolicy) -> NotingMeter:
        """For the question what the vendor counted: writes down, never refuses."""
        return NotingMeter(self, policy)

    def close(self) -> None:
        with self._lock:
            with suppress(StorageError):  # then it stays spent
                self._give_back()
            self._close_driver()
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None
            if self._file is not None:
                self._file.forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------------- decisions

    def acquire(
        self,
        account: str,
        method_class: str,
        windows: Sequence[Window],
        endpoint: str,
        *,
        cost: int = 1,
        max_wait_seconds: float = 2.0,
        keep_free: int = 0,
        work: Spending | None = None,
    ) -> datetime:
        """Write down `cost` requests and return when they may leave, having slept until then: the caller sends at once.

        Args:
            account: from `account_key`.
            method_class: the bucket the vendor counts in.
            windows: all limits of that bucket.
            endpoint: stable label ("GET /api/v1/events"), no ids.
            cost: how many requests the vendor will count.
            max_wait_seconds: longest sleep; a slot further away raises.
            keep_free: leave this many requests of windows longer than a minute to others (the reserve).
            work: what the requests are for, in the request log.

        Raises:
            QuotaExhausted: no slot within `max_wait_seconds`; nothing was written, nothing may be sent before
                `resume_at`.
            StorageError: the ledger cannot be written.
        """
        windows = tuple(windows)
        work = work or Spending()
        label = (account, method_class, windows, endpoint, keep_free, work) if cost == 1 else None
        follows = label is not None and self._is_to_follow(label)
        if label is not None and not follows and self._use_ahead(label):
            return self._clock.now()
        ask = _ask(
            account,
            method_class,
            windows,
            endpoint,
            cost=cost,
            keep_free=keep_free,
            max_wait_seconds=max_wait_seconds,
            work=work,
            label=label,
            follows=follows,
        )
        for _ in range(_LATE_TRIES):
            answer = self._decide(ask)
            leave_at = answer.wall + timedelta(microseconds=answer.wait_us)
            if not answer.is_granted:
                raise _exhausted(account, method_class, endpoint, leave_at, answer.windows)
            if answer.strikes:
                self._struck.add((account, method_class))
            if answer.wait_us <= 0 or answer.rows is None:
                return leave_at
            self._clock.sleep(answer.wait_us / MICROSECONDS)
            self._still_allowed(account, method_class, endpoint, windows)
            if self._now_us() - answer.leave_us <= _tolerated_us(windows):
                return leave_at
            # Overslept (a busy host, a suspended laptop): others have left meanwhile by the instant written down, and
            # this one would join them. Its row is taken back, for it was not sent.
            ask = ask.again(instead_of=answer.rows)
        return leave_at

    def _decide(self, ask: _Ask) -> _Answer:
        """Group commit: whoever gets the lock decides for everybody who queued meanwhile, in one transaction."""
        with self._asks_lock:
            self._asks.append(ask)
        with self._lock:
            if not ask.is_settled:
                with self._asks_lock:
                    batch, self._asks = self._asks, []
                self._decide_together(batch)
        if ask.error is not None:
            raise ask.error
        if ask.answer is None:
            raise AssertionError("unreachable")
        return ask.answer

    def _decide_together(self, batch: Sequence[_Ask]) -> None:
        synced = any(window.seconds > SYNCED_FROM_SECONDS for ask in batch for window in ask.windows)
        mode: Literal["quick", "durable"] = "durable" if synced else "quick"
        try:
            if self._file is None:
                answers, ahead = self._run_on_core(
                    lambda connection: self._decide_serially(connection, batch), mode=mode
                )
            else:
                answers, ahead = self._run_on_driver(lambda statements: self._decide_each(statements, batch), mode=mode)
        except Exception as error:
            for ask in batch:
                ask.error = error
            return
        last_rows = [answer.rows.last_row for answer in answers if answer.rows is not None]
        if last_rows and self._file is not None:
            self._file.note_last_row(max(last_rows))
        with self._ahead_lock:
            for label, written in ahead.items():
                self._ahead.setdefault(label, []).append(written)
        for ask, answer in zip(batch, answers, strict=True):
            ask.answer = answer

    def _decide_serially(
        self, connection: sa.Connection, batch: Sequence[_Ask]
    ) -> tuple[list[_Answer], dict[_Label, _Ahead]]:
        for account, method_class in sorted({(str(a.row["account"]), str(a.row["method_class"])) for a in batch}):
            self._serialise(connection, account, method_class)
        return self._decide_each(_CoreStatements(connection), batch)

    def _decide_each(
        self, statements: _Statements, batch: Sequence[_Ask]
    ) -> tuple[list[_Answer], dict[_Label, _Ahead]]:
        """In one transaction. Rows written ahead are for the others of the batch, then for whoever asks next."""
        for unused in self._unused(lambda ahead: ahead.rows.stamp_us < self._now_us()):
            statements.take_back(unused)
        ahead: dict[_Label, _Ahead] = {}
        asking = Counter(ask.label for ask in batch)
        answers: list[_Answer] = []
        for ask in batch:
            mine = ahead.get(ask.label) if ask.label is not None else None
            if mine is not None:
                mine.ids.popleft()
                if not mine.ids:
                    del ahead[mine.label]
                answers.append(self._granted_ahead(ask))
            elif ask.label is not None and not ask.follows and self._use_ahead(ask.label):
                answers.append(self._granted_ahead(ask))
            else:
                answer, written = self._decide_one(statements, ask, asking[ask.label])
                answers.append(answer)
                if written is not None:
                    ahead[written.label] = written
        return answers, ahead

    def _granted_ahead(self, ask: _Ask) -> _Answer:
        return _Answer(self._now_us(), 0, self._clock.now(), ask.windows, is_granted=True)

    def _decide_one(self, statements: _Statements, ask: _Ask, asking: int) -> tuple[_Answer, _Ahead | None]:
        now_us, wall = self._now_us(), self._clock.now()
        if ask.instead_of is not None:
            statements.take_back(ask.instead_of)
        facts = statements.facts(ask, now_us)
        learned = facts.limit_in_force(now_us)
        if learned is not None and learned < max(ask.windows, key=_by_seconds).limit:
            ask = ask.below(learned)
            facts = statements.facts(ask, now_us)
        leave_us = earliest_us(now_us, ask.windows, facts)
        wait_us = leave_us - now_us
        if wait_us > 0 and ask.follows and ask.label is not None and self._use_ahead(ask.label):
            return self._granted_ahead(ask), None
        if wait_us > ask.longest_wait_us:
            return _Answer(leave_us, wait_us, wall, ask.windows), None
        times, stamp_us = ask.cost, leave_us
        if ask.label is not None and wait_us <= 0:
            times = self._times(statements, ask, now_us, asking)
            if times > 1:
                stamp_us += _Allowance.under(ask.windows).hold_us
        ids = statements.write(ask.row | {"ledger_us": stamp_us, "sent_us": _to_us(wall) + stamp_us - now_us}, times)
        account, method_class = str(ask.row["account"]), str(ask.row["method_class"])
        rows = _Rows(account, method_class, ids[0], ids[-1], stamp_us, now_us)
        answer = _Answer(leave_us, wait_us, wall, ask.windows, facts.strikes, is_granted=True, rows=rows)
        if ask.label is None or times <= 1:
            return answer, None
        return answer, _Ahead(ask.label, rows, deque(ids[1:]), times)

    # ----------------------------------------------------------------------------------------------------------- ahead

    def _times(self, statements: _Statements, ask: _Ask, now_us: int, asking: int) -> int:
        """How many rows to write for a label that may leave now: its own, and some ahead."""
        allowance = _Allowance.under(ask.windows)
        if ask.label is None or allowance.most <= 1:
            return 1
        with self._ahead_lock:
            if ask.label not in self._paces and len(self._paces) >= _MOST_LABELS:
                self._paces.clear()
            pace = self._paces.setdefault(ask.label, _Pace())
            in_hand = sum(len(written.ids) for written in self._ahead.get(ask.label, []))
            wanted = max(pace.next_size(now_us, allowance), min(asking, allowance.most))
            wanted = max(1, min(wanted, allowance.most - in_hand))
        if wanted > 1:
            inside = zip(ask.windows, statements.counts(ask, now_us), strict=True)
            free = min(_offset(window, cost=1, keep_free=ask.keep_free) + 1 - count for window, count in inside)
            wanted = max(1, min(wanted, free // _ROOM_AHEAD))
        with self._ahead_lock:
            pace.used, pace.written_us = wanted, now_us
        return wanted

    def _use_ahead(self, label: _Label) -> bool:
        """Take one of the rows written ahead for this label, where there are and their time is not over."""
        now_us = self._now_us()
        with self._ahead_lock:
            written = self._ahead.get(label, [])
            ahead = next((each for each in written if each.is_usable(now_us)), None)
            if ahead is None:
                return False
            ahead.ids.popleft()
            if not ahead.ids:
                written.remove(ahead)
        return True

    def _is_to_follow(self, label: _Label) -> bool:
        """True for one caller when a quarter of the rows ahead is left.

        It writes the next while others go on with those: a synced transaction among a landing's own syncs takes longer
        than an answer, and everybody would wait for it.
        """
        with self._ahead_lock:
            last = next(reversed(self._ahead.get(label, [])), None)
            if last is None or last.is_followed or len(last.ids) > last.size // 4:
                return False
            last.is_followed = True
        return True

    def _unused(self, is_over: Callable[[_Ahead], bool]) -> list[_Rows]:
        """Rows nobody can use any more from here on. A fork's parent keeps what it has written."""
        with self._ahead_lock:
            over = [ahead for written in self._ahead.values() for ahead in written if is_over(ahead)]
            for ahead in over:
                self._ahead[ahead.label].remove(ahead)
                if (pace := self._paces.get(ahead.label)) is not None:
                    pace.used = ahead.size - len(ahead.ids)
            self._ahead = {label: written for label, written in self._ahead.items() if written}
        return [ahead.unused for ahead in over if ahead.pid == os.getpid()]

    def _give_back(self) -> None:
        """All that was written ahead and is not used: whoever counts requests wants those that were sent."""
        if not self._ahead:
            return

        def take_back(connection: sa.Connection) -> None:
            statements = _CoreStatements(connection)
            for unused in self._unused(lambda _: True):
                statements.take_back(unused)

        self._run_on_core(take_back, mode="quick")

    def _still_allowed(self, account: str, method_class: str, endpoint: str, windows: Sequence[Window]) -> None:
        """After a sleep: somebody else may have met a 429 meanwhile. The slot stays spent, nothing is sent."""
        bucket = {"account": account, "method_class": method_class}
        with self._lock:
            if self._file is None:
                blocked_until_us = self._run_on_core(lambda c: c.execute(_BLOCKED_UNTIL, bucket).scalar(), mode="read")
            else:
                # Between the instant written down and the departure: through the driver, one statement is a tenth.
                blocked_until_us = self._run_on_driver(lambda s: s.blocked_until_us(bucket), mode="read")
        blocked_us = int(blocked_until_us or 0) - self._now_us()
        if blocked_us > 0:
            resume_at = self._clock.now() + timedelta(microseconds=blocked_us)
            raise _exhausted(account, method_class, endpoint, resume_at, windows)

    def learn(
        self,
        account: str,
        method_class: str,
        windows: Sequence[Window],
        *,
        endpoint: str,
        status: int,
        retry_after_seconds: float | None = None,
    ) -> datetime | None:
        """Take in an answer. A 429 blocks the bucket; returns until when (None for any other answer).

        The block lasts `retry_after_seconds` where that is positive and at most a day (or the longest window), else
        the longest window (D2, D3). A 429 that comes after a block was obeyed doubles it, up to an hour: with only
        a per-second limit known, an undocumented longer one is found without hammering. Any other answer below 500
        ends the doubling.
        """
        if status != 429:
            if status < 500 and (account, method_class) in self._struck:
                self._struck.discard((account, method_class))
                self._run(lambda c: self._update_bucket(c, account, method_class, strikes=0), mode="quick")
            return None
        longest_seconds = max(window.span_us for window in windows) / MICROSECONDS
        trusted_seconds = max(_LONGEST_TRUSTED_RETRY_AFTER_SECONDS, longest_seconds)

        def block(connection: sa.Connection) -> int:
            self._serialise(connection, account, method_class)
            now_us = self._now_us()
            known = self._bucket(connection, account, method_class)
            # Several requests in flight meet the same refusal: one strike, not ten.
            new_episode = now_us >= known.blocked_until_us
            seconds = min(longest_seconds * 2**known.strikes, max(longest_seconds, _LONGEST_ESCALATION_SECONDS))
            if retry_after_seconds is not None and 0 < retry_after_seconds <= trusted_seconds:
                seconds = retry_after_seconds
            until_us = max(known.blocked_until_us, now_us + math.ceil(seconds * MICROSECONDS))
            strikes = min(known.strikes + new_episode, 20)
            self._update_bucket(connection, account, method_class, blocked_until_us=until_us, strikes=strikes)
            connection.execute(
                _refusals.insert(),
                {
                    "account": account,
                    "method_class": method_class,
                    "ledger_us": now_us,
                    "endpoint": endpoint[:200],
                    "retry_after_seconds": retry_after_seconds,
                },
            )
            return int(until_us - now_us)

        blocked_us = self._run(block, mode="durable")
        self._struck.add((account, method_class))
        until = self._clock.now() + timedelta(microseconds=blocked_us)
        logger.warning(
            "%s answered 429 to %s; no %s request before %s", account, endpoint, method_class, _minute(until)
        )
        return until

    def note(self, account: str, method_class: str, endpoint: str, work: Spending | None = None) -> None:
        """Count a request that is sent whatever the windows say: the question how many requests the vendor counted.

        Remembers when it was asked, for `is_in_doubt` and `adopt_usage`.
        """
        spent = work or Spending()
        row: dict[str, object] = {"account": account, "method_class": method_class, "kind": "sent"}
        row |= {"endpoint": endpoint[:200], "vendor": account.partition(":")[0]}
        row |= {"stream": spent.stream, "site": spent.site, "run_id": spent.run_id}

        def write(connection: sa.Connection) -> None:
            self._serialise(connection, account, method_class)
            now_us = self._now_us()
            stamped = row | {"ledger_us": now_us, "sent_us": _to_us(self._clock.now())}
            connection.execute(_INSERT_REQUEST, stamped)
            self._update_report(connection, account, method_class, asked_us=now_us)

        self._run(write, mode="durable")

    def is_in_doubt(self, policy: QuotaPolicy, method_class: str) -> bool:
        """Whether the vendor's own count would change ours, and nobody asked for it in the last ten minutes.

        It would after a loss, after a 429 although we counted room, and while requests that somebody else sent keep
        ours waiting.
        """
        window = max(policy.windows_for(method_class), key=_by_seconds)

        def read(connection: sa.Connection) -> bool:
            now_us = self._now_us()
            report = self._report(connection, policy.account, method_class)
            if report is not None and report.asked_us > now_us - _ASK_AGAIN_AFTER_SECONDS * MICROSECONDS:
                return False
            binds = {"account": policy.account, "method_class": method_class, "offset_0": window.limit - 1}
            facts = self._facts(connection, 1, binds | _since(now_us, (window,)))
            if facts.lost_us is not None and facts.trusted_us < facts.lost_us:
                return facts.lost_us + window.span_us > now_us
            since_us = now_us - window.span_us
            own, foreign = self._counted(connection, policy.account, method_class, since_us, now_us)
            refusal = self._newest_refusal(connection, policy.account, method_class, since_us)
            is_surprising = refusal is not None and refusal.ledger_us > facts.trusted_us and own < window.limit
            return is_surprising or (foreign > 0 and earliest_us(now_us, (window,), facts) > now_us)

        return self._run(read, mode="read")

    def adopt_usage(self, account: str, method_class: str, used: int, *, possible_limits: Sequence[int] = ()) -> None:
        """Believe the vendor's own count of its current (longest declared) window.

        More than we counted when it was asked (`note`; else now): the difference is somebody else's and is counted as
        sent now. A loss or a guessed block ends, because the true figure is known. Fewer than we counted changes
        nothing: the vendor's window may be a fixed one that has just begun, and a sliding count is safe for both.

        A 429 since the last such count although this one is below the limit: the vendor's limit is another one than
        ours. The largest of `possible_limits` that the count reaches is taken for it, for a day or until a later window
        holds more; where there is none, or the 429 may have been about a burst, the block stays.
        """
        if used < 0:
            raise ValueError("a vendor cannot have counted fewer than 0 requests")

        def adopt(connection: sa.Connection) -> None:
            self._serialise(connection, account, method_class)
            now_us = self._now_us()
            declared = self._declared(connection, account)
            windows = declared.get(method_class) or declared.get("*", ())
            if not windows:
                raise ConfigurationError(f"no window is declared for {method_class} of {account}")
            learned = self._learned(connection, account, now_us)
            if method_class in learned:
                windows = _with_limit(windows, learned[method_class])
            window = max(windows, key=_by_seconds)
            since_us = now_us - window.span_us
            known = self._bucket(connection, account, method_class)
            report = self._report(connection, account, method_class)
            refusal = self._newest_refusal(connection, account, method_class, since_us)
            is_unexplained = refusal is not None and refusal.ledger_us > known.trusted_us and used < window.limit
            limit = window.limit
            if is_unexplained and _speaks_of_hours(refusal, known.strikes):
                limit = max((n for n in possible_limits if 1 <= n <= used), default=window.limit)
            if limit < window.limit:
                self._update_report(connection, account, method_class, learned_limit=limit, learned_us=now_us)
                logger.warning(
                    "%s refuses after %d requests: its limit is taken to be %d in %g s, not %d, for a day; "
                    "set the plan in sites.yaml",
                    account,
                    used,
                    limit,
                    window.seconds,
                    window.limit,
                )
            elif _is_outgrown(report, used, since_us):
                self._update_report(connection, account, method_class, learned_limit=None)
            asked_us = now_us
            if report is not None and report.asked_us > now_us - _ASK_AGAIN_AFTER_SECONDS * MICROSECONDS:
                asked_us = report.asked_us
            self._replace_foreign(connection, account, method_class, since_us, asked_us, now_us, min(used, limit))
            is_stated = refusal is not None and (refusal.retry_after_seconds or 0.0) > 0
            stays = used >= limit or is_unexplained or is_stated
            self._update_bucket(
                connection,
                account,
                method_class,
                trusted_us=now_us,
                blocked_until_us=known.blocked_until_us if stays else 0,
                strikes=known.strikes if is_unexplained else 0,
            )

        self._run(adopt, mode="durable")

    def _replace_foreign(
        self,
        connection: sa.Connection,
        account: str,
        method_class: str,
        since_us: int,
        asked_us: int,
        now_us: int,
        used: int,
    ) -> None:
        """What the vendor counted and we did not, as rows of now; those adopted before are part of it."""
        mine = (_requests.c.account == account) & (_requests.c.method_class == method_class)
        inside = mine & (_requests.c.ledger_us > since_us)
        connection.execute(_requests.delete().where(inside & (_requests.c.kind == "adopted")))
        own, _ = self._counted(connection, account, method_class, since_us, asked_us)
        if used > own:
            row = {"account": account, "method_class": method_class, "ledger_us": now_us, "kind": "adopted"}
            row |= {"sent_us": _to_us(self._clock.now()), "endpoint": "", "vendor": account.partition(":")[0]}
            row |= {"stream": "", "site": "", "run_id": ""}
            connection.execute(_INSERT_REQUEST, [row] * (used - own))

    def capped(self, policy: QuotaPolicy) -> QuotaPolicy:
        """The policy with what 429s taught about its longest windows (`adopt_usage`): for forecasts and screens.

        Decisions read it themselves, each time: a meter obeys what was learned after it was made.
        """
        learned = self._run(lambda c: self._learned(c, policy.account, self._now_us()), mode="read")
        return policy if not learned else _with_limits(policy, learned)

    def declare(self, policy: QuotaPolicy) -> None:
        """Keep a policy's limits in the ledger, so that status screens know them without building a vendor."""
        rows = [
            {
                "account": policy.account,
                "method_class": method_class,
                "seconds": window.seconds,
                "request_limit": window.limit,
                "guard_seconds": window.guard_seconds,
            }
            for method_class, windows in policy.windows.items()
            for window in windows
        ]

        def write(connection: sa.Connection) -> None:
            self._serialise(connection, policy.account, "windows")
            connection.execute(_windows.delete().where(_windows.c.account == policy.account))
            connection.execute(_windows.insert(), rows)

        def said(declared: Mapping[str, tuple[Window, ...]]) -> set[tuple[str, float, int, float]]:
            return {(name, w.seconds, w.limit, w.guard_seconds) for name, ws in declared.items() for w in ws}

        if said(policy.windows) != said(self._run(lambda c: self._declared(c, policy.account), mode="read")):
            self._run(write, mode="durable")

    # ------------------------------------------------------------------------------------------------------- questions

    def accounts(self) -> tuple[str, ...]:
        """Every account a policy was declared for."""

        def read(connection: sa.Connection) -> tuple[str, ...]:
            return tuple(
                connection.execute(sa.select(_windows.c.account).distinct().order_by(_windows.c.account)).scalars()
            )

        return self._run(read, mode="read")

    def usage(self, account: str) -> tuple[WindowUsage, ...]:
        """Each window of an account as it stands now, shortest first within a class; costs no request."""

        def read(connection: sa.Connection) -> tuple[WindowUsage, ...]:
            declared = self._declared(connection, account)
            each = declared.pop("*", ())
            if each:
                seen = sa.select(_requests.c.method_class).where(_requests.c.account == account).distinct()
                declared |= {verb: each for verb in connection.execute(seen).scalars() if verb not in declared}
            for method_class, limit in self._learned(connection, account, self._now_us()).items():
                if method_class in declared:
                    declared[method_class] = _with_limit(declared[method_class], limit)
            return tuple(
                self._window_usage(connection, account, method_class, window)
                for method_class, windows in sorted(declared.items())
                for window in windows
            )

        return self._run(read, mode="read")

    def _window_usage(self, connection: sa.Connection, account: str, method_class: str, window: Window) -> WindowUsage:
        now_us, wall = self._now_us(), self._clock.now()
        binds = {"account": account, "method_class": method_class, "offset_0": window.limit - 1}
        facts = self._facts(connection, 1, binds | _since(now_us, (window,)))
        since_us = now_us - window.span_us

        def count(table: sa.Table) -> int:
            query = sa.select(sa.func.count()).select_from(table)
            inside = (table.c.account == account, table.c.method_class == method_class, table.c.ledger_us > since_us)
            return int(connection.execute(query.where(*inside)).scalar_one())

        def instant(us: int) -> datetime | None:
            return wall + timedelta(microseconds=us - now_us) if us > now_us else None

        lost_until_us = 0
        if facts.lost_us is not None and facts.trusted_us < facts.lost_us:
            lost_until_us = facts.lost_us + window.span_us
        spent = lost_until_us > now_us or facts.blocked_until_us > now_us
        used = window.limit if lost_until_us > now_us else count(_requests)
        resets_us = max(
            lost_until_us, facts.blocked_until_us, facts.newest_us + window.span_us if facts.newest_us else 0
        )
        return WindowUsage(
            account=account,
            method_class=method_class,
            limit=window.limit,
            window_seconds=window.seconds,
            used=used,
            remaining=0 if spent else max(0, window.limit - used),
            next_slot_at=instant(earliest_us(now_us, (window,), facts)),
            resets_at=instant(resets_us),
            blocked_until=instant(facts.blocked_until_us),
            refused=count(_refusals),
        )

    def departures(self, account: str, method_class: str, windows: Sequence[Window]) -> tuple[datetime, ...]:
        """When the requests still inside the longest of these windows left (or will leave): wall clock, ascending.

        A lost ledger, or a block, counts as a full window that began at the loss or ends with the block.
        """
        longest = max(windows, key=_by_seconds)

        def read(connection: sa.Connection) -> tuple[datetime, ...]:
            now_us, wall = self._now_us(), self._clock.now()
            binds = {"account": account, "method_class": method_class, "offset_0": longest.limit - 1}
            facts = self._facts(connection, 1, binds | _since(now_us, (longest,)))
            query = sa.select(_requests.c.ledger_us).where(
                _requests.c.account == account,
                _requests.c.method_class == method_class,
                _requests.c.ledger_us > now_us - longest.span_us,
            )
            stamps = [int(us) for us in connection.execute(query.order_by(_requests.c.ledger_us)).scalars()]
            free_us = earliest_us(now_us, (longest,), facts)
            if free_us > now_us and len(stamps) < longest.limit:
                stamps = [free_us - longest.span_us] * longest.limit
            return tuple(wall + timedelta(microseconds=us - now_us) for us in stamps)

        return self._run(read, mode="read")

    def usage_of(self, policy: QuotaPolicy, method_class: str) -> tuple[WindowUsage, ...]:
        """One bucket's windows as they stand now, whether the policy was declared before or not."""
        policy = self.capped(policy)

        def read(connection: sa.Connection) -> tuple[WindowUsage, ...]:
            return tuple(
                self._window_usage(connection, policy.account, method_class, window)
                for window in policy.windows_for(method_class)
            )

        return self._run(read, mode="read")

    def requests_by_endpoint(self, account: str, since: datetime) -> dict[str, int]:
        """Requests sent by us on an account since an instant (wall clock), by endpoint label."""

        def read(connection: sa.Connection) -> dict[str, int]:
            query = (
                sa.select(_requests.c.endpoint, sa.func.count())
                .where(_requests.c.account == account, _requests.c.kind == "sent", _requests.c.sent_us >= _to_us(since))
                .group_by(_requests.c.endpoint)
                .order_by(_requests.c.endpoint)
            )
            return {str(endpoint): int(requests) for endpoint, requests in connection.execute(query)}

        return self._run(read, mode="read")

    def requests_by_hour(self, accounts: Sequence[str], since: datetime) -> dict[tuple[datetime, str], int]:
        """Requests sent by us since an instant, by the UTC hour they left in and the stream they were for."""
        hour_us = 3_600 * MICROSECONDS

        def read(connection: sa.Connection) -> dict[tuple[datetime, str], int]:
            begun = _requests.c.sent_us - _requests.c.sent_us % hour_us
            query = (
                sa.select(begun.label("hour_us"), _requests.c.stream, sa.func.count())
                .where(
                    _requests.c.account.in_(list(accounts)),
                    _requests.c.kind == "sent",
                    _requests.c.sent_us >= _to_us(since),
                )
                .group_by(sa.text("1"), _requests.c.stream)
                .order_by(sa.text("1"), _requests.c.stream)
            )
            return {(_from_us(int(at)), str(stream)): int(n) for at, stream, n in connection.execute(query)}

        return self._run(read, mode="read")

    def refused(self, accounts: Sequence[str], since: datetime) -> int:
        """Answers 429 since an instant of this ledger's clock."""

        def read(connection: sa.Connection) -> int:
            since_us = self._now_us() - (_to_us(self._clock.now()) - _to_us(since))
            query = (
                sa.select(sa.func.count())
                .select_from(_refusals)
                .where(_refusals.c.account.in_(list(accounts)), _refusals.c.ledger_us >= since_us)
            )
            return int(connection.execute(query).scalar_one())

        return self._run(read, mode="read")

    def hourly(self, since: datetime) -> tuple[HourlyRequests, ...]:
        """Requests sent by us and answers 429 by UTC hour, account, endpoint and site; `since` (wall clock) inclusive.

        Answers carry no site: theirs is "".
        """
        hour_us = 3_600 * MICROSECONDS
        sent_at = _requests.c.sent_us
        group = [_requests.c[name] for name in ("vendor", "account", "method_class", "endpoint", "site")]
        sent = (
            sa.select((sent_at - sent_at % hour_us).label("hour_us"), *group, sa.func.count())
            .where(_requests.c.kind == "sent", sent_at >= _to_us(since))
            .group_by(sa.text("1"), *group)
        )

        def read(connection: sa.Connection) -> tuple[HourlyRequests, ...]:
            counts = {tuple(row[:-1]): [int(row[-1]), 0] for row in connection.execute(sent)}
            for at_us, account, method_class, endpoint in self._refusals_since(connection, _to_us(since)):
                vendor = account.partition(":")[0]
                counts.setdefault((at_us - at_us % hour_us, vendor, account, method_class, endpoint, ""), [0, 0])[
                    1
                ] += 1
            return tuple(
                HourlyRequests(
                    hour_at=_from_us(int(key[0])),
                    vendor=key[1],
                    account=key[2],
                    method_class=key[3],
                    endpoint=key[4],
                    site=key[5],
                    requests=requests,
                    refused=refused,
                )
                for key, (requests, refused) in sorted(counts.items())
            )

        return self._run(read, mode="read")

    def daily_usage(self, account: str, since: date) -> tuple[DayUsage, ...]:
        """How full each window of an account was by UTC date, from `since` on; dates without a request are absent.

        The grid's spans are as long as the window and shorter than what the ledger keeps apart (`Window.span_us`), so
        no span holds more than the limit that was in force.
        """
        windows = [(usage.method_class, usage.window_seconds, usage.limit) for usage in self.usage(account)]
        since_us = _to_us(datetime(since.year, since.month, since.day, tzinfo=UTC))

        def read(connection: sa.Connection) -> tuple[DayUsage, ...]:
            refused: dict[tuple[str, date], int] = {}
            for at_us, refusing, method_class, _ in self._refusals_since(connection, since_us):
                if refusing == account:
                    key = (method_class, _from_us(at_us).date())
                    refused[key] = refused.get(key, 0) + 1
            return tuple(
                DayUsage(
                    account=account,
                    method_class=method_class,
                    window_seconds=seconds,
                    limit=limit,
                    date_utc=at,
                    used=used,
                    requests=requests,
                    refused=refused.get((method_class, at), 0),
                )
                for method_class, seconds, limit in windows
                for at, used, requests in self._fullest(connection, account, method_class, seconds, since_us)
            )

        return self._run(read, mode="read")

    @staticmethod
    def _fullest(
        connection: sa.Connection, account: str, method_class: str, seconds: float, since_us: int
    ) -> list[tuple[date, int, int]]:
        """(UTC date, requests of the fullest span, requests sent by us) of each date."""
        day_us = 86_400 * MICROSECONDS
        span_us = max(1, math.floor(seconds * MICROSECONDS))
        spans = (
            sa.select(
                sa.func.min(_requests.c.sent_us).label("first_us"),
                sa.func.count().label("counted"),
                sa.func.sum(sa.case((_requests.c.kind == "sent", 1), else_=0)).label("sent"),
            )
            .where(
                _requests.c.account == account,
                _requests.c.method_class == method_class,
                _requests.c.sent_us >= since_us,
            )
            .group_by(_requests.c.ledger_us - _requests.c.ledger_us % span_us)
            .subquery()
        )
        begun = spans.c.first_us - spans.c.first_us % day_us
        query = sa.select(begun, sa.func.max(spans.c.counted), sa.func.sum(spans.c.sent)).group_by(sa.text("1"))
        found = connection.execute(query.order_by(sa.text("1")))
        return [(_from_us(int(at)).date(), int(used), int(sent)) for at, used, sent in found]

    def _refusals_since(self, connection: sa.Connection, since_us: int) -> list[tuple[int, str, str, str]]:
        """(wall clock in microseconds, account, method class, endpoint) of answers 429, oldest first.

        They are kept on the ledger's time line; the request before one tells how far that was from the wall clock.
        """
        before = (
            sa.select(_requests.c.sent_us - _requests.c.ledger_us)
            .where(
                _requests.c.account == _refusals.c.account,
                _requests.c.method_class == _refusals.c.method_class,
                _requests.c.ledger_us <= _refusals.c.ledger_us,
            )
            .order_by(_requests.c.ledger_us.desc())
            .limit(1)
            .scalar_subquery()
        )
        now_apart_us = _to_us(self._clock.now()) - self._now_us()
        wall_us = _refusals.c.ledger_us + sa.func.coalesce(before, now_apart_us)
        columns = (_refusals.c.account, _refusals.c.method_class, _refusals.c.endpoint)
        found = connection.execute(sa.select(wall_us, *columns).order_by(_refusals.c.ledger_us, _refusals.c.id))
        return [(int(at), str(a), str(m), str(e)) for at, a, m, e in found if int(at) >= since_us]

    def spent(
        self,
        *,
        vendor: str | None = None,
        stream: str | None = None,
        site: str | None = None,
        run_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> tuple[Spent, ...]:
        """Requests spent, grouped by vendor, stream, site and endpoint; `since` inclusive, `until` exclusive."""
        wanted = {"vendor": vendor, "stream": stream, "site": site, "run_id": run_id}

        def read(connection: sa.Connection) -> tuple[Spent, ...]:
            group = (_requests.c.vendor, _requests.c.stream, _requests.c.site, _requests.c.endpoint)
            query = (
                sa.select(*group, sa.func.count()).where(_requests.c.kind == "sent").group_by(*group).order_by(*group)
            )
            for name, value in wanted.items():
                if value is not None:
                    query = query.where(_requests.c[name] == value)
            if since is not None:
                query = query.where(_requests.c.sent_us >= _to_us(since))
            if until is not None:
                query = query.where(_requests.c.sent_us < _to_us(until))
            return tuple(
                Spent(vendor=row[0], stream=row[1], site=row[2], endpoint=row[3], requests=row[4])
                for row in connection.execute(query)
            )

        return self._run(read, mode="read")

    # ------------------------------------------------------------------------------------------------------- deferrals

    def defer(
        self,
        *,
        vendor: str,
        stream: str,
        site: str,
        first_day: date,
        last_day: date,
        resume_at: datetime,
        reason: str,
        landed_records: int = 0,
    ) -> None:
        """Remember work to resume. Replaces whatever was deferred for the same days of the same stream and site."""
        if last_day < first_day:
            raise ValueError(f"the deferred range ends before it starts: {first_day} to {last_day}")
        row = {"vendor": vendor, "stream": stream, "site": site, "first_day": first_day, "last_day": last_day}
        row |= {"resume_us": _to_us(resume_at), "reason": reason[:400], "landed_records": landed_records}
        row |= {"recorded_us": _to_us(self._clock.now())}

        def write(connection: sa.Connection) -> None:
            self._serialise(connection, vendor, "deferrals")
            self._cut_out(connection, vendor, stream, site, first_day, last_day)
            connection.execute(_deferrals.insert(), row)

        self._run(write, mode="durable")

    def clear(
        self, *, vendor: str, stream: str, site: str, first_day: date | None = None, last_day: date | None = None
    ) -> None:
        """Forget deferrals for days that are done (no days: all). A longer deferral keeps its other days."""

        def write(connection: sa.Connection) -> None:
            self._serialise(connection, vendor, "deferrals")
            self._cut_out(connection, vendor, stream, site, first_day or date.min, last_day or date.max)

        self._run(write, mode="durable")

    def deferrals(self) -> tuple[Deferral, ...]:
        """All deferred work, newest day first."""
        return self._run(lambda c: tuple(_read_deferrals(c, sa.true())), mode="read")

    def due(self, now: datetime) -> tuple[Deferral, ...]:
        """Deferred work whose time has come, newest day first (DESIGN section 3)."""
        return self._run(lambda c: tuple(_read_deferrals(c, _deferrals.c.resume_us <= _to_us(now))), mode="read")

    @staticmethod
    def _cut_out(
        connection: sa.Connection, vendor: str, stream: str, site: str, first_day: date, last_day: date
    ) -> None:
        touched = (
            (_deferrals.c.vendor == vendor)
            & (_deferrals.c.stream == stream)
            & (_deferrals.c.site == site)
            & (_deferrals.c.first_day <= last_day)
            & (_deferrals.c.last_day >= first_day)
        )
        rows = [dict(row) for row in connection.execute(sa.select(_deferrals).where(touched)).mappings()]
        connection.execute(_deferrals.delete().where(touched))
        for row in rows:
            if row["first_day"] < first_day:
                connection.execute(_deferrals.insert(), row | {"last_day": first_day - timedelta(days=1)})
            if row["last_day"] > last_day:
                connection.execute(_deferrals.insert(), row | {"first_day": last_day + timedelta(days=1)})

    # ---------------------------------------------------------------------------------------------- inside transactions

    def _facts(self, connection: sa.Connection, window_count: int, binds: Mapping[str, object]) -> _Facts:
        return _facts_of(connection.execute(_facts_query(window_count), binds).one())

    def _declared(self, connection: sa.Connection, account: str) -> dict[str, tuple[Window, ...]]:
        found: dict[str, tuple[Window, ...]] = {}
        query = sa.select(_windows).where(_windows.c.account == account).order_by(_windows.c.seconds)
        for row in connection.execute(query):
            window = Window(row.request_limit, row.seconds, row.guard_seconds)
            found[row.method_class] = (*found.get(row.method_class, ()), window)
        return found

    @staticmethod
    def _learned(connection: sa.Connection, account: str, now_us: int) -> dict[str, int]:
        """Limits of longest windows that 429s taught and that are still believed, by method class."""
        since_us = now_us - math.floor(_LEARNED_LIMIT_SECONDS * MICROSECONDS)
        query = sa.select(_reports.c.method_class, _reports.c.learned_limit).where(
            _reports.c.account == account, _reports.c.learned_limit.is_not(None), _reports.c.learned_us > since_us
        )
        return {str(name): int(limit) for name, limit in connection.execute(query)}

    def _bucket(self, connection: sa.Connection, account: str, method_class: str) -> Any:
        mine = (_buckets.c.account == account) & (_buckets.c.method_class == method_class)
        found = connection.execute(sa.select(_buckets).where(mine)).one_or_none()
        if found is None:
            connection.execute(_buckets.insert(), {"account": account, "method_class": method_class})
            found = connection.execute(sa.select(_buckets).where(mine)).one()
        return found

    @staticmethod
    def _update_bucket(connection: sa.Connection, account: str, method_class: str, **values: int) -> None:
        mine = (_buckets.c.account == account) & (_buckets.c.method_class == method_class)
        connection.execute(_buckets.update().where(mine).values(**values))

    @staticmethod
    def _counted(
        connection: sa.Connection, account: str, method_class: str, since_us: int, until_us: int
    ) -> tuple[int, int]:
        """Requests after `since_us`, to `until_us`: (sent by us, sent by somebody else)."""
        query = (
            sa.select(_requests.c.kind, sa.func.count())
            .where(
                _requests.c.account == account,
                _requests.c.method_class == method_class,
                _requests.c.ledger_us > since_us,
                _requests.c.ledger_us <= until_us,
            )
            .group_by(_requests.c.kind)
        )
        found = {str(kind): int(number) for kind, number in connection.execute(query)}
        return found.get("sent", 0), found.get("adopted", 0)

    @staticmethod
    def _newest_refusal(connection: sa.Connection, account: str, method_class: str, since_us: int) -> Any:
        query = sa.select(_refusals).where(
            _refusals.c.account == account,
            _refusals.c.method_class == method_class,
            _refusals.c.ledger_us > since_us,
        )
        return connection.execute(query.order_by(_refusals.c.id.desc()).limit(1)).one_or_none()

    @staticmethod
    def _report(connection: sa.Connection, account: str, method_class: str) -> Any:
        mine = (_reports.c.account == account) & (_reports.c.method_class == method_class)
        return connection.execute(sa.select(_reports).where(mine)).one_or_none()

    def _update_report(self, connection: sa.Connection, account: str, method_class: str, **values: int | None) -> None:
        mine = (_reports.c.account == account) & (_reports.c.method_class == method_class)
        if self._report(connection, account, method_class) is None:
            connection.execute(_reports.insert(), {"account": account, "method_class": method_class} | values)
        else:
            connection.execute(_reports.update().where(mine).values(**values))

    def _serialise(self, connection: sa.Connection, account: str, method_class: str) -> None:
        """SQLite is already serial (BEGIN IMMEDIATE). Postgres: one decision at a time per bucket, freed at commit."""
        if connection.dialect.name == "postgresql":
            digest = hashlib.blake2b(f"{account}/{method_class}".encode(), digest_size=8).digest()
            key = int.from_bytes(digest, "big", signed=True)
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})

    # ------------------------------------------------------------------------------------------------ time and database

    def _now_us(self) -> int:
        return self._offset_us + math.floor(self._clock.monotonic() * MICROSECONDS)

    def _run(self, work: Callable[[sa.Connection], _T], *, mode: Literal["read", "quick", "durable"]) -> _T:
        """One transaction, in which no row of this process stands for a request that was not sent."""
        with self._lock:
            self._give_back()
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
                    if last_attempt or self._file is None or not _says_unusable(error):
                        raise _storage_error(error) from error
                    self._connect()
                except OSError as error:
                    raise _os_error(error) from error
            raise AssertionError("unreachable")

    def _run_on_driver(
        self, work: Callable[[_DriverStatements], _T], *, mode: Literal["read", "quick", "durable"]
    ) -> _T:
        """As `_run`, without SQLAlchemy between: decisions of one process are limited by it, not by SQLite."""
        for last_attempt in (False, True):
            try:
                connection = self._driver_connection(mode)
                if mode == "read":
                    return work(_DriverStatements(connection))  # one statement is a transaction
                connection.execute("BEGIN IMMEDIATE")
                try:
                    result = work(_DriverStatements(connection))
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._close_driver()
                wrapped = DBAPIError(None, None, error)
                if last_attempt or not _says_unusable(wrapped):
                    raise _storage_error(wrapped) from error
                self._connect()
            except OSError as error:
                raise _os_error(error) from error
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
        with self._ahead_lock:
            self._ahead.clear()  # perhaps rows of another file, or another process's
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None
        self._pid = os.getpid()
        try:
            if self._file is None:
                engine = _server_engine(self._url)
                with engine.begin() as connection:
                    self._serialise(connection, "ledger", "create")
                    self._prepare(connection)
                self._engine = engine
            else:
                self._engine = self._open_file(self._file)
        except DBAPIError as error:
            raise _storage_error(error) from error
        except Timeout as error:
            raise StorageError(
                f"another process has been opening the request ledger for {_BUSY_SECONDS} s",
                next_step="look for a stopped or hanging analytics-platform process.",
            ) from error
        except OSError as error:
            raise _os_error(error) from error

    def _open_file(self, file: _LedgerFile) -> sa.Engine:
        file.path.parent.mkdir(parents=True, exist_ok=True)
        with file.lock():
            marker = file.read_marker()
            empty = not file.path.exists() or file.path.stat().st_size == 0
            state, last_row, ledger_id = ("empty", 0, "") if empty else _inspect(file.path)
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
            engine = _sqlite_engine(file.path)
            with engine.connect().execution_options(ledger_mode="durable") as connection, connection.begin():
                ledger_id = self._prepare(connection)
                if lost:
                    connection.execute(_ledger.update().values(lost_us=self._now_us()))
            if lost or marker is None or not marker[0]:
                file.write_marker(ledger_id, self._clock.now(), last_row)
            file.remember()
        if lost:
            logger.error("the request ledger %s: every quota window counts as spent, for one window from now", lost)
        return engine

    def _prepare(self, connection: sa.Connection) -> str:
        """Create what is missing, join the time line, drop what is too old to matter. Returns the ledger's id."""
        _metadata.create_all(connection)
        wall_us = _to_us(self._clock.now())
        ledger_id = connection.execute(sa.select(_ledger.c.ledger_id)).scalar()
        if ledger_id is None:
            ledger_id = str(uuid.uuid4())
            connection.execute(_ledger.insert(), {"ledger_id": ledger_id, "schema_version": 1, "created_us": wall_us})
        self._join_time_line(connection, wall_us)
        too_old_us = self._now_us() - _KEEP_DAYS * 86_400 * MICROSECONDS
        connection.execute(_requests.delete().where(_requests.c.ledger_us < too_old_us))
        connection.execute(_refusals.delete().where(_refusals.c.ledger_us < too_old_us))
        return str(ledger_id)

    def _join_time_line(self, connection: sa.Connection, wall_us: int) -> None:
        source = _time_source(self._clock)
        monotonic_us = math.floor(self._clock.monotonic() * MICROSECONDS)
        known = connection.execute(sa.select(_timelines.c.offset_us).where(_timelines.c.source == source)).scalar()
        if known is None:
            # Not the newest row alone: it may leave before one that was written earlier, for a turn or ahead.
            late = sa.select(_requests.c.ledger_us, _requests.c.sent_us).order_by(_requests.c.id.desc()).limit(1000)
            late = sa.select(late.subquery()).order_by(sa.desc("ledger_us")).limit(1)
            newest = connection.execute(late).one_or_none()
            lost_us = connection.execute(sa.select(_ledger.c.lost_us)).scalar()
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
            connection.execute(_timelines.insert(), {"source": source, "offset_us": known})
        self._offset_us = int(known)


def _server_us(connection: sa.Connection, newest_us: int) -> int:
    """The database server's instant: hosts join one time line by the one clock they share, however their own differ.

    A server whose clock was set back by more than anybody waits adds nothing, as everywhere.
    """
    query = sa.text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)")
    server_us = int(connection.execute(query).scalar_one())
    was_set_back = newest_us > server_us + _LONGEST_WAIT_SECONDS * MICROSECONDS
    return newest_us if was_set_back else server_us


def _inspect(path: Path) -> tuple[Literal["sound", "unusable", "empty"], int, str]:
    """(state, number of the last request row, ledger id) of a file that may be anything."""
    engine = _sqlite_engine(path)
    try:
        with engine.connect() as connection, connection.begin():
            if connection.exec_driver_sql("PRAGMA quick_check(1)").scalar() != "ok":
                return ("unusable", 0, "")
            if not connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar():
                return ("empty", 0, "")
            ledger_id = connection.execute(sa.select(_ledger.c.ledger_id)).scalar()
            last_row = connection.exec_driver_sql("SELECT seq FROM sqlite_sequence WHERE name = 'requests'").scalar()
            return ("sound", int(last_row or 0), str(ledger_id)) if ledger_id else ("unusable", 0, "")
    except DBAPIError as error:
        if _says_unusable(error):
            return ("unusable", 0, "")
        raise
    finally:
        engine.dispose()


@lru_cache(maxsize=1)
def _boot_id() -> str:
    """What identifies this boot of this machine; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _time_source(clock: Clock) -> str:
    """Processes with the same source share a monotonic clock. An unknown clock, or system, stands alone."""
    boot = _boot_id() if type(clock) is SystemClock else ""
    if isinstance(clock, ManualClock):
        boot = clock.boot_id
    return f"boot:{boot}" if boot else f"alone:{uuid.uuid4()}"


def _ask(
    account: str,
    method_class: str,
    windows: tuple[Window, ...],
    endpoint: str,
    *,
    cost: int,
    keep_free: int,
    max_wait_seconds: float,
    work: Spending,
    label: _Label | None,
    follows: bool,
) -> _Ask:
    """The question as the statements want it. Raises ConfigurationError where the cost can never fit."""
    row: dict[str, object] = {
        "account": account,
        "method_class": method_class,
        "kind": "sent",
        "endpoint": endpoint[:200],
        "vendor": account.partition(":")[0],
        "stream": work.stream,
        "site": work.site,
        "run_id": work.run_id,
    }
    return _Ask(
        windows=windows,
        offsets=_offsets(windows, cost=cost, keep_free=keep_free),
        row=row,
        cost=cost,
        keep_free=keep_free,
        longest_wait_us=max_wait_seconds * MICROSECONDS,
        label=label,
        follows=follows,
    )


def _offsets(windows: Sequence[Window], *, cost: int, keep_free: int) -> dict[str, object]:
    return {f"offset_{i}": _offset(window, cost=cost, keep_free=keep_free) for i, window in enumerate(windows)}


def _offset(window: Window, *, cost: int, keep_free: int) -> int:
    """How many newest rows may stay inside the window when `cost` more join them."""
    limit = window.limit - (keep_free if window.seconds > SYNCED_FROM_SECONDS else 0)
    if not 1 <= cost <= limit:
        raise ConfigurationError(
            f"{cost} requests at once can never fit {limit} of {window.limit} requests in {window.seconds:g} s",
            next_step="raise the plan's limit, or lower the reserve.",
        )
    return limit - cost


def _exhausted(
    account: str, method_class: str, endpoint: str, resume_at: datetime, windows: Iterable[Window]
) -> QuotaExhausted:
    limits = ", ".join(f"{w.limit} in {w.seconds:g} s" for w in windows)
    return QuotaExhausted(
        f"no {method_class} request is left in the quota ({limits})",
        next_step=f"nothing: the work resumes by itself at {_minute(resume_at)}.",
        where=Where(vendor=account.partition(":")[0], endpoint=endpoint),
        resume_at=resume_at,
    )


def _tolerated_us(windows: Sequence[Window]) -> float:
    """How late a request may leave by the instant written down: half of what the guard allows for the whole way."""
    guard_us = min(window.guard_seconds for window in windows) * MICROSECONDS
    return max(guard_us / 2, _LEAST_LATE_US)


def _os_error(error: OSError) -> StorageError:
    return StorageError(
        f"the request ledger cannot be used: {error.strerror or type(error).__name__}",
        next_step="check that the data home exists, has space and belongs to this user; nothing was sent.",
    )


def _read_deferrals(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> Iterator[Deferral]:
    order = (_deferrals.c.last_day.desc(), _deferrals.c.vendor, _deferrals.c.stream, _deferrals.c.site)
    for row in connection.execute(sa.select(_deferrals).where(condition).order_by(*order)):
        yield Deferral(
            vendor=row.vendor,
            stream=row.stream,
            site=row.site,
            first_day=row.first_day,
            last_day=row.last_day,
            resume_at=_from_us(row.resume_us),
            reason=row.reason,
            landed_records=row.landed_records,
            recorded_at=_from_us(row.recorded_us),
        )


def _by_seconds(window: Window) -> float:
    return window.seconds


def _speaks_of_hours(refusal: Any, strikes: int) -> bool:
    """Whether a 429 is about a long window: it says to wait longer than a minute, or came again after a wait. A hidden
    limit of bursts must not be taken for a smaller plan.
    """
    return (refusal.retry_after_seconds or 0.0) > SYNCED_FROM_SECONDS or strikes > 1


def _is_outgrown(report: Any, used: int, since_us: int) -> bool:
    """Whether a whole window after a limit was learned the vendor counts more than it."""
    if report is None or report.learned_limit is None:
        return False
    return bool(report.learned_us < since_us and used > report.learned_limit)


def _with_limits(policy: QuotaPolicy, limits: Mapping[str, int]) -> QuotaPolicy:
    """The longest window of these classes at these limits, where they are lower."""
    windows = dict(policy.windows)
    for method_class, limit in limits.items():
        own = policy.windows_for(method_class) if method_class in windows or "*" in windows else ()
        if own:
            windows[method_class] = _with_limit(own, limit)
    smallest = min((w.limit for ws in windows.values() for w in ws if w.seconds > SYNCED_FROM_SECONDS), default=1)
    return replace(policy, windows=windows, reserve=min(policy.reserve, max(0, smallest - 1)))


def _with_limit(windows: tuple[Window, ...], limit: int) -> tuple[Window, ...]:
    longest = max(windows, key=_by_seconds)
    lower = replace(longest, limit=min(longest.limit, limit))
    return tuple(lower if window is longest else window for window in windows)


def _to_us(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)


def _from_us(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def _minute(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M:%S} UTC"


# ------------------------------------------------------------------------------------------------------------ meter


@dataclass(frozen=True)
class AccountMeter:
    """The `Meter` of `core.http` for one vendor account: asks the ledger before each attempt, tells it each answer.

    Args:
        ledger, policy: where requests are counted, and against what.
        max_wait_seconds: longest sleep for a slot; long enough that ten connections share five requests a second,
            and short enough that an hourly limit always raises QuotaExhausted instead.
        work: label for requests made outside a `spending(...)` block.
    """

    ledger: Ledger
    policy: QuotaPolicy
    max_wait_seconds: float = 5.0
    work: Spending = field(default_factory=Spending)

    def __post_init__(self) -> None:
        self.ledger.declare(self.policy)

    def labelled(self, work: Spending) -> AccountMeter:
        """The same meter with another default label."""
        return replace(self, work=work)

    def acquire(self, *, method: str, endpoint: str) -> None:
        """Before every attempt. May sleep up to `max_wait_seconds`; raises QuotaExhausted, StorageError."""
        method_class = self.policy.method_class(method)
        work = spending_now() or self.work
        with waiting():
            self.ledger.acquire(
                self.policy.account,
                method_class,
                self.policy.windows_for(method_class),
                endpoint,
                max_wait_seconds=self.max_wait_seconds,
                keep_free=self.policy.reserve if work.backfill else 0,
                work=work,
            )

    def learn(self, *, method: str, endpoint: str, status: int, retry_after_seconds: float | None) -> None:
        """After every answer."""
        method_class = self.policy.method_class(method)
        self.ledger.learn(
            self.policy.account,
            method_class,
            self.policy.windows_for(method_class),
            endpoint=endpoint,
            status=status,
            retry_after_seconds=retry_after_seconds,
        )


@dataclass(frozen=True)
class NotingMeter:
    """The `Meter` of the one question that is asked although no window has room: what the vendor itself has counted.

    Written down like every request, because the vendor may count it; an answer 429 is learned as always.
    """

    ledger: Ledger
    policy: QuotaPolicy
    work: Spending = field(default_factory=lambda: Spending(stream="usage"))

    def __post_init__(self) -> None:
        self.ledger.declare(self.policy)

    def acquire(self, *, method: str, endpoint: str) -> None:
        """Before every attempt. Raises StorageError."""
        around = spending_now() or Spending()
        work = replace(self.work, site=around.site, run_id=around.run_id)
        self.ledger.note(self.policy.account, self.policy.method_class(method), endpoint, work)

    def learn(self, *, method: str, endpoint: str, status: int, retry_after_seconds: float | None) -> None:
        """After every answer."""
        meter = AccountMeter(self.ledger, self.policy)
        meter.learn(method=method, endpoint=endpoint, status=status, retry_after_seconds=retry_after_seconds)
