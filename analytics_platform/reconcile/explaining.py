"""Likely causes in words: one row of the waterfall becomes one sentence a person can act on.

Belongs here: ranking and wording. Does not belong here: computing effects (dbt: `fct_reconciliation_waterfall`), plots,
printing, any vendor's name.

The words say how sure a number is. Bots and definitions are counted on the vendor's own rows. A plan cap, pages without
a tag and consent are inferred. What remains is called unexplained and is never spread over the other parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["LEAST_SHARE", "Cause", "causes"]

LEAST_SHARE: Final = 0.01
"""Effects below this share of the anchor's number are left out: nobody should chase them."""


@dataclass(frozen=True, kw_only=True)
class Cause:
    """One part of a gap.

    Attributes:
        component: as in fct_reconciliation_waterfall.
        effect: signed, in the vendor's units (sessions, visitors or views).
        share_of_gap: effect divided by the gap: 1.2 is more than all of it, negative works against it; None where there
            is no gap.
        text: one sentence, with what to do.
    """

    component: str
    effect: float
    share_of_gap: float | None
    text: str


def causes(parts: Sequence[Mapping[str, Any]]) -> tuple[Cause, ...]:
    """The causes of one gap, the largest first.

    Args:
        parts: the rows of fct_reconciliation_waterfall of one site, date, metric and vendor; rows of another make a
            ValueError, because their effects are of another gap.

    Returns:
        Causes ranked by size; those below 1 % of the anchor's number are left out. Empty for no rows, and where
        nothing is large enough.
    """
    if not parts:
        return ()
    first = parts[0]
    same = ("site_key", "stat_date", "metric", "vendor")
    if any(part.get(name) != first.get(name) for part in parts for name in same):
        raise ValueError("these parts are of more than one gap")
    anchor, gap = float(first["anchor_value"]), float(first["gap"])
    least = max(LEAST_SHARE * anchor, 0.5)
    found = []
    for part in parts:
        effect = float(part["effect"])
        if abs(effect) < least:
            continue
        share = effect / gap if gap else None
        text = _TEXTS[str(part["component"])](_Words(part, effect, share))
        cause = Cause(component=str(part["component"]), effect=effect, share_of_gap=share, text=text)
        found.append((int(part["step_number"]), cause))
    # Equal sizes in the order of the steps, so that the same rows always read the same.
    return tuple(cause for _, cause in sorted(found, key=lambda pair: (-abs(pair[1].effect), pair[0])))


class _Words:
    """What a sentence needs of a row."""

    def __init__(self, part: Mapping[str, Any], effect: float, share: float | None) -> None:
        self.method = str(part["method"])
        self.metric = str(part["metric"])
        self.vendor, self.anchor = str(part["vendor"]), str(part["anchor_vendor"])
        self.count = f"{abs(effect):,.0f} {self.metric}"
        self.direction = "more" if effect > 0 else "fewer"
        self.of_anchor = f"{abs(effect) / max(float(part['anchor_value']), 1):.0%} of {self.anchor}'s"
        self.of_gap = "" if share is None else f" ({share:.0%} of the gap)"


def _incomplete(w: _Words) -> str:
    return (
        f"A partition of this date is incomplete, so the whole gap of {w.count} says nothing yet: "
        "materialize the date for both vendors before looking further."
    )


def _day_boundary(w: _Words) -> str:
    return (
        f"The two vendors cut the date in different time zones: {w.count} {w.direction}{w.of_gap} fall on the other "
        f"side of midnight. Set {w.anchor}'s time zone to the site's, or compare whole weeks."
    )


def _definition(w: _Words) -> str:
    what = {
        "sessions": "it ends sessions at other pauses",
        "views": "it counts a reload as a view",
        "visitors": "it starts sessions on other dates",
    }.get(w.metric, "it counts by other rules")
    return (
        f"{w.vendor} defines {w.metric} differently ({what}): {w.count} {w.direction}{w.of_gap}, counted on its own "
        "sessions. Nothing is broken; compare the common basis instead."
    )


def _bots(w: _Words) -> str:
    return (
        f"{w.vendor} counts {w.count} of suspected bots that {w.anchor} filters{w.of_gap}: look at bot_reason in "
        "fct_sessions, and block them at the site or exclude them from the vendor's reports."
    )


def _sampling(w: _Words) -> str:
    return (
        f"{w.vendor} stopped recording before the date was over while {w.anchor} went on: about {w.count} were never "
        f"recorded{w.of_gap}. A plan cap looks like this: raise the plan or its sampling, and read the rest of the "
        "date as missing."
    )


def _consent(w: _Words) -> str:
    if w.direction == "more":
        return (
            f"{w.vendor} sees {w.count} more than {w.anchor} in the countries it is compared by{w.of_gap}, which "
            f"consent cannot do: check what {w.anchor} filters or whether a tag fires twice."
        )
    return (
        f"About {w.count} ({w.of_anchor}){w.of_gap} never reach {w.vendor}: visitors who refuse consent, block its "
        "tag, or leave before it records. The ratio is learnt by country since its last change; the three cannot be "
        "told apart from outside. Compare fct_daily_breakdown by country before and after the banner changed."
    )


def _tag_missing(w: _Words) -> str:
    return (
        f"{w.anchor} saw pages on which {w.vendor} saw nobody: about {w.count} are lost there{w.of_gap}. See "
        "int_waterfall_missing_pages for the pages and put the tag back; what was not recorded cannot be recovered."
    )


def _unexplained(w: _Words) -> str:
    if w.method == "no_session_rows":
        return (
            f"{w.vendor} lists no sessions, so its gap of {w.count} cannot be taken apart: compare its trend, not its "
            "level."
        )
    return (
        f"{w.count} {w.direction} remain unexplained{w.of_gap}: no cause known here accounts for them. A tag that "
        "fires for some visitors only, on all pages, looks like this; ask what was deployed, and see "
        "fct_vendor_reconciliation for the date it began."
    )


_TEXTS: Final[dict[str, Callable[[_Words], str]]] = {
    "incomplete_partition": _incomplete,
    "day_boundary": _day_boundary,
    "definition": _definition,
    "bots": _bots,
    "sampling": _sampling,
    "consent": _consent,
    "tag_missing": _tag_missing,
    "unexplained": _unexplained,
}
