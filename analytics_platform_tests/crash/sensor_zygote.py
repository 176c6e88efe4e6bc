# ruff: noqa: T201  (standard output is the protocol)
"""A process that has loaded the sensor's definitions once and forks once a command: a daemon's life costs a fork.

Belongs here: what the sensor daemon does (its own iteration: evaluate, reserve run ids, create runs, submit them to the
queue), killed at one of its own crash points. Does not belong here: what must hold afterwards (`test_sensor_kill`).

Reads one JSON object a line, `{"environment": {…}, "ticks": n, "kill": "RUN_CREATED:2"}`; the child does so many ticks,
each half a minute after the one before by Dagster's clock, or is killed at the n-th pass of that point; the parent
answers with the child's wait status (`exit:0`, `signal:9`). Runs are queued and nobody takes them from the queue.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import traceback
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.test_utils import freeze_time
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.sensor import execute_sensor_iteration

from analytics_platform.core.automation import vendor_automation
from analytics_platform.core.ingest import vendor_assets
from analytics_platform.core.resources import PlatformResource
from analytics_platform.settings import load_settings
from analytics_platform.vendors import all_tables, streams_of, vendor_resource

VENDOR = "inspectlet"
SENSOR = f"{VENDOR}_quota_reset_sensor"


def _definitions() -> dg.Definitions:
    settings, streams = load_settings(), streams_of(VENDOR)
    automation = vendor_automation(VENDOR, streams, settings, all_tables(), daily_at=(3, 12))
    return dg.Definitions(
        assets=vendor_assets(streams, settings=settings, specs_by_name=all_tables()),
        jobs=automation.jobs,
        sensors=automation.sensors,
        resources={"platform": PlatformResource(), VENDOR: vendor_resource(VENDOR)},
    )


definitions = _definitions()


class CrashPoints(dict[str, Any]):
    """Dagster's own crash points: the signal at the n-th pass of one of them."""

    def __init__(self, point: str) -> None:
        self._name, _, number = point.partition(":")
        self._number = int(number or 1)
        self._passed: Counter[str] = Counter()
        super().__init__({self._name: signal.SIGKILL} if point else {})

    def get(self, key: str, default: Any = None) -> Any:
        self._passed[key] += 1
        return signal.SIGKILL if key == self._name and self._passed[key] == self._number else default


def _target() -> InProcessWorkspaceLoadTarget:
    origin = LoadableTargetOrigin(executable_path=sys.executable, module_name=__name__, attribute="definitions")
    return InProcessWorkspaceLoadTarget(InProcessCodeLocationOrigin(origin, location_name="platform"))


def live(ticks: int, kill: str, begins_at: datetime) -> None:
    """A daemon's life."""
    points: Any = {SENSOR: CrashPoints(kill)} if kill else None
    with dg.DagsterInstance.get() as instance, WorkspaceProcessContext(instance, _target()) as workspace:
        (location,) = workspace.create_request_context().code_locations
        (repository,) = location.get_repositories().values()
        sensor = repository.get_sensor(SENSOR)
        if not instance.all_instigator_state():
            instance.start_sensor(sensor)
        for number in range(ticks):
            with freeze_time(begins_at + timedelta(seconds=31 * number)):
                errors = execute_sensor_iteration(
                    workspace, logging.getLogger("daemon"), None, None, debug_crash_flags=points
                )
                assert not [error for error in errors if error is not None]


def main() -> None:
    """Answer commands until the end of standard input."""
    definitions.get_repository_def().load_all_definitions()
    print("ready", flush=True)
    begins_at = datetime.now(UTC)
    for line in sys.stdin:
        command = json.loads(line)
        begins_at += timedelta(minutes=5)
        child = os.fork()
        if child == 0:
            os.environ.update(command["environment"])
            code = 1
            try:
                live(command["ticks"], command["kill"], begins_at)
                code = 0
            except BaseException:  # a child must not go on reading commands
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        answer = os.waitstatus_to_exitcode(status)
        print(f"signal:{-answer}" if answer < 0 else f"exit:{answer}", flush=True)


if __name__ == "__main__":
    main()
