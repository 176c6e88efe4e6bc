"""Which recordings to watch for an outcome, and the link of one, for whoever asks for it by name.

Belongs here: reading the published replay links, and finding the link behind a reference in the lake. Does not belong
here: which session has which outcome (the dbt project), arguments and printing (`replay_cli`), any vendor's name.

Marts and what is published hold references only. The link itself is a secret column of the lake: whoever can read the
lake's files can have it, and a reference leads to it only there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from analytics_platform.catalog import Catalog
from analytics_platform.core.engine import read_steadily
from analytics_platform.core.errors import ConfigurationError
from analytics_platform.core.lake import Lake, connect
from analytics_platform.core.tables import Sensitivity, TableSpec
from analytics_platform.settings import Settings
from analytics_platform.transform.warehouse import literal, quote

__all__ = ["Recording", "find_recordings", "reveal_links"]

RELATION: Final = "fct_replay_links"
_REFERENCE: Final = "left(sha256('replay link' || chr(31) || {link}), 24)"
"""The same expression as the dbt macro `link_reference` (a test holds them together)."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One recorded session under one outcome. Instants are aware UTC; `link` is empty until it is revealed.

    Args:
        priority: 1 is the best of its outcome, date and site.
        note: why there is no link, after one was asked for.
    """

    outcome: str
    priority: int
    vendor: str
    site: str
    session_key: str
    session_date_local: date
    partition_date: date
    started_at: datetime
    duration_seconds: float | None
    page_count: int | None
    link_ref: str
    link_host: str
    expires_at: datetime | None = None
    link: str = field(default="", repr=False)
    note: str = ""


def find_recordings(
    settings: Settings,
    day: date,
    *,
    outcome: str,
    sites: Sequence[str] = (),
    vendors: Sequence[str] = (),
    limit: int = 5,
) -> list[Recording]:
    """The best recordings of an outcome that began on a local date, best first within each site.

    Args:
        outcome: as in the mart (`dropped_checkout`) or as people say it (`dropped:checkout`).
        limit: recordings a site.

    Raises:
        ConfigurationError: nothing is published, or nobody had that outcome on the date (with the outcomes there were).
    """
    rows = _rows(settings, day)
    wanted = outcome.replace(":", "_", 1)
    chosen = [
        row
        for row in rows
        if row.outcome == wanted and (not sites or row.site in sites) and (not vendors or row.vendor in vendors)
    ]
    if not chosen:
        there = ", ".join(sorted({row.outcome for row in rows})) or "none at all"
        raise ConfigurationError(f"No recording with outcome {wanted!r} on {day}.", f"Outcomes of that date: {there}.")
    found: list[Recording] = []
    for site in sorted({row.site for row in chosen}):
        of_site = sorted((row for row in chosen if row.site == site), key=lambda row: row.priority)
        found += of_site[:limit]
    return found


def reveal_links(settings: Settings, recordings: Iterable[Recording], *, now: datetime) -> list[Recording]:
    """The same recordings with their links, read from the lake; where there is none any more, a note says why."""
    from analytics_platform.vendors import all_tables

    listed = list(recordings)
    links: dict[str, str] = {}
    lake = Lake(settings.home.lake)
    for vendor, site, day in sorted({(row.vendor, row.site, row.partition_date) for row in listed}):
        wanted = [row.link_ref for row in listed if (row.vendor, row.site, row.partition_date) == (vendor, site, day)]
        for spec, column in _link_columns(all_tables().values(), vendor):
            links |= _links(lake.partition_path(spec, site, day), column, wanted)
    return [_with_link(row, links, now) for row in listed]


def _with_link(row: Recording, links: Mapping[str, str], now: datetime) -> Recording:
    if row.expires_at is not None and row.expires_at <= now:
        return replace(row, note="the vendor has deleted the recording by now")
    link = links.get(row.link_ref)
    if link is None:
        return replace(row, note="no longer in the lake: build the marts again")
    if not _is_safe(link, row.link_host):
        return replace(row, note="the link does not lead where the mart says: not shown")
    return replace(row, link=link)


def _is_safe(link: str, host: str) -> bool:
    """A plain http(s) address of the host that was tested when the mart was built: nothing a terminal would obey."""
    if not link.isascii() or not link.isprintable() or any(character in link for character in ' <>"\\'):
        return False
    try:
        parts = urlsplit(link)
        return parts.scheme in ("http", "https") and (parts.hostname or "").removeprefix("www.") == host
    except ValueError:
        return False


def _rows(settings: Settings, day: date) -> list[Recording]:
    catalog = Catalog.open(settings.home.root)
    frame: Any = catalog.read(RELATION, day, day, engine="arrow", reveal=True)
    return [_recording(row) for row in frame.to_pylist()]


def _recording(row: Mapping[str, Any]) -> Recording:
    seconds = row["duration_seconds"]
    return Recording(
        outcome=row["outcome"],
        priority=int(row["priority"]),
        vendor=row["vendor"],
        site=row["site_key"],
        session_key=row["session_key"],
        session_date_local=row["session_date_local"],
        partition_date=row["partition_date"],
        started_at=row["started_at_utc"].replace(tzinfo=UTC),
        duration_seconds=None if seconds is None or math.isnan(seconds) else float(seconds),
        page_count=row["page_count"],
        link_ref=row["link_ref"],
        link_host=row["link_host"],
        expires_at=None if row["link_expires_at_utc"] is None else row["link_expires_at_utc"].replace(tzinfo=UTC),
    )


def _link_columns(specs: Iterable[TableSpec], vendor: str) -> list[tuple[TableSpec, str]]:
    """Tables of a vendor with the column that holds replay links: the secret one that names a recording."""
    return [
        (spec, column.name)
        for spec in specs
        if spec.vendor == vendor
        for column in spec.columns
        if column.sensitivity is Sensitivity.SECRET and str(column.identifies).endswith("_session_link")
    ]


def _links(path: Path, column: str, references: Sequence[str]) -> dict[str, str]:
    if not path.is_file():
        return {}
    reference = _REFERENCE.format(link=quote(column))
    with connect() as engine:
        found = read_steadily(
            lambda: engine.execute(
                f"SELECT {reference} AS reference, {quote(column)} "
                f"FROM read_parquet({literal(str(path))}, hive_partitioning = false) "
                "WHERE list_contains(CAST(? AS VARCHAR[]), reference)",
                [list(references)],
            ).fetchall()
        )
    return dict(found)
