"""The Kissmetrics client over a real socket: envelope and bare arrays, offsets, links, and those not to follow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from analytics_platform.core.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ForeignOrigin,
    MalformedResponse,
    NotFound,
    PageLoop,
    VendorReportedError,
)
from analytics_platform.core.paging import Page
from analytics_platform.sandbox import faults
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import World, generate
from analytics_platform.vendors.kissmetrics import client as client_module
from analytics_platform.vendors.kissmetrics.client import (
    Collection,
    KissmetricsClient,
    Link,
    account_id_of,
    links_of,
)

JSON = {"content-type": "application/json; charset=utf-8"}
COLLECTIONS: tuple[Collection, ...] = ("reports", "events", "properties", "metrics")


@pytest.fixture(scope="module")
def world() -> World:
    return generate(seed=7, first_day=date(2026, 10, 5), days=3, scale=0.3)


@pytest.fixture(scope="module", params=[False, True], ids=["envelope", "bare"])
def running(request: pytest.FixtureRequest, world: World) -> Iterator[Sandbox]:
    with Sandbox(world, vendors=["kissmetrics"], profiles={"kissmetrics": {"bare": request.param}}) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Iterator[Sandbox]:
    running.faults.clear()
    running.requests.clear()
    yield running
    running.faults.clear()


def connect(sandbox: Sandbox, token: str | None = None) -> KissmetricsClient:
    secret = token or sandbox.context.credentials.kissmetrics_api_token
    return KissmetricsClient.connect(base_url=sandbox.base_urls["kissmetrics"], token=SecretStr(secret))


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[KissmetricsClient]:
    with connect(sandbox) as opened:
        yield opened


@pytest.fixture
def product_id(world: World) -> str:
    return world.sites[0].kissmetrics_product_id


def data_of(page: Page) -> object:
    body = json.loads(page.body)
    return body["data"] if isinstance(body, dict) and "data" in body else body


def ids_of(pages: list[Page]) -> list[str]:
    found: list[str] = []
    for page in pages:
        data = data_of(page)
        assert isinstance(data, list)
        assert page.records == len(data)
        found += [record["id"] for record in data]
    return found


def test_the_directory_the_product_and_its_account(client: KissmetricsClient, world: World, product_id: str) -> None:
    assert client.root()["name"] == "KISSmetrics API"
    product = client.product(product_id)
    account_id = account_id_of(product)
    assert account_id == world.sites[0].kissmetrics_account_id
    account = data_of(client.account(account_id))
    assert isinstance(account, dict)
    assert account["id"] == account_id


@pytest.mark.parametrize("size", [100, 3])
@pytest.mark.parametrize("collection", COLLECTIONS)
def test_a_list_is_the_same_whatever_the_page_size(
    client: KissmetricsClient, product_id: str, collection: Collection, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ids_of(list(client.product_list(product_id, collection, call=collection)))
    monkeypatch.setattr(client_module, "_PAGE_SIZE", size)
    pages = list(client.product_list(product_id, collection, call=collection))
    assert ids_of(pages) == whole
    assert len(set(whole)) == len(whole) > 0
    assert pages[-1].is_last
    assert [page.sequence for page in pages] == list(range(len(pages)))
    assert {page.call_kind for page in pages} == {
        {"properties": "property_list"}.get(collection, f"{collection[:-1]}_list")
    }
    assert (len(pages) > 1) == (size < len(whole))


def test_a_catalogue_costs_the_requests_it_needs_and_follows_no_link_of_a_record(
    client: KissmetricsClient, sandbox: Sandbox, product_id: str
) -> None:
    client.product(product_id)
    for collection in COLLECTIONS:
        list(client.product_list(product_id, collection, call=collection))
    asked = [record.path for record in sandbox.requests.records(vendor="kissmetrics")]
    base = f"/core/products/{product_id}"
    assert asked == [base, *(f"{base}/{collection}" for collection in COLLECTIONS)]


def test_a_next_link_to_another_host_is_refused(client: KissmetricsClient, sandbox: Sandbox, product_id: str) -> None:
    body = {
        "meta": {"status": 200},
        "data": [{"id": "a"}],
        "pagination": {"limit": 1, "offset": 0, "total": 2},
        "links": [
            {
                "rel": "next",
                "href": f"https://apikissmetrics.com/core/products/{product_id}/events?offset=1",
                "templated": False,
            }
        ],
    }
    sandbox.faults.add("kissmetrics", "/events", fault=faults.status(200, headers=JSON, body=json.dumps(body)))
    with pytest.raises(ForeignOrigin):
        list(client.product_list(product_id, "events", call="events"))
    assert sandbox.requests.count(vendor="kissmetrics") == 1


def test_the_query_host_and_paths_outside_core_are_out_of_reach(
    client: KissmetricsClient, sandbox: Sandbox, product_id: str
) -> None:
    link = f"{sandbox.base_urls['kissmetrics']}/query/reports/x/run"
    body = {"data": [{"id": "a"}], "links": [{"rel": "next", "href": link, "templated": False}]}
    sandbox.faults.add("kissmetrics", "/reports", fault=faults.status(200, headers=JSON, body=json.dumps(body)))
    with pytest.raises(ForeignOrigin):
        list(client.product_list(product_id, "reports", call="reports"))


def test_an_html_escaped_link_is_not_followed_as_it_is(
    client: KissmetricsClient, sandbox: Sandbox, product_id: str
) -> None:
    link = f"/core/products/{product_id}/events?limit=1&amp;offset=1"
    body = {"data": [{"id": "a"}], "links": [{"rel": "next", "href": link, "templated": False}]}
    sandbox.faults.add("kissmetrics", "/events", fault=faults.status(200, headers=JSON, body=json.dumps(body)))
    with pytest.raises(MalformedResponse):
        list(client.product_list(product_id, "events", call="events"))


def test_a_next_link_that_leads_back_ends_the_walk(
    client: KissmetricsClient, sandbox: Sandbox, product_id: str
) -> None:
    link = f"/core/products/{product_id}/events?limit=1&offset=0"
    body = {"data": [{"id": "a"}], "links": [{"rel": "next", "href": link, "templated": False}]}
    sandbox.faults.add("kissmetrics", "/events", times=9, fault=faults.status(200, headers=JSON, body=json.dumps(body)))
    with pytest.raises(PageLoop):
        list(client.product_list(product_id, "events", call="events"))


def test_a_wrong_token_names_the_variable_and_not_the_token(sandbox: Sandbox) -> None:
    with connect(sandbox, "wrong-token-9b1d") as stranger, pytest.raises(AuthenticationFailed) as caught:
        stranger.root()
    assert "KISSMETRICS_API_TOKEN" in str(caught.value)
    assert "wrong-token-9b1d" not in str(caught.value)


def test_an_unknown_product_is_not_found(client: KissmetricsClient) -> None:
    with pytest.raises(NotFound):
        client.product("00000000-0000-0000-0000-000000000000")


@pytest.mark.parametrize("body", ["[]", '{"data":[]}', '{"data":null}', '"x"'])
def test_a_detail_that_is_no_object_is_refused(
    client: KissmetricsClient, sandbox: Sandbox, product_id: str, body: str
) -> None:
    sandbox.faults.add("kissmetrics", "/core/products/", fault=faults.status(200, headers=JSON, body=body))
    with pytest.raises(MalformedResponse):
        client.product(product_id)


@pytest.mark.parametrize("body", ['{"meta":{"status":200}}', '{"data":{}}', '"x"', "1"])
def test_an_answer_without_a_list_is_not_zero_rows(
    client: KissmetricsClient, sandbox: Sandbox, product_id: str, body: str
) -> None:
    sandbox.faults.add("kissmetrics", "/events", fault=faults.status(200, headers=JSON, body=body))
    with pytest.raises(MalformedResponse):
        list(client.product_list(product_id, "events", call="events"))


def test_an_error_inside_a_200_is_an_error(client: KissmetricsClient, sandbox: Sandbox, product_id: str) -> None:
    body = '{"message":"report of bob@example.com not found","error":"Not Found bob@example.com","status":404}'
    sandbox.faults.add("kissmetrics", "/events", fault=faults.status(200, headers=JSON, body=body))
    with pytest.raises(VendorReportedError) as caught:
        list(client.product_list(product_id, "events", call="events"))
    assert "bob@example.com" not in str(caught.value)


@pytest.mark.parametrize("product_id", ["", ".", "..", "a/b", "../accounts", "a\\b", "a\nb", "x" * 301])
def test_an_id_that_could_leave_its_path_segment_is_refused(
    client: KissmetricsClient, sandbox: Sandbox, product_id: str
) -> None:
    with pytest.raises(ConfigurationError):
        client.product(product_id)
    assert sandbox.requests.count(vendor="kissmetrics") == 0


@pytest.mark.parametrize("product_id", ["a?b=c", "a#b", "a%2Fb", "ä", "a;b"])
def test_any_other_id_stays_one_path_segment(client: KissmetricsClient, sandbox: Sandbox, product_id: str) -> None:
    with pytest.raises((NotFound, ForeignOrigin)):
        client.product(product_id)
    assert all(record.path.startswith("/core/products/") for record in sandbox.requests.records(vendor="kissmetrics"))


# --- links that were discovered ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["accounts", "products", "reports", "events", "properties", "metrics"])
def test_the_directory_leads_to_every_list(client: KissmetricsClient, kind: str) -> None:
    direct = ids_of(list(getattr(client, kind)()))
    pages = list(client.follow(client.directory()[kind], call=kind))
    assert ids_of(pages) == direct
    assert pages[-1].is_last
    assert {page.call_kind for page in pages} == {"property_list" if kind == "properties" else f"{kind[:-1]}_list"}


def test_a_template_leads_to_one_record_and_a_value_stays_in_its_segment(
    client: KissmetricsClient, sandbox: Sandbox, product_id: str
) -> None:
    link = client.directory()["product-detail"]
    assert link.variables == ("product_id",)
    (page,) = client.follow(link, variables={"product_id": product_id})
    assert page.body == client.product(product_id).body
    sandbox.requests.clear()
    for value in ("../accounts", "a/b", "..", "."):
        with pytest.raises((ForeignOrigin, NotFound)):
            list(client.follow(link, variables={"product_id": value}))
    assert all(asked.path.startswith("/core/products/") for asked in sandbox.requests.records(vendor="kissmetrics"))


def test_links_of_a_record_lead_on(client: KissmetricsClient, product_id: str) -> None:
    account_id = account_id_of(client.product(product_id))
    assert account_id is not None
    links = {link.rel: link for link in links_of(client.account(account_id))}
    assert ids_of(list(client.follow(links["products"]))) == ids_of(list(client.account_products(account_id)))


@pytest.mark.parametrize(
    "href",
    [
        "https://apikissmetrics.com/core/products",
        "http://apikissmetrics.com/core/products",
        "//apikissmetrics.com/core/products",
        "/query/reports/x/run",
        "/corerect",
        "/core/../query/x",
        "/core/%2e%2e/query/x",
        "https://user@127.0.0.1/core",
        "file:///core",
    ],
)
def test_a_link_that_leaves_is_refused_unsent(client: KissmetricsClient, sandbox: Sandbox, href: str) -> None:
    with pytest.raises(ForeignOrigin):
        list(client.follow(Link(rel="reports", href=href)))
    assert sandbox.requests.count(vendor="kissmetrics") == 0


def test_a_bare_list_of_unknown_page_length_is_read_to_its_end(client: KissmetricsClient, sandbox: Sandbox) -> None:
    """A default of 30, no links, no total: only a shorter page than the first tells the end."""
    for offset, count in ((30, 30), (60, 7), (0, 30)):
        body = json.dumps([{"id": f"{offset + n}"} for n in range(count)])
        route = f"offset={offset}&" if offset else "GET /core/events"
        sandbox.faults.add("kissmetrics", route, fault=faults.status(200, headers=JSON, body=body))
    assert ids_of(list(client.follow(Link(rel="events", href="/core/events")))) == [str(n) for n in range(67)]


@given(st.text(min_size=1, max_size=40))
def test_a_templates_value_never_adds_a_segment(value: str) -> None:
    link = Link(rel="event-detail", href="https://api.kissmetrics.com/core/events/{event_id}", is_templated=True)
    parts = urlsplit(link.expanded({"event_id": value}))
    assert (parts.netloc, parts.query, parts.fragment) == ("api.kissmetrics.com", "", "")
    assert parts.path.count("/") == 3
    assert unquote(parts.path.rpartition("/")[2]) == value
