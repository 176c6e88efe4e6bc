"""Which rows make which picture: the queries behind `Catalog.plot` and the plots in asset metadata.

Belongs here: one query and one drawing a picture, the same for notebooks and the UI. Does not belong here: how a
picture looks (`reconcile.plots`), opening a database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Final

from analytics_platform.core.errors import ConfigurationError
from analytics_platform.transform.warehouse import literal

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PICTURES", "Asked", "Picture", "Query", "draw", "of_mart"]

Query = Callable[[str], "pd.DataFrame"]
"""One SELECT over published names → its frame."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a picture is asked for. None leaves an end of the dates open, or every vendor in."""

    site: str
    metric: str = "sessions"
    vendor: str | None = None
    first: date | None = None
    last: date | None = None

    def condition(self, date_column: str, *, has_vendor: bool = True) -> str:
        """The WHERE of it over a mart's columns."""
        terms = [f"site_key = {literal(self.site)}"]
        if self.first is not None:
            terms.append(f"{date_column} >= DATE {literal(str(self.first))}")
        if self.last is not None:
            terms.append(f"{date_column} <= DATE {literal(str(self.last))}")
        if self.vendor is not None and has_vendor:
            terms.append(f"vendor = {literal(self.vendor)}")
        return " AND ".join(terms)

    @property
    def when(self) -> str:
        """The dates, for a title."""
        if self.first == self.last:
            return "" if self.first is None else f", {self.first}"
        return f", {self.first or 'the beginning'} to {self.last or 'today'}"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG that notebooks show by themselves."""

    title: str
    png: bytes

    def _repr_png_(self) -> bytes:
        return self.png

    def save(self, path: str | Path) -> Path:
        """Write the PNG; returns where."""
        target = Path(path)
        target.write_bytes(self.png)
        return target


def draw(what: str, query: Query, asked: Asked) -> Picture:
    """The picture of this name.

    Raises:
        ConfigurationError: no such picture, or no row to draw.
    """
    if what not in PICTURES:
        raise ConfigurationError(f"There is no picture {what!r}.", f"Pictures: {', '.join(PICTURES)}.")
    return PICTURES[what](query, asked)


def _require(frame: pd.DataFrame, title: str) -> None:
    if frame.empty:
        raise ConfigurationError(f"There is nothing to draw: {title}.", "Check site, dates, metric and vendor.")


def _reconciliation(query: Query, asked: Asked) -> Picture:
    """Every vendor's native number over the dates, the anchor's too, with the breaks."""
    from analytics_platform.reconcile import plots

    title = f"{asked.site}: {asked.metric}{asked.when}"
    frame = query(
        f"WITH mine AS (SELECT * FROM fct_vendor_reconciliation WHERE {asked.condition('stat_date')} "
        f"AND metric = {literal(asked.metric)}) "
        "SELECT vendor, stat_date, value, status = 'break' AND change_point_date = stat_date AS is_break FROM mine "
        "UNION ALL SELECT DISTINCT anchor_vendor, stat_date, anchor_value, false FROM mine ORDER BY vendor, stat_date"
    )
    _require(frame, title)
    return Picture(title=title, png=plots.vendor_lines(frame, title=title, metric=asked.metric))


def _waterfall(query: Query, asked: Asked) -> Picture:
    """The parts of one vendor's gap, summed over the dates; without a vendor, of the one with the largest gap."""
    from analytics_platform.reconcile import plots

    condition = f"{asked.condition('stat_date')} AND metric = {literal(asked.metric)}"
    frame = query(
        "WITH parts AS (SELECT vendor, anchor_vendor, component, min(step_number) AS step_number, "
        "sum(effect) AS effect, sum(anchor_value) AS anchor_value, sum(vendor_value) AS vendor_value "
        f"FROM fct_reconciliation_waterfall WHERE {condition} GROUP BY vendor, anchor_vendor, component), "
        "widest AS (SELECT vendor FROM parts GROUP BY vendor "
        "ORDER BY abs(any_value(vendor_value) - any_value(anchor_value)) DESC, vendor LIMIT 1) "
        "SELECT parts.* FROM parts JOIN widest USING (vendor) ORDER BY step_number"
    )
    _require(frame, f"the waterfall of {asked.site}{asked.when}")
    first = frame.iloc[0]
    title = f"{asked.site}: {asked.metric}, {first['anchor_vendor']} to {first['vendor']}{asked.when}"
    return Picture(title=title, png=plots.waterfall(frame, title=title, metric=asked.metric))


def _heat_map(query: Query, asked: Asked) -> Picture:
    """Local hour × weekday of one vendor's sessions; without a vendor, of the one with the most."""
    from analytics_platform.reconcile import plots

    condition = asked.condition("session_date_local")
    frame = query(
        "WITH zones AS (SELECT site_key, timezone FROM dim_site), "
        f"mine AS (SELECT * FROM fct_sessions WHERE {condition}), "
        "largest AS (SELECT vendor FROM mine GROUP BY vendor ORDER BY count(*) DESC, vendor LIMIT 1), "
        "placed AS (SELECT vendor, timezone(zones.timezone, timezone('UTC', started_at_utc)) AS local_time "
        "FROM mine JOIN largest USING (vendor) JOIN zones USING (site_key)) "
        "SELECT vendor, isodow(local_time) AS weekday, hour(local_time) AS hour, count(*) AS value "
        "FROM placed GROUP BY ALL ORDER BY ALL"
    )
    _require(frame, f"sessions of {asked.site}{asked.when}")
    title = f"{asked.site}: sessions by {frame['vendor'].iloc[0]}{asked.when}"
    return Picture(title=title, png=plots.heat_map(frame, title=title, counted="sessions"))


def _funnel(query: Query, asked: Asked) -> Picture:
    """The longest funnel that most vendors have, on the newest of the dates: visitors are not added up over dates."""
    from analytics_platform.reconcile import plots

    condition = asked.condition("stat_date")
    frame = query(
        f"WITH mine AS (SELECT * FROM fct_funnel_daily WHERE {condition} AND visitors > 0), "
        "chosen AS (SELECT funnel_key, stat_date FROM mine GROUP BY funnel_key, stat_date "
        "ORDER BY stat_date DESC, count(DISTINCT vendor) DESC, max(step_number) DESC, funnel_key LIMIT 1) "
        "SELECT vendor, funnel_key, stat_date, step_number, step_key AS step_name, visitors "
        "FROM mine JOIN chosen USING (funnel_key, stat_date) ORDER BY vendor, step_number"
    )
    _require(frame, f"funnels of {asked.site}{asked.when}")
    first = frame.iloc[0]
    title = f"{asked.site}: funnel {first['funnel_key']}, {first['stat_date']:%Y-%m-%d}"
    return Picture(title=title, png=plots.funnel(frame, title=title))


PICTURES: Final[Mapping[str, Callable[[Query, Asked], Picture]]] = {
    "reconciliation": _reconciliation,
    "waterfall": _waterfall,
    "heat_map": _heat_map,
    "funnel": _funnel,
}
_OF_MART: Final = {
    "fct_vendor_reconciliation": "reconciliation",
    "fct_reconciliation_waterfall": "waterfall",
    "fct_sessions": "heat_map",
    "fct_funnel_daily": "funnel",
}
"""Mart → the picture in its asset's metadata."""


def of_mart(relation: str, query: Query, sites: Iterable[Asked]) -> Iterator[tuple[str, Picture]]:
    """(site, picture) of a mart, for each that has something to draw; none where the mart has no picture."""
    what = _OF_MART.get(relation)
    for asked in sites if what else ():
        try:
            yield asked.site, draw(str(what), query, asked)
        except ConfigurationError:
            continue
