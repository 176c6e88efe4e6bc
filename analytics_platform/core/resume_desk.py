"""One tick of the quota-reset sensor: what is due and not worked on, beside what each account may spend now.

Belongs here: reading ledger and landing for the choice, and what is kept for the daily run. Knows no Dagster. Does not
belong here: the choice itself (`core.resuming`), runs, their requests and their keys (`core.automation`), forecasting
(`core.planning`).

A tick is cheap where it can be: pieces and their cost are looked up only for accounts that have room.

Room for the daily run. A request that leaves a quarter of a window before the daily run is free again three quarters
after it began, and from its beginning on the newest days come first: so only in that last quarter (a quarter of an hour
at most) room is kept free, and afterwards for as long as the day that ended is still on its way. Kept longer, the room
would be idle: a fiftieth of a day where the daily run takes a whole window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

from analytics_platform.core.clock import Clock
from analytics_platform.core.daily import DailyWork, daily_days, daily_work, hourly, newest_begin
from analytics_platform.core.deferring import held_up_by
from analytics_platform.core.fetch import SiteContext
from analytics_platform.core.forecast import Certainty, Forecast
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.planning import Planner
from analytics_platform.core.quota_policy import Deferral, QuotaPolicy
from analytics_platform.core.resources import VendorResource
from analytics_platform.core.resuming import Budget, Choice, Piece, choose
from analytics_platform.core.streams import Stream
from analytics_platform.core.tables import TableSpec
from analytics_platform.core.usage import settle_doubt
from analytics_platform.settings import Settings, Site

if TYPE_CHECKING:
    from analytics_platform.core.quota import Ledger

__all__ = ["ResumeDesk", "Stores", "Working", "site_work"]

_LONGEST_KEPT_SECONDS: Final = 900.0
_GUESSED_REQUESTS_A_DAY: Final = 10.0
"""Of a stream and site that nothing is known of."""


class Stores(Protocol):
    """What a desk reads: the platform resource has it."""

    @property
    def clock(self) -> Clock: ...
    @property
    def ledger(self) -> Ledger: ...
    @property
    def landing(self) -> Landing: ...
    @property
    def lake(self) -> Lake: ...


class ResumeDesk:
    """For one vendor, at one instant.

    Args:
        streams: by name, in the vendor's order: it decides between work of the same day.
        specs_by_name: every lake table by "vendor/table".
        unfinished: runs that hold days and have promised requests; asked only where something may be chosen.
        daily_at: (hour, minute) UTC of the vendor's daily run.
    """

    def __init__(
        self,
        *,
        stores: Stores,
        resource: VendorResource,
        settings: Settings,
        streams: Mapping[str, Stream],
        specs_by_name: Mapping[str, TableSpec],
        unfinished: Callable[[], Sequence[Working]],
        daily_at: tuple[int, int],
    ) -> None:
        self._ledger = stores.ledger
        self._landing = stores.landing
        self._resource = resource
        self._settings = settings
        self._streams = streams
        self._unfinished = unfinished
        self._now = stores.clock.now()
        self._daily_at = daily_at
        self._deferrals = self._ledger.deferrals()
        self._places = {site.key: place for site in self._sites() if (place := self._place(site)) is not None}
        self._working: Sequence[Working] = ()
        self._planner = Planner(
            landing=stores.landing,
            lake=stores.lake,
            ledger=self._ledger,
            specs_by_name=specs_by_name,
            now=self._now,
        )

    def choose(self) -> Choice:
        """The runs to ask for now, and why nothing more.

        Raises:
            StorageError: ledger or landing cannot be used.
        """
        waiting = [d for d in self._deferrals if d.vendor == self._resource.vendor and d.stream in self._streams]
        if not waiting:
            return Choice(resumptions=(), why=f"Nothing of {self._resource.vendor} is deferred.")
        # Where the vendor's own count gave room that the ledger did not know of, nobody waits for the hour it had said.
        is_known_better = self._settle_doubts(waiting)
        due = [d for d in waiting if is_known_better or d.resume_at <= self._now]
        if not due:
            return Choice(resumptions=(), why=self._not_yet(waiting))
        free = [d for d in due if not held_up_by(d, self._streams[d.stream], self._deferrals)]
        if not free:
            return Choice(resumptions=(), why=self._held_up(due[0]))
        return self._within_budgets(free)

    def _within_budgets(self, due: Sequence[Deferral]) -> Choice:
        self._working = self._unfinished()
        mine = {self._places[d.site].policy.account: self._places[d.site].policy for d in due if d.site in self._places}
        budgets = [self._budget(policy) for policy in mine.values()]
        with_room = {budget.account for budget in budgets if budget.left + budget.kept >= 1}
        if not with_room:
            return Choice(resumptions=(), why=_no_room(due, budgets))
        order = list(self._streams)
        pieces = [
            piece
            for deferral in sorted(due, key=lambda deferral: order.index(deferral.stream))
            if (place := self._places.get(deferral.site)) is not None and place.policy.account in with_room
            for piece in self._pieces(deferral, place)
        ]
        return choose(pieces, [budget for budget in budgets if budget.account in with_room])

    # ---------------------------------------------------------------------------------------------------- who and where

    def _sites(self) -> tuple[Site, ...]:
        return self._settings.sites_with(self._resource.vendor)

    def _place(self, site: Site) -> _Place | None:
        ids = site.ids(self._resource.vendor) or {}
        if self._resource.missing_variables(ids):
            return None
        policy = self._ledger.capped(self._resource.quota_policy(ids))
        return _Place(site=SiteContext(key=site.key, timezone=site.timezone, ids=ids), policy=policy)

    def _settle_doubts(self, waiting: Sequence[Deferral]) -> bool:
        """Ask the vendor for its count where ours is in doubt: at most once in ten minutes an account."""
        asked: set[str] = set()
        is_known_better = False
        for place in (self._places[d.site] for d in waiting if d.site in self._places):
            if place.policy.account not in asked:
                asked.add(place.policy.account)
                is_known_better |= settle_doubt(self._resource, place.site.ids, self._ledger) is not None
        return is_known_better

    def _not_yet(self, waiting: Sequence[Deferral]) -> str:
        soonest = min(waiting, key=lambda deferral: deferral.resume_at)
        return (
            f"{len(waiting)} deferred; the next, {soonest.stream} of {soonest.site}, resumes at "
            f"{soonest.resume_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC."
        )

    def _held_up(self, deferral: Deferral) -> str:
        above = held_up_by(deferral, self._streams[deferral.stream], self._deferrals)
        names = ", ".join(sorted({f"{d.vendor}/{d.stream}" for d in above}))
        until = min(d.resume_at for d in above)
        return (
            f"{deferral.stream} of {deferral.site} waits for {names}, which is deferred until "
            f"{until.astimezone(UTC):%Y-%m-%d %H:%M} UTC."
        )

    # ---------------------------------------------------------------------------------------------------- what it costs

    def _pieces(self, deferral: Deferral, place: _Place) -> Iterator[Piece]:
        """Batches of a deferral that nobody is working on. Days that were finished meanwhile cost nothing, and the run
        that finds them so takes the deferral off the list.
        """
        stream = self._streams[deferral.stream]
        daily = daily_days(list(self._streams.values()), newest_begin(self._now, self._daily_at), date.min)
        # Room kept for a daily run to come is for none that is waiting already.
        is_open_to_daily = bool(daily) and not self._is_before_daily(place.policy)
        batches = self._planner.batches(stream, place.site, deferral.first_day, deferral.last_day)
        for first_day, last_day, requests in batches:
            if not any(working.holds(stream, deferral.site, first_day, last_day) for working in self._working):
                yield Piece(
                    account=place.policy.account,
                    deferral=deferral,
                    first_day=first_day,
                    last_day=last_day,
                    requests=_guessed(requests, (last_day - first_day).days + 1),
                    is_for_today=is_open_to_daily and daily[0] <= first_day and daily[-1] <= last_day,
                )

    # ----------------------------------------------------------------------------------------------------- what is left

    def _budget(self, policy: QuotaPolicy) -> Budget:
        usage = max(self._ledger.usage_of(policy, policy.method_class("GET")), key=lambda u: u.window_seconds)
        free = max(0, usage.remaining - policy.reserve - self._promised(policy.account))
        kept = min(free, self._kept_for_today(policy)) if free else 0
        return Budget(
            account=policy.account, limit=usage.limit, left=free - kept, kept=kept, next_slot_at=usage.next_slot_at
        )

    def _promised(self, account: str) -> int:
        """What unfinished runs on this account will still spend of what they were thought to cost."""
        left = 0
        for working in self._working:
            place = self._places.get(working.site)
            if working.requests and place is not None and place.policy.account == account:
                rows = self._ledger.spent(run_id=working.run_id, since=working.asked_at)
                left += max(0, working.requests - sum(row.requests for row in rows))
        return left

    def _is_before_daily(self, policy: QuotaPolicy) -> bool:
        """Whether the daily run is about to begin."""
        next_at = newest_begin(self._now, self._daily_at) + timedelta(days=1)
        return next_at - self._now <= timedelta(seconds=min(_longest_seconds(policy) / 4, _LONGEST_KEPT_SECONDS))

    def _kept_for_today(self, policy: QuotaPolicy) -> int:
        """Likely requests of the daily run that is about to begin, or of what is still open of the one that began."""
        begun_at = newest_begin(self._now, self._daily_at)
        if self._is_before_daily(policy):
            return self._cost_of_day(policy, begun_at + timedelta(days=1), only_open=False)
        if self._now - begun_at <= timedelta(seconds=_longest_seconds(policy)):
            return self._cost_of_day(policy, begun_at, only_open=True)
        return 0

    def _cost_of_day(self, policy: QuotaPolicy, begun_at: datetime, *, only_open: bool) -> int:
        cost = 0.0
        for site in self._sites():
            place = self._places.get(site.key)
            if place is None or place.policy.account != policy.account:
                continue
            for stream, days in self._streams_of_day(site, begun_at):
                if not only_open or self._is_open(stream, site.key, days[-1], begun_at):
                    cost += _likely(self._planner, stream, place.site, days)
        return math.ceil(cost)

    def _streams_of_day(self, site: Site, begun_at: datetime) -> Iterator[tuple[Stream, Sequence[date]]]:
        streams = list(self._streams.values())
        work = site_work(self._planner, self._resource, self._settings, site, streams, begun_at, self._ledger)
        for part in work.at_once:
            yield from ((stream, part.days) for stream in part.streams)
        yield from ((stream, [begun_at.date()]) for stream in streams if stream.span == "snapshot")

    def _is_open(self, stream: Stream, site: str, day: date, begun_at: datetime) -> bool:
        """Whether the daily run that began has still to fetch a stream's newest day: somebody is at it, or has put it
        off, and it is not landed. Where nobody does (the schedule is off), nothing is kept for it.
        """
        is_deferred = any(
            d.vendor == stream.vendor and d.stream == stream.name and d.site == site and d.last_day >= day
            for d in self._deferrals
        )
        if not is_deferred and not any(working.holds(stream, site, day, day) for working in self._working):
            return False
        batch = self._landing.newest_complete(stream.vendor, stream.name, site, [day]).get(day)
        return batch is None or batch.asked_since is None or batch.asked_since < begun_at


def site_work(
    planner: Planner,
    resource: VendorResource,
    settings: Settings,
    site: Site,
    streams: Sequence[Stream],
    scheduled_at: datetime,
    ledger: Ledger,
) -> DailyWork:
    """What the daily run asks for one site, which shares its account's hour with the sites that use it too."""
    ids = site.ids(resource.vendor) or {}
    policy = ledger.capped(resource.quota_policy(ids))
    context = SiteContext(key=site.key, timezone=site.timezone, ids=ids)
    all_ids = [other.ids(resource.vendor) or {} for other in settings.sites_with(resource.vendor)]
    on_account = sum(
        not resource.missing_variables(other) and resource.quota_policy(other).account == policy.account
        for other in all_ids
    )
    return daily_work(
        streams,
        daily_days(streams, scheduled_at, settings.start_date),
        cost=lambda stream, days: _likely(planner, stream, context, days),
        budget=hourly(policy) / max(1, on_account),
    )


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A site with credentials, and what its account may spend."""

    site: SiteContext
    policy: QuotaPolicy


@dataclass(frozen=True, kw_only=True)
class Working:
    """A run that is not over: which site and days it holds, and what it was thought to cost.

    Args:
        tables: "vendor/table"; empty where the run does every table of its vendor's job.
        first_day, last_day: ISO 8601, both inclusive; empty where it holds no days.
        requests: 0 where nobody forecast them.
    """

    run_id: str
    asked_at: datetime
    tables: frozenset[str]
    site: str
    first_day: str
    last_day: str
    vendor: str
    requests: int

    def holds(self, stream: Stream, site: str, first_day: date, last_day: date) -> bool:
        """Whether it works on some of these days of a stream."""
        mine = (not self.tables and self.vendor == stream.vendor) or any(
            spec.qualified_name in self.tables for spec in stream.tables
        )
        overlaps = self.first_day <= last_day.isoformat() and first_day.isoformat() <= self.last_day
        return mine and self.site == site and overlaps


def _likely(planner: Planner, stream: Stream, site: SiteContext, days: Sequence[date]) -> float:
    line = planner.line(stream, site, days)
    return _guessed(line.requests, line.days_to_fetch)


def _guessed(requests: Forecast, days: int) -> float:
    """Likely requests; a guess where nobody knows, because the least possible would leave today without room."""
    if requests.certainty is Certainty.UNKNOWN:
        return max(requests.likely, _GUESSED_REQUESTS_A_DAY * days)
    return requests.likely


def _longest_seconds(policy: QuotaPolicy) -> float:
    return max(window.seconds for window in policy.windows_for(policy.method_class("GET")))


def _no_room(due: Sequence[Deferral], budgets: Sequence[Budget]) -> str:
    """Why nothing is asked for, where nothing was even looked at."""
    newest = max(due, key=lambda deferral: deferral.last_day)
    soonest = min((b.next_slot_at for b in budgets if b.next_slot_at is not None), default=None)
    until = "while running work has promises on it" if soonest is None else f"before {soonest:%H:%M} UTC"
    limits = ", ".join(str(budget.limit) for budget in budgets)
    return (
        f"{len(due)} due, the newest {newest.stream} of {newest.site} for {newest.last_day}: no request is free of "
        f"{limits or 'an account without credentials'} {until}."
    )
