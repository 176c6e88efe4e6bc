"""The rules of the dbt project, read from its manifest and from the database it built."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from analytics_platform.core.tables import Sensitivity
from analytics_platform_tests.dbt_project.conftest import PROJECT, Warehouse
from analytics_platform_tests.dbt_project.lake_fixture import table_specs

Node = dict[str, Any]

_DERIVED_IN_STAGING = {
    ("inspectlet", "session_tags"): {"kameleoon_visitor_code", "revenue"},
    ("kameleoon", "visits"): {"custom_data_events"},
    ("smartlook", "events"): {"revenue", "currency_code"},
    ("smartlook", "sessions"): {"link_ref", "link_host", "is_bot_user_agent"},
    ("inspectlet", "sessions"): {"os_name", "link_ref", "link_host", "is_bot_user_agent"},
}
"""Columns that staging makes: from a column whose other values stay in the lake, or by reading a user agent or link."""

_OUR_OWN = {
    "stg_ops__http_requests",
    "stg_ops__quota_windows",
    "stg_ops__partition_status",
    "stg_ops__partition_measures",
}
"""Staging of what the platform writes about itself: no vendor's table, and marts may read it as it is."""


_RECONCILES = ("int_anchor_days", "int_reconciliation_", "int_waterfall_")


def _nodes(built: Warehouse, kind: str) -> list[Node]:
    return [n for n in built.manifest()["nodes"].values() if n["resource_type"] == kind]


def _layer(node: Node) -> str:
    return str(node["fqn"][1])


def _columns(built: Warehouse) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for table, column in built.rows(
        "SELECT table_name, column_name FROM duckdb_columns() WHERE database_name = current_database() AND NOT internal"
    ):
        found.setdefault(table, []).append(column)
    return found


def test_every_model_states_its_grain_first(built: Warehouse) -> None:
    assert [n["name"] for n in _nodes(built, "model") if not n["description"].startswith("One row per ")] == []


def test_every_column_is_described_and_every_description_has_its_column(built: Warehouse) -> None:
    there = _columns(built)
    for node in [*_nodes(built, "model"), *_nodes(built, "seed")]:
        described = {name for name, column in node["columns"].items() if column["description"]}
        assert described == set(there[node["name"]]), node["name"]


def test_every_model_has_a_tested_key(built: Warehouse) -> None:
    keyed = {
        test["attached_node"]
        for test in _nodes(built, "test")
        if (test.get("test_metadata") or {}).get("name") == "unique_combo"
    }
    assert [n["name"] for n in _nodes(built, "model") if n["unique_id"] not in keyed] == []


def test_staging_reads_one_source_and_nothing_else(built: Warehouse) -> None:
    for node in _nodes(built, "model"):
        if _layer(node) == "staging":
            (parent,) = node["depends_on"]["nodes"]
            vendor, table = node["name"].removeprefix("stg_").split("__")
            assert parent == f"source.analytics_platform.{vendor}.{table}"


def test_only_staging_reads_sources_and_layers_point_forward(built: Warehouse) -> None:
    allowed = {"staging": set(), "intermediate": {"staging", "intermediate"}, "marts": {"intermediate", "marts"}}
    history = "model.analytics_platform.fct_daily_traffic"  # of sixty days: more than any window holds
    nodes = built.manifest()["nodes"]
    for node in _nodes(built, "model"):
        for parent in node["depends_on"]["nodes"]:
            if parent == history:
                assert _layer(node) == "marts" or node["name"].startswith(_RECONCILES), node["name"]
            elif parent.startswith("model.") and not (_layer(node) == "marts" and nodes[parent]["name"] in _OUR_OWN):
                assert _layer(nodes[parent]) in allowed[_layer(node)], (node["name"], parent)
            elif parent.startswith("source."):
                assert _layer(node) == "staging", node["name"]


def test_marts_have_enforced_contracts(built: Warehouse) -> None:
    marts = [n for n in _nodes(built, "model") if _layer(n) == "marts"]
    assert marts
    assert [n["name"] for n in marts if not n["config"]["contract"]["enforced"]] == []
    # A contract without a type holds nothing.
    assert [(n["name"], c["name"]) for n in marts for c in n["columns"].values() if not c["data_type"]] == []


def test_incremental_models_replace_their_window(built: Warehouse) -> None:
    for node in _nodes(built, "model"):
        if node["config"]["materialized"] == "incremental":
            strategy, meta = node["config"]["incremental_strategy"], node["config"]["meta"]
            # A row a person and not a date is replaced by its key; rebuild equality holds for both.
            assert strategy == ("replace_rows" if node["name"] == "dim_visitor" else "replace_window")
            assert meta["row_key" if strategy == "replace_rows" else "window_column"] in node["columns"]


def test_no_column_is_called_day_or_date(built: Warehouse) -> None:
    assert [(t, c) for t, cs in _columns(built).items() for c in cs if c in ("day", "date")] == []


def test_there_is_a_staging_model_and_a_source_for_every_lake_table(built: Warehouse) -> None:
    expected = {f"stg_{vendor}__{table}" for vendor, table in table_specs()}
    assert {n["name"] for n in _nodes(built, "model") if _layer(n) == "staging"} == expected | _OUR_OWN
    sources = [source for source in built.manifest()["sources"].values() if source["source_name"] != "ops"]
    keys = {tuple(s["meta"]["dagster"]["asset_key"]) for s in sources}
    assert keys == set(table_specs())


@pytest.mark.parametrize("asset_key", sorted(table_specs()), ids="/".join)
def test_staging_carries_every_public_lake_column_and_no_personal_one(
    built: Warehouse, asset_key: tuple[str, str]
) -> None:
    spec = table_specs()[asset_key]
    hidden = {c.name for c in spec.columns if c.sensitivity in (Sensitivity.PERSONAL, Sensitivity.SECRET)}
    derived = _DERIVED_IN_STAGING.get(asset_key, set())
    expected = {c.name for c in spec.columns} - hidden | {"site_key", "partition_date", "landed_at", "run_id"} | derived
    assert set(_columns(built)[f"stg_{spec.vendor}__{spec.name}"]) == expected


@pytest.mark.parametrize("path", sorted((PROJECT / "models").rglob("*.sql")), ids=lambda p: p.stem)
def test_a_model_is_a_page_of_named_steps(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 160, "readable without a map"
    assert re.search(r"^with (recursive )?\w+ as \(\n", text, re.MULTILINE)
    assert re.search(r"\nselect \* from \w+(\nwhere .*)?\n$", text)
    assert "union_by_name" not in text, "the lake is read by lake_source only"


def test_the_project_needs_no_package_and_sends_nothing() -> None:
    assert not (PROJECT / "packages.yml").exists()
    assert not (PROJECT / "dependencies.yml").exists()
    assert "send_anonymous_usage_stats: false" in (PROJECT / "dbt_project.yml").read_text()


def test_no_two_tests_share_a_name(built: Warehouse) -> None:
    names = Counter(n["name"] for n in _nodes(built, "test"))
    # Dagster knows a check by its name: two of one name end the step when the second reports.
    assert [name for name, times in names.items() if times > 1] == []
