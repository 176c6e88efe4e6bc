"""A thousand pages cut at every fiftieth: by kill -9, by cursors that die, by the quota. What that costs, and the rows.

Belongs here: the command, the three ways to cut, the table it prints. Does not belong here: how a cut search goes on
(`core.day_walk`, `core.settling`), the sandbox.

    python -m analytics_platform_tests.simulation.resume --pages 1000 --every 50

Smartlook's sessions, the hardest there is: a search can be narrowed by dates and durations only, and a cursor may not
be kept. The pages are of one day, a partition, which is what is judged: at most a page more for each cut. Beside it,
shown and not judged, a search over twenty days: a day in its midst that is cut at both ends, and too large for a third
beginning, is asked by its parts then, and what its ends had cost is asked again. The real client, ledger, landing and
lake, against the sandbox on a clock that is turned on by hand. The quota that cuts is the paid plan's, a hundred an
hour. "Extra" is against the run that is not cut; a cursor is known to be dead when the vendor refuses it: shown apart.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.fetch import Fetcher, FetchOutcome, SiteContext
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.quota import AccountMeter, Ledger, QuotaPolicy, Window, account_key
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import World, generate
from analytics_platform.vendors import all_tables, streams_of
from analytics_platform.vendors.smartlook.client import SmartlookClient
from analytics_platform.vendors.smartlook.streams import PLANS
from analytics_platform.vendors.smartlook.tables import SESSIONS

Cut = Literal["not cut", "kill -9", "dead cursors", "quota"]

CUTS: tuple[Cut, ...] = ("not cut", "kill -9", "dead cursors", "quota")
FIRST_DAY = date(2026, 10, 1)
PAGE_RECORDS = 100
CURSOR_SECONDS = 600.0
_SESSIONS = next(stream for stream in streams_of("smartlook") if stream.name == "sessions")
_MOST_RUNS = 1000
_SCALE_OF_A_PAGE = 0.92
"""Of the world that gives Smartlook at least a page of sessions on its one day."""
NO_LIMIT = 1_000_000
SITE = "shop"


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """What one way to cut cost. `pages`: the fewest that hold the rows; `refused`: not among `requests`."""

    days: int
    cut: Cut
    rows: int
    pages: int
    requests: int
    refused: int
    cuts: int
    extra_per_cut: float
    is_equal: bool


@dataclass(kw_only=True)
class CuttingMeter:
    """The ledger's meter, and at every so many requests the blow: nothing of the request has left then."""

    meter: AccountMeter
    cut: Cut
    every: int
    clock: ManualClock
    sent: int = 0
    cuts: int = 0

    def acquire(self, *, method: str, endpoint: str) -> None:
        if self.sent and self.sent % self.every == 0:
            self.cuts += 1
            if self.cut == "kill -9":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.cut == "dead cursors":
                self.clock.advance(CURSOR_SECONDS + 1)
        self.meter.acquire(method=method, endpoint=endpoint)
        self.sent += 1

    def learn(self, *, method: str, endpoint: str, status: int, retry_after_seconds: float | None) -> None:
        self.meter.learn(method=method, endpoint=endpoint, status=status, retry_after_seconds=retry_after_seconds)


@dataclass(frozen=True, kw_only=True)
class Place:
    """All that a run needs, also in another process."""

    home: Path
    base_url: str
    token: str
    days: tuple[date, ...]
    cut: Cut
    every: int

    @property
    def site(self) -> SiteContext:
        """Under a plan whose quota cuts, or under one that does not matter."""
        return SiteContext(key=SITE, timezone="Europe/Berlin", ids={"plan": "paid" if self.cut == "quota" else "addon"})

    def run(self, clock: ManualClock) -> tuple[FetchOutcome, int]:
        """One run of the stream; how often it was cut inside."""
        limit = PLANS["paid"] if self.cut == "quota" else NO_LIMIT
        policy = QuotaPolicy(account=account_key("smartlook", SITE), windows={"any": (Window(limit, 3600.0),)})
        with Ledger.open(self.home / "ledger.sqlite3", clock) as ledger:
            meter = CuttingMeter(meter=ledger.meter(policy), cut=self.cut, every=self.every, clock=clock)
            outcome = Fetcher(
                landing=Landing(self.home / "landing", clock=clock),
                lake=Lake(self.home / "lake"),
                run_id="run",
                specs_by_name=all_tables(),
                clock=clock,
            ).run(
                _SESSIONS,
                self.site,
                list(self.days),
                connect=lambda: SmartlookClient.connect(
                    base_url=self.base_url, token=SecretStr(self.token), meter=meter, clock=clock
                ),
            )
        if outcome.error is not None and self.cut != "dead cursors":
            raise outcome.error
        return outcome, meter.cuts if self.cut == "dead cursors" else 0


def run_and_die(place: Place, now: datetime) -> None:
    """The child's part of `kill -9`: ends in peace only when nothing is left."""
    place.run(ManualClock(now))


def resume(sandbox: Sandbox, clock: ManualClock, place: Place) -> tuple[int, int]:
    """Run until everything is there; runs that were cut, and rows."""
    cuts = 0
    for _ in range(_MOST_RUNS):
        if place.cut == "kill -9":
            child = multiprocessing.get_context("spawn").Process(target=run_and_die, args=(place, clock.now()))
            child.start()
            child.join()
            if child.exitcode == 0:
                return cuts, _rows(place)
            if child.exitcode != -signal.SIGKILL:
                raise RuntimeError(f"a run ended with {child.exitcode}")
            cuts += 1
            continue
        outcome, inside = place.run(clock)
        cuts += inside
        if outcome.deferred is None and outcome.error is None:
            return cuts, _rows(place)
        cuts += place.cut == "quota"
        clock.advance(3602)
    raise RuntimeError(f"not there after {_MOST_RUNS} runs")


def _rows(place: Place) -> int:
    return len(Lake(place.home / "lake").frame(SESSIONS, SITE, list(place.days)))


def _content(home: Path, days: Sequence[date]) -> list[tuple[object, ...]]:
    frame = Lake(home / "lake").frame(SESSIONS, SITE, list(days))
    frame = frame.drop(columns=[name for name in frame.columns if name.startswith("_")])
    return sorted(map(tuple, frame.astype(str).itertuples(index=False)))


def play(world: World, days: Sequence[date], *, every: int, folder: Path) -> Iterator[Resumed]:
    """All ways to cut, the uncut first: what the others have to equal."""
    uncut = 0
    for number, cut in enumerate(CUTS):
        clock = ManualClock(datetime(2026, 11, 21, 12, tzinfo=UTC))
        profiles: dict[str, dict[str, object]] = {
            "smartlook": {"cursor_seconds": CURSOR_SECONDS, "hourly_limit": NO_LIMIT}
        }
        sandbox = Sandbox(world, vendors=["smartlook"], profiles=profiles)
        sandbox.context.monotonic = clock.monotonic
        home = folder / f"{len(days)}-{number}"
        home.mkdir(parents=True)
        with sandbox:
            place = Place(
                home=home,
                base_url=sandbox.base_urls["smartlook"],
                token=world.sites[0].smartlook_token,
                days=tuple(days),
                cut=cut,
                every=every if cut in ("kill -9", "dead cursors") else NO_LIMIT,
            )
            cuts, rows = resume(sandbox, clock, place)
            statuses = [record.status for record in sandbox.requests.records(vendor="smartlook")]
            requests = statuses.count(200)
            uncut = requests if cut == "not cut" else uncut
        pages = -(-rows // PAGE_RECORDS)
        yield Resumed(
            days=len(days),
            cut=cut,
            rows=rows,
            pages=pages,
            requests=requests,
            refused=len(statuses) - requests,
            cuts=cuts,
            extra_per_cut=round((requests - uncut) / cuts, 2) if cuts else 0.0,
            is_equal=_content(home, days) == _content(folder / f"{len(days)}-0", days),
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; fails where rows differ, or a cut of one day's partition costs more than a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=1000, help="at least as many")
    parser.add_argument("--every", type=int, default=50, help="requests between two cuts")
    parser.add_argument("--days", type=int, nargs="+", default=[1, 20], help="that the pages are of")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    chosen = parser.parse_args(arguments)
    is_missed = False
    for count in chosen.days:
        days = [FIRST_DAY + timedelta(days=n) for n in range(count)]
        world = generate(first_day=FIRST_DAY, days=count, scale=chosen.pages / count * _SCALE_OF_A_PAGE)
        with tempfile.TemporaryDirectory(prefix="resume-") as folder:
            for found in play(world, days, every=chosen.every, folder=Path(folder)):
                is_missed |= not found.is_equal or (count == 1 and found.extra_per_cut > 1.0)
                if chosen.json:
                    sys.stdout.write(json.dumps(asdict(found)) + "\n")
                else:
                    sys.stdout.write(
                        f"{found.days:2} days, {found.cut:12} {found.rows:7,} rows, {found.pages:5,} pages, "
                        f"{found.requests:5,} requests and {found.refused:2} refused, {found.cuts:2} cuts, "
                        f"{found.extra_per_cut:5.2f} extra a cut, "
                        f"rows {'equal' if found.is_equal else 'DIFFER'}\n"
                    )
                sys.stdout.flush()
    return int(is_missed)


if __name__ == "__main__":
    sys.exit(main())
