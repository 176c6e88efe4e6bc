"""Kissmetrics' Core API, one method an endpoint: asks, pages, and hands over what came back.

Belongs here: paths, paging, the envelope that the wire has and the document has not. Does not belong here: which
lists to ask for (`streams`), what the fields mean (`tables`), Dagster, files.

Links inside records are never followed: the vendor's own sample points five of them at a foreign domain (contract
§3.6, trap 1). Links between pages are, after `core.http` has pinned them to the configured origin.

Source: vendor_docs/kissmetrics.txt; contracts/kissmetrics §3.1 (recorded wire), §3.6 (traps).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, Self

from pydantic import SecretStr

from analytics_platform.core.auth import Bearer
from analytics_platform.core.clock import SYSTEM_CLOCK, Clock
from analytics_platform.core.errors import MalformedResponse, VendorReportedError, Where
from analytics_platform.core.http import HttpClient, HttpLimits, Meter, NullMeter, Response
from analytics_platform.core.origin import path_segment
from analytics_platform.core.paging import NextRequest, OffsetLimit, Page, paginate, single_page
from analytics_platform.core.redaction import redact
from analytics_platform.core.strict_json import parse

__all__ = ["DEFAULT_BASE_URL", "Collection", "KissmetricsClient", "account_id_of"]

_VENDOR = "kissmetrics"
DEFAULT_BASE_URL = "https://api.kissmetrics.com"
_PAGE_SIZE = 100
"""Default is 20, no maximum is documented; a client in production used 1000 (contract §3.1)."""

Collection = Literal["reports", "events", "properties", "metrics"]
"""What a product has lists of."""

_CALL_KINDS: Mapping[Collection, str] = {
    "reports": "report_list",
    "events": "event_list",
    "properties": "property_list",
    "metrics": "metric_list",
}


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

    def root(self) -> Mapping[str, object]:
        """`GET /core`: name, description and links of the API; the cheapest probe of a token."""
        return _detail(self._get("/core", "GET /core"))

    def product(self, product_id: str, *, call: str = "product", context: Mapping[str, str] | None = None) -> Page:
        """`GET /core/products/{product_id}` (call kind `product_detail`)."""
        endpoint = "GET /core/products/{product_id}"
        response = self._get(f"/core/products/{path_segment(product_id)}", endpoint)
        _detail(response)
        return single_page(response, call=call, call_kind="product_detail", context=context or {}, records=1)

    def account(self, account_id: str, *, call: str = "account", context: Mapping[str, str] | None = None) -> Page:
        """`GET /core/accounts/{account_id}` (call kind `account_detail`)."""
        endpoint = "GET /core/accounts/{account_id}"
        response = self._get(f"/core/accounts/{path_segment(account_id)}", endpoint)
        _detail(response)
        return single_page(response, call=call, call_kind="account_detail", context=context or {}, records=1)

    def product_list(
        self, product_id: str, collection: Collection, *, call: str, context: Mapping[str, str] | None = None
    ) -> Iterator[Page]:
        """`GET /core/products/{product_id}/{reports,events,properties,metrics}`, 100 a page.

        Call kind `report_list`, `event_list`, `property_list` or `metric_list`. Ordered by nothing the vendor states,
        and live: a record may come twice, and the tables keep one of each id.
        """
        path = f"/core/products/{path_segment(product_id)}/{collection}"
        endpoint = f"GET /core/products/{{product_id}}/{collection}"

        def send(upcoming: NextRequest) -> Response:
            if upcoming.link is not None:
                return self._http.follow("GET", upcoming.link, endpoint=endpoint)
            return self._get(path, endpoint, upcoming.params)

        return paginate(
            send=send,
            strategy=OffsetLimit(size=_PAGE_SIZE),
            records_of=lambda parsed: _records(parsed, endpoint),
            call=call,
            call_kind=_CALL_KINDS[collection],
            context=context or {},
            vendor=_VENDOR,
        )

    def _get(self, path: str, endpoint: str, params: Mapping[str, str] | None = None) -> Response:
        return self._http.request("GET", path, endpoint=endpoint, params=params)


def account_id_of(page: Page) -> str | None:
    """The parent account named in a `product_detail` page, None where the vendor names none."""
    found = _unwrapped(parse(page.body), page.endpoint)
    account_id = found.get("account_id") if isinstance(found, dict) else None
    return account_id if isinstance(account_id, str) and account_id else None


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
