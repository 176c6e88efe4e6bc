"""The worlds that are scored: three a seed, each with many planted effects, drawn from the seed.

Belongs here: which sites, which stories, how much traffic. Does not belong here: what an effect is worth
(`sandbox.effects`), what the marts made of it (`marts`), judging (`figures`).

Volumes are chosen so that counting noise is not what is measured: about 1,650 and 770 visits a day where effects are
measured (`noise` says what remains), 330 where a break of 40 % has to be seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from hashlib import sha256
from typing import Any, Final

import numpy as np

from analytics_platform.sandbox.truth import Story, World, generate, invented_site

__all__ = ["LAST_DAY", "ScoredWorld", "break_world", "effect_world", "experiment_world", "fingerprint_of", "worlds_of"]

LAST_DAY: Final = date(2026, 9, 27)
"""Last local day of every world: one warehouse holds them all, and marts look back from the newest day."""

_VENDORS: Final = ("smartlook", "inspectlet")


@dataclass(frozen=True, kw_only=True)
class ScoredWorld:
    """A world, what it is for, and how it is served and read.

    Attributes:
        purpose: effects | breaks | experiments.
        profiles: knobs of the observers, as `Sandbox` takes them.
        panel_share: share of visitor codes asked of Kameleoon; 0 leaves Kameleoon out.
    """

    purpose: str
    world: World
    profiles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    panel_share: float = 0.0

    @property
    def days(self) -> list[date]:
        """Every local day, ascending."""
        span = (self.world.last_day - self.world.first_day).days + 1
        return [self.world.first_day + timedelta(days=n) for n in range(span)]


def worlds_of(seed: int, *, size: float = 1.0) -> tuple[ScoredWorld, ...]:
    """The worlds of a seed; `size` multiplies their traffic."""
    return effect_world(seed, size=size), break_world(seed, size=size), experiment_world(seed, size=size)


def fingerprint_of(worlds: Sequence[ScoredWorld]) -> str:
    """Changes when anything about these worlds does."""
    told = [
        (one.purpose, one.profiles, one.panel_share, one.world.first_day, one.world.sites, one.world.stories,
         len(one.world.views), int(one.world.views["at_ms"].sum()), int(one.world.visitors["consents"].sum()))
        for one in worlds
    ]  # fmt: skip
    return sha256(repr(told).encode()).hexdigest()


def effect_world(seed: int, *, days: int = 38, size: float = 1.0) -> ScoredWorld:
    """Two sites with every cause of a gap: three bursts of bots, changed consent, lost tags, a plan that runs out, and
    on the blog a Pirsch domain that counts the days of another zone.
    """
    draw = np.random.default_rng([seed, 1])
    first_day = LAST_DAY - timedelta(days=days - 1)
    shop, blog = invented_site(f"shop-e{seed}", "Europe/Berlin"), invented_site(f"blog-e{seed}", "America/New_York")
    plant = _Planter(first_day, days)
    for site in (shop.key, blog.key):
        for day in _apart(draw, 3, 2, days - 1, at_least=6):
            plant("bot_burst", site, day, day, visitors=int(draw.integers(60, 120)), javascript_share=0.4)
        for vendor in _VENDORS:
            prefix = "/articles" if site == blog.key else "/product"
            day = int(draw.integers(17, days - 11))
            plant("tag_removed", site, day, day + 2, vendor=vendor, path_prefix=f"{prefix}/")
    changed = int(draw.integers(16, 21))

    def rate(low: float, high: float) -> float:
        return float(np.round(draw.uniform(low, high), 2))

    plant("consent_banner", shop.key, changed, days, country="FR", consent_rate=rate(0.35, 0.50))
    plant("consent_banner", shop.key, changed + 4, days, country="DE", consent_rate=rate(0.55, 0.70))
    plant("consent_banner", blog.key, changed, days, country="GB", consent_rate=rate(0.35, 0.50))
    # The last nine days, after everything else: the curve goes flat in the afternoon or evening.
    plant("plan_cap", shop.key, days - 9, days, vendor="smartlook", recordings_per_day=round(800 * size))
    plant("plan_cap", blog.key, days - 9, days, vendor="inspectlet", recordings_per_day=round(380 * size))
    plant("domain_zone", blog.key, 0, days, timezone="Europe/Berlin")
    world = generate(
        seed=seed, first_day=first_day, days=days, sites=(shop, blog), scale=11.0 * size, stories=plant.stories
    )
    return ScoredWorld(purpose="effects", world=world)


def break_world(seed: int, *, days: int = 49, size: float = 1.0) -> ScoredWorld:
    """Four sites: on each, either vendor loses its tag for 40 to 60 % of visitors for at least a week and recovers.

    Beside them, what is no break: bursts of bots on one day, and losses of a tenth.
    """
    draw = np.random.default_rng([seed, 2])
    first_day = LAST_DAY - timedelta(days=days - 1)
    zones = ("Europe/Berlin", "America/New_York", "Asia/Kolkata", "UTC")
    sites = [invented_site(f"shop-b{seed}-{number}", zone) for number, zone in enumerate(zones, start=1)]
    plant = _Planter(first_day, days)
    for site in sites:
        for vendor in _VENDORS:
            start, end = _apart(draw, 2, 16, days - 4, at_least=7)
            lost = float(np.round(draw.uniform(0.40, 0.60), 2))
            plant("ratio_break", site.key, start, end - 1, vendor=vendor, lost_share=lost)
        day = int(draw.integers(4, 14))
        plant("bot_burst", site.key, day, day, visitors=80, javascript_share=0.5)
        small = int(draw.integers(20, days - 10))
        plant("ratio_break", site.key, small, small + 9, vendor=str(draw.choice(_VENDORS)), lost_share=0.10)
    world = generate(seed=seed, first_day=first_day, days=days, sites=sites, scale=2.2 * size, stories=plant.stories)
    return ScoredWorld(purpose="breaks", world=world)


def experiment_world(seed: int, *, days: int = 14, size: float = 1.0) -> ScoredWorld:
    """Four shops with an experiment each; on two of them the split is 40 to 60 instead of half and half."""
    draw = np.random.default_rng([seed, 3])
    first_day = LAST_DAY - timedelta(days=days - 1)
    sites = [invented_site(f"shop-x{seed}-{number}", "Europe/Berlin") for number in range(1, 5)]
    plant = _Planter(first_day, days)
    for broken in draw.permutation(4)[:2]:
        plant("broken_split", sites[broken].key, 0, days, other_share=0.40)
    world = generate(seed=seed, first_day=first_day, days=days, sites=sites, scale=1.6 * size, stories=plant.stories)
    return ScoredWorld(purpose="experiments", world=world, panel_share=1.0)


class _Planter:
    """Collects stories by day number."""

    def __init__(self, first_day: date, days: int) -> None:
        self.stories: list[Story] = []
        self._first_day = first_day
        self._last = days - 1

    def __call__(self, name: str, site_key: str, start: int, end: int, **parameters: object) -> None:
        first, last = (self._first_day + timedelta(days=int(min(n, self._last))) for n in (start, end))
        planted = Story(
            name=name, site_key=site_key, first_day=first, last_day=last, parameters=parameters, text="Scored."
        )
        self.stories.append(planted)


def _apart(draw: np.random.Generator, count: int, low: int, high: int, *, at_least: int) -> list[int]:
    """`count` numbers in [low, high), ascending, at least so far apart."""
    slack = high - low - (count - 1) * at_least
    return [low + int(n) + i * at_least for i, n in enumerate(np.sort(draw.integers(0, slack, size=count)))]
