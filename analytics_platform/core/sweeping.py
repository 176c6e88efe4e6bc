"""After runs that were killed: their processes end, their pool slots are free, Dagster knows that they failed.

Belongs here: what the next run (or the UI) does about the notes of dead runs. Does not belong here: how a dead run is
told from a living one (`core.run_notes`), runs that are merely slow (Dagster's run monitoring has a limit for them).

Why: the process that runs the steps frees their slots; killed, it cannot. Dagster frees the slots of runs that *ended*,
but a run that was killed with its daemon stays "started" for ever (RELIABILITY M11), keeps the only slot of the
warehouse, and its dbt goes on writing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from analytics_platform.core.run_notes import DeadRun, dead_runs

if TYPE_CHECKING:
    import dagster as dg

__all__ = ["sweep_killed_runs"]


def sweep_killed_runs(instance: dg.DagsterInstance, notes: Path) -> list[str]:
    """Fail the runs whose process is gone, free what they hold, end what they left. Their ids, in no order.

    Args:
        notes: the folder of `RunNote`s of the home that the instance belongs to.
    """
    if not instance.is_persistent:
        return []  # it knows no run but its own; those of the home's other instances are not its business
    with dead_runs(notes) as found:
        for dead in found:
            _sweep(instance, dead)
        return [dead.run_id for dead in found]


def _sweep(instance: dg.DagsterInstance, dead: DeadRun) -> None:
    # First the process: whoever gets the slot may expect to be alone.
    ended = dead.child is not None and dead.child.end()
    run = instance.get_run_by_id(dead.run_id)
    if run is not None and not run.is_finished:
        left = " The dbt it had started was still running and has been stopped." if ended else ""
        instance.report_run_failed(run, f"The process of this run was killed.{left} Start it again; nothing is lost.")
    instance.event_log_storage.free_concurrency_slots_for_run(dead.run_id)
