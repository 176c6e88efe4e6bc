"""What `reconcile DAY` and `explain METRIC` say, as values: read from the published marts, computed nowhere else.

Belongs here: picking the rows of a question and putting them into words' order. Does not belong here: any arithmetic of
reconciliation (dbt, `reconcile.change_points`), the sentences about causes (`reconcile.explaining`), printing
(`reconcile_cli`), drawing (`reconcile.plots`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from analytics_platform.core.errors import ConfigurationError
from analytics_platform.reconcile.explaining import Cause, causes

if TYPE_CHECKING:
    import pandas as pd

    from analytics_platform.catalog import Catalog

__all__ = [
    "DayReport",
    "Definition",
    "Difference",
    "Gap",
    "LeftOut",
    "MetricReport",
    "Part",
    "VendorLine",
    "explain",
    "reconcile",
]

RECONCILED_METRICS = ("sessions", "views", "visitors")
WINDOWED_METRICS = ("visitors_7d", "visitors_28d", "visitors_month")
"""Over the dates that end on one, in a mart of their own."""


@dataclass(frozen=True, kw_only=True)
class VendorLine:
    """One vendor's number beside the anchor's, a row of `fct_vendor_reconciliation`. Ratios: vendor ÷ anchor."""

    vendor: str
    value: float | None
    anchor_value: float | None
    ratio: float | None
    usual_ratio: float | None
    spread_pct: float | None
    expected_low: float | None
    expected_high: float | None
    status: str
    reason: str | None
    change_point_date: date | None


@dataclass(frozen=True, kw_only=True)
class Part:
    """One component of a gap; `effect` in the metric's unit, signed."""

    component: str
    effect: float
    method: str


@dataclass(frozen=True, kw_only=True)
class Gap:
    """From the anchor's number to a vendor's: anchor_value + the parts' effects = vendor_value, exactly."""

    vendor: str
    anchor_vendor: str
    anchor_value: float
    vendor_value: float
    parts: tuple[Part, ...]
    causes: tuple[Cause, ...]


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A vendor that offers the metric and has no number of the date, and why (`partition_blocked`, `not_landed` …)."""

    vendor: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class DayReport:
    """One site, one local date, one metric: the vendors' numbers and why they differ.

    `expected_vendor_count` vendors offer the metric, `left_out` of them have no number of the date, and `vendor_count`
    can be compared with each other (a panel has a number and cannot). All count the anchor.
    """

    site: str
    stat_date: date
    metric: str
    anchor_vendor: str
    vendor_count: int
    expected_vendor_count: int
    left_out: tuple[LeftOut, ...]
    lines: tuple[VendorLine, ...]
    gaps: tuple[Gap, ...]

    @property
    def told_vendor_count(self) -> int:
        """Vendors with a number of the date."""
        return self.expected_vendor_count - len(self.left_out)


@dataclass(frozen=True, kw_only=True)
class Definition:
    """What one vendor means by a metric."""

    vendor: str
    basis: str
    is_offered: bool
    definition: str
    formula: str | None
    reason_null: str | None
    source_url: str | None


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What the definition does to a number: the same vendor and date under its own and under the common one."""

    site: str
    stat_date: date
    vendor: str
    native: float | None
    common: float | None


@dataclass(frozen=True, kw_only=True)
class MetricReport:
    """All definitions of a metric, and their effect on one date."""

    metric: str
    definitions: tuple[Definition, ...]
    differences: tuple[Difference, ...]


def reconcile(
    catalog: Catalog, day: date, *, sites: Sequence[str] = (), metrics: Sequence[str] = ()
) -> tuple[DayReport, ...]:
    """Every asked site and metric of one local date, sites by name, metrics in the order asked (all by default).

    Raises:
        ConfigurationError: nothing is published, an unknown metric, or no row of that date and site.
    """
    wanted = tuple(metrics) or RECONCILED_METRICS
    unknown = [metric for metric in wanted if metric not in RECONCILED_METRICS]
    if unknown:
        raise ConfigurationError(
            f"{unknown[0]!r} is not reconciled.", f"Metrics that are: {', '.join(RECONCILED_METRICS)}."
        )
    rows = catalog.read("fct_vendor_reconciliation", day, day)
    parts = catalog.read("fct_reconciliation_waterfall", day, day)
    found = []
    for site in sorted(sites or set(rows["site_key"])):
        for metric in wanted:
            mine = rows[(rows["site_key"] == site) & (rows["metric"] == metric)]
            if len(mine):
                ours = parts[(parts["site_key"] == site) & (parts["metric"] == metric)]
                found.append(_day_report(catalog, site, day, metric, mine, ours))
    if not found:
        newest = catalog.freshness("fct_vendor_reconciliation").newest_date
        raise ConfigurationError(
            f"No vendor was reconciled on {day}" + (f" for {', '.join(sites)}." if sites else "."),
            f"The newest date that was: {newest}. `analytics-platform status` shows what is landed.",
        )
    return tuple(found)


def explain(catalog: Catalog, metric: str, *, day: date | None = None, sites: Sequence[str] = ()) -> MetricReport:
    """The definitions of a metric, and its native beside its common number on a date (the newest complete one).

    Raises:
        ConfigurationError: nothing is published, or an unknown metric.
    """
    registry = catalog.read("dim_metric_definition")
    mine = registry[registry["metric"] == metric].sort_values(["vendor", "basis"], ascending=[True, False])
    if mine.empty:
        raise ConfigurationError(
            f"There is no metric {metric!r}.", f"Metrics: {', '.join(sorted(set(registry['metric'])))}."
        )
    definitions = tuple(
        Definition(
            vendor=str(row.vendor),
            basis=str(row.basis),
            is_offered=bool(row.is_offered),
            definition=str(row.definition),
            formula=_text(row.formula),
            reason_null=_text(row.reason_null),
            source_url=_text(row.source_url),
        )
        for row in mine.itertuples()
    )
    return MetricReport(metric=metric, definitions=definitions, differences=_differences(catalog, metric, day, sites))


def _day_report(
    catalog: Catalog, site: str, day: date, metric: str, rows: pd.DataFrame, parts: pd.DataFrame
) -> DayReport:
    first = rows.iloc[0]
    anchor = str(first["anchor_vendor"])
    left_out = [
        LeftOut(vendor=str(row.vendor), reason=_text(row.reason) or "not_reported")
        for row in rows[rows["status"] == "missing"].itertuples()
    ]
    if rows["anchor_value"].isna().all():
        left_out.append(LeftOut(vendor=anchor, reason=_reason_of(catalog, anchor, site, day)))
    ordered = rows.sort_values(["value", "vendor"], ascending=[False, True], na_position="last")
    return DayReport(
        site=site,
        stat_date=day,
        metric=metric,
        anchor_vendor=anchor,
        vendor_count=int(first["vendor_count"]),
        expected_vendor_count=int(first["expected_vendor_count"]),
        left_out=tuple(sorted(left_out, key=lambda each: each.vendor)),
        lines=tuple(_line(row) for row in ordered.itertuples()),
        gaps=tuple(_gap(mine.sort_values("step_number")) for _, mine in parts.groupby("vendor", sort=True)),
    )


def _reason_of(catalog: Catalog, vendor: str, site: str, day: date) -> str:
    """Why the whole date of a vendor is NULL in the traffic mart."""
    traffic = catalog.read("fct_daily_traffic", day, day, site=site, vendor=vendor, where="basis = 'native'")
    told = [_text(row.reason_null) or "" for row in traffic.itertuples()]
    return next((text.removeprefix("all=") for text in told if text.startswith("all=")), "not_reported")


def _line(row: Any) -> VendorLine:
    broken_at = row.change_point_date
    return VendorLine(
        vendor=str(row.vendor),
        value=_number(row.value),
        anchor_value=_number(row.anchor_value),
        ratio=_number(row.ratio),
        usual_ratio=_number(row.median_ratio_28d),
        spread_pct=_number(row.spread_pct),
        expected_low=_number(row.expected_low),
        expected_high=_number(row.expected_high),
        status=str(row.status),
        reason=_text(row.reason),
        change_point_date=None if _is_missing(broken_at) else broken_at.date(),
    )


def _gap(parts: pd.DataFrame) -> Gap:
    first = parts.iloc[0]
    return Gap(
        vendor=str(first["vendor"]),
        anchor_vendor=str(first["anchor_vendor"]),
        anchor_value=float(first["anchor_value"]),
        vendor_value=float(first["vendor_value"]),
        parts=tuple(
            Part(component=str(row["component"]), effect=float(row["effect"]), method=str(row["method"]))
            for row in parts.to_dict("records")
        ),
        causes=causes([{str(name): value for name, value in row.items()} for row in parts.to_dict("records")]),
    )


def _differences(catalog: Catalog, metric: str, day: date | None, sites: Sequence[str]) -> tuple[Difference, ...]:
    traffic = _numbers(catalog, metric, day)
    if metric not in traffic.columns:
        return ()
    if sites:
        traffic = traffic[traffic["site_key"].isin(list(sites))]
    found = []
    for site, rows in traffic.groupby("site_key", sort=True):
        complete = rows[rows["is_complete_day"] & rows[metric].notna()]
        if day is None and complete.empty:
            continue
        of_day = rows[rows["stat_date"] == (rows["stat_date"].max() if day else complete["stat_date"].max())]
        for vendor, mine in of_day.groupby("vendor", sort=True):
            by_basis = {str(row.basis): _number(getattr(row, metric)) for row in mine.itertuples()}
            found.append(
                Difference(
                    site=str(site),
                    stat_date=mine["stat_date"].iloc[0].date(),
                    vendor=str(vendor),
                    native=by_basis.get("native"),
                    common=by_basis.get("common"),
                )
            )
    return tuple(found)


def _numbers(catalog: Catalog, metric: str, day: date | None) -> pd.DataFrame:
    """The mart that holds the metric. Windows of several dates are counted one way only: the vendor's."""
    is_windowed = metric in WINDOWED_METRICS
    found: pd.DataFrame = catalog.read("fct_visitor_windows" if is_windowed else "fct_daily_traffic", day, day)
    if is_windowed:
        complete = found[f"is_complete_{metric.removeprefix('visitors_')}"]
        found = found.assign(basis="native", is_complete_day=complete)
    return found


def _is_missing(value: Any) -> bool:
    import pandas as pd

    return bool(pd.isna(value))


def _number(value: Any) -> float | None:
    return None if _is_missing(value) else float(value)


def _text(value: Any) -> str | None:
    return None if _is_missing(value) or not str(value) else str(value)
