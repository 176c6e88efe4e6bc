"""The command: a demo home, lakes, builds, targets, and the page.

Belongs here: arguments and the order of things. Does not belong here: any of the things.

    python -m analytics_platform_tests.benchmarks_marts [--sessions 100000 10000000] [--shape even] [--only daily]
        [--days 2] [--seed HOME] [--keep FOLDER]

With `--keep` lakes and warehouses stay in that folder and are used again: `--only daily` adds further days to them, and
the page tells what their full builds had cost.
Ten million sessions take 4 GB of disk and, on two cores, most of an hour. Exits 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Final

from analytics_platform_tests.benchmarks_marts.builds import Build, Node, build, build_all
from analytics_platform_tests.benchmarks_marts.lake import SESSION_TABLES, SyntheticLake
from analytics_platform_tests.benchmarks_marts.report import Measured, missed, page

_PAGE: Final = Path(__file__).parents[2] / "docs" / "marts_benchmark.md"
_NOTES: Final = Path(__file__).with_name("notes.md")
_LAST: Final = date(2026, 10, 31)
_SIZES: Final = {"even": (100_000, 10_000_000), "recent": (20_000, 1_000_000, 10_000_000)}
_RECENT_SESSIONS: Final = 100.0
_SETTLING_DAYS: Final = 6


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write the page; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, nargs="+", help="sizes; by default those of the shape")
    parser.add_argument("--shape", choices=sorted(_SIZES), nargs="+", default=["even"], help="how dates share them")
    parser.add_argument("--only", choices=["lake", "full", "daily"], help="stop after this, or start with it")
    parser.add_argument("--days", type=int, default=2, help="builds of one day, one after the other")
    parser.add_argument("--seed", type=Path, help="a demo home to multiply; one is made by default")
    parser.add_argument("--keep", type=Path, help="folder that lakes and warehouses stay in")
    parser.add_argument(
        "--to", type=Path, help=f"the page; {_PAGE.name} in docs when sizes and shape are as by default"
    )
    chosen = parser.parse_args(arguments)
    load, begun = os.getloadavg()[0], datetime.now().astimezone()
    measured = []
    with _folder(chosen.keep) as folder:
        seed = chosen.seed or _demo(folder)
        for shape in chosen.shape:
            sizes = chosen.sessions or _SIZES[shape]
            for sessions in sizes:
                each = _measure(
                    folder, seed / "lake", sessions, shape, day_of=min(sizes), only=chosen.only, days=chosen.days
                )
                measured.append(each)
                if chosen.keep is None:
                    shutil.rmtree(folder / f"{shape}-{sessions}")
    machine = (
        f"{begun:%Y-%m-%d %H:%M}, {os.cpu_count()} cores, load {load:.1f} when it began and "
        f"{os.getloadavg()[0]:.1f} when it ended."
    )
    command = (
        "make bench-marts"
        if not arguments and len(sys.argv) == 1
        else f'make bench-marts BENCH="{" ".join(arguments or sys.argv[1:])}"'
    )
    text = page(measured, command=command, machine=machine, notes=_NOTES.read_text(encoding="utf-8"))
    sys.stdout.write(text)
    target = chosen.to or (_PAGE if chosen.only is None and not chosen.sessions else None)
    if target is not None:
        target.write_text(text, encoding="utf-8")
    return 1 if missed(measured) else 0


def _measure(
    folder: Path, seed: Path, sessions: int, shape: str, *, day_of: int, only: str | None, days: int
) -> Measured:
    """One size. The days added to it are those of `day_of` sessions: the same day on histories of any length."""
    work = folder / f"{shape}-{sessions}"
    made = SyntheticLake(
        seed=seed,
        root=work / "lake",
        sessions=sessions,
        last=_LAST,
        recent_sessions=_RECENT_SESSIONS if shape == "recent" else None,
    )
    if not (work / "written").is_file():
        _say(f"{sessions:,} sessions, {shape}: writing the lake")
        made.write(_say)
        (work / "written").touch()
    kept = work / "full.json"
    full = _kept(kept)
    if only in (None, "full"):
        _say("  full build")
        full = build_all(made.root, work, made.first, made.last)
        _say(
            f"    {full.cpu_seconds:.0f} CPU s, {full.wall_seconds:.0f} s, {full.memory_mib:,.0f} MiB "
            f"{full.failed or ''}"
        )
        kept.write_text(json.dumps(asdict(full)))
    daily = []
    if only in (None, "daily"):
        small = replace(made, sessions=day_of)
        if not (work / "settled").is_file():
            # What a build sees around its day is the same, too.
            settling = list(_days_to_add(work, _SETTLING_DAYS))
            for added in settling:
                small.write_date(added)
            build(made.root, work, settling[0], settling[-1])
            (work / "settled").touch()
        for added in _days_to_add(work, days):
            small.write_date(added)
            daily.append(build(made.root, work, added, added))
            _say(
                f"  {added}: {daily[-1].cpu_seconds:.1f} CPU s, {daily[-1].wall_seconds:.0f} s {daily[-1].failed or ''}"
            )
    rows = made.rows()
    result = Measured(
        sessions=sessions,
        shape=shape,
        lake_rows=sum(rows.values()),
        session_rows=sum(rows[name] for name in SESSION_TABLES),
        day_sessions=round(replace(made, sessions=day_of).sessions_on(made.last + timedelta(days=1))),
        full=full,
        daily=daily,
    )
    (work / f"measured-{datetime.now().astimezone():%H%M%S}.json").write_text(
        json.dumps(asdict(result), default=str, indent=1)
    )
    return result


def _kept(path: Path) -> Build | None:
    """The full build whose warehouse the days are built on, where an earlier command of this folder made it."""
    if not path.is_file():
        return None
    told = json.loads(path.read_text())
    return Build(**{**told, "nodes": [Node(**node) for node in told["nodes"]]})


def _days_to_add(work: Path, count: int) -> Iterator[date]:
    """The dates after the newest one in the folder's lake."""
    sessions = work / "lake" / SESSION_TABLES[0]
    newest = max(date.fromisoformat(path.name[4:]) for path in sessions.glob("site=*/day=*"))
    for number in range(1, count + 1):
        yield newest + timedelta(days=number)


def _demo(folder: Path) -> Path:
    """A demo home: the rows everything is made of."""
    home = folder / "seed"
    if not (home / "demo.json").is_file():
        _say("making a demo home for its rows")
        executable = Path(sys.executable).with_name("analytics-platform")
        subprocess.run(
            [str(executable), "demo"], env=os.environ | {"ANALYTICS_PLATFORM_HOME": str(home)}, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
    return home


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="bench-marts-") as folder:
        yield Path(folder)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
