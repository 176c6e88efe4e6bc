"""Taking a forgotten person out of a vendor's page: their records go, everybody else's stay byte for byte.

Belongs here: which records of a page carry a wanted key, and the page without them. Does not belong here: whose keys
are wanted (`core.tombstones`), where pages are kept (`core.landing`), any vendor's name.

A record is judged by the same expressions its table decodes it with (`Column.identifies`, `TableSpec.identifies`), so
what the lake would call the person's row is what is taken out of the page. Only pages that hold one of the values at
all are looked at that closely. A record that cannot be read as declared is judged by its plain values instead: rather
one record too many is kept from landing than a forgotten person comes back with a changed field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import unquote

import duckdb
import msgspec

from analytics_platform.core.lake import connect, record_keys, split_records
from analytics_platform.core.paging import Page
from analytics_platform.core.tables import TableSpec, is_record_kind
from analytics_platform.core.tombstones import Tombstones, Wanted

__all__ = ["Stripped", "Stripper", "strip_before_landing"]

_SHORTEST_CALL_KEY: Final = 6
"""A call names a person by a part of its path (`visitor/8f3a…`); a shorter part may be a number of something else."""


@dataclass(frozen=True, kw_only=True)
class Stripped:
    """A page without the person.

    Args:
        body: None where the whole page is about the person.
        removed: records taken out.
        keys: kinds and values carried by records that a leading key recognised: how a person's other keys are learned.
        leaves: kinds and values of recordings among the records that only another key recognised (a shared address):
            their rows go too, and lead nowhere.
    """

    body: bytes | None
    removed: int
    keys: frozenset[tuple[str, str]] = field(default=frozenset(), repr=False)
    leaves: frozenset[tuple[str, str]] = field(default=frozenset(), repr=False)


class Stripper:
    """Strips the pages of one stream at one site.

    Args:
        wanted: records that carry one of these go.
        leads: keys that lead to the person's other keys; `wanted` itself by default.
    """

    def __init__(self, specs: Sequence[TableSpec], wanted: Wanted, *, leads: Wanted | None = None) -> None:
        self._wanted = wanted
        self._leads = leads or wanted
        self._kinds = frozenset(kind for spec in specs for kind in spec.identity_kinds)
        self._by_call: dict[str, list[TableSpec]] = {}
        for spec in specs:
            for call_kind in spec.calls if spec.identity_kinds else ():
                self._by_call.setdefault(call_kind, []).append(spec)

    def strip(self, body: bytes, *, call: str, call_kind: str, context: Mapping[str, str]) -> Stripped | None:
        """The page without the person's records; None where it holds none and stays as it is."""
        specs = self._by_call.get(call_kind)
        if not specs:
            return None
        named = self._named_by(call, context)
        if not named and not self._wanted.may_be_in(body):
            return None
        carried = self._carried(body, specs, context)
        gone: dict[tuple[str, ...], set[int]] = {}
        keys, leaves = set(named), set[tuple[str, str]]()
        for (paths, number), pairs in carried.items():
            if not named and not any(self._wanted.is_wanted(*pair) for pair in pairs):
                continue
            gone.setdefault(paths, set()).add(number)
            if named or any(self._leads.is_wanted(*pair) for pair in pairs):
                keys |= pairs
            else:
                leaves |= {(kind, value) for kind, value in pairs if is_record_kind(kind)}
        removed = max((len(numbers) for numbers in gone.values()), default=0)
        if not gone and not named:
            return None
        kept: bytes | None = None if named else body
        for paths, numbers in gone.items() if kept is not None else ():
            union = next(spec.union_records for spec in specs if spec.records == paths)
            kept = without_records(kept or b"", paths, numbers, union=union)
        return Stripped(body=kept, removed=removed, keys=frozenset(keys), leaves=frozenset(leaves))

    def _carried(
        self, body: bytes, specs: Sequence[TableSpec], context: Mapping[str, str]
    ) -> dict[tuple[tuple[str, ...], int], set[tuple[str, str]]]:
        """(paths, record number) → every key the record carries, by all tables that read it."""
        carried: dict[tuple[tuple[str, ...], int], set[tuple[str, str]]] = {}
        for spec in specs:
            records = split_records(body, spec.records, union=spec.union_records)
            for number, pairs in self._judge(spec, records, context).items():
                carried.setdefault((spec.records, number), set()).update(pairs)
        return carried

    def _named_by(self, call: str, context: Mapping[str, str]) -> set[tuple[str, str]]:
        """The keys by which the request itself was about the person."""
        parts = [unquote(part) for part in call.split("/")[1:]]
        texts = {text for text in (*parts, *context.values()) if len(text) >= _SHORTEST_CALL_KEY}
        return {(kind, text) for text in texts for kind in self._kinds if self._wanted.is_wanted(kind, text)}

    def _judge(
        self, spec: TableSpec, records: list[bytes], context: Mapping[str, str]
    ) -> dict[int, set[tuple[str, str]]]:
        """Record number → its keys as (kind, value)."""
        if not records:
            return {}
        try:
            return self._keys_as_declared(spec, records, context)
        except duckdb.Error:
            return {number: self._keys_by_value(spec, record) for number, record in enumerate(records)}

    def _keys_as_declared(
        self, spec: TableSpec, records: list[bytes], context: Mapping[str, str]
    ) -> dict[int, set[tuple[str, str]]]:
        found: dict[int, set[tuple[str, str]]] = {number: set() for number in range(len(records))}
        # In memory only: a file of raw records would be one more place to erase.
        with closing(connect(threads="1")) as engine:
            for number, kind, value in record_keys(engine, spec, records, context):
                found[number].add((kind, value))
        return found

    def _keys_by_value(self, spec: TableSpec, record: bytes) -> set[tuple[str, str]]:
        kinds = sorted(spec.identity_kinds)
        return {(kind, text) for text in _texts(record) for kind in kinds if self._wanted.is_wanted(kind, text)}


def _texts(record: bytes) -> set[str]:
    found: set[str] = set()
    waiting: list[object] = [msgspec.json.decode(record)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, str | int):
            found.add(str(value))
    return found


def strip_before_landing(
    page: Page, tables: Sequence[TableSpec], tombstones: Tombstones, site: str
) -> tuple[Page | None, int]:
    """The page as it may be landed and how many records were kept out of it; None where all of it is about somebody
    forgotten. The page itself, at the cost of one `stat`, while nobody was forgotten.
    """
    kinds = frozenset(kind for spec in tables for kind in spec.identity_kinds)
    wanted = tombstones.at(site, kinds) if kinds else None
    if wanted is None:
        return page, 0
    found = Stripper(tables, wanted).strip(page.body, call=page.call, call_kind=page.call_kind, context=page.context)
    if found is None:
        return page, 0
    if found.body is None:
        return None, found.removed
    return replace(page, body=found.body, records=max(0, page.records - found.removed)), found.removed


# ------------------------------------------------------------------------------------------------------------ the JSON


def without_records(body: bytes, paths: Sequence[str], numbers: Iterable[int], *, union: bool = False) -> bytes:
    """The page without the records of these numbers, counted as `split_records` lists them.

    All other records keep their bytes; only the brackets and member names around them are written anew.
    """
    gone = set(numbers)
    position = 0
    for path in paths:
        entries = path.endswith("{}")
        names = [name for name in path.removesuffix("{}").removesuffix(".").split(".") if name]
        counted = len(split_records(body, (path,)))
        if not _exists(body, names):
            continue
        here = {number - position for number in gone if position <= number < position + counted}
        if here:
            body = _edited(body, names, lambda value, here=here, entries=entries: _kept(value, here, entries))  # type: ignore[misc]
        position += counted
        if not union:
            break
    return body


def _exists(body: bytes, names: Sequence[str]) -> bool:
    value = body.strip()
    for name in names:
        if not value.startswith(b"{"):
            return False
        members = msgspec.json.decode(value, type=dict[str, msgspec.Raw])
        if name not in members:
            return False
        value = bytes(members[name]).strip()
    return True


def _edited(value: bytes, names: Sequence[str], edit: Callable[[bytes], bytes]) -> bytes:
    if not names:
        return edit(value)
    members = msgspec.json.decode(value, type=dict[str, msgspec.Raw])
    members[names[0]] = msgspec.Raw(_edited(bytes(members[names[0]]), names[1:], edit))
    return msgspec.json.encode(members)


def _kept(value: bytes, gone: set[int], entries: bool) -> bytes:
    text = value.strip()
    if entries:
        members = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        return msgspec.json.encode(
            {key: raw for number, (key, raw) in enumerate(members.items()) if number not in gone}
        )
    if text.startswith(b"["):
        records = msgspec.json.decode(text, type=list[msgspec.Raw])
        return msgspec.json.encode([raw for number, raw in enumerate(records) if number not in gone])
    return b"null"
