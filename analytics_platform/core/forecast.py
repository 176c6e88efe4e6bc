"""What an extraction will cost in requests, and how sure that is: the values and arithmetic a stream forecasts with.

Belongs here: forecasts, adding them, turning rows into pages, and what a stream may look at when it forecasts. Does not
belong here: a vendor's calls (`vendors/<v>/streams.py`), hours and windows (`core.planning`), sending anything.

A forecast is three numbers. Where the API's shape alone decides they are equal (`Certainty.EXACT`); where landed
history decides they are a likely value with about two standard deviations on each side; where only another vendor's
rows of the same visits are landed the range is twice as wide as those are; and where nothing is, the range is stated:
what a site may have (`STATED_VISITS_A_DAY`), with the least of it as the likely value.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import IntEnum
from statistics import fmean, median
from typing import Final, Protocol

from analytics_platform.core.lake_reader import LakeReader

__all__ = [
    "STATED_VISITS_A_DAY",
    "Alternative",
    "Certainty",
    "Forecast",
    "Forecaster",
    "History",
    "Outlook",
    "distinct_from",
    "from_samples",
    "nearest",
    "pages_of",
    "rows_like",
    "total",
    "visits_on",
]

STATED_VISITS_A_DAY: Final = (10.0, 10_000.0)
"""Visits a day that are taken as possible of a site nobody knows anything about: a small shop's to a large one's."""

_DEVIATIONS: Final = 2.0
_LEAST_SAMPLES: Final = 3
_LEAST_WEEKDAY_SAMPLES: Final = 2
_LEAST_SAMPLES_TO_CLIP: Final = 14
_LEAST_SAMPLES_TO_GROW: Final = 42
_CLIP_DEVIATIONS: Final = 4.0
_MAD_TO_DEVIATION: Final = 1.4826
_SURE_OF_GROWTH: Final = 4.0
"""Standard errors from which a slope is taken for growth: less, and weeks of noise would be drawn out over months."""

_LIKE_FACTOR: Final = 2.0
"""Two recorders of one site differ by their consent, blockers and caps: half to twice the other one's rows."""

_BEYOND_HISTORY: Final = 0.1
"""Share of the part of a distinct count that lies beyond the history's length, as its two deviations."""


class Certainty(IntEnum):
    """Where a forecast comes from; a sum is as sure as its least sure part."""

    EXACT = 0
    HISTORY = 1
    RELATED = 2
    UNKNOWN = 3


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Requests (or rows) that will be needed: `low` ≤ `likely` ≤ `high`; `high` is infinite where nobody can say."""

    likely: float
    low: float
    high: float
    certainty: Certainty
    days_of_history: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.likely <= self.high:
            raise ValueError(f"a forecast runs from low to high: {self.low}, {self.likely}, {self.high}")

    def __str__(self) -> str:
        """`42`, `about 42 (38 to 46)`, `9 to 9,000` where nothing is known, or `at least 7`."""
        if math.isinf(self.high):
            return f"at least {math.ceil(self.low):,}"
        low, likely, high = (math.ceil(value) for value in (self.low, self.likely, self.high))
        if low == high:
            return f"{likely:,}"
        spread = f"{low:,} to {high:,}"
        # The least of a wide range is no estimate.
        return spread if self.certainty is Certainty.UNKNOWN else f"about {likely:,} ({spread})"

    @classmethod
    def exactly(cls, number: float) -> Forecast:
        """The API's own shape says so."""
        return cls(likely=number, low=number, high=number, certainty=Certainty.EXACT)

    @classmethod
    def unknown(cls, *, least: float, most: float = math.inf) -> Forecast:
        """Nothing is known but the bounds."""
        return cls(likely=least, low=least, high=most, certainty=Certainty.UNKNOWN)

    def __add__(self, other: Forecast) -> Forecast:
        return Forecast(
            likely=self.likely + other.likely,
            low=self.low + other.low,
            high=self.high + other.high,
            certainty=max(self.certainty, other.certainty),
            days_of_history=max(self.days_of_history, other.days_of_history),
        )

    def times(self, factor: float) -> Forecast:
        """As much of it as a sample takes, or so many times as often."""
        return self.mapped(lambda number: number * factor)

    def sampled(self, share: float) -> Forecast:
        """A sample drawn by chance: so much of it, and the draw's own scatter."""
        if not 0 < share < 1 or self.certainty is Certainty.UNKNOWN:
            return self.times(share)
        part = self.times(share)
        draw = _DEVIATIONS * math.sqrt(self.likely * share * (1 - share))
        return replace(
            part,
            low=max(0.0, part.likely - math.hypot(part.likely - part.low, draw)),
            high=part.likely + math.hypot(part.high - part.likely, draw),
        )

    def mapped(self, change: Callable[[float], float]) -> Forecast:
        """The same certainty of other numbers; `change` must not decrease and is not asked about infinity."""
        low, likely = change(self.low), change(self.likely)
        high = self.high if math.isinf(self.high) else change(self.high)
        return Forecast(
            likely=likely, low=low, high=high, certainty=self.certainty, days_of_history=self.days_of_history
        )


def total(parts: Iterable[Forecast]) -> Forecast:
    """The sum; nothing costs nothing, exactly."""
    found = Forecast.exactly(0)
    for part in parts:
        found = found + part
    return found


def pages_of(rows: Forecast, page_rows: int, *, asks_past_the_end: bool = False) -> Forecast:
    """Requests of one paged call.

    Args:
        rows: what the call will find.
        page_rows: rows of a full page.
        asks_past_the_end: the API gives no total and no link, so a full last page is followed by an empty one.
    """

    def pages(number: float) -> float:
        return math.floor(number / page_rows) + 1 if asks_past_the_end else max(1, math.ceil(number / page_rows))

    return rows.mapped(pages)


def from_samples(samples: Mapping[date, float], days: Sequence[date]) -> Forecast:
    """The sum over `days` of something seen on other days: the mean of the weekday where it was seen twice, else of all
    days, grown as it has grown where that is beyond doubt, with the scatter around it.

    Days that are samples themselves are taken as they were. Fewer than three samples say nothing.
    """
    known = [samples[day] for day in days if day in samples]
    open_days = [day for day in days if day not in samples]
    if not open_days:
        return Forecast.exactly(sum(known))
    if len(samples) < _LEAST_SAMPLES:
        return Forecast.unknown(least=sum(known))
    course = _Course.of(samples)
    likely = sum(known) + sum(course.expected(day) for day in open_days)
    # Errors of single days cancel out; those of the means and of the growth do not.
    spread = _DEVIATIONS * math.hypot(
        course.scatter * math.sqrt(len(open_days) + course.doubt_of_means(open_days)),
        sum(course.doubt_of_growth(day) for day in open_days),
    )
    return Forecast(
        likely=likely,
        low=max(sum(known), likely - spread),
        high=likely + spread,
        certainty=Certainty.HISTORY,
        days_of_history=len(samples),
    )


@dataclass(frozen=True, kw_only=True)
class _Course:
    """How something goes by weekday and time.

    Args:
        weekdays: expected value by weekday, as of the middle of the samples.
        counts: samples by weekday; all of them together where a weekday has too few of its own.
        middle, reach: day number of the samples' middle, and how far from it growth is followed, in days.
        slope: share of the expected value that comes on top a day; 0 where growth is in doubt.
        slope_error: standard error of a slope that is followed.
        scatter: of single days.
    """

    weekdays: tuple[float, ...]
    counts: tuple[int, ...]
    middle: float
    reach: float
    slope: float
    slope_error: float
    scatter: float

    @classmethod
    def of(cls, seen: Mapping[date, float]) -> _Course:
        samples = _clipped(seen)
        weekdays = _by_weekday(samples, fmean)
        own = Counter(day.weekday() for day in samples)
        counts = tuple(n if (n := own[weekday]) >= _LEAST_WEEKDAY_SAMPLES else len(samples) for weekday in range(7))
        fitted = sum(own[weekday] >= _LEAST_WEEKDAY_SAMPLES for weekday in range(7)) or 1
        ordinals = [day.toordinal() for day in samples]
        middle = fmean(ordinals)
        slope, slope_error = _growth(samples, weekdays, middle)
        residuals = [
            value - weekdays[day.weekday()] * (1 + slope * (day.toordinal() - middle)) for day, value in samples.items()
        ]
        return cls(
            weekdays=weekdays,
            counts=counts,
            middle=middle,
            # As far beyond the samples as they are long: nothing grows for ever.
            reach=1.5 * (max(ordinals) - min(ordinals)),
            slope=slope,
            slope_error=slope_error,
            scatter=math.sqrt(sum(r * r for r in residuals) / max(1, len(samples) - fitted)),
        )

    def expected(self, day: date) -> float:
        return max(0.0, self.weekdays[day.weekday()] * (1 + self.slope * self._from_middle(day)))

    def doubt_of_means(self, days: Sequence[date]) -> float:
        """Variance of the sum of the means over these days, in variances of a single day."""
        asked = Counter(day.weekday() for day in days)
        return sum(asked[weekday] ** 2 / self.counts[weekday] for weekday in range(7))

    def doubt_of_growth(self, day: date) -> float:
        """Standard error that the growth adds; of one sign over the days on one side of the samples."""
        return self.weekdays[day.weekday()] * self.slope_error * self._from_middle(day)

    def _from_middle(self, day: date) -> float:
        return max(-self.reach, min(self.reach, day.toordinal() - self.middle))


def _growth(samples: Mapping[date, float], weekdays: Sequence[float], middle: float) -> tuple[float, float]:
    """Slope a day, as a share of the level, and its standard error; zeros where it may as well be noise."""
    points = [
        (day.toordinal() - middle, value / weekdays[day.weekday()] - 1)
        for day, value in samples.items()
        if weekdays[day.weekday()] > 0
    ]
    if len(points) < _LEAST_SAMPLES_TO_GROW:
        return 0.0, 0.0
    # Seven weekdays, level and slope are fitted.
    squares = sum(x * x for x, _ in points)
    slope = sum(x * y for x, y in points) / squares
    error = math.sqrt(sum((y - slope * x) ** 2 for x, y in points) / (len(points) - 9) / squares)
    return (slope, error) if abs(slope) >= _SURE_OF_GROWTH * error else (0.0, 0.0)


def _clipped(samples: Mapping[date, float]) -> Mapping[date, float]:
    """Days far off their weekday (a scraper's, an outage's) brought to the edge of what is usual."""
    if len(samples) < _LEAST_SAMPLES_TO_CLIP:
        return samples
    usual = _by_weekday(samples, median)
    deviation = _MAD_TO_DEVIATION * median(abs(value - usual[day.weekday()]) for day, value in samples.items())
    edge = _CLIP_DEVIATIONS * deviation
    # More than half of the days exactly as usual: what the others are is no matter of scatter.
    if not edge:
        return samples
    return {
        day: min(max(value, usual[day.weekday()] - edge), usual[day.weekday()] + edge) for day, value in samples.items()
    }


def _by_weekday(samples: Mapping[date, float], average: Callable[[Iterable[float]], float]) -> tuple[float, ...]:
    overall = average(samples.values())
    expected = []
    for weekday in range(7):
        same = [value for day, value in samples.items() if day.weekday() == weekday]
        expected.append(average(same) if len(same) >= _LEAST_WEEKDAY_SAMPLES else overall)
    return tuple(expected)


def distinct_from(seen: Mapping[date, Sequence[str]], days: Sequence[date]) -> Forecast:
    """How many different visitors come on `days`, from the visitor of every visit on other days.

    As many as on stretches of the same length. Where the history is shorter, its own number, and for every day more as
    many as were new in its second half: those who come back are fewer the longer one looks, so a mean by visits would
    count them again and again.

    Args:
        seen: landed days, each with the visitor of every visit (an empty day too).
    """
    there = {visitor for day in days if day in seen for visitor in seen[day]}
    if all(day in seen for day in days):
        return Forecast.exactly(len(there))
    visits_by_day = {day: float(len(visitors)) for day, visitors in seen.items()}
    visits = from_samples(visits_by_day, days)
    usual = fmean(visits_by_day.values()) * len(days) if visits_by_day else 0.0
    if visits.certainty is Certainty.UNKNOWN or not usual:
        return Forecast.unknown(least=len(there))
    stretch = [set(seen[day]) for day in sorted(seen)]
    likely = max(float(len(there)), visits.likely / usual * _distinct_in(stretch, len(days)))
    beyond = max(0.0, 1 - len(stretch) / len(days))
    # Whether a visit is another visitor's is chance, too.
    draw = _DEVIATIONS * math.sqrt(max(0.0, likely * (1 - likely / max(visits.likely, likely, 1.0))))
    doubt = math.hypot(
        (visits.high - visits.likely) / max(visits.likely, 1.0), draw / max(likely, 1.0), _BEYOND_HISTORY * beyond
    )
    return Forecast(
        likely=likely,
        low=max(float(len(there)), likely * (1 - doubt)),
        high=likely * (1 + doubt),
        certainty=Certainty.HISTORY,
        days_of_history=len(seen),
    )


def _distinct_in(stretch: Sequence[Collection[str]], length: int) -> float:
    """Different visitors in so many days: the mean over all windows, continued where the stretch is shorter."""
    if length <= len(stretch):
        return _mean_of_windows(stretch, length)
    half = len(stretch) // 2
    before = set().union(*stretch[:half])
    everybody = before.union(*stretch[half:])
    new_a_day = (len(everybody) - len(before)) / (len(stretch) - half)
    return len(everybody) + new_a_day * (length - len(stretch))


def _mean_of_windows(stretch: Sequence[Collection[str]], length: int) -> float:
    """Over all windows of so many days. Each visitor counts in the windows that hold one of its days, so that the work
    grows with the visits and not with the windows.
    """
    windows = len(stretch) - length + 1
    counted_to: dict[str, int] = {}
    total_seen = 0
    for position, visitors in enumerate(stretch):
        first, last = max(0, position - length + 1), min(position, windows - 1)
        for visitor in visitors:
            start = max(first, counted_to.get(visitor, 0))
            if last >= start:
                total_seen += last - start + 1
                counted_to[visitor] = last + 1
    return total_seen / windows


def nearest(known: Sequence[date], days: Sequence[date], most: int) -> list[date]:
    """Known days that tell most about `days`, ascending: all of them that are asked about, and the nearest others."""
    asked = set(days)
    first, last = min(days), max(days)

    def distance(day: date) -> tuple[int, int]:
        return (max((first - day).days, (day - last).days, 0), -day.toordinal())

    others = sorted((day for day in known if day not in asked), key=distance)
    return sorted([*(day for day in known if day in asked), *others[:most]])


class History(Protocol):
    """What is landed already, for one site: free to look at."""

    def rows(self, table: str, days: Sequence[date]) -> Forecast:
        """Rows of a lake table ("vendor/table") on these days, by `from_samples`."""
        ...

    def landed_days(self, tables: Sequence[str], days: Sequence[date]) -> list[date]:
        """Days that all of these lake tables hold: those asked about and the nearest others, ascending."""
        ...

    def definitions(self, kind: str) -> int | None:
        """How many things calls of this kind were about in the newest complete batch: the second part of
        `<what>/<id>[/…]`; None where there is no batch.
        """
        ...

    def pages_per_call(self, kind: str) -> float | None:
        """Mean pages of a call of this kind over the stream's complete batches; None where there is none."""
        ...


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What a stream may look at to forecast one batch: the same facts an `Extraction` has, and history instead of a
    client.

    Args:
        first_day, last_day: the days of the batch, inclusive.
        lake: the tables of `Stream.depends_on`.
    """

    site_key: str
    ids: Mapping[str, str]
    timezone: str
    first_day: date
    last_day: date
    now: datetime
    lake: LakeReader
    history: History

    @property
    def days(self) -> list[date]:
        return [date.fromordinal(n) for n in range(self.first_day.toordinal(), self.last_day.toordinal() + 1)]


def visits_on(days: Sequence[date]) -> Forecast:
    """The stated range of a site that nothing is known of."""
    least, most = STATED_VISITS_A_DAY
    return Forecast.unknown(least=least * len(days), most=most * len(days))


def rows_like(outlook: Outlook, table: str, others: Sequence[str] = ()) -> Forecast:
    """Rows of a table that has one a visit: by its own history, else by that of another vendor's table with one a
    visit, else the stated range.
    """
    own = outlook.history.rows(table, outlook.days)
    if own.certainty is not Certainty.UNKNOWN:
        return own
    for other in others:
        found = outlook.history.rows(other, outlook.days)
        if found.certainty is not Certainty.UNKNOWN:
            return Forecast(
                likely=max(found.likely, own.low),
                low=max(found.low / _LIKE_FACTOR, own.low),
                high=max(found.high * _LIKE_FACTOR, own.low),
                certainty=Certainty.RELATED,
                days_of_history=found.days_of_history,
            )
    stated = visits_on(outlook.days)
    least = max(stated.low, own.low)
    return Forecast.unknown(least=least, most=max(stated.high, least))


Forecaster = Callable[[Outlook], Forecast]


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """A cheaper way to know something similar: what to do, and what the whole plan of the stream would then cost."""

    what: str
    requests: Forecast
