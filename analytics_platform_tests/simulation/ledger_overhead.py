"""What the ledger costs: decisions a second, and the share it takes of a run of ten thousand pages.

Belongs here: the command and what it times. Does not belong here: whether decisions are right (`core/test_quota.py`).

    python -m analytics_platform_tests.simulation.ledger_overhead --pages 10000

Decisions: 1,000 requests for an account, then the next account, so that windows fill up and nobody sleeps; windows of
a second (committed) and of an hour (committed and synced) apart.

The run: client, transport, landing with its syncs, all real, against the sandbox in a process of its own, eight side by
side; with the ledger and without, in turns, because a shared host is not equally busy all the time; medians of the
rounds. Answers take 20 ms, the least a vendor across a network takes; and none at all, to show the ledger's own time
beside loopback's (that line is shown, not judged). Processor time is shown too: it tells the ledger's own cost where a
shared host's waiting time hides it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

from analytics_platform.core.concurrency import side_by_side
from analytics_platform.core.http import HttpClient, Meter, NullMeter, Response
from analytics_platform.core.landing import Landing
from analytics_platform.core.paging import Page, single_page
from analytics_platform.core.quota import Ledger, QuotaPolicy, Window, account_key, spending
from analytics_platform.sandbox.faults import delay
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import generate

PLENTY = 1_000_000_000
LIMIT = 1000
"""The largest that a vendor publishes (Smartlook's add-on by the hour, Kameleoon's POST by the second)."""
WINDOWS = {"a second": (Window(LIMIT, 1.0),), "an hour, synced": (Window(LIMIT, 3600.0),)}
ENDPOINT = "GET /visit/visitor"


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Decisions of one way of asking."""

    windows: str
    processes: int
    threads: int
    decisions_per_second: float


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A run of so many pages, medians of the rounds."""

    latency_ms: float
    windows: str
    pages: int
    rounds: int
    seconds_without: float
    seconds_with: float
    share: float
    """Of the time without: by this much longer."""
    processor_microseconds: float
    """More of this process's processor time, a page."""


# ------------------------------------------------------------------------------------------------------------ decisions


def _accounts(prefix: str, number: int) -> Iterator[str]:
    """An account for each of so many decisions."""
    for n in range(number):
        yield account_key("acme", f"{prefix}:{n // LIMIT}")


def _decide(path: Path, windows: str, threads: int, number: int, rounds: int, begin: Any, rates: Any) -> None:
    with Ledger.open(path) as ledger:
        ledger.acquire(account_key("acme", "warm"), "GET", WINDOWS[windows], ENDPOINT)

        def ask(name: str) -> None:
            for account in _accounts(name, number // threads):
                ledger.acquire(account, "GET", WINDOWS[windows], ENDPOINT)

        for turn in range(rounds):
            names = [f"{os.getpid()} {turn} {n}" for n in range(threads)]
            asking = [threading.Thread(target=ask, args=(name,)) for name in names]
            begin.wait()
            begun = time.monotonic()
            for thread in asking:
                thread.start()
            for thread in asking:
                thread.join()
            rates.put((turn, number // threads * threads / (time.monotonic() - begun)))


def decisions(windows: str, *, processes: int, threads: int, number: int, rounds: int) -> Rate:
    """The median of so many rounds; of several processes the sum of theirs."""
    spawning = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        begin, rates = spawning.Barrier(processes), spawning.Queue()
        given = (Path(folder) / "ledger.sqlite3", windows, threads, number // processes, rounds, begin, rates)
        asking = [spawning.Process(target=_decide, args=given) for _ in range(processes)]
        for process in asking:
            process.start()
        by_turn = [0.0] * rounds
        for _ in range(processes * rounds):
            turn, rate = rates.get()
            by_turn[turn] += rate
        for process in asking:
            process.join()
    return Rate(windows=windows, processes=processes, threads=threads, decisions_per_second=round(median(by_turn)))


# ---------------------------------------------------------------------------------------------------------------- a run


def serve(pipe: Connection) -> None:
    """The vendor, until the pipe closes."""
    profile = {"kameleoon": {"anonymous_gets_per_second": float(PLENTY)}}
    with Sandbox(generate(days=2, scale=0.1), vendors=("kameleoon",), profiles=profile) as sandbox:
        pipe.send((sandbox.base_urls["kameleoon"], sandbox.world.sites[0].kameleoon_site_code))
        while True:
            try:
                seconds = pipe.recv()
            except EOFError:
                return
            sandbox.requests.clear()
            sandbox.faults.clear()
            if seconds:
                sandbox.faults.add("kameleoon", "", fault=delay(seconds), times=PLENTY)
            pipe.send(True)


class Run:
    """Ten thousand pages from the vendor into a landing."""

    def __init__(self, base_url: str, site_code: str, pages: int) -> None:
        self._base_url = base_url
        self._site_code = site_code
        self._pages = pages

    def seconds(self, meter: Meter, folder: Path) -> tuple[float, float]:
        """How long it takes with this meter: on the clock, and of the processor."""
        day = datetime.now(UTC).date()
        begun, worked = time.monotonic(), time.process_time()
        with (
            HttpClient(vendor="acme", base_url=self._base_url, meter=meter) as http,
            Landing(folder / "landing").open_batch(
                vendor="acme", stream="visits", site="shop", first_day=day, last_day=day, run_id="overhead"
            ) as batch,
            spending(stream="visits", site="shop", run_id="overhead"),
        ):
            sends = (partial(self._page, http, number) for number in range(self._pages))
            for page in side_by_side(sends, most_in_flight=8):
                batch.append(page)
            batch.complete()
        return time.monotonic() - begun, time.process_time() - worked

    def _page(self, http: HttpClient, number: int) -> Page:
        query = {"siteCode": self._site_code, "visitorCode": f"visitor{number:09d}", "maxNumberPreviousVisits": "25"}
        response: Response = http.request("GET", "/visit/visitor", endpoint=ENDPOINT, params=query)
        return single_page(response, call=f"visitor/{number}", call_kind="visitor", context={}, records=0)


class _InTurn:
    """Meters of several accounts, a thousand requests each."""

    def __init__(self, meters: Sequence[Meter]) -> None:
        self._meters = meters
        self._asked = itertools.count()

    def acquire(self, *, method: str, endpoint: str) -> None:
        """See `Meter.acquire`."""
        self._meters[next(self._asked) // LIMIT].acquire(method=method, endpoint=endpoint)

    def learn(self, *, method: str, endpoint: str, status: int, retry_after_seconds: float | None) -> None:
        """See `Meter.learn`."""
        self._meters[0].learn(method=method, endpoint=endpoint, status=status, retry_after_seconds=retry_after_seconds)


def _metered(ledger: Ledger, windows: str, pages: int) -> Meter:
    return _InTurn(
        [
            ledger.meter(QuotaPolicy(account=account_key("acme", str(n)), windows={"GET": WINDOWS[windows]}))
            for n in range(pages // LIMIT + 2)
        ]
    )


def costs(pages: int, rounds: int) -> Iterator[Cost]:
    """Each kind of run and of windows, with and without the ledger in turns."""
    spawning = multiprocessing.get_context("spawn")
    pipe, theirs = spawning.Pipe()
    vendor = spawning.Process(target=serve, args=(theirs,), daemon=True)
    vendor.start()
    theirs.close()
    try:
        base_url, site_code = pipe.recv()
        for seconds, windows in itertools.product((0.02, 0.0), WINDOWS):

            def between(seconds: float = seconds) -> None:
                pipe.send(seconds)
                pipe.recv()

            yield _cost(Run(base_url, site_code, pages), seconds, windows, pages, rounds, between=between)
    finally:
        pipe.close()
        vendor.join()


def _cost(
    run: Run, latency_seconds: float, windows: str, pages: int, rounds: int, *, between: Callable[[], None]
) -> Cost:
    without: list[tuple[float, float]] = []
    with_ledger: list[tuple[float, float]] = []
    for number in range(2 * rounds):
        between()
        with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
            home = Path(folder)
            # Which goes first changes from round to round.
            if (number + number // 2) % 2:
                with Ledger.open(home / "ledger.sqlite3") as ledger:
                    meter = _metered(ledger, windows, pages)
                    with_ledger.append(run.seconds(meter, home))
            else:
                without.append(run.seconds(NullMeter(), home))
    (less, less_work), (more, more_work) = (
        tuple(median(values) for values in zip(*runs, strict=True)) for runs in (without, with_ledger)
    )
    return Cost(
        latency_ms=latency_seconds * 1000,
        windows=windows,
        pages=pages,
        rounds=rounds,
        seconds_without=round(less, 2),
        seconds_with=round(more, 2),
        share=round(more / less - 1, 4),
        processor_microseconds=round((more_work - less_work) / pages * 1e6, 1),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Time and print; fails below 5,000 decisions a second on one process, or above 5 % of a run's time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=10_000)
    parser.add_argument("--decisions", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    chosen = parser.parse_args(arguments)
    is_short = False

    def show(found: Rate | Cost, text: str) -> None:
        sys.stdout.write((json.dumps(asdict(found)) if chosen.json else text) + "\n")
        sys.stdout.flush()

    for windows, (processes, threads) in itertools.product(WINDOWS, ((1, 1), (1, 8), (4, 1))):
        rate = decisions(windows, processes=processes, threads=threads, number=chosen.decisions, rounds=chosen.rounds)
        is_short |= processes == 1 and rate.decisions_per_second < 5000
        show(
            rate, f"{windows:16} {processes} processes {threads} threads {rate.decisions_per_second:8,.0f} decisions/s"
        )
    for cost in costs(chosen.pages, chosen.rounds):
        is_short |= cost.latency_ms > 0 and cost.share > 0.05
        show(
            cost,
            f"{cost.pages:,} pages, answers after {cost.latency_ms:g} ms, {cost.windows}: "
            f"{cost.seconds_without:.2f} s without, "
            f"{cost.seconds_with:.2f} s with the ledger, {cost.share:+.1%}; "
            f"{cost.processor_microseconds:+.0f} µs of the processor a page",
        )
    return int(is_short)


if __name__ == "__main__":
    sys.exit(main())
