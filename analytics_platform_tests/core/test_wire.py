"""The deadline and address rules of the sockets themselves; their effect on requests is in test_http."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import httpcore
import httpx
import pytest

from analytics_platform.core import wire
from analytics_platform.core.errors import ForeignOrigin
from analytics_platform.core.origin import Origin
from analytics_platform_tests.core.loopback import Loopback


def test_an_attempt_is_of_its_thread_alone_and_ends_with_its_block() -> None:
    elsewhere: list[float] = []
    with wire.attempt(5):
        thread = threading.Thread(target=lambda: elsewhere.append(wire.remaining_seconds()))
        thread.start()
        thread.join()
        assert 4 < wire.remaining_seconds() <= 5
    assert elsewhere == [float("inf")]
    assert wire.remaining_seconds() == float("inf")


def test_an_attempt_whose_time_is_over_sends_nothing() -> None:
    with Loopback(lambda e: e.json({})) as vendor:
        origin = Origin.parse(vendor.url)
        transport = wire.BoundedTransport(origin=origin, max_connections=1, max_header_bytes=1000)
        with wire.attempt(0), pytest.raises(httpcore.TimeoutException):
            transport.handle_request(httpx.Request("GET", origin.url("/x")))
        transport.close()
        assert vendor.seen == []


def test_a_silent_vendor_cannot_hold_a_request() -> None:
    with Loopback(lambda e: e.silence()) as vendor:
        origin = Origin.parse(vendor.url)
        transport = wire.BoundedTransport(origin=origin, max_connections=1, max_header_bytes=1000)
        begun = time.monotonic()
        with wire.attempt(0.3), pytest.raises(httpcore.TimeoutException):
            transport.handle_request(httpx.Request("POST", origin.url("/x"), content=b"x" * 1000))
        assert time.monotonic() - begun < 1.3
        transport.close()


def test_the_transport_itself_refuses_another_origin() -> None:
    origin = Origin.parse("https://api.example.com")
    transport = wire.BoundedTransport(origin=origin, max_connections=1, max_header_bytes=1000)
    for url in ("https://evil.example.com/", "http://api.example.com/", "https://api.example.com:8443/"):
        with pytest.raises(ForeignOrigin):
            transport.handle_request(httpx.Request("GET", url))
    transport.close()


def test_localhost_must_mean_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: [(2, 1, 6, "", ("93.184.216.34", 80))])
    origin = Origin.parse("http://localhost:8080")
    transport = wire.BoundedTransport(origin=origin, max_connections=1, max_header_bytes=1000)
    with wire.attempt(1), pytest.raises(ForeignOrigin):
        transport.handle_request(httpx.Request("GET", origin.url("/")))
    transport.close()


def test_the_environment_cannot_ask_for_session_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    wire._tls_context.cache_clear()
    context = wire._tls_context(None)
    assert context.keylog_filename is None
    assert context.check_hostname
    assert not (tmp_path / "keys").exists()
