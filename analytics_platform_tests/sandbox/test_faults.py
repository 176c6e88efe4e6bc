"""The fault vocabulary: every word of it on every port, and the page that explains it, example by example."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from importlib import import_module
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_platform.sandbox import faults
from analytics_platform.sandbox.faults import KINDS
from analytics_platform.sandbox.server import AUTH, VENDORS, Sandbox
from analytics_platform.sandbox.truth import generate
from analytics_platform_tests.sandbox.document import PAGE, with_profiles

TEXT = PAGE.read_text(encoding="utf-8")
PORTS = (*VENDORS, AUTH)
MISTAKEN_ADVANCES = ((b"advance_seconds", b"-1"), (b"advance_seconds", b'"x"'), (b"seconds", b"1"))
GENERIC = [name for name, kind in KINDS.items() if kind.vendors is None]
FOREIGN = "https://foreign.invalid/"


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with Sandbox(generate(first_day=date(2026, 10, 14), days=1, scale=0.1)) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Iterator[Sandbox]:
    running.faults.clear()
    running.requests.clear()
    yield running
    running.faults.clear()


@dataclass(frozen=True)
class Good:
    """A request that is answered with records, or at least with an object."""

    vendor: str
    method: str
    path: str
    sent: dict[str, Any] = field(default_factory=dict)

    def ask(self, sandbox: Sandbox) -> httpx.Response:
        sent = {**self.sent, "headers": {"Accept-Encoding": "identity", **self.sent.get("headers", {})}}
        return httpx.request(
            self.method, sandbox.base_urls[self.vendor] + self.path, trust_env=False, timeout=10, **sent
        )


@pytest.fixture(scope="module")
def good(running: Sandbox) -> dict[str, Good]:
    """One request a port; Kissmetrics' is a list with a next page."""
    site, secret = running.world.sites[0], running.context.credentials
    pair = {"client_id": secret.pirsch_client_id, "client_secret": secret.pirsch_client_secret}
    token = httpx.post(running.base_urls["pirsch"] + "/api/v1/token", json=pair, trust_env=False).json()["access_token"]
    grant = {
        "grant_type": "client_credentials",
        "client_id": secret.kameleoon_client_id,
        "client_secret": secret.kameleoon_client_secret,
    }

    def bearer(text: str) -> dict[str, Any]:
        return {"headers": {"Authorization": f"Bearer {text}"}}

    requests = (
        Good("smartlook", "GET", "/api/v1/me", bearer(site.smartlook_token)),
        Good("inspectlet", "GET", "/v1/websites", {"auth": (secret.inspectlet_username, secret.inspectlet_api_token)}),
        Good("pirsch", "GET", "/api/v1/domain", bearer(token)),
        Good(
            "kameleoon",
            "GET",
            "/visit/visitor",
            {
                "params": {
                    "siteCode": site.kameleoon_site_code,
                    "visitorCode": "abcdef0123456789",
                    "maxNumberPreviousVisits": 5,
                },
                "headers": {"User-Agent": "test"},
            },
        ),
        Good(AUTH, "POST", "/oauth/token", {"data": grant}),
        Good(
            "kissmetrics",
            "GET",
            f"/core/products/{site.kissmetrics_product_id}/events?limit=3",
            bearer(secret.kissmetrics_api_token),
        ),
    )
    return {request.vendor: request for request in requests}


@dataclass(frozen=True)
class Seen:
    """What came of a request under a fault, beside the same request without."""

    clean: httpx.Response
    answer: httpx.Response | Exception
    seconds: float
    given: dict[str, Any]

    @property
    def response(self) -> httpx.Response:
        assert isinstance(self.answer, httpx.Response), self.answer
        return self.answer

    @property
    def records(self) -> list[dict[str, Any]]:
        return list(faults.records_in(self.response.json(), self.given.get("at", "")))

    @property
    def clean_records(self) -> list[dict[str, Any]]:
        return list(faults.records_in(self.clean.json(), self.given.get("at", "")))


def suffer(sandbox: Sandbox, request: Good, fault: dict[str, Any], order: dict[str, Any] | None = None) -> Seen:
    clean = request.ask(sandbox)
    assert clean.status_code == 200, clean.text
    posted = order or {"vendor": request.vendor, "fault": fault}
    control = httpx.post(sandbox.base_urls[request.vendor] + "/_sandbox/faults", json=posted, trust_env=False)
    assert control.status_code == 200, control.text
    begun = time.monotonic()
    answer: httpx.Response | Exception
    try:
        answer = request.ask(sandbox)
    except (httpx.TransportError, httpx.DecodingError) as error:
        answer = error
    return Seen(clean, answer, time.monotonic() - begun, {k: v for k, v in fault.items() if k != "kind"})


# --- what each word means --------------------------------------------------------------------------------------------


def is_status(seen: Seen) -> bool:
    sent = {name.lower(): value for name, value in seen.given.get("headers", {}).items()}
    answer = seen.response
    return answer.status_code == seen.given["code"] and sent.items() <= dict(answer.headers).items()


def is_slower(seconds: Callable[[Seen], float]) -> Callable[[Seen], bool]:
    return lambda seen: seen.seconds >= seconds(seen) * 0.9 and len(seen.response.content) == len(seen.clean.content)


def is_drifted(seen: Seen) -> bool:
    change, name = seen.given["change"], seen.given["field"]
    for before, after in zip(seen.clean_records, seen.records, strict=True):
        ignored = {name, "access_token"}  # every token is a new one
        expected = {key: value for key, value in before.items() if key not in ignored}
        got = {key: value for key, value in after.items() if key not in ignored}
        if change == "rename" and name in before:
            expected[seen.given["to"]] = before[name]
        if expected != got:
            return False
        if change == "add" and after[name] != seen.given.get("value", "drifted"):
            return False
        if change == "retype" and type(before.get(name)) is type(after.get(name)):
            return name not in before
        if change in ("remove", "rename") and name in after:
            return False
    return True


def is_skewed(seen: Seen) -> bool:
    ahead = parsedate_to_datetime(seen.response.headers["date"]) - datetime.now(UTC)
    return abs(ahead.total_seconds() - seen.given["seconds"]) < 5 and seen.response.status_code == 200


def is_unreadable(seen: Seen) -> bool:
    try:
        return bool(msgspec.json.decode(seen.response.content) != seen.clean.json())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True


def next_link(response: httpx.Response) -> str:
    return str(response.links.get("next", {}).get("url"))


MEANS: dict[str, Callable[[Seen], bool]] = {
    "status": is_status,
    "redirect": lambda s: s.response.headers["location"] == s.given["location"] and s.response.is_redirect,
    "delay": is_slower(lambda s: float(s.given["seconds"])),
    "drip": is_slower(lambda s: float(s.given["seconds"])),
    "slow": is_slower(lambda s: len(s.clean.content) / s.given["bytes_per_second"]),
    "reset": lambda s: isinstance(s.answer, httpx.ReadError | httpx.RemoteProtocolError),
    "cut_body": lambda s: isinstance(s.answer, httpx.RemoteProtocolError),
    "cut_gzip": lambda s: isinstance(s.answer, Exception) or s.answer.content != s.clean.content,
    "bomb": lambda s: isinstance(s.answer, Exception) or len(s.answer.content) >= s.given["decoded_bytes"],
    "bad_json": is_unreadable,
    "drift": is_drifted,
    "clock_skew": is_skewed,
    "foreign_link": lambda s: httpx.URL(next_link(s.response)).host not in ("", "127.0.0.1"),
    "cursor_loop": lambda s: "offset=0" in next_link(s.response) and "offset=3" in next_link(s.clean),
    "empty_pages": lambda s: s.response.json()["data"] == [] and next_link(s.response).endswith("offset=3"),
    "duplicate_rows": lambda s: len(s.response.json()["data"]) > len(s.clean.json()["data"]),
}

EXAMPLE: dict[str, dict[str, Any]] = {
    "status": {"code": 503, "headers": {"Retry-After": "1"}, "body": "{}"},
    "redirect": {"location": FOREIGN},
    "delay": {"seconds": 0.02},
    "drip": {"seconds": 0.02, "pieces": 2},
    "slow": {"bytes_per_second": 20_000},
    "reset": {},
    "cut_body": {"fraction": 0.3},
    "cut_gzip": {"fraction": 0.5},
    "bomb": {"decoded_bytes": 1_000_000},
    "bad_json": {"how": "truncated"},
    "drift": {"change": "add", "field": "surprise", "value": 7},
    "clock_skew": {"seconds": -3600},
}


def test_every_word_has_a_meaning_here() -> None:
    assert set(MEANS) == set(KINDS)


@pytest.mark.parametrize("vendor", PORTS)
@pytest.mark.parametrize("kind", GENERIC)
def test_every_port_answers_every_generic_fault(
    sandbox: Sandbox, good: dict[str, Good], kind: str, vendor: str
) -> None:
    seen = suffer(sandbox, good[vendor], {"kind": kind, **EXAMPLE[kind]})
    assert MEANS[kind](seen), seen.answer
    assert good[vendor].ask(sandbox).status_code == 200, "once was ordered"


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("kind", [name for name in KINDS if name not in GENERIC])
def test_a_fault_the_protocol_does_not_have_is_refused_by_name(sandbox: Sandbox, kind: str, vendor: str) -> None:
    order = {"vendor": vendor, "route": "/nowhere", "fault": {"kind": kind, **EXAMPLE.get(kind, {})}}
    answer = httpx.post(sandbox.base_urls["pirsch"] + "/_sandbox/faults", json=order, trust_env=False)
    takers = KINDS[kind].vendors
    assert takers is not None
    assert answer.status_code == (200 if vendor in takers else 400)
    if vendor not in takers:
        assert kind in answer.json()["error"]


@pytest.mark.parametrize(
    "order",
    [
        {},
        {"fault": {"kind": "statsu", "code": 500}},
        {"fault": {"kind": "status"}},
        {"fault": {"kind": "status", "code": 99}},
        {"fault": {"kind": "status", "code": 500, "colour": "red"}},
        {"fault": {"kind": "delay", "seconds": "soon"}},
        {"fault": {"kind": "slow", "bytes_per_second": 0}},
        {"fault": {"kind": "bad_json", "how": "worse"}},
        {"fault": {"kind": "drift", "change": "melt", "field": "x"}},
        {"fault": {"kind": "drift", "change": "rename", "field": "x"}},
        {"fault": {"kind": "drift", "change": "retype", "field": "x", "retype": "colour"}},
        {"route_regex": "(", "fault": {"kind": "reset"}},
        {"nth": 0, "fault": {"kind": "reset"}},
        {"routes": "/", "fault": {"kind": "reset"}},
    ],
)
def test_a_mistaken_order_is_refused_and_changes_nothing(sandbox: Sandbox, order: dict[str, Any]) -> None:
    url = sandbox.base_urls["pirsch"] + "/_sandbox/faults"
    assert httpx.post(url, json=order, trust_env=False).status_code == 400
    assert httpx.get(url, trust_env=False).json() == {"kinds": list(KINDS), "orders": []}


def test_what_is_still_to_come_can_be_read(sandbox: Sandbox, good: dict[str, Good]) -> None:
    sandbox.faults.add("pirsch", "/domain", fault=faults.status(500), nth=2, times=3)
    url = sandbox.base_urls["pirsch"] + "/_sandbox/faults"
    left = []
    for _ in range(5):
        orders = httpx.get(url, trust_env=False).json()["orders"]
        left.append(orders[0]["left"] if orders else 0)
        good["pirsch"].ask(sandbox)
    assert left == [3, 3, 2, 1, 0]


# --- drift, as a function --------------------------------------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc.", max_size=3), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(_JSON, st.sampled_from(faults.DRIFT_CHANGES))
def test_drift_of_a_field_nobody_has_changes_no_value(value: object, change: str) -> None:
    fault = faults.drift(change, "nobody.has.this", to="other", retype="text")
    assert msgspec.json.decode(faults.drifted(msgspec.json.encode(value), fault.parameters)) == value


@given(st.lists(st.dictionaries(st.sampled_from("abcd"), st.integers(), max_size=4), max_size=5))
def test_a_rename_keeps_values_and_order(rows: list[dict[str, int]]) -> None:
    body = faults.drifted(msgspec.json.encode({"rows": rows}), faults.drift("rename", "b", to="z").parameters)
    got = msgspec.json.decode(body)["rows"] if rows else rows
    assert [list(row.values()) for row in got] == [list(row.values()) for row in rows]
    assert [[("z" if k == "b" else k) for k in row] for row in rows] == [list(row) for row in got]


@pytest.mark.parametrize(
    ("at", "expected"),
    [("", [1, 2, 3]), ("a", [1, 2]), ("b.c", [3]), ("m{}", [4, 5]), ("b", [None]), ("nowhere", []), ("n", [])],
)
def test_where_the_records_are(at: str, expected: list[int | None]) -> None:
    answer = {
        "a": [{"i": 1, "deeper": [{"i": 9}]}, {"i": 2}],
        "b": {"c": [{"i": 3}]},
        "m": {"x": {"i": 4}, "y": {"i": 5}},
        "n": 3,
    }
    assert [record.get("i") for record in faults.records_in(answer, at)] == expected


@pytest.mark.parametrize("retype", faults.RETYPES)
@pytest.mark.parametrize("value", [7, "7", True, [1], {"a": 1}])
def test_a_retyped_value_is_valid_json_of_that_type(value: object, retype: str) -> None:
    parameters = faults.drift("retype", "v", retype=retype).parameters
    got = json.loads(faults.drifted(json.dumps([{"v": value}]).encode(), parameters))[0]["v"]
    types = {"text": str, "number": float, "boolean": bool, "null": type(None), "list": list, "object": dict}
    assert type(got) is types[retype]


def test_a_body_that_is_no_json_does_not_drift() -> None:
    assert faults.drifted(b"<html>", faults.drift("add", "x").parameters) == b"<html>"


# --- time ------------------------------------------------------------------------------------------------------------


def test_time_passes_when_told_and_tokens_end(writable_sandbox: Callable[..., Sandbox]) -> None:
    sandbox = writable_sandbox(days=1, vendors=["kissmetrics"])
    store = sandbox.context.token_store("kameleoon")
    token = store.issue(vendor="kameleoon", lifetime_seconds=3600)
    url = sandbox.base_urls["kissmetrics"] + "/_sandbox/clock"
    before = httpx.get(url, trust_env=False).json()["now_ms"]
    assert store.is_valid(token)
    (order,) = re.findall(
        r"^### Time\n.*?```json\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    after = httpx.post(url, content=order, trust_env=False).json()["now_ms"]
    assert 7_200_000 <= after - before < 7_260_000
    assert not store.is_valid(token)
    assert sandbox.world.now_ms == sandbox.context.world_now_ms, "the generated past has its own present"


@pytest.mark.parametrize(
    "body", [b"{}", b"", b'{"advance_seconds": -1}', b'{"advance_seconds": "x"}', b'{"seconds": 1}']
)
def test_time_does_not_go_backwards_or_sideways(sandbox: Sandbox, body: bytes) -> None:
    assert httpx.post(sandbox.base_urls["pirsch"] + "/_sandbox/clock", content=body, trust_env=False).status_code == 400


def test_a_skewed_request_leaves_the_clock_of_the_next_alone(sandbox: Sandbox, good: dict[str, Good]) -> None:
    before = sandbox.context.now_ms()
    seen = suffer(sandbox, good["pirsch"], {"kind": "clock_skew", "seconds": 86_400})
    assert is_skewed(seen)
    assert sandbox.context.now_ms() - before < 60_000
    assert "date" not in good["pirsch"].ask(sandbox).headers


# --- the page --------------------------------------------------------------------------------------------------------

SECTIONS = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^##)", TEXT, re.MULTILINE | re.DOTALL))
EXAMPLES = [
    (kind, json.loads(block))
    for kind, text in SECTIONS.items()
    for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)
]


def test_the_page_names_every_fault_there_is_in_their_order() -> None:
    assert list(SECTIONS) == list(KINDS)
    assert {kind for kind, _ in EXAMPLES} == set(KINDS)


@pytest.mark.parametrize(("kind", "order"), EXAMPLES, ids=lambda value: value if isinstance(value, str) else "")
def test_every_example_of_the_page_works(
    sandbox: Sandbox, good: dict[str, Good], kind: str, order: dict[str, Any]
) -> None:
    assert order["fault"]["kind"] == kind
    assert MEANS[kind](suffer(sandbox, good[order["vendor"]], order["fault"], order))


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_page_names_every_parameter(kind: str) -> None:
    names = KINDS[kind].make.__code__.co_varnames[: _parameter_count(KINDS[kind].make)]
    assert [name for name in names if f"`{name}`" not in SECTIONS[kind]] == []
    for words, told in ((faults.BAD_JSON_KINDS, "bad_json"), ((*faults.DRIFT_CHANGES, *faults.RETYPES), "drift")):
        assert kind != told or [word for word in words if f"`{word}`" not in SECTIONS[kind]] == []


def _parameter_count(function: Callable[..., object]) -> int:
    return function.__code__.co_argcount + function.__code__.co_kwonlyargcount


def test_the_page_says_which_vendors_take_what_not_all_do() -> None:
    for kind, text in SECTIONS.items():
        takers = KINDS[kind].vendors
        assert takers is None or [v for v in takers if v.capitalize() not in text] == []


def test_every_control_route_of_the_page_answers(sandbox: Sandbox) -> None:
    routes = re.findall(r"^\| `(GET|DELETE) (/_sandbox/\w+)`", TEXT, re.MULTILINE)
    assert len(routes) >= 5
    for method, path in routes:
        assert httpx.request(method, sandbox.base_urls["pirsch"] + path, trust_env=False).status_code == 200
    assert len(sandbox.requests) == 0, "control routes are not in the log"


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_knob_is_explained(vendor: str) -> None:
    profile = import_module(f"analytics_platform.sandbox.{vendor}").Profile
    missing = [each.name for each in fields(profile) if f"`{each.name}`" not in with_profiles("")]
    assert missing == []


def test_the_profiles_of_the_page_are_the_code_s() -> None:
    assert with_profiles(TEXT) == TEXT, "run python -m analytics_platform_tests.sandbox.document"
