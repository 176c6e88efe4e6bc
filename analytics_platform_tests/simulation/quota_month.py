"""Thirty virtual days of five vendors under their quotas, by several processes of one home, some of them killed.

Belongs here: the command and the month it plays. Does not belong here: time (`virtual_time`), what is asserted in the
suite (`test_quota_month`).

    python -m analytics_platform_tests.simulation.quota_month --plan free --days 30 --processes 4 --kills 40

Every worker is the platform without Dagster: ledger, clients, landing and lake of one home, on the virtual clock. Each
virtual morning every stream of every site fetches the days that ended; from the first hour on a backfill of the days
before the start goes on beside it; deferred work is resumed by whoever finds it due. The vendors are the sandbox over
HTTP with its limits on, counting on the same clock, and its request log is the judge.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from analytics_platform.core.errors import PlatformError
from analytics_platform.core.fetch import Fetcher, SiteContext
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.quota import AccountMeter, Ledger, spending
from analytics_platform.core.streams import Stream
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import generate
from analytics_platform.settings import load_settings
from analytics_platform.vendors import all_tables, streams_of, vendor_names, vendor_resource
from analytics_platform_tests.simulation.virtual_time import TimedMeter, TimeServer, VirtualClock

HOUR_SECONDS = 3600.0
FALLBACK_SECONDS = 600.0
_LOADED = ("resource", "streams", "tables")
LIMITS = {"free": 20, "paid": 100, "addon": 1000}


@dataclass(frozen=True, kw_only=True)
class Month:
    """What is played."""

    plan: str = "free"
    days: int = 30
    backfill_days: int = 14
    processes: int = 4
    kills: int = 40
    scale: float = 0.1
    seed: int = 7
    first_day: date = date(2026, 10, 19)
    vendors: tuple[str, ...] = ()


@dataclass(kw_only=True)
class Verdict:
    """What the vendors saw."""

    plan: str
    virtual_days: float
    wall_seconds: float
    kills: int
    requests: dict[str, int] = field(default_factory=dict)
    refused_429: dict[str, int] = field(default_factory=dict)
    limit: dict[str, str] = field(default_factory=dict)
    most_in_a_sliding_window: dict[str, int] = field(default_factory=dict)
    most_in_a_fixed_window: dict[str, int] = field(default_factory=dict)
    complete_days: int = 0
    expected_days: int = 0
    errors: dict[str, int] = field(default_factory=dict)


class TimedLedger(Ledger):
    """A ledger whose meters tell the virtual clock when a request is on its way."""

    def meter(self, policy: Any, *, max_wait_seconds: float = 5.0) -> Any:  # a Meter; the base promises its own class
        clock = self._clock
        assert isinstance(clock, VirtualClock)
        return TimedMeter(AccountMeter(self, policy, max_wait_seconds=max_wait_seconds), clock)


# ----------------------------------------------------------------------------------------------------------- a worker


@dataclass(frozen=True, kw_only=True)
class _Work:
    vendor: str
    stream: str
    site: str
    first_day: date
    last_day: date
    backfill: bool


class Worker:
    """One process of the home: does what is due, in an order of its own, until the month is over."""

    def __init__(self, folder: Path, month: Month, number: int) -> None:
        start = _start(month)
        self._month = month
        self._clock = VirtualClock(folder, start)
        self._ends_at = start + timedelta(days=month.days)
        self._settings = load_settings()
        self._ledger = TimedLedger.open(self._settings.home.ledger, self._clock)
        self._random = random.Random(f"{number}:{os.getpid()}")
        self._fetcher = Fetcher(
            landing=Landing(self._settings.home.landing, clock=self._clock),
            lake=Lake(self._settings.home.lake),
            run_id=f"worker-{number}",
            specs_by_name=all_tables(),
            clock=self._clock,
        )
        self._resources = {vendor: vendor_resource(vendor) for vendor in vendor_names()}

    def run(self) -> None:
        """Until the virtual month is over."""
        while self._clock.now() < self._ends_at:
            for work in self._due():
                self._do(work)
            self._clock.sleep(self._until_next())

    def _due(self) -> list[_Work]:
        now = self._clock.now()
        fresh = list(self._of_today(now))
        self._random.shuffle(fresh)
        resumed = [
            _Work(
                vendor=d.vendor, stream=d.stream, site=d.site, first_day=d.first_day, last_day=d.last_day, backfill=True
            )
            for d in self._ledger.due(now)
        ]
        return fresh + resumed

    def _of_today(self, now: datetime) -> Iterator[_Work]:
        yesterday = now.date() - timedelta(days=1)
        deferred = {(d.vendor, d.stream, d.site) for d in self._ledger.deferrals()}
        for vendor in self._month.vendors or vendor_names():
            for stream in streams_of(vendor):
                for site in self._settings.sites_with(vendor):
                    if (vendor, stream.name, site.key) in deferred:
                        continue
                    if stream.span == "snapshot":
                        yield self._work(stream, site.key, now.date(), now.date(), backfill=False)
                        continue
                    first = yesterday - timedelta(days=stream.lookback_days)
                    yield self._work(stream, site.key, first, yesterday, backfill=False)
                    if now - _start(self._month) < timedelta(hours=1):
                        yield self._work(stream, site.key, self._month.first_day, first, backfill=True)

    @staticmethod
    def _work(stream: Stream, site: str, first: date, last: date, *, backfill: bool) -> _Work:
        return _Work(
            vendor=stream.vendor, stream=stream.name, site=site, first_day=first, last_day=last, backfill=backfill
        )

    def _do(self, work: _Work) -> None:
        site = self._settings.site(work.site)
        ids = site.ids(work.vendor) or {}
        (stream,) = [s for s in streams_of(work.vendor) if s.name == work.stream]
        span = range(work.first_day.toordinal(), work.last_day.toordinal() + 1)

        def connect() -> AbstractContextManager[Any]:
            return self._resources[work.vendor].connect(ids, self._ledger)

        with spending(stream=stream.name, site=site.key, run_id="sim", backfill=work.backfill):
            outcome = self._fetcher.run(
                stream,
                SiteContext(key=site.key, timezone=site.timezone, ids=ids),
                [date.fromordinal(day) for day in span],
                connect=connect,
            )
        known = {"vendor": work.vendor, "stream": work.stream, "site": work.site}
        if outcome.deferred is not None:
            self._ledger.defer(
                **known,
                first_day=outcome.deferred.days[0],
                last_day=outcome.deferred.days[-1],
                resume_at=outcome.deferred.resume_at or self._clock.now() + timedelta(seconds=FALLBACK_SECONDS),
                reason=outcome.deferred.reason,
                landed_records=outcome.deferred.landed_records,
            )
        elif outcome.error is None:
            self._ledger.clear(**known, first_day=work.first_day, last_day=work.last_day)
        else:
            _say({"error": type(outcome.error).__name__, "of": f"{work.vendor}/{work.stream}"})

    def _until_next(self) -> float:
        now = self._clock.now()
        morning = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), tzinfo=UTC) + timedelta(hours=3)
        instants = [morning, self._ends_at, *(d.resume_at for d in self._ledger.deferrals() if d.resume_at > now)]
        return max(1.0, (min(instants) - now).total_seconds())


def _say(fact: dict[str, object]) -> None:
    os.write(1, json.dumps(fact).encode() + b"\n")


def _worker(folder: str, month: Month, number: int, log: str, environment: dict[str, str]) -> None:
    os.environ.update(environment)  # the fork server was started before it was settled
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    try:
        Worker(Path(folder), month, number).run()
    except PlatformError as error:
        _say({"error": type(error).__name__, "of": "worker"})
        raise


# ------------------------------------------------------------------------------------------------------------ the month


def play(month: Month, folder: Path) -> Verdict:
    """Play a month in an empty folder."""
    begun = time.monotonic()
    world = generate(
        seed=month.seed,
        first_day=month.first_day,
        days=month.backfill_days + month.days + 1,
        scale=month.scale,
    )
    limits: dict[str, dict[str, object]] = {"smartlook": {"plan": month.plan, "cursor_seconds": 7200.0}}
    with (
        TimeServer(folder, _start(month)) as server,
        _sandbox(world, limits, server) as sandbox,
    ):
        _settle(folder, sandbox, month)
        log = folder / "workers.jsonl"
        log.touch()
        kills = _supervise(month, folder, server, log)
        verdict = Verdict(
            plan=month.plan,
            virtual_days=round(server.monotonic() / 86_400, 2),
            wall_seconds=round(time.monotonic() - begun, 1),
            kills=kills,
        )
        _judge(verdict, sandbox, month)
    _count_days(verdict, month)
    errors = Counter(line["of"] + " " + line["error"] for line in map(json.loads, log.read_text().splitlines()))
    verdict.errors = dict(errors)
    return verdict


@contextmanager
def _sandbox(world: Any, profiles: dict[str, dict[str, object]], server: TimeServer) -> Iterator[Sandbox]:
    sandbox = Sandbox(world, profiles=profiles)
    sandbox.context.monotonic = server.monotonic
    with sandbox:
        yield sandbox


def _settle(folder: Path, sandbox: Sandbox, month: Month) -> None:
    home = folder / "home"
    home.mkdir()
    config = home / "sites.yaml"
    config.write_text(sandbox.sites_yaml().replace("plan: addon", f"plan: {month.plan}"), encoding="utf-8")
    os.environ.update(sandbox.environment())
    os.environ["ANALYTICS_PLATFORM_HOME"] = str(home)
    os.environ["ANALYTICS_PLATFORM_CONFIG"] = str(config)


def _start(month: Month) -> datetime:
    day = month.first_day + timedelta(days=month.backfill_days)
    return datetime(day.year, day.month, day.day, 3, tzinfo=UTC)


def _supervise(month: Month, folder: Path, server: TimeServer, log: Path) -> int:
    """Start the workers, kill one every so often in virtual time, start another in its place; returns the kills."""
    forking = multiprocessing.get_context("forkserver")
    # Imported once: a worker that replaces a killed one starts in milliseconds.
    parts = [f"analytics_platform.vendors.{vendor}.{part}" for vendor in vendor_names() for part in _LOADED]
    forking.set_forkserver_preload([__name__, *parts])
    chance = random.Random(month.seed)
    seconds = month.days * 86_400.0
    killing_at = deque(sorted(chance.uniform(0, seconds * 0.95) for _ in range(month.kills)))
    kills = 0

    def start(number: int) -> multiprocessing.process.BaseProcess:
        process = forking.Process(
            target=_worker, args=(str(folder), month, number, str(log), dict(os.environ)), daemon=True
        )
        process.start()
        return process

    workers = [start(number) for number in range(month.processes)]
    pause = threading.Event()
    while any(worker.is_alive() for worker in workers):
        pause.wait(0.003)
        if killing_at and server.monotonic() >= killing_at[0]:
            chosen = chance.randrange(len(workers))
            victim = workers[chosen]
            if victim.is_alive() and victim.pid is not None:
                killing_at.popleft()
                os.kill(victim.pid, signal.SIGKILL)
                victim.join()
                kills += 1
                workers[chosen] = start(month.processes + kills)
    return kills


def _judge(verdict: Verdict, sandbox: Sandbox, month: Month) -> None:
    """By account: Smartlook counts by project, the others by credential (one here)."""
    windows = {"smartlook": (LIMITS[month.plan], HOUR_SECONDS), "kameleoon": (50, 1.0)}
    sent: dict[str, list[float]] = defaultdict(list)
    refused: Counter[str] = Counter()
    for record in sandbox.requests.records():
        if record.vendor == "smartlook" and record.path.endswith("/statistics"):
            continue
        account = f"smartlook {record.caller}" if record.vendor == "smartlook" else record.vendor
        sent[account].append(record.at_monotonic)
        refused[account] += record.status == 429
    for account, instants in sorted(sent.items()):
        limit, seconds = windows.get(account.partition(" ")[0], (0, 60.0))
        verdict.requests[account] = len(instants)
        verdict.refused_429[account] = refused[account]
        verdict.limit[account] = f"{limit} in {seconds:g} s" if limit else "not published"
        verdict.most_in_a_sliding_window[account] = most_in_a_window(instants, seconds)
        verdict.most_in_a_fixed_window[account] = max(Counter(int(at // seconds) for at in instants).values())


def most_in_a_window(instants: Iterable[float], seconds: float) -> int:
    """The most of them in any half-open span of so many seconds."""
    inside: deque[float] = deque()
    most = 0
    for at in sorted(instants):
        inside.append(at)
        while inside[0] <= at - seconds:
            inside.popleft()
        most = max(most, len(inside))
    return most


def _count_days(verdict: Verdict, month: Month) -> None:
    """Days that a patient person expects complete at the end: all that ended a day before it."""
    settings = load_settings()
    landing = Landing(settings.home.landing)
    last = month.first_day + timedelta(days=month.backfill_days + month.days - 2)
    days = [date.fromordinal(n) for n in range(month.first_day.toordinal(), last.toordinal() + 1)]
    for vendor in month.vendors or vendor_names():
        for stream in streams_of(vendor):
            if stream.span == "snapshot":
                continue
            for site in settings.sites_with(vendor):
                verdict.expected_days += len(days)
                verdict.complete_days += len(landing.newest_complete(vendor, stream.name, site.key, days))


def main(arguments: Sequence[str] | None = None) -> int:
    """Play, print the verdict as JSON, and fail where a limit was exceeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", choices=sorted(LIMITS), default="free")
    for name in ("days", "backfill-days", "processes", "kills", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Month, name.replace("-", "_")))
    parser.add_argument("--scale", type=float, default=Month.scale)
    parser.add_argument("--vendor", action="append", default=[])
    chosen = vars(parser.parse_args(arguments))
    month = Month(vendors=tuple(chosen.pop("vendor")), **chosen)
    with tempfile.TemporaryDirectory(prefix="month-") as folder:
        verdict = play(month, Path(folder))
    sys.stdout.write(json.dumps(asdict(verdict), indent=2) + "\n")
    smartlook = {a: n for a, n in verdict.most_in_a_sliding_window.items() if a.startswith("smartlook")}
    return int(any(verdict.refused_429.values()) or any(n > LIMITS[month.plan] for n in smartlook.values()))


if __name__ == "__main__":
    sys.exit(main())
