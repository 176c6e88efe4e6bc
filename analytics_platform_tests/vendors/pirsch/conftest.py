"""A small sandbox of Pirsch that may be written to, and the three classes that talk to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from analytics_platform.core.http import HttpLimits
from analytics_platform.core.opt_in import WriteOptIn
from analytics_platform.core.paging import Page
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import generate
from analytics_platform.vendors.pirsch.client import PirschClient, StatisticsFilter
from analytics_platform.vendors.pirsch.management import PirschManagement
from analytics_platform.vendors.pirsch.outbound import PirschTracker

FIRST = date(2026, 10, 12)
TODAY = date(2026, 10, 14)
"""The sandbox's present: the day after the two generated ones."""
OPT_IN = WriteOptIn(vendor="pirsch", reason="tests")
FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:143.0) Gecko/20100101 Firefox/143.0"


@dataclass(frozen=True)
class Place:
    """The sandbox and who talks to it."""

    sandbox: Sandbox
    client: PirschClient
    tracker: PirschTracker
    management: PirschManagement
    domain_id: str

    def credentials(self) -> dict[str, Any]:
        environment = self.sandbox.environment()
        return {
            "client_id": SecretStr(environment["PIRSCH_CLIENT_ID"]),
            "client_secret": SecretStr(environment["PIRSCH_CLIENT_SECRET"]),
            "base_url": environment["PIRSCH_BASE_URL"],
            "limits": HttpLimits(backoff_base_seconds=0.0),
        }

    def flush(self) -> None:
        """Let the vendor's buffer empty."""
        self.sandbox.context.advance(10)

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.sandbox.context.now_ms() / 1000, UTC)

    def query(self, first: date = TODAY, last: date = TODAY, **narrowing: Any) -> StatisticsFilter:
        return StatisticsFilter(domain_id=self.domain_id, first_day=first, last_day=last, **narrowing)

    def total(self, **narrowing: Any) -> dict[str, Any]:
        return dict(rows(self.client.total(self.query(**narrowing))))


def rows(page: Page) -> Any:
    """The body of a page, with null for no rows as an empty list."""
    parsed = json.loads(page.body)
    return [] if parsed is None else parsed


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    world = generate(first_day=FIRST, days=2, scale=0.03)
    with Sandbox(world, vendors=["pirsch"]) as sandbox:
        environment = sandbox.environment()
        given: dict[str, Any] = {
            "client_id": SecretStr(environment["PIRSCH_CLIENT_ID"]),
            "client_secret": SecretStr(environment["PIRSCH_CLIENT_SECRET"]),
            "base_url": environment["PIRSCH_BASE_URL"],
            "limits": HttpLimits(backoff_base_seconds=0.0),
        }
        with (
            PirschClient.connect(**given) as client,
            PirschTracker.connect(**given, opt_in=OPT_IN) as tracker,
            PirschManagement.connect(**given, opt_in=OPT_IN) as management,
        ):
            yield Place(sandbox, client, tracker, management, world.sites[0].pirsch_domain_id)
