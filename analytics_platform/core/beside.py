"""A second process of a run, that does what it is handed while the run goes on.

Belongs here: both ends of that process. Does not belong here: what is handed to it (`core.checking`), the dbt that
waits for its order (`transform.dbt_ahead`).

What a run computes in pure Python keeps its own thread from asking the vendors and recording events; a thread beside it
would take turns with it. The process is started with the run's first work, so that what it needs is imported while the
vendors answer. It knows nothing of the run but what each call brings, and whatever it cannot do, or does not answer
because it is gone, the caller does itself: a run without it is only slower.

Calls travel as `multiprocessing` sends objects between its own processes: the function by its name in a module, over a
pipe that only the two have. The process ends when the run's end of the pipe does: with its parent, however that ends.

`python -m analytics_platform.core.beside DESCRIPTOR`
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Final, ParamSpec, Self, TypeVar

__all__ = ["Beside", "asked", "hint_or_do"]

P = ParamSpec("P")
T = TypeVar("T")

_open: Final[list[Beside]] = []
"""The processes of this process's runs, the newest last."""


class Beside:
    """At most one process, from `begin` until the block ends. Calls are answered one after the other."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None
        self._line: Connection | None = None
        self._asking: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        _open.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _open.remove(self)
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._asking is not None:
            self._asking.shutdown(cancel_futures=True)
        if self._line is not None:
            self._line.close()

    @property
    def pid(self) -> int | None:
        """Of the process; None where it was never started."""
        return None if self._process is None else self._process.pid

    @property
    def is_there(self) -> bool:
        """Whether it was started, by this very process, and runs."""
        return self._process is not None and self._owner == os.getpid() and self._process.poll() is None

    def begin(self, first: Callable[[], object], *, then: Callable[[], object]) -> None:
        """Start it, and have it do `first` (importing what it will need); does nothing where it was started before.

        Args:
            then: called when that is done or failed, in another thread: what would want the same processor.
        """
        if self._process is not None:
            return
        self._line, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  (our own module, no shell)
                [sys.executable, "-m", "analytics_platform.core.beside", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._asking = ThreadPoolExecutor(max_workers=1, thread_name_prefix="beside")
        self.call(first).add_done_callback(lambda _: then())

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Its answer, later. The future fails with `LookupError` where there is none, whatever the reason."""
        if self._asking is None:
            raise RuntimeError("begin() comes first")
        return self._asking.submit(self._answer, function, args, kwargs)

    def _answer(self, function: Callable[..., T], args: tuple[object, ...], kwargs: dict[str, object]) -> T:
        try:
            line = self._line
            if line is None or line.closed:
                raise LookupError("the process beside the run was never there")
            line.send((function, args, kwargs))
            is_done, answer = line.recv()
        except Exception as error:  # it is gone, or what was asked or answered cannot travel
            raise LookupError("the process beside the run gave no answer") from error
        if not is_done:
            raise LookupError(f"the process beside the run failed with {answer}")
        done: T = answer
        return done


def asked(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Callable[[], T]:
    """Have the run's second process do it from now on.

    Returns:
        What gives the answer, waiting for it. Without a second process, and where that one gives no answer, it does the
        work itself, then; so the function raises as it would without one.
    """
    there = [each for each in _open if each.is_there]
    if not there:
        return lambda: function(*args, **kwargs)
    begun = there[-1].call(function, *args, **kwargs)

    def answer() -> T:
        try:
            return begun.result()
        except LookupError:
            return function(*args, **kwargs)

    return answer


def hint_or_do(function: Callable[[], object]) -> None:
    """Have the second process prepare what it will be asked for, without waiting; without one, prepare it here."""
    there = [each for each in _open if each.is_there]
    if there:
        there[-1].call(function)
    else:
        function()


def main(descriptor: int) -> None:
    """Answer one call after the other until the run ends."""
    with Connection(descriptor) as line, suppress(EOFError, OSError):
        while True:
            _answer_next(line)


def _answer_next(line: Connection) -> None:
    answer: tuple[bool, object]
    try:
        function, args, kwargs = line.recv()
        answer = (True, function(*args, **kwargs))
    except EOFError:
        raise
    except Exception as error:
        # The caller finds out itself what is wrong; the message may quote what must not travel.
        answer = (False, type(error).__name__)
    try:
        line.send(answer)
    except OSError:
        raise
    except Exception as error:
        line.send((False, type(error).__name__))


if __name__ == "__main__":
    main(int(sys.argv[1]))
