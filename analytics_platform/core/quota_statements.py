"""The statements of a decision, on both roads to the database.

Belongs here: their SQL, once for both, and running it through SQLAlchemy or straight through SQLite's driver. Does not
belong here: what is decided from them (`core.quota_decision`), transactions (`core.quota_store`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite as sqlite_dialect

from analytics_platform.core import quota_tables as tables
from analytics_platform.core.quota_decision import Ask, Facts, Rows
from analytics_platform.core.quota_policy import Window

__all__ = [
    "BLOCKED_UNTIL",
    "INSERT_REQUEST",
    "CoreStatements",
    "DriverStatements",
    "Statements",
    "bucket_of",
    "facts_of",
    "facts_query",
    "since_binds",
]


def bucket_of(table: sa.Table) -> sa.ColumnElement[bool]:
    """Rows of one account and method class."""
    return (table.c.account == sa.bindparam("account")) & (table.c.method_class == sa.bindparam("method_class"))


@lru_cache(maxsize=16)
def facts_query(window_count: int) -> sa.Select[Any]:
    """All that a decision depends on, in one row; see `facts_of`."""
    scope, bucket, report = bucket_of(tables.requests), bucket_of(tables.buckets), bucket_of(tables.reports)
    by_stamp = sa.select(tables.requests.c.ledger_us).where(scope).order_by(tables.requests.c.ledger_us.desc()).limit(1)
    columns = [
        sa.select(tables.ledger.c.lost_us).scalar_subquery(),
        sa.select(tables.buckets.c.blocked_until_us).where(bucket).scalar_subquery(),
        sa.select(tables.buckets.c.strikes).where(bucket).scalar_subquery(),
        sa.select(tables.buckets.c.trusted_us).where(bucket).scalar_subquery(),
        sa.select(tables.reports.c.learned_limit).where(report).scalar_subquery(),
        sa.select(tables.reports.c.learned_us).where(report).scalar_subquery(),
        by_stamp.scalar_subquery(),
        # Rows older than a window's span cannot hold anybody back, and walking them would make every decision slower.
        *(
            by_stamp.where(tables.requests.c.ledger_us > sa.bindparam(f"since_{i}", type_=sa.BigInteger))
            .offset(sa.bindparam(f"offset_{i}", type_=sa.Integer))
            .scalar_subquery()
            for i in range(window_count)
        ),
    ]
    return sa.select(*(column.label(f"f{i}") for i, column in enumerate(columns)))


@lru_cache(maxsize=16)
def _counts_query(window_count: int) -> sa.Select[Any]:
    """Rows inside each window."""
    count = sa.select(sa.func.count()).select_from(tables.requests).where(bucket_of(tables.requests))
    inside = [
        count.where(tables.requests.c.ledger_us > sa.bindparam(f"since_{i}", type_=sa.BigInteger))
        for i in range(window_count)
    ]
    return sa.select(*(query.scalar_subquery().label(f"c{i}") for i, query in enumerate(inside)))


BLOCKED_UNTIL: Final = sa.select(tables.buckets.c.blocked_until_us).where(bucket_of(tables.buckets))
INSERT_REQUEST: Final = tables.requests.insert()
# A vendor's figure adopted meanwhile was compared with these rows among our own: then they stay spent.
_TAKE_BACK: Final = tables.requests.delete().where(
    tables.requests.c.id.between(sa.bindparam("first_row"), sa.bindparam("last_row")),
    bucket_of(tables.requests),
    tables.requests.c.ledger_us == sa.bindparam("stamp_us", type_=sa.BigInteger),
    ~sa.exists().where(
        bucket_of(tables.buckets), tables.buckets.c.trusted_us >= sa.bindparam("written_us", type_=sa.BigInteger)
    ),
)


class Statements(Protocol):
    """The statements of a decision, on whichever road to the database is open."""

    def facts(self, ask: Ask, now_us: int) -> Facts: ...

    def counts(self, ask: Ask, now_us: int) -> Sequence[int]: ...

    def write(self, row: Mapping[str, object], times: int) -> Sequence[int]: ...

    def take_back(self, rows: Rows) -> None: ...


class CoreStatements:
    """Through SQLAlchemy: any database."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def facts(self, ask: Ask, now_us: int) -> Facts:
        return facts_of(self._connection.execute(facts_query(len(ask.windows)), _facts_binds(ask, now_us)).one())

    def counts(self, ask: Ask, now_us: int) -> Sequence[int]:
        binds = ask.bucket | since_binds(now_us, ask.windows)
        return tuple(self._connection.execute(_counts_query(len(ask.windows)), binds).one())

    def write(self, row: Mapping[str, object], times: int) -> Sequence[int]:
        written = self._connection.execute(INSERT_REQUEST.returning(tables.requests.c.id), [row] * times)
        return sorted(written.scalars())

    def take_back(self, rows: Rows) -> None:
        self._connection.execute(_TAKE_BACK, vars(rows))


class DriverStatements:
    """The same statements, compiled once, straight to SQLite's driver: most of a decision's time was on the way
    through the toolkit.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def facts(self, ask: Ask, now_us: int) -> Facts:
        return facts_of(self._row(_driver_facts(len(ask.windows)), _facts_binds(ask, now_us)))

    def counts(self, ask: Ask, now_us: int) -> Sequence[int]:
        counts: Sequence[int] = self._row(
            _driver_counts(len(ask.windows)), ask.bucket | since_binds(now_us, ask.windows)
        )
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

    def take_back(self, rows: Rows) -> None:
        sql, names, _ = _driver_take_back()
        binds = vars(rows)
        self._connection.execute(sql, [binds[name] for name in names])


def since_binds(now_us: int, windows: Sequence[Window]) -> dict[str, object]:
    """Where each window begins."""
    return {f"since_{i}": now_us - window.span_us for i, window in enumerate(windows)}


def _facts_binds(ask: Ask, now_us: int) -> dict[str, object]:
    return ask.bucket | ask.offsets | since_binds(now_us, ask.windows)


_Compiled = tuple[str, tuple[str, ...], Mapping[str, object]]
"""SQL text, the names of its positions in order, and the values of those that are constants."""


@lru_cache(maxsize=16)
def _driver_facts(window_count: int) -> _Compiled:
    return _compiled(facts_query(window_count).compile(dialect=sqlite_dialect.dialect()))


@lru_cache(maxsize=16)
def _driver_counts(window_count: int) -> _Compiled:
    return _compiled(_counts_query(window_count).compile(dialect=sqlite_dialect.dialect()))


@lru_cache(maxsize=1)
def _driver_blocked_until() -> _Compiled:
    return _compiled(BLOCKED_UNTIL.compile(dialect=sqlite_dialect.dialect()))


@lru_cache(maxsize=1)
def _driver_insert() -> _Compiled:
    names = [column.name for column in tables.requests.c if column.name != "id"]
    return _compiled(INSERT_REQUEST.compile(dialect=sqlite_dialect.dialect(), column_keys=names))


@lru_cache(maxsize=1)
def _driver_take_back() -> _Compiled:
    return _compiled(_TAKE_BACK.compile(dialect=sqlite_dialect.dialect()))


def _compiled(statement: Any) -> _Compiled:
    return str(statement), tuple(statement.positiontup), dict(statement.params)


def facts_of(row: Sequence[Any]) -> Facts:
    """The row of `facts_query`."""
    lost_us, blocked_until_us, strikes, trusted_us, learned_limit, learned_us, newest_us, *nth_us = row
    return Facts(
        newest_us=newest_us or 0,
        nth_us=tuple(nth_us),
        blocked_until_us=blocked_until_us or 0,
        strikes=strikes or 0,
        trusted_us=trusted_us or 0,
        lost_us=lost_us,
        learned_limit=learned_limit,
        learned_us=learned_us or 0,
    )
