"""Pirsch on the wire: who asks, what they may, and which part answers.

Belongs here: routes, tokens, scopes, parameters, limits, and keeping the arrays of a domain up to date. Does not belong
here: what is counted (`pirsch_statistics`, `pirsch_later`), what is posted (`pirsch_ingest`), what an account is made
of (`pirsch_management`), how bytes are written (`pirsch_wire`). Sources: the vendor document (API, 2022-01-19),
contracts/pirsch.md A1 to A6, D.

The statistics of a domain are those of the generated truth until something is posted to it; from then on they are of
both, and its present is the server's own. Arrays are built again when rows, time zone or grouping changed, and only
when somebody asks.
"""

from __future__ import annotations

import hmac
import re
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import date
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from analytics_platform.sandbox import pirsch_later as later
from analytics_platform.sandbox.pirsch_domain import (
    EPOCH,
    PAIR,
    Domain,
    Rows,
    build_domain,
    default_goals,
    is_timezone,
    joined,
    truth_rows,
)
from analytics_platform.sandbox.pirsch_ingest import Ingest, Kind, Posted, read_posted
from analytics_platform.sandbox.pirsch_management import Account, Action, Client, Record
from analytics_platform.sandbox.pirsch_statistics import (
    FILTERS,
    ROWS_AT_MOST,
    STATISTICS,
    Definitions,
    Query,
    breakdown,
    rate,
)
from analytics_platform.sandbox.pirsch_wire import Refused, answer, body_of, go_time
from analytics_platform.sandbox.truth import World
from analytics_platform.sandbox.wire import ServerContext, bearer_token, fault_of

__all__ = ["Profile", "build_app"]

_API = "/api/v1"
_WINDOW_SECONDS_AT_MOST = 3600
_SCALES = ("day", "week", "month", "year")
_SERIES = frozenset({"visitor", "duration/session", "duration/page"})
_TRAFFIC = frozenset({"total", "visitor", "hours"})
_BUILT_AT_MOST = 32
_NO_METRIC = {"custom_metric_avg": 0, "custom_metric_total": 0}


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
        flush_seconds: what is posted is counted after at most so long (or when 100 entries wait).
        later_fields: rows have the fields of today's edition too (cr, week, region …; custom metrics stay 0).
        respect_dnt, session_day, daily_fingerprint, events_end_bounce: see `pirsch_domain.Definitions`.
    """

    token_lifetime_seconds: float = 3600
    unknown_domain_status: int = 401
    strict_dates: bool = True
    country_key: str = "country_code"
    empty_as_null: bool = True
    requests_per_minute: int | None = None
    flush_seconds: float = 10
    later_fields: bool = False
    respect_dnt: bool = False
    session_day: str = "start"
    daily_fingerprint: bool = False
    events_end_bounce: bool = False


Scope = Literal["scope_hit", "scope_event", "scope_statistics", "scope_domains"]
Handler = Callable[[Client, Request, bytes], Response]


def build_app(world: World, context: ServerContext, **profile: object) -> Starlette:
    """The Pirsch API over this world; `profile` are the fields of `Profile`."""
    knobs = Profile(**profile)  # type: ignore[arg-type]
    api = _Api(world, context, knobs)
    posts: tuple[tuple[Kind, Scope], ...] = (("hit", "scope_hit"), ("event", "scope_event"), ("session", "scope_hit"))
    routes = [
        Route(f"{_API}/token", api.token, methods=["POST"]),
        Route(f"{_API}/domain", api.guarded(api.domains), methods=["GET"]),
        Route(
            f"{_API}/statistics/{{name:path}}",
            api.guarded(api.statistics, scope="scope_statistics", verb="r"),
            methods=["GET"],
        ),
    ]
    for kind, scope in posts:
        for batch in (False, True):
            handler = api.guarded(api.posted(kind, batch=batch), scope=scope, verb="w")
            routes.append(Route(f"{_API}/{kind}{'/batch' if batch else ''}", handler, methods=["POST"]))
    for (method, path), action in api.account.actions.items():
        handler = api.guarded(api.acted(action), scope="scope_domains", verb=action.verb)
        routes.append(Route(f"{_API}{path}", handler, methods=[method]))
    return Starlette(routes=routes)


class _Api:
    def __init__(self, world: World, context: ServerContext, profile: Profile) -> None:
        self._world = world
        self._context = context
        self._profile = profile
        self._tokens = context.token_store("pirsch")
        self._holders: dict[str, str] = {}
        named = {field.name for field in fields(Definitions)}
        self._definitions = Definitions(**{name: getattr(profile, name) for name in named})
        self._ingest = Ingest(world, now_ms=context.now_ms, flush_seconds=profile.flush_seconds)
        self.account = Account(
            world,
            context.credentials,
            now_ms=context.now_ms,
            forget=self._ingest.forget,
            unknown_domain_status=profile.unknown_domain_status,
        )
        self._truths: dict[str, Rows] = {}
        self._built: dict[tuple[str, str, bool], tuple[int, Domain]] = {}
        for record in self.account.records.values():
            domain = self._fresh(record, record.timezone, record.group_by_title, version=0)
            self.account.seed_goals(record.id, default_goals(domain))
        # A world nobody writes to needs its rows no longer.
        self._truths.clear()
        self._world_ids = frozenset(self.account.records)
        self._sent: deque[float] = deque()

    # --- routes ------------------------------------------------------------------------------------------------------

    async def token(self, request: Request) -> Response:
        """`{"client_id", "client_secret"}` → `{"access_token", "expires_at"}`.

        The one place that uses the wall clock: a client compares `expires_at` with its own.
        """
        try:
            given = body_of(await request.body())
        except Refused as refused:
            return answer(refused.body, refused.status)
        pair = [str(given.get(name, "")) if isinstance(given, dict) else "" for name in ("client_id", "client_secret")]
        holder = self._holder_of(pair[0], pair[1])
        if holder is None:
            return answer({"validation": {}, "error": ["client ID or secret invalid"]}, 401)
        lifetime = self._profile.token_lifetime_seconds
        issued = self._tokens.issue(vendor="pirsch", lifetime_seconds=lifetime)
        self._holders[issued] = holder
        return answer({"access_token": issued, "expires_at": go_time(self._context.wall_ns() + int(lifetime * 1e9))})

    def guarded(
        self, handler: Handler, *, scope: Scope | None = None, verb: str = "r"
    ) -> Callable[[Request], Awaitable[Response]]:
        """The handler behind the token, the scope, the limit and the error format."""

        async def reply(request: Request) -> Response:
            content = await request.body()
            try:
                client = self._client(request)
                if client.is_access_key and scope not in {"scope_hit", "scope_event"}:
                    raise Refused(403, message="an access key is write-only")
                if scope is not None and not client.may(scope, verb):
                    raise Refused(403, message=f"the client lacks the scope {scope.removeprefix('scope_')}: {verb}")
                self._spend()
                return handler(client, request, content)
            except Refused as refused:
                return answer(refused.body, refused.status, refused.headers)

        return reply

    def domains(self, client: Client, request: Request, content: bytes) -> Response:
        """`GET /domain`: all domains of a user client, the one of a domain client, or the one with this id."""
        wanted = request.query_params.get("id")
        listed = [dict(one.shown) for one in self.account.visible(client) if wanted in (None, "", one.id)]
        if client.domain_id is not None:
            listed = [{**row, "user_role": ""} for row in listed]
        return answer(listed)

    def acted(self, action: Action) -> Handler:
        """A management endpoint: fields come from the query of GET and DELETE, else from the body."""

        def run(client: Client, request: Request, content: bytes) -> Response:
            if action.user_only and client.domain_id is not None:
                raise Refused(403, message="this needs a user client")
            in_query = request.method in {"GET", "DELETE"}
            given: Any = dict(request.query_params) if in_query else body_of(content)
            if not isinstance(given, dict):
                raise Refused(400, message="the body must be an object")
            result = action.run(client, given)
            if result is None and request.method != "GET":
                return Response(b"", 200)
            return answer(self._empty(result))

        return run

    def posted(self, kind: Kind, *, batch: bool) -> Handler:
        """`POST /hit`, `/event`, `/session` and their batches: 200 with an empty body, counted later."""

        def run(client: Client, request: Request, content: bytes) -> Response:
            entries = read_posted(kind, body_of(content), batch=batch, now_ms=self._context.now_ms())
            targets = [self._target(client, entry) for entry in entries]
            for target, entry in zip(targets, entries, strict=True):
                if target is not None:
                    self._ingest.accept(target, [entry])
            return Response(b"", 200)

        return run

    def statistics(self, client: Client, request: Request, content: bytes) -> Response:
        """`GET /statistics/<name>` with the filter of the document."""
        name, given = request.path_params["name"], request.query_params
        record = self.account.record(client, given.get("id", "")) if _is_offered(name) else None
        if record is None:
            raise Refused(404, message="not found")
        domain = self._domain(record, given)
        if name == "overview":
            return answer(later.overview(domain, members=self.account.members_of(record.id)))
        query = self._query(given, domain)
        result = self._listed(name, record, domain, query, given)
        if isinstance(result, list) and fault_of(request, "duplicate_rows") is not None:
            result = [*result, *result[:3]]
        return answer(self._empty(result))

    # --- statistics --------------------------------------------------------------------------------------------------

    def _listed(self, name: str, record: Record, domain: Domain, query: Query, given: QueryParams) -> object:
        """The result, ordered, searched and paged where the request asks for that (parameters of later editions)."""
        wants = {key: given.get(key, "") for key in ("sort", "direction", "search")}
        offset = max(_whole(given.get("offset", "")), 0)
        if not offset and not any(wants.values()):
            return self._result(name, record, domain, query, given)
        rows = self._result(name, record, domain, replace(query, limit=10**9), given)
        if not isinstance(rows, list) or not rows:
            return rows
        if wants["search"]:
            primary = next((key for key, value in rows[0].items() if isinstance(value, str)), "")
            rows = [row for row in rows if wants["search"].lower() in str(row.get(primary, "")).lower()]
        if wants["sort"]:
            if rows and wants["sort"] not in rows[0]:
                raise Refused(400, validation={"sort": "the field is unknown"})
            rows = sorted(rows, key=lambda row: row[wants["sort"]], reverse=wants["direction"] == "desc")
        return rows[offset : offset + query.limit]

    def _result(self, name: str, record: Record, domain: Domain, query: Query, given: QueryParams) -> object:
        if name == "goals":
            domain = replace(domain, goals=tuple(goal for goal, _ in record.goals.values()))
            pairs: Any = STATISTICS[name](domain, query)
            return [{"page_goal": record.goals[goal.id][1], "stats": stats} for goal, stats in pairs]
        if name == "funnel":
            return self._funnel(record, domain, query, given)
        if name == "session/details":
            ids = {key: given.get(key, "") for key in ("visitor_id", "session_id")}
            missing = {key: "this field is required" for key, value in ids.items() if not value}
            if missing:
                raise Refused(400, validation=missing)
            return later.session_details(domain, **ids)
        if name == "pages":
            name = "keywords"  # Search Console's pages of a keyword: without the integration there are none of either
        if name.startswith("options/"):
            return later.OPTIONS[name.removeprefix("options/")](domain, query)
        result = (STATISTICS.get(name) or later.LATER[name])(domain, query)
        return self._edition(name, domain, query, result)

    def _funnel(self, record: Record, domain: Domain, query: Query, given: QueryParams) -> object:
        wanted = given.get("funnel_id", "")
        if not wanted:
            raise Refused(400, validation={"funnel_id": "the funnel ID is required"})
        for funnel in record.funnels:
            if funnel.id == wanted:
                definition = self.account.funnel_row(funnel, record.id)
                return {"definition": definition, "data": later.funnel(domain, query, funnel.steps)}
        raise Refused(404, message="funnel not found")

    def _edition(self, name: str, domain: Domain, query: Query, result: Any) -> object:
        """The fields of the edition the profile asks for."""
        if name == "country" and self._profile.country_key != "country_code":
            key = self._profile.country_key
            return [{key if k == "country_code" else k: v for k, v in row.items()} for row in result]
        if not self._profile.later_fields:
            return result
        if name in _SERIES:
            scales = dict.fromkeys(_SCALES)
            result = [{**scales, **row} for row in result]
        if name in _TRAFFIC:
            plain: Any = STATISTICS[name](domain, replace(query, event="", path="", pattern=""))
            is_narrowed = bool(query.event or query.path or query.pattern)
            rows, all_rows = (value if isinstance(value, list) else [value] for value in (result, plain))
            for row, all_row in zip(rows, all_rows, strict=True):
                row |= {"cr": rate(row["visitors"], all_row["visitors"]) if is_narrowed else 0, **_NO_METRIC}
        elif name == "growth":
            result |= {"cr_growth": 0, **{f"{key}_growth": 0 for key in _NO_METRIC}}
        elif name == "city":
            parts = ("country_code", "region", "city")
            return breakdown("country_region_city", parts=parts)(domain, query)
        elif name in {"events", "event/meta"}:
            for row in result:
                row["count"] = row["views"]
        return result

    # --- parts -------------------------------------------------------------------------------------------------------

    def _holder_of(self, client_id: str, secret: str) -> str | None:
        wanted = self._context.credentials
        is_own = hmac.compare_digest(client_id.encode(), wanted.pirsch_client_id.encode())
        is_own &= hmac.compare_digest(secret.encode(), wanted.pirsch_client_secret.encode())
        return "userclient" if is_own else self.account.holder_of(client_id, secret)

    def _client(self, request: Request) -> Client:
        """Who asks; raises Refused (401) for no, an unknown or an expired token."""
        token = bearer_token(request)
        client: Client | None = None
        if token is not None and token.startswith("pa_"):
            client = self.account.access_key(token)
        elif token is not None and self._tokens.is_valid(token):
            client = self.account.client(self._holders.get(token, ""))
        if client is None:
            raise Refused(401, message="unauthorized")
        return client

    def _spend(self) -> None:
        """The sliding minute, when the profile has one."""
        limit = self._profile.requests_per_minute
        if limit is None:
            return
        now = self._context.monotonic()
        while self._sent and self._sent[0] <= now - 60:
            self._sent.popleft()
        if len(self._sent) >= limit:
            refused = Refused(429, message="too many requests")
            wait = str(max(1, int(self._sent[0] + 60 - now) + 1))
            refused.headers = {"X-RateLimit-Limit": str(limit), "X-RateLimit-Remaining": "0",
                               "X-RateLimit-Reset": wait, "Retry-After": wait}  # fmt: skip
            raise refused
        self._sent.append(now)

    def _target(self, client: Client, entry: Posted) -> str | None:
        """The domain an entry is for: the client's own, else its host name's; a keep-alive follows its visitor.

        Raises:
            Refused: 400 for a host that is none of the user's domains.
        """
        if client.domain_id is not None:
            return client.domain_id
        if entry.kind == "session":
            return self._ingest.domain_of(entry)
        host = entry.hostname.removeprefix("www.")
        for record in self.account.records.values():
            own = str(record.shown["hostname"]).removeprefix("www.")
            if host == own or host.endswith(f".{own}"):
                return record.id
        raise Refused(400, validation={"url": "the hostname is none of this user's domains"})

    def _domain(self, record: Record, given: QueryParams) -> Domain:
        timezone = given.get("tz", "") or record.timezone
        if not is_timezone(timezone):
            raise Refused(400, validation={"tz": "the time zone is unknown"})
        by_title = record.group_by_title or given.get("include_title", "").lower() == "true"
        version = self._ingest.version(record.id)
        built = self._built.get((record.id, timezone, by_title))
        if built is None or built[0] != version:
            domain = self._fresh(record, timezone, by_title, version=version)
        else:
            domain = built[1]
        if version == 0 and record.id in self._world_ids:
            return domain
        now_ms = self._context.now_ms()
        return replace(domain, now_ms=now_ms, last_known_day=now_ms // 86_400_000 + 1)

    def _fresh(self, record: Record, timezone: str, by_title: bool, *, version: int) -> Domain:
        """Build the arrays of a domain and keep them."""
        rows = self._truths.get(record.id)
        if rows is None:
            rows = self._truths[record.id] = truth_rows(self._world, record.site, self._definitions)
        if version:
            rows = joined(rows, self._ingest.rows(record.id))
        domain = build_domain(
            rows,
            timezone=timezone,
            definitions=self._definitions,
            now_ms=self._world.now_ms,
            group_by_title=by_title,
        )
        if len(self._built) >= _BUILT_AT_MOST:
            self._built.clear()
        self._built[record.id, timezone, by_title] = (version, domain)
        return domain

    def _query(self, given: QueryParams, domain: Domain) -> Query:
        first, last = self._range(given, domain)
        first, last = min(first, last), max(first, last)
        last = min(last, domain.last_known_day)
        pattern = given.get("pattern", "")
        try:
            re.compile(pattern)
        except re.error:
            raise Refused(400, validation={"pattern": "the pattern is invalid"}) from None
        limit = _whole(given.get("limit", ""))
        scale = given.get("scale", "") or "day"
        if scale not in _SCALES:
            raise Refused(400, validation={"scale": "the scale is invalid"})
        return Query(
            from_day=first,
            to_day=last,
            start_seconds=min(max(_whole(given.get("start", "")), 0), _WINDOW_SECONDS_AT_MOST),
            limit=min(limit, ROWS_AT_MOST) if limit > 0 else ROWS_AT_MOST,
            path=PAIR.join(filter(None, given.getlist("path"))),
            pattern=pattern,
            event=PAIR.join(filter(None, given.getlist("event"))),
            event_meta_key=given.get("event_meta_key", ""),
            include_page_time=given.get("include_avg_time_on_page", "").lower() == "true",
            meta=_prefixed(given, "meta_"),
            dimensions={
                FILTERS[key]: PAIR.join(values) for key in FILTERS if (values := list(filter(None, given.getlist(key))))
            },
            scale=scale,
            tag=given.get("tag", ""),
            tags=_prefixed(given, "tag_"),
        )

    def _range(self, given: QueryParams, domain: Domain) -> tuple[int, int]:
        problems, days = {}, []
        today = domain.last_known_day - 1
        relative = not self._profile.strict_dates or bool(given.get("start"))
        for name, default in (("from", today - 6), ("to", today)):
            text = given.get(name, "")
            day = _day(text) if text else (default if relative else None)
            if day is None:
                problems[name] = "the date is invalid" if text else "the date is required"
            else:
                days.append(day)
        if problems:
            raise Refused(400, validation=problems)
        return days[0], days[1]

    def _empty(self, value: object) -> object:
        """A nil slice of the vendor's language is `null`; only event/meta makes a real empty one."""
        is_plain_empty_list = type(value) is list and not value
        return None if is_plain_empty_list and self._profile.empty_as_null else value


def _is_offered(name: str) -> bool:
    return (
        name in STATISTICS
        or name in later.LATER
        or name in {"overview", "funnel", "session/details", "pages"}
        or (name.startswith("options/") and name.removeprefix("options/") in later.OPTIONS)
    )


def _prefixed(given: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {key.removeprefix(prefix): value for key, value in given.items() if key.startswith(prefix) and value}


def _day(text: str) -> int | None:
    """Days since 1970 of `2021-05-08` or of the date part of `2021-05-08T00:00:00.000Z`."""
    try:
        return date.fromisoformat(text.partition("T")[0]).toordinal() - EPOCH
    except ValueError:
        return None


def _whole(text: str) -> int:
    return int(text) if re.fullmatch(r"-?\d{1,9}", text) else 0
