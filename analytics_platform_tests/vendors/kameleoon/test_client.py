"""The Kameleoon client and its streams on the wire, against the sandbox over loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from analytics_platform.core.concurrency import side_by_side
from analytics_platform.core.errors import (
    AuthenticationFailed,
    ConfigurationError,
    MalformedResponse,
    PermissionDenied,
    PlatformError,
    QuotaExhausted,
    RateLimited,
)
from analytics_platform.core.http import HttpLimits
from analytics_platform.core.lake import Lake, LakeViews
from analytics_platform.core.paging import Page
from analytics_platform.core.streams import Extraction, LakeReader
from analytics_platform.core.tables import TableSpec
from analytics_platform.sandbox import faults
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import World, generate
from analytics_platform.vendors.inspectlet.tables import TABLES as INSPECTLET_TABLES
from analytics_platform.vendors.kameleoon.client import KameleoonClient, quota_windows, visitor_call
from analytics_platform.vendors.kameleoon.streams import (
    STREAMS,
    VISITS_STREAM,
    counter_requests,
    is_sampled,
    panel,
    visit_requests,
)
from analytics_platform.vendors.smartlook.tables import TABLES as SMARTLOOK_TABLES

FIRST = date(2026, 10, 5)
VISITOR = "/visit/visitor"
COUNTERS = "/product/productCounters"


@pytest.fixture(scope="module")
def world() -> World:
    return generate(first_day=FIRST, days=3, scale=0.4)


@pytest.fixture(scope="module")
def running(world: World) -> Iterator[Sandbox]:
    # The limits are the sandbox's own business: the tests send without a ledger.
    generous = {"gets_per_second": 10_000.0, "anonymous_gets_per_second": 10_000.0}
    with Sandbox(world, profiles={"kameleoon": generous}, vendors={"kameleoon"}) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Iterator[Sandbox]:
    running.faults.clear()
    running.requests.clear()
    yield running
    running.faults.clear()


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[KameleoonClient]:
    with connected(sandbox) as client:
        yield client


def connected(
    sandbox: Sandbox, *, anonymous: bool = False, secret: str | None = None, meter: Any = None
) -> KameleoonClient:
    environment = sandbox.environment()
    return KameleoonClient.connect(
        client_id=None if anonymous else SecretStr(environment["KAMELEOON_CLIENT_ID"]),
        client_secret=None if anonymous else SecretStr(secret or environment["KAMELEOON_CLIENT_SECRET"]),
        base_url=environment["KAMELEOON_BASE_URL"],
        auth_url=environment["KAMELEOON_AUTH_URL"],
        meter=meter,
        limits=HttpLimits(max_attempts=1),
    )


def site_code(sandbox: Sandbox) -> str:
    return sandbox.world.sites[0].kameleoon_site_code


def codes(sandbox: Sandbox, count: int) -> list[str]:
    """Codes of people Kameleoon saw: consenting, no bots, not on Internet Explorer."""
    visitors = sandbox.world.visitors
    seen = visitors[
        (visitors["site_key"] == "shop") & visitors["consents"] & ~visitors["is_bot"] & (visitors["browser"] != "IE")
    ]
    return sorted(seen["kameleoon_code"])[:count]


class Codes:
    """A lake whose replay tables hold these codes."""

    def __init__(self, values: Sequence[str | None]) -> None:
        self.values = list(values)
        self.asked: list[Sequence[object]] = []

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        self.asked.append(parameters)
        return [(value,) for value in self.values]


def extraction(
    sandbox: Sandbox, lake: LakeReader | None = None, *, done: frozenset[str] = frozenset(), **ids: str
) -> Extraction:
    return Extraction(
        site_key="shop",
        ids={"site_code": site_code(sandbox), **ids},
        timezone="Europe/Berlin",
        first_day=FIRST,
        last_day=FIRST + timedelta(days=2),
        now=sandbox.world.now,
        lake=lake or Codes([]),
        done_calls=done,
    )


# ------------------------------------------------------------------------------------------------------------- visitor


def test_a_visitor_with_everything_asked_for(client: KameleoonClient, sandbox: Sandbox) -> None:
    (code,) = codes(sandbox, 1)
    page = client.visitor(site_code=site_code(sandbox), visitor_code=code)
    (record,) = sandbox.requests.records(vendor="kameleoon", path=VISITOR)
    assert dict(parse_qsl(record.query)) == {
        "siteCode": site_code(sandbox),
        "visitorCode": code,
        "maxNumberPreviousVisits": "25",
        **dict.fromkeys(
            ("staticData", "page", "conversion", "experiment", "personalization", "customData", "geolocation"), "true"
        ),
    }
    body = json.loads(page.body)
    assert page.records == len(body["previousVisits"]) > 0
    assert {"pageEvents", "staticDataEvent", "geolocationEvents"} <= set(body["previousVisits"][0])
    assert (page.call_kind, page.context) == ("visitor", {"visitor_code": code})
    assert code not in page.call + repr(page)


def test_an_unknown_visitor_has_no_visits(client: KameleoonClient, sandbox: Sandbox) -> None:
    page = client.visitor(site_code=site_code(sandbox), visitor_code="never/seen&=é")
    assert (json.loads(page.body), page.records, page.is_last) == ({}, 0, True)


def test_the_current_visit_is_asked_for_on_demand(client: KameleoonClient, sandbox: Sandbox) -> None:
    client.visitor(site_code=site_code(sandbox), visitor_code="x", current_visit=True, previous_visits=1)
    (record,) = sandbox.requests.records(vendor="kameleoon", path=VISITOR)
    assert (parse_qs(record.query)["currentVisit"], parse_qs(record.query)["maxNumberPreviousVisits"]) == (
        ["true"],
        ["1"],
    )


@pytest.mark.parametrize("count", [0, 26])
def test_previous_visits_have_bounds(client: KameleoonClient, sandbox: Sandbox, count: int) -> None:
    with pytest.raises(ConfigurationError):
        client.visitor(site_code=site_code(sandbox), visitor_code="x", previous_visits=count)
    assert len(sandbox.requests) == 0


def test_a_typed_selection_becomes_flags(client: KameleoonClient, sandbox: Sandbox) -> None:
    page = client.visitor(
        site_code=site_code(sandbox),
        mapping_value="login-7",
        previous_visits=3,
        kinds=["targetingSegment", "page"],
        conversion_scores=True,
        bandit_scores=True,
        version=0,
    )
    (record,) = sandbox.requests.records(vendor="kameleoon", path=VISITOR)
    assert dict(parse_qsl(record.query)) == {
        "siteCode": site_code(sandbox),
        "mappingValue": "login-7",
        "maxNumberPreviousVisits": "3",
        "page": "true",
        "targetingSegment": "true",
        "kcs": "true",
        "cbs": "true",
        "version": "0",
    }
    assert page.context == {}
    assert "login-7" not in page.call
    assert page.call != visitor_call("login-7"), "a code and a mapping value of the same text are two calls"


@pytest.mark.parametrize(
    "who",
    [{}, {"visitor_code": "a", "mapping_value": "b"}, {"visitor_code": "a", "kinds": ["birthday"]}],
)
def test_a_selection_that_cannot_be_is_refused(client: KameleoonClient, sandbox: Sandbox, who: Any) -> None:
    with pytest.raises(ConfigurationError):
        client.visitor(site_code=site_code(sandbox), **who)
    assert len(sandbox.requests) == 0


@pytest.mark.parametrize(
    "when",
    [
        {"day": FIRST, "between": (datetime.now(UTC), datetime.now(UTC))},
        {"between": (datetime(2026, 10, 5), datetime(2026, 10, 6))},  # noqa: DTZ001 - naive is what is refused
        {"between": (datetime(2026, 10, 6, tzinfo=UTC), datetime(2026, 10, 5, tzinfo=UTC))},
    ],
)
def test_a_range_that_cannot_be_is_refused(client: KameleoonClient, sandbox: Sandbox, when: Any) -> None:
    with pytest.raises(ConfigurationError):
        client.product_counters(site_code=site_code(sandbox), eans=["a"], **when)
    assert len(sandbox.requests) == 0


@pytest.mark.parametrize("keys", [[], [""], [str(n) for n in range(101)]])
def test_maps_a_call_have_bounds(client: KameleoonClient, sandbox: Sandbox, keys: list[str]) -> None:
    with pytest.raises(ConfigurationError):
        client.stored_maps(site_code=site_code(sandbox), keys=keys)
    with pytest.raises(ConfigurationError):
        client.stored_map(site_code=site_code(sandbox), key="")
    assert len(sandbox.requests) == 0


@pytest.mark.parametrize(
    ("body", "found"), [(b"", {}), (b"null", {}), (b'{"a":null,"b":{},"c":{"x":1}}', {"c": {"x": 1}})]
)
def test_an_answer_about_maps_may_say_nothing(
    client: KameleoonClient, sandbox: Sandbox, body: bytes, found: object
) -> None:
    fault = faults.status(200, headers={"content-type": "application/json"}, body=body)
    sandbox.faults.add("kameleoon", "/map/maps", fault=fault)
    assert client.stored_maps(site_code=site_code(sandbox), keys=["a", "b", "c"]) == found


def test_maps_of_another_shape_are_malformed(client: KameleoonClient, sandbox: Sandbox) -> None:
    fault = faults.status(200, headers={"content-type": "application/json"}, body=b'{"a":[1]}')
    sandbox.faults.add("kameleoon", "/map/", fault=fault, times=2)
    with pytest.raises(MalformedResponse):
        client.stored_maps(site_code=site_code(sandbox), keys=["a"])


@pytest.mark.parametrize("body", [b"[]", b'{"previousVisits":{}}', b'{"currentVisit":[]}', b"7"])
def test_another_shape_is_malformed(client: KameleoonClient, sandbox: Sandbox, body: bytes) -> None:
    fault = faults.status(200, headers={"content-type": "application/json"}, body=body)
    sandbox.faults.add("kameleoon", VISITOR, fault=fault)
    with pytest.raises(MalformedResponse):
        client.visitor(site_code=site_code(sandbox), visitor_code="x")


# -------------------------------------------------------------------------------------------------------------- access


def test_the_token_comes_from_the_other_host_and_is_kept(client: KameleoonClient, sandbox: Sandbox) -> None:
    for _ in range(3):
        client.visitor(site_code=site_code(sandbox), visitor_code="x")
    assert sandbox.requests.count(vendor="kameleoon_auth", path="/oauth/token") == 1
    assert all(record.authorization_seen for record in sandbox.requests.records(vendor="kameleoon"))


def test_without_credentials_nothing_is_signed(sandbox: Sandbox) -> None:
    with connected(sandbox, anonymous=True) as client:
        client.visitor(site_code=site_code(sandbox), visitor_code="x")
    (record,) = sandbox.requests.records(vendor="kameleoon")
    assert not record.authorization_seen
    assert sandbox.requests.count(vendor="kameleoon_auth") == 0


def test_half_a_credential_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="KAMELEOON_CLIENT_ID and KAMELEOON_CLIENT_SECRET"):
        KameleoonClient.connect(client_id=SecretStr("x"))


def test_a_revoked_token_is_renewed_once(client: KameleoonClient, sandbox: Sandbox) -> None:
    client.visitor(site_code=site_code(sandbox), visitor_code="x")
    sandbox.context.token_store("kameleoon").revoke_all()
    client.visitor(site_code=site_code(sandbox), visitor_code="x")
    assert sandbox.requests.count(vendor="kameleoon_auth", path="/oauth/token") == 2


def test_a_wrong_secret_names_the_variables_and_shows_nothing(sandbox: Sandbox) -> None:
    wrong = "wrong-secret-value"
    with connected(sandbox, secret=wrong) as client, pytest.raises(AuthenticationFailed) as caught:
        client.visitor(site_code=site_code(sandbox), visitor_code="x")
    assert "KAMELEOON_CLIENT_SECRET" in str(caught.value)
    assert wrong not in str(caught.value) + repr(caught.value) + repr(client)


def test_a_429_without_retry_after_is_raised(client: KameleoonClient, sandbox: Sandbox) -> None:
    sandbox.faults.add("kameleoon", VISITOR, fault=faults.status(429))
    with pytest.raises(RateLimited):
        client.visitor(site_code=site_code(sandbox), visitor_code="x")


def test_a_missing_add_on_is_a_denial(client: KameleoonClient, sandbox: Sandbox) -> None:
    sandbox.faults.add("kameleoon", COUNTERS, fault=faults.status(403, body=b"{}"))
    with pytest.raises(PermissionDenied):
        client.product_counters(site_code=site_code(sandbox), eans=["a"], day=FIRST)


def test_limits_follow_authentication() -> None:
    known, unknown = quota_windows(is_authenticated=True), quota_windows(is_authenticated=False)
    assert {verb: [w.limit for w in windows] for verb, windows in known.items()} == {"GET": [50], "*": [1000]}
    assert {verb: [w.limit for w in windows] for verb, windows in unknown.items()} == {"GET": [5], "*": [50]}


# ------------------------------------------------------------------------------------------------------------ products


def skus(sandbox: Sandbox) -> list[str]:
    products = sandbox.world.products
    return sorted(products[products["site_key"] == "shop"]["sku"])


def test_counters_of_a_utc_day(client: KameleoonClient, sandbox: Sandbox) -> None:
    wanted = [*skus(sandbox)[:5], 'unknown, "quoted"']
    page = client.product_counters(site_code=site_code(sandbox), eans=wanted, day=FIRST)
    (record,) = sandbox.requests.records(vendor="kameleoon", path=COUNTERS)
    sent = parse_qs(record.query)
    assert json.loads(sent["eans"][0]) == wanted
    begins_at, ends_at = (datetime.fromtimestamp(int(sent[name][0]) / 1000, UTC) for name in ("timeBegin", "timeEnd"))
    assert begins_at == datetime(2026, 10, 5, tzinfo=UTC)
    assert ends_at == datetime(2026, 10, 5, 23, 59, 59, 999_000, tzinfo=UTC)
    assert set(json.loads(page.body)) == set(wanted)
    assert (page.records, page.context) == (len(wanted), {"day": "2026-10-05"})


def test_days_add_up_to_the_range(client: KameleoonClient, sandbox: Sandbox) -> None:
    # Both bounds are inclusive: a millisecond must belong to exactly one day.
    some = skus(sandbox)[:20]
    views = 0
    for offset in range(-1, 5):
        day = FIRST + timedelta(days=offset)
        body = json.loads(client.product_counters(site_code=site_code(sandbox), eans=some, day=day).body)
        views += sum(counters.get("v", 0) for counters in body.values())
    http = client._http
    whole = http.request(
        "GET", COUNTERS, endpoint="test", params={"siteCode": site_code(sandbox), "eans": json.dumps(some)}
    ).json()
    assert isinstance(whole, dict)
    assert views == sum(counters.get("v", 0) for counters in whole.values()) > 0


def test_an_empty_answer_is_no_counters(client: KameleoonClient, sandbox: Sandbox) -> None:
    sandbox.faults.add("kameleoon", COUNTERS, fault=faults.status(200, body=b""))
    page = client.product_counters(site_code=site_code(sandbox), eans=["a"], day=FIRST)
    assert (page.body, page.records) == (b"{}", 0)


@pytest.mark.parametrize("count", [0, 700])
def test_products_a_call_have_bounds(client: KameleoonClient, sandbox: Sandbox, count: int) -> None:
    with pytest.raises(ConfigurationError):
        client.product_counters(site_code=site_code(sandbox), eans=[str(n) for n in range(count)], day=FIRST)


def counters(client: KameleoonClient, extraction: Extraction) -> list[Page]:
    return list(side_by_side(counter_requests(client, extraction)))


def visits(client: KameleoonClient, extraction: Extraction) -> Iterator[Page]:
    return side_by_side(visit_requests(client, extraction))


def test_no_products_no_request(client: KameleoonClient, sandbox: Sandbox) -> None:
    assert list(counters(client, extraction(sandbox))) == []
    assert list(counters(client, extraction(sandbox, eans=" , "))) == []
    assert len(sandbox.requests) == 0


def test_many_products_are_asked_in_pieces_and_resume(client: KameleoonClient, sandbox: Sandbox) -> None:
    eans = ",".join(f"{n:013}" for n in range(600)) + ",0000000000000"
    pages = list(counters(client, extraction(sandbox, eans=eans)))
    # 600 codes of 25 bytes as they are encoded, brackets and quotes included.
    assert [page.records for page in pages] == [240, 240, 120]
    assert max(len(record.query) for record in sandbox.requests.records(path=COUNTERS)) < 6200
    (rest,) = counters(client, extraction(sandbox, eans=eans, done=frozenset(p.call for p in pages[1:])))
    assert rest.call == pages[0].call


def test_a_yaml_list_of_products_is_explained(client: KameleoonClient, sandbox: Sandbox) -> None:
    with pytest.raises(ConfigurationError, match="eans"):
        list(counters(client, extraction(sandbox, eans="['a', 'b']")))


# --------------------------------------------------------------------------------------------------------------- panel


def test_one_request_a_code_in_the_order_of_the_codes(client: KameleoonClient, sandbox: Sandbox) -> None:
    wanted = codes(sandbox, 30)
    lake = Codes([*reversed(wanted), wanted[0], None, "", "two words", "tab\there", "x" * 256])
    pages = list(visits(client, extraction(sandbox, lake)))
    assert [page.context["visitor_code"] for page in pages] == wanted
    assert sandbox.requests.count(vendor="kameleoon", path=VISITOR) == 30
    assert lake.asked == [["shop", FIRST, FIRST + timedelta(days=2)] * 2]


def test_landed_codes_are_not_asked_again(client: KameleoonClient, sandbox: Sandbox) -> None:
    wanted = codes(sandbox, 10)
    done = frozenset(visitor_call(code) for code in wanted[:9])
    (rest,) = visits(client, extraction(sandbox, Codes(wanted), done=done))
    assert rest.context["visitor_code"] == wanted[9]


class Allowance:
    """A meter with so many requests (the token call included)."""

    def __init__(self, requests: int) -> None:
        self._lock = threading.Lock()
        self._left = requests

    def acquire(self, *, method: str, endpoint: str) -> None:
        with self._lock:
            if self._left == 0:
                raise QuotaExhausted("nothing left")
            self._left -= 1

    def learn(self, *, method: str, endpoint: str, status: int, retry_after_seconds: float | None) -> None:
        """Nothing to learn."""


def test_pages_paid_for_are_yielded_before_the_quota_stops(sandbox: Sandbox) -> None:
    landed: list[str] = []
    stopped: PlatformError | None = None
    with connected(sandbox, anonymous=True, meter=Allowance(11)) as client:
        try:
            for page in visits(client, extraction(sandbox, Codes(codes(sandbox, 30)))):
                landed.append(page.call)
        except QuotaExhausted as error:
            stopped = error
    assert stopped is not None
    assert len(landed) == sandbox.requests.count(vendor="kameleoon", path=VISITOR) == 11


def test_the_current_visit_is_opted_into(client: KameleoonClient, sandbox: Sandbox) -> None:
    list(visits(client, extraction(sandbox, Codes(["x"]), current_visit="True")))
    (record,) = sandbox.requests.records(vendor="kameleoon", path=VISITOR)
    assert "currentVisit=true" in record.query


@settings(max_examples=100, deadline=None)
@given(code=st.text(min_size=1, max_size=20), share=st.floats(0, 1), larger=st.floats(0, 1))
def test_a_larger_sample_holds_a_smaller_one(code: str, share: float, larger: float) -> None:
    low, high = sorted((share, larger))
    assert is_sampled(code, 1.0)
    assert not is_sampled(code, 0.0)
    assert is_sampled(code, low) <= is_sampled(code, high)


def test_the_sample_has_its_size(sandbox: Sandbox) -> None:
    lake = Codes([f"code{n:05d}" for n in range(5000)])
    assert 900 < len(panel(extraction(sandbox, lake, visitor_sample="0.2"))) < 1100


@pytest.mark.parametrize("sample", ["2", "-0.1", "a fifth", "nan"])
def test_a_sample_that_is_no_share_is_explained(sandbox: Sandbox, sample: str) -> None:
    with pytest.raises(ConfigurationError, match="visitor_sample"):
        panel(extraction(sandbox, visitor_sample=sample))


def test_a_site_without_a_code_is_told_so(client: KameleoonClient, sandbox: Sandbox) -> None:
    with pytest.raises(ConfigurationError, match="site_code"):
        list(visits(client, replace(extraction(sandbox), ids={})))


# ---------------------------------------------------------------------------------------------- the lake it depends on


def write_partition(lake: Lake, spec: TableSpec, site: str, day: date, rows: Sequence[dict[str, str]]) -> None:
    """A partition with these values and NULL elsewhere, with the table's own schema."""
    selects = []
    for row in rows:
        known = {**row, "_site": site, "_day": str(day)}
        values = (f"'{known[c.name]}'" if c.name in known else "NULL" for c in spec.all_columns)
        casts = (f'CAST({v} AS {c.type}) AS "{c.name}"' for v, c in zip(values, spec.all_columns, strict=True))
        selects.append("SELECT " + ", ".join(casts))
    path = lake.partition_path(spec, site, day)
    path.parent.mkdir(parents=True)
    with duckdb.connect() as engine:
        engine.execute(f"COPY ({' UNION ALL '.join(selects)}) TO '{path}' (FORMAT parquet)")


def test_the_panel_is_what_the_replay_vendors_saw(sandbox: Sandbox, tmp_path: Path) -> None:
    specs = {spec.qualified_name: spec for spec in (*SMARTLOOK_TABLES, *INSPECTLET_TABLES)}
    sessions, tags = (specs[name] for name in VISITS_STREAM.depends_on)
    lake = Lake(tmp_path)
    write_partition(
        lake, sessions, "shop", FIRST, [{"kameleoon_visitor_code": "a"}, {"kameleoon_visitor_code": "b"}, {}]
    )
    write_partition(lake, sessions, "blog", FIRST, [{"kameleoon_visitor_code": "other-site"}])
    outside = FIRST + timedelta(days=3)
    write_partition(lake, sessions, "shop", outside, [{"kameleoon_visitor_code": "other-day"}])
    code_tag = "kameleoon_visitor_code"
    write_partition(
        lake,
        tags,
        "shop",
        FIRST + timedelta(days=2),
        [{"tag": code_tag, "value": "b"}, {"tag": code_tag, "value": "c"}, {"tag": "email", "value": "d"}],
    )
    assert panel(extraction(sandbox, LakeViews(lake, (sessions, tags)))) == ["a", "b", "c"]


def test_an_empty_lake_is_an_empty_panel(sandbox: Sandbox, tmp_path: Path) -> None:
    specs = {spec.qualified_name: spec for spec in (*SMARTLOOK_TABLES, *INSPECTLET_TABLES)}
    views = LakeViews(Lake(tmp_path), [specs[name] for name in VISITS_STREAM.depends_on])
    assert panel(extraction(sandbox, views)) == []


def test_streams_name_their_tables() -> None:
    assert {stream.name: [spec.name for spec in stream.tables] for stream in STREAMS} == {
        "visits": ["visits", "visit_pages", "exposures", "conversions"],
        "product_counters": ["product_counters"],
    }
