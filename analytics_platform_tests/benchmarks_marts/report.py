"""The page: what builds cost at each size, what that is held against, and the slowest nodes.

Belongs here: judging and writing. Does not belong here: measuring (`builds`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from analytics_platform_tests.benchmarks_marts.builds import Build

__all__ = ["MEMORY_MIB", "Measured", "missed", "page"]

MEMORY_MIB: Final = 4096
_RATIO: Final = 1.5
_RATIO_FROM: Final = 100_000
_LARGEST: Final = 10_000_000
_SAME_RATIO: Final = 1.2
_SHOWN: Final = 5
_SHAPES: Final = {
    "even": "every date of the history has its share; the days built after it are those of the smallest size",
    "recent": "the last 112 dates and the day that is built are the same at every size, the history before is not",
}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One size: the lake, the full build, and builds of one day each, one after the other."""

    sessions: int
    shape: str
    lake_rows: int
    session_rows: int
    day_sessions: int
    full: Build | None
    daily: Sequence[Build]

    @property
    def daily_cpu(self) -> float | None:
        """Processor seconds of the cheapest of the daily builds: the machine's other work only adds."""
        return min((build.cpu_seconds for build in self.daily), default=None)


def missed(measured: Sequence[Measured]) -> list[str]:
    """Targets that are not met, in words."""
    found = []
    for each in measured:
        for name, build in [("full", each.full), *(("daily", build) for build in each.daily)]:
            if build is None:
                continue
            if build.failed:
                found.append(f"{each.sessions:,} {each.shape}: {name} build failed: {'; '.join(build.failed[:3])}")
            if build.memory_mib >= MEMORY_MIB:
                found.append(f"{each.sessions:,} {each.shape}: {name} build used {build.memory_mib:,.0f} MiB")
    for shape, base, most in (("even", _RATIO_FROM, _RATIO), ("recent", None, _SAME_RATIO)):
        for sessions, ratio in _ratios([each for each in measured if each.shape == shape], base).items():
            if ratio > most:
                found.append(f"{sessions:,} {shape}: a day costs {ratio:.2f} times what it costs on the smallest")
    return found


def _unmeasured(measured: Sequence[Measured]) -> list[str]:
    """Targets these measurements say nothing of, in words."""
    even = {each.sessions: each for each in measured if each.shape == "even"}
    base, largest = even.get(_RATIO_FROM), even.get(_LARGEST)
    recent = {each.sessions for each in measured if each.shape == "recent" and each.daily}
    found = []
    if not (base and base.daily and largest and largest.daily):
        found.append(f"a day on {_LARGEST:,} sessions at most {_RATIO} times one on {_RATIO_FROM:,}")
    if not (largest and largest.full):
        found.append(f"a full build of {_LARGEST:,} sessions below {MEMORY_MIB:,} MiB")
    if len(recent) < 2:
        found.append(f"the same day at most {_SAME_RATIO} times as dear on a longer history (--shape recent)")
    return found


def _ratios(measured: Sequence[Measured], base: int | None) -> Mapping[int, float]:
    """Daily cost by sessions over that of `base` (the smallest by default); sizes below the base are left out."""
    costs = {each.sessions: each.daily_cpu for each in measured if each.daily_cpu is not None}
    costs = {sessions: cost for sessions, cost in costs.items() if base is None or sessions >= base}
    if not costs:
        return {}
    least = costs[min(costs)]
    return {sessions: cost / least for sessions, cost in sorted(costs.items()) if cost and least}


def page(measured: Sequence[Measured], *, command: str, machine: str, notes: str) -> str:
    """Markdown of everything measured."""
    lines = ["# What a build of the marts costs", "", f"Written by `{command}`. {machine}", "", notes.strip(), ""]
    for shape, words in _SHAPES.items():
        mine = [each for each in measured if each.shape == shape]
        if mine:
            lines += [f"## `{shape}`: {words}", "", *_table(mine, _RATIO_FROM if shape == "even" else None), ""]
    largest = max((each for each in measured), key=lambda each: each.sessions)
    for name, build in (("full", largest.full), ("daily", largest.daily[-1] if largest.daily else None)):
        if build is not None:
            lines += [f"## Slowest of the {name} build on {largest.sessions:,} sessions", ""]
            lines += ["| node | kind | seconds by the wall |", "|---|---|---:|"]
            lines += [f"| {n.name} | {n.kind} | {n.seconds:.1f} |" for n in build.slowest(_SHOWN)]
            lines += [""]
    problems = [f"- missed: {text}" for text in missed(measured)]
    problems += [f"- not measured here: {text}" for text in _unmeasured(measured)]
    lines += ["## Targets", "", *(problems or ["All met."]), ""]
    return "\n".join(lines)


def _table(measured: Sequence[Measured], base: int | None) -> list[str]:
    ratios = _ratios(measured, base)
    lines = [
        "| sessions | lake rows | sessions of the day | full: CPU s | wall s | peak MiB | warehouse MiB "
        "| day: CPU s | wall s | peak MiB | ratio |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for each in sorted(measured, key=lambda each: each.sessions):
        cells = [f"{each.session_rows:,}", f"{each.lake_rows:,}", f"{each.day_sessions:,}"]
        cells += (
            ["–"] * 4
            if each.full is None
            else [
                f"{each.full.cpu_seconds:.0f}",
                f"{each.full.wall_seconds:.0f}",
                f"{each.full.memory_mib:,.0f}",
                f"{each.full.warehouse_bytes / 2**20:,.0f}",
            ]
        )
        best = min(each.daily, key=lambda build: build.cpu_seconds, default=None)
        cells += (
            ["–"] * 3
            if best is None
            else [f"{best.cpu_seconds:.1f}", f"{best.wall_seconds:.0f}", f"{best.memory_mib:,.0f}"]
        )
        ratio = ratios.get(each.sessions)
        lines.append("| " + " | ".join([*cells, "–" if ratio is None else f"{ratio:.2f}"]) + " |")
    return lines
