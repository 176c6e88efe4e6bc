"""Ending process groups, and the watchdog that does it when the UI's own process was killed and cannot.

Belongs here: signals to groups and how long they get. Does not belong here: which processes make the UI (`ui`). Imports
nothing but the standard library: the watchdog should cost as little as it can.

Run as a program it reads the numbers of groups from its standard input, one a line. The pipe
closes when the parent dies, however it dies; then what is left of these groups is ended.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

__all__ = ["end_groups"]

_GRACE_SECONDS: Final = 8.0
"""A run worker stops at a safe point and records that it was stopped; dbt closes the warehouse."""

_LOOK_EVERY_SECONDS: Final = 0.05


def end_groups(
    groups: Sequence[int], *, grace_seconds: float = _GRACE_SECONDS, reap: Callable[[], None] = lambda: None
) -> None:
    """SIGTERM to each group, SIGKILL to those that still have a process after the grace. Empty groups are fine.

    Args:
        reap: collects ended children of the caller; a group lives as long as one of its processes is not collected.
    """
    for group in groups:
        _signal(group, signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while any(_is_alive(group) for group in groups) and time.monotonic() < deadline:
        reap()
        # A group may hold processes that are not our children, which cannot be waited for.
        time.sleep(_LOOK_EVERY_SECONDS)
    for group in groups:
        _signal(group, signal.SIGKILL)


def _signal(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return


def _is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def main() -> None:
    """The watchdog."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups = [int(line) for line in sys.stdin if line.strip()]
    end_groups(groups)


if __name__ == "__main__":
    main()
