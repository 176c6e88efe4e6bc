"""`analytics-platform`: thin verbs over the functions the assets use.

Belongs here: arguments, what a person sees, exit codes (0 ok, 1 failed, 2 usage, 3 quota-deferred). Does not belong
here: any work of
its own: `runner` starts runs, `catalog` reads, `core.quota` counts.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import date
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

from analytics_platform.core.errors import PlatformError
from analytics_platform.core.redaction import install_redaction
from analytics_platform.forget_cli import forget
from analytics_platform.notebook_cli import notebook
from analytics_platform.outbox_cli import outbox_app, print_outbox_counts
from analytics_platform.plan_cli import plan
from analytics_platform.quota_cli import print_quota_lines, quota
from analytics_platform.reconcile_cli import explain, reconcile
from analytics_platform.replay_cli import replay
from analytics_platform.settings import Settings, load_settings
from analytics_platform.terminal import (
    EXIT_FAILED,
    FromOption,
    JsonOption,
    SiteOption,
    ToOption,
    VendorOption,
    day_of,
    emit,
    finish,
    instant,
    screen_for,
)

if TYPE_CHECKING:
    from rich.console import Console

    from analytics_platform.core.progress import Progress
    from analytics_platform.runner import RunReport, VendorResult

__all__ = ["app", "keep_sigterm", "main"]

app = typer.Typer(
    name="analytics-platform",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Five web-analytics vendors, one warehouse. Start with `analytics-platform demo`: it needs no account.",
)

app.command()(plan)
app.command()(quota)
app.command()(reconcile)
app.command()(explain)
app.command()(notebook)
app.command()(forget)
app.command()(replay)
app.add_typer(outbox_app, name="outbox")

# ---------------------------------------------------------------------------------------------------------------- verbs


@app.command()
def demo(
    as_json: JsonOption = False, port: Annotated[int, typer.Option(help="Port named in the closing hint.")] = 3000
) -> None:
    """Fetch 2 sites × 28 days from a built-in sandbox, check, build marts, publish. No account, no network.

    Example: analytics-platform demo
    """
    from analytics_platform.demo import demo_home, sandbox_process

    settings = load_settings()
    chosen = demo_home(settings.home, create=True)
    if chosen is None:
        raise AssertionError("create=True always makes a demo home")
    screen = screen_for(as_json=as_json)
    screen.print(f"[bold]Demo[/bold] in {settings.home.root}: 5 vendors, 2 sites, {chosen.first} to {chosen.last}.")
    with sandbox_process(settings.home, chosen, meanwhile=_import_what_runs) as announcement:
        report = _run(load_settings(), chosen.first, chosen.last, None, None, refresh=False, marts=True, screen=screen)
        if not as_json:
            _print_demo_summary(screen, announcement, port)
    _finish(report, as_json=as_json)


@app.command()
def run(
    first: FromOption,
    last: ToOption,
    vendor: VendorOption = None,
    site: SiteOption = None,
    refresh: Annotated[bool, typer.Option(help="Ask again for days that are already final (costs requests).")] = False,
    marts: Annotated[bool, typer.Option(help="Build marts and publish afterwards.")] = True,
    thorough: Annotated[bool, typer.Option(help="Run every dbt test, also those left to the nightly job.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Materialise a range of days through Dagster, as the UI's button does, then build marts and publish.

    Example: analytics-platform run --from 2026-10-05 --to 2026-10-11 --vendor pirsch --site shop
    """
    screen = screen_for(as_json=as_json)
    report = _run(
        load_settings(),
        day_of(first),
        day_of(last),
        vendor,
        site,
        refresh=refresh,
        marts=marts,
        thorough=thorough,
        screen=screen,
    )
    _finish(report, as_json=as_json)


@app.command("replay-landing")
def replay_landing(
    first: FromOption, last: ToOption, vendor: VendorOption = None, site: SiteOption = None, as_json: JsonOption = False
) -> None:
    """Decode landed pages again, without a single request (after a change of a table's columns, say).

    Example: analytics-platform replay-landing --from 2026-10-05 --to 2026-10-11 --vendor smartlook
    """
    screen = screen_for(as_json=as_json)
    settings = load_settings()
    vendors, sites = _chosen(settings, vendor, site)
    with _runner(settings) as runner:
        results = []
        for result in runner.replay(day_of(first), day_of(last), vendors=vendors, sites=sites):
            results.append(result)
            _print_result(screen, result)
    emit(results, as_json=as_json)
    finish(failed=any(result.state == "failed" for result in results))


@app.command()
def sandbox(
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 7,
    first_day: Annotated[str, typer.Option(help="First day of the generated truth.", metavar="DAY")] = "2026-10-05",
    days: Annotated[int, typer.Option(min=1, help="How many days.")] = 28,
    scale: Annotated[float, typer.Option(min=0.01, help="Traffic, 1.0 is about 220 sessions a day.")] = 1.0,
    replay: Annotated[
        Path | None, typer.Option(help="Serve a real web log (Apache common fields, tab-separated).")
    ] = None,
    timezone: Annotated[str, typer.Option(help="Zone of the replayed site.")] = "America/New_York",
    port: Annotated[int, typer.Option(help="First of six consecutive ports; 0 takes free ones.")] = 0,
    until_stdin_closes: Annotated[
        bool, typer.Option(help="Stop when standard input ends (for a parent process).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Serve the five vendors on loopback from one generated truth, and print the environment that points at it.

    Example: analytics-platform sandbox --port 18440
    """
    from analytics_platform.sandbox.replay import replay_world
    from analytics_platform.sandbox.server import AUTH, VENDORS, Sandbox, serve
    from analytics_platform.sandbox.truth import generate

    world = (
        generate(seed=seed, first_day=day_of(first_day), days=days, scale=scale)
        if replay is None
        else replay_world(replay, timezone=timezone)
    )

    def announce(running: Sandbox) -> None:
        if as_json:
            sys.stdout.write(json.dumps(_announcement(running)) + "\n")
            sys.stdout.flush()
        else:
            _print_sandbox(running)

    if until_stdin_closes:
        _terminate_when_stdin_closes()
    names = (*VENDORS, AUTH)
    serve(world, ports={name: port + n for n, name in enumerate(names)} if port else None, on_ready=announce)


@app.command()
def ui(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Loopback port of the Dagster UI; 0 takes a free one.")
    ] = 3000,
) -> None:
    """Open the Dagster UI (webserver and daemon, loopback only) on the home; a demo home gets its sandbox back.

    Example: analytics-platform ui --port 3000
    """
    from analytics_platform.demo import demo_home, sandbox_process
    from analytics_platform.ui import free_port, serve_ui

    def say(text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    settings = load_settings()
    chosen = demo_home(settings.home)
    with free_port(port) as listener, sandbox_process(settings.home, chosen) if chosen else nullcontext():
        raise typer.Exit(serve_ui(load_settings(), listener=listener, say=say))


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Check settings, credentials and stores, and say what is missing and how to fix it. Sends no request.

    Example: analytics-platform doctor
    """
    from analytics_platform.status import diagnose

    findings = diagnose(load_settings())
    screen = screen_for(as_json=as_json)
    for finding in findings:
        mark = (
            "[green]ok[/green]  " if finding.ok else "[red]fix[/red] " if finding.required else "[yellow]off[/yellow] "
        )
        screen.print(f"{mark} {finding.subject}: {finding.text}")
    emit(findings, as_json=as_json)
    finish(failed=any(finding.required and not finding.ok for finding in findings))


@app.command()
def status(as_json: JsonOption = False) -> None:
    """One screen: days complete per vendor and site, what is deferred or blocked, last publish.

    Example: analytics-platform status
    """
    from analytics_platform.status import read_status

    found = read_status(load_settings())
    if not as_json:
        _print_status(screen_for(as_json=as_json), found)
    emit(found, as_json=as_json)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="One SELECT over the published marts.")], as_json: JsonOption = False
) -> None:
    """Query the published snapshot. Read-only; never waits for a run and never blocks one.

    Example: analytics-platform sql "select vendor, sum(sessions) from fct_daily_traffic where basis = 'native' group
    by 1"
    """
    from analytics_platform.catalog import Catalog

    frame = Catalog.open().sql(query)
    if as_json:
        sys.stdout.write(frame.to_json(orient="records", date_format="iso") + "\n")
    else:
        sys.stdout.write(frame.to_string(index=False) + "\n")


def main() -> NoReturn:
    """Entry point: errors for people become one paragraph, a traceback only with ANALYTICS_PLATFORM_TRACEBACK=1."""
    install_redaction()
    keep_sigterm()
    try:
        app()
    except PlatformError as error:
        if os.environ.get("ANALYTICS_PLATFORM_TRACEBACK"):
            raise
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(EXIT_FAILED)
    sys.exit(0)


def keep_sigterm() -> None:
    """SIGTERM ends a job in the background too. A shell has SIGINT ignored there, and Dagster gives SIGTERM whatever
    SIGINT has when a run ends: only SIGKILL would be left, for the process and for all that it starts.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:

        def stop(number: int, frame: FrameType | None) -> None:
            if number != signal.SIGINT:
                raise KeyboardInterrupt

        signal.signal(signal.SIGINT, stop)


# ------------------------------------------------------------------------------------------------------------- running

_SHOWN_SECONDS: Final = 5.0
"""A vendor that told nothing for so long is at something else."""


def _import_what_runs() -> None:
    for module in ("runner", "definitions", "vendors", "dagster_home", "dagster_storage"):
        import_module(f"analytics_platform.{module}")


@contextmanager
def _runner(settings: Settings, began: float | None = None) -> Iterator[Any]:
    from analytics_platform.dagster_home import instance
    from analytics_platform.runner import Runner

    with instance(settings) as opened:
        try:
            yield Runner(settings, opened, began=began)
        finally:
            gc.unfreeze()  # what building the definitions has frozen


def _run(
    settings: Settings,
    first_day: date,
    last_day: date,
    vendor: Sequence[str] | None,
    site: Sequence[str] | None,
    *,
    refresh: bool,
    marts: bool,
    screen: Console,
    thorough: bool = False,
) -> RunReport:
    began = time.monotonic()
    from analytics_platform.core.progress import listening
    from analytics_platform.lanes import lanes_for
    from analytics_platform.runner import RunReport

    if last_day < first_day:
        raise typer.BadParameter(f"--to {last_day} is before --from {first_day}")
    vendors, sites = _chosen(settings, vendor, site)
    _import_what_runs()
    with (
        lanes_for(settings, vendors) as lanes,
        _live(screen) as tell,
        listening(tell),
        _runner(settings, began) as runner,
    ):
        days = runner.run(
            first_day,
            last_day,
            vendors=vendors,
            sites=sites,
            refresh=refresh,
            marts=marts,
            thorough=thorough,
            lanes=lanes,
        )
        for item in days:
            if isinstance(item, RunReport):
                _print_report(screen, item)
                return item
            _print_result(screen, item)
    raise AssertionError("a run ends with its report")


def _chosen(
    settings: Settings, vendor: Sequence[str] | None, site: Sequence[str] | None
) -> tuple[list[str], list[str]]:
    from analytics_platform.vendors import vendor_names

    known = vendor_names()
    for name in vendor or ():
        if name not in known:
            raise typer.BadParameter(f"no vendor {name!r}; there are {', '.join(sorted(known))}")
    if not settings.sites:
        raise typer.BadParameter(
            "no sites.yaml found: copy sites.example.yaml, or start with `analytics-platform demo`"
        )
    for key in site or ():
        settings.site(key)
    return [name for name in known if not vendor or name in vendor], list(site or settings.site_keys)


@contextmanager
def _live(screen: Console) -> Iterator[Callable[[Progress], None]]:
    """Draw progress on a terminal, a line a vendor; on anything else print a plain line now and then."""
    if not screen.is_terminal:
        last = 0.0

        def plain(progress: Progress) -> None:
            nonlocal last
            if time.monotonic() - last >= 5.0:
                last = time.monotonic()
                screen.print(f"  … {progress}", highlight=False)

        yield plain
        return
    newest: dict[str, tuple[float, Progress]] = {}
    with screen.status("starting") as spinner:

        def draw(progress: Progress) -> None:
            now = time.monotonic()
            newest[progress.vendor] = (now, progress)
            spinner.update("\n  ".join(str(each) for at, each in newest.values() if now - at < _SHOWN_SECONDS))

        yield draw


def _terminate_when_stdin_closes() -> None:
    import signal
    import threading

    def watch() -> None:
        # os.read, not sys.stdin: its buffer's lock would be held by this thread while the interpreter shuts down.
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="stdin", daemon=True).start()


# ------------------------------------------------------------------------------------------------------------ printing


_STYLE: Final = {
    "done": "green",
    "complete": "green",
    "deferred": "yellow",
    "off": "yellow",
    "failed": "red",
    "not used": "dim",
}


def _print_result(screen: Console, result: VendorResult) -> None:
    style = _STYLE[result.state]
    text = f"[{style}]{result.state:9}[/{style}] {result.vendor:12} {result.site:8}"
    if result.state in ("done", "deferred", "failed"):
        text += f" {result.partitions:4} partitions {result.rows:7,} rows"
        text += f" {result.requests:5} requests {result.seconds:6.1f} s"
    screen.print(text, highlight=False)
    if result.message:
        screen.print(f"          {result.message}", highlight=False, markup=False)
    if result.failed_checks:
        screen.print(
            f"          checks that found something: {', '.join(result.failed_checks)}", highlight=False, markup=False
        )


def _print_report(screen: Console, report: RunReport) -> None:
    style = _STYLE[report.marts]
    seconds = report.seconds_by_part.get("dbt and publish", 0.0)
    screen.print(
        f"[{style}]{report.marts:9}[/{style}] marts: one dbt build, then publish {seconds:6.1f} s", highlight=False
    )
    if report.marts_message:
        screen.print(f"          {report.marts_message}", highlight=False, markup=False)
    parts = report.parts
    dbt = parts.dbt_start_seconds + parts.dbt_models_seconds + parts.dbt_tests_seconds
    screen.print(
        f"{report.requests:,} vendor requests in all. {parts.total_seconds:.1f} s: requests "
        f"{parts.requests_seconds:.1f}, landing and lake {parts.landing_seconds + parts.lake_seconds:.1f}, checks "
        f"{parts.checks_seconds:.1f}, dbt {dbt:.1f}, publish {parts.publish_seconds + parts.pictures_seconds:.1f}, "
        f"Dagster {parts.dagster_seconds:.1f}.",
        highlight=False,
    )


_SUMMARY_SQL: Final = """
SELECT site_key, vendor, any_value(coverage) AS coverage, sum(sessions) AS sessions, sum(views) AS views,
       sum(bounces) / sum(sessions) AS bounce_rate, any_value(reason_null) AS reason
FROM fct_daily_traffic WHERE basis = 'native' GROUP BY site_key, vendor ORDER BY site_key DESC, sessions DESC NULLS LAST
"""


def _print_demo_summary(screen: Console, announcement: dict[str, Any], port: int) -> None:
    from rich.table import Table

    from analytics_platform.catalog import Catalog

    table = Table(title="What each vendor says of the same 28 days, in its own definitions")
    for name in ("site", "vendor", "covers", "sessions", "views", "bounce rate", "why empty"):
        table.add_column(name, justify="right" if name in ("sessions", "views", "bounce rate") else "left")
    for row in Catalog.open().sql(_SUMMARY_SQL).itertuples():
        numbers = [_number(row.sessions, ",.0f"), _number(row.views, ",.0f"), _number(row.bounce_rate, ".3f")]
        reason = "" if numbers[0] != "–" else str(row.reason).removeprefix("all=").replace("_", " ")
        table.add_row(row.site_key, row.vendor, row.coverage, *numbers, reason)
    screen.print(table)
    screen.print("Planted in the data, for you to find:")
    for story in announcement["stories"]:
        screen.print(f"  · {story}", highlight=False, markup=False)
    screen.print("\n[bold]What to do next[/bold]")
    for command, purpose in (
        ("make ui", f"the asset graph, every partition and check, on http://127.0.0.1:{port}"),
        (".venv/bin/analytics-platform reconcile 2026-10-24", "why the vendors disagree on that date"),
        (".venv/bin/analytics-platform notebook first_look", "a first look, in the browser"),
        (".venv/bin/analytics-platform status", "what is complete, deferred or blocked"),
        (".venv/bin/analytics-platform quota", "requests used and left, per vendor account"),
        (".venv/bin/analytics-platform demo", "the same again: finished days cost no request"),
    ):
        screen.print(f"  {command:50} {purpose}", highlight=False, markup=False)
    screen.print("  in a notebook:", highlight=False)
    screen.print("    from analytics_platform.catalog import Catalog", highlight=False, markup=False)
    screen.print(
        '    Catalog.open().read("fct_daily_traffic", "2026-10-05", "2026-11-01", site="shop")',
        highlight=False,
        markup=False,
    )


def _number(value: Any, style: str) -> str:
    import pandas as pd

    return "–" if pd.isna(value) else format(value, style)


def _print_sandbox(running: Any) -> None:
    for name, value in running.environment().items():
        sys.stdout.write(f"export {name}={value}\n")
    sys.stdout.write("# sites.yaml:\n" + "".join(f"# {line}\n" for line in running.sites_yaml().splitlines()))
    sys.stdout.flush()


def _announcement(running: Any) -> dict[str, Any]:
    return {
        "environment": running.environment(),
        "sites_yaml": running.sites_yaml(),
        "base_urls": dict(running.base_urls),
        "stories": [_story(story) for story in running.world.stories],
    }


def _story(story: Any) -> str:
    days = f"{story.first_day}" if story.first_day == story.last_day else f"{story.first_day} to {story.last_day}"
    return f"{story.site_key}, {days}: {story.text}"


def _print_status(screen: Console, found: Any) -> None:
    from rich.table import Table

    table = Table(title=f"Status of {found.home}")
    for name in ("vendor", "site", "days", "newest day", "last landed", "deferred until", "blocked", "credentials"):
        table.add_column(name, justify="right" if name in ("days", "blocked") else "left")
    for row in found.vendors:
        table.add_row(
            row.vendor,
            row.site,
            str(row.complete_days),
            str(row.newest_day or "–"),
            instant(row.landed_at),
            instant(row.deferred_until),
            str(row.blocked_partitions or "–"),
            f"not set: {', '.join(row.missing_variables)}" if row.missing_variables else "ok",
        )
    screen.print(table)
    screen.print(
        f"Published: version {found.published_version or '–'}, {instant(found.published_at)}.", highlight=False
    )
    print_quota_lines(screen, found.quota)
    print_outbox_counts(screen, found.outbox)


# ------------------------------------------------------------------------------------------------------------- details


def _finish(report: RunReport, *, as_json: bool) -> None:
    emit(report, as_json=as_json)
    finish(failed=report.failed, deferred=report.deferred)


if __name__ == "__main__":
    main()
