"""Delivery: takes messages out of the outbox, sends them through a vendor's writer, and writes down what came of it.

Belongs here: what an operation is, the order claim → send → settle, and the judgement of every way a sending can end.
Does not belong here: rows and states (`core.outbox`), requests (the vendor's writer, metered by the ledger), which rows
are worth sending, Dagster.

    how it ended                                  at_most_once        deduplicated       then
    answered 2xx                                  sent                sent               go on
    certainly not acted on: no connection, quota,
      429, 401, the token could not be had        pending             pending            stop; quota: deferred
    refused: another 4xx, or unusable as it is    dead                dead               go on (a batch: one by one)
    5xx, reset, time-out, the sender died         unknown             pending, same nonce  stop

Attempts count only sendings the vendor may have acted on. A deduplicated message is given up after `MAX_ATTEMPTS`, one
that is late (`Operation.longest_delay`) before it is sent at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from analytics_platform.core.errors import (
    AuthenticationFailed,
    ConfigurationError,
    MissingCredentials,
    PlatformError,
    QuotaError,
    TransientVendorError,
    UnexpectedRedirect,
    VendorError,
    VendorReportedError,
    Where,
)
from analytics_platform.core.failpoints import passing
from analytics_platform.core.opt_in import WriteOptIn
from analytics_platform.core.outbox_messages import Draft, Enqueued, Guarantee, Holder, Message, Settlement
from analytics_platform.core.redaction import redact
from analytics_platform.settings import Settings

if TYPE_CHECKING:
    from analytics_platform.core.outbox import Outbox

__all__ = [
    "MAX_ATTEMPTS",
    "Connect",
    "Deliverer",
    "DeliveryReport",
    "GroupReport",
    "Operation",
    "Send",
    "Verdict",
    "judge",
    "site_sender",
]

MAX_ATTEMPTS: Final = 8
"""Sendings of one deduplicated message without an answer before it is called dead."""

Send = Callable[[Sequence[Message]], None]
"""Sends messages of one operation and site in one request; raises as the vendor's writer does."""

Connect = Callable[[str, Mapping[str, str], WriteOptIn], AbstractContextManager[Any]]
"""(vendor, the site's ids, the yes) → the vendor's writer. Raises MissingCredentials where the vendor is off."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One way of sending at one vendor, as `vendors/<v>/outbox.py` declares it.

    Args:
        vendor, name: unique together.
        guarantee: what a second sending would do.
        deliver: (writer, the site's ids, messages) → one request.
        max_batch, max_batch_bytes: messages and payload bytes a request.
        is_ordered: a later message overwrites an earlier one, so only one delivery at a time may have any in flight.
        longest_delay: after it the message would be wrong rather than late (the vendor files it under "now").
    """

    vendor: str
    name: str
    guarantee: Guarantee
    deliver: Callable[[Any, Mapping[str, str], Sequence[Message]], None]
    max_batch: int = 1
    max_batch_bytes: int = 1_000_000
    is_ordered: bool = False
    longest_delay: timedelta | None = None

    def enqueue(self, outbox: Outbox, drafts: Sequence[Draft], *, run_id: str = "") -> Enqueued:
        """Write drafts of this operation down; see `Outbox.enqueue`."""
        return outbox.enqueue(drafts, vendor=self.vendor, operation=self.name, guarantee=self.guarantee, run_id=run_id)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a sending that ended so means for its messages (`settlement`) and for the delivery (`then`)."""

    settlement: Settlement
    then: Literal["go on", "stop", "one by one"]
    resume_at: datetime | None = None


def judge(guarantee: Guarantee, error: BaseException | None, *, batch: int = 1) -> Verdict:
    """The table of the module docstring. Pure."""
    if error is None or _was_accepted(error):
        return Verdict(settlement=Settlement(state="sent"), then="go on")
    reason = _reason(error)
    if isinstance(error, QuotaError) and (error.is_unprocessed or guarantee == "deduplicated"):
        pending = Settlement(state="pending", reason=reason, counts=not error.is_unprocessed)
        return Verdict(settlement=pending, then="stop", resume_at=error.resume_at)
    if _is_nobodys_fault_but_ours(error):
        return Verdict(settlement=Settlement(state="pending", reason=reason, counts=False), then="stop")
    if _is_refused(error):
        if batch > 1:
            # Which of them was meant is not said, and none was taken.
            pending = Settlement(state="pending", reason=reason, counts=False)
            return Verdict(settlement=pending, then="one by one")
        return Verdict(settlement=Settlement(state="dead", reason=reason), then="go on")
    if isinstance(error, PlatformError) and error.is_unprocessed:
        return Verdict(settlement=Settlement(state="pending", reason=reason, counts=False), then="stop")
    state: Literal["unknown", "pending"] = "unknown" if guarantee == "at_most_once" else "pending"
    return Verdict(settlement=Settlement(state=state, reason=reason), then="stop")


def _was_accepted(error: BaseException) -> bool:
    """A 2xx whose body could not be read: the vendor said yes all the same."""
    is_success = isinstance(error, VendorError) and error.status is not None and 200 <= error.status < 300
    return is_success and not isinstance(error, VendorReportedError)


def _is_nobodys_fault_but_ours(error: BaseException) -> bool:
    """Credentials or address: every message would meet the same, and none is to blame."""
    return isinstance(error, AuthenticationFailed | MissingCredentials | UnexpectedRedirect)


def _is_refused(error: BaseException) -> bool:
    if isinstance(error, VendorReportedError | ConfigurationError):
        return True  # the vendor said so in its words, or the writer would not send it at all
    status = error.status if isinstance(error, VendorError) else None
    return status is not None and 400 <= status < 500 and status not in (408, 429)


def _reason(error: BaseException) -> str:
    what = error.what if isinstance(error, PlatformError) else "not an error of the platform"
    return redact(f"{type(error).__name__}: {what}")[:300]


@dataclass(kw_only=True)
class GroupReport:
    """What came of one vendor, operation and site in one delivery. `problem` says in words what stopped it, other than
    quota; `is_transient` that another attempt may go better.
    """

    vendor: str
    operation: str
    site_key: str
    sent: int = 0
    unknown: int = 0
    dead: int = 0
    returned: int = 0
    requests: int = 0
    deferred_until: datetime | None = None
    is_deferred: bool = False
    is_busy: bool = False
    problem: str = ""
    is_transient: bool = False

    def add(self, settlement: Settlement, number: int) -> None:
        """Count messages settled so."""
        name = "returned" if settlement.state == "pending" else settlement.state
        setattr(self, name, getattr(self, name) + number)


@dataclass(kw_only=True)
class DeliveryReport:
    """What came of a delivery: one line a group that had something to send, and what was found left behind."""

    groups: list[GroupReport] = field(default_factory=list)
    recovered: int = 0
    expired: int = 0
    spent: int = 0

    @property
    def is_deferred(self) -> bool:
        """Whether quota stopped it."""
        return any(group.is_deferred for group in self.groups)

    @property
    def failed(self) -> bool:
        """Whether something other than quota stopped it, or was refused."""
        return any(group.problem or group.dead or group.unknown for group in self.groups)

    @property
    def sent(self) -> int:
        """Messages the vendors accepted."""
        return sum(group.sent for group in self.groups)


class Deliverer:
    """Delivers what is pending. Any number may run at once, in threads, processes and on several hosts.

    Args:
        outbox: where messages are.
        operations: by (vendor, name).
        open_send: (operation, site key) → context manager of a `Send`. It raises before anything is claimed where the
            vendor is off or the site did not agree.
        run_id: written beside each message, for people.
    """

    def __init__(
        self,
        outbox: Outbox,
        operations: Mapping[tuple[str, str], Operation],
        open_send: Callable[[Operation, str], AbstractContextManager[Send]],
        *,
        run_id: str = "",
    ) -> None:
        self._outbox = outbox
        self._operations = operations
        self._open_send = open_send
        self._run_id = run_id

    def deliver(
        self,
        *,
        vendor: str | None = None,
        operation: str | None = None,
        site_keys: Sequence[str] | None = None,
    ) -> DeliveryReport:
        """Send what is pending, each message at most once in this delivery.

        Never raises for what a vendor or a site's settings do: the report says it. StorageError is raised.
        """
        report = DeliveryReport(recovered=self._outbox.recover())
        for chosen in self._operations.values():
            self._bury(chosen, report)
        for of_vendor, name, site_key in self._outbox.groups(vendor=vendor, operation=operation):
            if site_keys is not None and site_key not in site_keys:
                continue
            group = GroupReport(vendor=of_vendor, operation=name, site_key=site_key)
            report.groups.append(group)
            known = self._operations.get((of_vendor, name))
            if known is None:
                group.problem = f"No operation {name} of {of_vendor} is known here."
                continue
            try:
                with self._open_send(known, site_key) as send:
                    _Group(self._outbox, known, site_key, send, group, self._run_id).deliver()
            except ConfigurationError as error:
                group.problem = str(error.located(vendor=of_vendor, site=site_key))
        return report

    def _bury(self, operation: Operation, report: DeliveryReport) -> None:
        report.spent += self._outbox.bury(
            vendor=operation.vendor,
            operation=operation.name,
            where="spent",
            bound=MAX_ATTEMPTS,
            reason=f"no answer in {MAX_ATTEMPTS} attempts",
        )
        if operation.longest_delay is not None:
            report.expired += self._outbox.bury(
                vendor=operation.vendor,
                operation=operation.name,
                where="expired",
                bound=int(operation.longest_delay.total_seconds()),
                reason=f"waited longer than {operation.longest_delay}: the vendor would count it at the wrong time",
            )


class _Group:
    """One delivery of one operation at one site."""

    def __init__(
        self, outbox: Outbox, operation: Operation, site_key: str, send: Send, report: GroupReport, run_id: str
    ) -> None:
        self._outbox = outbox
        self._operation = operation
        self._site_key = site_key
        self._send = send
        self._report = report
        self._run_id = run_id
        self._holder = Holder.here()

    def deliver(self) -> None:
        after_id = 0
        while True:
            batch = self._claim(after_id=after_id, limit=self._operation.max_batch)
            if not batch:
                return
            after_id = batch[-1].id
            verdict = self._send_and_settle(batch)
            if verdict.then == "one by one":
                verdict = self._one_by_one(batch)
            if verdict.then == "stop":
                return

    def _one_by_one(self, batch: Sequence[Message]) -> Verdict:
        verdict = Verdict(settlement=Settlement(state="sent"), then="go on")
        for message in batch:
            single = self._claim(limit=1, only=[message.id])
            if single:
                verdict = self._send_and_settle(single)
                if verdict.then == "stop":
                    break
        return verdict

    def _claim(self, *, limit: int, after_id: int = 0, only: Sequence[int] = ()) -> tuple[Message, ...]:
        passing("outbox.before_claim")
        claim = self._outbox.claim(
            vendor=self._operation.vendor,
            operation=self._operation.name,
            site_key=self._site_key,
            holder=self._holder,
            limit=limit,
            most_bytes=self._operation.max_batch_bytes,
            after_id=after_id,
            only=only,
            alone=self._operation.is_ordered,
            run_id=self._run_id,
        )
        self._report.is_busy |= claim.is_busy
        if claim.messages:
            passing("outbox.claimed")
        return claim.messages

    def _send_and_settle(self, batch: Sequence[Message]) -> Verdict:
        error: BaseException | None = None
        try:
            self._send(batch)
        except BaseException as raised:
            error = raised
        passing("outbox.answered")
        verdict = judge(self._operation.guarantee, error, batch=len(batch))
        self._report.requests += 1
        settled = self._outbox.settle([message.id for message in batch], verdict.settlement, holder=self._holder)
        passing("outbox.settled")
        if verdict.then != "one by one":
            self._report.add(verdict.settlement, settled)
        if verdict.then == "stop":
            self._explain(verdict, error)
        if error is not None and not isinstance(error, Exception):
            raise error  # Ctrl-C and the like, once the messages are safe
        return verdict

    def _explain(self, verdict: Verdict, error: BaseException | None) -> None:
        self._report.is_deferred = isinstance(error, QuotaError)
        self._report.deferred_until = verdict.resume_at
        self._report.is_transient = isinstance(error, TransientVendorError)
        if not self._report.is_deferred:
            where = Where(vendor=self._operation.vendor, site=self._site_key)
            self._report.problem = f"{verdict.settlement.reason} [{where}]"


def site_sender(settings: Settings, connect: Connect) -> Callable[[Operation, str], AbstractContextManager[Send]]:
    """What a `Deliverer` opens: the writer of the operation's vendor, for a site that agreed to being written for.

    Raises (when opened): ConfigurationError where the site does not use the vendor or its block has no `writes`:
    what was enqueued before somebody took the yes back stays where it is. MissingCredentials as `connect`.
    """

    @contextmanager
    def open_send(operation: Operation, site_key: str) -> Iterator[Send]:
        site = settings.site(site_key)
        ids = site.ids(operation.vendor)
        agreed = site.writes_to(operation.vendor)
        if ids is None or not agreed:
            raise ConfigurationError(
                f"Site {site_key} did not agree to being written for: its messages wait.",
                f"Add `writes: […]` to the {operation.vendor} block of the site in sites.yaml, or discard them.",
            )
        reason = f"sites.yaml of {site_key}: {', '.join(agreed)}"
        with connect(operation.vendor, ids, WriteOptIn(vendor=operation.vendor, reason=reason)) as writer:
            yield lambda batch: operation.deliver(writer, ids, batch)

    return open_send
