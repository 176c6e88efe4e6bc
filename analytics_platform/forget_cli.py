"""`analytics-platform forget`: who is meant, what would go, the confirmation, the receipt.

Belongs here: arguments, what a person sees, the exit code (0 done, 1 something is left or a step failed, 2 usage,
3 a vendor has not confirmed yet). Does not belong here: any work of its own (`erasure`), the job (`forget_job`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from analytics_platform.core.errors import ConfigurationError
from analytics_platform.settings import Settings, load_settings

if TYPE_CHECKING:
    from analytics_platform.erasure import Found, Receipt, Request

__all__ = ["forget"]

_EXIT_FAILED: Final = 1
_EXIT_USAGE: Final = 2
_EXIT_PENDING: Final = 3
_EXIT_CODES: Final = {"done": 0, "failed": _EXIT_FAILED, "pending": _EXIT_PENDING}


def forget(
    key: Annotated[
        list[str] | None,
        typer.Option("--key", help="kind=value (repeatable); it stays in your shell's history: see --keys-file."),
    ] = None,
    keys_file: Annotated[
        str | None, typer.Option("--keys-file", help="File with one kind=value a line; - reads standard input.")
    ] = None,
    site: Annotated[list[str] | None, typer.Option("--site", help="Only at this site (repeatable).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go; change nothing.")] = False,
    confirm: Annotated[
        str | None, typer.Option("--confirm", help='The words "forget 1 person", where nobody can be asked.')
    ] = None,
    also_at: Annotated[
        list[str] | None,
        typer.Option("--also-at", help="Also delete at this vendor, whose recordings go with the person (repeatable)."),
    ] = None,
    local_only: Annotated[bool, typer.Option("--local-only", help="Ask no vendor to forget.")] = False,
    max_keys: Annotated[
        int, typer.Option("--max-keys", min=0, help="Believe in this many keys of one person (0: 60).")
    ] = 0,
    write_request: Annotated[
        bool, typer.Option("--write-request", help="Only write the request file, for the Dagster job `forget`.")
    ] = False,
    resume: Annotated[str | None, typer.Option("--resume", help="Go on with the request of this name.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
) -> None:
    """Forget one person: at the vendors that offer it, in every store of the home, and in later loads.

    Example: analytics-platform forget --keys-file - --dry-run
    """
    from analytics_platform.erasure import Request

    settings = load_settings()
    try:
        if resume is not None:
            name = resume
            _confirmed(confirm)
        else:
            request = Request(
                keys=[*(key or ()), *_read_keys(keys_file)],
                sites=_sites(settings, site or []),
                also_at=_vendors(settings, also_at or []),
                local_only=local_only,
                maximum_keys=max_keys,
            )
            if not _prepare(settings, request, dry_run=dry_run, as_json=as_json):
                return
            _confirmed(confirm)
            name = _written(settings, request)
            if write_request:
                _say_request(name, as_json=as_json)
                return
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(_EXIT_USAGE) from None
    receipt = _carry_out(settings, name, as_json=as_json)
    _print_receipt(receipt, as_json=as_json)
    raise typer.Exit(_EXIT_CODES[receipt.state])


def _read_keys(keys_file: str | None) -> list[str]:
    if keys_file is None:
        return []
    try:
        text = sys.stdin.read() if keys_file == "-" else Path(keys_file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ConfigurationError("The file of keys cannot be read.", "One kind=value a line, UTF-8.") from None
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _sites(settings: Settings, keys: list[str]) -> list[str]:
    for key in keys:
        # A site that left sites.yaml may still have data in the home.
        if key not in settings.site_keys and not any(settings.home.lake.glob(f"*/*/site={key}")):
            settings.site(key)
    return keys


def _vendors(settings: Settings, names: list[str]) -> list[str]:
    from analytics_platform.erasure.vendors import offering

    offered = offering(settings)
    for name in names:
        if name not in offered:
            raise ConfigurationError(
                f"Nothing can be deleted at {name!r}.", f"Vendors that can: {', '.join(offered) or 'none'}."
            )
    return names


def _prepare(settings: Settings, request: Request, *, dry_run: bool, as_json: bool) -> bool:
    """Show what would go; False when that was all that was asked for."""
    from analytics_platform.erasure import find_person, known_kinds, parse_keys
    from analytics_platform.erasure.search import by_store, search_home
    from analytics_platform.erasure.vendors import askings
    from analytics_platform.vendors import all_tables

    given = parse_keys(request.keys, known_kinds(all_tables().values()))
    found = find_person(settings, given, sites=request.sites, maximum_keys=request.maximum_keys)
    files = by_store(search_home(settings.home.root, found.everything)) if settings.home.root.is_dir() else {}
    asked = [] if request.local_only else askings(settings, found.keys, also_at=request.also_at)
    plan = {
        "keys": dict(sorted(found.kinds.items())),
        "counts": found.counts,
        "files_with_hits": files,
        "vendors": [{"vendor": item.vendor, "site": item.site, "keys": item.keys} for item in asked],
        "dry_run": dry_run,
    }
    if as_json and dry_run:
        sys.stdout.write(json.dumps(plan, indent=1) + "\n")
    elif not as_json:
        _print_plan(found, plan)
    return not dry_run


def _print_plan(found: Found, plan: dict[str, Any]) -> None:
    lines = ["The person's keys, by kind:"]
    lines += [f"  {count:6}  {kind}" for kind, count in sorted(found.kinds.items())]
    lines.append("What would go here:" if plan["counts"] else "Neither landing nor lake hold anything of these keys.")
    lines += [f"  {count:6}  {name}" for name, count in plan["counts"].items()]
    lines += [
        f"  {count:6}  file{'s' * (count != 1)} in {store}/ mention them"
        for store, count in plan["files_with_hits"].items()
    ]
    lines += [f"Asked to forget: {v['vendor']} ({v['site']}), {v['keys']} keys" for v in plan["vendors"]]
    several = [kind for kind in ("email", "uid") if found.kinds[kind] > 1]
    if several:
        lines.append(
            f"Look twice: more than one {' and '.join(several)}. A browser that several people use joins them; "
            "all of them would go."
        )
    sys.stdout.write("\n".join(lines) + "\n")


def _confirmed(given: str | None) -> None:
    from analytics_platform.erasure import confirmation_words

    words = confirmation_words()
    if given is None and sys.stdin.isatty():
        given = typer.prompt(f'This cannot be undone. Type "{words}"', default="", show_default=False)
    if given != words:
        raise ConfigurationError("Not confirmed: nothing was changed.", f'Type, or pass with --confirm: "{words}"')


def _written(settings: Settings, request: Request) -> str:
    from analytics_platform.erasure import RequestStore

    return RequestStore(settings.home).create(request)


def _say_request(name: str, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps({"request": name}) + "\n")
    else:
        sys.stdout.write(f"Written: request {name}. Launch the job `forget` with it (docs/erasure.md).\n")


def _carry_out(settings: Settings, name: str, *, as_json: bool) -> Receipt:
    from analytics_platform.dagster_home import instance
    from analytics_platform.erasure import Erasure

    def say(text: str) -> None:
        if not as_json:
            sys.stdout.write(f"  … {text}\n")

    say(f"request {name}; if this is interrupted: analytics-platform forget --resume {name}")
    with instance(settings) as opened:
        return Erasure(settings, opened, say=say).run(name)


def _print_receipt(receipt: Receipt, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(receipt.as_json().decode() + "\n")
        return
    lines = [f"{receipt.state}: receipts/{receipt.request}.json"]
    lines += [f"  {row['vendor']} ({row['site']}): {row['state']}. {row['reason']}" for row in receipt.vendors]
    lines += [f"  left in {row['path']} ({row['how']}): {row['count']}" for row in receipt.remaining]
    if receipt.state != "done":
        lines.append(f"  go on with: analytics-platform forget --resume {receipt.request}")
    sys.stdout.write("\n".join(lines) + "\n")
