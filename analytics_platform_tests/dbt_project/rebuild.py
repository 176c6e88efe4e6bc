"""Rebuild equality: whatever order days land in, and however often they are corrected, the marts end as a full refresh.

Belongs here: random sequences of landings and incremental builds, executing the compiled project in DuckDB as dbt's
materialisations would (a build takes a second instead of a minute), comparing every mart with a full refresh both ways.
Does not belong here: what the marts should say (test_marts and its neighbours).

Run `python -m analytics_platform_tests.dbt_project.rebuild --sequences 200` for the figure; test_rebuild runs a few.

What the executor takes from dbt: the compiled select of every model, in dbt's order. What it does itself is small: a
view is a view, a table is replaced, `replace_window` deletes the window and inserts by name, `replace_rows` deletes the
rows its macro names, a Python model is called.
That dbt makes the same tables of the same lake is a test of its own (test_rebuild).
"""

from __future__ import annotations

import argparse
import json
import re
import runpy
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import duckdb
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from analytics_platform_tests.dbt_project.conftest import PROJECT, Warehouse
from analytics_platform_tests.dbt_project.lake_fixture import table_specs

Window = tuple[date, date]

START, END = date(2400, 6, 1), date(2500, 6, 1)
"""The window the project is compiled with: years found nowhere else, so each bound is known again with its margin."""

_BOUND: Final = re.compile(r"date '(2400|2500)-(\d\d)-(\d\d)'")
_SHIFTS: Final = (0, 3, 6)
_SNAPSHOT_SHIFTS: Final = (0, 3, 6, 20, 34)
"""Snapshots also lie far apart: a counter's growth is told of the dates between two of them."""
_GROWTH_PER_DAY: Final = 41
"""Of a lifetime counter from one stretch of days to the next, or every later snapshot would be a fall."""
_ID_COLUMNS: Final = frozenset({"session_id", "event_id"})
_MEASURES: Final = frozenset({"page_count", "duration_seconds", "visitors", "views", "sessions", "total", "num_pages"})
_STATES: Final = ("first", "corrected", "removed", "blocked")


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model as the executor runs it."""

    name: str
    relation: str
    kind: str
    sql: str
    window_column: str | None
    margin: Mapping[str, Any]
    columns: Mapping[str, str]
    is_mart: bool
    python_file: Path | None = None
    row_key: str | None = None
    replaced_rows: str = ""
    incremental_sql: str = ""
    """Of a model of the strategy `replace_rows`: its key, the rows that go, its select where a table exists already."""


@dataclass(frozen=True, kw_only=True, order=True)
class Landing:
    """One day of one vendor and site as it arrives."""

    day: date
    vendor: str
    site: str
    state: str


@dataclass(kw_only=True)
class Project:
    """The compiled project and its seeds."""

    models: Sequence[Model]
    seeds: Path
    root: Path
    seed_names: Sequence[str] = field(default_factory=list)


def compile_project(warehouse: Warehouse) -> Project:
    """Compile every model with the window of sentinels. The warehouse holds the seeds already."""
    from dbt_common.events.functions import reset_metadata_vars

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DBT_ENV_CUSTOM_ENV_WINDOW_START", START.isoformat())
        patch.setenv("DBT_ENV_CUSTOM_ENV_WINDOW_END", END.isoformat())
        reset_metadata_vars()  # dbt reads these variables once a process, which is once a build elsewhere
        code = _compiled(warehouse, "--select", "resource_type:model", "--full-refresh")
        nodes = warehouse.manifest()["nodes"]
        models = [_model(nodes[key], code.get(key) or "") for key in _in_order(nodes)]
        models = [_with_replaced_rows(model, nodes, warehouse) if model.row_key else model for model in models]
    reset_metadata_vars()
    return Project(
        models=models,
        seeds=warehouse.database,
        root=warehouse.lake.root,
        seed_names=sorted(node["name"] for node in nodes.values() if node["resource_type"] == "seed"),
    )


def _compiled(warehouse: Warehouse, *arguments: str) -> dict[str, str]:
    result = warehouse.dbt("compile", *arguments)
    if result.exception:
        raise result.exception
    return {r.node.unique_id: r.node.compiled_code for r in result.result}


def _with_replaced_rows(model: Model, nodes: Mapping[str, Any], warehouse: Warehouse) -> Model:
    """The model with what it does to a table that is there; an empty one is put where none was built."""
    key, node = next(
        (key, node) for key, node in nodes.items() if node["resource_type"] == "model" and node["name"] == model.name
    )
    columns = ", ".join(f'"{name}" {kind}' for name, kind in model.columns.items())
    with duckdb.connect(str(warehouse.database)) as connection:
        connection.execute(f"CREATE TABLE IF NOT EXISTS {model.relation} ({columns})")
    macro = node["config"]["meta"]["replaced_rows"]
    (condition,) = _compiled(warehouse, "--inline", f"{{{{ {macro}() }}}}").values()
    return replace(model, replaced_rows=condition, incremental_sql=_compiled(warehouse, "--select", model.name)[key])


def _in_order(nodes: Mapping[str, Any]) -> Iterator[str]:
    done: set[str] = set()

    def visit(key: str) -> Iterator[str]:
        if key in done or nodes.get(key, {}).get("resource_type") != "model":
            return
        done.add(key)
        for parent in nodes[key]["depends_on"]["nodes"]:
            yield from visit(parent)
        yield key

    for key in sorted(nodes):
        yield from visit(key)


def _model(node: Mapping[str, Any], sql: str) -> Model:
    config = node["config"]
    is_python = node["language"] == "python"
    contract = config["contract"]["enforced"] and config["materialized"] != "view"
    return Model(
        name=node["name"],
        relation=f'"{node["schema"]}"."{node["alias"]}"',
        kind="python" if is_python else config["materialized"],
        sql=sql,
        window_column=config["meta"].get("window_column"),
        margin=config["meta"].get("margin", {}),
        columns={name: column["data_type"] for name, column in node["columns"].items()} if contract else {},
        is_mart=node["fqn"][1] == "marts",
        python_file=PROJECT / node["original_file_path"] if is_python else None,
        row_key=config["meta"].get("row_key"),
    )


class Rebuilder:
    """A lake in memory and any number of warehouses built from it."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.connection = duckdb.connect()
        self.connection.execute("SET TimeZone = 'UTC'; SET threads = 1; SET preserve_insertion_order = false")
        self.connection.execute("ATTACH ':memory:' AS lake")
        self.connection.execute("ATTACH ':memory:' AS pool")
        self.connection.execute(f"ATTACH '{project.seeds}' AS seeded (READ_ONLY)")
        self._names = {f"{vendor}/{table}": f"lake.{vendor}__{table}" for vendor, table in table_specs()}
        for vendor, table in table_specs():
            self._fill_pool(vendor, table)
        self.connection.execute("CREATE TABLE lake.files (vendor VARCHAR, site VARCHAR, day DATE, file VARCHAR)")
        self._copy_file("_blocked/partitions.parquet", "lake.blocked", empty=True)
        self._copy_file("_config/sites.parquet", "lake.sites")
        for path in sorted(path for path in (project.root / "_ops").iterdir() if not path.name.startswith(".")):
            self._copy_file(f"_ops/{path.name}/**/part.parquet", f"lake.ops_{path.name}")
        self.keys = self._partition_keys()

    def close(self) -> None:
        self.connection.close()

    # -- lake ----------------------------------------------------------------------------------------------------

    def _copy_file(self, path: str, table: str, *, empty: bool = False) -> None:
        source = f"read_parquet('{self.project.root}/{path}', hive_partitioning = false, union_by_name = true)"
        self.connection.execute(f"CREATE TABLE {table} AS SELECT * FROM {source} {'LIMIT 0' if empty else ''}")

    def _fill_pool(self, vendor: str, table: str) -> None:
        """Every partition of the fixture lake on three stretches of days, as first delivered and as corrected later."""
        name = f"{vendor}__{table}"
        files = f"{self.project.root}/{vendor}/{table}/site=*/day=*/part.parquet"
        self.connection.execute(
            f"CREATE TABLE pool.raw_{name} AS SELECT * FROM read_parquet('{files}', hive_partitioning = true, "
            "union_by_name = true, hive_types = {'site': VARCHAR, 'day': DATE}) WHERE site <> '_anchor'"
        )
        described = self.connection.execute(f"DESCRIBE pool.raw_{name}").fetchall()
        for index, days in enumerate(_shifts(vendor)):
            moved = ", ".join(_moved(column, kind, days) for column, kind, *_ in described)
            start = f"CREATE TABLE pool.{name} AS" if index == 0 else f"INSERT INTO pool.{name}"
            self.connection.execute(f"{start} SELECT {moved}, 'first' AS state FROM pool.raw_{name}")
        corrected = ", ".join(_restated(column) for column, *_ in described)
        self.connection.execute(self._corrected(name, corrected))
        self.connection.execute(f"CREATE TABLE lake.{name} AS SELECT * EXCLUDE (state) FROM pool.{name} LIMIT 0")

    def _corrected(self, name: str, columns: str) -> str:
        # A third of the rows vanishes, chosen by what the row says, so that a sequence is the same every time.
        return (
            f"INSERT INTO pool.{name} SELECT {columns}, 'corrected' FROM pool.{name} AS row_of "
            "WHERE state = 'first' AND hash(to_json(row_of)::VARCHAR) % 3 <> 0"
        )

    def _partition_keys(self) -> list[tuple[str, str, date]]:
        """(vendor, site, day) of every partition the pool knows; a file without rows is a partition too."""
        self.load_fixture()
        found = self.connection.execute("SELECT DISTINCT vendor, site, day FROM lake.files WHERE site <> '_anchor'")
        shifted = {
            (vendor, site, day + timedelta(days=days))
            for vendor, site, day in found.fetchall()
            for days in _shifts(vendor)
        }
        return sorted(shifted)

    def empty_lake(self) -> None:
        for table in [*self._names.values(), "lake.blocked", "lake.files"]:
            self.connection.execute(f"DELETE FROM {table}")

    def load_fixture(self) -> None:
        """The fixture lake as it is on disk."""
        self.empty_lake()
        for name in self._names.values():
            self.connection.execute(f"INSERT INTO {name} FROM pool.raw_{name.removeprefix('lake.')}")
        self.connection.execute(
            "INSERT INTO lake.files SELECT part[1], part[2], part[3]::DATE, file FROM (SELECT file, "
            "regexp_extract(file, '/([^/]+)/[^/]+/site=([^/]+)/day=([^/]+)/', ['1', '2', '3']) AS found, "
            "[found['1'], found['2'], found['3']] AS part "
            f"FROM glob('{self.project.root}/[!_]*/*/site=*/day=*/part.parquet'))"
        )
        blocked = f"read_parquet('{self.project.root}/_blocked/partitions.parquet')"
        self.connection.execute(f"INSERT INTO lake.blocked FROM {blocked}")

    def land(self, landing: Landing) -> None:
        """Replace all tables of one vendor, site and day."""
        where = f"site = '{landing.site}' AND day = DATE '{landing.day}'"
        self.connection.execute(
            f"DELETE FROM lake.blocked WHERE vendor = '{landing.vendor}' AND site_key = '{landing.site}' "
            f"AND partition_date = DATE '{landing.day}'"
        )
        self.connection.execute(f"DELETE FROM lake.files WHERE vendor = '{landing.vendor}' AND {where}")
        for vendor, table in table_specs():
            if vendor != landing.vendor:
                continue
            name = f"{vendor}__{table}"
            self.connection.execute(f"DELETE FROM lake.{name} WHERE {where}")
            if landing.state != "removed":
                path = f"{vendor}/{table}/site={landing.site}/day={landing.day}/part.parquet"
                self.connection.execute(
                    "INSERT INTO lake.files VALUES (?, ?, ?, ?)",
                    [vendor, landing.site, landing.day, f"{self.project.root}/{path}"],
                )
                state = "first" if landing.state == "blocked" else landing.state
                self.connection.execute(
                    f"INSERT INTO lake.{name} SELECT * EXCLUDE (state) FROM pool.{name} "
                    f"WHERE {where} AND state = '{state}'"
                )
            if landing.state == "blocked":
                self.connection.execute(
                    "INSERT INTO lake.blocked (vendor, table_name, site_key, partition_date) VALUES (?, ?, ?, ?)",
                    [vendor, table, landing.site, landing.day],
                )

    # -- builds --------------------------------------------------------------------------------------------------

    def new_warehouse(self, name: str) -> None:
        self.connection.execute(f"ATTACH ':memory:' AS {name}")
        for schema in sorted({model.relation.split(".")[0] for model in self.project.models}):
            self.connection.execute(f"CREATE SCHEMA IF NOT EXISTS {name}.{schema}")
        for seed in self.project.seed_names:
            self.connection.execute(f"CREATE TABLE {name}.main.{seed} AS FROM seeded.main.{seed}")

    def drop_warehouse(self, name: str) -> None:
        self.connection.execute(f"DETACH {name}")

    def build(self, name: str, window: Window | None) -> None:
        """What `dbt build` does to one warehouse: every model, in order; None is a full refresh of everything."""
        for model in self.project.models:
            target = f"{name}.{model.relation}"
            if model.kind == "python":
                self._run_python(model, name, target)
                continue
            is_there = window is not None and self._exists(target)
            sql = self.localised(model.incremental_sql if is_there and model.row_key else model.sql, name, window)
            try:
                self._run_sql(model, sql, target, window)
            except duckdb.Error as error:
                raise AssertionError(f"{model.name}: {error}") from error

    def alone(self, model_name: str, inputs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
        """Rows of one mart over rows of the marts it reads: columns a row does not name are NULL."""
        name = "alone"
        models = {model.name: model for model in self.project.models}
        self.new_warehouse(name)
        try:
            for upstream, given in inputs.items():
                columns = models[upstream].columns
                typed = ", ".join(f'"{column}" {kind}' for column, kind in columns.items())
                self.connection.execute(f"CREATE TABLE {name}.{models[upstream].relation} ({typed})")
                if given:
                    self.connection.executemany(
                        f"INSERT INTO {name}.{models[upstream].relation} VALUES ({', '.join('?' * len(columns))})",
                        [[row.get(column) for column in columns] for row in given],
                    )
            mart = models[model_name]
            self._run_sql(mart, self.localised(mart.sql, name, None), f"{name}.{mart.relation}", None)
            found = self.connection.execute(f"FROM {name}.{mart.relation}")
            titles = [column[0] for column in found.description]
            return [dict(zip(titles, row, strict=True)) for row in found.fetchall()]
        finally:
            self.drop_warehouse(name)

    def _run_sql(self, model: Model, sql: str, target: str, window: Window | None) -> None:
        if model.kind == "view":
            self.connection.execute(f"CREATE OR REPLACE VIEW {target} AS {sql}")
            return
        if model.kind == "incremental" and window is not None and self._exists(target):
            self.connection.execute(f"CREATE OR REPLACE TEMP TABLE staged AS {sql}")
            replaced = _replaced(model, window)
            if model.row_key:
                touched = self.localised(model.replaced_rows, target.split(".")[0], window)
                replaced = f"({touched}) OR {model.row_key} IN (SELECT {model.row_key} FROM staged)"
            self.connection.execute(f"DELETE FROM {target} WHERE {replaced}")
            self.connection.execute(f"INSERT INTO {target} BY NAME SELECT * FROM staged")
            return
        if model.columns:
            columns = ", ".join(f'"{column}" {kind}' for column, kind in model.columns.items())
            self.connection.execute(f"CREATE OR REPLACE TABLE {target} ({columns})")
            self.connection.execute(f"INSERT INTO {target} BY NAME SELECT * FROM ({sql})")
        else:
            self.connection.execute(f"CREATE OR REPLACE TABLE {target} AS {sql}")

    def _exists(self, target: str) -> bool:
        database, schema, table = (part.strip('"') for part in target.split("."))
        found = self.connection.execute(
            "SELECT count(*) FROM duckdb_tables() WHERE database_name = ? AND schema_name = ? AND table_name = ?",
            [database, schema, table],
        ).fetchall()
        return bool(found[0][0])

    def _run_python(self, model: Model, name: str, target: str) -> None:
        connection = self.connection

        class Dbt:
            def config(self, **_: object) -> None:
                """Materialised as a table here as there."""

            def ref(self, upstream: str) -> duckdb.DuckDBPyRelation:
                return connection.sql(f"SELECT * FROM {name}.main.{upstream}")

        frame = runpy.run_path(str(model.python_file))["model"](Dbt(), connection)
        connection.register("returned", frame)
        connection.execute(f"CREATE OR REPLACE TABLE {target} AS SELECT * FROM returned")
        connection.unregister("returned")

    def localised(self, sql: str, name: str, window: Window | None) -> str:
        """A compiled select on one warehouse, the lake in memory, and a window."""
        root = re.escape(str(self.project.root))
        for call in (
            rf"read_parquet\(list_transform\(.*?'{root}/([^']*)'.*?union_by_name = true\)",
            rf"read_parquet\(\s*'{root}/([^']*)'[^()]*\)",
        ):
            sql = re.sub(call, lambda found: self._lake_relation(found.group(1)), sql, flags=re.DOTALL)
        sql = re.sub(
            rf"glob\('{root}/([^/']*)/([^/']*)/[^']*'\)",
            r"(SELECT file FROM lake.files WHERE file LIKE '%/\1/\2/site=%') AS landed",
            sql,
        )
        assert str(self.project.root) not in sql, "a model reads the lake on disk"
        return _with_window(sql.replace('"warehouse".', f"{name}."), window)

    def _lake_relation(self, path: str) -> str:
        if path.startswith("_blocked/"):
            return "lake.blocked"
        if path.startswith("_config/"):
            return "lake.sites"
        if path.startswith("_ops/"):
            return f"lake.ops_{path.split('/')[1]}"
        return self._names["/".join(path.split("/")[:2])]

    # -- comparing -----------------------------------------------------------------------------------------------

    def differences(self, one: str, other: str) -> dict[str, int]:
        """Rows of each mart that only one of two warehouses has."""
        found = {}
        for model in self.project.models:
            if not model.is_mart:
                continue
            left, right = f"FROM {one}.{model.relation}", f"FROM {other}.{model.relation}"
            count = self.connection.execute(
                f"SELECT count(*) FROM (({left} EXCEPT ALL {right}) UNION ALL ({right} EXCEPT ALL {left}))"
            ).fetchall()[0][0]
            if count:
                found[model.name] = int(count)
        return found


def _restated(column: str) -> str:
    if column in _MEASURES:
        return f'"{column}" + 1 AS "{column}"'
    return f"'America/New_York' AS {column}" if column == "domain_timezone" else f'"{column}"'


def _shifts(vendor: str) -> tuple[int, ...]:
    is_snapshot = any(spec.day_basis == "snapshot" for (name, _), spec in table_specs().items() if name == vendor)
    return _SNAPSHOT_SHIFTS if is_snapshot else _SHIFTS


def _moved(column: str, kind: str, days: int) -> str:
    quoted = f'"{column}"'
    if kind == "DATE":
        return f"({quoted} + INTERVAL {days} DAY)::DATE AS {quoted}"
    if kind.startswith("TIMESTAMP") and not kind.endswith("[]"):
        return f"({quoted} + INTERVAL {days} DAY)::{kind} AS {quoted}"
    if days and column in _ID_COLUMNS and kind == "VARCHAR":
        return f"{quoted} || '-{days}' AS {quoted}"
    if column == "total":
        return f"({quoted} + {days * _GROWTH_PER_DAY})::{kind} AS {quoted}"
    if days and column == "sid":
        return f"({quoted} + {days * 1000})::{kind} AS {quoted}"
    return quoted


def _replaced(model: Model, window: Window) -> str:
    """The rows a build of a window replaces (macro in_replaced_window)."""

    def within(before: int, after: int) -> str:
        first, last = window[0] - timedelta(days=before), window[1] + timedelta(days=after)
        return f"{model.window_column} BETWEEN DATE '{first}' AND DATE '{last}'"

    if not model.margin:
        return within(0, 0)
    margin = within(model.margin["before"], model.margin["after"])
    return f"{within(0, 0)} OR ({model.margin.get('rows', 'true')} AND {margin})"


def _with_window(sql: str, window: Window | None) -> str:
    def bound(found: re.Match[str]) -> str:
        compiled = date(int(found.group(1)), int(found.group(2)), int(found.group(3)))
        is_start = compiled.year == START.year
        if window is None:
            return f"date '{'0001-01-01' if is_start else '9999-12-31'}'"
        wanted = window[0] + (compiled - START) if is_start else window[1] + (compiled - END)
        return f"date '{wanted}'"

    return _BOUND.sub(bound, sql)


def window_of(landings: Sequence[Landing]) -> Window:
    """The window the platform builds after landing: UTC days a..b touch the local dates a-1..b+1, whose sessions may be
    one with those of the next, which changes where a chain of them is cut on the date after that.
    """
    days = [landing.day for landing in landings]
    return min(days) - timedelta(days=1), max(days) + timedelta(days=3)


def sequences(keys: Sequence[tuple[str, str, date]]) -> st.SearchStrategy[tuple[list[Landing], list[list[Landing]]]]:
    """What lies in the lake at first (built in full), and steps of landings, each followed by an incremental build."""

    def landings(among: Sequence[tuple[str, str, date]], least: int) -> st.SearchStrategy[list[Landing]]:
        landing = st.builds(
            lambda key, state: Landing(vendor=key[0], site=key[1], day=key[2], state=state),
            st.sampled_from(list(among)),
            st.sampled_from(_STATES),
        )
        return st.lists(
            landing, min_size=least, max_size=len(among), unique_by=lambda item: (item.vendor, item.site, item.day)
        )

    # A step covers a day, rarely two: wide windows would rebuild what a narrow one forgets.
    days = sorted({key[2] for key in keys})
    step = st.tuples(st.sampled_from(days), st.sampled_from((0, 0, 0, 1))).flatmap(
        lambda span: landings([key for key in keys if 0 <= (key[2] - span[0]).days <= span[1]], 1)
    )
    return st.tuples(landings(keys, 0), st.lists(step, min_size=1, max_size=4))


@dataclass(kw_only=True)
class Tally:
    """What was done."""

    sequences: int = 0
    builds: int = 0
    seconds: float = 0.0
    until: float = float("inf")
    """No sequence is begun after this (time.monotonic())."""


def check_sequences(rebuilder: Rebuilder, count: int, *, tally: Tally, shrink: bool = True) -> None:
    """Run `count` random sequences.

    Raises:
        AssertionError: a sequence ends in other marts than a full refresh; hypothesis prints the smallest one found.
    """
    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )
    @given(sequences(rebuilder.keys))
    def run(sequence: tuple[list[Landing], list[list[Landing]]]) -> None:
        begun = time.monotonic()
        if begun > tally.until:
            return
        found = differences_after(rebuilder, *sequence)
        tally.sequences += 1
        tally.builds += len(sequence[1]) + 2
        tally.seconds += time.monotonic() - begun
        assert found == {}, f"rows that differ from a full refresh: {found}"

    run()


def differences_after(
    rebuilder: Rebuilder,
    first: Sequence[Landing],
    steps: Sequence[Sequence[Landing]],
    *,
    unbuilt: Sequence[Landing] = (),
) -> dict[str, int]:
    """Rows by mart in which the warehouse of a sequence differs from a full refresh of the same lake.

    Args:
        unbuilt: landings after the last build, which only the full refresh sees.
    """
    rebuilder.empty_lake()
    rebuilder.new_warehouse("grown")
    rebuilder.new_warehouse("refreshed")
    try:
        for landing in first:
            rebuilder.land(landing)
        rebuilder.build("grown", None)
        for step in steps:
            for landing in step:
                rebuilder.land(landing)
            rebuilder.build("grown", window_of(step))
        for landing in unbuilt:
            rebuilder.land(landing)
        rebuilder.build("refreshed", None)
        return rebuilder.differences("grown", "refreshed")
    finally:
        rebuilder.drop_warehouse("grown")
        rebuilder.drop_warehouse("refreshed")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Exit code 1 when a sequence differs."""
    parser = argparse.ArgumentParser(description="Any sequence of incremental builds ends as a full refresh does.")
    parser.add_argument("--sequences", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="Begin no sequence after so long.")
    parser.add_argument("--output", type=Path, help="Write the figure here as JSON too.")
    chosen = parser.parse_args(arguments)
    from analytics_platform_tests.dbt_project.conftest import fixture_lake

    tally = Tally()
    with tempfile.TemporaryDirectory() as folder, fixture_lake(Path(folder) / "lake") as lake:
        warehouse = Warehouse(lake, Path(folder))
        if (seeded := warehouse.dbt("seed")).exception:
            raise seeded.exception
        rebuilder = Rebuilder(compile_project(warehouse))
        problem = ""
        tally.until = time.monotonic() + chosen.minutes * 60
        try:
            check_sequences(rebuilder, chosen.sequences, tally=tally)
        except AssertionError as error:
            problem = "\n".join([str(error), *getattr(error, "__notes__", [])])
        rebuilder.close()
    figure = {
        "sequences": tally.sequences,
        "builds": tally.builds,
        "seconds": round(tally.seconds, 1),
        "equal": not problem,
        "problem": problem,
    }
    print(json.dumps(figure, indent=2))  # noqa: T201  (what a person asked for)
    if chosen.output:
        chosen.output.write_text(json.dumps(figure, indent=2) + "\n", encoding="utf-8")
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
