"""The code location: vendors + transform + automation, merged. Knows no vendor by name.

Belongs here: putting pages together. Does not belong here: any asset, resource, schedule or secret. Importing this
module takes no
secret, no network, neither great_expectations nor dbt-core, and at most 1.5 s (a test holds it to that).
"""

from __future__ import annotations

import dagster as dg

from analytics_platform.automation import platform_automation
from analytics_platform.core.redaction import install_redaction
from analytics_platform.core.resources import PlatformResource
from analytics_platform.forget_job import forget_definitions
from analytics_platform.quota_assets import quota_definitions
from analytics_platform.settings import Settings, load_settings
from analytics_platform.transform import transform_definitions
from analytics_platform.vendors import vendor_definitions

__all__ = ["build_definitions", "defs"]


def build_definitions(settings: Settings | None = None) -> dg.Definitions:
    """Everything the UI shows, for the sites of these settings (the environment's by default)."""
    install_redaction()
    chosen = settings or load_settings()
    return dg.Definitions.merge(
        *vendor_definitions(chosen),
        transform_definitions(chosen),
        platform_automation(chosen),
        forget_definitions(),
        quota_definitions(chosen),
        dg.Definitions(resources={"platform": PlatformResource()}, executor=dg.in_process_executor),
    )


defs = build_definitions()
