"""Kameleoon's limit used up: the real client, ledger and pool against the sandbox's limiter behind a slow line.

Belongs here: the command, the slow line, the table it prints. Does not belong here: how many are in flight
(`core.concurrency`), the windows (`vendors/kameleoon`).

    python -m analytics_platform_tests.simulation.kameleoon_rate --seconds 60

The sandbox, with its limits on, runs in a process of its own, and so does the line between: a relay that holds back
what passes, half of the latency each way, so that requests also arrive in another order than they left. The judge is
the sandbox's request log: answers a second over the whole run, answers 429. The most arrivals in any second are counted
where the line ends: the log notes a request when the sandbox gets round to it, later the more there is to answer.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import multiprocessing
import os
import random
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from urllib.parse import urlsplit

from analytics_platform.core.concurrency import side_by_side
from analytics_platform.core.landing import Landing
from analytics_platform.core.paging import Page
from analytics_platform.core.quota import Ledger, spending
from analytics_platform.sandbox.observe import tagged_visitors
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import generate
from analytics_platform.vendors import vendor_resource
from analytics_platform_tests.simulation.quota_month import most_in_a_window

VENDOR = "kameleoon"


@dataclass(frozen=True, kw_only=True)
class Line:
    """The way to the vendor and back; milliseconds drawn evenly between the two, for each direction's half."""

    fastest_ms: float
    slowest_ms: float
    is_anonymous: bool = False

    @property
    def name(self) -> str:
        """For the table."""
        kind = "anonymous" if self.is_anonymous else "authenticated"
        spread = (
            f"{self.fastest_ms:g}" if self.fastest_ms == self.slowest_ms else f"{self.fastest_ms:g}-{self.slowest_ms:g}"
        )
        return f"{kind}, {spread} ms"


@dataclass(kw_only=True)
class Measured:
    """What the vendor saw of one line."""

    line: str
    limit_per_second: int
    seconds: float
    answers: int
    refused_429: int
    most_in_a_second: int
    of_the_limit: float


LINES = (
    *(Line(fastest_ms=ms, slowest_ms=ms) for ms in (20, 50, 100, 200)),
    Line(fastest_ms=20, slowest_ms=60),
    Line(fastest_ms=150, slowest_ms=200),
    Line(fastest_ms=0, slowest_ms=500, is_anonymous=True),
)


# ----------------------------------------------------------------------------------------------------- the other side


def serve(pipe: Connection) -> None:
    """The vendor, until the pipe closes. An order, whatever it is, brings the statuses since the last one."""
    world = generate(days=2, scale=0.3)
    with Sandbox(world, vendors=(VENDOR,)) as sandbox:
        site = sandbox.world.sites[0]
        people = tagged_visitors(sandbox.world, site.key, block_cut=0.0)
        codes = sorted(people["kameleoon_code"].dropna().astype(str))
        pipe.send((sandbox.environment(), sandbox.base_urls[VENDOR], site.kameleoon_site_code, codes))
        with suppress(EOFError):
            while True:
                pipe.recv()
                pipe.send([(record.at_monotonic, record.status) for record in sandbox.requests.records(vendor=VENDOR)])
                sandbox.requests.clear()


def relay(pipe: Connection, target: str) -> None:
    """The line to the vendor, until the pipe closes. Orders: a `Line` to begin with, None for the arrivals since."""
    asyncio.run(_relay(pipe, *_host_and_port(target)))


def _host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return str(parts.hostname), int(parts.port or 80)


async def _relay(pipe: Connection, host: str, port: int) -> None:
    drawn = random.Random(11)
    line = LINES[0]
    arrivals: list[float] = []

    async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_request: bool) -> None:
        try:
            while content := await source.read(65536):
                half = drawn.uniform(line.fastest_ms, line.slowest_ms) / 2000
                # All of an anonymous caller's jitter is on the way there: the worst case for a limit.
                await asyncio.sleep((2 * half if is_request else 0.0) if line.is_anonymous else half)
                if is_request:
                    arrivals.append(time.monotonic())
                sink.write(content)
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            sink.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, port)
        back.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.gather(carry(reader, back, is_request=True), carry(there, writer, is_request=False))

    # asyncio turns Nagle off only where the protocol is named (as in the sandbox).
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    server = await asyncio.start_server(accept, sock=listening)
    pipe.send(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    while True:
        try:
            order = await asyncio.to_thread(pipe.recv)
        except EOFError:
            return
        if order is None:
            pipe.send(list(arrivals))
        else:
            line = order
            arrivals.clear()
            pipe.send(True)


# ------------------------------------------------------------------------------------------------------------ this side


@dataclass(frozen=True, kw_only=True)
class Ends:
    """Where the vendor and the line take orders."""

    vendor: Connection
    line: Connection


def measure(
    line: Line, seconds: float, site_code: str, codes: Sequence[str], *, ends: Ends, home: Path, ledger: Ledger
) -> Measured:
    """Ask for visitors for so long, land every page, and read the vendor's log.

    Raises:
        RuntimeError: the line carried another number of requests than the vendor has seen.
    """
    ends.line.send(line)
    ends.line.recv()
    _ask(line, seconds, site_code, codes, home, ledger)
    ends.line.send(None)
    arrivals: list[float] = ends.line.recv()
    ends.vendor.send(None)
    seen: list[tuple[float, int]] = ends.vendor.recv()
    if len(arrivals) != len(seen):
        raise RuntimeError(f"the line carried {len(arrivals)} requests, the vendor has seen {len(seen)}")
    begun = min(at for at, _ in seen)
    within = [(at, status) for at, status in seen if at < begun + seconds]
    limit = 5 if line.is_anonymous else 50
    answers = sum(status == 200 for _, status in within)
    return Measured(
        line=line.name,
        limit_per_second=limit,
        seconds=seconds,
        answers=answers,
        refused_429=sum(status == 429 for _, status in seen),
        most_in_a_second=most_in_a_window(arrivals, 1.0),
        of_the_limit=round(answers / seconds / limit, 4),
    )


def _ask(line: Line, seconds: float, site_code: str, codes: Sequence[str], folder: Path, ledger: Ledger) -> None:
    ids = {"site_code": site_code} | ({"access": "anonymous"} if line.is_anonymous else {})
    ends_at = time.monotonic() + seconds + 1.0
    day = datetime.now(UTC).date()
    with (
        vendor_resource(VENDOR).connect(ids, ledger) as client,
        Landing(folder / "landing").open_batch(
            vendor=VENDOR, stream="visits", site="rate", first_day=day, last_day=day, run_id="rate"
        ) as batch,
        spending(stream="visits", site="rate"),
    ):

        def sends() -> Iterator[Callable[[], Page]]:
            for code in itertools.cycle(codes):
                if time.monotonic() >= ends_at:
                    return
                yield partial(client.visitor, site_code=site_code, visitor_code=code)

        for page in side_by_side(sends()):
            batch.append(page)


def play(lines: Sequence[Line], seconds: float) -> Iterator[Measured]:
    """Measure one line after the other, all by one ledger: the limit is of the one address they come from."""
    vendor, at_vendor = _started(serve)
    environment, base_url, site_code, codes = at_vendor.recv()
    carrier, at_line = _started(relay, base_url)
    os.environ.update(environment | {"KAMELEOON_BASE_URL": at_line.recv()})
    ends = Ends(vendor=at_vendor, line=at_line)
    try:
        with tempfile.TemporaryDirectory(prefix="rate-") as folder:
            home = Path(folder)
            with Ledger.open(home / "ledger.sqlite3") as ledger:
                for line in lines:
                    yield measure(line, seconds, site_code, codes, ends=ends, home=home, ledger=ledger)
    finally:
        for pipe, process in ((at_line, carrier), (at_vendor, vendor)):
            pipe.close()
            process.join()


def _started(target: Callable[..., None], *arguments: str) -> tuple[BaseProcess, Connection]:
    spawning = multiprocessing.get_context("spawn")
    pipe, theirs = spawning.Pipe()
    process = spawning.Process(target=target, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    return process, pipe


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; fails below 95 % of an authenticated limit, above any limit, or at an answer 429."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each line")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    chosen = parser.parse_args(arguments)
    is_short = False
    for measured in play(LINES, chosen.seconds):
        is_anonymous = measured.line.startswith("anonymous")
        is_short |= measured.refused_429 > 0 or measured.most_in_a_second > measured.limit_per_second
        is_short |= not is_anonymous and measured.of_the_limit < 0.95
        if chosen.json:
            sys.stdout.write(json.dumps(asdict(measured)) + "\n")
        else:
            sys.stdout.write(
                f"{measured.line:28} {measured.answers:5} answers in {measured.seconds:g} s, "
                f"{measured.of_the_limit:6.1%} of {measured.limit_per_second} a second, at most "
                f"{measured.most_in_a_second} in any second, {measured.refused_429} answers 429\n"
            )
        sys.stdout.flush()
    return int(is_short)


if __name__ == "__main__":
    sys.exit(main())
