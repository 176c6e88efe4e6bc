"""Time as a value that can be handed in, so that an hour of quota passes in a millisecond of test.

Belongs here: the `Clock` protocol, the real one, and the one tests turn by hand.
Does not belong here: time zones and days (`core.partitions`), the wire's own deadlines (`core.wire`: a socket lives
in real time).
"""

from __future__ import annotations

import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Protocol

__all__ = ["SYSTEM_CLOCK", "Clock", "ManualClock", "SystemClock"]


class Clock(Protocol):
    """What the platform asks of time."""

    def now(self) -> datetime:
        """The current instant, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start that is no earlier than the machine's; never goes back while it is up."""
        ...

    def sleep(self, seconds: float) -> None:
        """Return after `seconds`; zero or less returns at once."""
        ...


class SystemClock:
    """The host's clock."""

    def now(self) -> datetime:
        """The current instant, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds of the operating system's monotonic clock."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Block the calling thread."""
        if seconds > 0:
            # The one place that sleeps for a vendor: everybody else holds a Clock, which tests replace.
            time.sleep(seconds)


class ManualClock:
    """A clock that moves only when told: `sleep` advances it and returns at once. Thread-safe.

    `now` and `monotonic` move together; `jump` moves `now` alone, as an NTP step or a wrong host clock does; `reboot`
    begins `monotonic` anew.

    Args:
        start: first value of `now()`, an aware instant.
    """

    def __init__(self, start: datetime) -> None:
        if start.tzinfo is None:
            raise ValueError("ManualClock needs an aware start")
        self._lock = threading.Lock()
        self._now = start.astimezone(UTC)
        self._monotonic = 0.0
        self._boot_id = str(uuid.uuid4())
        self._slept: list[float] = []

    def now(self) -> datetime:
        """The instant the clock was last moved to, aware, in UTC."""
        with self._lock:
            return self._now

    def monotonic(self) -> float:
        """Seconds slept or advanced since construction, or since the last `reboot`."""
        with self._lock:
            return self._monotonic

    def sleep(self, seconds: float) -> None:
        """Advance by `seconds` and remember the request in `slept`."""
        if seconds > 0:
            with self._lock:
                self._slept.append(seconds)
            self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Move both readings forward."""
        if seconds < 0:
            raise ValueError("time does not go back; jump() moves the wall clock alone")
        with self._lock:
            self._now += timedelta(seconds=seconds)
            self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """Move the wall clock alone, either way."""
        with self._lock:
            self._now += timedelta(seconds=seconds)

    def reboot(self, *, off_seconds: float = 0.0) -> None:
        """The machine was off for so long: the wall clock went on, the monotonic one starts again at zero."""
        self.advance(off_seconds)
        with self._lock:
            self._monotonic = 0.0
            self._boot_id = str(uuid.uuid4())

    @property
    def boot_id(self) -> str:
        """The same as long as monotonic readings can be compared."""
        with self._lock:
            return self._boot_id

    @property
    def slept(self) -> tuple[float, ...]:
        """Every positive sleep so far, in seconds and in order."""
        with self._lock:
            return tuple(self._slept)


SYSTEM_CLOCK = SystemClock()
"""The default of every `clock` parameter."""
