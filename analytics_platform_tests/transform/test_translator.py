"""Our reading of the manifest and dagster-dbt's agree, on the real project."""

from __future__ import annotations

import dagster as dg
import pytest

from analytics_platform.core.partitions import day_partitions
from analytics_platform.transform import MART_GROUPS
from analytics_platform.transform.project import PROJECT_DIRECTORY, load_manifest
from analytics_platform.transform.translator import Manifest, dagster_dbt_translator, day_column
from analytics_platform.vendors import all_tables
from analytics_platform_tests.transform.synthetic import FIRST, settings_for

PARTITIONS = day_partitions(FIRST)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    settings = settings_for(tmp_path_factory.mktemp("home"))
    return Manifest(load_manifest(settings, PROJECT_DIRECTORY))


@pytest.fixture(scope="module")
def specs(manifest: Manifest) -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in manifest.asset_specs(PARTITIONS, "published_tables")}


def test_keys_lineage_groups_and_checks_are_those_of_dagster_dbt(
    manifest: Manifest, specs: dict[str, dg.AssetSpec]
) -> None:
    from dagster_dbt.asset_utils import build_dbt_specs

    theirs, their_checks = build_dbt_specs(
        translator=dagster_dbt_translator(manifest, PARTITIONS),
        manifest=manifest.with_attached_tests(),
        select="fqn:*",
        exclude="",
        selector="",
        io_manager_key=None,
        project=None,
    )

    def shape(spec: dg.AssetSpec) -> tuple[object, ...]:
        return spec.key, frozenset(dep.asset_key for dep in spec.deps), spec.group_name, frozenset(spec.kinds)

    assert {shape(spec) for spec in specs.values()} == {shape(spec) for spec in theirs}

    def check_shape(check: dg.AssetCheckSpec) -> tuple[object, ...]:
        return check.key, check.blocking, frozenset(dep.asset_key for dep in check.additional_deps)

    assert {check_shape(check) for check in manifest.check_specs()} == {check_shape(check) for check in their_checks}


def test_a_row_can_be_followed_from_the_vendor_to_a_mart(specs: dict[str, dg.AssetSpec]) -> None:
    def upstream(name: str) -> set[str]:
        found = {dep.asset_key.to_user_string() for dep in specs[name].deps} if name in specs else set()
        return found.union(*(upstream(parent) for parent in found)) if found else found

    sources = {name for name in upstream("fct_daily_traffic") if "/" in name}
    assert {"smartlook/sessions", "inspectlet/sessions", "pirsch/daily_stats", "kissmetrics/events"} <= sources
    assert sources <= set(all_tables())


def test_every_asset_is_in_a_known_group_with_owner_and_description(specs: dict[str, dg.AssetSpec]) -> None:
    for spec in specs.values():
        assert spec.group_name in MART_GROUPS
        assert spec.owners
        assert spec.description
        assert {"dbt", "duckdb"} <= set(spec.kinds)


def test_only_what_a_build_replaces_by_days_has_days(manifest: Manifest, specs: dict[str, dg.AssetSpec]) -> None:
    """A view has no day that could be missing, and a table that is made anew each time has none either."""
    with_days = {name for name, spec in specs.items() if spec.partitions_def is not None}
    assert {specs[name].partitions_def for name in with_days} == {PARTITIONS}
    assert with_days == {
        node["name"] for node in manifest.assets if node["config"].get("incremental_strategy") == "replace_window"
    }
    assert {"fct_sessions", "fct_daily_traffic"} <= with_days
    assert not with_days & {"stg_smartlook__sessions", "dim_site", "vendor_capabilities"}


def test_marts_carry_their_columns(specs: dict[str, dg.AssetSpec]) -> None:
    schema = specs["fct_sessions"].metadata["dagster/column_schema"]
    columns = {column.name for column in schema.columns}
    assert {"vendor", "site_key", "session_date_local", "started_at_utc", "duration_seconds", "page_count"} <= columns
    assert specs["stg_smartlook__sessions"].tags["vendor"] == "smartlook"


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["vendor", "session_date_local", "partition_date"], "session_date_local"),
        (["stat_date", "session_date_local"], "stat_date"),
        (["vendor", "cohort_date_local"], "cohort_date_local"),
        (["_site", "_day"], "_day"),
        (["vendor"], None),
    ],
)
def test_the_day_column_is_found_by_name(columns: list[str], expected: str | None) -> None:
    assert day_column(columns) == expected


def test_staging_filters_on_the_partition_day_which_prunes_files(manifest: Manifest) -> None:
    pirsch = next(node for node in manifest.staging() if node["name"] == "stg_pirsch__daily_stats")
    assert day_column(["stat_date", "partition_date"], pirsch) == "partition_date"
