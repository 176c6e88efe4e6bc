"""Who a key belongs to: the person's other keys, and how much of them there is in landing and lake.

Belongs here: following keys from row to row to a fixed point, and the stop where that cannot be one person. Does not
belong here: removing anything, any vendor's name.

Two keys belong together when one row of the lake, or one record of a landed page, carries both. From an e-mail that
leads to visitor ids, visitor codes and sessions. It never leads over an address, a name or a device: those are shared.
Keys other than an e-mail count at their own site only: user 42 of one shop is a stranger at another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final

from analytics_platform.core.errors import ConfigurationError
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Batch, LandedPage, Landing
from analytics_platform.core.streams import Stream
from analytics_platform.core.stripping import Stripped, Stripper
from analytics_platform.core.tables import ANYWHERE_KINDS, WEAK_KINDS, TableSpec, is_record_kind
from analytics_platform.core.tombstones import ClearKeys, Key
from analytics_platform.settings import Settings

__all__ = ["DEFAULT_MAXIMUM_KEYS", "Found", "ImplausiblePerson", "find_person", "known_kinds"]

DEFAULT_MAXIMUM_KEYS: Final = 60
"""E-mails, user ids, visitor ids and codes one person plausibly has: a cookie a browser and a year, several vendors."""


class ImplausiblePerson(ConfigurationError):
    """The keys lead to more people than one: some value is shared (a test account, `anonymous`)."""


@dataclass(kw_only=True)
class Found:
    """A person as far as landing and lake know them.

    Args:
        keys: every strong key, and the weak ones that were given.
        leaves: recordings that only a weak key found.
        landing: (vendor/stream, site) → records in landed pages.
        lake: (vendor/table, site) → rows.
        days: (vendor, site, day) of the lake partitions with such rows.
    """

    keys: set[Key] = field(default_factory=set)
    leaves: set[Key] = field(default_factory=set)
    landing: Counter[tuple[str, str]] = field(default_factory=Counter)
    lake: Counter[tuple[str, str]] = field(default_factory=Counter)
    days: set[tuple[str, str, date]] = field(default_factory=set)

    @property
    def everything(self) -> set[Key]:
        """All keys by which rows are removed."""
        return self.keys | self.leaves

    @property
    def kinds(self) -> Counter[str]:
        """How many keys of each kind, for people to look at before they say yes."""
        return Counter(kind for kind, _, _ in {(key.kind, key.value, "") for key in self.everything})

    @property
    def counts(self) -> dict[str, int]:
        """`store table site` → records or rows."""
        named = {f"landing {name} {site}": count for (name, site), count in sorted(self.landing.items())}
        return named | {f"lake {name} {site}": count for (name, site), count in sorted(self.lake.items())}


def known_kinds(specs: Iterable[TableSpec]) -> list[str]:
    """Every kind of key the tables know."""
    return sorted({kind for spec in specs for kind in spec.identity_kinds})


def find_person(
    settings: Settings, given: Sequence[tuple[str, str]], *, sites: Sequence[str] = (), maximum_keys: int = 0
) -> Found:
    """Every key of the person the given ones belong to, and how much there is. Reads only.

    Args:
        given: (kind, value), in the spelling of comparison.
        sites: look only there; everywhere the home has data by default.
        maximum_keys: refuse to believe in more keys than this (`DEFAULT_MAXIMUM_KEYS` when 0); recordings not counted.

    Raises:
        ImplausiblePerson: more keys than that.
        ConfigurationError: a given key is in use at several sites and no site was named.
        LandingCorrupt, StorageError.
    """
    search = _Search(settings, sites)
    at_sites: list[str | None] = list(sites) or [None]
    search.found.keys = {Key(kind, value, site) for kind, value in given for site in at_sites}
    search.refuse_ambiguous(given)
    limit = maximum_keys or DEFAULT_MAXIMUM_KEYS
    while True:
        search.follow_lake(limit)
        if not search.follow_landing():
            break
        _refuse_crowd(search.found, limit)
    search.count_lake()
    return search.found


def _refuse_crowd(found: Found, limit: int) -> None:
    kinds = Counter(kind for kind, _ in {key[:2] for key in found.keys} if not is_record_kind(kind))
    if sum(kinds.values()) <= limit:
        return
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    raise ImplausiblePerson(
        f"These keys lead to more than {limit} others ({listed}): hardly one person.",
        "Some value is shared (a test account, `anonymous`, a family's browser). Give narrower keys or --site; if it "
        "is one person, raise --max-keys. Nothing was changed.",
    )


class _Search:
    """One look-up, and what it has found so far."""

    def __init__(self, settings: Settings, sites: Sequence[str]) -> None:
        from analytics_platform.vendors import all_streams, all_tables

        self.found = Found()
        self._landing = Landing(settings.home.landing)
        self._lake = Lake(settings.home.lake)
        self._only = frozenset(sites)
        self._specs = [spec for spec in all_tables().values() if spec.identity_kinds]
        self._streams: dict[tuple[str, str], Stream] = {(s.vendor, s.name): s for s in all_streams()}

    def _places(self) -> list[tuple[TableSpec, str]]:
        return [(s, site) for s in self._specs for site in self._lake.sites(s) if not self._only or site in self._only]

    def refuse_ambiguous(self, given: Sequence[tuple[str, str]]) -> None:
        """A key that means somebody at several sites needs a site, unless it means the same person everywhere."""
        if self._only:
            return
        for kind, value in given:
            if kind in ANYWHERE_KINDS:
                continue
            at = {
                site
                for spec, site in self._places()
                if self._lake.person_rows(spec, site, ClearKeys([Key(kind, value, None)], site=site))
            }
            if len(at) > 1:
                raise ConfigurationError(
                    f"This {kind} is in use at {', '.join(sorted(at))}: perhaps by different people.",
                    "Say at which sites it is the person: --site KEY (repeatable).",
                )

    def follow_lake(self, limit: int) -> None:
        """Follow keys through the lake until no row adds one."""
        known = -1
        while known != len(self.found.everything):
            known = len(self.found.everything)
            for spec, site in self._places():
                leading = ClearKeys((k for k in self.found.keys if k.kind not in WEAK_KINDS), site=site)
                self._learn(self._lake.person_keys(spec, site, leading), site)
                trailing = (k for k in self.found.everything if k.kind in WEAK_KINDS or k in self.found.leaves)
                self._note(self._lake.person_keys(spec, site, ClearKeys(trailing, site=site)), site)
            _refuse_crowd(self.found, limit)

    def follow_landing(self) -> bool:
        """Look through every landed page; True when one taught a key that was not known."""
        known = len(self.found.everything)
        self.found.landing.clear()
        for vendor, stream_name, site in self._landing.streams():
            stream = self._streams.get((vendor, stream_name))
            if stream is None or (self._only and site not in self._only):
                continue
            for batch in self._landing.batches(vendor, stream_name, site):
                self._look_through(batch, stripper_for(stream, self.found, site))
        return len(self.found.everything) > known

    def _look_through(self, batch: Batch, strip: Callable[[LandedPage, bytes], Stripped | None]) -> None:
        for page, body in batch.pages():
            found = strip(page, body)
            if found is not None:
                # A page about nobody else that holds no record still names the person.
                self.found.landing[f"{batch.vendor}/{batch.stream}", batch.site] += max(found.removed, 1)
                self._learn(found.keys, batch.site)
                self._note(found.leaves, batch.site)

    def count_lake(self) -> None:
        """Rows of each table, and the days they are in."""
        for spec, site in self._places():
            rows = self._lake.person_rows(spec, site, ClearKeys(self.found.everything, site=site))
            if rows:
                self.found.lake[spec.qualified_name, site] += sum(rows.values())
                self.found.days |= {(spec.vendor, site, day) for day in rows}

    def _learn(self, pairs: Iterable[tuple[str, str]], site: str) -> None:
        self.found.keys |= {self._key(kind, value, site) for kind, value in pairs if kind not in WEAK_KINDS}
        self.found.leaves -= self.found.keys

    def _note(self, pairs: Iterable[tuple[str, str]], site: str) -> None:
        noted = {self._key(kind, value, site) for kind, value in pairs if is_record_kind(kind)}
        self.found.leaves |= noted - self.found.keys

    def _key(self, kind: str, value: str, site: str) -> Key:
        return Key(kind, value, None if kind in ANYWHERE_KINDS and not self._only else site)


def stripper_for(stream: Stream, found: Found, site: str) -> Callable[[LandedPage, bytes], Stripped | None]:
    """What to take out of the stream's landed pages."""
    wanted = ClearKeys(found.everything, site=site)
    leads = ClearKeys((key for key in found.keys if key.kind not in WEAK_KINDS), site=site)
    stripper = Stripper(stream.tables, wanted, leads=leads)

    def strip(page: LandedPage, body: bytes) -> Stripped | None:
        return stripper.strip(body, call=page.call, call_kind=page.call_kind, context=page.context)

    return strip
