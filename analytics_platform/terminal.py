"""What every verb shares at the terminal: options, the screen, JSON, days, exit codes.

Belongs here: words and shapes that must be the same for all verbs. Does not belong here: any verb (`cli`, `*_cli`).
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, is_dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "EXIT_DEFERRED",
    "EXIT_FAILED",
    "EXIT_USAGE",
    "FromOption",
    "JsonOption",
    "SiteOption",
    "ToOption",
    "VendorOption",
    "day_of",
    "emit",
    "finish",
    "instant",
    "screen_for",
]

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_DEFERRED: Final = 3
_PLAIN_WIDTH: Final = 132

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
FromOption = Annotated[str, typer.Option("--from", help="First day, YYYY-MM-DD.", metavar="DAY")]
ToOption = Annotated[str, typer.Option("--to", help="Last day, YYYY-MM-DD (inclusive).", metavar="DAY")]
VendorOption = Annotated[list[str] | None, typer.Option("--vendor", help="Only this vendor (repeatable).")]
SiteOption = Annotated[list[str] | None, typer.Option("--site", help="Only this site key (repeatable).")]


def screen_for(*, as_json: bool) -> Console:
    """Where people's text goes: standard output, or nowhere when a program reads it."""
    from rich.console import Console

    # A pipe or log has no width of its own; tables need one.
    return Console(stderr=as_json, quiet=as_json, soft_wrap=True, width=None if sys.stdout.isatty() else _PLAIN_WIDTH)


def emit(found: Any, *, as_json: bool) -> None:
    """One JSON document on standard output, where that was asked for."""
    if as_json:
        sys.stdout.write(json.dumps(_plain(found), default=str, allow_nan=False) + "\n")


def _plain(found: Any) -> Any:
    """Dataclasses as objects; a number nobody knows as null."""
    if is_dataclass(found) and not isinstance(found, type):
        return _plain(asdict(found))
    if isinstance(found, dict):
        return {key: _plain(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [_plain(item) for item in found]
    return None if isinstance(found, float) and not math.isfinite(found) else found


def day_of(text: str) -> date:
    """A day as a person writes it. Raises typer.BadParameter."""
    if text == "today":
        return date.today()  # noqa: DTZ011  (a person's word for a day)
    if text == "yesterday":
        return date.today() - timedelta(days=1)  # noqa: DTZ011
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a day like 2026-10-05") from error


def instant(value: datetime | None) -> str:
    """Minutes, UTC."""
    return "–" if value is None else f"{value:%Y-%m-%d %H:%M} UTC"


def finish(*, failed: bool, deferred: bool = False) -> None:
    """Leave with the exit code of the outcome; returns where all is well."""
    if failed:
        raise typer.Exit(EXIT_FAILED)
    if deferred:
        raise typer.Exit(EXIT_DEFERRED)
