"""The `plan` verb: what a range of days would cost, on one screen.

Belongs here: arguments and what a person sees. Does not belong here: planning (`plan`, `core.planning`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from analytics_platform.core.forecast import STATED_VISITS_A_DAY, Certainty, total
from analytics_platform.settings import load_settings
from analytics_platform.terminal import JsonOption, SiteOption, VendorOption, day_of, emit, instant, screen_for

if TYPE_CHECKING:
    from datetime import date, datetime

    from rich.console import Console
    from rich.table import Table

    from analytics_platform.core.forecast import Forecast
    from analytics_platform.core.planning import AccountPlan, Plan, PlanLine

__all__ = ["plan", "show_plan", "sureness", "waits"]

_SPANS: Final = {1.0: "a second", 60.0: "a minute", 3600.0: "an hour", 86400.0: "a day"}
_DAYS_FOR_AN_ESTIMATE: Final = 7
_NO_WAIT: Final = "no wait"
_HOURS_TO_COUNT_IN_DAYS: Final = 72


def plan(
    words: Annotated[
        list[str] | None,
        typer.Argument(help="Vendors (all by default), and days as FIRST..LAST or one day.", metavar="VENDOR|DAYS"),
    ] = None,
    first: Annotated[str | None, typer.Option("--from", help="First day, YYYY-MM-DD.", metavar="DAY")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last day, YYYY-MM-DD (inclusive).", metavar="DAY")] = None,
    vendor: VendorOption = None,
    site: SiteOption = None,
    refresh: Annotated[bool, typer.Option(help="Plan to ask again for days that are already final.")] = False,
    as_json: JsonOption = False,
) -> None:
    """What a range of days would cost: requests, hours, finish time, what is cheaper. Spends nothing.

    Example: analytics-platform plan smartlook 2026-08-01..2026-10-31
    """
    from analytics_platform.plan import make_plan

    named, first_day, last_day = _asked(words or (), first, last)
    vendors = [*(vendor or ()), *named]
    made = make_plan(load_settings(), first_day, last_day, vendors=vendors, sites=site or (), refresh=refresh)
    if not as_json:
        show_plan(screen_for(as_json=False), made)
    emit(made, as_json=as_json)


def _asked(words: Sequence[str], first: str | None, last: str | None) -> tuple[list[str], date, date]:
    """Vendors and days among the words; the options are another way to say the days."""
    from analytics_platform.vendors import vendor_names

    vendors = [word for word in words if word in vendor_names()]
    ranges = [word for word in words if word not in vendors]
    for word in ranges:
        if not word[:1].isdigit() and word.partition("..")[0] not in ("today", "yesterday"):
            known = ", ".join(vendor_names())
            raise typer.BadParameter(f"{word!r} is no vendor ({known}) and no days like 2026-08-01..2026-10-31")
    if len(ranges) > 1 or (ranges and (first or last)):
        raise typer.BadParameter("the days are said twice: write one range, or --from and --to")
    if ranges:
        first, _, last = ranges[0].partition("..")
        last = last or first
    if first is None or last is None:
        raise typer.BadParameter("which days? Write 2026-08-01..2026-10-31, or --from and --to")
    days = day_of(first), day_of(last)
    if days[1] < days[0]:
        raise typer.BadParameter(f"{last} is before {first}")
    return vendors, *days


def show_plan(screen: Console, made: Plan) -> None:
    """Requests by stream, waiting by account, the cheaper ways, and the sum."""
    screen.print(_lines_table(made))
    if any(account.requests.high for account in made.accounts):
        screen.print(_accounts_table(made))
    for text in (*_cheaper(made.lines), *_hints(made)):
        screen.print(text, highlight=False)
    for reason in made.off:
        screen.print(f"off until its credentials are there: {reason}", highlight=False)
    if not made.requests.high:
        screen.print(f"[bold]Nothing is left to ask for[/bold]: {made.spent:,} requests paid for it.", highlight=False)
        return
    done, latest = instant(made.finishes_at), _latest(made.accounts)
    if latest != done:
        done = f"between {done.removesuffix(' UTC')} and {latest}" if latest else f"{done} at the earliest"
    screen.print(
        f"[bold]{made.requests} requests would be needed[/bold], {made.spent:,} are paid for already; "
        f"the last one leaves {done}.",
        highlight=False,
    )


def _lines_table(made: Plan) -> Table:
    from rich.table import Table

    table = Table(title=f"Plan {made.first_day} to {made.last_day} (nothing was sent)")
    for name in ("vendor", "site"):
        table.add_column(name, no_wrap=True)
    table.add_column("tables")
    for name in ("days there", "to fetch", "paid already", "requests", "how sure"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in made.lines:
        table.add_row(
            line.vendor,
            line.site,
            ", ".join(name.partition("/")[2] for name in line.tables),
            str(line.days_there),
            str(line.days_to_fetch),
            f"{line.spent:,}",
            str(line.requests),
            _how_sure(line),
        )
    return table


def _how_sure(line: PlanLine) -> str:
    if line.days_to_fetch:
        return sureness(line.requests)
    # A snapshot of the past, or days to come.
    return f"{line.days_out_of_reach} days out of reach" if line.days_out_of_reach else ""


def _accounts_table(made: Plan) -> Table:
    from rich.table import Table

    table = Table(title="What the quota makes of it")
    table.add_column("account", no_wrap=True)
    for name in ("requests", "limit", "used now", "waits for quota", "last one leaves", "next plan up"):
        table.add_column(name, justify="right", no_wrap=name != "requests")
    for account in made.accounts:
        if account.requests.high:
            table.add_row(
                f"{account.vendor} {', '.join(account.sites)}",
                str(account.requests),
                _limit(account),
                f"{account.used:,}",
                waits(account, made.made_at),
                instant(account.finishes_at),
                _faster(account),
            )
    return table


def waits(account: AccountPlan, made_at: datetime) -> str:
    """Hours of the likely number of requests, and of the highest where that makes a difference."""
    likely = _duration(account.hours)
    if account.finishes_at_latest is None:
        return f"at least {likely}"
    latest = _duration((account.finishes_at_latest - made_at).total_seconds() / 3600)
    if latest == likely:
        return likely
    if likely == _NO_WAIT:
        return f"up to {latest}"
    number, _, unit = likely.partition(" ")
    is_same_unit = latest.partition(" ")[2].removesuffix("s") == unit.removesuffix("s")
    return f"{number} to {latest}" if is_same_unit else f"{likely} to {latest}"


def _faster(account: AccountPlan) -> str:
    faster = account.faster
    return f"{faster.plan}: {_duration(faster.hours)}" if faster is not None and faster.hours < account.hours else ""


def _cheaper(lines: Iterable[PlanLine]) -> list[str]:
    """The cheaper ways, each once for all the sites it would serve."""
    found: dict[tuple[str, str, str], list[PlanLine]] = {}
    for line in lines:
        if line.alternative is not None and line.requests.likely > line.alternative.requests.likely:
            found.setdefault((line.vendor, line.stream, line.alternative.what), []).append(line)
    texts = []
    for (vendor, stream, what), same in found.items():
        cost = total(line.requests for line in same)
        instead = total(line.alternative.requests for line in same if line.alternative is not None)
        sites = ", ".join(line.site for line in same)
        texts.append(f"cheaper: {vendor}/{stream} ({sites}) for {instead} instead of {cost} requests: {what}.")
    return texts


def _hints(made: Plan) -> list[str]:
    """What would make the plan surer."""
    unknown = [line for line in made.lines if line.days_to_fetch and line.requests.certainty is Certainty.UNKNOWN]
    if not unknown:
        return []
    least, most = STATED_VISITS_A_DAY
    names = ", ".join(dict.fromkeys(f"{line.vendor}/{line.stream}" for line in unknown))
    text = f"no history: {names}; the range is that of a site with {least:,.0f} to {most:,.0f} visits a day"
    if (made.last_day - made.first_day).days > _DAYS_FOR_AN_ESTIMATE:
        text += f". A run of the newest {_DAYS_FOR_AN_ESTIMATE} days makes an estimate of it"
    return [text + "."]


def _latest(accounts: Sequence[AccountPlan]) -> str:
    """When the highest number of requests is through; "" where nobody knows it."""
    instants = [account.finishes_at_latest for account in accounts if account.finishes_at_latest is not None]
    return instant(max(instants)) if len(instants) == len(accounts) else ""


def _limit(account: AccountPlan) -> str:
    span = _SPANS.get(account.window_seconds)
    return account.window if span is None else f"{account.limit:,} {span}"


def _duration(hours: float) -> str:
    if hours == 0:
        return _NO_WAIT
    if hours >= _HOURS_TO_COUNT_IN_DAYS:
        return f"{hours / 24:,.0f} days"
    minutes = math.ceil(hours * 60)
    return f"{minutes} minute{'s' if minutes > 1 else ''}" if hours < 2 else f"{hours:,.1f} hours"


def sureness(forecast: Forecast) -> str:
    """Where the number comes from, in words."""
    days = f"{forecast.days_of_history} days"
    return {
        Certainty.EXACT: "known",
        Certainty.HISTORY: f"{days} of history",
        Certainty.RELATED: f"{days} of another vendor",
        Certainty.UNKNOWN: "no history",
    }[forecast.certainty]
