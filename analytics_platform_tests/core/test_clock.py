"""Clocks: the real one moves, the manual one only when told."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest

from analytics_platform.core.clock import SYSTEM_CLOCK, ManualClock

START = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


def test_the_system_clock_is_aware_utc_and_monotonic() -> None:
    assert SYSTEM_CLOCK.now().utcoffset() == timedelta(0)
    before = SYSTEM_CLOCK.monotonic()
    SYSTEM_CLOCK.sleep(-1)
    SYSTEM_CLOCK.sleep(0.01)
    assert SYSTEM_CLOCK.monotonic() >= before + 0.01


def test_sleeping_advances_both_readings_and_is_remembered() -> None:
    clock = ManualClock(START)
    clock.sleep(90)
    clock.sleep(0)
    clock.sleep(-3)
    clock.advance(10)
    assert clock.now() == START + timedelta(seconds=100)
    assert clock.monotonic() == 100
    assert clock.slept == (90,)


def test_a_jump_moves_the_wall_clock_alone() -> None:
    clock = ManualClock(START)
    clock.jump(-7200)
    assert clock.now() == START - timedelta(hours=2)
    assert clock.monotonic() == 0


def test_the_start_is_converted_to_utc_and_must_be_aware() -> None:
    berlin = datetime(2026, 10, 25, 2, 30, tzinfo=timezone(timedelta(hours=2)))
    assert ManualClock(berlin).now() == START
    assert ManualClock(berlin).now().utcoffset() == timedelta(0)
    with pytest.raises(ValueError, match="aware"):
        ManualClock(datetime(2026, 10, 25))  # noqa: DTZ001
    with pytest.raises(ValueError, match="back"):
        ManualClock(START).advance(-1)


def test_threads_share_a_manual_clock() -> None:
    clock = ManualClock(START)
    threads = [threading.Thread(target=lambda: [clock.sleep(1) for _ in range(100)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.monotonic() == 800
