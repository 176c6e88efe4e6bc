"""Who may talk to the webserver, rule by rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_platform.ui.guard import refusal

JSON = (b"content-type", b"application/json")


def _host(text: str) -> tuple[bytes, bytes]:
    return b"host", text.encode("latin-1")


@pytest.mark.parametrize("host", ["127.0.0.1:3000", "localhost", "LOCALHOST:80", "[::1]:3000"])
def test_loopback_names_pass_with_any_port(host: str) -> None:
    """Any port: the UI behind `ssh -L 8080:127.0.0.1:3000` is asked for as localhost:8080."""
    assert refusal("POST", "/graphql", [_host(host), JSON]) is None
    assert refusal("POST", "/graphql", [_host(host), JSON, (b"origin", b"http://" + host.encode())]) is None


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "127.0.0.1.evil.example", "evil.example:127.0.0.1", "127.0.0.1@evil.example", "0.0.0.0:3000",
     "localhost.evil.example:3000", "127.0.0.1:3000/evil", "127.0.0.1#evil", "localhost:http", "[::1", "10.0.0.1"],
)  # fmt: skip
def test_every_other_host_is_refused(host: str) -> None:
    assert refusal("GET", "/", [_host(host)]) is not None


@given(st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=40))
def test_no_other_host_passes(host: str) -> None:
    name = host.strip().lower().rpartition(":")[0] or host.strip().lower()
    if name not in ("localhost", "127.0.0.1", "[::1]"):
        assert refusal("GET", "/", [_host(host)]) is not None or host.strip().lower() in ("localhost:", "127.0.0.1:")


@pytest.mark.parametrize(
    "origin", ["null", "http://evil.example", "http://localhost:3000", "http://127.0.0.1:8888", "file://", ""]
)
@pytest.mark.parametrize("is_websocket", [False, True])
def test_another_origin_is_refused(origin: str, is_websocket: bool) -> None:
    """Another port of this machine is another origin: a notebook server must not start runs."""
    headers = [_host("127.0.0.1:3000"), JSON, (b"origin", origin.encode())]
    assert refusal("GET" if is_websocket else "POST", "/graphql", headers, is_websocket) is not None


@pytest.mark.parametrize("name", ["host", "origin", "content-type"])
def test_a_header_twice_is_refused(name: str) -> None:
    value = {"host": "localhost", "origin": "http://localhost", "content-type": "application/json"}
    headers = [(key.encode(), text.encode()) for key, text in value.items()]
    assert refusal("POST", "/graphql", headers) is None
    assert refusal("POST", "/graphql", [*headers, (name.encode(), value[name].encode())]) is not None


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_what_may_change_something_is_json(method: str) -> None:
    assert refusal(method, "/report_asset_check/x", [_host("localhost"), (b"content-type", b"text/plain")]) is not None
    assert refusal(method, "/report_asset_check/x", [_host("localhost")]) is not None
    assert refusal(method, "/report_asset_check/x", [_host("localhost"), JSON]) is None


@pytest.mark.parametrize("path", ["/graphql", "/graphql/", "/graphql//"])
def test_graphql_by_get_is_the_page_only(path: str) -> None:
    assert refusal("GET", path, [_host("localhost")]) is not None
    assert refusal("GET", path, [_host("localhost"), (b"accept", b"application/json, */*")]) is not None
    assert refusal("GET", path, [_host("localhost"), (b"accept", b"text/html")]) is None
