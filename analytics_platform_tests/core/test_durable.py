"""Bytes that survive: the order of calls, and refusals of the operating system that a person can act on."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from analytics_platform.core.durable import make_directories, storage_errors, write_file
from analytics_platform.core.errors import StorageError


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []
    fsync, rename = os.fsync, os.replace

    def traced_fsync(descriptor: int) -> None:
        made.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def traced_replace(source: Path, target: Path) -> None:
        made.append(f"rename {Path(target).name}")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", traced_fsync)
    monkeypatch.setattr(os, "replace", traced_replace)
    return made


def test_a_file_is_replaced_whole_in_the_only_safe_order(tmp_path: Path, calls: list[str]) -> None:
    path = tmp_path / "pointer.json"
    path.write_bytes(b"old")
    write_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert calls == [f"fsync .pointer.json.{os.getpid()}.tmp", "rename pointer.json", f"fsync {tmp_path.name}"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["pointer.json"]


def test_each_new_folders_name_is_made_durable_in_its_parent(tmp_path: Path, calls: list[str]) -> None:
    make_directories(tmp_path / "a" / "b")
    assert calls == [f"fsync {tmp_path.name}", "fsync a"]
    calls.clear()
    make_directories(tmp_path / "a" / "b")
    assert calls == []


def test_a_failed_rename_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pointer.json"
    write_file(path, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError, match="No space left on device"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize(
    "code",
    [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.EMFILE, errno.ENFILE],
    ids=errno.errorcode.get,
)
def test_what_the_system_refuses_is_a_storage_error_with_a_next_step(code: int) -> None:
    with pytest.raises(StorageError, match=os.strerror(code)) as caught, storage_errors("Writing x"):
        raise OSError(code, os.strerror(code), "/somewhere/private/x")
    assert "Free space or fix permissions" in str(caught.value)
    assert "/somewhere" not in str(caught.value)


def test_another_error_passes_as_it_is() -> None:
    with pytest.raises(FileNotFoundError), storage_errors("Reading x"):
        Path("/nonexistent/x").read_bytes()
