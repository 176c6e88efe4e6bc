"""Making Kameleoon forget visitors: POST /visit/forget.

Belongs here: that one destructive call, its confirmation and its limits. Does not belong here: finding a person's
visitor codes and removing what we keep ourselves (the platform's erasure), adding data (`outbound`).

Sources: vendor document "Overview" (POST /visit/forget: remove data for several visitors); contract Kameleoon B6 (text,
one code a line, at most 1 MB, asynchronous 204).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Final, Self

from pydantic import SecretStr

from analytics_platform.core.auth import ClientCredentials
from analytics_platform.core.clock import SYSTEM_CLOCK, Clock
from analytics_platform.core.endpoints import endpoint
from analytics_platform.core.errors import ConfigurationError
from analytics_platform.core.http import HttpClient, HttpLimits, Meter, NullMeter
from analytics_platform.core.opt_in import Confirmation, WriteOptIn
from analytics_platform.vendors.kameleoon.access import (
    DEFAULT_AUTH_URL,
    DEFAULT_BASE_URL,
    DEFAULT_LIMITS,
    VENDOR,
    check_code,
    credentials,
)

__all__ = ["MAX_FORGET_BYTES", "KameleoonErasure", "confirmation_phrase"]

MAX_FORGET_BYTES: Final = 1_000_000

_FORGET: Final = "/visit/forget"


def confirmation_phrase(site_code: str, visitor_codes: Sequence[str]) -> str:
    """The words that confirm `KameleoonErasure.forget`: `forget 3 visitors at f17c21u1ag` (each code counted once)."""
    return f"forget {len(dict.fromkeys(visitor_codes))} visitors at {site_code}"


class KameleoonErasure:
    """Removes visitors at Kameleoon, and can do nothing else. Safe to share between threads.

    Args:
        http: a transport for the data host's origin that may send POST.
        opt_in: the yes to writing at this vendor.

    Raises:
        ConfigurationError: no opt-in.
    """

    def __init__(self, http: HttpClient, *, opt_in: WriteOptIn) -> None:
        opt_in.require(VENDOR)
        self._http = http

    @classmethod
    def connect(
        cls,
        *,
        opt_in: WriteOptIn,
        client_id: SecretStr | None = None,
        client_secret: SecretStr | None = None,
        auth: ClientCredentials | None = None,
        base_url: str = DEFAULT_BASE_URL,
        auth_url: str = DEFAULT_AUTH_URL,
        meter: Meter | None = None,
        limits: HttpLimits | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> Self:
        """With its own connection pool; arguments and errors as `KameleoonWriter.connect`."""
        opt_in.require(VENDOR)
        given = credentials(client_id=client_id, client_secret=client_secret, auth_url=auth_url, clock=clock)
        http = HttpClient(
            vendor=VENDOR,
            base_url=base_url,
            auth=auth or given,
            meter=meter or NullMeter(),
            limits=limits or DEFAULT_LIMITS,
            path_prefixes=(_FORGET,),
            methods=frozenset({"POST"}),
            clock=clock,
        )
        return cls(http, opt_in=opt_in)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @endpoint("POST /visit/forget", source="Data API, Overview, Visit endpoints; contract B6")
    def forget(self, *, site_code: str, visitor_codes: Sequence[str], confirm: Confirmation) -> None:
        """Ask the vendor to remove everything of these visitors; returns when every request was accepted (204).

        Removal happens later: whoever needs to be sure asks `GET /visit/visitor` until the visitor is unknown. The
        codes are sent once each, in as many requests of at most 1 MB as they need, and again while the failure is
        transient: forgetting twice is forgetting.

        Args:
            site_code: as in the site's tag.
            visitor_codes: 1 to 100 characters each; at least one.
            confirm: the words of `confirmation_phrase`.

        Raises:
            ConfigurationError: not confirmed, no code, or one that cannot be a line; nothing was sent.
            VendorError: see `KameleoonClient`; codes of earlier requests may be forgotten, ask for all of them again.
        """
        codes = list(dict.fromkeys(visitor_codes))
        if not codes:
            raise ConfigurationError("There is no visitor to forget.")
        for code in codes:
            check_code(code, "visitor code")
        confirm.require(confirmation_phrase(site_code, codes))
        for body in _bodies(codes):
            self._http.request(
                "POST",
                _FORGET,
                endpoint=f"POST {_FORGET}",
                params={"siteCode": site_code},
                content=body,
                headers={"content-type": "text/plain; charset=utf-8"},
                expect="any",
                retry=True,
            )


def _bodies(codes: Sequence[str]) -> Iterator[bytes]:
    body = bytearray()
    for code in codes:
        line = code.encode()
        if body and len(body) + 1 + len(line) > MAX_FORGET_BYTES:
            yield bytes(body)
            body.clear()
        body += b"\n" + line if body else line
    yield bytes(body)
