"""Every endpoint that a class of this vendor speaks for, through that class, over loopback.

Belongs here: one call for each mark and what is particular about its answer. Does not belong here: limits, failures and
traps, which have modules of their own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

import pytest

from analytics_platform.core.endpoints import endpoints_of
from analytics_platform.core.opt_in import Confirmation
from analytics_platform.vendors.kameleoon.client import KameleoonClient
from analytics_platform.vendors.kameleoon.erasure import KameleoonErasure
from analytics_platform.vendors.kameleoon.outbound import KameleoonWriter, ProductEvent, VisitEvent
from analytics_platform_tests.vendors.kameleoon.conftest import VISIBLE_SECONDS, Site

CLASSES: Final = (KameleoonClient, KameleoonWriter, KameleoonErasure)


def token(site: Site) -> None:
    for _ in range(2):
        site.client.stored_map(site_code=site.code, key="k")
    signed = site.sandbox.requests.records(vendor="kameleoon", path="/map/map")
    assert [record.authorization_seen for record in signed] == [True, True]
    assert site.sandbox.requests.count(vendor="kameleoon_auth") == 2, "one token a client"


def visitor(site: Site) -> None:
    code = site.visitors[0]
    page = site.client.visitor(site_code=site.code, visitor_code=code, kinds="all")
    visits = json.loads(page.body)["previousVisits"]
    assert len(visits) == page.records > 0
    assert {visit["visitorCode"] for visit in visits} == {code}
    assert all(visit["pageEvents"][0]["data"]["href"].startswith("https://") for visit in visits)


def visit_events(site: Site) -> None:
    site.writer.post_events(
        site_code=site.code, visitor_code=site.new, events=[VisitEvent.conversion(goal_id=85, revenue=12.5)]
    )
    site.sandbox.context.advance(VISIBLE_SECONDS)
    (visit,) = site.visits(site.new)
    assert [event["data"] for event in visit["conversionEvents"]] == [
        {"goalId": 85, "revenue": 12.5, "negative": False}
    ]


def visit_forget(site: Site) -> None:
    stays, gone = site.visitors[0], site.visitors[-2]
    site.erasure.forget(
        site_code=site.code, visitor_codes=[gone], confirm=Confirmation(f"forget 1 visitors at {site.code}")
    )
    site.sandbox.context.advance(VISIBLE_SECONDS)
    assert site.visits(gone) == []
    assert len(site.visits(stays)) > 0


def product_events(site: Site) -> None:
    events = [ProductEvent.buy(ean=site.new, quantity=3), ProductEvent.page(ean=site.new)]
    site.writer.post_product_events(site_code=site.code, events=events)
    site.sandbox.context.advance(VISIBLE_SECONDS)
    page = site.client.product_counters(site_code=site.code, eans=[site.new])
    assert json.loads(page.body) == {site.new: {"v": 1, "bq": 3}}


def product_counters(site: Site) -> None:
    page = site.client.product_counters(site_code=site.code, eans=site.skus[:50])
    counted = json.loads(page.body)
    events = site.sandbox.world.product_events
    views = events[(events["site_key"] == "shop") & (events["kind"] == "view")]
    assert set(counted) == set(site.skus[:50])
    assert 0 < sum(counts.get("v", 0) for counts in counted.values()) <= len(views)


def product_data(site: Site) -> None:
    page = site.client.product_data(site_code=site.code, eans=[site.skus[0], "unknown"])
    told = json.loads(page.body)
    products = site.sandbox.world.products.set_index("sku")
    assert told == {site.skus[0]: {"name": products["name"][site.skus[0]], "price": products["price"][site.skus[0]]}}
    assert page.records == 1


def one_map(site: Site) -> None:
    site.writer.write_maps(site_code=site.code, maps={f"{site.new}/7 é": {"tier": "gold", "orders": 3}})
    site.sandbox.context.advance(VISIBLE_SECONDS)
    assert site.client.stored_map(site_code=site.code, key=f"{site.new}/7 é") == {"tier": "gold", "orders": 3}
    assert site.client.stored_map(site_code=site.code, key="nobody") == {}


def several_maps(site: Site) -> None:
    site.writer.write_maps(site_code=site.code, maps={"a": {"n": 1}, "b": {"n": [1, {"x": None}]}})
    site.sandbox.context.advance(VISIBLE_SECONDS)
    found = site.client.stored_maps(site_code=site.code, keys=["a", "b", "nobody"])
    assert found == {"a": {"n": 1}, "b": {"n": [1, {"x": None}]}}


def write_maps(site: Site) -> None:
    site.writer.write_maps(site_code=site.code, maps={site.new: {"n": 1}}, ttl_hours=1)
    site.sandbox.context.advance(VISIBLE_SECONDS)
    assert site.client.stored_map(site_code=site.code, key=site.new) == {"n": 1}
    site.sandbox.context.advance(3600)
    assert site.client.stored_map(site_code=site.code, key=site.new) == {}


ENDPOINT_CALLS: dict[str, Callable[[Site], None]] = {
    "POST /oauth/token": token,
    "GET /visit/visitor": visitor,
    "POST /visit/events": visit_events,
    "POST /visit/forget": visit_forget,
    "POST /product/events": product_events,
    "GET /product/productCounters": product_counters,
    "GET /product/productData": product_data,
    "GET /map/map": one_map,
    "GET /map/maps": several_maps,
    "POST /map/maps": write_maps,
}


def test_every_mark_has_a_call() -> None:
    marks = {mark.label for kind in CLASSES for found in endpoints_of(kind).values() for mark in found}
    assert marks == set(ENDPOINT_CALLS)


@pytest.mark.parametrize("label", ENDPOINT_CALLS)
def test_endpoint(label: str, site: Site) -> None:
    ENDPOINT_CALLS[label](site)
    method, _, path = label.partition(" ")
    found = [record for record in site.sandbox.requests.records(path=path) if record.method == method]
    assert any(200 <= record.status < 300 for record in found)
