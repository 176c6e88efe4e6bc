"""Smartlook's REST API, one method an endpoint: asks, pages, and hands over what came back.

Belongs here: paths, request bodies, how a list is paged, when a funnel is finished. Does not belong here: which days
to ask for (`streams`), what the fields mean (`tables`), Dagster, files. There is no method that deletes or changes
anything: the same token could.

Source: contracts/smartlook §1.1 (operations), §1.2 (search bodies), §1.3 (cursors), §1.4 (traps).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal, Self

from pydantic import SecretStr

from analytics_platform.core.auth import Bearer
from analytics_platform.core.clock import SYSTEM_CLOCK, Clock
from analytics_platform.core.errors import MalformedResponse, TransientVendorError, Where
from analytics_platform.core.http import HttpClient, HttpLimits, Meter, NullMeter, Response
from analytics_platform.core.origin import path_segment
from analytics_platform.core.paging import CursorLink, NextRequest, Page, paginate, single_page

__all__ = ["Filter", "Project", "SmartlookClient", "Usage"]

_VENDOR = "smartlook"
_PAGE_SIZE = 100
"""Maximum of visitors/search (contract §1.2); taken for the other lists too, whose maximum nobody states."""

_FUNNEL_POLLS = 10
_FUNNEL_LONGEST_WAIT_SECONDS = 30.0
_FUNNEL_DEFAULT_WAIT_SECONDS = 2.0
_SECONDS_UP_TO = 120.0
"""`nextAttemptDelay` has no stated unit: up to this it is read as seconds, above it as milliseconds."""


@dataclass(frozen=True, kw_only=True)
class Filter:
    """One condition of a search; several are joined by AND, an array value means OR (contract §1.2).

    Args:
        name: `recording_date`, `user_first_seen`, `visitor_id`, `uid`, `session_duration`, …
        operator: `is`, `is_not`, `contains`, `not_contains`, `before`, `after`, `in_range`, `lte`, `gte`; always
        sent, since version 2
            requires it.
        value: text, number or list, as the filter wants.
    """

    name: str
    operator: str
    value: str | float | Sequence[str]

    def body(self) -> dict[str, object]:
        """As sent."""
        value: object = list(self.value) if not isinstance(self.value, str | int | float) else self.value
        return {"name": self.name, "operator": self.operator, "value": value}


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


class SmartlookClient:
    """One project of Smartlook: tokens are project-scoped. Thread-safe as `HttpClient` is; a context manager.

    Every method may raise the VendorError and QuotaError classes of `core.errors`. Lists yield a page before the next
    is asked for.
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
        """A client on the pinned origin of `base_url`.

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

    def me(self) -> Project:
        """Which project the token opens: the cheapest probe of a token."""
        answer = _object(self._get("/api/v1/me", "GET /api/v1/me").json(), "GET /api/v1/me")
        return Project(
            organization_id=_text(answer.get("organizationId")),
            organization_name=_text(answer.get("organizationName")),
            project_id=_text(answer.get("projectId")),
            project_name=_text(answer.get("projectName")),
        )

    def statistics(self) -> Usage:
        """Requests used, by the vendor's own count. Whether this call is counted itself, nobody says (contract §1.4,
        trap 9).
        """
        endpoint = "GET /api/v1/statistics"
        answer = _object(self._get("/api/v1/statistics", endpoint).json(), endpoint)
        by_endpoint = answer.get("endpointsUsage")
        counted = by_endpoint.items() if isinstance(by_endpoint, dict) else ()
        return Usage(
            project_requests=_count(answer.get("projectUsage")),
            requests_by_endpoint={str(name): count for name, raw in counted if (count := _count(raw)) is not None},
        )

    # -- searches ----------------------------------------------------------------------------------------------------

    def search_sessions(
        self,
        filters: Sequence[Filter],
        *,
        call: str,
        context: Mapping[str, str] | None = None,
        order: Literal["asc", "desc"] = "asc",
    ) -> Iterator[Page]:
        """`POST /api/v1/sessions/search`, by start, 100 a page (call kind `session_search`)."""
        body = {"filters": [f.body() for f in filters], "sort": {"timeStart": order}}
        return self._search("/api/v1/sessions/search", body, "sessions", call, "session_search", context or {})

    def search_visitors(
        self, filters: Sequence[Filter], *, call: str, context: Mapping[str, str] | None = None
    ) -> Iterator[Page]:
        """`POST /api/v2/visitors/search`, by creation, 100 a page (call kind `visitor_search`)."""
        body = {"filters": [f.body() for f in filters], "sort": {"timeCreate": "asc"}}
        return self._search("/api/v2/visitors/search", body, "visitors", call, "visitor_search", context or {})

    # -- events ------------------------------------------------------------------------------------------------------

    def events(self, *, call: str = "events") -> Iterator[Page]:
        """`GET /api/v1/events`: definitions of events, never their occurrences (call kind `event_list`)."""
        return self._list("/api/v1/events", "GET /api/v1/events", "events", call, "event_list", {}, {})

    def event(self, event_id: str, *, first_day: date, last_day: date, call: str) -> Page:
        """`GET /api/v1/events/{eventId}` with its daily histogram, both days included (call kind `event_histogram`)."""
        endpoint = "GET /api/v1/events/{eventId}"
        params = {**_days(first_day, last_day), "occurrenceHistogramInterval": "day"}
        response = self._get(f"/api/v1/events/{path_segment(event_id)}", endpoint, params)
        event = _object(_object(response.json(), endpoint).get("event"), endpoint)
        histogram = event.get("occurrenceHistogram")
        records = len(histogram) if isinstance(histogram, list) else 0
        return single_page(response, call=call, call_kind="event_histogram", context={}, records=records)

    def visitor_events(
        self,
        visitor_id: str,
        *,
        first_day: date,
        last_day: date,
        call: str,
        context: Mapping[str, str] | None = None,
    ) -> Iterator[Page]:
        """`GET /api/v1/visitors/{visitorId}/events`, both days included, 100 a page (call kind `visitor_events`)."""
        path = f"/api/v1/visitors/{path_segment(visitor_id)}/events"
        endpoint = "GET /api/v1/visitors/{visitorId}/events"
        params = _days(first_day, last_day)
        return self._list(path, endpoint, "events", call, "visitor_events", params, context or {})

    # -- funnels -----------------------------------------------------------------------------------------------------

    def funnels(self, *, call: str = "funnels") -> Iterator[Page]:
        """`GET /api/v1/funnels`: definitions (call kind `funnel_list`)."""
        return self._list("/api/v1/funnels", "GET /api/v1/funnels", "funnels", call, "funnel_list", {}, {})

    def funnel(self, funnel_id: str, *, day: date, call: str) -> Page:
        """`GET /api/v1/funnels/{funnelId}` for one day, asked until the vendor has computed it (call kind
        `funnel_day`).

        The page's `attempts` counts every ask.

        Raises:
            TransientVendorError: not finished after 10 asks.
        """
        endpoint = "GET /api/v1/funnels/{funnelId}"
        params = {**_days(day, day), "waitForFinish": "true"}
        attempts = 0
        for _ in range(_FUNNEL_POLLS):
            response = self._get(f"/api/v1/funnels/{path_segment(funnel_id)}", endpoint, params)
            attempts += response.attempts
            answer = _object(response.json(), endpoint)
            computation = answer.get("computation")
            if not isinstance(computation, dict) or computation.get("isFinished") is not False:
                steps = _object(answer.get("funnel"), endpoint).get("steps")
                records = len(steps) if isinstance(steps, list) else 0
                context = {"day": day.isoformat()}
                page = single_page(response, call=call, call_kind="funnel_day", context=context, records=records)
                return replace(page, attempts=attempts)
            self._clock.sleep(_funnel_wait_seconds(computation.get("nextAttemptDelay")))
        raise TransientVendorError(
            f"The funnel was still being computed after {_FUNNEL_POLLS} asks.",
            "Run the day again later: the other funnels of the day are landed and are not asked for again.",
            Where(vendor=_VENDOR, endpoint=endpoint),
        )

    # -- sending -----------------------------------------------------------------------------------------------------

    def _get(self, path: str, endpoint: str, params: Mapping[str, str] | None = None) -> Response:
        return self._http.request("GET", path, endpoint=endpoint, params=params)

    def _list(
        self,
        path: str,
        endpoint: str,
        field: str,
        call: str,
        call_kind: str,
        params: Mapping[str, str],
        context: Mapping[str, str],
    ) -> Iterator[Page]:
        def send(upcoming: NextRequest) -> Response:
            if upcoming.link is not None:
                return self._http.follow("GET", upcoming.link, endpoint=endpoint)
            return self._get(path, endpoint, {**params, **upcoming.params})

        return self._pages(send, endpoint, field, call, call_kind, context)

    def _search(
        self,
        path: str,
        body: Mapping[str, object],
        field: str,
        call: str,
        call_kind: str,
        context: Mapping[str, str],
    ) -> Iterator[Page]:
        """A search only reads, so it may be repeated; its next link is POSTed again with the same body (contract
        §1.3).
        """
        endpoint = f"POST {path}"

        def send(upcoming: NextRequest) -> Response:
            if upcoming.link is not None:
                return self._http.follow("POST", upcoming.link, endpoint=endpoint, json=body, retry=True)
            return self._http.request("POST", path, endpoint=endpoint, params=upcoming.params, json=body, retry=True)

        return self._pages(send, endpoint, field, call, call_kind, context)

    @staticmethod
    def _pages(
        send: Callable[[NextRequest], Response],
        endpoint: str,
        field: str,
        call: str,
        call_kind: str,
        context: Mapping[str, str],
    ) -> Iterator[Page]:
        return paginate(
            send=send,
            strategy=CursorLink(params={"limit": str(_PAGE_SIZE)}),
            records_of=lambda parsed: _listed(parsed, field, endpoint),
            call=call,
            call_kind=call_kind,
            context=context,
            vendor=_VENDOR,
        )


def _days(first_day: date, last_day: date) -> dict[str, str]:
    return {"dateFrom": first_day.isoformat(), "dateTo": last_day.isoformat()}


def _object(value: object, endpoint: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _unexpected(endpoint, "an object is missing")
    return value


def _listed(parsed: object, field: str, endpoint: str) -> list[object]:
    """The list under `field`; null is empty, absence is not: a body without its list says nothing about the records."""
    answer = _object(parsed, endpoint)
    if field not in answer:
        raise _unexpected(endpoint, f"there is no {field!r}")
    found = answer[field]
    if found is None:
        return []
    if not isinstance(found, list):
        raise _unexpected(endpoint, f"{field!r} is not a list")
    return found


def _unexpected(endpoint: str, reason: str) -> MalformedResponse:
    return MalformedResponse(
        f"The answer is not what the contract says: {reason}.",
        "The vendor may have changed the endpoint; compare with vendors/smartlook/README.md.",
        Where(vendor=_VENDOR, endpoint=endpoint),
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
