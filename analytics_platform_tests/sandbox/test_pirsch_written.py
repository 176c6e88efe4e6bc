"""What is posted to Pirsch's sandbox: who may, what is refused, and how it shows in the statistics."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import httpx
import pytest

from analytics_platform.sandbox.pirsch_later import LATER, OPTIONS
from analytics_platform.sandbox.pirsch_management import access_key_of
from analytics_platform.sandbox.pirsch_statistics import STATISTICS
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import World, generate

SHOP, BLOG = "A5kgYzK14m", "M03loiem34"
FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:143.0) Gecko/20100101 Firefox/143.0"
TODAY = "2026-10-14"


OPENED: list[httpx.Client] = []


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


class Speaker:
    """A client of the sandbox's wire."""

    def __init__(self, sandbox: Sandbox, token: str = "") -> None:
        self.sandbox = sandbox
        self.http = httpx.Client(base_url=sandbox.base_urls["pirsch"], trust_env=False)
        OPENED.append(self.http)
        self.http.headers["Authorization"] = f"Bearer {token or self.token()}"

    def token(self, client_id: str = "", client_secret: str = "") -> str:
        given = self.sandbox.environment()
        body = {
            "client_id": client_id or given["PIRSCH_CLIENT_ID"],
            "client_secret": client_secret or given["PIRSCH_CLIENT_SECRET"],
        }
        return str(self.http.post("/api/v1/token", json=body).json().get("access_token", ""))

    def post(self, path: str, body: Any) -> httpx.Response:
        return self.http.post(f"/api/v1/{path}", json=body)

    def ask(self, name: str, **given: str) -> Any:
        answer = self.asked(name, **given)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def asked(self, name: str, **given: str) -> httpx.Response:
        parameters = {"id": SHOP, "from": TODAY, "to": TODAY, **given}
        return self.http.get(f"/api/v1/statistics/{name}", params=parameters)

    def flush(self) -> None:
        self.sandbox.context.advance(10)

    def total(self, **given: str) -> Any:
        self.flush()
        return self.ask("total", **given)


@pytest.fixture(scope="module")
def world() -> World:
    return generate(first_day=date(2026, 10, 12), days=2, scale=0.03)


@pytest.fixture
def speaker(world: World) -> Iterator[Speaker]:
    # Hours pass in some tests; the token is to outlive them.
    with Sandbox(world, vendors=["pirsch"], profiles={"pirsch": {"token_lifetime_seconds": 10**6}}) as sandbox:
        yield Speaker(sandbox)


def hit(ip: str = "192.0.2.1", path: str = "/a", **more: object) -> dict[str, object]:
    return {"url": f"https://www.shop.example{path}", "ip": ip, "user_agent": FIREFOX, "title": "A", **more}


# --- counting --------------------------------------------------------------------------------------------------------


def test_a_hit_is_counted_after_the_buffer_is_flushed(world: World) -> None:
    # Far more than this test can take by the wall clock, so that nothing is flushed behind its back.
    with Sandbox(world, vendors=["pirsch"], profiles={"pirsch": {"flush_seconds": 500}}) as sandbox:
        hit_then_flush(Speaker(sandbox))


def hit_then_flush(speaker: Speaker) -> None:
    answer = speaker.post("hit", hit(referrer="https://news.example/x", accept_language="de-CH,de;q=0.9"))
    assert (answer.status_code, answer.content) == (200, b"")
    assert speaker.ask("total")["views"] == 0
    speaker.sandbox.context.advance(400)
    assert speaker.ask("total")["views"] == 0
    speaker.sandbox.context.advance(100)
    assert speaker.ask("total") == {"visitors": 1, "views": 1, "sessions": 1, "bounces": 1, "bounce_rate": 1}
    (day,) = speaker.ask("visitor")
    assert (day["day"], day["views"]) == ("2026-10-14T00:00:00Z", 1)
    assert speaker.ask("active") == {"stats": [{"path": "/a", "title": "A", "visitors": 1}], "visitors": 1}
    assert speaker.ask("referrer")[0]["referrer_name"] == "news.example"
    assert speaker.ask("language")[0]["language"] == "de"
    assert speaker.ask("total", start="600")["views"] == 1


def test_a_full_buffer_is_flushed_at_once(speaker: Speaker) -> None:
    now = datetime.fromtimestamp(speaker.sandbox.context.now_ms() / 1000, UTC).isoformat()
    speaker.post("hit/batch", [hit(ip=f"198.18.0.{n}", time=now) for n in range(100)])
    assert speaker.ask("total")["visitors"] == 100


def test_a_hit_posted_twice_is_two_views(speaker: Speaker) -> None:
    for _ in range(2):
        speaker.post("hit", hit())
    got = speaker.total()
    assert (got["views"], got["sessions"], got["bounces"]) == (2, 1, 1)


def test_a_second_page_or_an_event_ends_the_bounce(speaker: Speaker) -> None:
    speaker.post("hit", hit())
    assert speaker.total()["bounces"] == 1
    speaker.post("hit", hit(path="/b"))
    assert speaker.total()["bounces"] == 0
    for ip, quiet in (("192.0.2.2", False), ("192.0.2.3", True)):
        speaker.post("hit", hit(ip=ip))
        speaker.post("event", {**hit(ip=ip), "event_name": "Click", "non_interactive": quiet})
    assert speaker.total()["bounces"] == 1
    assert speaker.ask("page/exit")[0]["path"] == "/a"
    assert {row["path"]: row["exits"] for row in speaker.ask("page/exit")} == {"/a": 2, "/b": 1}


def test_sessions_end_after_thirty_minutes_unless_kept_alive(speaker: Speaker) -> None:
    speaker.post("hit", hit())
    speaker.sandbox.context.advance(29 * 60)
    speaker.post("session", {"ip": "192.0.2.1", "user_agent": FIREFOX})
    speaker.sandbox.context.advance(29 * 60)
    speaker.post("hit", hit(path="/b"))
    got = speaker.total()
    assert (got["sessions"], got["views"]) == (1, 2)
    assert speaker.ask("duration/session")[0]["average_time_spent_seconds"] >= 58 * 60
    speaker.sandbox.context.advance(31 * 60)
    speaker.post("session", {"ip": "192.0.2.1", "user_agent": FIREFOX})
    speaker.post("hit", hit(path="/b"))
    assert speaker.total()["sessions"] == 2


def test_another_referrer_or_campaign_begins_a_session_and_none_does_not(speaker: Speaker) -> None:
    speaker.post("hit", hit(path="/?utm_source=letter", referrer="https://mail.example/"))
    speaker.post("hit", hit(path="/b", referrer="https://www.shop.example/"))
    assert speaker.total()["sessions"] == 1
    speaker.post("hit", hit(path="/c", referrer="https://search.example/"))
    assert speaker.total()["sessions"] == 2
    speaker.post("hit", hit(path="/d?utm_source=advert"))
    got = speaker.total()
    assert (got["sessions"], got["visitors"]) == (3, 1)


def test_bots_and_do_not_track_are_dropped_and_answered_200(speaker: Speaker) -> None:
    for body in (
        hit(user_agent="Googlebot/2.1 (+http://www.google.com/bot.html)"),
        hit(user_agent="curl/8.0"),
        hit(dnt="1"),
    ):
        assert speaker.post("hit", body).status_code == 200
    speaker.post("hit", hit(user_agent="Googlebot/2.1 (+http://www.google.com/bot.html)", disable_bot_filter=True))
    assert speaker.total()["views"] == 1


def test_events_show_with_their_metadata(speaker: Speaker) -> None:
    speaker.post("event", {**hit(), "event_name": "Buy", "event_duration": 4, "event_meta": {"n": 1, "gift": True}})
    speaker.post("event", {**hit(), "event_name": "Buy", "event_duration": 6, "event_meta": {"n": 2.5}})
    speaker.flush()
    (row,) = speaker.ask("events")
    assert row | {"cr": 1} == {"name": "Buy", "visitors": 1, "views": 2, "cr": 1, "average_duration_seconds": 5,
                               "meta_keys": ["gift", "n"], "meta_value": ""}  # fmt: skip
    split = speaker.ask("event/meta", event="Buy", event_meta_key="n")
    assert {row["meta_value"]: row["views"] for row in split} == {"1": 1, "2.5": 1}
    assert [row["meta"] for row in speaker.ask("event/list", meta_gift="true")] == [{"gift": "true", "n": "1"}]
    assert speaker.ask("event/page", event="Buy")[0]["path"] == "/a"


def test_a_batch_is_sorted_and_its_times_count(speaker: Speaker) -> None:
    times = {"/b": "2026-10-13T09:10:00.5Z", "/a": "2026-10-13T09:00:00Z", "/c": "2026-10-13T12:00:00.123456789Z"}
    before = speaker.ask("total", **{"from": "2026-10-13", "to": "2026-10-13"})
    assert speaker.post("hit/batch", [hit(path=path, time=text) for path, text in times.items()]).status_code == 200
    after = speaker.total(**{"from": "2026-10-13", "to": "2026-10-13"})
    assert (after["sessions"] - before["sessions"], after["views"] - before["views"]) == (2, 3)
    entries = {row["path"] for row in speaker.ask("page/entry", **{"from": "2026-10-13", "to": "2026-10-13"})}
    assert {"/a", "/c"} <= entries
    assert "/b" not in entries


def test_a_known_visitor_is_the_same_visitor_and_its_place_is_known(speaker: Speaker, world: World) -> None:
    people = world.visitors[(world.visitors["site_key"] == "shop") & ~world.visitors["is_bot"]]
    person = people[people["visitor_id"].isin(world.views["visitor_id"])].iloc[0]
    both_days = {"from": "2026-10-12", "to": TODAY}
    before = speaker.ask("total", **both_days)
    speaker.post("hit", hit(ip=person["ip"], user_agent=person["user_agent"]))
    after = speaker.total(**both_days)
    assert (after["visitors"] - before["visitors"], after["sessions"] - before["sessions"]) == (0, 1)
    assert speaker.ask("country")[0]["country_code"] == person["country"].lower()


def test_proxy_headers_say_who_it_was(speaker: Speaker) -> None:
    speaker.post("hit", hit(ip="10.0.0.1", x_forwarded_for="192.0.2.1, 10.0.0.1"))
    speaker.post("hit", hit(ip="10.0.0.1", forwarded='for="192.0.2.1";proto=https'))
    speaker.post("hit", hit(ip="10.0.0.1", cf_connecting_ip="192.0.2.9"))
    assert speaker.total()["visitors"] == 2


def test_what_nobody_wrote_to_stays_as_it_was(speaker: Speaker) -> None:
    both = {"from": "2026-10-12", "to": "2026-10-13"}
    names = [name for name in (*STATISTICS, *LATER) if name != "active"]
    before = {name: speaker.ask(name, id=BLOG, **both) for name in names}
    past = {name: speaker.ask(name, **both) for name in ("total", "visitor", "page", "os", "events")}
    speaker.post("hit", hit())
    speaker.flush()
    assert {name: speaker.ask(name, id=BLOG, **both) for name in names} == before
    assert {name: speaker.ask(name, **both) for name in past} == past


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("hit", {"ip": "1.2.3.4", "user_agent": FIREFOX}, "url"),
        ("hit", hit(ip=""), "ip"),
        ("hit", hit(user_agent=""), "user_agent"),
        ("hit", {**hit(), "url": "/only/a/path"}, "url"),
        ("hit", {**hit(), "url": "https://elsewhere.test/"}, "url"),
        ("hit", hit(screen_width="1920"), "screen_width"),
        ("hit", hit(tags={"k": "v" * 51}), "tags"),
        ("event", hit(), "event_name"),
        ("event", {**hit(), "event_name": "E", "event_meta": {"deep": {"er": 1}}}, "event_meta"),
        ("event", {**hit(), "event_name": "E", "event_meta": {str(n): 1 for n in range(21)}}, "event_meta"),
        ("session", {"ip": "1.2.3.4"}, "user_agent"),
        ("hit/batch", [hit(time="2026-10-13T09:00:00Z"), hit()], "1.time"),
    ],
)
def test_bad_bodies_are_refused_in_the_documented_shape(speaker: Speaker, path: str, body: Any, field: str) -> None:
    answer = speaker.post(path, body)
    assert answer.status_code == 400
    assert list(answer.json()) == ["validation", "error"]
    assert list(answer.json()["validation"]) == [field]
    assert speaker.total()["views"] == 0


def test_a_body_that_is_no_json_object_is_refused(speaker: Speaker) -> None:
    for path, content in (("hit", b"{"), ("hit", b"[]"), ("hit/batch", b"{}"), ("domain", b"3")):
        answer = speaker.http.post(f"/api/v1/{path}", content=content)
        assert (answer.status_code, len(answer.json()["error"])) == (400, 1)


def test_without_a_token_nothing_is_taken(speaker: Speaker) -> None:
    for bearer in ("Bearer", "Bearer nonsense", "Basic abc"):
        answer = speaker.http.post("/api/v1/hit", json=hit(), headers={"Authorization": bearer})
        assert (answer.status_code, answer.json()) == (401, {"validation": {}, "error": ["unauthorized"]})
    assert speaker.total()["views"] == 0


def make_client(speaker: Speaker, **scopes: str) -> tuple[str, Speaker]:
    made = speaker.post("client", {"domain_id": SHOP, "description": "", **scopes}).json()
    assert (len(made["client_id"]), len(made["client_secret"])) == (32, 64)
    return made["id"], Speaker(speaker.sandbox, speaker.token(made["client_id"], made["client_secret"]))


def test_scopes_are_enforced(speaker: Speaker) -> None:
    _, reader = make_client(speaker, scope_statistics="r")
    _, writer = make_client(speaker, scope_hit="w")
    _, eventer = make_client(speaker, scope_event="w")
    assert reader.asked("total").status_code == 200
    assert reader.post("hit", hit()).status_code == 403
    assert reader.post("domain/title", {"domain_id": SHOP}).status_code == 403
    assert writer.post("hit", hit()).status_code == 200
    assert writer.post("session", {"ip": "192.0.2.1", "user_agent": FIREFOX}).status_code == 200
    assert writer.post("event", {**hit(), "event_name": "E"}).status_code == 403
    assert writer.asked("total").status_code == 403
    assert eventer.post("event", {**hit(), "event_name": "E"}).status_code == 200
    assert [row["id"] for row in writer.http.get("/api/v1/domain").json()] == [SHOP]


def test_a_domain_client_stays_in_its_domain(speaker: Speaker) -> None:
    identifier, own = make_client(speaker, scope_statistics="r", scope_domains="rw", scope_hit="w")
    assert own.asked("total", id=BLOG).status_code == 403
    assert own.http.get("/api/v1/domain/link", params={"domain_id": BLOG}).status_code == 403
    assert own.post("domain/link", {"domain_id": SHOP}).status_code == 200
    assert own.post("domain", {"hostname": "x.example", "subdomain": "x", "timezone": "UTC"}).status_code == 403
    assert own.http.get("/api/v1/client", params={"id": SHOP}).status_code == 403
    # Its hits are its domain's, whatever the URL says.
    assert own.post("hit", {**hit(), "url": "https://app.elsewhere.test/"}).status_code == 200
    assert speaker.total()["views"] == 1
    assert speaker.ask("hostname")[0]["hostname"] == "app.elsewhere.test"
    assert speaker.http.delete("/api/v1/client", params={"id": identifier}).status_code == 200
    assert own.asked("total").status_code == 401


def test_an_access_key_writes_and_reads_nothing(speaker: Speaker) -> None:
    key = Speaker(speaker.sandbox, access_key_of(SHOP))
    assert len(access_key_of(SHOP)) == 48
    assert key.post("hit", hit()).status_code == 200
    assert key.post("event", {**hit(), "event_name": "E"}).status_code == 200
    assert key.post("session", {"ip": "192.0.2.1", "user_agent": FIREFOX}).status_code == 200
    assert key.asked("total").status_code == 403
    assert key.http.get("/api/v1/domain").status_code == 403
    assert Speaker(speaker.sandbox, f"pa_{'x' * 45}").post("hit", hit()).status_code == 401
    assert speaker.total()["views"] == 1


# --- the account -----------------------------------------------------------------------------------------------------


def test_a_new_domain_counts_its_own_hits(speaker: Speaker) -> None:
    body = {"hostname": "fresh.example", "subdomain": "fresh", "timezone": "Asia/Tokyo"}
    made = speaker.post("domain", body).json()
    speaker.post("hit", {**hit(), "url": "https://fresh.example/hello"})
    both = {"id": made["id"], "to": "2026-10-15"}
    assert speaker.total(**both)["views"] == 1
    assert [row["path"] for row in speaker.ask("page", **both)] == ["/hello"]
    assert speaker.total()["views"] == 0
    assert speaker.http.delete("/api/v1/domain", params={"id": made["id"]}).status_code == 200
    assert speaker.asked("total", id=made["id"]).status_code == 401
    assert speaker.post("hit", {**hit(), "url": "https://fresh.example/hello"}).status_code == 400


def test_every_statistic_of_an_empty_domain_answers(speaker: Speaker) -> None:
    made = speaker.post("domain", {"hostname": "e.example", "subdomain": "e", "timezone": "UTC"}).json()
    for name in (*STATISTICS, *LATER, "overview", "pages", *(f"options/{option}" for option in OPTIONS)):
        speaker.ask(name, id=made["id"], tag="t", event="E", event_meta_key="k")


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"hostname", "subdomain", "timezone"}),
        ({"hostname": "www.shop.example", "subdomain": "new", "timezone": "UTC"}, {"hostname"}),
        ({"hostname": "n.example", "subdomain": "shop", "timezone": "Mars/Phobos"}, {"subdomain", "timezone"}),
    ],
)
def test_impossible_domains_are_refused(speaker: Speaker, body: dict[str, str], fields: set[str]) -> None:
    answer = speaker.post("domain", body)
    assert (answer.status_code, set(answer.json()["validation"])) == (400, fields)


def test_another_time_zone_counts_history_by_other_days(speaker: Speaker) -> None:
    days = {"from": "2026-10-11", "to": "2026-10-14"}
    berlin = speaker.ask("visitor", **days)
    assert speaker.post("domain/timezone", {"domain_id": SHOP, "timezone": "Pacific/Auckland"}).status_code == 200
    auckland = speaker.ask("visitor", **days)
    assert auckland != berlin
    assert sum(row["sessions"] for row in auckland) == sum(row["sessions"] for row in berlin)
    assert speaker.ask("visitor", tz="Europe/Berlin", **days) == berlin
    assert speaker.asked("visitor", tz="Nowhere", **days).status_code == 400


def test_grouping_by_title_tells_pages_apart(speaker: Speaker) -> None:
    for ip, title in (("192.0.2.1", "One"), ("192.0.2.2", "Two")):
        speaker.post("hit", hit(ip=ip, title=title))
    speaker.flush()
    assert len(speaker.ask("page")) == 1
    assert len(speaker.ask("page", include_title="true")) == 2
    speaker.post("domain/title", {"domain_id": SHOP})
    assert {(row["path"], row["title"]) for row in speaker.ask("page")} == {("/a", "One"), ("/a", "Two")}
    assert {row["title"] for row in speaker.ask("page/entry")} == {"One", "Two"}


def test_owners_and_roles_are_guarded(speaker: Speaker) -> None:
    (owner,) = speaker.http.get("/api/v1/member", params={"id": SHOP}).json()
    assert owner["role"] == "owner"
    assert speaker.http.put("/api/v1/member", json={"id": owner["id"], "role": "viewer"}).status_code == 400
    assert speaker.http.delete("/api/v1/member", params={"id": owner["id"]}).status_code == 400
    speaker.post("member", {"id": SHOP, "emails": ["x@example.org"]})
    member = speaker.http.get("/api/v1/member", params={"id": SHOP}).json()[1]
    assert speaker.http.put("/api/v1/member", json={"id": member["id"], "role": "owner"}).status_code == 400
    assert speaker.http.put("/api/v1/member", json={"id": SHOP, "role": "admin"}).status_code == 404
    assert speaker.post("report", {"domain_id": SHOP, "emails": ["no address"], "interval": 1}).status_code == 400
    assert speaker.post("client", {"domain_id": SHOP, "scope_hit": "r"}).status_code == 400
    assert speaker.post("goal", {"domain_id": SHOP, "name": ""}).status_code == 400


# --- what came later -------------------------------------------------------------------------------------------------


def test_lists_can_be_searched_sorted_and_paged(speaker: Speaker) -> None:
    both = {"from": "2026-10-12", "to": "2026-10-13"}
    rows = speaker.ask("page", **both)
    assert speaker.ask("page", offset="3", limit="4", **both) == rows[3:7]
    by_path = speaker.ask("page", sort="path", direction="asc", **both)
    assert [row["path"] for row in by_path] == sorted(row["path"] for row in by_path)
    found = speaker.ask("page", search="PRODUCT", **both)
    assert found
    assert all("product" in row["path"] for row in found)
    assert speaker.asked("page", sort="nothing", **both).status_code == 400


def test_weeks_months_and_alternatives(speaker: Speaker) -> None:
    both = {"from": "2026-10-12", "to": "2026-10-13"}
    (week,) = speaker.ask("visitor", scale="week", **both)
    total = speaker.ask("total", **both)
    assert week == {"week": "2026-10-12T00:00:00Z", **total}
    assert speaker.ask("visitor", scale="month", **both)[0]["month"] == "2026-10-01T00:00:00Z"
    assert speaker.asked("visitor", scale="minute", **both).status_code == 400
    systems = {row["os"] for row in speaker.ask("os", **both)}
    one_each = sum(speaker.ask("total", os=name, **both)["sessions"] for name in systems)
    answer = speaker.http.get(
        "/api/v1/statistics/total", params=[("id", SHOP), *both.items(), *(("os", name) for name in systems)]
    )
    assert answer.json()["sessions"] == one_each == total["sessions"]
    assert (
        speaker.ask("total", path="~product", **both)["views"]
        == speaker.ask("total", pattern="product", **both)["views"]
    )


def test_tags_sessions_and_funnels(speaker: Speaker) -> None:
    speaker.post("hit", hit(path="/cart", tags={"author": "John", "ab": "x"}))
    speaker.post("hit", hit(path="/checkout/thank-you", tags={"author": "Jane"}))
    speaker.post("event", {**hit(path="/cart"), "event_name": "Pay", "event_meta": {"cur": "EUR"}})
    speaker.flush()
    assert [(row["key"], row["views"]) for row in speaker.ask("tags")] == [("ab", 1), ("author", 2)]
    assert {row["value"] for row in speaker.ask("tag/details", tag="author")} == {"John", "Jane"}
    assert speaker.ask("total", tag_author="Jane")["views"] == 1
    (session,) = speaker.ask("session/list")
    ids = {"visitor_id": session["visitor_id"], "session_id": str(session["session_id"])}
    details = speaker.ask("session/details", **ids)
    assert [bool(one["event"]) for one in details] == [False, False, True]
    assert details[0]["page_view"]["tag_keys"] == ["ab", "author"]
    assert isinstance(details[0]["page_view"]["visitor_id"], int)
    (funnel,) = speaker.http.get("/api/v1/funnel", params={"id": SHOP}).json()
    got = speaker.ask("funnel", funnel_id=funnel["id"])
    assert [step["name"] for step in got["definition"]["steps"]][-1] == "Purchase"
    assert got["data"][0]["relative_visitors"] in (0, 1)
    assert all(step["dropped"] == step["previous_visitors"] - step["visitors"] for step in got["data"][1:])
    assert speaker.asked("funnel").status_code == 400
    assert speaker.asked("funnel", funnel_id="x").status_code == 404


def test_channels_hosts_regions_weekdays_agree_with_the_total(speaker: Speaker) -> None:
    both = {"from": "2026-10-12", "to": "2026-10-13"}
    sessions = speaker.ask("total", **both)["sessions"]
    for name in ("channel", "hostname", "weekdays", "minutes"):
        assert sum(row["sessions"] for row in speaker.ask(name, **both)) == sessions
    assert {row["weekday"] for row in speaker.ask("weekdays", **both)} <= {0, 1}
    by_region = speaker.ask("region", **both)
    assert {row["country_code"] for row in by_region} == {row["country_code"] for row in speaker.ask("country", **both)}
    overview = speaker.ask("overview")
    assert (overview["member"], len(overview["visitors_time_series"])) == (1, 30)
    assert speaker.ask("options/os", **both) == sorted(row["os"] for row in speaker.ask("os", **both))


def test_the_later_edition_has_the_later_fields(world: World) -> None:
    with Sandbox(world, vendors=["pirsch"], profiles={"pirsch": {"later_fields": True}}) as sandbox:
        speaker = Speaker(sandbox)
        both = {"from": "2026-10-12", "to": "2026-10-13"}
        day = speaker.ask("visitor", **both)[0]
        assert {"day", "week", "month", "year", "cr", "custom_metric_avg", "custom_metric_total"} <= set(day)
        assert speaker.ask("total", path="/cart", **both)["cr"] < 1
        assert {"country_code", "region", "city"} <= set(speaker.ask("city", **both)[0])
        assert "cr_growth" in speaker.ask("growth", **both)
        assert all(row["count"] == row["views"] for row in speaker.ask("events", **both) or [])


def test_a_long_series_is_cut_at_a_hundred_rows(speaker: Speaker) -> None:
    for name in ("visitor", "duration/session"):
        rows = speaker.ask(name, **{"from": "2026-01-01", "to": "2026-10-13"})
        assert (len(rows), rows[0]["day"][:10]) == (100, "2026-01-01")
