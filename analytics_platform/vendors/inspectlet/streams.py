"""How Inspectlet is asked: one search feeds three tables, one list the fourth.

Belongs here: which calls cover a range of days, resuming them, quota windows. Does not belong here: the wire
(`client`), columns (`tables`), Dagster.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from analytics_platform.core.errors import ConfigurationError
from analytics_platform.core.forecast import Forecast, Outlook, pages_of, rows_like
from analytics_platform.core.paging import Page
from analytics_platform.core.settling import newest_first
from analytics_platform.core.streams import Extraction, Stream
from analytics_platform.vendors.inspectlet.client import MAX_PAGE, InspectletClient, SessionSearch, records_of
from analytics_platform.vendors.inspectlet.tables import SESSION_PAGES, SESSION_TAGS, SESSIONS, WEBSITES

__all__ = ["DEFAULT_REQUESTS_PER_MINUTE", "STREAMS"]

DEFAULT_REQUESTS_PER_MINUTE: Final = 60
"""The vendor documents a 429 and no figure: a polite guess. `requests_per_minute` in sites.yaml overrides it; a 429
teaches."""

_LOOKBACK_DAYS: Final = 2
"""A session may last 24 hours, and tags and names are added to sessions that have ended (MARTS §4.1)."""

_MARGIN: Final = timedelta(minutes=1)
"""Whether a bound is inclusive is not said (contract §2.3, trap 3); rows of other days are dropped by the tables'
day."""

_OTHER_RECORDERS: Final = ("smartlook/sessions",)


def extract_sessions(client: InspectletClient, extraction: Extraction) -> Iterator[Page]:
    """Sessions that started on the days, with their pages and tags."""
    wid = _wid(extraction)
    call = f"sessions/{extraction.first_day}..{extraction.last_day}"
    if call in extraction.done_calls:
        return

    def walk(back_to: datetime | None) -> Iterator[Page]:
        return client.search_sessions(wid, _search(extraction.first_day, extraction.last_day, back_to), call=call)

    yield from newest_first(walk, moments_of=_starts, interrupted=extraction.interrupted.get(call))


def _starts(page: Page) -> Iterator[tuple[datetime, str]]:
    for record in records_of(page):
        started, sid = record.get("date_start_session"), record.get("sid")
        if isinstance(started, int) and not isinstance(started, bool):
            yield datetime.fromtimestamp(started, UTC), str(sid)


def forecast_sessions(outlook: Outlook) -> Forecast:
    """Pages of 100; nothing says which page is the last, so a full one is followed by another."""
    sessions = rows_like(outlook, "inspectlet/sessions", _OTHER_RECORDERS)
    return pages_of(sessions, MAX_PAGE, asks_past_the_end=True)


def extract_websites(client: InspectletClient, extraction: Extraction) -> Iterator[Page]:
    """The account's websites; the table keeps the site's own."""
    if "websites" not in extraction.done_calls:
        context = {"day": extraction.first_day.isoformat(), "wid": _wid(extraction)}
        yield client.websites(call="websites", context=context)


def _search(first: date, last: date, back_to: datetime | None) -> SessionSearch:
    start = datetime.combine(first, time.min, tzinfo=UTC)
    end = datetime.combine(last, time.min, tzinfo=UTC) + timedelta(days=1)
    return SessionSearch(start=start - _MARGIN, end=(end if back_to is None else back_to) + _MARGIN)


def _wid(extraction: Extraction) -> str:
    wid = extraction.ids.get("wid", "")
    if not wid.isascii() or not wid.isdigit():
        raise ConfigurationError(
            f"Site {extraction.site_key} has no usable wid for inspectlet.",
            "Set vendors.inspectlet.wid in sites.yaml to the website's number (GET /v1/websites lists them).",
        )
    return wid


STREAMS: tuple[Stream, ...] = (
    Stream(
        vendor="inspectlet",
        name="websites",
        tables=(WEBSITES,),
        span="snapshot",
        extract=extract_websites,
        forecast=lambda outlook: Forecast.exactly(1),
    ),
    Stream(
        vendor="inspectlet",
        name="sessions",
        tables=(SESSIONS, SESSION_PAGES, SESSION_TAGS),
        span="range",
        lookback_days=_LOOKBACK_DAYS,
        extract=extract_sessions,
        forecast=forecast_sessions,
    ),
)
