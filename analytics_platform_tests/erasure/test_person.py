"""Who a key belongs to, what is searched and masked, and the warehouse's new file: without a sandbox."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
import zstandard

from analytics_platform.core.errors import ConfigurationError, StorageError
from analytics_platform.core.tombstones import Key, Tombstones
from analytics_platform.erasure import (
    ImplausiblePerson,
    Request,
    RequestStore,
    confirmation_words,
    find_person,
    known_kinds,
    parse_keys,
)
from analytics_platform.erasure.search import Hit, by_store, scrub, search_home
from analytics_platform.erasure.steps import compact_warehouse, strip_lake
from analytics_platform.forget_job import forget
from analytics_platform.settings import Home, Settings, load_settings
from analytics_platform.vendors import all_tables
from analytics_platform_tests.dbt_project.lake_fixture import FixtureLake

DAY, NEXT = date(2026, 10, 5), date(2026, 10, 6)
EMAIL = "ada.canary@example.org"


@pytest.fixture
def lake(home: Home) -> Iterator[FixtureLake]:
    fixture = FixtureLake(home.lake)
    yield fixture
    fixture.close()


def replay_session(number: int, **more: Any) -> dict[str, Any]:
    started = datetime.fromisoformat(f"2026-10-05 09:{number % 60:02}")
    return {"session_id": f"session-{number:04}", "visitor_id": f"visitor-{number:04}", "started_at": started, **more}


def keys(*texts: str) -> list[Key]:
    return [Key("email", text, None) for text in texts]


# --------------------------------------------------------------------------------------------------------- who is meant


def test_keys_are_followed_to_a_fixed_point(lake: FixtureLake, home: Home) -> None:
    """e-mail → visitor → another session of theirs → its user id → a visitor on another day."""
    first = replay_session(1, email=EMAIL.upper())
    lake.write("smartlook", "sessions", "shop", DAY, [first, replay_session(2, visitor_id="visitor-0001", uid="u-1")])
    lake.write("smartlook", "sessions", "shop", NEXT, [replay_session(3, uid="u-1"), replay_session(4, uid="u-2")])
    lake.write("smartlook", "sessions", "blog", DAY, [replay_session(5, uid="u-1"), replay_session(6, email=EMAIL)])
    found = find_person(load_settings(), [("email", EMAIL)])
    visitors = {(key.value, key.site) for key in found.keys if key.kind == "smartlook_visitor_id"}
    assert visitors == {("visitor-0001", "shop"), ("visitor-0003", "shop"), ("visitor-0006", "blog")}
    assert found.lake == {("smartlook/sessions", "shop"): 3, ("smartlook/sessions", "blog"): 1}
    assert found.days == {("smartlook", "shop", DAY), ("smartlook", "shop", NEXT), ("smartlook", "blog", DAY)}
    only_blog = find_person(load_settings(), [("email", EMAIL)], sites=["blog"])
    assert only_blog.lake == {("smartlook/sessions", "blog"): 1}


def test_a_shared_value_stops_it_and_is_not_said(lake: FixtureLake, home: Home) -> None:
    lake.write("smartlook", "sessions", "shop", DAY, [replay_session(n, uid="anonymous") for n in range(80)])
    with pytest.raises(ImplausiblePerson, match=r"80 smartlook_visitor_id") as caught:
        find_person(load_settings(), [("smartlook_visitor_id", "visitor-0001")])
    assert "anonymous)" not in str(caught.value).replace("`anonymous`", "")
    assert "visitor-0001" not in str(caught.value)
    assert len(find_person(load_settings(), [("uid", "anonymous")], maximum_keys=200).keys) > 80


def test_a_key_in_use_at_two_sites_needs_a_site(lake: FixtureLake, home: Home) -> None:
    for site in ("shop", "blog"):
        lake.write("smartlook", "sessions", site, DAY, [replay_session(1, uid="42-42-42")])
    with pytest.raises(ConfigurationError, match="in use at blog, shop") as caught:
        find_person(load_settings(), [("uid", "42-42-42")])
    assert "42-42-42" not in str(caught.value)
    assert sum(find_person(load_settings(), [("uid", "42-42-42")], sites=["shop"]).lake.values()) == 1


def test_a_name_that_two_people_have_leads_to_neither(lake: FixtureLake, home: Home) -> None:
    session = {"wid": 1, "started_at": datetime.fromisoformat("2026-10-05 09:00"), "display_name": "Ada Canary"}
    rows = [{**session, "sid": 7_000_000_001, "uid": 11}, {**session, "sid": 7_000_000_002, "uid": 12}]
    lake.write(
        "inspectlet",
        "sessions",
        "shop",
        DAY,
        [*rows, {**session, "sid": 7_000_000_003, "uid": 11, "display_name": None}],
    )
    tags = [{"wid": 1, "sid": sid, "tag": "plan", "tag_index": 1} for sid in (7_000_000_001, 7_000_000_003)]
    lake.write("inspectlet", "session_tags", "shop", DAY, tags)
    found = find_person(load_settings(), [("display_name", "Ada Canary")])
    assert found.lake == {("inspectlet/sessions", "shop"): 2, ("inspectlet/session_tags", "shop"): 1}
    removed, days = strip_lake(load_settings(), found.everything, [])
    assert (removed["inspectlet/sessions"], removed["inspectlet/session_tags"], days) == (2, 1, {DAY})
    assert find_person(load_settings(), [("inspectlet_uid", "11")]).lake[("inspectlet/sessions", "shop")] == 1


def test_keys_are_read_without_repeating_them() -> None:
    kinds = known_kinds(all_tables().values())
    assert {"email", "uid", "ip", "display_name", "kameleoon_visitor_code"} <= set(kinds)
    assert parse_keys([f" email = {EMAIL.upper()} "], kinds) == [("email", EMAIL)]
    for text in (EMAIL, f"mail={EMAIL}", "email=", f"{EMAIL}=x"):
        with pytest.raises(ConfigurationError) as caught:
            parse_keys([text], kinds)
        assert EMAIL not in str(caught.value)
    with pytest.raises(ConfigurationError, match="nobody to forget"):
        parse_keys([], kinds)


def test_a_request_others_can_read_is_refused(home: Home) -> None:
    store = RequestStore(home)
    name = store.create(Request(keys=[f"email={EMAIL}"]))
    assert store.path(name).stat().st_mode & 0o777 == 0o600
    assert EMAIL not in name + repr(store.load(name))
    store.path(name).chmod(0o640)
    with pytest.raises(ConfigurationError, match="Other users can read"):
        store.load(name)
    for wrong in ("../x", "", "a/b"):
        with pytest.raises(ConfigurationError, match="not the name"):
            store.load(wrong)
    store.remove(name)
    assert store.open_names() == []


# ----------------------------------------------------------------------------------------------------- search and scrub


def test_every_kind_of_file_is_searched_raw_and_decoded(tmp_path: Path) -> None:
    root = tmp_path
    (root / "landing").mkdir()
    frames = [zstandard.compress(text.encode() * 3) for text in ("nobody here ", f'{{"mail":"{EMAIL}"}}')]
    (root / "landing" / "pages.bin").write_bytes(b"".join(frames))
    with duckdb.connect() as engine:
        engine.execute(f"COPY (SELECT {EMAIL!r} AS m FROM range(3)) TO '{root}/part.parquet' (COMPRESSION zstd)")
        engine.execute(f"COPY (SELECT 12345678 AS uid, 12345678 AS width) TO '{root}/numbers.parquet'")
    with duckdb.connect(str(root / "w.duckdb")) as engine:
        engine.execute(f"CREATE TABLE t AS SELECT {EMAIL!r} AS m, [{EMAIL!r}] AS l")
    with closing(sqlite3.connect(root / "s.db")) as connection:
        connection.execute("CREATE TABLE t (x TEXT, b BLOB)")
        connection.execute("INSERT INTO t VALUES (?, ?)", ("nothing", EMAIL.encode()))
        connection.commit()
    (root / "run.log").write_text(f"https://x/?e={EMAIL.replace('@', '%40')}\nnot{EMAIL}\n", encoding="utf-8")
    found = {(hit.path, hit.how): hit.count for hit in search_home(root, keys(EMAIL))}
    assert found[("landing/pages.bin", "pages")] == 3
    assert found[("part.parquet", "rows")] == 3
    assert found[("w.duckdb", "rows")] == 1
    assert found[("s.db", "rows")] == 1
    assert found[("run.log", "bytes")] == 1
    assert search_home(root, keys("12345678")) == [Hit(path="numbers.parquet", how="rows", count=1)]
    partly = {hit.path for hit in search_home(root, keys("ada.canary@example.or", "nobody"))}
    assert partly == {"landing/pages.bin"}, "part of a longer value is another value"
    assert by_store([Hit(path="a/b", how="x", count=2), Hit(path="a/b", how="y", count=1)]) == {"a": 1}


def test_what_cannot_be_searched_is_not_taken_for_clean(tmp_path: Path) -> None:
    (tmp_path / "part.parquet").write_bytes(b"PAR1 and then nothing that makes sense PAR1")
    assert [hit.how for hit in search_home(tmp_path, keys(EMAIL))] == ["could not be read"]


def test_mentions_are_masked_and_their_bytes_leave_the_file(tmp_path: Path) -> None:
    preview = "| id | url |\n| --- | --- |\n| session-0001 | /cart |\n| session-0002 | /checkout |"
    event = json.dumps({"metadata": {"preview": preview}, "message": f"about {EMAIL}", "at": 1760000000.25})
    path = tmp_path / "dagster" / "index.db"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, body TEXT)")
        connection.executemany("INSERT INTO events (body) VALUES (?)", [(event,), ("untouched",)])
        connection.commit()
    (tmp_path / "dagster" / "out.err").write_text(f"a\n{EMAIL}\nb\n", encoding="utf-8")
    (tmp_path / "sites.yaml").write_text(f"# ask {EMAIL}\n", encoding="utf-8")
    assert scrub(tmp_path, keys(EMAIL, "session-0001", "1760000000"))["dagster"] == 3
    with closing(sqlite3.connect(path)) as connection:
        kept = json.loads(connection.execute("SELECT body FROM events WHERE id = 1").fetchone()[0])
    assert kept == {
        "metadata": {"preview": "| id | url |\n| --- | --- |\n| session-0002 | /checkout |"},
        "message": "about [erased]",
        "at": 1760000000.25,
    }
    assert (tmp_path / "dagster" / "out.err").read_text(encoding="utf-8") == "a\n[erased]\nb\n"
    assert {hit.path for hit in search_home(tmp_path, keys(EMAIL, "session-0001"))} == {"sites.yaml"}
    assert scrub(tmp_path, keys(EMAIL)) == {}


# -------------------------------------------------------------------------------------------------------- the warehouse


def test_only_a_new_file_is_free_of_deleted_bytes(home: Home) -> None:
    """M17, and what is left is equal."""
    settings = load_settings()
    home.warehouse.parent.mkdir(parents=True)
    with duckdb.connect(str(home.warehouse)) as connection:
        connection.execute(
            f"CREATE TABLE t AS SELECT i, CASE WHEN i = 7 THEN {EMAIL!r} ELSE 'x' || i END AS m FROM range(5000) r(i)"
        )
        connection.execute("CREATE VIEW v AS SELECT count(*) AS n FROM t; CREATE SCHEMA _platform")
        connection.execute("CREATE TABLE _platform.builds (d DATE)")
        connection.execute("CHECKPOINT")
        connection.execute("DELETE FROM t WHERE i = 7")
        before = connection.execute("SELECT * FROM t ORDER BY i").fetchall()
    assert search_home(home.root, keys(EMAIL)), "deleting alone leaves the bytes"
    compact_warehouse(settings)
    assert search_home(home.root, keys(EMAIL)) == []
    assert [path.name for path in home.warehouse.parent.iterdir()] == ["warehouse.duckdb"]
    with duckdb.connect(str(home.warehouse)) as connection:
        assert connection.execute("SELECT * FROM t ORDER BY i").fetchall() == before
        assert connection.execute("SELECT n FROM v").fetchall() == [(4999,)]


def test_a_warehouse_in_use_is_not_swapped(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    # dagster-duckdb asks ten times over 100 seconds before it gives up; the last answer is what matters here.
    monkeypatch.setattr("dagster_duckdb.resource.backoff", lambda fn, kwargs, **_: fn(**kwargs))
    home.warehouse.parent.mkdir(parents=True)
    script = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); c.execute('CREATE TABLE t AS SELECT 1'); "
    script += "print('open', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(home.warehouse)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        inode = home.warehouse.stat().st_ino
        with pytest.raises(StorageError, match="in use"):
            compact_warehouse(load_settings())
        holder.communicate("\n")
    assert home.warehouse.stat().st_ino == inode
    compact_warehouse(load_settings())
    assert home.warehouse.stat().st_ino != inode


# ----------------------------------------------------------------------------------------------------------- the job


def run_job(settings: Settings, name: str, confirm: str, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    return forget.execute_in_process(
        instance=instance,
        raise_on_error=False,
        run_config={
            "ops": {"forget_person": {"config": {"request": name, "confirm": confirm}}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
    )


def test_the_job_takes_a_name_and_leaves_no_key_behind(lake: FixtureLake, home: Home) -> None:
    from analytics_platform.dagster_home import instance

    lake.write("smartlook", "sessions", "shop", DAY, [replay_session(1, email=EMAIL), replay_session(2)])
    settings = load_settings()
    name = RequestStore(home).create(Request(keys=[f"email={EMAIL}"], local_only=True))
    with instance(settings) as opened:
        refused = run_job(settings, name, "yes", opened)
        assert not refused.success
        assert RequestStore(home).open_names() == [name]
        done = run_job(settings, name, confirmation_words(), opened)
        assert done.success
    assert os.environ["DAGSTER_HOME"] == str(home.dagster)
    assert RequestStore(home).open_names() == []
    assert search_home(home.root, [*keys(EMAIL), Key("smartlook_visitor_id", "visitor-0001", "shop")]) == []
    with duckdb.connect() as engine:
        left = engine.execute(f"SELECT session_id FROM '{home.lake}/smartlook/sessions/*/*/*.parquet'").fetchall()
    assert left == [("session-0002",)]
    receipt = json.loads((home.root / "receipts" / f"{name}.json").read_bytes())
    assert (receipt["state"], receipt["found_before"]) == ("done", {"lake smartlook/sessions shop": 1})
    assert len(Tombstones.beside(home.lake)) == receipt["tombstones_added"] == 3
