"""Which days of the lake a build sees: those its models may read, and nothing else."""

from __future__ import annotations

import re
from collections import defaultdict
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pytest
import yaml

from analytics_platform.dbt_lake_window import LOOK_BACK_DAYS, Plugin, days_seen, window_of_build
from analytics_platform.transform.assets import slices

PROJECT = Path(__file__).parents[1] / "dbt_project"
FIRST, LAST = date(2026, 10, 31), date(2026, 11, 2)


def _partition(root: Path, day: date, site: str = "shop") -> None:
    folder = root / "vendor" / "rows" / f"site={site}" / f"day={day}"
    folder.mkdir(parents=True)
    with duckdb.connect() as engine:
        engine.execute(f"COPY (SELECT DATE '{day}' AS on_date) TO '{folder / 'part.parquet'}' (FORMAT parquet)")


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    shift = timedelta(days=LOOK_BACK_DAYS)
    _partition(tmp_path, date(1970, 1, 1), "_anchor")
    for day in (FIRST - shift - timedelta(days=1), FIRST - shift, LAST, LAST + shift, LAST + shift + timedelta(days=1)):
        _partition(tmp_path, day)
    (tmp_path / "_ops" / "http_requests").mkdir(parents=True)
    return tmp_path


def test_a_build_sees_the_anchor_and_the_days_near_its_window(lake: Path) -> None:
    shift = timedelta(days=LOOK_BACK_DAYS)
    near = [str(day) for day in (FIRST - shift, LAST, LAST + shift)]
    assert days_seen(lake, FIRST, LAST, {}) == {"vendor/rows": ["1970-01-01", *near]}
    before, after = (str(day) for day in (FIRST - shift - timedelta(days=1), LAST + shift + timedelta(days=1)))
    further = {"vendor": LOOK_BACK_DAYS + 1}
    assert days_seen(lake, FIRST, LAST, further) == {"vendor/rows": ["1970-01-01", before, *near, after]}


def test_a_cursor_of_a_build_reads_those_files_and_any_other_cursor_all(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = Plugin("lake_window", {})
    monkeypatch.setenv("ANALYTICS_PLATFORM_LAKE", str(lake))
    monkeypatch.setattr("analytics_platform.dbt_lake_window.window_of_build", lambda: (FIRST, LAST))
    rows = (
        "SELECT count(*) FROM read_parquet(list_transform(coalesce(getvariable('lake_days')['vendor/rows'], ['*']), "
        f"lambda d: '{lake}/vendor/rows/site=*/day=' || d || '/part.parquet')) WHERE site <> '_anchor'"
    )
    with duckdb.connect() as connection:
        plugin.configure_connection(connection)
        of_build = connection.cursor()
        plugin.configure_cursor(of_build)
        assert of_build.execute(rows).fetchall() == [(3,)]
        assert connection.cursor().execute(rows).fetchall() == [(5,)]


def test_without_a_window_or_with_a_long_one_everything_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, str] = {}
    monkeypatch.setattr("dbt_common.events.functions.get_metadata_vars", lambda: told)
    monkeypatch.setattr("dbt.flags.get_flags", SimpleNamespace)  # what an earlier dbt of this process was told
    assert window_of_build() is None
    told |= {"WINDOW_START": str(FIRST), "WINDOW_END": str(LAST)}
    assert window_of_build() == (FIRST, LAST)
    told["WINDOW_START"] = str(LAST - timedelta(days=730))
    assert window_of_build() is None


def test_no_model_reads_further_than_a_build_sees() -> None:
    """A margin of in_window beyond what is listed would read days that are not there, and nobody would notice."""
    variables = yaml.safe_load((PROJECT / "dbt_project.yml").read_text(encoding="utf-8"))["vars"]
    profile = yaml.safe_load((PROJECT / "profiles.yml").read_text(encoding="utf-8"))
    (plugin,) = profile["analytics_platform"]["outputs"]["dev"]["plugins"]
    margins: dict[str, list[int]] = defaultdict(list)
    for path in [*PROJECT.glob("models/**/*.sql"), *PROJECT.glob("tests/**/*.sql"), *PROJECT.glob("macros/*.sql")]:
        text = path.read_text(encoding="utf-8")
        of = margins[path.parent.name]
        of += [int(found) for found in re.findall(r"in_window\([^()]*,\s*(\d+)\)", text)]
        for times, name, more in re.findall(r"set margin\w* = (?:(\d+) \* )?var\('(\w+)'\)(?: \+ (\d+))?", text):
            of.append(int(times or 1) * int(variables[name]) + int(more or 0))
        for name in re.findall(r"in_window\([^()]*, var\('(\w+)'\)", text):
            of.append(int(variables[name]))
    assert sum(map(len, margins.values())) > 50
    for folder, found in margins.items():
        listed = plugin["config"]["look_back_days"].get(folder, LOOK_BACK_DAYS)
        assert max(found, default=0) < listed, folder


def test_a_long_window_is_built_in_pieces_that_cover_it_once() -> None:
    first, last = date(2024, 11, 1), date(2026, 10, 31)
    pieces = list(slices(first, last))
    assert pieces[0][0] == first
    assert pieces[-1][1] == last
    assert all(before[1] + timedelta(days=1) == after[0] for before, after in pairwise(pieces))
    assert list(slices(FIRST, FIRST)) == [(FIRST, FIRST)]
