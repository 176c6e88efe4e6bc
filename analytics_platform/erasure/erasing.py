"""One erasure from request to receipt, and again from wherever it was interrupted.

Belongs here: the order of the steps, what is written down between them, the receipt. Does not belong here: the steps
themselves (`steps`, `vendors`, `search`), typing and printing (`forget_cli`), Dagster jobs (`forget_job`).

The order, and why:

1. find the person and write everything found into the request: after the lake is stripped nobody could find it again;
2. ask the vendors, so that the person is not fetched anew meanwhile;
3. tombstones: from here on no load brings the person back, however the rest goes;
4. landing, lake, outbox, marts (built again, then copied into a new file), a new published version without the old
   ones, mentions in logs and in Dagster's storage;
5. search every byte and every decoded value; what is found sends us through 4 once more, then fails;
6. the receipt; then the request goes, unless a vendor is still pending.

Killed anywhere, the request is still there and the same command goes through all of it again: each step finds less.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from analytics_platform.core.clock import SYSTEM_CLOCK, Clock
from analytics_platform.core.durable import write_file
from analytics_platform.core.failpoints import passing
from analytics_platform.core.tombstones import Key, Tombstones
from analytics_platform.erasure.person import Found, find_person, known_kinds
from analytics_platform.erasure.request import Request, RequestStore, VendorState, keys_of, parse_keys
from analytics_platform.erasure.search import Hit, by_store, scrub, search_home
from analytics_platform.erasure.steps import (
    drop_older_versions,
    empty_outbox,
    rebuild_marts,
    strip_lake,
    strip_landing,
)
from analytics_platform.erasure.vendors import askings
from analytics_platform.settings import Settings

if TYPE_CHECKING:
    import dagster as dg

__all__ = ["Erasure", "Receipt"]

_PASSES: Final = 2

State = Literal["done", "pending", "failed"]


@dataclass(kw_only=True)
class Receipt:
    """What was removed where. Holds counts, kinds, files and instants: no key, and nothing that leads to one.

    Args:
        state: done; pending while a vendor has not confirmed; failed while something of the person is left here.
        key_kinds: how many keys of each kind the person had.
        found_before: records and rows by store and table, before anything was removed.
        files_before, files_after: files with a hit of the deep search by store.
        removed: what this run took out (an earlier, interrupted run may have taken out the rest).
        remaining: files that still hold the person, without saying what they hold.
        vendors: each vendor asked, at each site: confirmed or pending, and why.
        not_covered: stores of this installation that the command cannot reach.
    """

    request: str
    state: State
    requested_at: str
    finished_at: str
    key_kinds: Mapping[str, int] = field(default_factory=dict)
    sites: list[str] = field(default_factory=list)
    found_before: Mapping[str, int] = field(default_factory=dict)
    files_before: Mapping[str, int] = field(default_factory=dict)
    removed: dict[str, Any] = field(default_factory=dict)
    files_after: Mapping[str, int] = field(default_factory=dict)
    remaining: list[dict[str, object]] = field(default_factory=list)
    vendors: list[dict[str, object]] = field(default_factory=list)
    tombstones_added: int = 0
    not_covered: list[str] = field(default_factory=list)

    def as_json(self) -> bytes:
        """The receipt as it is kept in `receipts/`."""
        return json.dumps(self.__dict__, indent=1, default=str).encode()


class Erasure:
    """Carries out the requests of one home.

    Args:
        instance: the Dagster instance whose pools and run log the marts' builds use.
        say: told what is being done, in words without keys.
    """

    def __init__(
        self,
        settings: Settings,
        instance: dg.DagsterInstance,
        *,
        clock: Clock = SYSTEM_CLOCK,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.settings = settings
        self.requests = RequestStore(settings.home)
        self._instance = instance
        self._clock = clock
        self._say = say
        self._tombstones = Tombstones.beside(settings.home.landing)

    def run(self, name: str) -> Receipt:
        """Carry out the request of this name, or go on with it.

        Raises:
            ConfigurationError: the request cannot be used, or its keys lead to more than one person.
            PlatformError: a step failed; the request stays, and the same call goes on.
        """
        with self.requests.exclusive():
            return self._run(name)

    def _run(self, name: str) -> Receipt:
        request = self.requests.load(name)
        self._bury_killed_runs(request)
        found = self._found(name, request)
        self._ask_vendors(name, request, found)
        added = self._tombstones.add(found.everything, request=name, now=self._clock.now())
        passing("erasure.tombstones")
        removed: dict[str, Any] = {}
        hits: list[Hit] = []
        for _ in range(_PASSES):
            self._remove(name, request, found, removed)
            self._say("searching every file of the home")
            hits = search_home(self.settings.home.root, found.everything, without=[self.requests.path(name)])
            if not hits:
                break
        receipt = self._receipt(name, request, found, removed, hits, added)
        write_file(self.settings.home.root / "receipts" / f"{name}.json", receipt.as_json())
        passing("erasure.receipt")
        if receipt.state == "done":
            self.requests.remove(name)
        return receipt

    def _bury_killed_runs(self, request: Request) -> None:
        """End runs that an interrupted erasure left as started: they hold the pool `warehouse` for ever (M12)."""
        for run_id in request.runs:
            run = self._instance.get_run_by_id(run_id)
            if run is not None and not run.is_finished:
                self._instance.report_run_failed(run, "Its process was killed; the erasure was started again.")
            self._instance.event_log_storage.free_concurrency_slots_for_run(run_id)

    def _new_run(self, name: str, request: Request) -> str:
        """Id of a run about to start, written down first."""
        request.runs.append(str(uuid.uuid4()))
        self.requests.save(name, request)
        return request.runs[-1]

    def _found(self, name: str, request: Request) -> Found:
        if request.found is not None:
            self._say("going on with what was found before")
            found = Found(keys=keys_of(request.found), leaves=keys_of(request.leaves))
            found.days = set(request.days)
            return found
        from analytics_platform.vendors import all_tables

        self._say("finding the person's keys in lake and landing")
        given = parse_keys(request.keys, known_kinds(all_tables().values()))
        found = find_person(self.settings, given, sites=request.sites, maximum_keys=request.maximum_keys)
        request.requested_at = request.requested_at or self._clock.now()
        request.before = found.counts
        hits = search_home(self.settings.home.root, found.everything, without=[self.requests.path(name)])
        request.hits_before = by_store(hits)
        request.leaves = [(key.kind, key.value, key.site) for key in sorted(found.leaves, key=_order)]
        request.days = sorted(found.days)
        request.found = [(key.kind, key.value, key.site) for key in sorted(found.keys, key=_order)]
        self.requests.save(name, request)
        passing("erasure.found")
        return found

    def _ask_vendors(self, name: str, request: Request, found: Found) -> None:
        if request.local_only:
            return
        for asking in askings(self.settings, found.keys, also_at=request.also_at):
            done = [s for s in request.vendors if (s.vendor, s.site) == (asking.vendor, asking.site)]
            if any(state.state == "confirmed" for state in done):
                continue
            self._say(f"asking {asking.vendor} to forget ({asking.site})")
            state = asking.forget(self._ledger(), reason=name, clock=self._clock)
            request.vendors = [s for s in request.vendors if (s.vendor, s.site) != (asking.vendor, asking.site)]
            request.vendors.append(state)
            self.requests.save(name, request)

    def _ledger(self) -> Any:
        from analytics_platform.core.resources import PlatformResource

        return PlatformResource().ledger

    def _remove(self, name: str, request: Request, found: Found, removed: dict[str, Any]) -> None:
        """Everything local, once."""
        settings = self.settings
        self._say("landing")
        pages = strip_landing(settings, found, request.sites, self._clock)
        self._say("lake")
        rows, days = strip_lake(settings, found.everything, request.sites)
        self._say("outbox")
        messages = empty_outbox(settings, found.everything)
        _add(removed, "landing_pages", pages)
        _add(removed, "lake_rows", rows)
        _add(removed, "outbox_messages", {"outbox": messages} if messages else {})
        affected: set[date] = {day for _, _, day in found.days} | days
        if affected or request.hits_before.get("warehouse") or request.hits_before.get("published"):
            self._rebuild(name, request, affected, removed, anew=bool(days))
        self._say("logs and Dagster's storage")
        _add(removed, "mentions_masked", scrub(settings.home.root, found.everything))
        passing("erasure.scrubbed")

    def _rebuild(self, name: str, request: Request, days: set[date], removed: dict[str, Any], *, anew: bool) -> None:
        """Marts, the warehouse's file, the published versions. Built once: the tombstones keep the lake as it is."""
        settings = self.settings
        if not settings.home.warehouse.is_file():
            return
        from analytics_platform.forget_job import compact_and_publish
        from analytics_platform.transform.publish import current

        if anew or not request.built:
            self._say("marts, without the person")
            removed["mart_builds"] = removed.get("mart_builds", 0) + rebuild_marts(
                settings, days, self._instance, lambda: self._new_run(name, request)
            )
            request.built = True
            self.requests.save(name, request)
        was_published = current(settings.home) is not None
        compact_and_publish(self._instance, run_id=self._new_run(name, request), publish_too=was_published)
        if was_published:
            removed.setdefault("published_versions", []).extend(drop_older_versions(settings))

    def _receipt(
        self, name: str, request: Request, found: Found, removed: dict[str, Any], hits: list[Hit], added: int
    ) -> Receipt:
        pending = any(state.state != "confirmed" for state in request.vendors)
        state: State = "failed" if hits else "pending" if pending else "done"
        return Receipt(
            request=name,
            state=state,
            requested_at=_instant(request.requested_at),
            finished_at=_instant(self._clock.now()),
            key_kinds=dict(sorted(found.kinds.items())),
            sites=list(request.sites),
            found_before=request.before,
            files_before=request.hits_before,
            removed=removed,
            files_after=by_store(hits),
            remaining=[hit.__dict__ for hit in hits],
            vendors=[_vendor_row(state) for state in request.vendors],
            tombstones_added=added,
            not_covered=_not_covered(self.settings),
        )


def _order(key: Key) -> tuple[str, str, str]:
    """A total order of keys, whose site may be None."""
    return (key.kind, key.value, key.site or "")


def _add(removed: dict[str, Any], name: str, counts: Mapping[str, int]) -> None:
    kept = removed.setdefault(name, {})
    for key, count in counts.items():
        kept[key] = kept.get(key, 0) + count


def _vendor_row(state: VendorState) -> dict[str, object]:
    return {
        "vendor": state.vendor,
        "site": state.site,
        "state": state.state,
        "reason": state.reason,
        "keys": state.keys,
        "at": _instant(state.at),
    }


def _instant(at: datetime | None) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds") if at is not None else ""


def _not_covered(settings: Settings) -> list[str]:
    """What is kept outside the home and was not searched."""
    found = ["backups of the home, and files that people exported"]
    if settings.database_url:
        found.append("Dagster's storage and the ledger in the database server of ANALYTICS_PLATFORM_DATABASE_URL")
    return found
