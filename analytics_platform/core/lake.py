"""The lake: landed pages decoded at engine speed into one typed Parquet file a partition.

Belongs here: the decode, the atomic replacement of a partition, reading partitions back, anchors, blocked partitions.
The only place that writes Parquet. Does not belong here: HTTP, what the columns mean (`vendors/<v>/tables.py`),
Dagster.

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
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import duckdb
import msgspec
from filelock import FileLock

from analytics_platform.core.durable import make_directories, replace_file, storage_errors
from analytics_platform.core.errors import LandingCorrupt, SchemaMismatch, StorageError, Where
from analytics_platform.core.failpoints import passing
from analytics_platform.core.identity import PersonKey
from analytics_platform.core.lake_stream import SEGMENT_BYTES, Following, TypedStream, stream_pages
from analytics_platform.core.landing import Batch, LandedPage
from analytics_platform.core.tables import Column, KindOf, TableSpec, normalised_key
from analytics_platform.core.tombstones import ClearKeys, Tombstones

__all__ = [
    "ANCHOR_SITE",
    "DecodedPartition",
    "Lake",
    "LakeViews",
    "SiteRow",
    "StreamedTable",
    "connect",
    "record_keys",
    "replace_rows",
    "split_records",
    "was_replaced",
]

ANCHOR_SITE: Final = "_anchor"
ANCHOR_DAY: Final = date(1970, 1, 1)
_READ_ATTEMPTS: Final = 3

_STREAM_MEMORY: Final = "256MB"
"""Of the engine that types one segment at a time; it never needs as much."""

_Strip = Callable[[LandedPage, bytes], bytes | None]

_RAW_LIST: Final = msgspec.json.Decoder(list[msgspec.Raw])
_OWN_WORDS = re.compile(r"\berror\('((?:[^']|'')*)'\)")


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


@dataclass(frozen=True, kw_only=True)
class DecodedPartition:
    """One partition as written. Sizes in bytes; instants as the anchor column has them."""

    spec: TableSpec
    site: str
    day: date
    path: Path
    rows: int
    size: int
    duplicates: int
    rows_with_extra: int
    oldest: datetime | date | None = None
    newest: datetime | date | None = None
    extra_fields: tuple[str, ...] = field(default=())


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


@lru_cache(maxsize=1)
def _shared_engine() -> duckdb.DuckDBPyConnection:
    engine = connect()
    # An engine still open while the interpreter ends is reported as leaked.
    atexit.register(engine.close)
    return engine


def _reading() -> duckdb.DuckDBPyConnection:
    """A cursor of the process's one reading engine: starting an engine costs ten times what a small read does."""
    return _shared_engine().cursor()


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
            tables = []
            for spec in specs:
                engine = connect(temp_directory=str(scratch), memory_limit=_STREAM_MEMORY)
                stack.callback(engine.close)
                if self._person_key is not None:
                    self._person_key.install(engine, site=site)
                tables.append(StreamedTable(self, spec, site, scratch / spec.name, engine))
            return tables, stack.pop_all()

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
            stage = _Stage(scratch, spec, self._forgotten(spec, site))
            with (
                closing(stage),
                connect(temp_directory=str(scratch)) as engine,
                _readable_errors(engine, stage, spec, site),
            ):
                for batch, batch_days in assignments:
                    stage.add(batch, batch_days)
                days = sorted({day for _, batch_days in assignments for day in batch_days})
                if self._person_key is not None:
                    self._person_key.install(engine, site=site)
                stage.load(engine)
                _decode_rows(engine, spec, site)
                duplicates = _duplicates_by_day(engine, spec)
                extra_fields = _extra_fields(engine) if stage.has_unknown_fields else ()
                passing("lake.decoded")
                return [
                    self._write(engine, spec, site, day, duplicates.get(day, 0), extra_fields, scratch, generation)
                    for day in days
                ]

    def _forgotten(self, spec: TableSpec, site: str) -> _Strip | None:
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
        order = ", ".join(_quote(name) for name in (*spec.key, "_landed_at"))
        anchor = f"min({_quote(spec.anchor)}), max({_quote(spec.anchor)})" if spec.anchor else "NULL, NULL"
        rows, with_extra, oldest, newest = _one(
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
        columns = ", ".join(f"CAST(NULL AS {c.type}) AS {_quote(c.name)}" for c in spec.all_columns)
        query = f"SELECT {columns} LIMIT 0"
        with _reading() as engine:
            if path.is_file() and _schema(engine, query) == _schema(engine, f"FROM {_parquet([path])}"):
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
        return _parquet([anchor, *found], by_name=True)

    def blocked(self) -> list[tuple[str, str, str, date]]:
        """Blocked partitions as (vendor, table, site, day)."""
        path = self.root / "_blocked" / "partitions.parquet"
        if not path.is_file():
            return []
        with _reading() as engine:
            return engine.execute(
                f"SELECT vendor, table_name, site_key, partition_date FROM read_parquet({_literal(path)}) ORDER BY ALL"
            ).fetchall()

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
        selected = ", ".join(f"CAST({sql} AS BIGINT) AS {_quote(name)}" for name, sql in spec.measures.items())
        paths = [self.partition_path(spec, site, day) for day in present]
        source = _parquet([*paths, *self._anchor(spec)], by_name=True)
        with _reading() as engine:
            rows = engine.execute(f"SELECT _day, {selected} FROM {source} GROUP BY _day").fetchall()
            (of_nothing,) = engine.execute(f"SELECT {selected} FROM {source} WHERE false").fetchall()
        measured = {day: values for day, *values in rows}
        return {day: dict(zip(spec.measures, measured.get(day, of_nothing), strict=True)) for day in present}

    def row_counts(self, spec: TableSpec, site: str, days: Sequence[date]) -> dict[date, int]:
        """Rows of existing partitions, from Parquet metadata only."""
        existing = {day: self.partition_path(spec, site, day) for day in days if self.has(spec, site, day)}
        if not existing:
            return {}
        with _reading() as engine:
            found = engine.execute(
                "SELECT file_name, num_rows FROM parquet_file_metadata(?)", [[str(path) for path in existing.values()]]
            ).fetchall()
        by_path = {name: int(rows) for name, rows in found}
        return {day: by_path[str(path)] for day, path in existing.items()}

    def frame(self, spec: TableSpec, site: str, days: Sequence[date]) -> Any:  # pandas.DataFrame, imported lazily
        """Rows of the given partitions as one pandas frame with exactly the table's columns."""
        paths = [self.partition_path(spec, site, day) for day in days if self.has(spec, site, day)]
        with _reading() as engine:
            return engine.execute(
                f"FROM {_parquet(paths or [self.partition_path(spec, ANCHOR_SITE, ANCHOR_DAY)])}"
            ).df()

    def heads(
        self, spec: TableSpec, site: str, days: Sequence[date], columns: Sequence[str], *, limit: int
    ) -> dict[date, list[tuple[Any, ...]]]:
        """The first rows of each partition, for previews; days without rows are absent."""
        paths = [self.partition_path(spec, site, day) for day in days]
        selected = ", ".join(_quote(name) for name in columns)
        first = f"row_number() OVER (PARTITION BY _day ORDER BY file_row_number) <= {int(limit)}"
        with _reading() as engine:
            rows = engine.execute(
                f"SELECT _day, {selected} FROM {_parquet(paths, file_row_number=True)} QUALIFY {first} "
                "ORDER BY _day, file_row_number"
            ).fetchall()
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
        with _reading() as engine:
            found = engine.execute(
                f"SELECT _day, count(*) FROM {_parquet(paths, by_name=True)} WHERE {test[0]} GROUP BY _day", test[1]
            ).fetchall()
        return {day: int(count) for day, count in found}

    def person_keys(self, spec: TableSpec, site: str, keys: ClearKeys) -> set[tuple[str, str]]:
        """All keys, as (kind, value), of the rows that carry one of the given."""
        test = _person_test(spec, keys)
        if test is None or not (paths := self._partitions(spec, site)):
            return set()
        found: set[tuple[str, str]] = set()
        with _reading() as engine:
            names = ", ".join(dict.fromkeys(name for c in spec.identifying_columns for name in _identity_names(c)))
            rows = engine.execute(
                f"SELECT DISTINCT {names} FROM {_parquet(paths, by_name=True)} WHERE {test[0]}", test[1]
            )
            described = [entry[0] for entry in rows.description]
            for row in rows.fetchall():
                found |= _keys_of_row(spec, dict(zip(described, row, strict=True)))
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
                source = _parquet([path, *self._anchor(spec)], by_name=True)
                kept = f"SELECT * FROM {source} WHERE NOT coalesce({test[0]}, false)" if test else ""
                engine.execute("SET preserve_insertion_order = true")
                engine.execute(f"CREATE TEMP TABLE kept AS {kept}", test[1] if test else [])
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


def was_replaced(error: Exception) -> bool:
    """Whether a read failed because a file was replaced in between: DuckDB opens a Parquet file more than once a query
    and complains with an I/O error or, reading the new file by the old one's footer, with the bare base class. A
    query's own fault is a subclass.
    """
    return isinstance(error, duckdb.IOException | FileNotFoundError) or type(error) is duckdb.Error


class LakeViews:
    """Read access for streams that depend on other tables (`core.streams.LakeReader`)."""

    def __init__(self, lake: Lake, specs: Iterable[TableSpec]) -> None:
        self._lake = lake
        self._specs = tuple(specs)

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Rows of one SELECT over views `<vendor>.<table>`; values are bound.

        Raises:
            duckdb.Error: the query's own fault, or files were replaced while they were read, three times in a row.
        """
        for _ in range(_READ_ATTEMPTS - 1):
            try:
                return self._query(sql, parameters)
            except duckdb.Error as error:
                if not was_replaced(error):
                    raise
        return self._query(sql, parameters)

    def _query(self, sql: str, parameters: Sequence[object]) -> list[tuple[Any, ...]]:
        with connect() as engine:
            for spec in self._specs:
                self._lake.ensure_anchor(spec)
                pattern = str(self._lake.root / spec.vendor / spec.name / "*" / "*" / "part.parquet").replace("'", "''")
                engine.execute(f"CREATE SCHEMA IF NOT EXISTS {_quote(spec.vendor)}")
                engine.execute(
                    f"CREATE VIEW {_quote(spec.vendor)}.{_quote(spec.name)} AS SELECT * FROM read_parquet("
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


class _Stage:
    """The decode's two input files: raw records with their page number, and the pages' contexts."""

    def __init__(self, folder: Path, spec: TableSpec, strip: _Strip | None = None) -> None:
        self._spec = spec
        self._strip = strip
        self._records_path = folder / "records.ndjson"
        self._pages_path = folder / "pages.ndjson"
        self._pages: list[dict[str, object]] = []
        self._records = self._records_path.open("wb")
        self._known = _known_fields(tuple(spec.wire))
        self._may_have_unknown_fields = False
        self._longest = 0
        self.size = 0
        self.has_unknown_fields = False

    def close(self) -> None:
        """Flush the records to their file. Safe to call twice."""
        self._records.close()

    def remove(self) -> None:
        """The files are no longer needed."""
        self.close()
        for path in self._records_path.parent.glob("*.ndjson"):
            path.unlink()

    def add(self, batch: Batch, days: Sequence[date]) -> None:
        for page, landed in batch.pages(self._spec.calls):
            body = landed if self._strip is None else self._strip(page, landed)
            if body is not None:
                records = _raw_records(body, self._spec.records, union=self._spec.union_records)
                self.add_records(page, records, days, is_whole=body is landed)

    def add_records(
        self, page: LandedPage, records: Sequence[Any], days: Sequence[date], *, is_whole: bool = True
    ) -> None:
        """One page's raw records: anything with the bytes of one record each, on one line.

        Args:
            is_whole: nobody was taken out of the page since it was landed.

        Raises:
            LandingCorrupt: fewer records than were counted when the page was received.
        """
        if is_whole and self._spec.is_counted and len(records) < page.records:
            raise LandingCorrupt(
                f"A page of {self._spec.qualified_name} gives {len(records):,} records where {page.records:,} were "
                "counted when it was received.",
                "Nothing was written. This is a fault of the decoder: report it; the page is kept.",
                Where(vendor=self._spec.vendor, endpoint=self._spec.name),
            )
        number = len(self._pages)
        if records:
            opening = b'{"p":%d,"r":' % number
            staged = b"".join((opening, (b"}\n" + opening).join(records), b"}\n"))
            self._records.write(staged)
            self.size += len(staged)
            self._longest = max(self._longest, *(len(memoryview(record)) for record in records))
            self._look_for_unknown_fields(records)
        self._pages.append(self._page_row(number, page, days))

    def _look_for_unknown_fields(self, records: Sequence[Any]) -> None:
        if self._may_have_unknown_fields:
            return
        try:
            self._known.decode(b"".join((b"[", b",".join(records), b"]")))
        except msgspec.ValidationError:
            self._may_have_unknown_fields = True

    def _page_row(self, number: int, page: LandedPage, days: Sequence[date]) -> dict[str, object]:
        context: dict[str, str | None] = {name: page.context.get(name) for name in self._spec.context}
        context["call_kind"] = page.call_kind
        context["records"] = str(page.records)
        received = page.received_at.strftime("%Y-%m-%d %H:%M:%S.%f")
        return {"p": number, "c": context, "days": [str(d) for d in days], "landed_at": received, "run_id": page.run_id}

    def load(self, engine: duckdb.DuckDBPyConnection) -> None:
        self.close()
        lines = [msgspec.json.encode(row) for row in self._pages]
        self._pages_path.write_bytes(b"\n".join(lines) + b"\n")
        context_names = [*dict.fromkeys((*self._spec.context, "call_kind", "records"))]
        context_type = "STRUCT(" + ", ".join(f"{_quote(name)} VARCHAR" for name in context_names) + ")"
        page_columns = {
            "p": "INTEGER",
            "c": context_type,
            "days": "DATE[]",
            "landed_at": "TIMESTAMP",
            "run_id": "VARCHAR",
        }
        longest = max(map(len, lines), default=0) + 1
        pages = _read_ndjson(self._pages_path, page_columns, longest_bytes=longest)
        engine.execute(f"CREATE OR REPLACE TABLE pages AS SELECT * FROM {pages}")
        if not self.size:
            record_type = _struct(self._spec.wire)
            engine.execute(
                "CREATE OR REPLACE VIEW records AS SELECT CAST(NULL AS INTEGER) AS p, "
                f"CAST(NULL AS {record_type}) AS r, CAST(NULL AS VARCHAR) AS x WHERE false"
            )
            return
        self.has_unknown_fields = self._may_have_unknown_fields and self._find_unknown_fields(engine)
        if self.has_unknown_fields:
            self._load_with_extra(engine)
        else:
            columns = {"p": "INTEGER", "r": _struct(self._spec.wire)}
            engine.execute(
                "CREATE OR REPLACE VIEW records AS SELECT p, r, CAST(NULL AS VARCHAR) AS x "
                f"FROM {self._read(self._records_path, columns)}"
            )

    def unreadable_fields(self, engine: duckdb.DuckDBPyConnection) -> Iterator[str]:
        """Declared fields whose type does not fit some record, by reading each on its own."""
        self.close()
        for name, type_ in self._spec.wire.items():
            source = self._read(self._records_path, {"r": _struct({name: type_})})
            if _fails(engine, f"SELECT max(hash(r)) FROM {source}"):
                yield f"field {name} ({type_})"

    def _find_unknown_fields(self, engine: duckdb.DuckDBPyConnection) -> bool:
        source = self._read(self._records_path, {"r": "JSON"})
        keys = engine.execute(f"SELECT DISTINCT unnest(json_keys(r)) FROM {source}").fetchall()
        return any(key not in self._spec.wire for (key,) in keys)

    def _load_with_extra(self, engine: duckdb.DuckDBPyConnection) -> None:
        """The slow path, only when some record has an undeclared field: the raw record travels beside the typed one."""
        doubled = self._records_path.with_name("records-with-raw.ndjson")
        with self._records_path.open("rb") as source, doubled.open("wb") as target:
            for line in source:
                raw = line[line.index(b'"r":') + 4 : -2]
                target.write(line[:-2] + b',"x":' + raw + b"}\n")
        columns = {"p": "INTEGER", "r": _struct(self._spec.wire), "x": "JSON"}
        known = msgspec.json.encode(dict.fromkeys(self._spec.wire)).decode().replace("'", "''")
        engine.execute(
            "CREATE OR REPLACE VIEW records AS SELECT p, r, "
            f"nullif(CAST(json_merge_patch(x, '{known}') AS VARCHAR), '{{}}') AS x FROM {self._read(doubled, columns)}"
        )

    def _read(self, path: Path, columns: Mapping[str, str]) -> str:
        # A doubled line holds its record twice, and a page number.
        return _read_ndjson(path, columns, longest_bytes=2 * self._longest + 1024)


@lru_cache(maxsize=128)
def _known_fields(names: tuple[str, ...]) -> msgspec.json.Decoder[Any]:
    """Refuses a list of records one of which has a field of another name (or is no object)."""
    fields = [(f"field_{number}", msgspec.Raw, msgspec.Raw()) for number in range(len(names))]
    rename = {f"field_{number}": name for number, name in enumerate(names)}
    return msgspec.json.Decoder(
        list[msgspec.defstruct("Known", fields, rename=rename, forbid_unknown_fields=True, gc=False)]  # type: ignore[misc]
    )


class StreamedTable:
    """One table's part of a decode that streams (`core.lake_stream`): a segment being staged, and a file for each day.

    Args:
        engine: this table's own.
    """

    def __init__(
        self, lake: Lake, spec: TableSpec, site: str, scratch: Path, engine: duckdb.DuckDBPyConnection
    ) -> None:
        self.spec = spec
        self._lake = lake
        self._site = site
        self._scratch = scratch
        self._engine = engine
        self._stage: _Stage | None = None
        self._days: dict[date, _DayFile] = {}
        self._schema: Any = None
        self._extra_fields: set[str] = set()

    @property
    def staged_bytes(self) -> int:
        """Raw bytes that wait to be typed."""
        return 0 if self._stage is None else self._stage.size

    def split(self, body: bytes) -> Sequence[Any]:
        """A page's raw records."""
        return _raw_records(body, self.spec.records, union=self.spec.union_records)

    def add(self, page: LandedPage, records: Sequence[Any], days: Sequence[date], *, is_whole: bool) -> None:
        """Stage a page's records."""
        if self._stage is None:
            self._scratch.mkdir(exist_ok=True)
            self._stage = _Stage(self._scratch, self.spec)
        self._stage.add_records(page, records, days, is_whole=is_whole)

    def flush(self) -> None:
        """Type what is staged and append it to the days' files as a row group each.

        Raises:
            SchemaMismatch, StorageError: as `Lake.decode`.
        """
        stage, self._stage = self._stage, None
        if stage is None:
            return
        with closing(stage), _readable_errors(self._engine, stage, self.spec, self._site):
            stage.load(self._engine)
            # The segments' rows keep their order, so that the same pages are the same bytes.
            rows = self._engine.sql(_typed_rows(self.spec), params=[self._site]).to_arrow_table()
        if stage.has_unknown_fields:
            self._engine.register("typed", rows)
            self._extra_fields |= set(_extra_fields(self._engine, "typed"))
            self._engine.unregister("typed")
        stage.remove()
        self._schema = rows.schema
        for day, part in _by_day(rows):
            if day not in self._days:
                self._days[day] = _DayFile(self._scratch / f"{day}.parquet", self.spec, rows.schema)
            self._days[day].append(part)

    def publish(self, days: Sequence[date], generation: tuple[int, int, int] | None) -> list[DecodedPartition] | None:
        """Give every day its finished file by one rename each; None, and nothing changes, if a key came twice."""
        if self._schema is None:
            return None
        for day in days:
            if day not in self._days:
                self._days[day] = _DayFile(self._scratch / f"{day}.parquet", self.spec, self._schema)
        for file in self._days.values():
            file.close()
        key = ", ".join(_quote(name) for name in self.spec.key)
        source = _parquet([file.path for file in self._days.values()])
        if _one(self._engine.execute(f"SELECT count(*) > count(DISTINCT hash({key})) FROM {source}"))[0]:
            return None
        passing("lake.decoded")
        return [self._publish_day(day, generation) for day in sorted(days)]

    def _publish_day(self, day: date, generation: tuple[int, int, int] | None) -> DecodedPartition:
        written = self._days[day]
        path = self._lake.take_in(written.path, self.spec, self._site, day, generation)
        return DecodedPartition(
            spec=self.spec,
            site=self._site,
            day=day,
            path=path,
            rows=written.rows,
            size=path.stat().st_size,
            duplicates=0,
            rows_with_extra=written.rows_with_extra,
            oldest=written.oldest,
            newest=written.newest,
            extra_fields=tuple(sorted(self._extra_fields)),
        )

    def close(self) -> None:
        """Close every file."""
        if self._stage is not None:
            self._stage.close()
        for file in self._days.values():
            file.close()
        self._engine.close()


class _DayFile:
    """A day's Parquet file, growing by row groups."""

    def __init__(self, path: Path, spec: TableSpec, schema: Any) -> None:
        from pyarrow import parquet

        self.path = path
        self.rows = self.rows_with_extra = 0
        self.oldest: Any = None
        self.newest: Any = None
        self._anchor = spec.anchor
        # A dictionary of values that are all different is built and thrown away.
        repeated = [name for name in schema.names if name not in spec.key]
        self._file = parquet.ParquetWriter(path, schema, compression="zstd", use_dictionary=repeated)

    def append(self, rows: Any) -> None:
        from pyarrow import compute

        self._file.write(rows)
        self.rows += rows.num_rows
        self.rows_with_extra += rows.num_rows - rows["_extra"].null_count
        if self._anchor is not None:
            found = compute.min_max(rows[self._anchor]).as_py()
            self.oldest = min(filter(None, (self.oldest, found["min"])), default=None)
            self.newest = max(filter(None, (self.newest, found["max"])), default=None)

    def close(self) -> None:
        self._file.close()


def _by_day(rows: Any) -> Iterator[tuple[date, Any]]:
    from pyarrow import compute

    days = [day for day in compute.unique(rows["_day"]).to_pylist() if day is not None]
    for day in days:
        yield day, rows if len(days) == 1 else rows.filter(compute.equal(rows["_day"], day))


def _typed_rows(spec: TableSpec) -> str:
    """SQL of a segment's rows, in the order they were staged, with exactly the table's columns."""
    own = ", ".join(f"{_typed(spec, column.name)} AS {_quote(column.name)}" for column in spec.columns)
    return (
        f"SELECT {own}, CAST(? AS VARCHAR) AS _site, CAST({spec.day} AS DATE) AS _day, landed_at AS _landed_at, "
        f"run_id AS _run_id, CAST(x AS VARCHAR) AS _extra FROM ({_source(spec)}) WHERE {_predicate(spec)}"
    )


def replace_rows(table: Any, path: Path) -> None:  # pyarrow.Table, imported lazily
    """Write an Arrow table as one Parquet file, replaced whole: the other files below a lake (`core.ops_log`)."""
    with storage_errors(f"Writing {path.parent.name}"):
        make_directories(path.parent)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
    with connect() as engine:
        engine.register("given", table)
        _copy(engine, "FROM given", temporary)
    replace_file(temporary, path)


def split_records(body: bytes, paths: Sequence[str], *, union: bool = False) -> list[bytes]:
    """The raw records of a page: the first of `paths` that exists (all of them with `union`), without building objects.

    "" is the root, "a.b" a member of a member; null is no record, an object is one record, and a path ending in "{}"
    makes each
    member of an object a record `{"key": …, "value": …}`. A page with none of the paths has no records.
    """
    return [bytes(record) for record in _raw_records(body, paths, union=union)]


def _raw_records(body: bytes, paths: Sequence[str], *, union: bool) -> list[Any]:
    """As `split_records`, as whatever has the bytes: copies cost a third of the split."""
    # Strict JSON (checked when the page was received) has raw newlines only between tokens, so this cannot touch a
    # string.
    flat = body.replace(b"\n", b" ").replace(b"\r", b" ")
    records: list[Any] = []
    for path in paths:
        entries = path.endswith("{}")
        found = _descend(flat, path.removesuffix("{}").removesuffix("."))
        if found is None:
            continue
        records += _entries(found) if entries else _listed(found)
        if not union:
            break
    return records


def _descend(body: bytes, path: str) -> bytes | None:
    """The raw value at a dotted path, None where it is absent or passes through something that is not an object."""
    value = body.strip()
    for name in path.split(".") if path else ():
        if not value.startswith(b"{"):
            return None
        members = msgspec.json.decode(value, type=dict[str, msgspec.Raw])
        if name not in members:
            return None
        value = bytes(members[name]).strip()
    return value


def _listed(value: bytes) -> list[Any]:
    if value == b"null":
        return []
    if value.startswith(b"["):
        return list(_RAW_LIST.decode(value))
    return [value]


def _entries(value: bytes) -> list[bytes]:
    if value == b"null":
        return []
    members = msgspec.json.decode(value, type=dict[str, msgspec.Raw])
    return [b'{"key":%b,"value":%b}' % (msgspec.json.encode(key), bytes(raw)) for key, raw in members.items()]


def _source(spec: TableSpec) -> str:
    """SQL of what a column expression sees: one row a record, or a row an element."""
    source = "SELECT p, r, x, c, days, landed_at, run_id FROM records JOIN pages USING (p)"
    if spec.explode is not None:
        listed = f"r.{_quote(spec.explode)}" if spec.explode in spec.wire else spec.explode
        source = (
            "SELECT p, r, CAST(NULL AS VARCHAR) AS x, c, days, landed_at, run_id, "
            "unnest(l) AS e, generate_subscripts(l, 1) AS i "
            f"FROM (SELECT *, {listed} AS l FROM ({source})) WHERE len(l) > 0"
        )
    return source


def _predicate(spec: TableSpec) -> str:
    return f"list_contains(days, {spec.day})" + (f" AND ({spec.where})" if spec.where else "")


def _typed(spec: TableSpec, name: str) -> str:
    column = spec.column(name)
    return f"CAST({column.expr or 'r.' + _quote(column.name)} AS {column.type})"


def _decode_rows(engine: duckdb.DuckDBPyConnection, spec: TableSpec, site: str) -> None:
    """Fill tables `candidates` (all rows) and `decoded` (one row a natural key)."""
    own = ",\n  ".join(f"{_typed(spec, column.name)} AS {_quote(column.name)}" for column in spec.columns)
    engine.execute(
        f"CREATE TABLE candidates AS SELECT\n  {own},\n  ? AS _site, {spec.day} AS _day, landed_at AS _landed_at, "
        f"run_id AS _run_id, x AS _extra, p AS _page\nFROM ({_source(spec)}) WHERE {_predicate(spec)}",
        [site],
    )
    key = ", ".join(_quote(name) for name in spec.key)
    names = [c.name for c in spec.all_columns]
    if spec.merge_calls:
        rest = ", ".join(
            f"arg_max({_quote(n)}, _page) FILTER (WHERE {_quote(n)} IS NOT NULL) AS {_quote(n)}"
            for n in names
            if n not in spec.key
        )
        grouped = f"SELECT {key}, {rest} FROM candidates GROUP BY {key}"
        selected = ", ".join(f"CAST({_quote(c.name)} AS {c.type}) AS {_quote(c.name)}" for c in spec.all_columns)
        engine.execute(f"CREATE TABLE decoded AS SELECT {selected} FROM ({grouped})")
        return
    selected = ", ".join(f"CAST({_quote(c.name)} AS {c.type}) AS {_quote(c.name)}" for c in spec.all_columns)
    # Two different rows of one key in one page have no order of their own: the hash gives them one, so that the same
    # pages always give the same bytes.
    tie = f"hash({', '.join(_quote(column.name) for column in spec.columns)}, _extra)"
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


def _extra_fields(engine: duckdb.DuckDBPyConnection, relation: str = "decoded") -> tuple[str, ...]:
    rows = engine.execute(
        f"SELECT DISTINCT unnest(json_keys(_extra)) AS k FROM {relation} WHERE _extra IS NOT NULL ORDER BY k"
    ).fetchall()
    return tuple(name for (name,) in rows)


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
    packed = ", ".join(f"{_quote(name)} := CAST(? AS VARCHAR)" for name in names)
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
    columns = {name: _typed(spec, name) for c in spec.identifying_columns for name in _told_by(c)}
    selected = [f"CAST({sql} AS VARCHAR) AS {_quote('column ' + name)}" for name, sql in columns.items()]
    selected += [f"CAST({sql} AS VARCHAR) AS {_quote('wire ' + kind)}" for kind, sql in spec.identifies.items()]
    if not selected:
        return []
    rows = engine.execute(f"SELECT p, {', '.join(selected)} FROM ({_source(spec)})")
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


def _identity_names(column: Column) -> tuple[str, ...]:
    return tuple(f"CAST({_quote(name)} AS VARCHAR) AS {_quote(name)}" for name in _told_by(column))


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
        text = f"CAST({_quote(column.name)} AS VARCHAR)"
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
                test += f" AND {_quote(told.column)} = ?"
                bound.append(value)
            tests.append(f"({test})")
    return (" OR ".join(tests), bound) if tests else None


# -------------------------------------------------------------------------------------------------------- SQL text


def _quote(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def _struct(fields: Mapping[str, str]) -> str:
    return "STRUCT(" + ", ".join(f"{_quote(name)} {type_}" for name, type_ in fields.items()) + ")"


_LARGEST_RECORD_BYTES: Final = 64 * 1024 * 1024
_SMALLEST_BUFFER_BYTES: Final = 1024 * 1024


def _read_ndjson(path: Path, columns: Mapping[str, str], *, longest_bytes: int = _LARGEST_RECORD_BYTES) -> str:
    """A table function call with explicit columns: auto-detection drops late columns silently (M20).

    Args:
        longest_bytes: of a line; a thread's buffer is made for it, so that a bound nobody needs costs memory.
    """
    typed = ", ".join(f"{_quote(name)}: '{type_.replace(chr(39), chr(39) * 2)}'" for name, type_ in columns.items())
    largest = max(longest_bytes, _SMALLEST_BUFFER_BYTES)
    options = f"format = 'newline_delimited', columns = {{{typed}}}, maximum_object_size = {largest}"
    return f"read_json({_literal(path)}, {options})"


def _copy(engine: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    try:
        with storage_errors("Writing to the lake"):
            engine.execute(f"COPY ({query}) TO {_literal(path)} (FORMAT parquet, COMPRESSION zstd)")
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _literal(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _one(relation: duckdb.DuckDBPyConnection) -> tuple[Any, ...]:
    row = relation.fetchone()
    if row is None:
        raise RuntimeError("an aggregate returned no row")
    return row


def _parquet(paths: Sequence[Path], *, file_row_number: bool = False, by_name: bool = False) -> str:
    listed = ", ".join(_literal(path) for path in paths)
    numbered = ", file_row_number = true" if file_row_number else ""
    matched = ", union_by_name = true" if by_name else ""
    return f"read_parquet([{listed}], hive_partitioning = false{numbered}{matched})"


def _schema(engine: duckdb.DuckDBPyConnection, query: str) -> list[tuple[str, str]]:
    return [(row[0], row[1]) for row in engine.execute(f"DESCRIBE {query}").fetchall()]


def _fails(engine: duckdb.DuckDBPyConnection, query: str) -> bool:
    try:
        engine.execute(query).fetchall()
    except duckdb.Error:
        return True
    return False


@contextmanager
def _readable_errors(engine: duckdb.DuckDBPyConnection, stage: _Stage, spec: TableSpec, site: str) -> Iterator[None]:
    """DuckDB's and msgspec's errors show the value they choked on, so none of their text is kept: the fields and
    columns at fault are found by trying each on its own.
    """
    try:
        yield
    except (duckdb.ConversionException, duckdb.InvalidInputException, duckdb.OutOfRangeException) as error:
        words = {text for sql in _expressions(spec) for text in _OWN_WORDS.findall(sql) if text in str(error)}
        at_fault = sorted(words) or [*stage.unreadable_fields(engine)] or [*_unreadable_columns(engine, spec)]
        raise _mismatch(spec, site, ", ".join(at_fault) or type(error).__name__) from None
    except msgspec.DecodeError:
        raise _mismatch(spec, site, f"no list of records at {' or '.join(map(repr, spec.records))}") from None
    except duckdb.IOException as error:
        raise StorageError(
            f"Decoding {spec.qualified_name} failed: the engine could not read or write its files.",
            "Free space or fix permissions under ANALYTICS_PLATFORM_HOME and run again; "
            "nothing half-written is visible.",
            Where(vendor=spec.vendor, endpoint=spec.name, site=site),
        ) from error


def _mismatch(spec: TableSpec, site: str, reason: str) -> SchemaMismatch:
    return SchemaMismatch(
        f"A record of {spec.qualified_name} cannot be read with the declared types: {reason}.",
        f"The vendor changed a field. Adjust vendors/{spec.vendor}/tables.py, then "
        "`analytics-platform replay-landing`; the pages are kept and cost no request.",
        Where(vendor=spec.vendor, endpoint=spec.name, site=site),
    )


def _expressions(spec: TableSpec) -> Iterator[str]:
    yield from (column.expr for column in spec.columns if column.expr)
    yield from (sql for sql in (spec.day, spec.where, spec.explode) if sql)


def _unreadable_columns(engine: duckdb.DuckDBPyConnection, spec: TableSpec) -> Iterator[str]:
    for what, sql, where in (
        *((f"column {c.name} ({c.type})", _typed(spec, c.name), _predicate(spec)) for c in spec.columns),
        ("the partition day (DATE)", spec.day, "true"),
    ):
        if _fails(engine, f"SELECT max(hash({sql})) FROM ({_source(spec)}) WHERE {where}"):
            yield what
