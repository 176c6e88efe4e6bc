"""Kissmetrics' lake tables: the catalogues of one product, as they are today.

Belongs here: `TableSpec` values and the SQL expressions they share. Does not belong here: asking for pages
(`client`), which lists to ask for (`streams`), Dagster.

Source: vendor_docs/kissmetrics.txt (models), contracts/kissmetrics §3.1 (real fields: `index`, `hosts`,
`tracking_key`), §3.6 (traps: enums that the samples violate, two timestamp styles). Every table is a snapshot of the
day it was read: the API has no past. `tracking_key` lets anyone write into the product: declared on the wire, no
column. So are the account's contact name and phone.
"""

from __future__ import annotations

from analytics_platform.core.tables import Column, TableSpec

__all__ = ["ACCOUNTS", "EVENTS", "METRICS", "PRODUCTS", "PROPERTIES", "REPORTS", "TABLES"]

_VENDOR = "kissmetrics"
_SOURCE = "https://github.com/kissmetrics/km-support/blob/master/_posts/2014-09-02-core-api.md"
_RECORDS = ("data", "")
"""Recorded traffic has an envelope, the vendor's document shows bare arrays and objects (trap 2)."""


def _instant(value: str) -> str:
    """SQL: UTC TIMESTAMP of ISO 8601 text with `Z` or any offset (trap 8); without one it is read as UTC.

    A CAST to TIMESTAMP would drop an offset without a word, hence TIMESTAMPTZ. It stands outside the CASE, because
    DuckDB may evaluate a branch for rows that do not take it.
    """
    return (
        f"CAST(CASE WHEN regexp_matches({value}, '(Z|z|[+-][0-9]{{2}}:?[0-9]{{2}})$') "
        f"THEN {value} ELSE {value} || '+00' END AS TIMESTAMPTZ) AT TIME ZONE 'UTC'"
    )


def _at(name: str, meaning: str) -> Column:
    """A UTC instant column named as the vendor's field."""
    return Column(
        name=name, type="TIMESTAMP", expr=_instant(f"r.{name}"), description=f"UTC instant {meaning} (`{name}`)."
    )


_SNAPSHOT_DATE = Column(
    name="snapshot_date",
    type="DATE",
    expr="CAST(c.day AS DATE)",
    nullable=False,
    description="Day the catalogue was read.",
)
_PRODUCT_ID = Column(
    name="product_id",
    type="VARCHAR",
    description="Product the vendor says it belongs to; it may be one that is not listed (trap 8).",
)
_DESCRIPTION = Column(name="description", type="VARCHAR", description="Description (`description`), often null.")
_IS_VISIBLE = Column(
    name="is_visible",
    type="BOOLEAN",
    expr="CAST(r.is_visible AS BOOLEAN)",
    description="Shown in the vendor's library (`is_visible`).",
)
_INDEX = Column(
    name="vendor_index",
    type="BIGINT",
    expr='CAST(r."index" AS BIGINT)',
    description="Integer that queries use instead of the id (`index`; on the wire, not in the vendor's document).",
)
_USED_AND_SENT = (
    _at("first_used_at", "first used"),
    _at("last_used_at", "last used"),
    _at("first_sent_at", "first sent"),
    _at("last_sent_at", "last sent"),
)
"""No order holds among the four: the samples have `first_used_at` before and after `first_sent_at` (trap 10)."""

ACCOUNTS = TableSpec(
    vendor=_VENDOR,
    name="accounts",
    description=(
        "One row per site and snapshot day: the account of the site's product. Source: vendor document, Account "
        "Details."
    ),
    key=("snapshot_date", "account_id"),
    records=_RECORDS,
    calls=("account_detail",),
    is_counted=True,
    day_basis="snapshot",
    source_url=_SOURCE,
    wire={
        "id": "VARCHAR",
        "name": "VARCHAR",
        "status": "VARCHAR",
        "created_at": "VARCHAR",
        "updated_at": "VARCHAR",
        "contact": 'STRUCT("name" VARCHAR, country VARCHAR, phone VARCHAR)',
        "links": "JSON",
    },
    columns=(
        _SNAPSHOT_DATE,
        Column(
            name="account_id",
            type="VARCHAR",
            expr="r.id",
            nullable=False,
            description="Account (`id`, a UUID as text).",
        ),
        Column(name="name", type="VARCHAR", description="Name (`name`)."),
        Column(name="status", type="VARCHAR", allowed=("active", "canceled"), description="active or canceled."),
        Column(name="contact_country", type="VARCHAR", expr="r.contact.country", description="Country of the contact."),
        _at("created_at", "of creation"),
        _at("updated_at", "of the last change"),
    ),
)

PRODUCTS = TableSpec(
    vendor=_VENDOR,
    name="products",
    description="One row per site and snapshot day: the site's product. Source: vendor document, Product Details.",
    key=("snapshot_date", "product_id"),
    records=_RECORDS,
    calls=("product_detail",),
    is_counted=True,
    day_basis="snapshot",
    minimum_rows=1,
    source_url=_SOURCE,
    wire={
        "id": "VARCHAR",
        "account_id": "VARCHAR",
        "name": "VARCHAR",
        "url": "VARCHAR",
        "status": "VARCHAR",
        "environment": "VARCHAR",
        "timezone": "VARCHAR",
        "created_at": "VARCHAR",
        "updated_at": "VARCHAR",
        "tracking_key": "VARCHAR",
        "hosts": "JSON",
        "links": "JSON",
    },
    columns=(
        _SNAPSHOT_DATE,
        Column(
            name="product_id",
            type="VARCHAR",
            expr="r.id",
            nullable=False,
            description="Product (`id`, a UUID as text).",
        ),
        Column(name="account_id", type="VARCHAR", description="Account (`account_id`)."),
        Column(name="name", type="VARCHAR", description="Name (`name`)."),
        Column(name="url", type="VARCHAR", description="Site (`url`)."),
        Column(name="status", type="VARCHAR", allowed=("active", "canceled"), description="active or canceled."),
        Column(
            name="environment",
            type="VARCHAR",
            expr="nullif(r.environment, '')",
            description="Typically production, staging or development; the vendor's own sample is empty (trap 9).",
        ),
        Column(name="timezone", type="VARCHAR", description="Zone the vendor reports in, e.g. the legacy US/Pacific."),
        Column(
            name="hosts",
            type="VARCHAR[]",
            expr="from_json(r.hosts, '[\"VARCHAR\"]')",
            description="Hosts of the product (`hosts`; on the wire, not in the vendor's document).",
        ),
        _at("created_at", "of creation"),
    ),
)

REPORTS = TableSpec(
    vendor=_VENDOR,
    name="reports",
    description="One row per report of the site's product and snapshot day. Source: vendor document, All Reports.",
    key=("snapshot_date", "report_id"),
    records=_RECORDS,
    calls=("report_list",),
    is_counted=True,
    day_basis="snapshot",
    source_url=_SOURCE,
    wire={
        "id": "VARCHAR",
        "account_id": "VARCHAR",
        "product_id": "VARCHAR",
        "name": "VARCHAR",
        "report_type": "VARCHAR",
        "created_at": "VARCHAR",
        "updated_at": "VARCHAR",
        "links": "JSON",
    },
    columns=(
        _SNAPSHOT_DATE,
        Column(
            name="report_id", type="VARCHAR", expr="r.id", nullable=False, description="Report (`id`, a UUID as text)."
        ),
        _PRODUCT_ID,
        Column(name="account_id", type="VARCHAR", description="Account (`account_id`)."),
        Column(name="name", type="VARCHAR", description="Name (`name`)."),
        Column(name="report_type", type="VARCHAR", description="Type, e.g. people_search_v2 (`report_type`)."),
        _at("created_at", "of creation"),
    ),
)

EVENTS = TableSpec(
    vendor=_VENDOR,
    name="events",
    description=(
        "One row per event of the site's product and snapshot day, with its lifetime count: two snapshots "
        "make a difference, one makes "
        "nothing daily. Source: vendor document, All Events; contract Kissmetrics §3.6, trap 14."
    ),
    key=("snapshot_date", "event_id"),
    records=_RECORDS,
    calls=("event_list",),
    is_counted=True,
    day_basis="snapshot",
    source_url=_SOURCE,
    wire={
        "id": "VARCHAR",
        "product_id": "VARCHAR",
        "index": "VARCHAR",
        "name": "VARCHAR",
        "display_name": "VARCHAR",
        "description": "VARCHAR",
        "is_visible": "VARCHAR",
        "total": "VARCHAR",
        "first_used_at": "VARCHAR",
        "last_used_at": "VARCHAR",
        "first_sent_at": "VARCHAR",
        "last_sent_at": "VARCHAR",
        "links": "JSON",
    },
    columns=(
        _SNAPSHOT_DATE,
        Column(
            name="event_id", type="VARCHAR", expr="r.id", nullable=False, description="Event (`id`, a UUID as text)."
        ),
        _PRODUCT_ID,
        _INDEX,
        Column(name="name", type="VARCHAR", description="Name as sent (`name`)."),
        Column(name="display_name", type="VARCHAR", description="Name as shown (`display_name`)."),
        _DESCRIPTION,
        _IS_VISIBLE,
        Column(
            name="total",
            type="BIGINT",
            expr="CAST(r.total AS BIGINT)",
            minimum=0,
            description=(
                "Times tracked since the product began (`total`): a lifetime counter that may fall after a purge."
            ),
        ),
        *_USED_AND_SENT,
    ),
)

PROPERTIES = TableSpec(
    vendor=_VENDOR,
    name="properties",
    description="One row per property of the site's product and snapshot day. Source: vendor document, All Properties.",
    key=("snapshot_date", "property_id"),
    records=_RECORDS,
    calls=("property_list",),
    is_counted=True,
    day_basis="snapshot",
    source_url=_SOURCE,
    wire={
        "id": "VARCHAR",
        "product_id": "VARCHAR",
        "index": "VARCHAR",
        "type": "VARCHAR",
        "name": "VARCHAR",
        "display_name": "VARCHAR",
        "description": "VARCHAR",
        "is_visible": "VARCHAR",
        "first_used_at": "VARCHAR",
        "last_used_at": "VARCHAR",
        "first_sent_at": "VARCHAR",
        "last_sent_at": "VARCHAR",
        "links": "JSON",
    },
    columns=(
        _SNAPSHOT_DATE,
        Column(
            name="property_id",
            type="VARCHAR",
            expr="r.id",
            nullable=False,
            description="Property (`id`, a UUID as text).",
        ),
        _PRODUCT_ID,
        _INDEX,
        Column(
            name="property_type",
            type="VARCHAR",
            expr="r.type",
            allowed=("automatic", "text", "number"),
            description="automatic, text or number (`type`); null in the vendor's own sample (trap 9).",
        ),
        Column(name="name", type="VARCHAR", description="Name as sent (`name`)."),
        Column(name="display_name", type="VARCHAR", description="Name as shown (`display_name`)."),
        _DESCRIPTION,
        _IS_VISIBLE,
        *_USED_AND_SENT,
    ),
)

METRICS = TableSpec(
    vendor=_VENDOR,
    name="metrics",
    description=(
        "One row per metric definition of the site's product and snapshot day; its values are not in this API. "
        "Source: vendor document, All Metrics; contract Kissmetrics §3.5."
    ),
    key=("snapshot_date", "metric_id"),
    records=_RECORDS,
    calls=("metric_list",),
    is_counted=True,
    day_basis="snapshot",
    source_url=_SOURCE,
    wire={
        "id": "VARCHAR",
        "product_id": "VARCHAR",
        "title": "VARCHAR",
        "description": "VARCHAR",
        "unit_type": "VARCHAR",
        "status": "VARCHAR",
        "color": "VARCHAR",
        "sort_index": "VARCHAR",
        "is_visible": "VARCHAR",
        "config_last_changed_at": "VARCHAR",
        "links": "JSON",
    },
    columns=(
        _SNAPSHOT_DATE,
        Column(
            name="metric_id", type="VARCHAR", expr="r.id", nullable=False, description="Metric (`id`, a UUID as text)."
        ),
        _PRODUCT_ID,
        Column(name="title", type="VARCHAR", description="Title (`title`); list and detail may differ (trap 7)."),
        _DESCRIPTION,
        Column(
            name="unit_type",
            type="VARCHAR",
            allowed=("numeric", "time", "percent"),
            description="numeric, time or percent (`unit_type`).",
        ),
        Column(
            name="status",
            type="VARCHAR",
            description="`status` as text: documented as boolean, sampled as `pending` (trap 9).",
        ),
        Column(name="color", type="VARCHAR", description="Colour in the dashboard (`color`)."),
        Column(
            name="sort_index",
            type="BIGINT",
            expr="CAST(r.sort_index AS BIGINT)",
            description="Position in the dashboard (`sort_index`).",
        ),
        _IS_VISIBLE,
        _at("config_last_changed_at", "the definition last changed"),
    ),
)

TABLES: tuple[TableSpec, ...] = (ACCOUNTS, PRODUCTS, REPORTS, EVENTS, PROPERTIES, METRICS)
