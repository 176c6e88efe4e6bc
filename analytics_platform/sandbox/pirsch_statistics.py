"""What Pirsch counts: its sessions over the truth, and every statistic computed from them.

Belongs here: Pirsch's definitions (who is counted, session, view, bounce, duration, day) and the numbers. Does not
belong here: HTTP, parameters as text, tokens (`pirsch`). Definitions: MARTS §2 and §5.5; formulas: contracts/pirsch.md
A5.

Sessions are kept as parallel arrays ordered by (local day, start), views and events grouped by session, so that a range
of days is a slice of each. A dimension is an array of codes into sorted labels; counting distinct visitors by label is
one `unique`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import numpy.typing as npt
import pandas as pd

from analytics_platform.sandbox.sessionize import sessionize
from analytics_platform.sandbox.truth import SiteTruth, World, local_dates

__all__ = ["ROWS_AT_MOST", "STATISTICS", "Definitions", "Domain", "Goal", "Query", "build_domain"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Row = dict[str, Any]

ROWS_AT_MOST = 100
_IDLE_SECONDS = 30 * 60
_CAP_SECONDS = 24 * 3600
_PAGE_SECONDS_AT_MOST = 3600
_EPOCH = date(1970, 1, 1).toordinal()
_PAIR = "\x1f"  # joins the halves of a paired label (not NUL: pandas cuts text there)
_UTM = ("utm_source", "utm_medium", "utm_campaign", "utm_content", "utm_term")
_SCREENS = ((5120, "UHD 5K"), (3840, "UHD 4K"), (2560, "WQHD"), (1920, "Full HD"), (1280, "HD"), (1024, "XL"),
            (800, "L"), (600, "M"), (415, "S"), (1, "XS"))  # fmt: skip
# Query parameter -> dimension it filters.
FILTERS = {
    "entry_path": "entry_path", "exit_path": "exit_path", "language": "language", "country": "country_code",
    "city": "city", "referrer": "referrer", "referrer_name": "referrer_name", "os": "os", "browser": "browser",
    "platform": "platform",
    "screen_class": "screen_class", "screen_width": "screen_width", "screen_height": "screen_height",
    **{name: name for name in _UTM},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Definitions:
    """Knobs of this observer.

    Attributes:
        respect_dnt: visitors that send Do Not Track are not counted.
        session_day: "start", or "last_seen" as the vendor's engine stores it (a session then may move to the next day).
        daily_fingerprint: a visitor of two days is two visitors in a range, as a hash with the date in it would say.
        events_end_bounce: a session with one view and an event is no bounce.
    """

    respect_dnt: bool = False
    session_day: str = "start"
    daily_fingerprint: bool = False
    events_end_bounce: bool = False


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


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A conversion goal on a path pattern; `regex` is generated from it by the vendor."""

    id: str
    name: str
    path_pattern: str
    regex: str
    visitor_goal: int | None
    cr_goal: float | None


@dataclass(frozen=True)
class _Codes:
    codes: Ints
    labels: Sequence[str]

    @classmethod
    def of(cls, values: npt.ArrayLike | pd.Series[Any]) -> _Codes:
        codes, labels = pd.factorize(np.asarray(values, dtype=object), sort=True)
        return cls(codes.astype(np.int64), [str(label) for label in labels])

    def matching(self, value: str) -> npt.NDArray[np.bool_]:
        """Mask over the rows: `value` is equal, `!value` is not; `null` is the unknown."""
        negated = value.startswith("!")
        wanted = value[1:] if negated else value
        wanted = "" if wanted.lower() == "null" else wanted
        allowed = np.array([(label == wanted) != negated for label in self.labels], dtype=bool)
        return np.asarray(allowed[self.codes], dtype=np.bool_)


@dataclass(frozen=True)
class Domain:
    """Everything one domain's statistics are made of. Session arrays are parallel; so are view and event arrays."""

    goals: tuple[Goal, ...]
    now_ms: int
    last_known_day: int
    visitor_count: int
    # one entry a session
    day: Ints
    hour: Ints
    visitor: Ints
    views: Ints
    bounced: Ints
    duration_seconds: Ints
    end_ms: Ints
    view_offset: Ints
    dimensions: Mapping[str, _Codes]
    # one entry a view, grouped by session
    view_session: Ints
    view_at_ms: Ints
    page_seconds: Ints
    page: _Codes
    titles: Mapping[str, str]
    # one entry a custom event, ordered by session
    event_session: Ints
    event_name: _Codes
    event_meta: _Codes
    event_seconds: Ints
    event_path: _Codes

    def distinct(self, sessions: Ints) -> int:
        """Distinct visitors of these sessions."""
        return len(np.unique(self.visitor[sessions]))

    def distinct_by(self, codes: Ints, visitors: Ints, groups: int) -> Ints:
        """Distinct visitors per group code."""
        pairs = np.unique(codes * self.visitor_count + visitors)
        return np.bincount(pairs // self.visitor_count, minlength=groups)


@dataclass(frozen=True)
class _Selection:
    """The rows a query looks at. `weights` is the number of views (or events) of each selected session."""

    sessions: Ints
    views: Ints
    weights: Ints
    in_window: Ints

    def window_visitors(self, domain: Domain) -> int:
        return domain.distinct(self.in_window)


# --- building --------------------------------------------------------------------------------------------------------


def build_domain(world: World, site: SiteTruth, definitions: Definitions) -> Domain:
    """Pirsch's view of one site: everyone who is no bot, whatever the consent."""
    people = world.visitors[world.visitors["site_key"] == site.key]
    counted = people[~people["is_bot"] & ~people["is_data_centre"]]
    if definitions.respect_dnt:
        counted = counted[~counted["sends_dnt"]]
    mine = world.views[(world.views["site_key"] == site.key) & world.views["visitor_id"].isin(counted["visitor_id"])]
    views = sessionize(mine, idle_seconds=_IDLE_SECONDS, cap_seconds=_CAP_SECONDS, drop_reloads=True)
    sessions = _session_frame(views, counted, site, definitions)
    rank = np.empty(len(sessions), dtype=np.int64)
    rank[sessions["session_index"].to_numpy()] = np.arange(len(sessions))
    views = views.assign(rank=rank[views["session_index"].to_numpy()])
    views = views.sort_values(["rank", "at_ms", "url"], kind="stable", ignore_index=True)
    events = _event_frame(world, site, sessions)
    count = np.bincount(views["rank"], minlength=len(sessions)).astype(np.int64)
    bounced = count == 1
    if definitions.events_end_bounce:
        bounced &= np.bincount(events["rank"], minlength=len(sessions)) == 0
    visitor = pd.factorize(sessions["visitor_id"])[0].astype(np.int64)
    if definitions.daily_fingerprint:
        visitor = pd.factorize(visitor * 1_000_000 + sessions["day"].to_numpy())[0].astype(np.int64)
    lasting = (sessions["session_end_ms"] - sessions["session_start_ms"]).to_numpy() // 1000
    at, of_session = views["at_ms"].to_numpy(), views["rank"].to_numpy()
    followed = np.append(of_session[1:] == of_session[:-1], False)[: len(views)]
    page_seconds = np.where(followed, (np.append(at[1:], 0)[: len(views)] - at) // 1000, 0)
    return Domain(
        goals=_goals(set(views["path"])),
        now_ms=world.now_ms,
        last_known_day=world.now.date().toordinal() - _EPOCH + 1,
        visitor_count=max(1, int(visitor.max(initial=0)) + 1),
        day=sessions["day"].to_numpy(),
        hour=sessions["hour"].to_numpy(),
        visitor=visitor,
        views=count,
        bounced=bounced.astype(np.int64),
        duration_seconds=np.where(bounced, 0, lasting).astype(np.int64),
        end_ms=sessions["session_end_ms"].to_numpy(),
        view_offset=np.append(0, np.cumsum(count)),
        dimensions=_dimensions(sessions),
        view_session=of_session,
        view_at_ms=at,
        page_seconds=np.minimum(page_seconds, _PAGE_SECONDS_AT_MOST).astype(np.int64),
        page=_Codes.of(views["path"]),
        titles=dict(zip(views["path"], views["title"], strict=True)),
        event_session=events["rank"].to_numpy(dtype=np.int64),
        event_name=_Codes.of(events["name"]),
        event_meta=_Codes.of(events["meta"]),
        event_seconds=events["duration_seconds"].to_numpy(dtype=np.int64),
        event_path=_Codes.of(events["path"]),
    )


def _session_frame(
    views: pd.DataFrame, people: pd.DataFrame, site: SiteTruth, definitions: Definitions
) -> pd.DataFrame:
    """One row a session with the attributes of its visitor and its landing, ordered by (day, start)."""
    first = views.drop_duplicates("session_index", keep="first")
    last = views.drop_duplicates("session_index", keep="last")
    frame = first[["session_index", "visitor_id", "session_start_ms", "session_end_ms", "query", "referrer"]].copy()
    frame["entry_path"], frame["exit_path"] = first["path"].to_numpy(), last["path"].to_numpy()
    stamp = "session_end_ms" if definitions.session_day == "last_seen" else "session_start_ms"
    frame["day"] = local_dates(frame[stamp], site.timezone).astype("datetime64[D]").astype(np.int64)
    local = pd.to_datetime(frame[stamp], unit="ms", utc=True).dt.tz_convert(site.timezone)
    frame["hour"] = local.dt.hour.astype(np.int64)
    # A session that begins after a pause was "referred" by the site itself: that is no referrer.
    own = frame["referrer"].str.startswith((f"https://{site.hostname}/", f"http://{site.hostname}/"))
    frame["referrer"] = frame["referrer"].where(~own, "")
    columns = ["visitor_id", "country", "city", "language", "device", "browser", "browser_version", "os", "os_version",
               "screen_width", "screen_height"]  # fmt: skip
    frame = frame.merge(people[columns], on="visitor_id", how="left", validate="many_to_one")
    return frame.sort_values(["day", "session_start_ms", "visitor_id"], kind="stable", ignore_index=True)


def _dimensions(sessions: pd.DataFrame) -> dict[str, _Codes]:
    utm = [_utm_of(query) for query in sessions["query"]]
    platform = sessions["device"].map({"desktop": "desktop", "phone": "mobile", "tablet": "mobile"}).fillna("unknown")
    values: dict[str, Any] = {
        "entry_path": sessions["entry_path"],
        "exit_path": sessions["exit_path"],
        "language": sessions["language"],
        "country_code": sessions["country"].str.lower(),
        "city": sessions["city"],
        "os": sessions["os"],
        "os_version": sessions["os"] + _PAIR + sessions["os_version"],
        "browser": sessions["browser"],
        "browser_version": sessions["browser"] + _PAIR + sessions["browser_version"],
        "platform": platform,
        "screen_class": [_screen_class(width) for width in sessions["screen_width"]],
        "screen_width": sessions["screen_width"].astype(str),
        "screen_height": sessions["screen_height"].astype(str),
        "referrer": sessions["referrer"],
        "referrer_name": [_referrer_name(url) for url in sessions["referrer"]],
    }
    for position, name in enumerate(_UTM):
        values[name] = [row[position] for row in utm]
    return {name: _Codes.of(column) for name, column in values.items()}


@lru_cache(maxsize=4096)
def _utm_of(query: str) -> tuple[str, ...]:
    given = dict(parse_qsl(query))
    return tuple(given.get(name, "") for name in _UTM)


def _screen_class(width: int) -> str:
    return next((name for least, name in _SCREENS if width >= least), "")


def _referrer_name(url: str) -> str:
    host = urlsplit(url).hostname or ""
    return host.removeprefix("www.")


def _event_frame(world: World, site: SiteTruth, sessions: pd.DataFrame) -> pd.DataFrame:
    """Custom events of counted visitors with the rank of the session they fall in, ordered by it."""
    events = world.events[(world.events["site_key"] == site.key) & (world.events["kind"] == "custom")]
    events = events[events["visitor_id"].isin(sessions["visitor_id"])]
    starts = sessions[["visitor_id", "session_start_ms"]].assign(rank=np.arange(len(sessions)))
    if events.empty:
        return events.assign(rank=np.zeros(0, dtype=np.int64))
    joined = pd.merge_asof(
        events.sort_values("at_ms", kind="stable"),
        starts.sort_values("session_start_ms", kind="stable"),
        left_on="at_ms",
        right_on="session_start_ms",
        by="visitor_id",
    ).dropna(subset=["rank"])
    joined["rank"] = joined["rank"].astype(np.int64)
    return joined.sort_values(["rank", "at_ms", "event_id"], kind="stable", ignore_index=True)


def _goals(paths: set[str]) -> tuple[Goal, ...]:
    """The goals somebody would have set up for the pages there are."""
    wanted = (
        ("Purchase", "/checkout/thank-you", 5, 2.5), ("Product seen", "/product/**", None, None),
        ("Cart", "/cart", 40, None), ("Newsletter signup", "/newsletter/thanks", 3, 1.0),
        ("Article read", "/articles/**", None, None),
    )  # fmt: skip
    return tuple(
        Goal(
            id=f"g0al{number:06d}",
            name=name,
            path_pattern=pattern,
            regex=_pattern_regex(pattern),
            visitor_goal=visitors,
            cr_goal=rate,
        )
        for number, (name, pattern, visitors, rate) in enumerate(wanted, start=1)
        if any(re.search(_pattern_regex(pattern), path) for path in paths)
    )


def _pattern_regex(pattern: str) -> str:
    inner = re.escape(pattern).replace(r"\*\*", ".+").replace(r"\*", "[^/]+")
    return f"(?i)^{inner}$"


# --- selecting -------------------------------------------------------------------------------------------------------


def _window(domain: Domain, query: Query) -> Ints:
    if query.start_seconds:
        return np.flatnonzero(domain.end_ms >= domain.now_ms - query.start_seconds * 1000)
    first, last = np.searchsorted(domain.day, [query.from_day, query.to_day + 1])
    return np.arange(first, last)


def _select(domain: Domain, query: Query) -> _Selection:
    """Apply the filter.

    Path and pattern filters make a view a matching page view, an event filter makes it a matching event.
    """
    window = _window(domain, query)
    sessions = window
    for name, value in query.dimensions.items():
        if len(sessions):
            sessions = sessions[domain.dimensions[name].matching(value)[sessions]]
    views = _views_of(domain, sessions)
    weights = domain.views[sessions]
    if query.path or query.pattern:
        views = views[_page_mask(domain, query)[domain.page.codes[views]]]
        sessions, weights = np.unique(domain.view_session[views], return_counts=True)
    if query.event:
        events = _events_of(domain, query, sessions)
        sessions, weights = np.unique(domain.event_session[events], return_counts=True)
        views = _views_of(domain, sessions)
    return _Selection(sessions=sessions, views=views, weights=weights.astype(np.int64), in_window=window)


def _views_of(domain: Domain, sessions: Ints) -> Ints:
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
        negated = query.path.startswith("!")
        wanted = query.path[1:] if negated else query.path
        return np.array([(label == wanted) != negated for label in domain.page.labels], dtype=bool)
    return _regex_mask(tuple(domain.page.labels), query.pattern)


@lru_cache(maxsize=256)
def _regex_mask(labels: tuple[str, ...], pattern: str) -> npt.NDArray[np.bool_]:
    wanted = re.compile(pattern)
    return np.array([bool(wanted.search(label)) for label in labels], dtype=bool)


def _events_of(domain: Domain, query: Query, sessions: Ints) -> Ints:
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
    meta = _meta(text)
    if query.event_meta_key and query.event_meta_key not in meta:
        return False
    for key, value in query.meta.items():
        negated = value.startswith("!")
        if (meta.get(key) == (value[1:] if negated else value)) == negated:
            return False
    return True


@lru_cache(maxsize=4096)
def _meta(text: str) -> dict[str, str]:
    return {str(key): str(value) for key, value in json.loads(text or "{}").items()}


# --- the statistics --------------------------------------------------------------------------------------------------


def _rate(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else 0.0


def _counts(domain: Domain, sessions: Ints, weights: Ints) -> Row:
    bounces = int(domain.bounced[sessions].sum())
    return {
        "visitors": domain.distinct(sessions),
        "views": int(weights.sum()),
        "sessions": len(sessions),
        "bounces": bounces,
        "bounce_rate": _rate(bounces, max(len(sessions), 1)),
    }


def total(domain: Domain, query: Query) -> object:
    """One object over the whole range; visitors are distinct over the range."""
    chosen = _select(domain, query)
    return _counts(domain, chosen.sessions, chosen.weights)


def visitor(domain: Domain, query: Query) -> object:
    """One row a local day, every day of the range present."""
    chosen = _select(domain, query)
    day = domain.day[chosen.sessions]
    return [
        {"day": _day_text(number), **_counts(domain, chosen.sessions[day == number], chosen.weights[day == number])}
        for number in _days(domain, query)
    ]


def hours(domain: Domain, query: Query) -> object:
    """One row for each local hour 0 … 23; on a day of 25 hours one of them holds two."""
    chosen = _select(domain, query)
    hour = domain.hour[chosen.sessions]
    return [
        {"hour": number, **_counts(domain, chosen.sessions[hour == number], chosen.weights[hour == number])}
        for number in range(24)
    ]


def _days(domain: Domain, query: Query) -> range:
    return range(query.from_day, min(query.to_day, domain.last_known_day) + 1)


def _day_text(number: int) -> str:
    """A local date dressed as UTC midnight, as the vendor writes it."""
    return f"{(date(1970, 1, 1) + timedelta(days=number)).isoformat()}T00:00:00Z"


def duration_session(domain: Domain, query: Query) -> object:
    """Mean seconds of the sessions that last at all, by day; nothing under an event filter."""
    if query.event:
        return []
    chosen = _select(domain, query).sessions
    return _duration_rows(domain, query, domain.day[chosen], domain.duration_seconds[chosen])


def duration_page(domain: Domain, query: Query) -> object:
    """Mean seconds on pages that were followed by another, by day; path and title stay empty as in the engine."""
    if query.event:
        return []
    views = _select(domain, query).views
    return _duration_rows(domain, query, domain.day[domain.view_session[views]], domain.page_seconds[views])


def _duration_rows(domain: Domain, query: Query, day: Ints, seconds: Ints) -> list[Row]:
    rows = []
    for number in _days(domain, query):
        lasting = seconds[(day == number) & (seconds > 0)]
        mean = round(float(lasting.mean())) if len(lasting) else 0
        rows.append({"day": _day_text(number), "path": "", "title": "", "average_time_spent_seconds": mean})
    return rows


def page(domain: Domain, query: Query) -> object:
    """Rows by path: a visitor, session or bounce counts for every page it touched."""
    chosen = _select(domain, query)
    codes, size = domain.page.codes[chosen.views], len(domain.page.labels)
    of_session = domain.view_session[chosen.views]
    visitors = domain.distinct_by(codes, domain.visitor[of_session], size)
    views = np.bincount(codes, minlength=size)
    sessions, bounces = _touching(domain, codes, of_session, size)
    seconds = _page_means(domain, chosen.views, codes, size) if query.include_page_time else np.zeros(size, np.int64)
    everyone = chosen.window_visitors(domain)
    all_views = int(domain.views[chosen.in_window].sum())
    return [
        {
            "path": domain.page.labels[code],
            "title": domain.titles[domain.page.labels[code]],
            "visitors": int(visitors[code]),
            "views": int(views[code]),
            "sessions": int(sessions[code]),
            "bounces": int(bounces[code]),
            "relative_visitors": _rate(visitors[code], everyone),
            "relative_views": _rate(views[code], all_views),
            "bounce_rate": _rate(bounces[code], max(int(sessions[code]), 1)),
            "average_time_spent_seconds": int(seconds[code]),
        }
        for code in _top(visitors, query.limit)
    ]


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


def _top(counts: Ints, limit: int) -> Ints:
    """Codes with a count, most first, then by label (codes are in label order)."""
    order = np.argsort(-counts, kind="stable")
    return order[counts[order] > 0][:limit]


def page_entry(domain: Domain, query: Query) -> object:
    """Rows by landing path; visitors and sessions are the page's, not the entries'."""
    rows = _edge_rows(domain, query, "entry_path", "entries", "entry_rate")
    return [{**row, "average_time_spent_seconds": seconds} for row, seconds in rows]


def page_exit(domain: Domain, query: Query) -> object:
    """Rows by the last path of a session; visitors and sessions are the page's, not the exits'."""
    return [row for row, _ in _edge_rows(domain, query, "exit_path", "exits", "exit_rate")]


def _edge_rows(domain: Domain, query: Query, dimension: str, count_name: str, rate_name: str) -> list[tuple[Row, int]]:
    chosen = _select(domain, query)
    codes, size = domain.page.codes[chosen.views], len(domain.page.labels)
    of_session = domain.view_session[chosen.views]
    visitors = domain.distinct_by(codes, domain.visitor[of_session], size)
    sessions, _ = _touching(domain, codes, of_session, size)
    seconds = _page_means(domain, chosen.views, codes, size) if query.include_page_time else np.zeros(size, np.int64)
    edge = domain.dimensions[dimension]
    edges = np.bincount(edge.codes[chosen.sessions], minlength=len(edge.labels))
    page_code = {label: code for code, label in enumerate(domain.page.labels)}
    rows = []
    for code in _top(edges, query.limit):
        path = edge.labels[code]
        at = page_code[path]
        row = {
            "path": path,
            "title": domain.titles[path],
            "visitors": int(visitors[at]),
            "sessions": int(sessions[at]),
            count_name: int(edges[code]),
            rate_name: _rate(edges[code], max(int(sessions[at]), 1)),
        }
        rows.append((row, int(seconds[at])))
    return rows


def breakdown(
    dimension: str, *, parts: tuple[str, ...] = (), keep_empty: bool = True
) -> Callable[[Domain, Query], object]:
    """A statistic by one dimension of the session; `parts` names the halves of a paired dimension (os, os_version)."""

    def rows(domain: Domain, query: Query) -> object:
        chosen = _select(domain, query)
        by = domain.dimensions[dimension]
        visitors = domain.distinct_by(by.codes[chosen.sessions], domain.visitor[chosen.sessions], len(by.labels))
        if not keep_empty and by.labels and by.labels[0] == "":
            visitors[0] = 0
        everyone = chosen.window_visitors(domain)
        found = []
        for code in _top(visitors, query.limit):
            label = by.labels[code]
            named = dict(zip(parts, label.split(_PAIR), strict=True)) if parts else {dimension: label}
            count = int(visitors[code])
            found.append({"visitors": count, "relative_visitors": _rate(count, everyone), **named})
        return found

    return rows


def referrer(domain: Domain, query: Query) -> object:
    """Rows by referrer name ("" is direct); the URL is one of those seen, as the engine takes any."""
    chosen = _select(domain, query)
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
            "relative_visitors": _rate(visitors[code], everyone),
            "bounces": int(bounces[code]),
            "bounce_rate": _rate(bounces[code], max(int(sessions[code]), 1)),
        }
        for code in _top(visitors, query.limit)
    ]


def platform(domain: Domain, query: Query) -> object:
    """One object that counts sessions (not visitors); mobile holds tablets."""
    by = domain.dimensions["platform"]
    sessions = _select(domain, query).sessions
    counts = dict(zip(by.labels, np.bincount(by.codes[sessions], minlength=len(by.labels)).tolist(), strict=True))
    kinds = ("desktop", "mobile", "unknown")
    return {
        **{f"platform_{kind}": int(counts.get(kind, 0)) for kind in kinds},
        **{f"relative_platform_{kind}": _rate(counts.get(kind, 0), len(sessions)) for kind in kinds},
    }


def growth(domain: Domain, query: Query) -> object:
    """Against the period of the same length before; bounces_growth is the growth of the bounce rate."""
    length = query.to_day - query.from_day + 1
    before = _with_days(query, query.from_day - length, query.from_day - 1)
    now_counts, now_time = _growth_base(domain, query)
    old_counts, old_time = _growth_base(domain, before)
    return {
        "visitors_growth": _growth(now_counts["visitors"], old_counts["visitors"]),
        "views_growth": _growth(now_counts["views"], old_counts["views"]),
        "sessions_growth": _growth(now_counts["sessions"], old_counts["sessions"]),
        "bounces_growth": _growth(now_counts["bounce_rate"], old_counts["bounce_rate"]),
        "time_spent_growth": _growth(now_time, old_time),
    }


def _with_days(query: Query, from_day: int, to_day: int) -> Query:
    return Query(**{**query.__dict__, "from_day": from_day, "to_day": to_day, "start_seconds": 0})


def _growth_base(domain: Domain, query: Query) -> tuple[Row, int]:
    chosen = _select(domain, query)
    return _counts(domain, chosen.sessions, chosen.weights), int(domain.duration_seconds[chosen.sessions].sum())


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
        for code in _top(counts, query.limit)
    ]
    return {"stats": stats or None, "visitors": len(np.unique(visitors_of))}


def goals(domain: Domain, query: Query) -> object:
    """Every goal with the visitors and views of its pages; `cr` is a fraction of the window's visitors."""
    found = []
    for goal in domain.goals:
        fields = {**query.__dict__, "path": "", "pattern": goal.regex}
        chosen = _select(domain, Query(**fields))
        visitors = domain.distinct(chosen.sessions)
        cr = _rate(visitors, chosen.window_visitors(domain))
        found.append((goal, {"visitors": visitors, "views": len(chosen.views), "cr": cr}))
    return found


def events(domain: Domain, query: Query) -> object:
    """Rows by event name with the metadata keys seen."""
    rows, everyone = _event_rows(domain, query)
    keys = [set(_meta(text)) for text in domain.event_meta.labels]
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
        return _EMPTY_ARRAY
    rows, everyone = _event_rows(domain, query)
    value_of_meta = np.array(
        [_meta(text).get(query.event_meta_key, "") for text in domain.event_meta.labels], dtype=object
    )
    values = _Codes.of(value_of_meta[domain.event_meta.codes[rows]])
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
            "meta": _meta(domain.event_meta.labels[pair[code] % size]),
            "visitors": int(visitors[code]),
            "count": int(counts[code]),
        }
        for code in _top(counts, query.limit)
    ]


def _event_rows(domain: Domain, query: Query) -> tuple[Ints, int]:
    window = _window(domain, query)
    chosen = window
    for name, value in query.dimensions.items():
        chosen = chosen[domain.dimensions[name].matching(value)[chosen]] if len(chosen) else chosen
    return _events_of(domain, query, chosen), domain.distinct(window)


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
            "cr": _rate(visitors[code], everyone),
            "average_duration_seconds": int(mean[code]),
        }
        for code in _top(visitors, limit)
    ]


def keywords(domain: Domain, query: Query) -> object:
    """Needs the Google Search Console integration, which no sandbox domain has."""
    return []


class _EmptyArray(list[Row]):
    """An empty list the vendor does write as `[]`; every other empty list is `null`."""


_EMPTY_ARRAY = _EmptyArray()

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
    **{f"utm/{name.removeprefix('utm_')}": breakdown(name, keep_empty=False) for name in _UTM},
}
