# ruff: noqa: T201  (standard output is the protocol)
"""A process that has imported Dagster and dbt and parsed the project once, and forks once a command.

Belongs here: running the real transform step to its end or to a kill inside dbt. Does not belong here: what must hold
afterwards (`test_dbt_kill`).

Reads one JSON object a line, `{"first_day", "last_day", "assets": […] or "vendors": […], "dbt": {…}, "environment":
{…}}`: a Dagster run of these assets, or what `analytics-platform run` does for these vendors. The child that answers it
is the leader of a process group of two, as in production: Dagster, and the dbt that Dagster starts.
dbt is a fork too (with the arguments, the environment and the folder dagster-dbt gives it), because starting and
parsing are 6 of its 8 seconds. In `dbt`: `trace` names a file for one JSON line a statement, `kill` the label of the
statement before which (with `during`: in the middle of which) `victim` gets SIGKILL: "group" or only "dbt", `pause` the
label of the one before which the FIFO `paused` is opened to say so, and the FIFO `resume` to wait. Only the first dbt
of a run is treated so; a run may start a second, and pauses before it at the latest; one that starts none, at its end.

A label is `<node> <what>`, with `#n` from the second time on: two threads run models in an order that changes, but each
model's own statements come in the same order. `delete …; insert …`, which dbt sends as one, count as two.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import dagster as dg
import dagster_dbt.core.dbt_cli_invocation as invocations
import dbt.adapters.duckdb.environments.local as local
import duckdb
from dbt.cli.main import dbtRunner
from dbt_common.events.contextvars import get_node_info
from dbt_common.events.functions import reset_metadata_vars

import analytics_platform.transform.assets as transform_assets
from analytics_platform.core.resources import PlatformResource
from analytics_platform.runner import Runner, RunReport
from analytics_platform.settings import load_settings
from analytics_platform.transform import transform_definitions
from analytics_platform.transform.project import PROJECT_DIRECTORY, keep_parsed

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


# ------------------------------------------------------------------------------------------------------------------ dbt


class Statements:
    """Names every statement dbt sends, and sends the signal at the one that was asked for."""

    def __init__(self, wanted: Mapping[str, Any]) -> None:
        self._kill = wanted.get("kill")
        self._during = bool(wanted.get("during"))
        self._victim = wanted.get("victim", "group")
        self._wanted = wanted
        self._trace = open(wanted["trace"], "a", buffering=1) if "trace" in wanted else None  # noqa: SIM115, PTH123
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._here = threading.local()

    def install(self) -> None:
        wrapper: Any = local.DuckDBCursorWrapper
        original = wrapper.execute

        def execute(cursor: Any, sql: str, bindings: Any = None) -> Any:
            result = None
            for statement in _split(sql):
                label = self._label(statement)
                begun = time.monotonic()
                self._at(label)
                result = original(cursor, statement, bindings)
                if self._trace is not None:
                    self._trace.write(json.dumps([label, time.monotonic() - begun]) + "\n")
            return result

        wrapper.execute = execute

    def _label(self, sql: str) -> str:
        words = _COMMENT.sub(" ", sql).lower().split()
        # What is sent outside of a node belongs to the one before it in the thread.
        self._here.node = get_node_info().get("node_name") or getattr(self._here, "node", "start")
        what = " ".join(words[:2])
        label = f"{self._here.node} {what}"
        with self._lock:
            self._seen[label] += 1
            return label if self._seen[label] == 1 else f"{label} #{self._seen[label]}"

    def _at(self, label: str) -> None:
        if label == self._wanted.get("pause"):
            pause(self._wanted)
        if label != self._kill:
            return
        if self._during:
            # DuckDB lets go of the interpreter while it works, so this thread runs in the middle of the statement.
            threading.Thread(target=self._die).start()
        else:
            self._die()

    def _die(self) -> None:
        if self._victim == "group":
            os.killpg(os.getpgrp(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def pause(wanted: Mapping[str, Any]) -> None:
    """Once a run: say so and wait."""
    fifo = wanted["paused"]
    try:
        os.rename(fifo, f"{fifo}.taken")  # noqa: PTH104
    except FileNotFoundError:
        return
    for name, mode in ((f"{fifo}.taken", "w"), (wanted["resume"], "r")):
        with open(name, mode):  # noqa: PTH123
            pass


def _split(sql: str) -> list[str]:
    """Statements one by one where dbt sends two of a transaction together: a window's delete and insert, a table with a
    contract and its rows.
    """
    if _COMMENT.sub("", sql).lstrip().lower().startswith(("delete from", "create or replace table")):
        return [statement.query for statement in duckdb.extract_statements(sql)]
    return [sql]


class ForkedDbt:
    """What dagster-dbt uses of Popen, on a dbt that was forked before Dagster started a thread."""

    def __init__(self, wanted: Mapping[str, Any], manifest: Any) -> None:
        read_order, self._order = os.pipe()
        output, write_output = os.pipe()
        self.args: Sequence[str] = ()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._order)
            os.close(output)
            os.dup2(write_output, 1)
            os.dup2(write_output, 2)
            os._exit(_dbt(read_order, wanted, manifest))
        os.close(read_order)
        os.close(write_output)
        self.stdout: IO[bytes] = os.fdopen(output, "rb")

    def start(self, args: Sequence[str], *, env: Mapping[str, str], cwd: object, **_: object) -> ForkedDbt:
        """What Popen's constructor does: the order is given now."""
        self.args = args
        order = {"args": list(args), "env": dict(env), "cwd": str(cwd)}
        os.write(self._order, json.dumps(order).encode() + b"\n")
        os.close(self._order)
        return self

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            _, status = os.waitpid(self.pid, 0)
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def popen(waiting: list[ForkedDbt], wanted: Mapping[str, Any]) -> Any:
    """Stands for the class Popen while the run lasts."""

    def start(args: Sequence[str], **options: Any) -> ForkedDbt:
        if len(waiting) == 1 and "pause" in wanted:
            pause(wanted)
        return waiting.pop(0).start(args, **options)

    return start


def _dbt(order_from: int, wanted: Mapping[str, Any], manifest: Any) -> int:
    with os.fdopen(order_from) as orders:
        line = orders.readline()
    if not line:
        return 0  # the run needed no dbt
    order = json.loads(line)
    os.environ.clear()
    os.environ.update(order["env"])
    reset_metadata_vars()  # read once a process, and this one was forked from one that had no window
    os.chdir(order["cwd"])
    sys.argv = order["args"]
    if wanted:
        Statements(wanted).install()
    result = dbtRunner(manifest=manifest).invoke(order["args"][1:])
    if result.exception is not None:
        print(result.exception)
    sys.stdout.flush()
    return 0 if result.success else 1


def parsed() -> Any:
    """The project's manifest for this home: what every dbt start would make of it again."""
    arguments = ["parse", "--project-dir", str(PROJECT_DIRECTORY), "--profiles-dir", str(PROJECT_DIRECTORY)]
    arguments += ["--quiet", "--log-level-file", "none", "--target-path", os.environ["DBT_PARSE_TARGET"]]
    with transform_assets._dbt_environment(load_settings(), (date(2026, 1, 1), date(2026, 1, 1))):
        result = dbtRunner().invoke(arguments)
    assert result.success, result.exception
    keep_parsed(load_settings(), Path(os.environ["DBT_PARSE_TARGET"]))
    return result.result


# -------------------------------------------------------------------------------------------------------------- Dagster


def run(job: dg.JobDefinition, command: Mapping[str, Any]) -> dict[str, Any]:
    """The transform step as a run of these assets over these days; what came of it in words."""
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(
            asset_selection=[dg.AssetKey(name) for name in command["assets"]] or None,
            instance=instance,
            raise_on_error=False,
            tags={
                "dagster/asset_partition_range_start": command["first_day"],
                "dagster/asset_partition_range_end": command["last_day"],
            },
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
    failures = [
        str(event.step_failure_data.user_failure_data.description)
        if event.step_failure_data.user_failure_data
        else str(event.step_failure_data.error)
        for event in result.all_events
        if event.is_step_failure
    ]
    return {"success": result.success, "failures": failures}


def run_as_the_command_does(command: Mapping[str, Any]) -> dict[str, Any]:
    """`analytics-platform run` for these vendors, marts included."""
    settings = load_settings()
    with dg.DagsterInstance.ephemeral() as instance:
        *_, report = Runner(settings, instance).run(
            date.fromisoformat(command["first_day"]),
            date.fromisoformat(command["last_day"]),
            vendors=command["vendors"],
            sites=settings.site_keys,
        )
    assert isinstance(report, RunReport)
    return {
        "success": not report.failed,
        "failures": [text for text in (report.marts_message, *(v.message for v in report.vendors)) if text],
        "requests": report.requests,
        "marts": report.marts,
        "vendors": [result.state for result in report.vendors],
    }


def main() -> None:
    """Answer commands until the end of standard input."""
    protocol = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what dbt prints is not an answer
    definitions = dg.Definitions.merge(
        transform_definitions(load_settings()),
        dg.Definitions(resources={"platform": PlatformResource()}, executor=dg.in_process_executor),
    )
    job = definitions.resolve_implicit_global_asset_job_def()
    manifest = parsed()
    assert threading.active_count() == 1, "a fork would lose threads"
    print("ready", file=protocol, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            os.close(read)
            answer: dict[str, Any] = {"success": False, "failures": ["the child did not get as far as the run"]}
            waiting: list[ForkedDbt] = []
            wanted = command.get("dbt", {})
            try:
                os.environ.update(command.get("environment", {}))
                waiting += [ForkedDbt(wanted, manifest), ForkedDbt({}, manifest)]
                # dagster-dbt's view of the module alone: whoever else starts a process gets the real one.
                shim = SimpleNamespace(Popen=popen(waiting, wanted), PIPE=subprocess.PIPE, STDOUT=subprocess.STDOUT)
                vars(invocations)["subprocess"] = shim
                answer = run_as_the_command_does(command) if "vendors" in command else run(job, command)
            except BaseException:  # a child must not go on reading commands
                answer["failures"] = [traceback.format_exc()]
            finally:
                if "pause" in wanted:
                    pause(wanted)  # whoever waits for it must not wait for ever
                answer["dbt_runs"] = 2 - len(waiting)
                os.write(write, json.dumps(answer).encode())
                os._exit(0)
        os.close(write)
        with os.fdopen(read) as answers:
            found = answers.read()
        _, status = os.waitpid(child, 0)
        answered = json.loads(found) if found else {"success": False, "failures": []}
        answered["status"] = os.waitstatus_to_exitcode(status)
        print(json.dumps(answered), file=protocol, flush=True)


if __name__ == "__main__":
    main()
