"""Faults that can be ordered from the sandbox: what goes wrong, on which request, how often.

Belongs here: the vocabulary (`Fault`, its constructors, `KINDS`), the order book (`FaultBook`), and the changes to JSON
bodies (`spoil`, `drifted`). Does not belong here: breaking the bytes on the socket (`wire`), or what a vendor does with
a flag such as `foreign_link` (its observer reads `request.state.fault`). The vocabulary is explained, with an example
of each kind, in docs/sandbox.md.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import msgspec

__all__ = [
    "BAD_JSON_KINDS",
    "DRIFT_CHANGES",
    "KINDS",
    "RETYPES",
    "Fault",
    "FaultBook",
    "Kind",
    "bad_json",
    "bomb",
    "clock_skew",
    "cursor_loop",
    "cut_body",
    "cut_gzip",
    "delay",
    "drift",
    "drifted",
    "drip",
    "duplicate_rows",
    "empty_pages",
    "flag",
    "foreign_link",
    "records_in",
    "redirect",
    "reset",
    "slow",
    "spoil",
    "status",
]


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong. `kind` names it, `parameters` say how much."""

    kind: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


def status(code: int, *, headers: Mapping[str, str] | None = None, body: bytes | str = b"") -> Fault:
    """Answer with this status, headers and body instead of the vendor's answer; the vendor's code is not run."""
    if not 200 <= int(code) <= 599:
        raise ValueError("a status is a number from 200 to 599")
    return Fault("status", {"code": int(code), "headers": dict(headers or {}), "body": body})


def delay(seconds: float) -> Fault:
    """Answer correctly, but only after this many seconds."""
    return Fault("delay", {"seconds": float(seconds)})


def reset(after_bytes: int = 0) -> Fault:
    """Send this many bytes of the body, then reset the connection (RST); 0 resets before the status line."""
    return Fault("reset", {"after_bytes": int(after_bytes)})


def cut_body(fraction: float = 0.5) -> Fault:
    """Announce the whole length, send this fraction of the body, then close."""
    return Fault("cut_body", {"fraction": float(fraction)})


def cut_gzip(fraction: float = 0.67) -> Fault:
    """Send a gzip stream cut to this fraction, with a Content-Length that fits the cut: only the gzip trailer tells."""
    return Fault("cut_gzip", {"fraction": float(fraction)})


def bad_json(how: str = "truncated") -> Fault:
    """Answer with a body that is not strict JSON; `how` is one of BAD_JSON_KINDS."""
    if how not in BAD_JSON_KINDS:
        raise ValueError(f"unknown kind of bad JSON: {how}")
    return Fault("bad_json", {"how": how})


def redirect(location: str, code: int = 302) -> Fault:
    """Answer with a redirect to this place."""
    return Fault("redirect", {"location": str(location), "code": int(code)})


def drip(seconds: float, pieces: int = 20) -> Fault:
    """Send the body in this many pieces over this many seconds."""
    return Fault("drip", {"seconds": float(seconds), "pieces": int(pieces)})


def slow(bytes_per_second: float, first_byte_seconds: float = 0.0) -> Fault:
    """Answer correctly over a thin line: nothing for `first_byte_seconds`, then no faster than this."""
    if float(bytes_per_second) <= 0:
        raise ValueError("bytes_per_second is above zero")
    return Fault("slow", {"bytes_per_second": float(bytes_per_second), "first_byte_seconds": float(first_byte_seconds)})


def bomb(decoded_bytes: int = 100_000_000, layers: int = 1) -> Fault:
    """Answer with a small gzip body that decodes to this many bytes; two layers announce `gzip, gzip`."""
    return Fault("bomb", {"decoded_bytes": int(decoded_bytes), "layers": int(layers)})


def clock_skew(seconds: float) -> Fault:
    """Answer as a server whose clock is this many seconds ahead (negative: behind): the `Date` header, and every
    instant of the present the vendor states or stores while it serves this request (`ServerContext.now_ms`, `wall_ns`).
    """
    return Fault("clock_skew", {"seconds": float(seconds)})


def drift(change: str, field: str, *, to: str = "", value: object = "drifted", retype: str = "", at: str = "") -> Fault:
    """Answer with records whose schema has drifted.

    Args:
        change: one of DRIFT_CHANGES.
        field: the record's member, dotted for a member of a member ("identification.uid").
        to: new name of a renamed member (its last part only).
        value: of an added member.
        retype: what a retyped member becomes, one of RETYPES.
        at: where the records are, as a dotted path from the root, "." for the root itself; the outermost lists of
            objects unless told (the root where there is none). A path ending in "{}" takes each member of the object
            there as a record.
    """
    if change not in DRIFT_CHANGES:
        raise ValueError(f"unknown change: {change}")
    if not field or (change == "rename" and not to) or (change == "retype" and retype not in RETYPES):
        raise ValueError("a change names its field, a renamed field its new name, a retyped one its new type")
    return Fault("drift", {"change": change, "field": field, "to": to, "value": value, "retype": retype, "at": at})


def foreign_link() -> Fault:
    """The next-page link points to another origin, the one the vendor's own document got wrong where there is one."""
    return Fault("foreign_link")


def cursor_loop() -> Fault:
    """The next-page cursor leads back to this page."""
    return Fault("cursor_loop")


def empty_pages() -> Fault:
    """The page is empty but claims that there is a next one."""
    return Fault("empty_pages")


def duplicate_rows() -> Fault:
    """The page repeats some of its rows."""
    return Fault("duplicate_rows")


def flag(name: str, **parameters: Any) -> Fault:
    """Any fault an observer understands by name."""
    return Fault(name, parameters)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One word of the vocabulary.

    Args:
        make: its constructor; the parameters of an order posted on the control route are the constructor's.
        vendors: who answers it: None is every port, the token host included (the wire does it); else the vendors whose
            protocol has what breaks.
    """

    make: Callable[..., Fault]
    vendors: frozenset[str] | None = None


_LINKS: Final = frozenset({"smartlook", "kissmetrics"})
_PAGES: Final = _LINKS | {"inspectlet"}

KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "status": Kind(make=status),
        "redirect": Kind(make=redirect),
        "delay": Kind(make=delay),
        "drip": Kind(make=drip),
        "slow": Kind(make=slow),
        "reset": Kind(make=reset),
        "cut_body": Kind(make=cut_body),
        "cut_gzip": Kind(make=cut_gzip),
        "bomb": Kind(make=bomb),
        "bad_json": Kind(make=bad_json),
        "drift": Kind(make=drift),
        "clock_skew": Kind(make=clock_skew),
        "foreign_link": Kind(make=foreign_link, vendors=_LINKS),
        "cursor_loop": Kind(make=cursor_loop, vendors=_PAGES),
        "empty_pages": Kind(make=empty_pages, vendors=_PAGES),
        "duplicate_rows": Kind(make=duplicate_rows, vendors=_PAGES | {"pirsch"}),
    }
)
"""Every fault that can be ordered by name. Who pages by no link has no foreign one to give, and who does not page has
no cursor and no empty page (contracts: Inspectlet counts pages, Pirsch cuts at 100 rows, Kameleoon answers whole)."""


@dataclass
class _Order:
    vendor: str
    route: str | re.Pattern[str]
    nth: int
    times: int
    fault: Fault
    seen: int = 0

    def matches(self, vendor: str, target: str) -> bool:
        if self.vendor not in ("*", vendor):
            return False
        return self.route in target if isinstance(self.route, str) else bool(self.route.search(target))


class FaultBook:
    """Thread-safe list of ordered faults; each request takes at most one (the oldest order that is due)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._orders: list[_Order] = []

    def add(self, vendor: str, route: str | re.Pattern[str], *, fault: Fault, nth: int = 1, times: int = 1) -> None:
        """Order a fault on the `nth` (from 1) and following `times` requests that match, counted from now.

        Args:
            vendor: the vendor's name ("kameleoon_auth" for its token host), or "*".
            route: substring of, or compiled pattern searched in, "METHOD /path?query".
            fault: what happens.
            nth: which matching request is the first to suffer.
            times: how many suffer; a large number means all.
        """
        if nth < 1 or times < 1:
            raise ValueError("nth and times count from 1")
        with self._lock:
            self._orders.append(_Order(vendor, route, nth, times, fault))

    def add_json(self, order: Mapping[str, Any]) -> None:
        """Order a fault as posted on the control route.

        `{"vendor", "route" | "route_regex", "nth", "times", "fault": {"kind", …parameters}}`; raises KeyError,
        TypeError or ValueError when it is something else: a kind that does not exist, a parameter it does not have, a
        vendor whose protocol has nothing of the sort.
        """
        unknown = set(order) - {"vendor", "route", "route_regex", "nth", "times", "fault"}
        wanted = dict(order["fault"])
        kind = str(wanted.pop("kind"))
        if unknown or kind not in KINDS:
            raise ValueError(f"unknown: {', '.join(sorted(unknown)) or kind}")
        vendor = str(order.get("vendor", "*"))
        takers = KINDS[kind].vendors
        if takers is not None and vendor != "*" and vendor not in takers:
            raise ValueError(f"{vendor} has nothing that {kind} could break")
        pattern = order.get("route_regex")
        try:
            route: str | re.Pattern[str] = re.compile(pattern) if pattern else str(order.get("route", ""))
        except re.error as error:
            raise ValueError(f"route_regex: {error}") from error
        self.add(
            vendor,
            route,
            fault=KINDS[kind].make(**wanted),
            nth=int(order.get("nth", 1)),
            times=int(order.get("times", 1)),
        )

    def take(self, vendor: str, target: str) -> Fault | None:
        """The fault this request must suffer, or None. Counts the request against every order that matches."""
        with self._lock:
            if not self._orders:
                return None
            due: Fault | None = None
            for order in self._orders:
                if not order.matches(vendor, target):
                    continue
                order.seen += 1
                if due is None and order.nth <= order.seen < order.nth + order.times:
                    due = order.fault
            return due

    def clear(self) -> None:
        """Forget every order."""
        with self._lock:
            self._orders.clear()

    def pending(self) -> list[dict[str, object]]:
        """Orders that are not used up, oldest first, as numbers and names: vendor, route, kind, left."""
        with self._lock:
            return [
                {
                    "vendor": order.vendor,
                    "route": order.route if isinstance(order.route, str) else order.route.pattern,
                    "kind": order.fault.kind,
                    "left": order.nth + order.times - 1 - max(order.seen, order.nth - 1),
                }
                for order in self._orders
                if order.seen < order.nth + order.times - 1
            ]


BAD_JSON_KINDS = (
    "truncated", "trailing", "nan", "infinity", "huge_float", "duplicate_key", "bom", "surrogate", "utf8", "utf16",
    "deep",    "html", "empty", "single_quotes",
)  # fmt: skip


def spoil(body: bytes, kind: str) -> bytes:
    """The body made invalid in the way `kind` says (see BAD_JSON_KINDS)."""
    fixed: dict[str, bytes] = {
        "html": b"<!doctype html><title>502 Bad Gateway</title>",
        "empty": b"",
        "nan": b'{"value": NaN, "was": ' + body + b"}",
        "infinity": b'{"value": -Infinity, "was": ' + body + b"}",
        "huge_float": b'{"value": 1e999, "was": ' + body + b"}",
        "duplicate_key": b'{"was": null, "was": ' + body + b"}",
        "surrogate": b'{"value": "\\ud800", "was": ' + body + b"}",
        "utf8": b'{"value": "\xff\xfe", "was": ' + body + b"}",
        "deep": b"[" * 5_000 + body + b"]" * 5_000,
        "bom": b"\xef\xbb\xbf" + body,
        "trailing": body + b'{"more": true}',
        "single_quotes": body.replace(b'"', b"'") if b'"' in body else b"{'a': 1}",
    }
    if kind in fixed:
        return fixed[kind]
    if kind == "utf16":
        return body.decode("utf-8").encode("utf-16")
    return body[: max(1, len(body) * 2 // 3)] if len(body) > 1 else b"{"


# --- schema drift ----------------------------------------------------------------------------------------------------

DRIFT_CHANGES: Final = ("add", "remove", "rename", "retype")
RETYPES: Final = ("text", "number", "boolean", "null", "list", "object")


def drifted(body: bytes, parameters: Mapping[str, Any]) -> bytes:
    """The JSON body with the change of `drift` made in every record; a body that is no JSON stays as it is.

    Members keep their order, floats their shortest form. A record that does not have the member is left alone, except
    by "add".
    """
    try:
        parsed = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return body
    *parents, name = str(parameters["field"]).split(".")
    for record in records_in(parsed, str(parameters.get("at", ""))):
        holder: object = record
        for parent in parents:
            holder = holder.get(parent) if isinstance(holder, dict) else None
        if isinstance(holder, dict):
            _change(holder, name, parameters)
    return msgspec.json.encode(parsed)


def records_in(parsed: object, at: str = "") -> Iterator[dict[str, Any]]:
    """The records of an answer: the objects of the list at the dotted path `at`, or of the outermost lists anywhere;
    the object itself where there is no list. "." is the root, "{}" at the end of the path each member that is an
    object.
    """
    if at == ".":
        at, parsed = "root", {"root": parsed}
    path = at.removesuffix("{}").removesuffix(".")
    for name in path.split(".") if path else ():
        parsed = parsed.get(name) if isinstance(parsed, dict) else None
    if at.endswith("{}"):
        found = list(parsed.values()) if isinstance(parsed, dict) else []
    elif at:
        found = parsed if isinstance(parsed, list) else [parsed]
    else:
        found = list(_listed(parsed)) or [parsed]
    yield from (record for record in found if isinstance(record, dict))


def _listed(value: object) -> Iterator[object]:
    if isinstance(value, list):
        yield from value
    elif isinstance(value, dict):
        for member in value.values():
            yield from _listed(member)


def _change(holder: dict[str, Any], name: str, parameters: Mapping[str, Any]) -> None:
    change = parameters["change"]
    if change == "add":
        holder[name] = parameters.get("value", "drifted")
    elif name not in holder:
        return
    elif change == "remove":
        del holder[name]
    elif change == "rename":
        renamed = {(str(parameters["to"]) if key == name else key): value for key, value in holder.items()}
        holder.clear()
        holder.update(renamed)
    else:
        holder[name] = _retyped(holder[name], str(parameters["retype"]))


def _retyped(value: object, retype: str) -> object:
    if retype == "text":
        return value if isinstance(value, str) else f"about {value}"
    if retype == "number":
        return 4.5
    return {"boolean": True, "null": None, "list": [value], "object": {"value": value}}[retype]
