"""The UI as a user starts it, on a home of its own: a child process, its GraphQL, proof that nothing stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from analytics_platform_tests.demo_home import PLATFORM_VARIABLES

START_SECONDS = 90.0
STOP_SECONDS = 20.0


class RunningUi:
    """An `analytics-platform ui` that answers. Keeps every GraphQL answer, for the search for secrets."""

    def __init__(self, process: subprocess.Popen[str], home: Path, first_line: str) -> None:
        self.process = process
        self.home = home
        self.first_line = first_line
        self.port = int(first_line.split("http://127.0.0.1:")[1].split()[0])
        self.answers: list[bytes] = []

    def request(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> tuple[int, bytes]:
        """Status and body. `Host` is this server's unless given."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body=body, headers=dict(headers or {}))
            response = connection.getresponse()
            # An upgraded connection has no body that ends.
            return response.status, b"" if response.status == 101 else response.read()
        finally:
            connection.close()

    def graphql(self, query: str, **variables: object) -> Any:
        """The `data` of an answer without errors, asked as the UI's own pages ask."""
        content = json.dumps({"query": query, "variables": variables}).encode()
        status, body = self.request(
            "POST",
            "/graphql",
            body=content,
            headers={"content-type": "application/json", "origin": f"http://127.0.0.1:{self.port}"},
        )
        self.answers.append(body)
        answer = json.loads(body)
        assert (status, answer.get("errors")) == (200, None), body.decode()[:3000]
        return answer["data"]


@contextmanager
def running_ui(home: Path, environment: Mapping[str, str]) -> Iterator[RunningUi]:
    """Start the verb, wait for its first line; at the end SIGTERM by its pid, and no process may be left."""
    process = start_ui(home, environment)
    try:
        yield RunningUi(process, home, first_line(process, home))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=STOP_SECONDS) == 0
    finally:
        process.kill()
        process.communicate()
    assert processes_of(home) == []


def start_ui(home: Path, environment: Mapping[str, str], *arguments: str) -> subprocess.Popen[str]:
    """The verb on a free port, with default signals, in an environment without anybody else's settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PLATFORM_VARIABLES)}
    guard = {name: value for name, value in os.environ.items() if name == "ANALYTICS_PLATFORM_TESTS_REFUSED"}
    return subprocess.Popen(
        [sys.executable, "-m", "analytics_platform.cli", "ui", *(arguments or ("--port", "0"))],
        env={**inherited, **guard, **environment, "ANALYTICS_PLATFORM_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def first_line(process: subprocess.Popen[str], home: Path) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    log = home / "logs" / "ui.log"
    assert "http://127.0.0.1:" in line, f"{line}\n{log.read_text() if log.exists() else 'no log'}"
    return line


def processes_of(home: Path) -> list[str]:
    """Command lines of the processes whose environment names this home."""
    wanted = f"ANALYTICS_PLATFORM_HOME={home}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:  # ended meanwhile, or somebody else's
                continue
    return found


def wait_until(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Look twice a second; fails with `what` when the time is over."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.5)
