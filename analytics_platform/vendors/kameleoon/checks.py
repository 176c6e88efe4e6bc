"""What the shape of Kameleoon's tables cannot say by itself: checks only this vendor needs.

Belongs here: named checks on one table's frame. Does not belong here: keys, types, ranges, row floors and drift, which
follow from the table's declaration (`core.checks`).

Source: MARTS §2 (a visit is rejected beyond 120 minutes) and §3.3; contract Kameleoon B5 (a visitor's last 25 visits).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from analytics_platform.core.truths import Truth
from analytics_platform.core.vendor_checks import Finding, VendorCheck, finding

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CHECKS", "TRUTHS"]

# Naive, as a lake TIMESTAMP is. Seconds would lie in 1970, microseconds far beyond 2100; replayed logs are of the
# nineties.
_EARLIEST: Final = datetime(1990, 1, 1)  # noqa: DTZ001
_LATEST: Final = datetime(2100, 1, 1)  # noqa: DTZ001

_LONGEST_VISIT_SECONDS: Final = 120 * 60


def _times_are_milliseconds(frame: pd.DataFrame, *, columns: Sequence[str]) -> Finding:
    outside = [(frame[name] < _EARLIEST) | (frame[name] >= _LATEST) for name in columns]
    broken = outside[0]
    for other in outside[1:]:
        broken = broken | other
    return finding(
        frame,
        broken,
        fault=f"{' or '.join(columns)}, read as milliseconds, does not lie between 1990 and 2100",
        next_step=(
            "The vendor changed the unit: change the expression in tables.py and run `analytics-platform "
            "replay-landing`, it costs no request. Until then the days stay out of the marts."
        ),
    )


def _visits_are_within_two_hours(frame: pd.DataFrame) -> Finding:
    return finding(
        frame,
        frame["duration_seconds"] > _LONGEST_VISIT_SECONDS,
        fault="the visit is longer than the 120 minutes beyond which the vendor says it rejects visits",
        next_step=(
            "Marts keep such visits as they are. Look at their page times: a tab left open or a bot that the vendor "
            "did not filter raises the mean duration."
        ),
    )


def _visit_list_is_not_truncated(frame: pd.DataFrame) -> Finding:
    truncated = frame["possibly_truncated"].astype("boolean").fillna(value=False)
    return finding(
        frame,
        truncated,
        fault="the visitor's answer held 25 visits, its most, so older visits may be missing",
        next_step=(
            "Nothing can be asked again: the vendor does not page. Load days soon after they end, and read counts of "
            "visits as a lower bound on these days."
        ),
        metrics={"visitors_truncated": int(frame.loc[truncated.astype(bool), "visitor_code"].nunique())},
    )


def _milliseconds_check(table: str, *columns: str) -> VendorCheck:
    return VendorCheck(
        table=table,
        name="times_are_milliseconds",
        description=(
            "The document gives times as bare numbers without a unit, the wire sends epoch milliseconds: other units "
            "would put rows on wrong days."
        ),
        blocking=True,
        run=partial(_times_are_milliseconds, columns=columns),
    )


CHECKS: Final[Sequence[VendorCheck]] = (
    _milliseconds_check("visits", "started_at", "last_event_at"),
    _milliseconds_check("visit_pages", "viewed_at"),
    _milliseconds_check("exposures", "exposed_at"),
    _milliseconds_check("conversions", "converted_at"),
    VendorCheck(
        table="visits",
        name="visits_are_within_two_hours",
        description=(
            "The document says a visit over 120 minutes is rejected, nothing on the wire says whether that happened "
            "before the visit was handed out."
        ),
        blocking=False,
        run=_visits_are_within_two_hours,
    ),
    VendorCheck(
        table="visits",
        name="visit_list_is_not_truncated",
        description=(
            "The document lets a caller ask for any number of previous visits, the vendor's own clients know 25 as "
            "the most, and the wire does not say that it stopped."
        ),
        blocking=False,
        run=_visit_list_is_not_truncated,
    ),
)
"""Wrong instants make wrong marts and block; the others warn."""

TRUTHS: Final[Sequence[Truth]] = tuple(
    Truth(
        table=table,
        name=f"listed_{what}_are_landed",
        description=f"A visit has as many rows in kameleoon/{table} as it had {what}, and no row is without its visit.",
        reads=("kameleoon/visits", f"kameleoon/{table}"),
        blocking=True,
        sql=f"""
            WITH listed AS (
                SELECT day, visitor_code, visit_started_at AS started_at, count(*) AS rows
                FROM kameleoon.{table} GROUP BY ALL
            )
            SELECT
                day, count(*) AS checked,
                count(*) FILTER (coalesce(visits.{count}, 0) <> coalesce(listed.rows, 0)) AS broken
            FROM kameleoon.visits AS visits FULL JOIN listed USING (day, visitor_code, started_at) GROUP BY day
        """,
        fault=f"the visit's {what} and its landed rows differ",
        next_step=(
            "Run `analytics-platform replay-landing` for the days, it costs no request; if it stays, a column of "
            "tables.py is wrong."
        ),
    )
    for table, what, count in (
        ("visit_pages", "pages", "page_count"),
        ("exposures", "exposures", "exposure_count"),
        ("conversions", "conversions", "conversion_count"),
    )
)
"""All block: a visit and its lists are decoded from one answer, so a difference is ours and counts would be wrong."""
