"""How long a Smartlook backfill of ninety days takes at each plan, beside the least that its quota allows.

Belongs here: the command and the days it plays. Does not belong here: what is resumed when (`core.automation`,
`core.resuming`), requests used (`backfill`).

    python -m analytics_platform_tests.simulation.makespan --days 90

One site, one process, a clock that is turned by hand: the backfill is asked for an hour after the morning's schedule,
runs into the quota, and goes on as the quota-reset sensor chooses at its ticks, every thirty seconds; each morning the
daily schedule's days come first. Fetcher, ledger, landing, lake, planner and the sensor's own desk are the real ones;
the vendor is the sandbox over HTTP with the plan's limit, on the same clock. Answers take no virtual time.

Two bounds. `(requests beyond the first window) ÷ rate` is the issue's; a sliding window lets requests go in bursts of
the limit, so that n requests need ⌈n ÷ limit⌉ - 1 whole hours: the least that is possible. What the mornings cost
during the backfill is part of the requests.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from analytics_platform.core.automation import _ResumeDesk
from analytics_platform.core.clock import ManualClock
from analytics_platform.core.fetch import Fetcher, SiteContext
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.quota import Ledger, spending
from analytics_platform.core.streams import Stream
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import generate
from analytics_platform.settings import load_settings
from analytics_platform.vendors import all_tables, streams_of, vendor_resource
from analytics_platform.vendors.smartlook.automation import _DAILY_AT_UTC as DAILY_AT

VENDOR = "smartlook"
SITE = "shop"
TICK_SECONDS = 30.0
LIMITS = {"free": 20, "paid": 100, "addon": 1000}
SAMPLES = {"free": 0.05, "paid": 0.2, "addon": 1.0}
FIRST_DAY = date(2026, 7, 1)
_FALLBACK_SECONDS = 600.0
_WAIT_SECONDS = 300.0
_LONGEST_DAYS = 60
_STREAMS = {stream.name: stream for stream in streams_of(VENDOR) if stream.span != "snapshot"}


@dataclass(kw_only=True)
class Makespan:
    """One plan's backfill."""

    plan: str
    days: int
    requests: int = 0
    hours: float = 0.0
    hours_beyond_the_first_window: float = 0.0
    least_hours: float = 0.0
    mornings: int = 0
    slowest_morning_minutes: float = 0.0
    unfinished_mornings: int = 0
    refused_429: int = 0
    runs: int = 0
    waste: int = 0
    """Runs that were started and landed nothing."""
    wall_seconds: float = 0.0
    errors: list[str] = field(default_factory=list)

    @property
    def over_the_bound(self) -> float:
        """Hours taken ÷ the issue's bound."""
        return self.hours / self.hours_beyond_the_first_window if self.hours_beyond_the_first_window else 1.0

    @property
    def over_the_least(self) -> float:
        """Hours taken ÷ the least possible."""
        return self.hours / self.least_hours if self.least_hours else 1.0


@dataclass(frozen=True)
class _Platform:
    """What the sensor's desk asks of the platform resource, on the turned clock."""

    clock: ManualClock
    ledger: Ledger
    landing: Landing
    lake: Lake


class Play:
    """One plan."""

    def __init__(self, plan: str, days: int, clock: ManualClock, ledger: Ledger, instance: dg.DagsterInstance) -> None:
        self._settings = load_settings()
        self._clock = clock
        self._ledger = ledger
        self._instance = instance
        self._landing = Landing(self._settings.home.landing, clock=clock)
        self._lake = Lake(self._settings.home.lake)
        self._resource = vendor_resource(VENDOR)
        self._ids = self._settings.site(SITE).ids(VENDOR) or {}
        self._site = SiteContext(key=SITE, timezone=self._settings.site(SITE).timezone, ids=self._ids)
        self._fetcher = Fetcher(
            landing=self._landing, lake=self._lake, run_id="makespan", specs_by_name=all_tables(), clock=clock
        )
        self._days = [FIRST_DAY + timedelta(days=n) for n in range(days)]
        self._waiting: dict[date, datetime] = {}  # the day a morning is for, and when its schedule ran
        self.result = Makespan(plan=plan, days=days)

    def play(self) -> Makespan:
        """Until every day of the backfill is there."""
        begun_at = self._clock.now()
        tomorrow = begun_at.date() + timedelta(days=1)
        self._run_all(self._days)
        while not self._is_there(self._days):
            if self._clock.now() - begun_at > timedelta(days=_LONGEST_DAYS):
                self.result.errors.append(f"not done after {_LONGEST_DAYS} days")
                break
            self._clock.advance(TICK_SECONDS)
            if self._clock.now() >= _schedule(tomorrow):
                self._morning(tomorrow - timedelta(days=1))
                tomorrow += timedelta(days=1)
            self._tick()
            self._look_at_mornings()
        ended_at = max(self._departures(), default=begun_at)
        self._count(begun_at, ended_at)
        return self.result

    def _morning(self, day: date) -> None:
        """As the daily schedule: the day that ended, and those before it that the vendor may still revise."""
        self.result.mornings += 1
        self._waiting[day] = self._clock.now()
        lookback = max(stream.lookback_days for stream in _STREAMS.values())
        first = max(FIRST_DAY, day - timedelta(days=1 + lookback))
        self._run_all(_between(first, day))

    def _tick(self) -> None:
        due = [d for d in self._ledger.due(self._clock.now()) if d.vendor == VENDOR]
        (usage,) = self._ledger.usage_of(self._resource.quota_policy(self._ids), "any")
        # Without a free request the desk finds nothing to ask for; most ticks are like that.
        if not due or not usage.remaining:
            return
        desk = _ResumeDesk(
            platform=_Platform(self._clock, self._ledger, self._landing, self._lake),  # type: ignore[arg-type]
            resource=self._resource,
            settings=self._settings,
            streams=_STREAMS,
            specs_by_name=all_tables(),
            instance=self._instance,
            daily_at=DAILY_AT,
        )
        for resumption in desk.choose(due).resumptions:
            days = _between(resumption.first_day, resumption.last_day)
            self._run(_STREAMS[resumption.deferral.stream], days)

    def _run_all(self, days: Sequence[date]) -> None:
        for stream in _STREAMS.values():
            self._run(stream, days)

    def _run(self, stream: Stream, days: Sequence[date]) -> None:
        """As an asset's run (`core.ingest`), once the streams it reads are there: an asset waits for those above it."""
        known = {"vendor": VENDOR, "stream": stream.name, "site": SITE}
        missing = [day for day in days if not self._is_there([day], above=stream)]
        if missing:
            self._ledger.defer(
                vendor=VENDOR,
                stream=stream.name,
                site=SITE,
                first_day=missing[0],
                last_day=missing[-1],
                resume_at=max(self._next_above(stream), self._fetcher.in_seconds(_WAIT_SECONDS)),
                reason="waits for the streams it reads",
            )
            days = [day for day in days if day not in missing]
            if not days:
                return
        with spending(stream=stream.name, site=SITE, run_id="makespan", backfill=len(days) > 1):
            outcome = self._fetcher.run(
                stream, self._site, days, connect=lambda: self._resource.connect(self._ids, self._ledger)
            )
        self.result.runs += 1
        self.result.waste += outcome.pages == 0
        if outcome.deferred is not None:
            self._ledger.defer(
                **known,
                first_day=outcome.deferred.days[0],
                last_day=outcome.deferred.days[-1],
                resume_at=outcome.deferred.resume_at or self._fetcher.in_seconds(_FALLBACK_SECONDS),
                reason=outcome.deferred.reason,
                landed_records=outcome.deferred.landed_records,
            )
        elif outcome.error is None:
            for day in days:
                self._ledger.clear(**known, first_day=day, last_day=day)
        else:
            self.result.errors.append(f"{stream.name}: {outcome.error}")

    def _is_there(self, days: Sequence[date], *, above: Stream | None = None) -> bool:
        streams = list(_STREAMS) if above is None else _names_above(above)
        return all(len(self._landing.newest_complete(VENDOR, name, SITE, list(days))) == len(days) for name in streams)

    def _next_above(self, stream: Stream) -> datetime:
        names = _names_above(stream)
        return min((d.resume_at for d in self._ledger.deferrals() if d.stream in names), default=self._clock.now())

    def _look_at_mornings(self) -> None:
        for day, since in list(self._waiting.items()):
            if self._is_there([day]):
                minutes = (self._clock.now() - since).total_seconds() / 60
                self.result.slowest_morning_minutes = max(self.result.slowest_morning_minutes, round(minutes, 1))
                del self._waiting[day]

    def _departures(self) -> tuple[datetime, ...]:
        policy = self._resource.quota_policy(self._ids)
        return self._ledger.departures(policy.account, "any", policy.windows_for("any"))

    def _count(self, begun_at: datetime, ended_at: datetime) -> None:
        result, limit = self.result, LIMITS[self.result.plan]
        policy = self._resource.quota_policy(self._ids)
        by_endpoint = self._ledger.requests_by_endpoint(policy.account, begun_at)
        result.requests = sum(by_endpoint.values())
        result.hours = round((ended_at - begun_at).total_seconds() / 3600, 2)
        result.hours_beyond_the_first_window = round(max(0, result.requests - limit) / limit, 2)
        result.least_hours = math.ceil(result.requests / limit) - 1
        result.unfinished_mornings = len(self._waiting)
        result.refused_429 = self._ledger.refused([policy.account], begun_at - timedelta(hours=1))


def _names_above(stream: Stream) -> list[str]:
    return [name.partition("/")[2] for name in stream.depends_on]


def _schedule(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, *DAILY_AT, tzinfo=UTC)


def _between(first: date, last: date) -> list[date]:
    return [date.fromordinal(n) for n in range(first.toordinal(), last.toordinal() + 1)]


@contextmanager
def _home(sandbox: Sandbox, plan: str, sample: float) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="makespan-") as folder:
        home = Path(folder)
        described: dict[str, Any] = yaml.safe_load(sandbox.sites_yaml())
        sites = [site for site in described["sites"] if site["key"] == SITE]
        sites[0]["vendors"] = {VENDOR: sites[0]["vendors"][VENDOR] | {"plan": plan, "event_visitor_sample": sample}}
        (home / "sites.yaml").write_text(yaml.safe_dump({"sites": sites}), encoding="utf-8")
        os.environ.update(sandbox.environment())
        os.environ |= {"ANALYTICS_PLATFORM_HOME": folder, "ANALYTICS_PLATFORM_CONFIG": str(home / "sites.yaml")}
        yield home


def play(plan: str, days: int, *, scale: float = 1.0, sample: float = 0.05) -> Makespan:
    """One plan, from an empty home."""
    begun = time.monotonic()
    spare_days = 12
    world = generate(first_day=FIRST_DAY, days=days + spare_days, scale=scale)
    clock = ManualClock(_schedule(FIRST_DAY + timedelta(days=days)) + timedelta(hours=1))
    profiles: dict[str, dict[str, object]] = {VENDOR: {"plan": plan, "cursor_seconds": 600.0}}
    sandbox = Sandbox(world, profiles=profiles, vendors=(VENDOR,))
    sandbox.context.monotonic = clock.monotonic
    with (
        sandbox,
        _home(sandbox, plan, sample) as home,
        dg.DagsterInstance.ephemeral() as instance,
        Ledger.open(home / "ledger.sqlite3", clock) as ledger,
    ):
        result = Play(plan, days, clock, ledger, instance).play()
    result.wall_seconds = round(time.monotonic() - begun, 1)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Play and print; fails where the vendor refused, a day's partition took more than its hour, or anything broke."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", choices=sorted(LIMITS), action="append")
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--sample", type=float, help="event_visitor_sample; more where the plan pays for more")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    chosen = parser.parse_args(arguments)
    is_short = False
    for plan in chosen.plan or LIMITS:
        found = play(plan, chosen.days, scale=chosen.scale, sample=chosen.sample or SAMPLES[plan])
        late = found.slowest_morning_minutes > 60 or found.unfinished_mornings > 1
        is_short |= bool(found.refused_429 or found.errors) or late or found.over_the_least > 1.02
        figures = {"over_the_bound": round(found.over_the_bound, 3), "over_the_least": round(found.over_the_least, 3)}
        if chosen.json:
            sys.stdout.write(json.dumps(asdict(found) | figures) + "\n")
        else:
            sys.stdout.write(
                f"{plan:6} {LIMITS[plan]:5} an hour: {found.requests} requests, {found.hours} h; ÷ bound "
                f"{found.hours_beyond_the_first_window} h = {figures['over_the_bound']}, ÷ least possible "
                f"{found.least_hours} h = {figures['over_the_least']}; {found.mornings} mornings, the slowest landed "
                f"after {found.slowest_morning_minutes} min, {found.unfinished_mornings} still open; "
                f"{found.runs} runs, {found.waste} without a page; {found.refused_429} answers 429; "
                f"{found.wall_seconds} s\n"
            )
            sys.stdout.writelines(f"  {text}\n" for text in sorted(set(found.errors))[:5])
        sys.stdout.flush()
    return int(is_short)


if __name__ == "__main__":
    sys.exit(main())
