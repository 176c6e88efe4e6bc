"""One seed from its worlds to its figures, for a process of its own.

Belongs here: the order of the steps, the judged models, keeping a filled home. Does not belong here: the steps
themselves, several seeds (`__main__`, whose functions another process cannot import).
"""

from __future__ import annotations

import shutil
import time
from hashlib import sha256
from pathlib import Path
from typing import Final

from analytics_platform.vendors import all_tables
from analytics_platform_tests.score.figures import SeedFigures, read_figures
from analytics_platform_tests.score.marts import build_warehouse, fill_home, has_model
from analytics_platform_tests.score.worlds import fingerprint_of, worlds_of

__all__ = ["MODELS", "score_seed"]

MODELS: Final = (
    "fct_vendor_reconciliation",
    "fct_reconciliation_waterfall",
    "fct_experiment_results_daily",
    "int_session_overlap",
)
"""The judged models; one that is not in the project yet is left out and named."""

_NAMES_SESSIONS: Final = "fct_sessions"


def score_seed(seed: int, *, folder: Path, size: float) -> SeedFigures:
    """Worlds, home, warehouse and figures of one seed."""
    begun = time.monotonic()
    worlds = worlds_of(seed, size=size)
    seconds = {"worlds": time.monotonic() - begun}
    home, fingerprint = folder / f"seed-{seed}", f"{fingerprint_of(worlds)} {_schema()}"
    filled = home / "filled"
    if not filled.exists() or filled.read_text(encoding="utf-8") != fingerprint:
        begun = time.monotonic()
        shutil.rmtree(home, ignore_errors=True)
        fill_home(home, worlds)
        filled.write_text(fingerprint, encoding="utf-8")
        seconds["fetching"] = time.monotonic() - begun
    begun = time.monotonic()
    models = [model for model in MODELS if has_model(model)]
    warehouse = build_warehouse(home, worlds, [*models, _NAMES_SESSIONS])
    seconds["dbt"] = time.monotonic() - begun
    begun = time.monotonic()
    figures = read_figures(warehouse, worlds, models, seed)
    figures.seconds = {**seconds, "comparing": time.monotonic() - begun}
    return figures


def _schema() -> str:
    """Changes when the lake's tables do: a home filled before is not what the models expect."""
    tables = sorted(all_tables().items())
    told = [(name, [(column.name, column.type) for column in spec.all_columns]) for name, spec in tables]
    return sha256(repr(told).encode()).hexdigest()
