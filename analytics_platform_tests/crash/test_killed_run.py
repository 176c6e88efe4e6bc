"""kill -9 of a run that holds the warehouse's only slot and has a process at work: the next run finds neither.

RELIABILITY M11. The run is a small one in a process of its own, on a home with Dagster's SQLite storage; what it
holds and what it leaves are those of the transform step: the pool `warehouse`, and a child that `PlatformResource` was
told of.
"""

# No `from __future__ import annotations` here: Dagster reads the type of an asset's `context` parameter.

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

import dagster as dg
import pytest

from analytics_platform.core.resources import PlatformResource
from analytics_platform.core.run_notes import Child, RunNote, dead_runs
from analytics_platform.dagster_home import instance
from analytics_platform.settings import Settings, load_settings
from analytics_platform.transform.assets import WAREHOUSE_POOL

pytestmark = [pytest.mark.timeout(120)]

CHILD = "import sys; print('up', flush=True); sys.stdin.read()"

WORKER = f"""
import subprocess, sys
import dagster as dg
from analytics_platform.core.resources import PlatformResource
from analytics_platform.dagster_home import instance
from analytics_platform.settings import load_settings

@dg.asset(pool={WAREHOUSE_POOL!r}, required_resource_keys={{"platform"}})
def building(context) -> None:
    child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdin=open(sys.argv[1]), stdout=subprocess.PIPE)
    child.stdout.readline()
    context.resources.platform.note_child(child.pid)
    print(context.run_id, child.pid, flush=True)
    child.wait()

with instance(load_settings()) as opened:
    dg.materialize([building], instance=opened, resources={{"platform": PlatformResource()}})
"""

LEFT = """
import os, sys
from pathlib import Path
from analytics_platform.core.run_notes import RunNote
note = RunNote.open(Path(sys.argv[1]), sys.argv[2])
os._exit(9)
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("ANALYTICS_PLATFORM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DAGSTER_HOME", "")
    return load_settings()


@contextmanager
def killed_run(fifo: Path) -> Iterator[tuple[str, Child]]:
    """The id of a run that was killed in the middle of its step, and the process it left, which would run for ever."""
    os.mkfifo(fifo)
    with (
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", WORKER, str(fifo)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ) as worker,
        fifo.open("w"),
    ):  # nothing is ever written: what the run left waits
        run_id, pid = _read(worker.stdout).split()
        left = Child.of(int(pid))
        assert left is not None
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        yield run_id, left


def _read(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline()


@dg.asset(pool=WAREHOUSE_POOL, required_resource_keys={"platform"})
def next_one(context: dg.AssetExecutionContext) -> None:
    """Wants the slot."""


def test_the_next_run_gets_the_slot_of_a_killed_one_and_is_alone(settings: Settings, tmp_path: Path) -> None:
    with killed_run(tmp_path / "fifo") as (run_id, left), instance(settings) as opened:
        assert left.is_alive
        assert opened.get_run_by_id(run_id).status == dg.DagsterRunStatus.STARTED  # type: ignore[union-attr]
        assert run_id in opened.event_log_storage.get_concurrency_run_ids()
        result = dg.materialize([next_one], instance=opened, resources={"platform": PlatformResource()})
        assert result.success
        assert not left.is_alive
        assert opened.get_run_by_id(run_id).status == dg.DagsterRunStatus.FAILURE  # type: ignore[union-attr]
        assert opened.event_log_storage.get_concurrency_run_ids() == set()
        failure = opened.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE)[-1].dagster_event
        assert failure is not None
        assert "was killed" in str(failure.message)
    assert list(settings.home.running.iterdir()) == [], "a run that ended leaves no note either"


def test_a_living_run_and_one_of_another_host_are_left_alone(tmp_path: Path) -> None:
    living = RunNote.open(tmp_path, "living")
    (tmp_path / "elsewhere").write_text('{"host": "another host", "child": null}', encoding="utf-8")
    (tmp_path / "torn").write_text('{"host": "anot', encoding="utf-8")
    with dead_runs(tmp_path) as found:
        assert found == []
    living.close()
    assert {path.name for path in tmp_path.iterdir()} == {"elsewhere", "torn"}


def test_a_dead_run_is_given_to_one_caller_and_forgotten_when_that_one_is_done(tmp_path: Path) -> None:
    _leave_note(tmp_path, "dead")
    with dead_runs(tmp_path) as found:
        assert [dead.run_id for dead in found] == ["dead"]
        with dead_runs(tmp_path) as again:
            assert again == []
    assert list(tmp_path.iterdir()) == []


def test_a_dead_run_is_kept_for_another_try_where_the_sweep_fails(tmp_path: Path) -> None:
    _leave_note(tmp_path, "dead")

    def sweep() -> None:
        with dead_runs(tmp_path):
            raise RuntimeError("the database is away")

    with pytest.raises(RuntimeError, match="is away"):
        sweep()
    with dead_runs(tmp_path) as found:
        assert [dead.run_id for dead in found] == ["dead"]


def test_only_the_very_process_is_ended() -> None:
    """A number that was used again is somebody else's process."""
    with subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        child = Child.of(process.pid)
        assert child is not None
        for other in (
            replace(child, started_ticks=child.started_ticks - 1),
            replace(child, boot_id="00000000-0000-0000-0000-000000000000"),
        ):
            assert not other.end()
        assert process.poll() is None
        assert child.end()
        assert process.wait() == -signal.SIGTERM
        assert not child.end()


def _leave_note(folder: Path, run_id: str) -> None:
    """The note of a process that is gone."""
    arguments = [sys.executable, "-c", LEFT, str(folder), run_id]
    assert subprocess.run(arguments, check=False).returncode == 9
