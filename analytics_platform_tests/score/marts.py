"""From a world to its marts, through everything between: sandbox over HTTP, clients, landing, lake, one dbt build.

Belongs here: filling a home and building its warehouse. Does not belong here: the worlds (`worlds`), what is read from
the warehouse (`figures`).

Nothing waits: the ledger counts on a clock that is turned instead of slept on, and the sandbox's limits are lifted.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.fetch import Fetcher, SiteContext
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.quota import Ledger
from analytics_platform.core.resources import open_ledger
from analytics_platform.core.streams import Stream
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.settings import Settings, Site, load_settings
from analytics_platform.transform.assets import prepare_lake
from analytics_platform.transform.project import PROJECT_DIRECTORY, dbt_executable
from analytics_platform.vendors import all_tables, streams_of, vendor_resource
from analytics_platform_tests.score.worlds import ScoredWorld

__all__ = ["build_warehouse", "fill_home", "has_model", "home_environment"]

_RECORDINGS: Final = ("smartlook/sessions", "inspectlet/sessions")
_STREAMS: Final = {
    "effects": (*_RECORDINGS, "pirsch/daily_stats", "pirsch/reports"),
    "breaks": (*_RECORDINGS, "pirsch/daily_stats"),
    "experiments": (*_RECORDINGS, "pirsch/daily_stats", "kameleoon/visits"),
}
"""What is fetched of a world, by its purpose: nothing that no judged mart reads."""

_UNLIMITED: Final[dict[str, dict[str, Any]]] = {
    "smartlook": {"hourly_limit": 10**9},
    "kameleoon": {"gets_per_second": 1e9, "others_per_second": 1e9},
}
_VENDORS: Final = ("smartlook", "inspectlet", "pirsch", "kameleoon")
_BUILD_SECONDS: Final = 900


def fill_home(home: Path, worlds: Sequence[ScoredWorld]) -> None:
    """Fetch every world into the home's lake. The home's sites.yaml names the sites of all of them.

    Raises:
        RuntimeError: a stream failed.
    """
    home.mkdir(parents=True, exist_ok=True)
    blocks: list[dict[str, Any]] = []
    for scored in worlds:
        profiles = {name: {**_UNLIMITED.get(name, {}), **scored.profiles.get(name, {})} for name in _VENDORS}
        with Sandbox(scored.world, profiles=profiles, vendors=_VENDORS) as sandbox:
            mine = [_block(block, scored) for block in yaml.safe_load(sandbox.sites_yaml())["sites"]]
            blocks += mine
            (home / "sites.yaml").write_text(yaml.safe_dump({"sites": blocks}, sort_keys=False), encoding="utf-8")
            with home_environment(home, sandbox.environment()):
                settings = load_settings()
                _fetch(settings, scored, [settings.site(block["key"]) for block in mine])
    with home_environment(home):
        prepare_lake(load_settings())


def _block(block: dict[str, Any], scored: ScoredWorld) -> dict[str, Any]:
    """A site as the score reads it: without vendors that have nothing to say about it."""
    vendors = {name: ids for name, ids in block["vendors"].items() if name in _VENDORS}
    if scored.panel_share:
        vendors["kameleoon"]["visitor_sample"] = scored.panel_share
    else:
        del vendors["kameleoon"]
    return {**block, "vendors": vendors}


@contextmanager
def home_environment(home: Path, variables: dict[str, str] | None = None) -> Iterator[None]:
    """The environment of a home, and these variables, for the time being."""
    before = dict(os.environ)
    os.environ.update(variables or {})
    os.environ.update(ANALYTICS_PLATFORM_HOME=str(home), ANALYTICS_PLATFORM_CONFIG=str(home / "sites.yaml"))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _fetch(settings: Settings, scored: ScoredWorld, sites: Sequence[Site]) -> None:
    fetcher = Fetcher(
        landing=Landing(settings.home.landing),
        lake=Lake(settings.home.lake),
        run_id="score",
        specs_by_name=all_tables(),
    )
    clock = ManualClock(datetime.now(UTC))
    with open_ledger(settings, clock) as ledger:
        for name in _STREAMS[scored.purpose]:
            vendor = name.partition("/")[0]
            stream = next(one for one in streams_of(vendor) if one.qualified_name == name)
            for site in sites:
                _run(fetcher, stream, site, scored, ledger, clock)


def _run(fetcher: Fetcher, stream: Stream, site: Site, scored: ScoredWorld, ledger: Ledger, clock: ManualClock) -> None:
    ids = site.ids(stream.vendor) or {}
    context = SiteContext(key=site.key, timezone=site.timezone, ids=ids)
    resource = vendor_resource(stream.vendor)
    while True:
        outcome = fetcher.run(stream, context, scored.days, connect=lambda: resource.connect(ids, ledger))
        if outcome.error:
            raise RuntimeError(f"{stream.qualified_name} {site.key}: {outcome.error}")
        if outcome.deferred is None:
            return
        if outcome.deferred.resume_at is None:
            raise RuntimeError(f"{stream.qualified_name} {site.key}: {outcome.deferred.reason}")
        clock.advance(max(1.0, (outcome.deferred.resume_at - clock.now()).total_seconds()))


def has_model(name: str) -> bool:
    """Whether the dbt project has this model."""
    return any((PROJECT_DIRECTORY / "models").rglob(f"{name}.sql"))


def build_warehouse(home: Path, worlds: Sequence[ScoredWorld], models: Sequence[str]) -> Path:
    """One dbt build of these models and all they are made of, without tests; the warehouse's file.

    Raises:
        RuntimeError: dbt failed; its last lines.
    """
    zones = {
        site.key: scored.world.domain_timezone(site)
        for scored in worlds
        for site in scored.world.sites
        if scored.world.domain_timezone(site) != site.timezone
    }
    with home_environment(home):
        settings = load_settings()
        settings.home.warehouse.parent.mkdir(parents=True, exist_ok=True)
        command = [
            *(dbt_executable(), "build", "--quiet", "--exclude-resource-type", "unit_test", "test"),
            *("--project-dir", str(PROJECT_DIRECTORY), "--profiles-dir", str(PROJECT_DIRECTORY)),
            *("--target-path", str(settings.home.dbt_target), "--log-path", str(settings.home.dbt_target)),
            *("--vars", json.dumps({"anchor_timezones": zones})),
            *("--select", " ".join(f"+{model}" for model in models)),
        ]
        environment = {
            **os.environ,
            "ANALYTICS_PLATFORM_LAKE": str(settings.home.lake),
            "ANALYTICS_PLATFORM_WAREHOUSE": str(settings.home.warehouse),
            "DBT_NO_COLORS": "1",
        }
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=_BUILD_SECONDS
        )
    if done.returncode:
        lines = f"{done.stdout}\n{done.stderr}".strip().splitlines()
        raise RuntimeError("dbt failed:\n" + "\n".join(lines[-15:]))
    return settings.home.warehouse
