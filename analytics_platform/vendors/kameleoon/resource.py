"""Kameleoon's Dagster resource: credentials by environment variable, client metered by the ledger.

Belongs here: which variables, which quota account. Does not belong here: endpoints (`client`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Self

from pydantic import SecretStr

from analytics_platform.core.quota_policy import QuotaPolicy, account_key
from analytics_platform.core.resources import VendorResource, secret_variable
from analytics_platform.vendors.kameleoon.client import (
    DEFAULT_AUTH_URL,
    DEFAULT_BASE_URL,
    VARIABLES,
    VENDOR,
    KameleoonClient,
    quota_windows,
)

if TYPE_CHECKING:
    from analytics_platform.core.quota import Ledger

__all__ = ["RESOURCE", "KameleoonResource"]


class KameleoonResource(VendorResource):
    """Credentials of a Kameleoon API client. The Data API also answers without, at a tenth of the GET rate: ask for
    that with
    `access: anonymous` in the site's block.
    """

    client_id: str = ""
    client_secret: str = ""
    base_url: str = DEFAULT_BASE_URL
    auth_url: str = DEFAULT_AUTH_URL

    @classmethod
    def from_environment(cls) -> Self:
        """Secrets stay names; an unset variable leaves the vendor off."""
        id_variable, secret_name = VARIABLES
        return cls(
            client_id=secret_variable(id_variable),
            client_secret=secret_variable(secret_name),
            base_url=os.environ.get("KAMELEOON_BASE_URL") or DEFAULT_BASE_URL,
            auth_url=os.environ.get("KAMELEOON_AUTH_URL") or DEFAULT_AUTH_URL,
        )

    @property
    def vendor(self) -> str:
        return VENDOR

    def missing_variables(self, ids: Mapping[str, str]) -> tuple[str, ...]:
        if ids.get("access") == "anonymous":
            return ()
        values = dict(zip(VARIABLES, (self.client_id, self.client_secret), strict=True))
        return tuple(name for name, value in values.items() if not value)

    def connect(self, ids: Mapping[str, str], ledger: Ledger) -> AbstractContextManager[KameleoonClient]:
        """A client for the data host; the vendor counts by IP, so every site of this host shares one account."""
        is_authenticated = ids.get("access") != "anonymous"
        policy = QuotaPolicy(
            account=account_key(VENDOR, self.base_url), windows=quota_windows(is_authenticated=is_authenticated)
        )
        return KameleoonClient.connect(
            client_id=SecretStr(self.client_id) if is_authenticated else None,
            client_secret=SecretStr(self.client_secret) if is_authenticated else None,
            base_url=self.base_url,
            auth_url=self.auth_url,
            meter=ledger.meter(policy),
        )


RESOURCE = KameleoonResource
