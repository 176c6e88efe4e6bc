"""A lake of any size in the real layout: the sandbox's own lake, multiplied by DuckDB.

Belongs here: taking the rows of a demo home (28 days, every vendor and table) and repeating them over two years of days
and any number of visitors. Does not belong here: building anything from the lake.

Every table keeps its columns, types and joint distributions: what the sandbox says of one visit in three vendors' words
stays one visit. A date D takes the rows of the seed date of the same weekday and place in the 28 days; of each row
there are as many copies as the size asks for, and the rest is drawn by minute of the day. A copy has ids of its own
and lies at another time of the same UTC day; a visitor's ids are those of a stretch of 28 days, so visitors return
within one and new ones come with the next. Counts of aggregates grow by the same factor,
lifetime counters by the seed's mean a date.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import duckdb

from analytics_platform.core.lake import ANCHOR_DAY, ANCHOR_SITE, connect
from analytics_platform.core.tables import TableSpec
from analytics_platform.vendors import all_tables

__all__ = ["RECENT_DAYS", "SESSION_TABLES", "SyntheticLake"]

RECENT_DAYS: Final = 112
"""More than any build of one day looks back: four times the 28 days of the seed."""

SESSION_TABLES: Final = ("smartlook/sessions", "inspectlet/sessions", "kameleoon/visits")
"""The tables with one row a session: their rows together are what `sessions` counts."""

_CYCLE_DAYS: Final = 28
_DRAWS: Final = 10_000

_STARTS: Final[Mapping[str, str]] = {
    "smartlook/sessions": "t.started_at",
    "smartlook/visitors": "t.first_seen_at",
    "smartlook/events": "coalesce(s.started_at, t.started_at)",
    "inspectlet/sessions": "t.started_at",
    "inspectlet/session_pages": "t.session_started_at",
    "inspectlet/session_tags": "t.session_started_at",
    "kameleoon/visits": "t.started_at",
    "kameleoon/visit_pages": "t.visit_started_at",
    "kameleoon/exposures": "t.visit_started_at",
    "kameleoon/conversions": "t.visit_started_at",
}
"""Tables whose rows are copied, with the start of the visit a row belongs to: it says how far all its times move."""

_JOINS: Final[Mapping[str, str]] = {"smartlook/events": "LEFT JOIN starts AS s USING (_site, session_id)"}


def _of_visit(column: str, length: int = 24) -> str:
    return f"CASE WHEN t.{column} IS NOT NULL THEN left(md5(concat_ws('|', t.{column}, d.k, x.r)), {length}) END"


def _of_visitor(column: str, length: int = 24) -> str:
    return f"CASE WHEN t.{column} IS NOT NULL THEN left(md5(concat_ws('|', t.{column}, d.cycle, x.r)), {length}) END"


def _number(column: str, scope: str) -> str:
    return (
        f"CASE WHEN t.{column} IS NOT NULL THEN CAST(hash(t.{column}, d.{scope}, x.r) % 9007199254740991 AS BIGINT) END"
    )


_CODE: Final = _of_visitor("visitor_code", 16)
_TOLD_CODE: Final = _of_visitor("kameleoon_visitor_code", 16)
_INSPECTLET_IDS: Final = {"sid": _number("sid", "k"), "rid": _number("rid", "k"), "uid": _number("uid", "cycle")}

_IDS: Final[Mapping[str, Mapping[str, str]]] = {
    "smartlook/sessions": {
        "session_id": _of_visit("session_id"),
        "visitor_id": _of_visitor("visitor_id"),
        "uid": _of_visitor("uid"),
        "kameleoon_visitor_code": _TOLD_CODE,
        "dashboard_url": f"regexp_replace(t.dashboard_url, '[^/]*$', '') || {_of_visit('session_id')}",
    },
    "smartlook/visitors": {
        "visitor_id": _of_visitor("visitor_id"),
        "uid": _of_visitor("uid"),
        "kameleoon_visitor_code": _TOLD_CODE,
    },
    "smartlook/events": {
        "event_id": _of_visit("event_id"),
        "session_id": _of_visit("session_id"),
        "visitor_id": _of_visitor("visitor_id"),
    },
    "inspectlet/sessions": {
        **{name: _INSPECTLET_IDS[name] for name in ("sid", "uid")},
        "session_link": (
            "'http://www.inspectlet.com/dashboard/watchsession/' || t.wid || '/' || "
            f"{_INSPECTLET_IDS['sid']} || '?pn=1&accessResourceKey=' || md5(t.session_link)"
        ),
    },
    "inspectlet/session_pages": {name: _INSPECTLET_IDS[name] for name in ("sid", "rid")},
    "inspectlet/session_tags": {
        "sid": _INSPECTLET_IDS["sid"],
        "value": f"CASE WHEN t.tag = 'kameleoon_visitor_code' THEN {_of_visitor('value', 16)} ELSE t.value END",
    },
    "kameleoon/visits": {"visitor_code": _CODE},
    "kameleoon/visit_pages": {"visitor_code": _CODE},
    "kameleoon/exposures": {"visitor_code": _CODE},
    "kameleoon/conversions": {"visitor_code": _CODE},
}
"""Ids of copied rows. One visitor code is one in every vendor's tables, as it is in the sandbox."""

_COUNTS: Final = frozenset(
    [
        "visitors",
        "views",
        "sessions",
        "bounces",
        "entries",
        "exits",
        "event_count",
        "visitor_goal",
        "occurrence_count",
        "unique_visitors",
        "visitors_count",
        "add_to_cart_quantity",
        "bought_quantity",
    ]
)
_SNAPSHOTS: Final = "snapshot"
_MEASURE_READS: Final = 3


def _grown(column: str, factor: float) -> str:
    return f"CAST(round(t.{column} * {factor}) AS BIGINT)"


@dataclass(frozen=True, kw_only=True)
class SyntheticLake:
    """A lake below `root` made of the lake below `seed`.

    Args:
        seed: the lake of a demo home.
        root: written to; what is there stays, so that days can be added.
        sessions: rows of `SESSION_TABLES` over `dates`.
        last: the newest date.
        days: how many dates up to `last`.
        recent_sessions: sessions a date on the last `RECENT_DAYS` dates and on dates added later; those before share
            the rest. None: every date has the same.
    """

    seed: Path
    root: Path
    sessions: int
    last: date
    days: int = 730
    recent_sessions: float | None = None
    tables: Sequence[TableSpec] = field(default_factory=lambda: tuple(all_tables().values()))

    @property
    def first(self) -> date:
        return self.last - timedelta(days=self.days - 1)

    def sessions_on(self, day: date) -> float:
        """Sessions of one date."""
        if self.recent_sessions is None:
            return self.sessions / self.days
        if day > self.last - timedelta(days=RECENT_DAYS):
            return self.recent_sessions
        return (self.sessions - self.recent_sessions * RECENT_DAYS) / (self.days - RECENT_DAYS)

    def write(self, report: Callable[[str], None] = lambda line: None) -> None:
        """Every table over all dates, and the files beside them: sites, blocked partitions, own work."""
        with self._engine() as engine:
            for spec in self.tables:
                self._write_table(engine, spec, list(_stretches(self.first, self.last)))
                report(f"  {spec.qualified_name}")
            self._write_beside(engine)

    def write_date(self, added: date) -> None:
        """One more date of every table, as the daily run of a platform lands it."""
        with self._engine() as engine:
            for spec in self.tables:
                self._write_table(engine, spec, [(added, added)])

    def rows(self) -> dict[str, int]:
        """Rows by table."""
        with connect() as engine:
            return {
                spec.qualified_name: engine.execute(
                    f"SELECT count(*) FROM read_parquet('{self.root}/{spec.qualified_name}/site=*/day=*/part.parquet')"
                ).fetchall()[0][0]
                for spec in self.tables
            }

    # -- rows ------------------------------------------------------------------------------------------------------

    def _engine(self) -> duckdb.DuckDBPyConnection:
        # One thread writes one file a partition.
        engine = connect(threads="1", memory_limit="3GB", temp_directory=str(self.root / ".scratch"))
        engine.execute("SET partitioned_write_max_open_files = 4000; SET preserve_insertion_order = false")
        for spec in self.tables:
            files = f"{self.seed}/{spec.qualified_name}/site=*/day=*/part.parquet"
            engine.execute(
                f"CREATE TABLE \"{spec.qualified_name}\" AS SELECT * FROM read_parquet('{files}', "
                "hive_partitioning = false, union_by_name = true) WHERE _site <> '_anchor'"
            )
        engine.execute(
            'CREATE VIEW starts AS SELECT _site, session_id, min(started_at) AS started_at FROM "smartlook/sessions" '
            "GROUP BY ALL"
        )
        engine.execute(f"CREATE TABLE seeded AS SELECT min(_day) AS first, count(*) AS rows FROM ({_union()})")
        return engine

    def _write_table(
        self, engine: duckdb.DuckDBPyConnection, spec: TableSpec, stretches: Sequence[tuple[date, date]]
    ) -> None:
        target = self.root / spec.qualified_name
        target.mkdir(parents=True, exist_ok=True)
        anchor = _partition(target, ANCHOR_SITE, ANCHOR_DAY)
        if not anchor.is_file():
            anchor.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(_partition(self.seed / spec.qualified_name, ANCHOR_SITE, ANCHOR_DAY), anchor)
        sites = [row[0] for row in engine.execute(f'SELECT DISTINCT _site FROM "{spec.qualified_name}"').fetchall()]
        for first, last in stretches:
            query = self._select(engine, spec, first, last)
            order = ", ".join(f'"{name}"' for name in ("_site", "_day", *spec.key))
            engine.execute(
                f"COPY (SELECT *, _site AS site, _day AS day FROM ({query}) ORDER BY {order}) TO '{target}' "
                "(FORMAT parquet, COMPRESSION zstd, PARTITION_BY (site, day), FILENAME_PATTERN 'part', "
                "OVERWRITE_OR_IGNORE)"
            )
            for site in sites:
                for day in _dates(first, last):
                    self._settle(_partition(target, site, day), anchor)

    def _settle(self, path: Path, anchor: Path) -> None:
        """A partition's file under the lake's own name; a date without rows is a file without rows."""
        written = sorted(path.parent.glob("part*.parquet"))
        if not written:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(anchor, path)
        elif written != [path]:
            if len(written) > 1:
                raise RuntimeError(f"{path.parent} was written as {len(written)} files")
            written[0].replace(path)

    def _select(self, engine: duckdb.DuckDBPyConnection, spec: TableSpec, first: date, last: date) -> str:
        """SQL of all rows of one table over a stretch of dates."""
        ((seed_first, seed_rows),) = engine.execute("FROM seeded").fetchall()
        factor = self.sessions_on(first) / (seed_rows / _CYCLE_DAYS)
        # A snapshot is of one date; it is repeated on every date.
        cycle = 1 if spec.day_basis == _SNAPSHOTS else _CYCLE_DAYS
        dates = (
            f"SELECT CAST(g AS DATE) AS on_date, CAST(g AS DATE) - DATE '{self.first}' AS k, "
            f"(CAST(g AS DATE) - DATE '{seed_first}') // {_CYCLE_DAYS} AS cycle "
            f"FROM generate_series(DATE '{first}', DATE '{last}', INTERVAL 1 day) AS s(g)"
        )
        seed_date = (
            "t._day"
            if cycle == 1
            else f"DATE '{seed_first}' + CAST(((d.on_date - DATE '{seed_first}') % {cycle} + {cycle}) % {cycle} "
            "AS INTEGER)"
        )
        start = _STARTS.get(spec.qualified_name)
        columns = ", ".join(
            f'CAST({self._column(spec, column.name, column.type, factor)} AS {column.type}) AS "{column.name}"'
            for column in spec.all_columns
        )
        joined = _JOINS.get(spec.qualified_name, "")
        source = f'FROM "{spec.qualified_name}" AS t {joined} JOIN ({dates}) AS d ON t._day = {seed_date}'
        if start is None:
            return f"SELECT {columns} {source} CROSS JOIN (SELECT INTERVAL 0 second AS moved) AS m"
        whole, rest = int(factor), factor % 1
        seconds = f"CAST(epoch({start}) AS BIGINT) % 86400"
        return (
            f"SELECT {columns} {source} "
            f"CROSS JOIN (SELECT CAST(r AS INTEGER) AS r FROM range({whole + 1}) AS g(r)) AS x "
            f"CROSS JOIN LATERAL (SELECT to_days(CAST(d.on_date - t._day AS INTEGER)) "
            f"+ to_seconds(({seconds} + x.r * 4241) % 86400 - {seconds}) AS moved) AS m "
            f"WHERE x.r < {whole} OR hash({seconds} // 60, t._day, d.k) % {_DRAWS} < {round(rest * _DRAWS)}"
        )

    def _column(self, spec: TableSpec, name: str, type_: str, factor: float) -> str:
        own = _IDS.get(spec.qualified_name, {}).get(name)
        if own is not None:
            return own
        if name == "_landed_at":
            return "CAST(d.on_date + 1 AS TIMESTAMP) + INTERVAL 2 hour"
        if name == "_run_id":
            return "'benchmark'"
        if spec.qualified_name in _STARTS:
            return f't."{name}" + m.moved' if type_ == "TIMESTAMP" else _dated(name, type_)
        if name == "bounce_rate":
            rate = f"{_grown('bounces', factor)} / nullif({_grown('sessions', factor)}, 0)"
            return f"CASE WHEN t.{name} IS NOT NULL THEN {rate} END"
        if name == "total":
            return f"CAST(round(t.total / {_CYCLE_DAYS} * (d.k + 1)) AS BIGINT)"
        if name in _COUNTS:
            return _grown(f'"{name}"', factor)
        return _dated(name, type_)

    # -- beside the tables -------------------------------------------------------------------------------------------

    def _write_beside(self, engine: duckdb.DuckDBPyConnection) -> None:
        """Sites that began on the first date; no blocked partition; status of 90 dates, measures of all."""
        for folder in ("_blocked", "_config", "_ops"):
            shutil.copytree(self.seed / folder, self.root / folder, dirs_exist_ok=True)
        sites = self.root / "_config" / "sites.parquet"
        self._replace(engine, sites, f"SELECT * REPLACE (DATE '{self.first}' AS start_date) FROM '{sites}'")
        status = self.root / "_ops" / "partition_status" / "part.parquet"
        self._replace(engine, status, self._repeated(str(status), self.last - timedelta(days=89), reads=1, value=""))
        measures = self.root / "_ops" / "partition_measures"
        seeded = f"{self.seed}/_ops/partition_measures/*/part.parquet"
        ((seed_rows,),) = engine.execute("SELECT rows FROM seeded").fetchall()
        factor = self.sessions / self.days / (seed_rows / _CYCLE_DAYS)
        shutil.rmtree(measures)
        measures.mkdir()
        query = self._repeated(
            seeded,
            self.first,
            reads=_MEASURE_READS,
            value=f"CAST(round(value * {factor} * (1 + r / 100)) AS BIGINT) AS value",
        )
        engine.execute(
            f"COPY (SELECT *, strftime(partition_date, '%Y-%m') AS month FROM ({query})) TO '{measures}' "
            "(FORMAT parquet, COMPRESSION zstd, PARTITION_BY (month), FILENAME_PATTERN 'part', OVERWRITE_OR_IGNORE)"
        )
        for written in measures.glob("month=*/part0.parquet"):
            written.replace(written.with_name("part.parquet"))

    def _repeated(self, files: str, first: date, *, reads: int, value: str) -> str:
        """Rows of partitions on every date from `first`, as often as each was read."""
        replaced = ["d.on_date AS partition_date"]
        if value:
            replaced += [
                value,
                "batch || '-' || d.on_date || '-' || r AS batch",
                "CAST(d.on_date AS TIMESTAMP) + to_days(CAST(r + 1 AS INTEGER)) AS asked_at",
            ]
        return (
            f"SELECT t.* REPLACE ({', '.join(replaced)}) FROM read_parquet('{files}', hive_partitioning = false) AS t "
            f"JOIN (SELECT CAST(g AS DATE) AS on_date FROM generate_series(DATE '{first}', DATE '{self.last}', "
            f"INTERVAL 1 day) AS s(g)) AS d ON (d.on_date - t.partition_date) % {_CYCLE_DAYS} = 0 "
            f"CROSS JOIN range({reads}) AS n(r) WHERE t.partition_date >= (SELECT first FROM seeded) "
            f"AND t.partition_date < (SELECT first FROM seeded) + {_CYCLE_DAYS}"
        )

    def _replace(self, engine: duckdb.DuckDBPyConnection, path: Path, query: str) -> None:
        temporary = path.with_suffix(".tmp")
        engine.execute(f"COPY ({query}) TO '{temporary}' (FORMAT parquet, COMPRESSION zstd)")
        temporary.replace(path)


def _union() -> str:
    return " UNION ALL ".join(f'SELECT _day FROM "{name}"' for name in SESSION_TABLES)


def _dated(name: str, type_: str) -> str:
    return "d.on_date" if type_ == "DATE" else f't."{name}"'


def _partition(table: Path, site: str, day: date) -> Path:
    return table / f"site={site}" / f"day={day}" / "part.parquet"


def _dates(first: date, last: date) -> Iterator[date]:
    for offset in range((last - first).days + 1):
        yield first + timedelta(days=offset)


def _stretches(first: date, last: date) -> Iterator[tuple[date, date]]:
    """Stretches of at most 28 dates, counted back from the last: their rows fit in memory, none is partly recent."""
    while first <= last:
        begin = max(first, last - timedelta(days=_CYCLE_DAYS - 1))
        yield begin, last
        last = begin - timedelta(days=1)
