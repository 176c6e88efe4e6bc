"""Kissmetrics' records as they become lake rows, and the catalogue end to end against the sandbox."""

# ruff: noqa: DTZ001  (a lake TIMESTAMP is naive and in UTC, so what it is compared with is too)

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.errors import ConfigurationError, NotBackfillable, SchemaMismatch
from analytics_platform.core.fetch import Fetcher, FetchOutcome, SiteContext
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.paging import Page
from analytics_platform.core.tables import TableSpec
from analytics_platform.sandbox import faults
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import World, generate
from analytics_platform.vendors.kissmetrics import streams
from analytics_platform.vendors.kissmetrics.client import KissmetricsClient
from analytics_platform.vendors.kissmetrics.tables import (
    ACCOUNTS,
    EVENTS,
    METRICS,
    PRODUCTS,
    PROPERTIES,
    REPORTS,
    TABLES,
    _instant,
)

NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)
TODAY = NOW.date()
SPECS = {spec.qualified_name: spec for spec in TABLES}

ACCOUNT = {
    "links": [],
    "contact": {"phone": "+49 30 123", "country": "DE", "name": "Erika Mustermann"},
    "updated_at": "2014-09-02T19:46:43Z",
    "created_at": "2013-10-04T04:56:57Z",
    "status": "canceled",
    "name": "My Saas Account",
    "id": "51cc9c30-0edf-0131-ead3-12313b0d181e",
}
PRODUCT = {
    "links": [],
    "id": "e7063aa0-0edf-0131-ead3-12313b0d181e",
    "account_id": "51cc9c30-0edf-0131-ead3-12313b0d181e",
    "name": "My Saas Product",
    "url": None,
    "status": "active",
    "environment": "",
    "timezone": "US/Pacific",
    "created_at": "2013-10-04T05:01:07+00:00",
    "tracking_key": "0123456789abcdef0123456789abcdef01234567",
    "hosts": ["www.example.com", "shop.example.com"],
}
EVENT: dict[str, Any] = {
    "links": [],
    "last_sent_at": "2014-08-29T15:41:08+00:00",
    "first_sent_at": "2013-12-03T01:26:21+00:00",
    "last_used_at": "2014-08-29T14:58:30+00:00",
    "id": "d71bf5f0-3de7-0131-aa07-1231392acb4b",
    "product_id": "6c921840-0edf-0131-ead4-12313b0d181e",
    "name": "search engine hit",
    "display_name": "Search engine hit",
    "description": None,
    "is_visible": True,
    "total": 8,
    "first_used_at": "2013-12-03T01:02:05+00:00",
    "index": 3,
}
PROPERTY = {k: v for k, v in EVENT.items() if k != "total"} | {
    "id": "6234e85e-2941-11e4-a20e-12313932e372",
    "type": None,
}
METRIC: dict[str, Any] = {
    "links": [],
    "config_last_changed_at": "2011-05-30T17:23:24+00:00",
    "color": None,
    "id": "48434344-088b-1031-a8b0-22923a9f01ba",
    "product_id": "6c921840-0edf-0131-ead4-12313b0d181e",
    "title": "Revenue",
    "description": None,
    "unit_type": "numeric",
    "status": "pending",
    "sort_index": 1,
    "is_visible": True,
}
REPORT = {
    "links": [],
    "created_at": "2013-12-18T19:27:43+00:00",
    "name": "My People Search",
    "report_type": "people_search_v2",
    "account_id": "51cc9c30-0edf-0131-ead3-12313b0d181e",
    "product_id": "6c921840-0edf-0131-ead4-12313b0d181e",
    "id": "64361c30-4a48-0131-0cbb-22000a9f1c0f",
}


def rows(tmp_path: Path, spec: TableSpec, body: object) -> list[dict[str, Any]]:
    """The record's way: landed, decoded, read back."""
    landing, lake = Landing(tmp_path / "landing"), Lake(tmp_path / "lake")
    with landing.open_batch(
        vendor=spec.vendor, stream="catalogue", site="shop", first_day=TODAY, last_day=TODAY, run_id="r", fresh=True
    ) as writer:
        writer.append(
            Page(
                call="c",
                call_kind=spec.calls[0],
                sequence=0,
                is_last=True,
                body=json.dumps(body).encode(),
                status=200,
                endpoint="e",
                received_at=NOW,
                context={"day": TODAY.isoformat()},
                records=0,
                attempts=1,
            )
        )
        batch = writer.complete()
    lake.decode(spec, [(batch, [TODAY])], site="shop")
    cursor = duckdb.connect().execute(
        "SELECT * FROM read_parquet(?, hive_partitioning = false)", [str(lake.partition_path(spec, "shop", TODAY))]
    )
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


SAMPLES: tuple[tuple[TableSpec, dict[str, Any]], ...] = (
    (ACCOUNTS, ACCOUNT),
    (PRODUCTS, PRODUCT),
    (REPORTS, REPORT),
    (EVENTS, EVENT),
    (PROPERTIES, PROPERTY),
    (METRICS, METRIC),
)


@pytest.mark.parametrize(("spec", "sample"), SAMPLES, ids=[spec.name for spec, _ in SAMPLES])
@pytest.mark.parametrize("shape", ["bare", "bare list", "envelope", "envelope list"])
def test_samples_in_every_shape(tmp_path: Path, spec: TableSpec, sample: dict[str, Any], shape: str) -> None:
    value: object = [sample] if "list" in shape else sample
    body = {"meta": {"status": 200}, "data": value, "links": []} if "envelope" in shape else value
    (row,) = rows(tmp_path, spec, body)
    assert row[spec.key[1]] == sample["id"]
    assert row["snapshot_date"] == row["_day"] == TODAY
    assert row["_extra"] is None


def test_an_empty_list_is_no_row_in_both_shapes(tmp_path: Path) -> None:
    assert rows(tmp_path, EVENTS, []) == []
    assert rows(tmp_path, EVENTS, {"data": [], "pagination": {"total": 0}}) == []


def test_what_the_samples_violate_is_kept_as_it_is(tmp_path: Path) -> None:
    (product,) = rows(tmp_path / "product", PRODUCTS, PRODUCT)
    assert (product["environment"], product["url"], product["hosts"]) == (
        None,
        None,
        ["www.example.com", "shop.example.com"],
    )
    (metric,) = rows(tmp_path / "m", METRICS, METRIC)
    (boolean,) = rows(tmp_path / "b", METRICS, {**METRIC, "status": True})
    assert (metric["status"], boolean["status"]) == ("pending", "true")
    (prop,) = rows(tmp_path / "p", PROPERTIES, PROPERTY)
    assert (prop["property_type"], prop["vendor_index"]) == (None, 3)


def test_an_event_with_its_lifetime_total(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, EVENTS, {"data": [{**EVENT, "total": 2**40}]})
    assert row["total"] == 2**40
    assert row["first_used_at"] < row["first_sent_at"]
    assert row["last_sent_at"] > row["last_used_at"]


def test_a_record_that_came_twice_is_one_row(tmp_path: Path) -> None:
    assert len(rows(tmp_path, EVENTS, {"data": [EVENT, EVENT]})) == 1


def test_a_changed_type_is_loud(tmp_path: Path) -> None:
    with pytest.raises(SchemaMismatch):
        rows(tmp_path, EVENTS, [{**EVENT, "total": "many"}])


def test_neither_the_tracking_key_nor_the_contact_person_reaches_the_lake(tmp_path: Path) -> None:
    rows(tmp_path, PRODUCTS, PRODUCT)
    rows(tmp_path, ACCOUNTS, ACCOUNT)
    lake_bytes = b"".join(path.read_bytes() for path in (tmp_path / "lake").rglob("*.parquet"))
    for hidden in (b"0123456789abcdef", b"Mustermann", b"+49 30"):
        assert hidden not in lake_bytes


INSTANT = duckdb.connect()
INSTANT.execute("SET TimeZone = 'Asia/Kathmandu'")


@settings(deadline=None, max_examples=40)  # two shared cores: time says nothing here
@given(
    st.datetimes(min_value=datetime(2005, 1, 1), max_value=datetime(2100, 1, 1)).map(lambda d: d.replace(microsecond=0))
)
def test_both_timestamp_styles_are_one_instant(moment: datetime) -> None:
    pacific = moment.replace(tzinfo=UTC).astimezone(timezone(timedelta(hours=-7)))
    spellings = [f"{moment.isoformat()}Z", f"{moment.isoformat()}+00:00", pacific.isoformat(), moment.isoformat()]
    sql = f"SELECT {_instant('v')} FROM (SELECT unnest(?::VARCHAR[]) AS v)"
    assert {found for (found,) in INSTANT.execute(sql, [spellings]).fetchall()} == {moment}


# -------------------------------------------------------------------------------------------- the stream, end to end


@pytest.fixture(scope="module")
def world() -> World:
    return generate(seed=7, first_day=date(2026, 10, 5), days=3, scale=0.3)


@pytest.fixture(scope="module")
def running(world: World) -> Iterator[Sandbox]:
    with Sandbox(world, vendors=["kissmetrics"]) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Iterator[Sandbox]:
    running.faults.clear()
    running.requests.clear()
    yield running
    running.faults.clear()


class House:
    """Landing, lake and client of one site, as a run has them."""

    def __init__(self, sandbox: Sandbox, root: Path, product_id: str) -> None:
        self.sandbox = sandbox
        self.clock = ManualClock(NOW)
        self.lake = Lake(root / "lake")
        self.context = SiteContext(key="shop", timezone="Europe/Berlin", ids={"product_id": product_id})
        self.fetcher = Fetcher(
            landing=Landing(root / "landing", clock=self.clock),
            lake=self.lake,
            run_id="r",
            specs_by_name=SPECS,
            clock=self.clock,
        )

    def connect(self) -> KissmetricsClient:
        token = SecretStr(self.sandbox.context.credentials.kissmetrics_api_token)
        return KissmetricsClient.connect(base_url=self.sandbox.base_urls["kissmetrics"], token=token, clock=self.clock)

    def run(self, days: Sequence[date] = (TODAY,)) -> FetchOutcome:
        return self.fetcher.run(streams.STREAMS[0], self.context, days, connect=self.connect)

    def read(self, spec: TableSpec) -> Any:
        return self.lake.frame(spec, "shop", [TODAY])


@pytest.fixture
def house(sandbox: Sandbox, world: World, tmp_path: Path) -> House:
    return House(sandbox, tmp_path, world.sites[0].kissmetrics_product_id)


def test_one_stream_fills_six_tables(house: House, sandbox: Sandbox, world: World) -> None:
    outcome = house.run()
    assert outcome.error is None
    assert outcome.requests == sandbox.requests.count(vendor="kissmetrics") == 6
    frames = {spec.name: house.read(spec) for spec in TABLES}
    assert all(len(frame) > 0 for frame in frames.values())
    assert all(frame["_extra"].isna().all() for frame in frames.values())
    site = world.sites[0]
    assert list(frames["products"]["product_id"]) == [site.kissmetrics_product_id]
    assert list(frames["accounts"]["account_id"]) == [site.kissmetrics_account_id]
    assert set(frames["events"]["product_id"]) == {site.kissmetrics_product_id}
    assert frames["events"]["total"].min() >= 1
    assert house.run().requests == 0


def test_a_past_day_cannot_be_asked_for(house: House, sandbox: Sandbox) -> None:
    outcome = house.run([TODAY - timedelta(days=1)])
    assert isinstance(outcome.error, NotBackfillable)
    assert sandbox.requests.count(vendor="kissmetrics") == 0


def test_an_account_that_is_not_ours_to_see_does_not_stop_the_snapshot(house: House, sandbox: Sandbox) -> None:
    denied = faults.status(403, headers={"content-type": "application/json"}, body='{"error":"Forbidden"}')
    sandbox.faults.add("kissmetrics", "/core/accounts/", fault=denied)
    assert house.run().error is None
    assert len(house.read(ACCOUNTS)) == 0
    assert len(house.read(EVENTS)) > 0


def test_an_interrupted_snapshot_resumes(house: House, sandbox: Sandbox) -> None:
    broken = faults.status(403, headers={"content-type": "application/json"}, body='{"error":"Forbidden"}')
    sandbox.faults.add("kissmetrics", "/reports", fault=broken)
    first = house.run()
    assert first.error is not None
    assert first.done_days == []
    second = house.run()
    assert second.error is None
    assert second.done_days == [TODAY]
    assert second.requests == 2


def test_a_site_without_a_product_says_so(sandbox: Sandbox, tmp_path: Path) -> None:
    outcome = House(sandbox, tmp_path, "").run()
    assert isinstance(outcome.error, ConfigurationError)
    assert "product_id" in str(outcome.error)
    assert sandbox.requests.count(vendor="kissmetrics") == 0
