"""Progress for people: what a long fetch is doing right now, told to whoever listens in this process.

Belongs here: the event and the listener list. Does not belong here: drawing (`cli`), logging to Dagster
(`core.ingest`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["Progress", "landed_of", "listening", "of_about", "tell"]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """State of one stream and site: counts since its fetch began."""

    vendor: str
    stream: str
    site: str
    first_day: str
    last_day: str
    pages: int
    records: int
    requests: int
    seconds: float

    def __str__(self) -> str:
        span = self.first_day if self.first_day == self.last_day else f"{self.first_day}..{self.last_day}"
        return (
            f"{self.vendor}/{self.stream} {self.site} {span}: {self.pages} pages, {self.records} records, "
            f"{self.requests} requests, {self.seconds:.1f} s"
        )


_listeners: list[Callable[[Progress], None]] = []


@contextmanager
def listening(listener: Callable[[Progress], None]) -> Iterator[None]:
    """Call `listener` for every progress event of this process inside the block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def tell(progress: Progress) -> None:
    """Hand an event to every listener."""
    for listener in list(_listeners):
        listener(progress)


def landed_of(records: int, expected: float | None) -> str:
    """`312 of ~1,000 rows landed`, or `312 records landed so far` where no history says how many there will be."""
    if expected is None or expected < records:
        return f"{records:,} records landed so far"
    return f"{of_about(records, expected)} rows landed"


def of_about(records: int, expected: float | None) -> str:
    """`312 of ~1,000`, two digits of what is only likely; `312` where nobody knows."""
    if expected is None or expected < records:
        return f"{records:,}"
    step = 10 ** max(0, math.floor(math.log10(expected)) - 1) if expected >= 1 else 1
    return f"{records:,} of ~{round(expected / step) * step:,}"
