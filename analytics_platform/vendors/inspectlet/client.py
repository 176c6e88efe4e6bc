"""Inspectlet's API v1, one method an endpoint: asks, pages, and hands over what came back.

Belongs here: paths, the search form, both envelopes, errors inside a 200. Does not belong here: which days to ask for
(`streams`), what the fields mean (`tables`), Dagster, files.

Source: vendor_docs/inspectlet.txt; contracts/inspectlet §2.1 (envelope, double encoding), §2.3 (traps).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from pydantic import SecretStr

from analytics_platform.core.auth import Basic
from analytics_platform.core.clock import SYSTEM_CLOCK, Clock
from analytics_platform.core.errors import (
    AuthenticationFailed,
    MalformedResponse,
    PermissionDenied,
    VendorError,
    VendorReportedError,
    Where,
)
from analytics_platform.core.http import HttpClient, HttpLimits, Meter, NullMeter, Response
from analytics_platform.core.origin import path_segment
from analytics_platform.core.paging import NextRequest, Page, PageNumber, paginate, single_page
from analytics_platform.core.redaction import redact

__all__ = ["DEFAULT_BASE_URL", "InspectletClient", "SessionSearch"]

_VENDOR = "inspectlet"
DEFAULT_BASE_URL = "https://api.inspectlet.com"
_PAGE_SIZE = 100
"""The documented maximum of `limit`."""


@dataclass(frozen=True, kw_only=True)
class SessionSearch:
    """What to search for: sessions that started within [start, end), aware instants. Other conditions come with a
    later issue.

    Whether the vendor's bounds are inclusive, and whether it means the start or any part of a session, is not said:
    ask with a margin.
    """

    start: datetime
    end: datetime

    def form_value(self) -> str:
        """The `search` field: JSON inside a form, instants as strings of Unix seconds (contract §2.1)."""
        bounds = {"start": str(int(self.start.timestamp())), "end": str(int(self.end.timestamp()))}
        return json.dumps({"daterange": "custom", "daterangecustom": bounds}, separators=(",", ":"))


class InspectletClient:
    """One Inspectlet account. Thread-safe as `HttpClient` is; a context manager.

    Every method may raise the VendorError and QuotaError classes of `core.errors`.
    """

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    @classmethod
    def connect(
        cls,
        *,
        username: SecretStr,
        api_token: SecretStr,
        base_url: str = DEFAULT_BASE_URL,
        variables: tuple[str, str] = ("INSPECTLET_USERNAME", "INSPECTLET_API_TOKEN"),
        meter: Meter | None = None,
        limits: HttpLimits | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> Self:
        """A client on the pinned origin of `base_url`.

        Raises:
            ConfigurationError: the base URL, user name or token cannot be used; names the variable.
        """
        http = HttpClient(
            vendor=_VENDOR,
            base_url=base_url,
            auth=Basic(username, api_token, variables=variables),
            meter=meter or NullMeter(),
            limits=limits or HttpLimits(),
            path_prefixes=("/v1/",),
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

    def websites(self, *, call: str = "websites", context: Mapping[str, str] | None = None) -> Page:
        """`GET /v1/websites`: every website of the account (call kind `website_list`)."""
        response = self._get_websites()
        records = len(_records(response.json(), response.endpoint))
        return single_page(response, call=call, call_kind="website_list", context=context or {}, records=records)

    def search_sessions(
        self, wid: str, search: SessionSearch, *, call: str, context: Mapping[str, str] | None = None
    ) -> Iterator[Page]:
        """`POST /v1/websites/{wid}/sessions`, newest first, 100 a page (call kind `session_search`).

        Raises:
            PermissionDenied: the credentials are good, but not for this website.
        """
        path = f"/v1/websites/{path_segment(wid)}/sessions"
        endpoint = "POST /v1/websites/{wid}/sessions"

        def send(upcoming: NextRequest) -> Response:
            form = {"search": search.form_value(), **upcoming.params}
            try:
                # A search only reads, so it may be repeated.
                return self._http.request("POST", path, endpoint=endpoint, form=form, retry=True)
            except AuthenticationFailed as error:
                raise self._explained(error, endpoint) from error

        return paginate(
            send=send,
            strategy=PageNumber(size=_PAGE_SIZE),
            records_of=lambda parsed: _records(parsed, endpoint),
            call=call,
            call_kind="session_search",
            context=context or {},
            vendor=_VENDOR,
        )

    def session(self, wid: str, sid: str, *, call: str, context: Mapping[str, str] | None = None) -> Page:
        """`GET /v1/websites/{wid}/sessions/{sid}`: documented as an object, sampled as an array of one (call kind
        `session`).
        """
        endpoint = "GET /v1/websites/{wid}/sessions/{sid}"
        path = f"/v1/websites/{path_segment(wid)}/sessions/{path_segment(sid)}"
        response = self._http.request("GET", path, endpoint=endpoint)
        records = len(_records(response.json(), endpoint))
        return single_page(response, call=call, call_kind="session", context=context or {}, records=records)

    def _get_websites(self) -> Response:
        return self._http.request("GET", "/v1/websites", endpoint="GET /v1/websites")

    def _explained(self, error: AuthenticationFailed, endpoint: str) -> VendorError:
        """A 401 means a bad token or a website that is not ours (vendor document, Errors): one more request tells
        which.
        """
        try:
            self._get_websites()
        except VendorError:
            return error
        return PermissionDenied(
            "Inspectlet accepts the credentials, but not for this website.",
            "Compare the site's wid in sites.yaml with the list of GET /v1/websites; other sites are not affected.",
            Where(vendor=_VENDOR, endpoint=endpoint),
            401,
        )


def _records(parsed: object, endpoint: str) -> list[object]:
    """Records under `response`: a list, an object with `sessions`, an object with `session`, or the object itself.

    Raises:
        VendorReportedError: the body has an `error`, whatever the status (contract §2.3, trap 18).
        MalformedResponse: there is no `response`.
    """
    if not isinstance(parsed, dict):
        raise _unexpected(endpoint)
    if parsed.get("error"):
        raise VendorReportedError(
            f"Inspectlet answered 200 with an error: {redact(json.dumps(parsed['error']))[:200]}",
            "Read the vendor's words; compare the request with vendors/inspectlet/README.md.",
            Where(vendor=_VENDOR, endpoint=endpoint),
            200,
        )
    if "response" not in parsed:
        raise _unexpected(endpoint)
    found = parsed["response"]
    if isinstance(found, dict) and "sessions" in found:
        found = found["sessions"]
    if found is None:
        return []
    if isinstance(found, dict):
        # PHP writes an empty list as {} when it was an empty map.
        return [found] if found else []
    if not isinstance(found, list):
        raise _unexpected(endpoint)
    return found


def _unexpected(endpoint: str) -> MalformedResponse:
    return MalformedResponse(
        "The answer has no list under `response`.",
        "The vendor may have changed the endpoint; compare with vendors/inspectlet/README.md.",
        Where(vendor=_VENDOR, endpoint=endpoint),
        200,
    )
