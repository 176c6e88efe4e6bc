"""The `quota` verb: how every account stands, where its requests went, what waits and until when; once, or live.

Belongs here: arguments, what a person sees, the live view's loop. Does not belong here: collecting (`quota_view`),
counting (`core.quota`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from analytics_platform.core.clock import SYSTEM_CLOCK, Clock
from analytics_platform.core.progress import of_about
from analytics_platform.settings import load_settings
from analytics_platform.terminal import JsonOption, emit, instant, screen_for

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table

    from analytics_platform.core.quota_policy import WindowUsage
    from analytics_platform.quota_view import DeferredWork, QuotaView

__all__ = ["print_quota_lines", "quota", "show_quota", "watch_quota"]

_WATCH_EVERY_SECONDS: Final = 5.0
_BAR_WIDTH: Final = 24


def quota(
    watch: Annotated[bool, typer.Option(help="Stay and follow what waits, until nothing does (or Ctrl-C).")] = False,
    refresh: Annotated[
        bool, typer.Option(help="First ask the vendors that say so what they counted (may cost one request each).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Requests used and left per vendor account, when they are free again, where they went, what is deferred.

    Example: analytics-platform quota --watch
    """
    from analytics_platform.quota_view import read_quota_view, refresh_quota

    if watch and as_json:
        raise typer.BadParameter("--watch is for people; a program reads --json again and again")
    settings = load_settings()
    screen = screen_for(as_json=as_json)
    if refresh:
        for account, answer in refresh_quota(settings).items():
            said = "did not say" if answer is None else f"says it counted {answer.used} requests"
            screen.print(f"{account} {said}.", highlight=False)
    if watch:
        finished = watch_quota(lambda: read_quota_view(settings, quick=True), screen)
        screen.print("Nothing waits for quota." if finished else "No longer watching; the work goes on by itself.")
        return
    found = read_quota_view(settings)
    if not as_json:
        show_quota(screen, found)
    emit(found, as_json=as_json)


# ------------------------------------------------------------------------------------------------------------ one look


def show_quota(screen: Console, found: QuotaView) -> None:
    """Accounts, where the requests of 24 hours went, deferred work."""
    screen.print(_accounts(found))
    if any(vendor.requests_by_table or vendor.refused for vendor in found.vendors):
        screen.print(_spending(found))
    if found.deferrals:
        screen.print(_waiting(found, {}))
    else:
        screen.print("Nothing waits for quota.")


def _accounts(found: QuotaView) -> Table:
    from rich.table import Table

    table = Table(title=f"Request quota, {instant(found.at)}")
    for name in ("account", "sites", "requests"):
        table.add_column(name)
    for name in ("limit", "used", "left", "next slot", "all free again", "429"):
        table.add_column(name, justify="right")
    for row in found.windows:
        table.add_row(
            row.account,
            ", ".join(found.sites.get(row.account, ())) or "–",
            row.method_class,
            f"{row.limit} / {row.window_seconds:g} s",
            str(row.used),
            str(row.remaining),
            "now" if row.next_slot_at is None else instant(row.next_slot_at),
            "now" if row.resets_at is None else instant(row.resets_at),
            str(row.refused or "–"),
        )
    return table


def _spending(found: QuotaView) -> Table:
    from rich.table import Table

    table = Table(title="Requests of the last 24 hours")
    table.add_column("vendor")
    table.add_column("for")
    table.add_column("requests", justify="right")
    table.add_column("taught nothing")
    for vendor in found.vendors:
        waste = f"{vendor.waste.empty_pages} empty, {vendor.waste.refetched_pages} asked for again"
        if vendor.refused:
            waste += f", {vendor.refused} answered 429"
        for index, (name, requests) in enumerate(vendor.requests_by_table.items()):
            table.add_row("" if index else vendor.vendor, name, f"{requests:,}", "" if index else waste)
    return table


def _waiting(found: QuotaView, totals: Mapping[tuple[str, str, str], set[date]]) -> Table:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    table = Table(title="Waiting for quota, in the order of resuming")
    for name in ("what", "site", "days"):
        table.add_column(name, no_wrap=True)
    for name in ("rows landed", "requests", "resumes", "done by"):
        table.add_column(name, justify="right")
    if totals:
        table.add_column("progress")
    for work in found.deferrals:
        cells: list[Any] = [
            f"{work.vendor}/{work.stream}",
            work.site,
            f"{work.first_day} to {work.last_day}" if work.days > 1 else str(work.first_day),
            of_about(work.landed_records, work.expected_records),
            "–" if work.requests is None else str(work.requests),
            "now" if work.resume_at <= found.at else instant(work.resume_at),
            instant(work.finishes_at),
        ]
        if totals:
            total = len(totals[work.vendor, work.stream, work.site])
            cells.append(ProgressBar(total=total, completed=total - _left(found, work), width=_BAR_WIDTH))
        table.add_row(*cells)
    return table


def print_quota_lines(screen: Console, windows: tuple[WindowUsage, ...]) -> None:
    """Where `status` says how quota stands: the longest window of each bucket that was used, and nothing of others."""
    longest: dict[tuple[str, str], WindowUsage] = {}
    for row in sorted(windows, key=lambda row: row.window_seconds):
        longest[row.account, row.method_class] = row
    for row in longest.values():
        if row.used or row.blocked_until is not None:
            free = "" if row.next_slot_at is None else f", the next is free {instant(row.next_slot_at)}"
            screen.print(
                f"Quota: {row.account} {row.method_class}: {row.used} of {row.limit} used in {row.window_seconds:g} s, "
                f"{row.remaining} left{free}.",
                highlight=False,
            )


# ---------------------------------------------------------------------------------------------------------------- live


def watch_quota(
    read: Callable[[], QuotaView],
    screen: Console,
    *,
    clock: Clock = SYSTEM_CLOCK,
    every_seconds: float = _WATCH_EVERY_SECONDS,
) -> bool:
    """Show what waits until nothing does. Returns False where a person ended it by Ctrl-C.

    On a terminal one screen that is drawn again; elsewhere a line whenever something changed.
    """
    from rich.live import Live

    totals: dict[tuple[str, str, str], set[date]] = {}
    last_line = ""
    live = Live(console=screen, auto_refresh=False, transient=False) if screen.is_terminal else None
    try:
        with live or nullcontext():
            while True:
                found = read()
                _remember(totals, found)
                if live is not None:
                    live.update(_live_screen(found, totals), refresh=True)
                elif (line := _line(found, totals)) != last_line:
                    screen.print(line, highlight=False)
                    last_line = line
                if not found.is_waiting:
                    return True
                clock.sleep(every_seconds)
    except KeyboardInterrupt:
        return False


def _remember(totals: dict[tuple[str, str, str], set[date]], found: QuotaView) -> None:
    """The days that ever waited while we watched: what progress is a part of."""
    for work in found.deferrals:
        days = totals.setdefault((work.vendor, work.stream, work.site), set())
        days |= {date.fromordinal(n) for n in range(work.first_day.toordinal(), work.last_day.toordinal() + 1)}


def _left(found: QuotaView, work: DeferredWork) -> int:
    same = [w for w in found.deferrals if (w.vendor, w.stream, w.site) == (work.vendor, work.stream, work.site)]
    return sum(min(w.days_to_fetch, w.days) for w in same)


def _live_screen(found: QuotaView, totals: Mapping[tuple[str, str, str], set[date]]) -> Group:
    from rich.console import Group
    from rich.text import Text

    accounts = _accounts(found)
    hint = Text(_line(found, totals) + " Ctrl-C stops watching, not the work.", style="dim")
    return Group(accounts, _waiting(found, totals), hint) if found.is_waiting else Group(accounts, hint)


def _line(found: QuotaView, totals: Mapping[tuple[str, str, str], set[date]]) -> str:
    total = sum(len(days) for days in totals.values())
    left = sum(min(work.days_to_fetch, work.days) for work in found.deferrals)
    text = f"{total - left} of {total} days that waited are there."
    if not found.is_waiting:
        return text
    resumes_at = min(work.resume_at for work in found.deferrals)
    when = "is due now" if resumes_at <= found.at else f"goes on {instant(resumes_at)}"
    finishes = [work.finishes_at for work in found.deferrals if work.finishes_at is not None]
    text = f"{text} The next part {when}"
    return f"{text}, all of it is done {instant(max(finishes))} at the earliest." if finishes else f"{text}."
