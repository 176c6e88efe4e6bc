"""What no estimator can know of a day: who happened to refuse that day.

Belongs here: the daily noise of consent. Does not belong here: estimates, targets.

An estimator can know how often the visitors of a country are recorded; which of today's visitors are is drawn anew each
day. The noise of a day is the difference between what was recorded and what the country's own ratio (over all days
between two changes of its consent) says of that day's visitors: it lands in the remainder of the best explanation.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from analytics_platform.sandbox.effects import METRICS, VENDORS, recorded_of_anchor
from analytics_platform.sandbox.truth import SiteTruth, World
from analytics_platform_tests.score.worlds import ScoredWorld

__all__ = ["daily_noise"]

_SESSION: Final = ["site_key", "vendor", "stat_date"]


def daily_noise(scored: ScoredWorld) -> pd.DataFrame:
    """site_key, vendor, stat_date, metric and noise (recorded minus expected, of the anchor's sessions)."""
    frames = []
    for site in scored.world.sites:
        for vendor in VENDORS:
            sessions = recorded_of_anchor(scored.world, site, vendor, profiles=scored.profiles)
            frames.append(_noise(scored.world, site, sessions).assign(site_key=site.key, vendor=vendor))
    return pd.concat(frames, ignore_index=True)


def _noise(world: World, site: SiteTruth, sessions: pd.DataFrame) -> pd.DataFrame:
    sessions = sessions.assign(stage=_stage(world, site, sessions))
    people = sessions.groupby(["stat_date", "visitor_id", "country", "stage"], as_index=False).agg(
        is_recorded=("is_recorded", "max")
    )
    weighted = {
        "visitors": people.assign(weight=1.0),
        "sessions": sessions.assign(weight=1.0),
        "views": sessions.assign(weight=sessions["views"].astype(float)),
    }
    frames = []
    for metric in METRICS:
        rows = weighted[metric]
        rows = rows.assign(recorded=rows["weight"] * rows["is_recorded"])
        of_country = rows.groupby(["country", "stage"])
        ratio = of_country["recorded"].transform("sum") / of_country["weight"].transform("sum")
        off = (rows["recorded"] - ratio * rows["weight"]).groupby(rows["stat_date"]).sum()
        frames.append(pd.DataFrame({"stat_date": off.index, "noise": off.to_numpy(), "metric": metric}))
    return pd.concat(frames, ignore_index=True)


def _stage(world: World, site: SiteTruth, sessions: pd.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """How many banners the session's country had seen by then."""
    stage = np.zeros(len(sessions), dtype=np.int64)
    for story in world.stories_of("consent_banner", site.key):
        stage += (
            (sessions["country"] == story.parameters["country"])
            & (sessions["stat_date"] >= pd.Timestamp(story.first_day))
        ).to_numpy(np.int64)
    return stage
