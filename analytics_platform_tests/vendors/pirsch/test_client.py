"""The Pirsch client and its streams on the wire, against the sandbox over loopback."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from analytics_platform.core.concurrency import side_by_side
from analytics_platform.core.errors import (
    AuthenticationFailed,
    ConfigurationError,
    MalformedResponse,
    NotFound,
    PlatformError,
    QuotaExhausted,
    VendorReportedError,
    VendorUnavailable,
)
from analytics_platform.core.http import HttpLimits
from analytics_platform.core.paging import Page
from analytics_platform.core.streams import Extraction
from analytics_platform.sandbox import faults
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import World, generate
from analytics_platform.vendors.pirsch.client import PirschClient, StatisticsFilter, call_name
from analytics_platform.vendors.pirsch.streams import STREAMS, extract_daily_stats, report_requests
from analytics_platform.vendors.pirsch.tables import DIMENSIONS

FIRST = date(2026, 10, 5)
STATISTICS = "/api/v1/statistics/"
LIST_METHODS = (
    "visitors", "session_duration", "time_on_page", "hours", "pages", "entry_pages", "exit_pages", "goals", "events",
    "event_list", "keywords", "utm_source", "utm_medium", "utm_campaign", "utm_content", "utm_term", "referrer",
    "language", "country", "city", "os", "os_version", "browser", "browser_version", "screen_class",
)  # fmt: skip
OBJECT_METHODS = ("total", "growth", "active", "platform")


@pytest.fixture(scope="module")
def world() -> World:
    return generate(first_day=FIRST, days=3, scale=0.4)


@pytest.fixture(scope="module")
def running(world: World) -> Iterator[Sandbox]:
    with Sandbox(world) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Iterator[Sandbox]:
    running.faults.clear()
    running.requests.clear()
    yield running
    running.faults.clear()


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[PirschClient]:
    with connected(sandbox) as client:
        yield client


def connected(sandbox: Sandbox, *, secret: str | None = None, meter: Any = None, attempts: int = 1) -> PirschClient:
    environment = sandbox.environment()
    return PirschClient.connect(
        client_id=SecretStr(environment["PIRSCH_CLIENT_ID"]),
        client_secret=SecretStr(secret or environment["PIRSCH_CLIENT_SECRET"]),
        base_url=environment["PIRSCH_BASE_URL"],
        meter=meter,
        limits=HttpLimits(max_attempts=attempts, backoff_base_seconds=0.0),
    )


def domain_of(sandbox: Sandbox) -> str:
    return sandbox.world.sites[0].pirsch_domain_id


def one_day(sandbox: Sandbox, **narrowing: Any) -> StatisticsFilter:
    return StatisticsFilter(domain_id=domain_of(sandbox), first_day=FIRST, last_day=FIRST, **narrowing)


class NoLake:
    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        raise AssertionError("Pirsch streams depend on no table")


def extraction(sandbox: Sandbox, *, days: int = 1, done: frozenset[str] = frozenset(), **ids: str) -> Extraction:
    return Extraction(
        site_key="shop",
        ids=ids or {"domain_id": domain_of(sandbox)},
        timezone="Europe/Berlin",
        first_day=FIRST,
        last_day=FIRST + timedelta(days=days - 1),
        now=sandbox.world.now,
        lake=NoLake(),
        done_calls=done,
    )


# ------------------------------------------------------------------------------------------------------ every method


@pytest.mark.parametrize("method", LIST_METHODS)
def test_every_list(client: PirschClient, sandbox: Sandbox, method: str) -> None:
    page: Page = getattr(client, method)(one_day(sandbox))
    assert page.is_last
    assert page.sequence == 0
    assert page.endpoint.startswith(f"GET {STATISTICS}")
    assert page.context["day"] == "2026-10-05"
    assert page.records == len(json.loads(page.body) or [])


@pytest.mark.parametrize("method", OBJECT_METHODS)
def test_every_object(client: PirschClient, sandbox: Sandbox, method: str) -> None:
    page: Page = getattr(client, method)(one_day(sandbox))
    assert page.records == 1
    assert isinstance(json.loads(page.body), dict)


def test_event_metadata(client: PirschClient, sandbox: Sandbox) -> None:
    listed = json.loads(client.events(one_day(sandbox)).body)
    event = next(row for row in listed if row["meta_keys"])
    page = client.event_metadata(one_day(sandbox, event=event["name"], event_meta_key=event["meta_keys"][0]))
    assert page.records == len(json.loads(page.body)) > 0
    with pytest.raises(ConfigurationError, match="event_meta_key"):
        client.event_metadata(one_day(sandbox, event="x"))


def test_domains(client: PirschClient, sandbox: Sandbox) -> None:
    found = client.domains()
    assert {domain.domain_id for domain in found} == {site.pirsch_domain_id for site in sandbox.world.sites}
    assert found[0].timezone == "Europe/Berlin"
    assert found[0].user_role == "owner"


def test_the_day_series_agrees_with_the_total_of_one_day(client: PirschClient, sandbox: Sandbox) -> None:
    total = json.loads(client.total(one_day(sandbox)).body)
    (row,) = json.loads(client.visitors(one_day(sandbox)).body)
    assert {name: row[name] for name in total} == total
    assert row["day"] == "2026-10-05T00:00:00Z"
    assert total["visitors"] > 0


def test_every_breakdown_says_its_dimension(client: PirschClient, sandbox: Sandbox) -> None:
    for dimension in DIMENSIONS:
        page: Page = getattr(client, dimension)(one_day(sandbox))
        assert (page.call_kind, page.context["dimension"]) == ("breakdown", dimension)
        assert page.call == f"breakdown/{dimension}/2026-10-05"


# ------------------------------------------------------------------------------------------------------------- filter


def test_the_whole_filter_on_the_wire(client: PirschClient, sandbox: Sandbox) -> None:
    query = one_day(
        sandbox,
        path="/a b/ä",
        entry_path="/in",
        exit_path="/out",
        pattern=r"(?i)^\/path/[^\/]+$",
        event="Button clicked",
        event_meta_key="Clicks",
        meta={"amount": "1&2", "kind": "x"},
        language="en",
        country="jp",
        city="London",
        referrer="https://referring-website.com/",
        referrer_name="referring-website.com",
        os="Windows",
        browser="!Firefox",
        platform="desktop",
        screen_class="XXL",
        screen_width="1920",
        screen_height="1080",
        utm_source="Newsletter",
        utm_medium="Email",
        utm_campaign="Summer Sale",
        utm_content="Header",
        utm_term="search terms",
        limit=20,
        include_average_time_on_page=True,
    )
    client.pages(query)
    (record,) = sandbox.requests.records(vendor="pirsch", path="/statistics/page")
    sent = parse_qsl(record.query, keep_blank_values=True)
    assert sent == query.parameters()
    assert dict(sent) == {
        "id": domain_of(sandbox), "from": "2026-10-05", "to": "2026-10-05", "path": "/a b/ä", "entry_path": "/in",
        "exit_path": "/out", "pattern": r"(?i)^\/path/[^\/]+$", "event": "Button clicked", "event_meta_key": "Clicks",
        "meta_amount": "1&2", "meta_kind": "x", "language": "en", "country": "jp", "city": "London",
        "referrer": "https://referring-website.com/", "referrer_name": "referring-website.com", "os": "Windows",
        "browser": "!Firefox", "platform": "desktop", "screen_class": "XXL", "screen_width": "1920",
        "screen_height": "1080", "utm_source": "Newsletter", "utm_medium": "Email", "utm_campaign": "Summer Sale",
        "utm_content": "Header", "utm_term": "search terms", "limit": "20", "include_avg_time_on_page": "true",
    }  # fmt: skip


def test_a_plain_filter_sends_only_what_is_required(client: PirschClient, sandbox: Sandbox) -> None:
    client.hours(one_day(sandbox))
    (record,) = sandbox.requests.records(vendor="pirsch", path="/statistics/hours")
    assert [name for name, _ in parse_qsl(record.query)] == ["id", "from", "to", "limit"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"first_day": FIRST, "last_day": FIRST - timedelta(days=1)},
        {"limit": 0},
        {"limit": 101},
        {"start_seconds": 3601},
        {"start_seconds": 0},
    ],
)
def test_filters_the_vendor_would_misread_are_refused(wrong: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        StatisticsFilter(**{"domain_id": "A", "first_day": FIRST, "last_day": FIRST, **wrong})


TEXT = st.none() | st.text(max_size=8)


@settings(max_examples=60, deadline=None)
@given(
    one=st.fixed_dictionaries({"path": TEXT, "event": TEXT, "utm_source": TEXT}),
    other=st.fixed_dictionaries({"path": TEXT, "event": TEXT, "utm_source": TEXT}),
)
def test_calls_are_the_same_exactly_when_the_questions_are(one: dict[str, Any], other: dict[str, Any]) -> None:
    queries = [StatisticsFilter(domain_id="A", first_day=FIRST, last_day=FIRST, **fields) for fields in (one, other)]
    assert (call_name("page", queries[0]) == call_name("page", queries[1])) == (one == other)


def test_call_names_of_days_and_ranges() -> None:
    day = StatisticsFilter(domain_id="A", first_day=FIRST, last_day=FIRST)
    assert call_name("hours", day) == "hours/2026-10-05"
    assert call_name("visitor", replace(day, last_day=date(2026, 10, 7))) == "visitor/2026-10-05_2026-10-07"


# ------------------------------------------------------------------------------------------------- tokens and refusals


def test_one_token_serves_all_calls(client: PirschClient, sandbox: Sandbox) -> None:
    for _ in range(3):
        client.total(one_day(sandbox))
    assert sandbox.requests.count(vendor="pirsch", path="/token") == 1


def test_a_revoked_token_is_renewed_once(client: PirschClient, sandbox: Sandbox) -> None:
    client.total(one_day(sandbox))
    sandbox.context.token_store("pirsch").revoke_all()
    assert client.total(one_day(sandbox)).records == 1
    assert sandbox.requests.count(vendor="pirsch", path="/token") == 2


def test_an_unknown_domain_looks_like_a_bad_token_and_does_not_loop(client: PirschClient, sandbox: Sandbox) -> None:
    with pytest.raises(AuthenticationFailed, match="domain_id"):
        client.total(replace(one_day(sandbox), domain_id="unknown123"))
    assert sandbox.requests.count(vendor="pirsch", path="/statistics/total") <= 2
    assert sandbox.requests.count(vendor="pirsch", path="/token") <= 2


def test_a_wrong_secret_names_the_variables_and_shows_nothing(sandbox: Sandbox) -> None:
    wrong = "w" * 64
    with connected(sandbox, secret=wrong) as client, pytest.raises(AuthenticationFailed) as caught:
        client.domains()
    assert "PIRSCH_CLIENT_SECRET" in str(caught.value)
    assert wrong not in str(caught.value) + repr(caught.value) + repr(client)


def test_null_is_no_records(client: PirschClient, sandbox: Sandbox) -> None:
    page = client.keywords(one_day(sandbox))
    assert (page.body, page.records) == (b"null", 0)


def answer(sandbox: Sandbox, body: bytes, *, status: int = 200, path: str = "/statistics/") -> None:
    fault = faults.status(status, headers={"content-type": "application/json"}, body=body)
    sandbox.faults.add("pirsch", path, fault=fault, times=1000)


def test_an_error_in_a_200_is_an_error(client: PirschClient, sandbox: Sandbox) -> None:
    answer(sandbox, b'{"validation":{"from":"someone@example.org"},"error":[]}')
    with pytest.raises(VendorReportedError, match="about from") as caught:
        client.visitors(one_day(sandbox))
    assert "someone" not in str(caught.value)


@pytest.mark.parametrize(("method", "body"), [("visitors", b'{"a":1}'), ("visitors", b"3"), ("total", b"[]")])
def test_another_shape_is_malformed(client: PirschClient, sandbox: Sandbox, method: str, body: bytes) -> None:
    answer(sandbox, body)
    with pytest.raises(MalformedResponse):
        getattr(client, method)(one_day(sandbox))


def test_a_missing_endpoint_is_not_found(client: PirschClient, sandbox: Sandbox) -> None:
    answer(sandbox, b'{"validation":{},"error":["not found"]}', status=404)
    with pytest.raises(NotFound):
        client.os_version(one_day(sandbox))


# ------------------------------------------------------------------------------------------------------------ streams


def test_daily_stats_asks_two_series_for_the_range(client: PirschClient, sandbox: Sandbox) -> None:
    pages = list(extract_daily_stats(client, extraction(sandbox, days=3)))
    assert [page.call_kind for page in pages] == ["domain_list", "visitor_series", "duration_series"]
    assert [row["day"][:10] for row in json.loads(pages[1].body)] == ["2026-10-05", "2026-10-06", "2026-10-07"]


def test_daily_stats_say_in_which_zone_the_days_are_cut(client: PirschClient, sandbox: Sandbox) -> None:
    pages = list(extract_daily_stats(client, extraction(sandbox, days=201)))
    (told,) = {page.context["domain_timezone"] for page in pages if page.call != "domain"}
    assert [told] == [domain.timezone for domain in client.domains() if domain.domain_id == domain_of(sandbox)]
    assert sandbox.requests.count(vendor="pirsch", path="/domain") == 2, "once for all pieces, and once above"


@pytest.mark.parametrize(
    ("body", "status"), [(b'[{"id":"another","timezone":"UTC"}]', 200), (b"[]", 200), (b"{}", 403), (b"{}", 404)]
)
def test_a_domain_that_does_not_tell_its_zone_costs_no_figure(
    client: PirschClient, sandbox: Sandbox, body: bytes, status: int
) -> None:
    answer(sandbox, body, status=status, path="/domain")
    pages = list(extract_daily_stats(client, extraction(sandbox, days=3)))
    assert [page.call_kind for page in pages if page.call != "domain"] == ["visitor_series", "duration_series"]
    assert all("domain_timezone" not in page.context for page in pages)


def test_a_long_range_is_asked_in_pieces_the_row_limit_cannot_cut(client: PirschClient, sandbox: Sandbox) -> None:
    asked = [page.call for page in extract_daily_stats(client, extraction(sandbox, days=201))]
    assert [call for call in asked if call.startswith("visitor/")] == [
        "visitor/2026-10-05_2027-01-12",
        "visitor/2027-01-13_2027-04-22",
        "visitor/2027-04-23",
    ]


def reports(client: PirschClient, extraction: Extraction) -> Iterator[Page]:
    """The pages of one day alone."""
    return side_by_side(report_requests(client, extraction), client=client)


def test_reports_ask_each_list_of_the_day_once_in_a_fixed_order(client: PirschClient, sandbox: Sandbox) -> None:
    first = [page.call for page in reports(client, extraction(sandbox))]
    again = [page.call for page in reports(client, extraction(sandbox))]
    assert first == again
    assert len(set(first)) == 21
    assert {call.split("/")[1] for call in first if call.startswith("breakdown/")} == set(DIMENSIONS)
    asked = sandbox.requests.records(vendor="pirsch", path="/statistics/page")
    assert sum("include_avg_time_on_page=true" in record.query for record in asked) == 2


def test_landed_calls_are_not_asked_again(client: PirschClient, sandbox: Sandbox) -> None:
    pages = list(reports(client, extraction(sandbox)))
    sandbox.requests.clear()
    done = frozenset(page.call for page in pages if page.call != "hours/2026-10-05")
    (rest,) = reports(client, extraction(sandbox, done=done))
    assert (rest.call, sandbox.requests.count(vendor="pirsch", path=STATISTICS)) == ("hours/2026-10-05", 1)
    assert list(extract_daily_stats(client, extraction(sandbox, done=frozenset(
        {"visitor/2026-10-05", "duration/session/2026-10-05"})))) == []  # fmt: skip


def test_an_installation_without_os_versions_is_no_failure(
    client: PirschClient, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.faults.add("pirsch", "/os/version", fault=faults.status(404, body=b"{}"))
    with caplog.at_level(logging.INFO, logger="analytics_platform"):
        calls = [page.call for page in reports(client, extraction(sandbox))]
    assert len(calls) == 20
    assert "breakdown/os_version/2026-10-05" not in calls
    assert "os/version" in caplog.text


def test_a_missing_compulsory_list_is_a_failure(client: PirschClient, sandbox: Sandbox) -> None:
    sandbox.faults.add("pirsch", "/page/entry", fault=faults.status(404, body=b"{}"))
    with pytest.raises(NotFound):
        list(reports(client, extraction(sandbox)))


class Allowance:
    """A meter with so many requests (the token call included)."""

    def __init__(self, requests: int) -> None:
        self._lock = threading.Lock()
        self._left = requests

    def acquire(self, *, method: str, endpoint: str) -> None:
        with self._lock:
            if self._left == 0:
                raise QuotaExhausted("nothing left")
            self._left -= 1

    def learn(self, *, method: str, endpoint: str, status: int, retry_after_seconds: float | None) -> None:
        """Nothing to learn."""


def until_error(pages: Iterator[Page]) -> tuple[list[str], Exception | None]:
    """Calls of the pages that came, and what ended them."""
    landed: list[str] = []
    try:
        for page in pages:
            landed.append(page.call)
    except PlatformError as error:
        return landed, error
    return landed, None


def test_pages_paid_for_are_yielded_before_the_quota_stops_the_day(sandbox: Sandbox) -> None:
    with connected(sandbox, meter=Allowance(13)) as client:
        landed, error = until_error(reports(client, extraction(sandbox)))
    assert isinstance(error, QuotaExhausted)
    assert sandbox.requests.count(vendor="pirsch", path=STATISTICS) == len(landed) == 12


def test_a_failure_starts_no_further_request(client: PirschClient, sandbox: Sandbox) -> None:
    sandbox.faults.add("pirsch", "/statistics/page?", fault=faults.status(503))
    landed, error = until_error(reports(client, extraction(sandbox)))
    assert isinstance(error, VendorUnavailable)
    assert sandbox.requests.count(vendor="pirsch", path=STATISTICS) <= 8
    assert len(landed) == sandbox.requests.count(vendor="pirsch", path=STATISTICS, status=200)


def test_a_consumer_that_stops_leaves_nothing_running(client: PirschClient, sandbox: Sandbox) -> None:
    pages = reports(client, extraction(sandbox))
    next(pages)
    pages.close()  # type: ignore[attr-defined]
    assert sandbox.requests.count(vendor="pirsch", path=STATISTICS) <= 8
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pirsch")]


def test_a_site_without_a_domain_is_told_so(client: PirschClient, sandbox: Sandbox) -> None:
    with pytest.raises(ConfigurationError, match="domain_id"):
        list(reports(client, extraction(sandbox, other="x")))


def test_streams_name_their_tables() -> None:
    assert {stream.name: [spec.name for spec in stream.tables] for stream in STREAMS} == {
        "daily_stats": ["daily_stats"],
        "reports": ["hourly", "pages", "breakdowns", "events", "goals"],
    }
    assert {stream.lookback_days for stream in STREAMS} == {3}
