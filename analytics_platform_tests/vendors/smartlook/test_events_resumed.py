"""Events of sampled visitors, cut by the quota: newest days first, nobody asked twice, the rows of an uncut walk."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.fetch import Fetcher, FetchOutcome, SiteContext
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.quota import Ledger, QuotaPolicy, Window, account_key
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.vendors import all_tables, streams_of
from analytics_platform.vendors.smartlook.client import SmartlookClient
from analytics_platform_tests.conftest import DAYS, FIRST_DAY

STREAMS = {stream.name: stream for stream in streams_of("smartlook")}
ALL_DAYS = [FIRST_DAY.replace(day=FIRST_DAY.day + n) for n in range(DAYS)]
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR_SECONDS = 3602.0


class Walk:
    """One home, and a quota of so many requests an hour."""

    def __init__(self, root: Path, sandbox: Sandbox, limit: int) -> None:
        self.clock = ManualClock(NOW)
        self.landing = Landing(root / "landing", clock=self.clock)
        self.lake = Lake(root / "lake")
        self._ledger = Ledger.open(root / "ledger.db", self.clock)
        self._policy = QuotaPolicy(
            account=account_key("smartlook", str(root)), windows={"any": (Window(limit, 3600.0),)}
        )
        self._sandbox = sandbox
        self._fetcher = Fetcher(
            landing=self.landing, lake=self.lake, run_id="run", specs_by_name=all_tables(), clock=self.clock
        )

    def run(self, stream: str) -> FetchOutcome:
        return self._fetcher.run(
            STREAMS[stream],
            SiteContext(key="shop", timezone="Europe/Berlin", ids={"event_visitor_sample": "1.0"}),
            ALL_DAYS,
            connect=self._connect,
        )

    def asked(self) -> Mapping[str, int]:
        return self._ledger.requests_by_endpoint(self._policy.account, NOW)

    def _connect(self) -> SmartlookClient:
        return SmartlookClient.connect(
            base_url=self._sandbox.base_urls["smartlook"],
            token=SecretStr(self._sandbox.world.sites[0].smartlook_token),
            meter=self._ledger.meter(self._policy),
            clock=self.clock,
        )

    def rows(self) -> list[tuple[object, ...]]:
        (spec,) = STREAMS["events"].tables
        counts = self.lake.row_counts(spec, "shop", self.lake.days(spec, "shop"))
        return sorted(counts.items())


@pytest.mark.parametrize("limit", [3, 7])
def test_days_are_complete_newest_first_and_nobody_is_asked_for_twice(
    tmp_path: Path, vendors: Sandbox, limit: int
) -> None:
    uncut = Walk(tmp_path / "uncut", vendors, 1000)
    assert uncut.run("sessions").error is None
    assert uncut.run("events").done_days == ALL_DAYS
    requests = uncut.asked()["GET /api/v1/visitors/{visitor_id}/events"]
    assert requests > 2 * limit, "too few visitors to be cut"

    cut = Walk(tmp_path / "cut", vendors, limit)
    while cut.run("sessions").deferred is not None:
        cut.clock.advance(HOUR_SECONDS)
    complete: list[int] = []
    while (outcome := cut.run("events")).deferred is not None:
        assert outcome.done_days == ALL_DAYS[DAYS - len(outcome.done_days) :], "a day is there before a newer one"
        complete.append(len(outcome.done_days))
        cut.clock.advance(HOUR_SECONDS)
    assert outcome.error is None
    assert complete == sorted(complete)
    assert any(0 < count < DAYS for count in complete), "no cut left whole days behind"
    assert cut.asked()["GET /api/v1/visitors/{visitor_id}/events"] == requests
    assert cut.rows() == uncut.rows()
