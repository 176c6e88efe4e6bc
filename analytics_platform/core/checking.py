"""Checking one table of one site over a range of days: the suites, the vendor's own checks, the page about it.

Belongs here: what a check reads and leaves behind, as one function that may run in any process (`core.beside`). Does
not belong here: the rules (`core.checks`, `core.vendor_checks`), Dagster results and what a failure keeps from the
marts (`core.ingest`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from analytics_platform.core.checks import PartitionProfile, SuiteOutcome, run_suites, warm_up
from analytics_platform.core.data_docs import DataDocs, Validated, warm_up_pages
from analytics_platform.core.lake import Lake
from analytics_platform.core.tables import TableSpec
from analytics_platform.core.vendor_checks import VendorCheck

__all__ = ["Checked", "ToCheck", "check_partitions", "prepare_checking", "write_index"]


@dataclass(frozen=True, kw_only=True)
class ToCheck:
    """What is to be checked. It can be pickled, with functions by their names.

    Args:
        days: ascending; their partitions are in the lake.
        profiles: of the partitions just written.
        history: rows a day before the range.
        checks: the vendor's own for this table.
        docs: root of the Data Docs.
    """

    spec: TableSpec
    site: str
    days: Sequence[date]
    profiles: Sequence[PartitionProfile]
    history: Mapping[date, int]
    checks: Sequence[VendorCheck]
    lake: Path
    docs: Path
    run_id: str


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What came of it: the outcomes, and the address of the page that shows them."""

    outcomes: tuple[SuiteOutcome, ...]
    page: str


def check_partitions(what: ToCheck) -> Checked:
    """Run every check on the rows of the lake and write their page.

    Raises:
        StorageError: the disk refuses the page.
    """
    frame = Lake(what.lake).frame(what.spec, what.site, what.days)
    docs = DataDocs(what.docs)
    pages: list[str] = []
    about = Validated(table=what.spec.qualified_name, site=what.site, days=what.days, run_id=what.run_id)
    suites = run_suites(
        what.spec, frame, what.profiles, what.history, show=lambda results: pages.append(docs.write(about, results))
    )
    return Checked(outcomes=(*suites, *(_as_outcome(check, frame) for check in what.checks)), page=pages[-1])


def _as_outcome(check: VendorCheck, frame: Any) -> SuiteOutcome:
    finding = check.run(frame)
    return SuiteOutcome(
        name=check.name,
        blocking=check.blocking,
        passed=finding.passed,
        failing_days=finding.failing_days,
        description=finding.description,
        metrics=finding.metrics,
        table=(),
    )


def write_index(docs: Path) -> None:
    """Replace the list of all pages. Raises StorageError where the disk refuses."""
    DataDocs(docs).write_index()


def prepare_checking() -> None:
    """Import and build once what every check of a process needs: seconds that a run need not wait for."""
    warm_up()
    warm_up_pages()
