"""What really happened: the types of the one truth that five lossy observers look at, and `generate()`.

Belongs here: `World` and its parts, the default sites, and the assembly of a generated world. Does not belong here: who
the visitors are (`population`), what they do (`traffic`), what was planted (`stories`), how a vendor sees it (its
observer module).

Every frame is sorted and indexed from 0, and is read-only by convention: observers take copies. The same arguments give
the same bytes (one numpy Generator, no clock, no set order).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = ["DEFAULT_SITES", "SiteTruth", "Story", "World", "generate", "invented_site", "local_dates", "sandbox_now"]


@dataclass(frozen=True)
class SiteTruth:
    """One site and the name each vendor knows it by. Tokens are fake and only open this sandbox."""

    key: str
    hostname: str
    timezone: str
    wid: int
    smartlook_token: str
    smartlook_project_id: str
    pirsch_domain_id: str
    kameleoon_site_code: str
    kissmetrics_product_id: str
    kissmetrics_account_id: str


@dataclass(frozen=True)
class Story:
    """Something planted on purpose. Days are local days of the site, both inclusive."""

    name: str
    site_key: str
    first_day: date
    last_day: date
    parameters: Mapping[str, Any]
    text: str


@dataclass(frozen=True)
class World:
    """The truth of one or more sites over a range of local days (`first_day` … `last_day`, inclusive).

    `now` is the sandbox's present (UTC, fixed: noon of the day after `last_day`), so answers never depend on the wall
    clock.

    Frames (times are UTC epoch milliseconds, int64):
        visitors: visitor_id, site_key, country (alpha-2 upper), country_name, region, city, language, device
            (desktop|phone|tablet), browser, browser_version, os, os_version, screen_width, screen_height, user_agent,
            ip, is_bot, bot_kind ("" | crawler | headless | headless_js: only the last runs JavaScript), is_data_centre,
            consents, sends_dnt, blocks_ads, block_rank (uniform 0..1; blocks_ads is rank < 0.03, an observer that loses
            more takes a higher cut), first_seen_at_ms, email|None, display_name|None, uid|None, kameleoon_code (16
            characters)
        views: view_id, site_key, visitor_id, at_ms, url (full), path, query (without "?"), title, referrer (URL or ""),
            is_reload (same URL as just before in the visit); sorted by (site_key, visitor_id, at_ms, url)
        events: event_id, site_key, visitor_id, at_ms, name, kind (custom|click|rage_click|error|url), value, path,
            meta (JSON text, "{}" when none), duration_seconds; sorted by (site_key, visitor_id, at_ms, name)
        conversions: conversion_id, site_key, visitor_id, at_ms, goal (purchase|signup), revenue, order_id, product_sku,
        quantity
        exposures: site_key, visitor_id, experiment_id, variation_id (0 = reference), at_ms
        products: site_key, sku, name, price
        product_events: site_key, visitor_id, at_ms, sku, kind (view|add_to_cart|purchase), quantity
    """

    seed: int
    first_day: date
    last_day: date
    now: datetime
    sites: tuple[SiteTruth, ...]
    visitors: pd.DataFrame = field(repr=False)
    views: pd.DataFrame = field(repr=False)
    events: pd.DataFrame = field(repr=False)
    conversions: pd.DataFrame = field(repr=False)
    exposures: pd.DataFrame = field(repr=False)
    products: pd.DataFrame = field(repr=False)
    product_events: pd.DataFrame = field(repr=False)
    stories: tuple[Story, ...] = ()

    @property
    def now_ms(self) -> int:
        """The sandbox's present in epoch milliseconds."""
        return int(self.now.timestamp()) * 1000

    def site(self, key: str) -> SiteTruth:
        """The site with this key; raises KeyError."""
        for site in self.sites:
            if site.key == key:
                return site
        raise KeyError(key)

    def story(self, name: str) -> Story | None:
        """The first planted story of this name, or None when this world does not have it."""
        return next((story for story in self.stories if story.name == name), None)

    def stories_of(self, name: str, site_key: str, vendor: str | None = None) -> tuple[Story, ...]:
        """Every planted story of this name on this site, in planted order; of one vendor's where `vendor` is given."""
        return tuple(
            story
            for story in self.stories
            if story.name == name
            and story.site_key == site_key
            and (vendor is None or story.parameters.get("vendor") == vendor)
        )

    def in_story(self, name: str, site_key: str, at_ms: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """For each instant: does it fall on a local day of such a story on that site? All False when not planted."""
        during = np.zeros(np.shape(at_ms), dtype=np.bool_)
        for story in self.stories_of(name, site_key):
            during |= self.during(story, at_ms)
        return during

    def during(self, story: Story, at_ms: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """For each instant: does it fall on a local day of this story?"""
        days = local_dates(np.asarray(at_ms, dtype=np.int64), self.site(story.site_key).timezone)
        first, last = np.datetime64(story.first_day), np.datetime64(story.last_day)
        return np.asarray((days >= first) & (days <= last), dtype=np.bool_)

    def domain_timezone(self, site: SiteTruth) -> str:
        """The zone whose days Pirsch counts for this site: the site's own, unless `domain_zone` is planted."""
        planted = self.stories_of("domain_zone", site.key)
        return str(planted[0].parameters["timezone"]) if planted else site.timezone


DEFAULT_SITES: tuple[SiteTruth, ...] = (
    SiteTruth(
        key="shop",
        hostname="www.shop.example",
        timezone="Europe/Berlin",
        wid=17345021,
        smartlook_token="sbx-smartlook-shop-4b7e1f9c2a6d",  # noqa: S106 - opens a loopback server only
        smartlook_project_id="5f2a9c1be7d04",
        pirsch_domain_id="A5kgYzK14m",
        kameleoon_site_code="f17c21u1ag",
        kissmetrics_product_id="e7063aa0-0edf-0131-ead3-12313b0d181e",
        kissmetrics_account_id="c5d2f1e0-0edf-0131-ead2-12313b0d181e",
    ),
    SiteTruth(
        key="blog",
        hostname="blog.example",
        timezone="America/New_York",
        wid=17345022,
        smartlook_token="sbx-smartlook-blog-91c30d5e8f7a",  # noqa: S106 - opens a loopback server only
        smartlook_project_id="6a81d40cf2b95",
        pirsch_domain_id="M03loiem34",
        kameleoon_site_code="b29d84k7qz",
        kissmetrics_product_id="f81a44c0-0edf-0131-ead4-12313b0d181e",
        kissmetrics_account_id="c5d2f1e0-0edf-0131-ead2-12313b0d181e",
    ),
)


def invented_site(key: str, timezone: str) -> SiteTruth:
    """A further site, every vendor's name for it made of the key: same key, same site."""
    digest = sha256(key.encode()).hexdigest()
    return SiteTruth(
        key=key,
        hostname=f"{key}.example",
        timezone=timezone,
        wid=20_000_000 + int(digest[:7], 16) % 70_000_000,
        smartlook_token=f"sbx-smartlook-{key}-{digest[:12]}",
        smartlook_project_id=digest[12:25],
        pirsch_domain_id=digest[25:35],
        kameleoon_site_code=digest[35:45],
        kissmetrics_product_id=f"{digest[45:53]}-0edf-0131-ead6-12313b0d181e",
        kissmetrics_account_id="c5d2f1e0-0edf-0131-ead2-12313b0d181e",
    )


def local_dates(at_ms: npt.ArrayLike, timezone: str) -> npt.NDArray[np.datetime64]:
    """The local calendar day (datetime64[D]) of each UTC epoch-millisecond instant in that zone."""
    instants = pd.to_datetime(np.asarray(at_ms, dtype=np.int64), unit="ms", utc=True)
    return instants.tz_convert(timezone).tz_localize(None).to_numpy().astype("datetime64[D]")


def sandbox_now(last_day: date) -> datetime:
    """The fixed present of a world that ends on this day: noon UTC of the next day."""
    return datetime(last_day.year, last_day.month, last_day.day, 12, tzinfo=UTC) + timedelta(days=1)


def generate(
    *,
    seed: int = 7,
    first_day: date = date(2026, 10, 5),
    days: int = 28,
    sites: Sequence[SiteTruth] = DEFAULT_SITES,
    scale: float = 1.0,
    stories: Sequence[Story] | None = None,
) -> World:
    """Generate a world: who came, what they did, what was planted.

    Args:
        seed: of the one random generator; same arguments, same bytes.
        first_day: first local day of every site.
        days: number of local days, at least 1.
        sites: sites to fill; a key that begins with "blog" is a blog, any other a shop.
        scale: multiplies the number of visits (1.0 is about 150 human visits a day on the shop, 70 on the blog).
        stories: what to plant instead of the demo's stories, cut to the range (`stories` says which there are); several
            of one name are several effects.

    Raises:
        ValueError: no day, or a story no part of the sandbox acts on.
    """
    # Imported here: they build on the types above.
    from analytics_platform.sandbox import traffic
    from analytics_platform.sandbox.stories import chosen, planted

    if days < 1:
        raise ValueError("a world has at least one day")
    last_day = first_day + timedelta(days=days - 1)
    told = planted(sites, first_day, last_day) if stories is None else chosen(stories, sites, first_day, last_day)
    rng = np.random.default_rng(seed)
    parts = [
        # What a second story of one name draws comes from a generator of its own: it moves nothing of the rest.
        traffic.site_traffic(
            rng,
            site,
            further=np.random.default_rng([seed, number]),
            first_day=first_day,
            days=days,
            scale=scale,
            stories=told,
        )
        for number, site in enumerate(sites, start=1)
    ]
    frames = traffic.assemble(parts)
    return World(
        seed=seed,
        first_day=first_day,
        last_day=last_day,
        now=sandbox_now(last_day),
        sites=tuple(sites),
        stories=told,
        **frames,
    )
