"""A second process of a run, that does what it is handed while the run goes on.

Belongs here: both ends of that process. Does not belong here: what is handed to it (`core.checking`), the dbt that
waits for its order (`transform.dbt_ahead`).

What a run computes in pure Python keeps its own thread from asking the vendors and recording events; a thread beside it
would take turns with it. The process is started with the run's first work, so that what it needs is imported while the
vendors answer. It knows nothing of the run but what each call brings, and whatever it cannot do, or does not answer
because it is gone, the caller does itself: a run without it is only slower.

Calls travel as `multiprocessing` sends objects between its own processes: the function by its name in a module, over a
pipe that only the two have. Processes that the run forked before (`lanes`) ask over pipes of their own. The process
ends when the run's end of its pipe does: with its parent, however that ends.

`python -m analytics_platform.core.beside DESCRIPTOR [DESCRIPTOR ...]`: the run's first, then those of its guests.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Final, ParamSpec, Self, TypeVar

__all__ = ["Beside", "Line", "asked", "hint_or_do"]

P = ParamSpec("P")
T = TypeVar("T")

_open: Final[list[Line]] = []
"""This process's lines to such processes, the newest last."""


class Line:
    """This process's end of a pipe to one. Calls are answered one after the other."""

    def __init__(self, connection: Connection) -> None:
        self._owner = os.getpid()
        self._connection = connection
        self._is_broken = False
        self._asking = ThreadPoolExecutor(max_workers=1, thread_name_prefix="beside")

    def __enter__(self) -> Self:
        _open.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _open.remove(self)
        self._asking.shutdown(cancel_futures=True)
        self._connection.close()

    @property
    def is_there(self) -> bool:
        """Whether it is this very process's, and nothing was found wrong with it."""
        return self._owner == os.getpid() and not self._is_broken

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Its answer, later. The future fails with `LookupError` where there is none, whatever the reason."""
        return self._asking.submit(self._answer, function, args, kwargs)

    def _answer(self, function: Callable[..., T], args: tuple[object, ...], kwargs: dict[str, object]) -> T:
        try:
            self._connection.send((function, args, kwargs))
            is_done, answer = self._connection.recv()
        except Exception as error:  # it is gone, or what was asked or answered cannot travel
            self._is_broken = isinstance(error, EOFError | OSError)
            raise LookupError("the process beside the run gave no answer") from error
        if not is_done:
            raise LookupError(f"the process beside the run failed with {answer}")
        done: T = answer
        return done


class Beside:
    """At most one process, from `begin` until the block ends.

    Args:
        guests: its ends of pipes of processes that were forked before it was there; closed here when it has them.
    """

    def __init__(self, guests: Sequence[Connection] = ()) -> None:
        self._guests = list(guests)
        self._process: subprocess.Popen[bytes] | None = None
        self._line: Line | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._line is not None:
            self._line.__exit__(kind, error, trace)

    @property
    def pid(self) -> int | None:
        """Of the process; None where it was never started."""
        return None if self._process is None else self._process.pid

    def begin(self, first: Callable[[], object], *, then: Callable[[], object]) -> None:
        """Start it, and have it do `first` (importing what it will need); does nothing where it was started before.

        Args:
            then: called when that is done or failed, in another thread: what would want the same processor.
        """
        if self._process is not None:
            return
        ours, theirs = Pipe()
        lines = [theirs, *self._guests]
        descriptors = [line.fileno() for line in lines]
        self._process = subprocess.Popen(  # noqa: S603  (our own module, no shell)
            [sys.executable, "-m", "analytics_platform.core.beside", *map(str, descriptors)],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for line in lines:
            line.close()
        self._line = Line(ours).__enter__()
        self.call(first).add_done_callback(lambda _: then())

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Its answer, later. The future fails with `LookupError` where there is none, whatever the reason."""
        if self._line is None:
            raise RuntimeError("begin() comes first")
        return self._line.call(function, *args, **kwargs)


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


def main(descriptors: Sequence[int]) -> None:
    """Answer one call after the other until the run ends."""
    run, *guests = (Connection(descriptor) for descriptor in descriptors)
    lines = [run, *guests]
    while not run.closed:
        for line in wait(lines):
            if isinstance(line, Connection):
                try:
                    _answer_next(line)
                except (EOFError, OSError):
                    line.close()
                    lines.remove(line)


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
    main([int(descriptor) for descriptor in sys.argv[1:]])
