"""When things run by themselves: daily schedules, and sensors that resume what quota deferred.

Belongs here: the factories every vendor's `automation.py` calls. Does not belong here: a vendor's clock time or
quota figures.

One owner a timescale: seconds belong to the transport, minutes to Dagster's retry policy, hours to the sensor here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from analytics_platform.core.fetch import SiteContext
from analytics_platform.core.partitions import partition_key
from analytics_platform.core.planning import Planner
from analytics_platform.core.quota_policy import Deferral, QuotaPolicy
from analytics_platform.core.resources import PlatformResource, VendorResource
from analytics_platform.core.resuming import Budget, Choice, Piece, Resumption, choose
from analytics_platform.core.streams import Stream
from analytics_platform.core.tables import TableSpec
from analytics_platform.settings import Settings, Site

__all__ = ["FORECAST_TAG", "Automation", "range_tags", "requests_for_deferred", "vendor_automation"]

_RANGE_START = "dagster/asset_partition_range_start"
_RANGE_END = "dagster/asset_partition_range_end"
_DEFERRAL_TAG = "analytics_platform/deferral"
FORECAST_TAG = "analytics_platform/forecast_requests"
"""Likely requests of a run, written before it starts."""
_RESUME_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class Automation:
    """What a vendor adds to the schedules and sensors pages."""

    jobs: list[Any] = field(default_factory=list)
    schedules: list[dg.ScheduleDefinition] = field(default_factory=list)
    sensors: list[dg.SensorDefinition] = field(default_factory=list)


def range_tags(site: str, first_day: date, last_day: date) -> dict[str, str]:
    """Run tags that select a contiguous range of one site's partitions."""
    return {_RANGE_START: partition_key(first_day, site), _RANGE_END: partition_key(last_day, site)}


def vendor_automation(
    vendor: str,
    streams: Sequence[Stream],
    settings: Settings,
    specs_by_name: Mapping[str, TableSpec],
    *,
    daily_at: tuple[int, int],
) -> Automation:
    """A daily job and schedule, and a quota-reset sensor.

    Args:
        specs_by_name: every lake table, for streams that read another vendor's.
        daily_at: (hour, minute) UTC; vendors are staggered so that they do not start together.
    """
    job = dg.define_asset_job(
        f"{vendor}_daily",
        selection=dg.AssetSelection.groups(vendor),
        description=f"Every {vendor} table, for one site and days.",
    )
    return Automation(
        jobs=[job],
        schedules=[_daily_schedule(vendor, streams, settings, job, daily_at)],
        sensors=[_quota_reset_sensor(vendor, streams, settings, specs_by_name, job, daily_at)],
    )


def _daily_schedule(
    vendor: str, streams: Sequence[Stream], settings: Settings, job: Any, daily_at: tuple[int, int]
) -> dg.ScheduleDefinition:
    hour, minute = daily_at

    @dg.schedule(
        name=f"{vendor}_daily_schedule",
        job=job,
        cron_schedule=f"{minute} {hour} * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        required_resource_keys={vendor},
        description=(
            f"Fetches yesterday from {vendor} for every site, and again the days it may still revise. "
            "One run a site; days that are "
            "already final cost nothing."
        ),
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        now = context.scheduled_execution_time.astimezone(UTC)
        resource = getattr(context.resources, vendor)
        requested = 0
        reasons = []
        for site in settings.sites_with(vendor):
            missing = resource.missing_variables(site.ids(vendor) or {})
            if missing:
                reasons.append(f"{site.key}: {', '.join(missing)} not set")
                continue
            for request in _daily_requests(vendor, streams, site.key, now, settings.start_date):
                requested += 1
                yield request
        if not requested:
            yield dg.SkipReason("; ".join(reasons) or f"No site in sites.yaml uses {vendor}.")

    return schedule


def _daily_requests(
    vendor: str, streams: Sequence[Stream], site: str, now: datetime, start: date
) -> Iterator[dg.RunRequest]:
    """One run for the snapshots of today, one for the days that ended, looking back as far as the vendor revises."""
    snapshots = [stream for stream in streams if stream.span == "snapshot"]
    dated = [stream for stream in streams if stream.span != "snapshot"]
    yesterday = now.date() - timedelta(days=1)
    plans = []
    if snapshots:
        plans.append(("snapshot", snapshots, now.date(), now.date()))
    if dated:
        # One day more than the look-back: west of Greenwich a local day ends after the schedule's time, and would
        # otherwise stay provisional. Days that are final cost nothing.
        first = max(start, yesterday - timedelta(days=1 + max(stream.lookback_days for stream in dated)))
        if first <= yesterday:
            plans.append(("daily", dated, first, yesterday))
    for label, chosen, first_day, last_day in plans:
        yield dg.RunRequest(
            run_key=f"{vendor}:{site}:{label}:{now.date()}",
            asset_selection=[dg.AssetKey(spec.asset_key) for stream in chosen for spec in stream.tables],
            tags={**range_tags(site, first_day, last_day), "vendor": vendor, "site": site},
        )


def _quota_reset_sensor(
    vendor: str,
    streams: Sequence[Stream],
    settings: Settings,
    specs_by_name: Mapping[str, TableSpec],
    job: Any,
    daily_at: tuple[int, int],
) -> dg.SensorDefinition:
    by_name = {stream.name: stream for stream in streams}

    @dg.sensor(
        name=f"{vendor}_quota_reset_sensor",
        job=job,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.STOPPED,
        required_resource_keys={"platform", vendor},
        description=(
            f"Resumes what was deferred because {vendor}'s request quota was spent: newest day first, sites in turn, "
            "no more than the window has room for, and once per partition. Just before the daily schedule it keeps "
            "room for today's partitions. Landed pages are kept, so nothing is paid for twice."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        platform: PlatformResource = context.resources.platform
        now = platform.clock.now()
        waiting = [d for d in platform.ledger.deferrals() if d.vendor == vendor and d.stream in by_name]
        due = [d for d in waiting if d.resume_at <= now]
        if not due:
            yield dg.SkipReason(_why_quiet(vendor, waiting))
            return
        desk = _ResumeDesk(
            platform=platform,
            resource=getattr(context.resources, vendor),
            settings=settings,
            streams=by_name,
            specs_by_name=specs_by_name,
            instance=context.instance,
            daily_at=daily_at,
        )
        choice = desk.choose(due)
        context.log.info(choice.why or "Everything that is due fits the budget.")
        yield from requests_for_deferred(choice.resumptions, by_name, context.instance)
        if not choice.resumptions:
            yield dg.SkipReason(choice.why or "Everything that is due is being worked on.")

    return sensor


class _ResumeDesk:
    """One tick: what is due, in pieces with their cost, against what each account has left."""

    def __init__(
        self,
        *,
        platform: PlatformResource,
        resource: VendorResource,
        settings: Settings,
        streams: Mapping[str, Stream],
        specs_by_name: Mapping[str, TableSpec],
        instance: dg.DagsterInstance,
        daily_at: tuple[int, int],
    ) -> None:
        self._ledger = platform.ledger
        self._resource = resource
        self._settings = settings
        self._streams = streams
        self._now = platform.clock.now()
        self._daily_at = daily_at
        self._working = [_Working.of(run) for run in instance.get_runs(_unfinished(resource.vendor))]
        self._planner = Planner(
            landing=platform.landing,
            lake=platform.lake,
            ledger=self._ledger,
            specs_by_name=specs_by_name,
            now=self._now,
        )

    def choose(self, due: Sequence[Deferral]) -> Choice:
        pieces = [piece for deferral in due for piece in self._pieces(deferral)]
        policies = {policy.account: policy for site in self._sites() if (policy := self._policy(site)) is not None}
        return choose(pieces, [self._budget(policy) for policy in policies.values()])

    def _sites(self) -> tuple[Site, ...]:
        return self._settings.sites_with(self._resource.vendor)

    def _policy(self, site: Site) -> QuotaPolicy | None:
        ids = site.ids(self._resource.vendor) or {}
        return None if self._resource.missing_variables(ids) else self._resource.quota_policy(ids)

    def _context(self, key: str) -> tuple[SiteContext, QuotaPolicy] | None:
        site = next((site for site in self._sites() if site.key == key), None)
        policy = None if site is None else self._policy(site)
        if site is None or policy is None:
            return None
        ids = site.ids(self._resource.vendor) or {}
        return SiteContext(key=site.key, timezone=site.timezone, ids=ids), policy

    def _pieces(self, deferral: Deferral) -> Iterator[Piece]:
        """Batches of a deferral that nobody is working on. Days that were finished meanwhile cost nothing, and the run
        that finds them so takes the deferral off the list.
        """
        found = self._context(deferral.site)
        if found is None:
            return
        site, policy = found
        stream = self._streams[deferral.stream]
        for first_day, last_day, requests in self._planner.batches(stream, site, deferral.first_day, deferral.last_day):
            if not any(working.holds(stream, deferral.site, first_day, last_day) for working in self._working):
                yield Piece(
                    account=policy.account,
                    deferral=deferral,
                    first_day=first_day,
                    last_day=last_day,
                    requests=requests.likely,
                )

    def _budget(self, policy: QuotaPolicy) -> Budget:
        usage = max(self._ledger.usage_of(policy, policy.method_class("GET")), key=lambda u: u.window_seconds)
        kept = policy.reserve + self._kept_for_today(policy, usage.window_seconds)
        return Budget(
            account=policy.account,
            limit=usage.limit,
            left=max(0, usage.remaining - kept - self._promised()),
            kept=kept,
            next_slot_at=usage.next_slot_at,
        )

    def _promised(self) -> int:
        """What runs that were asked for will still spend."""
        left = 0
        for working in self._working:
            spent = sum(row.requests for row in self._ledger.spent(run_id=working.run_id))
            left += max(0, working.requests - spent)
        return left

    def _kept_for_today(self, policy: QuotaPolicy, window_seconds: float) -> int:
        """Likely requests of the day that just ended, from one window before the daily schedule to one after it."""
        hour, minute = self._daily_at
        begins_at = self._now.replace(hour=hour, minute=minute, second=0, microsecond=0)
        if abs((self._now - begins_at).total_seconds()) > window_seconds:
            return 0
        yesterday = begins_at.date() - timedelta(days=1)
        kept = 0.0
        for site in self._sites():
            found = self._context(site.key)
            if found is not None and found[1].account == policy.account:
                dated = [stream for stream in self._streams.values() if stream.span != "snapshot"]
                kept += sum(self._planner.line(stream, found[0], [yesterday]).requests.likely for stream in dated)
        return math.ceil(kept)


@dataclass(frozen=True, kw_only=True)
class _Working:
    """A run that is not over: which site and days it holds, and what it was thought to cost."""

    run_id: str
    tables: frozenset[str]
    site: str
    first_day: str
    last_day: str
    requests: int

    @classmethod
    def of(cls, run: dg.DagsterRun) -> _Working:
        first_day, _, site = run.tags.get(_RANGE_START, "").partition("|")
        return cls(
            run_id=run.run_id,
            tables=frozenset(key.to_user_string() for key in run.asset_selection or ()),
            site=site,
            first_day=first_day,
            last_day=run.tags.get(_RANGE_END, "").partition("|")[0],
            requests=int(run.tags.get(FORECAST_TAG, 0)),
        )

    def holds(self, stream: Stream, site: str, first_day: date, last_day: date) -> bool:
        # A run without a selection of its own does every table of the job.
        mine = not self.tables or any(spec.qualified_name in self.tables for spec in stream.tables)
        overlaps = self.first_day <= last_day.isoformat() and first_day.isoformat() <= self.last_day
        return mine and self.site == site and overlaps


def _unfinished(vendor: str) -> dg.RunsFilter:
    return dg.RunsFilter(tags={"vendor": vendor}, statuses=list(NOT_FINISHED_STATUSES))


def requests_for_deferred(
    resumptions: Sequence[Resumption], streams: Mapping[str, Stream], instance: dg.DagsterInstance
) -> Iterator[dg.RunRequest]:
    """One run per resumption, newest day first. The run key names deferral and days, so a repeated tick requests
    nothing new, whenever the daemon was restarted.

    A run that failed or was killed leaves its deferral behind: it is asked for again, three times in all.
    """
    for resumption in resumptions:
        deferral = resumption.deferral
        name = (
            f"{deferral.vendor}:{deferral.stream}:{deferral.site}:{resumption.first_day}:{resumption.last_day}:"
            f"{deferral.resume_at.isoformat(timespec='seconds')}"
        )
        ended_badly = instance.get_runs_count(
            dg.RunsFilter(
                tags={_DEFERRAL_TAG: name}, statuses=[dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
            )
        )
        yield dg.RunRequest(
            run_key=name if not ended_badly else f"{name}:again-{min(ended_badly, _RESUME_ATTEMPTS - 1)}",
            asset_selection=_with_dependents(streams[deferral.stream], streams),
            tags={
                **range_tags(deferral.site, resumption.first_day, resumption.last_day),
                "vendor": deferral.vendor,
                "site": deferral.site,
                FORECAST_TAG: str(resumption.requests),
                _DEFERRAL_TAG: name,
            },
        )


def _with_dependents(stream: Stream, streams: Mapping[str, Stream]) -> list[dg.AssetKey]:
    """The stream's tables, and those of streams of its vendor that read them: their steps were skipped with it."""
    mine = {spec.qualified_name for spec in stream.tables}
    dependents = [other for other in streams.values() if mine & set(other.depends_on)]
    return [dg.AssetKey(spec.asset_key) for chosen in (stream, *dependents) for spec in chosen.tables]


def _why_quiet(vendor: str, waiting: Sequence[Deferral]) -> str:
    if not waiting:
        return f"Nothing of {vendor} is deferred."
    soonest = min(waiting, key=lambda d: d.resume_at)
    return (
        f"{len(waiting)} deferred; the next, {soonest.stream} of {soonest.site}, resumes at "
        f"{soonest.resume_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC."
    )
