"""Which deferred work to resume now: newest day first, sites in turn, no more than the budget pays for.

Belongs here: the choice, and the sentence that explains it. Does not belong here: reading the ledger or asking Dagster
(`core.automation`), forecasting (`core.planning`).

Work is resumed in pieces, a piece being one batch of a stream for a site. Pieces are chosen until the likely requests
use up what is left of their account's window, after the reserve and after what running work will still spend. The last
one may be cut short by the window: it keeps what it landed and goes on from there, so no request of the hour is idle.
Where room is kept for today's partitions no other piece may be cut short, because the cut is where that room begins.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from analytics_platform.core.quota_policy import Deferral

__all__ = ["Budget", "Choice", "Piece", "Resumption", "choose"]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What an account may still spend on deferred work.

    Args:
        limit: requests of the account's longest window.
        left: of those, free now for any deferred work.
        kept: requests free now for today's partitions alone (not part of `left`).
        next_slot_at: when another one is free; None where one is free already.
    """

    account: str
    limit: int
    left: int
    kept: int = 0
    next_slot_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One batch of deferred work and its likely requests; `is_for_today` where its newest day is the one that ended."""

    account: str
    deferral: Deferral
    first_day: date
    last_day: date
    requests: float
    is_for_today: bool = False


@dataclass(frozen=True, kw_only=True)
class Resumption:
    """One run to ask for: adjacent pieces of one deferral."""

    deferral: Deferral
    first_day: date
    last_day: date
    requests: int


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The runs to ask for, newest day first, and why nothing more."""

    resumptions: tuple[Resumption, ...]
    why: str


def choose(pieces: Sequence[Piece], budgets: Sequence[Budget]) -> Choice:
    """Choose within every account's budget. `pieces` are those that are due and that no run is working on."""
    chosen: list[Piece] = []
    reasons: list[str] = []
    for budget in budgets:
        mine = [piece for piece in pieces if piece.account == budget.account]
        picked = _within(mine, budget)
        chosen += picked
        if len(picked) < len(mine):
            reasons.append(_why_not_more(mine, picked, budget))
    return Choice(resumptions=_joined(chosen), why=" ".join(reasons))


def _within(pieces: Sequence[Piece], budget: Budget) -> list[Piece]:
    left, kept = float(budget.left), float(budget.kept)
    turns: Counter[str] = Counter()
    waiting = list(pieces)
    picked: list[Piece] = []
    while waiting:
        # The newest day first; of the same day, the site that had the fewest turns.
        waiting.sort(key=lambda piece: (-piece.last_day.toordinal(), turns[piece.deferral.site], piece.deferral.site))
        piece = waiting.pop(0)
        free = left + kept if piece.is_for_today else left
        may_be_cut = piece.is_for_today or not kept
        if free < (min(piece.requests, 1) if may_be_cut else piece.requests):
            break
        picked.append(piece)
        turns[piece.deferral.site] += 1
        from_kept = min(kept, piece.requests) if piece.is_for_today else 0.0
        kept -= from_kept
        left -= piece.requests - from_kept
    return picked


def _why_not_more(mine: Sequence[Piece], picked: Sequence[Piece], budget: Budget) -> str:
    waiting = [piece for piece in mine if piece not in picked]
    newest = max(waiting, key=lambda piece: piece.last_day)
    until = "" if budget.next_slot_at is None else f", the next request is free at {budget.next_slot_at:%H:%M} UTC"
    kept = f" beside {budget.kept} kept for today" if budget.kept else ""
    return (
        f"{len(waiting)} more wait: {newest.deferral.stream} of {newest.deferral.site} for {newest.last_day} needs "
        f"about {math.ceil(newest.requests)} requests, {budget.left} of {budget.limit} were left{kept}{until}."
    )


def _joined(pieces: Sequence[Piece]) -> tuple[Resumption, ...]:
    """One run for pieces of one deferral that touch."""
    by_work: dict[tuple[str, str, str], list[Piece]] = {}
    for piece in pieces:
        key = (piece.deferral.vendor, piece.deferral.stream, piece.deferral.site)
        by_work.setdefault(key, []).append(piece)
    found = []
    for same in by_work.values():
        run: list[Piece] = []
        for piece in sorted(same, key=lambda piece: piece.first_day):
            touches = run and piece.deferral == run[-1].deferral
            if run and not (touches and piece.first_day == run[-1].last_day + timedelta(days=1)):
                found.append(_one(run))
                run = []
            run.append(piece)
        found.append(_one(run))
    return tuple(sorted(found, key=lambda resumption: resumption.last_day, reverse=True))


def _one(pieces: Sequence[Piece]) -> Resumption:
    return Resumption(
        deferral=pieces[0].deferral,
        first_day=pieces[0].first_day,
        last_day=pieces[-1].last_day,
        requests=math.ceil(sum(piece.requests for piece in pieces)),
    )
