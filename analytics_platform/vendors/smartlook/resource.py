"""Smartlook's Dagster resource: credentials by environment variable, clients metered by the ledger.

Belongs here: which variables, which host for a region, which quota account; what writes is connected only with an
opt-in. Does not belong here: endpoints (`client`, `management`, `erasure`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, Self

from pydantic import SecretStr

from analytics_platform.core.http import HttpLimits
from analytics_platform.core.quota_policy import QuotaPolicy, ReportedUsage, account_key
from analytics_platform.core.resources import VendorResource, secret_variable
from analytics_platform.vendors.smartlook.client import SmartlookClient, region_url
from analytics_platform.vendors.smartlook.erasure import SmartlookErasure
from analytics_platform.vendors.smartlook.management import SmartlookManagement
from analytics_platform.vendors.smartlook.streams import PLANS, next_plan, quota_windows

if TYPE_CHECKING:
    from analytics_platform.core.http import Meter
    from analytics_platform.core.opt_in import WriteOptIn
    from analytics_platform.core.quota import Ledger

__all__ = ["RESOURCE", "SmartlookResource"]

_VENDOR: Final = "smartlook"
_USAGE_SECONDS: Final = 10.0
_TOKEN_VARIABLE: Final = "SMARTLOOK_API_TOKEN"  # noqa: S105  (a variable's name)


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
        """A client of the site's project that can only read; Smartlook's hourly limit is counted by token."""
        return SmartlookClient.connect(
            base_url=self._base_url(ids),
            token=SecretStr(self._token(ids)),
            variable=self._variable(ids),
            meter=self._meter(ids, ledger),
        )

    def management(
        self, ids: Mapping[str, str], ledger: Ledger, opt_in: WriteOptIn
    ) -> AbstractContextManager[SmartlookManagement]:
        """What changes the site's project, from the same quota as its reads. Call `require` first."""
        return SmartlookManagement.connect(
            base_url=self._base_url(ids),
            token=SecretStr(self._token(ids)),
            variable=self._variable(ids),
            meter=self._meter(ids, ledger),
            opt_in=opt_in,
        )

    def erasure(
        self, ids: Mapping[str, str], ledger: Ledger, opt_in: WriteOptIn
    ) -> AbstractContextManager[SmartlookErasure]:
        """What forgets people in the site's project, from the same quota as its reads. Call `require` first."""
        return SmartlookErasure.connect(
            base_url=self._base_url(ids),
            token=SecretStr(self._token(ids)),
            variable=self._variable(ids),
            meter=self._meter(ids, ledger),
            opt_in=opt_in,
        )

    def _base_url(self, ids: Mapping[str, str]) -> str:
        return self.base_url or region_url(ids.get("region", "eu"))

    def quota_policy(self, ids: Mapping[str, str]) -> QuotaPolicy:
        """By token, by the hour, all verbs together."""
        return QuotaPolicy(account=account_key(_VENDOR, self._token(ids)), windows=quota_windows(ids))

    def reported_usage(self, ids: Mapping[str, str], ledger: Ledger) -> ReportedUsage | None:
        """`GET /api/v1/statistics`, once: whether it is counted itself, nobody says (contract §1.4, trap 9)."""
        with SmartlookClient.connect(
            base_url=self._base_url(ids),
            token=SecretStr(self._token(ids)),
            variable=self._variable(ids),
            meter=ledger.noting_meter(self.quota_policy(ids)),
            limits=HttpLimits(max_attempts=1, total_seconds=_USAGE_SECONDS),
        ) as client:
            used = client.statistics().project_requests
        if used is None or used < 0:
            return None
        return ReportedUsage(method_class="any", used=used, possible_limits=tuple(PLANS.values()))

    def next_plan(self, ids: Mapping[str, str]) -> tuple[str, QuotaPolicy] | None:
        """From free to paid to addon."""
        better = next_plan(ids)
        return None if better is None else (better, self.quota_policy({**ids, "plan": better}))

    def _meter(self, ids: Mapping[str, str], ledger: Ledger) -> Meter:
        return ledger.meter(self.quota_policy(ids))

    def _variable(self, ids: Mapping[str, str]) -> str:
        return ids.get("api_token_env") or _TOKEN_VARIABLE

    def _token(self, ids: Mapping[str, str]) -> str:
        variable = self._variable(ids)
        return self.api_token if variable == _TOKEN_VARIABLE else os.environ.get(variable, "")


RESOURCE = SmartlookResource
