"""Partitions: day × site, and the arithmetic of days.

Belongs here: the Dagster partition definitions every vendor asset shares, keys ↔ (day, site), contiguous runs of
days, when
a day is final. Does not belong here: which days a vendor is asked for (`core.fetch`), any vendor's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from analytics_platform.core.tables import TableSpec

__all__ = [
    "DAY",
    "SITE",
    "contiguous",
    "day_ends_at",
    "day_partitions",
    "partition_key",
    "split_key",
    "today",
    "vendor_partitions",
]

DAY = "day"
SITE = "site"


def day_partitions(start_date: date) -> dg.DailyPartitionsDefinition:
    """Days from the first site's start to today (today included: snapshots are taken of it)."""
    return dg.DailyPartitionsDefinition(start_date=start_date.isoformat(), end_offset=1)


def vendor_partitions(start_date: date, site_keys: Sequence[str]) -> dg.MultiPartitionsDefinition:
    """Day × site, the partitions of every vendor asset."""
    return dg.MultiPartitionsDefinition(
        {DAY: day_partitions(start_date), SITE: dg.StaticPartitionsDefinition(list(site_keys))}
    )


def partition_key(day: date, site: str) -> str:
    """The multi-partition key of a day and site."""
    return str(dg.MultiPartitionKey({DAY: day.isoformat(), SITE: site}))


def split_key(key: str) -> tuple[date, str]:
    """(day, site) of a multi-partition key such as `2026-10-05|shop`."""
    day, _, site = key.partition("|")
    return date.fromisoformat(day), site


def contiguous(days: Iterable[date]) -> Iterator[list[date]]:
    """Runs of consecutive days, ascending."""
    run: list[date] = []
    for day in sorted(set(days)):
        if run and day != run[-1] + timedelta(days=1):
            yield run
            run = []
        run.append(day)
    if run:
        yield run


def day_ends_at(spec: TableSpec, day: date, timezone: str) -> datetime:
    """UTC instant after which no second belongs to `day` in the table's day basis."""
    zone = ZoneInfo(timezone) if spec.day_basis == "site" else ZoneInfo("UTC")
    midnight = datetime.combine(day + timedelta(days=1), datetime.min.time(), tzinfo=zone)
    return midnight.astimezone(ZoneInfo("UTC"))


def today(spec: TableSpec, now: datetime, timezone: str) -> date:
    """The day that is running at `now` in the table's day basis."""
    zone = ZoneInfo(timezone) if spec.day_basis == "site" else ZoneInfo("UTC")
    return now.astimezone(zone).date()
