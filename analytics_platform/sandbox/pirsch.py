"""Pirsch on the wire: token, domains, goals and the statistics endpoints.

Belongs here: authentication, parameters, statuses, and the vendor's way to write JSON. Does not belong here: what is
counted (`pirsch_statistics`). Sources: the vendor document (API, 2022-01-19), contracts/pirsch.md A1, A4, A5, A6, D.
"""

from __future__ import annotations

import hmac
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from analytics_platform.sandbox.pirsch_statistics import (
    FILTERS,
    ROWS_AT_MOST,
    STATISTICS,
    Definitions,
    Domain,
    Goal,
    Query,
    build_domain,
)
from analytics_platform.sandbox.truth import SiteTruth, World
from analytics_platform.sandbox.wire import ServerContext, bearer_token, fault_of

__all__ = ["Profile", "build_app"]

_EPOCH = date(1970, 1, 1).toordinal()
_WINDOW_SECONDS_AT_MOST = 3600


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Knobs; the defaults are the vendor of the document (2022).

    Attributes:
        token_lifetime_seconds: how long an access token lives.
        unknown_domain_status: 401 as in 2022, or 404 as since 2023-07.
        strict_dates: a missing from or to is a 400; otherwise it means the last seven days.
        country_key: "country_code" as the engine writes it, or "country" as the document shows it.
        empty_as_null: an empty list is written `null`.
        requests_per_minute: answer 429 beyond this many in 60 s (the vendor documents no limit for statistics).
        respect_dnt, session_day, daily_fingerprint, events_end_bounce: see `pirsch_statistics.Definitions`.
    """

    token_lifetime_seconds: float = 3600
    unknown_domain_status: int = 401
    strict_dates: bool = True
    country_key: str = "country_code"
    empty_as_null: bool = True
    requests_per_minute: int | None = None
    respect_dnt: bool = False
    session_day: str = "start"
    daily_fingerprint: bool = False
    events_end_bounce: bool = False


class _Refused(Exception):
    def __init__(self, status: int, *, message: str = "", validation: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"validation": dict(validation or {}), "error": [message] if message else []}
        self.headers: dict[str, str] = {}


def build_app(world: World, context: ServerContext, **profile: object) -> Starlette:
    """The Pirsch API over this world; `profile` are the fields of `Profile`."""
    knobs = Profile(**profile)  # type: ignore[arg-type]
    api = _Api(world, context, knobs)
    routes = [
        Route("/api/v1/token", api.token, methods=["POST"]),
        Route("/api/v1/domain", api.guarded(api.domains), methods=["GET"]),
        Route("/api/v1/goal", api.guarded(api.goals), methods=["GET"]),
        Route("/api/v1/statistics/{name:path}", api.guarded(api.statistics), methods=["GET"]),
    ]
    return Starlette(routes=routes)


class _Api:
    def __init__(self, world: World, context: ServerContext, profile: Profile) -> None:
        self._world = world
        self._context = context
        self._profile = profile
        self._tokens = context.token_store("pirsch")
        named = {field.name for field in fields(Definitions)}
        definitions = Definitions(**{name: getattr(profile, name) for name in named})
        self._sites: dict[str, SiteTruth] = {site.pirsch_domain_id: site for site in world.sites}
        self._domains: dict[str, Domain] = {
            site.pirsch_domain_id: build_domain(world, site, definitions) for site in world.sites
        }
        self._sent: deque[float] = deque()

    # --- routes ------------------------------------------------------------------------------------------------------

    async def token(self, request: Request) -> Response:
        """`{"client_id", "client_secret"}` → `{"access_token", "expires_at"}`.

        The one place that uses the wall clock: a client compares `expires_at` with its own.
        """
        try:
            given = msgspec.json.decode(await request.body(), type=dict[str, str])
        except msgspec.DecodeError:
            return self._json({"validation": {}, "error": ["the body is not JSON"]}, 400)
        wanted = self._context.credentials
        pairs = (
            (given.get("client_id", ""), wanted.pirsch_client_id),
            (given.get("client_secret", ""), wanted.pirsch_client_secret),
        )
        if not all(hmac.compare_digest(a.encode(), b.encode()) for a, b in pairs):
            return self._json({"validation": {}, "error": ["client ID or secret invalid"]}, 401)
        lifetime = self._profile.token_lifetime_seconds
        issued = self._tokens.issue(vendor="pirsch", lifetime_seconds=lifetime)
        return self._json({"access_token": issued, "expires_at": _go_time(time.time_ns() + int(lifetime * 1e9))})

    def guarded(self, route: Callable[[Request], Response]) -> Callable[[Request], Awaitable[Response]]:
        """The route behind the token, the limit and the error format."""

        async def answer(request: Request) -> Response:
            try:
                if not self._tokens.is_valid(bearer_token(request)):
                    raise _Refused(401, message="unauthorized")
                self._spend()
                return route(request)
            except _Refused as refused:
                return self._json(refused.body, refused.status, refused.headers)

        return answer

    def domains(self, request: Request) -> Response:
        """`GET /domain`: all domains of a user client, or the one with this id."""
        wanted = request.query_params.get("id")
        listed = [self._domain_object(s) for s in self._sites.values() if wanted in (None, "", s.pirsch_domain_id)]
        return self._json(listed)

    def goals(self, request: Request) -> Response:
        """`GET /goal?id=<domain>`."""
        identifier, domain = self._domain(request.query_params)
        return self._json(self._empty([self._goal_object(goal, identifier) for goal in domain.goals]))

    def statistics(self, request: Request) -> Response:
        """`GET /statistics/<name>` with the filter of the document."""
        name = request.path_params["name"]
        statistic = STATISTICS.get(name)
        if statistic is None:
            raise _Refused(404, message="not found")
        identifier, domain = self._domain(request.query_params)
        result = statistic(domain, self._query(request.query_params, domain))
        if name == "goals" and isinstance(result, list):
            result = [{"page_goal": self._goal_object(goal, identifier), "stats": stats} for goal, stats in result]
        if name == "country" and self._profile.country_key != "country_code" and isinstance(result, list):
            result = [
                {self._profile.country_key if k == "country_code" else k: v for k, v in row.items()} for row in result
            ]
        if isinstance(result, list) and fault_of(request, "duplicate_rows") is not None:
            result = [*result, *result[:3]]
        return self._json(self._empty(result))

    # --- parts -------------------------------------------------------------------------------------------------------

    def _spend(self) -> None:
        """The sliding minute, when the profile has one."""
        limit = self._profile.requests_per_minute
        if limit is None:
            return
        now = self._context.monotonic()
        while self._sent and self._sent[0] <= now - 60:
            self._sent.popleft()
        if len(self._sent) >= limit:
            refused = _Refused(429, message="too many requests")
            wait = str(max(1, int(self._sent[0] + 60 - now) + 1))
            refused.headers = {"X-RateLimit-Limit": str(limit), "X-RateLimit-Remaining": "0",
                               "X-RateLimit-Reset": wait, "Retry-After": wait}  # fmt: skip
            raise refused
        self._sent.append(now)

    def _domain(self, parameters: QueryParams) -> tuple[str, Domain]:
        identifier = parameters.get("id", "")
        if not identifier:
            raise _Refused(400, validation={"id": "the domain ID is required"})
        if identifier not in self._domains:
            status = self._profile.unknown_domain_status
            raise _Refused(status, message="unauthorized" if status == 401 else "domain not found")
        return identifier, self._domains[identifier]

    def _query(self, parameters: QueryParams, domain: Domain) -> Query:
        first, last = self._range(parameters)
        first, last = min(first, last), max(first, last)
        last = min(last, domain.last_known_day)
        pattern = parameters.get("pattern", "")
        try:
            re.compile(pattern)
        except re.error:
            raise _Refused(400, validation={"pattern": "the pattern is invalid"}) from None
        limit = _whole(parameters.get("limit", ""))
        return Query(
            from_day=first,
            to_day=last,
            start_seconds=min(max(_whole(parameters.get("start", "")), 0), _WINDOW_SECONDS_AT_MOST),
            limit=min(limit, ROWS_AT_MOST) if limit > 0 else ROWS_AT_MOST,
            path=parameters.get("path", ""),
            pattern=pattern,
            event=parameters.get("event", ""),
            event_meta_key=parameters.get("event_meta_key", ""),
            include_page_time=parameters.get("include_avg_time_on_page", "").lower() == "true",
            meta={key[5:]: value for key, value in parameters.items() if key.startswith("meta_") and value},
            dimensions={FILTERS[key]: value for key, value in parameters.items() if key in FILTERS and value},
        )

    def _range(self, parameters: QueryParams) -> tuple[int, int]:
        problems, days = {}, []
        today = self._world.now.date().toordinal() - _EPOCH
        relative = not self._profile.strict_dates or bool(parameters.get("start"))
        for name, default in (("from", today - 6), ("to", today)):
            text = parameters.get(name, "")
            day = _day(text) if text else (default if relative else None)
            if day is None:
                problems[name] = "the date is invalid" if text else "the date is required"
            else:
                days.append(day)
        if problems:
            raise _Refused(400, validation=problems)
        return days[0], days[1]

    def _domain_object(self, site: SiteTruth) -> dict[str, object]:
        return {
            "id": site.pirsch_domain_id,
            "def_time": "2021-05-22T10:11:12.123456Z",
            "mod_time": "2026-03-02T08:09:10.5Z",
            "user_id": "pzy1bjD1lv",
            "hostname": site.hostname,
            "subdomain": site.key,
            "identification_code": f"code-of-{site.key}",
            "public": False,
            "google_user_id": None,
            "google_user_email": None,
            "gsc_domain": None,
            "new_owner": None,
            "timezone": site.timezone,
            "group_by_title": False,
            "user_role": "Owner",
        }

    @staticmethod
    def _goal_object(goal: Goal, domain_id: str) -> dict[str, object]:
        return {
            "id": goal.id,
            "def_time": "2021-05-22T10:11:12.123456Z",
            "mod_time": "2021-05-22T10:11:12.123456Z",
            "domain_id": domain_id,
            "name": goal.name,
            "path_pattern": goal.path_pattern,
            "pattern": goal.regex,
            "visitor_goal": goal.visitor_goal,
            "cr_goal": goal.cr_goal,
            "delete_reached": False,
            "email_reached": True,
        }

    def _empty(self, value: object) -> object:
        """A nil slice of the vendor's language is `null`; only event/meta makes a real empty one."""
        is_plain_empty_list = type(value) is list and not value
        return None if is_plain_empty_list and self._profile.empty_as_null else value

    def _json(self, value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        body = msgspec.json.encode(_go_numbers(value))
        # The vendor's encoder escapes these three; they stand in strings only.
        body = body.replace(b"&", b"\\u0026").replace(b"<", b"\\u003c").replace(b">", b"\\u003e")
        return Response(body, status, dict(headers or {}), media_type="application/json")


def _go_numbers(value: object) -> object:
    """Floats without a fraction are written without a point."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, dict):
        return {key: _go_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_go_numbers(item) for item in value]
    return value


def _go_time(nanoseconds: int) -> str:
    """RFC 3339 with up to nine digits of fraction, trailing zeros trimmed, UTC."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    fraction = f".{rest:09d}".rstrip("0").rstrip(".")
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}{fraction}Z"


def _day(text: str) -> int | None:
    """Days since 1970 of `2021-05-08` or of the date part of `2021-05-08T00:00:00.000Z`."""
    try:
        return date.fromisoformat(text.partition("T")[0]).toordinal() - _EPOCH
    except ValueError:
        return None


def _whole(text: str) -> int:
    return int(text) if re.fullmatch(r"-?\d{1,9}", text) else 0
