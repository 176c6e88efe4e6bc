"""A table's declaration as SQL over two relations, `records` (p, r, x) and `pages` (p, c, days, landed_at, run_id).

Belongs here: what a column expression sees, which rows count, the select list, and which column is at fault. Does not
belong here: filling the two relations (`core.staging`), declarations (`core.tables`).
"""

from __future__ import annotations

from collections.abc import Iterator

import duckdb

from analytics_platform.core.engine import (
    fails,
    quoted,
)
from analytics_platform.core.tables import TableSpec

__all__ = [
    "expressions_of",
    "extra_fields_of",
    "predicate_of",
    "source_of",
    "typed_column",
    "typed_rows",
    "unreadable_columns",
]


def source_of(spec: TableSpec) -> str:
    """SQL of what a column expression sees: one row a record, or a row an element."""
    source = "SELECT p, r, x, c, days, landed_at, run_id FROM records JOIN pages USING (p)"
    if spec.explode is not None:
        listed = f"r.{quoted(spec.explode)}" if spec.explode in spec.wire else spec.explode
        source = (
            "SELECT p, r, CAST(NULL AS VARCHAR) AS x, c, days, landed_at, run_id, "
            "unnest(l) AS e, generate_subscripts(l, 1) AS i "
            f"FROM (SELECT *, {listed} AS l FROM ({source})) WHERE len(l) > 0"
        )
    return source


def predicate_of(spec: TableSpec) -> str:
    """SQL condition: rows of the days a page is a source of."""
    return f"list_contains(days, {spec.day})" + (f" AND ({spec.where})" if spec.where else "")


def typed_column(spec: TableSpec, name: str) -> str:
    """SQL of one column's value in its declared type."""
    column = spec.column(name)
    return f"CAST({column.expr or 'r.' + quoted(column.name)} AS {column.type})"


def typed_rows(spec: TableSpec) -> str:
    """SQL of a segment's rows, in the order they were staged, with exactly the table's columns."""
    own = ", ".join(f"{typed_column(spec, column.name)} AS {quoted(column.name)}" for column in spec.columns)
    return (
        f"SELECT {own}, CAST(? AS VARCHAR) AS _site, CAST({spec.day} AS DATE) AS _day, landed_at AS _landed_at, "
        f"run_id AS _run_id, CAST(x AS VARCHAR) AS _extra FROM ({source_of(spec)}) WHERE {predicate_of(spec)}"
    )


def extra_fields_of(engine: duckdb.DuckDBPyConnection, relation: str = "decoded") -> tuple[str, ...]:
    """Names of the undeclared fields that rows of a relation were given."""
    rows = engine.execute(
        f"SELECT DISTINCT unnest(json_keys(_extra)) AS k FROM {relation} WHERE _extra IS NOT NULL ORDER BY k"
    ).fetchall()
    return tuple(name for (name,) in rows)


def expressions_of(spec: TableSpec) -> Iterator[str]:
    """All SQL a table declares."""
    yield from (column.expr for column in spec.columns if column.expr)
    yield from (sql for sql in (spec.day, spec.where, spec.explode) if sql)


def unreadable_columns(engine: duckdb.DuckDBPyConnection, spec: TableSpec) -> Iterator[str]:
    """What cannot be computed for some record, by computing each on its own."""
    for what, sql, where in (
        *((f"column {c.name} ({c.type})", typed_column(spec, c.name), predicate_of(spec)) for c in spec.columns),
        ("the partition day (DATE)", spec.day, "true"),
    ):
        if fails(engine, f"SELECT max(hash({sql})) FROM ({source_of(spec)}) WHERE {where}"):
            yield what
