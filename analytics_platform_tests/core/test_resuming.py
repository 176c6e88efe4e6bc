"""Deferred work is resumed newest day first, sites in turn, and never beyond the budget."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from analytics_platform.core.quota_policy import Deferral
from analytics_platform.core.resuming import Budget, Piece, choose

NOON = datetime(2026, 10, 20, 12, tzinfo=UTC)
FIRST = date(2026, 10, 1)


def deferral(site: str, *, stream: str = "sessions", days: int = 10) -> Deferral:
    return Deferral(
        vendor="acme",
        stream=stream,
        site=site,
        first_day=FIRST,
        last_day=FIRST + timedelta(days=days - 1),
        resume_at=NOON,
        reason="no request is left",
        landed_records=0,
        recorded_at=NOON,
    )


def pieces(site: str, *, days: int = 10, requests: float = 3, account: str = "acme:1") -> list[Piece]:
    work = deferral(site, days=days)
    spans = [FIRST + timedelta(days=n) for n in range(days)]
    return [Piece(account=account, deferral=work, first_day=d, last_day=d, requests=requests) for d in spans]


def budget(left: int, limit: int = 20, account: str = "acme:1") -> Budget:
    return Budget(account=account, limit=limit, left=left, next_slot_at=NOON + timedelta(minutes=3))


def test_the_newest_days_of_both_sites_come_first_and_adjacent_days_are_one_run() -> None:
    choice = choose(pieces("blog") + pieces("shop"), [budget(12)])
    assert [(r.deferral.site, r.first_day.day, r.last_day.day, r.requests) for r in choice.resumptions] == [
        ("blog", 9, 10, 6),
        ("shop", 9, 10, 6),
    ]
    assert choice.why.startswith("16 more wait: sessions of ")
    assert "12 of 20 were left, the next request is free at 12:03 UTC" in choice.why


def test_nothing_is_asked_for_without_budget() -> None:
    choice = choose(pieces("shop"), [budget(0)])
    assert not choice.resumptions
    assert "needs about 3 requests, 0 of 20 were left" in choice.why


def test_the_last_piece_may_be_cut_short_so_that_no_request_is_idle() -> None:
    large = pieces("shop", days=2, requests=50)
    (only,) = choose(large, [budget(2)]).resumptions
    assert only.first_day == only.last_day == FIRST + timedelta(days=1)


def test_room_kept_for_today_is_not_run_into() -> None:
    choice = choose(pieces("shop"), [replace(budget(2), kept=5)])
    assert not choice.resumptions
    assert "2 of 20 were left beside 5 kept for today" in choice.why


def test_today_uses_the_room_that_is_kept_for_it_and_may_be_cut_short() -> None:
    (newest, *older) = pieces("shop", requests=4)[::-1]
    today = replace(newest, is_for_today=True)
    alone = choose([today, *older], [replace(budget(0), kept=3)]).resumptions
    assert [(r.first_day, r.last_day) for r in alone] == [(newest.first_day, newest.last_day)]
    # What is left of it stays kept for the rest of today, whose pieces are not due yet.
    beside = choose([today, *older], [replace(budget(2), kept=7)]).resumptions
    assert [r.first_day for r in beside] == [newest.first_day]
    # And older days take what is free beside it, where they fit.
    (joined,) = choose([today, *older], [replace(budget(5), kept=7)]).resumptions
    assert (joined.first_day, joined.last_day) == (older[0].first_day, newest.last_day)


def test_accounts_do_not_share_their_budgets() -> None:
    choice = choose(
        pieces("shop", account="acme:1") + pieces("blog", account="acme:2"),
        [budget(0, account="acme:1"), budget(6, account="acme:2")],
    )
    assert [(r.deferral.site, r.requests) for r in choice.resumptions] == [("blog", 6)]


@given(
    sizes=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.integers(1, 9)), max_size=12),
    left=st.integers(0, 20),
)
def test_beyond_the_budget_goes_at_most_the_last_piece(sizes: list[tuple[str, int, int]], left: int) -> None:
    unique = {(site, day): requests for site, day, requests in sizes}
    found = [
        Piece(
            account="acme:1",
            deferral=deferral(site),
            first_day=FIRST + timedelta(days=day),
            last_day=FIRST + timedelta(days=day),
            requests=requests,
        )
        for (site, day), requests in unique.items()
    ]
    choice = choose(found, [budget(left)])
    largest = max(unique.values(), default=0)
    assert sum(r.requests for r in choice.resumptions) < max(left, 1) + largest
    assert bool(choice.resumptions) == (bool(found) and left > 0)
    days = {
        (r.deferral.site, r.first_day + timedelta(days=n))
        for r in choice.resumptions
        for n in range(10)
        if r.first_day + timedelta(days=n) <= r.last_day
    }
    if days:
        oldest = min(day for _, day in days)
        assert {(p.deferral.site, p.last_day) for p in found if p.last_day > oldest} <= days
