"""The `notebook` verb: the notebooks that come with the platform, opened on this home.

Belongs here: finding them and starting marimo on loopback. Does not belong here: what they show (`notebooks/`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final

import typer

from analytics_platform.core.errors import ConfigurationError
from analytics_platform.settings import HOME_VARIABLE, load_settings
from analytics_platform.terminal import EXIT_FAILED, JsonOption, emit, screen_for

__all__ = ["NOTEBOOKS", "command_of", "notebook", "notebooks"]

NOTEBOOKS: Final = Path(__file__).parents[1] / "notebooks"
"""In a checkout beside the package."""


def notebooks() -> dict[str, Path]:
    """Name → file, in the order to read them."""
    return {path.stem.partition("_")[2]: path for path in sorted(NOTEBOOKS.glob("[0-9]*_*.py"))}


def command_of(path: Path, *, edit: bool, port: int) -> list[str]:
    """The command of marimo on loopback: as an app to look at, or to edit. It asks no server for updates."""
    verb = ["edit", "--skip-update-check"] if edit else ["run"]
    return [sys.executable, "-m", "marimo", "-q", *verb, str(path), "--host", "127.0.0.1", "--port", str(port)]


def notebook(
    name: Annotated[str | None, typer.Argument(help="Which one; without a name they are listed.")] = None,
    edit: Annotated[bool, typer.Option(help="Open it to change it, instead of to look at it.")] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Loopback port.")] = 2718,
    as_json: JsonOption = False,
) -> None:
    """Open one of the notebooks in the browser (loopback only), reading what this home has published.

    Example: analytics-platform notebook first_look
    """
    found = notebooks()
    if name is None:
        if not as_json:
            for known, path in found.items():
                screen_for(as_json=False).print(f"{known:22} {path.name}", highlight=False, markup=False)
        emit({known: path.name for known, path in found.items()}, as_json=as_json)
        return
    if name not in found:
        raise ConfigurationError(f"There is no notebook {name!r}.", f"Notebooks: {', '.join(found) or 'none here'}.")
    if find_spec("marimo") is None:
        raise ConfigurationError("marimo is not installed.", "Install analytics-platform[notebook].")
    environment = os.environ | {HOME_VARIABLE: str(load_settings().home.root)}
    command = command_of(found[name], edit=edit, port=port)
    if subprocess.run(command, env=environment, check=False).returncode:  # noqa: S603 - our own interpreter
        raise typer.Exit(EXIT_FAILED)
