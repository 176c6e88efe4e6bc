"""How a request is signed, as a value: the transport does not know which vendor signs how.

Belongs here: the `Auth` protocol, static tokens, Basic, and client credentials with their single-flight refresh.
Does not belong here: sending (`core.http` sends the token call too, bounded and metered), finding credentials
(`settings`).

Values never show their secrets: `repr` names the environment variable, errors name the variable, and every secret is
registered with `core.redaction` the moment it is known.
"""

from __future__ import annotations

import base64
import copy
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, Protocol
from urllib.parse import urlsplit

from pydantic import SecretStr

from analytics_platform.core.clock import SYSTEM_CLOCK, Clock
from analytics_platform.core.errors import AuthenticationFailed, ConfigurationError, MalformedResponse, PlatformError
from analytics_platform.core.redaction import register_secret

__all__ = ["Auth", "Basic", "Bearer", "ClientCredentials", "SendToken", "TokenRequest"]


@dataclass(frozen=True, kw_only=True)
class TokenRequest:
    """A call for a token, for the transport to send.

    Args:
        url: absolute, or a path on the client's own origin.
        endpoint: stable label for people and the ledger.
        json, form: the body, one of the two.
    """

    url: str
    endpoint: str
    json: Mapping[str, str] | None = field(default=None, repr=False)
    form: Mapping[str, str] | None = field(default=None, repr=False)


SendToken = Callable[[TokenRequest], object]
"""Sends a token call and returns the strictly parsed JSON answer."""


class Auth(Protocol):
    """What the transport asks of a credential. Implementations are thread-safe."""

    @property
    def variables(self) -> tuple[str, ...]:
        """Environment variables to name when the vendor refuses."""
        ...

    @property
    def token_url(self) -> str | None:
        """Where tokens come from (absolute, or a path on the client's origin); None when nothing is fetched."""
        ...

    def headers(self, send_token: SendToken) -> Mapping[str, str]:
        """Headers that sign the next attempt. May send one token call."""
        ...

    def rejected(self, headers: Mapping[str, str]) -> bool:
        """The vendor answered 401 to these headers. True when another `headers()` may give better ones."""
        ...


class Bearer:
    """`Authorization: Bearer <token>` with a token that a person made.

    Args:
        token: the value, or a callable read before every attempt (a token rotated on disk is then picked up by a
            waiting run).
        variable: the environment variable it came from, for messages.

    Raises:
        ConfigurationError: empty, or holds whitespace, a control or a non-ASCII character (no header can be injected).
    """

    token_url: str | None = None

    def __init__(self, token: SecretStr | Callable[[], SecretStr], *, variable: str = "") -> None:
        self.variables: tuple[str, ...] = (variable,) if variable else ()
        self._read: Callable[[], SecretStr] = token if callable(token) else lambda: token
        self._variable = variable
        self._current()

    def headers(self, send_token: SendToken) -> Mapping[str, str]:
        """The one header; `send_token` is not used."""
        return {"Authorization": f"Bearer {self._current()}"}

    def rejected(self, headers: Mapping[str, str]) -> bool:
        """True only if the token was rotated in the meantime."""
        return headers.get("Authorization") != f"Bearer {self._current()}"

    def _current(self) -> str:
        return _checked(self._read(), self._variable, "token")

    def __repr__(self) -> str:
        return f"Bearer(variable={self._variable!r})"


class Basic:
    """`Authorization: Basic base64(username:password)` (RFC 7617, UTF-8).

    Args:
        username: no colon (RFC 7617 §2 cannot carry one).
        password: the password or API token.
        variables: the two environment variables, for messages.

    Raises:
        ConfigurationError: as for `Bearer`, for either part.
    """

    token_url: str | None = None

    def __init__(self, username: SecretStr, password: SecretStr, *, variables: tuple[str, ...] = ()) -> None:
        self.variables = variables
        names = [*variables, "", ""]
        user = _checked(username, names[0], "user name")
        if ":" in user:
            raise ConfigurationError(
                f"{names[0] or 'The user name'} holds a colon, which Basic authentication cannot carry."
            )
        value = base64.b64encode(f"{user}:{_checked(password, names[1], 'password')}".encode()).decode("ascii")
        register_secret(value)
        self._value = f"Basic {value}"

    def headers(self, send_token: SendToken) -> Mapping[str, str]:
        """The one header; `send_token` is not used."""
        return {"Authorization": self._value}

    def rejected(self, headers: Mapping[str, str]) -> bool:
        """Always False: the same pair would be refused again."""
        return False

    def __repr__(self) -> str:
        return f"Basic(variables={self.variables!r})"


_REFUSED_SECONDS: Final = 300.0


class ClientCredentials:
    """OAuth-like client credentials: id and secret buy a short-lived Bearer token.

    Single-flight: however many threads find the token missing or refused, one call is sent and all use its answer (or
    its failure). A refused pair is not asked about again for five minutes: the answer would be the same, and every
    question counts. A token refused with 401 is dropped once; the transport asks again at most once a request. The
    expiry the vendor states only avoids
    a foreseeable 401: a past, absent or unreadable expiry means "until 401", so a wrong host clock costs nothing.

    Args:
        client_id, client_secret: the pair.
        token_url: a path on the vendor's own origin, or an absolute URL whose origin is pinned like any base URL.
        encoding: "json" sends `{"client_id", "client_secret"}`; "form" adds `grant_type=client_credentials` (RFC 6749
            §4.4).
        variables: environment variables of id and secret.
        clock: for the stated expiry.
        early_seconds: a token this close to its end is replaced first.

    Raises:
        ConfigurationError: id or secret empty, or with whitespace, control or non-ASCII characters.
    """

    def __init__(
        self,
        *,
        client_id: SecretStr,
        client_secret: SecretStr,
        token_url: str,
        encoding: Literal["json", "form"] = "json",
        variables: tuple[str, ...] = (),
        clock: Clock = SYSTEM_CLOCK,
        early_seconds: float = 60.0,
    ) -> None:
        self.variables = variables
        self.token_url: str | None = token_url
        self._endpoint = f"POST {urlsplit(token_url).path}"
        self._encoding = encoding
        self._clock = clock
        self._early = timedelta(seconds=early_seconds)
        names = [*variables, "", ""]
        self._body = {
            "client_id": _checked(client_id, names[0], "client id"),
            "client_secret": _checked(client_secret, names[1], "client secret"),
        }
        self._lock = threading.Lock()
        self._token: str | None = None
        self._expires_at: datetime | None = None
        self._calls = 0
        self._failure: PlatformError | None = None
        self._failed_at = 0.0

    def headers(self, send_token: SendToken) -> Mapping[str, str]:
        """The Bearer header, after one token call if there is no usable token.

        Raises:
            MalformedResponse: the answer has no usable `access_token`.
            PlatformError: whatever `send_token` raises.
        """
        calls_seen = self._calls
        with self._lock:
            if self._token is None or self._is_stale():
                # Someone asked while we waited for the lock, or the pair itself was refused: do not ask again.
                if self._failure is not None and (self._calls != calls_seen or self._is_refused()):
                    raise copy.copy(self._failure)
                self._refresh(send_token)
            return {"Authorization": f"Bearer {self._token}"}

    def rejected(self, headers: Mapping[str, str]) -> bool:
        """Drop the token if it is the refused one (another thread may already have replaced it)."""
        with self._lock:
            if headers.get("Authorization") == f"Bearer {self._token}":
                self._token = None
                self._expires_at = None
            return True

    def _is_refused(self) -> bool:
        refused = isinstance(self._failure, AuthenticationFailed)
        return refused and self._clock.monotonic() - self._failed_at < _REFUSED_SECONDS

    def _is_stale(self) -> bool:
        return self._expires_at is not None and self._clock.now() >= self._expires_at - self._early

    def _refresh(self, send_token: SendToken) -> None:
        # Counted when the call ends: whoever began to wait before that shares its outcome.
        try:
            if self._encoding == "json":
                answer = send_token(TokenRequest(url=str(self.token_url), endpoint=self._endpoint, json=self._body))
            else:
                form = {"grant_type": "client_credentials", **self._body}
                answer = send_token(TokenRequest(url=str(self.token_url), endpoint=self._endpoint, form=form))
            self._token, self._expires_at = self._read(answer)
            self._failure = None
        except PlatformError as error:
            self._token, self._expires_at, self._failure = None, None, error
            self._failed_at = self._clock.monotonic()
            raise
        finally:
            self._calls += 1

    def _read(self, answer: object) -> tuple[str, datetime | None]:
        token = answer.get("access_token") if isinstance(answer, dict) else None
        if not isinstance(token, str) or not _is_header_safe(token):
            raise MalformedResponse("The token answer holds no usable access_token.")
        register_secret(token)
        assert isinstance(answer, dict)  # noqa: S101  (narrowing for mypy; a token was read from it)
        expires_at = _expiry(answer, self._clock.now())
        # Already over by our clock: the clock is wrong, or the vendor is. Use the token until a 401 says otherwise.
        usable = expires_at is not None and expires_at - self._early > self._clock.now()
        return token, expires_at if usable else None

    def __repr__(self) -> str:
        return f"ClientCredentials(variables={self.variables!r}, endpoint={self._endpoint!r})"


def _expiry(answer: Mapping[str, object], now: datetime) -> datetime | None:
    """`expires_in` in seconds, or `expires_at` as RFC 3339 (0-9 fraction digits, no zone means UTC); else None."""
    seconds = answer.get("expires_in")
    if isinstance(seconds, int) and not isinstance(seconds, bool) and 0 < seconds < 10**9:
        return now + timedelta(seconds=seconds)
    stated = answer.get("expires_at")
    if not isinstance(stated, str):
        return None
    try:
        instant = datetime.fromisoformat(stated)
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _is_header_safe(value: str) -> bool:
    return bool(value) and all("!" <= character <= "~" for character in value)


def _checked(secret: SecretStr, variable: str, what: str) -> str:
    value = secret.get_secret_value()
    if not _is_header_safe(value):
        raise ConfigurationError(
            f"{variable or f'The {what}'} is empty or holds a space, a line break or a non-ASCII character.",
            f"Set {variable or f'the {what}'} to the value the vendor shows, with nothing around it.",
        )
    register_secret(value)
    return value
