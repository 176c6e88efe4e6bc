"""From frames of the marts to segmented frames: what the two dbt Python models return.

Belongs here: grouping into series, dates to positions and back, column types. Does not belong here: the arithmetic
(`change_points`), SQL, connections.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from analytics_platform.reconcile.change_points import breaks, segments, shared_levels

__all__ = ["baselines", "stretches"]

_SERIES: Final = ["site_key", "metric", "vendor"]
_BASELINE_TYPES: Final = {
    "site_key": "object",
    "metric": "object",
    "vendor": "object",
    "stat_date": "datetime64[us]",
    "baseline_start_date": "datetime64[us]",
    "change_point_date": "datetime64[us]",
    "change_share": "float64",
    "is_break_day": "bool",
}
_COUNTRY: Final = ["vendor", "site_key", "country_bucket"]
_STRETCH_TYPES: Final = {
    "vendor": "object",
    "site_key": "object",
    "country_bucket": "object",
    "stat_date": "datetime64[us]",
    "stretch_start_date": "datetime64[us]",
    "site_factor": "float64",
}
_CONFIRMING_DAYS: Final = 2
_SHORTEST_STRETCH: Final = 3


def baselines(days: pd.DataFrame) -> pd.DataFrame:
    """Which baseline each comparable day belongs to.

    Args:
        days: rows of int_reconciliation_days (site_key, metric, vendor, stat_date, value, anchor_value, is_comparable).

    Returns:
        One row per comparable day: the keys, baseline_start_date (the first day of the series or of the last break),
        change_point_date (that break, NaT before the first), change_share (its relative change, -0.4 is a fall by
        40 %), is_break_day (the break's first two days: those that confirm it).
    """
    comparable = days[days["is_comparable"].astype(bool)]
    rows: list[dict[str, Any]] = []
    for keys, series in _groups(comparable, _SERIES):
        dates = series["stat_date"].tolist()
        start, point, share, since = dates[0], pd.NaT, float("nan"), -1
        found = {
            change.position: change for change in breaks(_floats(series, "value"), _floats(series, "anchor_value"))
        }
        for position, day in enumerate(dates):
            if position in found:
                start, point, share, since = day, day, found[position].share, position
            confirming = since >= 0 and position - since < _CONFIRMING_DAYS
            rows.append(
                dict(zip(_SERIES, keys, strict=True))
                | {"stat_date": day, "baseline_start_date": start, "change_point_date": point}
                | {"change_share": share, "is_break_day": confirming}
            )
    return _typed(rows, _BASELINE_TYPES)


def stretches(days: pd.DataFrame) -> pd.DataFrame:
    """Which stretch of one acceptance ratio each day belongs to.

    Only days fit for training are cut; the others join the stretch before them (the first one, when none is before).

    Args:
        days: rows of int_acceptance_days (vendor, site_key, country_bucket, stat_date, sessions, anchor_sessions,
            is_training).

    Returns:
        One row per row given: the keys, stretch_start_date, and site_factor: what all countries of the site went
        through together, which is nobody's consent (1 at first, 0.6 after a fall of all by 40 %).
    """
    rows: list[dict[str, Any]] = []
    for keys, site in _groups(days, _COUNTRY[:2]):
        factors = _shared(site)
        for (*_, bucket), series in _groups(site, _COUNTRY):
            starts = _starts(series, factors)
            for day in series["stat_date"].tolist():
                found = {"stat_date": day, "stretch_start_date": _at(starts, day), "site_factor": _at(factors, day)}
                rows.append(dict(zip(_COUNTRY, (*keys, bucket), strict=True)) | found)
    return _typed(rows, _STRETCH_TYPES)


def _shared(site: pd.DataFrame) -> dict[Any, float]:
    """The shared factor from each training day on at which it changes; of the first day in any case."""
    training = _trainable(site)
    v, a = (
        training.pivot_table(index="stat_date", columns="country_bucket", values=name, fill_value=0.0, aggfunc="sum")
        for name in ("sessions", "anchor_sessions")
    )
    if v.empty:
        return {site["stat_date"].min(): 1.0}
    levels = shared_levels(v.to_numpy(dtype=np.float64), a.to_numpy(dtype=np.float64), shortest=_SHORTEST_STRETCH)
    return dict(zip(v.index.tolist(), levels.tolist(), strict=True))


def _starts(series: pd.DataFrame, factors: dict[Any, float]) -> dict[Any, Any]:
    """The first day of each stretch, by itself: of this country, once what all countries went through is taken out."""
    training = _trainable(series)
    dates = training["stat_date"].tolist()
    if not dates:
        return {series["stat_date"].min(): series["stat_date"].min()}
    shared = np.array([_at(factors, day) for day in dates])
    usual = _floats(training, "anchor_sessions") * shared
    cut = segments(_floats(training, "sessions"), usual, shortest=_SHORTEST_STRETCH)
    return {dates[segment.first]: dates[segment.first] for segment in cut}


def _trainable(frame: pd.DataFrame) -> pd.DataFrame:
    usable = frame["is_training"].astype(bool) & (frame["anchor_sessions"].astype("float64") > 0)
    found: pd.DataFrame = frame[usable]
    return found


def _at(steps: dict[Any, Any], day: object) -> Any:
    """The value of the newest step at or before this day; of the first step when none is."""
    before = [start for start in steps if start <= day]
    return steps[max(before)] if before else steps[min(steps)]


def _groups(frame: pd.DataFrame, keys: Sequence[str]) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame]]:
    """Each series in order of its days; the series in order of their keys."""
    ordered = frame.sort_values([*keys, "stat_date"], kind="stable")
    for key, series in ordered.groupby(list(keys), sort=True):
        yield (key if isinstance(key, tuple) else (key,)), series


def _floats(frame: pd.DataFrame, column: str) -> Any:
    return frame[column].astype("float64").to_numpy(dtype=np.float64)


def _typed(rows: list[dict[str, Any]], types: dict[str, str]) -> pd.DataFrame:
    """A frame of exactly these columns and types, also when there is no row."""
    frame = pd.DataFrame(rows, columns=list(types))
    for name, kind in types.items():
        column = pd.to_datetime(frame[name]) if kind.startswith("datetime") else frame[name]
        frame[name] = column.astype(np.dtype(kind))
    return frame
