"""Stories as data: which kinds there are, and the list planted in the demo range (what, where, when, parameters).

Belongs here: the list, the kinds, cutting to a range. Does not belong here: acting on them. `traffic` acts on what
changes the truth (bots, consent, a split); observers act on what changes only their own view (a missing tag, a unit, a
recording cap, a zone). A kind may be planted several times, on several sites, countries, vendors and days.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date

from analytics_platform.sandbox.truth import SiteTruth, Story

__all__ = ["KINDS", "chosen", "planted"]

_OPEN_END = date(9999, 12, 31)

KINDS: Mapping[str, frozenset[str]] = {
    # One day: `visitors` one-page visits of headless browsers (times the scale), this share of them with JavaScript.
    "bot_burst": frozenset({"visitors", "javascript_share"}),
    # From its first day on, to the end of the range or the country's next banner.
    "consent_banner": frozenset({"country", "consent_rate"}),
    # The vendor's tag is missing on the paths with this prefix.
    "tag_removed": frozenset({"vendor", "path_prefix"}),
    # The vendor's tag runs for a share of visitors less, on every page.
    "ratio_break": frozenset({"vendor", "lost_share"}),
    # The vendor records only the first sessions of a local day.
    "plan_cap": frozenset({"vendor", "recordings_per_day"}),
    # This share of visitors (planned: half) gets the other variation of the site's experiment. Holds for all days.
    "broken_split": frozenset({"other_share"}),
    # Pirsch counts the site by the days of another zone. Holds for all days.
    "domain_zone": frozenset({"timezone"}),
    "unit_change": frozenset({"vendor", "field", "from_unit", "to_unit"}),
    "dst_end_shop": frozenset({"timezone", "hours"}),
    "dst_end_blog": frozenset({"timezone", "hours"}),
}
"""Every kind of story with its parameters; an observer finds its own by `vendor`."""


def planted(sites: Sequence[SiteTruth], first_day: date, last_day: date) -> tuple[Story, ...]:
    """The demo's stories that fall in the range on these sites, cut to the range."""
    return chosen(_all_stories(), sites, first_day, last_day)


def chosen(stories: Sequence[Story], sites: Sequence[SiteTruth], first_day: date, last_day: date) -> tuple[Story, ...]:
    """Those of the stories that fall in the range on these sites, cut to the range.

    Raises:
        ValueError: a story of an unknown kind, or with other parameters than its kind has.
    """
    keys = {site.key for site in sites}
    found = []
    for story in stories:
        if KINDS.get(story.name) != frozenset(story.parameters):
            raise ValueError(f"no part of the sandbox acts on {story.name!r} with {sorted(story.parameters)}")
        if story.site_key not in keys or story.last_day < first_day or story.first_day > last_day:
            continue
        found.append(replace(story, first_day=max(story.first_day, first_day), last_day=min(story.last_day, last_day)))
    return tuple(found)


def _all_stories() -> tuple[Story, ...]:
    return (
        Story(
            name="bot_burst",
            site_key="shop",
            first_day=date(2026, 10, 14),
            last_day=date(2026, 10, 14),
            parameters={"visitors": 600, "javascript_share": 0.4},
            text="About 600 one-page visits by headless browsers from data-centre addresses. Pirsch filters them; "
            "the 40 % that run JavaScript are recorded by Smartlook and Inspectlet.",
        ),
        Story(
            name="consent_banner",
            site_key="shop",
            first_day=date(2026, 10, 19),
            last_day=_OPEN_END,
            parameters={"country": "FR", "consent_rate": 0.35},
            text="A consent banner goes live for visitors from France: consent falls to 35 %. Earlier cookies are "
            "reset, so a returning visitor decides anew under a new visitor id.",
        ),
        Story(
            name="tag_removed",
            site_key="blog",
            first_day=date(2026, 10, 21),
            last_day=date(2026, 10, 22),
            parameters={"vendor": "smartlook", "path_prefix": "/articles/"},
            text="A deploy loses the Smartlook tag on /articles/*: Smartlook sees no view there on these local days.",
        ),
        Story(
            name="unit_change",
            site_key="blog",
            first_day=date(2026, 10, 26),
            last_day=_OPEN_END,
            parameters={"vendor": "inspectlet", "field": "session_duration", "from_unit": "ms", "to_unit": "s"},
            text="Inspectlet reports session_duration in seconds instead of milliseconds on this site.",
        ),
        Story(
            name="plan_cap",
            site_key="shop",
            first_day=date(2026, 10, 24),
            last_day=_OPEN_END,
            parameters={"vendor": "smartlook", "recordings_per_day": 60},
            text="The Smartlook plan records only the first 60 sessions of a local day: the hourly curve goes flat.",
        ),
        Story(
            name="dst_end_shop",
            site_key="shop",
            first_day=date(2026, 10, 25),
            last_day=date(2026, 10, 25),
            parameters={"timezone": "Europe/Berlin", "hours": 25},
            text="Summer time ends: this local day has 25 hours, 02:00 to 03:00 happens twice.",
        ),
        Story(
            name="dst_end_blog",
            site_key="blog",
            first_day=date(2026, 11, 1),
            last_day=date(2026, 11, 1),
            parameters={"timezone": "America/New_York", "hours": 25},
            text="Daylight saving time ends: this local day has 25 hours, 01:00 to 02:00 happens twice.",
        ),
    )
