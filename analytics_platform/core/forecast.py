"""What an extraction will cost in requests, and how sure that is: the values and arithmetic a stream forecasts with.

Belongs here: forecasts, adding them, turning rows into pages, and what a stream may look at when it forecasts. Does not
belong here: a vendor's calls (`vendors/<v>/streams.py`), hours and windows (`core.planning`), sending anything.

A forecast is three numbers. Where the API's shape alone decides they are equal (`Certainty.EXACT`); where landed
history decides they are a likely value with about two standard deviations on each side; where nobody can know, the
highest is infinite and the likely one is the least that is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import IntEnum
from statistics import fmean, pstdev
from typing import Final, Protocol

from analytics_platform.core.lake_reader import LakeReader

__all__ = [
    "Alternative",
    "Certainty",
    "Forecast",
    "Forecaster",
    "History",
    "Outlook",
    "from_samples",
    "pages_of",
    "total",
]

_DEVIATIONS: Final = 2.0
_LEAST_SAMPLES: Final = 3
_LEAST_WEEKDAY_SAMPLES: Final = 2


class Certainty(IntEnum):
    """Where a forecast comes from; a sum is as sure as its least sure part."""

    EXACT = 0
    HISTORY = 1
    UNKNOWN = 2


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Requests (or rows) that will be needed: `low` ≤ `likely` ≤ `high`; `high` is infinite where nobody knows."""

    likely: float
    low: float
    high: float
    certainty: Certainty
    days_of_history: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.likely <= self.high:
            raise ValueError(f"a forecast runs from low to high: {self.low}, {self.likely}, {self.high}")

    def __str__(self) -> str:
        """`42`, `about 42 (38 to 46)` or `at least 7`."""
        if math.isinf(self.high):
            return f"at least {math.ceil(self.low):,}"
        low, likely, high = (math.ceil(value) for value in (self.low, self.likely, self.high))
        return f"{likely:,}" if low == high else f"about {likely:,} ({low:,} to {high:,})"

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
    days, with the scatter around it.

    Days that are samples themselves are taken as they were. Fewer than three samples say nothing.
    """
    known = [samples[day] for day in days if day in samples]
    open_days = [day for day in days if day not in samples]
    if not open_days:
        return Forecast.exactly(sum(known))
    if len(samples) < _LEAST_SAMPLES:
        return Forecast.unknown(least=sum(known))
    expected = _by_weekday(samples)
    scatter = pstdev([value - expected[day.weekday()] for day, value in samples.items()])
    likely = sum(known) + sum(expected[day.weekday()] for day in open_days)
    # Errors of single days cancel out, an error of the mean itself does not.
    spread = _DEVIATIONS * scatter * math.sqrt(len(open_days) + len(open_days) ** 2 / len(samples))
    return Forecast(
        likely=likely,
        low=max(sum(known), likely - spread),
        high=likely + spread,
        certainty=Certainty.HISTORY,
        days_of_history=len(samples),
    )


def _by_weekday(samples: Mapping[date, float]) -> list[float]:
    overall = fmean(samples.values())
    expected = []
    for weekday in range(7):
        same = [value for day, value in samples.items() if day.weekday() == weekday]
        expected.append(fmean(same) if len(same) >= _LEAST_WEEKDAY_SAMPLES else overall)
    return expected


class History(Protocol):
    """What is landed already, for one site: free to look at."""

    def rows(self, table: str, days: Sequence[date]) -> Forecast:
        """Rows of a lake table ("vendor/table") on these days, by `from_samples`."""
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


Forecaster = Callable[[Outlook], Forecast]


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """A cheaper way to know something similar: what to do, and what the whole plan of the stream would then cost."""

    what: str
    requests: Forecast
