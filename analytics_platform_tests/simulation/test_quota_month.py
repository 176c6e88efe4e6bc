"""Two virtual days of the free plan, three processes, some of them killed: no window exceeded, every day complete."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from analytics_platform_tests.simulation.makespan import play as play_makespan
from analytics_platform_tests.simulation.quota_month import LIMITS, Month, most_in_a_window, play
from analytics_platform_tests.simulation.virtual_time import TimeServer, VirtualClock

START = datetime(2026, 10, 20, 3, tzinfo=UTC)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A socket's name has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="month-") as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """The plays set the environment of their workers: give it back."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_two_days_under_kills_exceed_no_window_and_finish(short_folder: Path) -> None:
    month = Month(
        plan="free", days=2, backfill_days=1, processes=3, kills=4, scale=0.03, vendors=("smartlook", "inspectlet")
    )
    verdict = play(month, short_folder)
    assert verdict.kills >= 4
    assert not any(verdict.refused_429.values())
    smartlook = {account: n for account, n in verdict.most_in_a_sliding_window.items() if account.startswith("smart")}
    assert smartlook
    assert max(smartlook.values()) <= LIMITS["free"]
    assert verdict.complete_days == verdict.expected_days > 0


def test_the_most_in_a_window_counts_half_open_spans() -> None:
    assert most_in_a_window([0.0, 1.0, 2.0, 2.5, 2.9, 9.0], 1.0) == 3
    assert most_in_a_window([], 1.0) == 0


def test_virtual_time_stands_while_a_request_is_under_way_and_moves_to_the_earliest_wake_up(short_folder: Path) -> None:
    with TimeServer(short_folder, START) as server, closing(VirtualClock(short_folder, START)) as clock:
        with clock.departing():
            pass
        slept = threading.Event()

        def sleep() -> None:
            clock.sleep(3600.0)
            slept.set()

        helper = threading.Thread(target=sleep)
        helper.start()
        # The helper sleeps an hour, but this thread's request is on its way.
        assert not slept.wait(0.05)
        assert server.monotonic() == 0.0
        clock.arrived()
        assert slept.wait(10)
        helper.join()
        assert (clock.now() - START).total_seconds() == server.monotonic() == 3600.0


def test_a_backfill_cut_by_the_quota_takes_the_least_hours_there_are() -> None:
    found = play_makespan("free", 5)
    assert found.requests > LIMITS["free"]
    assert not found.errors
    assert found.refused_429 == 0
    assert found.over_the_least <= 1.02
