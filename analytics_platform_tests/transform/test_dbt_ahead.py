"""The dbt that waits: it builds what it is told with the environment it is told, and never outlives its use."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import duckdb
import pytest
import yaml

from analytics_platform.settings import Settings
from analytics_platform.transform.dbt_ahead import DbtAhead, hand_over, parse_folder
from analytics_platform.transform.project import dbt_variables, manifest_path
from analytics_platform_tests.transform.synthetic import settings_for

PROJECT = "name: tiny\nversion: '1.0.0'\nconfig-version: 2\nprofile: tiny\nmodel-paths: [models]\n"
PROFILE = """\
tiny:
  target: dev
  outputs:
    dev: {type: duckdb, path: "{{ env_var('ANALYTICS_PLATFORM_WAREHOUSE', 'target/warehouse.duckdb') }}"}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "dbt_project"
    (folder / "models").mkdir(parents=True)
    (folder / "dbt_project.yml").write_text(PROJECT, encoding="utf-8")
    (folder / "profiles.yml").write_text(PROFILE, encoding="utf-8")
    model = "select '{{ dbt_metadata_envs.get('WINDOW_START') }}' as window_start"
    (folder / "models" / "one.sql").write_text(model, encoding="utf-8")
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_for(tmp_path / "home")


def _order(settings: Settings, project: Path, select: str = "one") -> subprocess.Popen[bytes] | None:
    where = ["--project-dir", str(project), "--profiles-dir", str(project), "--target-path", str(project / "target")]
    environment = {
        **os.environ,
        **dbt_variables(settings),
        "DBT_LOG_FORMAT": "json",
        "DBT_ENV_CUSTOM_ENV_WINDOW_START": "2026-10-05",
    }
    return hand_over(settings, ["build", "--log-level-file", "none", *where, "--select", select], environment)


def _built(settings: Settings, project: Path) -> tuple[int, bytes]:
    """The exit code of what was ordered, and what it said."""
    process = _order(settings, project)
    assert process is not None
    said, _ = process.communicate()
    return process.returncode, said


def test_it_builds_with_the_variables_of_the_order_and_leaves_its_parse(settings: Settings, project: Path) -> None:
    with DbtAhead(settings, project) as ahead:
        ahead.begin()
        exit_code, said = _built(settings, project)
        assert exit_code == 0, said
        assert b'"LogModelResult"' in said
        assert b'"SQLQuery"' not in said, "nobody asked for what is for debugging"
        assert _order(settings, project) is None, "it builds once"
    with duckdb.connect(str(settings.home.warehouse), read_only=True) as connection:
        # The parse before the order knew no window.
        assert connection.execute("SELECT window_start FROM one").fetchall() == [("2026-10-05",)]
    assert (parse_folder(settings) / "partial_parse.msgpack").is_file()


def test_what_was_prepared_is_built_without_another_parse_on_the_lake_of_the_home(
    settings: Settings, project: Path
) -> None:
    location = "{{ env_var('ANALYTICS_PLATFORM_LAKE', 'lake-root-not-set-ANALYTICS_PLATFORM_LAKE') }}/rows.parquet"
    table = {"name": "rows", "config": {"meta": {"external_location": location}}}
    sources = {"version": 2, "sources": [{"name": "lake", "tables": [table]}]}
    (project / "models" / "sources.yml").write_text(yaml.safe_dump(sources), encoding="utf-8")
    (project / "models" / "one.sql").write_text("select n from {{ source('lake', 'rows') }}", encoding="utf-8")
    settings.home.lake.mkdir(parents=True)
    duckdb.sql(f"COPY (SELECT 42 AS n) TO '{settings.home.lake / 'rows.parquet'}'")
    manifest_path(settings, project)
    with DbtAhead(settings, project) as ahead:
        ahead.begin()
        exit_code, said = _built(settings, project)
        assert exit_code == 0, said
    with duckdb.connect(str(settings.home.warehouse), read_only=True) as connection:
        assert connection.execute("SELECT n FROM one").fetchall() == [(42,)]
    assert not (parse_folder(settings) / "partial_parse.msgpack").exists(), "it was parsed again"


def test_a_build_that_fails_ends_as_dbts_own_does(settings: Settings, project: Path) -> None:
    (project / "models" / "one.sql").write_text("select 1 / 'x' as x from nowhere", encoding="utf-8")
    with DbtAhead(settings, project) as ahead:
        ahead.begin()
        exit_code, said = _built(settings, project)
        assert exit_code == 1
        assert b"nowhere" in said


def test_a_parse_that_fails_is_told_by_the_build(settings: Settings, project: Path) -> None:
    (project / "models" / "one.sql").write_text("select * from {{ ref('not_there') }}", encoding="utf-8")
    with DbtAhead(settings, project) as ahead:
        ahead.begin()
        exit_code, said = _built(settings, project)
        assert exit_code == 2
        assert b"not_there" in said


def test_a_project_that_changed_meanwhile_is_not_built_from_the_old_parse(settings: Settings, project: Path) -> None:
    with DbtAhead(settings, project) as ahead:
        ahead.begin()
        process = ahead._process
        assert process is not None
        (project / "models" / "two.sql").write_text("select 2 as x", encoding="utf-8")
        assert _order(settings, project) is None
        assert process.poll() is not None


def test_without_an_order_it_ends_with_the_run(settings: Settings, project: Path) -> None:
    with DbtAhead(settings, project) as ahead:
        ahead.begin()
        process = ahead._process
        assert process is not None
    assert process.poll() is not None
    assert _order(settings, project) is None


def test_it_ends_when_its_parent_is_gone(settings: Settings, project: Path) -> None:
    with DbtAhead(settings, project) as ahead:
        ahead.begin()
        process = ahead._process
        assert process is not None
        assert process.stdin is not None
        process.stdin.close()  # what the kernel does for a parent that was killed
        assert process.wait(60) == 0
        assert _order(settings, project) is None, "a dead one is handed nothing"
