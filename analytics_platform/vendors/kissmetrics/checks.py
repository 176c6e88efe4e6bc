"""What the shape of Kissmetrics' tables cannot say by itself: checks only this vendor needs.

Belongs here: named checks on one table's frame. Does not belong here: keys, types, ranges, row floors and drift, which
follow from the table's declaration (`core.checks`: a property's `type: null` is one of its unknown values); what needs
yesterday's snapshot, as the lifetime totals do (a dbt test); the links' foreign host (`client` follows none).

Source: MARTS §3.3; contract Kissmetrics, trap 9 (enumerations that the samples violate).
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from analytics_platform.core.truths import Truth
from analytics_platform.core.vendor_checks import Finding, VendorCheck, finding

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CHECKS", "TRUTHS"]


def _metric_status_is_text_or_boolean(frame: pd.DataFrame) -> Finding:
    status = frame["status"].astype("string")
    is_boolean = status.str.fullmatch("true|false", case=False).fillna(value=False)
    is_word = status.str.fullmatch(r"[A-Za-z][A-Za-z _-]*").fillna(value=False)
    return finding(
        frame,
        status.notna() & ~is_word,
        fault="a metric's status is neither a word nor true or false",
        next_step=(
            "Marts carry the status as text and count nothing by it. Look at the landed page and describe the new form "
            "in the column of tables.py."
        ),
        metrics={"boolean_statuses": int(is_boolean.sum()), "word_statuses": int((is_word & ~is_boolean).sum())},
    )


def _product_timezone_is_known(frame: pd.DataFrame) -> Finding:
    zones = frame["timezone"]
    known = zoneinfo.available_timezones()
    return finding(
        frame,
        ~zones.isin(known),
        fault="the product's time zone is missing or in no time zone database",
        next_step=(
            "Set the zone in the vendor's product settings. The vendor's days cannot be compared with other vendors' "
            "days until it is known."
        ),
        metrics={"products_without_timezone": int(zones.isna().sum())},
    )


CHECKS: Final[Sequence[VendorCheck]] = (
    VendorCheck(
        table="metrics",
        name="metric_status_is_text_or_boolean",
        description="The document says a metric's status is a boolean, its own sample and the wire also say pending.",
        blocking=False,
        run=_metric_status_is_text_or_boolean,
    ),
    VendorCheck(
        table="products",
        name="product_timezone_is_known",
        description=(
            "The document calls timezone the product's zone and promises no form, the wire sends legacy aliases "
            "such as US/Pacific: each must be in the time zone database."
        ),
        blocking=False,
        run=_product_timezone_is_known,
    ),
)
"""All warnings: the catalogue describes, it measures nothing that a mart counts."""

TRUTHS: Final[Sequence[Truth]] = tuple(
    Truth(
        table=table,
        name=f"{table}_are_of_a_landed_product",
        description=f"Each row of kissmetrics/{table} names a product of the same snapshot in kissmetrics/products.",
        reads=("kissmetrics/products", f"kissmetrics/{table}"),
        blocking=False,
        sql=f"""
            SELECT day, count(*) AS checked, count(*) FILTER (products.product_id IS NULL) AS broken
            FROM kissmetrics.{table} AS listed
            LEFT JOIN (SELECT DISTINCT day, product_id FROM kissmetrics.products) AS products
                USING (day, product_id)
            GROUP BY day
        """,
        fault="the row is of a product that the account does not list",
        next_step="Compare product_id in sites.yaml with the vendor's products: the counters may be another site's.",
    )
    for table in ("events", "metrics")
)
"""Both warn: a product that was cancelled, or is not the token's, is legal (contract Kissmetrics §3.5, trap 8)."""
