"""The nineteen traps of the Kissmetrics document, by their number in the contract (§3.6): each fails naive code.

Belongs here: one short test a trap. Does not belong here: the same things in depth (`test_client`, `test_queries`,
`test_tables`).
"""

# ruff: noqa: DTZ001  (a lake TIMESTAMP is naive and in UTC)

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ForeignOrigin,
    MalformedResponse,
    NotBackfillable,
    NotFound,
    RateLimited,
    RequestRejected,
    UnexpectedRedirect,
    VendorUnreachable,
)
from analytics_platform.core.http import HttpClient, HttpLimits
from analytics_platform.core.opt_in import WriteOptIn
from analytics_platform.core.paging import Page
from analytics_platform.sandbox import faults
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import World, generate
from analytics_platform.vendors.kissmetrics import streams
from analytics_platform.vendors.kissmetrics.client import KissmetricsClient, Link, links_of, records_of
from analytics_platform.vendors.kissmetrics.queries import KissmetricsQueries
from analytics_platform.vendors.kissmetrics.tables import ACCOUNTS, EVENTS, METRICS, PRODUCTS, PROPERTIES, TABLES
from analytics_platform_tests.vendors.kissmetrics.test_tables import (
    ACCOUNT,
    EVENT,
    METRIC,
    NOW,
    PRODUCT,
    PROPERTY,
    TODAY,
    House,
    rows,
)

JSON = {"content-type": "application/json"}
WRONG_HOST = "https://apikissmetrics.com"
OPT_IN = WriteOptIn(vendor="kissmetrics", reason="test_traps")
NO_PAUSE = HttpLimits(backoff_base_seconds=0.0)


@pytest.fixture(scope="module")
def world() -> World:
    return generate(first_day=date(2026, 10, 5), days=2, scale=0.03)


@pytest.fixture(scope="module")
def running(world: World) -> Iterator[Sandbox]:
    with Sandbox(world, vendors=["kissmetrics"]) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Iterator[Sandbox]:
    running.faults.clear()
    running.requests.clear()
    yield running
    running.faults.clear()


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[KissmetricsClient]:
    token = SecretStr(sandbox.context.credentials.kissmetrics_api_token)
    with KissmetricsClient.connect(base_url=sandbox.base_urls["kissmetrics"], token=token, limits=NO_PAUSE) as opened:
        yield opened


@pytest.fixture
def product_id(world: World) -> str:
    return world.sites[0].kissmetrics_product_id


def answers(sandbox: Sandbox, route: str, body: object, code: int = 200, times: int = 1, **headers: str) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    fault = faults.status(code, headers={**JSON, **{k.replace("_", "-"): v for k, v in headers.items()}}, body=text)
    sandbox.faults.add("kissmetrics", route, fault=fault, times=times)


def listed(pages: Iterator[Page]) -> list[dict[str, object]]:
    return [record for page in pages for record in records_of(page) if isinstance(record, dict)]


def ids(pages: Iterator[Page]) -> list[object]:
    return [record["id"] for record in listed(pages)]


def test_trap_01_links_of_products_lead_to_a_stranger(
    client: KissmetricsClient, sandbox: Sandbox, product_id: str
) -> None:
    answers(sandbox, "/core/products/", {**PRODUCT, "links": [{"rel": "reports", "href": f"{WRONG_HOST}/core/x"}]})
    links = {link.rel: link for link in links_of(client.product(product_id))}
    with pytest.raises(ForeignOrigin):
        list(client.follow(links["reports"]))
    template = Link(rel="x", href="https://{host}/core/products", is_templated=True)
    with pytest.raises(ForeignOrigin):  # a stranger only once it is expanded
        list(client.follow(template, variables={"host": "apikissmetrics.com"}))
    assert ids(client.product_list(product_id, "reports", call="reports"))
    assert sandbox.requests.count(vendor="kissmetrics") == 2
    answers(sandbox, "/core/events", "", 301, location=f"{WRONG_HOST}/core/events")
    with pytest.raises(UnexpectedRedirect):
        list(client.events())


def test_trap_02_a_bare_array_and_an_envelope_are_the_same_list(client: KissmetricsClient, sandbox: Sandbox) -> None:
    pages = [[{"id": f"{page}-{n}"} for n in range(100 if page < 2 else 3)] for page in range(3)]
    everything = [record["id"] for page in pages for record in page]
    for offset, page in enumerate(pages):  # neither links nor total: only the length of a page tells
        answers(sandbox, f"offset={offset * 100}&", page)
    assert ids(client.events()) == everything
    base = sandbox.base_urls["kissmetrics"]
    answers(sandbox, "offset=0&", pages[0], link=f'<{base}/core/events?from=header>; rel="next"; templated="false"')
    answers(sandbox, "from=header", pages[2], link=f'<{base}/core/events?offset=0>; rel="first"; templated="false"')
    assert ids(client.events()) == everything[:100] + everything[200:]
    for offset, page in enumerate(pages):
        body = {"meta": {"status": 200}, "data": page, "pagination": {"total": 203, "offset": offset * 100}}
        answers(sandbox, f"offset={offset * 100}&", body)
    assert ids(client.events()) == everything


def test_trap_03_the_root_of_the_document_is_no_json_and_lists_two_links(
    client: KissmetricsClient, sandbox: Sandbox, product_id: str
) -> None:
    sample = """{"links": [], "data": {"links": [{"templated": false, "href": "/core", "rel": "self"},
        {"templated": false, "href": "/core/accounts", "rel": "accounts"},%s], "name": "KISSmetrics API"}}"""
    answers(sandbox, "GET /core", sample % "")
    with pytest.raises(MalformedResponse):
        client.root()
    answers(sandbox, "GET /core", (sample % "").replace("},]", "}]"))
    assert set(client.directory()) == {"self", "accounts"}
    template = client.directory()["product-detail"]  # promised in prose, sent by the wire
    (page,) = client.follow(template, variables={"product_id": product_id})
    assert (page.call_kind, page.is_last) == ("product_detail", True)
    with pytest.raises(ConfigurationError, match="product_id"):  # expanded to nothing it would be the list
        list(client.follow(template, variables={"product_id": ""}))


@pytest.mark.parametrize("key", ["links", "link"])
def test_trap_04_the_rel_is_prev_and_the_key_has_two_spellings(
    client: KissmetricsClient, sandbox: Sandbox, key: str
) -> None:
    first = {"data": [{"id": "a"}], key: [{"rel": "next", "href": "/core/events?limit=1&offset=1"}]}
    last = {"data": [{"id": "b"}], key: [{"rel": "prev", "href": "/core/events?limit=1&offset=0", "name": "Previous"}]}
    answers(sandbox, "limit=100", first)
    answers(sandbox, "offset=1", last)
    assert ids(client.events()) == ["a", "b"]


def test_trap_05_pages_are_not_counted_from_a_total(client: KissmetricsClient, sandbox: Sandbox) -> None:
    answers(sandbox, "/core/events", {"data": [], "pagination": {"total": 0, "offset": 0, "limit": 0}})
    assert [page.is_last for page in client.events()] == [True]
    for row in range(6):  # limit 1: the sample's last, offset=5, is a row and no page number
        base = "/core/events?limit=1&offset="
        links = [{"rel": "first", "href": f"{base}0"}, {"rel": "last", "href": f"{base}5"}]
        links += [{"rel": "next", "href": f"{base}{row + 1}"}] if row < 5 else []
        body = {"data": [{"id": str(row)}], "pagination": {"total": 6, "offset": row, "limit": 1}, "links": links}
        answers(sandbox, f"offset={row}", body)
    assert ids(client.events()) == ["0", "1", "2", "3", "4", "5"]


def test_trap_06_an_html_escaped_ampersand_is_not_followed(client: KissmetricsClient, sandbox: Sandbox) -> None:
    link = {"rel": "next", "href": "/core/events?limit=1&amp;offset=1"}
    answers(sandbox, "/core/events", {"data": [{"id": "a"}], "links": [link]})
    with pytest.raises(MalformedResponse):
        list(client.events())
    assert sandbox.requests.count(vendor="kissmetrics") == 1
    # JSON's own escape is another matter: it is an ampersand.
    answers(
        sandbox,
        "limit=100",
        r'{"data":[{"id":"a"}],"links":[{"rel":"next","href":"/core/events?limit=1\u0026offset=1"}]}',
    )
    answers(sandbox, "limit=1&offset=1", {"data": [{"id": "b"}], "links": [{"rel": "self", "href": "/core/events"}]})
    assert ids(client.events()) == ["a", "b"]


def test_trap_07_a_table_has_one_source_for_an_id() -> None:
    for spec in TABLES:
        assert len({call.rpartition("_")[2] for call in spec.calls}) == 1, spec.name
    assert (ACCOUNTS.calls, PRODUCTS.calls) == (("account_detail",), ("product_detail",))
    assert METRICS.calls == ("metric_list",)


def test_trap_08_children_of_parents_that_are_not_listed_are_legal(client: KissmetricsClient) -> None:
    visible = set(ids(client.products()))
    orphans = [report for report in listed(client.reports()) if report["product_id"] not in visible]
    assert orphans
    assert records_of(client.report(str(orphans[0]["id"])))
    with pytest.raises(NotFound):
        client.product(str(orphans[0]["product_id"]))


def test_trap_09_enums_are_what_was_sent_not_what_was_documented(tmp_path: Path) -> None:
    (product,) = rows(tmp_path / "a", PRODUCTS, {**PRODUCT, "environment": ""})
    (kind,) = rows(tmp_path / "b", PROPERTIES, {**PROPERTY, "type": None})
    (word,) = rows(tmp_path / "c", METRICS, {**METRIC, "status": "pending", "color": None, "description": None})
    (boolean,) = rows(tmp_path / "d", METRICS, {**METRIC, "status": False})
    assert (product["environment"], kind["property_type"]) == (None, None)
    assert (word["status"], word["color"], boolean["status"]) == ("pending", None, "false")


def test_trap_10_two_spellings_of_an_instant_and_no_order_among_four(tmp_path: Path) -> None:
    (account,) = rows(tmp_path / "a", ACCOUNTS, {**ACCOUNT, "created_at": "2013-10-04T04:56:57Z"})
    (event,) = rows(tmp_path / "b", EVENTS, {**EVENT, "first_used_at": "2013-10-04T04:56:57+00:00"})
    assert account["created_at"] == event["first_used_at"] == datetime(2013, 10, 4, 4, 56, 57)
    assert event["first_used_at"] < event["first_sent_at"]
    assert event["last_sent_at"] > event["last_used_at"]


def test_trap_11_a_report_is_no_account_and_only_people_searches_run(
    client: KissmetricsClient, sandbox: Sandbox, product_id: str
) -> None:
    funnel = next(
        r for r in listed(client.product_list(product_id, "reports", call="r")) if r["report_type"] == "funnel"
    )
    assert funnel["id"] != funnel["account_id"]
    base, token = sandbox.base_urls["kissmetrics"], SecretStr(sandbox.context.credentials.kissmetrics_api_token)
    with (
        KissmetricsQueries.connect(token=token, base_url=base, query_base_url=base, opt_in=OPT_IN) as queries,
        pytest.raises(RequestRejected, match="people_search_v2"),
    ):
        queries.run(str(funnel["id"]), start_at=NOW - timedelta(days=1), end_at=NOW)
    reading = client.__dict__["_http"]
    assert isinstance(reading, HttpClient)
    with pytest.raises(ConfigurationError, match="may not send POST"):
        reading.request("POST", "/core/reports", endpoint="x", json={})


def test_trap_12_plain_http_is_refused_before_the_token_leaves(client: KissmetricsClient, sandbox: Sandbox) -> None:
    plain = "http://api.kissmetrics.com"
    with pytest.raises(ConfigurationError, match="plain http"):
        KissmetricsClient.connect(token=SecretStr("t"), base_url=plain)
    with pytest.raises(ConfigurationError, match="plain http"):
        KissmetricsQueries.connect(token=SecretStr("t"), query_base_url=plain, opt_in=OPT_IN)
    base = sandbox.base_urls["kissmetrics"]
    sandbox.faults.add("kissmetrics", "/core", fault=faults.redirect(f"{base}/core/rels", 301))
    with pytest.raises(UnexpectedRedirect):  # not even to the same host: a 301 turns POST into GET
        client.root()
    assert sandbox.requests.count(vendor="kissmetrics") == 1


def test_trap_13_a_detail_needs_no_links(client: KissmetricsClient, sandbox: Sandbox, product_id: str) -> None:
    for body in ({**PRODUCT, "links": []}, {name: value for name, value in PRODUCT.items() if name != "links"}):
        answers(sandbox, "/core/products/", body)
        page = client.product(product_id)
        assert links_of(page) == ()
        assert records_of(page) == [body]


def test_trap_14_a_live_list_is_a_whole_snapshot_without_doubles(
    client: KissmetricsClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.faults.add("kissmetrics", "/core/events", fault=faults.duplicate_rows())
    twice = listed(client.events())
    assert len(twice) > len({row["id"] for row in twice})
    assert len(rows(tmp_path / "a", EVENTS, twice)) == len({row["id"] for row in twice})
    (purged,) = rows(tmp_path / "b", EVENTS, {**EVENT, "total": 0})  # a lifetime counter may fall
    assert purged["total"] == 0
    (stream,) = streams.STREAMS
    assert stream.span == "snapshot"


def test_trap_15_metrics_are_found_without_their_link_and_canceled_accounts_are_listed(
    client: KissmetricsClient, sandbox: Sandbox, product_id: str
) -> None:
    answers(sandbox, "/core/products/", {**PRODUCT, "links": [{"rel": "events", "href": "/core/x"}]})
    assert "metrics" not in {link.rel for link in links_of(client.product(product_id))}
    assert ids(client.product_list(product_id, "metrics", call="metrics"))
    assert "canceled" in {account["status"] for account in listed(client.accounts())}


@pytest.mark.parametrize("odd", ["48434344-088b-1031-a8b0-22923a9f01ba", "6C921840-0EDF-0131-EAD4-12313B0D181E"])
def test_trap_16_ids_are_text(client: KissmetricsClient, sandbox: Sandbox, tmp_path: Path, odd: str) -> None:
    answers(sandbox, f"/core/metrics/{odd}", {**METRIC, "id": odd})
    assert records_of(client.metric(odd))
    (row,) = rows(tmp_path, METRICS, {**METRIC, "id": odd})
    assert row["metric_id"] == odd


def test_trap_17_what_is_no_longer_shown_is_not_deleted(sandbox: Sandbox, product_id: str, tmp_path: Path) -> None:
    house = House(sandbox, tmp_path, product_id)
    assert house.run().error is None
    before = house.read(EVENTS)
    house.clock.advance(86_400)
    tomorrow = TODAY + timedelta(days=1)
    answers(sandbox, "/events", [{**EVENT, "id": before["event_id"].iloc[0]}])  # access to the rest was lost
    assert house.run([tomorrow]).error is None
    assert len(house.lake.frame(EVENTS, "shop", [tomorrow])) == 1
    assert house.read(EVENTS).equals(before)
    assert isinstance(house.run([TODAY - timedelta(days=1)]).error, NotBackfillable)


def test_trap_18_no_limit_is_documented_and_errors_have_two_shapes(client: KissmetricsClient, sandbox: Sandbox) -> None:
    first = {"message": "limit must be between 1 and 1000.", "error": "Bad Request", "status": 400}
    answers(sandbox, "/core/events", first, 400)
    with pytest.raises(RequestRejected, match="limit must be between"):
        list(client.events())
    answers(sandbox, "/core/events", {"status": 401, "messages": ["Unauthenticated."]}, 401)
    with pytest.raises(AuthenticationFailed, match="Unauthenticated"):
        list(client.events())
    answers(sandbox, "/core/events", "", 429, retry_after="900")
    with pytest.raises(RateLimited):
        list(client.events())
    assert streams.DEFAULT_REQUESTS_PER_MINUTE == 60  # a guess, and polite
    list(client.events())
    assert sandbox.requests.records(vendor="kissmetrics")[-1].query == "offset=0&limit=100"


def test_trap_19_a_dead_host_fails_cleanly_and_is_skipped(
    client: KissmetricsClient, sandbox: Sandbox, product_id: str, tmp_path: Path
) -> None:
    for code in (404, 410):
        answers(sandbox, "/core/events", "<html>gone</html>", code)
        with pytest.raises(NotFound):
            list(client.events())
    sandbox.faults.add(
        "kissmetrics", "/core/", fault=faults.status(200, headers={"content-type": "text/html"}, body="<html>"), times=9
    )
    with pytest.raises(MalformedResponse):
        list(client.events())
    outcome = House(sandbox, tmp_path, product_id).run()  # the run goes on with other sites and vendors
    assert isinstance(outcome.error, MalformedResponse)
    assert outcome.done_days == []
    no_tls = sandbox.base_urls["kissmetrics"].replace("http://", "https://")
    clock = ManualClock(datetime(2026, 11, 21, tzinfo=UTC))
    with (
        KissmetricsClient.connect(token=SecretStr("t"), base_url=no_tls, limits=NO_PAUSE, clock=clock) as broken,
        pytest.raises(VendorUnreachable),
    ):
        broken.root()
