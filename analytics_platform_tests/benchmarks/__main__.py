"""Runs the benchmarks and writes their sections of `docs/benchmarks.md`.

Belongs here: the command line. Does not belong here: measuring (`parts`, `peers`), the page (`page`).

    python -m analytics_platform_tests.benchmarks [--short] [--only PART]... [--peers] [--to FILE]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from analytics_platform_tests.benchmarks.page import PAGE, put, section
from analytics_platform_tests.benchmarks.parts import PARTS
from analytics_platform_tests.benchmarks.peers import PEERS_PART


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; fails where a figure was not held. A short run writes no page unless told where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a tenth of the rows, to iterate; writes no page")
    parser.add_argument("--only", action="append", choices=sorted(PARTS), help="this part; may be given several times")
    parser.add_argument("--peers", action="store_true", help="the other loaders instead of the parts")
    parser.add_argument("--to", type=Path, help=f"another page than docs/{PAGE.name}")
    chosen = parser.parse_args(arguments)
    wanted = {name: part for name, part in PARTS.items() if not chosen.only or name in chosen.only}
    parts = {"peers": PEERS_PART} if chosen.peers else wanted
    page = chosen.to or (None if chosen.short else PAGE)
    all_held = True
    for name, part in parts.items():
        load = " ".join(f"{value:.1f}" for value in os.getloadavg())
        begun = time.monotonic()
        result = part.run(chosen.short)
        options = [*(["--short"] if chosen.short else []), "--peers" if chosen.peers else f"--only {name}"]
        command = f"python -m analytics_platform_tests.benchmarks {' '.join(options)}"
        text = section(name, part.title, part.shows, command, load, result)
        sys.stdout.write(f"{text}({time.monotonic() - begun:.0f} s)\n\n")
        sys.stdout.flush()
        if page is not None:
            put(page, name, text)
        all_held &= all(figure.is_held for figure in result.figures)
    return 0 if all_held else 1


if __name__ == "__main__":
    sys.exit(main())
