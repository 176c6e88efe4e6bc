"""Redaction: secrets and people are masked in every text; ordinary words survive (RELIABILITY T4, M7)."""

from __future__ import annotations

import base64
import io
import logging
import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analytics_platform.core import redaction
from analytics_platform.core.redaction import RedactingFilter, install_redaction, redact, register_secret

JWT = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
HIDDEN = {
    "bob.o'neil+tag@mail.example.co.uk": "mail to bob.o'neil+tag@mail.example.co.uk failed",
    "bob%40example.com": "user=bob%40example.com",
    "jürgen@bücher.example": "<jürgen@bücher.example>",
    "203.0.113.77": "client 203.0.113.77 refused",
    "10.1.2.3": "from 10.1.2.3:443",
    "2001:db8::ff00:42:8329": "peer [2001:db8::ff00:42:8329]:443",
    "fe80::1": "via fe80::1,",
    "::ffff:203.0.113.77": "addr ::ffff:203.0.113.77 x",
    "abc.DEF-123": "Authorization: Bearer abc.DEF-123",
    "b3duZXI6cGFzcw==": "authorization: basic b3duZXI6cGFzcw==",
    JWT: f"token {JWT} refused",
    "Zx9": "https://www.inspectlet.com/dashboard/watchsession/1/2?accessResourceKey=Zx9&pn=1",
    "key-Zx9": '{"accessResourceKey": "key-Zx9"}',
    "hunter2": "client_secret=hunter2",
    "after=MTaxX34": "GET https://api.eu.smartlook.cloud/api/v1/events?after=MTaxX34=&limit=10 500",
    "who=me": "path /visit/visitor?who=me&x=1 failed",
    "3f786850e387550fdab836ed7e6dc881de23001b": "key 3f786850e387550fdab836ed7e6dc881de23001b",
    "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF3hI6": "value aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF3hI6.",
    "qT8s/J2mN5+pQ8sT1vW4yZ7bC0eF3hI6kL9==": "value qT8s/J2mN5+pQ8sT1vW4yZ7bC0eF3hI6kL9==",
}


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets that other tests registered are none of ours."""
    monkeypatch.setattr(redaction, "_registry", type(redaction._registry)())


@pytest.mark.parametrize(("hidden", "text"), HIDDEN.items(), ids=range(len(HIDDEN)))
def test_secrets_and_people_are_masked(hidden: str, text: str) -> None:
    assert hidden in text
    assert hidden not in redact(text)


KEPT = [
    "smartlook/sessions 2026-10-05 for site shop: 1,234 rows in 12:34:56.789",
    "http://127.0.0.1:8080/api/v1/sessions and ::1 and 0.0.0.0",
    "/srv/data/landing/smartlook/sessions/site=shop/day=2026-10-05/part-00001.parquet",
    "analytics_platform_tests/core/test_redaction.py::test_what_people_need_is_kept[0]",
    "run 7f1b0f6e-5a52-4b8a-9a51-1c7d3b2f9e10 deferred until 2026-11-21T12:00:00+00:00",
    "duckdb 2.0.0, dagster 1.13.27, POST /api/v1/sessions/search",
    "Is it green? Yes: 20 requests left.",
    "AuthenticationFailed: the vendor refused the credentials (401). Check SMARTLOOK_API_TOKEN",
    "org.example.SomeVeryLongClassNameThatGoesOnAndOnForEverAndEver2",
    "std::vector, a ratio of 3:4:5",
]


@pytest.mark.parametrize("text", KEPT)
def test_what_people_need_is_kept(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("text", [*HIDDEN.values(), *KEPT])
def test_redacting_twice_changes_nothing(text: str) -> None:
    assert redact(redact(text)) == redact(text)


def test_a_registered_secret_is_masked_in_every_spelling() -> None:
    secret = 'pässwörd "with/slash'
    assert "slash" in redact(secret)
    register_secret(secret)
    encoded = base64.b64encode(secret.encode()).decode()
    for spelling in (secret, quote(secret, safe=""), 'p\\u00e4ssw\\u00f6rd \\"with/slash', encoded):
        assert redact(f"<{spelling}>") == "<[secret]>"


def test_a_secret_spelled_like_a_mask_does_not_eat_masks() -> None:
    for value in ("secret", "[secret", "email]"):
        register_secret(value)
    assert redact("my secret mail eve@example.com") == "my [secret] mail [email]"
    assert redact("my [secret] mail [email]") == "my [secret] mail [email]"


def test_short_values_are_not_registered() -> None:
    register_secret("the")
    register_secret("")
    assert redact("the rows") == "the rows"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.text())
def test_any_text_can_be_redacted(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


@pytest.mark.parametrize(
    "text", ["a" * 200_000, "@" * 50_000, "1." * 50_000, ":" * 100_000, "a.b@" * 30_000, "?a=" * 50_000, "aA1" * 60_000]
)
def test_hostile_texts_are_redacted_in_time(text: str) -> None:
    begun = time.process_time()
    redact(text)
    assert time.process_time() - begun < 2


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """A root handler, with the process's logging put back afterwards."""
    root, factory = logging.getLogger(), logging.getLogRecordFactory()
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    root.addHandler(handler)
    try:
        yield text
    finally:
        root.removeHandler(handler)
        logging.setLogRecordFactory(factory)
        for holder in (
            root,
            *map(logging.getLogger, ("httpx", "httpcore", "urllib3", "dbt", "great_expectations", "dagster")),
        ):
            for present in [f for f in holder.filters if isinstance(f, RedactingFilter)]:
                holder.removeFilter(present)


def test_every_log_record_is_redacted_once_installed(stream: io.StringIO) -> None:
    install_redaction()
    install_redaction()
    log = logging.getLogger("some.child.logger")
    log.warning("mail %s from %s", "eve@example.com", "203.0.113.9")
    log.warning("100% wrong %d eve@example.com", "x")
    try:
        raise ValueError("token Bearer canary-1234567")
    except ValueError:
        log.exception("failed")
    logged = stream.getvalue()
    assert "[email]" in logged
    assert "ValueError" in logged
    assert "Traceback" in logged
    for hidden in ("eve@", "203.0.113.9", "canary"):
        assert hidden not in logged


def test_the_filter_alone_redacts_on_a_handler(stream: io.StringIO) -> None:
    logging.getLogger().handlers[-1].addFilter(RedactingFilter())
    log = logging.getLogger("other.child")
    log.warning("mail eve@example.com", stack_info=True)
    try:
        raise ValueError("eve@example.com")
    except ValueError:
        log.exception("failed")
    assert "eve@" not in stream.getvalue()
    assert stream.getvalue().count("[email]") >= 2
