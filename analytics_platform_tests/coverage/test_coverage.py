"""The table is whole: every line of the five documents has a client method, a sandbox route and a test."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

from analytics_platform.vendors import vendor_names
from analytics_platform_tests.coverage import table

VENDORS = tuple(table.documents())
TESTS = Path(__file__).parent.parent / "vendors"
LABEL = re.compile(r"(?:GET|POST|PUT|PATCH|DELETE) /\S*")
TRAPS = {"smartlook": 16, "inspectlet": 18, "pirsch": 22, "kameleoon": 13, "kissmetrics": 19}


def test_there_is_a_document_for_every_vendor() -> None:
    assert sorted(VENDORS) == sorted(vendor_names())
    assert {vendor: document.traps for vendor, document in table.documents().items()} == TRAPS


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_line_has_a_method_a_route_and_a_test(vendor: str) -> None:
    gaps = {f"{row.line.section}: {row.line.line}": row.gaps for row in table.rows(vendor) if row.gaps}
    assert not gaps


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_mark_in_code_is_a_line(vendor: str) -> None:
    listed = {table.shape(line.endpoint) for line in table.documents()[vendor].lines}
    unlisted = {mark.label: mark.method for mark in table.marks(vendor) if table.shape(mark.label) not in listed}
    assert not unlisted


@pytest.mark.parametrize("vendor", VENDORS)
def test_no_endpoint_is_spoken_without_a_mark_or_from_a_module_nobody_looks_at(vendor: str) -> None:
    """Whatever reads as a label anywhere in the vendor's folder is a mark that the table has seen."""
    seen = {mark.label for mark in table.marks(vendor)}
    unseen: dict[str, str] = {}
    for path in sorted((table.ROOT / "analytics_platform" / "vendors" / vendor).glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        pieces = {id(piece) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for piece in node.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and id(node) not in pieces and LABEL.fullmatch(str(node.value)):
                unseen |= {} if node.value in seen else {str(node.value): path.name}
    assert not unseen


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_mark_is_called_by_a_test_and_every_call_is_for_a_mark(vendor: str) -> None:
    assert {mark.label for mark in table.marks(vendor)} == set(table.endpoint_calls(vendor))


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_call_is_a_test_that_looks_at_what_the_sandbox_served(vendor: str) -> None:
    module = importlib.import_module(f"analytics_platform_tests.vendors.{vendor}.test_endpoints")
    chosen = [
        value for mark in module.test_endpoint.pytestmark for value in mark.args[1:] if mark.name == "parametrize"
    ]
    assert {str(label) for values in chosen for label in values} >= set(table.endpoint_calls(vendor))
    assert ".requests.records(" in (TESTS / vendor / "test_endpoints.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_trap_has_a_test(vendor: str) -> None:
    assert list(table.trap_tests(vendor)) == list(range(1, TRAPS[vendor] + 1))


@pytest.mark.parametrize("name", ["test_endpoints.py", "test_traps.py"])
@pytest.mark.parametrize("vendor", VENDORS)
def test_nothing_in_the_table_is_skipped(vendor: str, name: str) -> None:
    tree = ast.parse((TESTS / vendor / name).read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    used |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert not used & {"skip", "skipif", "xfail", "importorskip", "skipTest"}


@pytest.mark.parametrize("vendor", VENDORS)
def test_lines_are_written_once_and_in_the_form_of_marks(vendor: str) -> None:
    lines = table.documents()[vendor].lines
    assert all(line.endpoint.partition(" ")[2].startswith("/") and "?" not in line.endpoint for line in lines)
    contract = [line.endpoint for line in lines if line.source is not None]
    assert len(contract) == len(set(contract))
    # What the document has comes first, in its order; the contract's additions follow.
    assert [line.source is not None for line in lines] == sorted(line.source is not None for line in lines)


def test_reads_are_never_spoken_for_by_a_class_that_also_writes() -> None:
    """The module a method lives in says what it may do: `client` has no verb but GET and the searches by POST."""
    for vendor in VENDORS:
        reading = {mark.label for mark in table.marks(vendor) if mark.module == "client"}
        assert not [label for label in reading if label.startswith(("PUT", "PATCH", "DELETE"))]


def test_the_page_is_what_the_generator_writes() -> None:
    written = table.PAGE.read_text(encoding="utf-8")
    assert written == table.page(), "run: python -m analytics_platform_tests.coverage.table"


# --- the join itself --------------------------------------------------------------------------------------------------


def test_a_form_does_not_depend_on_the_names_of_its_variables() -> None:
    assert table.shape("GET /a/{event_id}/b") == table.shape("GET /a/{id:int}/b") != table.shape("GET /a/b")


def test_the_documents_own_mistakes_are_in_the_table_with_the_route_that_is_meant() -> None:
    pirsch = table.documents()["pirsch"].lines
    printed = [line for line in pirsch if line.line == "GET /api/v1/statistics/os"]
    assert [line.endpoint for line in printed] == ["GET /api/v1/statistics/os", "GET /api/v1/statistics/os/version"]
    toggled = [line.endpoint for line in pirsch if line.line == "POST /api/v1/domain/subdomain"]
    assert toggled == ["POST /api/v1/domain/subdomain", "POST /api/v1/domain/public"]
    (statistics,) = [line for line in table.documents()["smartlook"].lines if "/api/statistics" in line.line]
    assert statistics.endpoint == "GET /api/statistics"


def test_a_gap_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    vendor = "kissmetrics"
    assert not [row for row in table.rows(vendor) if row.gaps]
    for name, gap in (("marks", "client method"), ("sandbox_routes", "sandbox route"), ("endpoint_calls", "test")):
        with monkeypatch.context() as broken:
            broken.setattr(table, name, lambda _: ())
            assert {row.gaps for row in table.rows(vendor)} == {(gap,)}
            assert "| — |" in "\n".join(table._lines(vendor, table.rows(vendor)))
