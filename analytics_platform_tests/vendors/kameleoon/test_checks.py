"""Kameleoon's own checks: what holds and what breaks them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import pytest

from analytics_platform_tests.vendors.lake_frames import Case, checks_of, judge

GOOD = datetime(2026, 10, 5, 12)  # noqa: DTZ001  (a lake TIMESTAMP is naive)
REPLAYED = datetime(1995, 7, 1)  # noqa: DTZ001
MICROSECONDS = datetime(9999, 10, 5)  # noqa: DTZ001
SECONDS = datetime(1970, 1, 21)  # noqa: DTZ001


def times(table: str, column: str, *, beside: Mapping[str, object] | None = None) -> Case:
    return Case(
        table=table,
        check="times_are_milliseconds",
        holds=[{column: GOOD, **(beside or {})}, {column: REPLAYED}, {column: None}],
        breaks=[{column: MICROSECONDS, **(beside or {})}, {column: SECONDS, **(beside or {})}],
        metrics={"failing_rows": 2},
    )


CASES = [
    times("visits", "started_at", beside={"last_event_at": GOOD}),
    times("visits", "last_event_at", beside={"started_at": GOOD}),
    times("visit_pages", "viewed_at"),
    times("exposures", "exposed_at"),
    times("conversions", "converted_at"),
    Case(
        table="visits",
        check="visits_are_within_two_hours",
        holds=[{"duration_seconds": 7200.0}, {"duration_seconds": None}],
        breaks=[{"duration_seconds": 7200.5}],
        metrics={"failing_rows": 1},
    ),
    Case(
        table="visits",
        check="visit_list_is_not_truncated",
        holds=[{"possibly_truncated": False}, {"possibly_truncated": None}],
        breaks=[{"possibly_truncated": True, "visitor_code": "a"}, {"possibly_truncated": True, "visitor_code": "a"}],
        metrics={"failing_rows": 2, "visitors_truncated": 1},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_check_finds_what_it_is_for_and_tells_no_value(case: Case) -> None:
    judge("kameleoon", case)


def test_every_check_has_a_case() -> None:
    assert {(c.table, c.name) for c in checks_of("kameleoon")} == {(c.table, c.check) for c in CASES}


def test_only_wrong_instants_keep_days_from_the_marts() -> None:
    assert {c.name for c in checks_of("kameleoon") if c.blocking} == {"times_are_milliseconds"}
