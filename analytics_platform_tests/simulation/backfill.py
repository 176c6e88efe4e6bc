"""A long backfill of every vendor: requests used against the fewest that could do, and against what was planned.

Belongs here: the command, the table it prints and its verdict. Does not belong here: the fewest possible (`fewest`),
time and kills (`quota_month`).

    python -m analytics_platform_tests.simulation.backfill --days 90

One vendor after the other, through ledger, client, landing and lake: first some weeks (the planner's history), then the
plan of the range, then the range, then history and range again. Streams that show today only are fetched on one day,
planned for the next, and fetched then. An account must have an hour's requests for the range (Smartlook: 1,000, which
is some 110 days at scale 1). The site is older than the history, as sites are: with `--older 0` its first
visitors ever are the first ones landed, and nobody can know that they will come back later.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.fetch import Fetcher, SiteContext
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.planning import PlanLine
from analytics_platform.core.quota import Ledger, spending
from analytics_platform.core.resources import open_ledger
from analytics_platform.core.tables import TableSpec
from analytics_platform.plan import make_plan
from analytics_platform.plan_cli import sureness
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import generate
from analytics_platform.settings import Settings, load_settings
from analytics_platform.vendors import all_tables, streams_of, vendor_names, vendor_resource
from analytics_platform_tests.simulation.fewest import Yardstick

LAST_DAY = date(2026, 9, 30)
HISTORY_DAYS = 28
OLDER_DAYS = 60
MOST_OF_FEWEST = 1.02
MOST_OFF_PLAN = 0.10


@dataclass(frozen=True, kw_only=True)
class Line:
    """One stream of one site (or all of a vendor): requests."""

    stream: str
    site: str
    planned: float
    planned_low: float
    planned_high: float
    sureness: str
    used: int
    fewest: int

    @property
    def of_fewest(self) -> float:
        return self.used / max(self.fewest, 1)

    @property
    def of_used(self) -> float:
        return self.planned / max(self.used, 1)

    def __str__(self) -> str:
        return (
            f"{self.stream:28} {self.site:5} used {self.used:6}  fewest {self.fewest:6}  ratio {self.of_fewest:.3f}  "
            f"planned {self.planned:7.0f} ({self.planned_low:.0f} to {self.planned_high:.0f}, {self.sureness})  "
            f"planned/used {self.of_used:.3f}"
        )


@dataclass(frozen=True, kw_only=True)
class Played:
    """Every line, and what asking for the same days again cost."""

    lines: tuple[Line, ...]
    again: int

    def vendors(self) -> list[Line]:
        """The sums by vendor."""
        found = []
        for vendor in dict.fromkeys(line.stream.partition("/")[0] for line in self.lines):
            mine = [line for line in self.lines if line.stream.startswith(f"{vendor}/")]
            found.append(
                Line(
                    stream=vendor,
                    site="all",
                    planned=sum(line.planned for line in mine),
                    planned_low=sum(line.planned_low for line in mine),
                    planned_high=sum(line.planned_high for line in mine),
                    sureness=f"{len(mine)} lines",
                    used=sum(line.used for line in mine),
                    fewest=sum(line.fewest for line in mine),
                )
            )
        return found

    @property
    def is_good(self) -> bool:
        return self.again == 0 and all(
            line.of_fewest <= MOST_OF_FEWEST and abs(line.of_used - 1) <= MOST_OFF_PLAN for line in self.vendors()
        )


class Backfill:
    """One home over one sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.settings: Settings = load_settings()
        self.sandbox = sandbox
        self.resources = {vendor: vendor_resource(vendor) for vendor in vendor_names()}

    def fetch(
        self,
        ledger: Ledger,
        days: Sequence[date],
        run_id: str,
        *,
        now: datetime,
        snapshots: bool = False,
        tables: Sequence[TableSpec] | None = None,
    ) -> None:
        """Every stream of every vendor and site for these days, in dependency order: those of a range of days, or
        those of today. `tables` are those to decode, all of them by default.
        """
        home = self.settings.home
        fetcher = Fetcher(
            landing=Landing(home.landing),
            lake=Lake(home.lake),
            run_id=run_id,
            specs_by_name=all_tables(),
            clock=ManualClock(now),
        )
        for vendor in vendor_names():
            for stream in streams_of(vendor):
                if (stream.span == "snapshot") != snapshots:
                    continue
                for site in self.settings.sites_with(vendor):
                    ids = site.ids(vendor) or {}
                    context = SiteContext(key=site.key, timezone=site.timezone, ids=ids)
                    with spending(stream=stream.name, site=site.key, run_id=run_id):
                        outcome = fetcher.run(
                            stream,
                            context,
                            days,
                            connect=lambda vendor=vendor, ids=ids: self.resources[vendor].connect(ids, ledger),  # type: ignore[misc]
                            tables=tables,
                        )
                    if outcome.error or outcome.deferred:
                        raise RuntimeError(f"{vendor}/{stream.name} {site.key}: {outcome.error or outcome.deferred}")

    def lines(self, ledger: Ledger, planned: Sequence[PlanLine], days: Sequence[date], run_id: str) -> list[Line]:
        """What was planned beside what the run spent and the fewest possible."""
        sites = {site.key: site for site in self.settings.sites}
        with ExitStack() as opened:
            yardsticks = {}
            for truth in self.sandbox.world.sites:
                ids = {vendor: sites[truth.key].ids(vendor) or {} for vendor in vendor_names()}
                yardsticks[truth.key] = opened.enter_context(Yardstick(self.sandbox, truth, days, ids))
            return [self._line(ledger, line, yardsticks[line.site], run_id) for line in planned]

    def _line(self, ledger: Ledger, line: PlanLine, yardstick: Yardstick, run_id: str) -> Line:
        spent = ledger.spent(vendor=line.vendor, stream=line.stream, site=line.site, run_id=run_id)
        return Line(
            stream=f"{line.vendor}/{line.stream}",
            site=line.site,
            planned=line.requests.likely,
            planned_low=line.requests.low,
            planned_high=line.requests.high,
            sureness=sureness(line.requests),
            used=sum(row.requests for row in spent if not row.endpoint.endswith("token")),
            fewest=yardstick.fewest(line.vendor, line.stream),
        )


def play(
    days: int, scale: float, *, history_days: int = HISTORY_DAYS, older_days: int = OLDER_DAYS, seed: int = 7
) -> Played:
    """Fetch some weeks, plan the days after them, fetch those, fetch all of it again."""
    landed = [LAST_DAY - timedelta(days=n) for n in reversed(range(history_days + days))]
    first_day = landed[0] - timedelta(days=older_days)
    world = generate(seed=seed, first_day=first_day, days=older_days + len(landed), scale=scale)
    profiles: dict[str, dict[str, object]] = {"smartlook": {"hourly_limit": 1_000_000}}
    with tempfile.TemporaryDirectory(prefix="backfill-") as folder, Sandbox(world, profiles=profiles) as sandbox:
        home = Path(folder)
        (home / "sites.yaml").write_text(sandbox.sites_yaml(), encoding="utf-8")
        os.environ.update(sandbox.environment())
        os.environ |= {"ANALYTICS_PLATFORM_HOME": folder, "ANALYTICS_PLATFORM_CONFIG": str(home / "sites.yaml")}
        return play_on(Backfill(sandbox), landed, days)


def play_on(backfill: Backfill, days: Sequence[date], asked: int) -> Played:
    """The last `asked` of these days, on a home that has the days before them."""
    settings, history, rest = backfill.settings, days[:-asked], days[-asked:]
    # Later than every look-back, so that no day is asked for again; pages are stamped by the clock on the wall.
    now = datetime.now(UTC)
    tomorrow = now + timedelta(days=1)
    # A ledger of its own: in life the history was paid for in other hours than the range is.
    with Ledger.open(settings.home.root / "history-ledger.db") as ledger:
        backfill.fetch(ledger, history, "history", now=now)
        backfill.fetch(ledger, [now.date()], "history", now=now, snapshots=True)
    with open_ledger(settings) as ledger:
        plan = make_plan(settings, rest[0], rest[-1])
        snapshot_plan = make_plan(settings, tomorrow.date(), tomorrow.date(), now=tomorrow)
        backfill.fetch(ledger, rest, "rest", now=now)
        backfill.fetch(ledger, [tomorrow.date()], "rest", now=tomorrow, snapshots=True)
        backfill.sandbox.requests.clear()
        # Whether a vendor is asked does not hang on what is decoded afterwards.
        backfill.fetch(ledger, days, "again", now=now, tables=())
        backfill.fetch(ledger, [tomorrow.date()], "again", now=tomorrow, snapshots=True, tables=())
        again = len(backfill.sandbox.requests)
        planned = [line for line in plan.lines if line.days_to_fetch]
        planned += [line for line in snapshot_plan.lines if _is_snapshot(line)]
        return Played(lines=tuple(backfill.lines(ledger, planned, rest, "rest")), again=again)


def _is_snapshot(line: PlanLine) -> bool:
    return any(stream.name == line.stream and stream.span == "snapshot" for stream in streams_of(line.vendor))


def main(arguments: Sequence[str] | None = None) -> int:
    """Play and print; fails above 1.02 of the fewest, off the plan by more than 10 %, or when the second run asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=90, help="length of the backfill")
    parser.add_argument("--history", type=int, default=HISTORY_DAYS, help="days landed before it")
    parser.add_argument("--older", type=int, default=OLDER_DAYS, help="days the site has had visitors before those")
    parser.add_argument("--scale", type=float, default=1.0, help="visits: 1.0 is about 220 a day on both sites")
    parser.add_argument("--seed", type=int, default=7, help="of the sandbox's world")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    played = play(chosen.days, chosen.scale, history_days=chosen.history, older_days=chosen.older, seed=chosen.seed)
    if chosen.json:
        sys.stdout.write(json.dumps(asdict(played)) + "\n")
    for line in (*played.lines, *played.vendors()):
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(f"requests of the same range again: {played.again}\n")
    return int(not played.is_good)


if __name__ == "__main__":
    sys.exit(main())
