"""A lake on disk written from the vendors' own TableSpecs, small enough to reason about.

Belongs here: writing partitions, the anchor, the blocked list and the sites file, as the platform's lake lays them out.
Does not belong here: what the models should make of it (the tests say that).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb

from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.ops_log import OpsLog
from analytics_platform.core.tables import TableSpec

VENDORS = ("smartlook", "inspectlet", "pirsch", "kameleoon", "kissmetrics")


def table_specs() -> dict[tuple[str, str], TableSpec]:
    """Every lake table of every vendor, by (vendor, table)."""
    specs = (
        spec
        for vendor in VENDORS
        for spec in importlib.import_module(f"analytics_platform.vendors.{vendor}.tables").TABLES
    )
    return {spec.asset_key: spec for spec in specs}


@dataclass
class FixtureLake:
    """One lake root and the means to write it."""

    root: Path
    specs: Mapping[tuple[str, str], TableSpec] = field(default_factory=table_specs)

    def __post_init__(self) -> None:
        self._connection = duckdb.connect()
        self.sites([])
        self.block([])
        OpsLog(Lake(self.root), Landing(self.root.parent / f"{self.root.name}-landing")).prepare()
        for spec in self.specs.values():
            self._copy(spec, "_anchor", date(1970, 1, 1), [])

    def close(self) -> None:
        self._connection.close()

    def write(
        self,
        vendor: str,
        table: str,
        site: str,
        day: date,
        rows: Iterable[Mapping[str, Any]],
        landed_at: datetime | None = None,
    ) -> None:
        """Replace one partition. Columns a row does not name are NULL, as in a record that lacks the field."""
        spec = self.specs[(vendor, table)]
        stamped = [
            {
                "_site": site,
                "_day": day,
                "_landed_at": landed_at or datetime.fromisoformat("2026-11-20 02:00"),
                "_run_id": "r",
                **row,
            }
            for row in rows
        ]
        unknown = {name for row in stamped for name in row} - {c.name for c in spec.all_columns}
        assert not unknown, f"{spec.qualified_name} has no columns {sorted(unknown)}"
        self._copy(spec, site, day, stamped)

    def remove(self, vendor: str, table: str, site: str, day: date) -> None:
        self._path(vendor, table, site, day).unlink()

    def sites(self, rows: Iterable[tuple[str, str, str | None, date, str, str, bool]]) -> None:
        """Replace the configured sites: the columns of the statement below, in order."""
        self._list(
            self.root / "_config" / "sites.parquet",
            "site_key VARCHAR, timezone VARCHAR, hostname VARCHAR, start_date DATE, vendor VARCHAR, "
            "vendor_entity_id VARCHAR, is_enabled BOOLEAN",
            rows,
        )

    def block(self, rows: Iterable[tuple[str, str, str, date]]) -> None:
        """Replace the refused partitions: vendor, table_name, site_key, partition_date."""
        self._list(
            self.root / "_blocked" / "partitions.parquet",
            "vendor VARCHAR, table_name VARCHAR, site_key VARCHAR, partition_date DATE",
            rows,
        )

    def _path(self, vendor: str, table: str, site: str, day: date) -> Path:
        return self.root / vendor / table / f"site={site}" / f"day={day.isoformat()}" / "part.parquet"

    def _copy(self, spec: TableSpec, site: str, day: date, rows: list[dict[str, Any]]) -> None:
        columns = ", ".join(f'"{c.name}" {c.type}' for c in spec.all_columns)
        names = [c.name for c in spec.all_columns]
        self._list(
            self._path(*spec.asset_key, site, day), columns, [tuple(row.get(name) for name in names) for row in rows]
        )

    def _list(self, path: Path, columns: str, rows: Iterable[tuple[Any, ...]]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection.execute(f"CREATE OR REPLACE TABLE staged ({columns})")
        rows = list(rows)
        if rows:
            marks = ", ".join("?" for _ in rows[0])
            self._connection.executemany(f"INSERT INTO staged VALUES ({marks})", rows)
        self._connection.execute(f"COPY staged TO '{path}' (FORMAT parquet)")
