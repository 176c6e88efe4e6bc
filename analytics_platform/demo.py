"""The first run: a sandbox in a child process, a home that points at it.

Belongs here: what makes a home a demo home, starting and stopping the sandbox process. Does not belong here: running
partitions
(`runner`), printing (`cli`), the sandbox itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any, Final

from analytics_platform.core.durable import write_file
from analytics_platform.core.errors import ConfigurationError
from analytics_platform.settings import CONFIG_VARIABLE, HOME_VARIABLE, Home

__all__ = ["DemoHome", "demo_home", "sandbox_process"]

_MARKER: Final = "demo.json"
_START_SECONDS: Final = 60


@dataclass(frozen=True)
class DemoHome:
    """What the demo's sandbox is asked to be, kept beside its data so that `ui` can start the same one again."""

    seed: int = 7
    first_day: str = "2026-10-05"
    days: int = 28

    @property
    def first(self) -> date:
        return date.fromisoformat(self.first_day)

    @property
    def last(self) -> date:
        return self.first + timedelta(days=self.days - 1)


def demo_home(home: Home, *, create: bool = False) -> DemoHome | None:
    """The demo settings of a home; None where it is not a demo home (`create` makes an empty one into it).

    Raises:
        ConfigurationError: the home belongs to somebody's real sites.
    """
    marker = home.root / _MARKER
    if marker.is_file():
        return DemoHome(**json.loads(marker.read_text(encoding="utf-8")))
    if not create:
        return None
    if (home.root / "sites.yaml").exists() or home.landing.exists():
        raise ConfigurationError(
            f"{home.root} already holds data of real sites.",
            f"Point {HOME_VARIABLE} at an empty folder for the demo.",
        )
    chosen = DemoHome()
    write_file(marker, json.dumps(asdict(chosen)).encode())
    return chosen


@contextmanager
def sandbox_process(
    home: Home, demo: DemoHome, *, meanwhile: Callable[[], object] | None = None
) -> Iterator[dict[str, Any]]:
    """Run the demo's sandbox as a child; this process's environment points at it inside the block.

    Args:
        meanwhile: what this process does until the sandbox is up, a second or two.

    Yields the sandbox's announcement: `environment`, `sites_yaml`, `base_urls`, `stories`.

    Raises:
        ConfigurationError: it did not come up.
    """
    command = [sys.executable, "-m", "analytics_platform.cli", "sandbox", "--json", "--until-stdin-closes"]
    command += ["--seed", str(demo.seed), "--first-day", demo.first_day, "--days", str(demo.days)]
    # The pipe to its standard input closes when this process dies, however it dies, and the sandbox goes with it.
    child = subprocess.Popen(  # noqa: S603  (our own verb)
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        if meanwhile is not None:
            meanwhile()
        announcement = _announcement(child)
        config = home.root / "sites.yaml"
        write_file(config, str(announcement["sites_yaml"]).encode())
        os.environ.update(announcement["environment"])
        os.environ[HOME_VARIABLE] = str(home.root)
        os.environ[CONFIG_VARIABLE] = str(config)
        yield announcement
    finally:
        child.terminate()
        try:
            child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()


def _announcement(child: subprocess.Popen[str]) -> dict[str, Any]:
    line = child.stdout.readline() if child.stdout is not None else ""
    if not line:
        raise ConfigurationError(
            f"The sandbox stopped before it was ready (exit code {child.wait(timeout=_START_SECONDS)}).",
            "Run `analytics-platform sandbox` by itself to see why.",
        )
    found: dict[str, Any] = json.loads(line)
    return found
