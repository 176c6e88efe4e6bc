"""Node's half of the network guard refuses what Python's refuses.

Belongs here: that the guard guards. Does not belong here: a vendor.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

GUARD = Path(__file__).parent / "loopback_only.cjs"


@pytest.mark.parametrize(
    "attempt",
    [
        'fetch("http://example.invalid/")',
        'fetch("http://192.0.2.1/")',
        'new Promise((_, no) => require("node:http").get("http://localhost/").on("error", no))',
        'require("node:dns").promises.lookup("example.invalid")',
        'new Promise((yes, no) => require("node:dns").resolve4("example.invalid", (e) => (e ? no(e) : yes())))',
        'new Promise((_, no) => require("node:net").connect(443, "192.0.2.1").on("error", no))',
    ],
)
def test_node_is_kept_on_loopback(attempt: str, node_modules: Path, tmp_path: Path) -> None:
    refused = tmp_path / "refused"
    script = (
        f"(async () => {attempt})().then(() => process.exit(0), (error) => {{"
        "console.log(error.cause?.message ?? error.message); process.exit(3); });"
    )
    ended = subprocess.run(
        ["node", "--require", str(GUARD), "-e", script],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={"PATH": os.environ["PATH"], "ANALYTICS_PLATFORM_TESTS_REFUSED": str(refused)},
    )
    assert (ended.returncode, "beyond loopback" in ended.stdout) == (3, True), ended
    assert refused.read_text(encoding="utf-8").startswith("node ")
