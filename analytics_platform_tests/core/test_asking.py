"""Batches whose requests need nothing of each other: each is sealed when it is whole, whatever the others are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from analytics_platform.core.concurrency import Send
from analytics_platform.core.errors import StorageError, VendorUnavailable
from analytics_platform.core.paging import Page
from analytics_platform.core.streams import Extraction, Stream
from analytics_platform_tests.core.test_fetch import MONDAY, Rig, Vendor, days, table

PARTS = 3


def asking(answer: Callable[[Vendor, Extraction, int], Page | None]) -> Stream:
    """Three requests a day, each answered by `answer`."""

    def requests(client: Vendor, extraction: Extraction) -> Iterator[Send]:
        for number in range(PARTS):
            if f"part/{number}" not in extraction.done_calls:
                yield partial(answer, client, extraction, number)

    return Stream(vendor="acme", name="visits", tables=(table(),), span="day", requests=requests)


def usual(client: Vendor, extraction: Extraction, number: int) -> Page:
    return client.page(f"part/{number}", extraction.first_day, extraction.last_day, number)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_a_stream_is_asked_in_one_way() -> None:
    with pytest.raises(ValueError, match="either extract or requests"):
        Stream(vendor="acme", name="visits", tables=(table(),), span="day")
    with pytest.raises(ValueError, match="either extract or requests"):
        replace(asking(usual), extract=lambda *_: iter(()))


def test_many_days_are_finished_with_few_files_open(rig: Rig) -> None:
    """A batch lets go of its files when it is whole, not when the last of all days is."""
    stream, wanted = asking(usual), days(60, MONDAY - timedelta(days=60))
    opened: list[int] = []
    rig.vendor.on_request = lambda: opened.append(len(list(Path("/proc/self/fd").iterdir())))
    outcome = rig.run(stream, wanted)
    assert (outcome.done_days, outcome.requests, outcome.pages) == (wanted, 180, 180)
    assert max(opened) - min(opened) < len(wanted), "of two files a day"
    assert rig.run(stream, wanted).requests == 0


def test_pages_that_do_not_exist_and_days_without_requests_make_whole_batches(rig: Rig) -> None:
    def nothing_on_mondays(client: Vendor, extraction: Extraction, number: int) -> Page | None:
        return None if extraction.first_day == MONDAY else usual(client, extraction, number)

    assert rig.run(asking(nothing_on_mondays), days(3)).done_days == days(3)
    silent = Stream(vendor="acme", name="silent", tables=(table(),), span="day", requests=lambda *_: iter(()))
    outcome = rig.run(silent, days(3))
    assert (outcome.done_days, outcome.requests) == (days(3), 0)


def test_a_day_that_fails_leaves_whole_days_whole_and_its_pages_landed(rig: Rig) -> None:
    """Newest first: the middle day's last request fails while the oldest day's are under way."""

    def fails_once(client: Vendor, extraction: Extraction, number: int) -> Page:
        if extraction.first_day == MONDAY + timedelta(days=1) and number == 2 and client.version == 1:
            raise VendorUnavailable("down")
        return usual(client, extraction, number)

    outcome = rig.run(asking(fails_once), days(3))
    assert isinstance(outcome.error, VendorUnavailable)
    assert MONDAY + timedelta(days=2) in outcome.done_days
    assert MONDAY + timedelta(days=1) not in outcome.done_days
    landed, sent = outcome.pages, len(rig.vendor.asked)
    assert landed == sent, "every page that was paid for"
    rig.vendor.version = 2
    outcome = rig.run(asking(fails_once), days(3))
    assert (outcome.done_days, rig.last_requests) == (days(3), 9 - landed)


def test_a_batch_that_cannot_be_opened_does_not_lose_what_is_under_way(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = rig.landing.open_batch

    def full(**given: object) -> object:
        if given["first_day"] == MONDAY:
            raise StorageError("no space")
        return opening(**given)  # type: ignore[arg-type]  # handed on as it came

    with monkeypatch.context() as patch:
        patch.setattr(rig.landing, "open_batch", full)
        outcome = rig.run(asking(usual), days(2))
    assert isinstance(outcome.error, StorageError)
    assert (outcome.done_days, outcome.pages) == ([MONDAY + timedelta(days=1)], 3)
    assert (rig.run(asking(usual), days(2)).done_days, rig.last_requests) == (days(2), 3)


def test_the_clock_of_a_batch_begins_when_it_is_opened(rig: Rig) -> None:
    """A provisional day stays so by its oldest page, however long the days before it took."""
    today = rig.clock.now().date()
    assert rig.run(asking(usual), [today - timedelta(days=1), today]).provisional == {today}
