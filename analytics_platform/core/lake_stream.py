"""Decoding as a stream: pages go in as they are landed or read back, row groups come out, and nothing is held for long.

Belongs here: the worker that stages pages and has them typed segment by segment, beside whoever reads or fetches them.
Does not belong here: SQL, Parquet and the rename (`core.lake`), pages (`core.landing`).

    pages ─▶ queue ─▶ raw records ─▶ NDJSON segment ─▶ typed rows ─▶ a row group of each day's file
             bounded  split once for all tables of a stream;  three threads, each at most one segment behind

Rows lie in the order they were landed. A natural key that came twice is noticed at the end, on the finished files: then
nothing is published, and the caller decodes the way that keeps the newest (`Lake.decode`). The same pages always give
the same segments, whoever hands them in, and so the same bytes.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from analytics_platform.core.arena import keep_freed_memory
from analytics_platform.core.landing import Batch, LandedPage
from analytics_platform.core.tables import TableSpec

if TYPE_CHECKING:
    from analytics_platform.core.lake import Lake
    from analytics_platform.core.paging import Page
    from analytics_platform.core.streamed_table import DecodedPartition, StreamedTable

__all__ = ["FOLLOW_FROM_BYTES", "SEGMENT_BYTES", "Following", "TypedStream", "stream_pages"]

SEGMENT_BYTES: Final = 32 * 1024 * 1024
"""Raw records that are typed at a time: some 50,000 sessions, a row group of a size readers like."""

FOLLOW_FROM_BYTES: Final = 8 * 1024 * 1024
"""A smaller batch is decoded when it is complete: starting a worker would cost more than it saves."""

_PAGES_AHEAD: Final = 24
"""Pages a worker may be behind; whoever hands in more waits."""


@dataclass(frozen=True)
class _Item:
    page: LandedPage
    days: tuple[date, ...]
    body: bytes
    records: Sequence[Any] | None
    is_whole: bool


class TypedStream:
    """The worker and its files for the tables of one stream at one site. Closed in any case, published at most once.

    Args:
        tables: where the rows go, one a table.
        opened: whatever has to be closed after it.
    """

    def __init__(self, tables: Sequence[StreamedTable], opened: AbstractContextManager[object]) -> None:
        keep_freed_memory()
        self._tables = tables
        self._opened = opened
        self._queue: queue.Queue[_Item | None] = queue.Queue(_PAGES_AHEAD)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="typing rows", daemon=True)
        self._thread.start()

    @property
    def has_failed(self) -> bool:
        """Nothing more is taken in."""
        return self._failure is not None

    def add(
        self,
        page: LandedPage,
        body: bytes,
        days: Sequence[date],
        *,
        records: Sequence[Any] | None = None,
        is_whole: bool = True,
    ) -> None:
        """Hand in a page; waits while the worker is far behind.

        Args:
            days: the days this page is a source of.
            records: those of `page.listed`, where somebody has split them already.
            is_whole: nobody was taken out of it since it was landed.
        """
        self._queue.put(_Item(page, tuple(days), body, records, is_whole))

    def finish(self) -> None:
        """Wait until everything handed in is typed and written.

        Raises:
            Exception: whatever the worker met.
        """
        self._stop()
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Stop the worker and remove what was not published."""
        self._stop()
        for table in self._tables:
            table.close()
        self._opened.__exit__(None, None, None)

    def _stop(self) -> None:
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            # After a failure pages are still taken, so that nobody waits for room.
            self._guarded(partial(self._take, item))
        for table in self._tables:
            self._guarded(table.flush)
        for table in self._tables:
            self._guarded(table.settle)

    def _guarded(self, step: Callable[[], None]) -> None:
        if self._failure is None:
            try:
                step()
            except BaseException as error:  # raised in the thread that waits for it
                self._failure = error

    def _take(self, item: _Item) -> None:
        split: dict[tuple[tuple[str, ...], bool], Sequence[Any]] = {}
        known, is_whole = item.records, item.is_whole
        for table in self._tables:
            if item.page.call_kind not in table.spec.calls:
                continue
            place = (table.spec.records, table.spec.union_records)
            if place not in split:
                split[place] = table.split(item.page, item.body, known=known, is_whole=is_whole)
            table.add(item.page, split[place], item.days, is_whole=is_whole)
            if table.staged_bytes >= SEGMENT_BYTES:
                table.flush()


@dataclass
class Following:
    """Decodes a batch while it is fetched. Anything unusual ends it, and the batch is decoded from landing as ever.

    Args:
        lake: where the rows go.
        tables: of the stream.
        site, days: of the batch.
    """

    lake: Lake
    tables: Sequence[TableSpec]
    site: str
    days: tuple[date, ...]
    batch: Path | None = None
    _early: list[tuple[LandedPage, Page]] = field(default_factory=list, repr=False)
    _early_bytes: int = 0
    _stream: TypedStream | None = None
    _generation: tuple[int, int, int] | None = None
    _streamed: Sequence[StreamedTable] = ()
    _is_over: bool = False

    def __post_init__(self) -> None:
        self._generation = self.lake.generation()
        self._is_over = any(spec.merge_calls for spec in self.tables)

    def add(self, line: LandedPage, page: Page) -> None:
        """A page that has just been landed."""
        if self._is_over:
            return
        if self._stream is None:
            self._early.append((line, page))
            self._early_bytes += line.size
            if self._early_bytes < FOLLOW_FROM_BYTES:
                return
            self._streamed, opened = self.lake.streamed(self.tables, self.site)
            self._stream = TypedStream(self._streamed, opened)
            early, self._early = self._early, []
            for known in early:
                self._hand_in(*known)
            return
        if self._stream.has_failed:
            self.close()
            return
        self._hand_in(line, page)

    def _hand_in(self, line: LandedPage, page: Page) -> None:
        assert self._stream is not None  # noqa: S101  (narrowing: the caller has begun it)
        self._stream.add(line, page.body, self.days, records=None if page.listed is None else page.listed.records)

    def take(
        self, spec: TableSpec, assignments: Sequence[tuple[Batch, Sequence[date]]]
    ) -> list[DecodedPartition] | None:
        """The partitions of one table, published; None where this batch does not say it all, or not in this way."""
        fits = [(batch.path, tuple(days)) for batch, days in assignments] == [(self.batch, self.days)]
        if self._is_over or self._stream is None or not fits or spec not in self.tables:
            return None
        try:
            self._stream.finish()
            streamed = next(table for table in self._streamed if table.spec is spec)
            return streamed.publish(self.days, self._generation)
        except Exception:
            # Whatever it was: decoding from landing meets it again and says it properly, or does not meet it.
            self.close()
            return None

    def close(self) -> None:
        """Let go of the worker and of what it wrote. Safe to call twice."""
        self._is_over = True
        self._early.clear()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()


def stream_pages(stream: TypedStream, pages: Iterable[tuple[LandedPage, bytes, Sequence[date], bool]]) -> None:
    """Hand in pages read back from landing, and wait for the rows."""
    for page, body, days, is_whole in pages:
        if stream.has_failed:
            break
        stream.add(page, body, days, is_whole=is_whole)
    stream.finish()
