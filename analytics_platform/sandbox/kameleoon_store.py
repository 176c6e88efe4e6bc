"""What was written to the sandbox's Kameleoon: events of visits and products, maps, visitors to be forgotten.

Belongs here: reading a posted body line by line, the delay until it is visible, and the store that reads ask. Does not
belong here: what the truth says (`kameleoon`), routes, statuses and limits (`kameleoon`), the wire (`wire`).

Sources: contracts/kameleoon B3 (a body is read after the 204: bad lines vanish), B4 (visit events), B6 (forget), B7
(products), B8 (maps: a map replaces the map before it, `{}` removes it, a time to live in hours).
All times are epoch milliseconds of the present of what is written (`ServerContext.now_ms`).
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol
from urllib.parse import unquote

import msgspec

__all__ = [
    "MAX_CODE_LENGTH",
    "PRODUCT_KINDS",
    "Fields",
    "Posted",
    "StoredEvent",
    "StoredVisit",
    "Truth",
    "WrittenSite",
    "read_events",
]

MAX_CODE_LENGTH: Final = 100
"""Characters of a visitor code, product code or map key (contract B4, B7, B8)."""
_FIELD_NAME_LENGTH: Final = 1024
_HOUR_MS: Final = 3_600_000
_NONCE: Final = re.compile(r"[0-9a-fA-F]{16}")

PRODUCT_KINDS: Final[Mapping[str, str]] = {
    "productpage": "view",
    "productaddtocart": "add_to_cart",
    "productbuy": "purchase",
}
"""`eventType`, lower-cased, to the word the truth uses."""


# --- a posted body ----------------------------------------------------------------------------------------------------

Fields = Mapping[str, Any]
"""Parameters of one event; texts in a text body, JSON values in a JSON body."""


def read_events(body: bytes, *, as_json: bool) -> list[Fields]:
    """The events of a body; what cannot be read is left out without a word."""
    if as_json:
        try:
            found = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return []
        return [event for event in found if isinstance(event, dict)] if isinstance(found, list) else []
    return [event for line in body.split(b"\n") if (event := _line_fields(line)) is not None]


def _line_fields(line: bytes) -> Fields | None:
    try:
        text = line.decode("utf-8").strip()
        pairs = [part.partition("=") for part in text.split("&")]
        # Written by encodeURIComponent: a plus sign is a plus sign.
        fields = {name: unquote(value, errors="strict") for name, equals, value in pairs if name and equals}
    except UnicodeDecodeError:
        return None
    return fields or None


class _UnreadableError(ValueError):
    """This parameter makes the event vanish."""


def _number(fields: Fields, name: str, *, default: float | None = None) -> float:
    value = fields.get(name, default)
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        raise _UnreadableError(name) from None
    if not math.isfinite(number):
        raise _UnreadableError(name)
    return number


def _whole(fields: Fields, name: str, *, default: int | None = None) -> int:
    number = _number(fields, name, default=default)
    if number != int(number):
        raise _UnreadableError(name)
    return int(number)


def _flag(fields: Fields, name: str) -> bool:
    return str(fields.get(name, "false")).lower() == "true"


def _text(fields: Fields, name: str) -> str | None:
    value = fields.get(name)
    return value if isinstance(value, str) and value else None


def _json(fields: Fields, name: str, kind: type) -> Any:
    """A parameter that is JSON: text in a text body, text or the value itself in a JSON body; None when absent."""
    value = fields.get(name)
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            raise _UnreadableError(name) from None
    if value is not None and not isinstance(value, kind):
        raise _UnreadableError(name)
    return value


def _page(fields: Fields) -> dict[str, object]:
    return {
        "href": _text(fields, "href"),
        "canonicalHref": _text(fields, "canonicalHref"),
        "title": _text(fields, "title"),
        "keyPagesIndices": _json(fields, "keyPagesIndices", list) or [None],
        "referrerHref": _text(fields, "referrerHref"),
        "referrersIndices": _json(fields, "referrersIndices", list) or [None],
    }


def _conversion(fields: Fields) -> dict[str, object]:
    data: dict[str, object] = {
        "goalId": _whole(fields, "goalId"),
        "revenue": _number(fields, "revenue", default=0.0),
        "negative": _flag(fields, "negative"),
    }
    metadata = _json(fields, "metadata", dict)
    return data if metadata is None else {**data, "metadata": metadata}


def _custom_data(fields: Fields) -> dict[str, object]:
    counts = _json(fields, "valuesCountMap", dict)
    if counts is None:
        raise _UnreadableError("valuesCountMap")
    return {
        "index": _whole(fields, "index"),
        "valuesCountMap": counts,
        "overwrite": _flag(fields, "overwrite"),
        "mappingIdentifier": _flag(fields, "mappingIdentifier"),
    }


def _variation(fields: Fields) -> dict[str, object]:
    return {"id": _whole(fields, "id"), "variationId": _whole(fields, "variationId", default=0)}


def _geolocation(fields: Fields) -> dict[str, object]:
    place: dict[str, object] = {name: _text(fields, name) for name in ("country", "region", "city", "postalCode")}
    for name in ("latitude", "longitude"):
        place[name] = _number(fields, name) if fields.get(name) not in (None, "") else None
    return place


_BROWSERS: Final = ("CHROME", "IE", "FIREFOX", "SAFARI", "OPERA", "OTHER")
_SYSTEMS: Final = ("WINDOWS", "MAC", "IOS", "LINUX", "ANDROID", "WINDOWS_PHONE")
"""Names by their index on the wire (contract B4; the official clients' enumerations)."""
_STATIC_NUMBERS: Final = (
    "visitNumber", "timeSincePreviousVisit", "browserIndex", "osIndex", "windowWidth", "windowHeight", "screenWidth",
    "screenHeight",
)  # fmt: skip


def _static_data(fields: Fields) -> dict[str, object]:
    """Only what was told: the official clients tell of the device, the browser and the system one by one."""
    texts = ("firstReferrerHref", "browser", "os", "timeZoneId", "localeLanguageTag", "deviceType")
    data: dict[str, object] = {name: text for name in texts if (text := _text(fields, name)) is not None}
    data |= {name: _whole(fields, name) for name in _STATIC_NUMBERS if fields.get(name) not in (None, "")}
    if fields.get("browserVersion") not in (None, ""):
        data["browserVersion"] = _number(fields, "browserVersion")
    return {**_named(data, "browserIndex", "browser", _BROWSERS), **_named(data, "osIndex", "os", _SYSTEMS), **data}


def _named(data: Mapping[str, object], index: str, name: str, names: Sequence[str]) -> dict[str, object]:
    """The name that goes with an index, or the index that goes with a name."""
    if name in data:
        return {index: names.index(str(data[name]).upper())} if str(data[name]).upper() in names else {}
    number = data.get(index)
    return {name: names[number]} if isinstance(number, int) and 0 <= number < len(names) else {}


_AGENT_BROWSERS: Final = (("OPR/", "OPERA"), ("Firefox/", "FIREFOX"), ("Chrome/", "CHROME"), ("Safari/", "SAFARI"))
_AGENT_SYSTEMS: Final = (
    ("Android", "ANDROID"), ("iPhone", "IOS"), ("iPad", "IOS"), ("Mac OS", "MAC"), ("Windows", "WINDOWS"),
)  # fmt: skip


def _device_of(agent: str) -> dict[str, object]:
    """What a browser's user agent tells; nothing of anything else."""
    if not agent.startswith("Mozilla/"):
        return {}
    browser = next((name for mark, name in _AGENT_BROWSERS if mark in agent), "OTHER")
    system = next((name for mark, name in _AGENT_SYSTEMS if mark in agent), "LINUX")
    is_tablet = "iPad" in agent or ("Android" in agent and "Mobile" not in agent)
    device = "TABLET" if is_tablet else "PHONE" if "Mobile" in agent else "DESKTOP"
    named = {"browserIndex": _BROWSERS.index(browser), "osIndex": _SYSTEMS.index(system)}
    return {"browser": browser, "os": system, "deviceType": device, **named}


_READERS: Final[Mapping[str, tuple[str, Callable[[Fields], dict[str, object]]]]] = {
    "page": ("page", _page),
    "conversion": ("conversion", _conversion),
    "customdata": ("customData", _custom_data),
    "experiment": ("experiment", _variation),
    "personalization": ("personalization", _variation),
    "targetingsegment": ("targetingSegment", lambda fields: {"id": _whole(fields, "id")}),
    "geolocation": ("geolocation", _geolocation),
    "staticdata": ("staticData", _static_data),
    "activity": ("activity", lambda fields: {"clicks": _whole(fields, "clicks", default=0)}),
}
"""`eventType`, lower-cased (the documents write it in capitals, the clients in camel case), to flag and reader."""


# --- the store --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class StoredEvent:
    """One event as `GET /visit/visitor` shows it; `flag` is the query parameter that asks for it."""

    flag: str
    at_ms: int
    data: Mapping[str, object]
    sdk: Mapping[str, str] | None

    def body(self) -> dict[str, object]:
        """The event on the wire."""
        told: dict[str, object] = {"data": self.data, "itp": False, "time": self.at_ms}
        return told if self.sdk is None else {**told, "sdk": self.sdk}


@dataclass(kw_only=True)
class StoredVisit:
    """A visit that events were written to.

    `continues` is the visit of the truth it goes on from, if it does; `device` what was told of the device by
    staticData events or a user agent, and `device_told_ms` when first.
    """

    start_ms: int
    last_ms: int
    continues: int | None = None
    events: list[StoredEvent] = field(default_factory=list)
    device: dict[str, object] = field(default_factory=dict)
    device_told_ms: int = 0

    def tell_device(self, at_ms: int, guessed: Mapping[str, object], told: Mapping[str, object]) -> None:
        """Add what is known of the device: what was told counts for more than what a user agent lets guess."""
        if guessed or told:
            self.device_told_ms = self.device_told_ms or at_ms
            self.device = {**guessed, **self.device, **told}


@dataclass(frozen=True, kw_only=True)
class Posted:
    """What a POST of visit events says about all of its events; `agent` is None where they tell their own."""

    visitor_code: str | None = None
    mapping_value: str | None = None
    sdk: Mapping[str, str] | None = None
    agent: str | None = None


@dataclass(frozen=True)
class _Map:
    fields: Mapping[str, object]
    expires_ms: int


class Truth(Protocol):
    """What the store asks about the past that nobody wrote."""

    def latest_visit(self, code: str) -> tuple[int, int, int] | None:
        """Index, start and end of a visitor's last visit."""
        ...

    def codes_of(self, mapping_value: str) -> Sequence[str]:
        """Visitor codes of a mapping identifier, in order of their first visit."""
        ...


class WrittenSite:
    """Everything written about one site, visible `delay_ms` after it was accepted.

    Every read first applies what has become visible, in the order it was accepted.

    Args:
        now_ms: the present.
        delay_ms: from 204 to visible.
        idle_ms: an event this long after a visit's last one begins a new visit.
        truth: the past.
        is_bot: whether a user agent told in the body is refused.
    """

    def __init__(
        self,
        *,
        now_ms: Callable[[], int],
        delay_ms: int,
        idle_ms: int,
        truth: Truth,
        is_bot: Callable[[str], bool],
    ) -> None:
        self._now_ms = now_ms
        self._delay_ms = delay_ms
        self._idle_ms = idle_ms
        self._truth = truth
        self._is_bot = is_bot
        self._pending: deque[tuple[int, Callable[[], object]]] = deque()
        self._nonces: set[str] = set()
        self._visits: dict[str, list[StoredVisit]] = {}
        self._mapped: dict[str, list[str]] = {}
        self._forgotten: set[str] = set()
        self._maps: dict[str, _Map] = {}
        self._product_events: dict[str, list[tuple[int, str, int]]] = {}
        self._attributes: dict[str, dict[str, object]] = {}

    # accepting -------------------------------------------------------------------------------------------------------

    def post_visit_events(self, events: Iterable[Fields], posted: Posted) -> None:
        """Accept events of visits."""
        now = self._now_ms()
        for event in events:
            self._later(partial(self._add_event, event, posted, now))

    def post_product_events(self, events: Iterable[Fields], ean: str | None) -> None:
        """Accept events of products; the code of the URL wins over the event's own."""
        now = self._now_ms()
        for event in events:
            self._later(partial(self._add_product_event, event, ean, now))

    def post_maps(self, body: bytes, *, ttl_hours: int) -> None:
        """Accept maps: each replaces what its key held, `{}` removes it."""
        try:
            maps = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        expires_ms = self._now_ms() + ttl_hours * _HOUR_MS
        if isinstance(maps, dict):
            self._later(partial(self._store_maps, maps, expires_ms))

    def forget(self, codes: Iterable[str]) -> None:
        """Accept visitors to be forgotten."""
        for code in codes:
            self._later(partial(self._forget, code))

    def _later(self, action: Callable[[], object]) -> None:
        self._pending.append((self._now_ms() + self._delay_ms, action))

    def settle(self) -> None:
        """Apply what has become visible."""
        now = self._now_ms()
        while self._pending and self._pending[0][0] <= now:
            self._pending.popleft()[1]()

    # applying --------------------------------------------------------------------------------------------------------

    def _add_event(self, fields: Fields, posted: Posted, now: int) -> None:
        kind, reader = _READERS.get(str(fields.get("eventType", "")).lower(), ("", _page))
        nonce = fields.get("nonce")
        code = self._code(fields, posted)
        if not kind or code is None or not isinstance(nonce, str) or not _NONCE.fullmatch(nonce):
            return
        agent = posted.agent or _text(fields, "userAgent")
        if nonce.lower() in self._nonces or (agent is not None and self._is_bot(agent)):
            return
        try:
            data = reader(fields)
        except _UnreadableError:
            return
        self._nonces.add(nonce.lower())
        visit = self._visit_of(code, now)
        visit.last_ms = max(visit.last_ms, now)
        visit.tell_device(now, _device_of(agent or ""), data if kind == "staticData" else {})
        if kind != "staticData":
            visit.events.append(StoredEvent(flag=kind, at_ms=now, data=data, sdk=posted.sdk))
        if data.get("mappingIdentifier") is True:
            for value in _json(fields, "valuesCountMap", dict):
                self._map_code(str(value), code)

    def _code(self, fields: Fields, posted: Posted) -> str | None:
        """Whose event this is; the URL wins. An unknown mapping value is a visitor of that code."""
        if posted.visitor_code is not None:
            return posted.visitor_code
        own = None if posted.mapping_value is not None else _text(fields, "visitorCode")
        value = posted.mapping_value or _text(fields, "mappingValue")
        if own is None and value is not None:
            own = (self.codes_of(value) or [value])[-1]
            self._map_code(value, own)
        return own if own is not None and len(own) <= MAX_CODE_LENGTH else None

    def _map_code(self, value: str, code: str) -> None:
        codes = self._mapped.setdefault(value, [])
        if code in codes:
            codes.remove(code)
        codes.append(code)

    def _visit_of(self, code: str, now: int) -> StoredVisit:
        visits = self._visits.setdefault(code, [])
        if not visits and code not in self._forgotten:
            latest = self._truth.latest_visit(code)
            if latest is not None and now - latest[2] <= self._idle_ms:
                visits.append(StoredVisit(start_ms=latest[1], last_ms=latest[2], continues=latest[0]))
        if not visits or now - visits[-1].last_ms > self._idle_ms:
            visits.append(StoredVisit(start_ms=now, last_ms=now))
        return visits[-1]

    def _add_product_event(self, fields: Fields, ean: str | None, now: int) -> None:
        kind = PRODUCT_KINDS.get(str(fields.get("eventType", "")).lower())
        code = ean or _text(fields, "ean")
        nonce = fields.get("nonce")
        # The vendor's own browser client sends none, so only a nonce that is there is judged (contract B7).
        if nonce is not None and (not isinstance(nonce, str) or not _NONCE.fullmatch(nonce)):
            return
        if kind is None or code is None or len(code) > MAX_CODE_LENGTH:
            return
        if nonce is not None and nonce.lower() in self._nonces:
            return
        try:
            quantity = 1 if kind == "view" else _whole(fields, "quantity", default=1)
            told = _attributes(fields) if kind == "view" else {}
        except _UnreadableError:
            return
        if nonce is not None:
            self._nonces.add(nonce.lower())
        self._product_events.setdefault(code, []).append((now, kind, quantity))
        if told:
            self._attributes.setdefault(code, {}).update(told)

    def _store_maps(self, maps: Mapping[str, object], expires_ms: int) -> None:
        for key, fields in maps.items():
            is_readable = isinstance(fields, dict) and all(len(name) <= _FIELD_NAME_LENGTH for name in fields)
            if is_readable and 0 < len(key) <= MAX_CODE_LENGTH:
                self._maps[key] = _Map(fields, expires_ms)  # type: ignore[arg-type]

    def _forget(self, code: str) -> None:
        self._visits.pop(code, None)
        self._forgotten.add(code)
        self._maps[code] = _Map({}, 0)
        for codes in self._mapped.values():
            if code in codes:
                codes.remove(code)

    # reading ---------------------------------------------------------------------------------------------------------

    def is_forgotten(self, code: str) -> bool:
        """Whether the truth about this visitor is gone; what was written since is not."""
        return code in self._forgotten

    def visits_of(self, code: str) -> list[StoredVisit]:
        """Visits that events were written to, in order of time."""
        return self._visits.get(code, [])

    def codes_of(self, mapping_value: str) -> list[str]:
        """Visitor codes of a mapping identifier, the one seen last at the end; forgotten ones are not among them."""
        written = self._mapped.get(mapping_value, [])
        past = [code for code in self._truth.codes_of(mapping_value) if code not in (*written, *self._forgotten)]
        return [*past, *written]

    def map_of(self, key: str) -> Mapping[str, object] | None:
        """The map written under a key, `{}` when it was removed or is over; None when none ever was."""
        found = self._maps.get(key)
        if found is None:
            return None
        return found.fields if self._now_ms() < found.expires_ms else {}

    def product_events_of(self, ean: str, begin_ms: float, end_ms: float) -> Iterator[tuple[str, int]]:
        """Kind and quantity of the events written about a product in [begin, end]."""
        return (
            (kind, quantity)
            for at_ms, kind, quantity in self._product_events.get(ean, ())
            if begin_ms <= at_ms <= end_ms
        )

    def attributes_of(self, ean: str) -> Mapping[str, object]:
        """Attributes written about a product, the latest of each."""
        return self._attributes.get(ean, {})


_NOT_ATTRIBUTES: Final = frozenset({"nonce", "eventType", "ean", "visitorCode", "userAgent", "quantity"})


def _attributes(fields: Fields) -> dict[str, object]:
    """Every parameter of a product page that is not about the event itself."""
    told = {name: value for name, value in fields.items() if name not in _NOT_ATTRIBUTES}
    return {**told, "price": _number(fields, "price")} if "price" in told else told
