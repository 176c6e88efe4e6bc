"""When the planned requests leave: the plan's arithmetic against the ledger itself on a clock that jumps."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.planning import last_departure
from analytics_platform.core.quota import Ledger
from analytics_platform.core.quota_policy import Window

NOON = datetime(2026, 10, 5, 12, tzinfo=UTC)
ACCOUNT = "acme:1"


def spent_by_ledger(
    path: Path, windows: Sequence[Window], before: Sequence[float], requests: int
) -> tuple[datetime, datetime, float]:
    """(start, when the last request left, seconds from start by the plan)."""
    clock = ManualClock(NOON)
    with Ledger.open(path, clock) as ledger:
        for pause in before:
            clock.advance(pause)
            ledger.acquire(ACCOUNT, "any", windows, "GET /x", max_wait_seconds=1e9)
        start = clock.now()
        planned = last_departure(start, windows, ledger.departures(ACCOUNT, "any", windows), requests)
        left = start
        for _ in range(requests):
            left = ledger.acquire(ACCOUNT, "any", windows, "GET /x", max_wait_seconds=1e9)
    return start, left, (planned - start).total_seconds()


@settings(max_examples=40, deadline=None)
@given(
    limits=st.lists(
        st.tuples(st.integers(1, 8), st.sampled_from([1.0, 60.0, 3600.0])),
        min_size=1,
        max_size=2,
        unique_by=lambda w: w[1],
    ),
    before=st.lists(st.floats(0, 2000), max_size=10),
    requests=st.integers(1, 40),
)
def test_the_plan_says_when_the_ledger_lets_the_last_request_go(
    tmp_path_factory: pytest.TempPathFactory, limits: list[tuple[int, float]], before: list[float], requests: int
) -> None:
    windows = tuple(Window(limit, seconds) for limit, seconds in limits)
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    start, left, planned_seconds = spent_by_ledger(path, windows, before, requests)
    assert planned_seconds == pytest.approx((left - start).total_seconds(), abs=0.01)


def test_a_reserve_is_not_planned_away() -> None:
    hour = (Window(20, 3600.0, guard_seconds=0.0),)
    assert last_departure(NOON, hour, (), 20) == NOON
    assert (last_departure(NOON, hour, (), 20, keep_free=5) - NOON).total_seconds() == 3600.0


def test_nothing_to_send_is_over_at_once() -> None:
    assert last_departure(NOON, (Window(1, 3600.0),), (NOON,), 0) == NOON


def one_by_one(windows: Sequence[Window], departed: Sequence[datetime], requests: int) -> datetime:
    """The ledger's rule without any haste: a request leaves when the one `limit` before it is a span ago."""
    left = list(departed)
    for _ in range(requests):
        waits = [left[-w.limit] + timedelta(microseconds=w.span_us) for w in windows if len(left) >= w.limit]
        left.append(max([NOON, left[-1] if left else NOON, *waits]))
    return left[-1]


@settings(max_examples=80, deadline=None)
@given(
    limits=st.lists(
        st.tuples(st.integers(1, 12), st.sampled_from([1.0, 7.0, 60.0, 3600.0])),
        min_size=1,
        max_size=3,
        unique_by=lambda w: w[1],
    ),
    ago=st.lists(st.integers(0, 4000), max_size=20),
    requests=st.integers(1, 250),
)
def test_the_repeating_part_is_not_walked_and_nothing_changes(
    limits: list[tuple[int, float]], ago: list[int], requests: int
) -> None:
    windows = tuple(Window(limit, seconds) for limit, seconds in limits)
    departed = sorted(NOON - timedelta(seconds=seconds) for seconds in ago)
    planned = last_departure(NOON, windows, departed, requests)
    assert (planned - one_by_one(windows, departed, requests)).total_seconds() == pytest.approx(0, abs=0.001)


def test_a_hundred_million_requests_are_planned_at_once() -> None:
    hour = (Window(1000, 3600.0, guard_seconds=0.0),)
    assert last_departure(NOON, hour, (), 10**8) == NOON + timedelta(hours=10**5 - 1)
