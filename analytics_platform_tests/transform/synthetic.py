"""A warehouse, a manifest and a lake small enough to know by heart, without dbt.

Belongs here: what the publish and catalog tests share. Does not belong here: anything dbt makes (test_assets runs the
real project).
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import duckdb

from analytics_platform.core.lake import Lake
from analytics_platform.core.tables import TableSpec
from analytics_platform.settings import Home, Settings, Site
from analytics_platform.transform.translator import Manifest
from analytics_platform.transform.warehouse import warehouse_connection
from analytics_platform.vendors import all_tables

FIRST, SECOND, NOVEMBER = date(2026, 10, 30), date(2026, 10, 31), date(2026, 11, 1)
SESSIONS: TableSpec = all_tables()["smartlook/sessions"]


def settings_for(root: Path) -> Settings:
    return Settings(
        home=Home(root=root),
        sites=(Site(key="shop", timezone="Europe/Berlin", start_date=FIRST, vendors={"smartlook": {}}),),
    )


def _model(name: str, layer: str, columns: dict[str, str], day: str | None = None) -> dict[str, Any]:
    return {
        "unique_id": f"model.p.{name}",
        "name": name,
        "alias": name,
        "resource_type": "model",
        "fqn": ["p", layer, name],
        "config": {"materialized": "view" if layer == "staging" else "table"},
        "meta": {"window_column": day} if day else {},
        "description": f"One row per thing in {name}.",
        "columns": {column: {"name": column, "description": text} for column, text in columns.items()},
        "depends_on": {"nodes": []},
        "original_file_path": f"models/{layer}/{name}.sql",
        "tags": [],
    }


def manifest() -> Manifest:
    nodes = [
        _model(
            "fct_sessions",
            "marts",
            {"session_key": "Key; it's unique.", "page_count": "Pages."},
            "session_date_local",
        ),
        _model("dim_vendor", "marts", {"vendor": "Vendor key."}),
        _model("stg_smartlook__sessions", "staging", {"session_id": "Id."}),
    ]
    return Manifest({"nodes": {node["unique_id"]: node for node in nodes}, "sources": {}})


def build_warehouse(settings: Settings, *, sessions: int = 6) -> None:
    """Marts with `sessions` rows spread over three days and two months, and one staging view over the lake."""
    lake = settings.home.lake
    with warehouse_connection(settings) as connection:
        connection.execute(
            "CREATE OR REPLACE TABLE fct_sessions AS SELECT 'k' || i AS session_key, 'smartlook' AS vendor, "
            "CASE WHEN i % 2 = 0 THEN 'shop' ELSE 'blog' END AS site_key, DATE '2026-10-30' + CAST(i % 3 AS INTEGER) "
            "AS session_date_local, i AS page_count, i % 2 = 0 AS is_bounce_native, 1.5 AS duration_seconds "
            f"FROM range({sessions}) t(i)"
        )
        connection.execute("CREATE OR REPLACE TABLE dim_vendor AS SELECT 'smartlook' AS vendor")
        connection.execute("CREATE TABLE IF NOT EXISTS int_secret AS SELECT 1 AS x")
        connection.execute(
            "CREATE OR REPLACE VIEW stg_smartlook__sessions AS (SELECT session_id, site AS site_key, "
            f"day AS partition_date FROM read_parquet('{lake}/smartlook/sessions/site=*/day=*/part.parquet', "
            "hive_partitioning = true, hive_types = {'site': VARCHAR, 'day': DATE}, union_by_name = true) "
            "WHERE site <> '_anchor')"
        )


def write_partition(settings: Settings, site: str, day: date, ids: list[str]) -> Path:
    """One partition of smartlook/sessions with an e-mail in every row."""
    lake = Lake(settings.home.lake)
    lake.ensure_anchor(SESSIONS)
    path = lake.partition_path(SESSIONS, site, day)
    path.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as connection:
        columns = ", ".join(f'"{column.name}" {column.type}' for column in SESSIONS.all_columns)
        connection.execute(f"CREATE TABLE t ({columns})")
        for number, session_id in enumerate(ids):
            connection.execute(
                "INSERT INTO t (session_id, email, page_count, started_at, _site, _day, _landed_at, _run_id) "
                "VALUES (?, 'canary@example.org', ?, ?, ?, ?, ?, 'r')",
                [session_id, number, f"{day} 10:00:00", site, day, "2026-11-02 00:00:00"],
            )
        connection.execute(f"COPY t TO '{path}' (FORMAT parquet)")
    return path


def warehouse_with_lake(root: Path) -> Settings:
    """A home whose lake has three partitions and whose warehouse is built."""
    settings = settings_for(root)
    write_partition(settings, "shop", FIRST, ["a", "b"])
    write_partition(settings, "shop", SECOND, ["c"])
    write_partition(settings, "blog", FIRST, ["d"])
    build_warehouse(settings)
    return settings
