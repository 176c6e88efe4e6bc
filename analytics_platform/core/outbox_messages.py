"""What goes into the outbox and comes out of it: messages, their states, and who has them in flight.

Belongs here: values, and knowing whether the process that holds a message is still there. Does not belong here: rows
and transactions (`core.outbox`, `core.outbox_store`): importing this needs no database toolkit.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, Self
from uuid import uuid4

__all__ = [
    "STATES",
    "Claim",
    "Counts",
    "Draft",
    "Enqueued",
    "Guarantee",
    "Holder",
    "Message",
    "Settlement",
    "State",
]

Guarantee = Literal["at_most_once", "deduplicated"]
"""at_most_once: a second sending would count twice. deduplicated: the vendor counts a repeated one once."""

State = Literal["pending", "in_flight", "sent", "unknown", "dead"]
STATES: Final[tuple[State, ...]] = ("pending", "in_flight", "sent", "unknown", "dead")


@dataclass(frozen=True, kw_only=True)
class Draft:
    """Something to send, before it is in the outbox.

    Args:
        site_key: whose site.
        payload: what the vendor's operation encodes and understands; may hold personal data.
        dedupe_key: names the thing; unique per vendor, operation and site. Only its SHA-256 is kept.
        nonce: 16 hex characters the vendor knows the thing by; random where none is given.
    """

    site_key: str
    payload: bytes = field(repr=False)
    dedupe_key: str = field(repr=False)
    nonce: str = field(default_factory=lambda: secrets.token_hex(8))


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message as it stands. Instants are aware UTC; `attempts` counts sendings the vendor may have acted on."""

    id: int
    vendor: str
    operation: str
    site_key: str
    nonce: str
    guarantee: Guarantee
    state: State
    reason: str
    attempts: int
    enqueued_at: datetime
    claimed_at: datetime | None
    settled_at: datetime | None
    run_id: str
    payload: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Enqueued:
    """What came of `enqueue`: messages that are new, and how many were in the outbox already."""

    ids: tuple[int, ...]
    known: int


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Messages that are ours to send, in the order they were enqueued; `is_busy` where another holder is at it."""

    messages: tuple[Message, ...]
    is_busy: bool = False


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """What came of a sending. `counts` says whether the vendor may have acted on it."""

    state: State
    reason: str = ""
    counts: bool = True


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How many messages of one vendor, operation and site stand where. Discarded ones are dead on purpose."""

    vendor: str
    operation: str
    site_key: str
    pending: int = 0
    in_flight: int = 0
    sent: int = 0
    unknown: int = 0
    dead: int = 0
    discarded: int = 0


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who has messages in flight: a process of one boot of one machine, and which delivery of it.

    Process ids are used again, so the process is named with the instant it started.
    """

    machine: str
    boot: str
    pid: int
    started: str
    delivery: str

    @classmethod
    def here(cls) -> Self:
        """This process, for one delivery."""
        return cls(
            machine=_machine(), boot=_boot(), pid=os.getpid(), started=_started(os.getpid()), delivery=uuid4().hex[:12]
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """What `str` wrote."""
        machine, boot, pid, started, delivery = (text.split(":") + [""] * 5)[:5]
        return cls(machine=machine, boot=boot, pid=int(pid or 0), started=started, delivery=delivery)

    def __str__(self) -> str:
        return f"{self.machine}:{self.boot}:{self.pid}:{self.started}:{self.delivery}"

    def is_gone(self, *, claimed_at: datetime, now: datetime, lease: timedelta) -> bool:
        """Whether nobody will settle what it holds. Where the process cannot be looked at, its lease decides."""
        if now - claimed_at >= lease:
            return True
        if self.machine != _machine() or not self.boot:
            return False
        return self.boot != _boot() or _started(self.pid) != self.started


@lru_cache(maxsize=1)
def _machine() -> str:
    return hashlib.sha256(os.uname().nodename.encode()).hexdigest()[:12]


@lru_cache(maxsize=1)
def _boot() -> str:
    """Empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process started, in ticks since the boot; empty where there is none (a zombie counts as none)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    # The command name may hold spaces and parentheses: fields are counted after its end.
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]
