"""Runs the quota benchmarks and writes `docs/quota.md`: every figure with the command, the machine and the date.

Belongs here: the list of commands and the page around what they print. Does not belong here: measuring.

    python -m analytics_platform_tests.simulation.figures [--short] [--only NAME]

A part that is run by itself takes its own place on the page; the others stay with their dates.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_PACKAGE = "analytics_platform_tests.simulation"
_PAGE = Path(__file__).parents[2] / "docs" / "quota.md"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One command, its arguments in full and in short, and what it shows."""

    module: str
    name: str = ""
    title: str
    shows: str
    arguments: tuple[str, ...] = ()
    short: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What `--only` calls it."""
        return self.name or self.module


BENCHMARKS = (
    Benchmark(
        module="kameleoon_rate",
        title="Kameleoon's 50 requests a second",
        shows="At least 95 % of 50 GET/s with credentials, no answer 429 with or without, at any latency.",
        arguments=("--seconds", "60"),
        short=("--seconds", "15"),
    ),
    Benchmark(
        module="ledger_overhead",
        title="What the ledger costs",
        shows="At least 5,000 decisions a second on one process; at most 5 % of the time of a run of 10,000 pages.",
        arguments=("--pages", "10000"),
        short=("--pages", "2000", "--decisions", "8000"),
    ),
    Benchmark(
        module="makespan",
        title="Hours of a 90-day Smartlook backfill",
        shows="Hours taken beside the least that each plan's limit allows, and how late the mornings' days landed.",
        arguments=("--days", "90"),
        short=("--days", "20"),
    ),
    Benchmark(
        module="backfill",
        title="Requests of a backfill, used, planned and fewest",
        shows="At most 1.02 of the fewest requests possible; the plan within 10 %; the same range again costs nothing.",
        arguments=("--days", "90"),
        short=("--days", "30", "--scale", "0.3"),
    ),
    Benchmark(
        module="resume",
        title="A thousand pages, cut again and again",
        shows="The same rows as without a cut, and at most one request more for each cut of a day's partition (of a "
        "search over twenty days: shown, not judged).",
        arguments=("--pages", "1000", "--every", "50"),
        short=("--pages", "100", "--every", "20", "--days", "1"),
    ),
    *(
        Benchmark(
            module="quota_month",
            name=f"quota_month_{plan}",
            title=f"A month of five vendors under kills, Smartlook plan {plan}",
            shows="No window exceeded and no answer 429, four processes, forty of them killed.",
            arguments=("--plan", plan, "--days", "30", "--kills", "40"),
            short=("--plan", plan, "--days", "3", "--kills", "8"),
        )
        for plan in ("free", "paid", "addon")
    ),
)

_HEAD = """# Quota: the figures

Written by `make bench-quota`; do not edit. What is promised is in `core/quota.py`, what is planned and resumed in
`core/planning.py` and `core/resuming.py`, how a large day is asked in `core/day_walk.py`.
"""


def section(benchmark: Benchmark, *, is_short: bool) -> tuple[str, bool]:
    """Run one; its part of the page, and whether it held what it shows."""
    arguments = benchmark.short if is_short else benchmark.arguments
    command = [sys.executable, "-m", f"{_PACKAGE}.{benchmark.module}", *arguments]
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC on {machine()}, load average {load} when it began"
    begun = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    seconds = time.monotonic() - begun
    verdict = "Held" if done.returncode == 0 else "**Not held**"
    shown = f"python -m {_PACKAGE}.{benchmark.module} {' '.join(arguments)}".strip()
    text = f"\n## {benchmark.title}\n\n{benchmark.shows} {verdict}, in {seconds:.0f} s. {when}.\n\n    $ {shown}\n"
    return text + "".join(f"    {line}\n" for line in done.stdout.splitlines()), done.returncode == 0


def sections_of(page: Path) -> dict[str, str]:
    """The parts of a page as it is, by title."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    _, *parts = text.split("\n## ")
    return {part.partition("\n")[0]: f"\n## {part.rstrip()}\n" for part in parts}


def machine() -> str:
    """Processors, system and interpreter; no host name."""
    cores = os.cpu_count()
    return f"{cores} cores, {platform.system()} {platform.machine()}, CPython {platform.python_version()}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all or some, write the page; fails where one did not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="minutes instead of an hour")
    parser.add_argument("--only", action="append", choices=sorted(benchmark.key for benchmark in BENCHMARKS))
    parser.add_argument("--to", type=Path, default=_PAGE)
    chosen = parser.parse_args(arguments)
    all_held = True
    for benchmark in BENCHMARKS:
        if chosen.only and benchmark.key not in chosen.only:
            continue
        text, is_held = section(benchmark, is_short=chosen.short)
        all_held &= is_held
        known = {**sections_of(chosen.to), benchmark.title: text}
        ordered = [known[each.title] for each in BENCHMARKS if each.title in known]
        chosen.to.write_text("".join([_HEAD, *ordered]), encoding="utf-8")
    return int(not all_held)


if __name__ == "__main__":
    sys.exit(main())
