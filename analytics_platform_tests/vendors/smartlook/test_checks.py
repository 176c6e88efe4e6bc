"""Smartlook's own checks: what holds and what breaks them."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from analytics_platform_tests.vendors.lake_frames import CANARIES, Case, Row, checks_of, day, judge

START = datetime(2026, 10, 5, 12)  # noqa: DTZ001  (a lake TIMESTAMP is naive)


def cursor(table: str) -> Case:
    return Case(
        table=table,
        check="no_cursor_is_stored",
        holds=[{"_extra": None}, {"_extra": '{"plan":"after"}'}, {"_extra": f'{{"note":"{CANARIES[0]}"}}'}],
        breaks=[
            {"_extra": f'{{"after":"MTaxX34=","who":"{CANARIES[0]}"}}'},
            {"_extra": f'{{"_links":{{"nextPage":"{CANARIES[2]}"}}}}'},
        ],
        metrics={"failing_rows": 2},
    )


def session(duration: float | None, *, on: int = 0, lasted: float = 60) -> Row:
    started = START + timedelta(days=on)
    ended = started + timedelta(seconds=lasted)
    return {"_day": day(on), "started_at": started, "ended_at": ended, "duration_seconds": duration}


def step(index: int, visitors: int, percent: float | None, *, funnel: str = "f", on: int = 0) -> Row:
    found: Row = {"_day": day(on), "funnel_id": funnel, "step_index": index, "visitors_count": visitors}
    return {**found, "percent_from_previous_step": percent}


CASES = [
    cursor("sessions"),
    cursor("visitors"),
    cursor("events"),
    Case(
        table="sessions",
        check="duration_is_in_seconds",
        holds=[session(58.0), session(57.0), session(60_000.0), session(None), session(2000.0, lasted=2)],
        breaks=[session(58_000.0, on=1), session(60_000.0, on=1), session(60.0, on=1)],
        days=(day(1),),
        metrics={"failing_rows": 3, "rows_in_milliseconds": 3},
    ),
    Case(
        table="sessions",
        check="country_is_iso3166",
        holds=[{"country_code": "CZ"}, {"country_code": None}],
        breaks=[{"country_code": "CS"}, {}],
        metrics={"failing_rows": 2},
    ),
    Case(
        table="funnels",
        check="step_percent_is_percent",
        holds=[
            step(2, 11, 68.75),
            step(1, 16, 100.0),
            step(3, 0, 0.0),
            step(1, 0, 0.0, funnel="g"),
            step(2, 5, None, funnel="g"),
        ],
        breaks=[step(1, 16, 1.0, on=1), step(2, 11, 0.6875, on=1), step(3, 0, 0.0, on=1)],
        days=(day(1),),
        metrics={"failing_rows": 2},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_check_finds_what_it_is_for_and_tells_no_value(case: Case) -> None:
    judge("smartlook", case)


def test_every_check_has_a_case() -> None:
    assert {(c.table, c.name) for c in checks_of("smartlook")} == {(c.table, c.check) for c in CASES}


def test_only_a_wrong_unit_keeps_days_from_the_marts() -> None:
    assert {c.name for c in checks_of("smartlook") if c.blocking} == {"duration_is_in_seconds"}
