"""What a range of days would cost before a single request is sent: requests, hours, finish, and what would be cheaper.

Belongs here: which days still cost requests, forecasting them from streams and landed history, and when the last of
them may leave under the windows of their account. Does not belong here: a vendor's calls and figures (`vendors/<v>/`),
printing (`plan_cli`), spending. Nothing here opens a connection.

DESIGN section 3, "plan before spend".
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, Final

from analytics_platform.core.fetch import SiteContext, batches_of, days_to_fetch, state_of_days
from analytics_platform.core.forecast import Alternative, Forecast, Outlook, from_samples, nearest, total
from analytics_platform.core.lake import Lake, LakeViews
from analytics_platform.core.landing import Batch, Landing
from analytics_platform.core.partitions import today
from analytics_platform.core.quota_policy import QuotaPolicy, Window
from analytics_platform.core.streams import Stream
from analytics_platform.core.tables import TableSpec

if TYPE_CHECKING:
    from analytics_platform.core.quota import Ledger

__all__ = ["AccountPlan", "Faster", "LandedHistory", "Plan", "PlanLine", "Planner", "last_departure"]

_HISTORY_DAYS: Final = 56
_HISTORY_BATCHES: Final = 12


# ------------------------------------------------------------------------------------------------------------- history


class LandedHistory:
    """`core.forecast.History` of one stream and site: what landing and lake hold."""

    def __init__(
        self,
        stream: Stream,
        site_key: str,
        *,
        landing: Landing,
        lake: Lake,
        specs_by_name: Mapping[str, TableSpec],
    ) -> None:
        self._stream = stream
        self._site = site_key
        self._landing = landing
        self._lake = lake
        self._specs = specs_by_name
        self._rows: dict[str, dict[date, int]] = {}
        self._days: dict[str, list[date]] = {}

    def rows(self, table: str, days: Sequence[date]) -> Forecast:
        """Rows of a lake table on these days; days that are in the lake are taken as they are."""
        spec = self._specs[table]
        wanted = nearest(self._known(table), days, _HISTORY_DAYS)
        counts = self._rows.setdefault(table, {})
        missing = [day for day in wanted if day not in counts]
        if missing:
            counts |= dict.fromkeys(missing, 0) | self._lake.row_counts(spec, self._site, missing)
        return from_samples({day: counts[day] for day in wanted}, days)

    def landed_days(self, tables: Sequence[str], days: Sequence[date]) -> list[date]:
        """Days that all of these lake tables hold."""
        common = set.intersection(*(set(self._known(table)) for table in tables))
        return nearest(sorted(common), days, _HISTORY_DAYS)

    def _known(self, table: str) -> list[date]:
        if table not in self._days:
            self._days[table] = self._lake.days(self._specs[table], self._site)
        return self._days[table]

    def definitions(self, kind: str) -> int | None:
        """Ids that calls of a kind were about in the newest complete batch."""
        if not self._batches:
            return None
        return len({page.call.split("/")[1] for page in self._batches[-1].index() if page.call_kind == kind})

    def pages_per_call(self, kind: str) -> float | None:
        """Mean pages of a call of a kind over the newest complete batches."""
        pages: dict[tuple[str, str], int] = {}
        for batch in self._batches:
            for page in batch.index():
                if page.call_kind == kind:
                    pages[batch.path.name, page.call] = pages.get((batch.path.name, page.call), 0) + 1
        return fmean(pages.values()) if pages else None

    def requests_per_day(self, days: Sequence[date]) -> Forecast:
        """Requests that landed batches cost by day, for a stream that says nothing about itself."""
        return self._per_day(days, lambda batch: sum(page.attempts for page in batch.index()))

    def records_per_day(self, days: Sequence[date]) -> Forecast:
        """Records, as landed pages count them, of all calls of the stream on these days."""
        return self._per_day(days, lambda batch: sum(page.records for page in batch.index()))

    def _per_day(self, days: Sequence[date], amount: Callable[[Batch], int]) -> Forecast:
        samples: dict[date, float] = {}
        for batch in self._batches:
            samples |= dict.fromkeys(batch.days, amount(batch) / len(batch.days))
        return from_samples(samples, days) if samples else _NOBODY_KNOWS

    @cached_property
    def _batches(self) -> list[Batch]:
        found = [b for b in self._landing.batches(self._stream.vendor, self._stream.name, self._site) if b.is_complete]
        return sorted(found, key=lambda batch: (batch.last_day, batch.landed_at))[-_HISTORY_BATCHES:]


_NOBODY_KNOWS: Final = Forecast.unknown(least=1)


# ------------------------------------------------------------------------------------------------------------ the plan


@dataclass(frozen=True, kw_only=True)
class PlanLine:
    """One stream of one site.

    Args:
        tables: the lake tables its pages become ("vendor/table").
        days_there: days of the range that are final: nobody asks for them again.
        days_to_fetch: days that cost requests.
        days_out_of_reach: days that cannot be asked for (a snapshot of the past, a day to come).
        spent: requests that the pages already landed for these days cost.
        requests: what the days to fetch will cost.
        alternative: a cheaper way, where the stream knows one.
    """

    vendor: str
    site: str
    stream: str
    tables: tuple[str, ...]
    days_there: int
    days_to_fetch: int
    days_out_of_reach: int
    spent: int
    requests: Forecast
    alternative: Alternative | None = None


@dataclass(frozen=True, kw_only=True)
class Faster:
    """The same requests under the next plan up."""

    plan: str
    hours: float
    finishes_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class AccountPlan:
    """Everything the plan spends on one vendor account, whose longest window is `limit` requests in `window_seconds`.

    `hours` and `finishes_at` are those of the likely number of requests, sent as fast as the windows allow from now on
    (answers take time too, but windows of an hour dwarf them); `finishes_at_latest` is that of the highest number, None
    where nobody knows it.
    """

    account: str
    vendor: str
    sites: tuple[str, ...]
    window: str
    limit: int
    window_seconds: float
    used: int
    remaining: int
    reserve: int
    requests: Forecast
    hours: float
    finishes_at: datetime
    finishes_at_latest: datetime | None
    faster: Faster | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What `plan` prints and a backfill shows before it starts."""

    first_day: date
    last_day: date
    made_at: datetime
    lines: tuple[PlanLine, ...]
    accounts: tuple[AccountPlan, ...]
    off: tuple[str, ...] = ()

    @property
    def requests(self) -> Forecast:
        return total(line.requests for line in self.lines)

    @property
    def spent(self) -> int:
        return sum(line.spent for line in self.lines)

    @property
    def finishes_at(self) -> datetime:
        return max((account.finishes_at for account in self.accounts), default=self.made_at)


@dataclass(frozen=True, kw_only=True)
class Spender:
    """A site's account at a vendor, as its resource describes it.

    Args:
        policy: windows, reserve and account.
        next_plan: name and policy of the next plan up; None at the top, or where there are no plans.
        connection_requests: requests a run costs before its first page (tokens).
    """

    policy: QuotaPolicy
    next_plan: tuple[str, QuotaPolicy] | None = None
    connection_requests: int = 0


class Planner:
    """Plans over what is on disk. Sends nothing, writes nothing.

    Args:
        specs_by_name: every lake table by "vendor/table".
        now: aware UTC.
    """

    def __init__(
        self,
        *,
        landing: Landing,
        lake: Lake,
        ledger: Ledger,
        specs_by_name: Mapping[str, TableSpec],
        now: datetime,
    ) -> None:
        self._landing = landing
        self._lake = lake
        self._ledger = ledger
        self._specs = specs_by_name
        self._now = now

    def line(self, stream: Stream, site: SiteContext, days: Sequence[date], *, refresh: bool = False) -> PlanLine:
        """What one stream of one site will cost for these days."""
        current = today(stream.tables[0], self._now, site.timezone)
        asked = [current] if stream.span == "snapshot" and current in days else list(days)
        states = state_of_days(stream, self._landing, site, asked, self._now)
        wanted = sorted(d for d, s in states.items() if s.is_backfillable) if refresh else days_to_fetch(states)
        history = self._history(stream, site)
        outlooks = [self._outlook(stream, site, chunk, history) for chunk in batches_of(stream, site, wanted)]
        return PlanLine(
            vendor=stream.vendor,
            site=site.key,
            stream=stream.name,
            tables=tuple(spec.qualified_name for spec in stream.tables),
            days_there=sum(state.is_final for state in states.values()),
            days_to_fetch=len(wanted),
            days_out_of_reach=len(days) - sum(s.is_final or d in wanted for d, s in states.items()),
            spent=self._spent(stream, site, asked),
            requests=total(_forecast(stream, outlook, history) for outlook in outlooks),
            alternative=_cheaper(stream, outlooks),
        )

    def batches(
        self, stream: Stream, site: SiteContext, first_day: date, last_day: date
    ) -> list[tuple[date, date, Forecast]]:
        """The batches that still cost requests, newest first, each with its cost; one that costs nothing where every
        day is there.
        """
        days = [date.fromordinal(n) for n in range(first_day.toordinal(), last_day.toordinal() + 1)]
        wanted = days_to_fetch(state_of_days(stream, self._landing, site, days, self._now))
        if not wanted:
            return [(first_day, last_day, Forecast.exactly(0))]
        history = self._history(stream, site)
        return [
            (chunk[0], chunk[-1], _forecast(stream, self._outlook(stream, site, chunk, history), history))
            for chunk in batches_of(stream, site, wanted)
        ]

    def account(
        self, spender: Spender, lines: Sequence[PlanLine], *, is_backfill: bool = True, method: str = "GET"
    ) -> AccountPlan:
        """When the requests of these lines, all of one account, may leave."""
        policy = self._ledger.capped(spender.policy)
        method_class = policy.method_class(method)
        windows = policy.windows_for(method_class)
        requests = total(line.requests for line in lines)
        if requests.likely:
            requests = requests + Forecast.exactly(spender.connection_requests)
        departed = self._ledger.departures(policy.account, method_class, windows)
        reserve = policy.reserve if is_backfill else 0
        longest = max(windows, key=lambda window: window.seconds)
        usage = [w for w in self._ledger.usage_of(policy, method_class) if w.window_seconds == longest.seconds]

        def finish(number: float, under: QuotaPolicy) -> datetime:
            chosen = under.windows_for(under.method_class(method))
            return last_departure(self._now, chosen, departed, math.ceil(number), keep_free=reserve)

        finishes_at = finish(requests.likely, policy)
        faster = None
        if spender.next_plan is not None:
            name, better = spender.next_plan
            sooner = finish(requests.likely, better)
            faster = Faster(plan=name, hours=_hours(sooner - self._now), finishes_at=sooner)
        return AccountPlan(
            account=policy.account,
            vendor=policy.vendor,
            sites=tuple(sorted({line.site for line in lines})),
            window=f"{longest.limit} in {longest.seconds:g} s",
            limit=longest.limit,
            window_seconds=longest.seconds,
            used=usage[0].used if usage else 0,
            remaining=usage[0].remaining if usage else longest.limit,
            reserve=reserve,
            requests=requests,
            hours=_hours(finishes_at - self._now),
            finishes_at=finishes_at,
            finishes_at_latest=None if math.isinf(requests.high) else finish(requests.high, policy),
            faster=faster,
        )

    def _history(self, stream: Stream, site: SiteContext) -> LandedHistory:
        return LandedHistory(stream, site.key, landing=self._landing, lake=self._lake, specs_by_name=self._specs)

    def _outlook(self, stream: Stream, site: SiteContext, days: Sequence[date], history: LandedHistory) -> Outlook:
        return Outlook(
            site_key=site.key,
            ids=site.ids,
            timezone=site.timezone,
            first_day=days[0],
            last_day=days[-1],
            now=self._now,
            lake=LakeViews(self._lake, [self._specs[name] for name in stream.depends_on]),
            history=history,
        )

    def _spent(self, stream: Stream, site: SiteContext, days: Sequence[date]) -> int:
        """What landed pages of these days cost: of the batch in force for each day, and of batches still open."""
        in_force = set(self._landing.newest_complete(stream.vendor, stream.name, site.key, days).values())
        still_open = {
            batch
            for batch in self._landing.batches(stream.vendor, stream.name, site.key)
            if not batch.is_complete and any(batch.covers(day) for day in days)
        }
        return sum(page.attempts for batch in in_force | still_open for page in batch.index())


def _forecast(stream: Stream, outlook: Outlook, history: LandedHistory) -> Forecast:
    if stream.forecast is not None:
        return stream.forecast(outlook)
    return history.requests_per_day(outlook.days)


def _cheaper(stream: Stream, outlooks: Sequence[Outlook]) -> Alternative | None:
    if stream.cheaper is None or not outlooks:
        return None
    found = [alternative for outlook in outlooks if (alternative := stream.cheaper(outlook)) is not None]
    if not found:
        return None
    return Alternative(what=found[0].what, requests=total(alternative.requests for alternative in found))


# ---------------------------------------------------------------------------------------------------------------- time


def last_departure(
    now: datetime,
    windows: Sequence[Window],
    departed: Iterable[datetime],
    requests: int,
    *,
    keep_free: int = 0,
) -> datetime:
    """When the last of so many requests may leave, if nobody else spends and answers take no time.

    The ledger's own rule, run ahead: a request leaves when, for every window, the one `limit` before it is a span ago.

    Args:
        departed: requests already in the windows, ascending.
        keep_free: the reserve of windows longer than a minute.
    """
    if requests <= 0:
        return now
    past = [(instant - now).total_seconds() for instant in departed]
    lanes = [_Lane(window, past, keep_free) for window in windows]
    slowest = max(lanes, key=lambda lane: lane.span_seconds / lane.room, default=None)
    round_trip = max((lane.room for lane in lanes), default=0)
    leaves_at, left, in_step = 0.0, requests, 0
    while left > 0:
        leaves_at = max([leaves_at, *(lane.free_at() for lane in lanes)])
        in_step = in_step + 1 if slowest is not None and slowest.sets(leaves_at) else 0
        for lane in lanes:
            lane.send(leaves_at)
        left -= 1
        # Once every request has waited for the slowest window alone, all windows long, the rest repeats itself.
        if slowest is not None and in_step >= slowest.room + round_trip:
            rounds = left // slowest.room
            for lane in lanes:
                lane.shift(rounds * slowest.span_seconds)
            leaves_at += rounds * slowest.span_seconds
            left, in_step = left - rounds * slowest.room, 0
    return now + timedelta(seconds=leaves_at)


@dataclass
class _Lane:
    """One window: the last `limit` departures, in seconds from now."""

    window: Window
    past: Sequence[float]
    keep_free: int
    room: int = field(init=False)
    departures: deque[float] = field(init=False)

    def __post_init__(self) -> None:
        long = self.window.seconds > 60
        self.room = max(1, self.window.limit - (self.keep_free if long else 0))
        self.departures = deque(self.past[-self.room :], maxlen=self.room)

    @property
    def span_seconds(self) -> float:
        return self.window.span_us / 1e6

    def free_at(self) -> float:
        return self.departures[0] + self.span_seconds if len(self.departures) == self.room else 0.0

    def sets(self, at: float) -> bool:
        """Whether it is this window that a request leaving then has waited for."""
        return len(self.departures) == self.room and self.free_at() == at

    def shift(self, seconds: float) -> None:
        self.departures = deque((at + seconds for at in self.departures), maxlen=self.room)

    def send(self, at: float) -> None:
        self.departures.append(at)


def _hours(duration: timedelta) -> float:
    return round(duration.total_seconds() / 3600, 2)
