"""The lake: landed pages decoded at engine speed into one typed Parquet file a partition.

Belongs here: the decode, the atomic replacement of a partition, reading partitions back, anchors, blocked partitions.
The only place that writes Parquet, but for the growing files of `core.streamed_table`. Does not belong here: HTTP, what
the columns mean (`vendors/<v>/tables.py`), raw records (`core.raw_records`, `core.staging`), Dagster.

    lake/<vendor>/<table>/site=<site>/day=<day>/part.parquet

Python splits each page into raw records (bytes, no Python objects a row); DuckDB reads them with the table's
declared fields,
computes the columns, keeps the newest row of a natural key, and writes. A partition is replaced by one rename:
readers see the old
file or the new one, and need no lock. A field that cannot be read with its declared type stops the decode; a field
nobody
declared is kept in `_extra`.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from datetime import date
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import duckdb
import msgspec
from filelock import FileLock

from analytics_platform.core.durable import make_directories, replace_file, storage_errors
from analytics_platform.core.engine import (
    connect,
    literal,
    one_row,
    quoted,
    read_parquet,
    read_steadily,
    schema_of,
)
from analytics_platform.core.failpoints import passing
from analytics_platform.core.identity import PersonKey, without_references
from analytics_platform.core.lake_stream import SEGMENT_BYTES, Following, TypedStream, stream_pages
from analytics_platform.core.landing import Batch, LandedPage
from analytics_platform.core.raw_records import split_records
from analytics_platform.core.staging import Stage, Strip, readable_errors
from analytics_platform.core.streamed_table import DecodedPartition, StreamedTable
from analytics_platform.core.table_sql import (
    extra_fields_of,
    predicate_of,
    source_of,
    typed_column,
)
from analytics_platform.core.tables import Column, KindOf, TableSpec, normalised_key
from analytics_platform.core.tombstones import ClearKeys, Tombstones

__all__ = [
    "ANCHOR_SITE",
    "DecodedPartition",
    "Lake",
    "LakeViews",
    "SiteRow",
    "connect",
    "record_keys",
    "replace_rows",
    "split_records",
]

ANCHOR_SITE: Final = "_anchor"
ANCHOR_DAY: Final = date(1970, 1, 1)


_STREAM_MEMORY: Final = "256MB"
"""Of the engine that types one segment at a time; it never needs as much."""


_BLOCKED_COLUMNS: Final = "vendor VARCHAR, table_name VARCHAR, site_key VARCHAR, partition_date DATE"
_SITE_COLUMNS: Final = (
    "site_key VARCHAR, timezone VARCHAR, hostname VARCHAR, start_date DATE, vendor VARCHAR, vendor_entity_id VARCHAR, "
    "is_enabled BOOLEAN"
)


class SiteRow(NamedTuple):
    """One row of `_config/sites.parquet`: a site at a vendor."""

    site_key: str
    timezone: str
    hostname: str | None
    start_date: date
    vendor: str
    vendor_entity_id: str | None
    is_enabled: bool


@lru_cache(maxsize=1)
def _shared_engine() -> duckdb.DuckDBPyConnection:
    engine = connect()
    # An engine still open while the interpreter ends is reported as leaked.
    atexit.register(engine.close)
    return engine


def _reading() -> duckdb.DuckDBPyConnection:
    """A cursor of the process's one reading engine: starting an engine costs ten times what a small read does."""
    return _shared_engine().cursor()


def _rows(sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    """Rows of a query over partitions, which others may be replacing."""

    def read() -> list[tuple[Any, ...]]:
        with _reading() as engine:
            return engine.execute(sql, list(parameters)).fetchall()

    return read_steadily(read)


class _TombstonesChanged(Exception):
    """Somebody was forgotten while a partition was being decoded: what was decoded may hold them."""


class Lake:
    """All partitions below one root.

    Args:
        tombstones: who was forgotten; those of the home the root lies in by default.
        person_key: makes references to persons at the sites that agreed; without it they are NULL.
    """

    def __init__(
        self, root: Path, *, tombstones: Tombstones | None = None, person_key: PersonKey | None = None
    ) -> None:
        self.root = root
        self._person_key = person_key
        self._tombstones = tombstones or Tombstones.beside(root)
        self._anchored: set[tuple[str, str]] = set()

    def partition_path(self, spec: TableSpec, site: str, day: date) -> Path:
        return self.root / spec.vendor / spec.name / f"site={site}" / f"day={day}" / "part.parquet"

    def has(self, spec: TableSpec, site: str, day: date) -> bool:
        return self.partition_path(spec, site, day).is_file()

    def written_at(self, spec: TableSpec, site: str, day: date) -> float | None:
        """Modification time (epoch seconds) of a partition file, None where there is none."""
        try:
            return self.partition_path(spec, site, day).stat().st_mtime
        except FileNotFoundError:
            return None

    def decode(
        self, spec: TableSpec, assignments: Sequence[tuple[Batch, Sequence[date]]], *, site: str
    ) -> list[DecodedPartition]:
        """Write partitions from landed batches, each by one atomic rename, in day order.

        Args:
            assignments: batches with the days each of them is the source of; a batch's rows of other days are dropped
                (a range is asked with a margin, and a newer batch may have replaced some of an older one's days).

        Raises:
            SchemaMismatch: a record cannot be read as declared; no partition of this call has changed.
            LandingCorrupt, StorageError.
        """
        while True:
            generation = self._tombstones.generation()
            with suppress(_TombstonesChanged):
                return self._decode(spec, assignments, site, generation)

    def follow(self, specs: Sequence[TableSpec], *, site: str, days: Sequence[date]) -> Following:
        """Decode a batch while it is being fetched: hand in its pages as they are landed, then `take` the tables."""
        return Following(self, tuple(specs), site, tuple(days))

    def generation(self) -> tuple[int, int, int] | None:
        """Who is forgotten, as a number: rows typed before a change of it may not be published."""
        return self._tombstones.generation()

    def streamed(
        self, specs: Sequence[TableSpec], site: str
    ) -> tuple[list[StreamedTable], AbstractContextManager[object]]:
        """The tables of a decode that streams, and what is to be closed after it."""
        with ExitStack() as stack:
            scratch = stack.enter_context(self._scratch())
            typists = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="typing rows"))
            writers = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="writing rows"))
            tables = []
            for spec in specs:
                # Reading, staging and writing go on beside it: a second thread types no sooner and costs a third more.
                engine = connect(temp_directory=str(scratch), memory_limit=_STREAM_MEMORY, threads="1")
                stack.callback(engine.close)
                if self._person_key is not None:
                    self._person_key.install(engine, site=site)
                folder, typing = scratch / spec.name, self._typing(site)
                table = StreamedTable(self, spec, site, folder, engine, typing, typists=typists, writers=writers)
                tables.append(table)
            return tables, stack.pop_all()

    def _typing(self, site: str) -> Callable[[str], str]:
        """What is left of a typing query at a site: without references where they would all be NULL."""
        is_agreed = self._person_key is not None and self._person_key.is_for(site)
        return (lambda sql: sql) if is_agreed else without_references

    def take_in(
        self, temporary: Path, spec: TableSpec, site: str, day: date, generation: tuple[int, int, int] | None
    ) -> Path:
        """Publish a finished file as a partition by one rename; the file is durable and in this lake's scratch."""
        path = self.partition_path(spec, site, day)
        with storage_errors("Writing a lake partition"):
            make_directories(path.parent)
        passing("lake.before_rename")
        with self._tombstones.unchanged_since(generation) as unchanged:
            if not unchanged:
                raise _TombstonesChanged
            replace_file(temporary, path)
        passing("lake.after_rename")
        return path

    def _stream(
        self,
        spec: TableSpec,
        assignments: Sequence[tuple[Batch, Sequence[date]]],
        site: str,
        generation: tuple[int, int, int] | None,
    ) -> list[DecodedPartition] | None:
        """A large decode, one segment at a time; None where a key came twice or the batches are small."""
        size = sum(page.size for batch, _ in assignments for page in batch.index() if page.call_kind in spec.calls)
        if spec.merge_calls or size < SEGMENT_BYTES:
            return None
        strip = self._forgotten(spec, site)

        def pages() -> Iterator[tuple[LandedPage, bytes, Sequence[date], bool]]:
            for batch, batch_days in assignments:
                for page, landed in batch.pages(spec.calls):
                    body = landed if strip is None else strip(page, landed)
                    if body is not None:
                        yield page, body, batch_days, body is landed

        (table,), opened = self.streamed([spec], site)
        with closing(TypedStream([table], opened)) as stream:
            stream_pages(stream, pages())
            return table.publish(sorted({day for _, batch_days in assignments for day in batch_days}), generation)

    def _decode(
        self,
        spec: TableSpec,
        assignments: Sequence[tuple[Batch, Sequence[date]]],
        site: str,
        generation: tuple[int, int, int] | None,
    ) -> list[DecodedPartition]:
        with storage_errors("Decoding landed pages"):
            streamed = self._stream(spec, assignments, site, generation)
        if streamed is not None:
            return streamed
        with storage_errors("Decoding landed pages"), self._scratch() as scratch:
            stage = Stage(scratch, spec, self._forgotten(spec, site))
            with (
                closing(stage),
                connect(temp_directory=str(scratch)) as engine,
                readable_errors(engine, stage, spec, site),
            ):
                for batch, batch_days in assignments:
                    stage.add(batch, batch_days)
                days = sorted({day for _, batch_days in assignments for day in batch_days})
                if self._person_key is not None:
                    self._person_key.install(engine, site=site)
                stage.load(engine)
                _decode_rows(engine, spec, site, self._typing(site))
                duplicates = _duplicates_by_day(engine, spec)
                extra_fields = extra_fields_of(engine) if stage.has_unknown_fields else ()
                passing("lake.decoded")
                return [
                    self._write(engine, spec, site, day, duplicates.get(day, 0), extra_fields, scratch, generation)
                    for day in days
                ]

    def _forgotten(self, spec: TableSpec, site: str) -> Strip | None:
        """Takes forgotten persons out of pages landed before they were forgotten (restored from a backup, say)."""
        wanted = self._tombstones.at(site, spec.identity_kinds) if spec.identity_kinds else None
        if wanted is None:
            return None
        # Imported when somebody was forgotten: it is built on this module.
        from analytics_platform.core.stripping import Stripper

        stripper = Stripper((spec,), wanted)

        def strip(page: LandedPage, body: bytes) -> bytes | None:
            found = stripper.strip(body, call=page.call, call_kind=page.call_kind, context=page.context)
            return body if found is None else found.body

        return strip

    def _write(
        self,
        engine: duckdb.DuckDBPyConnection,
        spec: TableSpec,
        site: str,
        day: date,
        duplicates: int,
        extra_fields: tuple[str, ...],
        scratch: Path,
        generation: tuple[int, int, int] | None,
    ) -> DecodedPartition:
        # In the scratch folder, so that what a killed process leaves is swept with it.
        temporary = scratch / f"{day}.parquet"
        # One row a key is left; a total order makes the same rows the same bytes.
        order = ", ".join(quoted(name) for name in (*spec.key, "_landed_at"))
        anchor = f"min({quoted(spec.anchor)}), max({quoted(spec.anchor)})" if spec.anchor else "NULL, NULL"
        rows, with_extra, oldest, newest = one_row(
            engine.execute(f"SELECT count(*), count(_extra), {anchor} FROM decoded WHERE _day = ?", [day])
        )
        _copy(engine, f"SELECT * FROM decoded WHERE _day = DATE '{day}' ORDER BY {order}", temporary)
        path = self.take_in(temporary, spec, site, day, generation)
        return DecodedPartition(
            spec=spec,
            site=site,
            day=day,
            path=path,
            rows=rows,
            size=path.stat().st_size,
            duplicates=duplicates,
            rows_with_extra=with_extra,
            oldest=oldest,
            newest=newest,
            extra_fields=extra_fields,
        )

    def ensure_anchor(self, spec: TableSpec) -> None:
        """Write the table's zero-row partition, so that a reader's glob always finds a file with the right schema."""
        path = self.partition_path(spec, ANCHOR_SITE, ANCHOR_DAY)
        if spec.asset_key in self._anchored and path.is_file():
            return
        columns = ", ".join(f"CAST(NULL AS {c.type}) AS {quoted(c.name)}" for c in spec.all_columns)
        query = f"SELECT {columns} LIMIT 0"
        with _reading() as engine:
            if path.is_file() and schema_of(engine, query) == schema_of(engine, f"FROM {read_parquet([path])}"):
                self._anchored.add(spec.asset_key)
                return
            with storage_errors("Writing a lake anchor"):
                path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".part.{os.getpid()}.tmp")
            _copy(engine, query, temporary)
            replace_file(temporary, path)
        self._anchored.add(spec.asset_key)

    def block(self, spec: TableSpec, site: str, *, failing: Iterable[date], passing_days: Iterable[date]) -> None:
        """Record the verdict of the blocking checks: marts leave out `failing` days until a later verdict clears them.

        The list is one Parquet file, `_blocked/partitions.parquet`, replaced whole under a lock; it always exists.
        """
        self.hold_back(spec.vendor, spec.name, site, failing=failing, passing_days=passing_days)

    def hold_back(
        self, vendor: str, name: str, site: str, *, failing: Iterable[date], passing_days: Iterable[date]
    ) -> None:
        """As `block`, under any name: a table's, or one that speaks for all tables of the vendor (`core.truths`)."""
        path = self.root / "_blocked" / "partitions.parquet"
        with storage_errors("Recording blocked partitions"):
            path.parent.mkdir(parents=True, exist_ok=True)
        passing = {(vendor, name, site, day) for day in passing_days}
        failed = {(vendor, name, site, day) for day in failing}
        with FileLock(path.with_name(".lock")):
            before = set(self.blocked())
            after = (before - passing - failed) | (failed - passing)
            if before == after and path.is_file():
                return
            temporary = path.with_name(f".partitions.{os.getpid()}.tmp")
            with connect() as engine:
                engine.execute(f"CREATE TABLE blocked ({_BLOCKED_COLUMNS})")
                if after:
                    engine.executemany("INSERT INTO blocked VALUES (?, ?, ?, ?)", sorted(after))
                _copy(engine, "SELECT * FROM blocked ORDER BY ALL", temporary)
            replace_file(temporary, path)

    def relation(self, spec: TableSpec, site: str, days: Iterable[date]) -> str:
        """SQL of one site's rows on those of the days that have a file; the anchor gives the columns where none has."""
        anchor = self.partition_path(spec, ANCHOR_SITE, ANCHOR_DAY)
        found = [path for day in days if (path := self.partition_path(spec, site, day)).is_file()]
        return read_parquet([anchor, *found], by_name=True)

    def blocked(self) -> list[tuple[str, str, str, date]]:
        """Blocked partitions as (vendor, table, site, day)."""
        path = self.root / "_blocked" / "partitions.parquet"
        if not path.is_file():
            return []
        return _rows(
            f"SELECT vendor, table_name, site_key, partition_date FROM read_parquet({literal(path)}) ORDER BY ALL"
        )

    def prepare(self, specs: Iterable[TableSpec], sites: Iterable[SiteRow] | None) -> None:
        """Write what readers may count on before any partition exists: anchors, the blocked list, the list of sites.

        Without `sites` the list stays as it is: a vendor's step knows only its own tables, and a build may be reading.
        """
        known = list(specs)
        for spec in known:
            self.ensure_anchor(spec)
        if known and not (self.root / "_blocked" / "partitions.parquet").is_file():
            self.block(known[0], ANCHOR_SITE, failing=(), passing_days=())
        if sites is not None:
            self._write_sites(list(sites))

    def _write_sites(self, rows: list[SiteRow]) -> None:
        path = self.root / "_config" / "sites.parquet"
        with storage_errors("Writing the site list"):
            path.parent.mkdir(parents=True, exist_ok=True)
        with connect() as engine:
            engine.execute(f"CREATE TABLE sites ({_SITE_COLUMNS})")
            if rows:
                engine.executemany("INSERT INTO sites VALUES (?, ?, ?, ?, ?, ?, ?)", [list(row) for row in rows])
            temporary = path.with_name(f".sites.{os.getpid()}.tmp")
            _copy(engine, "SELECT * FROM sites ORDER BY ALL", temporary)
            replace_file(temporary, path)

    def days(self, spec: TableSpec, site: str) -> list[date]:
        """Days with a partition file, ascending."""
        base = self.root / spec.vendor / spec.name / f"site={site}"
        found = []
        for folder in base.glob("day=*"):
            if (folder / "part.parquet").is_file():
                found.append(date.fromisoformat(folder.name.removeprefix("day=")))
        return sorted(found)

    def measures(self, spec: TableSpec, site: str, days: Sequence[date]) -> dict[date, dict[str, int | None]]:
        """`TableSpec.measures` of existing partitions, by day and metric; NULL where a column holds no value."""
        present = [day for day in days if self.has(spec, site, day)]
        if not present or not spec.measures:
            return {}
        selected = ", ".join(f"CAST({sql} AS BIGINT) AS {quoted(name)}" for name, sql in spec.measures.items())
        paths = [self.partition_path(spec, site, day) for day in present]
        source = read_parquet([*paths, *self._anchor(spec)], by_name=True)
        (of_nothing,) = _rows(f"SELECT {selected} FROM {source} WHERE false")
        measured = {day: values for day, *values in _rows(f"SELECT _day, {selected} FROM {source} GROUP BY _day")}
        return {day: dict(zip(spec.measures, measured.get(day, of_nothing), strict=True)) for day in present}

    def row_counts(self, spec: TableSpec, site: str, days: Sequence[date]) -> dict[date, int]:
        """Rows of existing partitions, from Parquet metadata only."""
        existing = {day: self.partition_path(spec, site, day) for day in days if self.has(spec, site, day)}
        if not existing:
            return {}
        found = _rows(
            "SELECT file_name, num_rows FROM parquet_file_metadata(?)", [[str(path) for path in existing.values()]]
        )
        by_path = {name: int(rows) for name, rows in found}
        return {day: by_path[str(path)] for day, path in existing.items()}

    def frame(self, spec: TableSpec, site: str, days: Sequence[date]) -> Any:  # pandas.DataFrame, imported lazily
        """Rows of the given partitions as one pandas frame with exactly the table's columns."""
        paths = [self.partition_path(spec, site, day) for day in days if self.has(spec, site, day)]
        source = read_parquet(paths or [self.partition_path(spec, ANCHOR_SITE, ANCHOR_DAY)])

        def read() -> Any:
            with _reading() as engine:
                return engine.execute(f"FROM {source}").df()

        return read_steadily(read)

    def heads(
        self, spec: TableSpec, site: str, days: Sequence[date], columns: Sequence[str], *, limit: int
    ) -> dict[date, list[tuple[Any, ...]]]:
        """The first rows of each partition, for previews; days without rows are absent."""
        paths = [self.partition_path(spec, site, day) for day in days]
        selected = ", ".join(quoted(name) for name in columns)
        first = f"row_number() OVER (PARTITION BY _day ORDER BY file_row_number) <= {int(limit)}"
        rows = _rows(
            f"SELECT _day, {selected} FROM {read_parquet(paths, file_row_number=True)} QUALIFY {first} "
            "ORDER BY _day, file_row_number"
        )
        by_day: dict[date, list[tuple[Any, ...]]] = {}
        for day, *row in rows:
            by_day.setdefault(day, []).append(tuple(row))
        return by_day

    def sites(self, spec: TableSpec) -> list[str]:
        """Sites with partitions of the table, those that left sites.yaml included."""
        folders = (self.root / spec.vendor / spec.name).glob("site=*")
        return sorted(found for folder in folders if (found := folder.name.removeprefix("site=")) != ANCHOR_SITE)

    def person_rows(self, spec: TableSpec, site: str, keys: ClearKeys) -> dict[date, int]:
        """How many rows of each day carry one of the keys in an identifying column."""
        test = _person_test(spec, keys)
        if test is None or not (paths := self._partitions(spec, site)):
            return {}
        found = _rows(
            f"SELECT _day, count(*) FROM {read_parquet(paths, by_name=True)} WHERE {test[0]} GROUP BY _day", test[1]
        )
        return {day: int(count) for day, count in found}

    def person_keys(self, spec: TableSpec, site: str, keys: ClearKeys) -> set[tuple[str, str]]:
        """All keys, as (kind, value), of the rows that carry one of the given."""
        test = _person_test(spec, keys)
        if test is None or not (paths := self._partitions(spec, site)):
            return set()
        found: set[tuple[str, str]] = set()
        names = list(dict.fromkeys(name for column in spec.identifying_columns for name in _told_by(column)))
        texts = ", ".join(f"CAST({quoted(name)} AS VARCHAR)" for name in names)
        source = read_parquet(paths, by_name=True)
        for row in _rows(f"SELECT DISTINCT {texts} FROM {source} WHERE {test[0]}", test[1]):
            found |= _keys_of_row(spec, dict(zip(names, row, strict=True)))
        return found

    def remove_person(self, spec: TableSpec, site: str, keys: ClearKeys) -> dict[date, int]:
        """Rewrite the partitions that hold such rows without them, each by one rename; rows removed by day.

        Everybody else's rows keep their values and their order.
        """
        removed = self.person_rows(spec, site, keys)
        test = _person_test(spec, keys)
        for day in sorted(removed):
            path = self.partition_path(spec, site, day)
            with self._scratch() as scratch, connect() as engine:
                temporary = scratch / f"{day}.parquet"
                source = read_parquet([path, *self._anchor(spec)], by_name=True)
                kept = f"SELECT * FROM {source} WHERE NOT coalesce({test[0]}, false)" if test else ""
                engine.execute("SET preserve_insertion_order = true")
                values = test[1] if test else []
                read_steadily(partial(engine.execute, f"CREATE OR REPLACE TEMP TABLE kept AS {kept}", values))
                _copy(engine, "SELECT * FROM kept", temporary)
                passing("lake.person_removed")
                replace_file(temporary, path)
        return removed

    def scratch(self) -> AbstractContextManager[Path]:
        """An empty folder for rows on their way: locked while in use, swept when its process died."""
        return self._scratch()

    def beside(self, root: Path) -> Lake:
        """A lake of other files whose decodes leave out the same forgotten persons."""
        return Lake(root, tombstones=self._tombstones)

    def sweep(self) -> None:
        """Remove the scratch folders of decodes that died; they hold raw records."""
        with self._scratch():
            pass

    def _partitions(self, spec: TableSpec, site: str) -> list[Path]:
        """Every partition of the site and, for the columns older ones lack, the anchor; empty where there is none."""
        paths = [self.partition_path(spec, site, day) for day in self.days(spec, site)]
        return [*paths, *self._anchor(spec)] if paths else []

    def _anchor(self, spec: TableSpec) -> list[Path]:
        path = self.partition_path(spec, ANCHOR_SITE, ANCHOR_DAY)
        return [path] if path.is_file() else []

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A folder of this decode, locked while it is in use; folders whose process died are swept (they hold raw
        records, which must not stay behind).
        """
        base = self.root / ".scratch"
        with storage_errors("Preparing the lake"):
            make_directories(base)
            with FileLock(base / ".lock"):
                _sweep(base)
                folder = Path(tempfile.mkdtemp(prefix="decode-", dir=base))
                held = os.open(folder, os.O_RDONLY)
                fcntl.flock(held, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)


class LakeViews:
    """Read access for streams that depend on other tables (`core.streams.LakeReader`)."""

    def __init__(self, lake: Lake, specs: Iterable[TableSpec]) -> None:
        self._lake = lake
        self._specs = tuple(specs)

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Rows of one SELECT over views `<vendor>.<table>`; values are bound.

        Raises:
            duckdb.Error: the query's own fault, or files were replaced while they were read, time and again.
        """
        return read_steadily(lambda: self._query(sql, parameters))

    def _query(self, sql: str, parameters: Sequence[object]) -> list[tuple[Any, ...]]:
        with connect() as engine:
            for spec in self._specs:
                self._lake.ensure_anchor(spec)
                pattern = str(self._lake.root / spec.vendor / spec.name / "*" / "*" / "part.parquet").replace("'", "''")
                engine.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(spec.vendor)}")
                engine.execute(
                    f"CREATE VIEW {quoted(spec.vendor)}.{quoted(spec.name)} AS SELECT * FROM read_parquet("
                    f"'{pattern}', hive_partitioning = false, union_by_name = true) WHERE _site <> '{ANCHOR_SITE}'"
                )
            return engine.execute(sql, list(parameters)).fetchall()


def _sweep(base: Path) -> None:
    for folder in base.glob("decode-*"):
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue  # another process has just swept it
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            continue  # a decode that is running
        finally:
            os.close(descriptor)


# ---------------------------------------------------------------------------------------------------------- decode


def replace_rows(table: Any, path: Path) -> None:  # pyarrow.Table, imported lazily
    """Write an Arrow table as one Parquet file, replaced whole: the other files below a lake (`core.ops_log`)."""
    with storage_errors(f"Writing {path.parent.name}"):
        make_directories(path.parent)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
    with connect() as engine:
        engine.register("given", table)
        _copy(engine, "FROM given", temporary)
    replace_file(temporary, path)


def _decode_rows(engine: duckdb.DuckDBPyConnection, spec: TableSpec, site: str, typing: Callable[[str], str]) -> None:
    """Fill tables `candidates` (all rows) and `decoded` (one row a natural key)."""
    own = ",\n  ".join(f"{typed_column(spec, column.name)} AS {quoted(column.name)}" for column in spec.columns)
    engine.execute(
        f"CREATE TABLE candidates AS SELECT\n  {typing(own)},\n  ? AS _site, {spec.day} AS _day, "
        "landed_at AS _landed_at, run_id AS _run_id, x AS _extra, p AS _page\n"
        f"FROM ({source_of(spec)}) WHERE {predicate_of(spec)}",
        [site],
    )
    key = ", ".join(quoted(name) for name in spec.key)
    names = [c.name for c in spec.all_columns]
    if spec.merge_calls:
        rest = ", ".join(
            f"arg_max({quoted(n)}, _page) FILTER (WHERE {quoted(n)} IS NOT NULL) AS {quoted(n)}"
            for n in names
            if n not in spec.key
        )
        grouped = f"SELECT {key}, {rest} FROM candidates GROUP BY {key}"
        selected = ", ".join(f"CAST({quoted(c.name)} AS {c.type}) AS {quoted(c.name)}" for c in spec.all_columns)
        engine.execute(f"CREATE TABLE decoded AS SELECT {selected} FROM ({grouped})")
        return
    selected = ", ".join(f"CAST({quoted(c.name)} AS {c.type}) AS {quoted(c.name)}" for c in spec.all_columns)
    # Two different rows of one key in one page have no order of their own: the hash gives them one, so that the same
    # pages always give the same bytes.
    tie = f"hash({', '.join(quoted(column.name) for column in spec.columns)}, _extra)"
    newest_first = f"row_number() OVER (PARTITION BY {key} ORDER BY _landed_at DESC, _page DESC, {tie}) = 1"
    engine.execute(f"CREATE TABLE decoded AS SELECT {selected} FROM candidates QUALIFY {newest_first}")


def _duplicates_by_day(engine: duckdb.DuckDBPyConnection, spec: TableSpec) -> dict[date, int]:
    if spec.merge_calls:
        return {}
    rows = engine.execute(
        "SELECT _day, sum(n) FROM (SELECT _day, count(*) AS n FROM candidates GROUP BY _day UNION ALL "
        "SELECT _day, -count(*) FROM decoded GROUP BY _day) GROUP BY _day"
    ).fetchall()
    return {day: int(count) for day, count in rows if day is not None}


# -------------------------------------------------------------------------------------------------- whose rows they are


def record_keys(
    engine: duckdb.DuckDBPyConnection, spec: TableSpec, records: Sequence[bytes], context: Mapping[str, str]
) -> list[tuple[int, str, str]]:
    """(record number, kind, value) of every key in the raw records of one page, by the table's own expressions.

    Raises:
        duckdb.Error: an expression cannot be computed for some record.
    """
    structure = msgspec.json.encode({name: _shape(duckdb.sqltype(type_)) for name, type_ in spec.wire.items()})
    names = [*dict.fromkeys((*spec.context, "call_kind", "records"))]
    packed = ", ".join(f"{quoted(name)} := CAST(? AS VARCHAR)" for name in names)
    engine.execute("CREATE OR REPLACE TEMP TABLE raw (p INTEGER, t VARCHAR)")
    engine.execute(
        "INSERT INTO raw SELECT unnest(?), unnest(?)",
        [list(range(len(records))), [record.decode("utf-8", "surrogatepass") for record in records]],
    )
    engine.execute(
        "CREATE OR REPLACE TEMP TABLE records AS SELECT p, from_json(t, ?) AS r, CAST(NULL AS VARCHAR) AS x FROM raw",
        [structure.decode()],
    )
    engine.execute(
        f"CREATE OR REPLACE TEMP TABLE pages AS SELECT p, struct_pack({packed}) AS c, CAST([] AS DATE[]) AS days, "
        "CAST(NULL AS TIMESTAMP) AS landed_at, CAST(NULL AS VARCHAR) AS run_id FROM raw",
        [context.get(name) for name in names],
    )
    columns = {name: typed_column(spec, name) for c in spec.identifying_columns for name in _told_by(c)}
    selected = [f"CAST({sql} AS VARCHAR) AS {quoted('column ' + name)}" for name, sql in columns.items()]
    selected += [f"CAST({sql} AS VARCHAR) AS {quoted('wire ' + kind)}" for kind, sql in spec.identifies.items()]
    if not selected:
        return []
    rows = engine.execute(f"SELECT p, {', '.join(selected)} FROM ({source_of(spec)})")
    described = [entry[0] for entry in rows.description][1:]
    found = []
    for number, *values in rows.fetchall():
        row = dict(zip(described, values, strict=True))
        own = {name: row[f"column {name}"] for name in columns}
        wire = {(kind, value) for kind in spec.identifies if (value := row[f"wire {kind}"])}
        found += [(int(number), kind, value) for kind, value in _keys_of_row(spec, own) | wire]
    return found


def _shape(type_: Any) -> Any:  # DuckDBPyType has no public stub for `children`
    """A DuckDB type as the structure `from_json` takes."""
    if str(type_) == "JSON":
        return "JSON"
    if type_.id == "struct":
        return {name: _shape(child) for name, child in type_.children}
    if type_.id == "list":
        return [_shape(type_.children[0][1])]
    return str(type_)


def _told_by(column: Column) -> tuple[str, ...]:
    return (column.name, column.identifies.column) if isinstance(column.identifies, KindOf) else (column.name,)


def _keys_of_row(spec: TableSpec, row: Mapping[str, str | None]) -> set[tuple[str, str]]:
    found = set()
    for column in spec.identifying_columns:
        value = row[column.name]
        kind = column.identifies
        if isinstance(kind, KindOf):
            kind = kind.kinds.get(row[kind.column] or "")
        if value and kind:
            found.add((kind, normalised_key(kind, value)))
    return found


def _person_test(spec: TableSpec, keys: ClearKeys) -> tuple[str, list[object]] | None:
    """SQL condition on a table's rows, with its bound values; None where no key can be in the table."""
    tests: list[str] = []
    bound: list[object] = []
    for column in spec.identifying_columns:
        text = f"CAST({quoted(column.name)} AS VARCHAR)"
        told = column.identifies
        kinds = dict(told.kinds) if isinstance(told, KindOf) else {"": str(told)}
        for value, kind in kinds.items():
            wanted = sorted(keys.values.get(kind, ()))
            if not wanted:
                continue
            spelled = f"lower(trim({text}))" if kind == "email" else text
            test = f"list_contains(CAST(? AS VARCHAR[]), {spelled})"
            bound.append(wanted)
            if isinstance(told, KindOf):
                test += f" AND {quoted(told.column)} = ?"
                bound.append(value)
            tests.append(f"({test})")
    return (" OR ".join(tests), bound) if tests else None


# -------------------------------------------------------------------------------------------------------- SQL text


def _copy(engine: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    try:
        with storage_errors("Writing to the lake"):
            engine.execute(f"COPY ({query}) TO {literal(path)} (FORMAT parquet, COMPRESSION zstd)")
    except BaseException:
        path.unlink(missing_ok=True)
        raise
