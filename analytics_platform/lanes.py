"""Vendors beside each other: processes of a `run` that each fetch one vendor after the other.

Belongs here: forking them, handing them vendors, what becomes of one that ends early. Does not belong here: what is run
for a vendor (`runner`), the process that checks for all of them (`core.beside`).

One thread that asks, decodes and records for five vendors waits for each of them in turn, Kameleoon's 50 requests a
second among them, while the other cores have nothing to do. A lane is a fork of this process, so that nothing is
imported twice. It is made before any database is open here, because SQLite forbids a connection to cross a fork, and
only where a process may be forked: on Linux, without other threads. Everywhere else vendors come one after the other.

A vendor is in one lane at a time: its pool in Dagster has one slot. One that reads rows of other vendors comes after
them, site by site. Lanes are in a session of their own, so that Ctrl-C reaches the parent only, which interrupts those
that work. A lane ends with its parent, however that ends.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from analytics_platform.core.beside import Line
from analytics_platform.core.errors import PlatformError
from analytics_platform.core.progress import Progress, listening, tell
from analytics_platform.core.redaction import redact
from analytics_platform.core.stopwatch import Span, measured, measuring
from analytics_platform.settings import Settings

if TYPE_CHECKING:
    from analytics_platform.runner import Runner, VendorResult

__all__ = ["Ended", "Lanes", "VendorJob", "lanes_for"]

_GRACE_SECONDS: Final = 20.0
"""Until a lane that was interrupted is killed: it records its run as ended first."""

_AGAIN_SECONDS: Final = 0.5


@dataclass(frozen=True, kw_only=True)
class VendorJob:
    """Bring one vendor of one site up to date for a range of days."""

    vendor: str
    site: str
    first_day: date
    last_day: date
    refresh: bool = False


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What came of a job.

    Args:
        result: None where no lane was left to do it.
        spans: where its seconds went (`core.stopwatch.shared`).
    """

    job: VendorJob
    result: VendorResult | None = None
    spans: Sequence[Span] = ()


@dataclass(kw_only=True, eq=False)
class _Lane:
    """One process as its parent sees it."""

    process: ForkProcess
    line: Connection
    job: VendorJob | None = None


class _Order:
    """Which job is next: never two of a vendor at once, and none before those of its site that it reads."""

    def __init__(self, jobs: Sequence[VendorJob], upstream: Mapping[str, Collection[str]]) -> None:
        self.waiting = list(jobs)
        self._working: list[VendorJob] = []
        self._upstream = upstream

    def next(self) -> VendorJob | None:
        """The next one to begin now; None where all that wait have to."""
        ready = [job for job in self.waiting if self._is_ready(job)]
        if not ready:
            return None
        # Whoever had to wait has the longest way before it, whoever is waited for the next longest.
        job = min(ready, key=lambda job: (not self._upstream.get(job.vendor), not self._is_waited_for(job)))
        self.waiting.remove(job)
        self._working.append(job)
        return job

    def ended(self, job: VendorJob) -> None:
        """However it ended, those that read its rows may begin."""
        self._working.remove(job)

    def _is_ready(self, job: VendorJob) -> bool:
        reads = self._upstream.get(job.vendor, ())
        unfinished = (*self.waiting, *self._working)
        return all(each.vendor != job.vendor for each in self._working) and not any(
            each.site == job.site and each.vendor in reads for each in unfinished
        )

    def _is_waited_for(self, job: VendorJob) -> bool:
        return any(job.vendor in self._upstream.get(each.vendor, ()) for each in self.waiting)


def lanes_for(settings: Settings, vendors: Sequence[str]) -> Lanes:
    """As many as there are cores or vendors; none where one process does as well, or may not be forked."""
    if sys.platform != "linux" or threading.active_count() > 1:
        return Lanes(settings, 0)
    count = min(len(vendors), len(os.sched_getaffinity(0)))
    return Lanes(settings, count if count > 1 else 0)


class Lanes:
    """Forked when the block begins, gone when it ends. Nothing has a database open when it begins.

    Args:
        count: how many; 0 is none, and every job comes back undone.
    """

    def __init__(self, settings: Settings, count: int) -> None:
        self._settings = settings
        self._count = count
        self._lanes: list[_Lane] = []
        self._alive: tuple[int, int] | None = None
        self.guests: list[Connection] = []
        """For the process that checks (`core.beside.Beside`): its ends of the lanes' pipes."""

    def __enter__(self) -> Self:
        if self._count:
            self._alive = os.pipe()
        sys.stdout.flush()
        for _ in range(self._count):
            self._fork()
        return self

    def _fork(self) -> None:
        ours, theirs = Pipe()
        checks, checking = Pipe()
        inherited = [ours, checking, *self.guests, *(lane.line for lane in self._lanes)]
        process = get_context("fork").Process(
            target=_serve, args=(theirs, checks, inherited, self._alive, self._settings), daemon=True
        )
        process.start()
        theirs.close()
        checks.close()
        self.guests.append(checking)
        self._lanes.append(_Lane(process=process, line=ours))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for lane in self._lanes:
            lane.line.close()
        until = time.monotonic() + _GRACE_SECONDS
        for lane in self._lanes:
            _end(lane, until)
        for guest in self.guests:
            guest.close()
        for descriptor in self._alive or ():
            os.close(descriptor)

    @property
    def count(self) -> int:
        return len(self._lanes)

    @property
    def pids(self) -> list[int]:
        """Of its processes, in their order."""
        return [lane.process.pid or 0 for lane in self._lanes]

    def run(self, jobs: Sequence[VendorJob], upstream: Mapping[str, Collection[str]]) -> Iterator[Ended]:
        """Yield each job as it ends, then those that no lane was left to do.

        Args:
            upstream: vendor → vendors whose rows it reads.

        Raises:
            PlatformError: what a lane could not go on after.
        """
        order = _Order(jobs, upstream)
        while True:
            for lane in self._lanes:
                if lane.job is None and (job := order.next()) is not None:
                    self._hand(lane, job)
            working = {lane.line: lane for lane in self._lanes if lane.job is not None}
            if not working:
                break
            for line in wait(list(working)):
                ended = self._heard(working[line])  # type: ignore[index]
                if ended is not None:
                    order.ended(ended.job)
                    yield ended
        yield from (Ended(job=job) for job in order.waiting)

    def _hand(self, lane: _Lane, job: VendorJob) -> None:
        lane.job = job
        with suppress(OSError):  # gone: whoever waits for its answer notices
            lane.line.send(job)

    def _heard(self, lane: _Lane) -> Ended | None:
        try:
            kind, what = lane.line.recv()
        except (EOFError, OSError):
            return self._lost(lane)
        if kind == "progress":
            tell(what)
            return None
        lane.job = None
        if kind == "raised":
            raise what
        ended: Ended = what
        return ended

    def _lost(self, lane: _Lane) -> Ended:
        from analytics_platform.runner import VendorResult

        lane.process.join()
        job, lane.job = lane.job, None
        if job is None:
            raise AssertionError("only a lane with a job is waited for")
        code = lane.process.exitcode or 0
        cause = f"by {signal.Signals(-code).name} (often: not enough memory)" if code < 0 else f"with exit code {code}"
        message = f"its process was ended {cause}; run it again, finished days cost no request"
        self._lanes.remove(lane)
        lane.line.close()
        return Ended(
            job=job, result=VendorResult(vendor=job.vendor, site=job.site, state="failed", message=message), spans=()
        )


def _end(lane: _Lane, until: float) -> None:
    """Interrupt it until it is gone: one that comes between two steps of Dagster may be lost."""
    process = lane.process
    while process.exitcode is None and time.monotonic() < until:
        if lane.job is not None:
            with suppress(ProcessLookupError):
                os.kill(process.pid or 0, signal.SIGINT)
        process.join(_AGAIN_SECONDS)
    process.kill()
    process.join()


# ------------------------------------------------------------------------------------------------------------ the lane


def _serve(
    line: Connection,
    checks: Connection,
    inherited: Sequence[Connection],
    alive: tuple[int, int],
    settings: Settings,
) -> None:
    """One lane, until the parent closes its line."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for other in inherited:
        other.close()
    os.close(alive[1])
    threading.Thread(target=_end_with_parent, args=(alive[0],), name="parent", daemon=True).start()
    with suppress(KeyboardInterrupt, EOFError, OSError), line, Line(checks):
        _work(line, settings)


def _end_with_parent(alive: int) -> None:
    """The other end is open as long as the parent lives. What it leaves is what a killed parent leaves."""
    os.read(alive, 1)
    os._exit(1)


def _work(line: Connection, settings: Settings) -> None:
    from analytics_platform.dagster_home import instance
    from analytics_platform.definitions import build_definitions
    from analytics_platform.runner import Runner

    definitions = build_definitions(settings)
    gc.freeze()
    job: VendorJob = line.recv()
    sending = threading.Lock()

    def send(kind: str, what: Any) -> None:
        with sending:
            line.send((kind, what))

    def progressed(progress: Progress) -> None:
        send("progress", progress)

    # The parent has made the home's databases before it hands out the first job.
    with instance(settings) as opened, listening(progressed):
        runner = Runner(settings, opened, definitions=definitions)
        while True:
            try:
                ended = _done(runner, job)
            except PlatformError as error:
                send("raised", error)
            except Exception as error:
                send("raised", PlatformError(f"{type(error).__name__}: {redact(str(error))}"))
            else:
                send("ended", ended)
            job = line.recv()


def _done(runner: Runner, job: VendorJob) -> Ended:
    with measuring() as watch, measured("dagster"):
        result = runner.do(job)
    return Ended(job=job, result=result, spans=watch.spans)
