"""What the platform writes down about its own work: requests, quota, partitions, and every reading of a number."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.errors import QuotaExhausted
from analytics_platform.core.ops_log import KEPT_DAYS, OpsLog, SiteStreams, exhausted_at
from analytics_platform.core.quota import Ledger, QuotaPolicy, Spending, Window, account_key
from analytics_platform.core.streams import Stream
from analytics_platform_tests.core.test_fetch import MONDAY, SHOP, Rig

ACCOUNT = account_key("acme", "token-of-a-test")
ENDPOINT = "POST /visits/search"
HOURLY = QuotaPolicy(account=ACCOUNT, windows={"any": (Window(20, 3600),)})
MEASURES = {"sessions": "count(*)", "views": "sum(version)"}
TUESDAY = MONDAY + timedelta(days=1)
NINE = datetime.fromisoformat("2026-10-06 09:00")
"""As the files have instants: UTC, without a zone."""


class Desk:
    """A vendor of one stream, and the files about it."""

    def __init__(self, root: Path, now: datetime) -> None:
        self.rig = Rig(root, now)
        self.log = OpsLog(self.rig.lake, self.rig.landing)
        self.ledger = Ledger.open(root / "ledger.db", self.rig.clock)
        self.ledger.declare(HOURLY)

    def export(self, *streams: Stream, start: date = MONDAY) -> None:
        here = SiteStreams(site=SHOP, start_date=start, streams=streams)
        self.log.export([here], self.ledger, self.rig.clock.now())

    def rows(self, table_name: str) -> list[dict[str, Any]]:
        with duckdb.connect() as connection:
            found = connection.execute(
                f"FROM read_parquet('{self.rig.lake.root}/_ops/{table_name}/**/part.parquet', "
                "hive_partitioning = false) ORDER BY ALL"
            )
            names = [column[0] for column in found.description or ()]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def spend(self, times: int) -> None:
        for _ in range(times):
            work = Spending(stream="visits", site="shop", run_id="r")
            self.ledger.acquire(ACCOUNT, "any", HOURLY.windows["any"], ENDPOINT, work=work)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path, datetime(2026, 10, 6, 9, tzinfo=UTC))
    with closing(made.ledger):
        yield made


def measured(desk: Desk) -> list[tuple[Any, ...]]:
    return [
        (row["partition_date"], row["metric"], row["asked_at"], row["value"]) for row in desk.rows("partition_measures")
    ]


def restating(desk: Desk) -> Stream:
    stream = desk.rig.stream("range", lookback_days=2)
    return replace(stream, tables=(replace(stream.tables[0], measures=MEASURES),))


# ------------------------------------------------------------------------------------------------------------ measures


def test_every_read_of_a_day_is_kept_with_its_numbers(desk: Desk) -> None:
    stream = restating(desk)
    desk.rig.run(stream, [MONDAY, TUESDAY])
    desk.export(stream)
    desk.rig.vendor.version = 5
    desk.rig.clock.advance(86_400)
    desk.rig.run(stream, [MONDAY])
    desk.export(stream)
    asked = sorted({row["asked_at"] for row in desk.rows("partition_measures")})
    assert len(asked) == 2
    # Three calls a batch, one row a day each.
    assert sorted(measured(desk)) == sorted(
        [(day, metric, asked[0], 3) for day in (MONDAY, TUESDAY) for metric in MEASURES]
        + [(MONDAY, "sessions", asked[1], 3), (MONDAY, "views", asked[1], 15)]
    )


def test_reads_that_were_replaced_before_anybody_measured_them_are_measured_all_the_same(desk: Desk) -> None:
    stream = restating(desk)
    desk.rig.run(stream, [MONDAY, TUESDAY])
    desk.export(stream)
    desk.rig.vendor.version = 5
    desk.rig.clock.advance(86_400)
    desk.rig.run(stream, [MONDAY])
    desk.export(stream)
    step_by_step = measured(desk)
    shutil.rmtree(desk.rig.lake.root / "_ops")
    desk.export(stream)
    assert measured(desk) == step_by_step
    desk.export(stream)
    assert measured(desk) == step_by_step, "a read is written once"
    assert list((desk.rig.lake.root / ".scratch").glob("decode-*")) == [], "nothing raw is left behind"


def test_an_empty_day_counts_nothing_and_sums_to_unknown(desk: Desk) -> None:
    stream = restating(desk)
    none = replace(stream, tables=(replace(stream.tables[0], where="false"),))
    desk.rig.run(none, [MONDAY])
    desk.export(none)
    assert {(metric, value) for _, metric, _, value in measured(desk)} == {("sessions", 0), ("views", None)}


def test_a_partition_older_than_its_newest_batch_is_not_taken_for_it(desk: Desk) -> None:
    stream = restating(desk)
    desk.rig.run(stream, [MONDAY])
    desk.rig.vendor.version = 5
    desk.rig.vendor.bad_days = {MONDAY}
    desk.rig.clock.advance(86_400)
    desk.rig.run(stream, [MONDAY])
    path = desk.rig.lake.partition_path(stream.tables[0], "shop", MONDAY)
    os.utime(path, (0, datetime(2026, 10, 6, 9, 0, 30, tzinfo=UTC).timestamp()))
    desk.export(stream)
    assert {value for _, metric, _, value in measured(desk) if metric == "views"} == {3}
    (row,) = (row for row in desk.rows("partition_status") if row["partition_date"] == MONDAY)
    assert row["row_count"] == 3


# ---------------------------------------------------------------------------------------------------------- partitions


def statuses(desk: Desk, table_name: str = "visits") -> dict[date, tuple[str, str | None]]:
    return {
        row["partition_date"]: (row["status"], row["reason"])
        for row in desk.rows("partition_status")
        if row["table_name"] == table_name
    }


def test_a_partition_is_ok_partial_or_missing_and_says_why(desk: Desk) -> None:
    stream = desk.rig.stream("range", lookback_days=0)
    desk.rig.run(stream, [MONDAY, TUESDAY])
    desk.rig.clock.advance(86_400)
    desk.export(stream)
    found = statuses(desk)
    assert found[MONDAY] == ("ok", None)
    assert found[TUESDAY][0] == "partial"
    assert "settled" in str(found[TUESDAY][1])
    assert found[TUESDAY + timedelta(days=1)] == ("missing", "never asked for")
    (row,) = (row for row in desk.rows("partition_status") if row["partition_date"] == MONDAY)
    assert (row["row_count"], row["requests"], row["batch_days"]) == (3, 3, 2)


def test_what_waits_for_quota_says_until_when(desk: Desk) -> None:
    stream = desk.rig.stream("range")
    resume_at = datetime(2026, 10, 6, 10, tzinfo=UTC)
    desk.rig.vendor.fail_at = {2: QuotaExhausted("out of requests", "wait", resume_at=resume_at)}
    desk.rig.run(stream, [MONDAY])
    desk.export(stream)
    assert statuses(desk)[MONDAY][0] == "partial", "begun, and nobody has written down that it waits"
    desk.ledger.defer(
        vendor="acme",
        stream="visits",
        site="shop",
        first_day=MONDAY,
        last_day=MONDAY,
        resume_at=resume_at,
        reason="20 of 20 requests are used",
    )
    desk.export(stream)
    assert statuses(desk)[MONDAY] == ("deferred", "20 of 20 requests are used")
    (row,) = (row for row in desk.rows("partition_status") if row["partition_date"] == MONDAY)
    assert row["resume_at"] == resume_at.replace(tzinfo=None)
    assert row["row_count"] is None


def test_landed_and_not_decoded_is_failed_and_a_refused_one_is_blocked(desk: Desk) -> None:
    stream = desk.rig.stream("day")
    desk.rig.vendor.bad_days = {MONDAY}
    desk.rig.run(stream, [MONDAY, TUESDAY])
    desk.rig.lake.block(stream.tables[0], "shop", failing=[TUESDAY], passing_days=[])
    desk.rig.clock.advance(2 * 86_400)
    desk.export(stream)
    found = statuses(desk)
    assert found[MONDAY][0] == "failed"
    assert found[TUESDAY][0] == "blocked"
    assert found[MONDAY][1]
    assert found[TUESDAY][1]


def test_a_snapshot_nobody_took_cannot_be_had_any_more(desk: Desk) -> None:
    stream = desk.rig.stream("snapshot")
    desk.rig.run(stream, [TUESDAY])
    desk.export(stream)
    assert {day: status for day, (status, _) in statuses(desk).items()} == {MONDAY: "not_backfillable", TUESDAY: "ok"}


def test_a_site_of_years_has_the_last_ninety_days_listed(desk: Desk) -> None:
    desk.export(desk.rig.stream("range"), start=date(2020, 1, 1))
    listed = sorted(statuses(desk))
    assert (listed[0], listed[-1]) == (TUESDAY - timedelta(days=KEPT_DAYS), TUESDAY)


def test_rows_are_counted_again_only_where_the_file_was_written_since(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = desk.rig.stream("day")
    desk.rig.run(stream, [MONDAY, TUESDAY])
    before = datetime(2026, 10, 1, tzinfo=UTC).timestamp()
    for day in (MONDAY, TUESDAY):
        os.utime(desk.rig.lake.partition_path(stream.tables[0], "shop", day), (before, before))
    desk.export(stream)
    counted: list[date] = []
    really = desk.rig.lake.row_counts

    def counting(spec: Any, site: str, days: Any) -> dict[date, int]:
        counted.extend(days)
        return really(spec, site, days)

    monkeypatch.setattr(desk.rig.lake, "row_counts", counting)
    os.utime(desk.rig.lake.partition_path(stream.tables[0], "shop", TUESDAY))
    desk.export(stream)
    assert counted == [TUESDAY]
    assert {row["row_count"] for row in desk.rows("partition_status")} == {3}


# --------------------------------------------------------------------------------------------------- requests and quota


def test_requests_are_counted_by_hour_with_their_refusals_and_bytes(desk: Desk) -> None:
    desk.spend(3)
    stream = desk.rig.stream("range")
    desk.rig.run(stream, [MONDAY])
    desk.ledger.learn(ACCOUNT, "any", HOURLY.windows["any"], endpoint=ENDPOINT, status=429, retry_after_seconds=60)
    desk.rig.clock.advance(3_600)
    desk.spend(2)
    desk.export(stream)
    first, second = desk.rows("http_requests")
    assert (first["hour_at"], first["requests"], first["answers_429"]) == (NINE, 3, 1)
    landed = [page.size for batch in desk.rig.landing.batches("acme", "visits", "shop") for page in batch.index()]
    assert first["received_bytes"] == sum(landed) > 0
    assert (second["hour_at"], second["requests"], second["received_bytes"]) == (NINE + timedelta(hours=1), 2, 0)


def test_a_later_export_counts_the_open_hours_again_and_keeps_the_rest(desk: Desk) -> None:
    for _ in range(4):
        desk.spend(2)
        desk.export()
        desk.spend(1)
        desk.rig.clock.advance(3_600)
    desk.export()
    assert [row["requests"] for row in desk.rows("http_requests")] == [3, 3, 3, 3]
    once = desk.rows("http_requests")
    shutil.rmtree(desk.rig.lake.root / "_ops")
    desk.export()
    assert desk.rows("http_requests") == once, "as if there had been one export"


def test_hours_and_dates_out_of_the_kept_span_go(desk: Desk) -> None:
    desk.spend(1)
    desk.export()
    desk.rig.clock.advance((KEPT_DAYS + 2) * 86_400)
    desk.spend(1)
    desk.export()
    assert len(desk.rows("http_requests")) == 1
    assert len(desk.rows("quota_windows")) == 1


def test_a_date_that_is_over_keeps_the_limit_of_then(desk: Desk) -> None:
    desk.spend(15)
    desk.export()
    smaller = QuotaPolicy(account=ACCOUNT, windows={"any": (Window(10, 3600),)})
    desk.ledger.declare(smaller)
    desk.export()
    (today,) = desk.rows("quota_windows")
    assert (today["used"], today["request_limit"]) == (15, 20), "the limit was 20 when 15 were sent"
    desk.rig.clock.advance(86_400)
    desk.ledger.acquire(ACCOUNT, "any", smaller.windows["any"], ENDPOINT)
    desk.export()
    assert [(row["used"], row["request_limit"]) for row in desk.rows("quota_windows")] == [(15, 20), (1, 10)]


def test_a_full_window_is_exhausted_now(desk: Desk) -> None:
    desk.spend(20)
    desk.export()
    (row,) = desk.rows("quota_windows")
    assert row["forecast_exhaustion_at"] == row["observed_at"]
    assert (row["used"], row["requests"]) == (20, 20)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(pauses=st.lists(st.floats(0, 40, allow_nan=False), min_size=1, max_size=30))
def test_no_span_of_a_date_ever_holds_more_than_the_limit(
    tmp_path_factory: pytest.TempPathFactory, pauses: list[float]
) -> None:
    clock = ManualClock(datetime(2026, 10, 5, 23, 58, tzinfo=UTC))
    policy = QuotaPolicy(account=ACCOUNT, windows={"any": (Window(5, 10.0),)})
    with closing(Ledger.open(tmp_path_factory.mktemp("ledger") / "ledger.db", clock)) as ledger:
        ledger.declare(policy)
        for pause in pauses:
            clock.advance(pause)
            ledger.meter(policy, max_wait_seconds=60.0).acquire(method="GET", endpoint=ENDPOINT)
        usage = ledger.daily_usage(ACCOUNT, date(2026, 10, 5))
        hourly = ledger.hourly(datetime(2026, 10, 5, tzinfo=UTC))
    assert all(1 <= day.used <= day.limit == 5 for day in usage)
    assert sum(day.requests for day in usage) == len(pauses) == sum(hour.requests for hour in hourly)


@settings(max_examples=50, deadline=None)
@given(
    ages=st.lists(st.integers(1, 3_599), max_size=40),
    limit=st.integers(1, 60),
)
def test_a_forecast_is_ahead_within_one_window_and_never_without_recent_requests(ages: list[int], limit: int) -> None:
    now = datetime(2026, 10, 5, 12, tzinfo=UTC)
    departures = sorted(now - timedelta(seconds=age) for age in ages)
    at = exhausted_at(departures, Window(limit, 3_600.0), now)
    if not any(age < 900 for age in ages):
        assert at is None
    if at is not None:
        assert now < at <= now + timedelta(hours=1)


def test_a_steady_pace_below_the_limit_never_exhausts_and_a_sprint_does() -> None:
    now = datetime(2026, 10, 5, 12, tzinfo=UTC)
    steady = [now - timedelta(seconds=40 * n) for n in reversed(range(90))]
    assert exhausted_at(steady, Window(100, 3_600.0), now) is None
    sprint = [now - timedelta(seconds=n) for n in reversed(range(60))]
    at = exhausted_at(sprint, Window(100, 3_600.0), now)
    assert at is not None
    assert now + timedelta(minutes=9) <= at <= now + timedelta(minutes=11), "4 a minute, 40 left"


def test_files_are_there_before_anything_happened(tmp_path: Path) -> None:
    desk = Desk(tmp_path, datetime(2026, 10, 6, 9, tzinfo=UTC))
    with closing(desk.ledger):
        desk.log.prepare()
        for name in ("http_requests", "quota_windows", "partition_status", "partition_measures"):
            assert desk.rows(name) == []
