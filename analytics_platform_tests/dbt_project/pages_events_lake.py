"""Pages, events and lists of the small lake: what conftest's sessions looked at and did, and what Pirsch lists.

Belongs here: rows of the tables beside the sessions. Does not belong here: the sessions (conftest), what the marts
make of both (the tests say that).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from analytics_platform_tests.dbt_project.lake_fixture import FixtureLake

SATURDAY, DST_SUNDAY, MONDAY = date(2026, 10, 24), date(2026, 10, 25), date(2026, 10, 26)

CITIES = 103
"""Values of Pirsch's list of cities as it was; the vendor lists a hundred."""


def write_pages_and_events(lake: FixtureLake) -> None:
    """Write them. Nobody converts and no session is added: what conftest counts stays as it is."""
    _write_smartlook(lake)
    _write_inspectlet(lake)
    _write_pirsch(lake)


def smartlook_event(event_id: str, session: str, visitor: str, at: str, **fields: Any) -> dict[str, Any]:
    """A click of a session, half of whose date's visitors were asked for."""
    return {
        "event_id": event_id,
        "session_id": session,
        "visitor_id": visitor,
        "started_at": datetime.fromisoformat(at),
        "event_type": "click",
        "event_name": "click",
        "page_url": "https://shop.example/a?fbclid=canary#top",
        "value": "canary@example.org",
        "sample_rate": 0.5,
        **fields,
    }


def _write_smartlook(lake: FixtureLake) -> None:
    sunday = [
        smartlook_event("e1", "s2", "v2", "2026-10-25 10:01"),
        # After midnight in Berlin, in a session that began before it: the session's date.
        smartlook_event("e2", "s4", "v3", "2026-10-25 23:01", event_type="rage_click", event_name="rage_click"),
        smartlook_event("e3", "unknown", "v9", "2026-10-25 22:59:59", page_url=None),
    ]
    lake.write("smartlook", "events", "shop", DST_SUNDAY, sunday)
    histogram = {"event_id": "d1", "event_name": "click", "category_name": "Clicks", "stat_date": DST_SUNDAY}
    lake.write(
        "smartlook", "event_daily", "shop", DST_SUNDAY, [{**histogram, "occurrence_count": 9, "unique_visitors": 4}]
    )


def _write_inspectlet(lake: FixtureLake) -> None:
    start = datetime.fromisoformat("2026-10-24 12:00")
    tags = [
        {"wid": 1, "sid": 2606721012, "tag_index": i, "tag": tag, "value": "canary@example.org", "tagged_at": start}
        for i, tag in enumerate(("email", "plan", "plan"), start=1)
    ]
    lake.write("inspectlet", "session_tags", "shop", SATURDAY, [{**tag, "session_started_at": start} for tag in tags])


def _write_pirsch(lake: FixtureLake) -> None:
    page: Mapping[str, Any] = {"stat_date": DST_SUNDAY, "title": "", "possibly_truncated": False}
    lists: Mapping[str, Any] = {"entries_possibly_truncated": False, "exits_possibly_truncated": False}
    front = {
        "path": "/",
        "visitors": 30,
        "views": 60,
        "sessions": 35,
        "bounces": 2,
        "average_time_on_page_seconds": 8.0,
    }
    pages = [
        {**page, **lists, **front, "entries": 34, "entry_rate": 34 / 35, "exits": 20, "exit_rate": 20 / 35},
        {**page, "path": "/a", "visitors": 20, "views": 40, "sessions": 22, "bounces": 0},
        {
            "stat_date": DST_SUNDAY,
            "title": "",
            "path": "/late",
            "visitors": 1,
            "sessions": 1,
            "exits": 1,
            "exit_rate": 1.0,
        }
        | {"exits_possibly_truncated": False},
    ]
    lake.write("pirsch", "pages", "shop", DST_SUNDAY, pages)
    value: Mapping[str, Any] = {"stat_date": DST_SUNDAY, "parent_value": "", "possibly_truncated": False}
    values = [
        {**value, "dimension": "os", "value": "Windows", "visitors": 40, "relative_visitors": 40 / 49},
        {**value, "dimension": "os", "value": "", "visitors": 9, "relative_visitors": 9 / 49},
        {**value, "dimension": "country", "value": "de", "visitors": 49, "relative_visitors": 1.0},
    ]
    # A hundred cities of no visitor but one, and what the list leaves out.
    values += [
        {**value, "dimension": "city", "value": f"c{i}", "visitors": int(i == 0), "possibly_truncated": True}
        for i in range(min(CITIES, 100))
    ]
    lake.write("pirsch", "breakdowns", "shop", DST_SUNDAY, values)
    event = {"stat_date": DST_SUNDAY, "name": "Signup", "visitors": 3, "views": 5, "event_count": None}
    lake.write("pirsch", "events", "shop", DST_SUNDAY, [{**event, "possibly_truncated": False, "meta_keys": []}])
