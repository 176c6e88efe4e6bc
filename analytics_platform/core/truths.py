"""Truths that hold between the tables of a site's day: declared by vendors as SQL, judged partition by partition.

Belongs here: the value type of `TRUTHS` in `vendors/<v>/checks.py`, judging them over the lake, keeping failing days
from the marts. Does not belong here: rules over one table (`core.checks`, `core.vendor_checks`), Dagster
(`core.ingest`), truths between vendors' numbers (they disagree, which is what the marts explain).

A truth is judged for each day that was just written and of which every table it reads has landed. What it says about
a day that fails is a number of rows, never a value. A failing day of a blocking truth is held back under the truth's
own name: the marts then leave out that vendor's day, all tables of it, until the truth holds again.

Source: MARTS §4.7 (division of work), PRACTICE §6 (plain SQL over the lake).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from typing import Any, Final, Literal

import duckdb

from analytics_platform.core.engine import read_steadily
from analytics_platform.core.lake import Lake, connect
from analytics_platform.core.tables import TableSpec

__all__ = ["HELD_BACK", "Truth", "Verdict", "hold_back", "judge"]

HELD_BACK: Final = "truth:"
"""Begins the name of an entry in the list of blocked partitions that stands for all tables of the vendor's day."""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """One statement about the tables of a site's day.

    Args:
        table: the table, without its vendor, whose asset shows it: of those it reads the one that is written last.
        name: the truth as a sentence in snake_case.
        description: what it holds against what, for a reader of the UI.
        reads: tables as "vendor/table"; a day is judged once all of them have it.
        blocking: whether a failing day stays out of the marts.
        sql: SELECT of day (DATE), checked and broken (counts of rows), one row a day, a day without one holds; over
            views named `<vendor>.<table>` with one site's days and the day before the first, each with a column `day`.
        fault: what is wrong with the broken rows, to follow "3 of 120 rows on 2026-11-01: ".
        next_step: what a person does about it.
    """

    table: str
    name: str
    description: str
    reads: tuple[str, ...]
    blocking: bool
    sql: str
    fault: str
    next_step: str

    @property
    def severity(self) -> Literal["error", "warning"]:
        return "error" if self.blocking else "warning"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a truth says of one day: rows looked at, and rows that break it."""

    truth: Truth
    day: date
    checked: int
    broken: int

    @property
    def passed(self) -> bool:
        return self.broken == 0

    @property
    def description(self) -> str:
        if self.passed:
            return f"Holds for all {self.checked:,} rows."
        return f"{self.broken:,} of {self.checked:,} rows on {self.day}: {self.truth.fault}. {self.truth.next_step}"


def judge(
    truths: Sequence[Truth], lake: Lake, site: str, days: Sequence[date], specs_by_name: Mapping[str, TableSpec]
) -> Iterator[Verdict]:
    """Verdicts by truth and day, of the days of which every table a truth reads has landed.

    Args:
        days: ascending, without gaps mattering.
        specs_by_name: "vendor/table" → spec, of every table the truths read.

    Raises:
        duckdb.Error: a truth's SQL does not fit its tables.
    """
    if not truths or not days:
        return
    before = min(days) - timedelta(days=1)
    with connect() as engine:
        for name in sorted({name for truth in truths for name in truth.reads}):
            spec = specs_by_name[name]
            lake.ensure_anchor(spec)
            engine.execute(f'CREATE SCHEMA IF NOT EXISTS "{spec.vendor}"')
            engine.execute(
                f'CREATE VIEW "{spec.vendor}"."{spec.name}" AS SELECT _day AS day, * '
                f"FROM {lake.relation(spec, site, [before, *days])}"
            )
        for truth in truths:
            rows = read_steadily(partial(_rows, engine, truth.sql))
            found = {day: (checked, broken) for day, checked, broken in rows}
            for day in days:
                if all(lake.has(specs_by_name[name], site, day) for name in truth.reads):
                    checked, broken = found.get(day, (0, 0))
                    yield Verdict(truth=truth, day=day, checked=int(checked), broken=int(broken))


def hold_back(lake: Lake, vendor: str, site: str, verdicts: Sequence[Verdict]) -> None:
    """Keep the days on which a blocking truth fails out of the marts, and let those on which it holds back in."""
    for truth in {verdict.truth.name: verdict.truth for verdict in verdicts if verdict.truth.blocking}.values():
        mine = [verdict for verdict in verdicts if verdict.truth.name == truth.name]
        lake.hold_back(
            vendor,
            f"{HELD_BACK}{truth.name}",
            site,
            failing=[verdict.day for verdict in mine if not verdict.passed],
            passing_days=[verdict.day for verdict in mine if verdict.passed],
        )


def _rows(engine: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
    return engine.execute(sql).fetchall()
