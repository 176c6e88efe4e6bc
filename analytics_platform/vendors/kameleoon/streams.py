"""What is asked of Kameleoon, for which visitors and days, and into which tables it goes.

Belongs here: the streams, the visitor panel and their extraction. Does not belong here: paths and parameters
(`client`), columns (`tables`), Dagster.

The API has no list of visitors, so the panel is what the session-replay vendors saw: both carry the visitor code of
Kameleoon's cookie. One request a code gives its newest 25 visits; those that started on other days are dropped by the
lake.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from datetime import date
from functools import partial
from typing import Final

from analytics_platform.core.concurrency import Send
from analytics_platform.core.errors import ConfigurationError, Where
from analytics_platform.core.forecast import Alternative, Certainty, Forecast, Outlook, distinct_from, visits_on
from analytics_platform.core.streams import Extraction, Stream
from analytics_platform.vendors.kameleoon.client import (
    KameleoonClient,
    codes_by_call,
    counters_call,
    visitor_call,
)
from analytics_platform.vendors.kameleoon.tables import CONVERSIONS, EXPOSURES, PRODUCT_COUNTERS, VISIT_PAGES, VISITS

__all__ = [
    "PRODUCT_COUNTERS_STREAM",
    "STREAMS",
    "VISITS_STREAM",
    "counter_requests",
    "is_sampled",
    "panel",
    "visit_requests",
]

LOOKBACK_DAYS: Final = 3
MAX_CODE_LENGTH: Final = 255

_CODES_SQL: Final = """
    SELECT kameleoon_visitor_code AS code FROM smartlook.sessions WHERE _site = ? AND _day BETWEEN ? AND ?
    UNION
    SELECT "value" AS code FROM inspectlet.session_tags
    WHERE _site = ? AND _day BETWEEN ? AND ? AND tag = 'kameleoon_visitor_code'
"""
_VISITS_SQL: Final = """
    SELECT _day, kameleoon_visitor_code AS code FROM smartlook.sessions WHERE _site = ? AND _day BETWEEN ? AND ?
    UNION ALL
    SELECT _day, "value" AS code FROM inspectlet.session_tags
    WHERE _site = ? AND _day BETWEEN ? AND ? AND tag = 'kameleoon_visitor_code'
"""
_SEEN_IN: Final = ("smartlook/sessions", "inspectlet/session_tags")


def visit_requests(client: KameleoonClient, extraction: Extraction) -> Iterator[Send]:
    """One call a visitor code of the panel that has not landed yet, in the order of the codes.

    `ids["current_visit"] = "true"` also asks for the visit that is going on (Feature Experimentation only).

    Raises:
        ConfigurationError: no site_code, or visitor_sample is not a number from 0 to 1.
        VendorError: when a request is sent, see `KameleoonClient`.
    """
    site_code = _site_code(extraction)
    current_visit = extraction.ids.get("current_visit", "").lower() == "true"
    for code in panel(extraction):
        if visitor_call(code) not in extraction.done_calls:
            yield partial(client.visitor, site_code=site_code, visitor_code=code, current_visit=current_visit)


def counter_requests(client: KameleoonClient, extraction: Extraction) -> Iterator[Send]:
    """Counters of the configured products for one UTC day; no products, no request.

    Raises:
        ConfigurationError: no site_code, or `eans` is not one comma-separated text.
        VendorError: when a request is sent, see `KameleoonClient`.
    """
    day = extraction.first_day
    for some in codes_by_call(_eans(extraction)):
        if counters_call(day, some) not in extraction.done_calls:
            yield partial(client.product_counters, site_code=_site_code(extraction), eans=some, day=day)


def panel(extraction: Extraction) -> list[str]:
    """Visitor codes the replay vendors saw on the days of the extraction, sampled, sorted, each once."""
    share = _visitor_sample(extraction)
    scope = [extraction.site_key, extraction.first_day, extraction.last_day]
    found = (row[0] for row in extraction.lake.query(_CODES_SQL, [*scope, *scope]))
    codes = sorted({code for code in found if code is not None and _is_code(code)})
    sampled = [code for code in codes if is_sampled(code, share)]
    extraction.log.info("kameleoon: %d of %d visitor codes of %s", len(sampled), len(codes), extraction.site_key)
    return sampled


def forecast_visits(outlook: Outlook) -> Forecast:
    """One request a code of the panel: counted where both replay vendors are landed, else by how many codes they saw
    on other days.
    """
    share = _visitor_sample(outlook)
    landed = outlook.history.landed_days(_SEEN_IN, outlook.days)
    if not landed:
        return _stated_panel(outlook, share)
    scope = [outlook.site_key, landed[0], landed[-1]]
    seen: dict[date, list[str]] = {day: [] for day in landed}
    for day, code in outlook.lake.query(_VISITS_SQL, [*scope, *scope]):
        if day in seen and code is not None and _is_code(code):
            seen[day].append(code)
    if all(day in seen for day in outlook.days):
        codes = {code for day in outlook.days for code in seen[day]}
        return Forecast.exactly(sum(is_sampled(code, share) for code in codes))
    visitors = distinct_from(seen, outlook.days)
    if visitors.certainty is Certainty.UNKNOWN:
        return _stated_panel(outlook, share)
    return visitors.sampled(share).mapped(math.ceil)


def _stated_panel(outlook: Outlook, share: float) -> Forecast:
    """Nothing is landed: the visitors of the smallest site are the same every day, those of the largest never."""
    stated = visits_on(outlook.days)
    least = math.ceil(share * stated.low / len(outlook.days))
    return Forecast.unknown(least=least, most=math.ceil(share * stated.high))


def forecast_product_counters(outlook: Outlook) -> Forecast:
    """One request a day for as many products as a call takes."""
    return Forecast.exactly(len(codes_by_call(_eans(outlook))) * len(outlook.days))


def _smaller_panel(outlook: Outlook) -> Alternative | None:
    share = _visitor_sample(outlook)
    smaller = share / 5
    if smaller <= 0:
        return None
    what = f"a panel of {smaller:.0%} of the visitors instead of {share:.0%} (visitor_sample), nested in the larger one"
    return Alternative(what=what, requests=forecast_visits(outlook).times(0.2).mapped(math.ceil))


def is_sampled(visitor_code: str, share: float) -> bool:
    """Whether the code is in a sample of `share` (0 to 1): the same on every day and host, nested in larger ones."""
    position = int.from_bytes(hashlib.sha256(visitor_code.encode()).digest()[:8], "big") / 2**64
    return position < share


def _is_code(text: str) -> bool:
    # Tags are free text of the site's visitors: only what can be a cookie value is sent on.
    return 0 < len(text) <= MAX_CODE_LENGTH and text.isascii() and text.isprintable() and " " not in text


def _visitor_sample(extraction: Extraction | Outlook) -> float:
    text = extraction.ids.get("visitor_sample", "1.0")
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise _unusable(
            extraction, "visitor_sample is not a number from 0 to 1", "Give the share of visitors, e.g. 0.2."
        )
    return share


def _eans(extraction: Extraction | Outlook) -> list[str]:
    text = extraction.ids.get("eans", "").strip()
    if text.startswith("["):
        raise _unusable(extraction, "eans is a list", 'Write one text: eans: "ean1,ean2".')
    return list(dict.fromkeys(ean for part in text.split(",") if (ean := part.strip())))


def _site_code(extraction: Extraction) -> str:
    site_code = extraction.ids.get("site_code", "").strip()
    if not site_code:
        raise _unusable(extraction, "there is no site_code", "Copy it from the site's settings at Kameleoon.")
    return site_code


def _unusable(extraction: Extraction | Outlook, what: str, next_step: str) -> ConfigurationError:
    where = Where(vendor="kameleoon", site=extraction.site_key)
    return ConfigurationError(
        f"The kameleoon block of the site in sites.yaml cannot be used: {what}.", next_step, where
    )


VISITS_STREAM: Final = Stream(
    vendor="kameleoon",
    name="visits",
    tables=(VISITS, VISIT_PAGES, EXPOSURES, CONVERSIONS),
    span="range",
    requests=visit_requests,
    forecast=forecast_visits,
    cheaper=_smaller_panel,
    lookback_days=LOOKBACK_DAYS,
    depends_on=_SEEN_IN,
)
PRODUCT_COUNTERS_STREAM: Final = Stream(
    vendor="kameleoon",
    name="product_counters",
    tables=(PRODUCT_COUNTERS,),
    span="day",
    requests=counter_requests,
    forecast=forecast_product_counters,
    lookback_days=LOOKBACK_DAYS,
)
STREAMS: Final = (VISITS_STREAM, PRODUCT_COUNTERS_STREAM)
