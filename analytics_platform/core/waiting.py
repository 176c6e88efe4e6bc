"""Time spent waiting for one's turn, apart from time spent on the way: who sends side by side needs the difference.

Belongs here: the tally a caller hands down to the meter through the context. Does not belong here: deciding whose turn
it is (`core.quota`), deciding how many are sent (`core.concurrency`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

__all__ = ["Waited", "tallied", "waiting"]


@dataclass
class Waited:
    """Seconds of real time that the requests of one context waited for their turn."""

    seconds: float = 0.0


_tally: Final[ContextVar[Waited | None]] = ContextVar("analytics_platform_waited", default=None)


@contextlib.contextmanager
def tallied() -> Iterator[Waited]:
    """Count what is waited inside the block, in this thread."""
    tally = Waited()
    token = _tally.set(tally)
    try:
        yield tally
    finally:
        _tally.reset(token)


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """The block waits for its turn. Real time whatever `Clock` the caller has: it is compared with sockets' time."""
    tally = _tally.get()
    if tally is None:
        yield
        return
    begun = time.monotonic()
    try:
        yield
    finally:
        tally.seconds += time.monotonic() - begun
