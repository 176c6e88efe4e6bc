"""Inspectlet's records as they become lake rows, and the streams end to end against the sandbox."""

# ruff: noqa: DTZ001  (a lake TIMESTAMP is naive and in UTC, so what it is compared with is too)

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.errors import ConfigurationError, NotBackfillable, PermissionDenied, SchemaMismatch
from analytics_platform.core.fetch import Fetcher, FetchOutcome, SiteContext
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.paging import Page
from analytics_platform.core.tables import Sensitivity, TableSpec
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import World, generate
from analytics_platform.vendors.inspectlet import streams
from analytics_platform.vendors.inspectlet.client import InspectletClient
from analytics_platform.vendors.inspectlet.tables import SESSION_PAGES, SESSION_TAGS, SESSIONS, TABLES, WEBSITES

NOON = datetime(2026, 11, 5, 12, tzinfo=UTC)
SPECS = {spec.qualified_name: spec for spec in TABLES}

SAMPLE = {
    "sid": 2606721012,
    "wid": 12345678,
    "date_start_session": 1446772479,
    "date_end_session": 1446772768,
    "session_duration": 286893,
    "num_pages": 1,
    "uid": 2099309727,
    "ip": "53.68.13.141",
    "browser": "chrome",
    "referrer": {"source": "d"},
    "useragent": "Mozilla/5.0 (Macintosh)",
    "new_visitor": True,
    "starred": False,
    "country": "US",
    "landing_page": "http://www.example.com/?utm_campaign=media",
    "exit_page": "http://www.example.com/product-1123",
    "device_type": "desktop",
    "display_name": "Johnny Appleseed",
    "sessionlink": "http://www.inspectlet.com/dashboard/watchsession/12345678/2606721012?pn=1&accessResourceKey=2e1a58",
    "tags": [
        {"tag": "converted-purchase", "value": "1", "timestamp": 1446772657},
        {"tag": "email", "value": "johnny.appleseed@example.com", "timestamp": 1446772552},
    ],
    "pages": [
        {
            "rid": 2017992525,
            "opened_at": 1446772479,
            "pagetitle": "Title",
            "url": "http://www.example.com/?utm_campaign=media",
        }
    ],
}
"""The vendor document's sample, with a reserved mail domain."""
DAY = date(2015, 11, 6)


def rows(
    tmp_path: Path, spec: TableSpec, body: object, *, day: date = DAY, context: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """The record's way: landed, decoded, read back. Slashes are escaped as PHP does."""
    landing, lake = Landing(tmp_path / "landing"), Lake(tmp_path / "lake")
    with landing.open_batch(
        vendor=spec.vendor, stream=spec.name, site="shop", first_day=day, last_day=day, run_id="r", fresh=True
    ) as writer:
        writer.append(
            Page(
                call="c",
                call_kind=spec.calls[0],
                sequence=0,
                is_last=True,
                body=json.dumps(body).replace("/", "\\/").encode(),
                status=200,
                endpoint="e",
                received_at=NOON,
                context=dict(context or {}),
                records=0,
                attempts=1,
            )
        )
        batch = writer.complete()
    lake.decode(spec, [(batch, [day])], site="shop")
    cursor = duckdb.connect().execute(
        "SELECT * FROM read_parquet(?, hive_partitioning = false)", [str(lake.partition_path(spec, "shop", day))]
    )
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


@pytest.mark.parametrize("wrap", [lambda s: {"response": s}, lambda s: {"response": {"sessions": s, "count": 1}}])
def test_the_sample_session_in_both_envelopes(tmp_path: Path, wrap: Any) -> None:
    (row,) = rows(tmp_path, SESSIONS, wrap([SAMPLE]))
    assert (row["sid"], row["uid"], row["wid"]) == (2606721012, 2099309727, 12345678)
    assert (row["started_at"], row["ended_at"]) == (datetime(2015, 11, 6, 1, 14, 39), datetime(2015, 11, 6, 1, 19, 28))
    assert (row["session_duration_raw"], row["duration_unit"], row["duration_seconds"]) == (
        286893.0,
        "milliseconds",
        286.893,
    )
    assert (row["num_pages"], row["listed_page_count"], row["tag_count"]) == (1, 1, 2)
    assert row["landing_url"] != row["exit_url"]
    assert (row["is_new_visitor"], row["is_starred"], row["referrer_source"]) == (True, False, "d")
    assert row["viewport_width_px"] is None
    assert row["_extra"] is None


def test_pages_and_tags_of_the_sample(tmp_path: Path) -> None:
    (page,) = rows(tmp_path, SESSION_PAGES, {"response": [SAMPLE]})
    assert (page["page_index"], page["rid"], page["page_url"]) == (
        1,
        2017992525,
        "http://www.example.com/?utm_campaign=media",
    )
    assert page["opened_at"] == page["session_started_at"] == datetime(2015, 11, 6, 1, 14, 39)
    tags = rows(tmp_path, SESSION_TAGS, {"response": [SAMPLE]})
    assert {(t["tag_index"], t["tag"], t["value"]) for t in tags} == {
        (1, "converted-purchase", "1"),
        (2, "email", "johnny.appleseed@example.com"),
    }


def test_the_same_tag_twice_in_a_second_stays_twice_and_true_is_text(tmp_path: Path) -> None:
    twice = {**SAMPLE, "tags": [{"tag": "converted", "value": True, "timestamp": 1446772657}] * 2}
    tags = rows(tmp_path, SESSION_TAGS, {"response": [twice]})
    assert [(t["tag_index"], t["value"]) for t in tags] == [(1, "true"), (2, "true")]


def test_a_session_repeated_by_shifting_pages_is_one_row(tmp_path: Path) -> None:
    body = {"response": {"sessions": [SAMPLE, SAMPLE]}}
    assert len(rows(tmp_path / "s", SESSIONS, body)) == 1
    assert len(rows(tmp_path / "p", SESSION_PAGES, body)) == 1
    assert len(rows(tmp_path / "t", SESSION_TAGS, body)) == 2


def test_numbers_may_be_strings_and_lists_may_be_missing(tmp_path: Path) -> None:
    loose = {k: v for k, v in SAMPLE.items() if k not in {"pages", "tags"}} | {
        "sid": "2606721012",
        "date_start_session": "1446772479",
        "new_visitor": 1,
        "starred": "0",
        "referrer": None,
        "page_width": "1280",
        "display_name": "",
    }
    (row,) = rows(tmp_path, SESSIONS, {"response": [loose]})
    assert (row["sid"], row["is_new_visitor"], row["is_starred"]) == (2606721012, True, False)
    assert (row["listed_page_count"], row["tag_count"], row["viewport_width_px"]) == (0, 0, 1280)
    assert (row["referrer_source"], row["display_name"]) == (None, None)
    assert rows(tmp_path, SESSION_TAGS, {"response": [loose]}) == []


def test_raw_ips_never_reach_the_lake(tmp_path: Path) -> None:
    for spec in (SESSIONS, SESSION_PAGES, SESSION_TAGS):
        rows(tmp_path, spec, {"response": [SAMPLE]})
    assert b"53.68.13.141" not in b"".join(path.read_bytes() for path in (tmp_path / "lake").rglob("*.parquet"))


def test_an_iso_date_instead_of_seconds_is_loud(tmp_path: Path) -> None:
    with pytest.raises(SchemaMismatch):
        rows(tmp_path, SESSIONS, {"response": [{**SAMPLE, "date_start_session": "2015-11-06T01:14:39Z"}]})


def test_only_the_sites_own_website_is_kept(tmp_path: Path) -> None:
    body = {
        "response": [
            {"wid": 1, "site_name": "Other"},
            {"wid": 12345678, "site_name": "My App", "date_added": 1337677548},
        ]
    }
    (row,) = rows(tmp_path, WEBSITES, body, context={"day": DAY.isoformat(), "wid": "12345678"})
    assert (row["wid"], row["site_name"], row["added_at"]) == (12345678, "My App", datetime(2012, 5, 22, 9, 5, 48))
    assert row["snapshot_date"] == DAY


VOTE = duckdb.connect()


@settings(deadline=None, max_examples=40)  # two shared cores: time says nothing here
@given(
    span=st.integers(3, 86_400),
    share=st.floats(0.85, 1.05),
    unit=st.sampled_from(["milliseconds", "seconds"]),
)
def test_the_unit_vote_finds_the_unit_of_any_session_of_three_seconds_or_more(
    span: int, share: float, unit: str
) -> None:
    seconds = span * share
    raw = round(seconds * 1000) if unit == "milliseconds" else round(seconds)
    voted, found = _vote(raw, span)
    assert voted == unit
    assert found == pytest.approx(seconds, abs=0.51)


@pytest.mark.parametrize(
    ("raw", "span", "voted", "seconds"), [(0, 0, "zero", 0), (None, 5, None, None), (7, None, None, None)]
)
def test_a_duration_that_cannot_be_voted_on_is_not_guessed(
    raw: int | None, span: int | None, voted: str | None, seconds: float | None
) -> None:
    assert _vote(raw, span) == (voted, seconds)


def _vote(raw: int | None, span: int | None) -> tuple[str | None, float | None]:
    expressions = ", ".join(str(SESSIONS.column(name).expr) for name in ("duration_unit", "duration_seconds"))
    record = (
        "{'session_duration': ?::VARCHAR, 'date_start_session': '1446772479', "
        "'date_end_session': (1446772479 + ?::BIGINT)::VARCHAR}"
    )
    found = VOTE.execute(f"SELECT {expressions} FROM (SELECT {record} AS r)", [raw, span]).fetchone()
    assert found is not None
    return found[0], found[1]


def test_what_names_a_person_or_opens_a_replay_is_marked() -> None:
    assert SESSIONS.column("session_link").sensitivity is Sensitivity.SECRET
    assert SESSIONS.column("display_name").sensitivity is Sensitivity.PERSONAL
    assert SESSIONS.column("user_agent").sensitivity is Sensitivity.PERSONAL
    assert SESSIONS.column("uid").sensitivity is Sensitivity.PSEUDONYMOUS
    assert SESSION_TAGS.column("value").sensitivity is Sensitivity.PERSONAL
    for spec in TABLES:
        assert "ip" not in {column.name for column in spec.columns}


# -------------------------------------------------------------------------------------------- streams, end to end

FIRST = date(2026, 10, 20)
DAYS = tuple(FIRST + timedelta(days=n) for n in range(9))
"""Over the day (2026-10-26) from which the blog's durations are seconds, and over a change of daylight saving."""


@pytest.fixture(scope="module")
def world() -> World:
    return generate(seed=7, first_day=FIRST, days=len(DAYS), scale=0.3)


@pytest.fixture(scope="module")
def running(world: World) -> Iterator[Sandbox]:
    with Sandbox(world, vendors=("inspectlet",)) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Iterator[Sandbox]:
    running.faults.clear()
    running.requests.clear()
    yield running
    running.faults.clear()


class House:
    """Landing, lake and client of one site, as a run has them."""

    def __init__(self, sandbox: Sandbox, root: Path, *, key: str, wid: str) -> None:
        self.sandbox = sandbox
        self.clock = ManualClock(NOON)
        self.lake = Lake(root / "lake")
        self.context = SiteContext(key=key, timezone="UTC", ids={"wid": wid})
        self.fetcher = Fetcher(
            landing=Landing(root / "landing", clock=self.clock),
            lake=self.lake,
            run_id="r",
            specs_by_name=SPECS,
            clock=self.clock,
        )

    def connect(self) -> InspectletClient:
        secret = self.sandbox.context.credentials
        return InspectletClient.connect(
            base_url=self.sandbox.base_urls["inspectlet"],
            username=SecretStr(secret.inspectlet_username),
            api_token=SecretStr(secret.inspectlet_api_token),
            clock=self.clock,
        )

    def run(self, name: str, days: Sequence[date]) -> FetchOutcome:
        stream = next(s for s in streams.STREAMS if s.name == name)
        return self.fetcher.run(stream, self.context, days, connect=self.connect)

    def read(self, spec: TableSpec, days: Sequence[date] = DAYS) -> Any:
        return self.lake.frame(spec, self.context.key, days)


def test_one_search_fills_three_tables_that_agree(sandbox: Sandbox, world: World, tmp_path: Path) -> None:
    site = world.sites[0]
    house = House(sandbox, tmp_path, key=site.key, wid=str(site.wid))
    assert house.run("sessions", DAYS).error is None
    sessions, pages, tags = (house.read(spec) for spec in (SESSIONS, SESSION_PAGES, SESSION_TAGS))
    assert len(sessions) > 100
    assert sessions["sid"].is_unique
    assert sessions["_extra"].isna().all()
    assert (sessions["started_at"].dt.date == sessions["_day"].dt.date).all()
    counted = pages.groupby("sid").size().reindex(sessions["sid"], fill_value=0).to_numpy()
    assert (counted == sessions["listed_page_count"].to_numpy()).all()
    assert tags.groupby("sid").size().sum() == sessions["tag_count"].sum()
    assert (tags["tag"] == "kameleoon_visitor_code").any()
    sent = sandbox.requests.count(vendor="inspectlet")
    assert house.run("sessions", DAYS).requests == 0
    assert sandbox.requests.count(vendor="inspectlet") == sent


def test_a_change_of_unit_at_the_vendor_does_not_change_our_seconds(
    sandbox: Sandbox, world: World, tmp_path: Path
) -> None:
    site = next(site for site in world.sites if site.key == "blog")
    house = House(sandbox, tmp_path, key=site.key, wid=str(site.wid))
    assert house.run("sessions", DAYS).error is None
    frame = house.read(SESSIONS)
    long = frame[(frame["ended_at"] - frame["started_at"]).dt.total_seconds() >= 3]
    before, after = long[long["_day"] < "2026-10-26"], long[long["_day"] > "2026-10-26"]
    assert set(before["duration_unit"]) == {"milliseconds"}
    assert set(after["duration_unit"]) == {"seconds"}
    span = (long["ended_at"] - long["started_at"]).dt.total_seconds()
    assert ((long["duration_seconds"] <= span + 1) & (long["duration_seconds"] >= 0.5 * span - 1)).all()


def test_a_website_without_access_fails_alone(sandbox: Sandbox, world: World, tmp_path: Path) -> None:
    foreign = House(sandbox, tmp_path, key="foreign", wid="99999999").run("sessions", DAYS)
    assert isinstance(foreign.error, PermissionDenied)
    assert foreign.error.where.site == "foreign"
    ours = House(sandbox, tmp_path, key="shop", wid=str(world.sites[0].wid)).run("sessions", DAYS[:1])
    assert ours.error is None


def test_websites_are_a_snapshot_of_today(sandbox: Sandbox, world: World, tmp_path: Path) -> None:
    house = House(sandbox, tmp_path, key="shop", wid=str(world.sites[0].wid))
    today = NOON.date()
    assert house.run("websites", [today]).error is None
    (wid,) = house.read(WEBSITES, [today])["wid"]
    assert wid == world.sites[0].wid
    refused = house.run("websites", [today - timedelta(days=1)])
    assert isinstance(refused.error, NotBackfillable)


@pytest.mark.parametrize("wid", ["", "12x", "1/2"])
def test_a_site_without_a_usable_wid_says_so(sandbox: Sandbox, tmp_path: Path, wid: str) -> None:
    outcome = House(sandbox, tmp_path, key="shop", wid=wid).run("sessions", DAYS[:1])
    assert isinstance(outcome.error, ConfigurationError)
    assert "wid" in str(outcome.error)
    assert sandbox.requests.count(vendor="inspectlet") == 0
