"""The daily run asks in one range what fits an hour of quota, and else the day that ended first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_platform.core.daily import daily_days, daily_work, hourly, newest_begin
from analytics_platform.core.paging import Page
from analytics_platform.core.quota_policy import QuotaPolicy, Window
from analytics_platform.core.streams import Span, Stream
from analytics_platform_tests.core.test_ingest import SPEC

DAYS = [date(2026, 11, day) for day in (17, 18, 19, 20)]


def nothing(client: Any, extraction: Any) -> Iterator[Page]:
    yield from ()


def stream(name: str, *, span: Span = "range", reads: str = "") -> Stream:
    reading = (f"acme/{reads}",) if reads else ()
    return Stream(vendor="acme", name=name, tables=(SPEC,), span=span, extract=nothing, depends_on=reading)


SESSIONS, EVENTS, TOTALS = stream("sessions"), stream("events", reads="sessions"), stream("totals")
SNAPSHOT = stream("settings", span="snapshot")


def cost(chosen: Stream, days: Sequence[date]) -> float:
    """A histogram covers any range, the others pay by the day."""
    return 8.0 if chosen is TOTALS else 5.0 * len(days)


def test_what_fits_the_hour_is_one_range() -> None:
    work = daily_work([SNAPSHOT, SESSIONS, EVENTS, TOTALS], DAYS, cost=cost, budget=48)
    (part,) = work.at_once
    assert (part.label, part.streams, part.days) == ("daily", (SESSIONS, EVENTS, TOTALS), tuple(DAYS))
    assert work.later is None


def test_what_does_not_fit_begins_with_the_day_that_ended() -> None:
    work = daily_work([SNAPSHOT, SESSIONS, EVENTS, TOTALS], DAYS, cost=cost, budget=47)
    newest, whole = work.at_once
    assert (newest.label, newest.streams, newest.days) == ("newest", (SESSIONS, EVENTS), (DAYS[-1],))
    # Asking for one day would save nothing.
    assert (whole.label, whole.streams, whole.days) == ("daily", (TOTALS,), tuple(DAYS))
    assert work.later is not None
    assert (work.later.streams, work.later.days) == ((SESSIONS, EVENTS), tuple(DAYS[:-1]))


def test_who_reads_whom_is_never_parted() -> None:
    """A stream in a run of its own would not wait for the rows it reads."""

    def reader_only(chosen: Stream, days: Sequence[date]) -> float:
        return 30.0 * len(days) if chosen is EVENTS else 2.0

    newest, whole = daily_work([SESSIONS, EVENTS, TOTALS], DAYS, cost=reader_only, budget=20).at_once
    assert (newest.streams, whole.streams) == ((SESSIONS, EVENTS), (TOTALS,))


@given(budget=st.floats(0, 100), count=st.integers(1, 4))
def test_every_day_of_every_stream_is_asked_for_once(budget: float, count: int) -> None:
    work = daily_work([SNAPSHOT, SESSIONS, EVENTS, TOTALS], DAYS[-count:], cost=cost, budget=budget)
    parts = [*work.at_once, *([work.later] if work.later is not None else [])]
    asked = [(chosen.name, day) for part in parts for chosen in part.streams for day in part.days]
    assert sorted(asked) == sorted((s.name, day) for s in (SESSIONS, EVENTS, TOTALS) for day in DAYS[-count:])


def test_no_dated_stream_or_no_day_is_no_work() -> None:
    assert daily_work([SNAPSHOT], DAYS, cost=cost, budget=1).at_once == ()
    assert daily_work([SESSIONS], [], cost=cost, budget=1).at_once == ()
    assert daily_days([SNAPSHOT], datetime(2026, 11, 21, 3, tzinfo=UTC), DAYS[0]) == []


@pytest.mark.parametrize(
    ("window", "requests"), [(Window(20, 3600.0), 20), (Window(60, 60.0), 3600), (Window(100, 86_400.0), 100)]
)
def test_an_hour_of_quota(window: Window, requests: float) -> None:
    assert hourly(QuotaPolicy(account="acme:1", windows={"any": (window,)})) == requests


@given(minutes=st.integers(0, 3 * 1440))
def test_the_newest_begin_is_the_last_one_there_was(minutes: int) -> None:
    now = datetime(2026, 11, 18, tzinfo=UTC) + timedelta(minutes=minutes)
    found = newest_begin(now, (3, 12))
    assert (found.hour, found.minute) == (3, 12)
    assert timedelta() <= now - found < timedelta(days=1)
