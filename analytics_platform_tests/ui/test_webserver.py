"""Everything a person sees and does in the Dagster UI, through the running UI's own GraphQL and in a real browser."""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import generate
from analytics_platform_tests.ui.browser import assert_drawn, browse
from analytics_platform_tests.ui.running_ui import RunningUi, running_ui, wait_until

FIRST_DAY = date(2026, 10, 5)
LAST_DAY = date(2026, 10, 6)
VENDORS = {"smartlook", "inspectlet", "pirsch", "kameleoon", "kissmetrics"}
MART_GROUPS = {"staging", "intermediate", "marts", "published"}
OTHER_GROUPS = {"quota", "send_back", "ops"}
"""Observed only; sent only where a site agreed to it, which the sandbox's sites do not; written before each build."""
RUN_SECONDS = 150.0
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}

# The mutations the UI's materialise button and backfill dialog send.
LAUNCH_RUNS = """mutation($list: [ExecutionParams!]!) { launchMultipleRuns(executionParamsList: $list) { __typename
  ... on LaunchMultipleRunsResult { launchMultipleRunsResult { __typename
    ... on LaunchRunSuccess { run { runId } } ... on Error { message } } }
  ... on PythonError { message } } }"""
LAUNCH_BACKFILL = """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on Error { message } } }"""
ASSETS = """{ assetNodes { assetKey { path } groupName kinds description computeKind pools isPartitioned
  owners { ... on TeamAssetOwner { team } ... on UserAssetOwner { email } } tags { key value }
  partitionDefinition { type } assetChecksOrError { ... on AssetChecks { checks { name description blocking } } }
  metadataEntries { label __typename ... on TableSchemaMetadataEntry { schema { columns { name type description } } } }
  dependencyKeys { path } } }"""


@dataclass
class Launched:
    """What was launched, and what came of it."""

    runs: dict[str, str]
    backfill: dict[str, Any]
    turns: list[tuple[float, float]]
    requests_of_checks: int


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    days = (LAST_DAY - FIRST_DAY).days + 1
    with Sandbox(generate(first_day=FIRST_DAY, days=days, scale=0.1)) as running:
        yield running


@pytest.fixture(scope="module")
def ui(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningUi]:
    home = tmp_path_factory.mktemp("ui") / "home"
    home.mkdir()
    config = home / "sites.yaml"
    config.write_text(sandbox.sites_yaml(), encoding="utf-8")
    environment = {**sandbox.environment(), "ANALYTICS_PLATFORM_CONFIG": str(config)}
    with running_ui(home, environment) as running:
        yield running


@pytest.fixture(scope="module")
def assets(ui: RunningUi) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ui.graphql(ASSETS)["assetNodes"]
    return found


@pytest.fixture(scope="module")
def launched(ui: RunningUi, assets: list[dict[str, Any]], sandbox: Sandbox) -> Launched:
    """Materialise everything: dated tables as one ranged run, snapshots as a backfill of today, then the marts. While
    dbt writes the warehouse, one more run wants it: publishing, a second time. At last two checks alone, as the
    Execute button of a check does.
    """
    first_site, last_site = (sandbox.world.sites[n].key for n in (0, -1))
    vendor_tables = [asset for asset in assets if asset["groupName"] in VENDORS]
    snapshots = [asset["assetKey"] for asset in vendor_tables if _tags(asset)["day_basis"] == "snapshot"]
    dated = [asset["assetKey"] for asset in vendor_tables if asset["assetKey"] not in snapshots]
    marts = [asset["assetKey"] for asset in assets if asset["groupName"] in MART_GROUPS]

    today = datetime.now(UTC).date()
    answer = ui.graphql(
        LAUNCH_BACKFILL,
        params={
            "assetSelection": snapshots,
            "partitionNames": [f"{today}|{site.key}" for site in sandbox.world.sites],
            "tags": [],
        },
    )["launchPartitionBackfill"]
    assert answer["__typename"] == "LaunchBackfillSuccess", answer
    tables = _launch(ui, _execution(dated, f"{FIRST_DAY}|{first_site}", f"{LAST_DAY}|{last_site}"))
    _wait_for_runs(ui, {tables}, at_least=2)
    building = _launch(ui, _execution(marts, str(FIRST_DAY), str(LAST_DAY)))
    wait_until(lambda: bool(_steps(ui, building)), seconds=RUN_SECONDS, what="dbt starts")
    publishing = _launch(ui, _execution([{"path": ["published"]}]))
    _wait_for_runs(ui, {building, publishing}, at_least=4)
    checks = [{"assetKey": {"path": ["smartlook", "sessions"]}, "name": "keys_are_unique"}]
    checks += [{"assetKey": {"path": ["fct_sessions"]}, "name": "fct_sessions_equals_staging"}]
    spent = sandbox.requests.count()
    checking = _launch(ui, _execution([], checks=checks))
    _wait_for_runs(ui, {checking}, at_least=5)
    backfill = answer["backfillId"]
    wait_until(lambda: _backfill(ui, backfill)["status"] != "REQUESTED", seconds=60, what="the backfill is accounted")
    return Launched(
        runs=_runs(ui),
        backfill=_backfill(ui, backfill),
        turns=_steps(ui, building) + _steps(ui, publishing),
        requests_of_checks=sandbox.requests.count() - spent,
    )


# ------------------------------------------------------------------------------------------------------- materialise


def test_every_asset_materialises(ui: RunningUi, launched: Launched, assets: list[dict[str, Any]]) -> None:
    assert launched.backfill["status"] == "COMPLETED_SUCCESS"
    assert set(launched.runs.values()) == {"SUCCESS"}, launched.runs
    found = ui.graphql(
        "{ assetNodes { assetKey { path } assetMaterializations(limit: 1) { runId partition } "
        "partitionStats { numMaterialized numFailed } } }"
    )["assetNodes"]
    assert len(found) == len(assets) > 70
    expected = [asset["assetKey"] for asset in assets if asset["groupName"] not in OTHER_GROUPS]
    missing = [
        "/".join(asset["assetKey"]["path"])
        for asset in found
        if asset["assetKey"] in expected and not asset["assetMaterializations"]
    ]
    assert missing == []
    days = (LAST_DAY - FIRST_DAY).days + 1
    filled = {
        "/".join(a["assetKey"]["path"]): a["partitionStats"]["numMaterialized"] for a in found if a["partitionStats"]
    }
    sites = 2
    assert filled["smartlook/sessions"] == filled["pirsch/daily_stats"] == days * sites
    assert filled["kissmetrics/events"] == sites
    assert filled["fct_sessions"] == days


def test_materialisations_say_rows_and_requests(ui: RunningUi, launched: Launched) -> None:
    entries = _latest_metadata(ui, ["inspectlet", "sessions"])
    assert {"dagster/partition_row_count", "requests_this_run", "landed_at", "dagster/uri", "size_bytes"} <= set(
        entries
    )
    assert _latest_metadata(ui, ["published"])["version"]["intValue"] >= 1
    assert _latest_metadata(ui, ["fct_sessions"])["dagster/row_count"]["intValue"] > 0


def test_checks_ran_and_none_failed_to_execute(ui: RunningUi, launched: Launched) -> None:
    checks = ui.graphql(
        "{ assetNodes { assetKey { path } assetChecksOrError { ... on AssetChecks { checks { name "
        "executionForLatestMaterialization { status evaluation { success severity } } } } } } }"
    )["assetNodes"]
    statuses = Counter(
        (check["executionForLatestMaterialization"] or {}).get("status")
        for asset in checks
        for check in asset["assetChecksOrError"]["checks"]
    )
    assert statuses["SUCCEEDED"] > 100
    assert statuses["EXECUTION_FAILED"] == 0
    assert launched.requests_of_checks == 0, "the Execute button of a check asks no vendor"


def test_writers_of_the_warehouse_take_turns(ui: RunningUi, launched: Launched) -> None:
    """PRACTICE §7.5: without the pool, publishing would open the warehouse while dbt writes it."""
    instance = ui.graphql(
        "{ instance { poolConfig { poolGranularity defaultPoolLimit } "
        "concurrencyLimits { concurrencyKey limit activeSlotCount } } }"
    )["instance"]
    assert instance["poolConfig"] == {"poolGranularity": "op", "defaultPoolLimit": 1}
    limits = {item["concurrencyKey"]: item for item in instance["concurrencyLimits"]}
    assert limits["warehouse"]["limit"] == 1
    assert all(item["activeSlotCount"] == 0 for item in limits.values()), "a slot was kept after the runs ended"
    turns = sorted(launched.turns)
    assert len(turns) == 3
    for earlier, later in pairwise(turns):
        assert earlier[1] <= later[0] + 0.01


# --------------------------------------------------------------------------------------------------- what is written


def test_every_asset_says_what_it_is(assets: list[dict[str, Any]]) -> None:
    for asset in assets:
        name = "/".join(asset["assetKey"]["path"])
        assert asset["groupName"] in VENDORS | MART_GROUPS | OTHER_GROUPS, name
        assert len(asset["description"] or "") > 20, name
        if asset["groupName"] in OTHER_GROUPS:
            continue
        assert asset["owners"], name
        assert len(asset["kinds"]) == 2, name
        if asset["groupName"] in VENDORS:
            assert _tags(asset)["vendor"] == asset["groupName"] == asset["assetKey"]["path"][0]
            assert asset["pools"] == [f"{asset['groupName']}_api"]
            assert asset["assetChecksOrError"]["checks"], name
        else:
            assert asset["pools"] == ["warehouse"], name
        if name != "published":
            columns = [e for e in asset["metadataEntries"] if e["__typename"] == "TableSchemaMetadataEntry"]
            assert len(columns) == 1, name
            assert columns[0]["schema"]["columns"], name
            assert all(column["description"] for column in columns[0]["schema"]["columns"]), name
        assert all(check["description"] for check in asset["assetChecksOrError"]["checks"]), name


def test_lineage_runs_from_every_vendor_to_published(assets: list[dict[str, Any]]) -> None:
    parents = {_name(asset): {"/".join(key["path"]) for key in asset["dependencyKeys"]} for asset in assets}
    reached: set[str] = set()
    waiting = ["published"]
    while waiting:
        for parent in parents[waiting.pop()] - reached:
            reached.add(parent)
            waiting.append(parent)
    assert {name.split("/")[0] for name in reached if "/" in name} == VENDORS | {"ops"}


def test_schedules_sensors_jobs_and_daemons(ui: RunningUi) -> None:
    found = ui.graphql(
        "{ repositoriesOrError { ... on RepositoryConnection { nodes { "
        "schedules { name description cronSchedule executionTimezone } sensors { name description } "
        "pipelines { name description } } } } }"
    )["repositoriesOrError"]["nodes"]
    (repository,) = found
    schedules = {item["name"]: item for item in repository["schedules"]}
    assert {f"{vendor}_daily_schedule" for vendor in VENDORS} <= set(schedules)
    assert len({item["cronSchedule"] for item in schedules.values()}) == len(schedules), "staggered"
    sensors = {item["name"] for item in repository["sensors"]}
    assert {"failure_sensor"} | {f"{vendor}_quota_reset_sensor" for vendor in VENDORS} <= sensors
    described = [*repository["schedules"], *repository["sensors"]]
    described += [job for job in repository["pipelines"] if not job["name"].startswith("__")]
    assert [item["name"] for item in described if not item["description"]] == []

    def healthy() -> bool:
        health = ui.graphql("{ instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } } }")
        return all(d["healthy"] for d in health["instance"]["daemonHealth"]["allDaemonStatuses"] if d["required"])

    wait_until(healthy, seconds=40, what="every daemon is healthy")


def test_no_secret_is_shown_or_stored(ui: RunningUi, launched: Launched, sandbox: Sandbox) -> None:
    resources = ui.graphql(
        "{ repositoriesOrError { ... on RepositoryConnection { nodes { allTopLevelResourceDetails { name "
        "configFields { name description } configuredValues { key value type } } } } } }"
    )["repositoriesOrError"]["nodes"][0]["allTopLevelResourceDetails"]
    credentials = _credentials(sandbox)
    configured = {(item["name"], value["key"]): value for item in resources for value in item["configuredValues"]}
    secret_fields = [key for key in configured if re.search("token|secret|client_id|username", key[1])]
    assert len(secret_fields) >= 8
    for key in secret_fields:
        assert configured[key]["type"] == "ENV_VAR", key
        assert configured[key]["value"] in sandbox.environment(), key
    _read_every_log(ui, launched)
    needles = _spellings(credentials)
    for answer in ui.answers:
        assert [name for name, needle in needles if needle in answer] == []
    read = 0
    for path in ui.home.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            read += len(content)
            assert [name for name, needle in needles if needle in content] == [], path
    assert read > 1_000_000


# ----------------------------------------------------------------------------------------------------------- the guard


def test_other_web_pages_cannot_use_the_ui(ui: RunningUi) -> None:
    """RELIABILITY M9, T5: each of these starts a run on the stock webserver."""
    mutation = "mutation { setSensorEvaluation: __typename }"
    content = json.dumps({"query": mutation}).encode()
    json_type = {"content-type": "application/json"}
    own = f"127.0.0.1:{ui.port}"
    path = "/graphql?query=mutation%7B__typename%7D"
    refused = [
        ("GET", path, {}, None),
        ("GET", path, {"accept": "application/json"}, None),
        ("HEAD", path, {}, None),
        ("GET", "/graphql/?query=mutation%7B__typename%7D", {}, None),
        ("POST", path, {"content-type": "text/plain"}, b""),
        ("POST", "/graphql", {"content-type": "text/plain; application/json"}, content),
        ("POST", "/graphql", {"content-type": "application/x-www-form-urlencoded"}, b"query=mutation{__typename}"),
        ("POST", "/graphql", {"content-type": "application/graphql"}, mutation.encode()),
        ("POST", "/graphql", {}, content),
        ("POST", "/graphql", {**json_type, "host": "evil.example"}, content),
        ("POST", "/graphql", {**json_type, "host": f"evil.example:{ui.port}"}, content),
        ("POST", "/graphql", {**json_type, "host": "127.0.0.1.evil.example"}, content),
        ("POST", "/graphql", {**json_type, "origin": "http://evil.example"}, content),
        ("POST", "/graphql", {**json_type, "origin": "null"}, content),
        ("POST", "/graphql", {**json_type, "origin": "http://127.0.0.1:8888"}, content),
        ("GET", "/", {"host": "evil.example"}, None),
        ("POST", "/report_asset_materialization/published", {"content-type": "text/plain"}, b"{}"),
        ("GET", "/graphql", {**_WEBSOCKET, "host": own, "origin": "http://evil.example"}, None),
        ("GET", "/graphql", {**_WEBSOCKET, "host": "evil.example"}, None),
    ]
    for method, path, headers, body in refused:
        status, _ = ui.request(method, path, headers=headers, body=body)
        assert status == 403, (method, path, headers)


def test_the_users_own_tab_and_tools_are_served(ui: RunningUi) -> None:
    content = json.dumps({"query": "{ version }"}).encode()
    json_type = {"content-type": "application/json; charset=utf-8"}
    own = f"127.0.0.1:{ui.port}"
    served = [
        ("GET", "/", {}, None, 200),
        ("GET", "/graphql", {"accept": "text/html,*/*"}, None, 200),
        ("POST", "/graphql", json_type, content, 200),
        ("POST", "/graphql", {**json_type, "host": "localhost:9999", "origin": "http://localhost:9999"}, content, 200),
        ("GET", "/graphql", {**_WEBSOCKET, "host": own, "origin": f"http://{own}"}, None, 101),
    ]
    for method, path, headers, body, expected in served:
        status, _ = ui.request(method, path, headers=headers, body=body)
        assert status == expected, (method, path, headers)


def test_it_listens_on_loopback_only(ui: RunningUi) -> None:
    listening = {
        line.split()[1]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]
        if line.split()[3] == "0A" and line.split()[1].endswith(f":{ui.port:04X}")
    }
    assert listening == {f"0100007F:{ui.port:04X}"}


# ------------------------------------------------------------------------------------------------------------ browser


@pytest.mark.browser
def test_the_asset_graph_in_a_browser(ui: RunningUi, launched: Launched, tmp_path: Path) -> None:
    page = browse(f"http://127.0.0.1:{ui.port}/asset-groups", tmp_path)
    assert "Global asset lineage" in page.dom
    assert [name for name in sorted(VENDORS | MART_GROUPS) if name not in page.dom] == []
    assert_drawn(page)


@pytest.mark.browser
def test_an_asset_page_in_a_browser(ui: RunningUi, launched: Launched, tmp_path: Path) -> None:
    page = browse(f"http://127.0.0.1:{ui.port}/assets/smartlook/sessions?view=overview", tmp_path)
    for text in ("duration_seconds", "One row per recorded session", "smartlook_daily", "Parquet", "sensitivity"):
        assert text in page.dom, text
    assert_drawn(page)


# ------------------------------------------------------------------------------------------------------------- details

_WEBSOCKET = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": base64.b64encode(b"sixteen bytes ok").decode(),
    "sec-websocket-protocol": "graphql-ws",
}


def _name(asset: dict[str, Any]) -> str:
    return "/".join(asset["assetKey"]["path"])


def _tags(asset: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in asset["tags"]}


def _execution(
    keys: list[dict[str, Any]], *first_and_last: str, checks: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """What the UI sends for an asset selection, a range of partitions as one run, or checks alone."""
    names = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
    return {
        "selector": {
            "repositoryName": "__repository__",
            "repositoryLocationName": "analytics_platform",
            "pipelineName": "__ASSET_JOB",
            "assetSelection": keys,
            "assetCheckSelection": checks,
        },
        "mode": "default",
        "runConfigData": "{}",
        "executionMetadata": {
            "tags": [{"key": name, "value": key} for name, key in zip(names, first_and_last, strict=False)]
        },
    }


def _launch(ui: RunningUi, execution: dict[str, Any]) -> str:
    (answer,) = ui.graphql(LAUNCH_RUNS, list=[execution])["launchMultipleRuns"]["launchMultipleRunsResult"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    run_id: str = answer["run"]["runId"]
    return run_id


def _wait_for_runs(ui: RunningUi, run_ids: set[str], *, at_least: int) -> None:
    """Until these have ended and nothing else runs; `at_least` counts the runs the daemon makes of a backfill too."""

    def ended() -> bool:
        runs = _runs(ui)
        return len(runs) >= at_least and run_ids <= set(runs) and set(runs.values()) <= ENDED

    wait_until(ended, seconds=RUN_SECONDS, what=f"runs {run_ids} end")


def _runs(ui: RunningUi) -> dict[str, str]:
    found = ui.graphql("{ runsOrError { ... on Runs { results { runId status } } } }")["runsOrError"]["results"]
    return {run["runId"]: run["status"] for run in found}


def _steps(ui: RunningUi, run_id: str) -> list[tuple[float, float]]:
    """When the run's steps ran; one that still runs has no end yet."""
    query = "query($id: ID!) { runOrError(runId: $id) { ... on Run { stepStats { startTime endTime } } } }"
    found = ui.graphql(query, id=run_id)["runOrError"]["stepStats"]
    return [(step["startTime"], step["endTime"]) for step in found if step["startTime"]]


def _backfill(ui: RunningUi, backfill_id: str) -> dict[str, Any]:
    query = """query($id: String!) { partitionBackfillOrError(backfillId: $id) {
      ... on PartitionBackfill { status error { message } } } }"""
    found: dict[str, Any] = ui.graphql(query, id=backfill_id)["partitionBackfillOrError"]
    return found


def _latest_metadata(ui: RunningUi, path: list[str]) -> dict[str, dict[str, Any]]:
    query = """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
      assetMaterializations(limit: 1) { metadataEntries { label ... on IntMetadataEntry { intValue } } } } } }"""
    node = ui.graphql(query, key={"path": path})["assetNodeOrError"]
    return {entry["label"]: entry for entry in node["assetMaterializations"][0]["metadataEntries"]}


def _read_every_log(ui: RunningUi, launched: Launched) -> None:
    """Fetch what the run pages show, so that it is among the answers that are searched."""
    query = """query($id: ID!, $after: String) { logsForRun(runId: $id, afterCursor: $after) {
      ... on EventConnection { cursor hasMore events { __typename ... on MessageEvent { message }
        ... on MaterializationEvent { assetKey { path } metadataEntries { label description
          ... on TextMetadataEntry { text } ... on MarkdownMetadataEntry { mdStr }
          ... on JsonMetadataEntry { jsonString } } } } } } }"""
    for run_id in launched.runs:
        after, more = None, True
        while more:
            page = ui.graphql(query, id=run_id, after=after)["logsForRun"]
            after, more = page["cursor"], page["hasMore"]
    ui.graphql("{ runsOrError { ... on Runs { results { runConfigYaml tags { key value } } } } }")


def _credentials(sandbox: Sandbox) -> dict[str, str]:
    secret_names = re.compile("TOKEN|SECRET|CLIENT_ID|USERNAME")
    return {name: value for name, value in sandbox.environment().items() if secret_names.search(name)}


def _spellings(credentials: dict[str, str]) -> list[tuple[str, bytes]]:
    """Each credential as it is and as HTTP Basic would carry it."""
    found = [(name, value.encode()) for name, value in credentials.items()]
    for name, value in credentials.items():
        found.append((f"{name} in base64", base64.b64encode(value.encode()).rstrip(b"=")))
    assert all(len(needle) >= 6 for _, needle in found)
    return found
