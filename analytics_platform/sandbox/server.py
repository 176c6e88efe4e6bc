"""The sandbox as a server: six loopback ports in one thread, the environment that points at them, and the blocking
form.

Belongs here: ports, threads, start and stop, the settings a client needs. Does not belong here: any vendor's behaviour.
"""

from __future__ import annotations

import asyncio
import hmac
import importlib
import signal
import socket
import threading
from base64 import b64decode
from binascii import Error as Base64Error
from collections import deque
from collections.abc import Callable, Collection, Mapping
from datetime import date
from types import FrameType, TracebackType
from typing import Any, Protocol, Self
from urllib.parse import parse_qsl

import uvicorn
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from analytics_platform.sandbox.faults import FaultBook
from analytics_platform.sandbox.truth import World
from analytics_platform.sandbox.wire import RequestLog, ServerContext, WireMiddleware, json_response

__all__ = ["VENDORS", "Sandbox", "serve"]

VENDORS = ("smartlook", "inspectlet", "pirsch", "kameleoon", "kissmetrics")
AUTH = "kameleoon_auth"
_LOOPBACK = "127.0.0.1"
_START_SECONDS = 20.0


class _Observer(Protocol):
    def build_app(self, world: World, context: ServerContext, **profile: object) -> Starlette: ...


class Sandbox:
    """All vendors over one world on loopback; a context manager that runs in a thread of this process.

    Args:
        world: what happened.
        ports: fixed ports by vendor name (and "kameleoon_auth"); those left out get a free one.
        profiles: knobs of an observer by vendor name, e.g. {"pirsch": {"token_lifetime_seconds": 5}}.
        vendors: which vendors to serve; all unless told.
    """

    def __init__(
        self,
        world: World,
        *,
        ports: Mapping[str, int] | None = None,
        profiles: Mapping[str, Mapping[str, object]] | None = None,
        vendors: Collection[str] = VENDORS,
    ) -> None:
        unknown = set(vendors) - set(VENDORS)
        if unknown:
            raise ValueError(f"no such vendor: {', '.join(sorted(unknown))}")
        self._vendors = tuple(vendor for vendor in VENDORS if vendor in vendors)
        self.world = world
        self.context = ServerContext(world_now_ms=world.now_ms)
        self._ports = dict(ports or {})
        self._profiles = {name: dict(profile) for name, profile in (profiles or {}).items()}
        self._servers: list[uvicorn.Server] = []
        self._thread: threading.Thread | None = None

    @property
    def base_urls(self) -> Mapping[str, str]:
        """`http://127.0.0.1:<port>` by vendor name, plus "kameleoon_auth"; empty until started."""
        return self.context.base_urls

    @property
    def faults(self) -> FaultBook:
        """Order what goes wrong."""
        return self.context.faults

    @property
    def requests(self) -> RequestLog:
        """What was asked."""
        return self.context.requests

    def start(self) -> Self:
        """Bind, serve in a thread, and return when every port answers.

        Raises RuntimeError when it already runs or does not come up, OSError when a fixed port is taken.
        """
        if self._thread is not None:
            raise RuntimeError("the sandbox is already running")
        apps = self._apps()
        sockets = {name: _bind(self._ports.get(name, 0)) for name in (*apps, AUTH)}
        for name, bound in sockets.items():
            self.context.base_urls[name] = f"http://{_LOOPBACK}:{bound.getsockname()[1]}"
        apps[AUTH] = _token_app(self.context, self._profiles.get(AUTH, {}))
        self._servers = [_server(WireMiddleware(app, vendor=name, context=self.context)) for name, app in apps.items()]
        ready = threading.Event()
        bound_in_order = [sockets[name] for name in apps]
        self._thread = threading.Thread(target=self._run, args=(bound_in_order, ready), name="sandbox", daemon=True)
        self._thread.start()
        if not ready.wait(_START_SECONDS):
            self.stop()
            raise RuntimeError("the sandbox did not start")
        return self

    def stop(self) -> None:
        """Stop serving, close the ports and wait for the thread. Safe to call twice."""
        for server in self._servers:
            server.should_exit = True
            server.force_exit = True
        if self._thread is not None:
            self._thread.join(_START_SECONDS)
        self._thread = None
        self._servers = []

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def environment(self) -> dict[str, str]:
        """Every vendor variable of the platform, pointing at this sandbox with its fake credentials."""
        secret = self.context.credentials
        variables = {
            "INSPECTLET_USERNAME": secret.inspectlet_username,
            "INSPECTLET_API_TOKEN": secret.inspectlet_api_token,
            "PIRSCH_CLIENT_ID": secret.pirsch_client_id,
            "PIRSCH_CLIENT_SECRET": secret.pirsch_client_secret,
            "KAMELEOON_CLIENT_ID": secret.kameleoon_client_id,
            "KAMELEOON_CLIENT_SECRET": secret.kameleoon_client_secret,
            "KISSMETRICS_API_TOKEN": secret.kissmetrics_api_token,
        }
        for index, site in enumerate(self.world.sites):
            variables[_smartlook_variable(index, site.key)] = site.smartlook_token
        for name, url in self.base_urls.items():
            variables["KAMELEOON_AUTH_URL" if name == AUTH else f"{name.upper()}_BASE_URL"] = url
        return variables

    def sites_yaml(self) -> str:
        """The `sites.yaml` of this world's sites."""
        sites = [
            {
                "key": site.key,
                "timezone": site.timezone,
                # A new object a site: YAML would write a shared one as an alias.
                "start_date": date.fromordinal(self.world.first_day.toordinal()),
                "vendors": {
                    "smartlook": {
                        "api_token_env": _smartlook_variable(index, site.key),
                        "region": "eu",
                        "plan": "addon",
                    },
                    "inspectlet": {"wid": site.wid, "requests_per_minute": 6000},
                    # The platform's polite default is for real hosts; this one is ours.
                    "pirsch": {"domain_id": site.pirsch_domain_id, "requests_per_minute": 12000},
                    "kameleoon": {
                        "site_code": site.kameleoon_site_code,
                        "visitor_sample": 0.2,
                        **self._eans(site.key),
                    },
                    "kissmetrics": {"product_id": site.kissmetrics_product_id, "requests_per_minute": 6000},
                },
            }
            for index, site in enumerate(self.world.sites)
        ]
        return yaml.safe_dump({"sites": sites}, sort_keys=False)

    def _eans(self, site_key: str) -> dict[str, str]:
        """The site's products, as Kameleoon's counters are asked for them; nothing where the site sells nothing."""
        products = self.world.products
        codes = sorted(products.loc[products["site_key"] == site_key, "sku"].astype(str)) if len(products) else []
        return {"eans": ",".join(codes)} if codes else {}

    def _apps(self) -> dict[str, Starlette]:
        apps = {}
        for vendor in self._vendors:
            observer = _observer(vendor)
            if observer is not None:
                apps[vendor] = observer.build_app(self.world, self.context, **self._profiles.get(vendor, {}))
        return apps

    def _run(self, sockets: list[socket.socket], ready: threading.Event) -> None:
        asyncio.run(self._serve_all(sockets, ready))

    async def _serve_all(self, sockets: list[socket.socket], ready: threading.Event) -> None:
        serving = [
            asyncio.ensure_future(server.serve(sockets=[bound]))
            for server, bound in zip(self._servers, sockets, strict=True)
        ]
        while not all(server.started for server in self._servers) and not any(task.done() for task in serving):
            await asyncio.sleep(0.005)
        if not any(task.done() for task in serving):
            ready.set()
        await asyncio.gather(*serving)


def serve(
    world: World,
    *,
    on_ready: Callable[[Sandbox], None],
    ports: Mapping[str, int] | None = None,
    profiles: Mapping[str, Mapping[str, object]] | None = None,
) -> None:
    """Run a sandbox until SIGINT or SIGTERM. Call it from the main thread; `on_ready` gets the running sandbox."""
    stopped = threading.Event()

    def stop(signum: int, frame: FrameType | None) -> None:
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with Sandbox(world, ports=ports, profiles=profiles) as sandbox:
            on_ready(sandbox)
            stopped.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _observer(vendor: str) -> _Observer | None:
    """The vendor's module, or None when this build does not have it. Imported late: a sandbox may serve only some."""
    name = f"{__package__}.{vendor}"
    try:
        module: Any = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None
    observer: _Observer = module
    return observer


def _bind(port: int) -> socket.socket:
    # asyncio turns Nagle off only where the protocol is named; without it every small answer waits 40 ms for an ACK.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((_LOOPBACK, port))
    return bound


def _server(app: Any) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="critical",
        access_log=False,
        lifespan="off",
        server_header=False,
        date_header=False,
        ws="none",
        timeout_keep_alive=60,
        timeout_graceful_shutdown=1,
        backlog=256,
    )
    return uvicorn.Server(config)


def _smartlook_variable(index: int, site_key: str) -> str:
    """The first site uses the plain name; tokens are one a project, so every further site needs its own."""
    return "SMARTLOOK_API_TOKEN" if index == 0 else f"SMARTLOOK_API_TOKEN_{site_key.upper().replace('-', '_')}"


def _token_app(context: ServerContext, profile: Mapping[str, object]) -> Starlette:
    """Kameleoon's token host, which is another origin than its Data API.

    `POST /oauth/token`, form-encoded client credentials in the body or as Basic (contracts/kameleoon.md B2). Tokens go
    to `context.token_store("kameleoon")`, where the Data API checks them. Profile "kameleoon_auth":
    `token_lifetime_seconds` (7200), and `calls_per_minute`, a limit per account: the vendor's is about 12, which is not
    the default because the many short-lived clients of a test suite share the sandbox's one account.
    """
    lifetime = int(str(profile.get("token_lifetime_seconds", 7200)))
    most = int(str(profile.get("calls_per_minute", 0)))
    wanted = (context.credentials.kameleoon_client_id, context.credentials.kameleoon_client_secret)
    seen: dict[str, deque[float]] = {}

    def is_over_the_limit(account: str) -> bool:
        calls, now = seen.setdefault(account, deque()), context.monotonic()
        while calls and now - calls[0] >= 60.0:
            calls.popleft()
        if len(calls) >= most > 0:
            return True
        calls.append(now)
        return False

    async def token(request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode("utf-8", "replace")))
        given = _basic(request.headers.get("authorization", "")) or (
            form.get("client_id", ""),
            form.get("client_secret", ""),
        )
        if is_over_the_limit(given[0]):
            return Response(status_code=429)
        if form.get("grant_type") != "client_credentials":
            return json_response({"error": "unsupported_grant_type"}, 400)
        if not all(hmac.compare_digest(a.encode(), b.encode()) for a, b in zip(given, wanted, strict=True)):
            return json_response({"error": "invalid_client"}, 401)
        issued = context.token_store("kameleoon").issue(vendor="kameleoon", lifetime_seconds=lifetime)
        return json_response({"access_token": issued, "token_type": "bearer", "expires_in": lifetime})

    return Starlette(routes=[Route("/oauth/token", token, methods=["POST"])])


def _basic(header: str) -> tuple[str, str] | None:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, _, secret = b64decode(encoded, validate=True).decode("utf-8").partition(":")
    except (Base64Error, UnicodeDecodeError):
        return None
    return name, secret
