"""The thirteen traps of Kameleoon's document (contract B9), one test each; the number is the contract's.

Belongs here: what a reader of the document alone would get wrong. Does not belong here: the rest of the behaviour
(`test_client`, `test_outbound`, `test_erasure`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.errors import AuthenticationFailed, PermissionDenied, RateLimited
from analytics_platform.core.quota import Ledger
from analytics_platform.core.tables import Sensitivity
from analytics_platform.sandbox import faults
from analytics_platform.vendors.kameleoon.access import quota_windows
from analytics_platform.vendors.kameleoon.client import KameleoonClient
from analytics_platform.vendors.kameleoon.outbound import KameleoonWriter, VisitEvent
from analytics_platform.vendors.kameleoon.resource import KameleoonResource
from analytics_platform.vendors.kameleoon.tables import TABLES
from analytics_platform_tests.vendors.kameleoon.conftest import OPT_IN, QUICK, VISIBLE_SECONDS, Site

OpenSite = Callable[..., Site]


def test_trap_01_the_table_of_limits_is_flattened() -> None:
    # "GET Requests5 per second50 per second": 5 without a token and 50 with; the other verbs 50 and 1000.
    limits = {
        signed: {verb: window.limit for verb, (window,) in quota_windows(is_authenticated=signed).items()}
        for signed in (False, True)
    }
    assert limits == {False: {"GET": 5, "*": 50}, True: {"GET": 50, "*": 1000}}


def test_trap_02_limits_are_of_the_address_and_of_each_verb(site: Site, tmp_path: Path) -> None:
    environment = site.sandbox.environment()
    resource = KameleoonResource(
        client_id=environment["KAMELEOON_CLIENT_ID"],
        client_secret=environment["KAMELEOON_CLIENT_SECRET"],
        base_url=environment["KAMELEOON_BASE_URL"],
        auth_url=environment["KAMELEOON_AUTH_URL"],
    )
    # On a clock that stands still no window slides on while the test looks.
    with Ledger.open(tmp_path / "ledger.sqlite", ManualClock(datetime.now(UTC))) as ledger:
        for one_of_three in ({"site_code": "shop"}, {"site_code": "blog"}, {"access": "anonymous"}):
            with resource.connect(one_of_three, ledger) as client:
                client.stored_map(site_code=site.code, key="k")
        with resource.writer({}, ledger, OPT_IN) as writer:
            writer.write_maps(site_code=site.code, maps={"k": {}})
        used = {
            account: {row.method_class: row.used for row in ledger.usage(account) if row.used}
            for account in ledger.accounts()
        }
    # With or without a token, whatever the site: one address, one bucket a verb. The token host counts by itself.
    assert {"GET": 3, "POST": 1} in used.values()
    assert sum(counts.get("GET", 0) for counts in used.values()) == 3


def test_trap_03_a_stale_token_is_worse_than_none(site: Site) -> None:
    client = site.client
    client.stored_map(site_code=site.code, key="k")
    site.sandbox.context.token_store("kameleoon").revoke_all()
    site.sandbox.faults.add("kameleoon_auth", "/oauth/token", fault=faults.status(401), times=9)
    site.sandbox.requests.clear()
    with pytest.raises(AuthenticationFailed):
        client.stored_map(site_code=site.code, key="k")
    # Anonymous access would have been allowed, but nobody asked for a tenth of the rate: it is not fallen back to.
    assert [record.status for record in site.sandbox.requests.records(vendor="kameleoon")] == [401]
    site.sandbox.faults.clear()
    # The refused pair is not asked about again for a while by that client; another one gets its token.
    site.connected(KameleoonClient).stored_map(site_code=site.code, key="k")


def test_trap_04_without_credentials_nobody_authenticates(site: Site) -> None:
    site.connected(KameleoonClient, anonymous=True).stored_map(site_code=site.code, key="k")
    site.connected(KameleoonWriter, anonymous=True, opt_in=OPT_IN).write_maps(site_code=site.code, maps={"k": {}})
    assert not any(record.authorization_seen for record in site.sandbox.requests.records())
    assert site.sandbox.requests.count(vendor="kameleoon_auth") == 0


def test_trap_05_a_429_says_nothing_so_the_client_knows_its_own_patience(open_site: OpenSite) -> None:
    slow = open_site(gets_per_second=1.0)
    client = slow.connected(KameleoonClient, limits=replace(QUICK, max_attempts=1, unknown_retry_after_seconds=60.0))
    client.stored_map(site_code=slow.code, key="k")
    with pytest.raises(RateLimited) as caught:
        client.stored_map(site_code=slow.code, key="k")
    assert caught.value.resume_at is not None
    assert timedelta(seconds=30) < caught.value.resume_at - datetime.now(UTC) <= timedelta(seconds=60)


def test_trap_06_the_token_lives_on_another_host(site: Site) -> None:
    site.client.stored_map(site_code=site.code, key="k")
    (call,) = site.sandbox.requests.records(path="/oauth/token")
    assert (call.vendor, call.method, call.status) == ("kameleoon_auth", "POST", 200)
    assert site.sandbox.base_urls["kameleoon"] != site.sandbox.base_urls["kameleoon_auth"]


def test_trap_07_the_visit_that_goes_on_is_for_feature_experimentation_only(open_site: OpenSite) -> None:
    for readable in (False, True):
        site = open_site(current_visit_readable=readable)
        site.writer.post_events(site_code=site.code, visitor_code=site.new, events=[VisitEvent.activity(clicks=1)])
        site.sandbox.context.advance(VISIBLE_SECONDS)
        assert len(site.visits(site.new)) == int(readable)
        site.sandbox.context.advance(1801)
        assert len(site.visits(site.new)) == 1, "over after 30 idle minutes, and a past visit for everybody"


def test_trap_08_products_need_an_add_on(open_site: OpenSite) -> None:
    site = open_site(product_addon=False)
    for ask in (site.client.product_counters, site.client.product_data):
        with pytest.raises(PermissionDenied):
            ask(site_code=site.code, eans=["a"])
    assert site.client.stored_map(site_code=site.code, key="k") == {}, "the rest goes on"


def test_trap_09_visits_come_one_visitor_a_call(site: Site) -> None:
    both = site.visitors[:2]
    assert site.visits(",".join(both)) == []
    assert site.visits(json.dumps(both)) == []
    assert [len(site.visits(code)) > 0 for code in both] == [True, True]


def test_trap_10_what_is_loaded_can_be_forgotten(site: Site) -> None:
    # The vendor forgets on request, so every table that names a visitor must be able to follow.
    naming = [column for table in TABLES for column in table.columns if "visitor_code" in column.name]
    assert naming
    assert {column.sensitivity for column in naming} == {Sensitivity.PSEUDONYMOUS}
    code = site.visitors[-1]
    site.forget(code)
    assert site.visits(code) == []


def test_trap_11_counters_take_any_range(site: Site) -> None:
    events = site.sandbox.world.product_events
    mine = events[(events["site_key"] == "shop")]
    middle = datetime.fromtimestamp(int(mine["at_ms"].median()) / 1000, UTC).replace(microsecond=0)
    ranges = [(datetime(2026, 10, 1, tzinfo=UTC), middle), (middle + timedelta(milliseconds=1), datetime.now(UTC))]

    def views(**when: object) -> int:
        page = site.client.product_counters(site_code=site.code, eans=site.skus[:50], **when)  # type: ignore[arg-type]
        return sum(counts.get("v", 0) for counts in json.loads(page.body).values())

    early, late = (views(between=between) for between in ranges)
    assert early > 0
    assert late > 0
    assert early + late == views()
    query = parse_qs(site.sandbox.requests.records(path="/product/productCounters")[0].query)
    assert all(re.fullmatch(r"\d{13}", query[name][0]) for name in ("timeBegin", "timeEnd")), "epoch milliseconds"


def test_trap_12_an_answer_is_never_paged(site: Site) -> None:
    for _ in range(27):
        site.writer.post_events(site_code=site.code, visitor_code=site.new, events=[VisitEvent.activity(clicks=1)])
        site.sandbox.context.advance(1805)
    site.sandbox.requests.clear()
    page = site.client.visitor(site_code=site.code, visitor_code=site.new)
    starts = [visit["timeStarted"] for visit in json.loads(page.body)["previousVisits"]]
    assert (page.is_last, page.records, len(set(starts))) == (True, 25, 25)
    assert starts == sorted(starts, reverse=True), "the newest; two older ones cannot be had"
    assert site.sandbox.requests.count(vendor="kameleoon") == 1


def test_trap_13_a_map_disappears_after_92_days(site: Site) -> None:
    site.writer.write_maps(site_code=site.code, maps={site.new: {"tier": "gold"}})
    site.sandbox.context.advance(92 * 86_400 - 60)
    assert site.client.stored_map(site_code=site.code, key=site.new) == {"tier": "gold"}
    site.sandbox.context.advance(61)
    assert site.client.stored_map(site_code=site.code, key=site.new) == {}
