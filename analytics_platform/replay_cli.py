"""The `replay` verb: which recordings show an outcome, and their links for who asks.

Belongs here: arguments and what a person sees. Does not belong here: finding recordings and links (`replay`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from analytics_platform.settings import load_settings
from analytics_platform.terminal import JsonOption, SiteOption, VendorOption, day_of, emit, instant, screen_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from analytics_platform.replay import Recording

__all__ = ["replay"]


def replay(
    outcome: Annotated[
        str,
        typer.Option(help="converted, bounced, errored, rage_clicked, dropped:<step> or exposed:<experiment>."),
    ],
    day: Annotated[str, typer.Option(help="Local date the session began, YYYY-MM-DD.", metavar="DAY")],
    vendor: VendorOption = None,
    site: SiteOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Recordings a site, best first.")] = 5,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Show the links. Whoever has one may watch the recording.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Which recordings to watch for an outcome of a date. Links are shown only with --reveal. Sends no request.

    Example: analytics-platform replay --outcome dropped:checkout --day 2026-10-20 --site shop --limit 3
    """
    from datetime import UTC, datetime

    from analytics_platform.replay import find_recordings, reveal_links

    settings = load_settings()
    found = find_recordings(settings, day_of(day), outcome=outcome, sites=site or (), vendors=vendor or (), limit=limit)
    if reveal:
        found = reveal_links(settings, found, now=datetime.now(UTC))
    if not as_json:
        _show(screen_for(as_json=False), found, reveal=reveal)
    emit(found, as_json=as_json)


def _show(screen: Console, found: Sequence[Recording], *, reveal: bool) -> None:
    from rich.table import Table

    table = Table(title=f"{found[0].outcome}, {found[0].session_date_local}")
    for name in ("site", "rank", "vendor", "began", "seconds", "pages", "session", "reference"):
        table.add_column(name, justify="right" if name in ("rank", "seconds", "pages") else "left")
    for row in found:
        seconds = "–" if row.duration_seconds is None else f"{row.duration_seconds:,.0f}"
        pages = "–" if row.page_count is None else str(row.page_count)
        cells = (row.site, str(row.priority), row.vendor, instant(row.started_at), seconds, pages)
        table.add_row(*cells, row.session_key, row.link_ref)
    screen.print(table)
    if not reveal:
        screen.print("The links: the same command with --reveal.", highlight=False)
        return
    for row in found:
        # Not rich's own markup or links: the text must be copied as it is.
        screen.print(f"{row.site} {row.priority}: {row.link or row.note}", highlight=False, markup=False)
