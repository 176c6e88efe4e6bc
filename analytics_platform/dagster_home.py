"""DAGSTER_HOME of a platform home: its dagster.yaml, and the instance on it.

Belongs here: instance settings and why each is there. Does not belong here: definitions, schedules.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from analytics_platform.core.durable import write_file
from analytics_platform.settings import Settings

if TYPE_CHECKING:
    import dagster as dg

__all__ = ["instance", "prepare_dagster_home"]

# Postgres by URL keeps the explicit driver: a bare postgresql:// means another driver to newer SQLAlchemy (PRACTICE
# guard 6).
_POSTGRES: Final = """\
storage:
  postgres:
    postgres_url: {env: ANALYTICS_PLATFORM_DATABASE_URL}
"""

_SQLITE: Final = """\
# The stock class with its connections kept open: a range of days is four times quicker to record (see
# dagster_storage.py).
event_log_storage:
  module: analytics_platform.dagster_storage
  class: KeptSqliteEventLogStorage
  config: {base_dir: "%s"}
"""

_INSTANCE: Final = """\
# Written by analytics_platform; edit analytics_platform/dagster_home.py, not this file.
telemetry: {enabled: false}
nux: {enabled: false}
# One slot for whoever writes the warehouse, at op granularity: with `run` the guard is silently absent inside a run.
concurrency:
  pools: {granularity: op, default_limit: 1}
  runs: {max_concurrent_runs: 4}
run_monitoring:
  enabled: true
  poll_interval_seconds: 30
  start_timeout_seconds: 120
  max_runtime_seconds: 3600
  # A killed run would keep its pool slot for ever.
  free_slots_after_run_end_seconds: 60
run_retries:
  enabled: true
  max_retries: 1
  # A step that failed for good must not come back as a new run.
  retry_on_asset_or_op_failure: false
"""


_UNCAPTURED: Final = {
    "compute_logs": {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
        "config": {},
    }
}


def prepare_dagster_home(settings: Settings) -> None:
    """Write dagster.yaml where it is missing or differs, and point DAGSTER_HOME of this process (and its children)
    at it.
    """
    home = settings.home.dagster
    storage = _POSTGRES if settings.database_url else _SQLITE % (home / "history" / "runs")
    content = (_INSTANCE + storage).encode()
    path = home / "dagster.yaml"
    if not path.is_file() or path.read_bytes() != content:
        write_file(path, content)
    os.environ["DAGSTER_HOME"] = str(home)
    # `telemetry: enabled: false` does not stop the daemon from posting what lies in DAGSTER_HOME/logs; this does.
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "yes"
    # A range of days ends in hundreds of materialisations at once: record them in one transaction, not one by one.
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")
    # Step code imports numpy and pandas; more threads than cores only fight each other.
    os.environ.setdefault("OMP_NUM_THREADS", "2")


def instance(settings: Settings) -> dg.DagsterInstance:
    """The instance on this home, for runs in this process. Use as a context manager.

    What they print stays on this process's own output. Capturing it for the UI, as runs that the UI starts do, takes
    two processes that follow a file and two that watch them, for each run.
    """
    import dagster as dg
    from dagster._core.instance.ref import InstanceRef

    prepare_dagster_home(settings)
    return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(settings.home.dagster), overrides=_UNCAPTURED))
