"""Schema compatibility: a field comes, goes, is renamed, is something else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from analytics_platform.core.checks import partition_profiles, run_suites
from analytics_platform.core.errors import SchemaMismatch
from analytics_platform.core.fetch import FetchOutcome
from analytics_platform.sandbox import faults
from analytics_platform_tests.acceptance.case import CASES, VendorCase
from analytics_platform_tests.acceptance.rig import SITE, Bench, Rig, Row, done

pytestmark = pytest.mark.parametrize("case", CASES, ids=str)


def drifted(bench: Bench, rig: Rig, change: str, **how: Any) -> FetchOutcome:
    drift = rig.case.drift
    fault = faults.drift(change, how.pop("field", drift.field), at=drift.at, **how)
    bench.sandbox.faults.add(rig.case.vendor, rig.case.route, fault=fault, times=1000)
    return rig.probe(tables=[rig.case.probe_table])


def without(rows: list[Row], names: frozenset[str]) -> list[Row]:
    return [{name: value for name, value in row.items() if name not in names} for row in rows]


def extras(rows: list[Row]) -> list[Any]:
    return [json.loads(row["_extra"]) if row["_extra"] else None for row in rows]


def test_an_added_field_is_kept(bench: Bench, case: VendorCase, rig: Rig, reading: Rig) -> None:
    """Unknown is not lost: it travels in `_extra`, is named in the partition's facts, and changes nothing else."""
    outcome = done(drifted(bench, rig, "add", field="brand_new", value={"tier": "gold"}))
    ((partition,),) = outcome.decoded.values()
    assert partition.extra_fields == ("brand_new",)
    rows, before = rig.rows(case.probe_table), reading.rows(case.probe_table)
    assert [extra for extra in extras(rows) if extra != {"brand_new": {"tier": "gold"}}] == []
    assert without(rows, frozenset({"_extra"})) == without(before, frozenset({"_extra"}))


def test_a_removed_field_is_null(bench: Bench, case: VendorCase, rig: Rig, reading: Rig) -> None:
    """Missing is NULL, never a default that looks like a value; the other columns do not move."""
    done(drifted(bench, rig, "remove"))
    rows, before = rig.rows(case.probe_table), reading.rows(case.probe_table)
    assert {row[name] for row in rows for name in case.drift.columns} == {None}
    assert {row[name] for row in before for name in case.drift.columns} != {None}
    assert without(rows, case.drift.columns) == without(before, case.drift.columns)


def test_a_renamed_field_is_both(bench: Bench, case: VendorCase, rig: Rig, reading: Rig) -> None:
    """The old name is missing and the new one unknown: NULL, and every value of it kept to be declared and replayed."""
    done(drifted(bench, rig, "rename", to="renamed"))
    rows, before = rig.rows(case.probe_table), reading.rows(case.probe_table)
    assert {row[name] for row in rows for name in case.drift.columns} == {None}
    assert [set(extra) for extra in extras(rows) if set(extra) != {"renamed"}] == []
    assert without(rows, case.drift.columns | {"_extra"}) == without(before, case.drift.columns | {"_extra"})


def test_a_retyped_field_is_flagged(bench: Bench, case: VendorCase, rig: Rig) -> None:
    """A number that became text stops the decode and names the field; the pages are kept, and once the vendor has
    mended it the day is whole again.
    """
    outcome = drifted(bench, rig, "retype", retype="text")
    assert isinstance(outcome.error, SchemaMismatch), outcome.error
    assert [name for name in (case.drift.field, *case.drift.columns) if name in str(outcome.error)]
    assert outcome.decoded == {}
    assert outcome.pages > 0, "landed, so a declaration mends it without a request"
    bench.sandbox.faults.clear()
    done(rig.probe(refresh=True, tables=[case.probe_table]))
    assert rig.rows(case.probe_table) == bench.reading(case).rows(case.probe_table)


def test_a_field_that_became_null_is_judged_by_its_declaration(bench: Bench, case: VendorCase, rig: Rig) -> None:
    """NULL where a value may be missing passes; where it may not, a blocking check keeps the day from the marts."""
    outcome = done(drifted(bench, rig, "retype", retype="null"))
    spec = case.probe_table
    ((partition,),) = outcome.decoded.values()
    profiles = partition_profiles([partition], outcome.provisional)
    verdicts = run_suites(spec, rig.lake.frame(spec, SITE, [partition.day]), profiles, {})
    blocking = [verdict.name for verdict in verdicts if verdict.blocking and not verdict.passed]
    needed = [name for name in case.drift.columns if not spec.column(name).nullable]
    assert blocking == (["values_are_valid"] if needed else [])
