"""Vendors beside each other: what they bring, what becomes of a lane that is killed, of its parent, of a Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_platform.core.lake import Lake
from analytics_platform.dagster_home import instance
from analytics_platform.lanes import VendorJob, _Order, lanes_for
from analytics_platform.runner import Runner, VendorResult
from analytics_platform.settings import Home, load_settings
from analytics_platform.vendors import all_tables
from analytics_platform_tests.conftest import DAYS, FIRST_DAY, House

LAST_DAY = FIRST_DAY + timedelta(days=DAYS - 1)
VENDORS = ("inspectlet", "smartlook", "kameleoon")
UPSTREAM = {"kameleoon": {"inspectlet", "smartlook"}}

# A process without other threads, which may fork: what `run` does, and the pids of its lanes on the first line.
_RUN = """
import json, os, sys, dataclasses
from datetime import date
from analytics_platform.dagster_home import instance
from analytics_platform.lanes import Lanes
from analytics_platform.runner import Runner, RunReport
from analytics_platform.settings import load_settings
settings = load_settings()
first, last = map(date.fromisoformat, sys.argv[2:4])
with Lanes(settings, int(sys.argv[1])) as lanes, instance(settings) as opened:
    print(json.dumps([os.getpid(), *lanes.pids]), flush=True)
    runner = Runner(settings, opened)
    for item in runner.run(first, last, vendors=sys.argv[4:], sites=settings.site_keys, marts=False, lanes=lanes):
        if not isinstance(item, RunReport):
            print(json.dumps(dataclasses.asdict(item)), flush=True)
"""


@contextmanager
def running(*vendors: str, lanes: int = 2) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    command = [sys.executable, "-c", _RUN, str(lanes), str(FIRST_DAY), str(LAST_DAY), *vendors]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        try:
            yield run, json.loads(run.stdout.readline())
        finally:
            if run.poll() is None:
                run.kill()


def results_of(run: subprocess.Popen[str]) -> dict[tuple[str, str], VendorResult]:
    assert run.stdout is not None
    results = [VendorResult(**json.loads(line)) for line in run.stdout]
    return {(result.vendor, result.site): result for result in results}


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def wait_until_gone(*pids: int) -> None:
    until = time.monotonic() + 60
    while not all(is_gone(pid) for pid in pids):
        assert time.monotonic() < until, "a lane outlived its parent"
        time.sleep(0.05)


def rows_in_lake(home: Home) -> dict[str, int]:
    lake = Lake(home.lake)
    counts: dict[str, int] = {}
    for name, spec in all_tables().items():
        for site in load_settings().site_keys:
            counts[f"{name} {site}"] = sum(lake.row_counts(spec, site, lake.days(spec, site)).values())
    return {name: rows for name, rows in counts.items() if rows}


def run_statuses() -> dict[str, list[dg.DagsterRunStatus]]:
    with instance(load_settings()) as opened:
        statuses: dict[str, list[dg.DagsterRunStatus]] = {}
        for run in opened.get_runs():
            statuses.setdefault(run.tags["vendor"], []).append(run.status)
    return statuses


def test_several_vendors_bring_what_they_bring_one_after_the_other(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kameleoon reads the codes of visitors in the rows of two others: begun before them it would bring nothing."""
    with running(*VENDORS) as (run, pids):
        beside = results_of(run)
    assert run.returncode == 0
    assert {result.state for result in beside.values()} == {"done"}
    with instance(house.settings) as opened:
        pid_of_run = {
            (found.tags["vendor"], found.tags["site"], entry.dagster_event.pid)
            for found in opened.get_runs()
            for entry in opened.all_logs(found.run_id, of_type=dg.DagsterEventType.STEP_START)
            if entry.dagster_event is not None
        }
    assert {pid for _, _, pid in pid_of_run} == set(pids[1:])
    found = rows_in_lake(house.settings.home)
    assert sum(rows for name, rows in found.items() if name.startswith("kameleoon/visits ")) > 0

    monkeypatch.setenv("ANALYTICS_PLATFORM_HOME", str(tmp_path / "one_after_the_other"))
    settings = load_settings()
    with instance(settings) as opened:
        *results, _ = Runner(settings, opened).run(
            FIRST_DAY, LAST_DAY, vendors=VENDORS, sites=settings.site_keys, marts=False
        )
    assert rows_in_lake(settings.home) == found
    for each in results:
        assert isinstance(each, VendorResult)
        mine = beside[each.vendor, each.site]
        assert (mine.partitions, mine.rows, mine.failed_checks) == (each.partitions, each.rows, each.failed_checks)


def test_one_that_is_killed_fails_its_vendor_and_nobody_else(house: House) -> None:
    with running("inspectlet", "smartlook", "pirsch") as (run, (_, first, second)):
        os.kill(first, signal.SIGKILL)
        results = results_of(run)
    assert run.returncode == 0
    wait_until_gone(first, second)
    failed = {key: result.message for key, result in results.items() if result.state != "done"}
    assert list(failed) == [("inspectlet", house.settings.site_keys[0])]
    (message,) = failed.values()
    assert message.startswith("its process was ended by SIGKILL")
    assert len(results) == 3 * len(house.settings.site_keys)


def test_what_no_lane_is_left_to_do_is_done_here(house: House) -> None:
    with running("inspectlet", "smartlook") as (run, (parent, first, second)):
        for lane in (first, second):
            os.kill(lane, signal.SIGKILL)
        results = results_of(run)
    states = [result.state for result in results.values()]
    assert (states.count("failed"), states.count("done")) == (2, len(states) - 2)
    with instance(house.settings) as opened:
        pids = {
            entry.dagster_event.pid
            for found in opened.get_runs()
            for entry in opened.all_logs(found.run_id, of_type=dg.DagsterEventType.STEP_SUCCESS)
            if entry.dagster_event is not None
        }
    assert pids == {parent}


def wait_for_a_page(home: Home) -> None:
    until = time.monotonic() + 60
    while not any(path.is_file() for path in home.landing.rglob("*")):
        assert time.monotonic() < until, "no lane began"
        time.sleep(0.01)


def test_they_end_with_a_parent_that_is_killed(house: House) -> None:
    with running("inspectlet", "smartlook") as (run, lanes):
        wait_for_a_page(house.settings.home)
        run.kill()
        run.wait()
        wait_until_gone(*lanes)


@pytest.mark.parametrize("lanes", [0, 2])
def test_an_interrupt_ends_each_run(house: House, lanes: int) -> None:
    """Ctrl-C: Dagster would try the step again half a minute later, and go on with the others at once."""
    with running("inspectlet", "smartlook", lanes=lanes) as (run, pids):
        wait_for_a_page(house.settings.home)
        run.send_signal(signal.SIGINT)
        assert run.wait(20) != 0
        wait_until_gone(*pids)
    statuses = {status for listed in run_statuses().values() for status in listed}
    assert statuses <= {dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS}
    assert dg.DagsterRunStatus.FAILURE in statuses


def test_a_process_with_other_threads_is_not_forked(house: House) -> None:
    """The sandbox of this test is one."""
    with lanes_for(house.settings, VENDORS) as lanes:
        assert lanes.count == 0


JOBS = st.lists(
    st.tuples(st.sampled_from(["inspectlet", "smartlook", "kameleoon", "pirsch"]), st.sampled_from(["shop", "blog"])),
    unique=True,
    max_size=8,
)


@given(pairs=JOBS, lanes=st.integers(1, 4), pick=st.randoms(use_true_random=False))
def test_every_job_is_begun_once_and_none_before_what_it_reads(
    pairs: list[tuple[str, str]], lanes: int, pick: object
) -> None:
    jobs = [
        VendorJob(vendor=vendor, site=site, first_day=date(2026, 10, 5), last_day=date(2026, 10, 5))
        for vendor, site in pairs
    ]
    order = _Order(jobs, UPSTREAM)
    working: list[VendorJob] = []
    ended: list[VendorJob] = []
    while True:
        while len(working) < lanes and (job := order.next()) is not None:
            assert job.vendor not in {each.vendor for each in working}
            for each in jobs:
                if each.site == job.site and each.vendor in UPSTREAM.get(job.vendor, ()):
                    assert each in ended
            working.append(job)
        if not working:
            break
        done = working.pop(pick.randrange(len(working)))  # type: ignore[attr-defined]
        order.ended(done)
        ended.append(done)
    assert sorted(ended, key=str) == sorted(jobs, key=str)
    assert order.waiting == []
