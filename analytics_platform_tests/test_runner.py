"""The parts of a run, as `--json` tells them."""

from __future__ import annotations

from dataclasses import asdict

from analytics_platform.runner import RunParts


def test_each_second_of_a_run_is_in_one_field_and_what_nobody_claims_is_dagsters() -> None:
    told = {"requests": 20.0, "landing": 1.0, "lake": 4.0, "checks": 6.0, "dbt_models": 9.0, "publish": 3.0}
    parts = asdict(RunParts.of(told, 50.0))
    assert parts["dagster_seconds"] == 7.0
    assert parts["dbt_tests_seconds"] == 0.0
    summed = sum(seconds for name, seconds in parts.items() if name not in ("total_seconds", "overhead_seconds"))
    assert summed == parts["total_seconds"] == 50.0
    assert parts["overhead_seconds"] == 25.0
