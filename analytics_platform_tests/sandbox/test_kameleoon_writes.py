"""Kameleoon's observer as one that is written to: raw requests, and what the document and the contract say of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analytics_platform.sandbox.kameleoon_store import read_events
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import World, generate

AGENT = "analytics-platform-tests/1"
_serial = iter(range(10**9))


def nonce() -> str:
    return f"{next(_serial):016X}"


def line(**fields: object) -> str:
    return "&".join(f"{name}={quote(str(value), safe='')}" for name, value in {"nonce": nonce(), **fields}.items())


@dataclass
class Shop:
    """One site at one sandbox, spoken to by hand."""

    sandbox: Sandbox
    http: httpx.Client

    @property
    def code(self) -> str:
        return self.sandbox.world.sites[0].kameleoon_site_code

    def post(self, path: str, body: bytes | str, **query: str) -> int:
        return self.http.post(path, params={"siteCode": self.code, **query}, content=body).status_code

    def later(self, seconds: float = 3.0) -> None:
        self.sandbox.context.advance(seconds)

    def get(self, path: str, **query: str) -> Any:
        answer = self.http.get(path, params={"siteCode": self.code, **query})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def visits(self, code: str, **query: str) -> list[dict[str, Any]]:
        asked = {"maxNumberPreviousVisits": "25", "all": "true", "visitorCode": code, **query}
        body = self.get("/visit/visitor", **{name: value for name, value in asked.items() if value})
        return [*([body["currentVisit"]] if "currentVisit" in body else []), *body.get("previousVisits", [])]

    def events(self, code: str, member: str) -> list[dict[str, Any]]:
        return [event["data"] for visit in self.visits(code) for event in visit[member]]


@pytest.fixture(scope="module")
def world() -> World:
    return generate(days=2, scale=0.1)


@pytest.fixture(scope="module")
def open_shop(world: World) -> Iterator[Callable[..., Shop]]:
    with ExitStack() as stack:

        def opened(*, auth: dict[str, object] | None = None, clock: Any = None, **profile: object) -> Shop:
            generous = {"anonymous_gets_per_second": 1e6, "anonymous_others_per_second": 1e6}
            profiles = {"kameleoon": {"current_visit_readable": True, **generous, **profile}}
            sandbox = Sandbox(world, profiles={**profiles, "kameleoon_auth": auth or {}}, vendors={"kameleoon"})
            if clock is not None:
                sandbox.context.monotonic = clock
            stack.enter_context(sandbox)
            http = httpx.Client(base_url=sandbox.base_urls["kameleoon"], headers={"user-agent": AGENT}, trust_env=False)
            return Shop(sandbox, stack.enter_context(http))

        yield opened


@pytest.fixture(scope="module")
def shop(open_shop: Callable[..., Shop]) -> Shop:
    return open_shop()


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


# ---------------------------------------------------------------------------------------------------------- acceptance


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/visit/events", {"siteCode": ""}),
        ("/visit/events", {"siteCode": "nope"}),
        ("/visit/events", {"visitorCode": "x" * 101}),
        ("/visit/events", {"visitorCode": ""}),
        ("/visit/events", {"json": "perhaps"}),
        ("/visit/forget", {"siteCode": "nope"}),
        ("/product/events", {"ean": "x" * 101}),
        ("/map/maps", {"ttlHours": "0"}),
        ("/map/maps", {"ttlHours": "8785"}),
        ("/map/maps", {"ttlHours": "soon"}),
    ],
)
def test_the_url_is_checked_at_once(shop: Shop, path: str, query: dict[str, str]) -> None:
    assert shop.post(path, b"", **query) == 400


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(body=st.binary(max_size=60), path=st.sampled_from(["/visit/events", "/visit/forget", "/product/events"]))
def test_a_body_is_never_checked(shop: Shop, body: bytes, path: str) -> None:
    assert shop.post(path, body) == 204
    assert shop.post("/map/maps", body) == 204
    assert shop.post(path, body, json="true") == 204
    shop.later()
    assert shop.visits("nobody") == []


@given(body=st.binary(max_size=200), as_json=st.booleans())
def test_any_bytes_can_be_read(body: bytes, *, as_json: bool) -> None:
    assert all(isinstance(event, dict) for event in read_events(body, as_json=as_json))


def test_bad_lines_vanish_and_the_others_stay(shop: Shop) -> None:
    good = line(eventType="conversion", goalId=1, revenue=2.5, visitorCode="mixed")
    bad = [
        "nonsense",
        "",
        line(eventType="conversion", goalId="one", visitorCode="mixed"),
        line(eventType="conversion", visitorCode="mixed"),
        line(eventType="conversion", goalId=1),
        line(eventType="conversion", goalId=1, visitorCode="x" * 101),
        line(eventType="birthday", visitorCode="mixed"),
        line(eventType="conversion", goalId=1, visitorCode="mixed", nonce="short"),
        "eventType=conversion&goalId=1&visitorCode=mixed",
        line(eventType="conversion", goalId=1, revenue="nan", visitorCode="mixed"),
        line(eventType="customData", index=1, valuesCountMap="{", visitorCode="mixed"),
        line(eventType="customData", index=1, visitorCode="mixed"),
        line(eventType="conversion", goalId=1, visitorCode="mixed") + "&title=%ff",
    ]
    assert shop.post("/visit/events", "\n".join([*bad, good, *bad])) == 204
    assert shop.visits("mixed") == []
    shop.later()
    assert shop.events("mixed", "conversionEvents") == [{"goalId": 1, "revenue": 2.5, "negative": False}]
    assert shop.events("mixed", "customDataEvents") == []


@pytest.mark.parametrize("kind", ["CONVERSION", "Conversion", "conversion"])
def test_kinds_are_written_in_any_case(shop: Shop, kind: str) -> None:
    shop.post("/visit/events", json.dumps([{"nonce": nonce(), "eventType": kind, "goalId": 85, "revenue": "12.5"}]),
              json="true", visitorCode=f"case-{kind}")  # fmt: skip
    shop.later()
    assert shop.events(f"case-{kind}", "conversionEvents")[0]["revenue"] == 12.5


def test_the_visitor_of_the_url_wins(shop: Shop) -> None:
    shop.post("/visit/events", line(eventType="activity", clicks=2, visitorCode="body"), visitorCode="url")
    shop.later()
    assert (shop.visits("body"), len(shop.visits("url"))) == ([], 1)


def test_a_nonce_is_known_whatever_its_case_and_visitor(shop: Shop) -> None:
    first = nonce()[:-1] + "A"
    shop.post("/visit/events", line(nonce=first, eventType="activity", clicks=1, visitorCode="n1"))
    shop.post("/visit/events", line(nonce=first.lower(), eventType="activity", clicks=1, visitorCode="n2"))
    shop.later()
    assert (len(shop.visits("n1")), shop.visits("n2")) == (1, [])


def test_too_large_a_body_is_413(open_shop: Callable[..., Shop], shop: Shop) -> None:
    assert shop.post("/visit/events", b"x" * 3_000_001) == 413
    assert shop.post("/visit/events", b"x" * 3_000_000) == 204
    assert shop.post("/map/maps", b"x" * 1_000_001) == 413
    assert shop.post("/visit/forget", b"x" * 1_000_001) == 413


def test_robots_may_not_write(shop: Shop) -> None:
    url = f"{shop.sandbox.base_urls['kameleoon']}/visit/events?siteCode={shop.code}"
    for agent, status in (("Googlebot/2.1", 403), ("curl/8", 403), ("Python/3.11 aiohttp/3.9.1", 204), ("node", 204)):
        assert httpx.post(url, content=b"", headers={"user-agent": agent}, trust_env=False).status_code == status


def test_a_robot_that_is_told_in_the_body_vanishes(shop: Shop) -> None:
    for agent in ("Googlebot/2.1", "Mozilla/5.0"):
        body = line(eventType="activity", clicks=1, visitorCode=f"ua-{agent[:4]}", userAgent=agent)
        assert shop.post("/visit/events", body, bodyUa="true", sdkName="PYTHON", sdkVersion="3.22.2") == 204
    shop.later()
    assert shop.visits("ua-Goog") == []
    (visit,) = shop.visits("ua-Mozi")
    assert visit["activityEvents"][0]["sdk"] == {"name": "PYTHON", "version": "3.22.2"}


def test_a_bad_token_is_refused_on_posts_too(shop: Shop) -> None:
    for value in ("Bearer expired", "Basic eDp5", "Bearer"):
        answer = shop.http.post(
            "/visit/events", params={"siteCode": shop.code}, content=b"", headers={"authorization": value}
        )
        assert answer.status_code == 401


def test_posts_have_a_bucket_of_their_own(open_shop: Callable[..., Shop]) -> None:
    clock = Clock()
    shop = open_shop(clock=clock, anonymous_others_per_second=50.0, anonymous_gets_per_second=5.0)
    assert [shop.post("/visit/events", b"") for _ in range(51)] == [204] * 50 + [429]
    assert shop.get("/map/map", key="k") == {}
    assert shop.post("/map/maps", b"{}") == 429, "one bucket a verb, whatever the path"
    refused = shop.http.post("/visit/events", params={"siteCode": shop.code})
    assert (refused.content, "retry-after" in refused.headers) == (b"", False)
    clock.seconds += 0.1
    assert [shop.post("/visit/events", b"") for _ in range(6)] == [204] * 5 + [429]
    shop.http.headers["authorization"] = f"Bearer {token(shop).json()['access_token']}"
    assert {shop.post("/visit/events", b"") for _ in range(200)} == {204}


def token(shop: Shop) -> httpx.Response:
    given = shop.sandbox.context.credentials
    return httpx.post(
        f"{shop.sandbox.base_urls['kameleoon_auth']}/oauth/token",
        data={"grant_type": "client_credentials"},
        auth=(given.kameleoon_client_id, given.kameleoon_client_secret),
        trust_env=False,
    )


def test_the_token_host_counts_calls_of_an_account(open_shop: Callable[..., Shop]) -> None:
    clock = Clock()
    shop = open_shop(clock=clock, auth={"calls_per_minute": 12})
    assert [token(shop).status_code for _ in range(13)] == [200] * 12 + [429]
    clock.seconds += 60
    assert token(shop).status_code == 200


# -------------------------------------------------------------------------------------------------------------- visits


def test_thirty_idle_minutes_begin_a_new_visit(shop: Shop) -> None:
    for wait in (0, 1700, 1900):
        shop.later(wait)
        shop.post("/visit/events", line(eventType="activity", clicks=1, visitorCode="idle"))
    shop.later()
    assert [len(visit["activityEvents"]) for visit in shop.visits("idle")] == [1, 2]
    newest, oldest = shop.visits("idle")
    assert newest["timeStarted"] - oldest["timeLastEvent"] >= 1_900_000


def test_events_go_on_with_the_visit_of_the_truth_that_is_running(
    open_shop: Callable[..., Shop], shop: Shop, world: World
) -> None:
    people = world.visitors
    seen = people[(people["site_key"] == "shop") & people["consents"] & ~people["is_bot"] & (people["browser"] != "IE")]
    person = next(row for row in seen.itertuples() if shop.visits(str(row.kameleoon_code)))
    latest = shop.visits(str(person.kameleoon_code))[0]
    running = open_shop(now_ms=latest["timeLastEvent"] + 60_000)
    before = running.visits(str(person.kameleoon_code))
    assert before[0]["timeStarted"] == latest["timeStarted"]
    running.post("/visit/events", line(eventType="conversion", goalId=1, visitorCode=person.kameleoon_code))
    running.later()
    after = running.visits(str(person.kameleoon_code))
    assert len(after) == len(before)
    assert after[0]["pageEvents"] == latest["pageEvents"]
    assert len(after[0]["conversionEvents"]) == len(latest["conversionEvents"]) + 1
    assert after[0]["timeLastEvent"] > latest["timeLastEvent"]
    assert after[1:] == before[1:]


def test_what_is_told_of_the_device_in_parts_is_one_event(shop: Shop) -> None:
    # The official clients send browser, device and system as events of their own, and the index without the name.
    agent = "Mozilla/5.0 (Linux; Android 14; Pixel) AppleWebKit/537.36 Chrome/120.0 Mobile Safari/537.36"
    parts: list[dict[str, object]] = [{"browserIndex": 2, "browserVersion": 99.5}, {"deviceType": "TABLET"}]
    body = [line(eventType="staticData", visitorCode="parts", userAgent=agent, **part) for part in parts]
    for _ in range(2):
        shop.post("/visit/events", "\n".join(body), bodyUa="true")
        shop.later(1900)
        body = [line(eventType="staticData", osIndex=1, visitorCode="parts")]
    newest, oldest = (visit["staticDataEvent"]["data"] for visit in shop.visits("parts"))
    told = {name: oldest[name] for name in ("browser", "browserVersion", "os", "osIndex", "deviceType", "visitNumber")}
    assert told == {
        "browser": "FIREFOX", "browserVersion": 99.5, "os": "ANDROID", "osIndex": 4, "deviceType": "TABLET",
        "visitNumber": 0,
    }  # fmt: skip
    assert (newest["os"], newest["visitNumber"]) == ("MAC", 1)
    assert newest["timeSincePreviousVisit"] >= 1_900_000
    # One of these null, and the official Python client gives up on the whole answer.
    assert None not in [newest[name] for name in ("browser", "os", "deviceType")]


def test_without_a_word_about_the_device_there_is_no_such_event(shop: Shop) -> None:
    shop.post("/visit/events", line(eventType="activity", clicks=1, visitorCode="server"))
    shop.later()
    (visit,) = shop.visits("server")
    assert "staticDataEvent" not in visit


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) Gecko/20100101 Firefox/120.0", ("FIREFOX", "WINDOWS", "DESKTOP")),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Version/17.0 Mobile/15E148 Safari/604.1",
         ("SAFARI", "IOS", "PHONE")),
        ("Mozilla/5.0 (iPad; CPU OS 17_0 like Mac OS X) Version/17.0 Safari/604.1", ("SAFARI", "IOS", "TABLET")),
        ("Mozilla/5.0 (X11; Linux x86_64) Chrome/120.0 Safari/537.36 OPR/106.0", ("OPERA", "LINUX", "DESKTOP")),
    ],
)  # fmt: skip
def test_a_browser_is_known_by_its_user_agent(shop: Shop, agent: str, expected: tuple[str, str, str]) -> None:
    code = f"agent-{expected[1]}-{expected[2]}"
    body = line(eventType="activity", clicks=1, visitorCode=code)
    shop.http.post("/visit/events", params={"siteCode": shop.code}, content=body, headers={"user-agent": agent})
    shop.later()
    data = shop.visits(code)[0]["staticDataEvent"]["data"]
    assert (data["browser"], data["os"], data["deviceType"]) == expected


def test_a_visit_over_two_hours_is_rejected(shop: Shop) -> None:
    for _ in range(6):
        shop.post("/visit/events", line(eventType="activity", clicks=1, visitorCode="long"))
        shop.later(1500)
    assert shop.visits("long") == []


def test_scores_are_there_when_asked_for(shop: Shop, world: World) -> None:
    shop.post("/visit/events", line(eventType="activity", clicks=1, visitorCode="scored"))
    shop.later()
    asked = {"maxNumberPreviousVisits": "25", "visitorCode": "scored"}
    body = shop.get("/visit/visitor", **asked, kcs="true", cbs="true", version="0")
    assert (body["kcs"], body["cbs"]) == ({}, {})
    assert "kcs" not in shop.get("/visit/visitor", **asked)


# ----------------------------------------------------------------------------------------------------- maps, products


def test_maps_live_as_long_as_they_were_told_to(shop: Shop) -> None:
    assert (
        shop.post("/map/maps", json.dumps({"short": {"a": 1}, "x" * 101: {"a": 1}, "list": [1]}), ttlHours="2") == 204
    )
    assert shop.get("/map/map", key="short") == {}
    shop.later()
    assert shop.get("/map/maps", keys='["short","list"]') == {"short": {"a": 1}}
    shop.later(2 * 3600)
    assert shop.get("/map/map", key="short") == {}


def test_a_map_of_the_past_is_replaced_or_goes_with_its_visitor(open_shop: Callable[..., Shop], world: World) -> None:
    people = world.visitors[(world.visitors["site_key"] == "shop") & world.visitors["uid"].notna()]
    replaced, forgotten = open_shop(), open_shop()
    login = next(iter(replaced.get("/map/maps", keys=json.dumps(list(people["uid"])[:100]))))
    replaced.post("/map/maps", json.dumps({login: {"tier": "gold"}}))
    forgotten.post("/visit/forget", "\n".join(people.loc[people["uid"] == login, "kameleoon_code"]))
    for shop in (replaced, forgotten):
        assert "orders" in shop.get("/map/map", key=login), "accepted is not yet done"
        shop.later()
    assert replaced.get("/map/map", key=login) == {"tier": "gold"}
    assert forgotten.get("/map/map", key=login) == {}
    assert forgotten.visits("", mappingValue=login) == []
    assert len(replaced.visits("", mappingValue=login)) > 0


def test_products_written_add_to_those_of_the_truth(shop: Shop, world: World) -> None:
    products = world.products[world.products["site_key"] == "shop"]
    sku = str(products["sku"].iloc[0])
    eans = json.dumps([sku, "new"])
    before = shop.get("/product/productCounters", eans=eans)
    body = [
        {"eventType": "PRODUCTBUY", "ean": sku, "quantity": 2},
        {"eventType": "productAddToCart", "ean": sku, "quantity": 3, "nonce": nonce()},
        {"eventType": "PRODUCTPAGE", "ean": "new", "name": "Mug", "price": "9.5"},
        {"eventType": "PRODUCTBUY", "ean": "new", "quantity": "many"},
        {"eventType": "PRODUCTBUY"},
    ]
    assert shop.post("/product/events", json.dumps(body), json="true") == 204
    shop.later()
    after = shop.get("/product/productCounters", eans=eans)
    assert after[sku].get("bq", 0) == before[sku].get("bq", 0) + 2
    assert after[sku].get("atcq", 0) == before[sku].get("atcq", 0) + 3
    assert after["new"] == {"v": 1}
    assert shop.get("/product/productData", eans=eans)["new"] == {"name": "Mug", "price": 9.5}
    end = str(world.now_ms)
    assert shop.get("/product/productCounters", eans=eans, timeEnd=end)[sku] == before[sku], "the past stays as it was"


# ---------------------------------------------------------------------------------------------------- official clients


def test_the_configuration_that_official_clients_ask_first(shop: Shop) -> None:
    path = f"/v3/{shop.code}"
    told = shop.http.get(path)
    assert told.json()["configuration"] == {
        "realTimeUpdate": False,
        "consentType": "OFF",
        "consentOptOutBehavior": "PARTIALLY_BLOCK",
        "dataApiDomain": shop.sandbox.base_urls["kameleoon"].removeprefix("http://"),
    }
    again = shop.http.get(path, headers={"if-modified-since": told.headers["last-modified"]})
    assert (again.status_code, again.content) == (304, b"")
    assert shop.http.get("/v3/nope").status_code == 404
    assert all(shop.http.get(path).status_code == 200 for _ in range(20)), "no limit of the data host"
