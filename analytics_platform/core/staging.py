"""Raw records staged for the engine: one NDJSON file of records and one of their pages, read with declared types.

Belongs here: writing and loading the two files, noticing fields nobody declared, and saying which field cannot be read.
Does not belong here: the split (`core.raw_records`), partitions (`core.lake`, `core.streamed_table`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import duckdb
import msgspec

from analytics_platform.core.engine import (
    fails,
    quoted,
    read_ndjson,
    struct_type,
)
from analytics_platform.core.errors import LandingCorrupt, SchemaMismatch, StorageError, Where
from analytics_platform.core.landing import Batch, LandedPage
from analytics_platform.core.raw_records import listed_for, raw_records
from analytics_platform.core.table_sql import (
    expressions_of,
    unreadable_columns,
)
from analytics_platform.core.tables import TableSpec

__all__ = ["Stage", "Strip", "readable_errors"]

_OWN_WORDS = re.compile(r"\berror\('((?:[^']|'')*)'\)")
Strip = Callable[[LandedPage, bytes], bytes | None]


_bytes_of: Callable[[Any], memoryview] = memoryview
_SMALL_BYTES: Final = 1024 * 1024
"""A page's records together are then as good a bound of a line as the longest of them: measuring each is not."""


class Stage:
    """The decode's two input files: raw records with their page number, and the pages' contexts.

    Files that a stage before it left in the folder are written over: making and removing as many pages of the system's
    cache costs more than filling them.
    """

    def __init__(self, folder: Path, spec: TableSpec, strip: Strip | None = None) -> None:
        self._spec = spec
        self._strip = strip
        self._records_path = folder / "records.ndjson"
        self._pages_path = folder / "pages.ndjson"
        self._pages: list[dict[str, object]] = []
        self._records = self._records_path.open("r+b" if self._records_path.exists() else "wb")
        self._known = _known_fields(tuple(spec.wire))
        self._may_have_unknown_fields = False
        self._longest = 0
        self.size = 0
        self.has_unknown_fields = False

    def close(self) -> None:
        """Flush the records to their file. Safe to call twice, also where the disk refused the first time."""
        if not self._records.closed:
            try:
                self._records.truncate()
            finally:
                self._records.close()

    def add(self, batch: Batch, days: Sequence[date]) -> None:
        for page, landed in batch.pages(self._spec.calls):
            body = landed if self._strip is None else self._strip(page, landed)
            if body is not None:
                listed = listed_for(self._spec, page) if body is landed else None
                records = raw_records(body, self._spec.records, union=self._spec.union_records, listed=listed)
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
            staged = (b"}\n" + opening).join(records)
            self._records.writelines((opening, staged, b"}\n"))
            self.size += len(opening) + len(staged) + 2
            is_small = len(staged) <= _SMALL_BYTES
            self._longest = max(self._longest, len(staged) if is_small else max(map(len, map(_bytes_of, records))))
            listed = listed_for(self._spec, page) if is_whole else None
            if listed is not None and listed.fields is not None:
                self._may_have_unknown_fields |= not self._spec.wire.keys() >= set(listed.fields)
            else:
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
        context_type = "STRUCT(" + ", ".join(f"{quoted(name)} VARCHAR" for name in context_names) + ")"
        page_columns = {
            "p": "INTEGER",
            "c": context_type,
            "days": "DATE[]",
            "landed_at": "TIMESTAMP",
            "run_id": "VARCHAR",
        }
        longest = max(map(len, lines), default=0) + 1
        pages = read_ndjson(self._pages_path, page_columns, longest_bytes=longest)
        engine.execute(f"CREATE OR REPLACE TABLE pages AS SELECT * FROM {pages}")
        if not self.size:
            record_type = struct_type(self._spec.wire)
            engine.execute(
                "CREATE OR REPLACE VIEW records AS SELECT CAST(NULL AS INTEGER) AS p, "
                f"CAST(NULL AS {record_type}) AS r, CAST(NULL AS VARCHAR) AS x WHERE false"
            )
            return
        self.has_unknown_fields = self._may_have_unknown_fields and self._find_unknown_fields(engine)
        if self.has_unknown_fields:
            self._load_with_extra(engine)
        else:
            columns = {"p": "INTEGER", "r": struct_type(self._spec.wire)}
            engine.execute(
                "CREATE OR REPLACE VIEW records AS SELECT p, r, CAST(NULL AS VARCHAR) AS x "
                f"FROM {self._read(self._records_path, columns)}"
            )

    def unreadable_fields(self, engine: duckdb.DuckDBPyConnection) -> Iterator[str]:
        """Declared fields whose type does not fit some record, by reading each on its own."""
        self.close()
        for name, type_ in self._spec.wire.items():
            source = self._read(self._records_path, {"r": struct_type({name: type_})})
            if fails(engine, f"SELECT max(hash(r)) FROM {source}"):
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
        columns = {"p": "INTEGER", "r": struct_type(self._spec.wire), "x": "JSON"}
        known = msgspec.json.encode(dict.fromkeys(self._spec.wire)).decode().replace("'", "''")
        engine.execute(
            "CREATE OR REPLACE VIEW records AS SELECT p, r, "
            f"nullif(CAST(json_merge_patch(x, '{known}') AS VARCHAR), '{{}}') AS x FROM {self._read(doubled, columns)}"
        )

    def _read(self, path: Path, columns: Mapping[str, str]) -> str:
        # A doubled line holds its record twice, and a page number.
        return read_ndjson(path, columns, longest_bytes=2 * self._longest + 1024)


@lru_cache(maxsize=128)
def _known_fields(names: tuple[str, ...]) -> msgspec.json.Decoder[Any]:
    """Refuses a list of records one of which has a field of another name (or is no object)."""
    fields = [(f"field_{number}", msgspec.Raw, msgspec.Raw()) for number in range(len(names))]
    rename = {f"field_{number}": name for number, name in enumerate(names)}
    return msgspec.json.Decoder(
        list[msgspec.defstruct("Known", fields, rename=rename, forbid_unknown_fields=True, gc=False)]  # type: ignore[misc]
    )


@contextmanager
def readable_errors(engine: duckdb.DuckDBPyConnection, stage: Stage, spec: TableSpec, site: str) -> Iterator[None]:
    """DuckDB's and msgspec's errors show the value they choked on, so none of their text is kept: the fields and
    columns at fault are found by trying each on its own.
    """
    try:
        yield
    except (duckdb.ConversionException, duckdb.InvalidInputException, duckdb.OutOfRangeException) as error:
        words = {text for sql in expressions_of(spec) for text in _OWN_WORDS.findall(sql) if text in str(error)}
        at_fault = sorted(words) or [*stage.unreadable_fields(engine)] or [*unreadable_columns(engine, spec)]
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
