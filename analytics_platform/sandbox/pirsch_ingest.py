"""What is posted to Pirsch: checking a hit, an event or a keep-alive, and cutting them into visitors and sessions.

Belongs here: the bodies of `/hit`, `/event`, `/session` and their batches, who is dropped, when a session begins, the
buffer, and the rows that come out. Does not belong here: routes, tokens and scopes (`pirsch`), counting
(`pirsch_domain`, `pirsch_statistics`).

A body is checked at once and answered, then waits in a buffer: it is counted when the buffer is flushed (full, or its
oldest entry is as old as the profile's delay), as the vendor's ingest is asynchronous. Nothing makes a request
idempotent: the same hit posted twice is two views. Sources: vendor document, "Sending a Page Hit" to "Keeping a Session
Alive"; contracts/pirsch.md A3, A5 ("Late change").
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

import pandas as pd

from analytics_platform.sandbox.pirsch_domain import (
    EVENT_COLUMNS,
    IDLE_SECONDS,
    SESSION_COLUMNS,
    UTM,
    VIEW_COLUMNS,
    Rows,
)
from analytics_platform.sandbox.pirsch_wire import Refused, instant_ms
from analytics_platform.sandbox.truth import World

__all__ = ["Ingest", "Kind", "Posted", "read_posted"]

Kind = Literal["hit", "event", "session"]

_BUFFER_ENTRIES = 100
_PAIRS_AT_MOST, _KEY_AT_MOST, _VALUE_AT_MOST = 20, 100, 2000
_SHORTEST_USER_AGENT = 10
_BOTS = re.compile(
    r"bot|crawl|spider|headless|slurp|curl/|wget|python-|libwww|scrapy|httpclient|okhttp|phantomjs|preview", re.I
)
_PROXY_HEADERS = ("cf_connecting_ip", "x_forwarded_for", "forwarded", "x_real_ip")
_TEXTS = (*_PROXY_HEADERS, "dnt", "accept_language", "title", "referrer")
_NEW_VISITOR = 10**12  # far above every visitor of a generated world


@dataclass(frozen=True, kw_only=True)
class Posted:
    """One accepted entry: what it says, and when."""

    kind: Kind
    at_ms: int
    ip: str
    user_agent: str
    url: str = ""
    title: str = ""
    referrer: str = ""
    language: str = ""
    screen_width: int = 0
    screen_height: int = 0
    tags: Mapping[str, str] = field(default_factory=dict)
    event_name: str = ""
    event_seconds: int = 0
    event_meta: Mapping[str, str] = field(default_factory=dict)
    ends_bounce: bool = True
    is_dropped: bool = False

    @property
    def path(self) -> str:
        """The page, `/` where the URL has none."""
        return urlsplit(self.url).path or "/"

    @property
    def hostname(self) -> str:
        """The host the URL names, lower case; empty for a keep-alive."""
        return urlsplit(self.url).hostname or ""

    @property
    def campaign(self) -> tuple[str, ...]:
        """The five UTM values of the URL."""
        given = dict(parse_qsl(urlsplit(self.url).query))
        return tuple(given.get(name, "") for name in UTM)

    @property
    def source(self) -> str:
        """The referrer, unless it is the page's own site."""
        try:
            host = urlsplit(self.referrer).hostname or ""
        except ValueError:
            return self.referrer
        return "" if host and host.removeprefix("www.") == self.hostname.removeprefix("www.") else self.referrer


# --- reading a body --------------------------------------------------------------------------------------------------


def read_posted(kind: Kind, body: Any, *, batch: bool, now_ms: int) -> list[Posted]:
    """The entries of one request, in order of time.

    Raises:
        Refused: 400 with `validation` by field; in a batch the field is `<index>.<field>` and nothing is taken.
    """
    if not batch:
        return [_entry(kind, body, now_ms=now_ms, prefix="", needs_time=False)]
    if not isinstance(body, list):
        raise Refused(400, message="the body must be a list")
    entries = [_entry(kind, one, now_ms=now_ms, prefix=f"{index}.", needs_time=True) for index, one in enumerate(body)]
    return sorted(entries, key=lambda entry: entry.at_ms)


def _entry(kind: Kind, body: Any, *, now_ms: int, prefix: str, needs_time: bool) -> Posted:
    if not isinstance(body, dict):
        raise Refused(400, message="the body must be an object")
    wrong = {f"{prefix}{name}": text for name, text in _problems(kind, body, needs_time=needs_time).items()}
    if wrong:
        raise Refused(400, validation=wrong)
    agent = str(body["user_agent"])
    is_bot = not body.get("disable_bot_filter") and (len(agent) < _SHORTEST_USER_AGENT or bool(_BOTS.search(agent)))
    return Posted(
        kind=kind,
        at_ms=instant_ms(body["time"]) or now_ms if needs_time else now_ms,
        ip=_address(body),
        user_agent=agent,
        url=str(body.get("url") or ""),
        title=str(body.get("title") or ""),
        referrer=str(body.get("referrer") or ""),
        language=_language(str(body.get("accept_language") or "")),
        screen_width=int(body.get("screen_width") or 0),
        screen_height=int(body.get("screen_height") or 0),
        tags=_texts(body.get("tags")),
        event_name=str(body.get("event_name") or ""),
        event_seconds=int(body.get("event_duration") or 0),
        event_meta=_texts(body.get("event_meta")),
        ends_bounce=not body.get("non_interactive"),
        is_dropped=is_bot or body.get("dnt") == "1",
    )


def _problems(kind: Kind, body: Mapping[str, Any], *, needs_time: bool) -> dict[str, str]:
    required = {"hit": ("url",), "event": ("event_name", "url"), "session": ()}[kind]
    wrong = {
        name: "this field is required"
        for name in (*required, "ip", "user_agent")
        if not isinstance(body.get(name), str) or not body[name].strip()
    }
    wrong |= {name: "a text is expected" for name in _TEXTS if not isinstance(body.get(name, ""), str | None)}
    wrong |= {
        name: "a positive whole number is expected"
        for name in ("screen_width", "screen_height", "event_duration")
        if not _is_count(body.get(name))
    }
    if kind != "session" and "url" not in wrong and not _is_web_address(body["url"]):
        wrong["url"] = "an absolute URL is expected"
    if needs_time and instant_ms(body.get("time")) is None:
        wrong["time"] = "an RFC 3339 time is expected"
    for name, key_at_most, value_at_most in (("event_meta", _KEY_AT_MOST, _VALUE_AT_MOST), ("tags", 50, 50)):
        problem = _pairs_problem(body.get(name), key_at_most, value_at_most)
        if problem:
            wrong[name] = problem
    return wrong


def _is_count(value: object) -> bool:
    if value is None:
        return True
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        return False


def _pairs_problem(value: object, key_at_most: int, value_at_most: int) -> str:
    if value is None:
        return ""
    if not isinstance(value, dict) or not all(_is_scalar(one) for one in value.values()):
        return "a single dimension object of scalar values is expected"
    if len(value) > _PAIRS_AT_MOST:
        return f"at most {_PAIRS_AT_MOST} pairs are allowed"
    if any(len(key) > key_at_most or len(_text(one)) > value_at_most for key, one in value.items()):
        return f"keys may have {key_at_most} and values {value_at_most} characters"
    return ""


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _texts(value: Mapping[str, object] | None) -> dict[str, str]:
    return {key: _text(one) for key, one in (value or {}).items()}


def _address(body: Mapping[str, Any]) -> str:
    """The visitor's address: a proxy header wins over `ip`, and its first hop counts."""
    for name in _PROXY_HEADERS:
        hop = str(body.get(name) or "").split(",")[0].strip()
        if name == "forwarded":
            found = re.search(r'for="?\[?([0-9a-fA-F.:]+)', hop)
            hop = found.group(1) if found else ""
        if hop:
            return hop
    return str(body["ip"]).strip()


def _language(header: str) -> str:
    found = re.match(r"\s*([a-zA-Z]{2})(?![a-zA-Z])", header)
    return found.group(1).lower() if found else ""


# --- who and with what -----------------------------------------------------------------------------------------------

_SYSTEMS = (
    ("Windows Mobile", r"Windows Phone(?: OS)? ([\d.]+)"), ("Windows", r"Windows NT ([\d.]+)"),
    ("iOS", r"(?:iPhone OS|CPU OS) ([\d_]+)"), ("Android", r"Android ([\d.]+)"), ("Mac", r"Mac OS X ([\d_.]+)"),
    ("Linux", r"Linux()"),
)  # fmt: skip
_BROWSERS = (
    ("Edge", r"Edg(?:e|A|iOS)?/([\d.]+)"), ("Opera", r"(?:OPR|Opera)/([\d.]+)"),
    ("Firefox", r"(?:Firefox|FxiOS)/([\d.]+)"),
    ("Chrome", r"(?:Chrome|CriOS)/([\d.]+)"), ("Safari", r"Version/([\d.]+).*Safari"), ("IE", r"(?:MSIE |rv:)([\d.]+)"),
)  # fmt: skip


def _device(user_agent: str) -> dict[str, str]:
    """What a user agent says; unknown is empty, and a device is `unknown`."""
    system, system_version = _first_named(_SYSTEMS, user_agent)
    browser, browser_version = _first_named(_BROWSERS, user_agent)
    kind = "desktop" if system in {"Windows", "Mac", "Linux"} else "unknown"
    if system in {"iOS", "Android", "Windows Mobile"} or "Mobile" in user_agent:
        kind = "tablet" if "iPad" in user_agent else "phone"
    return {"device": kind, "os": system, "os_version": system_version,
            "browser": browser, "browser_version": browser_version}  # fmt: skip


def _first_named(table: Sequence[tuple[str, str]], user_agent: str) -> tuple[str, str]:
    for name, pattern in table:
        found = re.search(pattern, user_agent)
        if found:
            return name, ".".join(found.group(1).replace("_", ".").split(".")[:2])
    return "", ""


class _People:
    """The vendor's fingerprint and its table of places, both as far as this world knows them.

    An address and a user agent of the truth are that visitor again; an address of the truth is where it was. Anybody
    else is new and from nowhere.
    """

    def __init__(self, world: World) -> None:
        people = world.visitors
        columns = (people[name].tolist() for name in ("ip", "user_agent", "visitor_id", "country", "region", "city"))
        self._known: dict[tuple[str, str], int] = {}
        self._places: dict[str, tuple[str, str, str]] = {}
        for ip, agent, visitor, *place in zip(*columns, strict=True):
            self._known.setdefault((ip, agent), visitor)
            self._places.setdefault(ip, (place[0], place[1], place[2]))

    def visitor(self, entry: Posted) -> int:
        return self._known.setdefault((entry.ip, entry.user_agent), _NEW_VISITOR + len(self._known))

    def place(self, ip: str) -> tuple[str, str, str]:
        return self._places.get(ip, ("", "", ""))


# --- sessions --------------------------------------------------------------------------------------------------------


class _Stream:
    """The sessions of one domain as they grow. Entries come in order of time, as the vendor asks for."""

    def __init__(self) -> None:
        self.sessions: list[dict[str, Any]] = []
        self.views: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self._current: dict[int, int] = {}

    def take(self, entry: Posted, people: _People) -> None:
        visitor = people.visitor(entry)
        session = self._running(visitor, entry)
        if entry.kind == "session":
            if session is not None:
                session["session_end_ms"] = max(session["session_end_ms"], entry.at_ms)
            return
        is_new = session is None or self._comes_from_elsewhere(session, entry)
        if session is None or is_new:
            session = self._begin(visitor, entry, people)
        session["session_end_ms"] = max(session["session_end_ms"], entry.at_ms)
        # The engine counts a session that begins with an event as one view of its page.
        if entry.kind == "hit" or is_new:
            self._view(session, entry)
        if entry.kind == "event":
            if entry.ends_bounce:
                session["bounced"] = 0
            self.events.append(
                {
                    "session_key": session["session_key"],
                    "at_ms": entry.at_ms,
                    "event_id": len(self.events),
                    "name": entry.event_name,
                    "meta": json.dumps(entry.event_meta, sort_keys=True),
                    "path": entry.path,
                    "duration_seconds": entry.event_seconds,
                }
            )

    def _running(self, visitor: int, entry: Posted) -> dict[str, Any] | None:
        key = self._current.get(visitor)
        if key is None:
            return None
        session = self.sessions[key]
        is_idle = entry.at_ms - session["session_end_ms"] > IDLE_SECONDS * 1000
        is_before = session["session_start_ms"] - entry.at_ms > IDLE_SECONDS * 1000
        return None if is_idle or is_before else session

    @staticmethod
    def _comes_from_elsewhere(session: Mapping[str, Any], entry: Posted) -> bool:
        """Another referrer or another campaign begins a session; none at all does not."""
        if entry.source and entry.source != session["referrer"]:
            return True
        return any(now and now != then for now, then in zip(entry.campaign, session["campaign"], strict=True))

    def _begin(self, visitor: int, entry: Posted, people: _People) -> dict[str, Any]:
        country, region, city = people.place(entry.ip)
        session: dict[str, Any] = {
            "session_key": len(self.sessions),
            "visitor_id": visitor,
            "session_start_ms": entry.at_ms,
            "session_end_ms": entry.at_ms,
            "query": urlsplit(entry.url).query,
            "campaign": entry.campaign,
            "referrer": entry.source,
            "entry_path": entry.path,
            "exit_path": entry.path,
            "bounced": 1,
            "hostname": entry.hostname,
            "country": country,
            "region": region,
            "city": city,
            "language": entry.language,
            "screen_width": entry.screen_width,
            "screen_height": entry.screen_height,
            **_device(entry.user_agent),
        }
        self.sessions.append(session)
        self._current[visitor] = session["session_key"]
        return session

    def _view(self, session: dict[str, Any], entry: Posted) -> None:
        if entry.path != session["entry_path"]:
            session["bounced"] = 0
        if entry.at_ms >= session["session_end_ms"]:
            session["exit_path"] = entry.path
        if entry.at_ms < session["session_start_ms"]:
            session["session_start_ms"], session["entry_path"] = entry.at_ms, entry.path
        self.views.append(
            {
                "session_key": session["session_key"],
                "at_ms": entry.at_ms,
                "url": entry.url,
                "path": entry.path,
                "title": entry.title,
                "tags": json.dumps(entry.tags, sort_keys=True),
            }
        )


class Ingest:
    """The buffer and the sessions behind it, of every domain.

    Args:
        world: whose visitors and addresses are known.
        now_ms: the present of what is written.
        flush_seconds: how long an entry waits at most before it is counted.
    """

    def __init__(self, world: World, *, now_ms: Callable[[], int], flush_seconds: float) -> None:
        self._world = world
        self._now_ms = now_ms
        self._flush_ms = flush_seconds * 1000
        self._pending: list[tuple[int, str, Posted]] = []
        self._streams: dict[str, _Stream] = {}
        self._versions: dict[str, int] = {}
        self._people: _People | None = None
        self._seen_at: dict[tuple[str, str], str] = {}

    def accept(self, domain_id: str, entries: Sequence[Posted]) -> None:
        """Put entries of one request into the buffer; those of bots and of Do Not Track are dropped silently."""
        now = self._now_ms()
        for entry in entries:
            if not entry.is_dropped:
                self._seen_at[entry.ip, entry.user_agent] = domain_id
                self._pending.append((now, domain_id, entry))
        if len(self._pending) >= _BUFFER_ENTRIES:
            self._flush()

    def domain_of(self, entry: Posted) -> str | None:
        """Where this visitor was last seen: a keep-alive names no page."""
        return self._seen_at.get((entry.ip, entry.user_agent))

    def version(self, domain_id: str) -> int:
        """Changes exactly when rows of this domain do; 0 while nothing was posted to it."""
        if self._pending and self._pending[0][0] + self._flush_ms <= self._now_ms():
            self._flush()
        stream = self._streams.get(domain_id)
        return 0 if stream is None else self._versions[domain_id]

    def rows(self, domain_id: str) -> Rows:
        """The rows of this domain that have been flushed."""
        stream = self._streams[domain_id]
        return Rows(
            sessions=pd.DataFrame(stream.sessions, columns=SESSION_COLUMNS),
            views=pd.DataFrame(stream.views, columns=VIEW_COLUMNS),
            events=pd.DataFrame(stream.events, columns=EVENT_COLUMNS),
        )

    def forget(self, domain_id: str) -> None:
        """Drop everything of a deleted domain."""
        self._pending = [waiting for waiting in self._pending if waiting[1] != domain_id]
        self._streams.pop(domain_id, None)

    def _flush(self) -> None:
        if self._people is None:
            self._people = _People(self._world)
        for _, domain_id, entry in self._pending:
            self._streams.setdefault(domain_id, _Stream()).take(entry, self._people)
            self._versions[domain_id] = self._versions.get(domain_id, 0) + 1
        self._pending.clear()
