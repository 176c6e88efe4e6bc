"""Kissmetrics' Dagster resource: credentials by environment variable, client metered by the ledger.

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
from analytics_platform.vendors.kissmetrics.client import DEFAULT_BASE_URL, KissmetricsClient
from analytics_platform.vendors.kissmetrics.streams import DEFAULT_REQUESTS_PER_MINUTE

if TYPE_CHECKING:
    from analytics_platform.core.quota import Ledger

__all__ = ["RESOURCE", "KissmetricsResource"]

_VENDOR: Final = "kissmetrics"
_TOKEN_VARIABLE: Final = "KISSMETRICS_API_TOKEN"  # noqa: S105  (a variable's name)


class KissmetricsResource(VendorResource):
    """Personal token of a Kissmetrics user."""

    api_token: str = ""
    base_url: str = DEFAULT_BASE_URL

    @classmethod
    def from_environment(cls) -> Self:
        """Secrets stay names; an unset variable leaves the vendor off."""
        return cls(
            api_token=secret_variable(_TOKEN_VARIABLE),
            base_url=os.environ.get("KISSMETRICS_BASE_URL") or DEFAULT_BASE_URL,
        )

    @property
    def vendor(self) -> str:
        return _VENDOR

    def missing_variables(self, ids: Mapping[str, str]) -> tuple[str, ...]:
        return () if self.api_token else (_TOKEN_VARIABLE,)

    def quota_policy(self, ids: Mapping[str, str]) -> QuotaPolicy:
        """By token, all verbs together; the vendor publishes no limit, so ours is a polite one."""
        return QuotaPolicy(
            account=account_key(_VENDOR, self.api_token), windows=per_minute_windows(ids, DEFAULT_REQUESTS_PER_MINUTE)
        )

    def connect(self, ids: Mapping[str, str], ledger: Ledger) -> AbstractContextManager[KissmetricsClient]:
        """A client of the user's accounts; one token, one quota account."""
        return KissmetricsClient.connect(
            token=SecretStr(self.api_token),
            base_url=self.base_url,
            meter=ledger.meter(self.quota_policy(ids), max_wait_seconds=POLITE_WAIT_SECONDS),
        )


RESOURCE = KissmetricsResource
