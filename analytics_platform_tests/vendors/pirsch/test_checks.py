"""Pirsch's own checks: what holds and what breaks them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from analytics_platform_tests.vendors.lake_frames import Case, Row, checks_of, day, judge


def counts(rate: float | None, *, visitors: int = 20, sessions: int = 48, bounces: int = 12) -> Row:
    return {"visitors": visitors, "sessions": sessions, "bounces": bounces, "bounce_rate": rate}


def bounce_rate(table: str) -> Case:
    return Case(
        table=table,
        check="bounce_rate_is_over_sessions",
        # The document's own figures: 23 of 48 given as 0.4791, cut and not rounded.
        holds=[
            counts(0.25),
            counts(0.4791, bounces=23),
            counts(0.0, sessions=0, bounces=0, visitors=0),
            counts(None),
            {},
        ],
        breaks=[counts(0.6), counts(0.9)],
        metrics={"failing_rows": 2, "failing_rows_over_visitors": 1},
    )


def truncated(table: str, *flags: str, beside: Mapping[str, object] | None = None, answers: int = 1) -> Case:
    whole = [dict.fromkeys(flags, False), dict.fromkeys(flags)]
    return Case(
        table=table,
        check="breakdown_is_not_truncated",
        holds=whole,
        breaks=[{**dict.fromkeys(flags, False), flag: True, "_day": day(2), **(beside or {})} for flag in flags],
        days=(day(2),),
        metrics={"failing_rows": len(flags), "truncated_answers": answers},
    )


def goal(visitors: int, rate: float | None, *, on: int = 0) -> Row:
    return {"visitors": visitors, "cr": rate, "_day": day(on)}


def patterns(path_pattern: str | None, pattern: str | None) -> Row:
    return {"path_pattern": path_pattern, "pattern": pattern}


def value(dimension: str, name: str | None, *, parent: str = "", on: int = 0) -> Row:
    return {"dimension": dimension, "value": name, "parent_value": parent, "_day": day(on)}


CASES = [
    bounce_rate("daily_stats"),
    bounce_rate("hourly"),
    truncated("pages", "possibly_truncated", "entries_possibly_truncated", "exits_possibly_truncated"),
    truncated("breakdowns", "possibly_truncated", beside={"dimension": "city"}),
    truncated("events", "possibly_truncated"),
    truncated("goals", "possibly_truncated"),
    Case(
        table="goals",
        check="goal_rates_are_fractions",
        holds=[goal(10, 0.05), goal(1, 0.005), goal(0, 0.0), goal(7, None), goal(40, 0.2, on=1)],
        # 5.0 cannot be a fraction; 0.5 beside 0.05 for as many visitors is the same goal in percent.
        breaks=[goal(10, 5.0, on=2), goal(10, 0.05, on=3), goal(20, 0.1, on=3), goal(1, 0.5, on=3)],
        days=(day(2), day(3)),
        metrics={"failing_rows": 2},
    ),
    Case(
        table="goals",
        check="goal_patterns_are_not_swapped",
        holds=[patterns("/checkout/**", "(?i)^/checkout/.+$"), patterns("**", "^.*$"), patterns(None, None)],
        breaks=[patterns("(?i)^/checkout/.+$", "/checkout/**"), patterns("^/a$", None), patterns(None, "/a")],
        metrics={"failing_rows": 3},
    ),
    Case(
        table="breakdowns",
        check="os_versions_are_versions",
        holds=[value("os_version", "14", parent="iOS"), value("os_version", "", parent="Linux"), value("os", "")],
        breaks=[value("os_version", name, parent=name or "iOS", on=1) for name in ("", None, "Android")],
        days=(day(1),),
        metrics={"failing_rows": 3, "rows_with_version": 1},
    ),
    Case(
        table="breakdowns",
        check="country_is_iso3166",
        holds=[value("country", "de"), value("country", ""), value("country", None), value("language", "en")],
        breaks=[value("country", "en"), value("country", "jane.canary@example.com")],
        metrics={"failing_rows": 2, "rows_of_countries": 5},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_check_finds_what_it_is_for_and_tells_no_value(case: Case) -> None:
    judge("pirsch", case)


def test_every_check_has_a_case() -> None:
    assert {(c.table, c.name) for c in checks_of("pirsch")} == {(c.table, c.check) for c in CASES}


def test_no_check_keeps_days_from_the_marts() -> None:
    assert not any(check.blocking for check in checks_of("pirsch"))
