"""The Dagster UI on one home: code server, webserver and daemon as children of one foreground process.

Belongs here: which processes make the UI, that they start in order, say where they are, and end together. Does not
belong here: what the UI shows (`definitions`), who may talk to it (`ui.guard`), the demo's sandbox (`demo`).

Why not `dagster dev`: it starts the stock webserver, which lets any page in the user's browser launch runs
(RELIABILITY M9), prints hundreds of lines, takes the port only after half a minute's work, and may outlive its parent.

Every child leads a process group of its own, so that the workers it starts (run workers, dbt) are found and ended with
it. A small watchdog does the same when this process is killed and cannot.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import FrameType
from typing import Final

from analytics_platform.core.errors import ConfigurationError
from analytics_platform.settings import Settings
from analytics_platform.ui import groups

__all__ = ["HOST", "answers", "free_port", "serve_ui"]

HOST: Final = "127.0.0.1"
"""Loopback only: plain Dagster has no login."""

_START_SECONDS: Final = 120.0
_LOOK_EVERY_SECONDS: Final = 0.1
_SHOWN_LOG_LINES: Final = 15
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def serve_ui(settings: Settings, *, listener: socket.socket, say: Callable[[str], None]) -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP, then end every process that was started.

    Args:
        listener: the port to serve on, from `free_port`.
        say: told the address once the UI answers, and where the log is.

    Returns:
        0 when it was stopped, 1 when a part of it ended by itself.
    """
    from analytics_platform.dagster_home import prepare_dagster_home

    prepare_dagster_home(settings)
    _sweep(settings)
    log = _new_log(settings)
    with _stop_signals() as stopped, ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="analytics-platform-ui-")))
        parts = stack.enter_context(_Parts(log))
        address = f"http://{HOST}:{listener.getsockname()[1]}"
        try:
            _start(parts, folder, listener, stopped)
            if not stopped():
                say(f"Dagster UI: {address}  (Ctrl-C stops it; its log is {log})")
                parts.wait(until=stopped)
        except _PartEnded as ended:
            say(f"{ended} The end of {log}:\n{_end_of(log)}")
            return 1
    return 0


def _sweep(settings: Settings) -> None:
    """Runs that a dead host or a kill left: before the daemon counts them among those that run."""
    if not settings.home.running.is_dir() or not any(settings.home.running.iterdir()):
        return  # spares the import of Dagster, which the children do for themselves
    from analytics_platform.core.sweeping import sweep_killed_runs
    from analytics_platform.dagster_home import instance

    with instance(settings) as opened:
        sweep_killed_runs(opened, settings.home.running)


def _start(parts: _Parts, folder: Path, listener: socket.socket, stopped: Callable[[], bool]) -> None:
    """Code server first; the webserver does its slow imports meanwhile and waits for it, as the daemon must."""
    code_socket = folder / "code.sock"
    workspace = folder / "workspace.yaml"
    workspace.write_text(
        f"load_from:\n  - grpc_server: {{socket: {code_socket}, location_name: analytics_platform}}\n",
        encoding="utf-8",
    )
    module = ["-m", "analytics_platform.definitions"]
    parts.start("code server", ["dagster", "code-server", "start", "--socket", str(code_socket), *module])
    parts.start(
        "webserver",
        ["analytics_platform.ui.webserver", str(listener.fileno()), str(code_socket), str(workspace)],
        pass_fds=(listener.fileno(),),
    )
    parts.wait(until=lambda: stopped() or answers(code_socket), seconds=_START_SECONDS)
    if not stopped():
        parts.start("daemon", ["dagster._daemon", "run", "--workspace", str(workspace)])
        parts.wait(until=lambda: stopped() or _is_up(listener.getsockname()[1]), seconds=_START_SECONDS)


class _PartEnded(Exception):
    """A part of the UI ended by itself, or did not come up. Its text is for people."""


class _Parts:
    """The child processes of one UI; leaving the block ends them all, with everything they started."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("ab")
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        # Run as a file: as a module it would import this package, and weigh thirty times as much.
        self._watchdog = subprocess.Popen(  # noqa: S603  (our own file)
            [sys.executable, "-I", "-S", groups.__file__], stdin=subprocess.PIPE, start_new_session=True
        )

    def __enter__(self) -> _Parts:
        return self

    def __exit__(self, *_: object) -> None:
        groups.end_groups([child.pid for child in self._running.values()], reap=self._reap)
        self._reap()
        if self._watchdog.stdin is not None:
            self._watchdog.stdin.close()
        self._watchdog.wait()
        self._log.close()

    def start(self, name: str, module: Sequence[str], *, pass_fds: Sequence[int] = ()) -> None:
        """Run a Python module as a child with its own session and its output in the log."""
        child = subprocess.Popen(  # noqa: S603  (our own interpreter and modules)
            [sys.executable, "-m", *module],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
            pass_fds=pass_fds,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
        self._running[name] = child
        if self._watchdog.stdin is not None:
            self._watchdog.stdin.write(f"{child.pid}\n".encode())
            self._watchdog.stdin.flush()

    def wait(self, *, until: Callable[[], bool], seconds: float | None = None) -> None:
        """Return when `until` says so.

        Raises:
            _PartEnded: a child ended meanwhile, or the seconds are over.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while not until():
            for name, child in self._running.items():
                code = child.poll()
                if code is not None:
                    raise _PartEnded(f"The {name} ended by itself (exit code {code}).")
            if deadline is not None and time.monotonic() > deadline:
                raise _PartEnded(f"The UI did not come up within {seconds:.0f} s.")
            # Three children and a socket at once: nothing in the standard library blocks on all of them.
            time.sleep(_LOOK_EVERY_SECONDS)

    def _reap(self) -> None:
        for child in self._running.values():
            child.poll()


@contextmanager
def free_port(port: int) -> Iterator[socket.socket]:
    """The UI's port, taken before anything is started, so that a busy one is said at once; 0 is any free one.

    Raises:
        ConfigurationError: somebody has it.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
            # At once: a port that is only bound can be bound again, and a browser that comes early waits.
            listener.listen()
        except (OSError, OverflowError) as error:
            raise ConfigurationError(
                f"Port {port} of {HOST} cannot be used: {getattr(error, 'strerror', None) or error}.",
                "Stop what listens there (another `analytics-platform ui`?), or choose a port: "
                "analytics-platform ui --port 3001, make ui PORT=3001.",
            ) from error
        yield listener


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Inside the block a signal to stop is only noted. Also where the shell had it ignored, as for background jobs."""
    seen = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        seen = True

    before = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        yield lambda: seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def answers(code_socket: Path) -> bool:
    """Whether the code server listens; it does so when it has loaded the definitions."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(code_socket))
        except OSError:
            return False
    return True


def _is_up(port: int) -> bool:
    connection = HTTPConnection(HOST, port, timeout=1)
    try:
        connection.request("GET", "/server_info")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _new_log(settings: Settings) -> Path:
    """An empty ui.log; the one of the previous start is kept beside it.

    Not below DAGSTER_HOME: whatever lies in its `logs` folder the daemon posts to telemetry.dagster.io and deletes,
    also with telemetry off (seen 2026-11-21, dagster 1.13.27, `telemetry_upload.upload_logs`).
    """
    log = settings.home.root / "logs" / "ui.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_name("ui.previous.log"))
    log.touch(mode=0o600)
    return log


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_SHOWN_LOG_LINES:])
