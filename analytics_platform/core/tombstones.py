"""Who was forgotten, as keyed hashes: what later loads compare with, so that a forgotten person does not come back.

Belongs here: the tombstone file and its key, and the two ways to recognise a person's keys in a page (`ClearKeys` while
somebody is being forgotten, `HashedKeys` ever after). Does not belong here: taking records out of pages
(`core.stripping`), deciding whose keys they are (`erasure`), any vendor's name.

    tombstones/key              32 random bytes, 0600: without it the hashes say nothing and match nobody
    tombstones/tombstones.json  one entry a key: kind, site (null: every site), HMAC-SHA256 of the value, when, request
    tombstones/.lock            held while the file is replaced, and while a partition decoded before is being published

A hash without a key could be tried out for every e-mail address there is; with the key it is still pseudonymous data,
which is why the key stays in the home and is never published or logged.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple, Protocol
from urllib.parse import quote

import msgspec

from analytics_platform.core.durable import fsync_directory, make_directories, storage_errors, write_file
from analytics_platform.core.errors import StorageError
from analytics_platform.core.failpoints import passing
from analytics_platform.core.tables import WEAK_KINDS, normalised_key

__all__ = ["ClearKeys", "HashedKeys", "Key", "Tombstones", "Wanted", "any_case"]

_KEY_BYTES: Final = 32
_FOLDER: Final = "tombstones"


class Key(NamedTuple):
    """One key of a person: its kind, its value in the spelling of comparison, its site (None: the same everywhere)."""

    kind: str
    value: str
    site: str | None

    def __repr__(self) -> str:
        """Without the value: a key in a traceback or log is the data somebody asked to have removed."""
        return f"Key(kind={self.kind!r}, site={self.site!r})"


class Wanted(Protocol):
    """Recognises the keys of forgotten persons at one site."""

    def is_wanted(self, kind: str, value: str) -> bool:
        """Whether a value of this kind is a key of somebody forgotten."""
        ...

    def may_be_in(self, body: bytes) -> bool:
        """False only when no JSON text or number in the body is such a value: a quick look before a thorough one."""
        ...


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    kind: str
    site: str | None
    digest: str
    request: str
    added_at: datetime


# --------------------------------------------------------------------------------------------------------- clear keys


class ClearKeys:
    """The keys of the person who is being forgotten, in clear, in this process only."""

    def __init__(self, keys: Iterable[Key], *, site: str) -> None:
        self._values: dict[str, set[str]] = {}
        named: set[str] = set()
        for key in keys:
            if key.site in (None, site):
                compared = normalised_key(key.kind, key.value)
                self._values.setdefault(key.kind, set()).add(compared)
                named |= {key.value.strip(), compared}
        texts = {text for value in named for text in any_case(value)}
        joined = b"|".join(text.encode("utf-8", "surrogatepass") for text in sorted(texts))
        self._pattern = re.compile(joined) if texts else None

    def __bool__(self) -> bool:
        return self._pattern is not None

    @property
    def values(self) -> Mapping[str, set[str]]:
        """Kind → values in the spelling of comparison."""
        return self._values

    def is_wanted(self, kind: str, value: str) -> bool:
        """Whether this is one of the keys."""
        return normalised_key(kind, value) in self._values.get(kind, ())

    def may_be_in(self, body: bytes) -> bool:
        """A search for the values, in a canonical spelling where the body uses escapes."""
        if self._pattern is None:
            return False
        if b"\\" in body:
            body = _canonical(body)
        return self._pattern.search(body.lower()) is not None


def any_case(value: str) -> set[str]:
    """Regular expressions for a value in a text whose ASCII letters are lower case, one for each spelling it takes in
    JSON, URLs and HTML-safe JSON, itself included. A letter beyond ASCII, which lowering bytes leaves as it is, is
    found in any case.
    """
    return {"".join(_letter(spell, character) for character in value) for spell in _SPELLINGS}


def _letter(spell: Callable[[str], str], character: str) -> str:
    cases = {character}
    if not character.isascii():
        # The last but one: DuckDB and Python lower a capital i with a dot differently.
        cases |= {character.lower(), character.upper(), character.lower()[0], character.upper().lower()}
    forms = sorted({re.escape(_lower_ascii(spell(each))) for each in cases}, key=len, reverse=True)
    return forms[0] if len(forms) == 1 else f"(?:{'|'.join(forms)})"


def _lower_ascii(text: str) -> str:
    return text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


def _as_json(text: str) -> str:
    return msgspec.json.encode(text).decode()[1:-1]


_SPELLINGS: Final[tuple[Callable[[str], str], ...]] = (
    str,
    _as_json,
    lambda text: json.dumps(text)[1:-1],
    lambda text: _as_json(text).replace("/", "\\/"),
    lambda text: quote(text, safe=""),
    lambda text: quote(text, safe="/:@"),
)


def _canonical(body: bytes) -> bytes:
    try:
        return msgspec.json.encode(msgspec.json.decode(body))
    except msgspec.DecodeError:
        return body


# -------------------------------------------------------------------------------------------------------- hashed keys


@dataclass(frozen=True, kw_only=True)
class HashedKeys:
    """The tombstones that hold at one site."""

    secret: bytes = field(repr=False)
    digests: Mapping[str, frozenset[str]] = field(repr=False)

    def is_wanted(self, kind: str, value: str) -> bool:
        """Whether the value's keyed hash is a tombstone of this kind."""
        found = self.digests.get(kind)
        return found is not None and _digest(self.secret, normalised_key(kind, value)) in found

    def may_be_in(self, body: bytes) -> bool:
        """Hashes every distinct text and number of the body: about a microsecond each."""
        try:
            content = msgspec.json.decode(body)
        except msgspec.DecodeError:
            return True
        everything = frozenset().union(*self.digests.values())
        return any(
            _digest(self.secret, spelling) in everything
            for text in _scalars(content)
            for spelling in {text, normalised_key("email", text)}
        )


def _scalars(content: object) -> set[str]:
    """Every distinct text and whole number in a JSON value, and the names of its members."""
    found: set[str] = set()
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            found.add(value)
        elif isinstance(value, dict):
            found.update(value)
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            found.add(str(value))
    return found


def _digest(secret: bytes, value: str) -> str:
    return hmac.digest(secret, value.encode("utf-8", "surrogatepass"), hashlib.sha256).hex()


# ---------------------------------------------------------------------------------------------------------- the store


class Tombstones:
    """The tombstones of one home. Absent files mean that nobody was forgotten, and cost one `stat`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: tuple[tuple[int, int, int], tuple[_Entry, ...]] | None = None

    @classmethod
    def beside(cls, store: Path) -> Tombstones:
        """The tombstones of the home that `store` (its landing or lake) lies in."""
        return cls(store.parent / _FOLDER)

    @property
    def _path(self) -> Path:
        return self._folder / "tombstones.json"

    def __len__(self) -> int:
        return len(self._entries())

    def generation(self) -> tuple[int, int, int] | None:
        """Changes whenever a tombstone is added; None while there are none."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return (found.st_mtime_ns, found.st_ino, found.st_size)

    def at(self, site: str, kinds: Iterable[str]) -> HashedKeys | None:
        """What to keep out at a site, for pages that can carry these kinds of key; None when nothing has to be.

        Raises:
            StorageError: tombstones exist but their key is gone: nobody could be recognised, so nothing may be loaded.
        """
        wanted = frozenset(kinds)
        digests: dict[str, set[str]] = {}
        for entry in self._entries():
            if entry.kind in wanted and entry.site in (None, site):
                digests.setdefault(entry.kind, set()).add(entry.digest)
        if not digests:
            return None
        return HashedKeys(secret=self._secret(), digests={kind: frozenset(held) for kind, held in digests.items()})

    def add(self, keys: Iterable[Key], *, request: str, now: datetime) -> int:
        """Record the person's strong keys durably; returns how many are new. Weak kinds are left out.

        An address or a name belongs to others too: a tombstone of it would keep strangers out for ever.
        """
        with self._locked(fcntl.LOCK_EX):
            secret = self._secret(create=not self._path.exists())
            self._read = None
            known = list(self._entries())
            present = {(entry.kind, entry.site, entry.digest) for entry in known}
            before = len(known)
            for key in sorted(set(keys), key=lambda key: (key.kind, key.site or "", key.value)):
                digest = _digest(secret, normalised_key(key.kind, key.value))
                if key.kind in WEAK_KINDS or (key.kind, key.site, digest) in present:
                    continue
                known.append(_Entry(kind=key.kind, site=key.site, digest=digest, request=request, added_at=now))
            if len(known) > before:
                passing("tombstones.before_write")
                write_file(self._path, msgspec.json.format(msgspec.json.encode(known), indent=1))
                passing("tombstones.after_write")
        return len(known) - before

    def digest_of(self, value: str) -> str:
        """The keyed hash by which a receipt names a value without saying it."""
        return _digest(self._secret(), value)

    @contextmanager
    def unchanged_since(self, generation: tuple[int, int, int] | None) -> Iterator[bool]:
        """Whether no tombstone was added since; while the block runs none can be (where the folder exists)."""
        if not self._folder.is_dir():
            yield generation is None
            return
        with self._locked(fcntl.LOCK_SH):
            yield self.generation() == generation

    def _entries(self) -> tuple[_Entry, ...]:
        generation = self.generation()
        if generation is None:
            return ()
        if self._read is None or self._read[0] != generation:
            try:
                entries = tuple(msgspec.json.decode(self._path.read_bytes(), type=list[_Entry]))
            except msgspec.MsgspecError:
                raise StorageError(
                    "tombstones.json cannot be read: who was forgotten is not known.",
                    "Restore the tombstones folder of the home from a backup. Until then nothing is loaded.",
                ) from None
            self._read = (generation, entries)
        return self._read[1]

    def _secret(self, *, create: bool = False) -> bytes:
        path = self._folder / "key"
        try:
            secret = path.read_bytes()
        except FileNotFoundError:
            secret = b""
        if len(secret) == _KEY_BYTES:
            return secret
        if not create:
            raise StorageError(
                "The key of the tombstones is gone: who was forgotten can no longer be recognised.",
                "Restore `tombstones/key` of the home from a backup. Until then nothing is loaded.",
            )
        secret = secrets.token_bytes(_KEY_BYTES)
        write_private(path, secret)
        return secret

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        with storage_errors("Locking the tombstones"):
            make_directories(self._folder)
            descriptor = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)


def write_private(path: Path, content: bytes) -> None:
    """Replace a small file whole and durably, readable by its owner only from the first byte on."""
    with storage_errors(f"Writing {path.name}"):
        make_directories(path.parent)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
        fsync_directory(path.parent)
