"""The command: worlds, warehouses, figures, targets, and the page.

Belongs here: arguments and the order of things. Does not belong here: any of the things.

    python -m analytics_platform_tests.score [--seeds 5] [--size 1.0] [--json] [--keep FOLDER]

With `--keep` the homes stay in that folder, and one filled from the same worlds is not filled again: only dbt and the
comparison run.
Exits 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Final

from analytics_platform_tests.score.figures import judge
from analytics_platform_tests.score.report import page, tables
from analytics_platform_tests.score.seed import score_seed

_PAGE: Final = Path(__file__).parents[2] / "docs" / "score.md"


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="score-") as folder:
        yield Path(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Score, print, write the page; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 1 on")
    parser.add_argument("--size", type=float, default=1.0, help="multiplies the traffic")
    parser.add_argument("--json", action="store_true", help="every figure as JSON instead of tables")
    parser.add_argument("--keep", type=Path, help="folder the homes stay in")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--to", type=Path, help=f"the page; {_PAGE.name} in docs when all is as by default")
    chosen = parser.parse_args(arguments)
    load, begun = os.getloadavg(), time.monotonic()
    with _folder(chosen.keep) as folder:
        run = partial(score_seed, folder=folder, size=chosen.size)
        numbers = range(1, chosen.seeds + 1)
        if min(chosen.processes, chosen.seeds) <= 1:
            seeds = [run(number) for number in numbers]
        else:
            # A fresh interpreter a seed: dbt, servers and the environment are of the process.
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(chosen.processes, mp_context=context, max_tasks_per_child=1) as pool:
                seeds = list(pool.map(run, numbers))
    verdicts = judge(seeds)
    text = tables(seeds, verdicts)
    if chosen.json:
        shown = {"seeds": [asdict(seed) for seed in seeds], "targets": [asdict(verdict) for verdict in verdicts]}
        sys.stdout.write(json.dumps(shown) + "\n")
    else:
        sys.stdout.write(text)
    is_whole = chosen.size == 1.0 and chosen.seeds >= 5
    if target := chosen.to or (_PAGE if is_whole else None):
        words = f"python -m analytics_platform_tests.score --seeds {chosen.seeds} --size {chosen.size}"
        words += " --keep FOLDER" if chosen.keep else ""
        seconds = time.monotonic() - begun
        target.write_text(page(text, command=words, seeds=chosen.seeds, seconds=seconds, load=load), encoding="utf-8")
    return int(any(verdict.held is False for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
