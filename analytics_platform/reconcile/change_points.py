"""Where the ratio of two daily counts changes its level, and which of the changes are breaks.

Belongs here: the arithmetic, on plain sequences. Does not belong here: frames (`frames`), vendors, thresholds of
statuses that need no segmentation (SQL).

The model: on day t one vendor counts v(t) where the anchor counts a(t), and v(t) is Poisson-like around r·a(t) with one
ratio r between two change points. The cost of a segment is its Poisson deviance divided by the series' own dispersion
(page views come in clumps, sessions that are a thinned copy of the anchor's scatter less than Poisson), so a day of 30
sessions weighs less than a day of 3,000 and no day needs a logarithm of zero. The best segmentation is found exactly by
dynamic programming (Jackson et al. 2005, "An algorithm for optimal partitioning of data on an interval"); a change
costs 3·ln(n) as in the modified BIC (Zhang & Siegmund 2007).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["BREAK_SHARE", "Change", "Segment", "breaks", "dispersion", "segments", "shared_levels"]

BREAK_SHARE: Final = 0.25
"""A break is a change of the ratio by more than this share of its old level (MARTS 4.6)."""

_MEDIAN_CHI_SQUARE: Final = 0.4549  # of one degree of freedom
_USUAL_SHARE: Final = 0.85
_MEAN_USUAL_CHI_SQUARE: Final = 0.521  # of what lies below the 85 % quantile
_LEAST_DISPERSION: Final = 0.6
_HALF: Final = 0.5  # added to counts before a logarithm: a day of nothing has a finite one

_CONFIRMING_DAYS: Final = 2
_CLEAR_ERRORS: Final = 3.5
_SHARED_VOLUME: Final = 0.8
_SHARED_GROUPS: Final = 0.75
_FEWEST_GROUPS: Final = 3
_SAME_LEVEL: Final = 0.08

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Segment:
    """Days `first` … `last` (positions, both inclusive) with one level: the vendor's total divided by the anchor's."""

    first: int
    last: int
    ratio: float

    @property
    def length(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True)
class Change:
    """A break: it begins on day `position`; the ratio went from `before` to `after` (both plain ratios)."""

    position: int
    before: float
    after: float

    @property
    def share(self) -> float:
        """Relative change: -0.4 is a fall by 40 %. Where there was nothing before, half a count a day stands for it."""
        return self.after / self.before - 1


def dispersion(values: Sequence[float] | Floats, anchors: Sequence[float] | Floats) -> float:
    """How much the counts scatter around a constant ratio, as a multiple of Poisson.

    From neighbouring pairs of days: their median, and the mean of all but the widest 15 %, whichever says more. Neither
    a change of level nor an odd day counts, but a heavy tail does (one reader of forty pages). At least 0.6: a series
    that happens to be smooth must not make every step significant.
    """
    v, a = _counts(values, anchors)
    if len(v) < 3:
        return 1.0
    first, second = slice(None, -1), slice(1, None)
    joint = (v[first] + v[second]) / (a[first] + a[second])
    pair = _deviance(v[first], a[first] * joint) + _deviance(v[second], a[second] * joint)
    usual = np.sort(pair)[: max(1, round(_USUAL_SHARE * len(pair)))]
    return max(
        float(np.median(pair)) / _MEDIAN_CHI_SQUARE, float(np.mean(usual)) / _MEAN_USUAL_CHI_SQUARE, _LEAST_DISPERSION
    )


def segments(
    values: Sequence[float] | Floats,
    anchors: Sequence[float] | Floats,
    *,
    shortest: int = 1,
    penalty: float | None = None,
    scatter: float | None = None,
) -> list[Segment]:
    """Cut the days into segments of one ratio each, at the least total cost.

    Args:
        values: the vendor's counts, day by day, at least 0.
        anchors: the anchor's counts of the same days, above 0.
        shortest: fewest days of a segment; a series shorter than that is one segment.
        penalty: what a change point costs, in deviances of one dispersion; 3·ln(n) unless told.
        scatter: the dispersion; of this series unless told.

    Raises:
        ValueError: unequal lengths, a negative count, or an anchor that is not positive.
    """
    v, a = _counts(values, anchors)
    count = len(v)
    if not count:
        return []
    scale = dispersion(v, a) if scatter is None else scatter
    price = 3 * math.log(max(count, 2)) if penalty is None else penalty
    v_sum, a_sum = np.concatenate(([0.0], np.cumsum(v))), np.concatenate(([0.0], np.cumsum(a)))
    least = max(1, min(shortest, count))
    best = np.full(count + 1, np.inf)
    best[0] = -price
    origin = np.zeros(count + 1, dtype=np.int64)
    for end in range(least, count + 1):
        begin = slice(None, end - least + 1)
        total_v, total_a = v_sum[end] - v_sum[begin], a_sum[end] - a_sum[begin]
        # -2·V·ln(V/A) is the part of the deviance that depends on where one cuts.
        safe = np.where(total_v > 0, total_v / total_a, 1.0)
        cost = best[begin] + price - 2 * total_v * np.log(safe) / scale
        origin[end] = int(np.argmin(cost))
        best[end] = cost[origin[end]]
    found: list[Segment] = []
    end = count
    while end:
        start = int(origin[end])
        found.append(Segment(start, end - 1, float((v_sum[end] - v_sum[start]) / (a_sum[end] - a_sum[start]))))
        end = start
    return found[::-1]


def breaks(
    values: Sequence[float] | Floats,
    anchors: Sequence[float] | Floats,
    *,
    share: float = BREAK_SHARE,
    training_days: int = 14,
    memory_days: int = 28,
) -> list[Change]:
    """The days on which the ratio left its baseline by more than `share` and stayed away for at least two days.

    After a break the baseline starts anew, so the same change is found once and the way back is a break of its own. One
    odd day is none, and neither is the last day of the series: nobody knows yet whether it stays. A change too small
    for a break, or on counts too small to tell it from chance, leaves the baseline as it is, so that two small steps
    can become one break.

    Args:
        values: the vendor's counts, day by day.
        anchors: the anchor's counts, above 0.
        share: relative change that makes a break.
        training_days: days before the first break can be found: less is no baseline.
        memory_days: days of the baseline that count, back from the change.
    """
    v, a = _counts(values, anchors)
    found: list[Change] = []
    scatter = max(dispersion(v, a), 1.0)
    cut = segments(v, a)
    baseline_start, odd = 0, set[int]()
    for segment, following in zip_longest(cut[1:], cut[2:]):
        start = segment.first
        usual = [day for day in range(max(baseline_start, start - memory_days), start) if day not in odd]
        usual = usual or list(range(baseline_start, start))
        before = _level(v, a, usual)
        if not _is_away(segment.ratio, before, share):
            continue
        last = _stays_until(segment, following, before, share)
        if last is None:
            odd.add(start)
            continue
        new = slice(start, last + 1)
        after = float(v[new].sum() / a[new].sum())
        if start >= training_days and _is_clear(v[usual].sum(), v[new].sum(), after / before, scatter):
            found.append(Change(start, before, after))
            baseline_start, odd = start, set()
    return found


def _stays_until(segment: Segment, following: Segment | None, before: float, share: float) -> int | None:
    """The last day of a new level of two days and more; None for one odd day (or the series' last, not known yet)."""
    if segment.length >= _CONFIRMING_DAYS:
        return segment.last
    if following is None or not _is_away(following.ratio, before, share):
        return None
    return following.last if (following.ratio > before) == (segment.ratio > before) else None


def _is_clear(before: float, after: float, factor: float, scatter: float) -> bool:
    """Whether the counts on both sides are enough to tell this factor from chance.

    The cut was chosen where chance looked most like a change, and below full acceptance the scatter of a lower level is
    wider than that of the level it was measured on: hence more than three standard errors, of no less than Poisson.
    """
    error = math.sqrt(scatter * (1 / max(before, 1.0) + 1 / max(after, 1.0)))
    return abs(math.log(max(factor, 1e-9))) >= _CLEAR_ERRORS * error


def shared_levels(values: Floats, anchors: Floats, *, shortest: int = 2) -> Floats:
    """The part of the ratios' ups and downs that all groups (countries, say) went through together.

    A consent banner changes one country, a tag that half works changes all of them on the same day. At each change of
    the total ratio the groups are asked: where at least 80 % of the volume and three quarters of the groups (of three
    and more) moved the same way and at least half as far, the change is shared.

    Args:
        values: days x groups, the vendor's counts.
        anchors: days x groups, the anchor's; a day's total is above 0.
        shortest: fewest days of a level.

    Returns:
        One factor a day: 1 at first, 0.6 from the day on which all groups fell by 40 %. A level that comes back to
        within 8 % of an earlier one is that level: the way back is never met exactly.
    """
    v, a = np.asarray(values, dtype=np.float64), np.asarray(anchors, dtype=np.float64)
    factors = np.ones(len(v))
    if v.ndim != 2 or v.shape != a.shape or v.shape[1] < _FEWEST_GROUPS:
        return factors
    cut = segments(v.sum(axis=1), a.sum(axis=1), shortest=shortest)
    known = [1.0]
    for before, after in pairwise(cut):
        factor = factors[before.last] * _shared_step(v, a, before, after)
        factor = next((level for level in known if abs(factor / level - 1) < _SAME_LEVEL), factor)
        known.append(factor)
        factors[after.first : after.last + 1] = factor
    return factors


def _shared_step(v: Floats, a: Floats, before: Segment, after: Segment) -> float:
    """The factor by which all groups moved between two segments of the total; 1 where they did not move together."""
    old, new = slice(before.first, before.last + 1), slice(after.first, after.last + 1)
    a_old, a_new = a[old].sum(axis=0), a[new].sum(axis=0)
    seen = (a_old > 0) & (a_new > 0)
    if int(seen.sum()) < _FEWEST_GROUPS:
        return 1.0
    steps = np.log((v[new].sum(axis=0)[seen] + _HALF) / (a_new[seen] + _HALF))
    steps -= np.log((v[old].sum(axis=0)[seen] + _HALF) / (a_old[seen] + _HALF))
    weights = np.minimum(a_old, a_new)[seen]
    total = math.log((after.ratio + 1e-9) / (before.ratio + 1e-9))
    moved = (np.sign(steps) == np.sign(total)) & (np.abs(steps) >= abs(total) / 2)
    if weights[moved].sum() < _SHARED_VOLUME * weights.sum() or moved.mean() < _SHARED_GROUPS:
        return 1.0
    order = np.argsort(steps, kind="stable")
    middle = int(np.searchsorted(np.cumsum(weights[order]), weights.sum() / 2))
    return float(np.exp(steps[order][middle]))


def _level(v: Floats, a: Floats, days: list[int]) -> float:
    """Median of the days' ratios: an odd day in it moves it little. Half a count stands for none at all."""
    middle = float(np.median(v[days] / a[days]))
    return middle if middle > 0 else _HALF / float(np.mean(a[days]))


def _is_away(ratio: float, before: float, share: float) -> bool:
    return abs(ratio / before - 1) > share


def _deviance(v: Floats, expected: Floats) -> Floats:
    """Poisson deviance of each count; nothing where nothing is expected."""
    safe = np.where((v > 0) & (expected > 0), v / np.where(expected > 0, expected, 1.0), 1.0)
    return np.asarray(2 * (v * np.log(safe) - (v - expected)), dtype=np.float64)


def _counts(values: Sequence[float] | Floats, anchors: Sequence[float] | Floats) -> tuple[Floats, Floats]:
    v, a = np.asarray(values, dtype=np.float64), np.asarray(anchors, dtype=np.float64)
    if v.shape != a.shape or v.ndim != 1:
        raise ValueError("values and anchors are two sequences of the same length")
    if len(v) and (float(v.min()) < 0 or float(a.min()) <= 0):
        raise ValueError("counts are not negative and an anchor's are above 0")
    return v, a
