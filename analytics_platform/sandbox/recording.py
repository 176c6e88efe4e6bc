"""Which page views became recordings, for vendors that record behind a consent-bound tag.

Belongs here: the way from the truth to the sessions such a vendor holds (consent, blockers, missing tags, its own
cutting, quiet visits, plan cap), and the same way with one cause switched off. Does not belong here: a vendor's
numbers (its `TagRule` is made by its observer), bodies, routes.

Observers serve `record(world, site, rule)`; `effects` asks for the same with causes switched off. There is one way, so
what is called a cause's effect is what the cause did to the served numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from analytics_platform.sandbox.observe import (
    SessionFrame,
    build_sessions,
    identifier,
    site_views,
    stable_fraction,
    tagged_visitors,
    visitor_positions,
)
from analytics_platform.sandbox.truth import SiteTruth, Story, World, local_dates

__all__ = ["CAUSES", "Recording", "TagRule", "owners", "record"]

CAUSES: Final = frozenset({"bots", "plan_cap", "tag_removed", "ratio_break"})
"""What `record` can leave out: recorded bots, and the stories of these names."""

_NO_CAP: Final = np.iinfo(np.int64).max


@dataclass(frozen=True, kw_only=True)
class TagRule:
    """How one vendor turns page views into recordings; see the `Profile` of its observer for the fields."""

    vendor: str
    idle_seconds: int
    cap_seconds: int
    block_share: float
    quiet_share: float = 0.0
    recordings_per_day: int | None = None


@dataclass(frozen=True)
class Recording:
    """What a vendor holds of one site: `sessions.visitor` are positions in `visitors`."""

    visitors: pd.DataFrame
    sessions: SessionFrame


def record(world: World, site: SiteTruth, rule: TagRule, *, without: Collection[str] = ()) -> Recording:
    """The recordings of this vendor; `without` names causes that are switched off (see `CAUSES`)."""
    if not CAUSES.issuperset(without):
        raise ValueError(f"no such cause: {sorted(set(without) - CAUSES)}")
    visitors = tagged_visitors(world, site.key, block_cut=rule.block_share)
    if "bots" in without:
        visitors = visitors.loc[~visitors["is_bot"].to_numpy(bool)].reset_index(drop=True)
    views = _tagged(world, site, rule.vendor, site_views(world, site.key, visitors), without)
    sessions = build_sessions(views, visitors, idle_seconds=rule.idle_seconds, cap_seconds=rule.cap_seconds)
    keep = _active(world, site, visitors, sessions, rule.quiet_share)
    if "plan_cap" not in without:
        keep &= _within_plan(world, site, rule, sessions.start_ms, keep)
    return Recording(visitors, sessions if keep.all() else sessions.keep(keep))


def owners(held: Recording, vendor_session_ids: Sequence[str]) -> pd.DataFrame:
    """Whose each recording is: vendor_session_id, visitor_id (the truth's), start_ms, last_view_ms."""
    return pd.DataFrame(
        {
            "vendor_session_id": pd.Series(list(vendor_session_ids), dtype=object),
            "visitor_id": held.visitors["visitor_id"].to_numpy(np.int64)[held.sessions.visitor],
            "start_ms": held.sessions.start_ms,
            "last_view_ms": held.sessions.last_view_ms,
        }
    )


def _tagged(world: World, site: SiteTruth, vendor: str, views: pd.DataFrame, without: Collection[str]) -> pd.DataFrame:
    """The views on pages that carried the vendor's tag."""
    at_ms = views["at_ms"].to_numpy(np.int64)
    lost = np.zeros(len(views), dtype=bool)
    if "tag_removed" not in without:
        for story in world.stories_of("tag_removed", site.key, vendor):
            here = views["path"].str.startswith(str(story.parameters["path_prefix"])).to_numpy(bool)
            lost |= here & world.during(story, at_ms)
    if "ratio_break" not in without:
        for story in world.stories_of("ratio_break", site.key, vendor):
            chosen = stable_fraction(views["visitor_id"].to_numpy(np.int64), salt=_salt(story))
            lost |= (chosen < float(story.parameters["lost_share"])) & world.during(story, at_ms)
    return views.loc[~lost].reset_index(drop=True) if lost.any() else views


def _salt(story: Story) -> int:
    """Who is hit differs from story to story."""
    return int(identifier(story.name, story.site_key, story.parameters["vendor"], story.first_day, length=8), 16)


def _active(
    world: World, site: SiteTruth, visitors: pd.DataFrame, sessions: SessionFrame, quiet_share: float
) -> npt.NDArray[np.bool_]:
    """Which sessions had any activity. A truth without events (a replayed log) cannot tell the quiet ones."""
    keep = np.ones(len(sessions), dtype=bool)
    if not quiet_share:
        return keep
    events = world.events
    events = events.loc[((events["site_key"] == site.key) & (events["kind"] != "url")).to_numpy(bool)]
    position = visitor_positions(visitors, events["visitor_id"].to_numpy(np.int64))
    if not (position >= 0).any():
        return keep
    located = sessions.locate(position, events["at_ms"].to_numpy(np.int64))
    active = np.diff(sessions.bounds) > 1
    active[located[located >= 0]] = True
    return active | (stable_fraction(sessions.start_ms ^ (sessions.visitor << 20), salt=11) >= quiet_share)


def _within_plan(
    world: World, site: SiteTruth, rule: TagRule, start_ms: npt.NDArray[np.int64], kept: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Which sessions are among the first of their local day that the plan allows; others than `kept` do not count."""
    most = np.full(len(start_ms), _NO_CAP if rule.recordings_per_day is None else rule.recordings_per_day)
    for story in world.stories_of("plan_cap", site.key, rule.vendor):
        allowed = int(story.parameters["recordings_per_day"])
        most = np.where(world.during(story, start_ms), np.minimum(most, allowed), most)
    within = np.ones(len(start_ms), dtype=bool)
    if (most == _NO_CAP).all():
        return within
    order = np.flatnonzero(kept)
    order = order[np.argsort(start_ms[order], kind="stable")]
    days = local_dates(start_ms[order], site.timezone)
    rank = pd.Series(days).groupby(days).cumcount().to_numpy()
    within[order] = rank < most[order]
    return within
