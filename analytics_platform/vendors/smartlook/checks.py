"""What the shape of Smartlook's tables cannot say by itself: checks only this vendor needs.

Belongs here: named checks on one table's frame. Does not belong here: keys, types, ranges, row floors and drift, which
follow from the table's declaration (`core.checks`).

Source: MARTS §2 (units that are not stated) and §3.3; contract Smartlook §1.3 (cursors) and §1.4 (traps).
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
_CURSOR_FIELDS: Final = r'"(?:after|before|cursor|nextPage|previousPage|_links)"\s*:'


def _no_cursor_is_stored(frame: pd.DataFrame) -> Finding:
    return finding(
        frame,
        frame["_extra"].astype("string").str.contains(_CURSOR_FIELDS, regex=True),
        fault="a field that no table declares holds a cursor or a link to another page",
        next_step=(
            "Declare the field in the `wire` of tables.py without a column, so that it stays out of the lake, and run "
            "`analytics-platform replay-landing`. Nothing resumes from a stored cursor."
        ),
    )


def _duration_is_in_seconds(frame: pd.DataFrame) -> Finding:
    """Each day votes: the unit of a row is the one that comes nearer to end - start."""
    durations = frame["duration_seconds"].astype("float64")
    spans = (frame["ended_at"] - frame["started_at"]).dt.total_seconds()
    can_tell = (spans >= _LONG_ENOUGH_SECONDS) & (durations > 0)
    is_milliseconds = (durations / 1000 - spans).abs() < (durations - spans).abs()
    units = is_milliseconds.map({True: "milliseconds", False: "seconds"}).where(can_tell)
    wrong_days = {vote.day for vote in unit_votes(frame["_day"], units) if vote.unit == "milliseconds"}
    return finding(
        frame,
        can_tell & frame["_day"].dt.date.isin(wrong_days),
        fault="duration comes nearer to the session's end - start when it is read as milliseconds",
        next_step=(
            "Change the expression of duration_seconds in tables.py and run `analytics-platform replay-landing`, it "
            "costs no request. Until then the days stay out of the marts."
        ),
        metrics={"rows_that_vote": int(can_tell.sum()), "rows_in_milliseconds": int((units == "milliseconds").sum())},
    )


def _country_is_iso3166(frame: pd.DataFrame) -> Finding:
    codes = frame["country_code"]
    return finding(
        frame,
        codes.notna() & ~codes.isin(COUNTRY_CODES),
        fault="country_code is no ISO 3166-1 alpha-2 country",
        next_step="Marts show these sessions under the unknown country; look at the landed page of the day.",
        metrics={"rows_without_country": int(codes.isna().sum())},
    )


def _step_percent_is_percent(frame: pd.DataFrame) -> Finding:
    """A step's share of the step before, against the counts of both; the first step is 100 % of itself."""
    ordered = frame.sort_values(["_day", "funnel_id", "step_index"])
    counts = ordered["visitors_count"].astype("float64")
    before = counts.groupby([ordered["_day"], ordered["funnel_id"]]).shift().fillna(counts)
    share = (counts / before.where(before > 0)).reindex(frame.index)
    told = frame["percent_from_previous_step"].astype("float64")
    return finding(
        frame,
        (share > 0) & ((told - share).abs() < (told - 100 * share).abs()),
        fault="percentFromPreviousStep is a fraction of the step before, not a percentage",
        next_step="Marts compute the share from the counts themselves; do not read the vendor's number on these days.",
    )


def _cursor_check(table: str) -> VendorCheck:
    return VendorCheck(
        table=table,
        name="no_cursor_is_stored",
        description=(
            "The document says calls to pages are stable and that cursors quickly become invalid and must not be "
            "stored: no row keeps one."
        ),
        blocking=False,
        run=_no_cursor_is_stored,
    )


CHECKS: Final[Sequence[VendorCheck]] = (
    _cursor_check("sessions"),
    _cursor_check("visitors"),
    _cursor_check("events"),
    VendorCheck(
        table="sessions",
        name="duration_is_in_seconds",
        description="The document gives duration without a unit, the wire sends seconds: end - start says so by day.",
        blocking=True,
        run=_duration_is_in_seconds,
    ),
    VendorCheck(
        table="sessions",
        name="country_is_iso3166",
        description="The document calls it a country code and names no standard, the wire sends ISO 3166-1 codes.",
        blocking=False,
        run=_country_is_iso3166,
    ),
    VendorCheck(
        table="funnels",
        name="step_percent_is_percent",
        description="The document says percent in one name and rate in another, the wire sends a percentage per step.",
        blocking=False,
        run=_step_percent_is_percent,
    ),
)
"""duration_is_in_seconds blocks, because its column is taken as seconds; the others warn."""

TRUTHS: Final[Sequence[Truth]] = (
    Truth(
        table="events",
        name="events_are_of_landed_sessions",
        description="Each event names a session of smartlook/sessions, of its own UTC day or the one before.",
        reads=("smartlook/sessions", "smartlook/events"),
        blocking=False,
        # A session lasts an hour at most: an event later than that in its day is of a session of the same day.
        sql="""
            SELECT events.day, count(*) AS checked, count(*) FILTER (sessions.session_id IS NULL) AS broken
            FROM smartlook.events AS events
            LEFT JOIN (SELECT DISTINCT session_id FROM smartlook.sessions) AS sessions USING (session_id)
            WHERE events.session_id IS NOT NULL AND events.started_at >= events.day + INTERVAL 1 hour
            GROUP BY events.day
        """,
        fault="the event is of a session that is not landed",
        next_step="Materialise smartlook/sessions of the day again; until then these events count without a session.",
    ),
    Truth(
        table="event_daily",
        name="histogram_covers_the_sample",
        description="No event of the sampled visitors occurred more often than the event's own histogram says.",
        reads=("smartlook/events", "smartlook/event_daily"),
        blocking=False,
        sql="""
            WITH sampled AS (
                SELECT day, event_name, count(*) AS occurrences FROM smartlook.events
                WHERE event_name IS NOT NULL GROUP BY ALL
            ),
            told AS (
                SELECT day, event_name, sum(occurrence_count) AS occurrences FROM smartlook.event_daily GROUP BY ALL
            )
            SELECT day, count(*) AS checked, count(*) FILTER (sampled.occurrences > told.occurrences) AS broken
            FROM told JOIN sampled USING (day, event_name) GROUP BY day
        """,
        fault="the histogram of the event holds fewer occurrences than the sampled visitors alone had",
        next_step="Materialise smartlook/event_daily of the day again: the vendor counts late, the newest answer wins.",
    ),
)
"""Both warn: events are a sample and histograms another answer, so each may be a little behind."""
