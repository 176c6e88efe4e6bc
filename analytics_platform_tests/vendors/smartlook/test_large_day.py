"""A day with more pages of sessions than the free plan has requests an hour: against the sandbox, hour by hour."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.fetch import Fetcher, SiteContext
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.quota import Ledger, QuotaPolicy, Window, account_key
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import generate
from analytics_platform.vendors import all_tables, streams_of
from analytics_platform.vendors.smartlook.client import Filter, SmartlookClient
from analytics_platform.vendors.smartlook.tables import SESSIONS

DAY = date(2026, 10, 5)
SITE = SiteContext(key="shop", timezone="Europe/Berlin", ids={"plan": "free"})


@pytest.mark.parametrize(
    ("scale", "overhead"),
    [pytest.param(20.0, 1, id="both ends meet"), pytest.param(50.0, 12, id="by durations")],
)
def test_it_is_there_after_as_many_hours_as_it_has_quotas(tmp_path: Path, scale: float, overhead: int) -> None:
    clock = ManualClock(datetime(2026, 11, 21, 12, tzinfo=UTC))
    profiles: dict[str, dict[str, object]] = {"smartlook": {"plan": "free", "cursor_seconds": 600.0}}
    sandbox = Sandbox(generate(first_day=DAY, days=1, scale=scale), vendors=["smartlook"], profiles=profiles)
    sandbox.context.monotonic = clock.monotonic
    (stream,) = (each for each in streams_of("smartlook") if each.name == "sessions")
    with sandbox, Ledger.open(tmp_path / "ledger.db", clock) as ledger:
        policy = QuotaPolicy(account=account_key("smartlook", "shop"), windows={"any": (Window(20, 3600.0),)})
        lake = Lake(tmp_path / "lake")
        fetcher = Fetcher(
            landing=Landing(tmp_path / "landing", clock=clock),
            lake=lake,
            run_id="run",
            specs_by_name=all_tables(),
            clock=clock,
        )

        def connect() -> SmartlookClient:
            return SmartlookClient.connect(
                base_url=sandbox.base_urls["smartlook"],
                token=SecretStr(sandbox.world.sites[0].smartlook_token),
                meter=ledger.meter(policy),
                clock=clock,
            )

        hours = 1
        while (outcome := fetcher.run(stream, SITE, [DAY], connect=connect)).deferred is not None:
            assert hours < 10
            clock.advance(3602)
            hours += 1
        assert outcome.error is None
        rows = len(lake.frame(SESSIONS, "shop", [DAY]))
        pages = -(-rows // 100)
        used = ledger.requests_by_endpoint(policy.account, clock.now() - timedelta(days=2)).values()
        assert pages > 20
        assert sum(used) <= pages + overhead
        assert hours == -(-sum(used) // 20)
        assert sandbox.requests.count(status=429) == 0
        clock.advance(3602)
        with connect() as client:
            is_day = Filter(name="recording_date", operator="is", value=DAY)
            first = next(iter(client.search_sessions([is_day], call="all")))
        assert rows == json.loads(first.body)["totalSessionsCount"]
