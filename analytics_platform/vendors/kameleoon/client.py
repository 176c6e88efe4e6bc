"""Kameleoon's Data API over HTTP: the visits of one visitor code, and product counters.

Belongs here: paths, parameters, the shape of an answer, tokens from the authentication host, rate limits with and
without them. Does not belong here: which visitors are asked for (`streams`), columns (`tables`), files, Dagster.
Nothing here writes: posting events, forgetting visitors and storing maps are other jobs.

Source: vendor document "Data API" (endpoints, limits, authentication), and the wire contract (hosts, parameters,
shapes).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from types import TracebackType
from typing import Final, Self

from pydantic import SecretStr

from analytics_platform.core.auth import ClientCredentials
from analytics_platform.core.clock import SYSTEM_CLOCK, Clock
from analytics_platform.core.errors import ConfigurationError, MalformedResponse, Where
from analytics_platform.core.http import HttpClient, HttpLimits, Meter, NullMeter, Response
from analytics_platform.core.paging import Page, single_page
from analytics_platform.core.quota_policy import Window
from analytics_platform.vendors.kameleoon.tables import MAX_PREVIOUS_VISITS

__all__ = [
    "ANONYMOUS_QUOTA",
    "AUTHENTICATED_QUOTA",
    "DEFAULT_AUTH_URL",
    "DEFAULT_BASE_URL",
    "MAX_EANS_PER_CALL",
    "MAX_PREVIOUS_VISITS",
    "KameleoonClient",
    "counters_call",
    "quota_windows",
    "visitor_call",
]

VENDOR: Final = "kameleoon"
DEFAULT_BASE_URL: Final = "https://data.kameleoon.io"
DEFAULT_AUTH_URL: Final = "https://api.kameleoon.com"
MAX_EANS_PER_CALL: Final = 50
"""Keeps the URL, which carries the codes, far below common limits."""

VARIABLES: Final = ("KAMELEOON_CLIENT_ID", "KAMELEOON_CLIENT_SECRET")

# Limits are per requester IP, GET one bucket and every other verb its own (document, "Rate Limits"). The guard covers
# what the network adds to the spacing of requests inside so short a window.
ANONYMOUS_QUOTA: Final[Mapping[str, tuple[Window, ...]]] = {
    "GET": (Window(limit=5, seconds=1.0, guard_seconds=0.1),),
    "*": (Window(limit=50, seconds=1.0, guard_seconds=0.1),),
}
AUTHENTICATED_QUOTA: Final[Mapping[str, tuple[Window, ...]]] = {
    "GET": (Window(limit=50, seconds=1.0, guard_seconds=0.1),),
    "*": (Window(limit=1000, seconds=1.0, guard_seconds=0.1),),
}

# A 429 carries no Retry-After (contract B3) and ends with a window of one second: the transport's back-off is the cure,
# and a run that is refused again and again need not be put off for long.
DEFAULT_LIMITS: Final = HttpLimits(max_attempts=5, unknown_retry_after_seconds=60.0)

_VISITOR_PATH: Final = "/visit/visitor"
_COUNTERS_PATH: Final = "/product/productCounters"
_EVENT_KINDS: Final = (
    "staticData",
    "page",
    "conversion",
    "experiment",
    "personalization",
    "customData",
    "geolocation",
)


def quota_windows(*, is_authenticated: bool) -> Mapping[str, tuple[Window, ...]]:
    """Windows for a `QuotaPolicy`: 50 or 5 GET a second, 1000 or 50 of each other verb."""
    return AUTHENTICATED_QUOTA if is_authenticated else ANONYMOUS_QUOTA


def visitor_call(visitor_code: str) -> str:
    """Identity of a visitor call inside a batch: a digest, because call names travel into logs and metadata."""
    return f"visitor/{hashlib.sha256(visitor_code.encode()).hexdigest()[:24]}"


def counters_call(day: date, eans: Sequence[str]) -> str:
    """Identity of a counters call: the day and a digest of the product codes."""
    return f"product_counters/{day}/{hashlib.sha256(json.dumps(list(eans)).encode()).hexdigest()[:12]}"


class KameleoonClient:
    """Read access to the Data API of one site's region; safe to share between threads.

    Every method sends one request, retried by the transport while the failure is transient, and raises

        AuthenticationFailed   401: a refused token is worse than none here, even where no token is needed
        PermissionDenied       403: the resource needs an add-on, or the User-Agent was taken for a bot
        RateLimited, QuotaExhausted, VendorUnreachable, VendorUnavailable, RequestRejected
        MalformedResponse      not JSON, or not of the known shape

    Args:
        http: a transport for the data host's origin.
    """

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    @classmethod
    def connect(
        cls,
        *,
        client_id: SecretStr | None = None,
        client_secret: SecretStr | None = None,
        base_url: str = DEFAULT_BASE_URL,
        auth_url: str = DEFAULT_AUTH_URL,
        meter: Meter | None = None,
        limits: HttpLimits | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> Self:
        """A client with its own connection pool; without credentials it is anonymous, at a tenth of the GET rate.

        The token comes from another host (`auth_url`, form body, client credentials), pinned like the data host.

        Raises:
            ConfigurationError: only one of id and secret, or a URL or credential that cannot be used.
        """
        auth: ClientCredentials | None = None
        if client_id is not None and client_secret is not None:
            auth = ClientCredentials(
                client_id=client_id,
                client_secret=client_secret,
                token_url=f"{auth_url.rstrip('/')}/oauth/token",
                encoding="form",
                variables=VARIABLES,
                clock=clock,
            )
        elif client_id is not None or client_secret is not None:
            raise ConfigurationError(
                f"Only one of {' and '.join(VARIABLES)} is set.", "Set both, or neither for anonymous access."
            )
        return cls(
            HttpClient(
                vendor=VENDOR,
                base_url=base_url,
                auth=auth,
                meter=meter or NullMeter(),
                limits=limits or DEFAULT_LIMITS,
                path_prefixes=("/visit", "/product"),
                methods=frozenset({"GET"}),
                clock=clock,
            )
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def visitor(
        self,
        *,
        site_code: str,
        visitor_code: str,
        previous_visits: int = MAX_PREVIOUS_VISITS,
        current_visit: bool = False,
    ) -> Page:
        """Visits of one visitor with all their events: GET /visit/visitor. An unknown visitor has no visits.

        Args:
            site_code: as in the site's tag.
            visitor_code: as in the visitor's cookie.
            previous_visits: past visits, newest first, 1 to 25; there is no paging behind them.
            current_visit: also ask for the visit that is going on, which only Feature Experimentation may read.

        Raises:
            ConfigurationError: `previous_visits` out of range.
        """
        if not 1 <= previous_visits <= MAX_PREVIOUS_VISITS:
            raise ConfigurationError(f"Kameleoon gives 1 to {MAX_PREVIOUS_VISITS} past visits, not {previous_visits}.")
        parameters = [
            ("siteCode", site_code),
            ("visitorCode", visitor_code),
            ("maxNumberPreviousVisits", str(previous_visits)),
            *((kind, "true") for kind in _EVENT_KINDS),
        ]
        if current_visit:
            parameters.append(("currentVisit", "true"))
        response = self._http.request("GET", _VISITOR_PATH, endpoint=f"GET {_VISITOR_PATH}", params=parameters)
        return single_page(
            response,
            call=visitor_call(visitor_code),
            call_kind="visitor",
            context={"visitor_code": visitor_code},
            records=_count_visits(response),
        )

    def product_counters(self, *, site_code: str, eans: Sequence[str], day: date) -> Page:
        """Views, units added to a cart and units bought of products in one UTC day: GET /product/productCounters.

        Args:
            site_code: as in the site's tag.
            eans: 1 to 50 product codes. Unknown ones count as zero and may be missing from the answer.
            day: UTC day, asked as epoch milliseconds from its first to its last.

        Raises:
            ConfigurationError: no code, or more than 50.
        """
        if not 1 <= len(eans) <= MAX_EANS_PER_CALL:
            raise ConfigurationError(f"Ask for 1 to {MAX_EANS_PER_CALL} product codes a call, not {len(eans)}.")
        begins_at, ends_at = _day_bounds_ms(day)
        parameters = [
            ("siteCode", site_code),
            ("eans", json.dumps(list(eans), ensure_ascii=False, separators=(",", ":"))),
            ("timeBegin", str(begins_at)),
            ("timeEnd", str(ends_at)),
        ]
        response = self._http.request(
            "GET", _COUNTERS_PATH, endpoint=f"GET {_COUNTERS_PATH}", params=parameters, expect="any"
        )
        if not response.body.strip():
            # The API may answer nothing at all where every counter is zero (contract B7); landing keeps JSON.
            response = replace(response, body=b"{}")
        return single_page(
            response,
            call=counters_call(day, eans),
            call_kind="product_counters",
            context={"day": day.isoformat()},
            records=len(_members(response)),
        )


def _day_bounds_ms(day: date) -> tuple[int, int]:
    """First and last millisecond of a UTC day, both inclusive."""
    midnight = datetime.combine(day, time(), UTC)
    first = int(midnight.timestamp()) * 1000
    return first, first + int(timedelta(days=1) / timedelta(milliseconds=1)) - 1


def _members(response: Response) -> Mapping[str, object]:
    parsed = response.json()
    if parsed is None:
        return {}
    if not isinstance(parsed, dict):
        raise _malformed(response, f"a {type(parsed).__name__} where an object is known")
    return parsed


def _count_visits(response: Response) -> int:
    members = _members(response)
    previous = members.get("previousVisits")
    current = members.get("currentVisit")
    if previous is not None and not isinstance(previous, list):
        raise _malformed(response, "previousVisits that is no list")
    if current is not None and not isinstance(current, dict):
        raise _malformed(response, "currentVisit that is no object")
    return len(previous or []) + (1 if current else 0)


def _malformed(response: Response, what: str) -> MalformedResponse:
    return MalformedResponse(
        f"Kameleoon answered with {what}.",
        "Compare the answer with vendors/kameleoon/README.md; the API may have changed.",
        Where(vendor=VENDOR, endpoint=response.endpoint),
        response.status,
    )
