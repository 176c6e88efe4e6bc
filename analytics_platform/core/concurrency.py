"""Several independent requests in flight together, as many as the limit can use, pages in a deterministic order.

Belongs here: the thread pool between a stream and its client, and how many requests it holds. Does not belong here:
HTTP, limits (the meter makes requests wait for their turn), landing.

How many. A limit of r requests a second is used up by r times the seconds one request takes (Little's law): 1 at 20 ms
and 50 a second, 10 at 200 ms. Neither is known here, but their product is: of so many requests in flight, those that
are on their way rather than waiting for their turn. Half as many again, and a few, are held, so that at every free turn
somebody waits for it; where nobody waits the limit is not used up, and the number grows.
"""

from __future__ import annotations

import contextvars
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar
from weakref import WeakKeyDictionary

from analytics_platform.core.paging import Page
from analytics_platform.core.waiting import tallied

__all__ = ["REQUESTS_AT_FIRST", "REQUESTS_IN_FLIGHT", "InFlight", "Send", "answered_in_order", "side_by_side"]

K = TypeVar("K")

Send = Callable[[], Page | None]
"""One request; None is a page that does not exist."""

REQUESTS_IN_FLIGHT: Final = 32
"""At most so many answers are paid for but not landed yet: kill -9 can lose no more than these. `HttpClient` has a
connection for each."""

REQUESTS_AT_FIRST: Final = 8
"""Before anything is measured."""

_LEAST: Final = 4
_SPARE_SHARE: Final = 0.5
_SPARE: Final = 8
"""So many can leave while the caller is busy with a page: 160 ms at 50 a second, a disk's bad moment."""
_MEMORY: Final = 100
"""Requests that a measurement remembers: several windows of the limits that matter here, 5 to 50 in a second."""


class InFlight:
    """How many requests to hold. Tell it each one that ended; ask `allowed`.

    Args:
        first: before anything is measured.
        most: never more.
    """

    def __init__(self, *, first: int = REQUESTS_AT_FIRST, most: int = REQUESTS_IN_FLIGHT) -> None:
        self.allowed = min(first, most)
        self._most = most
        self._held = 0.0
        self._waited = 0.0
        self._since_change = 0

    def ended(self, *, held_seconds: float, waited_seconds: float) -> None:
        """One request is over.

        Args:
            held_seconds: from its start until its page was taken.
            waited_seconds: of those, the seconds it waited for its turn.
        """
        self._held += held_seconds - self._held / _MEMORY
        self._waited += min(waited_seconds, held_seconds) - self._waited / _MEMORY
        self._since_change += 1
        # One step a round: those in flight have not felt the last step yet.
        if self._since_change >= self.allowed:
            self._since_change = 0
            up = min(self.wanted - self.allowed, max(1, self.allowed // 2))
            self.allowed += max(up, -1)

    @property
    def wanted(self) -> int:
        """What the measurement asks for."""
        if self._held <= 0:
            return self.allowed
        on_their_way = self.allowed * (1 - self._waited / self._held)
        return min(self._most, max(_LEAST, math.ceil(on_their_way * (1 + _SPARE_SHARE)) + _SPARE))


def _room_of(client: object | None, most: int) -> InFlight:
    room = InFlight(most=most)
    return room if client is None else _measured.setdefault(client, room)


@dataclass(frozen=True)
class _Answered:
    page: Page | None
    begun_at: float
    waited_seconds: float


_measured: WeakKeyDictionary[object, InFlight] = WeakKeyDictionary()
"""By client: a day of a stream is over before much is measured, and the days after it go over the same line."""


def side_by_side(
    sends: Iterable[Send], *, most_in_flight: int = REQUESTS_IN_FLIGHT, client: object | None = None
) -> Iterator[Page]:
    """The pages of `answered_in_order`, where nobody needs to know which request each of them answers."""
    named = ((None, send) for send in sends)
    for _, page in answered_in_order(named, most_in_flight=most_in_flight, client=client):
        if page is not None:
            yield page


def answered_in_order(
    sends: Iterable[tuple[K, Send]], *, most_in_flight: int = REQUESTS_IN_FLIGHT, client: object | None = None
) -> Iterator[tuple[K, Page | None]]:
    """Send with at most `most_in_flight` unlanded answers, and yield what each answered in the order of `sends`.

    When one fails, or no further one can be made, none is started after it; what was already paid for is yielded before
    the failure is raised. A request that failed is not yielded.

    Args:
        sends: the requests, each with whatever its answer is to be known by; taken one by one as there is room.
        most_in_flight: a lower bound than `REQUESTS_IN_FLIGHT` where less may be lost.
        client: what sends them; what its requests taught is kept as long as it lives.
    """
    waiting = iter(sends)
    started: deque[tuple[K, Future[_Answered]]] = deque()
    failure: Exception | None = None
    room = _room_of(client, most_in_flight)
    with ThreadPoolExecutor(most_in_flight, thread_name_prefix="requests") as pool:
        try:
            while True:
                try:
                    while (
                        failure is None
                        and len(started) < min(room.allowed, most_in_flight)
                        and (taken := next(waiting, None)) is not None
                    ):
                        # Each thread gets the caller's context: the ledger reads there what is spent on what.
                        run = contextvars.copy_context().run
                        started.append((taken[0], pool.submit(run, _timed, taken[1], time.monotonic())))
                except Exception as error:
                    failure = error
                if not started:
                    break
                key, future = started.popleft()
                try:
                    answered = future.result()
                except CancelledError:
                    continue
                except Exception as error:
                    failure = failure or error
                    for _, other in started:
                        other.cancel()
                    continue
                room.ended(held_seconds=time.monotonic() - answered.begun_at, waited_seconds=answered.waited_seconds)
                yield key, answered.page
        finally:
            for _, other in started:
                other.cancel()
    if failure is not None:
        raise failure


def _timed(send: Send, begun_at: float) -> _Answered:
    with tallied() as waited:
        page = send()
    return _Answered(page, begun_at, waited.seconds)
