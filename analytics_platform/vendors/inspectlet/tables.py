"""Inspectlet's lake tables: columns, natural keys, units, and where each value sits in a page.

Belongs here: `TableSpec` values and the SQL expressions they share. Does not belong here: asking for pages
(`client`), which days to ask for (`streams`), Dagster.

Source: vendor_docs/inspectlet.txt (response parameters), contracts/inspectlet §2.1 (envelope), §2.3 (traps: units,
missing fields). One page of sessions feeds three tables. Raw IPs are declared on the wire and have no column: none
reaches the lake.
"""

from __future__ import annotations

from collections.abc import Mapping

from analytics_platform.core.identity import person_ref_sql
from analytics_platform.core.tables import Column, KindOf, Sensitivity, TableSpec

__all__ = ["SESSIONS", "SESSION_PAGES", "SESSION_TAGS", "TABLES", "WEBSITES"]

_VENDOR = "inspectlet"
_SOURCE = "http://apidocs.inspectlet.com"

_SESSION_WIRE: Mapping[str, str] = {
    "sid": "VARCHAR",
    "wid": "VARCHAR",
    "date_start_session": "VARCHAR",
    "date_end_session": "VARCHAR",
    "session_duration": "VARCHAR",
    "num_pages": "VARCHAR",
    "uid": "VARCHAR",
    "ip": "VARCHAR",
    "browser": "VARCHAR",
    "referrer": "JSON",
    "page_width": "VARCHAR",
    "page_height": "VARCHAR",
    "useragent": "VARCHAR",
    "new_visitor": "VARCHAR",
    "starred": "VARCHAR",
    "country": "VARCHAR",
    "landing_page": "VARCHAR",
    "exit_page": "VARCHAR",
    "device_type": "VARCHAR",
    "display_name": "VARCHAR",
    "sessionlink": "VARCHAR",
    "tags": 'STRUCT("tag" VARCHAR, "value" VARCHAR, "timestamp" VARCHAR)[]',
    "pages": 'STRUCT("rid" VARCHAR, "opened_at" VARCHAR, "pagetitle" VARCHAR, "url" VARCHAR)[]',
}
_SESSION_RECORDS = ("response.sessions", "response")
"""Two clients read `response.sessions`; the vendor's document shows a bare array under `response` (contract §2.1)."""


def _instant(value: str) -> str:
    """SQL: UTC TIMESTAMP of Unix seconds, number or string."""
    return f"make_timestamp(CAST({value} AS BIGINT) * 1000000)"


_STARTED = _instant("r.date_start_session")
_ENDED = _instant("r.date_end_session")
_DAY = f"CAST({_STARTED} AS DATE)"
_SPAN_SECONDS = "(CAST(r.date_end_session AS DOUBLE) - CAST(r.date_start_session AS DOUBLE))"
_RAW_DURATION = "CAST(r.session_duration AS DOUBLE)"
# Documented as seconds, sampled as milliseconds, and equal to neither end - start (trap 1). The unit is the one that
# comes nearer.
_IS_MILLISECONDS = f"abs({_RAW_DURATION} / 1000 - {_SPAN_SECONDS}) <= abs({_RAW_DURATION} - {_SPAN_SECONDS})"

_WID = Column(name="wid", type="BIGINT", expr="CAST(r.wid AS BIGINT)", nullable=False, description="Website (`wid`).")
_SID = Column(
    name="sid",
    type="BIGINT",
    expr="CAST(r.sid AS BIGINT)",
    nullable=False,
    identifies="inspectlet_session",
    description="Session (`sid`); larger than 2^31.",
)
_SESSION_STARTED_AT = Column(
    name="session_started_at",
    type="TIMESTAMP",
    expr=_STARTED,
    nullable=False,
    description="UTC start of the session: the row lies in this day (`date_start_session`, Unix seconds).",
)

WEBSITES = TableSpec(
    vendor=_VENDOR,
    name="websites",
    description=(
        "One row per site and snapshot day: the account's website with the site's wid. Source: vendor "
        "document, Listing Your Sites."
    ),
    key=("snapshot_date", "wid"),
    records=("response",),
    calls=("website_list",),
    is_counted=True,
    context=("day", "wid"),
    where="CAST(r.wid AS VARCHAR) = c.wid",
    day_basis="snapshot",
    minimum_rows=1,
    source_url=_SOURCE,
    wire={"wid": "VARCHAR", "site_name": "VARCHAR", "date_added": "VARCHAR"},
    columns=(
        Column(
            name="snapshot_date",
            type="DATE",
            expr="CAST(c.day AS DATE)",
            nullable=False,
            description="Day the list was read.",
        ),
        _WID,
        Column(name="site_name", type="VARCHAR", description="Name given in the dashboard (`site_name`)."),
        Column(
            name="added_at",
            type="TIMESTAMP",
            expr=_instant("r.date_added"),
            description="UTC instant the website was created (`date_added`, Unix seconds).",
        ),
    ),
)

SESSIONS = TableSpec(
    vendor=_VENDOR,
    name="sessions",
    description=(
        "One row per recorded session, in the UTC day of its start. A session ends after 30 minutes idle or 24 hours. "
        "Source: vendor document, Listing and Searching Sessions; contract Inspectlet §2.3."
    ),
    key=("wid", "sid"),
    records=_SESSION_RECORDS,
    calls=("session_search",),
    is_counted=True,
    context=(),
    day=_DAY,
    anchor="started_at",
    source_url=_SOURCE,
    identifies={"ip": "r.ip"},
    measures={"sessions": "count(*)", "visitors": "count(DISTINCT uid)", "views": "sum(num_pages)"},
    wire=_SESSION_WIRE,
    columns=(
        _WID,
        _SID,
        Column(
            name="uid",
            type="BIGINT",
            identifies="inspectlet_uid",
            expr="CAST(r.uid AS BIGINT)",
            sensitivity=Sensitivity.PSEUDONYMOUS,
            description="Visitor, the vendor's internal id (`uid`).",
        ),
        Column(
            name="started_at",
            type="TIMESTAMP",
            expr=_STARTED,
            nullable=False,
            description="UTC start (`date_start_session`, Unix seconds).",
        ),
        Column(
            name="ended_at",
            type="TIMESTAMP",
            expr=_ENDED,
            description="UTC last recorded activity (`date_end_session`, Unix seconds).",
        ),
        Column(
            name="session_duration_raw",
            type="DOUBLE",
            expr=_RAW_DURATION,
            minimum=0,
            description="`session_duration` as received: documented as seconds, sampled as milliseconds.",
        ),
        Column(
            name="duration_unit",
            type="VARCHAR",
            expr=(
                f"CASE WHEN {_RAW_DURATION} IS NULL OR {_SPAN_SECONDS} IS NULL THEN NULL "
                f"WHEN {_RAW_DURATION} = 0 THEN 'zero' WHEN {_IS_MILLISECONDS} THEN 'milliseconds' ELSE 'seconds' END"
            ),
            allowed=("milliseconds", "seconds", "zero"),
            description=(
                "Unit of `session_duration_raw` that comes nearest to end - start; a day that mixes units "
                "changed midway."
            ),
        ),
        Column(
            name="duration_seconds",
            type="DOUBLE",
            expr=(
                f"CASE WHEN {_SPAN_SECONDS} IS NULL THEN NULL "
                f"WHEN {_IS_MILLISECONDS} THEN {_RAW_DURATION} / 1000 ELSE {_RAW_DURATION} END"
            ),
            minimum=0,
            maximum=90_000,
            description="Length in seconds: `session_duration_raw` in its `duration_unit`. Not exactly end - start.",
        ),
        Column(
            name="num_pages",
            type="BIGINT",
            expr="CAST(r.num_pages AS BIGINT)",
            minimum=0,
            description="Pages as the vendor counts them (`num_pages`); may disagree with the list of pages (trap 6).",
        ),
        Column(
            name="listed_page_count",
            type="BIGINT",
            expr="COALESCE(len(r.pages), 0)",
            minimum=0,
            description="Number of entries in `pages`.",
        ),
        Column(
            name="is_new_visitor",
            type="BOOLEAN",
            expr="CAST(r.new_visitor AS BOOLEAN)",
            description="First session of this visitor on this website (`new_visitor`).",
        ),
        Column(
            name="is_starred",
            type="BOOLEAN",
            expr="CAST(r.starred AS BOOLEAN)",
            description="Starred by an analyst (`starred`).",
        ),
        Column(name="landing_url", type="VARCHAR", expr="r.landing_page", description="First URL (`landing_page`)."),
        Column(name="exit_url", type="VARCHAR", expr="r.exit_page", description="Last URL (`exit_page`)."),
        Column(
            name="referrer_source",
            type="VARCHAR",
            expr=(
                "CASE json_type(r.referrer) WHEN 'OBJECT' THEN json_extract_string(r.referrer, '$.source') "
                "WHEN 'VARCHAR' THEN json_extract_string(r.referrer, '$') END"
            ),
            description="Undocumented code of the traffic source (`referrer.source`): d is direct (trap 7).",
        ),
        Column(
            name="referrer_json",
            type="VARCHAR",
            expr="CAST(r.referrer AS VARCHAR)",
            description="`referrer` as received: an object, though documented as a source.",
        ),
        Column(
            name="browser_name",
            type="VARCHAR",
            expr="r.browser",
            description="Browser's major family in lower case (`browser`), e.g. `chrome mobile (ios)`.",
        ),
        Column(
            name="user_agent",
            type="VARCHAR",
            expr="r.useragent",
            sensitivity=Sensitivity.PERSONAL,
            description="User agent (`useragent`).",
        ),
        Column(
            name="country_code",
            type="VARCHAR",
            expr="upper(r.country)",
            description="ISO 3166-1 alpha-2, upper case (`country`; the document says ISO 639, trap 9).",
        ),
        Column(
            name="device_type",
            type="VARCHAR",
            allowed=("desktop", "phone"),
            description="desktop or phone (`device_type`): there is no tablet.",
        ),
        Column(
            name="viewport_width_px",
            type="INTEGER",
            expr="CAST(r.page_width AS INTEGER)",
            minimum=0,
            description="Browser page width in pixels (`page_width`; documented, absent in the samples).",
        ),
        Column(
            name="viewport_height_px",
            type="INTEGER",
            expr="CAST(r.page_height AS INTEGER)",
            minimum=0,
            description="Browser page height in pixels (`page_height`; documented, absent in the samples).",
        ),
        Column(
            name="display_name",
            type="VARCHAR",
            identifies="display_name",
            expr="nullif(r.display_name, '')",
            sensitivity=Sensitivity.PERSONAL,
            description="Name the site gave the visitor (`display_name`).",
        ),
        Column(
            name="tag_count",
            type="BIGINT",
            expr="COALESCE(len(r.tags), 0)",
            minimum=0,
            description="Number of entries in `tags`.",
        ),
        Column(
            name="session_link",
            type="VARCHAR",
            identifies="inspectlet_session_link",
            expr="r.sessionlink",
            sensitivity=Sensitivity.SECRET,
            description="Replay link anyone can open (`sessionlink` holds an access key). No mart may carry it.",
        ),
    ),
)

SESSION_PAGES = TableSpec(
    vendor=_VENDOR,
    name="session_pages",
    description=(
        "One row per page of a recorded session, in the UTC day of the session's start. Source: vendor "
        "document, `pages` of a session."
    ),
    key=("wid", "sid", "page_index"),
    records=_SESSION_RECORDS,
    calls=("session_search",),
    is_counted=True,
    context=(),
    explode="pages",
    day=_DAY,
    anchor="opened_at",
    source_url=_SOURCE,
    wire=_SESSION_WIRE,
    columns=(
        _WID,
        _SID,
        Column(
            name="page_index",
            type="BIGINT",
            expr="i",
            nullable=False,
            minimum=1,
            description="Position in the vendor's list, from 1.",
        ),
        Column(name="rid", type="BIGINT", expr="CAST(e.rid AS BIGINT)", description="Recording of the page (`rid`)."),
        _SESSION_STARTED_AT,
        Column(
            name="opened_at",
            type="TIMESTAMP",
            expr=_instant("e.opened_at"),
            description="UTC instant the page was opened (`opened_at`, Unix seconds).",
        ),
        Column(name="page_url", type="VARCHAR", expr="e.url", description="URL (`url`)."),
        Column(name="page_title", type="VARCHAR", expr="e.pagetitle", description="Title (`pagetitle`)."),
    ),
)

SESSION_TAGS = TableSpec(
    vendor=_VENDOR,
    name="session_tags",
    description=(
        "One row per tag set in a recorded session, in the UTC day of the session's start; a tag may repeat "
        "and tags are not in order "
        "of time. Source: vendor document, `tags` of a session; contract Inspectlet §2.3, trap 8."
    ),
    key=("wid", "sid", "tag", "tagged_at", "tag_index"),
    records=_SESSION_RECORDS,
    calls=("session_search",),
    is_counted=True,
    context=(),
    explode="tags",
    day=_DAY,
    anchor="tagged_at",
    source_url=_SOURCE,
    wire=_SESSION_WIRE,
    columns=(
        _WID,
        _SID,
        Column(
            name="tag_index",
            type="BIGINT",
            expr="i",
            nullable=False,
            minimum=1,
            description="Position in the vendor's list, from 1.",
        ),
        Column(name="tag", type="VARCHAR", expr="e.tag", nullable=False, description="Name (`tag`)."),
        Column(
            name="value",
            type="VARCHAR",
            expr="e.value",
            identifies=KindOf(
                column="tag", kinds={"email": "email", "kameleoon_visitor_code": "kameleoon_visitor_code"}
            ),
            sensitivity=Sensitivity.PERSONAL,
            description="Value as text (`value`): may be an e-mail, or `1` where true was set.",
        ),
        Column(
            name="email_ref",
            type="VARCHAR",
            expr=f"CASE WHEN e.tag = 'email' THEN {person_ref_sql('e.value')} END",
            sensitivity=Sensitivity.PSEUDONYMOUS,
            description=(
                "Keyed hash of the value of the tag email; NULL for every other tag, and without a key, an agreement "
                "of the site, or a value that is a person's."
            ),
        ),
        Column(
            name="tagged_at",
            type="TIMESTAMP",
            expr=_instant('e."timestamp"'),
            description="UTC instant the tag was set (`timestamp`, Unix seconds).",
        ),
        _SESSION_STARTED_AT,
    ),
)

TABLES: tuple[TableSpec, ...] = (WEBSITES, SESSIONS, SESSION_PAGES, SESSION_TAGS)
