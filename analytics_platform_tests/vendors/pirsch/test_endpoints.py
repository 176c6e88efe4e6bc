"""Every endpoint of the vendor document, called through our classes against the sandbox."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from urllib.parse import urlencode

import pytest

from analytics_platform.core.endpoints import Endpoint, endpoints_of
from analytics_platform.core.opt_in import Confirmation
from analytics_platform.vendors.pirsch.access import Domain, Scopes
from analytics_platform.vendors.pirsch.client import PirschClient
from analytics_platform.vendors.pirsch.management import PirschManagement
from analytics_platform.vendors.pirsch.outbound import Event, Hit, PirschTracker, Session
from analytics_platform_tests.vendors.pirsch.conftest import FIREFOX, FIRST, TODAY, Place, rows

CLASSES = (PirschClient, PirschTracker, PirschManagement)
MARKS: tuple[Endpoint, ...] = tuple(mark for cls in CLASSES for marks in endpoints_of(cls).values() for mark in marks)
CAMPAIGN = {name: f"{name} of the tests" for name in ("source", "medium", "campaign", "content", "term")}
PAGE = "https://www.shop.example/from/the/tests?" + urlencode({f"utm_{name}": text for name, text in CAMPAIGN.items()})
EVENT = {"name": "Tested", "meta": {"kind": "endpoint"}}


def hit(place: Place, ip: str, **more: object) -> Hit:
    return Hit(ip=ip, user_agent=FIREFOX, url=PAGE, title="Tests", **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module", autouse=True)
def something_was_sent(place: Place) -> None:
    """One visitor with a hit and an event, so that no list of today is empty."""
    ip = somebody(place)["ip"]
    place.tracker.hit(hit(place, ip, referrer="https://news.example/a", accept_language="de-DE,de", screen_width=1920))
    place.tracker.event(Event(ip=ip, user_agent=FIREFOX, url=PAGE, duration_seconds=42, **EVENT))  # type: ignore[arg-type]
    place.flush()


def somebody(place: Place) -> dict[str, str]:
    """A visitor of the generated days: the sandbox knows where that address is."""
    row = place.sandbox.world.visitors.query("site_key == 'shop'").iloc[0]
    return {"ip": str(row["ip"]), "country": str(row["country"]).lower(), "city": str(row["city"])}


def domain(place: Place, name: str) -> Domain:
    """A domain of its own for what changes or destroys one."""
    return place.management.create_domain(hostname=f"{name}.example", subdomain=name, timezone="Europe/Berlin")


def shown(place: Place, domain_id: str) -> Domain:
    return next(one for one in place.client.domains() if one.domain_id == domain_id)


# ------------------------------------------------------------------------------------------------------------- reads


def token(place: Place) -> None:
    with PirschClient.connect(**place.credentials()) as fresh:
        assert fresh.domains()


def domains(place: Place) -> None:
    assert place.domain_id in {one.domain_id for one in place.client.domains()}


def total(place: Place) -> None:
    assert place.total()["visitors"] >= 1


def visitors(place: Place) -> None:
    (yesterday, today) = rows(place.client.visitors(place.query(TODAY - timedelta(days=1))))
    assert (yesterday["day"], today["day"]) == ("2026-10-13T00:00:00Z", "2026-10-14T00:00:00Z")


def growth(place: Place) -> None:
    assert set(rows(place.client.growth(place.query()))) == {
        f"{name}_growth" for name in ("visitors", "views", "sessions", "bounces", "time_spent")
    }


def active(place: Place) -> None:
    found = rows(place.client.active(place.query()))
    assert found["visitors"] >= 1
    assert "/from/the/tests" in {row["path"] for row in found["stats"]}


def hours(place: Place) -> None:
    assert [row["hour"] for row in rows(place.client.hours(place.query()))] == list(range(24))


def durations(method: str) -> Callable[[Place], None]:
    def call(place: Place) -> None:
        found = rows(getattr(place.client, method)(place.query(FIRST, FIRST)))
        assert [row["day"] for row in found] == ["2026-10-12T00:00:00Z"]
        assert found[0]["average_time_spent_seconds"] >= 0

    return call


def listed(method: str, key: str, value: object, **narrowing: str) -> Callable[[Place], None]:
    def call(place: Place) -> None:
        found = rows(getattr(place.client, method)(place.query(**narrowing)))
        assert value in [row[key] for row in found]

    return call


def goals(place: Place) -> None:
    found = rows(place.client.goals(place.query(FIRST)))
    assert found[0]["page_goal"]["domain_id"] == place.domain_id
    assert 0 <= found[0]["stats"]["cr"] <= 1


def platform(place: Place) -> None:
    assert rows(place.client.platform(place.query()))["platform_desktop"] >= 1


def keywords(place: Place) -> None:
    assert place.client.keywords(place.query()).body == b"null"


def event_list(place: Place) -> None:
    found = rows(place.client.event_list(place.query(meta={"kind": "endpoint"})))
    assert [(row["name"], row["meta"]) for row in found] == [("Tested", {"kind": "endpoint"})]


# ----------------------------------------------------------------------------------------------------------- writes


def send_hit(place: Place) -> None:
    before = place.total()["views"]
    place.tracker.hit(hit(place, "192.0.2.2"))
    place.flush()
    assert place.total()["views"] == before + 1


def send_event(place: Place) -> None:
    sent = Event(ip="192.0.2.3", user_agent=FIREFOX, url=PAGE, name="Button Clicked", duration_seconds=7)
    place.tracker.event(sent)
    place.flush()
    row = next(row for row in rows(place.client.events(place.query())) if row["name"] == "Button Clicked")
    assert (row["views"], row["average_duration_seconds"]) == (1, 7)


def send_session(place: Place) -> None:
    place.tracker.hit(hit(place, "192.0.2.4"))
    for _ in range(2):
        place.sandbox.context.advance(20 * 60)
        place.tracker.session(Session(ip="192.0.2.4", user_agent=FIREFOX))
    before = place.total()["sessions"]
    place.tracker.hit(hit(place, "192.0.2.4"))
    place.flush()
    assert place.total()["sessions"] == before


def send_hits(place: Place) -> None:
    before = place.total()["sessions"]
    now = place.now()
    place.tracker.hits([hit(place, "192.0.2.5", at=now - timedelta(hours=hour)) for hour in (0, 2, 1)])
    place.flush()
    assert place.total()["sessions"] == before + 3


def send_events(place: Place) -> None:
    event = Event(ip="192.0.2.6", user_agent=FIREFOX, url=PAGE, name="Batched", at=place.now())
    place.tracker.events([event, replace(event, meta={"n": 2})])
    place.flush()
    row = next(row for row in rows(place.client.events(place.query())) if row["name"] == "Batched")
    assert (row["visitors"], row["views"]) == (1, 2)


def send_sessions(place: Place) -> None:
    now = place.now()
    place.tracker.hit(hit(place, "192.0.2.7"))
    place.tracker.sessions([Session(ip="192.0.2.7", user_agent=FIREFOX, at=now + timedelta(minutes=5))])
    place.flush()
    assert place.total(path="/from/the/tests")["sessions"] >= 1


def create_domain(place: Place) -> None:
    made = domain(place, "made")
    assert (made.hostname, made.timezone, made.user_role) == ("made.example", "Europe/Berlin", "owner")
    assert made in place.client.domains()


def delete_domain(place: Place) -> None:
    doomed = domain(place, "doomed")
    place.management.delete_domain(doomed.domain_id, confirm=Confirmation(f"delete domain {doomed.domain_id}"))
    assert doomed.domain_id not in {one.domain_id for one in place.client.domains()}


def reset_code(place: Place) -> None:
    one = domain(place, "recoded")
    words = Confirmation(f"reset identification code of domain {one.domain_id}")
    code = place.management.reset_identification_code(one.domain_id, confirm=words)
    assert code == shown(place, one.domain_id).identification_code != one.identification_code


def set_subdomain(place: Place) -> None:
    one = domain(place, "before")
    place.management.set_subdomain(one.domain_id, subdomain="after")
    assert shown(place, one.domain_id).subdomain == "after"


def toggle_visibility(place: Place) -> None:
    one = domain(place, "seen")
    place.management.toggle_visibility(one.domain_id)
    assert shown(place, one.domain_id).is_public is not one.is_public


def toggle_title(place: Place) -> None:
    one = domain(place, "titled")
    place.management.toggle_grouping_by_title(one.domain_id)
    assert (one.is_grouped_by_title, shown(place, one.domain_id).is_grouped_by_title) == (False, True)


def set_timezone(place: Place) -> None:
    one = domain(place, "moved")
    place.management.set_timezone(one.domain_id, timezone="Asia/Tokyo")
    assert shown(place, one.domain_id).timezone == "Asia/Tokyo"


def links(place: Place) -> None:
    made = place.management.create_access_link(place.domain_id, description="for the board")
    assert made in place.client.access_links(place.domain_id)
    assert made.code.get_secret_value() not in repr(made)


def update_link(place: Place) -> None:
    made = place.management.create_access_link(place.domain_id, description="old")
    place.management.update_access_link(made.link_id, description="new")
    assert {one.link_id: one.description for one in place.client.access_links(place.domain_id)}[made.link_id] == "new"


def delete_link(place: Place) -> None:
    made = place.management.create_access_link(place.domain_id)
    place.management.delete_access_link(made.link_id, confirm=Confirmation(f"delete access link {made.link_id}"))
    assert made.link_id not in {one.link_id for one in place.client.access_links(place.domain_id)}


def invited(place: Place, email: str) -> str:
    place.management.invite_members(place.domain_id, emails=[email])
    found = place.client.members(place.domain_id)
    return next(one.member_id for one in found if one.email.get_secret_value() == email)


def members(place: Place) -> None:
    member_id = invited(place, "viewer@example.org")
    found = place.client.members(place.domain_id)
    assert {one.member_id: one.role for one in found}[member_id] == "viewer"
    assert "viewer@example.org" not in repr(found)


def set_role(place: Place) -> None:
    member_id = invited(place, "admin@example.org")
    place.management.set_member_role(member_id, role="admin")
    assert {one.member_id: one.role for one in place.client.members(place.domain_id)}[member_id] == "admin"


def remove_member(place: Place) -> None:
    member_id = invited(place, "gone@example.org")
    place.management.remove_member(member_id, confirm=Confirmation(f"remove member {member_id}"))
    assert member_id not in {one.member_id for one in place.client.members(place.domain_id)}


def clients(place: Place) -> None:
    made = place.management.create_client(place.domain_id, scopes=Scopes(statistics="r"), description="reader")
    assert made.client_secret is not None
    assert made.client_secret.get_secret_value() not in repr(made)
    read = {one.record_id: one for one in place.client.clients(place.domain_id)}[made.record_id]
    assert read == replace(made, client_secret=None)
    given = {**place.credentials(), "client_id": made.client_id, "client_secret": made.client_secret}
    with PirschClient.connect(**given) as limited:
        assert [one.domain_id for one in limited.domains()] == [place.domain_id]
        assert limited.total(place.query()).records == 1
    changed = place.management.update_client(made.record_id, description="still a reader")
    assert (changed.description, changed.client_secret) == ("still a reader", None)


def delete_client(place: Place) -> None:
    made = place.management.create_client(place.domain_id, scopes=Scopes(hit="w"))
    place.management.delete_client(made.record_id, confirm=Confirmation(f"delete client {made.record_id}"))
    assert made.record_id not in {one.record_id for one in place.client.clients(place.domain_id)}


def reports(place: Place) -> None:
    made = place.management.create_email_reports(
        place.domain_id, emails=["a@example.org", "b@example.org"], interval_weeks=2
    )
    assert [one.interval_weeks for one in made] == [2, 2]
    assert set(made) <= set(place.client.email_reports(place.domain_id))


def update_report(place: Place) -> None:
    (made,) = place.management.create_email_reports(place.domain_id, emails=["c@example.org"], interval_weeks=1)
    changed = place.management.update_email_report(made.report_id, interval_weeks=4)
    assert changed.next_report_at is not None
    assert changed.next_report_at - place.now() > timedelta(days=27)
    assert changed in place.client.email_reports(place.domain_id)


def delete_report(place: Place) -> None:
    (made,) = place.management.create_email_reports(place.domain_id, emails=["d@example.org"], interval_weeks=1)
    place.management.delete_email_report(made.report_id, confirm=Confirmation(f"delete email report {made.report_id}"))
    assert made.report_id not in {one.report_id for one in place.client.email_reports(place.domain_id)}


def conversion_goals(place: Place) -> None:
    made = place.management.create_goal(
        place.domain_id, name="Tested", path_pattern="/from/**", visitor_goal=123, cr_goal_percent=1.25
    )
    assert (made.path_pattern, made.visitor_goal, made.cr_goal_percent) == ("/from/**", 123, 1.25)
    assert made in place.client.conversion_goals(place.domain_id)
    found = {row["page_goal"]["id"]: row["stats"] for row in rows(place.client.goals(place.query()))}
    assert found[made.goal_id]["visitors"] >= 1


def update_goal(place: Place) -> None:
    made = place.management.create_goal(place.domain_id, name="Old", path_pattern="/a", visitor_goal=5)
    changed = place.management.update_goal(replace(made, name="New", path_pattern="/b/*", visitor_goal=None))
    assert (changed.goal_id, changed.name, changed.visitor_goal) == (made.goal_id, "New", None)
    assert changed in place.client.conversion_goals(place.domain_id)


def delete_goal(place: Place) -> None:
    made = place.management.create_goal(place.domain_id, name="Doomed", path_pattern="/a")
    place.management.delete_goal(made.goal_id, confirm=Confirmation(f"delete goal {made.goal_id}"))
    assert made.goal_id not in {one.goal_id for one in place.client.conversion_goals(place.domain_id)}


STATISTICS = "GET /api/v1/statistics"
ENDPOINT_CALLS: dict[str, Callable[[Place], None]] = {
    "POST /api/v1/token": token,
    "GET /api/v1/domain": domains,
    f"{STATISTICS}/total": total,
    f"{STATISTICS}/visitor": visitors,
    f"{STATISTICS}/growth": growth,
    f"{STATISTICS}/active": active,
    f"{STATISTICS}/hours": hours,
    f"{STATISTICS}/duration/session": durations("session_duration"),
    f"{STATISTICS}/duration/page": durations("time_on_page"),
    f"{STATISTICS}/page": listed("pages", "path", "/from/the/tests"),
    f"{STATISTICS}/page/entry": listed("entry_pages", "path", "/from/the/tests"),
    f"{STATISTICS}/page/exit": listed("exit_pages", "path", "/from/the/tests"),
    f"{STATISTICS}/goals": goals,
    f"{STATISTICS}/events": listed("events", "name", "Tested"),
    f"{STATISTICS}/event/meta": listed(
        "event_metadata", "meta_value", "endpoint", event="Tested", event_meta_key="kind"
    ),
    f"{STATISTICS}/event/list": event_list,
    f"{STATISTICS}/keywords": keywords,
    f"{STATISTICS}/utm/source": listed("utm_source", "utm_source", CAMPAIGN["source"]),
    f"{STATISTICS}/utm/medium": listed("utm_medium", "utm_medium", CAMPAIGN["medium"]),
    f"{STATISTICS}/utm/campaign": listed("utm_campaign", "utm_campaign", CAMPAIGN["campaign"]),
    f"{STATISTICS}/utm/content": listed("utm_content", "utm_content", CAMPAIGN["content"]),
    f"{STATISTICS}/utm/term": listed("utm_term", "utm_term", CAMPAIGN["term"]),
    f"{STATISTICS}/referrer": listed("referrer", "referrer_name", "news.example"),
    f"{STATISTICS}/language": listed("language", "language", "de"),
    f"{STATISTICS}/country": lambda place: listed("country", "country_code", somebody(place)["country"])(place),
    f"{STATISTICS}/city": lambda place: listed("city", "city", somebody(place)["city"])(place),
    f"{STATISTICS}/os": listed("os", "os", "Windows"),
    f"{STATISTICS}/os/version": listed("os_version", "os_version", "10.0"),
    f"{STATISTICS}/browser": listed("browser", "browser", "Firefox"),
    f"{STATISTICS}/browser/version": listed("browser_version", "browser_version", "143.0"),
    f"{STATISTICS}/platform": platform,
    f"{STATISTICS}/screen": listed("screen_class", "screen_class", "Full HD"),
    "POST /api/v1/hit": send_hit,
    "POST /api/v1/event": send_event,
    "POST /api/v1/session": send_session,
    "POST /api/v1/hit/batch": send_hits,
    "POST /api/v1/event/batch": send_events,
    "POST /api/v1/session/batch": send_sessions,
    "POST /api/v1/domain": create_domain,
    "DELETE /api/v1/domain": delete_domain,
    "PUT /api/v1/domain": reset_code,
    "POST /api/v1/domain/subdomain": set_subdomain,
    "POST /api/v1/domain/public": toggle_visibility,
    "POST /api/v1/domain/title": toggle_title,
    "POST /api/v1/domain/timezone": set_timezone,
    "GET /api/v1/domain/link": links,
    "POST /api/v1/domain/link": links,
    "PUT /api/v1/domain/link": update_link,
    "DELETE /api/v1/domain/link": delete_link,
    "GET /api/v1/member": members,
    "POST /api/v1/member": members,
    "PUT /api/v1/member": set_role,
    "DELETE /api/v1/member": remove_member,
    "GET /api/v1/client": clients,
    "POST /api/v1/client": clients,
    "DELETE /api/v1/client": delete_client,
    "GET /api/v1/report": reports,
    "POST /api/v1/report": reports,
    "PUT /api/v1/report": update_report,
    "DELETE /api/v1/report": delete_report,
    "GET /api/v1/goal": conversion_goals,
    "POST /api/v1/goal": conversion_goals,
    "PUT /api/v1/goal": update_goal,
    "DELETE /api/v1/goal": delete_goal,
}


@pytest.mark.parametrize("label", list(ENDPOINT_CALLS))
def test_endpoint(place: Place, label: str) -> None:
    place.sandbox.requests.clear()
    ENDPOINT_CALLS[label](place)
    method, _, path = label.partition(" ")
    asked = [one for one in place.sandbox.requests.records(vendor="pirsch") if (one.method, one.path) == (method, path)]
    assert asked
    assert all(200 <= one.status < 300 for one in asked)


def test_every_mark_has_a_call_and_every_call_a_mark() -> None:
    assert {mark.label for mark in MARKS} == set(ENDPOINT_CALLS)


def test_reading_cannot_write() -> None:
    assert {mark.method for marks in endpoints_of(PirschClient).values() for mark in marks} == {"GET", "POST"}
    assert [name for name, marks in endpoints_of(PirschClient).items() if marks[0].method == "POST"] == ["connect"]
