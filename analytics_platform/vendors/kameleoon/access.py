"""Getting in at Kameleoon: hosts, tokens, limits; shared by the client that reads and the classes that write.

Belongs here: default hosts, the credential from id and secret, quota windows of both hosts, limits of the transport.
Does not belong here: any path of the Data API (`client`, `outbound`, `erasure`), environment variables' values
(`resource`).

Sources: vendor document "Authentication and rate limiting"; contract Kameleoon B1 (hosts), B2 (tokens), B3 (limits).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from typing import Final

from pydantic import SecretStr

from analytics_platform.core.auth import ClientCredentials
from analytics_platform.core.clock import SYSTEM_CLOCK, Clock
from analytics_platform.core.errors import ConfigurationError
from analytics_platform.core.http import HttpLimits, Meter
from analytics_platform.core.quota_policy import Window

__all__ = [
    "ANONYMOUS_QUOTA",
    "AUTHENTICATED_QUOTA",
    "DEFAULT_AUTH_URL",
    "DEFAULT_BASE_URL",
    "DEFAULT_LIMITS",
    "MAX_CODE_LENGTH",
    "TOKEN_ENDPOINT",
    "TOKEN_QUOTA",
    "VARIABLES",
    "VENDOR",
    "TwoHostMeter",
    "check_code",
    "credentials",
    "quota_windows",
    "shared_credentials",
]

VENDOR: Final = "kameleoon"
DEFAULT_BASE_URL: Final = "https://data.kameleoon.io"
DEFAULT_AUTH_URL: Final = "https://api.kameleoon.com"
VARIABLES: Final = ("KAMELEOON_CLIENT_ID", "KAMELEOON_CLIENT_SECRET")
TOKEN_ENDPOINT: Final = "POST /oauth/token"  # noqa: S105 - a label

MAX_CODE_LENGTH: Final = 100
"""Characters of a visitor code, product code or map key that the vendor accepts (contract B4, B7, B8)."""

# Limits are per requester IP, GET one bucket and every other verb its own (document, "Rate Limits"). The guard covers
# what the network adds to the spacing of requests inside so short a window: half a second of jitter where the limit is
# small (RELIABILITY D8), and as much as leaves 95 % of the rate where it is what a day of visitors waits for. There no
# crowd may leave at once: apart by half the rate's own rhythm, a stretched crowd is two requests too many, not twenty.
ANONYMOUS_QUOTA: Final[Mapping[str, tuple[Window, ...]]] = {
    "GET": (Window(limit=5, seconds=1.0, guard_seconds=0.5),),
    "*": (Window(limit=50, seconds=1.0, guard_seconds=0.1),),
}
AUTHENTICATED_QUOTA: Final[Mapping[str, tuple[Window, ...]]] = {
    "GET": (Window(limit=50, seconds=1.0, guard_seconds=0.045, apart_seconds=0.01),),
    "*": (Window(limit=1000, seconds=1.0, guard_seconds=0.1),),
}
TOKEN_QUOTA: Final[Mapping[str, tuple[Window, ...]]] = {"POST": (Window(limit=12, seconds=60.0),)}
"""The token host belongs to the Automation API: about 12 calls a minute and account, whatever the IP (contract B2)."""

# A 429 carries no Retry-After (contract B3) and ends with a window of one second: the transport's back-off is the cure,
# and a run that is refused again and again need not be put off for long.
DEFAULT_LIMITS: Final = HttpLimits(max_attempts=5, unknown_retry_after_seconds=60.0)


def quota_windows(*, is_authenticated: bool) -> Mapping[str, tuple[Window, ...]]:
    """Windows for a `QuotaPolicy` of the data host: 50 or 5 GET a second, 1000 or 50 of each other verb (POST)."""
    return AUTHENTICATED_QUOTA if is_authenticated else ANONYMOUS_QUOTA


def credentials(
    *,
    client_id: SecretStr | None,
    client_secret: SecretStr | None,
    auth_url: str = DEFAULT_AUTH_URL,
    clock: Clock = SYSTEM_CLOCK,
) -> ClientCredentials | None:
    """What buys tokens at the token host (form body, client credentials); None, so anonymous, without both.

    Raises:
        ConfigurationError: only one of id and secret, or a value that cannot be used.
    """
    if client_id is None and client_secret is None:
        return None
    if client_id is None or client_secret is None:
        raise ConfigurationError(
            f"Only one of {' and '.join(VARIABLES)} is set.", "Set both, or neither for anonymous access."
        )
    return ClientCredentials(
        client_id=client_id,
        client_secret=client_secret,
        token_url=f"{auth_url.rstrip('/')}{TOKEN_ENDPOINT.partition(' ')[2]}",
        encoding="form",
        variables=VARIABLES,
        clock=clock,
    )


def check_code(code: str, what: str) -> None:
    """Raises ConfigurationError for a code, mapping value or key that is empty, too long or not printable.

    The value itself is not told: it may name a person.
    """
    if not 1 <= len(code) <= MAX_CODE_LENGTH or not code.isprintable():
        raise ConfigurationError(f"A {what} has 1 to {MAX_CODE_LENGTH} characters, all printable.")


_shared: dict[str, ClientCredentials] = {}
_shared_lock = threading.Lock()


def shared_credentials(*, client_id: SecretStr, client_secret: SecretStr, auth_url: str) -> ClientCredentials:
    """One credential, and so one token, for all clients of this process with the same id and secret.

    A client lives as long as one partition, a token two hours: without this a backfill of a few hundred partitions
    would spend its minutes waiting for the token host's 12 calls.

    Raises:
        ConfigurationError: a value that cannot be used.
    """
    parts = (client_id.get_secret_value(), client_secret.get_secret_value(), auth_url)
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    with _shared_lock:
        if key not in _shared:
            found = credentials(client_id=client_id, client_secret=client_secret, auth_url=auth_url)
            assert found is not None  # noqa: S101  (both parts are given)
            _shared[key] = found
        return _shared[key]


class TwoHostMeter:
    """A `Meter` that counts token calls at the token host's account and everything else at the data host's.

    Args:
        data: meter of the data host, by IP.
        token: meter of the token host, by account.
    """

    def __init__(self, *, data: Meter, token: Meter) -> None:
        self._data = data
        self._token = token

    def acquire(self, *, method: str, endpoint: str) -> None:
        """See `Meter.acquire`."""
        self._of(endpoint).acquire(method=method, endpoint=endpoint)

    def learn(self, *, method: str, endpoint: str, status: int, retry_after_seconds: float | None) -> None:
        """See `Meter.learn`."""
        self._of(endpoint).learn(
            method=method, endpoint=endpoint, status=status, retry_after_seconds=retry_after_seconds
        )

    def _of(self, endpoint: str) -> Meter:
        return self._token if endpoint == TOKEN_ENDPOINT else self._data
