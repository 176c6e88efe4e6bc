"""The demo home (`demo_home`) for all tests of this folder, which only read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from analytics_platform.catalog import Catalog
from analytics_platform_tests.demo_home import DemoRun


@pytest.fixture(scope="session")
def demonstrated(demo_run: DemoRun) -> Path:
    """The home. Tests only read it."""
    return demo_run.home


@pytest.fixture
def catalog(demonstrated: Path) -> Catalog:
    return Catalog.open(demonstrated)
