"""A real PostgreSQL server for the tests that need one: its own folder, a Unix socket, no port, gone afterwards.

Belongs here: finding the server's programs, starting and stopping one, an empty schema for each test. Does not belong
here: any test. Where there is no server, no driver, or no user it may run as, `unavailable()` says which.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

__all__ = ["PostgresServer", "running_server", "unavailable"]

_USER = "ledger"
_UNPRIVILEGED = ("postgres", "nobody")
# What a server loses in a power cut is not what these tests ask; a killed server keeps all this machine's kernel has.
_SETTINGS = ("listen_addresses=", "fsync=off", "shared_buffers=16MB", "max_connections=40")


def _programs() -> Path | None:
    """The folder of `initdb` and `pg_ctl`; distributions leave it out of PATH."""
    on_path = shutil.which("initdb")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: folder.parent.name)
    candidates = [Path(on_path).resolve().parent] if on_path else found[::-1]
    return next((folder for folder in candidates if (folder / "pg_ctl").exists()), None)


def _account() -> pwd.struct_passwd | None:
    """Who runs the server: this user, or, since the server refuses to run as root, somebody without rights."""
    if os.getuid() != 0:
        return pwd.getpwuid(os.getuid())
    if shutil.which("runuser") is None:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return next((known[name] for name in _UNPRIVILEGED if name in known), None)


def unavailable() -> str:
    """Why there can be no server here; empty where there can."""
    if find_spec("psycopg2") is None:
        return "the Postgres driver is not installed (the extra `postgres`)"
    if _programs() is None:
        return "no PostgreSQL server is installed"
    if _account() is None:
        return "a PostgreSQL server refuses to run as root, and there is no other user to run it as"
    return ""


@dataclass(frozen=True)
class PostgresServer:
    """One running server."""

    folder: Path
    programs: Path
    prefix: tuple[str, ...]

    def url(self, schema: str = "public") -> str:
        """SQLAlchemy's URL of a schema, as a person would put it into ANALYTICS_PLATFORM_DATABASE_URL."""
        socket, options = quote(str(self.folder), safe=""), quote(f"-csearch_path={schema}", safe="")
        return f"postgresql+psycopg2://{_USER}@/postgres?host={socket}&options={options}"

    def dsn(self) -> str:
        """The same for the driver alone."""
        return f"host={self.folder} user={_USER} dbname=postgres"

    def control(self, *arguments: str) -> None:
        """`pg_ctl`, waiting until it is done."""
        command = (str(self.programs / "pg_ctl"), "-D", str(self.folder / "data"), "-w", "-t", "60", *arguments)
        _run((*self.prefix, *command))

    def start(self) -> None:
        settings = " ".join(f"-c {setting}" for setting in (*_SETTINGS, f"unix_socket_directories={self.folder}"))
        self.control("-l", str(self.folder / "log"), "-o", settings, "start")


@contextmanager
def running_server() -> Iterator[PostgresServer]:
    """A new, empty server. Call only where `unavailable()` is empty."""
    programs, account = _programs(), _account()
    if programs is None or account is None:
        raise AssertionError(unavailable())
    # Not pytest's own folder: only its owner may look into that one. A socket's path must also be short.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        shutil.chown(folder, account.pw_uid, account.pw_gid)
        prefix = () if os.getuid() == account.pw_uid else ("runuser", "-u", account.pw_name, "--")
        initdb = ("--auth=trust", "--no-sync", "--locale=C", "--encoding=UTF8", f"--username={_USER}")
        _run((*prefix, str(programs / "initdb"), "-D", str(folder / "data"), *initdb))
        server = PostgresServer(folder=folder, programs=programs, prefix=prefix)
        server.start()
        try:
            yield server
        finally:
            server.control("-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(command: Sequence[str]) -> None:
    # Output goes nowhere: a server that keeps the pipe open would keep the test waiting.
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", timeout=90)
