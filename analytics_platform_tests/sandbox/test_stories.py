"""Stories as parameters: the demo's world stays what it is, and whatever is planted is what happens."""

from __future__ import annotations

from datetime import date, timedelta
from hashlib import sha256
from typing import Any

import numpy as np
import pytest

from analytics_platform.sandbox import inspectlet, smartlook
from analytics_platform.sandbox.recording import record
from analytics_platform.sandbox.truth import (
    DEFAULT_SITES,
    SiteTruth,
    Story,
    World,
    generate,
    invented_site,
    local_dates,
)

FIRST_DAY = date(2026, 9, 1)
FRAMES = ("visitors", "views", "events", "conversions", "exposures", "products", "product_events")

DEMO = "144a70f994fdff079845fda5c7be8682"
HALF = "06249cae5c4375835e6f77f2fff6726e"
"""Digests of worlds generated before stories were parameters."""


def digest(world: World) -> str:
    total = sha256()
    for name in FRAMES:
        total.update(getattr(world, name).to_csv(index=False).encode())
    return total.hexdigest()[:32]


def planted(name: str, site: str = "shop", *, start: int = 0, end: int = 9, **parameters: object) -> Story:
    first, last = (FIRST_DAY + timedelta(days=n) for n in (start, end))
    return Story(name=name, site_key=site, first_day=first, last_day=last, parameters=parameters, text="")


def world_of(*stories: Story, days: int = 10, scale: float = 1.0, seed: int = 3, **more: object) -> World:
    chosen: dict[str, Any] = {"sites": DEFAULT_SITES[:1], **more}
    return generate(seed=seed, first_day=FIRST_DAY, days=days, scale=scale, stories=stories, **chosen)


def views_seen(world: World, vendor: str, site: SiteTruth) -> set[int]:
    """The page views on this vendor's recordings."""
    rule = {
        "smartlook": lambda: smartlook.tag_rule(smartlook.Profile()),
        "inspectlet": lambda: inspectlet.tag_rule(inspectlet.Profile()),
    }[vendor]()
    return set(record(world, site, rule).sessions.views["view_id"].tolist())


def test_the_demos_world_is_byte_for_byte_the_one_before_stories_were_parameters() -> None:
    assert digest(generate()) == DEMO
    assert digest(generate(seed=11, first_day=date(2026, 10, 12), days=20, scale=0.5)) == HALF


def test_same_stories_same_bytes() -> None:
    stories = [planted("bot_burst", start=n, end=n, visitors=40, javascript_share=0.5) for n in (2, 5)]
    stories.append(planted("consent_banner", start=4, country="DE", consent_rate=0.4))
    assert digest(world_of(*stories, scale=0.3)) == digest(world_of(*stories, scale=0.3))


def test_no_stories_is_a_quiet_world() -> None:
    assert generate(days=20, first_day=date(2026, 10, 10), scale=0.1, stories=()).stories == ()


@pytest.mark.parametrize(
    "wrong",
    [planted("sponsor_spike"), planted("plan_cap", recordings_per_day=3)],
    ids=["unknown kind", "parameter missing"],
)
def test_a_story_nobody_acts_on_is_refused(wrong: Story) -> None:
    with pytest.raises(ValueError, match="no part of the sandbox"):
        world_of(wrong)


def test_every_burst_comes_on_its_day_and_moves_nobody_else() -> None:
    one = planted("bot_burst", start=2, end=2, visitors=50, javascript_share=0.5)
    two = planted("bot_burst", start=6, end=6, visitors=30, javascript_share=0.5)
    world = world_of(one, two)
    headless = world.visitors[world.visitors["bot_kind"].str.startswith("headless")]
    days = local_dates(headless["first_seen_at_ms"], "Europe/Berlin") - np.datetime64(FIRST_DAY)
    assert np.unique(days.astype(int), return_counts=True)[1].tolist() == [50, 30]
    alone = world_of(one)
    human = [w.views.loc[~w.views["visitor_id"].isin(w.visitors.loc[w.visitors["is_bot"], "visitor_id"])]
             for w in (world, alone)]  # fmt: skip
    assert len(human[0]) > 1000
    assert abs(len(human[0]) - len(human[1])) < 0.05 * len(human[1])


def test_each_country_answers_its_own_banners_and_the_latest_counts() -> None:
    banners = [
        planted("consent_banner", start=10, country="FR", consent_rate=0.10),
        planted("consent_banner", start=20, country="FR", consent_rate=0.95),
        planted("consent_banner", start=15, country="DE", consent_rate=0.30),
    ]
    world = world_of(*banners, days=30, scale=4.0)
    first = world.views.groupby("visitor_id")["at_ms"].min()
    people = world.visitors[(world.visitors["site_key"] == "shop") & ~world.visitors["is_bot"]]
    day = (local_dates(first.reindex(people["visitor_id"]), "Europe/Berlin") - np.datetime64(FIRST_DAY)).astype(int)
    share = people.assign(day=day).groupby(["country", np.digitize(day, [10, 15, 20])])["consents"].mean()
    assert share["FR", 0] > 0.75
    assert share["FR", 1] < 0.2
    assert share["FR", 3] > 0.9
    assert share["DE", 1] > 0.7
    assert share["DE", 2] < 0.4
    assert share["AT", 3] > 0.7


@pytest.mark.parametrize("vendor", ["smartlook", "inspectlet"])
def test_a_removed_tag_loses_its_paths_for_its_vendor_only(vendor: str) -> None:
    story = planted("tag_removed", start=3, end=5, vendor=vendor, path_prefix="/product/")
    world, untouched = world_of(story), world_of()
    site = world.site("shop")
    seen = world.views[world.views["view_id"].isin(views_seen(world, vendor, site))]
    product = seen[seen["path"].str.startswith("/product/")]
    assert not world.during(story, product["at_ms"]).any()
    assert len(product) > 100
    other = {"smartlook": "inspectlet", "inspectlet": "smartlook"}[vendor]
    assert views_seen(world, other, site) == views_seen(untouched, other, site)


@pytest.mark.parametrize("vendor", ["smartlook", "inspectlet"])
def test_a_ratio_break_loses_its_share_of_visitors_and_ends(vendor: str) -> None:
    story = planted("ratio_break", start=4, end=7, vendor=vendor, lost_share=0.5)
    broken, whole = world_of(story, scale=2.0), world_of(scale=2.0)
    site = whole.site("shop")
    lost = views_seen(whole, vendor, site) - views_seen(broken, vendor, site)
    gone = whole.views[whole.views["view_id"].isin(lost)]
    during = whole.views.loc[whole.during(story, whole.views["at_ms"]) & (whole.views["site_key"] == "shop")]
    before = during[during["view_id"].isin(views_seen(whole, vendor, site))]
    assert 0.42 < gone["visitor_id"].nunique() / before["visitor_id"].nunique() < 0.58
    assert world_days(gone) == {4, 5, 6, 7}


def world_days(views: object) -> set[int]:
    days = local_dates(views["at_ms"], "Europe/Berlin") - np.datetime64(FIRST_DAY)  # type: ignore[index]
    return set(days.astype(int).tolist())


@pytest.mark.parametrize("vendor", ["smartlook", "inspectlet"])
def test_a_plan_cap_keeps_the_first_of_a_local_day(vendor: str) -> None:
    story = planted("plan_cap", start=5, end=6, vendor=vendor, recordings_per_day=20)
    world = world_of(story)
    site = world.site("shop")
    observer = {"smartlook": smartlook, "inspectlet": inspectlet}[vendor]
    owned = observer.session_owners(world, site, observer.Profile())
    free = observer.session_owners(world_of(), site, observer.Profile())
    for frame in (owned, free):
        frame["day"] = (local_dates(frame["start_ms"], site.timezone) - np.datetime64(FIRST_DAY)).astype(int)
    assert (owned.groupby("day").size().loc[[5, 6]] == 20).all()
    elsewhere, freely = (set(one.loc[~one["day"].isin([5, 6]), "vendor_session_id"]) for one in (owned, free))
    assert elsewhere == freely
    last_kept = owned.loc[owned["day"] == 5, "start_ms"].max()
    assert (free.loc[(free["day"] == 5), "start_ms"] <= last_kept).sum() == 20


def test_a_broken_split_is_broken_on_its_site_only() -> None:
    sites = [invented_site("shop-a", "UTC"), invented_site("shop-b", "UTC")]
    world = world_of(planted("broken_split", "shop-b", other_share=0.3), sites=sites, scale=4.0)
    other = world.exposures["variation_id"] > 0
    share = other.groupby(world.exposures["site_key"]).mean()
    assert 0.46 < share["shop-a"] < 0.54
    assert 0.26 < share["shop-b"] < 0.34


def test_invented_sites_are_stable_and_share_nothing() -> None:
    one, other = invented_site("shop-1", "UTC"), invented_site("shop-2", "UTC")
    assert one == invented_site("shop-1", "UTC")
    assert not {value for value in vars(one).values() if value != "UTC"} & (
        set(vars(other).values()) - {one.kissmetrics_account_id}
    )
