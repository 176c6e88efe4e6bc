"""Frames as `Lake.frame` gives them, from the few values a test is about; and what every finding must keep to.

Belongs here: building frames with the lake's own types, canaries, the judgement on a finding. Does not belong here: any
vendor's rows.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import duckdb
import pandas as pd

from analytics_platform.core.tables import TableSpec
from analytics_platform.core.vendor_checks import Finding, VendorCheck

CANARIES = ("jane.canary@example.com", "203.0.113.77", "accessResourceKey=2e1a58")
"""In every text column a test leaves alone: what a finding must never repeat."""

FIRST_DAY = date(2026, 10, 5)
Row = Mapping[str, object]


def day(number: int) -> date:
    """The so many-th day of a test's range."""
    return FIRST_DAY + timedelta(days=number)


def lake_frame(spec: TableSpec, rows: Sequence[Row]) -> pd.DataFrame:
    """Rows of one site, on `day(0)` unless they say another `_day`; numbers they do not name are NULL."""
    columns = spec.all_columns
    with duckdb.connect() as engine:
        engine.execute("CREATE TABLE t (" + ", ".join(f'"{c.name}" {c.type}' for c in columns) + ")")
        for row in rows:
            unknown = set(row) - {c.name for c in columns}
            assert not unknown, f"{spec.qualified_name} has no {unknown}"
            values = [row.get(c.name, _default(c.name, c.type)) for c in columns]
            engine.execute(f"INSERT INTO t VALUES ({', '.join('?' * len(values))})", values)
        return engine.execute("FROM t").df()


def _default(name: str, type_: str) -> object:
    if name == "_day":
        return FIRST_DAY
    return " ".join(CANARIES) if type_ == "VARCHAR" and name != "_extra" else None


@dataclass(frozen=True, kw_only=True)
class Case:
    """Rows that hold and rows that break a check, and on which days they do."""

    table: str
    check: str
    holds: Sequence[Row]
    breaks: Sequence[Row]
    days: Sequence[date] = (FIRST_DAY,)
    metrics: Mapping[str, int | float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.table}.{self.check}"


def checks_of(vendor: str) -> Sequence[VendorCheck]:
    return tuple(importlib.import_module(f"analytics_platform.vendors.{vendor}.checks").CHECKS)


def tables_of(vendor: str) -> dict[str, TableSpec]:
    specs: Any = importlib.import_module(f"analytics_platform.vendors.{vendor}.tables").TABLES
    return {spec.name: spec for spec in specs}


def judge(vendor: str, case: Case) -> None:
    """The case's good rows pass, its bad rows fail on the right days, and neither finding tells a row's value."""
    (check,) = [c for c in checks_of(vendor) if (c.table, c.name) == (case.table, case.check)]
    spec = tables_of(vendor)[case.table]
    held = check.run(lake_frame(spec, case.holds))
    assert held.passed, held.description
    assert held.failing_days == ()
    broken = check.run(lake_frame(spec, [*case.holds, *case.breaks]))
    assert not broken.passed
    assert list(broken.failing_days) == list(case.days)
    assert {name: broken.metrics[name] for name in case.metrics} == dict(case.metrics)
    for found in (held, broken):
        tells_no_value(found)
    assert broken.description.count(". ") >= 1, "it says what is wrong, and then what to do"


def tells_no_value(found: Finding) -> None:
    text = f"{found.description} {dict(found.metrics)}"
    assert not [canary for canary in CANARIES if canary in text]
    assert all(isinstance(number, int | float) for number in found.metrics.values())
