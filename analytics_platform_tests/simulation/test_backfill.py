"""The backfill benchmark in small: no request more than the API needs, none again, and the plan comes true."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from typer.testing import CliRunner

from analytics_platform.cli import app
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.vendors import vendor_names
from analytics_platform_tests.conftest import DAYS, FIRST_DAY, House
from analytics_platform_tests.simulation.backfill import Backfill, Line, Played, play_on


def test_every_stream_asks_as_little_as_its_api_allows_and_as_planned_and_nothing_again(
    house: House, vendors: Sandbox
) -> None:
    days = [FIRST_DAY + timedelta(days=n) for n in range(DAYS)]
    played = play_on(Backfill(vendors), days, 1)
    assert {line.stream.partition("/")[0] for line in played.lines} == set(vendor_names())
    assert [(line.stream, line.site, line.used) for line in played.lines] == [
        (line.stream, line.site, line.fewest) for line in played.lines
    ]
    assert sum(line.used for line in played.lines) > 50
    for line in played.lines:
        assert line.sureness in ("known", "3 days of history", "4 days of history"), line
        assert line.planned_low - 1 <= line.used <= line.planned_high + 3, line
    assert played.again == 0
    shown = CliRunner().invoke(app, ["plan", f"{days[0]}..{days[-1]}"])
    assert re.search(r"Nothing is left to ask for: [1-9][0-9]* requests paid for it\.", shown.output)


@pytest.mark.parametrize(
    ("used", "planned", "again", "good"),
    [(100, 100.0, 0, True), (103, 103.0, 0, False), (100, 89.0, 0, False), (100, 100.0, 1, False)],
)
def test_the_verdict(used: int, planned: float, again: int, good: bool) -> None:
    line = Line(
        stream="acme/rows",
        site="shop",
        planned=planned,
        planned_low=planned,
        planned_high=planned,
        sureness="known",
        used=used,
        fewest=100,
    )
    assert Played(lines=(line,), again=again).is_good is good
