"""Inspectlet as the sandbox plays it: session recordings over a searchable, unordered-total list of at most 100.

Belongs here: what Inspectlet would have recorded of the truth (`_Website`) and the REST API over it. Does not belong
here: the truth, faults and the request log (`wire`), anything a client would share.

Sources: vendor_docs/inspectlet.txt (endpoints, parameters, fields); contracts/inspectlet §2.1 (envelope, form field
with JSON inside), §2.3 (traps: units, escapes, unsorted tags); MARTS §5.5 (30 minutes idle, 24 hours, 5 % block it).
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from analytics_platform.sandbox.observe import (
    Refusal,
    answer,
    fault_kind,
    form_fields,
    identifier,
    records,
    repeated,
    stable_fraction,
    visitor_positions,
)
from analytics_platform.sandbox.recording import TagRule, owners, record
from analytics_platform.sandbox.truth import SiteTruth, World
from analytics_platform.sandbox.wire import ServerContext

__all__ = ["Profile", "build_app", "session_owners", "tag_rule"]

_MAX_PAGE: Final = 100
_WINDOWS_SECONDS: Final[Mapping[str, int]] = {"week": 7 * 86_400, "30days": 30 * 86_400}
_SEARCH_HOSTS: Final = ("google.", "bing.", "duckduckgo.", "yahoo.", "ecosia.")
_SOCIAL_HOSTS: Final = (
    "facebook.",
    "instagram.",
    "linkedin.",
    "reddit.",
    "t.co",
    "twitter.",
    "x.com",
    "news.ycombinator.",
)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Knobs of this observer.

    Attributes:
        envelope: `sessions` answers a search with `{"response": {"sessions": […]}}` (two public clients), `bare` with
            `{"response": […]}` (the vendor's document).
        single_envelope: how one session is answered: `list` of one (the document's sample), `object` (its text),
            `session` or `sessions` (as public clients read the search).
        has_page_size: sessions carry `page_width` and `page_height`, documented and absent in the samples.
        idle_seconds, cap_seconds: the session rule.
        block_share: share of visitors whose blocker knows Inspectlet.
        recordings_per_day: plan cap of a local day, None for none.
        range_matches: `start`: a custom range matches sessions that start in it; `overlap`: that touch it. Both ends
            are inclusive.
        over_limit: `clamp` treats a limit above 100 as 100, `refuse` answers 400 (unknown of the vendor).
        requests_per_minute: None for no limit (the vendor names none).
    """

    envelope: str = "sessions"
    single_envelope: str = "list"
    has_page_size: bool = False
    idle_seconds: int = 1800
    cap_seconds: int = 86_400
    block_share: float = 0.05
    recordings_per_day: int | None = None
    range_matches: str = "start"
    over_limit: str = "clamp"
    requests_per_minute: int | None = None


def tag_rule(profile: Profile) -> TagRule:
    """How this observer records, for `record`."""
    return TagRule(
        vendor="inspectlet",
        idle_seconds=profile.idle_seconds,
        cap_seconds=profile.cap_seconds,
        block_share=profile.block_share,
        recordings_per_day=profile.recordings_per_day,
    )


def session_owners(world: World, site: SiteTruth, profile: Profile) -> pd.DataFrame:
    """Whose each recording is, for scoring: vendor_session_id ("wid-sid"), visitor_id (the truth's), start_ms,
    last_view_ms.
    """
    held = record(world, site, tag_rule(profile))
    sids = _unique_sids(site.key, held.sessions.visitor.tolist(), held.sessions.start_ms.tolist())
    return owners(held, [f"{site.wid}-{sid}" for sid in sids])


def _refuse(status: int, message: str) -> Refusal:
    return Refusal(status, {"error": message})


def _escaped(body: object) -> bytes:
    """JSON as PHP writes it: every slash escaped (contract §2.2). A slash occurs inside strings only."""
    return msgspec.json.encode(body).replace(b"/", b"\\/")


# --- what Inspectlet recorded -----------------------------------------------------------------------------------------

_PERSON_COLUMNS: Final = (
    "visitor_id", "email", "display_name", "kameleoon_code", "ip", "browser", "os", "user_agent", "country", "device",
    "first_seen_at_ms", "screen_width", "screen_height",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Person:
    visitor_id: int
    email: str | None
    display_name: str | None
    kameleoon_code: str
    ip: str
    browser: str
    os: str
    user_agent: str
    country: str
    device: str
    first_seen_at_ms: int
    screen_width: int
    screen_height: int


class _Website:
    """One site's recordings, framed once: arrays and lists for filters, bodies encoded for answers."""

    def __init__(self, world: World, site: SiteTruth, profile: Profile) -> None:
        self.site = site
        self.profile = profile
        held = record(world, site, tag_rule(profile))
        visitors, sessions = held.visitors, held.sessions
        self.sessions = sessions
        self.end_ms = sessions.last_view_ms.copy()
        _extend_by_events(world, site, visitors, self)
        self.in_seconds = world.in_story("unit_change", site.key, sessions.start_ms)
        self.people: list[_Person] = [_Person(*row) for row in records(visitors, _PERSON_COLUMNS)]
        self.tags = self._tags(world, visitors)
        self._frame()

    def _tags(self, world: World, visitors: pd.DataFrame) -> list[list[dict[str, object]]]:
        """Tags of each session: conversions first, then who it is (the vendor's sample is out of order too)."""
        tags: list[list[dict[str, object]]] = [[] for _ in range(len(self.sessions))]
        done = world.conversions
        done = done.loc[(done["site_key"] == self.site.key).to_numpy(bool)]
        at_ms = done["at_ms"].to_numpy(np.int64)
        position = visitor_positions(visitors, done["visitor_id"].to_numpy(np.int64))
        for session, at, goal in zip(
            self.sessions.locate(position, at_ms).tolist(), at_ms.tolist(), done["goal"].tolist(), strict=True
        ):
            if session >= 0:
                tags[session].append({"tag": f"converted-{goal}", "value": "1", "timestamp": at // 1000})
        for session, visitor in enumerate(self.sessions.visitor.tolist()):
            person = self.people[visitor]
            began = int(self.sessions.start_ms[session]) // 1000
            if person.email is not None:
                tags[session].append({"tag": "email", "value": person.email, "timestamp": began + 2})
            code = {"tag": "kameleoon_visitor_code", "value": person.kameleoon_code, "timestamp": began + 1}
            tags[session].append(code)
        return tags

    def _frame(self) -> None:
        sessions = self.sessions
        views = records(sessions.views, ("view_id", "at_ms", "title", "url", "referrer"))
        self.start_s = sessions.start_ms // 1000
        self.end_s = self.end_ms // 1000
        # The recorder stops a moment before the last beacon: duration is a little less than end - start (trap 1).
        span_ms = self.end_ms - sessions.start_ms
        lag = stable_fraction(sessions.start_ms ^ (sessions.visitor << 20), salt=21)
        self.duration_ms = span_ms - np.minimum(lag * 2500, span_ms * 0.2).astype(np.int64)
        first = np.ones(len(sessions), dtype=bool)
        first[1:] = sessions.visitor[1:] != sessions.visitor[:-1]
        before = np.array([person.first_seen_at_ms for person in self.people], dtype=np.int64)
        self.is_new = first & (before[sessions.visitor] >= sessions.start_ms) if len(sessions) else first
        self.starred = stable_fraction(sessions.start_ms + sessions.visitor, salt=22) < 0.01
        self.page_counts = np.diff(sessions.bounds)
        self.sids = _unique_sids(self.site.key, sessions.visitor.tolist(), sessions.start_ms.tolist())
        bounds = sessions.bounds.tolist()
        self.pages = [views[bounds[i] : bounds[i + 1]] for i in range(len(sessions))]
        self.bodies = [msgspec.Raw(_escaped(self._body(i))) for i in range(len(sessions))]
        self.by_sid = {sid: i for i, sid in enumerate(self.sids)}
        # Newest first; equal seconds by sid, so that the order is total and pages never disagree about it.
        self.newest_first = np.lexsort((np.array(self.sids, dtype=np.int64), -self.start_s))

    def source(self, index: int) -> str:
        """The one-letter code of where the session came from."""
        return _source(self.pages[index][0][4], self.site.hostname)

    def _body(self, index: int) -> dict[str, object]:
        sid, pages = self.sids[index], self.pages[index]
        person = self.people[self.sessions.visitor[index]]
        duration_ms = int(self.duration_ms[index])
        key = identifier("watch", self.site.key, sid, length=40)
        size = {"page_width": person.screen_width, "page_height": person.screen_height}
        return {
            "sid": sid,
            "wid": self.site.wid,
            "date_start_session": int(self.start_s[index]),
            "date_end_session": int(self.end_s[index]),
            "session_duration": duration_ms // 1000 if self.in_seconds[index] else duration_ms,
            "num_pages": len(pages),
            "uid": _uid(self.site.key, person.visitor_id),
            "ip": person.ip,
            "browser": _browser(person),
            "referrer": {"source": self.source(index)},
            **(size if self.profile.has_page_size else {}),
            "useragent": person.user_agent,
            "new_visitor": bool(self.is_new[index]),
            "starred": bool(self.starred[index]),
            "country": person.country,
            "landing_page": pages[0][3],
            "exit_page": pages[-1][3],
            "device_type": _device(person),
            "display_name": person.display_name or "",
            "sessionlink": f"http://www.inspectlet.com/dashboard/watchsession/{self.site.wid}/{sid}"
            f"?pn=1&accessResourceKey={key}",
            "tags": self.tags[index],
            "pages": [
                {"rid": 2_000_000_000 + view_id, "opened_at": at // 1000, "pagetitle": title, "url": url}
                for view_id, at, title, url, _ in pages
            ],
        }


def _extend_by_events(world: World, site: SiteTruth, visitors: pd.DataFrame, website: _Website) -> None:
    """The last activity may be a click after the last page view."""
    events = world.events
    events = events.loc[(events["site_key"] == site.key).to_numpy(bool)]
    at_ms = events["at_ms"].to_numpy(np.int64)
    position = visitor_positions(visitors, events["visitor_id"].to_numpy(np.int64))
    located = website.sessions.locate(position, at_ms)
    np.maximum.at(website.end_ms, located[located >= 0], at_ms[located >= 0])


def _unique_sids(site_key: str, visitors: Sequence[int], starts: Sequence[int]) -> list[int]:
    """Session ids beyond 2^31, as real ones are (trap 13), and never twice."""
    taken: set[int] = set()
    sids = []
    for visitor, start in zip(visitors, starts, strict=True):
        salt = 0
        sid = 2**31 + int(identifier("sid", site_key, visitor, start, length=9), 16) % 2**33
        while sid in taken:
            salt += 1
            sid = 2**31 + int(identifier("sid", site_key, visitor, start, salt, length=9), 16) % 2**33
        taken.add(sid)
        sids.append(sid)
    return sids


def _uid(site_key: str, visitor_id: int) -> int:
    # Unique because visitor ids are; near 2^31 as the vendor's own sample is.
    return 2_090_000_000 + visitor_id


def _browser(person: _Person) -> str:
    """The vendor's list: chrome/firefox/safari/mobile safari/chrome mobile (ios)/ie/android/opera/other."""
    if person.browser == "Chrome":
        return {"iOS": "chrome mobile (ios)", "Android": "android"}.get(person.os, "chrome")
    if person.browser == "Safari":
        return "mobile safari" if person.os == "iOS" else "safari"
    return {"Firefox": "firefox", "IE": "ie", "Opera": "opera"}.get(person.browser, "other")


def _device(person: _Person) -> str:
    """There is no tablet at Inspectlet: what is not a desktop is a phone."""
    return "desktop" if person.device == "desktop" else "phone"


def _source(referrer: str, own_host: str) -> str:
    """The undocumented one-letter code: d is direct (sample); s search, m social and r referral are a guess."""
    host = (urlsplit(referrer).hostname or "").removeprefix("www.")
    if host in ("", own_host.removeprefix("www.")):  # a session that begins in the middle of a visit came from nowhere
        return "d"
    if any(host.startswith(name) or f".{name}" in f".{host}" for name in _SEARCH_HOSTS):
        return "s"
    return "m" if any(host.startswith(name) for name in _SOCIAL_HOSTS) else "r"


# --- search -----------------------------------------------------------------------------------------------------------

_Test = Callable[[_Website, int], bool]


def _unset(value: object) -> bool:
    """What the vendor's own search form sends for "no condition" (contract §2.1)."""
    return value is None or value in ("", "all", "unlimited")


def _number(value: object, name: str) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise _refuse(400, f"{name} must be a number") from None


def _object(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _refuse(400, f"{name} must be an object")
    return value


def _dates(site: _Website, search: Mapping[str, Any], profile: Profile, now_s: int) -> npt.NDArray[np.int64]:
    """Sessions of the date range, newest first."""
    chosen = site.newest_first
    kind = search.get("daterange")
    if _unset(kind):
        return chosen
    if kind in _WINDOWS_SECONDS:
        return chosen[site.start_s[chosen] >= now_s - _WINDOWS_SECONDS[str(kind)]]
    if kind != "custom":
        raise _refuse(400, "daterange must be one of 30days, week, custom")
    custom = _object(search.get("daterangecustom"), "daterangecustom")
    low = -np.inf if _unset(custom.get("start")) else _number(custom["start"], "daterangecustom.start")
    high = np.inf if _unset(custom.get("end")) else _number(custom["end"], "daterangecustom.end")
    later_than = site.start_s if profile.range_matches == "start" else site.end_s
    return chosen[(later_than[chosen] >= low) & (site.start_s[chosen] <= high)]


def _equals(read: Callable[[_Website, int], object]) -> Callable[[object], _Test]:
    return lambda wanted: lambda site, i: read(site, i) == wanted


def _at_least(read: Callable[[_Website, int], float], name: str) -> Callable[[object], _Test]:
    def build(value: object) -> _Test:
        bound = _number(value, name)
        return lambda site, i: read(site, i) >= bound

    return build


def _at_most(read: Callable[[_Website, int], float], name: str) -> Callable[[object], _Test]:
    def build(value: object) -> _Test:
        bound = _number(value, name)
        return lambda site, i: read(site, i) <= bound

    return build


def _new_or_old(value: object) -> _Test:
    wanted = _object(value, "newold")
    new, old = bool(wanted.get("new", False)), bool(wanted.get("old", False))
    return lambda site, i: new if site.is_new[i] else old


def _starred(value: object) -> _Test:
    return (lambda site, i: bool(site.starred[i])) if value in (True, "true", "1", 1) else (lambda site, i: True)


def _tagged(value: object) -> _Test:
    """Tags by name (or the part before a dash: `converted` finds `converted-purchase`, as in the sample) and value."""
    wanted = _object(value, "tags")
    listed = wanted.get("tagslist", [])
    if not isinstance(listed, list) or not all(isinstance(item, dict) and "tag" in item for item in listed):
        raise _refuse(400, "tags.tagslist must be an array of tag objects")
    if wanted.get("operator", "and") not in ("and", "or"):
        raise _refuse(400, "tags.operator must be and or or")
    combine = any if wanted.get("operator", "and") == "or" else all
    pairs = [(str(item["tag"]), _tag_value(item.get("value"))) for item in listed if item["tag"] != ""]
    if not pairs:
        return lambda site, i: True
    return lambda site, i: combine(_has_tag(site.tags[i], name, text) for name, text in pairs)


def _tag_value(value: object) -> str | None:
    if value is None or value == "":
        return None
    return "1" if value is True else "0" if value is False else str(value)


def _has_tag(tags: Sequence[Mapping[str, object]], name: str, value: str | None) -> bool:
    return any(
        (tag["tag"] == name or str(tag["tag"]).startswith(f"{name}-")) and value in (None, tag["value"]) for tag in tags
    )


def _bare_url(url: str) -> str:
    """URLs are compared without their scheme (contract §2.3, trap 12)."""
    return re.sub(r"^[a-z]+://", "", url)


def _url_matcher(operator: str, fragment: str) -> Callable[[str], bool]:
    if operator == "patternmatch":
        parts = [re.escape(part) for part in fragment.split("*")]
        pattern = re.compile(".*".join(parts))
        return lambda url: pattern.search(url) is not None
    plain = operator.removeprefix("not")
    tests: dict[str, Callable[[str], bool]] = {
        "is": lambda url: url == fragment,
        "beginswith": lambda url: url.startswith(fragment),
        "contains": lambda url: fragment in url,
    }
    if plain not in tests:
        raise _refuse(400, "unknown url operator")
    return tests[plain]


def _on_urls(pick: Callable[[Sequence[str]], Sequence[str]]) -> Callable[[object], _Test]:
    def build(value: object) -> _Test:
        wanted = _object(value, "page")
        fragment = _bare_url(str(wanted.get("url", wanted.get("conditionval", ""))))
        operator = str(wanted.get("operator", "is"))
        matches = _url_matcher(operator, fragment)
        negative = operator.startswith("not")
        if not fragment:
            return lambda site, i: True
        return lambda site, i: (
            any(matches(_bare_url(url)) for url in pick([page[3] for page in site.pages[i]])) != negative
        )

    return build


def _traffic(value: object) -> _Test:
    """By the one-letter code, or by a part of the referrer (the values are undocumented, trap 17)."""
    if isinstance(value, dict):
        kind, keyword = value.get("kind", "all"), str(value.get("keyword", ""))
    else:
        kind, keyword = value, ""
    if _unset(kind):
        return lambda site, i: keyword in site.pages[i][0][4]
    if len(str(kind)) == 1:
        return lambda site, i: site.source(i) == kind and keyword in site.pages[i][0][4]
    return lambda site, i: str(kind) in site.pages[i][0][4] and keyword in site.pages[i][0][4]


def _person(site: _Website, index: int) -> _Person:
    return site.people[int(site.sessions.visitor[index])]


_CONDITIONS: Final[Mapping[str, Callable[[object], _Test]]] = {
    "displayname": _equals(lambda site, i: _person(site, i).display_name),
    "country": _equals(lambda site, i: _person(site, i).country),
    "ipaddress": _equals(lambda site, i: _person(site, i).ip),
    "browser": _equals(lambda site, i: _browser(_person(site, i))),
    "devices": _equals(lambda site, i: _device(_person(site, i))),
    "newold": _new_or_old,
    "tags": _tagged,
    "showstarredonly": _starred,
    # "Session length" counts pages, "session time" counts seconds (trap 2).
    "seslength_start": _at_least(lambda site, i: int(site.page_counts[i]), "seslength_start"),
    "seslength_end": _at_most(lambda site, i: int(site.page_counts[i]), "seslength_end"),
    "sestime_start": _at_least(lambda site, i: float(site.duration_ms[i]) / 1000, "sestime_start"),
    "sestime_end": _at_most(lambda site, i: float(site.duration_ms[i]) / 1000, "sestime_end"),
    "startpage": _on_urls(lambda urls: urls[:1]),
    "visitedpage": _on_urls(lambda urls: urls),
    "exitpage": _on_urls(lambda urls: urls[-1:]),
    "trafficsource": _traffic,
}


def _search(site: _Website, search: Mapping[str, Any], profile: Profile, now_s: int) -> npt.NDArray[np.int64]:
    chosen = _dates(site, search, profile, now_s)
    for name, value in search.items():
        if name in _CONDITIONS and not _unset(value):
            test = _CONDITIONS[name](value)
            chosen = np.array([i for i in chosen.tolist() if test(site, i)], dtype=np.int64)
    return chosen


# --- the API ----------------------------------------------------------------------------------------------------------


class _Api:
    """Routes over the websites; one instance serves one port."""

    def __init__(self, world: World, context: ServerContext, profile: Profile) -> None:
        self.profile = profile
        self._credentials = (context.credentials.inspectlet_username, context.credentials.inspectlet_api_token)
        self.now_s = world.now_ms // 1000
        self.websites = {site.wid: _Website(world, site, profile) for site in world.sites}
        self.added_s = {site.wid: self.now_s - (400 + 37 * n) * 86_400 for n, site in enumerate(world.sites)}
        self._monotonic = context.monotonic
        self._recent: list[float] = []

    def _admit(self, request: Request) -> None:
        """401 unless the Basic credentials are right, 429 when the profile's minute is full."""
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        try:
            decoded = b64decode(encoded, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            decoded = ""
        # The name may hold a colon (an e-mail can), the token cannot: split at the last one.
        name, _, token = decoded.rpartition(":")
        if scheme.lower() != "basic" or (name, token) != self._credentials:
            raise _refuse(401, "Your API token is invalid or you don't have access to that resource.")
        if self.profile.requests_per_minute is not None:
            now = self._monotonic()
            self._recent = [sent for sent in self._recent if sent > now - 60]
            if len(self._recent) >= self.profile.requests_per_minute:
                raise _refuse(429, "Your API token is being rate-limited due to too many requests.")
            self._recent.append(now)

    def _website(self, request: Request) -> _Website:
        site = self.websites.get(int(request.path_params["wid"]))
        if site is None:
            # The vendor does not say "not found": somebody else's wid and no wid look the same.
            raise _refuse(401, "Your API token is invalid or you don't have access to that resource.")
        return site

    async def list_websites(self, request: Request) -> Response:
        """GET /v1/websites."""
        try:
            self._admit(request)
        except Refusal as refusal:
            return refusal.response()
        listed = [
            {"wid": wid, "site_name": website.site.hostname, "date_added": self.added_s[wid]}
            for wid, website in self.websites.items()
        ]
        return answer(_escaped({"response": listed}))

    async def search(self, request: Request) -> Response:
        """POST /v1/websites/<wid>/sessions."""
        try:
            self._admit(request)
            site = self._website(request)
            fields = await _fields(request)
            chosen = _search(site, _search_object(fields.get("search")), self.profile, self.now_s)
            limit, page = self._limit(fields), _whole(fields.get("page"), "page", 1)
        except Refusal as refusal:
            return refusal.response()
        fault = fault_kind(request)
        if fault == "cursor_loop":
            page = 1
        rows = [] if fault == "empty_pages" else chosen[(page - 1) * limit : page * limit].tolist()
        listed = repeated([site.bodies[i] for i in rows], fault)
        wrapped = {"sessions": listed} if self.profile.envelope == "sessions" else listed
        return answer({"response": wrapped})

    def _limit(self, fields: Mapping[str, object]) -> int:
        limit = _whole(fields.get("limit"), "limit", 10)
        if limit > _MAX_PAGE and self.profile.over_limit == "refuse":
            raise _refuse(400, "A maximum of 100 sessions can be returned at once.")
        return min(limit, _MAX_PAGE)

    async def session(self, request: Request) -> Response:
        """GET /v1/websites/<wid>/sessions/<sid>: an array of one, though the text says an object (trap 5); the profile
        has the other shapes.
        """
        try:
            self._admit(request)
            site = self._website(request)
            index = site.by_sid.get(int(request.path_params["sid"]))
            if index is None:
                raise _refuse(400, "Your request could not be completed.")
        except Refusal as refusal:
            return refusal.response()
        one = site.bodies[index]
        shapes = {"list": [one], "object": one, "session": {"session": one}, "sessions": {"sessions": [one]}}
        return answer({"response": shapes[self.profile.single_envelope]})


async def _fields(request: Request) -> Mapping[str, object]:
    """limit, page and search of a form or (one public client sends that) a JSON body; the query counts as well."""
    fields: dict[str, object] = dict(request.query_params)
    if request.headers.get("content-type", "").startswith("application/json"):
        text = await request.body()
        try:
            body = msgspec.json.decode(text) if text else {}
        except msgspec.DecodeError:
            raise _refuse(400, "body must be JSON") from None
        fields |= _object(body, "body")
    else:
        fields |= form_fields(await request.body())
    return fields


def _search_object(value: object) -> Mapping[str, Any]:
    """`search` is JSON inside a string (contract §2.1); empty or absent means the most recent sessions."""
    if isinstance(value, dict):
        return value
    if value is None or value == "":
        return {}
    try:
        decoded = msgspec.json.decode(str(value))
    except msgspec.DecodeError:
        raise _refuse(400, "search must be JSON") from None
    return _object(decoded, "search")


def _whole(value: object, name: str, default: int) -> int:
    if value is None or value == "":
        return default
    if not re.fullmatch(r"[0-9]{1,9}", str(value)) or int(str(value)) < 1:
        raise _refuse(400, f"{name} must be a positive integer")
    return int(str(value))


def build_app(world: World, context: ServerContext, **profile: Any) -> Starlette:
    """Inspectlet's API over this world; `profile` are fields of `Profile`."""
    api = _Api(world, context, Profile(**profile))
    return Starlette(
        routes=[
            Route("/v1/websites", api.list_websites, methods=["GET"]),
            Route("/v1/websites/{wid:int}/sessions", api.search, methods=["POST"]),
            Route("/v1/websites/{wid:int}/sessions/{sid:int}", api.session, methods=["GET"]),
        ]
    )
