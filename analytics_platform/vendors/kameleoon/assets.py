"""Kameleoon's Dagster assets: lake tables partitioned by day and site, and what is sent back to it from marts.

Belongs here: which streams and sendings become assets, which rows of a mart are sent and as what. Does not belong
here: how a stream or a sending becomes an asset (`core.ingest`, `core.sending`), what is fetched (`streams`), how a
message is encoded and delivered (`outbox`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import dagster as dg

from analytics_platform.core.errors import ConfigurationError, Where
from analytics_platform.core.ingest import vendor_assets
from analytics_platform.core.outbox_messages import Draft
from analytics_platform.core.sending import Sending, sending_assets
from analytics_platform.core.tables import TableSpec
from analytics_platform.settings import Settings, Site
from analytics_platform.vendors.kameleoon import outbox
from analytics_platform.vendors.kameleoon.access import VENDOR
from analytics_platform.vendors.kameleoon.checks import CHECKS, TRUTHS
from analytics_platform.vendors.kameleoon.outbound import VisitEvent
from analytics_platform.vendors.kameleoon.streams import LOOKBACK_DAYS, STREAMS, is_sampled

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SENDINGS", "build_assets"]

AUDIENCES_FIELD: Final = "warehouseAudiences"
"""Field of a visitor's map under which the vendor's own tools look for audiences of a warehouse (contract B8)."""


def build_assets(settings: Settings, specs_by_name: Mapping[str, TableSpec]) -> list[dg.AssetsDefinition]:
    """One multi-asset a stream, and the sendings; all partitioned by day × site."""
    return [
        *vendor_assets(STREAMS, settings=settings, specs_by_name=specs_by_name, checks=CHECKS, truths=TRUTHS),
        *sending_assets(SENDINGS, settings=settings, writer=outbox.connect),
    ]


def _conversions(site: Site, rows: pd.DataFrame) -> Iterator[Draft]:
    """Conversions with a goal here; of visitors outside the sample nobody knows whether Kameleoon saw them."""
    goals = site.goals_of(VENDOR)
    if not goals:
        raise ConfigurationError(
            "The site wants offline conversions sent and names no goal.",
            "Add `goals: {purchase: 85}` to its kameleoon block in sites.yaml: the goal's number by its name.",
            Where(vendor=VENDOR, site=site.key),
        )
    share = float((site.ids(VENDOR) or {}).get("visitor_sample", "1.0"))
    for row in rows.itertuples():
        code, name = str(row.visitor_code), str(row.conversion_name)
        if name in goals and is_sampled(code, share):
            event = VisitEvent.conversion(goal_id=goals[name], visitor_code=code, revenue=_amount(row.revenue))
            yield outbox.visit_event_draft(site.key, replace(event, nonce=str(row.conversion_nonce)))


def _amount(revenue: object) -> float:
    """What a conversion was worth; 0 where no vendor said, which is what Kameleoon stores for an event without."""
    amount = float(str(revenue)) if revenue is not None else 0.0
    return amount if math.isfinite(amount) and amount >= 0 else 0.0


def _audiences(site: Site, rows: pd.DataFrame) -> Iterator[Draft]:
    """One map a visitor: all audiences of the day, since a map replaces what was there."""
    for (day, code), members in rows.groupby(["stat_date", "visitor_code"], sort=True):
        fields = {AUDIENCES_FIELD: dict.fromkeys(sorted(members["audience"]), 1)}
        yield outbox.map_draft(site.key, key=str(code), fields=fields, version=f"{day:%Y-%m-%d}")


SENDINGS: Final = (
    Sending(
        name="offline_conversions",
        operation=outbox.VISIT_EVENTS,
        mart="fct_offline_conversions",
        day_column="conversion_date_local",
        description=(
            "Conversions that a session-replay vendor saw at a Kameleoon visitor code and Kameleoon did not, sent as "
            "conversion events. Each has a nonce made of what it is, so that sending it again changes nothing. "
            "Kameleoon files them under the moment they arrive. Only for sites that agreed to it, for goals they named."
        ),
        encode=_conversions,
        # Until then Kameleoon may still tell of a conversion that would be sent a second time.
        settles_after=timedelta(days=LOOKBACK_DAYS),
    ),
    Sending(
        name="audiences",
        operation=outbox.MAPS,
        mart="fct_audience_members",
        day_column="stat_date",
        description=(
            "Audiences of the visitors seen on a day, written to the map under their visitor code; a map replaces what "
            "the key held and is gone after 28 days. A visitor's newest day alone is written. Only for sites that "
            "agreed to it."
        ),
        encode=_audiences,
        newest_by="visitor_code",
    ),
)
