"""The one place that talks HTTP to a vendor: pinned, bounded, metered, patient for seconds and no longer.

Belongs here: sending one logical request (attempts, retries, back-off, 401 refresh), reading its answer safely, and
turning statuses into `core.errors`.
Does not belong here: what an answer means (clients), which request comes next (`core.paging`), how much quota is left
(the `Meter` that `core.quota` implements), waits longer than `HttpLimits.longest_retry_after_seconds` (the
quota-reset sensor).

    request ─▶ origin and path check ─▶ sign ─▶ meter.acquire ─▶ one attempt under a deadline ─▶ meter.learn ─▶ Response
                                         ▲                                │ transient, and worth a retry
                                         └────────── back-off ◀───────────┘

The retry loop is our own and not stamina's: whether and how long to wait depends on Retry-After, on the ledger (each
attempt is a request paid for), on what was already sent and on a budget shared by all requests of a client; a
decorator sees only an exception.

    status                    becomes                    retried here
    no connection             NotSent                    yes, also POST: nothing was sent
    reset, deadline           VendorUnreachable          GET, HEAD and `retry=True`
    cut body                  TruncatedResponse          GET, HEAD and `retry=True`
    408, 5xx                  VendorUnavailable          GET, HEAD and `retry=True`
    429                       RateLimited                yes (it was not processed), if Retry-After is short or absent
    401                       AuthenticationFailed       once, if the credential can be renewed
    3xx                       UnexpectedRedirect         never
    403, 404/410, other 4xx   PermissionDenied, NotFound, RequestRejected   never

Every error says by `is_unprocessed` whether the vendor can have acted on the request: False as soon as one attempt got
as far as the wire and was not refused with 401 or 429.
"""

from __future__ import annotations

import functools
import hashlib
import http.cookiejar
import json as json_module
import logging
import random
import re
import ssl
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, NoReturn, Protocol, Self
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

import httpcore
import httpx

from analytics_platform.core import strict_json, wire
from analytics_platform.core.auth import Auth, TokenRequest
from analytics_platform.core.clock import SYSTEM_CLOCK, Clock
from analytics_platform.core.errors import (
    AuthenticationFailed,
    ConfigurationError,
    MalformedResponse,
    NotFound,
    NotSent,
    PermanentVendorError,
    PermissionDenied,
    PlatformError,
    RateLimited,
    RequestRejected,
    ResponseTooLarge,
    TransientVendorError,
    TruncatedResponse,
    UnexpectedRedirect,
    VendorError,
    VendorUnavailable,
    VendorUnreachable,
    Where,
)
from analytics_platform.core.inflate import ACCEPTED_ENCODINGS, Decoder
from analytics_platform.core.origin import Origin, check_path, path_segment
from analytics_platform.core.redaction import redact

__all__ = [
    "DEFAULT_USER_AGENT",
    "HttpClient",
    "HttpLimits",
    "Meter",
    "NullMeter",
    "Response",
    "path_segment",
]

# Both print full URLs with their queries at INFO (RELIABILITY M7).
logging.getLogger("httpx").setLevel(logging.WARNING)
logging.getLogger("httpcore").setLevel(logging.WARNING)
_log = logging.getLogger(__name__)

DEFAULT_USER_AGENT = "analytics-platform/0.1 (+web-analytics-warehouse)"
"""Ours on purpose: Kameleoon answers 403 to library defaults and to whatever looks like a crawler (contract B3)."""

_SAFE_METHODS = frozenset({"GET", "HEAD"})
_OWN_HEADERS = frozenset(
    {
        "authorization",
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "cookie",
        "accept-encoding",
        "user-agent",
    }
)
_UNREAD = frozenset({401, 429})
"""Statuses by which a vendor says that it did not look at the request itself."""
_ERROR_BODY_BYTES = 64 * 1024
_JSON_TYPE = re.compile(r"(?:application|text)/(?:[\w.+-]+\+)?json", re.IGNORECASE)

Params = Mapping[str, str] | Sequence[tuple[str, str]]
Expect = Literal["json", "any"]


class Meter(Protocol):
    """The ledger as the transport sees it. Implementations are thread-safe."""

    def acquire(self, *, method: str, endpoint: str) -> None:
        """Called before every attempt is sent; may block briefly (per-second limits).

        Raises:
            QuotaExhausted: with `resume_at`; nothing is sent then.
        """
        ...

    def learn(self, *, method: str, endpoint: str, status: int, retry_after_seconds: float | None) -> None:
        """Called after every answer, also after those that end in an exception."""
        ...


class NullMeter:
    """No limit, no memory."""

    def acquire(self, *, method: str, endpoint: str) -> None:
        """Always at once."""

    def learn(self, *, method: str, endpoint: str, status: int, retry_after_seconds: float | None) -> None:
        """Nothing is kept."""


_NULL_METER = NullMeter()


@dataclass(frozen=True, kw_only=True)
class HttpLimits:
    """Every bound of the transport, in one place.

    Args:
        connect_seconds: one TCP or TLS handshake.
        total_seconds: one attempt from connect to the last byte.
        max_decoded_bytes: body after content decoding.
        max_ratio: decoded per received byte, judged past 1 MiB.
        max_header_bytes: one response head.
        max_attempts: attempts of one logical request (a 401 refresh adds at most one).
        backoff_base_seconds, backoff_cap_seconds: full jitter, uniform in 0 .. min(cap, base · 2^(attempt-1)).
        longest_retry_after_seconds: a longer Retry-After is raised as `RateLimited`, not slept through.
        unknown_retry_after_seconds: `resume_at` when a 429 names no time and the attempts are spent.
        longest_resume_seconds: a Retry-After beyond this is not believed.
        max_depth: nesting of JSON.
        retry_budget, retry_refund: retries a client may spend in a row; each success gives back this part of one. An
            outage then costs at most the budget plus a tenth of the successful requests (after the retry quota of the
            AWS SDKs).
    """

    connect_seconds: float = 5.0
    total_seconds: float = 30.0
    max_decoded_bytes: int = 64 * 1024 * 1024
    max_ratio: float = 200.0
    max_header_bytes: int = 64 * 1024
    max_attempts: int = 3
    backoff_base_seconds: float = 0.5
    backoff_cap_seconds: float = 20.0
    longest_retry_after_seconds: float = 60.0
    unknown_retry_after_seconds: float = 900.0
    longest_resume_seconds: float = 86_400.0
    max_depth: int = 64
    retry_budget: float = 20.0
    retry_refund: float = 0.1


_DEFAULT_LIMITS = HttpLimits()


@dataclass(frozen=True)
class Response:
    """A whole 2xx answer.

    Args:
        status: the HTTP status.
        body: all bytes, content-encoding removed; complete, or an exception was raised instead.
        headers: lower-case names; several lines of a name are joined with ", ".
        endpoint: the label given to `request`.
        attempts: requests sent for it (token calls not counted).
        received_at: aware UTC instant of the last byte.
        max_depth: for `json()`.
    """

    status: int
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    endpoint: str
    attempts: int
    received_at: datetime
    max_depth: int = field(default=64, repr=False)

    def json(self) -> object:
        """The body as strict JSON, parsed once.

        Raises:
            MalformedResponse: see `core.strict_json.parse`.
        """
        return self.document.value

    @functools.cached_property
    def document(self) -> strict_json.Document:
        """The body as strict JSON, checked once and built where somebody asks.

        Raises:
            MalformedResponse: as `json`.
        """
        return strict_json.Document(self.body, max_depth=self.max_depth)

    @functools.cached_property
    def sha256(self) -> str:
        """Of the body, in hexadecimal."""
        return hashlib.sha256(self.body).hexdigest()


@dataclass(frozen=True, kw_only=True)
class _Call:
    """One logical request, checked and encoded, without its signature."""

    method: str
    client: httpx.Client
    url: httpx.URL
    endpoint: str
    headers: Mapping[str, str]
    content: bytes | None
    expect: Expect
    retry: bool
    auth: Auth | None


@dataclass(frozen=True, kw_only=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes
    proves_its_end: bool
    retry_after_seconds: float | None


@dataclass(kw_only=True)
class _Trail:
    """Whether an attempt of one logical request may have been acted on by the vendor."""

    may_be_processed: bool = False


class _RetryBudget:
    """Shared by all requests of a client, so that an outage does not triple the traffic."""

    def __init__(self, capacity: float, refund: float) -> None:
        self._lock = threading.Lock()
        self._capacity = self._left = capacity
        self._refund = refund

    def spend(self) -> bool:
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            return True

    def give_back(self) -> None:
        with self._lock:
            self._left = min(self._capacity, self._left + self._refund)


class HttpClient:
    """Talks to one vendor on one origin. Thread-safe; keep one per vendor and credential, and close it.

    Args:
        vendor: for messages.
        base_url: scheme, host, port; https, or http for loopback.
        auth: how requests are signed; attached only after the origin check.
        meter: asked before and told after every attempt.
        limits: every bound.
        path_prefixes: requests and links must stay below one of them, by whole segments.
        methods: HTTP methods this client may send at all: the tokens of several vendors can also delete.
        clock: for waits and `received_at`.
        user_agent: sent with every request.
        max_connections: open sockets; not fewer than threads that send, or one waits for a socket after its turn was
            written down (`core.concurrency.REQUESTS_IN_FLIGHT`).
        ca_file: trust this CA instead of the built-in list.

    Raises:
        ConfigurationError: an unusable base or token URL.
    """

    def __init__(
        self,
        *,
        vendor: str,
        base_url: str,
        auth: Auth | None = None,
        meter: Meter = _NULL_METER,
        limits: HttpLimits = _DEFAULT_LIMITS,
        path_prefixes: tuple[str, ...] = ("/",),
        methods: frozenset[str] = frozenset({"GET", "HEAD", "POST"}),
        clock: Clock = SYSTEM_CLOCK,
        user_agent: str = DEFAULT_USER_AGENT,
        max_connections: int = 32,
        ca_file: Path | None = None,
    ) -> None:
        self._vendor = vendor
        self._auth = auth
        self._meter = meter
        self._limits = limits
        self._prefixes = path_prefixes
        self._methods = methods
        self._clock = clock
        self._user_agent = user_agent
        self._jitter = random.SystemRandom()
        self._budget = _RetryBudget(limits.retry_budget, limits.retry_refund)
        self._origin = Origin.parse(base_url)
        self._token_origin, self._token_path = self._token_place(auth)
        self._clients = {
            origin: httpx.Client(
                transport=wire.BoundedTransport(
                    origin=origin,
                    max_connections=max_connections,
                    max_header_bytes=limits.max_header_bytes,
                    ca_file=ca_file,
                ),
                trust_env=False,
                follow_redirects=False,
                cookies=http.cookiejar.CookieJar(policy=http.cookiejar.DefaultCookiePolicy(allowed_domains=[])),
                timeout=httpx.Timeout(limits.total_seconds, connect=limits.connect_seconds),
            )
            for origin in {self._origin, self._token_origin}
        }

    def request(
        self,
        method: str,
        path: str,
        *,
        endpoint: str,
        params: Params | None = None,
        json: object = None,
        form: Mapping[str, str] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        expect: Expect = "json",
        retry: bool | None = None,
    ) -> Response:
        """Send one logical request and return its whole answer.

        Args:
            method: upper case.
            path: absolute, already percent-encoded (`path_segment` for ids), without query.
            endpoint: stable label for people, ledger and metadata: no ids, no query.
            params: query; encoded once.
            json: the body as JSON.
            form: the body as a form.
            content: the body as it is; of the three at most one.
            headers: more headers, none of those the transport owns.
            expect: "json" demands a JSON content type and a strict, non-empty JSON body.
            retry: whether a request that may have been received can be sent again. Default: GET and HEAD yes, others
                no; searches by POST pass True.

        Raises:
            ConfigurationError: a caller's mistake; ForeignOrigin: a path outside the prefixes; and the table in the
                module docstring,
            each with vendor and endpoint.
        """
        query = _query(params)
        return self._checked(
            method,
            (path, query),
            endpoint=endpoint,
            body=_Body(json=json, form=form, content=content),
            headers=headers,
            expect=expect,
            retry=retry,
        )

    def follow(
        self,
        method: str,
        link: str,
        *,
        endpoint: str,
        json: object = None,
        form: Mapping[str, str] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        expect: Expect = "json",
        retry: bool | None = None,
        relative_to: str = "/",
    ) -> Response:
        """Follow a vendor's link verbatim, if it stays on the pinned origin and below the path prefixes.

        Args:
            method: as `request`.
            link: absolute or relative; resolved against the origin and `relative_to` (RFC 3986 §5).
            endpoint: as `request`.
            json: as `request`.
            form: as `request`.
            content: as `request`.
            headers: as `request`.
            expect: as `request`.
            retry: as `request`.
            relative_to: path a relative link without a leading slash, or of a query alone, refers to.

        Raises:
            ForeignOrigin: before a byte is sent; the rest as `request`.
            MalformedResponse: a template or an HTML-escaped link.
        """
        where = Where(vendor=self._vendor, endpoint=endpoint)
        try:
            target = self._origin.resolve(link, relative_to=relative_to)
        except PlatformError as error:
            error.where = where
            error.is_unprocessed = True
            raise
        return self._checked(
            method,
            target,
            endpoint=endpoint,
            body=_Body(json=json, form=form, content=content),
            headers=headers,
            expect=expect,
            retry=retry,
        )

    def close(self) -> None:
        """Close all connections. The client cannot be used afterwards."""
        for client in self._clients.values():
            client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"HttpClient(vendor={self._vendor!r}, origin={str(self._origin)!r}, auth={self._auth!r})"

    # ---- one logical request
    # -------------------------------------------------------------------------------------------------

    def _checked(
        self,
        method: str,
        target: tuple[str, str],
        *,
        endpoint: str,
        body: _Body,
        headers: Mapping[str, str] | None,
        expect: Expect,
        retry: bool | None,
    ) -> Response:
        path, query = target
        is_on_its_way = False
        try:
            check_path(path, self._prefixes)
            if method not in self._methods:
                raise ConfigurationError(
                    f"This client may not send {method}.", "Allow the method where the client is built."
                )
            content_type, content = body.encoded()
            call = _Call(
                method=method,
                client=self._clients[self._origin],
                url=self._origin.url(path, query),
                endpoint=endpoint,
                headers=self._own_headers(headers, content_type, expect),
                content=content,
                expect=expect,
                retry=method in _SAFE_METHODS if retry is None else retry,
                auth=self._auth,
            )
            is_on_its_way = True
            return self._perform(call)
        except PlatformError as error:
            error.located(vendor=self._vendor, endpoint=endpoint)
            error.is_unprocessed = error.is_unprocessed or not is_on_its_way
            raise

    def _perform(self, call: _Call) -> Response:
        trail = _Trail()
        try:
            return self._answered(call, trail)
        except PlatformError as error:
            error.is_unprocessed = not trail.may_be_processed
            raise

    def _answered(self, call: _Call, trail: _Trail) -> Response:
        attempts = 0
        refreshes = 0
        while True:
            attempts += 1
            signature = {} if call.auth is None else call.auth.headers(self._send_token)
            self._meter.acquire(method=call.method, endpoint=call.endpoint)
            retry_after: float | None = None
            try:
                answer = self._attempt(call, signature, trail)
                if 200 <= answer.status < 300 or (answer.status == 304 and "if-none-match" in call.headers):
                    response = self._accept(call, answer, attempts)
                    self._budget.give_back()
                    return response
                if answer.status == 401 and refreshes == 0 and call.auth is not None and call.auth.rejected(signature):
                    refreshes = 1
                    continue
                retry_after = answer.retry_after_seconds
                self._refuse(call, answer)
            except (TransientVendorError, RateLimited) as error:
                if not self._may_retry(call, error, attempts - refreshes, retry_after):
                    raise
                self._pause(call, error, attempts - refreshes, retry_after)

    def _may_retry(self, call: _Call, error: VendorError, attempts: int, retry_after: float | None) -> bool:
        if attempts >= self._limits.max_attempts:
            return False
        if retry_after is not None and retry_after > self._limits.longest_retry_after_seconds:
            return False
        return (call.retry or isinstance(error, NotSent | RateLimited)) and self._budget.spend()

    def _pause(self, call: _Call, error: VendorError, attempts: int, retry_after: float | None) -> None:
        ceiling = min(self._limits.backoff_cap_seconds, self._limits.backoff_base_seconds * 2 ** (attempts - 1))
        seconds = (retry_after or 0.0) + self._jitter.uniform(0.0, ceiling)
        _log.info(
            "%s %s: attempt %d ended in %s, next in %.1f s",
            self._vendor,
            call.endpoint,
            attempts,
            type(error).__name__,
            seconds,
        )
        self._clock.sleep(seconds)

    # ---- one attempt
    # ---------------------------------------------------------------------------------------------------------

    def _attempt(self, call: _Call, signature: Mapping[str, str], trail: _Trail) -> _Answer:
        request = httpx.Request(
            call.method,
            call.url,
            headers={**call.headers, **signature},
            content=call.content,
            extensions=self._timeouts(),
        )
        status: int | None = None
        earlier, trail.may_be_processed = trail.may_be_processed, True
        try:
            with wire.attempt(self._limits.total_seconds):
                response = call.client.send(request, stream=True)
                status = response.status_code
                if status in _UNREAD:
                    trail.may_be_processed = earlier
                try:
                    return self._read(call, response)
                finally:
                    response.close()
        except (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.PoolTimeout) as error:
            trail.may_be_processed = earlier
            self._not_sent(error)
        except (httpcore.TimeoutException, httpcore.NetworkError) as error:
            raise VendorUnreachable(
                f"The vendor did not answer in full: {_fault(error, self._limits.total_seconds)}.",
                "It is retried later by the run; if it stays, look at the vendor's status page.",
                status=status,
            ) from None
        except httpcore.RemoteProtocolError:
            if status is not None:
                raise TruncatedResponse("The answer ended before the end it had announced.", status=status) from None
            raise VendorUnreachable("The vendor closed the connection or did not speak HTTP.") from None
        except httpcore.LocalProtocolError:
            trail.may_be_processed = earlier
            # h11 quotes the offending header value, which may be a secret.
            raise ConfigurationError(
                "The request cannot be written as HTTP: a header holds a forbidden character."
            ) from None

    def _timeouts(self) -> dict[str, object]:
        total = self._limits.total_seconds
        return {"timeout": {"connect": self._limits.connect_seconds, "read": total, "write": total, "pool": total}}

    def _not_sent(self, error: Exception) -> NoReturn:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, ssl.SSLCertVerificationError):
            # Not transient: the same certificate will be refused again, and nothing may be sent to its holder.
            raise PermanentVendorError(
                f"The vendor's certificate was refused: {redact(cause.verify_message)}.",
                "Nothing was sent. Check the *_BASE_URL setting and the host's clock; verification stays on.",
            ) from None
        raise NotSent(
            f"No connection to {self._origin}: {_fault(error, self._limits.connect_seconds)}.",
            "Check the network and the *_BASE_URL setting; nothing was sent.",
        ) from None

    def _read(self, call: _Call, response: httpx.Response) -> _Answer:
        headers = _joined(response.headers)
        retry_after = self._retry_after(headers) if response.status_code in {429, 503} else None
        self._meter.learn(
            method=call.method, endpoint=call.endpoint, status=response.status_code, retry_after_seconds=retry_after
        )
        if sum(len(name) + len(value) for name, value in response.headers.raw) > self._limits.max_header_bytes:
            raise ResponseTooLarge("The answer's headers are larger than the cap.", status=response.status_code)
        is_success = 200 <= response.status_code < 300
        try:
            body, proves_its_end = self._body(response, headers, is_success=is_success)
        except (VendorError, httpcore.NetworkError, httpcore.TimeoutException, httpcore.RemoteProtocolError):
            if is_success:
                raise
            body, proves_its_end = b"", False  # the status alone says what to do
        return _Answer(
            status=response.status_code,
            headers=headers,
            body=body,
            proves_its_end=proves_its_end,
            retry_after_seconds=retry_after,
        )

    def _body(self, response: httpx.Response, headers: Mapping[str, str], *, is_success: bool) -> tuple[bytes, bool]:
        cap = self._limits.max_decoded_bytes if is_success else _ERROR_BODY_BYTES
        announced = headers.get("content-length")
        is_chunked = "transfer-encoding" in headers
        has_body = response.request.method != "HEAD" and response.status_code not in {204, 304}
        if has_body and announced is not None and not is_chunked and int(announced) > cap:
            raise ResponseTooLarge(f"The answer announces more than {cap:,} bytes.", status=response.status_code)
        decoder = Decoder(headers.get("content-encoding", ""), max_bytes=cap, max_ratio=self._limits.max_ratio)
        for chunk in response.iter_raw():
            if wire.remaining_seconds() <= 0:
                raise httpcore.ReadTimeout("total deadline")
            decoder.feed(chunk)
        if has_body and announced is not None and not is_chunked and int(announced) != decoder.received_bytes:
            raise TruncatedResponse("The answer is shorter than its Content-Length.", status=response.status_code)
        body = decoder.finish()
        return body, announced is not None or is_chunked or decoder.proves_its_end or not has_body

    # ---- what an answer means
    # ------------------------------------------------------------------------------------------------

    def _accept(self, call: _Call, answer: _Answer, attempts: int) -> Response:
        if answer.status == 206:
            raise TruncatedResponse("The vendor sent a part (206) although the whole was asked for.", status=206)
        response = Response(
            status=answer.status,
            body=answer.body,
            headers=answer.headers,
            endpoint=call.endpoint,
            attempts=attempts,
            received_at=self._clock.now(),
            max_depth=self._limits.max_depth,
        )
        if call.expect == "json" and answer.status != 304:
            self._check_json(response, answer)
        elif answer.body and not answer.proves_its_end:
            raise TruncatedResponse(
                "The answer announces no length, so its end cannot be told from a cut.", status=answer.status
            )
        return response

    def _check_json(self, response: Response, answer: _Answer) -> None:
        if not answer.body:
            raise MalformedResponse(
                f"The vendor answered {answer.status} with an empty body: this is not read as zero rows.",
                status=answer.status,
            )
        media_type = answer.headers.get("content-type", "").partition(";")[0].strip()
        looks_like_json = media_type == "" and answer.body.lstrip()[:1] in {b"{", b"["}
        if not _JSON_TYPE.fullmatch(media_type) and not looks_like_json:
            found = redact(media_type[:60]) or "no content type"
            raise MalformedResponse(
                f"The vendor answered {answer.status} with {found} instead of JSON "
                f"({len(answer.body):,} bytes): a maintenance page, a captive portal or a wrong host.",
                "Check the *_BASE_URL setting and the vendor's status page.",
                status=answer.status,
            )
        try:
            _ = response.document
        except MalformedResponse as error:
            error.status = answer.status
            if not answer.proves_its_end:
                raise TruncatedResponse(
                    "The answer announces no length and is not complete JSON: it was cut.", status=answer.status
                ) from None
            raise

    def _refuse(self, call: _Call, answer: _Answer) -> NoReturn:
        status = answer.status
        if status == 429:
            raise RateLimited(
                "The vendor answered 429: too many requests.",
                "Nothing is lost: the work resumes at the time given. See `analytics-platform quota`.",
                status=status,
                resume_at=self._resume_at(answer.retry_after_seconds),
            )
        if status == 408 or status >= 500:
            raise VendorUnavailable(
                f"The vendor answered {status}.",
                "It is retried later by the run; if it stays, look at the vendor's status page.",
                status=status,
            )
        if 300 <= status < 400:
            raise UnexpectedRedirect(
                f"The vendor answered {status}, a redirect {self._redirect_aim(answer)}; redirects are never followed.",
                "Set *_BASE_URL to the final host if the vendor moved.",
                status=status,
            )
        words = _vendor_words(answer)
        if status == 401:
            named = " and ".join(call.auth.variables) if call.auth and call.auth.variables else "the credentials"
            raise AuthenticationFailed(
                f"The vendor refused the credentials (401){words}.",
                f"Check {named}: revoked, expired, of another region or without access here?",
                status=status,
            )
        if status == 403:
            raise PermissionDenied(
                f"The vendor denies access (403){words}.",
                "Check that the credentials may read this site, and the plan; other sites go on.",
                status=status,
            )
        kind = NotFound if status in {404, 410} else RequestRejected
        raise kind(f"The vendor answered {status}{words}.", "Check the ids in sites.yaml.", status=status)

    def _redirect_aim(self, answer: _Answer) -> str:
        try:
            self._origin.resolve(answer.headers.get("location", ""))
        except PlatformError:
            return "to another origin"
        return "within the same origin"

    def _resume_at(self, retry_after_seconds: float | None) -> datetime:
        seconds = self._limits.unknown_retry_after_seconds if retry_after_seconds is None else retry_after_seconds
        return self._clock.now() + timedelta(seconds=seconds)

    def _retry_after(self, headers: Mapping[str, str]) -> float | None:
        """Seconds to wait, capped at `longest_resume_seconds`; None when absent, unreadable, negative or past."""
        stated = headers.get("retry-after", headers.get("x-retryafter", "")).strip()
        if re.fullmatch(r"\d{1,18}(\.\d{1,9})?", stated):
            seconds = float(stated)
        else:
            try:
                moment = _http_date(stated)
                # Against the vendor's own clock where it shows it: ours may be wrong.
                reference = _http_date(headers["date"]) if "date" in headers else self._clock.now()
                seconds = (moment - reference).total_seconds()
            except (ValueError, TypeError, IndexError, OverflowError):
                return None
        return min(seconds, self._limits.longest_resume_seconds) if seconds > 0 else None

    # ---- tokens and headers
    # --------------------------------------------------------------------------------------------------

    def _token_place(self, auth: Auth | None) -> tuple[Origin, str]:
        if auth is None or auth.token_url is None:
            return self._origin, "/"
        if auth.token_url.startswith("/"):
            return self._origin, auth.token_url
        parts = urlsplit(auth.token_url)
        if parts.query or parts.fragment:
            raise ConfigurationError("The token URL has a query or fragment.", "Set it to scheme, host, port and path.")
        return Origin.parse(urlunsplit((parts.scheme, parts.netloc, "", "", ""))), parts.path or "/"

    def _send_token(self, token_request: TokenRequest) -> object:
        """The token call: same bounds, same meter, unsigned. Its refusals speak of the credentials."""
        content_type, content = _Body(json=token_request.json, form=token_request.form).encoded()
        call = _Call(
            method="POST",
            client=self._clients[self._token_origin],
            url=self._token_origin.url(self._token_path),
            endpoint=token_request.endpoint,
            headers=self._own_headers(None, content_type, "json"),
            content=content,
            expect="json",
            retry=True,  # a second token does no harm
            auth=None,
        )
        named = " and ".join(self._auth.variables) if self._auth and self._auth.variables else "the credentials"
        where = Where(vendor=self._vendor, endpoint=token_request.endpoint)
        try:
            return self._perform(call).json()
        except (AuthenticationFailed, PermissionDenied, RequestRejected) as error:
            raise AuthenticationFailed(
                f"The vendor issued no token ({error.status}).", f"Check {named}.", where, error.status
            ) from None
        except PlatformError as error:
            error.located(vendor=self._vendor, endpoint=token_request.endpoint)
            raise

    def _own_headers(self, more: Mapping[str, str] | None, content_type: str | None, expect: Expect) -> dict[str, str]:
        headers = {name.lower(): value for name, value in (more or {}).items()}
        taken = _OWN_HEADERS & headers.keys()
        if taken:
            raise ConfigurationError(f"The transport sets these headers itself: {', '.join(sorted(taken))}.")
        headers.setdefault("accept", "application/json" if expect == "json" else "*/*")
        if content_type is not None:
            headers.setdefault("content-type", content_type)
        headers["accept-encoding"] = ACCEPTED_ENCODINGS
        headers["user-agent"] = self._user_agent
        return headers


@dataclass(frozen=True, kw_only=True)
class _Body:
    """A request body in the caller's words."""

    json: object = None
    form: Mapping[str, str] | None = None
    content: bytes | None = None

    def encoded(self) -> tuple[str | None, bytes | None]:
        """Content type and bytes; both None without a body."""
        if sum(part is not None for part in (self.json, self.form, self.content)) > 1:
            raise ConfigurationError("A request has one body: json, form or content.")
        if self.json is not None:
            text = json_module.dumps(self.json, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            return "application/json", text.encode("utf-8")
        if self.form is not None:
            return "application/x-www-form-urlencoded", urlencode(self.form).encode("ascii")
        return None, self.content


def _query(params: Params | None) -> str:
    if not params:
        return ""
    pairs = list(params.items()) if isinstance(params, Mapping) else list(params)
    return urlencode(pairs, quote_via=quote)


def _joined(headers: httpx.Headers) -> dict[str, str]:
    return {name: ", ".join(headers.get_list(name)) for name in headers}


def _http_date(text: str) -> datetime:
    moment = parsedate_to_datetime(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _fault(error: Exception, seconds: float) -> str:
    if isinstance(error, httpcore.TimeoutException):
        return f"no answer within {seconds:g} s"
    return redact(str(error))[:200] or type(error).__name__


def _vendor_words(answer: _Answer) -> str:
    """What the vendor says about a refusal, redacted and short; nothing when it is not JSON."""
    try:
        parsed = strict_json.parse(answer.body)
    except MalformedResponse:
        return ""
    words: list[str] = []
    if isinstance(parsed, dict):
        for name in ("error", "message", "messages", "validation", "errors"):
            said = parsed.get(name)
            if said not in (None, "", [], {}):
                words.append(said if isinstance(said, str) else json_module.dumps(said, ensure_ascii=False))
    text = " ".join(redact("; ".join(words)).split())[:200]
    return f": {text}" if text else ""
