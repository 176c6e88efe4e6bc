"""The newcomer's five minutes in a browser: graph, a mart's plots, a failing check, Data Docs, the first notebook.

`ANALYTICS_PLATFORM_SCREENS=folder` keeps the pictures, for a person to look at.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from analytics_platform.notebook_cli import command_of, notebooks
from analytics_platform_tests.demo_home import shell_environment
from analytics_platform_tests.ui.browser import assert_drawn, browse, browse_live
from analytics_platform_tests.ui.running_ui import RunningUi, running_ui, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def ui(demonstrated: Path) -> Iterator[RunningUi]:
    with running_ui(demonstrated, {}) as running:
        yield running


def test_the_asset_graph(ui: RunningUi, tmp_path: Path) -> None:
    page = browse(f"http://127.0.0.1:{ui.port}/asset-groups", tmp_path, name="asset_graph")
    assert "Global asset lineage" in page.dom
    assert_drawn(page)


@pytest.mark.parametrize(
    ("mart", "height"),
    [("fct_vendor_reconciliation", 2600), ("fct_reconciliation_waterfall", 2400), ("fct_funnel_daily", 2600)],
)
def test_a_mart_shows_its_plots(ui: RunningUi, tmp_path: Path, mart: str, height: int) -> None:
    page = browse(f"http://127.0.0.1:{ui.port}/assets/{mart}?view=overview", tmp_path, name=mart, height=height)
    assert "plot_shop" in page.dom
    assert "One row per" in page.dom
    assert_drawn(page, height=height)


def test_a_failing_check_explains_itself(ui: RunningUi, tmp_path: Path) -> None:
    check = "/assets/inspectlet/sessions?view=checks&checkDetail=duration_unit_is_uniform"
    page = browse(f"http://127.0.0.1:{ui.port}{check}", tmp_path, name="failing_check")
    assert "duration_unit_is_uniform" in page.dom
    assert "Failed" in page.dom
    assert "2026-10-26" in page.dom
    assert_drawn(page)


def test_data_docs_are_served_beside_the_graph(ui: RunningUi, tmp_path: Path) -> None:
    index = browse(f"http://127.0.0.1:{ui.port}/data-docs/index.html", tmp_path, name="data_docs", height=1400)
    assert "Data quality of the lake" in index.dom
    assert "smartlook/sessions/shop.html" in index.dom
    page = browse(f"http://127.0.0.1:{ui.port}/data-docs/smartlook/sessions/shop.html", tmp_path, name="data_docs_page")
    assert "smartlook/sessions rows: ✓ passed" in page.dom
    assert_drawn(page)


def test_the_first_notebook(demonstrated: Path, tmp_path: Path) -> None:
    with _served(demonstrated, "first_look") as port:
        texts = ("First look", "Sessions a day", "When people come", "Where to go from here")
        page = browse_live(f"http://127.0.0.1:{port}/", tmp_path, name="notebook", until=texts, pictures=2, height=1800)
    assert_drawn(page, height=1800)


@contextmanager
def _served(home: Path, name: str) -> Iterator[int]:
    """A notebook as the verb serves it, without opening somebody's browser."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [*command_of(notebooks()[name], edit=False, port=port), "--headless", "--no-token"]
    process = subprocess.Popen(command, env=shell_environment(home), stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: _answers(port), seconds=60, what="the notebook answers")
        yield port
    finally:
        process.terminate()
        process.wait(timeout=20)


def _answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
