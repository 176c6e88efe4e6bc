"""Which days cost requests, what stays when a fetch ends early, and that nothing is paid for twice."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.errors import (
    MissingCredentials,
    NotBackfillable,
    PermissionDenied,
    PlatformError,
    QuotaExhausted,
    RateLimited,
    SchemaMismatch,
    StorageError,
    VendorUnavailable,
)
from analytics_platform.core.fetch import Fetcher, FetchOutcome, SiteContext, days_to_fetch, state_of_days
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.paging import Page
from analytics_platform.core.progress import Progress, listening
from analytics_platform.core.streams import Extraction, Span, Stream
from analytics_platform.core.tables import Column, TableSpec

MONDAY = date(2026, 10, 5)
RESUME_AT = datetime(2026, 10, 9, 1, tzinfo=UTC)
SHOP = SiteContext(key="shop", timezone="Europe/Berlin", ids={"wid": "7"})


def days(count: int, start: date = MONDAY) -> list[date]:
    return [start + timedelta(days=n) for n in range(count)]


def table(name: str = "visits", *, basis: str = "utc", **changes: Any) -> TableSpec:
    base: dict[str, Any] = {
        "vendor": "acme",
        "name": name,
        "description": "One row per visit.",
        "key": ("id", "visit_date"),
        "columns": (
            Column(name="id", type="BIGINT", description="Id."),
            Column(name="visit_date", type="DATE", description="Day.", expr="CAST(r.at AS DATE)"),
            Column(name="version", type="BIGINT", description="What the vendor said last."),
        ),
        "wire": {"id": "BIGINT", "at": "VARCHAR", "version": "BIGINT"},
        "calls": ("search",),
        "day": "CAST(r.at AS DATE)",
        "day_basis": basis,
    }
    return TableSpec(**{**base, **changes})


class Vendor:
    """A vendor of three calls a day (or range), one page each; it counts requests and fails when told."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.asked: list[str] = []
        self.connections = 0
        self.version = 1
        self.fail_at: dict[int, PlatformError] = {}
        self.on_request: Callable[[], None] = lambda: None
        self.bad_days: set[date] = set()

    @contextmanager
    def connect(self) -> Iterator[Vendor]:
        self.connections += 1
        yield self

    def page(self, call: str, first: date, last: date, number: int) -> Page:
        self.asked.append(call)
        self.on_request()
        error = self.fail_at.pop(len(self.asked), None)
        if error is not None:
            raise error
        span = [first + timedelta(days=n) for n in range((last - first).days + 1)]
        rows = [
            {"id": number, "at": str(day), "version": "broken" if day in self.bad_days else self.version}
            for day in span
        ]
        return Page(
            call=call,
            call_kind="search",
            sequence=0,
            is_last=True,
            body=json.dumps(rows).encode(),
            status=200,
            endpoint="POST /visits/search",
            received_at=self.clock.now(),
            context={"day": str(first)},
            records=len(rows),
            attempts=1,
        )


def extract(client: Vendor, extraction: Extraction) -> Iterator[Page]:
    for number in range(3):
        call = f"part/{number}"
        if call not in extraction.done_calls:
            yield client.page(call, extraction.first_day, extraction.last_day, number)


class Rig:
    """A fetcher with a virtual clock over a real landing and lake."""

    def __init__(self, root: Path, now: datetime = datetime(2026, 10, 20, 9, tzinfo=UTC)) -> None:
        self.clock = ManualClock(now)
        self.landing = Landing(root / "landing", clock=self.clock)
        self.lake = Lake(root / "lake")
        self.vendor = Vendor(self.clock)
        self.fetcher = Fetcher(landing=self.landing, lake=self.lake, run_id="run-1", specs_by_name={}, clock=self.clock)

    def stream(self, span: Span = "day", *, lookback_days: int = 0, **changes: Any) -> Stream:
        return Stream(
            vendor="acme",
            name="visits",
            tables=changes.pop("tables", None)
            or (table(basis="snapshot" if span == "snapshot" else "utc", **changes),),
            span=span,
            extract=extract,
            lookback_days=lookback_days,
        )

    def run(self, stream: Stream, wanted: Sequence[date], *, refresh: bool = False) -> FetchOutcome:
        before = len(self.vendor.asked)
        outcome = self.fetcher.run(stream, SHOP, wanted, connect=self.vendor.connect, refresh=refresh)
        self.clock.sleep(1)
        self.last_requests = len(self.vendor.asked) - before
        return outcome

    def versions(self, stream: Stream, day: date) -> list[int]:
        frame = self.lake.frame(stream.tables[0], "shop", [day])
        return sorted(int(version) for version in frame["version"])


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


# ---------------------------------------------------------------------------------------------------- state of a day


def test_a_finished_day_is_final_and_asked_once(rig: Rig) -> None:
    stream = rig.stream()
    outcome = rig.run(stream, days(2))
    assert (outcome.done_days, outcome.requests, outcome.pages, outcome.records) == (days(2), 6, 6, 6)
    assert outcome.provisional == set()
    again = rig.run(stream, days(2))
    assert (again.done_days, again.requests, rig.last_requests, rig.vendor.connections) == (days(2), 0, 0, 1)


def test_a_day_inside_the_look_back_is_provisional_and_the_newer_batch_wins(rig: Rig) -> None:
    stream = rig.stream(lookback_days=2)
    yesterday = rig.clock.now().date() - timedelta(days=1)
    assert rig.run(stream, [yesterday]).provisional == {yesterday}
    rig.vendor.version = 2
    outcome = rig.run(stream, [yesterday])
    assert (rig.last_requests, outcome.provisional, rig.versions(stream, yesterday)) == (3, {yesterday}, [2, 2, 2])
    rig.clock.sleep(2 * 86_400)
    rig.vendor.version = 3
    outcome = rig.run(stream, [yesterday])
    assert (rig.last_requests, outcome.provisional, rig.versions(stream, yesterday)) == (3, set(), [3, 3, 3])
    rig.run(stream, [yesterday])
    assert rig.last_requests == 0


def test_today_is_provisional_and_tomorrow_cannot_be_asked(rig: Rig) -> None:
    stream = rig.stream()
    today = rig.clock.now().date()
    outcome = rig.run(stream, [today, today + timedelta(days=1)])
    assert (outcome.done_days, outcome.provisional) == ([today], {today})
    assert outcome.not_backfillable == [today + timedelta(days=1)]
    assert outcome.error is None


@pytest.mark.parametrize(
    ("basis", "asked_at", "is_final"),
    [
        ("site", datetime(2026, 10, 20, 6, 59, tzinfo=UTC), False),
        ("site", datetime(2026, 10, 20, 7, 0, tzinfo=UTC), True),
        ("utc", datetime(2026, 10, 19, 23, 59, tzinfo=UTC), False),
        ("utc", datetime(2026, 10, 20, 0, 0, tzinfo=UTC), True),
    ],
)
def test_a_day_ends_where_its_table_says_it_ends(
    tmp_path: Path, basis: str, asked_at: datetime, is_final: bool
) -> None:
    west = SiteContext(key="shop", timezone="America/Los_Angeles", ids={})
    rig = Rig(tmp_path, asked_at)
    stream = rig.stream(tables=(table(basis=basis),))
    day = date(2026, 10, 19)
    outcome = rig.fetcher.run(stream, west, [day], connect=rig.vendor.connect)
    assert (outcome.done_days, day not in outcome.provisional) == ([day], is_final)


def test_a_snapshot_is_taken_of_today_once_and_refused_for_the_past(rig: Rig) -> None:
    stream = rig.stream("snapshot", day="CAST(c.day AS DATE)")
    today = rig.clock.now().date()
    assert rig.run(stream, [today]).done_days == [today]
    assert (rig.run(stream, [today]).done_days, rig.last_requests) == ([today], 0)
    outcome = rig.run(stream, [today - timedelta(days=1)])
    assert isinstance(outcome.error, NotBackfillable)
    assert "snapshot" in str(outcome.error)
    assert rig.last_requests == 0
    # Tomorrow, today's snapshot is still there and still not asked for.
    rig.clock.sleep(86_400)
    assert (rig.run(stream, [today]).done_days, rig.last_requests) == ([today], 0)


def test_a_past_snapshot_beside_todays_is_named_and_does_not_fail_the_rest(rig: Rig) -> None:
    stream = rig.stream("snapshot", day="CAST(c.day AS DATE)")
    today = rig.clock.now().date()
    outcome = rig.run(stream, [today - timedelta(days=1), today])
    assert (outcome.done_days, outcome.not_backfillable, outcome.error) == (
        [today],
        [today - timedelta(days=1)],
        None,
    )


def test_days_to_fetch_are_missing_and_provisional_ones(rig: Rig) -> None:
    stream = rig.stream(lookback_days=1)
    today = rig.clock.now().date()
    asked = [today - timedelta(days=n) for n in (4, 2, 1, 0)] + [today + timedelta(days=1)]
    rig.run(stream, [asked[0], asked[1], asked[2]])
    states = state_of_days(stream, rig.landing, SHOP, asked, rig.clock.now())
    assert days_to_fetch(states) == [asked[2], asked[3]]


def test_refresh_asks_again_for_final_days(rig: Rig) -> None:
    stream = rig.stream()
    rig.run(stream, days(1))
    rig.vendor.version = 2
    rig.run(stream, days(1), refresh=True)
    assert (rig.last_requests, rig.versions(stream, MONDAY)) == (3, [2, 2, 2])


def test_replay_decodes_again_and_asks_nothing(rig: Rig) -> None:
    stream = rig.stream("range")
    rig.run(stream, days(3))
    path = rig.lake.partition_path(stream.tables[0], "shop", MONDAY)
    before = path.read_bytes()
    path.unlink()
    outcome = rig.fetcher.replay(stream, SHOP, days(5))
    assert (outcome.done_days, outcome.requests, outcome.error) == (days(3), 0, None)
    assert path.read_bytes() == before


# -------------------------------------------------------------------------------------------------------- out of quota


def quota_spent() -> QuotaExhausted:
    return QuotaExhausted("The window of 20 requests an hour is spent.", resume_at=RESUME_AT)


@pytest.mark.parametrize(
    "error", [quota_spent(), RateLimited("429", resume_at=RESUME_AT)], ids=lambda error: type(error).__name__
)
@pytest.mark.parametrize("paid", range(9))
def test_out_of_quota_keeps_finished_days_and_pages_and_pays_for_nothing_twice(
    rig: Rig, paid: int, error: QuotaExhausted | RateLimited
) -> None:
    stream = rig.stream()
    rig.vendor.fail_at[paid + 1] = error
    outcome = rig.run(stream, days(3))
    # Newest day first: when quota ends early, the days people look at are there.
    finished = paid // 3
    assert outcome.done_days == days(3)[3 - finished :]
    assert outcome.error is None
    assert outcome.deferred is not None
    assert outcome.deferred.days == tuple(days(3)[: 3 - finished])
    assert outcome.deferred.resume_at == RESUME_AT
    assert outcome.requests == outcome.deferred.landed_records == paid
    resumed = rig.run(stream, days(3))
    assert (resumed.done_days, resumed.deferred, rig.last_requests) == (days(3), None, 9 - paid)
    assert [rig.versions(stream, day) for day in days(3)] == [[1, 1, 1]] * 3


def test_out_of_quota_in_a_range_finishes_no_day_and_resumes_call_by_call(rig: Rig) -> None:
    stream = rig.stream("range")
    rig.vendor.fail_at[3] = quota_spent()
    outcome = rig.run(stream, days(4))
    assert outcome.done_days == []
    assert outcome.deferred is not None
    assert (outcome.deferred.days, outcome.deferred.landed_records) == (tuple(days(4)), 8)
    assert (rig.run(stream, days(4)).done_days, rig.last_requests) == (days(4), 1)


@pytest.mark.parametrize("paid", range(10))
def test_a_range_cut_into_batches_finishes_the_newest_batches(rig: Rig, paid: int) -> None:
    """Five days, two a batch, three calls a batch: 8-9, then 6-7, then what is left, the 5th."""
    stream = replace(rig.stream("range"), days_per_batch=lambda ids: 2 if ids["wid"] == "7" else 1)
    rig.vendor.fail_at[paid + 1] = quota_spent()
    outcome = rig.run(stream, days(5))
    batches = paid // 3
    finished = days(5)[max(0, 5 - 2 * batches) :] if batches else []
    assert outcome.done_days == finished
    assert (outcome.deferred is None) == (paid >= 9)
    if outcome.deferred is not None:
        assert outcome.deferred.days == tuple(day for day in days(5) if day not in finished)
    assert rig.run(stream, days(5)).done_days == days(5)
    assert len(rig.vendor.asked) == (9 if paid >= 9 else 10)


def test_pages_that_waited_for_quota_do_not_make_a_day_final(rig: Rig) -> None:
    """Calls paid for at noon know half the day, however late the rest of the batch is sealed."""
    stream = rig.stream()
    today = rig.clock.now().date()
    rig.vendor.fail_at[3] = quota_spent()
    rig.run(stream, [today])
    rig.clock.sleep(3 * 86_400)
    rig.vendor.version = 2
    outcome = rig.run(stream, [today])
    assert (outcome.provisional, rig.versions(stream, today)) == ({today}, [1, 1, 2])
    outcome = rig.run(stream, [today])
    assert (outcome.provisional, rig.last_requests, rig.versions(stream, today)) == (set(), 3, [2, 2, 2])


# ------------------------------------------------------------------------------------------------------------ failures


@pytest.mark.parametrize(
    "error",
    [PermissionDenied("no"), VendorUnavailable("503"), StorageError("full")],
    ids=lambda error: type(error).__name__,
)
def test_a_failure_keeps_finished_days_and_says_where(rig: Rig, error: PlatformError) -> None:
    stream = rig.stream()
    rig.vendor.fail_at[5] = error
    outcome = rig.run(stream, days(3))
    assert outcome.done_days == days(3)[2:]
    assert outcome.error is error
    assert (error.where.vendor, error.where.site, error.where.partition) == ("acme", "shop", "2026-10-05..2026-10-06")
    assert rig.run(stream, days(3)).done_days == days(3)
    assert rig.last_requests == 5


def test_a_vendor_that_is_off_still_serves_what_was_landed(rig: Rig) -> None:
    stream = rig.stream()
    rig.run(stream, days(1))

    def refuse() -> Any:
        raise MissingCredentials("acme is off: ACME_TOKEN is not set.")

    outcome = rig.fetcher.run(stream, SHOP, days(2), connect=refuse)
    assert outcome.done_days == days(1)
    assert isinstance(outcome.error, MissingCredentials)


def corrupt(rig: Rig, day: date) -> None:
    batch = rig.landing.newest_complete("acme", "visits", "shop", [day])[day]
    pages = batch.path / "pages.bin"
    pages.write_bytes(pages.read_bytes()[:-3] + b"???")


def test_a_corrupt_page_fails_its_own_day_only(rig: Rig) -> None:
    stream = rig.stream()
    rig.run(stream, days(4))
    corrupt(rig, days(4)[1])
    outcome = rig.fetcher.replay(stream, SHOP, days(4))
    assert outcome.done_days == [days(4)[n] for n in (0, 2, 3)]
    assert "no longer matches its sha256" in str(outcome.error)
    assert "2026-10-06" in str(outcome.error)


def test_a_day_whose_tables_did_not_all_decode_is_not_done(rig: Rig) -> None:
    strict = table()
    lenient = table(
        "ids",
        columns=(Column(name="id", type="BIGINT", description="Id."),),
        key=("id",),
        wire={**strict.wire, "version": "VARCHAR"},
    )
    stream = rig.stream(tables=(lenient, strict))
    rig.vendor.bad_days = {days(3)[2]}
    outcome = rig.run(stream, days(3))
    assert outcome.done_days == days(2)
    assert isinstance(outcome.error, SchemaMismatch)


def test_the_first_cause_is_the_one_that_is_shown(rig: Rig) -> None:
    stream = rig.stream()
    rig.run(stream, days(1))
    corrupt(rig, MONDAY)
    rig.vendor.fail_at[4] = PermissionDenied("This scope is not yours.")
    assert isinstance(rig.run(stream, days(2)).error, PermissionDenied)


def test_an_unreadable_seal_is_an_outcome_not_a_crash(rig: Rig) -> None:
    stream = rig.stream()
    rig.run(stream, days(1))
    (rig.landing.newest_complete("acme", "visits", "shop", days(1))[MONDAY].path / "batch.json").write_bytes(b"{")
    outcome = rig.run(stream, days(1))
    assert "seal" in str(outcome.error)
    assert rig.last_requests == 0


# --------------------------------------------------------------------------------------------------------- two at once


def test_two_runs_of_one_day_pay_once(rig: Rig) -> None:
    """I1: the one that comes second is told so, and finds the day paid for when it looks again."""
    stream = rig.stream()
    second: list[FetchOutcome] = []

    def meanwhile() -> None:
        if not second:
            second.append(rig.fetcher.run(stream, SHOP, days(1), connect=rig.vendor.connect))

    rig.vendor.on_request = meanwhile
    first = rig.run(stream, days(1))
    assert first.done_days == days(1)
    assert "Another run" in str(second[0].error)
    assert len(rig.vendor.asked) == 3


def test_days_are_looked_at_again_under_the_lock(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run may finish between the first look and the lock; its days must not be paid for again."""
    stream = rig.stream()
    real = rig.landing.exclusive
    entered: list[str] = []

    @contextmanager
    def late(vendor: str, name: str, site: str) -> Iterator[None]:
        if not entered:
            entered.append(name)
            other = threading.Thread(target=lambda: rig.fetcher.run(stream, SHOP, days(2), connect=rig.vendor.connect))
            other.start()
            other.join()
        with real(vendor, name, site):
            yield

    monkeypatch.setattr(rig.landing, "exclusive", late)
    outcome = rig.run(stream, days(2))
    assert (outcome.done_days, outcome.requests, len(rig.vendor.asked)) == (days(2), 0, 6)


# ----------------------------------------------------------------------------------------------------- how it is asked


def test_a_range_is_asked_once_a_contiguous_run_and_split_into_days(rig: Rig) -> None:
    stream = rig.stream("range")
    outcome = rig.run(stream, [*days(3), *days(2, MONDAY + timedelta(days=5))])
    assert outcome.requests == 2 * 3
    assert outcome.done_days == [*days(3), *days(2, MONDAY + timedelta(days=5))]


def test_progress_is_told_after_every_page(rig: Rig) -> None:
    heard: list[Progress] = []
    with listening(heard.append):
        rig.run(rig.stream("range"), days(2))
    assert [(event.pages, event.records, event.requests) for event in heard] == [(1, 2, 1), (2, 4, 2), (3, 6, 3)]
    assert str(heard[-1]) == "acme/visits shop 2026-10-05..2026-10-06: 3 pages, 6 records, 3 requests, 0.0 s"


def test_only_the_asked_tables_are_decoded(rig: Rig) -> None:
    stream = rig.stream(tables=(table("one"), table("two")))
    rig.fetcher.run(stream, SHOP, days(1), connect=rig.vendor.connect, tables=stream.tables[:1])
    assert rig.lake.has(stream.tables[0], "shop", MONDAY)
    assert not rig.lake.has(stream.tables[1], "shop", MONDAY)
