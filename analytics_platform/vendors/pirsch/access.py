"""What the class that reads Pirsch and the two that write share: the way in, and what an account is made of, as values.

Belongs here: the address, the names of the credentials, building a transport that may send some verbs only, hiding what
a refusal repeats; domains, access links, members, clients, e-mail reports and goals as they come from the wire. Does
not belong here: any endpoint (`client`, `outbound`, `management`), statistics (`tables`).

Secrets, codes and e-mail addresses are `SecretStr`: a value that is printed shows nobody. Source: vendor document,
"Getting an Access Token", "Getting the Domain ID" and "Managing Domains" to "Managing Conversion Goals"; contract
Pirsch A1, A7, A8.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, Self

from pydantic import SecretStr

from analytics_platform.core.auth import Auth, ClientCredentials
from analytics_platform.core.clock import Clock
from analytics_platform.core.errors import AuthenticationFailed, ConfigurationError, PermanentVendorError
from analytics_platform.core.http import HttpClient, HttpLimits, Meter, NullMeter

__all__ = [
    "API",
    "DEFAULT_BASE_URL",
    "VARIABLES",
    "VENDOR",
    "AccessLink",
    "ConversionGoal",
    "Domain",
    "DomainClient",
    "EmailReport",
    "Member",
    "NotTheShape",
    "Scopes",
    "credentials",
    "required",
    "transport",
    "wordless",
]

VENDOR: Final = "pirsch"
DEFAULT_BASE_URL: Final = "https://api.pirsch.io"
VARIABLES: Final = ("PIRSCH_CLIENT_ID", "PIRSCH_CLIENT_SECRET")
API: Final = "/api/v1"

_FRACTION: Final = re.compile(r"\.(\d+)")
_REGULAR: Final = re.compile(r"\(\?|\^")

Wire = Mapping[str, object]


def credentials(client_id: SecretStr, client_secret: SecretStr, clock: Clock) -> ClientCredentials:
    """Client id and secret that buy a token at `POST /api/v1/token`, in a JSON body.

    Raises:
        ConfigurationError: one of them is empty or cannot stand in a header.
    """
    return ClientCredentials(
        client_id=client_id,
        client_secret=client_secret,
        token_url=f"{API}/token",
        encoding="json",
        variables=VARIABLES,
        clock=clock,
    )


def transport(
    *,
    base_url: str,
    auth: Auth,
    methods: frozenset[str],
    meter: Meter | None,
    limits: HttpLimits | None,
    clock: Clock,
) -> HttpClient:
    """A transport for the API that sends these verbs and no other.

    Raises:
        ConfigurationError: the base URL cannot be used.
    """
    return HttpClient(
        vendor=VENDOR,
        base_url=base_url,
        auth=auth,
        meter=meter or NullMeter(),
        limits=limits or HttpLimits(),
        path_prefixes=(API,),
        methods=methods,
        clock=clock,
    )


@contextmanager
def wordless() -> Iterator[None]:
    """Refusals inside say their status and nothing of the vendor's words, which repeat what was sent: people's data."""
    try:
        yield
    except PermanentVendorError as error:
        if error.status is not None and error.where.endpoint != f"POST {API}/token":
            refused = "the credentials" if isinstance(error, AuthenticationFailed) else "the request"
            error.what = f"Pirsch refused {refused} ({error.status})."
        raise


def required(name: str, value: str) -> str:
    """The value, without blanks around it.

    Raises:
        ConfigurationError: it is empty; says the name, never the value.
    """
    if not value.strip():
        raise ConfigurationError(f"Pirsch needs {name}, which is empty.")
    return value.strip()


# --------------------------------------------------------------------------------------------------------- the account


class NotTheShape(ValueError):
    """A record without what every one of its kind has; says the field's name only."""


@dataclass(frozen=True, kw_only=True)
class Domain:
    """A website at Pirsch. `timezone` is None where the list does not say it (the document's list does not).

    Args:
        domain_id: wire `id`.
        hostname: as configured.
        timezone: IANA name whose calendar days the statistics have.
        user_role: lower case; empty for a domain client (trap 13: three spellings on the wire).
        subdomain: of the dashboard.
        identification_code: what the site's script says it is; public in the page.
        is_public: the dashboard can be read by anybody.
        is_grouped_by_title: pages are told apart by title too; None where the answer does not say it.
    """

    domain_id: str
    hostname: str
    timezone: str | None
    user_role: str
    subdomain: str = ""
    identification_code: str = ""
    is_public: bool = False
    is_grouped_by_title: bool | None = None

    @classmethod
    def from_wire(cls, record: Wire) -> Self:
        """Raises NotTheShape without an id."""
        timezone, grouped = record.get("timezone"), record.get("group_by_title")
        return cls(
            domain_id=_identifier(record),
            hostname=_text(record, "hostname"),
            timezone=timezone if isinstance(timezone, str) and timezone else None,
            user_role=_text(record, "user_role").lower(),
            subdomain=_text(record, "subdomain"),
            identification_code=_text(record, "identification_code"),
            is_public=record.get("public") is True,
            is_grouped_by_title=grouped if isinstance(grouped, bool) else None,
        )


@dataclass(frozen=True, kw_only=True)
class AccessLink:
    """A link that reads a domain's dashboard: `https://<subdomain>.pirsch.io/?access=<code>`. The code is a key."""

    link_id: str
    domain_id: str
    code: SecretStr
    description: str
    created_at: datetime | None

    @classmethod
    def from_wire(cls, record: Wire) -> Self:
        """Raises NotTheShape without an id."""
        return cls(
            link_id=_identifier(record),
            domain_id=_text(record, "domain_id"),
            code=SecretStr(_text(record, "code")),
            description=_text(record, "description"),
            created_at=_instant(record, "def_time"),
        )


@dataclass(frozen=True, kw_only=True)
class Member:
    """Somebody who may see a domain. `member_id` is what the member calls want, not `user_id` (trap 12)."""

    member_id: str
    domain_id: str
    user_id: str
    role: str
    email: SecretStr
    full_name: SecretStr

    @classmethod
    def from_wire(cls, record: Wire) -> Self:
        """Raises NotTheShape without an id."""
        found = record.get("user")
        user: Wire = found if isinstance(found, dict) else {}
        return cls(
            member_id=_identifier(record),
            domain_id=_text(record, "domain_id"),
            user_id=_text(record, "user_id"),
            role=_text(record, "role").lower(),
            email=SecretStr(_text(user, "email")),
            full_name=SecretStr(_text(user, "full_name")),
        )


@dataclass(frozen=True, kw_only=True)
class Scopes:
    """What a client may do; "" is nothing, "w" writes, "r" reads, and domains may be "rw"."""

    hit: Literal["", "w"] = ""
    event: Literal["", "w"] = ""
    statistics: Literal["", "r"] = ""
    domains: Literal["", "r", "w", "rw"] = ""

    def as_wire(self) -> dict[str, str]:
        """The four `scope_*` fields."""
        return {
            "scope_hit": self.hit,
            "scope_event": self.event,
            "scope_statistics": self.statistics,
            "scope_domains": self.domains,
        }


@dataclass(frozen=True, kw_only=True)
class DomainClient:
    """Credentials of one domain. `client_secret` is there only in the answer that made them: it is shown once."""

    record_id: str
    domain_id: str
    client_id: SecretStr
    description: str
    scopes: Mapping[str, str]
    client_secret: SecretStr | None

    @classmethod
    def from_wire(cls, record: Wire) -> Self:
        """Raises NotTheShape without an id."""
        secret = _text(record, "client_secret")
        names = ("hit", "event", "session", "statistics", "domains")
        return cls(
            record_id=_identifier(record),
            domain_id=_text(record, "domain_id"),
            client_id=SecretStr(_text(record, "client_id")),
            description=_text(record, "description"),
            scopes={name: _text(record, f"scope_{name}") for name in names if f"scope_{name}" in record},
            client_secret=SecretStr(secret) if secret else None,
        )


@dataclass(frozen=True, kw_only=True)
class EmailReport:
    """A report that is mailed every `interval_weeks` weeks (the unit is a comment in the document, trap 17)."""

    report_id: str
    domain_id: str
    email: SecretStr
    interval_weeks: int
    next_report_at: datetime | None

    @classmethod
    def from_wire(cls, record: Wire) -> Self:
        """Raises NotTheShape without an id or with an interval that is no number."""
        return cls(
            report_id=_identifier(record),
            domain_id=_text(record, "domain_id"),
            email=SecretStr(_text(record, "email")),
            interval_weeks=_whole(record, "interval") or 0,
            next_report_at=_instant(record, "next_report"),
        )


@dataclass(frozen=True, kw_only=True)
class ConversionGoal:
    """A conversion goal on a path pattern.

    Args:
        goal_id, domain_id, name: as configured.
        path_pattern: as configured, `/checkout/**`.
        pattern: the expression the vendor makes of it (usable as filter `pattern`). The document has the two the other
            way round in this section (trap 6): they are told apart by their looks.
        visitor_goal: target number of visitors, or None.
        cr_goal_percent: target conversion rate in percent (42.11), unlike `cr` of the statistics (0.065), or None.
        is_deleted_when_reached, is_mailed_when_reached: what happens then.
    """

    goal_id: str
    domain_id: str
    name: str
    path_pattern: str
    pattern: str
    visitor_goal: int | None
    cr_goal_percent: float | None
    is_deleted_when_reached: bool
    is_mailed_when_reached: bool

    @classmethod
    def from_wire(cls, record: Wire) -> Self:
        """Raises NotTheShape without an id or with a target that is no number."""
        plain, regular = _text(record, "path_pattern"), _text(record, "pattern")
        if _REGULAR.match(plain) and not _REGULAR.match(regular):
            plain, regular = regular, plain
        percent = record.get("cr_goal")
        if percent is not None and not _is_number(percent):
            raise NotTheShape("cr_goal")
        return cls(
            goal_id=_identifier(record),
            domain_id=_text(record, "domain_id"),
            name=_text(record, "name"),
            path_pattern=plain,
            pattern=regular,
            visitor_goal=_whole(record, "visitor_goal"),
            cr_goal_percent=None if percent is None else float(str(percent)),
            is_deleted_when_reached=record.get("delete_reached") is True,
            is_mailed_when_reached=record.get("email_reached") is True,
        )


def _identifier(record: Wire) -> str:
    found = record.get("id")
    if not isinstance(found, str) or not found:
        raise NotTheShape("id")
    return found


def _text(record: Wire, name: str) -> str:
    """A text; null and absent are empty."""
    value = record.get(name)
    return value if isinstance(value, str) else ""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(record: Wire, name: str) -> int | None:
    value = record.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise NotTheShape(name)
    return value


def _instant(record: Wire, name: str) -> datetime | None:
    """RFC 3339 with 0 to 9 digits of fraction (Go trims zeros), as an aware UTC instant; None where there is none."""
    text = _text(record, name)
    try:
        moment = datetime.fromisoformat(_FRACTION.sub(lambda found: f".{found.group(1)[:6]:0<6}", text))
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
