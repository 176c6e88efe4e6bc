"""The process beside a run: it does what it can, and nobody notices what it cannot."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from datetime import date
from multiprocessing import Pipe
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import TypeVar

import pytest

from analytics_platform.core.beside import Beside, Line, asked
from analytics_platform.core.checking import ToCheck, check_partitions, prepare_checking
from analytics_platform.core.checks import PartitionProfile
from analytics_platform.core.lake import Lake
from analytics_platform.vendors import all_tables, vendor_names
from analytics_platform_tests.vendors.lake_frames import checks_of, tables_of

T = TypeVar("T")


def _nothing() -> None:
    pass


@pytest.fixture
def beside() -> Iterator[Beside]:
    with Beside() as process:
        process.begin(_nothing, then=_nothing)
        yield process


def test_it_answers_in_order_from_a_process_of_its_own(beside: Beside) -> None:
    answers = [asked(os.getpid), asked(int, "7"), asked(int, "ff", 16)]
    assert [answer() for answer in answers] == [beside.pid, 7, 255]


def test_what_would_want_the_same_processor_begins_when_it_is_ready() -> None:
    """Also where what it was to do first failed."""
    for first in (_nothing, os.abort):
        begun = threading.Event()
        with Beside() as process:
            process.begin(first, then=begun.set)
            assert begun.wait(60)


def test_without_one_the_caller_does_it_when_the_answer_is_wanted(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    answer = asked(os.mkdir, folder)
    assert not folder.exists()
    answer()
    assert folder.is_dir()


def test_what_it_cannot_do_fails_as_it_would_here(beside: Beside) -> None:
    """Also after a failure it goes on."""
    with pytest.raises(ValueError, match="invalid literal"):
        asked(int, "seven")()
    assert asked(os.getpid)() == beside.pid


def test_what_cannot_travel_is_done_here(beside: Beside) -> None:
    here = []
    asked(lambda: here.append(os.getpid()))()
    assert here == [os.getpid()]
    assert asked(os.getpid)() == beside.pid


def test_one_that_was_killed_is_done_without(beside: Beside) -> None:
    begun = [asked(os.getpid) for _ in range(3)]
    assert beside.pid is not None
    begun[0]()
    os.kill(beside.pid, signal.SIGKILL)
    pid = asked(os.getpid)
    assert pid() in (os.getpid(), beside.pid)
    assert beside._process is not None
    beside._process.wait()
    assert asked(os.getpid)() == os.getpid()


def test_it_ends_with_the_run_and_with_its_parent() -> None:
    with Beside() as process:
        process.begin(_nothing, then=_nothing)
        asked(_nothing)()
    assert process._process is not None
    assert process._process.poll() is not None
    with Beside() as orphan:
        orphan.begin(_nothing, then=_nothing)
        asked(_nothing)()
        assert orphan._line is not None
        orphan._line._connection.close()  # what the kernel does for a parent that was killed
        assert orphan._process is not None
        assert orphan._process.wait(60) == 0
        assert asked(os.getpid)() == os.getpid()


def test_processes_forked_before_it_ask_over_their_own_lines() -> None:
    """They are answered between the run's own calls, and one that ends takes nothing with it."""
    pipes = [Pipe() for _ in range(2)]
    with Beside(guests=[theirs for _, theirs in pipes]) as process:
        process.begin(_nothing, then=_nothing)
        (first, _), (second, _) = pipes
        with Line(first) as guest:
            assert guest.call(os.getpid).result() == process.pid
        with Line(second) as guest:
            assert guest.call(int, "7").result() == 7
            assert asked(os.getpid)() == process.pid
            assert process._process is not None
            process._process.kill()
            process._process.wait()
            assert asked(os.getpid)() == os.getpid()
            assert not guest.is_there


def _sent(value: T) -> T:
    sent: T = ForkingPickler.loads(ForkingPickler.dumps(value))
    return sent


@pytest.mark.parametrize("vendor", vendor_names())
def test_every_check_of_every_table_can_travel(vendor: str) -> None:
    """Else the run would silently do it itself."""
    tables = tables_of(vendor)
    assert _sent(tables) == tables
    for check in checks_of(vendor):
        assert _sent(check).name == check.name


def test_a_check_says_the_same_there_and_here(tmp_path: Path) -> None:
    spec = all_tables()["pirsch/goals"]
    day = date(2026, 10, 26)
    what = ToCheck(
        spec=spec,
        site="shop",
        days=[day],
        profiles=[PartitionProfile(day=day, rows=0)],
        history={},
        checks=[check for check in checks_of("pirsch") if check.table == "goals"],
        lake=_lake(tmp_path, spec.qualified_name),
        docs=tmp_path / "docs",
        run_id="r1",
    )
    here = asked(check_partitions, what)()
    with Beside() as process:
        process.begin(prepare_checking, then=_nothing)
        assert process.call(check_partitions, what).result() == here
    assert (tmp_path / "docs" / "pirsch" / "goals" / "shop.html").is_file()


def _lake(folder: Path, table: str) -> Path:
    """A lake whose table has its anchor and no row."""
    lake = Lake(folder / "lake")
    lake.prepare([all_tables()[table]], None)
    return lake.root
