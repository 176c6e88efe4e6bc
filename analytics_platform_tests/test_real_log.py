"""Real input, the whole way: a web log of 1995 replayed through the sandbox, all five vendors, the marts.

The log is not part of the project; the test skips where it is absent. The expected figures were counted from the log
itself by
an independent script. They count HEAD like GET: with GET alone the same log has 2,822 sessions and 2,229 visitors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from analytics_platform.catalog import Catalog
from analytics_platform.dagster_home import instance
from analytics_platform.runner import Runner, RunReport
from analytics_platform.sandbox.replay import read_log, replay_world
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.settings import load_settings
from analytics_platform.vendors import vendor_names

LOG = Path(__file__).parents[2] / "shared" / "real_data" / "nasa_19950801.tsv"

pytestmark = [
    pytest.mark.skipif(not LOG.is_file(), reason="the real web log is not beside this checkout"),
]


@dataclass
class Replayed:
    report: RunReport
    traffic: pd.DataFrame
    sessions: pd.DataFrame


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replayed]:
    home = tmp_path_factory.mktemp("replay")
    world = replay_world(LOG)
    with pytest.MonkeyPatch.context() as patch, Sandbox(world) as sandbox:
        for name, value in {**sandbox.environment(), "ANALYTICS_PLATFORM_HOME": str(home)}.items():
            patch.setenv(name, value)
        # A log has no more to tell than its hosts: a small panel shows that Kameleoon's path works too.
        config = sandbox.sites_yaml().replace("visitor_sample: 0.2", "visitor_sample: 0.02")
        (home / "sites.yaml").write_text(config, encoding="utf-8")
        patch.setenv("ANALYTICS_PLATFORM_CONFIG", str(home / "sites.yaml"))
        patch.setenv("DAGSTER_HOME", str(home / "dagster"))
        settings = load_settings()
        with instance(settings) as dagster:
            runner = Runner(settings, dagster)
            *_, report = runner.run(world.first_day, world.last_day, vendors=vendor_names(), sites=settings.site_keys)
        catalog = Catalog.open(home)
        assert isinstance(report, RunReport)
        yield Replayed(report, catalog.read("fct_daily_traffic"), catalog.read("fct_sessions"))


def test_the_log_is_the_one_the_figures_were_counted_from() -> None:
    assert len(read_log(LOG)) == 30_969


def test_every_vendor_and_the_marts_finish(replayed: Replayed) -> None:
    assert [(r.vendor, r.state, r.message) for r in replayed.report.vendors if r.state != "done"] == []
    assert replayed.report.marts == "done"


@pytest.mark.parametrize(
    ("vendor", "sessions", "views", "visitors", "bounce_rate"),
    [
        pytest.param("inspectlet", 2835, 8997, 2235, 0.503, id="inspectlet: 30 min idle, 24 h cap"),
        pytest.param("smartlook", 3085, 8997, 2235, 0.530, id="smartlook: 15 min idle, 60 min cap"),
        pytest.param("pirsch", 2835, 8311, 2235, 0.572, id="pirsch: 30 min idle, a reload is no view"),
    ],
)
def test_native_figures_are_the_logs(
    replayed: Replayed, vendor: str, sessions: int, views: int, visitors: int, bounce_rate: float
) -> None:
    frame = replayed.traffic.query("vendor == @vendor and basis == 'native'")
    [row] = frame.to_dict("records")
    assert (row["sessions"], row["views"], row["visitors"]) == (sessions, views, visitors)
    assert round(row["bounces"] / row["sessions"], 3) == bounce_rate
    assert row["bounce_rate"] == pytest.approx(row["bounces"] / row["sessions"])


def test_under_the_common_definition_the_vendors_agree_on_sessions(replayed: Replayed) -> None:
    frame = replayed.traffic.query("basis == 'common' and vendor in ('smartlook', 'inspectlet', 'pirsch')")
    assert dict(zip(frame["vendor"], frame["sessions"], strict=True)) == {
        "smartlook": 2835,
        "inspectlet": 2835,
        "pirsch": 2835,
    }


def test_session_rows_add_up_to_the_daily_figures(replayed: Replayed) -> None:
    counted = replayed.sessions.groupby("vendor").size()
    assert counted["inspectlet"] == 2835
    assert counted["smartlook"] == 3085
