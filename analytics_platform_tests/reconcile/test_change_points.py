"""Where a ratio changes: exact cases, properties, and how often planted breaks are found on the right day."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics_platform.reconcile.change_points import breaks, dispersion, segments, shared_levels

FLAT = [100.0] * 40


def counted(*levels: tuple[int, float]) -> list[float]:
    """Counts of (days, ratio) against an anchor of 100, without noise."""
    return [100 * ratio for days, ratio in levels for _ in range(days)]


def cost(values: list[float], anchors: list[float], cuts: tuple[int, ...], price: float) -> float:
    """Deviance of a segmentation, by the book: 2·Σ(v·ln(v/e) − (v − e)) plus the price of each change."""
    total = price * len(cuts)
    for first, last in itertools.pairwise((0, *cuts, len(values))):
        ratio = sum(values[first:last]) / sum(anchors[first:last])
        for v, a in zip(values[first:last], anchors[first:last], strict=True):
            total += 2 * ((v * math.log(v / (a * ratio)) if v else 0.0) - (v - a * ratio))
    return total


def test_a_break_is_found_once_with_its_day_and_its_way_back_is_another() -> None:
    found = breaks(counted((20, 0.8), (8, 0.4), (12, 0.8)), FLAT)
    assert [change.position for change in found] == [20, 28]
    assert [round(change.share, 2) for change in found] == [-0.5, 1.0]


def test_the_tag_gone_altogether_is_a_break_and_so_is_its_return() -> None:
    found = breaks(counted((20, 0.8), (3, 0.0), (17, 0.8)), FLAT)
    assert [change.position for change in found] == [20, 23]
    assert found[0].share > -1.01
    assert found[0].share < -0.99


@pytest.mark.parametrize(
    "values",
    [
        counted((20, 0.8), (1, 2.4), (19, 0.8)),
        counted((20, 0.8), (1, 0.0), (19, 0.8)),
        counted((20, 0.8), (20, 0.65)),
        counted((39, 0.8), (1, 0.3)),
        counted((5, 0.8), (35, 0.4)),
    ],
    ids=["one odd day up", "one odd day down", "less than a quarter", "not sustained yet", "no baseline yet"],
)
def test_what_is_no_break(values: list[float]) -> None:
    assert breaks(values, FLAT) == []


def test_a_break_in_the_first_two_weeks_teaches_the_baseline_of_the_next() -> None:
    assert [c.position for c in breaks(counted((5, 0.8), (15, 0.4), (20, 0.8)), FLAT)] == [20]


def test_two_small_steps_become_one_break() -> None:
    values, anchors = counted((20, 0.8), (8, 0.66), (12, 0.54)), [10 * a for a in FLAT]
    assert [c.position for c in breaks([10 * v for v in values], anchors)] == [28]


def test_an_odd_day_beside_a_break_does_not_move_it() -> None:
    values = counted((18, 0.8), (1, 2.0), (1, 0.8), (20, 0.4))
    assert [c.position for c in breaks(values, FLAT)] == [20]


@pytest.mark.parametrize(("values", "anchors"), [([1.0], [1.0, 2.0]), ([-1.0], [1.0]), ([1.0], [0.0])])
def test_counts_that_are_none_are_refused(values: list[float], anchors: list[float]) -> None:
    with pytest.raises(ValueError, match=r"same length|not negative"):
        segments(values, anchors)


def test_nothing_is_nothing() -> None:
    assert segments([], []) == []
    assert breaks([], []) == []
    assert dispersion([1.0], [1.0]) == 1.0


counts = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 60)), min_size=1, max_size=9)


@settings(max_examples=150, deadline=None)
@given(days=counts, price=st.floats(0.1, 20))
def test_no_other_segmentation_costs_less(days: list[tuple[int, int]], price: float) -> None:
    values, anchors = [float(v) for v, _ in days], [float(a) for _, a in days]
    found = segments(values, anchors, penalty=price, scatter=1.0)
    mine = cost(values, anchors, tuple(segment.first for segment in found[1:]), price)
    every = (cuts for size in range(len(days)) for cuts in itertools.combinations(range(1, len(days)), size))
    assert mine <= min(cost(values, anchors, cuts, price) for cuts in every) + 1e-6


@settings(max_examples=150, deadline=None)
@given(days=counts, shortest=st.integers(1, 6))
def test_segments_cover_every_day_once_and_keep_the_totals(days: list[tuple[int, int]], shortest: int) -> None:
    values, anchors = [float(v) for v, _ in days], [float(a) for _, a in days]
    found = segments(values, anchors, shortest=shortest)
    assert [day for s in found for day in range(s.first, s.last + 1)] == list(range(len(days)))
    assert all(s.length >= min(shortest, len(days)) for s in found)
    for s in found:
        assert s.ratio * sum(anchors[s.first : s.last + 1]) == pytest.approx(sum(values[s.first : s.last + 1]))


@settings(max_examples=60, deadline=None)
@given(days=counts, factor=st.sampled_from([0.5, 2.0, 4.0]))
def test_a_larger_anchor_for_the_same_counts_changes_no_cut(days: list[tuple[int, int]], factor: float) -> None:
    values, anchors = [float(v) for v, _ in days], [float(a) for _, a in days]
    plain = segments(values, anchors, penalty=5, scatter=1.0)
    scaled = segments(values, [a * factor for a in anchors], penalty=5, scatter=1.0)
    assert [s.first for s in plain] == [s.first for s in scaled]


@pytest.mark.parametrize(("visits", "lost"), [(100, 0.40), (150, 0.40), (300, 0.35), (150, 0.60)])
def test_planted_breaks_are_found_on_their_day(visits: int, lost: float) -> None:
    """Sixty worlds of 60 days: a stretch that loses some visitors, an odd day, and consent as it is: by chance."""
    right = found_in_all = planted = 0
    for seed in range(60):
        rng = np.random.default_rng([seed, visits])
        anchors = np.maximum(rng.poisson(visits, 60), 1)
        start = int(rng.integers(18, 30))
        end = start + int(rng.integers(4, 15))
        chance = np.full(60, 0.8)
        chance[start:end] *= 1 - lost
        values = rng.binomial(anchors, chance)
        values[int(rng.integers(48, 58))] += visits // 2
        found = {change.position for change in breaks(values.astype(float), anchors.astype(float))}
        right += len(found & {start, end})
        found_in_all += len(found)
        planted += 2
    assert right / planted >= 0.95
    assert right / found_in_all >= 0.95


def test_what_all_countries_went_through_is_shared_and_one_country_is_not() -> None:
    anchors = np.tile([100.0, 60.0, 40.0, 30.0], (30, 1))
    values = anchors * 0.8
    values[10:, 1] *= 0.4
    assert shared_levels(values, anchors).tolist() == [1.0] * 30
    values[20:25] *= 0.5
    levels = shared_levels(values, anchors)
    assert levels[:20].tolist() == [1.0] * 20
    assert levels[20:25] == pytest.approx([0.5] * 5, rel=0.02)
    assert levels[25:].tolist() == [1.0] * 5


def test_two_countries_are_too_few_to_call_anything_shared() -> None:
    anchors = np.tile([100.0, 100.0], (20, 1))
    values = anchors * 0.8
    values[10:] *= 0.5
    assert shared_levels(values, anchors).tolist() == [1.0] * 20
