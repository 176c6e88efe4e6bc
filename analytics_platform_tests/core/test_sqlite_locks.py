"""A store that one process has open twice, while another process opens and leaves it.

POSIX drops all locks of a process on a file when it closes any descriptor of it. A store that opened its file by hand
took the locks from its own other connection, and the next process to leave deleted the write-ahead log as the last one:
five requests were gone from the ledger, and a demo stopped with SQLITE_IOERR_SHORT_READ beside a `plan`.
"""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.outbox_store import OutboxStore
from analytics_platform.core.quota import Ledger
from analytics_platform.core.quota_policy import Window

NOON = datetime(2026, 10, 5, 12, tzinfo=UTC)
WINDOWS = (Window(1000, 3600.0),)
# As any other process with SQLite does: connect, read, leave.
READ_AND_LEAVE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
connection.close()
"""


def another_process_leaves(path: Path) -> None:
    subprocess.run([sys.executable, "-I", "-c", READ_AND_LEAVE, str(path)], check=True, timeout=60)


def test_the_ledger_keeps_its_log_when_another_process_leaves(tmp_path: Path) -> None:
    path, clock = tmp_path / "ledger.db", ManualClock(NOON)
    with Ledger.open(path, clock) as ledger:
        ledger.acquire("acme:1", "any", WINDOWS, "GET /x", max_wait_seconds=1)
        with Ledger.open(path, clock) as again:
            again.acquire("acme:1", "any", WINDOWS, "GET /x", max_wait_seconds=1)
        another_process_leaves(path)
        ledger.acquire("acme:1", "any", WINDOWS, "GET /x", max_wait_seconds=1)
        another_process_leaves(path)
        assert sum(row.requests for row in ledger.spent()) == 3
    with Ledger.open(path, clock) as later:
        assert sum(row.requests for row in later.spent()) == 3


def test_the_outbox_keeps_its_log_when_another_process_leaves(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    stores = [OutboxStore(str(path)) for _ in range(2)]
    for store in stores:
        store.write(lambda connection: connection.execute(sa.text("CREATE TABLE IF NOT EXISTS seen (n INTEGER)")))
    another_process_leaves(path)
    assert path.with_name("outbox.db-wal").exists()
    for store in stores:
        store.write(lambda connection: connection.execute(sa.text("INSERT INTO seen VALUES (1)")))
    found = stores[0].read(lambda connection: connection.execute(sa.text("SELECT count(*) FROM seen")).scalar())
    for store in stores:
        store.close()
    assert found == 2
