"""What a forecast says from the shape of an API, from history, and from nothing."""

from __future__ import annotations

import math
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_platform.core.forecast import Certainty, Forecast, from_samples, pages_of, total

MONDAY = date(2026, 10, 5)


def days(count: int, start: date = MONDAY) -> list[date]:
    return [start + timedelta(days=n) for n in range(count)]


def test_a_sum_is_as_sure_as_its_least_sure_part() -> None:
    seen = from_samples(dict.fromkeys(days(14), 100.0), days(7, MONDAY + timedelta(days=14)))
    assert (Forecast.exactly(2) + seen).certainty is Certainty.HISTORY
    assert (seen + Forecast.unknown(least=1)).certainty is Certainty.UNKNOWN
    assert total([]) == Forecast.exactly(0)


def test_a_weekday_is_expected_as_that_weekday_was() -> None:
    quiet_weekends = {day: 20.0 if day.weekday() >= 5 else 100.0 for day in days(28)}
    week = from_samples(quiet_weekends, days(7, MONDAY + timedelta(days=28)))
    assert week.likely == pytest.approx(5 * 100 + 2 * 20)
    assert week.low == week.high == week.likely
    assert week.days_of_history == 28


def test_days_that_are_known_are_not_guessed() -> None:
    samples = {day: float(n) for n, day in enumerate(days(10))}
    assert from_samples(samples, days(3)) == Forecast.exactly(0 + 1 + 2)


def test_two_days_are_no_history() -> None:
    found = from_samples(dict.fromkeys(days(2), 50.0), days(3))
    assert found.certainty is Certainty.UNKNOWN
    assert (found.low, found.likely) == (100.0, 100.0)
    assert math.isinf(found.high)


def test_a_full_last_page_costs_one_more_where_the_end_is_not_told() -> None:
    assert pages_of(Forecast.exactly(200), 100).likely == 2
    assert pages_of(Forecast.exactly(200), 100, asks_past_the_end=True).likely == 3
    assert pages_of(Forecast.exactly(0), 100).likely == 1


@given(
    st.lists(st.floats(0, 1e6), min_size=3, max_size=40),
    st.integers(1, 60),
    st.integers(1, 200),
)
def test_low_likely_and_high_keep_their_order(values: list[float], count: int, page_rows: int) -> None:
    samples = dict(zip(days(len(values)), values, strict=True))
    rows = from_samples(samples, days(count, MONDAY + timedelta(days=20)))
    for forecast in (rows, pages_of(rows, page_rows), rows.times(0.2) + Forecast.unknown(least=2)):
        assert 0 <= forecast.low <= forecast.likely <= forecast.high
