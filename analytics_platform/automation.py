"""Jobs, schedules and sensors that belong to no single vendor: everything at once, the marts, alerts.

Belongs here: cross-vendor automation. Does not belong here: a vendor's own schedule (`vendors/<v>/automation.py`).
"""

# No `from __future__ import annotations` here: Dagster reads the types of an op's parameters at run time.
import os
from collections.abc import Iterator
from datetime import UTC, date, timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from analytics_platform.core.automation import range_tags
from analytics_platform.core.clock import SystemClock
from analytics_platform.core.redaction import redact
from analytics_platform.core.sending import SENDING_GROUP
from analytics_platform.settings import Settings
from analytics_platform.transform import MARTS_JOB, ordinary_build, thorough_checks

__all__ = ["ALERT_VARIABLE", "platform_automation"]

ALERT_VARIABLE = "ANALYTICS_PLATFORM_ALERT_URL"
_MARTS_WINDOW_DAYS = 7
_REVISED_DAYS = 3
_SENT_DAYS = 7
_RANGE_START = "dagster/asset_partition_range_start"
_RANGE_END = "dagster/asset_partition_range_end"


def platform_automation(settings: Settings) -> dg.Definitions:
    """The job for everything, the marts job with its schedule, and the failure sensor."""
    marts = dg.define_asset_job(
        MARTS_JOB,
        selection=ordinary_build(settings),
        description="One dbt build over a window of days for all vendors and sites, then publish.",
    )
    thorough = dg.define_asset_job(
        "dbt_thorough",
        selection=thorough_checks(settings),
        description="The dbt tests that ordinary builds leave out, over every day there is. Builds nothing.",
    )
    thorough_schedule = dg.ScheduleDefinition(
        name="dbt_thorough_daily_schedule",
        job=thorough,
        cron_schedule="30 6 * * *",
        execution_timezone="UTC",
        description="Runs the thorough dbt tests once a day, after the marts are built.",
    )

    @dg.schedule(
        name="marts_daily_schedule",
        job=marts,
        cron_schedule="30 4 * * *",
        execution_timezone="UTC",
        description=(
            f"Builds the last {_MARTS_WINDOW_DAYS} days of marts after the vendors' daily runs, "
            "from whatever vendors delivered, and publishes."
        ),
    )
    def marts_daily_schedule(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest]:
        last = context.scheduled_execution_time.astimezone(UTC).date() - timedelta(days=1)
        first = max(settings.start_date, last - timedelta(days=_MARTS_WINDOW_DAYS - 1))
        if first <= last:
            yield dg.RunRequest(run_key=f"marts:{last}", tags={_RANGE_START: str(first), _RANGE_END: str(last)})

    send_back, send_back_schedule = _send_back(settings)
    return dg.Definitions(
        jobs=[everything, marts, thorough, send_back],
        schedules=[marts_daily_schedule, thorough_schedule, send_back_schedule],
        sensors=[_failure_sensor()],
    )


def _send_back(settings: Settings) -> tuple[Any, dg.ScheduleDefinition]:
    """The job that sends rows of marts to vendors, and its schedule: for sites that agreed to it and no others."""
    job = dg.define_asset_job(
        "send_back",
        selection=dg.AssetSelection.groups(SENDING_GROUP),
        description="What sites agreed to have sent back to vendors (`writes` in sites.yaml), for one site and days.",
    )

    @dg.schedule(
        name="send_back_daily_schedule",
        job=job,
        cron_schedule="30 5 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description=(
            f"Sends the last {_SENT_DAYS} days back to vendors after the marts are built, one run a site that agreed "
            "to it. What was sent before is known and not sent again."
        ),
    )
    def send_back_daily_schedule(
        context: dg.ScheduleEvaluationContext,
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        last = context.scheduled_execution_time.astimezone(UTC).date() - timedelta(days=1)
        first = max(settings.start_date, last - timedelta(days=_SENT_DAYS - 1))
        agreed = [site for site in settings.sites if any(site.writes.values())]
        if not agreed or last < first:
            yield dg.SkipReason("No site in sites.yaml agreed to anything being sent (`writes`).")
        for site in agreed if first <= last else ():
            yield dg.RunRequest(
                run_key=f"send_back:{site.key}:{last}", tags={**range_tags(site.key, first, last), "site": site.key}
            )

    return job, send_back_daily_schedule


class Everything(dg.Config):
    """What the job for everything covers. Empty means: the last days that vendors may still revise, every vendor,
    every site.
    """

    first_day: str = ""
    last_day: str = ""
    vendors: list[str] = Field(default_factory=list)
    sites: list[str] = Field(default_factory=list)
    refresh: bool = False


@dg.op(tags={"kind": "orchestration"})
def fetch_build_and_publish(context: dg.OpExecutionContext, config: Everything) -> None:
    """Start the runs of every vendor and site one after the other, then one dbt build, then publish.

    Vendor tables are partitioned by day and site, marts by day: Dagster has no single asset job over both. Each run
    started here is
    an ordinary run of its own; days that are final cost no request.
    """
    from analytics_platform.runner import Runner, RunReport
    from analytics_platform.settings import load_settings
    from analytics_platform.vendors import vendor_names

    settings = load_settings()
    yesterday = SystemClock().now().date() - timedelta(days=1)
    last = date.fromisoformat(config.last_day) if config.last_day else yesterday
    first = date.fromisoformat(config.first_day) if config.first_day else last - timedelta(days=_REVISED_DAYS)
    vendors = [name for name in vendor_names() if not config.vendors or name in config.vendors]
    runner = Runner(settings, context.instance)
    report: RunReport | None = None
    sites = config.sites or settings.site_keys
    for item in runner.run(first, last, vendors=vendors, sites=sites, refresh=config.refresh):
        if isinstance(item, RunReport):
            report = item
        else:
            context.log.info(f"{item.vendor} {item.site}: {item.state} {item.message}".strip())
    if report is None:
        raise AssertionError("a run ends with its report")
    context.add_output_metadata({"requests": report.requests, "deferred": report.deferred, "marts": report.marts})
    if report.failed:
        failed = [f"{r.vendor} {r.site}: {r.message}" for r in report.vendors if r.state == "failed"]
        raise dg.Failure("; ".join(failed) or report.marts_message, allow_retries=False)


@dg.job(description="Every vendor table of every site, the marts and the published snapshot, for a range of days.")
def everything() -> None:
    """One op that starts the runs: see `fetch_build_and_publish`."""
    fetch_build_and_publish()


def _failure_sensor() -> dg.SensorDefinition:
    @dg.run_failure_sensor(
        name="failure_sensor",
        description=(
            f"Posts a line to {ALERT_VARIABLE} (an incoming-webhook address that takes JSON with a `text` field) "
            "when a run fails. "
            "Without the variable it only notes the failure in its tick."
        ),
    )
    def failure_sensor(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        run = context.dagster_run
        vendor = run.tags.get("vendor", "")
        about = f"{vendor} {run.tags.get('site', '')}".strip() or run.job_name
        steps = {event.step_key: event for event in context.get_step_failure_events()}
        causes = "; ".join(
            redact(event.event_specific_data.error_display_string.splitlines()[0])  # type: ignore[union-attr]
            for event in steps.values()
        )
        cause = causes or redact(context.failure_event.message or "no cause recorded")
        text = f"Run {run.run_id[:8]} failed ({about}): {cause}"
        context.log.error(text)
        url = os.environ.get(ALERT_VARIABLE)
        if not url:
            return dg.SkipReason(f"{text} — {ALERT_VARIABLE} is not set, so nobody was told.")
        _post(url, text)
        return None

    return failure_sensor


def _post(url: str, text: str) -> None:
    from urllib.parse import urlsplit

    from analytics_platform.core.http import HttpClient

    parts = urlsplit(url)
    with HttpClient(
        vendor="alerts", base_url=f"{parts.scheme}://{parts.netloc}", path_prefixes=(parts.path or "/",)
    ) as http:
        http.request("POST", parts.path or "/", endpoint="POST alert", json={"text": text}, expect="any")
