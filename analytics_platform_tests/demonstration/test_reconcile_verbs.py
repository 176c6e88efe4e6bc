"""`reconcile` and `explain` on the demo: the numbers add up, and what was planted is named."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from analytics_platform.catalog import Catalog
from analytics_platform.cli import app
from analytics_platform.core.errors import ConfigurationError
from analytics_platform.reconcile.report import RECONCILED_METRICS, WINDOWED_METRICS, explain, reconcile
from analytics_platform.settings import HOME_VARIABLE

CAP_BEGINS = date(2026, 10, 24)
BURST = date(2026, 10, 14)


@pytest.fixture
def run(demonstrated: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A verb in this process: its output, after it ended well."""
    monkeypatch.setenv(HOME_VARIABLE, str(demonstrated))

    def invoke(*arguments: str) -> str:
        done = CliRunner().invoke(app, list(arguments))
        assert done.exit_code == 0, done.output
        return done.output

    return invoke


def test_every_gap_is_the_sum_of_its_parts(catalog: Catalog) -> None:
    days = [reconcile(catalog, day) for day in (BURST, CAP_BEGINS)]
    gaps = [gap for reports in days for report in reports for gap in report.gaps]
    assert {gap.vendor for gap in gaps} >= {"smartlook", "inspectlet"}
    for gap in gaps:
        assert gap.anchor_value + sum(part.effect for part in gap.parts) == pytest.approx(gap.vendor_value, abs=1e-6)
        assert gap.parts[-1].component == "unexplained"


def test_the_plan_cap_is_the_break_of_its_day_and_its_largest_cause(catalog: Catalog) -> None:
    (report,) = reconcile(catalog, CAP_BEGINS, sites=["shop"], metrics=["sessions"])
    line = next(line for line in report.lines if line.vendor == "smartlook")
    assert (line.status, line.change_point_date) == ("break", CAP_BEGINS)
    gap = next(gap for gap in report.gaps if gap.vendor == "smartlook")
    assert gap.causes[0].component == "sampling"
    others = {line.vendor: line.status for line in report.lines if line.vendor != "smartlook"}
    assert "break" not in others.values()


def test_bots_are_the_largest_cause_of_the_bursts_day_and_no_break(catalog: Catalog) -> None:
    (report,) = reconcile(catalog, BURST, sites=["shop"], metrics=["sessions"])
    assert "break" not in {line.status for line in report.lines}
    for gap in report.gaps:
        assert gap.causes[0].component == "bots", gap.vendor


def test_the_screen_shows_vendors_parts_and_causes(run: Any, tmp_path: Path) -> None:
    shown = run("reconcile", str(CAP_BEGINS), "--site", "shop", "--metric", "sessions", "--plot", str(tmp_path))
    assert "shop, 2026-10-24: sessions (" in shown
    assert "break since 2026-10-24" in shown
    assert "plan cap" in shown
    assert "unexplained" in shown
    pictures = sorted(path.name for path in tmp_path.iterdir())
    assert "waterfall_shop_2026-10-24_sessions_smartlook.png" in pictures
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in pictures)


def test_json_holds_what_the_screen_shows(run: Any) -> None:
    found = json.loads(run("reconcile", str(CAP_BEGINS), "--site", "shop", "--json"))
    assert [report["metric"] for report in found] == list(RECONCILED_METRICS)
    assert all(report["vendor_count"] <= report["expected_vendor_count"] for report in found)


def test_a_definition_says_what_it_does_to_the_number(run: Any, catalog: Catalog) -> None:
    shown = run("explain", "bounce_rate", "--site", "shop")
    for words in ("pirsch", "not offered", "What the definition does to the number", "Bounces divided by sessions"):
        assert words in shown
    report = explain(catalog, "sessions", day=date(2026, 10, 20), sites=["shop"])
    smartlook = next(each for each in report.differences if each.vendor == "smartlook")
    # Fifteen idle minutes cut what thirty do not: the common definition can only merge.
    assert smartlook.native is not None
    assert smartlook.common is not None
    assert smartlook.common < smartlook.native


@pytest.mark.parametrize("metric", WINDOWED_METRICS)
def test_visitors_of_windows_are_defined_by_vendor_with_why_some_have_none(
    run: Any, catalog: Catalog, metric: str
) -> None:
    day = date(2026, 10, 20)
    report = explain(catalog, metric, day=day, sites=["shop"])
    assert {(each.vendor, each.basis): each.reason_null for each in report.definitions} == {
        **{(vendor, "native"): None for vendor in ("smartlook", "inspectlet", "kameleoon")},
        **{(vendor, "common"): "native_only" for vendor in ("smartlook", "inspectlet", "kameleoon")},
        **{("pirsch", basis): "needs_request_per_window" for basis in ("native", "common")},
        **{("kissmetrics", basis): "not_offered" for basis in ("native", "common")},
    }
    windows = catalog.read("fct_visitor_windows", day, day, site="shop")
    told = {each.vendor: each.native for each in report.differences}
    assert told == {
        row.vendor: None if pd.isna(getattr(row, metric)) else getattr(row, metric) for row in windows.itertuples()
    }
    assert (told["pirsch"], told["kissmetrics"]) == (None, None)
    # The demo begins within the month, and its twenty-eighth date is past this one.
    assert (told["smartlook"] is None) == (metric != "visitors_7d")
    shown = " ".join(run("explain", metric, "--day", str(day), "--site", "shop").split())
    assert f"What {metric} means" in shown
    assert "not offered" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("reconcile", "2031-01-01"), "No vendor was reconciled on 2031-01-01"),
        (("reconcile", "2026-10-24", "--metric", "joy"), "'joy' is not reconciled"),
        (("explain", "joy"), "There is no metric 'joy'"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(
    demonstrated: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(demonstrated))
    failed = CliRunner().invoke(app, list(arguments))
    assert failed.exit_code != 0
    assert isinstance(failed.exception, ConfigurationError)
    assert words in str(failed.exception)
    assert failed.exception.next_step
