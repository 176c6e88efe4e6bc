"""What a vendor folder offers the platform: streams that yield pages, and what they are told to fetch.

Belongs here: the value types between `vendors/<v>/streams.py` and `core.ingest`.
Does not belong here: HTTP, files, Dagster, any vendor's name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal

from analytics_platform.core.concurrency import Send
from analytics_platform.core.forecast import Alternative, Forecaster, Outlook
from analytics_platform.core.lake_reader import LakeReader
from analytics_platform.core.paging import Page
from analytics_platform.core.settling import InterruptedCall
from analytics_platform.core.tables import TableSpec

__all__ = ["Extraction", "LakeReader", "Span", "Stream"]

Span = Literal["range", "day", "snapshot"]


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """One request to a stream: this site, these days, and what is already paid for.

    Args:
        site_key: partition key of the site.
        ids: the vendor's block of sites.yaml for the site (wid, domain_id, site_code, product_id, samples …).
        timezone: IANA zone of the site.
        first_day, last_day: inclusive, in the table's day basis. For span "day" and "snapshot" they are equal.
        done_calls: calls that landed completely in this batch before: skip them, they cost nothing.
        interrupted: calls that landed in part before, by their identity: go on below them.
        now: aware UTC instant from the platform's clock.
        lake: the lake tables named in `Stream.depends_on`.
    """

    site_key: str
    ids: Mapping[str, str]
    timezone: str
    first_day: date
    last_day: date
    now: datetime
    lake: LakeReader
    done_calls: frozenset[str] = frozenset()
    interrupted: Mapping[str, InterruptedCall] = field(default_factory=dict)
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("analytics_platform"))


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One way to ask a vendor, and the lake tables its pages are decoded into.

    Args:
        span: "range" is asked once for a contiguous range of days and split locally; "day" once a day; "snapshot"
        only for today.
        lookback_days: a day stays provisional until this many days after its end; until then a new run asks again.
        extract: yields pages in order; every yielded page is landed before the next request is sent. The client is the
            vendor's own class.
        requests: instead of `extract`, where no request needs another's answer: what has not landed yet, in a fixed
            order. Requests of several batches are in flight together, as many as `core.concurrency` allows; pages land
            in this order.
        days_per_batch: for span "range", how many days one batch may hold for a site with these ids; None is no limit.
            A batch's days become visible together, so where quota is short a batch must fit into one window of it.
        forecast: requests one batch will cost; None forecasts from landed batches alone.
        cheaper: another way to know something similar for less, where there is one.
        depends_on: lake tables ("vendor/table") whose rows the extraction reads: real lineage.
    """

    vendor: str
    name: str
    tables: tuple[TableSpec, ...]
    span: Span
    extract: Callable[[Any, Extraction], Iterator[Page]] | None = None
    requests: Callable[[Any, Extraction], Iterator[Send]] | None = None
    lookback_days: int = 0
    depends_on: tuple[str, ...] = ()
    days_per_batch: Callable[[Mapping[str, str]], int] | None = None
    forecast: Forecaster | None = None
    cheaper: Callable[[Outlook], Alternative | None] | None = None

    def __post_init__(self) -> None:
        if (self.extract is None) == (self.requests is None):
            raise ValueError(f"{self.qualified_name} needs either extract or requests")

    @property
    def qualified_name(self) -> str:
        return f"{self.vendor}/{self.name}"
