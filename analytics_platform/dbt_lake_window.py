"""A plugin of dbt-duckdb: while dbt builds a window of days, staging views read the files of those days only.

Belongs here: which days of each lake table a build's connections see. Does not belong here: what the views select
(`dbt_project/models/staging`), the window itself (`transform.assets`, macro `window_bound`).

Reading by name (`union_by_name`) opens the footer of every file of a table each time a statement mentions it, before
any filter: of two years and two sites that is 1,460 files a table, for each of some hundred statements. The sources
therefore list files by the variable `lake_days`, a map of "vendor/table" to days. A connection without the variable
(the catalog, a notebook, a person's shell, a build of everything) sees the whole lake.

Enabled in `dbt_project/profiles.yml`, where a vendor whose models look further has its own days. The variable is set
for each cursor, because DuckDB's variables belong to one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import duckdb
from dbt.adapters.duckdb.plugins import BasePlugin

__all__ = ["LOOK_BACK_DAYS", "Plugin", "days_seen", "window_of_build"]

LOOK_BACK_DAYS: Final = 35
"""How far before and after its window a build may read: more than any margin a model gives `in_window` (a test).
`look_back_days` of the plugin's configuration has the vendors that need more."""

_LONGEST_WINDOW_DAYS: Final = 200
"""A longer window reads by pattern as everybody else does: a list would spare it too little."""

_ANCHOR_DAY: Final = "1970-01-01"


class Plugin(BasePlugin):
    """Sets `lake_days` on every cursor of a build that has a window."""

    def initialize(self, plugin_config: dict[str, Any]) -> None:
        self._look_back_days: Mapping[str, int] = plugin_config.get("look_back_days", {})
        self._days: Mapping[str, list[str]] | None = None

    def configure_connection(self, conn: duckdb.DuckDBPyConnection) -> None:
        """Look once a connection which days there are: a day that lands later is the next build's."""
        window = window_of_build()
        root = os.environ.get("ANALYTICS_PLATFORM_LAKE")
        self._days = None if window is None or root is None else days_seen(Path(root), *window, self._look_back_days)

    def configure_cursor(self, cursor: duckdb.DuckDBPyConnection) -> None:
        if self._days is None:
            return
        # As values, not as text: a literal of some thousand days is parsed and bound anew for each of 450 cursors.
        cursor.execute(
            "SET VARIABLE lake_days = map($tables, $days)",
            {"tables": list(self._days), "days": list(self._days.values())},
        )


def window_of_build() -> tuple[date, date] | None:
    """The window `window_bound` has from the environment; None where it is open, long, or told by `--vars`."""
    from dbt.flags import get_flags
    from dbt_common.events.functions import get_metadata_vars

    flags: Any = get_flags()  # type: ignore[no-untyped-call]
    told = get_metadata_vars()
    bounds = [told.get(name) for name in ("WINDOW_START", "WINDOW_END")]
    if None in bounds or {"window_start", "window_end"} & set(getattr(flags, "VARS", None) or {}):
        return None
    first, last = (date.fromisoformat(str(bound)) for bound in bounds)
    return (first, last) if (last - first).days <= _LONGEST_WINDOW_DAYS else None


def days_seen(root: Path, first: date, last: date, look_back_days: Mapping[str, int]) -> dict[str, list[str]]:
    """The days of each lake table ("vendor/table") near the window that have a file, and its anchor's.

    Args:
        look_back_days: by vendor, where it is not `LOOK_BACK_DAYS`.
    """
    found = {}
    for table in sorted(path for path in root.glob("[!_.]*/*") if path.is_dir()):
        shift = timedelta(days=look_back_days.get(table.parent.name, LOOK_BACK_DAYS))
        days = [str(first - shift + timedelta(days=number)) for number in range((last - first + 2 * shift).days + 1)]
        sites = [site for site in table.iterdir() if site.name.startswith("site=")]
        near = [day for day in days if any((site / f"day={day}" / "part.parquet").is_file() for site in sites)]
        found[f"{table.parent.name}/{table.name}"] = [_ANCHOR_DAY, *near]
    return found
