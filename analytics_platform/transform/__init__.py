"""From the lake to what people read: the dbt project as assets, and the published snapshot.

Belongs here: the few names the rest of the platform uses. Does not belong here: anything that imports Dagster or dbt
at import time: `catalog` reads snapshots through this package in a notebook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from analytics_platform.transform.publish import marts_are_current, published_version

if TYPE_CHECKING:
    import dagster as dg

    from analytics_platform.settings import Settings

__all__ = ["MART_GROUPS", "marts_are_current", "published_version", "transform_definitions"]

MART_GROUPS: Final = ("staging", "intermediate", "marts", "published")
"""Asset groups of everything after the lake, in the order of the path of a row. Seeds are in `staging`: they are
inputs like it.
"""


def transform_definitions(settings: Settings) -> dg.Definitions:
    """The dbt project and the publish step as Dagster definitions."""
    from analytics_platform.transform.assets import build_transform

    return build_transform(settings)
