"""Checks one vendor needs beyond what its table declarations imply.

Belongs here: the value types of `vendors/<v>/checks.py`, and the ways of counting that several vendors' checks share.
Does not belong here: rules every table has (`core.checks`), Dagster, any vendor's name.

A check reads one site's rows over a range of days and answers with numbers and days. No value of a row ever enters a
finding: rows hold e-mails and replay links, and findings are shown in the UI.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, cast

from analytics_platform.core.checks import days_in_words

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Finding", "UnitVote", "VendorCheck", "finding", "unit_votes"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found: numbers and days, never a row's value."""

    passed: bool
    description: str
    failing_days: tuple[date, ...] = ()
    metrics: Mapping[str, int | float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class VendorCheck:
    """A named rule over one table's rows of one site and range of days.

    Args:
        table: the table's name without its vendor.
        name: the truth it asserts, as a sentence in snake_case.
        description: the contradiction it settles, what the document says against what the wire sends.
        blocking: whether failing days stay out of the marts.
        run: gets the frame with exactly the table's columns; it may be empty.
    """

    table: str
    name: str
    description: str
    blocking: bool
    run: Callable[[pd.DataFrame], Finding]


def finding(
    frame: pd.DataFrame,
    broken: pd.Series[bool],
    *,
    fault: str,
    next_step: str,
    metrics: Mapping[str, int | float] | None = None,
) -> Finding:
    """Pass when no row is broken, else say how many are, on which days, what is wrong and what to do.

    Args:
        broken: one truth value a row of the frame; unknown counts as not broken.
        fault: what the broken rows do, without any of their values: it follows "3 of 120 rows on 2026-10-26: ".
        next_step: one or two sentences.
        metrics: numbers besides `rows`, `failing_rows` and `failing_days`.
    """
    mask = broken.astype("boolean").fillna(value=False).astype(bool)
    failing = int(mask.sum())
    days = tuple(sorted(set(frame.loc[mask, "_day"].dt.date))) if failing else ()
    numbers = {"rows": len(frame), "failing_rows": failing, "failing_days": len(days), **(metrics or {})}
    if not failing:
        return Finding(passed=True, description=f"Holds for all {len(frame):,} rows.", metrics=numbers)
    return Finding(
        passed=False,
        description=f"{failing:,} of {len(frame):,} rows on {days_in_words(days)}: {fault}. {next_step}",
        failing_days=days,
        metrics=numbers,
    )


@dataclass(frozen=True, kw_only=True)
class UnitVote:
    """How the rows of one day vote on the unit of a number: votes by unit, most votes first."""

    day: date
    votes: Mapping[str, int]

    @property
    def unit(self) -> str:
        """The unit of most rows."""
        return next(iter(self.votes))

    @property
    def is_mixed(self) -> bool:
        return len(self.votes) > 1


def unit_votes(days: pd.Series[pd.Timestamp], units: pd.Series[str]) -> Sequence[UnitVote]:
    """Count each row's unit by day, ascending. Days on which no row votes (NULL) are left out.

    Args:
        days: the rows' `_day`.
        units: the unit each row is in, or NULL where it cannot be told.
    """
    by_day: dict[date, dict[str, int]] = {}
    for key, votes in units.groupby([days.dt.date, units]).size().items():
        day, unit = cast("tuple[date, str]", key)
        by_day.setdefault(day, {})[unit] = int(votes)
    return [
        UnitVote(day=day, votes=dict(sorted(votes.items(), key=lambda item: (-item[1], item[0]))))
        for day, votes in sorted(by_day.items())
    ]
