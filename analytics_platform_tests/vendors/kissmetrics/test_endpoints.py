"""Every endpoint Kissmetrics' classes speak for, called once through the real client against the sandbox.

Belongs here: one call a mark with something specific about its answer, and that the sandbox served that verb and
route. Does not belong here: paging, links and refusals in depth (`test_client`, `test_queries`), the traps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import pytest
from pydantic import SecretStr

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.endpoints import endpoints_of
from analytics_platform.core.opt_in import WriteOptIn
from analytics_platform.core.paging import Page
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import SiteTruth, World, generate
from analytics_platform.vendors.kissmetrics.client import Collection, KissmetricsClient, Link, records_of
from analytics_platform.vendors.kissmetrics.queries import KissmetricsQueries, QueryRun, people_of

NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)


@dataclass(frozen=True)
class Setup:
    """Both classes on one sandbox."""

    world: World
    sandbox: Sandbox
    client: KissmetricsClient
    queries: KissmetricsQueries

    @property
    def site(self) -> SiteTruth:
        return self.world.sites[0]

    def first(self, kind: Collection) -> dict[str, object]:
        return rows(self.client.product_list(self.site.kissmetrics_product_id, kind, call=kind))[0]

    def search(self) -> str:
        """The saved people search of the site's product."""
        listed = rows(self.client.product_list(self.site.kissmetrics_product_id, "reports", call="reports"))
        return str(next(report["id"] for report in listed if report["report_type"] == "people_search_v2"))

    @property
    def window(self) -> dict[str, datetime]:
        first = self.world.first_day
        start = datetime(first.year, first.month, first.day, tzinfo=UTC)
        return {"start_at": start, "end_at": start + timedelta(days=2)}

    def started(self, family: str) -> QueryRun:
        """A run whose status is asked below `/query`, `/v1` or `/v2`."""
        if family == "v2":
            return self.queries.run_v2(self.site.kissmetrics_product_id, self.search(), **self.window)
        run = self.queries.run(self.search(), **self.window)
        return QueryRun(generation=1, status_link=run.status_link.replace("/query/", f"/{family}/"))


def rows(pages: Iterator[Page]) -> list[dict[str, object]]:
    return [record for page in pages for record in records_of(page) if isinstance(record, dict)]


@pytest.fixture(scope="module")
def setup() -> Iterator[Setup]:
    world = generate(first_day=date(2026, 10, 5), days=2, scale=0.03)
    knobs = {"invented_metric_queries": True}
    with Sandbox(world, vendors=["kissmetrics"], profiles={"kissmetrics": knobs}) as sandbox:
        url, token = sandbox.base_urls["kissmetrics"], SecretStr(sandbox.context.credentials.kissmetrics_api_token)
        opt_in = WriteOptIn(vendor="kissmetrics", reason="test_endpoints")
        with (
            KissmetricsClient.connect(token=token, base_url=url) as client,
            KissmetricsQueries.connect(
                token=token,
                base_url=url,
                query_base_url=url,
                opt_in=opt_in,
                clock=ManualClock(NOW),
                with_undocumented_metric_queries=True,
            ) as queries,
        ):
            yield Setup(world, sandbox, client, queries)


# --- one call an endpoint ---------------------------------------------------------------------------------------------


def root(setup: Setup) -> None:
    assert setup.client.root()["name"] == "KISSmetrics API"


def rels(setup: Setup) -> None:
    assert {"accounts", "products", "reports", "events", "properties", "metrics"} == set(setup.client.rels())


def accounts(setup: Setup) -> None:
    assert {row["status"] for row in rows(setup.client.accounts())} == {"active", "canceled"}


def products(setup: Setup) -> None:
    assert [row["id"] for row in rows(setup.client.products())] == [
        site.kissmetrics_product_id for site in setup.world.sites
    ]


def reports(setup: Setup) -> None:
    known = {site.kissmetrics_product_id for site in setup.world.sites}
    assert known < {row["product_id"] for row in rows(setup.client.reports())}  # and an orphan


def events(setup: Setup) -> None:
    found = rows(setup.client.events())
    assert {row["product_id"] for row in found} == {site.kissmetrics_product_id for site in setup.world.sites}
    assert all(isinstance(row["total"], int) for row in found)


def properties(setup: Setup) -> None:
    assert {row["type"] for row in rows(setup.client.properties())} == {None, "automatic", "text", "number"}


def metrics(setup: Setup) -> None:
    assert {row["unit_type"] for row in rows(setup.client.metrics())} == {"numeric", "time", "percent"}


def account_products(setup: Setup) -> None:
    found = rows(setup.client.account_products(setup.site.kissmetrics_account_id))
    assert setup.site.kissmetrics_product_id in [row["id"] for row in found]
    assert {row["account_id"] for row in found} == {setup.site.kissmetrics_account_id}


def scoped(kind: Collection) -> Callable[[Setup], None]:
    def check(setup: Setup) -> None:
        product_id = setup.site.kissmetrics_product_id
        everywhere = {"reports": setup.client.reports, "events": setup.client.events}
        everywhere |= {"properties": setup.client.properties, "metrics": setup.client.metrics}
        expected = [row["id"] for row in rows(everywhere[kind]()) if row["product_id"] == product_id]
        assert [row["id"] for row in rows(setup.client.product_list(product_id, kind, call=kind))] == expected

    return check


def account(setup: Setup) -> None:
    (found,) = records_of(setup.client.account(setup.site.kissmetrics_account_id))
    assert isinstance(found, dict)
    assert found["contact"] == {"phone": None, "country": None, "name": None}


def product(setup: Setup) -> None:
    (found,) = records_of(setup.client.product(setup.site.kissmetrics_product_id))
    assert isinstance(found, dict)
    assert (found["timezone"], found["account_id"]) == ("US/Pacific", setup.site.kissmetrics_account_id)


def record(kind: Collection, method: str, call_kind: str) -> Callable[[Setup], None]:
    def check(setup: Setup) -> None:
        listed = setup.first(kind)
        page = getattr(setup.client, method)(str(listed["id"]))
        assert page.call_kind == call_kind
        (found,) = records_of(page)
        assert isinstance(found, dict)
        assert {**found, "links": None} == {**listed, "links": None}

    return check


def run(setup: Setup) -> None:
    assert "/query/queries/" in setup.queries.run(setup.search(), **setup.window).status_link


def run_v2(setup: Setup) -> None:
    assert "/v2/queries/" in setup.started("v2").status_link


def status(family: str) -> Callable[[Setup], None]:
    def check(setup: Setup) -> None:
        started = setup.started(family)
        told = [setup.queries.status(started) for _ in range(3)]
        assert [found.is_completed for found in told] == [False, False, True]
        assert [found.progress for found in told] == sorted(found.progress for found in told)
        assert told[-1].results_link

    return check


def results(family: str) -> Callable[[Setup], None]:
    def check(setup: Setup) -> None:
        finished = setup.queries.wait(setup.started(family))
        if family == "v1":
            finished = type(finished)(generation=1, results_link=finished.results_link.replace("/query/", "/v1/"))
        people = [row for page in setup.queries.results(finished) for row in people_of(page)]
        # `Visited Site` in the catalogue counts everybody who consents; so does the search over the same days.
        (total,) = [
            row["total"]
            for row in rows(setup.client.product_list(setup.site.kissmetrics_product_id, "events", call="events"))
            if row["display_name"] == "Visited Site"
        ]
        assert sum(int(str(times)) for _, _, times, _ in people) == total
        assert len({kmid for kmid, *_ in people}) == len(people) > 0

    return check


def metric_query(kind: str) -> Callable[[Setup], None]:
    def check(setup: Setup) -> None:
        visits = next(row for row in rows(setup.client.metrics()) if row["title"] == "Visits")
        listed = visits["links"]
        assert isinstance(listed, list)
        (href,) = [link["href"] for link in listed if link["rel"] == f"metric-{kind}"]
        link = Link(rel=f"metric-{kind}", href=href)
        page = setup.queries.metric_over_time(link) if kind == "over-time" else setup.queries.metric_by_segment(link)
        (found,) = records_of(page)
        assert isinstance(found, dict)
        assert found["invented"] is True
        assert found["metric_id"] == visits["id"]

    return check


ENDPOINT_CALLS: dict[str, Callable[[Setup], None]] = {
    "GET /core": root,
    "GET /core/rels": rels,
    "GET /core/accounts": accounts,
    "GET /core/accounts/{account_id}": account,
    "GET /core/accounts/{account_id}/products": account_products,
    "GET /core/products": products,
    "GET /core/products/{product_id}": product,
    "GET /core/products/{product_id}/reports": scoped("reports"),
    "GET /core/products/{product_id}/events": scoped("events"),
    "GET /core/products/{product_id}/properties": scoped("properties"),
    "GET /core/products/{product_id}/metrics": scoped("metrics"),
    "GET /core/reports": reports,
    "GET /core/reports/{report_id}": record("reports", "report", "report_detail"),
    "GET /core/events": events,
    "GET /core/events/{event_id}": record("events", "event", "event_detail"),
    "GET /core/properties": properties,
    "GET /core/properties/{property_id}": record("properties", "property_detail", "property_detail"),
    "GET /core/metrics": metrics,
    "GET /core/metrics/{metric_id}": record("metrics", "metric", "metric_detail"),
    "POST /query/reports/{report_id}/run": run,
    "POST /v2/products/{product_id}/reports/{report_id}/run": run_v2,
    "GET /query/queries/{query_id}/status": status("query"),
    "GET /v1/queries/{query_id}/status": status("v1"),
    "GET /v2/queries/{query_id}/status": status("v2"),
    "GET /query/queries/{query_id}/results": results("query"),
    "GET /v1/queries/{query_id}/results": results("v1"),
    "GET /v2/queries/{query_id}/results": results("v2"),
    "GET /query/metrics/{metric_id}/over-time": metric_query("over-time"),
    "GET /query/metrics/{metric_id}/by-segment": metric_query("by-segment"),
}


@pytest.mark.parametrize("label", ENDPOINT_CALLS)
def test_endpoint(setup: Setup, label: str) -> None:
    setup.sandbox.requests.clear()
    ENDPOINT_CALLS[label](setup)
    method, _, path = label.partition(" ")
    route = re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path)))
    served = [
        asked
        for asked in setup.sandbox.requests.records(vendor="kissmetrics")
        if asked.method == method and route.fullmatch(asked.path) and 200 <= asked.status < 300
    ]
    assert served
    assert all(asked.authorization_seen for asked in served)


def test_every_mark_is_called() -> None:
    marks = [
        mark for cls in (KissmetricsClient, KissmetricsQueries) for own in endpoints_of(cls).values() for mark in own
    ]
    assert sorted(mark.label for mark in marks) == sorted(ENDPOINT_CALLS)


def test_the_reading_client_speaks_for_reads_only() -> None:
    assert {mark.method for own in endpoints_of(KissmetricsClient).values() for mark in own} == {"GET"}
