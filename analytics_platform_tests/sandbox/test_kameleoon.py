"""Kameleoon's observer over a real socket: visits of a code, limits, and the losses of MARTS §5.5 against the truth."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from analytics_platform.sandbox.kameleoon import GOAL_IDS
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import World, generate

AGENT = {"user-agent": "analytics-platform-tests/1"}


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture(scope="module")
def world() -> World:
    return generate()


@pytest.fixture(scope="module")
def sandbox(world: World) -> Iterator[Sandbox]:
    with Sandbox(world, profiles={"kameleoon": {"gets_per_second": 100_000}}, vendors={"kameleoon"}) as running:
        yield running


@pytest.fixture(scope="module")
def http(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with client(sandbox, token(sandbox)) as opened:
        yield opened


def token(sandbox: Sandbox) -> str:
    given = sandbox.context.credentials
    answer = httpx.post(
        f"{sandbox.base_urls['kameleoon_auth']}/oauth/token",
        data={"grant_type": "client_credentials"},
        auth=(given.kameleoon_client_id, given.kameleoon_client_secret),
        trust_env=False,
    )
    body = answer.json()
    assert isinstance(body["expires_in"], int)
    return str(body["access_token"])


def client(sandbox: Sandbox, bearer: str | None) -> httpx.Client:
    headers = AGENT if bearer is None else {**AGENT, "authorization": f"Bearer {bearer}"}
    return httpx.Client(base_url=sandbox.base_urls["kameleoon"], headers=headers, trust_env=False)


def visits(http: httpx.Client, site: str, code: str, **query: str) -> Any:
    parameters = {"siteCode": site, "visitorCode": code, "maxNumberPreviousVisits": "25", **query}
    answer = http.get("/visit/visitor", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def naive_visits(world: World, site_key: str) -> dict[int, list[list[int]]]:
    """visitor_id → views of each visit, cut at 30 idle minutes by a plain loop over the truth."""
    found: dict[int, list[list[int]]] = defaultdict(list)
    for view in world.views[world.views["site_key"] == site_key].sort_values(["visitor_id", "at_ms"]).itertuples():
        own = found[view.visitor_id]
        if own and view.at_ms - own[-1][-1] <= 1_800_000:
            own[-1].append(view.at_ms)
        else:
            own.append([view.at_ms])
    return found


def test_visits_follow_30_minutes_and_the_losses(http: httpx.Client, world: World) -> None:
    site = world.sites[0]
    expected = naive_visits(world, "shop")
    people = world.visitors[world.visitors["site_key"] == "shop"]
    longest = max(people["visitor_id"], key=lambda v: max((visit[-1] - visit[0] for visit in expected[v]), default=0))
    chosen = people[people["visitor_id"].isin([*people["visitor_id"][::23], longest])]
    lost = kept = rejected = 0
    for person in chosen.itertuples():
        body = visits(http, site.kameleoon_site_code, person.kameleoon_code, page="true")
        if not person.consents or person.browser == "IE" or person.is_bot:
            assert body == {}
            lost += 1
            continue
        seen = [[page["time"] for page in visit["pageEvents"]] for visit in reversed(body.get("previousVisits", []))]
        for visit in expected[person.visitor_id]:
            if visit[-1] - visit[0] > 7_200_000:
                assert visit not in seen
                rejected += 1
            elif visit in seen:
                kept += 1
            else:  # only a last click beyond the two hours may reject it
                assert visit[-1] - visit[0] > 7_000_000
        assert all(visit in expected[person.visitor_id] for visit in seen)
    assert lost > 20
    assert kept > 50


def test_visits_are_newest_first_and_flags_choose_the_events(http: httpx.Client, world: World) -> None:
    site = world.sites[0]
    seen_by_tag = allowed_ids(world)
    counts = {v: len(own) for v, own in naive_visits(world, "shop").items() if v in seen_by_tag}
    busy = max(counts, key=counts.__getitem__)
    code = world.visitors.set_index("visitor_id")["kameleoon_code"][busy]
    plain = visits(http, site.kameleoon_site_code, code)["previousVisits"]
    assert len(plain) > 2
    assert [v["timeStarted"] for v in plain] == sorted((v["timeStarted"] for v in plain), reverse=True)
    assert all(set(v) == {"siteCode", "visitorCode", "timeStarted", "timeLastEvent"} for v in plain)
    full = visits(http, site.kameleoon_site_code, code, all="true")["previousVisits"]
    assert [v["staticDataEvent"]["data"]["visitNumber"] for v in full] == list(range(len(full)))[::-1]
    assert full[-1]["staticDataEvent"]["data"]["timeSincePreviousVisit"] is None
    assert full[0]["personalizationEvents"] == []
    two = visits(http, site.kameleoon_site_code, code, maxNumberPreviousVisits="2")["previousVisits"]
    assert two == plain[:2]


def test_conversions_and_exposures_are_in_their_visit(http: httpx.Client, world: World) -> None:
    site = world.sites[0]
    people = world.visitors.set_index("visitor_id")
    sold = world.conversions[world.conversions["site_key"] == "shop"].head(40)
    seen = 0
    seen_by_tag = allowed_ids(world)
    for sale in sold.itertuples():
        if sale.visitor_id not in seen_by_tag:
            continue
        code = people["kameleoon_code"][sale.visitor_id]
        body = visits(http, site.kameleoon_site_code, code, conversion="true", experiment="true")
        events = [event for visit in body.get("previousVisits", []) for event in visit["conversionEvents"]]
        for event in (event for event in events if event["time"] == sale.at_ms):
            assert event["data"] == {"goalId": GOAL_IDS["purchase"], "revenue": sale.revenue, "negative": False}
            seen += 1
        arms = world.exposures[world.exposures["visitor_id"] == sale.visitor_id]
        told = {(e["time"], e["data"]["variationId"]) for v in body["previousVisits"] for e in v["experimentEvents"]}
        assert told <= set(zip(arms["at_ms"], arms["variation_id"], strict=True))
    assert seen > 15


def test_mapping_value_finds_the_visits_of_a_login(http: httpx.Client, world: World) -> None:
    known = world.visitors[(world.visitors["site_key"] == "shop") & world.visitors["uid"].notna()]
    person = next(row for row in known.itertuples() if row.browser != "IE" and not row.is_bot)
    query = {"siteCode": world.sites[0].kameleoon_site_code, "maxNumberPreviousVisits": "25", "customData": "true"}
    body = http.get("/visit/visitor", params={**query, "mappingValue": person.uid}).json()
    assert {visit["visitorCode"] for visit in body["previousVisits"]} == {person.kameleoon_code}
    assert body["previousVisits"][0]["customDataEvents"][0]["data"]["valuesCountMap"] == {person.uid: 1}


def test_the_running_visit_is_hidden_unless_readable() -> None:
    small = generate(days=2)
    seen_by_tag = allowed_ids(small)
    people = small.visitors[small.visitors["site_key"] == "shop"]
    person = next(row for row in people.itertuples() if row.visitor_id in seen_by_tag)
    last = int(small.views[small.views["visitor_id"] == person.visitor_id]["at_ms"].max())
    for readable in (False, True):
        profiles = {"kameleoon": {"current_visit_readable": readable, "now_ms": last + 60_000}}
        with Sandbox(small, profiles=profiles, vendors={"kameleoon"}) as running, client(running, None) as http:
            body = visits(http, small.sites[0].kameleoon_site_code, person.kameleoon_code, currentVisit="true")
        assert all(visit["timeLastEvent"] < last for visit in body["previousVisits"])
        assert ("currentVisit" in body) is readable


@pytest.mark.parametrize(
    "query",
    [{}, {"siteCode": "nope", "visitorCode": "x", "maxNumberPreviousVisits": "1"}, {"visitorCode": "x"},
     {"siteCode": "f17c21u1ag", "visitorCode": "x"}, {"siteCode": "f17c21u1ag", "maxNumberPreviousVisits": "1"}],
)  # fmt: skip
def test_bad_queries(http: httpx.Client, query: dict[str, str]) -> None:
    assert http.get("/visit/visitor", params=query).status_code == 400


def test_unknown_visitor_is_an_empty_object(http: httpx.Client, world: World) -> None:
    assert visits(http, world.sites[0].kameleoon_site_code, "nobody") == {}


def test_product_counters_count_the_truth_of_those_it_sees(http: httpx.Client, world: World) -> None:
    site = world.sites[0]
    events = world.product_events[world.product_events["site_key"] == "shop"]
    seen = events[events["visitor_id"].isin(allowed_ids(world))]
    skus = list(world.products["sku"])
    query = {"siteCode": site.kameleoon_site_code, "eans": json.dumps([*skus, "unknown"])}
    counted = http.get("/product/productCounters", params=query).json()
    for sku in skus:
        rows = seen[seen["sku"] == sku]
        expected = {
            "v": (rows["kind"] == "view").sum(),
            "atcq": rows.loc[rows["kind"] == "add_to_cart", "quantity"].sum(),
            "bq": rows.loc[rows["kind"] == "purchase", "quantity"].sum(),
        }
        assert counted[sku] == {name: count for name, count in expected.items() if count}
    assert counted["unknown"] == {}
    middle = int(events["at_ms"].median())
    early = http.get("/product/productCounters", params={**query, "timeEnd": str(middle)}).json()
    late = http.get("/product/productCounters", params={**query, "timeBegin": str(middle + 1)}).json()
    assert all(early[s].get("v", 0) + late[s].get("v", 0) == counted[s].get("v", 0) for s in skus)
    known = http.get("/product/productData", params=query).json()
    assert set(known) == set(skus)


def allowed_ids(world: World) -> set[int]:
    people = world.visitors
    return set(people.loc[people["consents"] & (people["browser"] != "IE") & ~people["is_bot"], "visitor_id"])


def test_maps_hold_what_logins_bought(http: httpx.Client, world: World) -> None:
    site = world.sites[0]
    known = list(world.visitors.loc[(world.visitors["site_key"] == "shop") & world.visitors["uid"].notna(), "uid"])
    query = {"siteCode": site.kameleoon_site_code, "keys": json.dumps(known[:100])}
    maps = http.get("/map/maps", params=query).json()
    assert 0 < len(maps) < 100
    key, body = next(iter(maps.items()))
    assert http.get("/map/map", params={"siteCode": site.kameleoon_site_code, "key": key}).json() == body
    assert http.get("/map/map", params={"siteCode": site.kameleoon_site_code, "key": "gone"}).json() == {}
    too_many = {**query, "keys": json.dumps([str(n) for n in range(101)])}
    assert http.get("/map/maps", params=too_many).status_code == 400


def test_a_bad_token_is_worse_than_none(sandbox: Sandbox, world: World) -> None:
    code = world.sites[0].kameleoon_site_code
    with client(sandbox, "expired") as stranger:
        assert stranger.get("/map/map", params={"siteCode": code, "key": "k"}).status_code == 401
    with client(sandbox, None) as anonymous:
        assert anonymous.get("/map/map", params={"siteCode": code, "key": "k"}).status_code == 200


@pytest.mark.parametrize("agent", ["curl/8.5.0", "python-requests/2.32", "python-httpx/0.28.1", "Googlebot/2.1", ""])
def test_robots_are_forbidden(sandbox: Sandbox, agent: str) -> None:
    url = f"{sandbox.base_urls['kameleoon']}/map/map"
    assert httpx.get(url, headers={"user-agent": agent}, trust_env=False).status_code == 403


def test_limits_are_per_second_and_kind_of_caller() -> None:
    clock = Clock()
    running = Sandbox(generate(days=1), vendors={"kameleoon"})
    running.context.monotonic = clock
    with running, client(running, token(running)) as known, client(running, None) as anonymous:
        query = {"siteCode": running.world.sites[0].kameleoon_site_code, "key": "k"}
        assert [known.get("/map/map", params=query).status_code for _ in range(51)] == [200] * 50 + [429]
        assert [anonymous.get("/map/map", params=query).status_code for _ in range(6)] == [200] * 5 + [429]
        refused = anonymous.get("/map/map", params=query)
        assert refused.content == b""
        assert "retry-after" not in refused.headers
        clock.seconds += 0.2
        assert [anonymous.get("/map/map", params=query).status_code for _ in range(2)] == [200, 429]
        clock.seconds += 7200
        assert known.get("/map/map", params=query).status_code == 401  # the token's two hours are over


def test_products_need_the_add_on() -> None:
    small = generate(days=1)
    profiles = {"kameleoon": {"product_addon": False}}
    with Sandbox(small, profiles=profiles, vendors={"kameleoon"}) as running, client(running, None) as http:
        query = {"siteCode": small.sites[0].kameleoon_site_code, "eans": "[]"}
        assert http.get("/product/productCounters", params=query).status_code == 403
