"""Smartlook's searches against brute force: every filter with every operator, then order, cursors and limit.

Belongs here: that an answer holds exactly what a plain loop over the unfiltered answer finds. Does not belong here: the
losses of the recordings (`sandbox/test_smartlook`), traps (`test_traps`).
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import product
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.errors import ConfigurationError, CursorExpired, TransientVendorError
from analytics_platform.core.paging import Page
from analytics_platform.sandbox import faults
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import generate
from analytics_platform.vendors.smartlook.client import (
    EVENT_TYPES,
    SESSION_FILTERS,
    VISITOR_FILTERS,
    Filter,
    Paging,
    PollBudget,
    SmartlookClient,
    cursors_of,
    region_url,
)

FIRST = date(2026, 10, 5)
DAYS = [FIRST + timedelta(days=n) for n in range(4)]
EVER = Filter(name="recording_date", operator="after", value="2000-01-01")

Row = dict[str, Any]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(generate(first_day=FIRST, days=4, scale=0.3), vendors=("smartlook",)) as running:
        yield running


@pytest.fixture(scope="module")
def client(sandbox: Sandbox) -> Iterator[SmartlookClient]:
    with SmartlookClient.connect(
        base_url=sandbox.base_urls["smartlook"],
        token=SecretStr(sandbox.world.sites[0].smartlook_token),
        clock=ManualClock(datetime(2026, 10, 20, tzinfo=UTC)),
    ) as opened:
        yield opened


@pytest.fixture(scope="module")
def sessions(client: SmartlookClient) -> list[Row]:
    return rows(client.search_sessions((EVER,), call="s"), "sessions")


@pytest.fixture(scope="module")
def visitors(client: SmartlookClient) -> list[Row]:
    return rows(client.search_visitors((EVER,), call="v"), "visitors")


def rows(pages: Iterator[Page], name: str) -> list[Row]:
    return [entry for page in pages for entry in json.loads(page.body)[name]]


# ------------------------------------------------------------------------------------------------------- brute force

TEXTS: dict[str, Callable[[Row], list[str]]] = {
    "uid": lambda s: [s["identification"]["uid"]] if "uid" in s["identification"] else [],
    "user_email": lambda s: [v for k, v in s["identification"]["properties"].items() if k == "email"],
    "user_name": lambda s: [v for k, v in s["identification"]["properties"].items() if k == "name"],
    "location_ip": lambda s: [s["identification"]["visitorIp"]],
    "landing_url": lambda s: [s["landingPage"]],
    "exit_url": lambda s: [s["exitPage"]],
    "source_referer": lambda s: [s["referrer"]],
    "recording_url": lambda s: s["pageUrl"],
}


def text_holds(texts: Sequence[str], operator: str, wanted: Sequence[str]) -> bool:
    if operator in ("is", "is_not"):
        return bool(set(texts) & set(wanted)) == (operator == "is")
    return any(part in text for part in wanted for text in texts) == (operator == "contains")


def day_holds(days: set[str], operator: str, wanted: Sequence[str]) -> bool:
    """True when any of the days is before, after, or is any of the wanted ones, or lies between the two."""
    if operator == "in_range":
        return any(wanted[0] <= day <= wanted[1] for day in days)
    told = {"before": lambda d, w: d < w, "after": lambda d, w: d > w, "is": lambda d, w: d == w}[operator]
    return any(told(day, one) for day in days for one in wanted)


def listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def values_of(name: str, operator: str, found: Sequence[list[str]]) -> list[Any]:
    """A single value and an array of two, taken from what is there."""
    if name in ("recording_date", "user_first_seen"):
        days = [day.isoformat() for day in DAYS]
        return [days[1:3]] if operator == "in_range" else [days[1], days[1:3], DAYS[2]]
    if name == "session_duration":
        return [40, 600.5]
    known = sorted({text for texts in found for text in texts if text})
    if "contains" in operator:
        # Beginnings and ends; those that tell some apart and not all.
        known = sorted({text[:6] for text in known} | {text[-8:] for text in known})
        holding = {part: sum(any(part in text for text in texts) for texts in found) for part in known}
        known = [part for part in known if 0 < holding[part] < len(found) / 3]
    one, two = known[0], known[len(known) // 2]
    return [one, [one, two]]


@pytest.mark.parametrize(
    ("name", "operator"), [(name, operator) for name, known in SESSION_FILTERS.items() for operator in known]
)
def test_sessions_by_every_filter_and_operator(
    client: SmartlookClient, sessions: list[Row], name: Any, operator: Any
) -> None:
    def holds(session: Row, value: Any) -> bool:
        if name == "recording_date":
            return day_holds({session["startedAt"][:10]}, operator, [str(item) for item in listed(value)])
        if name == "session_duration":
            return bool(session["duration"] <= value if operator == "lte" else session["duration"] >= value)
        return text_holds(TEXTS[name](session), operator, listed(value))

    found = [TEXTS[name](session) for session in sessions] if name in TEXTS else []
    for value in values_of(name, operator, found):
        wanted = [session["id"] for session in sessions if holds(session, value)]
        condition = Filter(name=name, operator=operator, value=value)
        answered = [session["id"] for session in rows(client.search_sessions((condition,), call="s"), "sessions")]
        assert answered == wanted
        assert 0 < len(wanted) < len(sessions)


@pytest.mark.parametrize(
    ("name", "operator"), [(name, operator) for name, known in VISITOR_FILTERS.items() for operator in known]
)
def test_visitors_by_every_filter_and_operator(
    client: SmartlookClient, sessions: list[Row], visitors: list[Row], name: Any, operator: Any
) -> None:
    recorded: dict[str, set[str]] = {visitor["id"]: set() for visitor in visitors}
    for session in sessions:
        recorded[session["visitorId"]].add(session["startedAt"][:10])
    texts: dict[str, Callable[[Row], list[str]]] = {"uid": TEXTS["uid"], "visitor_id": lambda v: [v["id"]]}

    def holds(visitor: Row, value: Any) -> bool:
        wanted = [str(item) for item in listed(value)]
        if name == "recording_date":
            return day_holds(recorded[visitor["id"]], operator, wanted)
        if name == "user_first_seen":
            return day_holds({visitor["firstSeen"][:10]}, operator, wanted)
        return text_holds(texts[name](visitor), operator, wanted)

    found = [texts[name](visitor) for visitor in visitors] if name in texts else []
    for value in values_of(name, operator, found):
        wanted = [visitor["id"] for visitor in visitors if holds(visitor, value)]
        condition = Filter(name=name, operator=operator, value=value)
        answered = [visitor["id"] for visitor in rows(client.search_visitors((condition,), call="v"), "visitors")]
        assert answered == wanted
        assert 0 < len(wanted) < len(visitors)


def test_filters_are_joined_by_and(client: SmartlookClient, sessions: list[Row]) -> None:
    conditions = (
        Filter(name="session_duration", operator="gte", value=30),
        Filter(name="session_duration", operator="lte", value=400),
        Filter(name="recording_url", operator="contains", value="/product/"),
    )
    wanted = [
        s["id"] for s in sessions if 30 <= s["duration"] <= 400 and any("/product/" in url for url in s["pageUrl"])
    ]
    assert 0 < len(wanted) < len(sessions)
    assert [s["id"] for s in rows(client.search_sessions(conditions, call="s"), "sessions")] == wanted


# ----------------------------------------------------------------------------------- refused before anything is sent

OPERATORS = sorted({operator for known in SESSION_FILTERS.values() for operator in known})


@pytest.mark.parametrize(
    ("search", "name", "operator"),
    [
        (search, name, operator)
        for search, rules in (("sessions", SESSION_FILTERS), ("visitors", VISITOR_FILTERS))
        for name, operator in product(sorted({*SESSION_FILTERS, *VISITOR_FILTERS, "browser"}), [*OPERATORS, "like"])
        if operator not in rules.get(name, ())
    ],
)
def test_what_the_vendor_does_not_have_is_not_asked_for(
    client: SmartlookClient, sandbox: Sandbox, search: str, name: Any, operator: Any
) -> None:
    sandbox.requests.clear()
    ask = client.search_sessions if search == "sessions" else client.search_visitors
    with pytest.raises(ConfigurationError, match="nothing was sent") as caught:
        ask((Filter(name=name, operator=operator, value="kim@example.org"),), call="x")
    assert "kim@example.org" not in str(caught.value)
    assert len(sandbox.requests) == 0


@pytest.mark.parametrize(
    ("name", "operator", "value"),
    [
        ("uid", "is", ""),
        ("uid", "is", []),
        ("uid", "is", ["a", ""]),
        ("uid", "is", 7),
        ("session_duration", "gte", "40"),
        ("session_duration", "gte", [40]),
        ("session_duration", "gte", True),
        ("session_duration", "gte", -1),
        ("session_duration", "gte", float("nan")),
        ("recording_date", "is", "05.10.2026"),
        ("recording_date", "is", "2026-13-01"),
        ("recording_date", "is", datetime(2026, 10, 5, tzinfo=UTC)),
        ("recording_date", "in_range", "2026-10-05"),
        ("recording_date", "in_range", ["2026-10-05"]),
        ("recording_date", "in_range", ["2026-10-06", "2026-10-05"]),
    ],
)
def test_a_value_the_filter_cannot_take_is_not_sent(
    client: SmartlookClient, sandbox: Sandbox, name: Any, operator: Any, value: Any
) -> None:
    sandbox.requests.clear()
    with pytest.raises(ConfigurationError):
        client.search_sessions((Filter(name=name, operator=operator, value=value),), call="x")
    assert len(sandbox.requests) == 0


def test_other_impossible_questions_are_not_asked(client: SmartlookClient, sandbox: Sandbox) -> None:
    sandbox.requests.clear()
    anything: Any = "sideways"
    for ask in (
        lambda: Paging(limit=0),
        lambda: Paging(limit=101),
        lambda: Paging(after=""),
        lambda: Paging(after="a", before="b"),
        lambda: client.search_sessions((EVER,), call="x", order=anything),
        lambda: client.search_visitors((EVER,), call="x", sort_by=anything),
        lambda: client.search_sessions((EVER,), call="x", paging=Paging(before="b")),
        lambda: client.visitor_sessions("v", order=anything),
        lambda: client.visitor_events("v", event_types=[anything]),
        lambda: client.visitor_events("v", first_day=DAYS[1], last_day=DAYS[0]),
        lambda: client.funnel_drop_off("f", first_day=DAYS[0], last_day=DAYS[0], step=-1, success=True),
        lambda: region_url("asia"),
    ):
        with pytest.raises(ConfigurationError):
            ask()
    assert len(sandbox.requests) == 0


def test_regions() -> None:
    assert region_url("eu") == "https://api.eu.smartlook.cloud"
    assert region_url("US") == "https://api.us.smartlook.cloud"


# --------------------------------------------------------------------------------------------- order, cursors, limit


def test_both_orders_and_both_sort_keys(client: SmartlookClient, sessions: list[Row]) -> None:
    newest = rows(client.search_sessions((EVER,), call="s", order="desc"), "sessions")
    assert [s["id"] for s in newest] == [s["id"] for s in reversed(sessions)]
    for by, field in (("timeCreate", "firstSeen"), ("timeUpdate", "lastSeen")):
        up = rows(client.search_visitors((EVER,), call="v", sort_by=by), "visitors")  # type: ignore[arg-type]
        down = rows(client.search_visitors((EVER,), call="v", sort_by=by, order="desc"), "visitors")  # type: ignore[arg-type]
        assert [v[field] for v in up] == sorted(v[field] for v in up)
        assert [v["id"] for v in down] == [v["id"] for v in reversed(up)]


@pytest.mark.parametrize("limit", [1, 7, 100])
def test_a_limit_cuts_pages_and_loses_nothing(client: SmartlookClient, limit: int) -> None:
    pages = list(client.events(paging=Paging(limit=limit)))
    sizes = [page.records for page in pages]
    assert sizes[:-1] == [limit] * (len(sizes) - 1)
    assert rows(iter(pages), "events") == rows(client.events(), "events")


def walked(client: SmartlookClient, visitor: str, paging: Paging) -> list[Page]:
    return list(client.visitor_events(visitor, event_types=("url", "click"), paging=paging))


def test_after_goes_on_and_before_goes_back(client: SmartlookClient, sessions: list[Row]) -> None:
    visitor = max(sessions, key=lambda session: len(session["pageUrl"]))["visitorId"]
    pages = walked(client, visitor, Paging(limit=2))
    ids = [[event["id"] for event in rows(iter((page,)), "events")] for page in pages]
    assert len(pages) >= 3
    middle = cursors_of(pages[1])

    onwards = walked(client, visitor, Paging(limit=2, after=middle.after))
    assert [[event["id"] for event in rows(iter((page,)), "events")] for page in onwards] == ids[2:]

    last = cursors_of(pages[-1])
    backwards = walked(client, visitor, Paging(limit=2, before=last.before))
    assert [[event["id"] for event in rows(iter((page,)), "events")] for page in backwards] == ids[-2::-1]
    assert backwards[-1].is_last


def test_a_search_goes_on_from_a_cursor(client: SmartlookClient, sessions: list[Row]) -> None:
    first = next(client.search_sessions((EVER,), call="s", paging=Paging(limit=10)))
    cursors = cursors_of(first)
    assert cursors.before is None
    rest = rows(client.search_sessions((EVER,), call="s", paging=Paging(limit=50, after=cursors.after)), "sessions")
    assert [s["id"] for s in rest] == [s["id"] for s in sessions[10:]]


def test_a_cursor_nobody_knows_is_expired(client: SmartlookClient) -> None:
    with pytest.raises(CursorExpired):
        next(client.events(paging=Paging(after="bm9ib2R5")))
    with pytest.raises(CursorExpired):
        next(client.search_sessions((EVER,), call="s", paging=Paging(after="bm9ib2R5")))


@settings(max_examples=30, deadline=None)
@given(cursor=st.text(alphabet=string.ascii_letters + string.digits + "+/=-_% &", min_size=1, max_size=40))
def test_any_cursor_arrives_as_it_was_given(client: SmartlookClient, sandbox: Sandbox, cursor: str) -> None:
    sandbox.requests.clear()
    with pytest.raises(CursorExpired):
        next(client.funnels(paging=Paging(before=cursor)))
    (record,) = sandbox.requests.records(vendor="smartlook")
    assert parse_qs(record.query, strict_parsing=True, keep_blank_values=True)["before"] == [cursor]


def test_event_types_split_a_visitors_events(client: SmartlookClient, sessions: list[Row]) -> None:
    visitor = max(sessions, key=lambda session: len(session["pageUrl"]))["visitorId"]
    everything = rows(client.visitor_events(visitor), "events")
    parts = {kind: rows(client.visitor_events(visitor, event_types=(kind,)), "events") for kind in EVENT_TYPES}  # type: ignore[arg-type]
    assert {kind: len(part) for kind, part in parts.items()} == {
        kind: sum(event["type"] == kind for event in everything) for kind in EVENT_TYPES
    }
    day = DAYS[2]
    of_day = rows(client.visitor_events(visitor, first_day=day, last_day=day), "events")
    assert of_day == [event for event in everything if event["startedAt"][:10] == day.isoformat()]


# ------------------------------------------------------------------------------------------------------------ funnels


def test_an_unfinished_funnel_is_asked_again_without_waiting_for_it(client: SmartlookClient) -> None:
    funnel = rows(client.funnels(), "funnels")[0]["id"]
    page = client.funnel(funnel, first_day=DAYS[0], last_day=DAYS[2], call="f", wait_for_finish=False)
    assert page.attempts == 2  # the sandbox computes from the first ask on
    assert page.records >= 2


@pytest.mark.parametrize(
    ("budget", "asks"),
    [(PollBudget(requests=3), 3), (PollBudget(requests=99, seconds=50), 6), (PollBudget(seconds=5), 1)],
)
def test_a_funnels_budget_is_requests_and_seconds(
    client: SmartlookClient, sandbox: Sandbox, budget: PollBudget, asks: int
) -> None:
    sandbox.requests.clear()
    pending = '{"computation":{"isFinished":false,"nextAttemptDelay":10},"funnel":{"id":"x"}}'
    body = faults.status(200, headers={"content-type": "application/json"}, body=pending)
    sandbox.faults.add("smartlook", "funnels/slow", times=99, fault=body)
    try:
        with pytest.raises(TransientVendorError):
            client.funnel("slow", first_day=FIRST, last_day=FIRST, call="f", budget=budget)
    finally:
        sandbox.faults.clear()
    assert sandbox.requests.count(vendor="smartlook") == asks
