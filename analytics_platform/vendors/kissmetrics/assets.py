"""Kissmetrics's lake tables as partitioned Dagster assets.

Belongs here: which streams become assets, and anything only this vendor's assets need. Does not belong here: how a
stream
becomes an asset (`core.ingest`), what is fetched (`streams`).
"""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from analytics_platform.core.ingest import vendor_assets
from analytics_platform.core.tables import TableSpec
from analytics_platform.settings import Settings
from analytics_platform.vendors.kissmetrics.checks import CHECKS, TRUTHS
from analytics_platform.vendors.kissmetrics.streams import STREAMS

__all__ = ["build_assets"]


def build_assets(settings: Settings, specs_by_name: Mapping[str, TableSpec]) -> list[dg.AssetsDefinition]:
    """One multi-asset a stream, partitioned by day × site."""
    return vendor_assets(STREAMS, settings=settings, specs_by_name=specs_by_name, checks=CHECKS, truths=TRUTHS)
