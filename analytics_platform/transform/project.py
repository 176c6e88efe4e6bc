"""The dbt project on disk and its manifest, prepared when it is missing or out of date.

Belongs here: where the project is, the manifest and when it must be made again, the `DbtProject` handed to dagster-dbt.
Does not belong here: what a node becomes in Dagster (`translator`), running a build (`assets`).

Nothing here imports dbt or dagster-dbt at import time (they cost 2 s, twice the whole budget of `definitions`):
preparing runs `dbt parse` as a child process, once, under a file lock. The manifest is current as long as a digest of
the project's files and of the dbt version beside it matches; modification times would call a fresh checkout new and a
deleted model old.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from filelock import FileLock

from analytics_platform.core.durable import make_directories, replace_file, storage_errors, write_file
from analytics_platform.core.errors import ConfigurationError
from analytics_platform.core.redaction import redact
from analytics_platform.settings import Settings

if TYPE_CHECKING:
    from dagster_dbt import DbtProject

__all__ = [
    "PROJECT_DIRECTORY",
    "dbt_executable",
    "dbt_project",
    "dbt_variables",
    "decoded_manifest",
    "keep_parsed",
    "load_manifest",
    "manifest_path",
    "parsed_before",
    "parsed_for",
    "prepared_parse",
    "project_digest",
]

PROJECT_DIRECTORY: Final = Path(__file__).resolve().parents[2] / "dbt_project"
"""Beside the package in a checkout; the platform is installed editable (`make install`)."""

_NOT_SOURCES: Final = frozenset({"target", "logs", "dbt_packages"})
_PARSE_SECONDS: Final = 300
_PARSED: Final = "partial_parse.msgpack"
_ARTIFACTS: Final = (_PARSED, "manifest.json")
_HOME_VARIABLES: Final = ("ANALYTICS_PLATFORM_LAKE", "ANALYTICS_PLATFORM_WAREHOUSE")
_NO_LAKE: Final = "lake-root-not-set-ANALYTICS_PLATFORM_LAKE"
"""What the sources say of the lake where nothing is set (`models/staging/**/*__sources.yml`)."""


def dbt_executable() -> str:
    """The dbt of this environment, also where the environment is not activated."""
    beside = Path(sys.executable).with_name("dbt")
    return str(beside) if beside.is_file() else "dbt"


def dbt_project(settings: Settings, directory: Path = PROJECT_DIRECTORY) -> DbtProject:
    """The project as dagster-dbt knows it, manifest prepared. Imports dagster-dbt."""
    from dagster_dbt import DbtProject

    target = manifest_path(settings, directory).parent
    return DbtProject(project_dir=directory, profiles_dir=directory, target_path=target)


def load_manifest(settings: Settings, directory: Path = PROJECT_DIRECTORY) -> Mapping[str, Any]:
    """The current manifest (dbt's manifest.json schema v12), prepared first where needed."""
    path = manifest_path(settings, directory)
    return decoded_manifest(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def decoded_manifest(path: Path, modified_ns: int) -> Mapping[str, Any]:
    """A manifest.json as it was written at `modified_ns` (a file's `st_mtime_ns`)."""
    manifest: Mapping[str, Any] = msgspec.json.decode(path.read_bytes())
    return manifest


def manifest_path(settings: Settings, directory: Path = PROJECT_DIRECTORY) -> Path:
    """Path of an up-to-date manifest.json; makes it (3-6 s) when the project's files changed, never otherwise.

    It lies in the project's own `target/` (git-ignored); where the checkout is read-only, below the home instead.

    Raises:
        ConfigurationError: there is no dbt project, or dbt cannot parse it (with dbt's own words).
    """
    if not (directory / "dbt_project.yml").is_file():
        raise ConfigurationError(
            f"There is no dbt project in {directory}.",
            "Run from a checkout (`make install`), where dbt_project/ lies beside analytics_platform/.",
        )
    digest = project_digest(directory)
    candidates = (directory / "target", settings.home.dbt_target / "manifest")
    for target in candidates:
        if _is_current(target, digest):
            return target / "manifest.json"
    target = candidates[0] if _is_writable(directory) else candidates[1]
    _prepare(directory, target, digest)
    return target / "manifest.json"


def project_digest(directory: Path = PROJECT_DIRECTORY) -> str:
    """sha256 over every source file's path and content and the installed dbt versions."""
    files = []
    for path in sorted(_sources(directory)):
        found = path.stat()
        files.append((path, found.st_size, found.st_mtime_ns))
    return _digest(directory, tuple(files))


@lru_cache(maxsize=4)
def _digest(directory: Path, files: tuple[tuple[Path, int, int], ...]) -> str:
    """Read once a process as long as nothing was touched: loading the definitions asks three times."""
    digest = hashlib.sha256(f"{version('dbt-core')} {version('dbt-duckdb')}".encode())
    for path, _, _ in files:
        content = path.read_bytes()
        digest.update(f"\n{path.relative_to(directory).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _sources(directory: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(directory):
        names[:] = [name for name in names if name not in _NOT_SOURCES and not name.startswith(".")]
        yield from (Path(folder, name) for name in files if not name.startswith("."))


def _is_current(target: Path, digest: str) -> bool:
    try:
        return (target / "manifest.digest").read_text(encoding="ascii") == digest and (
            target / "manifest.json"
        ).is_file()
    except OSError:
        return False


def _is_writable(directory: Path) -> bool:
    target = directory / "target"
    return os.access(target if target.is_dir() else directory, os.W_OK)


def prepared_parse(settings: Settings, directory: Path = PROJECT_DIRECTORY) -> Path | None:
    """What dbt parsed for no home when the manifest was prepared; None where it has to be made (again)."""
    digest = project_digest(directory)
    for target in (directory / "target", settings.home.dbt_target / "manifest"):
        if _is_current(target, digest) and (target / _PARSED).is_file():
            return target / _PARSED
    return None


def parsed_for(lake: Path, prepared: Path) -> Any:
    """The project as dbt would parse it for a home: where the files of its sources lie is all that it says of one.

    dbt's own way of not parsing twice compares every path in the profile, so that each home would be parsed once more:
    7 CPU seconds, a third of one to unpack. Imports dbt.

    Args:
        lake: root of the home's lake.
        prepared: of `prepared_parse`.

    Returns:
        `dbt.contracts.graph.manifest.Manifest`, for `dbtRunner(manifest=...)`.
    """
    from dbt.contracts.graph.manifest import Manifest
    from dbt.parser.manifest import extended_mashumuro_decoder

    manifest: Any = Manifest.from_msgpack(prepared.read_bytes(), decoder=extended_mashumuro_decoder)
    for source in manifest.sources.values():
        for meta in (source.meta, source.source_meta, source.config.meta, source.unrendered_config.get("meta", {})):
            if "external_location" in meta:
                meta["external_location"] = meta["external_location"].replace(_NO_LAKE, str(lake))
        source.relation_name = source.relation_name.replace(_NO_LAKE, str(lake))
    manifest.build_flat_graph()
    return manifest


def parsed_before(settings: Settings) -> Path | None:
    """What dbt parsed for this home the last time; None where it never did."""
    path = _parsed(settings)
    return path if path.is_file() else None


def keep_parsed(settings: Settings, target: Path) -> None:
    """Take what a dbt process parsed into its target folder for the next one of this home."""
    made = target / _PARSED
    if made.is_file():
        make_directories(settings.home.dbt_target)
        replace_file(made, _parsed(settings))


def _parsed(settings: Settings) -> Path:
    return settings.home.dbt_target / _PARSED


def dbt_variables(settings: Settings) -> dict[str, str]:
    """What profiles.yml and the sources read from the environment."""
    return {
        "ANALYTICS_PLATFORM_LAKE": str(settings.home.lake),
        "ANALYTICS_PLATFORM_WAREHOUSE": str(settings.home.warehouse),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DBT_USE_COLORS": "false",
    }


def _prepare(directory: Path, target: Path, digest: str) -> None:
    with storage_errors("Preparing the dbt manifest"):
        target.mkdir(parents=True, exist_ok=True)
    with FileLock(target / ".manifest.lock"):
        if _is_current(target, digest):  # whoever had the lock before us made it
            return
        with tempfile.TemporaryDirectory(prefix=".parse-", dir=target) as scratch:
            _parse(directory, Path(scratch))
            for name in _ARTIFACTS:
                if (Path(scratch) / name).is_file():
                    replace_file(Path(scratch) / name, target / name)
        # Last: a digest without its manifest must not exist, a manifest without its digest is made again.
        write_file(target / "manifest.digest", digest.encode("ascii"))


def _parse(directory: Path, target: Path) -> None:
    environment = {
        **{name: value for name, value in os.environ.items() if name not in _HOME_VARIABLES},
        "DBT_TARGET_PATH": str(target),
        "DBT_LOG_PATH": str(target),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DBT_USE_COLORS": "false",
    }
    command = [dbt_executable(), "parse", "--project-dir", str(directory), "--profiles-dir", str(directory)]
    done = subprocess.run(  # noqa: S603  (our own executable, no shell)
        command, env=environment, cwd=directory, capture_output=True, text=True, timeout=_PARSE_SECONDS, check=False
    )
    if done.returncode != 0 or not (target / "manifest.json").is_file():
        words = "\n".join(line for line in redact(done.stdout + done.stderr).splitlines()[-15:] if line.strip())
        raise ConfigurationError(
            f"dbt cannot parse {directory}:\n{words}", f"Run `dbt parse` in {directory.name}/ to see all of it."
        )


if __name__ == "__main__":
    # `make install`: the first run of a fresh checkout need not.
    from analytics_platform.settings import load_settings

    manifest_path(load_settings())
