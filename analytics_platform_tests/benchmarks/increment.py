"""One day's fetch and decode on homes that hold 10 thousand to 100 million rows already.

Belongs here: making such homes, measuring the day. Does not belong here: dbt's share of it (its own benchmark).

The rows before are synthetic: one real Parquet file of a day, linked into each of the days before, with a sealed batch
in landing for each, so that whatever looks at all of them pays for all of them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.vendors.smartlook.tables import SESSIONS
from analytics_platform_tests.benchmarks.pipes import SITE, STREAM, fetched
from analytics_platform_tests.benchmarks.server import Served, serving

__all__ = ["increments"]

_ROWS_A_DAY = 100_000
_PAGES = 10


def increments(sizes: Sequence[int], *, times: int) -> dict[int, list[tuple[float, float]]]:
    """Wall and CPU seconds of the new day by rows already there, the sizes in turn."""
    found: dict[int, list[tuple[float, float]]] = {size: [] for size in sizes}
    with tempfile.TemporaryDirectory(prefix="increment-") as folder, serving(pages=_PAGES) as vendor:
        homes = {size: _home(Path(folder), size, vendor) for size in sizes}
        fetched(vendor.base_url, Path(folder) / "warm", vendor.world)
        for _ in range(times):
            for size in sizes:
                found[size].append(_one_day(homes[size], vendor))
    return found


def _one_day(home: Path, vendor: Served) -> tuple[float, float]:
    for kept in ("landing", "lake"):
        for path in (home / kept / "smartlook" / "sessions" / f"site={SITE.key}").glob(f"day={vendor.world.last_day}"):
            shutil.rmtree(path)
    begun, cpu = time.perf_counter(), sum(os.times()[:4])
    outcome = fetched(vendor.base_url, home, vendor.world)
    took = time.perf_counter() - begun, sum(os.times()[:4]) - cpu
    if outcome.error is not None or sum(p.rows for day in outcome.decoded.values() for p in day) != vendor.world.rows:
        raise SystemExit(f"the day did not arrive whole: {outcome.error}")
    return took


def _home(folder: Path, rows: int, vendor: Served) -> Path:
    """A home with so many rows in days before the newest."""
    home = folder / str(rows)
    per_day = min(rows, _ROWS_A_DAY)
    lake, landing = Lake(home / "lake"), Landing(home / "landing")
    model = _model(folder, per_day, vendor)
    for back in range(1, max(1, rows // per_day) + 1):
        day = vendor.world.last_day - timedelta(days=back)
        path = lake.partition_path(SESSIONS, SITE.key, day)
        path.parent.mkdir(parents=True)
        os.link(model, path)
        with landing.open_batch(
            vendor=STREAM.vendor, stream=STREAM.name, site=SITE.key, first_day=day, last_day=day, run_id="synthetic"
        ) as batch:
            batch.complete()
    return home


def _model(folder: Path, rows: int, vendor: Served) -> Path:
    """A real partition of so many rows."""
    model = folder / f"model-{rows}.parquet"
    if not model.exists():
        home = folder / f"model-{rows}"
        with serving(pages=rows // 1_000) as other:
            fetched(other.base_url, home, other.world)
        os.link(Lake(home / "lake").partition_path(SESSIONS, SITE.key, vendor.world.last_day), model)
    return model
