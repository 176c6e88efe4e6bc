"""What is asked of Pirsch, for which days, and into which tables it goes.

Belongs here: the streams and their extraction. Does not belong here: paths and parameters (`client`), columns
(`tables`), Dagster.

`daily_stats` asks for the domain, whose zone the days are in, and for two series over the whole range (1 request, and 2
per 100 days). `reports` asks the 21 lists of each day: nothing in the API gives them by day for a range. They need
nothing of each other, so several are in flight together.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from typing import Final

from analytics_platform.core.concurrency import Send, side_by_side
from analytics_platform.core.errors import ConfigurationError, NotFound, PermissionDenied, Where
from analytics_platform.core.forecast import Alternative, Forecast, Outlook
from analytics_platform.core.paging import Page
from analytics_platform.core.streams import Extraction, Stream
from analytics_platform.vendors.pirsch.client import (
    MAX_DAYS_PER_SERIES,
    BreakdownMethod,
    Domain,
    PirschClient,
    StatisticsFilter,
    call_name,
)
from analytics_platform.vendors.pirsch.tables import BREAKDOWNS, DAILY_STATS, EVENTS, GOALS, HOURLY, PAGES

__all__ = ["DAILY_STATS_STREAM", "REPORTS_STREAM", "STREAMS", "extract_daily_stats", "report_requests"]

LOOKBACK_DAYS: Final = 3
"""Batched hits carry their own time and sessions move to the day they were last seen, so a day settles within three."""


def extract_daily_stats(client: PirschClient, extraction: Extraction) -> Iterator[Page]:
    """Day series of visitors and of session duration over the range, at most 100 days a request.

    Each page's context says in which zone the days are cut (`domain_timezone`), where the vendor tells it.

    Raises:
        ConfigurationError: the site has no domain_id.
        VendorError: see `PirschClient`.
    """
    queries = [
        StatisticsFilter(domain_id=_domain_id(extraction), first_day=first_day, last_day=last_day)
        for first_day, last_day in _chunks(extraction.first_day, extraction.last_day)
    ]
    asked = [
        (query, method)
        for query in queries
        for label, method in (("visitor", client.visitors), ("duration/session", client.session_duration))
        if call_name(label, query) not in extraction.done_calls
    ]
    if not asked:
        return
    zone: dict[str, str] = {}
    try:
        page, domains = client.domain_page()
    except (NotFound, PermissionDenied) as error:
        extraction.log.info("pirsch: %s does not tell the domain's time zone", error.where.endpoint)
    else:
        zone = _told_zone(domains, extraction)
        # An interrupted batch asks again only to learn the zone.
        if page.call not in extraction.done_calls:
            yield page
    # Not beside the domain's: a series that landed without its zone would never be asked for again.
    for series in side_by_side([partial(method, query) for query, method in asked], client=client):
        yield replace(series, context={**series.context, **zone})


def _told_zone(domains: Sequence[Domain], extraction: Extraction) -> dict[str, str]:
    """`domain_timezone` for a page's context; empty where the API's edition does not tell it."""
    told = {domain.domain_id: domain.timezone for domain in domains}.get(_domain_id(extraction))
    return {"domain_timezone": told} if told else {}


_LISTS: Final[tuple[tuple[str, BreakdownMethod], ...]] = (
    ("hours", PirschClient.hours),
    ("page/entry", PirschClient.entry_pages),
    ("page/exit", PirschClient.exit_pages),
    ("events", PirschClient.events),
    ("goals", PirschClient.goals),
    ("breakdown/utm_source", PirschClient.utm_source),
    ("breakdown/utm_medium", PirschClient.utm_medium),
    ("breakdown/utm_campaign", PirschClient.utm_campaign),
    ("breakdown/utm_content", PirschClient.utm_content),
    ("breakdown/utm_term", PirschClient.utm_term),
    ("breakdown/referrer", PirschClient.referrer),
    ("breakdown/language", PirschClient.language),
    ("breakdown/country", PirschClient.country),
    ("breakdown/city", PirschClient.city),
    ("breakdown/os", PirschClient.os),
    ("breakdown/os_version", PirschClient.os_version),
    ("breakdown/browser", PirschClient.browser),
    ("breakdown/browser_version", PirschClient.browser_version),
    ("breakdown/platform", PirschClient.platform),
    ("breakdown/screen_class", PirschClient.screen_class),
)
_OPTIONAL: Final = frozenset({"breakdown/os_version"})


def report_requests(client: PirschClient, extraction: Extraction) -> Iterator[Send]:
    """The lists of one local day that have not landed yet, in a fixed order.

    Raises:
        ConfigurationError: the site has no domain_id.
        VendorError: when a request is sent, see `PirschClient`.
    """
    day = extraction.first_day
    plain = StatisticsFilter(domain_id=_domain_id(extraction), first_day=day, last_day=day)
    timed = replace(plain, include_average_time_on_page=True)
    reports = [("page", PirschClient.pages, timed), *((label, method, plain) for label, method in _LISTS)]
    for label, method, query in reports:
        if call_name(label, query) in extraction.done_calls:
            continue
        if label in _OPTIONAL:
            yield partial(_if_offered, method, client, query, extraction.log)
        else:
            yield partial(method, client, query)


def _if_offered(
    method: BreakdownMethod, client: PirschClient, query: StatisticsFilter, log: logging.Logger
) -> Page | None:
    """The page, or None where this installation has no such path."""
    try:
        return method(client, query)
    except NotFound as error:
        log.info("pirsch: %s is not offered by this installation", error.where.endpoint)
        return None


def forecast_daily_stats(outlook: Outlook) -> Forecast:
    """The domain, and two series per 100 days."""
    return Forecast.exactly(1 + 2 * sum(1 for _ in _chunks(outlook.first_day, outlook.last_day)))


def forecast_reports(outlook: Outlook) -> Forecast:
    """Every list once a day, at most: what this installation does not offer still costs the question."""
    return Forecast.exactly((1 + len(_LISTS)) * len(outlook.days))


def _series_alone(outlook: Outlook) -> Alternative:
    return Alternative(
        what="daily_stats alone has visitors, sessions, views and bounces of every day for 2 requests per 100 days",
        requests=Forecast.exactly(0),
    )


def _chunks(first_day: date, last_day: date) -> Iterator[tuple[date, date]]:
    """The range in pieces of at most 100 days."""
    start = first_day
    while start <= last_day:
        end = min(last_day, start + timedelta(days=MAX_DAYS_PER_SERIES - 1))
        yield start, end
        start = end + timedelta(days=1)


def _domain_id(extraction: Extraction) -> str:
    domain_id = extraction.ids.get("domain_id", "").strip()
    if not domain_id:
        raise ConfigurationError(
            "The pirsch block of the site has no domain_id.",
            "Add it in sites.yaml; `analytics-platform doctor` lists the domains the credentials can read.",
            Where(vendor="pirsch", site=extraction.site_key),
        )
    return domain_id


DAILY_STATS_STREAM: Final = Stream(
    vendor="pirsch",
    name="daily_stats",
    tables=(DAILY_STATS,),
    span="range",
    extract=extract_daily_stats,
    forecast=forecast_daily_stats,
    lookback_days=LOOKBACK_DAYS,
)
REPORTS_STREAM: Final = Stream(
    vendor="pirsch",
    name="reports",
    tables=(HOURLY, PAGES, BREAKDOWNS, EVENTS, GOALS),
    span="day",
    requests=report_requests,
    forecast=forecast_reports,
    cheaper=_series_alone,
    lookback_days=LOOKBACK_DAYS,
)
STREAMS: Final = (DAILY_STATS_STREAM, REPORTS_STREAM)
