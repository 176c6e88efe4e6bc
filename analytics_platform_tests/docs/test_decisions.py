"""docs/decisions.md says what the seeds say."""

from __future__ import annotations

import re

import pytest

from analytics_platform_tests.docs.definitions import DECISIONS, END, START, replaced, rows, table

_DAYS = {"utc": "UTC", "site": "the domain's calendar", "snapshot": "the day of the snapshot"}


def test_the_definitions_are_in_step_with_the_seed() -> None:
    text = DECISIONS.read_text(encoding="utf-8")
    assert replaced(text) == text, "run `python -m analytics_platform_tests.docs.definitions`"


def test_every_definition_is_in_the_table() -> None:
    made = table()
    found = rows("metric_definitions")
    assert len(found) >= 60
    for row in found:
        assert row["definition"] in made
    assert made.count("\n| ") == len(found) // 2 + len({row["metric"] for row in found})


def test_a_page_without_its_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="marks"):
        replaced("# nothing here")
    with pytest.raises(ValueError, match="marks"):
        replaced(f"{START}\n{END}\n{START}\n{END}")


def test_the_time_zone_table_says_each_vendors_day_basis() -> None:
    text = DECISIONS.read_text(encoding="utf-8")
    section = re.search(r"## Whose day it is\n(.*?)\n## ", text, re.DOTALL)
    assert section is not None
    lines = [line for line in section[1].splitlines() if line.startswith("| ")]
    for vendor in rows("vendor_capabilities"):
        (line,) = [line for line in lines if line.startswith(f"| {vendor['vendor_name']} |")]
        assert _DAYS[vendor["partition_basis"]] in line
