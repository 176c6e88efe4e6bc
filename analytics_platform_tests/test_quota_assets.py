"""Quota in the UI: what an observation says after requests were spent, refused, repeated and deferred."""

from __future__ import annotations

import base64
import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from analytics_platform.core.fetch import Fetcher, SiteContext
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.quota import spending
from analytics_platform.core.resources import PlatformResource, open_ledger
from analytics_platform.quota_assets import quota_definitions
from analytics_platform.quota_report import report_quota
from analytics_platform.vendors import all_tables, streams_of, vendor_names, vendor_resource
from analytics_platform_tests.conftest import FIRST_DAY, House


def observe(house: House, vendor: str) -> dict[str, Any]:
    """The metadata of one observation, by value."""
    definitions = quota_definitions(house.settings)
    (observed,) = definitions.assets or ()
    assert isinstance(observed, dg.AssetsDefinition)
    result = dg.materialize(
        [observed], selection=[dg.AssetKey(["quota", vendor])], resources={"platform": PlatformResource()}
    )
    (event,) = result.get_asset_observation_events()
    return {name: entry.value for name, entry in event.asset_observation_data.asset_observation.metadata.items()}


def spend(house: House, vendor: str, stream_name: str, site: str = "shop") -> int:
    """Fetch one day of a stream; how many requests that cost."""
    (stream,) = [stream for stream in streams_of(vendor) if stream.name == stream_name]
    chosen = house.settings.site(site)
    ids = chosen.ids(vendor) or {}
    fetcher = Fetcher(
        landing=Landing(house.home.landing), lake=Lake(house.home.lake), run_id="r", specs_by_name=all_tables()
    )
    with open_ledger(house.settings) as ledger, spending(stream=stream_name, site=site, run_id="r"):
        outcome = fetcher.run(
            stream,
            SiteContext(key=site, timezone=chosen.timezone, ids=ids),
            [FIRST_DAY],
            connect=lambda: vendor_resource(vendor).connect(ids, ledger),
        )
        assert outcome.error is None
        return sum(row.requests for row in ledger.spent(vendor=vendor, stream=stream_name))


def test_an_observation_has_what_the_ledger_knows_as_numbers(house: House) -> None:
    spent = spend(house, "smartlook", "sessions")
    found = observe(house, "smartlook")
    assert found["requests_24h"] == found["requests_24h_sessions"] == spent >= 1
    # Two tokens, two accounts: the tightest one plain, each with its site.
    assert (found["limit"], found["used"], found["remaining"]) == (1000, spent, 1000 - spent)
    assert (found["used_shop"], found["used_blog"]) == (spent, 0)
    assert found["window_seconds"] == 3600
    soon = datetime.now(UTC) + timedelta(hours=1)
    assert abs(found["resets_at"] - soon.timestamp()) < 120
    assert found["refused_429_24h"] == found["waste_refetched_pages_24h"] == found["deferred_batches"] == 0


def test_the_picture_is_a_png(house: House) -> None:
    spend(house, "pirsch", "daily_stats")
    (encoded,) = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)\)", observe(house, "pirsch")["last_48_hours"])
    assert base64.b64decode(encoded).startswith(b"\x89PNG")


def test_refusals_and_deferred_work_are_counted(house: House) -> None:
    resource = vendor_resource("smartlook")
    policy = resource.quota_policy(house.settings.site("shop").ids("smartlook") or {})
    with open_ledger(house.settings) as ledger:
        ledger.declare(policy)
        ledger.learn(policy.account, "any", policy.windows_for("any"), endpoint="GET /x", status=429)
        ledger.defer(
            vendor="smartlook",
            stream="sessions",
            site="shop",
            first_day=date(2026, 10, 1),
            last_day=date(2026, 10, 2),
            resume_at=datetime.now(UTC),
            reason="spent",
        )
    found = observe(house, "smartlook")
    assert (found["refused_429_24h"], found["deferred_batches"]) == (1, 1)
    assert (found["remaining"], found["remaining_shop"], found["remaining_blog"]) == (0, 0, 1000)


@pytest.mark.parametrize("vendor", vendor_names())
def test_every_vendor_is_observed_before_anything_was_sent(house: House, vendor: str) -> None:
    found = observe(house, vendor)
    assert found["requests_24h"] == found["used"] == 0
    assert found["remaining"] == found["limit"] > 0


def test_a_window_begun_anew_is_waste(house: House) -> None:
    spend(house, "smartlook", "sessions")
    (batch,) = Landing(house.home.landing).batches("smartlook", "sessions", "shop")
    index = batch.path / "pages.jsonl"
    lines = index.read_bytes()
    index.write_bytes(lines + lines.splitlines(keepends=True)[0])
    (batch.path / "batch.json").unlink()
    with open_ledger(house.settings) as ledger:
        report = report_quota(house.settings, "smartlook", ledger, datetime.now(UTC))
    assert report.waste.refetched_pages == 1
