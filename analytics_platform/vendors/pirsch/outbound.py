"""Sending to Pirsch: page hits, events and signs of life, one by one or in batches.

Belongs here: the typed values, what they look like on the wire, and the POST calls that add data. Does not belong here:
reading (`client`), settings of the account (`management`), when and how often something is sent (`outbox`).

Pirsch knows no idempotency key: a hit that is sent twice counts twice. So every request is sent at most once. A failure
after which the vendor may have received it (`VendorUnreachable`, `VendorUnavailable`) leaves the question open, and the
caller must not send it again blindly. A hit holds an address and a user agent: the values do not print them, and no
error repeats what the vendor said about them.

Sources: vendor document, "Sending a Page Hit", "Sending an Event", "Keeping a Session Alive"; contract Pirsch A3 (batch
variants and their `time`, limits of metadata, tags: later additions).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from pydantic import SecretStr

from analytics_platform.core.auth import Bearer
from analytics_platform.core.clock import SYSTEM_CLOCK, Clock
from analytics_platform.core.endpoints import endpoint
from analytics_platform.core.errors import ConfigurationError
from analytics_platform.core.http import HttpClient, HttpLimits, Meter
from analytics_platform.core.opt_in import WriteOptIn
from analytics_platform.vendors.pirsch.access import (
    API,
    DEFAULT_BASE_URL,
    VENDOR,
    credentials,
    required,
    transport,
    wordless,
)

__all__ = ["ACCESS_KEY_VARIABLE", "MAX_META_PAIRS", "Event", "Hit", "PirschTracker", "Session"]

ACCESS_KEY_VARIABLE: Final = "PIRSCH_ACCESS_KEY"
MAX_META_PAIRS: Final = 20
MAX_META_KEY_LENGTH: Final = 100
MAX_META_VALUE_LENGTH: Final = 2000
MAX_TAG_LENGTH: Final = 50

Scalar = str | int | float | bool


@dataclass(frozen=True, kw_only=True)
class Session:
    """Who is still there ("Keeping a Session Alive").

    Args:
        ip: the visitor's address as your server saw it.
        user_agent: the User-Agent header.
        cf_connecting_ip, x_forwarded_for, forwarded, x_real_ip: headers of a proxy, which then say the address (the
            vendor took them until 2022-07; newer installations want the right `ip`).
        dnt: the DNT header; "1" is ignored by the vendor, so do not send it at all then.
        at: when it happened; needed in a batch, meaningless outside (the vendor takes the moment it receives it).

    Raises:
        ConfigurationError: address or user agent empty, or `at` without a zone. Never says the values.
    """

    ip: str = field(repr=False)
    user_agent: str = field(repr=False)
    cf_connecting_ip: str | None = field(default=None, repr=False)
    x_forwarded_for: str | None = field(default=None, repr=False)
    forwarded: str | None = field(default=None, repr=False)
    x_real_ip: str | None = field(default=None, repr=False)
    dnt: str | None = None
    at: datetime | None = None

    def __post_init__(self) -> None:
        required("ip", self.ip)
        required("user_agent", self.user_agent)
        if self.at is not None and self.at.tzinfo is None:
            raise ConfigurationError("The time of a Pirsch entry has no zone.")

    def as_wire(self) -> dict[str, object]:
        """The fields of the document that are set; `at` is not among them (see `as_batched`)."""
        names = ("ip", "cf_connecting_ip", "x_forwarded_for", "forwarded", "x_real_ip", "dnt", "user_agent")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def as_batched(self) -> dict[str, object]:
        """`as_wire` with `time`.

        Raises:
            ConfigurationError: `at` is not set.
        """
        if self.at is None:
            raise ConfigurationError("An entry of a Pirsch batch needs its time.")
        moment = self.at.astimezone(UTC).replace(tzinfo=None)
        return {**self.as_wire(), "time": f"{moment.isoformat(timespec='milliseconds')}Z"}


@dataclass(frozen=True, kw_only=True)
class Hit(Session):
    """A page view ("Sending a Page Hit"); the arguments of `Session`, and

    Args:
        url: the full URL, with its query: the UTM parameters are read from it.
        accept_language: the Accept-Language header.
        title: the page's title.
        referrer: the Referer header.
        screen_width, screen_height: pixels; numbers here, text in the statistics filter (trap 15).
        tags: at most 20 pairs of at most 50 characters (a later addition).

    Raises:
        ConfigurationError: as `Session`; no absolute URL; sizes negative; tags beyond their limits.
    """

    url: str = field(repr=False)
    accept_language: str | None = field(default=None, repr=False)
    title: str | None = None
    referrer: str | None = field(default=None, repr=False)
    screen_width: int | None = None
    screen_height: int | None = None
    tags: Mapping[str, Scalar] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        parts = urlsplit(required("url", self.url))
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigurationError("The url of a Pirsch hit is no absolute web address.")
        for name in ("screen_width", "screen_height"):
            size = getattr(self, name)
            if size is not None and not 0 <= size < 2**16:
                raise ConfigurationError(f"{name} of a Pirsch hit is no number of pixels.")
        _check_pairs("tags", self.tags, MAX_TAG_LENGTH, MAX_TAG_LENGTH)

    def as_wire(self) -> dict[str, object]:
        names = ("url", "accept_language", "title", "referrer", "screen_width", "screen_height")
        found = {name: value for name in names if (value := getattr(self, name)) is not None}
        return {**super().as_wire(), **found, **({"tags": _texts(self.tags)} if self.tags else {})}


@dataclass(frozen=True, kw_only=True)
class Event(Hit):
    """Something that happened on a page ("Sending an Event"); the arguments of `Hit`, and

    Args:
        name: of the event.
        duration_seconds: how long it took, whole seconds.
        meta: one level of text, numbers and flags; at most 20 pairs, keys of 100 and values of 2000 characters. Sent as
            text: that is what newer installations want and older ones store.
        is_interactive: False keeps the session bounced (a later addition).

    Raises:
        ConfigurationError: as `Hit`; no name; a negative duration; metadata beyond its limits or not scalar.
    """

    name: str
    duration_seconds: int | None = None
    meta: Mapping[str, Scalar] = field(default_factory=dict, repr=False)
    is_interactive: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        required("name of the event", self.name)
        if self.duration_seconds is not None and self.duration_seconds < 0:
            raise ConfigurationError("The duration of a Pirsch event is negative.")
        _check_pairs("meta", self.meta, MAX_META_KEY_LENGTH, MAX_META_VALUE_LENGTH)

    def as_wire(self) -> dict[str, object]:
        found: dict[str, object] = {"event_name": self.name}
        if self.duration_seconds is not None:
            found["event_duration"] = self.duration_seconds
        if self.meta:
            found["event_meta"] = _texts(self.meta)
        if not self.is_interactive:
            found["non_interactive"] = True
        return {**found, **super().as_wire()}


class PirschTracker:
    """Adds hits, events and signs of life; safe to share between threads. It can send POST and nothing else.

    Nothing is retried but a request whose token was refused (401: it was not processed). Every method returns when the
    vendor has taken the entries, which it counts some seconds later, and raises

        NotSent, VendorUnreachable, VendorUnavailable, TruncatedResponse   the latter three: it may have been counted
        RateLimited, QuotaExhausted    not counted
        AuthenticationFailed, PermissionDenied, NotFound, RequestRejected   not counted, will not be

    Args:
        http: a transport for the API's origin that sends POST once.
        opt_in: the yes to writing at this vendor.

    Raises:
        ConfigurationError: the opt-in is for another vendor.
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
        access_key: SecretStr | None = None,
        base_url: str = DEFAULT_BASE_URL,
        meter: Meter | None = None,
        limits: HttpLimits | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> Self:
        """A tracker with its own connection pool, signed by client id and secret or by an access key.

        Args:
            client_id, client_secret: of a client with the scopes hit: write and event: write.
            access_key: `pa_…`, used as it is instead of a token (since 2022-05, not in the document); write-only.

        Raises:
            ConfigurationError: no opt-in, not exactly one kind of credentials, or a base URL that cannot be used.
        """
        opt_in.require(VENDOR)
        if access_key is not None and client_id is None and client_secret is None:
            if not access_key.get_secret_value().startswith("pa_"):
                raise ConfigurationError("A Pirsch access key begins with pa_.", f"Check {ACCESS_KEY_VARIABLE}.")
            return cls(
                transport(
                    base_url=base_url,
                    auth=Bearer(access_key, variable=ACCESS_KEY_VARIABLE),
                    methods=frozenset({"POST"}),
                    meter=meter,
                    limits=_once(limits),
                    clock=clock,
                ),
                opt_in=opt_in,
            )
        if access_key is not None or client_id is None or client_secret is None:
            raise ConfigurationError("A Pirsch tracker needs a client id with its secret, or an access key.")
        return cls(
            transport(
                base_url=base_url,
                auth=credentials(client_id, client_secret, clock),
                methods=frozenset({"POST"}),
                meter=meter,
                limits=_once(limits),
                clock=clock,
            ),
            opt_in=opt_in,
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

    @endpoint("POST /api/v1/hit", source="Pirsch API, Sending a Page Hit")
    def hit(self, hit: Hit) -> None:
        """Add one page view, now."""
        self._post("hit", hit.as_wire())

    @endpoint("POST /api/v1/event", source="Pirsch API, Sending an Event")
    def event(self, event: Event) -> None:
        """Add one event, now; it begins a session where none is running."""
        self._post("event", event.as_wire())

    @endpoint("POST /api/v1/session", source="Pirsch API, Keeping a Session Alive")
    def session(self, session: Session) -> None:
        """Keep a running session from ending after 30 minutes; does nothing where none is running."""
        self._post("session", Session.as_wire(session))

    @endpoint("POST /api/v1/hit/batch", source="contract Pirsch A3 (batch, since 2023-01)")
    def hits(self, hits: Sequence[Hit]) -> None:
        """Add page views with their times, all or none; across requests the order of time must be kept.

        Raises:
            ConfigurationError: nothing to send, or an entry without its time.
        """
        self._batch("hit", hits)

    @endpoint("POST /api/v1/event/batch", source="contract Pirsch A3 (batch, since 2023-01)")
    def events(self, events: Sequence[Event]) -> None:
        """Add events with their times; as `hits`."""
        self._batch("event", events)

    @endpoint("POST /api/v1/session/batch", source="contract Pirsch A3 (batch, since 2023-01)")
    def sessions(self, sessions: Sequence[Session]) -> None:
        """Keep sessions alive at their times; as `hits`."""
        self._batch("session", sessions)

    def _batch(self, kind: str, entries: Sequence[Session]) -> None:
        if not entries:
            raise ConfigurationError("A Pirsch batch has no entry.")
        self._post(f"{kind}/batch", [entry.as_batched() for entry in entries])

    def _post(self, path: str, body: object) -> None:
        with wordless():
            self._http.request(
                "POST", f"{API}/{path}", endpoint=f"POST {API}/{path}", json=body, expect="any", retry=False
            )


def _once(limits: HttpLimits | None) -> HttpLimits:
    return replace(limits or HttpLimits(), max_attempts=1)


def _texts(pairs: Mapping[str, Scalar]) -> dict[str, str]:
    """Values as text, flags as the vendor's own client writes them."""
    return {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in pairs.items()}


def _check_pairs(name: str, pairs: Mapping[str, Scalar], key_at_most: int, value_at_most: int) -> None:
    if len(pairs) > MAX_META_PAIRS:
        raise ConfigurationError(f"{name} of a Pirsch entry has more than {MAX_META_PAIRS} pairs.")
    for key, value in pairs.items():
        if not isinstance(value, str | int | float | bool) or (isinstance(value, float) and not math.isfinite(value)):
            raise ConfigurationError(f"{name} of a Pirsch entry holds what is no text, number or flag.")
        if not key or len(key) > key_at_most or len(str(value)) > value_at_most:
            raise ConfigurationError(
                f"{name} of a Pirsch entry has a key over {key_at_most} or a value over {value_at_most} characters."
            )
