"""Named places where a test may kill the process: how the crash promises are proved.

Belongs here: the switch. Does not belong here: any behaviour of its own; with the variable unset a failpoint costs one
dictionary look-up. `ANALYTICS_PLATFORM_FAILPOINT=name:n` sends SIGKILL to this process the n-th time `name` is passed;
`ANALYTICS_PLATFORM_FAILPOINT_TRACE=file` appends each name passed, so that a test can count them and kill at every one.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

__all__ = ["passing"]

_passed: Counter[str] = Counter()


def passing(name: str) -> None:
    """Die here if the environment says so."""
    target = os.environ.get("ANALYTICS_PLATFORM_FAILPOINT")
    trace = os.environ.get("ANALYTICS_PLATFORM_FAILPOINT_TRACE")
    if target is None and trace is None:
        return
    _passed[name] += 1
    if trace is not None:
        with Path(trace).open("a", encoding="ascii") as file:
            file.write(f"{name}\n")
    if target == f"{name}:{_passed[name]}":
        os.kill(os.getpid(), signal.SIGKILL)
