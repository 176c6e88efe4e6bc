"""Every second belongs to exactly one day, whatever a zone does to its clocks."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics_platform.core.partitions import (
    contiguous,
    day_ends_at,
    partition_key,
    split_key,
    today,
    vendor_partitions,
)
from analytics_platform.core.tables import TableSpec

BASE = {"vendor": "v", "name": "t", "description": "", "key": (), "columns": (), "wire": {}, "calls": ()}
UTC_DAYS = TableSpec(**BASE)  # type: ignore[arg-type]
SITE_DAYS = TableSpec(**BASE, day_basis="site")  # type: ignore[arg-type]

ZONES = sorted(zoneinfo.available_timezones() - {"localtime", "Factory"})
DAYS = st.dates(date(2024, 1, 1), date(2027, 12, 31))


@given(DAYS, st.text(st.sampled_from("abcxyz019_-"), min_size=1, max_size=30))
def test_a_key_says_its_day_and_site(day: date, site: str) -> None:
    assert split_key(partition_key(day, site)) == (day, site)


def test_partitions_are_day_by_site_up_to_and_with_today() -> None:
    definition = vendor_partitions(date(2026, 11, 19), ["shop", "blog"])
    keys = definition.get_partition_keys(current_time=datetime(2026, 11, 21, 10, tzinfo=UTC))
    assert sorted(split_key(key) for key in keys) == [
        (date(2026, 11, day), site) for day in (19, 20, 21) for site in ("blog", "shop")
    ]
    assert isinstance(definition, dg.MultiPartitionsDefinition)


@given(st.lists(DAYS, max_size=12))
def test_contiguous_runs_are_whole_ascending_and_as_few_as_possible(days: list[date]) -> None:
    runs = list(contiguous(days))
    assert [day for run in runs for day in run] == sorted(set(days))
    for run in runs:
        assert run == [run[0] + timedelta(days=n) for n in range(len(run))]
    for before, after in pairwise(runs):
        assert after[0] - before[-1] > timedelta(days=1)


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", date(2026, 3, 29), 23),
        ("Europe/Berlin", date(2026, 10, 25), 25),
        ("US/Pacific", date(2026, 3, 8), 23),
        ("Australia/Lord_Howe", date(2026, 4, 5), 24.5),
        ("Asia/Beirut", date(2026, 3, 29), 23),
        ("Pacific/Apia", date(2011, 12, 30), 0),
        ("UTC", date(2026, 6, 1), 24),
    ],
)
def test_the_length_of_a_local_day(zone: str, day: date, hours: float) -> None:
    begins = day_ends_at(SITE_DAYS, day - timedelta(days=1), zone)
    assert day_ends_at(SITE_DAYS, day, zone) - begins == timedelta(hours=hours)
    assert day_ends_at(UTC_DAYS, day, zone) == datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(ZONES), st.datetimes(datetime(2024, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC)))  # noqa: DTZ001
def test_every_instant_is_in_exactly_one_day(zone: str, instant: datetime) -> None:
    for spec in (UTC_DAYS, SITE_DAYS):
        day = today(spec, instant, zone)
        assert day_ends_at(spec, day - timedelta(days=1), zone) <= instant < day_ends_at(spec, day, zone)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(ZONES), DAYS)
def test_days_follow_each_other_without_gap_or_overlap(zone: str, day: date) -> None:
    ends = [day_ends_at(SITE_DAYS, day + timedelta(days=n), zone) for n in range(3)]
    assert ends == sorted(ends)
    assert today(SITE_DAYS, ends[0] - timedelta(microseconds=1), zone) <= day
    assert ends[0].tzinfo == ZoneInfo("UTC")
