"""Ending what was started: politely, then not, and also when the parent cannot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from analytics_platform.ui import groups
from analytics_platform_tests.ui.running_ui import wait_until

STUBBORN = """
import os, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "300"])
print(child.pid, flush=True)
signal.pause()
"""


def _started(code: str) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_group_that_ends_by_itself_is_not_waited_for() -> None:
    process = subprocess.Popen(["sleep", "300"], start_new_session=True)
    began = time.monotonic()
    groups.end_groups([process.pid], grace_seconds=20, reap=lambda: process.poll() and None)
    assert time.monotonic() - began < 5
    assert process.wait() == -signal.SIGTERM


def test_a_stubborn_group_is_killed_with_its_grandchildren() -> None:
    process, grandchild = _started(STUBBORN)
    groups.end_groups([process.pid], grace_seconds=0.3)
    assert process.wait() == -signal.SIGKILL
    wait_until(lambda: not _is_running(grandchild), seconds=5, what="the grandchild ends")
    process.communicate()


def test_no_group_and_gone_groups_are_fine() -> None:
    process = subprocess.Popen(["true"], start_new_session=True)
    process.wait()
    groups.end_groups([])
    groups.end_groups([process.pid])


def test_the_watchdog_ends_groups_when_its_pipe_closes() -> None:
    process = subprocess.Popen(["sleep", "300"], start_new_session=True)
    watchdog = subprocess.Popen([sys.executable, "-I", "-S", groups.__file__], stdin=subprocess.PIPE)
    assert watchdog.stdin is not None
    watchdog.stdin.write(f"{process.pid}\n".encode())
    watchdog.stdin.close()
    assert process.wait(timeout=5) == -signal.SIGTERM
    assert watchdog.wait(timeout=5) == 0
