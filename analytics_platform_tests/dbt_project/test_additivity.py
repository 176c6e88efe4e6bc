"""No model and no metric adds people up: not over dates, not over pages, not over vendors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from analytics_platform_tests.dbt_project.additivity import PeopleColumns
from analytics_platform_tests.dbt_project.conftest import Warehouse

_ONE_ARM = "a visitor enters one arm of an experiment, once"
_ONE_COUNTRY = "a visitor of a date has one country: over the countries of a date nobody is counted twice"
_WEIGHTS = "visitor-dates as the weights of a ratio; the sum itself is shown nowhere"
ALLOWED = {
    ("int_pirsch__breakdown_lists", "SUM(listed.visitors)"): (
        "the rest of a cut list; used only where a visitor, who is an address and a user agent, has one value"
    ),
    ("fct_campaign_daily", "SUM(visitors)"): "an upper bound, in a column that is called so",
    ("fct_experiment_counts_daily", "SUM(COALESCE(joined.new_visitors, 0))"): _ONE_ARM,
    ("fct_experiment_results_daily", "SUM(running.visitors)"): _ONE_ARM,
    ("fct_experiment_results_daily", "SUM(running.flipped_visitors)"): _ONE_ARM,
    (
        "fct_experiment_results_daily",
        "SUM(CASE WHEN planned_share > 0 THEN POWER(visitors - expected_visitors, 2) / expected_visitors END)",
    ): "the statistic of a chi-square test over arms",
    ("int_pirsch__measured_countries", "SUM(countries.visitors)"): _ONE_COUNTRY,
    ("int_pirsch__measured_hours", "SUM(hours.visitors)"): "another zone's date out of hours; marked approx",
    ("int_acceptance_days", "SUM(measured.visitors)"): _ONE_COUNTRY,
    ("int_acceptance_days", "SUM(anchor.visitors)"): _ONE_COUNTRY,
    ("int_acceptance_days", "SUM(SUM(anchor.visitors))"): _ONE_COUNTRY,
    ("int_acceptance_ratios", "SUM(visitors)"): _WEIGHTS,
    ("int_acceptance_ratios", "SUM(anchor_visitors * site_factor)"): _WEIGHTS,
    ("int_waterfall_effects", "SUM(anchor_visitors * visitors_ratio)"): _ONE_COUNTRY,
    ("int_waterfall_effects", "SUM(anchor_visitors * visitors_ratio * site_factor)"): _ONE_COUNTRY,
}
"""Sums of people that count them rightly, and why. Anything else is wrong."""
ALLOWED_MEASURES = {
    ("experiment_days", "arm_entries"): "a visitor enters an arm once, on the date of the first exposure",
}


@pytest.mark.parametrize(
    "sql",
    [
        pytest.param("select sum(visitors) from days", id="plainly"),
        pytest.param("with a as (select visitors as n from days) select sum(n) from a", id="renamed"),
        pytest.param(
            "with a as (select visitors as n from days), b as (select * from a union all by name select 1 as n) "
            "select sum(n) over (partition by site_key order by stat_date) from b",
            id="through-a-star-a-union-and-a-window",
        ),
        pytest.param(
            "with a as (select d, count(distinct vendor_visitor_id) as n from s group by d) select sum(n) from a",
            id="counted-here",
        ),
        pytest.param("select sum(case when vendor = 'a' then unique_visitors end) from days", id="in-a-case"),
        pytest.param("with a as (select coalesce(visitors, 0) as n from days) select sum(n) from a", id="coalesced"),
    ],
)
def test_a_sum_of_people_is_found(sql: str) -> None:
    assert PeopleColumns().sums_in(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "select sum(views) from days where visitors > 1",
        "select sum(views) filter (visitors > 1) from days",
        "select sum(views) over (partition by vendor_visitor_id) from days",
        "select avg(visitors), max(visitors) from days",
        "with a as (select case when visitors > 0 then sessions end as n from days) select sum(n) from a",
        "with a as (select count(*) as n from s group by vendor_visitor_id) select sum(n) from a",
    ],
)
def test_a_sum_beside_people_is_none(sql: str) -> None:
    assert PeopleColumns().sums_in(sql) == []


def test_people_stay_people_in_the_next_model_whatever_they_are_called() -> None:
    columns = PeopleColumns()
    assert columns.read("first", "select stat_date, visitors as n, views as m from days") == []
    assert columns.read("second", 'select stat_date, n as k, m from "warehouse"."main"."first"') == []
    assert columns.sums_in('select sum(k) from "warehouse"."main"."second"')
    assert columns.sums_in('select sum(m) from "warehouse"."main"."second"') == []


def test_no_model_adds_people_up(built: Warehouse) -> None:
    columns = PeopleColumns()
    found = {(name, total) for name, sql in _in_order(built) for total in columns.read(name, sql)}
    wrong = found - set(ALLOWED)
    assert not wrong, "\n".join(map(repr, sorted(wrong)))
    assert set(ALLOWED) - found == set(), "an exception nobody needs"
    assert ("fct_daily_traffic", "visitors") in columns.known
    assert ("fct_event_daily", "unique_visitors") in columns.known


def test_no_metric_adds_people_up(built: Warehouse) -> None:
    """Measures of the semantic layer, where there is one: people are averaged or taken as they are."""
    manifest = built.manifest()
    columns = PeopleColumns()
    for model in manifest.get("semantic_models", {}).values():
        for measure in model["measures"]:
            if str(measure["agg"]).lower().startswith("sum"):
                expression = measure.get("expr") or measure["name"]
                found = columns.sums_in(f"select sum({expression}) from t")
                assert not found or (model["name"], measure["name"]) in ALLOWED_MEASURES, (model["name"], measure)


def _in_order(built: Warehouse) -> Iterator[tuple[str, str]]:
    """Compiled SQL of every model above staging, after those it reads. Staging renames and adds nothing up."""
    nodes: Mapping[str, Any] = {
        key: node
        for key, node in built.manifest()["nodes"].items()
        if node["resource_type"] == "model" and node["fqn"][1] != "staging" and node["language"] == "sql"
    }
    compiled = json.loads((built.folder / "target" / "run_results.json").read_text())["results"]
    code = {result["unique_id"]: result["compiled_code"] for result in compiled if result.get("compiled_code")}
    done: set[str] = set()

    def visit(key: str) -> Iterator[tuple[str, str]]:
        if key in done or key not in nodes:
            return
        done.add(key)
        for parent in nodes[key]["depends_on"]["nodes"]:
            yield from visit(parent)
        yield nodes[key]["name"], code[key]

    for key in nodes:
        yield from visit(key)
