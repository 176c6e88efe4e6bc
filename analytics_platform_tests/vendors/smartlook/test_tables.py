"""Smartlook's records as they become lake rows, and the streams end to end against the sandbox."""

# ruff: noqa: DTZ001  (a lake TIMESTAMP is naive and in UTC, so what it is compared with is too)

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.errors import ConfigurationError, SchemaMismatch
from analytics_platform.core.fetch import Fetcher, SiteContext
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.paging import Page
from analytics_platform.core.streams import Extraction
from analytics_platform.core.tables import Sensitivity, TableSpec
from analytics_platform.sandbox import faults
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import World, generate
from analytics_platform.vendors.smartlook import streams
from analytics_platform.vendors.smartlook.client import SmartlookClient
from analytics_platform.vendors.smartlook.tables import (
    EVENT_DAILY,
    EVENTS,
    FUNNELS,
    SESSIONS,
    TABLES,
    VISITORS,
    _instant,
)

DAY = date(2026, 10, 5)
NOON = datetime(2026, 10, 20, 12, tzinfo=UTC)  # every day of the tests is past its look-back
SPECS = {spec.qualified_name: spec for spec in TABLES}


# ------------------------------------------------------------------------------------------- one record at a time


def rows(
    tmp_path: Path,
    spec: TableSpec,
    body: object,
    *,
    days: Sequence[date] = (DAY,),
    context: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """The record's way: landed, decoded, read back."""
    landing, lake = Landing(tmp_path / "landing"), Lake(tmp_path / "lake")
    with landing.open_batch(
        vendor=spec.vendor, stream=spec.name, site="shop", first_day=days[0], last_day=days[-1], run_id="r", fresh=True
    ) as writer:
        writer.append(
            Page(
                call="c",
                call_kind=spec.calls[0],
                sequence=0,
                is_last=True,
                body=json.dumps(body).encode(),
                status=200,
                endpoint="e",
                received_at=NOON,
                context=dict(context or {}),
                records=0,
                attempts=1,
            )
        )
        batch = writer.complete()
    lake.decode(spec, [(batch, list(days))], site="shop")
    paths = [str(lake.partition_path(spec, "shop", day)) for day in days]
    cursor = duckdb.connect().execute("SELECT * FROM read_parquet(?, hive_partitioning = false)", [paths])
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def session(**fields: object) -> dict[str, object]:
    return {"id": "s1", "visitorId": "v1", "startedAt": "2026-10-05T23:59:00.123Z", **fields}


FULL_IDENTIFICATION = {
    "uid": "u-1",
    "properties": {"kameleoon_visitor_code": "kc", "email": "a@example.org"},
    "visitorIp": "203.0.113.9",
    "browser": {"name": "Chrome", "code": "chrome", "userAgent": "UA"},
    "platform": {"name": "Windows", "operatingSystem": "Windows 10", "code": "win"},
    "country": {"name": "France", "code": "fr", "region": "IDF", "city": "Paris"},
    "device": {"type": "desktop", "orientation": "landscape", "width": 1920, "height": 1080},
}


def test_a_whole_session(tmp_path: Path) -> None:
    record = session(
        identification=FULL_IDENTIFICATION,
        duration=35.5,
        endedAt="2026-10-06T01:59:35+02:00",
        pageUrl=["https://a/", "https://b/"],
        notes=[{"id": "n", "time": 1, "text": "called her"}],
        dashboardURL="https://app.smartlook.com/x",
        _links={"visitor": "/api/visitors/v1"},
    )
    (row,) = rows(tmp_path, SESSIONS, {"sessions": [record]})
    assert row["started_at"] == datetime(2026, 10, 5, 23, 59, 0, 123000)
    assert row["ended_at"] == datetime(2026, 10, 5, 23, 59, 35)
    assert row["duration_seconds"] == 35.5
    assert row["page_urls"] == ["https://a/", "https://b/"]
    assert (row["page_count"], row["note_count"]) == (2, 1)
    assert (row["country_code"], row["os_name"], row["browser_name"]) == ("FR", "Windows 10", "Chrome")
    assert (row["screen_width_px"], row["screen_height_px"]) == (1920, 1080)
    assert (row["uid"], row["email"], row["kameleoon_visitor_code"]) == ("u-1", "a@example.org", "kc")
    assert row["_extra"] is None


def test_no_raw_ip_and_no_free_text_reach_the_lake(tmp_path: Path) -> None:
    record = session(identification=FULL_IDENTIFICATION, notes=[{"id": "n", "time": 1, "text": "called her"}])
    rows(tmp_path, SESSIONS, {"sessions": [record]})
    lake_bytes = b"".join(path.read_bytes() for path in (tmp_path / "lake").rglob("*.parquet"))
    assert b"203.0.113.9" not in lake_bytes
    assert b"called her" not in lake_bytes


def test_only_the_id_and_the_start_are_required(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, SESSIONS, {"sessions": [session()]})
    assert (row["page_urls"], row["page_count"], row["note_count"]) == ([], 0, 0)
    assert row["duration_seconds"] is None


@pytest.mark.parametrize(
    "properties", [[{"name": "kameleoon_visitor_code", "value": "kz"}], {"kameleoon_visitor_code": "kz"}]
)
def test_properties_are_an_object_or_a_list(tmp_path: Path, properties: object) -> None:
    (row,) = rows(tmp_path, SESSIONS, {"sessions": [session(identification={"properties": properties})]})
    assert row["kameleoon_visitor_code"] == "kz"
    assert row["email"] is None


def test_one_page_url_may_come_as_a_string(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, SESSIONS, {"sessions": [session(pageUrl="https://a/")]})
    assert row["page_urls"] == ["https://a/"]


def test_rows_of_the_margin_are_dropped_and_a_repeated_session_is_one_row(tmp_path: Path) -> None:
    beside = {**session(), "id": "s0", "startedAt": "2026-10-04T23:59:59.999Z"}
    found = rows(tmp_path, SESSIONS, {"sessions": [beside, session(), session()]})
    assert [row["session_id"] for row in found] == ["s1"]


def test_an_unknown_field_is_kept_and_a_changed_type_is_loud(tmp_path: Path) -> None:
    (row,) = rows(tmp_path / "a", SESSIONS, {"sessions": [session(mood="good")]})
    assert json.loads(row["_extra"]) == {"mood": "good"}
    with pytest.raises(SchemaMismatch):
        rows(tmp_path / "b", SESSIONS, {"sessions": [session(duration="long")]})
    with pytest.raises(SchemaMismatch):
        rows(tmp_path / "c", SESSIONS, {"sessions": [{**session(), "startedAt": "yesterday"}]})


def test_a_visitor(tmp_path: Path) -> None:
    record = {
        "id": "v1",
        "identification": {"uid": None, "properties": [{"name": "email", "value": "a@example.org"}]},
        "firstSeen": "2026-10-05T00:00:00Z",
        "lastSeen": "2026-11-01T00:00:00Z",
    }
    (row,) = rows(tmp_path, VISITORS, {"totalVisitorsCount": 1, "visitors": [record]})
    assert (row["first_seen_at"], row["last_seen_at"]) == (datetime(2026, 10, 5), datetime(2026, 11, 1))
    assert (row["uid"], row["email"]) == (None, "a@example.org")


@pytest.mark.parametrize("day", ["2026-10-05", "2026-10-05T00:00:00.000Z"])
def test_a_histogram_becomes_rows_by_day(tmp_path: Path, day: str) -> None:
    histogram = [
        {"date": day, "occurrenceCount": 4, "uniqueVisitorsCount": 2},
        {"date": "2026-10-06", "occurrenceCount": 1, "uniqueVisitorsCount": 1},
    ]
    body = {"event": {"id": "e1", "name": "purchase", "categoryId": "c", "occurrenceHistogram": histogram}}
    (row,) = rows(tmp_path, EVENT_DAILY, body)
    assert (row["event_id"], row["stat_date"], row["occurrence_count"], row["unique_visitors"]) == ("e1", DAY, 4, 2)


def test_a_funnel_becomes_rows_by_step(tmp_path: Path) -> None:
    steps = [
        {"visitorsCount": 10, "event": {"step": 0, "id": "e1", "eventName": "view"}, "percentFromPreviousStep": 100},
        {"visitorsCount": 4, "event": {"step": 1, "id": "e2", "eventName": "buy"}, "percentFromPreviousStep": 40},
    ]
    body = {
        "computation": {"isFinished": True},
        "funnel": {"id": "f", "name": "Checkout", "conversionRate": 0.4, "steps": steps},
    }
    found = rows(tmp_path, FUNNELS, body, context={"day": "2026-10-05"})
    assert [(r["step_index"], r["event_name"], r["visitors_count"]) for r in found] == [(1, "view", 10), (2, "buy", 4)]
    assert {r["stat_date"] for r in found} == {DAY}


@pytest.mark.parametrize(("value", "text"), [("x", "x"), (1, "1"), (True, "true"), ({"a": 1}, '{"a":1}'), (None, None)])
def test_an_events_value_may_be_anything(tmp_path: Path, value: object, text: str | None) -> None:
    record = {
        "id": "o1",
        "visitorId": "v",
        "startedAt": "2026-10-05T10:00:00Z",
        "pageUrl": "https://a/",
        "value": value,
    }
    (row,) = rows(tmp_path, EVENTS, {"events": [record]}, context={"sample_rate": "0.05"})
    assert (row["value"], row["page_url"], row["sample_rate"]) == (text, "https://a/", 0.05)


INSTANT = duckdb.connect()
INSTANT.execute("SET TimeZone = 'America/New_York'")  # the session's zone must not matter

instants = st.datetimes(min_value=datetime(2005, 1, 1), max_value=datetime(2100, 1, 1)).map(
    lambda d: d.replace(microsecond=d.microsecond // 1000 * 1000)
)
offsets = st.integers(-14 * 4, 14 * 4).map(lambda quarters: timezone(timedelta(minutes=15 * quarters)))


@settings(deadline=None, max_examples=40)  # two shared cores: time says nothing here
@given(instants, offsets)
def test_an_instant_is_the_same_in_every_spelling(moment: datetime, offset: timezone) -> None:
    aware = moment.replace(tzinfo=UTC)
    spellings = [
        aware.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        aware.astimezone(offset).isoformat(timespec="milliseconds"),
        moment.isoformat(sep=" ", timespec="milliseconds"),
        str(round(aware.timestamp() * 1000)),
    ]
    sql = f"SELECT {_instant('v')} FROM (SELECT unnest(?::VARCHAR[]) AS v)"
    assert {found for (found,) in INSTANT.execute(sql, [spellings]).fetchall()} == {moment}


def test_what_names_a_person_is_marked() -> None:
    for spec in TABLES:
        for column in spec.columns:
            if column.name in {"uid", "email", "user_agent", "city", "value", "properties_json"}:
                assert column.sensitivity is Sensitivity.PERSONAL
            if column.name.endswith("visitor_id"):
                assert column.sensitivity is Sensitivity.PSEUDONYMOUS
        assert not {"visitor_ip", "ip"} & {column.name for column in spec.columns}
    assert SESSIONS.column("dashboard_url").sensitivity is Sensitivity.SECRET


# -------------------------------------------------------------------------------------------- streams, end to end


@pytest.fixture(scope="module")
def world() -> World:
    return generate(seed=7, first_day=DAY, days=3, scale=0.5)


@pytest.fixture(scope="module")
def running(world: World) -> Iterator[Sandbox]:
    with Sandbox(world, vendors=("smartlook",)) as sandbox:
        yield sandbox


class House:
    """Landing, lake and client of one site, as a run has them."""

    def __init__(self, sandbox: Sandbox, world: World, root: Path, plan: str = "addon") -> None:
        self.sandbox = sandbox
        self.clock = ManualClock(NOON)
        self.lake = Lake(root / "lake")
        self.site = world.sites[0]
        self.context = SiteContext(
            key=self.site.key, timezone=self.site.timezone, ids={"plan": plan, "event_visitor_sample": "0.3"}
        )
        self.fetcher = Fetcher(
            landing=Landing(root / "landing", clock=self.clock),
            lake=self.lake,
            run_id="r",
            specs_by_name=SPECS,
            clock=self.clock,
        )

    def connect(self) -> SmartlookClient:
        url = self.sandbox.base_urls["smartlook"]
        return SmartlookClient.connect(base_url=url, token=SecretStr(self.site.smartlook_token), clock=self.clock)

    def run(self, name: str, days: Sequence[date]) -> Any:
        stream = next(s for s in streams.STREAMS if s.name == name)
        outcome = self.fetcher.run(stream, self.context, days, connect=self.connect)
        assert outcome.deferred is None
        return outcome

    def read(self, spec: TableSpec, days: Sequence[date]) -> Any:
        return self.lake.frame(spec, self.site.key, days)


@pytest.fixture
def sandbox(running: Sandbox) -> Iterator[Sandbox]:
    running.faults.clear()
    running.requests.clear()
    yield running
    running.faults.clear()


DAYS = tuple(DAY + timedelta(days=n) for n in range(3))


@pytest.mark.parametrize("plan", ["addon", "free"])
def test_sessions_of_a_range_are_all_there_whatever_the_windows(
    sandbox: Sandbox, world: World, tmp_path: Path, plan: str
) -> None:
    house = House(sandbox, world, tmp_path, plan)
    outcome = house.run("sessions", DAYS)
    assert outcome.error is None
    frame = house.read(SESSIONS, DAYS)
    with house.connect() as client:
        everything = streams.extract_sessions(client, _extraction(house, DAYS[0], DAYS[-1]))
        total = sum(json.loads(page.body)["totalSessionsCount"] for page in everything if page.sequence == 0)
    assert len(frame) == total > 50
    assert frame["session_id"].is_unique
    assert (frame["started_at"].dt.date == frame["_day"].dt.date).all()
    assert frame["_extra"].isna().all()
    # One search over the whole range on every plan, once for the run and once above.
    assert sandbox.requests.count(vendor="smartlook", path="/sessions/search") == 2 * math.ceil(total / 100)


def _extraction(house: House, first: date, last: date, done: frozenset[str] = frozenset()) -> Extraction:
    return Extraction(
        site_key=house.site.key,
        ids=house.context.ids,
        timezone="UTC",
        first_day=first,
        last_day=last,
        now=NOON,
        lake=_NoLake(),
        done_calls=done,
        log=logging.getLogger("test"),
    )


class _NoLake:
    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        raise AssertionError("this stream reads no table")


def test_every_table_of_the_vendor_is_filled_and_consistent(sandbox: Sandbox, world: World, tmp_path: Path) -> None:
    house = House(sandbox, world, tmp_path)
    for stream in streams.STREAMS:
        assert house.run(stream.name, DAYS).error is None
    sessions, visitors, events = (house.read(spec, DAYS) for spec in (SESSIONS, VISITORS, EVENTS))
    daily, funnels = house.read(EVENT_DAILY, DAYS), house.read(FUNNELS, DAYS)
    assert min(len(frame) for frame in (sessions, visitors, events, daily, funnels)) > 0
    for frame in (visitors, events, daily, funnels):
        assert frame["_extra"].isna().all()
    # The world begins at local midnight, two hours before the UTC day: only visitors of that evening were seen before.
    assert set(visitors["visitor_id"]) <= set(sessions["visitor_id"])
    assert len(set(sessions["visitor_id"]) - set(visitors["visitor_id"])) < 0.05 * len(visitors)
    # A sample of visitors, and of those every event.
    assert set(events["visitor_id"]) < set(sessions["visitor_id"])
    assert set(events["session_id"]) <= set(sessions["session_id"])
    # Page views are events of their own kind: the histogram counts those of all visitors.
    visited = daily[daily["event_name"] == "Visited URL"].groupby("_day")["occurrence_count"].sum()
    assert (visited >= sessions.groupby("_day")["page_count"].sum()).all()
    assert (
        funnels.groupby(["funnel_id", "stat_date"])["visitors_count"]
        .apply(lambda steps: steps.is_monotonic_decreasing)
        .all()
    )


def test_what_is_landed_is_never_asked_for_again(sandbox: Sandbox, world: World, tmp_path: Path) -> None:
    house = House(sandbox, world, tmp_path)
    names = [stream.name for stream in streams.STREAMS]
    for name in names:
        house.run(name, DAYS)
    sent = sandbox.requests.count(vendor="smartlook")
    for name in names:
        outcome = house.run(name, DAYS)
        assert (outcome.requests, outcome.done_days) == (0, list(DAYS))
    assert sandbox.requests.count(vendor="smartlook") == sent


def test_an_interrupted_range_resumes_with_the_calls_it_has(sandbox: Sandbox, world: World, tmp_path: Path) -> None:
    house = House(sandbox, world, tmp_path)
    broken = faults.status(403, headers={"content-type": "application/json"}, body="{}")
    sandbox.faults.add("smartlook", "/api/v1/funnels/", nth=2, fault=broken)
    assert house.run("funnels", DAYS).error is not None
    done = sandbox.requests.count(vendor="smartlook")
    outcome = house.run("funnels", DAYS)
    assert outcome.error is None
    whole = House(sandbox, world, tmp_path / "whole")
    whole.run("funnels", DAYS)
    assert (
        house.read(FUNNELS, DAYS)
        .drop(columns="_landed_at")
        .equals(whole.read(FUNNELS, DAYS).drop(columns="_landed_at"))
    )
    # The list is asked again to know the ids; of the funnels only what is missing.
    assert outcome.requests < done + 1


def test_cursors_that_die_lose_nothing_even_where_all_of_them_do(sandbox: Sandbox, tmp_path: Path) -> None:
    busy = generate(seed=7, first_day=DAY, days=3, scale=1.0)
    expired = faults.status(400, headers={"content-type": "application/json"}, body='{"error":"Bad Request"}')
    with Sandbox(busy, vendors=("smartlook",)) as crowded:
        undisturbed = House(crowded, busy, tmp_path / "a")
        undisturbed.run("sessions", DAYS)
        assert crowded.requests.count(vendor="smartlook") > 2
        crowded.faults.add("smartlook", "/api/sessions/search", nth=2, fault=expired)
        house = House(crowded, busy, tmp_path / "b")
        assert house.run("sessions", DAYS).error is None
        assert set(house.read(SESSIONS, DAYS)["session_id"]) == set(undisturbed.read(SESSIONS, DAYS)["session_id"])
        assert house.read(SESSIONS, DAYS)["session_id"].is_unique
        crowded.faults.add("smartlook", "/api/sessions/search", times=99, fault=expired)
        lame = House(crowded, busy, tmp_path / "c")
        assert lame.run("sessions", DAYS).error is None
        assert set(lame.read(SESSIONS, DAYS)["session_id"]) == set(undisturbed.read(SESSIONS, DAYS)["session_id"])


def test_a_visitor_deleted_at_the_vendor_does_not_stop_the_others(
    sandbox: Sandbox, world: World, tmp_path: Path
) -> None:
    house = House(sandbox, world, tmp_path)
    house.run("sessions", DAYS)
    gone = faults.status(404, headers={"content-type": "application/json"}, body='{"error":"Not Found"}')
    sandbox.faults.add("smartlook", "/api/v1/visitors/", nth=2, fault=gone)
    outcome = house.run("events", DAYS)
    assert outcome.error is None
    assert len(house.read(EVENTS, DAYS)) > 0


# ------------------------------------------------------------------------------------------------ sample and plan


@settings(deadline=None, max_examples=40)  # two shared cores: time says nothing here
@given(st.sets(st.text(min_size=1, max_size=30), max_size=50), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_sample_holds_the_smaller_one(visitors: set[str], one: float, other: float) -> None:
    low, high = sorted((one, other))
    small = {v for v in visitors if streams._is_sampled(v, low)}
    large = {v for v in visitors if streams._is_sampled(v, high)}
    assert small <= large
    assert {v for v in visitors if streams._is_sampled(v, 1.0)} == visitors
    assert not any(streams._is_sampled(v, 0.0) for v in visitors)


def test_the_sample_is_about_as_large_as_declared() -> None:
    share = sum(streams._is_sampled(f"visitor-{n}", 0.05) for n in range(20_000)) / 20_000
    assert 0.045 < share < 0.055


@pytest.mark.parametrize(("ids", "limit"), [({}, 20), ({"plan": "paid"}, 100), ({"plan": "AddOn"}, 1000)])
def test_the_plan_sets_the_hourly_limit(ids: dict[str, str], limit: int) -> None:
    (window,) = streams.quota_windows(ids)["any"]
    assert (window.limit, window.seconds) == (limit, 3600)


@pytest.mark.parametrize(
    "ids", [{"plan": "gold"}, {"plan": "addon", "event_visitor_sample": "2"}, {"event_visitor_sample": "x"}]
)
def test_settings_that_cannot_be_meant_are_refused(ids: dict[str, str]) -> None:
    check = streams._sample_rate if "event_visitor_sample" in ids else streams.quota_windows
    with pytest.raises(ConfigurationError, match=r"sites\.yaml"):
        check(ids)
