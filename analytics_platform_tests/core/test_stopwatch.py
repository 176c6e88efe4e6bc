"""Each second of a run is in one part, and only the thread that measures is measured."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from analytics_platform.core import stopwatch
from analytics_platform.core.stopwatch import measured, measured_steps, measuring, took


class Clock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(stopwatch.time, "perf_counter", made)
    return made


def test_an_inner_part_is_taken_off_the_outer_one(clock: Clock) -> None:
    def pages() -> Iterator[int]:
        for number in range(3):
            clock.work(2.0)
            yield number

    with measuring() as watch:
        with measured("landing"):
            for _ in measured_steps("requests", pages()):
                clock.work(0.5)
        with measured("dbt"):
            clock.work(5.0)
            took("dbt_tests", 4.0)
    assert watch.seconds == {"requests": 6.0, "landing": 1.5, "dbt_tests": 4.0, "dbt": 1.0}


def test_a_failure_ends_its_part(clock: Clock) -> None:
    def fail() -> None:
        with measured("lake"):
            clock.work(1.0)
            raise ValueError("no page")

    with measuring() as watch:
        with measured("landing"), pytest.raises(ValueError, match="no page"):
            fail()
        clock.work(1.0)
    assert watch.seconds == {"lake": 1.0, "landing": 0.0}


def test_other_threads_and_nobody_listening_count_for_nothing(clock: Clock) -> None:
    def work() -> None:
        with measured("lake"):
            clock.work(1.0)
        took("lake", 1.0)

    work()
    with measuring() as watch:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert watch.seconds == {}
