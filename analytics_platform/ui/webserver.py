"""Dagster's webserver behind the guard, on a socket somebody else bound.

Belongs here: the one process that serves the UI. Does not belong here: the rules (`ui.guard`), the other processes
(`ui`).

`python -m analytics_platform.ui.webserver LISTENER_FD CODE_SOCKET WORKSPACE_YAML`
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import uvicorn
from dagster import DagsterInstance
from dagster import __version__ as dagster_version
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_webserver.webserver import DagsterWebserver
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from analytics_platform.core import data_docs
from analytics_platform.core.redaction import install_redaction
from analytics_platform.settings import load_settings
from analytics_platform.ui import answers
from analytics_platform.ui.guard import LoopbackGuard

__all__ = ["GuardedWebserver", "main"]

_POLL_MILLISECONDS: Final = 2000
_STATEMENT_MILLISECONDS: Final = 15_000
_RECYCLE_SECONDS: Final = 3600
_OVERFLOW_CONNECTIONS: Final = 20
_GRACE_SECONDS: Final = 3
_LOOK_EVERY_SECONDS: Final = 0.05


class GuardedWebserver(DagsterWebserver[Any, Any]):
    """The stock webserver; the guard is asked first."""

    def build_middleware(self) -> list[Middleware]:
        return [Middleware(LoopbackGuard), *super().build_middleware()]

    def build_routes(self) -> list[Any]:
        # Before the stock routes, whose last one answers every path with the single-page app.
        folder = load_settings().home.data_docs
        folder.mkdir(parents=True, exist_ok=True)  # a home without a check yet has no page, which is no failure
        pages = StaticFiles(directory=folder, html=True)
        return [Mount(data_docs.ADDRESS, pages), *super().build_routes()]  # type: ignore[no-untyped-call]


def main(arguments: list[str]) -> None:
    """Serve until SIGTERM. Waits for the code server, so that the first page has all assets on it."""
    descriptor, code_socket, workspace = int(arguments[0]), Path(arguments[1]), arguments[2]
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    install_redaction()
    while not answers(code_socket):
        # The code server tells nobody when it is ready; a connection that is accepted is the only sign.
        time.sleep(_LOOK_EVERY_SECONDS)
    with (
        socket.socket(fileno=descriptor) as listener,
        DagsterInstance.get() as instance,
        _workspace(instance, workspace) as context,
    ):
        app: Starlette = GuardedWebserver(context, "", _POLL_MILLISECONDS).create_asgi_app(lifespan=_lifespan)
        config = uvicorn.Config(
            app, log_config=None, access_log=False, timeout_graceful_shutdown=_GRACE_SECONDS, server_header=False
        )
        uvicorn.Server(config).run(sockets=[listener])


def _workspace(instance: DagsterInstance, path: str) -> WorkspaceProcessContext:
    instance.optimize_for_webserver(_STATEMENT_MILLISECONDS, _RECYCLE_SECONDS, _OVERFLOW_CONNECTIONS)
    return WorkspaceProcessContext(instance, workspace_load_target=WorkspaceFileTarget([path]), version=dagster_version)


@asynccontextmanager
async def _lifespan(_app: Starlette) -> AsyncIterator[None]:
    try:
        yield
    except asyncio.CancelledError:  # how uvicorn ends a lifespan when its grace is over
        return


if __name__ == "__main__":
    main(sys.argv[1:])
