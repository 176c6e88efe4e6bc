"""When things run by themselves: daily schedules, and sensors that resume what quota deferred.

Belongs here: the factories every vendor's `automation.py` calls. Does not belong here: a vendor's clock time or
quota figures.

One owner a timescale: seconds belong to the transport, minutes to Dagster's retry policy, hours to the sensor here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg

from analytics_platform.core.partitions import partition_key
from analytics_platform.core.quota_policy import Deferral
from analytics_platform.core.resources import PlatformResource
from analytics_platform.core.streams import Stream
from analytics_platform.settings import Settings

__all__ = ["Automation", "range_tags", "requests_for_deferred", "vendor_automation"]

_RANGE_START = "dagster/asset_partition_range_start"
_RANGE_END = "dagster/asset_partition_range_end"
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
    return {_RANGE_START: partition_key(first_day, site), _RANGE_END: partition_key(last_day, site)}


def vendor_automation(
    vendor: str, streams: Sequence[Stream], settings: Settings, *, daily_at: tuple[int, int]
) -> Automation:
    """A daily job and schedule, and a quota-reset sensor.

    Args:
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
        sensors=[_quota_reset_sensor(vendor, streams, job)],
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


def _quota_reset_sensor(vendor: str, streams: Sequence[Stream], job: Any) -> dg.SensorDefinition:
    by_name = {stream.name: stream for stream in streams}

    @dg.sensor(
        name=f"{vendor}_quota_reset_sensor",
        job=job,
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.STOPPED,
        required_resource_keys={"platform"},
        description=(
            f"Resumes what was deferred because {vendor}'s request quota was spent: newest day first, "
            "once per deferral, and only when the "
            "window has room again. Landed pages are kept, so nothing is paid for twice."
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
        yield from requests_for_deferred(due, by_name, context.instance)

    return sensor


def requests_for_deferred(
    due: Sequence[Deferral], streams: dict[str, Stream], instance: dg.DagsterInstance
) -> Iterator[dg.RunRequest]:
    """One run per deferral, newest day first. The run key names the deferral, so a repeated tick requests nothing new.

    A run that failed or was killed leaves its deferral behind: it is asked for again, three times in all.
    """
    for deferral in sorted(due, key=lambda d: d.last_day, reverse=True):
        name = (
            f"{deferral.vendor}:{deferral.stream}:{deferral.site}:{deferral.first_day}:{deferral.last_day}:"
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
                **range_tags(deferral.site, deferral.first_day, deferral.last_day),
                "vendor": deferral.vendor,
                "site": deferral.site,
                _DEFERRAL_TAG: name,
            },
        )


def _why_quiet(vendor: str, waiting: Sequence[Deferral]) -> str:
    if not waiting:
        return f"Nothing of {vendor} is deferred."
    soonest = min(waiting, key=lambda d: d.resume_at)
    return (
        f"{len(waiting)} deferred; the next, {soonest.stream} of {soonest.site}, resumes at "
        f"{soonest.resume_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC."
    )
