"""The real dbt project through Dagster: built, published, read while it is built again, and failing in words."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from analytics_platform.catalog import Catalog
from analytics_platform.core.resources import PlatformResource
from analytics_platform.settings import Settings, load_settings
from analytics_platform.transform import (
    MART_GROUPS,
    marts_are_current,
    ordinary_build,
    published_version,
    thorough_checks,
    transform_definitions,
)
from analytics_platform_tests.dbt_project.conftest import saturday_sessions, sunday_sessions
from analytics_platform_tests.dbt_project.lake_fixture import FixtureLake

SATURDAY, SUNDAY, MONDAY = date(2026, 10, 24), date(2026, 10, 25), date(2026, 10, 26)

SITES = """\
sites:
  - key: shop
    timezone: Europe/Berlin
    hostname: shop.example
    start_date: 2026-10-20
    vendors: {smartlook: {}}
"""


@dataclass
class House:
    """One home with a lake, and the transform's definitions on it."""

    settings: Settings
    definitions: dg.Definitions

    def run(self, *assets: str, first: date = SATURDAY, last: date = MONDAY) -> dg.ExecuteInProcessResult:
        """Materialise assets by name (all by default) for a range of days in this process."""
        job = self.definitions.resolve_implicit_global_asset_job_def()
        with dg.DagsterInstance.ephemeral() as instance:
            return job.execute_in_process(
                asset_selection=[dg.AssetKey(name) for name in assets] or None,
                instance=instance,
                raise_on_error=False,
                tags={
                    "dagster/asset_partition_range_start": str(first),
                    "dagster/asset_partition_range_end": str(last),
                },
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    root = tmp_path_factory.mktemp("home")
    (root / "sites.yaml").write_text(SITES, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANALYTICS_PLATFORM_HOME", str(root))
        patch.setenv("ANALYTICS_PLATFORM_CONFIG", str(root / "sites.yaml"))
        lake = FixtureLake(root / "lake")
        lake.write("smartlook", "sessions", "shop", SATURDAY, saturday_sessions())
        lake.write("smartlook", "sessions", "shop", SUNDAY, sunday_sessions())
        lake.close()
        settings = load_settings()
        resources = dg.Definitions(resources={"platform": PlatformResource()}, executor=dg.in_process_executor)
        yield House(settings, dg.Definitions.merge(transform_definitions(settings), resources))


@pytest.fixture(scope="module")
def first_run(house: House) -> dg.ExecuteInProcessResult:
    return house.run()


def _materialized(result: dg.ExecuteInProcessResult, name: str) -> dict[str | None, Any]:
    """Partition → metadata of an asset's materialisations."""
    found = (e.step_materialization_data.materialization for e in result.all_events if e.is_step_materialization)
    return {m.partition: m.metadata for m in found if m.asset_key == dg.AssetKey(name)}


def _checks(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    found = (e.asset_check_evaluation_data for e in result.all_events if e.event_type_value == "ASSET_CHECK_EVALUATION")
    return {f"{c.asset_key.to_user_string()}.{c.check_name}": c for c in found}


def test_one_build_materialises_every_relation_and_every_day_of_those_that_have_days(
    house: House, first_run: dg.ExecuteInProcessResult
) -> None:
    assert first_run.success
    days = {str(day) for day in (SATURDAY, SUNDAY, MONDAY)}
    graph = house.definitions.resolve_asset_graph()
    for key in graph.materializable_asset_keys:
        expected = days if graph.get(key).is_partitioned else {None}
        assert set(_materialized(first_run, key.to_user_string())) == expected, key
    assert {"fct_sessions", "fct_page_views"} <= {
        key.to_user_string() for key in graph.materializable_asset_keys if graph.get(key).is_partitioned
    }
    assert {graph.get(key).group_name for key in graph.materializable_asset_keys} == set(MART_GROUPS)


def test_tests_are_checks_and_unit_tests_stay_out(house: House, first_run: dg.ExecuteInProcessResult) -> None:
    evaluated = _checks(first_run)
    declared = {
        f"{key.asset_key.to_user_string()}.{key.name}"
        for key in house.definitions.resolve_asset_graph().asset_check_keys
    }
    assert set(evaluated) == declared
    assert all(check.passed for check in evaluated.values() if check.severity == dg.AssetCheckSeverity.ERROR)
    assert "fct_sessions.fct_sessions_equals_staging" in evaluated  # a singular test over several relations


def test_an_ordinary_build_leaves_out_the_thorough_checks_and_no_others(house: House) -> None:
    graph = house.definitions.resolve_asset_graph()
    thorough = thorough_checks(house.settings).resolve_checks(graph)
    ordinary = ordinary_build(house.settings)
    assert ordinary.resolve(graph) == graph.materializable_asset_keys
    assert ordinary.resolve_checks(graph) == graph.asset_check_keys - thorough
    names = {key.name for key in ordinary.resolve_checks(graph)}
    guards = {
        "fct_sessions_equals_staging",
        "fct_daily_traffic_equals_lake",
        "int_identity_edges_none_without_a_policy",
    }
    assert guards <= names
    assert any(name.startswith("not_null_") for name in {key.name for key in thorough})
    assert not any(name.startswith("not_null_fct") for name in names)


def test_metadata_tells_columns_and_rows(house: House, first_run: dg.ExecuteInProcessResult) -> None:
    metadata = _materialized(first_run, "fct_sessions")[str(SATURDAY)]
    assert metadata["dagster/row_count"].value == 6
    assert "dagster/column_schema" not in metadata, "once in the definition, not once a day"
    defined = house.definitions.resolve_asset_graph().get(dg.AssetKey("fct_sessions")).metadata
    columns = {column.name: column for column in defined["dagster/column_schema"].columns}
    pictured = {day for day, told in _materialized(first_run, "fct_sessions").items() if "plot_shop" in told}
    assert pictured == {str(MONDAY)}, "once a run, not once a day"
    assert columns["session_date_local"].type.upper() == "DATE"
    assert columns["session_key"].description
    published = _materialized(first_run, "published")[None]
    assert published["version"].value == 1
    assert published["size_bytes"].value > 0
    assert published["window"].value == f"{SATURDAY} … {MONDAY}"


def test_what_was_built_is_published_and_current(house: House, first_run: dg.ExecuteInProcessResult) -> None:
    assert first_run.success
    catalog = Catalog.open(house.settings.home.root)
    assert len(catalog.read("fct_sessions", site="shop")) == 6
    assert len(catalog.read("stg_smartlook__sessions", SUNDAY, SUNDAY)) == 4
    assert marts_are_current(house.settings, SATURDAY, MONDAY)
    assert not marts_are_current(house.settings, date(2026, 10, 20), MONDAY)


def test_load_asset_value_gives_a_frame(house: House, first_run: dg.ExecuteInProcessResult) -> None:
    assert first_run.success
    assert len(house.definitions.load_asset_value("fct_sessions", partition_key=str(SATURDAY))) == 1
    assert len(house.definitions.load_asset_value("dim_vendor")) >= 5


def test_a_pandas_asset_may_read_but_not_write_published_tables(
    house: House, first_run: dg.ExecuteInProcessResult
) -> None:
    assert first_run.success

    @dg.asset(ins={"fct_sessions": dg.AssetIn(key="fct_sessions")}, io_manager_key="published_tables")
    def sessions_a_day(fct_sessions: Any) -> Any:
        return fct_sessions

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [sessions_a_day, *house.definitions.resolve_all_asset_specs()],
            selection=["sessions_a_day"],
            instance=instance,
            resources=dict(house.definitions.resources or {}),
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
    assert not result.success
    failure = next(e.step_failure_data for e in result.all_events if e.is_step_failure)
    assert "read-only" in str(failure.user_failure_data.description)


READER = """
import sys
from analytics_platform.catalog import Catalog
catalog = Catalog.open(sys.argv[1])
print("ready", flush=True)
reads = 0
while not sys.stdin.closed:
    assert len(catalog.read("fct_sessions")) == 6
    assert len(catalog.sql("SELECT * FROM stg_smartlook__sessions")) == 6
    reads += 1
    print(reads, flush=True)
    if sys.stdin.readline().strip() == "stop":
        break
"""


def test_dbt_again_in_this_process_while_a_notebook_reads(house: House, first_run: dg.ExecuteInProcessResult) -> None:
    """PRACTICE section 7, test 10, with a subset: exactly the asked relations and their checks."""
    assert first_run.success
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", READER, str(house.settings.home.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as notebook:
        assert notebook.stdin is not None
        assert notebook.stdout is not None
        assert notebook.stdout.readline() == "ready\n"
        notebook.stdin.write("again\n" * 40)
        notebook.stdin.flush()
        result = house.run("dim_vendor", "dim_site", first=MONDAY)
        notebook.stdin.write("stop\n")
        notebook.stdin.close()
        reads = notebook.stdout.read().split()
    assert notebook.returncode == 0
    assert len(reads) > 1
    assert result.success
    touched = {e.asset_key.to_user_string() for e in result.all_events if e.is_step_materialization and e.asset_key}
    assert touched == {"dim_vendor", "dim_site"}
    assert {name.split(".")[0] for name in _checks(result)} == touched
    assert published_version(house.settings) == 1


def test_a_failure_names_the_model_and_leaves_the_published_version(
    house: House, first_run: dg.ExecuteInProcessResult
) -> None:
    assert first_run.success
    path = house.settings.home.lake / "smartlook" / "sessions" / "site=shop" / f"day={SUNDAY}" / "part.parquet"
    kept = path.read_bytes()
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT * REPLACE ('canary@example.org' AS duration_seconds) FROM '{path}') "
            f"TO '{path}.new' (FORMAT parquet)"
        )
    Path(f"{path}.new").replace(path)
    try:
        result = house.run()
    finally:
        path.write_bytes(kept)
    assert not result.success
    failure = next(e.step_failure_data for e in result.all_events if e.is_step_failure)
    words = str(failure.user_failure_data.description)
    assert "dbt build of 2026-10-24 … 2026-10-26 failed" in words
    assert "- model " in words
    assert "smartlook" in words
    assert "skipped" in words
    assert "dbt.log" in words
    assert "canary" not in words
    assert published_version(house.settings) == 1
    assert not _materialized(result, "published")
