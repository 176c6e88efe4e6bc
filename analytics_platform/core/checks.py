"""Great Expectations suites built from a `TableSpec`, run on the partitions just written.

Belongs here: which rules a table spec implies, running them on pandas frames, what a person reads when one fails.
Does not belong here: reading the lake (`core.lake`), Dagster results (`core.ingest`), rules over marts (dbt tests), any
vendor's name.

Two suites a table and site, each validated once over a whole range of days:

* *rows*: the rows themselves: schema, natural key, required values, ranges, vocabularies;
* *partitions*: one row a day, from `partition_profiles`: row floor, volume against the 28 days before, undeclared
  fields, dropped duplicates, newest instant. Not-null and range rules pass on an empty frame (RELIABILITY M18), so the
  row floor stands beside them and is always there.

Their expectations are reported as the checks of `CHECK_NAMES`; blocking ones keep the failing days from the marts.

No value of a row ever leaves this module: the result format is BOOLEAN_ONLY, and what is counted is counted here. Great
Expectations takes seconds to import and is imported on first use, with one ephemeral context a process (PRACTICE
section 6); it runs on pandas frames because its DuckDB route does not work on these versions.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.util
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from statistics import median
from typing import TYPE_CHECKING, Any, Final, Literal

from analytics_platform.core.tables import TableSpec

if TYPE_CHECKING:
    from types import ModuleType

    import pandas as pd

    from analytics_platform.core.lake import DecodedPartition

__all__ = [
    "CHECK_NAMES",
    "PartitionProfile",
    "SuiteOutcome",
    "days_in_words",
    "partition_profiles",
    "run_suites",
    "warm_up",
]

CHECK_NAMES: Final[Mapping[str, tuple[bool, str]]] = {
    "schema_is_declared": (True, "Every declared column is there, in order, with its type."),
    "keys_are_unique": (True, "No natural key occurs twice on the days written."),
    "values_are_valid": (True, "Required columns have a value, and numbers are within their declared bounds."),
    "rows_arrived": (True, "Each closed day has at least the rows this table must have."),
    "vocabulary_is_known": (False, "The vendor sent no value and no field that nobody declared."),
    "volume_is_usual": (False, "Rows a day are within 0.2 to 5 times the median of the 28 days before."),
    "data_is_fresh": (False, "The newest record of a day belongs to that day, and a busy day does not end at noon."),
}
"""Check name → (blocking, what it asserts). `run_suites` gives one outcome for each, in this order."""

_USUAL_VOLUME: Final = (0.2, 5.0)
_HISTORY_DAYS: Final = 28
_ENOUGH_HISTORY_DAYS: Final = 7
_LARGEST_DUPLICATE_SHARE: Final = 0.5
_BUSY_DAY_ROWS: Final = 100
_BUSY_DAY_LAG_HOURS: Final = 12.0
_SURELY_CLOSED_AFTER: Final = timedelta(hours=38)
"""From the start of a day as a UTC date: 24 hours, and 12 more west of Greenwich, and 2 to spare."""

_INTEGERS: Final = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
_INTEGER_DTYPES: Final = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_NULLABLE_INTEGER_DTYPES: Final = tuple(f"{sign}Int{bits}Dtype" for sign in ("", "U") for bits in (8, 16, 32, 64))
_INSTANT_DTYPES: Final = tuple(f"datetime64[{unit}]" for unit in ("s", "ms", "us", "ns"))
_PANDAS_TYPES: Final[Mapping[str, Sequence[str]]] = {
    # DuckDB 2 reads a column with NULLs into a nullable dtype, DuckDB 1 into float64.
    **dict.fromkeys(_INTEGERS, (*_INTEGER_DTYPES, *_NULLABLE_INTEGER_DTYPES, "float64")),
    "DOUBLE": ("float64", "Float64Dtype"),
    "FLOAT": ("float32", "float64", "Float32Dtype"),
    "TIMESTAMP": _INSTANT_DTYPES,
    "DATE": _INSTANT_DTYPES,
}
"""Types whose pandas form is a dtype of its own. The others are `object` there, and Parquet keeps them typed."""

_lock = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class SuiteOutcome:
    """One check of `CHECK_NAMES` over one site's range of days.

    Args:
        name: key of `CHECK_NAMES`.
        blocking: whether failing days stay out of the marts.
        failing_days: ascending; empty when nothing failed, or when the failure cannot be put down to days.
        description: plain English: what was found and, if it failed, what to do.
        metrics: numbers that the UI draws over time.
        table: one row an expectation: expectation, column, passed, unexpected_count, unexpected_percent. Holds no
            value of any row.
    """

    name: str
    blocking: bool
    passed: bool
    failing_days: tuple[date, ...]
    description: str
    metrics: Mapping[str, int | float]
    table: tuple[Mapping[str, str | int | float | bool | None], ...]

    @property
    def severity(self) -> Literal["error", "warning"]:
        return "error" if self.blocking else "warning"


@dataclass(frozen=True, kw_only=True)
class PartitionProfile:
    """One written partition in numbers. `newest`: the anchor column's largest value, a naive UTC instant or a date."""

    day: date
    rows: int
    rows_with_extra: int = 0
    duplicates: int = 0
    newest: datetime | date | None = None
    is_closed: bool = True


def partition_profiles(
    partitions: Iterable[DecodedPartition], provisional: Collection[date], *, now: datetime | None = None
) -> tuple[PartitionProfile, ...]:
    """Profiles of partitions as the lake wrote them, by day.

    Args:
        partitions: what one decode of one table and site wrote.
        provisional: days that will be asked again. One that is surely over counts as closed all the same: its rows may
            still change a little, yet they must be there.
        now: aware UTC instant, the current one by default.
    """
    over_before = (now or datetime.now(UTC)) - _SURELY_CLOSED_AFTER
    profiles = [
        PartitionProfile(
            day=partition.day,
            rows=partition.rows,
            rows_with_extra=partition.rows_with_extra,
            duplicates=partition.duplicates,
            newest=partition.newest,
            is_closed=partition.day not in provisional
            or datetime.combine(partition.day, time.min, tzinfo=UTC) <= over_before,
        )
        for partition in partitions
    ]
    return tuple(sorted(profiles, key=lambda profile: profile.day))


def run_suites(
    spec: TableSpec,
    frame: pd.DataFrame,
    profile: Sequence[PartitionProfile],
    history: Mapping[date, int],
    *,
    show: Callable[[Sequence[Any]], None] | None = None,
) -> tuple[SuiteOutcome, ...]:
    """Validate one site's range of days.

    Args:
        spec: the table.
        frame: all rows of the range, with the columns of `spec.all_columns` (as `Lake.frame` reads them).
        profile: from `partition_profiles`, one for each day of the range, also for days without rows.
        history: rows a day before the range (at most the last 28 are used), to know what is usual.
        show: is given Great Expectations' own results of the two suites, for its Data Docs (`core.data_docs`).

    Returns:
        One outcome for each of `CHECK_NAMES`, in that order. Expectations that cannot be evaluated count as failed.
    """
    import pandas as pd

    partitions = _partition_frame(spec, profile, history, pd)
    with _quietly():
        expectations = _great_expectations().expectations
        rows, row_verdicts = _validate(f"{spec.qualified_name} rows", frame, _row_rules(spec, expectations), "_day")
        days, day_verdicts = _validate(
            f"{spec.qualified_name} partitions", partitions, _partition_rules(spec, expectations), "partition_date"
        )
        if show is not None:
            show((rows, days))
    verdicts = [*row_verdicts, *day_verdicts]
    return tuple(_outcome(spec, name, verdicts, frame, partitions) for name in CHECK_NAMES)


# ----------------------------------------------------------------------------------------------------------- rules


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """One expectation, the check it counts for, and how to find the rows that break it (asked only after a failure)."""

    check: str
    expectation: Any
    subject: str
    broken: Callable[[pd.DataFrame], pd.Series[bool]] | None = None


@dataclass(frozen=True, kw_only=True)
class _Verdict:
    """What came of a rule. `failing_rows` counts rows of the suite's frame: records, or partitions."""

    rule: _Rule
    passed: bool
    evaluated: bool
    rows: int
    failing_rows: int = 0
    failing_days: frozenset[date] = field(default_factory=frozenset)


def _row_rules(spec: TableSpec, gxe: Any) -> list[_Rule]:
    names = [column.name for column in spec.all_columns]
    rules = [
        _Rule(
            check="schema_is_declared",
            subject="all columns",
            expectation=gxe.ExpectTableColumnsToMatchOrderedList(column_list=names, severity="critical"),
        ),
        _key_rule(spec, gxe),
    ]
    for column in spec.all_columns:
        name = column.name
        dtypes = _PANDAS_TYPES.get(column.type.upper())
        if dtypes is not None:
            expectation = gxe.ExpectColumnValuesToBeInTypeList(column=name, type_list=list(dtypes), severity="critical")
            rules.append(_Rule(check="schema_is_declared", subject=name, expectation=expectation))
        if not column.nullable:
            expectation = gxe.ExpectColumnValuesToNotBeNull(column=name, severity="critical")
            rules.append(_Rule(check="values_are_valid", subject=name, expectation=expectation, broken=_missing(name)))
        if column.minimum is not None or column.maximum is not None:
            low, high = column.minimum, column.maximum
            expectation = gxe.ExpectColumnValuesToBeBetween(
                column=name, min_value=low, max_value=high, severity="critical"
            )
            broken = _outside(name, low, high)
            rules.append(_Rule(check="values_are_valid", subject=name, expectation=expectation, broken=broken))
        if column.allowed:
            expectation = gxe.ExpectColumnValuesToBeInSet(
                column=name, value_set=list(column.allowed), severity="warning"
            )
            broken = _unknown(name, column.allowed)
            rules.append(_Rule(check="vocabulary_is_known", subject=name, expectation=expectation, broken=broken))
    return rules


def _key_rule(spec: TableSpec, gxe: Any) -> _Rule:
    # A partition is one site's day, and the natural key is unique within it.
    columns = [*dict.fromkeys((*spec.key, "_site", "_day"))]
    return _Rule(
        check="keys_are_unique",
        subject=", ".join(spec.key),
        expectation=gxe.ExpectCompoundColumnsToBeUnique(
            column_list=columns, ignore_row_if="never", severity="critical"
        ),
        broken=lambda frame: frame.duplicated(columns, keep=False),
    )


def _partition_rules(spec: TableSpec, gxe: Any) -> list[_Rule]:
    """Bounds on the columns of `_partition_frame`; a NULL there means that the rule does not apply to that day."""

    def bounded(check: str, column: str, low: float | None, high: float | None) -> _Rule:
        severity = "critical" if CHECK_NAMES[check][0] else "warning"
        return _Rule(
            check=check,
            subject=column,
            expectation=gxe.ExpectColumnValuesToBeBetween(
                column=column, min_value=low, max_value=high, severity=severity
            ),
            broken=_outside(column, low, high),
        )

    return [
        bounded("rows_arrived", "rows_of_closed_day", spec.minimum_rows, None),
        bounded("vocabulary_is_known", "undeclared_share", None, 0.0),
        bounded("volume_is_usual", "rows_vs_median", *_USUAL_VOLUME),
        bounded("volume_is_usual", "duplicate_share", None, _LARGEST_DUPLICATE_SHARE),
        bounded("data_is_fresh", "excess_lag_hours", None, 0.0),
        bounded("data_is_fresh", "lead_hours", None, 24.0),
    ]


def _missing(column: str) -> Callable[[pd.DataFrame], pd.Series[bool]]:
    return lambda frame: frame[column].isna()


def _outside(column: str, low: float | None, high: float | None) -> Callable[[pd.DataFrame], pd.Series[bool]]:
    def broken(frame: pd.DataFrame) -> pd.Series[bool]:
        values = frame[column]
        outside = values.isna() & False
        if low is not None:
            outside |= values < low
        if high is not None:
            outside |= values > high
        return outside

    return broken


def _unknown(column: str, allowed: Sequence[str]) -> Callable[[pd.DataFrame], pd.Series[bool]]:
    return lambda frame: frame[column].notna() & ~frame[column].isin(allowed)


def _partition_frame(
    spec: TableSpec, profile: Sequence[PartitionProfile], history: Mapping[date, int], pandas: ModuleType
) -> pd.DataFrame:
    counts = dict(history) | {each.day: each.rows for each in profile if each.is_closed}
    rows = []
    for each in profile:
        lag_hours, lead_hours = _lag_and_lead_hours(spec, each)
        allowed_lag_hours = _BUSY_DAY_LAG_HOURS if each.is_closed and each.rows >= _BUSY_DAY_ROWS else 24.0
        rows.append(
            {
                "partition_date": each.day,
                "rows_of_closed_day": each.rows if each.is_closed else None,
                "rows_vs_median": _ratio_to_usual(each, counts),
                "undeclared_share": each.rows_with_extra / each.rows if each.rows else None,
                "duplicate_share": each.duplicates / (each.rows + each.duplicates) if each.duplicates else 0.0,
                "excess_lag_hours": None if lag_hours is None else lag_hours - allowed_lag_hours - _zone_hours(spec),
                "lead_hours": None if lead_hours is None else lead_hours - _zone_hours(spec),
            }
        )
    columns = ["rows_of_closed_day", "rows_vs_median", "undeclared_share", "duplicate_share", "excess_lag_hours"]
    frame = pandas.DataFrame(rows, columns=["partition_date", *columns, "lead_hours"])
    typed: pd.DataFrame = frame.astype(dict.fromkeys([*columns, "lead_hours"], "float64"))
    return typed


def _ratio_to_usual(profile: PartitionProfile, counts: Mapping[date, int]) -> float | None:
    """Rows over the median of the 28 days before; None for an open day, too little history, or a quiet table."""
    first = profile.day - timedelta(days=_HISTORY_DAYS)
    before = [rows for day, rows in counts.items() if first <= day < profile.day]
    if not profile.is_closed or len(before) < _ENOUGH_HISTORY_DAYS:
        return None
    usual = median(before)
    return profile.rows / usual if usual > 0 else None


def _lag_and_lead_hours(spec: TableSpec, profile: PartitionProfile) -> tuple[float | None, float | None]:
    """Hours from the newest record to the end of its day, and the reverse; None where the table has no such instant."""
    if profile.newest is None or spec.day_basis == "snapshot" or not profile.is_closed:
        return None, None
    if not isinstance(profile.newest, datetime):
        # A date says which day, not which hour: on its day it is neither late nor early.
        return 24.0 * (profile.day - profile.newest).days, 24.0 * (profile.newest - profile.day).days
    ends_at = datetime.combine(profile.day + timedelta(days=1), time.min)
    hours = (ends_at - profile.newest.replace(tzinfo=None)) / timedelta(hours=1)
    return hours, -hours


def _zone_hours(spec: TableSpec) -> float:
    """How far a local day may be from the UTC day of the same date."""
    return 14.0 if spec.day_basis == "site" else 0.0


# ------------------------------------------------------------------------------------------------------ validation


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """One thread at a time, without the package's warnings, and with the process's own warnings left as they were."""
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.captureWarnings(capture=False)  # its import sends every warning of the process to a logger


def warm_up() -> None:
    """Import Great Expectations and make its context, for a process that will validate (`core.checking`)."""
    with _quietly():
        _whole_frame()
    importlib.import_module("pandas")


@lru_cache(maxsize=1)
def _great_expectations() -> Any:
    """The package, imported once a process with its telemetry off before the first byte of it runs."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    # It logs exceptions with their text, and their text may quote a value of the frame.
    logging.getLogger("great_expectations").setLevel(logging.CRITICAL + 1)
    _load_when_used("scipy.stats")
    import great_expectations
    import great_expectations.expectations

    return great_expectations


def _load_when_used(name: str) -> None:
    """Put off a submodule that Great Expectations imports for two expectations nobody uses here: a third of the time
    its own import takes.
    """
    parent = importlib.import_module(name.rpartition(".")[0])
    found = importlib.util.find_spec(name)
    if name in sys.modules or found is None or found.loader is None:
        return
    found.loader = importlib.util.LazyLoader(found.loader)
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    # `from parent import name` finds it here; asked of sys.modules it would be loaded.
    setattr(parent, name.rpartition(".")[2], module)


@lru_cache(maxsize=1)
def _whole_frame() -> Any:
    """The batch definition every frame is validated through: one context a process, nothing written to disk."""
    from great_expectations.data_context.types.base import ProgressBarsConfig
    from great_expectations.execution_engine import pandas_execution_engine

    # A fingerprint nobody reads: it pickles the whole frame twice a validation, four fifths of the time it takes.
    pandas_execution_engine.hash_pandas_dataframe = lambda _frame, **_: "not computed"
    _remember_configurations()
    context = _great_expectations().get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("lake").add_dataframe_asset("range")
    return asset.add_batch_definition_whole_dataframe("whole frame")


_configurations: dict[int, tuple[Any, Any]] = {}
"""By id: an expectation that is being validated, so that no other takes its id, and its configuration."""


def _remember_configurations() -> None:
    """Work out an expectation's configuration once a validation. The package does so each time it asks for one of its
    arguments, 900 times a suite and half of the time a validation takes; meanwhile no expectation changes.
    """
    from great_expectations.expectations.expectation import Expectation

    worked_out: Callable[[Any], Any] = vars(Expectation)["configuration"].fget

    def remembered(self: Any) -> Any:
        if id(self) not in _configurations:
            _configurations[id(self)] = (self, worked_out(self))
        configuration = copy.copy(_configurations[id(self)][1])
        # Whoever asks may write into the arguments.
        configuration._kwargs = dict(configuration._kwargs)
        return configuration

    setattr(Expectation, "configuration", property(remembered))  # noqa: B010  (it is declared read-only)


def _validate(
    suite_name: str, frame: pd.DataFrame, rules: Sequence[_Rule], day_column: str
) -> tuple[Any, list[_Verdict]]:
    """Great Expectations' result, and ours: one verdict a rule."""
    gx = _great_expectations()
    definition = _whole_frame()
    for number, rule in enumerate(rules):
        rule.expectation.meta = {"rule": number}
    suite = gx.ExpectationSuite(name=suite_name, expectations=[rule.expectation for rule in rules])
    try:
        batch = definition.get_batch(batch_parameters={"dataframe": frame})
        _configurations.clear()
        result = batch.validate(suite, result_format="BOOLEAN_ONLY")
    finally:
        _configurations.clear()
        # The engine would keep the frame until the next one comes.
        definition.data_asset.datasource.get_execution_engine().batch_manager._batch_data_cache.clear()
    for each in result.results:
        if each.expectation_config.type == "expect_table_columns_to_match_ordered_list":
            # BOOLEAN_ONLY leaves it out, and the page renderer orders its columns by it. Names are no values.
            each.result["observed_value"] = list(frame.columns)
    return result, [
        _verdict(rules[each.expectation_config.meta["rule"]], each, frame, day_column) for each in result.results
    ]


def _verdict(rule: _Rule, result: Any, frame: pd.DataFrame, day_column: str) -> _Verdict:
    passed = bool(result.success)
    evaluated = not _raised(result.exception_info)
    if passed or rule.broken is None or not evaluated:
        return _Verdict(rule=rule, passed=passed, evaluated=evaluated, rows=len(frame))
    broken = rule.broken(frame).fillna(value=False).astype(bool)
    days = frame.loc[broken, day_column].dropna() if day_column in frame else ()
    return _Verdict(
        rule=rule,
        passed=False,
        evaluated=True,
        rows=len(frame),
        failing_rows=int(broken.sum()),
        failing_days=frozenset(_as_date(day) for day in set(days)),
    )


def _raised(exception_info: Any) -> bool:
    """Great Expectations reports one exception, or one for each metric it needed."""
    if not isinstance(exception_info, Mapping):
        return False
    if "raised_exception" in exception_info:
        return bool(exception_info["raised_exception"])
    return any(_raised(each) for each in exception_info.values())


def _as_date(value: Any) -> date:
    if isinstance(value, datetime):  # pandas' Timestamp is one
        return value.date()
    if isinstance(value, date):
        return value
    raise TypeError(f"the day column holds a {type(value).__name__}")


# --------------------------------------------------------------------------------------------------------- outcomes


def _outcome(
    spec: TableSpec, name: str, verdicts: Sequence[_Verdict], frame: pd.DataFrame, partitions: pd.DataFrame
) -> SuiteOutcome:
    mine = [verdict for verdict in verdicts if verdict.rule.check == name]
    failed = [verdict for verdict in mine if not verdict.passed]
    days = tuple(sorted({day for verdict in failed for day in verdict.failing_days}))
    if any(not verdict.failing_days for verdict in failed):
        days = ()  # one failure concerns the whole range
    blocking = CHECK_NAMES[name][0]
    return SuiteOutcome(
        name=name,
        blocking=blocking,
        passed=not failed,
        failing_days=days,
        description=_explain(spec, name, failed, days) if failed else _reassure(name, len(frame), len(partitions)),
        metrics={
            "rows": len(frame),
            "days": len(partitions),
            "expectations": len(mine),
            "failed_expectations": len(failed),
            **_numbers(name, failed, partitions),
        },
        table=tuple(_table_row(verdict) for verdict in mine),
    )


def _table_row(verdict: _Verdict) -> Mapping[str, str | int | float | bool | None]:
    share = 100.0 * verdict.failing_rows / verdict.rows if verdict.rows else 0.0
    return {
        "expectation": str(verdict.rule.expectation.expectation_type),
        "column": verdict.rule.subject,
        "passed": verdict.passed,
        "unexpected_count": verdict.failing_rows,
        "unexpected_percent": round(share, 4),
        "note": "" if verdict.evaluated else "could not be evaluated",
    }


def _numbers(name: str, failed: Sequence[_Verdict], partitions: pd.DataFrame) -> dict[str, int | float]:
    numbers: dict[str, int | float] = {}
    if name in ("keys_are_unique", "values_are_valid", "vocabulary_is_known"):
        of_rows = [v for v in failed if v.rule.subject not in partitions]
        numbers["failing_rows"] = max((v.failing_rows for v in of_rows), default=0)
    for check, column, statistic in (
        ("rows_arrived", "rows_of_closed_day", "min"),
        ("vocabulary_is_known", "undeclared_share", "max"),
        ("volume_is_usual", "rows_vs_median", "min"),
        ("volume_is_usual", "rows_vs_median", "max"),
        ("volume_is_usual", "duplicate_share", "max"),
    ):
        values = partitions[column].dropna()
        if check == name and len(values):
            numbers[f"{statistic}_{column}"] = round(float(getattr(values, statistic)()), 4)
    return numbers


_NEXT_STEP: Final[Mapping[str, str]] = {
    "schema_is_declared": (
        "The file was written by another version of the table: run `analytics-platform replay-landing` for "
        "these days, it costs no request."
    ),
    "keys_are_unique": (
        "The lake keeps one row a key, so the declared natural key or the decode is wrong: compare the key in "
        "tables.py with the landed pages, then run `analytics-platform replay-landing`."
    ),
    "values_are_valid": (
        "Look at the landed pages of these days; if the vendor really sends this, change the column in "
        "tables.py (nullable, minimum, maximum) and run `analytics-platform replay-landing`. Until then the "
        "days stay out of the marts."
    ),
    "rows_arrived": (
        "Check in the vendor's own screen whether the site was tracked on these days; if it was, materialise "
        "the partitions again with the tag analytics_platform/refresh=true. Until then the days stay out of "
        "the marts."
    ),
    "vocabulary_is_known": (
        "The vendor has added something: new values are kept as they are and new fields in `_extra`; declare "
        "them in tables.py."
    ),
    "volume_is_usual": (
        "Compare with the vendor's own screen: a tracking snippet may have been removed or doubled, or pages "
        "may be missing. If it is real traffic, nothing is to be done."
    ),
    "data_is_fresh": (
        "The day may have been cut short or shifted: compare the site's timezone in sites.yaml with the "
        "vendor's, and materialise the day again if records are missing."
    ),
}


def _explain(spec: TableSpec, name: str, failed: Sequence[_Verdict], days: Sequence[date]) -> str:
    """What was found, where, what to do. Names columns and counts, never values."""
    found = "; ".join(_finding(name, verdict) for verdict in failed[:4])
    more = f"; and {len(failed) - 4} more" if len(failed) > 4 else ""
    when = f" on {days_in_words(days)}" if days else ""
    return f"{spec.qualified_name}{when}: {found}{more}. {_NEXT_STEP[name]}"


_FINDINGS: Final[Mapping[str, str]] = {
    "rows_of_closed_day": "fewer rows than the table's floor",
    "undeclared_share": "fields that tables.py does not declare",
    "rows_vs_median": "rows outside 0.2 to 5 times the median of the 28 days before",
    "duplicate_share": "more than half of the records were repeats of others",
    "excess_lag_hours": "the newest record is long before the end of the day",
    "lead_hours": "the newest record is after the day",
}


def _finding(name: str, verdict: _Verdict) -> str:
    subject = verdict.rule.subject
    if not verdict.evaluated:
        return f"{subject} could not be checked (is the column there, with its declared type?)"
    if subject in _FINDINGS:
        return f"{_FINDINGS[subject]} ({_count(verdict.failing_rows, 'day')})"
    what = {
        "schema_is_declared": f"{subject} not as declared",
        "keys_are_unique": f"rows share a key ({subject})",
        "values_are_valid": f"{subject} is missing or out of bounds",
        "vocabulary_is_known": f"{subject} has unknown values",
    }[name]
    return (
        what if verdict.rule.broken is None else f"{what} ({_count(verdict.failing_rows, 'row')} of {verdict.rows:,})"
    )


def _reassure(name: str, rows: int, days: int) -> str:
    return f"{CHECK_NAMES[name][1]} ({_count(rows, 'row')}, {_count(days, 'day')})"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def days_in_words(days: Sequence[date]) -> str:
    """Up to three dates, or how many and their range."""
    if len(days) <= 3:
        return ", ".join(map(str, days))
    return f"{len(days)} days from {days[0]} to {days[-1]}"
