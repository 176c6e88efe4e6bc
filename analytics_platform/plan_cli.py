"""The `plan` verb: what a range of days would cost, on one screen.

Belongs here: arguments and what a person sees. Does not belong here: planning (`plan`, `core.planning`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from analytics_platform.settings import load_settings
from analytics_platform.terminal import (
    FromOption,
    JsonOption,
    SiteOption,
    ToOption,
    VendorOption,
    day_of,
    emit,
    instant,
    screen_for,
)

if TYPE_CHECKING:
    from rich.console import Console

    from analytics_platform.core.forecast import Forecast
    from analytics_platform.core.planning import AccountPlan, Plan

__all__ = ["plan"]


def plan(
    first: FromOption,
    last: ToOption,
    vendor: VendorOption = None,
    site: SiteOption = None,
    refresh: Annotated[bool, typer.Option(help="Plan to ask again for days that are already final.")] = False,
    as_json: JsonOption = False,
) -> None:
    """What a range of days would cost: requests, hours, finish time, what is cheaper. Spends nothing.

    Example: analytics-platform plan --from 2026-07-01 --to 2026-09-30 --vendor smartlook
    """
    from analytics_platform.plan import make_plan

    made = make_plan(
        load_settings(), day_of(first), day_of(last), vendors=vendor or (), sites=site or (), refresh=refresh
    )
    if not as_json:
        show_plan(screen_for(as_json=False), made)
    emit(made, as_json=as_json)


def show_plan(screen: Console, made: Plan) -> None:
    """Requests by stream, hours by account, and the cheaper ways."""
    from rich.table import Table

    table = Table(title=f"Plan {made.first_day} to {made.last_day} (nothing was sent)")
    for name in ("vendor", "site", "tables"):
        table.add_column(name)
    for name in ("days there", "to fetch", "spent", "requests", "how sure"):
        table.add_column(name, justify="right")
    for line in made.lines:
        tables = ", ".join(name.partition("/")[2] for name in line.tables)
        there = str(line.days_there)
        if line.days_out_of_reach:
            there += f" ({line.days_out_of_reach} out of reach)"
        table.add_row(
            line.vendor,
            line.site,
            tables,
            there,
            str(line.days_to_fetch),
            str(line.spent),
            str(line.requests),
            sureness(line.requests),
        )
    screen.print(table)
    for account in made.accounts:
        screen.print(_account_line(account), highlight=False)
    for line in made.lines:
        if line.alternative is not None and line.requests.likely > line.alternative.requests.likely:
            screen.print(
                f"cheaper: {line.vendor}/{line.stream} {line.site}: {line.alternative.requests} instead of "
                f"{line.requests} requests: {line.alternative.what}",
                highlight=False,
            )
    for reason in made.off:
        screen.print(f"off until its credentials are there: {reason}", highlight=False)
    verb = "would be" if made.requests.likely else "are"
    screen.print(
        f"[bold]{made.requests} requests {verb} needed[/bold], {made.spent} are paid for already; "
        f"done {instant(made.finishes_at)} at the earliest.",
        highlight=False,
    )


def _account_line(account: AccountPlan) -> str:
    text = (
        f"{account.vendor} ({', '.join(account.sites)}): {account.requests} requests at {account.window}, "
        f"{account.used} used now: {_duration(account.hours)}, done {instant(account.finishes_at)}"
    )
    if account.finishes_at_latest is None:
        text += " at the earliest (no history to say how much there is)"
    elif account.finishes_at_latest > account.finishes_at:
        text += f", at the latest {instant(account.finishes_at_latest)}"
    if account.faster is not None and account.faster.hours < account.hours:
        text += f"; with plan {account.faster.plan}: {_duration(account.faster.hours)}"
    return text + "."


def _duration(hours: float) -> str:
    if hours < 1 / 60:
        return "at once"
    return f"{hours * 60:.0f} minutes" if hours < 2 else f"{hours:,.1f} hours"


def sureness(forecast: Forecast) -> str:
    """Where the number comes from, in words."""
    words = ("known", f"{forecast.days_of_history} days of history", "no history")
    return words[forecast.certainty]
