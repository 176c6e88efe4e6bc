"""Each second of a run is in one part, and only the thread that measures is measured."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_platform.core import stopwatch
from analytics_platform.core.stopwatch import Span, measured, measured_steps, measuring, shared, took


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
    assert watch.spans[:3] == [Span(0.0, 2.0, "requests"), Span(2.0, 2.5, "landing"), Span(2.5, 4.5, "requests")]
    assert watch.spans[-1] == Span(7.5, 12.5, "dbt")


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


def test_what_is_done_beside_requests_costs_nothing() -> None:
    one = [Span(0.0, 4.0, "requests"), Span(4.0, 6.0, "dagster")]
    other = [Span(1.0, 2.0, "checks"), Span(2.0, 3.0, "lake"), Span(3.0, 8.0, "checks")]
    assert shared([one, other], first=("requests", "lake")) == {
        "requests": 3.5,
        "lake": 0.5,
        "dagster": 1.0,
        "checks": 3.0,
    }
    assert shared([], first=()) == {}


@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 5), st.integers(1, 9), st.sampled_from(["requests", "lake", "checks"])), max_size=6
        ),
        max_size=4,
    )
)
def test_each_second_of_several_lanes_is_in_one_part(lanes: list[list[tuple[int, int, str]]]) -> None:
    spans: list[list[Span]] = []
    for lane in lanes:
        now, listed = 0, []
        for gap, length, part in lane:
            listed.append(Span(float(now + gap), float(now + gap + length), part))
            now += gap + length
        spans.append(listed)
    told = shared(spans, first=("requests", "lake"))
    covered = {second for lane in spans for span in lane for second in range(int(span.began), int(span.ended))}
    rows = {
        second
        for lane in spans
        for span in lane
        if span.part != "checks"
        for second in range(int(span.began), int(span.ended))
    }
    assert sum(told.values()) == pytest.approx(len(covered))
    assert told.get("requests", 0.0) + told.get("lake", 0.0) == pytest.approx(len(rows))
