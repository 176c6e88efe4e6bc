"""A search that can be narrowed by whole days only: how a day goes on that was cut in its middle.

Belongs here: in which order and in which parts such a search is asked, so that every cut leaves the day nearer to its
end. Does not belong here: searches that can be narrowed to an instant, and what a landed page says about days
(`core.settling`); a vendor's fields and filters (`vendors/<v>/streams.py`).

Asked again from its newest record, a day that is larger than an hour's quota would be cut at the same place for ever.
So the day of a cut is asked from its other end, until the two beginnings meet; where that is cut in turn with little
left, from the first end again. A day of which much is left then, or that its first page shows to be larger than two
quotas (or so large that a second kill would be dear), is asked in parts: records whose measure (a duration) lies
between two values, the values taken from the page at hand. A part that its own first page shows to be too large is
asked in parts again. Where all records of a page have one measure (visits that left at once), the parts are those whose
text (an address, say) does and does not contain a character. What has no parts and fits into a quota is asked once
more; what does not is not asked at all, and the reason is said.

What was reached is read from landed pages: their calls' names and stamps. A cursor is never kept (DESIGN section 3).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from itertools import count, pairwise
from typing import Final, Literal

from analytics_platform.core.errors import ConfigurationError, CursorExpired
from analytics_platform.core.paging import Page
from analytics_platform.core.settling import SETTLED_FROM, InterruptedCall, Moment, Reached

__all__ = ["DayWalk", "Mark", "Order", "Scope", "Size"]

Order = Literal["asc", "desc"]

_TOTAL: Final = "total"
_MEASURES: Final = "measures"
_KEPT_MEASURES: Final = 200
_PART_PAGES: Final = 50
"""Of the largest part, also where quota allows more: so much is asked again after two kills in one part."""
_WHOLE_PAGES: Final = 4 * _PART_PAGES
"""Of the largest day that is asked whole where quota allows it: parts cost half a page each, and two to begin with."""
_PART_FILL: Final = 0.75
"""Of the largest part: a hundred measures say how large a part is by no more than a fifth."""
_PARTS_AT_ONCE: Final = 6
"""More would leave too few measures for each."""
_CHARACTERS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_LEAST_SHARE: Final = 0.1
"""Of the smaller half of a scope that is cut in two by a character."""
_MARK: Final = "mark"
_RISEN_TO: Final = "risen_to"
_MOST_ATTEMPTS: Final = 3
"""At what has no parts and may, or may not, fit into two quotas."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A field whose text contains a character, or does not; a record without a text does not."""

    field: str
    text: str
    is_contained: bool

    def __str__(self) -> str:
        return f"{self.field}{'~' if self.is_contained else '!~'}{self.text}"


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What a search is asked for: whole days and, of those, records whose measure is from `least` to `most` (both
    included; None is open) and whose texts are as all `marks` say.
    """

    first_day: date
    last_day: date
    least: float | None = None
    most: float | None = None
    marks: tuple[Mark, ...] = ()

    @property
    def is_part(self) -> bool:
        """Whether anything but days bounds it."""
        return self.least is not None or self.most is not None or bool(self.marks)

    def __str__(self) -> str:
        days = f"{self.first_day}..{self.last_day}"
        bounds = ("" if value is None else f"{value:g}" for value in (self.least, self.most))
        return "/".join([days, "..".join(bounds), *map(str, self.marks)]) if self.is_part else days


@dataclass(frozen=True, kw_only=True)
class Size:
    """What one page tells of a search's size: how many records it finds in all, and of the page's own the measures and,
    by field, the texts ("" where there is none). Nothing of what the vendor cannot filter by.
    """

    total: int | None = None
    measures: Sequence[float] = ()
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def mark(self) -> tuple[str, str] | None:
        """The field and character that come nearest to cutting the page's records in half; None where none does."""
        if len(set(self.measures)) > 1:
            return None  # cut by their measures
        best: tuple[float, str, str] | None = None
        for name, texts in sorted(self.texts.items()):
            for character in _CHARACTERS:
                share = sum(character in text for text in texts) / max(1, len(texts))
                found = (abs(share - 0.5), name, character)
                if min(share, 1 - share) >= _LEAST_SHARE and (best is None or found < best):
                    best = found
        return best and best[1:]

    @property
    def has_parts(self) -> bool:
        """Whether what it is the size of can be cut."""
        return len(set(self.measures)) > 1 or self.mark is not None


@dataclass(frozen=True, kw_only=True)
class DayWalk:
    """The pages of a search over a range of days, newest first; each call's name begins with `name`.

    Args:
        search: pages of a scope, by instant; the call they are of.
        moments_of: instant (aware) and id of each record of a page.
        size_of: asked where a day may have to be cut into parts, which is seldom.
        done_calls, interrupted: as `Extraction` has them.
        pages_at_once: requests that quota gives at once.
        page_records: records of a full page.
    """

    name: str
    first_day: date
    last_day: date
    search: Callable[[Scope, Order, str], Iterable[Page]]
    moments_of: Callable[[Page], Iterable[Moment]]
    size_of: Callable[[Page], Size]
    done_calls: frozenset[str]
    interrupted: Mapping[str, InterruptedCall]
    pages_at_once: int
    page_records: int

    def pages(self) -> Iterator[Page]:
        """What is not landed yet, stamped; see `core.settling` for the stamps.

        Raises:
            ConfigurationError: a day is larger than what quota gives at once, and has no parts.
            CursorExpired: a cursor died on its first page.
        """
        return _Walk(self).pages()


class _Walk:
    """One run over what is left. `_done` and `_open` hold what was landed before and what this run yielded."""

    def __init__(self, plan: DayWalk) -> None:
        self._plan = plan
        self._done = set(plan.done_calls)
        self._open = dict(plan.interrupted)

    def pages(self) -> Iterator[Page]:
        first, last = self._plan.first_day, self._plan.last_day
        while last >= first:
            scope = Scope(first_day=first, last_day=last)
            call = f"{self._plan.name}/{scope}"
            yield from self._falling(scope, call)
            if call in self._done:
                return
            back_to = self._back_to(call)
            day = max(first, min(last, back_to.date()))
            yield from self._rest_of(Scope(first_day=day, last_day=day), back_to, settles=day)
            last = day - timedelta(days=1)

    def _falling(
        self, scope: Scope, call: str, *, settles: date | None = None, survives: bool = True
    ) -> Iterator[Page]:
        """From the newest on, until the end or until a cursor dies that it `survives`. What was cut is not asked again,
        unless the vendor broke its order.
        """
        before = self._open.get(call)
        if call in self._done or (before is not None and before.back_to is not None):
            return
        reached = Reached(before)
        try:
            for page in self._plan.search(scope, "desc", call):
                stamped = reached.stamped(page, self._plan.moments_of(page))
                is_too_large = stamped.sequence == 0 and not page.is_last and self._is_too_large(scope, page)
                if is_too_large:
                    stamped = replace(stamped, context={**stamped.context, **self._size(page)})
                yield self._noted(_settling(stamped, settles if page.is_last else None))
                if is_too_large:
                    return
        except CursorExpired:
            if not survives or (cut := self._open.get(call)) is None or cut.back_to is None:
                raise

    def _rest_of(self, scope: Scope, back_to: datetime, *, settles: date | None) -> Iterator[Page]:
        """What is older than an instant of a scope of one day."""
        first = self._open.get(f"{self._plan.name}/{scope}")
        if first is not None and _TOTAL in first.context:
            yield from self._parts(scope, first, settles=settles)
            return
        call = f"{self._plan.name}/{scope}/rising"
        yield from self._towards(scope, call, "asc", until=back_to, settles=settles)
        if call in self._done:
            return
        cut = self._open[call]
        yield from self._meeting(scope, cut, settles=settles)
        if self._meeting_call(scope) not in self._done:
            sample = self._open.get(self._sampled_call(scope))
            if sample is not None and not self._parts_of(scope, cut):
                cut = replace(cut, context=sample.context)
            yield from self._parts(scope, cut, settles=settles)

    def _meeting_call(self, scope: Scope) -> str:
        return f"{self._plan.name}/{scope}/meeting"

    def _meeting(self, scope: Scope, cut: InterruptedCall, *, settles: date | None) -> Iterator[Page]:
        """The newer end once more, as far as the older one came: less than parts where that is nearly all."""
        risen_to, total = cut.context.get(_RISEN_TO), cut.context.get(_TOTAL)
        if risen_to is None or total is None or self._pages(int(total)) - cut.pages >= self._part_pages:
            return
        until = datetime.fromisoformat(risen_to)
        yield from self._towards(scope, self._meeting_call(scope), "desc", until=until, settles=settles)

    def _towards(
        self, scope: Scope, call: str, order: Order, *, until: datetime, settles: date | None, survives: bool = True
    ) -> Iterator[Page]:
        """From one end on, past an instant; as `_falling`."""
        if call in self._done or call in self._open:
            return
        reached: datetime | None = None
        is_in_order = True
        is_rising = order == "asc"
        try:
            for page in self._plan.search(scope, order, call):
                instants = [instant for instant, _ in self._plan.moments_of(page)]
                # A vendor that breaks the order has to be heard to the end.
                is_in_order = is_in_order and _goes_on(reached, instants, is_rising=is_rising)
                reached = _furthest(reached, instants, is_rising=is_rising)
                is_past = reached is not None and (reached > until if is_rising else reached < until)
                is_last = page.is_last or (is_in_order and is_past)
                context = {**page.context, **self._size(page)}
                if is_rising and is_in_order and reached is not None:
                    context[_RISEN_TO] = reached.isoformat()
                yield self._noted(
                    _settling(replace(page, is_last=is_last, context=context), settles if is_last else None)
                )
                if is_last:
                    return
                if is_rising and page.sequence == 0 and self._is_far(scope, page, instants, until):
                    if self._plan.size_of(page).has_parts:
                        return
                    sample = yield from self._sampled(scope)
                    if self._plan.size_of(sample).has_parts:
                        return
        except CursorExpired:
            if not survives or call not in self._open:
                raise

    def _parts(self, scope: Scope, cut: InterruptedCall, *, settles: date | None) -> Iterator[Page]:
        """The whole scope by its parts."""
        parts = self._parts_of(scope, cut)
        counts = self._counts(parts)
        told = None if scope.is_part else cut.context.get(_TOTAL)
        for call, asked in counts.items():
            yield from self._counted(call, asked, replace(scope, least=None, most=None, marks=()), told)
        if not parts or not self._done.issuperset(counts):
            yield from self._again(scope, cut, settles=settles)
            return
        for part in parts:
            call = f"{self._plan.name}/{part}"
            settled = settles if part is parts[-1] else None
            yield from self._falling(part, call, settles=settled)
            if call not in self._done:
                yield from self._rest_of(part, self._back_to(call), settles=settled)

    def _counts(self, parts: Sequence[Scope]) -> dict[str, tuple[Scope, ...]]:
        """What has to be counted before these parts are believed to be the whole: calls, and what they ask for.

        A record without a measure would be in no part: with the filter there have to be as many of the day as without
        it. One without a text has to be where the text does not contain something.
        """
        if not parts:
            return {}
        day = Scope(first_day=parts[0].first_day, last_day=parts[0].last_day)
        if not parts[0].marks:
            return {f"{self._plan.name}/{day}/measured": (replace(day, least=0.0),)}
        mark = parts[0].marks[-1]
        halves = tuple(replace(day, marks=(replace(mark, is_contained=each),)) for each in (True, False))
        return {f"{self._plan.name}/{day}/{mark.field} counted": halves}

    def _counted(self, call: str, asked: Sequence[Scope], whole: Scope, told: str | None) -> Iterator[Page]:
        """One page of each, and of the whole unless they add up to what it `told` before: done where they do. The day
        may have grown since it was cut; asked now, all have to tell the same.
        """
        known = self._open.get(call)
        if call in self._done or (known is not None and known.pages > len(asked)):
            return
        counted = 0 if known is None else int(known.context.get(_TOTAL, "0"))
        begun = 0 if known is None else known.pages
        for sequence, scope in list(enumerate([*asked, whole]))[begun:]:
            page = next(iter(self._plan.search(scope, "asc", call)))
            total = self._plan.size_of(page).total
            if sequence == len(asked):
                is_last = total == counted
            else:
                counted += total or 0
                is_last = sequence == len(asked) - 1 and str(counted) == told
            context = {**page.context, _TOTAL: str(counted)}
            yield self._noted(replace(page, sequence=sequence, is_last=is_last, context=context))
            if is_last:
                return

    def _again(self, scope: Scope, cut: InterruptedCall, *, settles: date | None) -> Iterator[Page]:
        """From both ends as before, with nothing gained: a kill or a short hour cut it, and the next may not."""
        for attempt in count(2):
            call = f"{self._plan.name}/{scope}/again {attempt}"
            rising = f"{call}/rising"
            if call in self._open and rising in self._open:
                continue
            self._check_fits(scope, cut, attempt)
            yield from self._falling(scope, call, settles=settles, survives=False)
            if call not in self._done:
                until = self._back_to(call)
                yield from self._towards(scope, rising, "asc", until=until, settles=settles, survives=False)
            if call in self._done or rising in self._done:
                return

    def _check_fits(self, scope: Scope, cut: InterruptedCall, attempt: int) -> None:
        total = cut.context.get(_TOTAL)
        pages = 0 if total is None else self._pages(int(total))
        at_once = self._plan.pages_at_once
        if not (0 < pages <= at_once or (attempt <= _MOST_ATTEMPTS and pages <= 2 * at_once)):
            raise self._too_large(scope, cut)

    def _parts_of(self, scope: Scope, cut: InterruptedCall) -> list[Scope]:
        """Parts that are small enough, made between the measures of the page the cut was at; two halves by a text where
        all are the same; none where there is neither.

        The bounds lie between measures, so that no record is in two parts and none is in no part.
        """
        values = sorted(float(text) for text in cut.context.get(_MEASURES, "").split())
        between = [(low + high) / 2 for low, high in pairwise(sorted(set(values)))]
        total = cut.context.get(_TOTAL)
        if total is not None and not between and (mark := cut.context.get(_MARK)) is not None:
            name, _, text = mark.rpartition(" ")
            halves = (Mark(field=name, text=text, is_contained=each) for each in (True, False))
            return [replace(scope, marks=(*scope.marks, half)) for half in halves]
        if total is None or not between:
            return []
        number = min(_PARTS_AT_ONCE, max(2, math.ceil(self._pages(int(total)) / self._most_pages(cut, int(total)))))
        wanted = (values[len(values) * n // number] for n in range(1, number))
        bounds = sorted({between[max(0, bisect_left(between, value) - 1)] for value in wanted})
        edges = [scope.least, *bounds, scope.most]
        return [replace(scope, least=least, most=most) for least, most in pairwise(edges)]

    def _most_pages(self, cut: InterruptedCall, total: int) -> int:
        """Of one part: most of what quota gives at once, and no more than the last attempt came to."""
        most = max(1, int(self._part_pages * _PART_FILL))
        return most if cut.pages == 1 or self._pages(total) > 2 * self._part_pages else max(1, min(most, cut.pages))

    @property
    def _part_pages(self) -> int:
        """Of the largest part."""
        return min(self._plan.pages_at_once, _PART_PAGES)

    def _is_too_large(self, scope: Scope, page: Page) -> bool:
        """A day that its two ends together would not reach through, or not cheaply again; a part of more than one."""
        if scope.first_day != scope.last_day:
            return False
        size = self._plan.size_of(page)
        if size.total is None or not size.has_parts:
            return False
        most = self._part_pages if scope.is_part else min(2 * self._plan.pages_at_once, _WHOLE_PAGES)
        return self._pages(size.total) > most

    def _is_far(self, scope: Scope, page: Page, instants: Sequence[datetime], until: datetime) -> bool:
        """Whether, records being spread evenly over the day, two more cuts would not reach an instant from here."""
        size = self._plan.size_of(page)
        if scope.is_part or size.total is None or not instants:
            return False
        share = min(1.0, max(0.0, (until - min(instants)) / timedelta(days=1)))
        return self._pages(math.ceil(size.total * share)) > 2 * self._part_pages

    def _sampled_call(self, scope: Scope) -> str:
        return f"{self._plan.name}/{scope}/sampled"

    def _sampled(self, scope: Scope) -> Generator[Page, None, Page]:
        """A page of the other end, to make parts of: the oldest records may be all alike (a burst of a bot)."""
        call = self._sampled_call(scope)
        page = next(iter(self._plan.search(scope, "desc", call)))
        page = replace(page, sequence=0, is_last=False, context={**page.context, **self._size(page)})
        yield self._noted(page)
        return page

    def _size(self, page: Page) -> dict[str, str]:
        size = self._plan.size_of(page)
        step = max(1, len(size.measures) // _KEPT_MEASURES)
        measures = " ".join(f"{value:g}" for value in sorted(size.measures)[::step])
        total = {} if size.total is None else {_TOTAL: str(size.total)}
        mark = {} if size.mark is None else {_MARK: " ".join(size.mark)}
        return {**total, **({_MEASURES: measures} if measures else {}), **mark}

    def _too_large(self, scope: Scope, cut: InterruptedCall) -> ConfigurationError:
        total = cut.context.get(_TOTAL)
        size = "" if total is None else f" ({total} records, {self._pages(int(total))} requests)"
        return ConfigurationError(
            f"{scope.first_day} has more {self._plan.name} than can be asked for under this quota{size}: nothing "
            f"the vendor searches by tells them apart, and {self._plan.pages_at_once} requests at once do not suffice.",
            "Set a plan with more requests an hour for this site in sites.yaml. What is landed stays.",
        )

    def _pages(self, records: int) -> int:
        return math.ceil(records / self._plan.page_records)

    def _back_to(self, call: str) -> datetime:
        back_to = self._open[call].back_to
        if back_to is None:
            raise AssertionError("unreachable: a walk out of order ends or raises")
        return back_to

    def _noted(self, page: Page) -> Page:
        if page.is_last:
            self._done.add(page.call)
            self._open.pop(page.call, None)
        else:
            self._open[page.call] = InterruptedCall(pages=page.sequence + 1, context=page.context)
        return page


def _goes_on(reached: datetime | None, instants: Sequence[datetime], *, is_rising: bool) -> bool:
    if reached is None or not instants:
        return True
    return min(instants) >= reached if is_rising else max(instants) <= reached


def _furthest(reached: datetime | None, instants: Sequence[datetime], *, is_rising: bool) -> datetime | None:
    known = [*instants, *([] if reached is None else [reached])]
    return (max if is_rising else min)(known, default=None)


def _settling(page: Page, day: date | None) -> Page:
    return page if day is None else replace(page, context={**page.context, SETTLED_FROM: day.isoformat()})
