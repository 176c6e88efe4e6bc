"""Several independent requests in flight together, pages in a deterministic order.

Belongs here: the thread pool between a stream and its client. Does not belong here: HTTP, limits (the meter blocks
per-second
ones), landing.
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Final

from analytics_platform.core.paging import Page

__all__ = ["REQUESTS_IN_FLIGHT", "side_by_side"]

REQUESTS_IN_FLIGHT: Final = 8
"""At most so many answers are paid for but not landed yet: kill -9 can lose no more than these."""


def side_by_side(sends: Iterable[Callable[[], Page | None]]) -> Iterator[Page]:
    """Send with at most `REQUESTS_IN_FLIGHT` unlanded answers, and yield the pages in the order of `sends`.

    When one fails, none is started after it; pages that were already paid for are yielded before the failure is raised.
    """
    waiting = deque(sends)
    started: deque[Future[Page | None]] = deque()
    failure: Exception | None = None
    with ThreadPoolExecutor(REQUESTS_IN_FLIGHT, thread_name_prefix="requests") as pool:
        try:
            while started or (waiting and failure is None):
                while waiting and failure is None and len(started) < REQUESTS_IN_FLIGHT:
                    # Each thread gets the caller's context: the ledger reads there what the requests are spent on.
                    started.append(pool.submit(contextvars.copy_context().run, waiting.popleft()))
                try:
                    page = started.popleft().result()
                except CancelledError:
                    continue
                except Exception as error:
                    failure = failure or error
                    for other in started:
                        other.cancel()
                    continue
                if page is not None:
                    yield page
        finally:
            for other in started:
                other.cancel()
    if failure is not None:
        raise failure
