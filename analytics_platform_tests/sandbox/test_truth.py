"""The generated truth: reproducible, within its range, with the shape and the stories it promises."""

from __future__ import annotations

from datetime import date
from hashlib import sha256

import numpy as np
import pandas as pd
import pytest

from analytics_platform.sandbox.sessionize import sessionize
from analytics_platform.sandbox.truth import World, generate, local_dates

FRAMES = ("visitors", "views", "events", "conversions", "exposures", "products", "product_events")


@pytest.fixture(scope="module")
def world() -> World:
    return generate()


def digest(world: World) -> str:
    total = sha256()
    for name in FRAMES:
        total.update(getattr(world, name).to_csv(index=False).encode())
    return total.hexdigest()


def test_same_seed_same_bytes_and_another_seed_another_world() -> None:
    short = {"first_day": date(2026, 10, 12), "days": 4}
    assert digest(generate(**short)) == digest(generate(**short))
    assert digest(generate(**short)) != digest(generate(seed=8, **short))


def test_frames_have_unique_ids_sorted_rows_and_integer_times(world: World) -> None:
    assert world.visitors["visitor_id"].is_unique
    assert world.visitors["kameleoon_code"].str.fullmatch(r"[a-z0-9]{16}").all()
    assert world.visitors["kameleoon_code"].is_unique
    for name in ("views", "events", "conversions", "exposures", "product_events"):
        frame = getattr(world, name)
        assert frame["at_ms"].dtype == np.int64
        assert frame.index.equals(pd.RangeIndex(len(frame)))
        keys = frame[["site_key", "visitor_id", "at_ms"]]
        assert keys.equals(keys.sort_values(list(keys), kind="stable"))
        assert set(frame["visitor_id"]) <= set(world.visitors["visitor_id"])


def test_visits_start_inside_the_local_range_and_end_before_now(world: World) -> None:
    for site in world.sites:
        views = world.views[world.views["site_key"] == site.key]
        days = local_dates(views["at_ms"], site.timezone)
        assert days.min() == np.datetime64(world.first_day)
        assert views["at_ms"].max() < world.now_ms
        first_of_visitor = views.groupby("visitor_id")["at_ms"].min()
        assert local_dates(first_of_visitor, site.timezone).max() == np.datetime64(world.last_day)


def test_volumes_and_shares_are_what_the_demo_needs(world: World) -> None:
    people = world.visitors[~world.visitors["is_bot"]]
    human = world.views[world.views["visitor_id"].isin(people["visitor_id"])]
    sessions = sessionize(human, idle_seconds=1800, cap_seconds=86_400).drop_duplicates("session_index")
    per_day = sessions.groupby("site_key").size() / 28
    assert 140 <= per_day["shop"] <= 190
    assert 60 <= per_day["blog"] <= 90
    returning = 1 - len(people) / len(sessions)
    assert 0.25 <= returning <= 0.50
    assert human[human["site_key"] == "shop"]["path"].nunique() > 110
    assert 0.02 <= human["is_reload"].mean() <= 0.10


def test_idle_rules_and_midnight_matter(world: World) -> None:
    half_hour = sessionize(world.views, idle_seconds=1800, cap_seconds=86_400)
    quarter = sessionize(world.views, idle_seconds=900, cap_seconds=3600)
    assert quarter["session_index"].max() > 1.05 * half_hour["session_index"].max()
    lengths = half_hour.groupby("session_index").agg(start=("at_ms", "min"), end=("at_ms", "max"))
    minutes = (lengths["end"] - lengths["start"]) / 60_000
    assert (minutes > 60).sum() > 20
    assert (minutes > 120).sum() > 3
    berlin = half_hour[half_hour["site_key"] == "shop"]
    start, end = (local_dates(berlin[name], "Europe/Berlin") for name in ("session_start_ms", "session_end_ms"))
    assert (start != end).any()


def test_utm_values_come_in_case_variants(world: World) -> None:
    queries = "&".join(world.views["query"].unique())
    assert "utm_source=newsletter" in queries
    assert "utm_source=Newsletter" in queries


def test_conversions_agree_with_their_products_and_pages(world: World) -> None:
    orders = world.conversions[world.conversions["goal"] == "purchase"].merge(
        world.products, left_on=["site_key", "product_sku"], right_on=["site_key", "sku"], validate="many_to_one"
    )
    assert len(orders) == (world.conversions["goal"] == "purchase").sum() > 100
    assert np.allclose(orders["revenue"], orders["price"] * orders["quantity"])
    thanks = world.views[world.views["path"] == "/checkout/thank-you"]
    assert set(zip(orders["visitor_id"], orders["at_ms"], strict=True)) == set(
        zip(thanks["visitor_id"], thanks["at_ms"], strict=True)
    )
    bought = world.product_events[world.product_events["kind"] == "purchase"]
    assert bought["quantity"].sum() == orders["quantity"].sum()


def test_experiment_has_two_arms_and_a_few_flips(world: World) -> None:
    shop = world.exposures[world.exposures["site_key"] == "shop"]
    assert shop["variation_id"].nunique() == 2
    arms = shop.groupby("visitor_id")["variation_id"].nunique()
    assert 0 < (arms > 1).sum() < 0.03 * len(arms)


def test_bot_burst_is_one_page_from_data_centres_on_its_day(world: World) -> None:
    headless = world.visitors[world.visitors["bot_kind"].isin(["headless", "headless_js"])]
    assert len(headless) == 600
    assert headless["is_data_centre"].all()
    views = world.views[world.views["visitor_id"].isin(headless["visitor_id"])]
    assert len(views) == 600
    assert world.in_story("bot_burst", "shop", views["at_ms"]).all()
    javascript = headless["bot_kind"].eq("headless_js")
    assert 0.3 < javascript.mean() < 0.5
    assert headless.loc[javascript, "consents"].all()


def test_consent_banner_lowers_consent_in_its_country_only_after_it_goes_live(world: World) -> None:
    first = world.views.groupby("visitor_id")["at_ms"].min()
    people = world.visitors[(world.visitors["site_key"] == "shop") & ~world.visitors["is_bot"]]
    live = world.in_story("consent_banner", "shop", first.reindex(people["visitor_id"]))
    french = people["country"].eq("FR").to_numpy()
    assert people[french & live]["consents"].mean() < 0.45
    assert people[french & ~live]["consents"].mean() > 0.70
    assert people[~french & live]["consents"].mean() > 0.70


def test_stories_outside_the_range_are_not_planted() -> None:
    assert generate(first_day=date(2026, 9, 1), days=2).stories == ()
    cut = generate(first_day=date(2026, 10, 20), days=3)
    banner = cut.story("consent_banner")
    assert banner is not None
    assert (banner.first_day, banner.last_day) == (date(2026, 10, 20), date(2026, 10, 22))
    assert not cut.in_story("bot_burst", "shop", [0]).any()


@pytest.mark.parametrize("scale", [0.01, 0.3])
def test_small_worlds_are_whole_worlds(scale: float) -> None:
    small = generate(first_day=date(2026, 10, 14), days=1, scale=scale)
    for name in FRAMES:
        assert list(getattr(small, name).columns) == list(getattr(generate(days=1), name).columns)


def test_the_repeated_hour_of_the_dst_sunday_is_used(world: World) -> None:
    shop = world.views[world.views["site_key"] == "shop"]
    sunday = shop[local_dates(shop["at_ms"], "Europe/Berlin") == np.datetime64("2026-10-25")]
    hours = (sunday["at_ms"].max() - sunday["at_ms"].min()) / 3_600_000
    assert hours > 23.5  # a 25-hour day; the first and last views lie close to its ends
    midnight_utc = pd.Timestamp("2026-10-24T22:00Z").value // 1_000_000
    assert ((sunday["at_ms"] - midnight_utc) >= 0).all()
    assert ((sunday["at_ms"] - midnight_utc) < 25 * 3_600_000).all()
