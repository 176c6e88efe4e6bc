"""A dbt that has parsed the project and waits for its order, beside whatever a run does before it builds.

Belongs here: both ends of the waiting process: starting it, handing it a build, and what it runs. Does not belong here:
what a build is asked (`assets`), where the project and what was parsed lie (`project`).

Python and dbt's imports take 5 CPU seconds before the first node, and 7 more where the project has to be parsed: what
`make install` parsed is unpacked instead (`project.parsed_for`). A `run` or `demo` spends them while vendors answer.
The process ends when its standard input does: with its parent, however that ends.

`python -m analytics_platform.transform.dbt_ahead PROJECT_DIRECTORY TARGET_DIRECTORY [PREPARED_PARSE]`: reads one line
of JSON with `arguments` and `environment`, writes what dbt writes, exits as dbt does.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from analytics_platform.core.durable import storage_errors
from analytics_platform.settings import Settings
from analytics_platform.transform.project import (
    PROJECT_DIRECTORY,
    dbt_variables,
    parsed_for,
    prepared_parse,
    project_digest,
)

__all__ = ["DbtAhead", "hand_over", "parse_folder"]

_IMPORTED_BY_BUILDS: Final = (
    "dbt.adapters.duckdb",
    "dbt.task.build",
    "pandas",
    "analytics_platform.reconcile.frames",
)
_waiting: Final[dict[Path, DbtAhead]] = {}
"""Home → the process that waits for its next build."""


class DbtAhead:
    """At most one waiting process a home, from `begin` until it is handed a build or the block ends."""

    def __init__(self, settings: Settings, directory: Path = PROJECT_DIRECTORY) -> None:
        self._settings = settings
        self._directory = directory
        self._folder = parse_folder(settings)
        self._digest = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._beginning = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if _waiting.get(self._settings.home.root) is self:
            del _waiting[self._settings.home.root]
            self._end()

    def begin(self) -> None:
        """Start the process; does nothing where it was started before, by whichever thread."""
        with self._beginning:
            self._begin()

    def _begin(self) -> None:
        home = self._settings.home
        if self._process is not None or home.root in _waiting:
            return
        with storage_errors("Preparing the dbt project"):
            self._folder.mkdir(parents=True, exist_ok=True)
            home.warehouse.parent.mkdir(parents=True, exist_ok=True)
        self._digest = project_digest(self._directory)
        prepared = prepared_parse(self._settings, self._directory)
        where = [self._directory, self._folder, *([] if prepared is None else [prepared])]
        self._process = subprocess.Popen(  # noqa: S603  (our own module, no shell)
            [sys.executable, "-m", "analytics_platform.transform.dbt_ahead", *map(str, where)],
            env={**os.environ, **dbt_variables(self._settings), "PYTHONUNBUFFERED": "1"},
            cwd=self._directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        _waiting[home.root] = self

    def order(self, arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes] | None:
        """Have it build, now or when its parse is over; None where it is gone or the project changed since."""
        process = self._process
        if process is None or process.stdin is None:
            return None
        if process.poll() is not None or self._digest != project_digest(self._directory):
            self._end()
            return None
        line = json.dumps({"arguments": list(arguments), "environment": dict(environment)}).encode() + b"\n"
        try:
            process.stdin.write(line)
            process.stdin.close()
        except OSError:
            self._end()
            return None
        process.stdin = None
        return process

    def _end(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # a line that never left
                    pipe.close()


def hand_over(
    settings: Settings, arguments: Sequence[str], environment: Mapping[str, str]
) -> subprocess.Popen[bytes] | None:
    """Give a build to the process that waits for this home; None where none does.

    Args:
        arguments: of dbt, its verb first.
        environment: the whole environment dbt sees.
    """
    ahead = _waiting.pop(settings.home.root, None)
    return None if ahead is None else ahead.order(arguments, environment)


def parse_folder(settings: Settings) -> Path:
    """Where the waiting process leaves what it parsed."""
    return settings.home.dbt_target / "ahead"


def main(directory: str, target: str, prepared: str | None = None) -> int:
    """Parse, wait for the order, build."""
    from dbt.cli.main import dbtRunner
    from dbt_common.events.functions import reset_metadata_vars

    if prepared is None:
        quiet = ["--quiet", "--log-level", "none", "--log-level-file", "none", "--no-write-json"]
        where = ["--project-dir", directory, "--profiles-dir", directory, "--target-path", target]
        parsed = dbtRunner().invoke(["parse", *quiet, *where])
        # A parse that failed is left to the build to tell.
        manifest: Any = parsed.result if parsed.success else None
    else:
        manifest = parsed_for(Path(os.environ["ANALYTICS_PLATFORM_LAKE"]), Path(prepared))
    _prepare(manifest)
    line = sys.stdin.readline()
    if not line:
        return 0
    order: dict[str, Any] = json.loads(line)
    os.environ.clear()
    os.environ.update(order["environment"])
    # dbt reads the window's variables once a process.
    reset_metadata_vars()
    done = dbtRunner(manifest=manifest).invoke(order["arguments"])
    if done.success:
        return 0
    return 1 if done.exception is None else 2


def _prepare(manifest: Any) -> None:
    """While there is time: a build's imports, the macros compiled, the plain words tests are told rendered; what is
    there by now stays, the collector may pass it over.
    """
    from dbt_common.clients.jinja import template_cache

    if manifest is not None:
        for macro in manifest.macros.values():
            template_cache.get_node_template(macro)
        _render_plain_words(manifest)
    for name in _IMPORTED_BY_BUILDS:
        import_module(name)
    gc.collect()
    gc.freeze()


def _render_plain_words(manifest: Any) -> None:
    """Render what is no template in tests' arguments: dbt takes each word for one, and remembers what came of it."""
    from dbt.clients.jinja import get_rendered

    def render(value: Any) -> None:
        if isinstance(value, str) and "{" not in value:
            get_rendered(value, {}, native=True)
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            render(inner)

    for node in manifest.nodes.values():
        if getattr(node, "test_metadata", None) is not None:
            render(node.test_metadata.kwargs)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
