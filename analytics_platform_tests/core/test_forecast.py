"""What a forecast says from the shape of an API, from history, and from nothing."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_platform.core.forecast import (
    Certainty,
    Forecast,
    Outlook,
    distinct_from,
    from_samples,
    nearest,
    pages_of,
    rows_like,
    total,
)

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


# ---------------------------------------------------------------------------------------------------- noise and growth

WEEKDAY = (1.1, 1.12, 1.1, 1.05, 0.95, 0.7, 0.75)


def visits(chance: random.Random, day: date, level: float) -> float:
    mean = level * WEEKDAY[day.weekday()]
    return float(max(0, round(chance.gauss(mean, math.sqrt(mean)))))


def test_the_range_holds_what_then_comes_as_often_as_it_says() -> None:
    chance = random.Random(11)
    held, off = 0, []
    for _ in range(120):
        seen = {day: visits(chance, day, 120) for day in days(28)}
        asked = days(chance.choice((3, 10, 30, 90)), MONDAY + timedelta(days=28))
        came = sum(visits(chance, day, 120) for day in asked)
        told = from_samples(seen, asked)
        held += told.low <= came <= told.high
        off.append(abs(told.likely / came - 1))
    # Two deviations are 95 of 100; and a range that is never left would say nothing.
    assert 0.9 * 120 <= held < 120
    assert sum(off) / len(off) < 0.04


def test_growth_beyond_doubt_is_followed_but_not_for_ever() -> None:
    chance = random.Random(5)
    seen = {day: visits(chance, day, 400 * 1.004**n) for n, day in enumerate(days(56))}
    asked = days(28, MONDAY + timedelta(days=56))
    came = sum(400 * 1.004 ** (56 + n) * WEEKDAY[day.weekday()] for n, day in enumerate(asked))
    assert from_samples(seen, asked).likely == pytest.approx(came, rel=0.05)
    before = days(28, MONDAY - timedelta(days=28))
    assert from_samples(seen, before).likely < from_samples(seen, asked).likely
    years = from_samples(seen, [MONDAY + timedelta(days=3000)])
    assert years.likely < 1.5 * max(seen.values())


def test_a_month_of_noise_is_no_growth() -> None:
    for seed in range(40):
        chance = random.Random(seed)
        seen = {day: visits(chance, day, 70) for day in days(28)}
        quarter = days(90, MONDAY + timedelta(days=28))
        assert from_samples(seen, quarter).likely == pytest.approx(sum(seen.values()) / 28 * 90, rel=0.02)


def test_a_scrapers_day_is_no_audience() -> None:
    chance = random.Random(3)
    seen = {day: visits(chance, day, 100) for day in days(28)}
    asked = days(28, MONDAY + timedelta(days=28))
    plain = from_samples(seen, asked)
    burst = from_samples(seen | {MONDAY + timedelta(days=9): 900.0}, asked)
    assert burst.likely == pytest.approx(plain.likely, rel=0.03)


def test_the_nearest_days_tell_most() -> None:
    known = [*days(60), *days(30, MONDAY + timedelta(days=200))]
    asked = days(7, MONDAY + timedelta(days=58))
    assert nearest(known, asked, 5) == [*days(5, MONDAY + timedelta(days=53)), *days(2, MONDAY + timedelta(days=58))]
    assert nearest(known, days(7, MONDAY + timedelta(days=190)), 3) == days(3, MONDAY + timedelta(days=200))
    assert nearest([], asked, 5) == []


# ------------------------------------------------------------------------------------------------------------ visitors


def test_the_same_few_visitors_stay_few() -> None:
    seen = {day: [f"regular-{n}" for n in range(20)] for day in days(14)}
    assert distinct_from(seen, days(90, MONDAY + timedelta(days=14))).likely == pytest.approx(20)
    everybody_new = {day: [f"{day}-{n}" for n in range(20)] for day in days(14)}
    assert distinct_from(everybody_new, days(90, MONDAY + timedelta(days=14))).likely == pytest.approx(20 * 90)


def test_returning_visitors_are_counted_once_however_long_the_range_is() -> None:
    """A site with a crowd that comes back within weeks: days hold many of the same, months many new ones."""
    chance = random.Random(2)
    crowd: list[str] = []
    seen: dict[date, list[str]] = {}
    for day in days(200):
        seen[day] = []
        for number in range(60):
            comes_back = crowd and chance.random() < 0.5
            visitor = chance.choice(crowd[-900:]) if comes_back else f"{day}-{number}"
            seen[day].append(visitor)
            crowd.append(visitor)
    history = {day: seen[day] for day in days(28, MONDAY + timedelta(days=60))}
    for length in (3, 14, 28, 90):
        asked = days(length, MONDAY + timedelta(days=88))
        truth = len({visitor for day in asked for visitor in seen[day]})
        told = distinct_from(history, asked)
        assert told.likely == pytest.approx(truth, rel=0.1)
        assert told.low <= truth <= told.high
    # The share of different visitors among a month's visits says too little of three days.
    month = len({visitor for day in history for visitor in seen[day]}) / sum(map(len, history.values()))
    three = days(3, MONDAY + timedelta(days=88))
    assert month * 180 < 0.8 * len({visitor for day in three for visitor in seen[day]})


def test_visitors_of_landed_days_are_counted() -> None:
    seen = {day: ["a", "b"] if n % 2 else ["c"] for n, day in enumerate(days(4))}
    assert distinct_from(seen, days(4)) == Forecast.exactly(3)
    assert distinct_from({MONDAY: ["a"]}, days(3)).certainty is Certainty.UNKNOWN
    assert distinct_from({}, days(3)).low == 0


@given(
    st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=6), min_size=3, max_size=12),
    st.integers(1, 12),
)
def test_the_mean_of_all_windows_is_that_of_each_window(stretch: list[list[str]], length: int) -> None:
    length = min(length, len(stretch))
    seen = dict(zip(days(len(stretch)), stretch, strict=True))
    asked = days(length, MONDAY + timedelta(days=700))
    windows = [len(set().union(*stretch[n : n + length])) for n in range(len(stretch) - length + 1)]
    told = distinct_from(seen, asked)
    usual = sum(map(len, stretch)) / len(stretch) * length
    if told.certainty is Certainty.HISTORY:
        level = from_samples({day: float(len(v)) for day, v in seen.items()}, asked).likely / usual
        assert told.likely == pytest.approx(level * sum(windows) / len(windows))


def test_a_sample_scatters_by_its_draw() -> None:
    tenth = Forecast.exactly(1000).sampled(0.1)
    assert tenth.likely == 100
    assert (tenth.low, tenth.high) == pytest.approx((81.0, 119.0), abs=0.1)
    assert Forecast.exactly(1000).sampled(1.0) == Forecast.exactly(1000)
    assert Forecast.unknown(least=10, most=1000).sampled(0.1) == Forecast.unknown(least=1, most=100)


# ----------------------------------------------------------------------------------------------------------- no history


@dataclass
class Landed:
    """A history that has rows of some tables."""

    tables: dict[str, float]

    def rows(self, table: str, asked: Sequence[date]) -> Forecast:
        if table not in self.tables:
            return Forecast.unknown(least=0)
        return from_samples(dict.fromkeys(days(28, MONDAY - timedelta(days=28)), self.tables[table]), asked)


def told(tables: dict[str, float]) -> Forecast:
    outlook = Outlook(
        site_key="shop",
        ids={},
        timezone="UTC",
        first_day=MONDAY,
        last_day=MONDAY + timedelta(days=9),
        now=cast(Any, None),
        lake=cast(Any, None),
        history=cast(Any, Landed(tables)),
    )
    return rows_like(outlook, "acme/visits", ["other/visits", "third/visits"])


def test_own_rows_come_before_anothers_and_those_before_a_stated_range() -> None:
    own = told({"acme/visits": 50, "other/visits": 70})
    assert (own.likely, own.certainty) == (500, Certainty.HISTORY)
    related = told({"third/visits": 70})
    assert (related.low, related.likely, related.high) == (350, 700, 1400)
    assert related.certainty is Certainty.RELATED
    stated = told({})
    assert (stated.low, stated.high, stated.certainty) == (100, 100_000, Certainty.UNKNOWN)
    assert str(stated) == "100 to 100,000"
    assert str(Forecast.unknown(least=7)) == "at least 7"
    assert str(related) == "about 700 (350 to 1,400)"
