"""The wire misbehaves: links and redirects to strangers, limits, outages, nonsense, torn connections, endless lists."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from analytics_platform.core.errors import (
    ForeignOrigin,
    MalformedResponse,
    PageLoop,
    TransientVendorError,
    UnexpectedRedirect,
)
from analytics_platform.core.http import HttpLimits
from analytics_platform.sandbox import faults
from analytics_platform_tests.acceptance.case import CASES, VendorCase
from analytics_platform_tests.acceptance.rig import Bench, Rig, done

pytestmark = pytest.mark.parametrize("case", CASES, ids=str)


@dataclass
class Stranger:
    """Another origin on this machine, and everything it was ever sent."""

    url: str
    heard: list[bytes] = field(default_factory=list)


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    class Listen(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            there.heard.append(self.request.recv(65_536))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Listen) as server:
        there = Stranger(f"http://127.0.0.1:{server.server_address[1]}/next")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield there
        server.shutdown()
        thread.join()


def order(bench: Bench, case: VendorCase, fault: faults.Fault, **when: int) -> None:
    bench.sandbox.faults.add(case.vendor, case.route, fault=fault, **when)


def is_as_read(rig: Rig, reading: Rig) -> bool:
    """The landed pages are the undisturbed reading's, byte for byte; rows are a function of them."""
    stream = rig.case.probe_stream
    return is_complete(rig) and rig.landed(stream) == reading.landed(stream)


def is_complete(rig: Rig) -> bool:
    return any(batch.is_complete for batch in rig.batches(rig.case.probe_stream))


def has_rows_as_read(rig: Rig, reading: Rig) -> bool:
    return rig.rows(rig.case.probe_table) == reading.rows(rig.case.probe_table)


def probe(rig: Rig, **how: Any) -> Any:
    """Fetch and land; decoding is for the tests that say so."""
    return rig.probe(**{"tables": (), **how})


def test_foreign_link_is_refused(
    bench: Bench, case: VendorCase, rig: Rig, reading: Rig, stranger: Stranger, reason: str
) -> None:
    """A next page on another origin is not asked for, and the token does not go there."""
    name, value = case.link
    planted = json.loads(json.dumps(value).replace("{foreign}", stranger.url))
    order(bench, case, faults.drift("add", name, value=planted, at="."), times=1000)
    outcome = probe(rig)
    assert case.follows_links != bool(reason)
    if case.follows_links:
        assert isinstance(outcome.error, ForeignOrigin), outcome.error
        assert stranger.url not in str(outcome.error)
    else:
        done(outcome)
        assert outcome.requests == reading.outcomes[case.probe].requests
    assert stranger.heard == []


def test_redirect_is_refused(bench: Bench, case: VendorCase, rig: Rig, stranger: Stranger) -> None:
    """Nobody is followed anywhere, not with a 307 that would carry the body along either."""
    for code in (302, 307):
        order(bench, case, faults.redirect(stranger.url, code))
        outcome = probe(rig)
        assert isinstance(outcome.error, UnexpectedRedirect), outcome.error
        assert not is_complete(rig)
    assert stranger.heard == []


def test_too_many_requests_with_a_time(bench: Bench, case: VendorCase, rig: Rig, reading: Rig) -> None:
    """A short Retry-After is waited for, by the clock, and the read is whole."""
    order(bench, case, faults.status(429, headers={"Retry-After": "7"}))
    outcome = done(probe(rig))
    assert sum(rig.clock.slept) >= 7
    assert outcome.requests == reading.outcomes[case.probe].requests + 1, "a refused request is a request paid for"
    assert is_as_read(rig, reading)


def test_too_many_requests_without_a_time(bench: Bench, case: VendorCase, rig: Rig, reading: Rig) -> None:
    """Backed off from, and tried again; refused for good it is a deferral with a time, not a failure."""
    table = [case.probe_table]
    order(bench, case, faults.status(429))
    done(probe(rig, tables=table))
    assert len(rig.clock.slept) == 1
    assert is_as_read(rig, reading)
    order(bench, case, faults.status(429), times=1000)
    outcome = probe(rig, refresh=True, tables=table)
    assert outcome.error is None
    assert outcome.deferred is not None
    assert outcome.deferred.resume_at is not None
    assert outcome.deferred.resume_at > rig.clock.now()
    assert has_rows_as_read(rig, reading), "what was there stays there"


def test_a_long_wait_is_deferred(bench: Bench, case: VendorCase, rig: Rig, reading: Rig) -> None:
    """An hour is not slept through: the run ends green, says until when, and the next one goes on."""
    order(bench, case, faults.status(429, headers={"Retry-After": "3600"}))
    outcome = probe(rig)
    assert outcome.error is None
    assert outcome.deferred is not None
    assert outcome.deferred.resume_at is not None
    hour = timedelta(hours=1)
    assert abs(outcome.deferred.resume_at - (rig.clock.now() + hour)) < timedelta(minutes=5)
    assert sum(rig.clock.slept) < 60
    done(probe(rig))
    assert is_as_read(rig, reading)


def test_an_outage_that_ends(bench: Bench, case: VendorCase, rig: Rig, reading: Rig) -> None:
    """Two bad answers cost two requests more and no row; an outage that lasts is transient, and lands nothing."""
    order(bench, case, faults.status(503), times=2)
    outcome = done(probe(rig))
    assert outcome.requests == reading.outcomes[case.probe].requests + 2
    assert is_as_read(rig, reading)
    order(bench, case, faults.status(500), times=1000)
    outcome = probe(rig, refresh=True)
    assert isinstance(outcome.error, TransientVendorError)
    assert is_as_read(rig, reading)


@pytest.mark.parametrize("how", ["truncated", "duplicate_key", "nan", "html", "empty"])
def test_malformed_json_is_refused(bench: Bench, case: VendorCase, rig: Rig, reading: Rig, how: str) -> None:
    """What no strict parser accepts is not landed, and the next run starts from there."""
    order(bench, case, faults.bad_json(how))
    outcome = probe(rig)
    assert isinstance(outcome.error, MalformedResponse), outcome.error
    assert not is_complete(rig)
    done(probe(rig))
    assert is_as_read(rig, reading)


@pytest.mark.parametrize("fault", [faults.cut_body(0.6), faults.cut_gzip(0.6), faults.reset(20)], ids=lambda f: f.kind)
def test_a_connection_closed_in_the_body(
    bench: Bench, case: VendorCase, rig: Rig, reading: Rig, fault: faults.Fault
) -> None:
    """Half an answer is none: a read is sent again, and no half page is ever landed."""
    order(bench, case, fault)
    outcome = done(probe(rig))
    assert outcome.requests == reading.outcomes[case.probe].requests + 1
    assert outcome.pages == reading.outcomes[case.probe].pages
    assert is_as_read(rig, reading)


def test_a_dripping_answer_ends_at_the_deadline(bench: Bench, case: VendorCase, rig: Rig) -> None:
    """Every read comes in time, the whole does not: the attempt is ended by its own deadline."""
    order(bench, case, faults.drip(20, pieces=200), times=1000)
    outcome = probe(rig, limits=HttpLimits(total_seconds=0.15, max_attempts=1))
    assert isinstance(outcome.error, TransientVendorError), outcome.error
    assert not is_complete(rig)


def test_a_wrong_clock_changes_no_row(bench: Bench, case: VendorCase, rig: Rig, reading: Rig) -> None:
    """The vendor's clock is a day ahead: days and rows stay what they are."""
    order(bench, case, faults.clock_skew(86_400), times=1000)
    done(probe(rig))
    assert is_as_read(rig, reading)


def test_endless_list_is_refused(bench: Bench, case: VendorCase, rig: Rig, reading: Rig, reason: str) -> None:
    """A cursor that leads back, and pages without a record that never end: stopped, and nothing counts as complete."""
    assert case.walks != bool(reason)
    if not case.walks:
        pages = [page for stream in case.streams for batch in reading.batches(stream) for page in batch.index()]
        assert {(page.sequence, page.is_last) for page in pages} == {(0, True)}
        return
    for fault in (faults.cursor_loop(), faults.empty_pages()):
        order(bench, case, fault, times=1000)
        outcome = probe(rig)
        bench.sandbox.faults.clear()
        if case.vendor == "inspectlet" and fault.kind == "empty_pages":
            done(outcome)  # who counts pages is told the end by an empty one
            continue
        assert isinstance(outcome.error, PageLoop), outcome.error
        assert not is_complete(rig)


def test_duplicate_rows_are_kept_once(bench: Bench, case: VendorCase, rig: Rig, reading: Rig, reason: str) -> None:
    """The same record twice, on one page or in two runs, is one row."""
    takers = faults.KINDS["duplicate_rows"].vendors
    assert takers is not None
    assert (case.vendor in takers) != bool(reason)
    if case.vendor in takers:
        order(bench, case, faults.duplicate_rows(), times=1000)
    done(probe(rig))
    outcome = done(probe(rig, refresh=True, tables=[case.probe_table]))
    assert outcome.requests > 0
    assert has_rows_as_read(rig, reading)
