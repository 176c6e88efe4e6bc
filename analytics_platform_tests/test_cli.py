"""The command, as a person runs it: a process of its own, its exit code, what it prints."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

from analytics_platform.catalog import Catalog
from analytics_platform.cli import app
from analytics_platform.core import lake as lake_module
from analytics_platform.core.errors import PlatformError
from analytics_platform.core.tables import TableSpec
from analytics_platform.dagster_home import instance
from analytics_platform.runner import Runner
from analytics_platform.settings import load_settings
from analytics_platform_tests.demo_home import DAYS, LAST_DAY, PLATFORM_VARIABLES, DemoRun, shell_environment
from analytics_platform_tests.docs.questions import Command, commands

AFTER = LAST_DAY + timedelta(days=1)


@dataclass(frozen=True)
class Shell:
    """A person's shell with one home."""

    home: Path

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "analytics_platform.cli", *arguments],
            env={**shell_environment(self.home), **environment},
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


class Verbs:
    """The command in this process, where it is about what a verb answers and not about a process of its own."""

    def screen(self, *arguments: str) -> str:
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output or repr(done.exception)
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.screen(*arguments, "--json"))


@pytest.fixture
def verbs(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Verbs:
    """Verbs on the shell's home; this process has nothing else of the platform's in its environment."""
    point_at(shell.home, monkeypatch)
    return Verbs()


def point_at(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(PLATFORM_VARIABLES) and "REFUSED" not in name:
            monkeypatch.delenv(name)
    monkeypatch.setenv("ANALYTICS_PLATFORM_HOME", str(home))


@pytest.fixture(scope="module")
def shell(demo_run: DemoRun, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """The demo's home, to write to."""
    return Shell(demo_run.copy(tmp_path_factory.mktemp("demo") / "home"))


def test_the_demo_ends_well_and_says_what_to_do_next(demo_run: DemoRun) -> None:
    done = demo_run
    assert done.exit_code == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.rstrip().splitlines()[-1].strip().startswith("Catalog.open().read(")
    for vendor in ("smartlook", "inspectlet", "pirsch", "kameleoon", "kissmetrics"):
        assert f"done      {vendor}" in done.stdout


def test_the_demo_again_spends_no_request(shell: Shell) -> None:
    report = shell.json("demo")
    assert {result["state"] for result in report["vendors"]} == {"complete"}
    assert sum(result["requests"] for result in report["vendors"]) == 0
    assert report["marts_message"] == "nothing new since the last publish"


def test_status_quota_and_sql_answer_without_the_sandbox(verbs: Verbs) -> None:
    status = verbs.json("status")
    assert {(row["vendor"], row["complete_days"]) for row in status["vendors"] if row["vendor"] == "pirsch"} == {
        ("pirsch", DAYS)
    }
    assert status["published_version"] == 1
    quota = verbs.json("quota")
    assert {row["account"].partition(":")[0] for row in quota["windows"]} >= {"smartlook", "pirsch", "kameleoon"}
    assert all(row["used"] <= row["limit"] for row in quota["windows"])
    [counted] = verbs.json("sql", "SELECT count(DISTINCT vendor) AS vendors FROM fct_daily_traffic")
    assert counted == {"vendors": 5}


def test_replaying_the_landing_costs_no_request(shell: Shell) -> None:
    days = ("--from", "2026-10-05", "--to", "2026-10-06")
    results = shell.json("replay-landing", *days, "--vendor", "inspectlet", "--site", "shop")
    [result] = results
    assert (result["state"], result["requests"]) == ("done", 0)
    assert result["partitions"] == 6


def test_a_vendor_without_credentials_is_off_and_named(shell: Shell) -> None:
    findings = shell.json("doctor")
    pirsch = [f for f in findings if f["subject"] == "pirsch shop"]
    assert [f["ok"] for f in pirsch] == [False]
    assert "PIRSCH_CLIENT_ID, PIRSCH_CLIENT_SECRET" in pirsch[0]["text"]
    done = shell.run("run", "--from", str(AFTER), "--to", str(AFTER), "--vendor", "pirsch", "--no-marts")
    assert done.returncode == 0
    assert "PIRSCH_CLIENT_ID, PIRSCH_CLIENT_SECRET not set" in done.stdout


@pytest.mark.parametrize("command", commands(), ids=str)
def test_every_command_of_the_question_pages_answers(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    """On the demo's first three weeks. With FINISHED_DEMO, the home of a whole one, no answer may be empty."""
    whole = os.environ.get("FINISHED_DEMO")
    point_at(Path(whole) if whole else request.getfixturevalue("shell").home, monkeypatch)
    done = (command if whole else command.within(str(LAST_DAY))).run()
    if command.needs_four_weeks and not whole:
        assert done.exit_code == 0 or isinstance(done.exception, PlatformError), done.output
        return
    assert done.exit_code == 0, done.output or repr(done.exception)
    assert len(done.stdout.splitlines()) > 1, done.stdout
    assert "Empty DataFrame" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(("run", "--from", "2026-13-01", "--to", "2026-10-01"), "not a day", id="no day"),
        pytest.param(("run", "--from", "2026-10-02", "--to", "2026-10-01"), "before", id="backwards"),
        pytest.param(
            ("run", "--from", "2026-10-01", "--to", "2026-10-01", "--vendor", "matomo"), "no vendor", id="vendor"
        ),
        pytest.param(("no-such-verb",), "No such command", id="verb"),
    ],
)
def test_misuse_is_exit_code_2(
    shell: Shell,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    says: str,
) -> None:
    monkeypatch.setenv("ANALYTICS_PLATFORM_HOME", str(shell.home))
    monkeypatch.delenv("ANALYTICS_PLATFORM_CONFIG", raising=False)
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert says in " ".join(done.stderr.split())


def test_a_broken_config_is_one_paragraph(tmp_path: Path) -> None:
    config = tmp_path / "sites.yaml"
    config.write_text("sites:\n  - {key: Shop!, start_date: soon}\n", encoding="utf-8")
    done = Shell(tmp_path).run("status", ANALYTICS_PLATFORM_CONFIG=str(config))
    assert done.returncode == 1
    assert "ConfigurationError" in done.stderr
    assert "[a-z0-9][a-z0-9_-]*" in done.stderr
    assert "start_date" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_demo_refuses_a_home_with_real_sites(tmp_path: Path) -> None:
    (tmp_path / "sites.yaml").write_text("sites: []\n", encoding="utf-8")
    done = Shell(tmp_path).run("demo")
    assert done.returncode == 1
    assert "ANALYTICS_PLATFORM_HOME" in done.stderr
    assert (tmp_path / "sites.yaml").read_text(encoding="utf-8") == "sites: []\n"


VERBS = ("demo", "run", "sandbox", "ui", "doctor", "status", "quota", "replay-landing", "sql")


def test_help_lists_every_verb() -> None:
    listed = CliRunner().invoke(app, ["--help"]).stdout
    assert [verb for verb in VERBS if verb not in listed] == []


@pytest.mark.parametrize("verb", VERBS)
def test_a_verbs_help_has_an_example_to_copy(verb: str) -> None:
    text = CliRunner().invoke(app, [verb, "--help"]).stdout
    assert f"Example: analytics-platform {verb}" in " ".join(text.split())


_IN_THE_BACKGROUND = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
from analytics_platform.cli import keep_sigterm
keep_sigterm()
from dagster._utils.interrupts import capture_interrupts
with capture_interrupts():
    pass
print("up", flush=True)
for line in sys.stdin:
    print(line, end="", flush=True)
"""


def test_a_job_in_the_background_ends_at_sigterm_after_dagster_has_run() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _IN_THE_BACKGROUND],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as job:
        assert job.stdin is not None
        assert job.stdout is not None
        assert job.stdout.readline() == b"up\n"
        job.send_signal(signal.SIGINT)
        job.stdin.write(b"still here\n")
        job.stdin.flush()
        assert job.stdout.readline() == b"still here\n", "a terminal's Ctrl-C is not for it"
        job.send_signal(signal.SIGTERM)
        # What Python gives a process that ends by KeyboardInterrupt.
        assert job.wait(timeout=30) == -signal.SIGINT


def test_a_vendor_whose_blocking_truth_fails_is_left_out_of_its_day_and_every_reader_is_told(
    shell: Shell, verbs: Verbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole road: the decoder loses a record, a truth fails, dbt leaves the vendor's day out, it is published so.

    Kissmetrics never has the demo's days: its counter needs two snapshots. The first date lacks the UTC day before it.
    """
    day, site = date(2026, 10, 6), "shop"
    asked = ("reconcile", str(day), "--site", site, "--metric", "sessions")
    (before,) = verbs.json(*asked)
    told = before["expected_vendor_count"] - len(before["left_out"])
    assert [each["vendor"] for each in before["left_out"]] == ["kissmetrics"]
    assert (told, before["expected_vendor_count"]) == (4, 5)
    complete = {(row["vendor"], row["site"]): row["complete_days"] for row in verbs.json("status")["vendors"]}

    _lose_a_page(day, site, monkeypatch)
    done = shell.run("run", "--from", str(day), "--to", str(day), "--vendor", "inspectlet", "--site", site)
    assert done.returncode == 0, done.stdout + done.stderr

    (after,) = verbs.json(*asked)
    assert {each["vendor"]: each["reason"] for each in after["left_out"]} == {
        "inspectlet": "partition_blocked",
        "kissmetrics": "fewer_than_two_snapshots",
    }
    numbers = [{line["vendor"]: line["value"] for line in report["lines"]} for report in (before, after)]
    assert numbers[1] == numbers[0] | {"inspectlet": None}, "the other vendors' numbers stay"
    screen = verbs.screen(*asked)
    assert f"{site}, {day}: sessions (3 of 5 vendors)" in screen
    assert "Without inspectlet (partition blocked), kissmetrics (fewer than two snapshots)." in " ".join(screen.split())
    catalog = Catalog.open(shell.home)
    assert day in catalog.freshness("fct_daily_traffic").blocked_days
    assert catalog.freshness("stg_inspectlet__session_tags").blocked_days == (day,)
    assert catalog.freshness("stg_smartlook__sessions").blocked_days == ()
    traffic = catalog.read("fct_daily_traffic", day, day, site=site, vendor="inspectlet")
    assert traffic["sessions"].isna().all()
    assert set(traffic["reason_null"]) == {"all=partition_blocked"}
    status = {(row["vendor"], row["site"]): row for row in verbs.json("status")["vendors"]}
    assert {key for key, row in status.items() if row["blocked_partitions"]} == {("inspectlet", site)}
    left = {key: row["complete_days"] for key, row in status.items()}
    assert left == complete | {("inspectlet", site): complete["inspectlet", site] - 1}


def _lose_a_page(day: date, site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode the day again with a decoder that drops one row; the step's own checks see to the rest."""
    decode_rows = lake_module._decode_rows

    def losing(engine: duckdb.DuckDBPyConnection, spec: TableSpec, *others: Any) -> None:
        decode_rows(engine, spec, *others)
        if spec.qualified_name == "inspectlet/session_pages":
            first = "SELECT min((sid, page_index)) FROM decoded WHERE _day = ?"
            engine.execute(f"DELETE FROM decoded WHERE (sid, page_index) = ({first})", [day])

    monkeypatch.setattr(lake_module, "_decode_rows", losing)
    settings = load_settings()
    with instance(settings) as opened:
        (result,) = Runner(settings, opened).replay(day, day, vendors=["inspectlet"], sites=[site])
    assert result.failed_checks == ["inspectlet/session_pages: listed_pages_are_landed"]
