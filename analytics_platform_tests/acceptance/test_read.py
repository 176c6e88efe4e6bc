"""Read: whole, equal, once, resumed anywhere, today's limits, and rows that are known."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from analytics_platform.core.errors import NotBackfillable
from analytics_platform.core.settling import BACK_TO
from analytics_platform.core.tables import Sensitivity
from analytics_platform.sandbox import faults
from analytics_platform.vendors import all_tables
from analytics_platform_tests.acceptance import golden
from analytics_platform_tests.acceptance.case import CASES, VendorCase
from analytics_platform_tests.acceptance.rig import DAY, SITE, STAMPS, Bench, Rig, done

pytestmark = pytest.mark.parametrize("case", CASES, ids=str)


def test_every_stream_is_read(case: VendorCase, reading: Rig, record_property: Any) -> None:
    """Every table has rows, or says why not and has none."""
    for stream in case.streams:
        for spec in stream.tables:
            why = case.empty_tables.get(spec.name, "")
            assert bool(reading.rows(spec)) != bool(why), spec.qualified_name
            if why:
                record_property("reason", f"{spec.qualified_name} is empty: {why}")


def test_primary_keys(case: VendorCase, reading: Rig) -> None:
    """Every row has its whole key, and no two the same."""
    for stream in case.streams:
        for spec in stream.tables:
            keys = [tuple(row[name] for name in spec.key) for row in reading.rows(spec)]
            assert len(set(keys)) == len(keys), spec.qualified_name
            assert not [key for key in keys if None in key], spec.qualified_name


def test_columns_that_must_have_a_value_have_one(case: VendorCase, reading: Rig) -> None:
    for stream in case.streams:
        for spec in stream.tables:
            needed = [column.name for column in spec.all_columns if not column.nullable]
            rows = reading.rows(spec)
            missing = [name for name in needed if name not in STAMPS and any(row[name] is None for row in rows)]
            assert missing == [], spec.qualified_name


def test_additional_properties(case: VendorCase, reading: Rig) -> None:
    """Every field of the wire is declared: what is not would travel in `_extra`, and be listed in the case."""
    for stream in case.streams:
        for partitions in reading.outcomes[stream.name].decoded.values():
            for partition in partitions:
                assert partition.extra_fields == case.undeclared.get(partition.spec.name, ())


def test_two_reads_are_equal(case: VendorCase, rig: Rig, reading: Rig) -> None:
    """Another home, the same day, the same clock: the same files, byte by byte."""
    for stream in case.streams:
        done(rig.read(stream))
    assert rig.files() == reading.files()


def test_nothing_is_asked_twice(bench: Bench, case: VendorCase, reading: Rig) -> None:
    """What is final costs no request, and its files stay."""
    before = reading.files()
    for stream in case.streams:
        assert done(reading.read(stream)).requests == 0
    assert len(bench.sandbox.requests) == 0
    assert reading.files() == before


def test_resume_from_every_page(bench: Bench, case: VendorCase, reading: Rig, tmp_path: Path) -> None:
    """Out of budget after page k, for every k: what is landed stays, no finished call is asked again, and in the end
    the landed pages are the uncut run's. Rows are a function of those; they are compared after the middle cut. A
    newest-first walk goes on below what it reached, with other pages and the same rows.
    """
    for stream in case.streams:
        pages = reading.outcomes[stream.name].pages
        again, _why = case.asked_again.get(stream.name, (0, ""))
        for cut in range(1, pages):
            rig = Rig(bench, case, tmp_path / f"{stream.name}-{cut}")
            first = rig.read(stream, budget=cut)
            assert (first.pages, first.deferred is not None) == (cut, True)
            (batch,) = rig.batches(stream)
            index = batch.index()
            finished = {page.call for page in index if page.is_last}
            kept = sum(page.call in finished for page in index)
            bench.sandbox.requests.clear()
            goes_on_below = any(BACK_TO in page.context for page in index)
            compared = stream.tables if goes_on_below or cut == max(1, pages // 2) else ()
            second = done(rig.read(stream, tables=compared))
            assert _data_requests(bench, case) - second.pages in range(again + 1)
            if goes_on_below:
                assert second.pages <= pages
            else:
                assert second.pages == pages - kept
                assert rig.landed(stream) == reading.landed(stream)
            for spec in compared:
                assert rig.rows(spec) == reading.rows(spec), (spec.qualified_name, cut)


def _data_requests(bench: Bench, case: VendorCase) -> int:
    return sum("token" not in record.path for record in bench.sandbox.requests.records(vendor=case.vendor))


def test_future_day(bench: Bench, case: VendorCase, rig: Rig) -> None:
    """Tomorrow is refused in words, before a request."""
    tomorrow = rig.clock.now().date() + timedelta(days=2)  # the day after next: no zone is there yet
    for stream in case.streams:
        outcome = rig.read(stream, [tomorrow])
        assert isinstance(outcome.error, NotBackfillable)
        assert str(tomorrow) in str(outcome.error)
        assert "cannot be asked for" in str(outcome.error)
        assert outcome.not_backfillable == [tomorrow]
    assert len(bench.sandbox.requests) == 0


def test_future_state(bench: Bench, case: VendorCase, rig: Rig, reason: str) -> None:
    """Pages landed by a clock that ran ahead: the state is from the future, nothing is asked, nothing breaks."""
    rig.clock.jump(86_400 * 30)
    done(rig.probe(tables=[case.probe_table]))
    ahead = rig.rows(case.probe_table)
    asked = len(bench.sandbox.requests)
    rig.clock.jump(-86_400 * 30)
    days = [(rig.clock.now() + timedelta(days=30)).date()] if case.is_snapshot else [DAY]
    outcome = done(rig.probe(days=days, tables=[case.probe_table]))
    assert case.is_snapshot == bool(reason)
    assert outcome.requests == 0
    assert len(bench.sandbox.requests) == asked
    assert rig.rows(case.probe_table) == ahead


def test_empty_stream(bench: Bench, case: VendorCase, rig: Rig, reason: str) -> None:
    """A day without traffic is a partition with the right schema and no row, not a failure and not a hole."""
    quiet = DAY + timedelta(days=7)
    if case.empty:
        bench.sandbox.faults.add(case.vendor, case.route, fault=faults.status(200, body=case.empty))
        outcome = done(rig.probe(tables=[case.probe_table]))
    else:
        outcome = done(rig.probe(days=[quiet], tables=[case.probe_table]))
    ((partition,),) = outcome.decoded.values()
    rows = rig.rows(case.probe_table, [partition.day])
    assert partition.rows == len(rows)
    if reason and not case.empty:
        assert [row["visitors"] for row in rows] == [0]
    else:
        assert rows == []
    assert rig.lake.frame(case.probe_table, SITE, [partition.day]).columns.tolist() == [
        column.name for column in case.probe_table.all_columns
    ]


def test_golden_records(case: VendorCase, reading: Rig) -> None:
    """A handful of records of the seed, field by field, as `golden` worked them out from the answers without any of our
    code (python -m analytics_platform_tests.acceptance.golden).
    """
    stored = json.loads(golden.PAGE.read_text(encoding="utf-8"))[case.vendor]
    assert stored
    for table, records in stored.items():
        spec = all_tables()[f"{case.vendor}/{table}"]
        rows = [{name: golden.plain(value) for name, value in row.items()} for row in reading.rows(spec)]
        assert records
        for record in records:
            key = {name: record[name] for name in spec.key if name in record}
            found = [row for row in rows if key.items() <= row.items()]
            assert [{name: row[name] for name in record} for row in found] == [record], spec.qualified_name


def test_personal_data_stays_out_of_logs_and_metadata(
    bench: Bench, case: VendorCase, rig: Rig, reading: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything a run says, in success and failure, at the most talkative level, holds no one's data and no secret."""
    gossip = json.dumps({"message": " ".join(_people(bench))})
    retyped = faults.drift("retype", case.drift.field, retype="text", at=case.drift.at)
    with caplog.at_level(logging.DEBUG):
        failed = [
            _failing(bench, rig, fault)
            for fault in (faults.bad_json("single_quotes"), faults.status(400, body=gossip), retyped)
        ]
    assert [outcome for outcome in failed if outcome.error is None] == []
    assert bench.said[case.vendor], "the undisturbed reading logged something"
    said = bench.said[case.vendor] + caplog.text
    for outcome in (*failed, *reading.outcomes.values()):
        said += f"{outcome.error}{outcome.error!r}{outcome.deferred}{outcome.decoded}"
    told = [value for value in _canaries(bench, case, reading) if value in said]
    assert told == []


def _failing(bench: Bench, rig: Rig, fault: faults.Fault) -> Any:
    bench.sandbox.faults.clear()
    bench.sandbox.faults.add(rig.case.vendor, rig.case.route, fault=fault, times=1000)
    return rig.probe(refresh=True, tables=[rig.case.probe_table])


def _people(bench: Bench) -> list[str]:
    visitors = bench.sandbox.world.visitors
    return [*visitors["email"].dropna().unique()[:5], *visitors["ip"].unique()[:5]]


def _canaries(bench: Bench, case: VendorCase, reading: Rig) -> set[str]:
    hidden = {
        str(row[column.name])
        for stream in case.streams
        for spec in stream.tables
        for column in spec.columns
        if column.sensitivity in (Sensitivity.PERSONAL, Sensitivity.SECRET) and column.type == "VARCHAR"
        for row in reading.rows(spec)
        if row[column.name]
    }
    secrets = {bench.environment[name] for name in case.variables}
    visitors = bench.sandbox.world.visitors
    everybody = {*visitors["email"].dropna(), *visitors["ip"], *visitors["display_name"].dropna()}
    return {value for value in hidden | secrets | everybody if len(value) >= 8}
