"""The dbt project and the publish step as Dagster assets.

Belongs here: one multi-asset for the whole dbt project (one `dbt build` per run, over a range of days, for all
vendors), the `published` asset, the I/O manager that loads published tables, and turning dbt's failures into words.
Does not belong here: names and lineage (`translator`), what publishing does (`publish`), any vendor's name.

The window: partitions a…b are UTC days of the lake; a site's local day touches its neighbours, and where a session of
the last of them ends decides how the two dates after it are cut into common sessions, so a-1…b+3 is rebuilt. A window
is replaced whole by the models themselves.
"""

# No `from __future__ import annotations` here: Dagster reads the type of an asset's `context` parameter at run time.
import io
import os
import re
import shutil
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from analytics_platform.core.beside import asked, hint_or_do
from analytics_platform.core.lake import Lake, SiteRow
from analytics_platform.core.partitions import day_partitions
from analytics_platform.core.redaction import redact
from analytics_platform.core.resources import PlatformResource
from analytics_platform.core.stopwatch import measured, took
from analytics_platform.ops_export import export_ops
from analytics_platform.settings import Settings
from analytics_platform.transform.dbt_ahead import hand_over, parse_folder
from analytics_platform.transform.drawing import draw_marts, prepare_drawing
from analytics_platform.transform.project import (
    PROJECT_DIRECTORY,
    dbt_executable,
    dbt_project,
    dbt_variables,
    keep_parsed,
    parsed_before,
)
from analytics_platform.transform.publish import (
    Build,
    describe_rows,
    inputs_digest,
    lake_written_since,
    publish,
    record_build,
)
from analytics_platform.transform.translator import (
    Manifest,
    current_manifest,
    dagster_dbt_translator,
    relation_name,
    schema_name,
    window_days,
)
from analytics_platform.transform.warehouse import quote, rows, warehouse_connection

if TYPE_CHECKING:
    import subprocess

    from dagster_dbt import DbtCliInvocation, DbtCliResource

__all__ = [
    "DBT_ASSET",
    "IO_MANAGER",
    "WAREHOUSE_POOL",
    "PublishedTables",
    "build_transform",
    "prepare_build",
    "slices",
]

DBT_ASSET: Final = "dbt_project"
IO_MANAGER: Final = "published_tables"
WAREHOUSE_POOL: Final = "warehouse"
"""Limit 1 at op granularity: whoever writes the warehouse file holds it."""

_KEPT_RUN_FOLDERS: Final = 10
_DBT_LOG: Final = "dbt.log"
# dbt writes a line for each of 20 events of a node to its log file and its manifest twice: a third of a build's work.
# The log is written here instead, from the events that come anyway; the SQL of each node lies in compiled/ and run/.
_QUIET: Final = ("--log-level-file", "none", "--no-write-json")
_SHOWN_FAILURES: Final = 5
_DATES_AFTER: Final = 3
"""One for the local day, two for chains of sessions (macro `common_stretch`). Of a run's newest day they are not there
yet and cost nothing."""
_SLICE_DAYS: Final = 92
"""Days one dbt process builds: of ten million sessions in two years, an eighth at a time (docs/marts_benchmark.md)."""
_LOG_EVERY_SECONDS: Final = 1.0
_NODE_RESULTS: Final = frozenset({"LogModelResult", "LogSeedResult", "LogTestResult"})
_QUOTED_VALUE: Final = re.compile(r"""(["'])(?:(?!\1).)*\1""", re.DOTALL)


def build_transform(settings: Settings) -> dg.Definitions:
    """Assets, checks and resources of everything after the lake."""
    manifest = current_manifest(settings)
    return dg.Definitions(
        assets=[_dbt_assets(settings, manifest), _published(manifest), *manifest.own_source_specs()],
        resources={IO_MANAGER: PublishedTables()},
    )


def prepare_build() -> None:
    """Import what a build needs in this process, seconds for which dbt would compete with it."""
    for module in ("dagster_dbt", "pyarrow.parquet"):
        import_module(module)


# ------------------------------------------------------------------------------------------------------------------ dbt


def _dbt_assets(settings: Settings, manifest: Manifest) -> dg.AssetsDefinition:
    partitions = day_partitions(settings.start_date)

    @dg.multi_asset(
        name=DBT_ASSET,
        specs=manifest.asset_specs(partitions, IO_MANAGER),
        check_specs=manifest.check_specs(),
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run(),
        required_resource_keys={"platform"},
        pool=WAREHOUSE_POOL,
        op_tags={"layer": "transform"},
    )
    def dbt_assets(context: dg.AssetExecutionContext) -> Iterator[Any]:
        yield from _build(context, manifest, partitions)

    return dbt_assets


def _build(
    context: dg.AssetExecutionContext, manifest: Manifest, partitions: dg.PartitionsDefinition[str]
) -> Iterator[Any]:
    platform: PlatformResource = context.resources.platform
    settings = platform.settings
    first_day, last_day = _window(context, settings)
    # The clock of the files the build reads, not the platform's: the two are compared later.
    build = Build(first_day=first_day, last_day=last_day, started_at=datetime.now(UTC), inputs=inputs_digest(settings))
    prepare_lake(settings)
    outcome = _run_slices(context, settings, manifest, partitions, (first_day, last_day))
    if outcome.failure and lake_written_since(settings, build):
        # A build reads the lake many times: a partition replaced in between makes its own tests disagree.
        context.log.info(f"{outcome.failure}\nThe lake changed while dbt read it: building once more.")
        build = replace(build, started_at=datetime.now(UTC))
        outcome = _run_slices(context, settings, manifest, partitions, (first_day, last_day))
    with measured("pictures"):
        tables = _tables_as_built(settings, manifest)
        names = [relation_name(node) for node in manifest.marts() if relation_name(node) in tables]
        drawn = asked(draw_marts, settings, names, last_day)
    yield from _with_pictures(context, outcome.events, drawn, tables, manifest)
    if outcome.failure:
        raise dg.Failure(description=outcome.failure, metadata=outcome.metadata, allow_retries=False)
    marts = {dg.AssetKey(relation_name(node)) for node in manifest.marts()}
    if marts <= set(context.selected_asset_keys):
        record_build(settings, build)


def _window(context: dg.AssetExecutionContext, settings: Settings) -> tuple[date, date]:
    """The run's days. The UI's Execute button of a check names none: then every day there is."""
    if context.has_partition_key or context.has_partition_key_range:
        return window_days(context.partition_keys)
    return settings.start_date, datetime.now(UTC).date()


def prepare_lake(settings: Settings) -> None:
    """What the models count on before any vendor delivered: anchors, the blocked list, the sites, our own work."""
    from analytics_platform.vendors import all_tables

    Lake(settings.home.lake).prepare(all_tables().values(), site_rows(settings))
    export_ops(settings)


def site_rows(settings: Settings) -> list[SiteRow]:
    """The configured sites as the models see them, one row a site and vendor."""
    return [
        SiteRow(
            site_key=site.key,
            timezone=site.timezone,
            hostname=site.hostname,
            start_date=site.start_date,
            vendor=vendor,
            vendor_entity_id=next((ids[name] for name in sorted(ids) if name.endswith(("id", "code"))), None),
            is_enabled=True,
        )
        for site in settings.sites
        for vendor, ids in sorted(site.vendors.items())
    ]


@dataclass(kw_only=True)
class _Outcome:
    """What came of one dbt process: Dagster events in dbt's order, and the failure in words if there was one."""

    events: list[Any] = field(default_factory=list)
    failure: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class _Failures:
    """Nodes that did not go well, collected from dbt's event stream: run_results.json is stale after a kill
    (RELIABILITY M16).
    """

    messages: dict[str, str] = field(default_factory=dict)
    skipped: int = 0
    other: list[str] = field(default_factory=list)

    def add(self, raw: Mapping[str, Any]) -> None:
        """Take what matters of one structured dbt log event."""
        node = raw["data"].get("node_info") or {}
        name = raw["info"]["name"]
        if name == "SkippingDetails" or node.get("node_status") == "skipped":
            self.skipped += name in ("SkippingDetails", "LogSkipBecauseError", "MarkSkippedChildren")
        elif name == "RunResultError":
            self.messages[_title(node)] = _readable(str(raw["data"].get("msg", "")))
        elif name == "RunResultFailure":
            self.messages.setdefault(_title(node), "")
        elif raw["info"]["level"] == "error":
            self.other.append(_readable(str(raw["info"]["msg"])))

    def describe(
        self, log: Path, first_day: date, last_day: date, *, exit_code: int = 1, last_lines: Iterable[str] = ()
    ) -> str:
        """The failure for a tired person: which model or test, dbt's own reason, where the rest is.

        Args:
            exit_code: of dbt, as subprocess has it: negative is the signal that ended it.
        """
        lines = [f"dbt build of {first_day} … {last_day} failed."]
        if exit_code < 0:
            # The last lines would show only that all was well until then.
            name = signal.Signals(-exit_code).name
            lines.append(f"- dbt was ended from outside by {name} (often: not enough memory). Run it again.")
            last_lines = ()
        named = list(self.messages.items())
        lines += [f"- {name}: {reason}" if reason else f"- {name}" for name, reason in named[:_SHOWN_FAILURES]]
        if len(named) > _SHOWN_FAILURES:
            lines.append(f"- and {len(named) - _SHOWN_FAILURES} more")
        if not named:
            lines += [f"- {text}" for text in self.other[:_SHOWN_FAILURES] or last_lines]
        if self.skipped:
            lines.append(f"{self.skipped} downstream were skipped.")
        lines.append(f"What is published stays as it was. All of it: {log}")
        return "\n".join(lines)


def _title(node: Mapping[str, Any]) -> str:
    path = node.get("node_path", "")
    kind = node.get("resource_type", "node")
    return f"{kind} {node.get('node_name', 'unknown')}" + (f" ({path})" if path and kind == "model" else "")


def _readable(message: str) -> str:
    """DuckDB's or dbt's words in one line, without the values a conversion error quotes."""
    lines = [line.strip() for line in redact(message).splitlines() if line.strip()]
    # The first line repeats the node, what follows "LINE" is a picture of the SQL.
    kept = [line for line in lines if not line.startswith(("Runtime Error in", "Database Error in", "^"))]
    text = " ".join(line for line in kept or lines if not line.startswith("LINE "))
    if "Conversion Error" in text or "Could not convert" in text:
        text = _QUOTED_VALUE.sub("…", text)
    return text[:400]


def slices(first: date, last: date) -> Iterator[tuple[date, date]]:
    """A long window in pieces, oldest first: what a build takes of memory grows with its window, and any sequence of
    builds ends as one build does (rebuild equality).
    """
    count = max(1, -(-((last - first).days + 1) // _SLICE_DAYS))
    for number in range(count):
        begin = first + timedelta(days=number * _SLICE_DAYS)
        yield begin, min(last, begin + timedelta(days=_SLICE_DAYS - 1))


def _run_slices(
    context: dg.AssetExecutionContext,
    settings: Settings,
    manifest: Manifest,
    partitions: dg.PartitionsDefinition[str],
    window: tuple[date, date],
) -> _Outcome:
    """One dbt process a slice, until one fails. The last one's events are told, with failed tests of those before."""
    failed: dict[dg.AssetCheckKey, Any] = {}
    outcome = _Outcome()
    for piece in slices(*window):
        outcome = _run_dbt(context, settings, manifest, partitions, piece)
        failed |= {key: event for event in outcome.events if (key := _check_of(event)) and not event.passed}
        outcome.events = [failed.get(key, event) if (key := _check_of(event)) else event for event in outcome.events]
        if outcome.failure:
            break
    return outcome


def _check_of(event: Any) -> dg.AssetCheckKey | None:
    """Which check an event tells of; None for an event of another kind."""
    if not isinstance(event, dg.AssetCheckResult | dg.AssetCheckEvaluation) or event.asset_key is None:
        return None
    return dg.AssetCheckKey(event.asset_key, event.check_name or "")


def _run_dbt(
    context: dg.AssetExecutionContext,
    settings: Settings,
    manifest: Manifest,
    partitions: dg.PartitionsDefinition[str],
    window: tuple[date, date],
) -> _Outcome:
    timing = _Timing()
    target = _run_folder(settings, context.run_id)
    outcome = _Outcome()
    failures = _Failures()
    with _dbt_environment(settings, window):
        invocation = _invocation(context, settings, manifest, partitions, target)
        context.resources.platform.note_child(invocation.process.pid)

        lines = _LogLines(context.log.info)
        with redirect_stdout(lines), (target / _DBT_LOG).open("a", encoding="utf-8") as log:
            for event in invocation.stream_raw_events():
                failures.add(event.raw_event)
                timing.add(event.raw_event)
                log.write(_log_line(event.raw_event))
                outcome.events += event.to_default_asset_events(
                    manifest=invocation.manifest,
                    dagster_dbt_translator=invocation.dagster_dbt_translator,
                    context=invocation.context,
                    target_path=invocation.target_path,
                )
            lines.finish()
    exit_code = invocation.process.wait()
    context.resources.platform.note_child(None)
    timing.tell()
    for folder in (target, parse_folder(settings)):
        keep_parsed(settings, folder)
    if exit_code != 0:
        outcome.failure = failures.describe(target / _DBT_LOG, *window, exit_code=exit_code, last_lines=lines.last)
        outcome.metadata = {
            "dbt_log": dg.MetadataValue.path(str(target / _DBT_LOG)),
            "failed": sorted(failures.messages),
        }
    return outcome


def _invocation(
    context: dg.AssetExecutionContext,
    settings: Settings,
    manifest: Manifest,
    partitions: dg.PartitionsDefinition[str],
    target: Path,
) -> "DbtCliInvocation":
    """A dbt that builds: the one that waits for it (`dbt_ahead`), else a new process."""
    arguments = _arguments(context, manifest)
    handed = hand_over(settings, arguments, {**os.environ, **_environment_of_dbt(target)})
    try:
        if handed is None:
            invocation = _new_process(settings, manifest, partitions, target, arguments)
        else:
            context.resources.platform.note_child(handed.pid)
            invocation = _beside(handed, manifest, partitions, target)
    except BaseException:
        if handed is not None:
            handed.terminate()
            handed.wait()
        raise
    # Given to cli() it would look for the manifest in the asset's metadata, where @dbt_assets puts it.
    invocation.context = context
    return invocation


def _new_process(
    settings: Settings,
    manifest: Manifest,
    partitions: dg.PartitionsDefinition[str],
    target: Path,
    arguments: Sequence[str],
) -> "DbtCliInvocation":
    project = dbt_project(settings)
    dbt = _dbt_cli()(project_dir=project, profiles_dir=str(project.profiles_dir), dbt_executable=dbt_executable())
    return dbt.cli(
        [*arguments, *_parsed_option(settings)],
        manifest=manifest.with_attached_tests(),
        dagster_dbt_translator=dagster_dbt_translator(manifest, partitions),
        target_path=target,
        raise_on_error=False,
    )


def _beside(
    process: "subprocess.Popen[bytes]", manifest: Manifest, partitions: dg.PartitionsDefinition[str], target: Path
) -> "DbtCliInvocation":
    """Read from a dbt that builds already. What is imported here takes seconds, which it has time for."""
    hint_or_do(prepare_drawing)
    from dagster_dbt import DbtCliInvocation
    from packaging.version import Version

    return DbtCliInvocation(
        process=process,
        manifest=manifest.with_attached_tests(),
        dagster_dbt_translator=dagster_dbt_translator(manifest, partitions),
        project_dir=PROJECT_DIRECTORY,
        target_path=target,
        raise_on_error=False,
        cli_version=Version(version("dbt-core")),
    )


def _environment_of_dbt(target: Path) -> dict[str, str]:
    """What dagster-dbt's resource sets for a process of its own, as its `cli()` does."""
    return {
        "DAGSTER_DBT_CLI": "true",
        "DBT_LOG_FORMAT": "json",
        "DBT_TARGET_PATH": str(target),
        "DBT_LOG_PATH": str(target),
        "DBT_PROFILES_DIR": str(PROJECT_DIRECTORY),
        "DBT_PROJECT_DIR": str(PROJECT_DIRECTORY),
    }


class _Timing:
    """Seconds of one dbt process by part, from its own events (`core.stopwatch`)."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._first_node: float | None = None
        self._seconds = {"dbt_models": 0.0, "dbt_tests": 0.0}

    def add(self, raw: Mapping[str, Any]) -> None:
        """Take what matters of one structured dbt log event."""
        if raw["info"]["name"] == "LogStartLine" and self._first_node is None:
            self._first_node = time.perf_counter()
        elif raw["info"]["name"] in _NODE_RESULTS:
            part = "dbt_tests" if raw["info"]["name"] == "LogTestResult" else "dbt_models"
            self._seconds[part] += float(raw["data"].get("execution_time") or 0.0)

    def tell(self) -> None:
        """Two nodes run at a time: the wall time of all is divided as their own seconds are."""
        now = time.perf_counter()
        first = self._first_node or now
        took("dbt_start", first - self._began)
        whole = sum(self._seconds.values())
        for part, seconds in self._seconds.items():
            took(part, (now - first) * seconds / whole if whole else 0.0)


def _parsed_option(settings: Settings) -> list[str]:
    before = parsed_before(settings)
    return ["--partial-parse-file-path", str(before)] if before is not None else []


def _arguments(context: dg.AssetExecutionContext, manifest: Manifest) -> list[str]:
    arguments = ["build", *_QUIET, "--exclude-resource-type", "unit_test"]
    selected = set(context.selected_asset_keys)
    nodes = [node for node in manifest.assets if dg.AssetKey(relation_name(node)) in selected]
    if len(nodes) < len(manifest.assets):
        checks = {check.name for check in context.selected_asset_check_keys}
        tests = [node for node in manifest.tests.values() if node["name"] in checks]
        # Exactly what was asked: dbt's own indirect selection would add tests that read unselected relations.
        names = [".".join(node["fqn"]) for node in (*nodes, *tests)]
        arguments += ["--indirect-selection", "empty", "--select", " ".join(names)]
    elif not manifest.thorough_checks & set(context.selected_asset_check_keys):
        arguments += ["--selector", "daily"]
    return arguments


@cache
def _dbt_cli() -> "type[DbtCliResource]":
    """dagster-dbt's resource without the database adapter it opens in this process. Imports dagster-dbt.

    The adapter serves `fetch_column_metadata` only, keeps a read-only connection on which the next dbt build of this
    process dies (PRACTICE guard 5), and with `dbt --version` costs 4 of a build's 12 s. Schemas and row counts are
    read by one query instead.
    """
    from dagster_dbt import DbtCliResource
    from packaging.version import Version

    class DbtWithoutAdapter(DbtCliResource):
        def _initialize_dbt_core_adapter(self, args: Sequence[str]) -> Any:
            return None

        @property
        def _cli_version(self) -> Version:
            return Version(version("dbt-core"))

    return DbtWithoutAdapter


@contextmanager
def _dbt_environment(settings: Settings, window: tuple[date, date]) -> Iterator[None]:
    """The variables profiles.yml, the sources and `window_bound` read, for this process and dbt's (inherited)."""
    first, last = window[0] - timedelta(days=1), window[1] + timedelta(days=_DATES_AFTER)
    settings.home.warehouse.parent.mkdir(parents=True, exist_ok=True)
    wanted = {
        **dbt_variables(settings),
        "DBT_ENV_CUSTOM_ENV_WINDOW_START": str(first),
        "DBT_ENV_CUSTOM_ENV_WINDOW_END": str(last),
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _log_line(raw: Mapping[str, Any]) -> str:
    info = raw["info"]
    return f"{info['ts']} [{info['level']}] {redact(str(info['msg']))}\n"


def _run_folder(settings: Settings, run_id: str) -> Path:
    """The target folder of dbt in this run; the newest few are kept for reading logs."""
    runs = settings.home.dbt_target / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    kept = sorted((path for path in runs.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for path in kept[: max(0, len(kept) - _KEPT_RUN_FOLDERS + 1)]:
        shutil.rmtree(path, ignore_errors=True)
    target = runs / run_id
    target.mkdir(exist_ok=True)
    return target


class _LogLines(io.TextIOBase):
    """dbt's own lines into the run log as they come, those of a second as one entry, because each entry is a row and a
    commit of the event log; a terminal that runs in this process stays clean.
    """

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._rest = ""
        self._gathered: list[str] = []
        self._logged_at = time.monotonic()
        self.last: deque[str] = deque(maxlen=_SHOWN_FAILURES)

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.strip():
                self.last.append(redact(line.strip()))
                self._gathered.append(self.last[-1])
        if time.monotonic() - self._logged_at >= _LOG_EVERY_SECONDS:
            self.finish()
        return len(text)

    def finish(self) -> None:
        """Log what was gathered. Not called flush: dagster-dbt flushes after each line."""
        if self._gathered:
            self._log("\n".join(self._gathered))
        self._gathered.clear()
        self._logged_at = time.monotonic()


def _tables_as_built(settings: Settings, manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Metadata of each relation from the warehouse itself: the columns it really has where they are not those its
    definition lists, and the rows of the marts.
    """
    if not settings.home.warehouse.is_file():
        return {}
    descriptions = {
        (relation_name(node), name): column.get("description") or None
        for node in manifest.assets
        for name, column in node.get("columns", {}).items()
    }
    documented = {relation_name(node): list(node.get("columns", {})) for node in manifest.assets}
    columns: dict[str, list[dg.TableColumn]] = {}
    with warehouse_connection(settings) as connection:
        for table, name, kind in rows(
            connection,
            "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE database_name = current_database() "
            "AND list_contains(?, schema_name) ORDER BY table_name, column_index",
            [sorted({schema_name(node) for node in manifest.assets})],
        ):
            column = dg.TableColumn(name=name, type=kind, description=descriptions.get((table, name)))
            columns.setdefault(table, []).append(column)
        # A run over a range of days stores this once a day and relation, so what the definition says is not repeated.
        found: dict[str, dict[str, Any]] = {
            table: {}
            if [column.name for column in listed] == documented.get(table)
            else {"dagster/column_schema": dg.TableSchema(columns=listed)}
            for table, listed in columns.items()
        }
        for node in manifest.marts():
            name = relation_name(node)
            if name in found:
                table = f"{quote(schema_name(node))}.{quote(name)}"
                found[name]["dagster/row_count"] = rows(connection, f"SELECT count(*) FROM {table}")[0][0]
    return found


def _with_pictures(
    context: dg.AssetExecutionContext,
    events: Sequence[Any],
    drawn: Callable[[], Mapping[str, Mapping[str, str]]],
    tables: Mapping[str, dict[str, Any]],
    manifest: Manifest,
) -> Iterator[Any]:
    """The events of marts, and of what is made of them, after all others: the pictures are waited for when the first
    mart comes, and most relations are told by then.
    """
    marts = {relation_name(node) for node in manifest.marts()}
    is_shown = False
    last = manifest.marts_and_below
    for event in sorted(events, key=lambda event: _relation_of(event) in last):
        if not is_shown and isinstance(event, dg.Output) and event.output_name in marts:
            is_shown = True
            with measured("pictures"):
                pictures = drawn()
            for name, pictured in pictures.items():
                _show(
                    context,
                    name,
                    {site: dg.MetadataValue.md(text) for site, text in pictured.items()},
                    tables,
                    manifest,
                )
        yield _with_table(event, tables)
    if not is_shown:
        # Whoever draws has the warehouse open.
        with measured("pictures"):
            drawn()


def _relation_of(event: Any) -> str:
    """The relation that a materialisation, a check or an observation tells of."""
    name: str = event.output_name if isinstance(event, dg.Output) else event.asset_key.path[-1]
    return name


def _show(
    context: dg.AssetExecutionContext,
    name: str,
    pictured: Mapping[str, Any],
    tables: Mapping[str, dict[str, Any]],
    manifest: Manifest,
) -> None:
    """Pictures go to the newest day of a run, once: a range of days would store each of them once a day."""
    key = dg.AssetKey(name)
    if not pictured or key not in context.selected_asset_keys:
        return
    if manifest.is_windowed(name):
        context.add_asset_metadata(pictured, asset_key=key, partition_key=max(context.partition_keys))
    else:
        tables[name].update(pictured)


def _with_table(event: Any, tables: Mapping[str, Mapping[str, Any]]) -> Any:
    if isinstance(event, dg.Output) and event.output_name in tables:
        return event.with_metadata({**event.metadata, **tables[event.output_name]})
    return event


# -------------------------------------------------------------------------------------------------------------- publish


def _published(manifest: Manifest) -> dg.AssetsDefinition:
    @dg.asset(
        key=["published"],
        deps=[dg.AssetKey(relation_name(node)) for node in manifest.marts()],
        description=(
            "The newest immutable snapshot of the marts: one read-only DuckDB file and the same rows as Parquet, "
            "behind one atomic pointer. Notebooks and BI read only this, so a run never blocks a reader and a reader "
            "never blocks a run."
        ),
        group_name="published",
        kinds={"duckdb", "parquet"},
        owners=["team:analytics"],
        required_resource_keys={"platform"},
        pool=WAREHOUSE_POOL,
    )
    def published(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        platform: PlatformResource = context.resources.platform
        began = time.monotonic()
        with measured("publish"):
            publication = publish(platform.settings, manifest=manifest)
        return dg.MaterializeResult(
            metadata={
                "version": publication.version,
                "dagster/uri": f"published/{publication.path.name}",
                "dagster/row_count": sum(publication.row_counts.values()),
                "rows": dg.MetadataValue.md(describe_rows(publication.row_counts)),
                "size_bytes": publication.size,
                "seconds": round(time.monotonic() - began, 2),
                "window": f"{publication.first_day} … {publication.last_day}" if publication.builds else "unknown",
                "published_at": dg.MetadataValue.timestamp(publication.published_at),
            },
            data_version=dg.DataVersion(str(publication.version)),
        )

    return published


class PublishedTables(dg.ConfigurableIOManager):
    """Loads a published relation as a pandas frame: `defs.load_asset_value("fct_sessions")`, and inputs of pandas
    assets.

    With partitions, only rows of those days. Writing raises: dbt writes the warehouse, publish writes snapshots.
    """

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Refuse. dbt's own outputs carry no value and never come here."""
        if obj is None:
            return
        raise dg.Failure(
            description=f"{context.asset_key.to_user_string()}: published tables are read-only; write a dbt model.",
            allow_retries=False,
        )

    def load_input(self, context: dg.InputContext) -> Any:  # pandas.DataFrame, imported lazily
        """The relation named by the upstream asset's key.

        Raises:
            ConfigurationError: nothing is published, or not this relation.
        """
        from analytics_platform.catalog import Catalog
        from analytics_platform.settings import load_settings

        catalog = Catalog.open(load_settings().home.root)
        first: date | None = None
        last: date | None = None
        if context.has_asset_partitions:
            first, last = window_days(context.asset_partition_keys)
        return catalog.read("/".join(context.asset_key.path), first, last)
