"""Check and discover: credentials that are good, wrong and missing, and tables that are what they declare."""

from __future__ import annotations

from typing import Any

import duckdb
import pytest

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.errors import AuthenticationFailed, MissingCredentials
from analytics_platform.core.quota import Ledger
from analytics_platform.vendors import all_tables, vendor_resource
from analytics_platform_tests.acceptance.case import CASES, VendorCase
from analytics_platform_tests.acceptance.rig import NOON, SITE, Bench, Rig, done

pytestmark = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture
def ledger(tmp_path: Any) -> Any:
    with Ledger.open(tmp_path / "ledger.db", ManualClock(NOON)) as opened:
        yield opened


def test_check_good_credentials(
    bench: Bench, case: VendorCase, rig: Rig, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the vendor's own resource, as a run does it: nothing is missing, and the client it opens can read."""
    for name, value in bench.environment.items():
        monkeypatch.setenv(name, value)
    ids = bench.site(case).ids
    resource = vendor_resource(case.vendor)
    assert resource.missing_variables(ids) == ()
    resource.require(ids)
    with resource.connect(ids, ledger) as client:
        assert type(client) is type(case.connect(bench.environment, ids))
    done(rig.probe(tables=[case.probe_table]))
    assert bench.sandbox.requests.count(vendor=case.vendor, status=401) == 0


def test_check_bad_credentials(bench: Bench, case: VendorCase, rig: Rig, reason: str) -> None:
    """Names the variable to look at, tells no secret, and asks no more often than it takes to know."""
    wrong = "W" * len(bench.environment[case.secret])
    outcome = rig.probe(environment={**bench.environment, case.secret: wrong})
    assert isinstance(outcome.error, AuthenticationFailed), outcome.error
    text = str(outcome.error)
    assert [name for name in case.variables if name in text], text
    assert not [secret for secret in (wrong, *_secrets(bench, case)) if secret in text]
    assert (case.refusals == 1) != bool(reason), "more than one request has its reason"
    assert 1 <= len(bench.sandbox.requests) <= case.refusals
    assert outcome.decoded == {}


def test_refused_credentials_are_not_tried_again_for_every_request(bench: Bench, case: VendorCase) -> None:
    """A client whose id and secret were refused asks the token host once, whatever is asked of it (RELIABILITY B1)."""
    wrong = {**bench.environment, case.secret: "W" * len(bench.environment[case.secret])}
    with case.connect(wrong, bench.site(case).ids, clock=ManualClock(NOON)) as client:
        for _ in range(3):
            with pytest.raises(AuthenticationFailed):
                case.ask(client, bench.site(case).ids)
    tokens = sum("token" in record.path for record in bench.sandbox.requests.records())
    assert tokens <= 1
    assert tokens or len(bench.sandbox.requests) == 3, "without a token host every refusal is one request"


def test_check_missing_credentials(
    bench: Bench, case: VendorCase, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every missing variable by name at once, before a request."""
    for name in bench.environment:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(f"{case.vendor.upper()}_BASE_URL", bench.environment[f"{case.vendor.upper()}_BASE_URL"])
    ids = bench.site(case).ids
    resource = vendor_resource(case.vendor)
    assert resource.missing_variables(ids) == case.variables
    with pytest.raises(MissingCredentials) as refused:
        resource.require(ids)
    assert [name for name in case.variables if name not in str(refused.value)] == []
    assert len(bench.sandbox.requests) == 0


def test_discover(case: VendorCase, reading: Rig) -> None:
    """The tables a vendor declares are those its streams fill, and their Parquet has the declared schema exactly."""
    declared = {spec.qualified_name: spec for spec in all_tables().values() if spec.vendor == case.vendor}
    assert {spec.qualified_name for stream in case.streams for spec in stream.tables} == set(declared)
    with duckdb.connect() as engine:
        engine.execute("SET TimeZone = 'UTC'")
        for spec in declared.values():
            (day,) = reading.lake.days(spec, SITE)
            path = str(reading.lake.partition_path(spec, SITE, day))
            written = engine.execute("DESCRIBE FROM read_parquet(?, hive_partitioning = false)", [path]).fetchall()
            assert [(row[0], row[1]) for row in written] == [(c.name, c.type) for c in spec.all_columns]
            assert all(column.description for column in spec.columns)


def _secrets(bench: Bench, case: VendorCase) -> list[str]:
    return [bench.environment[name] for name in case.variables]
