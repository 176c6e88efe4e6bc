"""One `dbt build` of the real project as the platform runs it, with what it cost.

Belongs here: the process, its environment and arguments, processor time, memory, and dbt's own times by node. Does not
belong here: the lake it reads (`lake`), what the numbers are held against (`report`).

The arguments and variables are those of `analytics_platform.transform.assets`: the daily selector, the window by
environment, no JSON artefacts, no log file. The processor time is that of the whole dbt process, its start-up included.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from time import monotonic
from typing import Any, Final

from analytics_platform.transform.assets import slices
from analytics_platform.transform.project import PROJECT_DIRECTORY, dbt_executable

__all__ = ["Build", "Node", "build", "build_all"]

_ARGUMENTS: Final = ("--log-level-file", "none", "--no-write-json", "--log-format", "json", "--log-level", "debug")
_MIB: Final = 1024


@dataclass(frozen=True, kw_only=True)
class Node:
    """One model, seed or test. Seconds are by the wall: dbt runs two nodes at a time."""

    name: str
    kind: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Build:
    """What one dbt process cost. `memory_mib` is the peak resident size, DuckDB's included."""

    wall_seconds: float
    cpu_seconds: float
    memory_mib: float
    warehouse_bytes: int
    nodes: Sequence[Node]
    failed: Sequence[str]

    def slowest(self, count: int) -> Sequence[Node]:
        return sorted(self.nodes, key=lambda node: -node.seconds)[:count]


def build_all(lake: Path, work: Path, first: date, last: date) -> Build:
    """The builds by which the platform makes everything of a long history (`transform.assets.slices`), as one."""
    builds = [build(lake, work, *each) for each in slices(first, last)]
    seconds: dict[tuple[str, str], float] = {}
    for node in (node for each in builds for node in each.nodes):
        seconds[node.name, node.kind] = seconds.get((node.name, node.kind), 0.0) + node.seconds
    return Build(
        wall_seconds=sum(each.wall_seconds for each in builds),
        cpu_seconds=sum(each.cpu_seconds for each in builds),
        memory_mib=max(each.memory_mib for each in builds),
        warehouse_bytes=builds[-1].warehouse_bytes,
        nodes=[Node(name=name, kind=kind, seconds=spent) for (name, kind), spent in seconds.items()],
        failed=[text for each in builds for text in each.failed],
    )


def build(lake: Path, work: Path, first: date, last: date, *, select: str | None = None) -> Build:
    """Run `dbt build` for the UTC days `first` … `last` of the lake, and the dates around them as the platform does.

    Args:
        work: holds the warehouse and what dbt parsed; the same folder again is the next incremental build.
        select: other nodes than the daily selector's.
    """
    work.mkdir(parents=True, exist_ok=True)
    warehouse = work / "warehouse.duckdb"
    environment = os.environ | {
        "ANALYTICS_PLATFORM_LAKE": str(lake),
        "ANALYTICS_PLATFORM_WAREHOUSE": str(warehouse),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DBT_ENV_CUSTOM_ENV_WINDOW_START": str(first - timedelta(days=1)),
        "DBT_ENV_CUSTOM_ENV_WINDOW_END": str(last + timedelta(days=3)),
    }
    chosen = ("--select", select) if select else ("--selector", "daily")
    command = [
        dbt_executable(), "build", *_ARGUMENTS, "--exclude-resource-type", "unit_test", *chosen,
        "--project-dir", str(PROJECT_DIRECTORY), "--profiles-dir", str(PROJECT_DIRECTORY),
        "--target-path", str(work / "target"),
    ]  # fmt: skip
    begun = monotonic()
    events = work / "events.jsonl"
    with events.open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=work)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = monotonic() - begun
    nodes, failed = _read(events.read_text(encoding="utf-8").splitlines())
    if process.returncode and not failed:
        raise RuntimeError(f"dbt ended with {process.returncode}; see {events}")
    return Build(
        wall_seconds=wall,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        memory_mib=usage.ru_maxrss / _MIB,
        warehouse_bytes=warehouse.stat().st_size,
        nodes=nodes,
        failed=failed,
    )


def _read(lines: Iterable[str]) -> tuple[list[Node], list[str]]:
    nodes, failed = [], []
    for line in lines:
        try:
            event: Mapping[str, Any] = json.loads(line)
        except ValueError:
            continue
        if event["info"]["name"] != "NodeFinished":
            continue
        node, result = event["data"]["node_info"], event["data"]["run_result"]
        nodes.append(Node(name=node["node_name"], kind=node["resource_type"], seconds=float(result["execution_time"])))
        if result["status"] in ("error", "fail"):
            failed.append(f"{node['node_name']}: {result['message']}")
    return nodes, failed
