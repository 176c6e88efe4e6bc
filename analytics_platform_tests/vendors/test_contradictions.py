"""Contradictions of the vendors' documents that no row of the marts could show: asked of the wire and of the files.

The others of MARTS §3.3 are dbt tests of the same names (dbt_project/tests/singular).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pytest
from pydantic import SecretStr

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.fetch import Fetcher, SiteContext
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import World, generate
from analytics_platform.vendors.inspectlet.client import InspectletClient, SessionSearch, records_of
from analytics_platform.vendors.smartlook import streams
from analytics_platform.vendors.smartlook.client import SmartlookClient
from analytics_platform.vendors.smartlook.tables import TABLES

DAY = date(2026, 10, 5)
NOON = datetime(2026, 10, 20, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def world() -> World:
    """A day of more sessions than one page of a search holds."""
    return generate(seed=7, first_day=DAY, days=1, scale=2.0)


@pytest.fixture(scope="module")
def sandbox(world: World) -> Iterator[Sandbox]:
    with Sandbox(world, vendors=("smartlook", "inspectlet")) as running:
        yield running


def test_assert_inspectlet_filter_units(sandbox: Sandbox, world: World) -> None:
    """`seslength_*` are pages and `sestime_*` seconds, though the document calls both a duration."""
    secret = sandbox.context.credentials
    wid = str(world.sites[0].wid)
    with InspectletClient.connect(
        base_url=sandbox.base_urls["inspectlet"],
        username=SecretStr(secret.inspectlet_username),
        api_token=SecretStr(secret.inspectlet_api_token),
    ) as client:

        def asked(search: SessionSearch) -> set[tuple[int, bool]]:
            found: set[tuple[int, bool]] = set()
            for page in client.search_sessions(wid, search, call="c"):
                for session in records_of(page):
                    lasted = int(str(session["date_end_session"])) - int(str(session["date_start_session"]))
                    found.add((int(str(session["num_pages"])), lasted >= 29))
            return found

        # No session has 200 pages and many last 30 seconds: one word cannot mean the other.
        assert not asked(SessionSearch(pages_at_least=200))
        long_ones = asked(SessionSearch(duration_seconds_at_least=30))
        assert {lasted for _, lasted in long_ones} == {True}
        assert min(pages for pages, _ in long_ones) < 30
        assert {pages for pages, _ in asked(SessionSearch(pages_at_least=2, pages_at_most=3))} == {2, 3}


def test_assert_smartlook_cursor_not_persisted(sandbox: Sandbox, world: World, tmp_path: Path) -> None:
    """Cursors are temporary: outside the verbatim answers no file holds one, so that none can be resumed."""
    site = world.sites[0]
    clock = ManualClock(NOON)
    fetcher = Fetcher(
        landing=Landing(tmp_path / "landing", clock=clock),
        lake=Lake(tmp_path / "lake"),
        run_id="r",
        specs_by_name={spec.qualified_name: spec for spec in TABLES},
        clock=clock,
    )
    sandbox.requests.clear()

    outcome = fetcher.run(
        next(stream for stream in streams.STREAMS if stream.name == "sessions"),
        SiteContext(key=site.key, timezone=site.timezone, ids={"plan": "addon"}),
        [DAY],
        connect=lambda: SmartlookClient.connect(
            base_url=sandbox.base_urls["smartlook"], token=SecretStr(site.smartlook_token), clock=clock
        ),
    )

    assert outcome.error is None
    queries = [record.query for record in sandbox.requests.records(vendor="smartlook")]
    cursors = {found.group(1) for query in queries if (found := re.search(r"after=([^&]+)", query))}
    assert cursors, "the list was one page long: nothing to look for"
    lake_path = str(tmp_path / "lake" / "smartlook" / "*" / "*" / "*" / "part.parquet")
    rows = (
        duckdb.connect()
        .execute(f"SELECT CAST(COLUMNS(*) AS VARCHAR) FROM read_parquet('{lake_path}') WHERE _site <> '_anchor'")
        .fetchall()
    )
    assert len(rows) > 100
    texts = [value for row in rows for value in row if value is not None]
    others = [path for path in tmp_path.rglob("*") if path.is_file() and path.name not in ("pages.bin", "part.parquet")]
    assert {"pages.jsonl", "batch.json"} <= {path.name for path in others}
    texts += [path.read_bytes().decode("utf-8", errors="replace") for path in others]
    assert [cursor for cursor in cursors if any(cursor in text for text in texts)] == []
