"""What a run says about its requests: the plan before a backfill, and what was planned and spent as run tags.

Belongs here: the observation and the tags. Does not belong here: planning (`core.planning`), counting (`core.quota`),
what a step does (`core.ingest`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any, Final

import dagster as dg
from filelock import FileLock

from analytics_platform.core.fetch import Deferred, FetchOutcome, SiteContext
from analytics_platform.core.forecast import Certainty
from analytics_platform.core.partitions import partition_key
from analytics_platform.core.planning import AccountPlan, LandedHistory, PlanLine, Planner, Spender
from analytics_platform.core.progress import landed_of
from analytics_platform.core.resources import PlatformResource, VendorResource
from analytics_platform.core.streams import Stream
from analytics_platform.core.tables import TableSpec

__all__ = ["PLANNED_TAG", "SPENT_TAG", "landed_text", "plan_of_run", "tag_spent"]

PLANNED_TAG: Final = "analytics_platform/requests_planned"
"""Likely requests of the run's backfills, each added when its step starts."""

SPENT_TAG: Final = "analytics_platform/requests_spent"
"""Requests the ledger has counted for the run, as of its latest step's end."""

_LOCK_SECONDS: Final = 30


def plan_of_run(
    context: dg.AssetExecutionContext,
    stream: Stream,
    platform: PlatformResource,
    vendor: VendorResource,
    specs_by_name: Mapping[str, TableSpec],
    asked: Sequence[tuple[SiteContext, Sequence[date]]],
    *,
    refresh: bool,
) -> Iterator[dg.AssetObservation]:
    """What a site that is asked for more than one day will cost, as `analytics-platform plan` says: one observation, of
    the stream's first selected table and the newest day. Nothing where nothing is to be fetched.

    Also adds the likely requests to the run's tag. Sends nothing. Sites without credentials have no plan.
    """
    planner = Planner(
        landing=platform.landing,
        lake=platform.lake,
        ledger=platform.ledger,
        specs_by_name=specs_by_name,
        now=platform.clock.now(),
    )
    planned = 0
    first_table = next(
        key for spec in stream.tables if (key := dg.AssetKey(spec.asset_key)) in context.selected_asset_keys
    )
    for site, days in asked:
        if len(days) < 2 or vendor.missing_variables(site.ids):
            continue
        line = planner.line(stream, site, days, refresh=refresh)
        if not line.days_to_fetch:
            continue
        spender = Spender(
            policy=vendor.quota_policy(site.ids), connection_requests=vendor.connection_requests(site.ids)
        )
        account = planner.account(spender, [line])
        planned += math.ceil(account.requests.likely)
        yield dg.AssetObservation(
            first_table,
            partition=partition_key(days[-1], site.key),
            description=_description(account),
            metadata=_metadata(line, account, days),
        )
    # A step that Dagster tries again was planned already.
    if planned and context.retry_number == 0:
        _add_planned(context, platform, planned)


def _description(account: AccountPlan) -> str:
    return (
        f"Planned: {account.requests} requests at {account.window}, {account.used} used before: "
        f"done {account.finishes_at:%Y-%m-%d %H:%M} UTC at the earliest."
    )


def _metadata(line: PlanLine, account: AccountPlan, days: Sequence[date]) -> dict[str, Any]:
    requests = account.requests
    found: dict[str, Any] = {
        "state": "planned",
        "site": line.site,
        "first_day": days[0].isoformat(),
        "last_day": days[-1].isoformat(),
        "days_there": line.days_there,
        "days_to_fetch": line.days_to_fetch,
        "requests_likely": math.ceil(requests.likely),
        "requests_low": math.ceil(requests.low),
        "certainty": requests.certainty.name.lower(),
        "days_of_history": requests.days_of_history,
        "requests_spent_before": line.spent,
        "window": account.window,
        "hours": account.hours,
        "finishes_at": dg.MetadataValue.timestamp(account.finishes_at),
    }
    if not math.isinf(requests.high):
        found["requests_high"] = math.ceil(requests.high)
    if account.finishes_at_latest is not None:
        found["finishes_at_latest"] = dg.MetadataValue.timestamp(account.finishes_at_latest)
    return found


def _add_planned(context: dg.AssetExecutionContext, platform: PlatformResource, requests: int) -> None:
    """Steps of one run may start together, each in its own process of one host."""
    lock = FileLock(platform.settings.home.root / "run_tags.lock", timeout=_LOCK_SECONDS, mode=0o600)
    with lock:
        run = context.instance.get_run_by_id(context.run_id)
        if run is not None:
            total = int(run.tags.get(PLANNED_TAG, 0)) + requests
            context.instance.add_run_tags(context.run_id, {PLANNED_TAG: str(total)})


def tag_spent(context: dg.AssetExecutionContext, platform: PlatformResource) -> None:
    """What the ledger has counted for the whole run so far: the last step to end tells it all."""
    record = context.instance.get_run_record_by_id(context.run_id)
    since = None if record is None else record.create_timestamp
    spent = sum(row.requests for row in platform.ledger.spent(run_id=context.run_id, since=since))
    context.instance.add_run_tags(context.run_id, {SPENT_TAG: str(spent)})


def landed_text(
    stream: Stream,
    site: SiteContext,
    outcome: FetchOutcome,
    deferred: Deferred,
    platform: PlatformResource,
    specs_by_name: Mapping[str, TableSpec],
    run_id: str,
) -> str:
    """How much of the rows that this run set out for is landed, by landed history: `312 of ~1,000 rows landed`."""
    history = LandedHistory(stream, site.key, landing=platform.landing, lake=platform.lake, specs_by_name=specs_by_name)
    of_this_run = {day for day, batch in outcome.batches.items() if any(p.run_id == run_id for p in batch.index()[-1:])}
    expected = history.records_per_day(sorted(of_this_run | set(deferred.days)))
    return landed_of(deferred.landed_records, None if expected.certainty is Certainty.UNKNOWN else expected.likely)
