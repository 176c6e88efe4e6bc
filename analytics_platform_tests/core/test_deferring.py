"""What waits for deferred work it reads, and who remembers what a cut run did not come to."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.deferring import defer_readers, fetch_or_defer, held_up_by, waited_for
from analytics_platform.core.fetch import Fetcher, SiteContext
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.quota import Deferral, Ledger
from analytics_platform.vendors import all_tables, streams_of

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
DAYS = [date(2026, 11, day) for day in range(1, 7)]
EVENTS = next(stream for stream in streams_of("smartlook") if stream.name == "events")
VISITS = next(stream for stream in streams_of("kameleoon") if stream.name == "visits")
SHOP = SiteContext(key="shop", timezone="Europe/Berlin", ids={})


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.sqlite3", ManualClock(NOON)) as opened:
        yield opened


def defer(ledger: Ledger, vendor: str, stream: str, first: int, last: int, *, site: str = "shop") -> Deferral:
    ledger.defer(
        vendor=vendor,
        stream=stream,
        site=site,
        first_day=DAYS[first],
        last_day=DAYS[last],
        resume_at=NOON + timedelta(minutes=40),
        reason="spent",
    )
    return next(d for d in ledger.deferrals() if (d.vendor, d.stream, d.site) == (vendor, stream, site))


def test_rows_are_waited_for_on_the_days_and_the_site_they_are_read_for(ledger: Ledger) -> None:
    sessions = defer(ledger, "smartlook", "sessions", 0, 2)
    defer(ledger, "smartlook", "sessions", 0, 5, site="blog")
    defer(ledger, "smartlook", "funnels", 0, 5)
    found = ledger.deferrals()
    assert waited_for(found, EVENTS, "shop", DAYS) == (sessions,)
    assert waited_for(found, EVENTS, "shop", DAYS[3:]) == ()
    assert waited_for(found, EVENTS, "shop", []) == ()


def test_of_another_vendor_every_deferral_of_these_days_counts(ledger: Ledger) -> None:
    defer(ledger, "inspectlet", "sessions", 1, 1)
    defer(ledger, "pirsch", "sessions", 0, 5)
    assert [d.vendor for d in waited_for(ledger.deferrals(), VISITS, "shop", DAYS)] == ["inspectlet"]
    own = defer(ledger, "kameleoon", "visits", 1, 4)
    assert [d.vendor for d in held_up_by(own, VISITS, ledger.deferrals())] == ["inspectlet"]
    later = defer(ledger, "kameleoon", "visits", 2, 4)
    assert held_up_by(later, VISITS, ledger.deferrals()) == ()


def test_a_range_waits_for_all_of_its_days_and_asks_nothing_meanwhile(ledger: Ledger, tmp_path: Path) -> None:
    """Asked in two parts, whoever is in both would be asked for twice."""
    defer(ledger, "smartlook", "sessions", 0, 1)
    clock = ManualClock(NOON)
    fetcher = Fetcher(
        landing=Landing(tmp_path / "landing", clock=clock),
        lake=Lake(tmp_path / "lake"),
        run_id="run",
        specs_by_name=all_tables(),
        clock=clock,
    )

    def connect() -> None:
        raise AssertionError("nothing may be asked")

    outcome = fetch_or_defer(
        EVENTS, SHOP, DAYS, fetcher=fetcher, ledger=ledger, connect=connect, run_id="run", is_backfill=True
    )
    assert outcome.deferred is not None
    assert outcome.deferred.days == tuple(DAYS)
    (waits,) = [d for d in ledger.deferrals() if d.stream == "events"]
    assert (waits.first_day, waits.last_day) == (DAYS[0], DAYS[-1])
    assert waits.reason == "It reads smartlook/sessions, which is deferred."
    assert waits.resume_at == NOON + timedelta(minutes=40)


def test_readers_of_a_cut_stream_are_remembered_with_all_their_days(ledger: Ledger) -> None:
    defer_readers(ledger, [("smartlook", "events")], "shop", DAYS, upstream="smartlook/sessions", resume_at=NOON)
    (reader,) = ledger.deferrals()
    assert (reader.first_day, reader.last_day, reader.resume_at) == (DAYS[0], DAYS[-1], NOON)
    assert reader.reason == "It reads smartlook/sessions, which the same run had to defer."
