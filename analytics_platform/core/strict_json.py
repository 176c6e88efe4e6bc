"""One strict JSON reading for every byte that comes from a vendor.

Belongs here: `parse`, `Document` (the same rules without building what nobody reads), the reasons a body is refused.
Does not belong here: turning records into columns (`core.lake`), writing JSON, content types (`core.http`).

Why not `json.loads`, orjson or DuckDB alone: of one duplicate key they keep different values, orjson turns integers
of 2^64 and more into floats, DuckDB accepts NaN and a trailing comma (RELIABILITY M19). A body that passes here means
the same to all three.

Speed: the stock C scanner does the work. Depth is measured before it runs, on the bytes outside strings, with `bytes`
methods only, because the scanner recurses and a nesting bomb must not reach it. A large body is looked at as an array
first (`core.json_scan`): where that proves that every reader would read the same, msgspec reads it, five times faster.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final, NoReturn

import msgspec

from analytics_platform.core.errors import MalformedResponse
from analytics_platform.core.json_scan import Members, Scanned, scan

__all__ = ["Document", "Listed", "parse", "picked", "split_list", "texts_of"]

_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_BOM = b"\xef\xbb\xbf"
_SURROGATE_PAIR = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

_LARGE_BYTES: Final = 32 * 1024
"""From here on looking at the body as an array costs less than reading it exactly."""
_HUGE_BYTES: Final = 256 * 1024 * 1024
"""Beyond what the scan's numbers are made for (and four times what the transport lets through)."""

_RAW_RECORDS = msgspec.json.Decoder(list[msgspec.Raw])


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
    if _proved(body, max_depth) is not None:
        return msgspec.json.decode(body)
    return _read_exactly(body, max_depth)


@dataclass(frozen=True, kw_only=True)
class Listed:
    """The list of records of a body, split off.

    Args:
        at: the member that is the list; "" is the root.
        start, end: its brackets' place in the body; `end` is behind the closing one.
        records: as they came, views on the body.
        fields: names of the records' members, sorted; None where the records would have to be read for them.
        members: where those members are.
    """

    at: str
    start: int
    end: int
    records: Sequence[msgspec.Raw]
    fields: tuple[str, ...] | None
    members: Members | None = field(default=None, repr=False)


class Document:
    """One strict JSON document: every rule is checked at once, values are built when they are asked for.

    Args:
        body: the decoded bytes of the answer.
        max_depth: as `parse`.

    Raises:
        MalformedResponse: as `parse`.
    """

    def __init__(self, body: bytes, *, max_depth: int = 64) -> None:
        self._body = body
        self._shell: Any = None
        self._listed: Listed | None = None
        found = _proved(body, max_depth, parse_all=False)
        if found is None:
            self.value = _read_exactly(body, max_depth)
            return
        try:
            self._split(found)
        except msgspec.DecodeError:
            # Not JSON: the exact reader says where and why.
            self.value = _read_exactly(body, max_depth)

    def _split(self, found: Scanned) -> None:
        start, end = found.list_start, found.list_end
        if start is None or end is None:
            self.value = msgspec.json.decode(self._body)
            return
        records = split_list(self._body, start, end)
        self._shell = msgspec.json.decode(self._body[: start + 1] + self._body[end - 1 :])
        name = ""
        if isinstance(self._shell, dict):
            # What was scanned has no name with an escape in it, and no white space between a name and its colon.
            name = self._body[:start].rstrip()[:-2].rpartition(b'"')[2].decode()
            if not name:
                return  # "" is the root's name
        self._listed = Listed(
            at=name, start=start, end=end, records=records, fields=found.fields, members=found.members
        )

    @functools.cached_property
    def value(self) -> object:
        """All of it, as `parse` gives it."""
        return msgspec.json.decode(self._body)

    def outline(self, name: str) -> object:
        """The document with the records of its list `name` as they came: `msgspec.Raw` where it is large, values else.

        "" is the root. Only how many there are, and their bytes, mean the same in both.
        """
        listed = self.listed(name)
        if listed is None:
            return self.value
        return listed.records if isinstance(self._shell, list) else {**self._shell, name: listed.records}

    def listed(self, name: str) -> Listed | None:
        """The list of this name, None where it was not split off."""
        return None if self._listed is None or self._listed.at != name else self._listed


def texts_of(body: bytes, listed: Listed | None, fields: Sequence[str]) -> tuple[list[str], ...] | None:
    """Of each record of a body's list only these fields, by field in this order; None where one of them is missing, or
    is not a string that means what is written: then `picked` reads them.
    """
    if listed is None or listed.members is None:
        return None
    found = []
    for name in fields:
        texts = listed.members.texts(body, name)
        if texts is None or len(texts) != len(listed.records):
            return None
        found.append(texts)
    return tuple(found)


def split_list(body: bytes, start: int, end: int) -> list[msgspec.Raw]:
    """The raw elements of the array in these places.

    Raises:
        msgspec.DecodeError: there is none.
    """
    return _RAW_RECORDS.decode(memoryview(body)[start:end])


def picked(body: bytes, name: str, fields: Sequence[str]) -> tuple[list[Any], ...] | None:
    """Of each record of a checked body's list only these fields, by field in this order; what is absent is None.

    Cheap, because nothing else is built. None where the body is not an object with a list of objects: then `parse`
    says what it is.
    """
    try:
        decoder, getters = _picker(name, tuple(fields))
        records = decoder.decode(body).records
        return tuple(list(map(getter, records)) for getter in getters)
    except msgspec.ValidationError:
        return None


@functools.lru_cache(maxsize=32)
def _picker(name: str, fields: tuple[str, ...]) -> tuple[msgspec.json.Decoder[Any], list[Callable[[Any], Any]]]:
    numbered = [f"field_{number}" for number in range(len(fields))]
    names = dict(zip(numbered, fields, strict=True))
    record = msgspec.defstruct("Record", [(field, Any, None) for field in numbered], rename=names, gc=False)
    listing = msgspec.defstruct("Listing", [("records", list[record])], rename={"records": name})  # type: ignore[valid-type]
    return msgspec.json.Decoder(listing), [attrgetter(name) for name in numbered]


def _proved(body: bytes, max_depth: int, *, parse_all: bool = True) -> Scanned | None:
    """What is proved of a large body; None for one that the exact reader has to look at.

    Args:
        parse_all: also that it is JSON at all.
    """
    if not _LARGE_BYTES <= len(body) < _HUGE_BYTES or body.startswith(_BOM):
        return None
    try:
        if not body.isascii():
            body.decode("utf-8")
        # One byte is searched ten times faster than two.
        if b"\\" in body and b"\\u" in body:
            _check_surrogates(body)
        found = scan(body, max_depth=max_depth)
        if found is not None and parse_all:
            msgspec.json.decode(body, type=msgspec.Raw)
    except (UnicodeDecodeError, _RuleError, msgspec.DecodeError):
        return None
    return found


def _read_exactly(body: bytes, max_depth: int) -> object:
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
