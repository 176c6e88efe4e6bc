"""Pirsch's Dagster resource: credentials by environment variable, client metered by the ledger.

Belongs here: which variables, which quota account. Does not belong here: endpoints (`client`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Self

from pydantic import SecretStr

from analytics_platform.core.quota_policy import QuotaPolicy, account_key, per_minute_windows
from analytics_platform.core.resources import POLITE_WAIT_SECONDS, VendorResource, secret_variable
from analytics_platform.vendors.pirsch.client import (
    DEFAULT_BASE_URL,
    DEFAULT_REQUESTS_PER_MINUTE,
    VARIABLES,
    VENDOR,
    PirschClient,
)

if TYPE_CHECKING:
    from analytics_platform.core.quota import Ledger

__all__ = ["RESOURCE", "PirschResource"]


class PirschResource(VendorResource):
    """Client credentials of a Pirsch domain or user client (scope statistics: r)."""

    client_id: str = ""
    client_secret: str = ""
    base_url: str = DEFAULT_BASE_URL

    @classmethod
    def from_environment(cls) -> Self:
        """Secrets stay names; an unset variable leaves the vendor off."""
        id_variable, secret_name = VARIABLES
        return cls(
            client_id=secret_variable(id_variable),
            client_secret=secret_variable(secret_name),
            base_url=os.environ.get("PIRSCH_BASE_URL") or DEFAULT_BASE_URL,
        )

    @property
    def vendor(self) -> str:
        return VENDOR

    def missing_variables(self, ids: Mapping[str, str]) -> tuple[str, ...]:
        values = dict(zip(VARIABLES, (self.client_id, self.client_secret), strict=True))
        return tuple(name for name, value in values.items() if not value)

    def quota_policy(self, ids: Mapping[str, str]) -> QuotaPolicy:
        """By client, all verbs together; the vendor publishes no limit, so ours is a polite one."""
        return QuotaPolicy(
            account=account_key(VENDOR, self.client_id), windows=per_minute_windows(ids, DEFAULT_REQUESTS_PER_MINUTE)
        )

    def connection_requests(self, ids: Mapping[str, str]) -> int:
        """One token a run."""
        return 1

    def connect(self, ids: Mapping[str, str], ledger: Ledger) -> AbstractContextManager[PirschClient]:
        """A client whose token is fetched when first needed; Pirsch counts by client."""
        return PirschClient.connect(
            client_id=SecretStr(self.client_id),
            client_secret=SecretStr(self.client_secret),
            base_url=self.base_url,
            meter=ledger.meter(self.quota_policy(ids), max_wait_seconds=POLITE_WAIT_SECONDS),
        )


RESOURCE = PirschResource
