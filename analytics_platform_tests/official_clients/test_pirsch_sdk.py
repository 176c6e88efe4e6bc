"""Pirsch's own SDK (npm `pirsch-sdk`), unpatched, over its whole surface.

Belongs here: what the SDK reads is what our client reads, and what somebody counted by hand; what it writes shows up.
Does not belong here: endpoints the SDK does not know (`vendors/pirsch/test_endpoints`).

Three people come by on a day of their own, before the generated ones, so every figure of that day can be counted on
fingers: the expectations below are written down, not computed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from analytics_platform.sandbox.pirsch_management import access_key_of
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import SiteTruth, generate
from analytics_platform.vendors.pirsch.client import PirschClient, StatisticsFilter
from analytics_platform_tests.official_clients.official_client import ClientRefused, OfficialClient

FIRST_DAY, LAST_DAY = date(2026, 10, 5), date(2026, 10, 6)
THEIR_DAY = date(2026, 9, 1)
BUFFER_SECONDS = 60.0
"""Longer than the vendor's buffer waits."""

CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
)
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0"
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.5 Mobile/15E148 Safari/604.1"
)

READ_BY_US = {
    "activeVisitors": "active",
    "browser": "browser",
    "browserVersions": "browser_version",
    "city": "city",
    "conversionGoals": "goals",
    "country": "country",
    "entryPages": "entry_pages",
    "eventMetadata": "event_metadata",
    "events": "events",
    "exitPages": "exit_pages",
    "growth": "growth",
    "keywords": "keywords",
    "languages": "language",
    "listEvents": "event_list",
    "os": "os",
    "osVersions": "os_version",
    "pages": "pages",
    "platform": "platform",
    "referrer": "referrer",
    "screen": "screen_class",
    "sessionDuration": "session_duration",
    "timeOfDay": "hours",
    "timeOnPage": "time_on_page",
    "totalVisitors": "total",
    "utmCampaign": "utm_campaign",
    "utmContent": "utm_content",
    "utmMedium": "utm_medium",
    "utmSource": "utm_source",
    "utmTerm": "utm_term",
    "visitors": "visitors",
}
"""Method of the SDK: method of our client."""
LATER = {"eventPages", "region", "tagKeys", "tags"}
"""Statistics younger than the vendor document: the SDK reads them, our client does not."""
WRITES = {"batchEvents", "batchHits", "batchSessions", "event", "hit", "session"}
BROKEN = {"funnel", "listFunnel"}
"""The SDK's own bug: their paths hold `/api/v1/` already and get it again (contract A2)."""
LOCAL = {"hitFromRequest"}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(generate(first_day=FIRST_DAY, days=2, scale=0.03), vendors=("pirsch",)) as running:
        yield running


@pytest.fixture(scope="module")
def site(sandbox: Sandbox) -> SiteTruth:
    """The only domain the SDK can find: it takes the first of the list."""
    return sandbox.world.sites[0]


@pytest.fixture(scope="module")
def sdk(sandbox: Sandbox, site: SiteTruth, run_node: Callable[[str], OfficialClient]) -> OfficialClient:
    client = run_node("pirsch_sdk.cjs")
    secret = sandbox.context.credentials
    client.call(
        "(new)",
        {
            "baseUrl": sandbox.base_urls["pirsch"],
            "hostname": site.hostname,
            "clientId": secret.pirsch_client_id,
            "clientSecret": secret.pirsch_client_secret,
        },
    )
    return client


@pytest.fixture(scope="module")
def ours(sandbox: Sandbox) -> Iterator[PirschClient]:
    secret = sandbox.context.credentials
    with PirschClient.connect(
        client_id=SecretStr(secret.pirsch_client_id),
        client_secret=SecretStr(secret.pirsch_client_secret),
        base_url=sandbox.base_urls["pirsch"],
    ) as client:
        yield client


def window(site: SiteTruth, first: date, last: date, **narrowing: Any) -> dict[str, Any]:
    """A filter as the SDK's types want it; the script makes dates of `from` and `to`."""
    return {"id": site.pirsch_domain_id, "from": first.isoformat(), "to": last.isoformat(), **narrowing}


def statuses(sandbox: Sandbox) -> list[tuple[str, str, int]]:
    return [(r.method, r.path.removeprefix("/api/v1/"), r.status) for r in sandbox.requests.records(vendor="pirsch")]


# --------------------------------------------------------------------------------------------------- the whole surface


def test_no_method_of_the_sdk_is_forgotten(sdk: OfficialClient, node_modules: Path) -> None:
    """The public methods as the SDK declares them: a new one has to be put into one of the sets above."""
    declared: set[str] = set()
    for name in ("core.d.ts", "client.d.ts"):
        text = (node_modules / "pirsch-sdk" / name).read_text(encoding="utf-8")
        declared |= set(re.findall(r"(?m)^    (\w+)\(", text)) - {"constructor"}
    assert declared == {*READ_BY_US, *LATER, *WRITES, *BROKEN, *LOCAL, "domain"}
    assert declared <= set(sdk.call("(methods)"))


# --------------------------------------------------------------------------------------------------------------- token


def test_a_first_post_without_a_token_gets_one_and_is_sent_again(
    sandbox: Sandbox, sdk: OfficialClient, site: SiteTruth, run_node: Callable[[str], OfficialClient]
) -> None:
    sandbox.context.token_store("pirsch").revoke_all()
    sandbox.requests.clear()
    secret = sandbox.context.credentials
    fresh = run_node("pirsch_sdk.cjs")
    fresh.call(
        "(new)",
        {
            "baseUrl": sandbox.base_urls["pirsch"],
            "hostname": site.hostname,
            "clientId": secret.pirsch_client_id,
            "clientSecret": secret.pirsch_client_secret,
        },
    )
    fresh.call("session", {"ip": "203.0.113.1", "user_agent": CHROME})
    assert statuses(sandbox) == [("POST", "session", 401), ("POST", "token", 200), ("POST", "session", 200)]


def test_a_token_that_dies_between_two_reads_is_replaced(
    sandbox: Sandbox, sdk: OfficialClient, site: SiteTruth
) -> None:
    before = sdk.call("totalVisitors", window(site, FIRST_DAY, LAST_DAY))
    sandbox.context.token_store("pirsch").revoke_all()
    sandbox.requests.clear()
    assert sdk.call("totalVisitors", window(site, FIRST_DAY, LAST_DAY)) == before
    assert statuses(sandbox) == [
        ("GET", "statistics/total", 401),
        ("POST", "token", 200),
        ("GET", "statistics/total", 200),
    ]


def test_wrong_credentials_are_the_vendors_error_in_the_sdks_words(
    sandbox: Sandbox, site: SiteTruth, run_node: Callable[[str], OfficialClient]
) -> None:
    stranger = run_node("pirsch_sdk.cjs")
    stranger.call(
        "(new)",
        {
            "baseUrl": sandbox.base_urls["pirsch"],
            "hostname": site.hostname,
            "clientId": "c" * 32,
            "clientSecret": "s" * 64,
        },
    )
    with pytest.raises(ClientRefused, match="unauthorized") as refused:
        stranger.call("totalVisitors", window(site, FIRST_DAY, LAST_DAY))
    assert (refused.value.name, refused.value.code) == ("PirschApiError", 401)


# --------------------------------------------------------------------------------------------------------------- reads


def test_domain(sdk: OfficialClient, site: SiteTruth) -> None:
    found = sdk.call("domain")
    assert (found["id"], found["hostname"], found["timezone"]) == (site.pirsch_domain_id, site.hostname, site.timezone)


@pytest.mark.parametrize("method", sorted(READ_BY_US))
def test_the_sdk_and_our_client_read_the_same(
    method: str, sdk: OfficialClient, ours: PirschClient, site: SiteTruth
) -> None:
    """One asks with the SDK's ISO instants and no limit, the other with dates and a limit: the same numbers."""
    narrowing: dict[str, Any] = {}
    if method == "eventMetadata":
        name, key = _an_event_of(ours, site)
        narrowing = {"event": name, "event_meta_key": key}
    ask = StatisticsFilter(domain_id=site.pirsch_domain_id, first_day=FIRST_DAY, last_day=LAST_DAY, **narrowing)
    page = getattr(ours, READ_BY_US[method])(ask)
    theirs = sdk.call(method, window(site, FIRST_DAY, LAST_DAY, **narrowing))
    assert theirs == json.loads(page.body)
    if method not in {"keywords", "activeVisitors"}:
        assert theirs


def _an_event_of(ours: PirschClient, site: SiteTruth) -> tuple[str, str]:
    ask = StatisticsFilter(domain_id=site.pirsch_domain_id, first_day=FIRST_DAY, last_day=LAST_DAY)
    rows = [row for row in json.loads(ours.events(ask).body) if row["meta_keys"]]
    return rows[0]["name"], rows[0]["meta_keys"][0]


def test_a_series_adds_up_to_the_totals_of_views(sdk: OfficialClient, site: SiteTruth) -> None:
    """What may be added is the same in every statistic; visitors may not be, and are not."""
    total = sdk.call("totalVisitors", window(site, FIRST_DAY, LAST_DAY))
    days = sdk.call("visitors", window(site, FIRST_DAY, LAST_DAY))
    hours = sdk.call("timeOfDay", window(site, FIRST_DAY, LAST_DAY))
    for figure in ("views", "sessions", "bounces"):
        assert sum(row[figure] for row in days) == sum(row[figure] for row in hours) == total[figure] > 0
    assert sum(row["visitors"] for row in days) >= total["visitors"] > 0


def test_a_narrowed_question_is_understood(sdk: OfficialClient, site: SiteTruth) -> None:
    """Filters, limit, order: what the SDK adds to the URL narrows what comes back."""
    browsers = sdk.call("browser", window(site, FIRST_DAY, LAST_DAY))
    first = browsers[0]
    narrowed = window(site, FIRST_DAY, LAST_DAY, browser=first["browser"])
    assert sdk.call("totalVisitors", narrowed)["visitors"] == first["visitors"]
    assert sdk.call("browser", narrowed)[0]["browser"] == first["browser"]
    assert len(sdk.call("browser", narrowed)) == 1
    assert (
        sdk.call("pages", window(site, FIRST_DAY, LAST_DAY, limit=2))
        == sdk.call("pages", window(site, FIRST_DAY, LAST_DAY))[:2]
    )


@pytest.mark.parametrize("method", sorted(BROKEN))
def test_the_sdks_funnels_ask_for_a_path_that_is_none(
    method: str, sandbox: Sandbox, sdk: OfficialClient, site: SiteTruth
) -> None:
    """Not the sandbox's fault: the SDK puts `/api/v1/` before a path that begins with it (contract A2)."""
    sandbox.requests.clear()
    with pytest.raises(ClientRefused) as refused:
        sdk.call(method, window(site, FIRST_DAY, LAST_DAY))
    assert refused.value.code == 404
    assert sandbox.requests.records(vendor="pirsch")[-1].path.startswith("/api/v1//api/v1/")


# --------------------------------------------------------------------------------------- three people, counted by hand


@pytest.fixture(scope="module")
def three_people(sandbox: Sandbox, sdk: OfficialClient, site: SiteTruth) -> dict[str, Any]:
    """Ann reads two pages of a campaign and signs up; Bob looks once, from a search; Cem looks once and stays.

    All sent through the SDK's three batches; the filter of their day.
    """
    shared = {"accept_language": "en-US,en;q=0.9"}
    ann = {"ip": _address(sandbox, "DE"), "user_agent": CHROME, "screen_width": 1920, "screen_height": 1080, **shared}
    bob = {"ip": "203.0.113.2", "user_agent": FIREFOX, "accept_language": "de", "screen_width": 1280}
    cem = {"ip": "203.0.113.3", "user_agent": IPHONE, "screen_width": 390, **shared}
    page = f"https://{site.hostname}"
    landing = f"{page}/sdk?utm_source=letter&utm_medium=mail&utm_campaign=autumn&utm_content=top&utm_term=shoes"
    sdk.call(
        "batchHits",
        [
            {**ann, "url": landing, "title": "Start", "tags": {"plan": "pro"}, "time": at(10, 0)},
            {**ann, "url": f"{page}/sdk/price", "title": "Price", "tags": {"plan": "free"}, "time": at(10, 2)},
            {**bob, "url": f"{page}/sdk", "title": "Start", "referrer": "https://www.google.com/", "time": at(11, 0)},
            {**cem, "url": f"{page}/sdk/blog", "title": "Blog", "time": at(12, 0)},
        ],
    )
    signed_up = {
        "name": "sdk signed up",
        "hit": {**ann, "url": f"{page}/sdk/price", "title": "Price"},
        "time": at(10, 3),
        "duration": 30,
        "meta": {"plan": "pro", "seats": 3, "trial": True},
    }
    sdk.call("batchEvents", [signed_up])
    sdk.call("batchSessions", [{"ip": cem["ip"], "user_agent": IPHONE, "time": at(12, 5)}])
    sandbox.context.advance(BUFFER_SECONDS)
    return window(site, THEIR_DAY, THEIR_DAY)


def at(hour: int, minute: int) -> str:
    """An instant of their day as JavaScript writes it."""
    return (
        datetime(THEIR_DAY.year, THEIR_DAY.month, THEIR_DAY.day, hour, minute, tzinfo=UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )


def _address(sandbox: Sandbox, country: str) -> str:
    people = sandbox.world.visitors
    return str(people.loc[people["country"] == country, "ip"].iloc[0])


THIRD = 1 / 3
TOTAL = {"visitors": 3, "views": 4, "sessions": 3, "bounces": 2, "bounce_rate": 2 / 3}
COUNTED: dict[str, Any] = {
    "totalVisitors": TOTAL,
    "visitors": [{"day": f"{THEIR_DAY}T00:00:00Z", **TOTAL}],
    "sessionDuration": [{"day": f"{THEIR_DAY}T00:00:00Z", "average_time_spent_seconds": 180}],
    "timeOnPage": [{"day": f"{THEIR_DAY}T00:00:00Z", "average_time_spent_seconds": 120}],
    "utmSource": [{"utm_source": "letter", "visitors": 1, "relative_visitors": THIRD}],
    "utmMedium": [{"utm_medium": "mail", "visitors": 1, "relative_visitors": THIRD}],
    "utmCampaign": [{"utm_campaign": "autumn", "visitors": 1, "relative_visitors": THIRD}],
    "utmContent": [{"utm_content": "top", "visitors": 1, "relative_visitors": THIRD}],
    "utmTerm": [{"utm_term": "shoes", "visitors": 1, "relative_visitors": THIRD}],
    "pages": [
        {"path": "/sdk", "title": "Start", "visitors": 2, "views": 2, "sessions": 2, "bounces": 1, "bounce_rate": 0.5,
         "relative_visitors": 2 / 3, "relative_views": 0.5},
        {"path": "/sdk/blog", "title": "Blog", "visitors": 1, "views": 1, "sessions": 1, "bounces": 1,
         "bounce_rate": 1, "relative_visitors": THIRD, "relative_views": 0.25},
        {"path": "/sdk/price", "title": "Price", "visitors": 1, "views": 1, "sessions": 1, "bounces": 0,
         "bounce_rate": 0, "relative_visitors": THIRD, "relative_views": 0.25},
    ],
    "entryPages": [
        {"path": "/sdk", "entries": 2, "entry_rate": 1},
        {"path": "/sdk/blog", "entries": 1, "entry_rate": 1},
    ],
    "exitPages": [
        {"path": "/sdk", "exits": 1, "exit_rate": 0.5},
        {"path": "/sdk/blog", "exits": 1, "exit_rate": 1},
        {"path": "/sdk/price", "exits": 1, "exit_rate": 1},
    ],
    "events": [
        {"name": "sdk signed up", "visitors": 1, "views": 1, "cr": THIRD, "average_duration_seconds": 30,
         "meta_keys": ["plan", "seats", "trial"]},
    ],
    # Metadata goes over the wire as text, whatever it was.
    "listEvents": [
        {"name": "sdk signed up", "meta": {"plan": "pro", "seats": "3", "trial": "true"}, "visitors": 1, "count": 1},
    ],
    "eventMetadata": [{"name": "sdk signed up", "meta_value": "pro", "visitors": 1, "views": 1, "cr": THIRD}],
    "eventPages": [{"path": "/sdk/price", "visitors": 1, "views": 1}],
    # Nobody came the day before.
    "growth": {
        "visitors_growth": 1, "views_growth": 1, "sessions_growth": 1, "bounces_growth": 1, "time_spent_growth": 1
    },
    "languages": [
        {"language": "en", "visitors": 2, "relative_visitors": 2 / 3},
        {"language": "de", "visitors": 1, "relative_visitors": THIRD},
    ],
    "referrer": [
        {"referrer_name": "", "visitors": 2, "sessions": 2, "bounces": 1, "bounce_rate": 0.5},
        {"referrer": "https://www.google.com/", "visitors": 1, "sessions": 1, "bounces": 1, "bounce_rate": 1},
    ],
    "os": [{"os": name, "visitors": 1} for name in ("Linux", "Windows", "iOS")],
    "osVersions": [
        {"os": name, "os_version": version} for name, version in (("Linux", ""), ("Windows", "10.0"), ("iOS", "17.5"))
    ],
    "browser": [{"browser": name, "visitors": 1} for name in ("Chrome", "Firefox", "Safari")],
    "browserVersions": [
        {"browser": name, "browser_version": version}
        for name, version in (("Chrome", "126.0"), ("Firefox", "127.0"), ("Safari", "17.5"))
    ],
    "country": [{"country_code": "", "visitors": 2}, {"country_code": "de", "visitors": 1}],
    "platform": {"platform_desktop": 2, "platform_mobile": 1, "platform_unknown": 0,
                 "relative_platform_desktop": 2 / 3, "relative_platform_mobile": THIRD},
    "screen": [{"screen_class": name, "visitors": 1} for name in ("Full HD", "HD", "XS")],
    "tagKeys": [{"key": "plan", "visitors": 1, "views": 2}],
    "tags": [
        {"key": "plan", "value": "free", "visitors": 1, "views": 1},
        {"key": "plan", "value": "pro", "visitors": 1, "views": 1},
    ],
}  # fmt: skip
ASKED_WITH = {
    "eventMetadata": {"event": "sdk signed up", "event_meta_key": "plan"},
    "eventPages": {"event": "sdk signed up"},
    "tags": {"tag": "plan"},
}
OTHERWISE = {
    "activeVisitors": "test_one_hit_one_event_and_a_keep_alive_of_the_present",
    "city": "test_where_the_three_were",
    "conversionGoals": "test_goals_of_their_day",
    "keywords": "no sandbox domain has Search Console: `null`",
    "region": "test_where_the_three_were",
    "timeOfDay": "test_hours_of_their_day",
}
"""Read back in a test of its own."""


def test_every_statistic_is_counted_by_hand_or_elsewhere() -> None:
    assert {*COUNTED, *OTHERWISE} == {*READ_BY_US, *LATER}


@pytest.mark.parametrize("method", sorted(COUNTED))
def test_what_three_people_did_is_counted_as_by_hand(
    method: str, sdk: OfficialClient, three_people: dict[str, Any]
) -> None:
    """Row by row in the vendor's order, no row more; only the named members of each are written down."""
    found, expected = sdk.call(method, {**three_people, **ASKED_WITH.get(method, {})}), COUNTED[method]
    rows, wanted_rows = (found, expected) if isinstance(expected, list) else ([found], [expected])
    for row, wanted in zip(rows, wanted_rows, strict=True):
        assert {name: _rounded(row[name]) for name in wanted} == {n: _rounded(v) for n, v in wanted.items()}


def _rounded(value: Any) -> Any:
    return round(value, 12) if isinstance(value, int | float) else value


def test_where_the_three_were(sandbox: Sandbox, sdk: OfficialClient, three_people: dict[str, Any]) -> None:
    """Only Ann's address is known to anybody."""
    people = sandbox.world.visitors
    ann = people[people["ip"] == _address(sandbox, "DE")].iloc[0]
    cities = {row["city"]: row["visitors"] for row in sdk.call("city", three_people)}
    regions = {(row["country_code"], row["region"]): row["visitors"] for row in sdk.call("region", three_people)}
    assert cities == ({ann["city"]: 1, "": 2} if ann["city"] else {"": 3})
    assert regions == {("", ""): 2, ("de", ann["region"]): 1}


def test_hours_of_their_day(sdk: OfficialClient, three_people: dict[str, Any]) -> None:
    """In the domain's own time, whatever that is: three hours after one another with a visitor each."""
    visitors = [row["visitors"] for row in sdk.call("timeOfDay", three_people)]
    first = visitors.index(1)
    assert len(visitors) == 24
    assert visitors[first : first + 3] == [1, 1, 1]
    assert sum(visitors) == 3


def test_goals_of_their_day(sdk: OfficialClient, three_people: dict[str, Any]) -> None:
    """They went to none of the pages the domain's goals are about."""
    goals = sdk.call("conversionGoals", three_people)
    assert goals
    assert {row["stats"]["visitors"] for row in goals} == {0}
    assert {row["page_goal"]["domain_id"] for row in goals} == {three_people["id"]}


def test_keywords_are_null_without_search_console(sdk: OfficialClient, three_people: dict[str, Any]) -> None:
    assert sdk.call("keywords", three_people) is None


# ---------------------------------------------------------------------------------------------- one at a time, and now


def test_one_hit_one_event_and_a_keep_alive_of_the_present(
    sandbox: Sandbox, sdk: OfficialClient, site: SiteTruth
) -> None:
    """Nothing is counted before the buffer is flushed; then the page, the event and the longer session are."""
    today = datetime.fromtimestamp(sandbox.context.now_ms() / 1000, UTC).date()
    now = window(site, today, today)
    before = sdk.call("totalVisitors", now)
    hit = sdk.call(
        "hitFromRequest",
        {
            "url": "/sdk/now?ref=friend.example",
            "headers": {"user-agent": CHROME, "accept-language": "fr"},
            "socket": {"remoteAddress": "203.0.113.9"},
        },
    )
    assert (hit["url"], hit["referrer"]) == (f"https://{site.hostname}/sdk/now?ref=friend.example", "friend.example")
    sandbox.requests.clear()
    sdk.call("hit", hit)
    sdk.call("event", "sdk pressed", hit, 7, {"button": "buy"})
    assert {(r.path, r.status) for r in sandbox.requests.records()} >= {("/api/v1/hit", 200), ("/api/v1/event", 200)}
    assert sdk.call("totalVisitors", now) == before

    sandbox.context.advance(BUFFER_SECONDS)
    after = sdk.call("totalVisitors", now)
    assert (after["visitors"], after["views"]) == (before["visitors"] + 1, before["views"] + 1)
    pressed = sdk.call("events", {**now, "event": "sdk pressed"})
    assert [(row["name"], row["visitors"], row["average_duration_seconds"]) for row in pressed] == [
        ("sdk pressed", 1, 7)
    ]
    assert {"path": "/sdk/now", "visitors": 1}.items() <= {
        row["path"]: row for row in sdk.call("activeVisitors", now)["stats"]
    }["/sdk/now"].items()

    mine = {**now, "path": "/sdk/now"}
    sdk.call("session", {"ip": hit["ip"], "user_agent": CHROME})
    sandbox.context.advance(BUFFER_SECONDS)
    assert sdk.call("totalVisitors", mine)["sessions"] == 1
    assert sdk.call("totalVisitors", now) == after


def test_the_same_hit_twice_is_two_views(sandbox: Sandbox, sdk: OfficialClient, site: SiteTruth) -> None:
    """The vendor has no idempotency key: who sends again counts again."""
    hit = {"url": f"https://{site.hostname}/sdk/twice", "ip": "203.0.113.20", "user_agent": FIREFOX}
    sdk.call("hit", hit)
    sdk.call("hit", hit)
    sandbox.context.advance(BUFFER_SECONDS)
    today = datetime.fromtimestamp(sandbox.context.now_ms() / 1000, UTC).date()
    pages = {row["path"]: row for row in sdk.call("pages", window(site, today, today, path="/sdk/twice"))}
    assert (pages["/sdk/twice"]["visitors"], pages["/sdk/twice"]["views"]) == (1, 2)


def test_a_hit_without_its_address_is_refused_by_field(sdk: OfficialClient) -> None:
    with pytest.raises(ClientRefused, match=r"validation error \(400\).*url") as refused:
        sdk.call("hit", {"url": "", "ip": "203.0.113.9", "user_agent": CHROME})
    assert refused.value.code == 400


@pytest.mark.parametrize("variant", ["(new)", "(new web)"])
def test_an_access_key_writes_without_a_token_step(
    variant: str, sandbox: Sandbox, site: SiteTruth, run_node: Callable[[str], OfficialClient]
) -> None:
    """A key (younger than the vendor document) is the bearer itself; the SDK refuses to read with one.

    The package's second client, for browsers, takes nothing but a key.
    """
    holder = _with_key(run_node, sandbox, site, access_key_of(site.pirsch_domain_id), variant)
    hit = {"url": f"https://{site.hostname}/sdk/key", "ip": "203.0.113.30", "user_agent": CHROME}
    sandbox.requests.clear()
    holder.call("hit", hit)
    holder.call("event", "sdk key", hit)
    holder.call("session", {"ip": hit["ip"], "user_agent": CHROME})
    assert statuses(sandbox) == [("POST", "hit", 200), ("POST", "event", 200), ("POST", "session", 200)]
    with pytest.raises(ClientRefused, match="not possible with access tokens"):
        holder.call("totalVisitors", window(site, FIRST_DAY, LAST_DAY))
    assert len(sandbox.requests.records()) == 3


def test_an_unknown_access_key_is_refused_once(
    sandbox: Sandbox, site: SiteTruth, run_node: Callable[[str], OfficialClient]
) -> None:
    """There is no token to fetch anew, so the SDK does not try again."""
    stranger = _with_key(run_node, sandbox, site, "pa_" + "k" * 45)
    sandbox.requests.clear()
    with pytest.raises(ClientRefused) as refused:
        stranger.call("hit", {"url": f"https://{site.hostname}/", "ip": "203.0.113.9", "user_agent": CHROME})
    assert refused.value.code == 401
    assert statuses(sandbox) == [("POST", "hit", 401)]


def _with_key(
    run_node: Callable[[str], OfficialClient], sandbox: Sandbox, site: SiteTruth, key: str, variant: str = "(new)"
) -> OfficialClient:
    holder = run_node("pirsch_sdk.cjs")
    holder.call(variant, {"baseUrl": sandbox.base_urls["pirsch"], "hostname": site.hostname, "accessToken": key})
    return holder
