"""The transport against a real, hostile loopback vendor (RELIABILITY A, B, D2, T1-T4)."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import logging
import shutil
import ssl
import subprocess
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from analytics_platform.core.auth import Basic, Bearer, ClientCredentials
from analytics_platform.core.clock import ManualClock
from analytics_platform.core.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ForeignOrigin,
    MalformedResponse,
    NotFound,
    NotSent,
    PermanentVendorError,
    PermissionDenied,
    PlatformError,
    QuotaExhausted,
    RateLimited,
    RequestRejected,
    ResponseTooLarge,
    TruncatedResponse,
    UnexpectedRedirect,
    VendorUnavailable,
    VendorUnreachable,
)
from analytics_platform.core.http import HttpClient, HttpLimits, Response
from analytics_platform_tests.core.loopback import Exchange, Loopback, gzipped, head, in_turn, json_bytes

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
TOKEN = "secret-token-7f3a9c"
ENDPOINT = "GET /api/v1/things"
ROWS = json_bytes({"rows": [{"id": n, "name": "x" * 20} for n in range(500)]})


class RecordingMeter:
    def __init__(self) -> None:
        self.acquired: list[tuple[str, str]] = []
        self.learned: list[tuple[int, float | None]] = []

    def acquire(self, *, method: str, endpoint: str) -> None:
        self.acquired.append((method, endpoint))

    def learn(self, *, method: str, endpoint: str, status: int, retry_after_seconds: float | None) -> None:
        self.learned.append((status, retry_after_seconds))


def client(url: str, **options: object) -> HttpClient:
    settings: dict[str, object] = {
        "vendor": "acme",
        "base_url": url,
        "auth": Bearer(SecretStr(TOKEN), variable="ACME_API_TOKEN"),
        "clock": ManualClock(START),
        "limits": HttpLimits(total_seconds=5),
        **options,
    }
    return HttpClient(**settings)  # type: ignore[arg-type]


def get(http: HttpClient, path: str = "/api/v1/things", **options: object) -> Response:
    return http.request("GET", path, endpoint=ENDPOINT, **options)  # type: ignore[arg-type]


def ok(exchange: Exchange) -> None:
    exchange.json({"ok": True})


def status(code: int, **headers: str):
    return lambda exchange: exchange.json({"error": "no"}, code, **headers)


@pytest.fixture
def foreign() -> Iterator[Loopback]:
    """The host no credential may reach."""
    with Loopback(ok) as server:
        yield server
        assert server.seen == []
        assert server.credentials_seen == 0


# ---- the ordinary case ---------------------------------------------------------------------------------------------


def test_a_request_is_signed_named_and_returned_whole() -> None:
    with Loopback(ok) as vendor, client(vendor.url) as http:
        response = get(http, params={"q": "a b&c", "cursor": "MTaxX34="}, headers={"X-Extra": "1"})
    seen = vendor.seen[0]
    assert response.json() == {"ok": True}
    assert (response.status, response.attempts, response.endpoint, response.received_at) == (200, 1, ENDPOINT, START)
    assert seen.target == "/api/v1/things?q=a%20b%26c&cursor=MTaxX34%3D"
    assert seen.headers["authorization"] == f"Bearer {TOKEN}"
    assert seen.headers["x-extra"] == "1"
    assert seen.headers["user-agent"].startswith("analytics-platform/0.1 (+")
    assert not any(word in seen.headers["user-agent"].lower() for word in ("bot", "curl", "python", "httpx"))


@pytest.mark.parametrize(
    ("body", "content_type", "sent"),
    [
        ({"json": {"a": "é", "n": 2**63}}, "application/json", '{"a":"é","n":9223372036854775808}'.encode()),
        (
            {"form": {"search": '{"x":"y"}', "page": "2"}},
            "application/x-www-form-urlencoded",
            b"search=%7B%22x%22%3A%22y%22%7D&page=2",
        ),
        ({"content": b"line\nline"}, None, b"line\nline"),
        ({}, None, b""),
    ],
    ids=["json", "form", "bytes", "none"],
)
def test_bodies_are_encoded_once(body: dict[str, object], content_type: str | None, sent: bytes) -> None:
    with Loopback(ok) as vendor, client(vendor.url) as http:
        http.request("POST", "/x", endpoint="POST /x", **body)  # type: ignore[arg-type]
    assert vendor.seen[0].body == sent
    assert vendor.seen[0].headers.get("content-type") == content_type
    assert vendor.seen[0].headers["content-length"] == str(len(sent))


def test_connections_are_kept_and_shared_between_threads() -> None:
    with Loopback(lambda exchange: exchange.json({"n": exchange.seen.target})) as vendor, client(vendor.url) as http:
        for n in range(5):
            get(http, f"/{n}")
        assert vendor.connections == 1
        answers: dict[int, object] = {}

        def work(n: int) -> None:
            answers[n] = get(http, f"/t{n}").json()

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == {n: {"n": f"/t{n}"} for n in range(8)}


def test_cookies_are_neither_kept_nor_sent() -> None:
    with (
        Loopback(lambda exchange: exchange.json({}, set_cookie="session=secret; Path=/")) as vendor,
        client(vendor.url) as http,
    ):
        get(http)
        get(http)
    assert [seen.headers.get("cookie") for seen in vendor.seen] == [None, None]


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "raw deflate", "identity", "", "IDENTITY, gzip"])
def test_known_encodings_are_decoded(encoding: str) -> None:
    raw = zlib.compressobj(wbits=-15)
    wire = {
        "deflate": zlib.compress(ROWS),
        "raw deflate": raw.compress(ROWS) + raw.flush(),
        "identity": ROWS,
        "": ROWS,
    }.get(encoding, gzipped(ROWS))
    with (
        Loopback(lambda e: e.reply(200, wire, content_encoding=encoding.removeprefix("raw "))) as vendor,
        client(vendor.url) as http,
    ):
        assert get(http).body == ROWS


def test_an_unconditional_304_is_refused_and_an_asked_one_is_returned() -> None:
    with Loopback(lambda e: e.send(head(304, {"etag": '"x"'}))) as vendor, client(vendor.url) as http:
        assert get(http, headers={"If-None-Match": '"x"'}).status == 304
        with pytest.raises(UnexpectedRedirect):
            get(http)


# ---- origin: T1, A13, C4, C5 ---------------------------------------------------------------------------------------

FOREIGN_LINKS = [
    "http://127.0.0.1:{foreign}/api/v1/things",
    "//127.0.0.1:{foreign}/api/v1/things",
    "http://localhost:{own}/api/v1/things",
    "https://127.0.0.1:{own}/api/v1/things",
    "http://127.0.0.1:{own}@127.0.0.1:{foreign}/api/v1/things",
    "http://api@127.0.0.1:{own}/api/v1/things",
    "http://127.0.0.1/api/v1/things",
    "http:/api/v1/things",
    "http:127.0.0.1:{foreign}/api/v1/things",
    "http:///api/v1/things",
    "\\\\127.0.0.1:{foreign}\\api\\v1",
    "/\\127.0.0.1:{foreign}/api/v1",
    "http://127.0.0.1:{own}\\@127.0.0.1:{foreign}/api/v1",
    "http://127.0.0.1:{own}#@127.0.0.1:{foreign}/api/v1",
    "/api/v1/things#fragment",
    "http://127.0.0.1.:{own}/api/v1/things",
    "http://127.0.0.1:{own}.evil.example/api/v1/things",
    "http://127.0.0.1:0{own}0/api/v1/things",
    "http://127。0。0。1:{own}/api/v1/things",
    "http://[::1]:{own}/api/v1/things",
    "http://2130706433:{own}/api/v1/things",
    "ftp://127.0.0.1:{own}/api/v1/things",
    "javascript:alert(1)",
    "https://apikissmetrics.com/api/v1/things",
    " http://127.0.0.1:{own}/api/v1/things",
    "http://127.0.0.1:{own}/api/v1/things\r\nX: y",
    "/api/v1/th\tings",
    "",
    "http://127.0.0.1:99999/api/v1/things",
    "http://[::1/api/v1/things",
    "/api/v1/" + "x" * 9000,
]
FOREIGN_PATHS = [
    "/core/accounts",
    "/api/v10/things",
    "/api/v1/../admin",
    "/api/v1/%2e%2e/admin",
    "/api/v1/%2E./admin",
    "/api/v1/..%2fadmin",
    "/api/v1/x%2Fy",
    "/api/v1/x%5cy",
    "/api/v1/%252e%252e/admin",
    "/api/v1/x%252fy",
    "/api/v1/./things",
    "/api/v1//things",
    "/api/v1/..;/admin",
    "/api/v1/x%00y",
    "/api/v1/x%0d%0ay",
    "/api/v1/%zz",
    "//api/v1/things",
    "?after=x",
    "things?after=x",
]


@pytest.mark.parametrize("template", FOREIGN_LINKS + FOREIGN_PATHS)
def test_links_that_leave_the_origin_or_the_api_are_refused_before_a_byte_is_sent(
    template: str, foreign: Loopback
) -> None:
    with Loopback(ok) as vendor, client(vendor.url, path_prefixes=("/api/v1/",)) as http:
        link = template.replace("{foreign}", str(foreign.port)).replace("{own}", str(vendor.port))
        with pytest.raises(ForeignOrigin) as refusal:
            http.follow("GET", link, endpoint=ENDPOINT)
        assert vendor.seen == []
        assert vendor.connections == 0
    assert refusal.value.where.vendor == "acme"
    assert refusal.value.where.endpoint == ENDPOINT
    assert link == "" or link not in str(refusal.value)


@pytest.mark.parametrize(
    "link", ["/api/v1/{id}/things", "/api/v1/things{?after}", "/api/v1/things?limit=1&amp;offset=2"]
)
def test_templates_and_escaped_links_are_malformed_not_sent(link: str) -> None:
    with Loopback(ok) as vendor, client(vendor.url) as http:
        with pytest.raises(MalformedResponse):
            http.follow("GET", link, endpoint=ENDPOINT)
        assert vendor.seen == []


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("/api/v1/events?before=MTaxX34=&limit=10", "/api/v1/events?before=MTaxX34=&limit=10"),
        ("{url}/api/v1/events?after=a+b/c%3D", "/api/v1/events?after=a+b/c%3D"),
        ("//127.0.0.1:{port}/api/v1/events?x=1", "/api/v1/events?x=1"),
        ("HTTP://127.0.0.1:{port}/api/v1/a%20b", "/api/v1/a%20b"),
        ("/api/v1", "/api/v1"),
    ],
)
def test_links_of_the_same_origin_are_followed_verbatim(link: str, target: str) -> None:
    with Loopback(ok) as vendor, client(vendor.url, path_prefixes=("/api/v1",)) as http:
        http.follow(
            "POST",
            link.replace("{url}", vendor.url).replace("{port}", str(vendor.port)),
            endpoint=ENDPOINT,
            json={"f": 1},
        )
    assert (vendor.seen[0].method, vendor.seen[0].target, vendor.seen[0].body) == ("POST", target, b'{"f":1}')


def test_a_relative_link_is_resolved_against_the_path_it_was_given_for() -> None:
    with Loopback(ok) as vendor, client(vendor.url) as http:
        http.follow("GET", "?after=x", endpoint=ENDPOINT, relative_to="/api/v1/events")
        http.follow("GET", "other?after=x", endpoint=ENDPOINT, relative_to="/api/v1/events")
    assert [seen.target for seen in vendor.seen] == ["/api/v1/events?after=x", "/api/v1/other?after=x"]


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("aim", ["same", "other", "https"])
def test_redirects_are_never_followed(code: int, aim: str, foreign: Loopback) -> None:
    with Loopback(lambda e: e.reply(code, location=location)) as vendor, client(vendor.url) as http:
        location = {
            "same": "/elsewhere",
            "other": f"{foreign.url}/x?token=secret",
            "https": vendor.url.replace("http:", "https:"),
        }[aim]
        with pytest.raises(UnexpectedRedirect) as refusal:
            http.request("POST", "/x", endpoint="POST /x", json={"a": 1}, retry=True)
        assert len(vendor.seen) == 1
    assert ("same origin" in str(refusal.value)) == (aim == "same")
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://api.example.com",
        "https://user@api.example.com",
        "https://user:pass@api.example.com",
        "https://api.example.com/v1",
        "https://api.example.com?x=1",
        "https://api.example.com#x",
        "https://api.example.com:0",
        "https://api.example.com:",
        "https://api.example.com:99999",
        "https://169.254.169.254",
        "https://10.0.0.1",
        "https://[fe80::1]",
        "https://[::ffff:169.254.169.254]",
        "https://2852039166",
        "https://0xa9fea9fe",
        "https://169.254.43518",
        "http://127.0.0.1.example.com",
        "https://exämple.com",
        "https://api.example.com.",
        "https://",
        "api.example.com",
        "ftp://api.example.com",
        "https://api example.com",
        "https://api.example.com\n",
        "https://-api.example.com",
        "https:\\\\api.example.com",
    ],
)
def test_base_urls_that_could_leak_a_token_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        client(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com",
        "https://API.example.com:8443/",
        "http://localhost:1",
        "http://[::1]:1",
        "http://127.9.9.9:1",
    ],
)
def test_plain_base_urls_are_accepted(url: str) -> None:
    with client(url) as http:
        assert TOKEN not in repr(http)


def test_a_public_name_that_resolves_to_a_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: [(2, 1, 6, "", ("169.254.169.254", 443))])
    with client("https://api.example.com") as http, pytest.raises(ForeignOrigin):
        get(http)


def test_methods_that_were_not_allowed_have_no_way_out() -> None:
    with Loopback(ok) as vendor, client(vendor.url) as http:
        for method in ("DELETE", "PATCH", "PUT", "get", "TRACE"):
            with pytest.raises(ConfigurationError):
                http.request(method, "/x", endpoint="x")
        assert vendor.seen == []


def test_the_environment_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, foreign: Loopback) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login eve password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, foreign.url)
    with Loopback(ok) as vendor, client(vendor.url, auth=None) as http:
        get(http)
    assert "authorization" not in vendor.seen[0].headers


@pytest.mark.parametrize("name", ["Authorization", "host", "Cookie", "Content-Length", "User-Agent"])
def test_callers_cannot_set_the_transport_s_own_headers(name: str) -> None:
    with Loopback(ok) as vendor, client(vendor.url) as http:
        with pytest.raises(ConfigurationError):
            get(http, headers={name: "secret"})
        assert vendor.seen == []


def test_a_header_value_that_would_inject_another_is_refused_without_showing_it() -> None:
    with Loopback(ok) as vendor, client(vendor.url) as http:
        with pytest.raises(ConfigurationError) as refusal:
            get(http, headers={"x-a": "canary\r\nx-b: 1"})
        assert vendor.seen == []
    assert "canary" not in str(refusal.value)


# ---- connections and deadlines: A1-A4, A9, A16 ---------------------------------------------------------------------


def test_a_refused_connection_is_tried_three_times_with_full_jitter() -> None:
    with Loopback(ok) as vendor:
        url = vendor.url
    clock, meter = ManualClock(START), RecordingMeter()
    with client(url, clock=clock, meter=meter) as http, pytest.raises(VendorUnreachable) as failure:
        http.request("POST", "/x", endpoint="POST /x", json={})
    assert type(failure.value) is NotSent
    assert len(meter.acquired) == 3
    assert meter.learned == []
    assert len(clock.slept) == 2
    assert clock.slept[0] <= 0.5
    assert clock.slept[1] <= 1.0


@pytest.mark.parametrize("sent", [0, 1, len(ROWS) // 2, len(ROWS) - 1])
@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_body_that_breaks_off_is_asked_for_again(sent: int, how: str) -> None:
    def broken(exchange: Exchange) -> None:
        exchange.send(head(200, {"content-type": "application/json", "content-length": str(len(ROWS))}) + ROWS[:sent])
        getattr(exchange, how)()

    with Loopback(in_turn(broken, broken, lambda e: e.reply(200, ROWS))) as vendor, client(vendor.url) as http:
        response = get(http)
    assert (response.body, response.attempts) == (ROWS, 3)


def test_a_body_that_always_breaks_off_is_truncated_not_short() -> None:
    def broken(exchange: Exchange) -> None:
        exchange.send(head(200, {"content-type": "application/json", "content-length": str(len(ROWS))}) + ROWS[:-1])
        exchange.close()

    with Loopback(broken) as vendor, client(vendor.url) as http, pytest.raises(TruncatedResponse):
        get(http)
    assert len(vendor.seen) == 3


def test_a_cut_chunked_body_is_truncated() -> None:
    def broken(exchange: Exchange) -> None:
        exchange.send(head(200, {"content-type": "application/json", "transfer-encoding": "chunked"}) + b"2\r\n[]\r\n")
        exchange.close()

    with Loopback(broken) as vendor, client(vendor.url) as http, pytest.raises(TruncatedResponse):
        get(http)


def test_a_post_that_may_have_been_received_is_not_sent_twice() -> None:
    with Loopback(lambda e: e.reset()) as vendor, client(vendor.url) as http:
        with pytest.raises(VendorUnreachable):
            http.request("POST", "/hit", endpoint="POST /hit", json={})
        assert len(vendor.seen) == 1
        with pytest.raises(VendorUnreachable):
            http.request("POST", "/search", endpoint="POST /search", json={}, retry=True)
    assert len(vendor.seen) == 4


def test_a_stale_connection_is_replaced_without_an_error() -> None:
    def answer_and_hang_up(exchange: Exchange) -> None:
        exchange.json({})
        exchange.close()

    with Loopback(answer_and_hang_up) as vendor, client(vendor.url) as http:
        for _ in range(3):
            assert get(http).json() == {}
    assert len(vendor.seen) >= 3


def stalled(kind: str):
    def act(exchange: Exchange) -> None:
        if kind == "silence":
            exchange.silence()
        elif kind == "body drip":
            exchange.send(head(200, {"content-type": "application/json", "content-length": "1000"}))
            exchange.drip(b" " * 1000, 0.02)
        elif kind == "head drip":
            exchange.drip(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1000, 0.02)
        elif kind == "chunk drip":
            exchange.send(head(200, {"content-type": "application/json", "transfer-encoding": "chunked"}))
            exchange.drip(b"1\r\n \r\n" * 300, 0.02)
        elif kind == "informational drip":
            exchange.drip(b"HTTP/1.1 102 Processing\r\n\r\n" * 100, 0.01)

    return act


@pytest.mark.parametrize("kind", ["silence", "body drip", "head drip", "chunk drip", "informational drip"])
def test_the_total_deadline_ends_every_kind_of_stalling(kind: str) -> None:
    limits = HttpLimits(total_seconds=0.3, max_attempts=1)
    with Loopback(stalled(kind)) as vendor, client(vendor.url, limits=limits) as http:
        begun = time.monotonic()
        with pytest.raises(VendorUnreachable) as failure:
            get(http)
        assert time.monotonic() - begun < 1.3
    assert "0.3 s" in str(failure.value)


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        (
            lambda: itertools.chain(
                [b"HTTP/1.1 200 OK\r\n"], (b"x-%d: %s\r\n" % (n, b"y" * 100) for n in itertools.count())
            ),
            ResponseTooLarge,
        ),
        (lambda: itertools.chain([b"HTTP/1.1 200 OK\r\nx: "], itertools.repeat(b"y" * 1000)), ResponseTooLarge),
        (
            lambda: itertools.chain(
                [head(200, {"content-type": "application/json", "transfer-encoding": "chunked"})],
                itertools.repeat(b"ffff\r\n" + b" " * 0xFFFF + b"\r\n"),
            ),
            ResponseTooLarge,
        ),
        (
            lambda: itertools.chain([head(200, {"content-type": "application/json"})], itertools.repeat(b" " * 65536)),
            ResponseTooLarge,
        ),
        (lambda: itertools.repeat(b"HTTP/1.1 102 Processing\r\n\r\n" * 100), ResponseTooLarge),
    ],
    ids=["headers", "one header", "chunks", "no length", "informational"],
)
def test_endless_answers_stop_at_the_caps(chunks, expected: type[PlatformError]) -> None:
    limits = HttpLimits(total_seconds=5, max_decoded_bytes=4 * 1024 * 1024)
    with (
        Loopback(lambda e: e.endless(chunks())) as vendor,
        client(vendor.url, limits=limits) as http,
        pytest.raises(expected),
    ):
        get(http)
    assert len(vendor.seen) == 1


def test_an_announced_giant_is_refused_unread() -> None:
    with (
        Loopback(lambda e: e.send(head(200, {"content-length": str(10**12)}))) as vendor,
        client(vendor.url) as http,
        pytest.raises(ResponseTooLarge),
    ):
        get(http)


CA_CONFIG = """
[ca]
default_ca = own
[own]
database = index.txt
new_certs_dir = .
rand_serial = yes
default_md = sha256
policy = any
x509_extensions = server
[any]
commonName = supplied
[server]
subjectAltName = IP:127.0.0.1
basicConstraints = CA:true
"""


def certificate(folder: Path, *, begin: datetime, end: datetime) -> ssl.SSLContext:
    """A self-signed server certificate for 127.0.0.1, made on the spot so that no key lives in the repository."""
    (folder / "ca.cnf").write_text(CA_CONFIG)
    (folder / "index.txt").touch()
    key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem"
    request = f"req -new {key} -subj /CN=loopback -out csr.pem"
    dates = f"-startdate {begin:%Y%m%d%H%M%SZ} -enddate {end:%Y%m%d%H%M%SZ}"
    sign = f"ca -batch -selfsign -notext -config ca.cnf -keyfile key.pem -in csr.pem -out cert.pem {dates}"
    for command in (request, sign):
        subprocess.run(["openssl", *command.split()], check=True, capture_output=True, cwd=folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_an_untrusted_certificate_is_refused_once_and_a_trusted_ca_file_is_accepted(tmp_path: Path) -> None:
    tls = certificate(tmp_path, begin=datetime(2020, 1, 1), end=datetime(2049, 1, 1))  # noqa: DTZ001
    with Loopback(ok, tls=tls) as vendor:
        with client(vendor.url) as http, pytest.raises(PermanentVendorError, match="certificate was refused"):
            get(http)
        assert vendor.seen == []
        assert vendor.connections == 1
        with client(vendor.url, ca_file=tmp_path / "cert.pem") as http:
            assert get(http).json() == {"ok": True}
        with (
            client(vendor.url.replace("127.0.0.1", "localhost"), ca_file=tmp_path / "cert.pem") as http,
            pytest.raises(PermanentVendorError, match="certificate was refused"),
        ):
            get(http)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_an_expired_certificate_is_refused_even_from_a_trusted_ca(tmp_path: Path) -> None:
    tls = certificate(tmp_path, begin=datetime(2020, 1, 1), end=datetime(2020, 2, 1))  # noqa: DTZ001
    with Loopback(ok, tls=tls) as vendor, client(vendor.url, ca_file=tmp_path / "cert.pem") as http:
        with pytest.raises(PermanentVendorError, match="expired"):
            get(http)
        assert vendor.seen == []


# ---- encodings: A6, A8, T3 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [0.0, 0.3, 2 / 3, 0.99])
def test_a_cut_gzip_with_the_right_length_is_truncated_and_retried(cut: float) -> None:
    whole = gzipped(ROWS)
    part = whole[: max(1, int(len(whole) * cut))]
    with Loopback(lambda e: e.reply(200, part, content_encoding="gzip")) as vendor, client(vendor.url) as http:
        with pytest.raises(TruncatedResponse):
            get(http)
        assert len(vendor.seen) == 3


BOMB = gzip.compress(b"0" * (100 * 1024 * 1024), 9)


@pytest.mark.parametrize(
    ("encoding", "body", "expected"),
    [
        ("gzip", BOMB, ResponseTooLarge),
        ("gzip, gzip", gzip.compress(BOMB), MalformedResponse),
        ("deflate, gzip", gzip.compress(BOMB), MalformedResponse),
        ("br", b"x", MalformedResponse),
        ("zstd", b"x", MalformedResponse),
        ("gzip", b"not gzip at all", MalformedResponse),
        ("gzip", gzipped(b"{}") + b"trailing", MalformedResponse),
        ("gzip", gzipped(b"{}") + gzipped(b"{}"), MalformedResponse),
        ("gzip", gzipped(ROWS)[:-8] + b"\0" * 8, MalformedResponse),
    ],
    ids=["bomb", "gzip twice", "deflate gzip", "br", "zstd", "garbage", "trailing", "two members", "bad checksum"],
)
def test_hostile_encodings_are_refused_within_bounds(encoding: str, body: bytes, expected: type[PlatformError]) -> None:
    limits = HttpLimits(total_seconds=10, max_decoded_bytes=16 * 1024 * 1024)
    with (
        Loopback(lambda e: e.reply(200, body, content_encoding=encoding)) as vendor,
        client(vendor.url, limits=limits) as http,
    ):
        tracemalloc.start()
        try:
            with pytest.raises(expected):
                get(http)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert len(vendor.seen) == 1
    assert peak < 24 * 1024 * 1024


# ---- what an answer is: A5, A7, A11, A12, E ------------------------------------------------------------------------


@pytest.mark.parametrize("body", [ROWS, b"[]"])
def test_a_complete_body_without_a_length_is_accepted(body: bytes) -> None:
    def unframed(exchange: Exchange) -> None:
        exchange.send(head(200, {"content-type": "application/json"}) + body)
        exchange.close()

    with Loopback(unframed) as vendor, client(vendor.url) as http:
        assert get(http).body == body


def test_an_incomplete_body_without_a_length_is_truncated() -> None:
    def unframed(exchange: Exchange) -> None:
        exchange.send(head(200, {"content-type": "application/json"}) + ROWS[:-40])
        exchange.close()

    with Loopback(unframed) as vendor, client(vendor.url) as http:
        with pytest.raises(TruncatedResponse):
            get(http)
        with pytest.raises(TruncatedResponse):
            get(http, expect="any")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"<html>mail@example.com please log in</html>", "text/html"),
        (b"{}", "text/html; charset=utf-8"),
        (b"hello", ""),
        (b"", "application/json"),
        (b"", ""),
        (b'{"a":NaN}', "application/json"),
        (b'{"a":1,"a":2}', "application/json"),
        (b"[" * 100_000, "application/json"),
        (b'{"a":1} {"b":2}', "application/json"),
        (b"\xef\xbb\xbf{}", "application/json"),
    ],
)
def test_a_200_that_is_not_data_is_refused_once(body: bytes, content_type: str) -> None:
    with Loopback(lambda e: e.reply(200, body, content_type=content_type)) as vendor, client(vendor.url) as http:
        with pytest.raises(MalformedResponse) as refusal:
            get(http)
        assert len(vendor.seen) == 1
    assert refusal.value.status == 200
    assert "mail@" not in str(refusal.value)


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "application/problem+json", "APPLICATION/JSON", ""]
)
def test_json_goes_by_several_names(content_type: str) -> None:
    with Loopback(lambda e: e.reply(200, b"[1]", content_type=content_type)) as vendor, client(vendor.url) as http:
        assert get(http).json() == [1]


def test_204_is_no_data_but_a_fine_acknowledgement() -> None:
    with Loopback(lambda e: e.send(head(204, {}))) as vendor, client(vendor.url) as http:
        with pytest.raises(MalformedResponse):
            get(http)
        assert http.request("POST", "/x", endpoint="POST /x", content=b"a", expect="any").status == 204


def test_a_partial_answer_nobody_asked_for_is_truncated() -> None:
    with Loopback(lambda e: e.json([], 206)) as vendor, client(vendor.url) as http, pytest.raises(TruncatedResponse):
        get(http)


# ---- statuses: A10, B1, D2 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [408, 500, 502, 503, 504, 522])
@pytest.mark.parametrize("failures", [1, 2])
def test_unavailable_vendors_are_asked_again(code: int, failures: int) -> None:
    with Loopback(in_turn(*[status(code)] * failures, ok)) as vendor, client(vendor.url) as http:
        assert get(http).attempts == failures + 1


def test_an_unavailable_vendor_is_not_asked_for_ever() -> None:
    meter = RecordingMeter()
    with (
        Loopback(status(503)) as vendor,
        client(vendor.url, meter=meter) as http,
        pytest.raises(VendorUnavailable) as failure,
    ):
        get(http)
    assert len(vendor.seen) == len(meter.acquired) == len(meter.learned) == 3
    assert failure.value.status == 503


def test_a_maintenance_page_with_a_long_retry_after_ends_at_once() -> None:
    with (
        Loopback(status(503, retry_after="7200")) as vendor,
        client(vendor.url) as http,
        pytest.raises(VendorUnavailable),
    ):
        get(http)
    assert len(vendor.seen) == 1


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (401, AuthenticationFailed),
        (403, PermissionDenied),
        (404, NotFound),
        (410, NotFound),
        (400, RequestRejected),
        (405, RequestRejected),
        (422, RequestRejected),
        (451, RequestRejected),
    ],
)
def test_permanent_refusals_are_asked_once(code: int, expected: type[PlatformError]) -> None:
    words = {"message": "user bob@example.com at 10.1.2.3 refused, token " + TOKEN}
    with (
        Loopback(lambda e: e.json(words, code)) as vendor,
        client(vendor.url) as http,
        pytest.raises(expected) as refusal,
    ):
        get(http)
    assert len(vendor.seen) == 1
    assert type(refusal.value) is expected
    text = str(refusal.value)
    assert "refused" in text
    assert "vendor acme" in text
    assert ENDPOINT in text
    for hidden in ("bob@", "10.1.2.3", TOKEN):
        assert hidden not in text


def test_401_names_the_variable_to_check() -> None:
    with (
        Loopback(status(401)) as vendor,
        client(vendor.url) as http,
        pytest.raises(AuthenticationFailed, match="ACME_API_TOKEN"),
    ):
        get(http)
    assert len(vendor.seen) == 1


def test_a_refusal_whose_body_is_hostile_is_still_that_refusal() -> None:
    with (
        Loopback(lambda e: e.reply(403, BOMB, content_encoding="gzip")) as vendor,
        client(vendor.url) as http,
        pytest.raises(PermissionDenied),
    ):
        get(http)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_short_retry_after_is_waited_out(method: str) -> None:
    clock, meter = ManualClock(START), RecordingMeter()
    with (
        Loopback(in_turn(status(429, retry_after="7"), ok)) as vendor,
        client(vendor.url, clock=clock, meter=meter) as http,
    ):
        response = http.request(method, "/x", endpoint="x")
    assert response.attempts == 2
    assert 7 <= clock.slept[0] <= 7.5
    assert meter.learned == [(429, 7.0), (200, None)]


def http_date(delta_seconds: float) -> str:
    return format_datetime(START + timedelta(seconds=delta_seconds), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "resume_seconds", "attempts"),
    [
        ({"retry_after": "61"}, 61, 1),
        ({"retry_after": "3600"}, 3600, 1),
        ({"retry_after": "1000000000"}, 86_400, 1),
        ({"retry_after": "9" * 500}, 900, 3),
        ({"retry_after": http_date(1800)}, 1800, 1),
        ({"retry_after": http_date(1800), "date": http_date(-3600)}, 5400, 1),
        ({"retry_after": http_date(10)}, 900, 3),  # slept through, then past, and still refused
        ({"retry_after": http_date(-10)}, 900, 3),
        ({"retry_after": "-5"}, 900, 3),
        ({"retry_after": "0"}, 900, 3),
        ({"retry_after": "soon"}, 900, 3),
        ({"retry_after": "nan"}, 900, 3),
        ({"retry_after": "inf"}, 900, 3),
        ({"retry_after": "Sat, 99 Nov 2026 99:99:99 GMT"}, 900, 3),
        ({"x_retryafter": "120"}, 120, 1),
        ({}, 900, 3),
    ],
)
def test_every_kind_of_retry_after(headers: dict[str, str], resume_seconds: float, attempts: int) -> None:
    clock = ManualClock(START)
    with (
        Loopback(status(429, **headers)) as vendor,
        client(vendor.url, clock=clock) as http,
        pytest.raises(RateLimited) as limited,
    ):
        get(http)
    assert len(vendor.seen) == attempts
    assert limited.value.resume_at is not None
    assert abs((limited.value.resume_at - clock.now()).total_seconds() - resume_seconds) < 15
    assert sum(clock.slept) < 60


def test_the_meter_is_asked_before_every_attempt_and_can_stop_it() -> None:
    class Exhausted(RecordingMeter):
        def acquire(self, *, method: str, endpoint: str) -> None:
            super().acquire(method=method, endpoint=endpoint)
            if len(self.acquired) == 2:
                raise QuotaExhausted("No request left.", resume_at=START + timedelta(hours=1))

    meter = Exhausted()
    with (
        Loopback(status(503)) as vendor,
        client(vendor.url, meter=meter) as http,
        pytest.raises(QuotaExhausted) as stop,
    ):
        get(http)
    assert len(vendor.seen) == 1
    assert stop.value.resume_at == START + timedelta(hours=1)
    assert (stop.value.where.vendor, stop.value.where.endpoint) == ("acme", ENDPOINT)


def test_an_outage_spends_the_retry_budget_and_then_no_more() -> None:
    limits = HttpLimits(total_seconds=5, retry_budget=4)
    with Loopback(status(503)) as vendor, client(vendor.url, limits=limits) as http:
        for _ in range(10):
            with pytest.raises(VendorUnavailable):
                get(http)
    assert len(vendor.seen) == 10 + 4


# ---- nothing leaks: T4 ---------------------------------------------------------------------------------------------


def test_no_query_and_no_secret_reaches_logs_or_exceptions(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.DEBUG),
        Loopback(in_turn(status(503), lambda e: e.reset())) as vendor,
        client(vendor.url) as http,
        pytest.raises(VendorUnreachable) as failure,
    ):
        get(http, params={"email": "eve@example.com", "q": "canary-query"})
    text = caplog.text + str(failure.value) + repr(failure.value)
    for hidden in (TOKEN, "canary-query", "eve@example.com"):
        assert hidden not in text
    assert logging.getLogger("httpx").level == logging.WARNING
    assert logging.getLogger("httpcore").level == logging.WARNING


def test_a_response_does_not_print_its_body() -> None:
    with Loopback(lambda e: e.json({"email": "eve@example.com"}, x_key="canary")) as vendor, client(vendor.url) as http:
        response = get(http)
    assert "eve@" not in repr(response)
    assert "canary" not in repr(response)


def test_basic_credentials_stay_out_of_repr() -> None:
    auth = Basic(SecretStr("owner@example.com"), SecretStr("p4ssw0rd-canary"))
    with Loopback(ok) as vendor, client(vendor.url, auth=auth) as http:
        get(http)
        assert "canary" not in repr(http)
        assert "owner@" not in repr(http)
    assert vendor.seen[0].headers["authorization"].startswith("Basic ")


# ---- anything at all --------------------------------------------------------------------------------------------

HEAD_BYTES = st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda code, fields, body: head(code, dict(fields)) + body,
        st.integers(100, 999),
        st.lists(
            st.tuples(
                st.sampled_from(
                    ["content-length", "transfer-encoding", "content-encoding", "content-type", "retry-after", "date"]
                ),
                st.sampled_from(
                    [
                        "",
                        "0",
                        "2",
                        "-1",
                        "9" * 30,
                        "9" * 5000,
                        "1, 1",
                        "chunked",
                        "gzip",
                        "x",
                        "application/json",
                        "\xff",
                    ]
                ),
            ),
            max_size=5,
        ),
        st.sampled_from([b"", b"{}", b"[1", b"2\r\n{}\r\n0\r\n\r\n", gzipped(b"{}"), b"\xff"]),
    ),
)


def test_any_bytes_end_in_a_response_or_a_platform_error() -> None:
    answer = {"bytes": b""}

    def act(exchange: Exchange) -> None:
        exchange.send(answer["bytes"])
        exchange.close()

    limits = HttpLimits(total_seconds=2, max_attempts=1)
    with Loopback(act) as vendor, client(vendor.url, limits=limits) as http:

        @settings(max_examples=150, deadline=None)
        @given(HEAD_BYTES, st.sampled_from(["json", "any"]))
        def probe(data: bytes, expect: str) -> None:
            answer["bytes"] = data
            with contextlib.suppress(PlatformError):
                assert isinstance(get(http, expect=expect), Response)

        probe()


# ---- what may have been acted on -----------------------------------------------------------------------------------


def refused_port() -> str:
    with Loopback(ok) as vendor:
        return vendor.url


def test_an_error_without_a_connection_says_that_nothing_was_sent() -> None:
    with client(refused_port()) as http, pytest.raises(NotSent) as failure:
        http.request("POST", "/hit", endpoint="POST /hit", json={})
    assert failure.value.is_unprocessed


@pytest.mark.parametrize(
    ("respond", "is_unprocessed"),
    [
        (lambda e: e.reset(), False),
        (status(500), False),
        (status(503), False),
        (status(400), False),
        (status(206), False),
        (status(401), True),
        (status(429), True),
    ],
    ids=["reset", "500", "503", "400", "206", "401", "429"],
)
def test_an_error_says_whether_the_vendor_can_have_acted(respond: Any, is_unprocessed: bool) -> None:
    with Loopback(respond) as vendor, client(vendor.url) as http, pytest.raises(PlatformError) as failure:
        http.request("POST", "/hit", endpoint="POST /hit", json={})
    assert failure.value.is_unprocessed is is_unprocessed


def test_an_attempt_that_may_have_arrived_is_not_forgotten_when_the_next_one_cannot_be_sent() -> None:
    class OneRequest(RecordingMeter):
        def acquire(self, *, method: str, endpoint: str) -> None:
            if self.acquired:
                raise QuotaExhausted("spent")
            super().acquire(method=method, endpoint=endpoint)

    with Loopback(lambda e: e.reset()) as vendor, client(vendor.url, meter=OneRequest()) as http:
        with pytest.raises(QuotaExhausted) as after_one:
            http.request("POST", "/maps", endpoint="POST /maps", json={}, retry=True)
        with pytest.raises(QuotaExhausted) as after_none:
            http.request("POST", "/maps", endpoint="POST /maps", json={}, retry=True)
    assert (after_one.value.is_unprocessed, after_none.value.is_unprocessed) == (False, True)


def test_what_is_refused_before_the_wire_was_not_acted_on() -> None:
    with client("http://127.0.0.1:9") as http:
        with pytest.raises(ConfigurationError) as verb:
            http.request("DELETE", "/domain", endpoint="DELETE /domain")
        with pytest.raises(ForeignOrigin) as link:
            http.follow("GET", "http://foreign.example/x", endpoint=ENDPOINT)
    assert verb.value.is_unprocessed
    assert link.value.is_unprocessed


def test_a_token_that_cannot_be_had_leaves_the_request_unsent() -> None:
    auth = ClientCredentials(
        client_id=SecretStr("id"), client_secret=SecretStr("canary-secret"), token_url="/token", encoding="json"
    )
    with (
        Loopback(lambda e: e.reset()) as vendor,
        client(vendor.url, auth=auth) as http,
        pytest.raises(VendorUnreachable) as failure,
    ):
        http.request("POST", "/hit", endpoint="POST /hit", json={})
    assert {seen.target for seen in vendor.seen} == {"/token"}
    assert failure.value.is_unprocessed
