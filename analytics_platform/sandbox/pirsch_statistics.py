"""What Pirsch counts: every statistic of the vendor document, computed from a domain's arrays.

Belongs here: the filter, and the numbers of the document of 2022-01-19. Does not belong here: how a domain's arrays are
made (`pirsch_domain`), statistics the vendor added later (`pirsch_later`), HTTP, parameters as text, tokens
(`pirsch`). Formulas: contracts/pirsch.md A5.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from analytics_platform.sandbox.pirsch_domain import PAIR, UTM, Codes, Definitions, Domain

__all__ = [
    "EMPTY_ARRAY",
    "FILTERS",
    "ROWS_AT_MOST",
    "STATISTICS",
    "Definitions",
    "Query",
    "Selection",
    "counts",
    "events_of",
    "meta_of",
    "rate",
    "select",
    "top",
    "views_of",
]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Row = dict[str, Any]

ROWS_AT_MOST = 100
# Query parameter -> dimension it filters.
FILTERS = {
    "entry_path": "entry_path", "exit_path": "exit_path", "language": "language", "country": "country_code",
    "city": "city", "referrer": "referrer", "referrer_name": "referrer_name", "os": "os", "browser": "browser",
    "platform": "platform", "region": "region", "hostname": "hostname", "channel": "channel",
    "screen_class": "screen_class", "screen_width": "screen_width", "screen_height": "screen_height",
    **{name: name for name in UTM},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Query:
    """One request's filter, parsed. Days are days since 1970-01-01, local to the domain, both inclusive."""

    from_day: int
    to_day: int
    start_seconds: int = 0
    limit: int = ROWS_AT_MOST
    path: str = ""
    pattern: str = ""
    event: str = ""
    event_meta_key: str = ""
    include_page_time: bool = False
    meta: Mapping[str, str] = field(default_factory=dict)
    dimensions: Mapping[str, str] = field(default_factory=dict)
    scale: str = "day"
    tag: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Selection:
    """The rows a query looks at. `weights` is the number of views (or events) of each selected session."""

    sessions: Ints
    views: Ints
    weights: Ints
    in_window: Ints

    def window_visitors(self, domain: Domain) -> int:
        """Distinct visitors of the time window, whatever else the filter says."""
        return domain.distinct(self.in_window)


# --- selecting -------------------------------------------------------------------------------------------------------


def _window(domain: Domain, query: Query) -> Ints:
    if query.start_seconds:
        return np.flatnonzero(domain.end_ms >= domain.now_ms - query.start_seconds * 1000)
    first, last = np.searchsorted(domain.day, [query.from_day, query.to_day + 1])
    return np.arange(first, last)


def select(domain: Domain, query: Query) -> Selection:
    """Apply the filter.

    Path and pattern filters make a view a matching page view, an event filter makes it a matching event.
    """
    window = _window(domain, query)
    sessions = window
    for name, value in query.dimensions.items():
        if len(sessions):
            sessions = sessions[domain.dimensions[name].matching(value)[sessions]]
    views = views_of(domain, sessions)
    weights = domain.views[sessions]
    if query.path or query.pattern or query.tag or query.tags:
        if query.path or query.pattern:
            views = views[_page_mask(domain, query)[domain.page.codes[views]]]
        if query.tag or query.tags:
            views = views[_tag_mask(domain, query)[domain.view_tags.codes[views]]]
        sessions, weights = np.unique(domain.view_session[views], return_counts=True)
    if query.event:
        events = events_of(domain, query, sessions)
        sessions, weights = np.unique(domain.event_session[events], return_counts=True)
        views = views_of(domain, sessions)
    return Selection(sessions=sessions, views=views, weights=weights.astype(np.int64), in_window=window)


def views_of(domain: Domain, sessions: Ints) -> Ints:
    """The view rows of these sessions (ascending)."""
    if not len(sessions):
        return np.zeros(0, dtype=np.int64)
    if sessions[-1] - sessions[0] + 1 == len(sessions):
        return np.arange(domain.view_offset[sessions[0]], domain.view_offset[sessions[-1] + 1])
    count = domain.views[sessions]
    start = np.repeat(domain.view_offset[sessions], count)
    return start + np.arange(len(start)) - np.repeat(np.cumsum(count) - count, count)


def _page_mask(domain: Domain, query: Query) -> npt.NDArray[np.bool_]:
    """For each page label: does it match? An exact path wins over a pattern."""
    if query.path:
        return Codes(np.arange(len(domain.page.labels)), domain.page.labels).matching(query.path)
    return _regex_mask(tuple(domain.page.labels), query.pattern)


@lru_cache(maxsize=256)
def _regex_mask(labels: tuple[str, ...], pattern: str) -> npt.NDArray[np.bool_]:
    wanted = re.compile(pattern)
    return np.array([bool(wanted.search(label)) for label in labels], dtype=bool)


def _tag_mask(domain: Domain, query: Query) -> npt.NDArray[np.bool_]:
    """For each set of tags: does it have the key and all the values?"""
    return np.array([_tags_match(text, query) for text in domain.view_tags.labels], dtype=bool)


def _tags_match(text: str, query: Query) -> bool:
    tags = meta_of(text)
    if query.tag and query.tag not in tags:
        return False
    return _values_match(tags, query.tags)


def events_of(domain: Domain, query: Query, sessions: Ints) -> Ints:
    """The event rows of these sessions that the filter leaves."""
    rows = np.flatnonzero(np.isin(domain.event_session, sessions))
    if query.event:
        rows = rows[domain.event_name.matching(query.event)[rows]]
    if query.path:
        rows = rows[domain.event_path.matching(query.path)[rows]]
    if query.event_meta_key or query.meta:
        allowed = np.array([_meta_matches(text, query) for text in domain.event_meta.labels], dtype=bool)
        rows = rows[allowed[domain.event_meta.codes[rows]]]
    return rows


def _meta_matches(text: str, query: Query) -> bool:
    meta = meta_of(text)
    if query.event_meta_key and query.event_meta_key not in meta:
        return False
    return _values_match(meta, query.meta)


def _values_match(given: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    for key, value in wanted.items():
        negated = value.startswith("!")
        if (given.get(key) == (value[1:] if negated else value)) == negated:
            return False
    return True


@lru_cache(maxsize=4096)
def meta_of(text: str) -> dict[str, str]:
    """The pairs of a metadata or tag label, as text."""
    return {str(key): str(value) for key, value in json.loads(text or "{}").items()}


# --- the statistics --------------------------------------------------------------------------------------------------


def rate(part: float, whole: float) -> float:
    """A fraction; nothing of nothing is 0."""
    return float(part) / float(whole) if whole else 0.0


def counts(domain: Domain, sessions: Ints, weights: Ints) -> Row:
    """The five figures of a traffic row over these sessions."""
    bounces = int(domain.bounced[sessions].sum())
    return {
        "visitors": domain.distinct(sessions),
        "views": int(weights.sum()),
        "sessions": len(sessions),
        "bounces": bounces,
        "bounce_rate": rate(bounces, max(len(sessions), 1)),
    }


def total(domain: Domain, query: Query) -> object:
    """One object over the whole range; visitors are distinct over the range."""
    chosen = select(domain, query)
    return counts(domain, chosen.sessions, chosen.weights)


def visitor(domain: Domain, query: Query) -> object:
    """One row a local day (week, month, year), every one of the range present, cut as the engine cuts every list."""
    chosen = select(domain, query)
    day = domain.day[chosen.sessions]
    rows = []
    for label, first, last in _buckets(domain, query):
        inside = (day >= first) & (day <= last)
        rows.append({**label, **counts(domain, chosen.sessions[inside], chosen.weights[inside])})
    return rows


def hours(domain: Domain, query: Query) -> object:
    """One row for each local hour 0 … 23; on a day of 25 hours one of them holds two."""
    chosen = select(domain, query)
    hour = domain.hour[chosen.sessions]
    return [
        {"hour": number, **counts(domain, chosen.sessions[hour == number], chosen.weights[hour == number])}
        for number in range(24)
    ]


def _buckets(domain: Domain, query: Query) -> list[tuple[Row, int, int]]:
    """What a series has a row for: its label, first and last day. Weeks start on Monday and may precede `from`."""
    days = range(query.from_day, min(query.to_day, domain.last_known_day) + 1)
    found: dict[int, tuple[int, int]] = {}
    for number in days:
        start = _start_of(number, query.scale)
        first, _ = found.get(start, (number, number))
        found[start] = (first, number)
    return [({query.scale: _day_text(start)}, *bounds) for start, bounds in found.items()][: query.limit]


def _start_of(number: int, scale: str) -> int:
    if scale == "day":
        return number
    day = date(1970, 1, 1) + timedelta(days=number)
    if scale == "week":
        return number - day.weekday()
    start = day.replace(day=1) if scale == "month" else day.replace(month=1, day=1)
    return number - (day - start).days


def _day_text(number: int) -> str:
    """A local date dressed as UTC midnight, as the vendor writes it."""
    return f"{(date(1970, 1, 1) + timedelta(days=number)).isoformat()}T00:00:00Z"


def duration_session(domain: Domain, query: Query) -> object:
    """Mean seconds of the sessions that last at all, by day; nothing under an event filter."""
    if query.event:
        return []
    chosen = select(domain, query).sessions
    return _duration_rows(domain, query, domain.day[chosen], domain.duration_seconds[chosen])


def duration_page(domain: Domain, query: Query) -> object:
    """Mean seconds on pages that were followed by another, by day; path and title stay empty as in the engine."""
    if query.event:
        return []
    views = select(domain, query).views
    return _duration_rows(domain, query, domain.day[domain.view_session[views]], domain.page_seconds[views])


def _duration_rows(domain: Domain, query: Query, day: Ints, seconds: Ints) -> list[Row]:
    rows = []
    for label, first, last in _buckets(domain, query):
        lasting = seconds[(day >= first) & (day <= last) & (seconds > 0)]
        mean = round(float(lasting.mean())) if len(lasting) else 0
        rows.append({**label, "path": "", "title": "", "average_time_spent_seconds": mean})
    return rows


def page(domain: Domain, query: Query) -> object:
    """Rows by path: a visitor, session or bounce counts for every page it touched."""
    chosen = select(domain, query)
    return page_rows(domain, query, chosen.views, chosen.in_window)


def page_rows(domain: Domain, query: Query, chosen: Ints, in_window: Ints) -> list[Row]:
    """Rows by page of these views, relative to the sessions of the window."""
    group = domain.page_group
    codes, size = group.codes[chosen], len(group.labels)
    of_session = domain.view_session[chosen]
    visitors = domain.distinct_by(codes, domain.visitor[of_session], size)
    views = np.bincount(codes, minlength=size)
    sessions, bounces = _touching(domain, codes, of_session, size)
    seconds = _page_means(domain, chosen, codes, size) if query.include_page_time else np.zeros(size, np.int64)
    everyone, all_views = domain.distinct(in_window), int(domain.views[in_window].sum())
    rows = []
    for code in top(visitors, query.limit):
        path, title = domain.named(group.labels[code])
        rows.append(
            {
                "path": path,
                "title": title,
                "visitors": int(visitors[code]),
                "views": int(views[code]),
                "sessions": int(sessions[code]),
                "bounces": int(bounces[code]),
                "relative_visitors": rate(visitors[code], everyone),
                "relative_views": rate(views[code], all_views),
                "bounce_rate": rate(bounces[code], max(int(sessions[code]), 1)),
                "average_time_spent_seconds": int(seconds[code]),
            }
        )
    return rows


def _touching(domain: Domain, codes: Ints, of_session: Ints, size: int) -> tuple[Ints, Ints]:
    """Sessions and bounced sessions that touched each page."""
    pairs = np.unique(codes * len(domain.day) + of_session)
    page_of_pair, session_of_pair = np.divmod(pairs, max(len(domain.day), 1))
    sessions = np.bincount(page_of_pair, minlength=size)
    return sessions, np.bincount(page_of_pair, weights=domain.bounced[session_of_pair], minlength=size).astype(np.int64)


def _page_means(domain: Domain, views: Ints, codes: Ints, size: int) -> Ints:
    seconds = domain.page_seconds[views]
    followed = seconds > 0
    spent = np.bincount(codes[followed], weights=seconds[followed], minlength=size)
    return np.rint(spent / np.maximum(np.bincount(codes[followed], minlength=size), 1)).astype(np.int64)


def top(counts: Ints, limit: int) -> Ints:
    """Codes with a count, most first, then by label (codes are in label order)."""
    order = np.argsort(-counts, kind="stable")
    return order[counts[order] > 0][:limit]


def page_entry(domain: Domain, query: Query) -> object:
    """Rows by landing path; visitors and sessions are the page's, not the entries'."""
    rows = _edge_rows(domain, query, domain.view_offset[:-1], "entries", "entry_rate")
    return [{**row, "average_time_spent_seconds": seconds} for row, seconds in rows]


def page_exit(domain: Domain, query: Query) -> object:
    """Rows by the last path of a session; visitors and sessions are the page's, not the exits'."""
    return [row for row, _ in _edge_rows(domain, query, domain.view_offset[1:] - 1, "exits", "exit_rate")]


def _edge_rows(
    domain: Domain, query: Query, view_of_session: Ints, count_name: str, rate_name: str
) -> list[tuple[Row, int]]:
    """Rows by the page of one view of each session (its first or its last)."""
    chosen = select(domain, query)
    group = domain.page_group
    codes, size = group.codes[chosen.views], len(group.labels)
    of_session = domain.view_session[chosen.views]
    visitors = domain.distinct_by(codes, domain.visitor[of_session], size)
    sessions, _ = _touching(domain, codes, of_session, size)
    seconds = _page_means(domain, chosen.views, codes, size) if query.include_page_time else np.zeros(size, np.int64)
    edges = np.bincount(group.codes[view_of_session[chosen.sessions]], minlength=size)
    rows = []
    for code in top(edges, query.limit):
        path, title = domain.named(group.labels[code])
        row = {
            "path": path,
            "title": title,
            "visitors": int(visitors[code]),
            "sessions": int(sessions[code]),
            count_name: int(edges[code]),
            rate_name: rate(edges[code], max(int(sessions[code]), 1)),
        }
        rows.append((row, int(seconds[code])))
    return rows


def breakdown(
    dimension: str, *, parts: tuple[str, ...] = (), keep_empty: bool = True
) -> Callable[[Domain, Query], object]:
    """A statistic by one dimension of the session; `parts` names the halves of a paired dimension (os, os_version)."""

    def rows(domain: Domain, query: Query) -> object:
        chosen = select(domain, query)
        by = domain.dimensions[dimension]
        visitors = domain.distinct_by(by.codes[chosen.sessions], domain.visitor[chosen.sessions], len(by.labels))
        if not keep_empty and by.labels and by.labels[0] == "":
            visitors[0] = 0
        everyone = chosen.window_visitors(domain)
        found = []
        for code in top(visitors, query.limit):
            label = by.labels[code]
            named = dict(zip(parts, label.split(PAIR), strict=True)) if parts else {dimension: label}
            count = int(visitors[code])
            found.append({"visitors": count, "relative_visitors": rate(count, everyone), **named})
        return found

    return rows


def referrer(domain: Domain, query: Query) -> object:
    """Rows by referrer name ("" is direct); the URL is one of those seen, as the engine takes any."""
    chosen = select(domain, query)
    by, urls = domain.dimensions["referrer_name"], domain.dimensions["referrer"]
    codes, size = by.codes[chosen.sessions], len(by.labels)
    visitors = domain.distinct_by(codes, domain.visitor[chosen.sessions], size)
    sessions = np.bincount(codes, minlength=size)
    bounces = np.bincount(codes, weights=domain.bounced[chosen.sessions], minlength=size).astype(np.int64)
    one_of = dict(zip(codes.tolist(), urls.codes[chosen.sessions].tolist(), strict=True))
    everyone = chosen.window_visitors(domain)
    return [
        {
            "referrer": urls.labels[one_of[int(code)]],
            "referrer_name": by.labels[code],
            "referrer_icon": "",
            "visitors": int(visitors[code]),
            "sessions": int(sessions[code]),
            "relative_visitors": rate(visitors[code], everyone),
            "bounces": int(bounces[code]),
            "bounce_rate": rate(bounces[code], max(int(sessions[code]), 1)),
        }
        for code in top(visitors, query.limit)
    ]


def platform(domain: Domain, query: Query) -> object:
    """One object that counts sessions (not visitors); mobile holds tablets."""
    by = domain.dimensions["platform"]
    sessions = select(domain, query).sessions
    counts = dict(zip(by.labels, np.bincount(by.codes[sessions], minlength=len(by.labels)).tolist(), strict=True))
    kinds = ("desktop", "mobile", "unknown")
    return {
        **{f"platform_{kind}": int(counts.get(kind, 0)) for kind in kinds},
        **{f"relative_platform_{kind}": rate(counts.get(kind, 0), len(sessions)) for kind in kinds},
    }


def growth(domain: Domain, query: Query) -> object:
    """Against the period of the same length before; bounces_growth is the growth of the bounce rate."""
    length = query.to_day - query.from_day + 1
    before = _with_days(query, query.from_day - length, query.from_day - 1)
    now_figures, now_time = _growth_base(domain, query)
    old_figures, old_time = _growth_base(domain, before)
    return {
        "visitors_growth": _growth(now_figures["visitors"], old_figures["visitors"]),
        "views_growth": _growth(now_figures["views"], old_figures["views"]),
        "sessions_growth": _growth(now_figures["sessions"], old_figures["sessions"]),
        "bounces_growth": _growth(now_figures["bounce_rate"], old_figures["bounce_rate"]),
        "time_spent_growth": _growth(now_time, old_time),
    }


def _with_days(query: Query, from_day: int, to_day: int) -> Query:
    return Query(**{**query.__dict__, "from_day": from_day, "to_day": to_day, "start_seconds": 0})


def _growth_base(domain: Domain, query: Query) -> tuple[Row, int]:
    chosen = select(domain, query)
    return counts(domain, chosen.sessions, chosen.weights), int(domain.duration_seconds[chosen.sessions].sum())


def _growth(current: float, previous: float) -> float:
    if previous == 0:
        return 0.0 if current == 0 else 1.0
    return (current - previous) / previous


def active(domain: Domain, query: Query) -> object:
    """Who was seen in the last `start` seconds (10 minutes by default), by path."""
    since = domain.now_ms - (query.start_seconds or 600) * 1000
    rows = np.flatnonzero((domain.view_at_ms >= since) & (domain.view_at_ms <= domain.now_ms))
    visitors_of = domain.visitor[domain.view_session[rows]]
    counts = domain.distinct_by(domain.page.codes[rows], visitors_of, len(domain.page.labels))
    stats = [
        {
            "path": domain.page.labels[code],
            "title": domain.titles[domain.page.labels[code]],
            "visitors": int(counts[code]),
        }
        for code in top(counts, query.limit)
    ]
    return {"stats": stats or None, "visitors": len(np.unique(visitors_of))}


def goals(domain: Domain, query: Query) -> object:
    """Every goal with the visitors and views of its pages; `cr` is a fraction of the window's visitors."""
    found = []
    for goal in domain.goals:
        fields = {**query.__dict__, "path": "", "pattern": goal.regex}
        chosen = select(domain, Query(**fields))
        visitors = domain.distinct(chosen.sessions)
        cr = rate(visitors, chosen.window_visitors(domain))
        found.append((goal, {"visitors": visitors, "views": len(chosen.views), "cr": cr}))
    return found


def events(domain: Domain, query: Query) -> object:
    """Rows by event name with the metadata keys seen."""
    rows, everyone = _event_rows(domain, query)
    keys = [set(meta_of(text)) for text in domain.event_meta.labels]
    by = domain.event_name
    codes = by.codes[rows]
    found = _event_counts(domain, rows, codes, len(by.labels), everyone, query.limit)
    for row in found:
        code = row.pop("code")
        row["name"] = by.labels[code]
        seen = np.unique(domain.event_meta.codes[rows[codes == code]])
        row["meta_keys"] = sorted(set().union(*(keys[meta] for meta in seen))) or None
        row["meta_value"] = ""
    return found


def event_meta(domain: Domain, query: Query) -> object:
    """Rows by the values of one metadata key of one event; an empty list when one of the two is missing."""
    if not (query.event and query.event_meta_key):
        return EMPTY_ARRAY
    rows, everyone = _event_rows(domain, query)
    value_of_meta = np.array(
        [meta_of(text).get(query.event_meta_key, "") for text in domain.event_meta.labels], dtype=object
    )
    values = Codes.of(value_of_meta[domain.event_meta.codes[rows]])
    found = _event_counts(domain, rows, values.codes, len(values.labels), everyone, query.limit)
    for row in found:
        row["name"] = query.event
        row["meta_keys"] = None
        row["meta_value"] = values.labels[row.pop("code")]
    return found


def event_list(domain: Domain, query: Query) -> object:
    """Rows by name and whole metadata."""
    rows, _ = _event_rows(domain, query)
    size = max(len(domain.event_meta.labels), 1)
    pair, codes = np.unique(domain.event_name.codes[rows] * size + domain.event_meta.codes[rows], return_inverse=True)
    counts = np.bincount(codes, minlength=len(pair))
    visitors = domain.distinct_by(codes, domain.visitor[domain.event_session[rows]], len(pair))
    return [
        {
            "name": domain.event_name.labels[pair[code] // size],
            "meta": meta_of(domain.event_meta.labels[pair[code] % size]),
            "visitors": int(visitors[code]),
            "count": int(counts[code]),
        }
        for code in top(counts, query.limit)
    ]


def _event_rows(domain: Domain, query: Query) -> tuple[Ints, int]:
    window = _window(domain, query)
    chosen = window
    for name, value in query.dimensions.items():
        chosen = chosen[domain.dimensions[name].matching(value)[chosen]] if len(chosen) else chosen
    return events_of(domain, query, chosen), domain.distinct(window)


def _event_counts(domain: Domain, rows: Ints, codes: Ints, size: int, everyone: int, limit: int) -> list[Row]:
    visitors = domain.distinct_by(codes, domain.visitor[domain.event_session[rows]], size)
    count = np.bincount(codes, minlength=size)
    seconds = domain.event_seconds[rows]
    lasting = seconds > 0
    spent = np.bincount(codes[lasting], weights=seconds[lasting], minlength=size)
    mean = np.rint(spent / np.maximum(np.bincount(codes[lasting], minlength=size), 1)).astype(np.int64)
    return [
        {
            "code": int(code),
            "visitors": int(visitors[code]),
            "views": int(count[code]),
            "cr": rate(visitors[code], everyone),
            "average_duration_seconds": int(mean[code]),
        }
        for code in top(visitors, limit)
    ]


def keywords(domain: Domain, query: Query) -> object:
    """Needs the Google Search Console integration, which no sandbox domain has."""
    return []


class _EmptyArray(list[Row]):
    """An empty list the vendor does write as `[]`; every other empty list is `null`."""


EMPTY_ARRAY = _EmptyArray()

STATISTICS: Mapping[str, Callable[[Domain, Query], object]] = {
    "total": total,
    "visitor": visitor,
    "hours": hours,
    "duration/session": duration_session,
    "duration/page": duration_page,
    "page": page,
    "page/entry": page_entry,
    "page/exit": page_exit,
    "referrer": referrer,
    "language": breakdown("language"),
    "country": breakdown("country_code"),
    "city": breakdown("city"),
    "os": breakdown("os"),
    "os/version": breakdown("os_version", parts=("os", "os_version")),
    "browser": breakdown("browser"),
    "browser/version": breakdown("browser_version", parts=("browser", "browser_version")),
    "screen": breakdown("screen_class"),
    "platform": platform,
    "growth": growth,
    "active": active,
    "goals": goals,
    "events": events,
    "event/meta": event_meta,
    "event/list": event_list,
    "keywords": keywords,
    **{f"utm/{name.removeprefix('utm_')}": breakdown(name, keep_empty=False) for name in UTM},
}
