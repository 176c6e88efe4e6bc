"""Smartlook's REST API, one method an endpoint: asks, pages, and hands over what came back.

Belongs here: paths, request bodies, which filters and operators exist, how a list is paged, when a funnel is finished.
Does not belong here: which days to ask for (`streams`), what the fields mean (`tables`), Dagster, files. There is no
method that deletes or changes anything, and the transport sends GET and POST only: the same token could do both
(`management`). A public link of a recording is made by GET, so it is kept out by path: no method asks for it, and a
vendor's link to a next page is followed only within the list it belongs to.

Source: vendor_docs/smartlook.txt; contracts/smartlook §1.1 (operations), §1.2 (search bodies), §1.3 (cursors), §1.4
(traps).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Final, Literal, NoReturn, Self
from urllib.parse import urlsplit

from pydantic import SecretStr

from analytics_platform.core.auth import Bearer
from analytics_platform.core.clock import SYSTEM_CLOCK, Clock
from analytics_platform.core.endpoints import endpoint
from analytics_platform.core.errors import (
    ConfigurationError,
    CursorExpired,
    ForeignOrigin,
    MalformedResponse,
    NotFound,
    RequestRejected,
    TransientVendorError,
    Where,
)
from analytics_platform.core.http import HttpClient, HttpLimits, Meter, NullMeter, Response
from analytics_platform.core.origin import path_segment
from analytics_platform.core.paging import CursorLink, NextRequest, Page, paginate, single_page
from analytics_platform.core.strict_json import parse

__all__ = [
    "EVENT_TYPES",
    "MAX_PAGE",
    "REGIONS",
    "SESSION_FILTERS",
    "VISITOR_FILTERS",
    "Cursors",
    "Filter",
    "Paging",
    "PollBudget",
    "Project",
    "SmartlookClient",
    "Usage",
    "cursors_of",
    "region_url",
]

_VENDOR = "smartlook"
_DOCUMENT = "vendor document, "
_CONTRACT = "contract Smartlook §1.1, "

REGIONS: Final[tuple[str, ...]] = ("eu", "us")
"""Where a project's data lies; eu unless the project says otherwise (vendor document, API URL change)."""

MAX_PAGE: Final = 100
"""Maximum of visitors/search (contract §1.2); taken for the other lists too, whose maximum nobody states."""

_FUNNEL_LONGEST_WAIT_SECONDS = 30.0
_FUNNEL_DEFAULT_WAIT_SECONDS = 2.0
_SECONDS_UP_TO = 120.0
"""`nextAttemptDelay` has no stated unit: up to this it is read as seconds, above it as milliseconds."""

_VERSION = re.compile(r"^/api/v[0-9]+/")


def region_url(region: str) -> str:
    """The base URL of a storage region, in any case of letters.

    Raises:
        ConfigurationError: a region that does not exist.
    """
    if region.lower() not in REGIONS:
        raise ConfigurationError(f"Smartlook region {region!r} does not exist.", "Use eu or us in sites.yaml.")
    return f"https://api.{region.lower()}.smartlook.cloud"


# ------------------------------------------------------------------------------------------------------------ filters

Operator = Literal[
    "is", "is_not", "contains", "not_contains", "before", "after", "in_range", "lte", "gte"
]  # fmt: skip
Order = Literal["asc", "desc"]
EventType = Literal["click", "url", "error", "rage_click", "custom", "focus", "text"]
FilterName = Literal[
    "uid", "user_email", "user_name", "location_ip", "landing_url", "exit_url", "source_referer", "recording_url",
    "session_duration", "recording_date", "user_first_seen", "visitor_id",
]  # fmt: skip

_TEXT_OPERATORS: Final = ("is", "is_not", "contains", "not_contains")
_DATE_OPERATORS: Final = ("before", "after", "is", "in_range")
_NUMBER_OPERATORS: Final = ("lte", "gte")

SESSION_FILTERS: Final[Mapping[str, tuple[str, ...]]] = {
    "uid": _TEXT_OPERATORS,
    "user_email": _TEXT_OPERATORS,
    "user_name": _TEXT_OPERATORS,
    "location_ip": _TEXT_OPERATORS,
    "landing_url": _TEXT_OPERATORS,
    "exit_url": _TEXT_OPERATORS,
    "source_referer": _TEXT_OPERATORS,
    "recording_url": _TEXT_OPERATORS,
    "session_duration": _NUMBER_OPERATORS,
    "recording_date": _DATE_OPERATORS,
}
"""Filter to operators of sessions/search (contract §1.2). `source_referer` is spelled so; the operators of
`recording_date` are those of the visitors' search [inferred: the sessions' table is cut off there]."""

VISITOR_FILTERS: Final[Mapping[str, tuple[str, ...]]] = {
    "uid": _TEXT_OPERATORS,
    "visitor_id": ("is", "is_not"),
    "recording_date": _DATE_OPERATORS,
    "user_first_seen": _DATE_OPERATORS,
}
"""Filter to operators of v2 visitors/search (contract §1.2)."""

EVENT_TYPES: Final[tuple[str, ...]] = ("click", "url", "error", "rage_click", "custom", "focus", "text")
"""Kinds of a visitor's events (contract §1.1)."""


@dataclass(frozen=True, kw_only=True)
class Filter:
    """One condition of a search; several are joined by AND, an array value means OR (contract §1.2).

    Args:
        name: a key of `SESSION_FILTERS` or `VISITOR_FILTERS`.
        operator: one of that filter's; always sent, since version 2 requires it.
        value: text; `session_duration`: seconds; the date filters: a date (or `YYYY-MM-DD`), `in_range`: two, both
            included [inferred]. A list means any of its values. Not shown by `repr`: it may name a person.
    """

    name: FilterName
    operator: Operator
    value: str | float | date | Sequence[str] | Sequence[date] = field(repr=False)

    def body(self) -> dict[str, object]:
        """As sent."""
        if isinstance(self.value, str | int | float | date):
            value: object = _wire_value(self.value)
        else:
            value = [_wire_value(item) for item in self.value]
        return {"name": self.name, "operator": self.operator, "value": value}


def _wire_value(value: object) -> object:
    return value.isoformat() if isinstance(value, date) else value


def _bodies(filters: Sequence[Filter], rules: Mapping[str, tuple[str, ...]], search: str) -> list[dict[str, object]]:
    """The filters as sent, each checked against what the vendor has; nothing of a value is repeated in an error."""
    found = []
    for condition in filters:
        operators = rules.get(condition.name)
        if operators is None:
            _not_a_search(f"The {search} search has no filter {condition.name!r}", f"It has: {', '.join(rules)}.")
        if condition.operator not in operators:
            _not_a_search(
                f"The filter {condition.name} of the {search} search has no operator {condition.operator!r}",
                f"It has: {', '.join(operators)}.",
            )
        body = condition.body()
        _check_value(condition, body["value"])
        found.append(body)
    return found


def _check_value(condition: Filter, value: object) -> None:
    listed = value if isinstance(value, list) else [value]
    if condition.operator in _NUMBER_OPERATORS:
        if not _is_seconds(value):
            _not_a_search(f"{condition.name} takes one number of seconds", "Give a number from 0.")
    elif not listed or not all(isinstance(item, str) and item for item in listed):
        _not_a_search(f"{condition.name} takes a text or a list of texts, none empty", "Leave the filter out instead.")
    elif condition.name in ("recording_date", "user_first_seen"):
        _check_dates(condition, value, [str(item) for item in listed])


def _check_dates(condition: Filter, value: object, listed: Sequence[str]) -> None:
    if not all(_is_day(item) for item in listed):
        _not_a_search(f"{condition.name} takes dates", "Write them as YYYY-MM-DD.")
    if condition.operator == "in_range" and (not isinstance(value, list) or len(listed) != 2 or listed[0] > listed[1]):
        _not_a_search("in_range takes two dates, the earlier one first", "Give [from date, to date].")


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _is_day(text: str) -> bool:
    try:
        return len(text) == 10 and date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _not_a_search(what: str, next_step: str) -> NoReturn:
    raise ConfigurationError(f"{what}; nothing was sent.", next_step, Where(vendor=_VENDOR))


# ------------------------------------------------------------------------------------------------- paging and polling


@dataclass(frozen=True, kw_only=True)
class Paging:
    """Where a walk of a list begins, which way it goes, and how long its pages are.

    Cursors live for minutes: take them from a page of this run (`cursors_of`), never from a store (vendor document,
    Traversing paged results).

    Args:
        limit: records a page, 1 to 100; the vendor carries it on in its links.
        after: forwards, from the end of the page that had this cursor.
        before: backwards, from the start of the page that had this cursor; pages come nearest first, the records of
            each in the list's own order. Lists only, searches have no such cursor. Never together with `after`.

    Raises:
        ConfigurationError: a limit out of range, an empty cursor, or both cursors.
    """

    limit: int = MAX_PAGE
    after: str | None = field(default=None, repr=False)
    before: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.limit, bool) or not 1 <= self.limit <= MAX_PAGE:
            raise ConfigurationError(f"A page has 1 to {MAX_PAGE} records, not {self.limit}.", where=_HERE)
        if self.after is not None and self.before is not None:
            raise ConfigurationError("There can be only one cursor in a query: after or before.", where=_HERE)
        if "" in (self.after, self.before):
            raise ConfigurationError("An empty cursor points nowhere.", "Leave it out for the first page.", _HERE)

    def params(self) -> dict[str, str]:
        """Query of the first request."""
        cursors = {"after": self.after, "before": self.before}
        return {"limit": str(self.limit), **{name: text for name, text in cursors.items() if text is not None}}

    @property
    def link(self) -> str:
        """The link that goes on in this direction."""
        return "nextPage" if self.before is None else "previousPage"


_HERE = Where(vendor=_VENDOR)
_FROM_THE_START = Paging()


@dataclass(frozen=True, kw_only=True)
class Cursors:
    """The two ends of a page; None where the vendor gives none (a search has only `after`)."""

    before: str | None = field(repr=False)
    after: str | None = field(repr=False)


def cursors_of(page: Page) -> Cursors:
    """The cursors in a page's `pagination`, for `Paging` in the same run."""
    answer = parse(page.body)
    found = answer.get("pagination") if isinstance(answer, dict) else None
    known = found if isinstance(found, dict) else {}
    before, after = (known.get(name) or None for name in ("before", "after"))
    return Cursors(before=_text(before), after=_text(after))


@dataclass(frozen=True, kw_only=True)
class PollBudget:
    """How long a funnel is asked for before it is left to a later run: whichever ends first.

    Args:
        requests: asks, each of them paid from the hourly limit.
        seconds: from the first ask to the last.
    """

    requests: int = 10
    seconds: float = 300.0


_POLL_BUDGET = PollBudget()


@dataclass(frozen=True, kw_only=True)
class Project:
    """What a token opens (`GET /api/v1/me`)."""

    organization_id: str | None
    organization_name: str | None
    project_id: str | None
    project_name: str | None


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Requests the vendor has counted in its window (`GET /api/v1/statistics`); None where it does not say."""

    project_requests: int | None
    requests_by_endpoint: Mapping[str, int]


# ------------------------------------------------------------------------------------------------------------- client


class SmartlookClient:
    """One project of Smartlook: tokens are project-scoped. Thread-safe as `HttpClient` is; a context manager.

    Every method may raise the VendorError and QuotaError classes of `core.errors`, and ConfigurationError before a
    request for what the vendor does not have. Lists yield a page before the next is asked for; `call` and `context`
    are stamped on the pages.
    """

    def __init__(self, http: HttpClient, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._http = http
        self._clock = clock

    @classmethod
    def connect(
        cls,
        *,
        base_url: str,
        token: SecretStr,
        variable: str = "SMARTLOOK_API_TOKEN",
        meter: Meter | None = None,
        limits: HttpLimits | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> Self:
        """A client on the pinned origin of `base_url` (`region_url` gives a region's).

        Raises:
            ConfigurationError: the base URL or the token cannot be used; names `variable`.
        """
        http = HttpClient(
            vendor=_VENDOR,
            base_url=base_url,
            auth=Bearer(token, variable=variable),
            meter=meter or NullMeter(),
            limits=limits or HttpLimits(),
            path_prefixes=("/api/",),
            methods=frozenset({"GET", "POST"}),
            clock=clock,
        )
        return cls(http, clock=clock)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the project -------------------------------------------------------------------------------------------------

    @endpoint("GET /api/v1/me", source=_CONTRACT + "me")
    def me(self) -> Project:
        """Which project the token opens: the cheapest probe of a token."""
        label = "GET /api/v1/me"
        answer = _object(self._get("/api/v1/me", label).json(), label)
        return Project(
            organization_id=_text(answer.get("organizationId")),
            organization_name=_text(answer.get("organizationName")),
            project_id=_text(answer.get("projectId")),
            project_name=_text(answer.get("projectName")),
        )

    @endpoint("GET /api/statistics", source=_DOCUMENT + "Request limits")
    @endpoint("GET /api/v1/statistics", source=_CONTRACT + "statistics")
    def statistics(self, *, versioned: bool = True) -> Usage:
        """Requests used, by the vendor's own count. Whether this call is counted itself, nobody says (contract §1.4,
        trap 9).

        Args:
            versioned: False asks as the vendor document spells it, without a version.
        """
        path = "/api/v1/statistics" if versioned else "/api/statistics"
        answer = _object(self._get(path, f"GET {path}").json(), f"GET {path}")
        by_endpoint = answer.get("endpointsUsage")
        counted = by_endpoint.items() if isinstance(by_endpoint, dict) else ()
        return Usage(
            project_requests=_count(answer.get("projectUsage")),
            requests_by_endpoint={str(name): count for name, raw in counted if (count := _count(raw)) is not None},
        )

    # -- sessions ----------------------------------------------------------------------------------------------------

    @endpoint("POST /api/v1/sessions/search", source=_CONTRACT + "sessions/search; filters §1.2")
    def search_sessions(
        self,
        filters: Sequence[Filter],
        *,
        call: str,
        context: Mapping[str, str] | None = None,
        order: Order = "asc",
        paging: Paging = _FROM_THE_START,
    ) -> Iterator[Page]:
        """Sessions that match all filters of `SESSION_FILTERS`, by their start (call kind `session_search`).

        Raises:
            ConfigurationError: a filter, operator, value, order or cursor that this search does not have.
            CursorExpired: start again without a cursor.
        """
        sort = {"timeStart": _one_of(order, ("asc", "desc"), "An order")}
        body = {"filters": _bodies(filters, SESSION_FILTERS, "sessions"), "sort": sort}
        return self._search(
            "/api/v1/sessions/search", body, _Stamp("sessions", call, "session_search", context), paging
        )

    @endpoint("GET /api/v1/sessions/{session_id}", source=_CONTRACT + "sessions/{sessionId}")
    def session(self, session_id: str, *, call: str = "session", context: Mapping[str, str] | None = None) -> Page:
        """One session, at the root of the answer and not wrapped; `duration` in seconds (call kind `session`).

        Raises:
            NotFound: no such session in this project.
            MalformedResponse: the root is not a session.
        """
        label = "GET /api/v1/sessions/{session_id}"
        response = self._get(f"/api/v1/sessions/{path_segment(session_id)}", label)
        if _object(response.json(), label).get("id") is None:
            raise _unexpected(label, "the session is not at the root")
        return single_page(response, call=call, call_kind="session", context=context or {}, records=1)

    # -- visitors ----------------------------------------------------------------------------------------------------

    @endpoint("POST /api/v2/visitors/search", source=_CONTRACT + "v2 visitors/search; filters §1.2")
    def search_visitors(
        self,
        filters: Sequence[Filter],
        *,
        call: str,
        context: Mapping[str, str] | None = None,
        sort_by: Literal["timeCreate", "timeUpdate"] = "timeCreate",
        order: Order = "asc",
        paging: Paging = _FROM_THE_START,
    ) -> Iterator[Page]:
        """Visitors that match all filters of `VISITOR_FILTERS`, by first seen (`timeCreate`) or last (`timeUpdate`)
        (call kind `visitor_search`).

        Raises:
            ConfigurationError: a filter, operator, value, order or cursor that this search does not have.
            CursorExpired: start again without a cursor.
        """
        by = _one_of(sort_by, ("timeCreate", "timeUpdate"), "A sort key")
        sort = {by: _one_of(order, ("asc", "desc"), "An order")}
        body = {"filters": _bodies(filters, VISITOR_FILTERS, "visitors"), "sort": sort}
        return self._search(
            "/api/v2/visitors/search", body, _Stamp("visitors", call, "visitor_search", context), paging
        )

    @endpoint("GET /api/v1/visitors/{visitor_id}", source=_CONTRACT + "visitors/{visitorId}")
    def visitor(self, visitor_id: str, *, call: str = "visitor", context: Mapping[str, str] | None = None) -> Page:
        """One visitor under `visitor`, with numbers of visits, sessions and events (call kind `visitor`).

        Raises:
            NotFound: no such visitor in this project, or deleted.
        """
        label = "GET /api/v1/visitors/{visitor_id}"
        response = self._get(f"/api/v1/visitors/{path_segment(visitor_id)}", label)
        _object(_object(response.json(), label).get("visitor"), label)
        return single_page(response, call=call, call_kind="visitor", context=context or {}, records=1)

    @endpoint("GET /api/v1/visitors/{visitor_id}/sessions", source=_CONTRACT + "visitors/{visitorId}/sessions")
    def visitor_sessions(
        self,
        visitor_id: str,
        *,
        call: str = "visitor_sessions",
        context: Mapping[str, str] | None = None,
        order: Order | None = None,
        paging: Paging = _FROM_THE_START,
    ) -> Iterator[Page]:
        """A visitor's sessions (call kind `visitor_sessions`). `order` is sent as `sort`: `asc` or `desc` [inferred
        from the searches; the contract names the parameter only].
        """
        path = f"/api/v1/visitors/{path_segment(visitor_id)}/sessions"
        params = {} if order is None else {"sort": _one_of(order, ("asc", "desc"), "An order")}
        stamp = _Stamp("sessions", call, "visitor_sessions", context)
        return self._list(path, "GET /api/v1/visitors/{visitor_id}/sessions", params, stamp, paging)

    @endpoint("GET /api/v1/visitors/{visitor_id}/events", source=_CONTRACT + "visitors/{visitorId}/events")
    def visitor_events(
        self,
        visitor_id: str,
        *,
        first_day: date | None = None,
        last_day: date | None = None,
        event_types: Sequence[EventType] = (),
        session_id: str | None = None,
        call: str = "visitor_events",
        context: Mapping[str, str] | None = None,
        paging: Paging = _FROM_THE_START,
    ) -> Iterator[Page]:
        """A visitor's events; the answer has no total (call kind `visitor_events`).

        Args:
            visitor_id: whose.
            first_day: from this day on, included; whose day, the vendor does not say.
            last_day: to this day, included.
            event_types: some of `EVENT_TYPES`; all when empty.
            session_id: of this session only: there is no endpoint for a session's events.
            call: as every list.
            context: as every list.
            paging: as every list.
        """
        path = f"/api/v1/visitors/{path_segment(visitor_id)}/events"
        params = _days(first_day, last_day)
        if event_types:
            params["eventTypes"] = ",".join(_one_of(kind, EVENT_TYPES, "An event type") for kind in event_types)
        if session_id is not None:
            params["sessionId"] = session_id
        stamp = _Stamp("events", call, "visitor_events", context)
        return self._list(path, "GET /api/v1/visitors/{visitor_id}/events", params, stamp, paging)

    # -- events ------------------------------------------------------------------------------------------------------

    @endpoint("GET /api/v1/events", source=_DOCUMENT + "Using the API; contract Smartlook §1.1")
    def events(
        self, *, category_id: str | None = None, call: str = "events", paging: Paging = _FROM_THE_START
    ) -> Iterator[Page]:
        """Definitions of events, never their occurrences (contract §1.4, trap 11), of one category or all (call kind
        `event_list`).
        """
        params = {} if category_id is None else {"categoryId": category_id}
        stamp = _Stamp("events", call, "event_list", None)
        return self._list("/api/v1/events", "GET /api/v1/events", params, stamp, paging)

    @endpoint("GET /api/v1/events/{event_id}", source=_CONTRACT + "events/{eventId}")
    def event(
        self,
        event_id: str,
        *,
        first_day: date,
        last_day: date,
        call: str,
        interval: str | None = "day",
    ) -> Page:
        """Totals of one event over days, both included, and its histogram (call kind `event_histogram`).

        Args:
            event_id: of a definition.
            first_day: whose day, the vendor does not say.
            last_day: included.
            call: stamped on the page; its `records` are the histogram's entries.
            interval: width of the histogram's entries: `day` is what the platform reads. Other values (`hour`, `week`)
                are [inferred] and left to the vendor to refuse; None asks for no histogram.
        """
        label = "GET /api/v1/events/{event_id}"
        params = _days(first_day, last_day)
        if interval is not None:
            params["occurrenceHistogramInterval"] = interval
        response = self._get(f"/api/v1/events/{path_segment(event_id)}", label, params)
        event = _object(_object(response.json(), label).get("event"), label)
        histogram = event.get("occurrenceHistogram")
        records = len(histogram) if isinstance(histogram, list) else 0
        return single_page(response, call=call, call_kind="event_histogram", context={}, records=records)

    @endpoint("GET /api/v1/events/{event_id}/visitors", source=_CONTRACT + "events/{eventId}/visitors")
    def event_visitors(
        self,
        event_id: str,
        *,
        first_day: date,
        last_day: date,
        call: str = "event_visitors",
        context: Mapping[str, str] | None = None,
    ) -> Iterator[Page]:
        """Who did the event on these days, both included, with `eventMatchedCount` (call kind `event_visitors`).

        The schema has no paging, so it is one page; a link to a next one would be followed.
        """
        path = f"/api/v1/events/{path_segment(event_id)}/visitors"
        stamp = _Stamp("visitors", call, "event_visitors", context)
        return self._list(path, "GET /api/v1/events/{event_id}/visitors", _days(first_day, last_day), stamp, None)

    # -- funnels -----------------------------------------------------------------------------------------------------

    @endpoint("GET /api/v1/funnels", source=_CONTRACT + "funnels")
    def funnels(self, *, call: str = "funnels", paging: Paging = _FROM_THE_START) -> Iterator[Page]:
        """Definitions of funnels (call kind `funnel_list`)."""
        stamp = _Stamp("funnels", call, "funnel_list", None)
        return self._list("/api/v1/funnels", "GET /api/v1/funnels", {}, stamp, paging)

    @endpoint("GET /api/v1/funnels/{funnel_id}", source=_CONTRACT + "funnels/{funnelId}")
    def funnel(
        self,
        funnel_id: str,
        *,
        first_day: date,
        last_day: date,
        call: str,
        wait_for_finish: bool = True,
        budget: PollBudget = _POLL_BUDGET,
    ) -> Page:
        """Visitors by step over days, both included, asked until the vendor has computed it (call kind `funnel_day`).

        The page's `attempts` counts every ask; its context names the day when it is one.

        Args:
            funnel_id: of a definition.
            first_day: whose day, the vendor does not say.
            last_day: included.
            call: stamped on the page; its `records` are the steps.
            wait_for_finish: sent as `waitForFinish`; the vendor may answer unfinished all the same.
            budget: when to give up.

        Raises:
            TransientVendorError: not finished within the budget.
        """
        label = "GET /api/v1/funnels/{funnel_id}"
        path = f"/api/v1/funnels/{path_segment(funnel_id)}"
        params = {**_days(first_day, last_day), "waitForFinish": "true" if wait_for_finish else "false"}
        began, attempts = self._clock.monotonic(), 0
        for asked in range(1, budget.requests + 1):
            response = self._get(path, label, params)
            attempts += response.attempts
            answer = _object(response.json(), label)
            computation = answer.get("computation")
            if not isinstance(computation, dict) or computation.get("isFinished") is not False:
                steps = _object(answer.get("funnel"), label).get("steps")
                records = len(steps) if isinstance(steps, list) else 0
                context = {"day": first_day.isoformat()} if first_day == last_day else {}
                page = single_page(response, call=call, call_kind="funnel_day", context=context, records=records)
                return replace(page, attempts=attempts)
            wait_seconds = _funnel_wait_seconds(computation.get("nextAttemptDelay"))
            if asked == budget.requests or self._clock.monotonic() - began + wait_seconds > budget.seconds:
                break
            self._clock.sleep(wait_seconds)
        raise TransientVendorError(
            f"The funnel was still being computed after {attempts} asks.",
            "Run the day again later: the other funnels of the day are landed and are not asked for again.",
            Where(vendor=_VENDOR, endpoint=label),
        )

    @endpoint(
        "GET /api/v1/funnels/{funnel_id}/visitors/drop-off", source=_CONTRACT + "funnels/{funnelId}/visitors/drop-off"
    )
    def funnel_drop_off(
        self,
        funnel_id: str,
        *,
        first_day: date,
        last_day: date,
        step: int,
        success: bool,
        call: str = "funnel_drop_off",
        context: Mapping[str, str] | None = None,
    ) -> Page:
        """Ids of the visitors who did a step, or who fell out before it (call kind `funnel_drop_off`).

        Args:
            funnel_id: of a definition.
            first_day: whose day, the vendor does not say.
            last_day: included.
            step: as `steps[].event.step` of the funnel counts.
            success: True: who did it; False: who did not.
            call: stamped on the page; its `records` are the ids.
            context: stamped on the page.
        """
        if isinstance(step, bool) or step < 0:
            raise ConfigurationError("A step of a funnel is a number from 0.", where=_HERE)
        label = "GET /api/v1/funnels/{funnel_id}/visitors/drop-off"
        path = f"/api/v1/funnels/{path_segment(funnel_id)}/visitors/drop-off"
        params = {**_days(first_day, last_day), "step": str(step), "success": "true" if success else "false"}
        response = self._get(path, label, params)
        records = len(_listed(response.json(), "visitors", label))
        return single_page(response, call=call, call_kind="funnel_drop_off", context=context or {}, records=records)

    # -- sending -----------------------------------------------------------------------------------------------------

    def _get(self, path: str, label: str, params: Mapping[str, str] | None = None) -> Response:
        return self._http.request("GET", path, endpoint=label, params=params)

    def _list(
        self, path: str, label: str, params: Mapping[str, str], stamp: _Stamp, paging: Paging | None
    ) -> Iterator[Page]:
        def send(upcoming: NextRequest) -> Response:
            if upcoming.link is not None:
                _check_same_list(upcoming.link, path, label)
                return self._http.follow("GET", upcoming.link, endpoint=label, relative_to=path)
            return self._get(path, label, {**params, **upcoming.params})

        return _pages(send, label, stamp, paging)

    def _search(self, path: str, body: Mapping[str, object], stamp: _Stamp, paging: Paging) -> Iterator[Page]:
        """A search only reads, so it may be repeated; its next link is POSTed again with the same body (contract
        §1.3).
        """
        label = f"POST {path}"
        if paging.before is not None:
            raise ConfigurationError("Searches have no cursor backwards.", "Use `after`, or the other order.", _HERE)

        def send(upcoming: NextRequest) -> Response:
            if upcoming.link is not None:
                _check_same_list(upcoming.link, path, label)
                return self._http.follow("POST", upcoming.link, endpoint=label, json=body, retry=True, relative_to=path)
            return self._http.request("POST", path, endpoint=label, params=upcoming.params, json=body, retry=True)

        return _pages(send, label, stamp, paging)


@dataclass(frozen=True)
class _Stamp:
    """Where the records of a list are, and what is written on its pages."""

    records: str
    call: str
    call_kind: str
    context: Mapping[str, str] | None


def _pages(send: Callable[[NextRequest], Response], label: str, stamp: _Stamp, paging: Paging | None) -> Iterator[Page]:
    first = {} if paging is None else paging.params()
    link = "nextPage" if paging is None else paging.link

    def send_or_expire(upcoming: NextRequest) -> Response:
        # A cursor given by the caller dies like one in a link: paginate knows only the latter.
        try:
            return send(upcoming)
        except (RequestRejected, NotFound) as error:
            if upcoming.link is None and not {"after", "before"}.isdisjoint(first) and error.status in (400, 410):
                raise CursorExpired(
                    f"The vendor refused the cursor with {error.status}: it is gone.",
                    "Begin the list anew, without a cursor.",
                    error.where,
                    error.status,
                ) from error
            raise

    return paginate(
        send=send_or_expire,
        strategy=CursorLink(path=("_links", link), params=first),
        records_of=lambda parsed: _listed(parsed, stamp.records, label),
        call=stamp.call,
        call_kind=stamp.call_kind,
        context=stamp.context or {},
        records_at=stamp.records,
        vendor=_VENDOR,
    )


def _check_same_list(link: str, path: str, label: str) -> None:
    """A link goes on with the list it came from, in whatever version: anything else could open or change something.

    Host and scheme are the transport's to check.
    """
    try:
        linked = urlsplit(link).path
    except ValueError:
        return  # the transport refuses it, and says why
    if linked and _VERSION.sub("/api/", "/" + linked.lstrip("/")) != _VERSION.sub("/api/", path):
        raise ForeignOrigin(
            "A link to another page was refused: it leads to another endpoint.",
            "Nothing was sent. Report the link to the vendor.",
            Where(vendor=_VENDOR, endpoint=label),
        )


def _days(first_day: date | None, last_day: date | None) -> dict[str, str]:
    if first_day is not None and last_day is not None and first_day > last_day:
        raise ConfigurationError("The first day is after the last.", where=_HERE)
    bounds = {"dateFrom": first_day, "dateTo": last_day}
    return {name: _plain_day(day) for name, day in bounds.items() if day is not None}


def _plain_day(day: date) -> str:
    return (day.date() if isinstance(day, datetime) else day).isoformat()


def _one_of(value: str, allowed: Sequence[str], what: str) -> str:
    if value not in allowed:
        raise ConfigurationError(f"{what} is one of {', '.join(allowed)}.", where=_HERE)
    return value


def _object(value: object, label: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _unexpected(label, "an object is missing")
    return value


def _listed(parsed: object, name: str, label: str) -> list[object]:
    """The list under `name`; null is empty, absence is not: a body without its list says nothing about the records."""
    answer = _object(parsed, label)
    if name not in answer:
        raise _unexpected(label, f"there is no {name!r}")
    found = answer[name]
    if found is None:
        return []
    if not isinstance(found, list):
        raise _unexpected(label, f"{name!r} is not a list")
    return found


def _unexpected(label: str, reason: str) -> MalformedResponse:
    return MalformedResponse(
        f"The answer is not what the contract says: {reason}.",
        "The vendor may have changed the endpoint; compare with vendors/smartlook/README.md.",
        Where(vendor=_VENDOR, endpoint=label),
        200,
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _count(value: object) -> int | None:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _funnel_wait_seconds(delay: object) -> float:
    if isinstance(delay, bool) or not isinstance(delay, int | float) or delay <= 0:
        return _FUNNEL_DEFAULT_WAIT_SECONDS
    seconds = delay if delay <= _SECONDS_UP_TO else delay / 1000
    return min(float(seconds), _FUNNEL_LONGEST_WAIT_SECONDS)
