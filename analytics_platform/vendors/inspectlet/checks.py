"""What the shape of Inspectlet's tables cannot say by itself: checks only this vendor needs.

Belongs here: named checks on one table's frame. Does not belong here: keys, types, ranges, row floors and drift, which
follow from the table's declaration (`core.checks`); the units of search conditions (`client`: no row carries them).

Source: MARTS §3.3; contract Inspectlet §2.3, traps 1, 6 and 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from analytics_platform.core.country_codes import COUNTRY_CODES
from analytics_platform.core.truths import Truth
from analytics_platform.core.vendor_checks import Finding, VendorCheck, finding, unit_votes

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CHECKS", "TRUTHS"]

_LONG_ENOUGH_SECONDS: Final = 5
"""Shorter sessions do not vote: within the recorder's own lag, a second and a millisecond look alike."""


def _duration_unit_is_uniform(frame: pd.DataFrame) -> Finding:
    """Each day votes; days that are mixed, or vote otherwise than the first day of the range, fail."""
    span_seconds = (frame["ended_at"] - frame["started_at"]).dt.total_seconds()
    can_tell = (span_seconds >= _LONG_ENOUGH_SECONDS) & frame["duration_unit"].isin(("milliseconds", "seconds"))
    votes = unit_votes(frame["_day"], frame["duration_unit"].where(can_tell))
    failing = tuple(vote.day for vote in votes if vote.is_mixed or vote.unit != votes[0].unit)
    mixed = sum(vote.is_mixed for vote in votes)
    metrics = {
        "rows": len(frame),
        "rows_in_milliseconds": sum(vote.votes.get("milliseconds", 0) for vote in votes),
        "rows_in_seconds": sum(vote.votes.get("seconds", 0) for vote in votes),
        "mixed_days": mixed,
        "failing_days": len(failing),
    }
    if not failing:
        if not votes:
            return Finding(passed=True, description="No session is long enough to tell the unit.", metrics=metrics)
        return Finding(passed=True, description=f"Every day's durations are in {votes[0].unit}.", metrics=metrics)
    before, since = votes[0].unit, next(vote.unit for vote in votes if vote.day == failing[-1])
    changed = f"changes from {before} to {since}" if since != before else f"is not always {before}"
    return Finding(
        passed=False,
        description=(
            f"The unit of session_duration {changed}: {len(failing):,} of {len(votes):,} days, from {failing[0]}, are "
            f"not like the first, and {mixed:,} hold both units. Marts are right, because duration_seconds is "
            "converted row by row from the session's start and end; tell the vendor, and do not use "
            "session_duration_raw across this day."
        ),
        failing_days=failing,
        metrics=metrics,
    )


def _page_count_is_consistent(frame: pd.DataFrame) -> Finding:
    miscounted = frame["num_pages"] != frame["listed_page_count"]
    moved = frame["landing_url"].notna() & frame["exit_url"].notna() & (frame["landing_url"] != frame["exit_url"])
    one_page_that_moved = (frame["num_pages"] <= 1) & moved
    return finding(
        frame,
        miscounted | one_page_that_moved,
        fault="num_pages disagrees with the list of pages, or is 1 though the exit page is not the landing page",
        next_step=(
            "Marts take the larger of num_pages and the listed pages, so bounces are not overstated. If it is most of "
            "a day, compare one of its sessions with the vendor's player."
        ),
        metrics={
            "rows_miscounted": int(miscounted.sum()),
            "rows_of_one_page_that_moved": int(one_page_that_moved.sum()),
        },
    )


def _country_is_iso3166(frame: pd.DataFrame) -> Finding:
    codes = frame["country_code"]
    return finding(
        frame,
        codes.notna() & ~codes.isin(COUNTRY_CODES),
        fault="country_code is no ISO 3166-1 alpha-2 country",
        next_step=(
            "Marts show these sessions under the unknown country. If most rows fail, the vendor sends "
            "languages: change the column in tables.py and run `analytics-platform replay-landing`."
        ),
        metrics={"rows_without_country": int(codes.isna().sum())},
    )


CHECKS: Final[Sequence[VendorCheck]] = (
    VendorCheck(
        table="sessions",
        name="duration_unit_is_uniform",
        description=(
            "The document says session_duration is in seconds, its own sample is 286893 for a session of 289 seconds: "
            "the unit is voted by day from start and end, and does not change."
        ),
        blocking=False,
        run=_duration_unit_is_uniform,
    ),
    VendorCheck(
        table="sessions",
        name="page_count_is_consistent",
        description=(
            "The document says num_pages counts the session's pages, its own sample has one page and yet leaves by "
            "another than it entered."
        ),
        blocking=False,
        run=_page_count_is_consistent,
    ),
    VendorCheck(
        table="sessions",
        name="country_is_iso3166",
        description="The document says country is an ISO 639 code (languages), the wire carries ISO 3166-1 countries.",
        blocking=False,
        run=_country_is_iso3166,
    ),
)
"""All warnings: each row is converted by its own evidence, so none of these makes a mart wrong."""

_DECODE_AGAIN: Final = (
    "Run `analytics-platform replay-landing` for the days, it costs no request; if it stays, a column of tables.py is "
    "wrong."
)

TRUTHS: Final[Sequence[Truth]] = (
    Truth(
        table="session_pages",
        name="listed_pages_are_landed",
        description="A session has as many rows in inspectlet/session_pages as its list had pages, and no others.",
        reads=("inspectlet/sessions", "inspectlet/session_pages"),
        blocking=True,
        sql="""
            WITH pages AS (SELECT day, wid, sid, count(*) AS rows FROM inspectlet.session_pages GROUP BY ALL)
            SELECT
                day, count(*) AS checked,
                count(*) FILTER (coalesce(sessions.listed_page_count, 0) <> coalesce(pages.rows, 0)) AS broken
            FROM inspectlet.sessions AS sessions FULL JOIN pages USING (day, wid, sid) GROUP BY day
        """,
        fault="the session's list of pages and its landed pages differ",
        next_step=_DECODE_AGAIN,
    ),
    Truth(
        table="session_tags",
        name="listed_tags_are_landed",
        description="A session has as many rows in inspectlet/session_tags as its list had tags, and no others.",
        reads=("inspectlet/sessions", "inspectlet/session_tags"),
        blocking=True,
        sql="""
            WITH tags AS (SELECT day, wid, sid, count(*) AS rows FROM inspectlet.session_tags GROUP BY ALL)
            SELECT
                day, count(*) AS checked,
                count(*) FILTER (coalesce(sessions.tag_count, 0) <> coalesce(tags.rows, 0)) AS broken
            FROM inspectlet.sessions AS sessions FULL JOIN tags USING (day, wid, sid) GROUP BY day
        """,
        fault="the session's list of tags and its landed tags differ",
        next_step=_DECODE_AGAIN,
    ),
)
"""Both block: sessions, pages and tags are decoded from one answer: a difference is ours, and counts would be wrong."""
