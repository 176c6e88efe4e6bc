"""Pirsch pages through the real landing and the real decode, row by row as the vendor writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analytics_platform.core.errors import SchemaMismatch
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.paging import Page
from analytics_platform.core.tables import TableSpec
from analytics_platform.vendors.pirsch.tables import (
    BREAKDOWNS,
    DAILY_STATS,
    DIMENSIONS,
    EVENTS,
    GOALS,
    HOURLY,
    PAGES,
    ROW_LIMIT,
    TABLES,
)

DAY = date(2026, 10, 25)
LANDED_AT = datetime(2026, 10, 28, 12, 0, tzinfo=UTC)


def page(kind: str, body: object, *, call: str = "", context: Mapping[str, str] | None = None) -> Page:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    parsed = json.loads(raw)
    return Page(
        call=call or kind,
        call_kind=kind,
        sequence=0,
        is_last=True,
        body=raw,
        status=200,
        endpoint="GET /api/v1/statistics/test",
        received_at=LANDED_AT,
        context={"day": str(DAY)} if context is None else context,
        records=len(parsed) if isinstance(parsed, list) else int(parsed is not None),
        attempts=1,
    )


class Decoder:
    """Lands pages in one batch and gives back the rows of one table and day."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._count = 0

    def partition(
        self, spec: TableSpec, pages: list[Page], *, days: tuple[date, ...] = (DAY,), read: date = DAY
    ) -> list[dict[str, Any]]:
        self._count += 1
        landing = Landing(self._root / f"landing{self._count}")
        lake = Lake(self._root / f"lake{self._count}")
        with landing.open_batch(
            vendor="pirsch", stream="test", site="shop", first_day=days[0], last_day=days[-1], run_id="run-1"
        ) as writer:
            for one in pages:
                writer.append(one)
            batch = writer.complete()
        lake.decode(spec, [(batch, days)], site="shop")
        path = lake.partition_path(spec, "shop", read)
        with duckdb.connect() as engine:
            rows = engine.execute("SELECT * FROM read_parquet(?, hive_partitioning = false)", [str(path)])
            assert rows.description is not None
            names = [column[0] for column in rows.description]
            return [dict(zip(names, row, strict=True)) for row in rows.fetchall()]


@pytest.fixture
def decoder(tmp_path: Path) -> Decoder:
    return Decoder(tmp_path)


def breakdown(dimension: str, body: object) -> Page:
    return page(
        "breakdown",
        body,
        call=f"breakdown/{dimension}/{DAY}",
        context={"day": str(DAY), "dimension": dimension},
    )


# ------------------------------------------------------------------------------------------------------- daily_stats


def test_two_series_become_one_row_a_local_day(decoder: Decoder) -> None:
    # The wire of a real account (contract A4): unrounded floats, and an integral float without decimals.
    visitors = b"""[
      {"day":"2026-10-25T00:00:00Z","visitors":87,"views":200,"sessions":125,"bounces":53,"bounce_rate":0.6091954022988506},
      {"day":"2026-10-26T00:00:00Z","visitors":1,"views":1,"sessions":1,"bounces":1,"bounce_rate":1}]"""
    durations = [
        {"day": "2026-10-25T00:00:00Z", "path": "", "title": "", "average_time_spent_seconds": 42},
        {"day": "2026-10-26T00:00:00Z", "path": "", "title": "", "average_time_spent_seconds": 0},
    ]
    days = (DAY, DAY + timedelta(days=1))
    pages = [page("visitor_series", visitors, context={}), page("duration_series", durations, context={})]

    (row,) = decoder.partition(DAILY_STATS, pages, days=days)
    assert row["stat_date"] == row["_day"] == DAY
    assert (row["visitors"], row["views"], row["sessions"], row["bounces"]) == (87, 200, 125, 53)
    assert row["bounce_rate"] == 0.6091954022988506
    assert row["average_session_seconds"] == 42.0
    assert row["_extra"] is None

    (next_day,) = decoder.partition(DAILY_STATS, pages, days=days, read=days[1])
    assert (next_day["bounce_rate"], next_day["average_session_seconds"]) == (1.0, 0.0)


def test_a_day_knows_the_zone_it_was_cut_in(decoder: Decoder) -> None:
    """Also where only the second series was asked after the vendor told it, and not where nobody did."""
    visitors = [{"day": f"{DAY}T00:00:00Z", "visitors": 1, "views": 1, "sessions": 1, "bounces": 0, "bounce_rate": 0}]
    durations = [{"day": f"{DAY}T00:00:00Z", "path": "", "title": "", "average_time_spent_seconds": 42}]
    told = {"domain_timezone": "Asia/Kolkata"}
    pages = [page("visitor_series", visitors, context={}), page("duration_series", durations, context=told)]
    (row,) = decoder.partition(DAILY_STATS, pages)
    assert (row["domain_timezone"], row["visitors"], row["average_session_seconds"]) == ("Asia/Kolkata", 1, 42.0)
    (untold,) = decoder.partition(DAILY_STATS, pages[:1])
    assert untold["domain_timezone"] is None


def test_fake_utc_midnight_is_a_local_date_and_is_never_shifted(decoder: Decoder) -> None:
    body = [{"day": "2026-10-25T00:00:00Z", "visitors": 1, "views": 1, "sessions": 1, "bounces": 0, "bounce_rate": 0}]
    (row,) = decoder.partition(DAILY_STATS, [page("visitor_series", body, context={})])
    assert row["stat_date"] == DAY


def test_days_outside_the_partition_are_dropped(decoder: Decoder) -> None:
    body = [
        {"day": f"2026-10-{n}T00:00:00Z", "visitors": n, "views": 1, "sessions": 1, "bounces": 0, "bounce_rate": 0}
        for n in (24, 25, 26)
    ]
    (row,) = decoder.partition(DAILY_STATS, [page("visitor_series", body, context={})])
    assert row["visitors"] == 25


def test_null_is_an_empty_list(decoder: Decoder) -> None:
    assert decoder.partition(DAILY_STATS, [page("visitor_series", b"null", context={})]) == []


def test_unreadable_number_stops_the_decode(decoder: Decoder) -> None:
    body = [{"day": "2026-10-25T00:00:00Z", "visitors": "many", "views": 1, "sessions": 1, "bounces": 0}]
    with pytest.raises(SchemaMismatch) as caught:
        decoder.partition(DAILY_STATS, [page("visitor_series", body, context={})])
    assert "many" not in str(caught.value)


def test_unknown_fields_are_kept(decoder: Decoder) -> None:
    body = [{"day": "2026-10-25T00:00:00Z", "visitors": 1, "views": 1, "sessions": 1, "bounces": 0, "new_field": [1]}]
    (row,) = decoder.partition(DAILY_STATS, [page("visitor_series", body, context={})])
    assert json.loads(row["_extra"]) == {"new_field": [1]}


def test_fields_of_later_editions_are_not_unknown(decoder: Decoder) -> None:
    body = [
        {
            "day": "2026-10-25T00:00:00Z",
            "week": None,
            "month": None,
            "year": None,
            "visitors": 1,
            "views": 1,
            "sessions": 1,
            "bounces": 0,
            "bounce_rate": 0,
            "cr": 0,
            "custom_metric_avg": 0,
            "custom_metric_total": 0,
        }
    ]
    (row,) = decoder.partition(DAILY_STATS, [page("visitor_series", body, context={})])
    assert row["_extra"] is None


# -------------------------------------------------------------------------------------------------------------- hourly


def test_hours(decoder: Decoder) -> None:
    body = [{"hour": h, "visitors": h, "views": h, "sessions": h, "bounces": 0, "bounce_rate": 0} for h in range(24)]
    rows = decoder.partition(HOURLY, [page("hours", body)])
    assert [row["hour"] for row in rows] == list(range(24))
    assert {row["stat_date"] for row in rows} == {DAY}
    assert HOURLY.minimum_rows == 24


# --------------------------------------------------------------------------------------------------------------- pages


def test_page_entry_and_exit_lists_merge_by_path(decoder: Decoder) -> None:
    shared = {"path": "/home", "title": "Home", "visitors": 42, "sessions": 67}
    body = {
        "page": [
            {
                **shared,
                "views": 56,
                "bounces": 23,
                "relative_visitors": 0.342,
                "relative_views": 0.298,
                "bounce_rate": 0.765,
                "average_time_spent_seconds": 42,
            }
        ],
        # The entry list has its own average_time_spent_seconds, which is 0 without the parameter (contract A5).
        "page_entry": [{**shared, "entries": 56, "entry_rate": 0.298, "average_time_spent_seconds": 0}],
        "page_exit": [
            {**shared, "exits": 5, "exit_rate": 0.07},
            {"path": "/bye", "title": "Bye", "visitors": 3, "sessions": 4, "exits": 2, "exit_rate": 0.5},
        ],
    }
    bye, home = decoder.partition(PAGES, [page(kind, rows) for kind, rows in body.items()])
    assert (home["path"], home["views"], home["entries"], home["exits"]) == ("/home", 56, 56, 5)
    assert home["average_time_on_page_seconds"] == 42.0
    assert (home["entry_rate"], home["exit_rate"], home["possibly_truncated"]) == (0.298, 0.07, False)
    assert (bye["visitors"], bye["sessions"], bye["exits"]) == (3, 4, 2)
    assert (bye["views"], bye["entries"], bye["possibly_truncated"]) == (None, None, None)
    assert bye["exits_possibly_truncated"] is False


def test_one_path_with_two_titles_stays_two_rows(decoder: Decoder) -> None:
    body = [
        {"path": "/", "title": title, "visitors": 1, "views": 1, "sessions": 1, "bounces": 0} for title in ("A", "B")
    ]
    rows = decoder.partition(PAGES, [page("page", body)])
    assert [row["title"] for row in rows] == ["A", "B"]


@pytest.mark.parametrize(("count", "is_truncated"), [(ROW_LIMIT - 1, False), (ROW_LIMIT, True)])
def test_a_full_list_is_possibly_truncated(decoder: Decoder, count: int, is_truncated: bool) -> None:
    body = [{"path": f"/{n}", "title": "", "visitors": 1, "views": 1, "sessions": 1} for n in range(count)]
    rows = decoder.partition(PAGES, [page("page", body)])
    assert {row["possibly_truncated"] for row in rows} == {is_truncated}


# ---------------------------------------------------------------------------------------------------------- breakdowns


@pytest.mark.parametrize(
    ("dimension", "record", "value", "parent"),
    [
        ("utm_source", {"utm_source": "Newsletter"}, "Newsletter", ""),
        ("utm_term", {"utm_term": ""}, "", ""),
        ("referrer", {"referrer": "https://t.co/x", "referrer_name": "Twitter", "referrer_icon": ""}, "Twitter", ""),
        ("language", {"language": "en"}, "en", ""),
        ("country", {"country_code": "jp"}, "jp", ""),
        ("country", {"country": "jp"}, "jp", ""),
        ("country", {"country_code": "jp", "country": "de"}, "jp", ""),
        ("city", {"city": "London"}, "London", ""),
        ("city", {"city": "London", "country_code": "ca", "region": "Ontario"}, "London", "ca/Ontario"),
        ("os", {"os": "Windows"}, "Windows", ""),
        ("os_version", {"os": "Windows", "os_version": "10.0"}, "10.0", "Windows"),
        ("browser", {"browser": "Firefox"}, "Firefox", ""),
        ("browser_version", {"browser": "Firefox", "browser_version": "89.0"}, "89.0", "Firefox"),
        ("screen_class", {"screen_class": "UHD 5K"}, "UHD 5K", ""),
    ],
)
def test_each_dimension(decoder: Decoder, dimension: str, record: dict[str, str], value: str, parent: str) -> None:
    body = [{"visitors": 42, "relative_visitors": 0.24, **record}]
    (row,) = decoder.partition(BREAKDOWNS, [breakdown(dimension, body)])
    assert (row["dimension"], row["value"], row["parent_value"]) == (dimension, value, parent)
    assert (row["visitors"], row["relative_visitors"], row["possibly_truncated"]) == (42, 0.24, False)
    assert row["_extra"] is None


def test_platform_object_becomes_three_rows(decoder: Decoder) -> None:
    body = {
        "platform_desktop": 457,
        "platform_mobile": 204,
        "platform_unknown": 98,
        "relative_platform_desktop": 0.56,
        "relative_platform_mobile": 0.34,
        "relative_platform_unknown": 0.17,
    }
    rows = decoder.partition(BREAKDOWNS, [breakdown("platform", body), breakdown("os", None)])
    assert [(row["value"], row["visitors"], row["relative_visitors"]) for row in rows] == [
        ("desktop", 457, 0.56),
        ("mobile", 204, 0.34),
        ("unknown", 98, 0.17),
    ]


def test_same_version_of_two_systems_stays_two_rows(decoder: Decoder) -> None:
    body = [
        {"visitors": n, "relative_visitors": 0.1, "os": os, "os_version": "10"}
        for n, os in enumerate(("Windows", "Mac"))
    ]
    rows = decoder.partition(BREAKDOWNS, [breakdown("os_version", body)])
    assert [(row["parent_value"], row["value"]) for row in rows] == [("Mac", "10"), ("Windows", "10")]


def test_referrer_has_sessions_and_bounces(decoder: Decoder) -> None:
    record = {
        "referrer": "https://a.example/x",
        "referrer_name": "a.example",
        "referrer_icon": "",
        "visitors": 42,
        "sessions": 123,
        "relative_visitors": 0.256,
        "bounces": 21,
        "bounce_rate": 0.5,
    }
    (row,) = decoder.partition(BREAKDOWNS, [breakdown("referrer", [record])])
    assert (row["sessions"], row["bounces"], row["bounce_rate"]) == (123, 21, 0.5)
    assert row["referrer_example"] == "https://a.example/x"


VALUES = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(values=st.lists(VALUES, min_size=1, max_size=8, unique=True))
def test_any_value_survives(decoder: Decoder, values: list[str]) -> None:
    body = [{"visitors": 1, "relative_visitors": 0.1, "utm_campaign": value} for value in values]
    rows = decoder.partition(BREAKDOWNS, [breakdown("utm_campaign", body)])
    assert {row["value"] for row in rows} == set(values)


# ---------------------------------------------------------------------------------------------------- events and goals


def test_events(decoder: Decoder) -> None:
    body = [
        {
            "name": "event name",
            "visitors": 432,
            "views": 563,
            "cr": 0.065,
            "average_duration_seconds": 42,
            "meta_keys": ["meta", "keys"],
            "meta_value": "",
        },
        {
            "name": "bare",
            "visitors": 1,
            "views": 1,
            "cr": 1,
            "average_duration_seconds": 0,
            "meta_keys": None,
            "count": 7,
        },
    ]
    bare, named = decoder.partition(EVENTS, [page("events", body)])
    assert (named["views"], named["cr"], named["average_duration_seconds"]) == (563, 0.065, 42.0)
    assert (named["meta_keys"], named["event_count"]) == (["meta", "keys"], None)
    assert (bare["meta_keys"], bare["event_count"]) == ([], 7)
    assert named["_extra"] is None


def test_goals_have_a_fraction_and_a_percentage(decoder: Decoder) -> None:
    goal = {
        "id": "A5kgYzK14m",
        "def_time": "2021-05-22T10:11:12.123456789Z",
        "mod_time": "2021-05-22T10:11:12Z",
        "domain_id": "M03loiem34",
        "name": "My Conversion Goal",
        "path_pattern": "/path/**",
        "pattern": r"(?i)^\/path/[^\/]+$",
        "visitor_goal": 5432,
        "cr_goal": 42.11,
        "delete_reached": True,
        "email_reached": True,
    }
    body = [
        {"page_goal": goal, "stats": {"visitors": 432, "views": 563, "cr": 0.065}},
        {
            "page_goal": {
                **goal,
                "id": "B",
                "path_pattern": None,
                "pattern": None,
                "visitor_goal": None,
                "cr_goal": None,
            }
        },
    ]
    first, second = decoder.partition(GOALS, [page("goals", body)])
    assert (first["goal_id"], first["path_pattern"], first["pattern"]) == ("A5kgYzK14m", "/path/**", goal["pattern"])
    assert (first["cr"], first["cr_goal_percent"], first["visitor_goal"]) == (0.065, 42.11, 5432)
    assert first["defined_at"] == datetime(2021, 5, 22, 10, 11, 12, 123456)  # noqa: DTZ001 - the lake stores UTC without a zone
    assert (second["visitors"], second["cr_goal_percent"]) == (None, None)


# --------------------------------------------------------------------------------------------------------------- specs


@pytest.mark.parametrize("spec", TABLES, ids=lambda spec: spec.name)
def test_every_table_describes_itself_and_decodes_nothing_into_nothing(spec: TableSpec, decoder: Decoder) -> None:
    assert spec.vendor == "pirsch"
    assert spec.description.startswith("One row per")
    assert spec.day_basis == "site"
    assert spec.source_url.startswith("https://")
    assert all(column.description for column in spec.columns)
    assert all(not spec.column(name).nullable for name in spec.key)
    assert not {"day", "date"} & {column.name for column in spec.columns}
    assert decoder.partition(spec, [page(spec.calls[0], b"null", context={"day": str(DAY), "dimension": "os"})]) == []


def test_every_dimension_is_asked_for() -> None:
    assert len(set(DIMENSIONS)) == 15
    assert BREAKDOWNS.column("dimension").allowed == DIMENSIONS
