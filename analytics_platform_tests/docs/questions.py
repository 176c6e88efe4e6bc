"""The commands of docs/questions/, and their outputs.

Belongs here: finding commands in the pages, running one in this process, writing outputs below them. Does not belong
here: what an answer should be (the tests of the verbs).

A command stands in a block ```sh; one whose answer needs the whole demo is in a block ```sh four-weeks. With the home
of a finished demo in the environment,

    python -m analytics_platform_tests.docs.questions

puts what each prints into a block ```text below it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from analytics_platform.cli import app

PAGES = Path(__file__).parents[2] / "docs" / "questions"
PROGRAM = "analytics-platform"
_BLOCK = re.compile(r"```sh(?P<mark>[^\n]*)\n(?P<text>.*?)\n```\n(?:\n```text\n.*?\n```\n)?", re.DOTALL)
_WIDTH = "118"
_LINES = 28


@dataclass(frozen=True)
class Command:
    """One command of a page, without the program's name."""

    page: str
    arguments: tuple[str, ...]
    needs_four_weeks: bool

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(' '.join(self.arguments).split())[:60]}"

    def run(self) -> Result:
        """Run it in this process, on the home the environment names."""
        return CliRunner().invoke(app, self.arguments, env={"COLUMNS": _WIDTH, "NO_COLOR": "1"})

    def within(self, last_date: str) -> Command:
        """The same about a home that ends on `last_date`; a plan may be about any days."""
        if self.arguments[0] == "plan":
            return self
        moved = tuple(re.sub(r"\d{4}-\d{2}-\d{2}", lambda d: min(d[0], last_date), each) for each in self.arguments)
        return Command(self.page, moved, self.needs_four_weeks)


def commands() -> Iterator[Command]:
    """Every command of every page, in order."""
    for page in sorted(PAGES.glob("[0-9]*.md")):
        for block in _BLOCK.finditer(page.read_text(encoding="utf-8")):
            yield _command(page, block)


def _command(page: Path, block: re.Match[str]) -> Command:
    program, *arguments = shlex.split(block["text"].replace("\\\n", ""))
    if program != PROGRAM or PROGRAM in arguments:
        raise ValueError(f"{page.name}: one {PROGRAM} command a block, not {block['text']!r}")
    return Command(page.stem, tuple(arguments), block["mark"].strip() == "four-weeks")


def with_outputs(page: Path) -> str:
    """The page with the outputs of its commands on the home in the environment.

    Raises:
        RuntimeError: a command failed.
    """

    def filled(block: re.Match[str]) -> str:
        done = _command(page, block).run()
        if done.exit_code != 0:
            raise RuntimeError(f"{page.name}: {done.output or done.exception!r}")
        lines = [line.rstrip() for line in done.stdout.rstrip().splitlines()]
        if len(lines) > _LINES:
            lines = [*lines[: _LINES // 2], f"… {len(lines) - _LINES} lines …", *lines[-_LINES // 2 :]]
        shown = "\n".join(lines)
        return f"```sh{block['mark']}\n{block['text']}\n```\n\n```text\n{shown}\n```\n"

    return _BLOCK.sub(filled, page.read_text(encoding="utf-8"))


if __name__ == "__main__":
    for each in sorted(PAGES.glob("[0-9]*.md")):
        each.write_text(with_outputs(each), encoding="utf-8")
