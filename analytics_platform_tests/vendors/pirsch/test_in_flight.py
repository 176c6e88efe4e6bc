"""Requests in flight over the bounds of days, on the wire: the line stays full, what ends it costs nothing twice."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow.parquet as parquet
import pytest
from pydantic import SecretStr

from analytics_platform.core.errors import QuotaExhausted
from analytics_platform.core.fetch import Fetcher, FetchOutcome, SiteContext
from analytics_platform.core.http import HttpLimits
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import World, generate
from analytics_platform.vendors.pirsch.client import PirschClient
from analytics_platform.vendors.pirsch.streams import REPORTS_STREAM
from analytics_platform_tests.core.loopback import Exchange, Loopback

DAYS = [date(2026, 10, 5) + timedelta(days=n) for n in range(3)]
A_DAY = 21
STATISTICS = "/api/v1/statistics/"
IN_FLIGHT = 6
PATIENCE_SECONDS = 20.0
"""Only a line that is not full waits as long."""


@pytest.fixture(scope="module")
def world() -> World:
    return generate(first_day=DAYS[0], days=len(DAYS), scale=0.1)


@pytest.fixture
def sandbox(world: World) -> Iterator[Sandbox]:
    with Sandbox(world, vendors=["pirsch"]) as running:
        yield running


@dataclass
class Gate:
    """Holds answers back until `full` requests wait for theirs, then lets one go at a time, in the order in which they
    are sent one by one; the last ones go when no more can come.
    """

    target: str
    full: int
    order: list[str]
    arrived: int = 0
    held: set[str] = field(default_factory=set)
    gone: int = 0
    most_held: int = 0
    was_not_full: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def __call__(self, exchange: Exchange) -> None:
        answer = self._forward(exchange)
        if exchange.seen.target.startswith(STATISTICS):
            self._hold(exchange.seen.target)
        exchange.reply(answer[0], answer[1])

    def _hold(self, target: str) -> None:
        with self._changed:
            self.arrived += 1
            self.held.add(target)
            self.most_held = max(self.most_held, len(self.held))
            self._changed.notify_all()

            def may_go() -> bool:
                is_full = len(self.held) >= self.full or self.arrived >= len(self.order)
                return self.order[self.gone] == target and is_full

            if not self._changed.wait_for(may_go, PATIENCE_SECONDS):
                self.was_not_full = True
            self.held.remove(target)
            self.gone += 1
            self._changed.notify_all()

    def _forward(self, exchange: Exchange) -> tuple[int, bytes]:
        parts = urlsplit(self.target)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
        try:
            named = ("authorization", "content-type", "accept")
            headers = {name: value for name, value in exchange.seen.headers.items() if name in named}
            connection.request(exchange.seen.method, exchange.seen.target, exchange.seen.body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


class Allowance:
    """A meter with so many requests (the token call included)."""

    def __init__(self, requests: int) -> None:
        self._lock = threading.Lock()
        self._left = requests

    def acquire(self, *, method: str, endpoint: str) -> None:
        with self._lock:
            if self._left == 0:
                raise QuotaExhausted("nothing left")
            self._left -= 1

    def learn(self, *, method: str, endpoint: str, status: int, retry_after_seconds: float | None) -> None:
        """Nothing to learn."""


def connection(sandbox: Sandbox, *, url: str | None = None, meter: Any = None) -> Callable[[], PirschClient]:
    environment = sandbox.environment()
    return lambda: PirschClient.connect(
        client_id=SecretStr(environment["PIRSCH_CLIENT_ID"]),
        client_secret=SecretStr(environment["PIRSCH_CLIENT_SECRET"]),
        base_url=url or environment["PIRSCH_BASE_URL"],
        meter=meter,
        limits=HttpLimits(max_attempts=1, backoff_base_seconds=0.0),
    )


def fetch(
    home: Path, sandbox: Sandbox, connect: Callable[[], PirschClient], *, in_flight: int = IN_FLIGHT
) -> FetchOutcome:
    fetcher = Fetcher(
        landing=Landing(home / "landing"),
        lake=Lake(home / "lake"),
        run_id="run",
        specs_by_name={},
        most_in_flight=in_flight,
    )
    site = sandbox.world.sites[0]
    context = SiteContext(key=site.key, timezone=site.timezone, ids={"domain_id": site.pirsch_domain_id})
    return fetcher.run(REPORTS_STREAM, context, DAYS, connect=connect)


def asked(sandbox: Sandbox) -> Counter[str]:
    """How often each list of each day was asked for."""
    records = sandbox.requests.records(vendor="pirsch", path=STATISTICS)
    return Counter(f"{record.path}?{record.query}" for record in records)


def landed_calls(home: Path, sandbox: Sandbox) -> dict[date, set[str]]:
    batches = Landing(home / "landing").batches("pirsch", "reports", sandbox.world.sites[0].key)
    return {batch.first_day: {page.call for page in batch.index()} for batch in batches}


def partitions(home: Path) -> dict[str, int]:
    """Rows by partition."""
    root = home / "lake"
    return {str(path.relative_to(root)): parquet.read_metadata(path).num_rows for path in root.rglob("part.parquet")}


def test_the_line_is_full_from_the_first_day_to_the_last(sandbox: Sandbox, tmp_path: Path) -> None:
    one_by_one = tmp_path / "one by one"
    fetch(one_by_one, sandbox, connection(sandbox), in_flight=1)
    gate = Gate(sandbox.environment()["PIRSCH_BASE_URL"], full=IN_FLIGHT, order=list(asked(sandbox)))
    sandbox.requests.clear()
    with Loopback(gate) as line:
        outcome = fetch(tmp_path / "gated", sandbox, connection(sandbox, url=line.url))
    assert outcome.done_days == DAYS
    assert not gate.was_not_full, "a request waited though the line was not full"
    assert (gate.arrived, gate.most_held) == (A_DAY * len(DAYS), IN_FLIGHT)
    assert set(asked(sandbox).values()) == {1}
    assert partitions(tmp_path / "gated") == partitions(one_by_one)


@pytest.mark.parametrize("paid", [A_DAY - 1, A_DAY + 9, 2 * A_DAY + 20])
def test_a_budget_that_ends_in_the_middle_costs_nothing_twice(sandbox: Sandbox, tmp_path: Path, paid: int) -> None:
    first = fetch(tmp_path, sandbox, connection(sandbox, meter=Allowance(1 + paid)))
    assert first.deferred is not None
    assert sum(asked(sandbox).values()) == first.pages == paid
    whole = [day for day, calls in landed_calls(tmp_path, sandbox).items() if len(calls) == A_DAY]
    assert first.done_days == sorted(whole)
    assert first.done_days == DAYS[len(DAYS) - paid // A_DAY :], "the newest days first"
    assert first.deferred.days == tuple(day for day in DAYS if day not in whole)
    second = fetch(tmp_path, sandbox, connection(sandbox))
    assert (second.done_days, second.deferred, second.error) == (DAYS, None, None)
    assert set(asked(sandbox).values()) == {1}
    assert sum(asked(sandbox).values()) == A_DAY * len(DAYS)


CHILD = """
import sys
from datetime import date
from pathlib import Path
from pydantic import SecretStr
from analytics_platform.core.fetch import Fetcher, SiteContext
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.vendors.pirsch.client import PirschClient
from analytics_platform.vendors.pirsch.streams import REPORTS_STREAM

home, url, client_id, client_secret, key, zone, domain, in_flight, *days = sys.argv[1:]
Fetcher(
    landing=Landing(Path(home) / "landing"), lake=Lake(Path(home) / "lake"), run_id="killed", specs_by_name={},
    most_in_flight=int(in_flight),
).run(
    REPORTS_STREAM,
    SiteContext(key=key, timezone=zone, ids={"domain_id": domain}),
    [date.fromisoformat(day) for day in days],
    connect=lambda: PirschClient.connect(
        client_id=SecretStr(client_id), client_secret=SecretStr(client_secret), base_url=url
    ),
)
"""


@contextmanager
def killed_at(failpoint: str, home: Path, sandbox: Sandbox) -> Iterator[None]:
    """The same fetch in a process of its own that died there."""
    environment, site = sandbox.environment(), sandbox.world.sites[0]
    told = [environment[f"PIRSCH_{name}"] for name in ("BASE_URL", "CLIENT_ID", "CLIENT_SECRET")]
    ids = [site.key, site.timezone, site.pirsch_domain_id, str(IN_FLIGHT)]
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(home), *told, *ids, *map(str, DAYS)],
        env={**os.environ, "ANALYTICS_PLATFORM_FAILPOINT": failpoint, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
        timeout=60,
    )
    assert child.returncode == -signal.SIGKILL
    yield


@pytest.mark.parametrize("failpoint", [f"landing.after_index:{A_DAY + 12}", "landing.before_seal:2"])
def test_a_kill_loses_what_was_in_flight_and_nothing_else(
    sandbox: Sandbox, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, failpoint: str
) -> None:
    with killed_at(failpoint, tmp_path, sandbox):
        before = asked(sandbox)
        landed = landed_calls(tmp_path, sandbox)
        sandbox.requests.clear()
    pages = sum(len(calls) for calls in landed.values())
    # The page whose landing was the last thing done still has its place in the line.
    assert sum(before.values()) - pages < IN_FLIGHT
    outcome = fetch(tmp_path, sandbox, connection(sandbox))
    assert (outcome.done_days, outcome.error) == (DAYS, None)
    assert sum(asked(sandbox).values()) == A_DAY * len(DAYS) - pages, "nothing that was landed is asked again"
    whole = tmp_path_factory.mktemp("whole")
    fetch(whole, sandbox, connection(sandbox))
    assert partitions(tmp_path) == partitions(whole)
