"""Relations of a schema of their own: published for the owner only, masked; and links, found only when asked for."""

from __future__ import annotations

import json
import stat
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner

from analytics_platform.catalog import Catalog
from analytics_platform.core.errors import ConfigurationError
from analytics_platform.core.lake import Lake
from analytics_platform.replay import find_recordings, reveal_links
from analytics_platform.settings import Settings
from analytics_platform.transform.publish import Publication, publish
from analytics_platform.transform.translator import Manifest
from analytics_platform.transform.warehouse import warehouse_connection
from analytics_platform_tests.transform.synthetic import FIRST, SECOND, SESSIONS, manifest, warehouse_with_lake

LINK = "https://app.smartlook.com/org/o/p/sessions/canary-of-a-replay-link"
ELSEWHERE = "https://watch.example/canary-of-a-replay-link"
COLUMNS = (
    "session_key VARCHAR, vendor VARCHAR, site_key VARCHAR, session_date_local DATE, partition_date DATE, "
    "outcome VARCHAR, priority BIGINT, started_at_utc TIMESTAMP, duration_seconds DOUBLE, page_count BIGINT, "
    "link_ref VARCHAR, link_host VARCHAR, link_expires_at_utc TIMESTAMP, expiry_reason_null VARCHAR"
)


def reference(link: str) -> str:
    """As the macro `link_reference` makes it."""
    with duckdb.connect() as connection:
        (row,) = connection.execute("SELECT left(sha256('replay link' || chr(31) || ?), 24)", [link]).fetchall()
    return str(row[0])


def with_replay_links() -> Manifest:
    """The synthetic project and one mart in schema replay."""
    links = {
        "unique_id": "model.p.fct_replay_links",
        "name": "fct_replay_links",
        "schema": "replay",
        "resource_type": "model",
        "fqn": ["p", "marts", "fct_replay_links"],
        "config": {"materialized": "table", "meta": {"masked_columns": ["session_key", "link_ref"]}},
        "meta": {"window_column": "session_date_local"},
        "description": "One row per recording and outcome.",
        "columns": {"link_ref": {"name": "link_ref", "description": "Reference."}},
        "depends_on": {"nodes": []},
        "original_file_path": "models/marts/fct_replay_links.sql",
        "tags": [],
    }
    return Manifest({"nodes": {**manifest().content["nodes"], links["unique_id"]: links}, "sources": {}})


def _row(number: int, link: str, **changes: object) -> list[object]:
    row: dict[str, object] = {
        "session_key": f"key-{number}",
        "vendor": "smartlook",
        "site_key": "shop",
        "session_date_local": FIRST,
        "partition_date": FIRST,
        "outcome": "dropped_checkout",
        "priority": number,
        "started_at_utc": "2026-10-30 10:00:00",
        "duration_seconds": 61.4,
        "page_count": 3,
        "link_ref": reference(link),
        "link_host": "app.smartlook.com",
        "link_expires_at_utc": None,
        "expiry_reason_null": "not_documented",
    }
    return list({**row, **changes}.values())


def _write_lake(settings: Settings) -> None:
    """Links of the sessions, where the vendor's table keeps them."""
    path = Lake(settings.home.lake).partition_path(SESSIONS, "shop", FIRST)
    columns = ", ".join(f'"{column.name}" {column.type}' for column in SESSIONS.all_columns)
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE t ({columns})")
        for number, link in enumerate([LINK, LINK + "?\x1b[2Jterminal", ELSEWHERE]):
            connection.execute("INSERT INTO t (session_id, dashboard_url) VALUES (?, ?)", [f"s{number}", link])
        connection.execute(f"COPY t TO '{path}' (FORMAT parquet)")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    made = warehouse_with_lake(tmp_path_factory.mktemp("home"))
    _write_lake(made)
    with warehouse_connection(made) as connection:
        connection.execute(f"CREATE SCHEMA replay; CREATE TABLE replay.fct_replay_links ({COLUMNS})")
        rows = [
            _row(1, LINK),
            _row(2, LINK + "?\x1b[2Jterminal"),
            _row(3, ELSEWHERE),
            _row(4, "https://app.smartlook.com/gone"),
            _row(5, LINK, link_expires_at_utc="2026-10-31 00:00:00"),
            _row(6, LINK, outcome="converted"),
            _row(1, LINK, session_date_local=SECOND),
            _row(1, LINK, site_key="blog"),
        ]
        marks = ", ".join("?" for _ in rows[0])
        connection.executemany(f"INSERT INTO replay.fct_replay_links VALUES ({marks})", rows)
    return made


@pytest.fixture(scope="module")
def published(settings: Settings) -> Publication:
    return publish(settings, manifest=with_replay_links())


def test_the_file_everybody_reads_does_not_hold_the_relation(published: Publication) -> None:
    with duckdb.connect(str(published.database), read_only=True) as connection:
        tables = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    assert "fct_sessions" in tables
    assert "fct_replay_links" not in tables
    assert not list(published.path.glob("fct_replay_links/**/*.parquet"))
    assert published.row_counts["fct_replay_links"] == 8


def test_only_the_owner_may_open_its_file(published: Publication) -> None:
    restricted = published.restricted_database("replay")
    assert stat.S_IMODE(restricted.stat().st_mode) == 0o400
    assert stat.S_IMODE(restricted.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(published.database.stat().st_mode) == 0o444


def test_it_is_listed_described_and_masked_unless_asked_for(settings: Settings, published: Publication) -> None:
    catalog = Catalog.open(settings.home.root)
    listed = catalog.list().set_index("name")
    assert listed.loc["fct_replay_links", "kind"] == "replay"
    assert "link_ref" in set(catalog.describe("fct_replay_links")["column"])
    masked = catalog.read("fct_replay_links", FIRST, FIRST, site="shop")
    assert len(masked) == 6
    assert set(masked["link_ref"]) == {"•••"} == set(masked["session_key"])
    assert set(masked["outcome"]) == {"dropped_checkout", "converted"}
    shown = catalog.read("fct_replay_links", FIRST, FIRST, site="shop", where="priority = 1", reveal=True)
    assert list(shown["link_ref"]) == [reference(LINK)]
    assert catalog.freshness("fct_replay_links").newest_date == SECOND


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM fct_replay_links",
        "SELECT * FROM replay.fct_replay_links",
        "SELECT * FROM published.replay.fct_replay_links",
        "SELECT * FROM 'restricted/replay.duckdb'",
    ],
)
def test_sql_never_sees_it(settings: Settings, published: Publication, query: str) -> None:
    with pytest.raises(ConfigurationError):
        Catalog.open(settings.home.root).sql(query)


def test_a_version_without_masks_is_still_read(settings: Settings, published: Publication) -> None:
    old = published.path / "old.duckdb"
    with duckdb.connect() as connection:
        connection.execute(
            f"ATTACH '{published.database}' AS a (READ_ONLY); ATTACH '{old}' AS b; COPY FROM DATABASE a TO b"
        )
        connection.execute("DROP TABLE b._platform.masked; DETACH b")
    older = Catalog.open(settings.home.root)
    kept = published.database.read_bytes()
    published.database.chmod(0o644)
    try:
        published.database.write_bytes(old.read_bytes())
        assert len(older.read("fct_sessions")) == 6
    finally:
        published.database.write_bytes(kept)
        published.database.chmod(0o444)
        old.unlink()


# ------------------------------------------------------------------------------------------------------------- links


def test_recordings_come_best_first_and_without_links(settings: Settings, published: Publication) -> None:
    found = find_recordings(settings, FIRST, outcome="dropped:checkout", sites=["shop"], limit=2)
    assert [(row.priority, row.link, row.note) for row in found] == [(1, "", ""), (2, "", "")]
    everywhere = find_recordings(settings, FIRST, outcome="dropped_checkout", limit=1)
    assert [row.site for row in everywhere] == ["blog", "shop"]


def test_an_outcome_nobody_had_names_those_there_were(settings: Settings, published: Publication) -> None:
    with pytest.raises(ConfigurationError, match="converted, dropped_checkout"):
        find_recordings(settings, FIRST, outcome="bounced")
    with pytest.raises(ConfigurationError, match="none at all"):
        find_recordings(settings, date(2020, 1, 1), outcome="bounced")


def test_a_link_is_shown_only_where_it_leads_where_it_should(settings: Settings, published: Publication) -> None:
    found = find_recordings(settings, FIRST, outcome="dropped_checkout", sites=["shop"], limit=9)
    revealed = reveal_links(settings, found, now=datetime(2026, 11, 21, tzinfo=UTC))
    assert [row.link for row in revealed] == [LINK, "", "", "", ""]
    notes = [row.note for row in revealed]
    assert notes[0] == ""
    assert "not shown" in notes[1], "an escape sequence is nothing a terminal should see"
    assert "not shown" in notes[2], "another host"
    assert "no longer in the lake" in notes[3]
    assert "deleted" in notes[4]
    assert LINK not in repr(revealed)


def test_the_verb_shows_links_only_with_reveal(
    settings: Settings, published: Publication, monkeypatch: pytest.MonkeyPatch
) -> None:
    from analytics_platform.cli import app

    monkeypatch.setenv("ANALYTICS_PLATFORM_HOME", str(settings.home.root))
    arguments = ["replay", "--outcome", "dropped:checkout", "--day", "2026-10-30", "--site", "shop"]
    plain = CliRunner().invoke(app, arguments)
    assert plain.exit_code == 0
    assert "canary" not in plain.output
    assert "--reveal" in plain.output
    assert "key-1" in plain.output
    shown = CliRunner().invoke(app, [*arguments, "--reveal", "--limit", "1"])
    assert LINK in shown.output
    as_json = CliRunner().invoke(app, [*arguments, "--reveal", "--limit", "2", "--json"])
    rows = json.loads(as_json.output)
    assert [row["link"] for row in rows] == [LINK, ""]
    hidden = CliRunner().invoke(app, [*arguments, "--json"])
    assert "canary" not in hidden.output


def test_the_macro_and_the_verb_make_the_same_reference() -> None:
    macro = (Path(__file__).parents[2] / "dbt_project" / "macros" / "replay.sql").read_text()
    from analytics_platform import replay

    assert replay._REFERENCE.replace("{link}", "{{ url }}") in macro
