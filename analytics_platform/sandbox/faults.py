"""Faults that can be ordered from the sandbox: what goes wrong, on which request, how often.

Belongs here: the vocabulary (`Fault` and its constructors), the order book (`FaultBook`), and the corruption of JSON
bodies. Does not belong here: breaking the bytes on the socket (`wire`), or what a vendor does with a flag such as
`foreign_link` (its observer reads `request.state.fault`).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "BAD_JSON_KINDS",
    "Fault",
    "FaultBook",
    "bad_json",
    "bomb",
    "cursor_loop",
    "cut_body",
    "cut_gzip",
    "delay",
    "drip",
    "duplicate_rows",
    "empty_pages",
    "flag",
    "foreign_link",
    "redirect",
    "reset",
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
    return Fault("status", {"code": code, "headers": dict(headers or {}), "body": body})


def delay(seconds: float) -> Fault:
    """Answer correctly, but only after this many seconds."""
    return Fault("delay", {"seconds": seconds})


def reset(after_bytes: int = 0) -> Fault:
    """Send this many bytes of the body, then reset the connection (RST); 0 resets before the status line."""
    return Fault("reset", {"after_bytes": after_bytes})


def cut_body(fraction: float = 0.5) -> Fault:
    """Announce the whole length, send this fraction of the body, then close."""
    return Fault("cut_body", {"fraction": fraction})


def cut_gzip(fraction: float = 0.67) -> Fault:
    """Send a gzip stream cut to this fraction, with a Content-Length that fits the cut: only the gzip trailer tells."""
    return Fault("cut_gzip", {"fraction": fraction})


def bad_json(kind: str = "truncated") -> Fault:
    """Answer 200 with a body that is not strict JSON; `kind` is one of BAD_JSON_KINDS."""
    if kind not in BAD_JSON_KINDS:
        raise ValueError(f"unknown kind of bad JSON: {kind}")
    return Fault("bad_json", {"kind": kind})


def redirect(location: str, code: int = 302) -> Fault:
    """Answer with a redirect to this place."""
    return Fault("redirect", {"location": location, "code": code})


def drip(seconds: float, pieces: int = 20) -> Fault:
    """Send the body in this many pieces over this many seconds."""
    return Fault("drip", {"seconds": seconds, "pieces": pieces})


def bomb(decoded_bytes: int = 100_000_000, layers: int = 1) -> Fault:
    """Answer with a small gzip body that decodes to this many bytes; two layers announce `gzip, gzip`."""
    return Fault("bomb", {"decoded_bytes": decoded_bytes, "layers": layers})


def foreign_link(url: str = "https://foreign.invalid/") -> Fault:
    """The next-page link points to another origin."""
    return Fault("foreign_link", {"url": url})


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
        TypeError or ValueError when it is something else.
        """
        wanted = dict(order["fault"])
        kind = str(wanted.pop("kind"))
        pattern = order.get("route_regex")
        route: str | re.Pattern[str] = re.compile(pattern) if pattern else str(order.get("route", ""))
        self.add(
            str(order.get("vendor", "*")),
            route,
            fault=Fault(kind, wanted),
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
