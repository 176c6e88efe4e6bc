"""Rows written ahead: who may have them, how many, for how long.

Belongs here: what one process holds, taken and given under one lock; the pace that says how many to write. Does not
belong here: writing them and giving them back (`core.quota`, "Ahead").
"""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

from analytics_platform.core.quota_decision import Label, Rows
from analytics_platform.core.quota_policy import MICROSECONDS, Window

__all__ = ["ROOM_AHEAD", "Ahead", "Allowance", "Pace", "RowsAhead"]

_LONGEST_AHEAD_US: Final = 250_000
"""A row written ahead is used within this time or given back."""
_MOST_AHEAD: Final = 32
_SHARE_AHEAD: Final = 60
"""One process holds at most this part (one in so many) of a window ahead,"""
ROOM_AHEAD: Final = 5
"""and only while so many times as much is free: others may be about to need it."""
_MOST_LABELS: Final = 64
"""Labels whose pace is remembered."""


@dataclass(eq=False)
class Ahead:
    """Rows of a label that are written and not used yet. Guarded by the ledger's lock for them.

    `ids` are used up from the front; a database may number the rows of a transaction with gaps.
    """

    label: Label
    rows: Rows
    ids: deque[int]
    size: int
    is_followed: bool = False
    """Somebody is writing the next ones."""
    pid: int = field(default_factory=os.getpid)

    def is_usable(self, now_us: int) -> bool:
        """By this process, at this instant."""
        return self.pid == os.getpid() and now_us <= self.rows.stamp_us

    @property
    def unused(self) -> Rows:
        return replace(self.rows, first_row=self.ids[0], last_row=self.ids[-1])


@dataclass(eq=False)
class Pace:
    """How fast a label asks: how many rows of its last transaction it used, and when that was."""

    used: int = 1
    written_us: int = 0

    def next_size(self, now_us: int, allowance: Allowance) -> int:
        """What it will use in the time rows may be held; at most twice as many as before."""
        at_this_pace = self.used * allowance.hold_us // max(1, now_us - self.written_us)
        return max(1, min(at_this_pace, self.used * 2, allowance.most))


@dataclass(frozen=True)
class Allowance:
    """What may be written ahead under these windows: at most so many rows, for so long."""

    most: int
    hold_us: int

    @classmethod
    @lru_cache(maxsize=256)
    def under(cls, windows: tuple[Window, ...]) -> Allowance:
        most = min(_MOST_AHEAD, *(window.limit // _SHARE_AHEAD for window in windows))
        guard_us = math.floor(min(window.guard_seconds for window in windows) * MICROSECONDS)
        hold_us = min(_LONGEST_AHEAD_US, guard_us // 2)
        is_possible = hold_us > 0 and not any(window.apart_seconds for window in windows)
        return cls(most=most if is_possible else 1, hold_us=hold_us)


class RowsAhead:
    """All that one process holds. Thread-safe; empty it is False."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_label: dict[Label, list[Ahead]] = {}
        self._paces: dict[Label, Pace] = {}

    def __bool__(self) -> bool:
        return bool(self._by_label)

    def add(self, written: Mapping[Label, Ahead]) -> None:
        """What a transaction wrote and its own batch did not use."""
        with self._lock:
            for label, ahead in written.items():
                self._by_label.setdefault(label, []).append(ahead)

    def use(self, label: Label, now_us: int) -> bool:
        """Take one of the rows written ahead for this label, where there are and their time is not over."""
        with self._lock:
            written = self._by_label.get(label, [])
            ahead = next((each for each in written if each.is_usable(now_us)), None)
            if ahead is None:
                return False
            ahead.ids.popleft()
            if not ahead.ids:
                written.remove(ahead)
        return True

    def is_to_follow(self, label: Label) -> bool:
        """True for one caller when a quarter of the rows ahead is left.

        It writes the next while others go on with those: a synced transaction among a landing's own syncs takes longer
        than an answer, and everybody would wait for it.
        """
        with self._lock:
            last = next(reversed(self._by_label.get(label, [])), None)
            if last is None or last.is_followed or len(last.ids) > last.size // 4:
                return False
            last.is_followed = True
        return True

    def wanted(self, label: Label, allowance: Allowance, now_us: int, asking: int) -> int:
        """How many rows this label will use in the time they may be held; at least one.

        Args:
            asking: callers of this label that wait already.
        """
        with self._lock:
            if label not in self._paces and len(self._paces) >= _MOST_LABELS:
                self._paces.clear()
            pace = self._paces.setdefault(label, Pace())
            in_hand = sum(len(written.ids) for written in self._by_label.get(label, []))
            wanted = max(pace.next_size(now_us, allowance), min(asking, allowance.most))
            return max(1, min(wanted, allowance.most - in_hand))

    def note(self, label: Label, written: int, now_us: int) -> None:
        """So many rows are written for this label now."""
        with self._lock:
            pace = self._paces.setdefault(label, Pace())
            pace.used, pace.written_us = written, now_us

    def take_out(self, is_over: Callable[[Ahead], bool]) -> list[Rows]:
        """Rows nobody can use any more from here on. A fork's parent keeps what it has written."""
        with self._lock:
            over = [ahead for written in self._by_label.values() for ahead in written if is_over(ahead)]
            for ahead in over:
                self._by_label[ahead.label].remove(ahead)
                if (pace := self._paces.get(ahead.label)) is not None:
                    pace.used = ahead.size - len(ahead.ids)
            self._by_label = {label: written for label, written in self._by_label.items() if written}
        return [ahead.unused for ahead in over if ahead.pid == os.getpid()]

    def clear(self) -> None:
        """Forget them: perhaps they are rows of another file, or another process's."""
        with self._lock:
            self._by_label.clear()
