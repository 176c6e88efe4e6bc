"""The `reconcile` and `explain` verbs: why the vendors disagree, on one screen.

Belongs here: arguments and what a person sees. Does not belong here: any number (`reconcile.report`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from analytics_platform.terminal import JsonOption, SiteOption, day_of, emit, screen_for

if TYPE_CHECKING:
    from rich.console import Console

    from analytics_platform.reconcile.report import DayReport, Gap, MetricReport

__all__ = ["explain", "reconcile"]

_BAR_WIDTH: Final = 24
_STATUS_STYLE: Final = {"ok": "green", "drift": "yellow", "break": "red", "missing": "red"}

MetricOption = Annotated[
    list[str] | None, typer.Option("--metric", help="sessions, views or visitors (repeatable); all by default.")
]
PlotOption = Annotated[
    Path | None, typer.Option("--plot", help="Also write the waterfalls as PNG files into this folder.")
]


def reconcile(
    day: Annotated[str, typer.Argument(help="Local date of the sites, YYYY-MM-DD.", metavar="DAY")],
    site: SiteOption = None,
    metric: MetricOption = None,
    plot: PlotOption = None,
    as_json: JsonOption = False,
) -> None:
    """One date: every vendor's number, how far from usual it is, and what the gap to the anchor is made of.

    Example: analytics-platform reconcile 2026-10-24 --site shop --metric sessions
    """
    from analytics_platform.catalog import Catalog
    from analytics_platform.reconcile.report import reconcile as read

    found = read(Catalog.open(), day_of(day), sites=site or (), metrics=metric or ())
    if not as_json:
        screen = screen_for(as_json=False)
        for report in found:
            show_day(screen, report)
    if plot is not None:
        written = _write_plots(found, plot)
        if not as_json:
            screen_for(as_json=False).print(f"{len(written)} pictures in {plot}", highlight=False, markup=False)
    emit(found, as_json=as_json)


def explain(
    metric: Annotated[str, typer.Argument(help="A metric, e.g. bounce_rate.", metavar="METRIC")],
    site: SiteOption = None,
    day: Annotated[
        str | None, typer.Option("--day", help="Show the effect on this local date; the newest complete by default.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """What each vendor means by a metric, the common definition, and what that does to the numbers.

    Example: analytics-platform explain bounce_rate
    """
    from analytics_platform.catalog import Catalog
    from analytics_platform.reconcile.report import explain as read

    found = read(Catalog.open(), metric, day=day_of(day) if day else None, sites=site or ())
    if not as_json:
        show_metric(screen_for(as_json=False), found)
    emit(found, as_json=as_json)


def show_day(screen: Console, report: DayReport) -> None:
    """The table of vendors, then one waterfall a vendor with its causes."""
    from rich.table import Table

    title = f"{report.site}, {report.stat_date}: {report.metric}"
    table = Table(title=f"{title} ({report.told_vendor_count} of {report.expected_vendor_count} vendors)")
    for name in ("vendor", report.metric, f"÷ {report.anchor_vendor}", "usual", "expected", "status", "why"):
        table.add_column(name, justify="right" if name not in ("vendor", "status", "why") else "left")
    for line in report.lines:
        expected = (
            "–"
            if line.expected_low is None or line.expected_high is None
            else f"{line.expected_low:,.0f} to {line.expected_high:,.0f}"
        )
        since = f" since {line.change_point_date}" if line.change_point_date else ""
        style = _STATUS_STYLE.get(line.status, "dim")
        table.add_row(
            line.vendor,
            _shown(line.value, ",.0f"),
            _shown(line.ratio, ".2f"),
            _shown(line.usual_ratio, ".2f"),
            expected,
            f"[{style}]{line.status}{since}[/{style}]",
            (line.reason or "").replace("_", " "),
        )
    screen.print(table)
    if report.left_out:
        names = ", ".join(f"{each.vendor} ({each.reason.replace('_', ' ')})" for each in report.left_out)
        screen.print(f"Without {names}.", highlight=False, markup=False)
    for gap in report.gaps:
        _show_gap(screen, gap)


def _show_gap(screen: Console, gap: Gap) -> None:
    from analytics_platform.reconcile.plots import COMPONENT_WORDS

    largest = max((abs(part.effect) for part in gap.parts), default=0.0)
    screen.print(f"[bold]{gap.anchor_vendor} {gap.anchor_value:,.0f} → {gap.vendor} {gap.vendor_value:,.0f}[/bold]")
    for part in gap.parts:
        if not part.effect and part.component != "unexplained":
            continue
        bar = "█" * round(_BAR_WIDTH * abs(part.effect) / largest) if largest else ""
        colour = "dim" if part.component == "unexplained" else "green" if part.effect > 0 else "red"
        words = COMPONENT_WORDS.get(part.component, part.component)
        screen.print(f"  {words:22}{part.effect:+9,.1f}  [{colour}]{bar}[/{colour}]", highlight=False)
    for number, cause in enumerate(gap.causes, start=1):
        screen.print(f"  {number}. {cause.text}", highlight=False, markup=False)
    screen.print()


def show_metric(screen: Console, report: MetricReport) -> None:
    """Definitions by vendor, native before common, then both numbers of one date."""
    from rich.table import Table

    table = Table(title=f"What {report.metric} means", show_lines=True)
    for name in ("vendor", "basis", "definition", "formula", "source"):
        table.add_column(name, overflow="fold")
    for each in report.definitions:
        meaning = each.definition if each.is_offered else f"not offered: {each.definition}"
        table.add_row(each.vendor, each.basis, meaning, each.formula or "–", each.source_url or "–")
    screen.print(table)
    if not report.differences:
        return
    effect = Table(title="What the definition does to the number")
    for name in ("site", "date", "vendor", "native", "common", "difference"):
        effect.add_column(name, justify="right" if name in ("native", "common", "difference") else "left")
    form = ".3f" if report.metric.endswith("rate") else ",.0f"
    for shown in report.differences:
        known = shown.native is not None and shown.common is not None
        change = _shown((shown.common or 0.0) - (shown.native or 0.0) if known else None, f"+{form}")
        row = (shown.site, str(shown.stat_date), shown.vendor, _shown(shown.native, form), _shown(shown.common, form))
        effect.add_row(*row, change)
    screen.print(effect)


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _write_plots(found: tuple[DayReport, ...], folder: Path) -> list[Path]:
    import pandas as pd

    from analytics_platform.reconcile import plots

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for report in found:
        for gap in report.gaps:
            parts = pd.DataFrame([{"component": part.component, "effect": part.effect} for part in gap.parts]).assign(
                anchor_vendor=gap.anchor_vendor,
                anchor_value=gap.anchor_value,
                vendor=gap.vendor,
                vendor_value=gap.vendor_value,
            )
            title = f"{report.site}, {report.stat_date}: {report.metric}, {gap.anchor_vendor} to {gap.vendor}"
            path = folder / f"waterfall_{report.site}_{report.stat_date}_{report.metric}_{gap.vendor}.png"
            path.write_bytes(plots.waterfall(parts, title=title, metric=report.metric))
            written.append(path)
    return written
