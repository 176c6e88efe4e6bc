"""Kameleoon's own Python client (GPLv3) in its own environment and its own process.

Belongs here: its token, what it reads beside our client, what it sends and our client reads back. Does not belong here:
endpoints it does not know (`vendors/kameleoon/test_endpoints`), anything imported from it.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from analytics_platform_tests.official_clients.kameleoon_side import ASYNCHRONOUS_SECONDS, Seen, Side, running
from analytics_platform_tests.official_clients.official_client import OfficialClient

EVERYTHING = dict.fromkeys(
    (
        "current_visit",
        "custom_data",
        "page_views",
        "geolocation",
        "device",
        "browser",
        "operating_system",
        "conversions",
        "experiments",
        "kcs",
        "cbs",
        "personalization",
    ),
    True,
) | {"previous_visit_amount": 25}
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def side() -> Iterator[Side]:
    with running() as found:
        yield found


@pytest.fixture(scope="module")
def theirs(side: Side, run_python: Callable[[str], OfficialClient]) -> OfficialClient:
    return started(side, run_python)


def started(side: Side, run_python: Callable[[str], OfficialClient]) -> OfficialClient:
    """A client of its own, configured and without a token yet."""
    client = run_python("kameleoon_python_client.py")
    secret = side.sandbox.context.credentials
    ready = client.call(
        "new",
        {
            "site_code": side.site.kameleoon_site_code,
            "client_id": secret.kameleoon_client_id,
            "client_secret": secret.kameleoon_client_secret,
            "data_url": side.sandbox.base_urls["kameleoon"],
            "token_url": side.sandbox.base_urls["kameleoon_auth"],
        },
    )
    assert ready is True
    return client


def visitor(theirs: OfficialClient, code: str, **filters: Any) -> Seen:
    """The visitor as the client hands it out, put into the same figures as our own reading."""
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for one in theirs.call("visitor", code, {**EVERYTHING, **filters}):
        by_kind.setdefault(one["kind"], []).append(one)
    browser, system, device, place = (
        next(iter(by_kind.get(kind, ())), {}) for kind in ("Browser", "OperatingSystem", "Device", "Geolocation")
    )
    pages = {one["url"]: one.get("title") for one in by_kind.get("PageView", ())}
    return Seen(
        pages=pages,
        page_views=len(pages),
        conversions=Counter((one["goal_id"], one["revenue"]) for one in by_kind.get("Conversion", ())),
        custom_data={one["index"]: tuple(one["values"]) for one in by_kind.get("CustomData", ())},
        browser=browser.get("browser_type"),
        browser_version=browser.get("version"),
        system=system.get("os_type"),
        device=device.get("device_type"),
        place=tuple(place.get(name) for name in ("country", "region", "city")) if place else None,
    )


def as_it_counts(seen: Seen) -> Seen:
    """It hands out each page once, without how often."""
    return Seen(**{**seen.__dict__, "page_views": len(seen.pages)})


def test_the_project_never_imports_it() -> None:
    """Its licence stays on its side of a pipe: one script, run by another interpreter."""
    importing = set()
    for path in [*(ROOT / "analytics_platform").rglob("*.py"), *(ROOT / "analytics_platform_tests").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.partition(".")[0] == "kameleoon" for name in names):
                importing.add(path.name)
    assert importing == {"kameleoon_python_client.py"}
    for name in ("requirements.lock", "pyproject.toml"):
        assert "kameleoon-client" not in (ROOT / name).read_text(encoding="utf-8")


def test_no_request_of_it_is_forgotten(theirs: OfficialClient) -> None:
    """What it can make a URL for; all but the stream of configuration changes are asked below."""
    assert theirs.call("addresses") == [
        "make_access_token_url",
        "make_api_data_get_request_url",
        "make_configuration_url",
        "make_real_time_url",
        "make_tracking_url",
        "make_visitor_data_get_url",
    ]


def test_it_trades_basic_for_a_bearer_once(side: Side, run_python: Callable[[str], OfficialClient]) -> None:
    """Its first data call fetches a token with Basic credentials; every later one carries it."""
    fresh = started(side, run_python)
    side.sandbox.requests.clear()
    fresh.call("map", "anything")
    fresh.call("map", "anything")
    records = side.sandbox.requests.records()
    tokens = [r for r in records if r.path == "/oauth/token"]
    reads = [r for r in records if r.path == "/map/map"]
    assert [(r.method, r.status, r.authorization_seen) for r in tokens] == [("POST", 200, True)]
    assert [(r.status, r.authorization_seen) for r in reads] == [(200, True)] * 2


def test_a_revoked_token_ends_in_a_call_without_one(side: Side, theirs: OfficialClient) -> None:
    """It discards a refused token, asks for another, and its data comes all the same."""
    code = side.codes[0]
    before = visitor(theirs, code)
    side.sandbox.context.token_store("kameleoon").revoke_all()
    side.sandbox.requests.clear()
    after = visitor(theirs, code)
    calls = [(r.path, r.status, r.authorization_seen) for r in side.sandbox.requests.records()]
    assert calls[0] == ("/visit/visitor", 401, True)
    assert calls[-1][:2] == ("/visit/visitor", 200)
    assert after == before


def test_visitors_are_read_as_our_client_reads_them(side: Side, theirs: OfficialClient) -> None:
    codes = side.codes
    assert len(codes) > 3
    for code in codes:
        assert visitor(theirs, code) == as_it_counts(side.seen(code))


def test_visitors_are_who_the_truth_says(side: Side, theirs: OfficialClient) -> None:
    world = side.sandbox.world
    bought = 0
    for code in side.codes:
        found, person = visitor(theirs, code), side.person(code)
        revenue = world.conversions.loc[world.conversions["visitor_id"] == person["visitor_id"], "revenue"].tolist()
        assert found.device == person["device"].upper()
        assert sorted(one for _, one in found.conversions.elements()) == pytest.approx(sorted(revenue))
        bought += len(revenue)
    assert bought


def test_an_unknown_visitor_has_nothing(theirs: OfficialClient) -> None:
    assert theirs.call("visitor", "nobody", EVERYTHING) == []


def test_what_it_sends_is_read_back(side: Side, theirs: OfficialClient) -> None:
    url = "https://shop.example/a?b=1&c=ü"
    side.sandbox.requests.clear()
    begun = theirs.call(
        "send",
        "sdk py",
        {"kind": "PageView", "of": [url, "Ten % & more"]},
        {"kind": "Conversion", "of": [310085, 12.5]},
        {"kind": "CustomData", "of": [4, "x", "y=z"]},
        {"kind": "Geolocation", "of": ["France", "Bretagne", "Brest"]},
        {"kind": "Browser", "of": ["BrowserType.FIREFOX", 127.0]},
        {"kind": "OperatingSystem", "of": ["OperatingSystemType.LINUX"]},
        {"kind": "Device", "of": ["DeviceType.TABLET"]},
        {"kind": "UserAgent", "of": ["Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0"]},
    )
    assert begun == 1
    [sent] = [record for record in side.sandbox.requests.records() if record.path == "/visit/events"]
    assert (sent.method, sent.status, sent.authorization_seen) == ("POST", 204, True)
    assert "bodyUa=true" in sent.query
    assert "sdkName=PYTHON" in sent.query
    assert not side.visits("sdk py")

    side.sandbox.context.advance(ASYNCHRONOUS_SECONDS)
    found = side.seen("sdk py")
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
    assert visitor(theirs, "sdk py") == found
    [event] = [event for visit in side.visits("sdk py") for event in visit["conversionEvents"]]
    assert event["sdk"] == {"name": "PYTHON", "version": "3.22.2"}


def test_maps_are_read_whole(side: Side, theirs: OfficialClient) -> None:
    maps: dict[str, dict[str, object]] = {
        "plain": {"score": 7, "tags": ["a", "b"], "nested": {"x": None}},
        "élan / vital": {"warehouseAudiences": {"frequent": 1}},
    }
    assert theirs.call("map", "plain") == {}
    side.writer.write_maps(site_code=side.site.kameleoon_site_code, maps=maps)
    side.sandbox.context.advance(ASYNCHRONOUS_SECONDS)
    for key, wanted in maps.items():
        assert theirs.call("map", key) == wanted


def test_internet_explorer_is_more_than_it_can_read(side: Side, theirs: OfficialClient) -> None:
    """The client's own bug: the wire says `IE`, its enumeration does not know the word, and the visitor comes out
    empty (contract B5). Without asking for the browser the same visitor is read.
    """
    theirs.call("send", "explorer", {"kind": "Browser", "of": ["BrowserType.INTERNET_EXPLORER", 11.0]})
    theirs.call("send", "explorer", {"kind": "PageView", "of": ["https://shop.example/old", "Old"]})
    side.sandbox.context.advance(ASYNCHRONOUS_SECONDS)
    assert side.seen("explorer").browser == "IE"
    assert visitor(theirs, "explorer").pages == {}
    assert visitor(theirs, "explorer", browser=False, device=False, operating_system=False).pages == {
        "https://shop.example/old": "Old"
    }
