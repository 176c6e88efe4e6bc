"""Fixtures of the acceptance suite, and the written reasons in the run's summary."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import generate
from analytics_platform_tests.acceptance.case import VendorCase
from analytics_platform_tests.acceptance.golden import UNLIMITED
from analytics_platform_tests.acceptance.rig import DAY, Bench, Rig


@pytest.fixture(scope="session")
def _bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with Sandbox(generate(first_day=DAY, days=1, scale=1.0), profiles=UNLIMITED) as sandbox:
        yield Bench(sandbox, tmp_path_factory.mktemp("acceptance"))


@pytest.fixture
def bench(_bench: Bench) -> Iterator[Bench]:
    """The shared sandbox with no fault ordered and an empty log."""
    _bench.sandbox.faults.clear()
    _bench.sandbox.requests.clear()
    yield _bench
    _bench.sandbox.faults.clear()


@pytest.fixture
def reading(bench: Bench, case: VendorCase) -> Rig:
    """The vendor, read once and left alone: compare with it, do not write to it."""
    rig = bench.reading(case)
    bench.sandbox.requests.clear()
    return rig


@pytest.fixture
def rig(bench: Bench, case: VendorCase, reading: Rig, tmp_path: Path) -> Rig:
    """An empty home of this test alone."""
    return Rig(bench, case, tmp_path / "home")


@pytest.fixture
def reason(case: VendorCase, request: pytest.FixtureRequest, record_property: Any) -> str:
    """Why this kind means something else for this vendor, "" when it does not; stands in the run's summary."""
    kind = request.node.originalname.removeprefix("test_")
    text = case.reasons.get(kind, "")
    if text:
        record_property("reason", f"{case.vendor} {kind}: {text}")
    return text


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The reasons, where whoever reads the run sees them."""
    reasons = {
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == "reason"
    }
    if reasons:
        terminalreporter.section("acceptance: what a kind means where it means something else")
        for text in sorted(reasons):
            terminalreporter.write_line(text)
