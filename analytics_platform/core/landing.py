"""Landing: every page a vendor was paid for, as received, before the next request is sent.

Belongs here: the batch format, its durability, finding the batch that covers a day, reading pages back with their
sha256
checked. Does not belong here: HTTP, decoding (`core.lake`), Dagster, any vendor's name.

One batch is one extraction of one stream for one site and one contiguous range of days:

    landing/<vendor>/<stream>/site=<site>/day=<first>[_<last>]/<batch id>/
        pages.bin     zstd frames, one a page, appended
        pages.jsonl   one line a page: offset, length, sha256 of the uncompressed bytes, call, context, request facts
        settled.json  by rename: of an open batch, the days that are complete already, and the pages that say so
        batch.json    written last, by rename: the batch is complete

A page is in the operating system's hands before `append` returns, so kill -9 loses nothing; both files are fsynced
at the latest
every second or 64 pages and before `batch.json`, so a power cut loses at most that tail. An index line whose bytes are
missing, torn or wrong ends the batch there when it is reopened: the tail is cut off, what is before it stays.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import msgspec
import zstandard
from msgspec.structs import replace as replace_struct

from analytics_platform.core.clock import Clock, SystemClock
from analytics_platform.core.durable import fsync_directory, fsync_file, make_directories, storage_errors, write_file
from analytics_platform.core.errors import LandingCorrupt, StorageError, Where
from analytics_platform.core.failpoints import passing
from analytics_platform.core.paging import Page
from analytics_platform.core.settling import InterruptedCall, settled_from

__all__ = ["Batch", "BatchWriter", "LandedList", "LandedPage", "Landing", "PartitionBusy", "Rewritten"]

_FSYNC_EVERY_SECONDS = 1.0
_FSYNC_EVERY_PAGES = 64
_ZSTD_LEVEL = 1
"""As small as the default, 3, on every vendor's pages, and a third faster."""


class PartitionBusy(StorageError):
    """Another process is fetching this stream for this site right now."""


class LandedList(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a page's list of records was found when the page was proved: what a decode need not find out again.

    `at` is the member that is the list ("" is the root), `start` and `end` are the places of its brackets, `fields` the
    names of the records' members (None: the records have to be read for them).
    """

    at: str
    start: int
    end: int
    fields: tuple[str, ...] | None = None


class LandedPage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One index line. Sizes in bytes, instants ISO 8601 UTC.

    `stripped` counts records of forgotten persons that were taken out of the page as the vendor sent it. `listed` is of
    the page as it is here: a page that is rewritten loses it.
    """

    offset: int
    length: int
    sha256: str
    size: int
    call: str
    call_kind: str
    sequence: int
    is_last: bool
    status: int
    endpoint: str
    received_at: datetime
    records: int
    attempts: int
    run_id: str
    context: dict[str, str]
    stripped: int = 0
    listed: LandedList | None = None


class _BatchSeal(msgspec.Struct, frozen=True, kw_only=True):
    vendor: str
    stream: str
    site: str
    first_day: date
    last_day: date
    landed_at: datetime
    pages: int
    records: int
    requests: int
    index_sha256: str
    oldest_page_at: datetime | None = None


class _Settled(msgspec.Struct, frozen=True, kw_only=True):
    """Days of an open batch that are complete: everything from `from_day` on, by the first pages of its index."""

    from_day: date
    pages: int
    index_bytes: int
    index_sha256: str
    settled_at: datetime
    oldest_page_at: datetime


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch on disk. `landed_at` is None while it is open (interrupted or deferred).

    `asked_since` is when its oldest page was received: a batch that was deferred for days knows no more about its first
    calls than the vendor did then, however late it was sealed.
    """

    path: Path
    vendor: str
    stream: str
    site: str
    first_day: date
    last_day: date
    landed_at: datetime | None
    asked_since: datetime | None = None
    page_count: int | None = None
    index_sha256: str | None = None
    index_bytes: int | None = None
    """Of a part of an open batch: how much of its index belongs to the part."""
    requests: int | None = None
    """What it cost; None while it is open."""

    @property
    def is_complete(self) -> bool:
        return self.landed_at is not None

    @property
    def days(self) -> list[date]:
        span = (self.last_day - self.first_day).days
        return [self.first_day + timedelta(days=n) for n in range(span + 1)]

    def covers(self, day: date) -> bool:
        return self.first_day <= day <= self.last_day

    def index(self) -> list[LandedPage]:
        """Index lines in order, up to the first torn one, which only an open batch may have.

        Raises:
            LandingCorrupt: a complete batch's index is not the one that was sealed.
        """
        lines, _ = _read_index(self.path)
        if self.page_count is None:
            return lines
        if self.index_bytes is not None:
            lines = lines[: self.page_count]
        if len(lines) != self.page_count:
            raise self._corrupt(f"The index of batch {self.path.name} holds {len(lines)} of {self.page_count} pages.")
        if _sha256_of(self.path / "pages.jsonl", self.index_bytes) != self.index_sha256:
            raise self._corrupt(f"The index of batch {self.path.name} is not the one that was sealed.")
        return lines

    def _corrupt(self, what: str) -> LandingCorrupt:
        return LandingCorrupt(
            what,
            "Restore the batch folder from a backup, or delete it and run its days again.",
            Where(vendor=self.vendor, endpoint=self.stream, site=self.site, partition=self.path.parent.name),
        )

    def pages(self, call_kinds: Iterable[str] | None = None) -> Iterator[tuple[LandedPage, bytes]]:
        """Pages in order with their bytes.

        Raises:
            LandingCorrupt: bytes missing or not matching their sha256 in a complete batch.
        """
        wanted = None if call_kinds is None else frozenset(call_kinds)
        decompressor = zstandard.ZstdDecompressor()
        content = self.path / "pages.bin"
        index = self.index()
        if index and not content.exists():
            raise self._corrupt(f"The pages of batch {self.path.name} are missing.")
        with storage_errors("Reading landed pages"), content.open("rb") if index else nullcontext() as file:
            for page in index:
                if file is None or (wanted is not None and page.call_kind not in wanted):
                    continue
                file.seek(page.offset)
                body = _inflate(decompressor, file.read(page.length), page)
                if body is None:
                    raise self._corrupt(
                        f"Landed page {page.sequence} of {page.endpoint} no longer matches its sha256 "
                        f"({self.path.name})."
                    )
                yield page, body


class Rewritten(NamedTuple):
    """What a landed page becomes: its new bytes (None: the page goes) and how many records were taken out."""

    body: bytes | None
    removed: int


class Landing:
    """All batches below one root."""

    def __init__(self, root: Path, *, clock: Clock | None = None) -> None:
        self.root = root
        self.clock = clock or SystemClock()

    def batches(
        self, vendor: str, stream: str, site: str, *, days: Sequence[date] | None = None, only_open: bool = False
    ) -> list[Batch]:
        """Batches of the stream and site, oldest first by the time they were begun: every one by default.

        Args:
            days: only those that cover one of them; the others' seals are not read, so that a day costs the same
                whatever else is landed.
            only_open: only those that are not complete.

        Raises:
            LandingCorrupt: a batch's seal cannot be read.
        """
        base = self._site_path(vendor, stream, site)
        if not base.is_dir():
            return []
        found = []
        for day_folder in base.iterdir():
            span = _parse_day_folder(day_folder.name)
            if span is None or (days is not None and not any(span[0] <= day <= span[1] for day in days)):
                continue
            for folder in day_folder.iterdir():
                if only_open and (folder / "batch.json").exists():
                    continue
                if folder.is_dir() and not folder.name.startswith("."):
                    found.append(_load_batch(folder, vendor, stream, site, span))
        return sorted(found, key=lambda batch: batch.path.name)

    def newest_complete(self, vendor: str, stream: str, site: str, days: Sequence[date]) -> dict[date, Batch]:
        """For each day the newest complete batch that covers it, or the settled part of an open one; days without are
        absent.
        """
        covering: dict[date, Batch] = {}
        for batch in self.batches(vendor, stream, site, days=days):
            part = batch if batch.is_complete else _settled_part(batch)
            if part is not None:
                covering.update({day: part for day in days if part.covers(day)})
        return covering

    def streams(self) -> list[tuple[str, str, str]]:
        """(vendor, stream, site) of everything that was ever landed, also of vendors and sites since removed."""
        found = []
        for folder in self.root.glob("*/*/site=*"):
            if folder.is_dir():
                found.append((folder.parts[-3], folder.parts[-2], folder.name.removeprefix("site=")))
        return sorted(found)

    def rewrite(self, batch: Batch, strip: Callable[[LandedPage, bytes], Rewritten | None]) -> tuple[Batch, int]:
        """Replace a batch by one whose pages `strip` has changed; returns what stands there now and the pages changed.

        A batch that has nothing to change is not touched. The new one is written beside the old, made durable and
        given a name that sorts right after it: from that moment it is the one that covers the days. Then the old one
        goes. Killed in between, the next call finds both and removes the old. Pages that stay keep their bytes, and
        what the batch says about when its pages were received stays true. The caller holds `exclusive`.

        Raises:
            LandingCorrupt: the batch cannot be read.
        """
        pages = list(batch.index())
        decided = {page.offset: found for page, body in batch.pages() if (found := strip(page, body)) is not None}
        end = max((page.offset + page.length for page in pages), default=0)
        content = batch.path / "pages.bin"
        torn = content.exists() and content.stat().st_size > end
        if not decided and not torn:
            return batch, 0
        name, _, generation = batch.path.name.partition(".e")
        renewed = batch.path.with_name(f"{name}.e{int(generation or 0) + 1}")
        building = batch.path.with_name(f".{renewed.name}")
        shutil.rmtree(building, ignore_errors=True)
        with storage_errors("Rewriting a landing batch"):
            _write_renewed(batch, pages, decided, building)
            passing("landing.rewritten")
            shutil.rmtree(renewed, ignore_errors=True)
            building.rename(renewed)
            fsync_directory(renewed.parent)
            passing("landing.swapped")
            # Out of sight first: half a folder without its seal would look like a batch to go on with.
            hidden = batch.path.with_name(f".{batch.path.name}")
            shutil.rmtree(hidden, ignore_errors=True)
            batch.path.rename(hidden)
            shutil.rmtree(hidden)
            fsync_directory(renewed.parent)
        span = (batch.first_day, batch.last_day)
        return _load_batch(renewed, batch.vendor, batch.stream, batch.site, span), len(decided)

    def sweep(self, vendor: str, stream: str, site: str) -> None:
        """Finish what a killed `rewrite` left: half-written batches, and old ones whose successor is there. The caller
        holds `exclusive`.
        """
        for day_folder in self._site_path(vendor, stream, site).glob("day=*"):
            for folder in day_folder.glob(".*"):
                shutil.rmtree(folder, ignore_errors=True)
            for successor in day_folder.glob("[!.]*.e*"):
                name, _, generation = successor.name.partition(".e")
                before = [f"{name}.e{n}" for n in range(1, int(generation))]
                for old in (name, *before):
                    shutil.rmtree(day_folder / old, ignore_errors=True)

    @contextmanager
    def exclusive(self, vendor: str, stream: str, site: str) -> Iterator[None]:
        """Hold the stream and site for this process; the operating system frees it when the process dies.

        Raises:
            PartitionBusy: another process holds it.
        """
        base = self._site_path(vendor, stream, site)
        with storage_errors("Preparing the landing"):
            make_directories(base)
            descriptor = os.open(base / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise PartitionBusy(
                    f"Another run is fetching {vendor}/{stream} for this site.",
                    "Wait for it to end (see the run list in the Dagster UI), then materialise again: nothing is lost.",
                    Where(vendor=vendor, site=site),
                ) from error
            yield
        finally:
            os.close(descriptor)

    def open_batch(
        self, *, vendor: str, stream: str, site: str, first_day: date, last_day: date, run_id: str, fresh: bool = False
    ) -> BatchWriter:
        """Continue the open batch of exactly this range, or begin a new one (always, when `fresh`)."""
        folder = self._site_path(vendor, stream, site) / _day_folder(first_day, last_day)
        open_folders = (
            [] if fresh else sorted(p for p in folder.glob("[!.]*") if p.is_dir() and not (p / "batch.json").exists())
        )
        if open_folders:
            path = open_folders[-1]
        else:
            stamp = self.clock.now().strftime("%Y%m%dT%H%M%S%f")
            path = folder / f"{stamp}-{run_id[:8] or 'manual'}"
        return BatchWriter(
            path,
            vendor=vendor,
            stream=stream,
            site=site,
            first_day=first_day,
            last_day=last_day,
            run_id=run_id,
            clock=self.clock,
        )

    def _site_path(self, vendor: str, stream: str, site: str) -> Path:
        return self.root / vendor / stream / f"site={site}"


class BatchWriter:
    """Appends pages to one batch. Use as a context manager; leave without `complete()` to keep it open for later."""

    def __init__(
        self,
        path: Path,
        *,
        vendor: str,
        stream: str,
        site: str,
        first_day: date,
        last_day: date,
        run_id: str,
        clock: Clock,
    ) -> None:
        self.path = path
        self._identity = {
            "vendor": vendor,
            "stream": stream,
            "site": site,
            "first_day": first_day,
            "last_day": last_day,
        }
        self._run_id = run_id
        self._clock = clock
        self._compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)
        self._encoder = msgspec.json.Encoder()
        self.landed: list[LandedPage] = []
        self.appended_pages = 0
        self.appended_requests = 0
        self.landed_records = 0
        self._unsynced = 0
        # A tail that was cut off on opening has to be gone after a power cut too.
        self._is_durable = False
        self._synced_at = clock.monotonic()

    def __enter__(self) -> Self:
        with storage_errors("Opening a landing batch"):
            make_directories(self.path)
            self.landed, valid_index_bytes = _read_index(self.path, verify=True)
            self.landed_records = sum(page.records for page in self.landed)
            valid_page_bytes = max((p.offset + p.length for p in self.landed), default=0)
            self._pages = _open_append(self.path / "pages.bin", valid_page_bytes)
            self._index = _open_append(self.path / "pages.jsonl", valid_index_bytes)
            self._end = valid_page_bytes
            fsync_directory(self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.sync()
        finally:
            os.close(self._pages)
            os.close(self._index)

    @property
    def done_calls(self) -> frozenset[str]:
        """Calls whose last page is landed."""
        return frozenset(page.call for page in self.landed if page.is_last)

    @property
    def interrupted(self) -> dict[str, InterruptedCall]:
        """Calls that landed in part: how many pages, and what the last of them was stamped with."""
        done = self.done_calls
        open_pages = {page.call: page for page in self.landed if page.call not in done}
        return {
            call: InterruptedCall(pages=page.sequence + 1, context=page.context) for call, page in open_pages.items()
        }

    @property
    def settled_days(self) -> list[date]:
        """Days that `settle` made visible."""
        settled = _read_settled(self.path)
        if settled is None:
            return []
        last_day = self._identity["last_day"]
        assert isinstance(last_day, date)  # noqa: S101  (the mapping holds names and days)
        return [settled.from_day + timedelta(days=n) for n in range((last_day - settled.from_day).days + 1)]

    def settle(self) -> None:
        """Make visible the days that the pages landed so far are known to complete, though the batch goes on."""
        first_day, last_day = self._identity["first_day"], self._identity["last_day"]
        assert isinstance(first_day, date)  # noqa: S101  (the mapping holds names and days)
        assert isinstance(last_day, date)  # noqa: S101
        found = settled_from(page.context for page in self.landed)
        from_day = None if found is None else max(found, first_day)
        known = _read_settled(self.path)
        if from_day is None or from_day > last_day or (known is not None and known.from_day <= from_day):
            return
        self.sync()
        passing("landing.before_settle")
        index = (self.path / "pages.jsonl").read_bytes()
        settled = _Settled(
            from_day=from_day,
            pages=len(self.landed),
            index_bytes=len(index),
            index_sha256=hashlib.sha256(index).hexdigest(),
            settled_at=self._clock.now(),
            oldest_page_at=min(page.received_at for page in self.landed),
        )
        write_file(self.path / "settled.json", self._encoder.encode(settled))
        passing("landing.after_settle")

    def append(self, page: Page, *, stripped: int = 0) -> LandedPage:
        """Write one page and its index line; both are with the operating system when this returns.

        Args:
            stripped: records that were taken out of the page beforehand.
        """
        passing("landing.before_append")
        frame = self._compressor.compress(page.body)
        line = LandedPage(
            offset=self._end,
            length=len(frame),
            sha256=page.sha256,
            size=len(page.body),
            call=page.call,
            call_kind=page.call_kind,
            sequence=page.sequence,
            is_last=page.is_last,
            status=page.status,
            endpoint=page.endpoint,
            received_at=page.received_at,
            records=page.records,
            attempts=page.attempts,
            run_id=self._run_id,
            context=dict(page.context),
            stripped=stripped,
            listed=_landed_list(page),
        )
        with storage_errors("Landing a page"):
            _write_all(self._pages, frame)
            passing("landing.after_bytes")
            _write_all(self._index, self._encoder.encode(line) + b"\n")
            passing("landing.after_index")
        self._end += len(frame)
        self.landed.append(line)
        self.appended_pages += 1
        self.appended_requests += page.attempts
        self.landed_records += page.records
        self._is_durable = False
        self._unsynced += 1
        if self._unsynced >= _FSYNC_EVERY_PAGES or self._clock.monotonic() - self._synced_at >= _FSYNC_EVERY_SECONDS:
            self.sync()
        return line

    def sync(self) -> None:
        """Make everything appended so far survive a power cut: bytes first, then the index that names them."""
        if self._is_durable:
            return
        with storage_errors("Landing a page"):
            os.fsync(self._pages)
            os.fsync(self._index)
        self._is_durable = True
        self._unsynced = 0
        self._synced_at = self._clock.monotonic()

    def complete(self) -> Batch:
        """Seal the batch: from now on it covers its days."""
        self.sync()
        passing("landing.before_seal")
        landed_at = self._clock.now()
        index = (self.path / "pages.jsonl").read_bytes()
        seal = _BatchSeal(
            **self._identity,  # type: ignore[arg-type]  # one mapping of str and date values, named above
            landed_at=landed_at,
            pages=len(self.landed),
            records=self.landed_records,
            requests=sum(page.attempts for page in self.landed),
            index_sha256=hashlib.sha256(index).hexdigest(),
            oldest_page_at=min((page.received_at for page in self.landed), default=None),
        )
        write_file(self.path / "batch.json", self._encoder.encode(seal))
        (self.path / "settled.json").unlink(missing_ok=True)
        passing("landing.after_seal")
        return _load_batch(
            self.path,
            seal.vendor,
            seal.stream,
            seal.site,
            (seal.first_day, seal.last_day),
        )


def _landed_list(page: Page) -> LandedList | None:
    found = page.listed
    return None if found is None else LandedList(at=found.at, start=found.start, end=found.end, fields=found.fields)


def _write_renewed(batch: Batch, pages: Sequence[LandedPage], decided: Mapping[int, Rewritten], folder: Path) -> None:
    """The batch's files anew: frames that stay are copied, the others compressed, the seal made over the new index."""
    make_directories(folder)
    encoder = msgspec.json.Encoder()
    compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)
    index = bytearray()
    records = 0
    written = 0
    kept = 0
    settled = _read_settled(batch.path)
    part: tuple[int, bytes] | None = None
    with (folder / "pages.bin").open("wb") as target:
        source = (batch.path / "pages.bin").open("rb") if pages else None
        with source or nullcontext():
            for number, page in enumerate(pages):
                if settled is not None and number == settled.pages:
                    part = (kept, bytes(index))
                change = decided.get(page.offset)
                if change is not None and change.body is None:
                    continue
                if source is None:
                    raise AssertionError("pages without a file of pages")
                source.seek(page.offset)
                frame = source.read(page.length) if change is None else compressor.compress(change.body or b"")
                line = replace_struct(page, offset=written, length=len(frame))
                if change is not None and change.body is not None:
                    line = replace_struct(
                        line,
                        sha256=hashlib.sha256(change.body).hexdigest(),
                        size=len(change.body),
                        records=max(0, page.records - change.removed),
                        stripped=page.stripped + change.removed,
                        listed=None,
                    )
                target.write(frame)
                index += encoder.encode(line) + b"\n"
                written += len(frame)
                records += line.records
                kept += 1
    (folder / "pages.jsonl").write_bytes(index)
    for name in ("pages.bin", "pages.jsonl"):
        (folder / name).chmod(0o600)
        fsync_file(folder / name)
    seal = batch.path / "batch.json"
    if seal.exists():
        sealed = msgspec.json.decode(seal.read_bytes(), type=_BatchSeal)
        renewed = replace_struct(sealed, pages=kept, records=records, index_sha256=hashlib.sha256(index).hexdigest())
        write_file(folder / "batch.json", encoder.encode(renewed))
    elif settled is not None:
        count, prefix = part or (kept, bytes(index))
        digest = hashlib.sha256(prefix).hexdigest()
        still = replace_struct(settled, pages=count, index_bytes=len(prefix), index_sha256=digest)
        write_file(folder / "settled.json", encoder.encode(still))
    fsync_directory(folder)


def _day_folder(first_day: date, last_day: date) -> str:
    return f"day={first_day}" if first_day == last_day else f"day={first_day}_{last_day}"


def _parse_day_folder(name: str) -> tuple[date, date] | None:
    if not name.startswith("day="):
        return None
    first, _, last = name.removeprefix("day=").partition("_")
    try:
        first_day = date.fromisoformat(first)
        return first_day, date.fromisoformat(last) if last else first_day
    except ValueError:
        return None


def _load_batch(folder: Path, vendor: str, stream: str, site: str, span: tuple[date, date]) -> Batch:
    batch = Batch(
        path=folder, vendor=vendor, stream=stream, site=site, first_day=span[0], last_day=span[1], landed_at=None
    )
    seal = folder / "batch.json"
    if not seal.exists():
        return batch
    try:
        sealed = msgspec.json.decode(seal.read_bytes(), type=_BatchSeal)
    except msgspec.MsgspecError:
        raise batch._corrupt(f"The seal of batch {folder.name} cannot be read.") from None
    return replace(
        batch,
        landed_at=sealed.landed_at,
        asked_since=sealed.oldest_page_at or sealed.landed_at,
        page_count=sealed.pages,
        index_sha256=sealed.index_sha256,
        requests=sealed.requests,
    )


def _read_settled(folder: Path) -> _Settled | None:
    """What is settled of the batch; None where nothing is, or where it does not say so readably: asked again then."""
    marker = folder / "settled.json"
    if not marker.exists():
        return None
    try:
        return msgspec.json.decode(marker.read_bytes(), type=_Settled)
    except msgspec.MsgspecError:
        return None


def _settled_part(batch: Batch) -> Batch | None:
    """The settled days of an open batch, as a batch of their own over the same pages."""
    settled = _read_settled(batch.path)
    if settled is None:
        return None
    return replace(
        batch,
        first_day=settled.from_day,
        landed_at=settled.settled_at,
        asked_since=settled.oldest_page_at,
        page_count=settled.pages,
        index_sha256=settled.index_sha256,
        index_bytes=settled.index_bytes,
    )


def _sha256_of(path: Path, size: int | None = None) -> str:
    return hashlib.sha256(path.read_bytes()[:size]).hexdigest() if path.exists() else ""


def _read_index(path: Path, *, verify: bool = False) -> tuple[list[LandedPage], int]:
    """Whole lines of the index and the number of their bytes; with `verify` only as far as the page bytes hold."""
    index = path / "pages.jsonl"
    if not index.exists():
        return [], 0
    decoder = msgspec.json.Decoder(LandedPage)
    content = index.read_bytes()
    lines: list[LandedPage] = []
    used = 0
    pages_path = path / "pages.bin"
    pages = pages_path.read_bytes() if verify and pages_path.exists() else b""
    decompressor = zstandard.ZstdDecompressor()
    for raw in content.split(b"\n")[:-1]:
        try:
            line = decoder.decode(raw)
        except msgspec.MsgspecError:
            break
        if verify and _inflate(decompressor, pages[line.offset : line.offset + line.length], line) is None:
            break
        lines.append(line)
        used += len(raw) + 1
    return lines, used


def _inflate(decompressor: zstandard.ZstdDecompressor, frame: bytes, page: LandedPage) -> bytes | None:
    """The page's bytes, or None where they are not what was landed."""
    if len(frame) != page.length:
        return None
    try:
        body: bytes = decompressor.decompress(frame, max_output_size=max(page.size, 1))
    except zstandard.ZstdError:
        return None
    return body if hashlib.sha256(body).hexdigest() == page.sha256 else None


def _open_append(path: Path, valid_bytes: int) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(descriptor, valid_bytes)
    os.lseek(descriptor, valid_bytes, os.SEEK_SET)
    return descriptor


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
