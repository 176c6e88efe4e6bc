"""The notebook's door: any published relation, staging view or lake table by name, as a data frame.

Belongs here: finding the home, reading by name and dates, what there is and how fresh, read-only SQL. Does not belong
here: the live warehouse (never opened), Dagster, writing anything.

    from analytics_platform.catalog import Catalog
    catalog = Catalog.open()
    frame = catalog.read("fct_sessions", "2026-10-01", "2026-10-07", site="shop", where="page_count > 1")

Names: marts (`fct_sessions`) come from the newest published snapshot, an immutable file: a run never disturbs a
reader. Staging (`stg_smartlook__sessions`) and lake tables (`smartlook/sessions`) are read from the lake's partition
files, which are replaced whole, so they are as new as the last landed partition. Both ends of a date range are
included; None leaves an end open.

Column types never depend on the rows found: whole numbers are pandas' nullable Int64 family, truth values `boolean`,
dates and instants datetime64 (instants in UTC, without a zone), text `object`. Sensitive columns of lake tables are
masked unless asked for with `reveal=True`; so are those of relations that live in a schema of their own (`replay`),
which only the owner of the home can read, and `sql` never sees.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from analytics_platform.core.errors import ConfigurationError
from analytics_platform.settings import HOME_VARIABLE, Home
from analytics_platform.transform.publish import LAKE_ROOT, Publication, current, open_version, versions
from analytics_platform.transform.warehouse import SNAPSHOT, literal, open_reader, quote

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa

    from analytics_platform.core.tables import TableSpec
    from analytics_platform.reconcile.pictures import Picture

__all__ = ["AssetHandle", "Catalog", "Freshness", "PartitionHandle"]

Day = str | date | None
Engine = Literal["pandas", "arrow", "polars"]

_MASK: Final = "•••"
_ATTEMPTS: Final = 3  # a version or partition may be swept between finding and opening it
_ANCHOR: Final = "site=_anchor"
_TRAFFIC: Final = "fct_daily_traffic"
_BLOCKED: Final = "partition_blocked"


@dataclass(frozen=True, kw_only=True)
class Freshness:
    """How new a relation is. Instants are aware UTC.

    Args:
        updated_at: when its data was last written: the publish of a snapshot, the newest partition of a lake table.
        lag: now minus `updated_at`.
        first_date, newest_date: first and last day with rows (marts) or with a partition (lake, staging); None where
        rows have no day. days: how many days in between have rows or partitions. missing_days: days in between that
        have none. blocked_days: days between of which a failed blocking check holds a vendor's rows back: NULL with
        `partition_blocked` in marts (as of their publish), left out of staging. version: published version, None for
        lake tables.
    """

    name: str
    updated_at: datetime
    lag: timedelta
    first_date: date | None
    newest_date: date | None
    days: int
    missing_days: tuple[date, ...]
    version: int | None
    blocked_days: tuple[date, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Relation:
    """A mart or staging view of a version; `sql` is the SELECT of a view, columns are (name, type, description)."""

    kind: str
    description: str
    day: str | None
    row_count: int | None
    sql: str | None
    columns: tuple[tuple[str, str, str], ...]
    masked: frozenset[str] = frozenset()

    @property
    def is_restricted(self) -> bool:
        """Whether it lies in a file of its own, named by its kind, that only the owner may open."""
        return self.kind not in ("mart", "staging")


@dataclass(frozen=True, kw_only=True)
class _Snapshot:
    """One version and what it says about itself."""

    publication: Publication
    relations: Mapping[str, _Relation]


@dataclass(frozen=True, kw_only=True)
class _Source:
    """One readable relation: its SQL FROM, the views and files that needs, and its columns' roles."""

    name: str
    relation: str
    day: str | None
    columns: tuple[str, ...]
    snapshot: Path | None = None
    views: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

    def column_for(self, *names: str) -> str | None:
        return next((name for name in names if name in self.columns), None)


@dataclass(frozen=True, kw_only=True)
class PartitionHandle:
    """One day of an asset, of one site or all."""

    catalog: Catalog
    name: str
    day: date
    site: str | None = None

    def read(self, *, columns: Sequence[str] | None = None, engine: Engine = "pandas", reveal: bool = False) -> Any:
        """The partition's rows."""
        return self.catalog.read(
            self.name, self.day, self.day, site=self.site, columns=columns, engine=engine, reveal=reveal
        )


@dataclass(frozen=True, kw_only=True)
class AssetHandle:
    """A Dagster asset by key, for reading a partition as the UI names it."""

    catalog: Catalog
    name: str

    def partition(self, key: str | date, site: str | None = None) -> PartitionHandle:
        """A day (`2026-10-05`), or the UI's key of a vendor asset (`2026-10-05|shop`)."""
        text, _, site_of_key = str(key).partition("|")
        return PartitionHandle(
            catalog=self.catalog, name=self.name, day=_day(text, "partition"), site=site or site_of_key or None
        )

    def read(self, start: Day = None, end: Day = None, **options: Any) -> Any:
        """As `Catalog.read`."""
        return self.catalog.read(self.name, start, end, **options)


class Catalog:
    """Read access to one home. Holds no connection and no lock between calls."""

    def __init__(self, home: Home, *, version: int | None = None) -> None:
        self._home = home
        self._version = version
        self._read: _Snapshot | None = None

    @classmethod
    def open(cls, home: str | Path | None = None) -> Catalog:
        """The home given, else ANALYTICS_PLATFORM_HOME, else `./.analytics_platform`.

        Raises:
            ConfigurationError: there is no such folder.
        """
        root = Path(home or os.environ.get(HOME_VARIABLE) or ".analytics_platform").absolute()
        if not root.is_dir():
            raise ConfigurationError(
                f"There is no analytics_platform home in {root}.",
                f"Set {HOME_VARIABLE} to the data root, or pass it: Catalog.open('/path/to/home').",
            )
        return cls(Home(root=root))

    def __repr__(self) -> str:
        pinned = "newest" if self._version is None else f"version {self._version}"
        return f"Catalog({str(self._home.root)!r}, {pinned})"

    # -- reading -------------------------------------------------------------------------------------------------

    def read(
        self,
        name: str,
        start: Day = None,
        end: Day = None,
        *,
        site: str | None = None,
        vendor: str | None = None,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        engine: Engine = "pandas",
        reveal: bool = False,
    ) -> Any:
        """Rows of a relation as a pandas (or polars) DataFrame or an Arrow table.

        Args:
            name: `fct_sessions`, `stg_smartlook__sessions` or `smartlook/sessions`.
            start, end: first and last day, both included, as `YYYY-MM-DD` or date: the site's local day for marts,
            the partition day
                (see the vendor's README for whose day) for staging and lake tables.
            site, vendor: keep one site key, one vendor.
            columns: these, in this order; all by default.
            where: a SQL condition over the relation's columns, e.g. `status <> 'ok'`.
            engine: "pandas", "arrow", or "polars" where it is installed.
            reveal: show sensitive columns as they are.

        Raises:
            ConfigurationError: unknown name (with the nearest ones), column, date, condition or engine; nothing
            published yet.
        """
        first, last = _day(start, "start"), _day(end, "end")
        if first and last and last < first:
            raise ConfigurationError(f"end {last} is before start {first}.", "Give the first day, then the last.")
        convert = _converter(engine)

        def query() -> Any:
            snapshot = self._snapshot()
            source = self._source(
                snapshot, self._require(snapshot, name), site=site, first=first, last=last, reveal=reveal
            )
            sql, values = _select(source, first, last, site=site, vendor=vendor, columns=columns, where=where)
            with open_reader(source.snapshot, views=source.views, readable=source.files) as connection:
                return convert(connection, sql, values)

        return _steady(query, about=name)

    def sql(self, query: str, *, engine: Engine = "pandas") -> Any:
        """The result of one read-only SELECT over marts, staging (by name) and lake tables (as `smartlook.sessions`,
        masked).

        The engine is locked: it opens no file but what the names in the query stand for, writes nothing and fetches
        nothing.

        Raises:
            ConfigurationError: DuckDB's own words about the query.
        """
        convert = _converter(engine)

        def run() -> Any:
            snapshot = self._snapshot()
            sources = [self._source(snapshot, name) for name in self._named_in(snapshot, query)]
            database = snapshot.publication.database if snapshot else None
            views = [view for source in sources for view in source.views]
            readable = [path for source in sources for path in source.files]
            with open_reader(database, views=views, readable=readable) as connection:
                _require_one_select(connection, query)
                return convert(connection, query, [])

        return _steady(run, about="query")

    def asset(self, key: str) -> AssetHandle:
        """An asset by its Dagster key, e.g. `catalog.asset("smartlook/sessions").partition("2026-10-05",
        site="shop").read()`.
        """
        return AssetHandle(catalog=self, name=self._require(self._snapshot(), key))

    def as_of(self, version: int) -> Catalog:
        """The same home with marts of one published version; the newest three are kept.

        Raises:
            ConfigurationError: no such version (any more).
        """
        if version not in versions(self._home):
            kept = ", ".join(map(str, versions(self._home))) or "none"
            raise ConfigurationError(f"Version {version} is not kept.", f"Kept: {kept}.")
        return Catalog(self._home, version=version)

    # -- what there is -------------------------------------------------------------------------------------------

    def list(self) -> pd.DataFrame:
        """Every readable relation: name, kind (mart, staging, lake, or the schema it lives in), row_count (marts),
        day_column, description.
        """
        import pandas as pd

        snapshot = self._snapshot()
        found = [
            {"name": name, "kind": r.kind, "row_count": r.row_count, "day_column": r.day, "description": r.description}
            for name, r in (snapshot.relations.items() if snapshot else ())
        ]
        found += [
            {"name": name, "kind": "lake", "row_count": None, "day_column": "_day", "description": spec.description}
            for name, spec in self._lake_tables.items()
        ]
        frame = pd.DataFrame(found, columns=["name", "kind", "row_count", "day_column", "description"])
        return frame.astype({"row_count": "Int64"})

    def describe(self, name: str) -> pd.DataFrame:
        """A relation's columns: column, type, sensitivity (lake), description."""
        import pandas as pd

        snapshot = self._snapshot()
        canonical = self._require(snapshot, name)
        if canonical in self._lake_tables:
            spec = self._lake_tables[canonical]
            rows = [(c.name, c.type, c.sensitivity.value, c.description) for c in spec.all_columns]
        else:
            columns = _relation(snapshot, canonical).columns
            rows = [(column, type_, "", text) for column, type_, text in columns]
        return pd.DataFrame(rows, columns=["column", "type", "sensitivity", "description"])

    def definition(self, metric: str, vendor: str | None = None) -> pd.DataFrame:
        """What each vendor means by a metric, from `dim_metric_definition`."""
        frame = self.read("dim_metric_definition", vendor=vendor)
        name = next((column for column in ("metric", "metric_name") if column in frame.columns), frame.columns[0])
        chosen: pd.DataFrame = frame[frame[name] == metric].reset_index(drop=True)
        return chosen

    def plot(
        self,
        what: str,
        start: Day = None,
        end: Day = None,
        *,
        site: str,
        metric: str = "sessions",
        vendor: str | None = None,
    ) -> Picture:
        """A picture of the published marts; a notebook shows it by itself, `.save(path)` writes the PNG.

        Args:
            what: "reconciliation" (vendor lines), "waterfall", "heat_map" or "funnel".
            start, end: first and last local date, both included.
            metric: sessions, views or visitors, for the first two.
            vendor: only this one; by default the one that has most to show.

        Raises:
            ConfigurationError: no such picture, nothing to draw, or nothing published.
        """
        from analytics_platform.reconcile.pictures import Asked, draw

        first, last = _day(start, "start"), _day(end, "end")
        return draw(what, self.sql, Asked(site=site, metric=metric, vendor=vendor, first=first, last=last))

    def freshness(self, name: str) -> Freshness:
        """How new a relation is, and which days are there."""
        snapshot = self._snapshot()
        canonical = self._require(snapshot, name)
        if canonical in self._lake_tables:
            return self._lake_freshness(canonical, canonical)
        relation = _relation(snapshot, canonical)
        behind = canonical.removeprefix("stg_").replace("__", "/", 1)
        if relation.kind == "staging" and behind in self._lake_tables:
            return self._lake_freshness(canonical, behind)
        days: Sequence[date] = ()
        if relation.day is not None:
            found = self.read(canonical, columns=[relation.day], engine="arrow").column(0).unique().to_pylist()
            days = sorted(value for value in found if value is not None)
        publication = self._publication()
        blocked = self._blocked_in_marts(snapshot) if days else ()
        return _freshness(canonical, publication.published_at, days, publication.version, blocked)

    def _blocked_in_marts(self, snapshot: _Snapshot | None) -> Sequence[date]:
        if snapshot is None or _TRAFFIC not in snapshot.relations:
            return ()
        held = self.read(_TRAFFIC, columns=["stat_date"], where=f"reason_null = 'all={_BLOCKED}'", engine="arrow")
        return sorted(set(held.column(0).to_pylist()))

    def _lake_freshness(self, name: str, table: str) -> Freshness:
        files = list(self._partition_files(table))
        if not files:
            raise ConfigurationError(
                f"{name} has no partition yet.", f"Run `analytics-platform run --vendor {table.split('/')[0]}`."
            )
        days = sorted({day for _, day, _ in files})
        updated = max(path.stat().st_mtime for _, _, path in files)
        # Only this needs the lake's engine room: importing the catalog stays light.
        from analytics_platform.core.lake import Lake
        from analytics_platform.core.truths import HELD_BACK

        vendor, _, short = table.partition("/")
        blocked = {
            day
            for owner, held, _, day in Lake(self._home.lake).blocked()
            if owner == vendor and (held == short or held.startswith(HELD_BACK))
        }
        return _freshness(name, datetime.fromtimestamp(updated, UTC), days, None, sorted(blocked))

    # -- finding -------------------------------------------------------------------------------------------------

    def _publication(self) -> Publication:
        found = current(self._home) if self._version is None else open_version(self._home, self._version)
        if found is not None:
            return found
        if self._version is not None:
            raise ConfigurationError(
                f"Version {self._version} is not kept any more.", "Catalog.open() reads the newest; three are kept."
            )
        raise ConfigurationError(
            f"Nothing is published in {self._home.root} yet.",
            "Run `analytics-platform run`, or materialise `published` in Dagster.",
        )

    @cached_property
    def _lake_tables(self) -> Mapping[str, TableSpec]:
        from analytics_platform.vendors import all_tables

        return all_tables()

    def _snapshot(self) -> _Snapshot | None:
        """The version to read and its own description, None where nothing is published. A version never changes: read
        once.
        """

        def query() -> _Snapshot | None:
            publication = self._publication() if self._version is not None else current(self._home)
            if publication is None:
                return None
            if self._read is None or self._read.publication.version != publication.version:
                self._read = _load_snapshot(publication)
            return self._read

        found: _Snapshot | None = _steady(query, about="the published snapshot")
        return found

    def _require(self, snapshot: _Snapshot | None, name: str) -> str:
        """The canonical name, or ConfigurationError with the nearest names."""
        canonical = name.strip().replace(".", "/")
        if canonical in self._lake_tables or (snapshot and canonical in snapshot.relations):
            return canonical
        if snapshot is None and "/" not in canonical:
            self._publication()  # raises: nothing is published yet
        known = [*(snapshot.relations if snapshot else ()), *self._lake_tables]
        near = difflib.get_close_matches(canonical, known, n=3, cutoff=0.5)
        internal = canonical.startswith("int_")
        raise ConfigurationError(
            f"There is no relation {name!r}" + (" (intermediate models are not published)." if internal else "."),
            f"Did you mean {', '.join(near)}?" if near else "Catalog.list() shows all names.",
        )

    def _source(
        self,
        snapshot: _Snapshot | None,
        name: str,
        *,
        site: str | None = None,
        first: date | None = None,
        last: date | None = None,
        reveal: bool = False,
    ) -> _Source:
        if name in self._lake_tables:
            return self._lake_source(self._lake_tables[name], site, first, last, reveal=reveal)
        relation = _relation(snapshot, name)
        columns = tuple(column for column, _, _ in relation.columns)
        if relation.is_restricted:
            return self._restricted_source(snapshot, name, relation, reveal=reveal)
        if relation.sql is None:
            return _Source(
                name=name,
                relation=f"{SNAPSHOT}.main.{quote(name)}",
                day=relation.day,
                columns=columns,
                snapshot=self._publication().database if snapshot is None else snapshot.publication.database,
            )
        lake = str(self._home.lake).replace("'", "''")
        return _Source(
            name=name,
            relation=f"memory.main.{quote(name)}",
            day=relation.day,
            columns=columns,
            views=(f"CREATE VIEW memory.main.{quote(name)} AS {relation.sql.replace(LAKE_ROOT, lake)}",),
            files=(self._home.lake,),
        )

    def _restricted_source(
        self, snapshot: _Snapshot | None, name: str, relation: _Relation, *, reveal: bool
    ) -> _Source:
        """A relation from the file of its schema, with its masked columns masked."""
        publication = self._publication() if snapshot is None else snapshot.publication
        selected = ", ".join(
            _masked(column, type_) if column in relation.masked and not reveal else quote(column)
            for column, type_, _ in relation.columns
        )
        view = f"CREATE VIEW memory.main.{quote(name)} AS SELECT {selected} FROM {SNAPSHOT}.main.{quote(name)}"
        return _Source(
            name=name,
            relation=f"memory.main.{quote(name)}",
            day=relation.day,
            columns=tuple(column for column, _, _ in relation.columns),
            snapshot=publication.restricted_database(relation.kind),
            views=(view,),
        )

    def _lake_source(
        self, spec: TableSpec, site: str | None, first: date | None, last: date | None, *, reveal: bool
    ) -> _Source:
        """Only the files of the asked partitions, and an empty relation with the declared schema that fixes the
        types.
        """
        wanted = [
            path
            for site_key, day, path in self._partition_files(spec.qualified_name)
            if (site is None or site_key == site) and (first is None or day >= first) and (last is None or day <= last)
        ]
        shape = ", ".join(f"CAST(NULL AS {c.type}) AS {quote(c.name)}" for c in spec.all_columns)
        parts = [f"SELECT {shape} WHERE false"]
        if wanted:
            listed = ", ".join(literal(str(path)) for path in wanted)
            parts.append(f"SELECT * FROM read_parquet([{listed}], hive_partitioning = false, union_by_name = true)")
        hidden = () if reveal else spec.sensitive_columns()
        selected = ", ".join(
            _masked(c.name, c.type) if c.name in hidden else f"CAST({quote(c.name)} AS {c.type}) AS {quote(c.name)}"
            for c in spec.all_columns
        )
        relation = f"memory.{quote(spec.vendor)}.{quote(spec.name)}"
        view = f"CREATE VIEW {relation} AS SELECT {selected} FROM ({' UNION ALL BY NAME '.join(parts)})"
        return _Source(
            name=spec.qualified_name,
            relation=relation,
            day="_day",
            columns=tuple(column.name for column in spec.all_columns),
            views=(f"CREATE SCHEMA IF NOT EXISTS memory.{quote(spec.vendor)}", view),
            files=tuple(wanted),
        )

    def _partition_files(self, table: str) -> Iterator[tuple[str, date, Path]]:
        """(site, day, file) of every partition of a lake table."""
        for folder in sorted((self._home.lake / table).glob("site=*")):
            if folder.name == _ANCHOR:
                continue
            for path in sorted(folder.glob("day=*/part.parquet")):
                yield folder.name.removeprefix("site="), date.fromisoformat(path.parent.name.removeprefix("day=")), path

    def _named_in(self, snapshot: _Snapshot | None, query: str) -> Sequence[str]:
        """Staging and lake relations whose names occur in a query."""
        words = set(re.findall(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)?", query.replace('"', "")))
        relations = snapshot.relations if snapshot else {}
        staging = {name for name, relation in relations.items() if relation.sql is not None}
        lake = {name.replace("/", "."): name for name in self._lake_tables}
        return sorted((words & staging) | {lake[word] for word in words & set(lake)})


def _load_snapshot(publication: Publication) -> _Snapshot:
    with open_reader(publication.database) as connection:
        columns: dict[str, list[tuple[str, str, str]]] = {}
        for relation, *column in connection.execute(
            f"SELECT relation, name, type, coalesce(description, '') FROM {SNAPSHOT}._platform.columns "
            "ORDER BY relation, position"
        ).fetchall():
            columns.setdefault(relation, []).append((column[0], column[1], column[2]))
        found = connection.execute(
            f"SELECT name, kind, description, day_column, row_count, sql FROM {SNAPSHOT}._platform.relations "
            "ORDER BY kind, name"
        ).fetchall()
        masked: dict[str, set[str]] = {}
        # Versions published before there were masked marts do not say.
        if connection.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'masked'").fetchall()[0][0]:
            for relation, column in connection.execute(f"FROM {SNAPSHOT}._platform.masked").fetchall():
                masked.setdefault(relation, set()).add(column)
    relations = {
        name: _Relation(
            kind=kind,
            description=text,
            day=day,
            row_count=count,
            sql=sql,
            columns=tuple(columns.get(name, ())),
            masked=frozenset(masked.get(name, ())),
        )
        for name, kind, text, day, count, sql in found
    }
    return _Snapshot(publication=publication, relations=relations)


def _relation(snapshot: _Snapshot | None, name: str) -> _Relation:
    if snapshot is None:
        raise ConfigurationError(f"{name} is not published yet.", "Run `analytics-platform run`.")
    return snapshot.relations[name]


# ---------------------------------------------------------------------------------------------------------------- SQL


def _select(
    source: _Source,
    first: date | None,
    last: date | None,
    *,
    site: str | None,
    vendor: str | None,
    columns: Sequence[str] | None,
    where: str | None,
) -> tuple[str, list[object]]:
    """One SELECT; values are bound, identifiers checked and quoted, `where` is the caller's own text in a locked
    engine.
    """
    chosen = list(source.columns) if columns is None else [_column(source, name) for name in columns]
    conditions: list[str] = []
    values: list[object] = []
    for operator, bound in ((">=", first), ("<=", last)):
        if bound is not None:
            if source.day is None:
                raise ConfigurationError(f"{source.name} has no day column.", "Read it without start and end.")
            conditions.append(f"{quote(source.day)} {operator} ?")
            values.append(bound)
    for label, value, candidates in (("site", site, ("site_key", "_site")), ("vendor", vendor, ("vendor",))):
        if value is not None:
            column = source.column_for(*candidates)
            if column is None:
                raise ConfigurationError(f"{source.name} has no {label} column.", f"Read it without {label}.")
            conditions.append(f"{quote(column)} = ?")
            values.append(value)
    if where:
        conditions.append(f"({where}\n)")  # the line break ends a trailing -- comment
    listed = ", ".join(quote(name) for name in chosen)
    filters = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"SELECT {listed} FROM {source.relation}{filters}", values


def _column(source: _Source, name: str) -> str:
    if name in source.columns:
        return name
    near = difflib.get_close_matches(name, source.columns, n=3, cutoff=0.5) or list(source.columns)[:8]
    raise ConfigurationError(f"{source.name} has no column {name!r}.", f"Nearest: {', '.join(near)}.")


def _masked(name: str, type_: str) -> str:
    """A sensitive column that shows only whether there is a value; text keeps its type, anything else becomes NULL."""
    value = f"CASE WHEN {quote(name)} IS NULL THEN NULL ELSE {literal(_MASK)} END" if type_ == "VARCHAR" else "NULL"
    return f"CAST({value} AS {type_}) AS {quote(name)}"


def _require_one_select(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    import duckdb

    statements = connection.extract_statements(query)
    allowed = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
    if len(statements) != 1 or statements[0].type not in allowed:
        raise ConfigurationError(
            "Give one SELECT statement.", "What is published is read-only; models are built by dbt."
        )


def _steady(query: Callable[[], Any], *, about: str) -> Any:
    """Run a read; once more from the pointer when a file was swept in between. DuckDB's complaints become ours."""
    import duckdb

    from analytics_platform.core.engine import was_replaced

    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return query()
        except (duckdb.Error, FileNotFoundError) as error:
            moved = was_replaced(error)
            if moved and attempt < _ATTEMPTS:
                continue
            if moved:
                raise ConfigurationError(
                    f"{about} cannot be read: {str(error).splitlines()[0]}", "See `analytics-platform doctor`."
                ) from None
            words = " ".join(str(error).split("\n\n")[0].split())
            raise ConfigurationError(f"{about}: {words}", "Catalog.describe(name) shows the columns.") from None
    raise AssertionError("unreachable")


# ------------------------------------------------------------------------------------------------------------- frames


def _converter(engine: str) -> Callable[[duckdb.DuckDBPyConnection, str, list[object]], Any]:
    if engine == "arrow":
        return _arrow
    if engine == "pandas":
        return lambda connection, sql, values: _pandas(_arrow(connection, sql, values))
    if engine == "polars":
        if importlib.util.find_spec("polars") is None:
            raise ConfigurationError(
                "polars is not installed.", "Install it in this environment, or use engine='pandas'."
            )
        return lambda connection, sql, values: importlib.import_module("polars").from_arrow(
            _arrow(connection, sql, values)
        )
    raise ConfigurationError(f"There is no engine {engine!r}.", "Use pandas, arrow or polars.")


def _arrow(connection: duckdb.DuckDBPyConnection, sql: str, values: list[object]) -> pa.Table:
    """The result with plain number types: sums come from DuckDB as 128-bit integers, which no frame library knows."""
    import pyarrow as pa

    table = connection.sql(sql, params=values).to_arrow_table()
    for index, column in enumerate(table.schema):
        if pa.types.is_decimal(column.type):
            target = pa.int64() if column.type.scale == 0 else pa.float64()
            table = table.set_column(index, column.name, table.column(index).cast(target))
    return table


def _pandas(table: pa.Table) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa

    nullable = {
        pa.int8(): pd.Int8Dtype(),
        pa.int16(): pd.Int16Dtype(),
        pa.int32(): pd.Int32Dtype(),
        pa.int64(): pd.Int64Dtype(),
        pa.uint8(): pd.UInt8Dtype(),
        pa.uint16(): pd.UInt16Dtype(),
        pa.uint32(): pd.UInt32Dtype(),
        pa.uint64(): pd.UInt64Dtype(),
        pa.bool_(): pd.BooleanDtype(),
    }
    frame: pd.DataFrame = table.to_pandas(types_mapper=nullable.get, date_as_object=False)
    return frame


def _day(value: Day, label: str) -> Any:
    """A date from `YYYY-MM-DD`, a date or a datetime (its day)."""
    if value is None or (isinstance(value, date) and not isinstance(value, datetime)):
        return value
    if isinstance(value, datetime):
        return value.date()
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        raise ConfigurationError(
            f"{label} {value!r} is not a day.", "Write it as YYYY-MM-DD, e.g. 2026-10-05."
        ) from None


def _freshness(
    name: str, updated_at: datetime, days: Sequence[date], version: int | None, blocked: Sequence[date]
) -> Freshness:
    present = set(days)
    span = (days[-1] - days[0]).days if days else -1
    missing = tuple(day for n in range(span + 1) if (day := days[0] + timedelta(days=n)) not in present)
    return Freshness(
        name=name,
        updated_at=updated_at,
        lag=datetime.now(UTC) - updated_at,
        first_date=days[0] if days else None,
        newest_date=days[-1] if days else None,
        days=len(present),
        missing_days=missing,
        version=version,
        blocked_days=tuple(day for day in blocked if days and days[0] <= day <= days[-1]),
    )
