"""A dbt that leaves out what nobody sees tells and builds what dbt does."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb

from analytics_platform.settings import Settings
from analytics_platform.transform.dbt_ahead import DbtAhead, hand_over
from analytics_platform.transform.project import dbt_executable, dbt_variables
from analytics_platform_tests.transform.synthetic import settings_for
from analytics_platform_tests.transform.test_dbt_ahead import PROFILE, PROJECT

# A macro of the project in the place of dbt's own, one that calls another, tests of one kind, one that warns.
FILES = {
    "dbt_project.yml": PROJECT,
    "profiles.yml": PROFILE,
    "macros/names.sql": (
        "{% macro generate_alias_name(custom_alias_name=none, node=none) -%}our_{{ node.name }}{%- endmacro %}"
        "{% macro twice(column) %}{{ doubled(column) }}{% endmacro %}"
        "{% macro doubled(column) %}{{ log('doubling ' ~ column, info=true) }}2 * {{ column }}{% endmacro %}"
    ),
    "models/one.sql": "select 1 as id, '{{ dbt_metadata_envs.get('WINDOW_START') }}' as window_start",
    "models/two.sql": "{{ config(materialized='table') }} select id, {{ twice('id') }} as x from {{ ref('one') }}",
    "models/gone.py": "def model(dbt, session):\n    return session.sql('select 1 / 0 as x, 1 as id').df().dropna()\n",
    "models/schema.yml": """\
models:
  - name: one
    columns: [{name: id, data_tests: [not_null, unique]}]
  - name: two
    columns:
      - {name: id, data_tests: [not_null, unique, {relationships: {arguments: {to: ref('one'), field: id}}}]}
      - {name: x, data_tests: [{accepted_values: {arguments: {values: [1], quote: false}, config: {severity: warn}}}]}
""",
}


def _project(folder: Path) -> Path:
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def _environment(settings: Settings) -> dict[str, str]:
    settings.home.warehouse.parent.mkdir(parents=True, exist_ok=True)
    window = {"DBT_ENV_CUSTOM_ENV_WINDOW_START": "2026-10-05"}
    return {**os.environ, **dbt_variables(settings), **window, "DBT_LOG_FORMAT": "json"}


def _told(said: bytes) -> Counter[tuple[Any, ...]]:
    """What is told of nodes, without what differs between any two builds (times, ids, how the work was divided)."""
    events = [json.loads(line) for line in said.splitlines() if line.startswith(b"{")]
    of_nodes = [event for event in events if event["data"].get("node_info")]
    assert of_nodes, said
    return Counter(
        (event["info"]["name"], event["info"]["level"], node["unique_id"], node["node_status"], node["materialized"])
        for event in of_nodes
        for node in [event["data"]["node_info"]]
    )


def _built(settings: Settings) -> dict[str, list[tuple[Any, ...]]]:
    with duckdb.connect(str(settings.home.warehouse), read_only=True) as connection:
        names = [
            name for (name,) in connection.execute("SELECT table_name FROM duckdb_columns() ORDER BY 1").fetchall()
        ]
        return {name: connection.execute(f'FROM "{name}"').fetchall() for name in names if name.startswith("our_")}


def test_it_tells_and_builds_what_dbt_does(tmp_path: Path) -> None:
    project = _project(tmp_path / "dbt_project")
    # Debugging asked for: everything there is to tell, also what is otherwise told to nobody.
    build = ["build", "--log-level-file", "none", "--log-level", "debug", "--project-dir", str(project)]
    build += ["--profiles-dir", str(project), "--target-path", str(tmp_path / "target")]
    plain, lean = settings_for(tmp_path / "plain"), settings_for(tmp_path / "lean")
    with DbtAhead(lean, project) as ahead:
        ahead.begin()
        dbts = subprocess.run([dbt_executable(), *build], env=_environment(plain), capture_output=True, check=False)
        ours = hand_over(lean, build, _environment(lean))
        assert ours is not None
        said, _ = ours.communicate()
    assert (ours.returncode, b"doubling id" in said) == (dbts.returncode, True), said
    assert _told(said) == _told(dbts.stdout)
    assert _built(lean) == _built(plain) != {}
