"""Where the seconds of a run go: parts of it that tell whoever listens in this process how long they took.

Belongs here: adding up seconds by part. Does not belong here: which parts a run has (`runner`), printing (`cli`).

Parts may lie inside each other; each gets only what its inner parts did not. Only the thread that listens is timed:
what other threads do beside it (requests in flight, dbt's threads) costs a run the time for which it waits for them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["Stopwatch", "measured", "measured_steps", "measuring", "took"]

T = TypeVar("T")


class Stopwatch:
    """Wall seconds by part, each second in one part only."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.thread = threading.get_ident()
        self._inner: list[float] = []

    def add(self, part: str, seconds: float) -> None:
        """Seconds of a part that ended now: they are taken off the part around it."""
        self.seconds[part] = self.seconds.get(part, 0.0) + seconds
        if self._inner:
            self._inner[-1] += seconds

    @contextmanager
    def running(self, part: str) -> Iterator[None]:
        """Time the block."""
        began = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            whole = time.perf_counter() - began
            own = whole - self._inner.pop()
            self.seconds[part] = self.seconds.get(part, 0.0) + own
            if self._inner:
                self._inner[-1] += whole


_listening: list[Stopwatch] = []


@contextmanager
def measuring() -> Iterator[Stopwatch]:
    """A stopwatch that runs inside the block, for everything this thread does there."""
    watch = Stopwatch()
    _listening.append(watch)
    try:
        yield watch
    finally:
        _listening.remove(watch)


def _mine() -> Stopwatch | None:
    mine = [watch for watch in _listening if watch.thread == threading.get_ident()]
    return mine[-1] if mine else None


@contextmanager
def measured(part: str) -> Iterator[None]:
    """Count the block's seconds for a part, if anybody listens."""
    watch = _mine()
    if watch is None:
        yield
        return
    with watch.running(part):
        yield


def measured_steps(part: str, steps: Iterable[T]) -> Iterator[T]:
    """The same items; the seconds until each of them comes are the part's."""
    remaining = iter(steps)
    while True:
        with measured(part):
            try:
                step = next(remaining)
            except StopIteration:
                return
        yield step


def took(part: str, seconds: float) -> None:
    """Count seconds for a part that was timed by somebody else (dbt's own events), if anybody listens."""
    watch = _mine()
    if watch is not None:
        watch.add(part, seconds)
