"""A newest-first walk cut again and again: whole days are there after every cut, and nothing is paid for twice."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.errors import CursorExpired, QuotaExhausted
from analytics_platform.core.fetch import Fetcher, FetchOutcome, SiteContext
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.paging import Page
from analytics_platform.core.settling import BACK_TO, SETTLED_FROM, InterruptedCall, newest_first, settled_from
from analytics_platform.core.streams import Extraction, Stream
from analytics_platform.core.tables import Column, TableSpec

FIRST = date(2026, 9, 1)
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SHOP = SiteContext(key="shop", timezone="UTC", ids={})
SPEC = TableSpec(
    vendor="acme",
    name="visits",
    description="One row per visit.",
    key=("id",),
    columns=(
        Column(name="id", type="BIGINT", description="Id."),
        Column(name="started_at", type="TIMESTAMP", description="Start.", expr="CAST(r.at AS TIMESTAMP)"),
    ),
    wire={"id": "BIGINT", "at": "VARCHAR"},
    calls=("search",),
    records=("visits",),
    day="CAST(r.at AS DATE)",
)


class Killed(BaseException):
    """The process is gone: nothing after this line runs."""


@dataclass
class Vendor:
    """Visits newest first, `size` a page; `fail` says what happens instead of the n-th request, counted from 1."""

    starts: Sequence[datetime]
    size: int = 10
    by_days: bool = False
    fail: dict[int, BaseException] = field(default_factory=dict)
    requests: int = 0

    @contextmanager
    def connect(self) -> Iterator[Vendor]:
        yield self

    def search(self, first: date, last: date, back_to: datetime | None, call: str) -> Iterator[Page]:
        end = datetime.combine(last + timedelta(days=1), datetime.min.time(), tzinfo=UTC)
        if back_to is not None and self.by_days:
            end = min(end, datetime.combine(back_to.date() + timedelta(days=1), datetime.min.time(), tzinfo=UTC))
        elif back_to is not None:
            end = min(end, back_to + timedelta(seconds=1))
        begin = datetime.combine(first, datetime.min.time(), tzinfo=UTC)
        found = sorted(((at, n) for n, at in enumerate(self.starts) if begin <= at < end), reverse=True)
        chunks = [found[i : i + self.size] for i in range(0, len(found), self.size)] or [[]]
        for sequence, chunk in enumerate(chunks):
            self.requests += 1
            if (failure := self.fail.pop(self.requests, None)) is not None:
                raise failure
            visits = [{"id": n, "at": at.isoformat()} for at, n in chunk]
            yield Page(
                call=call,
                call_kind="search",
                sequence=sequence,
                is_last=sequence == len(chunks) - 1,
                body=json.dumps({"visits": visits}).encode(),
                status=200,
                endpoint="POST /visits",
                received_at=NOW,
                context={},
                records=len(visits),
                attempts=1,
            )


def moments(page: Page) -> Iterator[tuple[datetime, str]]:
    for visit in json.loads(page.body)["visits"]:
        yield datetime.fromisoformat(visit["at"]), str(visit["id"])


def extract(client: Vendor, extraction: Extraction) -> Iterator[Page]:
    call = f"visits/{extraction.first_day}..{extraction.last_day}"
    if call in extraction.done_calls:
        return

    def walk(back_to: datetime | None) -> Iterator[Page]:
        return client.search(extraction.first_day, extraction.last_day, back_to, call)

    yield from newest_first(walk, moments_of=moments, interrupted=extraction.interrupted.get(call))


STREAM = Stream(vendor="acme", name="visits", tables=(SPEC,), span="range", extract=extract)


class Home:
    """Landing and lake of one test."""

    def __init__(self, root: Path) -> None:
        self.clock = ManualClock(NOW)
        self.landing = Landing(root / "landing", clock=self.clock)
        self.lake = Lake(root / "lake")

    def run(self, vendor: Vendor, days: Sequence[date]) -> FetchOutcome:
        fetcher = Fetcher(
            landing=self.landing,
            lake=self.lake,
            run_id="r",
            specs_by_name={"acme/visits": SPEC},
            clock=self.clock,
        )
        return fetcher.run(STREAM, SHOP, days, connect=vendor.connect)

    def rows(self, days: Sequence[date]) -> list[tuple[int, Any]]:
        frame = self.lake.frame(SPEC, "shop", days)
        return sorted((int(i), at) for i, at in zip(frame["id"], frame["started_at"], strict=True))


def evenly(count: int, days: int) -> list[datetime]:
    begin = datetime.combine(FIRST, datetime.min.time(), tzinfo=UTC)
    step = timedelta(days=days) / count
    return [(begin + n * step).replace(microsecond=0) for n in range(count)]


def span(days: int) -> list[date]:
    return [FIRST + timedelta(days=n) for n in range(days)]


def out_of_quota() -> QuotaExhausted:
    return QuotaExhausted("no request is left", resume_at=NOW)


@pytest.mark.parametrize("days", [1, 20])
@pytest.mark.parametrize("cut", ["budget", "kill", "cursor"])
def test_a_thousand_pages_cut_at_every_fiftieth(tmp_path: Path, cut: str, days: int) -> None:
    starts = evenly(10_000, days)
    uncut, cuts = Home(tmp_path / "uncut"), Home(tmp_path / "cut")
    whole = Vendor(starts)
    assert not uncut.run(whole, span(days)).deferred
    assert whole.requests == 1000
    failures: dict[str, Any] = {
        "budget": out_of_quota,
        "kill": Killed,
        "cursor": lambda: CursorExpired("The cursor is no longer known."),
    }
    vendor = Vendor(starts, fail={n: failures[cut]() for n in range(51, 1200, 51)})
    planned_cuts = len(vendor.fail)
    attempts = 0
    while True:
        attempts += 1
        try:
            outcome = cuts.run(vendor, span(days))
        except Killed:
            continue
        assert outcome.error is None
        if outcome.deferred is None:
            break
    made = planned_cuts - len(vendor.fail)
    assert made >= 19
    assert attempts == (1 if cut == "cursor" else made + 1)
    # A cut request paid for nothing; beyond those, at most one page a cut comes again.
    assert vendor.requests - made - whole.requests <= made
    assert cuts.rows(span(days)) == uncut.rows(span(days))
    assert len(cuts.rows(span(days))) == len(starts)


def test_whole_days_are_there_after_every_cut_and_the_rest_is_what_is_deferred(tmp_path: Path) -> None:
    home, vendor = Home(tmp_path), Vendor(evenly(100, 10), fail={4: out_of_quota()})
    outcome = home.run(vendor, span(10))
    # Three pages of ten: days 8, 9 and 10 of ten visits each, and nobody knows yet that the eighth has no more.
    assert outcome.done_days == span(10)[8:]
    assert outcome.deferred is not None
    assert list(outcome.deferred.days) == span(10)[:8]
    assert len(home.rows(span(10))) == 20
    rest = home.run(vendor, span(8))
    assert rest.deferred is None
    assert len(home.rows(span(10))) == 100
    # Ten pages, one refusal, and the instant of the cut asked once more.
    assert vendor.requests <= 12
    assert home.run(vendor, span(10)).requests == 0


def test_days_a_killed_run_had_passed_are_not_asked_again(tmp_path: Path) -> None:
    home, vendor = Home(tmp_path), Vendor(evenly(100, 10), fail={6: Killed()})
    with pytest.raises(Killed):
        home.run(vendor, span(10))
    assert not home.lake.days(SPEC, "shop")
    outcome = home.run(vendor, span(10))
    assert outcome.done_days == span(10)
    assert vendor.requests <= 12
    assert len(home.rows(span(10))) == 100


def test_a_wider_range_goes_on_with_the_open_batch(tmp_path: Path) -> None:
    home, vendor = Home(tmp_path), Vendor(evenly(200, 20), fail={6: out_of_quota()})
    home.run(vendor, span(20)[10:])
    asked = vendor.requests
    assert home.run(vendor, span(20)).done_days == span(20)
    assert vendor.requests - asked <= 17
    assert len(home.rows(span(20))) == 200


def test_a_vendor_out_of_order_settles_nothing(tmp_path: Path) -> None:
    pages = list(Vendor(evenly(40, 4)).search(FIRST, span(4)[-1], None, "visits"))
    shuffled = [pages[0], pages[2], pages[1], pages[3]]
    stamped = list(newest_first(lambda back_to: iter(shuffled), moments_of=moments))
    assert stamped[1].context[SETTLED_FROM] == "2026-09-03"
    assert [page.context[SETTLED_FROM] for page in stamped[2:]] == ["", ""]
    assert settled_from(page.context for page in stamped) is None
    assert BACK_TO not in stamped[3].context
    again = InterruptedCall(pages=4, context=stamped[3].context)
    (first, *_) = newest_first(lambda back_to: iter(pages), moments_of=moments, interrupted=again)
    assert first.sequence == 4
    assert first.context[SETTLED_FROM] == ""


def test_a_cursor_that_dies_where_it_began_is_an_error() -> None:
    vendor = Vendor(evenly(40, 4), fail={1: CursorExpired("gone")})
    with pytest.raises(CursorExpired):
        list(newest_first(lambda back_to: vendor.search(FIRST, span(4)[-1], back_to, "v"), moments_of=moments))


@settings(max_examples=15, deadline=None)
@given(
    count=st.integers(0, 120),
    days=st.integers(1, 8),
    cuts=st.sets(st.integers(1, 30), max_size=8),
    by_days=st.booleans(),
    kill=st.booleans(),
)
def test_any_cuts_give_the_rows_of_the_uncut_run(
    tmp_path_factory: pytest.TempPathFactory, count: int, days: int, cuts: set[int], by_days: bool, kill: bool
) -> None:
    starts = evenly(count, days) if count else []
    home = Home(tmp_path_factory.mktemp("home"))
    vendor = Vendor(starts, by_days=by_days, fail={n: Killed() if kill else out_of_quota() for n in cuts})
    for _ in range(len(cuts) + 1):
        try:
            outcome = home.run(vendor, span(days))
        except Killed:
            continue
        for day in outcome.done_days:
            there = sum(at.date() == day for _, at in home.rows([day]))
            assert there == sum(at.date() == day for at in starts)
        if outcome.deferred is None:
            break
    assert home.run(vendor, span(days)).done_days == span(days)
    assert len(home.rows(span(days))) == count
