"""Kissmetrics' Core API, one method an endpoint: asks, pages, and hands over what came back.

Belongs here: paths, paging, the envelope that the wire has and the document has not, links that were discovered. Does
not belong here: running reports (`queries`: that is another host and another verb), which lists to ask for
(`streams`), what the fields mean (`tables`), Dagster, files.

Links inside records are never followed by themselves: the vendor's own sample points five of them at a foreign domain
(contract §3.6, trap 1). Links between pages, and those a caller hands to `follow`, are followed after `core.http` has
pinned them to the configured origin and `/core`.

Source: vendor document "Core API (in beta)"; contract Kissmetrics §3.1 (recorded wire), §3.6 (traps).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Self

import uritemplate
from pydantic import SecretStr

from analytics_platform.core.auth import Bearer
from analytics_platform.core.clock import SYSTEM_CLOCK, Clock
from analytics_platform.core.endpoints import endpoint
from analytics_platform.core.errors import ConfigurationError, MalformedResponse, VendorReportedError, Where
from analytics_platform.core.http import HttpClient, HttpLimits, Meter, NullMeter, Response
from analytics_platform.core.origin import path_segment
from analytics_platform.core.paging import NextRequest, OffsetLimit, Page, paginate, single_page
from analytics_platform.core.redaction import redact
from analytics_platform.core.strict_json import parse

__all__ = [
    "DEFAULT_BASE_URL",
    "Collection",
    "KissmetricsClient",
    "Link",
    "account_id_of",
    "links_of",
    "records_of",
]

_VENDOR = "kissmetrics"
DEFAULT_BASE_URL = "https://api.kissmetrics.com"
_PAGE_SIZE = 100
"""Default is 20, no maximum is documented; a client in production used 1000 (contract §3.1)."""

_DOCUMENT = "Kissmetrics Core API (in beta)"

Collection = Literal["reports", "events", "properties", "metrics"]
"""What a product has lists of."""

_SINGULAR: Final[Mapping[str, str]] = {
    "accounts": "account",
    "products": "product",
    "reports": "report",
    "events": "event",
    "properties": "property",
    "metrics": "metric",
}
_PLAIN_REL: Final = re.compile(r"[a-z][a-z0-9_-]{0,40}")


@dataclass(frozen=True, kw_only=True)
class Link:
    """One link of an answer, as the vendor wrote it: nothing about it is trusted yet.

    Attributes:
        rel: what it leads to (`accounts`, `product-detail`, `next`, `prev`).
        href: absolute address, or an RFC 6570 template of one.
        is_templated: variables must be given.
        name: for people.
    """

    rel: str
    href: str
    is_templated: bool = False
    name: str = ""

    @property
    def variables(self) -> tuple[str, ...]:
        """Names to give; empty for a plain link."""
        return tuple(str(name) for name in uritemplate.variables(self.href)) if self.is_templated else ()

    def expanded(self, variables: Mapping[str, str]) -> str:
        """The address with its variables filled in and percent-encoded (RFC 6570, by the `uritemplate` library).

        Raises:
            ConfigurationError: a variable is missing or empty: its segment would silently vanish, and a detail would
                become a list.
        """
        missing = [name for name in self.variables if not variables.get(name)]
        if missing:
            raise ConfigurationError(
                f"The link {self.rel} needs {', '.join(missing)}.", "Give every variable of the template a value."
            )
        return uritemplate.expand(self.href, dict(variables)) if self.is_templated else self.href


class KissmetricsClient:
    """What one personal token may see. Thread-safe as `HttpClient` is; a context manager.

    Every method may raise the VendorError and QuotaError classes of `core.errors`.
    """

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    @classmethod
    def connect(
        cls,
        *,
        token: SecretStr,
        base_url: str = DEFAULT_BASE_URL,
        variable: str = "KISSMETRICS_API_TOKEN",
        meter: Meter | None = None,
        limits: HttpLimits | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> Self:
        """A client on the pinned origin of `base_url`.

        Raises:
            ConfigurationError: the base URL or the token cannot be used; names `variable`.
        """
        http = HttpClient(
            vendor=_VENDOR,
            base_url=base_url,
            auth=Bearer(token, variable=variable),
            meter=meter or NullMeter(),
            limits=limits or HttpLimits(),
            path_prefixes=("/core",),
            methods=frozenset({"GET"}),
            clock=clock,
        )
        return cls(http)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # the directory ---------------------------------------------------------------------------------------------------

    @endpoint("GET /core", source=f"{_DOCUMENT}, Root Directory")
    def root(self) -> Mapping[str, object]:
        """Name, description and links of the API; the cheapest probe of a token."""
        return _detail(self._get("/core", "GET /core"))

    @endpoint("GET /core/rels", source="contract Kissmetrics §3.1 (the vendor's own client asks for it)")
    def rels(self) -> Mapping[str, str]:
        """Name to description of every link relation the API uses."""
        label = "GET /core/rels"
        listed = _detail(self._get("/core/rels", label)).get("rels")
        if not isinstance(listed, list):
            raise _unexpected(label, "an object with a list of rels")
        return {str(rel["name"]): str(rel.get("description", "")) for rel in listed if isinstance(rel, dict)}

    def directory(self) -> Mapping[str, Link]:
        """Links of the root directory by their rel. The vendor's sample has two, the prose promises all (trap 3)."""
        return {link.rel: link for link in _links_in(self.root())}

    def follow(
        self,
        link: Link,
        *,
        variables: Mapping[str, str] | None = None,
        call: str = "follow",
        context: Mapping[str, str] | None = None,
    ) -> Iterator[Page]:
        """The list or the record a discovered link leads to; call kind `<what the path names>_list` or `_detail`.

        Args:
            link: from `directory`, or `links_of` a page.
            variables: values of its template, e.g. `{"product_id": "e7063aa0-…"}`; a value stays inside its segment.
            call: stamped on each page.
            context: stamped on each page.

        Raises:
            ForeignOrigin: the link leaves the configured origin or `/core`: nothing is sent (trap 1).
            MalformedResponse: an HTML-escaped link (trap 6).
            ConfigurationError: a variable is missing.
        """
        href = link.expanded(variables or {})
        label = f"GET link {link.rel}" if _PLAIN_REL.fullmatch(link.rel) else "GET link"
        first = self._http.follow("GET", href, endpoint=label)
        if isinstance(_unwrapped(first.json(), label), dict):
            yield single_page(first, call=call, call_kind=_kind_of(href), context=context or {}, records=1)
            return

        def send(upcoming: NextRequest) -> Response:
            if upcoming.link is not None:
                return self._http.follow("GET", upcoming.link, endpoint=label)
            if upcoming.sequence == 0:
                return first
            separator = "&" if "?" in href else "?"
            window = "&".join(f"{name}={value}" for name, value in upcoming.params.items())
            return self._http.follow("GET", f"{href}{separator}{window}", endpoint=label)

        # Nobody asked for a length, so the first page's own is the only one a shorter page can be told by.
        size = max(1, len(_records(first.json(), label)))
        yield from self._walk(send, label, call=call, call_kind=_kind_of(href), context=context, size=size)

    # everything the token may see ------------------------------------------------------------------------------------

    @endpoint("GET /core/accounts", source=f"{_DOCUMENT}, All Accounts")
    def accounts(self, *, call: str = "accounts", context: Mapping[str, str] | None = None) -> Iterator[Page]:
        """Accounts the token may see, canceled ones too (call kind `account_list`)."""
        return self._list("/core/accounts", "GET /core/accounts", call=call, context=context)

    @endpoint("GET /core/products", source=f"{_DOCUMENT}, All Products")
    def products(self, *, call: str = "products", context: Mapping[str, str] | None = None) -> Iterator[Page]:
        """Products of all accounts (call kind `product_list`). Holds each product's ingestion key (`tracking_key`)."""
        return self._list("/core/products", "GET /core/products", call=call, context=context)

    @endpoint("GET /core/reports", source=f"{_DOCUMENT}, All Reports")
    def reports(self, *, call: str = "reports", context: Mapping[str, str] | None = None) -> Iterator[Page]:
        """Reports of all products (call kind `report_list`); a parent product need not be listed (trap 8)."""
        return self._list("/core/reports", "GET /core/reports", call=call, context=context)

    @endpoint("GET /core/events", source=f"{_DOCUMENT}, All Events")
    def events(self, *, call: str = "events", context: Mapping[str, str] | None = None) -> Iterator[Page]:
        """Events of all products, with their lifetime totals (call kind `event_list`)."""
        return self._list("/core/events", "GET /core/events", call=call, context=context)

    @endpoint("GET /core/properties", source=f"{_DOCUMENT}, All Properties")
    def properties(self, *, call: str = "properties", context: Mapping[str, str] | None = None) -> Iterator[Page]:
        """Properties of all products (call kind `property_list`)."""
        return self._list("/core/properties", "GET /core/properties", call=call, context=context)

    @endpoint("GET /core/metrics", source=f"{_DOCUMENT}, All Metrics")
    def metrics(self, *, call: str = "metrics", context: Mapping[str, str] | None = None) -> Iterator[Page]:
        """Metric definitions of all products (call kind `metric_list`); values are not in this API."""
        return self._list("/core/metrics", "GET /core/metrics", call=call, context=context)

    # below a parent --------------------------------------------------------------------------------------------------

    @endpoint("GET /core/accounts/{account_id}/products", source=f"{_DOCUMENT}, Account Details (link rel products)")
    def account_products(
        self, account_id: str, *, call: str = "products", context: Mapping[str, str] | None = None
    ) -> Iterator[Page]:
        """Products of one account (call kind `product_list`)."""
        path = f"/core/accounts/{path_segment(account_id)}/products"
        return self._list(path, "GET /core/accounts/{account_id}/products", call=call, context=context)

    @endpoint("GET /core/products/{product_id}/reports", source=f"{_DOCUMENT}, All Products (link rel reports)")
    @endpoint("GET /core/products/{product_id}/events", source=f"{_DOCUMENT}, All Products (link rel events)")
    @endpoint("GET /core/products/{product_id}/properties", source=f"{_DOCUMENT}, All Products (link rel properties)")
    @endpoint("GET /core/products/{product_id}/metrics", source=f"{_DOCUMENT}, Metric Details (prose; rel on the wire)")
    def product_list(
        self, product_id: str, collection: Collection, *, call: str, context: Mapping[str, str] | None = None
    ) -> Iterator[Page]:
        """One product's reports, events, properties or metrics, 100 a page.

        Call kind `report_list`, `event_list`, `property_list` or `metric_list`. Ordered by nothing the vendor states,
        and live: a record may come twice, and the tables keep one of each id.
        """
        path = f"/core/products/{path_segment(product_id)}/{collection}"
        return self._list(path, f"GET /core/products/{{product_id}}/{collection}", call=call, context=context)

    # one record ------------------------------------------------------------------------------------------------------

    @endpoint("GET /core/accounts/{account_id}", source=f"{_DOCUMENT}, Account Details")
    def account(self, account_id: str, *, call: str = "account", context: Mapping[str, str] | None = None) -> Page:
        """One account, with the person of contact (call kind `account_detail`)."""
        label = "GET /core/accounts/{account_id}"
        return self._one("accounts", account_id, label, call=call, context=context)

    @endpoint("GET /core/products/{product_id}", source=f"{_DOCUMENT}, Product Details")
    def product(self, product_id: str, *, call: str = "product", context: Mapping[str, str] | None = None) -> Page:
        """One product (call kind `product_detail`); `timezone` is what the query API's times are in (`queries`)."""
        label = "GET /core/products/{product_id}"
        return self._one("products", product_id, label, call=call, context=context)

    @endpoint("GET /core/reports/{report_id}", source=f"{_DOCUMENT}, Report Details")
    def report(self, report_id: str, *, call: str = "report", context: Mapping[str, str] | None = None) -> Page:
        """One report (call kind `report_detail`); only those of type people_search_v2 can be run (`queries`)."""
        return self._one("reports", report_id, "GET /core/reports/{report_id}", call=call, context=context)

    @endpoint("GET /core/events/{event_id}", source=f"{_DOCUMENT}, Event Details")
    def event(self, event_id: str, *, call: str = "event", context: Mapping[str, str] | None = None) -> Page:
        """One event with its lifetime total (call kind `event_detail`)."""
        return self._one("events", event_id, "GET /core/events/{event_id}", call=call, context=context)

    # `property` is Python's own word, and a class body that shadows it can no longer use it.
    @endpoint("GET /core/properties/{property_id}", source=f"{_DOCUMENT}, Property Details")
    def property_detail(
        self, property_id: str, *, call: str = "property", context: Mapping[str, str] | None = None
    ) -> Page:
        """One property (call kind `property_detail`)."""
        label = "GET /core/properties/{property_id}"
        return self._one("properties", property_id, label, call=call, context=context)

    @endpoint("GET /core/metrics/{metric_id}", source=f"{_DOCUMENT}, Metric Details")
    def metric(self, metric_id: str, *, call: str = "metric", context: Mapping[str, str] | None = None) -> Page:
        """One metric's definition (call kind `metric_detail`); it may read differently than in the list (trap 7)."""
        return self._one("metrics", metric_id, "GET /core/metrics/{metric_id}", call=call, context=context)

    # how all of them are asked ---------------------------------------------------------------------------------------

    def _one(self, kind: str, identity: str, label: str, *, call: str, context: Mapping[str, str] | None) -> Page:
        response = self._get(f"/core/{kind}/{path_segment(identity)}", label)
        _detail(response)
        call_kind = f"{_SINGULAR[kind]}_detail"
        return single_page(response, call=call, call_kind=call_kind, context=context or {}, records=1)

    def _list(self, path: str, label: str, *, call: str, context: Mapping[str, str] | None) -> Iterator[Page]:
        def send(upcoming: NextRequest) -> Response:
            if upcoming.link is not None:
                return self._http.follow("GET", upcoming.link, endpoint=label)
            return self._get(path, label, upcoming.params)

        return self._walk(send, label, call=call, call_kind=_kind_of(path), context=context)

    def _walk(
        self,
        send: Callable[[NextRequest], Response],
        label: str,
        *,
        call: str,
        call_kind: str,
        context: Mapping[str, str] | None,
        size: int | None = None,
    ) -> Iterator[Page]:
        return paginate(
            send=send,
            strategy=OffsetLimit(size=size or _PAGE_SIZE),
            records_of=lambda parsed: _records(parsed, label),
            call=call,
            call_kind=call_kind,
            context=context or {},
            vendor=_VENDOR,
        )

    def _get(self, path: str, label: str, params: Mapping[str, str] | None = None) -> Response:
        return self._http.request("GET", path, endpoint=label, params=params)


def records_of(page: Page) -> list[object]:
    """The records of a page: of a list all of them, of a detail the one.

    Raises:
        MalformedResponse, VendorReportedError: the page holds neither.
    """
    found = _unwrapped(parse(page.body), page.endpoint)
    return [found] if isinstance(found, dict) else _records(found, page.endpoint)


def links_of(page: Page) -> tuple[Link, ...]:
    """Links of the answer and, for a single record, of the record; a list's records keep theirs to themselves.

    None of them is trusted: hand one to `KissmetricsClient.follow`, which refuses those that lead elsewhere.
    """
    parsed = parse(page.body)
    return tuple(_links_in(parsed)) if isinstance(parsed, dict) else ()


def account_id_of(page: Page) -> str | None:
    """The parent account named in a `product_detail` page, None where the vendor names none."""
    found = _unwrapped(parse(page.body), page.endpoint)
    account_id = found.get("account_id") if isinstance(found, dict) else None
    return account_id if isinstance(account_id, str) and account_id else None


def _links_in(parsed: Mapping[str, object]) -> Iterator[Link]:
    """Under `links` (the prose also says `link`), there and under `data`; each rel and address once."""
    inner = parsed.get("data")
    seen: set[tuple[str, str]] = set()
    for holder in (parsed, inner):
        listed = (holder.get("links") or holder.get("link")) if isinstance(holder, dict) else None
        for link in listed if isinstance(listed, list) else []:
            if not isinstance(link, dict) or not isinstance(link.get("href"), str):
                continue
            rel = str(link.get("rel", ""))
            if (rel, link["href"]) in seen:
                continue
            seen.add((rel, link["href"]))
            is_templated = str(link.get("templated", "")).lower() == "true"
            yield Link(rel=rel, href=link["href"], is_templated=is_templated, name=str(link.get("name", "")))


def _kind_of(address: str) -> str:
    """Call kind of a path: `event_list` for one that ends in a collection, `event_detail` for one below it."""
    segments = address.partition("?")[0].rstrip("/").split("/")
    if segments[-1] in _SINGULAR:
        return f"{_SINGULAR[segments[-1]]}_list"
    return f"{_SINGULAR[segments[-2]]}_detail" if len(segments) > 1 and segments[-2] in _SINGULAR else "directory"


def _records(parsed: object, endpoint: str) -> list[object]:
    found = _unwrapped(parsed, endpoint)
    if found is None:
        return []
    if not isinstance(found, list):
        raise _unexpected(endpoint, "a list")
    return found


def _detail(response: Response) -> Mapping[str, object]:
    found = _unwrapped(response.json(), response.endpoint)
    if not isinstance(found, dict):
        raise _unexpected(response.endpoint, "an object")
    return found


def _unwrapped(parsed: object, endpoint: str) -> object:
    """What is under `data`, or the body itself where the answer has no envelope.

    Raises:
        VendorReportedError: the body says it is an error although the status is 200 (contract §3.2: a failed query
        does so).
    """
    if not isinstance(parsed, dict):
        return parsed
    if "data" in parsed:
        return parsed["data"]
    if parsed.get("error"):
        raise VendorReportedError(
            f"Kissmetrics answered 200 with an error: {redact(str(parsed['error']))[:200]}",
            "Read the vendor's words; compare the request with vendors/kissmetrics/README.md.",
            Where(vendor=_VENDOR, endpoint=endpoint),
            200,
        )
    return parsed


def _unexpected(endpoint: str, what: str) -> MalformedResponse:
    return MalformedResponse(
        f"The answer is not {what}, bare or under `data`.",
        "The vendor may have changed the endpoint; compare with vendors/kissmetrics/README.md.",
        Where(vendor=_VENDOR, endpoint=endpoint),
        200,
    )
