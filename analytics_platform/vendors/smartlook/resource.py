"""Smartlook's Dagster resource: credentials by environment variable, client metered by the ledger.

Belongs here: which variables, which host for a region, which quota account. Does not belong here: endpoints (`client`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, Self

from pydantic import SecretStr

from analytics_platform.core.errors import ConfigurationError
from analytics_platform.core.quota_policy import QuotaPolicy, account_key
from analytics_platform.core.resources import VendorResource, secret_variable
from analytics_platform.vendors.smartlook.client import SmartlookClient
from analytics_platform.vendors.smartlook.streams import quota_windows

if TYPE_CHECKING:
    from analytics_platform.core.quota import Ledger

__all__ = ["RESOURCE", "SmartlookResource"]

_VENDOR: Final = "smartlook"
_TOKEN_VARIABLE: Final = "SMARTLOOK_API_TOKEN"  # noqa: S105  (a variable's name)
_REGIONS: Final = ("eu", "us")


class SmartlookResource(VendorResource):
    """API tokens of Smartlook projects: one a project, so a site may name its own variable with `api_token_env`."""

    api_token: str = ""
    base_url: str = ""

    @classmethod
    def from_environment(cls) -> Self:
        """Secrets stay names; an unset variable leaves the vendor off. The base URL follows the site's region unless
        given.
        """
        return cls(api_token=secret_variable(_TOKEN_VARIABLE), base_url=os.environ.get("SMARTLOOK_BASE_URL") or "")

    @property
    def vendor(self) -> str:
        return _VENDOR

    def missing_variables(self, ids: Mapping[str, str]) -> tuple[str, ...]:
        return () if self._token(ids) else (self._variable(ids),)

    def connect(self, ids: Mapping[str, str], ledger: Ledger) -> AbstractContextManager[SmartlookClient]:
        """A client of the site's project; Smartlook's hourly limit is counted by token."""
        token = self._token(ids)
        policy = QuotaPolicy(account=account_key(_VENDOR, token), windows=quota_windows(ids))
        return SmartlookClient.connect(
            base_url=self.base_url or _region_url(ids),
            token=SecretStr(token),
            variable=self._variable(ids),
            meter=ledger.meter(policy),
        )

    def _variable(self, ids: Mapping[str, str]) -> str:
        return ids.get("api_token_env") or _TOKEN_VARIABLE

    def _token(self, ids: Mapping[str, str]) -> str:
        variable = self._variable(ids)
        return self.api_token if variable == _TOKEN_VARIABLE else os.environ.get(variable, "")


def _region_url(ids: Mapping[str, str]) -> str:
    region = ids.get("region", "eu").lower()
    if region not in _REGIONS:
        raise ConfigurationError(f"Smartlook region {region!r} does not exist.", "Use eu or us in sites.yaml.")
    return f"https://api.{region}.smartlook.cloud"


RESOURCE = SmartlookResource
