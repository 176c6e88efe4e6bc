"""Jobs, schedules and sensors that belong to no single vendor: everything at once, the marts, alerts.

Belongs here: cross-vendor automation. Does not belong here: a vendor's own schedule (`vendors/<v>/automation.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, timedelta

import dagster as dg

from analytics_platform.core.redaction import redact
from analytics_platform.settings import Settings

__all__ = ["ALERT_VARIABLE", "platform_automation"]

ALERT_VARIABLE = "ANALYTICS_PLATFORM_ALERT_URL"
_MARTS_WINDOW_DAYS = 7
_RANGE_START = "dagster/asset_partition_range_start"
_RANGE_END = "dagster/asset_partition_range_end"


def platform_automation(settings: Settings) -> dg.Definitions:
    """The job for everything, the marts job with its schedule, and the failure sensor."""
    everything = dg.define_asset_job(
        "everything",
        selection=dg.AssetSelection.all(),
        description=(
            "Every vendor table, the marts and the published snapshot, for a partition or a range of days."
        ),
    )
    marts = dg.define_asset_job(
        "marts",
        selection=dg.AssetSelection.groups("staging", "intermediate", "marts", "published"),
        description="One dbt build over a window of days for all vendors and sites, then publish.",
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

    return dg.Definitions(jobs=[everything, marts], schedules=[marts_daily_schedule], sensors=[_failure_sensor()])


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
