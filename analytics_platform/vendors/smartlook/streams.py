"""How Smartlook is asked: five streams, and what an account may spend.

Belongs here: which calls cover a range of days, resuming them, the sample of visitors, quota windows by plan. Does
not belong here: the wire (`client`), columns (`tables`), Dagster.

Requests are scarce (20, 100 or 1000 an hour) and cursors die. So a range is one search, newest first: pages are full
whatever the days hold, days that were passed are complete, and a cut search goes on in the day it had reached, from its
other end or by parts of it, since the vendor searches by date (DESIGN §3, `core.day_walk`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import partial
from operator import attrgetter
from typing import Any, Final, TypeGuard

from analytics_platform.core.day_walk import DayWalk, Mark, Order, Scope, Size
from analytics_platform.core.errors import ConfigurationError, MalformedResponse, NotFound, Where
from analytics_platform.core.forecast import (
    Alternative,
    Certainty,
    Forecast,
    Outlook,
    distinct_from,
    pages_of,
    rows_like,
)
from analytics_platform.core.paging import Page
from analytics_platform.core.quota_policy import Window
from analytics_platform.core.settling import SETTLED_FROM, Moments
from analytics_platform.core.streams import Extraction, Stream
from analytics_platform.core.strict_json import parse, picked, texts_of
from analytics_platform.vendors.smartlook.client import MAX_PAGE, Filter, FilterName, SmartlookClient
from analytics_platform.vendors.smartlook.tables import EVENT_DAILY, EVENTS, FUNNELS, SESSIONS, VISITORS

__all__ = ["DEFAULT_EVENT_VISITOR_SAMPLE", "PLANS", "STREAMS", "next_plan", "quota_windows"]

_HOUR_SECONDS: Final = 3600.0

PLANS: Final[Mapping[str, int]] = {"free": 20, "paid": 100, "addon": 1000}
"""Requests an hour by plan (vendor document, Request limits). Counted here by token: a token is one project's."""

DEFAULT_EVENT_VISITOR_SAMPLE: Final = 0.05
"""Share of the visitors whose events are asked for (one request each); `event_visitor_sample` in sites.yaml
overrides it."""

_LOOKBACK_DAYS: Final = 2
"""Recordings are finished up to 30 minutes after the visit and processed later; identities merge within days (MARTS
§4.1)."""


def quota_windows(ids: Mapping[str, str]) -> dict[str, tuple[Window, ...]]:
    """Windows by method class for a site's `plan` (default free: the smallest promise), all verbs in one bucket.

    Raises:
        ConfigurationError: a plan that does not exist.
    """
    return {"any": (Window(PLANS[_plan(ids)], _HOUR_SECONDS),)}


def next_plan(ids: Mapping[str, str]) -> str | None:
    """The plan above a site's, None at the top. Raises as `quota_windows`."""
    ladder = list(PLANS)
    above = ladder.index(_plan(ids)) + 1
    return ladder[above] if above < len(ladder) else None


def _plan(ids: Mapping[str, str]) -> str:
    plan = ids.get("plan", "free").lower()
    if plan not in PLANS:
        raise ConfigurationError(f"Smartlook plan {plan!r} does not exist.", "Use free, paid or addon in sites.yaml.")
    return plan


# ------------------------------------------------------------------------------------------------------------ sessions


def extract_sessions(client: SmartlookClient, extraction: Extraction) -> Iterator[Page]:
    """Sessions by recording date. Whether before and after exclude their day is not said: either way no day of the
    range is missing, and a surplus row of the days beside it is dropped by the table's day.
    """

    def search(scope: Scope, order: Order, call: str) -> Iterator[Page]:
        if scope.first_day == scope.last_day:
            filters = [Filter(name="recording_date", operator="is", value=_iso(scope.first_day))]
        else:
            filters = [
                Filter(name="recording_date", operator="after", value=_iso(scope.first_day - timedelta(days=1))),
                Filter(name="recording_date", operator="before", value=_iso(scope.last_day + timedelta(days=1))),
            ]
        if scope.least is not None:
            filters.append(Filter(name="session_duration", operator="gte", value=scope.least))
        if scope.most is not None:
            filters.append(Filter(name="session_duration", operator="lte", value=scope.most))
        filters += [_text_filter(mark) for mark in scope.marks]
        return client.search_sessions(filters, call=call, order=order)

    return _newest_first("sessions", "startedAt", search, extraction, total_field="totalSessionsCount")


_SESSION_TEXTS: Final[Mapping[FilterName, tuple[str, ...]]] = {
    "landing_url": ("landingPage",),
    "location_ip": ("identification", "visitorIp"),
    "source_referer": ("referrer",),
}
"""Filters that a session's own fields tell of, and where (contract §1.4, 13)."""


def _text_filter(mark: Mark) -> Filter:
    (name,) = (name for name in _SESSION_TEXTS if name == mark.field)
    return Filter(name=name, operator="contains" if mark.is_contained else "not_contains", value=mark.text)


def _text(record: Mapping[str, Any], path: Sequence[str]) -> str:
    found: Any = record
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, str) else ""


def extract_visitors(client: SmartlookClient, extraction: Extraction) -> Iterator[Page]:
    """Visitors by the day they were first seen. in_range has both ends of the range included [inferred from "from date,
    to date"].
    """

    def search(scope: Scope, order: Order, call: str) -> Iterator[Page]:
        days = (_iso(scope.first_day), _iso(scope.last_day))
        seen = Filter(name="user_first_seen", operator="in_range", value=days)
        return client.search_visitors((seen,), call=call, order=order)

    return _newest_first("visitors", "firstSeen", search, extraction, total_field="totalVisitorsCount")


def _newest_first(
    field: str,
    instant_field: str,
    search: Callable[[Scope, Order, str], Iterator[Page]],
    extraction: Extraction,
    *,
    total_field: str,
) -> Iterator[Page]:
    """One search over the range; a cut one goes on at the other end of the day it had reached (`core.day_walk`)."""

    def size_of(page: Page) -> Size:
        answer = parse(page.body)
        total = answer.get(total_field) if isinstance(answer, dict) else None
        records = _records_of(answer, field)
        durations = (record.get("duration") for record in records)
        texts = _SESSION_TEXTS if field == "sessions" else {}
        return Size(
            total=total if isinstance(total, int) and not isinstance(total, bool) else None,
            measures=[float(value) for value in durations if _is_number(value)],
            texts={name: [_text(record, path) for record in records] for name, path in texts.items()},
        )

    return DayWalk(
        name=field,
        first_day=extraction.first_day,
        last_day=extraction.last_day,
        search=search,
        moments_of=partial(_moments, field, instant_field),
        size_of=size_of,
        done_calls=extraction.done_calls,
        interrupted=extraction.interrupted,
        pages_at_once=PLANS[_plan(extraction.ids)],
        page_records=MAX_PAGE,
    ).pages()


def _moments(field: str, instant_field: str, page: Page) -> Moments:
    fields = (instant_field, "id")
    found: tuple[Sequence[Any], ...] | None = texts_of(page.body, page.listed, fields)
    found = found or picked(page.body, field, fields)
    if found is None:
        records = _records(page, field)
        found = ([record.get(instant_field) for record in records], [record.get("id") for record in records])
    texts, keys = found
    told = _instants(texts, keys)
    if told is not None:
        return told
    alone = (_instants([text], [key]) for text, key in zip(texts, keys, strict=True))
    return Moments.of(moment for one in alone if one is not None for moment in one)


def _instants(texts: Sequence[Any], keys: Sequence[Any]) -> Moments | None:
    """Instants with their ids; None where one of them is no instant, or does not say of which zone."""
    try:
        instants = list(map(datetime.fromisoformat, texts))
    except (TypeError, ValueError):
        return None
    zones = set(map(attrgetter("tzinfo"), instants))
    return None if None in zones else Moments(instants, list(map(str, keys)))


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


# -------------------------------------------------------------------------------------------------------------- events


def extract_event_daily(client: SmartlookClient, extraction: Extraction) -> Iterator[Page]:
    """The list of definitions, then one histogram over the whole range for each."""
    event_ids: list[str] = []
    for page in client.events(call="events"):
        event_ids += _ids(page, "events")
        if "events" not in extraction.done_calls:
            yield page
    for event_id in event_ids:
        call = f"event/{event_id}"
        if call not in extraction.done_calls:
            yield client.event(event_id, first_day=extraction.first_day, last_day=extraction.last_day, call=call)


_VISITORS_SQL: Final = (
    "SELECT visitor_id, max(_day) AS newest FROM smartlook.sessions "
    "WHERE _site = ? AND _day BETWEEN ? AND ? AND visitor_id IS NOT NULL "
    "GROUP BY visitor_id ORDER BY newest DESC, visitor_id"
)


def extract_events(client: SmartlookClient, extraction: Extraction) -> Iterator[Page]:
    """Events of a sample of the visitors that smartlook/sessions has on these days; the same visitors every time.

    A visitor is asked for once, over the whole range, and those of the newest day first: when the visitors of a day and
    of those after it are through, the day is complete, wherever the quota ends.
    """
    rate = _sample_rate(extraction.ids)
    scope = [extraction.site_key, extraction.first_day, extraction.last_day]
    found = extraction.lake.query(_VISITORS_SQL, scope)
    visitors = [(visitor_id, newest) for visitor_id, newest in found if _is_sampled(visitor_id, rate)]
    older = [*(newest for _, newest in visitors[1:]), extraction.first_day - timedelta(days=1)]
    for (visitor_id, newest), next_newest in zip(visitors, older[: len(visitors)], strict=True):
        call = f"visitor/{visitor_id}"
        if call in extraction.done_calls:
            continue
        context = {"sample_rate": repr(rate)}
        try:
            for page in client.visitor_events(
                visitor_id,
                first_day=extraction.first_day,
                last_day=extraction.last_day,
                call=call,
                context=context,
            ):
                is_day_done = page.is_last and next_newest < newest
                settled = {SETTLED_FROM: (next_newest + timedelta(days=1)).isoformat()} if is_day_done else {}
                yield replace(page, context={**page.context, **settled})
        except NotFound:
            # Deleted at the vendor since the session was read (erasure): nothing to ask for, and no reason to stop.
            extraction.log.warning("smartlook/events %s: a sampled visitor no longer exists", extraction.site_key)


def _sample_rate(ids: Mapping[str, str]) -> float:
    stated = ids.get("event_visitor_sample")
    if stated is None:
        return DEFAULT_EVENT_VISITOR_SAMPLE
    try:
        rate = float(stated)
    except ValueError:
        rate = -1.0
    if not 0 <= rate <= 1:
        raise ConfigurationError("event_visitor_sample is not a number from 0 to 1.", "Correct it in sites.yaml.")
    return rate


def _is_sampled(visitor_id: str, rate: float) -> bool:
    """By the visitor alone, so that a visitor is in on every day or on none, and a higher rate keeps the lower one's
    visitors.
    """
    drawn = int.from_bytes(hashlib.sha256(visitor_id.encode()).digest()[:8])
    return drawn < rate * 2**64


# ------------------------------------------------------------------------------------------------------------- funnels


def extract_funnels(client: SmartlookClient, extraction: Extraction) -> Iterator[Page]:
    """The list of funnels once, then each funnel day by day, newest day first: when the quota ends, today is there."""
    funnel_ids: list[str] = []
    for page in client.funnels(call="funnels"):
        funnel_ids += _ids(page, "funnels")
        if "funnels" not in extraction.done_calls:
            yield page
    days = (extraction.last_day - extraction.first_day).days
    for back in range(days + 1):
        day = extraction.last_day - timedelta(days=back)
        for funnel_id in funnel_ids:
            call = f"funnel/{funnel_id}/{day}"
            if call not in extraction.done_calls:
                page = client.funnel(funnel_id, first_day=day, last_day=day, call=call)
                is_day_done = funnel_id == funnel_ids[-1]
                context = {**page.context, SETTLED_FROM: day.isoformat()} if is_day_done else page.context
                yield replace(page, context=context)


# ------------------------------------------------------------------------------------------------------------ forecasts

_OTHER_RECORDERS: Final = ("inspectlet/sessions",)
_MOST_EVENTS: Final = 100
_MOST_FUNNELS: Final = 20
"""Definitions that are taken as possible where no list is landed yet."""

_VISITS_SQL: Final = (
    "SELECT _day, visitor_id FROM smartlook.sessions "
    "WHERE _site = ? AND _day BETWEEN ? AND ? AND visitor_id IS NOT NULL"
)


def _forecast_search(table: str, outlook: Outlook) -> Forecast:
    """Full pages of 100, at least one."""
    return pages_of(rows_like(outlook, table, _OTHER_RECORDERS), MAX_PAGE)


def forecast_events(outlook: Outlook) -> Forecast:
    """One walk a sampled visitor: counted where the sessions are landed, else by how many visitors other days had."""
    rate = _sample_rate(outlook.ids)
    landed = outlook.history.landed_days(("smartlook/sessions",), outlook.days)
    seen: dict[date, list[str]] = {day: [] for day in landed}
    if landed:
        scope = [outlook.site_key, landed[0], landed[-1]]
        for day, visitor_id in outlook.lake.query(_VISITS_SQL, scope):
            if day in seen:
                seen[day].append(visitor_id)
    if all(day in seen for day in outlook.days):
        there = {visitor_id for day in outlook.days for visitor_id in seen[day]}
        visitors = Forecast.exactly(sum(_is_sampled(visitor_id, rate) for visitor_id in there))
    else:
        visitors = distinct_from(seen, outlook.days).sampled(rate)
        if visitors.certainty is Certainty.UNKNOWN:
            # A visitor has at least one visit, and the same few may come every day.
            visits = rows_like(outlook, "smartlook/sessions", _OTHER_RECORDERS).sampled(rate)
            visitors = replace(visits, low=visits.low / len(outlook.days))
    return visitors.times(outlook.history.pages_per_call("visitor_events") or 1.0).mapped(math.ceil)


def forecast_event_daily(outlook: Outlook) -> Forecast:
    """The list, and one histogram a definition, whatever the length of the range."""
    return _definitions(outlook, "event_list", "event_histogram", most=_MOST_EVENTS)


def forecast_funnels(outlook: Outlook) -> Forecast:
    """The list, and one computation a funnel and day."""
    return _definitions(outlook, "funnel_list", "funnel_day", most=_MOST_FUNNELS, calls_each=len(outlook.days))


def _definitions(outlook: Outlook, list_kind: str, kind: str, *, most: int, calls_each: int = 1) -> Forecast:
    pages = outlook.history.pages_per_call(list_kind)
    definitions = outlook.history.definitions(kind)
    if pages is None or definitions is None:
        return Forecast.unknown(least=1, most=1 + most * calls_each)
    return Forecast.exactly(math.ceil(pages) + definitions * calls_each)


def _histograms_instead(outlook: Outlook) -> Alternative:
    return Alternative(
        what="event_daily has every event's daily count for one request a definition; set event_visitor_sample: 0",
        requests=Forecast.exactly(0),
    )


def _iso(day: date) -> str:
    return day.isoformat()


def _ids(page: Page, field: str) -> list[str]:
    """Ids of the definitions in a page; a definition without an id cannot be asked about."""
    ids = [entry.get("id") for entry in _records(page, field)]
    if not all(isinstance(entry, str | int) and not isinstance(entry, bool) for entry in ids):
        raise MalformedResponse(
            f"An entry of {field!r} has no id.",
            "The vendor may have changed the endpoint; compare with vendors/smartlook/README.md.",
            Where(vendor="smartlook", endpoint=page.endpoint),
        )
    return [str(entry) for entry in ids]


def _records(page: Page, field: str) -> list[dict[str, object]]:
    return _records_of(parse(page.body), field)


def _records_of(answer: object, field: str) -> list[dict[str, object]]:
    found = answer.get(field) if isinstance(answer, dict) else None
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


STREAMS: tuple[Stream, ...] = (
    Stream(
        vendor="smartlook",
        name="sessions",
        tables=(SESSIONS,),
        span="range",
        lookback_days=_LOOKBACK_DAYS,
        extract=extract_sessions,
        forecast=partial(_forecast_search, "smartlook/sessions"),
    ),
    Stream(
        vendor="smartlook",
        name="visitors",
        tables=(VISITORS,),
        span="range",
        lookback_days=_LOOKBACK_DAYS,
        extract=extract_visitors,
        forecast=partial(_forecast_search, "smartlook/visitors"),
    ),
    Stream(
        vendor="smartlook",
        name="events",
        tables=(EVENTS,),
        span="range",
        lookback_days=_LOOKBACK_DAYS,
        extract=extract_events,
        forecast=forecast_events,
        cheaper=_histograms_instead,
        depends_on=("smartlook/sessions",),
    ),
    Stream(
        vendor="smartlook",
        name="event_daily",
        tables=(EVENT_DAILY,),
        span="range",
        lookback_days=_LOOKBACK_DAYS,
        extract=extract_event_daily,
        forecast=forecast_event_daily,
    ),
    Stream(
        vendor="smartlook",
        name="funnels",
        tables=(FUNNELS,),
        span="range",
        lookback_days=_LOOKBACK_DAYS,
        extract=extract_funnels,
        forecast=forecast_funnels,
    ),
)
