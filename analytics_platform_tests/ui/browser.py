"""A page as headless Chromium draws it: its DOM, its picture, and whether anything was drawn.

Belongs here: starting the browser and reading what it left. Does not belong here: which pages there are (the tests).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

SCREENS_VARIABLE = "ANALYTICS_PLATFORM_SCREENS"
"""Folder that also gets the pictures, under the names the tests give them: for looking at, and for the README."""
WIDTH, HEIGHT = 1600, 1000


@dataclass(frozen=True)
class Shown:
    """A page after it had its time: the DOM it has then, and how many pixels each colour covers."""

    dom: str
    colours: Counter[object]


def browse(url: str, folder: Path, *, name: str = "page", height: int = HEIGHT) -> Shown:
    """Load a page; skips the test where there is no Chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no `chromium` on this machine (Debian: apt-get install chromium)")
    picture = folder / f"{name}.png"
    command = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={WIDTH},{height}"]
    command += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=20000", "--dump-dom"]
    done = subprocess.run([*command, f"--screenshot={picture}", url], capture_output=True, timeout=90, check=True)
    if SCREENS_VARIABLE in os.environ:
        shutil.copy(picture, Path(os.environ[SCREENS_VARIABLE]))
    with Image.open(picture) as image:
        found = image.convert("RGB").getcolors(maxcolors=WIDTH * height) or []
        return Shown(dom=done.stdout.decode(), colours=Counter({colour: count for count, colour in found}))


def assert_drawn(page: Shown, *, height: int = HEIGHT) -> None:
    """Not blank: many colours, and none of them covers everything."""
    total = sum(page.colours.values())
    assert total == WIDTH * height
    assert len(page.colours) > 100
    assert page.colours.most_common(1)[0][1] < 0.97 * total
