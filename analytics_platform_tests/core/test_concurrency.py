"""Side by side: as many in flight as the limit can use, pages in order, nothing started after a failure."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from inspect import signature

import pytest

from analytics_platform.core.concurrency import (
    REQUESTS_AT_FIRST,
    REQUESTS_IN_FLIGHT,
    InFlight,
    Send,
    answered_in_order,
    side_by_side,
)
from analytics_platform.core.http import HttpClient
from analytics_platform.core.paging import Page
from analytics_platform.core.quota_policy import spending, spending_now
from analytics_platform.core.waiting import tallied, waiting

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def page(number: int) -> Page:
    return Page(
        call=f"visitor/{number}",
        call_kind="visitor",
        sequence=0,
        is_last=True,
        endpoint="GET /visit/visitor",
        status=200,
        received_at=NOW,
        body=b"{}",
        context={},
        records=0,
        attempts=1,
    )


def simulated(
    *, limit: int, span_seconds: float, latency: Callable[[int], float], seconds: float
) -> tuple[float, list[int]]:
    """Requests a second, and `allowed` after each one, of a sliding limit and an in-order line, in simulated time."""
    control = InFlight()
    stamps: list[float] = []
    ends: list[float] = []  # when pages may be taken at the earliest, in order of their start
    begun: list[tuple[float, float]] = []
    allowed: list[int] = []
    now, taken = 0.0, 0
    while now < seconds:
        while len(begun) - taken < control.allowed:
            number = len(begun)
            free = stamps[number - limit] + span_seconds if number >= limit else 0.0
            stamps.append(max(now, free, stamps[-1] if stamps else 0.0))
            begun.append((now, stamps[-1] - now))
            ends.append(stamps[-1] + latency(number))
        now = max(now, ends[taken])
        started, waited = begun[taken]
        control.ended(held_seconds=now - started, waited_seconds=waited)
        allowed.append(control.allowed)
        taken += 1
    return sum(stamp < seconds for stamp in stamps) / seconds, allowed


@pytest.mark.parametrize("milliseconds", [1, 20, 50, 100, 200, 400])
def test_fifty_a_second_are_used_up_at_any_latency(milliseconds: int) -> None:
    rate, allowed = simulated(limit=50, span_seconds=1.04, latency=lambda _: milliseconds / 1000, seconds=60)
    assert rate >= 0.95 * 50
    # No more than it takes: a kill loses what is in flight.
    assert allowed[-1] <= 1.5 * 50 * milliseconds / 1000 + 9


@pytest.mark.parametrize("slowest_milliseconds", [20, 100, 200, 300])
def test_jitter_costs_no_turns(slowest_milliseconds: int) -> None:
    draw = random.Random(slowest_milliseconds).uniform
    rate, allowed = simulated(
        limit=50, span_seconds=1.04, latency=lambda _: draw(0.01, slowest_milliseconds / 1000), seconds=60
    )
    assert rate >= 0.95 * 50
    assert max(allowed) <= REQUESTS_IN_FLIGHT


def test_a_small_limit_keeps_the_line_short() -> None:
    """Five a second with the guard for jitter: nobody may wait longer than the meter's five seconds."""
    rate, allowed = simulated(limit=5, span_seconds=1.5, latency=lambda _: 0.25, seconds=60)
    assert rate >= 0.95 * 5 / 1.5
    assert max(allowed) / (5 / 1.5) < 5.0


def test_pages_come_in_the_order_of_their_requests() -> None:
    """Whatever order they end in: here each but the first waits for its successor."""
    ends = [threading.Event() for _ in range(9)]
    ends[8].set()

    def send(number: int) -> Page:
        assert ends[number + 1].wait(10)
        ends[number].set()
        return page(number)

    found = list(side_by_side([lambda n=n: send(n) for n in range(8)]))  # type: ignore[misc]
    assert [p.call for p in found] == [f"visitor/{n}" for n in range(8)]


def test_no_more_than_allowed_are_unlanded_and_requests_are_taken_as_there_is_room() -> None:
    asked = 0

    def sends() -> Iterator[Callable[[], Page | None]]:
        nonlocal asked
        for number in range(200):
            asked += 1
            yield partial(page, number)

    most = 0
    for taken, _ in enumerate(side_by_side(sends(), most_in_flight=8), start=1):
        most = max(most, asked - taken)
    assert asked == 200
    assert most <= 8


def test_a_failure_stops_the_rest_and_keeps_what_was_paid_for() -> None:
    sent: list[int] = []
    both = threading.Barrier(2)

    def send(number: int) -> Page | None:
        sent.append(number)
        if number in (1, 2):
            both.wait(10)  # the failure and its successor are in flight together
        if number == 1:
            raise RuntimeError("refused")
        return None if number == 0 else page(number)

    found: list[str] = []
    with pytest.raises(RuntimeError, match="refused"):
        found.extend(p.call for p in side_by_side([lambda n=n: send(n) for n in range(100)]))  # type: ignore[misc]
    assert "visitor/2" in found
    assert max(sent) <= REQUESTS_AT_FIRST  # page 0 made room for one more
    assert len(found) == len([n for n in sent if n > 1])


def test_a_request_that_cannot_be_made_keeps_what_was_paid_for() -> None:
    """The next batch cannot be opened, say: the pages under way still land."""

    def sends() -> Iterator[Callable[[], Page | None]]:
        yield from (partial(page, number) for number in range(3))
        raise OSError("disk full")

    found: list[str] = []
    with pytest.raises(OSError, match="disk full"):
        found.extend(p.call for p in side_by_side(sends()))
    assert found == ["visitor/0", "visitor/1", "visitor/2"]


def test_answers_are_known_by_what_was_asked_and_failures_are_not_among_them() -> None:
    def fails() -> Page:
        raise RuntimeError("refused")

    found: list[tuple[str, bool]] = []
    sends: list[tuple[str, Send]] = [("a", lambda: None), ("b", partial(page, 1)), ("c", fails)]
    with pytest.raises(RuntimeError, match="refused"):
        found.extend((key, answer is not None) for key, answer in answered_in_order(sends))
    assert found == [("a", False), ("b", True)]


def test_threads_know_what_they_spend_on() -> None:
    def send() -> Page | None:
        now = spending_now()
        return page(7) if now is not None and now.stream == "visits" else None

    with spending(stream="visits"):
        assert len(list(side_by_side([send]))) == 1


def test_waiting_is_told_from_being_on_the_way() -> None:
    turn = threading.Event()
    with tallied() as outer:
        with waiting():
            turn.wait(0.02)
        before = outer.seconds
        turn.wait(0.02)
    assert before == outer.seconds >= 0.015
    with waiting():  # nobody asks
        pass


def test_every_request_in_flight_has_a_connection() -> None:
    """One that waited for a socket would leave later than the instant the ledger wrote down."""
    assert signature(HttpClient).parameters["max_connections"].default >= REQUESTS_IN_FLIGHT
