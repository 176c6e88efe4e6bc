"""The manifest is made once when it must be, and never otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from analytics_platform.core.errors import ConfigurationError
from analytics_platform.transform.project import (
    PROJECT_DIRECTORY,
    load_manifest,
    manifest_path,
    project_digest,
)
from analytics_platform_tests.transform.synthetic import settings_for

PROJECT = "name: tiny\nversion: '1.0.0'\nconfig-version: 2\nprofile: tiny\nmodel-paths: [models]\n"
PROFILE = "tiny:\n  target: dev\n  outputs:\n    dev: {type: duckdb, path: ':memory:'}\n"

PREPARE = (
    "import sys; from pathlib import Path; from analytics_platform.transform.project import manifest_path; "
    "from analytics_platform_tests.transform.synthetic import settings_for; "
    "print(manifest_path(settings_for(Path(sys.argv[1])), Path(sys.argv[2])))"
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "dbt_project"
    (folder / "models").mkdir(parents=True)
    (folder / "dbt_project.yml").write_text(PROJECT, encoding="utf-8")
    (folder / "profiles.yml").write_text(PROFILE, encoding="utf-8")
    (folder / "models" / "one.sql").write_text("select 1 as x", encoding="utf-8")
    return folder


def test_two_processes_prepare_a_fresh_clone_once(tmp_path: Path, project: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), *sys.path])}
    command = [sys.executable, "-c", PREPARE, str(tmp_path), str(project)]
    children = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    paths = {child.communicate()[0].strip() for child in children}
    assert paths == {str(project / "target" / "manifest.json")}
    made = (project / "target" / "manifest.json").stat()
    # Up to date: the same file, however often it is asked for.
    assert manifest_path(settings_for(tmp_path), project).stat() == made
    assert "model.tiny.one" in load_manifest(settings_for(tmp_path), project)["nodes"]
    left = sorted(path.name for path in (project / "target").iterdir())
    assert left == [".manifest.lock", "manifest.digest", "manifest.json", "partial_parse.msgpack"]


def test_any_change_of_a_source_file_changes_the_digest(project: Path) -> None:
    before = project_digest(project)
    (project / "target").mkdir()
    (project / "target" / "anything").write_text("x", encoding="utf-8")
    assert project_digest(project) == before
    (project / "models" / "two.sql").write_text("select 2 as x", encoding="utf-8")
    added = project_digest(project)
    (project / "models" / "two.sql").rename(project / "models" / "three.sql")
    renamed = project_digest(project)
    (project / "models" / "three.sql").unlink()
    assert len({before, added, renamed}) == 3
    assert project_digest(project) == before


def test_a_stale_manifest_is_not_used_and_a_broken_project_says_why(tmp_path: Path, project: Path) -> None:
    (project / "target").mkdir()
    (project / "target" / "manifest.json").write_text(json.dumps({"nodes": {}}), encoding="utf-8")
    (project / "target" / "manifest.digest").write_text("of yesterday", encoding="ascii")
    (project / "models" / "one.sql").write_text("select * from {{ ref('nowhere') }}", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="nowhere"):
        manifest_path(settings_for(tmp_path), project)


def test_no_project_says_where_it_should_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="There is no dbt project"):
        manifest_path(settings_for(tmp_path), tmp_path)


def test_definitions_of_the_transform_need_neither_dbt_nor_gx(tmp_path: Path) -> None:
    """Import budget: dagster-dbt and dbt are imported inside the step."""
    manifest_path(settings_for(tmp_path), PROJECT_DIRECTORY)
    code = (
        "import sys; from pathlib import Path; from analytics_platform.transform import transform_definitions; "
        "from analytics_platform_tests.transform.synthetic import settings_for; "
        "transform_definitions(settings_for(Path(sys.argv[1]))); "
        "sys.exit(bool({'dbt', 'dagster_dbt', 'great_expectations', 'pandas'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=False)
    assert done.returncode == 0
