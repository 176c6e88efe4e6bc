"""The verbs over the outbox: what they show, what they refuse, how they end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from analytics_platform.cli import app
from analytics_platform.core.outbox import Outbox, open_outbox
from analytics_platform.core.outbox_messages import Draft, Holder, Settlement
from analytics_platform.core.quota_policy import QuotaPolicy
from analytics_platform.core.resources import open_ledger
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import generate
from analytics_platform.settings import Home, load_settings
from analytics_platform.vendors import all_operations, vendor_resource
from analytics_platform.vendors.pirsch.outbound import Event, Hit, Session
from analytics_platform.vendors.pirsch.outbox import EVENT, HIT, SESSION, draft

AGENT = "Mozilla/5.0 (X11; Linux x86_64) Test"


def outbox(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["outbox", *arguments])


def told(result: Result) -> Any:
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(generate(first_day=date(2026, 10, 5), days=2, scale=0.03)) as running:
        yield running


@pytest.fixture
def opened(home: Home) -> Iterator[Outbox]:
    with open_outbox(load_settings()) as found:
        yield found


@pytest.fixture
def agreed(home: Home, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """The sandbox's sites, of which both let hits, events and signs of life be sent."""
    for name, value in sandbox.environment().items():
        monkeypatch.setenv(name, value)
    text = sandbox.sites_yaml().replace("domain_id:", "writes: [hit, event, session]\n      domain_id:")
    Path(os.environ["ANALYTICS_PLATFORM_CONFIG"]).write_text(text, encoding="utf-8")
    sandbox.requests.clear()
    return sandbox


def hit(key: str) -> Draft:
    found = draft("shop", Hit(ip="81.2.69.142", user_agent=AGENT, url="https://shop.example/canary"), dedupe_key=key)
    assert found is not None
    return found


def lose(opened: Outbox) -> None:
    """What is pending was sent and nobody answered."""
    holder = Holder.here()
    claim = opened.claim(vendor="pirsch", operation="hit", site_key="shop", holder=holder, limit=9, most_bytes=10**6)
    opened.settle([m.id for m in claim.messages], Settlement(state="unknown", reason="no answer"), holder=holder)


def test_an_empty_outbox_is_no_news(home: Home) -> None:
    assert outbox("deliver").stdout == "Nothing is pending.\n"
    assert told(outbox("list", "--json")) == {"messages": [], "counts": []}


def test_messages_are_shown_without_what_they_hold(opened: Outbox) -> None:
    HIT.enqueue(opened, [hit("a")])
    shown = outbox("list", "--state", "pending")
    assert "pirsch" in shown.stdout
    everything = shown.stdout + outbox("list", "--json").stdout
    assert "canary" not in everything
    assert "81.2.69.142" not in everything
    assert outbox("list", "--state", "lost").exit_code == 2


def test_status_counts_messages_by_state(opened: Outbox) -> None:
    HIT.enqueue(opened, [hit("a"), hit("b")])
    lose(opened)
    HIT.enqueue(opened, [hit("c")])
    (counts,) = json.loads(CliRunner().invoke(app, ["status", "--json"]).stdout)["outbox"]
    assert (counts["operation"], counts["pending"], counts["unknown"]) == ("hit", 1, 2)
    assert "Outbox" in CliRunner().invoke(app, ["status"]).stdout


def test_without_a_site_s_word_delivery_fails_and_says_what_to_add(opened: Outbox, sandbox: Sandbox) -> None:
    Path(os.environ["ANALYTICS_PLATFORM_CONFIG"]).write_text(sandbox.sites_yaml(), encoding="utf-8")
    HIT.enqueue(opened, [hit("a")])
    result = outbox("deliver")
    assert result.exit_code == 1
    assert "Add `writes: […]` to the pirsch block" in result.stdout
    assert told(outbox("deliver", "--json"))["groups"][0]["sent"] == 0


def test_a_vendor_that_is_off_keeps_its_messages(
    opened: Outbox, agreed: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    HIT.enqueue(opened, [hit("a")])
    monkeypatch.delenv("PIRSCH_CLIENT_SECRET")
    result = outbox("deliver")
    assert result.exit_code == 1
    assert "PIRSCH_CLIENT_SECRET" in result.stdout
    assert opened.get(1).state == "pending"


def test_every_operation_of_pirsch_arrives(opened: Outbox, agreed: Sandbox) -> None:
    visitor: Any = {"ip": "81.2.69.142", "user_agent": AGENT}
    event = Event(**visitor, url="https://shop.example/", name="signup", meta={"plan": "pro"})
    for operation, sent in ((HIT, hit("h")), (EVENT, draft("shop", event, dedupe_key="e"))):
        assert sent is not None
        operation.enqueue(opened, [sent])
    alive = draft("shop", Session(**visitor), dedupe_key="s")
    assert alive is not None
    SESSION.enqueue(opened, [alive])
    report = told(outbox("deliver", "--json"))
    assert {group["operation"]: group["sent"] for group in report["groups"]} == {"hit": 1, "event": 1, "session": 1}
    posts = [r.path for r in agreed.requests.records(vendor="pirsch") if r.method == "POST" and r.status == 200]
    assert {"/api/v1/hit", "/api/v1/event", "/api/v1/session"} <= set(posts)


def test_what_must_not_be_sent_is_not_even_written_down() -> None:
    def of(ip: str, dnt: str | None = None) -> Draft | None:
        return draft("shop", Hit(ip=ip, user_agent=AGENT, url="https://shop.example/", dnt=dnt), dedupe_key="k")

    assert of("81.2.69.142", dnt="1") is None
    for address in ("123.456.789.0", "10.0.0.1", "127.0.0.1", "::1"):
        with pytest.raises(Exception, match="address of a visitor") as refused:
            of(address)
        assert address not in str(refused.value)


def test_out_of_quota_ends_with_three(opened: Outbox, agreed: Sandbox) -> None:
    HIT.enqueue(opened, [hit("a")])
    settings = load_settings()
    policy: QuotaPolicy = vendor_resource("pirsch").quota_policy(settings.site("shop").ids("pirsch") or {})
    verb = policy.method_class("POST")
    block: Any = {"endpoint": "POST /api/v1/hit", "status": 429, "retry_after_seconds": 3600.0}
    with open_ledger(settings) as ledger:
        ledger.learn(policy.account, verb, policy.windows_for(verb), **block)
    result = outbox("deliver")
    assert result.exit_code == 3
    assert "deferred until" in result.stdout
    assert opened.get(1).state == "pending"


def test_only_the_typed_words_send_an_unknown_message_again(opened: Outbox) -> None:
    HIT.enqueue(opened, [hit("a")])
    lose(opened)
    for arguments in (["resend", "1"], ["resend", "1", "--confirm", "yes"], ["resend", "9", "--confirm", "resend 9"]):
        assert outbox(*arguments).exit_code == 2
    assert opened.get(1).state == "unknown"
    assert told(outbox("resend", "1", "--confirm", "resend 1", "--json"))["state"] == "pending"
    assert told(outbox("discard", "1", "--json"))["reason"] == "discarded by hand"
    assert outbox("discard", "1", "--json").exit_code == 0
    assert outbox("resend", "1", "--confirm", "resend 1").exit_code == 2


def test_every_operation_is_found_by_looking() -> None:
    assert {
        ("pirsch", "hit"),
        ("pirsch", "event"),
        ("pirsch", "session"),
        ("kameleoon", "visit_events"),
        ("kameleoon", "product_events"),
        ("kameleoon", "maps"),
    } == set(all_operations())
    assert all(key == (found.vendor, found.name) for key, found in all_operations().items())
