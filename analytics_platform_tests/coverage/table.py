"""The coverage table: every endpoint line of each vendor document → client method → sandbox route → test.

Belongs here: reading the documents' lines (`documents.yaml`), the marks on the client classes, the sandbox's routes and
the tests, joining the four, and writing the page. Does not belong here: what an endpoint means (`vendors/`), calling
one (`analytics_platform_tests/vendors/<v>/test_endpoints.py`), deciding that a gap is fine (`test_coverage`: none is).

Nothing is kept by hand but the documents' lines: `python -m analytics_platform_tests.coverage.table` writes
`docs/endpoints.md` from code, and a test compares the two.

    documents.yaml ─▶ line ─┬▶ marks of vendors/<v>/{client,outbound,management,queries,erasure}.py
                            ├▶ Starlette's routes, asked which of them serves a path of that form
                            └▶ ENDPOINT_CALLS of vendors/<v>/test_endpoints.py
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path
from typing import Final

import msgspec
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Match, Mount, Route

from analytics_platform.core.endpoints import endpoints_of
from analytics_platform.sandbox import server
from analytics_platform.sandbox.truth import generate
from analytics_platform.sandbox.wire import ServerContext

__all__ = [
    "PAGE",
    "Document",
    "Line",
    "Mark",
    "Row",
    "SandboxRoute",
    "beyond_the_documents",
    "documents",
    "endpoint_calls",
    "marks",
    "page",
    "rows",
    "sandbox_routes",
    "shape",
    "trap_tests",
]

ROOT: Final = Path(__file__).parent.parent.parent
PAGE: Final = ROOT / "docs" / "endpoints.md"
MODULES: Final = ("client", "outbound", "management", "queries", "erasure")
"""Where client classes live; `outbox` delivers through them and speaks for nothing itself."""
_AUTH: Final = {"kameleoon": ("kameleoon_auth",)}
"""Ports of the sandbox that belong to a vendor besides its own."""
_COMMAND: Final = "python -m analytics_platform_tests.coverage.table"


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of a document; see the head of `documents.yaml`."""

    line: str
    section: str
    endpoint: str
    source: str | None = None
    note: str | None = None


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One vendor's document: its lines in order, and how many traps the contract numbers."""

    document: str
    traps: int
    lines: tuple[Line, ...]


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A client method and one endpoint it speaks for."""

    module: str
    method: str
    label: str
    source: str


@dataclass(frozen=True, kw_only=True)
class SandboxRoute:
    """One verb and path form that the sandbox serves."""

    port: str
    verb: str
    path: str
    route: BaseRoute = field(compare=False, repr=False)

    @property
    def label(self) -> str:
        """`GET /core/products/{product_id}`, with the port where it is not the vendor's own."""
        return f"{self.verb} {self.path}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line and what stands behind it; a gap is an empty tuple."""

    line: Line
    methods: tuple[str, ...]
    routes: tuple[str, ...]
    tests: tuple[str, ...]

    @property
    def gaps(self) -> tuple[str, ...]:
        """Which of the three are missing."""
        found = {"client method": self.methods, "sandbox route": self.routes, "test": self.tests}
        return tuple(name for name, value in found.items() if not value)


def documents() -> Mapping[str, Document]:
    """The five documents by vendor, validated."""
    text = (Path(__file__).parent / "documents.yaml").read_bytes()
    return msgspec.yaml.decode(text, type=dict[str, Document])


def shape(label: str) -> str:
    """A label without the names of its variables, so that `{event_id}` and `{id:int}` are one form."""
    return re.sub(r"\{[^}]*\}", "{}", label)


# --- the client's side ------------------------------------------------------------------------------------------------


@cache
def marks(vendor: str) -> tuple[Mark, ...]:
    """Every mark on every public class of the vendor's client modules, in the order of the modules and names."""
    found = []
    for part in MODULES:
        if not (ROOT / "analytics_platform" / "vendors" / vendor / f"{part}.py").exists():
            continue
        module = importlib.import_module(f"analytics_platform.vendors.{vendor}.{part}")
        for name, cls in inspect.getmembers(module, inspect.isclass):
            if cls.__module__ != module.__name__ or name.startswith("_"):
                continue
            for method, own in endpoints_of(cls).items():
                found += [
                    Mark(module=part, method=f"{name}.{method}", label=mark.label, source=mark.source) for mark in own
                ]
    return tuple(found)


# --- the sandbox's side -----------------------------------------------------------------------------------------------


@cache
def sandbox_routes(vendor: str) -> tuple[SandboxRoute, ...]:
    """What the vendor's observer serves, on its own port and on those that belong to it."""
    world = generate(first_day=date(2026, 10, 5), days=1, scale=0.01)
    context = ServerContext(world_now_ms=world.now_ms)
    apps: dict[str, Starlette] = {}
    observer = importlib.import_module(f"analytics_platform.sandbox.{vendor}")
    apps[vendor] = observer.build_app(world, context)
    for port in _AUTH.get(vendor, ()):
        apps[port] = server._token_app(context, {})
    return tuple(route for port, app in apps.items() for route in _flat(port, app.routes, ""))


def _flat(port: str, routes: Sequence[BaseRoute], prefix: str) -> Iterator[SandboxRoute]:
    for route in routes:
        if isinstance(route, Mount):
            yield from _flat(port, route.routes, prefix + route.path)
        elif isinstance(route, Route):
            for verb in sorted((route.methods or {"GET"}) - {"HEAD", "OPTIONS"}):
                yield SandboxRoute(port=port, verb=verb, path=prefix + route.path, route=route)


def _serving(vendor: str, label: str) -> tuple[SandboxRoute, ...]:
    """The routes of this form; else the first one that Starlette would send a concrete path of this form to."""
    routes = sandbox_routes(vendor)
    same = tuple(route for route in routes if shape(route.label) == shape(label))
    if same:
        return same
    verb, _, path = label.partition(" ")
    for filled in ("1", "a"):
        scope = {"type": "http", "method": verb, "path": re.sub(r"\{[^}]*\}", filled, path), "root_path": ""}
        for route in routes:
            if route.verb == verb and route.route.matches({**scope, "headers": []})[0] is Match.FULL:
                return (route,)
    return ()


# --- the tests' side --------------------------------------------------------------------------------------------------


@cache
def endpoint_calls(vendor: str) -> tuple[str, ...]:
    """Keys of the vendor's `ENDPOINT_CALLS`; none while the vendor has no test_endpoints.py."""
    if not (ROOT / "analytics_platform_tests" / "vendors" / vendor / "test_endpoints.py").exists():
        return ()
    module = importlib.import_module(f"analytics_platform_tests.vendors.{vendor}.test_endpoints")
    return tuple(module.ENDPOINT_CALLS)


def trap_tests(vendor: str) -> Mapping[int, tuple[str, ...]]:
    """Trap number to the names of its tests, read from the source of test_traps.py."""
    path = ROOT / "analytics_platform_tests" / "vendors" / vendor / "test_traps.py"
    found: dict[int, tuple[str, ...]] = {}
    tree = ast.parse(path.read_text(encoding="utf-8")) if path.exists() else ast.Module([], [])
    for node in tree.body:
        match = re.fullmatch(r"test_trap_(\d\d)_\w+", node.name) if isinstance(node, ast.FunctionDef) else None
        if match is not None:
            number = int(match[1])
            found[number] = (*found.get(number, ()), match[0])
    return dict(sorted(found.items()))


# --- the join ---------------------------------------------------------------------------------------------------------


def rows(vendor: str) -> tuple[Row, ...]:
    """Every line of the vendor's document with what stands behind it."""
    return tuple(
        Row(
            line=line,
            methods=tuple(mark.method for mark in marks(vendor) if shape(mark.label) == shape(line.endpoint)),
            routes=tuple(
                route.label if route.port == vendor else f"{route.label} ({route.port})"
                for route in _serving(vendor, line.endpoint)
            ),
            tests=tuple(label for label in endpoint_calls(vendor) if shape(label) == shape(line.endpoint)),
        )
        for line in documents()[vendor].lines
    )


def beyond_the_documents(vendor: str) -> tuple[SandboxRoute, ...]:
    """Routes of the sandbox that no line leads to: what official clients ask besides, and the sandbox's own."""
    named = {route for line in documents()[vendor].lines for route in _serving(vendor, line.endpoint)}
    return tuple(route for route in sandbox_routes(vendor) if route not in named)


# --- the page ---------------------------------------------------------------------------------------------------------


def page() -> str:
    """The whole of `docs/endpoints.md`."""
    read = documents()
    tables = {vendor: rows(vendor) for vendor in read}
    parts = [
        "# Endpoints: every line of the documents",
        "",
        f"Written by `{_COMMAND}` from the client classes, the sandbox's routes and",
        "the tests; do not edit. A test compares.",
        "A line in *italics* is not in the vendor's document: the public contract adds it. — is a gap.",
        "",
        *_summary(read, tables),
    ]
    for vendor, document in read.items():
        parts += ["", f"## {vendor.capitalize()}: {document.document}", "", *_lines(vendor, tables[vendor])]
    parts += ["", "# Traps", "", "The numbered traps of each contract, and the test that naive code fails.", ""]
    for vendor, document in read.items():
        parts += [f"## {vendor.capitalize()}", "", *_traps(vendor, document), ""]
    parts += [
        "# Beyond the documents",
        "",
        "Routes of the sandbox that no line names: what official clients ask besides, and spellings a document allows",
        "without printing them (Smartlook: the version may be left out). Every port also has the sandbox's own",
        "`/_sandbox/requests` and `/_sandbox/faults`.",
        "",
    ]
    for vendor in read:
        parts += [f"## {vendor.capitalize()}", "", *_beyond(vendor), ""]
    return "\n".join(parts).rstrip("\n") + "\n"


def _summary(read: Mapping[str, Document], tables: Mapping[str, Sequence[Row]]) -> list[str]:
    found = ["| document | lines | from the contract | covered | traps | tested |", "|---|---|---|---|---|---|"]
    for vendor, document in read.items():
        added = sum(row.line.source is not None for row in tables[vendor])
        covered = sum(not row.gaps for row in tables[vendor])
        tested = sum(1 <= number <= document.traps for number in trap_tests(vendor))
        total = len(tables[vendor])
        found.append(f"| {vendor} | {total - added} | {added} | {covered} of {total} | {document.traps} | {tested} |")
    return found


def _lines(vendor: str, table: Sequence[Row]) -> list[str]:
    found = ["| section | line of the document | client method | sandbox route | test |", "|---|---|---|---|---|"]
    for row in table:
        line = f"`{_cell(row.line.line)}`" if row.line.source is None else f"*{_cell(row.line.line)}*"
        remark = "; ".join(filter(None, (row.line.source, row.line.note)))
        shown = f"{line}<br>{_cell(remark)}" if remark else line
        cells = [_cell(row.line.section), shown, *map(_codes, (row.methods, row.routes, row.tests))]
        found.append(f"| {' | '.join(cells)} |")
    test_file = f"analytics_platform_tests/vendors/{vendor}/test_endpoints.py"
    return [f"Tests are `{test_file}::test_endpoint[…]`.", "", *found]


def _traps(vendor: str, document: Document) -> list[str]:
    tests = trap_tests(vendor)
    found = ["| trap | test |", "|---|---|"]
    return found + [f"| {number} | {_codes(tests.get(number, ()))} |" for number in range(1, document.traps + 1)]


def _beyond(vendor: str) -> list[str]:
    listed = [f"- `{route.label}`" + _on(vendor, route) for route in beyond_the_documents(vendor)]
    return listed or ["None."]


def _on(vendor: str, route: SandboxRoute) -> str:
    return "" if route.port == vendor else f" ({route.port})"


def _codes(values: Iterable[str]) -> str:
    return "<br>".join(f"`{_cell(value)}`" for value in values) or "—"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
