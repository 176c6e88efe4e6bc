"""Kissmetrics: its definitions page. What the vendor means by its words is in README.md beside this file.

Belongs here: putting the folder's parts together, with imports inside the function so that `client` and `tables` can be
used without Dagster. Does not belong here: anything that another vendor's page does differently.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg

    from analytics_platform.core.tables import TableSpec
    from analytics_platform.settings import Settings

__all__ = ["definitions"]


def definitions(settings: Settings, specs_by_name: Mapping[str, TableSpec]) -> dg.Definitions:
    """Assets, checks, schedule, sensor and resource of Kissmetrics."""
    import dagster as dg

    from analytics_platform.vendors.kissmetrics.assets import build_assets
    from analytics_platform.vendors.kissmetrics.automation import build_automation
    from analytics_platform.vendors.kissmetrics.resource import KissmetricsResource

    assets = build_assets(settings, specs_by_name)
    automation = build_automation(settings, specs_by_name)
    return dg.Definitions(
        assets=assets,
        jobs=automation.jobs,
        schedules=automation.schedules,
        sensors=automation.sensors,
        resources={"kissmetrics": KissmetricsResource.from_environment()},
    )
