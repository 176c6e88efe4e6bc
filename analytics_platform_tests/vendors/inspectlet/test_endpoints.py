"""Every endpoint that a method of Inspectlet's client speaks for, called over a real socket.

Belongs here: one call an endpoint. Does not belong here: envelopes and refusals (`test_client`), each condition of a
search (`test_search`), traps (`test_traps`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from analytics_platform.core.endpoints import Endpoint, endpoints_of
from analytics_platform.core.errors import ConfigurationError
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.vendors.inspectlet.client import InspectletClient, SessionSearch, records_of


@dataclass(frozen=True)
class Account:
    """The sandbox's account and its first website."""

    sandbox: Sandbox
    reads: InspectletClient
    wid: str


@pytest.fixture
def account(vendors: Sandbox) -> Iterator[Account]:
    secret = vendors.context.credentials
    with InspectletClient.connect(
        base_url=vendors.base_urls["inspectlet"],
        username=SecretStr(secret.inspectlet_username),
        api_token=SecretStr(secret.inspectlet_api_token),
    ) as reads:
        yield Account(vendors, reads, str(vendors.world.sites[0].wid))


def _websites(account: Account) -> None:
    page = account.reads.websites()
    listed = [(site["wid"], site["site_name"]) for site in records_of(page)]
    assert listed == [(site.wid, site.hostname) for site in account.sandbox.world.sites]
    assert page.records == len(listed)


def _search(account: Account) -> None:
    day = datetime(2026, 10, 6, tzinfo=UTC)
    search = SessionSearch(start=day, end=day + timedelta(days=1), pages_at_least=2, device="desktop")
    pages = list(account.reads.search_sessions(account.wid, search, call="s", limit=20))
    sessions = [session for page in pages for session in records_of(page)]
    assert sessions
    for session in sessions:
        assert day.timestamp() <= int(str(session["date_start_session"])) <= day.timestamp() + 86_400
        assert int(str(session["num_pages"])) >= 2
        assert session["device_type"] == "desktop"


def _session(account: Account) -> None:
    newest = records_of(next(account.reads.search_sessions(account.wid, call="s", limit=1)))
    page = account.reads.session(account.wid, str(newest[0]["sid"]))
    assert records_of(page) == newest
    assert (page.records, page.is_last, page.call_kind) == (1, True, "session")


ENDPOINT_CALLS: dict[str, Callable[[Account], None]] = {
    "GET /v1/websites": _websites,
    "POST /v1/websites/{wid}/sessions": _search,
    "GET /v1/websites/{wid}/sessions/{sid}": _session,
}

MARKS: dict[str, Endpoint] = {mark.label: mark for marks in endpoints_of(InspectletClient).values() for mark in marks}


@pytest.mark.parametrize("label", ENDPOINT_CALLS)
def test_endpoint(label: str, account: Account) -> None:
    ENDPOINT_CALLS[label](account)
    method, _, path = label.partition(" ")
    route = re.compile(re.sub(r"\\\{[a-z_]+\\\}", "[^/]+", re.escape(path)))
    assert [
        record
        for record in account.sandbox.requests.records(vendor="inspectlet")
        if record.method == method and route.fullmatch(record.path) and 200 <= record.status < 300
    ]


def test_every_mark_has_its_call() -> None:
    assert set(ENDPOINT_CALLS) == set(MARKS)


@pytest.mark.parametrize("method", ["DELETE", "PATCH", "PUT"])
def test_the_client_can_send_nothing_that_changes(account: Account, method: str) -> None:
    with pytest.raises(ConfigurationError, match=method):
        account.reads._http.request(method, f"/v1/websites/{account.wid}", endpoint="x")
    assert len(account.sandbox.requests) == 0
