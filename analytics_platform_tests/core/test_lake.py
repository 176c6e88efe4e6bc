"""The decode: typed, newest wins, nothing dropped in silence, a partition old or new and never between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analytics_platform.core import lake as lake_module
from analytics_platform.core.clock import ManualClock
from analytics_platform.core.errors import LandingCorrupt, SchemaMismatch, StorageError
from analytics_platform.core.lake import DecodedPartition, Lake, LakeViews, SiteRow, split_records
from analytics_platform.core.landing import Batch, Landing
from analytics_platform.core.paging import Page
from analytics_platform.core.tables import SYSTEM_COLUMNS, Column, TableSpec

DAY = date(2026, 10, 5)
NEXT = DAY + timedelta(days=1)
NOON = datetime(2026, 10, 8, 12, tzinfo=UTC)


def spec(**changes: Any) -> TableSpec:
    """A table of visits: an id, a day in the record, a number and a text."""
    base: dict[str, Any] = {
        "vendor": "acme",
        "name": "visits",
        "description": "One row per visit.",
        "key": ("id",),
        "columns": (
            Column(name="id", type="BIGINT", description="Id."),
            Column(name="visit_date", type="DATE", description="Day.", expr="CAST(r.at AS DATE)"),
            Column(name="page_count", type="INTEGER", description="Pages.", expr="CAST(r.pages AS INTEGER)"),
            Column(name="title", type="VARCHAR", description="Text."),
        ),
        "wire": {"id": "BIGINT", "at": "VARCHAR", "pages": "VARCHAR", "title": "VARCHAR"},
        "calls": ("search",),
        "day": "CAST(r.at AS DATE)",
        "anchor": "visit_date",
    }
    return TableSpec(**{**base, **changes})


VISITS = spec()


def visit(id_: int, *, on: date = DAY, pages: object = 1, **more: object) -> dict[str, object]:
    return {"id": id_, "at": str(on), "pages": pages, "title": f"t{id_}", **more}


class Bench:
    """A landing and a lake on disk, with the few verbs a decode test needs."""

    def __init__(self, root: Path) -> None:
        self.clock = ManualClock(NOON)
        self.landing = Landing(root / "landing", clock=self.clock)
        self.lake = Lake(root / "lake")

    def land(
        self,
        *bodies: object,
        days: tuple[date, date] = (DAY, DAY),
        kinds: tuple[str, ...] = (),
        contexts: tuple[Mapping[str, str], ...] = (),
    ) -> Batch:
        """One complete batch; each body is a page, bytes as they are, anything else as JSON."""
        self.clock.sleep(60)
        with self.landing.open_batch(
            vendor="acme", stream="s", site="shop", first_day=days[0], last_day=days[1], run_id="run-1", fresh=True
        ) as writer:
            for n, body in enumerate(bodies):
                writer.append(
                    Page(
                        call=f"call/{n}",
                        call_kind=kinds[n] if kinds else "search",
                        sequence=0,
                        is_last=True,
                        body=body if isinstance(body, bytes) else json.dumps(body).encode(),
                        status=200,
                        endpoint="GET /visits",
                        received_at=self.clock.now(),
                        context=contexts[n] if contexts else {"day": str(days[0])},
                        records=1,
                        attempts=1,
                    )
                )
            return writer.complete()

    def decode(self, table: TableSpec, *batches: Batch) -> list[DecodedPartition]:
        return self.lake.decode(table, [(batch, batch.days) for batch in batches], site="shop")

    def rows(self, table: TableSpec, day: date = DAY) -> list[dict[str, Any]]:
        return read(self.lake.partition_path(table, "shop", day))

    def table(self, table: TableSpec, *bodies: object, **options: Any) -> list[dict[str, Any]]:
        """Land, decode, and read the first day back."""
        self.decode(table, self.land(*bodies, **options))
        return self.rows(table)


def read(path: Path) -> list[dict[str, Any]]:
    with duckdb.connect() as engine:
        found = engine.execute("SELECT * FROM read_parquet(?, hive_partitioning = false)", [str(path)])
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def schema(path: Path) -> list[tuple[str, str]]:
    with duckdb.connect() as engine:
        described = engine.execute(
            "DESCRIBE SELECT * FROM read_parquet(?, hive_partitioning = false)", [str(path)]
        ).fetchall()
    return [(row[0], row[1]) for row in described]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def ids(rows: list[dict[str, Any]]) -> list[int]:
    return [row["id"] for row in rows]


# ------------------------------------------------------------------------------------------------------- typed columns


def test_a_row_is_typed_and_stamped(bench: Bench) -> None:
    (row,) = bench.table(VISITS, [visit(1, pages="7")])
    assert row == {
        "id": 1,
        "visit_date": DAY,
        "page_count": 7,
        "title": "t1",
        "_site": "shop",
        "_day": DAY,
        "_landed_at": datetime(2026, 10, 8, 12, 1),  # noqa: DTZ001  (lake instants are naive and in UTC)
        "_run_id": "run-1",
        "_extra": None,
    }


def test_an_empty_day_is_a_zero_row_partition_with_the_whole_schema(bench: Bench) -> None:
    full, empty = bench.decode(VISITS, bench.land([visit(1)], days=(DAY, NEXT)))
    assert (full.rows, empty.rows) == (1, 0)
    assert schema(empty.path) == schema(full.path) == [(c.name, c.type) for c in VISITS.all_columns]
    assert [c.name for c in VISITS.all_columns[-5:]] == [c.name for c in SYSTEM_COLUMNS]


def test_a_batch_without_any_page_writes_its_empty_days(bench: Bench) -> None:
    (partition,) = bench.decode(VISITS, bench.land())
    assert (partition.rows, schema(partition.path)) == (0, [(c.name, c.type) for c in VISITS.all_columns])


def test_the_order_of_fields_on_the_wire_has_no_effect(bench: Bench) -> None:
    fields = list(visit(1, pages=3).items())
    (straight,) = bench.table(VISITS, [dict(fields)])
    (turned,) = bench.table(VISITS, [dict(reversed(fields))])
    assert {k: v for k, v in straight.items() if k[0] != "_"} == {k: v for k, v in turned.items() if k[0] != "_"}


@pytest.mark.parametrize("exact", [2**53 + 1, 2**63 - 1, -(2**63)])
def test_large_integers_stay_exact(bench: Bench, exact: int) -> None:
    assert ids(bench.table(VISITS, [visit(exact)])) == [exact]


@pytest.mark.parametrize("beyond", [2**63, 2**64 + 1, 10**40])
def test_integers_beyond_the_type_are_refused_and_exact_as_text(bench: Bench, beyond: int) -> None:
    with pytest.raises(SchemaMismatch):
        bench.table(VISITS, [visit(beyond)])
    text = spec(name="texts", columns=(Column(name="id", type="VARCHAR", description="Id."),), anchor=None)
    as_text = spec(**{**text.__dict__, "wire": {**VISITS.wire, "id": "VARCHAR"}})
    assert [row["id"] for row in bench.table(as_text, [visit(beyond)])] == [str(beyond)]


def test_absent_and_null_fields_are_null(bench: Bench) -> None:
    rows = bench.table(VISITS, [{"id": 1, "at": str(DAY)}, {**visit(2), "title": None, "pages": None}])
    assert [(row["page_count"], row["title"]) for row in rows] == [(None, None), (None, None)]


def test_sql_markup_and_control_characters_in_values_are_inert(bench: Bench) -> None:
    hostile = ["'); DROP TABLE pages; --", '"x" ; ATTACH', "{{ env_var('X') }}", "a\nb\r\n\u2028c", "</td>|`", "=1+1"]
    rows = bench.table(VISITS, [visit(n, title=text) for n, text in enumerate(hostile)])
    assert [row["title"] for row in rows] == hostile


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1, max_size=6)
)
def test_any_text_comes_back_as_sent(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    bench = Bench(tmp_path_factory.mktemp("texts"))
    body = json.dumps([visit(n, title=text) for n, text in enumerate(texts)], ensure_ascii=False, indent=1).encode()
    assert [row["title"] for row in bench.table(VISITS, body)] == texts


# --------------------------------------------------------------------------------------------------- undeclared fields


def test_a_field_first_seen_in_a_late_row_is_kept(bench: Bench) -> None:
    """M20: auto-detection drops a column first seen after its sample (20,480 rows), without a word."""
    late = 30_001
    body = [visit(n) for n in range(late)] + [visit(late, score={"deep": [1, None]}, also=None)]
    (partition,) = bench.decode(VISITS, bench.land(body))
    rows = bench.rows(VISITS)
    assert json.loads(rows[-1]["_extra"]) == {"score": {"deep": [1, None]}, "also": None}
    assert {row["_extra"] for row in rows[:-1]} == {None}
    assert (partition.rows, partition.rows_with_extra) == (late + 1, 1)
    assert partition.extra_fields == ("also", "score")


def test_undeclared_integers_keep_every_digit(bench: Bench) -> None:
    (row,) = bench.table(VISITS, b'[{"id":1,"at":"2026-10-05","big":18446744073709551617}]')
    assert row["_extra"] == '{"big":18446744073709551617}'


def test_case_twins_do_not_change_places(bench: Bench) -> None:
    """F5: the declared spelling is read, whichever comes first; the other is not lost in silence."""
    for body in (
        b'[{"id":1,"at":"2026-10-05","title":"low","Title":"high"}]',
        b'[{"id":1,"at":"2026-10-05","Title":"high","title":"low"}]',
    ):
        (row,) = bench.table(VISITS, body)
        assert (row["title"], json.loads(row["_extra"])) == ("low", {"Title": "high"})


# ----------------------------------------------------------------------------------------- where records are in a page


@pytest.mark.parametrize(
    ("body", "paths", "union", "expected"),
    [
        (b'[{"a":1},{"a":2}]', ("",), False, [b'{"a":1}', b'{"a":2}']),
        (b"null", ("",), False, []),
        (b"[]", ("",), False, []),
        (b'{"a":1}', ("",), False, [b'{"a":1}']),
        (b'{"x":{"y":[1,2]}}', ("x.y",), False, [b"1", b"2"]),
        (b'{"x":{"y":null}}', ("x.y",), False, []),
        (b'{"x":null}', ("x.y",), False, []),
        (b'{"x":7}', ("x.y",), False, []),
        (b"{}", ("x",), False, []),
        (b'{"x":{"a":1}}', ("x",), False, [b'{"a":1}']),
        (b'{"b":[1],"a":[2]}', ("a", "b"), False, [b"2"]),
        (b'{"b":[1],"a":null}', ("a", "b"), False, []),
        (b'{"b":[1]}', ("a", "b"), False, [b"1"]),
        (b'{"b":[1],"a":[2]}', ("a", "b"), True, [b"2", b"1"]),
        (b'{"k\\"1":{"v":1},"k":null}', ("{}",), False, [b'{"key":"k\\"1","value":{"v":1}}', b'{"key":"k","value":null}']),  # noqa: E501
        (b'{"x":{"k":1}}', ("x{}",), False, [b'{"key":"k","value":1}']),
        (b'{"x":{"k":1}}', ("x.{}",), False, [b'{"key":"k","value":1}']),
        (b'{"x":null}', ("x{}",), False, []),
        (b'{\n "a":\r\n [ {"t":"x\\ny"} ]\n}', ("a",), False, [b'{"t":"x\\ny"}']),
    ],
)  # fmt: skip
def test_split_records(body: bytes, paths: tuple[str, ...], union: bool, expected: list[bytes]) -> None:
    assert split_records(body, paths, union=union) == expected


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.dictionaries(st.text(), x) | st.lists(x)
        )
    ),
    st.sampled_from([None, 1, "\t"]),
)
def test_split_records_loses_and_invents_nothing(records: list[object], indent: int | str | None) -> None:
    body = json.dumps({"deep": {"er": records}}, indent=indent).encode()
    found = split_records(body, ("deep.er",))
    assert [json.loads(raw) for raw in found] == records
    assert not any(b"\n" in raw or b"\r" in raw for raw in found)


def test_entries_of_an_object_become_rows(bench: Bench) -> None:
    table = spec(
        name="counts",
        key=("name",),
        columns=(
            Column(name="name", type="VARCHAR", description="Name.", expr="r.key"),
            Column(name="n", type="BIGINT", description="Count.", expr="r.value"),
        ),
        wire={"key": "VARCHAR", "value": "BIGINT"},
        records=("counts{}",),
        day="CAST(c.day AS DATE)",
        anchor=None,
    )
    rows = bench.table(table, {"counts": {"b": 2, "a": 1}})
    assert [(row["name"], row["n"]) for row in rows] == [("a", 1), ("b", 2)]


def test_union_reads_every_path_and_first_path_only_one(bench: Bench) -> None:
    body = {"now": [visit(1)], "before": [visit(2)]}
    assert ids(bench.table(spec(records=("now", "before")), body)) == [1]
    assert ids(bench.table(spec(records=("now", "before"), union_records=True), body)) == [1, 2]


def test_only_the_declared_kinds_of_call_are_read(bench: Bench) -> None:
    assert ids(bench.table(VISITS, [visit(1)], [visit(2)], kinds=("search", "other"))) == [1]


EXPLODED = spec(
    name="hits",
    key=("id", "hit_index"),
    columns=(
        Column(name="id", type="BIGINT", description="Id."),
        Column(name="hit_index", type="BIGINT", description="Position from 1.", expr="i"),
        Column(name="url", type="VARCHAR", description="URL.", expr="e.url"),
    ),
    wire={**VISITS.wire, "hits": 'STRUCT("url" VARCHAR)[]'},
    explode="hits",
    anchor=None,
)


def test_explode_by_field_makes_a_row_an_element(bench: Bench) -> None:
    body = [visit(1, hits=[{"url": "/b"}, {"url": "/a"}]), visit(2, hits=[]), visit(3, hits=None), visit(4)]
    rows = bench.table(EXPLODED, body)
    assert [(row["id"], row["hit_index"], row["url"]) for row in rows] == [(1, 1, "/b"), (1, 2, "/a")]


def test_explode_by_expression_over_record_and_context(bench: Bench) -> None:
    table = spec(
        name="parts",
        key=("id", "part_index"),
        columns=(
            Column(name="id", type="BIGINT", description="Id."),
            Column(name="part_index", type="BIGINT", description="Position.", expr="i"),
            Column(name="part", type="VARCHAR", description="Part.", expr="e"),
        ),
        explode="str_split(r.title, c.separator)",
        context=("day", "separator"),
        anchor=None,
    )
    rows = bench.table(table, [visit(1, title="x/y")], contexts=({"day": str(DAY), "separator": "/"},))
    assert [(row["part_index"], row["part"]) for row in rows] == [(1, "x"), (2, "y")]


def test_an_absent_context_value_is_null_and_where_filters(bench: Bench) -> None:
    table = spec(name="some", context=("day", "absent"), where="c.absent IS NULL AND r.id > 1")
    assert ids(bench.table(table, [visit(1), visit(2)])) == [2]


# ------------------------------------------------------------------------------------------------------- one row a key


def test_merge_calls_takes_each_columns_newest_value(bench: Bench) -> None:
    table = spec(name="merged", merge_calls=True, calls=("search", "detail"))
    rows = bench.table(
        table,
        [{**visit(1, pages=5), "title": "from the search"}, visit(2)],
        [{"id": 1, "at": str(DAY), "pages": None, "title": "from the detail"}],
        kinds=("search", "detail"),
    )
    assert [(row["id"], row["page_count"], row["title"]) for row in rows] == [
        (1, 5, "from the detail"),
        (2, 1, "t2"),
    ]


def test_the_newest_landed_record_of_a_key_wins(bench: Bench) -> None:
    (partition,) = bench.decode(VISITS, bench.land([visit(1, pages=1)], [visit(1, pages=2), visit(2)]))
    assert [(row["id"], row["page_count"]) for row in bench.rows(VISITS)] == [(1, 2), (2, 1)]
    assert partition.duplicates == 1


def test_rows_of_a_margin_day_are_dropped(bench: Bench) -> None:
    body = [visit(1, on=DAY - timedelta(days=1)), visit(2), visit(3, on=NEXT)]
    assert ids(bench.table(VISITS, body)) == [2]
    assert not bench.lake.has(VISITS, "shop", NEXT)


def test_a_restated_day_comes_from_the_newer_batch_alone(bench: Bench) -> None:
    older = bench.land([visit(1), visit(2), visit(3, on=NEXT)], days=(DAY, NEXT))
    newer = bench.land([visit(2, pages=9)])
    bench.lake.decode(VISITS, [(older, [NEXT]), (newer, [DAY])], site="shop")
    assert [(row["id"], row["page_count"]) for row in bench.rows(VISITS)] == [(2, 9)]
    assert ids(bench.rows(VISITS, NEXT)) == [3]


def test_a_partition_says_how_many_rows_and_how_fresh(bench: Bench) -> None:
    first, second = bench.decode(VISITS, bench.land([visit(1), visit(2), visit(3, on=NEXT)], days=(DAY, NEXT)))
    assert [(p.rows, p.oldest, p.newest, p.site) for p in (first, second)] == [
        (2, DAY, DAY, "shop"),
        (1, NEXT, NEXT, "shop"),
    ]
    assert first.size == first.path.stat().st_size
    assert bench.lake.row_counts(VISITS, "shop", [DAY, NEXT, NEXT + timedelta(days=1)]) == {DAY: 2, NEXT: 1}
    assert bench.lake.days(VISITS, "shop") == [DAY, NEXT]


# -------------------------------------------------------------------------------------------------------- same bytes


def test_same_rows_same_bytes(bench: Bench) -> None:
    batch = bench.land([visit(n, pages=n) for n in range(500)], days=(DAY, NEXT))
    written = []
    for _ in range(2):
        written.append([partition.path.read_bytes() for partition in bench.decode(VISITS, batch)])
    assert written[0] == written[1]


def test_a_day_alone_has_the_same_bytes_as_in_a_range(bench: Bench) -> None:
    batch = bench.land([visit(n, on=(DAY, NEXT)[n % 2]) for n in range(50)], days=(DAY, NEXT))
    together = [partition.path.read_bytes() for partition in bench.decode(VISITS, batch)]
    alone = [bench.lake.decode(VISITS, [(batch, [day])], site="shop")[0].path.read_bytes() for day in (DAY, NEXT)]
    assert together == alone


def test_two_records_of_one_key_in_one_page_are_decided_by_their_content(bench: Bench) -> None:
    """Parallel reading has no order; what is written must not depend on which thread was first."""
    body = [visit(n % 1_000, pages=n) for n in range(60_000)]
    straight = bench.table(VISITS, body)
    turned = bench.table(VISITS, body[::-1])
    assert [row["page_count"] for row in straight] == [row["page_count"] for row in turned]


def test_the_hosts_time_zone_has_no_effect(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    table = spec(
        name="instants",
        columns=(
            Column(name="id", type="BIGINT", description="Id."),
            Column(
                name="at", type="TIMESTAMP", description="UTC.", expr="CAST(CAST(r.at AS TIMESTAMPTZ) AS TIMESTAMP)"
            ),
        ),
        day="CAST(c.day AS DATE)",
        anchor="at",
    )
    batch = bench.land([{"id": 1, "at": "2026-10-05T23:30:00+02:00"}])
    (here,) = bench.decode(table, batch)
    before = here.path.read_bytes()
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    (there,) = bench.decode(table, batch)
    assert there.path.read_bytes() == before
    assert bench.rows(table)[0]["at"].isoformat() == "2026-10-05T21:30:00"


# -------------------------------------------------------------------------------------------------- schema mismatches

PERSON = "o'brien\"@x.example\n\nLINE 1: jane"


@pytest.mark.parametrize(
    ("changes", "record", "named"),
    [
        ({}, visit(1, pages=PERSON), "column page_count (INTEGER)"),
        ({}, visit(1, pages="31337 "), None),
        ({}, visit(1, pages=3133731337), "column page_count (INTEGER)"),
        ({}, {**visit(1), "id": PERSON}, "field id (BIGINT)"),
        ({}, {**visit(1), "id": [31337, 1]}, "field id (BIGINT)"),
        ({}, {**visit(1), "id": {"z": "o'brien"}}, "field id (BIGINT)"),
        ({}, {**visit(1), "at": PERSON}, "partition day (DATE)"),
        ({"columns": (Column(name="id", type="TINYINT", description="."),), "anchor": None}, visit(31337), "id (TINYINT)"),  # noqa: E501
        (
            {
                "columns": (
                    Column(name="id", type="TIMESTAMP", description="Id.", expr="make_timestamp(r.id * 1000000)"),
                ),
                "anchor": None,
            },
            visit(3133731337313373133),
            "column id (TIMESTAMP)",
        ),
        ({"wire": {**VISITS.wire, "title": "STRUCT(a VARCHAR)[]"}}, visit(1, title="o'brien"), "field title"),
    ],
)  # fmt: skip
def test_a_record_that_does_not_fit_stops_the_decode_and_names_the_field_not_the_value(
    bench: Bench, changes: dict[str, Any], record: dict[str, object], named: str | None
) -> None:
    table = spec(**changes)
    if named is None:
        bench.table(table, [record])
        return
    with pytest.raises(SchemaMismatch) as caught:
        bench.table(table, [visit(2, title=None), record] if "wire" in changes else [visit(2), record])
    text = str(caught.value)
    assert named in text
    assert "acme/visits" in text
    assert "replay-landing" in text
    for leak in ("brien", "jane", "31337", ".ndjson", "LINE"):
        assert leak not in text
    assert caught.value.__cause__ is None


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(prefix=st.text("'\"\\\n,:[]{}() ax", max_size=8), suffix=st.text("'\"\\\n,:[]{}() ax", max_size=8))
def test_no_spelling_of_a_value_gets_into_the_message(
    tmp_path_factory: pytest.TempPathFactory, prefix: str, suffix: str
) -> None:
    bench = Bench(tmp_path_factory.mktemp("mismatch"))
    with pytest.raises(SchemaMismatch) as caught:
        bench.table(VISITS, [visit(1, pages=f"{prefix}CANARY{suffix}")])
    assert "CANARY" not in str(caught.value)


def test_a_specs_own_refusal_is_shown_in_its_own_words(bench: Bench) -> None:
    checked = "CASE WHEN r.id > 5 THEN r.id ELSE error('too small') END"
    table = spec(
        columns=(
            Column(name="id", type="BIGINT", description="Id.", expr=checked),
        ),
        anchor=None,
    )  # fmt: skip
    with pytest.raises(SchemaMismatch, match="too small"):
        bench.table(table, [visit(1)])


@pytest.mark.parametrize("body", [b'{"x": [1]}', b'{"x": "text"}'])
def test_entries_of_something_else_than_an_object_are_a_mismatch(bench: Bench, body: bytes) -> None:
    with pytest.raises(SchemaMismatch, match="no list of records"):
        bench.table(spec(records=("x{}",)), body)


def test_a_mismatch_leaves_every_partition_as_it_was(bench: Bench) -> None:
    bench.table(VISITS, [visit(1), visit(2, on=NEXT)], days=(DAY, NEXT))
    before = [bench.lake.partition_path(VISITS, "shop", day).read_bytes() for day in (DAY, NEXT)]
    with pytest.raises(SchemaMismatch):
        bench.table(VISITS, [visit(1, pages=2), visit(2, on=NEXT, pages="no")], days=(DAY, NEXT))
    assert [bench.lake.partition_path(VISITS, "shop", day).read_bytes() for day in (DAY, NEXT)] == before
    assert list((bench.lake.root / ".scratch").glob("decode-*")) == []


def test_a_corrupt_page_leaves_the_partition_as_it_was(bench: Bench) -> None:
    bench.table(VISITS, [visit(1)])
    batch = bench.land([visit(2)])
    pages = batch.path / "pages.bin"
    pages.write_bytes(pages.read_bytes()[:-1] + b"\0")
    with pytest.raises(LandingCorrupt):
        bench.decode(VISITS, batch)
    assert ids(bench.rows(VISITS)) == [1]


# -------------------------------------------------------------------------------------------------- atomic replacement

DECODE = """
    import sys
    from datetime import date
    from pathlib import Path
    from analytics_platform.core.lake import Lake
    from analytics_platform.core.landing import Landing
    from analytics_platform_tests.core.test_lake import VISITS
    root = Path(sys.argv[1])
    batch = Landing(root / "landing").newest_complete("acme", "s", "shop", [date(2026, 10, 5)])[date(2026, 10, 5)]
    Lake(root / "lake").decode(VISITS, [(batch, batch.days)], site="shop")
"""


@pytest.mark.parametrize(
    ("failpoint", "expected"),
    [
        ("lake.decoded:1", ([1], [2])),
        ("lake.before_rename:1", ([1], [2])),
        ("lake.after_rename:1", ([3], [2])),
        ("lake.before_rename:2", ([3], [2])),
        ("lake.after_rename:2", ([3], [4])),
    ],
)
def test_kill_9_leaves_each_partition_old_or_new_and_the_next_decode_sweeps(
    bench: Bench, tmp_path: Path, failpoint: str, expected: tuple[list[int], list[int]]
) -> None:
    bench.table(VISITS, [visit(1), visit(2, on=NEXT)], days=(DAY, NEXT))
    batch = bench.land([visit(3), visit(4, on=NEXT)], days=(DAY, NEXT))
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(DECODE), str(tmp_path)],
        env={**os.environ, "ANALYTICS_PLATFORM_FAILPOINT": failpoint},
        cwd=Path(__file__).parents[2],
    )
    assert killed.returncode == -signal.SIGKILL
    assert (ids(bench.rows(VISITS)), ids(bench.rows(VISITS, NEXT))) == expected
    scratch = bench.lake.root / ".scratch"
    assert len(list(scratch.glob("decode-*"))) == 1
    bench.decode(VISITS, batch)
    assert (ids(bench.rows(VISITS)), ids(bench.rows(VISITS, NEXT))) == ([3], [4])
    assert list(scratch.glob("decode-*")) == []
    assert [path.name for path in (bench.lake.root / "acme").rglob("*") if path.is_file()] == ["part.parquet"] * 2


def test_a_decode_that_runs_is_not_swept(bench: Bench) -> None:
    with bench.lake._scratch() as mine:
        bench.table(VISITS, [visit(1)])
        assert mine.is_dir()
    assert not mine.exists()


def test_rename_comes_after_fsync_and_before_fsync_of_the_directory(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = bench.land([visit(1)])
    bench.decode(VISITS, batch)
    calls: list[str] = []
    fsync, rename = os.fsync, os.replace

    def traced_fsync(descriptor: int) -> None:
        calls.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def traced_replace(source: Path, target: Path) -> None:
        calls.append(f"rename {Path(source).name} {Path(target).name}")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", traced_fsync)
    monkeypatch.setattr(os, "replace", traced_replace)
    bench.decode(VISITS, batch)
    assert calls == ["fsync 2026-10-05.parquet", "rename 2026-10-05.parquet part.parquet", "fsync day=2026-10-05"]


def test_a_disk_the_engine_cannot_write_is_a_storage_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise duckdb.IOException('Could not write file "/somewhere/x.parquet": No space left on device')

    bench.table(VISITS, [visit(1)])
    monkeypatch.setattr(lake_module, "_copy", refuse)
    with pytest.raises(StorageError, match="ANALYTICS_PLATFORM_HOME"):
        bench.table(VISITS, [visit(2)])
    assert ids(bench.rows(VISITS)) == [1]


# -------------------------------------------------------------------------------------- anchors, views, blocked, sites


def test_an_anchor_gives_readers_a_schema_before_any_partition(bench: Bench) -> None:
    views = LakeViews(bench.lake, [VISITS])
    assert views.query("SELECT count(*) FROM acme.visits") == [(0,)]
    anchor = bench.lake.root / "acme" / "visits" / "site=_anchor" / "day=1970-01-01" / "part.parquet"
    assert schema(anchor) == [(c.name, c.type) for c in VISITS.all_columns]
    assert len(bench.lake.frame(VISITS, "shop", [DAY])) == 0


def test_an_anchor_follows_the_table_and_is_left_alone_otherwise(bench: Bench) -> None:
    bench.lake.ensure_anchor(VISITS)
    path = bench.lake.partition_path(VISITS, "_anchor", date(1970, 1, 1))
    before = path.stat().st_ino
    bench.lake.ensure_anchor(VISITS)
    assert path.stat().st_ino == before
    wider = spec(columns=(*VISITS.columns, Column(name="score", type="DOUBLE", description="New.", expr="NULL")))
    Lake(bench.lake.root).ensure_anchor(wider)  # a table changes with the code, so in another process
    assert ("score", "DOUBLE") in schema(path)


def test_views_read_partitions_of_an_older_schema_and_bind_values(bench: Bench) -> None:
    bench.table(VISITS, [visit(1, title="o'brien"), visit(2)])
    wider = spec(columns=(*VISITS.columns, Column(name="score", type="DOUBLE", description="New.", expr="NULL")))
    views = LakeViews(bench.lake, [wider])
    assert views.query("SELECT id, score FROM acme.visits WHERE title = ?", ["o'brien"]) == [(1, None)]


class ReplacedFile:
    """A partition whose bytes, for the first so many looks, are not those its footer tells of: what a reader meets
    whose file is replaced while it reads.
    """

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, *, times: int, through: str = "connect") -> None:
        whole = path.read_bytes()
        self.looks = 0
        self.times = times
        original = getattr(lake_module, through)

        def look(**settings: Any) -> Any:
            self.looks += 1
            path.write_bytes(b"PAR1" + bytes(200) + whole[204:] if self.looks <= self.times else whole)
            return original(**settings)

        monkeypatch.setattr(lake_module, through, look)


def test_a_file_replaced_while_a_stream_reads_it_is_read_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.table(VISITS, [visit(1), visit(2)])
    views = LakeViews(bench.lake, [VISITS])
    path = bench.lake.partition_path(VISITS, "shop", DAY)
    replaced = ReplacedFile(path, monkeypatch, times=2)
    assert views.query("SELECT count(id) FROM acme.visits") == [(2,)]
    assert replaced.looks == 3
    replaced.times = 99
    with pytest.raises(duckdb.Error):
        views.query("SELECT count(id) FROM acme.visits")
    assert replaced.looks == 8


@pytest.mark.parametrize(
    "read",
    [
        lambda lake: lake.measures(spec(measures={"ids": "sum(id)"}), "shop", [DAY]),
        lambda lake: lake.frame(VISITS, "shop", [DAY])["id"].tolist(),
        lambda lake: lake.heads(VISITS, "shop", [DAY], ["id"], limit=9),
    ],
    ids=["measures", "frame", "heads"],
)
def test_a_partition_replaced_while_it_is_read_is_read_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, read: Callable[[Lake], object]
) -> None:
    """Found where two writers, a build and a reader worked at once: the build's own measures failed it."""
    bench.table(VISITS, [visit(1), visit(2)])
    expected = read(bench.lake)
    replaced = ReplacedFile(bench.lake.partition_path(VISITS, "shop", DAY), monkeypatch, times=2, through="_reading")
    assert read(bench.lake) == expected
    assert replaced.looks >= 3


def test_a_fault_of_the_query_is_told_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.table(VISITS, [visit(1)])
    replaced = ReplacedFile(bench.lake.partition_path(VISITS, "shop", DAY), monkeypatch, times=0)
    with pytest.raises(duckdb.BinderException):
        LakeViews(bench.lake, [VISITS]).query("SELECT nothing FROM acme.visits")
    assert replaced.looks == 1


BLOCK = """
    import sys
    from datetime import date, timedelta
    from pathlib import Path
    from analytics_platform.core.lake import Lake
    from analytics_platform_tests.core.test_lake import VISITS
    for n in range(8):
        day = date(2026, 10, 1) + timedelta(days=n)
        Lake(Path(sys.argv[1])).block(VISITS, sys.argv[2], failing=[day], passing_days=[])
"""


def test_concurrent_verdicts_are_all_kept(bench: Bench) -> None:
    command = [sys.executable, "-c", textwrap.dedent(BLOCK), str(bench.lake.root)]
    writers = [subprocess.Popen([*command, f"site{n}"], cwd=Path(__file__).parents[2]) for n in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert len(bench.lake.blocked()) == 3 * 8


def test_a_later_verdict_clears_a_day_and_touches_no_other(bench: Bench) -> None:
    assert bench.lake.blocked() == []
    bench.lake.block(VISITS, "shop", failing=[DAY, NEXT], passing_days=[])
    bench.lake.block(VISITS, "blog", failing=[DAY], passing_days=[])
    bench.lake.block(VISITS, "shop", failing=[], passing_days=[DAY])
    assert bench.lake.blocked() == [("acme", "visits", "blog", DAY), ("acme", "visits", "shop", NEXT)]


def test_an_unchanged_verdict_writes_nothing(bench: Bench) -> None:
    bench.lake.block(VISITS, "shop", failing=[DAY], passing_days=[])
    path = bench.lake.root / "_blocked" / "partitions.parquet"
    before = path.stat().st_ino
    bench.lake.block(VISITS, "shop", failing=[DAY], passing_days=[NEXT])
    assert path.stat().st_ino == before


def test_prepare_without_sites_leaves_the_list_alone(bench: Bench) -> None:
    """A vendor's step must not empty the list a build is reading."""
    row = SiteRow("shop", "Europe/Berlin", None, DAY, "acme", "17", True)
    bench.lake.prepare([VISITS], [row])
    bench.lake.prepare([VISITS], None)
    assert [tuple(found.values()) for found in read(bench.lake.root / "_config" / "sites.parquet")] == [tuple(row)]
    assert bench.lake.blocked() == []
    assert (bench.lake.root / "_blocked" / "partitions.parquet").is_file()


def test_the_engine_fetches_nothing(bench: Bench) -> None:
    with lake_module.connect() as engine:
        options = dict(
            engine.execute(
                "SELECT name, value FROM duckdb_settings() WHERE name LIKE 'auto%_known_extensions'"
            ).fetchall()
        )
    assert options == {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}


def test_nothing_in_the_package_lets_the_engine_guess_a_schema() -> None:
    """M20: every read of JSON names its columns."""
    package = Path(lake_module.__file__).parents[1]
    guessing = [
        path.name
        for path in package.rglob("*.py")
        if "read_json_auto" in path.read_text(encoding="utf-8") or "auto_detect" in path.read_text(encoding="utf-8")
    ]
    assert guessing == []


def test_a_scratch_folder_that_another_process_sweeps_at_the_same_time_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by thirty virtual days of four processes: between the listing and the opening it was gone."""
    gone, left = tmp_path / "decode-gone", tmp_path / "decode-left"
    for folder in (gone, left):
        folder.mkdir()
    opened = os.open

    def sweep_first(path: Any, *rest: Any, **named: Any) -> int:
        if path == gone:
            gone.rmdir()
        return opened(path, *rest, **named)

    monkeypatch.setattr("analytics_platform.core.lake.os.open", sweep_first)
    lake_module._sweep(tmp_path)
    assert not left.exists()
