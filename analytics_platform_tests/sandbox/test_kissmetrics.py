"""Kissmetrics' observer over a real socket: the recorded wire, its traps, and totals against the truth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from analytics_platform.sandbox import faults
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import World, generate

KINDS = ("accounts", "products", "reports", "metrics", "events", "properties")


@pytest.fixture(scope="module")
def world() -> World:
    return generate()


@pytest.fixture(scope="module")
def sandbox(world: World) -> Iterator[Sandbox]:
    with Sandbox(world, vendors=["kissmetrics"]) as running:
        yield running


@pytest.fixture(scope="module")
def http(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with client(sandbox) as opened:
        yield opened


def client(sandbox: Sandbox) -> httpx.Client:
    headers = {"authorization": f"Bearer {sandbox.context.credentials.kissmetrics_api_token}"}
    return httpx.Client(base_url=sandbox.base_urls["kissmetrics"], headers=headers, trust_env=False)


def get(http: httpx.Client, path: str) -> Any:
    answer = http.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def href(body: Any, rel: str) -> str | None:
    return next((str(link["href"]) for link in body["links"] if link["rel"] == rel), None)


def everything(http: httpx.Client, path: str) -> list[Any]:
    rows: list[Any] = []
    link: str | None = path
    while link:
        body = get(http, link)
        rows += body["data"]
        link = href(body, "next")
    assert len(rows) == body["pagination"]["total"]
    return rows


@pytest.mark.parametrize("kind", KINDS)
def test_lists_page_by_links_and_agree_with_details(http: httpx.Client, kind: str) -> None:
    rows = everything(http, f"/core/{kind}?limit=3")
    assert len({row["id"] for row in rows}) == len(rows) > 1
    assert everything(http, f"/core/{kind}?limit=1000") == rows
    row = rows[-1]
    detail = get(http, f"/core/{kind}/{row['id']}")
    assert detail["meta"] == {"status": 200}
    assert {k: v for k, v in detail["data"].items() if k != "links"} == {k: v for k, v in row.items() if k != "links"}
    assert http.get(f"/core/{kind}/00000000-0000-0131-0000-000000000000").status_code == 404


def test_paging_shape(http: httpx.Client, sandbox: Sandbox) -> None:
    first = http.get("/core/events")
    assert first.json()["pagination"]["limit"] == len(first.json()["data"]) == 20
    assert href(first.json(), "prev") is None
    second = get(http, "/core/events?limit=20&offset=20")
    assert href(second, "prev") == f"{sandbox.base_urls['kissmetrics']}/core/events?limit=20&offset=0"
    parts = [part.split(";") for part in first.headers["link"].split(",")]
    assert all(len(part) == 3 for part in parts)  # the vendor's own client needs exactly three
    assert '; rel="event-detail"; templated="true"' in first.headers["link"]
    past = get(http, "/core/events?limit=20&offset=100000")
    assert past["data"] == []
    assert href(past, "next") is None
    for query in ("limit=0", "limit=x", "offset=-1", "limit=100000"):
        answer = http.get(f"/core/events?{query}")
        assert answer.status_code == 400
        assert answer.json()["status"] == 400


def test_one_product_link_leads_to_the_wrong_host(http: httpx.Client, sandbox: Sandbox) -> None:
    product = get(http, "/core/products")["data"][0]
    wrong = [link["href"] for link in product["links"] if not link["href"].startswith(sandbox.base_urls["kissmetrics"])]
    assert wrong == [f"https://apikissmetrics.com/core/products/{product['id']}/reports"]


def test_sub_collections(http: httpx.Client, world: World) -> None:
    for site in world.sites:
        for kind in ("reports", "metrics", "events", "properties"):
            rows = everything(http, f"/core/products/{site.kissmetrics_product_id}/{kind}?limit=7")
            assert {row["product_id"] for row in rows} == {site.kissmetrics_product_id}
    account = world.sites[0].kissmetrics_account_id
    assert len(everything(http, f"/core/accounts/{account}/products")) == 2
    assert http.get("/core/products/nope/events").status_code == 404
    assert http.get("/core/accounts/nope/products").status_code == 404


def test_documented_oddities(http: httpx.Client) -> None:
    products = {row["id"] for row in everything(http, "/core/products")}
    assert any(row["product_id"] not in products for row in everything(http, "/core/reports"))
    assert {row["status"] for row in everything(http, "/core/accounts")} == {"active", "canceled"}
    assert everything(http, "/core/accounts")[0]["created_at"].endswith("Z")
    assert all(row["first_used_at"].endswith("+00:00") for row in everything(http, "/core/events"))
    assert None in {row["type"] for row in everything(http, "/core/properties")}
    assert {type(row["status"]) for row in everything(http, "/core/metrics")} == {str, bool}
    assert http.get("/query/metrics/x/over-time").status_code == 404


def test_totals_are_counted_from_the_truth(http: httpx.Client, world: World) -> None:
    site = world.sites[0]
    people = world.visitors[(world.visitors["site_key"] == "shop") & world.visitors["consents"]]
    ids = set(people["visitor_id"])
    visited = 0
    last: dict[int, int] = {}
    for view in world.views.sort_values(["visitor_id", "at_ms"]).itertuples():
        if view.visitor_id in ids:
            visited += view.visitor_id not in last or view.at_ms - last[view.visitor_id] > 1_800_000
            last[view.visitor_id] = view.at_ms
    rows = everything(http, f"/core/products/{site.kissmetrics_product_id}/events")
    totals = {row["display_name"]: row["total"] for row in rows}
    assert totals["Visited Site"] == visited
    sold = world.conversions[world.conversions["site_key"] == "shop"]
    assert totals["Billed"] == len(sold)  # the server tells, whatever the visitor consented to
    assert totals["Purchase"] == sold["visitor_id"].isin(ids).sum() < totals["Billed"]
    assert len(rows) > 20  # more than a default page
    assert len({row["index"] for row in rows}) == len(rows)


def test_totals_grow_with_time() -> None:
    totals = []
    for days in (3, 6):
        grown = generate(days=days)
        with Sandbox(grown, vendors=["kissmetrics"]) as running, client(running) as http:
            totals.append(
                everything(http, f"/core/products/{grown.sites[0].kissmetrics_product_id}/events")[0]["total"]
            )
    assert totals[1] > 1.5 * totals[0]


def test_root_lists_every_collection(http: httpx.Client) -> None:
    body = get(http, "/core")
    rels = {link["rel"] for link in body["data"]["links"]}
    assert set(KINDS) <= rels
    assert any(link["templated"] for link in body["data"]["links"])
    assert {rel["name"] for rel in get(http, "/core/rels")["data"]["rels"]} == set(KINDS)


def test_bare_profile() -> None:
    small = generate(days=1)
    with (
        Sandbox(small, vendors=["kissmetrics"], profiles={"kissmetrics": {"bare": True}}) as running,
        client(running) as http,
    ):
        listed = http.get("/core/products")
        assert [row["id"] for row in listed.json()] == [site.kissmetrics_product_id for site in small.sites]
        assert 'rel="self"' in listed.headers["link"]
        assert http.get(f"/core/products/{listed.json()[0]['id']}").json()["id"] == listed.json()[0]["id"]


def test_a_token_is_needed(sandbox: Sandbox) -> None:
    for header in ({}, {"authorization": "Bearer wrong"}):
        answer = httpx.get(f"{sandbox.base_urls['kissmetrics']}/core", headers=header, trust_env=False)
        assert answer.status_code == 401
        assert answer.json()["status"] == 401


def test_faults_of_paging(sandbox: Sandbox, http: httpx.Client) -> None:
    honest = get(http, "/core/events?limit=4")
    seen = {}
    for fault in (faults.foreign_link(), faults.cursor_loop(), faults.empty_pages(), faults.duplicate_rows()):
        sandbox.faults.clear()
        sandbox.faults.add("kissmetrics", "/core/events", fault=fault)
        seen[fault.kind] = get(http, "/core/events?limit=4")
    sandbox.faults.clear()
    assert str(href(seen["foreign_link"], "next")).startswith("https://apikissmetrics.com/")
    assert get(http, str(href(seen["cursor_loop"], "next"))) == honest
    assert seen["empty_pages"]["data"] == []
    assert href(seen["empty_pages"], "next")
    assert len(seen["duplicate_rows"]["data"]) == 6


# --- the query API ----------------------------------------------------------------------------------------------------

WINDOW = {"start_date": 1_791_158_400, "end_date": 1_791_331_200}


def search(http: httpx.Client) -> str:
    return next(str(r["id"]) for r in everything(http, "/core/reports") if r["report_type"] == "people_search_v2")


def test_a_query_is_accepted_then_done_then_read(http: httpx.Client, sandbox: Sandbox) -> None:
    base = sandbox.base_urls["kissmetrics"]
    accepted = http.post(f"/query/reports/{search(http)}/run", json={"report": WINDOW})
    guid = accepted.json()["query_guid"]
    assert (accepted.status_code, accepted.json()["success"]) == (202, True)
    assert accepted.headers["location"] == f"{base}/query/queries/{guid}/status"
    assert http.get(f"/query/queries/{guid}/results").status_code == 404
    told = [http.get(accepted.headers["location"]) for _ in range(3)]
    assert [answer.status_code for answer in told] == [200, 200, 201]
    assert told[-1].json() == {"completed": True, "progress": 1.0}
    page = http.get(f"{told[-1].headers['location']}?limit=5")
    assert b"&" not in page.content
    assert rb"limit=5\u0026offset=5" in page.content
    body = page.json()
    assert body["metadata"] == {"limit": 5, "offset": 0}
    assert len(body["rows"]) == 5 < body["total"]
    assert all(len(row) == len(body["columns"]) for row in body["rows"])
    assert http.get(f"/v2/queries/{guid}/results").status_code == 404  # a query belongs to one generation


def test_what_the_query_api_refuses(http: httpx.Client) -> None:
    path = f"/query/reports/{search(http)}/run"
    plain = http.post(path, content=b"{}", headers={"content-type": "text/plain"})
    assert plain.status_code == 415
    for body in (
        {},
        {"report": {}},
        {"report": {**WINDOW, "end_date": 1}},
        {"report": {**WINDOW, "end_date": "x"}},
        [],
    ):
        answer = http.post(path, json=body)
        assert (answer.status_code, answer.json()["status"]) == (400, 400)
    missing = http.post("/query/reports/nope/run", json={"report": WINDOW})
    assert missing.json() == {
        "message": "Invalid report_guid provided: report not found.",
        "error": "Not Found",
        "status": 404,
    }
    assert http.post(path, json={"report": WINDOW}, headers={"authorization": "Bearer x"}).status_code == 401
    assert http.get("/v1/queries/nope/status").status_code == 404


def test_metric_queries_are_invented_only_when_asked_for(http: httpx.Client, world: World) -> None:
    metric = everything(http, "/core/metrics")[0]["id"]
    assert http.get(f"/query/metrics/{metric}/over-time").status_code == 404
    knobs = {"kissmetrics": {"invented_metric_queries": True}}
    with Sandbox(world, vendors=["kissmetrics"], profiles=knobs) as running, client(running) as inventing:
        for record in everything(inventing, "/core/metrics"):
            over_time = get(inventing, f"/query/metrics/{record['id']}/over-time")["data"]
            segments = get(inventing, f"/query/metrics/{record['id']}/by-segment")["data"]
            assert over_time["invented"] is segments["invented"] is True
            if record["title"] != "Visits":
                continue
            events = everything(inventing, f"/core/products/{record['product_id']}/events")
            (visited,) = [event["total"] for event in events if event["display_name"] == "Visited Site"]
            assert sum(value for _, value in over_time["points"]) == visited
            assert sum(segment["value"] for segment in segments["segments"]) == visited
