"""What a vendor's daily run is for: which days it asks for, what of it goes first, and when it begins.

Belongs here: the arithmetic that the schedule and the room kept for it share. Does not belong here: asking Dagster
(`core.automation`), how much room is kept (`core.resume_desk`), forecasting (`core.planning`).

The day that ended comes with the days before it that the vendor may still revise, in one range: that costs the fewest
requests. Where the whole of it does not fit into an hour of quota, the day that ended goes first, and the others follow
as deferred work; streams that cost the same for one day as for all of them are asked for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Final

from analytics_platform.core.quota_policy import QuotaPolicy
from analytics_platform.core.streams import Stream

if TYPE_CHECKING:
    from analytics_platform.core.quota import Ledger

__all__ = ["DailyPart", "DailyWork", "daily_days", "daily_work", "hourly", "newest_begin", "put_off"]

_AGAIN_AFTER: Final = timedelta(minutes=1)
"""When the look-back days are due that did not fit: once the runs of the day that ended are there to be seen."""


@dataclass(frozen=True, kw_only=True)
class DailyPart:
    """Streams and the days they are asked for, ascending; `label` tells the parts of one day apart."""

    label: str
    streams: tuple[Stream, ...]
    days: tuple[date, ...]


@dataclass(frozen=True, kw_only=True)
class DailyWork:
    """The runs of the hour, and what is deferred to the hours after it."""

    at_once: tuple[DailyPart, ...] = ()
    later: DailyPart | None = None


def daily_days(streams: Sequence[Stream], scheduled_at: datetime, start: date) -> list[date]:
    """The day that ended, and the days before it that the vendor may still revise; ascending, none before `start`.

    One day more than the look-back: west of Greenwich a local day ends after the schedule's time, and would otherwise
    stay provisional. Days that are final cost nothing.
    """
    dated = [stream for stream in streams if stream.span != "snapshot"]
    yesterday = scheduled_at.date() - timedelta(days=1)
    if not dated:
        return []
    first = max(start, yesterday - timedelta(days=1 + max(stream.lookback_days for stream in dated)))
    return [date.fromordinal(n) for n in range(first.toordinal(), yesterday.toordinal() + 1)]


def daily_work(
    streams: Sequence[Stream], days: Sequence[date], *, cost: Callable[[Stream, Sequence[date]], float], budget: float
) -> DailyWork:
    """What to ask for these days, in one range or with the newest day first.

    Args:
        days: of `daily_days`.
        cost: likely requests of a stream for days.
        budget: requests the site may spend in the hour.
    """
    dated = [stream for stream in streams if stream.span != "snapshot"]
    if not dated or not days:
        return DailyWork()
    whole = DailyPart(label="daily", streams=tuple(dated), days=tuple(days))
    costs = {stream.name: cost(stream, days) for stream in dated}
    if len(days) < 2 or sum(costs.values()) <= budget:
        return DailyWork(at_once=(whole,))
    newest = days[-1:]
    gains = {stream.name for stream in dated if cost(stream, newest) < costs[stream.name]}
    for stream in dated:
        # Who reads whom stays in one run, in which one waits for the other.
        related = {name.partition("/")[2] for name in stream.depends_on if name.startswith(f"{stream.vendor}/")}
        if related and ({stream.name} | related) & gains:
            gains |= {stream.name} | related
    first = tuple(stream for stream in dated if stream.name in gains)
    rest = tuple(stream for stream in dated if stream.name not in gains)
    if not first:
        return DailyWork(at_once=(whole,))
    parts = (DailyPart(label="newest", streams=first, days=tuple(newest)), *((_part(rest, days),) if rest else ()))
    return DailyWork(at_once=parts, later=DailyPart(label="again", streams=first, days=tuple(days[:-1])))


def _part(streams: tuple[Stream, ...], days: Sequence[date]) -> DailyPart:
    return DailyPart(label="daily", streams=streams, days=tuple(days))


def put_off(ledger: Ledger, part: DailyPart, site: str, now: datetime) -> None:
    """Days that the vendor may still revise become deferred work: the sensor takes newer days first."""
    for stream in part.streams:
        ledger.defer(
            vendor=stream.vendor,
            stream=stream.name,
            site=site,
            first_day=part.days[0],
            last_day=part.days[-1],
            resume_at=now + _AGAIN_AFTER,
            reason="May have been revised; goes after the day that ended, for an hour of quota is too little for both.",
        )


def hourly(policy: QuotaPolicy) -> float:
    """Requests an hour that an account may spend on reading: its scarcest window's."""
    windows = policy.windows_for(policy.method_class("GET"))
    return min(window.limit * max(1.0, 3600.0 / window.seconds) for window in windows)


def newest_begin(now: datetime, daily_at: tuple[int, int]) -> datetime:
    """The daily run's latest scheduled instant that is not after `now` (both UTC)."""
    hour, minute = daily_at
    today = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return today if today <= now else today - timedelta(days=1)
