"""How far a newest-first walk has come: which days are complete before it is over, and where to go on after a cut.

Belongs here: reading the instants of pages as they come, and what that says about days; continuing a walk where its
landed pages end. Does not belong here: a vendor's fields and filters (`vendors/<v>/streams.py`), files
(`core.landing`).

A search that gives its newest records first has told everything about a day once it has gone past it. Each page is
stamped with the oldest instant the walk has reached (`back_to`) and with the first day that is complete
(`settled_from`), so that a walk cut by the quota, a kill or a dead cursor leaves whole days behind and goes on from
there with a narrower search. A cursor is never kept (DESIGN section 3).

A vendor that does not keep the order it promises is noticed: a record newer than what was reached, and not seen
before, ends the stamping, because then no day is known to be complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Final

from analytics_platform.core.errors import CursorExpired
from analytics_platform.core.paging import Page

__all__ = ["BACK_TO", "SETTLED_FROM", "InterruptedCall", "Moment", "Moments", "Reached", "newest_first", "settled_from"]

BACK_TO: Final = "back_to"
SETTLED_FROM: Final = "settled_from"

Moment = tuple[datetime, str]
"""A record's instant and its id."""


@dataclass(frozen=True, eq=False)
class Moments:
    """The moments of a page's records by column: of most pages only the oldest and the newest are looked at.

    Args:
        instants: aware.
        ids: as many.
    """

    instants: Sequence[datetime] = ()
    ids: Sequence[str] = ()

    @classmethod
    def of(cls, moments: Iterable[Moment]) -> Moments:
        """The same moments by column."""
        if isinstance(moments, cls):
            return moments
        found = list(moments)
        return cls([at for at, _ in found], [key for _, key in found])

    def __iter__(self) -> Iterator[Moment]:
        return zip(self.instants, self.ids, strict=True)


@dataclass(frozen=True, kw_only=True)
class InterruptedCall:
    """A call whose last page is not landed: how many pages are, and what the last of them was stamped with."""

    pages: int
    context: Mapping[str, str]

    @property
    def back_to(self) -> datetime | None:
        """The oldest instant reached; None where the pages do not say."""
        text = self.context.get(BACK_TO)
        return None if text is None else datetime.fromisoformat(text)


def settled_from(contexts: Iterable[Mapping[str, str]]) -> date | None:
    """The first day that was complete when pages with these contexts, in order, had landed."""
    said = [text for context in contexts if (text := context.get(SETTLED_FROM)) is not None]
    return date.fromisoformat(said[-1]) if said and said[-1] else None


def newest_first(
    walk: Callable[[datetime | None], Iterable[Page]],
    *,
    moments_of: Callable[[Page], Iterable[Moment]],
    interrupted: InterruptedCall | None = None,
) -> Iterator[Page]:
    """The pages of a walk, stamped; continued below what is landed, and again below itself when its cursor dies.

    Args:
        walk: the search up to an instant (None: from the newest on). It must include records of that instant.
        moments_of: instant (aware) and id of each record of a page.
        interrupted: the same call as it was landed before.

    Raises:
        CursorExpired: a cursor died before the walk got any further than where it began.
    """
    reached = Reached(interrupted)
    while True:
        begun_at, pages = reached.begin(), 0
        try:
            for page in walk(begun_at):
                pages += 1
                yield reached.stamped(page, moments_of(page))
        except CursorExpired:
            if pages == 0 or reached.back_to is None or reached.back_to == begun_at:
                raise
            continue
        return


class Reached:
    """Where the walk is, over all its beginnings."""

    def __init__(self, interrupted: InterruptedCall | None) -> None:
        self.back_to = None if interrupted is None else interrupted.back_to
        self._sequence = 0 if interrupted is None else interrupted.pages
        # Pages that were landed without a stamp were out of order: then nothing after them can be stamped either.
        self._in_order = interrupted is None or interrupted.pages == 0 or self.back_to is not None
        self._seen: tuple[Moments, ...] = ()
        self._begun_anew_at: datetime | None = None

    def begin(self) -> datetime | None:
        """From where the walk goes on."""
        self._begun_anew_at = self.back_to
        return self.back_to

    def stamped(self, page: Page, moments: Iterable[Moment]) -> Page:
        found = Moments.of(moments)
        newest_allowed = self.back_to
        instants = found.instants
        if newest_allowed is not None and instants and max(instants) > newest_allowed:
            known = {key for seen in self._seen for key in seen.ids}
            late = [at for at, key in found if at > newest_allowed and key not in known]
            # The first page after a cut repeats records of the instants around it.
            if late and not self._is_overlap(late):
                self._in_order = False
        if instants:
            oldest = min(instants)
            self.back_to = oldest if self.back_to is None else min(self.back_to, oldest)
        self._seen = (*self._seen, found)[-2:]
        context = dict(page.context)
        if not self._in_order:
            context |= {SETTLED_FROM: ""}
        elif self.back_to is not None:
            back_to = self.back_to.astimezone(UTC)
            context |= {
                BACK_TO: back_to.isoformat(),
                SETTLED_FROM: (back_to.date() + timedelta(days=1)).isoformat(),
            }
        stamped = replace(page, sequence=self._sequence, context=context)
        self._sequence += 1
        return stamped

    def _is_overlap(self, late: list[datetime]) -> bool:
        begun_at = self._begun_anew_at
        # A search by whole days begins at the end of the day that was reached.
        return begun_at is not None and all(at.astimezone(UTC).date() == begun_at.astimezone(UTC).date() for at in late)
