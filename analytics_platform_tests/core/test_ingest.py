"""Streams as Dagster assets: what a person sees of a run that finishes, is deferred or fails, and never sees."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
import yaml

from analytics_platform.core import checking
from analytics_platform.core.automation import range_tags
from analytics_platform.core.checks import CHECK_NAMES, SuiteOutcome, run_suites
from analytics_platform.core.clock import SystemClock
from analytics_platform.core.concurrency import REQUESTS_IN_FLIGHT
from analytics_platform.core.errors import PermissionDenied, PlatformError, QuotaExhausted, VendorUnavailable
from analytics_platform.core.ingest import REPLAY_TAG, vendor_assets
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.paging import Page
from analytics_platform.core.partitions import partition_key
from analytics_platform.core.quota import Ledger, QuotaPolicy, Window
from analytics_platform.core.resources import PlatformResource, VendorResource, open_ledger
from analytics_platform.core.streams import Extraction, Stream
from analytics_platform.core.tables import Column, Sensitivity, TableSpec
from analytics_platform.core.vendor_checks import Finding, VendorCheck
from analytics_platform.definitions import build_definitions
from analytics_platform.runner import Runner, VendorResult
from analytics_platform.sandbox import faults
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.settings import Home, load_settings
from analytics_platform.vendors import all_streams, all_tables, streams_of, vendor_names
from analytics_platform_tests.conftest import DAYS, FIRST_DAY, House

LAST_DAY = FIRST_DAY + timedelta(days=DAYS - 1)
ALL_DAYS = [FIRST_DAY + timedelta(days=n) for n in range(DAYS)]
TWO_DAYS = ALL_DAYS[:2]


def run(runner: Runner, *vendors: str) -> dict[str, VendorResult]:
    results = runner.run(TWO_DAYS[0], TWO_DAYS[-1], vendors=vendors, sites=["shop"], marts=False)
    return {item.vendor: item for item in results if isinstance(item, VendorResult)}


def metadata_of(instance: dg.DagsterInstance, spec: TableSpec) -> dict[str, Mapping[str, Any]]:
    """Metadata of the newest materialisation of each partition of a table."""
    records = instance.fetch_materializations(dg.AssetKey(spec.asset_key), limit=500).records
    found: dict[str, Mapping[str, Any]] = {}
    for record in records:
        materialization = record.asset_materialization
        assert materialization is not None
        assert materialization.partition is not None
        found.setdefault(
            materialization.partition, {name: value.value for name, value in materialization.metadata.items()}
        )
    return found


def observations(instance: dg.DagsterInstance, key: Sequence[str], state: str = "") -> list[dg.AssetObservation]:
    """Of a table, newest first; with a state only those that say so."""
    records = instance.fetch_observations(dg.AssetKey(key), limit=100).records
    found = [record.asset_observation for record in records if record.asset_observation is not None]
    return [seen for seen in found if not state or seen.metadata["state"].value == state]


# ---------------------------------------------------------------------------------------- all vendors, the real sandbox


@dataclass
class Finished:
    """One run of everything over one site, and what it left behind."""

    house: House
    instance: dg.DagsterInstance
    folder: Path
    results: dict[str, VendorResult]
    again: dict[str, VendorResult]
    requests: int
    requests_again: int
    output: str
    validated_here: list[str]
    secrets: list[str] = field(repr=False, default_factory=list)


@pytest.fixture(scope="module")
def finished(running_sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    root = tmp_path_factory.mktemp("finished")
    (root / "dagster").mkdir()
    running_sandbox.faults.clear()
    running_sandbox.requests.clear()
    output, errors = root / "stdout", root / "stderr"
    with pytest.MonkeyPatch.context() as patch, _instance(root / "dagster") as instance:
        # Where something is broken, the failure is shown at once and not after Dagster's minutes.
        patch.setattr(dg.RetryPolicy, "calculate_delay", lambda self, attempt_num: 0.0)
        environment = running_sandbox.environment()
        (root / "sites.yaml").write_text(running_sandbox.sites_yaml(), encoding="utf-8")
        environment |= {
            "ANALYTICS_PLATFORM_HOME": str(root / "home"),
            "ANALYTICS_PLATFORM_CONFIG": str(root / "sites.yaml"),
        }
        for name, value in environment.items():
            patch.setenv(name, value)
        validated_here: list[str] = []

        def noting(spec: TableSpec, *rest: Any, **options: Any) -> tuple[SuiteOutcome, ...]:
            validated_here.append(spec.qualified_name)
            return run_suites(spec, *rest, **options)

        patch.setattr(checking, "run_suites", noting)
        runner = Runner(load_settings(), instance)
        with _captured(1, output), _captured(2, errors):
            results = run(runner, *vendor_names())
            spent = len(running_sandbox.requests)
            again = run(runner, *vendor_names())
        yield Finished(
            house=House(home=Home(root=root / "home"), environment=environment),
            instance=instance,
            folder=root,
            results=results,
            again=again,
            requests=spent,
            requests_again=len(running_sandbox.requests) - spent,
            output=output.read_text() + errors.read_text(),
            validated_here=validated_here,
            secrets=_secrets(running_sandbox),
        )


def _instance(folder: Path) -> dg.DagsterInstance:
    """An instance on disk. Its own capture of output starts four processes a step; here `_captured` sees the same.
    Without the telemetry setting even a test's instance keeps a log under the user's home.
    """
    no_capture = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
    return dg.DagsterInstance.local_temp(
        str(folder), overrides={"telemetry": {"enabled": False}, "compute_logs": no_capture}
    )


@contextmanager
def _captured(descriptor: int, path: Path) -> Iterator[None]:
    """The process's own descriptor, so that C libraries and child processes are caught too."""
    saved = os.dup(descriptor)
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(target, descriptor)
    os.close(target)
    try:
        yield
    finally:
        os.dup2(saved, descriptor)
        os.close(saved)


def _secrets(sandbox: Sandbox) -> list[str]:
    """Every credential of the sandbox, and every access token it gave out."""
    environment = sandbox.environment()
    given = [value for name, value in environment.items() if not name.endswith(("_URL", "_ID"))]
    issued = [token for vendor in ("pirsch", "kameleoon") for token in sandbox.context.token_store(vendor)._expiry]
    return [*given, *issued]


def test_the_checks_of_a_run_are_made_beside_it(finished: Finished) -> None:
    assert finished.validated_here == []
    evaluated = finished.instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey(["pirsch", "daily_stats"]), "keys_are_unique"), limit=1
    )
    assert evaluated, "and they were made"


def test_every_vendor_is_done_and_the_second_run_spends_nothing(finished: Finished) -> None:
    assert {name: (result.state, result.failed_checks) for name, result in finished.results.items()} == {
        name: ("done", []) for name in vendor_names()
    }
    assert sum(result.requests for result in finished.results.values()) >= finished.requests - 2  # two token calls
    assert (finished.requests_again, {result.state for result in finished.again.values()}) == (0, {"complete"})


def test_every_partition_is_materialised_with_its_rows_and_requests(finished: Finished) -> None:
    lake = Lake(finished.house.home.lake)
    dependent = {spec.qualified_name for stream in all_streams() if stream.depends_on for spec in stream.tables}
    for spec in all_tables().values():
        found = metadata_of(finished.instance, spec)
        wanted = [datetime.now(UTC).date()] if spec.day_basis == "snapshot" else TWO_DAYS
        assert sorted(found) == [partition_key(day, "shop") for day in wanted], spec.qualified_name
        assert finished.instance.get_materialized_partitions(dg.AssetKey(spec.asset_key)) == set(found)
        rows = lake.row_counts(spec, "shop", wanted)
        for day in wanted:
            metadata = found[partition_key(day, "shop")]
            assert metadata["dagster/partition_row_count"] == rows[day]
            # What is asked for the visitors of another table may, on two quiet days, be asked for nobody.
            assert metadata["requests_this_run"] > 0 or spec.qualified_name in dependent
            assert metadata["size_bytes"] == lake.partition_path(spec, "shop", day).stat().st_size
            assert {"landed_at", "landed_batch", "is_provisional", "duplicates_dropped"} <= set(metadata)
            assert not Path(str(metadata["dagster/uri"])).is_absolute()
    assert sum(result.rows for result in finished.results.values()) > 200


def test_every_check_ran_and_passed(finished: Finished) -> None:
    wanted = [
        dg.AssetCheckKey(dg.AssetKey(spec.asset_key), name) for spec in all_tables().values() for name in CHECK_NAMES
    ]
    found = finished.instance.event_log_storage.get_asset_check_summary_records(wanted)
    for key, record in found.items():
        execution = record.last_check_execution_record
        assert execution is not None, key
        assert execution.status.value == "SUCCEEDED", key
    assert len(found) == len(wanted)


def test_no_secret_is_in_any_file_or_on_the_terminal(finished: Finished) -> None:
    """Event log, run records, ledger, landing: every byte that is not compressed."""
    assert len(finished.secrets) >= 8
    files = [path for path in finished.folder.rglob("*") if path.is_file() and path.suffix != ".parquet"]
    assert any(path.suffix == ".db" for path in files)
    for path in files:
        content = path.read_bytes()
        for secret in finished.secrets:
            assert secret.encode() not in content, f"{secret[:6]}… is in {path.relative_to(finished.folder)}"
    for secret in finished.secrets:
        assert secret not in finished.output


def test_no_secret_is_in_the_lake_or_in_a_landed_page(finished: Finished) -> None:
    pattern = "|".join(map(re.escape, finished.secrets))
    with duckdb.connect() as engine:
        for path in (finished.folder / "home" / "lake").rglob("*.parquet"):
            hit = engine.execute(
                "SELECT count(*) FROM read_parquet(?, hive_partitioning = false) AS t "
                "WHERE regexp_matches(to_json(t)::VARCHAR, ?)",
                [str(path), pattern],
            ).fetchone()
            assert hit == (0,), path
    landing = Landing(finished.house.home.landing)
    for stream in all_streams():
        for batch in landing.batches(stream.vendor, stream.name, "shop"):
            for _, body in batch.pages():
                assert not re.search(pattern, body.decode())


def test_previews_mask_people_and_replay_links(finished: Finished) -> None:
    for spec in all_tables().values():
        for metadata in metadata_of(finished.instance, spec).values():
            preview = str(metadata.get("preview", ""))
            assert "accessResourceKey" not in preview
            assert not re.search(r"[\w.]+@[\w.]+\.\w+", preview), spec.qualified_name


def test_replay_of_everything_asks_nobody(
    finished: Finished, vendors: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in finished.house.environment.items():
        monkeypatch.setenv(name, value)
    lake = Lake(finished.house.home.lake)
    spec = all_tables()["inspectlet/sessions"]
    before = {day: lake.partition_path(spec, "shop", day).read_bytes() for day in TWO_DAYS}
    for day in TWO_DAYS:
        lake.partition_path(spec, "shop", day).unlink()
    runner = Runner(load_settings(), finished.instance)
    (result,) = runner.replay(TWO_DAYS[0], TWO_DAYS[-1], vendors=["inspectlet"], sites=["shop"])
    assert (result.state, len(vendors.requests)) == ("done", 0)
    assert {day: lake.partition_path(spec, "shop", day).read_bytes() for day in TWO_DAYS} == before


# -------------------------------------------------------------------------- a vendor that is off, refused, or down


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits: neither the transport between attempts nor Dagster between retries of a step."""
    monkeypatch.setattr(SystemClock, "sleep", lambda self, seconds: None)
    monkeypatch.setattr(dg.RetryPolicy, "calculate_delay", lambda self, attempt_num: 0.0)


def _missing(house: House, vendors: Sandbox, patch: pytest.MonkeyPatch) -> None:
    patch.delenv("INSPECTLET_API_TOKEN")
    patch.delenv("INSPECTLET_USERNAME")


def _wrong_token(house: House, vendors: Sandbox, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("INSPECTLET_API_TOKEN", "canary-wrong-token-1234")


def _unavailable(house: House, vendors: Sandbox, patch: pytest.MonkeyPatch) -> None:
    vendors.faults.add("inspectlet", "", fault=faults.status(503), times=10**6)


def _refused(house: House, vendors: Sandbox, patch: pytest.MonkeyPatch) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        patch.setenv("INSPECTLET_BASE_URL", f"http://127.0.0.1:{bound.getsockname()[1]}")


@pytest.mark.parametrize(
    ("arrange", "state", "says"),
    [
        (_missing, "off", ("INSPECTLET_USERNAME", "INSPECTLET_API_TOKEN", "not set")),
        (_wrong_token, "failed", ("inspectlet", "401", "INSPECTLET_API_TOKEN")),
        (_unavailable, "failed", ("inspectlet", "503")),
        (_refused, "failed", ("inspectlet", "connect")),
    ],
    ids=["no credentials", "wrong token", "always 503", "connection refused"],
)
@pytest.mark.usefixtures("at_once")
def test_one_vendor_fails_with_a_cause_and_the_other_finishes(
    house: House,
    vendors: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    arrange: Any,
    state: str,
    says: tuple[str, ...],
) -> None:
    arrange(house, vendors, monkeypatch)
    with dg.DagsterInstance.ephemeral() as instance:
        results = run(Runner(house.settings, instance), "inspectlet", "kissmetrics")
    assert results["kissmetrics"].state == "done"
    assert results["inspectlet"].state == state
    for part in says:
        assert part.lower() in results["inspectlet"].message.lower()
    assert "canary" not in results["inspectlet"].message
    assert "Traceback" not in results["inspectlet"].message


def test_without_credentials_the_uis_own_path_names_every_variable(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INSPECTLET_API_TOKEN")
    with dg.DagsterInstance.ephemeral() as instance:
        outcome = Runner(house.settings, instance).job.execute_in_process(
            asset_selection=[dg.AssetKey(["inspectlet", "sessions"])],
            instance=instance,
            raise_on_error=False,
            tags=range_tags("shop", FIRST_DAY, LAST_DAY),
        )
    (failure,) = [event.step_failure_data for event in outcome.all_events if event.is_step_failure]
    assert failure.user_failure_data is not None
    assert "INSPECTLET_API_TOKEN is not set" in str(failure.user_failure_data.description)
    assert "Next: Set it" in str(failure.user_failure_data.description)


def test_a_429_defers_the_rest_and_the_run_is_green(house: House, vendors: Sandbox) -> None:
    (stream,) = [stream for stream in streams_of("pirsch") if stream.span == "day"]
    (calls_a_day,) = {_requests_a_day(house, vendors, stream)}
    vendors.faults.add(
        "pirsch",
        "statistics",
        nth=calls_a_day + REQUESTS_IN_FLIGHT + 1,  # so late that the newest day's requests have all been answered
        fault=faults.status(429, headers={"Retry-After": "3600"}),
        times=10**6,
    )
    with dg.DagsterInstance.ephemeral() as instance:
        runner = Runner(house.settings, instance)
        outcome = runner.job.execute_in_process(
            asset_selection=[dg.AssetKey(spec.asset_key) for spec in stream.tables],
            instance=instance,
            tags=range_tags("blog", FIRST_DAY, LAST_DAY),
        )
        assert outcome.success
        done = len(metadata_of(instance, stream.tables[0]))
        assert 0 < done < DAYS
        for spec in stream.tables:
            assert set(metadata_of(instance, spec)) == {partition_key(day, "blog") for day in ALL_DAYS[-done:]}
            (seen,) = observations(instance, spec.asset_key, state="deferred")
            assert str(seen.description).startswith("Deferred until ")
            assert (seen.metadata["state"].value, seen.metadata["deferred_days"].value) == ("deferred", DAYS - done)
    with open_ledger(house.settings) as ledger:
        (deferral,) = ledger.deferrals()
    assert (deferral.site, deferral.first_day, deferral.last_day) == ("blog", FIRST_DAY, ALL_DAYS[-done - 1])
    assert timedelta(minutes=55) < deferral.resume_at - datetime.now(UTC) < timedelta(minutes=65)


def test_a_partition_whose_mark_was_lost_is_marked_by_the_next_run_without_a_request(
    house: House, vendors: Sandbox
) -> None:
    """A kill may lose the last events of a run, after the lake has the partition."""
    (stream,) = [stream for stream in streams_of("pirsch") if stream.span == "day"]
    for is_first in (True, False):
        vendors.requests.clear()
        with dg.DagsterInstance.ephemeral() as forgetful:
            done = Runner(house.settings, forgetful).job.execute_in_process(
                asset_selection=[dg.AssetKey(spec.asset_key) for spec in stream.tables],
                instance=forgetful,
                tags=range_tags("shop", FIRST_DAY, FIRST_DAY),
            )
            assert done.success
            for spec in stream.tables:
                assert set(metadata_of(forgetful, spec)) == {partition_key(FIRST_DAY, "shop")}
        assert (vendors.requests.count(vendor="pirsch") > 0) == is_first


def _requests_a_day(house: House, vendors: Sandbox, stream: Stream) -> int:
    """How many statistics requests one finished day costs, measured on the other site."""
    vendors.requests.clear()
    with dg.DagsterInstance.ephemeral() as instance:
        Runner(house.settings, instance).job.execute_in_process(
            asset_selection=[dg.AssetKey(spec.asset_key) for spec in stream.tables],
            instance=instance,
            tags=range_tags("shop", FIRST_DAY, FIRST_DAY),
        )
    return vendors.requests.count(vendor="pirsch", path="statistics")


# ---------------------------------------------------------------------------------- one small vendor, every outcome

ACME_DAYS = [date(2026, 10, 5) + timedelta(days=n) for n in range(4)]

SPEC = TableSpec(
    vendor="acme",
    name="visits",
    description="One row per visit.",
    key=("id",),
    columns=(
        Column(name="id", type="VARCHAR", description="Id.", nullable=False),
        Column(name="title", type="VARCHAR", description="Title.", expr="'<b>|`' || r.id"),
        Column(name="email", type="VARCHAR", description="E-mail.", sensitivity=Sensitivity.PERSONAL),
        Column(name="duration_seconds", type="DOUBLE", description="Seconds.", minimum=0, maximum=100),
    ),
    wire={"id": "VARCHAR", "email": "VARCHAR", "duration_seconds": "DOUBLE"},
    calls=("visits",),
    minimum_rows=1,
)


class Acme:
    """A vendor in this process: one call a day, failing on the days it is told to."""

    def __init__(self) -> None:
        self.fails: dict[tuple[str, date], PlatformError] = {}
        self.durations: dict[date, float] = {}
        self.empty: set[date] = set()
        self.asked: list[tuple[str, date]] = []

    def page(self, site: str, day: date) -> Page:
        self.asked.append((site, day))
        if (site, day) in self.fails:
            raise self.fails[site, day]
        row = {"id": f"{site}-{day}", "email": "jane@x.example", "duration_seconds": self.durations.get(day, 5.0)}
        return Page(
            call="visits",
            call_kind="visits",
            sequence=0,
            is_last=True,
            body=json.dumps([] if day in self.empty else [row]).encode(),
            status=200,
            endpoint="GET /visits",
            received_at=datetime.now(UTC),
            context={"day": str(day)},
            records=1,
            attempts=1,
        )


_ACME: list[Acme] = []


def extract_visits(client: Acme, extraction: Extraction) -> Iterator[Page]:
    if "visits" not in extraction.done_calls:
        yield client.page(extraction.site_key, extraction.first_day)


class AcmeResource(VendorResource):
    """Always configured."""

    @property
    def vendor(self) -> str:
        return "acme"

    def missing_variables(self, ids: Mapping[str, str]) -> tuple[str, ...]:
        return ()

    def quota_policy(self, ids: Mapping[str, str]) -> QuotaPolicy:
        return QuotaPolicy(account="acme:1", windows={"any": (Window(1000, 60.0),)})

    def connect(self, ids: Mapping[str, str], ledger: Ledger) -> AbstractContextManager[Any]:
        @contextmanager
        def opened() -> Iterator[Acme]:
            yield _ACME[-1]

        return opened()


STREAM = Stream(vendor="acme", name="visits", tables=(SPEC,), span="day", extract=extract_visits)


@dataclass
class Bench:
    acme: Acme
    home: Home
    instance: dg.DagsterInstance
    checks: tuple[VendorCheck, ...] = ()

    def run(self, *keys: str, tags: Mapping[str, str] | None = None) -> dg.ExecuteInProcessResult:
        assets = vendor_assets(
            [STREAM], settings=load_settings(), specs_by_name={"acme/visits": SPEC}, checks=self.checks
        )
        job = dg.Definitions(
            assets=assets, resources={"platform": PlatformResource(), "acme": AcmeResource()}
        ).resolve_implicit_global_asset_job_def()
        first, last = keys[0], keys[-1]
        ranged = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
        return job.execute_in_process(instance=self.instance, raise_on_error=False, tags={**ranged, **(tags or {})})

    @property
    def green(self) -> set[str]:
        return self.instance.get_materialized_partitions(dg.AssetKey(SPEC.asset_key))

    @property
    def blocked(self) -> list[tuple[str, date]]:
        return [(site, day) for _, _, site, day in Lake(self.home.lake).blocked()]


def keys(*days: date, site: str = "shop") -> list[str]:
    return [partition_key(day, site) for day in days]


@pytest.fixture
def bench(home: Home) -> Iterator[Bench]:
    sites = [
        {"key": key, "timezone": "Europe/Berlin", "start_date": ACME_DAYS[0], "vendors": {"acme": {"id": 1}}}
        for key in ("shop", "blog")
    ] + [{"key": "plain", "start_date": ACME_DAYS[0], "vendors": {}}]
    Path(os.environ["ANALYTICS_PLATFORM_CONFIG"]).write_text(yaml.safe_dump({"sites": sites}), encoding="utf-8")
    acme = Acme()
    _ACME.append(acme)
    with dg.DagsterInstance.ephemeral() as instance:
        yield Bench(acme, home, instance)


def description(outcome: dg.ExecuteInProcessResult) -> str:
    (failure,) = [event.step_failure_data for event in outcome.all_events if event.is_step_failure]
    assert failure.user_failure_data is not None
    return str(failure.user_failure_data.description)


def test_out_of_quota_exactly_the_finished_days_are_green(bench: Bench) -> None:
    resume_at = datetime(2026, 12, 1, 10, tzinfo=UTC)
    bench.acme.fails["shop", ACME_DAYS[1]] = QuotaExhausted("spent", resume_at=resume_at)
    outcome = bench.run(*keys(ACME_DAYS[0], ACME_DAYS[3]))
    assert outcome.success
    assert bench.green == set(keys(*ACME_DAYS[2:]))
    (seen,) = observations(bench.instance, SPEC.asset_key, state="deferred")
    assert seen.description == "Deferred until 2026-12-01 10:00 UTC, 2 records landed so far."
    with open_ledger(load_settings()) as ledger:
        (deferral,) = ledger.deferrals()
    assert (deferral.first_day, deferral.last_day, deferral.resume_at) == (ACME_DAYS[0], ACME_DAYS[1], resume_at)
    # The next attempt pays for what is left, turns it green, and forgets the deferral.
    bench.acme.fails.clear()
    bench.acme.asked.clear()
    assert bench.run(*keys(ACME_DAYS[0], ACME_DAYS[3])).success
    assert bench.acme.asked == [("shop", day) for day in ACME_DAYS[1::-1]]
    assert bench.green == set(keys(*ACME_DAYS))
    with open_ledger(load_settings()) as ledger:
        assert ledger.deferrals() == ()


def test_out_of_quota_before_anything_is_green_with_nothing_materialised(bench: Bench) -> None:
    bench.acme.fails["shop", ACME_DAYS[0]] = QuotaExhausted("spent")
    assert bench.run(*keys(ACME_DAYS[0])).success
    assert bench.green == set()
    assert len(observations(bench.instance, SPEC.asset_key)) == 1


def test_a_failure_records_what_was_finished_and_does_not_retry_what_will_fail_again(bench: Bench) -> None:
    bench.acme.fails["shop", ACME_DAYS[2]] = PermissionDenied("The token may not read this.", "Ask the owner.")
    outcome = bench.run(*keys(ACME_DAYS[0], ACME_DAYS[3]))
    assert not outcome.success
    assert bench.green == set(keys(ACME_DAYS[3]))
    assert description(outcome) == (
        "The token may not read this. [vendor acme, site shop, partition 2026-10-05..2026-10-07] Next: Ask the owner."
    )
    assert len(bench.acme.asked) == 2


@pytest.mark.usefixtures("at_once")
def test_a_transient_failure_is_retried_by_dagster_and_then_shown(bench: Bench) -> None:
    bench.acme.fails["shop", ACME_DAYS[0]] = VendorUnavailable("503 after three attempts")
    outcome = bench.run(*keys(ACME_DAYS[0]))
    assert not outcome.success
    assert len(bench.acme.asked) == 3


def test_a_site_that_does_not_use_the_vendor_says_so(bench: Bench) -> None:
    outcome = bench.run(*keys(ACME_DAYS[0], site="plain"))
    assert "Site plain does not use acme." in description(outcome)
    assert bench.acme.asked == []


def test_a_failed_blocking_check_fails_the_run_and_blocks_only_its_day(bench: Bench) -> None:
    bench.acme.durations[ACME_DAYS[1]] = 31337.0
    outcome = bench.run(*keys(ACME_DAYS[0], ACME_DAYS[2]))
    assert not outcome.success
    assert bench.blocked == [("shop", ACME_DAYS[1])]
    failed = [e for e in outcome.get_asset_check_evaluations() if not e.passed]
    assert [evaluation.check_name for evaluation in failed] == ["values_are_valid"]
    assert failed[0].metadata["failing_days"].value == "2026-10-06"
    assert "31337" not in str([event.to_string() if hasattr(event, "to_string") else repr(event) for event in failed])
    # A later verdict on the corrected day clears it.
    bench.acme.durations.clear()
    assert bench.run(*keys(ACME_DAYS[1]), tags={"analytics_platform/refresh": "true"}).success
    assert bench.blocked == []


def test_an_empty_closed_day_is_below_its_floor(bench: Bench) -> None:
    """M18: every other rule passes on an empty frame."""
    bench.acme.empty.add(ACME_DAYS[2])
    assert not bench.run(*keys(ACME_DAYS[0], ACME_DAYS[2])).success
    assert bench.blocked == [("shop", ACME_DAYS[2])]


@pytest.mark.parametrize("blocking", [True, False])
def test_a_vendors_own_check_runs_on_the_rows_written(bench: Bench, blocking: bool) -> None:
    def one_row_a_day(frame: Any) -> Finding:
        return Finding(passed=False, description="Looked.", failing_days=(ACME_DAYS[0],), metrics={"rows": len(frame)})

    bench.checks = (
        VendorCheck(table="visits", name="own_rule", description="Own.", blocking=blocking, run=one_row_a_day),
        VendorCheck(table="other", name="not_mine", description="No.", blocking=True, run=one_row_a_day),
    )
    outcome = bench.run(*keys(ACME_DAYS[0], ACME_DAYS[1]))
    assert outcome.success is not blocking
    assert bench.blocked == ([("shop", ACME_DAYS[0])] if blocking else [])
    (own,) = [e for e in outcome.get_asset_check_evaluations() if e.check_name == "own_rule"]
    assert (own.passed, own.metadata["rows"].value) == (False, 2)


def test_a_preview_masks_people_and_escapes_markup(bench: Bench) -> None:
    bench.run(*keys(ACME_DAYS[0]))
    (metadata,) = metadata_of(bench.instance, SPEC).values()
    preview = str(metadata["preview"])
    assert "&lt;b&gt;\\|'" in preview
    assert "•••" in preview
    assert "jane" not in preview


def test_replay_costs_nothing_and_leaves_the_deferral_alone(bench: Bench) -> None:
    bench.acme.fails["shop", ACME_DAYS[1]] = QuotaExhausted("spent")
    bench.run(*keys(ACME_DAYS[0], ACME_DAYS[1]))
    bench.acme.asked.clear()
    assert bench.run(*keys(ACME_DAYS[0], ACME_DAYS[1]), tags={REPLAY_TAG: "true"}).success
    assert bench.acme.asked == []
    with open_ledger(load_settings()) as ledger:
        assert len(ledger.deferrals()) == 1


def test_every_asset_tells_its_columns_owner_kinds_and_sensitivity(bench: Bench) -> None:
    (assets,) = vendor_assets([STREAM], settings=load_settings(), specs_by_name={"acme/visits": SPEC})
    (spec,) = assets.specs
    schema = spec.metadata["dagster/column_schema"]
    assert [column.name for column in schema.columns] == [column.name for column in SPEC.all_columns]
    assert spec.tags["pii"] == "true"
    assert spec.kinds == {"python", "parquet"}
    assert list(spec.owners) == ["team:analytics"]
    assert {check.name for check in assets.check_specs} >= {"keys_are_unique", "rows_arrived", "values_are_valid"}


def test_a_stream_waits_for_deferred_work_whose_rows_it_reads(house: House, vendors: Sandbox) -> None:
    """Half of a day's sessions would look like all of its visitors."""
    with open_ledger(house.settings) as ledger:
        ledger.defer(
            vendor="smartlook",
            stream="sessions",
            site="shop",
            first_day=FIRST_DAY,
            last_day=FIRST_DAY,
            resume_at=datetime.now(UTC),
            reason="no request is left",
        )
        job = build_definitions(house.settings).resolve_implicit_global_asset_job_def()
        with dg.DagsterInstance.ephemeral() as instance:
            result = job.execute_in_process(
                instance=instance,
                asset_selection=[dg.AssetKey(["smartlook", "events"])],
                partition_key=f"{FIRST_DAY}|shop",
            )
        assert result.success
        assert not result.asset_materializations_for_node("smartlook__events")
        (waits,) = [deferral for deferral in ledger.deferrals() if deferral.stream == "events"]
        assert waits.reason == "It reads smartlook/sessions, which is deferred."
        assert waits.resume_at > datetime.now(UTC)
    assert len(vendors.requests) == 0


@pytest.mark.parametrize("selected", [("visits", "paths"), ("visits",)])
def test_a_cut_run_remembers_every_day_of_the_steps_it_skips(bench: Bench, selected: tuple[str, ...]) -> None:
    """Days whose rows are there by now would otherwise never be read; what was not selected is nobody's wish."""
    paths = replace(SPEC, name="paths")
    reader = replace(STREAM, name="walks", tables=(paths,), depends_on=("acme/visits",))
    specs = {"acme/visits": SPEC, "acme/paths": paths}
    job = dg.Definitions(
        assets=vendor_assets([STREAM, reader], settings=load_settings(), specs_by_name=specs),
        resources={"platform": PlatformResource(), "acme": AcmeResource()},
    ).resolve_implicit_global_asset_job_def()
    bench.acme.fails["shop", ACME_DAYS[1]] = QuotaExhausted("spent")
    outcome = job.execute_in_process(
        instance=bench.instance,
        asset_selection=[dg.AssetKey(["acme", name]) for name in selected],
        tags=range_tags("shop", ACME_DAYS[0], ACME_DAYS[3]),
    )
    assert outcome.success
    with open_ledger(load_settings()) as ledger:
        found = {d.stream: (d.first_day, d.last_day, d.resume_at) for d in ledger.deferrals()}
    assert found["visits"][:2] == (ACME_DAYS[0], ACME_DAYS[1])
    if "paths" in selected:
        assert found["walks"][:2] == (ACME_DAYS[0], ACME_DAYS[3])
        assert abs(found["walks"][2] - found["visits"][2]) < timedelta(seconds=5)
    else:
        assert set(found) == {"visits"}
