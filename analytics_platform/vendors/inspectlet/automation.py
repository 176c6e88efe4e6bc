"""When Inspectlet runs by itself.

Belongs here: the vendor's clock time. Does not belong here: how schedules and sensors work (`core.automation`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from analytics_platform.core.automation import Automation, vendor_automation
from analytics_platform.core.tables import TableSpec
from analytics_platform.settings import Settings
from analytics_platform.vendors.inspectlet.streams import STREAMS

__all__ = ["build_automation"]

_DAILY_AT_UTC: Final = (3, 12)


def build_automation(settings: Settings, specs_by_name: Mapping[str, TableSpec]) -> Automation:
    """The daily schedule and the quota-reset sensor."""
    return vendor_automation("inspectlet", STREAMS, settings, specs_by_name, daily_at=_DAILY_AT_UTC)
