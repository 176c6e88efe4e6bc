"""A vendor's own client in a process of its own, commanded line by line.

Belongs here: starting the child with an environment of its own, the line protocol, its end. Does not belong here: what
a client is asked or should answer, where its packages are (`conftest`).

A client of another licence or another language stays on its side of a pipe: nothing of it is imported here.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from analytics_platform_tests.conftest import GUARD

__all__ = ["ClientRefused", "OfficialClient"]

_ANSWER_SECONDS = 60.0


class ClientRefused(Exception):
    """The client threw: `name`, `code` (a status where it has one) and its message."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(f"{error['name']} {error['code']}: {error['message']}")
        self.name, self.code = error["name"], error["code"]


class OfficialClient:
    """Commands in, answers out; a context manager that ends the child.

    Args:
        command: the child.
        environment: added to the little every child gets. Proxies, credentials and options of this shell do not reach
            it; the network guard does.
        errors: file for what the child writes to standard error.
    """

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str], errors: Path) -> None:
        kept = ("PATH", "PYTHONPATH", "TMPDIR", "LANG", GUARD["REFUSED_VARIABLE"])
        given = {name: os.environ[name] for name in kept if name in os.environ}
        self._errors = errors
        with errors.open("wb") as sink:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                text=True,
                encoding="utf-8",
                env={**given, "HOME": str(errors.parent), **environment},
            )

    def call(self, name: str, *arguments: Any) -> Any:
        """What the client's method answers.

        Raises:
            ClientRefused: the client threw.
            RuntimeError: the child ended, or did not answer in a minute.
        """
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        overdue = threading.Timer(_ANSWER_SECONDS, self._child.kill)
        overdue.start()
        try:
            self._child.stdin.write(json.dumps({"call": name, "arguments": arguments}) + "\n")
            self._child.stdin.flush()
            line = self._child.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            overdue.cancel()
        if not line:
            raise RuntimeError(f"the client ended at {name}: {self._errors.read_text(encoding='utf-8')[-2000:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise ClientRefused(answer["error"])
        return answer["value"]

    def close(self) -> None:
        """End the child. Safe to call twice."""
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._child.wait(5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
