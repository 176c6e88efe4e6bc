"""One demo home for every test that needs one, made by the verb itself, once for all workers.

Belongs here: making it, what the verb printed, a shell with a home. Does not belong here: what must hold of it.

It takes two minutes of two cores. Tests read it, or copy it and do to the copy what they like (`DemoRun.copy`).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path

import pytest
from filelock import FileLock

__all__ = ["DAYS", "FIRST_DAY", "LAST_DAY", "PLATFORM_VARIABLES", "DemoRun", "made_demo", "shell_environment"]

FIRST_DAY = date(2026, 10, 5)
DAYS = 22
LAST_DAY = FIRST_DAY + timedelta(days=DAYS - 1)
"""2026-10-26: the bot burst, the banner, the lost tag, the plan's cap, a Sunday of 25 hours, a changed unit."""

PLATFORM_VARIABLES = (
    "ANALYTICS_PLATFORM_",
    "SMARTLOOK_",
    "INSPECTLET_",
    "PIRSCH_",
    "KAMELEOON_",
    "KISSMETRICS_",
    "DAGSTER_",
)
_LONGEST_SECONDS = 900


@dataclass(frozen=True)
class DemoRun:
    """The home, and what the verb that made it said."""

    home: Path
    exit_code: int
    stdout: str
    stderr: str

    def copy(self, home: Path) -> Path:
        """A home of one's own with all that is in this one."""
        shutil.copytree(self.home, home)
        return home


def shell_environment(home: Path) -> dict[str, str]:
    """A person's shell with this home and nothing else of the platform's."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(PLATFORM_VARIABLES) or "GUARD" in k}
    return {**inherited, "ANALYTICS_PLATFORM_HOME": str(home)}


def made_demo(factory: pytest.TempPathFactory) -> DemoRun:
    """Run the demo, or wait for the worker that does; what it said lies beside the home, written last."""
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    home, told = shared / "demonstration", shared / "demonstration.json"
    with FileLock(shared / "demonstration.lock"):
        if not told.is_file():
            run = _demo(home)
            told.write_text(json.dumps({**asdict(run), "home": str(home)}), encoding="utf-8")
    run = DemoRun(**{**json.loads(told.read_text(encoding="utf-8")), "home": home})
    assert run.exit_code == 0, run.stdout + run.stderr
    return run


def _demo(home: Path) -> DemoRun:
    home.mkdir()
    chosen = {"seed": 7, "first_day": str(FIRST_DAY), "days": DAYS}
    (home / "demo.json").write_text(json.dumps(chosen), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "analytics_platform.cli", "demo"],
        env=shell_environment(home),
        capture_output=True,
        text=True,
        timeout=_LONGEST_SECONDS,
        check=False,
    )
    return DemoRun(home, done.returncode, done.stdout, done.stderr)
