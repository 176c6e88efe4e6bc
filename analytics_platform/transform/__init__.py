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

__all__ = [
    "MARTS_JOB",
    "MART_GROUPS",
    "marts_are_current",
    "ordinary_build",
    "prepare_build",
    "published_version",
    "thorough_checks",
    "transform_definitions",
]

MARTS_JOB: Final = "marts"
"""The job of an ordinary build (`ordinary_build`)."""

MART_GROUPS: Final = ("staging", "intermediate", "marts", "published")
"""Asset groups of everything after the lake, in the order of the path of a row. Seeds are in `staging`: they are
inputs like it.
"""


def transform_definitions(settings: Settings) -> dg.Definitions:
    """The dbt project and the publish step as Dagster definitions."""
    from analytics_platform.transform.assets import build_transform

    return build_transform(settings)


def prepare_build() -> None:
    """Import what a build needs in this process, seconds for which dbt would compete with it."""
    from analytics_platform.transform import assets

    assets.prepare_build()


def ordinary_build(settings: Settings) -> dg.AssetSelection:
    """Everything after the lake, with the checks whose failure must stop a publication or is told every day."""
    import dagster as dg

    return dg.AssetSelection.groups(*MART_GROUPS) - thorough_checks(settings)


def thorough_checks(settings: Settings) -> dg.AssetSelection:
    """The checks that ordinary builds leave out."""
    import dagster as dg

    from analytics_platform.transform.translator import current_manifest

    return dg.AssetSelection.checks(*sorted(current_manifest(settings).thorough_checks))
