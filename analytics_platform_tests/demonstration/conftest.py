"""One demo home for all tests of this folder, made by the verb itself, once for all workers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from analytics_platform.catalog import Catalog

_PLATFORM_VARIABLES = (
    "ANALYTICS_PLATFORM_",
    "SMARTLOOK_",
    "INSPECTLET_",
    "PIRSCH_",
    "KAMELEOON_",
    "KISSMETRICS_",
    "DAGSTER_",
)
DEMO = '{"seed": 7, "first_day": "2026-10-05", "days": 22}'
"""To 2026-10-26: the bot burst, the banner, the lost tag, the plan's cap, a Sunday of 25 hours, a changed unit."""


def shell_environment(home: Path) -> dict[str, str]:
    """A person's shell with this home and nothing else of the platform's."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(_PLATFORM_VARIABLES) or "GUARD" in k}
    return {**inherited, "ANALYTICS_PLATFORM_HOME": str(home)}


@pytest.fixture(scope="session")
def demonstrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home. Tests only read it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    home = shared / "demonstration"
    with FileLock(shared / "demonstration.lock"):
        if not (home / "published").is_dir():
            home.mkdir(exist_ok=True)
            (home / "demo.json").write_text(DEMO, encoding="utf-8")
            done = subprocess.run(
                [sys.executable, "-m", "analytics_platform.cli", "demo"],
                env=shell_environment(home),
                capture_output=True,
                text=True,
                timeout=900,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
    return home


@pytest.fixture
def catalog(demonstrated: Path) -> Catalog:
    return Catalog.open(demonstrated)
