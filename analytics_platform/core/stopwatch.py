"""Where the seconds of a run go: parts of it that tell whoever listens in this process how long they took.

Belongs here: adding up seconds by part. Does not belong here: which parts a run has (`runner`), printing (`cli`).

Parts may lie inside each other; each gets only what its inner parts did not. Only the thread that listens is timed:
what other threads do beside it (requests in flight, dbt's threads) costs a run the time for which it waits for them.
Processes that work beside each other are timed each by itself, and their seconds are shared out afterwards (`shared`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple, TypeVar

__all__ = ["Span", "Stopwatch", "measured", "measured_steps", "measuring", "shared", "took"]

T = TypeVar("T")


class Span(NamedTuple):
    """When a part was the innermost one: two readings of `time.perf_counter`, which all processes of a Linux share."""

    began: float
    ended: float
    part: str


class Stopwatch:
    """Wall seconds by part, each second in one part only."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.spans: list[Span] = []
        """Of what was `running`, in their order; they do not overlap."""
        self.thread = threading.get_ident()
        self._inner: list[float] = []
        self._parts: list[str] = []
        self._since = 0.0

    def add(self, part: str, seconds: float) -> None:
        """Seconds of a part that ended now: they are taken off the part around it."""
        self.seconds[part] = self.seconds.get(part, 0.0) + seconds
        if self._inner:
            self._inner[-1] += seconds

    @contextmanager
    def running(self, part: str) -> Iterator[None]:
        """Time the block."""
        began = time.perf_counter()
        self._span_ends(began)
        self._parts.append(part)
        self._inner.append(0.0)
        try:
            yield
        finally:
            ended = time.perf_counter()
            self._span_ends(ended)
            self._parts.pop()
            whole = ended - began
            own = whole - self._inner.pop()
            self.seconds[part] = self.seconds.get(part, 0.0) + own
            if self._inner:
                self._inner[-1] += whole

    def _span_ends(self, now: float) -> None:
        """The innermost part is another one from now on."""
        if self._parts and now > self._since:
            last = self.spans[-1] if self.spans else None
            if last is not None and last.part == self._parts[-1] and last.ended == self._since:
                self.spans[-1] = last._replace(ended=now)
            else:
                self.spans.append(Span(self._since, now, self._parts[-1]))
        self._since = now


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


def shared(lanes: Iterable[Sequence[Span]], *, first: Collection[str]) -> dict[str, float]:
    """The wall seconds in which somebody worked, by part, each in one part, whatever was done beside it.

    Args:
        lanes: the spans of each process; those of one do not overlap.
        first: where one of these is worked at, the second is theirs, and what others do meanwhile costs nothing.
            Parts of the same rank share it.
    """
    spans = [span for lane in lanes for span in lane]
    changes = sorted(
        [*((span.began, 1, span.part) for span in spans), *((span.ended, -1, span.part) for span in spans)]
    )
    seconds: dict[str, float] = {}
    working: dict[str, int] = {}
    for (now, step, part), (then, _, _) in pairwise(changes):
        working[part] = working.get(part, 0) + step
        there = {name: number for name, number in working.items() if number}
        ranked = {name: number for name, number in there.items() if name in first} or there
        for name, number in ranked.items():
            seconds[name] = seconds.get(name, 0.0) + (then - now) * number / sum(ranked.values())
    return seconds
