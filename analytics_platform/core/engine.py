"""DuckDB as the lake uses it: an engine that fetches nothing, and the pieces of SQL text everybody needs.

Belongs here: opening an engine, quoting, reading NDJSON and Parquet with nothing guessed, reading again what was
replaced meanwhile. Does not belong here: what a table's columns are (`core.table_sql`), writing (`core.lake`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import duckdb

__all__ = [
    "connect",
    "fails",
    "literal",
    "one_row",
    "quoted",
    "read_ndjson",
    "read_parquet",
    "read_steadily",
    "schema_of",
    "struct_type",
    "was_replaced",
]

T = TypeVar("T")

_READ_ATTEMPTS: Final = 5
"""Two writers that did nothing but replace the two partitions of a table spoiled one read of nine (2026-11-22)."""


def connect(**settings: str | bool | int | float | list[str]) -> duckdb.DuckDBPyConnection:
    """An in-memory engine that fetches nothing from anywhere (M23)."""
    config: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "threads": str(min(4, os.cpu_count() or 1)),
        **settings,
    }
    connection = duckdb.connect(":memory:", config=config)
    # In a Python that talks to a person (a shell, a notebook) DuckDB draws one across what is shown there.
    connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
    return connection


def quoted(identifier: str) -> str:
    """An identifier as SQL text."""
    return '"' + identifier.replace('"', '""') + '"'


def struct_type(fields: Mapping[str, str]) -> str:
    """A STRUCT type of fields with DuckDB types."""
    return "STRUCT(" + ", ".join(f"{quoted(name)} {type_}" for name, type_ in fields.items()) + ")"


_LARGEST_RECORD_BYTES: Final = 64 * 1024 * 1024
_SMALLEST_BUFFER_BYTES: Final = 1024 * 1024


def read_ndjson(path: Path, columns: Mapping[str, str], *, longest_bytes: int = _LARGEST_RECORD_BYTES) -> str:
    """A table function call with explicit columns: auto-detection drops late columns silently (M20).

    Args:
        longest_bytes: of a line; a thread's buffer is made for it, so that a bound nobody needs costs memory.
    """
    typed = ", ".join(f"{quoted(name)}: '{type_.replace(chr(39), chr(39) * 2)}'" for name, type_ in columns.items())
    largest = max(longest_bytes, _SMALLEST_BUFFER_BYTES)
    options = f"format = 'newline_delimited', columns = {{{typed}}}, maximum_object_size = {largest}"
    return f"read_json({literal(path)}, {options})"


def literal(path: Path) -> str:
    """A path as SQL text."""
    return "'" + str(path).replace("'", "''") + "'"


def one_row(relation: duckdb.DuckDBPyConnection) -> tuple[Any, ...]:
    """The only row of an aggregate."""
    row = relation.fetchone()
    if row is None:
        raise RuntimeError("an aggregate returned no row")
    return row


def read_parquet(paths: Sequence[Path], *, file_row_number: bool = False, by_name: bool = False) -> str:
    """A table function call; the path says nothing about columns."""
    listed = ", ".join(literal(path) for path in paths)
    numbered = ", file_row_number = true" if file_row_number else ""
    matched = ", union_by_name = true" if by_name else ""
    return f"read_parquet([{listed}], hive_partitioning = false{numbered}{matched})"


def schema_of(engine: duckdb.DuckDBPyConnection, query: str) -> list[tuple[str, str]]:
    """(name, type) of a query's columns."""
    return [(row[0], row[1]) for row in engine.execute(f"DESCRIBE {query}").fetchall()]


def fails(engine: duckdb.DuckDBPyConnection, query: str) -> bool:
    """Whether the engine cannot run a query to its end."""
    try:
        engine.execute(query).fetchall()
    except duckdb.Error:
        return True
    return False


def was_replaced(error: Exception) -> bool:
    """Whether a read failed because a file was replaced in between: DuckDB opens a Parquet file more than once a query
    and complains with an I/O error or, reading the new file by the old one's footer, with the bare base class. A
    query's own fault is a subclass.
    """
    return isinstance(error, duckdb.IOException | FileNotFoundError) or type(error) is duckdb.Error


def read_steadily(read: Callable[[], T]) -> T:
    """What a read of partitions gives, read again where one was replaced meanwhile.

    Raises:
        duckdb.Error: the query's own fault, at once; or files were replaced while they were read, five times in a row.
    """
    for _ in range(_READ_ATTEMPTS - 1):
        try:
            return read()
        except duckdb.Error as error:
            if not was_replaced(error):
                raise
    return read()
