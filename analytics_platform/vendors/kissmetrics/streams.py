"""How Kissmetrics is asked: one stream reads the whole catalogue of a product as it is today.

Belongs here: which lists are asked for, resuming them, quota windows. Does not belong here: the wire (`client`),
columns (`tables`), Dagster.

Details are the only source of products and accounts: the same id reads differently in a list (contract §3.6, trap 7).
There is no `updated_since`, so every snapshot is a full one (trap 14).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

from analytics_platform.core.errors import ConfigurationError, NotFound, PermissionDenied
from analytics_platform.core.forecast import Forecast, Outlook
from analytics_platform.core.paging import Page
from analytics_platform.core.streams import Extraction, Stream
from analytics_platform.vendors.kissmetrics.client import Collection, KissmetricsClient, account_id_of
from analytics_platform.vendors.kissmetrics.tables import TABLES

__all__ = ["DEFAULT_REQUESTS_PER_MINUTE", "STREAMS"]

DEFAULT_REQUESTS_PER_MINUTE: Final = 60
"""The vendor documents no limit: a polite guess. `requests_per_minute` in sites.yaml overrides it; a 429 teaches."""

_COLLECTIONS: Final[tuple[Collection, ...]] = ("events", "properties", "reports", "metrics")


_LIST_KINDS: Final = ("event_list", "property_list", "report_list", "metric_list")
_MOST_PAGES: Final = 10
"""Of a list, taken as possible where none is landed yet: a thousand entries."""


def extract_catalogue(client: KissmetricsClient, extraction: Extraction) -> Iterator[Page]:
    """The product, its account, and its four lists."""
    product_id = _product_id(extraction)
    context = {"day": extraction.first_day.isoformat()}
    if not {"product", "account"} <= extraction.done_calls:
        # An interrupted snapshot asks for the product again only to learn whose account it is.
        product = client.product(product_id, call="product", context=context)
        if "product" not in extraction.done_calls:
            yield product
        yield from _account(client, extraction, account_id_of(product), context)
    for collection in _COLLECTIONS:
        if collection not in extraction.done_calls:
            yield from client.product_list(product_id, collection, call=collection, context=context)


def _account(
    client: KissmetricsClient, extraction: Extraction, account_id: str | None, context: Mapping[str, str]
) -> Iterator[Page]:
    """The parent account. One that the token may not see is legal (contract §3.6, trap 8): the snapshot goes on
    without it.
    """
    if account_id is None or "account" in extraction.done_calls:
        return
    try:
        page = client.account(account_id, call="account", context=context)
    except (PermissionDenied, NotFound):
        extraction.log.warning("kissmetrics/accounts %s: the product's account is not visible", extraction.site_key)
        return
    yield page


def forecast_catalogue(outlook: Outlook) -> Forecast:
    """Product, account, and the pages of four lists as they were in the last snapshots."""
    pages = [outlook.history.pages_per_call(kind) for kind in _LIST_KINDS]
    known = [count for count in pages if count is not None]
    if len(known) < len(pages):
        return Forecast.unknown(least=2 + len(pages), most=2 + _MOST_PAGES * len(pages))
    return Forecast.exactly(2 + sum(math.ceil(count) for count in known))


def _product_id(extraction: Extraction) -> str:
    product_id = extraction.ids.get("product_id", "")
    if not product_id:
        raise ConfigurationError(
            f"Site {extraction.site_key} has no product_id for kissmetrics.",
            "Set vendors.kissmetrics.product_id in sites.yaml (GET /core/products lists them).",
        )
    return product_id


STREAMS: tuple[Stream, ...] = (
    Stream(
        vendor="kissmetrics",
        name="catalogue",
        tables=TABLES,
        span="snapshot",
        extract=extract_catalogue,
        forecast=forecast_catalogue,
    ),
)
