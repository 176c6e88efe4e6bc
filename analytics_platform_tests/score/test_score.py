"""The scorer: its worlds, its arithmetic, and that what it fetches is what it calls true."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest

from analytics_platform.sandbox.effects import COMPONENTS, METRICS, true_effects
from analytics_platform.sandbox.truth import Story, generate, invented_site
from analytics_platform_tests.score.figures import (
    Breaks,
    Experiments,
    Overlap,
    SeedFigures,
    compare_components,
    judge,
    match_breaks,
)
from analytics_platform_tests.score.marts import fill_home
from analytics_platform_tests.score.noise import daily_noise
from analytics_platform_tests.score.report import tables
from analytics_platform_tests.score.seed import score_seed
from analytics_platform_tests.score.worlds import (
    LAST_DAY,
    ScoredWorld,
    break_world,
    effect_world,
    experiment_world,
    fingerprint_of,
    worlds_of,
)

FIRST_DAY = date(2026, 9, 1)


def truth_of(days: int = 16) -> pd.DataFrame:
    """One site and vendor: consent takes 20 of 100 a day and a tag 10 more, on every metric."""
    effect = {"consent": -20, "tag_missing": -10}
    rows = [
        (
            "shop",
            pd.Timestamp(FIRST_DAY) + pd.Timedelta(days=n),
            "smartlook",
            metric,
            component,
            effect.get(component, 0),
        )
        for n in range(days)
        for metric in METRICS
        for component in COMPONENTS
    ]
    frame = pd.DataFrame(rows, columns=["site_key", "stat_date", "vendor", "metric", "component", "effect"])
    return frame.assign(anchor_value=100, vendor_value=70)


def nothing() -> pd.DataFrame:
    empty = pd.DataFrame(columns=["site_key", "vendor", "stat_date", "metric", "noise"])
    return empty.astype({"stat_date": "datetime64[s]", "noise": float})


def figures_of(truth: pd.DataFrame, estimated: pd.DataFrame) -> dict[tuple[str, str], Any]:
    found = compare_components(truth, estimated, FIRST_DAY, noise=nothing())
    return {(one.component, one.metric): one for one in found}


def estimate(truth: pd.DataFrame, **changed: float) -> pd.DataFrame:
    """The truth with some components estimated otherwise, the remainder taking the rest."""
    frame = truth.drop(columns=["anchor_value", "vendor_value"]).astype({"effect": float})
    for component, effect in changed.items():
        frame.loc[frame["component"] == component, "effect"] = effect
    return frame


def test_a_perfect_estimate_has_no_error_and_training_days_do_not_count() -> None:
    truth = truth_of()
    wrong_at_first = estimate(truth)
    early = wrong_at_first["stat_date"] < pd.Timestamp(FIRST_DAY + timedelta(days=14))
    wrong_at_first.loc[early, "effect"] = 1000.0
    figures = figures_of(truth, wrong_at_first)
    assert {one.error for one in figures.values()} == {0.0}
    consent = figures["consent", "sessions"]
    assert (consent.days, consent.injected, consent.injected_size, consent.gap_size, consent.anchor) == (
        2,
        -40,
        40,
        60,
        200,
    )


def test_errors_of_two_days_do_not_cancel() -> None:
    truth = truth_of()
    swings = estimate(truth)
    last, before = pd.Timestamp(FIRST_DAY + timedelta(days=15)), pd.Timestamp(FIRST_DAY + timedelta(days=14))
    consent = swings["component"] == "consent"
    swings.loc[consent & (swings["stat_date"] == last), "effect"] = -30.0
    swings.loc[consent & (swings["stat_date"] == before), "effect"] = -10.0
    figure = figures_of(truth, swings)["consent", "sessions"]
    assert (figure.estimated, figure.error, figure.estimated_size) == (-40, 20, 40)


def test_a_day_without_a_row_is_an_estimate_of_nothing() -> None:
    truth = truth_of()
    whole = estimate(truth)
    figure = figures_of(truth, whole[whole["component"] != "consent"])["consent", "sessions"]
    assert (figure.error, figure.days_without) == (40, 2)


@pytest.mark.parametrize(("consent", "held"), [(-17.0, True), (-15.9, False)])
def test_a_component_is_judged_by_its_share(consent: float, held: bool) -> None:
    truth = truth_of()
    rest = -20.0 - consent
    found = compare_components(truth, estimate(truth, consent=consent, unexplained=rest), FIRST_DAY, noise=nothing())
    by_name = {one.what: one for one in judge([SeedFigures(seed=1, components=found)])}
    assert by_name["consent, sessions"].held is held
    assert by_name["tag_missing, sessions"].held is True
    assert by_name["bots, sessions"].held is None  # nothing injected, nothing judged
    assert by_name["remainder, sessions"].held is False  # 3 of a gap of 30


def test_a_remainder_is_judged_net_of_its_days() -> None:
    truth = truth_of()
    swings = estimate(truth)
    remainder = swings["component"] == "unexplained"
    swings.loc[remainder, "effect"] = [(-5.0, 5.0)[n % 2] for n in range(16) for _ in METRICS]
    found = compare_components(truth, swings, FIRST_DAY, noise=nothing())
    assert {one.what: one for one in judge([SeedFigures(seed=1, components=found)])}["remainder, views"].held is True


def test_models_that_are_not_there_fail_nothing_and_are_named() -> None:
    verdicts = judge([SeedFigures(seed=1)])
    assert {one.held for one in verdicts} == {None}
    assert "fct_experiment_results_daily is not there" in tables([SeedFigures(seed=1)], verdicts)


def breaks_of(planted: int, found: list[int]) -> Breaks:
    days = [("shop", "smartlook", f"2026-09-{n:02d}") for n in range(1, 29)]
    return Breaks(metric="sessions", planted=tuple(days[:planted]), found=tuple(days[n] for n in found))


@pytest.mark.parametrize(
    ("found", "recall", "precision"),
    [
        (list(range(20)), True, True),
        (list(range(18)), False, True),
        ([*range(20), 24, 25], True, False),
        ([], False, False),
    ],
)
def test_breaks_are_judged_by_recall_and_precision(found: list[int], recall: bool, precision: bool) -> None:
    verdicts = judge([SeedFigures(seed=1, breaks=[breaks_of(20, found)])])
    assert {one.what: one.held for one in verdicts if one.what.startswith("breaks")} == {
        "breaks of sessions, recall": recall,
        "breaks of sessions, precision": precision,
    }


def test_a_break_has_a_beginning_and_an_end_and_small_losses_are_none() -> None:
    site = invented_site("shop-1", "UTC")

    def lost(share: float, start: int, end: int) -> Story:
        first, last = (FIRST_DAY + timedelta(days=n) for n in (start, end))
        parameters = {"vendor": "inspectlet", "lost_share": share}
        return Story(
            name="ratio_break", site_key=site.key, first_day=first, last_day=last, parameters=parameters, text=""
        )

    world = generate(first_day=FIRST_DAY, days=10, sites=[site], scale=0.02,
                     stories=[lost(0.5, 2, 4), lost(0.1, 5, 6), lost(0.5, 8, 9)])  # fmt: skip
    found = match_breaks(
        ScoredWorld(purpose="breaks", world=world), "sessions", [("shop-1", "inspectlet", "2026-09-04")]
    )
    assert [day for _, _, day in found.planted] == ["2026-09-03", "2026-09-06", "2026-09-09"]
    assert (found.right, found.right_within_a_day) == (0, 1)


@pytest.mark.parametrize(
    ("called", "judged", "found", "healthy"),
    [(("b",), 2, True, True), ((), 2, False, True), (("a", "b"), 2, True, False), (("b",), 1, True, False)],
)
def test_experiments_are_judged_both_ways(called: tuple[str, ...], judged: int, found: bool, healthy: bool) -> None:
    verdicts = judge([SeedFigures(seed=1, experiments=Experiments(broken=("b",), called_broken=called, judged=judged))])
    assert [one.held for one in verdicts if "experiments" in one.what or "split" in one.what] == [found, healthy]


@pytest.mark.parametrize(("right", "held"), [(98, True), (97, False), (0, False)])
def test_overlap_is_judged_by_precision(right: int, held: bool) -> None:
    verdicts = judge([SeedFigures(seed=1, overlap=Overlap(pairs=100 if right else 0, right=right, possible=120))])
    assert verdicts[-1].held is held


def test_a_seed_can_be_scored_by_another_process() -> None:
    """What stands in `__main__` cannot be named by a fresh interpreter."""
    assert score_seed.__module__ == "analytics_platform_tests.score.seed"


# --- worlds ----------------------------------------------------------------------------------------------------------


def test_worlds_are_of_their_seed() -> None:
    one, again, other = (worlds_of(seed, size=0.01) for seed in (1, 1, 2))
    assert fingerprint_of(one) == fingerprint_of(again) != fingerprint_of(other)
    assert {scored.world.last_day for scored in one} == {LAST_DAY}
    keys = [site.key for scored in (*one, *other) for site in scored.world.sites]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("seed", range(1, 6))
def test_planted_breaks_can_be_found(seed: int) -> None:
    """History before the first, room between two and after the last; on other days than bots."""
    world = break_world(seed, size=0.01).world
    for site in world.sites:
        for vendor in ("smartlook", "inspectlet"):
            large = [s for s in world.stories_of("ratio_break", site.key, vendor) if s.parameters["lost_share"] >= 0.35]
            days = sorted(day for s in large for day in (s.first_day, s.last_day + timedelta(days=1)))
            assert (days[0] - world.first_day).days >= 15
            assert (world.last_day - days[-1]).days >= 2
            assert all((late - early).days >= 7 for early, late in pairwise(days))


def test_every_cause_is_planted_where_it_is_judged() -> None:
    truth = true_effects(effect_world(1, size=0.1).world)
    judged = truth[truth["stat_date"] >= pd.Timestamp(truth["stat_date"].min()) + pd.Timedelta(days=14)]
    size = judged["effect"].abs().groupby([judged["vendor"], judged["component"]]).sum()
    for vendor in ("smartlook", "inspectlet"):
        assert (size[vendor].drop("unexplained") > 50).all()
        assert size[vendor, "unexplained"] == 0


def test_half_of_the_experiments_are_broken() -> None:
    world = experiment_world(1, size=0.2).world
    broken = {story.site_key for story in world.stories}
    assert len(broken) == 2
    assert len(world.sites) == 4


def test_noise_is_what_a_perfect_ratio_leaves() -> None:
    scored = effect_world(1, size=0.05)
    noise = daily_noise(scored)
    truth = true_effects(scored.world)
    consent = truth[truth["component"] == "consent"].groupby(["site_key", "vendor", "metric"])["effect"].sum().abs()
    by_cell = noise.groupby(["site_key", "vendor", "metric"])["noise"]
    # Over all days nothing is left of it, on a day something is.
    assert (by_cell.sum().abs() < 1e-6).all()
    share = by_cell.apply(lambda one: one.abs().sum()) / consent
    assert ((share > 0.01) & (share < 0.8)).all()


# --- from the sandbox into the lake ----------------------------------------------------------------------------------


def test_what_is_fetched_is_what_is_true(tmp_path: Path) -> None:
    """The ends of the chain, read back from the lake that clients filled over HTTP."""
    site = invented_site("shop-t", "Europe/Berlin")
    first, last = FIRST_DAY, FIRST_DAY + timedelta(days=2)
    cap = Story(name="plan_cap", site_key=site.key, first_day=FIRST_DAY + timedelta(days=1), last_day=last,
                parameters={"vendor": "smartlook", "recordings_per_day": 10}, text="")  # fmt: skip
    world = generate(seed=2, first_day=first, days=3, sites=[site], scale=0.3, stories=[cap])
    fill_home(tmp_path, [ScoredWorld(purpose="breaks", world=world)])
    truth = true_effects(world).drop_duplicates(["stat_date", "vendor", "metric"])
    truth = truth[truth["metric"] == "sessions"]

    def rows_of(vendor: str, table: str, columns: str, rest: str = "order by 1") -> list[tuple[Any, ...]]:
        files = f"{tmp_path}/lake/{vendor}/{table}/site=shop-t/*/part.parquet"
        sql = f"select {columns} from read_parquet('{files}', hive_partitioning = false) {rest}"
        return duckdb.execute(sql).fetchall()

    anchor = rows_of("pirsch", "daily_stats", "stat_date, sessions")
    assert [row[1] for row in anchor] == truth[truth["vendor"] == "smartlook"]["anchor_value"].tolist()
    for vendor in ("smartlook", "inspectlet"):
        started = f"cast(started_at at time zone 'UTC' at time zone '{site.timezone}' as date)"
        inside = f"where {started} between '{first}' and '{last}' group by 1 order by 1"
        rows = rows_of(vendor, "sessions", f"{started} as on_date, count(*)", inside)
        assert [row[1] for row in rows] == truth[truth["vendor"] == vendor]["vendor_value"].tolist()
