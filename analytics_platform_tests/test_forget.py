"""One person out of everything: found, shown, forgotten, not found again, and nobody else touched.

A small home is filled from a sandbox of its own through Dagster, marts and published version included. One visitor with
a login is the canary: e-mail, address, user id and replay links are in pages of three vendors.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from analytics_platform.core.landing import Landing
from analytics_platform.core.tombstones import Key
from analytics_platform.dagster_home import instance
from analytics_platform.erasure import Erasure, Receipt, Request, find_person
from analytics_platform.erasure.search import search_home
from analytics_platform.runner import Runner, RunReport
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import generate
from analytics_platform.settings import Settings, load_settings
from analytics_platform_tests.conftest import FIRST_DAY, GUARD
from analytics_platform_tests.transform.unchecked import build_without_checks

LAST_DAY = FIRST_DAY + timedelta(days=1)
VENDORS = ("smartlook", "inspectlet", "kameleoon")
SITES = ("shop",)
WORDS = "forget 1 person"
ALL_KILLS = bool(os.environ.get("ANALYTICS_PLATFORM_ALL_KILLS"))
"""As in crash/test_dbt_kill: every point, not the ones that tell most."""


@dataclass(frozen=True)
class Canary:
    """What is known of the person from the sandbox's truth."""

    email: str
    uid: str
    ip: str
    code: str
    site: str

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.email, self.uid, self.ip, self.code)


@dataclass
class Filled:
    """A filled home that tests copy to where it was filled, the sandbox that filled it, and the person in it.

    One place for every copy: dbt writes the lake's path into what it parses, and would parse for each place anew.
    """

    kept: Path
    root: Path
    sandbox: Sandbox
    canary: Canary
    environment: dict[str, str]


def fetch(settings: Settings, *, refresh: bool = False, marts: bool = True) -> RunReport:
    with instance(settings) as opened:
        *_, report = Runner(settings, opened).run(
            FIRST_DAY, LAST_DAY, vendors=list(VENDORS), sites=list(SITES), refresh=refresh, marts=marts
        )
    assert isinstance(report, RunReport)
    assert not report.failed, [(v.vendor, v.site, v.state, v.message) for v in report.vendors] + [report.marts_message]
    return report


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    root = tmp_path_factory.mktemp("forget") / "home"
    root.mkdir()
    world = generate(first_day=FIRST_DAY, days=2, scale=0.4)
    with Sandbox(world, vendors=list(VENDORS)) as sandbox, pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("ANALYTICS_PLATFORM_", "DAGSTER_")) and name != GUARD["REFUSED_VARIABLE"]:
                patch.delenv(name)
        (root / "sites.yaml").write_text(sandbox.sites_yaml(), encoding="utf-8")
        environment = {
            **sandbox.environment(),
            "ANALYTICS_PLATFORM_HOME": str(root),
            "ANALYTICS_PLATFORM_CONFIG": str(root / "sites.yaml"),
        }
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr("analytics_platform.automation.ordinary_build", build_without_checks)
        fetch(load_settings())
        canary = canary_of(root, world)
        kept = root.rename(root.with_name("kept"))
        yield Filled(kept=kept, root=root, sandbox=sandbox, canary=canary, environment=environment)


def canary_of(root: Path, world: Any) -> Canary:
    """A person with a login whom all three vendors saw."""
    with duckdb.connect() as engine:
        seen = engine.execute(
            f"""SELECT DISTINCT s.email FROM read_parquet('{root}/lake/smartlook/sessions/*/*/*.parquet') AS s
            JOIN read_parquet('{root}/lake/inspectlet/session_tags/*/*/*.parquet') AS t ON t.value = s.email
            JOIN read_parquet('{root}/lake/kameleoon/visits/*/*/*.parquet') AS v
            ON v.visitor_code = s.kameleoon_visitor_code ORDER BY 1"""
        ).fetchall()
    assert seen, "nobody with a login was seen by all three vendors"
    person = world.visitors.loc[world.visitors["email"] == seen[0][0]].iloc[0]
    return Canary(
        email=person["email"],
        uid=person["uid"],
        ip=person["ip"],
        code=person["kameleoon_code"],
        site=person["site_key"],
    )


@pytest.fixture
def home(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A copy of the filled home of this test alone."""
    shutil.copytree(filled.kept, filled.root)
    for name, value in filled.environment.items():
        monkeypatch.setenv(name, value)
    filled.sandbox.faults.clear()
    yield load_settings()
    shutil.rmtree(filled.root)


def command(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a person runs it; the keys come by standard input, as they should."""
    return subprocess.run(
        [sys.executable, "-m", "analytics_platform.cli", "forget", *arguments],
        env={**os.environ, **environment},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def forget(settings: Settings, *keys: str, **more: Any) -> Receipt:
    with instance(settings) as opened:
        erasure = Erasure(settings, opened)
        return erasure.run(erasure.requests.create(Request(keys=list(keys), **more)))


def hits(settings: Settings, canary: Canary) -> list[Any]:
    keys = [Key("email", text, None) for text in canary.texts]
    return search_home(settings.home.root, keys)


def bytes_with(root: Path, texts: tuple[str, ...]) -> list[str]:
    """A naive search that shares nothing with the one under test: any file whose raw bytes hold one of the texts."""
    return sorted(
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and any(text.encode() in path.read_bytes() for text in texts)
    )


def lake_of(settings: Settings) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every lake table."""
    found = {}
    with duckdb.connect() as engine:
        for folder in sorted(settings.home.lake.glob("[!._]*/*")):
            name = f"{folder.parent.name}/{folder.name}"
            rows = engine.execute(f"SELECT * FROM read_parquet('{folder}/*/*/*.parquet', hive_partitioning = false)")
            found[name] = sorted(rows.fetchall(), key=repr)
    return found


def marts_of(database: Path) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(database), read_only=True) as connection:
        return connection.execute("SELECT * FROM fct_sessions ORDER BY session_key").fetchall()


def published(settings: Settings) -> Path:
    pointer = json.loads((settings.home.published / "current").read_bytes())
    return settings.home.published / pointer["path"] / "analytics.duckdb"


def recordings_of(settings: Settings, links: Sequence[str]) -> int:
    """Rows of the published replay links that lead to one of the links."""
    database = published(settings).parent / "restricted" / "replay.duckdb"
    with duckdb.connect(str(database), read_only=True) as connection:
        (row,) = connection.execute(
            "SELECT count(*) FROM fct_replay_links WHERE link_ref IN "
            "(SELECT left(sha256('replay link' || chr(31) || link), 24) FROM (SELECT unnest(?) AS link))",
            [list(links)],
        ).fetchall()
    return int(row[0])


def columns_of(database: Path) -> list[str]:
    with duckdb.connect(str(database), read_only=True) as connection:
        return [row[0] for row in connection.execute("DESCRIBE fct_sessions").fetchall()]


def pages_of(settings: Settings) -> dict[str, list[bytes]]:
    landing = Landing(settings.home.landing)
    return {
        f"{vendor}/{stream}/{site}": [
            body for batch in landing.batches(vendor, stream, site) for _, body in batch.pages()
        ]
        for vendor, stream, site in landing.streams()
    }


# ----------------------------------------------------------------------------------------------------------- the whole


def test_a_person_is_gone_from_every_byte_and_nobody_else_is(home: Settings, filled: Filled) -> None:
    canary = filled.canary
    before, marts_before = lake_of(home), marts_of(published(home))
    names = columns_of(published(home))
    found = find_person(home, [("email", canary.email)])
    kinds = found.kinds
    assert {"email", "uid", "kameleoon_visitor_code", "smartlook_visitor_id", "inspectlet_uid"} <= set(kinds)
    assert kinds["email"] == kinds["uid"] == 1
    assert hits(home, canary), "the canary was not there to begin with"
    batches_before = {path: path.read_bytes() for path in home.home.landing.rglob("*") if path.is_file()}
    links = tuple(key.value for key in found.everything if "link" in key.kind)
    assert recordings_of(home, links) > 0

    receipt = forget(home, f"email={canary.email.upper()}")

    assert receipt.state == "done", receipt.as_json().decode()
    assert [(row["vendor"], row["state"]) for row in receipt.vendors] == [("kameleoon", "confirmed")]
    assert receipt.found_before
    assert not receipt.files_after
    assert hits(home, canary) == []
    assert recordings_of(home, links) == 0
    assert bytes_with(home.home.root, (*canary.texts, *links)) == []
    assert search_home(home.home.root, found.everything) == []

    after = lake_of(home)
    mine = {key.value for key in found.everything}
    for table, rows in before.items():
        kept = [row for row in rows if not mine & {str(cell) for cell in row}]
        assert after[table] == kept, table
    assert sum(map(len, after.values())) < sum(map(len, before.values()))

    visitor, session = names.index("vendor_visitor_id"), names.index("vendor_session_id")
    others = [row for row in marts_before if not mine & {str(row[visitor]), str(row[session])}]
    assert len(others) < len(marts_before)
    assert marts_of(published(home)) == others
    assert marts_of(home.home.warehouse) == others
    assert [path.name for path in home.home.published.glob("v=*")] == [published(home).parent.name]

    # Batches that did not hold the person are the same files, byte for byte; so are the pages of the others.
    held = {path for path in batches_before if not path.exists()}
    for path, content in batches_before.items():
        if path not in held:
            assert path.read_bytes() == content
    assert held
    text = (home.home.root / "receipts" / f"{receipt.request}.json").read_text(encoding="utf-8")
    assert not [value for value in mine if len(value) > 5 and value in text]
    assert not list((home.home.root / "erasure").glob("*.json"))


def test_the_vendors_that_still_have_the_person_do_not_bring_them_back(home: Settings, filled: Filled) -> None:
    canary = filled.canary
    for folder in (home.home.warehouse.parent, home.home.published):
        shutil.rmtree(folder)
    assert forget(home, f"uid={canary.uid}", local_only=True, sites=[canary.site]).state == "done"
    clean = lake_of(home)
    report = fetch(home, refresh=True, marts=False)
    assert report.requests > 0
    assert hits(home, canary) == []
    assert bytes_with(home.home.root, canary.texts) == []
    assert {table: len(rows) for table, rows in lake_of(home).items()} == {t: len(rows) for t, rows in clean.items()}
    stripped = [
        page.stripped
        for vendor, stream, site in Landing(home.home.landing).streams()
        for batch in Landing(home.home.landing).batches(vendor, stream, site)
        for page in batch.index()
    ]
    assert sum(stripped) > 0
    again = forget(home, f"uid={canary.uid}", local_only=True)
    assert again.state == "done"
    assert again.found_before == {}
    assert again.removed["landing_pages"] == again.removed["lake_rows"] == {}


def test_a_dry_run_shows_counts_and_changes_nothing(home: Settings, filled: Filled) -> None:
    root = home.home.root
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    done = command("--keys-file", "-", "--dry-run", "--json", stdin=f"email={filled.canary.email}\n")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["keys"]["email"] == 1
    assert any(name.startswith("lake inspectlet/session_tags") for name in plan["counts"])
    assert any(name.startswith("landing kameleoon/visits") for name in plan["counts"])
    assert set(plan["files_with_hits"]) >= {"landing", "lake", "warehouse", "published"}
    assert [item["vendor"] for item in plan["vendors"]] == ["kameleoon"]
    assert not [text for text in filled.canary.texts if text in done.stdout + done.stderr]
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    refused = command("--keys-file", "-", "--confirm", "yes", stdin=f"email={filled.canary.email}\n")
    assert refused.returncode == 2
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_killed_at_any_point_the_same_request_completes(home: Settings, filled: Filled) -> None:
    """Each kill goes on where the one before left the home, so that the last run has seen all of them."""
    for folder in (home.home.warehouse.parent, home.home.published):
        shutil.rmtree(folder)
    points = ["erasure.found:1", "erasure.vendor_asked:1", "tombstones.before_write:1", "erasure.tombstones:1"]
    points += ["landing.rewritten:1", "landing.swapped:1", "lake.person_removed:2", "erasure.scrubbed:1"]
    complete_after_kills(home, filled.canary, [*points, "erasure.receipt:1"])


@pytest.mark.skipif(not ALL_KILLS, reason="a minute of dbt: with ANALYTICS_PLATFORM_ALL_KILLS=1")
def test_killed_between_warehouse_and_pointer_it_completes(home: Settings, filled: Filled) -> None:
    names = columns_of(published(home))
    mine = {key.value for key in find_person(home, [("email", filled.canary.email)]).everything}
    position = names.index("vendor_visitor_id")
    others = [row for row in marts_of(published(home)) if str(row[position]) not in mine]
    complete_after_kills(home, filled.canary, ["erasure.compacted:1", "publish.before_pointer:1"])
    assert marts_of(published(home)) == others
    assert marts_of(home.home.warehouse) == others


def complete_after_kills(home: Settings, canary: Canary, points: list[str]) -> None:
    expected = find_person(home, [("email", canary.email)]).everything
    with instance(home) as opened:
        name = Erasure(home, opened).requests.create(Request(keys=[f"email={canary.email}"]))
    done = subprocess.run(
        [sys.executable, "-c", KILLED, name, *points], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.stdout.split() == [*["-9"] * len(points), "done", "0"], (done.stdout, done.stderr)
    assert search_home(home.home.root, expected) == []
    assert bytes_with(home.home.root, canary.texts) == []
    assert not [path for path in home.home.landing.rglob(".*") if path.name != ".lock"]
    assert not list((home.home.root / "erasure").glob("*.json"))


# Imports once and forks a child a point: the request goes on in each where the one before was killed.
KILLED = """
import os, sys
import dagster, duckdb
from analytics_platform.dagster_home import instance
from analytics_platform.erasure import Erasure
from analytics_platform.settings import load_settings
import analytics_platform.forget_job, analytics_platform.transform.assets

name, *points = sys.argv[1:]
for point in [*points, ""]:
    child = os.fork()
    if not child:
        code = 1
        if point:
            os.environ["ANALYTICS_PLATFORM_FAILPOINT"] = point
        try:
            settings = load_settings()
            with instance(settings) as opened:
                receipt = Erasure(settings, opened).run(name)
                if not point:
                    print(receipt.state, flush=True)
            code = 0
        finally:
            if code:
                import traceback
                traceback.print_exc()
            sys.stderr.flush()
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_a_vendor_out_of_quota_is_pending_and_asked_again(home: Settings, filled: Filled) -> None:
    canary = filled.canary
    host = "http://127.0.0.1:9"
    for folder in (home.home.warehouse.parent, home.home.published):
        shutil.rmtree(folder)
    asked = ("--keys-file", "-", "--confirm", WORDS, "--json")
    pending = command(*asked, stdin=f"email={canary.email}", KAMELEOON_BASE_URL=host)
    assert pending.returncode == 3, (pending.stdout, pending.stderr)
    receipt = json.loads(pending.stdout)
    assert [row["state"] for row in receipt["vendors"]] == ["pending"]
    assert not receipt["remaining"]
    # The one file that still names the person is the request, which is needed to go on.
    assert bytes_with(home.home.root, canary.texts) == [f"erasure/{receipt['request']}.json"]
    done = command("--resume", receipt["request"], "--confirm", WORDS, "--json")
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert [row["state"] for row in json.loads(done.stdout)["vendors"]] == ["confirmed"]
    assert bytes_with(home.home.root, canary.texts) == []
