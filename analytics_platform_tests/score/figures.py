"""What the marts say beside what is true, as figures with targets.

Belongs here: reading the judged marts, comparing, pooling over seeds, the targets. Does not belong here: making worlds
and warehouses (`worlds`, `marts`), printing (`report`).

A component's error is counted by day: the sum over site, vendor and day of |estimated - injected|, as a share of the
sum of |injected|. The remainder is judged net: |sum over a site's and vendor's days| as a share of the gap, because by
day the noise of consent alone is more than what is allowed of it; both are shown. Days count from the 15th of a world
on; before, no mart has the history it asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import duckdb
import pandas as pd

from analytics_platform.sandbox.effects import COMPONENTS, session_owners, true_effects
from analytics_platform_tests.score.noise import daily_noise
from analytics_platform_tests.score.worlds import ScoredWorld

__all__ = [
    "Breaks",
    "ComponentFigure",
    "Experiments",
    "Overlap",
    "SeedFigures",
    "Verdict",
    "compare_components",
    "judge",
    "match_breaks",
    "read_figures",
]

TRAINING_DAYS: Final = 14
ERROR_SHARE_BELOW: Final = 0.20
REMAINDER_SHARE_BELOW: Final = 0.03
BREAKS_AT_LEAST: Final = 0.95
OVERLAP_AT_LEAST: Final = 0.98
SRM_P_BELOW: Final = 1e-3
NEGLIGIBLE_SHARE: Final = 0.002
"""A component that moves less than this share of the anchor in all is shown and not judged."""

_KEYS: Final = ["site_key", "stat_date", "vendor", "metric", "component"]


@dataclass(frozen=True, kw_only=True)
class ComponentFigure:
    """Sums over the days of one site, vendor, metric and component.

    Attributes:
        injected, estimated: sums of the signed effects.
        injected_size: sum over days of |injected|; `error` of |estimated - injected|.
        gap_size, anchor: sums over days of |vendor - anchor| and of the anchor.
        effects_size: sum over days and components of |injected|.
        noise: sum over days of what a perfect estimator would leave (see `noise`), of the remainder only.
        days, days_without: days compared, and how many the mart has no row for (counted as an estimate of 0).
    """

    site_key: str
    vendor: str
    metric: str
    component: str
    injected: float
    estimated: float
    injected_size: float
    estimated_size: float
    error: float
    gap_size: float
    effects_size: float
    anchor: float
    noise: float
    days: int
    days_without: int


@dataclass(frozen=True, kw_only=True)
class Breaks:
    """Planted and found breaks as (site, vendor, day), of one metric."""

    metric: str
    planted: tuple[tuple[str, str, str], ...]
    found: tuple[tuple[str, str, str], ...]

    @property
    def right(self) -> int:
        """Found on the planted day."""
        return len(set(self.planted) & set(self.found))

    @property
    def right_within_a_day(self) -> int:
        """Planted ones with one found at most a day off."""
        return sum(
            any((site, vendor, _shifted(day, by)) in set(self.found) for by in (-1, 0, 1))
            for site, vendor, day in self.planted
        )


@dataclass(frozen=True, kw_only=True)
class Experiments:
    """Sites whose split is broken, those a mart calls broken, and how many were judged."""

    broken: tuple[str, ...]
    called_broken: tuple[str, ...]
    judged: int


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Pairs the mart made, how many of them are one visitor, and how many pairs there are to make."""

    pairs: int
    right: int
    possible: int


@dataclass(kw_only=True)
class SeedFigures:
    """Everything about one seed; None where the mart is not there yet."""

    seed: int
    components: list[ComponentFigure] | None = None
    breaks: list[Breaks] | None = None
    experiments: Experiments | None = None
    overlap: Overlap | None = None
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One judged figure. `held` is None where there was nothing to judge."""

    what: str
    figure: str
    target: str
    held: bool | None


# --- one seed --------------------------------------------------------------------------------------------------------


def read_figures(warehouse: Path, worlds: Sequence[ScoredWorld], models: Iterable[str], seed: int) -> SeedFigures:
    """Compare the warehouse with the worlds it was made of; `models` are those that were built."""
    built = set(models)
    by_purpose = {scored.purpose: scored for scored in worlds}
    figures = SeedFigures(seed=seed)
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        if "fct_reconciliation_waterfall" in built:
            scored = by_purpose["effects"]
            figures.components = compare_components(
                true_effects(scored.world, profiles=scored.profiles),
                _waterfall(connection),
                scored.world.first_day,
                noise=daily_noise(scored),
            )
        if "fct_vendor_reconciliation" in built:
            figures.breaks = _breaks(connection, by_purpose["breaks"])
        if "fct_experiment_results_daily" in built:
            figures.experiments = _experiments(connection, by_purpose["experiments"])
        if "int_session_overlap" in built:
            figures.overlap = _overlap(connection, worlds)
    return figures


def compare_components(
    truth: pd.DataFrame, estimated: pd.DataFrame, first_day: date, *, noise: pd.DataFrame
) -> list[ComponentFigure]:
    """Figures of each site, vendor, metric and component of the truth.

    Args:
        truth: as `true_effects` returns it.
        estimated: site_key, stat_date (datetime64), vendor, metric, component, effect.
        first_day: of the world; training days are left out.
        noise: as `daily_noise` returns it.
    """
    judged_from = pd.Timestamp(first_day + timedelta(days=TRAINING_DAYS))
    judged = truth[truth["stat_date"] >= judged_from]
    judged_noise = noise[noise["stat_date"].between(judged_from, judged["stat_date"].max())]
    noise_of = judged_noise["noise"].abs().groupby([judged_noise[name] for name in ("site_key", "vendor", "metric")])
    noise_size = noise_of.sum().to_dict()
    both = judged.merge(
        estimated.rename(columns={"effect": "estimated"})[[*_KEYS, "estimated"]],
        on=_KEYS, how="left", validate="one_to_one",
    )  # fmt: skip
    both["is_missing"] = both["estimated"].isna()
    both["estimated"] = both["estimated"].fillna(0.0).astype(float)
    figures = []
    for (site, vendor, metric), cell in both.groupby(["site_key", "vendor", "metric"], sort=True):
        one_a_day = cell.drop_duplicates("stat_date")
        gap = (one_a_day["vendor_value"] - one_a_day["anchor_value"]).abs().sum()
        for component in COMPONENTS:
            rows = cell[cell["component"] == component]
            figures.append(
                ComponentFigure(
                    site_key=str(site),
                    vendor=str(vendor),
                    metric=str(metric),
                    component=component,
                    injected=float(rows["effect"].sum()),
                    estimated=float(rows["estimated"].sum()),
                    injected_size=float(rows["effect"].abs().sum()),
                    estimated_size=float(rows["estimated"].abs().sum()),
                    error=float((rows["estimated"] - rows["effect"]).abs().sum()),
                    gap_size=float(gap),
                    effects_size=float(cell["effect"].abs().sum()),
                    anchor=float(one_a_day["anchor_value"].sum()),
                    noise=float(noise_size.get((site, vendor, metric), 0.0)) if component == "unexplained" else 0.0,
                    days=len(rows),
                    days_without=int(rows["is_missing"].sum()),
                )
            )
    return figures


def _waterfall(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    frame: pd.DataFrame = connection.sql(
        """
        select site_key, cast(stat_date as timestamp) as stat_date, vendor, metric, component,
               sum(cast(effect as double)) as effect
        from fct_reconciliation_waterfall
        group by all
        """
    ).df()
    return frame.astype({"stat_date": "datetime64[s]"})


def _breaks(connection: duckdb.DuckDBPyConnection, scored: ScoredWorld) -> list[Breaks]:
    sites = [site.key for site in scored.world.sites]
    found = connection.execute(
        """
        select distinct metric, site_key, vendor, cast(change_point_date as varchar) as change_point_date
        from fct_vendor_reconciliation
        where status = 'break' and change_point_date is not null and list_contains(?, site_key)
        """,
        [sites],
    ).fetchall()
    return [
        match_breaks(scored, metric, [row[1:] for row in found if row[0] == metric])
        for metric in ("sessions", "views", "visitors")
    ]


def match_breaks(scored: ScoredWorld, metric: str, found: Iterable[Sequence[Any]]) -> Breaks:
    """Planted are the first day of every large loss, and the first day after it: the ratio comes back as it went."""
    planted = []
    for story in scored.world.stories:
        if story.name == "ratio_break" and story.parameters["lost_share"] >= 0.35:
            vendor = str(story.parameters["vendor"])
            planted.append((story.site_key, vendor, story.first_day.isoformat()))
            if story.last_day < scored.world.last_day:
                planted.append((story.site_key, vendor, (story.last_day + timedelta(days=1)).isoformat()))
    return Breaks(
        metric=metric,
        planted=tuple(sorted(planted)),
        found=tuple(sorted((str(site), str(vendor), str(day)) for site, vendor, day in found)),
    )


def _shifted(day: str, by: int) -> str:
    return (date.fromisoformat(day) + timedelta(days=by)).isoformat()


def _experiments(connection: duckdb.DuckDBPyConnection, scored: ScoredWorld) -> Experiments:
    """A site's experiment by its newest day."""
    sites = [site.key for site in scored.world.sites]
    newest = connection.execute(
        """
        select site_key, min(srm_p) as srm_p
        from fct_experiment_results_daily
        where list_contains(?, site_key) and srm_p is not null
        group by site_key, stat_date
        qualify row_number() over (partition by site_key order by stat_date desc) = 1
        """,
        [sites],
    ).fetchall()
    return Experiments(
        broken=tuple(sorted(s.site_key for s in scored.world.stories if s.name == "broken_split")),
        called_broken=tuple(sorted(site for site, p in newest if p < SRM_P_BELOW)),
        judged=len(newest),
    )


def _overlap(connection: duckdb.DuckDBPyConnection, worlds: Sequence[ScoredWorld]) -> Overlap:
    owners = pd.concat([session_owners(scored.world, profiles=scored.profiles) for scored in worlds])
    connection.register("owners", owners)
    ((pairs, right),) = connection.execute(
        """
        with owned as (
            select sessions.session_key, owners.visitor_id
            from fct_sessions as sessions
            inner join owners
                on sessions.vendor = owners.vendor and sessions.site_key = owners.site_key
                and sessions.vendor_session_id = owners.vendor_session_id
        )
        select count(*), count(*) filter (one.visitor_id = other.visitor_id)
        from int_session_overlap as pairs
        inner join owned as one on pairs.left_session_key = one.session_key
        inner join owned as other on pairs.right_session_key = other.session_key
        """
    ).fetchall()
    # Two recordings of one visit: the same visitor, begun at most two minutes apart.
    ((possible,),) = connection.execute(
        """
        select count(distinct (one.site_key, one.vendor_session_id))
        from owners as one
        inner join owners as other
            on one.site_key = other.site_key and one.visitor_id = other.visitor_id
            and one.vendor = 'smartlook' and other.vendor = 'inspectlet'
            and abs(one.start_ms - other.start_ms) <= 120000
        """
    ).fetchall()
    return Overlap(pairs=int(pairs), right=int(right), possible=int(possible))


# --- all seeds -------------------------------------------------------------------------------------------------------


def pooled(figures: Iterable[ComponentFigure], by: Sequence[str]) -> pd.DataFrame:
    """Sums over everything but `by`, with `error_share` and `net_error_share` (None where nothing was injected)."""
    frame = pd.DataFrame([vars(figure) for figure in figures])
    sums = [name for name in frame.columns if name not in ("site_key", "vendor", "metric", "component")]
    frame["net_error"] = (frame["estimated"] - frame["injected"]).abs()
    total = frame.groupby(list(by), sort=False)[[*sums, "net_error"]].sum().reset_index()
    total["error_share"] = total["error"] / total["injected_size"].where(total["injected_size"] > 0)
    total["net_error_share"] = total["net_error"] / total["injected_size"].where(total["injected_size"] > 0)
    return total


def judge(seeds: Sequence[SeedFigures]) -> list[Verdict]:
    """Every target, in order."""
    return [*_judge_components(seeds), *_judge_breaks(seeds), *_judge_experiments(seeds), *_judge_overlap(seeds)]


def _judge_components(seeds: Sequence[SeedFigures]) -> list[Verdict]:
    every = [figure for seed in seeds for figure in seed.components or ()]
    if not every:
        return [_missing("waterfall components", "fct_reconciliation_waterfall")]
    verdicts = []
    for row in pooled(every, ["component", "metric"]).to_dict("records"):
        if row["component"] == "unexplained":
            continue
        is_small = row["injected_size"] < NEGLIGIBLE_SHARE * row["anchor"]
        verdicts.append(
            Verdict(
                what=f"{row['component']}, {row['metric']}",
                figure="nothing injected" if is_small else f"{row['error_share']:.1%}",
                target=f"error < {ERROR_SHARE_BELOW:.0%} of injected",
                held=None if is_small else bool(row["error_share"] < ERROR_SHARE_BELOW),
            )
        )
    for row in pooled(every, ["component", "metric"]).to_dict("records"):
        if row["component"] == "unexplained":
            share = row["net_error"] / row["gap_size"]
            verdicts.append(
                Verdict(
                    what=f"remainder, {row['metric']}",
                    figure=f"{share:.1%} net, {row['error'] / row['gap_size']:.1%} by day"
                    f" (noise alone {row['noise'] / row['gap_size']:.1%})",
                    target=f"< {REMAINDER_SHARE_BELOW:.0%} of the gap",
                    held=bool(share < REMAINDER_SHARE_BELOW),
                )
            )
    return verdicts


def _judge_breaks(seeds: Sequence[SeedFigures]) -> list[Verdict]:
    every = [found for seed in seeds for found in seed.breaks or () if found.metric == "sessions"]
    if not every:
        return [_missing("breaks", "fct_vendor_reconciliation")]
    planted, found = (sum(len(set(getattr(one, name))) for one in every) for name in ("planted", "found"))
    right = sum(one.right for one in every)
    shares = {"recall": right / planted, "precision": right / found if found else 0.0}
    return [
        Verdict(
            what=f"breaks of sessions, {name}",
            figure=f"{share:.3f} ({right} of {planted if name == 'recall' else found})",
            target=f"at least {BREAKS_AT_LEAST}, day and vendor right",
            held=share >= BREAKS_AT_LEAST,
        )
        for name, share in shares.items()
    ]


def _judge_experiments(seeds: Sequence[SeedFigures]) -> list[Verdict]:
    every = [seed.experiments for seed in seeds if seed.experiments is not None]
    if not every:
        return [_missing("experiments with a broken split", "fct_experiment_results_daily")]
    broken = {site for one in every for site in one.broken}
    called = {site for one in every for site in one.called_broken}
    judged = sum(one.judged for one in every)
    return [
        Verdict(
            what="experiments with a broken split",
            figure=f"{len(broken & called)} of {len(broken)} found",
            target="all",
            held=broken <= called,
        ),
        Verdict(
            what="healthy experiments called broken",
            figure=f"{len(called - broken)} of {judged - len(broken)}",
            target="none",
            held=called <= broken and judged > len(broken),
        ),
    ]


def _judge_overlap(seeds: Sequence[SeedFigures]) -> list[Verdict]:
    every = [seed.overlap for seed in seeds if seed.overlap is not None]
    if not every:
        return [_missing("session overlap", "int_session_overlap")]
    pairs, right, possible = (sum(getattr(one, name) for one in every) for name in ("pairs", "right", "possible"))
    precision = right / pairs if pairs else 0.0
    return [
        Verdict(
            what="session overlap, precision",
            figure=f"{precision:.4f} ({right} of {pairs} pairs; {possible} could be made)",
            target=f"at least {OVERLAP_AT_LEAST}",
            held=precision >= OVERLAP_AT_LEAST,
        )
    ]


def _missing(what: str, model: str) -> Verdict:
    return Verdict(what=what, figure=f"the model {model} is not there", target="", held=None)
