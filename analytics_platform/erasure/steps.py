"""Taking a person out of each store of a home. Every step can be repeated: what is done already is not there to do.

Belongs here: landing, lake, outbox, warehouse, published versions. Does not belong here: the order of steps and what is
written down about them (`erasing`), which rows are whose (`person`), any vendor's name.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final

from analytics_platform.core.clock import Clock
from analytics_platform.core.durable import fsync_directory, fsync_file, storage_errors
from analytics_platform.core.errors import DataError, StorageError
from analytics_platform.core.failpoints import passing
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import LandedPage, Landing, PartitionBusy, Rewritten
from analytics_platform.core.tombstones import ClearKeys, Key
from analytics_platform.erasure.person import Found, stripper_for
from analytics_platform.erasure.search import Needles
from analytics_platform.settings import Settings

if TYPE_CHECKING:
    import dagster as dg

__all__ = ["compact_warehouse", "drop_older_versions", "empty_outbox", "rebuild_marts", "strip_lake", "strip_landing"]

_BUSY_SECONDS: Final = 600.0
_PAUSE_SECONDS: Final = 1.0
_MERGED_GAP: Final = timedelta(days=7)
"""Two runs of days nearer than this are one build: starting dbt costs more than building a week."""


def strip_landing(settings: Settings, found: Found, sites: Sequence[str], clock: Clock) -> Counter[str]:
    """Rewrite the batches that hold the person; pages changed or removed by `vendor/stream`.

    Waits for a run that is fetching the same stream and site; afterwards a later one obeys the tombstones.

    Raises:
        PartitionBusy: it did not end in ten minutes.
        LandingCorrupt: a batch cannot be read, so nobody knows whether it holds the person.
    """
    from analytics_platform.vendors import all_streams

    streams = {(stream.vendor, stream.name): stream for stream in all_streams()}
    landing = Landing(settings.home.landing, clock=clock)
    changed: Counter[str] = Counter()
    for vendor, name, site in landing.streams():
        stream = streams.get((vendor, name))
        if stream is None or (sites and site not in sites):
            continue
        strip = stripper_for(stream, found, site)

        def rewritten(page: LandedPage, body: bytes, strip: Any = strip) -> Rewritten | None:
            stripped = strip(page, body)
            return None if stripped is None else Rewritten(stripped.body, stripped.removed)

        with _exclusive(landing, vendor, name, site, clock):
            landing.sweep(vendor, name, site)
            for batch in landing.batches(vendor, name, site):
                changed[f"{vendor}/{name}"] += landing.rewrite(batch, rewritten)[1]
    return +changed


@contextmanager
def _exclusive(landing: Landing, vendor: str, stream: str, site: str, clock: Clock) -> Iterator[None]:
    deadline = clock.monotonic() + _BUSY_SECONDS
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(landing.exclusive(vendor, stream, site))
                break
            except PartitionBusy:
                if clock.monotonic() > deadline:
                    raise
                clock.sleep(_PAUSE_SECONDS)
        yield


def strip_lake(settings: Settings, keys: Iterable[Key], sites: Sequence[str]) -> tuple[Counter[str], set[date]]:
    """Rewrite the partitions that hold rows of the person; rows by `vendor/table`, and their days."""
    from analytics_platform.vendors import all_tables

    lake = Lake(settings.home.lake)
    known = list(keys)
    removed: Counter[str] = Counter()
    days: set[date] = set()
    for spec in all_tables().values():
        for site in lake.sites(spec) if spec.identity_kinds else ():
            if sites and site not in sites:
                continue
            by_day = lake.remove_person(spec, site, ClearKeys(known, site=site))
            removed[spec.qualified_name] += sum(by_day.values())
            days |= set(by_day)
    if settings.home.lake.is_dir():
        lake.sweep()
    return +removed, days


def empty_outbox(settings: Settings, keys: Iterable[Key]) -> int:
    """Remove the person's messages from the outbox, sent or waiting; how many. Where nothing was sent there is none.

    A message goes when its payload carries one of the keys anywhere: what is sent back is about one person each.
    """
    if not (settings.database_url or settings.home.outbox.exists()):
        return 0
    from analytics_platform.core.outbox import open_outbox

    needles = Needles(keys)
    with open_outbox(settings) as outbox:
        return outbox.forget(needles.is_in_json)


# ------------------------------------------------------------------------------------------------------------ warehouse


def rebuild_marts(
    settings: Settings, days: Iterable[date], instance: dg.DagsterInstance, new_run: Callable[[], str]
) -> int:
    """Build the marts of these days again from the lake, as the UI's button does; how many builds it took.

    Nothing is built where no warehouse was.

    Args:
        new_run: gives the id of a run about to start.

    Raises:
        DataError: a build failed; its own words say why.
    """
    import dagster as dg

    windows = list(_windows(settings, days))
    if not windows or not settings.home.warehouse.is_file():
        return 0
    from analytics_platform.core.resources import PlatformResource
    from analytics_platform.transform import MART_GROUPS, transform_definitions

    definitions = dg.Definitions.merge(
        transform_definitions(settings),
        dg.Definitions(resources={"platform": PlatformResource()}, executor=dg.in_process_executor),
    )
    groups = [group for group in MART_GROUPS if group != "published"]
    selection = sorted(dg.AssetSelection.groups(*groups).resolve(definitions.resolve_asset_graph()))
    job = definitions.resolve_implicit_global_asset_job_def()
    for first, last in windows:
        outcome = job.execute_in_process(
            asset_selection=selection,
            instance=instance,
            run_id=new_run(),
            raise_on_error=False,
            tags={"dagster/asset_partition_range_start": str(first), "dagster/asset_partition_range_end": str(last)},
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        if not outcome.success:
            raise DataError(
                f"The marts of {first} … {last} could not be built again without the person.",
                f"See run {outcome.run_id[:8]} in the Dagster UI; then run the same command again.",
            )
        passing("erasure.built")
    return len(windows)


def _windows(settings: Settings, days: Iterable[date]) -> Iterator[tuple[date, date]]:
    """Ranges of days to build, few rather than tight."""
    first: date | None = None
    last: date | None = None
    for day in sorted(day for day in set(days) if day >= settings.start_date):
        if first is not None and last is not None and day - last > _MERGED_GAP:
            yield first, last
            first = None
        first, last = first or day, day
    if first is not None and last is not None:
        yield first, last


def compact_warehouse(settings: Settings) -> None:
    """Copy the warehouse into a new file and put it in the old one's place: only so do deleted bytes go (M17).

    The caller holds the pool `warehouse`. The old file stays open for reading until the new one has its name, so that
    no other process can write to it in between.

    Raises:
        StorageError: another process has the file.
    """
    from analytics_platform.transform.warehouse import STORAGE_VERSION, literal, warehouse_connection

    path = settings.home.warehouse
    if not path.is_file():
        return
    import duckdb

    from analytics_platform.core.lake import connect

    renewed = path.with_name(f".{path.name}.compacted")
    log = path.with_name(f"{path.name}.wal")
    for left in (renewed, renewed.with_name(f"{renewed.name}.wal")):
        left.unlink(missing_ok=True)
    with storage_errors("Compacting the warehouse"), warehouse_connection(settings) as connection:
        connection.execute("CHECKPOINT")
    with storage_errors("Compacting the warehouse"), connect() as engine:
        try:
            engine.execute(f"ATTACH {literal(str(path))} AS before (READ_ONLY)")
        except duckdb.IOException as error:
            raise StorageError(
                "The warehouse is in use.", "Run the same command again when the build is done."
            ) from error
        if log.exists() and log.stat().st_size:
            raise StorageError("The warehouse was written while it was compacted.", "Run the same command again.")
        engine.execute(f"ATTACH {literal(str(renewed))} AS renewed (STORAGE_VERSION {literal(STORAGE_VERSION)})")
        engine.execute(f"COPY FROM DATABASE {'before'} TO {'renewed'}")
        engine.execute("CHECKPOINT renewed")
        engine.execute("DETACH renewed")
        passing("erasure.compacted")
        fsync_file(renewed)
        renewed.replace(path)
        fsync_directory(path.parent)
        passing("erasure.swapped")


def drop_older_versions(settings: Settings) -> list[int]:
    """Remove every published version but the one the pointer points to; their numbers."""
    from analytics_platform.transform.publish import current

    newest = current(settings.home)
    dropped = []
    for path in sorted(settings.home.published.glob("v=*")):
        number = path.name.removeprefix("v=")
        if newest is None or not number.isdecimal() or int(number) == newest.version:
            continue
        shutil.rmtree(path)
        dropped.append(int(number))
        passing("erasure.version_dropped")
    return dropped
