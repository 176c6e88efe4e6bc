"""The semantic layer: what it may add up, and that MetricFlow, asked in a shell, says what SQL says."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from analytics_platform.transform.publish import Publication
from analytics_platform_tests.dbt_project.conftest import Warehouse

ASKED_FOR = {
    "sessions",
    "views",
    "bounces",
    "bounce_rate",
    "avg_session_duration",
    "pages_per_session",
    "conversions",
    "conversion_rate_session",
    "conversion_rate_visitor_day",
    "revenue",
    "revenue_per_session",
    "new_visitor_share",
    "replay_coverage",
    "vendor_ratio_to_anchor",
    "reconciliation_breaks",
    "quota_utilisation",
    "requests_per_1k_rows",
    "avg_daily_visitors",
    "visitors_7d",
    "visitors_28d",
    "visitors_month",
}
ENTITIES = {"session", "site", "visitor_day", "campaign", "experiment"}
COUNTED_ONCE_FOR_GOOD = {"new_visitors"}
"""The one count of people that may be added: first exposures, of which each person has one."""


def _of(built: Warehouse, kind: str) -> dict[str, dict[str, Any]]:
    return {node["name"]: node for node in built.manifest()[kind].values()}


def _measures(built: Warehouse) -> list[dict[str, Any]]:
    return [measure for model in _of(built, "semantic_models").values() for measure in model["measures"]]


def _measures_of(metric: dict[str, Any], metrics: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """(measure, filter) of every simple metric below one."""
    parameters = metric["type_params"]
    if metric["type"] == "simple":
        filters = (metric["filter"] or {}).get("where_filters", [])
        text = " ".join(each["where_sql_template"] for each in filters)
        return [(parameters["measure"]["name"], text)]
    inputs = parameters.get("metrics") or []
    inputs = inputs or [parameters["numerator"], parameters["denominator"]]
    return [pair for each in inputs for pair in _measures_of(metrics[each["name"]], metrics)]


def test_every_metric_and_entity_asked_for_is_there(built: Warehouse) -> None:
    assert set(_of(built, "metrics")) >= ASKED_FOR
    entities = {entity["name"] for model in _of(built, "semantic_models").values() for entity in model["entities"]}
    assert entities >= ENTITIES


def test_visitors_are_never_summed(built: Warehouse) -> None:
    measures = _measures(built)
    assert len(measures) > 20
    for measure in measures:
        if measure["agg"] in ("sum", "sum_boolean"):
            columns = set(re.findall(r"\w*visitors\w*", re.sub(r"'[^']*'", "", str(measure["expr"]))))
            assert columns <= COUNTED_ONCE_FOR_GOOD, measure["name"]
    assert [m["agg"] for m in measures if m["name"] == "mean_daily_visitors"] == ["average"]
    windows = _of(built, "semantic_models")["visitor_windows"]["measures"]
    assert {(m["agg"], m["non_additive_dimension"]["window_choice"]) for m in windows} == {("max", "max")}


def test_two_bases_are_never_added(built: Warehouse) -> None:
    metrics = _of(built, "metrics")
    of_traffic = {measure["name"] for measure in _of(built, "semantic_models")["daily_traffic"]["measures"]}
    found = 0
    for metric in metrics.values():
        for measure, condition in _measures_of(metric, metrics):
            if measure in of_traffic:
                found += 1
                assert "basis') }} = 'common'" in condition, metric["name"]
    assert found > 10


def test_every_saved_query_names_the_vendor(built: Warehouse) -> None:
    queries = _of(built, "saved_queries")
    assert queries
    for name, query in queries.items():
        assert "Entity('vendor')" in query["query_params"]["group_by"], name
    covered = {metric for query in queries.values() for metric in query["query_params"]["metrics"]}
    assert covered >= ASKED_FOR


class Shell:
    """A home in which the small warehouse is published with one bounce of a bot; `analytics_platform.metrics` in it."""

    def __init__(self, built: Warehouse, home: Path) -> None:
        version = home / "published" / "v=1"
        version.mkdir(parents=True)
        shutil.copyfile(built.database, version / "analytics.duckdb")
        with duckdb.connect(str(version / "analytics.duckdb")) as connection:
            connection.execute("UPDATE fct_sessions SET is_suspected_bot = true WHERE vendor_session_id = 's1'")
        publication = Publication(version=1, path=version, published_at=datetime.now(UTC), row_counts={})
        (home / "published" / "current").write_bytes(publication.as_json())
        (home / "sites.yaml").write_text("sites: []\n", encoding="utf-8")
        self.home = home

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The answer of the published database to SQL."""
        with duckdb.connect(str(self.home / "published" / "v=1" / "analytics.duckdb"), read_only=True) as connection:
            return connection.execute(sql).fetchall()

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "analytics_platform.metrics", *arguments],
            env={
                **os.environ,
                "ANALYTICS_PLATFORM_HOME": str(self.home),
                "ANALYTICS_PLATFORM_CONFIG": str(self.home / "sites.yaml"),
                "TMPDIR": str(self.home),  # where a finished update check would be remembered for an hour
            },
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def query(self, *arguments: str) -> dict[str, dict[str, float | None]]:
        """Rows by vendor."""
        path = self.home / "answer.csv"
        self.run("query", *arguments, "--csv", str(path))
        with path.open(encoding="utf-8", newline="") as file:
            return {
                row.pop("vendor"): {k: float(v) if v else None for k, v in row.items()} for row in csv.DictReader(file)
            }


@pytest.mark.slow
def test_metricflow_validates_and_says_what_sql_says(built: Warehouse, tmp_path: Path) -> None:
    """Under the suite's network guard: an attempt to phone home fails the session."""
    pytest.importorskip("dbt_metricflow")
    shell = Shell(built, tmp_path)
    said = shell.run("validate-configs")
    assert said.count("ERRORS: 0, FUTURE_ERRORS: 0, WARNINGS: 0") == 6, said
    found = shell.query("--metrics", "sessions,bounce_rate", "--group-by", "vendor")
    # A session before the site's first date is in fct_sessions, and in no daily figure.
    listed = shell.rows(
        "SELECT vendor, count(DISTINCT common_session_key) FROM fct_sessions INNER JOIN dim_site USING (site_key) "
        "WHERE session_date_local >= start_date AND session_key = common_session_key AND NOT is_suspected_bot "
        "GROUP BY vendor"
    )
    counted = shell.rows(
        "SELECT vendor, sum(sessions), sum(bounces) FROM fct_daily_traffic WHERE basis = 'common' GROUP BY vendor"
    )
    flagged = dict(
        shell.rows(
            "SELECT vendor, count(*) FROM fct_sessions WHERE is_suspected_bot AND is_bounce_common GROUP BY vendor"
        )
    )
    sessions = {vendor: total for vendor, total, _ in counted} | dict(listed)
    assert flagged == {"smartlook": 1}
    assert {vendor: row["sessions"] for vendor, row in found.items()} == pytest.approx(sessions)
    for vendor, _, bounces in counted:
        expected = None if bounces is None else (bounces - flagged.get(vendor, 0)) / sessions[vendor]
        assert found[vendor]["bounce_rate"] == pytest.approx(expected), vendor
    assert not (shell.home / "update_checker_cache.pkl").exists()


def test_without_anything_published_it_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "analytics_platform.metrics", "list", "metrics"],
        env={**os.environ, "ANALYTICS_PLATFORM_HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "Nothing is published" in done.stderr
    assert "Traceback" not in done.stderr
