"""Inspectlet's Dagster resource: credentials by environment variable, client metered by the ledger.

Belongs here: which variables, which quota account. Does not belong here: endpoints (`client`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, Self

from pydantic import SecretStr

from analytics_platform.core.quota_policy import QuotaPolicy, account_key, per_minute_windows
from analytics_platform.core.resources import POLITE_WAIT_SECONDS, VendorResource, secret_variable
from analytics_platform.vendors.inspectlet.client import DEFAULT_BASE_URL, InspectletClient
from analytics_platform.vendors.inspectlet.streams import DEFAULT_REQUESTS_PER_MINUTE

if TYPE_CHECKING:
    from analytics_platform.core.quota import Ledger

__all__ = ["RESOURCE", "InspectletResource"]

_VENDOR: Final = "inspectlet"
_VARIABLES: Final = ("INSPECTLET_USERNAME", "INSPECTLET_API_TOKEN")


class InspectletResource(VendorResource):
    """Account e-mail and API token of one Inspectlet account (HTTP Basic)."""

    username: str = ""
    api_token: str = ""
    base_url: str = DEFAULT_BASE_URL

    @classmethod
    def from_environment(cls) -> Self:
        """Secrets stay names; an unset variable leaves the vendor off."""
        username, api_token = _VARIABLES
        return cls(
            username=secret_variable(username),
            api_token=secret_variable(api_token),
            base_url=os.environ.get("INSPECTLET_BASE_URL") or DEFAULT_BASE_URL,
        )

    @property
    def vendor(self) -> str:
        return _VENDOR

    def missing_variables(self, ids: Mapping[str, str]) -> tuple[str, ...]:
        values = dict(zip(_VARIABLES, (self.username, self.api_token), strict=True))
        return tuple(name for name, value in values.items() if not value)

    def quota_policy(self, ids: Mapping[str, str]) -> QuotaPolicy:
        """By API token, all verbs together; the vendor publishes no limit, so ours is a polite one."""
        return QuotaPolicy(
            account=account_key(_VENDOR, self.api_token), windows=per_minute_windows(ids, DEFAULT_REQUESTS_PER_MINUTE)
        )

    def connect(self, ids: Mapping[str, str], ledger: Ledger) -> AbstractContextManager[InspectletClient]:
        """A client of the account; the vendor rate-limits by API token."""
        return InspectletClient.connect(
            username=SecretStr(self.username),
            api_token=SecretStr(self.api_token),
            base_url=self.base_url,
            meter=ledger.meter(self.quota_policy(ids), max_wait_seconds=POLITE_WAIT_SECONDS),
        )


RESOURCE = InspectletResource
