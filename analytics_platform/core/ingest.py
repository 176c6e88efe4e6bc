"""Table spec → partitioned Dagster asset: how a stream becomes a node of the asset graph.

Belongs here: asset definitions from streams, the step that runs a stream for its partitions, the events a person
sees (rows,
requests, why a day is missing). Does not belong here: deciding what to fetch (`core.fetch`), check rules
(`core.checks`), any
vendor's name.

The step's contract with Dagster:

* every partition finished → one Output a table, so steps further down in the same run go on;
* some finished, then out of quota → one AssetMaterialization per *finished* partition and an observation saying
until when the rest
  is deferred; the step is green, the rest stays missing, the slot is free;
* some finished, then a failure → the finished ones are recorded, then the step fails with a message for people.
"""

# No `from __future__ import annotations` here: Dagster reads the type of an asset's `context` parameter at run time.
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from analytics_platform.core.beside import asked
from analytics_platform.core.checking import Checked, ToCheck, check_partitions, write_index
from analytics_platform.core.checks import CHECK_NAMES, SuiteOutcome, partition_profiles
from analytics_platform.core.data_docs import DataDocs
from analytics_platform.core.deferring import defer_readers, fetch_or_defer
from analytics_platform.core.errors import ConfigurationError, PlatformError, TransientVendorError, Where
from analytics_platform.core.fetch import Fetcher, FetchOutcome, SiteContext
from analytics_platform.core.lake import DecodedPartition, Lake
from analytics_platform.core.partitions import partition_key, split_key, vendor_partitions
from analytics_platform.core.progress import Progress
from analytics_platform.core.redaction import redact
from analytics_platform.core.resources import PlatformResource, VendorResource
from analytics_platform.core.run_numbers import landed_text, plan_of_run, tag_spent
from analytics_platform.core.stopwatch import measured
from analytics_platform.core.streams import Stream
from analytics_platform.core.tables import Sensitivity, TableSpec
from analytics_platform.core.truths import Truth, Verdict, hold_back, judge
from analytics_platform.core.usage import settle_doubt
from analytics_platform.core.vendor_checks import VendorCheck
from analytics_platform.settings import Settings

if TYPE_CHECKING:
    from analytics_platform.core.quota import Ledger

__all__ = ["REFRESH_TAG", "REPLAY_TAG", "vendor_assets", "was_interrupted"]

REFRESH_TAG = "analytics_platform/refresh"
"""Run tag: "true" asks the vendor again for days that are already final (it costs requests)."""

REPLAY_TAG = "analytics_platform/replay"
"""Run tag: "true" decodes landed pages again and asks the vendor nothing, whatever the days' state."""

_interrupted: set[str] = set()
"""Ids of runs in this process that somebody ended."""

_PREVIEW_ROWS = 5
_PREVIEW_COLUMNS = 12
_LOG_EVERY_SECONDS = 5.0
_FALLBACK_RESUME_SECONDS = 3600
_STREAM_METADATA = "stream"
"""The stream a table comes from, "vendor/stream": shown to people, and how a run finds what reads what."""
_RECHECKED_DAYS = 7
_LATE_AFTER = timedelta(hours=26)
_STALE_AFTER = timedelta(hours=50)
"""A daily table that was written neither today nor yesterday; the daily runs are staggered over two hours."""


@dataclass(frozen=True, kw_only=True)
class _Done:
    """One finished site: which days, and the events that tell of them."""

    site: SiteContext
    outcome: FetchOutcome
    landed: str = ""
    """Where it was deferred: how much of how much is landed."""


@dataclass(frozen=True, kw_only=True)
class _BegunChecks:
    """A table's checks that were asked for: by name, and one answer to come a site."""

    spec: TableSpec
    names: Sequence[str]
    answers: Sequence[tuple[ToCheck, Callable[[], Checked]]]


_TruthResults = Callable[[list[_Done]], Iterator[dg.AssetCheckEvaluation]]
"""Judges what the vendor's truths say of the partitions just written."""


def was_interrupted(run_id: str) -> bool:
    """Whether a Ctrl-C or a SIGTERM ended a step of this run in this process."""
    return run_id in _interrupted


def vendor_assets(
    streams: Sequence[Stream],
    *,
    settings: Settings,
    specs_by_name: Mapping[str, TableSpec],
    checks: Sequence[VendorCheck] = (),
    truths: Sequence[Truth] = (),
    owner: str = "team:analytics",
) -> list[dg.AssetsDefinition]:
    """One multi-asset a stream, partitioned by day × site.

    Args:
        streams: in the order in which they are asked when quota is short.
        specs_by_name: "vendor/table" → spec of every table a stream may depend on.
        checks: the vendor's own checks, besides those every table has.
        truths: what holds between its tables, judged by partition.
    """
    return [
        _stream_asset(stream, settings, specs_by_name, checks, truths, owner, priority=-position)
        for position, stream in enumerate(streams)
    ]


def _stream_asset(
    stream: Stream,
    settings: Settings,
    specs_by_name: Mapping[str, TableSpec],
    checks: Sequence[VendorCheck],
    truths: Sequence[Truth],
    owner: str,
    *,
    priority: int,
) -> dg.AssetsDefinition:
    partitions = vendor_partitions(settings.start_date, settings.site_keys)

    @dg.multi_asset(
        name=f"{stream.vendor}__{stream.name}",
        specs=[_asset_spec(spec, stream, partitions, owner) for spec in stream.tables],
        check_specs=[
            *(check for spec in stream.tables for check in _check_specs(spec, checks)),
            *_truth_specs(stream, truths, partitions),
        ],
        can_subset=True,
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        required_resource_keys={"platform", stream.vendor},
        pool=f"{stream.vendor}_api",
        group_name=stream.vendor,
        # Minutes are Dagster's timescale: the transport has used up its seconds, hours belong to the quota sensor.
        retry_policy=dg.RetryPolicy(max_retries=2, delay=30, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.FULL),
        # The vendor's order of streams decides who gets the quota first.
        op_tags={"vendor": stream.vendor, "dagster/priority": str(priority)},
    )
    def stream_asset(context: dg.AssetExecutionContext) -> Iterator[Any]:
        try:
            if was_interrupted(context.run_id):
                raise KeyboardInterrupt
            yield from _run_step(context, stream, specs_by_name, checks, truths)
        except dg.Failure:
            raise
        except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError) as interrupt:
            # Dagster would try the step again half a minute later, and go on with the others at once.
            _interrupted.add(context.run_id)
            raise dg.Failure("Interrupted. Run it again: what landed is kept.", allow_retries=False) from interrupt
        except Exception as error:
            # The retry policy is for vendors that may answer next time; a fault of ours fails the same way again.
            raise dg.Failure(f"{type(error).__name__}: {redact(str(error))}", allow_retries=False) from error

    return stream_asset


def _check_specs(spec: TableSpec, checks: Sequence[VendorCheck]) -> Iterator[dg.AssetCheckSpec]:
    key = dg.AssetKey(spec.asset_key)
    for name, (blocking, description) in CHECK_NAMES.items():
        yield dg.AssetCheckSpec(name, asset=key, blocking=blocking, description=description)
    for check in checks:
        if check.table == spec.name:
            yield dg.AssetCheckSpec(check.name, asset=key, blocking=check.blocking, description=check.description)


def _truth_specs(
    stream: Stream, truths: Sequence[Truth], partitions: dg.MultiPartitionsDefinition
) -> list[dg.AssetCheckSpec]:
    """One partitioned check a truth. Never blocking in Dagster's sense, which would fail the step and all its days."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return [
            dg.AssetCheckSpec(
                truth.name,
                asset=dg.AssetKey([stream.vendor, truth.table]),
                description=truth.description,
                partitions_def=partitions,
            )
            for truth in truths
            if truth.table in {spec.name for spec in stream.tables}
        ]


def _asset_spec(spec: TableSpec, stream: Stream, partitions: dg.MultiPartitionsDefinition, owner: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        dg.AssetKey(spec.asset_key),
        description=spec.description,
        deps=[dg.AssetKey(name.split("/")) for name in stream.depends_on],
        partitions_def=partitions,
        skippable=True,
        group_name=spec.vendor,
        kinds={"python", "parquet"},
        owners=[owner],
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=_STALE_AFTER, warn_window=_LATE_AFTER),
        tags={"vendor": spec.vendor, "day_basis": spec.day_basis, **_pii_tag(spec), **dict(spec.tags)},
        metadata={
            "dagster/column_schema": _column_schema(spec),
            "natural_key": ", ".join(spec.key),
            _STREAM_METADATA: stream.qualified_name,
            "day_basis": spec.day_basis,
            "lookback_days": stream.lookback_days,
            **({"vendor_document": dg.MetadataValue.url(spec.source_url)} if spec.source_url else {}),
        },
    )


def _pii_tag(spec: TableSpec) -> dict[str, str]:
    worst = {c.sensitivity for c in spec.columns} & {Sensitivity.PERSONAL, Sensitivity.SECRET}
    return {"pii": "true"} if worst else {}


def _column_schema(spec: TableSpec) -> dg.TableSchema:
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=column.name,
                type=column.type,
                description=column.description,
                constraints=dg.TableColumnConstraints(nullable=column.nullable, unique=spec.key == (column.name,)),
                tags={"sensitivity": column.sensitivity.value},
            )
            for column in spec.all_columns
        ]
    )


# ------------------------------------------------------------------------------------------------------------ the step


def _run_step(
    context: dg.AssetExecutionContext,
    stream: Stream,
    specs_by_name: Mapping[str, TableSpec],
    checks: Sequence[VendorCheck],
    truths: Sequence[Truth],
) -> Iterator[Any]:
    platform: PlatformResource = context.resources.platform
    vendor: VendorResource = getattr(context.resources, stream.vendor)
    lake = platform.lake
    lake.prepare((*stream.tables, *(specs_by_name[name] for name in stream.depends_on)), None)
    selected = [spec for spec in stream.tables if dg.AssetKey(spec.asset_key) in context.selected_asset_keys]
    fetcher = Fetcher(
        landing=platform.landing,
        lake=lake,
        run_id=context.run_id,
        specs_by_name=specs_by_name,
        clock=platform.clock,
        describe_progress=_throttled(context.log.info),
    )

    def truth_results(done: list[_Done]) -> Iterator[dg.AssetCheckEvaluation]:
        return _truth_results(context, stream, done, lake, truths, specs_by_name)

    if not context.selected_asset_keys:
        yield from _recheck(context, stream, fetcher, platform, checks, truth_results)
        return
    days_by_site = _days_by_site(context.partition_keys)
    sites = {key: _site_context(platform.settings, stream.vendor, key) for key in days_by_site}
    if context.run.tags.get(REPLAY_TAG) != "true":
        wanted = [(site, days_by_site[key]) for key, site in sites.items() if site is not None]
        refresh = context.run.tags.get(REFRESH_TAG) == "true"
        yield from plan_of_run(context, stream, platform, vendor, specs_by_name, wanted, refresh=refresh)
    finished: list[_Done] = []
    for site_key, days in days_by_site.items():
        site = sites[site_key]
        outcome = (
            FetchOutcome() if site is None else _fetch(context, stream, fetcher, vendor, platform.ledger, site, days)
        )
        if site is None:
            outcome.error = _not_configured(stream, site_key)
            site = SiteContext(key=site_key, timezone="UTC", ids={})
        landed = ""
        if outcome.deferred is not None:
            landed = landed_text(stream, site, outcome, outcome.deferred, platform, specs_by_name, context.run_id)
        finished.append(_Done(site=site, outcome=outcome, landed=landed))
    tag_spent(context, platform)
    docs = DataDocs(platform.settings.home.data_docs)
    yield from _events(context, selected, finished, lake, checks, docs, truth_results)


def _recheck(
    context: dg.AssetExecutionContext,
    stream: Stream,
    fetcher: Fetcher,
    platform: PlatformResource,
    checks: Sequence[VendorCheck],
    truth_results: _TruthResults,
) -> Iterator[dg.AssetCheckResult | dg.AssetCheckEvaluation]:
    """The UI's Execute button of a check: no table and no partition is asked for. The newest days of every site are
    decoded again from their landed pages and checked; the vendor is asked nothing.
    """
    checked = {key.asset_key for key in context.selected_asset_check_keys}
    selected = [spec for spec in stream.tables if dg.AssetKey(spec.asset_key) in checked]
    finished: list[_Done] = []
    for site_key in platform.settings.site_keys:
        site = _site_context(platform.settings, stream.vendor, site_key)
        days = sorted({day for spec in selected for day in platform.lake.days(spec, site_key)})[-_RECHECKED_DAYS:]
        if site is not None and days:
            finished.append(_Done(site=site, outcome=fetcher.replay(stream, site, days)))
    if not finished:
        raise dg.Failure(
            f"Nothing of {stream.qualified_name} is in the lake yet: there is nothing to check. Materialise it first.",
            allow_retries=False,
        )
    docs = DataDocs(platform.settings.home.data_docs)
    begun = _begin_checks(context, selected, finished, platform.lake, checks, docs)
    yield from _check_results(begun, platform.lake, docs)
    yield from truth_results(finished)
    for item in finished:
        if item.outcome.error is not None:
            raise _failure(item.outcome.error)


def _fetch(
    context: dg.AssetExecutionContext,
    stream: Stream,
    fetcher: Fetcher,
    vendor: VendorResource,
    ledger: "Ledger",
    site: SiteContext,
    days: list[date],
) -> FetchOutcome:
    def connect() -> Any:
        vendor.require(site.ids)
        settle_doubt(vendor, site.ids, ledger)
        return vendor.connect(site.ids, ledger)

    if context.run.tags.get(REPLAY_TAG) == "true":
        return fetcher.replay(stream, site, days)
    refresh = context.run.tags.get(REFRESH_TAG) == "true"
    outcome = fetch_or_defer(
        stream,
        site,
        days,
        fetcher=fetcher,
        ledger=ledger,
        connect=connect,
        run_id=context.run_id,
        is_backfill=_is_backfill(context, stream, days, fetcher.in_seconds(0).date()),
        refresh=refresh,
        # A 429 that the ledger did not expect: what the vendor has counted says how long this will take.
        when_refused=lambda: settle_doubt(vendor, site.ids, ledger),
    )
    if outcome.deferred is not None:
        defer_readers(
            ledger,
            _readers_in_run(context, stream),
            site.key,
            days,
            upstream=stream.qualified_name,
            resume_at=outcome.deferred.resume_at or fetcher.in_seconds(_FALLBACK_RESUME_SECONDS),
        )
    return outcome


def _is_backfill(context: dg.AssetExecutionContext, stream: Stream, days: Sequence[date], today: date) -> bool:
    """Whether a reserve is not for it: it is for the days the daily schedule asks for, whoever asks."""
    return "dagster/backfill" in context.run.tags or days[0] < today - timedelta(days=stream.lookback_days + 2)


def _readers_in_run(context: dg.AssetExecutionContext, stream: Stream) -> list[tuple[str, str]]:
    """(vendor, stream) of what this run would have done next with the stream's rows, and with what comes of them."""
    layer = context.job_def.asset_layer
    selected = context.run.asset_selection or layer.selected_asset_keys
    above = {dg.AssetKey(spec.asset_key) for spec in stream.tables}
    found: dict[tuple[str, str], None] = {}
    while above:
        below = {child for key in above if layer.has(key) for child in layer.get(key).child_keys} & set(selected)
        for key in sorted(below):
            name = layer.get(key).metadata.get(_STREAM_METADATA)
            if name is not None:
                vendor, _, reader = str(getattr(name, "value", name)).partition("/")
                found[vendor, reader] = None
        above = below
    return list(found)


def _events(
    context: dg.AssetExecutionContext,
    selected: list[TableSpec],
    finished: list[_Done],
    lake: Lake,
    checks: Sequence[VendorCheck],
    docs: DataDocs,
    truth_results: _TruthResults,
) -> Iterator[Any]:
    """Materialisations, observations, check results, and at the end the failure if there was one."""
    begun = _begin_checks(context, selected, finished, lake, checks, docs)
    wanted = {split_key(key) for key in context.partition_keys}
    done = {(day, item.site.key) for item in finished for day in item.outcome.done_days}
    everything = wanted == done
    for spec in selected:
        key = dg.AssetKey(spec.asset_key)
        for partition, metadata in _partition_metadata(spec, finished, lake):
            if everything:
                context.add_asset_metadata(metadata, asset_key=key, partition_key=partition)
            else:
                yield dg.AssetMaterialization(key, partition=partition, metadata=metadata)
        yield from _observations(spec, finished)
        if everything:
            yield dg.MaterializeResult(asset_key=key)
    yield from _check_results(begun, lake, docs)
    yield from truth_results(finished)
    for item in finished:
        if item.outcome.error is not None:
            raise _failure(item.outcome.error)


def _partition_metadata(spec: TableSpec, finished: list[_Done], lake: Lake) -> Iterator[tuple[str, dict[str, Any]]]:
    for item in finished:
        days = item.outcome.done_days
        previews = _previews(spec, item.site.key, days, lake) if days else {}
        for day in days:
            for partition in item.outcome.decoded[day]:
                if partition.spec is spec:
                    metadata = _describe(partition, item)
                    metadata["preview"] = dg.MetadataValue.md(previews.get(day, "*no rows*"))
                    yield partition_key(day, item.site.key), metadata


def _describe(partition: DecodedPartition, item: _Done) -> dict[str, Any]:
    batch = item.outcome.batches[partition.day]
    metadata: dict[str, Any] = {
        "dagster/partition_row_count": partition.rows,
        "dagster/uri": f"lake/{partition.spec.qualified_name}/site={partition.site}/day={partition.day}/part.parquet",
        "size_bytes": partition.size,
        "duplicates_dropped": partition.duplicates,
        "rows_with_extra_fields": partition.rows_with_extra,
        "requests_this_run": item.outcome.requests,
        "landed_batch": batch.path.name,
        "is_provisional": partition.day in item.outcome.provisional,
    }
    if batch.landed_at is not None:
        metadata["landed_at"] = dg.MetadataValue.timestamp(batch.landed_at)
    if partition.extra_fields:
        metadata["extra_fields"] = ", ".join(partition.extra_fields)
    for name, instant in (("oldest", partition.oldest), ("newest", partition.newest)):
        if instant is not None:
            metadata[name] = instant.isoformat(sep=" ") if isinstance(instant, datetime) else instant.isoformat()
    return metadata


def _previews(spec: TableSpec, site: str, days: Sequence[date], lake: Lake) -> dict[date, str]:
    """Up to five rows a day as a Markdown table; anything that is not public is masked, cells are escaped."""
    hidden = set(spec.sensitive_columns())
    names = [column.name for column in spec.columns][:_PREVIEW_COLUMNS]
    heading = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]

    def line(row: tuple[Any, ...]) -> str:
        cells = ["•••" if name in hidden and v is not None else _cell(v) for name, v in zip(names, row, strict=True)]
        return "| " + " | ".join(cells) + " |"

    heads = lake.heads(spec, site, days, names, limit=_PREVIEW_ROWS)
    return {day: "\n".join([*heading, *(line(row) for row in rows)]) for day, rows in heads.items()}


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    text = text if len(text) <= 60 else text[:57] + "…"
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|"), ("\n", " "), ("`", "'")):
        text = text.replace(character, entity)
    return text


def _observations(spec: TableSpec, finished: list[_Done]) -> Iterator[dg.AssetObservation]:
    for item in finished:
        deferred = item.outcome.deferred
        if deferred is not None:
            until = (
                deferred.resume_at.strftime("%Y-%m-%d %H:%M UTC") if deferred.resume_at else "the vendor's next window"
            )
            yield dg.AssetObservation(
                dg.AssetKey(spec.asset_key),
                partition=partition_key(deferred.days[0], item.site.key),
                description=f"Deferred until {until}, {item.landed}.",
                metadata={
                    "state": "deferred",
                    "site": item.site.key,
                    "deferred_until": until,
                    "deferred_days": len(deferred.days),
                    "first_day": deferred.days[0].isoformat(),
                    "last_day": deferred.days[-1].isoformat(),
                    "landed_records": deferred.landed_records,
                    "reason": deferred.reason,
                },
            )
        if item.outcome.not_backfillable and item.outcome.error is None:
            yield dg.AssetObservation(
                dg.AssetKey(spec.asset_key),
                partition=partition_key(item.outcome.not_backfillable[0], item.site.key),
                description="Not backfillable: a snapshot of today can only be taken today.",
                metadata={"state": "not_backfillable", "days": len(item.outcome.not_backfillable)},
            )


def _begin_checks(
    context: dg.AssetExecutionContext,
    selected: list[TableSpec],
    finished: list[_Done],
    lake: Lake,
    checks: Sequence[VendorCheck],
    docs: DataDocs,
) -> list[_BegunChecks]:
    """Hand the partitions just written to whoever checks beside this thread; without anybody nothing happens yet."""
    with_rows = [item for item in finished if item.outcome.decoded]
    begun = []
    for spec in selected:
        key = dg.AssetKey(spec.asset_key)
        names = sorted(check.name for check in context.selected_asset_check_keys if check.asset_key == key)
        if not names or not with_rows:
            continue
        own = [check for check in checks if check.table == spec.name]
        answers = []
        for item in with_rows:
            what = _to_check(spec, item, lake, own, docs, context.run_id)
            answers.append((what, asked(check_partitions, what)))
        begun.append(_BegunChecks(spec=spec, names=names, answers=answers))
    return begun


def _check_results(begun: Sequence[_BegunChecks], lake: Lake, docs: DataDocs) -> Iterator[dg.AssetCheckResult]:
    """The results as they come, one a check; failing days of blocking ones are kept from the marts."""
    for each in begun:
        with measured("checks"):
            found = [_answered(what, answer, lake) for what, answer in each.answers]
        for name in each.names:
            mine = [(outcome, page) for outcomes, page in found for outcome in outcomes if outcome.name == name]
            if mine:
                yield _merged_result(dg.AssetKey(each.spec.asset_key), name, mine)
    if begun:
        with measured("checks"):
            asked(write_index, docs.root)()


def _to_check(
    spec: TableSpec, item: _Done, lake: Lake, checks: Sequence[VendorCheck], docs: DataDocs, run_id: str
) -> ToCheck:
    days = item.outcome.done_days
    partitions = [p for day in days for p in item.outcome.decoded[day] if p.spec is spec]
    return ToCheck(
        spec=spec,
        site=item.site.key,
        days=days,
        profiles=partition_profiles(partitions, item.outcome.provisional),
        history=lake.row_counts(spec, item.site.key, [d for d in lake.days(spec, item.site.key) if d < days[0]][-28:]),
        checks=checks,
        lake=lake.root,
        docs=docs.root,
        run_id=run_id,
    )


def _answered(what: ToCheck, answer: Callable[[], Checked], lake: Lake) -> tuple[tuple[SuiteOutcome, ...], str]:
    """The outcomes, and the address of the page that shows them; failing days of blocking ones are held back."""
    checked = answer()
    failing = {
        day
        for outcome in checked.outcomes
        if outcome.blocking and not outcome.passed
        for day in outcome.failing_days or what.days
    }
    passing_days = [day for day in what.days if day not in failing]
    lake.block(what.spec, what.site, failing=sorted(failing), passing_days=passing_days)
    return checked.outcomes, checked.page


def _truth_results(
    context: dg.AssetExecutionContext,
    stream: Stream,
    finished: list[_Done],
    lake: Lake,
    truths: Sequence[Truth],
    specs_by_name: Mapping[str, TableSpec],
) -> Iterator[dg.AssetCheckEvaluation]:
    """One result a truth and partition; a day a blocking one fails is kept from the marts, no other vendor's."""
    wanted = {(key.asset_key, key.name) for key in context.selected_asset_check_keys}
    mine = [truth for truth in truths if (dg.AssetKey([stream.vendor, truth.table]), truth.name) in wanted]
    for item in finished:
        verdicts = list(judge(mine, lake, item.site.key, item.outcome.done_days, specs_by_name))
        hold_back(lake, stream.vendor, item.site.key, verdicts)
        for verdict in verdicts:
            yield _evaluation(stream.vendor, item.site.key, verdict)


def _evaluation(vendor: str, site: str, verdict: Verdict) -> dg.AssetCheckEvaluation:
    # Not an AssetCheckResult: that one takes its partition from the step, and a step does many.
    truth = verdict.truth
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey([vendor, truth.table]),
        check_name=truth.name,
        passed=verdict.passed,
        severity=dg.AssetCheckSeverity.ERROR if truth.blocking else dg.AssetCheckSeverity.WARN,
        description=verdict.description,
        metadata={
            "checked_rows": dg.MetadataValue.int(verdict.checked),
            "broken_rows": dg.MetadataValue.int(verdict.broken),
            "site": dg.MetadataValue.text(site),
            "reads": dg.MetadataValue.text(", ".join(truth.reads)),
        },
        partition=partition_key(verdict.day, site),
    )


def _merged_result(key: dg.AssetKey, name: str, found: list[tuple[SuiteOutcome, str]]) -> dg.AssetCheckResult:
    """One result a check over the run's sites: it fails if one of them failed, and shows the page of that one."""
    failed = [outcome for outcome, _ in found if not outcome.passed]
    shown, page = next((each for each in found if not each[0].passed), found[0])
    metadata: dict[str, Any] = dict(shown.metrics)
    if shown.table:
        metadata["expectations"] = dg.MetadataValue.table(
            [dg.TableRecord({k: _scalar(v) for k, v in row.items()}) for row in shown.table]
        )
        metadata["data_docs"] = dg.MetadataValue.url(page)
    if failed:
        days = sorted({day for outcome in failed for day in outcome.failing_days})
        metadata["failing_days"] = ", ".join(map(str, days[:40]))
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=name,
        passed=not failed,
        severity=dg.AssetCheckSeverity.ERROR if shown.blocking else dg.AssetCheckSeverity.WARN,
        description=shown.description,
        metadata=metadata,
    )


def _scalar(value: object) -> str | int | float | bool | None:
    return value if isinstance(value, str | int | float | bool | None) else str(value)


# ------------------------------------------------------------------------------------------------------------- details


def _days_by_site(keys: Sequence[str]) -> dict[str, list[date]]:
    by_site: dict[str, list[date]] = {}
    for key in keys:
        day, site = split_key(key)
        by_site.setdefault(site, []).append(day)
    return {site: sorted(days) for site, days in by_site.items()}


def _site_context(settings: Settings, vendor: str, site_key: str) -> SiteContext | None:
    site = settings.site(site_key)
    ids = site.ids(vendor)
    return None if ids is None else SiteContext(key=site.key, timezone=site.timezone, ids=ids)


def _not_configured(stream: Stream, site_key: str) -> PlatformError:
    return ConfigurationError(
        f"Site {site_key} does not use {stream.vendor}.",
        f"Add a {stream.vendor} block to the site in sites.yaml, or leave the site out of the selection.",
        Where(vendor=stream.vendor, site=site_key),
    )


def _failure(error: PlatformError) -> dg.Failure:
    """The step's failure: retried by Dagster only when another attempt may succeed."""
    return dg.Failure(
        description=str(error),
        metadata={"cause": type(error).__name__, "next_step": error.next_step or "see the run's log"},
        allow_retries=isinstance(error, TransientVendorError),
    )


def _throttled(log: Callable[[str], None]) -> Callable[[Progress], None]:
    """Progress for people: at most one line in five seconds, since each line is a row of the event log."""
    last = time.monotonic()

    def describe(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _LOG_EVERY_SECONDS:
            last = now
            log(str(progress))

    return describe
