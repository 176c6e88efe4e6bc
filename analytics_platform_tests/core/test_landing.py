"""Landing: what was paid for stays, whatever was torn, flipped, cut or killed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.errors import LandingCorrupt, StorageError
from analytics_platform.core.landing import Batch, BatchWriter, Landing, PartitionBusy
from analytics_platform.core.paging import Page

NOON = datetime(2026, 10, 6, 12, tzinfo=UTC)
DAY = date(2026, 10, 5)
SECRET_CALL = "visitor/4f1d-personal"


def page(body: bytes, *, call: str = "sessions", sequence: int = 0, is_last: bool = False, records: int = 1) -> Page:
    return Page(
        call=call,
        call_kind="search",
        sequence=sequence,
        is_last=is_last,
        body=body,
        status=200,
        endpoint="GET /v1/sessions",
        received_at=NOON,
        context={"day": str(DAY)},
        records=records,
        attempts=1,
    )


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
def landing(tmp_path: Path, clock: ManualClock) -> Landing:
    return Landing(tmp_path / "landing", clock=clock)


def writer(landing: Landing, *, first: date = DAY, last: date = DAY, fresh: bool = False) -> BatchWriter:
    return landing.open_batch(
        vendor="acme", stream="sessions", site="shop", first_day=first, last_day=last, run_id="run-1234-x", fresh=fresh
    )


def batches(landing: Landing) -> list[Batch]:
    return landing.batches("acme", "sessions", "shop")


def bodies(batch: Batch) -> list[bytes]:
    return [body for _, body in batch.pages()]


def land(landing: Landing, *pages: Page, complete: bool = True, fresh: bool = False) -> Batch:
    with writer(landing, fresh=fresh) as batch:
        for item in pages:
            batch.append(item)
        if complete:
            batch.complete()
    return batches(landing)[-1]


# ------------------------------------------------------------------------------------------------------ append, reopen


def test_pages_come_back_in_order_as_received(landing: Landing) -> None:
    wanted = [b"", b"\x00\xff not json", b'{"a": 1}' * 1000]
    batch = land(landing, *(page(body, sequence=n, is_last=n == 2) for n, body in enumerate(wanted)))
    assert bodies(batch) == wanted
    assert (batch.is_complete, batch.page_count, batch.days) == (True, 3, [DAY])
    assert [line.context for line in batch.index()] == [{"day": "2026-10-05"}] * 3


def test_an_open_batch_covers_nothing_and_is_continued(landing: Landing) -> None:
    land(landing, page(b"1"), complete=False)
    assert landing.newest_complete("acme", "sessions", "shop", [DAY]) == {}
    with writer(landing) as batch:
        assert [line.sequence for line in batch.landed] == [0]
        assert (batch.landed_records, batch.appended_requests) == (1, 0)
        batch.append(page(b"2", sequence=1, is_last=True))
        batch.complete()
    (only,) = batches(landing)
    assert bodies(only) == [b"1", b"2"]


def test_done_calls_are_those_whose_last_page_landed(landing: Landing) -> None:
    with writer(landing) as batch:
        batch.append(page(b"1", call="a", is_last=True))
        batch.append(page(b"2", call="b", sequence=0))
        assert batch.done_calls == {"a"}
    with writer(landing) as batch:
        assert batch.done_calls == {"a"}


def test_fresh_begins_another_batch_and_the_newest_complete_one_wins(landing: Landing, clock: ManualClock) -> None:
    land(landing, page(b"old", is_last=True))
    clock.sleep(1)
    land(landing, page(b"new", is_last=True), fresh=True)
    clock.sleep(1)
    land(landing, page(b"unfinished"), complete=False, fresh=True)
    newest = landing.newest_complete("acme", "sessions", "shop", [DAY])
    assert bodies(newest[DAY]) == [b"new"]


def test_a_batch_of_a_range_covers_each_of_its_days_and_no_other(landing: Landing) -> None:
    with writer(landing, first=DAY, last=DAY + timedelta(days=2)) as batch:
        batch.complete()
    asked = [DAY + timedelta(days=n) for n in range(-1, 4)]
    assert sorted(landing.newest_complete("acme", "sessions", "shop", asked)) == asked[1:4]
    assert bodies(batches(landing)[0]) == []


def test_a_batch_knows_no_more_than_when_its_oldest_page_was_received(landing: Landing, clock: ManualClock) -> None:
    land(landing, page(b"1", call="a", is_last=True), complete=False)
    clock.sleep(3 * 86_400)
    with writer(landing) as batch:
        sealed = batch.complete()
    assert sealed.landed_at == NOON + timedelta(days=3)
    assert sealed.asked_since == NOON
    assert batches(landing)[0] == sealed


def test_foreign_folders_and_files_are_ignored(landing: Landing) -> None:
    land(landing, page(b"1", is_last=True))
    site = landing.root / "acme" / "sessions" / "site=shop"
    (site / "day=not-a-day").mkdir()
    (site / "lost+found").mkdir()
    (site / "day=2026-10-05" / ".DS_Store").write_bytes(b"")
    assert len(batches(landing)) == 1


# ----------------------------------------------------------------------------------------------------------- torn tail


def _cut_everywhere(landing: Landing, name: str) -> Iterator[tuple[int, Path]]:
    """The file's every length from empty to whole, restored before each cut."""
    (only,) = batches(landing)
    whole = {file: (only.path / file).read_bytes() for file in ("pages.bin", "pages.jsonl")}
    for length in range(len(whole[name]) + 1):
        for file, content in whole.items():
            (only.path / file).write_bytes(content if file != name else content[:length])
        yield length, only.path


@pytest.mark.parametrize("name", ["pages.bin", "pages.jsonl"])
def test_torn_at_every_byte_keeps_exactly_the_whole_pages(landing: Landing, name: str) -> None:
    wanted = [b"first page", b"second page, longer than the first", b"third"]
    land(landing, *(page(body, sequence=n) for n, body in enumerate(wanted)), complete=False)
    (only,) = batches(landing)
    lines = only.index()
    ends = (
        [line.offset + line.length for line in lines]
        if name == "pages.bin"
        else [n + 1 for n, byte in enumerate((only.path / name).read_bytes()) if byte == ord("\n")]
    )
    for length, path in _cut_everywhere(landing, name):
        whole_pages = sum(end <= length for end in ends)
        with writer(landing) as reopened:
            assert reopened.path == path
            assert len(reopened.landed) == whole_pages
            reopened.append(page(b"after the tear", sequence=whole_pages))
        assert bodies(only) == [*wanted[:whole_pages], b"after the tear"]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    content=st.lists(st.binary(max_size=200), min_size=1, max_size=5),
    cut_bin=st.floats(0, 1),
    cut_index=st.floats(0, 1),
    garbage=st.binary(max_size=40),
)
def test_a_torn_tail_never_yields_a_wrong_page(
    tmp_path_factory: pytest.TempPathFactory, content: list[bytes], cut_bin: float, cut_index: float, garbage: bytes
) -> None:
    landing = Landing(tmp_path_factory.mktemp("torn"), clock=ManualClock(NOON))
    land(landing, *(page(body, sequence=n) for n, body in enumerate(content)), complete=False)
    (only,) = batches(landing)
    for name, fraction, tail in (("pages.bin", cut_bin, b""), ("pages.jsonl", cut_index, garbage)):
        whole = (only.path / name).read_bytes()
        (only.path / name).write_bytes(whole[: round(len(whole) * fraction)] + tail)
    with writer(landing) as reopened:
        kept = len(reopened.landed)
        reopened.append(page(b"next", sequence=kept, is_last=True))
        reopened.complete()
    assert bodies(batches(landing)[0]) == [*content[:kept], b"next"]


# ---------------------------------------------------------------------------------------------------------- corruption


def _flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_any_flipped_byte_of_a_sealed_page_is_found(landing: Landing) -> None:
    batch = land(landing, page(b'{"sid": 1, "name": "a"}', is_last=True))
    pages = batch.path / "pages.bin"
    for at in range(pages.stat().st_size):
        _flip(pages, at)
        with pytest.raises(LandingCorrupt, match="sha256"):
            bodies(batch)
        _flip(pages, at)
    assert bodies(batch) == [b'{"sid": 1, "name": "a"}']


def test_any_flipped_byte_of_a_sealed_index_is_found(landing: Landing) -> None:
    batch = land(landing, page(b"1"), page(b"2", sequence=1, is_last=True))
    index = batch.path / "pages.jsonl"
    for at in range(index.stat().st_size):
        _flip(index, at)
        with pytest.raises(LandingCorrupt):
            batch.index()
        _flip(index, at)
    assert len(batch.index()) == 2


@pytest.mark.parametrize("keep_lines", [0, 1])
def test_a_sealed_index_with_missing_lines_is_corrupt(landing: Landing, keep_lines: int) -> None:
    batch = land(landing, page(b"1"), page(b"2", sequence=1, is_last=True))
    index = batch.path / "pages.jsonl"
    index.write_bytes(b"".join(index.read_bytes().splitlines(keepends=True)[:keep_lines]))
    with pytest.raises(LandingCorrupt, match=f"{keep_lines} of 2 pages"):
        bodies(batch)


@pytest.mark.parametrize("name", ["pages.bin", "pages.jsonl"])
def test_a_missing_file_of_a_sealed_batch_is_corrupt(landing: Landing, name: str) -> None:
    batch = land(landing, page(b"1", is_last=True))
    (batch.path / name).unlink()
    with pytest.raises(LandingCorrupt, match=r"missing|0 of 1"):
        bodies(batch)


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"\xff\xfe"])
def test_an_unreadable_seal_is_corrupt_not_open(landing: Landing, content: bytes) -> None:
    batch = land(landing, page(b"1", is_last=True))
    (batch.path / "batch.json").write_bytes(content)
    with pytest.raises(LandingCorrupt, match="seal"):
        batches(landing)


def test_a_message_names_the_place_and_no_identity(landing: Landing) -> None:
    batch = land(landing, page(b"1", call=SECRET_CALL, is_last=True))
    _flip(batch.path / "pages.bin", 8)
    with pytest.raises(LandingCorrupt) as caught:
        bodies(batch)
    assert "personal" not in str(caught.value)
    for part in ("vendor acme", "site shop", "day=2026-10-05", "Next:"):
        assert part in str(caught.value)


# ------------------------------------------------------------------------------------------------------------- locking

HOLD = """
    import sys, time
    from pathlib import Path
    from analytics_platform.core.landing import Landing
    with Landing(Path(sys.argv[1])).exclusive("acme", "sessions", "shop"):
        print("held", flush=True)
        sys.stdin.read()
"""


def test_the_lock_holds_across_processes_and_kill_9_frees_it(landing: Landing) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLD), str(landing.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder.stdin, holder.stdout:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(PartitionBusy, match="Another run"), landing.exclusive("acme", "sessions", "shop"):
            pytest.fail("two processes held one stream and site")
        with landing.exclusive("acme", "sessions", "blog"), landing.exclusive("acme", "visitors", "shop"):
            pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with landing.exclusive("acme", "sessions", "shop"):
        pass


def test_the_lock_is_not_reentrant_and_freed_by_an_error(landing: Landing) -> None:
    with landing.exclusive("acme", "sessions", "shop"), pytest.raises(PartitionBusy):
        landing.exclusive("acme", "sessions", "shop").__enter__()
    with pytest.raises(ZeroDivisionError), landing.exclusive("acme", "sessions", "shop"):
        raise ZeroDivisionError
    with landing.exclusive("acme", "sessions", "shop"):
        pass


# ---------------------------------------------------------------------------------------------------------- durability


class Trace:
    """The order of the calls that make bytes survive, by file name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, str]] = []
        write, fsync, rename = os.write, os.fsync, os.replace

        def traced_write(descriptor: int, data: bytes) -> int:
            self.calls.append(("write", self.name(descriptor)))
            return write(descriptor, data)

        def traced_fsync(descriptor: int) -> None:
            self.calls.append(("fsync", self.name(descriptor)))
            fsync(descriptor)

        def traced_replace(source: str, target: str) -> None:
            self.calls.append(("rename", f"{Path(source).name}>{Path(target).name}"))
            rename(source, target)

        monkeypatch.setattr(os, "write", traced_write)
        monkeypatch.setattr(os, "fsync", traced_fsync)
        monkeypatch.setattr(os, "replace", traced_replace)

    @staticmethod
    def name(descriptor: int) -> str:
        return Path(f"/proc/self/fd/{descriptor}").readlink().name

    def position(self, *call: str) -> int:
        return self.calls.index((call[0], call[1]))


def test_seal_order_is_write_fsync_rename_fsync_directory(landing: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = Trace(monkeypatch)
    with writer(landing) as batch:
        made = list(trace.calls)
        batch.append(page(b"1", is_last=True))
        trace.calls.clear()
        batch.complete()
        sealed = list(trace.calls)
        folder = batch.path.name
    temporary = f".batch.json.{os.getpid()}.tmp"
    assert sealed == [
        ("fsync", "pages.bin"),
        ("fsync", "pages.jsonl"),
        ("fsync", temporary),
        ("rename", f"{temporary}>batch.json"),
        ("fsync", folder),
    ]
    # Every new folder's name is durable in its parent, down from the root, before a page is written.
    assert [name for kind, name in made if kind == "fsync"][-5:] == [
        "acme",
        "sessions",
        "site=shop",
        "day=2026-10-05",
        folder,
    ]


def test_a_page_is_written_before_append_returns_and_bytes_before_the_line(
    landing: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writer(landing) as batch:
        trace = Trace(monkeypatch)
        batch.append(page(b"1"))
        assert trace.calls == [("write", "pages.bin"), ("write", "pages.jsonl")]
        assert (batch.path / "pages.jsonl").stat().st_size > 0


def test_pages_are_made_durable_every_64_pages_or_every_second(
    landing: Landing, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writer(landing) as batch:
        trace = Trace(monkeypatch)
        for n in range(63):
            batch.append(page(b"1", sequence=n))
        assert ("fsync", "pages.bin") not in trace.calls
        batch.append(page(b"1", sequence=63))
        assert trace.calls[-2:] == [("fsync", "pages.bin"), ("fsync", "pages.jsonl")]
        trace.calls.clear()
        clock.sleep(1)
        batch.append(page(b"1", sequence=64))
        assert trace.calls[-2:] == [("fsync", "pages.bin"), ("fsync", "pages.jsonl")]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_full_or_read_only_disk_is_a_storage_error_and_keeps_what_is_there(
    landing: Landing, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    real = os.write
    with writer(landing) as batch:
        batch.append(page(b"kept"))

        def half(descriptor: int, data: bytes) -> int:
            if Path(f"/proc/self/fd/{descriptor}").readlink().name.startswith("pages."):
                real(descriptor, bytes(data)[: len(data) // 2])
                raise OSError(code, os.strerror(code))
            return real(descriptor, data)

        monkeypatch.setattr(os, "write", half)
        with pytest.raises(StorageError, match="ANALYTICS_PLATFORM_HOME"):
            batch.append(page(b"lost", sequence=1))
        monkeypatch.undo()
    with writer(landing) as batch:
        assert len(batch.landed) == 1
        batch.append(page(b"again", sequence=1, is_last=True))
        batch.complete()
    assert bodies(batches(landing)[0]) == [b"kept", b"again"]


def test_landed_files_are_for_the_owner_only(landing: Landing) -> None:
    batch = land(landing, page(b"1", is_last=True))
    for name in ("pages.bin", "pages.jsonl"):
        assert (batch.path / name).stat().st_mode & 0o077 == 0
