"""The vendor of the benchmarks: one process on loopback that answers with pages rendered in advance.

Belongs here: the routes, the one refusal it can be told to give, the count of requests. Does not belong here: what a
record looks like (`rows`), who asks.

    POST /api/v1/sessions/search[?after=N]   the session search, with its date filters and its links
    GET  /api/v1/sessions[?page=N]           the same pages for loaders that only know GET
    GET  /seen                               how many of either were asked, those refused included
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

from analytics_platform_tests.benchmarks.rows import Pages, World

__all__ = ["LAST_DAY", "Served", "serving"]

LAST_DAY = date(2026, 10, 31)
"""Long over, so that one answer makes a day final."""

_RENDERED_PAGES = 600


@dataclass(frozen=True, kw_only=True)
class Served:
    """A running server."""

    base_url: str
    world: World

    def requests(self) -> int:
        """Requests for pages so far."""
        with urlopen(f"{self.base_url}/seen") as answer:
            return int(json.load(answer)["requests"])


@contextmanager
def serving(
    *, pages: int, days: int = 1, refuse_page: int | None = None, retry_after_seconds: int = 0
) -> Iterator[Served]:
    """A server in a process of its own, ended with the block.

    Args:
        refuse_page: the first request for this page (from 1) is answered 429.
        retry_after_seconds: what the 429 says.
    """
    arguments = [f"--pages={pages}", f"--days={days}", f"--retry-after={retry_after_seconds}"]
    if refuse_page is not None:
        arguments.append(f"--refuse={refuse_page}")
    command = [sys.executable, "-m", __name__, *arguments]
    # Its standard input is the line to its parent: when that is gone, so is the server.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            yield Served(base_url=f"http://127.0.0.1:{port}", world=World(pages=pages, days=days, last_day=LAST_DAY))
        finally:
            process.terminate()


class _Vendor(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, world: World, refuse_page: int | None, retry_after_seconds: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.world = world
        self.pages = Pages(world)
        self.requests = 0
        self.refuse_page = refuse_page
        self.retry_after_seconds = retry_after_seconds
        self._rendered: dict[tuple[str, int, int], bytes] = {}
        for page in range(min(world.pages, _RENDERED_PAGES)):
            self.answer("POST", page, 0)
            self.answer("GET", page, 0)

    def answer(self, method: str, page: int, stop: int) -> bytes:
        """A page; `stop` carries the search's own end on in its links."""
        known = self._rendered.get((method, page, stop))
        if known is not None:
            return known
        following = page + 1 if page + 1 < self.world.pages else None
        links = {"POST": f"/api/v1/sessions/search?after={following}", "GET": f"/api/v1/sessions?page={following}"}
        body = self.pages.body(page, links[method] if following is not None else None)
        if len(self._rendered) < _RENDERED_PAGES * 2:
            self._rendered[method, page, stop] = body
        return body


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Vendor

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        query = parse_qs(urlsplit(self.path).query)
        before = [f["value"] for f in asked.get("filters", ()) if f["operator"] == "before"]
        first = self.server.world.first_page_before(date.fromisoformat(before[0])) if before else 0
        self._page("POST", int(query["after"][0]) if "after" in query else first)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/seen":
            self._send(200, json.dumps({"requests": self.server.requests}).encode())
        else:
            self._page("GET", int(parse_qs(parts.query).get("page", ["0"])[0]))

    def _page(self, method: str, page: int) -> None:
        self.server.requests += 1
        if self.server.refuse_page == page + 1:
            self.server.refuse_page = None
            self._send(429, b'{"message":"too many requests"}', {"Retry-After": str(self.server.retry_after_seconds)})
        elif page >= self.server.world.pages:
            self._send(200, b'{"sessions":[],"_links":{"nextPage":null}}')
        else:
            self._send(200, self.server.answer(method, page, 0))

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response_only(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until ended; the port is the first line of the output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, required=True)
    parser.add_argument("--days", type=int, default=1)
    parser.add_argument("--refuse", type=int)
    parser.add_argument("--retry-after", type=int, default=0)
    chosen = parser.parse_args(arguments)
    world = World(pages=chosen.pages, days=chosen.days, last_day=LAST_DAY)
    with _Vendor(world, chosen.refuse, chosen.retry_after) as server:
        sys.stdout.write(f"{server.server_address[1]}\n")
        sys.stdout.flush()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sys.stdin.read()


if __name__ == "__main__":
    main()
