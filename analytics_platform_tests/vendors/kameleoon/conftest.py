"""A Kameleoon of one's own to write to: two quiet days, one server a test, every class of the vendor on demand.

Belongs here: what several modules of this folder start with. Does not belong here: assertions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pytest
from pydantic import SecretStr

from analytics_platform.core.http import HttpLimits
from analytics_platform.core.opt_in import Confirmation, WriteOptIn
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import World, generate
from analytics_platform.vendors.kameleoon.client import KameleoonClient
from analytics_platform.vendors.kameleoon.erasure import KameleoonErasure
from analytics_platform.vendors.kameleoon.outbound import KameleoonWriter, new_nonce

OPT_IN = WriteOptIn(vendor="kameleoon", reason="tests")
VISIBLE_SECONDS = 3.0
"""Longer than the sandbox takes to show what was written."""
NO_LIMIT = {"gets_per_second": 1e6, "anonymous_gets_per_second": 1e6}
QUICK = HttpLimits(max_attempts=3, backoff_base_seconds=0.001)


@dataclass(frozen=True)
class Site:
    """The shop at one sandbox, and the vendor's classes connected to it; closed at the end of the test."""

    sandbox: Sandbox
    stack: ExitStack
    new: str = field(default_factory=lambda: f"new-{new_nonce()}")
    """A visitor code, product code or map key that no other test writes to."""

    @property
    def code(self) -> str:
        return self.sandbox.world.sites[0].kameleoon_site_code

    @property
    def visitors(self) -> list[str]:
        """Codes of people Kameleoon saw: consenting, no bots, not on Internet Explorer."""
        people = self.sandbox.world.visitors
        seen = people[
            (people["site_key"] == "shop") & people["consents"] & ~people["is_bot"] & (people["browser"] != "IE")
        ]
        return sorted(seen["kameleoon_code"])

    @property
    def skus(self) -> list[str]:
        products = self.sandbox.world.products
        return sorted(products[products["site_key"] == "shop"]["sku"])

    @property
    def client(self) -> KameleoonClient:
        return self.connected(KameleoonClient)

    @property
    def writer(self) -> KameleoonWriter:
        return self.connected(KameleoonWriter, opt_in=OPT_IN)

    @property
    def erasure(self) -> KameleoonErasure:
        return self.connected(KameleoonErasure, opt_in=OPT_IN)

    def connected(self, kind: Any, *, anonymous: bool = False, **more: Any) -> Any:
        environment = self.sandbox.environment()
        arguments = {
            "client_id": None if anonymous else SecretStr(environment["KAMELEOON_CLIENT_ID"]),
            "client_secret": None if anonymous else SecretStr(environment["KAMELEOON_CLIENT_SECRET"]),
            "base_url": environment["KAMELEOON_BASE_URL"],
            "auth_url": environment["KAMELEOON_AUTH_URL"],
            "limits": QUICK,
        }
        return self.stack.enter_context(kind.connect(**{**arguments, **more}))

    def forget(self, *codes: str) -> None:
        """Forget them at the vendor, until it is done."""
        phrase = Confirmation(f"forget {len(codes)} visitors at {self.code}")
        self.erasure.forget(site_code=self.code, visitor_codes=codes, confirm=phrase)
        self.sandbox.context.advance(VISIBLE_SECONDS)

    def visits(self, visitor_code: str | None = None, **more: Any) -> list[dict[str, Any]]:
        """The visitor's visits with every event, newest first, the running one among them."""
        page = self.client.visitor(
            site_code=self.code, visitor_code=visitor_code, **{"kinds": "all", "current_visit": True, **more}
        )
        body: Any = json.loads(page.body)
        current = [body["currentVisit"]] if "currentVisit" in body else []
        return [*current, *body.get("previousVisits", [])]


@pytest.fixture(scope="session")
def small_world() -> World:
    return generate(first_day=date(2026, 10, 5), days=2, scale=0.06)


def _sandbox(world: World, auth: Mapping[str, object], profile: Mapping[str, object]) -> Sandbox:
    profiles = {"kameleoon": {**NO_LIMIT, **profile}, "kameleoon_auth": auth}
    return Sandbox(world, profiles=profiles, vendors={"kameleoon"})


@pytest.fixture(scope="session")
def _written_to(small_world: World) -> Iterator[Sandbox]:
    with _sandbox(small_world, {}, {"current_visit_readable": True}) as sandbox:
        yield sandbox


@pytest.fixture
def site(_written_to: Sandbox) -> Iterator[Site]:
    """The shop with Feature Experimentation, so that a visit that goes on can be read.

    One server for all tests of this folder: each writes to `Site.new`, and forgets visitors from the end of the list.
    """
    _written_to.faults.clear()
    _written_to.requests.clear()
    with ExitStack() as stack:
        yield Site(_written_to, stack)
    _written_to.faults.clear()


@pytest.fixture
def open_site(small_world: World) -> Iterator[Callable[..., Site]]:
    """A server of this test alone with these knobs of the observer."""
    with ExitStack() as stack:

        def opened(*, auth: Mapping[str, object] | None = None, **profile: object) -> Site:
            return Site(stack.enter_context(_sandbox(small_world, auth or {}, profile)), stack)

        yield opened
