"""The plan before spending: what it says with and without history, that it sends nothing, and that it comes true."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from analytics_platform.cli import app
from analytics_platform.core.fetch import Fetcher, SiteContext
from analytics_platform.core.forecast import Certainty
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.planning import Plan
from analytics_platform.core.quota import spending
from analytics_platform.core.resources import open_ledger
from analytics_platform.plan import make_plan
from analytics_platform.vendors import all_tables, streams_of, vendor_names, vendor_resource
from analytics_platform_tests.conftest import DAYS, FIRST_DAY, House

DAYS_THERE = [FIRST_DAY + timedelta(days=n) for n in range(DAYS)]


def fetch(house: House, vendors: list[str], days: list, run_id: str) -> None:  # type: ignore[type-arg]
    for vendor in vendors:
        for stream in streams_of(vendor):
            for site in house.settings.sites_with(vendor):
                if stream.span == "snapshot":
                    continue
                ids = site.ids(vendor) or {}
                fetcher = Fetcher(
                    landing=Landing(house.home.landing),
                    lake=Lake(house.home.lake),
                    run_id=run_id,
                    specs_by_name=all_tables(),
                )
                with open_ledger(house.settings) as ledger, spending(stream=stream.name, site=site.key, run_id=run_id):
                    outcome = fetcher.run(
                        stream,
                        SiteContext(key=site.key, timezone=site.timezone, ids=ids),
                        days,
                        connect=lambda vendor=vendor, ids=ids, ledger=ledger: vendor_resource(vendor).connect(  # type: ignore[misc]
                            ids, ledger
                        ),
                    )
                assert outcome.error is None


def line(plan: Plan, vendor: str, stream: str, site: str = "shop"):  # type: ignore[no-untyped-def]
    (found,) = [item for item in plan.lines if (item.vendor, item.stream, item.site) == (vendor, stream, site)]
    return found


def test_without_history_it_states_a_range_and_what_the_api_alone_decides(house: House) -> None:
    plan = make_plan(house.settings, DAYS_THERE[0], DAYS_THERE[-1])
    reports = line(plan, "pirsch", "reports")
    assert (reports.requests.likely, reports.requests.certainty) == (21 * DAYS, Certainty.EXACT)
    sessions = line(plan, "smartlook", "sessions")
    assert sessions.requests.certainty is Certainty.UNKNOWN
    assert sessions.requests.low >= 1
    assert math.isinf(sessions.requests.high)
    account = next(a for a in plan.accounts if a.vendor == "smartlook" and a.sites == ("shop",))
    assert account.finishes_at_latest is None


def test_it_sends_nothing_and_writes_no_request(house: House, vendors) -> None:  # type: ignore[no-untyped-def]
    make_plan(house.settings, DAYS_THERE[0], DAYS_THERE[-1])
    assert len(vendors.requests) == 0
    with open_ledger(house.settings) as ledger:
        assert ledger.spent() == ()


def test_a_snapshot_of_the_past_is_out_of_reach(house: House) -> None:
    websites = line(make_plan(house.settings, DAYS_THERE[0], DAYS_THERE[-1]), "inspectlet", "websites")
    assert (websites.days_to_fetch, websites.days_out_of_reach, websites.requests.likely) == (0, DAYS, 0)


def test_the_plan_comes_true_where_there_is_history(house: House) -> None:
    order = vendor_names()
    fetch(house, list(order), DAYS_THERE[:3], "history")
    plan = make_plan(house.settings, DAYS_THERE[3], DAYS_THERE[3])
    fetch(house, list(order), DAYS_THERE[3:], "rest")
    with open_ledger(house.settings) as ledger:
        for item in plan.lines:
            if not item.days_to_fetch:
                continue
            spent = ledger.spent(vendor=item.vendor, stream=item.stream, site=item.site, run_id="rest")
            used = sum(row.requests for row in spent if not row.endpoint.endswith("/token"))
            assert item.requests.certainty is not Certainty.UNKNOWN, item
            assert item.requests.low - 1 <= used <= max(item.requests.high, item.requests.likely) + 3, item
    again = make_plan(house.settings, DAYS_THERE[0], DAYS_THERE[-1])
    assert again.requests.likely == 0
    assert again.spent > 0


def test_a_free_plan_takes_hours_and_says_what_the_next_plan_would_take(house: House) -> None:
    text = house.settings.config_path.read_text(encoding="utf-8")  # type: ignore[union-attr]
    house.settings.config_path.write_text(text.replace("plan: addon", "plan: free"), encoding="utf-8")  # type: ignore[union-attr]
    fetch(house, ["smartlook"], [FIRST_DAY], "history")
    now = datetime.now(UTC)
    plan = make_plan(house.settings, FIRST_DAY - timedelta(days=29), FIRST_DAY, vendors=["smartlook"], now=now)
    account = next(a for a in plan.accounts if a.sites == ("shop",))
    funnels = line(plan, "smartlook", "funnels")
    # A list and one funnel on 29 days: that alone is two hours of twenty, of which the first costs no waiting.
    assert funnels.requests.likely == 1 + 29
    assert account.window == "20 in 3600 s"
    assert account.hours >= 1
    assert account.finishes_at >= now + timedelta(hours=1)
    assert account.faster is not None
    assert account.faster.plan == "paid"
    assert account.faster.hours < account.hours


def test_a_vendor_without_credentials_is_listed_and_planned_all_the_same(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KISSMETRICS_API_TOKEN")
    plan = make_plan(house.settings, FIRST_DAY, FIRST_DAY)
    assert any("KISSMETRICS_API_TOKEN not set" in reason for reason in plan.off)
    assert [item.site for item in plan.lines if item.vendor == "kissmetrics"] == ["shop", "blog"]
    assert [account.sites for account in plan.accounts if account.vendor == "kissmetrics"] == [("shop",), ("blog",)]


def test_the_verb_prints_one_screen_and_one_json_document(house: House) -> None:
    arguments = ["plan", "--from", FIRST_DAY.isoformat(), "--to", DAYS_THERE[-1].isoformat()]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "nothing was sent" in shown.output
    assert "at least" in shown.output
    assert "cheaper: pirsch/reports" in shown.output
    document = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).output)
    assert {item["vendor"] for item in document["lines"]} == set(vendor_names())
    sessions = next(item for item in document["lines"] if item["stream"] == "sessions")
    assert sessions["requests"]["high"] is None
