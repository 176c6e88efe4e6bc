"""Quota in the UI: one observed asset a vendor, drawn over time, on a schedule.

Belongs here: the asset group `quota`, its job and schedule. Does not belong here: the numbers (`quota_report`).

The assets are observed, never materialised: they say how the ledger stands and send nothing. Numbers are metadata, so
the UI draws them over time by itself. The picture of the last 48 hours comes with observations asked for by hand and
with one scheduled observation an hour: each is a row of the event log, which should not fill with pictures.
"""

# No `from __future__ import annotations` here: Dagster reads parameter types at run time.
import base64
import warnings
from collections.abc import Iterator
from typing import Any

import dagster as dg

from analytics_platform.core.resources import PlatformResource
from analytics_platform.settings import Settings
from analytics_platform.vendors import vendor_names

__all__ = ["QUOTA_GROUP", "quota_definitions"]

QUOTA_GROUP = "quota"
_SCHEDULED_EVERY_MINUTES = 10
_SCHEDULE_TAG = "dagster/schedule_name"


def quota_definitions(settings: Settings) -> dg.Definitions:
    """`quota/<vendor>` for every vendor that a site uses, its job, and a schedule every ten minutes."""
    vendors = [name for name in vendor_names() if settings.sites_with(name)] or list(vendor_names())
    with warnings.catch_warnings():
        # Observing several assets in one step is beta in Dagster; whoever runs a command need not read that.
        warnings.simplefilter("ignore", dg.BetaWarning)
        observed = _quota_assets(vendors)
    job = dg.define_asset_job(
        "quota_observation",
        selection=dg.AssetSelection.assets(*(dg.AssetKey([QUOTA_GROUP, vendor]) for vendor in vendors)),
        description="Observes every vendor's quota: limit, used, remaining, reset, requests by table, waste.",
    )
    schedule = dg.ScheduleDefinition(
        name="quota_observation_schedule",
        job=job,
        cron_schedule=f"*/{_SCHEDULED_EVERY_MINUTES} * * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="How the quotas stand, every ten minutes. Reads the ledger; costs no request.",
    )
    return dg.Definitions(assets=[observed], jobs=[job], schedules=[schedule])


def _quota_assets(vendors: list[str]) -> dg.AssetsDefinition:
    @dg.multi_observable_source_asset(  # type: ignore[untyped-decorator]  # Dagster leaves it untyped
        name="observe_quota",
        specs=[
            dg.AssetSpec(
                key=[QUOTA_GROUP, vendor],
                group_name=QUOTA_GROUP,
                description=(
                    f"How {vendor}'s request quota stands: limit, used, remaining, when it resets, requests by table, "
                    "and requests that taught nothing. Observed from the ledger; sends nothing."
                ),
                kinds={"quota"},
            )
            for vendor in vendors
        ],
        can_subset=True,
    )
    def observe_quota(context: dg.AssetExecutionContext, platform: PlatformResource) -> Iterator[dg.ObserveResult]:
        from analytics_platform.quota_report import report_quota

        for key in sorted(context.selected_asset_keys):
            now = platform.clock.now()
            report = report_quota(platform.settings, key.path[-1], platform.ledger, now)
            is_pictured = _SCHEDULE_TAG not in context.run.tags or now.minute < _SCHEDULED_EVERY_MINUTES
            yield dg.ObserveResult(asset_key=key, metadata=_metadata(report, is_pictured=is_pictured))

    observed: dg.AssetsDefinition = observe_quota
    return observed


def _metadata(report: Any, *, is_pictured: bool) -> dict[str, Any]:
    """Numbers by name; with several accounts, the tightest one's plain and each one's with its site."""
    from analytics_platform.quota_report import plot_png

    found: dict[str, Any] = {
        "requests_24h": sum(report.requests_by_stream.values()),
        "refused_429_24h": report.refused,
        "waste_empty_pages_24h": report.waste.empty_pages,
        "waste_refetched_pages_24h": report.waste.refetched_pages,
        "deferred_batches": report.deferred,
    }
    found |= {f"requests_24h_{stream}": requests for stream, requests in report.requests_by_stream.items()}
    for number, account in enumerate(report.accounts):
        names = [""] if len(report.accounts) == 1 else [f"_{'_'.join(account.sites)}"]
        for name in names if number else ["", *names]:
            found |= _window_metadata(account.window, name)
    if not is_pictured:
        return found
    picture = base64.b64encode(plot_png(report)).decode("ascii")
    found["last_48_hours"] = dg.MetadataValue.md(f"![requests by hour](data:image/png;base64,{picture})")
    return found


def _window_metadata(window: Any, suffix: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        f"limit{suffix}": window.limit,
        f"used{suffix}": window.used,
        f"remaining{suffix}": window.remaining,
        f"window_seconds{suffix}": window.window_seconds,
    }
    if window.resets_at is not None:
        found[f"resets_at{suffix}"] = dg.MetadataValue.timestamp(window.resets_at)
    return found
