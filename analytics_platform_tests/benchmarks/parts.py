"""What is measured: each part runs its pipes, compares them and says whether the figure it is for was held.

Belongs here: one function a part, the figures they hold themselves to (`FIGURES`). Does not belong here: the pipes, the
page and the command line (`__main__`), other loaders (`peers`).
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from analytics_platform_tests.benchmarks.pipes import Took, fetched
from analytics_platform_tests.benchmarks.rows import ROWS_A_PAGE
from analytics_platform_tests.benchmarks.server import serving

__all__ = ["PARTS", "Figure", "Part", "Result"]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number and what it is held to; `limit` None is for information."""

    what: str
    found: float
    limit: float | None = None
    at_least: bool = False

    @property
    def is_held(self) -> bool:
        if self.limit is None:
            return True
        return self.found >= self.limit if self.at_least else self.found <= self.limit


@dataclass(frozen=True, kw_only=True)
class Result:
    """A part's table and its figures."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    figures: Sequence[Figure] = field(default=())


@dataclass(frozen=True, kw_only=True)
class Part:
    """A section of the page."""

    title: str
    shows: str
    run: Callable[[bool], Result]


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        yield Path(folder)


def run_pipe(pipe: str, home: Path, *, url: str = "", pages: int, days: int = 1) -> Took:
    """One pipe, once, in a process of its own."""
    command = [sys.executable, "-m", "analytics_platform_tests.benchmarks.pipes", pipe]
    options = [f"--url={url}", f"--home={home}", f"--pages={pages}", f"--days={days}"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{pipe} failed:\n{done.stderr[-4000:]}")
    return Took(**json.loads(done.stdout))


def _row(name: str, runs: Sequence[Took]) -> list[str]:
    walls, cpus = [t.wall_seconds for t in runs], [t.cpu_seconds for t in runs]
    rows = runs[0].rows
    return [
        name,
        f"{statistics.median(walls):.2f} ({min(walls):.2f}-{max(walls):.2f})",
        f"{statistics.median(cpus):.2f} ({min(cpus):.2f}-{max(cpus):.2f})",
        f"{statistics.median(cpus) / rows * 1e6:.1f}",
        f"{statistics.median(t.peak_mib for t in runs):.0f}",
        f"{rows / statistics.median(walls):,.0f}",
    ]


_PIPE_COLUMNS = ("pipe", "wall s (least-most)", "CPU s (least-most)", "CPU s per M rows", "peak MiB", "rows/s")


def pipe_part(is_short: bool) -> Result:
    """Ours, the ideal pipe and the replay, in turn, the order turned around every time."""
    pages, times = (50, 3) if is_short else (500, 5)
    runs: dict[str, list[Took]] = {"ours": [], "ideal": [], "replay": []}
    with serving(pages=pages) as vendor, scratch() as folder:
        for turn in range(times):
            for pipe in ("ours", "ideal") if turn % 2 == 0 else ("ideal", "ours"):
                home = folder / pipe
                shutil.rmtree(home, ignore_errors=True)
                runs[pipe].append(run_pipe(pipe, home, url=vendor.base_url, pages=pages))
            before = vendor.requests()
            runs["replay"].append(run_pipe("replay", folder / "ours", pages=pages))
            asked = vendor.requests() - before
    ratio = {
        name: statistics.median(getattr(t, name) for t in runs["ours"])
        / statistics.median(getattr(t, name) for t in runs["ideal"])
        for name in ("wall_seconds", "cpu_seconds")
    }
    again = runs["replay"][0].rows / statistics.median(t.wall_seconds for t in runs["replay"])
    return Result(
        columns=_PIPE_COLUMNS,
        rows=[_row(name, found) for name, found in runs.items()],
        figures=[
            Figure(what="wall time, times the ideal pipe's", found=ratio["wall_seconds"], limit=1.6),
            Figure(what="CPU time, times the ideal pipe's", found=ratio["cpu_seconds"], limit=1.8),
            Figure(what="rows/s decoded again from landing", found=again, limit=200_000, at_least=True),
            Figure(what="requests of decoding again", found=asked, limit=0),
        ],
    )


def memory_part(is_short: bool) -> Result:
    """Ten times the rows of one partition, and the same memory."""
    few, many = (50, 500) if is_short else (500, 5_000)
    runs = {}
    for pages in (few, many):
        with serving(pages=pages) as vendor, scratch() as folder:
            runs[pages] = run_pipe("ours", folder / "home", url=vendor.base_url, pages=pages)
    return Result(
        columns=_PIPE_COLUMNS,
        rows=[_row(f"{pages * ROWS_A_PAGE:,} rows, one partition", [took]) for pages, took in runs.items()],
        figures=[
            Figure(what="peak of ten times the rows", found=runs[many].peak_mib / runs[few].peak_mib, limit=1.2),
            Figure(what="peak, MiB", found=runs[many].peak_mib, limit=512),
        ],
    )


def refused_part(is_short: bool) -> Result:
    """A 429 at page 40 of 50: waited for in the run, and met again by the next run."""
    del is_short
    rows, figures = [], []
    for name, retry_after in (("Retry-After of 1 s, waited for", 1), ("Retry-After of an hour, next run", 3_600)):
        with (
            serving(pages=50, days=50, refuse_page=40, retry_after_seconds=retry_after) as vendor,
            scratch() as home,
        ):
            runs = 1
            outcome = fetched(vendor.base_url, home, vendor.world)
            if outcome.deferred is not None:
                runs += 1
                # By another ledger, for which the hour is over.
                later = home / "later"
                later.mkdir()
                outcome = fetched(vendor.base_url, home, vendor.world, ledger_at=later / "ledger.sqlite3")
            if outcome.error is not None:
                raise outcome.error
            found = sum(partition.rows for day in outcome.decoded.values() for partition in day)
            requests = vendor.requests()
        rows.append([name, str(runs), str(requests), f"{found:,}"])
        figures.append(Figure(what=f"requests for 50 pages, {name}", found=requests, limit=52))
    return Result(columns=("case", "runs", "requests", "rows"), rows=rows, figures=figures)


def slow_line_part(is_short: bool) -> Result:
    """Many small requests at 150 ms."""
    from analytics_platform.core.concurrency import REQUESTS_AT_FIRST, REQUESTS_IN_FLIGHT
    from analytics_platform_tests.benchmarks.slow_line import statistics_over

    took = {
        in_flight: statistics_over(days=7 if is_short else 28, latency_seconds=0.15, in_flight=in_flight)
        for in_flight in (REQUESTS_AT_FIRST, REQUESTS_IN_FLIGHT)
    }
    return Result(
        columns=("in flight at most", "requests", "seconds", "requests x 150 ms / in flight"),
        rows=[
            [str(in_flight), str(line.requests), f"{line.seconds:.1f}", f"{line.least_seconds:.1f}"]
            for in_flight, line in took.items()
        ],
        figures=[
            Figure(
                what=f"time with {REQUESTS_AT_FIRST} in flight, times requests x latency / {REQUESTS_AT_FIRST}",
                found=took[REQUESTS_AT_FIRST].ratio,
                limit=1.3,
            )
        ],
    )


def increment_part(is_short: bool) -> Result:
    """One more day of 10,000 rows on a lake that is small, large and huge."""
    from analytics_platform_tests.benchmarks.increment import increments

    sizes = (10_000, 1_000_000) if is_short else (10_000, 1_000_000, 100_000_000)
    found = increments(sizes, times=3 if is_short else 5)
    medians = {size: statistics.median(cpu for _, cpu in runs) for size, runs in found.items()}
    walls = {size: statistics.median(wall for wall, _ in runs) for size, runs in found.items()}
    return Result(
        columns=("rows landed before", "partitions", "wall s", "CPU s"),
        rows=[
            [f"{size:,}", f"{max(1, size // 100_000):,}", f"{walls[size]:.3f}", f"{medians[size]:.3f}"]
            for size in sizes
        ],
        figures=[
            Figure(what=f"{what} on the largest, times the smallest", found=of[sizes[-1]] / of[sizes[0]], limit=1.2)
            for what, of in (("CPU", medians), ("wall", walls))
        ],
    )


PARTS: Mapping[str, Part] = {
    "pipe": Part(
        title="From a page to a typed partition",
        shows="500,000 nested rows in pages of 1,000, every promise on, beside the barest pipe to the same types.",
        run=pipe_part,
    ),
    "memory": Part(title="Memory", shows="5,000,000 rows of one partition in the memory of 500,000.", run=memory_part),
    "refused": Part(title="A 429 at page 40 of 50", shows="No page is paid for twice.", run=refused_part),
    "slow-line": Part(
        title="Many small requests", shows="The statistics of 28 days at 150 ms latency.", run=slow_line_part
    ),
    "increment": Part(
        title="One day more", shows="A day costs the same whatever lies in landing and lake.", run=increment_part
    ),
}
