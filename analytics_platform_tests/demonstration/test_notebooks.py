"""The notebooks that come with the platform: they run on the demo, to the last cell, and show text and pictures."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from analytics_platform.catalog import Catalog
from analytics_platform.cli import app
from analytics_platform.notebook_cli import command_of, notebooks
from analytics_platform.reconcile.pictures import Picture
from analytics_platform.settings import HOME_VARIABLE

CANARIES = ("@example.org", "accessResourceKey", "dashboard", "100.64.")


def _run(path: Path) -> tuple[Any, dict[str, Any]]:
    spec = importlib.util.spec_from_file_location(f"notebook_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    outputs, definitions = module.app.run()
    return outputs, dict(definitions)


@pytest.mark.parametrize("name", sorted(notebooks()))
def test_a_notebook_is_a_finished_page(name: str, demonstrated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(demonstrated))
    outputs, _ = _run(notebooks()[name])
    shown = [output for output in outputs if output is not None]
    texts = [output.text for output in shown if hasattr(output, "text")]
    assert sum("<h1" in text for text in texts) == 1
    assert sum(isinstance(output, Picture) for output in shown) >= 1
    frames = [output for output in shown if hasattr(output, "columns")]
    assert frames
    assert all(len(frame) for frame in frames)
    page = "\n".join([*texts, *(frame.to_string() for frame in frames)])
    assert not [canary for canary in CANARIES if canary in page]


def test_the_disagreement_is_taken_apart_where_it_broke(demonstrated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(demonstrated))
    _, found = _run(notebooks()["why_do_they_disagree"])
    assert (found["vendor"], str(found["stat_date"])) == ("smartlook", "2026-10-24")
    assert found["gap"].causes[0].component == "sampling"


def test_the_verb_lists_them_and_opens_them_on_loopback_only(demonstrated: Path) -> None:
    listed = CliRunner().invoke(app, ["notebook", "--json"])
    assert list(json.loads(listed.stdout)) == ["first_look", "why_do_they_disagree", "funnel_to_replay"]
    command = command_of(notebooks()["first_look"], edit=True, port=2718)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert "--skip-update-check" in command
    assert Catalog.open(demonstrated)
