"""What the tests of Kameleoon's two clients share: the sandbox, our own client, and one visitor's visits as figures.

Belongs here: reading the same visitor our way, and the truth's word on a visitor. Does not belong here: a child
process, what a client of the vendor answers.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

from pydantic import SecretStr

from analytics_platform.core.opt_in import WriteOptIn
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import SiteTruth, generate
from analytics_platform.vendors.kameleoon.client import KameleoonClient
from analytics_platform.vendors.kameleoon.outbound import KameleoonWriter

__all__ = ["ASYNCHRONOUS_SECONDS", "Seen", "Side", "running"]

ASYNCHRONOUS_SECONDS = 60.0
"""Longer than the vendor takes from its 204 to a read that shows what was written."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One visitor's visits, as far as both of the vendor's clients tell them."""

    pages: Mapping[str, str | None]
    page_views: int
    conversions: Counter[tuple[int, float]]
    custom_data: Mapping[int, tuple[str, ...]]
    browser: str | None
    browser_version: float | None
    system: str | None
    device: str | None
    place: tuple[str | None, ...] | None


@dataclass(frozen=True)
class Side:
    """A sandbox with only Kameleoon, and our own way into it."""

    sandbox: Sandbox
    client: KameleoonClient
    writer: KameleoonWriter

    @property
    def site(self) -> SiteTruth:
        """The shop: it has conversions."""
        return self.sandbox.world.sites[0]

    @property
    def codes(self) -> list[str]:
        """Visitor codes of people of the site that our client reads visits of."""
        people = self.sandbox.world.visitors
        mine = people.loc[people["site_key"] == self.site.key, "kameleoon_code"].dropna().astype(str)
        return [code for code in sorted(mine) if self.visits(code)]

    def person(self, code: str) -> Mapping[str, Any]:
        """The truth about who has this code."""
        people = self.sandbox.world.visitors
        return dict(people[people["kameleoon_code"] == code].iloc[0])

    def visits(self, code: str) -> list[dict[str, Any]]:
        """Every visit, the current one and then the newest first, read by our client with every kind of event."""
        page = self.client.visitor(
            site_code=self.site.kameleoon_site_code, visitor_code=code, current_visit=True, kinds="all"
        )
        told = json.loads(page.body)
        current = [told["currentVisit"]] if "currentVisit" in told else []
        return [*current, *(told.get("previousVisits") or [])]

    def seen(self, code: str) -> Seen:
        """The visits as figures; where a thing has one value, the newest visit's counts."""
        visits = self.visits(code)
        pages = [event["data"] for visit in visits for event in reversed(visit.get("pageEvents") or [])]
        custom: dict[int, tuple[str, ...]] = {}
        for visit in visits:
            for event in reversed(visit.get("customDataEvents") or []):
                custom.setdefault(event["data"]["index"], tuple(event["data"]["valuesCountMap"]))
        fixed: dict[str, Any] = next(
            (visit["staticDataEvent"]["data"] for visit in visits if visit.get("staticDataEvent")), {}
        )
        places = [visit["geolocationEvents"][-1]["data"] for visit in visits if visit.get("geolocationEvents")]
        return Seen(
            pages={page["href"]: page["title"] for page in reversed(pages)},
            page_views=len(pages),
            conversions=Counter(
                (event["data"]["goalId"], event["data"]["revenue"])
                for visit in visits
                for event in visit.get("conversionEvents") or []
            ),
            custom_data=custom,
            browser=fixed.get("browser"),
            browser_version=fixed.get("browserVersion"),
            system=fixed.get("os"),
            device=fixed.get("deviceType"),
            place=tuple(places[0][name] for name in ("country", "region", "city")) if places else None,
        )


@contextmanager
def running() -> Iterator[Side]:
    """A small world of two days. The running visit may be read, as Feature Experimentation's clients expect."""
    profile = {"current_visit_readable": True, "anonymous_gets_per_second": 10_000.0, "gets_per_second": 10_000.0}
    world = generate(first_day=date(2026, 10, 5), days=2, scale=0.1)
    with Sandbox(world, vendors=("kameleoon",), profiles={"kameleoon": profile}) as sandbox:
        secret = sandbox.context.credentials
        access: dict[str, Any] = {
            "client_id": SecretStr(secret.kameleoon_client_id),
            "client_secret": SecretStr(secret.kameleoon_client_secret),
            "base_url": sandbox.base_urls["kameleoon"],
            "auth_url": sandbox.base_urls["kameleoon_auth"],
        }
        opt_in = WriteOptIn(vendor="kameleoon", reason="maps for the vendor's clients to read")
        with KameleoonClient.connect(**access) as client, KameleoonWriter.connect(opt_in=opt_in, **access) as writer:
            yield Side(sandbox, client, writer)
