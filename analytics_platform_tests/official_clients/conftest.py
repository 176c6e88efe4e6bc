"""Where the official clients are, and a child for each.

Belongs here: finding what `make test-clients` installed, and saying so when it is not there. Does not belong here: the
line protocol (`official_client`), expectations.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from analytics_platform_tests.official_clients.official_client import OfficialClient

_HERE = Path(__file__).parent
_INSTALLED = _HERE.parent.parent / ".clients"
_MUST_BE_THERE = os.environ.get("ANALYTICS_PLATFORM_REQUIRE_CLIENTS") == "1"
"""Read at import: a fixture clears the platform's variables for tests."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is marked; `make test` leaves it out, `make test-clients` runs nothing else."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.official_clients)


def _absent(what: str) -> None:
    reason = f"{what} is not there: run `make test-clients`, which installs it"
    if _MUST_BE_THERE:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The installed packages of `package-lock.json`."""
    if shutil.which("node") is None:
        _absent("node")
    installed = _INSTALLED / "node"
    if not (installed / ".installed").exists():
        _absent(f"{installed.name}/ of the official JavaScript clients")
    return installed / "node_modules"


@pytest.fixture(scope="module")
def run_node(
    node_modules: Path, only_loopback: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], OfficialClient]]:
    """Start one of the scripts here in Node, kept on loopback; it ends with the module."""
    with ExitStack() as children:

        def start(script: str) -> OfficialClient:
            command = ["node", "--require", str(_HERE / "loopback_only.cjs"), str(_HERE / script)]
            child = OfficialClient(
                command,
                environment={"NODE_PATH": str(node_modules)},
                errors=tmp_path_factory.mktemp("node") / "errors",
            )
            return children.enter_context(child)

        yield start


@pytest.fixture(scope="module")
def run_python(
    only_loopback: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], OfficialClient]]:
    """Start one of the scripts here in the environment of the vendor's Python client; it ends with the module."""
    installed = _INSTALLED / "python"
    if not (installed / ".installed").exists():
        _absent("the environment of the official Python client")
    with ExitStack() as children:

        def start(script: str) -> OfficialClient:
            child = OfficialClient(
                [str(installed / "bin" / "python"), str(_HERE / script)],
                environment={"PYTHONDONTWRITEBYTECODE": "1"},
                errors=tmp_path_factory.mktemp("python") / "errors",
            )
            return children.enter_context(child)

        yield start
