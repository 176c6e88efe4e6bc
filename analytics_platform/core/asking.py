"""Batches while they are asked for: which requests go out together, and when a batch is whole.

Belongs here: going from one batch to the next without waiting for the last page of the one before, counting answers,
sealing. Does not belong here: which batches there are and what becomes of a page (`core.fetch`), how many requests are
in flight (`core.concurrency`), files (`core.landing`).

Requests that need nothing of each other go over the batches' bounds: while a batch's last pages are under way, the
first requests of the next are sent, and what was received is landed beside both. Pages land in the order of their
requests whatever order they arrive in, and a page is landed before its place in the line is given away. So a kill loses
what was in flight and nothing else, as many answers as within a batch; every batch that got all of its pages is sealed,
every other goes on where it was landed to.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from types import TracebackType
from typing import Any, Self, TypeVar

from analytics_platform.core.concurrency import answered_in_order
from analytics_platform.core.errors import PlatformError
from analytics_platform.core.landing import Batch, BatchWriter
from analytics_platform.core.paging import Page
from analytics_platform.core.stopwatch import measured
from analytics_platform.core.streams import Extraction, Stream

__all__ = ["AskedBatch", "Asking"]

T = TypeVar("T")


@dataclass(kw_only=True, eq=False)
class AskedBatch:
    """An open batch, and how many of its requests are unanswered or not landed.

    `already` is how many records an earlier run had landed of it, `is_new` that it had landed no page, `begun` when
    this one opened it (monotonic seconds).
    """

    days: list[date]
    writer: BatchWriter
    extraction: Extraction
    already: int
    is_new: bool
    begun: float
    unanswered: int = 0
    is_all_asked: bool = False


class Asking:
    """The open batches of one stream and site. Use as a context manager: those left open keep what they have.

    Args:
        stream: what is asked.
        client: the vendor's own.
        begin: opens the batch of these days where it was landed to; its writer is entered here.
        ended: told of each batch when its files are closed, with the sealed batch if it is whole.
        most_in_flight: so many answers may be paid for and not landed yet.
    """

    def __init__(
        self,
        stream: Stream,
        client: Any,
        *,
        begin: Callable[[list[date], ExitStack], AskedBatch],
        ended: Callable[[AskedBatch, Batch | None], None],
        most_in_flight: int,
    ) -> None:
        self._stream = stream
        self._client = client
        self._begin = begin
        self._ended = ended
        self._most_in_flight = most_in_flight
        self._open: dict[AskedBatch, ExitStack] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for batch in list(self._open):
            try:
                if isinstance(error, PlatformError):
                    batch.writer.settle()
            finally:
                self._close(batch, None)

    def answers(self, chunks: Iterable[list[date]]) -> Generator[tuple[AskedBatch, Page | None], None, None]:
        """What the vendor answers, to be landed before the next is taken; tell `landed` then.

        None stands for a page that does not exist. A failure is raised after all that was paid for.

        Raises:
            VendorError: see the stream's client.
            QuotaError: nothing may be sent now.
        """
        batches = (self._opened(days) for days in chunks)
        requests, extract = self._stream.requests, self._stream.extract
        if requests is not None:
            sends = (
                (batch, send)
                for batch in batches
                for send in self._counted(batch, requests(self._client, batch.extraction))
            )
            yield from answered_in_order(sends, most_in_flight=self._most_in_flight, client=self._client)
        elif extract is not None:
            for batch in batches:
                for page in self._counted(batch, extract(self._client, batch.extraction)):
                    yield batch, page

    def landed(self, batch: AskedBatch) -> None:
        """One more answer of the batch is landed, or has nothing to land."""
        batch.unanswered -= 1
        self._seal_if_whole(batch)

    def _opened(self, days: list[date]) -> AskedBatch:
        with ExitStack() as opening:
            batch = self._begin(days, opening)
            self._open[batch] = opening.pop_all()
        return batch

    def _counted(self, batch: AskedBatch, steps: Iterable[T]) -> Iterator[T]:
        for step in steps:
            batch.unanswered += 1
            yield step
        batch.is_all_asked = True
        self._seal_if_whole(batch)

    def _seal_if_whole(self, batch: AskedBatch) -> None:
        if batch.is_all_asked and not batch.unanswered:
            with measured("landing"):
                self._close(batch, batch.writer.complete())

    def _close(self, batch: AskedBatch, sealed: Batch | None) -> None:
        self._open.pop(batch).close()
        self._ended(batch, sealed)
