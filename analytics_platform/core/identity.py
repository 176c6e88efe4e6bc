"""References to persons: keyed hashes of login ids and e-mails, made where a page becomes rows, and only where agreed.

Belongs here: the key, what is hashed and how, which values name nobody, and the SQL a vendor's table makes a reference
with. Does not belong here: linking references (dbt's int_identity_* models), forgetting a person (`core.tombstones`),
any vendor's name.

    reference     `<key version>:<HMAC-SHA256 of kind, site and value, in hex>`
    kind          email where the value holds an @, else login: one person's login id and e-mail are two references
    site          part of what is hashed: a person of two sites has nothing in common between them
    key version   the first 8 hex digits of SHA-256 of the key: another key, other references, and nothing to link the
                  two by

Without a key, and for a site that did not agree (`links_identities` in sites.yaml), every reference is NULL: the SQL
reads the key from variables of the connection, which then are not set. The key is in no file, statement or log of ours.

Values everybody shares are no person: they are refused before hashing, because a hash cannot be looked at any more.
Source: Kissmetrics' warning of generic ids (support article "Common methods"), MARTS.md §4.5.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from analytics_platform.core.errors import ConfigurationError
from analytics_platform.settings import IDENTITY_KEY_VARIABLE, Settings

if TYPE_CHECKING:
    import duckdb

__all__ = ["GENERIC_VALUES", "PersonKey", "person_key", "person_ref_sql", "without_references"]

_SHORTEST_KEY: Final = 32
"""Characters. Of random hex that is 128 bits; an e-mail could be tried out against a shorter, guessable key."""

_BLOCK_BYTES: Final = 64
_SHORTEST_VALUE: Final = 3
_BLANKS: Final = " \t\n\r\xa0"
_SEPARATOR: Final = "\x1f"
_MARK: Final = "/* reference to a person */"

GENERIC_VALUES: Final = frozenset(
    {
        "admin", "administrator", "anon", "anonym", "anonymous", "customer", "default", "demo", "false", "guest",
        "gast", "invité", "invitado", "n/a", "na", "nan", "nil", "no-reply", "nobody", "none", "noreply", "not set",
        "(not set)", "null", "(null)", "object", "[object object]", "root", "system", "test", "tester", "testing",
        "true", "undefined", "unknown", "user", "visitor",
    }
)  # fmt: skip
"""Login ids, and local parts of e-mail addresses, that many people have at once."""

_TEST_DOMAINS: Final = ("example.com", "example.net", "test.com", "test.de", "mailinator.com", "localhost")
_TEST_ENDINGS: Final = (".test", ".invalid", ".localhost", ".example")
"""Domains nobody reads mail at (RFC 2606), bar example.org: the sandbox's people live there."""


@dataclass(frozen=True, kw_only=True)
class PersonKey:
    """The key of the references and the sites whose visitors may be referred to.

    Args:
        secret: at least 32 characters, best random (`openssl rand -hex 32`). Not shown by repr.
        sites: keys of the sites that agreed.

    Raises:
        ConfigurationError: the secret is too short.
    """

    secret: str = field(repr=False)
    sites: frozenset[str]

    def __post_init__(self) -> None:
        if len(self.secret) < _SHORTEST_KEY:
            raise ConfigurationError(
                f"{IDENTITY_KEY_VARIABLE} is shorter than {_SHORTEST_KEY} characters.",
                "Make one with `openssl rand -hex 32` and keep it where the other secrets are.",
            )

    @property
    def version(self) -> str:
        """8 hex digits that tell this key from another and nothing about it."""
        return hashlib.sha256(b"version" + self.secret.encode()).hexdigest()[:8]

    def reference(self, value: str | None, *, site: str) -> str | None:
        """What `person_ref_sql` makes of the value at the site; None for a value that names nobody."""
        if value is None or site not in self.sites:
            return None
        kind, spelled = _kind_and_spelling(value)
        if _is_generic(spelled):
            return None
        message = _SEPARATOR.join((kind, site, spelled)).encode()
        return f"{self.version}:{hmac.new(self._key, message, hashlib.sha256).hexdigest()}"

    def is_for(self, site: str) -> bool:
        """Whether the site agreed."""
        return site in self.sites

    def install(self, engine: duckdb.DuckDBPyConnection, *, site: str) -> None:
        """Give a connection what `person_ref_sql` needs; nothing for a site that did not agree."""
        if site not in self.sites:
            return
        padded = self._key.ljust(_BLOCK_BYTES, b"\0")
        engine.execute("SET VARIABLE person_inner = ?", [bytes(byte ^ 0x36 for byte in padded)])
        engine.execute("SET VARIABLE person_outer = ?", [bytes(byte ^ 0x5C for byte in padded)])
        engine.execute("SET VARIABLE person_version = ?", [self.version])
        engine.execute("SET VARIABLE person_site = ?", [site])

    @property
    def _key(self) -> bytes:
        # Always shorter than a block, whatever the length of the secret.
        return hashlib.sha256(self.secret.encode()).digest()


def person_key(settings: Settings) -> PersonKey | None:
    """The key of this platform; None where the environment has none or no site agreed."""
    sites = frozenset(site.key for site in settings.sites if site.links_identities)
    if settings.identity_key is None or not sites:
        return None
    return PersonKey(secret=settings.identity_key, sites=sites)


def person_ref_sql(value: str) -> str:
    """SQL: VARCHAR reference of the person a VARCHAR expression names; NULL without a key or for a generic value.

    HMAC as RFC 2104 has it, of DuckDB's sha256: as quick as the rest of the decode, and without a call into Python.
    """
    text = f"trim({value}, {' || '.join(f'chr({ord(blank)})' for blank in _BLANKS)})"
    kind = f"CASE WHEN contains({text}, '@') THEN 'email' ELSE 'login' END"
    spelled = f"CASE WHEN contains({text}, '@') THEN lower({text}) ELSE {text} END"
    message = f"encode(concat({kind}, chr(31), CAST(getvariable('person_site') AS VARCHAR), chr(31), {spelled}))"
    inner = f"unhex(sha256(CAST(getvariable('person_inner') AS BLOB) || {message}))"
    digest = f"sha256(CAST(getvariable('person_outer') AS BLOB) || {inner})"
    return (
        f"{_MARK}CASE WHEN getvariable('person_version') IS NULL OR {value} IS NULL OR {_generic_sql(text)} THEN NULL "
        f"ELSE CAST(getvariable('person_version') AS VARCHAR) || ':' || {digest} END{_MARK}"
    )


def without_references(sql: str) -> str:
    """The same where every `person_ref_sql` is NULL, as it is without a key: planning them costs more than small reads.

    Args:
        sql: any text with whole expressions of `person_ref_sql`, none inside another.
    """
    return "CAST(NULL AS VARCHAR)".join(sql.split(_MARK)[::2])


def _kind_and_spelling(value: str) -> tuple[str, str]:
    text = value.strip(_BLANKS)
    return ("email", _lowered(text)) if "@" in text else ("login", text)


def _lowered(text: str) -> str:
    """As DuckDB lowers: letter by letter, which differs from Python's in a capital i with a dot and a final sigma."""
    return "".join(character.lower()[0] for character in text)


def _is_generic(text: str) -> bool:
    lowered = _lowered(text)
    local, at, domain = lowered.partition("@")
    return (
        len(lowered) < _SHORTEST_VALUE
        or local in GENERIC_VALUES
        or (bool(at) and (domain in _TEST_DOMAINS or domain.endswith(_TEST_ENDINGS)))
        or not lowered.strip("0-")
    )


def _generic_sql(text: str) -> str:
    lowered = f"lower({text})"
    domain = f"substr({lowered}, strpos({lowered}, '@') + 1)"
    endings = " OR ".join(f"ends_with({domain}, '{ending}')" for ending in _TEST_ENDINGS)
    return (
        f"(length({lowered}) < {_SHORTEST_VALUE} OR split_part({lowered}, '@', 1) IN ({_listed(GENERIC_VALUES)}) "
        f"OR (contains({lowered}, '@') AND ({domain} IN ({_listed(_TEST_DOMAINS)}) OR {endings})) "
        f"OR trim({lowered}, '0-') = '')"
    )


def _listed(values: Iterable[str]) -> str:
    return ", ".join(f"'{value}'" for value in sorted(values))
