"""The `ui` verb: its port, its one line, and its end."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from analytics_platform.core.errors import ConfigurationError
from analytics_platform.ui import HOST, free_port
from analytics_platform_tests.ui.running_ui import RunningUi, first_line, processes_of, start_ui, wait_until


@pytest.fixture
def empty_home(tmp_path: Path) -> Path:
    (tmp_path / "sites.yaml").write_text("sites: []\n", encoding="utf-8")
    return tmp_path


def test_a_port_is_held_before_it_is_served() -> None:
    with free_port(0) as listener:
        second = free_port(listener.getsockname()[1])
        with pytest.raises(ConfigurationError, match="choose a port"):
            second.__enter__()


def test_a_busy_port_is_said_at_once(empty_home: Path) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        number = taken.getsockname()[1]
        process = start_ui(
            empty_home, {"ANALYTICS_PLATFORM_CONFIG": str(empty_home / "sites.yaml")}, "--port", str(number)
        )
        out, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert out == ""
    assert f"Port {number}" in err
    assert "--port" in err
    assert "Traceback" not in err
    assert not (empty_home / "dagster").exists(), "nothing was started"


def test_killed_it_leaves_no_process_and_says_one_line(empty_home: Path) -> None:
    """kill -9 of the parent: nobody is left to end the children but the watchdog."""
    process = start_ui(empty_home, {"ANALYTICS_PLATFORM_CONFIG": str(empty_home / "sites.yaml")})
    try:
        running = RunningUi(process, empty_home, first_line(process, empty_home))
        assert str(empty_home / "logs" / "ui.log") in running.first_line
        assert running.request("GET", "/server_info")[0] == 200
        assert len(processes_of(empty_home)) >= 4
        process.send_signal(signal.SIGKILL)
        out, err = process.communicate(timeout=20)
        assert (out, err) == ("", "")
        wait_until(lambda: processes_of(empty_home) == [], seconds=20, what="every child ends")
    finally:
        process.kill()
        process.communicate()
