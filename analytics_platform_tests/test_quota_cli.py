"""The `quota` verb: one look, the live view, asking the vendor. No sleeping: the clock of the live view is ours."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import pytest
from pydantic import SecretStr
from rich.console import Console
from typer.testing import CliRunner

from analytics_platform.cli import app
from analytics_platform.core.clock import ManualClock
from analytics_platform.core.progress import landed_of
from analytics_platform.core.quota import Ledger
from analytics_platform.core.resources import open_ledger
from analytics_platform.quota_cli import watch_quota
from analytics_platform.quota_view import QuotaView, read_quota_view
from analytics_platform.vendors import vendor_resource
from analytics_platform.vendors.smartlook.client import SmartlookClient
from analytics_platform_tests.conftest import FIRST_DAY, House
from analytics_platform_tests.test_quota_assets import spend

WIDE = {"COLUMNS": "200"}


def defer(ledger: Ledger, first_day: date, last_day: date, *, stream: str = "sessions", hours: float = 1.0) -> None:
    ledger.defer(
        vendor="smartlook",
        stream=stream,
        site="shop",
        first_day=first_day,
        last_day=last_day,
        resume_at=datetime.now(UTC) + timedelta(hours=hours),
        reason="20 of 20 requests spent",
        landed_records=312,
    )


def clear(ledger: Ledger, first_day: date, last_day: date) -> None:
    ledger.clear(vendor="smartlook", stream="sessions", site="shop", first_day=first_day, last_day=last_day)


def quota(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["quota", *arguments], env=WIDE)
    assert done.exit_code == 0, done.output
    return done.output


def test_an_unused_home_says_so(house: House) -> None:
    assert "Nothing waits for quota." in quota()
    assert json.loads(quota("--json"))["windows"] == []


def test_one_look_shows_accounts_spending_waste_and_what_waits(house: House) -> None:
    spent = spend(house, "smartlook", "sessions")
    with open_ledger(house.settings) as ledger:
        defer(ledger, FIRST_DAY, FIRST_DAY + timedelta(days=9))
    text = quota()
    assert "1000 / 3600 s" in text
    assert "shop" in text
    assert "0 empty, 0 asked for again" in text
    assert "smartlook/sessions" in text
    assert "2026-10-05 to 2026-10-14" in text
    assert "312" in text

    found = json.loads(quota("--json"))
    (window,) = [row for row in found["windows"] if row["used"]]
    assert (window["used"], window["remaining"]) == (spent, 1000 - spent)
    assert found["sites"][window["account"]] == ["shop"]
    smartlook = next(row for row in found["vendors"] if row["vendor"] == "smartlook")
    assert smartlook["requests_by_table"] == {"sessions": spent}
    (work,) = found["deferrals"]
    # Of ten days one is there.
    assert work["days_to_fetch"] == 9
    assert work["requests"]["likely"] >= 1
    assert work["finishes_at"] >= work["resume_at"]


def test_later_work_finishes_after_newer_work_of_its_account(house: House) -> None:
    resource = vendor_resource("smartlook")
    policy = resource.quota_policy(house.settings.site("shop").ids("smartlook") or {})
    with open_ledger(house.settings) as ledger:
        ledger.declare(policy)
        ledger.adopt_usage(policy.account, "any", 1000)
        defer(ledger, date(2026, 10, 1), date(2026, 10, 3))
        defer(ledger, date(2026, 10, 6), date(2026, 10, 7), stream="funnels")
    newer, older = read_quota_view(house.settings, quick=True).deferrals
    assert (newer.stream, older.stream) == ("funnels", "sessions")
    assert newer.finishes_at is not None
    assert older.finishes_at is not None
    assert datetime.now(UTC) + timedelta(minutes=55) < newer.finishes_at <= older.finishes_at


def test_work_of_a_site_without_credentials_is_listed_without_a_plan(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_ledger(house.settings) as ledger:
        defer(ledger, FIRST_DAY, FIRST_DAY)
    for name in house.environment:
        if name.startswith("SMARTLOOK_API_TOKEN"):
            monkeypatch.delenv(name)
    (work,) = read_quota_view(house.settings).deferrals
    assert (work.requests, work.finishes_at, work.days_to_fetch) == (None, None, 1)
    assert "smartlook/sessions" in quota()


@pytest.mark.parametrize(
    ("records", "expected", "text"),
    [
        (312, 1004.0, "312 of ~1,000 rows landed"),
        (312, None, "312 records landed so far"),
        (312, 300.0, "312 records landed so far"),
        (0, 0.0, "0 of ~0 rows landed"),
        (5, 12.4, "5 of ~12 rows landed"),
        (10, 123456.0, "10 of ~120,000 rows landed"),
    ],
)
def test_rows_are_told_with_about_as_many_as_there_will_be(records: int, expected: float | None, text: str) -> None:
    assert landed_of(records, expected) == text


# ---------------------------------------------------------------------------------------------------------------- live


class Script(ManualClock):
    """A clock whose every sleep lets the next thing happen."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        super().__init__(datetime.now(UTC))
        self._steps = list(steps)

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self._steps.pop(0)()


def watched(house: House, clock: ManualClock, *, terminal: bool) -> tuple[bool, str]:
    out = io.StringIO()
    screen = Console(file=out, force_terminal=terminal, width=160, color_system=None)

    def read() -> QuotaView:
        return read_quota_view(house.settings, quick=True)

    return watch_quota(read, screen, clock=clock), out.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_the_live_view_follows_a_backfill_until_nothing_waits(house: House, *, terminal: bool) -> None:
    last_day = FIRST_DAY + timedelta(days=3)
    with open_ledger(house.settings) as ledger:
        defer(ledger, FIRST_DAY, last_day)
        clock = Script(
            lambda: None,
            lambda: clear(ledger, last_day, last_day),
            lambda: clear(ledger, FIRST_DAY, last_day),
        )
        finished, text = watched(house, clock, terminal=terminal)
    assert finished
    assert clock.slept == (5.0, 5.0, 5.0)
    parts = [f"{done} of 4 days that waited are there." for done in (0, 1, 4)]
    positions = [text.index(part) for part in parts]
    assert positions == sorted(positions)
    # A line is told once where nothing redraws it.
    assert terminal or text.count(parts[0]) == 1
    assert ("Ctrl-C" in text) is terminal
    assert ("━" in text) is terminal


def test_the_live_view_ends_at_once_where_nothing_waits(house: House) -> None:
    clock = Script()
    assert watched(house, clock, terminal=False)[0]
    assert "Nothing waits for quota." in quota("--watch")


@pytest.mark.parametrize("terminal", [True, False])
def test_a_person_may_leave_the_live_view(house: House, *, terminal: bool) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with open_ledger(house.settings) as ledger:
        defer(ledger, FIRST_DAY, FIRST_DAY)
    finished, text = watched(house, Script(interrupt), terminal=terminal)
    assert not finished
    if terminal:
        assert text.endswith("\x1b[?25h")  # the cursor is back


def test_a_live_view_is_not_for_programs(house: House) -> None:
    assert CliRunner().invoke(app, ["quota", "--watch", "--json"]).exit_code == 2


# ---------------------------------------------------------------------------------------------------- the vendor's word


def test_refreshing_adopts_what_the_vendor_counted(house: House) -> None:
    ids = house.settings.site("shop").ids("smartlook") or {}
    resource = vendor_resource("smartlook")
    token = house.environment[ids["api_token_env"]]
    with SmartlookClient.connect(base_url=house.environment["SMARTLOOK_BASE_URL"], token=SecretStr(token)) as other:
        for _ in range(3):
            other.me()
        used = other.statistics().project_requests
    assert used is not None
    text = quota("--refresh")
    account = resource.quota_policy(ids).account
    assert f"{account} says it counted {used} requests." in text
    found = json.loads(quota("--json"))
    (window,) = [row for row in found["windows"] if row["account"] == account]
    assert window["used"] == used
    # Vendors that do not say are not asked.
    assert text.count("says it counted") == 2


def test_status_says_how_quota_stands(house: House) -> None:
    spent = spend(house, "smartlook", "sessions")
    done = CliRunner().invoke(app, ["status"], env=WIDE)
    assert f"{spent} of 1000 used in 3600 s, {1000 - spent} left." in done.output
