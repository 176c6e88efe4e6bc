"""The request file: what was asked, in clear, readable by its owner only, for as long as the erasure takes.

Belongs here: reading and writing `erasure/<name>.json` of a home. Does not belong here: finding or removing anything.

The keys stay in clear until the end, on purpose. The lake's rows that led from an e-mail to visitor codes are gone
after the first half of the work; without the list the second half could not be done, and a key hidden by another key
beside it hides nothing. So the file is 0600, is the one place that holds them, is named by every message that asks to
go on, and is removed when nothing is left to do.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Final

import msgspec

from analytics_platform.core.durable import fsync_directory
from analytics_platform.core.errors import ConfigurationError
from analytics_platform.core.tables import normalised_key
from analytics_platform.core.tombstones import Key, write_private
from analytics_platform.settings import Home

__all__ = ["Request", "RequestStore", "confirmation_words", "parse_keys"]

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_PRIVATE: Final = 0o077


class VendorState(msgspec.Struct, kw_only=True):
    """How far one vendor is at one site: confirmed, accepted, pending or off; a reason in words; when."""

    vendor: str
    site: str
    state: str
    reason: str = ""
    keys: int = 0
    at: datetime | None = None


class Request(msgspec.Struct, kw_only=True):
    """One person to forget. Written by hand, only `keys` is needed: `{"keys": ["email=ada@example.org"]}`.

    Args:
        keys: `kind=value`, as given.
        sites: only these sites; empty means everywhere.
        also_at: vendors whose own data is deleted besides those that offer erasure.
        local_only: ask no vendor.
        maximum_keys: see `person.find_person`.
        found: the person's keys as [kind, value, site], and leaves, once they are known.
        days: [vendor, site, day] of the lake partitions the person was in.
        before: records and rows by store and table when the request was begun.
        hits_before: files by store in which a search found the person then.
        built: the marts were built again since the lake was stripped.
        runs: Dagster runs that were started for it; one that was killed still holds its pool's slot.
        vendors: how far each vendor is.
        requested_at: UTC.
    """

    keys: list[str] = []
    sites: list[str] = []
    also_at: list[str] = []
    local_only: bool = False
    maximum_keys: int = 0
    found: list[tuple[str, str, str | None]] | None = None
    leaves: list[tuple[str, str, str | None]] = []
    days: list[tuple[str, str, date]] = []
    before: dict[str, int] = {}
    hits_before: dict[str, int] = {}
    built: bool = False
    runs: list[str] = []
    vendors: list[VendorState] = []
    requested_at: datetime | None = None

    def __repr__(self) -> str:
        """Without the keys."""
        return f"Request({len(self.keys)} keys)"


def parse_keys(texts: Iterable[str], kinds: Iterable[str]) -> list[tuple[str, str]]:
    """(kind, value) of `kind=value` texts.

    Raises:
        ConfigurationError: not that form, or a kind no table knows. Says the kind, never the value.
    """
    known = sorted(set(kinds))
    found = []
    for text in texts:
        kind, equals, value = text.partition("=")
        kind, value = kind.strip(), value.strip()
        if not equals or not value or kind not in known:
            said = f"kind {kind!r}" if equals and re.fullmatch(r"[a-z_]{1,40}", kind) else "a key without a kind"
            raise ConfigurationError(
                f"A person's key cannot be used: {said}.", f"Write kind=value; kinds are {', '.join(known)}."
            )
        found.append((kind, normalised_key(kind, value)))
    if not found:
        raise ConfigurationError("There is no key: nobody to forget.", f"Give one of {', '.join(known)}.")
    return list(dict.fromkeys(found))


def confirmation_words(persons: int = 1) -> str:
    """The words that confirm an erasure."""
    return f"forget {persons} person"


class RequestStore:
    """The request files of one home."""

    def __init__(self, home: Home) -> None:
        self.folder = home.root / "erasure"

    def path(self, name: str) -> Path:
        """Raises ConfigurationError for a name that could leave the folder."""
        if not _NAME.fullmatch(name):
            raise ConfigurationError("This is not the name of an erasure request.", "Names are [a-z0-9][a-z0-9_-]*.")
        return self.folder / f"{name}.json"

    def create(self, request: Request) -> str:
        """Write a new request; returns its name, which says nothing about the person."""
        name = f"forget-{secrets.token_hex(4)}"
        self.save(name, request)
        return name

    def save(self, name: str, request: Request) -> None:
        """Replace the request durably, 0600."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(self.path(name), msgspec.json.encode(request))

    def load(self, name: str) -> Request:
        """Read a request, also one written by hand.

        Raises:
            ConfigurationError: there is none of this name, others can read it, or it is not a request.
        """
        path = self.path(name)
        try:
            mode = path.stat().st_mode
            content = path.read_bytes()
        except FileNotFoundError:
            raise ConfigurationError(
                f"There is no erasure request {name!r}.",
                "It is removed when everything is done: see receipts/ in the home.",
            ) from None
        if mode & _PRIVATE:
            raise ConfigurationError(
                f"Other users can read the erasure request {name!r}.", f"chmod 600 {path.name}, then run it again."
            )
        try:
            return msgspec.json.decode(content, type=Request)
        except msgspec.MsgspecError:
            raise ConfigurationError(
                f"The erasure request {name!r} cannot be read.", "See docs/erasure.md for its form."
            ) from None

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the home's erasures for this process: two would free each other's runs.

        Raises:
            ConfigurationError: another process is at it.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise ConfigurationError(
                "Another process is forgetting somebody in this home.", "Wait for it, then run this again."
            ) from None
        finally:
            os.close(descriptor)

    def remove(self, name: str) -> None:
        """Overwrite and remove the request."""
        path = self.path(name)
        if not path.exists():
            return
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.write(b"\0" * size)
            file.flush()
        path.unlink()
        fsync_directory(self.folder)

    def open_names(self) -> list[str]:
        """Requests that are not finished."""
        return sorted(path.stem for path in self.folder.glob("[!.]*.json"))


def keys_of(found: Iterable[tuple[str, str, str | None]]) -> set[Key]:
    """Keys as they stand in a request."""
    return {Key(kind, value, site) for kind, value, site in found}
