"""One decision of the ledger as values: what is asked, what is known, when the request may leave.

Belongs here: the rule and what it is applied to; nothing here reads or writes. Does not belong here: statements
(`core.quota_statements`), taking turns, sleeping (`core.quota`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from analytics_platform.core.errors import ConfigurationError, QuotaExhausted, Where
from analytics_platform.core.quota_policy import MICROSECONDS, SYNCED_FROM_SECONDS, QuotaPolicy, Spending, Window

__all__ = [
    "LEARNED_LIMIT_SECONDS",
    "Answer",
    "Ask",
    "Facts",
    "Label",
    "Rows",
    "ask_of",
    "by_seconds",
    "earliest_us",
    "exhausted",
    "minute",
    "offset",
    "offsets",
    "tolerated_us",
    "with_limit",
    "with_limits",
]

LEARNED_LIMIT_SECONDS: Final = 86_400.0
"""How long a limit is believed that a 429 taught; then the declared one is tried again, at the price of one 429."""
_LEAST_LATE_US: Final = 5_000
"""What a thread oversleeps on a quiet host."""


@dataclass(frozen=True)
class Facts:
    """All a decision depends on, read in one statement of the transaction that writes it. Microseconds, ledger time."""

    newest_us: int
    nth_us: tuple[int | None, ...]
    blocked_until_us: int
    strikes: int
    trusted_us: int
    lost_us: int | None
    learned_limit: int | None
    learned_us: int

    def limit_in_force(self, now_us: int) -> int | None:
        """What a 429 taught about the longest window, as long as it is believed."""
        return self.learned_limit if self.learned_us > now_us - LEARNED_LIMIT_SECONDS * MICROSECONDS else None


@dataclass(frozen=True)
class Rows:
    """Rows of one bucket with one stamp, written by one transaction: no other row of the bucket is between them."""

    account: str
    method_class: str
    first_row: int
    last_row: int
    stamp_us: int
    written_us: int


Label = tuple[object, ...]
"""Bucket, windows, reserve and everything a row says: requests of one label can use each other's rows."""


@dataclass(eq=False)
class Ask:
    """One caller's question to the ledger and, once decided, its answer."""

    windows: tuple[Window, ...]
    offsets: dict[str, object]
    row: dict[str, object]
    cost: int
    keep_free: int
    longest_wait_us: float
    label: Label | None
    follows: bool = False
    """There are rows written ahead still: this one goes and writes the next, while others use those."""
    instead_of: Rows | None = None
    answer: Answer | None = None
    error: Exception | None = None

    @property
    def is_settled(self) -> bool:
        return self.answer is not None or self.error is not None

    @property
    def bucket(self) -> dict[str, object]:
        return {"account": self.row["account"], "method_class": self.row["method_class"]}

    def again(self, *, instead_of: Rows) -> Ask:
        """The same question, giving back these rows."""
        return replace(self, instead_of=instead_of, label=None, answer=None, error=None)

    def below(self, learned_limit: int) -> Ask:
        """The same question under a lower limit of the longest window."""
        windows = with_limit(self.windows, learned_limit)
        smallest = min((w.limit for w in windows if w.seconds > SYNCED_FROM_SECONDS), default=learned_limit)
        if self.cost > min(w.limit for w in windows):
            return self  # never fits: the vendor itself has to say so
        keep_free = max(0, min(self.keep_free, smallest - self.cost))
        below = offsets(windows, cost=self.cost, keep_free=keep_free)
        return replace(self, windows=windows, offsets=below, keep_free=keep_free)


@dataclass(frozen=True)
class Answer:
    """`rows` is None where nothing was written: the slot is too far away, or (`is_granted`) was written ahead."""

    leave_us: int
    wait_us: int
    wall: datetime
    windows: tuple[Window, ...]
    strikes: int = 0
    is_granted: bool = False
    rows: Rows | None = None


def earliest_us(now_us: int, windows: Sequence[Window], facts: Facts) -> int:
    """The instant the next request may leave, by the rule of `core.quota`. Pure: property-tested on its own."""
    instants = [now_us, facts.blocked_until_us]
    for window, nth_us in zip(windows, facts.nth_us, strict=True):
        if window.apart_seconds > 0:
            instants.append(facts.newest_us + math.ceil(window.apart_seconds * MICROSECONDS))
        if nth_us is not None:
            instants.append(nth_us + window.span_us)
        if facts.lost_us is not None and facts.trusted_us < facts.lost_us:
            instants.append(facts.lost_us + window.span_us)
    return max(instants)


def ask_of(
    account: str,
    method_class: str,
    windows: tuple[Window, ...],
    endpoint: str,
    *,
    cost: int,
    keep_free: int,
    max_wait_seconds: float,
    work: Spending,
    label: Label | None,
    follows: bool,
) -> Ask:
    """The question as the statements want it. Raises ConfigurationError where the cost can never fit."""
    row: dict[str, object] = {
        "account": account,
        "method_class": method_class,
        "kind": "sent",
        "endpoint": endpoint[:200],
        "vendor": account.partition(":")[0],
        "stream": work.stream,
        "site": work.site,
        "run_id": work.run_id,
    }
    return Ask(
        windows=windows,
        offsets=offsets(windows, cost=cost, keep_free=keep_free),
        row=row,
        cost=cost,
        keep_free=keep_free,
        longest_wait_us=max_wait_seconds * MICROSECONDS,
        label=label,
        follows=follows,
    )


def offsets(windows: Sequence[Window], *, cost: int, keep_free: int) -> dict[str, object]:
    """`offset` of each window, as the statements name them."""
    return {f"offset_{i}": offset(window, cost=cost, keep_free=keep_free) for i, window in enumerate(windows)}


def offset(window: Window, *, cost: int, keep_free: int) -> int:
    """How many newest rows may stay inside the window when `cost` more join them."""
    limit = window.limit - (keep_free if window.seconds > SYNCED_FROM_SECONDS else 0)
    if not 1 <= cost <= limit:
        raise ConfigurationError(
            f"{cost} requests at once can never fit {limit} of {window.limit} requests in {window.seconds:g} s",
            next_step="raise the plan's limit, or lower the reserve.",
        )
    return limit - cost


def exhausted(
    account: str, method_class: str, endpoint: str, resume_at: datetime, windows: Iterable[Window]
) -> QuotaExhausted:
    """The refusal in words."""
    limits = ", ".join(f"{w.limit} in {w.seconds:g} s" for w in windows)
    return QuotaExhausted(
        f"no {method_class} request is left in the quota ({limits})",
        next_step=f"nothing: the work resumes by itself at {minute(resume_at)}.",
        where=Where(vendor=account.partition(":")[0], endpoint=endpoint),
        resume_at=resume_at,
    )


def tolerated_us(windows: Sequence[Window]) -> float:
    """How late a request may leave by the instant written down: half of what the guard allows for the whole way."""
    guard_us = min(window.guard_seconds for window in windows) * MICROSECONDS
    return max(guard_us / 2, _LEAST_LATE_US)


def by_seconds(window: Window) -> float:
    """Orders windows by their length."""
    return window.seconds


def with_limits(policy: QuotaPolicy, limits: Mapping[str, int]) -> QuotaPolicy:
    """The longest window of these classes at these limits, where they are lower."""
    windows = dict(policy.windows)
    for method_class, limit in limits.items():
        own = policy.windows_for(method_class) if method_class in windows or "*" in windows else ()
        if own:
            windows[method_class] = with_limit(own, limit)
    smallest = min((w.limit for ws in windows.values() for w in ws if w.seconds > SYNCED_FROM_SECONDS), default=1)
    return replace(policy, windows=windows, reserve=min(policy.reserve, max(0, smallest - 1)))


def with_limit(windows: tuple[Window, ...], limit: int) -> tuple[Window, ...]:
    """The longest of these windows at this limit, where it is lower."""
    longest = max(windows, key=by_seconds)
    lower = replace(longest, limit=min(longest.limit, limit))
    return tuple(lower if window is longest else window for window in windows)


def minute(instant: datetime) -> str:
    """An instant for people."""
    return f"{instant:%Y-%m-%d %H:%M:%S} UTC"
