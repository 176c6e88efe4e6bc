"""Kameleoon lake tables: visits of the visitor codes the other vendors saw, and product counters.

Belongs here: columns, keys, units and where they sit in the answers. Does not belong here: HTTP (`client`), which
visitors are asked for (`streams`), Dagster.

Facts the tables rely on (vendor document "Data API", and the wire contract):

* There is no list of visitors: the rows are a panel of known visitor codes, never the site's traffic.
* Times are epoch **milliseconds**; a value that cannot be one (seconds) stops the decode instead of landing in 1970.
* Members that were not asked for or never happened are absent, not empty; zero counters are absent too.
* A visit belongs to the UTC day it started, and so do its pages, exposures and conversions: a conversion posted later
  is still a row of the visit's day.
"""

from __future__ import annotations

from typing import Final

from analytics_platform.core.identity import person_ref_sql
from analytics_platform.core.tables import Column, Sensitivity, TableSpec

__all__ = ["CONVERSIONS", "EXPOSURES", "MAX_PREVIOUS_VISITS", "PRODUCT_COUNTERS", "TABLES", "VISITS", "VISIT_PAGES"]

_DOCUMENT: Final = "https://developers.kameleoon.com/apis/data-api-rest/overview/"

MAX_PREVIOUS_VISITS: Final = 25
"""Past visits in one answer: the most the vendor's own SDK asks for; there is no paging behind them."""

_MILLISECONDS_FLOOR: Final = 100_000_000_000
"""1973-03-03 in milliseconds; as seconds it is the year 5138, so a smaller value is in seconds. Low enough for a
replayed log of the nineties."""


def _instant(field: str) -> str:
    """Expression of a UTC TIMESTAMP for a field in epoch milliseconds; anything else is an error, NULL stays NULL."""
    return (
        f"CASE WHEN {field} IS NULL THEN NULL "
        f"WHEN CAST({field} AS BIGINT) >= {_MILLISECONDS_FLOOR} THEN epoch_ms(CAST({field} AS BIGINT)) "
        "ELSE error('a Kameleoon time is not in epoch milliseconds') END"
    )


def _by_time(events: str) -> str:
    """The list in order of time: the order of the wire is not documented."""
    return f"list_sort({events})"


def _newest(events: str, member: str) -> str:
    """Member of the newest event of a list."""
    return f'list_extract(list_reverse_sort({events}), 1)."data".{member}'


_STATIC_DATA: Final = (
    'STRUCT("data" STRUCT(visitNumber VARCHAR, timeSincePreviousVisit VARCHAR, firstReferrerHref VARCHAR, '
    "browser VARCHAR, browserIndex VARCHAR, browserVersion VARCHAR, os VARCHAR, osIndex VARCHAR, windowWidth VARCHAR, "
    "windowHeight VARCHAR, screenWidth VARCHAR, screenHeight VARCHAR, timeZoneId VARCHAR, localeLanguageTag VARCHAR, "
    "deviceType VARCHAR, "
    'mappingIdentifier VARCHAR), itp VARCHAR, "time" VARCHAR)'
)


def _events(data: str) -> str:
    """Wire type of an event list; `time` (epoch milliseconds) first, so that sorting the structs sorts by it."""
    return f'STRUCT("time" BIGINT, "data" STRUCT({data}), sdk VARCHAR, itp VARCHAR)[]'


_PAGE_EVENTS: Final = _events(
    "href VARCHAR, canonicalHref VARCHAR, title VARCHAR, keyPagesIndices VARCHAR, referrerHref VARCHAR, "
    "referrersIndices VARCHAR"
)
_CUSTOM_DATA_EVENTS: Final = _events(
    '"index" VARCHAR, valuesCountMap VARCHAR, "overwrite" VARCHAR, mappingIdentifier VARCHAR'
)
_CONVERSION_EVENTS: Final = _events("goalId VARCHAR, revenue VARCHAR, negative VARCHAR, metadata VARCHAR")
_VARIATION_EVENTS: Final = _events("id VARCHAR, variationId VARCHAR")
_GEOLOCATION_EVENTS: Final = _events(
    "country VARCHAR, region VARCHAR, city VARCHAR, postalCode VARCHAR, latitude VARCHAR, longitude VARCHAR"
)

_VISIT_WIRE: Final = {
    "siteCode": "VARCHAR",
    "visitorCode": "VARCHAR",
    "timeStarted": "VARCHAR",
    "timeLastEvent": "VARCHAR",
    "staticDataEvent": _STATIC_DATA,
    "pageEvents": _PAGE_EVENTS,
    "customDataEvents": _CUSTOM_DATA_EVENTS,
    "conversionEvents": _CONVERSION_EVENTS,
    "experimentEvents": _VARIATION_EVENTS,
    "personalizationEvents": _VARIATION_EVENTS,
    "geolocationEvents": _GEOLOCATION_EVENTS,
}

_VISIT_RECORDS: Final = ("previousVisits", "currentVisit")
_VISIT_DAY: Final = f"CAST({_instant('r.timeStarted')} AS DATE)"

# The slot the site declared to be its visitors' own id, newest first; the map's member names are the values.
_MAPPING_VALUE: Final = (
    "list_extract(json_keys(list_extract(list_filter("
    "list_reverse_sort(r.customDataEvents), lambda slot: slot.\"data\".mappingIdentifier = 'true'), 1)"
    '."data".valuesCountMap), 1)'
)

_VISITOR_CODE: Final = Column(
    name="visitor_code",
    type="VARCHAR",
    description="Kameleoon's visitor code (cookie, 365 days). Wire: visitorCode.",
    expr="COALESCE(r.visitorCode, c.visitor_code)",
    nullable=False,
    sensitivity=Sensitivity.PSEUDONYMOUS,
    identifies="kameleoon_visitor_code",
)
_VISIT_STARTED_AT: Final = Column(
    name="visit_started_at",
    type="TIMESTAMP",
    description="UTC instant the visit started: with visitor_code the key of kameleoon/visits. Wire: timeStarted.",
    expr=_instant("r.timeStarted"),
    nullable=False,
)


def _static(
    name: str, type_: str, description: str, member: str, *, scale: str = "", minimum: float | None = None
) -> Column:
    expression = f'r.staticDataEvent."data".{member}'
    return Column(
        name=name,
        type=type_,
        description=f"{description} Wire: staticDataEvent.data.{member}.",
        expr=f"CAST({expression} AS {type_}){scale}",
        minimum=minimum,
    )


VISITS: Final = TableSpec(
    vendor="kameleoon",
    name="visits",
    description=(
        "One row per visitor code and visit start, for the visitor codes other vendors saw: a panel, not the site's "
        "traffic. Document: Data API, GET /visit/visitor (past visits; the current with Feature Experimentation)."
    ),
    key=("visitor_code", "started_at"),
    columns=(
        _VISITOR_CODE,
        Column(
            name="started_at",
            type="TIMESTAMP",
            description="UTC instant the visit started. Wire: timeStarted.",
            expr=_instant("r.timeStarted"),
            nullable=False,
        ),
        Column(
            name="last_event_at",
            type="TIMESTAMP",
            description="UTC instant of the last event of the visit. Wire: timeLastEvent.",
            expr=_instant("r.timeLastEvent"),
        ),
        Column(
            name="duration_seconds",
            type="DOUBLE",
            description="timeLastEvent minus timeStarted, in seconds (the vendor rejects visits over 120 min).",
            expr="(CAST(r.timeLastEvent AS BIGINT) - CAST(r.timeStarted AS BIGINT)) / 1000.0",
            minimum=0,
        ),
        Column(name="site_code", type="VARCHAR", description="Kameleoon site code. Wire: siteCode.", expr="r.siteCode"),
        Column(
            name="page_count",
            type="BIGINT",
            description="Page events of the visit; 0 where there are none.",
            expr="COALESCE(len(r.pageEvents), 0)",
            nullable=False,
            minimum=0,
        ),
        Column(
            name="conversion_count",
            type="BIGINT",
            description="Conversion events of the visit, reversals included.",
            expr="COALESCE(len(r.conversionEvents), 0)",
            nullable=False,
            minimum=0,
        ),
        Column(
            name="exposure_count",
            type="BIGINT",
            description="Experiment and personalization events of the visit.",
            expr="COALESCE(len(r.experimentEvents), 0) + COALESCE(len(r.personalizationEvents), 0)",
            nullable=False,
            minimum=0,
        ),
        Column(
            name="landing_url",
            type="VARCHAR",
            description="href of the earliest page event; NULL where the visit has none.",
            expr=f'list_extract({_by_time("r.pageEvents")}, 1)."data".href',
        ),
        Column(
            name="exit_url",
            type="VARCHAR",
            description="href of the latest page event; NULL where the visit has none.",
            expr=_newest("r.pageEvents", "href"),
        ),
        _static(
            "visit_number",
            "BIGINT",
            "Visits of this visitor before this one: 0 is the first visit.",
            "visitNumber",
            minimum=0,
        ),
        _static(
            "seconds_since_previous_visit",
            "DOUBLE",
            "Seconds since the previous visit (milliseconds on the wire).",
            "timeSincePreviousVisit",
            scale=" / 1000.0",
            minimum=0,
        ),
        _static("first_referrer_url", "VARCHAR", "Referrer of the visit's first page.", "firstReferrerHref"),
        Column(
            name="device_type",
            type="VARCHAR",
            description="PHONE, TABLET or DESKTOP. Wire: staticDataEvent.data.deviceType.",
            expr='r.staticDataEvent."data".deviceType',
            allowed=("PHONE", "TABLET", "DESKTOP"),
        ),
        Column(
            name="browser",
            type="VARCHAR",
            description="Browser family; Edge and Samsung fall in CHROME or OTHER. Wire: staticDataEvent.data.browser.",
            expr='r.staticDataEvent."data".browser',
            allowed=("CHROME", "IE", "FIREFOX", "SAFARI", "OPERA", "OTHER"),
        ),
        _static("browser_version", "VARCHAR", "Browser version as text, e.g. 99.0.", "browserVersion"),
        Column(
            name="os",
            type="VARCHAR",
            description="Operating system family. Wire: staticDataEvent.data.os.",
            expr='r.staticDataEvent."data".os',
            allowed=("WINDOWS", "MAC", "IOS", "LINUX", "ANDROID", "WINDOWS_PHONE"),
        ),
        _static("window_width_px", "INTEGER", "Viewport width in CSS pixels.", "windowWidth", minimum=0),
        _static("window_height_px", "INTEGER", "Viewport height in CSS pixels.", "windowHeight", minimum=0),
        _static("screen_width_px", "INTEGER", "Screen width in pixels.", "screenWidth", minimum=0),
        _static("screen_height_px", "INTEGER", "Screen height in pixels.", "screenHeight", minimum=0),
        _static("time_zone", "VARCHAR", "Visitor's IANA time zone.", "timeZoneId"),
        _static("locale", "VARCHAR", "Visitor's locale, e.g. fr-FR.", "localeLanguageTag"),
        Column(
            name="country",
            type="VARCHAR",
            description="Country of the newest geolocation event: a name or a code, as the vendor gives it.",
            expr=_newest("r.geolocationEvents", "country"),
        ),
        Column(
            name="region",
            type="VARCHAR",
            description="Region of the newest geolocation event.",
            expr=_newest("r.geolocationEvents", "region"),
        ),
        Column(
            name="city",
            type="VARCHAR",
            description="City of the newest geolocation event.",
            expr=_newest("r.geolocationEvents", "city"),
        ),
        Column(
            name="postal_code",
            type="VARCHAR",
            description="Postal code of the newest geolocation event.",
            expr=_newest("r.geolocationEvents", "postalCode"),
            sensitivity=Sensitivity.PERSONAL,
        ),
        Column(
            name="latitude_degrees",
            type="DOUBLE",
            description="Latitude of the newest geolocation event.",
            expr=_newest("r.geolocationEvents", "latitude"),
            sensitivity=Sensitivity.PERSONAL,
            minimum=-90,
            maximum=90,
        ),
        Column(
            name="longitude_degrees",
            type="DOUBLE",
            description="Longitude of the newest geolocation event.",
            expr=_newest("r.geolocationEvents", "longitude"),
            sensitivity=Sensitivity.PERSONAL,
            minimum=-180,
            maximum=180,
        ),
        Column(
            name="custom_data",
            type="VARCHAR",
            description="Custom data events as a JSON list (data.index, data.valuesCountMap, time); NULL where none.",
            expr="CASE WHEN len(r.customDataEvents) > 0 THEN to_json(r.customDataEvents) END",
            sensitivity=Sensitivity.PERSONAL,
        ),
        Column(
            name="login_ref",
            type="VARCHAR",
            description=(
                "Keyed hash of the newest mapping value (customDataEvents with mappingIdentifier); NULL without a key, "
                "an agreement of the site, or a value that is a person's."
            ),
            expr=person_ref_sql(_MAPPING_VALUE),
            sensitivity=Sensitivity.PSEUDONYMOUS,
        ),
        Column(
            name="possibly_truncated",
            type="BOOLEAN",
            description=f"The answer held {MAX_PREVIOUS_VISITS} visits or more, its most: older may be missing.",
            expr=f"CAST(c.records AS BIGINT) >= {MAX_PREVIOUS_VISITS}",
            nullable=False,
        ),
    ),
    wire=_VISIT_WIRE,
    calls=("visitor",),
    is_counted=True,
    records=_VISIT_RECORDS,
    union_records=True,
    context=("visitor_code",),
    day=_VISIT_DAY,
    anchor="started_at",
    measures={
        "sessions": "count(*)",
        "visitors": "count(DISTINCT visitor_code)",
        "views": "sum(page_count)",
        "conversions": "sum(conversion_count)",
    },
    source_url=_DOCUMENT,
)

VISIT_PAGES: Final = TableSpec(
    vendor="kameleoon",
    name="visit_pages",
    description=(
        "One row per page event of a visit. Document: Data API, GET /visit/visitor with page=true (pageEvents)."
    ),
    key=("visitor_code", "visit_started_at", "page_number"),
    columns=(
        _VISITOR_CODE,
        _VISIT_STARTED_AT,
        Column(
            name="page_number",
            type="BIGINT",
            description="Position in the visit by time, from 1.",
            expr="i",
            nullable=False,
            minimum=1,
        ),
        Column(
            name="viewed_at",
            type="TIMESTAMP",
            description="UTC instant of the page event. Wire: time.",
            expr=_instant('e."time"'),
            nullable=False,
        ),
        Column(name="url", type="VARCHAR", description="Full URL. Wire: data.href.", expr='e."data".href'),
        Column(
            name="canonical_url",
            type="VARCHAR",
            description="Canonical URL of the page. Wire: data.canonicalHref.",
            expr='e."data".canonicalHref',
        ),
        Column(name="title", type="VARCHAR", description="Page title.", expr='e."data".title'),
        Column(
            name="referrer_url",
            type="VARCHAR",
            description="Referrer of the page. Wire: data.referrerHref.",
            expr='e."data".referrerHref',
        ),
    ),
    wire=_VISIT_WIRE,
    calls=("visitor",),
    is_counted=True,
    records=_VISIT_RECORDS,
    union_records=True,
    context=("visitor_code",),
    explode=_by_time("r.pageEvents"),
    day=_VISIT_DAY,
    anchor="viewed_at",
    source_url=_DOCUMENT,
)

# One list of both kinds; the kind is known only by the list an event came in, so it is told by position.
_EXPOSURE_EVENTS: Final = f"list_concat({_by_time('r.experimentEvents')}, {_by_time('r.personalizationEvents')})"
_EXPOSURE_KIND: Final = (
    "CASE WHEN i <= COALESCE(len(r.experimentEvents), 0) THEN 'experiment' ELSE 'personalization' END"
)

EXPOSURES: Final = TableSpec(
    vendor="kameleoon",
    name="exposures",
    description=(
        "One row per experiment or personalization event of a visit. Document: Data API, GET /visit/visitor with "
        "experiment=true and personalization=true (experimentEvents, personalizationEvents)."
    ),
    key=("visitor_code", "visit_started_at", "exposure_number"),
    columns=(
        _VISITOR_CODE,
        _VISIT_STARTED_AT,
        Column(
            name="exposure_number",
            type="BIGINT",
            description="Position in the visit, from 1: experiments by time, then personalizations by time.",
            expr="i",
            nullable=False,
            minimum=1,
        ),
        Column(
            name="kind",
            type="VARCHAR",
            description="experiment or personalization.",
            expr=_EXPOSURE_KIND,
            nullable=False,
            allowed=("experiment", "personalization"),
        ),
        Column(
            name="experiment_id",
            type="VARCHAR",
            description="Id of the experiment or personalization (two id spaces: use with kind). Wire: data.id.",
            expr='e."data".id',
            nullable=False,
        ),
        Column(
            name="variation_id",
            type="VARCHAR",
            description="Id of the variation; 0 is the reference. Wire: data.variationId.",
            expr='e."data".variationId',
        ),
        Column(
            name="exposed_at",
            type="TIMESTAMP",
            description="UTC instant of the exposure. Wire: time.",
            expr=_instant('e."time"'),
            nullable=False,
        ),
    ),
    wire=_VISIT_WIRE,
    calls=("visitor",),
    is_counted=True,
    records=_VISIT_RECORDS,
    union_records=True,
    context=("visitor_code",),
    explode=_EXPOSURE_EVENTS,
    day=_VISIT_DAY,
    anchor="exposed_at",
    source_url=_DOCUMENT,
)

CONVERSIONS: Final = TableSpec(
    vendor="kameleoon",
    name="conversions",
    description=(
        "One row per conversion event of a visit, offline ones included as they arrive. Document: Data API, "
        "GET /visit/visitor with conversion=true (conversionEvents)."
    ),
    key=("visitor_code", "visit_started_at", "conversion_number"),
    columns=(
        _VISITOR_CODE,
        _VISIT_STARTED_AT,
        Column(
            name="conversion_number",
            type="BIGINT",
            description="Position in the visit by time, from 1.",
            expr="i",
            nullable=False,
            minimum=1,
        ),
        Column(
            name="goal_id",
            type="VARCHAR",
            description="Goal id. Wire: data.goalId.",
            expr='e."data".goalId',
            nullable=False,
        ),
        Column(
            name="revenue",
            type="DOUBLE",
            description="Revenue in the site's currency (the API names none); NULL where none was sent.",
            expr='e."data".revenue',
        ),
        Column(
            name="is_reversal",
            type="BOOLEAN",
            description="The conversion takes back an earlier one. Wire: data.negative; absent is false.",
            expr='COALESCE(CAST(e."data".negative AS BOOLEAN), false)',
            nullable=False,
        ),
        Column(
            name="converted_at",
            type="TIMESTAMP",
            description="UTC instant of the conversion. Wire: time.",
            expr=_instant('e."time"'),
            nullable=False,
        ),
        Column(
            name="metadata",
            type="VARCHAR",
            description="Metadata sent with the conversion, as JSON text.",
            expr='e."data".metadata',
            sensitivity=Sensitivity.PERSONAL,
        ),
    ),
    wire=_VISIT_WIRE,
    calls=("visitor",),
    is_counted=True,
    records=_VISIT_RECORDS,
    union_records=True,
    context=("visitor_code",),
    explode=_by_time("r.conversionEvents"),
    day=_VISIT_DAY,
    anchor="converted_at",
    source_url=_DOCUMENT,
)

PRODUCT_COUNTERS: Final = TableSpec(
    vendor="kameleoon",
    name="product_counters",
    description=(
        "One row per UTC day and product (EAN) of the configured list. Document: Data API, "
        "GET /product/productCounters (needs the Product Recommendation or Product Targeting add-on)."
    ),
    key=("stat_date", "ean"),
    columns=(
        Column(
            name="stat_date",
            type="DATE",
            description="UTC day the counters were asked for.",
            expr="CAST(c.day AS DATE)",
            nullable=False,
        ),
        Column(
            name="ean",
            type="VARCHAR",
            description="Product code: the member name in the answer.",
            expr='r."key"',
            nullable=False,
        ),
        Column(
            name="views",
            type="BIGINT",
            description="Product page views. Wire: v; absent is 0.",
            expr="COALESCE(r.\"value\".v, '0')",
            nullable=False,
            minimum=0,
        ),
        Column(
            name="add_to_cart_quantity",
            type="BIGINT",
            description="Units added to a cart. Wire: atcq; absent is 0.",
            expr="COALESCE(r.\"value\".atcq, '0')",
            nullable=False,
            minimum=0,
        ),
        Column(
            name="bought_quantity",
            type="BIGINT",
            description="Units bought. Wire: bq; absent is 0.",
            expr="COALESCE(r.\"value\".bq, '0')",
            nullable=False,
            minimum=0,
        ),
    ),
    wire={"key": "VARCHAR", "value": "STRUCT(v VARCHAR, atcq VARCHAR, bq VARCHAR)"},
    calls=("product_counters",),
    is_counted=True,
    records=("{}",),
    anchor="stat_date",
    source_url=_DOCUMENT,
)

TABLES: Final = (VISITS, VISIT_PAGES, EXPOSURES, CONVERSIONS, PRODUCT_COUNTERS)
