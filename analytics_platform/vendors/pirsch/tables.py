"""Pirsch lake tables: daily aggregates of one domain, by the domain's local calendar day.

Belongs here: columns, keys, units and where they sit in the answers. Does not belong here: HTTP (`client`), what is
asked when (`streams`), Dagster.

Facts every table relies on (vendor document "Statistics", 2022-01-19, and the wire contract):

* `day` values (`2026-10-05T00:00:00Z`) are local dates of the domain's zone written as if they were instants: the first
  ten characters are the date, never converted.
* An empty list is `null`. Floats are unrounded and integral floats print without decimals, so every number is read as
  text and cast. Unknown values (country, city, UTM …) are the empty string and kept as such.
* Lists stop at 100 rows without saying so and cannot be paged: `possibly_truncated` marks every row of such an answer.
* Visitors are distinct per answer: adding them over days, hours, pages or values counts people more than once.
"""

from __future__ import annotations

from typing import Final

from analytics_platform.core.tables import Column, TableSpec

__all__ = [
    "BREAKDOWNS",
    "DAILY_STATS",
    "DIMENSIONS",
    "EVENTS",
    "GOALS",
    "HOURLY",
    "PAGES",
    "ROW_LIMIT",
    "TABLES",
]

ROW_LIMIT: Final = 100
"""Rows after which the API cuts a list (document, "Filter", `limit`: hard limited)."""

DIMENSIONS: Final = (
    "utm_source",
    "utm_medium",
    "utm_campaign",
    "utm_content",
    "utm_term",
    "referrer",
    "language",
    "country",
    "city",
    "os",
    "os_version",
    "browser",
    "browser_version",
    "platform",
    "screen_class",
)
"""Values of `breakdowns.dimension`."""

_DOCUMENT: Final = "https://docs.pirsch.io/api-sdks/api/"

_STAT_DATE: Final = Column(
    name="stat_date",
    type="DATE",
    description="Calendar day in the domain's own time zone (for a day series the first ten characters of `day`).",
    expr="CAST(c.day AS DATE)",
    nullable=False,
)
_SERIES_DAY: Final = 'CAST(substr(r."day", 1, 10) AS DATE)'
_TRUNCATED: Final = f"CAST(c.records AS BIGINT) >= {ROW_LIMIT}"


def _count(name: str, description: str, *, expr: str | None = None, nullable: bool = False) -> Column:
    return Column(name=name, type="BIGINT", description=description, expr=expr, nullable=nullable, minimum=0)


def _fraction(name: str, description: str, *, expr: str | None = None) -> Column:
    return Column(name=name, type="DOUBLE", description=description, expr=expr, minimum=0, maximum=1)


def _seconds(name: str, description: str, *, expr: str) -> Column:
    return Column(name=name, type="DOUBLE", description=description, expr=expr, minimum=0)


_TRAFFIC_WIRE: Final = {
    "visitors": "VARCHAR",
    "views": "VARCHAR",
    "sessions": "VARCHAR",
    "bounces": "VARCHAR",
    "bounce_rate": "VARCHAR",
    # Later editions add these to every traffic row; they are read so that only unknown fields reach `_extra`.
    "cr": "VARCHAR",
    "custom_metric_avg": "VARCHAR",
    "custom_metric_total": "VARCHAR",
}

DAILY_STATS: Final = TableSpec(
    vendor="pirsch",
    name="daily_stats",
    description=(
        "One row per local calendar day: the domain's totals as Pirsch reports them. Document: Statistics, Visitors "
        "(GET /statistics/visitor) and Session Duration (GET /statistics/duration/session), merged by day."
    ),
    key=("stat_date",),
    columns=(
        Column(
            name="stat_date",
            type="DATE",
            description="Calendar day in the domain's own time zone: first ten characters of `day`, not an instant.",
            expr=_SERIES_DAY,
            nullable=False,
        ),
        _count("visitors", "Distinct visitors of the day. Not additive over days: a visitor is new again after 24 h."),
        _count("views", "Page views; a reload of the same page is not counted."),
        _count("sessions", "Sessions, 30 min idle; a change of referrer or UTM parameters starts a new one."),
        _count("bounces", "Sessions with a single page view and no event."),
        _fraction(
            "bounce_rate",
            "As reported, 0 to 1. The document's prose divides by visitors; its figures and the engine by sessions.",
        ),
        _seconds(
            "average_session_seconds",
            "Mean length of sessions that did not bounce, in seconds, rounded by the vendor; 0 where there was none. "
            "Wire: average_time_spent_seconds of the duration series, which engines before 3.7 bucket by UTC day.",
            expr="CASE WHEN c.call_kind = 'duration_series' THEN r.average_time_spent_seconds END",
        ),
        Column(
            name="domain_timezone",
            type="VARCHAR",
            expr="c.domain_timezone",
            description=(
                "IANA zone whose calendar days these are, as GET /domain told it when the days were asked for; NULL "
                "where the edition of the API does not tell it (the vendor document's list of domains does not)."
            ),
        ),
    ),
    wire={
        "day": "VARCHAR",
        "week": "VARCHAR",
        "month": "VARCHAR",
        "year": "VARCHAR",
        **_TRAFFIC_WIRE,
        "path": "VARCHAR",
        "title": "VARCHAR",
        "average_time_spent_seconds": "VARCHAR",
    },
    calls=("visitor_series", "duration_series"),
    is_counted=True,
    context=("domain_timezone",),
    day=_SERIES_DAY,
    day_basis="site",
    minimum_rows=1,
    anchor="stat_date",
    source_url=_DOCUMENT,
    merge_calls=True,
    measures={name: f"sum({name})" for name in ("sessions", "visitors", "views", "bounces")},
)

HOURLY: Final = TableSpec(
    vendor="pirsch",
    name="hourly",
    description=(
        "One row per local calendar day and hour of day (0 to 23, always all present). On a daylight-saving day the "
        "repeated hour is one row and the skipped hour is zero. Document: Statistics, Visitors by Time of Day "
        "(GET /statistics/hours)."
    ),
    key=("stat_date", "hour"),
    columns=(
        _STAT_DATE,
        Column(
            name="hour",
            type="INTEGER",
            description="Hour of day in the domain's time zone.",
            nullable=False,
            minimum=0,
            maximum=23,
        ),
        _count("visitors", "Distinct visitors of the hour. Not additive: someone active in two hours is in both."),
        _count("views", "Page views in the hour."),
        _count("sessions", "Sessions active in the hour. Not additive over hours."),
        _count("bounces", "Bounced sessions."),
        _fraction("bounce_rate", "As reported, 0 to 1."),
    ),
    wire={"hour": "VARCHAR", **_TRAFFIC_WIRE},
    calls=("hours",),
    is_counted=True,
    day_basis="site",
    minimum_rows=24,
    anchor="stat_date",
    source_url=_DOCUMENT,
)


def _only(call_kind: str, expression: str) -> str:
    """`expression` in answers of one kind, NULL in the others, so that merging by key cannot mix them."""
    return f"CASE WHEN c.call_kind = '{call_kind}' THEN {expression} END"


PAGES: Final = TableSpec(
    vendor="pirsch",
    name="pages",
    description=(
        "One row per local calendar day, path and title (title is empty unless the domain groups by title): page, "
        "entry page and exit page lists merged. Each holds its own top 100, so a row may lack another's columns. "
        "Document: Statistics, Pages, Entry Pages, Exit Pages (GET /statistics/page, /page/entry, /page/exit)."
    ),
    key=("stat_date", "path", "title"),
    columns=(
        _STAT_DATE,
        Column(name="path", type="VARCHAR", description="URL path, without host and query.", nullable=False),
        Column(
            name="title",
            type="VARCHAR",
            description="Page title, empty where the vendor does not group by it.",
            expr="COALESCE(r.title, '')",
            nullable=False,
        ),
        _count("visitors", "Distinct visitors of the page. Not additive over pages.", nullable=True),
        _count("views", "Views of the page; NULL where it is not in the page list.", nullable=True),
        _count("sessions", "Sessions that touched the page.", nullable=True),
        _count("bounces", "Sessions that bounced on the page; NULL where it is not in the page list.", nullable=True),
        _fraction("bounce_rate", "As reported, 0 to 1; NULL where it is not in the page list."),
        _fraction("relative_visitors", "Share of all visitors of the day, 0 to 1 (filters ignored by the vendor)."),
        _fraction("relative_views", "Share of all views of the day, 0 to 1."),
        _seconds(
            "average_time_on_page_seconds",
            "Mean seconds until the next hit; 0 where no visit went on (asked with include_avg_time_on_page). "
            "Wire: average_time_spent_seconds of the page list.",
            expr=_only("page", "r.average_time_spent_seconds"),
        ),
        _count("entries", "Sessions that began here; NULL where it is not in the entry list.", nullable=True),
        _fraction(
            "entry_rate",
            "As reported, 0 to 1. Engines until 6.14 divide by the sessions of this path, later ones by all sessions.",
        ),
        _count("exits", "Sessions that ended here; NULL where it is not in the exit list.", nullable=True),
        _fraction("exit_rate", "As reported, 0 to 1; same change of divisor as entry_rate."),
        Column(
            name="possibly_truncated",
            type="BOOLEAN",
            description=f"The page list had {ROW_LIMIT} rows or more: paths are missing. NULL where not in it.",
            expr=_only("page", _TRUNCATED),
        ),
        Column(
            name="entries_possibly_truncated",
            type="BOOLEAN",
            description=f"The entry list had {ROW_LIMIT} rows or more. NULL where the path is not in it.",
            expr=_only("page_entry", _TRUNCATED),
        ),
        Column(
            name="exits_possibly_truncated",
            type="BOOLEAN",
            description=f"The exit list had {ROW_LIMIT} rows or more. NULL where the path is not in it.",
            expr=_only("page_exit", _TRUNCATED),
        ),
    ),
    wire={
        "path": "VARCHAR",
        "title": "VARCHAR",
        "hostname": "VARCHAR",
        **_TRAFFIC_WIRE,
        "relative_visitors": "VARCHAR",
        "relative_views": "VARCHAR",
        "average_time_spent_seconds": "VARCHAR",
        "entries": "VARCHAR",
        "entry_rate": "VARCHAR",
        "exits": "VARCHAR",
        "exit_rate": "VARCHAR",
    },
    calls=("page", "page_entry", "page_exit"),
    is_counted=True,
    day_basis="site",
    anchor="stat_date",
    source_url=_DOCUMENT,
    merge_calls=True,
)

_VALUE: Final = """CASE c.dimension
    WHEN 'utm_source' THEN r.utm_source
    WHEN 'utm_medium' THEN r.utm_medium
    WHEN 'utm_campaign' THEN r.utm_campaign
    WHEN 'utm_content' THEN r.utm_content
    WHEN 'utm_term' THEN r.utm_term
    WHEN 'referrer' THEN COALESCE(r.referrer_name, r.referrer)
    WHEN 'language' THEN r."language"
    WHEN 'country' THEN COALESCE(r.country_code, r.country)
    WHEN 'city' THEN r.city
    WHEN 'os' THEN r.os
    WHEN 'os_version' THEN r.os_version
    WHEN 'browser' THEN r.browser
    WHEN 'browser_version' THEN r.browser_version
    WHEN 'screen_class' THEN r.screen_class
END"""

_PARENT: Final = """CASE c.dimension
    WHEN 'os_version' THEN COALESCE(r.os, '')
    WHEN 'browser_version' THEN COALESCE(r.browser, '')
    WHEN 'city' THEN concat_ws('/', NULLIF(r.country_code, ''), NULLIF(r.region, ''))
    ELSE ''
END"""


def _element(value: str, parent: str, visitors: str, relative_visitors: str) -> str:
    return (
        f"{{'value': {value}, 'parent_value': {parent}, "
        f"'visitors': {visitors}, 'relative_visitors': {relative_visitors}}}"
    )


_PLATFORM_ELEMENTS: Final = ", ".join(
    _element(f"'{name}'", "''", f"r.platform_{name}", f"r.relative_platform_{name}")
    for name in ("desktop", "mobile", "unknown")
)
# The platform answer is one wide object where every other dimension is a list: both become elements of one form here.
_BREAKDOWN_ELEMENTS: Final = (
    f"CASE WHEN c.dimension = 'platform' THEN [{_PLATFORM_ELEMENTS}] "
    f"ELSE [{_element(_VALUE, _PARENT, 'r.visitors', 'r.relative_visitors')}] END"
)

BREAKDOWNS: Final = TableSpec(
    vendor="pirsch",
    name="breakdowns",
    description=(
        "One row per local calendar day, dimension and value (with its parent where a value alone is ambiguous). At "
        "most 100 values a dimension. Document: Statistics, UTM Source to UTM Term, Languages, Referrer, Operating "
        "System (Version), Browser (Version), Country, City, Platform, Screen Classes."
    ),
    key=("stat_date", "dimension", "parent_value", "value"),
    columns=(
        _STAT_DATE,
        Column(
            name="dimension",
            type="VARCHAR",
            description="What is broken down: " + ", ".join(DIMENSIONS) + ".",
            expr="c.dimension",
            nullable=False,
            allowed=DIMENSIONS,
        ),
        Column(
            name="value",
            type="VARCHAR",
            description=(
                "Value as reported; empty = unknown or not set. referrer: the referrer name (wire referrer_name). "
                "country: ISO 3166 alpha-2 in lower case (wire country_code, or country as the document spells it). "
                "platform: desktop, mobile (tablets included), unknown."
            ),
            expr="e.value",
            nullable=False,
        ),
        Column(
            name="parent_value",
            type="VARCHAR",
            description=(
                "os_version: the operating system; browser_version: the browser; city: country/region where the answer "
                "has them; otherwise empty."
            ),
            expr="e.parent_value",
            nullable=False,
        ),
        _count(
            "visitors",
            "Distinct visitors with the value (platform: sessions in engines before 4.3.2). Not additive over values.",
            expr="e.visitors",
        ),
        _fraction(
            "relative_visitors",
            "Share of all visitors of the day, 0 to 1.",
            expr="e.relative_visitors",
        ),
        _count("sessions", "Sessions; only referrer has them.", nullable=True),
        _count("bounces", "Bounced sessions; only referrer has them.", nullable=True),
        _fraction("bounce_rate", "As reported, 0 to 1; only referrer has it."),
        Column(
            name="referrer_example",
            type="VARCHAR",
            description="referrer only: an arbitrary full URL of the name, unstable. Wire: referrer.",
            expr="CASE WHEN c.dimension = 'referrer' THEN r.referrer END",
        ),
        Column(
            name="possibly_truncated",
            type="BOOLEAN",
            description=f"The answer had {ROW_LIMIT} rows or more: values are missing, the sum is short.",
            expr=_TRUNCATED,
            nullable=False,
        ),
    ),
    wire={
        "visitors": "VARCHAR",
        "relative_visitors": "VARCHAR",
        "sessions": "VARCHAR",
        "bounces": "VARCHAR",
        "bounce_rate": "VARCHAR",
        "utm_source": "VARCHAR",
        "utm_medium": "VARCHAR",
        "utm_campaign": "VARCHAR",
        "utm_content": "VARCHAR",
        "utm_term": "VARCHAR",
        "referrer": "VARCHAR",
        "referrer_name": "VARCHAR",
        "referrer_icon": "VARCHAR",
        "language": "VARCHAR",
        "country_code": "VARCHAR",
        "country": "VARCHAR",
        "region": "VARCHAR",
        "city": "VARCHAR",
        "os": "VARCHAR",
        "os_version": "VARCHAR",
        "browser": "VARCHAR",
        "browser_version": "VARCHAR",
        "screen_class": "VARCHAR",
        "platform_desktop": "VARCHAR",
        "platform_mobile": "VARCHAR",
        "platform_unknown": "VARCHAR",
        "relative_platform_desktop": "VARCHAR",
        "relative_platform_mobile": "VARCHAR",
        "relative_platform_unknown": "VARCHAR",
    },
    calls=("breakdown",),
    is_counted=True,
    context=("day", "dimension"),
    explode=_BREAKDOWN_ELEMENTS,
    day_basis="site",
    anchor="stat_date",
    source_url=_DOCUMENT,
)

EVENTS: Final = TableSpec(
    vendor="pirsch",
    name="events",
    description=(
        "One row per local calendar day and event name, top 100 names. Document: Statistics, Events "
        "(GET /statistics/events)."
    ),
    key=("stat_date", "name"),
    columns=(
        _STAT_DATE,
        Column(name="name", type="VARCHAR", description="Event name as sent.", nullable=False),
        _count("visitors", "Distinct visitors who triggered it. Not additive."),
        _count("views", "Occurrences, counted as views of the event."),
        _fraction("cr", "Conversion rate as a fraction of the day's visitors, 0 to 1."),
        _seconds(
            "average_duration_seconds",
            "Mean of the duration sent with the event, in seconds; 0 where none was sent.",
            expr="r.average_duration_seconds",
        ),
        Column(
            name="meta_keys",
            type="VARCHAR[]",
            description="Metadata keys seen with the event; empty list where none (the wire says null).",
            expr="COALESCE(r.meta_keys, []::VARCHAR[])",
            nullable=False,
        ),
        _count(
            "event_count",
            "Occurrences by the newer field `count`; NULL where the vendor does not send it.",
            expr='r."count"',
            nullable=True,
        ),
        Column(
            name="possibly_truncated",
            type="BOOLEAN",
            description=f"The answer had {ROW_LIMIT} rows or more: event names are missing.",
            expr=_TRUNCATED,
            nullable=False,
        ),
    ),
    wire={
        "name": "VARCHAR",
        "visitors": "VARCHAR",
        "views": "VARCHAR",
        "count": "VARCHAR",
        "cr": "VARCHAR",
        "average_duration_seconds": "VARCHAR",
        "meta_keys": "VARCHAR[]",
        "meta_value": "VARCHAR",
        "custom_metric_avg": "VARCHAR",
        "custom_metric_total": "VARCHAR",
    },
    calls=("events",),
    is_counted=True,
    day_basis="site",
    anchor="stat_date",
    source_url=_DOCUMENT,
)

_PAGE_GOAL: Final = (
    "STRUCT(id VARCHAR, def_time VARCHAR, mod_time VARCHAR, domain_id VARCHAR, name VARCHAR, path_pattern VARCHAR, "
    "pattern VARCHAR, visitor_goal VARCHAR, cr_goal VARCHAR, delete_reached VARCHAR, email_reached VARCHAR, "
    "event_name VARCHAR, event_meta_key VARCHAR, event_meta_value VARCHAR)"
)
_GOAL_STATS: Final = "STRUCT(visitors VARCHAR, views VARCHAR, cr VARCHAR)"

GOALS: Final = TableSpec(
    vendor="pirsch",
    name="goals",
    description=(
        "One row per local calendar day and conversion goal. Document: Statistics, Conversion Goals "
        "(GET /statistics/goals)."
    ),
    key=("stat_date", "goal_id"),
    columns=(
        _STAT_DATE,
        Column(
            name="goal_id",
            type="VARCHAR",
            description="Goal id. Wire: page_goal.id.",
            expr="r.page_goal.id",
            nullable=False,
        ),
        Column(name="name", type="VARCHAR", description="Goal name as configured.", expr='r.page_goal."name"'),
        Column(
            name="path_pattern",
            type="VARCHAR",
            description="Path pattern as configured, e.g. /checkout/** (the document's /goal section swaps the two).",
            expr="r.page_goal.path_pattern",
        ),
        Column(
            name="pattern",
            type="VARCHAR",
            description="Regular expression (RE2) the vendor derives from path_pattern; usable as filter `pattern`.",
            expr='r.page_goal."pattern"',
        ),
        Column(
            name="event_name",
            type="VARCHAR",
            description="Event the goal counts, in newer editions; NULL for path goals.",
            expr="NULLIF(r.page_goal.event_name, '')",
        ),
        _count(
            "visitors",
            "Distinct visitors who reached the goal; NULL where the goal has no pattern.",
            expr="r.stats.visitors",
            nullable=True,
        ),
        _count("views", "Views of the goal's pages.", expr='r.stats."views"', nullable=True),
        _fraction("cr", "Conversion rate as a fraction of the day's visitors, 0 to 1.", expr="r.stats.cr"),
        _count(
            "visitor_goal",
            "Target number of visitors; NULL where none is set.",
            expr="r.page_goal.visitor_goal",
            nullable=True,
        ),
        Column(
            name="cr_goal_percent",
            type="DOUBLE",
            description="Target conversion rate in percent (wire cr_goal, 42.11 = 42.11 %), unlike the fraction cr.",
            expr="r.page_goal.cr_goal",
            minimum=0,
            maximum=100,
        ),
        Column(
            name="defined_at",
            type="TIMESTAMP",
            description="UTC instant the goal was created. Wire: page_goal.def_time.",
            expr="r.page_goal.def_time",
        ),
        Column(
            name="modified_at",
            type="TIMESTAMP",
            description="UTC instant the goal was last changed. Wire: page_goal.mod_time.",
            expr="r.page_goal.mod_time",
        ),
        Column(
            name="possibly_truncated",
            type="BOOLEAN",
            description=f"The answer had {ROW_LIMIT} rows or more: goals are missing.",
            expr=_TRUNCATED,
            nullable=False,
        ),
    ),
    wire={"page_goal": _PAGE_GOAL, "stats": _GOAL_STATS},
    calls=("goals",),
    is_counted=True,
    day_basis="site",
    anchor="stat_date",
    source_url=_DOCUMENT,
)

TABLES: Final = (DAILY_STATS, HOURLY, PAGES, BREAKDOWNS, EVENTS, GOALS)
