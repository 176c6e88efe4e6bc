"""Kameleoon's resource: the three classes on one account and one token, counted by the ledger."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from analytics_platform.core.errors import ConfigurationError
from analytics_platform.core.opt_in import Confirmation, WriteOptIn
from analytics_platform.core.quota import Ledger
from analytics_platform.vendors.kameleoon.outbound import VisitEvent
from analytics_platform.vendors.kameleoon.resource import KameleoonResource
from analytics_platform_tests.vendors.kameleoon.conftest import OPT_IN, Site


def resource_of(site: Site) -> KameleoonResource:
    environment = site.sandbox.environment()
    return KameleoonResource(
        client_id=environment["KAMELEOON_CLIENT_ID"],
        client_secret=environment["KAMELEOON_CLIENT_SECRET"],
        base_url=environment["KAMELEOON_BASE_URL"],
        auth_url=environment["KAMELEOON_AUTH_URL"],
    )


def test_many_short_clients_stay_within_the_token_hosts_limit(open_site: Callable[..., Site], tmp_path: Path) -> None:
    site = open_site(auth={"calls_per_minute": 12})
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        resource = resource_of(site)
        for _ in range(20):
            with resource.connect({}, ledger) as client:
                client.stored_map(site_code=site.code, key="k")
        with resource.writer({}, ledger, OPT_IN) as writer:
            writer.post_events(site_code=site.code, visitor_code="v", events=[VisitEvent.activity(clicks=1)])
        with resource.erasure({}, ledger, OPT_IN) as erasure:
            confirm = Confirmation(f"forget 1 visitors at {site.code}")
            erasure.forget(site_code=site.code, visitor_codes=["v"], confirm=confirm)
        spent = {row.endpoint: row.requests for row in ledger.spent(vendor="kameleoon")}
    assert spent == {
        "POST /oauth/token": 1,
        "GET /map/map": 20,
        "POST /visit/events": 1,
        "POST /visit/forget": 1,
    }
    assert site.sandbox.requests.count(vendor="kameleoon_auth") == 1
    assert all(record.authorization_seen for record in site.sandbox.requests.records(vendor="kameleoon"))


def test_a_metered_writer_is_never_refused(open_site: Callable[..., Site], tmp_path: Path) -> None:
    # 50 POST a second without a token, at the vendor and in the ledger.
    site = open_site()
    with (
        Ledger.open(tmp_path / "ledger.sqlite") as ledger,
        resource_of(site).writer({"access": "anonymous"}, ledger, OPT_IN) as writer,
    ):
        for _ in range(70):
            writer.write_maps(site_code=site.code, maps={"k": {}})
    assert site.sandbox.requests.count(vendor="kameleoon", status=204) == 70
    assert site.sandbox.requests.count(vendor="kameleoon") == 70


def test_a_token_that_was_shared_is_renewed_for_all(site: Site, tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        resource = resource_of(site)
        for _ in range(2):
            site.sandbox.context.token_store("kameleoon").revoke_all()
            with resource.connect({}, ledger) as client:
                client.stored_map(site_code=site.code, key="k")
            with resource.connect({}, ledger) as client:
                client.stored_map(site_code=site.code, key="k")
    assert site.sandbox.requests.count(vendor="kameleoon_auth") == 2


def test_writing_through_the_resource_must_be_agreed_to(site: Site, tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        for make in (resource_of(site).writer, resource_of(site).erasure):
            with pytest.raises(ConfigurationError):
                make({}, ledger, WriteOptIn(vendor="pirsch", reason="tests"))
