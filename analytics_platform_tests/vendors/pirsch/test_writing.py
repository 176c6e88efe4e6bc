"""The two classes that write to Pirsch: what they refuse, how often they send, and what their errors keep quiet."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from analytics_platform.core.errors import (
    ConfigurationError,
    PermissionDenied,
    PlatformError,
    RateLimited,
    RequestRejected,
    VendorUnavailable,
)
from analytics_platform.core.opt_in import Confirmation, WriteOptIn
from analytics_platform.sandbox import faults
from analytics_platform.sandbox.pirsch_management import access_key_of
from analytics_platform.vendors.pirsch.access import NotTheShape, Scopes
from analytics_platform.vendors.pirsch.management import PirschManagement
from analytics_platform.vendors.pirsch.outbound import Event, Hit, PirschTracker, Session
from analytics_platform_tests.vendors.pirsch.conftest import FIREFOX, OPT_IN, Place, rows

PERSON = {"ip": "203.0.113.77", "user_agent": FIREFOX, "url": "https://www.shop.example/account/jane.doe@example.org"}


# ------------------------------------------------------------------------------------------------------------ opt-in


@pytest.mark.parametrize("cls", [PirschTracker, PirschManagement])
@pytest.mark.parametrize(
    "opt_in", [WriteOptIn(vendor="kameleoon", reason="x"), WriteOptIn(vendor="pirsch", reason=" ")]
)
def test_nobody_writes_without_a_yes(place: Place, cls: Any, opt_in: WriteOptIn) -> None:
    with pytest.raises(ConfigurationError, match="not agreed"):
        cls.connect(**place.credentials(), opt_in=opt_in)
    with pytest.raises(ConfigurationError, match="not agreed"):
        cls(object(), opt_in=opt_in)


def test_a_tracker_needs_one_kind_of_credentials(place: Place) -> None:
    full = place.credentials()
    key = SecretStr(access_key_of(place.domain_id))
    for wrong in (
        {"base_url": full["base_url"]},
        {**full, "access_key": key},
        {"base_url": full["base_url"], "client_id": full["client_id"]},
        {"base_url": full["base_url"], "access_key": SecretStr("not-a-key")},
    ):
        with pytest.raises(ConfigurationError):
            PirschTracker.connect(**wrong, opt_in=OPT_IN)


def test_an_access_key_sends_without_a_token(place: Place) -> None:
    key = SecretStr(access_key_of(place.domain_id))
    before = place.total()["views"]
    place.sandbox.requests.clear()
    with PirschTracker.connect(access_key=key, base_url=place.credentials()["base_url"], opt_in=OPT_IN) as tracker:
        tracker.hit(Hit(**PERSON))
    place.flush()
    assert place.total()["views"] == before + 1
    assert place.sandbox.requests.count(vendor="pirsch", path="/token") == 0
    assert key.get_secret_value() not in repr(tracker)


def test_each_class_sends_its_verbs_only(place: Place) -> None:
    for writer, verbs in ((place.tracker, ("GET", "PUT", "DELETE")), (place.management, ("GET", "PATCH"))):
        for verb in verbs:
            with pytest.raises(ConfigurationError, match="may not send"):
                writer._http.request(verb, "/api/v1/domain", endpoint="x")


# ------------------------------------------------------------------------------------------------------- at most once


@pytest.mark.parametrize(("status", "error"), [(503, VendorUnavailable), (500, VendorUnavailable), (429, RateLimited)])
def test_a_hit_is_sent_once_whatever_is_answered(place: Place, status: int, error: type[PlatformError]) -> None:
    place.sandbox.requests.clear()
    place.sandbox.faults.add("pirsch", "/api/v1/hit", fault=faults.status(status))
    with pytest.raises(error):
        place.tracker.hit(Hit(**PERSON))
    assert place.sandbox.requests.count(vendor="pirsch", path="/hit") == 1


def test_a_hit_whose_token_was_refused_is_sent_with_a_new_one(place: Place) -> None:
    before = place.total()["views"]
    place.sandbox.context.token_store("pirsch").revoke_all()
    place.tracker.hit(Hit(**PERSON))
    place.flush()
    assert place.total()["views"] == before + 1


# ---------------------------------------------------------------------------------------------------- nothing is told


def test_errors_and_values_hold_nobody(place: Place) -> None:
    body = b'{"validation":{"url":"%s","email":"jane.doe@example.org is known"},"error":["203.0.113.77"]}'
    echoed = body % PERSON["url"].encode()
    calls: list[Callable[[], object]] = [
        lambda: place.tracker.event(Event(**PERSON, name="E", meta={"customer": "Jane Doe"})),
        lambda: place.management.invite_members(place.domain_id, emails=["jane.doe@example.org"]),
        lambda: place.management.delete_goal("g", confirm=Confirmation("delete goal g")),
    ]
    place.tracker.hit(Hit(**PERSON))
    place.management.create_access_link(place.domain_id)
    for status, error in ((400, RequestRejected), (403, PermissionDenied)):
        for call in calls:
            place.sandbox.faults.add("pirsch", "/api/v1/", fault=faults.status(status, body=echoed))
            with pytest.raises(error) as caught:
                call()
            said = f"{caught.value} {caught.value!r}"
            assert not [word for word in ("jane", "Jane", "203.0.113", "Firefox", "/account") if word in said]
    printed = repr(Event(**PERSON, name="E", meta={"customer": "Jane Doe"})) + repr(
        Session(ip="1.2.3.4", user_agent="x")
    )
    assert not [word for word in ("jane", "Jane", "203.0.113", "Firefox", "1.2.3.4") if word in printed]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Hit(ip="", user_agent="u", url="https://a.example/"),
        lambda: Hit(ip="203.0.113.77", user_agent=" ", url="https://a.example/"),
        lambda: Hit(ip="203.0.113.77", user_agent="u", url="/only/a/path"),
        lambda: Hit(ip="203.0.113.77", user_agent="u", url="https://a.example/", screen_width=-1),
        lambda: Hit(ip="203.0.113.77", user_agent="u", url="https://a.example/", tags={"k": "v" * 51}),
        lambda: Event(ip="203.0.113.77", user_agent="u", url="https://a.example/", name=""),
        lambda: Event(ip="203.0.113.77", user_agent="u", url="https://a.example/", name="E", duration_seconds=-1),
        lambda: Event(ip="203.0.113.77", user_agent="u", url="https://a.example/", name="E", meta={"a": float("nan")}),
        lambda: Event(
            ip="203.0.113.77",
            user_agent="u",
            url="https://a.example/",
            name="E",
            meta={"a": ["deep"]},  # type: ignore[dict-item]
        ),
        lambda: Event(
            ip="203.0.113.77", user_agent="u", url="https://a.example/", name="E", meta={str(n): n for n in range(21)}
        ),
        lambda: Session(ip="203.0.113.77", user_agent="u", at=datetime(2026, 10, 14)),  # noqa: DTZ001
    ],
)
def test_what_the_vendor_would_refuse_is_never_made(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert "203.0.113" not in str(caught.value)


def test_a_batch_needs_entries_with_times(place: Place) -> None:
    for entries in ([], [Hit(**PERSON)]):
        with pytest.raises(ConfigurationError):
            place.tracker.hits(entries)


TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20)


@settings(max_examples=25, deadline=None)
@given(
    name=TEXT.filter(str.strip), meta=st.dictionaries(TEXT, st.one_of(TEXT, st.integers(), st.booleans()), max_size=4)
)
def test_whatever_is_sent_is_read_back(place: Place, name: str, meta: dict[str, Any]) -> None:
    sent = Event(
        ip="192.0.2.200", user_agent=FIREFOX, url=f"https://www.shop.example/{quote(name)}", name=name, meta=meta
    )
    place.tracker.event(sent)
    place.flush()
    found = rows(place.client.event_list(place.query(event_meta_key=next(iter(meta), None))))
    texts = {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in meta.items()}
    assert any((row["name"], row["meta"]) == (name, texts) for row in found) or len(found) == 100


def test_times_are_sent_as_utc() -> None:
    moment = datetime.fromisoformat("2026-10-14T14:00:00.5+02:00")
    assert Session(ip="i", user_agent="u", at=moment).as_batched()["time"] == "2026-10-14T12:00:00.500Z"
    assert Session(ip="i", user_agent="u", at=moment.astimezone(UTC)).as_wire() == {"ip": "i", "user_agent": "u"}


# ---------------------------------------------------------------------------------------------------------- destroying


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("delete_domain", "delete domain {}"),
        ("reset_identification_code", "reset identification code of domain {}"),
        ("delete_access_link", "delete access link {}"),
        ("remove_member", "remove member {}"),
        ("delete_client", "delete client {}"),
        ("delete_email_report", "delete email report {}"),
        ("delete_goal", "delete goal {}"),
    ],
)
def test_destroying_takes_the_words(place: Place, call: str, words: str) -> None:
    place.sandbox.requests.clear()
    for phrase in ("", "yes", words.format("another")):
        with pytest.raises(ConfigurationError, match=words.format("it")):
            getattr(place.management, call)("it", confirm=Confirmation(phrase))
    with pytest.raises(ConfigurationError):
        getattr(place.management, call)(" ", confirm=Confirmation(words.format("")))
    assert len(place.sandbox.requests) == 0


def test_values_the_vendor_cannot_mean_are_not_sent(place: Place) -> None:
    place.sandbox.requests.clear()
    manage, domain = place.management, place.domain_id
    for wrong in (
        lambda: manage.create_domain(hostname="", subdomain="x", timezone="UTC"),
        lambda: manage.set_member_role("m", role="owner"),  # type: ignore[arg-type]
        lambda: manage.invite_members(domain, emails=[]),
        lambda: manage.invite_members(domain, emails="a@example.org"),
        lambda: manage.create_email_reports(domain, emails=["a@example.org"], interval_weeks=0),
        lambda: manage.create_goal(domain, name="g", path_pattern="/a", visitor_goal=-1),
        lambda: place.client.members(""),
    ):
        with pytest.raises(ConfigurationError):
            wrong()
    assert len(place.sandbox.requests) == 0


def test_records_without_an_id_are_malformed() -> None:
    from analytics_platform.vendors.pirsch import access as account

    for kind in (account.Domain, account.AccessLink, account.Member, account.DomainClient, account.EmailReport):
        with pytest.raises(NotTheShape, match="id"):
            kind.from_wire({"id": 3})
    with pytest.raises(NotTheShape, match="cr_goal"):
        account.ConversionGoal.from_wire({"id": "g", "cr_goal": "42"})
    assert Scopes().as_wire() == dict.fromkeys(("scope_hit", "scope_event", "scope_statistics", "scope_domains"), "")
