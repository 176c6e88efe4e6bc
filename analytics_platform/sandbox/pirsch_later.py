"""Statistics Pirsch added after the document of 2022: what its own SDK of today asks for.

Belongs here: host names, channels, regions, tags, minutes, weekdays, event pages, sessions one by one, funnels, value
lists, the overview. Does not belong here: the document's own statistics (`pirsch_statistics`), which these are made
like. Source: contracts/pirsch.md A4 ("Added later"); shapes as the vendor's documentation of today gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from analytics_platform.sandbox.pirsch_domain import PAIR, UTM, Codes, Domain
from analytics_platform.sandbox.pirsch_statistics import (
    EMPTY_ARRAY,
    Query,
    breakdown,
    counts,
    events_of,
    meta_of,
    page_rows,
    rate,
    select,
    top,
    visitor,
)

__all__ = ["LATER", "OPTIONS", "Funnel", "FunnelStep", "funnel", "overview", "session_details", "session_list"]

Ints = npt.NDArray[np.int64]
Row = dict[str, Any]

_OVERVIEW_DAYS = 30


@dataclass(frozen=True, kw_only=True)
class FunnelStep:
    """One step: a name, and the path pattern (as an expression) or event that passes it."""

    name: str
    regex: str = ""
    event: str = ""


@dataclass(frozen=True, kw_only=True)
class Funnel:
    """A funnel as somebody set it up."""

    id: str
    name: str
    steps: tuple[FunnelStep, ...]


def by_traffic(dimension: str) -> Callable[[Domain, Query], object]:
    """Rows by a dimension of the session with all traffic figures (channel, hostname)."""

    def rows(domain: Domain, query: Query) -> object:
        chosen = select(domain, query)
        by = domain.dimensions[dimension]
        codes, size = by.codes[chosen.sessions], len(by.labels)
        visitors = domain.distinct_by(codes, domain.visitor[chosen.sessions], size)
        views = np.bincount(codes, weights=chosen.weights, minlength=size)
        everyone, all_views = chosen.window_visitors(domain), int(domain.views[chosen.in_window].sum())
        found = []
        for code in top(visitors, query.limit):
            figures = counts(domain, chosen.sessions[codes == code], chosen.weights[codes == code])
            relative = {
                "relative_visitors": rate(visitors[code], everyone),
                "relative_views": rate(views[code], all_views),
            }
            found.append({dimension: by.labels[code], **figures, **relative})
        return found

    return rows


def minutes(domain: Domain, query: Query) -> object:
    """One row for each minute 0 … 59 of the hours chosen."""
    chosen = select(domain, query)
    minute = domain.minute[chosen.sessions]
    return [
        {"minute": number, **counts(domain, chosen.sessions[minute == number], chosen.weights[minute == number])}
        for number in range(60)
    ]


def weekdays(domain: Domain, query: Query) -> object:
    """Rows by weekday (Monday is 0) and hour; only those somebody came in."""
    chosen = select(domain, query)
    slot = (domain.day[chosen.sessions] + 3) % 7 * 24 + domain.hour[chosen.sessions]  # 1970-01-01 was a Thursday
    found = []
    for number in np.unique(slot).tolist():
        figures = counts(domain, chosen.sessions[slot == number], chosen.weights[slot == number])
        figures.pop("bounce_rate")
        found.append({"weekday": number // 24, "hour": number % 24, **figures})
    return found


def event_page(domain: Domain, query: Query) -> object:
    """Pages an event happened on; an empty list without an event in the filter."""
    if not query.event:
        return EMPTY_ARRAY
    chosen = select(domain, replace(query, event=""))
    events = events_of(domain, query, chosen.sessions)
    touched = {
        (int(session), domain.event_path.labels[path])
        for session, path in zip(domain.event_session[events], domain.event_path.codes[events], strict=True)
    }
    paths = [domain.page.labels[code] for code in domain.page.codes[chosen.views]]
    of_session = domain.view_session[chosen.views]
    kept = [index for index, path in enumerate(paths) if (int(of_session[index]), path) in touched]
    return page_rows(domain, query, chosen.views[np.array(kept, dtype=np.int64)], chosen.in_window)


def tags(domain: Domain, query: Query) -> object:
    """Rows by tag key."""
    return [{"key": row["key"], **row} for row in _tag_rows(domain, query, lambda key, value: key)]


def tag_details(domain: Domain, query: Query) -> object:
    """Rows by the values of one tag; an empty list without a tag in the filter."""
    if not query.tag:
        return EMPTY_ARRAY
    rows = _tag_rows(domain, query, lambda key, value: f"{key}{PAIR}{value}" if key == query.tag else None)
    for row in rows:
        row["key"], _, row["value"] = row["key"].partition(PAIR)
    return rows


def _tag_rows(domain: Domain, query: Query, label_of: Callable[[str, str], str | None]) -> list[Row]:
    chosen = select(domain, query)
    views, labels = [], []
    named = [
        [label for pair in meta_of(text).items() if (label := label_of(*pair))] for text in domain.view_tags.labels
    ]
    for view in chosen.views.tolist():
        for label in named[domain.view_tags.codes[view]]:
            views.append(view)
            labels.append(label)
    by, rows = Codes.of(labels), np.array(views, dtype=np.int64)
    visitors = domain.distinct_by(by.codes, domain.visitor[domain.view_session[rows]], len(by.labels))
    count = np.bincount(by.codes, minlength=len(by.labels))
    everyone, all_views = chosen.window_visitors(domain), int(domain.views[chosen.in_window].sum())
    return [
        {
            "key": by.labels[code],
            "visitors": int(visitors[code]),
            "views": int(count[code]),
            "relative_visitors": rate(visitors[code], everyone),
            "relative_views": rate(count[code], all_views),
        }
        for code in top(visitors, query.limit)
    ]


# --- sessions one by one ---------------------------------------------------------------------------------------------


def session_list(domain: Domain, query: Query) -> object:
    """The sessions of the window, newest first; `visitor_id` is text (it is a uint64)."""
    sessions = select(domain, query).sessions
    newest = sessions[np.argsort(-domain.end_ms[sessions], kind="stable")][: query.limit]
    return [{"visitor_id": str(domain.visitor[one] + 1), **_session(domain, int(one))} for one in newest.tolist()]


def _session(domain: Domain, one: int) -> Row:
    first, last = domain.view_offset[one], domain.view_offset[one + 1] - 1
    entry, leave = (domain.page.labels[domain.page.codes[view]] for view in (first, last))
    return {
        "session_id": one + 1,
        "time": _time(domain.end_ms[one]),
        "start": _time(domain.start_ms[one]),
        "duration_seconds": int(domain.duration_seconds[one]),
        "entry_path": entry,
        "exit_path": leave,
        "page_views": int(domain.views[one]),
        "is_bounce": bool(domain.bounced[one]),
        "entry_title": domain.titles[entry],
        "exit_title": domain.titles[leave],
        **_visitor_facts(domain, one),
        "extended": 0,
    }


def _visitor_facts(domain: Domain, one: int) -> Row:
    def label(name: str) -> str:
        by = domain.dimensions[name]
        return str(by.labels[by.codes[one]])

    plain = ("language", "country_code", "region", "city", "hostname", "referrer", "referrer_name", "os", "browser",
             "screen_class", *UTM)  # fmt: skip
    return {
        **{name: label(name) for name in plain},
        "referrer_icon": "",
        "os_version": label("os_version").partition(PAIR)[2],
        "browser_version": label("browser_version").partition(PAIR)[2],
        "desktop": label("platform") == "desktop",
        "mobile": label("platform") == "mobile",
    }


def session_details(domain: Domain, *, visitor_id: str, session_id: str) -> object:
    """Page views and events of one session in order of time; here `visitor_id` is a number."""
    one = int(session_id) - 1 if session_id.isdigit() else -1
    if not 0 <= one < len(domain.day) or str(domain.visitor[one] + 1) != visitor_id:
        return []
    facts = {"visitor_id": int(domain.visitor[one] + 1), "session_id": one + 1, **_visitor_facts(domain, one)}
    found: list[tuple[int, Row]] = []
    for view in range(int(domain.view_offset[one]), int(domain.view_offset[one + 1])):
        path = domain.page.labels[domain.page.codes[view]]
        pairs = meta_of(domain.view_tags.labels[domain.view_tags.codes[view]])
        seen = {**facts, "time": _time(domain.view_at_ms[view]), "duration_seconds": int(domain.page_seconds[view]),
                "path": path, "title": domain.titles[path],
                "tag_keys": list(pairs), "tag_values": list(pairs.values())}  # fmt: skip
        found.append((int(domain.view_at_ms[view]), {"page_view": seen, "event": None}))
    for event in np.flatnonzero(domain.event_session == one).tolist():
        pairs = meta_of(domain.event_meta.labels[domain.event_meta.codes[event]])
        path = domain.event_path.labels[domain.event_path.codes[event]]
        happened = {**facts, "time": _time(domain.event_at_ms[event]),
                    "name": domain.event_name.labels[domain.event_name.codes[event]],
                    "meta_keys": list(pairs), "meta_values": list(pairs.values()),
                    "duration_seconds": int(domain.event_seconds[event]),
                    "path": path, "title": domain.titles.get(path, "")}  # fmt: skip
        found.append((int(domain.event_at_ms[event]), {"page_view": None, "event": happened}))
    return [row for _, row in sorted(found, key=lambda pair: pair[0])]


def _time(at_ms: int) -> str:
    moment = datetime.fromtimestamp(int(at_ms) // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


# --- funnels, overview, value lists ----------------------------------------------------------------------------------


def funnel(domain: Domain, query: Query, steps: Sequence[FunnelStep]) -> list[Row]:
    """Visitors by step; each step keeps visitors of the step before, whatever the order of their pages in time."""
    remaining: Ints | None = None
    found: list[Row] = []
    for number, step in enumerate(steps, start=1):
        here = replace(query, path="", pattern=step.regex or query.pattern, event=step.event or query.event)
        passed = np.unique(domain.visitor[select(domain, here).sessions])
        previous = 0 if remaining is None else len(remaining)
        remaining = passed if remaining is None else np.intersect1d(remaining, passed)
        visitors = len(remaining)
        first = found[0]["visitors"] if found else visitors
        dropped = max(previous - visitors, 0)
        found.append(
            {
                "step": number,
                "visitors": visitors,
                "relative_visitors": rate(visitors, first),
                "previous_visitors": previous,
                "relative_previous_visitors": rate(previous, first),
                "dropped": dropped,
                "drop_off": rate(dropped, previous),
            }
        )
    return found


def overview(domain: Domain, *, members: int) -> object:
    """The last 30 days against the 30 before, the series, and how many people may read them. No filter applies."""
    today = domain.last_known_day - 1
    now = Query(from_day=today - _OVERVIEW_DAYS + 1, to_day=today)
    before = Query(from_day=today - 2 * _OVERVIEW_DAYS + 1, to_day=today - _OVERVIEW_DAYS)
    figures, earlier = (
        counts(domain, chosen.sessions, chosen.weights) for chosen in (select(domain, now), select(domain, before))
    )
    growth = {
        f"{name}_growth": (figures[name] - earlier[name]) / earlier[name] if earlier[name] else float(figures[name] > 0)
        for name in ("visitors", "views")
    }
    return {
        "visitors": figures["visitors"],
        "views": figures["views"],
        **growth,
        "visitors_time_series": visitor(domain, now),
        "member": members,
    }


def _values(by: Codes, codes: Ints, query: Query) -> list[str]:
    return [label for code in np.unique(codes).tolist() if (label := by.labels[code])][: query.limit]


def _option(dimension: str) -> Callable[[Domain, Query], object]:
    def values(domain: Domain, query: Query) -> object:
        by = domain.dimensions[dimension]
        return _values(by, by.codes[select(domain, query).sessions], query)

    return values


def _pages(domain: Domain, query: Query) -> object:
    return _values(domain.page, domain.page.codes[select(domain, query).views], query)


def _events(domain: Domain, query: Query) -> object:
    rows = events_of(domain, query, select(domain, query).sessions)
    return _values(domain.event_name, domain.event_name.codes[rows], query)


def _pairs_of_events(domain: Domain, query: Query) -> list[dict[str, str]]:
    rows = events_of(domain, query, select(domain, query).sessions)
    return [meta_of(domain.event_meta.labels[code]) for code in np.unique(domain.event_meta.codes[rows]).tolist()]


def _meta_keys(domain: Domain, query: Query) -> object:
    return sorted({key for pairs in _pairs_of_events(domain, query) for key in pairs})[: query.limit]


def _meta_values(domain: Domain, query: Query) -> object:
    wanted = query.event_meta_key
    pairs = (pair for meta in _pairs_of_events(domain, query) for pair in meta.items())
    return sorted({value for key, value in pairs if wanted in ("", key)})[: query.limit]


def _pairs_of_views(domain: Domain, query: Query) -> list[dict[str, str]]:
    codes = np.unique(domain.view_tags.codes[select(domain, query).views]).tolist()
    return [meta_of(domain.view_tags.labels[code]) for code in codes]


def _tag_keys(domain: Domain, query: Query) -> object:
    return sorted({key for pairs in _pairs_of_views(domain, query) for key in pairs})[: query.limit]


def _tag_values(domain: Domain, query: Query) -> object:
    pairs = (pair for one in _pairs_of_views(domain, query) for pair in one.items())
    return sorted({value for key, value in pairs if key == query.tag})[: query.limit]


OPTIONS: Mapping[str, Callable[[Domain, Query], object]] = {
    "referrer/name": _option("referrer_name"),
    "referrer": _option("referrer"),
    "hostname": _option("hostname"),
    "channel": _option("channel"),
    "country": _option("country_code"),
    "region": _option("region"),
    "city": _option("city"),
    "language": _option("language"),
    "browser": _option("browser"),
    "os": _option("os"),
    "page": _pages,
    "event": _events,
    "metadata/keys": _meta_keys,
    "metadata": _meta_values,
    "tag": _tag_keys,
    "tag/value": _tag_values,
    **{f"utm/{name.removeprefix('utm_')}": _option(name) for name in UTM},
}

LATER: Mapping[str, Callable[[Domain, Query], object]] = {
    "hostname": by_traffic("hostname"),
    "channel": by_traffic("channel"),
    "region": breakdown("country_region", parts=("country_code", "region")),
    "minutes": minutes,
    "weekdays": weekdays,
    "event/page": event_page,
    "tags": tags,
    "tag/details": tag_details,
    "session/list": session_list,
}
