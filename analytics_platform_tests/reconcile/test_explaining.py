"""Causes in words: ranking, what is left out, and that a guess is never told as a fact."""

from __future__ import annotations

from typing import Any

import pytest

from analytics_platform.reconcile.explaining import causes

STEPS = (
    "incomplete_partition",
    "day_boundary",
    "definition",
    "bots",
    "sampling",
    "consent",
    "tag_missing",
    "unexplained",
)


def parts(anchor: int = 1000, method: str = "remainder", **effects: float) -> list[dict[str, Any]]:
    """The eight rows of one gap; effects not given are 0."""
    gap = round(sum(effects.values()))
    return [
        {
            "site_key": "s",
            "stat_date": "2026-11-01",
            "metric": "sessions",
            "vendor": "one",
            "anchor_vendor": "other",
            "component": step,
            "step_number": number,
            "effect": effects.get(step, 0.0),
            "gap": gap,
            "anchor_value": anchor,
            "vendor_value": anchor + gap,
            "method": method,
        }
        for number, step in enumerate(STEPS, start=1)
    ]


def test_the_largest_comes_first_and_trifles_are_left_out() -> None:
    found = causes(parts(consent=-200.0, bots=90.0, definition=9.9, sampling=-10.0, unexplained=-150.0))
    assert [cause.component for cause in found] == ["consent", "unexplained", "bots", "sampling"]
    assert found[0].share_of_gap == pytest.approx(-200 / -260)
    assert found[2].share_of_gap is not None
    assert found[2].share_of_gap < 0


def test_equal_sizes_keep_the_order_of_the_steps() -> None:
    found = causes(list(reversed(parts(tag_missing=-50.0, definition=50.0))))
    assert [cause.component for cause in found] == ["definition", "tag_missing"]
    assert [cause.share_of_gap for cause in found] == [None, None]


@pytest.mark.parametrize("step", STEPS)
def test_every_component_has_a_sentence_with_its_number(step: str) -> None:
    (cause,) = causes(parts(**{step: -123.0}))
    assert "123 sessions" in cause.text
    assert cause.text.endswith(".")
    assert "{" not in cause.text


def test_what_is_not_known_is_called_so() -> None:
    (remainder,) = causes(parts(unexplained=-300.0))
    assert "unexplained" in remainder.text
    (silent,) = causes(parts(unexplained=-300.0, method="no_session_rows"))
    assert "cannot be taken apart" in silent.text


def test_more_than_the_anchor_is_not_blamed_on_consent() -> None:
    (cause,) = causes(parts(consent=80.0))
    assert "consent cannot do" in cause.text


def test_nothing_large_is_nothing_and_no_rows_are_nothing() -> None:
    assert causes(parts(bots=5.0)) == ()
    assert causes([]) == ()


def test_rows_of_two_gaps_are_refused() -> None:
    two = parts(bots=50.0)
    two[3] = two[3] | {"vendor": "another"}
    with pytest.raises(ValueError, match="more than one gap"):
        causes(two)
