"""How long a Smartlook backfill of ninety days takes at each plan, beside the least that its quota allows.

Belongs here: the command and the days it plays. Does not belong here: what is resumed when (`core.resume_desk`,
`core.resuming`), requests used (`backfill`).

    python -m analytics_platform_tests.simulation.makespan --days 90

One site, one process, a clock that is turned by hand: the backfill is asked for half an hour before the daily run, so
that the first morning finds the window spent; it goes on as the quota-reset sensor chooses at its ticks, every thirty
seconds, and each morning the day that ended comes first and has to land within the hour. Fetcher, deferrals, ledger,
landing, lake, planner, daily work and the sensor's own desk are the real ones; only Dagster's starting of runs is not.
The vendor is the sandbox over HTTP with the plan's limit, on the same clock. Answers take no virtual time.

Two bounds. `(requests beyond the first window) ÷ rate` is the issue's. A sliding window lets n requests leave in bursts
of the limit at best, so that ⌈n ÷ limit⌉ - 1 whole hours are the least possible: up to one hour more than that bound
(printed as rounding), which no scheduler can win back. A backfill of two windows could not be told from a bad one, so
each plan has a site and a sample of visitors for which ninety days are 15 windows or more, and a last window that is
nearly full; the free plan's sample is as large as one day's partition allows in its 20 requests. Sizes of your own:
`--scale`, `--sample`. What the mornings cost during the backfill is part of the requests.
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

import yaml
from pydantic import SecretStr

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.daily import put_off
from analytics_platform.core.deferring import defer_readers, fetch_or_defer
from analytics_platform.core.fetch import Fetcher, SiteContext
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.planning import Planner
from analytics_platform.core.quota import Ledger
from analytics_platform.core.resume_desk import ResumeDesk, site_work
from analytics_platform.core.streams import Stream
from analytics_platform.core.usage import settle_doubt
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import generate
from analytics_platform.settings import load_settings
from analytics_platform.vendors import all_tables, streams_of, vendor_resource
from analytics_platform.vendors.smartlook.automation import _DAILY_AT_UTC as DAILY_AT
from analytics_platform.vendors.smartlook.client import SmartlookClient

VENDOR = "smartlook"
SITE = "shop"
TICK_SECONDS = 30.0
LIMITS = {"free": 20, "paid": 100, "addon": 1000}
SAMPLES = {"free": 0.04, "paid": 0.31, "addon": 1.0}
SCALES = {"free": 1.0, "paid": 1.0, "addon": 2.02}
FIRST_DAY = date(2026, 7, 1)
ASKED_MINUTES_BEFORE = 30
"""The backfill spends the window half an hour before the daily run begins: the first morning has to wait for it."""
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
    def rounding(self) -> float:
        """The least possible ÷ the issue's bound: what whole windows cost."""
        return self.least_hours / self.hours_beyond_the_first_window if self.hours_beyond_the_first_window else 1.0

    @property
    def over_the_least(self) -> float:
        """Hours taken ÷ the least possible."""
        return self.hours / self.least_hours if self.least_hours else 1.0


@dataclass(frozen=True, kw_only=True)
class _Stores:
    """What the sensor's desk asks of the platform resource, on the turned clock."""

    clock: ManualClock
    ledger: Ledger
    landing: Landing
    lake: Lake


class Play:
    """One plan."""

    def __init__(self, plan: str, days: int, clock: ManualClock, ledger: Ledger) -> None:
        self._settings = load_settings()
        self._clock = clock
        self._ledger = ledger
        self._landing = Landing(self._settings.home.landing, clock=clock)
        self._lake = Lake(self._settings.home.lake)
        self._stores = _Stores(clock=clock, ledger=ledger, landing=self._landing, lake=self._lake)
        self._resource = vendor_resource(VENDOR)
        self._ids = self._settings.site(SITE).ids(VENDOR) or {}
        self._site = SiteContext(key=SITE, timezone=self._settings.site(SITE).timezone, ids=self._ids)
        self._fetcher = Fetcher(
            landing=self._landing, lake=self._lake, run_id="makespan", specs_by_name=all_tables(), clock=clock
        )
        self._days = [FIRST_DAY + timedelta(days=n) for n in range(days)]
        self._waiting: dict[date, datetime] = {}  # the day a morning is for, and when its schedule ran
        self._there: dict[tuple[date, date, int], bool] = {}
        self.result = Makespan(plan=plan, days=days)

    def play(self) -> Makespan:
        """Until every day of the backfill is there."""
        begun_at = self._clock.now()
        tomorrow = begun_at.date()
        self._run(list(_STREAMS.values()), self._days)
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
        streams, now = list(_STREAMS.values()), self._clock.now()
        planner = Planner(
            landing=self._landing, lake=self._lake, ledger=self._ledger, specs_by_name=all_tables(), now=now
        )
        site = self._settings.site(SITE)
        work = site_work(planner, self._resource, self._settings, site, streams, now, self._ledger)
        if work.later is not None:
            put_off(self._ledger, work.later, SITE, now)
        for part in work.at_once:
            self._run(part.streams, part.days)

    def _tick(self) -> None:
        (usage,) = self._ledger.usage_of(self._resource.quota_policy(self._ids), "any")
        # Without a free request the desk asks for nothing; most ticks are like that.
        if not usage.remaining or not self._ledger.due(self._clock.now()):
            return
        desk = ResumeDesk(
            stores=self._stores,
            resource=self._resource,
            settings=self._settings,
            streams=_STREAMS,
            specs_by_name=all_tables(),
            unfinished=list,
            daily_at=DAILY_AT,
        )
        for resumption in desk.choose().resumptions:
            self._run([_STREAMS[resumption.deferral.stream]], _between(resumption.first_day, resumption.last_day))

    def _run(self, streams: Sequence[Stream], days: Sequence[date]) -> None:
        """As a run of these assets (`core.ingest`): a step whose upstream was cut is skipped, and remembered."""
        skipped: set[str] = set()
        for stream in streams:
            if stream.name in skipped:
                continue
            outcome = fetch_or_defer(
                stream,
                self._site,
                days,
                fetcher=self._fetcher,
                ledger=self._ledger,
                connect=self._connect,
                run_id="makespan",
                is_backfill=days[0] < self._clock.now().date() - timedelta(days=stream.lookback_days + 2),
                when_refused=lambda: settle_doubt(self._resource, self._ids, self._ledger),
            )
            self.result.runs += 1
            self.result.waste += outcome.pages == 0
            if outcome.error is not None:
                self.result.errors.append(f"{stream.name}: {outcome.error}")
            if outcome.deferred is not None:
                readers = [(VENDOR, other.name) for other in streams if stream.qualified_name in other.depends_on]
                skipped |= {name for _, name in readers}
                defer_readers(
                    self._ledger,
                    readers,
                    SITE,
                    days,
                    upstream=stream.qualified_name,
                    resume_at=outcome.deferred.resume_at or self._clock.now(),
                )

    def _connect(self) -> SmartlookClient:
        """As the resource connects, on the turned clock: a page's hour decides whether its days are final."""
        return SmartlookClient.connect(
            base_url=os.environ["SMARTLOOK_BASE_URL"],
            token=SecretStr(os.environ["SMARTLOOK_API_TOKEN"]),
            meter=self._ledger.meter(self._resource.quota_policy(self._ids)),
            clock=self._clock,
        )

    def _is_there(self, days: Sequence[date]) -> bool:
        """Asked anew only after a run: nothing else lands."""
        known = (days[0], days[-1], self.result.runs)
        if known not in self._there:
            self._there = {known: self._has_landed(days)} | {k: v for k, v in self._there.items() if k[2] == known[2]}
        return self._there[known]

    def _has_landed(self, days: Sequence[date]) -> bool:
        found = [self._landing.newest_complete(VENDOR, name, SITE, list(days)) for name in _STREAMS]
        return all(len(covered) == len(days) for covered in found)

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
    clock = ManualClock(_schedule(FIRST_DAY + timedelta(days=days + 1)) - timedelta(minutes=ASKED_MINUTES_BEFORE))
    profiles: dict[str, dict[str, object]] = {VENDOR: {"plan": plan, "cursor_seconds": 600.0}}
    sandbox = Sandbox(world, profiles=profiles, vendors=(VENDOR,))
    sandbox.context.monotonic = clock.monotonic
    with (
        sandbox,
        _home(sandbox, plan, sample) as home,
        Ledger.open(home / "ledger.sqlite3", clock) as ledger,
    ):
        result = Play(plan, days, clock, ledger).play()
    result.wall_seconds = round(time.monotonic() - begun, 1)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Play and print; fails where the vendor refused, a day's partition took more than its hour, or anything broke."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", choices=sorted(LIMITS), action="append")
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--scale", type=float, help="size of the site; larger where the plan pays for more")
    parser.add_argument("--sample", type=float, help="event_visitor_sample; more where the plan pays for more")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    chosen = parser.parse_args(arguments)
    is_short = False
    for plan in chosen.plan or LIMITS:
        found = play(plan, chosen.days, scale=chosen.scale or SCALES[plan], sample=chosen.sample or SAMPLES[plan])
        late = found.slowest_morning_minutes > 60 or found.unfinished_mornings > 1
        # Where whole windows alone take up the tolerance, only the least possible can be held against the scheduler.
        over = found.over_the_bound if found.rounding <= 1.01 else found.over_the_least
        is_short |= bool(found.refused_429 or found.errors) or late or over > 1.02
        figures = {
            "over_the_bound": round(found.over_the_bound, 3),
            "rounding": round(found.rounding, 3),
            "over_the_least": round(found.over_the_least, 3),
        }
        if chosen.json:
            sys.stdout.write(json.dumps(asdict(found) | figures) + "\n")
        else:
            sys.stdout.write(
                f"{plan:6} {LIMITS[plan]:5} an hour: {found.requests} requests, {found.hours} h; ÷ bound "
                f"{found.hours_beyond_the_first_window} h = {figures['over_the_bound']} (rounding to whole windows "
                f"{figures['rounding']}), ÷ least possible {found.least_hours} h = {figures['over_the_least']}; "
                f"{found.mornings} mornings, the slowest landed after {found.slowest_morning_minutes} min, "
                f"{found.unfinished_mornings} still open; {found.runs} runs, {found.waste} without a page; "
                f"{found.refused_429} answers 429; {found.wall_seconds} s\n"
            )
            sys.stdout.writelines(f"  {text}\n" for text in sorted(set(found.errors))[:5])
        sys.stdout.flush()
    return int(is_short)


if __name__ == "__main__":
    sys.exit(main())
