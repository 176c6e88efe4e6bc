"""Every endpoint that a method of Smartlook's clients speaks for, called over a real socket.

Belongs here: one call an endpoint, and what writing asks for first. Does not belong here: paging (`test_client`), each
filter (`test_search`), traps (`test_traps`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from analytics_platform.core.endpoints import Endpoint, endpoints_of
from analytics_platform.core.errors import ConfigurationError, NotFound, RequestRejected
from analytics_platform.core.opt_in import Confirmation, WriteOptIn
from analytics_platform.core.paging import Page
from analytics_platform.core.quota import Ledger
from analytics_platform.core.quota_policy import account_key
from analytics_platform.core.redaction import redact
from analytics_platform.sandbox import faults
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import generate
from analytics_platform.vendors.smartlook.client import Filter, Paging, SmartlookClient
from analytics_platform.vendors.smartlook.erasure import SmartlookErasure, forget_phrase
from analytics_platform.vendors.smartlook.management import SmartlookManagement
from analytics_platform.vendors.smartlook.resource import SmartlookResource

FIRST = date(2026, 10, 5)
LAST = FIRST + timedelta(days=1)
YES = WriteOptIn(vendor="smartlook", reason="the tests of this file")
EVER = Filter(name="recording_date", operator="after", value=date(2000, 1, 1))


def rows(pages: Page | Iterator[Page], name: str) -> list[dict[str, Any]]:
    """The records of one page or of a walk."""
    listed = [pages] if isinstance(pages, Page) else list(pages)
    return [entry for page in listed for entry in json.loads(page.body)[name]]


@dataclass(frozen=True)
class Project:
    """One project of a sandbox of its own, by its three clients."""

    sandbox: Sandbox
    reads: SmartlookClient
    writes: SmartlookManagement
    forgets: SmartlookErasure

    def sessions(self, *filters: Filter) -> list[dict[str, Any]]:
        return rows(self.reads.search_sessions(filters or (EVER,), call="s"), "sessions")

    def visitors(self) -> list[dict[str, Any]]:
        return rows(self.reads.search_visitors((EVER,), call="v"), "visitors")

    def definitions(self) -> dict[str, str]:
        return {event["name"]: event["id"] for event in rows(self.reads.events(), "events")}

    def first_funnel(self) -> dict[str, Any]:
        return rows(self.reads.funnels(), "funnels")[0]


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    with Sandbox(generate(first_day=FIRST, days=2, scale=0.2), vendors=("smartlook",)) as sandbox:
        token = SecretStr(sandbox.world.sites[0].smartlook_token)
        url = sandbox.base_urls["smartlook"]
        with (
            SmartlookClient.connect(base_url=url, token=token) as reads,
            SmartlookManagement.connect(base_url=url, token=token, opt_in=YES) as writes,
            SmartlookErasure.connect(base_url=url, token=token, opt_in=YES) as forgets,
        ):
            yield Project(sandbox, reads, writes, forgets)


# ---------------------------------------------------------------------------------------------------- one call each


def _me(project: Project) -> None:
    assert project.reads.me().project_id == project.sandbox.world.sites[0].smartlook_project_id


def _statistics(project: Project) -> None:
    project.reads.me()
    assert project.reads.statistics().requests_by_endpoint["GET /me"] >= 1


def _statistics_as_documented(project: Project) -> None:
    assert project.reads.statistics(versioned=False) == project.reads.statistics()


def _search_sessions(project: Project) -> None:
    (page,) = project.reads.search_sessions(
        (EVER, Filter(name="session_duration", operator="gte", value=60)), call="s", order="desc"
    )
    assert page.records > 0
    assert all(session["duration"] >= 60 for session in rows(page, "sessions"))


def _session(project: Project) -> None:
    wanted = project.sessions()[0]
    assert json.loads(project.reads.session(wanted["id"]).body) == wanted


def _search_visitors(project: Project) -> None:
    seen = project.visitors()
    again = rows(project.reads.search_visitors((EVER,), call="v", order="desc"), "visitors")
    assert [v["id"] for v in again] == [v["id"] for v in reversed(seen)]


def _visitor(project: Project) -> None:
    wanted = project.visitors()[0]
    found = json.loads(project.reads.visitor(wanted["id"]).body)["visitor"]
    assert found["firstSeen"] == wanted["firstSeen"]
    assert found["numberOfSessions"] >= 1


def _visitor_sessions(project: Project) -> None:
    of_all = project.sessions()
    visitor = of_all[0]["visitorId"]
    found = rows(project.reads.visitor_sessions(visitor, order="desc"), "sessions")
    assert [s["id"] for s in found] == [s["id"] for s in reversed(of_all) if s["visitorId"] == visitor]


def _visitor_events(project: Project) -> None:
    session = max(project.sessions(), key=lambda s: len(s["pageUrl"]))
    events = rows(
        project.reads.visitor_events(
            session["visitorId"],
            first_day=FIRST,
            last_day=LAST,
            event_types=("url",),
            session_id=session["id"],
            paging=Paging(limit=2),
        ),
        "events",
    )
    assert [event["pageUrl"] for event in events] == session["pageUrl"]


def _events(project: Project) -> None:
    everything = rows(project.reads.events(), "events")
    category = everything[0]["categoryId"]
    assert rows(project.reads.events(category_id=category), "events") == [
        event for event in everything if event["categoryId"] == category
    ]


def _event(project: Project) -> None:
    page = project.reads.event(
        project.definitions()["Visited URL"], first_day=FIRST, last_day=LAST, call="e", interval="hour"
    )
    event = json.loads(page.body)["event"]
    assert page.records == len(event["occurrenceHistogram"]) == 48
    assert sum(bar["occurrenceCount"] for bar in event["occurrenceHistogram"]) == event["totalOccurrence"] > 0


def _event_visitors(project: Project) -> None:
    event_id = project.definitions()["Visited URL"]
    found = rows(project.reads.event_visitors(event_id, first_day=FIRST, last_day=LAST), "visitors")
    event = json.loads(project.reads.event(event_id, first_day=FIRST, last_day=LAST, call="e", interval=None).body)
    assert len(found) == event["event"]["uniqueVisitors"]
    assert sum(visitor["eventMatchedCount"] for visitor in found) == event["event"]["totalOccurrence"]
    assert "occurrenceHistogram" not in event["event"]


def _funnels(project: Project) -> None:
    funnel = project.first_funnel()
    assert funnel["name"] == "Checkout"
    assert len(funnel["events"]) >= 2


def _funnel(project: Project) -> None:
    page = project.reads.funnel(project.first_funnel()["id"], first_day=FIRST, last_day=LAST, call="f")
    steps = [step["visitorsCount"] for step in json.loads(page.body)["funnel"]["steps"]]
    assert page.records == len(steps) >= 2
    assert steps == sorted(steps, reverse=True)
    assert page.context == {}  # no single day


def _funnel_drop_off(project: Project) -> None:
    funnel_id = project.first_funnel()["id"]
    page = project.reads.funnel(funnel_id, first_day=FIRST, last_day=LAST, call="f")
    first, second = (step["visitorsCount"] for step in json.loads(page.body)["funnel"]["steps"][:2])

    def ids(*, success: bool) -> set[str]:
        found = project.reads.funnel_drop_off(funnel_id, first_day=FIRST, last_day=LAST, step=2, success=success)
        listed = json.loads(found.body)["visitors"]
        assert found.records == len(listed) == len(set(listed))
        return set(listed)

    done, lost = ids(success=True), ids(success=False)
    assert (len(done), len(lost)) == (second, first - second)
    assert done.isdisjoint(lost)


def _public_link(project: Project) -> None:
    session_id = project.sessions()[0]["id"]
    link = project.writes.public_link(session_id, confirm=Confirmation(f"publish session {session_id}"))
    assert link.get_secret_value().startswith("https://")
    assert redact(f"see {link.get_secret_value()}") == "see [secret]"


def _delete_event(project: Project) -> None:
    name, event_id = next(iter(sorted(project.definitions().items())))
    durations = {session["id"]: session["duration"] for session in project.sessions()}
    project.writes.delete_event(event_id, confirm=Confirmation(f"delete event {event_id}"))
    assert name not in project.definitions()
    with pytest.raises(NotFound):
        project.reads.event(event_id, first_day=FIRST, last_day=LAST, call="e")
    for visitor in project.visitors():
        assert name not in {event["eventName"] for event in rows(project.reads.visitor_events(visitor["id"]), "events")}
    assert {session["id"]: session["duration"] for session in project.sessions()} == durations


def _delete_visitor(project: Project) -> None:
    before = project.sessions()
    gone = before[0]["visitorId"]
    event_id = project.definitions()["Visited URL"]
    project.writes.delete_visitor(gone, confirm=Confirmation(f"delete visitor {gone}"))
    assert project.sessions() == [session for session in before if session["visitorId"] != gone]
    assert gone not in {visitor["id"] for visitor in project.visitors()}
    assert gone not in {
        visitor["id"]
        for visitor in rows(project.reads.event_visitors(event_id, first_day=FIRST, last_day=LAST), "visitors")
    }
    for ask in (
        lambda: project.reads.visitor(gone),
        lambda: project.reads.session(before[0]["id"]),
        lambda: list(project.reads.visitor_sessions(gone)),
        lambda: list(project.reads.visitor_events(gone)),
        lambda: project.writes.delete_visitor(gone, confirm=Confirmation(f"delete visitor {gone}")),
    ):
        with pytest.raises(NotFound):
            ask()


def _delete_visitors(project: Project) -> None:
    known = [visitor for visitor in project.visitors() if "uid" in visitor["identification"]]
    uids = sorted({visitor["identification"]["uid"] for visitor in known})[:2]
    gone = {visitor["id"] for visitor in known if visitor["identification"]["uid"] in uids}
    left = {visitor["id"] for visitor in project.visitors()} - gone
    assert project.writes.delete_visitors(uids, confirm=Confirmation("delete visitors of 2 uids")) == len(gone) > 0
    assert {visitor["id"] for visitor in project.visitors()} == left
    assert project.sessions(Filter(name="uid", operator="is", value=uids)) == []


def _hook(project: Project) -> str:
    return project.writes.create_webhook(
        type="session", url="https://hooks.example.org/one", source="all", secret=SecretStr("hook-secret-1")
    )


def _webhooks(project: Project) -> None:
    made = _hook(project)
    assert made in [webhook.id for webhook in project.writes.webhooks()]


def _webhook(project: Project) -> None:
    webhook = project.writes.webhook(_hook(project))
    assert (webhook.type, webhook.url, webhook.is_enabled) == ("session", "https://hooks.example.org/one", True)
    assert "hooks.example.org" not in repr(webhook)


def _create_webhook(project: Project) -> None:
    before = len(project.writes.webhooks())
    assert _hook(project) != _hook(project)
    assert len(project.writes.webhooks()) == before + 2


def _update_webhook(project: Project) -> None:
    made = _hook(project)
    project.writes.update_webhook(made, url="https://hooks.example.org/two", is_enabled=False)
    webhook = project.writes.webhook(made)
    assert (webhook.url, webhook.is_enabled, webhook.type) == ("https://hooks.example.org/two", False, "session")


def _delete_webhook(project: Project) -> None:
    made = _hook(project)
    project.writes.delete_webhook(made, confirm=Confirmation(f"delete webhook {made}"))
    with pytest.raises(NotFound):
        project.writes.webhook(made)


def _upload_mapping_file(project: Project) -> None:
    release = {"bundle_id": "com.example.shop", "platform": "android", "app_version": "1.0 (7)"}
    content = bytes(range(256)) + b"\r\n--\r\n"
    first = project.writes.upload_mapping_file(**release, content=content)
    with pytest.raises(RequestRejected):
        project.writes.upload_mapping_file(**release, content=b"other")
    # The id names the bytes: what arrived is what was sent, and a forced upload replaces it.
    assert project.writes.upload_mapping_file(**release, content=content, is_forced=True).id == first.id
    assert project.writes.upload_mapping_file(**release, content=b"other", is_forced=True).id != first.id


ENDPOINT_CALLS: dict[str, Callable[[Project], None]] = {
    "GET /api/v1/me": _me,
    "GET /api/v1/statistics": _statistics,
    "GET /api/statistics": _statistics_as_documented,
    "POST /api/v1/sessions/search": _search_sessions,
    "GET /api/v1/sessions/{session_id}": _session,
    "POST /api/v2/visitors/search": _search_visitors,
    "GET /api/v1/visitors/{visitor_id}": _visitor,
    "GET /api/v1/visitors/{visitor_id}/sessions": _visitor_sessions,
    "GET /api/v1/visitors/{visitor_id}/events": _visitor_events,
    "GET /api/v1/events": _events,
    "GET /api/v1/events/{event_id}": _event,
    "GET /api/v1/events/{event_id}/visitors": _event_visitors,
    "GET /api/v1/funnels": _funnels,
    "GET /api/v1/funnels/{funnel_id}": _funnel,
    "GET /api/v1/funnels/{funnel_id}/visitors/drop-off": _funnel_drop_off,
    "GET /api/v1/sessions/{session_id}/public-link": _public_link,
    "DELETE /api/v1/visitors/{visitor_id}": _delete_visitor,
    "DELETE /api/v1/visitors": _delete_visitors,
    "GET /api/v1/webhooks": _webhooks,
    "GET /api/v1/webhooks/{webhook_id}": _webhook,
    "POST /api/v1/webhooks": _create_webhook,
    "PATCH /api/v1/webhooks/{webhook_id}": _update_webhook,
    "DELETE /api/v1/webhooks/{webhook_id}": _delete_webhook,
    "POST /api/v1/bundles/{bundle_id}/platforms/{platform}/releases/{app_version}/mapping-files": _upload_mapping_file,
    "DELETE /api/v1/events/{event_id}": _delete_event,
}
"""By label; deletes work on what is left by those before them."""

MARKS: dict[str, Endpoint] = {
    mark.label: mark
    for client in (SmartlookClient, SmartlookManagement, SmartlookErasure)
    for marks in endpoints_of(client).values()
    for mark in marks
}


@pytest.mark.parametrize("label", ENDPOINT_CALLS)
def test_endpoint(label: str, project: Project) -> None:
    project.sandbox.faults.clear()
    project.sandbox.requests.clear()
    ENDPOINT_CALLS[label](project)
    method, _, path = label.partition(" ")
    route = re.compile(re.sub(r"\\\{[a-z_]+\\\}", "[^/]+", re.escape(path)))
    assert [
        record
        for record in project.sandbox.requests.records(vendor="smartlook")
        if record.method == method and route.fullmatch(record.path) and 200 <= record.status < 300
    ]


def test_every_mark_has_its_call() -> None:
    assert set(ENDPOINT_CALLS) == set(MARKS)


# ------------------------------------------------------------------------------------------------- writing is asked for


def test_nothing_writes_without_a_yes_to_this_vendor(project: Project) -> None:
    url, token = project.sandbox.base_urls["smartlook"], SecretStr("t0ken-of-nobody")
    for wrong in (WriteOptIn(vendor="pirsch", reason="mistaken"), WriteOptIn(vendor="smartlook", reason=" ")):
        for writing in (SmartlookManagement, SmartlookErasure):
            with pytest.raises(ConfigurationError, match="not agreed"):
                writing.connect(base_url=url, token=token, opt_in=wrong)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, c: m.public_link("s1", confirm=c), "publish session s1"),
        (lambda m, c: m.delete_event("e1", confirm=c), "delete event e1"),
        (lambda m, c: m.delete_visitor("v1", confirm=c), "delete visitor v1"),
        (lambda m, c: m.delete_visitors(["kim@example.org"], confirm=c), "delete visitors of 1 uids"),
        (lambda m, c: m.delete_webhook("w1", confirm=c), "delete webhook w1"),
    ],
)
def test_what_cannot_be_taken_back_wants_its_words(project: Project, call: Any, words: str) -> None:
    project.sandbox.requests.clear()
    with pytest.raises(ConfigurationError, match=words) as caught:
        call(project.writes, Confirmation("yes"))
    assert "kim@example.org" not in str(caught.value)
    assert len(project.sandbox.requests) == 0


@pytest.mark.parametrize("method", ["DELETE", "PATCH", "PUT"])
def test_the_reading_client_can_send_nothing_that_changes(project: Project, method: str) -> None:
    project.sandbox.requests.clear()
    with pytest.raises(ConfigurationError, match=method):
        project.reads._http.request(method, "/api/v1/visitors/v1", endpoint="x")
    assert not [name for name in dir(SmartlookClient) if re.search("delete|forget|publish|public|webhook|upload", name)]
    assert len(project.sandbox.requests) == 0


def test_erasure_can_only_delete(project: Project) -> None:
    for method in ("GET", "POST", "PATCH"):
        with pytest.raises(ConfigurationError, match=method):
            project.forgets._http.request(method, "/api/v1/me", endpoint="x")


def test_a_webhook_travels_encrypted_and_changes_something(project: Project) -> None:
    project.sandbox.requests.clear()
    with pytest.raises(ConfigurationError, match="https"):
        project.writes.create_webhook(type="session", url="http://hooks.example.org/")
    with pytest.raises(ConfigurationError, match="nothing to change"):
        project.writes.update_webhook("w1")
    with pytest.raises(ConfigurationError, match="name"):
        project.writes.upload_mapping_file(
            bundle_id="b", platform="android", app_version="1", content=b"x", file_name='a";b'
        )
    assert len(project.sandbox.requests) == 0


# -------------------------------------------------------------------------------------------------------- forgetting


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Project]:
    """A project of this test alone: forgetting leaves less for the others."""
    with Sandbox(generate(first_day=FIRST, days=2, scale=0.1), vendors=("smartlook",)) as sandbox:
        ids = {"plan": "addon"}
        resource = SmartlookResource(
            api_token=sandbox.world.sites[0].smartlook_token, base_url=sandbox.base_urls["smartlook"]
        )
        with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
            opened: tuple[AbstractContextManager[Any], ...] = (
                resource.connect(ids, ledger),
                resource.management(ids, ledger, YES),
                resource.erasure(ids, ledger, YES),
            )
            with opened[0] as reads, opened[1] as writes, opened[2] as forgets:
                yield Project(sandbox, reads, writes, forgets)


def test_a_person_is_forgotten_and_everybody_else_stays(crowd: Project) -> None:
    visitors = crowd.visitors()
    by_uid = next(v for v in visitors if "uid" in v["identification"])
    by_id = next(v for v in visitors if "uid" not in v["identification"])
    uid = by_uid["identification"]["uid"]
    gone = {by_id["id"]} | {v["id"] for v in visitors if v["identification"].get("uid") == uid}
    before = crowd.sessions()
    wanted = {"visitor_ids": [by_id["id"], by_id["id"], "never-was"], "uids": [uid]}
    words = forget_phrase(**wanted)
    assert words == "forget 2 visitors and 1 uids"

    done = crowd.forgets.forget(**wanted, confirm=Confirmation(words))

    assert (done.deleted_visitors, done.absent_visitors, done.deleted_by_uid) == (1, 1, len(gone) - 1)
    assert crowd.visitors() == [v for v in visitors if v["id"] not in gone]
    assert crowd.sessions() == [s for s in before if s["visitorId"] not in gone]
    again = crowd.forgets.forget(**wanted, confirm=Confirmation(words))
    assert (again.deleted_visitors, again.absent_visitors, again.deleted_by_uid) == (0, 2, 0)


def test_forgetting_wants_its_words_and_usable_ids_before_anything_is_deleted(crowd: Project) -> None:
    crowd.sandbox.requests.clear()
    visitor_ids = ["v1"]
    with pytest.raises(ConfigurationError, match="forget 1 visitors and 0 uids"):
        crowd.forgets.forget(visitor_ids=visitor_ids, uids=[], confirm=Confirmation("forget"))
    for uids in (["a,b"], [" "]):
        words = forget_phrase(visitor_ids=visitor_ids, uids=uids)
        with pytest.raises(ConfigurationError, match="comma"):
            crowd.forgets.forget(visitor_ids=visitor_ids, uids=uids, confirm=Confirmation(words))
    with pytest.raises(ConfigurationError):
        crowd.forgets.forget(
            visitor_ids=["v1", "../events/e"], uids=[], confirm=Confirmation("forget 2 visitors and 0 uids")
        )
    assert len(crowd.sandbox.requests) == 0


def test_a_lost_answer_is_asked_for_again(crowd: Project) -> None:
    visitor = crowd.visitors()[0]["id"]
    crowd.sandbox.faults.add("smartlook", "DELETE", fault=faults.status(503))
    words = Confirmation("forget 1 visitors and 0 uids")
    assert crowd.forgets.forget(visitor_ids=[visitor], uids=[], confirm=words).deleted_visitors == 1


def test_writes_are_paid_from_the_same_quota_as_reads(crowd: Project, tmp_path: Path) -> None:
    token = crowd.sandbox.world.sites[0].smartlook_token
    resource = SmartlookResource(api_token=token, base_url=crowd.sandbox.base_urls["smartlook"])
    with Ledger.open(tmp_path / "own.sqlite") as ledger:
        ids = {"plan": "free"}
        with resource.connect(ids, ledger) as reads:
            reads.me()
        with resource.management(ids, ledger, YES) as writes:
            writes.webhooks()
        with resource.erasure(ids, ledger, YES) as forgets:
            forgets.forget(visitor_ids=["nobody"], uids=[], confirm=Confirmation("forget 1 visitors and 0 uids"))
        (usage,) = ledger.usage(account_key("smartlook", token))
        assert usage.used == 3
