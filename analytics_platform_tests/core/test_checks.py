"""Suites built from a table spec: each rule fails on the day that breaks it, and no value of a row comes out."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest

from analytics_platform.core.checks import CHECK_NAMES, PartitionProfile, SuiteOutcome, partition_profiles, run_suites
from analytics_platform.core.tables import Column, Sensitivity, TableSpec

CANARY = "canary.alice@example.com"
FIRST = date(2026, 11, 1)
DAYS = [FIRST + timedelta(days=n) for n in range(3)]
ROWS_A_DAY = 40

SPEC = TableSpec(
    vendor="demo",
    name="visits",
    description="One row per visit.",
    key=("site_id", "visit_id"),
    wire={},
    calls=("visits",),
    anchor="started_at",
    minimum_rows=1,
    columns=(
        Column(name="site_id", type="BIGINT", description="Site.", nullable=False),
        Column(name="visit_id", type="VARCHAR", description="Visit.", nullable=False),
        Column(name="email", type="VARCHAR", description="E-mail.", sensitivity=Sensitivity.PERSONAL, nullable=False),
        Column(name="started_at", type="TIMESTAMP", description="Start.", nullable=False),
        Column(name="stat_date", type="DATE", description="Day."),
        Column(name="duration_seconds", type="DOUBLE", description="Length.", minimum=0, maximum=86_400),
        Column(name="page_count", type="BIGINT", description="Pages.", minimum=1),
        Column(name="is_new", type="BOOLEAN", description="First visit."),
        Column(name="device", type="VARCHAR", description="Device.", allowed=("desktop", "mobile")),
        Column(name="tags", type="VARCHAR[]", description="Tags."),
    ),
)


def good_frame(days: int = 3, rows_a_day: int = ROWS_A_DAY) -> Any:
    """As `Lake.frame` reads it: DuckDB to pandas, NULLs among the integers, lists, and nobody's real address."""
    with duckdb.connect() as engine:
        return engine.execute(
            f"""
            SELECT 7::BIGINT AS site_id, 'v' || i AS visit_id, '{CANARY}' AS email,
                TIMESTAMP '2026-11-01 20:00' + to_days((i % {days})::INTEGER) AS started_at,
                DATE '2026-11-01' AS stat_date, (i % 600)::DOUBLE AS duration_seconds,
                CASE WHEN i % 7 = 0 THEN NULL ELSE i + 1 END::BIGINT AS page_count,
                CASE WHEN i % 3 = 0 THEN NULL ELSE true END AS is_new,
                CASE WHEN i % 5 = 0 THEN NULL ELSE 'mobile' END AS device, ['a'] AS tags,
                'shop' AS _site, DATE '2026-11-01' + (i % {days})::INTEGER AS _day,
                TIMESTAMP '2026-11-21' AS _landed_at, 'run' AS _run_id, NULL::VARCHAR AS _extra
            FROM range({days * rows_a_day}) AS t(i) ORDER BY i
            """
        ).df()


def at(day: date, hour: int) -> datetime:
    """A naive UTC instant, as the lake's anchors are."""
    return datetime.combine(day, clock_time(hour))


def good_profiles(days: int = 3, **changes: Any) -> list[PartitionProfile]:
    return [
        PartitionProfile(**{"day": day, "rows": ROWS_A_DAY, "newest": at(day, 20)} | changes)
        for day in (FIRST + timedelta(days=n) for n in range(days))
    ]


def run(frame: Any, profiles: Any = None, history: Any = None, spec: TableSpec = SPEC) -> dict[str, SuiteOutcome]:
    outcomes = run_suites(spec, frame, good_profiles() if profiles is None else profiles, history or {})
    assert tuple(outcome.name for outcome in outcomes) == tuple(CHECK_NAMES)
    for outcome in outcomes:
        assert outcome.blocking == CHECK_NAMES[outcome.name][0]
        assert all(isinstance(value, int | float) for value in outcome.metrics.values())
        assert all(isinstance(v, str | int | float | bool) for row in outcome.table for v in row.values())
    return {outcome.name: outcome for outcome in outcomes}


def failing(outcomes: dict[str, SuiteOutcome]) -> dict[str, tuple[date, ...]]:
    return {name: outcome.failing_days for name, outcome in outcomes.items() if not outcome.passed}


def test_importing_the_module_imports_neither_pandas_nor_great_expectations() -> None:
    code = (
        "import sys, analytics_platform.core.checks\n"
        "print(sorted({'pandas', 'great_expectations', 'dagster'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_good_partitions_pass_everything() -> None:
    outcomes = run(good_frame())
    assert failing(outcomes) == {}
    assert outcomes["keys_are_unique"].severity == "error"
    assert outcomes["volume_is_usual"].severity == "warning"
    assert outcomes["values_are_valid"].metrics["rows"] == 3 * ROWS_A_DAY
    assert "120 rows, 3 days" in outcomes["values_are_valid"].description


def repeat_a_key(frame: Any) -> Any:
    frame.loc[4, "visit_id"] = frame.loc[1, "visit_id"]
    return frame


def drop_an_email(frame: Any) -> Any:
    frame.loc[4, "email"] = None
    return frame


def negative_duration(frame: Any) -> Any:
    frame.loc[4, "duration_seconds"] = -1.0
    return frame


def endless_duration(frame: Any) -> Any:
    frame.loc[4, "duration_seconds"] = 1e9
    return frame


def no_pages(frame: Any) -> Any:
    frame.loc[4, "page_count"] = 0
    return frame


def unknown_device(frame: Any) -> Any:
    frame.loc[4, "device"] = CANARY
    return frame


@pytest.mark.parametrize(
    ("damage", "check", "failing_rows"),
    [
        (repeat_a_key, "keys_are_unique", 2),
        (drop_an_email, "values_are_valid", 1),
        (negative_duration, "values_are_valid", 1),
        (endless_duration, "values_are_valid", 1),
        (no_pages, "values_are_valid", 1),
        (unknown_device, "vocabulary_is_known", 1),
    ],
)
def test_a_broken_row_fails_its_check_on_its_day(damage: Callable[[Any], Any], check: str, failing_rows: int) -> None:
    outcomes = run(damage(good_frame()))
    assert failing(outcomes) == {check: (DAYS[1],)}
    assert outcomes[check].metrics["failing_rows"] == failing_rows
    (row,) = [row for row in outcomes[check].table if not row["passed"]]
    assert row["unexpected_count"] == failing_rows
    assert "2026-11-02" in outcomes[check].description
    assert "tables.py" in outcomes[check].description
    assert CANARY not in str(outcomes)


def test_the_same_frame_twice_after_another_gives_the_same_verdict() -> None:
    """Great Expectations keeps the last frame it saw; ours must be the one it judges."""
    assert failing(run(good_frame())) == {}
    assert failing(run(negative_duration(good_frame()))) != {}
    assert failing(run(good_frame())) == {}


@pytest.mark.parametrize(
    "damage",
    [
        lambda frame: frame.drop(columns=["device"]),
        lambda frame: frame[["visit_id", "site_id", *frame.columns[2:]]],
        lambda frame: frame.assign(surprise=1),
        lambda frame: frame.assign(duration_seconds=CANARY),
        lambda frame: frame.assign(started_at=CANARY),
        lambda frame: frame.drop(columns=["_day"]),
    ],
    ids=["missing", "reordered", "added", "text for number", "text for instant", "no day"],
)
def test_another_schema_fails_for_the_whole_range(
    damage: Callable[[Any], Any], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        outcomes = run(damage(good_frame()))
    assert not outcomes["schema_is_declared"].passed
    assert outcomes["schema_is_declared"].failing_days == ()
    shown = str(outcomes) + caplog.text + "".join(capfd.readouterr())
    assert CANARY not in shown


def test_what_cannot_be_evaluated_has_failed() -> None:
    outcomes = run(good_frame().assign(duration_seconds=CANARY))
    assert not outcomes["values_are_valid"].passed
    assert [r["column"] for r in outcomes["values_are_valid"].table if r["note"]] == ["duration_seconds"]
    assert "could not be checked" in outcomes["values_are_valid"].description


def test_an_empty_frame_fails_by_its_row_floor_alone() -> None:
    """M18: everything else passes vacuously."""
    outcomes = run(good_frame(rows_a_day=0), good_profiles(rows=0, newest=None))
    assert failing(outcomes) == {"rows_arrived": tuple(DAYS)}
    assert outcomes["rows_arrived"].blocking
    assert outcomes["rows_arrived"].metrics["min_rows_of_closed_day"] == 0


def test_an_open_day_may_be_empty() -> None:
    assert failing(run(good_frame(rows_a_day=0), good_profiles(rows=0, newest=None, is_closed=False))) == {}


@pytest.mark.parametrize(
    ("rows", "passes"),
    [(7, False), (8, True), (40, True), (200, True), (201, False)],
)
def test_volume_against_the_days_before(rows: int, passes: bool) -> None:
    history = {FIRST - timedelta(days=n): 40 for n in range(1, 29)} | {FIRST - timedelta(days=60): 1_000_000}
    outcomes = run(good_frame(1, rows), good_profiles(1, rows=rows), history)
    expected = {} if passes else {"volume_is_usual": (FIRST,)}
    assert {k: v for k, v in failing(outcomes).items() if k == "volume_is_usual"} == expected
    assert outcomes["volume_is_usual"].metrics["min_rows_vs_median"] == rows / 40


@pytest.mark.parametrize("history", [{}, {FIRST - timedelta(days=n): 4000 for n in range(1, 7)}])
def test_too_little_history_says_nothing_about_volume(history: dict[date, int]) -> None:
    outcomes = run(good_frame(1), good_profiles(1), history)
    assert outcomes["volume_is_usual"].passed
    assert "min_rows_vs_median" not in outcomes["volume_is_usual"].metrics


def test_earlier_days_of_the_range_are_history_too() -> None:
    profiles = [*good_profiles(9), PartitionProfile(day=FIRST + timedelta(days=9), rows=3)]
    assert failing(run(good_frame(), profiles)) == {"volume_is_usual": (FIRST + timedelta(days=9),)}


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"rows_with_extra": 1}, "vocabulary_is_known"),
        ({"duplicates": ROWS_A_DAY + 1}, "volume_is_usual"),
        ({"duplicates": ROWS_A_DAY}, None),
        ({"newest": at(date(2026, 10, 31), 12)}, "data_is_fresh"),
        ({"newest": at(date(2026, 11, 9), 0)}, "data_is_fresh"),
        ({"newest": at(date(2026, 11, 1), 5)}, None),
        ({"newest": at(date(2026, 11, 1), 5), "rows": 500}, "data_is_fresh"),
        ({"newest": at(date(2026, 11, 1), 13), "rows": 500}, None),
        ({"newest": at(date(2026, 11, 1), 5), "rows": 500, "is_closed": False}, None),
        ({"newest": date(2026, 11, 1)}, None),
        ({"newest": date(2026, 10, 20)}, "data_is_fresh"),
        ({"newest": None}, None),
    ],
)
def test_what_a_partition_profile_tells(changes: dict[str, Any], check: str | None) -> None:
    outcomes = run(good_frame(1), good_profiles(1, **changes))
    assert failing(outcomes) == ({check: (FIRST,)} if check else {})
    assert not any(outcome.blocking for outcome in outcomes.values() if not outcome.passed)


def test_profiles_of_written_partitions() -> None:
    def partition(day: date) -> Any:
        return SimpleNamespace(day=day, rows=3, rows_with_extra=1, duplicates=2, newest=None)

    now = datetime(2026, 11, 3, 15, tzinfo=UTC)
    profiles = partition_profiles([partition(day) for day in reversed(DAYS)], {*DAYS[1:]}, now=now)
    assert [p.day for p in profiles] == DAYS
    # The first day is final; the second is asked again but surely over; the third is today.
    assert [p.is_closed for p in profiles] == [True, True, False]
    assert (profiles[0].rows, profiles[0].rows_with_extra, profiles[0].duplicates) == (3, 1, 2)


def test_a_key_of_the_day_alone() -> None:
    spec = TableSpec(
        vendor="demo", name="totals", description="One row a day.", key=("_day",), wire={}, calls=("t",), columns=()
    )
    frame = good_frame(3, 1)[[column.name for column in spec.all_columns]]
    assert failing(run(frame, spec=spec)) == {}
    doubled = good_frame(3, 2)[[column.name for column in spec.all_columns]]
    assert failing(run(doubled, spec=spec)) == {"keys_are_unique": tuple(DAYS)}


def test_it_is_quick_and_leaves_the_process_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    frame, profiles = good_frame(30, 100), good_profiles(30)
    run(frame, profiles)
    show = warnings.showwarning
    started = time.perf_counter()
    for _ in range(5):
        run(frame, profiles)
    # Measured 0.08 s; the bound leaves room for a busy machine.
    assert (time.perf_counter() - started) / 5 < 0.5
    assert warnings.showwarning is show
    assert capfd.readouterr() == ("", "")  # no progress bars in the run's log


def test_great_expectations_sends_nothing_and_takes_no_warnings() -> None:
    """No telemetry client is loaded, its switch is off for versions that have one, warnings stay warnings."""
    code = (
        "import os, sys, logging, warnings, analytics_platform.core.checks as checks\n"
        "with checks._quietly():\n    checks._whole_frame()\n"
        "print('posthog' in sys.modules, os.environ['GX_ANALYTICS_ENABLED'],\n"
        "      warnings.showwarning is logging._showwarning)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "false", "False"]
