"""Inspectlet's own checks: what holds, what breaks them, and the unit change that the sandbox plants."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.fetch import Fetcher, SiteContext
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.vendor_checks import Finding
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import generate
from analytics_platform.vendors.inspectlet.client import InspectletClient
from analytics_platform.vendors.inspectlet.streams import STREAMS
from analytics_platform.vendors.inspectlet.tables import SESSIONS, TABLES
from analytics_platform_tests.vendors.lake_frames import Case, checks_of, day, judge, lake_frame, tells_no_value

START = datetime(2026, 10, 5, 12)  # noqa: DTZ001  (a lake TIMESTAMP is naive)


def session(on: int, unit: str, *, seconds: int = 60) -> Mapping[str, object]:
    started = START + timedelta(days=on)
    ended = started + timedelta(seconds=seconds)
    return {"_day": day(on), "started_at": started, "ended_at": ended, "duration_unit": unit}


def pages(counted: int, listed: int, *, leaves_elsewhere: bool = False) -> Mapping[str, object]:
    exit_url = "https://shop.example/b" if leaves_elsewhere else "https://shop.example/a"
    landing_url = "https://shop.example/a"
    return {"num_pages": counted, "listed_page_count": listed, "landing_url": landing_url, "exit_url": exit_url}


CASES = [
    Case(
        table="sessions",
        check="duration_unit_is_uniform",
        holds=[
            session(0, "milliseconds"),
            session(0, "zero"),
            session(0, "seconds", seconds=4),
            session(1, "milliseconds"),
        ],
        breaks=[session(2, "milliseconds"), session(2, "seconds"), session(3, "seconds")],
        days=(day(2), day(3)),
        metrics={"mixed_days": 1, "rows_in_milliseconds": 3, "rows_in_seconds": 2},
    ),
    Case(
        table="sessions",
        check="page_count_is_consistent",
        holds=[pages(1, 1), pages(3, 3, leaves_elsewhere=True), {"num_pages": None}],
        breaks=[pages(2, 3), pages(1, 1, leaves_elsewhere=True)],
        metrics={"failing_rows": 2, "rows_miscounted": 1, "rows_of_one_page_that_moved": 1},
    ),
    Case(
        table="sessions",
        check="country_is_iso3166",
        holds=[{"country_code": "US"}, {"country_code": "XK"}, {"country_code": None}],
        breaks=[{"country_code": "EN"}, {}],
        metrics={"failing_rows": 2, "rows_without_country": 1},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_check_finds_what_it_is_for_and_tells_no_value(case: Case) -> None:
    judge("inspectlet", case)


def test_every_check_has_a_case() -> None:
    assert {(c.table, c.name) for c in checks_of("inspectlet")} == {(c.table, c.check) for c in CASES}


def test_no_check_keeps_days_from_the_marts() -> None:
    assert not any(check.blocking for check in checks_of("inspectlet"))


def test_a_day_that_only_strays_is_told_apart_from_a_change() -> None:
    rows = [session(0, "milliseconds"), session(1, "seconds"), session(1, "milliseconds"), session(2, "milliseconds")]
    found = _run("duration_unit_is_uniform", rows)
    assert found.failing_days == (day(1),)
    assert "is not always milliseconds" in found.description


def test_the_planted_change_of_unit_is_found(tmp_path: Path) -> None:
    """The story: on site blog, Inspectlet reports seconds instead of milliseconds from 2026-10-26 (local) on."""
    first = date(2026, 10, 23)
    days = [first + timedelta(days=number) for number in range(6)]
    world = generate(first_day=first, days=len(days), scale=0.3)
    lake = Lake(tmp_path / "lake")
    clock = ManualClock(datetime(2026, 11, 5, tzinfo=UTC))
    fetcher = Fetcher(
        landing=Landing(tmp_path / "landing", clock=clock),
        lake=lake,
        run_id="r",
        specs_by_name={spec.qualified_name: spec for spec in TABLES},
        clock=clock,
    )
    stream = next(stream for stream in STREAMS if stream.name == "sessions")
    findings = {}
    with Sandbox(world, vendors=["inspectlet"]) as sandbox:
        secret = sandbox.context.credentials

        def connect() -> InspectletClient:
            return InspectletClient.connect(
                base_url=sandbox.base_urls["inspectlet"],
                username=SecretStr(secret.inspectlet_username),
                api_token=SecretStr(secret.inspectlet_api_token),
            )

        for site in world.sites:
            context = SiteContext(key=site.key, timezone=site.timezone, ids={"wid": str(site.wid)})
            assert fetcher.run(stream, context, days, connect=connect).error is None
            (check,) = [c for c in checks_of("inspectlet") if c.name == "duration_unit_is_uniform"]
            findings[site.key] = check.run(lake.frame(SESSIONS, site.key, days))
    assert findings["shop"].passed
    found = findings["blog"]
    assert found.failing_days == (date(2026, 10, 26), date(2026, 10, 27), date(2026, 10, 28))
    assert "changes from milliseconds to seconds: 3 of 6 days, from 2026-10-26" in found.description
    assert found.metrics["mixed_days"] == 1, "the local day begins at 04:00 UTC, and lake days are UTC"


def _run(name: str, rows: list[Mapping[str, object]]) -> Finding:
    (check,) = [c for c in checks_of("inspectlet") if c.name == name]
    found = check.run(lake_frame(SESSIONS, rows))
    tells_no_value(found)
    return found
