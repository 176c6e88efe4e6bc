"""Tombstones and stripping: who was forgotten is recognised and kept out, and nobody else is touched."""

from __future__ import annotations

import json
import threading
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_platform.core.errors import StorageError
from analytics_platform.core.lake import Lake, split_records
from analytics_platform.core.landing import LandedPage, Landing, Rewritten
from analytics_platform.core.paging import Page
from analytics_platform.core.stripping import Stripper, strip_before_landing, without_records
from analytics_platform.core.tables import Column, KindOf, TableSpec
from analytics_platform.core.tombstones import ClearKeys, Key, Tombstones
from analytics_platform.erasure.search import Needles

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
DAY = date(2026, 10, 5)
EMAIL, VISITOR = "ada.canary@example.org", "visitor-77aa"

GREEK = "ΝΊΚΟΣ.Ärger@example.gr"

VISITS = TableSpec(
    vendor="acme",
    name="visits",
    description="One row per visit.",
    key=("visit_id",),
    columns=(
        Column(name="visit_id", type="BIGINT", description="Visit.", expr="CAST(r.id AS BIGINT)"),
        Column(name="visitor", type="VARCHAR", description="Visitor.", expr="r.who", identifies="acme_visitor"),
        Column(name="email", type="VARCHAR", description="E-mail.", expr="r.mail", identifies="email"),
        Column(name="duration", type="BIGINT", description="Seconds.", expr="CAST(r.duration AS BIGINT)"),
    ),
    wire={"id": "VARCHAR", "who": "VARCHAR", "mail": "VARCHAR", "ip": "VARCHAR", "duration": "VARCHAR", "tags": "JSON"},
    calls=("visits",),
    records=("visits",),
    identifies={"ip": "r.ip"},
)
TAGS = TableSpec(
    vendor="acme",
    name="tags",
    description="One row per tag of a visit.",
    key=("visit_id", "position"),
    columns=(
        Column(name="visit_id", type="BIGINT", description="Visit.", expr="CAST(r.id AS BIGINT)"),
        Column(name="position", type="BIGINT", description="Position.", expr="i"),
        Column(name="tag", type="VARCHAR", description="Tag.", expr="e.t"),
        Column(
            name="value",
            type="VARCHAR",
            description="Value.",
            expr="e.v",
            identifies=KindOf(column="tag", kinds={"mail": "email"}),
        ),
    ),
    wire={"id": "VARCHAR", "tags": "STRUCT(t VARCHAR, v VARCHAR)[]"},
    calls=("visits",),
    records=("visits",),
    explode="tags",
)
TABLES = (VISITS, TAGS)


def visit(number: int, **more: Any) -> dict[str, Any]:
    return {"id": number, "who": f"visitor-{number}", "duration": number, "ip": "192.0.2.9", **more}


def page(*visits: dict[str, Any], call: str = "visits/2026-10-05", context: dict[str, str] | None = None) -> Page:
    return Page(
        call=call,
        call_kind="visits",
        sequence=0,
        is_last=True,
        body=json.dumps({"ok": True, "visits": list(visits), "next": None}).encode(),
        status=200,
        endpoint="GET /visits",
        received_at=NOW,
        context={"day": str(DAY), **(context or {})},
        records=len(visits),
        attempts=1,
    )


@pytest.fixture
def tombstones(tmp_path: Path) -> Tombstones:
    return Tombstones(tmp_path / "tombstones")


def ids(body: bytes) -> list[int]:
    return [entry["id"] for entry in json.loads(body)["visits"]]


# ------------------------------------------------------------------------------------------------------------ the file


def test_where_nobody_was_forgotten_nothing_is_read_or_made(tombstones: Tombstones, tmp_path: Path) -> None:
    original = page(visit(1))
    kept, stripped = strip_before_landing(original, TABLES, tombstones, "shop")
    assert kept is original
    assert stripped == 0
    assert list(tmp_path.iterdir()) == []


def test_only_hashes_under_a_private_key_are_kept(tombstones: Tombstones, tmp_path: Path) -> None:
    keys = [Key("email", EMAIL, None), Key("acme_visitor", VISITOR, "shop"), Key("ip", "192.0.2.7", None)]
    assert tombstones.add(keys, request="r1", now=NOW) == 2, "an address belongs to others too"
    assert tombstones.add(keys, request="r2", now=NOW) == 0
    content = b"".join(path.read_bytes() for path in (tmp_path / "tombstones").iterdir())
    assert not [text for text in (EMAIL, VISITOR, "192.0.2.7") if text.encode() in content]
    assert (tmp_path / "tombstones" / "key").stat().st_mode & 0o077 == 0
    assert EMAIL not in repr(keys)
    other = Tombstones(tmp_path / "elsewhere")
    other.add(keys, request="r1", now=NOW)
    assert other.digest_of(EMAIL) != tombstones.digest_of(EMAIL)


def test_a_key_counts_at_its_own_site(tombstones: Tombstones) -> None:
    tombstones.add([Key("acme_visitor", VISITOR, "shop"), Key("email", EMAIL, None)], request="r", now=NOW)
    everywhere = ("acme_visitor", "email")
    shop, blog = tombstones.at("shop", everywhere), tombstones.at("blog", everywhere)
    assert shop is not None
    assert blog is not None
    assert shop.is_wanted("acme_visitor", VISITOR)
    assert not blog.is_wanted("acme_visitor", VISITOR)
    assert blog.is_wanted("email", EMAIL.upper())
    assert not shop.is_wanted("email", VISITOR)
    assert tombstones.at("shop", ("another_kind",)) is None


def test_without_the_key_nothing_is_loaded(tombstones: Tombstones, tmp_path: Path) -> None:
    tombstones.add([Key("email", EMAIL, None)], request="r", now=NOW)
    (tmp_path / "tombstones" / "key").unlink()
    with pytest.raises(StorageError, match="key of the tombstones is gone"):
        strip_before_landing(page(visit(1)), TABLES, Tombstones(tmp_path / "tombstones"), "shop")
    (tmp_path / "tombstones" / "tombstones.json").write_bytes(b"[{")
    with pytest.raises(StorageError, match="cannot be read"):
        len(Tombstones(tmp_path / "tombstones"))


# ----------------------------------------------------------------------------------------------------------- the pages


def test_the_persons_records_go_and_the_others_keep_their_bytes(tombstones: Tombstones) -> None:
    tombstones.add([Key("email", EMAIL, None)], request="r", now=NOW)
    mine = [visit(2, mail=EMAIL.title()), visit(4, tags=[{"t": "mail", "v": EMAIL}])]
    spared = visit(5, tags=[{"t": "agent", "v": EMAIL}])
    body = page(visit(1), mine[0], visit(3), mine[1], spared)
    kept, stripped = strip_before_landing(body, TABLES, tombstones, "shop")
    assert kept is not None
    assert ids(kept.body) == [1, 3, 5], "a tag of another name says nothing about whose visit it is"
    assert (stripped, kept.records) == (2, 3)
    before = {bytes(record) for record in split_records(body.body, VISITS.records)}
    assert set(split_records(kept.body, VISITS.records)) < before
    assert json.loads(kept.body)["ok"] is True


def test_a_short_value_is_matched_in_its_own_column_only(tombstones: Tombstones) -> None:
    tombstones.add([Key("acme_visitor", "42", "shop")], request="r", now=NOW)
    found, stripped = strip_before_landing(page(visit(42), visit(1, who="42")), TABLES, tombstones, "shop")
    assert found is not None
    assert ids(found.body) == [42]
    assert stripped == 1


def test_a_call_about_the_person_is_not_landed_at_all(tombstones: Tombstones) -> None:
    tombstones.add([Key("acme_visitor", VISITOR, "shop")], request="r", now=NOW)
    for about in (page(call=f"visitor/{VISITOR}"), page(context={"visitor": VISITOR})):
        assert strip_before_landing(about, TABLES, tombstones, "shop") == (None, 0)
    kept, _ = strip_before_landing(page(visit(1), call="visitor/other-1"), TABLES, tombstones, "shop")
    assert kept is not None


def test_a_record_that_cannot_be_read_is_judged_by_its_values(tombstones: Tombstones) -> None:
    broken = TableSpec(
        vendor="acme",
        name="broken",
        description="One row per visit.",
        key=("visitor",),
        columns=(
            Column(name="visitor", type="BIGINT", description="V.", expr="CAST(r.who AS BIGINT)", identifies="email"),
        ),
        wire={"who": "VARCHAR"},
        calls=("visits",),
        records=("visits",),
    )
    tombstones.add([Key("email", EMAIL, None)], request="r", now=NOW)
    kept, _ = strip_before_landing(page(visit(1), visit(2, mail=EMAIL)), (broken,), tombstones, "shop")
    assert kept is not None
    assert ids(kept.body) == [1]


def test_only_leading_keys_teach_others() -> None:
    wanted = ClearKeys([Key("ip", "192.0.2.7", None), Key("email", EMAIL, None)], site="shop")
    leads = ClearKeys([Key("email", EMAIL, None)], site="shop")
    body = page(visit(1, ip="192.0.2.7", who="stranger"), visit(2, mail=EMAIL, who=VISITOR), visit(3))
    found = Stripper(TABLES, wanted, leads=leads).strip(
        body.body, call=body.call, call_kind=body.call_kind, context=body.context
    )
    assert found is not None
    assert found.body is not None
    assert ids(found.body) == [3]
    assert ("acme_visitor", VISITOR) in found.keys
    assert ("acme_visitor", "stranger") not in found.keys | found.leaves


@given(
    spelled=st.sampled_from(["plain", "escaped", "upper"]),
    positions=st.lists(st.booleans(), min_size=1, max_size=8),
    layout=st.sampled_from(["list", "nested", "members", "one"]),
)
def test_records_are_taken_out_wherever_they_sit(spelled: str, positions: list[bool], layout: str) -> None:
    """The page without some records lists exactly the other records, in order, byte for byte."""
    records = [
        json.dumps({"n": n, "text": "é\n/", "x": 1.50}, ensure_ascii=spelled == "escaped")
        for n in range(len(positions))
    ]
    gone = {n for n, is_gone in enumerate(positions) if is_gone}
    listed = f"[{' , '.join(records)}]"
    if layout == "members":
        members = ", ".join(f'"m{n}": {record}' for n, record in enumerate(records))
        body, paths = f'{{"all": {{{members}}}}}', ("all.{}",)
    elif layout == "one":
        records, gone = records[:1], gone & {0}
        body, paths = f'{{"a": {{"b": {records[0]}}}}}', ("a.b",)
    else:
        body = listed if layout == "list" else f'{{"a": {{"z": 1, "b": {listed}}}, "c": null}}'
        paths = ("",) if layout == "list" else ("missing", "a.b")
    before = split_records(body.encode(), paths)
    assert len(before) == len(records)
    after = split_records(without_records(body.encode(), paths, gone), paths)
    assert after == [record for n, record in enumerate(before) if n not in gone]


def test_records_of_several_paths_are_counted_in_order() -> None:
    body = b'{"old": [{"n":1},{"n":2}], "now": {"n":3}}'
    paths = ("old", "now")
    assert split_records(without_records(body, paths, {1, 2}, union=True), paths, union=True) == [b'{"n":1}']
    assert json.loads(without_records(body, paths, {2}, union=True))["now"] is None


# ----------------------------------------------------------------------------------------------------- landing and lake


def landed(landing: Landing, *pages: Page, complete: bool = True) -> Any:
    writer = landing.open_batch(
        vendor="acme", stream="visits", site="shop", first_day=DAY, last_day=DAY, run_id="run-0001"
    )
    with writer:
        for item in pages:
            writer.append(item)
        return writer.complete() if complete else None


def without(*numbers: int) -> Any:
    def strip(line: LandedPage, body: bytes) -> Rewritten | None:
        here = [n for n, number in enumerate(ids(body)) if number in numbers]
        if not here:
            return None
        if len(here) == line.records:
            return Rewritten(None, len(here))
        return Rewritten(without_records(body, ("visits",), here), len(here))

    return strip


def test_a_batch_is_rewritten_beside_and_swapped(tmp_path: Path) -> None:
    landing = Landing(tmp_path / "landing")
    batch = landed(landing, page(visit(1), visit(2)), page(visit(3), call="b"), page(visit(2), call="c"))
    untouched = {path.name: path.read_bytes() for path in batch.path.iterdir()}
    same, changed = landing.rewrite(batch, without(99))
    assert (same, changed) == (batch, 0)
    assert {path.name: path.read_bytes() for path in batch.path.iterdir()} == untouched

    renewed, changed = landing.rewrite(batch, without(2))
    assert changed == 2
    assert not batch.path.exists()
    lines = [(line.call, line.records, line.stripped, ids(body)) for line, body in renewed.pages()]
    assert lines == [("visits/2026-10-05", 1, 1, [1]), ("b", 1, 0, [3])]
    assert (renewed.landed_at, renewed.asked_since) == (batch.landed_at, batch.asked_since)
    assert landing.batches("acme", "visits", "shop") == [renewed]
    again, changed = landing.rewrite(renewed, without(3))
    assert (changed, again.path.name) == (1, f"{batch.path.name}.e2")
    assert landing.streams() == [("acme", "visits", "shop")]


def test_an_open_batch_is_continued_after_it_was_rewritten(tmp_path: Path) -> None:
    landing = Landing(tmp_path / "landing")
    landed(landing, page(visit(1), visit(2)), complete=False)
    (batch,) = landing.batches("acme", "visits", "shop")
    with (batch.path / "pages.bin").open("ab") as tail:
        tail.write(b"half a frame of somebody")
    renewed, _ = landing.rewrite(batch, without(99))
    assert b"half a frame" not in (renewed.path / "pages.bin").read_bytes(), "a torn tail holds somebody's bytes too"
    complete = landed(landing, page(visit(3), call="b"))
    assert complete.path == renewed.path
    assert [ids(body) for _, body in complete.pages()] == [[1, 2], [3]]


def test_what_a_killed_rewrite_left_is_swept(tmp_path: Path) -> None:
    landing = Landing(tmp_path / "landing")
    batch = landed(landing, page(visit(1), visit(2)))
    content = {path.name: path.read_bytes() for path in batch.path.iterdir()}
    renewed, _ = landing.rewrite(batch, without(2))
    for left in (batch.path, batch.path.with_name(f".{batch.path.name}.e2")):
        left.mkdir()
        for name, held in content.items():
            (left / name).write_bytes(held)
    newest = landing.newest_complete("acme", "visits", "shop", [DAY])[DAY]
    assert newest.path == renewed.path, "killed between the swap and the removal, the new batch is the one that counts"
    landing.sweep("acme", "visits", "shop")
    assert [path.name for path in renewed.path.parent.iterdir()] == [renewed.path.name]


def test_restored_landing_does_not_bring_the_person_back(tmp_path: Path) -> None:
    landing, lake = Landing(tmp_path / "landing"), Lake(tmp_path / "lake")
    batch = landed(landing, page(visit(1), visit(2, mail=EMAIL), visit(3)))
    (partition,) = lake.decode(VISITS, [(batch, [DAY])], site="shop")
    assert partition.rows == 3
    Tombstones.beside(landing.root).add([Key("email", EMAIL, None)], request="r", now=NOW)
    (partition,) = lake.decode(VISITS, [(batch, [DAY])], site="shop")
    assert partition.rows == 2


def test_a_decode_that_began_before_somebody_was_forgotten_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing, lake = Landing(tmp_path / "landing"), Lake(tmp_path / "lake")
    batch = landed(landing, page(visit(1), visit(2, mail=EMAIL)))
    begun: list[str] = []

    def passing(name: str) -> None:
        if name == "lake.before_rename" and not begun:
            begun.append(name)
            adding = Tombstones.beside(landing.root).add
            keys = [Key("email", EMAIL, None)]
            other = threading.Thread(target=adding, args=(keys,), kwargs={"request": "r", "now": NOW})
            other.start()
            other.join()

    monkeypatch.setattr("analytics_platform.core.lake.passing", passing)
    (partition,) = lake.decode(VISITS, [(batch, [DAY])], site="shop")
    assert begun
    assert partition.rows == 1


def test_rows_are_found_and_removed_by_any_key_they_carry(tmp_path: Path) -> None:
    landing, lake = Landing(tmp_path / "landing"), Lake(tmp_path / "lake")
    mine = visit(2, mail=EMAIL, who=VISITOR, tags=[{"t": "mail", "v": EMAIL}, {"t": "x", "v": "1"}])
    batch = landed(landing, page(visit(1, tags=[{"t": "x", "v": EMAIL}]), mine, visit(3)))
    for spec in TABLES:
        lake.decode(spec, [(batch, [DAY])], site="shop")
    by_mail = ClearKeys([Key("email", EMAIL, None)], site="shop")
    assert lake.person_keys(VISITS, "shop", by_mail) == {("acme_visitor", VISITOR), ("email", EMAIL)}
    assert lake.person_rows(TAGS, "shop", by_mail) == {DAY: 1}
    assert lake.person_rows(TAGS, "blog", by_mail) == {}
    with duckdb.connect() as engine:
        path = str(lake.partition_path(VISITS, "shop", DAY))
        others = engine.execute("SELECT * FROM read_parquet(?) WHERE visit_id <> 2", [path]).fetchall()
        assert lake.remove_person(VISITS, "shop", by_mail) == {DAY: 1}
        assert engine.execute("SELECT * FROM read_parquet(?)", [path]).fetchall() == others
    assert lake.remove_person(VISITS, "shop", by_mail) == {}
    assert lake.sites(VISITS) == ["shop"]


@pytest.mark.parametrize("asked", [GREEK, GREEK.lower(), GREEK.upper()])
@pytest.mark.parametrize("written", [GREEK, GREEK.lower(), GREEK.upper()])
def test_letters_beyond_ascii_are_found_in_any_case_and_spelling(asked: str, written: str) -> None:
    keys = [Key(site="shop", kind="email", value=asked)]
    clear, needles = ClearKeys(keys, site="shop"), Needles(keys)
    assert needles.engine_pattern is not None
    engine = duckdb.connect()
    for spelled in (json.dumps(written), json.dumps(written, ensure_ascii=False), f'"{quote(written)}"'):
        assert clear.may_be_in(spelled.encode())
        assert needles.count(spelled.encode()) == 1
        found = engine.execute("SELECT regexp_matches(lower(?), ?)", [spelled, needles.engine_pattern]).fetchall()
        assert found == [(True,)]
    assert not clear.may_be_in(json.dumps("nikos.arger@example.gr").encode())
