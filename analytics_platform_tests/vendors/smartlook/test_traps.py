"""The sixteen traps of the Smartlook document (contract Smartlook §1.4), one test each, by their numbers.

Belongs here: what the naive reading of the document would do wrong, on the wire. Does not belong here: traps nobody
numbered, which have their tests where their code is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.errors import (
    AuthenticationFailed,
    ConfigurationError,
    CursorExpired,
    ForeignOrigin,
    MalformedResponse,
    PageLoop,
    QuotaExhausted,
)
from analytics_platform.core.paging import Page
from analytics_platform.core.quota import Ledger
from analytics_platform.core.tables import Sensitivity
from analytics_platform.sandbox import faults
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import World, generate
from analytics_platform.vendors.smartlook import streams
from analytics_platform.vendors.smartlook.client import Filter, Paging, SmartlookClient, cursors_of, region_url
from analytics_platform.vendors.smartlook.resource import SmartlookResource
from analytics_platform.vendors.smartlook.tables import EVENT_DAILY, EVENTS, SESSIONS, TABLES, VISITORS

FIRST = date(2026, 10, 5)
EVER = Filter(name="recording_date", operator="after", value="2000-01-01")
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def world() -> World:
    return generate(first_day=FIRST, days=2, scale=0.2)


@pytest.fixture(scope="module")
def running(world: World) -> Iterator[Sandbox]:
    with Sandbox(world, vendors=("smartlook",)) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Iterator[Sandbox]:
    running.faults.clear()
    running.requests.clear()
    yield running
    running.faults.clear()


@pytest.fixture
def client(sandbox: Sandbox, world: World) -> Iterator[SmartlookClient]:
    with connect(sandbox, world) as opened:
        yield opened


def connect(sandbox: Sandbox, world: World) -> SmartlookClient:
    return SmartlookClient.connect(
        base_url=sandbox.base_urls["smartlook"],
        token=SecretStr(world.sites[0].smartlook_token),
        clock=ManualClock(datetime(2026, 10, 20, tzinfo=UTC)),
    )


def rows(pages: Iterator[Page], name: str) -> list[dict[str, Any]]:
    return [entry for page in pages for entry in json.loads(page.body)[name]]


def asked(sandbox: Sandbox) -> list[tuple[str, str, str]]:
    return [(r.method, r.path, r.query) for r in sandbox.requests.records(vendor="smartlook")]


def answer(sandbox: Sandbox, body: object, *, route: str = "GET /api/v1/events") -> None:
    """The next answer of the route is this body."""
    text = body if isinstance(body, str) else json.dumps(body)
    sandbox.faults.add("smartlook", route, fault=faults.status(200, headers=JSON, body=text))


SAMPLE = """{
...data,
"pagination": {
"before": "MTaxX34=",
"after": "HellOW0rLD",
}
"_links": {
"nextPage": "/api/events?after=HellOW0rLD&limit=10",
"previousPage": "/api/events?before=MTaxX34=&limit=10"
}
}"""


@pytest.mark.parametrize("body", [SAMPLE, SAMPLE.replace("...data,", '"events": [],'), '{"events": [],}'])
def test_trap_01_the_sample_json_is_invalid(client: SmartlookClient, sandbox: Sandbox, body: str) -> None:
    answer(sandbox, body)
    with pytest.raises(MalformedResponse):
        list(client.events())


def test_trap_02_links_are_relative_to_the_origin(client: SmartlookClient, sandbox: Sandbox) -> None:
    list(client.events(paging=Paging(limit=3)))
    assert {path for _, path, _ in asked(sandbox)} == {"/api/v1/events", "/api/events"}
    # A link of a query alone refers to the list it came with (RFC 3986 §5.2.2).
    sandbox.requests.clear()
    answer(sandbox, {"events": [{"id": "e"}], "_links": {"nextPage": "?limit=100"}})
    assert len(rows(client.events(), "events")) > 1
    assert asked(sandbox) == [("GET", "/api/v1/events", "limit=100")] * 2
    sandbox.requests.clear()
    for link in (
        "//evil.example/api/events?after=a",
        "https://evil.example/api/events?after=a",
        "http://[::1/api/events",
    ):
        answer(sandbox, {"events": [{"id": "e"}], "_links": {"nextPage": link}})
        with pytest.raises(ForeignOrigin):
            list(client.events())
    assert len(asked(sandbox)) == 3


def test_trap_03_links_drop_the_version_and_are_followed_as_they_are(client: SmartlookClient, sandbox: Sandbox) -> None:
    list(client.search_sessions((EVER,), call="s", paging=Paging(limit=40)))
    first, *others = asked(sandbox)
    assert first[:2] == ("POST", "/api/v1/sessions/search")
    assert others
    assert {call[:2] for call in others} == {("POST", "/api/sessions/search")}
    sandbox.requests.clear()
    # Without a version, yes; to another endpoint, which could open or change something, no.
    for link in ("/api/v1/sessions/s1/public-link", "/api/v1/webhooks?after=a", "/api/v1/events/../me"):
        answer(sandbox, {"events": [{"id": "e"}], "_links": {"nextPage": link}})
        with pytest.raises(ForeignOrigin):
            list(client.events())
    assert len(asked(sandbox)) == 3


def test_trap_04_cursors_are_opaque_and_encoded_once(client: SmartlookClient, sandbox: Sandbox) -> None:
    answer(sandbox, {"events": [{"id": "e"}], "_links": {"nextPage": "/api/events?after=MTaxX34=&limit=10"}})
    with pytest.raises(CursorExpired):  # the sandbox never gave out this one
        list(client.events())
    assert asked(sandbox)[-1] == ("GET", "/api/events", "after=MTaxX34=&limit=10")
    with pytest.raises(CursorExpired):
        list(client.events(paging=Paging(after="a+b/c=")))
    assert asked(sandbox)[-1][2] == "limit=100&after=a%2Bb%2Fc%3D"
    assert "MTaxX34" not in repr(Paging(after="MTaxX34="))
    page = next(client.events(paging=Paging(limit=2)))
    assert str(cursors_of(page).after) not in repr(cursors_of(page))


def test_trap_05_a_dead_cursor_goes_on_from_a_date(client: SmartlookClient, sandbox: Sandbox, world: World) -> None:
    refusal = faults.status(400, headers=JSON, body='{"error":"Bad Request","message":"Invalid or expired cursor"}')
    sandbox.faults.add("smartlook", "sessions/search", nth=2, fault=refusal)
    wanted: Any = SimpleNamespace(
        first_day=world.first_day - timedelta(days=1),
        last_day=world.last_day + timedelta(days=1),
        ids={},
        done_calls=frozenset(),
        interrupted={},
    )
    short_pages: Any = SimpleNamespace(search_sessions=partial(client.search_sessions, paging=Paging(limit=40)))
    found = rows(streams.extract_sessions(short_pages, wanted), "sessions")
    everything = rows(client.search_sessions((EVER,), call="s"), "sessions")
    assert {s["id"] for s in found} == {s["id"] for s in everything}
    begun = [query for _, path, query in asked(sandbox) if path == "/api/v1/sessions/search" and "after" not in query]
    # Begun, the day of the cut from its other end, the days before it, and our own comparison.
    assert len(begun) == 4


def test_trap_06_there_is_only_one_cursor(client: SmartlookClient, sandbox: Sandbox, world: World) -> None:
    with pytest.raises(ConfigurationError, match="only one cursor"):
        Paging(after="a", before="b")
    headers = {"authorization": f"Bearer {world.sites[0].smartlook_token}"}
    url = f"{sandbox.base_urls['smartlook']}/api/v1/events?after=a&before=b"
    assert httpx.get(url, headers=headers, trust_env=False).status_code == 400


@pytest.mark.parametrize("end", ["absent", "null", "empty"])
def test_trap_07_the_end_of_a_list_has_many_looks(world: World, end: str) -> None:
    with (
        Sandbox(world, profiles={"smartlook": {"last_page_link": end}}, vendors=("smartlook",)) as other,
        connect(other, world) as client,
    ):
        pages = list(client.events(paging=Paging(limit=4)))
        assert [page.is_last for page in pages] == [False] * (len(pages) - 1) + [True]
        assert sum(page.records for page in pages) == json.loads(pages[0].body)["totalCount"]
        for fault in (faults.empty_pages(), faults.cursor_loop()):
            other.faults.add("smartlook", "/events", fault=fault, times=99)
            with pytest.raises(PageLoop):
                list(client.events(paging=Paging(limit=4)))
            other.faults.clear()


def test_trap_08_before_is_the_start_of_this_page(client: SmartlookClient, sandbox: Sandbox) -> None:
    pages = list(client.events(paging=Paging(limit=3)))
    assert len(pages) >= 3
    assert not [query for _, _, query in asked(sandbox) if "before=" in query]
    # Asked with `before`, the walk goes back to the first page and ends there.
    back = list(client.events(paging=Paging(limit=3, before=cursors_of(pages[2]).before)))
    assert [rows(iter((page,)), "events") for page in back] == [
        rows(iter((page,)), "events") for page in (pages[1], pages[0])
    ]


def test_trap_09_statistics_is_documented_without_version_or_shape(client: SmartlookClient, sandbox: Sandbox) -> None:
    assert client.statistics(versioned=False).project_requests is not None
    assert asked(sandbox) == [("GET", "/api/statistics", "")]
    for body in ({}, {"projectUsage": None, "endpointsUsage": []}, {"projectUsage": "many"}):
        answer(sandbox, body, route="statistics")
        usage = client.statistics()
        assert (usage.project_requests, usage.requests_by_endpoint) == (None, {})


def test_trap_10_twenty_requests_an_hour_outlive_the_process(sandbox: Sandbox, world: World, tmp_path: Path) -> None:
    resource = SmartlookResource(api_token=world.sites[0].smartlook_token, base_url=sandbox.base_urls["smartlook"])
    clock = ManualClock(datetime(2026, 10, 20, tzinfo=UTC))
    for sent_before in (0, 20):
        with (
            Ledger.open(tmp_path / "ledger.sqlite", clock) as ledger,
            resource.connect({"plan": "free"}, ledger) as free,
        ):
            for _ in range(20 - sent_before):
                free.me()
            with pytest.raises(QuotaExhausted) as caught:
                free.me()
            assert caught.value.resume_at is not None
            assert timedelta(0) < caught.value.resume_at - clock.now() <= timedelta(hours=1, minutes=1)
    assert len(asked(sandbox)) == 20


def test_trap_11_events_are_definitions_not_occurrences(client: SmartlookClient) -> None:
    definitions = rows(client.events(), "events")
    assert {name for event in definitions for name in event} == {"id", "name", "categoryId", "categoryName", "_links"}
    assert len({event["id"] for event in definitions}) == len(definitions)
    assert not [table.name for table in TABLES if "event_list" in table.calls]
    assert (EVENT_DAILY.calls, EVENTS.calls) == (("event_histogram",), ("visitor_events",))


def test_trap_12_the_same_field_has_several_types_and_the_total_several_names(client: SmartlookClient) -> None:
    (sessions,) = client.search_sessions((EVER,), call="s", paging=Paging(limit=100))
    session = json.loads(sessions.body)["sessions"][0]
    visitor = session["visitorId"]
    pages = {
        "totalSessionsCount": sessions,
        "totalVisitorsCount": next(client.search_visitors((EVER,), call="v")),
        "totalCount": next(client.visitor_sessions(visitor)),
        None: next(client.visitor_events(visitor)),
    }
    for total, page in pages.items():
        parsed = json.loads(page.body)
        assert [name for name in parsed if name.startswith("total")] == ([total] if total else [])
        assert page.records == sum(len(value) for value in parsed.values() if isinstance(value, list))
    event = json.loads(pages[None].body)["events"][0]
    assert isinstance(session["pageUrl"], list)
    assert isinstance(event["pageUrl"], str)
    known = json.loads(pages["totalVisitorsCount"].body)["visitors"][0]["identification"]["properties"]
    assert (type(known), type(session["identification"]["properties"])) == (list, dict)
    # Both are declared without a type, so neither stops a decode.
    assert {spec.wire["pageUrl"] for spec in (SESSIONS, EVENTS)} == {"JSON"}
    assert "properties JSON" in VISITORS.wire["identification"]


@pytest.mark.parametrize(
    ("field", "filter_name"),
    [
        ("startedAt", "recording_date"),
        ("duration", "session_duration"),
        ("referrer", "source_referer"),
        ("source_referrer", "source_referer"),
        ("exitPage", "exit_url"),
    ],
)
def test_trap_13_filters_are_not_named_like_the_fields(
    client: SmartlookClient, sandbox: Sandbox, field: Any, filter_name: str
) -> None:
    with pytest.raises(ConfigurationError, match=filter_name):
        client.search_sessions((Filter(name=field, operator="is", value="x"),), call="s")
    assert asked(sandbox) == []
    (page,) = client.search_sessions((EVER,), call="s", order="desc")
    starts = [session["startedAt"] for session in json.loads(page.body)["sessions"]]
    assert starts == sorted(starts, reverse=True)  # sorted by `timeStart`, a name no session has


def test_trap_14_a_dead_token_is_told_once_and_never_sent_in_clear(sandbox: Sandbox) -> None:
    dead = SmartlookClient.connect(
        base_url=sandbox.base_urls["smartlook"], token=SecretStr("idle-for-91-days"), variable="SMARTLOOK_TOKEN_BLOG"
    )
    with dead, pytest.raises(AuthenticationFailed, match=r"SMARTLOOK_TOKEN_BLOG.*expired.*region") as caught:
        dead.me()
    assert "idle-for-91-days" not in str(caught.value)
    assert len(asked(sandbox)) == 1
    with pytest.raises(ConfigurationError, match="https"):
        SmartlookClient.connect(base_url="http://api.eu.smartlook.cloud", token=SecretStr("t0ken"))
    readme = Path(streams.__file__).with_name("README.md").read_text(encoding="utf-8")
    assert "90 idle days" in readme


def test_trap_15_the_curl_sample_and_the_limits_mean_what_they_cannot_say(
    client: SmartlookClient, sandbox: Sandbox
) -> None:
    next(client.events())
    (record,) = sandbox.requests.records(vendor="smartlook")
    assert (record.method, record.path, record.authorization_seen) == ("GET", "/api/v1/events", True)
    assert region_url("eu") + record.path == "https://api.eu.smartlook.cloud/api/v1/events"
    assert streams.PLANS == {"free": 20, "paid": 100, "addon": 1000}


def test_trap_16_people_and_capabilities_are_marked_and_never_shown(client: SmartlookClient, sandbox: Sandbox) -> None:
    columns = {(table.name, column.name): column for table in TABLES for column in table.columns}
    for name in ("uid", "email", "user_agent", "city"):
        assert columns["sessions", name].sensitivity is Sensitivity.PERSONAL
    assert columns["events", "properties_json"].sensitivity is Sensitivity.PERSONAL
    assert columns["sessions", "dashboard_url"].sensitivity is Sensitivity.SECRET
    # IP, note texts and public links have no column at all.
    assert not [
        c.name for c in columns.values() if re.search(r"ip\b|visitorIp|notes?\.text|public", f"{c.name} {c.expr}")
    ]
    (page,) = client.search_sessions((EVER,), call="s")
    person = json.loads(page.body)["sessions"][0]["identification"]
    assert person["visitorIp"] not in repr(page)
    assert person["visitorIp"] not in repr(Filter(name="location_ip", operator="is", value=person["visitorIp"]))
    words = f'{{"message":"nobody at {person["visitorIp"]} called kim@example.org"}}'
    sandbox.faults.add("smartlook", "sessions/search", fault=faults.status(403, headers=JSON, body=words))
    with pytest.raises(Exception, match="nobody at") as caught:
        list(client.search_sessions((EVER,), call="s"))
    assert person["visitorIp"] not in str(caught.value)
    assert "kim@example.org" not in str(caught.value)


def test_every_trap_has_its_number() -> None:
    numbers = sorted({int(name.split("_")[2]) for name in globals() if name.startswith("test_trap_")})
    assert numbers == list(range(1, 17))
