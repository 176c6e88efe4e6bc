"""Publishing: after a green build, an immutable snapshot of the marts, and one atomic pointer to the newest.

Belongs here: making a version, the pointer, which builds a version contains, whether the marts are behind the lake.
Does not belong here: building the marts (`assets`), reading a version (`catalog`), Dagster.

    published/current                     JSON: version, path, published_at, the builds it contains, row counts
    published/v=<n>/analytics.duckdb      marts as tables, read-only; schema _platform says what they are
    published/v=<n>/<relation>/…parquet   the same rows as Parquet, by month where the relation has a day
    published/v=<n>/restricted/           relations of other schemas than main, a file each, for the owner only

A version is built beside the others under a name nobody reads, synced, renamed, and only then pointed at: killed
anywhere, the old pointer and everything it points to are untouched, and the next publish sweeps up. The last three
versions are kept.

Rows are copied into a new file, never vacuumed in place: only a new file is free of the bytes of erased rows
(RELIABILITY M17). Staging is not copied: its views read the whole lake, so that copying them at each publish would
cost all of history each time. Their SQL goes along in `_platform.relations`, and the catalog runs it over the
partitions a reader asks for.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb
from filelock import FileLock

from analytics_platform.core.durable import fsync_directory, fsync_file, storage_errors, write_file
from analytics_platform.core.errors import DataError
from analytics_platform.core.failpoints import passing
from analytics_platform.settings import Home, Settings
from analytics_platform.transform.warehouse import (
    MAIN_SCHEMA,
    STORAGE_VERSION,
    literal,
    quote,
    rows,
    warehouse_connection,
)

if TYPE_CHECKING:
    from analytics_platform.transform.translator import Manifest

__all__ = [
    "LAKE_ROOT",
    "Build",
    "Publication",
    "current",
    "inputs_digest",
    "lake_written_since",
    "marts_are_current",
    "open_version",
    "publish",
    "published_version",
    "record_build",
]

KEPT_VERSIONS: Final = 3
LAKE_ROOT: Final = "{lake}"
"""Stands for the lake's root in the SQL of staging views: a home may be moved."""

_CLOCK_SLACK_SECONDS: Final = 0.05  # file times come from a coarser clock than time.time()
_DAY_MARGIN: Final = timedelta(days=1)  # a site's local day touches its UTC neighbours
_DATABASE: Final = "analytics.duckdb"
_RESTRICTED: Final = "restricted"


@dataclass(frozen=True, kw_only=True)
class Build:
    """One green dbt build: inclusive local days, and when it began to read the lake (aware UTC)."""

    first_day: date
    last_day: date
    started_at: datetime
    inputs: str

    def covers(self, day: date) -> bool:
        return self.first_day <= day <= self.last_day

    def as_json(self) -> dict[str, str]:
        return {
            "first_day": str(self.first_day),
            "last_day": str(self.last_day),
            "started_at": self.started_at.isoformat(),
            "inputs": self.inputs,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, str]) -> Build:
        return cls(
            first_day=date.fromisoformat(found["first_day"]),
            last_day=date.fromisoformat(found["last_day"]),
            started_at=datetime.fromisoformat(found["started_at"]),
            inputs=found["inputs"],
        )


@dataclass(frozen=True, kw_only=True)
class Publication:
    """One published version. Sizes in bytes, `published_at` aware UTC."""

    version: int
    path: Path
    published_at: datetime
    row_counts: Mapping[str, int]
    builds: tuple[Build, ...] = ()
    size: int = 0
    seconds: float = field(default=0.0, compare=False)

    @property
    def database(self) -> Path:
        return self.path / _DATABASE

    def restricted_database(self, schema: str) -> Path:
        """The file of a schema that is not read like the others."""
        return self.path / _RESTRICTED / f"{schema}.duckdb"

    @property
    def first_day(self) -> date | None:
        return min((build.first_day for build in self.builds), default=None)

    @property
    def last_day(self) -> date | None:
        return max((build.last_day for build in self.builds), default=None)

    def as_json(self) -> bytes:
        content = {
            "version": self.version,
            "path": self.path.name,
            "published_at": self.published_at.isoformat(),
            "window": [str(self.first_day), str(self.last_day)] if self.builds else None,
            "builds": [build.as_json() for build in self.builds],
            "row_counts": dict(self.row_counts),
            "size_bytes": self.size,
        }
        return json.dumps(content, indent=1).encode()


# ---------------------------------------------------------------------------------------------------------- reading


def current(home: Home) -> Publication | None:
    """What the pointer points to, None where nothing was published yet."""
    try:
        found = json.loads((home.published / "current").read_bytes())
    except FileNotFoundError:
        return None
    return _from_json(home, found)


def open_version(home: Home, version: int) -> Publication | None:
    """A kept version by number."""
    try:
        found = json.loads((home.published / f"v={version}" / "version.json").read_bytes())
    except FileNotFoundError:
        return None
    return _from_json(home, found)


def versions(home: Home) -> list[int]:
    """Numbers of the versions on disk up to the published one, ascending."""
    newest = current(home)
    found = [number for number in _version_folders(home.published) if newest is not None and number <= newest.version]
    return sorted(found)


def published_version(settings: Settings) -> int | None:
    """Number of the newest published version."""
    newest = current(settings.home)
    return None if newest is None else newest.version


def _from_json(home: Home, found: Mapping[str, Any]) -> Publication:
    return Publication(
        version=int(found["version"]),
        path=home.published / str(found["path"]),
        published_at=datetime.fromisoformat(found["published_at"]),
        row_counts=found["row_counts"],
        builds=tuple(Build.from_json(build) for build in found["builds"]),
        size=int(found["size_bytes"]),
    )


def _version_folders(published: Path) -> dict[int, Path]:
    return {
        int(path.name.removeprefix("v=")): path
        for path in published.glob("v=*")
        if path.name.removeprefix("v=").isdecimal() and path.is_dir()
    }


# --------------------------------------------------------------------------------------------------------- currentness


def inputs_digest(settings: Settings) -> str:
    """Digest of what the marts depend on besides the lake: the dbt project and the configured sites."""
    from analytics_platform.transform.project import project_digest

    sites = json.dumps([site.model_dump(mode="json") for site in settings.sites], sort_keys=True)
    return hashlib.sha256(f"{project_digest()} {sites}".encode()).hexdigest()[:16]


def record_build(settings: Settings, build: Build) -> None:
    """Note a green build of all marts inside the warehouse itself: where the file goes, the note goes."""
    with storage_errors("Recording the build"), warehouse_connection(settings) as connection:
        connection.execute(
            "CREATE SCHEMA IF NOT EXISTS _platform; CREATE TABLE IF NOT EXISTS _platform.builds "
            "(first_day DATE, last_day DATE, started_at TIMESTAMP, inputs VARCHAR)"
        )
        connection.execute("BEGIN")
        # A build inside the window of a newer one says nothing any more.
        connection.execute(
            "DELETE FROM _platform.builds WHERE first_day >= ? AND last_day <= ?", [build.first_day, build.last_day]
        )
        started = build.started_at.astimezone(UTC).replace(tzinfo=None)
        connection.execute(
            "INSERT INTO _platform.builds VALUES (?, ?, ?, ?)", [build.first_day, build.last_day, started, build.inputs]
        )
        connection.execute("COMMIT")


def _recorded_builds(connection: duckdb.DuckDBPyConnection) -> tuple[Build, ...]:
    try:
        found = rows(
            connection, "SELECT first_day, last_day, started_at, inputs FROM _platform.builds ORDER BY started_at"
        )
    except duckdb.CatalogException:
        return ()
    return tuple(
        Build(first_day=first, last_day=last, started_at=at.replace(tzinfo=UTC), inputs=inputs)
        for first, last, at, inputs in found
    )


def marts_are_current(settings: Settings, first_day: date, last_day: date) -> bool:
    """True when the newest published version was built, for every day of the range, after everything it would read now.

    That is: each day lies in a published build of the same dbt project and sites, and no lake partition of that day
    or its neighbours, nor the list of blocked partitions, has been written (or removed) since that build began.
    """
    newest = current(settings.home)
    if newest is None or not newest.database.is_file():
        return False
    inputs = inputs_digest(settings)
    usable = [build for build in newest.builds if build.inputs == inputs]
    days = [first_day + timedelta(days=n) for n in range((last_day - first_day).days + 1)]
    built_at = {day: max((b.started_at.timestamp() for b in usable if b.covers(day)), default=0.0) for day in days}
    if not built_at or min(built_at.values()) == 0.0:
        return False
    if _modified([settings.home.lake / "_blocked" / "partitions.parquet"]) > min(built_at.values()):
        return False
    return all(_lake_written(settings.home.lake, day) <= at for day, at in built_at.items())


def lake_written_since(settings: Settings, build: Build) -> bool:
    """Whether a partition the build reads, or the list of blocked ones, was written (or removed) after it began."""
    days = [build.first_day + timedelta(days=n) for n in range((build.last_day - build.first_day).days + 1)]
    written = max(_lake_written(settings.home.lake, day) for day in days)
    blocked = _modified([settings.home.lake / "_blocked" / "partitions.parquet"])
    return max(written, blocked) > build.started_at.timestamp()


def _lake_written(lake: Path, day: date) -> float:
    """When a partition of this day or its neighbours was last written, epoch seconds."""
    near = [f"day={day + shift}" for shift in (-_DAY_MARGIN, timedelta(0), _DAY_MARGIN)]
    folders = (site / name for site in _site_folders(lake) for name in near)
    return _modified(path for folder in folders for path in (folder, folder / "part.parquet"))


def _site_folders(lake: Path) -> list[Path]:
    return [path for path in lake.glob("[!._]*/*/site=*") if path.name != "site=_anchor"]


def _modified(paths: Iterable[Path]) -> float:
    newest = 0.0
    for path in paths:
        try:
            newest = max(newest, path.stat().st_mtime + _CLOCK_SLACK_SECONDS)
        except (FileNotFoundError, NotADirectoryError):
            continue
    return newest


# ---------------------------------------------------------------------------------------------------------- publishing


def publish(settings: Settings, *, manifest: Manifest | None = None, now: datetime | None = None) -> Publication:
    """Publish the warehouse's marts as the next version and point to it.

    Args:
        manifest: which relations are marts and what they mean; the project's own by default.
        now: aware UTC instant stamped on the version.

    Raises:
        DataError: a mart of the project is not in the warehouse (it was never built).
        StorageError: no space, or another process has the warehouse.
    """
    from analytics_platform.transform.project import load_manifest
    from analytics_platform.transform.translator import Manifest

    began = time.monotonic()
    home = settings.home
    chosen = manifest or Manifest(load_manifest(settings))
    with storage_errors("Publishing"):
        home.published.mkdir(parents=True, exist_ok=True)
    with FileLock(home.published / ".lock"), storage_errors("Publishing"):
        newest = current(home)
        _sweep(home.published, newest)
        version = 1 if newest is None else newest.version + 1
        building = home.published / f".building-v={version}"
        building.mkdir()
        row_counts, builds = _fill(settings, chosen, building)
        publication = Publication(
            version=version,
            path=home.published / f"v={version}",
            published_at=now or datetime.now(UTC),
            row_counts=row_counts,
            builds=builds,
            size=_seal(building),
            seconds=time.monotonic() - began,
        )
        (building / "version.json").write_bytes(publication.as_json())
        fsync_file(building / "version.json")
        fsync_directory(building)
        passing("publish.before_rename")
        building.rename(publication.path)
        fsync_directory(home.published)
        passing("publish.before_pointer")
        write_file(home.published / "current", publication.as_json())
        passing("publish.after_pointer")
        _prune(home.published, version)
    return publication


def _fill(settings: Settings, manifest: Manifest, building: Path) -> tuple[dict[str, int], tuple[Build, ...]]:
    with warehouse_connection(settings) as connection:
        _require_marts(connection, manifest)
        database = building / _DATABASE
        restricted = building / _RESTRICTED
        # Nobody else may look into it, from the first byte on.
        restricted.mkdir(mode=0o700)
        attached = {MAIN_SCHEMA: database, **{s: restricted / f"{s}.duckdb" for s in _restricted_schemas(manifest)}}
        for schema, path in attached.items():
            name = quote(_snapshot_of(schema))
            connection.execute(f"ATTACH {literal(str(path))} AS {name} (STORAGE_VERSION {literal(STORAGE_VERSION)})")
        built = _Built(connection)
        row_counts = _copy_marts(connection, manifest, built)
        _describe(connection, manifest, settings.home.lake, row_counts, built)
        passing("publish.copied")
        builds = _recorded_builds(connection)
        for schema in attached:
            connection.execute(f"CHECKPOINT {quote(_snapshot_of(schema))}")
        for node in manifest.marts():
            if _schema(node) == MAIN_SCHEMA:
                _export(connection, node, building, built.day_column(node))
        passing("publish.exported")
        for schema in attached:
            connection.execute(f"DETACH {quote(_snapshot_of(schema))}")
    return row_counts, builds


def _schema(node: Mapping[str, Any]) -> str:
    from analytics_platform.transform.translator import schema_name

    return schema_name(node)


def _restricted_schemas(manifest: Manifest) -> list[str]:
    """Schemas whose marts get a file of their own, not among those that everybody reads."""
    return sorted({_schema(node) for node in manifest.marts()} - {MAIN_SCHEMA})


def _snapshot_of(schema: str) -> str:
    """Name under which the file of a schema is attached while it is written."""
    return "snapshot" if schema == MAIN_SCHEMA else f"snapshot_{schema}"


def _published_name(node: Mapping[str, Any]) -> str:
    return f"{quote(_snapshot_of(_schema(node)))}.main.{quote(str(node['name']))}"


def _require_marts(connection: duckdb.DuckDBPyConnection, manifest: Manifest) -> None:
    present = set(rows(connection, "SELECT schema_name, table_name FROM duckdb_tables()"))
    missing = [str(node["name"]) for node in manifest.marts() if (_schema(node), node["name"]) not in present]
    if missing:
        raise DataError(
            f"Not built yet: {', '.join(sorted(missing))}.",
            "Materialise the marts group (or `analytics-platform run`), then publish again. "
            "Readers keep the version they have.",
        )


def _copy_marts(connection: duckdb.DuckDBPyConnection, manifest: Manifest, built: _Built) -> dict[str, int]:
    counts = {}
    for node in manifest.marts():
        target = _published_name(node)
        source = f"{quote(_schema(node))}.{quote(str(node['name']))}"
        # One transaction a mart: each would sync the file, and a mart has up to 60 comments.
        connection.execute("BEGIN")
        connection.execute(f"CREATE TABLE {target} AS FROM {source} {built.order(node)}")
        connection.execute(";".join(_comments(node, target, built.columns(node))))
        connection.execute("COMMIT")
        counts[str(node["name"])] = int(rows(connection, f"SELECT count(*) FROM {target}")[0][0])
    return counts


def _comments(node: Mapping[str, Any], target: str, present: Sequence[str]) -> Iterator[str]:
    """Statements that put the descriptions of a relation and its columns into the file."""
    yield f"COMMENT ON TABLE {target} IS {literal(str(node.get('description') or ''))}"
    for column, about in node.get("columns", {}).items():
        if column in present and about.get("description"):
            yield f"COMMENT ON COLUMN {target}.{quote(column)} IS {literal(str(about['description']))}"


class _Built:
    """Columns of every relation as the warehouse has them, in order."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._columns: dict[tuple[str, str], list[str]] = {}
        for schema, table, column in rows(
            connection,
            "SELECT schema_name, table_name, column_name FROM duckdb_columns() "
            "WHERE database_name = current_database() ORDER BY schema_name, table_name, column_index",
        ):
            self._columns.setdefault((schema, table), []).append(column)

    def columns(self, node: Mapping[str, Any]) -> list[str]:
        return self._columns.get((_schema(node), str(node["name"])), [])

    def day_column(self, node: Mapping[str, Any]) -> str | None:
        from analytics_platform.transform.translator import day_column

        return day_column(self.columns(node), node)

    def order(self, node: Mapping[str, Any]) -> str:
        """Rows of one day side by side, so that a reader's date range touches few row groups."""
        keys = [name for name in (self.day_column(node), "site_key", "vendor") if name in self.columns(node)]
        return f"ORDER BY {', '.join(quote(name) for name in keys if name)}" if keys else ""


def _describe(
    connection: duckdb.DuckDBPyConnection,
    manifest: Manifest,
    lake: Path,
    row_counts: Mapping[str, int],
    built: _Built,
) -> None:
    """Schema `_platform` of the snapshot: what each relation and column means, and the SQL of the staging views."""
    from analytics_platform.transform.translator import masked_columns

    connection.execute(
        "CREATE SCHEMA snapshot._platform; CREATE TABLE snapshot._platform.relations (name VARCHAR, kind VARCHAR, "
        "description VARCHAR, day_column VARCHAR, row_count BIGINT, sql VARCHAR); "
        "CREATE TABLE snapshot._platform.columns "
        "(relation VARCHAR, position INTEGER, name VARCHAR, type VARCHAR, description VARCHAR); "
        "CREATE TABLE snapshot._platform.masked (relation VARCHAR, name VARCHAR)"
    )
    masked = [[str(node["name"]), column] for node in manifest.marts() for column in masked_columns(node)]
    _insert(connection, "snapshot._platform.masked", masked)
    relations = []
    descriptions = []
    schemas = [MAIN_SCHEMA, *_restricted_schemas(manifest)]
    for node in (*manifest.marts(), *manifest.staging()):
        name = str(node["name"])
        is_mart = name in row_counts
        sql = None if is_mart else _view_sql(connection, name, lake)
        if is_mart or sql is not None:
            about = str(node.get("description") or "")
            schema = _schema(node)
            kind = "staging" if not is_mart else "mart" if schema == MAIN_SCHEMA else schema
            relations.append([name, kind, about, built.day_column(node), row_counts.get(name), sql])
            columns = node.get("columns", {}).items()
            descriptions += [[name, column, text] for column, about in columns if (text := about.get("description"))]
    connection.execute("CREATE TEMP TABLE described (relation VARCHAR, name VARCHAR, description VARCHAR)")
    _insert(connection, "snapshot._platform.relations", relations)
    _insert(connection, "described", descriptions)
    connection.execute(
        "INSERT INTO snapshot._platform.columns "
        "SELECT c.table_name, c.column_index, c.column_name, c.data_type, d.description FROM duckdb_columns() c "
        "JOIN snapshot._platform.relations r ON r.name = c.table_name LEFT JOIN described d "
        "ON d.relation = c.table_name AND d.name = c.column_name "
        "WHERE c.database_name = current_database() AND list_contains(?, c.schema_name) "
        "ORDER BY c.table_name, c.column_index",
        [schemas],
    )


def _insert(connection: duckdb.DuckDBPyConnection, table: str, values: Sequence[Sequence[object]]) -> None:
    """All rows in one statement: one a row would be synced each."""
    if values:
        columns = [list(column) for column in zip(*values, strict=True)]
        connection.execute(f"INSERT INTO {table} SELECT {', '.join('unnest(?)' for _ in columns)}", columns)


def _view_sql(connection: duckdb.DuckDBPyConnection, name: str, lake: Path) -> str | None:
    """The SELECT of a staging view with the lake's root replaced by `LAKE_ROOT`; None where there is no such view."""
    found = rows(
        connection,
        "SELECT sql FROM duckdb_views() WHERE database_name = current_database() AND schema_name = 'main' "
        "AND view_name = ?",
        [name],
    )
    if not found:
        return None
    body = (
        re.sub(r"(?is)\A\s*create\s+(or\s+replace\s+)?view\s+.*?\s+as\s+", "", str(found[0][0]), count=1)
        .rstrip()
        .rstrip(";")
    )
    return body.replace(str(lake).replace("'", "''"), LAKE_ROOT)


def _export(connection: duckdb.DuckDBPyConnection, node: Mapping[str, Any], building: Path, day: str | None) -> None:
    """A relation as Parquet: one file a month of its day column, one file where it has none."""
    name = str(node["name"])
    folder = building / name
    folder.mkdir()
    source = _published_name(node)
    if day is None:
        _copy_parquet(connection, f"FROM {source}", folder / "part.parquet")
        return
    month_of_row = f"strftime({quote(day)}, '%Y-%m')"
    months = [month for (month,) in rows(connection, f"SELECT DISTINCT {month_of_row} AS m FROM {source} ORDER BY m")]
    # No row at all: one empty file, so that the folder always shows the schema.
    for month in months or [None]:
        test = f"{month_of_row} = {literal(month)}" if month else f"{quote(day)} IS NULL"
        target = folder / f"month={month or 'none'}"
        target.mkdir()
        _copy_parquet(connection, f"FROM {source} WHERE {test}", target / "part.parquet")


def _copy_parquet(connection: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    connection.execute(f"COPY ({query}) TO {literal(str(path))} (FORMAT parquet, COMPRESSION zstd)")


def _seal(building: Path) -> int:
    """Everything synced and read-only; the sum of the sizes."""
    size = 0
    for path in _files(building):
        size += path.stat().st_size
        path.chmod(0o400 if path.parent.name == _RESTRICTED else 0o444)
        fsync_file(path)
    for folder in sorted({path.parent for path in _files(building)}):
        fsync_directory(folder)
    return size


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _sweep(published: Path, newest: Publication | None) -> None:
    """Remove what a killed publish left: unfinished folders, and versions nobody was ever pointed to."""
    for path in published.glob(".building-*"):
        shutil.rmtree(path)
    for number, path in _version_folders(published).items():
        if newest is None or number > newest.version:
            shutil.rmtree(path)


def _prune(published: Path, newest: int) -> None:
    """Keep the newest versions. A reader that has an older file open keeps reading it."""
    folders = _version_folders(published)
    for number in sorted(folders):
        if number <= newest - KEPT_VERSIONS:
            shutil.rmtree(folders[number], ignore_errors=True)


def describe_rows(row_counts: Mapping[str, int], names: Sequence[str] = ()) -> str:
    """Row counts as a Markdown table."""
    chosen = names or sorted(row_counts)
    return "\n".join(
        ["| relation | rows |", "| --- | ---: |", *(f"| {name} | {row_counts[name]:,} |" for name in chosen)]
    )
