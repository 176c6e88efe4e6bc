"""The pictures of the marts just built, as one function that may run in any process (`core.beside`).

Belongs here: which days and sites are drawn, and the Markdown that Dagster shows. Does not belong here: which rows make
which picture (`reconcile.pictures`), how one looks (`reconcile.plots`), whose metadata they become (`assets`).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import date, timedelta
from importlib import import_module
from typing import Final

from analytics_platform.reconcile.pictures import Asked, of_mart
from analytics_platform.settings import Settings
from analytics_platform.transform.warehouse import warehouse_connection

__all__ = ["draw_marts", "prepare_drawing"]

_PICTURED_DAYS: Final = 28


def draw_marts(settings: Settings, names: Sequence[str], last_day: date) -> dict[str, dict[str, str]]:
    """Plots of the newest days up to `last_day`, for those of the named marts that have a picture.

    Returns:
        Mart → `plot_<site>` → Markdown with the PNG in it.

    Raises:
        StorageError: another process has the warehouse.
    """
    if not names:
        return {}
    first = last_day - timedelta(days=_PICTURED_DAYS - 1)
    asked = [Asked(site=site.key, first=first, last=last_day) for site in settings.sites]
    with warehouse_connection(settings) as connection:
        return {
            name: {
                f"plot_{site}": (
                    f"![{picture.title}](data:image/png;base64,{base64.b64encode(picture.png).decode('ascii')})"
                )
                for site, picture in of_mart(name, lambda sql: connection.sql(sql).df(), asked)
            }
            for name in names
        }


def prepare_drawing() -> None:
    """Import what drawing needs: 3 s that a dbt which builds meanwhile leaves time for."""
    import_module("analytics_platform.reconcile.plots")
    import_module("dagster_duckdb")
