"""The true effects: they add up to the served numbers, and each is what its cause did and nothing else."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from analytics_platform.sandbox import inspectlet, smartlook
from analytics_platform.sandbox.effects import COMPONENTS, METRICS, session_owners, true_effects
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import Story, World, generate, local_dates

FIRST_DAY, DAYS = date(2026, 9, 1), 8
LAST_DAY = FIRST_DAY + timedelta(days=DAYS - 1)


def planted(name: str, *, start: int = 0, end: int = DAYS - 1, **parameters: object) -> Story:
    first, last = (FIRST_DAY + timedelta(days=n) for n in (start, end))
    return Story(name=name, site_key="shop", first_day=first, last_day=last, parameters=parameters, text="")


EVERYTHING = (
    planted("bot_burst", start=1, end=1, visitors=60, javascript_share=0.5),
    planted("consent_banner", start=2, country="DE", consent_rate=0.4),
    planted("tag_removed", start=3, end=4, vendor="smartlook", path_prefix="/product/"),
    planted("tag_removed", start=4, end=4, vendor="inspectlet", path_prefix="/category/"),
    planted("ratio_break", start=5, end=6, vendor="inspectlet", lost_share=0.4),
    planted("plan_cap", start=6, end=7, vendor="smartlook", recordings_per_day=50),
    planted("domain_zone", timezone="America/New_York"),
)


def world_of(*stories: Story) -> World:
    return generate(seed=5, first_day=FIRST_DAY, days=DAYS, scale=0.8, stories=stories)


@pytest.fixture(scope="module")
def world() -> World:
    return world_of(*EVERYTHING)


@pytest.fixture(scope="module")
def effects(world: World) -> pd.DataFrame:
    return true_effects(world)


def only(frame: pd.DataFrame, **wanted: str) -> pd.DataFrame:
    """The rows with these values, by day where there are days."""
    for name, value in wanted.items():
        frame = frame[frame[name] == value]
    return frame.sort_values("stat_date", kind="stable") if "stat_date" in frame else frame


def of(effects: pd.DataFrame, component: str, *, vendor: str, metric: str = "sessions", site: str = "shop") -> Any:
    """The effect of each local day."""
    return only(effects, site_key=site, vendor=vendor, metric=metric, component=component)["effect"].to_numpy()


def test_effects_add_up_exactly(effects: pd.DataFrame) -> None:
    by = ["site_key", "stat_date", "vendor", "metric"]
    total = effects.groupby(by).agg({"effect": "sum", "anchor_value": "first", "vendor_value": "first"})
    assert len(total) == 2 * DAYS * 2 * len(METRICS)
    assert (total["anchor_value"] + total["effect"] == total["vendor_value"]).all()
    assert set(effects.groupby(by)["component"].agg(tuple)) == {COMPONENTS}


def test_the_ends_are_what_the_vendors_serve(world: World, effects: pd.DataFrame) -> None:
    ends = effects.drop_duplicates(["site_key", "stat_date", "vendor", "metric"])
    with Sandbox(world, vendors=("pirsch",)) as sandbox, httpx.Client(base_url=sandbox.base_urls["pirsch"]) as client:
        secret = sandbox.context.credentials
        pair = {"client_id": secret.pirsch_client_id, "client_secret": secret.pirsch_client_secret}
        token = client.post("/api/v1/token", json=pair).json()["access_token"]
        for site in world.sites:
            query = {"id": site.pirsch_domain_id, "from": str(FIRST_DAY), "to": str(LAST_DAY)}
            headers = {"Authorization": f"Bearer {token}"}
            rows = client.get("/api/v1/statistics/visitor", params=query, headers=headers).json()
            for metric in METRICS:
                mine = only(ends, site_key=site.key, vendor="smartlook", metric=metric)
                assert [row[metric] for row in rows] == mine["anchor_value"].tolist()
    for site in world.sites:
        held = {
            "smartlook": smartlook._Project(world, site, smartlook.Profile()).sessions,
            "inspectlet": inspectlet._Website(world, site, inspectlet.Profile()).sessions,
        }
        for vendor, sessions in held.items():
            day = (local_dates(sessions.start_ms, site.timezone) - np.datetime64(FIRST_DAY)).astype(int)
            views = np.bincount(day, weights=np.diff(sessions.bounds), minlength=DAYS)[:DAYS]
            served = {"sessions": np.bincount(day, minlength=DAYS)[:DAYS], "views": views}
            for metric, expected in served.items():
                mine = only(ends, site_key=site.key, vendor=vendor, metric=metric)
                assert mine["vendor_value"].tolist() == expected.tolist()


def test_each_cause_acts_on_its_days_and_vendor_only(effects: pd.DataFrame) -> None:
    for vendor in ("smartlook", "inspectlet"):
        bots = of(effects, "bots", vendor=vendor)
        assert bots[1] > 15
        assert bots[[0, *range(2, DAYS)]].sum() == 0
    # Days here are Berlin's, cause and count: the anchor's are New York's, hence the neighbours.
    missing = of(effects, "tag_missing", vendor="smartlook", metric="views")
    assert missing[3] < -20
    assert missing[[0, 1, 5, 6, 7]].sum() == 0
    assert of(effects, "sampling", vendor="smartlook")[6] < -20
    assert of(effects, "sampling", vendor="smartlook")[:5].sum() == 0
    assert of(effects, "sampling", vendor="inspectlet").sum() == 0
    unexplained = of(effects, "unexplained", vendor="inspectlet")
    assert unexplained[5] < -10
    assert unexplained[:4].sum() == 0
    assert of(effects, "unexplained", vendor="smartlook").sum() == 0
    assert np.abs(of(effects, "day_boundary", vendor="smartlook")).sum() > 0


def test_consent_deepens_when_a_country_refuses(effects: pd.DataFrame) -> None:
    consent = of(effects, "consent", vendor="inspectlet")
    anchor = only(effects, site_key="shop", vendor="inspectlet", metric="sessions")
    share = consent / anchor.drop_duplicates("stat_date")["anchor_value"].to_numpy()
    assert share[:2].mean() > -0.3
    assert share[3:].mean() < share[:2].mean() - 0.1


def test_a_quiet_site_has_no_more_than_definition_and_consent() -> None:
    quiet = only(true_effects(world_of()), vendor="inspectlet")
    size = quiet.groupby(["component", "metric"])["effect"].apply(lambda one: one.abs().sum())
    for component in ("day_boundary", "bots", "sampling", "tag_missing", "unexplained"):
        assert size[component].sum() == 0
    # The anchor's own idle rule: nothing but reloads is defined otherwise.
    assert size["definition", "sessions"] == size["definition", "visitors"] == 0
    assert size["definition", "views"] > 0
    assert size["consent"].min() > 0


def test_visitors_the_anchor_leaves_out_stay_unexplained() -> None:
    effects = true_effects(world_of(), profiles={"pirsch": {"respect_dnt": True}})
    unexplained = only(effects, component="unexplained").groupby("metric")["effect"].sum()
    assert (unexplained > 0).all()
    by = ["site_key", "stat_date", "vendor", "metric"]
    total = effects.groupby(by).agg({"effect": "sum", "anchor_value": "first", "vendor_value": "first"})
    assert (total["anchor_value"] + total["effect"] == total["vendor_value"]).all()


def test_session_owners_name_the_served_sessions(world: World) -> None:
    owned = session_owners(world)
    site = world.site("shop")
    project, website = (
        smartlook._Project(world, site, smartlook.Profile()),
        inspectlet._Website(world, site, inspectlet.Profile()),
    )
    served = {"smartlook": project.session_ids, "inspectlet": [f"{site.wid}-{sid}" for sid in website.sids]}
    for vendor, ids in served.items():
        mine = only(owned, site_key="shop", vendor=vendor)
        assert mine["vendor_session_id"].tolist() == ids
    assert owned.duplicated(["site_key", "vendor", "vendor_session_id"]).sum() == 0
    assert set(owned["visitor_id"]) <= set(world.visitors["visitor_id"])
