"""A tick of the quota-reset sensor: cheap without room, right about what is kept and promised, honest about why."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.test_utils import create_run_for_test

from analytics_platform.core.automation import FORECAST_TAG, range_tags, unfinished_runs
from analytics_platform.core.clock import ManualClock
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.quota import Ledger
from analytics_platform.core.quota_policy import spending
from analytics_platform.core.resume_desk import ResumeDesk
from analytics_platform.core.resuming import Choice
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.settings import Home, load_settings
from analytics_platform.vendors import all_tables, streams_of
from analytics_platform.vendors.smartlook.resource import SmartlookResource

DAILY_AT = (3, 0)
BEGIN = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
YESTERDAY = date(2026, 11, 20)
STREAMS = {stream.name: stream for stream in streams_of("smartlook")}


@dataclass
class Desk:
    """Smartlook's free plan on a clock turned by hand."""

    clock: ManualClock
    ledger: Ledger
    home: Home
    instance: dg.DagsterInstance
    resource: SmartlookResource
    stores: dict[str, Any] = field(default_factory=dict)

    def choose(self) -> Choice:
        return ResumeDesk(
            stores=self,
            resource=self.resource,
            settings=load_settings(),
            streams=STREAMS,
            specs_by_name=all_tables(),
            unfinished=lambda: unfinished_runs(self.instance),
            daily_at=DAILY_AT,
        ).choose()

    @property
    def landing(self) -> Any:
        return self.stores.get("landing", Landing(self.home.landing, clock=self.clock))

    @property
    def lake(self) -> Any:
        return self.stores.get("lake", Lake(self.home.lake))

    def spend(self, times: int, *, run_id: str = "") -> None:
        policy = self.resource.quota_policy({})
        with spending(stream="sessions", run_id=run_id):
            meter = self.ledger.meter(policy)
            for _ in range(times):
                meter.acquire(method="GET", endpoint="GET /x")

    def defer(self, stream: str, first_day: date, last_day: date, *, due: bool = True, site: str = "shop") -> None:
        self.ledger.defer(
            vendor="smartlook",
            stream=stream,
            site=site,
            first_day=first_day,
            last_day=last_day,
            resume_at=self.clock.now() + timedelta(minutes=-1 if due else 20),
            reason="spent",
        )

    def at(self, instant: datetime) -> None:
        self.clock.advance((instant - self.clock.now()).total_seconds())


@pytest.fixture
def desk(home: Home) -> Iterator[Desk]:
    sites = [{"key": "shop", "start_date": "2026-10-05", "vendors": {"smartlook": {"plan": "free"}}}]
    Path(os.environ["ANALYTICS_PLATFORM_CONFIG"]).write_text(yaml.safe_dump({"sites": sites}), encoding="utf-8")
    clock = ManualClock(BEGIN - timedelta(hours=3))
    with (
        dg.DagsterInstance.ephemeral() as instance,
        Ledger.open(home.ledger, clock) as ledger,
    ):
        yield Desk(clock, ledger, home, instance, SmartlookResource(api_token="token-of-a-test", base_url=""))


class Untouchable:
    """Landing and lake of a tick that may not look at either."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was looked at")


def test_without_a_free_request_nothing_is_looked_up_and_the_hour_is_said(desk: Desk) -> None:
    desk.defer("sessions", date(2026, 10, 10), date(2026, 11, 1))
    desk.defer("funnels", date(2026, 10, 10), date(2026, 11, 2))
    desk.spend(20)
    desk.stores = {"landing": Untouchable(), "lake": Untouchable()}
    choice = desk.choose()
    assert not choice.resumptions
    assert choice.why == (
        "2 due, the newest funnels of shop for 2026-11-02: no request is free of 20 before 01:00 UTC."
    )


def test_nothing_waiting_and_nothing_due_are_said(desk: Desk) -> None:
    assert desk.choose().why == "Nothing of smartlook is deferred."
    desk.defer("sessions", date(2026, 11, 1), date(2026, 11, 1), due=False)
    assert desk.choose().why == "1 deferred; the next, sessions of shop, resumes at 2026-11-21 00:20 UTC."


def test_what_reads_deferred_rows_is_not_even_started(desk: Desk) -> None:
    desk.defer("events", date(2026, 10, 10), date(2026, 11, 1))
    desk.defer("sessions", date(2026, 10, 10), date(2026, 10, 12), due=False)
    choice = desk.choose()
    assert not choice.resumptions
    assert choice.why == ("events of shop waits for smartlook/sessions, which is deferred until 2026-11-21 00:20 UTC.")
    desk.ledger.clear(vendor="smartlook", stream="sessions", site="shop")
    (found,) = desk.choose().resumptions
    assert (found.first_day, found.last_day) == (date(2026, 10, 10), date(2026, 11, 1))


def test_running_work_has_its_promise_until_it_has_spent_it(desk: Desk) -> None:
    desk.defer("sessions", date(2026, 11, 1), date(2026, 11, 1))
    run = create_run_for_test(
        desk.instance,
        status=dg.DagsterRunStatus.STARTED,
        tags={
            **range_tags("shop", date(2026, 10, 10), date(2026, 10, 12)),
            "vendor": "smartlook",
            FORECAST_TAG: "20",
        },
        asset_selection=frozenset({dg.AssetKey(["smartlook", "funnels"])}),
    )
    choice = desk.choose()
    assert not choice.resumptions
    assert "no request is free of 20 while running work has promises on it" in choice.why
    # Dagster stamps runs by the host's clock; the ledger's is turned by hand and lies behind it. Noon of the day after,
    # because the hours before the daily run at 3:00 keep requests back, whatever the host's hour is.
    desk.at((datetime.now(UTC) + timedelta(days=1)).replace(hour=12, minute=0, second=0, microsecond=0))
    desk.spend(20, run_id=run.run_id)
    desk.at(desk.clock.now() + timedelta(minutes=61))
    (found,) = desk.choose().resumptions
    assert found.deferral.stream == "sessions"


def test_days_somebody_works_on_are_left_alone_whoever_started_it(desk: Desk) -> None:
    desk.defer("sessions", date(2026, 11, 1), date(2026, 11, 1))
    create_run_for_test(
        desk.instance,
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/partition": "2026-11-01|shop"},
        asset_selection=frozenset({dg.AssetKey(["smartlook", "sessions"])}),
    )
    assert not desk.choose().resumptions


def test_a_quarter_of_an_hour_before_the_daily_run_room_is_kept_and_not_before(desk: Desk) -> None:
    desk.defer("sessions", date(2026, 10, 10), date(2026, 11, 1))
    desk.at(BEGIN - timedelta(minutes=16))
    assert desk.choose().resumptions
    desk.at(BEGIN - timedelta(minutes=15))
    choice = desk.choose()
    assert not choice.resumptions
    assert "0 of 20 were left beside 20 kept for today" in choice.why


def test_after_the_begin_room_is_kept_only_while_the_day_is_on_its_way(desk: Desk) -> None:
    desk.defer("sessions", date(2026, 10, 10), date(2026, 11, 1))
    desk.at(BEGIN + timedelta(minutes=5))
    # No run and no deferral of yesterday: the schedule is off, and nothing is kept for it.
    assert desk.choose().resumptions
    desk.defer("events", YESTERDAY, YESTERDAY)
    desk.defer("visitors", YESTERDAY, YESTERDAY, due=False)
    chosen = desk.choose().resumptions
    assert [(r.deferral.stream, r.last_day) for r in chosen] == [("events", YESTERDAY)]


def test_the_vendors_own_count_frees_what_a_lost_ledger_held(
    desk: Desk, writable_sandbox: Callable[..., Sandbox]
) -> None:
    # Of its own: what other tests asked would be part of the count.
    vendors = writable_sandbox(vendors=["smartlook"], days=1, key="resume desk")
    site = vendors.world.sites[0]
    desk.resource = SmartlookResource(api_token=site.smartlook_token, base_url=vendors.base_urls["smartlook"])
    desk.spend(3)
    desk.ledger.close()
    for part in ("", "-wal", "-shm"):
        desk.home.ledger.with_name(desk.home.ledger.name + part).unlink(missing_ok=True)
    desk.ledger = Ledger.open(desk.home.ledger, desk.clock)
    desk.defer("sessions", date(2026, 11, 1), date(2026, 11, 1), due=False)
    (found,) = desk.choose().resumptions
    assert found.deferral.stream == "sessions"
    assert len(vendors.requests) == 1
    desk.choose()
    assert len(vendors.requests) == 1
    desk.ledger.close()
