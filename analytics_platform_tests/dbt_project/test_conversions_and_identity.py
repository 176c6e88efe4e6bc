"""Conversions, experiments and persons of a small lake: what the marts say, and that a rebuilt window says it again.

The people and their logins are the sandbox's (`sandbox.truth`), referred to by the same key the lake would use.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import duckdb
import pytest

from analytics_platform.core.identity import PersonKey
from analytics_platform.sandbox.truth import World, generate
from analytics_platform_tests.dbt_project.conftest import Warehouse, at, failures
from analytics_platform_tests.dbt_project.lake_fixture import FixtureLake

FIRST, SECOND = date(2026, 10, 5), date(2026, 10, 6)
KEY = PersonKey(secret="0123456789abcdef0123456789abcdef", sites=frozenset({"shop"}))
MARTS = (
    "+fct_goal_daily", "+fct_funnel_daily", "+dim_campaign", "+fct_product_daily", "+fct_experiment_results_daily",
    "+dim_visitor", "+fct_offline_conversions",
)  # fmt: skip
INCREMENTAL = {
    "int_conversions_unioned": "filed_date_local",
    "int_goals_reported": "stat_date",
    "int_experiment_exposure_days": "filed_date_local",
    "int_coded_visitor_days": "session_date_local",
    "int_identity_sightings": "seen_date_local",
    "fct_funnel_daily": "stat_date",
    "fct_campaign_daily": "stat_date",
    "fct_product_daily": "stat_date",
    "fct_sessions": "session_date_local",
    "fct_daily_traffic": "stat_date",
    "fct_offline_conversions": "conversion_date_local",
}
Row = dict[str, Any]


class Person(NamedTuple):
    """A visitor of the truth and what they logged in with."""

    visitor_id: int
    kameleoon_code: str
    uid: str | None
    email: str | None


def persons(world: World) -> list[Person]:
    frame = world.visitors
    columns = (frame[name].tolist() for name in Person._fields)
    return [Person(*values) for values in zip(*columns, strict=True)]


def run(warehouse: Warehouse, first: str = "0001-01-01", last: str = "9999-12-31") -> None:
    told = {"identity_policy": "pseudonymous", "window_start": first, "window_end": last}
    result = warehouse.dbt(
        "build", "--select", *MARTS, "--exclude-resource-type", "unit_test", "test", "--vars", json.dumps(told)
    )
    assert failures(result) == []


# ------------------------------------------------------------------------------------------------------------ the lake


def _smartlook_session(number: object, visitor: object, start: datetime, **more: object) -> Row:
    url = "https://shop.example/?utm_source=LinkedIn.com&utm_medium=Social"
    return {
        "session_id": f"s{number}", "visitor_id": f"v{visitor}", "started_at": start,
        "ended_at": start + timedelta(minutes=5), "duration_seconds": 300.0, "page_urls": [url], "page_count": 1,
        "landing_url": url, "exit_url": url, **more,
    }  # fmt: skip


def _event(number: int, name: str, value: str | None, properties: object = None, kind: str = "custom") -> Row:
    return {
        "event_id": f"e{number}", "visitor_id": "vbuyer", "session_id": "sbuyer", "event_type": kind,
        "event_name": name, "value": value, "started_at": at("2026-10-05 10:01") + timedelta(hours=number),
        "properties_json": None if properties is None else json.dumps(properties), "sample_rate": 1.0,
    }  # fmt: skip


EVENTS = [
    _event(1, "Purchase", "39.90", [{"name": "Currency", "value": "eur"}]),
    _event(2, "Purchase", "1", [{"name": "revenue", "value": 12.5}, {"name": "currency", "value": "points"}]),
    _event(3, "purchase", "x", {"total": "7", "currency": "USD"}),
    _event(4, "Purchase", None),
    _event(5, "Newsletter signup", "jane@shop.de"),
    _event(6, "Card number", "4111.11"),
    _event(7, "Purchase", "99.99", kind="click"),
]


def _write_smartlook(lake: FixtureLake, world: World) -> None:
    rows = [_smartlook_session("buyer", "buyer", at("2026-10-05 10:00"), kameleoon_visitor_code="codebuyer0000000")]
    for person in persons(world):
        for device, hour in (("phone", 8), ("desk", 20)):
            rows.append(
                _smartlook_session(
                    f"{device}{person.visitor_id}",
                    f"{device}{person.visitor_id}",
                    datetime(2026, 10, 5, hour) + timedelta(seconds=person.visitor_id % 3000),  # noqa: DTZ001
                    uid_ref=KEY.reference(person.uid, site="shop"),
                    email_ref=KEY.reference(person.email, site="shop"),
                )
            )
    lake.write("smartlook", "sessions", "shop", FIRST, rows)
    lake.write("smartlook", "sessions", "shop", SECOND, [_smartlook_session("late", "late", at("2026-10-06 09:00"))])
    lake.write("smartlook", "events", "shop", FIRST, EVENTS)


def _inspectlet(sid: int, uid: int, start: datetime) -> Row:
    url = "https://shop.example/"
    return {
        "wid": 1, "sid": sid, "uid": uid, "started_at": start, "ended_at": start, "num_pages": 1,
        "listed_page_count": 1, "landing_url": url, "exit_url": url,
    }  # fmt: skip


def _tag(sid: int, index: int, tag: str, value: str | None, start: datetime, **more: object) -> Row:
    return {
        "wid": 1, "sid": sid, "tag_index": index, "tag": tag, "value": value, "tagged_at": start,
        "session_started_at": start, **more,
    }  # fmt: skip


def _write_inspectlet(lake: FixtureLake, world: World) -> None:
    start = at("2026-10-05 22:30")  # the 6th in Berlin
    sessions, tags = [_inspectlet(1, 1, start)], [
        _tag(1, 1, "converted-purchase", "1", start), _tag(1, 2, "converted-purchase", "25.00", start),
        _tag(1, 3, "plan", "19.00", start),
    ]  # fmt: skip
    for person in persons(world):
        sid = person.visitor_id
        sessions.append(_inspectlet(sid, sid, start))
        if person.email is not None:
            reference = KEY.reference(person.email, site="shop")
            tags.append(_tag(sid, 1, "email", "never@read", start, email_ref=reference))
    paths = ("/", "/cart", "/checkout/thank-you")
    pages = [
        {"wid": 1, "sid": 1, "page_index": n, "session_started_at": start, "page_url": f"https://shop.example{path}",
         "opened_at": start + timedelta(minutes=n)}
        for n, path in enumerate(paths, start=1)
    ]  # fmt: skip
    lake.write("inspectlet", "sessions", "shop", FIRST, sessions)
    lake.write("inspectlet", "sessions", "shop", SECOND, [])
    lake.write("inspectlet", "session_tags", "shop", FIRST, tags)
    lake.write("inspectlet", "session_pages", "shop", FIRST, pages)


def _write_kameleoon(lake: FixtureLake, world: World) -> None:
    start = at("2026-10-05 12:00")
    visits = [
        {"visitor_code": person.kameleoon_code, "started_at": start, "page_count": 0,
         "login_ref": KEY.reference(person.uid, site="shop")}
        for person in persons(world)
    ]  # fmt: skip
    common = {"visitor_code": world.visitors["kameleoon_code"][0], "visit_started_at": start}
    bought = {**common, "goal_id": "310085", "revenue": 20.0, "is_reversal": False}
    conversions = [
        {**bought, "conversion_number": 1, "converted_at": at("2026-10-05 11:00")},
        {**bought, "conversion_number": 2, "converted_at": at("2026-10-05 13:00")},
        {**bought, "conversion_number": 3, "converted_at": at("2026-10-06 09:00"), "is_reversal": True},
    ]
    seen = {"kind": "experiment", "experiment_id": "210501", "exposed_at": start, "visit_started_at": start}
    exposures = [
        {**seen, "visitor_code": code, "exposure_number": 1, "variation_id": ("0", "880101")[number % 2]}
        for number, code in enumerate(world.visitors["kameleoon_code"])
    ]
    exposures.append({**seen, "visitor_code": "leftout000000000", "exposure_number": 1, "variation_id": None})
    lake.write("kameleoon", "visits", "shop", FIRST, visits)
    lake.write("kameleoon", "visits", "shop", SECOND, [])
    lake.write("kameleoon", "conversions", "shop", FIRST, conversions)
    lake.write("kameleoon", "exposures", "shop", FIRST, exposures)
    for day in (FIRST, SECOND):
        counter = {"stat_date": day, "ean": "sku", "views": 4, "add_to_cart_quantity": 2, "bought_quantity": 1}
        lake.write("kameleoon", "product_counters", "shop", day, [counter])


def _write_pirsch(lake: FixtureLake) -> None:
    for day in (FIRST, SECOND):
        lake.write(
            "pirsch", "daily_stats", "shop", day, [{"stat_date": day, "visitors": 50, "views": 90, "sessions": 60}]
        )
        goal = {"stat_date": day, "goal_id": "g", "name": "Purchase", "visitors": 5, "views": 6, "cr": 0.1}
        lake.write("pirsch", "goals", "shop", day, [goal])
        words = [
            {"stat_date": day, "dimension": "utm_source", "value": word, "visitors": 3, "possibly_truncated": False}
            for word in ("LinkedIn", "linkedin.com", "Google")
        ]
        lake.write("pirsch", "breakdowns", "shop", day, words)


@pytest.fixture(scope="module")
def people() -> World:
    return generate(first_day=FIRST, days=1, scale=0.6)


@pytest.fixture(scope="module")
def made(people: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    """Built once with an open window and identities linked. Read only."""
    lake = FixtureLake(tmp_path_factory.mktemp("lake"))
    vendors = ("smartlook", "inspectlet", "pirsch", "kameleoon", "kissmetrics")
    lake.sites([("shop", "Europe/Berlin", "shop.example", FIRST, vendor, "id", True) for vendor in vendors])
    _write_smartlook(lake, people)
    _write_inspectlet(lake, people)
    _write_kameleoon(lake, people)
    _write_pirsch(lake)
    warehouse = Warehouse(lake, tmp_path_factory.mktemp("made"))
    run(warehouse)
    yield warehouse
    lake.close()


# ------------------------------------------------------------------------------------------------------------- revenue


def test_only_a_conversion_tells_an_amount(made: Warehouse) -> None:
    rows = made.rows("SELECT event_id, revenue, currency_code FROM stg_smartlook__events ORDER BY 1")
    assert rows == [
        ("e1", Decimal("39.9000"), "EUR"),
        ("e2", Decimal("12.5000"), None),
        ("e3", Decimal("7.0000"), "USD"),
        ("e4", None, None),
        ("e5", None, None),
        ("e6", None, None),
        ("e7", None, None),
    ]


def test_a_tag_set_to_true_is_no_amount(made: Warehouse) -> None:
    rows = made.rows("SELECT tag, revenue FROM stg_inspectlet__session_tags WHERE sid = 1 ORDER BY tag_index")
    assert rows == [("converted-purchase", None), ("converted-purchase", Decimal("25.0000")), ("plan", None)]


def test_what_replay_saw_and_kameleoon_did_not_has_its_revenue(made: Warehouse) -> None:
    rows = made.rows("SELECT conversion_name, revenue FROM fct_offline_conversions ORDER BY converted_at_utc")
    assert rows == [
        ("purchase", Decimal("39.9000")),
        ("purchase", Decimal("12.5000")),
        ("purchase", Decimal("7.0000")),
        ("purchase", None),
        ("signup", None),
    ]


def test_a_conversion_taken_back_is_no_conversion_and_no_revenue(made: Warehouse) -> None:
    rows = made.rows(
        "SELECT revenue, is_reversal, is_reversed, stat_date FROM fct_conversions "
        "WHERE vendor = 'kameleoon' ORDER BY converted_at_utc"
    )
    assert rows == [
        (Decimal("20.0000"), False, False, FIRST),
        (Decimal("20.0000"), False, True, FIRST),
        (Decimal("-20.0000"), True, False, SECOND),
    ]
    # The first purchase came before the exposure, the second was taken back.
    counted = made.rows("SELECT sum(new_conversions), sum(new_revenue) FROM fct_experiment_results_daily")
    assert counted == [(0, Decimal("0.0000"))]


def test_one_goal_at_four_vendors(made: Warehouse) -> None:
    rows = made.rows(
        "SELECT vendor, stat_date, conversions, converting_visitors FROM fct_goal_daily "
        "WHERE goal_key = 'purchase' ORDER BY ALL"
    )
    assert rows == [
        ("inspectlet", FIRST, 0, 0), ("inspectlet", SECOND, 2, 1), ("kameleoon", FIRST, 2, 1),
        ("kameleoon", SECOND, 0, 0), ("pirsch", FIRST, None, 5), ("pirsch", SECOND, None, 5),
        ("smartlook", FIRST, 4, 1), ("smartlook", SECOND, 0, 0),
    ]  # fmt: skip


def test_a_funnel_belongs_to_the_local_date_of_the_visit(made: Warehouse) -> None:
    rows = made.rows(
        "SELECT stat_date, step_key, visitors FROM fct_funnel_daily WHERE vendor = 'inspectlet' ORDER BY step_number"
    )
    assert rows == [(SECOND, "any_page", 1), (SECOND, "cart", 1), (SECOND, "purchase", 1)]


# ------------------------------------------------------------------------------------------------------------- persons


def test_the_persons_are_the_logins_of_the_truth(made: Warehouse, people: World) -> None:
    """All devices and vendors of a login are one person, and nobody else is in it."""
    truth: dict[tuple[str, str], str] = {}
    for person in persons(people):
        if person.uid is not None:
            own = {
                ("smartlook", f"vphone{person.visitor_id}"), ("smartlook", f"vdesk{person.visitor_id}"),
                ("inspectlet", str(person.visitor_id)), ("kameleoon", person.kameleoon_code),
            }  # fmt: skip
            truth |= dict.fromkeys(own, person.uid)
    assert len(set(truth.values())) >= 5, "people enough to be mistaken about"
    found = {
        (vendor, visitor): key
        for vendor, visitor, key in made.rows(
            "SELECT vendor, vendor_visitor_id, person_key FROM dim_visitor WHERE person_key IS NOT NULL"
        )
    }
    assert set(found) == set(truth)
    assert _groups(found) == _groups(truth)


def _groups(named: Mapping[tuple[str, str], str]) -> set[frozenset[tuple[str, str]]]:
    groups: dict[str, set[tuple[str, str]]] = {}
    for member, name in named.items():
        groups.setdefault(name, set()).add(member)
    return {frozenset(members) for members in groups.values()}


def test_who_never_logged_in_is_nobody(made: Warehouse, people: World) -> None:
    strangers = int(people.visitors["uid"].isna().sum())
    rows = made.rows("SELECT count(*) FROM dim_visitor WHERE reason_null = 'not_logged_in' AND vendor = 'inspectlet'")
    assert rows == [(strangers + 1,)]


# ------------------------------------------------------------------------------------------------------------- windows


def test_a_rebuilt_window_says_what_the_whole_says(made: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Rows of the window gone from every incremental table, and strangers' rows in it: rebuilt, all marts are equal."""
    warehouse = Warehouse(made.lake, tmp_path_factory.mktemp("again") / "made")
    shutil.copytree(made.folder, warehouse.folder)
    _wreck(warehouse, FIRST - timedelta(days=1), SECOND)

    run(warehouse, "2026-10-04", "2026-10-06")

    for table in (*INCREMENTAL, "fct_conversions", "fct_goal_daily", "fct_experiment_results_daily", "dim_visitor"):
        expected = made.rows(f"SELECT * FROM {table} ORDER BY ALL")
        assert expected, table
        assert warehouse.rows(f"SELECT * FROM {table} ORDER BY ALL") == expected, table


def _wreck(warehouse: Warehouse, first: date, last: date) -> None:
    with duckdb.connect(str(warehouse.database)) as connection:
        for table, column in INCREMENTAL.items():
            before = connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0]
            connection.execute(f"DELETE FROM {table} WHERE rowid % 2 = 0 AND {column} BETWEEN ? AND ?", [first, last])
            connection.execute(f"INSERT INTO {table} BY NAME SELECT * REPLACE ('gone' AS site_key) FROM {table}")
            assert before, table
