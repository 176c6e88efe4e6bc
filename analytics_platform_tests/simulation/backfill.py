"""A long backfill of every vendor: requests used against the fewest that could do, and against what was planned.

Belongs here: the command, the fewest possible by vendor, the table it prints. Does not belong here: time and kills
(`quota_month`).

    python -m analytics_platform_tests.simulation.backfill --days 90

One vendor after the other, through ledger, client, landing and lake: first a third of the range (the planner's
history), then the plan of the rest, then the rest, then all of it again. The fewest possible is counted from the
sandbox's own answers: full pages for the rows there are, one histogram a definition, one request a visitor of the
panel.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path

import duckdb

from analytics_platform.core.fetch import Fetcher, SiteContext
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.quota import Ledger, spending
from analytics_platform.core.resources import open_ledger
from analytics_platform.plan import make_plan
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import generate
from analytics_platform.settings import Settings, load_settings
from analytics_platform.vendors import all_tables, streams_of, vendor_names, vendor_resource

FIRST_DAY = date(2026, 7, 1)


@dataclass(kw_only=True)
class Line:
    """One stream of one site."""

    stream: str
    site: str
    planned: float
    planned_low: float
    planned_high: float
    used: int
    fewest: int
    again: int

    @property
    def off_by(self) -> float:
        return abs(self.planned - self.used) / max(self.used, 1)


class Backfill:
    """One home over one sandbox."""

    def __init__(self, sandbox: Sandbox, days: int) -> None:
        self.settings: Settings = load_settings()
        self.sandbox = sandbox
        self.days = [FIRST_DAY + timedelta(days=n) for n in range(days)]
        self.lake = Lake(self.settings.home.lake)
        self.fetcher = Fetcher(
            landing=Landing(self.settings.home.landing),
            lake=self.lake,
            run_id="backfill",
            specs_by_name=all_tables(),
        )
        self.resources = {vendor: vendor_resource(vendor) for vendor in vendor_names()}

    def fetch(self, ledger: Ledger, days: Sequence[date], run_id: str) -> None:
        """Every stream of every vendor and site for these days, in dependency order."""
        for vendor in vendor_names():
            for stream in streams_of(vendor):
                if stream.span == "snapshot":
                    continue
                for site in self.settings.sites_with(vendor):
                    ids = site.ids(vendor) or {}
                    context = SiteContext(key=site.key, timezone=site.timezone, ids=ids)
                    with spending(stream=stream.name, site=site.key, run_id=run_id):
                        outcome = self.fetcher.run(
                            stream,
                            context,
                            days,
                            connect=lambda vendor=vendor, ids=ids: self.resources[vendor].connect(ids, ledger),  # type: ignore[misc]
                        )
                    if outcome.error or outcome.deferred:
                        raise RuntimeError(f"{vendor}/{stream.name} {site.key}: {outcome.error or outcome.deferred}")

    def rows(self, table: str, site: str, days: Sequence[date], sql: str = "count(*)") -> int:
        """An aggregate over lake rows of these days."""
        files = [str(self.lake.partition_path(all_tables()[table], site, day)) for day in days]
        held = [f for f in files if Path(f).exists()]
        found = duckdb.execute(f"SELECT {sql} FROM read_parquet({held!r})").fetchall()
        return int(found[0][0] or 0)

    def fewest(self, vendor: str, stream: str, site: str, days: Sequence[date]) -> int:
        """The least the API allows for the rows there are."""
        counts: dict[str, Callable[[], int]] = {
            "smartlook/sessions": lambda: math.ceil(self.rows("smartlook/sessions", site, days) / 100),
            "smartlook/visitors": lambda: math.ceil(self.rows("smartlook/visitors", site, days) / 100),
            "smartlook/event_daily": lambda: (
                1 + self.rows("smartlook/event_daily", site, days, "count(DISTINCT event_id)")
            ),
            "smartlook/funnels": lambda: (
                1 + self.rows("smartlook/funnels", site, days, "count(DISTINCT funnel_id)") * len(days)
            ),
            "smartlook/events": lambda: self.seen("/events", "visitors", site),
            "inspectlet/sessions": lambda: math.ceil((self.rows("inspectlet/sessions", site, days) + 1) / 100),
            "pirsch/daily_stats": lambda: 2 * math.ceil(len(days) / 100),
            "pirsch/reports": lambda: 21 * len(days),
            "kameleoon/visits": lambda: self.panel(site, days),
            "kameleoon/product_counters": lambda: len(days) if site == "shop" else 0,
        }
        return counts[f"{vendor}/{stream}"]()

    def seen(self, ends: str, holds: str, site: str) -> int:
        """Distinct visitors whose events were asked for: nobody can know them with fewer requests."""
        paths = {r.path for r in self.sandbox.requests.records(vendor="smartlook", path=holds) if r.path.endswith(ends)}
        return len(paths)

    def panel(self, site: str, days: Sequence[date]) -> int:
        records = self.sandbox.requests.records(vendor="kameleoon", path="/visit/visitor")
        code = self.sandbox.world.site(site).kameleoon_site_code
        return len({r.query for r in records if f"siteCode={code}" in r.query})


def play(days: int, scale: float) -> list[Line]:
    """Fetch, plan, fetch, fetch again."""
    world = generate(first_day=FIRST_DAY, days=days, scale=scale)
    profiles: dict[str, dict[str, object]] = {"smartlook": {"hourly_limit": 1_000_000}}
    with tempfile.TemporaryDirectory(prefix="backfill-") as folder, Sandbox(world, profiles=profiles) as sandbox:
        home = Path(folder)
        (home / "sites.yaml").write_text(sandbox.sites_yaml(), encoding="utf-8")
        os.environ.update(sandbox.environment())
        os.environ |= {"ANALYTICS_PLATFORM_HOME": folder, "ANALYTICS_PLATFORM_CONFIG": str(home / "sites.yaml")}
        return _lines(Backfill(sandbox, days))


def _lines(backfill: Backfill) -> list[Line]:
    history, rest = backfill.days[: len(backfill.days) // 3], backfill.days[len(backfill.days) // 3 :]
    settings = backfill.settings
    with open_ledger(settings) as ledger:
        backfill.fetch(ledger, history, "history")
        plan = make_plan(settings, rest[0], rest[-1])
        backfill.sandbox.requests.clear()
        backfill.fetch(ledger, rest, "rest")
        fewest = {
            (line.vendor, line.stream, line.site): backfill.fewest(line.vendor, line.stream, line.site, rest)
            for line in plan.lines
            if line.days_to_fetch
        }
        backfill.sandbox.requests.clear()
        backfill.fetch(ledger, backfill.days, "again")
        again = len(backfill.sandbox.requests.records())
        return [
            Line(
                stream=f"{line.vendor}/{line.stream}",
                site=line.site,
                planned=line.requests.likely,
                planned_low=line.requests.low,
                planned_high=line.requests.high,
                used=_used(ledger, line.vendor, line.stream, line.site),
                fewest=fewest[line.vendor, line.stream, line.site],
                again=again,
            )
            for line in plan.lines
            if line.days_to_fetch
        ]


def _used(ledger: Ledger, vendor: str, stream: str, site: str) -> int:
    spent = ledger.spent(vendor=vendor, stream=stream, site=site, run_id="rest")
    return sum(row.requests for row in spent if not row.endpoint.endswith("token"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Play and print; fails above 1.02 of the fewest, or when the second run asks anything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    lines = play(chosen.days, chosen.scale)
    if chosen.json:
        sys.stdout.write(json.dumps([asdict(line) for line in lines]) + "\n")
    by_vendor: dict[str, list[Line]] = {}
    for line in lines:
        by_vendor.setdefault(line.stream.partition("/")[0], []).append(line)
        sys.stdout.write(
            f"{line.stream:28} {line.site:6} planned {line.planned:7.0f} ({line.planned_low:.0f} to "
            f"{line.planned_high:.0f})  used {line.used:6}  fewest {line.fewest:6}\n"
        )
    verdict = 0
    for vendor, mine in by_vendor.items():
        used, fewest = sum(line.used for line in mine), sum(line.fewest for line in mine)
        planned = sum(line.planned for line in mine)
        sys.stdout.write(f"{vendor:12} used/fewest {used / fewest:.3f}  planned/used {planned / used:.3f}\n")
        verdict |= used > 1.02 * fewest or not 0.9 * used <= planned <= 1.1 * used
    sys.stdout.write(f"requests of the same range again: {lines[0].again}\n")
    return int(verdict or lines[0].again > 0)


if __name__ == "__main__":
    sys.exit(main())
