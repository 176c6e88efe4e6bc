"""What the shape of Pirsch's tables cannot say by itself: checks only this vendor needs.

Belongs here: named checks on one table's frame. Does not belong here: keys, types, ranges, row floors and drift, which
follow from the table's declaration (`core.checks`).

Source: MARTS §3.3; contract Pirsch A8 (traps 3, 5, 6, 7, 9 and 10). The vendor says of its own document that "samples
do not necessarily show correct data", so nothing here is compared with a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from analytics_platform.core.country_codes import COUNTRY_CODES
from analytics_platform.core.truths import Truth
from analytics_platform.core.vendor_checks import Finding, VendorCheck, finding

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CHECKS", "TRUTHS"]

_RATE_TOLERANCE: Final = 0.0005
"""Rates come with four decimals or unrounded."""

_UNIT_FACTOR: Final = 10.0
"""A percent is 100 times its fraction; rounding of small rates stays far below 10 times."""


def _bounce_rate_is_over_sessions(frame: pd.DataFrame) -> Finding:
    rates, bounces = frame["bounce_rate"].astype("Float64"), frame["bounces"].astype("Float64")
    sessions, visitors = frame["sessions"].astype("Float64"), frame["visitors"].astype("Float64")
    off_sessions = (sessions > 0) & ((rates - bounces / sessions.where(sessions > 0)).abs() > _RATE_TOLERANCE)
    on_visitors = (rates - bounces / visitors.where(visitors > 0)).abs() <= _RATE_TOLERANCE
    return finding(
        frame,
        off_sessions,
        fault="bounce_rate is not bounces divided by sessions",
        next_step=(
            "Marts divide bounces by sessions themselves. If these rows divide by visitors, the vendor's engine "
            "changed: do not compare its own rate across this day."
        ),
        metrics={"failing_rows_over_visitors": int((off_sessions & on_visitors).fillna(value=False).sum())},
    )


def _breakdown_is_not_truncated(frame: pd.DataFrame, *, flags: Sequence[str]) -> Finding:
    truncated = frame[flags[0]].astype("boolean").fillna(value=False)
    for flag in flags[1:]:
        truncated = truncated | frame[flag].astype("boolean").fillna(value=False)
    answers = ["_day", "dimension"] if "dimension" in frame else ["_day"]
    return finding(
        frame,
        truncated,
        fault="the answer held 100 rows, its most, so smaller values are missing",
        next_step=(
            "Sums over these rows are too small: take totals from daily_stats. int_pirsch__lists_completed has the "
            "rest of views, entries, exits and referrer sessions under (other)."
        ),
        metrics={"truncated_answers": len(frame.loc[truncated.astype(bool), answers].drop_duplicates())},
    )


def _goal_rates_are_fractions(frame: pd.DataFrame) -> Finding:
    """`visitors / cr` is the day's visitors for every goal of a day; one in percent is 100 times off."""
    rates = frame["cr"].astype("float64")
    implied = (frame["visitors"].astype("Float64") / rates.where(rates > 0)).astype("float64")
    ratio = implied / implied.groupby(frame["_day"]).transform("median")
    return finding(
        frame,
        (rates > 1) | (ratio > _UNIT_FACTOR) | (ratio < 1 / _UNIT_FACTOR),
        fault="cr is not the goal's visitors as a fraction of the day's visitors",
        next_step=(
            "Marts divide visitors by the day's visitors themselves; do not read cr on these days, it may be a "
            "percentage as cr_goal_percent is."
        ),
    )


def _goal_patterns_are_not_swapped(frame: pd.DataFrame) -> Finding:
    looks_regular = frame["path_pattern"].astype("string").str.match(r"\(\?|\^")
    looks_plain = frame["pattern"].astype("string").str.startswith("/")
    return finding(
        frame,
        looks_regular.fillna(value=False) | looks_plain.fillna(value=False),
        fault="path_pattern holds a regular expression or pattern holds a path",
        next_step=(
            "The vendor swapped the two fields, as its document does in one place: exchange the expressions in "
            "tables.py and run `analytics-platform replay-landing`."
        ),
    )


def _os_versions_are_versions(frame: pd.DataFrame) -> Finding:
    """A day fails when not one of its versions has a name: then the plain systems were answered."""
    of_versions = frame["dimension"] == "os_version"
    named = of_versions & frame["value"].notna() & (frame["value"] != "") & (frame["value"] != frame["parent_value"])
    any_named = named.groupby(frame["_day"]).transform("any").astype(bool)
    return finding(
        frame,
        of_versions & ~any_named,
        fault="not one row of the dimension os_version names a version",
        next_step="Use the dimension os, and leave os_version out until the vendor answers it again.",
        metrics={"rows_with_version": int(named.sum())},
    )


def _country_is_iso3166(frame: pd.DataFrame) -> Finding:
    codes = frame["value"].astype("string").str.upper()
    of_countries = frame["dimension"] == "country"
    return finding(
        frame,
        of_countries & codes.notna() & (codes != "") & ~codes.isin(COUNTRY_CODES),
        fault="a value of the dimension country is no ISO 3166-1 alpha-2 country",
        next_step="Marts show these visitors under the unknown country; look at the landed page of the day.",
        metrics={"rows_of_countries": int(of_countries.sum())},
    )


def _bounce_check(table: str) -> VendorCheck:
    return VendorCheck(
        table=table,
        name="bounce_rate_is_over_sessions",
        description="The document says bounce_rate is over visitors, its figures and the wire divide by sessions.",
        blocking=False,
        run=_bounce_rate_is_over_sessions,
    )


def _truncation_check(table: str, *flags: str) -> VendorCheck:
    return VendorCheck(
        table=table,
        name="breakdown_is_not_truncated",
        description=(
            "The document calls these lists complete results, the wire stops at 100 rows, without paging and without "
            "saying so."
        ),
        blocking=False,
        run=partial(_breakdown_is_not_truncated, flags=flags),
    )


CHECKS: Final[Sequence[VendorCheck]] = (
    _bounce_check("daily_stats"),
    _bounce_check("hourly"),
    _truncation_check("pages", "possibly_truncated", "entries_possibly_truncated", "exits_possibly_truncated"),
    _truncation_check("breakdowns", "possibly_truncated"),
    _truncation_check("events", "possibly_truncated"),
    _truncation_check("goals", "possibly_truncated"),
    VendorCheck(
        table="goals",
        name="goal_rates_are_fractions",
        description="The document shows cr_goal as 42.11 (percent) beside cr as 0.065, the wire's cr is a fraction.",
        blocking=False,
        run=_goal_rates_are_fractions,
    ),
    VendorCheck(
        table="goals",
        name="goal_patterns_are_not_swapped",
        description=(
            "The document has path_pattern and pattern the other way round at /goal than at /statistics/goals, the "
            "wire of the latter sends the path as path_pattern."
        ),
        blocking=False,
        run=_goal_patterns_are_not_swapped,
    ),
    VendorCheck(
        table="breakdowns",
        name="os_versions_are_versions",
        description="The document lists OS versions at the path of plain systems, the wire has them at /os/version.",
        blocking=False,
        run=_os_versions_are_versions,
    ),
    VendorCheck(
        table="breakdowns",
        name="country_is_iso3166",
        description="The document shows a field country, the wire's country_code holds ISO 3166-1 in lower case.",
        blocking=False,
        run=_country_is_iso3166,
    ),
)
"""All warnings: marts compute rates from counts and take totals from daily_stats."""

TRUTHS: Final[Sequence[Truth]] = (
    Truth(
        table="hourly",
        name="hours_add_up_to_the_day",
        description="Views and sessions of the 24 hours of pirsch/hourly are those of the day in pirsch/daily_stats.",
        reads=("pirsch/daily_stats", "pirsch/hourly"),
        blocking=False,
        sql="""
            WITH hours AS (SELECT day, sum(views) AS views, sum(sessions) AS sessions FROM pirsch.hourly GROUP BY day)
            SELECT
                day, count(*) AS checked,
                count(*) FILTER (
                    abs(totals.views - coalesce(hours.views, 0)) > greatest(1, 0.01 * totals.views)
                    OR abs(totals.sessions - coalesce(hours.sessions, 0)) > greatest(1, 0.05 * totals.sessions)
                ) AS broken
            FROM pirsch.daily_stats AS totals LEFT JOIN hours USING (day) GROUP BY day
        """,
        fault="the hours of the day add up to other views (by 1 %) or sessions (by 5 %) than the day",
        next_step="Materialise both tables of the day again: they are separate answers, and an open day moves.",
    ),
    Truth(
        table="pages",
        name="paths_are_within_the_day",
        description="The views of all paths of pirsch/pages are no more than the day's in pirsch/daily_stats.",
        reads=("pirsch/daily_stats", "pirsch/pages"),
        blocking=False,
        sql="""
            WITH paths AS (SELECT day, sum(views) AS views FROM pirsch.pages GROUP BY day)
            SELECT day, count(*) AS checked, count(*) FILTER (paths.views > totals.views) AS broken
            FROM pirsch.daily_stats AS totals JOIN paths USING (day) GROUP BY day
        """,
        fault="the paths of the day have more views than the day",
        next_step="Materialise both tables of the day again: they are separate answers, and an open day moves.",
    ),
)
"""Both warn: lists and totals are separate answers of the vendor, each right at its own moment."""
