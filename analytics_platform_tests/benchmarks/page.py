"""`docs/benchmarks.md`: sections that are written one by one, each with its command, its machine and its date.

Belongs here: the page's text. Does not belong here: measuring.
"""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path

from analytics_platform_tests.benchmarks.parts import Result

__all__ = ["PAGE", "machine", "put", "section"]

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"

_HEAD = """# Benchmarks: the path of a row

Written by `make bench` and `make bench-peers`, section by section; do not edit. Ratios are of one run on one
machine and say more than seconds. The code is in `analytics_platform_tests/benchmarks/`.
"""


def machine() -> str:
    """Processors, system and interpreter; no host name."""
    cores = os.cpu_count()
    return f"{cores} cores, {platform.system()} {platform.machine()}, CPython {platform.python_version()}"


def section(name: str, title: str, shows: str, command: str, load_before: str, result: Result) -> str:
    """One part in Markdown, between its marks."""
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    lines = [
        f"<!-- {name} -->",
        f"## {title}",
        "",
        shows,
        "",
        "| " + " | ".join(result.columns) + " |",
        "|" + "---|" * len(result.columns),
        *("| " + " | ".join(row) + " |" for row in result.rows),
        "",
    ]
    for figure in result.figures:
        if figure.limit is None:
            lines.append(f"- {figure.what}: {figure.found:,.2f}")
            continue
        word = "at least" if figure.at_least else "at most"
        verdict = "held" if figure.is_held else "**not held**"
        lines.append(f"- {figure.what}: {figure.found:,.2f} ({word} {figure.limit:,.2f}: {verdict})")
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    lines += ["", f"`{command}`, {when}, {machine()}, load {load_before} before and {load} after.", f"<!-- /{name} -->"]
    return "\n".join(lines) + "\n"


def put(page: Path, name: str, text: str) -> None:
    """Write one section in place of the one of its name, or behind the others."""
    known = page.read_text(encoding="utf-8") if page.exists() else _HEAD
    marks = re.compile(rf"<!-- {re.escape(name)} -->\n.*?<!-- /{re.escape(name)} -->\n", re.DOTALL)
    if marks.search(known):
        page.write_text(marks.sub(lambda _: text, known), encoding="utf-8")
    else:
        page.write_text(known.rstrip("\n") + "\n\n" + text, encoding="utf-8")
