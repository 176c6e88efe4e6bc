"""Sending to Kameleoon's Data API: events of visits and products, and maps of further data.

Belongs here: the typed events, their two wire forms, the limits of a body, and the three POST calls that add data. Does
not belong here: reading (`client`), removing visitors (`erasure`), when and how often something is sent (`outbox`).

The vendor answers 204 once the URL is well formed and reads the body later: a line it cannot read vanishes without a
word, and what was accepted becomes readable some seconds on. So every value is checked here, before it is sent. Events
carry no time: the vendor files them under the moment it receives them, in the visit that is then going on.

Sources: vendor document "Overview" (POST /visit/events, /product/events, /map/maps) and "Rate limiting"; contract
Kameleoon B3 (asynchronous POST), B4 (visit events), B7 (product events), B8 (maps).
"""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Literal, Protocol, Self, TypeVar, get_args
from urllib.parse import quote

from pydantic import SecretStr

from analytics_platform.core.auth import ClientCredentials
from analytics_platform.core.clock import SYSTEM_CLOCK, Clock
from analytics_platform.core.endpoints import endpoint
from analytics_platform.core.errors import ConfigurationError
from analytics_platform.core.http import HttpClient, HttpLimits, Meter, NullMeter
from analytics_platform.core.opt_in import WriteOptIn
from analytics_platform.vendors.kameleoon.access import (
    DEFAULT_AUTH_URL,
    DEFAULT_BASE_URL,
    DEFAULT_LIMITS,
    VENDOR,
    check_code,
    credentials,
)

__all__ = [
    "MAX_BODY_BYTES",
    "MAX_FIELD_NAME_LENGTH",
    "MAX_MAPS_BYTES",
    "MAX_TTL_HOURS",
    "SAFE_BODY_BYTES",
    "KameleoonWriter",
    "ProductEvent",
    "VisitEvent",
    "batches",
    "new_nonce",
]

MAX_BODY_BYTES: Final = 3_000_000
"""Largest body of events the vendor takes (it was 10 MB, then 8, then 1, now 3: contract B4)."""
SAFE_BODY_BYTES: Final = 2_500_000
"""Where `batches` cuts, as the vendor's own client does."""
MAX_MAPS_BYTES: Final = 1_000_000
MAX_FIELD_NAME_LENGTH: Final = 1024
MAX_TTL_HOURS: Final = 8784
DEFAULT_TTL_HOURS: Final = 2208

VisitEventKind = Literal[
    "page",
    "conversion",
    "customData",
    "experiment",
    "personalization",
    "targetingSegment",
    "geolocation",
    "staticData",
    "activity",
]
ProductEventKind = Literal["productPage", "productAddToCart", "productBuy"]

Value = str | int | float | bool | Mapping[str, object] | Sequence[object]
"""A parameter of an event: a number, a text, a flag, or JSON (an object or an array)."""

_VISIT_EVENTS: Final = "/visit/events"
_PRODUCT_EVENTS: Final = "/product/events"
_MAPS: Final = "/map/maps"

_NONCE: Final = re.compile(r"[0-9a-fA-F]{16}")
_PARAMETER_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")
_RESERVED: Final = frozenset({"nonce", "eventType", "visitorCode", "ean"})
# What encodeURIComponent leaves alone besides letters and digits: the vendor's own clients write bodies with it.
_UNESCAPED: Final = "-_.!~*'()"


def new_nonce() -> str:
    """16 random hex characters: the name by which the vendor knows an event it already has."""
    return secrets.token_hex(8).upper()


class _Event(Protocol):
    @property
    def nonce(self) -> str | None: ...

    def as_object(self) -> dict[str, object]: ...

    def as_line(self) -> str: ...


_AnyEvent = TypeVar("_AnyEvent", bound=_Event)


@dataclass(frozen=True, kw_only=True)
class VisitEvent:
    """One event of a visit (contract B4). Make it with one of the factories, which know the kind's parameters.

    The nonce is part of the value: made once, kept by `as_object` / `from_object`, so an event that is sent twice
    counts once.

    Args:
        kind: `eventType` on the wire.
        parameters: the kind's own parameters by their wire names; None values are left out.
        visitor_code: whose event this is, at most 100 characters; None where the call names the visitor.
        nonce: 16 hex characters.

    Raises:
        ConfigurationError: a value the vendor would drop without a word.
    """

    kind: VisitEventKind
    parameters: Mapping[str, Value] = field(repr=False)
    visitor_code: str | None = field(default=None, repr=False)
    nonce: str = field(default_factory=new_nonce)

    def __post_init__(self) -> None:
        if self.kind not in get_args(VisitEventKind):
            raise ConfigurationError(f"Kameleoon knows no visit event of the kind {self.kind!r}.")
        _check_event(self.kind, self.parameters, self.nonce)
        if self.visitor_code is not None:
            check_code(self.visitor_code, "visitor code")

    @classmethod
    def page(
        cls,
        *,
        href: str,
        title: str,
        referrer_href: str | None = None,
        canonical_href: str | None = None,
        visitor_code: str | None = None,
    ) -> Self:
        """A page view: address, title, and where the visitor came from."""
        found = {"href": href, "title": title, "canonicalHref": canonical_href, "referrerHref": referrer_href}
        # "No key page, no known referrer": what the vendor's own clients send.
        return cls._of("page", {**found, "keyPagesIndices": [None], "referrersIndices": [None]}, visitor_code)

    @classmethod
    def conversion(
        cls,
        *,
        goal_id: int,
        revenue: float = 0.0,
        is_reversal: bool = False,
        metadata: Mapping[int, Sequence[str]] | None = None,
        visitor_code: str | None = None,
    ) -> Self:
        """A goal reached.

        Args:
            goal_id: as in the project's goals.
            revenue: in the project's currency, not negative; a reversal carries the amount it takes back.
            is_reversal: wire `negative`: takes an earlier conversion back.
            metadata: values by index of custom data.
            visitor_code: see the class.

        Raises:
            ConfigurationError: a revenue that is negative or no number.
        """
        if not (math.isfinite(revenue) and revenue >= 0):
            raise ConfigurationError("The revenue of a conversion is a number of at least 0.", "Use is_reversal.")
        told = {str(index): list(values) for index, values in metadata.items()} if metadata else None
        found = {"goalId": goal_id, "revenue": float(revenue), "negative": is_reversal, "metadata": told}
        return cls._of("conversion", found, visitor_code)

    @classmethod
    def custom_data(
        cls,
        *,
        index: int,
        values: Mapping[str, int] | Sequence[str],
        overwrite: bool = True,
        is_mapping_identifier: bool = False,
        visitor_code: str | None = None,
    ) -> Self:
        """Values of one custom data slot with how often each was seen (a bare sequence: once each).

        `overwrite` replaces the slot's earlier values; `is_mapping_identifier` says that the value is the identifier
        by which visitors of several devices are one person.
        """
        counts = dict(values) if isinstance(values, Mapping) else dict.fromkeys(values, 1)
        found: dict[str, Value | None] = {"index": index, "valuesCountMap": counts, "overwrite": overwrite}
        if is_mapping_identifier:
            found["mappingIdentifier"] = True
        return cls._of("customData", found, visitor_code)

    @classmethod
    def experiment(cls, *, experiment_id: int, variation_id: int, visitor_code: str | None = None) -> Self:
        """An exposure to a variation of an experiment; variation 0 is the reference."""
        return cls._of("experiment", {"id": experiment_id, "variationId": variation_id}, visitor_code)

    @classmethod
    def personalization(cls, *, personalization_id: int, variation_id: int, visitor_code: str | None = None) -> Self:
        """An exposure to a personalization."""
        return cls._of("personalization", {"id": personalization_id, "variationId": variation_id}, visitor_code)

    @classmethod
    def targeting_segment(cls, *, segment_id: int, visitor_code: str | None = None) -> Self:
        """The visitor fell into a targeting segment."""
        return cls._of("targetingSegment", {"id": segment_id}, visitor_code)

    @classmethod
    def geolocation(
        cls,
        *,
        country: str,
        region: str | None = None,
        city: str | None = None,
        postal_code: str | None = None,
        latitude: float | None = None,
        longitude: float | None = None,
        visitor_code: str | None = None,
    ) -> Self:
        """Where the visitor is; degrees for latitude and longitude."""
        place = {"country": country, "region": region, "city": city, "postalCode": postal_code}
        return cls._of("geolocation", {**place, "latitude": latitude, "longitude": longitude}, visitor_code)

    @classmethod
    def static_data(
        cls,
        *,
        device_type: Literal["PHONE", "TABLET", "DESKTOP"],
        visit_number: int | None = None,
        time_since_previous_visit_ms: int | None = None,
        browser: str | None = None,
        browser_index: int | None = None,
        browser_version: float | None = None,
        os: str | None = None,
        os_index: int | None = None,
        window_width: int | None = None,
        window_height: int | None = None,
        screen_width: int | None = None,
        screen_height: int | None = None,
        time_zone_id: str | None = None,
        locale_language_tag: str | None = None,
        visitor_code: str | None = None,
    ) -> Self:
        """The visitor's device and which visit this is (`visit_number` from 0; indices 0 to 5; sizes in pixels)."""
        device = {"deviceType": device_type, "browser": browser, "browserIndex": browser_index, "os": os}
        more = {"browserVersion": browser_version, "osIndex": os_index}
        visit = {"visitNumber": visit_number, "timeSincePreviousVisit": time_since_previous_visit_ms}
        sizes = {
            "windowWidth": window_width,
            "windowHeight": window_height,
            "screenWidth": screen_width,
            "screenHeight": screen_height,
        }
        place = {"timeZoneId": time_zone_id, "localeLanguageTag": locale_language_tag}
        return cls._of("staticData", {**device, **more, **visit, **sizes, **place}, visitor_code)

    @classmethod
    def activity(cls, *, clicks: int, visitor_code: str | None = None) -> Self:
        """Clicks since the last activity event."""
        return cls._of("activity", {"clicks": clicks}, visitor_code)

    @classmethod
    def _of(cls, kind: VisitEventKind, parameters: Mapping[str, Value | None], visitor_code: str | None) -> Self:
        return cls(kind=kind, parameters=_present(parameters), visitor_code=visitor_code)

    def as_object(self) -> dict[str, object]:
        """The event as a member of a JSON body; also the form to persist: `from_object` gives the same value back."""
        told: dict[str, object] = {"nonce": self.nonce, "eventType": self.kind, **self.parameters}
        return told if self.visitor_code is None else {**told, "visitorCode": self.visitor_code}

    @classmethod
    def from_object(cls, told: Mapping[str, object]) -> Self:
        """The event that `as_object` told of, nonce included.

        Raises:
            ConfigurationError: not such an object.
        """
        rest, nonce, kind = _taken_apart(told)
        code = rest.pop("visitorCode", None)
        if kind not in get_args(VisitEventKind) or not isinstance(code, str | None):
            raise ConfigurationError("A stored Kameleoon visit event cannot be read.")
        return cls(kind=kind, parameters=rest, visitor_code=code, nonce=nonce or "")  # type: ignore[arg-type]

    def as_line(self) -> str:
        """The event as a line of a text body: `k=v&k=v`, encoded as encodeURIComponent does."""
        return _line(self.as_object())


@dataclass(frozen=True, kw_only=True)
class ProductEvent:
    """One event of a product (contract B7): seen, put into a cart, or bought.

    Args:
        kind: `eventType` on the wire.
        parameters: quantity, or attributes of the product (`name`, `price`, …), by their wire names.
        ean: product code, at most 100 characters; None where the call names the product.
        nonce: 16 hex characters; None sends none, and then the event is never sent a second time.

    Raises:
        ConfigurationError: a value the vendor would drop without a word.
    """

    kind: ProductEventKind
    parameters: Mapping[str, Value] = field(repr=False)
    ean: str | None = None
    nonce: str | None = field(default_factory=new_nonce)

    def __post_init__(self) -> None:
        if self.kind not in get_args(ProductEventKind):
            raise ConfigurationError(f"Kameleoon knows no product event of the kind {self.kind!r}.")
        _check_event(self.kind, self.parameters, self.nonce)
        if self.ean is not None:
            check_code(self.ean, "product code")

    @classmethod
    def page(cls, *, ean: str | None = None, attributes: Mapping[str, Value] | None = None) -> Self:
        """A view of the product's page, with the attributes that `GET /product/productData` gives back."""
        return cls(kind="productPage", parameters=_present(attributes or {}), ean=ean)

    @classmethod
    def add_to_cart(cls, *, quantity: int, ean: str | None = None) -> Self:
        """Units put into a cart."""
        return cls(kind="productAddToCart", parameters={"quantity": _units(quantity)}, ean=ean)

    @classmethod
    def buy(cls, *, quantity: int, ean: str | None = None) -> Self:
        """Units bought."""
        return cls(kind="productBuy", parameters={"quantity": _units(quantity)}, ean=ean)

    def as_object(self) -> dict[str, object]:
        """As for `VisitEvent`."""
        told: dict[str, object] = {} if self.nonce is None else {"nonce": self.nonce}
        told |= {"eventType": self.kind, **self.parameters}
        return told if self.ean is None else {**told, "ean": self.ean}

    @classmethod
    def from_object(cls, told: Mapping[str, object]) -> Self:
        """As for `VisitEvent`."""
        rest, nonce, kind = _taken_apart(told)
        ean = rest.pop("ean", None)
        if kind not in get_args(ProductEventKind) or not isinstance(ean, str | None):
            raise ConfigurationError("A stored Kameleoon product event cannot be read.")
        return cls(kind=kind, parameters=rest, ean=ean, nonce=nonce)  # type: ignore[arg-type]

    def as_line(self) -> str:
        """As for `VisitEvent`."""
        return _line(self.as_object())


def batches(
    events: Sequence[_AnyEvent], *, most_bytes: int = SAFE_BODY_BYTES, as_json: bool = False
) -> Iterator[list[_AnyEvent]]:
    """Cut events, in order, into lists whose bodies hold at most `most_bytes`. No event, no list.

    Raises:
        ConfigurationError: one event alone is larger.
    """
    batch: list[_AnyEvent] = []
    used = 2 if as_json else 0
    for event in events:
        # One more byte for what separates it from the next: a comma or the end of the line.
        size = len(_json(event.as_object()) if as_json else event.as_line().encode()) + 1
        if size + 2 > most_bytes:
            raise ConfigurationError(f"One event has {size:,} bytes; a body holds at most {most_bytes:,}.")
        if batch and used + size > most_bytes:
            yield batch
            batch, used = [], 2 if as_json else 0
        batch.append(event)
        used += size
    if batch:
        yield batch


class KameleoonWriter:
    """Adds data at Kameleoon; it cannot read and cannot remove a visitor. Safe to share between threads.

    Every method sends one request and returns when the vendor accepted it (204): what the body holds is read later.
    Each raises the errors of `KameleoonClient`, and `RequestRejected` for 400 (the URL) and 413 (the body).

    Args:
        http: a transport for the data host's origin that may send POST.
        opt_in: the yes to writing at this vendor.

    Raises:
        ConfigurationError: no opt-in.
    """

    def __init__(self, http: HttpClient, *, opt_in: WriteOptIn) -> None:
        opt_in.require(VENDOR)
        self._http = http

    @classmethod
    def connect(
        cls,
        *,
        opt_in: WriteOptIn,
        client_id: SecretStr | None = None,
        client_secret: SecretStr | None = None,
        auth: ClientCredentials | None = None,
        base_url: str = DEFAULT_BASE_URL,
        auth_url: str = DEFAULT_AUTH_URL,
        meter: Meter | None = None,
        limits: HttpLimits | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> Self:
        """A writer with its own connection pool; anonymous without credentials, at a twentieth of the rate.

        Raises:
            ConfigurationError: as `KameleoonClient.connect`, and no opt-in.
        """
        opt_in.require(VENDOR)
        given = credentials(client_id=client_id, client_secret=client_secret, auth_url=auth_url, clock=clock)
        http = HttpClient(
            vendor=VENDOR,
            base_url=base_url,
            auth=auth or given,
            meter=meter or NullMeter(),
            limits=limits or DEFAULT_LIMITS,
            path_prefixes=(_VISIT_EVENTS, _PRODUCT_EVENTS, _MAPS),
            methods=frozenset({"POST"}),
            clock=clock,
        )
        return cls(http, opt_in=opt_in)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @endpoint("POST /visit/events", source="Data API, Overview, Visit endpoints; contract B4")
    def post_events(
        self,
        *,
        site_code: str,
        events: Sequence[VisitEvent],
        visitor_code: str | None = None,
        mapping_value: str | None = None,
        as_json: bool = False,
    ) -> None:
        """Post events of visits. Sent again with the same bytes while the failure is transient: nonces count once.

        Args:
            site_code: as in the site's tag.
            events: at least one; `batches` cuts a long list.
            visitor_code: the visitor of all events; without it (and without `mapping_value`) each names its own.
            mapping_value: the cross-device identifier of the visitor instead of a code.
            as_json: a JSON array instead of lines of text.

        Raises:
            ConfigurationError: no event, a body over 3 MB, two ways to name the visitor, none, or an event of another
                visitor than the call's (the vendor would file it under the call's).
        """
        if visitor_code is not None and mapping_value is not None:
            raise ConfigurationError("Name the visitor by visitor_code or by mapping_value, not by both.")
        parameters = [("siteCode", site_code)]
        if visitor_code is not None:
            check_code(visitor_code, "visitor code")
            parameters.append(("visitorCode", visitor_code))
        elif mapping_value is not None:
            check_code(mapping_value, "mapping value")
            parameters.append(("mappingValue", mapping_value))
        is_common = visitor_code is not None or mapping_value is not None
        for event in events:
            if not is_common and event.visitor_code is None:
                raise ConfigurationError("An event names no visitor, and neither does the call.")
            if is_common and event.visitor_code not in (None, visitor_code):
                raise ConfigurationError("An event is of another visitor than the call: the vendor would ignore that.")
        self._post_body(_VISIT_EVENTS, parameters, events, as_json=as_json, retry=True)

    @endpoint("POST /product/events", source="Data API, Overview, Product endpoints; contract B7")
    def post_product_events(
        self,
        *,
        site_code: str,
        events: Sequence[ProductEvent],
        ean: str | None = None,
        as_json: bool = False,
    ) -> None:
        """Post events of products. Sent again while the failure is transient only where every event has a nonce.

        Args:
            site_code: as in the site's tag.
            events: at least one; `batches` cuts a long list.
            ean: the product of all events; without it each names its own.
            as_json: a JSON array instead of lines of text.

        Raises:
            ConfigurationError: no event, a body over 3 MB, no product, or an event of another product than the call's.
            PermissionDenied: the site has neither Product Recommendation nor Product Targeting.
        """
        parameters = [("siteCode", site_code)]
        if ean is not None:
            check_code(ean, "product code")
            parameters.append(("ean", ean))
        for event in events:
            if ean is None and event.ean is None:
                raise ConfigurationError("An event names no product, and neither does the call.")
            if ean is not None and event.ean not in (None, ean):
                raise ConfigurationError("An event is of another product than the call: the vendor would ignore that.")
        has_nonces = all(event.nonce is not None for event in events)
        self._post_body(_PRODUCT_EVENTS, parameters, events, as_json=as_json, retry=has_nonces)

    @endpoint("POST /map/maps", source="Data API, Overview, Map endpoints; contract B8")
    def write_maps(
        self,
        *,
        site_code: str,
        maps: Mapping[str, Mapping[str, object]],
        ttl_hours: int = DEFAULT_TTL_HOURS,
    ) -> None:
        """Store maps, one a key. A map **replaces** what the key held, it is not merged; `{}` removes the key.

        Sent again while the failure is transient: the same maps twice are the same maps.

        Args:
            site_code: as in the site's tag.
            maps: by key (a visitor code or a user id of the site, at most 100 characters; the vendor's browser client
                cannot read keys with `&`, `#`, `?` or `+`); field names hold at most 1024 characters, values are JSON.
            ttl_hours: 1 to 8784; after it the map is gone without a word. The vendor's default is 92 days.

        Raises:
            ConfigurationError: no map, or one of these bounds, or a body over 1 MB.
        """
        if not 1 <= ttl_hours <= MAX_TTL_HOURS:
            raise ConfigurationError(f"A map lives 1 to {MAX_TTL_HOURS} hours, not {ttl_hours}.")
        if not maps:
            raise ConfigurationError("There is no map to store.")
        for key, fields in maps.items():
            check_code(key, "map key")
            if any(not name or len(name) > MAX_FIELD_NAME_LENGTH for name in fields):
                raise ConfigurationError(f"Names of fields in a map hold 1 to {MAX_FIELD_NAME_LENGTH} characters.")
        body = _json(maps)
        if len(body) > MAX_MAPS_BYTES:
            raise _too_large(len(body), MAX_MAPS_BYTES, "Write fewer keys a call.")
        parameters = [("siteCode", site_code), ("ttlHours", str(ttl_hours))]
        self._post(_MAPS, parameters, body, content_type="application/json", retry=True)

    def _post_body(
        self,
        path: str,
        parameters: list[tuple[str, str]],
        events: Sequence[VisitEvent] | Sequence[ProductEvent],
        *,
        as_json: bool,
        retry: bool,
    ) -> None:
        if not events:
            raise ConfigurationError("There is no event to post.")
        if as_json:
            body = _json([event.as_object() for event in events])
        else:
            body = "\n".join(event.as_line() for event in events).encode()
        if len(body) > MAX_BODY_BYTES:
            raise _too_large(len(body), MAX_BODY_BYTES, "Cut the events with `batches`.")
        query = [*parameters, ("json", "true")] if as_json else parameters
        content_type = "application/json" if as_json else "text/plain; charset=utf-8"
        self._post(path, query, body, content_type=content_type, retry=retry)

    def _post(
        self, path: str, parameters: Sequence[tuple[str, str]], body: bytes, *, content_type: str, retry: bool
    ) -> None:
        self._http.request(
            "POST",
            path,
            endpoint=f"POST {path}",
            params=parameters,
            content=body,
            headers={"content-type": content_type},
            expect="any",
            retry=retry,
        )


def _check_event(kind: str, parameters: Mapping[str, Value], nonce: str | None) -> None:
    if nonce is not None and not _NONCE.fullmatch(nonce):
        raise ConfigurationError("The nonce of an event is 16 hex characters.")
    for name, value in parameters.items():
        if name in _RESERVED or not _PARAMETER_NAME.fullmatch(name):
            raise ConfigurationError(f"A {kind} event cannot carry a parameter of this name.")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigurationError(f"The parameter {name} of a {kind} event is no finite number.")


def _present(parameters: Mapping[str, Value | None]) -> dict[str, Value]:
    return {name: value for name, value in parameters.items() if value is not None}


def _units(quantity: int) -> int:
    if quantity < 1:
        raise ConfigurationError("The quantity of a product event is at least 1.")
    return quantity


def _taken_apart(told: Mapping[str, object]) -> tuple[dict[str, object], str | None, object]:
    rest = dict(told)
    nonce, kind = rest.pop("nonce", None), rest.pop("eventType", None)
    if not isinstance(nonce, str | None):
        raise ConfigurationError("A stored Kameleoon event has a nonce that is no text.")
    return rest, nonce, kind


def _line(told: Mapping[str, object]) -> str:
    return "&".join(f"{name}={quote(_text(value), safe=_UNESCAPED)}" for name, value in told.items())


def _text(value: object) -> str:
    return value if isinstance(value, str) else _json(value).decode()


def _json(value: object) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError):
        raise ConfigurationError("What is to be sent cannot be written as JSON.") from None


def _too_large(size: int, limit: int, next_step: str) -> ConfigurationError:
    return ConfigurationError(f"The body has {size:,} bytes; Kameleoon takes at most {limit:,}.", next_step)
