"""A page cut into its raw records: bytes on one line each, no Python object for what is in them.

Belongs here: finding the list a table reads and splitting it. Does not belong here: proving a page
(`core.strict_json`), typing records (`core.staging`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from analytics_platform.core.landing import LandedList, LandedPage
from analytics_platform.core.strict_json import split_list
from analytics_platform.core.tables import TableSpec

__all__ = ["listed_for", "raw_records", "split_records"]

_RAW_LIST: Final = msgspec.json.Decoder(list[msgspec.Raw])


def split_records(body: bytes, paths: Sequence[str], *, union: bool = False) -> list[bytes]:
    """The raw records of a page: the first of `paths` that exists (all of them with `union`), without building objects.

    "" is the root, "a.b" a member of a member; null is no record, an object is one record, and a path ending in "{}"
    makes each
    member of an object a record `{"key": …, "value": …}`. A page with none of the paths has no records.
    """
    return [bytes(record) for record in raw_records(body, paths, union=union)]


def listed_for(spec: TableSpec, page: LandedPage) -> LandedList | None:
    """The page's list as it was found when the page was proved, where it is the one the table reads."""
    listed = page.listed
    if listed is None or spec.union_records or spec.records[0] != listed.at:
        return None
    # A member's own name may look like a path.
    return None if "." in listed.at or listed.at.endswith("{}") else listed


def raw_records(body: bytes, paths: Sequence[str], *, union: bool, listed: LandedList | None = None) -> list[Any]:
    """As `split_records`, as whatever has the bytes: copies cost a third of the split.

    Args:
        listed: the list to split, where it is known to be the one.
    """
    if listed is not None:
        return split_list(body, listed.start, listed.end)
    # Strict JSON (checked when the page was received) has raw newlines only between tokens, so this cannot touch a
    # string.
    flat = body.replace(b"\n", b" ").replace(b"\r", b" ")
    records: list[Any] = []
    for path in paths:
        entries = path.endswith("{}")
        found = _descend(flat, path.removesuffix("{}").removesuffix("."))
        if found is None:
            continue
        records += _entries(found) if entries else _listed(found)
        if not union:
            break
    return records


def _descend(body: bytes, path: str) -> bytes | None:
    """The raw value at a dotted path, None where it is absent or passes through something that is not an object."""
    value = body.strip()
    for name in path.split(".") if path else ():
        if not value.startswith(b"{"):
            return None
        members = msgspec.json.decode(value, type=dict[str, msgspec.Raw])
        if name not in members:
            return None
        value = bytes(members[name]).strip()
    return value


def _listed(value: bytes) -> list[Any]:
    if value == b"null":
        return []
    if value.startswith(b"["):
        return list(_RAW_LIST.decode(value))
    return [value]


def _entries(value: bytes) -> list[bytes]:
    if value == b"null":
        return []
    members = msgspec.json.decode(value, type=dict[str, msgspec.Raw])
    return [b'{"key":%b,"value":%b}' % (msgspec.json.encode(key), bytes(raw)) for key, raw in members.items()]
