"""Running a vendor's streams for the acceptance suite: real client, real landing, real lake, a clock that is told.

Belongs here: one home a test (`Rig`), what all tests share (`Bench`), and reading a lake back. Does not belong here:
what a vendor is like (`case`), what is asserted.
"""

from __future__ import annotations

import io
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import yaml

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.errors import QuotaExhausted
from analytics_platform.core.fetch import Fetcher, FetchOutcome, SiteContext
from analytics_platform.core.http import HttpLimits
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Batch, Landing
from analytics_platform.core.streams import Stream
from analytics_platform.core.tables import TableSpec
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.vendors import all_tables
from analytics_platform_tests.acceptance.case import CASES, VendorCase

DAY = date(2026, 10, 5)
"""The one day the suite's world has traffic on."""

NOON = datetime(2026, 10, 20, 12, tzinfo=UTC)
"""The suite's present: every day of the world is past its look-back."""

SITE = "shop"
STAMPS = frozenset({"_landed_at", "_run_id"})
Row = dict[str, Any]


class Budget:
    """A meter with so many requests left; calls for a token are not counted."""

    def __init__(self, requests: int) -> None:
        self.left = requests

    def acquire(self, *, method: str, endpoint: str) -> None:
        if "token" in endpoint:
            return
        if self.left <= 0:
            raise QuotaExhausted("The budget of this test is spent.")
        self.left -= 1

    def learn(self, *, method: str, endpoint: str, status: int, retry_after_seconds: float | None) -> None:
        """Nothing is learnt."""


@dataclass
class Bench:
    """What the tests of one process share: the sandbox, and one undisturbed reading of each vendor."""

    sandbox: Sandbox
    root: Path
    readings: dict[str, Rig] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    """Everything that was logged while a vendor was read, at the most talkative level."""

    @property
    def environment(self) -> dict[str, str]:
        return self.sandbox.environment()

    def site(self, case: VendorCase, key: str = SITE) -> SiteContext:
        found = next(site for site in yaml.safe_load(self.sandbox.sites_yaml())["sites"] if site["key"] == key)
        ids = {name: str(value) for name, value in found["vendors"][case.vendor].items()}
        return SiteContext(key=key, timezone=found["timezone"], ids={**ids, **case.ids})

    def reading(self, case: VendorCase) -> Rig:
        """Every stream of the vendor, read once without any fault."""
        if case.vendor not in self.readings:
            rig = Rig(self, case, self.root / case.vendor)
            with _everything_logged() as text:
                for stream in case.streams:
                    rig.outcomes[stream.name] = done(rig.read(stream))
            self.readings[case.vendor], self.said[case.vendor] = rig, text.getvalue()
        return self.readings[case.vendor]


@contextmanager
def _everything_logged() -> Iterator[io.StringIO]:
    text, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(text), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield text
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


class Rig:
    """A home of its own for one vendor, with what its streams depend on already in the lake."""

    def __init__(self, bench: Bench, case: VendorCase, root: Path, *, now: datetime = NOON) -> None:
        self.bench, self.case, self.root = bench, case, root
        self.clock = ManualClock(now)
        self.landing = Landing(root / "landing", clock=self.clock)
        self.lake = Lake(root / "lake")
        self.outcomes: dict[str, FetchOutcome] = {}
        self._lend()

    def _lend(self) -> None:
        for name in {name for stream in self.case.streams for name in stream.depends_on}:
            vendor = name.split("/")[0]
            if vendor == self.case.vendor and vendor not in self.bench.readings:
                continue  # the reading itself: its own stream writes the table
            other = next(case for case in CASES if case.vendor == vendor)
            source = self.bench.reading(other).lake.root / name
            shutil.copytree(source, self.lake.root / name)

    def read(
        self,
        stream: Stream,
        days: Sequence[date] | None = None,
        *,
        budget: int | None = None,
        environment: Mapping[str, str] | None = None,
        limits: HttpLimits | None = None,
        refresh: bool = False,
        tables: Sequence[TableSpec] | None = None,
    ) -> FetchOutcome:
        """One run of one stream; waits cost nothing, the clock only says that they were."""
        site = self.bench.site(self.case)
        if refresh:
            self.clock.advance(1)  # a batch is named by its instant
        how = {"clock": self.clock, "meter": None if budget is None else Budget(budget), "limits": limits}
        fetcher = Fetcher(
            landing=self.landing,
            lake=self.lake,
            run_id="run",
            specs_by_name=all_tables(),
            clock=self.clock,
            log=logging.getLogger("acceptance"),
        )
        known = self.bench.environment if environment is None else environment
        return fetcher.run(
            stream,
            site,
            self.days(stream) if days is None else days,
            connect=lambda: self.case.connect(known, site.ids, **how),
            refresh=refresh,
            tables=tables,
        )

    def probe(self, **how: Any) -> FetchOutcome:
        """One run of the stream that wire faults are tried on."""
        return self.read(self.case.probe_stream, **how)

    def days(self, stream: Stream) -> list[date]:
        return [self.clock.now().date()] if stream.span == "snapshot" else [DAY]

    def rows(self, spec: TableSpec, days: Sequence[date] | None = None) -> list[Row]:
        """The table's rows in the order of the files, stamps left out."""
        wanted = self.lake.days(spec, SITE) if days is None else days
        paths = [str(self.lake.partition_path(spec, SITE, day)) for day in wanted]
        if not paths:
            return []
        with duckdb.connect() as engine:
            cursor = engine.execute("FROM read_parquet(?, hive_partitioning = false)", [paths])
            names = [column[0] for column in cursor.description or ()]
            found = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        return [{name: value for name, value in row.items() if name not in STAMPS} for row in found]

    def files(self) -> dict[str, bytes]:
        """Every partition file of the vendor, by its place below the lake."""
        base = self.lake.root / self.case.vendor
        return {str(path.relative_to(base)): path.read_bytes() for path in sorted(base.rglob("site=shop/**/*.parquet"))}

    def batches(self, stream: Stream) -> list[Batch]:
        return self.landing.batches(stream.vendor, stream.name, SITE)

    def landed(self, stream: Stream) -> dict[tuple[str, int], str]:
        """What the lake is decoded from: the digest of each page by its call and number; the newest of a page wins."""
        return {(page.call, page.sequence): page.sha256 for batch in self.batches(stream) for page in batch.index()}


def done(outcome: FetchOutcome) -> FetchOutcome:
    """The outcome, if everything asked for was read."""
    assert outcome.error is None, outcome.error
    assert outcome.deferred is None, outcome.deferred
    return outcome
