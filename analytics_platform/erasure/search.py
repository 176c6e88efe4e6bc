"""Looking for a person in every byte and every decoded value below a home, and scrubbing what only mentions them.

Belongs here: the deep search before and after an erasure; masking a mention in text logs and SQLite files. Does not
belong here: removing a person's rows (`steps`), whose keys they are (`person`), any vendor's name.

Every file is searched raw, which finds dead bytes inside databases too. Then what a file holds compressed or encoded is
searched as well: zstd frames of landed pages, rows of Parquet and DuckDB files, rows of SQLite files. Values that are
only digits, or very short, would be found everywhere: they are looked for as whole cells of columns that hold ids.
A result names files and numbers, never a value.
"""

from __future__ import annotations

import mmap
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import duckdb
import msgspec
import zstandard

from analytics_platform.core.durable import write_file
from analytics_platform.core.lake import connect
from analytics_platform.core.tombstones import Key, any_case

__all__ = ["Hit", "Needles", "by_store", "scrub", "search_home"]

_SHORTEST_TEXT: Final = 6
_ID_COLUMN: Final = re.compile(r"(?i)(^|_)(id|uid|sid|key|code|value|name|walker)$")
_SQLITE: Final = b"SQLite format 3\x00"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_SCRUBBED_STORES: Final = ("dagster", "dbt", "logs", "state")
_TEXT_SUFFIXES: Final = (".log", ".out", ".err", ".txt", ".json", ".jsonl", ".csv", ".sql", ".complete", "")
_ERASED: Final = b"[erased]"
_LEFT: Final = rb"(?:(?<![0-9a-z])|(?<=%[0-9a-f]{2})|(?<=\\[nrt]))"
_RIGHT: Final = rb"(?![0-9a-z])"
_BLOCK_BYTES: Final = 16 << 20
_FILES_AT_ONCE: Final = 200
_FILE_COLUMN: Final = "searched_file"


@dataclass(frozen=True, kw_only=True)
class Hit:
    """The person in one file: how it was read, and how many places or rows. The path is relative to the home."""

    path: str
    how: str
    count: int


class Needles:
    """What is searched for."""

    def __init__(self, keys: Iterable[Key]) -> None:
        values = {key.value for key in keys}
        self.numbers = sorted(value for value in values if value.isdigit() or len(value) < _SHORTEST_TEXT)
        texts = sorted(values - set(self.numbers))
        spelled = sorted({text for value in texts for text in any_case(value)}, key=len, reverse=True)
        self.is_empty = not values
        joined = b"|".join(text.encode("utf-8", "surrogatepass") for text in spelled)
        self.pattern = re.compile(_LEFT + b"(?:" + joined + b")" + _RIGHT, re.IGNORECASE) if spelled else None
        self.packed_pattern = re.compile(joined, re.IGNORECASE) if spelled else None
        # Neither edges nor case: a tenth of the time of `pattern`, in content that is lower case already.
        self._quick_pattern = re.compile(joined) if spelled else None
        self._overlap = max((len(text.encode("utf-8", "surrogatepass")) for text in spelled), default=1) - 1
        # DuckDB's expressions have no look-around: it pre-selects, `pattern` decides.
        self.engine_pattern = "|".join(spelled) if spelled else None

    def count(self, content: Any, *, packed: bool = False) -> int:
        """How often one of the values stands in bytes (also a memory map), by itself or, `packed`, in the middle."""
        pattern = self.packed_pattern if packed else self.pattern
        return sum(1 for _ in pattern.finditer(content)) if pattern and self.may_be_in(content) else 0

    def may_be_in(self, content: Any) -> bool:
        """Whether one of the values stands in bytes (also a memory map), edges aside: False is certain."""
        if self._quick_pattern is None:
            return False
        if isinstance(content, bytes):
            return self._quick_pattern.search(content.lower()) is not None
        return any(
            self._quick_pattern.search(content[start : start + _BLOCK_BYTES + self._overlap].lower())
            for start in range(0, len(content), _BLOCK_BYTES)
        )

    def is_in_json(self, content: bytes) -> bool:
        """Whether one of the values stands in a JSON document, numbers as whole values."""
        if self.count(content):
            return True
        try:
            return any(text in self.numbers for text in _scalars(msgspec.json.decode(content)))
        except msgspec.DecodeError:
            return False


def _scalars(content: object) -> Iterator[str]:
    """Every text and number of a JSON value, and the names of its members."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str | int):
            yield str(value)


def search_home(root: Path, keys: Iterable[Key], *, without: Iterable[Path] = ()) -> list[Hit]:
    """Every place below the home where one of the keys stands, sorted by file.

    Args:
        without: files not to look into (the request, which holds the keys until the end).
    """
    needles = Needles(keys)
    if needles.is_empty:
        return []
    left_out = {path.resolve() for path in without}
    paths = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink()]
    hits: list[Hit] = []
    with closing(connect()) as engine:
        empty = _without_rows(engine, [path for path in paths if path.suffix == ".parquet"], needles)
        for path in paths:
            if path.resolve() not in left_out:
                found = Counter(dict(_search_file(path, needles, engine, has_rows=path not in empty)))
                name = str(path.relative_to(root))
                hits += [Hit(path=name, how=how, count=count) for how, count in sorted(found.items()) if count]
    return hits


def _without_rows(engine: duckdb.DuckDBPyConnection, paths: Sequence[Path], needles: Needles) -> set[Path]:
    """Parquet files no row of which holds a value, many files of a table in one statement: a statement costs more than
    a small file. Files that cannot be read together are left to be read one by one.
    """
    clean: set[Path] = set()
    for _, group in groupby(paths, key=lambda path: path.parent.parent):
        of_table = list(group)
        for start in range(0, len(of_table), _FILES_AT_ONCE):
            files = of_table[start : start + _FILES_AT_ONCE]
            listed = ", ".join(f"'{_escaped(path)}'" for path in files)
            options = f"hive_partitioning = false, union_by_name = true, filename = '{_FILE_COLUMN}'"
            source = f"read_parquet([{listed}], {options})"
            try:
                found = _files_with(engine, source, needles)
            except duckdb.Error:
                continue
            clean |= {path for path in files if str(path) not in found}
    return clean


def _files_with(engine: duckdb.DuckDBPyConnection, source: str, needles: Needles) -> set[str]:
    columns = [row[0] for row in engine.execute(f"DESCRIBE FROM {source}").fetchall() if row[0] != _FILE_COLUMN]
    tests: list[str] = []
    values: list[Any] = []
    if needles.engine_pattern is not None:
        record = f"struct_pack(*COLUMNS(* EXCLUDE {_FILE_COLUMN}))"
        tests.append(f"regexp_matches(lower(CAST({record} AS VARCHAR)), ?)")
        values.append(needles.engine_pattern)
    if needles.numbers:
        ids = [name for name in columns if _ID_COLUMN.search(name)]
        tests += [f"list_contains(?, CAST({_name(name)} AS VARCHAR))" for name in ids]
        values += [needles.numbers] * len(ids)
    if not tests:
        return set()
    wanted = f"SELECT DISTINCT {_FILE_COLUMN} FROM {source} WHERE {' OR '.join(tests)}"
    return {str(row[0]) for row in engine.execute(wanted, values).fetchall()}


def by_store(hits: Iterable[Hit]) -> dict[str, int]:
    """Number of files with a hit by the folder of the home they are in."""
    files = {hit.path for hit in hits}
    return dict(sorted(Counter(path.split("/", 1)[0] for path in files).items()))


def _search_file(
    path: Path, needles: Needles, engine: duckdb.DuckDBPyConnection, *, has_rows: bool
) -> Iterator[tuple[str, int]]:
    try:
        if path.stat().st_size == 0:
            return
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            magic = content[:16]
            is_database = magic.startswith(b"PAR1") or magic[8:12] == b"DUCK" or magic == _SQLITE
            in_bytes = needles.count(content, packed=is_database)
    except FileNotFoundError:
        return  # a log or shard that its owner removed meanwhile
    try:
        if is_database:
            in_rows, near = _in_rows(engine, path, magic, needles) if has_rows else (0, 0)
            yield "rows", in_rows
            # Packed strings have no edges: shop-12 is in the bytes of shop-123. A row that explains it is the reason.
            yield "bytes", 0 if near and not in_rows else in_bytes
            return
        yield "bytes", in_bytes
        if magic.startswith(_ZSTD):
            yield "pages", _in_frames(path, needles)
    except (duckdb.Error, sqlite3.Error, zstandard.ZstdError):
        # Not knowing is not the same as not finding.
        yield "could not be read", 1


def _in_rows(engine: duckdb.DuckDBPyConnection, path: Path, magic: bytes, needles: Needles) -> tuple[int, int]:
    """Rows with one of the values, and rows with one of them as part of a longer one."""
    if magic == _SQLITE:
        return _in_sqlite(path, needles)
    if magic.startswith(b"PAR1"):
        return _in_relation(engine, f"read_parquet('{_escaped(path)}', hive_partitioning = false)", needles)
    return _in_database(engine, path, needles)


def _in_frames(path: Path, needles: Needles) -> int:
    found = 0
    content = path.read_bytes()
    position = 0
    while position < len(content):
        inflater = zstandard.ZstdDecompressor().decompressobj()
        try:
            body = inflater.decompress(content[position:])
        except zstandard.ZstdError:
            break  # a torn tail: its bytes were searched raw, and nobody can inflate them
        used = len(content) - position - len(inflater.unused_data)
        if used <= 0 or not inflater.eof:
            break
        position += used
        found += needles.count(body)
    return found


def _in_database(engine: duckdb.DuckDBPyConnection, path: Path, needles: Needles) -> tuple[int, int]:
    engine.execute(f"ATTACH '{_escaped(path)}' AS searched (READ_ONLY)")
    try:
        tables = engine.execute(
            "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'searched'"
        ).fetchall()
        found = [_in_relation(engine, f'searched."{schema}"."{table}"', needles) for schema, table in tables]
        return sum(exact for exact, _ in found), sum(near for _, near in found)
    finally:
        engine.execute("DETACH searched")


def _in_relation(engine: duckdb.DuckDBPyConnection, relation: str, needles: Needles) -> tuple[int, int]:
    """Rows of a relation with one of the values in any cell; rows with one as part of a longer value."""
    columns = [row[0] for row in engine.execute(f"DESCRIBE FROM {relation}").fetchall()]
    found = near = 0
    if needles.engine_pattern is not None:
        rows = engine.execute(
            f"SELECT t FROM (SELECT lower(CAST(r AS VARCHAR)) AS t FROM {relation} AS r) WHERE regexp_matches(t, ?)",
            [needles.engine_pattern],
        ).fetchall()
        found = sum(1 for (text,) in rows if needles.count(text.encode("utf-8", "surrogatepass")))
        near = len(rows) - found
    ids = [name for name in columns if _ID_COLUMN.search(name)]
    if needles.numbers and ids:
        test = " OR ".join(
            f"list_contains(?, CAST({chr(34)}{name.replace(chr(34), chr(34) * 2)}{chr(34)} AS VARCHAR))" for name in ids
        )
        row = engine.execute(f"SELECT count(*) FROM {relation} WHERE {test}", [needles.numbers] * len(ids)).fetchone()
        found += int(row[0]) if row is not None else 0
    return found, near


def _in_sqlite(path: Path, needles: Needles) -> tuple[int, int]:
    try:
        # Immutable: reading leaves no -shm beside the file. What is still in its -wal is searched as a file of its own.
        return _in_sqlite_rows(f"file:{quote(str(path))}?immutable=1", needles)
    except sqlite3.DatabaseError:
        return _in_sqlite_rows(f"file:{quote(str(path))}?mode=ro", needles)  # somebody wrote to it meanwhile


def _in_sqlite_rows(uri: str, needles: Needles) -> tuple[int, int]:
    found = near = 0
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        for table, columns in _sqlite_tables(connection):
            for row in connection.execute(f"SELECT {', '.join(map(_name, columns))} FROM {_name(table)}"):
                cells = [content for value in row if (content := _as_bytes(value))]
                if not needles.may_be_in(b"\0".join(cells)):
                    continue
                exact = any(needles.count(content) for content in cells)
                found += exact
                near += not exact and any(needles.count(content, packed=True) for content in cells)
    return found, near


def _sqlite_tables(connection: sqlite3.Connection) -> list[tuple[str, list[str]]]:
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    return [
        (table, [row[1] for row in connection.execute(f"PRAGMA table_info({_name(table)})")])
        for (table,) in names.fetchall()
    ]


def _as_bytes(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return value if isinstance(value, bytes) else b""


def _name(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def _escaped(path: Path) -> str:
    return str(path).replace("'", "''")


# ------------------------------------------------------------------------------------------------------------ scrubbing


def scrub(root: Path, keys: Iterable[Key]) -> dict[str, int]:
    """Mask mentions of the person in logs and in Dagster's and our own SQLite files; mentions by store.

    These stores should hold none: previews and messages are masked as they are made. What is found is a line of a
    preview (its row goes) or a value (it becomes `[erased]`). A changed SQLite file is vacuumed, so that no dead byte
    stays.
    """
    needles = Needles(keys)
    scrubbed: Counter[str] = Counter()
    if needles.is_empty:
        return {}
    for store in _SCRUBBED_STORES:
        for path in sorted((root / store).rglob("*")):
            if not path.is_file() or path.is_symlink() or path.stat().st_size == 0:
                continue
            with path.open("rb") as file:
                magic = file.read(16)
            if magic == _SQLITE:
                scrubbed[store] += _scrub_sqlite(path, needles)
            elif path.suffix in _TEXT_SUFFIXES:
                scrubbed[store] += _scrub_text(path, needles)
    return {store: count for store, count in scrubbed.items() if count}


def _masked(content: bytes, needles: Needles) -> tuple[bytes, int]:
    mentions = 0
    for number in needles.numbers:
        if len(number) >= _SHORTEST_TEXT and number.encode() in content:
            content, lines = re.subn(
                rb"\\n\|(?:(?!\\n)[^\"])*\| %b \|(?:(?!\\n)[^\"])*" % number.encode(), b"", content
            )
            mentions += lines
    if needles.pattern is not None and needles.count(content):
        spelled = needles.pattern.pattern
        content, lines = re.subn(rb"(?i)\\n\|(?:(?!\\n)[^\"])*?" + spelled + rb"(?:(?!\\n)[^\"])*", b"", content)
        content, values = needles.pattern.subn(_ERASED, content)
        mentions += lines + values
    return content, mentions


def _scrub_text(path: Path, needles: Needles) -> int:
    content, mentions = _masked(path.read_bytes(), needles)
    if mentions:
        write_file(path, content)
    return mentions


def _scrub_sqlite(path: Path, needles: Needles) -> int:
    mentions = 0
    with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("BEGIN IMMEDIATE")
        for table, columns in _sqlite_tables(connection):
            for column in columns:
                mentions += _scrub_column(connection, table, column, needles)
        connection.execute("COMMIT")
        if mentions or needles.count(path.read_bytes()):
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return mentions


def _scrub_column(connection: sqlite3.Connection, table: str, column: str, needles: Needles) -> int:
    mentions = 0
    named = f"{_name(table)}", f"{_name(column)}"
    rows = connection.execute(f"SELECT rowid, {named[1]} FROM {named[0]} WHERE typeof({named[1]}) IN ('text', 'blob')")
    for rowid, value in rows.fetchall():
        content, here = _masked(_as_bytes(value), needles)
        if here:
            kept: object = content.decode("utf-8", "surrogatepass") if isinstance(value, str) else content
            connection.execute(f"UPDATE {named[0]} SET {named[1]} = ? WHERE rowid = ?", [kept, rowid])
            mentions += here
    return mentions
