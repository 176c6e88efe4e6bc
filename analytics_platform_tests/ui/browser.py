"""A page as headless Chromium draws it: its DOM, its picture, and whether anything was drawn.

Belongs here: starting the browser and reading what it left. Does not belong here: which pages there are (the tests).
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from PIL import Image
from websockets.sync.client import ClientConnection, connect

from analytics_platform_tests.ui.running_ui import wait_until

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
    return _shown(done.stdout.decode(), picture, height)


def _shown(dom: str, picture: Path, height: int) -> Shown:
    if SCREENS_VARIABLE in os.environ:
        shutil.copy(picture, Path(os.environ[SCREENS_VARIABLE]))
    with Image.open(picture) as image:
        found = image.convert("RGB").getcolors(maxcolors=WIDTH * height) or []
    return Shown(dom=dom, colours=Counter({colour: count for count, colour in found}))


def assert_drawn(page: Shown, *, height: int = HEIGHT) -> None:
    """Not blank: many colours, and none of them covers everything."""
    total = sum(page.colours.values())
    assert total == WIDTH * height
    assert len(page.colours) > 100
    assert page.colours.most_common(1)[0][1] < 0.97 * total


def browse_live(
    url: str, folder: Path, *, name: str, until: Sequence[str], pictures: int = 0, height: int = HEIGHT
) -> Shown:
    """As `browse`, for a page that fills itself over a WebSocket: virtual time runs out before it is there.

    Waits in real time until all of these texts and so many pictures are on the page.
    """
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no `chromium` on this machine (Debian: apt-get install chromium)")
    profile = folder / "live"
    command = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={WIDTH},{height}"]
    command += [f"--user-data-dir={profile}", "--remote-debugging-port=0", "--remote-allow-origins=*", "about:blank"]
    told = profile / "DevToolsActivePort"
    told.unlink(missing_ok=True)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: told.is_file() and "/" in told.read_text(), seconds=30, what="Chromium is ready")
        port = int(told.read_text().split()[0])
        with urlopen(f"http://127.0.0.1:{port}/json") as answer:
            page = next(target for target in json.load(answer) if target["type"] == "page")
        with connect(page["webSocketDebuggerUrl"], max_size=None) as wire:
            _ask(wire, "Page.navigate", url=url)
            wait_until(lambda: _holds(wire, until, pictures), seconds=60, what=f"{until} on {url}")
            metrics = {"width": WIDTH, "height": height, "deviceScaleFactor": 1, "mobile": False}
            _ask(wire, "Emulation.setDeviceMetricsOverride", **metrics)
            picture = folder / f"{name}.png"
            picture.write_bytes(base64.b64decode(_ask(wire, "Page.captureScreenshot")["data"]))
            dom = str(_ask(wire, "Runtime.evaluate", expression=_DOM)["result"]["value"])
    finally:
        process.terminate()
        process.wait(timeout=20)
    return _shown(dom, picture, height)


_TEXT = "document.body.innerText"
_PICTURES = "document.images.length"
_DOM = "document.documentElement.outerHTML"


def _ask(wire: ClientConnection, method: str, **parameters: object) -> Any:
    """One command of the DevTools protocol and its answer; events in between are left out."""
    wire.send(json.dumps({"id": 1, "method": method, "params": parameters}))
    while True:
        answer = json.loads(wire.recv(timeout=30))
        if answer.get("id") == 1:
            assert "error" not in answer, answer
            return answer["result"]


def _holds(wire: ClientConnection, texts: Sequence[str], pictures: int) -> bool:
    shown = str(_ask(wire, "Runtime.evaluate", expression=_TEXT)["result"].get("value", ""))
    drawn = int(_ask(wire, "Runtime.evaluate", expression=_PICTURES)["result"].get("value", 0))
    return all(text in shown for text in texts) and drawn >= pictures
