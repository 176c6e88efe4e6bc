"""A search by whole days, cut again and again: every cut leaves the day nearer to its end, whatever its size."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.day_walk import DayWalk, Order, Scope, Size
from analytics_platform.core.errors import ConfigurationError, CursorExpired, QuotaExhausted
from analytics_platform.core.fetch import Fetcher, FetchOutcome, SiteContext
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.paging import Page
from analytics_platform.core.streams import Extraction, Stream
from analytics_platform.core.tables import Column, TableSpec

FIRST = date(2026, 9, 1)
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SHOP = SiteContext(key="shop", timezone="UTC", ids={})
PAGE = 10
SPEC = TableSpec(
    vendor="acme",
    name="visits",
    description="One row per visit.",
    key=("id",),
    columns=(
        Column(name="id", type="BIGINT", description="Id."),
        Column(name="started_at", type="TIMESTAMP", description="Start.", expr="CAST(r.at AS TIMESTAMP)"),
    ),
    wire={"id": "BIGINT", "at": "VARCHAR", "seconds": "DOUBLE"},
    calls=("search",),
    records=("visits",),
    day="CAST(r.at AS DATE)",
)


class Killed(BaseException):
    """The process is gone: nothing after this line runs."""


@dataclass(frozen=True)
class Visit:
    at: datetime
    id: int
    seconds: float | None
    page: str | None = None


@dataclass
class Vendor:
    """Visits by whole days, oldest or newest first. `fail` says what happens instead of the n-th request, counted
    from 1; `is_deaf_to_order` answers every other page of an ascending search in the place of its neighbour.
    """

    visits: Sequence[Visit]
    fail: dict[int, BaseException] = field(default_factory=dict)
    requests: int = 0
    is_deaf_to_order: bool = False
    is_silent_about_nothing: bool = False
    """A record without a text neither contains a character nor does it not."""

    @contextmanager
    def connect(self) -> Iterator[Vendor]:
        yield self

    def search(self, scope: Scope, order: Order, call: str) -> Iterator[Page]:
        def is_found(visit: Visit) -> bool:
            if not scope.first_day <= visit.at.date() <= scope.last_day:
                return False
            for mark in scope.marks:
                if visit.page is None and self.is_silent_about_nothing:
                    return False
                if (mark.text in (visit.page or "")) != mark.is_contained:
                    return False
            if scope.least is None and scope.most is None:
                return True
            seconds = visit.seconds
            return seconds is not None and (scope.least or 0) <= seconds <= (
                math.inf if scope.most is None else scope.most
            )

        found = sorted(filter(is_found, self.visits), key=lambda visit: (visit.at, visit.id), reverse=order == "desc")
        chunks = [found[i : i + PAGE] for i in range(0, len(found), PAGE)] or [[]]
        if self.is_deaf_to_order and order == "asc":
            chunks[: len(chunks) // 2] = chunks[: len(chunks) // 2][::-1]
        for sequence, chunk in enumerate(chunks):
            self.requests += 1
            if (failure := self.fail.pop(self.requests, None)) is not None:
                raise failure
            records = [{"id": v.id, "at": v.at.isoformat(), "seconds": v.seconds, "page": v.page} for v in chunk]
            yield Page(
                call=call,
                call_kind="search",
                sequence=sequence,
                is_last=sequence == len(chunks) - 1,
                body=json.dumps({"visits": records, "total": len(found)}).encode(),
                status=200,
                endpoint="POST /visits",
                received_at=NOW,
                context={},
                records=len(records),
                attempts=1,
            )


def moments(page: Page) -> Iterator[tuple[datetime, str]]:
    for visit in json.loads(page.body)["visits"]:
        yield datetime.fromisoformat(visit["at"]), str(visit["id"])


def size(page: Page) -> Size:
    answer = json.loads(page.body)
    return Size(
        total=answer["total"],
        measures=[visit["seconds"] for visit in answer["visits"] if visit["seconds"] is not None],
        texts={"page": [visit["page"] or "" for visit in answer["visits"]]},
    )


class Home:
    """Landing and lake of one test, under a quota of so many requests at once."""

    def __init__(self, root: Path, pages_at_once: int = 20) -> None:
        self.clock = ManualClock(NOW)
        self.landing = Landing(root / "landing", clock=self.clock)
        self.lake = Lake(root / "lake")
        self._pages_at_once = pages_at_once
        self._stream = Stream(vendor="acme", name="visits", tables=(SPEC,), span="range", extract=self._extract)

    def _extract(self, client: Vendor, extraction: Extraction) -> Iterator[Page]:
        return DayWalk(
            name="visits",
            first_day=extraction.first_day,
            last_day=extraction.last_day,
            search=client.search,
            moments_of=moments,
            size_of=size,
            done_calls=extraction.done_calls,
            interrupted=extraction.interrupted,
            pages_at_once=self._pages_at_once,
            page_records=PAGE,
        ).pages()

    def run(self, vendor: Vendor, days: Sequence[date]) -> FetchOutcome:
        fetcher = Fetcher(
            landing=self.landing, lake=self.lake, run_id="r", specs_by_name={"acme/visits": SPEC}, clock=self.clock
        )
        return fetcher.run(self._stream, SHOP, days, connect=vendor.connect)

    def hours(self, vendor: Vendor, days: Sequence[date], most: int) -> FetchOutcome:
        """Runs of `pages_at_once` requests each until nothing is deferred; at most so many."""
        for _ in range(most):
            vendor.fail = {vendor.requests + self._pages_at_once + 1: out_of_quota()}
            outcome = self.run(vendor, days)
            vendor.requests -= outcome.deferred is not None  # the refused one never left
            if outcome.deferred is None:
                break
        return outcome

    def through_cuts(self, vendor: Vendor, days: Sequence[date]) -> None:
        """Runs until nothing is deferred, whatever cuts them."""
        while True:
            try:
                outcome = self.run(vendor, days)
            except Killed:
                continue
            assert outcome.error is None
            if outcome.deferred is None:
                return

    def ids(self, days: Sequence[date]) -> list[int]:
        return sorted(int(i) for i in self.lake.frame(SPEC, "shop", days)["id"])


def out_of_quota() -> QuotaExhausted:
    return QuotaExhausted("no request is left", resume_at=NOW)


FAILURES: dict[str, Callable[[], BaseException]] = {
    "budget": out_of_quota,
    "kill": Killed,
    "cursor": lambda: CursorExpired("gone"),
}


def span(days: int) -> list[date]:
    return [FIRST + timedelta(days=n) for n in range(days)]


def evenly(count: int, days: int, *, bounces: float = 0.3) -> list[Visit]:
    """Visits at even intervals; so many of them end at once, the others after one to three hundred seconds."""
    begin = datetime.combine(FIRST, datetime.min.time(), tzinfo=UTC)
    step = timedelta(days=days) / max(1, count)
    lengths = [0.0 if n * 7 % 100 < 100 * bounces else float(1 + n * 37 % 300) for n in range(count)]
    return [Visit((begin + n * step).replace(microsecond=0), n, lengths[n]) for n in range(count)]


@pytest.mark.parametrize(
    ("pages", "requests", "hours"),
    [
        pytest.param(20, 20, 1, id="one quota"),
        pytest.param(39, 40, 2, id="both ends meet"),
        pytest.param(60, 67, 4, id="in parts"),
        # A page of ten tells ten durations at most, so that parts are made of parts.
        pytest.param(300, 440, 22, id="in parts of parts"),
    ],
)
def test_a_day_larger_than_the_quota_comes_to_its_end(tmp_path: Path, pages: int, requests: int, hours: int) -> None:
    home, vendor = Home(tmp_path), Vendor(evenly(pages * PAGE, 1, bounces=0.05))
    outcome = home.hours(vendor, span(1), hours)
    assert outcome.error is None
    assert outcome.deferred is None
    assert home.ids(span(1)) == list(range(pages * PAGE))
    assert vendor.requests <= requests
    before = vendor.requests
    assert home.run(vendor, span(1)).requests == 0
    assert vendor.requests == before


@pytest.mark.parametrize("cut", ["budget", "kill", "cursor"])
def test_days_of_a_range_cut_at_every_fiftieth_page_cost_a_page_a_cut(tmp_path: Path, cut: str) -> None:
    home, vendor = Home(tmp_path, pages_at_once=1000), Vendor(evenly(10_000, 20))
    failure = FAILURES[cut]
    vendor.fail = {n: failure() for n in range(51, 1200, 51)}
    planned = len(vendor.fail)
    home.through_cuts(vendor, span(20))
    made = planned - len(vendor.fail)
    assert made >= 19
    assert home.ids(span(20)) == list(range(10_000))
    # A cut request paid for nothing; after it the day's other end begins with a page of its own, and one repeats.
    assert vendor.requests - made - 1000 <= 2 * made


@pytest.mark.parametrize("cut", ["budget", "kill", "cursor"])
def test_a_large_day_cut_at_every_fiftieth_page_is_walked_once(
    tmp_path: Path, cut: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "PAGE", 100)
    home, vendor = Home(tmp_path, pages_at_once=1000), Vendor(evenly(30_000, 1, bounces=0.05))
    failure = FAILURES[cut]
    vendor.fail = {n: failure() for n in range(51, 600, 51)}
    planned = len(vendor.fail)
    home.through_cuts(vendor, span(1))
    made = planned - len(vendor.fail)
    assert made >= 6
    assert home.ids(span(1)) == list(range(30_000))
    # Two pages find out how large it is, each of its parts ends with a page that is not full; asked whole it would be
    # cut at both of its ends and asked again.
    assert vendor.requests - made <= 300 + 16


def test_a_quota_that_ends_between_the_two_counts_loses_nothing(tmp_path: Path) -> None:
    visits = evenly(1000, 1)
    home, vendor = Home(tmp_path), Vendor(visits)
    vendor.fail = {2: out_of_quota()}
    assert home.run(vendor, span(1)).deferred is not None
    # The day has grown since its first page: the page with the filter tells of more, and the one without is cut off.
    vendor.visits = [*visits, Visit(visits[-1].at, 1000, 7.0)]
    vendor.fail = {4: out_of_quota()}
    assert home.run(vendor, span(1)).deferred is not None
    assert home.hours(vendor, span(1), 12).error is None
    assert home.ids(span(1)) == list(range(1001))


def test_a_day_cut_at_both_ends_with_little_left_is_asked_from_the_first_end_again(tmp_path: Path) -> None:
    home, vendor = Home(tmp_path, pages_at_once=20), Vendor(evenly(280, 1))
    vendor.fail = {6: out_of_quota()}  # others had the rest of the hour
    assert home.run(vendor, span(1)).deferred is not None
    vendor.requests -= 1
    outcome = home.hours(vendor, span(1), 2)
    assert outcome.error is None
    assert outcome.deferred is None
    assert home.ids(span(1)) == list(range(280))
    # The five pages of the first hour twice, and the page where both meet.
    assert vendor.requests <= 28 + 5 + 1


@pytest.mark.parametrize("burst", [0, 300])
def test_a_large_day_in_a_range_is_parted_before_its_older_end_is_cut_too(tmp_path: Path, burst: int) -> None:
    newer = [Visit(v.at + timedelta(days=1), 10_000 + v.id, v.seconds) for v in evenly(430, 1)]
    home = Home(tmp_path, pages_at_once=1000)
    large = [replace(v, seconds=0.0) if v.id < burst else v for v in evenly(1200, 1, bounces=0.05)]
    vendor = Vendor([*large, *newer], fail={n: Killed() for n in range(51, 1000, 51)})
    home.through_cuts(vendor, span(2))
    assert len(home.ids(span(2))) == 1630
    # Seven pages of the large day twice, one that tells how large it is, one that counts, the ends of parts.
    killed = vendor.requests // 51
    assert vendor.requests - killed <= 43 + 120 + 7 + 1 + 1 + 12 + (burst > 0)


def test_a_day_that_has_no_parts_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    home, vendor = Home(tmp_path), Vendor([*evenly(610, 1, bounces=1.0)])
    outcome = home.hours(vendor, span(1), 5)
    assert isinstance(outcome.error, ConfigurationError)
    assert "2026-09-01 has more visits than can be asked for" in str(outcome.error)
    assert "610 records, 61 requests" in str(outcome.error)
    asked = vendor.requests
    assert asked <= 40
    assert isinstance(home.run(vendor, span(1)).error, ConfigurationError)
    assert vendor.requests == asked


def bounces(count: int) -> list[Visit]:
    """Visits of a day that all left at once, on pages of many names."""
    return [Visit(v.at, v.id, 0.0, f"/{v.id * 7919 % 1000:03}-{v.id % 3 * 'blue'}") for v in evenly(count, 1)]


@pytest.mark.parametrize(("count", "requests"), [(610, 80), (1500, 200)])
def test_what_all_left_at_once_is_parted_by_the_texts_of_its_pages(tmp_path: Path, count: int, requests: int) -> None:
    home, vendor = Home(tmp_path), Vendor(bounces(count))
    assert home.hours(vendor, span(1), 20).error is None
    assert home.ids(span(1)) == list(range(count))
    assert vendor.requests <= requests


def test_one_of_them_without_a_text_is_not_lost_in_silence(tmp_path: Path) -> None:
    visits = bounces(610)
    visits[300] = Visit(visits[300].at, 300, 0.0, None)
    outcome = Home(tmp_path / "a").hours(Vendor(visits, is_silent_about_nothing=True), span(1), 20)
    assert isinstance(outcome.error, ConfigurationError)
    assert outcome.done_days == []
    assert Home(tmp_path / "b").hours(Vendor(visits), span(1), 20).done_days == span(1)


def test_records_without_a_measure_are_not_lost_in_silence(tmp_path: Path) -> None:
    visits = evenly(1000, 1)
    visits[500] = Visit(visits[500].at, 500, None)
    home, vendor = Home(tmp_path), Vendor(visits)
    outcome = home.hours(vendor, span(1), 20)
    assert isinstance(outcome.error, ConfigurationError)
    assert outcome.done_days == []


def test_newer_days_are_there_while_a_large_one_goes_on(tmp_path: Path) -> None:
    large = [Visit(v.at, v.id, v.seconds) for v in evenly(600, 1)]
    small = [Visit(v.at + timedelta(days=1), 1000 + v.id, v.seconds) for v in evenly(50, 1)]
    home, vendor = Home(tmp_path), Vendor([*large, *small])
    outcome = home.hours(vendor, span(2), 1)
    assert outcome.done_days == [span(2)[1]]
    assert outcome.deferred is not None
    assert list(outcome.deferred.days) == [FIRST]
    assert home.hours(vendor, span(2), 6).done_days == span(2)
    assert len(home.ids(span(2))) == 650


def test_a_vendor_that_breaks_the_rising_order_is_heard_to_the_end(tmp_path: Path) -> None:
    home, vendor = Home(tmp_path), Vendor(evenly(390, 1), is_deaf_to_order=True)
    assert home.hours(vendor, span(1), 12).error is None
    assert home.ids(span(1)) == list(range(390))


def test_many_records_of_the_instant_of_the_cut_are_all_read(tmp_path: Path) -> None:
    noon = datetime.combine(FIRST, datetime.min.time(), tzinfo=UTC) + timedelta(hours=12)
    visits = [Visit(noon, n, float(n % 50)) for n in range(300)]
    home, vendor = Home(tmp_path), Vendor(visits)
    assert home.hours(vendor, span(1), 12).error is None
    assert home.ids(span(1)) == list(range(300))


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(0, 250),
    days=st.integers(1, 4),
    cuts=st.sets(st.integers(1, 40), max_size=8),
    failure=st.sampled_from(["budget", "kill", "cursor"]),
    pages_at_once=st.integers(1, 12),
    bounces=st.floats(0, 0.9),
)
def test_any_cuts_give_the_rows_of_the_uncut_run(
    tmp_path_factory: pytest.TempPathFactory,
    count: int,
    days: int,
    cuts: set[int],
    failure: str,
    pages_at_once: int,
    bounces: float,
) -> None:
    visits = evenly(count, days, bounces=bounces) if count else []
    home = Home(tmp_path_factory.mktemp("home"), pages_at_once)
    made = FAILURES[failure]
    vendor = Vendor(visits, fail={n: made() for n in cuts})
    for _ in range(len(cuts) + 1):
        try:
            outcome = home.run(vendor, span(days))
        except Killed:
            continue
        for day in outcome.done_days:
            assert home.ids([day]) == [v.id for v in visits if v.at.date() == day]
        if outcome.deferred is None:
            break
    if outcome.error is None:
        assert outcome.done_days == span(days)
        assert home.ids(span(days)) == list(range(count))
    else:
        # A part that has only one duration was cut at both of its ends; or a cursor died on a first page.
        assert isinstance(outcome.error, ConfigurationError | CursorExpired)
