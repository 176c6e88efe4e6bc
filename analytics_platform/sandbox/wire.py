"""What all observers share on the wire: the context, the request log, tokens, JSON bytes, and the middleware.

Belongs here: logging each request, applying the ordered fault to bytes, gzip, the control routes `/_sandbox/*`. Does
not belong here: any vendor's rule (limits, authentication, paging): the middleware enforces nothing.
"""

from __future__ import annotations

import asyncio
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from email.utils import formatdate
from hashlib import sha256
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from analytics_platform.sandbox.faults import KINDS, Fault, FaultBook, drifted, spoil

__all__ = [
    "Credentials",
    "RequestLog",
    "RequestRecord",
    "ServerContext",
    "TokenStore",
    "WireMiddleware",
    "bearer_token",
    "fault_of",
    "json_response",
]

_GZIP_FROM_BYTES = 600

_skew_seconds: ContextVar[float] = ContextVar("skew_seconds", default=0.0)
"""How wrong the clock is of the server that answers the request at hand (fault `clock_skew`)."""


@dataclass(frozen=True)
class Credentials:
    """The fake credentials of this sandbox; Smartlook's are one a site, in `SiteTruth.smartlook_token`."""

    inspectlet_username: str = "analyst@example.org"
    inspectlet_api_token: str = "sbx-inspectlet-3f0c9a51d7e2"  # noqa: S105 - opens a loopback server only
    pirsch_client_id: str = "sbxpirschclient0123456789abcdefg"  # 32 characters, as the vendor's SDK demands
    pirsch_client_secret: str = "sbxpirschsecret0123456789abcdefghijklmnopqrstuvwxyz0123456789abc"  # noqa: S105 - 64 characters
    kameleoon_client_id: str = "sbx-kameleoon-client"
    kameleoon_client_secret: str = "sbx-kameleoon-secret-8c1d4e7f"  # noqa: S105
    kissmetrics_api_token: str = "sbx-kissmetrics-6b2e9f04a8c3"  # noqa: S105


@dataclass(frozen=True)
class RequestRecord:
    """One request as the sandbox saw it; the credential itself is not kept."""

    vendor: str
    method: str
    path: str
    query: str
    status: int
    at_monotonic: float
    authorization_seen: bool
    caller: str = ""
    """Digest of the credential: whose quota it was, without the credential."""


class RequestLog:
    """Thread-safe list of every vendor request (control routes are not logged)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: list[RequestRecord] = []

    def append(self, record: RequestRecord) -> None:
        """Add one record."""
        with self._lock:
            self._records.append(record)

    def records(self, *, vendor: str | None = None, path: str | None = None) -> list[RequestRecord]:
        """The records, in order, of this vendor and with this substring in the path."""
        with self._lock:
            kept = list(self._records)
        return [r for r in kept if (vendor is None or r.vendor == vendor) and (path is None or path in r.path)]

    def count(self, *, vendor: str | None = None, path: str | None = None, status: int | None = None) -> int:
        """How many requests match."""
        return sum(status is None or record.status == status for record in self.records(vendor=vendor, path=path))

    def clear(self) -> None:
        """Forget all records."""
        with self._lock:
            self._records.clear()

    def __len__(self) -> int:
        with self._lock:
            return len(self._records)


class TokenStore:
    """Access tokens of one vendor: issue, check, revoke. Lives as long as the server."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._expiry: dict[str, float] = {}
        self._issued = 0

    def issue(self, *, vendor: str, lifetime_seconds: float) -> str:
        """A new token, valid for this long on the server's monotonic clock."""
        self._issued += 1
        token = f"sbx{sha256(f'{vendor}:{self._issued}'.encode()).hexdigest()}"
        self._expiry[token] = self._clock() + lifetime_seconds
        return token

    def is_valid(self, token: str | None) -> bool:
        """True for an issued token that has not expired."""
        return token is not None and self._expiry.get(token, 0.0) > self._clock()

    def revoke_all(self) -> None:
        """Every token issued so far is dead."""
        self._expiry.clear()


@dataclass
class ServerContext:
    """What an observer gets besides the world. One for all six ports."""

    faults: FaultBook = field(default_factory=FaultBook)
    requests: RequestLog = field(default_factory=RequestLog)
    credentials: Credentials = field(default_factory=Credentials)
    base_urls: dict[str, str] = field(default_factory=dict)
    monotonic: Callable[[], float] = time.monotonic
    tokens: dict[str, TokenStore] = field(default_factory=dict)
    world_now_ms: int = 0
    _advanced_seconds: float = 0.0
    _started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        real = self.monotonic
        self.monotonic = lambda: real() + self._advanced_seconds

    def now_ms(self) -> int:
        """The present of what is written (UTC epoch ms): the world's own, plus the time served and `advance`d since.

        Answers about the generated past never ask this, so they stay the same whenever they are asked.
        """
        seconds = time.monotonic() - self._started + self._advanced_seconds + _skew_seconds.get()
        return self.world_now_ms + int(seconds * 1000)

    def wall_ns(self) -> int:
        """The host's present (UTC epoch ns), `advance`d and skewed: for what a client compares with its own clock."""
        return time.time_ns() + int((self._advanced_seconds + _skew_seconds.get()) * 1_000_000_000)

    def advance(self, seconds: float) -> None:
        """Let time pass for all but the generated past: buffers are flushed; tokens, cursors and limits run out (all
        that is measured with `monotonic`). Never backwards.
        """
        if seconds < 0:
            raise ValueError("time does not go backwards")
        self._advanced_seconds += seconds

    def token_store(self, vendor: str) -> TokenStore:
        """The tokens of this vendor (Kameleoon's are issued on another port than they are used)."""
        return self.tokens.setdefault(vendor, TokenStore(clock=self.monotonic))


def json_response(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer; floats keep their shortest form (1.0 stays 1.0), text is UTF-8."""
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")


def bearer_token(request: Request) -> str | None:
    """The token of `Authorization: Bearer …`, or None."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" and token else None


def fault_of(request: Request, kind: str) -> Fault | None:
    """The ordered fault of this request if it is of that kind (observers ask for the flags they understand)."""
    fault: Fault | None = getattr(request.state, "fault", None)
    return fault if fault is not None and fault.kind == kind else None


class WireMiddleware:
    """Outermost ASGI layer of one vendor's port.

    The vendor's answer is collected whole, then compressed when the client accepts gzip, spoiled when a fault is
    ordered, and sent. `request.state.fault` carries the fault for observers.
    """

    def __init__(self, app: ASGIApp, *, vendor: str, context: ServerContext) -> None:
        self._app = app
        self._vendor = vendor
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"].startswith("/_sandbox/"):
            await self._control(scope, receive, send)
            return
        headers = _headers(scope)
        query = scope["query_string"].decode("latin-1")
        target = f"{scope['method']} {scope['path']}{'?' + query if query else ''}"
        fault = self._context.faults.take(self._vendor, target)
        scope.setdefault("state", {})["fault"] = fault
        started = self._context.monotonic()
        answer = _Answer()
        if fault is not None and fault.kind in _REPLACES:
            answer.replace_by(fault)
        else:
            await self._answer(answer, fault, scope, receive)
        self._context.requests.append(
            RequestRecord(
                vendor=self._vendor,
                method=scope["method"],
                path=scope["path"],
                query=query,
                status=answer.status,
                at_monotonic=started,
                authorization_seen="authorization" in headers,
                caller=_digest(headers.get("authorization", "")),
            )
        )
        await _deliver(answer, fault, send, accepts_gzip="gzip" in headers.get("accept-encoding", ""))

    async def _answer(self, answer: _Answer, fault: Fault | None, scope: Scope, receive: Receive) -> None:
        """The vendor's own answer, by a clock that may be wrong."""
        if fault is None or fault.kind != "clock_skew":
            await self._app(scope, receive, answer.collect)
            return
        before = _skew_seconds.set(float(fault.parameters["seconds"]))
        try:
            await self._app(scope, receive, answer.collect)
            date = formatdate(self._context.wall_ns() / 1_000_000_000, usegmt=True)
            answer.headers = [*((k, v) for k, v in answer.headers if k != b"date"), (b"date", date.encode())]
        finally:
            _skew_seconds.reset(before)

    async def _control(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        answer = json_response({"error": "unknown control route"}, 404)
        if scope["path"] == "/_sandbox/requests" and request.method == "GET":
            answer = json_response(_counts(self._context.requests.records()))
        elif scope["path"] == "/_sandbox/requests" and request.method == "DELETE":
            self._context.requests.clear()
            answer = json_response({"requests": 0})
        elif scope["path"] == "/_sandbox/faults" and request.method == "GET":
            answer = json_response({"kinds": list(KINDS), "orders": self._context.faults.pending()})
        elif scope["path"] == "/_sandbox/faults" and request.method == "DELETE":
            self._context.faults.clear()
            answer = json_response({"faults": 0})
        elif scope["path"] == "/_sandbox/clock" and request.method == "GET":
            answer = json_response({"now_ms": self._context.now_ms()})
        elif scope["path"] == "/_sandbox/clock" and request.method == "POST":
            answer = await self._advance(request)
        elif scope["path"] == "/_sandbox/faults" and request.method == "POST":
            answer = await self._order(request)
        await answer(scope, receive, send)

    async def _order(self, request: Request) -> Response:
        try:
            posted = msgspec.json.decode(await request.body())
            for order in posted if isinstance(posted, list) else [posted]:
                self._context.faults.add_json(order)
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
            reason = (
                f": {error}" if isinstance(error, ValueError) and not isinstance(error, msgspec.DecodeError) else ""
            )
            return json_response({"error": f"not a fault order ({type(error).__name__}{reason})"}, 400)
        return json_response({"ordered": True})

    async def _advance(self, request: Request) -> Response:
        try:
            self._context.advance(msgspec.json.decode(await request.body(), type=_Advance).advance_seconds)
        except (msgspec.DecodeError, ValueError):
            return json_response({"error": "not an advance: {advance_seconds: number, not below zero}"}, 400)
        return json_response({"now_ms": self._context.now_ms()})


class _Advance(msgspec.Struct, forbid_unknown_fields=True):
    advance_seconds: float


# --- the answer on its way to the socket -----------------------------------------------------------------------------

_REPLACES = frozenset({"status", "redirect", "bomb"})


@dataclass
class _Answer:
    status: int = 500
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""

    async def collect(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = [(k.lower(), v) for k, v in message["headers"] if k.lower() != b"content-length"]
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")

    def replace_by(self, fault: Fault) -> None:
        given = fault.parameters
        if fault.kind == "status":
            body = given.get("body", b"")
            self.status = int(given["code"])
            self.body = body.encode() if isinstance(body, str) else body
            self.headers = [(k.lower().encode(), str(v).encode()) for k, v in dict(given.get("headers", {})).items()]
            if self.body and not any(k == b"content-type" for k, _ in self.headers):
                self.headers.append((b"content-type", b"application/json"))
        elif fault.kind == "redirect":
            self.status = int(given.get("code", 302))
            self.headers = [(b"location", str(given["location"]).encode())]
        else:
            self.status = 200
            layers = int(given.get("layers", 1))
            self.body = _bomb(int(given.get("decoded_bytes", 100_000_000)), layers)
            encoding = b", ".join([b"gzip"] * layers)
            self.headers = [(b"content-type", b"application/json"), (b"content-encoding", encoding)]


async def _deliver(answer: _Answer, fault: Fault | None, send: Send, *, accepts_gzip: bool) -> None:
    kind = fault.kind if fault is not None else ""
    given = fault.parameters if fault is not None else {}
    body = _changed(answer, kind, given)
    encoded = any(key == b"content-encoding" for key, _ in answer.headers)
    wants_gzip = accepts_gzip and len(body) >= _GZIP_FROM_BYTES and not encoded and kind != "cut_body"
    if wants_gzip or kind == "cut_gzip":
        body = _gzip(body)
        answer.headers.append((b"content-encoding", b"gzip"))
        if kind == "cut_gzip":
            body = body[: max(10, int(len(body) * float(given.get("fraction", 0.67))))]
    if kind in ("delay", "slow"):
        await asyncio.sleep(float(given["seconds" if kind == "delay" else "first_byte_seconds"]))
    headers = [*answer.headers]
    if answer.status not in (204, 304):
        headers.append((b"content-length", str(len(body)).encode()))
    start: Message = {"type": "http.response.start", "status": answer.status, "headers": headers}
    if kind == "reset":
        await _reset(send, start, body, int(given.get("after_bytes", 0)))
        return
    await send(start)
    await _send_body(send, b"" if answer.status in (204, 304) else body, kind, given)


def _changed(answer: _Answer, kind: str, given: Mapping[str, Any]) -> bytes:
    if kind == "bad_json":
        return spoil(answer.body, str(given.get("how", "truncated")))
    if kind == "drift" and answer.status < 300:
        return drifted(answer.body, given)
    return answer.body


async def _send_body(send: Send, body: bytes, kind: str, given: Mapping[str, Any]) -> None:
    if kind == "cut_body":
        await _close_early(send, body[: int(len(body) * float(given.get("fraction", 0.5)))])
    elif kind == "drip":
        await _drip(send, body, float(given["seconds"]), int(given.get("pieces", 20)))
    elif kind == "slow":
        seconds = len(body) / float(given["bytes_per_second"])
        await _drip(send, body, seconds, pieces=max(1, min(100, int(seconds / 0.01))))
    else:
        await send({"type": "http.response.body", "body": body})


async def _drip(send: Send, body: bytes, seconds: float, pieces: int) -> None:
    size = max(1, -(-len(body) // pieces))
    for start in range(0, len(body), size):
        await send({"type": "http.response.body", "body": body[start : start + size], "more_body": True})
        await asyncio.sleep(seconds / pieces)
    await send({"type": "http.response.body", "body": b""})


async def _close_early(send: Send, body: bytes) -> None:
    """Flush what there is and close; the announced length is never reached."""
    await send({"type": "http.response.body", "body": body, "more_body": True})
    _transport(send).close()
    await _until_gone(send)


async def _reset(send: Send, start: Message, body: bytes, after_bytes: int) -> None:
    transport = _transport(send)
    if after_bytes > 0:
        await send(start)
        await send({"type": "http.response.body", "body": body[: min(after_bytes, len(body) - 1)], "more_body": True})
    # Linger 0 makes the close a reset instead of an orderly end.
    transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    await _until_gone(send)


def _transport(send: Send) -> Any:
    """The socket's transport: uvicorn's `send` is a method of the object that holds it."""
    return send.__self__.transport  # type: ignore[attr-defined]


async def _until_gone(send: Send) -> None:
    """Wait until uvicorn has noticed, so that it does not report an unfinished answer."""
    cycle = send.__self__  # type: ignore[attr-defined]
    for _ in range(1_000):
        if cycle.disconnected:
            return
        await asyncio.sleep(0.001)


def _gzip(body: bytes, level: int = 1) -> bytes:
    # wbits 31: gzip container with a zero time stamp, so the same body gives the same bytes.
    squeeze = zlib.compressobj(level, zlib.DEFLATED, 31)
    return squeeze.compress(body) + squeeze.flush()


def _bomb(decoded_bytes: int, layers: int) -> bytes:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = b"[" + b" " * 65_535
    parts = [squeeze.compress(block)]
    parts += [squeeze.compress(b" " * 65_536) for _ in range(decoded_bytes // 65_536)]
    body = b"".join([*parts, squeeze.compress(b"]"), squeeze.flush()])
    for _ in range(layers - 1):
        body = _gzip(body, 9)
    return body


def _digest(credential: str) -> str:
    return sha256(credential.encode()).hexdigest()[:8] if credential else ""


def _headers(scope: MutableMapping[str, Any]) -> dict[str, str]:
    return {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}


def _counts(records: Iterable[RequestRecord]) -> dict[str, object]:
    tally = Counter((record.vendor, record.method, record.path, record.status) for record in records)
    rows = [
        {"vendor": vendor, "method": method, "path": path, "status": code, "count": count}
        for (vendor, method, path, code), count in sorted(tally.items())
    ]
    return {"requests": sum(tally.values()), "by_route": rows}
