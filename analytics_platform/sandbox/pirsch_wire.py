"""How Pirsch writes: its error object, Go's JSON and Go's time.

Belongs here: bytes of answers, refusals, and reading a JSON body. Does not belong here: what is answered (`pirsch`,
`pirsch_management`). Sources: vendor document, "Error Handling"; contracts/pirsch.md A4 ("JSON encoding quirks"), A6.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.responses import Response

__all__ = ["Refused", "answer", "body_of", "go_time", "instant_ms"]

_FRACTION = re.compile(r"\.(\d+)")


class Refused(Exception):
    """A request that is not done; `validation` is by input field, `message` is about the whole."""

    def __init__(self, status: int, *, message: str = "", validation: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"validation": dict(validation or {}), "error": [message] if message else []}
        self.headers: dict[str, str] = {}


def answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON as the vendor's encoder writes it."""
    body = msgspec.json.encode(_go_numbers(value))
    # The vendor's encoder escapes these three; they stand in strings only.
    body = body.replace(b"&", b"\\u0026").replace(b"<", b"\\u003c").replace(b">", b"\\u003e")
    return Response(body, status, dict(headers or {}), media_type="application/json")


def body_of(content: bytes) -> Any:
    """The JSON of a request; raises Refused (400) when it is none."""
    try:
        return msgspec.json.decode(content)
    except msgspec.DecodeError:
        raise Refused(400, message="the body is not JSON") from None


def go_time(nanoseconds: int) -> str:
    """RFC 3339 with up to nine digits of fraction, trailing zeros trimmed, UTC."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    fraction = f".{rest:09d}".rstrip("0").rstrip(".")
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}{fraction}Z"


def instant_ms(text: object) -> int | None:
    """Epoch milliseconds of an RFC 3339 instant (any number of fraction digits), or None."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(_FRACTION.sub(lambda found: f".{found.group(1)[:6]:0<6}", text))
    except ValueError:
        return None
    return None if moment.tzinfo is None else round(moment.timestamp() * 1000)


def _go_numbers(value: object) -> object:
    """Floats without a fraction are written without a point."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, dict):
        return {key: _go_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_go_numbers(item) for item in value]
    return value
