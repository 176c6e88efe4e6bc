"""Kameleoon's Data API over HTTP, reading: visits of one visitor, products, stored maps.

Belongs here: paths, parameters, the shape of an answer of the GET endpoints. Does not belong here: which visitors are
asked for (`streams`), columns (`tables`), hosts, tokens and limits (`access`), files, Dagster. Nothing here writes:
posting events and maps is `outbound`, forgetting visitors is `erasure`.

Source: vendor document "Data API" (endpoints, limits, authentication), and the wire contract (parameters, shapes).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from types import TracebackType
from typing import Final, Literal, Self, get_args
from urllib.parse import quote

from pydantic import SecretStr

from analytics_platform.core.auth import ClientCredentials
from analytics_platform.core.clock import SYSTEM_CLOCK, Clock
from analytics_platform.core.endpoints import endpoint
from analytics_platform.core.errors import ConfigurationError, MalformedResponse, Where
from analytics_platform.core.http import HttpClient, HttpLimits, Meter, NullMeter, Response
from analytics_platform.core.paging import Page, single_page
from analytics_platform.vendors.kameleoon.access import (
    ANONYMOUS_QUOTA,
    AUTHENTICATED_QUOTA,
    DEFAULT_AUTH_URL,
    DEFAULT_BASE_URL,
    DEFAULT_LIMITS,
    TOKEN_ENDPOINT,
    VARIABLES,
    VENDOR,
    credentials,
    quota_windows,
)
from analytics_platform.vendors.kameleoon.tables import MAX_PREVIOUS_VISITS

__all__ = [
    "ANONYMOUS_QUOTA",
    "AUTHENTICATED_QUOTA",
    "DEFAULT_AUTH_URL",
    "DEFAULT_BASE_URL",
    "MAX_CODES_BYTES",
    "MAX_KEYS_PER_CALL",
    "MAX_PREVIOUS_VISITS",
    "VARIABLES",
    "VENDOR",
    "EventKind",
    "KameleoonClient",
    "codes_by_call",
    "counters_call",
    "mapping_call",
    "quota_windows",
    "visitor_call",
]

MAX_CODES_BYTES: Final = 6000
"""Product codes of one call, as encoded as they stand in its URL. The vendor gives no limit; servers commonly take a
request line of 8,190 bytes. That is some 240 EAN-13 a call."""
MAX_KEYS_PER_CALL: Final = 100
"""Maps the vendor hands out at once (contract B8)."""

EventKind = Literal[
    "staticData",
    "page",
    "conversion",
    "experiment",
    "personalization",
    "customData",
    "geolocation",
    "targetingSegment",
    "activity",
]
"""Kinds of events that can be asked for, by the names of their query parameters."""

_VISITOR: Final = "/visit/visitor"
_COUNTERS: Final = "/product/productCounters"
_PRODUCT_DATA: Final = "/product/productData"
_MAP: Final = "/map/map"
_MAPS: Final = "/map/maps"

_USUAL_KINDS: Final[tuple[EventKind, ...]] = (
    "staticData",
    "page",
    "conversion",
    "experiment",
    "personalization",
    "customData",
    "geolocation",
)


def visitor_call(visitor_code: str) -> str:
    """Identity of a visitor call inside a batch: a digest, because call names travel into logs and metadata."""
    return f"visitor/{hashlib.sha256(visitor_code.encode()).hexdigest()[:24]}"


def mapping_call(mapping_value: str) -> str:
    """Identity of a visitor call by mapping value: a digest, as `visitor_call`, in a space of its own."""
    return f"visitor_mapped/{hashlib.sha256(mapping_value.encode()).hexdigest()[:24]}"


def codes_by_call(eans: Sequence[str]) -> list[list[str]]:
    """Product codes in their order, in as few calls as `MAX_CODES_BYTES` allows; a longer code has one of its own."""
    calls: list[list[str]] = []
    room = 0
    for ean in eans:
        size = len(quote(_json_array([ean]), safe=""))
        if not calls or size > room:
            calls.append([])
            room = MAX_CODES_BYTES
        calls[-1].append(ean)
        room -= size
    return calls


def counters_call(day: date, eans: Sequence[str]) -> str:
    """Identity of a counters call: the day and a digest of the product codes."""
    return f"product_counters/{day}/{_digest(eans)}"


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

    @endpoint(TOKEN_ENDPOINT, source="Data API, Authentication; contract B2")
    @classmethod
    def connect(
        cls,
        *,
        client_id: SecretStr | None = None,
        client_secret: SecretStr | None = None,
        auth: ClientCredentials | None = None,
        base_url: str = DEFAULT_BASE_URL,
        auth_url: str = DEFAULT_AUTH_URL,
        meter: Meter | None = None,
        limits: HttpLimits | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> Self:
        """A client with its own connection pool; without credentials it is anonymous, at a tenth of the GET rate.

        The token comes from another host (`auth_url`, form body, client credentials), pinned like the data host, with
        the first request and again when it ends or is refused. `auth` shares one with other clients instead.

        Raises:
            ConfigurationError: only one of id and secret, or a URL or credential that cannot be used.
        """
        given = credentials(client_id=client_id, client_secret=client_secret, auth_url=auth_url, clock=clock)
        return cls(
            HttpClient(
                vendor=VENDOR,
                base_url=base_url,
                auth=auth or given,
                meter=meter or NullMeter(),
                limits=limits or DEFAULT_LIMITS,
                path_prefixes=(_VISITOR, _COUNTERS, _PRODUCT_DATA, _MAP, _MAPS),
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

    @endpoint("GET /visit/visitor", source="Data API, Overview, Visit endpoints; contract B5")
    def visitor(
        self,
        *,
        site_code: str,
        visitor_code: str | None = None,
        mapping_value: str | None = None,
        previous_visits: int = MAX_PREVIOUS_VISITS,
        current_visit: bool = False,
        kinds: Collection[EventKind] | Literal["all"] = _USUAL_KINDS,
        conversion_scores: bool = False,
        bandit_scores: bool = False,
        version: int | None = None,
    ) -> Page:
        """Visits of one visitor with their events: GET /visit/visitor. An unknown visitor has no visits.

        Times in the answer are epoch milliseconds, visits come newest first; a kind that was not asked for is absent.

        Args:
            site_code: as in the site's tag.
            visitor_code: as in the visitor's cookie.
            mapping_value: instead of a code, the identifier that makes visitors of several devices one person: their
                past visits merged, the current one of the code seen last.
            previous_visits: past visits, newest first, 1 to 25; there is no paging behind them.
            current_visit: also ask for the visit that is going on, which only Feature Experimentation may read.
            kinds: which events; "all" overrides every other choice at the vendor, the current visit included.
            conversion_scores: wire `kcs`, by key moment and goal.
            bandit_scores: wire `cbs`, by experiment and variation.
            version: of the answer's format; the vendor's own client sends 0, and leaving it out means the same.

        Raises:
            ConfigurationError: `previous_visits` out of range, an unknown kind, or not exactly one of `visitor_code`
                and `mapping_value`.
        """
        if not 1 <= previous_visits <= MAX_PREVIOUS_VISITS:
            raise ConfigurationError(f"Kameleoon gives 1 to {MAX_PREVIOUS_VISITS} past visits, not {previous_visits}.")
        if visitor_code is not None and mapping_value is None:
            who, call, context = (
                ("visitorCode", visitor_code),
                visitor_call(visitor_code),
                {"visitor_code": visitor_code},
            )
        elif mapping_value is not None and visitor_code is None:
            who, call, context = ("mappingValue", mapping_value), mapping_call(mapping_value), {}
        else:
            raise ConfigurationError("Name the visitor by visitor_code or by mapping_value, one of the two.")
        flags = {"currentVisit": current_visit, "kcs": conversion_scores, "cbs": bandit_scores}
        parameters = [
            ("siteCode", site_code),
            who,
            ("maxNumberPreviousVisits", str(previous_visits)),
            *((name, "true") for name in _kind_flags(kinds)),
            *((name, "true") for name, is_wanted in flags.items() if is_wanted),
        ]
        if version is not None:
            parameters.append(("version", str(version)))
        response = self._http.request("GET", _VISITOR, endpoint=f"GET {_VISITOR}", params=parameters)
        return single_page(response, call=call, call_kind="visitor", context=context, records=_count_visits(response))

    @endpoint("GET /product/productCounters", source="Data API, Overview, Product endpoints; contract B7")
    def product_counters(
        self,
        *,
        site_code: str,
        eans: Sequence[str],
        day: date | None = None,
        between: tuple[datetime, datetime] | None = None,
    ) -> Page:
        """Views, units added to a cart and units bought of products: GET /product/productCounters.

        The document speaks of "the last hour or day"; the vendor takes any range, and without one counts all it has.

        Args:
            site_code: as in the site's tag.
            eans: product codes, as many as `codes_by_call` puts together. Unknown ones count as zero and may be missing
                from the answer.
            day: a UTC day, asked as epoch milliseconds from its first to its last.
            between: or two aware instants, both inclusive to the millisecond.

        Raises:
            ConfigurationError: no code, or more than a URL takes; both `day` and `between`; instants that are naive or
                end before they begin.
            PermissionDenied: the site has neither Product Recommendation nor Product Targeting.
        """
        parameters = [("siteCode", site_code), ("eans", _codes_parameter(eans))]
        call, context = f"product_counters/all/{_digest(eans)}", {}
        bounds = _bounds_ms(day, between)
        if bounds is not None:
            parameters += [("timeBegin", str(bounds[0])), ("timeEnd", str(bounds[1]))]
            call = f"product_counters/{bounds[0]}-{bounds[1]}/{_digest(eans)}"
        if day is not None:
            call, context = counters_call(day, eans), {"day": day.isoformat()}
        response = self._object(_COUNTERS, parameters)
        return single_page(
            response, call=call, call_kind="product_counters", context=context, records=len(_members(response))
        )

    @endpoint("GET /product/productData", source="Data API, Overview, Product endpoints; contract B7")
    def product_data(self, *, site_code: str, eans: Sequence[str]) -> Page:
        """Attributes of products, by product code: GET /product/productData. Unknown products are absent.

        Args:
            site_code: as in the site's tag.
            eans: product codes, as many as `codes_by_call` puts together.

        Raises:
            ConfigurationError: no code, or more than a URL takes.
            PermissionDenied: as `product_counters`.
        """
        parameters = [("siteCode", site_code), ("eans", _codes_parameter(eans)), ("all", "true")]
        response = self._object(_PRODUCT_DATA, parameters)
        return single_page(
            response,
            call=f"product_data/{_digest(eans)}",
            call_kind="product_data",
            context={},
            records=len(_members(response)),
        )

    @endpoint("GET /map/map", source="Data API, Overview, Map endpoints; contract B8")
    def stored_map(self, *, site_code: str, key: str) -> Mapping[str, object]:
        """The map stored under a key, field by field: GET /map/map.

        Empty for a key that never had one, was replaced by `{}`, or whose time to live (92 days unless the writer said
        otherwise) is over: the vendor tells these apart by nothing.

        Raises:
            ConfigurationError: an empty key.
            MalformedResponse: the answer is no object.
        """
        if not key:
            raise ConfigurationError("A map has a key.")
        return _members(self._object(_MAP, [("siteCode", site_code), ("key", key)]))

    @endpoint("GET /map/maps", source="Data API, Overview, Map endpoints; contract B8")
    def stored_maps(self, *, site_code: str, keys: Sequence[str]) -> Mapping[str, Mapping[str, object]]:
        """The maps of up to 100 keys: GET /map/maps. Keys without a map are absent, whatever the vendor sends for them.

        Raises:
            ConfigurationError: no key, an empty one, or more than 100.
            MalformedResponse: the answer is no object of objects.
        """
        if not 1 <= len(keys) <= MAX_KEYS_PER_CALL or not all(keys):
            raise ConfigurationError(f"Ask for 1 to {MAX_KEYS_PER_CALL} keys a call, not {len(keys)}, none empty.")
        response = self._object(_MAPS, [("siteCode", site_code), ("keys", _json_array(keys))])
        found: dict[str, Mapping[str, object]] = {}
        for key, fields in _members(response).items():
            if fields is not None and not isinstance(fields, dict):
                raise _malformed(response, "a map that is no object")
            if fields:
                found[key] = fields
        return found

    def _object(self, path: str, parameters: Sequence[tuple[str, str]]) -> Response:
        response = self._http.request("GET", path, endpoint=f"GET {path}", params=parameters, expect="any")
        # The API may answer nothing at all where there is nothing to tell (contract B7, B8); landing keeps JSON.
        return response if response.body.strip() else replace(response, body=b"{}")


def _kind_flags(kinds: Collection[EventKind] | Literal["all"]) -> tuple[str, ...]:
    if kinds == "all":
        return ("all",)
    known = get_args(EventKind)
    unknown = sorted(set(kinds) - set(known))
    if unknown:
        raise ConfigurationError(f"Kameleoon has no events of the kind {', '.join(unknown)}.")
    return tuple(kind for kind in known if kind in kinds)


def _codes_parameter(eans: Sequence[str]) -> str:
    if len(codes_by_call(eans)) != 1:
        raise ConfigurationError(f"Ask for product codes of 1 to {MAX_CODES_BYTES} bytes a call, not for {len(eans)}.")
    return _json_array(eans)


def _json_array(texts: Sequence[str]) -> str:
    return json.dumps(list(texts), ensure_ascii=False, separators=(",", ":"))


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()[:12]


def _bounds_ms(day: date | None, between: tuple[datetime, datetime] | None) -> tuple[int, int] | None:
    if between is None:
        return None if day is None else _day_bounds_ms(day)
    if day is not None:
        raise ConfigurationError("Ask for a day or for a range of instants, not for both.")
    begins_at, ends_at = between
    if begins_at.tzinfo is None or ends_at.tzinfo is None or ends_at < begins_at:
        raise ConfigurationError("A range is two instants with their zone, the first not after the second.")
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    millisecond = timedelta(milliseconds=1)
    return (begins_at - epoch) // millisecond, (ends_at - epoch) // millisecond


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
