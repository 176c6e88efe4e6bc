"""Kameleoon's Data API as the sandbox plays it: visits of one visitor code at a time, products, maps.

Belongs here: what Kameleoon would have stored of the truth (`_Site`) and the API over it and over what was written.
Does not belong here: what was written (`kameleoon_store`), the truth, faults and the request log (`wire`), the token
host (`server`: it is another origin), anything a client would share.

Sources: contracts/kameleoon B2 (tokens), B3 (limits, statuses, user agents), B4 to B8 (endpoints); contracts/pirsch C
(what the official clients ask first) and D (sandbox decisions); vendor_docs/kameleoon.txt; MARTS §5.5 (30 minutes idle,
visits over 120 minutes rejected, consenting people, no IE).
Times are epoch milliseconds. There is no list of visitors: the caller brings the codes. Answers about the truth use the
world's present, so they stay the same; what is written uses the server's (`ServerContext.now_ms`).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from analytics_platform.sandbox.kameleoon_store import (
    MAX_CODE_LENGTH,
    Posted,
    StoredVisit,
    WrittenSite,
    read_events,
)
from analytics_platform.sandbox.observe import (
    Refusal,
    SessionFrame,
    answer,
    build_sessions,
    groups,
    records,
    site_views,
    tagged_visitors,
    visitor_positions,
)
from analytics_platform.sandbox.truth import SiteTruth, World
from analytics_platform.sandbox.wire import ServerContext

__all__ = ["GOAL_IDS", "UID_CUSTOM_DATA_INDEX", "Profile", "build_app"]

GOAL_IDS: Final[Mapping[str, int]] = {"purchase": 310085, "signup": 310086}
"""Kameleoon's goal of each conversion of the truth."""
UID_CUSTOM_DATA_INDEX: Final = 3
"""Custom data slot in which the sites store the login id; it is the mapping identifier of cross-device visits."""

_REFUSED_AGENTS: Final = re.compile(
    r"^(python-requests|python-httpx|curl|wget|java|go-http-client)/|bot\b|spider|crawl", re.IGNORECASE
)
_FLAGS: Final = (
    "staticData", "page", "conversion", "experiment", "personalization", "customData", "geolocation", "activity",
    "targetingSegment",
)  # fmt: skip
_BROWSERS: Final = {"Chrome": 0, "IE": 1, "Firefox": 2, "Safari": 3, "Opera": 4}
_SYSTEMS: Final = {"Windows": 0, "Mac": 1, "iOS": 2, "Linux": 3, "Android": 4}
_MAX_PREVIOUS: Final = 25
_MAX_KEYS: Final = 100
_MAX_TTL_HOURS: Final = 8784


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Knobs of this observer.

    Attributes:
        idle_seconds: the visit rule.
        longest_visit_seconds: a longer visit is rejected whole.
        exposed_pages_only: the tag runs on pages of an experiment only; by default it runs on every page.
        current_visit_readable: Feature Experimentation reads the running visit, Web Experimentation does not.
        now_ms: the observer's present, for visits still running; the world's when None.
        product_addon, maps_allowed: without the add-on the endpoints answer 403.
        anonymous_gets_per_second, gets_per_second: limits per requester address.
        anonymous_others_per_second, others_per_second: the same for each other method.
        check_user_agent: 403 for bots and for HTTP libraries under their own name.
        write_delay_ms: from the 204 to the moment a read shows it.
        most_event_bytes, most_map_bytes, most_forget_bytes: larger bodies are answered with 413.
    """

    idle_seconds: int = 1800
    longest_visit_seconds: int = 7200
    exposed_pages_only: bool = False
    current_visit_readable: bool = False
    now_ms: int | None = None
    product_addon: bool = True
    maps_allowed: bool = True
    anonymous_gets_per_second: float = 5.0
    gets_per_second: float = 50.0
    anonymous_others_per_second: float = 50.0
    others_per_second: float = 1000.0
    check_user_agent: bool = True
    write_delay_ms: int = 2000
    most_event_bytes: int = 3_000_000
    most_map_bytes: int = 1_000_000
    most_forget_bytes: int = 1_000_000


def _bad(message: str) -> Refusal:
    return Refusal(400, {"message": message})


# --- what Kameleoon stored --------------------------------------------------------------------------------------------

_PERSON_COLUMNS: Final = (
    "visitor_id", "kameleoon_code", "uid", "browser", "browser_version", "os", "device", "screen_width",
    "screen_height", "language", "country", "country_name", "region", "city",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Person:
    visitor_id: int
    kameleoon_code: str
    uid: str | None
    browser: str
    browser_version: str
    os: str
    device: str
    screen_width: int
    screen_height: int
    language: str
    country: str
    country_name: str
    region: str
    city: str


@dataclass(frozen=True)
class _Located:
    """Rows of a truth frame that fell into a visit: visit `i` owns `rows[bounds[i]:bounds[i + 1]]`."""

    rows: list[tuple[Any, ...]]
    bounds: npt.NDArray[np.int64]

    def of(self, visit: int) -> list[tuple[Any, ...]]:
        return self.rows[self.bounds[visit] : self.bounds[visit + 1]]


class _Site:
    """One site's visits, grouped by visitor in order of time."""

    def __init__(self, world: World, site: SiteTruth, profile: Profile) -> None:
        self.site = site
        self.profile = profile
        visitors = tagged_visitors(world, site.key, block_cut=0.0, exclude_browsers=("IE",))
        # Bots of the IAB list are refused, whether they run JavaScript or not.
        visitors = visitors.loc[~visitors["is_bot"].to_numpy(bool)].reset_index(drop=True)
        views = site_views(world, site.key, visitors)
        if profile.exposed_pages_only:
            views = _exposed(world, site, views)
        visits = build_sessions(views, visitors, idle_seconds=profile.idle_seconds, cap_seconds=86_400)
        end_ms = _ends(world, site, visitors, visits)
        kept = end_ms - visits.start_ms <= profile.longest_visit_seconds * 1000
        self.visits = visits = visits.keep(kept)
        self.end_ms = end_ms[kept]
        self.people = [_Person(*row) for row in records(visitors, _PERSON_COLUMNS)]
        self.codes = {person.kameleoon_code: index for index, person in enumerate(self.people)}
        self.mapped: dict[str, list[int]] = {}
        for index, person in enumerate(self.people):
            if person.uid is not None:
                self.mapped.setdefault(person.uid, []).append(index)
        self.visit_bounds = groups(visits.visitor, len(visitors))
        self.pages = _Located(records(visits.views, ("at_ms", "url", "title", "referrer")), visits.bounds)
        self.conversions = self._locate(world.conversions, visitors, ("at_ms", "goal", "revenue"))
        self.exposures = self._locate(world.exposures, visitors, ("at_ms", "experiment_id", "variation_id"))
        clicks = world.events.loc[world.events["kind"].isin(["click", "rage_click"]).to_numpy(bool)]
        self.clicks = self._locate(clicks, visitors, ("at_ms",))
        self._frame_products(world, visitors)

    def _locate(self, frame: pd.DataFrame, visitors: pd.DataFrame, columns: Sequence[str]) -> _Located:
        frame = frame.loc[(frame["site_key"] == self.site.key).to_numpy(bool)]
        position = visitor_positions(visitors, frame["visitor_id"].to_numpy(np.int64))
        visit = self.visits.locate(position, frame["at_ms"].to_numpy(np.int64))
        order = np.argsort(visit, kind="stable")
        order = order[visit[order] >= 0]
        return _Located(records(frame.iloc[order], columns), groups(visit[order], len(self.visits)))

    def _frame_products(self, world: World, visitors: pd.DataFrame) -> None:
        events = world.product_events
        known = visitor_positions(visitors, events["visitor_id"].to_numpy(np.int64)) >= 0
        events = events.loc[(events["site_key"] == self.site.key).to_numpy(bool) & known]
        self.product_events = {
            str(sku): (
                part["at_ms"].to_numpy(np.int64),
                part["kind"].to_numpy(object),
                part["quantity"].to_numpy(np.int64),
            )
            for sku, part in events.groupby("sku", sort=False)
        }
        products = world.products.loc[(world.products["site_key"] == self.site.key).to_numpy(bool)]
        self.products = {
            str(sku): {"name": name, "price": price} for sku, name, price in records(products, ("sku", "name", "price"))
        }

    def latest_visit(self, code: str) -> tuple[int, int, int] | None:
        """Index, start and end of a visitor's last visit, for what is written next."""
        index = self.codes.get(code)
        if index is None or self.visit_bounds[index] == self.visit_bounds[index + 1]:
            return None
        visit = int(self.visit_bounds[index + 1]) - 1
        return visit, int(self.visits.start_ms[visit]), int(self.end_ms[visit])

    def codes_of(self, mapping_value: str) -> list[str]:
        """Visitor codes of a login."""
        return [self.people[index].kameleoon_code for index in self.mapped.get(mapping_value, ())]

    def visits_of(self, code: str) -> range:
        """Visits of a code, in order of time."""
        index = self.codes.get(code)
        return range(0) if index is None else range(int(self.visit_bounds[index]), int(self.visit_bounds[index + 1]))

    def counters(self, sku: str, begin_ms: float, end_ms: float) -> dict[str, int]:
        """`v`, `atcq`, `bq` of one product in [begin, end]."""
        if sku not in self.product_events:
            return {"v": 0, "atcq": 0, "bq": 0}
        at_ms, kind, quantity = self.product_events[sku]
        inside = (at_ms >= begin_ms) & (at_ms <= end_ms)
        return {
            "v": int(((kind == "view") & inside).sum()),
            "atcq": int(quantity[(kind == "add_to_cart") & inside].sum()),
            "bq": int(quantity[(kind == "purchase") & inside].sum()),
        }

    def static_data(self, visit: int, person: _Person) -> dict[str, object]:
        """`staticDataEvent`: the device, and which visit of the visitor this is (from 0)."""
        first = int(self.visit_bounds[self.visits.visitor[visit]])
        start = int(self.visits.start_ms[visit])
        major = re.match(r"[0-9]+(\.[0-9]+)?", person.browser_version)
        return _event(
            start + 1,
            {
                "visitNumber": visit - first,
                "timeSincePreviousVisit": start - int(self.visits.start_ms[visit - 1]) if visit > first else None,
                "firstReferrerHref": self.pages.of(first)[0][3] or None,
                "browser": person.browser.upper() if person.browser in _BROWSERS else "OTHER",
                "browserIndex": _BROWSERS.get(person.browser, 5),
                "browserVersion": float(major.group()) if major else None,
                "os": person.os.upper() if person.os in _SYSTEMS else "OTHER",
                "osIndex": _SYSTEMS.get(person.os, 5),
                "windowWidth": person.screen_width,
                "windowHeight": max(person.screen_height - 120, 0),
                "screenWidth": person.screen_width,
                "screenHeight": person.screen_height,
                "timeZoneId": self.site.timezone,
                "localeLanguageTag": f"{person.language}-{person.country}",
                "deviceType": person.device.upper(),
                "mappingIdentifier": None,
            },
        )


def _event(at_ms: int, data: Mapping[str, object]) -> dict[str, object]:
    return {"data": data, "itp": False, "time": at_ms}


def _page_events(site: _Site, visit: int, person: _Person) -> list[dict[str, object]]:
    return [
        _event(
            at,
            {
                "href": url,
                "canonicalHref": None,
                "title": title,
                "keyPagesIndices": [None],
                "referrerHref": referrer or None,
                "referrersIndices": [None],
            },
        )
        for at, url, title, referrer in site.pages.of(visit)
    ]


def _conversion_events(site: _Site, visit: int, person: _Person) -> list[dict[str, object]]:
    return [
        _event(at, {"goalId": GOAL_IDS.get(goal, 310000), "revenue": float(revenue), "negative": False})
        for at, goal, revenue in site.conversions.of(visit)
    ]


def _custom_data_events(site: _Site, visit: int, person: _Person) -> list[dict[str, object]]:
    if person.uid is None:
        return []
    data = {
        "index": UID_CUSTOM_DATA_INDEX,
        "valuesCountMap": {person.uid: 1},
        "overwrite": True,
        "mappingIdentifier": True,
    }
    return [_event(int(site.visits.start_ms[visit]) + 2, data)]


def _geolocation_events(site: _Site, visit: int, person: _Person) -> list[dict[str, object]]:
    place = {
        "country": person.country_name,
        "region": person.region,
        "city": person.city or None,
        "postalCode": None,
        "latitude": None,
        "longitude": None,
    }
    return [_event(int(site.visits.start_ms[visit]) + 1, place)]


def _activity_events(site: _Site, visit: int, person: _Person) -> list[dict[str, object]]:
    clicks = site.clicks.of(visit)
    return [_event(int(site.end_ms[visit]), {"clicks": len(clicks)})] if clicks else []


_MEMBERS: Final[Mapping[str, tuple[str, Callable[[_Site, int, _Person], object]]]] = {
    "staticData": ("staticDataEvent", _Site.static_data),
    "page": ("pageEvents", _page_events),
    "conversion": ("conversionEvents", _conversion_events),
    "experiment": (
        "experimentEvents",
        lambda site, visit, person: [
            _event(at, {"id": experiment, "variationId": variation})
            for at, experiment, variation in site.exposures.of(visit)
        ],
    ),
    # No personalization runs on these sites: asked for, the list is there and empty.
    "personalization": ("personalizationEvents", lambda site, visit, person: []),
    "customData": ("customDataEvents", _custom_data_events),
    "geolocation": ("geolocationEvents", _geolocation_events),
    "activity": ("activityEvents", _activity_events),
    "targetingSegment": ("targetingSegmentEvents", lambda site, visit, person: []),
}
_COUNTER_OF: Final = {"view": "v", "add_to_cart": "atcq", "purchase": "bq"}


def _exposed(world: World, site: SiteTruth, views: pd.DataFrame) -> pd.DataFrame:
    """Views at or after the visitor's first exposure to an experiment."""
    exposures = world.exposures.loc[(world.exposures["site_key"] == site.key).to_numpy(bool)]
    first = exposures.groupby("visitor_id")["at_ms"].min()
    # The exposure is noted a moment after the view that caused it.
    since = views["visitor_id"].map(first).to_numpy(float) - 1000
    return views.loc[views["at_ms"].to_numpy(float) >= since].reset_index(drop=True)


def _ends(world: World, site: SiteTruth, visitors: pd.DataFrame, visits: SessionFrame) -> npt.NDArray[np.int64]:
    """`timeLastEvent`: the last view, click, conversion or exposure of the visit."""
    end_ms = visits.last_view_ms.copy()
    for frame in (world.events, world.conversions, world.exposures):
        mine = frame.loc[(frame["site_key"] == site.key).to_numpy(bool)]
        at_ms = mine["at_ms"].to_numpy(np.int64)
        visit = visits.locate(visitor_positions(visitors, mine["visitor_id"].to_numpy(np.int64)), at_ms)
        np.maximum.at(end_ms, visit[visit >= 0], at_ms[visit >= 0])
    return end_ms


# --- limits -----------------------------------------------------------------------------------------------------------


class _Buckets:
    """Token buckets, one an address, method and kind of caller; a full bucket holds one second's worth."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._levels: dict[tuple[str, str, bool], tuple[float, float]] = {}

    def take(self, key: tuple[str, str, bool], per_second: float) -> bool:
        """Take one; False when there is none."""
        now = self._monotonic()
        level, since = self._levels.get(key, (per_second, now))
        level = min(per_second, level + (now - since) * per_second)
        taken = level >= 1.0
        self._levels[key] = (level - 1.0 if taken else level, now)
        return taken


# --- the API ----------------------------------------------------------------------------------------------------------


Handler = Callable[[Request, bytes], object]
"""The parsed answer to a request and its body; `bytes` are sent as they are."""


class _Api:
    """Routes over the sites; one instance serves one port."""

    def __init__(self, world: World, context: ServerContext, profile: Profile) -> None:
        self.profile = profile
        self.now_ms = world.now_ms if profile.now_ms is None else profile.now_ms
        self._context = context
        self._ahead_ms = self.now_ms - world.now_ms
        self.sites = {site.kameleoon_site_code: _Site(world, site, profile) for site in world.sites}
        self.written = {
            code: WrittenSite(
                now_ms=self._written_ms,
                delay_ms=profile.write_delay_ms,
                idle_ms=profile.idle_seconds * 1000,
                truth=site,
                is_bot=self._is_refused_agent,
            )
            for code, site in self.sites.items()
        }
        self._tokens = context.token_store("kameleoon")
        self._buckets = _Buckets(context.monotonic)

    def _written_ms(self) -> int:
        """The present of what is written: the server's, as far ahead as the profile says."""
        return self._context.now_ms() + self._ahead_ms

    def _is_refused_agent(self, agent: str) -> bool:
        return self.profile.check_user_agent and (not agent or _REFUSED_AGENTS.search(agent) is not None)

    def _admit(self, request: Request) -> None:
        """The user agent, the token (a bad one is worse than none), then the limit of that kind of caller."""
        if self._is_refused_agent(request.headers.get("user-agent", "")):
            raise Refusal(403, {"message": "Forbidden"})
        authorization = request.headers.get("authorization")
        if authorization is not None:
            scheme, _, token = authorization.partition(" ")
            if scheme.lower() != "bearer" or not self._tokens.is_valid(token):
                raise Refusal(401, {"message": "Unauthorized"})
        known = authorization is not None
        profile = self.profile
        if request.method in ("GET", "HEAD"):
            method, limit = "GET", profile.gets_per_second if known else profile.anonymous_gets_per_second
        else:
            method, limit = request.method, profile.others_per_second if known else profile.anonymous_others_per_second
        address = request.client.host if request.client else ""
        if not self._buckets.take((address, method, known), limit):
            raise Refusal(429)  # no body and no Retry-After, as in the contract

    def _site(self, request: Request) -> tuple[_Site, WrittenSite]:
        """The site and what was written about it, brought up to date."""
        code = request.query_params.get("siteCode")
        if not code:
            raise _bad("siteCode is required")
        if code not in self.sites:
            raise _bad("unknown siteCode")
        self.written[code].settle()
        return self.sites[code], self.written[code]

    def endpoint(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """An ASGI endpoint: admission, then the handler."""

        async def serve(request: Request) -> Response:
            try:
                self._admit(request)
                return answer(handler(request, await request.body()))
            except Refusal as refusal:
                return refusal.response()

        return serve

    def accepting(self, handler: Handler, most_bytes: int) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint of a POST: 204 once the URL is good, whatever the body holds."""

        def accept(request: Request, body: bytes) -> object:
            if len(body) > most_bytes:
                raise Refusal(413, {"message": "Payload too large"})
            handler(request, body)
            raise Refusal(204)

        return self.endpoint(accept)

    # visits ----------------------------------------------------------------------------------------------------------

    def visitor(self, request: Request, body: bytes) -> object:
        """GET /visit/visitor."""
        site, written = self._site(request)
        query = request.query_params
        text = query.get("maxNumberPreviousVisits", "")
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise _bad("maxNumberPreviousVisits is required")
        if not re.fullmatch(r"[0-9]{0,9}", query.get("version", "")):
            raise _bad("version must be a number")
        limit = min(int(text), _MAX_PREVIOUS)
        wanted = frozenset(flag for flag in _FLAGS if _true(query, flag) or _true(query, "all"))
        visits = self._visits(site, written, query)
        previous = [visit for visit in visits if not visit.is_running]
        running = [visit for visit in visits if visit.is_running]
        answered: dict[str, object] = {}
        if running and self.profile.current_visit_readable and (_true(query, "currentVisit") or _true(query, "all")):
            answered["currentVisit"] = _visit_body(site, running[0], wanted)
        if visits:
            answered["previousVisits"] = [_visit_body(site, visit, wanted) for visit in previous[:limit]]
        # Neither prediction nor bandit runs on these sites: asked for, the scores are there and empty.
        for scores in ("kcs", "cbs"):
            if visits and (_true(query, scores) or _true(query, "all")):
                answered[scores] = {}
        return answered

    def _visits(self, site: _Site, written: WrittenSite, query: Mapping[str, str]) -> list[_Visit]:
        """Visits of the code, or of every code mapped to the identifier, newest first."""
        if query.get("visitorCode"):
            codes = [query["visitorCode"]]
        elif query.get("mappingValue"):
            codes = written.codes_of(query["mappingValue"])
        else:
            raise _bad("visitorCode or mappingValue is required")
        visits = [visit for code in codes for visit in self._visits_of(site, written, code)]
        return sorted(visits, key=lambda visit: visit.start_ms, reverse=True)

    def _visits_of(self, site: _Site, written: WrittenSite, code: str) -> Iterator[_Visit]:
        """Visits of a code, oldest first: those of the truth that nobody went on with, then those written to."""
        idle_ms, longest_ms = self.profile.idle_seconds * 1000, self.profile.longest_visit_seconds * 1000
        stored = written.visits_of(code)
        continued = {visit.continues for visit in stored}
        starts: list[int] = []
        for index in () if written.is_forgotten(code) else site.visits_of(code):
            if index not in continued:
                start_ms, end_ms = int(site.visits.start_ms[index]), int(site.end_ms[index])
                starts.append(start_ms)
                yield _Visit(code, start_ms, end_ms, self.now_ms - end_ms <= idle_ms, index)
        now_ms = self._written_ms()
        for visit in stored:
            since_ms = visit.start_ms - starts[-1] if starts else None
            if visit.last_ms - visit.start_ms <= longest_ms:
                is_running = now_ms - visit.last_ms <= idle_ms
                ends = (visit.start_ms, visit.last_ms)
                yield _Visit(code, *ends, is_running, visit.continues, visit, len(starts), since_ms)
            starts.append(visit.start_ms)

    def post_visit_events(self, request: Request, body: bytes) -> None:
        """POST /visit/events: one visitor named in the URL, or one a line."""
        _, written = self._site(request)
        query = request.query_params
        code, mapping = query.get("visitorCode"), query.get("mappingValue")
        for name, value in (("visitorCode", code), ("mappingValue", mapping)):
            if value is not None and not 0 < len(value) <= MAX_CODE_LENGTH:
                raise _bad(f"{name} has 1 to {MAX_CODE_LENGTH} characters")
        sdk = {"name": query["sdkName"], "version": query.get("sdkVersion", "")} if query.get("sdkName") else None
        agent = None if _switch(query, "bodyUa") else request.headers.get("user-agent", "")
        posted = Posted(visitor_code=code, mapping_value=mapping, sdk=sdk, agent=agent)
        written.post_visit_events(read_events(body, as_json=_switch(query, "json")), posted)

    def forget(self, request: Request, body: bytes) -> None:
        """POST /visit/forget: one visitor code a line."""
        _, written = self._site(request)
        lines = (line.strip() for line in body.decode("utf-8", "replace").splitlines())
        written.forget(line for line in lines if 0 < len(line) <= MAX_CODE_LENGTH)

    # products --------------------------------------------------------------------------------------------------------

    def product_counters(self, request: Request, body: bytes) -> object:
        """GET /product/productCounters: members that are zero are left out (contract B7)."""
        site, written = self._products_of(request)
        begin = _millis(request, "timeBegin", float("-inf"))
        end = _millis(request, "timeEnd", float("inf"))
        counted = {}
        for ean in _keys(request, "eans"):
            counts = site.counters(ean, begin, end)
            for kind, quantity in written.product_events_of(ean, begin, end):
                counts[_COUNTER_OF[kind]] += quantity
            counted[ean] = {name: count for name, count in counts.items() if count}
        return counted

    def product_data(self, request: Request, body: bytes) -> object:
        """GET /product/productData: attributes of the known products."""
        site, written = self._products_of(request)
        told = {ean: {**site.products.get(ean, {}), **written.attributes_of(ean)} for ean in _keys(request, "eans")}
        return {ean: attributes for ean, attributes in told.items() if attributes}

    def post_product_events(self, request: Request, body: bytes) -> None:
        """POST /product/events: one product named in the URL, or one a line."""
        _, written = self._products_of(request)
        ean = request.query_params.get("ean")
        if ean is not None and not 0 < len(ean) <= MAX_CODE_LENGTH:
            raise _bad(f"ean has 1 to {MAX_CODE_LENGTH} characters")
        written.post_product_events(read_events(body, as_json=_switch(request.query_params, "json")), ean)

    def _products_of(self, request: Request) -> tuple[_Site, WrittenSite]:
        if not self.profile.product_addon:
            raise Refusal(403, {"message": "Access to products is restricted"})
        return self._site(request)

    # maps ------------------------------------------------------------------------------------------------------------

    def map(self, request: Request, body: bytes) -> object:
        """GET /map/map: the map itself; `{}` for a key that is not (or no longer) there."""
        key = request.query_params.get("key")
        if not key:
            raise _bad("key is required")
        return self._map(*self._mapped_site(request), key)

    def maps(self, request: Request, body: bytes) -> object:
        """GET /map/maps: the maps of up to 100 keys; keys without one are absent."""
        site, written = self._mapped_site(request)
        found = {key: self._map(site, written, key) for key in _keys(request, "keys", most=_MAX_KEYS)}
        return {key: fields for key, fields in found.items() if fields}

    def post_maps(self, request: Request, body: bytes) -> None:
        """POST /map/maps: a map replaces what its key held."""
        _, written = self._mapped_site(request)
        text = request.query_params.get("ttlHours", "2208")
        if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= _MAX_TTL_HOURS:
            raise _bad(f"ttlHours must be 1 to {_MAX_TTL_HOURS}")
        written.post_maps(body, ttl_hours=int(text))

    def _mapped_site(self, request: Request) -> tuple[_Site, WrittenSite]:
        if not self.profile.maps_allowed:
            raise Refusal(403, {"message": "Access to maps is restricted"})
        return self._site(request)

    @staticmethod
    def _map(site: _Site, written: WrittenSite, key: str) -> Mapping[str, object]:
        """What was written under the key, else what the shop's CRM stored under a login id: orders and revenue."""
        stored = written.map_of(key)
        if stored is not None:
            return stored
        bought = [
            row
            for code in site.codes_of(key)
            if not written.is_forgotten(code)
            for visit in site.visits_of(code)
            for row in site.conversions.of(visit)
        ]
        if not bought:
            return {}
        revenue = round(sum(float(row[2]) for row in bought), 2)
        audience = "frequent_buyer" if len(bought) > 1 else "buyer"
        return {"orders": len(bought), "revenue": revenue, "warehouseAudiences": {audience: 1}}

    # what the vendor's SDK asks first --------------------------------------------------------------------------------

    def configuration(self, request: Request) -> Response:
        """GET /v3/{siteCode}: the SDK configuration, of another host of the vendor: no token, no limit of this one."""
        if request.path_params["site_code"] not in self.sites:
            return answer(b"", status=404)
        modified = datetime.fromtimestamp(self.now_ms // 1000, UTC)
        headers = {"last-modified": format_datetime(modified, usegmt=True)}
        if _is_not_newer(modified, request.headers.get("if-modified-since", "")):
            return answer(b"", status=304, headers=headers)
        told = {
            "configuration": {
                "realTimeUpdate": False,
                "consentType": "OFF",
                "consentOptOutBehavior": "PARTIALLY_BLOCK",
                "dataApiDomain": request.headers.get("host", ""),
            },
            "featureFlags": [],
            "segments": [],
            "customData": [],
            "dateModified": self.now_ms,
        }
        return answer(told, headers=headers)


@dataclass(frozen=True, slots=True)
class _Visit:
    """One visit of a visitor: of the truth (`index`), written (`stored`), or of the truth and gone on with.

    `number` and `since_ms` (after the visit before it) are of written visits; the truth tells of its own.
    """

    code: str
    start_ms: int
    last_ms: int
    is_running: bool
    index: int | None
    stored: StoredVisit | None = None
    number: int = 0
    since_ms: int | None = None


def _visit_body(site: _Site, visit: _Visit, wanted: frozenset[str]) -> dict[str, object]:
    """One visit with the events asked for; arrays not asked for are absent, not empty."""
    body: dict[str, object] = {
        "siteCode": site.site.kameleoon_site_code,
        "visitorCode": visit.code,
        "timeStarted": visit.start_ms,
        "timeLastEvent": visit.last_ms,
    }
    stored = [] if visit.stored is None else visit.stored.events
    for flag in (flag for flag in _FLAGS if flag in wanted):
        member, build = _MEMBERS[flag]
        found = None if visit.index is None else build(site, visit.index, site.people[site.visits.visitor[visit.index]])
        if flag != "staticData":
            written = [event.body() for event in stored if event.flag == flag]
            body[member] = [*found, *written] if isinstance(found, list) else written
        elif visit.stored is not None and visit.stored.device:
            body[member] = _told_static_data(visit, visit.stored, found)
        elif found is not None:
            body[member] = found
    return body


# A visit that nobody told everything about still has a device, browser and system: the official Python client gives up
# on the whole answer when one of them is null (contract B5).
_UNTOLD: Final[Mapping[str, object]] = {
    "firstReferrerHref": None,
    "browser": "OTHER",
    "browserIndex": 5,
    "browserVersion": None,
    "os": "LINUX",
    "osIndex": 3,
    "windowWidth": None,
    "windowHeight": None,
    "screenWidth": None,
    "screenHeight": None,
    "timeZoneId": None,
    "localeLanguageTag": None,
    "deviceType": "DESKTOP",
    "mappingIdentifier": None,
}


def _told_static_data(visit: _Visit, stored: StoredVisit, found: object) -> dict[str, object]:
    """`staticDataEvent` of a written visit: what was told, over what the truth knows of the visit it goes on with."""
    if isinstance(found, dict):
        return _event(found["time"], {**found["data"], **stored.device})
    counted = {"visitNumber": visit.number, "timeSincePreviousVisit": visit.since_ms}
    return _event(stored.device_told_ms, {**counted, **_UNTOLD, **stored.device})


def _is_not_newer(modified: datetime, since: str) -> bool:
    try:
        return modified <= parsedate_to_datetime(since)
    except (ValueError, TypeError):
        return False


def _switch(query: Mapping[str, str], name: str) -> bool:
    """A flag that stands in the URL and must be one."""
    text = query.get(name, "false").lower()
    if text not in ("true", "false"):
        raise _bad(f"{name} must be true or false")
    return text == "true"


def _true(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, "false").lower() == "true"


def _keys(request: Request, name: str, *, most: int | None = None) -> list[str]:
    """A query parameter that is a JSON array of strings (contract B7, B8)."""
    try:
        keys = msgspec.json.decode(request.query_params.get(name, ""))
    except msgspec.DecodeError:
        raise _bad(f"{name} must be a JSON array") from None
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise _bad(f"{name} must be a JSON array of strings")
    if most is not None and len(keys) > most:
        raise _bad(f"{name} holds at most {most} keys")
    return keys


def _millis(request: Request, name: str, default: float) -> float:
    text = request.query_params.get(name, "")
    if text and not re.fullmatch(r"[0-9]{1,15}", text):
        raise _bad(f"{name} must be epoch milliseconds")
    return float(text) if text else default


def build_app(world: World, context: ServerContext, **profile: Any) -> Starlette:
    """Kameleoon's Data API over this world; `profile` are fields of `Profile`. Tokens come from `context`'s store."""
    api = _Api(world, context, Profile(**profile))
    gets = (
        ("/visit/visitor", api.visitor),
        ("/product/productCounters", api.product_counters),
        ("/product/productData", api.product_data),
        ("/map/map", api.map),
        ("/map/maps", api.maps),
    )
    posts = (
        ("/visit/events", api.post_visit_events, api.profile.most_event_bytes),
        ("/visit/forget", api.forget, api.profile.most_forget_bytes),
        ("/product/events", api.post_product_events, api.profile.most_event_bytes),
        ("/map/maps", api.post_maps, api.profile.most_map_bytes),
    )
    routes = [Route(path, api.endpoint(handler), methods=["GET"]) for path, handler in gets]
    routes += [Route(path, api.accepting(handler, most), methods=["POST"]) for path, handler, most in posts]
    return Starlette(routes=[*routes, Route("/v3/{site_code}", api.configuration, methods=["GET"])])
