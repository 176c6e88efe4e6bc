"""The disk is full: each store says so in words, shows nothing half-written, and goes on when there is space again.

RELIABILITY H16, on a real file system of 12 MB that is really full (`mount -t tmpfs`, which needs root; skipped where
it is refused). What an error looks like without a disk is tested beside each module.
"""

from __future__ import annotations

import errno
import hashlib
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from analytics_platform.catalog import Catalog
from analytics_platform.core.clock import SystemClock
from analytics_platform.core.errors import StorageError
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Batch, Landing
from analytics_platform.core.paging import Page
from analytics_platform.core.quota import AccountMeter, Ledger, QuotaPolicy, Window, account_key
from analytics_platform.core.tables import Column, TableSpec
from analytics_platform.transform.publish import Build, publish, published_version, record_build
from analytics_platform_tests.transform.synthetic import build_warehouse, manifest, warehouse_with_lake

DAY = date(2026, 10, 5)
THINGS = TableSpec(
    vendor="acme",
    name="things",
    description="Things.",
    wire={"id": "VARCHAR"},
    records=("things",),
    calls=("things",),
    key=("id",),
    day=f"DATE '{DAY}'",
    columns=(Column(name="id", type="VARCHAR", description="Id."),),
)


class Disk:
    """A small file system and the means to have none of it left."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._filler = root / "filler"

    def fill(self) -> None:
        with self._filler.open("ab", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1 << 9, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def free(self) -> None:
        self._filler.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    root = tmp_path / "disk"
    root.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(root)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.strip()}")
    try:
        yield Disk(root)
    finally:
        # Lazily: a store that still has a file open must not keep the folder for ever.
        subprocess.run(["umount", "--lazy", str(root)], check=True)


def refuses(do: Callable[[], object]) -> None:
    """It ends with the typed error, and its text says what is wrong and what to do."""
    with pytest.raises(StorageError) as caught:
        do()
    assert "space" in str(caught.value)
    assert " Next: " in str(caught.value)


def page(sequence: int, ids: list[str], *, is_last: bool = False) -> Page:
    things = ",".join(f'{{"id":"{id_}"}}' for id_ in ids)
    return Page(
        call="things",
        call_kind="things",
        sequence=sequence,
        is_last=is_last,
        body=f'{{"things":[{things}]}}'.encode(),
        status=200,
        endpoint="GET /things",
        received_at=datetime.now(UTC),
        context={"day": str(DAY)},
        records=len(ids),
        attempts=1,
    )


def incompressible(count: int) -> list[str]:
    return [hashlib.sha256(str(n).encode()).hexdigest() for n in range(count)]


def land(landing: Landing, pages: list[Page], *, fresh: bool = False) -> Batch:
    with landing.open_batch(
        vendor="acme", stream="things", site="shop", first_day=DAY, last_day=DAY, run_id="run", fresh=fresh
    ) as writer:
        for one in pages[len(writer.landed) :]:
            writer.append(one)
        return writer.complete()


def test_landing(disk: Disk) -> None:
    landing = Landing(disk.root / "landing")
    pages = [page(0, ["a"]), page(1, incompressible(2000)), page(2, ["z"], is_last=True)]
    with landing.open_batch(
        vendor="acme", stream="things", site="shop", first_day=DAY, last_day=DAY, run_id="run"
    ) as writer:
        writer.append(pages[0])
        disk.fill()
        refuses(lambda: writer.append(pages[1]))
    refuses(lambda: land(landing, pages))
    (batch,) = landing.batches("acme", "things", "shop")
    assert not batch.is_complete
    assert [line.sequence for line in batch.index()] == [0]
    disk.free()
    batch = land(landing, pages)
    assert [body for _, body in batch.pages()] == [one.body for one in pages]
    assert [path.name for path in batch.path.iterdir() if path.name.endswith(".tmp")] == []


def test_lake(disk: Disk) -> None:
    landing, lake = Landing(disk.root / "landing"), Lake(disk.root / "lake")
    lake.ensure_anchor(THINGS)
    old = land(landing, [page(0, ["a", "b"], is_last=True)])
    lake.decode(THINGS, [(old, [DAY])], site="shop")
    new = land(landing, [page(0, incompressible(20_000), is_last=True)], fresh=True)
    partition = lake.partition_path(THINGS, "shop", DAY)
    before = partition.read_bytes()
    disk.fill()
    refuses(lambda: lake.decode(THINGS, [(new, [DAY])], site="shop"))
    refuses(lambda: lake.block(THINGS, "shop", failing=[DAY], passing_days=[]))
    assert partition.read_bytes() == before
    assert list((lake.root / ".scratch").glob("decode-*")) == []
    assert lake.blocked() == []
    disk.free()
    (written,) = lake.decode(THINGS, [(new, [DAY])], site="shop")
    assert written.rows == 20_000
    lake.block(THINGS, "shop", failing=[DAY], passing_days=[])
    assert lake.blocked() == [("acme", "things", "shop", DAY)]
    assert list(lake.root.rglob("*.tmp")) == []


def test_warehouse_and_publish(disk: Disk) -> None:
    settings = warehouse_with_lake(disk.root)
    publish(settings, manifest=manifest())
    build_warehouse(settings, sessions=60)
    build = Build(first_day=DAY, last_day=DAY, started_at=datetime.now(UTC), inputs="x")
    disk.fill()
    refuses(lambda: publish(settings, manifest=manifest()))
    refuses(lambda: record_build(settings, build))
    assert published_version(settings) == 1
    assert len(Catalog.open(disk.root).read("fct_sessions")) == 6
    disk.free()
    record_build(settings, build)
    made = publish(settings, manifest=manifest())
    assert (made.version, made.builds) == (2, (build,))
    assert len(Catalog.open(disk.root).read("fct_sessions")) == 60
    left = {path.name for path in settings.home.published.iterdir()}
    assert left == {".lock", "current", "v=1", "v=2"}


def test_ledger(disk: Disk) -> None:
    """Nothing is sent that could not be counted."""
    policy = QuotaPolicy(account=account_key("acme", "disk"), windows={"any": (Window(1_000_000, 3600.0),)})
    with Ledger.open(disk.root / "ledger.db", SystemClock()) as ledger:
        meter = AccountMeter(ledger, policy)

        def ask() -> None:
            meter.acquire(method="GET", endpoint="GET /things")

        ask()
        disk.fill()
        sent = 0

        def ask_until_refused() -> None:
            nonlocal sent
            for _ in range(10_000):
                ask()
                sent += 1

        refuses(ask_until_refused)
        disk.free()
        ask()
        counted = sum(item.requests for item in ledger.spent(vendor="acme"))
    assert counted == sent + 2
    with Ledger.open(disk.root / "ledger.db", SystemClock()) as again:
        assert sum(item.requests for item in again.spent(vendor="acme")) == sent + 2
