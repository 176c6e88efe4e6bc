"""Running people searches: two hosts and no third, polling within a budget, and what the vendor means by time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.endpoints import endpoints_of
from analytics_platform.core.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ForeignOrigin,
    MalformedResponse,
    NotFound,
    RequestRejected,
    VendorReportedError,
    VendorUnavailable,
)
from analytics_platform.core.http import HttpLimits
from analytics_platform.core.opt_in import WriteOptIn
from analytics_platform.sandbox import faults
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import World, generate
from analytics_platform.vendors.kissmetrics.client import KissmetricsClient, Link, records_of
from analytics_platform.vendors.kissmetrics.queries import (
    FinishedQuery,
    KissmetricsQueries,
    QueryRun,
    columns_of,
    instant_of,
    people_of,
)

JSON = {"content-type": "application/json"}
OPT_IN = WriteOptIn(vendor="kissmetrics", reason="test_queries")
PACIFIC = ZoneInfo("America/Los_Angeles")
START = datetime(2026, 10, 5, tzinfo=UTC)
END = datetime(2026, 10, 8, tzinfo=UTC)


@pytest.fixture(scope="module")
def world() -> World:
    return generate(seed=7, first_day=date(2026, 10, 5), days=3, scale=0.3)


@pytest.fixture(scope="module")
def running(world: World) -> Iterator[Sandbox]:
    """The query host is another origin of the same port, and generation 1 sends its callers there."""
    knobs = {"query_host": "localhost", "status_on_query_host": True}
    with Sandbox(world, vendors=["kissmetrics"], profiles={"kissmetrics": knobs}) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Iterator[Sandbox]:
    running.faults.clear()
    running.requests.clear()
    yield running
    running.faults.clear()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 11, 21, 10, tzinfo=UTC))


def connect(sandbox: Sandbox, clock: ManualClock, **more: Any) -> KissmetricsQueries:
    base = sandbox.base_urls["kissmetrics"]
    given_arguments = {
        "token": SecretStr(sandbox.context.credentials.kissmetrics_api_token),
        "base_url": base,
        "query_base_url": base.replace("127.0.0.1", "localhost"),
        "opt_in": OPT_IN,
        "clock": clock,
        "limits": HttpLimits(backoff_base_seconds=0.0),
    }
    return KissmetricsQueries.connect(**{**given_arguments, **more})


@pytest.fixture
def queries(sandbox: Sandbox, clock: ManualClock) -> Iterator[KissmetricsQueries]:
    with connect(sandbox, clock) as opened:
        yield opened


@pytest.fixture
def product_id(world: World) -> str:
    return world.sites[0].kissmetrics_product_id


def report_of(sandbox: Sandbox, product_id: str, report_type: str = "people_search_v2") -> str:
    token = SecretStr(sandbox.context.credentials.kissmetrics_api_token)
    with KissmetricsClient.connect(base_url=sandbox.base_urls["kissmetrics"], token=token) as client:
        for page in client.product_list(product_id, "reports", call="reports"):
            for record in records_of(page):
                assert isinstance(record, dict)
                if record["report_type"] == report_type:
                    return str(record["id"])
    raise AssertionError(report_type)


@pytest.fixture
def report_id(sandbox: Sandbox, product_id: str) -> str:
    found = report_of(sandbox, product_id)
    sandbox.requests.clear()
    return found


def people(queries: KissmetricsQueries, finished: FinishedQuery, page_size: int = 100) -> list[tuple[object, ...]]:
    return [row for page in queries.results(finished, page_size=page_size) for row in people_of(page)]


def order(sandbox: Sandbox, route: str, body: object, code: int = 200, **headers: str) -> None:
    answer = faults.status(code, headers={**JSON, **headers}, body=json.dumps(body))
    sandbox.faults.add("kissmetrics", route, fault=answer)


def test_a_search_is_run_once_and_read_as_often_as_wanted(
    queries: KissmetricsQueries, sandbox: Sandbox, report_id: str, clock: ManualClock
) -> None:
    finished = queries.wait(queries.run(report_id, start_at=START, end_at=END))
    whole = people(queries, finished)
    assert len(whole) > 20
    assert people(queries, finished, page_size=7) == whole
    assert clock.slept == (15.0, 15.0)
    log = sandbox.requests.records(vendor="kissmetrics")
    assert [asked.method for asked in log].count("POST") == 1
    assert {asked.path.split("/")[1] for asked in log} == {"query", "v1"}


def test_both_generations_find_the_same_people(
    queries: KissmetricsQueries, report_id: str, product_id: str, sandbox: Sandbox
) -> None:
    one = queries.wait(queries.run(report_id, start_at=START, end_at=END))
    two = queries.wait(queries.run_v2(product_id, report_id, start_at=START, end_at=END.astimezone(PACIFIC)))
    assert people(queries, two, page_size=10) == people(queries, one)
    # No link of v2 leads to a next page: its total says when the list ends.
    assert sandbox.requests.count(vendor="kissmetrics", path="/v2/queries") > 4


def test_the_people_are_those_of_the_truth(
    queries: KissmetricsQueries, report_id: str, world: World, product_id: str
) -> None:
    day_two = START + timedelta(days=1)
    window = {"start_at": day_two, "end_at": day_two + timedelta(days=1, seconds=-1)}
    finished = queries.wait(queries.run(report_id, **window))
    pages = list(queries.results(finished))
    assert [(column.name, column.option) for column in columns_of(pages[0])] == [
        ("KMID", "internal"),
        ("Identity", "internal"),
        ("Visited Site", "total_times_ever"),
        ("Visited Site", "last"),
    ]
    found = {kmid: (identity, times, last) for page in pages for kmid, identity, times, last in people_of(page)}
    visitors = world.visitors.set_index("visitor_id")
    consenting = world.visitors[(world.visitors["site_key"] == "shop") & world.visitors["consents"]]
    views = world.views[world.views["visitor_id"].isin(consenting["visitor_id"])].sort_values(["visitor_id", "at_ms"])
    starts = views[~(views.groupby("visitor_id")["at_ms"].diff() <= 1_800_000)]
    low, high = (int(at.timestamp() * 1000) for at in window.values())
    inside = starts[(starts["at_ms"] >= low) & (starts["at_ms"] <= high)]
    assert set(found) == set(inside["visitor_id"])
    for visitor, part in inside.groupby("visitor_id"):
        identity, times, last = found[visitor]
        email = visitors.at[visitor, "email"]
        assert (identity == email) == bool(email)
        assert times == (starts["visitor_id"] == visitor).sum()
        assert instant_of(float(str(last)), "US/Pacific") == datetime.fromtimestamp(part["at_ms"].max() // 1000, UTC)


class LabelsAsked:
    """A meter that remembers what it was asked for."""

    def __init__(self) -> None:
        self.labels: list[str] = []

    def acquire(self, *, method: str, endpoint: str) -> None:
        self.labels.append(endpoint)

    def learn(self, *, method: str, endpoint: str, status: int, retry_after_seconds: float | None) -> None:
        assert endpoint == self.labels[-1]


def test_the_ledger_hears_the_labels_of_the_marks(
    sandbox: Sandbox, clock: ManualClock, report_id: str, product_id: str
) -> None:
    asked = LabelsAsked()
    with connect(sandbox, clock, meter=asked) as queries:
        people(queries, queries.wait(queries.run(report_id, start_at=START, end_at=END)), page_size=50)
        people(queries, queries.wait(queries.run_v2(product_id, report_id, start_at=START, end_at=END)), page_size=50)
    marks = {mark.label for own in endpoints_of(KissmetricsQueries).values() for mark in own}
    assert set(asked.labels) <= marks
    assert len(set(asked.labels)) == 6


# --- the two hosts ----------------------------------------------------------------------------------------------------

STRANGERS = [
    "https://query.kissmetrics.com/v2/queries/x/status",
    "https://apikissmetrics.com/query/queries/x/status",
    "//localhost.evil.example/v1/queries/x/status",
    "http://127.0.0.1:1/query/queries/x/status",
]


@pytest.mark.parametrize("stranger", STRANGERS)
@pytest.mark.parametrize("where", ["header", "body"])
def test_a_status_on_a_third_host_is_refused(
    queries: KissmetricsQueries, sandbox: Sandbox, report_id: str, stranger: str, where: str
) -> None:
    links = [{"rel": "query-status", "href": stranger}] if where == "body" else []
    headers = {"location": stranger} if where == "header" else {}
    order(sandbox, "/run", {"success": True, "links": links}, 202, **headers)
    with pytest.raises(ForeignOrigin) as caught:
        queries.run(report_id, start_at=START, end_at=END)
    assert stranger not in str(caught.value)


def test_core_paths_are_out_of_reach_for_queries(queries: KissmetricsQueries, sandbox: Sandbox) -> None:
    base = sandbox.base_urls["kissmetrics"]
    local = base.replace("127.0.0.1", "localhost")
    for link in (f"{base}/core/accounts", f"{local}/query/queries/x/status", f"{base}/v2/queries/x/status", "/core"):
        with pytest.raises(ForeignOrigin):
            queries.status(QueryRun(generation=1, status_link=link))
    assert sandbox.requests.count(vendor="kissmetrics") == 0


def test_a_next_page_of_people_elsewhere_is_refused(
    queries: KissmetricsQueries, sandbox: Sandbox, report_id: str
) -> None:
    finished = queries.wait(queries.run(report_id, start_at=START, end_at=END))
    body = {"total": 2, "rows": [[1, "x", 1]], "links": [{"rel": "next", "href": "https://apikissmetrics.com/v1/x"}]}
    order(sandbox, "/results", body)
    with pytest.raises(ForeignOrigin):
        people(queries, finished)


# --- not yet, never, no -----------------------------------------------------------------------------------------------


def test_the_budget_ends_the_wait_and_the_run_can_be_waited_for_again(
    queries: KissmetricsQueries, report_id: str, clock: ManualClock
) -> None:
    run = queries.run(report_id, start_at=START, end_at=END)
    with pytest.raises(VendorUnavailable, match="67%"):
        queries.wait(run, budget_seconds=20.0)
    assert clock.slept == (15.0,)
    assert queries.wait(run).generation == 1


def test_a_query_that_fails_says_so_with_a_200(queries: KissmetricsQueries, sandbox: Sandbox, report_id: str) -> None:
    run = queries.run(report_id, start_at=START, end_at=END)
    sandbox.faults.add("kissmetrics", "/status", fault=faults.flag("query_fails"))
    with pytest.raises(VendorReportedError, match="could not be completed"):
        queries.wait(run)


@pytest.mark.parametrize("body", [{}, {"completed": "yes"}, {"data": {"progress": 1}}, [], "done"])
def test_a_status_that_says_nothing_is_not_done(
    queries: KissmetricsQueries, sandbox: Sandbox, report_id: str, body: object
) -> None:
    run = queries.run(report_id, start_at=START, end_at=END)
    order(sandbox, "/status", body)
    with pytest.raises(MalformedResponse):
        queries.status(run)


def test_done_without_a_place_for_the_results_is_refused(
    queries: KissmetricsQueries, sandbox: Sandbox, report_id: str
) -> None:
    run = queries.run(report_id, start_at=START, end_at=END)
    order(sandbox, "/status", {"completed": True, "progress": 1.0}, 201)
    with pytest.raises(MalformedResponse, match="query-results"):
        queries.wait(run)


def test_a_lost_answer_to_a_run_is_not_asked_for_again(
    queries: KissmetricsQueries, sandbox: Sandbox, report_id: str
) -> None:
    sandbox.faults.add("kissmetrics", "/run", fault=faults.status(503), times=9)
    with pytest.raises(VendorUnavailable):
        queries.run(report_id, start_at=START, end_at=END)
    assert sandbox.requests.count(vendor="kissmetrics") == 1


def test_what_cannot_be_run(
    queries: KissmetricsQueries, sandbox: Sandbox, report_id: str, world: World, product_id: str
) -> None:
    with pytest.raises(NotFound, match="report not found"):
        queries.run("00000000-0000-0131-0000-000000000000", start_at=START, end_at=END)
    with pytest.raises(RequestRejected, match="people_search_v2"):
        queries.run(report_of(sandbox, product_id, "funnel"), start_at=START, end_at=END)
    with pytest.raises(NotFound):
        queries.run_v2(world.sites[1].kissmetrics_product_id, report_id, start_at=START, end_at=END)
    sandbox.requests.clear()
    for start, end in ((END, START), (START.replace(tzinfo=None), END)):
        with pytest.raises(ConfigurationError):
            queries.run(report_id, start_at=start, end_at=end)
    assert sandbox.requests.count(vendor="kissmetrics") == 0


def test_a_wrong_token(sandbox: Sandbox, clock: ManualClock, report_id: str) -> None:
    with connect(sandbox, clock, token=SecretStr("wrong")) as stranger, pytest.raises(AuthenticationFailed):
        stranger.run(report_id, start_at=START, end_at=END)


@pytest.mark.parametrize(
    "opt_in", [WriteOptIn(vendor="pirsch", reason="mine"), WriteOptIn(vendor="kissmetrics", reason=" ")]
)
def test_posting_needs_an_explicit_yes(sandbox: Sandbox, clock: ManualClock, opt_in: WriteOptIn) -> None:
    with pytest.raises(ConfigurationError):
        connect(sandbox, clock, opt_in=opt_in)


def test_metric_queries_are_off_and_then_only_by_their_link(sandbox: Sandbox, clock: ManualClock) -> None:
    base = sandbox.base_urls["kissmetrics"]
    link = Link(rel="metric-over-time", href=f"{base}/query/metrics/x/over-time")
    with connect(sandbox, clock) as queries, pytest.raises(ConfigurationError, match="off"):
        queries.metric_over_time(link)
    with connect(sandbox, clock, with_undocumented_metric_queries=True) as queries:
        with pytest.raises(ConfigurationError, match="metric-by-segment"):
            queries.metric_by_segment(link)
        assert sandbox.requests.count(vendor="kissmetrics") == 0
        with pytest.raises(NotFound):  # the sandbox invents nothing unless told
            queries.metric_over_time(link)
        with pytest.raises(ForeignOrigin):
            queries.metric_over_time(Link(rel="metric-over-time", href="https://apikissmetrics.com/query/metrics/x"))


def test_rows_of_an_ad_hoc_search_are_read_too(
    queries: KissmetricsQueries, sandbox: Sandbox, report_id: str, product_id: str
) -> None:
    finished = queries.wait(queries.run_v2(product_id, report_id, start_at=START, end_at=END))
    order(sandbox, "/results", {"data": [{"identity": "bob", "columns": [3, None]}], "pagination": {"total": 1}})
    assert people(queries, finished) == [("bob", 3, None)]


# --- time -------------------------------------------------------------------------------------------------------------


@given(st.integers(min_value=1_262_304_000, max_value=1_893_456_000))
def test_a_result_time_is_the_products_wall_clock(seconds: int) -> None:
    moment = datetime.fromtimestamp(seconds, UTC)
    local = moment.astimezone(PACIFIC)
    shown = int(local.replace(tzinfo=UTC).timestamp())
    found = instant_of(shown, "US/Pacific")
    if local.fold:
        assert found == moment - timedelta(hours=1)  # told twice, read as the first
    else:
        assert found == moment


def test_winter_and_summer_are_shifted_differently() -> None:
    winter, summer = datetime(2015, 1, 9, 12, tzinfo=UTC), datetime(2015, 7, 9, 12, tzinfo=UTC)
    assert instant_of(winter.timestamp(), "US/Pacific") - winter == timedelta(hours=8)
    assert instant_of(summer.timestamp(), "US/Pacific") - summer == timedelta(hours=7)
    with pytest.raises(ConfigurationError):
        instant_of(0, "Pacific Time (US & Canada)")
