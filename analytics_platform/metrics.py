"""The semantic layer from a shell: MetricFlow's `mf` on the published snapshot.

Belongs here: what `mf` needs to know of this home, and keeping it to this machine. Does not belong here: a metric
(`dbt_project/models/semantic/`), anything of MetricFlow's own.

    python -m analytics_platform.metrics query --saved-query traffic_by_vendor

takes every argument of `mf`. The snapshot is opened read-only, so a run is never in the way. Bare `mf` asks a package
index for a newer version at each start and has no switch for that; here it does not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

from filelock import FileLock

from analytics_platform.core.durable import write_file
from analytics_platform.core.errors import ConfigurationError, PlatformError
from analytics_platform.core.redaction import install_redaction, redact
from analytics_platform.settings import Settings, load_settings
from analytics_platform.transform.project import PROJECT_DIRECTORY, dbt_executable, project_digest
from analytics_platform.transform.publish import current

__all__ = ["environment", "main", "metricflow", "prepare"]

_PARSE_SECONDS: Final = 600


def main() -> NoReturn:
    """Run `mf` with this process's arguments.

    Raises:
        SystemExit: with the exit code of `mf`, or 1 and one paragraph where something is missing.
    """
    install_redaction()
    try:
        settings = load_settings()
        database = _published(settings)
        os.environ.update(environment(settings, database, prepare(settings, database)))
        command = metricflow()
    except PlatformError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(1)
    command()
    sys.exit(0)


def prepare(settings: Settings, database: Path, directory: Path = PROJECT_DIRECTORY) -> Path:
    """A folder `mf` takes for the project: settings and semantic manifest, parsed anew when the project changed.

    `mf` reads the manifest below the project and nowhere else, and the project's own names the warehouse being built.

    Raises:
        ConfigurationError: dbt cannot parse the project.
    """
    folder = settings.home.dbt_target / "metrics"
    target = folder / "target"
    target.mkdir(parents=True, exist_ok=True)
    digest = f"{project_digest(directory)} {database.stem}"
    with FileLock(folder / ".lock"):
        written = target / "semantic_manifest.digest"
        if written.is_file() and written.read_text(encoding="ascii") == digest:
            return folder
        _parse(directory, target, environment(settings, database, folder))
        shutil.copyfile(directory / "dbt_project.yml", folder / "dbt_project.yml")
        write_file(written, digest.encode("ascii"))
    return folder


def environment(
    settings: Settings, database: Path, folder: Path, directory: Path = PROJECT_DIRECTORY
) -> dict[str, str]:
    """The variables under which dbt and `mf` read `database` and write below `folder` only."""
    return {
        "ANALYTICS_PLATFORM_LAKE": str(settings.home.lake),
        "ANALYTICS_PLATFORM_WAREHOUSE": str(database),
        "ANALYTICS_PLATFORM_WAREHOUSE_ACCESS": "read_only",
        "DBT_PROJECT_DIR": str(folder),
        "DBT_PROFILES_DIR": str(directory),
        "DBT_LOG_PATH": str(folder / "logs"),
        "DBT_TARGET_PATH": str(folder / "target"),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    }


def _published(settings: Settings) -> Path:
    newest = current(settings.home)
    if newest is None:
        raise ConfigurationError(
            f"Nothing is published in {settings.home.root} yet.", "Run `analytics-platform run`, or `demo` for a try."
        )
    return newest.database


def _parse(directory: Path, target: Path, variables: dict[str, str]) -> None:
    command = [dbt_executable(), "parse", "--project-dir", str(directory), "--profiles-dir", str(directory)]
    done = subprocess.run(  # noqa: S603  (our own executable, no shell)
        command,
        env={**os.environ, **variables, "DBT_USE_COLORS": "false"},
        capture_output=True,
        text=True,
        timeout=_PARSE_SECONDS,
        check=False,
    )
    if done.returncode != 0 or not (target / "semantic_manifest.json").is_file():
        words = "\n".join(line for line in redact(done.stdout + done.stderr).splitlines()[-15:] if line.strip())
        raise ConfigurationError(f"dbt cannot parse {directory}:\n{words}", "Run `dbt parse` there to see all of it.")


def metricflow() -> Callable[[], Any]:
    """The command `mf`, which no longer asks a package index for a newer one.

    Raises:
        ConfigurationError: the extra `metrics` is not installed.
    """
    try:
        import update_checker
        from dbt_metricflow.cli import main as metricflow
    except ModuleNotFoundError:
        raise ConfigurationError(
            "MetricFlow is not installed.", "Install the extra: `.venv/bin/python -m pip install -e '.[metrics]'`."
        ) from None
    # `mf` calls this at each start, whatever the environment says (a request to the index, answered from a cache for
    # an hour): there is nothing to set, only something to replace.
    update_checker.UpdateChecker.check = lambda *_: None
    return metricflow.cli


if __name__ == "__main__":
    main()
