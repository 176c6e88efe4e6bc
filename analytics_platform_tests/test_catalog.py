"""Reading by name: what a notebook relies on."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from analytics_platform.catalog import Catalog
from analytics_platform.core.errors import ConfigurationError
from analytics_platform.settings import Settings
from analytics_platform.transform.publish import publish
from analytics_platform_tests.transform.synthetic import (
    FIRST,
    NOVEMBER,
    SECOND,
    build_warehouse,
    manifest,
    warehouse_with_lake,
    write_partition,
)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Published once; tests that use it only read."""
    settings = warehouse_with_lake(tmp_path_factory.mktemp("home"))
    publish(settings, manifest=manifest())
    return settings


@pytest.fixture
def catalog(published: Settings) -> Catalog:
    return Catalog.open(published.home.root)


@pytest.mark.parametrize(
    ("start", "end", "site", "rows"),
    [
        (None, None, None, 6),
        ("2026-10-30", "2026-10-30", None, 2),
        (FIRST, SECOND, None, 4),
        ("2026-10-31", None, None, 4),
        (None, "2026-10-30", "shop", 1),
        ("2027-01-01", None, None, 0),
    ],
)
def test_dates_are_inclusive_and_either_end_may_be_open(
    catalog: Catalog, start: str | date | None, end: str | date | None, site: str | None, rows: int
) -> None:
    assert len(catalog.read("fct_sessions", start, end, site=site)) == rows


def test_columns_where_and_vendor(catalog: Catalog) -> None:
    frame = catalog.read(
        "fct_sessions", vendor="smartlook", columns=["page_count", "session_key"], where="page_count >= 4 -- late"
    )
    assert list(frame.columns) == ["page_count", "session_key"]
    assert sorted(frame["page_count"]) == [4, 5]
    assert catalog.read("fct_sessions", vendor="pirsch").empty


@pytest.mark.parametrize("name", ["fct_sessions", "stg_smartlook__sessions", "smartlook/sessions"])
def test_types_do_not_depend_on_the_rows_found(catalog: Catalog, name: str) -> None:
    full = catalog.read(name)
    empty = catalog.read(name, "2031-01-01")
    assert not full.empty
    assert empty.empty
    assert full.dtypes.equals(empty.dtypes)


def test_types_are_what_an_analyst_expects(catalog: Catalog) -> None:
    types = catalog.read("fct_sessions").dtypes
    assert types["page_count"] == pd.Int64Dtype()
    assert types["is_bounce_native"] == pd.BooleanDtype()
    assert str(types["session_date_local"]).startswith("datetime64")


def test_staging_and_lake_read_partitions(catalog: Catalog) -> None:
    assert sorted(catalog.read("stg_smartlook__sessions", FIRST, FIRST)["session_id"]) == ["a", "b", "d"]
    assert sorted(catalog.read("smartlook/sessions", FIRST, FIRST, site="shop")["session_id"]) == ["a", "b"]
    assert list(catalog.asset("smartlook/sessions").partition("2026-10-31", site="shop").read()["session_id"]) == ["c"]
    assert list(catalog.asset("smartlook/sessions").partition("2026-10-30|blog").read()["session_id"]) == ["d"]


def test_sensitive_columns_are_masked_unless_revealed(catalog: Catalog) -> None:
    masked = catalog.read("smartlook/sessions")
    assert set(masked["email"]) == {"•••"}
    assert catalog.read("smartlook/sessions", where="email = 'canary@example.org'").empty
    assert set(catalog.read("smartlook/sessions", reveal=True)["email"]) == {"canary@example.org"}
    assert "canary" not in catalog.sql("SELECT * FROM smartlook.sessions").to_csv()


def test_arrow_and_missing_polars(catalog: Catalog) -> None:
    assert isinstance(catalog.read("dim_vendor", engine="arrow"), pa.Table)
    with pytest.raises(ConfigurationError, match="no engine"):
        catalog.read("dim_vendor", engine="spark")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fct_sesions", "Did you mean fct_sessions"),
        ("smartlok/sessions", "Did you mean smartlook/sessions"),
        ("int_secret", "intermediate models are not published"),
    ],
)
def test_unknown_names_suggest_the_nearest(catalog: Catalog, name: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        catalog.read(name)


def test_other_mistakes_are_explained(catalog: Catalog) -> None:
    with pytest.raises(ConfigurationError, match="not a day"):
        catalog.read("fct_sessions", "30.10.2026")
    with pytest.raises(ConfigurationError, match="before start"):
        catalog.read("fct_sessions", SECOND, FIRST)
    with pytest.raises(ConfigurationError, match="page_count"):
        catalog.read("fct_sessions", columns=["page_counts"])
    with pytest.raises(ConfigurationError, match="nope"):
        catalog.read("fct_sessions", where="nope = 1")
    with pytest.raises(ConfigurationError, match="no day column"):
        catalog.read("dim_vendor", FIRST)


def test_sql_over_marts_staging_and_lake(catalog: Catalog) -> None:
    joined = catalog.sql(
        "SELECT s.session_id FROM stg_smartlook__sessions s JOIN smartlook.sessions l USING (session_id) "
        "JOIN dim_vendor v ON v.vendor = 'smartlook' ORDER BY 1"
    )
    assert list(joined["session_id"]) == ["a", "b", "c", "d"]
    assert catalog.sql("SELECT sum(page_count) AS n FROM fct_sessions")["n"].dtype == pd.Int64Dtype()


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_parquet('https://example.org/x.parquet')",
        "SELECT * FROM glob('/etc/*')",
        "CREATE TABLE x AS SELECT 1",
        "DELETE FROM fct_sessions",
        "COPY fct_sessions TO '/tmp/out.csv'",
        "ATTACH '/tmp/other.duckdb'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "SELECT 1; SELECT 2",
        "SELECT getenv('HOME')",
    ],
)
def test_sql_is_read_only_and_locked(catalog: Catalog, query: str) -> None:
    with pytest.raises(ConfigurationError):
        catalog.sql(query)


def test_sql_cannot_go_around_the_mask(catalog: Catalog, published: Settings) -> None:
    with pytest.raises(ConfigurationError, match="Permission"):
        catalog.sql(f"SELECT email FROM read_parquet('{published.home.lake}/smartlook/sessions/*/*/part.parquet')")


def test_list_describe_freshness(catalog: Catalog) -> None:
    listed = catalog.list().set_index("name")
    assert listed.loc["fct_sessions", "kind"] == "mart"
    assert listed.loc["fct_sessions", "row_count"] == 6
    assert listed.loc["smartlook/sessions", "kind"] == "lake"
    assert "int_secret" not in listed.index
    described = catalog.describe("smartlook/sessions").set_index("column")
    assert described.loc["email", "sensitivity"] == "personal"
    fresh = catalog.freshness("fct_sessions")
    assert (fresh.first_date, fresh.newest_date, fresh.days, fresh.version) == (FIRST, NOVEMBER, 3, 1)
    lake = catalog.freshness("stg_smartlook__sessions")
    assert (lake.first_date, lake.newest_date, lake.missing_days) == (FIRST, SECOND, ())


def test_as_of_keeps_the_old_rows(tmp_path: Path) -> None:
    settings = warehouse_with_lake(tmp_path)
    publish(settings, manifest=manifest())
    build_warehouse(settings, sessions=9)
    publish(settings, manifest=manifest())
    catalog = Catalog.open(tmp_path)
    assert len(catalog.read("fct_sessions")) == 9
    assert len(catalog.as_of(1).read("fct_sessions")) == 6
    with pytest.raises(ConfigurationError, match="Kept: 1, 2"):
        catalog.as_of(7)


def test_an_open_catalog_follows_the_pointer_and_the_lake(tmp_path: Path) -> None:
    settings = warehouse_with_lake(tmp_path)
    publish(settings, manifest=manifest())
    catalog = Catalog.open(tmp_path)
    assert len(catalog.read("fct_sessions")) == 6
    for sessions in (7, 8, 9, 10):  # the first version is swept away under the open catalog
        build_warehouse(settings, sessions=sessions)
        publish(settings, manifest=manifest())
    assert len(catalog.read("fct_sessions")) == 10
    write_partition(settings, "shop", NOVEMBER, ["new"])
    assert "new" in set(catalog.read("stg_smartlook__sessions")["session_id"])


def test_lake_tables_need_no_publish_and_marts_say_so(tmp_path: Path) -> None:
    settings = warehouse_with_lake(tmp_path)
    catalog = Catalog.open(tmp_path)
    assert len(catalog.read("smartlook/sessions")) == 4
    assert catalog.sql("SELECT count(*) AS n FROM smartlook.sessions")["n"][0] == 4
    assert set(catalog.list()["kind"]) == {"lake"}
    with pytest.raises(ConfigurationError, match="Nothing is published"):
        catalog.read("fct_sessions")
    assert settings.home.warehouse.is_file()


def test_no_home_says_how_to_name_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANALYTICS_PLATFORM_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigurationError, match="ANALYTICS_PLATFORM_HOME"):
        Catalog.open()
    monkeypatch.setenv("ANALYTICS_PLATFORM_HOME", str(tmp_path))
    assert str(tmp_path) in repr(Catalog.open())


READER = """
import sys
from analytics_platform.catalog import Catalog
catalog = Catalog.open(sys.argv[1])
seen = set()
print("ready", flush=True)
for line in sys.stdin:  # one read a line, so that the test paces us without a clock
    n = len(catalog.read("fct_sessions", columns=["session_key"]))
    assert n % 10 == 0, n
    seen.add(n)
print(len(seen), flush=True)
"""


def test_a_reader_in_another_process_while_versions_are_swapped(tmp_path: Path) -> None:
    settings = warehouse_with_lake(tmp_path)
    build_warehouse(settings, sessions=10)
    publish(settings, manifest=manifest())
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", READER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        for round_number in range(2, 8):
            reader.stdin.write("read\n" * 5)
            reader.stdin.flush()
            build_warehouse(settings, sessions=10 * round_number)
            publish(settings, manifest=manifest())
        reader.stdin.write("read\n")
        reader.stdin.close()
        distinct = int(reader.stdout.read())
    assert reader.returncode == 0
    assert distinct >= 2


def test_importing_the_catalog_is_light() -> None:
    heavy = "{'dagster', 'pandas', 'pyarrow', 'dbt', 'dagster_dbt', 'great_expectations', 'httpx'}"
    code = f"import sys, analytics_platform.catalog; sys.exit(bool({heavy} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
