"""The suite about itself: every kind is asked of every vendor, and every written reason belongs to one.

Belongs here: counting. Does not belong here: any vendor's behaviour.
"""

from __future__ import annotations

import inspect
from types import ModuleType

import pytest

from analytics_platform.vendors import streams_of, vendor_names
from analytics_platform_tests.acceptance import test_connection, test_read, test_schema, test_wire
from analytics_platform_tests.acceptance.case import CASES

MODULES = (test_connection, test_read, test_schema, test_wire)
KINDS = [
    name.removeprefix("test_")
    for module in MODULES
    for name, value in vars(module).items()
    if name.startswith("test_") and inspect.isfunction(value)
]


def test_every_vendor_of_the_house_has_a_case() -> None:
    assert sorted(case.vendor for case in CASES) == sorted(vendor_names())


def test_there_are_kinds_enough_and_none_twice() -> None:
    assert len(KINDS) >= 12
    assert len(set(KINDS)) == len(KINDS)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_every_kind_is_asked_of_every_vendor_and_skipped_for_none(module: ModuleType) -> None:
    assert (module.pytestmark.name, module.pytestmark.args) == ("parametrize", ("case", CASES))
    assert "skip" not in inspect.getsource(module)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_reason_belongs_to_a_kind_and_every_name_to_the_vendor(case: object) -> None:
    (known,) = [each for each in CASES if each is case]
    assert set(known.reasons) <= set(KINDS)
    streams = {stream.name: stream for stream in streams_of(known.vendor)}
    tables = {spec.name for stream in streams.values() for spec in stream.tables}
    assert set(known.asked_again) <= set(streams)
    assert set(known.empty_tables) | set(known.undeclared) | {known.table} <= tables
    assert known.drift.columns <= {column.name for column in known.probe_table.columns}
    written = (*known.reasons.values(), *known.empty_tables.values(), *(why for _, why in known.asked_again.values()))
    assert [text for text in written if len(text.split()) < 4] == []
