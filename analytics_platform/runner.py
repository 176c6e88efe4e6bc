"""Running the platform from a terminal: the same Dagster jobs the UI launches, in this process or in its lanes.

Belongs here: which runs a range of days needs, starting them, what came of them. Does not belong here: printing
(`cli`), vendors beside each other (`lanes`), asset bodies (`core.ingest`), deciding which days cost requests
(`core.fetch`).
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from datetime import date, timedelta
from functools import cached_property
from typing import Any, Final, Literal

import dagster as dg

from analytics_platform.core.automation import range_tags
from analytics_platform.core.beside import Beside
from analytics_platform.core.checking import prepare_checking
from analytics_platform.core.clock import Clock, SystemClock
from analytics_platform.core.errors import PlatformError
from analytics_platform.core.fetch import SiteContext, days_to_fetch, state_of_days
from analytics_platform.core.ingest import REFRESH_TAG, REPLAY_TAG, was_interrupted
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Batch, Landing
from analytics_platform.core.partitions import today
from analytics_platform.core.quota import Ledger, Spent
from analytics_platform.core.resources import open_ledger
from analytics_platform.core.stopwatch import Span, Stopwatch, measuring, shared
from analytics_platform.core.streams import Stream
from analytics_platform.lanes import Lanes, VendorJob
from analytics_platform.settings import Settings, Site
from analytics_platform.transform.dbt_ahead import DbtAhead

__all__ = ["RunParts", "RunReport", "Runner", "VendorResult", "Work"]

_ROWS: Final = ("requests", "landing", "lake")
"""Parts of a run that bring rows; the others are what is added to them."""

State = Literal["complete", "done", "deferred", "failed", "off", "not used"]


@dataclass(frozen=True, kw_only=True)
class Work:
    """One Dagster run to start: some streams of a vendor, one site, contiguous days."""

    vendor: str
    site: str
    streams: tuple[Stream, ...]
    first_day: date
    last_day: date
    costs_requests: bool


@dataclass(kw_only=True)
class VendorResult:
    """What came of one vendor at one site."""

    vendor: str
    site: str
    state: State
    message: str = ""
    partitions: int = 0
    rows: int = 0
    requests: int = 0
    seconds: float = 0.0
    deferred_tables: list[str] = field(default_factory=list)
    failed_checks: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class RunParts:
    """Where the wall seconds of a `run` went, each second in one field (`docs/run_overhead.md`).

    Where vendors are fetched beside each other, a second in which one of them waits for, lands or decodes rows is
    those rows', whatever is done beside it.
    """

    requests_seconds: float = 0.0
    """Until the vendors' next page was there: sending, quota and waiting, taking the page apart."""
    landing_seconds: float = 0.0
    """Writing pages down, and deciding which days are to be asked for."""
    lake_seconds: float = 0.0
    """Decoding landed pages into Parquet."""
    checks_seconds: float = 0.0
    """Waiting for Great Expectations, the vendors' own checks and Data Docs, which another process works at."""
    dbt_start_seconds: float = 0.0
    """From asking dbt for the build until its first node: what is left of its imports, reading the graph."""
    dbt_models_seconds: float = 0.0
    """Models and seeds; two run at a time, and a second with a test beside a model is shared between them."""
    dbt_tests_seconds: float = 0.0
    pictures_seconds: float = 0.0
    """Row counts in the metadata of marts, waiting for their plots."""
    publish_seconds: float = 0.0
    dagster_seconds: float = 0.0
    """Everything else: loading definitions, planning runs, events and their storage."""
    total_seconds: float = 0.0
    overhead_seconds: float = 0.0
    """The total without requests, landing and lake: what Dagster, checks, dbt and publishing add to the rows."""

    @classmethod
    def of(cls, seconds: Mapping[str, float], total: float) -> RunParts:
        """From a stopwatch's seconds by part name; what no part claimed is Dagster's."""
        known = {each.name.removesuffix("_seconds") for each in fields(cls)} - {"dagster", "total", "overhead"}
        told = {f"{name}_seconds": round(seconds.get(name, 0.0), 3) for name in sorted(known)}
        made = cls(**told, dagster_seconds=round(total - sum(told.values()), 3), total_seconds=round(total, 3))
        rows = sum(told[f"{name}_seconds"] for name in _ROWS)
        return replace(made, overhead_seconds=round(made.total_seconds - rows, 3))


@dataclass(kw_only=True)
class RunReport:
    """What came of a whole `run`."""

    first_day: date
    last_day: date
    vendors: list[VendorResult] = field(default_factory=list)
    marts: State = "complete"
    marts_message: str = ""
    seconds_by_part: dict[str, float] = field(default_factory=dict)
    """Wall seconds by vendor, and of "dbt and publish": each holds everything done for it. Vendors overlap."""
    parts: RunParts = field(default_factory=lambda: RunParts())
    """The same seconds by what was done."""

    @property
    def requests(self) -> int:
        return sum(result.requests for result in self.vendors)

    @property
    def has_new_rows(self) -> bool:
        """Whether anything was asked or decoded: runs were started for vendors."""
        return any(result.state in ("done", "deferred", "failed") for result in self.vendors)

    @property
    def failed(self) -> bool:
        return self.marts == "failed" or any(result.state == "failed" for result in self.vendors)

    @property
    def deferred(self) -> bool:
        return any(result.state == "deferred" for result in self.vendors)


class Runner:
    """Starts Dagster runs for ranges of days on one instance.

    Args:
        began: `time.monotonic()` when the work began for whoever asked, now by default; `RunReport.parts` counts from
            then.
        definitions: those of these settings, where they were built before.
    """

    def __init__(
        self,
        settings: Settings,
        instance: dg.DagsterInstance,
        *,
        clock: Clock | None = None,
        began: float | None = None,
        definitions: dg.Definitions | None = None,
    ) -> None:
        self._built = definitions
        self._began = time.monotonic() if began is None else began
        # A deferred table has no check result; Dagster warns of that on stderr, in the middle of the report.
        logging.getLogger("dagster._core.execution.plan.active").setLevel(logging.ERROR)
        self.settings = settings
        self.instance = instance
        self.clock = clock or SystemClock()
        self.landing = Landing(settings.home.landing, clock=self.clock)
        self.lake = Lake(settings.home.lake)
        self._ahead: DbtAhead | None = None
        self._beside: Beside | None = None

    @cached_property
    def definitions(self) -> dg.Definitions:
        """Everything the UI shows, built when the first run is planned."""
        from analytics_platform.definitions import build_definitions

        if self._built is not None:
            return self._built
        built = build_definitions(self.settings)
        # Dagster and the definitions stay to the end: looking for what is unused in them takes 0.2 s each time.
        gc.freeze()
        return built

    @cached_property
    def job(self) -> dg.JobDefinition:
        return self.definitions.resolve_implicit_global_asset_job_def()

    def run(
        self,
        first_day: date,
        last_day: date,
        *,
        vendors: Sequence[str],
        sites: Sequence[str],
        refresh: bool = False,
        marts: bool = True,
        thorough: bool = False,
        lanes: Lanes | None = None,
    ) -> Iterator[VendorResult | RunReport]:
        """Yield each vendor × site result as it is there, then the report, which lists them in the order asked for.

        Snapshot tables are taken today whatever the range, unless today's is there already.

        Args:
            thorough: run the dbt tests too that ordinary builds leave to the job `dbt_thorough`.
            lanes: vendors are fetched beside each other in them; none: one after the other, here.
        """
        report = RunReport(first_day=first_day, last_day=last_day)
        jobs = [
            VendorJob(vendor=vendor, site=site.key, first_day=first_day, last_day=last_day, refresh=refresh)
            for vendor in vendors
            for site in self.settings.sites
            if site.key in sites
        ]
        guests = () if lanes is None else lanes.guests
        with measuring() as watch, DbtAhead(self.settings) as ahead, Beside(guests) as beside:
            self._ahead = ahead if marts else None
            self._beside = beside
            for result in self._do_all(jobs, watch, lanes):
                report.seconds_by_part[result.vendor] = report.seconds_by_part.get(result.vendor, 0.0) + result.seconds
                report.vendors.append(result)
                yield result
            asked_for = {(job.vendor, job.site): position for position, job in enumerate(jobs)}
            report.vendors.sort(key=lambda result: asked_for[result.vendor, result.site])
            if marts:
                self._marts(report, thorough=thorough)
            self._ahead = None
            self._beside = None
        report.parts = RunParts.of(watch.seconds, time.monotonic() - self._began)
        yield report

    # -- vendors -------------------------------------------------------------------------------------------------

    def work(self, vendor: str, site: Site, first_day: date, last_day: date, *, refresh: bool = False) -> list[Work]:
        """The runs a vendor and site still need for these days; empty when everything is there."""
        from analytics_platform.vendors import streams_of

        ids = site.ids(vendor)
        if ids is None:
            return []
        context = SiteContext(key=site.key, timezone=site.timezone, ids=ids)
        by_days: dict[tuple[date, date, bool], list[Stream]] = {}
        for stream in streams_of(vendor):
            wanted = self._unfinished_days(stream, context, first_day, last_day, refresh=refresh)
            if wanted is not None:
                by_days.setdefault(wanted, []).append(stream)
        return [
            Work(
                vendor=vendor,
                site=site.key,
                streams=tuple(streams),
                first_day=first,
                last_day=last,
                costs_requests=costs,
            )
            for (first, last, costs), streams in sorted(by_days.items(), key=lambda item: not item[0][2])
        ]

    def _unfinished_days(
        self, stream: Stream, site: SiteContext, first_day: date, last_day: date, *, refresh: bool
    ) -> tuple[date, date, bool] | None:
        now = self.clock.now()
        current = today(stream.tables[0], now, site.timezone)
        if stream.span == "snapshot":
            days = [current]
        else:
            stop = min(last_day, current)
            days = [first_day + timedelta(days=n) for n in range((stop - first_day).days + 1)]
        if not days:
            return None
        states = state_of_days(stream, self.landing, site, days, now)
        to_fetch = days if refresh else days_to_fetch(states)
        to_decode = [day for day, state in states.items() if not self._is_decoded(stream, site, day, state.batch)]
        unfinished = sorted({*to_fetch, *to_decode})
        return (unfinished[0], unfinished[-1], bool(to_fetch)) if unfinished else None

    def _is_decoded(self, stream: Stream, site: SiteContext, day: date, batch: Batch | None) -> bool:
        """Whether every table's partition was written after its batch landed (nothing to do where nothing landed)."""
        if batch is None or batch.landed_at is None:
            return True
        landed = batch.landed_at.timestamp()
        written = [self.lake.written_at(spec, site.key, day) for spec in stream.tables]
        return all(at is not None and at >= landed for at in written)

    def replay(
        self, first_day: date, last_day: date, *, vendors: Sequence[str], sites: Sequence[str]
    ) -> Iterator[VendorResult]:
        """Decode landed pages of these days again. Costs no request."""
        from analytics_platform.vendors import streams_of

        for vendor in vendors:
            for site in self.settings.sites_with(vendor):
                if site.key not in sites:
                    continue
                result = VendorResult(vendor=vendor, site=site.key, state="complete")
                begun = time.monotonic()
                for stream in streams_of(vendor):
                    landed = self._landed_days(stream, site.key, first_day, last_day)
                    if landed:
                        work = Work(
                            vendor=vendor,
                            site=site.key,
                            streams=(stream,),
                            first_day=landed[0],
                            last_day=landed[-1],
                            costs_requests=False,
                        )
                        self._launch(work, result, tags={REPLAY_TAG: "true"})
                result.seconds = time.monotonic() - begun
                yield result

    def _landed_days(self, stream: Stream, site: str, first_day: date, last_day: date) -> list[date]:
        days = [first_day + timedelta(days=n) for n in range((last_day - first_day).days + 1)]
        return sorted(self.landing.newest_complete(stream.vendor, stream.name, site, days))

    def do(self, job: VendorJob) -> VendorResult:
        """Start the runs that a vendor and site still need, one after the other, here."""
        begun = time.monotonic()
        result, work = self._wanted(job)
        if work:
            spent_before = self._requests(job.vendor, job.site)
            for item in work:
                self._launch(item, result, tags={REFRESH_TAG: "true"} if job.refresh else {})
            result.requests = self._requests(job.vendor, job.site) - spent_before
        result.seconds = time.monotonic() - begun
        return result

    def _wanted(self, job: VendorJob) -> tuple[VendorResult, list[Work]]:
        """The runs to start, and a result that is final where there are none."""
        from analytics_platform.vendors import vendor_resource

        result = VendorResult(vendor=job.vendor, site=job.site, state="complete")
        site = self.settings.site(job.site)
        ids = site.ids(job.vendor)
        if ids is None:
            result.state = "not used"
            return result, []
        work = self.work(job.vendor, site, job.first_day, job.last_day, refresh=job.refresh)
        missing = vendor_resource(job.vendor, self.instance).missing_variables(ids)
        if missing and any(item.costs_requests for item in work):
            result.state = "off"
            result.message = f"{', '.join(missing)} not set"
            return result, []
        return result, work

    def _do_all(self, jobs: Sequence[VendorJob], watch: Stopwatch, lanes: Lanes | None) -> Iterator[VendorResult]:
        undone = list(jobs)
        if lanes is not None and lanes.count:
            wanted = [(job, *self._wanted(job)) for job in jobs]
            undone = [job for job, _, work in wanted if work]
            yield from (result for _, result, work in wanted if not work)
            if len({job.vendor for job in undone}) > 1:
                undone = yield from self._beside_each_other(undone, watch, lanes)
        for job in undone:
            yield self.do(job)

    def _beside_each_other(
        self, jobs: Sequence[VendorJob], watch: Stopwatch, lanes: Lanes
    ) -> Generator[VendorResult, None, list[VendorJob]]:
        """Yield what the lanes did, return what they could not."""
        self._begin_beside(then=self._prepare_marts)
        undone: list[VendorJob] = []
        spans: list[Sequence[Span]] = []
        for ended in lanes.run(jobs, _upstream({job.vendor for job in jobs})):
            if ended.result is None:
                undone.append(ended.job)
                continue
            spans.append(ended.spans)
            yield ended.result
        for part, seconds in shared(spans, first=_ROWS).items():
            watch.add(part, seconds)
        return undone

    def _launch(self, work: Work, result: VendorResult, *, tags: Mapping[str, str]) -> None:
        self._begin_beside()
        selection = [dg.AssetKey(spec.asset_key) for stream in work.streams for spec in stream.tables]
        partitions = range_tags(work.site, work.first_day, work.last_day)
        outcome = self._execute(selection, {**partitions, "vendor": work.vendor, "site": work.site, **tags})
        if was_interrupted(outcome.run_id):
            raise KeyboardInterrupt
        for event in outcome.all_events:
            _count(event, result)
        if not outcome.success:
            result.state = "failed"
            result.message = _cause(outcome) or result.message
        elif result.state == "complete":
            result.state = "done"

    def _begin_beside(self, then: Callable[[], object] = lambda: None) -> None:
        def afterwards() -> None:
            self._begin_dbt()
            then()

        if self._beside is not None:
            # Checks are wanted first. Something will be new in the lake, so that there will be a build.
            self._beside.begin(prepare_checking, then=afterwards)

    def _prepare_marts(self) -> None:
        """What the build will need in this process, which waits for its lanes."""
        if self._ahead is None:
            return
        from analytics_platform.transform import MARTS_JOB, prepare_build

        # The build itself tells what is wrong.
        with suppress(PlatformError):
            self.definitions.resolve_job_def(MARTS_JOB)
            prepare_build()

    def _begin_dbt(self) -> None:
        # The build begins it again, and tells what is wrong.
        with suppress(PlatformError):
            if self._ahead is not None:
                self._ahead.begin()

    def _execute(
        self, selection: Sequence[dg.AssetKey], tags: dict[str, str], *, job: dg.JobDefinition | None = None
    ) -> dg.ExecuteInProcessResult:
        return (job or self.job).execute_in_process(
            asset_selection=list(selection) or None,
            instance=self.instance,
            raise_on_error=False,
            tags=tags,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )

    def _requests(self, vendor: str, site: str) -> int:
        ledger: Ledger = open_ledger(self.settings)
        with ledger:
            spent: Iterable[Spent] = ledger.spent(vendor=vendor, site=site)
            return sum(item.requests for item in spent)

    # -- marts ---------------------------------------------------------------------------------------------------

    def _marts(self, report: RunReport, *, thorough: bool) -> None:
        from analytics_platform.transform import MART_GROUPS, MARTS_JOB, marts_are_current

        begun = time.monotonic()
        if marts_are_current(self.settings, report.first_day, report.last_day) and not thorough:
            report.marts_message = "nothing new since the last publish"
        else:
            if self._ahead is not None and report.has_new_rows:
                # Where the checks were not imported yet: the build is handed to it all the same.
                self._ahead.begin()
            first, last = self._marts_window(report)
            tags = {"dagster/asset_partition_range_start": str(first), "dagster/asset_partition_range_end": str(last)}
            if thorough:
                assets = self.definitions.resolve_asset_graph()
                selection = dg.AssetSelection.groups(*MART_GROUPS).resolve(assets)
                outcome = self._execute(sorted(selection), tags)
            else:
                # The whole job: a selection of assets would bring back the checks the job leaves out.
                outcome = self._execute((), tags, job=self.definitions.resolve_job_def(MARTS_JOB))
            report.marts = "done" if outcome.success else "failed"
            report.marts_message = "" if outcome.success else _cause(outcome)
        report.seconds_by_part["dbt and publish"] = time.monotonic() - begun

    def _marts_window(self, report: RunReport) -> tuple[date, date]:
        first = max(report.first_day, self.settings.start_date)
        return first, max(first, min(report.last_day, self.clock.now().date()))


def _upstream(vendors: Collection[str]) -> dict[str, set[str]]:
    """Vendor → the others whose rows its streams read."""
    from analytics_platform.vendors import streams_of

    read = {
        vendor: {name.partition("/")[0] for stream in streams_of(vendor) for name in stream.depends_on}
        for vendor in vendors
    }
    return {vendor: others - {vendor} for vendor, others in read.items()}


def _count(event: dg.DagsterEvent, result: VendorResult) -> None:
    if event.is_step_materialization:
        materialization: Any = event.step_materialization_data.materialization
        result.partitions += 1
        rows = materialization.metadata.get("dagster/partition_row_count")
        result.rows += int(rows.value) if rows is not None else 0
    elif event.event_type_value == "ASSET_OBSERVATION":
        observation: Any = event.asset_observation_data.asset_observation
        state = observation.metadata.get("state")
        if state is not None and state.value == "deferred":
            result.state = "deferred"
            result.deferred_tables.append(observation.asset_key.path[-1])
            until = observation.metadata["deferred_until"].value
            result.message = f"{', '.join(result.deferred_tables)} deferred until {until}; landed pages are kept"
    elif event.event_type_value == "ASSET_CHECK_EVALUATION":
        evaluation: Any = event.asset_check_evaluation_data
        if not evaluation.passed:
            result.failed_checks.append(f"{evaluation.asset_key.to_user_string()}: {evaluation.check_name}")


def _cause(outcome: dg.ExecuteInProcessResult) -> str:
    """The first failure's own words: a Failure's description, else the innermost message."""
    for event in outcome.all_events:
        if not event.is_step_failure:
            continue
        failure = event.step_failure_data
        if failure.user_failure_data is not None and failure.user_failure_data.description:
            return str(failure.user_failure_data.description)
        error = failure.error
        while error is not None and error.cause is not None:
            error = error.cause
        if error is not None:
            return " ".join(error.message.split())
    return "the run did not start; see the Dagster UI"
