"""The guard that makes "nothing beyond loopback" a fact about this suite, in this process and in its children."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from analytics_platform_tests.network_guard import sitecustomize

ATTEMPT = "import socket; socket.create_connection(('192.0.2.1', 9), timeout=0.2)"


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Attempts made on purpose are written elsewhere, so that they do not fail the session."""
    path = tmp_path / "refused"
    monkeypatch.setenv(sitecustomize.REFUSED_VARIABLE, str(path))
    return path


def test_a_foreign_address_is_refused_and_remembered(refused: Path) -> None:
    with socket.socket() as tried, pytest.raises(OSError, match="beyond loopback"):
        tried.connect(("192.0.2.1", 9))
    assert "192.0.2.1" in refused.read_text()


def test_a_foreign_name_is_not_even_looked_up(refused: Path) -> None:
    with pytest.raises(OSError, match="beyond loopback"):
        socket.getaddrinfo("telemetry.invalid", 443)
    assert "telemetry.invalid" in refused.read_text()


def test_child_processes_are_guarded(refused: Path) -> None:
    child = subprocess.run([sys.executable, "-c", ATTEMPT], capture_output=True, text=True, env=dict(os.environ))
    assert child.returncode != 0
    assert "beyond loopback" in child.stderr
    assert "192.0.2.1" in refused.read_text()


def test_loopback_works() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        with socket.create_connection(("localhost", server.getsockname()[1]), timeout=5):
            pass
