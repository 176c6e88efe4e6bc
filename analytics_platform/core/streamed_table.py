"""One table's part of a decode that streams: segments are typed and appended to a Parquet file for each day.

Belongs here: the segment being staged, the days' growing files, giving them to the lake at the end. Does not belong
here: pages and threads that hand them in (`core.lake_stream`), the rename (`core.lake`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb

from analytics_platform.core.engine import (
    one_row,
    quoted,
    read_parquet,
)
from analytics_platform.core.failpoints import passing
from analytics_platform.core.landing import LandedPage
from analytics_platform.core.raw_records import listed_for, raw_records
from analytics_platform.core.staging import Stage, readable_errors
from analytics_platform.core.table_sql import (
    extra_fields_of,
    typed_rows,
)
from analytics_platform.core.tables import TableSpec

if TYPE_CHECKING:
    from analytics_platform.core.lake import Lake

__all__ = ["DecodedPartition", "StreamedTable"]


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


_SAMPLED_ROWS: Final = 4096
_KEYS_AT_ONCE: Final = 1_000_000
"""Compared with each other: 20 bytes each."""


class StreamedTable:
    """One table's part of a decode that streams (`core.lake_stream`): a segment being staged, and a file for each day.

    Args:
        engine: this table's own.
        typing: what is left of a typing query.
        typists, writers: a thread each, shared with the stream's other tables, so that what is typed at a time does not
            grow with them.
    """

    def __init__(
        self,
        lake: Lake,
        spec: TableSpec,
        site: str,
        scratch: Path,
        engine: duckdb.DuckDBPyConnection,
        typing: Callable[[str], str],
        *,
        typists: Executor,
        writers: Executor,
    ) -> None:
        self.spec = spec
        self._lake = lake
        self._site = site
        self._scratch = scratch
        self._engine = engine
        self._stage: Stage | None = None
        self._segments = 0
        self._days: dict[date, _DayFile] = {}
        self._schema: Any = None
        self._extra_fields: set[str] = set()
        self._query = typing(typed_rows(spec))
        self._typed: duckdb.DuckDBPyRelation | None = None
        self._typing = _Beside(typists)
        self._writing = _Beside(writers)

    @property
    def staged_bytes(self) -> int:
        """Raw bytes that wait to be typed."""
        return 0 if self._stage is None else self._stage.size

    def split(self, page: LandedPage, body: bytes, *, known: Sequence[Any] | None, is_whole: bool) -> Sequence[Any]:
        """A page's raw records.

        Args:
            known: those of the page's own list, where somebody has split it.
        """
        listed = listed_for(self.spec, page) if is_whole else None
        if listed is not None and known is not None:
            return known
        return raw_records(body, self.spec.records, union=self.spec.union_records, listed=listed)

    def add(self, page: LandedPage, records: Sequence[Any], days: Sequence[date], *, is_whole: bool) -> None:
        """Stage a page's records."""
        if self._stage is None:
            # Two in turn: one is filled while the other is typed.
            folder = self._scratch / f"stage-{self._segments % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            self._stage = Stage(folder, self.spec)
            self._segments += 1
        self._stage.add_records(page, records, days, is_whole=is_whole)

    def flush(self) -> None:
        """Have what is staged typed and appended to the days' files as a row group each, beside what is staged next.

        Raises:
            SchemaMismatch, StorageError: as `Lake.decode`; of the segment before.
        """
        # What is staged stays this table's to close until somebody has taken it.
        self._typing.settle()
        stage, self._stage = self._stage, None
        if stage is not None:
            self._typing.begin(partial(self._type, stage))

    def settle(self) -> None:
        """Wait until everything flushed is in the days' files.

        Raises:
            SchemaMismatch, StorageError: as `Lake.decode`.
        """
        self._typing.settle()
        self._writing.settle()

    def _type(self, stage: Stage) -> None:
        with closing(stage), readable_errors(self._engine, stage, self.spec, self._site):
            stage.load(self._engine)
            if self._typed is None:
                # Kept: reading the query's text costs as much as planning it.
                self._typed = self._engine.sql(self._query, params=[self._site])
            # The segments' rows keep their order, so that the same pages are the same bytes.
            rows = self._typed.to_arrow_table()
        if stage.has_unknown_fields:
            self._engine.register("typed", rows)
            self._extra_fields |= set(extra_fields_of(self._engine, "typed"))
            self._engine.unregister("typed")
        self._schema = rows.schema
        self._writing.begin(partial(self._append, rows))

    def _append(self, rows: Any) -> None:
        for day, part in _by_day(rows):
            if day not in self._days:
                self._days[day] = _DayFile(self._scratch / f"{day}.parquet", self.spec, part)
            self._days[day].append(part)

    def publish(self, days: Sequence[date], generation: tuple[int, int, int] | None) -> list[DecodedPartition] | None:
        """Give every day its finished file by one rename each; None, and nothing changes, if a key came twice."""
        self.settle()
        if self._schema is None:
            return None
        for day in days:
            if day not in self._days:
                self._days[day] = _DayFile(self._scratch / f"{day}.parquet", self.spec, self._schema.empty_table())
        for file in self._days.values():
            file.close()
        if self._is_any_key_twice():
            return None
        passing("lake.decoded")
        return [self._publish_day(day, generation) for day in sorted(days)]

    def _is_any_key_twice(self) -> bool:
        """By hashes: a mistake costs the exact reading only. So many keys at a time that memory does not grow with the
        rows.
        """
        key = ", ".join(quoted(name) for name in self.spec.key)
        source = read_parquet([file.path for file in self._days.values()])
        passes = math.ceil(sum(file.rows for file in self._days.values()) / _KEYS_AT_ONCE)
        hashed = f"SELECT hash({key}) AS key_hash FROM {source}"
        twice = f"SELECT count(*) > count(DISTINCT key_hash) FROM ({hashed}) WHERE key_hash % {passes} = ?"
        return any(one_row(self._engine.execute(twice, [number]))[0] for number in range(passes))

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
        self._typing.close()
        self._writing.close()
        self._typed = None
        if self._stage is not None:
            self._stage.close()
        for file in self._days.values():
            file.close()
        self._engine.close()


class _Beside:
    """One step at a time, done by another thread: whoever begins them is never more than one ahead of what is done.

    Args:
        thread: does the steps, in the order they were begun.
    """

    def __init__(self, thread: Executor) -> None:
        self._thread = thread
        self._step: Future[None] | None = None

    def begin(self, step: Callable[[], None]) -> None:
        """Have it done beside the caller, who waits for the step before and is told what that one met."""
        self.settle()
        self._step = self._thread.submit(step)

    def settle(self) -> None:
        """Wait for the step that was begun, and raise what it met."""
        step, self._step = self._step, None
        if step is not None:
            step.result()

    def close(self) -> None:
        """Wait for it, whatever it met."""
        if self._step is not None:
            wait([self._step])


class _DayFile:
    """A day's Parquet file, growing by row groups.

    Args:
        like: rows of the file's schema, of which the first ones say which columns repeat their values.
    """

    def __init__(self, path: Path, spec: TableSpec, like: Any) -> None:
        from pyarrow import parquet

        self.path = path
        self.rows = self.rows_with_extra = 0
        self.oldest: Any = None
        self.newest: Any = None
        self._anchor = spec.anchor
        self._file = parquet.ParquetWriter(
            path,
            like.schema,
            compression="zstd",
            # A dictionary of values that are all different is built and thrown away.
            use_dictionary=_repeating(like),
            write_statistics=_ordered(like.schema),
        )

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


def _repeating(rows: Any) -> list[str]:
    """Parquet paths of the columns and lists whose first values repeat."""
    from pyarrow import ExtensionType, compute, types

    found = []
    for name, column in zip(rows.schema.names, rows.slice(0, _SAMPLED_ROWS).columns, strict=True):
        is_list = types.is_list(column.type)
        values = compute.list_flatten(column) if is_list else column
        if types.is_nested(values.type) or isinstance(values.type, ExtensionType):
            continue
        if len(values) >= 2 * compute.count_distinct(values).as_py():
            found.append(f"{name}.list.element" if is_list else name)
    return found


def _ordered(schema: Any) -> list[str]:
    """Columns of which the least and the greatest of a row group are worth knowing: of ids and addresses in the order
    they were landed they say nothing, and comparing texts is a fifth of the writing.
    """
    from pyarrow import types

    return [field.name for field in schema if types.is_primitive(field.type)]


def _by_day(rows: Any) -> Iterator[tuple[date, Any]]:
    from pyarrow import compute

    days = [day for day in compute.unique(rows["_day"]).to_pylist() if day is not None]
    for day in days:
        yield day, rows if len(days) == 1 else rows.filter(compute.equal(rows["_day"], day))
