"""Smartlook's lake tables: columns, natural keys, units, and where each value sits in a page.

Belongs here: `TableSpec` values and the SQL expressions they share. Does not belong here: asking for pages
(`client`), which days to ask for (`streams`), Dagster.

Source: contracts/smartlook §1.1 (field names), §1.4 (traps: one name, two types); vendor_docs/smartlook.txt. Raw IPs
are declared on the wire, so that they are known, and have no column, so that none reaches the lake.
"""

from __future__ import annotations

from collections.abc import Sequence

from analytics_platform.core.identity import person_ref_sql
from analytics_platform.core.tables import Column, Sensitivity, TableSpec

__all__ = ["EVENTS", "EVENT_DAILY", "FUNNELS", "SESSIONS", "TABLES", "VISITORS"]

_VENDOR = "smartlook"
_SOURCE = "https://integrations.smartlook.com/reference"


def _instant(value: str) -> str:
    """SQL: UTC TIMESTAMP of an ISO 8601 text (any offset; none means UTC), or of Unix milliseconds.

    The vendor never states the format (contract §1.1): ISO is inferred, milliseconds are third-party hearsay; both
    are unambiguous. A CAST to TIMESTAMP would drop an offset without a word, hence TIMESTAMPTZ. The one raising CAST
    is outside the CASE, because DuckDB may evaluate a branch for rows that do not take it; anything else fails it,
    loudly. A text in UTC, which is what is seen, is spared the patterns and the zone: together half a decode's
    expressions.
    """
    any_zone = (
        f"CAST(CASE WHEN regexp_full_match({value}, '[0-9]{{12,}}') "
        f"THEN CAST(epoch_ms(TRY_CAST({value} AS BIGINT)) AS VARCHAR) || '+00' "
        f"WHEN regexp_matches({value}, '(Z|z|[+-][0-9]{{2}}:?[0-9]{{2}})$') THEN {value} "
        f"ELSE {value} || '+00' END AS TIMESTAMPTZ) AT TIME ZONE 'UTC'"
    )
    is_utc = f"ends_with({value}, 'Z') AND NOT contains({value}, ' ')"
    return f"CAST(CASE WHEN {is_utc} THEN {value} ELSE CAST({any_zone} AS VARCHAR) END AS TIMESTAMP)"


def _texts(value: str) -> str:
    """SQL: VARCHAR[] of a JSON value that is an array on sessions and a plain string elsewhere (§1.4, trap 12)."""
    return (
        f"CASE json_type({value}) WHEN 'ARRAY' THEN from_json({value}, '[\"VARCHAR\"]') "
        f"WHEN 'VARCHAR' THEN [json_extract_string({value}, '$')] ELSE CAST([] AS VARCHAR[]) END"
    )


def _property(value: str, names: Sequence[str]) -> str:
    """SQL: the first of `names` in `identification.properties`: an object on sessions, an array of name/value on
    visitors. Most have none.
    """
    by_key = ", ".join(f"json_extract_string({value}, '$.{name}')" for name in names)
    listed = ", ".join(f"'{name}'" for name in names)
    by_name = (
        f"json_extract_string(list_filter(from_json({value}, '[\"JSON\"]'), "
        f"lambda p: json_extract_string(p, '$.name') IN ({listed}))[1], '$.value')"
    )
    found = f"CASE json_type({value}) WHEN 'OBJECT' THEN COALESCE({by_key}) WHEN 'ARRAY' THEN {by_name} END"
    return f"CASE WHEN {value} <> '{{}}' THEN {found} END"


_EMAIL_PROPERTIES = ("email", "user_email")
_KAMELEOON_PROPERTIES = ("kameleoon_visitor_code",)

_PAGE_URLS = _texts('r."pageUrl"')
_SESSION_STARTED = _instant('r."startedAt"')

SESSIONS = TableSpec(
    vendor=_VENDOR,
    name="sessions",
    description=(
        "One row per recorded session, in the UTC day of its start. A session ends after 15 minutes idle or "
        "60 minutes long and is "
        "recorded only for consenting visitors, after their first activity. Source: contract Smartlook §1.1, "
        "POST sessions/search."
    ),
    key=("session_id",),
    records=("sessions",),
    is_counted=True,
    calls=("session_search",),
    context=(),
    day=f"CAST({_SESSION_STARTED} AS DATE)",
    anchor="started_at",
    source_url=_SOURCE,
    identifies={"ip": 'r.identification."visitorIp"'},
    measures={"sessions": "count(*)", "visitors": "count(DISTINCT visitor_id)", "views": "sum(page_count)"},
    wire={
        "id": "VARCHAR",
        "visitorId": "VARCHAR",
        "identification": (
            "STRUCT(uid VARCHAR, properties JSON, visitorIp VARCHAR, "
            'browser STRUCT("name" VARCHAR, code VARCHAR, userAgent VARCHAR), '
            'platform STRUCT("name" VARCHAR, operatingSystem VARCHAR, code VARCHAR), '
            'country STRUCT("name" VARCHAR, code VARCHAR, region VARCHAR, city VARCHAR), '
            'device STRUCT("type" VARCHAR, orientation VARCHAR, width VARCHAR, height VARCHAR))'
        ),
        "duration": "VARCHAR",
        "startedAt": "VARCHAR",
        "endedAt": "VARCHAR",
        "referrer": "VARCHAR",
        "landingPage": "VARCHAR",
        "exitPage": "VARCHAR",
        "pageUrl": "JSON",
        "notes": "JSON",
        "domain": "VARCHAR",
        "protocol": "VARCHAR",
        "dashboardURL": "VARCHAR",
        "_links": "JSON",
    },
    columns=(
        Column(
            name="session_id",
            type="VARCHAR",
            expr="r.id",
            nullable=False,
            identifies="smartlook_session",
            description="Session id (`id`).",
        ),
        Column(
            name="visitor_id",
            type="VARCHAR",
            identifies="smartlook_visitor_id",
            expr='r."visitorId"',
            sensitivity=Sensitivity.PSEUDONYMOUS,
            description="Cookie visitor (`visitorId`); a cleared cookie is a new one, the Identify API merges.",
        ),
        Column(
            name="uid",
            type="VARCHAR",
            identifies="uid",
            expr="nullif(r.identification.uid, '')",
            sensitivity=Sensitivity.PERSONAL,
            description="The site's own user id given to the Identify API (`identification.uid`).",
        ),
        Column(
            name="email",
            type="VARCHAR",
            identifies="email",
            expr=_property("r.identification.properties", _EMAIL_PROPERTIES),
            sensitivity=Sensitivity.PERSONAL,
            description="E-mail given to the Identify API (`identification.properties`, email or user_email).",
        ),
        Column(
            name="uid_ref",
            type="VARCHAR",
            expr=person_ref_sql("r.identification.uid"),
            sensitivity=Sensitivity.PSEUDONYMOUS,
            description="Keyed hash of `uid`; NULL without a key, an agreement of the site, or a person's value.",
        ),
        Column(
            name="email_ref",
            type="VARCHAR",
            expr=person_ref_sql(f"({_property('r.identification.properties', _EMAIL_PROPERTIES)})"),
            sensitivity=Sensitivity.PSEUDONYMOUS,
            description="Keyed hash of `email`; NULL as `uid_ref` is.",
        ),
        Column(
            name="kameleoon_visitor_code",
            type="VARCHAR",
            identifies="kameleoon_visitor_code",
            expr=_property("r.identification.properties", _KAMELEOON_PROPERTIES),
            sensitivity=Sensitivity.PSEUDONYMOUS,
            description=(
                "Kameleoon visitor code the site set as a property: the key of Kameleoon's per-visitor endpoint."
            ),
        ),
        Column(
            name="started_at",
            type="TIMESTAMP",
            expr=_SESSION_STARTED,
            nullable=False,
            description="UTC instant of the start (`startedAt`).",
        ),
        Column(
            name="ended_at",
            type="TIMESTAMP",
            expr=_instant('r."endedAt"'),
            description="UTC instant of the end (`endedAt`).",
        ),
        Column(
            name="duration_seconds",
            type="DOUBLE",
            expr="CAST(r.duration AS DOUBLE)",
            minimum=0,
            maximum=86_400,
            description="Length in seconds (`duration`; the unit is the vendor's own client's reading, contract §1.1).",
        ),
        Column(
            name="page_urls",
            type="VARCHAR[]",
            expr=_PAGE_URLS,
            description="URLs in order of visit (`pageUrl`), without times.",
        ),
        Column(
            name="page_count",
            type="BIGINT",
            expr=f"len({_PAGE_URLS})",
            minimum=0,
            description="Number of URLs in `page_urls`, repeats included.",
        ),
        Column(name="landing_url", type="VARCHAR", expr='r."landingPage"', description="First URL (`landingPage`)."),
        Column(name="exit_url", type="VARCHAR", expr='r."exitPage"', description="Last URL (`exitPage`)."),
        Column(
            name="referrer_url", type="VARCHAR", expr="nullif(r.referrer, '')", description="Referrer URL (`referrer`)."
        ),
        Column(name="hostname", type="VARCHAR", expr="r.domain", description="Host recorded (`domain`)."),
        Column(name="protocol", type="VARCHAR", expr="r.protocol", description="Scheme recorded (`protocol`)."),
        Column(
            name="browser_name", type="VARCHAR", expr="r.identification.browser.name", description="Browser family."
        ),
        Column(
            name="user_agent",
            type="VARCHAR",
            expr='r.identification.browser."userAgent"',
            sensitivity=Sensitivity.PERSONAL,
            description="User agent (`identification.browser.userAgent`).",
        ),
        Column(
            name="platform_name",
            type="VARCHAR",
            expr="r.identification.platform.name",
            description="Platform (`identification.platform.name`).",
        ),
        Column(
            name="os_name",
            type="VARCHAR",
            expr='r.identification.platform."operatingSystem"',
            description="Operating system (`identification.platform.operatingSystem`).",
        ),
        Column(
            name="country_code",
            type="VARCHAR",
            expr="upper(r.identification.country.code)",
            description="ISO 3166-1 alpha-2, upper case (`identification.country.code`).",
        ),
        Column(name="country_name", type="VARCHAR", expr="r.identification.country.name", description="Country name."),
        Column(name="region", type="VARCHAR", expr="r.identification.country.region", description="Region."),
        Column(
            name="city",
            type="VARCHAR",
            expr="r.identification.country.city",
            sensitivity=Sensitivity.PERSONAL,
            description="City; with a user agent and an instant it may single out a person.",
        ),
        Column(
            name="device_type",
            type="VARCHAR",
            expr="r.identification.device.type",
            description="Device as the vendor says it (`identification.device.type`).",
        ),
        Column(
            name="screen_width_px",
            type="INTEGER",
            expr="CAST(r.identification.device.width AS INTEGER)",
            minimum=0,
            description="Screen width in pixels (`identification.device.width`).",
        ),
        Column(
            name="screen_height_px",
            type="INTEGER",
            expr="CAST(r.identification.device.height AS INTEGER)",
            minimum=0,
            description="Screen height in pixels (`identification.device.height`).",
        ),
        Column(
            name="note_count",
            type="BIGINT",
            expr="COALESCE(json_array_length(r.notes), 0)",
            minimum=0,
            description="Number of analysts' notes (`notes`); their text is free text about people and is not kept.",
        ),
        Column(
            name="dashboard_url",
            type="VARCHAR",
            identifies="smartlook_session_link",
            expr='r."dashboardURL"',
            sensitivity=Sensitivity.SECRET,
            description="Replay in the vendor's dashboard (`dashboardURL`), behind its login.",
        ),
    ),
)

_VISITOR_FIRST_SEEN = _instant('r."firstSeen"')

VISITORS = TableSpec(
    vendor=_VENDOR,
    name="visitors",
    description=(
        "One row per visitor, in the UTC day the vendor saw them first. Source: contract Smartlook §1.1, "
        "POST v2 visitors/search, "
        "filter user_first_seen."
    ),
    key=("visitor_id",),
    records=("visitors",),
    is_counted=True,
    calls=("visitor_search",),
    context=(),
    day=f"CAST({_VISITOR_FIRST_SEEN} AS DATE)",
    anchor="first_seen_at",
    source_url=_SOURCE,
    wire={
        "id": "VARCHAR",
        "identification": "STRUCT(uid VARCHAR, properties JSON)",
        "firstSeen": "VARCHAR",
        "lastSeen": "VARCHAR",
        "numberOfVisits": "VARCHAR",
        "numberOfSessions": "VARCHAR",
        "numberOfEvents": "VARCHAR",
        "_links": "JSON",
    },
    columns=(
        Column(
            name="visitor_id",
            type="VARCHAR",
            identifies="smartlook_visitor_id",
            expr="r.id",
            nullable=False,
            sensitivity=Sensitivity.PSEUDONYMOUS,
            description="Visitor id (`id`), the `visitor_id` of sessions.",
        ),
        Column(
            name="uid",
            type="VARCHAR",
            identifies="uid",
            expr="nullif(r.identification.uid, '')",
            sensitivity=Sensitivity.PERSONAL,
            description="The site's own user id given to the Identify API (`identification.uid`).",
        ),
        Column(
            name="email",
            type="VARCHAR",
            identifies="email",
            expr=_property("r.identification.properties", _EMAIL_PROPERTIES),
            sensitivity=Sensitivity.PERSONAL,
            description="E-mail given to the Identify API (`identification.properties`).",
        ),
        Column(
            name="kameleoon_visitor_code",
            type="VARCHAR",
            identifies="kameleoon_visitor_code",
            expr=_property("r.identification.properties", _KAMELEOON_PROPERTIES),
            sensitivity=Sensitivity.PSEUDONYMOUS,
            description="Kameleoon visitor code the site set as a property.",
        ),
        Column(
            name="first_seen_at",
            type="TIMESTAMP",
            expr=_VISITOR_FIRST_SEEN,
            nullable=False,
            description="UTC instant first seen (`firstSeen`).",
        ),
        Column(
            name="last_seen_at",
            type="TIMESTAMP",
            expr=_instant('r."lastSeen"'),
            description="UTC instant last seen when the page was read (`lastSeen`): it moves on with every visit.",
        ),
    ),
)

EVENT_DAILY = TableSpec(
    vendor=_VENDOR,
    name="event_daily",
    description=(
        "One row per event definition and day of its occurrence histogram. Source: contract Smartlook §1.1, "
        "GET events/{id} with "
        "occurrenceHistogramInterval=day; trap 11: the event list holds definitions, never occurrences."
    ),
    key=("event_id", "stat_date"),
    records=("event",),
    calls=("event_histogram",),
    context=(),
    explode="occurrenceHistogram",
    day='CAST(left(e."date", 10) AS DATE)',
    anchor="stat_date",
    source_url=_SOURCE,
    wire={
        "id": "VARCHAR",
        "name": "VARCHAR",
        "categoryId": "VARCHAR",
        "categoryName": "VARCHAR",
        "totalOccurrence": "VARCHAR",
        "uniqueVisitors": "VARCHAR",
        "newVisitors": "VARCHAR",
        "averageOccurrencePerVisitor": "VARCHAR",
        "occurrenceHistogram": 'STRUCT("date" VARCHAR, "occurrenceCount" VARCHAR, "uniqueVisitorsCount" VARCHAR)[]',
        "_links": "JSON",
    },
    columns=(
        Column(name="event_id", type="VARCHAR", expr="r.id", nullable=False, description="Event definition (`id`)."),
        Column(name="event_name", type="VARCHAR", expr="r.name", description="Name given in the dashboard (`name`)."),
        Column(name="category_id", type="VARCHAR", expr='r."categoryId"', description="Category (`categoryId`)."),
        Column(name="category_name", type="VARCHAR", expr='r."categoryName"', description="Category (`categoryName`)."),
        Column(
            name="stat_date",
            type="DATE",
            expr='CAST(left(e."date", 10) AS DATE)',
            nullable=False,
            description="Day of the histogram (`date`), read as a UTC day: the vendor does not say whose day it is.",
        ),
        Column(
            name="occurrence_count",
            type="BIGINT",
            expr='CAST(e."occurrenceCount" AS BIGINT)',
            minimum=0,
            description="Occurrences that day (`occurrenceCount`).",
        ),
        Column(
            name="unique_visitors",
            type="BIGINT",
            expr='CAST(e."uniqueVisitorsCount" AS BIGINT)',
            minimum=0,
            description="Distinct visitors that day (`uniqueVisitorsCount`); never to be summed over days.",
        ),
    ),
)

FUNNELS = TableSpec(
    vendor=_VENDOR,
    name="funnels",
    description=(
        "One row per funnel, step and day, for funnels whose computation was finished when read. Source: "
        "contract Smartlook §1.1, "
        "GET funnels/{id} with dateFrom = dateTo = the day."
    ),
    key=("funnel_id", "stat_date", "step_index"),
    records=("funnel",),
    calls=("funnel_day",),
    context=("day",),
    explode="steps",
    anchor="stat_date",
    source_url=_SOURCE,
    wire={
        "id": "VARCHAR",
        "name": "VARCHAR",
        "createdAt": "VARCHAR",
        "updatedAt": "VARCHAR",
        "conversionRate": "VARCHAR",
        "steps": (
            'STRUCT("visitorsCount" VARCHAR, event STRUCT(step VARCHAR, id VARCHAR, "eventName" VARCHAR, _links JSON), '
            '"percentFromPreviousStep" VARCHAR)[]'
        ),
        "events": "JSON",
        "_links": "JSON",
    },
    columns=(
        Column(name="funnel_id", type="VARCHAR", expr="r.id", nullable=False, description="Funnel (`id`)."),
        Column(name="funnel_name", type="VARCHAR", expr="r.name", description="Name given in the dashboard (`name`)."),
        Column(
            name="stat_date",
            type="DATE",
            expr="CAST(c.day AS DATE)",
            nullable=False,
            description="Day asked for (dateFrom = dateTo), read as a UTC day.",
        ),
        Column(
            name="step_index",
            type="BIGINT",
            expr="i",
            nullable=False,
            minimum=1,
            description="Position of the step, from 1.",
        ),
        Column(name="event_id", type="VARCHAR", expr="e.event.id", description="Event definition of the step."),
        Column(name="event_name", type="VARCHAR", expr='e.event."eventName"', description="Event name of the step."),
        Column(
            name="visitors_count",
            type="BIGINT",
            expr='CAST(e."visitorsCount" AS BIGINT)',
            minimum=0,
            description="Visitors who reached the step (`visitorsCount`).",
        ),
        Column(
            name="percent_from_previous_step",
            type="DOUBLE",
            expr='CAST(e."percentFromPreviousStep" AS DOUBLE)',
            minimum=0,
            description=(
                "As the vendor says it (`percentFromPreviousStep`); a mart derives its own from `visitors_count`."
            ),
        ),
        Column(
            name="conversion_rate_raw",
            type="DOUBLE",
            expr='CAST(r."conversionRate" AS DOUBLE)',
            minimum=0,
            description=(
                "The funnel's own rate (`conversionRate`); percent or fraction is not said, so not used in marts."
            ),
        ),
        Column(
            name="updated_at",
            type="TIMESTAMP",
            expr=_instant('r."updatedAt"'),
            description="UTC instant the definition last changed (`updatedAt`): earlier days were computed anew since.",
        ),
    ),
)

_EVENT_STARTED = _instant('r."startedAt"')

EVENTS = TableSpec(
    vendor=_VENDOR,
    name="events",
    description=(
        "One row per event of the sampled visitors, in the UTC day it happened. A declared sample of the visitors of "
        "smartlook/sessions (quota: one request a visitor), so counts are not totals: smartlook/event_daily has those. "
        "Source: contract Smartlook §1.1, GET visitors/{id}/events."
    ),
    key=("event_id",),
    records=("events",),
    calls=("visitor_events",),
    is_counted=True,
    context=("sample_rate",),
    day=f"CAST({_EVENT_STARTED} AS DATE)",
    anchor="started_at",
    source_url=_SOURCE,
    wire={
        "id": "VARCHAR",
        "visitorId": "VARCHAR",
        "sessionId": "VARCHAR",
        "properties": "JSON",
        "duration": "VARCHAR",
        "startedAt": "VARCHAR",
        "pageUrl": "JSON",
        "type": "VARCHAR",
        "value": "VARCHAR",
        "sourceType": "VARCHAR",
        "eventName": "VARCHAR",
        "selector": "VARCHAR",
        "_links": "JSON",
    },
    columns=(
        Column(name="event_id", type="VARCHAR", expr="r.id", nullable=False, description="Event id (`id`)."),
        Column(
            name="visitor_id",
            type="VARCHAR",
            identifies="smartlook_visitor_id",
            expr='r."visitorId"',
            sensitivity=Sensitivity.PSEUDONYMOUS,
            description="Visitor (`visitorId`).",
        ),
        Column(
            name="session_id",
            type="VARCHAR",
            expr='r."sessionId"',
            identifies="smartlook_session",
            description="Session (`sessionId`).",
        ),
        Column(
            name="started_at",
            type="TIMESTAMP",
            expr=_EVENT_STARTED,
            nullable=False,
            description="UTC instant (`startedAt`).",
        ),
        Column(
            name="duration_seconds",
            type="DOUBLE",
            expr="CAST(r.duration AS DOUBLE)",
            minimum=0,
            description="Length (`duration`), in seconds as on sessions [inferred].",
        ),
        Column(
            name="event_type",
            type="VARCHAR",
            expr="r.type",
            allowed=("click", "url", "error", "rage_click", "custom", "focus", "text"),
            description="Kind of event (`type`).",
        ),
        Column(name="event_name", type="VARCHAR", expr='r."eventName"', description="Name (`eventName`)."),
        Column(
            name="value",
            type="VARCHAR",
            expr="r.value",
            sensitivity=Sensitivity.PERSONAL,
            description="Value (`value`, any type, as text): a typed text may be anything.",
        ),
        Column(name="source_type", type="VARCHAR", expr='r."sourceType"', description="Source (`sourceType`)."),
        Column(name="selector", type="VARCHAR", expr="r.selector", description="CSS selector (`selector`)."),
        Column(
            name="page_url",
            type="VARCHAR",
            expr=f"({_PAGE_URLS})[1]",
            description="URL of the page (`pageUrl`, here one string; an array's first).",
        ),
        Column(
            name="properties_json",
            type="VARCHAR",
            expr="CAST(r.properties AS VARCHAR)",
            sensitivity=Sensitivity.PERSONAL,
            description="Custom properties as JSON text (`properties`: name, type, value).",
        ),
        Column(
            name="sample_rate",
            type="DOUBLE",
            expr="CAST(c.sample_rate AS DOUBLE)",
            nullable=False,
            minimum=0,
            maximum=1,
            description="Share of the day's visitors asked for: 1 / sample_rate is the weight of a row.",
        ),
    ),
)

TABLES: tuple[TableSpec, ...] = (SESSIONS, VISITORS, EVENTS, EVENT_DAILY, FUNNELS)
