"""Kameleoon's own JavaScript SDK through its extension point for requests.

Belongs here: what it reads is what our client reads and what the truth says; what it sends is read back by our client.
Does not belong here: endpoints the SDK does not know (`vendors/kameleoon/test_endpoints`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from analytics_platform_tests.official_clients.kameleoon_side import ASYNCHRONOUS_SECONDS, Seen, Side, running
from analytics_platform_tests.official_clients.official_client import OfficialClient

EVERYTHING = dict.fromkeys(
    (
        "currentVisit",
        "customData",
        "pageViews",
        "geolocation",
        "device",
        "browser",
        "operatingSystem",
        "conversions",
        "experiments",
        "kcs",
        "cbs",
        "visitorCode",
        "personalization",
    ),
    True,
) | {"previousVisitAmount": 25}


@pytest.fixture(scope="module")
def side() -> Iterator[Side]:
    with running() as found:
        yield found


@pytest.fixture(scope="module")
def sdk(side: Side, run_node: Callable[[str], OfficialClient]) -> OfficialClient:
    client = run_node("kameleoon_javascript_sdk.cjs")
    client.call("(new)", {"siteCode": side.site.kameleoon_site_code, "baseUrl": side.sandbox.base_urls["kameleoon"]})
    assert client.call("initialize") is True
    return client


def visitor(sdk: OfficialClient, code: str) -> Seen:
    """The visitor as the SDK hands it out, put into the same figures as our own reading."""
    told = sdk.call("getRemoteVisitorData", {"visitorCode": code, "shouldAddData": False, "filters": EVERYTHING})
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for one in told:
        by_kind.setdefault(one["type"], []).append(one)
    browser, system, device, place = (
        next(iter(by_kind.get(kind, ())), {}) for kind in ("browser", "operatingSystem", "device", "geolocation")
    )
    return Seen(
        pages={one["urlAddress"]: one.get("title") for one in by_kind.get("pageView", ())},
        page_views=sum(len(one["timestamps"]) for one in by_kind.get("pageView", ())),
        conversions=Counter((one["goalId"], one["revenue"]) for one in by_kind.get("conversion", ())),
        custom_data={one["index"]: tuple(one["value"]) for one in by_kind.get("customData", ())},
        browser=browser.get("browser"),
        browser_version=browser.get("version"),
        system=system.get("operatingSystem"),
        device=device.get("device"),
        place=tuple(place.get(name) for name in ("country", "region", "city")) if place else None,
    )


def test_no_request_of_the_sdk_is_forgotten(node_modules: Path) -> None:
    """What its requester can ask, as declared; each is asked below."""
    declared = node_modules / "@kameleoon" / "javascript-sdk-core" / "dist" / "requester" / "requester.d.ts"
    public = set(re.findall(r"(?m)^    (\w+)\(", declared.read_text(encoding="utf-8"))) - {"constructor"}
    assert public == {"getClientConfiguration", "getRemoteData", "getVisitorData", "track"}


def test_the_configuration_is_what_makes_it_ask_the_sandbox(side: Side, sdk: OfficialClient) -> None:
    """It refuses every data call until its configuration names a data host."""
    asked = [call for call in sdk.call("(sent)") if "/v3/" in call["url"]]
    assert [(call["method"], call["status"]) for call in asked] == [("GET", 200)]
    assert asked[0]["url"].endswith(f"/v3/{side.site.kameleoon_site_code}")


def test_visitors_are_read_as_our_client_reads_them(side: Side, sdk: OfficialClient) -> None:
    codes = side.codes
    assert len(codes) > 3
    for code in codes:
        assert visitor(sdk, code) == side.seen(code)


def test_visitors_are_who_the_truth_says(side: Side, sdk: OfficialClient) -> None:
    """Past our client: device, country and what was bought stand in the world the sandbox was made from."""
    world = side.sandbox.world
    bought = 0
    for code in side.codes:
        found, person = visitor(sdk, code), side.person(code)
        revenue = world.conversions.loc[world.conversions["visitor_id"] == person["visitor_id"], "revenue"].tolist()
        assert found.device == person["device"].upper()
        assert found.place is not None
        assert found.place[0] == person["country_name"]
        assert sorted(one for _, one in found.conversions.elements()) == pytest.approx(sorted(revenue))
        bought += len(revenue)
    assert bought


def test_an_unknown_visitor_has_nothing(sdk: OfficialClient) -> None:
    assert sdk.call("getRemoteVisitorData", {"visitorCode": "nobody", "filters": EVERYTHING}) == []


def test_what_it_sends_is_read_back(side: Side, sdk: OfficialClient) -> None:
    """One instant flush of every kind of data; the text body's odd characters survive both ways."""
    url = "https://shop.example/a?b=1&c=ü#d"
    sdk.call("(sent)")
    sdk.call(
        "addData",
        "sdk js",
        {"kind": "PageView", "of": [{"urlAddress": url, "title": "Ten % & more"}]},
        {"kind": "Conversion", "of": [{"goalId": 310085, "revenue": 12.5}]},
        {"kind": "CustomData", "of": [4, "x", "y=z"]},
        {"kind": "GeolocationData", "of": [{"country": "France", "region": "Bretagne", "city": "Brest"}]},
        {"kind": "Browser", "of": ["FIREFOX", 127]},
        {"kind": "OperatingSystem", "of": ["LINUX"]},
        {"kind": "Device", "of": ["TABLET"]},
        {"kind": "UserAgent", "of": ["Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0"]},
    )
    sdk.call("flush", {"visitorCode": "sdk js", "instant": True})
    [sent] = sdk.call("(sent)")
    asked = parse_qs(urlsplit(sent["url"]).query)
    lines = sent["body"].split("\n")
    assert (sent["method"], sent["status"]) == ("POST", 204)
    assert (asked["sdkName"], asked["bodyUa"]) == (["javascript"], ["true"])
    assert all("&nonce=" in line and line.count("visitorCode=sdk%20js") == 1 for line in lines)
    assert not side.visits("sdk js")

    side.sandbox.context.advance(ASYNCHRONOUS_SECONDS)
    found = side.seen("sdk js")
    assert found == Seen(
        pages={url: "Ten % & more"},
        page_views=1,
        conversions=Counter({(310085, 12.5): 1}),
        custom_data={4: ("x", "y=z")},
        browser="FIREFOX",
        browser_version=127.0,
        system="LINUX",
        device="TABLET",
        place=("France", "Bretagne", "Brest"),
    )
    assert visitor(sdk, "sdk js") == found


def test_a_conversion_goes_with_the_next_flush_of_all(side: Side, sdk: OfficialClient) -> None:
    """`trackConversion` only schedules; flushing everybody sends it, once."""
    sdk.call("trackConversion", {"visitorCode": "buyer", "goalId": 310086, "revenue": 3})
    sdk.call("flush", {"instant": True})
    sdk.call("(sent)")
    side.sandbox.context.advance(ASYNCHRONOUS_SECONDS)
    assert side.seen("buyer").conversions == Counter({(310086, 3.0): 1})


def test_a_body_that_arrives_twice_counts_once(side: Side, sdk: OfficialClient) -> None:
    """After a lost answer the SDK sends the same body with the same nonces; each is taken once."""
    sdk.call("addData", "again", {"kind": "Conversion", "of": [{"goalId": 310085, "revenue": 5}]})
    side.sandbox.requests.clear()
    sdk.call("(repeat)")
    sdk.call("flush", {"visitorCode": "again", "instant": True})
    sdk.call("(sent)")
    assert [record.status for record in side.sandbox.requests.records(path="/visit/events")] == [204, 204]
    side.sandbox.context.advance(ASYNCHRONOUS_SECONDS)
    assert side.seen("again").conversions == Counter({(310085, 5.0): 1})


def test_maps_are_read_whole(side: Side, sdk: OfficialClient) -> None:
    """Written by our client, read by theirs, keys with a space and an accent included."""
    maps: dict[str, dict[str, object]] = {
        "plain": {"score": 7, "tags": ["a", "b"], "nested": {"x": None}},
        "élan vital": {"warehouseAudiences": {"frequent": 1, "swiss": 1}},
    }
    side.writer.write_maps(site_code=side.site.kameleoon_site_code, maps=maps)
    assert sdk.call("getRemoteData", "plain") == {}
    side.sandbox.context.advance(ASYNCHRONOUS_SECONDS)
    for key, wanted in maps.items():
        assert sdk.call("getRemoteData", key) == wanted
    audience = sdk.call(
        "getVisitorWarehouseAudience", {"visitorCode": "buyer", "customDataIndex": 9, "warehouseKey": "élan vital"}
    )
    assert (audience["index"], sorted(audience["value"])) == (9, ["frequent", "swiss"])


def test_it_sends_no_token(side: Side, sdk: OfficialClient) -> None:
    """A client in a browser must not authenticate (contract B9, 4)."""
    side.sandbox.requests.clear()
    sdk.call("getRemoteData", "plain")
    assert [record.authorization_seen for record in side.sandbox.requests.records()] == [False]
