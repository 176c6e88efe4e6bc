"""What may be spent and what was: the values of quota, without the database behind them.

Belongs here: windows, policies, account names, the label requests are spent under, and the rows people read. Kept apart
from `core.quota` so that whoever declares or shows a quota does not load a database toolkit.
Does not belong here: deciding or counting (`core.quota`), any vendor's figures (`vendors/<v>/`).
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from analytics_platform.core.errors import ConfigurationError

__all__ = [
    "MICROSECONDS",
    "SYNCED_FROM_SECONDS",
    "DayUsage",
    "Deferral",
    "HourlyRequests",
    "QuotaPolicy",
    "ReportedUsage",
    "Spending",
    "Spent",
    "Window",
    "WindowUsage",
    "account_key",
    "per_minute_windows",
    "spending",
    "spending_now",
]

MICROSECONDS: Final = 1_000_000
"""In a second: the ledger's unit of time."""

SYNCED_FROM_SECONDS: Final = 60.0
"""Windows longer than this survive a power cut, and a policy may keep a reserve of them."""


@dataclass(frozen=True)
class Window:
    """At most `limit` requests in any `seconds`.

    Args:
        guard_seconds: added for the way to the vendor (`core.quota`, "Guard").
        apart_seconds: no two requests leave closer together. A crowd is stretched by whatever it queues in on its way,
            and then counted with the next; much less than `seconds / limit` costs nothing, for what was missed in a
            busy moment can be made up.
    """

    limit: int
    seconds: float
    guard_seconds: float = -1.0
    apart_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.limit < 1 or not 0 < self.seconds < math.inf:
            raise ConfigurationError(
                f"a quota window of {self.limit} requests in {self.seconds} s cannot be used",
                next_step="give a limit of at least 1 and a positive length (a vendor is switched off in sites.yaml).",
            )
        if not 0 <= self.apart_seconds * self.limit <= self.seconds:
            raise ConfigurationError(
                f"{self.limit} requests in {self.seconds} s cannot be {self.apart_seconds} s apart"
            )
        if self.guard_seconds < 0:
            object.__setattr__(self, "guard_seconds", min(0.05 * self.seconds, 2.0))

    @property
    def span_us(self) -> int:
        """The window as the ledger keeps it, guard included, in microseconds."""
        return math.ceil((self.seconds + self.guard_seconds) * MICROSECONDS)


@dataclass(frozen=True, kw_only=True)
class QuotaPolicy:
    """What one vendor account may spend.

    Args:
        account: from `account_key`.
        windows: by method class. A class is an HTTP verb ("GET"), "any" (one bucket for all verbs) or "*" (each verb
            not named has its own bucket of this size: Kameleoon).
        reserve: requests of every window longer than a minute that a backfill leaves alone, for today's partitions.
    """

    account: str
    windows: Mapping[str, tuple[Window, ...]]
    reserve: int = 0

    def __post_init__(self) -> None:
        if not self.windows or not all(self.windows.values()):
            raise ConfigurationError(f"the quota policy of {self.account} names no window")
        smallest = min((w.limit for w in self._all() if w.seconds > SYNCED_FROM_SECONDS), default=self.reserve + 1)
        if not 0 <= self.reserve < smallest:
            raise ConfigurationError(
                f"the quota reserve of {self.account} is {self.reserve} of {smallest} requests",
                next_step="keep the reserve below the smallest limit, or a backfill could never run.",
            )

    def _all(self) -> Iterator[Window]:
        for windows in self.windows.values():
            yield from windows

    @property
    def vendor(self) -> str:
        return self.account.partition(":")[0]

    def method_class(self, method: str) -> str:
        """The bucket an HTTP verb is counted in. Raises ConfigurationError for a verb the policy does not cover."""
        verb = method.upper()
        if verb in self.windows:
            return verb
        if "any" in self.windows:
            return "any"
        if "*" in self.windows:
            return verb
        raise ConfigurationError(f"no quota window covers {verb} requests of {self.vendor}")

    def windows_for(self, method_class: str) -> tuple[Window, ...]:
        return self.windows.get(method_class) or self.windows["*"]


def per_minute_windows(ids: Mapping[str, str], default: int) -> dict[str, tuple[Window, ...]]:
    """Windows of a vendor that publishes no limit: `requests_per_minute` of the site's block, else a polite default.

    All verbs are one bucket; what a 429 teaches the ledger goes on top.

    Raises:
        ConfigurationError: not a whole number of at least 1.
    """
    stated = ids.get("requests_per_minute", str(default))
    if not stated.isascii() or not stated.isdigit() or int(stated) < 1:
        raise ConfigurationError(
            f"requests_per_minute is {stated!r}.", "Give a whole number of at least 1 in sites.yaml."
        )
    return {"any": (Window(int(stated), 60.0),)}


def account_key(vendor: str, scope: str) -> str:
    """Name of a vendor account in the ledger: the vendor and a keyed 64-bit digest of what the vendor counts by.

    `scope` is a client id, a token's value, a user name or an IP: two sites with the same credential share one account.
    Only the digest is kept; it cannot be turned back into a token.
    """
    digest = hashlib.blake2b(
        scope.encode(), digest_size=8, key=b"analytics_platform.quota", person=vendor.encode()[:16]
    )
    return f"{vendor}:{digest.hexdigest()}"


@dataclass(frozen=True, kw_only=True)
class Spending:
    """What requests are spent on, for the request log; `backfill` makes the policy's reserve untouchable."""

    stream: str = ""
    site: str = ""
    run_id: str = ""
    backfill: bool = False


_spending: ContextVar[Spending | None] = ContextVar("analytics_platform_spending", default=None)


@contextlib.contextmanager
def spending(*, stream: str, site: str = "", run_id: str = "", backfill: bool = False) -> Iterator[None]:
    """Label the requests of a `with` block. Threads started inside need `contextvars.copy_context().run`."""
    token = _spending.set(Spending(stream=stream, site=site, run_id=run_id, backfill=backfill))
    try:
        yield
    finally:
        _spending.reset(token)


def spending_now() -> Spending | None:
    """The label of the innermost `spending` block of this context."""
    return _spending.get()


@dataclass(frozen=True, kw_only=True)
class WindowUsage:
    """One window on the status screen.

    `next_slot_at` is when the next request may leave (None: now); `resets_at` when the window is empty again (None:
    it is); `blocked_until` is set while a 429 is obeyed; `refused` counts 429 answers within the window.
    """

    account: str
    method_class: str
    limit: int
    window_seconds: float
    used: int
    remaining: int
    next_slot_at: datetime | None
    resets_at: datetime | None
    blocked_until: datetime | None
    refused: int


@dataclass(frozen=True, kw_only=True)
class ReportedUsage:
    """What a vendor says it counted in the current window of one bucket, whoever sent it.

    Args:
        used: requests.
        possible_limits: the limits its plans have, for when it refuses below ours; empty where nobody knows.
    """

    method_class: str
    used: int
    possible_limits: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Requests spent under one label."""

    vendor: str
    stream: str
    site: str
    endpoint: str
    requests: int


@dataclass(frozen=True, kw_only=True)
class HourlyRequests:
    """Requests of one account and endpoint that left in one UTC hour (aware), and answers 429 that came in it.

    `site` is the site they were for; "" where an answer or a token belongs to none.
    """

    hour_at: datetime
    vendor: str
    account: str
    method_class: str
    endpoint: str
    site: str
    requests: int
    refused: int


@dataclass(frozen=True, kw_only=True)
class DayUsage:
    """How full one window of one account was on one UTC date.

    `used` is the fullest span of `window_seconds` on the ledger's own grid, what others sent included; `requests` what
    we sent all day; `refused` answers 429.
    """

    account: str
    method_class: str
    window_seconds: float
    limit: int
    date_utc: date
    used: int
    requests: int
    refused: int


@dataclass(frozen=True, kw_only=True)
class Deferral:
    """Work out of budget: both days inclusive, `resume_at` aware UTC."""

    vendor: str
    stream: str
    site: str
    first_day: date
    last_day: date
    resume_at: datetime
    reason: str
    landed_records: int
    recorded_at: datetime
