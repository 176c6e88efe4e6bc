"""Limits that change by what the vendor says: somebody else spends the token, the ledger is lost, the plan changes.

Against the sandbox's hour, both clocks moved together; the vendor's own request log says who was refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from pydantic import SecretStr

from analytics_platform.core.automation import range_tags
from analytics_platform.core.clock import ManualClock
from analytics_platform.core.errors import QuotaError, QuotaExhausted
from analytics_platform.core.quota import Ledger
from analytics_platform.core.resources import open_ledger
from analytics_platform.core.usage import ask_usage, settle_doubt
from analytics_platform.runner import Runner
from analytics_platform.sandbox.faults import status
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.vendors import streams_of
from analytics_platform.vendors.smartlook.client import SmartlookClient
from analytics_platform.vendors.smartlook.resource import SmartlookResource
from analytics_platform_tests.conftest import FIRST_DAY, House

START = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
STATISTICS = "/api/v1/statistics"


@dataclass
class Account:
    """Our side and the vendor's, with one time for both."""

    sandbox: Sandbox
    path: Path
    plan: str
    ledger: Ledger
    clock: ManualClock

    @property
    def token(self) -> str:
        return self.sandbox.world.sites[0].smartlook_token

    @property
    def ids(self) -> dict[str, str]:
        return {"plan": self.plan}

    @property
    def resource(self) -> SmartlookResource:
        return SmartlookResource(api_token=self.token, base_url=self.sandbox.base_urls["smartlook"])

    @property
    def remaining(self) -> int:
        (usage,) = self.ledger.usage_of(self.resource.quota_policy(self.ids), "any")
        return usage.remaining

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.sandbox.context.advance(seconds)

    def send(self, times: int) -> int:
        """As many requests as ledger and vendor allow, at most so many; how many were answered."""
        sent = 0
        with self.resource.connect(self.ids, self.ledger) as client:
            for _ in range(times):
                try:
                    client.me()
                except QuotaError:
                    break
                sent += 1
        return sent

    def somebody_else(self, times: int) -> None:
        base_url = self.sandbox.base_urls["smartlook"]
        with SmartlookClient.connect(base_url=base_url, token=SecretStr(self.token)) as client:
            for _ in range(times):
                client.me()

    def settle(self) -> int | None:
        reported = settle_doubt(self.resource, self.ids, self.ledger)
        return None if reported is None else reported.used

    def lose_ledger(self) -> None:
        self.ledger.close()
        for part in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + part).unlink(missing_ok=True)
        self.ledger = Ledger.open(self.path, self.clock)

    def refusals(self) -> int:
        return self.sandbox.requests.count(status=429)

    def questions(self) -> int:
        return self.sandbox.requests.count(path=STATISTICS)


@pytest.fixture
def account(
    writable_sandbox: Callable[..., Sandbox], request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Account]:
    profile: dict[str, object] = getattr(request, "param", {"plan": "free"})
    sandbox = writable_sandbox(
        days=1, vendors=["smartlook"], profiles={"smartlook": profile}, key=request.node.name, scale=0.01
    )
    path, clock = tmp_path / "ledger.sqlite3", ManualClock(START)
    found = Account(sandbox, path, str(profile["plan"]), Ledger.open(path, clock), clock)
    yield found
    found.ledger.close()


def test_a_token_that_somebody_else_spends_is_seen_and_waited_for(account: Account) -> None:
    """D3: one refusal, then the vendor's count is ours; when theirs has left the hour, ours goes on at once."""
    account.somebody_else(15)
    account.advance(1800)
    assert account.settle() is None  # no reason to ask
    assert account.send(20) == 5
    assert account.refusals() == 1
    assert account.settle() == 20
    assert account.remaining == 0
    assert account.send(1) == 0
    account.advance(1790)
    assert account.settle() == 20
    account.advance(20)  # the fifteen have left; nobody asks twice in ten minutes
    assert (account.settle(), account.send(1)) == (None, 0)
    account.advance(600)
    assert account.settle() == 5
    # Twenty less our five, the one that was refused and the three questions: they may be counted for all we know.
    assert account.send(20) == 11
    assert (account.refusals(), account.questions()) == (1, 3)


def test_a_lost_ledger_goes_on_with_the_vendors_count(account: Account) -> None:
    """D7: everything counts as spent, until the vendor says what was."""
    account.somebody_else(3)
    assert account.send(4) == 4
    account.lose_ledger()
    assert (account.remaining, account.send(1)) == (0, 0)
    assert account.settle() == 7
    assert account.send(20) == 13
    assert account.refusals() == 0


def test_a_lost_ledger_waits_where_the_vendor_does_not_answer(account: Account) -> None:
    assert account.send(4) == 4
    account.lose_ledger()
    account.sandbox.faults.add("smartlook", STATISTICS, fault=status(503))
    assert account.settle() is None
    assert (account.remaining, account.send(1)) == (0, 0)
    account.advance(3603)
    assert account.send(25) == 20


@pytest.mark.parametrize("account", [{"plan": "paid", "plan_changes_after_seconds": 1000.0}], indirect=True)
def test_a_plan_that_shrinks_within_the_day_slows_and_never_bursts(account: Account) -> None:
    """D11: 100 an hour become 20 behind our back. One refusal teaches the limit, for a day."""
    assert account.send(30) == 30
    account.advance(1100)
    assert account.send(5) == 0
    assert account.settle() == 30
    account.advance(2600)
    sent = []
    for _ in range(150):
        account.settle()
        sent += [account.clock.now()] * account.send(30)
        account.advance(60)
    assert account.refusals() == 1
    hour = timedelta(hours=1)
    assert max(sum(start <= instant < start + hour for instant in sent) for start in sent) <= 20
    assert len(sent) >= 3 * 20 - 4
    # Everybody sees the limit that holds.
    policy = account.ledger.capped(account.resource.quota_policy(account.ids))
    assert [window.limit for window in policy.windows["any"]] == [20]
    account.advance(86_400)
    assert account.ledger.capped(policy) == policy
    assert account.ledger.capped(account.resource.quota_policy(account.ids)).windows["any"][0].limit == 100


def test_a_refusal_nobody_can_explain_keeps_its_block(account: Account) -> None:
    """A limit we do not know of: the vendor's count says there is room, and yet it refused."""
    assert account.send(3) == 3
    policy = account.resource.quota_policy(account.ids)
    windows = policy.windows_for("any")
    until = account.ledger.learn(policy.account, "any", windows, endpoint="GET /x", status=429)
    assert account.settle() == 3
    assert account.remaining == 0
    with pytest.raises(QuotaExhausted) as refused:
        account.ledger.acquire(policy.account, "any", windows, "GET /x")
    assert refused.value.resume_at == until


@pytest.mark.parametrize("account", [{"plan": "paid"}], indirect=True)
def test_a_hidden_limit_of_bursts_is_not_taken_for_a_smaller_plan(account: Account) -> None:
    assert account.send(25) == 25
    policy = account.resource.quota_policy(account.ids)
    account.ledger.learn(
        policy.account, "any", policy.windows_for("any"), endpoint="GET /x", status=429, retry_after_seconds=30.0
    )
    assert account.settle() == 25
    assert account.ledger.capped(policy) == policy
    assert account.remaining == 0
    account.advance(31)
    assert account.send(10) == 10


def test_a_person_may_ask_at_any_time(account: Account) -> None:
    account.somebody_else(6)
    reported = ask_usage(account.resource, account.ids, account.ledger)
    assert reported is not None
    assert reported.used == 6
    assert account.remaining == 14


def test_a_refused_question_is_learned_like_any_refusal(account: Account) -> None:
    account.lose_ledger()
    account.sandbox.faults.add("smartlook", STATISTICS, fault=status(429))
    assert account.settle() is None
    (usage,) = account.ledger.usage_of(account.resource.quota_policy(account.ids), "any")
    assert usage.refused == 1
    assert usage.blocked_until is not None


def test_a_run_after_a_loss_asks_once_and_goes_on(house: House) -> None:
    """D7 from the outside: the ledger's file is gone, and the run is neither deferred nor over the limit."""
    (stream,) = [stream for stream in streams_of("smartlook") if stream.name == "sessions"]

    def run(day: date) -> dg.ExecuteInProcessResult:
        with dg.DagsterInstance.ephemeral() as instance:
            return Runner(house.settings, instance).job.execute_in_process(
                asset_selection=[dg.AssetKey(spec.asset_key) for spec in stream.tables],
                instance=instance,
                tags=range_tags("shop", day, day),
            )

    assert run(FIRST_DAY).success
    with open_ledger(house.settings) as ledger:
        before = sum(row.requests for row in ledger.spent(vendor="smartlook"))
    for part in ("", "-wal", "-shm"):
        house.home.ledger.with_name(house.home.ledger.name + part).unlink(missing_ok=True)
    assert run(FIRST_DAY + timedelta(days=1)).success
    with open_ledger(house.settings) as ledger:
        assert ledger.deferrals() == ()
        spent = {row.stream: row.requests for row in ledger.spent(vendor="smartlook")}
        assert spent["usage"] == 1
        assert spent["sessions"] >= 1
        (usage,) = [row for account in ledger.accounts() for row in ledger.usage(account) if row.used]
    # What the vendor counted before the loss is part of our count again.
    assert usage.used >= before + spent["sessions"]
