"""Counting for findings: rows, days, votes; NULL never counts as broken."""

from __future__ import annotations

from datetime import date

import pandas as pd
import pytest
import pytz

from analytics_platform.core.country_codes import COUNTRY_CODES
from analytics_platform.core.vendor_checks import finding, unit_votes

MONDAY, TUESDAY = date(2026, 10, 5), date(2026, 10, 6)


def frame(*days: date) -> pd.DataFrame:
    return pd.DataFrame({"_day": pd.to_datetime(pd.Series(days, dtype="object"))})


def test_a_finding_counts_rows_and_days_and_says_what_to_do() -> None:
    found = finding(
        frame(MONDAY, TUESDAY, TUESDAY), pd.Series([False, True, True]), fault="b is wrong", next_step="Do c."
    )
    assert not found.passed
    assert found.failing_days == (TUESDAY,)
    assert found.description == "2 of 3 rows on 2026-10-06: b is wrong. Do c."
    assert found.metrics == {"rows": 3, "failing_rows": 2, "failing_days": 1}


@pytest.mark.parametrize("broken", [[None, False], [pd.NA, pd.NA]])
def test_unknown_is_not_broken(broken: list[object]) -> None:
    found = finding(frame(MONDAY, TUESDAY), pd.Series(broken, dtype="boolean"), fault="x", next_step="y.")
    assert found.passed
    assert found.description == "Holds for all 2 rows."


def test_each_day_votes_and_silent_days_are_left_out() -> None:
    days = frame(MONDAY, MONDAY, MONDAY, TUESDAY, date(2026, 10, 7))["_day"]
    votes = unit_votes(days, pd.Series(["s", "ms", "ms", None, "s"]))
    assert [(v.day, dict(v.votes), v.unit, v.is_mixed) for v in votes] == [
        (MONDAY, {"ms": 2, "s": 1}, "ms", True),
        (date(2026, 10, 7), {"s": 1}, "s", False),
    ]


def test_no_rows_no_votes() -> None:
    empty = frame()
    assert list(unit_votes(empty["_day"], pd.Series([], dtype="object"))) == []
    assert finding(empty, pd.Series([], dtype="bool"), fault="x", next_step="y.").passed


def test_country_codes_are_those_of_the_time_zone_database() -> None:
    assert frozenset(pytz.country_names) | {"XK"} == COUNTRY_CODES
