"""What every vendor's checks have in common, and all of them on rows that came over the sandbox's wire."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path

import pytest

from analytics_platform.core import staging, streamed_table
from analytics_platform.core.checks import CHECK_NAMES
from analytics_platform.core.clock import SystemClock
from analytics_platform.core.errors import LandingCorrupt
from analytics_platform.core.fetch import Fetcher, SiteContext
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.quota import Ledger
from analytics_platform.core.raw_records import raw_records
from analytics_platform.core.vendor_checks import VendorCheck
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import World, generate
from analytics_platform.settings import Settings, load_settings
from analytics_platform.vendors import all_tables, streams_of, vendor_names, vendor_resource
from analytics_platform_tests.vendors.lake_frames import checks_of, lake_frame, tables_of, tells_no_value

EVERY_CHECK = [(vendor, check) for vendor in vendor_names() for check in checks_of(vendor)]
FIRST_DAY, DAYS = date(2026, 10, 25), 2


def _id(value: object) -> str:
    return f"{value.table}.{value.name}" if isinstance(value, VendorCheck) else str(value)


@pytest.mark.parametrize("vendor", vendor_names())
def test_every_vendor_has_checks_of_its_own(vendor: str) -> None:
    names = [(check.table, check.name) for check in checks_of(vendor)]
    assert names
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("vendor", "check"), EVERY_CHECK, ids=_id)
def test_a_check_is_a_truth_about_a_table_and_names_the_contradiction(vendor: str, check: VendorCheck) -> None:
    assert check.table in tables_of(vendor)
    assert re.fullmatch(r"[a-z0-9_]+", check.name)
    assert re.search(r"_(is|are)_", check.name)
    assert check.name not in CHECK_NAMES
    assert check.description.startswith("The document ")
    assert check.description.endswith(".")
    assert ". " not in check.description


@pytest.mark.parametrize(("vendor", "check"), EVERY_CHECK, ids=_id)
def test_a_day_without_rows_breaks_no_check(vendor: str, check: VendorCheck) -> None:
    found = check.run(lake_frame(tables_of(vendor)[check.table], []))
    assert found.passed
    assert found.failing_days == ()
    assert found.metrics["rows"] == 0
    tells_no_value(found)


@pytest.mark.parametrize(("vendor", "check"), EVERY_CHECK, ids=_id)
def test_rows_without_values_break_no_check_but_those_that_need_them(vendor: str, check: VendorCheck) -> None:
    """NULL is no contradiction: columns that must have a value say so in tables.py."""
    spec = tables_of(vendor)[check.table]
    found = check.run(lake_frame(spec, [{c.name: None for c in spec.columns}] * 2))
    assert found.passed or check.name == "product_timezone_is_known"


# ------------------------------------------------------------------------------------------------ over the whole wire


@pytest.fixture(scope="module")
def world() -> World:
    return generate(first_day=FIRST_DAY, days=DAYS, scale=0.2)


@pytest.fixture(scope="module")
def loaded(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Lake]:
    """Every stream of every vendor and site, asked over the wire and decoded."""
    home = tmp_path_factory.mktemp("home")
    with Sandbox(world) as sandbox, pytest.MonkeyPatch.context() as patch:
        (home / "sites.yaml").write_text(sandbox.sites_yaml())
        variables = {"ANALYTICS_PLATFORM_HOME": str(home), "ANALYTICS_PLATFORM_CONFIG": str(home / "sites.yaml")}
        for name, value in {**sandbox.environment(), **variables}.items():
            patch.setenv(name, value)
        settings = load_settings()
        lake = Lake(settings.home.lake)
        lake.prepare(tuple(all_tables().values()), None)
        for vendor in vendor_names():
            _load(vendor, settings, lake, home)
    return settings, lake


def _load(vendor: str, settings: Settings, lake: Lake, home: Path) -> None:
    clock = SystemClock()
    ledger = Ledger.open(home / f"{vendor}.db", clock)
    landing = Landing(settings.home.landing, clock=clock)
    fetcher = Fetcher(landing=landing, lake=lake, run_id="r", specs_by_name=all_tables(), clock=clock)
    resource = vendor_resource(vendor)
    for site in settings.sites_with(vendor):
        ids: Mapping[str, str] = site.ids(vendor) or {}
        context = SiteContext(key=site.key, timezone=site.timezone, ids=ids)
        for stream in streams_of(vendor):
            days = _days() if stream.span != "snapshot" else [clock.now().date()]
            outcome = fetcher.run(stream, context, days, connect=lambda ids=ids: resource.connect(ids, ledger))
            assert outcome.error is None, outcome.error
            assert outcome.deferred is None


def _days() -> list[date]:
    return [FIRST_DAY + timedelta(days=number) for number in range(DAYS)]


@pytest.mark.parametrize("vendor", vendor_names())
def test_rows_of_the_wire_hold_but_for_the_planted_story(vendor: str, loaded: tuple[Settings, Lake]) -> None:
    settings, lake = loaded
    failed: list[tuple[str, str, tuple[date, ...]]] = []
    rows = 0
    for site in settings.sites:
        for check in checks_of(vendor):
            spec = tables_of(vendor)[check.table]
            frame = lake.frame(spec, site.key, lake.days(spec, site.key))
            found = check.run(frame)
            tells_no_value(found)
            rows += len(frame)
            if not found.passed:
                failed.append((site.key, check.name, found.failing_days))
    assert rows > 0
    story = [("blog", "duration_unit_is_uniform", (date(2026, 10, 26),))]
    assert failed == (story if vendor == "inspectlet" else [])


# ------------------------------------------------------------------------------------------- counted when it was landed

COUNTS_INSIDE_A_RECORD = {"smartlook/event_daily", "smartlook/funnels"}
"""Their pages hold one record, and `Page.records` counts the entries of its histogram or its steps."""


def test_every_table_is_counted_but_those_whose_pages_count_something_else() -> None:
    assert {name for name, spec in all_tables().items() if not spec.is_counted} == COUNTS_INSIDE_A_RECORD


@pytest.mark.parametrize("name", sorted(set(all_tables()) - COUNTS_INSIDE_A_RECORD))
def test_a_decoder_that_drops_a_pages_first_record_is_noticed(
    loaded: tuple[Settings, Lake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The seeded fault, on pages that came over the wire: nothing is written, and the fault is named as the decoder's.

    Without the fault the same pages are whole: what was counted on receipt is what the decoder finds.
    """
    settings, _ = loaded
    spec = all_tables()[name]
    stream = next(stream for stream in streams_of(spec.vendor) if spec in stream.tables)
    landing = Landing(settings.home.landing)
    batches = [batch for site in settings.site_keys for batch in landing.batches(spec.vendor, stream.name, site)]
    counted = {batch: [page.records for page in batch.index() if page.call_kind in spec.calls] for batch in batches}
    (batch, *_) = [batch for batch, pages in counted.items() if any(pages)]
    lake = Lake(tmp_path / "lake")
    assert lake.decode(spec, [(batch, batch.days)], site=batch.site)

    for decoder in (staging, streamed_table):
        monkeypatch.setattr(decoder, "raw_records", lambda *given, **named: raw_records(*given, **named)[1:])
    with pytest.raises(LandingCorrupt, match=f"{name} gives .* fault of the decoder"):
        Lake(tmp_path / "again").decode(spec, [(batch, batch.days)], site=batch.site)
    assert not list((tmp_path / "again").rglob("part.parquet"))
