"""Which days still have to be asked for, and asking: stream → pages → landing → lake, for one site.

Belongs here: the decision per day (landed and final, provisional, missing, not backfillable), running a stream's
extraction
under the landing's lock, decoding what is complete. Knows no Dagster: `core.ingest` turns the outcome into events.
Does not belong here: HTTP, SQL, any vendor's name.

A day is *final* when every page of its newest complete batch was received after the day's end plus the stream's
look-back: nobody asks for it again. Received earlier (also in part, when the batch was deferred in between) it is
*provisional*: the next run asks again and the newer batch wins. Re-decoding never costs a request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any

from analytics_platform.core.asking import AskedBatch, Asking
from analytics_platform.core.clock import Clock, SystemClock
from analytics_platform.core.concurrency import REQUESTS_IN_FLIGHT
from analytics_platform.core.errors import DataError, NotBackfillable, PlatformError, QuotaError, Where
from analytics_platform.core.lake import DecodedPartition, Lake, LakeViews
from analytics_platform.core.lake_stream import Following
from analytics_platform.core.landing import Batch, BatchWriter, Landing
from analytics_platform.core.paging import Page
from analytics_platform.core.partitions import contiguous, day_ends_at, today
from analytics_platform.core.progress import Progress, tell
from analytics_platform.core.stopwatch import measured, measured_steps
from analytics_platform.core.streams import Extraction, Stream
from analytics_platform.core.stripping import strip_before_landing
from analytics_platform.core.tables import TableSpec
from analytics_platform.core.tombstones import Tombstones

__all__ = [
    "DayState",
    "Deferred",
    "FetchOutcome",
    "Fetcher",
    "SiteContext",
    "batches_of",
    "days_to_fetch",
    "state_of_days",
]


@dataclass(frozen=True, kw_only=True)
class SiteContext:
    """The site as a stream sees it: key, zone, and the vendor's own ids."""

    key: str
    timezone: str
    ids: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class DayState:
    """One day of one stream and site.

    `batch` is the newest complete batch covering the day, None when there is none; `is_final` says that nobody asks
    again.
    """

    day: date
    batch: Batch | None
    is_final: bool
    is_backfillable: bool


@dataclass(frozen=True, kw_only=True)
class Deferred:
    """Out of quota: what was landed stays, the rest resumes at `resume_at` (UTC, None when the vendor did not say)."""

    days: tuple[date, ...]
    resume_at: datetime | None
    reason: str
    landed_records: int


@dataclass(kw_only=True)
class FetchOutcome:
    """What one stream did for one site. Days ascending."""

    decoded: dict[date, list[DecodedPartition]] = field(default_factory=dict)
    batches: dict[date, Batch] = field(default_factory=dict)
    requests: int = 0
    pages: int = 0
    records: int = 0
    deferred: Deferred | None = None
    error: PlatformError | None = None
    not_backfillable: list[date] = field(default_factory=list)
    provisional: set[date] = field(default_factory=set)

    @property
    def done_days(self) -> list[date]:
        return sorted(self.decoded)


def state_of_days(
    stream: Stream, landing: Landing, site: SiteContext, days: Sequence[date], now: datetime
) -> dict[date, DayState]:
    """The state of each day, from the landing alone."""
    covering = landing.newest_complete(stream.vendor, stream.name, site.key, days)
    table = stream.tables[0]
    lookback = timedelta(days=stream.lookback_days)
    current = today(table, now, site.timezone)
    states = {}
    for day in days:
        batch = covering.get(day)
        if stream.span == "snapshot":
            # A snapshot of a day can only be taken on that day, so the first complete one is as final as it gets.
            states[day] = DayState(day=day, batch=batch, is_final=batch is not None, is_backfillable=day == current)
            continue
        settled_at = day_ends_at(table, day, site.timezone) + lookback
        is_final = batch is not None and batch.asked_since is not None and batch.asked_since >= settled_at
        states[day] = DayState(day=day, batch=batch, is_final=is_final, is_backfillable=day <= current)
    return states


def days_to_fetch(states: Mapping[date, DayState]) -> list[date]:
    """Days that cost requests, ascending."""
    return sorted(day for day, state in states.items() if not state.is_final and state.is_backfillable)


class Fetcher:
    """Runs streams of one vendor for one site at a time.

    Args:
        describe_progress: called after each landed page, besides the process's listeners.
        most_in_flight: so many answers may be paid for and not landed yet, where requests need nothing of each other.
    """

    def __init__(
        self,
        *,
        landing: Landing,
        lake: Lake,
        run_id: str,
        specs_by_name: Mapping[str, TableSpec],
        clock: Clock | None = None,
        log: logging.Logger | None = None,
        describe_progress: Callable[[Progress], None] | None = None,
        most_in_flight: int = REQUESTS_IN_FLIGHT,
    ) -> None:
        self._landing = landing
        self._lake = lake
        self._tombstones = Tombstones.beside(landing.root)
        self._run_id = run_id
        self._specs = specs_by_name
        self._clock = clock or SystemClock()
        self._log = log or logging.getLogger("analytics_platform")
        self._describe = describe_progress
        self._most_in_flight = most_in_flight
        self._following: Following | None = None

    def run(
        self,
        stream: Stream,
        site: SiteContext,
        days: Sequence[date],
        *,
        connect: Callable[[], Any],
        refresh: bool = False,
        tables: Sequence[TableSpec] | None = None,
    ) -> FetchOutcome:
        """Fetch what is missing, decode every day that is complete.

        Args:
            connect: opens the vendor's client (a context manager); called only when a request is needed.
            refresh: ask again for days that are already final.
            tables: decode only these tables of the stream (all of them by default).

        Returns:
            The outcome; a QuotaError becomes `deferred`, another platform error becomes `error`. Days finished
            before either
            are decoded and listed.
        """
        outcome = FetchOutcome()
        try:
            states = self._states(stream, site, days)
        except DataError as error:
            outcome.error = error.located(vendor=stream.vendor, site=site.key)
            return outcome
        outcome.not_backfillable = [d for d, s in states.items() if s.batch is None and not s.is_backfillable]
        self._following = None
        try:
            if _wanted(states, refresh=refresh):
                with measured("landing"):
                    self._fetch(stream, site, days, outcome, connect, refresh=refresh)
            self._decode(stream, site, days, outcome, tables)
        finally:
            self._follow(None)
        if outcome.not_backfillable and not outcome.decoded and outcome.error is None and outcome.deferred is None:
            outcome.error = _not_backfillable(stream, site, outcome.not_backfillable)
        return outcome

    def replay(
        self, stream: Stream, site: SiteContext, days: Sequence[date], tables: Sequence[TableSpec] | None = None
    ) -> FetchOutcome:
        """Decode again from landed pages. Costs no request, whatever the days' state."""
        outcome = FetchOutcome()
        self._decode(stream, site, days, outcome, tables)
        return outcome

    def in_seconds(self, seconds: float) -> datetime:
        """The instant so many seconds from now, by the platform's clock."""
        return self._clock.now() + timedelta(seconds=seconds)

    def _states(self, stream: Stream, site: SiteContext, days: Sequence[date]) -> dict[date, DayState]:
        return state_of_days(stream, self._landing, site, days, self._clock.now())

    # -- fetching ------------------------------------------------------------------------------------------------

    def _fetch(
        self,
        stream: Stream,
        site: SiteContext,
        days: Sequence[date],
        outcome: FetchOutcome,
        connect: Callable[[], Any],
        *,
        refresh: bool,
    ) -> None:
        remaining: list[date] = []
        try:
            with self._landing.exclusive(stream.vendor, stream.name, site.key):
                # Asked again under the lock: another run may have paid for these days since.
                remaining = _wanted(self._states(stream, site, days), refresh=refresh)
                if not remaining:
                    return
                if not refresh:
                    self._settle_interrupted(stream, site)
                    remaining = _wanted(self._states(stream, site, days), refresh=False)
                    if not remaining:
                        return
                chunks = self._chunks(stream, site, remaining, refresh=refresh)
                with connect() as client:
                    self._fetch_batches(stream, site, chunks, client, outcome, remaining, fresh=refresh)
        except QuotaError as error:
            outcome.deferred = Deferred(
                days=tuple(remaining), resume_at=error.resume_at, reason=str(error), landed_records=outcome.records
            )
        except PlatformError as error:
            span = _span(remaining) if remaining else None
            outcome.error = error.located(vendor=stream.vendor, site=site.key, partition=span)

    def _settle_interrupted(self, stream: Stream, site: SiteContext) -> None:
        """What a killed run landed of whole days counts before anything is asked."""
        for batch in self._open_batches(stream, site):
            with self._open(stream, site, batch.days, fresh=False) as writer:
                writer.settle()

    def _open_batches(self, stream: Stream, site: SiteContext) -> list[Batch]:
        return self._landing.batches(stream.vendor, stream.name, site.key, only_open=True)

    def _chunks(
        self, stream: Stream, site: SiteContext, remaining: Sequence[date], *, refresh: bool
    ) -> list[list[date]]:
        """The batches to fetch, newest first: open ones go on with all their days, so that their pages are not lost."""
        left = set(remaining)
        chunks = []
        for batch in [] if refresh else reversed(self._open_batches(stream, site)):
            settled = set(self._landing.newest_complete(stream.vendor, stream.name, site.key, batch.days))
            missing = set(batch.days) - settled
            if missing and missing <= left:
                chunks.append(batch.days)
                left -= missing
        return sorted([*chunks, *batches_of(stream, site, sorted(left))], key=lambda days: days[-1], reverse=True)

    def _open(self, stream: Stream, site: SiteContext, days: Sequence[date], *, fresh: bool) -> BatchWriter:
        return self._landing.open_batch(
            vendor=stream.vendor,
            stream=stream.name,
            site=site.key,
            first_day=days[0],
            last_day=days[-1],
            run_id=self._run_id,
            fresh=fresh,
        )

    def _fetch_batches(
        self,
        stream: Stream,
        site: SiteContext,
        chunks: Sequence[list[date]],
        client: Any,
        outcome: FetchOutcome,
        remaining: list[date],
        *,
        fresh: bool,
    ) -> None:
        """Fetch batches, and take the days that are complete off `remaining`, also when it ends early."""
        # Several batches are decoded together in one pass afterwards; one can be decoded beside its requests.
        following = self._lake.follow(stream.tables, site=site.key, days=chunks[0]) if len(chunks) == 1 else None
        self._follow(following)

        def ended(batch: AskedBatch, sealed: Batch | None) -> None:
            writer = batch.writer
            outcome.requests += writer.appended_requests
            outcome.pages += writer.appended_pages
            outcome.records += writer.landed_records
            complete = writer.settled_days if sealed is None else batch.days
            remaining[:] = [day for day in remaining if day not in complete]
            if sealed is not None and following is not None:
                following.batch = sealed.path

        begin = partial(self._begin, stream, site, fresh=fresh)
        with (
            Asking(stream, client, begin=begin, ended=ended, most_in_flight=self._most_in_flight) as asking,
            closing(asking.answers(chunks)) as answers,
        ):
            for batch, page in measured_steps("requests", answers):
                if page is not None:
                    self._land(stream, site, batch, page, following)
                asking.landed(batch)

    def _begin(
        self, stream: Stream, site: SiteContext, days: list[date], opening: ExitStack, *, fresh: bool
    ) -> AskedBatch:
        """Goes on where the batch of these days was landed to."""
        writer = opening.enter_context(self._open(stream, site, days, fresh=fresh))
        extraction = Extraction(
            site_key=site.key,
            ids=site.ids,
            timezone=site.timezone,
            first_day=days[0],
            last_day=days[-1],
            now=self._clock.now(),
            lake=LakeViews(self._lake, [self._specs[name] for name in stream.depends_on]),
            done_calls=writer.done_calls,
            interrupted=writer.interrupted,
            log=self._log,
        )
        return AskedBatch(
            days=days,
            writer=writer,
            extraction=extraction,
            already=writer.landed_records,
            is_new=not writer.landed,
            begun=self._clock.monotonic(),
        )

    def _land(
        self, stream: Stream, site: SiteContext, batch: AskedBatch, page: Page, following: Following | None
    ) -> None:
        kept, stripped = strip_before_landing(page, stream.tables, self._tombstones, site.key)
        if kept is not None:
            line = batch.writer.append(kept, stripped=stripped)
            # What an earlier run has landed of the batch is not at hand here: then it is decoded from landing.
            if following is not None and batch.is_new:
                following.add(line, kept)
        self._report(stream, site, batch)

    def _follow(self, following: Following | None) -> None:
        """The decode that goes along with the batch being fetched; the one before it ends."""
        if self._following is not None:
            self._following.close()
        self._following = following

    def _report(self, stream: Stream, site: SiteContext, batch: AskedBatch) -> None:
        progress = Progress(
            vendor=stream.vendor,
            stream=stream.name,
            site=site.key,
            first_day=str(batch.days[0]),
            last_day=str(batch.days[-1]),
            pages=batch.writer.appended_pages,
            records=batch.writer.landed_records - batch.already,
            requests=batch.writer.appended_requests,
            seconds=self._clock.monotonic() - batch.begun,
        )
        tell(progress)
        if self._describe is not None:
            self._describe(progress)

    # -- decoding ------------------------------------------------------------------------------------------------

    def _decode(
        self,
        stream: Stream,
        site: SiteContext,
        days: Sequence[date],
        outcome: FetchOutcome,
        tables: Sequence[TableSpec] | None,
    ) -> None:
        """Decode every day that has a complete batch. A day whose tables did not all decode is not listed as done."""
        states = self._states(stream, site, days)
        assignments = _by_batch({day: state.batch for day, state in states.items() if state.batch is not None})
        failed: set[date] = set()
        for spec in tables if tables is not None else stream.tables:
            for partition in self._decode_table(spec, assignments, site, outcome, failed):
                outcome.decoded.setdefault(partition.day, []).append(partition)
        for day in failed:
            outcome.decoded.pop(day, None)
        outcome.batches = {day: batch for batch, batch_days in assignments for day in batch_days}
        outcome.provisional = {day for day in outcome.decoded if not states[day].is_final}

    def _decode_table(
        self,
        spec: TableSpec,
        assignments: list[tuple[Batch, list[date]]],
        site: SiteContext,
        outcome: FetchOutcome,
        failed: set[date],
    ) -> list[DecodedPartition]:
        """All batches in one pass; when one of them cannot be read, batch by batch, so that only its own days fail."""
        if not assignments:
            return []
        followed = None if self._following is None else self._following.take(spec, assignments)
        if followed is not None:
            return followed
        try:
            with measured("lake"):
                return self._lake.decode(spec, assignments, site=site.key)
        except DataError as error:
            days = [day for _, batch_days in assignments for day in batch_days]
            if len(assignments) == 1:
                failed.update(days)
                located = error.located(vendor=spec.vendor, site=site.key, partition=_span(days))
                outcome.error = outcome.error or located
                return []
        return [
            partition
            for assignment in assignments
            for partition in self._decode_table(spec, [assignment], site, outcome, failed)
        ]


def _wanted(states: Mapping[date, DayState], *, refresh: bool) -> list[date]:
    return sorted(day for day, state in states.items() if state.is_backfillable) if refresh else days_to_fetch(states)


def batches_of(stream: Stream, site: SiteContext, days: list[date]) -> list[list[date]]:
    """The days of each batch, newest first: when quota ends the work early, the days people look at are there."""
    if stream.span != "range":
        return [[day] for day in reversed(days)]
    chunks = []
    for run in contiguous(days):
        size = stream.days_per_batch(site.ids) if stream.days_per_batch is not None else len(run)
        # Cut from the newest end, so that an incomplete chunk is the oldest.
        chunks += [run[max(0, end - size) : end] for end in range(len(run), 0, -size)]
    return sorted(chunks, reverse=True)


def _by_batch(covering: Mapping[date, Batch]) -> list[tuple[Batch, list[date]]]:
    grouped: dict[str, tuple[Batch, list[date]]] = {}
    for day in sorted(covering):
        batch = covering[day]
        grouped.setdefault(str(batch.path), (batch, []))[1].append(day)
    return list(grouped.values())


def _span(days: Sequence[date]) -> str:
    return str(days[0]) if len(days) == 1 else f"{days[0]}..{days[-1]}"


def _not_backfillable(stream: Stream, site: SiteContext, days: Sequence[date]) -> NotBackfillable:
    return NotBackfillable(
        f"{stream.qualified_name} cannot be fetched for {_span(days)}.",
        "It is a snapshot of the vendor's state today: materialise today's partition. "
        "Past days exist only where a snapshot "
        "was taken on that day, and days that have not begun cannot be asked for.",
        Where(vendor=stream.vendor, endpoint=stream.name, site=site.key, partition=_span(days)),
    )
