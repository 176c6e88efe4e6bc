"""Who may talk to the Dagster webserver: this machine's own browser tabs of the UI, and programs on this machine.

Belongs here: the rules and the ASGI middleware that applies them. Does not belong here: starting the webserver
(`ui.webserver`).

Dagster's webserver has no login and answers whoever reaches it: `GET /graphql?query=mutation{launchRun…}` starts a run,
and so does a `text/plain` POST that any web page can make the user's browser send (RELIABILITY M9, T5). Bound to
loopback it is still reached from that browser, which these rules close:

* **Host** names loopback. A page that rebinds its own name to 127.0.0.1 still sends its own name.
* **Origin**, which a browser sends with every cross-site POST and every WebSocket, is the address asked for.
* **/graphql** by GET is the GraphiQL page only; queries and mutations come by POST.
* **POST** is `application/json`, which no form and no cross-site request without a preflight can send.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["LoopbackGuard", "refusal"]

_LOOPBACK_NAMES: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_SAFE_METHODS: Final = frozenset({"GET", "HEAD"})


class LoopbackGuard:
    """ASGI middleware that answers 403 to what `refusal` names; WebSockets are refused before they open."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        reason = refusal(scope.get("method", "GET"), scope["path"], scope["headers"], scope["type"] == "websocket")
        if reason is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": reason})
        else:
            await PlainTextResponse(f"Refused: {reason}\n", status_code=403)(scope, receive, send)


def refusal(method: str, path: str, headers: list[tuple[bytes, bytes]], is_websocket: bool = False) -> str | None:
    """Why a request is refused, None when it may pass. Header names are lower-case, as ASGI gives them."""
    given = _single_headers(headers)
    if given is None:
        return "a header that decides who may ask was sent twice."
    host = given.get("host", "")
    if _host_name(host) not in _LOOPBACK_NAMES:
        return "this UI answers to loopback addresses only."
    if "origin" in given and given["origin"].lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
        return "another web site asked for this."
    if is_websocket:
        return None
    if method not in _SAFE_METHODS and _media_type(given.get("content-type", "")) != "application/json":
        return "send application/json."
    if method in _SAFE_METHODS and path.rstrip("/") == "/graphql" and "text/html" not in given.get("accept", ""):
        return "send GraphQL by POST."
    return None


def _single_headers(headers: list[tuple[bytes, bytes]]) -> Mapping[str, str] | None:
    """The headers looked at, by name; None where one of them is there twice, so that no parser may take the other."""
    found: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name = raw_name.decode("latin-1").lower()
        if name in ("host", "origin", "content-type"):
            if name in found:
                return None
            found[name] = raw_value.decode("latin-1").strip()
        elif name == "accept":
            found[name] = f"{found.get(name, '')},{raw_value.decode('latin-1')}".lower()
    return found


def _host_name(host: str) -> str | None:
    """The name in a Host header without its port; None when it is not a plain authority."""
    if not host or any(character in host for character in "/\\@?# \t"):
        return None
    try:
        parts = urlsplit(f"//{host}")
        parts.port  # noqa: B018  (raises where the port is not a number)
        return (parts.hostname or "").lower()
    except ValueError:
        return None


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
