"""A decode that streams gives what the other one gives: beside the fetch, from landing, a key twice, with a fault."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from analytics_platform.core import lake as lake_module
from analytics_platform.core import lake_stream, staging, streamed_table
from analytics_platform.core.errors import LandingCorrupt, SchemaMismatch
from analytics_platform.core.fetch import Fetcher, FetchOutcome, SiteContext
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import LandedPage, Landing, Rewritten
from analytics_platform.core.paging import Page
from analytics_platform.core.raw_records import raw_records
from analytics_platform.core.streams import Extraction, Stream
from analytics_platform.core.strict_json import Document
from analytics_platform.core.tables import Column, TableSpec

DAY = date(2026, 10, 5)
NEXT = DAY + timedelta(days=1)
SITE = SiteContext(key="shop", timezone="UTC", ids={})

VISITS = TableSpec(
    vendor="acme",
    name="visits",
    description="One row per visit.",
    key=("visit_id",),
    calls=("list",),
    records=("visits",),
    is_counted=True,
    context=(),
    day="CAST(left(r.at, 10) AS DATE)",
    anchor="began_at",
    wire={"id": "VARCHAR", "at": "VARCHAR", "tags": "VARCHAR[]", "n": "VARCHAR"},
    columns=(
        Column(name="visit_id", type="VARCHAR", description="Id.", expr="r.id"),
        Column(name="began_at", type="TIMESTAMP", description="Begin.", expr="CAST(r.at AS TIMESTAMP)"),
        Column(name="tags", type="VARCHAR[]", description="Tags."),
        Column(name="n", type="BIGINT", description="Number.", expr="CAST(r.n AS BIGINT)"),
    ),
)
TAGS = TableSpec(
    vendor="acme",
    name="visit_tags",
    description="One row per visit and tag.",
    key=("visit_id", "position"),
    calls=("list",),
    records=("visits",),
    context=(),
    explode="tags",
    day=VISITS.day,
    wire=VISITS.wire,
    columns=(
        Column(name="visit_id", type="VARCHAR", description="Id.", expr="r.id"),
        Column(name="position", type="BIGINT", description="Place.", expr="i"),
        Column(name="tag", type="VARCHAR", description="Tag.", expr="e"),
    ),
)
TABLES = (VISITS, TAGS)


def visit(number: int, **more: object) -> dict[str, object]:
    day = (DAY, NEXT)[number % 2]
    return {"id": f"v{number:05}", "at": f"{day}T12:00:00", "tags": [f"t{number}", "é\n"], "n": number, **more}


def body(records: Sequence[object], indent: int | None = None) -> bytes:
    return json.dumps({"visits": records}, indent=indent).encode()


def pages(bodies: Sequence[bytes]) -> Iterator[Page]:
    for number, content in enumerate(bodies):
        yield Page(
            call="list",
            call_kind="list",
            sequence=number,
            is_last=number == len(bodies) - 1,
            body=content,
            status=200,
            endpoint="GET /visits",
            received_at=datetime(2026, 11, 1, tzinfo=UTC) + timedelta(seconds=number),
            context={},
            records=len(json.loads(content)["visits"]),
            attempts=1,
        )


class Rig:
    def __init__(self, home: Path) -> None:
        self.landing, self.lake = Landing(home / "landing"), Lake(home / "lake")
        self.fetcher = Fetcher(landing=self.landing, lake=self.lake, run_id="run", specs_by_name={})

    def run(self, bodies: Sequence[bytes], tables: Sequence[TableSpec] = TABLES) -> FetchOutcome:
        def extract(_: object, __: Extraction) -> Iterator[Page]:
            yield from pages(bodies)

        stream = Stream(vendor="acme", name="visits", tables=tuple(tables), span="range", extract=extract)
        return self.fetcher.run(stream, SITE, [DAY, NEXT], connect=_Client)

    def replay(self, tables: Sequence[TableSpec] = TABLES) -> FetchOutcome:
        stream = Stream(vendor="acme", name="visits", tables=tuple(tables), span="range", extract=lambda *_: iter(()))
        return self.fetcher.replay(stream, SITE, [DAY, NEXT])

    def rows(self, spec: TableSpec) -> list[tuple[Any, ...]]:
        pattern = self.lake.root / "acme" / spec.name / "site=shop" / "*" / "part.parquet"
        names = ", ".join(f'"{column.name}"' for column in spec.all_columns)
        return duckdb.sql(
            f"SELECT {names} FROM read_parquet('{pattern}', hive_partitioning = false) ORDER BY ALL"
        ).fetchall()

    def rows_exist(self, spec: TableSpec) -> bool:
        return any(self.lake.has(spec, "shop", day) for day in (DAY, NEXT))

    def bytes(self, spec: TableSpec) -> list[bytes]:
        return [self.lake.partition_path(spec, "shop", day).read_bytes() for day in (DAY, NEXT)]


class _Client:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything streams, a few pages a segment."""
    monkeypatch.setattr(lake_stream, "SEGMENT_BYTES", 4_000)
    monkeypatch.setattr(lake_module, "SEGMENT_BYTES", 4_000)
    monkeypatch.setattr(lake_stream, "FOLLOW_FROM_BYTES", 2_000)


BODIES = [
    body([visit(n) for n in range(first, first + 20)], indent=None if first % 40 else 1) for first in range(0, 400, 20)
]
EXTRA = [*BODIES[:-1], body([visit(n, news={"a": n}) for n in range(380, 400)])]


@pytest.mark.parametrize("bodies", [BODIES, EXTRA], ids=["known", "with an undeclared field"])
def test_all_three_ways_give_the_same_rows(
    bodies: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Rig(tmp_path / "plain")
    told = plain.run(bodies)
    monkeypatch.setattr(lake_stream, "SEGMENT_BYTES", 4_000)
    monkeypatch.setattr(lake_module, "SEGMENT_BYTES", 4_000)
    monkeypatch.setattr(lake_stream, "FOLLOW_FROM_BYTES", 2_000)
    streamed = Rig(tmp_path / "streamed")
    outcome = streamed.run(bodies)
    assert outcome.error is None
    beside = {spec.name: streamed.bytes(spec) for spec in TABLES}
    for spec in TABLES:
        assert streamed.rows(spec) == plain.rows(spec)
    schemas = [
        duckdb.sql(f"DESCRIBE FROM '{rig.lake.partition_path(VISITS, 'shop', DAY)}'").fetchall()
        for rig in (plain, streamed)
    ]
    assert schemas[0] == schemas[1]
    for day in (DAY, NEXT):
        for ours, theirs in zip(outcome.decoded[day], told.decoded[day], strict=True):
            facts = [
                (p.rows, p.duplicates, p.rows_with_extra, p.oldest, p.newest, p.extra_fields) for p in (ours, theirs)
            ]
            assert facts[0] == facts[1]
    assert streamed.replay().error is None
    assert {spec.name: streamed.bytes(spec) for spec in TABLES} == beside, "the same pages are the same bytes"


@pytest.mark.parametrize("keys_at_once", [1_000, 50])
@pytest.mark.usefixtures("small_segments")
def test_a_key_that_comes_twice_is_kept_once_the_newest(
    keys_at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed_table, "_KEYS_AT_ONCE", keys_at_once)
    rig = Rig(tmp_path)
    outcome = rig.run([*BODIES, body([visit(7, n=1007)])])
    assert outcome.error is None
    kept = [row for row in rig.rows(VISITS) if row[0] == "v00007"]
    assert [row[3] for row in kept] == [1007]
    assert len(rig.rows(VISITS)) == 400


@pytest.mark.usefixtures("small_segments")
def test_what_cannot_be_read_fails_as_ever_and_changes_nothing(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    outcome = rig.run([*BODIES, body([visit(7, at="canary")])])
    assert isinstance(outcome.error, SchemaMismatch)
    assert "canary" not in str(outcome.error)
    assert not list(rig.lake.root.glob("acme/*/site=shop/*"))
    assert not list((rig.lake.root / ".scratch").glob("decode-*")), "raw records must not stay behind"


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_decoder_that_loses_the_first_record_of_a_batch_is_caught(
    is_streamed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loader of this field lost 5 of 500,000 rows with exit code 0."""
    rig = Rig(tmp_path)
    if is_streamed:
        monkeypatch.setattr(lake_stream, "SEGMENT_BYTES", 4_000)
        monkeypatch.setattr(lake_module, "SEGMENT_BYTES", 4_000)
        monkeypatch.setattr(lake_stream, "FOLLOW_FROM_BYTES", 2_000)
    honest, seen = raw_records, 0

    def lossy(*arguments: Any, **options: Any) -> list[Any]:
        nonlocal seen
        seen += 1
        found = honest(*arguments, **options)
        return found[1:] if seen == 1 or len(found) == 1 else found

    for reader in (staging, streamed_table):
        monkeypatch.setattr(reader, "raw_records", lossy)
    seen = 0
    rig.run(BODIES, tables=(VISITS,))
    seen = 0
    outcome = rig.replay(tables=(VISITS,))
    assert isinstance(outcome.error, LandingCorrupt)
    assert "19 records where 20 were counted" in str(outcome.error)


def listed_bodies(**last: object) -> list[bytes]:
    """Pages large enough to be proved by their scan."""
    padding = "y" * 2_000
    return [
        json.dumps({"visits": [visit(n, tags=[padding]) for n in range(first, first + 20)]}).encode()
        for first in range(0, 80, 20)
    ] + [json.dumps({"visits": [visit(n, tags=[padding], **last) for n in range(80, 100)]}).encode()]


def listed_pages(bodies: Sequence[bytes]) -> Iterator[Page]:
    """As `paginate` yields them: the list of records is known."""
    for page in pages(bodies):
        listed = Document(page.body).listed("visits")
        assert listed is not None
        yield replace(page, split=(page.body, listed))


@pytest.mark.parametrize("last", [{}, {"news": 1}], ids=["known", "with an undeclared field"])
@pytest.mark.usefixtures("small_segments")
def test_what_was_proved_at_landing_is_not_found_out_again(
    last: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, plain = Rig(tmp_path / "listed"), Rig(tmp_path / "plain")
    bodies = listed_bodies(**last)
    assert plain.run(bodies).error is None

    def extract(_: object, __: Extraction) -> Iterator[Page]:
        yield from listed_pages(bodies)

    def never(*_: object) -> None:
        raise AssertionError("records were read for their names, or a body for its list")

    monkeypatch.setattr(staging.Stage, "_look_for_unknown_fields", never)
    monkeypatch.setattr("analytics_platform.core.raw_records._descend", never)
    stream = Stream(vendor="acme", name="visits", tables=TABLES, span="range", extract=extract)
    assert rig.fetcher.run(stream, SITE, [DAY, NEXT], connect=_Client).error is None
    beside = {spec.name: rig.bytes(spec) for spec in TABLES}
    assert rig.replay().error is None
    assert {spec.name: rig.bytes(spec) for spec in TABLES} == beside
    for spec in TABLES:
        assert rig.rows(spec) == plain.rows(spec)


def test_a_rewritten_page_says_nothing_about_its_list(tmp_path: Path) -> None:
    """Its places have moved, and a name in it may have been a person's."""
    rig = Rig(tmp_path)
    (first, *_) = listed_pages(listed_bodies())
    with rig.landing.open_batch(
        vendor="acme", stream="visits", site="shop", first_day=DAY, last_day=DAY, run_id="run"
    ) as writer:
        writer.append(replace(first, is_last=True))
        batch = writer.complete()
    (landed,) = batch.index()
    assert landed.listed is not None
    assert landed.listed.fields == ("at", "id", "n", "tags")
    renewed, _ = rig.landing.rewrite(batch, lambda _, body: Rewritten(body=body[:-1] + b" }", removed=0))
    (rewritten,) = renewed.index()
    assert rewritten.listed is None


def test_files_written_over_by_fewer_records_hold_no_others(tmp_path: Path) -> None:
    with closing(duckdb.connect()) as engine:
        for numbers in (range(40), range(40, 45), range(45, 47)):
            stage = staging.Stage(tmp_path, VISITS)
            stage.add_records(landed_line(), [json.dumps(visit(n)).encode() for n in numbers], [DAY])
            stage.load(engine)
            found = engine.execute("SELECT r.id FROM records").fetchall()
            assert found == [(f"v{n:05}",) for n in numbers]


def landed_line() -> LandedPage:
    (page,) = pages([body([])])
    return LandedPage(
        offset=0,
        length=0,
        sha256=page.sha256,
        size=len(page.body),
        call=page.call,
        call_kind=page.call_kind,
        sequence=0,
        is_last=True,
        status=200,
        endpoint=page.endpoint,
        received_at=page.received_at,
        records=0,
        attempts=1,
        run_id="run",
        context={},
    )


@pytest.mark.usefixtures("small_segments")
def test_a_record_that_cannot_be_read_in_the_middle_of_a_stream_is_told_by_its_field(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.run(BODIES)
    before = rig.bytes(VISITS)
    for at in (3, len(BODIES) - 1):
        changed = [*BODIES[:at], body([visit(9_000, tags={"no": "list"})]), *BODIES[at + 1 :]]
        home = Rig(tmp_path / str(at))
        outcome = home.run(changed, [VISITS])
        assert isinstance(outcome.error, SchemaMismatch)
        assert "field tags" in str(outcome.error)
        assert not home.rows_exist(VISITS)
    assert rig.bytes(VISITS) == before


@pytest.mark.usefixtures("small_segments")
def test_statistics_are_of_columns_whose_order_is_known(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.run(BODIES)
    path = rig.lake.partition_path(VISITS, "shop", DAY)
    found = duckdb.sql(f"SELECT DISTINCT path_in_schema, stats_min IS NULL FROM parquet_metadata('{path}')").fetchall()
    without = {name for name, is_without in found if is_without}
    assert {"began_at", "n", "_day", "_landed_at"}.isdisjoint(without)
    assert {"visit_id", "_run_id"} <= without
