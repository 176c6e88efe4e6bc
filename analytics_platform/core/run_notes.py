"""Which runs are alive on this host: one small file a run, locked by the process that runs it.

Belongs here: the notes, and whether their writers live. Does not belong here: what is done about a dead one
(`core.sweeping`), Dagster.

A process id alone proves nothing: numbers are used again. The kernel drops a lock when its holder dies, however it
dies, so a note that can be locked by somebody else belongs to a run nobody runs any more. The child a note names (dbt)
holds no lock; it is the same process if it began at the same tick of the same boot.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

__all__ = ["Child", "DeadRun", "RunNote", "dead_runs"]

_GRACE_SECONDS: Final = 8.0
"""dbt closes the warehouse when it is asked to stop."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, kw_only=True)
class Child:
    """A process by its number and by what no later process of that number shares."""

    pid: int
    boot_id: str
    started_ticks: int

    @classmethod
    def of(cls, pid: int) -> Child | None:
        """The process of this number; None where it is gone, or where the system does not tell (no /proc)."""
        try:
            # The name, in brackets, may hold anything; what follows the last bracket are fields 3 to 52 of proc(5).
            after_name = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2]
            boot_id = _BOOT_ID.read_text(encoding="ascii").strip()
        except OSError:
            return None
        fields = after_name.split()
        return None if fields[0] in ("Z", "X") else cls(pid=pid, boot_id=boot_id, started_ticks=int(fields[19]))

    @property
    def is_alive(self) -> bool:
        return Child.of(self.pid) == self

    def end(self, *, grace_seconds: float = _GRACE_SECONDS) -> bool:
        """SIGTERM, SIGKILL after the grace; only while it is the same process. Whether there was anything to end."""
        try:
            # A handle of the process, not of its number: what is asked and sent below is asked of and sent to this one.
            handle = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            if not self.is_alive:
                return False
            ended = select.poll()
            ended.register(handle, select.POLLIN)
            for number in (signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError, PermissionError):
                    signal.pidfd_send_signal(handle, number)
                if ended.poll(grace_seconds * 1000):
                    break
            return True
        finally:
            os.close(handle)


class RunNote:
    """The note of a run in this process, from `open` to `close` or to the process's death."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def open(cls, folder: Path, run_id: str) -> RunNote:
        """Write the note. It appears under its name only when it is locked: nobody ever sees a living run's note free.

        Raises:
            OSError: the home cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / run_id
        temporary = folder / f".{run_id}.{os.getpid()}"
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        note = cls(path, descriptor)
        note.tell(None)
        temporary.rename(path)
        return note

    def tell(self, pid: int | None) -> None:
        """Name the child that works for the run now, or none."""
        child = None if pid is None else Child.of(pid)
        content = {"host": socket.gethostname(), "child": None if child is None else asdict(child)}
        # In one write of a few bytes; a reader that finds it torn learns nothing of a child.
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(content).encode(), 0)

    def close(self) -> None:
        """The run is over."""
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


@dataclass(frozen=True, kw_only=True)
class DeadRun:
    """A run whose process is gone, and the process it left, if any."""

    run_id: str
    child: Child | None


@contextmanager
def dead_runs(folder: Path) -> Iterator[list[DeadRun]]:
    """The runs of this host whose process died. They are this caller's inside the block, and forgotten after it unless
    it raises; several callers at once share them out.
    """
    locked: list[tuple[Path, int, DeadRun]] = []
    try:
        for path in sorted(folder.glob("[!.]*")) if folder.is_dir() else ():
            descriptor = _lock(path)
            if descriptor is not None:
                locked.append((path, descriptor, _read(path.name, descriptor)))
        yield [dead for _, _, dead in locked]
        for path, _, _ in locked:
            path.unlink(missing_ok=True)
    finally:
        for _, descriptor, _ in locked:
            os.close(descriptor)


def _lock(path: Path) -> int | None:
    """A descriptor that holds the note's lock; None where its run lives, here or on another host."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        content = _content(descriptor)
        # Locks of another host may not be seen here, and somebody else may have forgotten it just now.
        if content.get("host") == socket.gethostname() and path.exists():
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _content(descriptor: int) -> dict[str, object]:
    try:
        found = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _read(run_id: str, descriptor: int) -> DeadRun:
    told = _content(descriptor).get("child")
    return DeadRun(run_id=run_id, child=Child(**told) if isinstance(told, dict) else None)
