"""What a run tells before and after: the plan in metadata, planned and spent as tags, how much of how much landed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from analytics_platform.core.automation import range_tags
from analytics_platform.core.errors import QuotaExhausted
from analytics_platform.core.ingest import REPLAY_TAG
from analytics_platform.core.progress import landed_of
from analytics_platform.core.resources import open_ledger
from analytics_platform.core.run_numbers import PLANNED_TAG, SPENT_TAG
from analytics_platform.plan import make_plan
from analytics_platform.runner import Runner
from analytics_platform.vendors import streams_of
from analytics_platform_tests.conftest import DAYS, FIRST_DAY, House
from analytics_platform_tests.core.test_ingest import (  # noqa: F401  (`bench` is a fixture)
    ACME_DAYS,
    SPEC,
    Bench,
    bench,
    keys,
    observations,
)

LAST_DAY = FIRST_DAY + timedelta(days=DAYS - 1)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


def tags_of(outcome: dg.ExecuteInProcessResult, instance: dg.DagsterInstance) -> dict[str, str]:
    run = instance.get_run_by_id(outcome.run_id)
    assert run is not None
    return dict(run.tags)


def test_a_backfill_says_its_plan_first_and_what_it_spent_at_the_end(
    house: House, instance: dg.DagsterInstance
) -> None:
    streams = [stream for stream in streams_of("smartlook") if stream.name in ("sessions", "event_daily")]
    planned = make_plan(house.settings, FIRST_DAY, LAST_DAY, vendors=["smartlook"], sites=["shop"])
    lines = [line for line in planned.lines if line.stream in {stream.name for stream in streams}]
    runner = Runner(house.settings, instance)
    selection = [dg.AssetKey(spec.asset_key) for stream in streams for spec in stream.tables]

    def backfill() -> dict[str, str]:
        outcome = runner.job.execute_in_process(
            asset_selection=selection, instance=instance, tags=range_tags("shop", FIRST_DAY, LAST_DAY)
        )
        assert outcome.success
        return tags_of(outcome, instance)

    tags = backfill()
    assert int(tags[PLANNED_TAG]) == sum(math.ceil(line.requests.likely) for line in lines)
    with open_ledger(house.settings) as ledger:
        assert int(tags[SPENT_TAG]) == sum(row.requests for row in ledger.spent(vendor="smartlook")) > 0
    for stream, line in zip(streams, lines, strict=True):
        (seen,) = observations(instance, stream.tables[0].asset_key, state="planned")
        metadata = {name: entry.value for name, entry in seen.metadata.items()}
        assert str(seen.description).startswith("Planned: ")
        assert (metadata["site"], metadata["days_to_fetch"], metadata["days_there"]) == ("shop", DAYS, 0)
        assert metadata["requests_likely"] == math.ceil(line.requests.likely)
        assert metadata["window"] == "1000 in 3600 s"
        assert isinstance(metadata["finishes_at"], float)
    # Again: there is nothing to plan and nothing to spend.
    again = backfill()
    assert (again.get(PLANNED_TAG), again[SPENT_TAG]) == (None, "0")
    assert len(observations(instance, streams[0].tables[0].asset_key, state="planned")) == 1


def test_a_single_day_and_a_replay_have_no_plan(bench: Bench) -> None:  # noqa: F811
    assert bench.run(*keys(ACME_DAYS[0])).success
    assert bench.run(*keys(ACME_DAYS[0], ACME_DAYS[1]), tags={REPLAY_TAG: "true"}).success
    assert observations(bench.instance, SPEC.asset_key) == []


def test_a_plan_without_history_says_at_least(bench: Bench) -> None:  # noqa: F811
    assert bench.run(*keys(ACME_DAYS[0], ACME_DAYS[3])).success
    (seen,) = observations(bench.instance, SPEC.asset_key, state="planned")
    assert "at least 4 requests" in str(seen.description)
    assert "requests_high" not in seen.metadata


def test_a_deferral_says_how_many_of_how_many_rows_landed(bench: Bench) -> None:  # noqa: F811
    resume_at = datetime(2026, 12, 1, 10, tzinfo=UTC)
    bench.acme.fails["shop", ACME_DAYS[0]] = QuotaExhausted("spent", resume_at=resume_at)
    assert bench.run(*keys(ACME_DAYS[0], ACME_DAYS[3])).success
    (seen,) = observations(bench.instance, SPEC.asset_key, state="deferred")
    # Three days of one row each are history enough for the fourth.
    assert seen.description == "Deferred until 2026-12-01 10:00 UTC, 3 of ~4 rows landed."


def test_how_much_is_told_of_how_much() -> None:
    assert landed_of(312, 1004.0) == "312 of ~1,000 rows landed"
    assert landed_of(312, None) == "312 records landed so far"
    assert landed_of(5, 4.0) == "5 records landed so far"
    assert landed_of(0, 0.0) == "0 of ~0 rows landed"
