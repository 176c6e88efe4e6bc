"""Kameleoon's own Python client in its own environment, its URL formats pointed at loopback.

Belongs here: making the client, naming its data objects, reading its answers out as JSON. Does not belong here: what
the answers should be (`test_kameleoon_python_client.py`); anything of this project: this script runs where only the
vendor's client is installed (GPLv3, kept on its side of a pipe; docs/official_clients.md).

The client has no option for its addresses, so four class attributes are replaced before it is made (contract C). Lines
in and out as in `commands.cjs`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from enum import Enum
from typing import Any

import kameleoon.data
from kameleoon import KameleoonClient, KameleoonClientConfig, KameleoonClientFactory
from kameleoon.network.url_provider import UrlProvider
from kameleoon.types.remote_visitor_data_filter import RemoteVisitorDataFilter


class Commands:
    """The calls the test makes; the client runs in this event loop."""

    client: KameleoonClient

    async def new(self, options: dict[str, str]) -> bool:
        """Point the client at the sandbox, make it, and wait for its configuration."""
        data, tokens = options["data_url"], options["token_url"]
        UrlProvider._DATA_API_URL_FORMAT = data + "{1}?{2}"
        UrlProvider._CONFIGURATION_API_URL_FORMAT = data + "/v3/{1}"
        UrlProvider._RT_CONFIGURATION_URL_FORMAT = data + "/sse?{1}"
        UrlProvider._ACCESS_TOKEN_URL_FORMAT = tokens + "/oauth/token"
        config = KameleoonClientConfig(options["client_id"], options["client_secret"])
        self.client = KameleoonClientFactory.create(options["site_code"], config)
        return bool(await self.client.wait_init_async())

    async def addresses(self) -> list[str]:
        """What the client can make a URL for."""
        return sorted(name for name in vars(UrlProvider) if name.startswith("make_"))

    async def send(self, visitor_code: str, *data: dict[str, Any]) -> int:
        """Add the data, flush at once, and wait for what the flush began: the number of tasks."""
        self.client.add_data(visitor_code, *(_made(one) for one in data))
        before = asyncio.all_tasks()
        self.client.flush(visitor_code, instant=True)
        begun = asyncio.all_tasks() - before
        await asyncio.gather(*begun)
        return len(begun)

    async def visitor(self, visitor_code: str, filters: dict[str, Any]) -> list[dict[str, Any]]:
        """`get_remote_visitor_data`."""
        found = await self.client.get_remote_visitor_data_async(
            visitor_code, add_data=False, data_filter=RemoteVisitorDataFilter(**filters)
        )
        return [_read(one) for one in found]

    async def map(self, key: str) -> object:
        """`get_remote_data`."""
        return await self.client.get_remote_data_async(key)


def _made(named: dict[str, Any]) -> Any:
    """`{"kind": "Browser", "of": ["BrowserType.CHROME", 126.0]}` is a data object of the client."""
    given = [_member(one) if isinstance(one, str) else one for one in named["of"]]
    return getattr(kameleoon.data, named["kind"])(*given, **named.get("with", {}))


def _member(text: str) -> Any:
    kind, _, name = text.partition(".")
    enumeration = getattr(kameleoon.data, kind, None)
    return enumeration[name] if isinstance(enumeration, type) and issubclass(enumeration, Enum) else text


def _read(data: Any) -> dict[str, Any]:
    """The public properties of an answer's object."""
    named = {"kind": type(data).__name__}
    for name in dir(type(data)):
        if not name.startswith("_") and isinstance(getattr(type(data), name), property):
            value = getattr(data, name)
            if isinstance(value, Enum):
                value = value.name
            if value is None or isinstance(value, str | int | float | bool | tuple | list | dict):
                named[name] = value
    named.pop("nonce", None)
    return named


async def main() -> None:
    """Answer until standard input ends."""
    commands, loop = Commands(), asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        try:
            answer = {"value": await getattr(commands, command["call"])(*command["arguments"])}
        except Exception as error:
            answer = {"error": {"name": type(error).__name__, "code": None, "message": str(error)}}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


asyncio.run(main())
