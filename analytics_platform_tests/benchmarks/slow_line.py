"""The statistics of 28 days over a slow line: whether requests that need not wait for each other do not.

Belongs here: the line, the real streams run over it, the time that the requests alone would take. Does not belong here:
how many are in flight (`core.concurrency`), the page (`__main__`).

The sandbox runs in a process of its own; before it sits a relay that holds every answer back by the latency.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import date, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import urlsplit

from analytics_platform.core.fetch import Fetcher, SiteContext
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.quota import Ledger, spending
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import generate
from analytics_platform.vendors import vendor_resource
from analytics_platform.vendors.pirsch.streams import STREAMS

__all__ = ["OverALine", "statistics_over"]

_VENDOR = "pirsch"
_PLENTY = "6000"
"""Requests a minute: the line is to be the limit here, not politeness."""


@dataclass(frozen=True, kw_only=True)
class OverALine:
    """What the days took, and what `requests x latency / concurrency` says they must take."""

    requests: int
    seconds: float
    least_seconds: float

    @property
    def ratio(self) -> float:
        return self.seconds / self.least_seconds


def _serve(pipe: Connection, days: int, latency_seconds: float) -> None:
    with Sandbox(generate(days=days + 3, scale=0.2), vendors=(_VENDOR,)) as sandbox:
        asyncio.run(_relay(pipe, sandbox, latency_seconds))


async def _relay(pipe: Connection, sandbox: Sandbox, latency_seconds: float) -> None:
    target = urlsplit(sandbox.base_urls[_VENDOR])

    async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter, delay: float) -> None:
        # What follows close behind is on the way beside what goes before: headers and body are two parts of one delay.
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        now = asyncio.get_running_loop().time

        async def take_in() -> None:
            content = b"begun"
            while content:
                content = await source.read(65536)
                on_the_way.put_nowait((now() + delay, content))

        taking = asyncio.create_task(take_in())
        try:
            while (due := await on_the_way.get())[1]:
                await asyncio.sleep(due[0] - now())
                sink.write(due[1])
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            taking.cancel()
            sink.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(target.hostname, target.port)
        await asyncio.gather(carry(reader, back, latency_seconds / 2), carry(there, writer, latency_seconds / 2))

    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    server = await asyncio.start_server(accept, sock=listening)
    environment = sandbox.environment() | {"PIRSCH_BASE_URL": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"}
    site = sandbox.world.sites[0]
    pipe.send((environment, site.key, site.timezone, site.pirsch_domain_id, sandbox.world.last_day))
    while True:
        try:
            await asyncio.to_thread(pipe.recv)
        except EOFError:
            return
        pipe.send(len(sandbox.requests.records(vendor=_VENDOR)))


def statistics_over(*, days: int, latency_seconds: float, in_flight: int) -> OverALine:
    """Run every stream of the vendor for so many days, with so many requests in flight at most."""
    spawning = multiprocessing.get_context("spawn")
    pipe, theirs = spawning.Pipe()
    vendor = spawning.Process(target=_serve, args=(theirs, days, latency_seconds), daemon=True)
    vendor.start()
    theirs.close()
    try:
        environment, key, zone, domain_id, last_day = pipe.recv()
        os.environ.update(environment)
        site = SiteContext(key=key, timezone=zone, ids={"domain_id": domain_id, "requests_per_minute": _PLENTY})
        wanted = [last_day - timedelta(days=back) for back in reversed(range(days))]
        with tempfile.TemporaryDirectory(prefix="line-") as folder, closing(pipe):
            seconds = _run(Path(folder), site, wanted, in_flight)
            pipe.send(None)
            requests = int(pipe.recv())
    finally:
        vendor.terminate()
        vendor.join()
    return OverALine(requests=requests, seconds=seconds, least_seconds=requests * latency_seconds / in_flight)


def _run(home: Path, site: SiteContext, days: list[date], in_flight: int) -> float:
    specs = {spec.qualified_name: spec for stream in STREAMS for spec in stream.tables}
    lake = Lake(home / "lake")
    lake.prepare(specs.values(), None)
    fetcher = Fetcher(
        landing=Landing(home / "landing"),
        lake=lake,
        run_id="benchmark",
        specs_by_name=specs,
        most_in_flight=in_flight,
    )
    resource = vendor_resource(_VENDOR)
    begun = time.perf_counter()
    with Ledger.open(home / "ledger.sqlite3") as ledger:
        for stream in STREAMS:
            with spending(stream=stream.name, site=site.key):
                outcome = fetcher.run(stream, site, days, connect=lambda: resource.connect(site.ids, ledger))
            if outcome.error is not None:
                raise outcome.error
            if len(outcome.done_days) != len(days):
                raise SystemExit(f"{len(outcome.done_days)} of {len(days)} days: {outcome.deferred}")
    return time.perf_counter() - begun
