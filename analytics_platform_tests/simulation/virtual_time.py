"""One virtual clock for several processes: hours of quota pass in milliseconds, never while a request is on its way.

Belongs here: the clock server, the clock a process holds, the meter that says when a request is on its way. Does not
belong here: what the processes do (`quota_month`), vendors.

The reading is a float in a memory-mapped file. Time moves only when somebody sleeps: to the earliest wake-up, when no
request is under way and either a worker's helper thread sleeps (per-second limits) or every worker's own thread does.
A process that is killed loses its connections, and with them everything it held up.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import selectors
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from analytics_platform.core.quota import AccountMeter

_READING = struct.Struct("d")


def _map(path: Path) -> mmap.mmap:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.ftruncate(descriptor, _READING.size)
        return mmap.mmap(descriptor, _READING.size)
    finally:
        os.close(descriptor)


@dataclass
class _Connection:
    """What one thread of one worker holds up."""

    is_worker: bool = False
    under_way: int = 0
    wakes_at: float | None = None
    unread: bytes = field(default=b"", repr=False)


class TimeServer:
    """Owns the reading; a context manager that serves in a thread.

    Args:
        folder: where the socket and the reading live; short, sockets have short names.
        start: virtual instant of reading 0.
    """

    def __init__(self, folder: Path, start: datetime) -> None:
        self.start = start
        self.folder = folder
        self._reading = _map(folder / "reading")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(folder / "clock"))
        self._listener.listen(128)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._stop_reader, self._stop_writer = socket.socketpair()
        self._selector.register(self._stop_reader, selectors.EVENT_READ)
        self._connections: dict[socket.socket, _Connection] = {}
        self._thread = threading.Thread(target=self._serve, name="virtual time", daemon=True)

    def monotonic(self) -> float:
        """The reading, in seconds."""
        return float(_READING.unpack_from(self._reading)[0])

    def now(self) -> datetime:
        """The virtual instant."""
        return self.start + timedelta(seconds=self.monotonic())

    def __enter__(self) -> TimeServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_writer.send(b"x")
        self._thread.join()
        for connection in [*self._connections, self._listener, self._stop_reader, self._stop_writer]:
            connection.close()
        self._selector.close()
        self._reading.close()

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                ready = key.fileobj
                if ready is self._stop_reader:
                    return
                if ready is self._listener:
                    accepted, _ = self._listener.accept()
                    self._connections[accepted] = _Connection()
                    self._selector.register(accepted, selectors.EVENT_READ)
                elif isinstance(ready, socket.socket):
                    self._hear(ready)
            self._advance()

    def _hear(self, spoke: socket.socket) -> None:
        try:
            content = spoke.recv(4096)
        except ConnectionResetError:
            content = b""
        if not content:
            self._selector.unregister(spoke)
            del self._connections[spoke]
            spoke.close()
            return
        connection = self._connections[spoke]
        *lines, connection.unread = (connection.unread + content).split(b"\n")
        for line in lines:
            order = json.loads(line)
            connection.is_worker = order.get("worker", connection.is_worker)
            connection.under_way += order.get("under_way", 0)
            if "sleep" in order:
                connection.wakes_at = self.monotonic() + order["sleep"]
            else:
                self._answer(spoke)

    def _advance(self) -> None:
        if any(connection.under_way for connection in self._connections.values()):
            return
        asleep = {s: c for s, c in self._connections.items() if c.wakes_at is not None}
        helpers = {s: c for s, c in asleep.items() if not c.is_worker}
        workers = [c for c in self._connections.values() if c.is_worker]
        if not helpers and not all(c.wakes_at is not None for c in workers):
            return
        chosen = helpers or asleep
        if not chosen:
            return
        wakes_at = min(c.wakes_at for c in chosen.values() if c.wakes_at is not None)
        _READING.pack_into(self._reading, 0, max(self.monotonic(), wakes_at))
        for sleeper, connection in asleep.items():
            if connection.wakes_at is not None and connection.wakes_at <= self.monotonic():
                connection.wakes_at = None
                self._answer(sleeper)

    @staticmethod
    def _answer(to: socket.socket) -> None:
        with contextlib.suppress(BrokenPipeError):  # killed meanwhile: its connection is about to say so
            to.sendall(b"\n")


class VirtualClock:
    """The clock a worker holds. The thread that makes it is the worker's own; other threads are its helpers."""

    def __init__(self, folder: Path, start: datetime) -> None:
        self._folder = folder
        self._start = start.astimezone(UTC)
        self._reading = _map(folder / "reading")
        self._threads = threading.local()
        self._opened: list[socket.socket] = []
        self._say({"worker": True})

    def close(self) -> None:
        """Leave the server: nothing of this process is waited for any more."""
        while self._opened:
            self._opened.pop().close()
        self._threads = threading.local()

    def now(self) -> datetime:
        """The virtual instant."""
        return self._start + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        """Virtual seconds since the start, the same in every process."""
        return float(_READING.unpack_from(self._reading)[0])

    def sleep(self, seconds: float) -> None:
        """Return when virtual time has come to it; nothing of this thread is under way meanwhile."""
        if seconds <= 0:
            return
        held = getattr(self._threads, "under_way", 0)
        self._mark(-held)
        self._say({"sleep": seconds})
        self._mark(held)

    @contextlib.contextmanager
    def departing(self) -> Iterator[None]:
        """Time stands from here until `arrived`, unless the block raises."""
        self.arrived()  # a request that failed on the way never said so
        self._mark(1)
        try:
            yield
        except BaseException:
            self._mark(-1)
            raise

    def arrived(self) -> None:
        """The answer is here, or will never be."""
        self._mark(-getattr(self._threads, "under_way", 0))

    def _mark(self, change: int) -> None:
        if change:
            self._threads.under_way = getattr(self._threads, "under_way", 0) + change
            self._say({"under_way": change})

    def _say(self, order: dict[str, object]) -> None:
        connection: socket.socket | None = getattr(self._threads, "connection", None)
        if connection is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.connect(str(self._folder / "clock"))
            self._threads.connection = connection
            self._opened.append(connection)
        connection.sendall(json.dumps(order).encode() + b"\n")
        if not connection.recv(1):
            raise ConnectionError("the time server is gone")


@dataclass(frozen=True)
class TimedMeter:
    """The ledger's own meter, telling the clock when a request leaves and when its answer is here."""

    inner: AccountMeter
    clock: VirtualClock

    def acquire(self, *, method: str, endpoint: str) -> None:
        """As `AccountMeter.acquire`."""
        with self.clock.departing():
            self.inner.acquire(method=method, endpoint=endpoint)

    def learn(self, *, method: str, endpoint: str, status: int, retry_after_seconds: float | None) -> None:
        """As `AccountMeter.learn`."""
        self.clock.arrived()
        self.inner.learn(method=method, endpoint=endpoint, status=status, retry_after_seconds=retry_after_seconds)
