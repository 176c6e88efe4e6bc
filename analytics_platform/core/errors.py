"""Every exception the platform raises on purpose, in one tree.

Belongs here: the classes, one per thing a caller would do differently, and the text they show a person.
Does not belong here: deciding when to raise (the module that notices), retry loops (`core.http`), exit codes (`cli`).

    PlatformError
    ├── ConfigurationError            fix settings, then run again
    │   └── MissingCredentials        a vendor is off: names every missing variable at once
    ├── VendorError                   something between us and one vendor
    │   ├── TransientVendorError      worth another attempt by the owner of the next timescale
    │   │   ├── VendorUnreachable     reset or time-out after bounded retries: the request may have been received
    │   │   │   └── NotSent           no connection: no byte of the request left
    │   │   ├── VendorUnavailable     5xx (or 408) after bounded retries
    │   │   └── TruncatedResponse     fewer bytes than the vendor announced
    │   ├── QuotaError                not a failure: wait
    │   │   ├── QuotaExhausted        our own ledger says no, nothing was sent
    │   │   └── RateLimited           the vendor said 429; Retry-After too long to sleep through
    │   └── PermanentVendorError      the same request will fail the same way
    │       ├── AuthenticationFailed  401 after at most one refresh
    │       ├── PermissionDenied      403: this project, site or scope
    │       ├── NotFound              404 or 410
    │       ├── RequestRejected       another 4xx; carries the vendor's own (redacted) words
    │       ├── VendorReportedError   200 with an error in the body
    │       ├── ForeignOrigin         a link, redirect or URL that would leave the pinned origin
    │       ├── UnexpectedRedirect    3xx: never followed
    │       ├── ResponseTooLarge      decoded bytes, ratio or header caps
    │       ├── MalformedResponse     not strict JSON, wrong content type, empty where a body is due
    │       ├── PageLoop              paging repeats itself or never ends
    │       └── CursorExpired         restart the window; a cursor is never stored
    └── DataError                     bytes are here, but they do not mean what they should
        ├── LandingCorrupt            a landed page no longer matches its sha256
        ├── SchemaMismatch            a record cannot be read with the declared types
        ├── NotBackfillable           a snapshot of today was asked for a past day
        └── StorageError              disk full, read-only, or not ours
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Self

__all__ = [
    "AuthenticationFailed",
    "ConfigurationError",
    "CursorExpired",
    "DataError",
    "ForeignOrigin",
    "LandingCorrupt",
    "MalformedResponse",
    "MissingCredentials",
    "NotBackfillable",
    "NotFound",
    "NotSent",
    "PageLoop",
    "PermanentVendorError",
    "PermissionDenied",
    "PlatformError",
    "QuotaError",
    "QuotaExhausted",
    "RateLimited",
    "RequestRejected",
    "ResponseTooLarge",
    "SchemaMismatch",
    "StorageError",
    "TransientVendorError",
    "TruncatedResponse",
    "UnexpectedRedirect",
    "VendorError",
    "VendorReportedError",
    "VendorUnavailable",
    "VendorUnreachable",
    "Where",
]


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where something happened: the part of every message that lets a person find it again."""

    vendor: str | None = None
    endpoint: str | None = None
    site: str | None = None
    partition: str | None = None

    def __str__(self) -> str:
        named = [
            (name, value)
            for name, value in (
                ("vendor", self.vendor),
                ("endpoint", self.endpoint),
                ("site", self.site),
                ("partition", self.partition),
            )
            if value
        ]
        return ", ".join(f"{name} {value}" for name, value in named)


@dataclass
class PlatformError(Exception):
    """What failed, where, why, and the next step. Never carries a secret, an e-mail, an IP or a replay link.

    Args:
        what: one sentence, already redacted.
        next_step: what a tired person should do; shown after the cause.
        where: vendor, endpoint, site and partition as far as known; callers further out add what they know.
        is_unprocessed: certain that the vendor has not acted on the request: no byte of it left, or each attempt was
            refused unread (401, 429). Sending it again cannot double it. Only the transport says so.
    """

    what: str
    next_step: str = ""
    where: Where = field(default_factory=Where)
    is_unprocessed: bool = field(default=False, kw_only=True)

    def __str__(self) -> str:
        place = str(self.where)
        text = self.what if not place else f"{self.what} [{place}]"
        return text if not self.next_step else f"{text} Next: {self.next_step}"

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), dict(self.__dict__)))

    def located(self, **known: str | None) -> Self:
        """Fill in the parts of `where` that are still unknown, and return self for `raise error.located(...)`."""
        missing = {k: v for k, v in known.items() if v and getattr(self.where, k) is None}
        self.where = replace(self.where, **missing)
        return self


def _rebuild(cls: type[PlatformError], state: dict[str, object]) -> PlatformError:
    error = cls.__new__(cls)
    error.__dict__.update(state)
    return error


class ConfigurationError(PlatformError):
    """Settings cannot be used as they are."""


class MissingCredentials(ConfigurationError):
    """A vendor has no (complete) credentials in the environment: it is off, the others go on."""


@dataclass
class VendorError(PlatformError):
    """Anything between us and one vendor. `status` is the HTTP status where there was an answer."""

    status: int | None = None


class TransientVendorError(VendorError):
    """Another attempt may succeed. The transport's own bounded retries are already spent."""


class VendorUnreachable(TransientVendorError):
    """A reset, or the total deadline passed: the vendor may have received the request (but see `NotSent`)."""


class NotSent(VendorUnreachable):
    """No connection (refused, name unknown, no free socket): no byte of the request left, any verb may go again."""


class VendorUnavailable(TransientVendorError):
    """The vendor answered 408, 500, 502, 503 or 504 until the retries were spent."""


class TruncatedResponse(TransientVendorError):
    """The body ended before its announced or encoded end (Content-Length, chunk, gzip trailer)."""


@dataclass
class QuotaError(VendorError):
    """Not a failure: the work resumes at `resume_at` (aware UTC instant), landed pages stay."""

    resume_at: datetime | None = None


class QuotaExhausted(QuotaError):
    """The ledger has no request left in the window; nothing was sent."""


class RateLimited(QuotaError):
    """The vendor answered 429 and asked for a longer pause than is worth sleeping through."""


class PermanentVendorError(VendorError):
    """The same request will fail the same way: no retry at any timescale."""


class AuthenticationFailed(PermanentVendorError):
    """401 that one token refresh did not cure."""


class PermissionDenied(PermanentVendorError):
    """403: this project, site or scope only; the vendor's other sites go on."""


class NotFound(PermanentVendorError):
    """404 or 410."""


class RequestRejected(PermanentVendorError):
    """Another 4xx, with the vendor's own words redacted."""


class VendorReportedError(PermanentVendorError):
    """HTTP 200 whose body says it is an error (Inspectlet `error`, Pirsch `validation`)."""


class ForeignOrigin(PermanentVendorError):
    """A URL that would leave the pinned scheme, host, port or path prefix. Raised before a byte is sent."""


class UnexpectedRedirect(PermanentVendorError):
    """Any 3xx other than 304: redirects are never followed."""


class ResponseTooLarge(PermanentVendorError):
    """The answer passes the byte, ratio or header caps."""


class MalformedResponse(PermanentVendorError):
    """Not strict JSON (NaN, duplicate keys, depth, encoding), wrong content type, or an empty body where one is due."""


class PageLoop(PermanentVendorError):
    """A cursor, link or page came back a second time, or empty pages never ended."""


class CursorExpired(PermanentVendorError):
    """The vendor no longer knows the cursor: restart the window from its edge, never from a stored cursor."""


class DataError(PlatformError):
    """The bytes are on disk but do not mean what they should."""


class LandingCorrupt(DataError):
    """A landed page is missing or no longer matches the sha256 written beside it."""


class SchemaMismatch(DataError):
    """A record cannot be read with the declared types."""


class NotBackfillable(DataError):
    """A table that is a snapshot of today was asked for a past day."""


class StorageError(DataError):
    """The disk is full, read-only, or refuses us."""
