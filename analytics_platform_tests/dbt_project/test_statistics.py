"""The statistics macros against numbers that were not computed with them."""

from __future__ import annotations

import itertools
import math
from typing import Any

import duckdb
import jinja2
import pytest

from analytics_platform_tests.dbt_project.conftest import PROJECT

_TEXT = (PROJECT / "macros" / "statistics.sql").read_text()
MACROS: Any = jinja2.Environment(extensions=["jinja2.ext.do"], autoescape=False).from_string(_TEXT).module
ENGINE = duckdb.connect()


def value(sql: str, **columns: float | None) -> float | None:
    given = ", ".join(f"CAST(? AS {'BIGINT' if name == 'df' else 'DOUBLE'}) AS {name}" for name in columns)
    found: float | None = ENGINE.execute(f"SELECT {sql} FROM (SELECT {given})", list(columns.values())).fetchall()[0][0]
    return found


@pytest.mark.parametrize("z", [0.0, 1e-6, 0.1, 0.5, 1.0, 2.0, 3.5, 6.0, 12.0, 25.0])
def test_erfc_keeps_seven_digits_into_the_tail(z: float) -> None:
    found = value(str(MACROS.erfc("z")), z=z)
    assert found == pytest.approx(math.erfc(z), rel=2e-7)


@pytest.mark.parametrize(
    ("statistic", "degrees", "probability"),
    [  # NIST/SEMATECH e-Handbook of Statistical Methods, table 1.3.6.7.4 (upper critical values)
        (2.706, 1, 0.10), (3.841, 1, 0.05), (10.828, 1, 0.001), (5.991, 2, 0.05), (13.816, 2, 0.001),
        (7.815, 3, 0.05), (9.488, 4, 0.05), (11.070, 5, 0.05), (24.322, 7, 0.001), (18.307, 10, 0.05),
        (27.877, 9, 0.001), (43.773, 30, 0.05), (124.342, 100, 0.05),
    ],
)  # fmt: skip
def test_chi_square_is_the_tables(statistic: float, degrees: int, probability: float) -> None:
    found = value(str(MACROS.chi2_survival("x", "df")), x=statistic, df=degrees)
    assert found == pytest.approx(probability, rel=2e-3)


@pytest.mark.parametrize("degrees", [1, 2, 3, 6, 11])
def test_chi_square_falls_from_one_to_nothing(degrees: int) -> None:
    found = [value(str(MACROS.chi2_survival("x", "df")), x=x, df=degrees) for x in (0.0, 0.5, 5.0, 50.0, 500.0, 1400.0)]
    assert found[0] == 1.0
    assert all(a is not None and b is not None and a > b >= 0 for a, b in itertools.pairwise(found))


@pytest.mark.parametrize(("statistic", "degrees"), [(None, 2), (3.0, None), (3.0, 0)])
def test_no_statistic_no_probability(statistic: float | None, degrees: int | None) -> None:
    assert value(str(MACROS.chi2_survival("x", "df")), x=statistic, df=degrees) is None


def test_an_uneven_split_of_a_published_case_is_as_unlikely() -> None:
    """Fabijan et al. (KDD 2019), a planned half: 821,588 against 815,482 visitors, p = 1.8e-6."""
    expected = (821_588 + 815_482) / 2
    statistic = ((821_588 - expected) ** 2 + (815_482 - expected) ** 2) / expected
    assert value(str(MACROS.chi2_survival("x", "df")), x=statistic, df=1) == pytest.approx(1.8e-6, rel=0.05)


def test_a_normal_statistic_has_two_sides() -> None:
    assert value(str(MACROS.normal_two_sided("z")), z=-1.959964) == pytest.approx(0.05, rel=1e-5)
    assert value(str(MACROS.normal_two_sided("z")), z=1.959964) == pytest.approx(0.05, rel=1e-5)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # Newcombe (1998), Statistics in Medicine 17, table I, method 3
        (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718),
    ],
)  # fmt: skip
def test_wilson_is_newcombes_table(successes: int, trials: int, low: float, high: float) -> None:
    columns = {"x": float(successes), "n": float(trials)}
    assert value(str(MACROS.wilson("x", "n", -1)), **columns) == pytest.approx(low, abs=6e-5)
    assert value(str(MACROS.wilson("x", "n", 1)), **columns) == pytest.approx(high, abs=6e-5)


def test_nobody_has_no_interval() -> None:
    assert value(str(MACROS.wilson("x", "n", 1)), x=0.0, n=0.0) is None
