"""The fewest requests an API allows for the rows of a range of days, counted without the platform's own code.

Belongs here: asking a sandbox by hand, with plain HTTP and the documented page sizes, how much there is, and the
arithmetic from there. Does not belong here: clients, streams, landing and lake (what they spend is what this measures),
the backfill itself (`backfill`).

Nothing of a vendor's folder is imported, so a client that asks too often cannot move its own yardstick. Answers are
taken as an empty landing would need them: every row of the range once.

* Smartlook: a search and a list have at most 100 records a page (vendor document, searching users: "the maximum is
  100") and a link where there is more, so n records cost max(1, ceil(n / 100)). A histogram is one event's, so every
  definition costs one. A funnel is computed for a range, so its daily rows cost one a day. Events of people are
  listed for one visitor only: each visitor of the declared sample costs a walk.
* Inspectlet: at most 100 sessions a page ("a maximum of 100 sessions can be returned at once"), and neither a total
  nor a link: only a page that is not full ends the list, so n sessions cost floor(n / 100) + 1.
* Pirsch: a day series has at most 100 rows (the list limit of the document), and daily_stats needs two series,
  and the domain once, which alone names the zone of the days. None of the 21 lists carries the day, so each costs one
  a day.
* Kameleoon: one visitor a call and no list of visitors, so each code of the declared sample that a replay vendor saw
  costs one. Counters name no day, so they cost one a day, or more where the codes are longer than a URL may be; the
  vendor gives no limit for them, and servers commonly take request lines of 8,190 bytes.
* Kissmetrics: an entity is one call, a list one of up to 1,000 entries (the longest page seen accepted, contract §3).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Self
from urllib.parse import quote

import httpx

from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import SiteTruth

__all__ = ["Yardstick"]

_PAGE = 100
_PIRSCH_LISTS = 21
_PIRSCH_SERIES = 2
_KISSMETRICS_PAGE = 1000
_KISSMETRICS_LISTS = ("events", "properties", "reports", "metrics")
_URL_BYTES = 8190


class Yardstick:
    """What one site's vendors hold for a range of days (inclusive), read from a running sandbox by hand. A context
    manager.

    Args:
        ids: the site's block of sites.yaml by vendor: declared samples and products.
    """

    def __init__(
        self, sandbox: Sandbox, site: SiteTruth, days: Sequence[date], ids: Mapping[str, Mapping[str, str]]
    ) -> None:
        self._sandbox = sandbox
        self._site = site
        self._first, self._last = days[0], days[-1]
        self._days = len(days)
        self._ids = ids
        self._http = httpx.Client(trust_env=False, timeout=60)
        self._sessions: list[dict[str, Any]] | None = None
        self._recordings: list[dict[str, Any]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self._http.close()

    def fewest(self, vendor: str, stream: str) -> int:
        """The least the vendor's API allows for a stream of the platform. Raises KeyError for one it does not know."""
        return {
            "smartlook/sessions": lambda: _pages(len(self._smartlook_sessions())),
            "smartlook/visitors": lambda: _pages(self._smartlook_visitors()),
            "smartlook/events": self._smartlook_events,
            "smartlook/event_daily": lambda: self._listed("events") + _pages(self._listed("events")),
            "smartlook/funnels": lambda: self._listed("funnels") * self._days + _pages(self._listed("funnels")),
            "inspectlet/sessions": lambda: len(self._inspectlet_sessions()) // _PAGE + 1,
            "inspectlet/websites": lambda: 1,
            "pirsch/daily_stats": lambda: 1 + _PIRSCH_SERIES * math.ceil(self._days / _PAGE),
            "pirsch/reports": lambda: _PIRSCH_LISTS * self._days,
            "kameleoon/visits": lambda: len(self._panel()),
            "kameleoon/product_counters": lambda: self._days * self._counter_calls(),
            "kissmetrics/catalogue": self._catalogue,
        }[f"{vendor}/{stream}"]()

    # -- Smartlook -----------------------------------------------------------------------------------------------------

    def _smartlook(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._site.smartlook_token}"}
        url = self._sandbox.base_urls["smartlook"] + path
        return _json(self._http.request(method, url, headers=headers, **arguments))

    def _smartlook_sessions(self) -> list[dict[str, Any]]:
        """Sessions that began on the days (UTC): by the vendor's own filter, "after" and "before" excluding theirs."""
        if self._sessions is None:
            around = (self._first - timedelta(days=1), self._last + timedelta(days=1))
            filters = [
                {"name": "recording_date", "operator": operator, "value": day.isoformat()}
                for operator, day in zip(("after", "before"), around, strict=True)
            ]
            self._sessions = list(
                self._walk("POST", f"/api/v1/sessions/search?limit={_PAGE}", "sessions", json={"filters": filters})
            )
        return self._sessions

    def _smartlook_visitors(self) -> int:
        value = [self._first.isoformat(), self._last.isoformat()]
        asked = {"filters": [{"name": "user_first_seen", "operator": "in_range", "value": value}]}
        return int(self._smartlook("POST", "/api/v2/visitors/search?limit=1", json=asked)["totalVisitorsCount"])

    def _smartlook_events(self) -> int:
        sample = float(self._ids["smartlook"].get("event_visitor_sample", "0.05"))
        sampled = sorted({s["visitorId"] for s in self._smartlook_sessions() if _is_in(s["visitorId"], sample)})
        span = f"dateFrom={self._first}&dateTo={self._last}&limit={_PAGE}"
        return sum(
            _pages(sum(1 for _ in self._walk("GET", f"/api/v1/visitors/{visitor}/events?{span}", "events")))
            for visitor in sampled
        )

    def _listed(self, what: str) -> int:
        return int(self._smartlook("GET", f"/api/v1/{what}?limit=1")["totalCount"])

    def _walk(self, method: str, path: str, field: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        following: str | None = path
        while following:
            page = self._smartlook(method, following, **arguments)
            yield from page[field]
            following = page["_links"].get("nextPage")

    # -- the others ----------------------------------------------------------------------------------------------------

    def _inspectlet_sessions(self) -> list[dict[str, Any]]:
        if self._recordings is None:
            secret = self._sandbox.context.credentials
            start, end = (datetime.combine(day, time.min, tzinfo=UTC) for day in (self._first, self._last))
            bounds = {"start": str(int(start.timestamp())), "end": str(int((end + timedelta(days=1)).timestamp()) - 1)}
            form = {"limit": str(_PAGE), "search": json.dumps({"daterange": "custom", "daterangecustom": bounds})}
            self._recordings, number = [], 1
            while len(self._recordings) == (number - 1) * _PAGE:
                answer = self._http.post(
                    f"{self._sandbox.base_urls['inspectlet']}/v1/websites/{self._site.wid}/sessions",
                    data={**form, "page": str(number)},
                    auth=(secret.inspectlet_username, secret.inspectlet_api_token),
                )
                self._recordings += _json(answer)["response"]["sessions"]
                number += 1
        return self._recordings

    def _panel(self) -> set[str]:
        sample = float(self._ids["kameleoon"].get("visitor_sample", "1"))
        told = {s["identification"]["properties"].get("kameleoon_visitor_code") for s in self._smartlook_sessions()}
        tagged = {
            tag["value"]
            for session in self._inspectlet_sessions()
            for tag in session["tags"]
            if tag["tag"] == "kameleoon_visitor_code"
        }
        return {code for code in told | tagged if code and _is_in(code, sample)}

    def _counter_calls(self) -> int:
        codes = [code for code in self._ids["kameleoon"].get("eans", "").split(",") if code]
        listed = sum(len(quote(f'"{code}",', safe="")) for code in codes)
        return math.ceil(listed / _URL_BYTES)

    def _catalogue(self) -> int:
        """Product, account and four lists."""
        headers = {"Authorization": f"Bearer {self._sandbox.context.credentials.kissmetrics_api_token}"}
        product = f"{self._sandbox.base_urls['kissmetrics']}/core/products/{self._site.kissmetrics_product_id}"
        totals = [
            int(_json(self._http.get(f"{product}/{kind}?limit=1", headers=headers))["pagination"]["total"])
            for kind in _KISSMETRICS_LISTS
        ]
        return 2 + sum(_pages(total, _KISSMETRICS_PAGE) for total in totals)


def _pages(records: int, size: int = _PAGE) -> int:
    return max(1, math.ceil(records / size))


def _is_in(identity: str, share: float) -> bool:
    """The declared sample: an identity whose SHA-256, read as a fraction, is below the share (docs/decisions.md)."""
    return int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big") < share * 2**64


def _json(response: httpx.Response) -> dict[str, Any]:
    response.raise_for_status()
    found: dict[str, Any] = response.json()
    return found
