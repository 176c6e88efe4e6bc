"""The other loaders, each in its own environment made on demand, on the same pages, into DuckDB.

Belongs here: making the environments, running and measuring whole processes, counting what arrived. Does not belong
here: the loaders' pipelines (`loaders/`), our own pipe (`pipes`).

Environments lie in the git-ignored folder `.peers/`, from `loaders/<name>.requirements.txt` (pins and hashes). What
cannot be installed or does not run is a row that says so. Times are of whole processes, start and imports included,
for ours as for theirs.
"""

from __future__ import annotations

import json
import os
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb

from analytics_platform_tests.benchmarks.parts import Figure, Part, Result, scratch
from analytics_platform_tests.benchmarks.rows import ROWS_A_PAGE
from analytics_platform_tests.benchmarks.server import serving

__all__ = ["PEERS_PART", "Peer", "environment"]

_LOADERS: Final = Path(__file__).parent / "loaders"
_FOLDER: Final = Path(__file__).parents[2] / ".peers"
_LONGEST_SECONDS: Final = 900


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One loader.

    Args:
        command: a shell pipeline; {python} and {bin} of its environment, {loaders}, {url} and {folder}.
        configs: files written into the folder beforehand.
        stores: whether the rows are kept, in the table `sessions` of some schema of `rows.duckdb`.
    """

    name: str
    environment: str
    command: str
    configs: Mapping[str, Mapping[str, str]] | None = None
    stores: bool = True


PEERS: Final = (
    Peer(
        name="dlt rest_api, nested → Parquet → DuckDB",
        environment="dlt",
        command="{python} {loaders}/dlt_rest_api.py {url} {folder}",
    ),
    Peer(
        name="Airbyte declarative → PyAirbyte → DuckDB",
        environment="airbyte",
        command="{python} {loaders}/airbyte_declarative.py {url} {folder}",
    ),
    Peer(
        name="Airbyte declarative, records thrown away",
        environment="airbyte",
        command="{python} {loaders}/airbyte_declarative.py {url} {folder} thrown-away",
        stores=False,
    ),
    Peer(
        name="singer-sdk tap → target-duckdb",
        environment="singer",
        command="{python} {loaders}/singer_tap.py --config {folder}/tap.json "
        "| {bin}/target-duckdb --config {folder}/target.json",
        configs={
            "tap.json": {"url": "{url}"},
            "target.json": {
                "path": "{folder}/rows.duckdb",
                "database": "rows",
                "default_target_schema": "main",
            },
        },
    ),
)

_OURS: Final = Peer(
    name="analytics_platform, every promise on → Parquet",
    environment="",
    command="{python} -m analytics_platform_tests.benchmarks.pipes ours --url {url} --home {folder} --pages {pages}",
)


@dataclass(frozen=True, kw_only=True)
class _Ran:
    rows: int
    wall_seconds: float
    cpu_seconds: float
    peak_mib: float


def environment(name: str) -> Path:
    """The environment of a loader, made where it is not there or its pins have changed.

    Raises:
        RuntimeError: it cannot be installed; says why.
    """
    wanted = (_LOADERS / f"{name}.requirements.txt").read_bytes()
    folder = _FOLDER / name
    stamp = folder / ".installed"
    if stamp.exists() and stamp.read_bytes() == wanted:
        return folder
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pins = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(_LOADERS / f"{name}.requirements.txt")]
    done = subprocess.run([*pip, *pins], capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise RuntimeError(f"not installed: {(errors or ['pip failed'])[-1][:160]}")
    stamp.write_bytes(wanted)
    return folder


def _run(peer: Peer, url: str, folder: Path, pages: int) -> _Ran:
    home = environment(peer.environment) if peer.environment else Path(sys.prefix)
    known = {
        "python": home / "bin" / "python",
        "bin": home / "bin",
        "loaders": _LOADERS,
        "url": url,
        "folder": folder,
        "pages": pages,
    }
    words = {name: str(value) for name, value in known.items()}
    folder.mkdir(parents=True)
    for name, config in (peer.configs or {}).items():
        (folder / name).write_text(json.dumps({key: value.format(**words) for key, value in config.items()}))
    command = peer.command.format(**{name: shlex.quote(value) for name, value in words.items()})
    own = {"PYTHONPATH": str(Path(__file__).parents[2])} if not peer.environment else {}
    apart = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # Their state and their telemetry ids stay in the folder that goes.
    apart |= {"HOME": str(folder), "DO_NOT_TRACK": "1", "RUNTIME__DLTHUB_TELEMETRY": "false", **own}
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with (folder / "output.txt").open("w") as output:
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {command}"],
            cwd=folder,
            env=apart,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=_LONGEST_SECONDS,
            check=False,
        )
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    said = (folder / "output.txt").read_text(errors="replace")
    if done.returncode:
        raise RuntimeError(f"failed: {said.strip().splitlines()[-1][:160] if said.strip() else done.returncode}")
    return _Ran(
        rows=_stored(peer, folder, said),
        wall_seconds=wall,
        cpu_seconds=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        peak_mib=after.ru_maxrss / 1024,
    )


def _stored(peer: Peer, folder: Path, said: str) -> int:
    """What is really there, not what a loader says."""
    if not peer.stores:
        told = [line for line in said.splitlines() if line.startswith("rows ")]
        return int(told[-1].split()[1]) if told else 0
    if not peer.environment:
        source = f"'{folder}/lake/smartlook/sessions/site=shop/*/part.parquet'"
        return int(duckdb.sql(f"SELECT count(*) FROM {source}").fetchall()[0][0])
    with duckdb.connect(str(folder / "rows.duckdb"), read_only=True) as stored:
        tables = stored.execute(
            "SELECT schema_name, table_name FROM duckdb_tables() WHERE table_name = 'sessions'"
        ).fetchall()
        (schema, table) = tables[0]
        return int(stored.execute(f'SELECT count(*) FROM "{schema}"."{table}"').fetchall()[0][0])


def peers_part(is_short: bool) -> Result:
    """Ours first and last, every other loader once in between."""
    pages = 50 if is_short else 500
    rows: list[Sequence[str]] = []
    speeds: dict[str, list[float]] = {"ours": [], "theirs": []}
    with serving(pages=pages) as vendor, scratch() as folder:
        for number, peer in enumerate((_OURS, *PEERS, _OURS)):
            try:
                ran = _run(peer, vendor.base_url, folder / str(number), pages)
            except (RuntimeError, subprocess.TimeoutExpired, duckdb.Error) as error:
                rows.append([peer.name, "", "", "", "", str(error).replace("|", "/").splitlines()[0][:200]])
                continue
            speed = ran.rows / ran.wall_seconds
            if peer.stores:
                speeds["theirs" if peer.environment else "ours"].append(speed)
            missing = pages * ROWS_A_PAGE - ran.rows
            rows.append(
                [
                    peer.name,
                    f"{ran.wall_seconds:.1f}",
                    f"{ran.cpu_seconds / ran.rows * 1e6:.0f}" if ran.rows else "",
                    # Of the largest process since the command began: later rows may show an earlier loader's.
                    f"{ran.peak_mib:.0f}",
                    f"{speed:,.0f}",
                    f"{missing:,} rows lost" if missing else "",
                ]
            )
    figures = []
    if speeds["ours"] and speeds["theirs"]:
        ratio = sum(speeds["ours"]) / len(speeds["ours"]) / max(speeds["theirs"])
        what = "our rows/s, times the fastest that stores its rows"
        figures = [Figure(what=what, found=ratio, limit=8, at_least=True)]
    return Result(
        columns=("loader", "wall s", "CPU s per M rows", "peak MiB (running maximum)", "rows/s", "note"),
        rows=rows,
        figures=figures,
    )


PEERS_PART: Final = Part(
    title="Other loaders",
    shows="500,000 rows, same server, whole processes; versions are pinned in `benchmarks/loaders/`.",
    run=peers_part,
)
