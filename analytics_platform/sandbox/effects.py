"""Why a vendor's number differs from the anchor's, exactly: each cause's effect, counted by switching it off.

Belongs here: the chain from Pirsch's value to a recording vendor's value, by site, local day and metric. Does not
belong here: how recordings come about (`recording`), estimating any of this from served numbers (the platform's
business).

The chain is worked from both ends and meets in the middle:

    V0  the vendor's sessions as served, on the site's local days
    V1  the same on the anchor's days (story `domain_zone`)                                      day_boundary = V0 - V1
    V2  the views of these recordings, cut and counted by the anchor's rules                     definition   = V1 - V2
    V3  without recorded bots                                                                    bots         = V2 - V3
    V4  with what the plan cap threw away                                                        sampling     = V3 - V4
    A   the anchor's value
    B1  the anchor's rules over what the tag may and can see, on every page                      consent      = B1 - A
    B2  the same without the pages that lacked the tag                                           tag_missing  = B2 - B1
    what is left of the middle: a tag lost everywhere for some visitors, Do Not Track            unexplained  = V4 - B2

Effects are in the vendor's units: anchor + sum of effects = vendor, exactly. `consent` holds all that keeps a visitor
from being recorded: no consent, a blocker, a visit without any activity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from analytics_platform.sandbox import inspectlet, smartlook
from analytics_platform.sandbox.pirsch_domain import CAP_SECONDS, IDLE_SECONDS, Definitions, truth_rows
from analytics_platform.sandbox.recording import CAUSES, Recording, TagRule, record
from analytics_platform.sandbox.sessionize import sessionize
from analytics_platform.sandbox.truth import SiteTruth, World, local_dates

__all__ = ["ANCHOR", "COMPONENTS", "METRICS", "VENDORS", "recorded_of_anchor", "session_owners", "true_effects"]

Profiles = Mapping[str, Mapping[str, Any]]

ANCHOR: Final = "pirsch"
VENDORS: Final = ("smartlook", "inspectlet")
METRICS: Final = ("visitors", "sessions", "views")
COMPONENTS: Final = ("day_boundary", "definition", "bots", "sampling", "consent", "tag_missing", "unexplained")


def true_effects(world: World, *, profiles: Profiles | None = None) -> pd.DataFrame:
    """Every effect of a world as a sandbox with these profiles serves it.

    Returns:
        One row per site_key, stat_date (datetime64[D], a local day of the world), vendor, metric and component, in
        that order (components in the order of `COMPONENTS`), with effect, anchor_value and vendor_value as int64.
    """
    given = profiles or {}
    rows = [_vendor_effects(world, site, vendor, given) for site in world.sites for vendor in VENDORS]
    return pd.concat(rows, ignore_index=True)


def session_owners(world: World, *, profiles: Profiles | None = None) -> pd.DataFrame:
    """Whose each recording is: site_key, vendor, vendor_session_id, visitor_id, start_ms, last_view_ms."""
    given = profiles or {}
    frames = []
    for site in world.sites:
        for vendor, observer in (("smartlook", smartlook), ("inspectlet", inspectlet)):
            owned: pd.DataFrame = observer.session_owners(world, site, observer.Profile(**given.get(vendor, {})))
            frames.append(owned.assign(site_key=site.key, vendor=vendor))
    return pd.concat(frames, ignore_index=True)


def recorded_of_anchor(world: World, site: SiteTruth, vendor: str, *, profiles: Profiles | None = None) -> pd.DataFrame:
    """The anchor's sessions of a site, and which of them the vendor's tag may and can see (the B1 of the chain).

    Returns:
        stat_date (datetime64, the anchor's day), visitor_id, country, views, is_recorded.
    """
    given = profiles or {}
    rows = truth_rows(world, site, _definitions(given))
    held = record(world, site, _rule(vendor, given), without=CAUSES)
    seen = _cut(held.sessions.views).drop_duplicates("session_index")
    sessions = rows.sessions[["session_key", "visitor_id", "session_start_ms", "country"]]
    sessions = sessions.merge(
        seen[["visitor_id", "session_start_ms"]], on=["visitor_id", "session_start_ms"], how="left", indicator="found"
    )
    views = rows.views.groupby("session_key").size()
    return pd.DataFrame(
        {
            "stat_date": local_dates(sessions["session_start_ms"], world.domain_timezone(site)).astype("datetime64[s]"),
            "visitor_id": sessions["visitor_id"],
            "country": sessions["country"],
            "views": views.reindex(sessions["session_key"]).to_numpy(np.int64),
            "is_recorded": (sessions["found"] == "both").to_numpy(bool),
        }
    )


def _rule(vendor: str, profiles: Profiles) -> TagRule:
    knobs = profiles.get(vendor, {})
    if vendor == "smartlook":
        return smartlook.tag_rule(smartlook.Profile(**knobs))
    return inspectlet.tag_rule(inspectlet.Profile(**knobs))


def _definitions(profiles: Profiles) -> Definitions:
    known = {field.name for field in fields(Definitions)}
    return Definitions(**{name: value for name, value in profiles.get(ANCHOR, {}).items() if name in known})


def _vendor_effects(world: World, site: SiteTruth, vendor: str, profiles: Profiles) -> pd.DataFrame:
    rule, definitions = _rule(vendor, profiles), _definitions(profiles)
    zone = world.domain_timezone(site)
    served = record(world, site, rule)
    humans = _of_people(served)
    whole = record(world, site, rule, without=("bots", "plan_cap"))
    lossless = record(world, site, rule, without=("bots", "plan_cap", "ratio_break"))
    everywhere = record(world, site, rule, without=("bots", "plan_cap", "ratio_break", "tag_removed"))

    def tally(held: Recording, *, counted_only: bool = False) -> Tally:
        return _by_anchors_rules(world, held, zone, definitions if counted_only else None)

    anchor = _anchor(world, site, zone, definitions)
    v0, v1 = _native(world, served, site.timezone), _native(world, served, zone)
    v2, v3, v4 = tally(served), tally(humans), tally(whole)
    b1, b2 = tally(everywhere, counted_only=True), tally(lossless, counted_only=True)
    effects = {
        "day_boundary": v0 - v1,
        "definition": v1 - v2,
        "bots": v2 - v3,
        "sampling": v3 - v4,
        "consent": b1 - anchor,
        "tag_missing": b2 - b1,
        "unexplained": v4 - b2,
    }
    days = np.datetime64(world.first_day, "D") + np.arange(len(anchor))
    frame = pd.concat(
        [
            pd.DataFrame(
                {
                    "site_key": site.key,
                    "stat_date": days,
                    "vendor": vendor,
                    "metric": metric,
                    "component": component,
                    "effect": effects[component][:, column],
                    "anchor_value": anchor[:, column],
                    "vendor_value": v0[:, column],
                }
            )
            for column, metric in enumerate(METRICS)
            for component in COMPONENTS
        ],
        ignore_index=True,
    )
    return frame.sort_values(["stat_date", "metric"], kind="stable", ignore_index=True)


Tally = npt.NDArray[np.int64]
"""A row a local day of the world, a column a metric."""


def _of_people(held: Recording) -> Recording:
    is_bot = held.visitors["is_bot"].to_numpy(bool)
    return Recording(held.visitors, held.sessions.keep(~is_bot[held.sessions.visitor]))


def _native(world: World, held: Recording, zone: str) -> Tally:
    """The recordings as they are."""
    sessions = held.sessions
    return _tally(world, zone, sessions.start_ms, sessions.visitor, np.diff(sessions.bounds))


def _by_anchors_rules(world: World, held: Recording, zone: str, counted: Definitions | None) -> Tally:
    """The views of these recordings, cut and counted as the anchor does; of people it counts, where `counted` says."""
    views = held.sessions.views
    if counted is not None and counted.respect_dnt:
        silent = held.visitors.loc[held.visitors["sends_dnt"].to_numpy(bool), "visitor_id"]
        views = views[~views["visitor_id"].isin(silent)]
    return _sessions(world, zone, _cut(views), "session_index")


def _cut(views: pd.DataFrame) -> pd.DataFrame:
    """Views of recordings, cut again as the anchor cuts."""
    plain = views.drop(columns=["session_index", "session_start_ms", "session_end_ms"])
    return sessionize(plain, idle_seconds=IDLE_SECONDS, cap_seconds=CAP_SECONDS, drop_reloads=True)


def _anchor(world: World, site: SiteTruth, zone: str, definitions: Definitions) -> Tally:
    """What Pirsch counts. A session belongs to the day it starts on, the only day rule there is a chain for."""
    if definitions.session_day != "start":
        raise ValueError("effects are defined for sessions that belong to the day they start on")
    rows = truth_rows(world, site, definitions)
    views = rows.views.merge(rows.sessions[["session_key", "visitor_id", "session_start_ms"]], on="session_key")
    return _sessions(world, zone, views, "session_key")


def _sessions(world: World, zone: str, views: pd.DataFrame, key: str) -> Tally:
    """Views with their session's `key`, `session_start_ms` and visitor, counted by the day of the start."""
    first = views.drop_duplicates(key)
    count = views.groupby(key, sort=False).size().reindex(first[key]).to_numpy(np.int64)
    return _tally(world, zone, first["session_start_ms"].to_numpy(np.int64), first["visitor_id"].to_numpy(), count)


def _tally(world: World, zone: str, start_ms: npt.ArrayLike, visitor: npt.ArrayLike, views: npt.ArrayLike) -> Tally:
    sessions = pd.DataFrame(
        {
            "day": (local_dates(start_ms, zone) - np.datetime64(world.first_day, "D")).astype(np.int64),
            "visitor": np.asarray(visitor),
            "views": np.asarray(views, dtype=np.int64),
        }
    )
    by_day = sessions.groupby("day")
    found = pd.DataFrame(
        {"visitors": by_day["visitor"].nunique(), "sessions": by_day.size(), "views": by_day["views"].sum()}
    )
    return found.reindex(range((world.last_day - world.first_day).days + 1), fill_value=0)[list(METRICS)].to_numpy(
        np.int64
    )
