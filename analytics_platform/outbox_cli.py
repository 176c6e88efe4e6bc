"""`analytics-platform outbox`: what is to be sent to vendors, what became of it, and what only a person may decide.

Belongs here: arguments, what a person sees, exit codes (0 ok, 1 something was refused, unknown or failed, 2 usage,
3 quota-deferred). Does not belong here: states (`core.outbox`), sending (`core.outbox_delivery`), showing payloads.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from analytics_platform.core.errors import ConfigurationError
from analytics_platform.core.outbox_messages import Counts, Message, State
from analytics_platform.settings import load_settings
from analytics_platform.terminal import (
    EXIT_USAGE,
    JsonOption,
    SiteOption,
    emit,
    finish,
    instant,
    screen_for,
)

if TYPE_CHECKING:
    from rich.console import Console

    from analytics_platform.core.opt_in import WriteOptIn
    from analytics_platform.core.outbox_delivery import DeliveryReport

__all__ = ["deliver_pending", "outbox_app", "print_outbox_counts"]

outbox_app = typer.Typer(
    no_args_is_help=True, help="Messages to vendors: list, deliver, and decide about those without an answer."
)

NumberArgument = Annotated[int, typer.Argument(metavar="ID", help="Number of the message, as `outbox list` shows it.")]
OneVendorOption = Annotated[str | None, typer.Option("--vendor", help="Only this vendor.")]


@outbox_app.command("list")
def list_messages(
    state: Annotated[str | None, typer.Option(help=f"Only this state: {', '.join(get_args(State))}.")] = None,
    vendor: OneVendorOption = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Show messages and their states, newest first. Sends nothing.

    Example: analytics-platform outbox list --state unknown
    """
    from analytics_platform.core.outbox import open_outbox

    chosen = _state(state)
    with open_outbox(load_settings()) as outbox:
        outbox.recover()
        found = outbox.messages(state=chosen, vendor=vendor, limit=limit)
        counts = outbox.counts(vendor=vendor)
    screen = screen_for(as_json=as_json)
    _print_messages(screen, found)
    print_outbox_counts(screen, counts)
    emit({"messages": [_without_payload(message) for message in found], "counts": list(counts)}, as_json=as_json)


@outbox_app.command()
def deliver(
    vendor: OneVendorOption = None,
    operation: Annotated[str | None, typer.Option("--operation", help="Only this operation.")] = None,
    site: SiteOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send what is pending, inside the vendors' quotas, for sites that agreed to it in sites.yaml.

    Example: analytics-platform outbox deliver
    """
    report = deliver_pending(vendor, operation, site)
    _print_report(screen_for(as_json=as_json), report)
    emit(report, as_json=as_json)
    finish(failed=report.failed, deferred=report.is_deferred)


@outbox_app.command()
def resend(
    number: NumberArgument,
    confirm: Annotated[
        str | None, typer.Option("--confirm", help='The words "resend ID", where nobody can be asked.')
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Put an unknown or dead message back to pending. If it had arrived after all, it counts twice.

    Example: analytics-platform outbox resend 12 --confirm "resend 12"
    """
    from analytics_platform.core.opt_in import Confirmation

    phrase = confirm if confirm is not None else _asked(f"resend {number}")
    _decide(lambda outbox: outbox.resend(number, Confirmation(phrase)), as_json=as_json)


@outbox_app.command()
def discard(number: NumberArgument, as_json: JsonOption = False) -> None:
    """Give a pending, unknown or dead message up. It is never sent, and the same thing is not enqueued again.

    Example: analytics-platform outbox discard 12
    """
    _decide(lambda outbox: outbox.discard(number), as_json=as_json)


def deliver_pending(
    vendor: str | None = None, operation: str | None = None, site: Sequence[str] | None = None
) -> DeliveryReport:
    """Deliver what is pending in the home of the environment. Raises typer.BadParameter, ConfigurationError."""
    from analytics_platform.core.outbox import open_outbox
    from analytics_platform.core.outbox_delivery import Deliverer, site_sender
    from analytics_platform.core.quota_policy import spending
    from analytics_platform.core.resources import open_ledger
    from analytics_platform.vendors import all_operations, vendor_names, vendor_writer

    settings = load_settings()
    if vendor is not None and vendor not in vendor_names():
        raise typer.BadParameter(f"no vendor {vendor!r}; there are {', '.join(sorted(vendor_names()))}")
    for key in site or ():
        settings.site(key)
    with open_ledger(settings) as ledger, open_outbox(settings) as outbox:

        def connect(name: str, ids: Mapping[str, str], opt_in: WriteOptIn) -> AbstractContextManager[Any]:
            return vendor_writer(name, ids, ledger, opt_in)

        deliverer = Deliverer(outbox, all_operations(), site_sender(settings, connect))
        with spending(stream="outbox", site="", run_id="", backfill=False):
            return deliverer.deliver(vendor=vendor, operation=operation, site_keys=site)


def _decide(decision: Any, *, as_json: bool) -> None:
    from analytics_platform.core.outbox import open_outbox

    with open_outbox(load_settings()) as outbox:
        outbox.recover()
        try:
            message: Message = decision(outbox)
        except ConfigurationError as error:
            sys.stderr.write(f"{error}\n")
            raise typer.Exit(EXIT_USAGE) from None
    _print_messages(screen_for(as_json=as_json), [message])
    emit(_without_payload(message), as_json=as_json)


def _asked(phrase: str) -> str:
    if not sys.stdin.isatty():
        return ""
    typed: str = typer.prompt(f"It may be counted twice. Type the words: {phrase}")
    return typed


def _state(text: str | None) -> State | None:
    for known in get_args(State):
        if text == known:
            found: State = known
            return found
    if text is not None:
        raise typer.BadParameter(f"no state {text!r}; there are {', '.join(get_args(State))}")
    return None


def _without_payload(message: Message) -> dict[str, object]:
    return {name: value for name, value in vars(message).items() if name != "payload"}


# ------------------------------------------------------------------------------------------------------------ printing


def print_outbox_counts(screen: Console, counts: Sequence[Counts]) -> None:
    """Messages by vendor, operation and site, one column a state; nothing where there is no message."""
    from rich.table import Table

    if not counts:
        return
    states = ("pending", "in_flight", "sent", "unknown", "dead", "discarded")
    table = Table(title="Outbox: messages to vendors")
    for name in ("vendor", "operation", "site", *states):
        table.add_column(name.replace("_", " "), justify="right" if name in states else "left")
    for row in counts:
        table.add_row(row.vendor, row.operation, row.site_key, *(str(getattr(row, state) or "–") for state in states))
    screen.print(table)
    if any(row.unknown for row in counts):
        screen.print(
            "unknown: sent, and no answer came. Look at the vendor, then `outbox resend` or `outbox discard`.",
            highlight=False,
        )


def _print_messages(screen: Console, found: Sequence[Message]) -> None:
    from rich.table import Table

    table = Table()
    for name in ("id", "vendor", "operation", "site", "state", "attempts", "enqueued", "settled", "reason"):
        table.add_column(name, justify="right" if name in ("id", "attempts") else "left")
    for message in found:
        table.add_row(
            str(message.id),
            message.vendor,
            message.operation,
            message.site_key,
            message.state.replace("_", " "),
            str(message.attempts),
            instant(message.enqueued_at),
            instant(message.settled_at),
            message.reason or "–",
        )
    if found:
        screen.print(table)


def _print_report(screen: Console, report: DeliveryReport) -> None:
    for group in report.groups:
        numbers = f"sent {group.sent}, unknown {group.unknown}, dead {group.dead}, given back {group.returned}"
        screen.print(f"{group.vendor}/{group.operation} {group.site_key}: {numbers}", highlight=False, markup=False)
        if group.is_deferred:
            screen.print(f"  deferred until {instant(group.deferred_until)}: out of quota", highlight=False)
        if group.is_busy:
            screen.print("  another delivery is at it", highlight=False)
        if group.problem:
            screen.print(f"  {group.problem}", highlight=False, markup=False)
    left = report.recovered + report.expired + report.spent
    if left:
        screen.print(
            f"left behind: {report.recovered} of senders that died, {report.expired} too late to be sent, "
            f"{report.spent} without an answer too often",
            highlight=False,
        )
    if not report.groups and not left:
        screen.print("Nothing is pending.", highlight=False)
