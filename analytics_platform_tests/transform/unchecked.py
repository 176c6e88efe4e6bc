"""An ordinary build without its dbt tests, for set-ups that need the marts and say nothing about tests.

Belongs here: that selection. Does not belong here: which tests an ordinary build has (`transform.ordinary_build`).

295 dbt tests are a third of what a build costs. Where one fails, dbt builds less than was asked for, which whoever uses
this sees in what is missing.
"""

from __future__ import annotations

import dagster as dg

from analytics_platform.settings import Settings
from analytics_platform.transform import ordinary_build

__all__ = ["build_without_checks"]


def build_without_checks(settings: Settings) -> dg.AssetSelection:
    """Stands for `analytics_platform.automation.ordinary_build`."""
    return ordinary_build(settings) - dg.AssetSelection.all_asset_checks()
