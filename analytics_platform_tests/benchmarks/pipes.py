"""The pipes that are compared, each in a process of its own: ours with every promise on, and the barest there can be.

Belongs here: the two ways from the server's first page to a typed Parquet partition, and what one run of either took.
Does not belong here: repeating and comparing (`parts`), the server.

    python -m analytics_platform_tests.benchmarks.pipes {ours,ideal,replay} --url URL --home FOLDER --pages N [--days D]

* `ours`: client, ledger, loop guard, strict JSON, landing (written before the next request, group fsync, sha256,
  compression), explicit schema, `_extra`, dedupe, one atomic Parquet file a day;
* `ideal`: httpx → bytes → msgspec.Raw split → NDJSON → DuckDB with explicit columns → Parquet, and no promise at all;
* `replay`: the pages that `ours` landed in the same home, decoded again.

Times are taken inside the process, after its imports, also those that ours makes late; the peak is of the whole
process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path

import duckdb
import httpx
import msgspec
import numpy  # noqa: F401  (these three are imported late by ours)
import pyarrow.compute
import pyarrow.parquet  # noqa: F401
from pydantic import SecretStr

from analytics_platform.core.fetch import Fetcher, FetchOutcome, SiteContext
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.quota import Ledger, spending
from analytics_platform.core.quota_policy import QuotaPolicy, Window
from analytics_platform.vendors.smartlook.client import SmartlookClient
from analytics_platform.vendors.smartlook.streams import STREAMS
from analytics_platform.vendors.smartlook.tables import SESSIONS
from analytics_platform_tests.benchmarks.rows import World
from analytics_platform_tests.benchmarks.server import LAST_DAY

__all__ = ["PIPES", "SITE", "STREAM", "Took", "days_of", "fetched"]

STREAM = next(stream for stream in STREAMS if stream.name == "sessions")
SITE = SiteContext(key="shop", timezone="Europe/Berlin", ids={"plan": "addon"})


@dataclass(frozen=True, kw_only=True)
class Took:
    """One run of a pipe."""

    rows: int
    wall_seconds: float
    cpu_seconds: float
    peak_mib: float


def days_of(world: World) -> list[date]:
    """The days of a world, ascending."""
    return [world.first_day + timedelta(days=n) for n in range(world.days)]


def _fetcher(home: Path) -> Fetcher:
    lake = Lake(home / "lake")
    lake.prepare((SESSIONS,), None)
    return Fetcher(
        landing=Landing(home / "landing"), lake=lake, run_id="benchmark", specs_by_name={"smartlook/sessions": SESSIONS}
    )


def fetched(url: str, home: Path, world: World, *, ledger_at: Path | None = None) -> FetchOutcome:
    """One run of the real stream for every day of the world, metered by the home's ledger or another one."""
    policy = QuotaPolicy(account="smartlook:benchmark", windows={"any": (Window(1_000_000, 3600.0),)})
    home.mkdir(parents=True, exist_ok=True)
    with Ledger.open(ledger_at or home / "ledger.sqlite3") as ledger, spending(stream="sessions", site=SITE.key):
        return _fetcher(home).run(
            STREAM,
            SITE,
            days_of(world),
            connect=lambda: SmartlookClient.connect(
                base_url=url, token=SecretStr("benchmark"), meter=ledger.meter(policy)
            ),
        )


def _rows(outcome: FetchOutcome) -> int:
    if outcome.error is not None:
        raise outcome.error
    return sum(partition.rows for partitions in outcome.decoded.values() for partition in partitions)


def ours(url: str, home: Path, world: World) -> int:
    """The platform's own path."""
    return _rows(fetched(url, home, world))


def replay(url: str, home: Path, world: World) -> int:
    """Landed pages decoded again; the server is not asked."""
    return _rows(_fetcher(home).replay(STREAM, SITE, days_of(world)))


def ideal(url: str, home: Path, world: World) -> int:
    """What no loader can be faster than without giving up the bytes, the split or the types."""
    home.mkdir(parents=True, exist_ok=True)
    whole, listed = msgspec.json.Decoder(dict[str, msgspec.Raw]), msgspec.json.Decoder(list[msgspec.Raw])
    link: str | None = f"{url}/api/v1/sessions"
    with httpx.Client() as client, (home / "rows.ndjson").open("wb") as rows:
        while link is not None:
            members = whole.decode(client.get(link).content)
            rows.writelines((b"\n".join(listed.decode(members["sessions"])), b"\n"))
            found = msgspec.json.decode(members["_links"])["nextPage"]
            link = found and url + found
    columns = ", ".join(f"\"{name}\": '{kind}'" for name, kind in SESSIONS.wire.items())
    source = f"read_json('{home}/rows.ndjson', format = 'newline_delimited', columns = {{{columns}}})"
    with duckdb.connect() as engine:
        engine.execute("SET preserve_insertion_order = false")
        engine.execute(f"COPY (FROM {source}) TO '{home}/rows.parquet' (FORMAT parquet, COMPRESSION zstd)")
        return int(engine.execute(f"SELECT count(*) FROM '{home}/rows.parquet'").fetchall()[0][0])


PIPES: dict[str, Callable[[str, Path, World], int]] = {"ours": ours, "ideal": ideal, "replay": replay}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one pipe once and print what it took as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipe", choices=sorted(PIPES))
    parser.add_argument("--url", default="")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--pages", type=int, required=True)
    parser.add_argument("--days", type=int, default=1)
    chosen = parser.parse_args(arguments)
    world = World(pages=chosen.pages, days=chosen.days, last_day=LAST_DAY)
    begun, cpu_before = time.perf_counter(), sum(os.times()[:4])
    rows = PIPES[chosen.pipe](chosen.url, chosen.home, world)
    took = Took(
        rows=rows,
        wall_seconds=time.perf_counter() - begun,
        cpu_seconds=sum(os.times()[:4]) - cpu_before,
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )
    if rows != world.rows:
        raise SystemExit(f"{rows:,} of {world.rows:,} rows arrived")
    sys.stdout.write(json.dumps(asdict(took)) + "\n")


if __name__ == "__main__":
    main()
