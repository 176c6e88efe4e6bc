"""A Pirsch domain as arrays: the rows it was made of, and the one object every statistic reads.

Belongs here: Pirsch's definitions (who is counted, session, view, bounce, duration, day), rows from the generated
truth, and arrays from rows. Does not belong here: statistics (`pirsch_statistics`), rows that were posted
(`pirsch_ingest`), HTTP (`pirsch`). Definitions: MARTS §2 and §5.5; contracts/pirsch.md A5.

Sessions are kept as parallel arrays ordered by (local day, start), views and events grouped by session, so that a range
of days is a slice of each. A dimension is an array of codes into sorted labels; counting distinct visitors by label is
one `unique`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd

from analytics_platform.sandbox.sessionize import sessionize
from analytics_platform.sandbox.truth import SiteTruth, World, local_dates

__all__ = [
    "CAP_SECONDS",
    "EPOCH",
    "EVENT_COLUMNS",
    "IDLE_SECONDS",
    "PAIR",
    "SESSION_COLUMNS",
    "UTM",
    "VIEW_COLUMNS",
    "Codes",
    "Definitions",
    "Domain",
    "Goal",
    "Rows",
    "build_domain",
    "default_goals",
    "is_timezone",
    "joined",
    "pattern_regex",
    "referrer_name",
    "truth_rows",
]

Ints = npt.NDArray[np.int64]

IDLE_SECONDS = 30 * 60
EPOCH = date(1970, 1, 1).toordinal()
PAIR = "\x1f"  # joins the halves of a paired label (not NUL: pandas cuts text there)
UTM = ("utm_source", "utm_medium", "utm_campaign", "utm_content", "utm_term")
CAP_SECONDS = 24 * 3600
_PAGE_SECONDS_AT_MOST = 3600
_SCREENS = ((5120, "UHD 5K"), (3840, "UHD 4K"), (2560, "WQHD"), (1920, "Full HD"), (1280, "HD"), (1024, "XL"),
            (800, "L"), (600, "M"), (415, "S"), (1, "XS"))  # fmt: skip
_SEARCH = ("google", "bing", "duckduckgo", "yahoo", "ecosia", "baidu", "yandex", "startpage")
_SOCIAL = ("facebook", "instagram", "twitter", "x.com", "t.co", "linkedin", "reddit", "pinterest", "mastodon", "tiktok")
_PERSON_COLUMNS = ["country", "region", "city", "language", "device", "browser", "browser_version", "os", "os_version",
                   "screen_width", "screen_height"]  # fmt: skip
SESSION_COLUMNS = ["session_key", "visitor_id", "session_start_ms", "session_end_ms", "query", "referrer", "entry_path",
                   "exit_path", "bounced", "hostname", *_PERSON_COLUMNS]  # fmt: skip
VIEW_COLUMNS = ["session_key", "at_ms", "url", "path", "title", "tags"]
EVENT_COLUMNS = ["session_key", "at_ms", "event_id", "name", "meta", "path", "duration_seconds"]


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
class Goal:
    """A conversion goal on a path pattern; `regex` is generated from it by the vendor."""

    id: str
    name: str
    path_pattern: str
    regex: str
    visitor_goal: int | None
    cr_goal: float | None


@dataclass(frozen=True)
class Rows:
    """What a domain is built of, before zones and codes.

    Frames:
        sessions: one row a session, `session_key` 0 … n-1 in any order. `bounced` is 1 or 0, or -1 for "count them".
        views, events: with the `session_key` they belong to; `tags` and `meta` are JSON text.
    """

    sessions: pd.DataFrame
    views: pd.DataFrame
    events: pd.DataFrame


@dataclass(frozen=True)
class Codes:
    """A column as codes into its sorted labels."""

    codes: Ints
    labels: Sequence[str]

    @classmethod
    def of(cls, values: npt.ArrayLike | pd.Series[Any]) -> Codes:
        """Codes of these values, which become text."""
        codes, labels = pd.factorize(np.asarray(values, dtype=object), sort=True)
        return cls(codes.astype(np.int64), [str(label) for label in labels])

    def matching(self, value: str) -> npt.NDArray[np.bool_]:
        """Mask over the rows.

        `value` is equal, `!value` is not, `~value` is contained, `^value` is not; `null` is the unknown. Several values
        joined by `PAIR` are alternatives (a parameter given more than once).
        """
        wanted = value.split(PAIR)
        allowed = np.array([any(_matches(label, one) for one in wanted) for label in self.labels], dtype=bool)
        return np.asarray(allowed[self.codes], dtype=np.bool_)


def _matches(label: str, value: str) -> bool:
    if value[:1] in {"~", "^"}:
        return (value[1:] in label) == (value[0] == "~")
    negated = value.startswith("!")
    wanted = value[1:] if negated else value
    return (label == ("" if wanted.lower() == "null" else wanted)) != negated


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
    minute: Ints
    visitor: Ints
    views: Ints
    bounced: Ints
    duration_seconds: Ints
    start_ms: Ints
    end_ms: Ints
    view_offset: Ints
    dimensions: Mapping[str, Codes]
    # one entry a view, grouped by session
    view_session: Ints
    view_at_ms: Ints
    page_seconds: Ints
    page: Codes
    page_group: Codes
    view_tags: Codes
    titles: Mapping[str, str]
    # one entry a custom event, ordered by session
    event_session: Ints
    event_at_ms: Ints
    event_name: Codes
    event_meta: Codes
    event_seconds: Ints
    event_path: Codes

    def distinct(self, sessions: Ints) -> int:
        """Distinct visitors of these sessions."""
        return len(np.unique(self.visitor[sessions]))

    def distinct_by(self, codes: Ints, visitors: Ints, groups: int) -> Ints:
        """Distinct visitors per group code."""
        pairs = np.unique(codes * self.visitor_count + visitors)
        return np.bincount(pairs // self.visitor_count, minlength=groups)

    def named(self, label: str) -> tuple[str, str]:
        """Path and title of a label of `page_group`."""
        path, separator, title = label.partition(PAIR)
        return path, title if separator else self.titles[path]


# --- rows of the truth -----------------------------------------------------------------------------------------------


def truth_rows(world: World, site: SiteTruth, definitions: Definitions) -> Rows:
    """Pirsch's view of one site of the truth: everyone who is no bot, whatever the consent."""
    people = world.visitors[world.visitors["site_key"] == site.key]
    counted = people[~people["is_bot"] & ~people["is_data_centre"]]
    if definitions.respect_dnt:
        counted = counted[~counted["sends_dnt"]]
    mine = world.views[(world.views["site_key"] == site.key) & world.views["visitor_id"].isin(counted["visitor_id"])]
    views = sessionize(mine, idle_seconds=IDLE_SECONDS, cap_seconds=CAP_SECONDS, drop_reloads=True)
    views = views.rename(columns={"session_index": "session_key"})
    first = views.drop_duplicates("session_key", keep="first")
    last = views.drop_duplicates("session_key", keep="last")
    sessions = first[["session_key", "visitor_id", "session_start_ms", "session_end_ms", "query", "referrer"]].copy()
    sessions["entry_path"], sessions["exit_path"] = first["path"].to_numpy(), last["path"].to_numpy()
    sessions["bounced"], sessions["hostname"] = -1, site.hostname
    # A session that begins after a pause was "referred" by the site itself: that is no referrer.
    own = sessions["referrer"].str.startswith((f"https://{site.hostname}/", f"http://{site.hostname}/"))
    sessions["referrer"] = sessions["referrer"].where(~own, "")
    sessions = sessions.merge(
        counted[["visitor_id", *_PERSON_COLUMNS]], on="visitor_id", how="left", validate="many_to_one"
    )
    return Rows(
        sessions=sessions[SESSION_COLUMNS],
        views=views.assign(tags="{}")[VIEW_COLUMNS],
        events=_events_of_truth(world, site, sessions)[EVENT_COLUMNS],
    )


def _events_of_truth(world: World, site: SiteTruth, sessions: pd.DataFrame) -> pd.DataFrame:
    """Custom events of counted visitors with the session they fall in."""
    events = world.events[(world.events["site_key"] == site.key) & (world.events["kind"] == "custom")]
    events = events[events["visitor_id"].isin(sessions["visitor_id"])]
    if events.empty:
        return events.assign(session_key=np.zeros(0, dtype=np.int64))
    joined_events = pd.merge_asof(
        events.sort_values("at_ms", kind="stable"),
        sessions[["visitor_id", "session_start_ms", "session_key"]].sort_values("session_start_ms", kind="stable"),
        left_on="at_ms",
        right_on="session_start_ms",
        by="visitor_id",
    ).dropna(subset=["session_key"])
    return joined_events.assign(session_key=joined_events["session_key"].astype(np.int64))


def joined(first: Rows, second: Rows) -> Rows:
    """Both, with the second's sessions numbered behind the first's."""
    shift = len(first.sessions)

    def behind(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(session_key=frame["session_key"] + shift)

    def both(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
        # An empty frame has no types to speak of and would turn the other's numbers into objects.
        filled = [frame for frame in (one, behind(other)) if len(frame)]
        return pd.concat(filled, ignore_index=True) if filled else one

    return Rows(
        sessions=both(first.sessions, second.sessions),
        views=both(first.views, second.views),
        events=both(first.events, second.events),
    )


# --- arrays of rows --------------------------------------------------------------------------------------------------


def build_domain(
    rows: Rows, *, timezone: str, definitions: Definitions, now_ms: int, group_by_title: bool = False
) -> Domain:
    """The arrays of a domain whose days are local to `timezone`."""
    sessions = _placed(rows.sessions, timezone, definitions)
    rank = np.empty(len(sessions), dtype=np.int64)
    rank[sessions["session_key"].to_numpy(dtype=np.int64)] = np.arange(len(sessions))
    views = rows.views.assign(rank=rank[rows.views["session_key"].to_numpy(dtype=np.int64)])
    views = views.sort_values(["rank", "at_ms", "url"], kind="stable", ignore_index=True)
    events = rows.events.assign(rank=rank[rows.events["session_key"].to_numpy(dtype=np.int64)])
    events = events.sort_values(["rank", "at_ms", "event_id"], kind="stable", ignore_index=True)
    count = np.bincount(views["rank"], minlength=len(sessions)).astype(np.int64)
    bounced = _bounced(sessions, events, count, definitions)
    visitor = pd.factorize(sessions["visitor_id"])[0].astype(np.int64)
    if definitions.daily_fingerprint:
        visitor = pd.factorize(visitor * 1_000_000 + sessions["day"].to_numpy())[0].astype(np.int64)
    start, end = (sessions[f"session_{edge}_ms"].to_numpy(dtype=np.int64) for edge in ("start", "end"))
    at, of_session = views["at_ms"].to_numpy(dtype=np.int64), views["rank"].to_numpy(dtype=np.int64)
    followed = np.append(of_session[1:] == of_session[:-1], False)[: len(views)]
    page_seconds = np.where(followed, (np.append(at[1:], 0)[: len(views)] - at) // 1000, 0)
    page = Codes.of(views["path"])
    return Domain(
        goals=(),
        now_ms=now_ms,
        last_known_day=now_ms // 86_400_000 + 1,
        visitor_count=max(1, int(visitor.max(initial=0)) + 1),
        day=sessions["day"].to_numpy(dtype=np.int64),
        hour=sessions["hour"].to_numpy(dtype=np.int64),
        minute=sessions["minute"].to_numpy(dtype=np.int64),
        visitor=visitor,
        views=count,
        bounced=bounced.astype(np.int64),
        duration_seconds=np.where(bounced, 0, (end - start) // 1000).astype(np.int64),
        start_ms=start,
        end_ms=end,
        view_offset=np.append(0, np.cumsum(count)),
        dimensions=_dimensions(sessions),
        view_session=of_session,
        view_at_ms=at,
        page_seconds=np.minimum(page_seconds, _PAGE_SECONDS_AT_MOST).astype(np.int64),
        page=page,
        page_group=Codes.of(views["path"] + PAIR + views["title"]) if group_by_title else page,
        view_tags=Codes.of(views["tags"]),
        titles=dict(zip(views["path"], views["title"], strict=True)),
        event_session=events["rank"].to_numpy(dtype=np.int64),
        event_at_ms=events["at_ms"].to_numpy(dtype=np.int64),
        event_name=Codes.of(events["name"]),
        event_meta=Codes.of(events["meta"]),
        event_seconds=events["duration_seconds"].to_numpy(dtype=np.int64),
        event_path=Codes.of(events["path"]),
    )


def _placed(sessions: pd.DataFrame, timezone: str, definitions: Definitions) -> pd.DataFrame:
    """The sessions with their local day, hour and minute, ordered by (day, start)."""
    stamp = sessions["session_end_ms" if definitions.session_day == "last_seen" else "session_start_ms"]
    stamp = stamp.astype(np.int64)
    local = pd.to_datetime(stamp, unit="ms", utc=True).dt.tz_convert(timezone)
    placed = sessions.assign(
        day=local_dates(stamp, timezone).astype("datetime64[D]").astype(np.int64),
        hour=local.dt.hour.astype(np.int64),
        minute=local.dt.minute.astype(np.int64),
    )
    return placed.sort_values(["day", "session_start_ms", "visitor_id"], kind="stable", ignore_index=True)


def _bounced(
    sessions: pd.DataFrame, events: pd.DataFrame, count: Ints, definitions: Definitions
) -> npt.NDArray[np.bool_]:
    """Who bounced: as the row says, or by counting where it leaves that open."""
    counted = count == 1
    if definitions.events_end_bounce:
        counted &= np.bincount(events["rank"], minlength=len(sessions)) == 0
    stated = sessions["bounced"].to_numpy(dtype=np.int64)
    return np.asarray(np.where(stated < 0, counted, stated == 1), dtype=np.bool_)


def _dimensions(sessions: pd.DataFrame) -> dict[str, Codes]:
    utm = [_utm_of(query) for query in sessions["query"]]
    platform = sessions["device"].map({"desktop": "desktop", "phone": "mobile", "tablet": "mobile"}).fillna("unknown")
    country = sessions["country"].astype(object).str.lower()
    names = [referrer_name(url) for url in sessions["referrer"]]
    values: dict[str, Any] = {
        "entry_path": sessions["entry_path"],
        "exit_path": sessions["exit_path"],
        "language": sessions["language"],
        "country_code": country,
        "region": sessions["region"],
        "country_region": country + PAIR + sessions["region"],
        "city": sessions["city"],
        "country_region_city": country + PAIR + sessions["region"] + PAIR + sessions["city"],
        "os": sessions["os"],
        "os_version": sessions["os"] + PAIR + sessions["os_version"],
        "browser": sessions["browser"],
        "browser_version": sessions["browser"] + PAIR + sessions["browser_version"],
        "platform": platform,
        "screen_class": [_screen_class(width) for width in sessions["screen_width"]],
        "screen_width": sessions["screen_width"].astype(str),
        "screen_height": sessions["screen_height"].astype(str),
        "referrer": sessions["referrer"],
        "referrer_name": names,
        "hostname": sessions["hostname"],
        "channel": [_channel(name, row[0], row[1]) for name, row in zip(names, utm, strict=True)],
    }
    for position, name in enumerate(UTM):
        values[name] = [row[position] for row in utm]
    return {name: Codes.of(column) for name, column in values.items()}


@lru_cache(maxsize=4096)
def _utm_of(query: str) -> tuple[str, ...]:
    given = dict(parse_qsl(query))
    return tuple(given.get(name, "") for name in UTM)


def _screen_class(width: int) -> str:
    return next((name for least, name in _SCREENS if width >= least), "")


@lru_cache(maxsize=4096)
def referrer_name(url: str) -> str:
    """The host of a referrer without `www.`; text that is no URL names itself."""
    try:
        host = urlsplit(url).hostname or ("" if "://" in url else url)
    except ValueError:
        host = url
    return host.removeprefix("www.")


@lru_cache(maxsize=4096)
def _channel(referrer: str, source: str, medium: str) -> str:
    """The traffic channel, after the default groups of Google Analytics 4 that the vendor says it uses."""
    by, medium = (referrer or source).lower(), medium.lower()
    is_search, is_social = (any(name in by for name in names) for names in (_SEARCH, _SOCIAL))
    is_paid = medium.startswith("paid") or medium in {"cpc", "ppc", "cpm", "retargeting"}
    if is_paid:
        return "Paid Search" if is_search else "Paid Social" if is_social else "Paid Other"
    named = {"email": "Email", "e-mail": "Email", "newsletter": "Email", "affiliate": "Affiliates",
             "display": "Display", "banner": "Display", "sms": "SMS", "audio": "Audio"}  # fmt: skip
    if medium in named:
        return named[medium]
    if is_search or is_social:
        return "Organic Search" if is_search else "Organic Social"
    return "Referral" if by else "Direct"


def is_timezone(name: str) -> bool:
    """Whether this is an IANA time zone."""
    try:
        return bool(name) and bool(ZoneInfo(name))
    except (KeyError, ValueError, OSError):
        return False


# --- goals -----------------------------------------------------------------------------------------------------------


def default_goals(domain: Domain) -> tuple[Goal, ...]:
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
            regex=pattern_regex(pattern),
            visitor_goal=visitors,
            cr_goal=rate,
        )
        for number, (name, pattern, visitors, rate) in enumerate(wanted, start=1)
        if any(re.search(pattern_regex(pattern), path) for path in domain.page.labels)
    )


def pattern_regex(pattern: str) -> str:
    """The expression the vendor derives from a path pattern: `*` is one segment, `**` any rest."""
    inner = re.escape(pattern).replace(r"\*\*", ".+").replace(r"\*", "[^/]+")
    return f"(?i)^{inner}$"
