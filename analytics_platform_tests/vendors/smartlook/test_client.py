"""The Smartlook client over a real socket: paging, cursors, polling, refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

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
    RateLimited,
    TransientVendorError,
)
from analytics_platform.core.paging import Page
from analytics_platform.sandbox import faults
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import World, generate
from analytics_platform.vendors.smartlook.client import Filter, SmartlookClient

FIRST = date(2026, 10, 5)
LAST = FIRST + timedelta(days=3)
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def world() -> World:
    return generate(seed=7, first_day=FIRST, days=4, scale=1.0)


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
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 10, 9, 12, tzinfo=UTC))


@pytest.fixture
def client(sandbox: Sandbox, world: World, clock: ManualClock) -> Iterator[SmartlookClient]:
    with SmartlookClient.connect(
        base_url=sandbox.base_urls["smartlook"], token=SecretStr(world.sites[0].smartlook_token), clock=clock
    ) as opened:
        yield opened


def recorded_from(first: date, last: date) -> tuple[Filter, Filter]:
    return (
        Filter(name="recording_date", operator="after", value=(first - timedelta(days=1)).isoformat()),
        Filter(name="recording_date", operator="before", value=(last + timedelta(days=1)).isoformat()),
    )


def entries(pages: list[Page], field: str) -> list[dict[str, object]]:
    return [entry for page in pages for entry in json.loads(page.body)[field]]


def test_a_search_is_walked_to_its_end_by_reposting_the_link(client: SmartlookClient, sandbox: Sandbox) -> None:
    pages = list(client.search_sessions(recorded_from(FIRST, LAST), call="sessions"))

    sessions = entries(pages, "sessions")
    total = json.loads(pages[0].body)["totalSessionsCount"]
    assert len(sessions) == total > 100
    assert len({s["id"] for s in sessions}) == total
    assert [s["startedAt"] for s in sessions] == sorted(str(s["startedAt"]) for s in sessions)
    assert [page.sequence for page in pages] == list(range(len(pages)))
    assert [page.is_last for page in pages] == [False] * (len(pages) - 1) + [True]
    assert {page.call_kind for page in pages} == {"session_search"}
    assert [page.records for page in pages] == [len(json.loads(page.body)["sessions"]) for page in pages]
    assert sandbox.requests.count(vendor="smartlook") == len(pages)


def test_nothing_is_sent_before_the_first_page_is_taken_nor_ahead_of_the_reader(
    client: SmartlookClient, sandbox: Sandbox
) -> None:
    walk = client.search_sessions(recorded_from(FIRST, LAST), call="sessions")
    assert sandbox.requests.count(vendor="smartlook") == 0
    next(walk)
    assert sandbox.requests.count(vendor="smartlook") == 1


def test_visitors_are_searched_in_version_2(client: SmartlookClient, sandbox: Sandbox) -> None:
    seen = Filter(name="user_first_seen", operator="in_range", value=(FIRST.isoformat(), LAST.isoformat()))
    pages = list(client.search_visitors([seen], call="visitors"))
    visitors = entries(pages, "visitors")
    assert len(visitors) == json.loads(pages[0].body)["totalVisitorsCount"] > 0
    assert sandbox.requests.count(vendor="smartlook", path="/api/v2/visitors/search") >= 1


def test_a_link_to_another_host_is_refused_and_nothing_is_sent_there(client: SmartlookClient, sandbox: Sandbox) -> None:
    sandbox.faults.add("smartlook", "sessions/search", fault=faults.foreign_link())
    with pytest.raises(ForeignOrigin):
        list(client.search_sessions(recorded_from(FIRST, LAST), call="sessions"))
    assert sandbox.requests.count(vendor="smartlook") == 1


def test_a_cursor_that_leads_back_ends_the_walk(client: SmartlookClient, sandbox: Sandbox) -> None:
    sandbox.faults.add("smartlook", "sessions/search", fault=faults.cursor_loop(), times=50)
    with pytest.raises(PageLoop):
        list(client.search_sessions(recorded_from(FIRST, LAST), call="sessions"))


def test_an_expired_cursor_is_named_as_such(client: SmartlookClient, sandbox: Sandbox) -> None:
    refusal = faults.status(400, headers=JSON, body='{"error":"Bad Request","message":"Invalid or expired cursor"}')
    sandbox.faults.add("smartlook", "sessions/search", nth=2, fault=refusal)
    with pytest.raises(CursorExpired):
        list(client.search_sessions(recorded_from(FIRST, LAST), call="sessions"))


def test_a_search_without_its_list_is_not_zero_rows(client: SmartlookClient, sandbox: Sandbox) -> None:
    sandbox.faults.add("smartlook", "sessions/search", fault=faults.status(200, headers=JSON, body="{}"))
    with pytest.raises(MalformedResponse, match="sessions"):
        list(client.search_sessions(recorded_from(FIRST, LAST), call="sessions"))


def test_a_null_list_is_zero_rows(client: SmartlookClient, sandbox: Sandbox) -> None:
    sandbox.faults.add("smartlook", "sessions/search", fault=faults.status(200, headers=JSON, body='{"sessions":null}'))
    (page,) = client.search_sessions(recorded_from(FIRST, LAST), call="sessions")
    assert page.records == 0
    assert page.is_last


def test_the_vendors_own_count_grows_by_what_we_sent(client: SmartlookClient) -> None:
    before = client.statistics()
    assert client.me().project_id is not None
    after = client.statistics()
    assert before.project_requests is not None
    assert after.project_requests == before.project_requests + 1
    assert sum(after.requests_by_endpoint.values()) == after.project_requests


def test_a_wrong_token_names_the_variable_and_not_the_token(sandbox: Sandbox) -> None:
    token = "wrong-token-4f1c"
    with (
        SmartlookClient.connect(
            base_url=sandbox.base_urls["smartlook"], token=SecretStr(token), variable="SMARTLOOK_API_TOKEN_BLOG"
        ) as stranger,
        pytest.raises(AuthenticationFailed) as caught,
    ):
        stranger.me()
    assert "SMARTLOOK_API_TOKEN_BLOG" in str(caught.value)
    assert token not in str(caught.value)


def test_a_long_429_says_when_to_come_back(client: SmartlookClient, sandbox: Sandbox, clock: ManualClock) -> None:
    refusal = faults.status(429, headers={**JSON, "X-RetryAfter": "1800"}, body='{"error":"Too Many Requests"}')
    sandbox.faults.add("smartlook", "sessions/search", fault=refusal)
    with pytest.raises(RateLimited) as caught:
        next(client.search_sessions(recorded_from(FIRST, LAST), call="sessions"))
    assert caught.value.resume_at == clock.now() + timedelta(seconds=1800)
    assert clock.slept == ()


def test_every_event_has_a_histogram_of_the_range(client: SmartlookClient) -> None:
    definitions = entries(list(client.events()), "events")
    assert definitions
    for definition in definitions:
        event_id = str(definition["id"])
        page = client.event(event_id, first_day=FIRST, last_day=LAST, call=f"event/{event_id}")
        histogram = json.loads(page.body)["event"]["occurrenceHistogram"]
        assert page.records == len(histogram)
        assert {str(bar["date"])[:10] for bar in histogram} <= {
            (FIRST + timedelta(days=n)).isoformat() for n in range(4)
        }


def test_events_of_a_visitor_are_read_to_the_last_page(client: SmartlookClient) -> None:
    sessions = entries(list(client.search_sessions(recorded_from(FIRST, LAST), call="s")), "sessions")
    visitor_id = str(sessions[0]["visitorId"])
    pages = list(
        client.visitor_events(visitor_id, first_day=FIRST, last_day=LAST, call="v", context={"sample_rate": "1"})
    )
    events = entries(pages, "events")
    assert events
    assert {event["visitorId"] for event in events} == {visitor_id}
    assert pages[-1].is_last
    assert pages[0].context == {"sample_rate": "1"}


def test_a_funnel_is_asked_until_it_is_finished(client: SmartlookClient, sandbox: Sandbox, clock: ManualClock) -> None:
    funnel_id = str(entries(list(client.funnels()), "funnels")[0]["id"])
    pending = '{"computation":{"isFinished":false,"finishedProgress":0.5,"nextAttemptDelay":4},"funnel":{"id":"x"}}'
    sandbox.faults.add(
        "smartlook", f"funnels/{funnel_id}", times=2, fault=faults.status(200, headers=JSON, body=pending)
    )
    page = client.funnel(funnel_id, first_day=FIRST, last_day=FIRST, call="f")
    assert clock.slept == (4.0, 4.0)
    assert page.attempts == 3
    assert page.context == {"day": "2026-10-05"}
    assert page.records == len(json.loads(page.body)["funnel"]["steps"]) >= 2


def test_a_funnel_that_never_finishes_is_transient(
    client: SmartlookClient, sandbox: Sandbox, clock: ManualClock
) -> None:
    pending = '{"computation":{"isFinished":false,"nextAttemptDelay":500000},"funnel":{"id":"x"}}'
    sandbox.faults.add("smartlook", "funnels/abc", times=99, fault=faults.status(200, headers=JSON, body=pending))
    with pytest.raises(TransientVendorError):
        client.funnel("abc", first_day=FIRST, last_day=FIRST, call="f")
    assert max(clock.slept) <= 30
    assert sandbox.requests.count(vendor="smartlook") == 10


def test_ids_cannot_leave_their_path_segment(client: SmartlookClient, sandbox: Sandbox) -> None:
    with pytest.raises(ConfigurationError):
        client.event("../visitors", first_day=FIRST, last_day=LAST, call="e")
    assert sandbox.requests.count(vendor="smartlook") == 0
