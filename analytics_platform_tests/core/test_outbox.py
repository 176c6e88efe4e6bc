"""The outbox: its state machine, its dedupe, delivery by several processes, quota, and what a person may do with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ForeignOrigin,
    MalformedResponse,
    MissingCredentials,
    NotSent,
    PermissionDenied,
    PlatformError,
    QuotaExhausted,
    RateLimited,
    RequestRejected,
    StorageError,
    TruncatedResponse,
    UnexpectedRedirect,
    VendorReportedError,
    VendorUnavailable,
    VendorUnreachable,
)
from analytics_platform.core.http import HttpClient, HttpLimits
from analytics_platform.core.opt_in import Confirmation, WriteOptIn
from analytics_platform.core.outbox import Outbox
from analytics_platform.core.outbox_delivery import MAX_ATTEMPTS, Deliverer, Operation, judge, site_sender
from analytics_platform.core.outbox_messages import STATES, Draft, Guarantee, Holder, Message, Settlement, State
from analytics_platform.core.quota import Ledger
from analytics_platform.core.quota_policy import QuotaPolicy, Window
from analytics_platform.settings import Home, Settings, Site
from analytics_platform_tests.core.loopback import Exchange, Loopback, in_turn

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
VENDOR, SITE = "acme", "shop"


def _nothing(writer: Any, ids: Any, batch: Sequence[Message]) -> None:
    """The operation's own delivery is not reached where a test gives its `Send`."""


def operation(guarantee: Guarantee = "at_most_once", **options: Any) -> Operation:
    return Operation(vendor=VENDOR, name="hit", guarantee=guarantee, deliver=_nothing, **options)


def draft(key: str, payload: bytes = b"{}") -> Draft:
    return Draft(site_key=SITE, payload=payload, dedupe_key=key)


def deliverer(outbox: Outbox, chosen: Operation, send: Callable[[Sequence[Message]], None]) -> Deliverer:
    @contextmanager
    def open_send(_: Operation, __: str) -> Iterator[Callable[[Sequence[Message]], None]]:
        yield send

    return Deliverer(outbox, {(chosen.vendor, chosen.name): chosen}, open_send)


def states(outbox: Outbox) -> list[State]:
    return [message.state for message in reversed(outbox.messages())]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def outbox(tmp_path: Path, clock: ManualClock) -> Iterator[Outbox]:
    with Outbox.open(tmp_path / "state" / "outbox.db", clock) as opened:
        yield opened


# ---- what every end of a sending means -----------------------------------------------------------------------------


def _unprocessed(error: PlatformError) -> PlatformError:
    error.is_unprocessed = True
    return error


LATER = START + timedelta(hours=1)
ENDS: list[tuple[BaseException | None, State, State, str]] = [
    (None, "sent", "sent", "go on"),
    (MalformedResponse("no JSON", status=200), "sent", "sent", "go on"),
    (TruncatedResponse("cut", status=202), "sent", "sent", "go on"),
    (VendorReportedError("validation", status=200), "dead", "dead", "go on"),
    (RequestRejected("bad", status=400), "dead", "dead", "go on"),
    (PermissionDenied("no add-on", status=403), "dead", "dead", "go on"),
    (ConfigurationError("too large"), "dead", "dead", "go on"),
    (_unprocessed(NotSent("refused")), "pending", "pending", "stop"),
    (_unprocessed(QuotaExhausted("spent", resume_at=LATER)), "pending", "pending", "stop"),
    (_unprocessed(RateLimited("429", status=429, resume_at=LATER)), "pending", "pending", "stop"),
    (_unprocessed(AuthenticationFailed("401", status=401)), "pending", "pending", "stop"),
    (_unprocessed(StorageError("ledger")), "pending", "pending", "stop"),
    (_unprocessed(VendorUnreachable("token host")), "pending", "pending", "stop"),
    (_unprocessed(ForeignOrigin("base url")), "pending", "pending", "stop"),
    (UnexpectedRedirect("301", status=301), "pending", "pending", "stop"),
    (MissingCredentials("off"), "pending", "pending", "stop"),
    (VendorUnavailable("503", status=503), "unknown", "pending", "stop"),
    (VendorUnavailable("408", status=408), "unknown", "pending", "stop"),
    (VendorUnreachable("no answer"), "unknown", "pending", "stop"),
    (RateLimited("429 after a time-out", status=429), "unknown", "pending", "stop"),
    (StorageError("ledger, after the answer"), "unknown", "pending", "stop"),
    (ZeroDivisionError(), "unknown", "pending", "stop"),
    (KeyboardInterrupt(), "unknown", "pending", "stop"),
]


@pytest.mark.parametrize(("error", "at_most_once", "deduplicated", "then"), ENDS, ids=lambda v: type(v).__name__)
def test_every_end_of_a_sending_has_its_meaning(
    error: BaseException | None, at_most_once: State, deduplicated: State, then: str
) -> None:
    once, again = judge("at_most_once", error), judge("deduplicated", error)
    assert (once.settlement.state, again.settlement.state) == (at_most_once, deduplicated)
    assert once.then == again.then == then


def test_only_what_may_have_been_acted_on_counts_as_an_attempt() -> None:
    assert not judge("deduplicated", _unprocessed(NotSent("refused"))).settlement.counts
    assert judge("deduplicated", VendorUnreachable("no answer")).settlement.counts


def test_a_refused_batch_is_tried_one_by_one_and_the_reason_holds_no_person() -> None:
    verdict = judge("at_most_once", RequestRejected("mail canary@example.org is bad", status=400), batch=2)
    assert (verdict.then, verdict.settlement.state, verdict.settlement.counts) == ("one by one", "pending", False)
    assert "canary" not in verdict.settlement.reason


# ---- putting in ----------------------------------------------------------------------------------------------------


def test_the_same_thing_twice_is_once_also_after_it_was_sent(outbox: Outbox) -> None:
    chosen = operation()
    first = chosen.enqueue(outbox, [draft("a"), draft("b"), draft("a")], run_id="r1")
    assert (len(first.ids), first.known) == (2, 1)
    deliverer(outbox, chosen, lambda batch: None).deliver()
    assert chosen.enqueue(outbox, [draft("a"), draft("c")]).known == 1
    assert states(outbox) == ["sent", "sent", "pending"]
    other_site = Draft(site_key="blog", payload=b"{}", dedupe_key="a")
    assert chosen.enqueue(outbox, [other_site]).known == 0


def test_a_sent_message_keeps_nothing_of_its_payload_and_no_dedupe_key_is_kept_in_clear(
    outbox: Outbox, tmp_path: Path
) -> None:
    chosen = operation()
    chosen.enqueue(outbox, [draft("canary-key@example.org", b"canary-payload")])
    deliverer(outbox, chosen, lambda batch: None).deliver()
    assert outbox.messages()[0].payload == b""
    outbox.forget(lambda payload: False)
    assert b"canary" not in b"".join(path.read_bytes() for path in (tmp_path / "state").iterdir())


def test_the_file_is_private(outbox: Outbox, tmp_path: Path) -> None:
    operation().enqueue(outbox, [draft("a")])
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "state").iterdir()}
    assert set(modes.values()) == {0o600}, modes


def test_a_database_url_that_cannot_be_used_is_refused_without_showing_it() -> None:
    for url in ("mysql://root:hunter2@host/db", "postgresql+nodriver://root:hunter2@host/db", "://"):
        with pytest.raises(ConfigurationError) as refused:
            Outbox.open(url)
        assert "hunter2" not in str(refused.value)


def test_a_file_that_cannot_be_used_stops_everything(tmp_path: Path) -> None:
    (tmp_path / "outbox.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(StorageError, match="the outbox cannot be used"):
        Outbox.open(tmp_path / "outbox.db")
    (tmp_path / "folder").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot be opened"):
        Outbox.open(tmp_path / "folder" / "outbox.db")


# ---- delivery ------------------------------------------------------------------------------------------------------


def test_batches_keep_order_and_bounds(outbox: Outbox) -> None:
    chosen = operation(max_batch=3, max_batch_bytes=25)
    chosen.enqueue(outbox, [draft(str(n), b"x" * size) for n, size in enumerate((10, 10, 10, 40, 1, 1, 1, 1))])
    seen: list[list[int]] = []
    report = deliverer(outbox, chosen, lambda batch: seen.append([m.id for m in batch])).deliver()
    assert seen == [[1, 2], [3], [4], [5, 6, 7], [8]]
    assert (report.sent, report.groups[0].requests) == (8, 5)


def test_one_bad_item_of_a_batch_dies_and_the_rest_is_sent(outbox: Outbox) -> None:
    chosen = operation(max_batch=4)
    chosen.enqueue(outbox, [draft(str(n), str(n).encode()) for n in range(4)])

    def send(batch: Sequence[Message]) -> None:
        if any(message.payload == b"2" for message in batch):
            raise RequestRejected("ip must be valid", status=400)

    report = deliverer(outbox, chosen, send).deliver()
    assert states(outbox) == ["sent", "sent", "dead", "sent"]
    assert outbox.get(3).reason == "RequestRejected: ip must be valid"
    assert report.failed
    assert not report.is_deferred


def test_out_of_quota_is_deferred_and_nothing_is_lost(outbox: Outbox) -> None:
    chosen = operation()
    chosen.enqueue(outbox, [draft(str(n)) for n in range(3)])
    answers = iter([None, _unprocessed(QuotaExhausted("spent", resume_at=LATER))])

    def send(batch: Sequence[Message]) -> None:
        if (error := next(answers)) is not None:
            raise error

    report = deliverer(outbox, chosen, send).deliver()
    assert states(outbox) == ["sent", "pending", "pending"]
    assert report.is_deferred
    assert not report.failed
    assert report.groups[0].deferred_until == LATER
    assert outbox.get(2).attempts == 0


def test_an_outage_stops_the_delivery_and_leaves_one_unknown_not_all(outbox: Outbox) -> None:
    chosen = operation()
    chosen.enqueue(outbox, [draft(str(n)) for n in range(3)])

    def send(batch: Sequence[Message]) -> None:
        raise VendorUnavailable("503", status=503)

    report = deliverer(outbox, chosen, send).deliver()
    assert states(outbox) == ["unknown", "pending", "pending"]
    assert "VendorUnavailable" in report.groups[0].problem
    assert report.groups[0].is_transient


def test_ctrl_c_while_sending_leaves_unknown_and_goes_through(outbox: Outbox) -> None:
    chosen = operation()
    chosen.enqueue(outbox, [draft("a")])

    def send(batch: Sequence[Message]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deliverer(outbox, chosen, send).deliver()
    assert states(outbox) == ["unknown"]


def test_a_deduplicated_message_keeps_its_nonce_and_dies_after_so_many_attempts(outbox: Outbox) -> None:
    chosen = operation("deduplicated")
    chosen.enqueue(outbox, [draft("a")])
    nonces = set()

    def send(batch: Sequence[Message]) -> None:
        nonces.add(batch[0].nonce)
        raise VendorUnreachable("no answer")

    for _ in range(MAX_ATTEMPTS):
        assert deliverer(outbox, chosen, send).deliver().groups
    assert outbox.get(1).attempts == MAX_ATTEMPTS
    assert deliverer(outbox, chosen, send).deliver().spent == 1
    assert states(outbox) == ["dead"]
    assert len(nonces) == 1


def test_what_waited_too_long_is_not_sent_at_the_wrong_time(outbox: Outbox, clock: ManualClock) -> None:
    chosen = operation(longest_delay=timedelta(minutes=30))
    chosen.enqueue(outbox, [draft("old")])
    clock.advance(1801)
    chosen.enqueue(outbox, [draft("new")])
    sent: list[int] = []
    report = deliverer(outbox, chosen, lambda batch: sent.extend(m.id for m in batch)).deliver()
    assert sent == [2]
    assert report.expired == 1
    assert outbox.get(1).reason.startswith("waited longer than 0:30:00")


def test_where_order_matters_only_one_delivery_has_messages_in_flight(outbox: Outbox) -> None:
    chosen = operation("deduplicated", is_ordered=True)
    chosen.enqueue(outbox, [draft("a"), draft("b")])
    inner: list[bool] = []

    def send(batch: Sequence[Message]) -> None:
        if not inner:
            inner.append(True)
            inner[0] = deliverer(outbox, chosen, send).deliver().groups[0].is_busy

    deliverer(outbox, chosen, send).deliver()
    assert inner == [True]
    assert states(outbox) == ["sent", "sent"]


def test_an_operation_nobody_knows_is_reported_and_left_alone(outbox: Outbox) -> None:
    outbox.enqueue([draft("a")], vendor=VENDOR, operation="gone", guarantee="at_most_once")
    report = deliverer(outbox, operation(), lambda batch: None).deliver()
    assert report.groups[0].problem == "No operation gone of acme is known here."
    assert states(outbox) == ["pending"]


def test_a_site_that_took_its_yes_back_is_not_written_for(outbox: Outbox, tmp_path: Path) -> None:
    chosen = operation()
    chosen.enqueue(outbox, [draft("a")])
    opened: list[str] = []

    @contextmanager
    def connect(vendor: str, ids: Any, opt_in: WriteOptIn) -> Iterator[object]:
        opened.append(opt_in.reason)
        yield object()

    def deliver(**agreed: Any) -> str:
        site = Site(key=SITE, start_date=START.date(), vendors={VENDOR: {"id": "1", **agreed}})
        platform = Settings(home=Home(root=tmp_path), sites=(site,))
        sender = site_sender(platform, connect)
        return Deliverer(outbox, {(VENDOR, "hit"): chosen}, sender).deliver().groups[0].problem

    assert "did not agree" in deliver()
    assert (opened, states(outbox)) == ([], ["pending"])
    assert deliver(writes=["hit"]) == ""
    assert (opened, states(outbox)) == (["sites.yaml of shop: hit"], ["sent"])


# ---- a sender that died --------------------------------------------------------------------------------------------


def holder_of_a_dead_process() -> Holder:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    text = str(Holder.here())
    started = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
    child.kill()
    child.communicate()
    machine, boot, *_ = text.split(":")
    return Holder(machine=machine, boot=boot, pid=child.pid, started=started, delivery="x")


def claim(outbox: Outbox, holder: Holder) -> tuple[Message, ...]:
    return outbox.claim(
        vendor=VENDOR, operation="hit", site_key=SITE, holder=holder, limit=9, most_bytes=10**6
    ).messages


@pytest.mark.parametrize(("guarantee", "state"), [("at_most_once", "unknown"), ("deduplicated", "pending")])
def test_messages_of_a_dead_sender_are_judged_and_of_a_living_one_are_not(
    outbox: Outbox, guarantee: Guarantee, state: State
) -> None:
    chosen = operation(guarantee)
    chosen.enqueue(outbox, [draft("a")])
    claim(outbox, Holder.here())
    assert outbox.recover() == 0
    chosen.enqueue(outbox, [draft("b")])
    claim(outbox, holder_of_a_dead_process())
    assert outbox.recover() == 1
    assert states(outbox) == ["in_flight", state]
    assert outbox.get(2).attempts == 1


def test_a_sender_elsewhere_has_a_lease_and_its_late_answer_still_counts(outbox: Outbox, clock: ManualClock) -> None:
    elsewhere = Holder(machine="other", boot="b", pid=1, started="1", delivery="d")
    operation().enqueue(outbox, [draft("a")])
    claim(outbox, elsewhere)
    clock.advance(29 * 60)
    assert outbox.recover() == 0
    clock.advance(2 * 60)
    assert outbox.recover() == 1
    assert states(outbox) == ["unknown"]
    assert outbox.settle([1], Settlement(state="sent"), holder=elsewhere) == 1
    assert states(outbox) == ["sent"]


def test_what_somebody_else_holds_by_now_is_not_settled(outbox: Outbox, clock: ManualClock) -> None:
    first, second = (Holder(machine="other", boot="b", pid=n, started="1", delivery="d") for n in (1, 2))
    operation("deduplicated").enqueue(outbox, [draft("a")])
    claim(outbox, first)
    clock.advance(31 * 60)
    outbox.recover()
    claim(outbox, second)
    assert outbox.settle([1], Settlement(state="sent"), holder=first) == 0
    assert states(outbox) == ["in_flight"]


# ---- a person's side -----------------------------------------------------------------------------------------------


def test_only_a_typed_word_sends_an_unknown_message_again(outbox: Outbox) -> None:
    chosen = operation()
    chosen.enqueue(outbox, [draft("a"), draft("b")])

    def lost(batch: Sequence[Message]) -> None:
        raise VendorUnreachable("no answer")

    deliverer(outbox, chosen, lost).deliver()
    with pytest.raises(ConfigurationError, match="resend 1"):
        outbox.resend(1, Confirmation("yes"))
    with pytest.raises(ConfigurationError, match="Message 2 is pending"):
        outbox.resend(2, Confirmation("resend 2"))
    with pytest.raises(ConfigurationError, match="no message 9"):
        outbox.discard(9)
    assert outbox.resend(1, Confirmation("resend 1")).state == "pending"
    deliverer(outbox, chosen, lambda batch: None).deliver()
    assert states(outbox) == ["sent", "sent"]
    with pytest.raises(ConfigurationError, match="is sent"):
        outbox.discard(1)


def test_a_discarded_message_is_never_enqueued_again_and_counts_apart(outbox: Outbox) -> None:
    chosen = operation()
    chosen.enqueue(outbox, [draft("a", b"secret")])
    assert outbox.discard(1).payload == b""
    assert chosen.enqueue(outbox, [draft("a")]).known == 1
    (counts,) = outbox.counts()
    assert (counts.dead, counts.discarded) == (0, 1)
    with pytest.raises(ConfigurationError, match="is discarded"):
        outbox.resend(1, Confirmation("resend 1"))


def test_forget_leaves_no_byte_of_a_person_and_everything_of_the_others(outbox: Outbox, tmp_path: Path) -> None:
    chosen = operation()
    payloads = [b'{"visitor":"%s","n":%d}' % (who, n) for n in range(200) for who in (b"canary-7f3a", b"other-1b2c")]
    chosen.enqueue(outbox, [draft(str(n), payload) for n, payload in enumerate(payloads)])
    assert outbox.forget(lambda payload: b"canary-7f3a" in payload) == 200
    assert outbox.forget(lambda payload: b"canary-7f3a" in payload) == 0
    everything = b"".join(path.read_bytes() for path in (tmp_path / "state").iterdir())
    assert b"canary-7f3a" not in everything
    assert everything.count(b"other-1b2c") == 200
    assert [message.payload for message in reversed(outbox.messages(limit=500))] == payloads[1::2]


# ---- the ledger ----------------------------------------------------------------------------------------------------


class LoopbackWriter:
    """A vendor's writer in small: one POST a call."""

    def __init__(self, url: str, ledger: Ledger, *, limit: int) -> None:
        policy = QuotaPolicy(account="acme:1", windows={"POST": (Window(limit=limit, seconds=3600.0),)})
        self.http = HttpClient(
            vendor=VENDOR,
            base_url=url,
            meter=ledger.meter(policy, max_wait_seconds=0.0),
            limits=HttpLimits(total_seconds=5, max_attempts=1),
        )

    def __call__(self, batch: Sequence[Message]) -> None:
        body = {"ids": [message.id for message in batch]}
        self.http.request("POST", "/hit", endpoint="POST /hit", json=body, expect="any")


def test_the_ledger_stops_a_delivery_at_the_limit_and_the_rest_goes_when_it_is_free(
    outbox: Outbox, clock: ManualClock, tmp_path: Path
) -> None:
    chosen = operation()
    chosen.enqueue(outbox, [draft(str(n)) for n in range(7)])
    with Loopback(lambda e: e.json({})) as vendor, Ledger.open(tmp_path / "ledger.db", clock) as ledger:
        writer = LoopbackWriter(vendor.url, ledger, limit=5)
        report = deliverer(outbox, chosen, writer).deliver()
        assert (len(vendor.seen), report.sent, report.is_deferred) == (5, 5, True)
        assert report.groups[0].deferred_until is not None
        assert deliverer(outbox, chosen, writer).deliver().sent == 0
        clock.advance(3700)
        assert deliverer(outbox, chosen, writer).deliver().sent == 2
        writer.http.close()
    assert len(vendor.seen) == 7


def test_on_the_wire_a_reset_is_unknown_and_a_refused_connection_is_pending(outbox: Outbox, tmp_path: Path) -> None:
    chosen = operation()
    chosen.enqueue(outbox, [draft("a"), draft("b")])
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        with Loopback(in_turn(lambda e: e.reset())) as vendor:
            writer = LoopbackWriter(vendor.url, ledger, limit=100)
            deliverer(outbox, chosen, writer).deliver()
            assert states(outbox) == ["unknown", "pending"]
        report = deliverer(outbox, chosen, writer).deliver()
        writer.http.close()
    assert states(outbox) == ["unknown", "pending"]
    assert "NotSent" in report.groups[0].problem


# ---- several processes at once -------------------------------------------------------------------------------------

DELIVER = """
import sys
from contextlib import contextmanager
from analytics_platform.core.http import HttpClient
from analytics_platform.core.outbox import Outbox
from analytics_platform.core.outbox_delivery import Deliverer, Operation

path, url = sys.argv[1:]
chosen = Operation(vendor="acme", name="hit", guarantee="at_most_once", deliver=lambda *_: None, max_batch=3)
with HttpClient(vendor="acme", base_url=url) as http, Outbox.open(path) as outbox:
    @contextmanager
    def open_send(operation, site_key):
        def send(batch):
            body = {"ids": [message.id for message in batch]}
            http.request("POST", "/hit", endpoint="POST /hit", json=body, expect="any")
        yield send
    print("ready", flush=True)
    sys.stdin.readline()
    print(Deliverer(outbox, {("acme", "hit"): chosen}, open_send).deliver().sent)
"""


def test_two_processes_that_deliver_at_once_send_every_message_once(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    with Outbox.open(path) as outbox:
        operation().enqueue(outbox, [draft(str(n)) for n in range(120)])
    seen: list[int] = []

    def answer(exchange: Exchange) -> None:
        seen.extend(json.loads(exchange.seen.body)["ids"])
        exchange.json({})

    with Loopback(answer) as vendor:
        command = [sys.executable, "-c", DELIVER, str(path), vendor.url]
        both = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
            for _ in range(2)
        ]
        for process in both:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        sent = []
        for process in both:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in both:
            told, _ = process.communicate(timeout=60)
            sent.append(int(told))
    assert Counter(seen) == Counter(range(1, 121))
    assert sum(sent) == 120
    with Outbox.open(path) as outbox:
        assert outbox.states_of(range(1, 121))["sent"] == 120


# ---- the state machine ---------------------------------------------------------------------------------------------


class OutboxMachine(RuleBasedStateMachine):
    """Any order of enqueueing, sending that ends in any way, senders that die, and people's decisions.

    The model is the vendor: how often it acted on each message.
    """

    def __init__(self) -> None:
        super().__init__()
        self.effects: Counter[tuple[str, str]] = Counter()
        self.resent: Counter[int] = Counter()
        self.keys: dict[int, tuple[Guarantee, str]] = {}

    @initialize()
    def begin(self) -> None:
        self.clock = ManualClock(START)
        self.outbox = Outbox.open(_fresh_file(), self.clock)
        self.dead_holder = Holder(machine=Holder.here().machine, boot="another boot", pid=1, started="1", delivery="d")

    def teardown(self) -> None:
        if hasattr(self, "outbox"):
            self.outbox.close()

    def operation(self, guarantee: Guarantee, batch: int = 2) -> Operation:
        return Operation(vendor=VENDOR, name=guarantee, guarantee=guarantee, deliver=_nothing, max_batch=batch)

    @rule(guarantee=st.sampled_from(["at_most_once", "deduplicated"]), keys=st.lists(st.integers(0, 6), max_size=4))
    def enqueue(self, guarantee: Guarantee, keys: list[int]) -> None:
        new = self.operation(guarantee).enqueue(self.outbox, [draft(str(key), b"p") for key in keys])
        for number in new.ids:
            self.keys[number] = (guarantee, self.outbox.get(number).nonce)

    @rule(
        guarantee=st.sampled_from(["at_most_once", "deduplicated"]),
        end=st.sampled_from(range(len(ENDS))),
        acted=st.booleans(),
        batch=st.integers(1, 3),
    )
    def deliver(self, guarantee: Guarantee, end: int, acted: bool, batch: int) -> None:
        error = ENDS[end][0]
        is_certain_no = getattr(error, "is_unprocessed", False) or ENDS[end][1] in ("dead", "pending")

        def send(sent: Sequence[Message]) -> None:
            if error is None or _accepted(error) or (acted and not is_certain_no):
                self.effects.update(self.keys[message.id] for message in sent)
            if error is not None:
                raise error

        try:
            deliverer(self.outbox, self.operation(guarantee, batch), send).deliver(operation=guarantee)
        except KeyboardInterrupt:
            assert isinstance(error, KeyboardInterrupt)

    @rule(guarantee=st.sampled_from(["at_most_once", "deduplicated"]), acted=st.booleans())
    def sender_dies(self, guarantee: Guarantee, acted: bool) -> None:
        claimed = self.outbox.claim(
            vendor=VENDOR, operation=guarantee, site_key=SITE, holder=self.dead_holder, limit=2, most_bytes=99
        )
        if acted:
            self.effects.update(self.keys[message.id] for message in claimed.messages)
        self.outbox.recover()

    @rule(number=st.integers(1, 14))
    def resend(self, number: int) -> None:
        try:
            self.outbox.resend(number, Confirmation(f"resend {number}"))
        except ConfigurationError:
            return
        self.resent[number] += 1

    @rule(number=st.integers(1, 14))
    def discard(self, number: int) -> None:
        try:
            self.outbox.discard(number)
        except ConfigurationError:
            return

    @invariant()
    def at_most_once_holds_unless_a_person_said_otherwise(self) -> None:
        for number, key in self.keys.items():
            if key[0] == "at_most_once":
                assert self.effects[key] <= 1 + self.resent[number]

    @invariant()
    def nothing_stays_in_flight_and_sent_means_acted_on(self) -> None:
        if not hasattr(self, "outbox"):
            return
        found = self.outbox.messages()
        assert {message.id for message in found} == set(self.keys)
        for message in found:
            assert message.state in STATES
            assert message.state != "in_flight"
            if message.state == "sent":
                assert self.effects[self.keys[message.id]] >= 1
                assert message.payload == b""
            assert (message.guarantee, message.nonce) == self.keys[message.id]


def _accepted(error: BaseException) -> bool:
    return judge("at_most_once", error).settlement.state == "sent"


_files: list[Path] = []


def _fresh_file() -> Path:
    path = _files[0] / f"{len(_files)}.db"
    _files.append(path)
    return path


@pytest.fixture(autouse=True, scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    _files[:] = [tmp_path_factory.mktemp("machine")]
    yield
    _files.clear()


OutboxMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=15, deadline=None, derandomize=True)
TestOutboxMachine = OutboxMachine.TestCase


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(1, 5), st.integers(1, 60))
@settings(max_examples=30, deadline=None)
def test_every_batch_fits_or_holds_one_message(sizes: list[int], limit: int, most_bytes: int) -> None:
    chosen = operation(max_batch=limit, max_batch_bytes=most_bytes)
    with Outbox.open(_fresh_file(), ManualClock(START)) as opened:
        chosen.enqueue(opened, [draft(str(n), b"x" * size) for n, size in enumerate(sizes)])
        seen: list[list[int]] = []
        deliverer(opened, chosen, lambda batch: seen.append([len(m.payload) for m in batch])).deliver()
    assert [size for batch in seen for size in batch] == sizes
    assert all(len(batch) == 1 or (len(batch) <= limit and sum(batch) <= most_bytes) for batch in seen)
