"""The rules of dbt-project-evaluator that are not in test_project_rules, as our own: no hub package is installed.

Names and folders, references, fan-out, chains of views, keys, documentation where it belongs; and this project's own: a
vendor's name is in a vendor's folder, and every contradiction of MARTS §3.3 has a test of its name.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from analytics_platform_tests.dbt_project.conftest import PROJECT, Warehouse
from analytics_platform_tests.dbt_project.lake_fixture import VENDORS

Node = dict[str, Any]

CONTRADICTIONS = (
    "assert_inspectlet_duration_unit",
    "assert_inspectlet_page_count_consistent",
    "assert_inspectlet_country_is_iso3166",
    "assert_inspectlet_filter_units",
    "assert_pirsch_bounce_rate_basis",
    "assert_pirsch_goal_units",
    "assert_pirsch_os_version_endpoint",
    "assert_pirsch_breakdown_not_truncated",
    "assert_kissmetrics_total_monotone",
    "assert_kissmetrics_metric_status_type",
    "assert_kameleoon_ms_epoch",
    "assert_smartlook_cursor_not_persisted",
)
"""MARTS §3.3."""

ROOTS = {
    "dim_channel": "its rows are the rules of the macro channel_group",
    "dim_date": "a calendar comes from nowhere",
    "int_sites_mapped": "reads the configuration, which is no vendor's table",
}
"""Models without a parent, and why."""

NAMES_A_VENDOR = {
    "int_audience_days",
    "int_coded_conversions",
    "int_coded_sessions",
    "int_conversions_unseen",
    "int_daily_native",
    "int_site_days",
    "fct_daily_traffic",
}
"""Models outside a vendor's folder that name one nevertheless. The list may only shrink."""

LONGEST_CHAIN_OF_VIEWS = 6

_FOLDERS = {
    "staging": r"stg_(?P<vendor>[a-z]+)__[a-z_0-9]+",
    "intermediate": r"int_[a-z_0-9]+",
    "marts": r"(fct|dim)_[a-z_0-9]+",
}


def _models(built: Warehouse) -> dict[str, Node]:
    return {key: n for key, n in built.manifest()["nodes"].items() if n["resource_type"] == "model"}


def test_names_say_the_layer_and_the_folder_says_the_vendor(built: Warehouse) -> None:
    for node in _models(built).values():
        layer, *below = node["fqn"][1:-1]
        assert re.fullmatch(_FOLDERS[layer], node["name"]), node["name"]
        named = re.fullmatch(r"(?:stg|int)_([a-z]+)__.*", node["name"])
        vendor = named.group(1) if named and named.group(1) in (*VENDORS, "ops") else None
        if layer != "marts":
            assert below == ([vendor] if vendor else []), (node["name"], below)


def test_a_model_is_described_in_its_own_folder(built: Warehouse) -> None:
    for node in _models(built).values():
        described = Path(str(node["patch_path"]).split("://")[-1])
        assert described.parent == Path(node["original_file_path"]).parent, node["name"]


def test_models_reference_and_never_name_a_relation(built: Warehouse) -> None:
    direct = re.compile(
        r"\b(?:from|join)\s+(?:[a-z_]+\.)?\"?main\"?\.|\b(?:from|join)\s+(?:stg|int|fct|dim)_", re.IGNORECASE
    )
    assert [n["name"] for n in _models(built).values() if direct.search(n["raw_code"])] == []


def test_a_source_is_read_by_one_model(built: Warehouse) -> None:
    readers: dict[str, list[str]] = {key: [] for key in built.manifest()["sources"]}
    for node in _models(built).values():
        for parent in node["depends_on"]["nodes"]:
            if parent in readers:
                readers[parent].append(node["name"])
    assert {key: names for key, names in readers.items() if len(names) != 1} == {}


def test_no_intermediate_model_leads_nowhere(built: Warehouse) -> None:
    models = _models(built)
    read = {parent for node in models.values() for parent in node["depends_on"]["nodes"]}
    unread = {n["name"] for key, n in models.items() if n["fqn"][1] == "intermediate" and key not in read}
    assert unread == set()


def test_only_known_models_have_no_parent(built: Warehouse) -> None:
    rootless = {n["name"] for n in _models(built).values() if not n["depends_on"]["nodes"]}
    assert rootless == set(ROOTS)


def test_views_do_not_pile_up(built: Warehouse) -> None:
    models = _models(built)

    @cache
    def height(key: str) -> int:
        node = models.get(key)
        if node is None or node["config"]["materialized"] != "view":
            return 0
        return 1 + max(map(height, node["depends_on"]["nodes"]), default=0)

    assert {n["name"]: height(key) for key, n in models.items() if height(key) > LONGEST_CHAIN_OF_VIEWS} == {}


def test_a_mart_has_a_key_and_a_test_of_more_than_its_key(built: Warehouse) -> None:
    kinds: dict[str, set[str]] = {}
    for node in built.manifest()["nodes"].values():
        if node["resource_type"] == "test" and node.get("attached_node"):
            kinds.setdefault(node["attached_node"], set()).add(node["test_metadata"]["name"])
    for key, node in _models(built).items():
        if node["fqn"][1] == "marts":
            found = kinds.get(key, set())
            assert found & {"unique_combo", "unique"}, node["name"]
            assert found - {"unique_combo", "unique", "not_null"}, node["name"]


def test_incremental_models_filter_their_window_on_every_build(built: Warehouse) -> None:
    """Also on the first: a model that looks only at what it held before is not the same after a full refresh."""
    for node in _models(built).values():
        if node["config"].get("incremental_strategy") == "replace_window":
            assert "is_incremental" not in node["raw_code"], node["name"]
            assert "{{ this }}" not in node["raw_code"], node["name"]


def test_a_vendor_is_named_in_its_own_folder_only(built: Warehouse) -> None:
    words = re.compile(
        r"\b(?:" + "|".join(VENDORS) + r")\b|__(?:" + "|".join(VENDORS) + r")\b|_(?:" + "|".join(VENDORS) + r")__"
    )
    named = {
        n["name"]
        for n in _models(built).values()
        if not any(folder in VENDORS for folder in n["fqn"]) and words.search(_without_comments(n["raw_code"]))
    }
    assert named == NAMES_A_VENDOR


def _without_comments(sql: str) -> str:
    return re.sub(r"--[^\n]*|\{#.*?#\}", "", sql, flags=re.DOTALL)


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_contradiction_of_the_documents_has_a_test_of_its_name(built: Warehouse, name: str) -> None:
    tests = {n["name"] for n in built.manifest()["nodes"].values() if n["resource_type"] == "test"}
    wire = (PROJECT.parent / "analytics_platform_tests" / "vendors" / "test_contradictions.py").read_text()
    assert name in tests or f"def test_{name}(" in wire


@pytest.mark.parametrize("path", sorted((PROJECT / "tests" / "singular").glob("*.sql")), ids=lambda p: p.stem)
def test_a_singular_test_says_in_its_first_line_what_is_true(path: Path) -> None:
    first, second = path.read_text().splitlines()[:2]
    assert first.startswith("-- ")
    assert len(first) > 40
    assert "warns" not in first.lower() or "severity='warn'" in path.read_text()
    assert second is not None
