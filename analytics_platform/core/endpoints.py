"""Which endpoint of a vendor's document a client method speaks for.

Belongs here: the mark on a client method and reading it back, so that the coverage table is made from code. Does not
belong here: sending anything (`core.http`), the documents' own lists (they are data of the coverage table).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

__all__ = ["Endpoint", "endpoint", "endpoints_of"]

_MARK: Final = "__vendor_endpoints__"
_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})

_Method = TypeVar("_Method", bound=Callable[..., object])


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One endpoint: the verb, the path as it is on the wire with `{name}` for every variable part, and its source."""

    method: str
    path: str
    source: str

    @property
    def label(self) -> str:
        """`GET /api/v1/events/{event_id}`: what errors, the ledger and metadata call it."""
        return f"{self.method} {self.path}"


def endpoint(label: str, *, source: str) -> Callable[[_Method], _Method]:
    """Mark a client method as the one that speaks for an endpoint; a method may carry several marks.

    Args:
        label: verb and path, `"GET /api/v1/events/{event_id}"`.
        source: vendor document and section, or "contract" and its section where the document is silent.

    Raises:
        ValueError: the label is not a verb and an absolute path, or the source is empty.
    """
    method, _, path = label.partition(" ")
    if method not in _METHODS or not path.startswith("/") or not source:
        raise ValueError(f"{label!r} ({source!r}) does not name an endpoint and where it is documented")
    found = Endpoint(method=method, path=path, source=source)

    def mark(function: _Method) -> _Method:
        setattr(function, _MARK, (found, *getattr(function, _MARK, ())))
        return function

    return mark


def endpoints_of(client: type) -> Mapping[str, tuple[Endpoint, ...]]:
    """Public method name to the endpoints it speaks for, of one client class, in the order of its source."""
    return {
        name: marks
        for name, member in inspect.getmembers_static(client)
        if not name.startswith("_") and (marks := getattr(member, _MARK, ()))
    }
