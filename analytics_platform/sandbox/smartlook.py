"""Smartlook as the sandbox plays it: session recordings of consenting people, behind a cursor and an hourly limit.

Belongs here: what Smartlook would have recorded of the truth (`_Project`), what deletes leave of it, and the REST API
over it. Does not belong here: the truth, faults and the request log (`wire`), what is written and is no recording
(`smartlook_writes`), anything a client would share.

Sources: contracts/smartlook §1.1 (operations, fields), §1.2 (search bodies), §1.3-1.4 (cursors, limits, traps);
vendor_docs/smartlook.txt; MARTS §5.5 (what it sees: sessions end after 15 minutes idle or 60 minutes, visits without
any activity are lost, 3 % block it, and a plan cap records only the first N sessions of a day).
"""

from __future__ import annotations

import math
import re
from base64 import b64encode
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any, Final
from urllib.parse import quote, urlsplit

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from analytics_platform.sandbox.observe import (
    DAY_MS,
    Refusal,
    SessionFrame,
    answer,
    fault_kind,
    groups,
    identifier,
    iso_millis,
    parse_day,
    records,
    repeated,
    utc_days,
    visitor_positions,
)
from analytics_platform.sandbox.recording import TagRule, owners, record
from analytics_platform.sandbox.smartlook_writes import MappingFiles, Webhooks
from analytics_platform.sandbox.truth import SiteTruth, World
from analytics_platform.sandbox.wire import ServerContext

__all__ = ["PLAN_LIMITS", "Profile", "build_app", "session_owners", "tag_rule"]

PLAN_LIMITS: Final[Mapping[str, int]] = {"free": 20, "paid": 100, "addon": 1000}
"""Requests in any 60 minutes, by plan (vendor document, Request limits)."""

_HOUR_SECONDS: Final = 3600.0
_CATEGORIES: Final[Mapping[str, str]] = {
    "url": "Visited URL",
    "click": "Clicks",
    "rage_click": "Rage clicks",
    "error": "Errors",
    "custom": "Custom events",
}
_EVENT_TYPES: Final = frozenset({"click", "url", "error", "rage_click", "custom", "focus", "text"})
_INTERVALS_MS: Final[Mapping[str, int]] = {"hour": 3_600_000, "day": DAY_MS, "week": 7 * DAY_MS}


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Knobs of this observer.

    Attributes:
        plan: free | paid | addon, sets the hourly limit; `hourly_limit` overrides it.
        hourly_limit: requests in any 60 minutes and project.
        plan_changes_after_seconds, plan_after: when the limit becomes another plan's, counted from the start.
        retry_after_header: name of the header of a 429 (public clients read `X-RetryAfter`); "" sends none.
        idle_seconds, cap_seconds: the session rule.
        block_share: share of visitors whose blocker knows Smartlook.
        quiet_share: share of the one-page visits without a click or other event that had no activity at all, hence no
            recording (a mouse that moved is no event of the truth).
        cursor_seconds: life of a cursor.
        last_page_link: how the end of a list looks: absent | null | empty (the contract does not say).
        session_properties: `identification.properties` of a session as an object or as an array of name and value.
        default_limit: page length of GET lists without a `limit`.
        delete_visitor_answer: a deleted visitor is answered `counted` (`deletedItems`) or `empty` (204).
    """

    plan: str = "addon"
    hourly_limit: int | None = None
    plan_changes_after_seconds: float = math.inf
    plan_after: str = "free"
    retry_after_header: str = "X-RetryAfter"
    idle_seconds: int = 900
    cap_seconds: int = 3600
    block_share: float = 0.03
    quiet_share: float = 0.12
    cursor_seconds: float = 600.0
    last_page_link: str = "absent"
    session_properties: str = "object"
    default_limit: int = 10
    delete_visitor_answer: str = "counted"

    @property
    def limit(self) -> int:
        """Requests in any 60 minutes."""
        return PLAN_LIMITS[self.plan] if self.hourly_limit is None else self.hourly_limit


def tag_rule(profile: Profile) -> TagRule:
    """How this observer records, for `record`."""
    return TagRule(
        vendor="smartlook",
        idle_seconds=profile.idle_seconds,
        cap_seconds=profile.cap_seconds,
        block_share=profile.block_share,
        quiet_share=profile.quiet_share,
    )


def session_owners(world: World, site: SiteTruth, profile: Profile) -> pd.DataFrame:
    """Whose each recording is, for scoring: vendor_session_id, visitor_id (the truth's), start_ms, last_view_ms."""
    held = record(world, site, tag_rule(profile))
    return owners(held, _names(site, held.visitors, held.sessions)[1])


def _names(site: SiteTruth, visitors: pd.DataFrame, sessions: SessionFrame) -> tuple[list[str], list[str]]:
    """The ids of the visitors and of the sessions."""
    people = [identifier("visitor", site.key, number) for number in visitors["visitor_id"].tolist()]
    named = [
        identifier("session", site.key, people[visitor], start)
        for visitor, start in zip(sessions.visitor.tolist(), sessions.start_ms.tolist(), strict=True)
    ]
    return people, named


def _refuse(status: int, error: str, message: str, **extra: object) -> Refusal:
    return Refusal(status, {"error": error, "message": message, **extra})


def _bad(message: str) -> Refusal:
    return _refuse(400, "Bad Request", message)


# --- what Smartlook recorded ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Definition:
    """An event as defined in the dashboard; its occurrences are the rows of `_Project.events` with its code."""

    id: str
    name: str
    kind: str


class _Project:
    """One site's recordings, framed once: arrays for filters, bodies encoded for answers."""

    def __init__(self, world: World, site: SiteTruth, profile: Profile) -> None:
        self.site = site
        self.profile = profile
        self.now_ms = world.now_ms
        held = record(world, site, tag_rule(profile))
        events = _raw_events(world, site, held.visitors)
        self.visitors = held.visitors
        self.sessions = held.sessions
        self.webhooks = Webhooks(site.key)
        self.mapping_files = MappingFiles(site.key)
        self._raw = events
        self._named: list[tuple[str, str]] | None = None
        self._frame_events()
        self._frame_sessions()
        self._frame_visitors()

    # deletes ---------------------------------------------------------------------------------------------------------

    def forget_visitors(self, gone: Collection[int]) -> None:
        """They were never recorded: their sessions, and with them their events, are in no answer from now on."""
        forgotten = np.array(sorted(gone), dtype=np.int64)
        self.sessions = self.sessions.keep(~np.isin(self.sessions.visitor, forgotten))
        self._frame_events()
        self._frame_sessions()
        self._frame_visitors()

    def delete_event(self, code: int) -> None:
        """The definition and its occurrences are gone; sessions stay as long as they were."""
        gone = self.definitions[code]
        self._named = [pair for pair in self._named or () if pair != (gone.kind, gone.name)]
        self._frame_events()

    # events ----------------------------------------------------------------------------------------------------------

    def _frame_events(self) -> None:
        """Occurrences inside recorded sessions: those of the truth, and one `url` event a page view."""
        views = self.sessions.views
        counts = np.diff(self.sessions.bounds)
        visited = pd.DataFrame(
            {
                "source_id": views["view_id"].to_numpy(np.int64),
                "visitor": np.repeat(self.sessions.visitor, counts),
                "at_ms": views["at_ms"].to_numpy(np.int64),
                "name": _CATEGORIES["url"],
                "kind": "url",
                "value": "",
                "url": views["url"].to_numpy(object),
                "meta": "{}",
                "duration_seconds": 0.0,
                "session": np.repeat(np.arange(len(self.sessions)), counts),
            }
        )
        raw = self._raw
        visitor, at_ms = raw["visitor"].to_numpy(np.int64), raw["at_ms"].to_numpy(np.int64)
        raw = raw.assign(session=self.sessions.locate(visitor, at_ms))
        parts = [part for part in (visited, raw[raw["session"] >= 0]) if len(part)]
        events = pd.concat(parts, ignore_index=True) if parts else visited
        events = events.sort_values(["visitor", "at_ms", "kind", "source_id"], kind="stable").reset_index(drop=True)
        self.end_ms = self.sessions.last_view_ms.copy()
        np.maximum.at(self.end_ms, events["session"].to_numpy(np.int64), events["at_ms"].to_numpy(np.int64))
        pairs = list(zip(events["kind"].tolist(), events["name"].tolist(), strict=True))
        if self._named is None:
            # Definitions are of the dashboard: they stay when the last person who did one is forgotten.
            self._named = sorted(set(pairs))
        named = self._named
        self.definitions = [
            _Definition(identifier("event", self.site.key, kind, name), name, kind) for kind, name in named
        ]
        self.definition_by_id = {definition.id: code for code, definition in enumerate(self.definitions)}
        codes = {pair: code for code, pair in enumerate(named)}
        code = np.array([codes.get(pair, -1) for pair in pairs], dtype=np.int64)
        self.events = events.loc[code >= 0].reset_index(drop=True)
        self.event_code = code[code >= 0]
        events = self.events
        self.event_visitor = events["visitor"].to_numpy(np.int64)
        self.event_session = events["session"].to_numpy(np.int64)
        self.event_ms = events["at_ms"].to_numpy(np.int64)
        self.event_bounds = groups(self.event_visitor, len(self.visitors))
        for cached in ("_event_rows", "funnels", "referrers"):
            self.__dict__.pop(cached, None)

    # sessions --------------------------------------------------------------------------------------------------------

    def _frame_sessions(self) -> None:
        sessions = self.sessions
        self.start_day = utc_days(sessions.start_ms)
        # Numbers as the vendor would show them: whole seconds.
        self.duration_seconds = (self.end_ms - sessions.start_ms + 500) // 1000
        self.people: list[tuple[Any, ...]] = records(self.visitors, _PERSON_COLUMNS)
        self.visitor_ids, self.session_ids = _names(self.site, self.visitors, sessions)
        self.visitor_by_id = {text: position for position, text in enumerate(self.visitor_ids)}
        self.session_by_id = {text: position for position, text in enumerate(self.session_ids)}
        urls = sessions.views["url"].tolist()
        bounds = sessions.bounds.tolist()
        self.page_urls: list[list[str]] = [urls[bounds[i] : bounds[i + 1]] for i in range(len(sessions))]
        self.by_start = np.lexsort((sessions.visitor, sessions.start_ms))
        self._identifications = [self._identification(person) for person in self.people]
        self.session_bodies = [self._session_body(i) for i in range(len(sessions))]

    def _identification(self, person: tuple[Any, ...]) -> msgspec.Raw:
        """`identification` of a session, which is the same in all sessions of a visitor."""
        p = _Person(*person)
        landscape = p.screen_width >= p.screen_height
        body: dict[str, object] = {"uid": p.uid} if p.uid is not None else {}
        body |= {
            "properties": _properties(p, as_object=self.profile.session_properties == "object"),
            "visitorIp": p.ip,
            "browser": {"name": p.browser, "code": p.browser.lower().replace(" ", "_"), "userAgent": p.user_agent},
            "platform": {"name": p.os, "operatingSystem": f"{p.os} {p.os_version}".strip(), "code": p.os.lower()},
            "country": {"name": p.country_name, "code": p.country, "region": p.region, "city": p.city},
            "device": {
                "type": {"phone": "mobile"}.get(p.device, p.device),
                "orientation": "landscape" if landscape else "portrait",
                "width": p.screen_width,
                "height": p.screen_height,
            },
        }
        return msgspec.Raw(msgspec.json.encode(body))

    def _session_body(self, index: int) -> msgspec.Raw:
        visitor = int(self.sessions.visitor[index])
        session_id, visitor_id = self.session_ids[index], self.visitor_ids[visitor]
        pages = self.page_urls[index]
        first = int(self.sessions.bounds[index])
        landing = urlsplit(pages[0])
        body = {
            "id": session_id,
            "visitorId": visitor_id,
            "identification": self._identifications[visitor],
            "duration": int(self.duration_seconds[index]),
            "startedAt": iso_millis(int(self.sessions.start_ms[index])),
            "endedAt": iso_millis(int(self.end_ms[index])),
            "referrer": self.referrers[first],
            "landingPage": pages[0],
            "exitPage": pages[-1],
            "pageUrl": pages,
            "notes": [],
            "domain": landing.netloc,
            "protocol": landing.scheme,
            "dashboardURL": f"https://app.smartlook.com/org/sandbox/{self.site.smartlook_project_id}/sessions/{session_id}",
            "_links": {
                "visitor": f"/api/visitors/{visitor_id}",
                "sessionEvents": f"/api/visitors/{visitor_id}/events?sessionId={session_id}",
            },
        }
        return msgspec.Raw(msgspec.json.encode(body))

    @cached_property
    def referrers(self) -> list[str]:
        """Referrer of each seen view."""
        referrers: list[str] = self.sessions.views["referrer"].tolist()
        return referrers

    # visitors --------------------------------------------------------------------------------------------------------

    def _frame_visitors(self) -> None:
        """Visitors with at least one recording; the others were never seen."""
        sessions = self.sessions
        self.session_bounds = groups(sessions.visitor, len(self.visitors))
        counts = np.diff(self.session_bounds)
        self.seen = np.flatnonzero(counts > 0)
        self.first_seen_ms = np.zeros(len(self.visitors), dtype=np.int64)
        self.last_seen_ms = np.zeros(len(self.visitors), dtype=np.int64)
        self.first_seen_ms[self.seen] = sessions.start_ms[self.session_bounds[self.seen]]
        self.last_seen_ms[self.seen] = self.end_ms[self.session_bounds[self.seen + 1] - 1]
        order = np.lexsort((self.seen, self.first_seen_ms[self.seen]))
        self.by_first_seen = self.seen[order]
        self._listed_visitors: dict[int, msgspec.Raw] = {}

    def visitor_body(self, visitor: int, **extra: object) -> dict[str, object]:
        """A visitor of lists; `extra` are the fields some lists add."""
        person = _Person(*self.people[visitor])
        visitor_id = self.visitor_ids[visitor]
        identity: dict[str, object] = {"uid": person.uid} if person.uid is not None else {}
        identity["properties"] = _properties(person, as_object=False)
        return {
            "id": visitor_id,
            "identification": identity,
            "firstSeen": iso_millis(int(self.first_seen_ms[visitor])),
            "lastSeen": iso_millis(int(self.last_seen_ms[visitor])),
            **extra,
            "_links": {
                "visitorSessions": f"/api/visitors/{visitor_id}/sessions",
                "visitorEvents": f"/api/visitors/{visitor_id}/events",
            },
        }

    def listed_visitor(self, visitor: int) -> msgspec.Raw:
        """The visitor of a search, encoded once."""
        if visitor not in self._listed_visitors:
            self._listed_visitors[visitor] = msgspec.Raw(msgspec.json.encode(self.visitor_body(visitor)))
        return self._listed_visitors[visitor]

    def event_body(self, row: int) -> dict[str, object]:
        """One occurrence, as the events of a visitor show it."""
        code = int(self.event_code[row])
        definition = self.definitions[code]
        visitor_id = self.visitor_ids[int(self.event_visitor[row])]
        kind, source, value, url, meta, seconds = self._event_rows[row]
        return {
            "id": identifier("occurrence", self.site.key, kind, source),
            "visitorId": visitor_id,
            "sessionId": self.session_ids[int(self.event_session[row])],
            "properties": [
                {"name": name, "type": "number" if isinstance(item, (int, float)) else "string", "value": item}
                for name, item in (msgspec.json.decode(meta).items() if meta not in ("", "{}") else ())
            ],
            "duration": seconds,
            "startedAt": iso_millis(int(self.event_ms[row])),
            "pageUrl": url,
            "type": kind,
            "value": url if kind == "url" else value,
            "sourceType": "api" if kind == "custom" else "recording",
            "eventName": definition.name,
            "selector": f"[data-track='{value}']" if kind in ("click", "rage_click") else None,
            "_links": {
                "visitor": f"/api/visitors/{visitor_id}",
                "eventVisitors": f"/api/events/{definition.id}/visitors",
                "event": f"/api/events/{definition.id}",
            },
        }

    @cached_property
    def _event_rows(self) -> list[tuple[Any, ...]]:
        return records(self.events, ("kind", "source_id", "value", "url", "meta", "duration_seconds"))

    @cached_property
    def funnels(self) -> list[dict[str, Any]]:
        """Funnels of the dashboard: ordered event definitions that exist on this site."""
        found = []
        for name, steps in _FUNNELS:
            codes = [self._code(step) for step in steps]
            present = [code for code in codes if code is not None]
            if len(present) >= 2:
                found.append({"id": identifier("funnel", self.site.key, name), "name": name, "codes": present})
        return found

    def _code(self, name: str) -> int | None:
        return next((code for code, item in enumerate(self.definitions) if item.name == name), None)

    def funnel_depth(self, codes: Sequence[int], from_ms: int, to_ms: int) -> npt.NDArray[np.int64]:
        """For each visitor the number of steps done in this order within the range (0 when not even the first)."""
        when = np.full(len(self.visitors), from_ms - 1, dtype=np.int64)
        depth = np.zeros(len(self.visitors), dtype=np.int64)
        inside = (self.event_ms >= from_ms) & (self.event_ms < to_ms)
        never = np.iinfo(np.int64).max
        for step, code in enumerate(codes):
            rows = np.flatnonzero(inside & (self.event_code == code))
            rows = rows[(depth[self.event_visitor[rows]] == step)]
            rows = rows[self.event_ms[rows] > when[self.event_visitor[rows]]]
            reached = np.full(len(self.visitors), never, dtype=np.int64)
            np.minimum.at(reached, self.event_visitor[rows], self.event_ms[rows])
            done = reached < never
            depth[done] = step + 1
            when[done] = reached[done]
        return depth


_PERSON_COLUMNS: Final = (
    "visitor_id", "uid", "email", "display_name", "kameleoon_code", "ip", "browser", "user_agent", "os", "os_version",
    "country", "country_name", "region", "city", "device", "screen_width", "screen_height",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Person:
    visitor_id: int
    uid: str | None
    email: str | None
    display_name: str | None
    kameleoon_code: str
    ip: str
    browser: str
    user_agent: str
    os: str
    os_version: str
    country: str
    country_name: str
    region: str
    city: str
    device: str
    screen_width: int
    screen_height: int


_FUNNELS: Final = (
    ("Checkout", (_CATEGORIES["url"], "Add to cart", "Purchase")),
    ("Newsletter", (_CATEGORIES["url"], "Read article", "Newsletter signup")),
)


def _properties(person: _Person, *, as_object: bool) -> object:
    """What the site told the Identify API: the Kameleoon code of everybody, e-mail and name of the logged in."""
    told = {"kameleoon_visitor_code": person.kameleoon_code, "email": person.email, "name": person.display_name}
    known = {name: value for name, value in told.items() if value is not None}
    return known if as_object else [{"name": name, "value": value} for name, value in known.items()]


def _raw_events(world: World, site: SiteTruth, visitors: pd.DataFrame) -> pd.DataFrame:
    """Events of the truth by these visitors; `url` ones are left out: page views stand for them."""
    events = world.events
    events = events.loc[((events["site_key"] == site.key) & (events["kind"] != "url")).to_numpy(bool)]
    position = visitor_positions(visitors, events["visitor_id"].to_numpy(np.int64))
    events = events.loc[position >= 0]
    return pd.DataFrame(
        {
            "source_id": events["event_id"].to_numpy(np.int64),
            "visitor": position[position >= 0],
            "at_ms": events["at_ms"].to_numpy(np.int64),
            "name": events["name"].to_numpy(object),
            "kind": events["kind"].to_numpy(object),
            "value": events["value"].astype(object).to_numpy(),
            "url": ("https://" + site.hostname + events["path"].astype(str)).to_numpy(object),
            "meta": events["meta"].to_numpy(object),
            "duration_seconds": events["duration_seconds"].to_numpy(float),
        }
    )


# --- search filters ---------------------------------------------------------------------------------------------------

_TEXT_OPERATORS: Final = ("is", "is_not", "contains", "not_contains")
_DATE_OPERATORS: Final = ("before", "after", "is", "in_range")


def _text_test(
    operator: object, value: object, allowed: Sequence[str] = _TEXT_OPERATORS
) -> Callable[[Sequence[str]], bool]:
    """Test of a field's texts (several for URLs of a session). An array of values means any of them."""
    if operator not in allowed:
        raise _bad(f"operator must be one of {', '.join(allowed)}")
    wanted = [str(item) for item in (value if isinstance(value, list) else [value])]
    if str(operator).endswith("is") or operator == "is_not":
        return lambda texts: any(text in wanted for text in texts) == (operator == "is")
    return lambda texts: any(part in text for text in texts for part in wanted) == (operator == "contains")


def _day_test(operator: object, value: object) -> Callable[[npt.NDArray[np.int64]], npt.NDArray[np.bool_]]:
    """Test of UTC days. before and after exclude the day they name, in_range includes both its ends."""
    try:
        if operator == "in_range":
            if not isinstance(value, list) or len(value) != 2:
                raise ValueError
            low, high = parse_day(value[0]), parse_day(value[1])
            return lambda days: (days >= low) & (days <= high)
        named = [parse_day(item) for item in (value if isinstance(value, list) else [value])]
    except ValueError:
        raise _bad("value must be a date; with in_range an array of two dates") from None
    if not named:
        raise _bad("value must not be an empty array")
    # An array means any of them: after the earliest, before the latest.
    if operator == "after":
        return lambda days: days > min(named)
    if operator == "before":
        return lambda days: days < max(named)
    if operator == "is":
        return lambda days: np.isin(days, named)
    raise _bad(f"operator must be one of {', '.join(_DATE_OPERATORS)}")


def _filters(body: Mapping[str, Any], default_operator: str | None) -> list[tuple[str, object, object]]:
    listed = body.get("filters")
    if not isinstance(listed, list):
        raise _bad("filters must be an array")
    found = []
    for item in listed:
        if not isinstance(item, dict) or "name" not in item or "value" not in item:
            raise _bad("a filter has a name, an operator and a value")
        operator = item.get("operator", default_operator)
        if operator is None:
            raise _bad("operator is required")
        found.append((str(item["name"]), operator, item["value"]))
    return found


_SESSION_TEXTS: Final[Mapping[str, Callable[[_Project, int], Sequence[str]]]] = {
    "uid": lambda p, i: _known(p.people[p.sessions.visitor[i]][1]),
    "user_email": lambda p, i: _known(p.people[p.sessions.visitor[i]][2]),
    "user_name": lambda p, i: _known(p.people[p.sessions.visitor[i]][3]),
    "location_ip": lambda p, i: _known(p.people[p.sessions.visitor[i]][5]),
    "landing_url": lambda p, i: p.page_urls[i][:1],
    "exit_url": lambda p, i: p.page_urls[i][-1:],
    "source_referer": lambda p, i: _known(p.referrers[p.sessions.bounds[i]]),
    "recording_url": lambda p, i: p.page_urls[i],
}


def _known(text: str | None) -> Sequence[str]:
    return () if text is None else (text,)


def _search_sessions(project: _Project, body: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """Positions of the matching sessions, sorted as asked (ascending start by default)."""
    chosen = project.by_start
    for name, operator, value in _filters(body, None):
        if name == "recording_date":
            chosen = chosen[_day_test(operator, value)(project.start_day[chosen])]
        elif name == "session_duration":
            chosen = chosen[_duration_test(operator, value)(project.duration_seconds[chosen])]
        elif name in _SESSION_TEXTS:
            read, test = _SESSION_TEXTS[name], _text_test(operator, value)
            chosen = np.array([i for i in chosen.tolist() if test(read(project, i))], dtype=np.int64)
        else:
            raise _bad(f"unknown filter {name}")
    return chosen[::-1] if _descending(body, "timeStart") else chosen


def _duration_test(operator: object, value: object) -> Callable[[npt.NDArray[np.int64]], npt.NDArray[np.bool_]]:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _bad("session_duration takes a number of seconds")
    if operator == "lte":
        return lambda seconds: seconds <= value
    if operator == "gte":
        return lambda seconds: seconds >= value
    raise _bad("operator must be one of lte, gte")


def _descending(body: Mapping[str, Any], key: str) -> bool:
    sort = body.get("sort") or {}
    if not isinstance(sort, dict) or sort.get(key, "asc") not in ("asc", "desc"):
        raise _bad("sort must be an object of asc or desc")
    return bool(sort.get(key, "asc") == "desc")


def _search_visitors(project: _Project, body: Mapping[str, Any], default_operator: str | None) -> npt.NDArray[np.int64]:
    """Positions of the matching visitors, by first visit (`timeCreate`) or last (`timeUpdate`)."""
    chosen = project.by_first_seen
    for name, operator, value in _filters(body, default_operator):
        if name == "user_first_seen":
            chosen = chosen[_day_test(operator, value)(utc_days(project.first_seen_ms[chosen]))]
        elif name == "recording_date":
            hit = project.sessions.visitor[_day_test(operator, value)(project.start_day)]
            chosen = chosen[np.isin(chosen, hit)]
        elif name in ("uid", "visitor_id"):
            test = _text_test(operator, value, _TEXT_OPERATORS if name == "uid" else ("is", "is_not"))
            texts = [person[1] for person in project.people] if name == "uid" else project.visitor_ids
            chosen = np.array([v for v in chosen.tolist() if test(_known(texts[v]))], dtype=np.int64)
        else:
            raise _bad(f"unknown filter {name}")
    if isinstance(body.get("sort"), dict) and "timeUpdate" in body["sort"]:
        chosen = chosen[np.argsort(project.last_seen_ms[chosen], kind="stable")]
        return chosen[::-1] if _descending(body, "timeUpdate") else chosen
    return chosen[::-1] if _descending(body, "timeCreate") else chosen


# --- cursors and quota ------------------------------------------------------------------------------------------------


class _Cursors:
    """Random-looking page positions that expire. The same position of the same request has the same text."""

    _KEPT = 20_000

    def __init__(self, monotonic: Callable[[], float], life_seconds: float) -> None:
        self._monotonic = monotonic
        self._life_seconds = life_seconds
        self._known: OrderedDict[str, tuple[str, int, float]] = OrderedDict()

    def issue(self, scope: str, position: int) -> str:
        """The cursor of a position within the list that `scope` names (project, route, body)."""
        digest = blake2b(f"{scope}\x1f{position}".encode(), digest_size=11).digest()
        text = b64encode(digest).decode()
        self._known[text] = (scope, position, self._monotonic() + self._life_seconds)
        self._known.move_to_end(text)
        while len(self._known) > self._KEPT:
            self._known.popitem(last=False)
        return text

    def position(self, scope: str, cursor: str) -> int:
        """Where the cursor points; raises a 400 for one that is unknown, expired, or of another list."""
        # "+" that a careless client left unescaped arrives as a space: it is no longer the cursor that was issued.
        known = self._known.get(cursor)
        if known is None or known[0] != scope or known[2] < self._monotonic():
            raise _bad("Invalid or expired cursor")
        return known[1]


class _Usage:
    """The sliding hour of one project, and how it was spent."""

    def __init__(self, monotonic: Callable[[], float], profile: Profile) -> None:
        self._monotonic = monotonic
        self._profile = profile
        self._header = profile.retry_after_header
        self._changes_at = monotonic() + profile.plan_changes_after_seconds
        self._sent: deque[tuple[float, str]] = deque()

    def spend(self, endpoint: str) -> None:
        """Count one request; raises a 429 when the hour is full (refused requests are not counted)."""
        now = self._trim()
        limit = self._profile.limit if now < self._changes_at else PLAN_LIMITS[self._profile.plan_after]
        if len(self._sent) >= limit:
            # A slot is free when all but `limit` - 1 have left the hour.
            seconds = max(1, int(self._sent[-limit][0] + _HOUR_SECONDS - now) + 1)
            refusal = _refuse(
                429,
                "Too Many Requests",
                f"Rate limit exceeded. Please retry after {seconds} seconds.",
                retryAfter=seconds,
            )
            if self._header:
                refusal.headers[self._header] = str(seconds)
            raise refusal
        self._sent.append((now, endpoint))

    def report(self) -> dict[str, object]:
        """`/api/v1/statistics`: the last 60 minutes, in all and by endpoint."""
        self._trim()
        by_endpoint = Counter(endpoint for _, endpoint in self._sent)
        return {"projectUsage": len(self._sent), "endpointsUsage": dict(sorted(by_endpoint.items()))}

    def _trim(self) -> float:
        now = self._monotonic()
        while self._sent and self._sent[0][0] <= now - _HOUR_SECONDS:
            self._sent.popleft()
        return now


# --- the API ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Call:
    """One authorised request: its project, query and (for searches) body."""

    project: _Project
    method: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Mapping[str, Any]
    body_text: bytes
    fault: str
    content_type: str

    def limit(self, default: int) -> int:
        """`limit`, 1 to 100."""
        text = self.query.get("limit", str(default))
        if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= 100:
            raise _bad("limit must be between 1 and 100")
        return int(text)

    def range_ms(self) -> tuple[int, int]:
        """`dateFrom` and `dateTo`, both inclusive UTC days, as [from, to) epoch milliseconds."""
        try:
            first, last = parse_day(self.query["dateFrom"]), parse_day(self.query["dateTo"])
        except KeyError as missing:
            raise _bad(f"{missing.args[0]} is required") from None
        except ValueError:
            raise _bad("dateFrom and dateTo must be dates") from None
        if last < first:
            raise _bad("dateTo is before dateFrom")
        return first * DAY_MS, (last + 1) * DAY_MS


class _Api:
    """Routes over the projects; one instance serves one port."""

    def __init__(self, world: World, context: ServerContext, profile: Profile) -> None:
        monotonic = context.monotonic
        self.profile = profile
        self._now_ms = context.now_ms
        self.cursors = _Cursors(monotonic, profile.cursor_seconds)
        self.projects = {site.smartlook_token: _Project(world, site, profile) for site in world.sites}
        self.usage = {token: _Usage(monotonic, profile) for token in self.projects}
        self.funnels_asked: set[tuple[str, str, int, int]] = set()

    # paging ----------------------------------------------------------------------------------------------------------

    def _page(self, call: _Call, scope: str, total: int, *, default: int) -> tuple[int, int, int]:
        """[from, to) of the page asked for by `after` or `before`, and the limit."""
        limit = call.limit(default)
        if "after" in call.query and "before" in call.query:
            raise _bad("There can be only one cursor in the query")
        if "before" in call.query and call.method == "POST":
            raise _bad("A search has no cursor before")
        start, stop = 0, limit
        if "after" in call.query:
            start = self.cursors.position(scope, call.query["after"])
            stop = start + limit
        elif "before" in call.query:
            stop = self.cursors.position(scope, call.query["before"])
            start = max(0, stop - limit)
        return min(start, total), min(stop, total), limit

    def _next(self, call: _Call, scope: str, path: str, page: tuple[int, int, int], total: int) -> dict[str, object]:
        """`pagination` and `_links` of a page; searches have `after` and `nextPage` only (contract §1.3)."""
        start, stop, limit = page
        after = self.cursors.issue(scope, start if call.fault == "cursor_loop" else stop)
        links: dict[str, object] = {}
        if stop < total or call.fault in ("cursor_loop", "empty_pages"):
            # Relative, without the version, and with the "=" of base64 as it is: as in the vendor's own sample.
            links["nextPage"] = f"{path}?after={quote(after, safe='=/')}&limit={limit}"
            if call.fault == "foreign_link":
                links["nextPage"] = f"https://smartlook.invalid{links['nextPage']}"
        elif self.profile.last_page_link != "absent":
            links["nextPage"] = None if self.profile.last_page_link == "null" else ""
        return {"pagination": {"after": after}, "_links": links}

    def _both(self, call: _Call, scope: str, path: str, page: tuple[int, int, int], total: int) -> dict[str, object]:
        """`pagination` and `_links` of a GET list: both directions."""
        paging: dict[str, Any] = self._next(call, scope, path, page, total)
        start, _, limit = page
        before = self.cursors.issue(scope, start)
        paging["pagination"] = {"before": before, **paging["pagination"]}
        if start > 0:
            paging["_links"]["previousPage"] = f"{path}?before={quote(before, safe='=/')}&limit={limit}"
        return paging

    # searches --------------------------------------------------------------------------------------------------------

    def sessions_search(self, call: _Call) -> object:
        """POST sessions/search."""
        project = call.project
        found = _search_sessions(project, call.body)
        scope = f"sessions:{project.site.key}:{identifier(call.body_text)}"
        page = self._page(call, scope, len(found), default=100)
        rows = [] if call.fault == "empty_pages" else found[page[0] : page[1]].tolist()
        return {
            "totalSessionsCount": len(found),
            "sessions": repeated([project.session_bodies[i] for i in rows], call.fault),
            **self._next(call, scope, "/api/sessions/search", page, len(found)),
        }

    def visitors_search(self, call: _Call, *, default_operator: str | None = None) -> object:
        """POST v2 visitors/search; version 1 lets a filter omit its operator (contract §1.2)."""
        project = call.project
        found = _search_visitors(project, call.body, default_operator)
        scope = f"visitors:{project.site.key}:{identifier(call.body_text)}"
        page = self._page(call, scope, len(found), default=100)
        rows = [] if call.fault == "empty_pages" else found[page[0] : page[1]].tolist()
        return {
            "totalVisitorsCount": len(found),
            "visitors": repeated([project.listed_visitor(v) for v in rows], call.fault),
            **self._next(call, scope, "/api/visitors/search", page, len(found)),
        }

    def visitors_search_v1(self, call: _Call) -> object:
        """POST v1 visitors/search."""
        return self.visitors_search(call, default_operator="is")

    # sessions and visitors -------------------------------------------------------------------------------------------

    def session(self, call: _Call) -> object:
        """GET sessions/{sessionId}: the session at the root."""
        return call.project.session_bodies[_found(call.project.session_by_id, call.path["session_id"], "Session")]

    def public_link(self, call: _Call) -> object:
        """GET sessions/{sessionId}/public-link."""
        _found(call.project.session_by_id, call.path["session_id"], "Session")
        secret = identifier("public-link", call.project.site.key, call.path["session_id"], length=40)
        return {"publicLink": f"https://app.smartlook.com/recording/{secret}"}

    def visitor(self, call: _Call) -> object:
        """GET visitors/{visitorId}."""
        project = call.project
        v = self._visitor(call)
        sessions = int(project.session_bounds[v + 1] - project.session_bounds[v])
        events = int(project.event_bounds[v + 1] - project.event_bounds[v])
        counts = {"numberOfVisits": sessions, "numberOfSessions": sessions, "numberOfEvents": events}
        return {"visitor": project.visitor_body(v, **counts)}

    def _visitor(self, call: _Call) -> int:
        v = _found(call.project.visitor_by_id, call.path["visitor_id"], "Visitor")
        if call.project.session_bounds[v] == call.project.session_bounds[v + 1]:
            raise _refuse(404, "Not Found", "Visitor not found")
        return v

    def visitor_sessions(self, call: _Call) -> object:
        """GET visitors/{visitorId}/sessions."""
        project = call.project
        v = self._visitor(call)
        rows = list(range(int(project.session_bounds[v]), int(project.session_bounds[v + 1])))
        if call.query.get("sort", "asc") not in ("asc", "desc"):
            raise _bad("sort must be asc or desc")
        if call.query.get("sort") == "desc":
            rows.reverse()
        scope = f"visitor-sessions:{project.site.key}:{v}:{call.query.get('sort', '')}"
        page = self._page(call, scope, len(rows), default=self.profile.default_limit)
        path = f"/api/visitors/{project.visitor_ids[v]}/sessions"
        paging = self._both(call, scope, path, page, len(rows))
        if call.query.get("sort"):
            _carry(paging, {"sort": call.query["sort"]})
        return {
            "totalCount": len(rows),
            "sessions": [project.session_bodies[i] for i in rows[page[0] : page[1]]],
            **paging,
        }

    def visitor_events(self, call: _Call) -> object:
        """GET visitors/{visitorId}/events with eventTypes, sessionId, dateFrom, dateTo."""
        project = call.project
        v = self._visitor(call)
        rows = np.arange(project.event_bounds[v], project.event_bounds[v + 1])
        if call.query.get("dateFrom") or call.query.get("dateTo"):
            first = parse_or_refuse(call.query.get("dateFrom", "1970-01-01")) * DAY_MS
            last = (parse_or_refuse(call.query.get("dateTo", "9999-12-31")) + 1) * DAY_MS
            rows = rows[(project.event_ms[rows] >= first) & (project.event_ms[rows] < last)]
        if call.query.get("eventTypes"):
            kinds = set(call.query["eventTypes"].split(","))
            if not kinds <= _EVENT_TYPES:
                raise _bad(f"eventTypes are some of {', '.join(sorted(_EVENT_TYPES))}")
            codes = [code for code, item in enumerate(project.definitions) if item.kind in kinds]
            rows = rows[np.isin(project.event_code[rows], codes)]
        if call.query.get("sessionId"):
            session = _found(project.session_by_id, call.query["sessionId"], "Session")
            rows = rows[project.event_session[rows] == session]
        kept = {k: call.query[k] for k in ("eventTypes", "sessionId", "dateFrom", "dateTo") if call.query.get(k)}
        scope = f"visitor-events:{project.site.key}:{v}:{sorted(kept.items())}"
        page = self._page(call, scope, len(rows), default=self.profile.default_limit)
        path = f"/api/visitors/{project.visitor_ids[v]}/events"
        paging = self._both(call, scope, path, page, len(rows))
        _carry(paging, kept)
        return {"events": [project.event_body(row) for row in rows[page[0] : page[1]].tolist()], **paging}

    # events ----------------------------------------------------------------------------------------------------------

    def events(self, call: _Call) -> object:
        """GET events: definitions, not occurrences (contract §1.4, trap 11)."""
        project = call.project
        listed = [
            item for item in project.definitions if call.query.get("categoryId") in (None, "", _category_id(item.kind))
        ]
        scope = f"events:{project.site.key}:{call.query.get('categoryId', '')}"
        page = self._page(call, scope, len(listed), default=self.profile.default_limit)
        paging = self._both(call, scope, "/api/events", page, len(listed))
        if call.query.get("categoryId"):
            _carry(paging, {"categoryId": call.query["categoryId"]})
        shown = [] if call.fault == "empty_pages" else listed[page[0] : page[1]]
        return {"totalCount": len(listed), "events": [_definition_body(item) for item in shown], **paging}

    def event(self, call: _Call) -> object:
        """GET events/{eventId}: totals of a range, and a histogram when an interval is asked for."""
        project = call.project
        code = _found(project.definition_by_id, call.path["event_id"], "Event")
        first, last = call.range_ms()
        rows = self._matches(project, code, first, last)
        visitors = np.unique(project.event_visitor[rows])
        body: dict[str, object] = {
            **_definition_body(project.definitions[code]),
            "totalOccurrence": len(rows),
            "uniqueVisitors": len(visitors),
            "newVisitors": int((project.first_seen_ms[visitors] >= first).sum()),
            "averageOccurrencePerVisitor": len(rows) / len(visitors) if len(visitors) else 0,
        }
        interval = call.query.get("occurrenceHistogramInterval")
        if interval:
            if interval not in _INTERVALS_MS:
                raise _bad(f"occurrenceHistogramInterval must be one of {', '.join(_INTERVALS_MS)}")
            body["occurrenceHistogram"] = _histogram(project, rows, first, last, interval)
        return {"event": body}

    @staticmethod
    def _matches(project: _Project, code: int, first: int, last: int) -> npt.NDArray[np.int64]:
        inside = (project.event_code == code) & (project.event_ms >= first) & (project.event_ms < last)
        return np.flatnonzero(inside)

    def event_visitors(self, call: _Call) -> object:
        """GET events/{eventId}/visitors: no paging in the contract."""
        project = call.project
        code = _found(project.definition_by_id, call.path["event_id"], "Event")
        rows = self._matches(project, code, *call.range_ms())
        visitors, counts = np.unique(project.event_visitor[rows], return_counts=True)
        shown = []
        for v, count in zip(visitors.tolist(), counts.tolist(), strict=True):
            visits = int(project.session_bounds[v + 1] - project.session_bounds[v])
            body = project.visitor_body(v, numberOfVisits=visits, eventMatchedCount=count)
            links: dict[str, str] = body["_links"]  # type: ignore[assignment]
            shown.append({**body, "_links": {"visitor": f"/api/visitors/{project.visitor_ids[v]}", **links}})
        return {"visitors": shown}

    # funnels ---------------------------------------------------------------------------------------------------------

    def funnels(self, call: _Call) -> object:
        """GET funnels."""
        project = call.project
        listed = project.funnels
        scope = f"funnels:{project.site.key}"
        page = self._page(call, scope, len(listed), default=self.profile.default_limit)
        shown = [
            {
                "id": funnel["id"],
                "name": funnel["name"],
                "events": [
                    {
                        "id": project.definitions[code].id,
                        "name": project.definitions[code].name,
                        "_links": {"event": f"/api/events/{project.definitions[code].id}"},
                    }
                    for code in funnel["codes"]
                ],
                "_links": {"funnel": f"/api/funnels/{funnel['id']}"},
            }
            for funnel in listed[page[0] : page[1]]
        ]
        return {
            "totalCount": len(listed),
            "funnels": shown,
            **self._both(call, scope, "/api/funnels", page, len(listed)),
        }

    def _funnel(self, call: _Call) -> dict[str, Any]:
        for funnel in call.project.funnels:
            if funnel["id"] == call.path["funnel_id"]:
                return funnel
        raise _refuse(404, "Not Found", "Funnel not found")

    def funnel(self, call: _Call) -> object:
        """GET funnels/{funnelId}: asynchronous; the first ask of a range starts the computation (contract §1.1)."""
        project = call.project
        funnel = self._funnel(call)
        first, last = call.range_ms()
        key = (project.site.key, str(funnel["id"]), first, last)
        finished = key in self.funnels_asked or call.query.get("waitForFinish", "").lower() == "true"
        self.funnels_asked.add(key)
        created = project.sessions.start_ms.min() if len(project.sessions) else project.now_ms
        body: dict[str, object] = {
            "id": funnel["id"],
            "name": funnel["name"],
            "createdAt": iso_millis(int(created) - 30 * DAY_MS),
            "updatedAt": iso_millis(int(created) - 20 * DAY_MS),
        }
        if not finished:
            return {
                "computation": {"isFinished": False, "finishedProgress": 0, "nextAttemptDelay": 1},
                "funnel": {**body, "conversionRate": None, "steps": []},
            }
        depth = project.funnel_depth(funnel["codes"], first, last)
        counts = [int((depth > step).sum()) for step in range(len(funnel["codes"]))]
        body["conversionRate"] = 100.0 * counts[-1] / counts[0] if counts[0] else 0
        body["steps"] = [_funnel_step(project, code, step, counts) for step, code in enumerate(funnel["codes"])]
        return {
            "computation": {"isFinished": True, "finishedProgress": 100, "nextAttemptDelay": None},
            "funnel": body,
        }

    def funnel_drop_off(self, call: _Call) -> object:
        """GET funnels/{funnelId}/visitors/drop-off: ids of those who did the step (success) or fell out before it."""
        project = call.project
        funnel = self._funnel(call)
        first, last = call.range_ms()
        step, success = call.query.get("step", ""), call.query.get("success", "").lower()
        if not step.isdigit() or not 1 <= int(step) <= len(funnel["codes"]) or success not in ("true", "false"):
            raise _bad("step must be a step of the funnel, from 1, and success true or false")
        depth = project.funnel_depth(funnel["codes"], first, last)
        chosen = depth >= int(step) if success == "true" else (depth == int(step) - 1) & (depth > 0)
        visitors = np.flatnonzero(chosen).tolist()
        return {"totalVisitorsCount": len(visitors), "visitors": [project.visitor_ids[v] for v in visitors]}

    # the project -----------------------------------------------------------------------------------------------------

    def me(self, call: _Call) -> object:
        """GET me: which project the token opens."""
        site = call.project.site
        return {
            "organizationId": identifier("organization"),
            "organizationName": "Sandbox",
            "projectId": site.smartlook_project_id,
            "projectName": site.hostname,
        }

    # writes ----------------------------------------------------------------------------------------------------------

    def delete_event(self, call: _Call) -> object:
        """DELETE events/{eventId}: 204."""
        call.project.delete_event(_found(call.project.definition_by_id, call.path["event_id"], "Event"))
        return b""

    def delete_visitor(self, call: _Call) -> object:
        """DELETE visitors/{visitorId}: the number, or 204 when the profile says so (the contract has both)."""
        call.project.forget_visitors([self._visitor(call)])
        return {"deletedItems": 1} if self.profile.delete_visitor_answer == "counted" else b""

    def delete_visitors(self, call: _Call) -> object:
        """DELETE visitors?uids=: those who were recorded under any of these ids."""
        project = call.project
        uids = {uid for uid in call.query.get("uids", "").split(",") if uid}
        if not uids:
            raise _bad("uids is required")
        gone = [v for v in project.seen.tolist() if project.people[v][1] in uids]
        if gone:
            project.forget_visitors(gone)
        return {"deletedItems": len(gone)}

    def webhooks(self, call: _Call) -> object:
        """GET webhooks: a bare array."""
        return call.project.webhooks.listed()

    def webhook(self, call: _Call) -> object:
        """GET webhooks/{webhookOid}."""
        return call.project.webhooks.one(call.path["webhook_id"])

    def create_webhook(self, call: _Call) -> object:
        """POST webhooks."""
        return call.project.webhooks.create(call.body)

    def update_webhook(self, call: _Call) -> object:
        """PATCH webhooks/{webhookOid}."""
        return call.project.webhooks.change(call.path["webhook_id"], call.body)

    def delete_webhook(self, call: _Call) -> object:
        """DELETE webhooks/{webhookOid}: 204."""
        call.project.webhooks.delete(call.path["webhook_id"])
        return b""

    def upload_mapping_file(self, call: _Call) -> object:
        """POST bundles/…/mapping-files?force: 201."""
        return call.project.mapping_files.upload(
            (call.path["bundle_id"], call.path["platform"], call.path["app_version"]),
            content_type=call.content_type,
            body=call.body_text,
            is_forced=call.query.get("force", "").lower() in ("1", "true"),
            now_ms=self._now_ms(),
        )

    # requests --------------------------------------------------------------------------------------------------------

    def _token(self, request: Request) -> str:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or token not in self.projects:
            raise _refuse(401, "Unauthorized", "Invalid or missing API token")
        return token

    def endpoint(
        self, label: str, handler: Callable[[_Call], object], *, takes_json: bool, status: int = 200
    ) -> Callable[[Request], Awaitable[Response]]:
        """An ASGI endpoint: token, quota, body, then the handler. An empty answer is a 204."""

        async def serve(request: Request) -> Response:
            try:
                token = self._token(request)
                self.usage[token].spend(label)
                text = await request.body()
                call = _Call(
                    project=self.projects[token],
                    method=request.method,
                    path=request.path_params,
                    query=request.query_params,
                    body=_json_body(text) if takes_json else {},
                    body_text=text,
                    fault=fault_kind(request),
                    content_type=request.headers.get("content-type", ""),
                )
                body = handler(call)
                return answer(body, status=204 if body == b"" else status)
            except Refusal as refusal:
                return refusal.response()

        return serve

    async def statistics(self, request: Request) -> Response:
        """GET statistics: usage of the last hour; asking costs nothing."""
        try:
            return answer(self.usage[self._token(request)].report())
        except Refusal as refusal:
            return refusal.response()


def _json_body(text: bytes) -> Mapping[str, Any]:
    try:
        body = msgspec.json.decode(text)
    except msgspec.DecodeError:
        raise _bad("body must be JSON") from None
    if not isinstance(body, dict):
        raise _bad("body must be an object")
    return body


def _found(index: Mapping[str, int], key: str, what: str) -> int:
    if key not in index:
        raise _refuse(404, "Not Found", f"{what} not found")
    return index[key]


def _carry(paging: dict[str, Any], kept: Mapping[str, str]) -> None:
    """Filters of a GET list stay in its links."""
    suffix = "".join(f"&{name}={quote(value, safe=',')}" for name, value in kept.items())
    for name, link in paging["_links"].items():
        if link:
            paging["_links"][name] = link + suffix


def _category_id(kind: str) -> str:
    return identifier("category", kind, length=12)


def _definition_body(item: _Definition) -> dict[str, object]:
    return {
        "id": item.id,
        "name": item.name,
        "categoryId": _category_id(item.kind),
        "categoryName": _CATEGORIES.get(item.kind, item.kind),
        "_links": {"eventVisitors": f"/api/events/{item.id}/visitors", "event": f"/api/events/{item.id}"},
    }


def _histogram(
    project: _Project, rows: npt.NDArray[np.int64], first: int, last: int, interval: str
) -> list[dict[str, object]]:
    """One entry an interval, empty ones included."""
    width = _INTERVALS_MS[interval]
    slots = (project.event_ms[rows] - first) // width
    count = -(-(last - first) // width)
    occurrences = np.bincount(slots, minlength=count)
    # One number a (slot, visitor) pair: far quicker to make unique than two rows.
    people = max(len(project.visitors), 1)
    pairs = np.unique(slots * people + project.event_visitor[rows])
    visitors = np.bincount(pairs // people, minlength=count)
    return [
        {
            "date": iso_millis(first + slot * width),
            "occurrenceCount": int(occurrences[slot]),
            "uniqueVisitorsCount": int(visitors[slot]),
        }
        for slot in range(count)
    ]


def _funnel_step(project: _Project, code: int, step: int, counts: Sequence[int]) -> dict[str, object]:
    definition = project.definitions[code]
    before = counts[step - 1] if step else counts[0]
    return {
        "visitorsCount": counts[step],
        "event": {
            "step": step + 1,
            "id": definition.id,
            "eventName": definition.name,
            "_links": {"event": f"/api/events/{definition.id}"},
        },
        "percentFromPreviousStep": 100.0 * counts[step] / before if before else 0,
    }


def parse_or_refuse(text: str) -> int:
    """UTC day number of a date of the query; a 400 when it is none."""
    try:
        return parse_day(text)
    except ValueError:
        raise _bad("dateFrom and dateTo must be dates") from None


def build_app(world: World, context: ServerContext, **profile: Any) -> Starlette:
    """Smartlook's API over this world; `profile` are fields of `Profile`."""
    api = _Api(world, context, Profile(**profile))
    gets: tuple[tuple[str, Callable[[_Call], object]], ...] = (
        ("/me", api.me),
        ("/webhooks", api.webhooks),
        ("/webhooks/{webhook_id}", api.webhook),
        ("/events", api.events),
        ("/events/{event_id}", api.event),
        ("/events/{event_id}/visitors", api.event_visitors),
        ("/funnels", api.funnels),
        ("/funnels/{funnel_id}", api.funnel),
        ("/funnels/{funnel_id}/visitors/drop-off", api.funnel_drop_off),
        ("/visitors/{visitor_id}", api.visitor),
        ("/visitors/{visitor_id}/sessions", api.visitor_sessions),
        ("/visitors/{visitor_id}/events", api.visitor_events),
        ("/sessions/{session_id}", api.session),
        ("/sessions/{session_id}/public-link", api.public_link),
    )
    searches: tuple[tuple[str, str, Callable[[_Call], object]], ...] = (
        ("/api/v1/sessions/search", "/sessions/search", api.sessions_search),
        ("/api/sessions/search", "/sessions/search", api.sessions_search),
        ("/api/v2/visitors/search", "/visitors/search", api.visitors_search),
        ("/api/visitors/search", "/visitors/search", api.visitors_search),  # no version: the latest
        ("/api/v1/visitors/search", "/visitors/search", api.visitors_search_v1),
    )
    writes: tuple[tuple[str, str, Callable[[_Call], object]], ...] = (
        ("DELETE", "/events/{event_id}", api.delete_event),
        ("DELETE", "/visitors/{visitor_id}", api.delete_visitor),
        ("DELETE", "/visitors", api.delete_visitors),
        ("POST", "/webhooks", api.create_webhook),
        ("PATCH", "/webhooks/{webhook_id}", api.update_webhook),
        ("DELETE", "/webhooks/{webhook_id}", api.delete_webhook),
    )
    upload = "/bundles/{bundle_id}/platforms/{platform}/releases/{app_version}/mapping-files"
    routes = [
        Route(path, api.endpoint(f"POST {label}", handler, takes_json=True), methods=["POST"])
        for path, label, handler in searches
    ]
    for prefix in ("/api/v1", "/api"):
        routes.append(Route(f"{prefix}/statistics", api.statistics, methods=["GET"]))
        routes += [
            Route(prefix + path, api.endpoint(f"GET {path}", handler, takes_json=False), methods=["GET"])
            for path, handler in gets
        ]
        routes += [
            Route(
                prefix + path,
                api.endpoint(f"{method} {path}", handler, takes_json=method != "DELETE"),
                methods=[method],
            )
            for method, path, handler in writes
        ]
        uploaded = api.endpoint(f"POST {upload}", api.upload_mapping_file, takes_json=False, status=201)
        routes.append(Route(prefix + upload, uploaded, methods=["POST"]))
    return Starlette(routes=routes)
