"""Pirsch as an observer: its wire habits, and its numbers against a plain recount of the truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from analytics_platform.sandbox import faults
from analytics_platform.sandbox.pirsch_statistics import STATISTICS
from analytics_platform.sandbox.replay import replay_world
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import World, generate
from analytics_platform.sandbox.wire import Credentials

REAL_LOG = Path(__file__).parents[3] / "shared" / "real_data" / "nasa_19950801.tsv"
SHOP, BLOG = "A5kgYzK14m", "M03loiem34"
ZONES = {SHOP: ("shop", "Europe/Berlin"), BLOG: ("blog", "America/New_York")}


@contextmanager
def connected_to(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=sandbox.base_urls["pirsch"], trust_env=False) as http:
        got = sandbox.environment()
        body = {"client_id": got["PIRSCH_CLIENT_ID"], "client_secret": got["PIRSCH_CLIENT_SECRET"]}
        http.headers["Authorization"] = f"Bearer {http.post('/api/v1/token', json=body).json()['access_token']}"
        yield http


@contextmanager
def connected(world: World, **profile: object) -> Iterator[httpx.Client]:
    with Sandbox(world, vendors=["pirsch"], profiles={"pirsch": profile}) as sandbox, connected_to(sandbox) as http:
        yield http


@pytest.fixture(scope="module")
def world() -> World:
    return generate(first_day=date(2026, 10, 12), days=14)


@pytest.fixture(scope="module")
def client(world: World) -> Iterator[httpx.Client]:
    with connected(world) as http:
        yield http


def ask(client: httpx.Client, name: str, first: str = "2026-10-12", last: str = "2026-10-25", **filters: str) -> Any:
    identifier = filters.pop("id", SHOP)
    answer = client.get(f"/api/v1/statistics/{name}", params={"id": identifier, "from": first, "to": last, **filters})
    assert answer.status_code == 200, answer.text
    return answer.json()


def recount(world: World, domain: str) -> list[dict[str, Any]]:
    """Pirsch's sessions by a plain loop: no bots, 30 minutes, 24 hours, a reload is no view."""
    site, zone = ZONES[domain]
    people = world.visitors[(world.visitors["site_key"] == site) & ~world.visitors["is_bot"]]
    attributes = people.set_index("visitor_id").to_dict("index")
    rows = world.views[world.views["site_key"] == site].sort_values(["visitor_id", "at_ms", "url"], kind="stable")
    sessions: list[dict[str, Any]] = []
    for row in rows.itertuples():
        if row.visitor_id not in attributes:
            continue
        current = sessions[-1] if sessions and sessions[-1]["visitor"] == row.visitor_id else None
        if current is None or row.at_ms - current["end"] > 1_800_000 or row.at_ms - current["start"] > 86_400_000:
            day = datetime.fromtimestamp(row.at_ms / 1000, UTC).astimezone(ZoneInfo(zone))
            current = {"visitor": row.visitor_id, "start": row.at_ms, "day": day.date().isoformat(), "hour": day.hour,
                       "views": [], "url": None, **attributes[row.visitor_id]}  # fmt: skip
            sessions.append(current)
        if row.url != current["url"]:
            current["views"].append(row.path)
        current["end"], current["url"] = row.at_ms, row.url
    return sessions


def counted(sessions: list[dict[str, Any]]) -> dict[str, Any]:
    bounces = sum(len(session["views"]) == 1 for session in sessions)
    return {
        "visitors": len({session["visitor"] for session in sessions}),
        "views": sum(len(session["views"]) for session in sessions),
        "sessions": len(sessions),
        "bounces": bounces,
        "bounce_rate": pytest.approx(bounces / max(len(sessions), 1)),
    }


# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("domain", [SHOP, BLOG])
def test_total_days_and_hours_equal_a_plain_recount(world: World, client: httpx.Client, domain: str) -> None:
    sessions = recount(world, domain)
    assert ask(client, "total", id=domain) == counted(sessions)
    days = ask(client, "visitor", id=domain)
    assert [row["day"] for row in days] == [f"{date(2026, 10, 12) + timedelta(days=n)}T00:00:00Z" for n in range(14)]
    for row in days:
        expected = counted([session for session in sessions if session["day"] == row["day"][:10]])
        assert {key: value for key, value in row.items() if key != "day"} == expected
    hours = ask(client, "hours", "2026-10-25", "2026-10-25", id=domain)
    sunday = Counter(session["hour"] for session in sessions if session["day"] == "2026-10-25")
    assert {row["hour"]: row["sessions"] for row in hours} == {hour: sunday.get(hour, 0) for hour in range(24)}


def test_visitors_of_days_do_not_add_up(client: httpx.Client) -> None:
    daily = sum(row["visitors"] for row in ask(client, "visitor"))
    assert daily > ask(client, "total")["visitors"]


def test_a_daily_fingerprint_makes_them_add_up(world: World) -> None:
    with connected(world, daily_fingerprint=True) as client:
        assert sum(row["visitors"] for row in ask(client, "visitor")) == ask(client, "total")["visitors"]


def test_the_bot_burst_is_not_counted(world: World, client: httpx.Client) -> None:
    by_day = {row["day"][:10]: row["sessions"] for row in ask(client, "visitor")}
    assert by_day["2026-10-14"] < 1.4 * by_day["2026-10-13"]
    burst = world.visitors["bot_kind"].isin(["headless", "headless_js"])
    assert burst.sum() > 400


def test_consent_does_not_matter(world: World, client: httpx.Client) -> None:
    french = ask(client, "total", country="fr")["sessions"]
    assert french == sum(session["country"] == "FR" for session in recount(world, SHOP))


def test_breakdowns_count_distinct_visitors_in_order(world: World, client: httpx.Client) -> None:
    sessions = recount(world, SHOP)
    everyone = len({session["visitor"] for session in sessions})
    for name, key, truth in (
        ("country", "country_code", lambda s: s["country"].lower()),
        ("os", "os", lambda s: s["os"]),
        ("browser", "browser", lambda s: s["browser"]),
        ("language", "language", lambda s: s["language"]),
    ):
        seen = {(truth(session), session["visitor"]) for session in sessions}
        counts = Counter(label for label, _ in seen)
        rows = ask(client, name)
        assert {row[key]: row["visitors"] for row in rows} == counts
        assert [(-row["visitors"], row[key]) for row in rows] == sorted((-row["visitors"], row[key]) for row in rows)
        assert all(row["relative_visitors"] == pytest.approx(row["visitors"] / everyone) for row in rows)


def test_pages_equal_a_recount_and_are_cut_at_100(world: World, client: httpx.Client) -> None:
    sessions = recount(world, SHOP)
    views = Counter(path for session in sessions for path in session["views"])
    assert len(views) > 110
    rows = ask(client, "page")
    assert len(rows) == 100
    assert len(ask(client, "page", limit="500")) == 100
    assert len(ask(client, "page", limit="7")) == 7
    assert all(row["views"] == views[row["path"]] for row in rows)
    landing = Counter(session["views"][0] for session in sessions)
    leaving = Counter(session["views"][-1] for session in sessions)
    assert all(row["entries"] == landing[row["path"]] for row in ask(client, "page/entry"))
    assert all(row["exits"] == leaving[row["path"]] for row in ask(client, "page/exit"))
    assert {row["average_time_spent_seconds"] for row in rows} == {0}
    assert any(row["average_time_spent_seconds"] for row in ask(client, "page", include_avg_time_on_page="true"))


def test_filters_select_and_negate(client: httpx.Client) -> None:
    everyone = ask(client, "total")["sessions"]
    for name, value in (
        ("country", "de"),
        ("browser", "Firefox"),
        ("platform", "desktop"),
        ("utm_source", "newsletter"),
    ):
        matching = ask(client, "total", **{name: value})["sessions"]
        assert 0 < matching < everyone
        assert matching + ask(client, "total", **{name: f"!{value}"})["sessions"] == everyone
    tagged = everyone - ask(client, "total", utm_source="null")["sessions"]
    assert 0 < tagged < everyone
    assert ask(client, "total", path="/cart")["views"] == next(
        r["views"] for r in ask(client, "page") if r["path"] == "/cart"
    )
    products = ask(client, "page", pattern="^/product/[^/]+$", limit="5")
    assert all(row["path"].startswith("/product/") for row in products)


def test_utm_keeps_case_variants_and_leaves_out_the_untagged(client: httpx.Client) -> None:
    sources = {row["utm_source"] for row in ask(client, "utm/source")}
    assert {"newsletter", "Newsletter", "google", "Google"} <= sources
    assert "" not in sources


def test_referrers_are_never_the_site_itself(client: httpx.Client) -> None:
    rows = ask(client, "referrer")
    assert "" in {row["referrer_name"] for row in rows}
    assert "shop.example" not in {row["referrer_name"] for row in rows}
    assert sum(row["sessions"] for row in rows) == ask(client, "total")["sessions"]


def test_platform_counts_sessions_and_adds_up(client: httpx.Client) -> None:
    got = ask(client, "platform")
    assert sum(got[f"platform_{kind}"] for kind in ("desktop", "mobile", "unknown")) == ask(client, "total")["sessions"]
    assert sum(value for key, value in got.items() if key.startswith("relative")) == pytest.approx(1)


def test_growth_compares_with_the_period_before(client: httpx.Client) -> None:
    now, before = ask(client, "total", "2026-10-18", "2026-10-20"), ask(client, "total", "2026-10-15", "2026-10-17")
    got = ask(client, "growth", "2026-10-18", "2026-10-20")
    assert got["sessions_growth"] == pytest.approx((now["sessions"] - before["sessions"]) / before["sessions"])
    rates = now["bounce_rate"], before["bounce_rate"]
    assert got["bounces_growth"] == pytest.approx((rates[0] - rates[1]) / rates[1])
    assert ask(client, "growth", "2026-10-12", "2026-10-12")["visitors_growth"] == 1
    assert ask(client, "growth", "2026-09-02", "2026-09-02")["visitors_growth"] == 0


def test_durations_leave_out_bounces(world: World, client: httpx.Client) -> None:
    sessions = [s for s in recount(world, SHOP) if s["day"] == "2026-10-13" and len(s["views"]) > 1]
    seconds = [(session["end"] - session["start"]) // 1000 for session in sessions]
    lasting = [value for value in seconds if value > 0]
    row = ask(client, "duration/session", "2026-10-13", "2026-10-13")[0]
    assert row == {"day": "2026-10-13T00:00:00Z", "path": "", "title": "",
                   "average_time_spent_seconds": round(sum(lasting) / len(lasting))}  # fmt: skip
    assert ask(client, "duration/page", "2026-10-13", "2026-10-13")[0]["average_time_spent_seconds"] > 0


def test_goals_and_events_follow_the_truth(world: World, client: httpx.Client) -> None:
    orders = world.conversions[(world.conversions["site_key"] == "shop")]
    goal = next(row for row in ask(client, "goals") if row["page_goal"]["name"] == "Purchase")
    assert goal["stats"]["visitors"] == orders["visitor_id"].nunique()
    assert goal["stats"]["cr"] == pytest.approx(goal["stats"]["visitors"] / ask(client, "total")["visitors"])
    assert goal["page_goal"]["path_pattern"] == "/checkout/thank-you"
    rows = {row["name"]: row for row in ask(client, "events")}
    assert rows["Purchase"]["views"] == len(orders)
    assert rows["Video play"]["meta_keys"] == ["quality"]
    assert rows["Add to cart"]["meta_keys"] is None
    split = ask(client, "event/meta", event="Video play", event_meta_key="quality")
    assert sum(row["views"] for row in split) == rows["Video play"]["views"]
    assert {row["meta_value"] for row in split} == {"hd", "sd"}
    only_hd = ask(client, "event/list", event="Video play", meta_quality="hd")
    assert [(row["name"], row["meta"]) for row in only_hd] == [("Video play", {"quality": "hd"})]


# --- wire ------------------------------------------------------------------------------------------------------------


def test_every_statistic_answers_and_empty_lists_are_null(client: httpx.Client) -> None:
    for name in STATISTICS:
        assert ask(client, name) is not None or name == "keywords"
        nothing = ask(client, name, "2026-09-01", "2026-09-01")
        assert nothing is None or name in {
            "total", "visitor", "hours", "duration/session", "duration/page", "platform", "growth", "active",
            "goals", "event/meta",
        }  # fmt: skip
    assert ask(client, "event/meta") == []
    assert ask(client, "active") == {"stats": None, "visitors": 0}


def test_numbers_are_written_as_go_writes_them(client: httpx.Client) -> None:
    text = client.get("/api/v1/statistics/visitor", params={"id": SHOP, "from": "2026-09-01", "to": "2026-09-01"}).text
    assert text == ('[{"day":"2026-09-01T00:00:00Z","visitors":0,"views":0,"sessions":0,"bounces":0,"bounce_rate":0}]')


def test_a_duplicate_rows_fault_repeats_rows(world: World) -> None:
    with Sandbox(world, vendors=["pirsch"]) as sandbox, connected_to(sandbox) as client:
        sandbox.faults.add("pirsch", "/statistics/os", fault=faults.duplicate_rows())
        rows = ask(client, "os")
        assert rows[-3:] == rows[:3]
        assert len(ask(client, "os")) == len(rows) - 3


def test_the_token_is_asked_for_and_expires(world: World) -> None:
    with connected(world, token_lifetime_seconds=0) as client:
        answer = client.get("/api/v1/domain")
        assert (answer.status_code, answer.json()) == (401, {"validation": {}, "error": ["unauthorized"]})
        assert client.get("/api/v1/domain", headers={"Authorization": "Bearer"}).status_code == 401
        assert client.post("/api/v1/token", json={"client_id": "a", "client_secret": "b"}).status_code == 401
        assert client.post("/api/v1/token", content=b"client_id=a").status_code == 400


def test_expires_at_is_rfc3339_with_nanoseconds(client: httpx.Client) -> None:
    secret = Credentials()
    body = {"client_id": secret.pirsch_client_id, "client_secret": secret.pirsch_client_secret}
    text = client.post("/api/v1/token", json=body).json()["expires_at"]
    assert text.endswith("Z")
    remaining = datetime.fromisoformat(text) - datetime.now(UTC)
    assert timedelta(minutes=59) < remaining <= timedelta(minutes=60)


def test_parameters_are_validated(client: httpx.Client) -> None:
    def got(**parameters: str) -> httpx.Response:
        return client.get("/api/v1/statistics/total", params=parameters)

    assert got().status_code == 400
    assert set(got(id=SHOP).json()["validation"]) == {"from", "to"}
    assert got(id=SHOP, **{"from": "tomorrow", "to": "2026-10-14"}).status_code == 400
    assert got(id="unknown123", **{"from": "2026-10-14", "to": "2026-10-14"}).status_code == 401
    assert got(id=SHOP, pattern="(", **{"from": "2026-10-14", "to": "2026-10-14"}).status_code == 400
    assert client.get("/api/v1/statistics/nothing", params={"id": SHOP}).status_code == 404


def test_tolerances_of_the_official_clients(client: httpx.Client) -> None:
    plain = ask(client, "total", "2026-10-14", "2026-10-15")
    assert ask(client, "total", "2026-10-15", "2026-10-14") == plain
    assert ask(client, "total", "2026-10-14T00:00:00.000Z", "2026-10-15", limit="0", path="", scale="") == plain


def test_profiles_change_the_wire(world: World) -> None:
    with connected(
        world,
        country_key="country",
        empty_as_null=False,
        unknown_domain_status=404,
        strict_dates=False,
        requests_per_minute=4,
    ) as client:
        assert "country" in ask(client, "country")[0]
        assert ask(client, "country", "2026-09-01", "2026-09-01") == []
        assert client.get("/api/v1/statistics/total", params={"id": "x"}).status_code == 404
        assert client.get("/api/v1/statistics/total", params={"id": SHOP}).json()["sessions"] > 0
        limited = client.get("/api/v1/domain")
        assert limited.status_code == 429
        assert 1 <= int(limited.headers["retry-after"]) <= 61


def test_domains_and_goals_are_listed(client: httpx.Client) -> None:
    both = client.get("/api/v1/domain").json()
    assert {row["id"]: row["timezone"] for row in both} == {SHOP: "Europe/Berlin", BLOG: "America/New_York"}
    assert [row["id"] for row in client.get("/api/v1/domain", params={"id": BLOG}).json()] == [BLOG]
    assert [row["name"] for row in client.get("/api/v1/goal", params={"id": BLOG}).json()] == [
        "Newsletter signup",
        "Article read",
    ]


@pytest.mark.parametrize("knobs", [{"session_day": "last_seen"}, {"events_end_bounce": True}, {"respect_dnt": True}])
def test_definition_knobs_change_the_numbers(world: World, client: httpx.Client, knobs: dict[str, object]) -> None:
    with connected(world, **knobs) as other:
        assert ask(other, "visitor") != ask(client, "visitor")


def test_a_tiny_world_answers_everywhere() -> None:
    with connected(generate(first_day=date(2026, 10, 14), days=1, scale=0.004)) as client:
        for name in STATISTICS:
            for domain in (SHOP, BLOG):
                ask(client, name, "2026-10-14", "2026-10-14", id=domain, pattern="/product/")


@pytest.mark.skipif(not REAL_LOG.is_file(), reason="the real log is not next to this checkout")
def test_the_real_day_over_http() -> None:
    with connected(replay_world(REAL_LOG)) as client:
        got = ask(client, "total", "1995-08-01", "1995-08-01", id="R3p1ayNa5a")
        day = ask(client, "visitor", "1995-08-01", "1995-08-01", id="R3p1ayNa5a")
    assert (got["sessions"], got["views"], got["visitors"]) == (2835, 8311, 2235)
    assert got["bounce_rate"] == pytest.approx(0.5725, abs=5e-5)
    assert day[0]["sessions"] == 2835
