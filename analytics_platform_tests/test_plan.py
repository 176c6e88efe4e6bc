"""The plan before spending: what it says with and without history, and that it sends nothing. That it comes true is
shown in `simulation/test_backfill`.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from analytics_platform.cli import app
from analytics_platform.core.fetch import Fetcher, SiteContext
from analytics_platform.core.forecast import Certainty, Forecast
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.planning import AccountPlan, Plan
from analytics_platform.core.quota import spending
from analytics_platform.core.resources import open_ledger
from analytics_platform.plan import make_plan
from analytics_platform.plan_cli import waits
from analytics_platform.settings import Home
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
    # Ten to ten thousand visits a day, a hundred a page.
    assert (sessions.requests.low, sessions.requests.high) == (1, 100 * DAYS)
    for item in plan.lines:
        assert math.isfinite(item.requests.high), item
    account = next(a for a in plan.accounts if a.vendor == "smartlook" and a.sites == ("shop",))
    assert account.finishes_at_latest is not None
    assert account.finishes_at_latest > account.finishes_at


def test_todays_snapshot_is_planned_by_a_stated_range_before_the_first(house: House) -> None:
    now = datetime.now(UTC)
    plan = make_plan(house.settings, now.date(), now.date(), vendors=["kissmetrics"], now=now)
    catalogue = line(plan, "kissmetrics", "catalogue")
    # Product, account, and four lists of one to ten pages.
    assert (catalogue.requests.low, catalogue.requests.high) == (6, 42)


def test_what_another_vendor_has_landed_of_the_same_visits_narrows_the_range(house: House) -> None:
    fetch(house, ["inspectlet"], DAYS_THERE[:3], "history")
    sessions = line(make_plan(house.settings, DAYS_THERE[0], DAYS_THERE[-1]), "smartlook", "sessions")
    assert sessions.requests.certainty is Certainty.RELATED
    assert sessions.requests.high < 10
    shown = CliRunner().invoke(app, ["plan", "smartlook", f"{DAYS_THERE[0]}..{DAYS_THERE[-1]}"])
    assert "3 days of another vendor" in shown.output


def test_it_sends_nothing_and_writes_no_request(house: House, vendors) -> None:  # type: ignore[no-untyped-def]
    make_plan(house.settings, DAYS_THERE[0], DAYS_THERE[-1])
    assert len(vendors.requests) == 0
    with open_ledger(house.settings) as ledger:
        assert ledger.spent() == ()


def test_a_snapshot_of_the_past_is_out_of_reach(house: House) -> None:
    websites = line(make_plan(house.settings, DAYS_THERE[0], DAYS_THERE[-1]), "inspectlet", "websites")
    assert (websites.days_to_fetch, websites.days_out_of_reach, websites.requests.likely) == (0, DAYS, 0)


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
    arguments = ["plan", f"{FIRST_DAY}..{FIRST_DAY + timedelta(days=29)}"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "nothing was sent" in shown.output
    assert "3 to 3,000" in shown.output
    assert "the range is that of a site with 10 to 10,000 visits a day" in shown.output
    assert "1,000 an hour" in shown.output
    # One line for both sites, not one each.
    assert shown.output.count("cheaper: pirsch/reports (shop, blog) for 0 instead of 1,260 requests") == 1
    document = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).output)
    assert {item["vendor"] for item in document["lines"]} == set(vendor_names())
    sessions = next(item for item in document["lines"] if item["stream"] == "sessions")
    assert sessions["requests"]["high"] > sessions["requests"]["low"]


def test_vendors_and_days_may_be_said_in_words_or_options(house: House) -> None:
    last = DAYS_THERE[-1]
    in_words = CliRunner().invoke(app, ["plan", "pirsch", "kissmetrics", f"{FIRST_DAY}..{last}", "--json"])
    options = ["--vendor", "pirsch", "--vendor", "kissmetrics", "--from", f"{FIRST_DAY}", "--to", f"{last}"]
    by_options = CliRunner().invoke(app, ["plan", *options, "--json"])
    assert json.loads(in_words.output)["lines"] == json.loads(by_options.output)["lines"]
    one_day = json.loads(CliRunner().invoke(app, ["plan", f"{FIRST_DAY}", "pirsch", "--json"]).output)
    assert (one_day["first_day"], one_day["last_day"]) == (f"{FIRST_DAY}", f"{FIRST_DAY}")
    assert {item["vendor"] for item in one_day["lines"]} == {"pirsch"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "which days?"),
        (["pirsch"], "which days?"),
        (["hotjar", "2026-10-05..2026-10-06"], "'hotjar' is no vendor"),
        (["2026-10-05..2026-10-06", "--from", "2026-10-05"], "said twice"),
        (["2026-10-06..2026-10-05"], "is before"),
        (["2026-10-05..2026-13-01"], "is not a day"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_word(home: Home, words: list[str], says: str) -> None:
    refused = CliRunner().invoke(app, ["plan", *words])
    assert refused.exit_code == 2
    assert says in " ".join(refused.output.replace("│", " ").split())


def test_waiting_is_told_in_units_that_fit() -> None:
    made_at = datetime(2026, 10, 5, tzinfo=UTC)

    def told(likely_hours: float, latest_hours: float | None) -> str:
        latest = None if latest_hours is None else made_at + timedelta(hours=latest_hours)
        account = AccountPlan(
            account="acme:1",
            vendor="acme",
            sites=("shop",),
            window="20 in 3600 s",
            limit=20,
            window_seconds=3600.0,
            used=0,
            remaining=20,
            reserve=0,
            requests=Forecast.exactly(1),
            hours=likely_hours,
            finishes_at=made_at + timedelta(hours=likely_hours),
            finishes_at_latest=latest,
        )
        return waits(account, made_at)

    assert told(0, 0) == "no wait"
    assert told(0, 0.01) == "up to 1 minute"
    assert told(0.05, 0.1) == "3 to 6 minutes"
    assert told(19, 23) == "19.0 to 23.0 hours"
    assert told(3, 3687) == "3.0 hours to 154 days"
    assert told(3, None) == "at least 3.0 hours"
