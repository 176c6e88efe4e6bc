"""Inspectlet's search against brute force: every documented condition, every URL operator, tags, bounds and units.

Belongs here: that an answer holds exactly what a plain loop over the unfiltered answer finds, and what is refused
before a request. Does not belong here: traps (`test_traps`), the losses of recordings (`sandbox/test_inspectlet`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from analytics_platform.core.errors import ConfigurationError
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import generate
from analytics_platform.vendors.inspectlet.client import (
    BROWSERS,
    URL_OPERATORS,
    InspectletClient,
    SessionSearch,
    Tag,
    UrlMatch,
    records_of,
)

FIRST = datetime(2026, 10, 5, tzinfo=UTC)

Row = dict[str, Any]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(generate(first_day=FIRST.date(), days=9, scale=0.2), vendors=("inspectlet",)) as running:
        yield running


@pytest.fixture(scope="module")
def client(sandbox: Sandbox) -> Iterator[InspectletClient]:
    secret = sandbox.context.credentials
    with InspectletClient.connect(
        base_url=sandbox.base_urls["inspectlet"],
        username=SecretStr(secret.inspectlet_username),
        api_token=SecretStr(secret.inspectlet_api_token),
    ) as opened:
        yield opened


@pytest.fixture(scope="module")
def wid(sandbox: Sandbox) -> str:
    return str(sandbox.world.sites[0].wid)


@pytest.fixture(scope="module")
def sessions(client: InspectletClient, wid: str) -> list[Row]:
    return found(client, wid, SessionSearch())


def found(client: InspectletClient, wid: str, search: SessionSearch, **asked: Any) -> list[Row]:
    pages = client.search_sessions(wid, search, call="s", **asked)
    return [dict(session) for page in pages for session in records_of(page)]


def bare(url: str) -> str:
    return url.partition("://")[2]


def tags_of(session: Row) -> list[tuple[str, str]]:
    return [(tag["tag"], tag["value"]) for tag in session["tags"]]


def seconds(session: Row) -> float:
    return float(session["session_duration"]) / 1000


def most_common(sessions: list[Row], read: Callable[[Row], Any]) -> Any:
    values = [read(session) for session in sessions if read(session)]
    return max(sorted(set(values)), key=values.count)


CONDITIONS: dict[str, Callable[[list[Row]], tuple[SessionSearch, Callable[[Row], bool]]]] = {
    "country": lambda rows: (SessionSearch(country="FR"), lambda s: s["country"] == "FR"),
    "device phone": lambda rows: (SessionSearch(device="phone"), lambda s: s["device_type"] == "phone"),
    "device desktop": lambda rows: (SessionSearch(device="desktop"), lambda s: s["device_type"] == "desktop"),
    "new visitors": lambda rows: (SessionSearch(includes_returning=False), lambda s: s["new_visitor"]),
    "returning visitors": lambda rows: (SessionSearch(includes_new=False), lambda s: not s["new_visitor"]),
    "starred": lambda rows: (SessionSearch(is_starred_only=True), lambda s: s["starred"]),
    "pages, at least": lambda rows: (SessionSearch(pages_at_least=4), lambda s: s["num_pages"] >= 4),
    "pages, at most": lambda rows: (SessionSearch(pages_at_most=4), lambda s: s["num_pages"] <= 4),
    "pages, between": lambda rows: (
        SessionSearch(pages_at_least=2, pages_at_most=3),
        lambda s: 2 <= s["num_pages"] <= 3,
    ),
    "seconds, at least": lambda rows: (SessionSearch(duration_seconds_at_least=300), lambda s: seconds(s) >= 300),
    "seconds, at most": lambda rows: (SessionSearch(duration_seconds_at_most=60), lambda s: seconds(s) <= 60),
    "seconds, between": lambda rows: (
        SessionSearch(duration_seconds_at_least=60, duration_seconds_at_most=300),
        lambda s: 60 <= seconds(s) <= 300,
    ),
    "traffic source": lambda rows: (SessionSearch(traffic_source="s"), lambda s: s["referrer"]["source"] == "s"),
    "custom range": lambda rows: (
        SessionSearch(start=FIRST + timedelta(days=1), end=FIRST + timedelta(days=3, hours=5)),
        lambda s: (
            (FIRST + timedelta(days=1)).timestamp()
            <= s["date_start_session"]
            <= (FIRST + timedelta(days=3, hours=5)).timestamp()
        ),
    ),
    "a tag": lambda rows: (
        SessionSearch(tags=(Tag(name="email"),)),
        lambda s: any(name == "email" for name, _ in tags_of(s)),
    ),
    "a tag that is true": lambda rows: (
        SessionSearch(tags=(Tag(name="converted-purchase", value=True),)),
        lambda s: ("converted-purchase", "1") in tags_of(s),
    ),
    "a tag by the beginning of its name": lambda rows: (
        SessionSearch(tags=(Tag(name="converted"),)),
        lambda s: any(name.startswith("converted-") for name, _ in tags_of(s)),
    ),
    "tags, and": lambda rows: (
        SessionSearch(tags=(Tag(name="email"), Tag(name="converted-purchase", value="1"))),
        lambda s: {"email", "converted-purchase"} <= {name for name, _ in tags_of(s)},
    ),
    "tags, or": lambda rows: (
        SessionSearch(tags=(Tag(name="email"), Tag(name="converted-purchase")), tags_operator="or"),
        lambda s: bool({"email", "converted-purchase"} & {name for name, _ in tags_of(s)}),
    ),
    "several conditions": lambda rows: (
        SessionSearch(device="desktop", pages_at_least=2, includes_new=False),
        lambda s: s["device_type"] == "desktop" and s["num_pages"] >= 2 and not s["new_visitor"],
    ),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_every_condition(client: InspectletClient, wid: str, sessions: list[Row], name: str) -> None:
    search, holds = CONDITIONS[name](sessions)
    wanted = [session["sid"] for session in sessions if holds(session)]
    assert 0 < len(wanted) < len(sessions)
    assert [session["sid"] for session in found(client, wid, search)] == wanted


def test_the_ranges_that_end_now(client: InspectletClient, sandbox: Sandbox, wid: str, sessions: list[Row]) -> None:
    since = sandbox.world.now.timestamp() - 7 * 86_400
    wanted = [session for session in sessions if session["date_start_session"] >= since]
    assert 0 < len(wanted) < len(sessions)
    assert found(client, wid, SessionSearch(last="week")) == wanted
    assert found(client, wid, SessionSearch(last="30days")) == sessions  # the world is nine days old


@pytest.mark.parametrize("browser", BROWSERS)
def test_every_browser(client: InspectletClient, wid: str, sessions: list[Row], browser: Any) -> None:
    wanted = [session["sid"] for session in sessions if session["browser"] == browser]
    assert [session["sid"] for session in found(client, wid, SessionSearch(browser=browser))] == wanted
    if browser not in ("ie", "opera", "android", "chrome mobile (ios)", "other"):
        assert wanted


@pytest.mark.parametrize(("field", "condition"), [("display_name", "display_name"), ("ip", "ip_address")])
def test_one_person(client: InspectletClient, wid: str, sessions: list[Row], field: str, condition: str) -> None:
    person = most_common(sessions, lambda session: session[field])
    search = SessionSearch(**{condition: person})
    assert person not in repr(search)
    wanted = [session["sid"] for session in sessions if session[field] == person]
    assert [session["sid"] for session in found(client, wid, search)] == wanted
    assert 0 < len(wanted) < len(sessions)


URLS: dict[str, Callable[[Row], list[str]]] = {
    "start_page": lambda s: [s["landing_page"]],
    "visited_page": lambda s: [page["url"] for page in s["pages"]],
    "exit_page": lambda s: [s["exit_page"]],
}
FRAGMENTS = {
    "is": "www.shop.example/",
    "notis": "www.shop.example/",
    "beginswith": "www.shop.example/product/",
    "notbeginswith": "www.shop.example/product/",
    "contains": "/product/",
    "notcontains": "/product/",
    "patternmatch": "*shop.example/*uct/*",
}


def url_holds(urls: list[str], operator: str, fragment: str) -> bool:
    told: dict[str, Callable[[str], bool]] = {
        "is": lambda url: bare(url) == fragment,
        "beginswith": lambda url: bare(url).startswith(fragment),
        "contains": lambda url: fragment in bare(url),
        "patternmatch": lambda url: re.fullmatch(fragment.replace("*", ".*"), bare(url)) is not None,
    }
    if operator.startswith("not"):
        return not any(told[operator.removeprefix("not")](url) for url in urls)
    return any(told[operator](url) for url in urls)


@pytest.mark.parametrize("operator", URL_OPERATORS)
@pytest.mark.parametrize("page", URLS)
@pytest.mark.parametrize("scheme", ["", "https://"])
def test_every_url_operator_on_every_page(
    client: InspectletClient, wid: str, sessions: list[Row], page: str, operator: Any, scheme: str
) -> None:
    fragment = FRAGMENTS[operator]
    given = fragment if fragment[0] in "/*" else scheme + fragment
    search = SessionSearch(**{page: UrlMatch(url=given, operator=operator)})
    wanted = [session["sid"] for session in sessions if url_holds(URLS[page](session), operator, fragment)]
    assert 0 < len(wanted) < len(sessions)
    assert [session["sid"] for session in found(client, wid, search)] == wanted


@pytest.mark.parametrize("limit", [9, 10, 100])
def test_limit_and_page(client: InspectletClient, wid: str, sessions: list[Row], limit: int) -> None:
    assert found(client, wid, SessionSearch(), limit=limit, first_page=2) == sessions[limit:]


# ----------------------------------------------------------------------------------- refused before anything is sent

NAIVE = FIRST.replace(tzinfo=None)


@pytest.mark.parametrize(
    "given",
    [
        {"start": FIRST},
        {"end": FIRST},
        {"start": NAIVE, "end": NAIVE},
        {"start": FIRST, "end": FIRST - timedelta(seconds=1)},
        {"start": FIRST, "end": FIRST, "last": "week"},
        {"last": "year"},
        {"country": "EN"},
        {"country": "us"},
        {"ip_address": "localhost"},
        {"browser": "Chrome"},
        {"device": "tablet"},
        {"includes_new": False, "includes_returning": False},
        {"tags": (Tag(name=""),)},
        {"tags": (Tag(name="a"),), "tags_operator": "xor"},
        {"pages_at_least": -1},
        {"pages_at_least": 3, "pages_at_most": 2},
        {"duration_seconds_at_least": 10, "duration_seconds_at_most": 9},
        {"display_name": ""},
        {"traffic_source": ""},
        {"start_page": UrlMatch(url="https://")},
        {"exit_page": UrlMatch(url="x", operator="endswith")},  # type: ignore[arg-type]
    ],
)
def test_what_the_vendor_does_not_have_is_not_asked_for(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="nothing was sent"):
        SessionSearch(**given)


@pytest.mark.parametrize("asked", [{"limit": 0}, {"limit": 101}, {"first_page": 0}])
def test_a_page_the_vendor_does_not_have_is_not_asked_for(
    client: InspectletClient, sandbox: Sandbox, wid: str, asked: dict[str, int]
) -> None:
    sandbox.requests.clear()
    with pytest.raises(ConfigurationError):
        client.search_sessions(wid, SessionSearch(), call="s", **asked)  # type: ignore[arg-type]
    assert len(sandbox.requests) == 0


@given(
    start=st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    length=st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=400)),
)
def test_a_range_is_whole_seconds_as_text_and_never_narrower(start: datetime, length: timedelta) -> None:
    sent = json.loads(SessionSearch(start=start, end=start + length).form_value())
    low, high = sent["daterangecustom"]["start"], sent["daterangecustom"]["end"]
    assert (type(low), type(high), sent["daterange"]) == (str, str, "custom")
    assert start.timestamp() - 1 < int(low) <= start.timestamp()
    assert (start + length).timestamp() <= int(high) < (start + length).timestamp() + 1
