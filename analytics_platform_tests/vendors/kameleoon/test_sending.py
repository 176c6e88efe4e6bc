"""Marts sent back to Kameleoon through Dagster: conversions as visit events, audiences as maps.

The published marts are small and written by hand; the I/O manager that reads them, the outbox, the ledger, the writer
and the wire are the real ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.outbox import open_outbox
from analytics_platform.core.outbox_messages import Holder
from analytics_platform.core.partitions import partition_key
from analytics_platform.core.quota_policy import QuotaPolicy, account_key
from analytics_platform.core.resources import PlatformResource
from analytics_platform.core.sending import sending_assets
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import generate
from analytics_platform.settings import Settings, load_settings
from analytics_platform.transform.assets import PublishedTables
from analytics_platform.transform.publish import publish
from analytics_platform.transform.translator import Manifest
from analytics_platform.transform.warehouse import warehouse_connection
from analytics_platform.vendors.kameleoon import outbox as kameleoon_outbox
from analytics_platform.vendors.kameleoon.access import quota_windows
from analytics_platform.vendors.kameleoon.assets import SENDINGS
from analytics_platform.vendors.kameleoon.client import KameleoonClient
from analytics_platform.vendors.kameleoon.outbound import VisitEvent
from analytics_platform.vendors.kameleoon.resource import KameleoonResource
from analytics_platform_tests.transform.synthetic import _model

FIRST, SECOND = date(2026, 10, 5), date(2026, 10, 6)
BUYER, OTHER, ELSEWHERE = "coded-buyer-00001", "coded-other-00002", "coded-blog-000003"


def nonce(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]


CONVERSIONS = [
    (nonce("a"), "shop", BUYER, "purchase", FIRST, 39.9),
    (nonce("b"), "shop", BUYER, "purchase", SECOND, None),
    (nonce("c"), "shop", OTHER, "newsletter", FIRST, None),
    (nonce("d"), "blog", ELSEWHERE, "signup", FIRST, None),
]
MEMBERS = [
    ("shop", BUYER, FIRST, "purchasers"),
    ("shop", BUYER, FIRST, "frequent_visitors"),
    ("shop", OTHER, FIRST, "rage_clickers"),
    ("shop", BUYER, SECOND, "purchasers"),
]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(generate(first_day=FIRST, days=2, scale=0.03)) as running:
        yield running


class Desk:
    """A home with published marts, the job of the sendings over it, and what Kameleoon says afterwards."""

    def __init__(self, root: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.sandbox = root, sandbox
        for name, value in {**sandbox.environment(), "ANALYTICS_PLATFORM_HOME": str(root)}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("ANALYTICS_PLATFORM_CONFIG", str(root / "sites.yaml"))
        monkeypatch.delenv("ANALYTICS_PLATFORM_DATABASE_URL", raising=False)
        self.agree("")
        self.publish()
        sandbox.requests.clear()

    @property
    def settings(self) -> Settings:
        return load_settings()

    def agree(self, block: str) -> None:
        """What shop's kameleoon block says of sending; blog never says anything."""
        site = (
            "  - {{key: {0}, timezone: UTC, start_date: 2026-10-05, vendors: {{kameleoon: {{site_code: {1}{2}}}}}}}\n"
        )
        shop, blog = (found.kameleoon_site_code for found in self.sandbox.world.sites)
        text = "sites:\n" + site.format("shop", shop, block) + site.format("blog", blog, "")
        (self.root / "sites.yaml").write_text(text, encoding="utf-8")

    def publish(self) -> None:
        with warehouse_connection(self.settings) as connection:
            connection.execute(
                "CREATE TABLE fct_offline_conversions (conversion_nonce VARCHAR, site_key VARCHAR, "
                "visitor_code VARCHAR, conversion_name VARCHAR, conversion_date_local DATE, revenue DECIMAL(18, 4))"
            )
            connection.executemany("INSERT INTO fct_offline_conversions VALUES (?, ?, ?, ?, ?, ?)", CONVERSIONS)
            connection.execute(
                "CREATE TABLE fct_audience_members (site_key VARCHAR, visitor_code VARCHAR, stat_date DATE, "
                "audience VARCHAR)"
            )
            connection.executemany("INSERT INTO fct_audience_members VALUES (?, ?, ?, ?)", MEMBERS)
        nodes = [
            _model("fct_offline_conversions", "marts", {"conversion_nonce": "Nonce."}, "conversion_date_local"),
            _model("fct_audience_members", "marts", {"audience": "Audience."}, "stat_date"),
        ]
        publish(self.settings, manifest=Manifest({"nodes": {n["unique_id"]: n for n in nodes}, "sources": {}}))

    def run(self, name: str, days: list[date], site: str = "shop") -> dg.ExecuteInProcessResult:
        definitions = dg.Definitions(
            assets=sending_assets(SENDINGS, settings=self.settings, writer=kameleoon_outbox.connect),
            resources={
                "platform": PlatformResource(),
                "kameleoon": KameleoonResource.from_environment(),
                "published_tables": PublishedTables(),
            },
            executor=dg.in_process_executor,
        )
        tags = {
            "dagster/asset_partition_range_start": partition_key(days[0], site),
            "dagster/asset_partition_range_end": partition_key(days[-1], site),
        }
        with dg.DagsterInstance.ephemeral() as instance:
            return definitions.resolve_implicit_global_asset_job_def().execute_in_process(
                asset_selection=[dg.AssetKey(["kameleoon", name])],
                instance=instance,
                tags=tags,
                raise_on_error=False,
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )

    def posts(self, path: str) -> int:
        return sum(r.method == "POST" and r.status < 300 for r in self.sandbox.requests.records(path=path))

    def client(self) -> KameleoonClient:
        self.sandbox.context.advance(3600)
        resource = KameleoonResource.from_environment()
        return KameleoonClient.connect(base_url=resource.base_url)

    @property
    def site_code(self) -> str:
        return self.sandbox.world.sites[0].kameleoon_site_code

    def goals_of(self, visitor_code: str) -> list[int]:
        return [int(data["goalId"]) for data in self.conversions_of(visitor_code)]

    def conversions_of(self, visitor_code: str) -> list[dict[str, Any]]:
        with self.client() as client:
            body = json.loads(client.visitor(site_code=self.site_code, visitor_code=visitor_code).body)
        events = [event for visit in body.get("previousVisits", []) for event in visit.get("conversionEvents", [])]
        return [event["data"] for event in events]


@pytest.fixture
def desk(tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, sandbox, monkeypatch)


def materialized(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    """Metadata by partition."""
    found = {}
    for event in result.all_events:
        if event.is_step_materialization:
            metadata = {
                name: value.value for name, value in event.step_materialization_data.materialization.metadata.items()
            }
            found[str(event.partition)] = metadata
    return found


def observed(result: dg.ExecuteInProcessResult) -> list[str]:
    return [
        str(event.asset_observation_data.asset_observation.description)
        for event in result.all_events
        if event.event_type == dg.DagsterEventType.ASSET_OBSERVATION
    ]


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {found.check_name: found.passed for found in result.get_asset_check_evaluations()}


def counted(enqueued: int, known: int, sent: int, candidates: int, superseded: int = 0) -> dict[str, int]:
    return {
        "candidates": candidates,
        "superseded": superseded,
        "enqueued": enqueued,
        "already_known": known,
        "sent": sent,
        "unknown": 0,
        "dead": 0,
        "deferred": 0,
    }


def test_conversions_are_sent_once_and_can_be_read_back(desk: Desk) -> None:
    desk.agree(", writes: [offline_conversions], goals: {purchase: 310085}")
    first = desk.run("offline_conversions", [FIRST, SECOND])
    assert first.success
    assert materialized(first) == {
        "2026-10-05|shop": counted(1, 0, 1, 2),
        "2026-10-06|shop": counted(1, 0, 1, 1),
    }
    assert desk.posts("/visit/events") == 1
    assert desk.goals_of(BUYER) == [310085, 310085]
    # What a vendor told the purchase was worth; 0, as an event without an amount, where none did.
    assert sorted(data["revenue"] for data in desk.conversions_of(BUYER)) == [0.0, 39.9]
    assert desk.goals_of(OTHER) == []
    again = desk.run("offline_conversions", [FIRST, SECOND])
    assert materialized(again)["2026-10-05|shop"] == counted(0, 1, 0, 2)
    assert desk.posts("/visit/events") == 1
    assert checks(again) == {"nothing_unknown": True, "nothing_dead": True}


def test_a_nonce_is_one_message_whoever_enqueues_it(desk: Desk) -> None:
    event = VisitEvent(
        kind="conversion", parameters={"goalId": 310085}, visitor_code="other-road-0001", nonce=nonce("road")
    )
    with open_outbox(desk.settings) as outbox:
        found = kameleoon_outbox.VISIT_EVENTS.enqueue(outbox, [kameleoon_outbox.visit_event_draft("shop", event)])
        assert outbox.get(found.ids[0]).nonce == event.nonce
        assert (
            kameleoon_outbox.VISIT_EVENTS.enqueue(outbox, [kameleoon_outbox.visit_event_draft("shop", event)]).known
            == 1
        )


def test_without_the_site_s_word_nothing_is_read_and_nothing_sent(desk: Desk) -> None:
    (desk.root / "published" / "current").unlink()
    for site in ("shop", "blog"):
        result = desk.run("offline_conversions", [FIRST], site)
        assert result.success
        assert materialized(result) == {}
        assert "has not agreed to it. Add `writes: [offline_conversions]`" in observed(result)[0]
    assert len(desk.sandbox.requests) == 0
    assert not desk.settings.home.outbox.exists() or desk.posts("/") == 0


def test_audiences_are_one_map_a_visitor_and_the_later_day_stays(desk: Desk) -> None:
    desk.agree(", writes: [audiences]")
    result = desk.run("audiences", [FIRST, SECOND])
    assert result.success
    assert materialized(result) == {
        "2026-10-05|shop": counted(1, 0, 1, 3, superseded=2),
        "2026-10-06|shop": counted(1, 0, 1, 1),
    }
    assert desk.posts("/map/maps") == 1
    with desk.client() as client:
        assert client.stored_maps(site_code=desk.site_code, keys=[BUYER, OTHER]) == {
            BUYER: {"warehouseAudiences": {"purchasers": 1}},
            OTHER: {"warehouseAudiences": {"rage_clickers": 1}},
        }
    again = desk.run("audiences", [FIRST])
    assert materialized(again)["2026-10-05|shop"] == counted(0, 1, 0, 3, superseded=2), "an old day brings nothing back"
    assert desk.posts("/map/maps") == 1


def test_a_young_day_is_not_judged_yet(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.agree(", writes: [offline_conversions], goals: {purchase: 310085}")
    clock = ManualClock(datetime.fromisoformat("2026-10-08T23:59:00+00:00"))
    monkeypatch.setattr(PlatformResource, "clock", property(lambda _: clock))
    assert "too early" in observed(desk.run("offline_conversions", [FIRST]))[0]
    clock.advance(timedelta(minutes=2).total_seconds())
    assert list(materialized(desk.run("offline_conversions", [FIRST]))) == ["2026-10-05|shop"]


def test_a_site_that_names_no_goal_is_told_so(desk: Desk) -> None:
    desk.agree(", writes: [offline_conversions]")
    result = desk.run("offline_conversions", [FIRST])
    assert not result.success
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    assert "Add `goals: {purchase: 85}`" in str(failed.step_failure_data.user_failure_data)


def test_out_of_quota_ends_green_and_deferred_and_the_next_run_sends_it(desk: Desk) -> None:
    desk.agree(", writes: [audiences]")
    resource, ledger = KameleoonResource.from_environment(), PlatformResource().ledger
    policy = QuotaPolicy(
        account=account_key("kameleoon", resource.base_url), windows=quota_windows(is_authenticated=True)
    )
    verb = policy.method_class("POST")
    block: Any = {"endpoint": "POST /map/maps", "status": 429, "retry_after_seconds": 3600.0}
    ledger.learn(policy.account, verb, policy.windows_for(verb), **block)
    result = desk.run("audiences", [FIRST])
    assert result.success
    assert materialized(result) == {}
    assert "Deferred until" in observed(result)[0]
    assert desk.posts("/map/maps") == 0
    with open_outbox(desk.settings) as outbox:
        assert [count.pending for count in outbox.counts()] == [1]


def test_a_person_has_to_look_at_what_is_unknown(desk: Desk) -> None:
    desk.agree(", writes: [audiences]")
    with open_outbox(desk.settings) as outbox:
        draft = kameleoon_outbox.map_draft("shop", key="k", fields={"a": 1}, version="1")
        outbox.enqueue([draft], vendor="kameleoon", operation="maps", guarantee="at_most_once")
        gone = Holder(machine=Holder.here().machine, boot="another boot", pid=1, started="1", delivery="d")
        outbox.claim(vendor="kameleoon", operation="maps", site_key="shop", holder=gone, limit=1, most_bytes=99)
    result = desk.run("audiences", [FIRST])
    assert result.success
    assert checks(result) == {"nothing_unknown": False, "nothing_dead": True}
    assert materialized(result)["2026-10-05|shop"]["sent"] == 1


@pytest.mark.parametrize("name", ["offline_conversions", "audiences"])
def test_sending_is_in_no_job_but_its_own(name: str, desk: Desk) -> None:
    from analytics_platform.definitions import build_definitions

    repository = build_definitions(desk.settings).get_repository_def()
    key = dg.AssetKey(["kameleoon", name])
    jobs = {job.name for job in repository.get_all_jobs() if key in job.asset_layer.selected_asset_keys}
    assert {found for found in jobs if not found.startswith("__")} == {"send_back"}
    schedule = next(found for found in repository.schedule_defs if found.name == "send_back_daily_schedule")
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
