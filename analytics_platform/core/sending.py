"""Rows of a published mart → messages of a vendor: how sending data back becomes a node of the asset graph.

Belongs here: the asset and its checks, who agreed to it, reading the mart, and the events a person sees. Does not
belong here: which rows and how they are encoded (`vendors/<v>/assets.py`), delivery (`core.outbox_delivery`), marts,
any vendor's name.

The step's contract with Dagster, by site and day:

* the site did not agree (no such word under `writes` in sites.yaml) → an observation that says so; nothing is read,
nothing is sent, the step is green and the partition stays missing;
* the day is too young to be judged → the same;
* everything of the day is in the outbox and nothing is left pending → materialised, with what became of it;
* out of quota → an observation saying until when; green, missing; what is in the outbox is sent by the next delivery;
* the vendor does not answer → the step fails and Dagster tries again; the outbox knows what may be sent twice.
"""

# No `from __future__ import annotations` here: Dagster reads the type of an asset's `context` parameter at run time.
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from analytics_platform.core.opt_in import WriteOptIn
from analytics_platform.core.outbox_delivery import Connect, Deliverer, GroupReport, Operation, site_sender
from analytics_platform.core.outbox_messages import STATES, Draft, State
from analytics_platform.core.partitions import partition_key, split_key, vendor_partitions
from analytics_platform.core.quota_policy import spending
from analytics_platform.core.redaction import redact
from analytics_platform.core.resources import PlatformResource, VendorResource
from analytics_platform.settings import Settings, Site

if TYPE_CHECKING:
    from analytics_platform.core.outbox import Outbox

__all__ = ["PUBLISHED_TABLES", "SENDING_GROUP", "Sending", "sending_assets"]

SENDING_GROUP: Final = "send_back"
PUBLISHED_TABLES: Final = "published_tables"
"""The I/O manager that loads published tables, by the name of its resource."""


@dataclass(frozen=True, kw_only=True)
class Sending:
    """One asset that sends rows of a mart to a vendor.

    Args:
        name: of the asset, and the word under `writes` by which a site agrees.
        operation: how messages are sent.
        mart: published relation; `day_column` is its local date, and it has a `site_key`.
        encode: (site, its rows of one day as a data frame) → drafts. Raises ConfigurationError where the site's block
            does not say enough.
        settles_after: how long after its end a day is left alone: the vendors' own late data decides what is missing.
        newest_by: column whose newest day alone is sent, where a later message replaces an earlier one: filling an old
            day again must not bring yesterday's state back.
    """

    name: str
    operation: Operation
    mart: str
    day_column: str
    description: str
    encode: Callable[[Site, Any], Iterator[Draft]]
    settles_after: timedelta = timedelta(0)
    newest_by: str | None = None

    @property
    def vendor(self) -> str:
        """The vendor's folder name."""
        return self.operation.vendor

    @property
    def asset_key(self) -> dg.AssetKey:
        """`<vendor>/<name>`."""
        return dg.AssetKey([self.vendor, self.name])


@dataclass(kw_only=True)
class _Day:
    """One site and day: what was found, what of it was new, or why nothing was done."""

    site_key: str
    day: date
    skipped: str = ""
    rows: int = 0
    superseded: int = 0
    new: tuple[int, ...] = ()
    known: int = 0
    states: Mapping[State, int] = field(default_factory=dict)

    @property
    def partition(self) -> str:
        return partition_key(self.day, self.site_key)

    def metadata(self) -> dict[str, Any]:
        states = {name: self.states.get(name, 0) for name in STATES}
        return {
            "candidates": self.rows,
            "superseded": self.superseded,
            "enqueued": len(self.new),
            "already_known": self.known,
            "sent": states["sent"],
            "unknown": states["unknown"],
            "dead": states["dead"],
            "deferred": states["pending"] + states["in_flight"],
        }


def sending_assets(
    sendings: Sequence[Sending],
    *,
    settings: Settings,
    writer: Callable[[Any, Mapping[str, str], Any, WriteOptIn], AbstractContextManager[Any]],
    owner: str = "team:analytics",
) -> list[dg.AssetsDefinition]:
    """Each sending as an asset, partitioned by day × site, with its checks.

    Args:
        writer: (the vendor's resource, ids of the site, ledger, opt-in) → the vendor's writer.
    """
    found: list[dg.AssetsDefinition] = []
    for sending in sendings:
        found += [_asset(sending, settings, writer, owner), _checks(sending)]
    return found


def _asset(sending: Sending, settings: Settings, writer: Any, owner: str) -> dg.AssetsDefinition:
    spec = dg.AssetSpec(
        sending.asset_key,
        description=sending.description,
        deps=[dg.AssetKey(sending.mart), dg.AssetKey("published")],
        skippable=True,
        group_name=SENDING_GROUP,
        kinds={"python"},
        owners=[owner],
        tags={"vendor": sending.vendor, "writes": sending.name},
        metadata={"guarantee": sending.operation.guarantee, "opt_in": f"writes: [{sending.name}] in sites.yaml"},
    )

    @dg.multi_asset(
        name=f"{sending.vendor}__{sending.name}",
        specs=[spec],
        partitions_def=vendor_partitions(settings.start_date, settings.site_keys),
        backfill_policy=dg.BackfillPolicy.single_run(),
        required_resource_keys={"platform", sending.vendor, PUBLISHED_TABLES},
        pool=f"{sending.vendor}_api",
        retry_policy=dg.RetryPolicy(max_retries=2, delay=30, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.FULL),
        op_tags={"vendor": sending.vendor, "layer": SENDING_GROUP},
    )
    def sending_asset(context: dg.AssetExecutionContext) -> Iterator[Any]:
        try:
            yield from _run(context, sending, writer)
        except dg.Failure:
            raise
        except Exception as error:
            raise dg.Failure(f"{type(error).__name__}: {redact(str(error))}", allow_retries=False) from error

    return sending_asset


def _run(context: dg.AssetExecutionContext, sending: Sending, writer: Any) -> Iterator[Any]:
    # A database toolkit is a quarter of the time it takes to import the definitions.
    from analytics_platform.core.outbox import open_outbox

    platform: PlatformResource = context.resources.platform
    settings = platform.settings
    days = [_Day(site_key=site, day=day) for day, site in map(split_key, context.partition_keys)]
    for day in days:
        day.skipped = _why_not(sending, settings.site(day.site_key), day.day, platform.clock.now())
    wanted = [day for day in days if not day.skipped]
    groups: list[GroupReport] = []
    if wanted:
        with open_outbox(settings, platform.clock) as outbox:
            _enqueue(context, sending, settings, outbox, wanted)
            groups = _deliver(context, sending, settings, outbox, wanted, writer)
            for day in wanted:
                day.states = outbox.states_of(day.new)
    yield from _events(context, sending, days, groups)


def _why_not(sending: Sending, site: Site, day: date, now: datetime) -> str:
    if sending.name not in site.writes_to(sending.vendor):
        return (
            f"Skipped: site {site.key} has not agreed to it. Add `writes: [{sending.name}]` to its {sending.vendor} "
            "block in sites.yaml to have this sent."
        )
    ripe_at = datetime.combine(day + timedelta(days=1), datetime.min.time(), UTC) + sending.settles_after
    if now < ripe_at:
        return f"Skipped: too early, this day is judged from {ripe_at:%Y-%m-%d %H:%M} UTC on."
    return ""


def _enqueue(
    context: dg.AssetExecutionContext, sending: Sending, settings: Settings, outbox: "Outbox", wanted: Sequence[_Day]
) -> None:
    platform: PlatformResource = context.resources.platform
    first_day, last_day = min(day.day for day in wanted), max(day.day for day in wanted)
    if sending.newest_by is not None:
        last_day = max(last_day, platform.clock.now().date() + _DAY)
    frame = _rows(context, sending, first_day, last_day)
    frame = frame.assign(local_date=frame[sending.day_column].astype("datetime64[s]").dt.date)
    newest = frame["local_date"]
    if sending.newest_by is not None:
        newest = frame.groupby(["site_key", sending.newest_by])["local_date"].transform("max")
    for day in wanted:
        of_day = (frame["local_date"] == day.day) & (frame["site_key"] == day.site_key)
        rows = frame[of_day & (newest == day.day)]
        drafts = list(sending.encode(settings.site(day.site_key), rows))
        found = sending.operation.enqueue(outbox, drafts, run_id=context.run_id)
        day.rows, day.new, day.known = int(of_day.sum()), found.ids, found.known
        day.superseded = day.rows - len(rows)


def _rows(context: dg.AssetExecutionContext, sending: Sending, first_day: date, last_day: date) -> Any:
    """The mart's rows of these days. Read here and not as an input, so that a site that did not agree needs no mart."""
    manager: dg.IOManager = getattr(context.resources, PUBLISHED_TABLES)
    days = dg.DailyPartitionsDefinition(start_date=first_day.isoformat(), end_date=(last_day + _DAY).isoformat())
    loading = dg.build_input_context(
        asset_key=dg.AssetKey(sending.mart),
        asset_partitions_def=days,
        asset_partition_key_range=dg.PartitionKeyRange(first_day.isoformat(), last_day.isoformat()),
    )
    return manager.load_input(loading)


_DAY: Final = timedelta(days=1)


def _deliver(
    context: dg.AssetExecutionContext,
    sending: Sending,
    settings: Settings,
    outbox: "Outbox",
    wanted: Sequence[_Day],
    writer: Any,
) -> list[GroupReport]:
    platform: PlatformResource = context.resources.platform
    resource: VendorResource = getattr(context.resources, sending.vendor)

    def connect(_: str, ids: Mapping[str, str], opt_in: WriteOptIn) -> AbstractContextManager[Any]:
        return writer(resource, ids, platform.ledger, opt_in)  # type: ignore[no-any-return]

    chosen: Connect = connect
    operation = sending.operation
    sender = site_sender(settings, chosen)
    deliverer = Deliverer(outbox, {(operation.vendor, operation.name): operation}, sender, run_id=context.run_id)
    sites = sorted({day.site_key for day in wanted})
    with spending(stream=sending.name, site=", ".join(sites), run_id=context.run_id, backfill=False):
        return deliverer.deliver(vendor=operation.vendor, operation=operation.name, site_keys=sites).groups


def _events(
    context: dg.AssetExecutionContext, sending: Sending, days: Sequence[_Day], groups: Sequence[GroupReport]
) -> Iterator[Any]:
    """Materialisations, observations, and at the end the failure if there was one."""
    by_site = {group.site_key: group for group in groups}
    done = [day for day in days if not day.skipped and not day.metadata()["deferred"]]
    everything = len(done) == len(days)
    for day in done:
        metadata = day.metadata()
        context.log.info(f"{day.partition}: {metadata}")
        if everything:
            context.add_asset_metadata(metadata, asset_key=sending.asset_key, partition_key=day.partition)
        else:
            yield dg.AssetMaterialization(sending.asset_key, partition=day.partition, metadata=metadata)
    for day in days:
        if day not in done:
            yield _observation(sending, day, by_site.get(day.site_key))
            context.log.info(f"{day.partition}: {day.skipped or 'deferred'}")
    if everything:
        yield dg.MaterializeResult(asset_key=sending.asset_key)
    stopped = [group for group in groups if group.problem]
    if stopped:
        raise dg.Failure(
            "; ".join(group.problem for group in stopped),
            metadata={"next_step": "analytics-platform outbox list"},
            allow_retries=all(group.is_transient for group in stopped),
        )


def _observation(sending: Sending, day: _Day, group: GroupReport | None) -> dg.AssetObservation:
    if day.skipped:
        return dg.AssetObservation(
            sending.asset_key, partition=day.partition, description=day.skipped, metadata={"state": "skipped"}
        )
    until = group.deferred_until if group is not None else None
    when = f"{until:%Y-%m-%d %H:%M} UTC" if until is not None else "the next delivery"
    return dg.AssetObservation(
        sending.asset_key,
        partition=day.partition,
        description=f"Deferred until {when}: {day.metadata()['deferred']} messages wait in the outbox.",
        metadata={"state": "deferred", "deferred_until": when, **day.metadata()},
    )


# -------------------------------------------------------------------------------------------------------------- checks


def _checks(sending: Sending) -> dg.AssetChecksDefinition:
    specs = [
        dg.AssetCheckSpec(
            "nothing_unknown",
            asset=sending.asset_key,
            description="No message was sent without an answer and waits for a person's decision.",
        ),
        dg.AssetCheckSpec(
            "nothing_dead", asset=sending.asset_key, description="No message was refused by the vendor or given up."
        ),
    ]

    @dg.multi_asset_check(
        name=f"{sending.vendor}__{sending.name}__outbox", specs=specs, required_resource_keys={"platform"}
    )
    def checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        from analytics_platform.core.outbox import open_outbox

        platform: PlatformResource = context.resources.platform
        with open_outbox(platform.settings, platform.clock) as outbox:
            counts = outbox.counts(vendor=sending.vendor, operation=sending.operation.name)
        for state in ("unknown", "dead"):
            found = {count.site_key: getattr(count, state) for count in counts if getattr(count, state)}
            yield dg.AssetCheckResult(
                asset_key=sending.asset_key,
                check_name=f"nothing_{state}",
                passed=not found,
                severity=dg.AssetCheckSeverity.WARN,
                description=_finding(state, found),
                metadata={state: sum(found.values())},
            )

    return checks


def _finding(state: str, found: Mapping[str, int]) -> str:
    if not found:
        return f"No message is {state}."
    numbers = ", ".join(f"{site}: {number}" for site, number in sorted(found.items()))
    return f"{numbers} {state}. See `analytics-platform outbox list --state {state}`, then resend or discard."
