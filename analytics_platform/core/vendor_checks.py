"""Checks one vendor needs beyond what its table declarations imply.

Belongs here: the value types of `vendors/<v>/checks.py`. Does not belong here: rules every table has
(`core.checks`), Dagster.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Finding", "VendorCheck"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found: numbers and days, never a row's value."""

    passed: bool
    description: str
    failing_days: tuple[date, ...] = ()
    metrics: Mapping[str, int | float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class VendorCheck:
    """A named rule over one table's rows of one site and range of days.

    Args:
        table: the table's name without its vendor.
        blocking: whether failing days stay out of the marts.
        run: gets the frame with exactly the table's columns; it may be empty.
    """

    table: str
    name: str
    description: str
    blocking: bool
    run: Callable[[pd.DataFrame], Finding]
