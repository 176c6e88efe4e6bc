"""One strict JSON reading for every byte that comes from a vendor.

Belongs here: `parse`, and the reasons a body is refused.
Does not belong here: turning records into columns (`core.lake`), writing JSON, content types (`core.http`).

Why not `json.loads`, orjson or DuckDB alone: of one duplicate key they keep different values, orjson turns integers
of 2^64 and more into floats, DuckDB accepts NaN and a trailing comma (RELIABILITY M19). A body that passes here means
the same to all three.

Speed: the stock C scanner does the work. Depth is measured before it runs, on the bytes outside strings, with `bytes`
methods only, because the scanner recurses and a nesting bomb must not reach it.
"""

from __future__ import annotations

import json
import math
import re
from typing import NoReturn

from analytics_platform.core.errors import MalformedResponse

__all__ = ["parse"]

_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_BOM = b"\xef\xbb\xbf"
_SURROGATE_PAIR = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class _RuleError(ValueError):
    """A rule of ours, not of the scanner. The text never holds a value of the body."""


def parse(body: bytes, *, max_depth: int = 64) -> object:
    """Read one JSON document, exactly.

    Args:
        body: the decoded bytes of the answer.
        max_depth: deepest allowed nesting of arrays and objects; a scalar has depth 0.

    Returns:
        dicts (order kept), lists, str, int (exact, any size Python reads: up to 4,300 digits), float (finite), bool,
        None.

    Raises:
        MalformedResponse: empty, not UTF-8, a BOM, deeper than `max_depth`, a duplicate key, NaN or Infinity or a
            number that overflows to it, a lone surrogate, trailing data, or any syntax error. Names the position,
            never the content.
    """
    try:
        if not body:
            raise _RuleError("it is empty")
        if body.startswith(_BOM):
            raise _RuleError("it starts with a byte order mark")
        _check_nesting(body, max_depth)
        if b"\\u" in body:
            _check_surrogates(body)
        return _DECODER.decode(body.decode("utf-8"))
    except _RuleError as refused:
        reason = str(refused)
    except json.JSONDecodeError as error:
        # The scanner's own message is a fixed phrase; `error.doc` is the body and must not travel with a traceback.
        reason = f"{error.msg} at character {error.pos}"
    except UnicodeDecodeError as error:
        reason = f"it is not UTF-8 at byte {error.start}"
    except ValueError:
        reason = "it holds an integer of more than 4,300 digits"
    except RecursionError:
        reason = "it is nested too deeply"
    raise MalformedResponse(
        f"The answer is not strict JSON: {reason}.",
        "The page was not used. Look at the vendor's status page; report it to the vendor if it stays.",
    )


def _check_nesting(body: bytes, max_depth: int) -> None:
    if body.count(b"[") + body.count(b"{") <= max_depth:
        return
    brackets = _outside_strings(body).translate(_ONE_KIND, _NOT_BRACKETS)
    for _ in range(max_depth):
        # Each pass takes off exactly the innermost level, so the number of passes is the depth.
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return
    raise _RuleError(f"it is nested deeper than {max_depth} levels, or its brackets do not match")


def _outside_strings(body: bytes) -> bytes:
    """The body without its strings, as the scanner sees it up to the first syntax error."""
    if b"\\" in body:
        # Pairs of backslashes go first, so that what is left before a quote really escapes it.
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(body.split(b'"')[::2])


def _check_surrogates(body: bytes) -> None:
    escapes = body.replace(b"\\\\", b"")
    if _SURROGATE.search(escapes) and _SURROGATE.search(_SURROGATE_PAIR.sub(b"", escapes)):
        raise _RuleError("it holds half of a surrogate pair")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _RuleError("an object has the same key twice")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise _RuleError("a number is too large")
    return number


def _constant(name: str) -> NoReturn:
    raise _RuleError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_finite, parse_constant=_constant)
