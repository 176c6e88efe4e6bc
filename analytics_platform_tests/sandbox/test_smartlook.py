"""Smartlook's observer over a real socket: the wire of the contract, and the losses of MARTS §5.5 against the truth."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from analytics_platform.sandbox import faults
from analytics_platform.sandbox.replay import replay_world
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import SiteTruth, World, generate

REAL_LOG = Path(__file__).parents[3] / "shared" / "real_data" / "nasa_19950801.tsv"
EVERY_DAY = {"filters": [{"name": "recording_date", "operator": "after", "value": "2000-01-01"}]}
RANGE = {"dateFrom": "2026-10-05", "dateTo": "2026-11-02"}


@pytest.fixture(scope="module")
def world() -> World:
    return generate()


@pytest.fixture(scope="module")
def sandbox(world: World) -> Iterator[Sandbox]:
    with Sandbox(world, profiles={"smartlook": {"hourly_limit": 100_000}}, vendors=("smartlook",)) as running:
        yield running


@pytest.fixture(scope="module")
def shop(sandbox: Sandbox, world: World) -> Iterator[httpx.Client]:
    with client(sandbox, world.sites[0]) as http:
        yield http


@pytest.fixture(scope="module")
def blog(sandbox: Sandbox, world: World) -> Iterator[httpx.Client]:
    with client(sandbox, world.sites[1]) as http:
        yield http


@pytest.fixture(scope="module")
def shop_sessions(shop: httpx.Client) -> list[Any]:
    return search(shop, EVERY_DAY)


def client(sandbox: Sandbox, site: SiteTruth) -> httpx.Client:
    headers = {"authorization": f"Bearer {site.smartlook_token}"}
    return httpx.Client(base_url=sandbox.base_urls["smartlook"], headers=headers, trust_env=False)


def get(http: httpx.Client, path: str, **query: Any) -> Any:
    answer = http.get(path, params={k: str(v) for k, v in query.items()} or None)
    assert answer.status_code == 200, answer.text
    return answer.json()


def search(http: httpx.Client, body: Any, *, limit: int = 100, path: str = "/api/v1/sessions/search") -> list[Any]:
    """Every row, by following the links as they are and posting the body again."""
    key = "sessions" if "sessions" in path else "visitors"
    rows: list[Any] = []
    link: str | None = f"{path}?limit={limit}"
    while link:
        answer = http.post(link, json=body)
        assert answer.status_code == 200, answer.text
        rows += answer.json()[key]
        link = answer.json()["_links"].get("nextPage")
    assert len(rows) == answer.json()["totalSessionsCount" if key == "sessions" else "totalVisitorsCount"]
    return rows


def started(session: Any) -> datetime:
    return datetime.fromisoformat(session["startedAt"])


def naive_sessions(world: World, site: SiteTruth, *, idle: int, cap: int, block_cut: float) -> Counter[tuple[str, int]]:
    """(Kameleoon code, start) of every session, by a plain loop over the truth."""
    people = {
        row.visitor_id: row.kameleoon_code
        for row in world.visitors.itertuples()
        if row.site_key == site.key and row.consents and row.block_rank >= block_cut
        and (not row.is_bot or row.bot_kind == "headless_js")
    }  # fmt: skip
    found: Counter[tuple[str, int]] = Counter()
    last: dict[int, int] = {}
    begin: dict[int, int] = {}
    for view in world.views.sort_values(["visitor_id", "at_ms"]).itertuples():
        if view.visitor_id not in people:
            continue
        v, at = view.visitor_id, view.at_ms
        if v not in last or at - last[v] > idle * 1000 or at - begin[v] > cap * 1000:
            begin[v] = at
            found[people[v], at] += 1
        last[v] = at
    return found


def test_cursor_pages_are_complete_ordered_and_unique(shop: httpx.Client, shop_sessions: list[Any]) -> None:
    sessions = shop_sessions
    assert len(sessions) > 3000
    assert len({s["id"] for s in sessions}) == len(sessions)
    assert [s["startedAt"] for s in sessions] == sorted(s["startedAt"] for s in sessions)
    newest_first = search(shop, {**EVERY_DAY, "sort": {"timeStart": "desc"}}, path="/api/sessions/search")
    assert [s["id"] for s in newest_first] == [s["id"] for s in reversed(sessions)]


def test_links_are_relative_unversioned_and_propagate_the_limit(shop: httpx.Client) -> None:
    body = shop.post("/api/v1/sessions/search?limit=7", json=EVERY_DAY).json()
    assert body["_links"]["nextPage"].startswith("/api/sessions/search?after=")
    assert body["_links"]["nextPage"].endswith("&limit=7")
    assert set(body["pagination"]) == {"after"}
    rebuilt = shop.post(
        "/api/v1/sessions/search", params={"after": body["pagination"]["after"], "limit": "7"}, json=EVERY_DAY
    )
    assert rebuilt.json() == shop.post(body["_links"]["nextPage"], json=EVERY_DAY).json()


def test_session_shape(shop: httpx.Client) -> None:
    session = shop.post("/api/v1/sessions/search?limit=1", json=EVERY_DAY).json()["sessions"][0]
    assert set(session) == {
        "id", "visitorId", "identification", "duration", "startedAt", "endedAt", "referrer", "landingPage", "exitPage",
        "pageUrl", "notes", "domain", "protocol", "dashboardURL", "_links",
    }  # fmt: skip
    assert session["startedAt"].endswith("Z")
    assert session["identification"]["properties"]["kameleoon_visitor_code"]
    assert get(shop, f"/api/v1/sessions/{session['id']}") == session
    assert get(shop, f"/api/sessions/{session['id']}/public-link")["publicLink"].startswith("https://")
    assert {s["id"] for s in get(shop, f"/api/v1/visitors/{session['visitorId']}/sessions")["sessions"]} >= {
        session["id"]
    }


def test_only_consenting_people_and_scripted_bots_are_seen(
    shop: httpx.Client, shop_sessions: list[Any], world: World
) -> None:
    people = world.visitors.set_index("kameleoon_code")
    seen = {s["identification"]["properties"]["kameleoon_visitor_code"] for s in shop_sessions}
    rows = people.loc[sorted(seen)]
    assert rows["consents"].all()
    assert (rows["block_rank"] >= 0.03).all()
    assert set(rows["bot_kind"]) == {"", "headless_js"}
    assert not people[(people["site_key"] == "shop") & ~people["consents"]].empty


def test_sessions_follow_15_and_60_minutes() -> None:
    small = generate(days=5)
    with Sandbox(small, profiles={"smartlook": {"quiet_share": 0.0}}, vendors=("smartlook",)) as running:
        for site in small.sites:
            with client(running, site) as http:
                seen = Counter(
                    (
                        s["identification"]["properties"]["kameleoon_visitor_code"],
                        int(started(s).timestamp() * 1000 + 0.5),
                    )
                    for s in search(http, EVERY_DAY)
                )
            assert seen == naive_sessions(small, site, idle=900, cap=3600, block_cut=0.03)
            assert seen != naive_sessions(small, site, idle=1800, cap=86_400, block_cut=0.03)


def test_quiet_visits_are_not_recorded(world: World) -> None:
    small = generate(days=5)
    with Sandbox(small, vendors=("smartlook",)) as running, client(running, small.sites[0]) as http:
        sessions = search(http, EVERY_DAY)
    wanted = naive_sessions(small, small.sites[0], idle=900, cap=3600, block_cut=0.03)
    share = 1 - len(sessions) / sum(wanted.values())
    assert 0.005 < share < 0.08


def test_plan_cap_keeps_the_first_recordings_of_a_local_day(shop_sessions: list[Any], world: World) -> None:
    story = world.story("plan_cap")
    assert story is not None
    cap = story.parameters["recordings_per_day"]
    with (
        Sandbox(replace(world, stories=()), vendors=("smartlook",)) as uncapped,
        client(uncapped, world.sites[0]) as http,
    ):
        everything = by_local_day(search(http, EVERY_DAY))
    kept = by_local_day(shop_sessions)
    bitten = 0
    for day, all_sessions in everything.items():
        expected = all_sessions[:cap] if story.first_day <= day <= story.last_day else all_sessions
        assert kept[day] == expected, day
        bitten += len(all_sessions) > len(expected)
    assert bitten >= 5  # on those days the hourly curve is flat from the cap to midnight


def by_local_day(sessions: list[Any]) -> dict[date, list[str]]:
    days: dict[date, list[str]] = defaultdict(list)
    for session in sessions:
        days[started(session).astimezone(ZoneInfo("Europe/Berlin")).date()].append(session["id"])
    return days


def test_a_lost_tag_hides_articles_on_its_local_days(blog: httpx.Client) -> None:
    zone = ZoneInfo("America/New_York")
    articles: Counter[date] = Counter()
    for session in search(blog, EVERY_DAY):
        articles[started(session).astimezone(zone).date()] += sum("/articles/" in url for url in session["pageUrl"])
    # A session that began the evening before may end on an article of the first day; none starts on one.
    assert articles[date(2026, 10, 20)] > 50
    assert articles[date(2026, 10, 21)] == 0
    assert articles[date(2026, 10, 23)] > 50


def test_recording_date_operators_split_the_range(shop: httpx.Client, shop_sessions: list[Any]) -> None:
    def ids(operator: str, value: object) -> set[str]:
        rule = {"filters": [{"name": "recording_date", "operator": operator, "value": value}]}
        return {s["id"] for s in search(shop, rule)}

    everything = {s["id"]: started(s).astimezone(UTC).date() for s in shop_sessions}
    day = date(2026, 10, 20)
    assert ids("is", day.isoformat()) == {k for k, v in everything.items() if v == day}
    assert ids("before", day.isoformat()) == {k for k, v in everything.items() if v < day}
    assert ids("after", day.isoformat()) == {k for k, v in everything.items() if v > day}
    later = day + timedelta(days=3)
    assert ids("in_range", [day.isoformat(), later.isoformat()]) == {
        k for k, v in everything.items() if day <= v <= later
    }
    assert ids("is", [day.isoformat(), later.isoformat()]) == {k for k, v in everything.items() if v in (day, later)}


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ({"name": "session_duration", "operator": "gte", "value": 600}, lambda s: s["duration"] >= 600),
        ({"name": "session_duration", "operator": "lte", "value": 40}, lambda s: s["duration"] <= 40),
        ({"name": "exit_url", "operator": "contains", "value": "/thank-you"}, lambda s: "/thank-you" in s["exitPage"]),
        ({"name": "recording_url", "operator": "not_contains", "value": ["/cart", "/sale"]},
         lambda s: not any(part in url for url in s["pageUrl"] for part in ("/cart", "/sale"))),
        ({"name": "uid", "operator": "contains", "value": "shop-"}, lambda s: s["identification"].get("uid")),
        ({"name": "user_email", "operator": "is_not", "value": "nobody@example.org"}, lambda s: True),
    ],
)  # fmt: skip
def test_filters(shop: httpx.Client, shop_sessions: list[Any], rule: dict[str, Any], holds: Any) -> None:
    wanted = {s["id"] for s in shop_sessions if holds(s)}
    assert wanted
    assert {s["id"] for s in search(shop, {"filters": [rule]})} == wanted


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"filters": {}}', b'{"filters": [{"name": "uid", "value": "x"}]}',
     b'{"filters": [{"name": "nope", "operator": "is", "value": "x"}]}',
     b'{"filters": [{"name": "recording_date", "operator": "is", "value": "yesterday"}]}',
     b'{"filters": [{"name": "recording_date", "operator": "in_range", "value": ["2026-10-05"]}]}'],
)  # fmt: skip
def test_bad_searches_are_refused(shop: httpx.Client, body: bytes) -> None:
    answer = shop.post("/api/v1/sessions/search", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"] == "Bad Request"


def test_visitors_search_and_detail_agree(shop: httpx.Client) -> None:
    rule = {"filters": [{"name": "user_first_seen", "operator": "in_range", "value": ["2026-10-10", "2026-10-11"]}]}
    visitors = search(shop, rule, path="/api/v2/visitors/search")
    assert 50 < len(visitors) < 400
    assert all("2026-10-10" <= v["firstSeen"][:10] <= "2026-10-11" for v in visitors)
    assert isinstance(visitors[0]["identification"]["properties"], list)  # an object on sessions, an array here
    assert search(shop, rule, path="/api/visitors/search") == visitors
    for visitor in visitors[:5]:
        detail = get(shop, f"/api/v1/visitors/{visitor['id']}")["visitor"]
        sessions = get(shop, f"/api/v1/visitors/{visitor['id']}/sessions", limit=100)
        assert detail["numberOfSessions"] == sessions["totalCount"] == len(sessions["sessions"])
        assert detail["firstSeen"] == sessions["sessions"][0]["startedAt"]
    loose = {"filters": [{"name": "visitor_id", "value": visitors[0]["id"]}]}
    assert shop.post("/api/v1/visitors/search", json=loose).json()["totalVisitorsCount"] == 1
    assert shop.post("/api/v2/visitors/search", json=loose).status_code == 400


def test_event_list_holds_definitions_and_histograms_add_up(shop: httpx.Client) -> None:
    events = get(shop, "/api/v1/events", limit=100)
    assert events["totalCount"] == len(events["events"]) == len({e["id"] for e in events["events"]})
    assert "Purchase" in {e["name"] for e in events["events"]}
    for event in events["events"]:
        detail = get(shop, f"/api/v1/events/{event['id']}", **RANGE, occurrenceHistogramInterval="day")["event"]
        assert len(detail["occurrenceHistogram"]) == 29
        assert sum(h["occurrenceCount"] for h in detail["occurrenceHistogram"]) == detail["totalOccurrence"] > 0
        assert max(h["uniqueVisitorsCount"] for h in detail["occurrenceHistogram"]) <= detail["uniqueVisitors"]
    assert "occurrenceHistogram" not in get(shop, f"/api/v1/events/{event['id']}", **RANGE)["event"]


def test_histogram_equals_the_occurrences_of_the_visitors(shop: httpx.Client) -> None:
    purchase = next(e for e in get(shop, "/api/events", limit=100)["events"] if e["name"] == "Purchase")
    visitors = get(shop, f"/api/v1/events/{purchase['id']}/visitors", **RANGE)["visitors"]
    total = get(shop, f"/api/v1/events/{purchase['id']}", **RANGE)["event"]["totalOccurrence"]
    assert sum(v["eventMatchedCount"] for v in visitors) == total
    chosen = visitors[0]
    rows: list[Any] = []
    link: str | None = f"/api/v1/visitors/{chosen['id']}/events?eventTypes=custom&limit=2"
    while link:
        page = get(shop, link)
        rows += page["events"]
        link = page["_links"].get("nextPage")
    assert sum(e["eventName"] == "Purchase" for e in rows) == chosen["eventMatchedCount"]
    assert {e["type"] for e in rows} == {"custom"}
    assert [e["startedAt"] for e in rows] == sorted(e["startedAt"] for e in rows)


def test_page_views_are_url_events_of_their_session(shop: httpx.Client, shop_sessions: list[Any]) -> None:
    session = next(s for s in shop_sessions if len(s["pageUrl"]) > 4)
    query = {"sessionId": session["id"], "eventTypes": "url", "limit": 100}
    events = get(shop, f"/api/v1/visitors/{session['visitorId']}/events", **query)["events"]
    assert [e["pageUrl"] for e in events] == session["pageUrl"]
    assert len({e["id"] for e in events}) == len(events)


def test_previous_page_goes_back(shop: httpx.Client) -> None:
    first = get(shop, "/api/v1/events", limit=2)
    assert "previousPage" not in first["_links"]
    second = get(shop, first["_links"]["nextPage"])
    back = get(shop, second["_links"]["previousPage"])
    assert back["events"] == first["events"]
    assert shop.get("/api/v1/events?after=a&before=b").status_code == 400


def test_funnels_are_computed_on_the_second_ask() -> None:
    small = generate(days=10)
    with Sandbox(small, vendors=("smartlook",)) as running, client(running, small.sites[0]) as http:
        funnel = get(http, "/api/v1/funnels")["funnels"][0]
        first = get(http, f"/api/v1/funnels/{funnel['id']}", **RANGE)
        assert first["computation"]["isFinished"] is False
        assert first["funnel"]["steps"] == []
        steps = get(http, f"/api/v1/funnels/{funnel['id']}", **RANGE)["funnel"]["steps"]
        at_once = get(
            http, f"/api/v1/funnels/{funnel['id']}", dateFrom="2026-10-07", dateTo="2026-10-07", waitForFinish="true"
        )
        assert at_once["computation"]["isFinished"] is True
        counts = [step["visitorsCount"] for step in steps]
        assert counts == sorted(counts, reverse=True)
        assert counts[-1] > 0
        path = f"/api/v1/funnels/{funnel['id']}/visitors/drop-off"
        lost = get(http, path, **RANGE, step=2, success="false")["totalVisitorsCount"]
        done = get(http, path, **RANGE, step=2, success="true")["totalVisitorsCount"]
        assert (lost, done) == (counts[0] - counts[1], counts[1])


def test_a_token_opens_one_project(sandbox: Sandbox, world: World) -> None:
    names = set()
    for site in world.sites:
        with client(sandbox, site) as http:
            names.add(get(http, "/api/v1/me")["projectId"])
            assert get(http, "/api/me")["projectName"] == site.hostname
    assert names == {site.smartlook_project_id for site in world.sites}
    for header in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {world.sites[0].smartlook_token}"}):
        answer = httpx.get(f"{sandbox.base_urls['smartlook']}/api/v1/me", headers=header, trust_env=False)
        assert answer.status_code == 401


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def test_the_hour_slides_and_statistics_are_free() -> None:
    clock = Clock()
    running = Sandbox(generate(days=1), profiles={"smartlook": {"plan": "free"}}, vendors=("smartlook",))
    running.context.monotonic = clock
    with running, client(running, running.world.sites[0]) as http, client(running, running.world.sites[1]) as other:
        for _ in range(20):
            assert http.get("/api/v1/me").status_code == 200
            clock.seconds += 1
        refused = http.get("/api/v1/events")
        assert refused.status_code == 429
        assert int(refused.headers["x-retryafter"]) == refused.json()["retryAfter"] == 3581
        assert get(http, "/api/v1/statistics") == {"projectUsage": 20, "endpointsUsage": {"GET /me": 20}}
        assert get(http, "/api/statistics")["projectUsage"] == 20
        assert other.get("/api/v1/me").status_code == 200  # limits are a project's
        clock.seconds = 1000 + 3600
        assert http.get("/api/v1/me").status_code == 200
        assert http.get("/api/v1/me").status_code == 429


def test_cursors_expire_and_belong_to_their_search() -> None:
    clock = Clock()
    running = Sandbox(generate(days=2), profiles={"smartlook": {"cursor_seconds": 60}}, vendors=("smartlook",))
    running.context.monotonic = clock
    with running, client(running, running.world.sites[0]) as http:
        link = http.post("/api/v1/sessions/search?limit=5", json=EVERY_DAY).json()["_links"]["nextPage"]
        assert http.post(link, json=EVERY_DAY).status_code == 200
        assert http.post(link, json={**EVERY_DAY, "sort": {"timeStart": "desc"}}).status_code == 400
        clock.seconds += 61
        assert http.post(link, json=EVERY_DAY).status_code == 400


def test_faults_of_paging(sandbox: Sandbox, shop: httpx.Client) -> None:
    def page() -> Any:
        return shop.post("/api/v1/sessions/search?limit=10", json=EVERY_DAY).json()

    honest = page()
    for fault in (faults.foreign_link(), faults.cursor_loop(), faults.empty_pages(), faults.duplicate_rows()):
        sandbox.faults.clear()
        sandbox.faults.add("smartlook", "sessions/search", fault=fault)
        body = page()
        if fault.kind == "foreign_link":
            assert body["_links"]["nextPage"].startswith("https://")
        elif fault.kind == "cursor_loop":
            assert shop.post(body["_links"]["nextPage"], json=EVERY_DAY).json()["sessions"] == honest["sessions"]
        elif fault.kind == "empty_pages":
            assert body["sessions"] == []
            assert body["_links"]["nextPage"]
        else:
            assert len(body["sessions"]) == 15
    sandbox.faults.clear()


def test_same_seed_same_bytes() -> None:
    answers = []
    for _ in range(2):
        with (
            Sandbox(generate(days=2), vendors=("smartlook",)) as running,
            client(running, running.world.sites[0]) as http,
        ):
            answers.append(http.post("/api/v1/sessions/search?limit=50", json=EVERY_DAY).content)
    assert answers[0] == answers[1]


@pytest.mark.skipif(not REAL_LOG.exists(), reason="the real log is not here")
def test_a_real_log_gives_the_verified_sessions() -> None:
    real = replay_world(REAL_LOG)
    with Sandbox(real, vendors=("smartlook",)) as running, client(running, real.sites[0]) as http:
        rule = {"filters": [{"name": "recording_date", "operator": "is", "value": ["1995-08-01", "1995-08-02"]}]}
        assert http.post("/api/v1/sessions/search", json=rule).json()["totalSessionsCount"] == 3085


# ---------------------------------------------------------------------------------------------------- what is written


@pytest.fixture
def own() -> Iterator[httpx.Client]:
    """The first project of a small sandbox that only this test writes to."""
    with (
        Sandbox(generate(days=2, scale=0.1), vendors=("smartlook",)) as running,
        client(running, running.world.sites[0]) as http,
    ):
        yield http


def test_a_deleted_visitor_is_in_no_answer(own: httpx.Client) -> None:
    before = search(own, EVERY_DAY)
    gone = before[len(before) // 2]["visitorId"]
    days = {"dateFrom": "2026-10-01", "dateTo": "2026-10-31"}
    events = get(own, "/api/v1/events", limit=100)["events"]
    funnels = get(own, "/api/v1/funnels")["funnels"]
    assert own.delete(f"/api/v1/visitors/{gone}").json() == {"deletedItems": 1}
    assert own.delete(f"/api/v1/visitors/{gone}").status_code == 404
    assert own.get(f"/api/v1/visitors/{gone}").status_code == 404
    texts = [own.post(f"/api/{path}", json=EVERY_DAY).text for path in ("v1/sessions/search", "v2/visitors/search")]
    texts += [own.get(f"/api/v1/events/{event['id']}/visitors", params=days).text for event in events]
    texts += [
        own.get(f"/api/v1/funnels/{f['id']}/visitors/drop-off", params={**days, "step": 1, "success": "true"}).text
        for f in funnels
    ]
    assert not [text for text in texts if gone in text]
    # Everybody else's recordings are the same bytes, and the definitions of the dashboard stay.
    assert search(own, EVERY_DAY) == [session for session in before if session["visitorId"] != gone]
    assert [e["id"] for e in get(own, "/api/v1/events", limit=100)["events"]] == [e["id"] for e in events]


def test_an_unanswered_number_is_a_profile() -> None:
    profile = {"delete_visitor_answer": "empty"}
    with (
        Sandbox(generate(days=1, scale=0.1), profiles={"smartlook": profile}, vendors=("smartlook",)) as running,
        client(running, running.world.sites[0]) as http,
    ):
        visitor = search(http, EVERY_DAY)[0]["visitorId"]
        answer = http.delete(f"/api/v1/visitors/{visitor}")
        assert (answer.status_code, answer.content) == (204, b"")


def test_visitors_are_deleted_by_uid_and_events_by_id(own: httpx.Client) -> None:
    before = search(own, EVERY_DAY)
    uids = sorted({s["identification"]["uid"] for s in before if "uid" in s["identification"]})[:2]
    people = {s["visitorId"] for s in before if s["identification"].get("uid") in uids}
    answer = own.delete("/api/v1/visitors", params={"uids": ",".join([*uids, "nobody"])})
    assert answer.json() == {"deletedItems": len(people)}
    assert {s["visitorId"] for s in search(own, EVERY_DAY)} == {s["visitorId"] for s in before} - people
    assert own.delete("/api/v1/visitors").status_code == 400
    event = next(e for e in get(own, "/api/v1/events", limit=100)["events"] if e["name"] == "Visited URL")
    assert own.delete(f"/api/v1/events/{event['id']}").status_code == 204
    assert own.delete(f"/api/v1/events/{event['id']}").status_code == 404
    assert all(e["name"] != "Visited URL" for f in get(own, "/api/v1/funnels")["funnels"] for e in f["events"])


def test_webhooks_are_kept_and_their_secret_is_not_told(own: httpx.Client) -> None:
    wanted = {"type": "session", "url": "https://hooks.example/", "secret": "s3cret-of-the-hook"}
    made = own.post("/api/v1/webhooks", json=wanted).json()["id"]
    shown = {"id": made, "type": "session", "url": "https://hooks.example/", "enabled": True}
    assert get(own, "/api/v1/webhooks") == [shown]
    assert own.patch(f"/api/v1/webhooks/{made}", json={"enabled": False}).json() == {"id": made}
    assert get(own, f"/api/v1/webhooks/{made}") == {**shown, "enabled": False}
    for body in (
        {},
        {"type": "x"},
        {"type": "x", "url": "nowhere"},
        {**wanted, "colour": "red"},
        {**wanted, "type": 1},
    ):
        assert own.post("/api/v1/webhooks", json=body).status_code == 400
    assert own.patch(f"/api/v1/webhooks/{made}", json={"type": "other"}).status_code == 400
    assert own.delete(f"/api/v1/webhooks/{made}").status_code == 204
    assert get(own, "/api/v1/webhooks") == []
    for method in ("GET", "DELETE"):
        assert own.request(method, f"/api/v1/webhooks/{made}").status_code == 404


def test_a_mapping_file_is_one_a_release(own: httpx.Client) -> None:
    path = "/api/v1/bundles/com.example/platforms/android/releases/1.0/mapping-files"
    content = b"a.b -> c\r\n\x00\xff"
    made = own.post(path, files={"file": ("mapping.txt", content)})
    assert made.status_code == 201
    assert set(made.json()) == {"oid", "createdAt", "state"}
    assert own.post(path, files={"file": ("mapping.txt", b"x")}).status_code == 409
    forced = own.post(path, params={"force": "true"}, files={"file": ("mapping.txt", content)}).json()
    assert forced["oid"] == made.json()["oid"]
    assert own.post(path.replace("1.0", "1.1"), files={"file": ("mapping.txt", b"x")}).status_code == 201
    assert own.post(path, content=content).status_code == 400
    assert own.post(path, data={"name": "value"}, files={}).status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("POST", "/api/v1/sessions/search", {"before": "x"}),
        ("POST", "/api/v1/sessions/search", {"limit": "101"}),
        ("GET", "/api/v1/events", {"after": "a", "before": "b"}),
        ("GET", "/api/v1/visitors/{visitor}/sessions", {"sort": "sideways"}),
        ("GET", "/api/v1/visitors/{visitor}/events", {"eventTypes": "click,scroll"}),
    ],
)
def test_bad_questions_are_refused(
    shop: httpx.Client, shop_sessions: list[Any], method: str, path: str, query: dict[str, str]
) -> None:
    path = path.format(visitor=shop_sessions[0]["visitorId"])
    answer = shop.request(method, path, params=query, json=EVERY_DAY if method == "POST" else None)
    assert answer.status_code == 400


def test_an_array_of_dates_is_any_of_them(shop: httpx.Client, shop_sessions: list[Any]) -> None:
    days = ["2026-10-10", "2026-10-20"]
    for operator, holds in (("after", lambda d: d > days[0]), ("before", lambda d: d < days[1])):
        rule = {"filters": [{"name": "recording_date", "operator": operator, "value": days}]}
        assert {s["id"] for s in search(shop, rule)} == {s["id"] for s in shop_sessions if holds(s["startedAt"][:10])}
    rule = {"filters": [{"name": "visitor_id", "operator": "contains", "value": "a"}]}
    assert shop.post("/api/v2/visitors/search", json=rule).status_code == 400
