"""Making bytes survive: fsync of files and directories, and whole-file replacement by one rename.

Belongs here: the only places that call fsync and os.replace. Does not belong here: what the bytes mean.
The order is always write → fsync(file) → rename → fsync(directory): without the first a rename may land before its
content, without the last the name may not survive (RELIABILITY H17).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from analytics_platform.core.errors import StorageError
from analytics_platform.core.failpoints import passing

__all__ = ["fsync_directory", "fsync_file", "make_directories", "replace_file", "storage_errors", "write_file"]

_STORAGE_ERRNOS = {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.EMFILE, errno.ENFILE}


@contextmanager
def storage_errors(doing: str) -> Iterator[None]:
    """Turn an operating-system refusal, also one DuckDB met, into a StorageError that says what to do."""
    try:
        yield
    except Exception as error:
        reason = _refusal(error)
        if reason is None:
            raise
        raise StorageError(
            f"{doing} failed: {reason}.",
            "Free space or fix permissions under ANALYTICS_PLATFORM_HOME and run again; "
            "nothing half-written is visible.",
        ) from error


def _refusal(error: Exception) -> str | None:
    """The operating system's words if it was a refusal. DuckDB raises its own exceptions with those words inside."""
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno in _STORAGE_ERRNOS else None
    if type(error).__module__ in ("duckdb", "_duckdb"):
        text = str(error)
        return next((words for words in map(os.strerror, _STORAGE_ERRNOS) if words in text), None)
    return None


def fsync_file(path: Path) -> None:
    """Flush one file's content to the device."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_directory(path: Path) -> None:
    """Flush the names in one directory to the device."""
    fsync_file(path)


def make_directories(path: Path) -> None:
    """Create a directory with its parents so that their names survive a power cut, not only their content."""
    if path.is_dir():
        return
    make_directories(path.parent)
    path.mkdir(exist_ok=True)
    fsync_directory(path.parent)


def replace_file(temporary: Path, final: Path) -> None:
    """Publish `temporary` under `final`'s name in one step. Both are in the same directory or file system."""
    with storage_errors(f"Writing {final.name}"):
        fsync_file(temporary)
        passing("durable.before_rename")
        temporary.replace(final)
        passing("durable.before_directory_fsync")
        fsync_directory(final.parent)


def write_file(path: Path, content: bytes) -> None:
    """Replace a small file whole and durably."""
    with storage_errors(f"Writing {path.name}"):
        make_directories(path.parent)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_bytes(content)
        replace_file(temporary, path)
