"""When things run by themselves: what a tick asks for before, at and after the moment, and that it never asks twice."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.test_utils import create_run_for_test

from analytics_platform.core.automation import range_tags, requests_for_deferred, vendor_automation
from analytics_platform.core.clock import ManualClock
from analytics_platform.core.partitions import partition_key
from analytics_platform.core.quota import Deferral
from analytics_platform.core.resources import PlatformResource, open_ledger
from analytics_platform.core.resuming import Resumption
from analytics_platform.settings import Home, Settings, load_settings
from analytics_platform.vendors import all_tables, streams_of, vendor_resource
from analytics_platform.vendors.inspectlet.resource import InspectletResource

STREAMS = streams_of("inspectlet")
RESET = datetime(2026, 11, 21, 11, 0, tzinfo=UTC)
START = "dagster/asset_partition_range_start"
END = "dagster/asset_partition_range_end"


@pytest.fixture
def settings(home: Home, monkeypatch: pytest.MonkeyPatch) -> Settings:
    sites = [
        {"key": key, "start_date": "2026-10-05", "vendors": {"inspectlet": {"wid": 1}}} for key in ("shop", "blog")
    ] + [{"key": "plain", "start_date": "2026-10-05", "vendors": {}}]
    Path(os.environ["ANALYTICS_PLATFORM_CONFIG"]).write_text(yaml.safe_dump({"sites": sites}), encoding="utf-8")
    monkeypatch.setenv("INSPECTLET_USERNAME", "ops@example.invalid")
    monkeypatch.setenv("INSPECTLET_API_TOKEN", "token-of-a-test")
    return load_settings()


def tick(settings: Settings, at: datetime) -> list[dg.RunRequest | dg.SkipReason]:
    (schedule,) = vendor_automation("inspectlet", STREAMS, settings, all_tables(), daily_at=(3, 12)).schedules
    assert schedule.cron_schedule == "12 3 * * *"
    with dg.build_schedule_context(
        scheduled_execution_time=at,
        resources={"platform": PlatformResource(), "inspectlet": InspectletResource.from_environment()},
    ) as context:
        return outcome(schedule.evaluate_tick(context))


def outcome(tick: Any) -> list[dg.RunRequest | dg.SkipReason]:
    return list(tick.run_requests or ()) or [dg.SkipReason(tick.skip_message)]


def requests(found: list[dg.RunRequest | dg.SkipReason]) -> dict[str, dg.RunRequest]:
    assert all(isinstance(item, dg.RunRequest) for item in found)
    return {str(item.run_key): item for item in found if isinstance(item, dg.RunRequest)}


# ------------------------------------------------------------------------------------------------------- daily schedule


def test_a_tick_asks_for_todays_snapshots_and_the_days_that_may_still_change(settings: Settings) -> None:
    found = requests(tick(settings, datetime(2026, 11, 21, 3, 12, tzinfo=UTC)))
    wanted = [(site, what) for site in ("shop", "blog") for what in ("snapshot", "daily")]
    assert set(found) == {f"inspectlet:{site}:{what}:2026-11-21" for site, what in wanted}
    daily, snapshot = found["inspectlet:shop:daily:2026-11-21"], found["inspectlet:shop:snapshot:2026-11-21"]
    assert (daily.tags[START], daily.tags[END]) == ("2026-11-17|shop", "2026-11-20|shop")
    assert (snapshot.tags[START], snapshot.tags[END]) == ("2026-11-21|shop", "2026-11-21|shop")
    assert (daily.tags["vendor"], daily.tags["site"]) == ("inspectlet", "shop")
    assert {key.path[-1] for key in snapshot.asset_selection or ()} == {"websites"}
    assert {key.path[-1] for key in daily.asset_selection or ()} == {"sessions", "session_pages", "session_tags"}


def test_the_same_tick_twice_has_the_same_run_keys_and_the_next_day_others(settings: Settings) -> None:
    at = datetime(2026, 11, 21, 3, 12, tzinfo=UTC)
    assert set(requests(tick(settings, at))) == set(requests(tick(settings, at)))
    assert set(requests(tick(settings, at))).isdisjoint(requests(tick(settings, at + timedelta(days=1))))


def test_every_day_is_asked_for_once_more_after_it_settled_in_every_zone(settings: Settings) -> None:
    """West of Greenwich yesterday may not have ended at the schedule's time; some later tick must make it final."""
    day, lookback = date(2026, 11, 10), max(stream.lookback_days for stream in STREAMS)
    for hours_west in (0, 8, 12):
        settled = datetime(2026, 11, 11, hours_west, tzinfo=UTC) + timedelta(days=lookback)
        ticks = [datetime(2026, 11, 11, 3, 12, tzinfo=UTC) + timedelta(days=n) for n in range(6)]
        asked_after = [
            at
            for at in ticks
            if at >= settled
            and requests(tick(settings, at))[f"inspectlet:shop:daily:{at.date()}"].tags[START] <= f"{day}|shop"
        ]
        assert asked_after, f"{hours_west} hours west of Greenwich the day stays provisional"


def test_nothing_is_asked_for_before_the_first_day(settings: Settings) -> None:
    first = requests(tick(settings, datetime(2026, 10, 5, 3, 12, tzinfo=UTC)))
    assert {key.split(":")[2] for key in first} == {"snapshot"}
    second = requests(tick(settings, datetime(2026, 10, 6, 3, 12, tzinfo=UTC)))
    assert second["inspectlet:shop:daily:2026-10-06"].tags[START] == "2026-10-05|shop"


def test_without_credentials_the_tick_names_the_variables(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INSPECTLET_API_TOKEN")
    (skipped,) = tick(settings, RESET)
    assert isinstance(skipped, dg.SkipReason)
    assert "INSPECTLET_API_TOKEN not set" in str(skipped.skip_message)


def test_a_vendor_no_site_uses_says_so(home: Home) -> None:
    (skipped,) = tick(load_settings(), RESET)
    assert isinstance(skipped, dg.SkipReason)
    assert "No site in sites.yaml uses inspectlet" in str(skipped.skip_message)


# --------------------------------------------------------------------------------------------------------- quota sensor


def defer(settings: Settings, *, stream: str = "sessions", site: str = "shop", first: int = 1, last: int = 3) -> None:
    with open_ledger(settings) as ledger:
        ledger.defer(
            vendor="inspectlet",
            stream=stream,
            site=site,
            first_day=date(2026, 11, first),
            last_day=date(2026, 11, last),
            resume_at=RESET,
            reason="spent",
            landed_records=7,
        )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    """The clock of every platform resource; Dagster makes the resource anew from its configuration for each tick."""
    chosen = ManualClock(RESET - timedelta(seconds=1))
    monkeypatch.setattr(PlatformResource, "clock", property(lambda self: chosen))
    return chosen


def evaluate(settings: Settings, runs: Sequence[tuple[str, dg.DagsterRunStatus]] = ()) -> list[Any]:
    """One tick, on an instance where `runs` of a deferral ended before."""
    (sensor,) = vendor_automation("inspectlet", STREAMS, settings, all_tables(), daily_at=(3, 12)).sensors
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_sensor_context(
            instance=instance,
            resources={"platform": PlatformResource(), "inspectlet": InspectletResource.from_environment()},
        ) as context,
    ):
        for deferral, status in runs:
            create_run_for_test(instance, tags={"analytics_platform/deferral": deferral}, status=status)
        return outcome(sensor.evaluate_tick(context))


@pytest.mark.usefixtures("clock")
def test_before_the_reset_it_waits_and_says_until_when(settings: Settings) -> None:
    defer(settings)
    (skipped,) = evaluate(settings)
    assert isinstance(skipped, dg.SkipReason)
    assert "1 deferred; the next, sessions of shop, resumes at 2026-11-21 11:00 UTC" in str(skipped.skip_message)


@pytest.mark.parametrize("seconds_after", [0, 1, 86_400])
def test_at_and_after_the_reset_it_resumes_exactly_what_was_deferred(
    settings: Settings, clock: ManualClock, seconds_after: int
) -> None:
    defer(settings)
    clock.sleep(1 + seconds_after)
    ((key, request),) = requests(evaluate(settings)).items()
    assert (request.tags[START], request.tags[END]) == ("2026-11-01|shop", "2026-11-03|shop")
    assert {key.path[-1] for key in request.asset_selection or ()} == {"sessions", "session_pages", "session_tags"}
    assert request.tags["analytics_platform/deferral"] == key
    # Already asked: the next tick asks with the same key, which Dagster starts once.
    assert set(requests(evaluate(settings))) == {key}


@pytest.mark.parametrize(
    ("failed", "suffix"), [(0, ""), (1, ":again-1"), (2, ":again-2"), (3, ":again-2"), (9, ":again-2")]
)
def test_a_resumed_run_that_died_is_asked_for_again_three_times_in_all(
    settings: Settings, clock: ManualClock, failed: int, suffix: str
) -> None:
    defer(settings)
    clock.sleep(1)
    ((key, _),) = requests(evaluate(settings)).items()
    died = [(key, dg.DagsterRunStatus.FAILURE if n % 2 else dg.DagsterRunStatus.CANCELED) for n in range(failed)]
    others = [(key, dg.DagsterRunStatus.SUCCESS), (f"{key}x", dg.DagsterRunStatus.FAILURE)]
    assert set(requests(evaluate(settings, [*died, *others]))) == {key + suffix}


def test_newest_days_first_and_other_vendors_and_unknown_streams_left_alone(
    settings: Settings, clock: ManualClock
) -> None:
    defer(settings, first=1, last=3)
    defer(settings, first=8, last=9)
    defer(settings, site="blog", first=4, last=5)
    defer(settings, stream="a_stream_that_was_removed")
    with open_ledger(settings) as ledger:
        ledger.defer(
            vendor="pirsch",
            stream="sessions",
            site="shop",
            first_day=date(2026, 11, 1),
            last_day=date(2026, 11, 1),
            resume_at=RESET,
            reason="spent",
            landed_records=0,
        )
    clock.sleep(1)
    found = requests(evaluate(settings))
    assert [request.tags[END] for request in found.values()] == [
        "2026-11-09|shop",
        "2026-11-05|blog",
        "2026-11-03|shop",
    ]


def test_a_second_deferral_of_the_same_days_has_a_key_of_its_own() -> None:
    def resumption(resume_at: datetime) -> Resumption:
        day = date(2026, 11, 1)
        deferral = Deferral(
            vendor="inspectlet",
            stream="sessions",
            site="shop",
            first_day=day,
            last_day=day,
            resume_at=resume_at,
            reason="spent",
            landed_records=0,
            recorded_at=resume_at,
        )
        return Resumption(deferral=deferral, first_day=day, last_day=day, requests=1)

    by_name = {stream.name: stream for stream in STREAMS}
    with dg.DagsterInstance.ephemeral() as instance:
        keys = {
            request.run_key
            for resume_at in (RESET, RESET + timedelta(hours=1))
            for request in requests_for_deferred([resumption(resume_at)], by_name, instance)
        }
    assert len(keys) == 2


def test_nothing_deferred_is_said(settings: Settings) -> None:
    (skipped,) = evaluate(settings)
    assert isinstance(skipped, dg.SkipReason)
    assert str(skipped.skip_message) == "Nothing of inspectlet is deferred."


def test_range_tags_select_one_sites_days() -> None:
    tags = range_tags("shop", date(2026, 11, 1), date(2026, 11, 3))
    assert list(tags.values()) == [partition_key(date(2026, 11, day), "shop") for day in (1, 3)]


@pytest.fixture(autouse=True)
def _no_shared_ledger() -> Iterator[None]:
    from analytics_platform.core import resources

    yield
    resources._shared_ledger.cache_clear()


def test_the_resource_is_found_by_the_vendors_name(settings: Settings) -> None:
    assert vendor_resource("inspectlet").missing_variables({}) == ()
