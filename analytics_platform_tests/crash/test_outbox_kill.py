"""kill -9 around every step of a delivery: hits arrive at most once, nonce-protected events exactly once (J1-J3, P9).

The vendors are the sandbox; the kill is real, in a process of its own; what arrived is what the sandbox says, not what
we wrote down.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from analytics_platform.core.outbox import Outbox, open_outbox
from analytics_platform.core.outbox_messages import State
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import generate
from analytics_platform.settings import Settings, load_settings
from analytics_platform.vendors.kameleoon.client import KameleoonClient
from analytics_platform.vendors.kameleoon.outbound import ProductEvent, VisitEvent
from analytics_platform.vendors.kameleoon.outbox import (
    MAPS,
    PRODUCT_EVENTS,
    VISIT_EVENTS,
    map_draft,
    product_event_draft,
    visit_event_draft,
)
from analytics_platform.vendors.pirsch.outbound import Hit
from analytics_platform.vendors.pirsch.outbox import HIT, draft

SITE = "shop"
STEPS = ("before_claim", "claimed", "answered", "settled")
HITS = 2
AFTER_A_KILL: dict[str, tuple[State, int]] = {
    # The state of the message at hand, and how often it reached the vendor.
    "before_claim": ("pending", 0),
    "claimed": ("unknown", 0),
    "answered": ("unknown", 1),
    "settled": ("sent", 1),
}


class Zygote:
    """The forking process; `deliver` is one delivery from start to end or kill."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(Path(__file__).with_name("outbox_zygote.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env=dict(os.environ),
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        assert self._from.readline() == "ready\n"

    def deliver(self, environment: dict[str, str], failpoint: str = "") -> str:
        named = {"ANALYTICS_PLATFORM_FAILPOINT": failpoint} if failpoint else {}
        self._to.write(json.dumps({**environment, **named}) + "\n")
        self._to.flush()
        return self._from.readline().strip()

    def close(self) -> None:
        self._to.close()
        self._process.wait(timeout=30)
        self._from.close()


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    started = Zygote()
    yield started
    started.close()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(generate(first_day=date(2026, 10, 5), days=2, scale=0.03)) as running:
        yield running


class Desk:
    """One home that may write to the sandbox, and what the sandbox says of it."""

    def __init__(self, root: Path, sandbox: Sandbox, zygote: Zygote) -> None:
        self.sandbox = sandbox
        self._zygote = zygote
        config = root / "sites.yaml"
        text = sandbox.sites_yaml().replace("site_code:", "writes: [audiences]\n      site_code:")
        config.write_text(text.replace("domain_id:", "writes: [hit]\n      domain_id:"), encoding="utf-8")
        self.environment = {
            **sandbox.environment(),
            "ANALYTICS_PLATFORM_HOME": str(root),
            "ANALYTICS_PLATFORM_CONFIG": str(config),
        }
        self.settings: Settings = load_settings(self.environment)
        sandbox.requests.clear()

    def deliver(self, failpoint: str = "") -> str:
        return self._zygote.deliver(self.environment, failpoint)

    def outbox(self) -> Outbox:
        return open_outbox(self.settings)

    def states(self) -> list[State]:
        with self.outbox() as outbox:
            outbox.recover()
            return [message.state for message in reversed(outbox.messages())]

    def posts(self, path: str) -> int:
        return sum(r.method == "POST" and r.status < 300 for r in self.sandbox.requests.records(path=path))

    def conversions(self, visitor_code: str) -> list[Any]:
        self.sandbox.context.advance(3600)
        with KameleoonClient.connect(
            client_id=SecretStr(self.environment["KAMELEOON_CLIENT_ID"]),
            client_secret=SecretStr(self.environment["KAMELEOON_CLIENT_SECRET"]),
            base_url=self.environment["KAMELEOON_BASE_URL"],
            auth_url=self.environment["KAMELEOON_AUTH_URL"],
        ) as client:
            ids = self.settings.site(SITE).ids("kameleoon") or {}
            page = client.visitor(site_code=ids["site_code"], visitor_code=visitor_code)
        visits = json.loads(page.body).get("previousVisits", [])
        return [event for visit in visits for event in visit.get("conversionEvents", [])]


@pytest.fixture
def desk(tmp_path: Path, sandbox: Sandbox, zygote: Zygote) -> Desk:
    return Desk(tmp_path, sandbox, zygote)


def hits() -> list[Any]:
    return [
        draft(
            SITE,
            Hit(ip="81.2.69.142", user_agent="Mozilla/5.0 Test", url=f"https://shop.example/{n}"),
            dedupe_key=f"{n}",
        )
        for n in range(HITS)
    ]


@pytest.mark.parametrize("at", range(1, HITS + 1))
@pytest.mark.parametrize("step", STEPS)
def test_a_hit_arrives_at_most_once_wherever_the_sender_is_killed(desk: Desk, step: str, at: int) -> None:
    with desk.outbox() as outbox:
        HIT.enqueue(outbox, hits())
    assert desk.deliver(f"outbox.{step}:{at}") == "signal:9"
    state, arrived = AFTER_A_KILL[step]
    assert desk.posts("/api/v1/hit") == at - 1 + arrived
    assert desk.states() == ["sent"] * (at - 1) + [state] + ["pending"] * (HITS - at)
    assert desk.deliver() == "exit:0"
    assert desk.deliver() == "exit:0"
    found = Counter(desk.states())
    assert found["unknown"] == (state == "unknown")
    assert found["sent"] == HITS - found["unknown"]
    assert desk.posts("/api/v1/hit") == HITS - (step == "claimed")


@pytest.mark.parametrize("step", STEPS)
def test_a_conversion_arrives_exactly_once_wherever_the_sender_is_killed(desk: Desk, step: str) -> None:
    code = f"killed{STEPS.index(step)}"
    event = VisitEvent.conversion(goal_id=310085, revenue=12.5, visitor_code=code)
    with desk.outbox() as outbox:
        VISIT_EVENTS.enqueue(outbox, [visit_event_draft(SITE, event)])
    assert desk.deliver(f"outbox.{step}:1") == "signal:9"
    assert desk.deliver() == "exit:0"
    assert desk.states() == ["sent"]
    assert desk.posts("/visit/events") == (2 if step == "answered" else 1)
    assert [(e["data"]["goalId"], e["data"]["revenue"]) for e in desk.conversions(code)] == [(310085, 12.5)]
    with desk.outbox() as outbox:
        assert VISIT_EVENTS.enqueue(outbox, [visit_event_draft(SITE, event)]).known == 1
    assert desk.deliver() == "exit:0"
    assert len(desk.conversions(code)) == 1


def test_product_events_of_a_killed_sender_are_shown_and_maps_go_again_in_order(desk: Desk) -> None:
    with desk.outbox() as outbox:
        PRODUCT_EVENTS.enqueue(outbox, [product_event_draft(SITE, ProductEvent.buy(quantity=1, ean="sku-1"))])
        for version, audience in (("1", "purchasers"), ("2", "rage_clickers")):
            fields = {"warehouseAudiences": {audience: 1}}
            MAPS.enqueue(outbox, [map_draft(SITE, key="visitor1", fields=fields, version=version)])
    # Groups go by name: maps, then product events.
    assert desk.deliver("outbox.answered:1") == "signal:9"
    assert desk.states() == ["pending", "pending", "pending"]
    assert desk.deliver("outbox.answered:2") == "signal:9"
    assert desk.states() == ["unknown", "sent", "sent"]
    assert desk.deliver() == "exit:0"
    assert (desk.posts("/product/events"), desk.posts("/map/maps")) == (1, 2)


def test_forgetting_is_finished_by_the_next_call_where_it_was_killed(desk: Desk) -> None:
    with desk.outbox() as outbox:
        HIT.enqueue(outbox, hits())
    script = (
        "from analytics_platform.core.outbox import open_outbox\n"
        "from analytics_platform.settings import load_settings\n"
        "with open_outbox(load_settings()) as outbox: outbox.forget(lambda payload: b'81.2.69.142' in payload)"
    )
    environment = {**os.environ, **desk.environment, "ANALYTICS_PLATFORM_FAILPOINT": "outbox.before_vacuum:1"}
    killed = subprocess.run([sys.executable, "-c", script], env=environment, check=False, timeout=60)
    assert killed.returncode == -9
    with desk.outbox() as outbox:
        assert outbox.forget(lambda payload: b"81.2.69.142" in payload) == 0
    state = desk.settings.home.outbox.parent
    assert b"81.2.69.142" not in b"".join(path.read_bytes() for path in state.glob("outbox.db*"))
