"""When things run by themselves: daily schedules, and sensors that resume what quota deferred.

Belongs here: the factories every vendor's `automation.py` calls. Does not belong here: a vendor's clock time or
quota figures.

One owner a timescale: seconds belong to the transport, minutes to Dagster's retry policy, hours to the sensor here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from analytics_platform.core.daily import DailyPart, DailyWork, put_off
from analytics_platform.core.partitions import partition_key
from analytics_platform.core.planning import Planner
from analytics_platform.core.resources import PlatformResource, VendorResource
from analytics_platform.core.resume_desk import ResumeDesk, Working, site_work
from analytics_platform.core.resuming import Resumption
from analytics_platform.core.streams import Stream
from analytics_platform.core.tables import TableSpec
from analytics_platform.settings import Settings

__all__ = [
    "FORECAST_TAG",
    "Automation",
    "range_tags",
    "requests_for_deferred",
    "unfinished_runs",
    "vendor_automation",
]

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
FORECAST_TAG = "analytics_platform/forecast_requests"
"""Likely requests of a run, written before it starts."""
_DEFERRAL_TAG = "analytics_platform/deferral"
_RESUME_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class Automation:
    """What a vendor adds to the schedules and sensors pages."""

    jobs: list[Any] = field(default_factory=list)
    schedules: list[dg.ScheduleDefinition] = field(default_factory=list)
    sensors: list[dg.SensorDefinition] = field(default_factory=list)


def range_tags(site: str, first_day: date, last_day: date) -> dict[str, str]:
    """Run tags that select a contiguous range of one site's partitions."""
    return {RANGE_START: partition_key(first_day, site), RANGE_END: partition_key(last_day, site)}


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
        schedules=[_daily_schedule(vendor, streams, settings, specs_by_name, job, daily_at)],
        sensors=[_quota_reset_sensor(vendor, streams, settings, specs_by_name, job, daily_at)],
    )


def _daily_schedule(
    vendor: str,
    streams: Sequence[Stream],
    settings: Settings,
    specs_by_name: Mapping[str, TableSpec],
    job: Any,
    daily_at: tuple[int, int],
) -> dg.ScheduleDefinition:
    hour, minute = daily_at

    @dg.schedule(
        name=f"{vendor}_daily_schedule",
        job=job,
        cron_schedule=f"{minute} {hour} * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        required_resource_keys={"platform", vendor},
        description=(
            f"Fetches yesterday from {vendor} for every site, and again the days it may still revise. "
            "One run a site; days that are already final cost nothing. Where an hour of quota is too little for all "
            "of them, yesterday goes first and the quota-reset sensor fetches the others."
        ),
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        now = context.scheduled_execution_time.astimezone(UTC)
        platform: PlatformResource = context.resources.platform
        resource: VendorResource = getattr(context.resources, vendor)
        planner = Planner(
            landing=platform.landing, lake=platform.lake, ledger=platform.ledger, specs_by_name=specs_by_name, now=now
        )
        requested = 0
        reasons = []
        for site in settings.sites_with(vendor):
            missing = resource.missing_variables(site.ids(vendor) or {})
            if missing:
                reasons.append(f"{site.key}: {', '.join(missing)} not set")
                continue
            work = site_work(planner, resource, settings, site, streams, now, platform.ledger)
            if work.later is not None:
                put_off(platform.ledger, work.later, site.key, now)
            for request in _daily_requests(vendor, streams, site.key, now, work):
                requested += 1
                yield request
        if not requested:
            yield dg.SkipReason("; ".join(reasons) or f"No site in sites.yaml uses {vendor}.")

    return schedule


def _daily_requests(
    vendor: str, streams: Sequence[Stream], site: str, now: datetime, work: DailyWork
) -> Iterator[dg.RunRequest]:
    """One run for the snapshots of today, and those of the day that ended with as many before it as the hour has room
    for.
    """
    snapshots = tuple(stream for stream in streams if stream.span == "snapshot")
    taken = (DailyPart(label="snapshot", streams=snapshots, days=(now.date(),)),) if snapshots else ()
    for part in (*taken, *work.at_once):
        yield dg.RunRequest(
            run_key=f"{vendor}:{site}:{part.label}:{now.date()}",
            asset_selection=[dg.AssetKey(spec.asset_key) for stream in part.streams for spec in stream.tables],
            tags={**range_tags(site, part.days[0], part.days[-1]), "vendor": vendor, "site": site},
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
            "no more than the window has room for, and once per partition. Around the daily schedule it keeps "
            "room for today's partitions. Landed pages are kept, so nothing is paid for twice."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        platform: PlatformResource = context.resources.platform
        desk = ResumeDesk(
            stores=platform,
            resource=getattr(context.resources, vendor),
            settings=settings,
            streams=by_name,
            specs_by_name=specs_by_name,
            unfinished=lambda: unfinished_runs(context.instance),
            daily_at=daily_at,
        )
        choice = desk.choose()
        if not choice.resumptions:
            yield dg.SkipReason(choice.why or "Everything that is due is being worked on.")
            return
        context.log.info(choice.why or "Everything that is due fits the budget.")
        yield from requests_for_deferred(choice.resumptions, by_name, context.instance)

    return sensor


def unfinished_runs(instance: dg.DagsterInstance) -> list[Working]:
    """Every run that is not over, whoever started it."""
    records = instance.get_run_records(dg.RunsFilter(statuses=list(NOT_FINISHED_STATUSES)))
    return [_working(record) for record in records]


def _working(record: dg.RunRecord) -> Working:
    run = record.dagster_run
    alone = run.tags.get("dagster/partition", "")
    first_day, _, site = run.tags.get(RANGE_START, alone).partition("|")
    return Working(
        run_id=run.run_id,
        asked_at=record.create_timestamp.replace(tzinfo=record.create_timestamp.tzinfo or UTC),
        tables=frozenset(key.to_user_string() for key in run.asset_selection or ()),
        site=site,
        first_day=first_day,
        last_day=run.tags.get(RANGE_END, alone).partition("|")[0],
        vendor=run.tags.get("vendor", ""),
        requests=int(run.tags.get(FORECAST_TAG, 0)),
    )


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
            asset_selection=[dg.AssetKey(spec.asset_key) for spec in streams[deferral.stream].tables],
            tags={
                **range_tags(deferral.site, resumption.first_day, resumption.last_day),
                "vendor": deferral.vendor,
                "site": deferral.site,
                FORECAST_TAG: str(resumption.requests),
                _DEFERRAL_TAG: name,
            },
        )
