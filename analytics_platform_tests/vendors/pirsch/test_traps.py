"""The traps of the vendor document, numbered as in contract Pirsch A8; each test fails on the naive reading."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from pydantic import SecretStr

from analytics_platform.core.endpoints import endpoints_of
from analytics_platform.core.errors import AuthenticationFailed, ConfigurationError, MalformedResponse
from analytics_platform.core.opt_in import Confirmation
from analytics_platform.core.strict_json import parse
from analytics_platform.sandbox import faults
from analytics_platform.vendors.pirsch import client as client_module
from analytics_platform.vendors.pirsch.access import AccessLink, ConversionGoal, Domain, EmailReport, Member, Scopes
from analytics_platform.vendors.pirsch.client import (
    OTHER,
    PirschClient,
    StatisticsFilter,
    complete,
    is_possibly_truncated,
    with_other_row,
)
from analytics_platform.vendors.pirsch.management import PirschManagement
from analytics_platform.vendors.pirsch.outbound import Event, Hit
from analytics_platform.vendors.pirsch.streams import _LISTS
from analytics_platform.vendors.pirsch.tables import BREAKDOWNS, DAILY_STATS
from analytics_platform_tests.vendors.pirsch.conftest import FIREFOX, FIRST, TODAY, Place, rows

SHOP = "https://www.shop.example"


def labels(cls: type) -> dict[str, tuple[str, ...]]:
    return {name: tuple(mark.label for mark in marks) for name, marks in endpoints_of(cls).items()}


def hit(ip: str = "192.0.2.50", path: str = "/trap", **more: Any) -> Hit:
    return Hit(ip=ip, user_agent=FIREFOX, url=SHOP + path, **more)


def answer(place: Place, path: str, body: bytes) -> None:
    fault = faults.status(200, headers={"content-type": "application/json"}, body=body)
    place.sandbox.faults.add("pirsch", path, fault=fault)


@pytest.mark.parametrize(
    "example",
    [
        b'{"x_real_ip" "header"}',
        b'{"a": 1 "b": 2}',
        b'[{"path" "/home"}]',
        b'[{"page_goal": {} "stats": {}}]',
        b'[{"meta_value": "value",}]',
        b'[{"visitors": 1}, // ...\n]',
        b'{"emails": ["a" /* ... */]}',
    ],
)
def test_trap_01_examples_are_no_json(place: Place, example: bytes) -> None:
    with pytest.raises(MalformedResponse):
        parse(example)
    answer(place, "/statistics/os", example)
    with pytest.raises(MalformedResponse):
        place.client.os(place.query())


def test_trap_02_line_numbers_are_no_values() -> None:
    gutter = "\n".join(f" {number}" for number in range(1, 5))
    with pytest.raises(MalformedResponse):
        parse(f'{gutter}\n[{{"visitors": 42}}]'.encode())
    # No sample of the document is shipped to be loaded.
    folder = Path(client_module.__file__).parent
    assert [path.suffix for path in folder.iterdir() if path.suffix in {".json", ".txt"}] == []


def test_trap_03_versions_are_at_os_version(place: Place) -> None:
    assert labels(PirschClient)["os_version"] == ("GET /api/v1/statistics/os/version",)
    versions, plain = rows(place.client.os_version(place.query(FIRST))), rows(place.client.os(place.query(FIRST)))
    assert any(row["os_version"] for row in versions)
    assert all("os_version" not in row for row in plain)


def test_trap_04_visibility_is_a_toggle_at_public_and_never_repeated(place: Place) -> None:
    assert labels(PirschManagement)["toggle_visibility"] == ("POST /api/v1/domain/public",)
    was = {one.domain_id: one for one in place.client.domains()}[place.domain_id]
    for toggle in (place.management.toggle_visibility, place.management.toggle_grouping_by_title):
        # The answer is lost: a repeated request would undo the first without a word.
        place.sandbox.requests.clear()
        place.sandbox.faults.add("pirsch", "POST /api/v1/domain/", fault=faults.status(503))
        with pytest.raises(Exception, match="503"):
            toggle(place.domain_id)
        assert place.sandbox.requests.count(vendor="pirsch", path="/domain/") == 1
        toggle(place.domain_id)
    now = {one.domain_id: one for one in place.client.domains()}[place.domain_id]
    assert (now.is_public, now.is_grouped_by_title) == (not was.is_public, not was.is_grouped_by_title)
    assert now.subdomain == was.subdomain
    place.management.toggle_visibility(place.domain_id)
    place.management.toggle_grouping_by_title(place.domain_id)


def test_trap_05_the_country_is_called_country_code(place: Place) -> None:
    found = rows(place.client.country(place.query(FIRST)))
    code = found[0]["country_code"]
    assert "country" not in found[0]
    narrowed = rows(place.client.total(place.query(FIRST, country=code)))
    assert narrowed["visitors"] == found[0]["visitors"]
    assert {"country", "country_code"} <= set(BREAKDOWNS.wire)


def test_trap_06_goal_patterns_are_told_apart_by_their_looks() -> None:
    wire = {"id": "g", "path_pattern": "/checkout/**", "pattern": "(?i)^/checkout/.+$"}
    swapped = {"id": "g", "path_pattern": "(?i)^/checkout/.+$", "pattern": "/checkout/**"}
    for record in (wire, swapped):
        goal = ConversionGoal.from_wire(record)
        assert (goal.path_pattern, goal.pattern) == ("/checkout/**", "(?i)^/checkout/.+$")


def test_trap_07_goal_rates_are_percent_and_zero_means_none(place: Place) -> None:
    made = place.management.create_goal(
        place.domain_id, name="Half", path_pattern="/trap", visitor_goal=0, cr_goal_percent=42.11
    )
    assert (made.visitor_goal, made.cr_goal_percent) == (None, 42.11)
    place.tracker.hit(hit())
    place.flush()
    stats = {row["page_goal"]["id"]: row["stats"] for row in rows(place.client.goals(place.query()))}[made.goal_id]
    assert 0 < stats["cr"] <= 1
    with pytest.raises(ConfigurationError):
        place.management.create_goal(place.domain_id, name="No", path_pattern="/a", cr_goal_percent=4211)


def test_trap_08_any_metadata_key_is_a_parameter_of_its_own(place: Place) -> None:
    for amount in ("1&2", "3"):
        event = Event(ip="192.0.2.51", user_agent=FIREFOX, url=SHOP, name="Paid", meta={"am ount=ä&": amount})
        place.tracker.event(event)
    place.flush()
    place.sandbox.requests.clear()
    found = rows(place.client.event_list(place.query(meta={"am ount=ä&": "1&2"})))
    assert [row["meta"] for row in found] == [{"am ount=ä&": "1&2"}]
    (record,) = place.sandbox.requests.records(vendor="pirsch", path="/event/list")
    assert ("meta_am ount=ä&", "1&2") in parse_qsl(record.query)


def test_trap_09_examples_break_their_own_arithmetic(place: Place) -> None:
    # 23/48, not 0.4791: real rates are unrounded, and a whole one has no decimals.
    found = rows(place.client.total(place.query(FIRST)))
    assert found["bounce_rate"] == found["bounces"] / found["sessions"]
    parts = rows(place.client.platform(place.query(FIRST)))
    assert sum(value for name, value in parts.items() if name.startswith("relative")) == pytest.approx(1)
    assert DAILY_STATS.wire["bounce_rate"] == "VARCHAR"


def test_trap_10_a_full_list_is_cut_and_says_so(place: Place) -> None:
    day = TODAY - timedelta(days=40)
    now = place.now() - timedelta(days=40)
    sent = [hit(ip=f"198.18.1.{n % 250}", path=f"/p{n:03d}", at=now + timedelta(seconds=n)) for n in range(130)]
    place.tracker.hits(sent)
    place.flush()
    query = place.query(day, day)
    page = place.client.pages(query)
    assert (page.records, is_possibly_truncated(page)) == (100, True)
    assert is_possibly_truncated(place.client.pages(replace(query, limit=7)))
    assert not is_possibly_truncated(place.client.os(query))
    assert not is_possibly_truncated(place.client.visitors(replace(query, first_day=day - timedelta(days=99))))
    done = complete(place.client, query, "page")
    assert (done.was_cut, len(done.rows), done.rows[-1]["path"], done.rows[-1]["views"]) == (True, 101, OTHER, 30)
    assert done.rows[-1]["visitors"] is None
    assert complete(place.client, query, "page/entry").rows[-1]["entries"] == 30
    whole = complete(place.client, query, "referrer")
    assert (whole.was_cut, len(whole.rows)) == (False, 1)
    exact = [{"path": "/a", "views": 2}]
    assert with_other_row(exact, label="path", totals={"views": 2}) == tuple(exact)
    assert with_other_row(exact, label="path", totals={"views": 1})[-1] == {"path": OTHER, "views": None}


def test_trap_11_start_overrides_the_dates_and_no_stream_uses_it(place: Place) -> None:
    place.tracker.hit(hit(ip="192.0.2.52"))
    place.flush()
    long_ago = place.query(date(2020, 1, 1), date(2020, 1, 1), start_seconds=600)
    assert rows(place.client.total(long_ago))["visitors"] >= 1
    assert StatisticsFilter(domain_id="A", first_day=FIRST, last_day=FIRST).start_seconds is None
    assert "start" not in {name for name, _ in place.query().parameters()}
    with pytest.raises(ConfigurationError):
        place.query(start_seconds=3601)


def test_trap_12_an_id_is_of_what_the_call_is_about(place: Place) -> None:
    place.management.invite_members(place.domain_id, emails=["trap@example.org"])
    listed = place.client.members(place.domain_id)
    member = next(one for one in listed if one.email.get_secret_value() == "trap@example.org")
    assert len({member.member_id, member.user_id, member.domain_id}) == 3
    place.sandbox.requests.clear()
    place.client.access_links(place.domain_id)
    place.client.email_reports(place.domain_id)
    place.management.remove_member(member.member_id, confirm=Confirmation(f"remove member {member.member_id}"))
    asked = {one.path: one.query for one in place.sandbox.requests.records(vendor="pirsch")}
    assert asked["/api/v1/domain/link"] == f"domain_id={place.domain_id}"
    assert asked["/api/v1/report"] == f"id={place.domain_id}"
    assert asked["/api/v1/member"] == f"id={member.member_id}"


@pytest.mark.parametrize(("spelled", "meant"), [("Owner", "owner"), ("admin", "admin"), ("Viewer", "viewer"), ("", "")])
def test_trap_13_roles_have_three_spellings(spelled: str, meant: str) -> None:
    assert Domain.from_wire({"id": "A", "user_role": spelled}).user_role == meant
    assert Member.from_wire({"id": "A", "role": spelled}).role == meant


def test_trap_14_post_client_updates_with_an_id_and_the_secret_comes_once(place: Place) -> None:
    before = {one.record_id for one in place.client.clients(place.domain_id)}
    made = place.management.create_client(place.domain_id, scopes=Scopes(hit="w"))
    again = place.management.update_client(made.record_id, description="x")
    assert made.client_secret is not None
    assert again.client_secret is None
    after = {one.record_id for one in place.client.clients(place.domain_id)}
    assert after - before == {made.record_id}
    # An empty id would create instead of update.
    with pytest.raises(ConfigurationError):
        place.management.update_client(" ", description="x")
    with pytest.raises(ConfigurationError, match="reset identification code"):
        place.management.reset_identification_code(place.domain_id, confirm=Confirmation("yes"))


def test_trap_15_screen_width_is_text_in_the_filter_and_a_number_in_a_hit(place: Place) -> None:
    sent = hit(ip="192.0.2.53", screen_width=1111, screen_height=777)
    assert sent.as_wire()["screen_width"] == 1111
    place.tracker.hit(sent)
    place.flush()
    assert rows(place.client.total(place.query(screen_width="1111")))["visitors"] == 1


def test_trap_16_keywords_have_a_list_of_keys_and_a_broken_position(place: Place) -> None:
    answer(place, "/statistics/keywords", b'[{"keys":["key","word"],"clicks":4,"ctr":0.49,"position":4.25}]')
    (row,) = rows(place.client.keywords(place.query()))
    assert (row["keys"], row["position"]) == (["key", "word"], 4.25)
    # Without the Search Console integration there is nothing, which is no failure.
    assert place.client.keywords(place.query()).records == 0


def test_trap_17_reports_come_every_so_many_weeks() -> None:
    report = EmailReport.from_wire({"id": "r", "interval": 2, "next_report": "2021-05-22T10:11:12.123456789Z"})
    assert report.interval_weeks == 2
    assert report.next_report_at is not None
    assert (report.next_report_at.tzinfo, report.next_report_at.microsecond) == (UTC, 123456)


def test_trap_18_typos_of_the_document_are_not_on_the_wire(place: Place) -> None:
    paths = [label for cls in (PirschClient, PirschManagement) for marks in labels(cls).values() for label in marks]
    assert not [path for path in paths if "identifcation" in path or "visiblity" in path.lower()]
    answer(place, "PUT /api/v1/domain", b'{"identifcation_code":"x"}')
    words = Confirmation(f"reset identification code of domain {place.domain_id}")
    with pytest.raises(MalformedResponse, match="identification_code"):
        place.management.reset_identification_code(place.domain_id, confirm=words)


def test_trap_19_events_is_plural_and_its_details_are_not(place: Place) -> None:
    marks = labels(PirschClient)
    assert [marks[name] for name in ("events", "event_metadata", "event_list")] == [
        ("GET /api/v1/statistics/events",),
        ("GET /api/v1/statistics/event/meta",),
        ("GET /api/v1/statistics/event/list",),
    ]
    assert place.client.events(place.query(FIRST)).endpoint.endswith("/events")


def test_trap_20_the_event_list_has_a_row_for_every_metadata_and_is_cut(place: Place) -> None:
    event = Event(ip="192.0.2.54", user_agent=FIREFOX, url=SHOP, name="Order", at=place.now())
    place.tracker.events([replace(event, meta={"order": n}) for n in range(120)])
    place.flush()
    page = place.client.event_list(place.query(event="Order"))
    assert (page.records, is_possibly_truncated(page)) == (100, True)
    (row,) = rows(place.client.events(place.query(event="Order")))
    assert row["views"] == 120
    assert "event/list" not in {label for label, _ in _LISTS}


def test_trap_21_a_referrer_is_known_by_its_name(place: Place) -> None:
    for number in range(3):
        sent = hit(ip="192.0.2.55", path=f"/r{number}", referrer=f"https://www.partner.example/page{number}")
        place.tracker.hit(sent)
    place.flush()
    found = [row for row in rows(place.client.referrer(place.query())) if row["referrer_name"] == "partner.example"]
    assert len(found) == 1
    assert (found[0]["sessions"], found[0]["visitors"]) == (3, 1)
    assert "referrer_example" not in BREAKDOWNS.key
    assert "value" in BREAKDOWNS.key


def test_trap_22_the_token_call_is_json_and_the_token_a_bearer(place: Place) -> None:
    place.sandbox.requests.clear()
    wrong = {**place.credentials(), "client_secret": SecretStr("w" * 64)}
    with PirschClient.connect(**wrong) as client, pytest.raises(AuthenticationFailed):
        client.domains()
    # Not 400, which this sandbox answers to a body that is no JSON.
    assert place.sandbox.requests.count(vendor="pirsch", path="/token", status=401) == 1
    assert place.client.domains()


def test_links_and_people_are_not_printed() -> None:
    link = AccessLink.from_wire({"id": "l", "code": "c0de-of-a-link"})
    member = Member.from_wire({"id": "m", "user": {"email": "who@example.org", "full_name": "Who"}})
    assert not {"c0de-of-a-link", "who@example.org", "Who"} & set(json.dumps(str([link, member])).split("'"))
