"""Refuses every connection and name look-up that would leave this machine; doubles as the telemetry test.

Python imports a module of this name at start-up, so putting this folder on PYTHONPATH guards the processes a test
starts as well (dbt, Dagster's servers, the crash harness). `conftest.py` installs it in the test process itself. An
audit hook sees what the `socket` module does, whoever calls it; it cannot see sockets opened by C libraries, which is
why DuckDB is opened with its extension loader off.
"""

from __future__ import annotations

import os
import sys

__all__ = ["REFUSED_VARIABLE", "install"]

REFUSED_VARIABLE = "ANALYTICS_PLATFORM_TESTS_REFUSED"
"""Names the file each refused attempt is appended to, so that a library that swallows the error is still found out."""

_LOCAL_NAMES = frozenset({"", "localhost", "0.0.0.0", "::", "::1", "ip6-localhost"})


def _is_local(host: object) -> bool:
    if host is None:
        return True
    name = host.decode("ascii", "replace") if isinstance(host, bytes | bytearray) else str(host)
    return name in _LOCAL_NAMES or name.startswith("127.") or name == _own_name()


def _own_name() -> str:
    return os.uname().nodename


def _refuse(event: str, host: object) -> None:
    path = os.environ.get(REFUSED_VARIABLE)
    if path:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, f"{event} {host} (pid {os.getpid()})\n".encode())
        finally:
            os.close(descriptor)
    raise OSError(f"the test suite refuses {event} beyond loopback: {host}")


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        if isinstance(address, tuple) and not _is_local(address[0]):
            _refuse(event, address[0])
    elif event in ("socket.getaddrinfo", "socket.gethostbyname") and not _is_local(arguments[0]):
        _refuse(event, arguments[0])


def install() -> None:
    """Guard this process for its whole life. Safe to call twice."""
    if not getattr(sys, "_analytics_platform_guarded", False):
        sys._analytics_platform_guarded = True  # type: ignore[attr-defined]
        sys.addaudithook(_hook)


install()
