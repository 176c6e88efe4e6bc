"""Pictures of the answer: vendor lines, the waterfall of a gap, hour × weekday, a funnel.

Belongs here: drawing frames whose columns are the marts' own. Does not belong here: reading marts (`reconcile.report`,
`catalog`, `transform`), deciding what is a break or a cause.

Every picture says what its axes count, can be read at 600 pixels, and uses colours that people with any colour vision
can tell apart (Okabe and Ito); a vendor keeps its colour and its marker in all of them.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from analytics_platform.vendors import vendor_names

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COMPONENT_WORDS", "funnel", "heat_map", "vendor_lines", "waterfall"]

COMPONENT_WORDS: Final[dict[str, str]] = {
    "incomplete_partition": "days not complete",
    "day_boundary": "another midnight",
    "definition": "another definition",
    "bots": "bots",
    "sampling": "plan cap",
    "consent": "no consent, blockers",
    "tag_missing": "tag missing",
    "unexplained": "unexplained",
}
"""Components of `fct_reconciliation_waterfall`, in their fixed order, in words for an axis."""

_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
_UP: Final = "#009E73"
_DOWN: Final = "#D55E00"
_TOTAL: Final = "#4d5866"
_UNKNOWN: Final = "#999999"
_DPI: Final = 100
_WEEKDAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def vendor_lines(daily: pd.DataFrame, *, title: str, metric: str) -> bytes:
    """One line a vendor over local dates; a break is a cross with its date.

    Args:
        daily: vendor, stat_date, value (NaN or NA where a vendor has none), and optionally is_break.
        metric: what `value` counts, for the axis.

    Returns:
        A PNG.
    """
    import pandas as pd

    with _figure(width=7.5, height=3.4) as (figure, axes):
        for number, vendor, rows in _by_vendor(daily):
            dates = pd.to_datetime(rows["stat_date"])
            values = pd.to_numeric(rows["value"], errors="coerce").astype("float64")
            style = {"color": _COLOURS[number % len(_COLOURS)], "marker": _MARKERS[number % len(_MARKERS)]}
            label = vendor if values.notna().any() else f"{vendor} (no number)"
            axes.plot(dates, values, label=label, linewidth=1.6, markersize=4, **style)
            if "is_break" in rows:
                broken = rows["is_break"].fillna(value=False).astype(bool).to_numpy()
                for when, value in zip(dates[broken], values[broken], strict=True):
                    axes.annotate(
                        f"break {when:%d %b}",
                        (when, value),
                        textcoords="offset points",
                        xytext=(0, 12),
                        ha="center",
                        fontsize=8,
                        arrowprops={"arrowstyle": "->", "color": style["color"]},
                    )
        axes.xaxis.set_major_locator(_tick_places())
        axes.xaxis.set_major_formatter(_tick_dates())
        axes.set_ylabel(f"{metric} a day (native)")
        axes.set_ylim(bottom=0)
        axes.set_title(title, loc="left")
        axes.grid(axis="y", alpha=0.3)
        axes.legend(ncols=3, fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12))
        return _png(figure)


def waterfall(parts: pd.DataFrame, *, title: str, metric: str) -> bytes:
    """From the anchor's number to the vendor's, one bar a component, the remainder in grey and always there.

    Args:
        parts: rows of `fct_reconciliation_waterfall` of one site, metric and vendor, of one day or summed over days:
            component, effect, anchor_vendor, anchor_value, vendor, vendor_value.

    Returns:
        A PNG.
    """
    first = parts.iloc[0]
    effects = dict(zip(parts["component"].astype(str), parts["effect"].astype("float64"), strict=True))
    start, end = float(first["anchor_value"]), float(first["vendor_value"])
    bars = [(f"{first['anchor_vendor']}\n(anchor)", 0.0, start, _TOTAL, f"{start:,.0f}")]
    level = start
    for component, words in COMPONENT_WORDS.items():
        if component not in effects or (not effects[component] and component != "unexplained"):
            continue
        effect = effects[component]
        colour = _UNKNOWN if component == "unexplained" else _UP if effect > 0 else _DOWN
        bars.append((words.replace(" ", "\n", 1), min(level, level + effect), abs(effect), colour, f"{effect:+,.0f}"))
        level += effect
    bars.append((str(first["vendor"]), 0.0, end, _TOTAL, f"{end:,.0f}"))
    with _figure(width=7.5, height=3.6) as (figure, axes):
        for position, (_, bottom, height, colour, label) in enumerate(bars):
            axes.bar(position, height, bottom=bottom, color=colour, width=0.68)
            axes.annotate(
                label, (position, bottom + height), xytext=(0, 3), textcoords="offset points", ha="center", fontsize=9
            )
        axes.set_xticks(range(len(bars)), [name for name, *_ in bars], fontsize=8)
        axes.set_ylabel(metric)
        axes.set_ylim(0, max(bottom + height for _, bottom, height, _, _ in bars) * 1.12 or 1.0)
        axes.set_title(title, loc="left")
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
        return _png(figure)


def heat_map(hours: pd.DataFrame, *, title: str, counted: str) -> bytes:
    """Local hour × weekday.

    Args:
        hours: weekday (1 = Monday … 7), hour (0 … 23, of the site's zone), value.

    Returns:
        A PNG.
    """
    import numpy as np

    grid = np.zeros((7, 24))
    grid[hours["weekday"].to_numpy(dtype=int) - 1, hours["hour"].to_numpy(dtype=int)] = hours["value"].to_numpy(float)
    with _figure(width=7.5, height=2.8) as (figure, axes):
        image = axes.imshow(grid, aspect="auto", cmap="cividis", vmin=0)
        axes.set_yticks(range(7), _WEEKDAYS)
        axes.set_xticks(range(0, 24, 3), [f"{hour:02d}" for hour in range(0, 24, 3)])
        axes.set_xlabel("hour of the site's day")
        axes.set_title(title, loc="left")
        figure.colorbar(image, ax=axes, label=counted, pad=0.02)
        return _png(figure)


def funnel(steps: pd.DataFrame, *, title: str, counted: str = "visitors") -> bytes:
    """Steps of one funnel, a group of bars a vendor, with the share of its first step that is left.

    Args:
        steps: vendor, step_number (ascending), step_name, visitors.

    Returns:
        A PNG.
    """
    groups = _by_vendor(steps)
    names = list(dict.fromkeys(steps.sort_values("step_number")["step_name"].astype(str)))
    height = 0.8 / max(1, len(groups))
    with _figure(width=7.5, height=1.4 + 0.75 * len(names)) as (figure, axes):
        for place_in_group, (number, vendor, rows) in enumerate(groups):
            ordered = rows.sort_values("step_number")
            base = float(ordered["visitors"].iloc[0] or 0)
            offset = (place_in_group - (len(groups) - 1) / 2) * height
            places = [names.index(str(name)) + offset for name in ordered["step_name"]]
            values = ordered["visitors"].astype("float64").tolist()
            axes.barh(places, values, height=height * 0.92, label=vendor, color=_COLOURS[number % len(_COLOURS)])
            for place, value in zip(places, values, strict=True):
                share = f"{value:,.0f}" + (f"  {value / base:.0%}" if base else "")
                axes.annotate(share, (value, place), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_xlabel(f"{counted}, and share of the vendor's own first step")
        axes.set_title(title, loc="left")
        axes.legend(fontsize=8, frameon=False, loc="lower right")
        return _png(figure)


def _tick_places() -> Any:
    from matplotlib.dates import AutoDateLocator

    return AutoDateLocator(minticks=1, maxticks=8, interval_multiples=False)  # type: ignore[no-untyped-call]


def _tick_dates() -> Any:
    from matplotlib.dates import DateFormatter

    return DateFormatter("%d %b")  # type: ignore[no-untyped-call]


def _by_vendor(frame: pd.DataFrame) -> Sequence[tuple[int, str, pd.DataFrame]]:
    """The vendor's number (of its colour, the same in every picture), name and rows."""
    known = list(vendor_names())
    names = [*known, *sorted({str(name) for name in frame["vendor"]} - set(known))]
    groups = ((str(vendor), rows) for vendor, rows in frame.groupby("vendor", sort=True))
    return [(names.index(vendor), vendor, rows) for vendor, rows in groups]


@contextmanager
def _figure(*, width: float, height: float) -> Iterator[tuple[Any, Any]]:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with plt.rc_context({"font.size": 9, "axes.titlesize": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
        try:
            yield figure, axes
        finally:
            plt.close(figure)


def _png(figure: Any) -> bytes:
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=_DPI, metadata={"Software": None})
    return target.getvalue()
