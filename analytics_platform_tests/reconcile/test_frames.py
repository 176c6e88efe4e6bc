"""The frames the dbt Python models return: columns, types, days, order."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analytics_platform.reconcile.frames import baselines, stretches

DAYS = pd.date_range("2026-10-01", periods=40)


def reconciliation_days(values: list[float], *, skip: tuple[int, ...] = ()) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "site_key": "s",
            "metric": "sessions",
            "vendor": "one",
            "stat_date": DAYS[: len(values)],
            "value": pd.array(values, dtype="Int64"),
            "anchor_value": pd.array([1000] * len(values), dtype="Int64"),
            "is_comparable": [number not in skip for number in range(len(values))],
        }
    )


def acceptance_days(by_country: dict[str, list[float]], *, untagged: tuple[int, ...] = ()) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {
                "vendor": "one",
                "site_key": "s",
                "country_bucket": country,
                "stat_date": DAYS[: len(values)],
                "sessions": values,
                "anchor_sessions": 1000.0,
                "is_training": [number not in untagged for number in range(len(values))],
            }
        )
        for country, values in by_country.items()
    ]
    return pd.concat(parts, ignore_index=True)


def test_a_break_begins_a_baseline_and_its_first_two_days_confirm_it() -> None:
    found = baselines(reconciliation_days([800.0] * 20 + [400.0] * 20))
    assert found["baseline_start_date"].unique().tolist() == [DAYS[0], DAYS[20]]
    assert found.loc[found["is_break_day"], "stat_date"].tolist() == [DAYS[20], DAYS[21]]
    assert found["change_point_date"].isna().tolist() == [True] * 20 + [False] * 20
    assert np.isclose(found["change_share"].iloc[20], -0.5, atol=0.01)


def test_days_that_cannot_be_compared_are_left_out_and_a_break_lands_on_the_next() -> None:
    found = baselines(reconciliation_days([800.0] * 20 + [400.0] * 20, skip=(20, 30)))
    assert len(found) == 38
    assert found.loc[found["is_break_day"], "stat_date"].tolist() == [DAYS[21], DAYS[22]]


def test_empty_frames_keep_their_columns_and_types() -> None:
    nothing = baselines(reconciliation_days([]))
    assert (len(nothing), str(nothing.dtypes["is_break_day"])) == (0, "bool")
    assert str(nothing.dtypes["stat_date"]).startswith("datetime64")
    assert list(stretches(acceptance_days({"DE": []})).columns) == [
        "vendor",
        "site_key",
        "country_bucket",
        "stat_date",
        "stretch_start_date",
        "site_factor",
    ]


def test_the_order_of_rows_changes_nothing() -> None:
    days = reconciliation_days([800.0] * 20 + [400.0] * 20)
    pd.testing.assert_frame_equal(baselines(days), baselines(days.sample(frac=1, random_state=3)))


def test_a_country_begins_a_stretch_of_its_own() -> None:
    found = stretches(acceptance_days({"DE": [800.0] * 30, "FR": [800.0] * 12 + [350.0] * 18, "AT": [800.0] * 30}))
    starts = {
        country: rows["stretch_start_date"].unique().tolist() for country, rows in found.groupby("country_bucket")
    }
    assert starts == {"DE": [DAYS[0]], "AT": [DAYS[0]], "FR": [DAYS[0], DAYS[12]]}
    assert found["site_factor"].unique().tolist() == [1.0]


def test_a_day_without_its_tag_joins_the_stretch_before_it() -> None:
    found = stretches(acceptance_days({"DE": [800.0] * 10 + [1.0] * 2 + [800.0] * 10}, untagged=(10, 11)))
    assert found["stretch_start_date"].unique().tolist() == [DAYS[0]]
    assert len(found) == 22


def test_what_all_countries_lose_together_is_a_factor_and_no_stretch() -> None:
    values = [800.0] * 12 + [480.0] * 5 + [800.0] * 10
    found = stretches(acceptance_days({"DE": values, "FR": values, "AT": values}))
    assert found["stretch_start_date"].unique().tolist() == [DAYS[0]]
    by_day = found.groupby("stat_date")["site_factor"].first().round(2).tolist()
    assert by_day == [1.0] * 12 + [0.6] * 5 + [1.0] * 10
