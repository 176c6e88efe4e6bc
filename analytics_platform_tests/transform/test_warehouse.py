"""Connections to the warehouse and to snapshots, as a person at a terminal meets them."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

ASK = """
from analytics_platform.core.lake import connect
from analytics_platform.settings import load_settings
from analytics_platform.transform.warehouse import open_reader, warehouse_connection

def told(connection):
    return connection.execute("SELECT current_setting('enable_progress_bar')").fetchall()[0][0]

import duckdb
with open_reader() as reader, warehouse_connection(load_settings()) as warehouse:
    found = [told(duckdb.connect()), told(connect()), told(connect().cursor()), told(reader), told(warehouse)]
print("drawn:", *found)
"""


def test_no_connection_draws_a_progress_bar(tmp_path: Path) -> None:
    """DuckDB draws one where it finds a shell or a notebook; a program given with -c on a terminal is one to it."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "ANALYTICS_PLATFORM_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", ASK], stdin=theirs, stdout=theirs, env=environment) as asked:
        os.close(theirs)
        shown = b""
        while b"\n" not in shown:
            shown += os.read(ours, 4096)
        os.close(ours)
    assert asked.returncode == 0
    assert shown.decode().split() == ["drawn:", "True", "False", "False", "False", "False"], "DuckDB's own first"
