"""Out of quota is not failed: what a fetch leaves undone is written down with the hour it goes on at.

Belongs here: fetching a stream's days or putting them off, remembering and forgetting deferrals, work that waits for
deferred work it reads. Does not belong here: the list itself (`core.quota`), what is resumed when (`core.resume_desk`),
Dagster events (`core.ingest`).

A stream that reads another's rows waits for that stream's deferred days: half of a day's sessions would look like all
of its visitors. One that is asked by range waits for all of its days together, for its requests are by what the rows
name (a visitor), and a range that is asked in parts pays once a part for whoever is in several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final

from analytics_platform.core.fetch import Deferred, Fetcher, FetchOutcome, SiteContext
from analytics_platform.core.partitions import contiguous
from analytics_platform.core.quota_policy import Deferral, spending
from analytics_platform.core.streams import Stream

if TYPE_CHECKING:
    from analytics_platform.core.quota import Ledger

__all__ = ["defer_readers", "fetch_or_defer", "held_up_by", "waited_for"]

_FALLBACK_RESUME_SECONDS: Final = 3600.0
_AFTER_UPSTREAM_SECONDS: Final = 30.0
"""A sensor's tick: the work that is waited for is looked at in every one."""


def fetch_or_defer(
    stream: Stream,
    site: SiteContext,
    days: Sequence[date],
    *,
    fetcher: Fetcher,
    ledger: Ledger,
    connect: Callable[[], Any],
    run_id: str,
    is_backfill: bool,
    refresh: bool = False,
    when_refused: Callable[[], object] = lambda: None,
) -> FetchOutcome:
    """`Fetcher.run`, and the ledger's list of deferrals kept true to its outcome.

    Args:
        days: ascending.
        connect: as for `Fetcher.run`.
        run_id, is_backfill: what requests are spent under.
        when_refused: called after the quota ended the work, before it is written down.

    Raises:
        StorageError: the ledger cannot be used.
    """
    waiting = waited_for(ledger.deferrals(), stream, site.key, days)
    ready = _ready(stream, days, waiting)
    with spending(stream=stream.name, site=site.key, run_id=run_id, backfill=is_backfill):
        outcome = fetcher.run(stream, site, ready, connect=connect, refresh=refresh) if ready else FetchOutcome()
        if outcome.deferred is not None:
            when_refused()
    if len(ready) < len(days) and outcome.error is None and outcome.deferred is None:
        held = [day for day in days if day not in ready]
        outcome.deferred = _after_upstream(waiting, held, outcome, fetcher)
    _remember(ledger, stream, site.key, outcome, days, fetcher)
    return outcome


def waited_for(deferrals: Iterable[Deferral], stream: Stream, site: str, days: Sequence[date]) -> tuple[Deferral, ...]:
    """Deferred work of a site whose rows this stream reads on these days.

    Of another vendor only the tables' names are known here and not the streams they come from: every deferral of that
    vendor on these days counts.
    """
    if not stream.depends_on or not days:
        return ()
    others = {name.partition("/")[0] for name in stream.depends_on} - {stream.vendor}
    return tuple(
        deferral
        for deferral in deferrals
        if deferral.site == site
        and (f"{deferral.vendor}/{deferral.stream}" in stream.depends_on or deferral.vendor in others)
        and any(deferral.first_day <= day <= deferral.last_day for day in days)
    )


def held_up_by(deferral: Deferral, stream: Stream, deferrals: Iterable[Deferral]) -> tuple[Deferral, ...]:
    """The deferred work that a deferral has to wait for itself."""
    span = range(deferral.first_day.toordinal(), deferral.last_day.toordinal() + 1)
    return waited_for(deferrals, stream, deferral.site, [date.fromordinal(number) for number in span])


def defer_readers(
    ledger: Ledger,
    readers: Iterable[tuple[str, str]],
    site: str,
    days: Sequence[date],
    *,
    upstream: str,
    resume_at: datetime,
) -> None:
    """Streams of the same run that read a stream which was cut: their steps are skipped, so somebody has to remember
    all of their days, also those whose rows are there by now.

    Args:
        readers: (vendor, stream) of each.
        days: what the run was asked for, ascending.
        upstream: the stream that was cut ("vendor/stream").
        resume_at: when that one goes on (UTC).
    """
    for vendor, stream in readers:
        ledger.defer(
            vendor=vendor,
            stream=stream,
            site=site,
            first_day=days[0],
            last_day=days[-1],
            resume_at=resume_at,
            reason=f"It reads {upstream}, which the same run had to defer.",
        )


def _ready(stream: Stream, days: Sequence[date], waiting: Sequence[Deferral]) -> list[date]:
    held = {day for day in days if any(d.first_day <= day <= d.last_day for d in waiting)}
    if held and stream.span == "range":
        return []
    return [day for day in days if day not in held]


def _after_upstream(
    waiting: Sequence[Deferral], days: Sequence[date], outcome: FetchOutcome, fetcher: Fetcher
) -> Deferred:
    names = sorted({f"{deferral.vendor}/{deferral.stream}" for deferral in waiting})
    return Deferred(
        days=tuple(days),
        # Later than any instant this may have been asked for at: a resumption is known by when it was due.
        resume_at=max([fetcher.in_seconds(_AFTER_UPSTREAM_SECONDS), *(d.resume_at for d in waiting)]),
        reason=f"It reads {', '.join(names)}, which is deferred.",
        landed_records=outcome.records,
    )


def _remember(
    ledger: Ledger, stream: Stream, site: str, outcome: FetchOutcome, days: Sequence[date], fetcher: Fetcher
) -> None:
    known = {"vendor": stream.vendor, "stream": stream.name, "site": site}
    if outcome.deferred is None:
        if outcome.error is None:
            ledger.clear(**known, first_day=days[0], last_day=days[-1])
        return
    ledger.defer(
        **known,
        first_day=outcome.deferred.days[0],
        last_day=outcome.deferred.days[-1],
        resume_at=outcome.deferred.resume_at or fetcher.in_seconds(_FALLBACK_RESUME_SECONDS),
        reason=outcome.deferred.reason,
        landed_records=outcome.deferred.landed_records,
    )
    # Days that were finished on the way, newest first, are off an older and longer deferral.
    for done in contiguous(outcome.done_days):
        ledger.clear(**known, first_day=done[0], last_day=done[-1])
