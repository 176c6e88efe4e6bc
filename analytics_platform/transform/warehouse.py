"""Every DuckDB connection to the warehouse or a snapshot is opened here.

Belongs here: connection settings and the two ways in: the live warehouse (one writer, pool `warehouse`) and published
snapshots (read-only, any number of readers). Does not belong here: SQL of any step, Dagster assets.

Why one place: a process may open a DuckDB file with one configuration only (PRACTICE guard 4); files written by
DuckDB 2.0 with its default storage are refused by 1.5 (guard 3); and DuckDB by default fetches extensions from the
internet (RELIABILITY M23).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb

from analytics_platform.core.durable import storage_errors
from analytics_platform.core.errors import StorageError
from analytics_platform.settings import Settings

if TYPE_CHECKING:
    from dagster_duckdb import DuckDBResource

__all__ = [
    "CONFIG",
    "MAIN_SCHEMA",
    "SNAPSHOT",
    "STORAGE_VERSION",
    "literal",
    "open_reader",
    "quote",
    "warehouse_connection",
    "warehouse_resource",
]

STORAGE_VERSION: Final = "v1.5.0"
"""Storage format of every file the platform writes: readable by DuckDB 1.5 and later."""

MAIN_SCHEMA: Final = "main"
"""Where relations live that everybody may read; any other schema is published for the owner only."""

SNAPSHOT: Final = "published"
"""Name under which a reader sees the attached snapshot."""

CONFIG: Final = {
    "storage_compatibility_version": STORAGE_VERSION,
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}


def warehouse_resource(settings: Settings) -> DuckDBResource:
    """dagster-duckdb's resource on the live warehouse. Opens nothing yet; imports dagster-duckdb."""
    from dagster_duckdb import DuckDBResource

    return DuckDBResource(database=str(settings.home.warehouse), connection_config=dict(CONFIG))


@contextmanager
def warehouse_connection(settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    """The live warehouse, for the one writer. The caller holds the pool `warehouse` or is alone.

    Raises:
        StorageError: another process has the file; its process id is in DuckDB's words.
    """
    with storage_errors("Opening the warehouse"):
        settings.home.warehouse.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            with storage_errors("Opening the warehouse"):
                connection = stack.enter_context(warehouse_resource(settings).get_connection())
        except duckdb.IOException as error:
            raise StorageError(
                f"The warehouse is in use: {str(error).splitlines()[0]}",
                "Close what has it open: notebooks and BI tools read the published snapshot (Catalog.open()).",
            ) from None
        # The resource's own context manager does not close when its body raises.
        stack.callback(connection.close)
        connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
        yield connection


@contextmanager
def open_reader(
    snapshot: Path | None = None, *, views: Sequence[str] = (), readable: Sequence[Path] = ()
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A locked in-memory engine with a snapshot attached read-only.

    Nothing outside `readable` (files, or folders with all below) can be opened, nothing can be written, attached or
    fetched, and no setting can be changed back.

    Args:
        snapshot: the DuckDB file to attach as `published`; its tables need no qualification.
        views: CREATE VIEW statements to run before locking.
        readable: files or folders the views read.
    """
    config: dict[str, str | bool | int | float | list[str]] = {**CONFIG, "threads": str(min(4, os.cpu_count() or 1))}
    connection = duckdb.connect(":memory:", config=config)
    try:
        connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
        if snapshot is not None:
            connection.execute(f"ATTACH {literal(str(snapshot))} AS {quote(SNAPSHOT)} (READ_ONLY)")
        files = [str(path) for path in readable if path.suffix]
        folders = [str(path) for path in readable if not path.suffix]
        if files:
            connection.execute(f"SET allowed_paths = [{', '.join(map(literal, files))}]")
        if folders:
            connection.execute(f"SET allowed_directories = [{', '.join(map(literal, folders))}]")
        connection.execute("SET enable_external_access = false")
        for statement in views:
            connection.execute(statement)
        if snapshot is not None:
            connection.execute(f"SET search_path = 'memory.main,{SNAPSHOT}.main'")
        connection.execute("SET lock_configuration = true")
        yield connection
    finally:
        connection.close()


def quote(identifier: str) -> str:
    """A SQL identifier."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A SQL string literal, where a statement takes no bound value (ATTACH, COPY, COMMENT)."""
    return "'" + text.replace("'", "''") + "'"


def rows(connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    """All rows of one statement with bound values."""
    return connection.execute(sql, list(parameters)).fetchall()
