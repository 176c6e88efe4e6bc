"""Kissmetrics' own checks: what holds and what breaks them."""

from __future__ import annotations

import pytest

from analytics_platform_tests.vendors.lake_frames import Case, checks_of, judge

CASES = [
    Case(
        table="metrics",
        check="metric_status_is_text_or_boolean",
        holds=[{"status": value} for value in ("true", "False", "pending", "in progress", None)],
        breaks=[{"status": value} for value in ("1", "", '{"state":"pending"}', '["pending"]')] + [{}],
        metrics={"failing_rows": 5, "boolean_statuses": 2, "word_statuses": 2},
    ),
    Case(
        table="products",
        check="product_timezone_is_known",
        holds=[{"timezone": "US/Pacific"}, {"timezone": "Europe/Berlin"}, {"timezone": "UTC"}],
        breaks=[{"timezone": "Pacific Time (US & Canada)"}, {"timezone": None}, {}],
        metrics={"failing_rows": 3, "products_without_timezone": 1},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_check_finds_what_it_is_for_and_tells_no_value(case: Case) -> None:
    judge("kissmetrics", case)


def test_every_check_has_a_case() -> None:
    assert {(c.table, c.name) for c in checks_of("kissmetrics")} == {(c.table, c.check) for c in CASES}


def test_no_check_keeps_days_from_the_marts() -> None:
    assert not any(check.blocking for check in checks_of("kissmetrics"))
