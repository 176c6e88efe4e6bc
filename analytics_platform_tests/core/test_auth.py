"""Credentials against a loopback token server: single flight, one refresh a 401 (RELIABILITY B1-B5, B9, B10)."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from analytics_platform.core import redaction
from analytics_platform.core.auth import Basic, Bearer, ClientCredentials
from analytics_platform.core.clock import ManualClock
from analytics_platform.core.errors import (
    AuthenticationFailed,
    ConfigurationError,
    MalformedResponse,
    VendorUnavailable,
)
from analytics_platform.core.http import HttpClient, HttpLimits
from analytics_platform_tests.core.loopback import Exchange, Loopback

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
TOKEN_PATH = "/api/v1/token"
VARIABLES = ("ACME_CLIENT_ID", "ACME_CLIENT_SECRET")


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is registered here must not mask the words of other tests."""
    monkeypatch.setattr(redaction, "_registry", type(redaction._registry)())


class TokenVendor:
    """Issues numbered tokens; data needs one of `valid`."""

    def __init__(self, **token_fields: object) -> None:
        self.token_fields = token_fields
        self.issued = 0
        self.valid: set[str] = set()
        self.refuse_all = False
        self.token_status = 200
        self.lock = threading.Lock()

    def __call__(self, exchange: Exchange) -> None:
        if exchange.seen.target in {TOKEN_PATH, "/oauth/token"}:
            with self.lock:
                self.issued += 1
                token = f"minted-token-{self.issued}"
                self.valid = {f"Bearer {token}"}
            exchange.json({"access_token": token, **self.token_fields}, self.token_status)
        elif exchange.seen.headers.get("authorization") in self.valid and not self.refuse_all:
            exchange.json({"ok": True})
        else:
            exchange.json({"error": "unauthorized"}, 401)


def credentials(clock: ManualClock, **options: object) -> ClientCredentials:
    settings: dict[str, object] = {
        "client_id": SecretStr("client-id-1"),
        "client_secret": SecretStr("client-secret-canary"),
        "token_url": TOKEN_PATH,
        "variables": VARIABLES,
        "clock": clock,
        **options,
    }
    return ClientCredentials(**settings)  # type: ignore[arg-type]


def client(url: str, auth: object, clock: ManualClock) -> HttpClient:
    return HttpClient(
        vendor="acme",
        base_url=url,
        auth=auth,
        clock=clock,
        limits=HttpLimits(total_seconds=5),  # type: ignore[arg-type]
    )


def get(http: HttpClient) -> object:
    return http.request("GET", "/api/v1/things", endpoint="GET /api/v1/things").json()


def test_one_token_serves_many_requests_and_is_asked_for_in_json() -> None:
    clock, vendor = ManualClock(START), TokenVendor(expires_at="2026-11-22T12:00:00.123456789Z")
    with Loopback(vendor) as server, client(server.url, credentials(clock), clock) as http:
        assert [get(http) for _ in range(3)] == [{"ok": True}] * 3
    token_call = server.seen[0]
    assert vendor.issued == 1
    assert json.loads(token_call.body) == {"client_id": "client-id-1", "client_secret": "client-secret-canary"}
    assert "authorization" not in token_call.headers


def test_the_form_variant_goes_to_its_own_pinned_origin_and_nothing_else_does() -> None:
    clock, issuer = ManualClock(START), TokenVendor(expires_in=7200, token_type="bearer")
    with Loopback(issuer) as token_server, Loopback(lambda e: issuer(e)) as server:
        auth = credentials(clock, token_url=f"{token_server.url}/oauth/token", encoding="form")
        with client(server.url, auth, clock) as http:
            get(http)
    form = parse_qs(token_server.seen[0].body.decode())
    assert form == {
        "grant_type": ["client_credentials"],
        "client_id": ["client-id-1"],
        "client_secret": ["client-secret-canary"],
    }
    assert [seen.target for seen in token_server.seen] == ["/oauth/token"]
    assert [seen.target for seen in server.seen] == ["/api/v1/things"]


@pytest.mark.parametrize(
    "url", ["http://api.example.com/oauth/token", "https://u:p@x.example.com/t", "https://x.example.com/t?q=1"]
)
def test_a_token_url_is_as_strict_as_a_base_url(url: str) -> None:
    clock = ManualClock(START)
    with pytest.raises(ConfigurationError):
        client("https://api.example.com", credentials(clock, token_url=url), clock)


def test_a_401_in_the_middle_costs_one_refresh_and_repeats_the_same_request() -> None:
    clock, vendor = ManualClock(START), TokenVendor()
    with Loopback(vendor) as server, client(server.url, credentials(clock), clock) as http:
        get(http)
        vendor.valid = set()
        assert get(http) == {"ok": True}
    assert vendor.issued == 2
    assert [seen.target for seen in server.seen].count("/api/v1/things") == 3


def test_a_fresh_token_that_is_refused_too_ends_it() -> None:
    clock, vendor = ManualClock(START), TokenVendor()
    vendor.refuse_all = True
    with (
        Loopback(vendor) as server,
        client(server.url, credentials(clock), clock) as http,
        pytest.raises(AuthenticationFailed, match="ACME_CLIENT_ID and ACME_CLIENT_SECRET"),
    ):
        get(http)
    assert vendor.issued == 2
    assert len(server.seen) == 4


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refused_pair_names_both_variables_and_hides_both_values(status: int) -> None:
    clock, vendor = ManualClock(START), TokenVendor()
    vendor.token_status = status
    with Loopback(vendor) as server, client(server.url, credentials(clock), clock) as http:
        with pytest.raises(AuthenticationFailed, match="ACME_CLIENT_ID and ACME_CLIENT_SECRET") as refusal:
            get(http)
        assert len(server.seen) == 1
    assert "canary" not in str(refusal.value)
    assert refusal.value.where.endpoint == f"POST {TOKEN_PATH}"


def test_eight_threads_that_see_the_expiry_together_send_one_token_call() -> None:
    clock, vendor = ManualClock(START), TokenVendor()
    with Loopback(vendor) as server, client(server.url, credentials(clock), clock) as http:
        get(http)
        vendor.valid = set()
        gate = threading.Barrier(8)
        results: list[object] = []

        def work() -> None:
            gate.wait()
            results.append(get(http))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == [{"ok": True}] * 8
    assert vendor.issued == 2


def test_threads_share_a_failed_token_call() -> None:
    clock = ManualClock(START)
    auth = credentials(clock)
    waiting, calls = threading.Semaphore(0), []
    failures: list[BaseException] = []
    release = threading.Event()

    def failing(_request: object) -> object:
        calls.append(1)
        release.wait(5)
        raise VendorUnavailable("down")

    def work() -> None:
        waiting.release()
        try:
            auth.headers(failing)
        except VendorUnavailable as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in threads:
        waiting.acquire()
    while not calls or not auth._lock.locked():
        pass
    release.set()
    for thread in threads:
        thread.join()
    assert len(failures) == 4
    assert len(calls) <= 2  # a thread that had not yet reached the lock may ask once more
    assert len({id(error) for error in failures}) == len(failures)


@pytest.mark.parametrize(
    ("fields", "calls_after_two_hours"),
    [
        ({"expires_at": "2026-11-21T13:00:00Z"}, 2),
        ({"expires_at": "2026-11-21T13:00:00.1Z"}, 2),
        ({"expires_at": "2026-11-21T13:00:00.123456789Z"}, 2),
        ({"expires_at": "2026-11-21T13:00:00"}, 2),
        ({"expires_at": "2026-11-21T15:00:00+02:00"}, 2),
        ({"expires_in": 3600}, 2),
        ({"expires_at": "2036-11-21T13:00:00Z"}, 1),
        ({"expires_at": "2020-01-01T00:00:00Z"}, 1),
        ({"expires_at": "soon"}, 1),
        ({"expires_at": 17}, 1),
        ({"expires_in": -5}, 1),
        ({"expires_in": "3600"}, 1),
        ({"expires_in": True}, 1),
        ({"expires_in": 10**12}, 1),
        ({}, 1),
    ],
)
def test_every_kind_of_expiry(fields: dict[str, object], calls_after_two_hours: int) -> None:
    clock, vendor = ManualClock(START), TokenVendor(**fields)
    with Loopback(vendor) as server, client(server.url, credentials(clock), clock) as http:
        get(http)
        get(http)
        assert vendor.issued == 1
        clock.advance(7200)
        get(http)
        if calls_after_two_hours == 2:
            assert vendor.issued == 2
        else:
            assert vendor.issued == 1


@pytest.mark.parametrize(
    "answer",
    [{}, [], None, {"access_token": ""}, {"access_token": 5}, {"access_token": "a\r\nX: b"}, {"access_token": "é"}],
)
def test_an_unusable_token_answer_is_malformed(answer: object) -> None:
    with pytest.raises(MalformedResponse):
        credentials(ManualClock(START)).headers(lambda request: answer)


@pytest.mark.parametrize("value", ["", " ", "a b", "tok\n", "tok\r\nX-Evil: 1", "tök", "a\tb", "a\0b", "a\x7f"])
def test_values_that_could_inject_a_header_are_refused_by_name(value: str) -> None:
    secret, good = SecretStr(value), SecretStr("good-value")
    for build in (
        lambda: Bearer(secret, variable="ACME_CLIENT_SECRET"),
        lambda: Basic(good, secret, variables=VARIABLES),
        lambda: Basic(secret, good, variables=VARIABLES[::-1]),
        lambda: credentials(ManualClock(START), client_secret=secret),
    ):
        with pytest.raises(ConfigurationError, match="ACME_CLIENT_SECRET") as refusal:
            build()
        assert len(value) < 3 or value not in str(refusal.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.text(alphabet=st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1))
def test_every_printable_token_is_sent_as_it_is(token: str) -> None:
    assert Bearer(SecretStr(token)).headers(lambda request: None) == {"Authorization": f"Bearer {token}"}


def test_basic_is_rfc_7617_and_refuses_a_colon_in_the_name() -> None:
    headers = Basic(SecretStr("Aladdin"), SecretStr("open:sesame")).headers(lambda request: None)
    assert headers == {"Authorization": "Basic QWxhZGRpbjpvcGVuOnNlc2FtZQ=="}
    with pytest.raises(ConfigurationError, match="colon"):
        Basic(SecretStr("a:b"), SecretStr("password"))


def test_a_rotated_token_is_read_before_the_next_attempt() -> None:
    stored = ["first-token"]
    auth = Bearer(lambda: SecretStr(stored[0]))
    clock = ManualClock(START)

    def vendor(exchange: Exchange) -> None:
        if exchange.seen.headers["authorization"] == "Bearer second-token":
            exchange.json({"ok": True})
        else:
            stored[0] = "second-token"
            exchange.json({}, 401)

    with Loopback(vendor) as server, client(server.url, auth, clock) as http:
        assert get(http) == {"ok": True}
    assert len(server.seen) == 2


def test_nothing_prints_a_value() -> None:
    clock = ManualClock(START + timedelta(0))
    shown = repr(Bearer(SecretStr("canary-token"), variable="V")) + repr(credentials(clock))
    shown += repr(Basic(SecretStr("canary-user"), SecretStr("canary-pass")))
    assert "canary" not in shown


def test_a_refused_pair_is_asked_about_again_after_five_minutes_and_not_before() -> None:
    clock = ManualClock(datetime(2026, 11, 21, 12, tzinfo=UTC))
    credentials = ClientCredentials(
        client_id=SecretStr("id-of-a-test"),
        client_secret=SecretStr("secret-of-a-test"),
        token_url="/api/v1/token",
        clock=clock,
    )
    asked = 0

    def refuse(_: object) -> object:
        nonlocal asked
        asked += 1
        raise AuthenticationFailed("the pair is refused")

    for pause in (0.0, 0.0, 299.0):
        clock.sleep(pause)
        with pytest.raises(AuthenticationFailed):
            credentials.headers(refuse)
    assert asked == 1
    clock.sleep(1.0)
    assert credentials.headers(lambda _: {"access_token": "a-token", "expires_in": 3600})
