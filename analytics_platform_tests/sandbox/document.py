"""Writes the generated part of docs/sandbox.md: every observer's knobs, from their docstrings.

    python -m analytics_platform_tests.sandbox.document

Belongs here: reading `Profile` classes and replacing what stands between the markers. Does not belong here: the rest of
the page, which people write.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from analytics_platform.sandbox.server import VENDORS

PAGE = Path(__file__).parents[2] / "docs" / "sandbox.md"
OPENING, CLOSING = "<!-- profiles -->", "<!-- /profiles -->"


def profile_tables() -> str:
    """One table a vendor: knob, default, meaning."""
    return "\n".join(line for vendor in VENDORS for line in (f"\n### {vendor}\n", *_rows(vendor))) + "\n\n"


def with_profiles(page: str) -> str:
    """The page with its generated part brought up to date."""
    before, _, rest = page.partition(OPENING)
    _, _, after = rest.partition(CLOSING)
    return f"{before}{OPENING}\n{profile_tables()}{CLOSING}{after}"


def _rows(vendor: str) -> Iterator[str]:
    profile: Any = importlib.import_module(f"analytics_platform.sandbox.{vendor}").Profile
    defaults = {each.name: each.default for each in dataclasses.fields(profile)}
    yield "| knob | default | meaning |"
    yield "|---|---|---|"
    for names, meaning in _attributes(profile):
        default = ", ".join(f"`{defaults[name]!r}`" for name in names)
        yield f"| {', '.join(f'`{name}`' for name in names)} | {default} | {meaning} |"


def _attributes(profile: type) -> Iterator[tuple[list[str], str]]:
    """The entries of the docstring's "Attributes:", continuation lines joined."""
    _, _, listed = inspect.getdoc(profile).partition("Attributes:\n")  # type: ignore[union-attr]  # asserted by a test
    for entry in re.split(r"\n(?=    \S)", listed.rstrip()):
        names, _, meaning = entry.strip().partition(": ")
        yield [name.strip() for name in names.split(",")], " ".join(meaning.split()).replace("|", "/")


if __name__ == "__main__":
    PAGE.write_text(with_profiles(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
