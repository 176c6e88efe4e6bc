"""How relations are replaced: at once or not at all, with the contract's columns, whatever was there before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from analytics_platform_tests.dbt_project.conftest import PROJECT, failures, run_dbt

Build = Callable[..., Any]
Models = dict[str, str]

_PROJECT = f"""
name: small
version: "1.0.0"
config-version: 2
profile: analytics_platform
macro-paths: ["{PROJECT}/macros"]
query-comment: ""
flags: {{send_anonymous_usage_stats: false}}
"""
_CONTRACT = """
models:
  - name: kept
    config: {contract: {enforced: true}}
    columns:
      - {name: b, data_type: VARCHAR}
      - {name: a, data_type: TYPE}
    data_tests: [{expression_holds: {expression: a > 0}}]
"""
_TEST = """
{% test expression_holds(model, expression) %} select * from {{ model }} where not ({{ expression }}) {% endtest %}
"""
_PYTHON = """
def model(dbt, session):
    dbt.config(materialized="table")
    return session.sql("select ROWS as n")
"""


@pytest.fixture
def build(tmp_path: Path) -> Build:
    project = tmp_path / "project"
    (project / "models").mkdir(parents=True)
    (project / "tests" / "generic").mkdir(parents=True)
    (project / "dbt_project.yml").write_text(_PROJECT)
    (project / "tests" / "generic" / "rules.sql").write_text(_TEST)

    def run(models: Models, *arguments: str) -> Any:
        for path in (project / "models").iterdir():
            path.unlink()
        for name, text in models.items():
            (project / "models" / name).write_text(text)
        command = ["build", *arguments]
        return run_dbt(command, tmp_path / "lake", tmp_path / "w.duckdb", tmp_path / "target", directory=project)

    return run


def rows(tmp_path: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(tmp_path / "w.duckdb"), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def as_table(select: str) -> str:
    return "{{ config(materialized='table') }} " + select


def as_view(select: str) -> str:
    return "{{ config(materialized='view') }} " + select


def test_a_contract_orders_the_columns_and_refuses_others(build: Build, tmp_path: Path) -> None:
    """In DuckDB's words or in others for the same type; what is there stays where it is refused."""
    for word in ("INTEGER", "int"):
        models = {"kept.sql": as_table("select 1 as a, 'x' as b"), "s.yml": _CONTRACT.replace("TYPE", word)}
        assert failures(build(models)) == []
        assert rows(tmp_path, "describe kept")[0][:2] == ("b", "VARCHAR")
    for select in ("select 1::bigint as a, 'x' as b", "select 1 as a", "select 1 as a, 'x' as b, 2 as c"):
        (failure,) = [
            text
            for text in failures(build({"kept.sql": as_table(select), "s.yml": models["s.yml"]}))
            if "error" in text
        ]
        assert "contract" in failure
        assert rows(tmp_path, "select * from kept") == [("x", 1)]


def test_a_build_that_fails_leaves_what_was_there(build: Build, tmp_path: Path) -> None:
    failing = "select case when n = 3 then error('no') else n end as a, 'x' as b from range(1, 5) as r(n)"
    for extra in ({}, {"s.yml": _CONTRACT.replace("TYPE", "BIGINT")}):
        assert failures(build({"kept.sql": as_table("select 7::bigint as a, 'x' as b"), **extra})) == []
        assert len(failures(build({"kept.sql": as_table(failing), **extra}))) > 0
        assert rows(tmp_path, "select a from kept") == [(7,)]


def test_a_model_may_change_its_kind(build: Build, tmp_path: Path) -> None:
    for number, kind in enumerate((as_view, as_table, as_table, as_view, as_view)):
        reader = {"reader.sql": as_view("select a + 1 as a from {{ ref('kept') }}")}
        assert failures(build({"kept.sql": kind(f"select {number} as a"), **reader})) == []
        assert rows(tmp_path, "select a from reader") == [(number + 1,)]


@pytest.mark.parametrize("kind", ["view", "table"])
@pytest.mark.parametrize("in_transaction", [True, False])
def test_hooks_run_before_and_after(build: Build, tmp_path: Path, kind: str, in_transaction: bool) -> None:
    """Where they are in the model's transaction, as they are by default, a failing one takes the model with it."""
    hook = "before_begin({0!r}), after_commit({1!r})" if not in_transaction else "{0!r}, {1!r}"
    before, after = hook.format("create or replace table told as select 1 as n", "insert into told select 2").split(
        ", "
    )

    def model(select: str, last: str) -> str:
        return f"{{{{ config(materialized={kind!r}, pre_hook={before}, post_hook={last}) }}}} {select}"

    assert failures(build({"kept.sql": model("select 1 as a", after)})) == []
    assert rows(tmp_path, "select a, n from kept, told order by n") == [(1, 1), (1, 2)]
    failed = failures(build({"kept.sql": model("select 2 as a", after.replace("told", "nowhere"))}))
    assert len(failed) == 1
    assert rows(tmp_path, "select a from kept") == [(1 if in_transaction else 2,)]


def test_what_python_makes_is_replaced_too(build: Build, tmp_path: Path) -> None:
    for number in (1, 2):
        assert failures(build({"made.py": _PYTHON.replace("ROWS", str(number))})) == []
        assert rows(tmp_path, "select n from made") == [(number,)]
        assert rows(tmp_path, "select table_name from information_schema.tables") == [("made",)]


def test_a_test_says_what_fails_and_can_keep_it(build: Build, tmp_path: Path) -> None:
    models = {
        "kept.sql": as_table("select n::integer as a, 'x' as b from range(-1, 3) as r(n)"),
        "s.yml": _CONTRACT.replace("TYPE", "INTEGER"),
    }
    (failure,) = failures(build(models))
    assert failure.startswith("fail expression_holds")
    assert "Got 2 results" in failure
    build(models, "--store-failures")
    ((kept,),) = rows(
        tmp_path, "select table_name from information_schema.tables where table_schema = 'dbt_test__audit'"
    )
    assert rows(tmp_path, f"select a from dbt_test__audit.{kept} order by a") == [(-1,), (0,)]
