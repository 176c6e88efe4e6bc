"""Kameleoon pages through the real landing and the real decode."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
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
from analytics_platform.core.tables import Sensitivity, TableSpec
from analytics_platform.vendors.kameleoon.tables import (
    CONVERSIONS,
    EXPOSURES,
    MAX_PREVIOUS_VISITS,
    PRODUCT_COUNTERS,
    TABLES,
    VISIT_PAGES,
    VISITS,
)

DAY = date(2026, 10, 5)
STARTED_MS = 1791204000_000  # 2026-10-05 12:40:00 UTC
CODE = "abcdef0123456789"


def at(second: float) -> datetime:
    """The lake stores UTC instants without a zone."""
    return datetime.fromtimestamp(STARTED_MS / 1000 + second, UTC).replace(tzinfo=None)


def event(second: int, /, **data: object) -> dict[str, object]:
    return {"data": data, "itp": False, "time": STARTED_MS + second * 1000}


def full_visit() -> dict[str, object]:
    """Every member the wire contract knows (B5)."""
    return {
        "siteCode": "f17c21u1ag",
        "visitorCode": CODE,
        "timeStarted": STARTED_MS,
        "timeLastEvent": STARTED_MS + 90_500,
        "staticDataEvent": event(
            1,
            visitNumber=3,
            timeSincePreviousVisit=86_400_000,
            firstReferrerHref=None,
            browser="CHROME",
            browserIndex=0,
            browserVersion=99.0,
            os="WINDOWS",
            osIndex=0,
            windowWidth=1200,
            windowHeight=800,
            screenWidth=1920,
            screenHeight=1080,
            timeZoneId="Europe/Paris",
            localeLanguageTag="fr-FR",
            deviceType="DESKTOP",
            mappingIdentifier=None,
        ),
        "pageEvents": [
            event(0, href="https://e.com/?utm_source=x", canonicalHref=None, title="T", keyPagesIndices=[None],
                  referrerHref=None, referrersIndices=[None]),
            event(60, href="https://e.com/pay", title="Pay", referrerHref="https://e.com/"),
        ],
        "customDataEvents": [event(2, index=3, valuesCountMap={"x": 1}, overwrite=True, mappingIdentifier=False)],
        "conversionEvents": [
            {**event(61, goalId=85, revenue=12.5, negative=False), "sdk": {"name": "PYTHON", "version": "3.22.2"}},
            event(90, goalId=85, revenue=12.5, negative=True, metadata={"4": ["a"]}),
        ],
        "experimentEvents": [event(1, id=1, variationId=2), event(5, id=9, variationId=0)],
        "personalizationEvents": [{"data": {"id": 7, "variationId": 8}, "time": STARTED_MS + 3000}],
        "geolocationEvents": [
            event(70, country="France", region="IDF", city="Paris", postalCode=None, latitude=48.85, longitude=2.35),
            event(1, country="Spain", region=None, city=None, postalCode=None, latitude=None, longitude=None),
        ],
    }  # fmt: skip


def bare_visit(started_ms: int = STARTED_MS) -> dict[str, object]:
    """What is left when nothing was asked for."""
    return {"siteCode": "f17c21u1ag", "visitorCode": CODE, "timeStarted": started_ms, "timeLastEvent": started_ms + 1}


def visitor_page(body: Mapping[str, Any], *, code: str = CODE) -> Page:
    """An answer, its visits counted as the client counts them."""
    return Page(
        call=f"visitor/{code}",
        call_kind="visitor",
        sequence=0,
        is_last=True,
        body=json.dumps(body).encode(),
        status=200,
        endpoint="GET /visit/visitor",
        received_at=datetime(2026, 10, 8, 12, 0, tzinfo=UTC),
        context={"visitor_code": code},
        records=len(body.get("previousVisits") or []) + (1 if body.get("currentVisit") else 0),
        attempts=1,
    )


def counters_page(body: object) -> Page:
    return Page(
        call="product_counters",
        call_kind="product_counters",
        sequence=0,
        is_last=True,
        body=json.dumps(body).encode(),
        status=200,
        endpoint="GET /product/productCounters",
        received_at=datetime(2026, 10, 8, 12, 0, tzinfo=UTC),
        context={"day": str(DAY)},
        records=0,
        attempts=1,
    )


class Decoder:
    """Lands pages in one batch and gives back the rows of one table on DAY."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._count = 0

    def __call__(self, spec: TableSpec, *pages: Page) -> list[dict[str, Any]]:
        self._count += 1
        landing = Landing(self._root / f"landing{self._count}")
        lake = Lake(self._root / f"lake{self._count}")
        with landing.open_batch(
            vendor="kameleoon", stream="test", site="shop", first_day=DAY, last_day=DAY, run_id="run-1"
        ) as writer:
            for one in pages:
                writer.append(one)
            batch = writer.complete()
        lake.decode(spec, [(batch, (DAY,))], site="shop")
        with duckdb.connect() as engine:
            path = str(lake.partition_path(spec, "shop", DAY))
            rows = engine.execute("SELECT * FROM read_parquet(?, hive_partitioning = false)", [path])
            assert rows.description is not None
            names = [column[0] for column in rows.description]
            return [dict(zip(names, row, strict=True)) for row in rows.fetchall()]


@pytest.fixture
def decode(tmp_path: Path) -> Decoder:
    return Decoder(tmp_path)


# -------------------------------------------------------------------------------------------------------------- visits


def test_a_visit_with_everything(decode: Decoder) -> None:
    (row,) = decode(VISITS, visitor_page({"previousVisits": [full_visit()], "kcs": {}, "cbs": {}}))
    assert (row["visitor_code"], row["started_at"], row["last_event_at"]) == (CODE, at(0), at(90.5))
    assert (row["duration_seconds"], row["site_code"]) == (90.5, "f17c21u1ag")
    assert (row["page_count"], row["conversion_count"], row["exposure_count"]) == (2, 2, 3)
    assert (row["landing_url"], row["exit_url"]) == ("https://e.com/?utm_source=x", "https://e.com/pay")
    assert (row["visit_number"], row["seconds_since_previous_visit"], row["first_referrer_url"]) == (3, 86400.0, None)
    assert (row["browser"], row["browser_version"], row["os"]) == ("CHROME", "99.0", "WINDOWS")
    assert (row["device_type"], row["time_zone"], row["locale"]) == ("DESKTOP", "Europe/Paris", "fr-FR")
    assert (row["window_width_px"], row["screen_height_px"]) == (1200, 1080)
    assert json.loads(row["custom_data"])[0]["data"]["valuesCountMap"] in ('{"x":1}', {"x": 1})
    assert (row["possibly_truncated"], row["_extra"], row["_day"]) == (False, None, DAY)


def test_the_newest_geolocation_wins_whatever_the_order(decode: Decoder) -> None:
    (row,) = decode(VISITS, visitor_page({"previousVisits": [full_visit()]}))
    assert (row["country"], row["city"], row["latitude_degrees"]) == ("France", "Paris", 48.85)


def test_absent_members_are_null_and_counts_are_zero(decode: Decoder) -> None:
    (row,) = decode(VISITS, visitor_page({"previousVisits": [bare_visit()]}))
    assert (row["page_count"], row["conversion_count"], row["exposure_count"]) == (0, 0, 0)
    nullable = ("landing_url", "exit_url", "visit_number", "browser", "country", "latitude_degrees", "custom_data")
    assert {row[name] for name in nullable} == {None}


def test_current_and_previous_visits_are_both_rows(decode: Decoder) -> None:
    body = {"currentVisit": bare_visit(STARTED_MS + 3_600_000), "previousVisits": [bare_visit()]}
    assert [row["started_at"] for row in decode(VISITS, visitor_page(body))] == [at(0), at(3600)]


@pytest.mark.parametrize("body", [{}, {"previousVisits": None}, {"previousVisits": []}, {"currentVisit": None}])
def test_an_unknown_visitor_has_no_rows(decode: Decoder, body: dict[str, Any]) -> None:
    assert decode(VISITS, visitor_page(body)) == []


def test_visits_of_other_days_are_dropped_by_the_utc_day_they_started(decode: Decoder) -> None:
    midnight = int(datetime(2026, 10, 5, tzinfo=UTC).timestamp()) * 1000
    starts = [midnight - 1, midnight, midnight + 86_399_999, midnight + 86_400_000]
    rows = decode(VISITS, visitor_page({"previousVisits": [bare_visit(start) for start in reversed(starts)]}))
    assert [row["started_at"].isoformat() for row in rows] == ["2026-10-05T00:00:00", "2026-10-05T23:59:59.999000"]


def test_the_same_visit_twice_is_one_row(decode: Decoder) -> None:
    page = {"previousVisits": [bare_visit()]}
    again = {"previousVisits": [full_visit()]}
    (row,) = decode(VISITS, visitor_page(page, code="x"), visitor_page(again, code="y"))
    assert row["page_count"] == 2


def test_seconds_where_milliseconds_are_due_stop_the_decode(decode: Decoder) -> None:
    # Otherwise every visit would fall in January 1970, outside the partition, and vanish without a word.
    with pytest.raises(SchemaMismatch, match="milliseconds"):
        decode(VISITS, visitor_page({"previousVisits": [bare_visit(STARTED_MS // 1000)]}))


def test_a_full_answer_may_lack_older_visits(decode: Decoder) -> None:
    full = [bare_visit(STARTED_MS + number) for number in range(MAX_PREVIOUS_VISITS)]
    for visits, lacks in ((full, True), (full[1:], False)):
        rows = decode(VISITS, visitor_page({"previousVisits": visits}))
        assert [row["possibly_truncated"] for row in rows] == [lacks] * len(visits)


def test_unknown_fields_are_kept(decode: Decoder) -> None:
    (row,) = decode(VISITS, visitor_page({"previousVisits": [{**bare_visit(), "newField": 1}]}))
    assert json.loads(row["_extra"]) == {"newField": 1}


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(offsets_ms=st.lists(st.integers(min_value=0, max_value=86_399_999), min_size=1, max_size=50, unique=True))
def test_any_instant_of_the_day_keeps_its_milliseconds(decode: Decoder, offsets_ms: list[int]) -> None:
    midnight = int(datetime(2026, 10, 5, tzinfo=UTC).timestamp()) * 1000
    rows = decode(VISITS, visitor_page({"previousVisits": [bare_visit(midnight + offset) for offset in offsets_ms]}))
    started = [round(row["started_at"].replace(tzinfo=UTC).timestamp() * 1000) - midnight for row in rows]
    assert started == sorted(offsets_ms)


# -------------------------------------------------------------------------------------------------- events of a visit


def test_pages_of_a_visit(decode: Decoder) -> None:
    first, second = decode(VISIT_PAGES, visitor_page({"previousVisits": [full_visit()]}))
    assert (first["page_number"], first["url"], first["title"]) == (1, "https://e.com/?utm_source=x", "T")
    assert (second["page_number"], second["viewed_at"], second["referrer_url"]) == (2, at(60), "https://e.com/")
    assert first["visit_started_at"] == second["visit_started_at"] == at(0)


def test_events_are_numbered_by_time_whatever_the_order(decode: Decoder) -> None:
    visit = full_visit()
    expected = decode(VISIT_PAGES, visitor_page({"previousVisits": [visit]}))
    for member in ("pageEvents", "conversionEvents", "experimentEvents"):
        listed = visit[member]
        assert isinstance(listed, list)
        listed.reverse()
    assert decode(VISIT_PAGES, visitor_page({"previousVisits": [visit]})) == expected
    (row,) = decode(VISITS, visitor_page({"previousVisits": [visit]}))
    assert (row["landing_url"], row["exit_url"]) == ("https://e.com/?utm_source=x", "https://e.com/pay")
    assert [row["is_reversal"] for row in decode(CONVERSIONS, visitor_page({"previousVisits": [visit]}))] == [
        False,
        True,
    ]
    exposures = decode(EXPOSURES, visitor_page({"previousVisits": [visit]}))
    assert [row["experiment_id"] for row in exposures] == ["1", "9", "7"]


def test_experiments_and_personalizations_are_told_apart(decode: Decoder) -> None:
    rows = decode(EXPOSURES, visitor_page({"previousVisits": [full_visit()]}))
    assert [
        (row["exposure_number"], row["kind"], row["experiment_id"], row["variation_id"], row["exposed_at"])
        for row in rows
    ] == [
        (1, "experiment", "1", "2", at(1)),
        (2, "experiment", "9", "0", at(5)),
        (3, "personalization", "7", "8", at(3)),
    ]


@pytest.mark.parametrize(
    ("member", "kind"), [("experimentEvents", "experiment"), ("personalizationEvents", "personalization")]
)
def test_one_kind_alone(decode: Decoder, member: str, kind: str) -> None:
    visit = {**bare_visit(), member: [event(1, id=1, variationId=2)]}
    (row,) = decode(EXPOSURES, visitor_page({"previousVisits": [visit, bare_visit(STARTED_MS + 5)]}))
    assert (row["kind"], row["exposure_number"]) == (kind, 1)


def test_conversions_and_their_reversals(decode: Decoder) -> None:
    bought, returned = decode(CONVERSIONS, visitor_page({"previousVisits": [full_visit()]}))
    assert (bought["goal_id"], bought["revenue"], bought["is_reversal"], bought["metadata"]) == (
        "85",
        12.5,
        False,
        None,
    )
    assert (returned["is_reversal"], returned["converted_at"]) == (True, at(90))
    assert json.loads(returned["metadata"]) == {"4": ["a"]}


def test_a_conversion_posted_later_is_a_row_of_the_visits_day(decode: Decoder) -> None:
    visit = {**bare_visit(), "conversionEvents": [event(40 * 86_400, goalId=1)]}
    (row,) = decode(CONVERSIONS, visitor_page({"previousVisits": [visit]}))
    assert (row["_day"], row["revenue"], row["is_reversal"]) == (DAY, None, False)
    assert row["converted_at"].date() == date(2026, 11, 14)


# ------------------------------------------------------------------------------------------------------------ products


def test_counters_by_product_with_zero_members_absent(decode: Decoder) -> None:
    rows = decode(
        PRODUCT_COUNTERS, counters_page({"ean1": {"v": 12, "atcq": 3, "bq": 1}, "ean2": {"v": 1}, "ean3": {}})
    )
    assert [(row["ean"], row["views"], row["add_to_cart_quantity"], row["bought_quantity"]) for row in rows] == [
        ("ean1", 12, 3, 1),
        ("ean2", 1, 0, 0),
        ("ean3", 0, 0, 0),
    ]
    assert {row["stat_date"] for row in rows} == {DAY}


def test_no_counters(decode: Decoder) -> None:
    assert decode(PRODUCT_COUNTERS, counters_page({})) == []


# --------------------------------------------------------------------------------------------------------------- specs


@pytest.mark.parametrize("spec", TABLES, ids=lambda spec: spec.name)
def test_every_table_describes_itself(spec: TableSpec) -> None:
    assert spec.vendor == "kameleoon"
    assert spec.description.startswith("One row per")
    assert spec.day_basis == "utc"
    assert all(column.description for column in spec.columns)
    assert all(not spec.column(name).nullable for name in spec.key)
    assert not {"day", "date"} & {column.name for column in spec.columns}


@pytest.mark.parametrize("spec", [VISITS, VISIT_PAGES, EXPOSURES, CONVERSIONS], ids=lambda spec: spec.name)
def test_the_visitor_code_is_never_shown(spec: TableSpec) -> None:
    assert spec.column("visitor_code").sensitivity is Sensitivity.PSEUDONYMOUS
