"""A vendor on a loopback socket that can misbehave in every way the transport promises to survive.

Raw sockets, so that resets, drips, cut bodies and endless headers are real bytes and not a mock's idea of them. A
test hands in a function of an `Exchange`; the server remembers every request it saw, with the credentials in it.
"""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

__all__ = ["Exchange", "Loopback", "Seen", "gzipped", "in_turn", "json_bytes"]

_CREDENTIAL_HEADERS = ("authorization", "cookie", "x-api-key", "proxy-authorization")


@dataclass(frozen=True)
class Seen:
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def has_credentials(self) -> bool:
        return (
            any(name in self.headers for name in _CREDENTIAL_HEADERS)
            or b"secret" in self.body
            or "secret" in self.target
        )


@dataclass
class Exchange:
    """One request, and the socket to misbehave on. `number` counts requests of the server from 1."""

    seen: Seen
    number: int
    sock: socket.socket
    stopping: threading.Event
    keep: bool = field(default=True)

    def reply(self, status: int = 200, body: bytes = b"", **headers: str) -> None:
        """A well-formed answer with Content-Length; JSON unless `content_type` says otherwise ("" sends none)."""
        fields = {"content_type": "application/json", "content_length": str(len(body)), **headers}
        self.send(head(status, {name.replace("_", "-"): value for name, value in fields.items() if value}) + body)

    def json(self, value: object, status: int = 200, **headers: str) -> None:
        self.reply(status, json_bytes(value), **headers)

    def send(self, data: bytes) -> None:
        with suppress(OSError):
            self.sock.sendall(data)

    def close(self) -> None:
        self.keep = False

    def reset(self) -> None:
        """RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.keep = False

    def silence(self) -> None:
        """Say nothing until the client hangs up or the server stops."""
        self.keep = False
        with suppress(OSError):
            while not self.stopping.is_set():
                self.sock.settimeout(0.05)
                try:
                    if not self.sock.recv(4096):
                        return
                except TimeoutError:
                    continue

    def drip(self, data: bytes, every_seconds: float) -> None:
        self.keep = False
        with suppress(OSError):
            for byte in data:
                if self.stopping.wait(every_seconds):
                    return
                self.sock.sendall(bytes([byte]))

    def endless(self, chunks: Iterator[bytes]) -> None:
        self.keep = False
        with suppress(OSError):
            for chunk in chunks:
                if self.stopping.is_set():
                    return
                self.sock.sendall(chunk)


Handler = Callable[[Exchange], None]


class Loopback:
    """A threaded HTTP/1.1 server on 127.0.0.1; use as a context manager."""

    def __init__(self, handler: Handler, *, tls: ssl.SSLContext | None = None) -> None:
        self._handler = handler
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self.seen: list[Seen] = []
        self.connections = 0
        self.port: int = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def credentials_seen(self) -> int:
        return sum(seen.has_credentials for seen in self.seen)

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        # Wakes accept(); closing a listener another thread waits on does not.
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            pass
        with self._lock:
            for sock in self._open:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(timeout=5)
        self._listener.close()

    def _spawn(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            sock, _ = self._listener.accept()
            if self._stopping.is_set():
                sock.close()
                return
            with self._lock:
                self.connections += 1
                self._open.add(sock)
            self._spawn(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        wrapped = sock
        try:
            if self._tls is not None:
                wrapped = self._tls.wrap_socket(sock, server_side=True)
            with wrapped.makefile("rb") as reader:
                while (seen := _read_request(reader)) is not None:
                    with self._lock:
                        self.seen.append(seen)
                        number = len(self.seen)
                    exchange = Exchange(seen, number, wrapped, self._stopping)
                    self._handler(exchange)
                    if not exchange.keep:
                        break
        except OSError:
            pass
        finally:
            with self._lock:
                self._open.discard(sock)
            wrapped.close()


def in_turn(*handlers: Handler) -> Handler:
    """The n-th request gets the n-th handler; the last one serves the rest."""
    return lambda exchange: handlers[min(exchange.number, len(handlers)) - 1](exchange)


def head(status: int, fields: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in fields.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def json_bytes(value: object) -> bytes:
    return json.dumps(value).encode()


def gzipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def _read_request(reader: object) -> Seen | None:
    readline, read = reader.readline, reader.read  # type: ignore[attr-defined]
    line = readline()
    if not line:
        return None
    method, target, _ = line.decode("latin-1").split(" ", 2)
    headers: dict[str, str] = {}
    while (raw := readline()) not in {b"\r\n", b""}:
        name, _, value = raw.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    body = read(int(headers.get("content-length", "0")))
    return Seen(method, target, headers, body)
