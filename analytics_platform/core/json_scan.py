"""A large JSON body looked at as an array: whether anything in it could be read in two ways, and where its list is.

Belongs here: the scan, on NumPy. Does not belong here: what is refused and in which words (`core.strict_json`), syntax:
a body is scanned beside a parser that knows the grammar, and what is found here holds for bodies that it accepts.

The scan proves, it never refuses: a body with an unusual feature (a name twice, a number that only arbitrary precision
holds, white space before a colon) is left to the exact reader, which is ten times slower. What is proved, for a body
that is JSON: no object has a name twice, no number is beyond 64 bits or the doubles, nothing is nested too deeply.

How. Quotes alternate once escaped ones are out of the way, so a few array operations give every string; a string with a
colon behind it is a name. What is between strings is a tenth of the body: there the brackets are, and the numbers. The
object a name belongs to is the bracket that was opened last at the name's depth. Equal (object, length, first 8 and
last 16 bytes) are taken for the same name: never missed, and a mistake costs only the exact reading. The same hashes
without their objects tell which names the records have, so that nobody has to read them again to find a new one.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from analytics_platform.core.arena import keep_freed_memory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Members", "Scanned", "scan"]

_QUOTE, _COLON, _BACKSLASH = b'":\\'
_PADDING: Final = b" " * 16
_LONGEST_EXACT_DIGITS: Final = 18
"""More in a row may be beyond 64 bits."""
_HASHED_BYTES: Final = 24
"""Of a longer name not every byte is looked at: enough to see it twice, not to say what it is."""
_MOST_FIELDS: Final = 256


@dataclass(frozen=True, kw_only=True)
class Members:
    """Where the members of an array's objects are, in order. Positions are offsets into the body.

    Args:
        hashes: of each name.
        values: behind the colon.
        closers: the closing quote of the first string behind the name; before the body where there is none.
    """

    hashes: NDArray[np.uint64]
    values: NDArray[np.int32]
    closers: NDArray[np.int32]

    def texts(self, body: bytes, name: str) -> list[str] | None:
        """The values of this member, where all of them are strings as they are written: no escape, no white space in
        front. An object without the member has no place in the list.
        """
        import numpy as np

        written = _PADDING + name.encode() + _PADDING
        place = np.array([len(_PADDING) - 1], np.int32), np.array([len(written) - len(_PADDING)], np.int32)
        found = np.flatnonzero(self.hashes == _hashes(np, written, *place))
        values, ends = self.values[found], self.closers[found]
        # The string behind the name is its value only if it begins where the value does.
        if not len(found) or not bool(np.all(np.frombuffer(body, np.uint8)[values] == _QUOTE)):
            return None
        texts = _cut(np, body, values + 1, ends)
        if b"\\" in body and any(b"\\" in text for text in texts):
            return None
        return [text.decode() for text in texts]


def _cut(np: Any, body: bytes, starts: NDArray[np.int32], ends: NDArray[np.int32]) -> list[bytes]:
    """The stretches of the body between these places."""
    lengths = ends - starts
    length = int(lengths[0])
    if length and bool(np.all(lengths == length)):
        every = np.ndarray((len(body) - length,), f"S{length}", buffer=body, strides=(1,))
        cut: list[bytes] = every[starts].tolist()
        return cut
    return [body[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


@dataclass(frozen=True, kw_only=True)
class Scanned:
    """What the scan found. Positions are offsets into the body, `list_end` is behind the bracket.

    Args:
        list_start, list_end: the longest array that is the body or a member of the body's object; None without one.
        fields: names of the members of the objects in that array, sorted; None where there is no array, or they are too
            many or too long to say.
        members: where those members are.
    """

    list_start: int | None
    list_end: int | None
    fields: tuple[str, ...] | None = None
    members: Members | None = None


class _Names(NamedTuple):
    """Every name of the body: where it is, where the string behind it ends, what it is (a hash), in which container and
    how deep.
    """

    openers: NDArray[np.int32]
    closers: NDArray[np.int32]
    next_closers: NDArray[np.int32]
    hashes: NDArray[np.uint64]
    owners: NDArray[np.int32]
    depth: NDArray[np.int32]


def scan(body: bytes, *, max_depth: int) -> Scanned | None:
    """What is proved about a body; None where nothing is, and the exact reader has to look.

    Args:
        body: bytes that are, or will be, accepted by a JSON parser.
        max_depth: deepest allowed nesting of arrays and objects.
    """
    import numpy as np

    keep_freed_memory()
    # Padded so that the bytes before a name, and the one behind it, always exist.
    text = _PADDING + body + _PADDING
    escapes: Any = None
    if b"\\" in body:
        escapes = np.flatnonzero(np.frombuffer(text, np.uint8) == _BACKSLASH)
        # As long as before: positions stay. Pairs of backslashes first, so that what is left before a quote escapes it.
        text = text.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    bytes_ = np.frombuffer(text, np.uint8)
    # Half as wide as positions are by default: the memory these arrays touch is most of what they cost.
    quotes = np.flatnonzero(bytes_ == _QUOTE).astype(np.int32)
    if len(quotes) % 2 or not len(quotes):
        return None
    openers, closers = quotes[0::2], quotes[1::2]
    starts = np.concatenate((np.zeros(1, np.int32), closers + 1))
    ends = np.concatenate((openers, np.array([len(text)], np.int32)))
    lengths = ends - starts
    is_name = bytes_.take(closers + 1) == _COLON
    # A single byte between two strings is a colon or a comma: only longer gaps hold brackets and numbers.
    long: Any = np.flatnonzero(lengths > 1)
    positions = _ranges(np, starts[long], lengths[long])
    between = bytes_.take(positions)
    colons_alone = int(np.count_nonzero(is_name & (lengths[1:] == 1)))
    if colons_alone + int(np.count_nonzero(between == _COLON)) != int(np.count_nonzero(is_name)):
        return None  # white space before a colon: some name was not seen
    if not _numbers_are_plain(np, between):
        return None
    if escapes is not None and _escaped_names(np, escapes, openers, closers, is_name):
        return None
    return _nested(np, text, bytes_, (openers, closers, is_name), (long, lengths[long], positions, between), max_depth)


def _ranges(np: Any, starts: NDArray[np.int32], lengths: NDArray[np.int32]) -> NDArray[np.int32]:
    """All positions of the ranges, in order."""
    ends = np.cumsum(lengths, dtype=np.int32)
    positions: NDArray[np.int32] = np.repeat(starts - (ends - lengths), lengths)
    positions += np.arange(len(positions), dtype=np.int32)
    return positions


def _numbers_are_plain(np: Any, between: NDArray[np.uint8]) -> bool:
    """No exponent, and no more digits in a row than 64 bits hold."""
    is_digit = (between - 48) <= 9  # wraps: one comparison instead of two
    is_exponent = (between | 32) == 101
    if bool(np.any(is_exponent[1:] & is_digit[:-1])):
        return False
    others = np.flatnonzero(~is_digit)
    if not len(others):
        return False
    first, last = int(others[0]), len(between) - 1 - int(others[-1])
    longest = int((others[1:] - others[:-1]).max(initial=0)) - 1
    return max(first, last, longest) <= _LONGEST_EXACT_DIGITS


def _escaped_names(
    np: Any,
    escapes: NDArray[np.int32],
    openers: NDArray[np.int32],
    closers: NDArray[np.int32],
    is_name: NDArray[np.bool_],
) -> bool:
    """Whether a name is written with an escape: it may be another name in disguise."""
    holder = np.searchsorted(openers, escapes) - 1
    if int(holder.min(initial=0)) < 0:
        return True
    return bool(np.any(is_name[holder] & (escapes < closers[holder])))


def _nested(
    np: Any,
    text: bytes,
    bytes_: NDArray[np.uint8],
    strings: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.bool_]],
    gaps: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.uint8]],
    max_depth: int,
) -> Scanned | None:
    """Depth and names by object."""
    openers, closers, is_name = strings
    long, lengths, positions, between = gaps
    folded = between | 32  # [ and { alike, ] and } alike
    is_open, is_close = folded == 123, folded == 125
    at = np.flatnonzero(is_open | is_close).astype(np.int32)
    if not len(at):
        return None
    opens = is_open[at]
    depth = np.cumsum(np.where(opens, np.int32(1), np.int32(-1)), dtype=np.int32)
    if int(depth.max()) > max_depth or int(depth.min()) < 0 or int(depth[-1]) != 0:
        return None
    # Behind each bracket: the container one is in, as the number of the bracket that opened it.
    by_depth = np.argsort(depth.astype(np.uint8), kind="stable")
    # Within one depth the last opened bracket is the one, because siblings follow each other; the depth in front keeps
    # the running maximum from looking across depths.
    own = np.where(opens, depth * len(at) + np.arange(len(at), dtype=np.int32), np.int32(-1))
    container = np.empty(len(at), np.int32)
    container[by_depth] = np.maximum.accumulate(own[by_depth])
    counted = np.bincount(np.repeat(long, lengths)[at], minlength=len(openers) + 1)
    brackets_before = np.cumsum(counted)[:-1]
    is_inside = np.flatnonzero(is_name)
    inside = brackets_before[is_inside] - 1
    if int(inside.min(initial=0)) < 0:
        return None
    next_closers = np.append(closers[1:], np.int32(-1)).take(is_inside)
    openers, closers = openers.take(is_inside), closers.take(is_inside)
    hashes = _hashes(np, text, openers, closers)
    names = _Names(openers, closers, next_closers, hashes, container.take(inside), depth.take(inside))
    if _is_any_twice(np, names):
        return None
    return _longest_list(np, text, positions[at], (opens, depth), names)


def _hashes(np: Any, text: bytes, openers: NDArray[np.int32], closers: NDArray[np.int32]) -> NDArray[np.uint64]:
    """Of each name's length, first 8 and last 16 bytes."""
    words = np.ndarray((len(text) - 7,), "<u8", buffer=text, strides=(1,))
    lengths = closers - openers - 1
    masks = _masks(np)
    mixed: NDArray[np.uint64] = words[closers - 8] & masks.take(np.minimum(lengths, 8))
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    longer = np.flatnonzero(lengths > 8)
    if len(longer):
        before = words[closers[longer] - 16] & masks.take(np.minimum(lengths[longer] - 8, 8))
        mixed[longer] += before * np.uint64(0xC2B2AE3D27D4EB4F)
    longest = np.flatnonzero(lengths > 16)
    if len(longest):
        mixed[longest] += words[openers[longest] + 1] * np.uint64(0x165667B19E3779F9)
    mixed += lengths.astype(np.uint64) * np.uint64(0xD6E8FEB86659FD93)
    return mixed


def _is_any_twice(np: Any, names: _Names) -> bool:
    """Whether two names of one object are the same."""
    mixed = names.hashes + names.owners.astype(np.uint64) * np.uint64(0xA0761D6478BD642F)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(31)
    mixed.sort()
    return bool(np.any(mixed[1:] == mixed[:-1]))


@functools.lru_cache(maxsize=1)
def _masks(np: Any) -> NDArray[np.uint64]:
    """For n from 0 to 8 the mask that keeps the last n of 8 bytes."""
    masks: NDArray[np.uint64] = np.array([0, *((1 << 8 * n) - 1 << 8 * (8 - n) for n in range(1, 9))], np.uint64)
    return masks


def _longest_list(
    np: Any,
    text: bytes,
    positions: NDArray[np.int32],
    nesting: tuple[NDArray[np.bool_], NDArray[np.int32]],
    names: _Names,
) -> Scanned:
    """The array that holds the records: the body itself, or the longest member of its object."""
    opens, depth = nesting
    bytes_ = np.frombuffer(text, np.uint8)
    level = 1 if bytes_[positions[0]] == 91 else 2
    firsts = np.flatnonzero(opens & (depth == level))
    firsts = firsts[bytes_[positions[firsts]] == 91]
    if not len(firsts):
        return Scanned(list_start=None, list_end=None)
    lasts = np.flatnonzero(~opens & (depth == level - 1))
    lasts = lasts[np.searchsorted(lasts, firsts)]
    spans = positions[lasts] - positions[firsts]
    longest = int(np.argmax(spans))
    start, end = int(positions[firsts[longest]]), int(positions[lasts[longest]])
    first, last = np.searchsorted(names.openers, (start, end))
    chosen = np.flatnonzero(names.depth[first:last] == level + 1) + first
    padding = len(_PADDING)
    return Scanned(
        list_start=start - padding,
        list_end=end + 1 - padding,
        fields=_fields(np, text, names, chosen),
        members=Members(
            hashes=names.hashes[chosen],
            values=names.closers[chosen] + 2 - padding,
            closers=names.next_closers[chosen] - padding,
        ),
    )


def _fields(np: Any, text: bytes, names: _Names, chosen: NDArray[np.intp]) -> tuple[str, ...] | None:
    """The different ones of the chosen names."""
    hashes = names.hashes[chosen]
    again = np.flatnonzero(hashes[1:] == hashes[:1])
    members = int(again[0]) + 1 if len(again) else len(hashes)
    if members and not len(hashes) % members and bool(np.all(hashes.reshape(-1, members) == hashes[:members])):
        # The same members again and again: those of the first record, or of the first few.
        different = np.arange(members)
    else:
        different = np.unique(hashes, return_index=True)[1]
    if len(different) > _MOST_FIELDS:
        return None
    found = []
    for at in chosen[different]:
        name = text[int(names.openers[at]) + 1 : int(names.closers[at])]
        if len(name) > _HASHED_BYTES:
            return None
        found.append(name.decode())
    return tuple(sorted(set(found)))
