"""The Inspectlet client over a real socket: both envelopes, paging without a total, refusals and what they mean."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from analytics_platform.core.errors import (
    AuthenticationFailed,
    ConfigurationError,
    MalformedResponse,
    PageLoop,
    PermissionDenied,
    RateLimited,
    VendorReportedError,
)
from analytics_platform.core.paging import Page
from analytics_platform.sandbox import faults
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import World, generate
from analytics_platform.vendors.inspectlet.client import InspectletClient, SessionSearch, _records

FIRST = date(2026, 10, 5)
JSON = {"content-type": "application/json"}
WHOLE = SessionSearch(start=datetime(2026, 10, 1, tzinfo=UTC), end=datetime(2026, 10, 20, tzinfo=UTC))


@pytest.fixture(scope="module")
def world() -> World:
    return generate(seed=7, first_day=FIRST, days=3, scale=1.0)


@pytest.fixture(scope="module")
def running(world: World) -> Iterator[Sandbox]:
    with Sandbox(world, vendors=("inspectlet",)) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Iterator[Sandbox]:
    running.faults.clear()
    running.requests.clear()
    yield running
    running.faults.clear()


def connect(sandbox: Sandbox, *, token: str | None = None) -> InspectletClient:
    secret = sandbox.context.credentials
    return InspectletClient.connect(
        base_url=sandbox.base_urls["inspectlet"],
        username=SecretStr(secret.inspectlet_username),
        api_token=SecretStr(token or secret.inspectlet_api_token),
    )


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[InspectletClient]:
    with connect(sandbox) as opened:
        yield opened


@pytest.fixture
def wid(world: World) -> str:
    return str(world.sites[0].wid)


def sessions_of(pages: list[Page]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for page in pages:
        response = json.loads(page.body)["response"]
        found += response["sessions"] if isinstance(response, dict) else response
    return found


def test_pages_are_asked_for_until_one_is_short(client: InspectletClient, sandbox: Sandbox, wid: str) -> None:
    pages = list(client.search_sessions(wid, WHOLE, call="s"))
    sessions = sessions_of(pages)
    assert [page.records for page in pages[:-1]] == [100] * (len(pages) - 1)
    assert 0 < pages[-1].records < 100
    assert [page.is_last for page in pages] == [False] * (len(pages) - 1) + [True]
    assert len({s["sid"] for s in sessions}) == len(sessions) > 200
    assert sandbox.requests.count(vendor="inspectlet") == len(pages)


@pytest.mark.parametrize("envelope", ["sessions", "bare"])
def test_both_envelopes_hold_the_same_sessions(world: World, wid: str, envelope: str) -> None:
    with (
        Sandbox(world, profiles={"inspectlet": {"envelope": envelope}}, vendors=("inspectlet",)) as sandbox,
        connect(sandbox) as client,
    ):
        pages = list(client.search_sessions(wid, WHOLE, call="s"))
        response = json.loads(pages[0].body)["response"]
        assert isinstance(response, dict if envelope == "sessions" else list)
        assert sum(page.records for page in pages) == len(sessions_of(pages)) > 200


def test_a_window_holds_the_sessions_that_began_in_it(client: InspectletClient, wid: str) -> None:
    start = datetime(2026, 10, 6, tzinfo=UTC)
    everything = sessions_of(list(client.search_sessions(wid, WHOLE, call="a")))
    of_day = sessions_of(
        list(client.search_sessions(wid, SessionSearch(start=start, end=start + timedelta(days=1)), call="b"))
    )
    begun = {
        s["sid"]
        for s in everything
        if start.timestamp() <= int(str(s["date_start_session"])) < start.timestamp() + 86_400
    }
    assert begun
    assert begun <= {s["sid"] for s in of_day}


def test_the_list_of_websites_and_one_session(client: InspectletClient, world: World, wid: str) -> None:
    page = client.websites(context={"day": "2026-10-05", "wid": wid})
    assert page.records == len(world.sites)
    assert page.is_last
    newest = sessions_of(list(client.search_sessions(wid, WHOLE, call="s")))[0]
    single = client.session(wid, str(newest["sid"]), call="one")
    assert single.records == 1


def test_a_website_that_is_not_ours_is_named_as_such(client: InspectletClient, sandbox: Sandbox) -> None:
    with pytest.raises(PermissionDenied, match="not for this website"):
        list(client.search_sessions("99999999", WHOLE, call="s"))
    assert sandbox.requests.count(vendor="inspectlet") == 2


def test_a_wrong_token_names_both_variables_and_no_value(sandbox: Sandbox, wid: str) -> None:
    with connect(sandbox, token="wrong-token-77aa") as stranger, pytest.raises(AuthenticationFailed) as caught:
        list(stranger.search_sessions(wid, WHOLE, call="s"))
    text = str(caught.value)
    assert "INSPECTLET_USERNAME" in text
    assert "INSPECTLET_API_TOKEN" in text
    assert "wrong-token-77aa" not in text
    assert sandbox.context.credentials.inspectlet_username not in text


def test_an_error_inside_a_200_is_an_error_and_is_redacted(
    client: InspectletClient, sandbox: Sandbox, wid: str
) -> None:
    body = '{"error":{"message":"no plan for bob@example.com"},"response":[]}'
    sandbox.faults.add("inspectlet", "/sessions", fault=faults.status(200, headers=JSON, body=body))
    with pytest.raises(VendorReportedError, match="no plan") as caught:
        list(client.search_sessions(wid, WHOLE, call="s"))
    assert "bob@example.com" not in str(caught.value)


def test_a_429_is_a_wait_not_a_failure(client: InspectletClient, sandbox: Sandbox, wid: str) -> None:
    refusal = faults.status(429, headers={**JSON, "Retry-After": "900"}, body='{"error":"slow down"}')
    sandbox.faults.add("inspectlet", "/sessions", fault=refusal)
    with pytest.raises(RateLimited):
        list(client.search_sessions(wid, WHOLE, call="s"))


def test_a_page_that_comes_again_ends_the_walk(client: InspectletClient, sandbox: Sandbox, wid: str) -> None:
    sessions = json.dumps({"response": {"sessions": [{"sid": n} for n in range(100)]}})
    sandbox.faults.add("inspectlet", "/sessions", times=9, fault=faults.status(200, headers=JSON, body=sessions))
    with pytest.raises(PageLoop):
        list(client.search_sessions(wid, WHOLE, call="s"))


def test_a_search_survives_a_reset_because_it_only_reads(client: InspectletClient, sandbox: Sandbox, wid: str) -> None:
    sandbox.faults.add("inspectlet", "/sessions", fault=faults.reset())
    pages = list(client.search_sessions(wid, WHOLE, call="s"))
    assert pages[0].attempts == 2
    assert pages[-1].is_last


@given(
    st.one_of(
        st.none(),
        st.lists(st.fixed_dictionaries({"sid": st.integers()})),
        st.fixed_dictionaries(
            {"sessions": st.one_of(st.none(), st.lists(st.fixed_dictionaries({"sid": st.integers()})))}
        ),
        st.fixed_dictionaries({"sid": st.integers()}),
        st.just({}),
    )
)
def test_every_envelope_seen_or_documented_is_counted(response: object) -> None:
    inner = response.get("sessions", response) if isinstance(response, dict) else response
    expected = len(inner) if isinstance(inner, list) else (1 if isinstance(inner, dict) and inner else 0)
    assert len(_records({"response": response}, "e")) == expected


@pytest.mark.parametrize("body", [[], {}, {"response": "none"}, {"sessions": []}, "x"])
def test_an_answer_without_a_list_is_not_zero_rows(body: object) -> None:
    with pytest.raises(MalformedResponse):
        _records(body, "e")


def test_the_search_is_json_in_a_form_with_seconds_as_text() -> None:
    search = SessionSearch(start=datetime(2026, 10, 5, tzinfo=UTC), end=datetime(2026, 10, 6, tzinfo=UTC))
    assert json.loads(search.form_value()) == {
        "daterange": "custom",
        "daterangecustom": {"start": "1791158400", "end": "1791244800"},
    }


def test_a_user_name_with_a_colon_cannot_be_sent() -> None:
    with pytest.raises(ConfigurationError, match="INSPECTLET_USERNAME"):
        InspectletClient.connect(username=SecretStr("a:b@example.com"), api_token=SecretStr("t"))
