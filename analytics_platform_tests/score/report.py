"""The score as text: tables for a terminal and for `docs/score.md`.

Belongs here: layout. Does not belong here: any figure that is not already in `figures`.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from analytics_platform_tests.score.figures import ComponentFigure, SeedFigures, Verdict, pooled

__all__ = ["page", "tables"]

_HEAD = """# Score: the explanation beside the truth

Written by `make score` ({command}); do not edit. {when} UTC on {machine}; load average {load} when it began.
{seeds} seeds, three sandbox worlds each (`analytics_platform_tests/score/worlds.py`), through HTTP, clients, landing,
lake and one dbt build a seed; {minutes:.1f} minutes in all (with `--keep` without fetching). What is true is counted by
switching one cause after the other off in the sandbox (`sandbox/effects.py`). A component's error is the sum over
sites, vendors and days of |estimated - injected|; its share is of the sum of |injected|. The remainder is judged net
over a site's days: by day, the noise of who consents alone is about what is allowed. Judged from the 15th day of a
world on.
"""


def tables(seeds: Sequence[SeedFigures], verdicts: Sequence[Verdict]) -> str:
    """What was measured, then what was promised of it."""
    parts = []
    every = [figure for seed in seeds for figure in seed.components or ()]
    if every:
        parts.append("Components, all sites and seeds\n\n" + _components(every, ["component", "metric"]))
        parts.append("Components by vendor\n\n" + _components(every, ["component", "metric", "vendor"]))
        parts.append("Remainder\n\n" + _remainder(every))
    breaks = [(seed.seed, one) for seed in seeds for one in seed.breaks or ()]
    if breaks:
        rows = [
            (seed, one.metric, len(one.planted), len(one.found), one.right, one.right_within_a_day)
            for seed, one in breaks
        ]
        names = ("seed", "metric", "planted", "found", "right day", "within a day")
        parts.append("Breaks\n\n" + _table(names, rows))
    parts.append("Targets\n\n" + _table(("what", "figure", "target", "held"), [_line(one) for one in verdicts]))
    timed = [(seed.seed, *(f"{name} {took:.0f} s" for name, took in seed.seconds.items())) for seed in seeds]
    parts.append("Seconds\n\n" + "\n".join("  ".join(map(str, row)) for row in timed) + "\n")
    return "\n".join(parts)


def page(text: str, *, command: str, seeds: int, seconds: float, load: Sequence[float]) -> str:
    """The tables as a page with machine and date."""
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, CPython {platform.python_version()}"
    head = _HEAD.format(
        command=f"`{command}`",
        when=f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        machine=machine,
        load=" ".join(f"{value:.1f}" for value in load),
        seeds=seeds,
        minutes=seconds / 60,
    )
    return head + "\n" + "".join(f"    {line}".rstrip() + "\n" for line in text.splitlines())


def _line(verdict: Verdict) -> tuple[str, str, str, str]:
    held = "-" if verdict.held is None else "yes" if verdict.held else "NO"
    return verdict.what, verdict.figure, verdict.target, held


def _components(every: Iterable[ComponentFigure], by: list[str]) -> str:
    rows = []
    for row in pooled(every, by).to_dict("records"):
        share, net = (
            f"{row[name]:.1%}" if row[name] == row[name] else "" for name in ("error_share", "net_error_share")
        )
        counts = (f"{row[name]:,.0f}" for name in ("injected", "estimated", "injected_size", "error"))
        rows.append((*(row[name] for name in by), *counts, share, net, row["days_without"]))
    return _table((*by, "injected", "estimated", "|injected|", "|error|", "share", "net", "no row"), rows)


def _remainder(every: Iterable[ComponentFigure]) -> str:
    rows = []
    for row in pooled((one for one in every if one.component == "unexplained"), ["metric", "vendor"]).to_dict(
        "records"
    ):
        rows.append(
            (
                row["metric"],
                row["vendor"],
                f"{row['gap_size']:,.0f}",
                f"{row['error'] / row['gap_size']:.1%}",
                f"{row['net_error'] / row['gap_size']:.1%}",
                f"{row['noise'] / row['gap_size']:.1%}",
                f"{row['error'] / row['effects_size']:.1%}",
            )
        )
    return _table(("metric", "vendor", "|gap|", "by day", "net", "noise by day", "by day, of all effects"), rows)


def _table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    texts = [list(names), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(names))]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in texts)
    return "".join(f"{line.rstrip()}\n" for line in padded)


def _percent(share: float) -> str:
    """Nothing where nothing was injected (the share is NaN)."""
    return "" if math.isnan(share) else f"{share:.1%}"
