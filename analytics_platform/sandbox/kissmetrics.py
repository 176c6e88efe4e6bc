"""Kissmetrics as the sandbox plays it: the Core API's catalogues, with lifetime totals counted from the truth.

Belongs here: what Kissmetrics would know of the truth (`_Catalogue`) and the Core API over it. Does not belong here:
the truth, faults and the request log (`wire`), the query API (`kissmetrics_queries`), anything a client shares.

Sources: contracts/kissmetrics §3.1 (recorded wire: envelope, Link header, `index`), §3.6 (traps: a wrong host in
links, orphans, enums the samples violate, two timestamp styles); vendor_docs/kissmetrics.txt; MARTS §5.5 (consenting
people plus what the site's server sends, one `Visited Site` per 30 minutes, cumulative totals).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from analytics_platform.sandbox.kissmetrics_queries import QueryApi
from analytics_platform.sandbox.observe import (
    DAY_MS,
    Refusal,
    answer,
    build_sessions,
    fault_kind,
    identifier,
    iso_seconds,
    repeated,
    site_views,
    tagged_visitors,
    uuid_text,
)
from analytics_platform.sandbox.truth import SiteTruth, World
from analytics_platform.sandbox.wire import ServerContext, bearer_token

__all__ = ["Profile", "build_app"]

_KINDS: Final = ("reports", "metrics", "events", "properties")
_WRONG_HOST: Final = "https://apikissmetrics.com"
_PAGE_EVENTS: Final = 24
_SERVER_EVENTS: Final[Mapping[str, str]] = {"purchase": "Billed", "signup": "Signed Up"}
"""Goals of the truth that the site's server sends itself, consent or not."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Knobs of this observer.

    Attributes:
        bare: lists and objects without the envelope, as the vendor's document shows them.
        default_limit: page length without a `limit`.
        idle_seconds: the pause after which a visit counts as another `Visited Site`.
        max_limit: a longer page is refused (a public client was seen asking 1000).
        invented_metric_queries: answer `…/over-time` and `…/by-segment` with bodies **invented here**; 404 otherwise,
            because no public document says what they are (contract §3.5).
        query_host: name of the query host in links, e.g. "localhost" for another origin on this port; the host that
            was asked unless told.
        query_polls: how often a query's status says "not yet".
        status_on_query_host: queries of generation 1 send their `Location` to `/v1` on the query host, as one of the
            vendor's pages shows, instead of `/query`.
    """

    bare: bool = False
    default_limit: int = 20
    idle_seconds: int = 1800
    max_limit: int = 1000
    invented_metric_queries: bool = False
    query_host: str | None = None
    query_polls: int = 2
    status_on_query_host: bool = False


def _refuse(status: int, error: str, message: str) -> Refusal:
    """An error of the first generation (contract §3.6, trap 18)."""
    return Refusal(status, {"message": message, "error": error, "status": status})


# --- what Kissmetrics knows -------------------------------------------------------------------------------------------

_Record = dict[str, object]


class _Catalogue:
    """Accounts, products and everything below them; records have no links, these are added per answer."""

    def __init__(self, world: World, profile: Profile) -> None:
        self.now_ms = world.now_ms
        self.accounts: list[_Record] = []
        self.products: list[_Record] = []
        self.visits: dict[str, pd.DataFrame] = {}
        self.lists: dict[str, list[_Record]] = {kind: [] for kind in _KINDS}
        self._add_accounts(world)
        for site in world.sites:
            self._add_product(site)
            seen = _Seen(world, site, profile)
            self.visits[site.kissmetrics_product_id] = seen.visits
            self.lists["events"] += seen.event_records()
            self.lists["properties"] += seen.property_records()
            self.lists["metrics"] += self._metrics(site)
            self.lists["reports"] += self._reports(site.kissmetrics_account_id, site.kissmetrics_product_id)
        # A report of a product this token may not see: no foreign key holds (trap 8).
        if world.sites:
            orphan = uuid_text("kissmetrics-product", "unlisted")
            self.lists["reports"] += self._reports(world.sites[0].kissmetrics_account_id, orphan)[:1]

    def _add_accounts(self, world: World) -> None:
        created = self.now_ms - 3 * 365 * DAY_MS
        known = dict.fromkeys(site.kissmetrics_account_id for site in world.sites)
        canceled = uuid_text("kissmetrics-account", "canceled")
        for account_id, status in [(account, "active") for account in known] + [(canceled, "canceled")]:
            self.accounts.append(
                {
                    "contact": {"phone": None, "country": None, "name": None},
                    "updated_at": iso_seconds(self.now_ms - 40 * DAY_MS),
                    "created_at": iso_seconds(created),
                    "status": status,
                    "name": "Sandbox" if status == "active" else "Sandbox (old)",
                    "id": account_id,
                }
            )

    def _add_product(self, site: SiteTruth) -> None:
        self.products.append(
            {
                "id": site.kissmetrics_product_id,
                "account_id": site.kissmetrics_account_id,
                "name": site.hostname,
                "url": f"https://{site.hostname}",
                "status": "active",
                "environment": "",
                "timezone": "US/Pacific",
                "created_at": iso_seconds(self.now_ms - 2 * 365 * DAY_MS, suffix="+00:00"),
                "tracking_key": identifier("kissmetrics-tracking", site.key, length=40),
                "hosts": [site.hostname],
            }
        )

    def _reports(self, account_id: str, product_id: str) -> list[_Record]:
        created = iso_seconds(self.now_ms - 300 * DAY_MS, suffix="+00:00")
        listed = (("My People Search", "people_search_v2"), ("Checkout", "funnel"), ("Weekly cohorts", "cohort"))
        return [
            {
                "created_at": created,
                "name": name,
                "report_type": kind,
                "account_id": account_id,
                "product_id": product_id,
                "id": uuid_text("kissmetrics-report", product_id, name),
            }
            for name, kind in listed
        ]

    def _metrics(self, site: SiteTruth) -> list[_Record]:
        listed = (
            ("Average Revenue Per Person", "The average amount of revenue per person.", "numeric", "pending"),
            ("Visits", "Times people visited the site.", "numeric", True),
            ("Time to Purchase", "Time between the first visit and the first purchase.", "time", True),
            ("Visit to Signup", None, "percent", False),
        )
        return [
            {
                "config_last_changed_at": iso_seconds(self.now_ms - 500 * DAY_MS, suffix="+00:00"),
                "color": None,
                "id": uuid_text("kissmetrics-metric", site.key, title),
                "product_id": site.kissmetrics_product_id,
                "title": title,
                "description": description,
                "unit_type": unit,
                "status": status,
                "sort_index": index,
                "is_visible": True,
            }
            for index, (title, description, unit, status) in enumerate(listed)
        ]


class _Seen:
    """One product's occurrences: who visited, what they did, and what the server reported."""

    def __init__(self, world: World, site: SiteTruth, profile: Profile) -> None:
        self.site = site
        self.now_ms = world.now_ms
        # No bot filter and no ad-block loss of its own (MARTS §2): whoever runs the tag counts.
        visitors = tagged_visitors(world, site.key, block_cut=0.0)
        views = site_views(world, site.key, visitors)
        sessions = build_sessions(views, visitors, idle_seconds=profile.idle_seconds, cap_seconds=86_400)
        self.occurrences: dict[str, npt.NDArray[np.int64]] = {"Visited Site": np.sort(sessions.start_ms)}
        self.visits = pd.DataFrame(
            {
                "visitor_id": visitors["visitor_id"].to_numpy(np.int64)[sessions.visitor],
                "at_ms": sessions.start_ms,
            }
        )
        first = sessions.views.iloc[sessions.bounds[:-1]]
        first_ms = first["at_ms"].to_numpy(np.int64)
        came = first["referrer"].astype(str)
        searched = came.str.contains(r"//(?:www\.)?(?:google|bing|duckduckgo)\.").to_numpy(bool)
        self._add("Search Engine Hit", first_ms[searched])
        self._add("Ad Campaign Hit", first_ms[first["query"].astype(str).str.contains("utm_").to_numpy(bool)])
        self._add_named(world, visitors)
        self._add_pages(views)
        self._add_server(world)
        self.first_view_ms = int(first_ms.min()) if len(first_ms) else self.now_ms

    def _add(self, name: str, at_ms: npt.NDArray[np.int64]) -> None:
        at_ms = at_ms[at_ms <= self.now_ms]
        if len(at_ms):
            self.occurrences[name] = np.sort(at_ms)

    def _add_named(self, world: World, visitors: pd.DataFrame) -> None:
        """Custom events in the browser of people who consented."""
        events = world.events
        keep = ((events["site_key"] == self.site.key) & (events["kind"] == "custom")).to_numpy(bool)
        keep &= np.isin(events["visitor_id"].to_numpy(np.int64), visitors["visitor_id"].to_numpy(np.int64))
        for name, part in events.loc[keep].groupby("name", sort=True):
            self._add(str(name), part["at_ms"].to_numpy(np.int64))

    def _add_pages(self, views: pd.DataFrame) -> None:
        """Somebody clicked together an event for each of the most viewed pages: that is how such catalogues look."""
        counts = views["path"].value_counts()
        ranked = sorted(counts.items(), key=lambda item: (-int(item[1]), str(item[0])))[:_PAGE_EVENTS]
        for path, _ in ranked:
            self._add(f"Viewed {path}", views.loc[(views["path"] == path).to_numpy(bool), "at_ms"].to_numpy(np.int64))

    def _add_server(self, world: World) -> None:
        """Sent by the site's server: everybody's, consent or not."""
        done = world.conversions
        done = done.loc[(done["site_key"] == self.site.key).to_numpy(bool)]
        for goal, part in done.groupby("goal", sort=True):
            self._add(_SERVER_EVENTS.get(str(goal), str(goal)), part["at_ms"].to_numpy(np.int64))

    def event_records(self) -> list[_Record]:
        """One record an event with its total so far."""
        found = []
        for index, (name, at_ms) in enumerate(self.occurrences.items()):
            first, last = (int(at_ms[0]), int(at_ms[-1])) if len(at_ms) else (self.now_ms, self.now_ms)
            record: _Record = {
                **_moments(first, last),
                "id": uuid_text("kissmetrics-event", self.site.key, name),
                "product_id": self.site.kissmetrics_product_id,
                "name": name.lower(),
                "display_name": name,
                "description": None,
                "is_visible": not name.startswith("Viewed /checkout"),
                "total": len(at_ms),
                "index": index + 1,
            }
            found.append(record)
        return found

    def property_records(self) -> list[_Record]:
        """Properties of people and events; the vendor's own sample has `type: null` (trap 9)."""
        listed: tuple[tuple[str, str | None], ...] = (
            ("referrer", None),
            ("browser", "automatic"),
            ("operating system", "automatic"),
            ("returning", "automatic"),
            ("campaign source", "automatic"),
            ("campaign name", "automatic"),
            ("kameleoon_visitor_code", "text"),
            ("revenue", "number"),
        )
        last = int(self.occurrences["Visited Site"][-1]) if len(self.occurrences["Visited Site"]) else self.now_ms
        return [
            {
                **_moments(self.first_view_ms, last),
                "id": uuid_text("kissmetrics-property", self.site.key, name),
                "product_id": self.site.kissmetrics_product_id,
                "type": kind,
                "name": name,
                "display_name": name.capitalize(),
                "description": None,
                "is_visible": True,
                "index": index + 1,
            }
            for index, (name, kind) in enumerate(listed)
        ]


def _moments(first_ms: int, last_ms: int) -> _Record:
    """The four instants. Sent means processed, up to half an hour later; no order holds among them (trap 10)."""
    return {
        "last_sent_at": iso_seconds(last_ms + 1_800_000, suffix="+00:00"),
        "first_sent_at": iso_seconds(first_ms + 1_446_000, suffix="+00:00"),
        "last_used_at": iso_seconds(last_ms, suffix="+00:00"),
        "first_used_at": iso_seconds(first_ms, suffix="+00:00"),
    }


# --- links ------------------------------------------------------------------------------------------------------------

_Link = dict[str, object]


def _link(name: str, rel: str, href: str, *, templated: bool = False) -> _Link:
    return {"templated": templated, "href": href, "rel": rel, "name": name}


def _header(links: Iterable[_Link]) -> str:
    """The Link header of the recorded wire: exactly three parts a link."""
    return ",".join(
        f'<{link["href"]}>; rel="{link["rel"]}"; templated="{str(link["templated"]).lower()}"' for link in links
    )


def _account_links(base: str, record: _Record) -> list[_Link]:
    href = f"{base}/core/accounts/{record['id']}"
    return [_link("Self", "self", href), _link("Products", "products", f"{href}/products")]


def _product_links(base: str, record: _Record) -> list[_Link]:
    href = f"{base}/core/products/{record['id']}"
    return [
        _link("Self", "self", href),
        _link("Account", "account", f"{base}/core/accounts/{record['account_id']}"),
        # The vendor's own page writes this host (trap 1): another domain, that must never see the token.
        _link("Product Reports", "reports", f"{_WRONG_HOST}/core/products/{record['id']}/reports"),
        _link("Product Metrics", "metrics", f"{href}/metrics"),
        _link("Product Events", "events", f"{href}/events"),
        _link("Product Properties", "properties", f"{href}/properties"),
    ]


def _item_links(base: str, kind: str, record: _Record) -> list[_Link]:
    href = f"{base}/core/{kind}/{record['id']}"
    links = [
        _link("Self", "self", href),
        _link("Product", "product", f"{base}/core/products/{record['product_id']}"),
    ]
    if kind == "reports":
        links.append(_link("Account", "account", f"{base}/core/accounts/{record['account_id']}"))
    if kind == "reports" and record["report_type"] == "people_search_v2":
        links.append(_link("Run Report", "run", f"{base}/query/reports/{record['id']}/run"))
        run_v2 = f"{base}/v2/products/{record['product_id']}/reports/{record['id']}/run"
        links.append(_link("Run Report", "run_v2", run_v2))
    if kind == "metrics":
        query = f"{base}/query/metrics/{record['id']}"
        links.append(_link("Metrics Over Time Query", "metric-over-time", f"{query}/over-time"))
        links.append(_link("Metrics By Segment Query", "metric-by-segment", f"{query}/by-segment"))
    return links


def _links_of(base: str, kind: str, record: _Record) -> list[_Link]:
    if kind == "accounts":
        return _account_links(base, record)
    return _product_links(base, record) if kind == "products" else _item_links(base, kind, record)


# --- the API ----------------------------------------------------------------------------------------------------------

_SINGULAR: Final[Mapping[str, str]] = {
    "accounts": "account", "products": "product", "reports": "report", "metrics": "metric", "events": "event",
    "properties": "property",
}  # fmt: skip


class _Api:
    """Routes over the catalogue; one instance serves one port."""

    def __init__(self, world: World, context: ServerContext, profile: Profile) -> None:
        self.profile = profile
        self._token = context.credentials.kissmetrics_api_token
        self.catalogue = catalogue = _Catalogue(world, profile)
        self.collections: dict[str, list[_Record]] = {
            "accounts": catalogue.accounts,
            "products": catalogue.products,
            **catalogue.lists,
        }
        self.by_id = {kind: {str(record["id"]): record for record in rows} for kind, rows in self.collections.items()}
        self.by_product = {
            kind: {
                str(product["id"]): [row for row in rows if row["product_id"] == product["id"]]
                for product in catalogue.products
            }
            for kind, rows in catalogue.lists.items()
        }

    def endpoint(self, handler: Callable[[Request], Response]) -> Callable[[Request], Awaitable[Response]]:
        """An ASGI endpoint: the token, then the handler."""

        async def serve(request: Request) -> Response:
            try:
                if bearer_token(request) != self._token:
                    raise _refuse(401, "Unauthorized", "Invalid or missing token.")
                return handler(request)
            except Refusal as refusal:
                return refusal.response()

        return serve

    # the directory ---------------------------------------------------------------------------------------------------

    def root(self, request: Request) -> Response:
        """GET /core."""
        base = _base(request)
        self_link = _link("Directory", "self", f"{base}/core")
        rows = [_link(kind.capitalize(), kind, f"{base}/core/{kind}") for kind in self.collections]
        details = [
            _link(f"{name.capitalize()} Detail", f"{name}-detail", f"{base}/core/{kind}/{{{name}_id}}", templated=True)
            for kind, name in _SINGULAR.items()
        ]
        data = {
            "links": [self_link, *rows, *details],
            "description": "API access for KISSmetrics",
            "name": "KISSmetrics API",
        }
        return answer({"links": [self_link], "data": data})

    def rels(self, request: Request) -> Response:
        """GET /core/rels."""
        rels = [{"name": kind, "description": f"All {kind} you are authorized to access"} for kind in self.collections]
        data = {"title": "Link relations", "description": "Relations used in links", "rels": rels}
        return answer({"links": [], "data": data})

    # collections -----------------------------------------------------------------------------------------------------

    def listing(self, kind: str) -> Callable[[Request], Response]:
        """GET /core/<kind>: everything the token may see."""
        return lambda request: self._list(request, kind, self.collections[kind])

    def of_product(self, kind: str) -> Callable[[Request], Response]:
        """GET /core/products/<id>/<kind>."""

        def handler(request: Request) -> Response:
            product_id = request.path_params["product_id"]
            if product_id not in self.by_id["products"]:
                raise _refuse(404, "Not Found", "Product not found.")
            return self._list(request, kind, self.by_product[kind][product_id])

        return handler

    def of_account(self, request: Request) -> Response:
        """GET /core/accounts/<id>/products."""
        account_id = request.path_params["account_id"]
        if account_id not in self.by_id["accounts"]:
            raise _refuse(404, "Not Found", "Account not found.")
        owned = [product for product in self.collections["products"] if product["account_id"] == account_id]
        return self._list(request, "products", owned)

    def _list(self, request: Request, kind: str, rows: Sequence[_Record]) -> Response:
        limit, offset = self._window(request)
        fault = fault_kind(request)
        base = _base(request)
        links = self._paging_links(request, kind, len(rows), fault)
        shown = [] if fault == "empty_pages" else repeated(list(rows[offset : offset + limit]), fault)
        data = [{"links": _links_of(base, kind, record), **record} for record in shown]
        headers = {"link": _header(links)}
        if self.profile.bare:
            return answer(data, headers=headers)
        pagination = {"limit": limit, "offset": offset, "total": len(rows)}
        return answer(
            {"meta": {"status": 200}, "data": data, "pagination": pagination, "links": links}, headers=headers
        )

    def _window(self, request: Request) -> tuple[int, int]:
        limit = request.query_params.get("limit", str(self.profile.default_limit))
        offset = request.query_params.get("offset", "0")
        if not all(re.fullmatch(r"[0-9]{1,9}", text) for text in (limit, offset)):
            raise _refuse(400, "Bad Request", "limit and offset must be integers.")
        if not 1 <= int(limit) <= self.profile.max_limit:
            raise _refuse(400, "Bad Request", f"limit must be between 1 and {self.profile.max_limit}.")
        return int(limit), int(offset)

    def _paging_links(self, request: Request, kind: str, total: int, fault: str) -> list[_Link]:
        """self, first, last, and next and prev where there is one (both are left out otherwise)."""
        limit, offset = self._window(request)
        address = f"{_base(request)}{request.url.path}"

        def at(position: int) -> str:
            return f"{address}?limit={limit}&offset={position}"

        links = [_link("Self", "self", at(offset))]
        detail = f"{_base(request)}/core/{kind}/{{{_SINGULAR[kind]}_id}}"
        links.append(
            _link(f"{_SINGULAR[kind].capitalize()} Detail", f"{_SINGULAR[kind]}-detail", detail, templated=True)
        )
        links.append(_link("First", "first", at(0)))
        links.append(_link("Last", "last", at(max(0, (total - 1) // limit * limit))))
        if offset + limit < total or fault in ("cursor_loop", "empty_pages"):
            following = at(offset if fault == "cursor_loop" else offset + limit)
            if fault == "foreign_link":
                following = following.replace(_base(request), _WRONG_HOST)
            links.append(_link("Next", "next", following))
        if offset > 0:
            links.append(_link("Previous", "prev", at(max(0, offset - limit))))
        return links

    # one record ------------------------------------------------------------------------------------------------------

    def detail(self, kind: str) -> Callable[[Request], Response]:
        """GET /core/<kind>/<id>."""

        def handler(request: Request) -> Response:
            record = self.by_id[kind].get(request.path_params[f"{_SINGULAR[kind]}_id"])
            if record is None:
                raise _refuse(404, "Not Found", f"{_SINGULAR[kind].capitalize()} not found.")
            links = _links_of(_base(request), kind, record)
            headers = {"link": _header(links)}
            # Only accounts carry their links inside the record; elsewhere they are at the top level (contract §3.1).
            inner = links if kind == "accounts" else []
            if self.profile.bare:
                return answer({"links": inner, **record}, headers=headers)
            body = {"meta": {"status": 200}, "data": {"links": inner, **record}, "links": links}
            return answer(body, headers=headers)

        return handler


def _base(request: Request) -> str:
    """Where this server was called: links must come back to the same port."""
    return str(request.base_url).rstrip("/")


def build_app(world: World, context: ServerContext, **profile: Any) -> Starlette:
    """Kissmetrics' Core API and query API over this world; `profile` are fields of `Profile`."""
    knobs = Profile(**profile)
    api = _Api(world, context, knobs)
    routes: list[tuple[str, Callable[[Request], Response]]] = [
        ("/core", api.root),
        ("/core/rels", api.rels),
        ("/core/accounts/{account_id}/products", api.of_account),
    ]
    routes += [(f"/core/products/{{product_id}}/{kind}", api.of_product(kind)) for kind in _KINDS]
    for kind, name in _SINGULAR.items():
        routes.append((f"/core/{kind}", api.listing(kind)))
        routes.append((f"/core/{kind}/{{{name}_id}}", api.detail(kind)))
    queries = QueryApi(
        world,
        token=context.credentials.kissmetrics_api_token,
        reports=api.by_id["reports"],
        metrics=api.by_id["metrics"],
        timezones={str(product["id"]): str(product["timezone"]) for product in api.collections["products"]},
        visits=api.catalogue.visits,
        polls=knobs.query_polls,
        query_host=knobs.query_host,
        status_on_query_host=knobs.status_on_query_host,
        with_invented_metrics=knobs.invented_metric_queries,
    )
    core = [Route(path, api.endpoint(handler), methods=["GET"]) for path, handler in routes]
    return Starlette(routes=[*core, *queries.routes()])
