"""Sockets under a total deadline: the part of the transport that httpx's per-read time-outs do not cover.

Belongs here: the httpcore network backend that bounds every read, write, connect and handshake by one deadline per
attempt, the cap on header bytes, the refusal of private addresses, and the TLS trust.
Does not belong here: retries, status codes, bodies (`core.http`).

httpx restarts its time-out with every byte: a server that drips one byte per 0.8 s held a call with `timeout=1` for
8.8 s (RELIABILITY M6), and would hold it for ever in the headers. An attempt runs in one thread, so its deadline is a
thread-local that the sockets it uses look at. It is real time whatever `Clock` the caller has: a socket cannot be
fooled. Not covered: the resolver itself (getaddrinfo has no time-out; its own is 5-30 s on Linux).
"""

from __future__ import annotations

import functools
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import certifi
import httpcore
import httpx

from analytics_platform.core.errors import ForeignOrigin, ResponseTooLarge
from analytics_platform.core.origin import Origin

__all__ = ["BoundedTransport", "attempt", "remaining_seconds"]

_WRITE_SLICE_BYTES = 64 * 1024
_READ_BYTES = 256 * 1024
"""Of a body at once: httpcore asks for 64 KiB, and each read has a cost of its own on the way up."""


class _Attempt(threading.local):
    """The attempt of this thread. `head_bytes_left` is None outside of reading a response head."""

    ends_at: float = float("inf")
    head_bytes_left: int | None = None


_current = _Attempt()


@contextmanager
def attempt(total_seconds: float) -> Iterator[None]:
    """Everything this thread does on sockets inside the block ends within `total_seconds`."""
    _current.ends_at = time.monotonic() + total_seconds
    try:
        yield
    finally:
        _current.ends_at = float("inf")
        _current.head_bytes_left = None


def remaining_seconds() -> float:
    """Seconds left for this thread's attempt; zero or less when it is over."""
    return _current.ends_at - time.monotonic()


def _bounded(timeout: float | None, error: type[Exception]) -> float | None:
    left = remaining_seconds()
    if left <= 0:
        raise error("total deadline")
    if left == float("inf"):
        return timeout
    return left if timeout is None else min(timeout, left)


class _Stream(httpcore.NetworkStream):
    """A socket that knows the deadline and how much of a response head it may still read."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left = _current.head_bytes_left
        if left is not None:
            if left <= 0:
                raise ResponseTooLarge("The answer's headers are larger than the cap.")
            max_bytes = min(max_bytes, left)
        else:
            max_bytes = max(max_bytes, _READ_BYTES)
        data = self._inner.read(max_bytes, _bounded(timeout, httpcore.ReadTimeout))
        if left is not None:
            _current.head_bytes_left = left - len(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _WRITE_SLICE_BYTES):
            self._inner.write(buffer[start : start + _WRITE_SLICE_BYTES], _bounded(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, _bounded(timeout, httpcore.ConnectTimeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Backend(httpcore.NetworkBackend):
    """Connects to public addresses, or to loopback when the origin itself is loopback (RELIABILITY T2)."""

    def __init__(self, *, loopback: bool) -> None:
        self._loopback = loopback
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        failure: Exception = httpcore.ConnectError("no address")
        for address in self._addresses(host, port):
            try:
                stream = self._inner.connect_tcp(
                    address, port, _bounded(timeout, httpcore.ConnectTimeout), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _Stream(stream)
        raise failure

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None
    ) -> httpcore.NetworkStream:
        raise httpcore.ConnectError("no vendor is behind a Unix socket")

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)

    def _addresses(self, host: str, port: int) -> list[str]:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(f"name resolution failed ({type(error).__name__})") from None
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        usable = [address for address in addresses if self._is_allowed(address)]
        if addresses and not usable:
            raise ForeignOrigin(
                "The vendor's host name resolves to a private address.",
                "Nothing was sent. Check the *_BASE_URL setting and the name server.",
            )
        return usable

    def _is_allowed(self, address: str) -> bool:
        parsed = ipaddress.ip_address(address.partition("%")[0])
        return parsed.is_loopback if self._loopback else parsed.is_global


class BoundedTransport(httpx.BaseTransport):
    """HTTP/1.1 with keep-alive to one origin: no proxy, environment, redirect or retry. Raises httpcore's errors.

    Args:
        origin: the only origin requests may name.
        max_connections: sockets open at once; further threads wait within their deadline.
        max_header_bytes: cap on a response head.
        ca_file: trust this CA instead of certifi's (tests, private TLS inspection). Verification cannot be turned off.
    """

    def __init__(
        self, *, origin: Origin, max_connections: int, max_header_bytes: int, ca_file: Path | None = None
    ) -> None:
        self._origin = origin
        self._max_header_bytes = max_header_bytes
        self._pool = httpcore.ConnectionPool(
            ssl_context=_tls_context(ca_file) if origin.scheme == "https" else None,
            max_connections=max_connections,
            max_keepalive_connections=max_connections,
            keepalive_expiry=5.0,
            network_backend=_Backend(loopback=origin.is_loopback),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; the response body is read by the caller."""
        url = request.url
        if (url.scheme, url.host, url.port or self._origin.port) != (
            self._origin.scheme,
            self._origin.host,
            self._origin.port,
        ):
            raise ForeignOrigin(
                "A request for another origin reached the transport.", "This is a bug: nothing was sent."
            )
        assert isinstance(request.stream, httpx.SyncByteStream)  # noqa: S101  (narrowing: bodies are bytes)
        _current.head_bytes_left = self._max_header_bytes
        try:
            answer = self._pool.handle_request(
                httpcore.Request(
                    method=request.method,
                    url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        finally:
            _current.head_bytes_left = None
        return httpx.Response(
            status_code=answer.status,
            headers=answer.headers,
            stream=_Body(answer),
            extensions=answer.extensions,
        )

    def close(self) -> None:
        """Close idle and running connections."""
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        return self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()


@functools.lru_cache(maxsize=4)
def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    # Not ssl.create_default_context: it would obey SSLKEYLOGFILE from the environment.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cafile=str(ca_file or certifi.where()))
    return context
