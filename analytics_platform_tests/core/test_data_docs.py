"""The pages of Great Expectations' Data Docs: complete without a network, free of values, in step with the checks."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from analytics_platform.core.checks import run_suites
from analytics_platform.core.data_docs import ADDRESS, DataDocs, Validated
from analytics_platform_tests.core.test_checks import FIRST, SPEC, good_frame, good_profiles

SECRET = "ada.albrecht.10001@example.org"


def _write(docs: DataDocs, device: str, site: str = "shop") -> str:
    written: list[str] = []
    frame = good_frame()
    frame["device"] = device
    what = Validated(table="acme/sessions", site=site, days=[FIRST, FIRST + timedelta(days=2)], run_id="run-1")
    run_suites(SPEC, frame, good_profiles(), {}, show=lambda results: written.append(docs.write(what, results)))
    docs.write_index()
    return written[0]


@pytest.fixture
def docs(tmp_path: Path) -> DataDocs:
    return DataDocs(tmp_path / "data_docs")


def test_a_page_shows_both_suites_and_loads_nothing(docs: DataDocs) -> None:
    address = _write(docs, "mobile")
    assert address == f"{ADDRESS}/acme/sessions/shop.html"
    page = (docs.root / "acme/sessions/shop.html").read_text(encoding="utf-8")
    assert f"{SPEC.qualified_name} rows" in page
    assert f"{SPEC.qualified_name} partitions" in page
    assert "acme/sessions of shop, 2026-11-01 to 2026-11-03" in page
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)
    assert 'href="../../index.html"' in page


def test_a_failure_is_told_without_the_value(docs: DataDocs) -> None:
    _write(docs, SECRET)
    page = (docs.root / "acme/sessions/shop.html").read_text(encoding="utf-8")
    assert "✗ failed" in page
    assert SECRET not in page
    index = (docs.root / "index.html").read_text(encoding="utf-8")
    assert "✗ 2 failed" in index or "✗ 1 failed" in index


def test_the_index_lists_every_page_with_its_newest_result(docs: DataDocs) -> None:
    _write(docs, "tv", site="blog")
    _write(docs, "tv")
    _write(docs, "mobile")
    index = (docs.root / "index.html").read_text(encoding="utf-8")
    assert index.count("<tr>") == 3  # the head and two sites
    assert index.index("acme/sessions/blog.html") < index.index("acme/sessions/shop.html")
    assert index.count("✗") == 1
