"""Kameleoon's Dagster resource: credentials by environment variable, client metered by the ledger.

Belongs here: which variables, which quota account. Does not belong here: endpoints (`client`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Self, TypedDict

from pydantic import SecretStr

from analytics_platform.core.auth import ClientCredentials
from analytics_platform.core.http import Meter
from analytics_platform.core.opt_in import WriteOptIn
from analytics_platform.core.quota_policy import QuotaPolicy, account_key
from analytics_platform.core.resources import POLITE_WAIT_SECONDS, VendorResource, secret_variable
from analytics_platform.vendors.kameleoon.access import (
    DEFAULT_AUTH_URL,
    DEFAULT_BASE_URL,
    TOKEN_QUOTA,
    VARIABLES,
    VENDOR,
    TwoHostMeter,
    quota_windows,
    shared_credentials,
)
from analytics_platform.vendors.kameleoon.client import KameleoonClient
from analytics_platform.vendors.kameleoon.erasure import KameleoonErasure
from analytics_platform.vendors.kameleoon.outbound import KameleoonWriter

if TYPE_CHECKING:
    from analytics_platform.core.quota import Ledger

__all__ = ["RESOURCE", "KameleoonResource"]


class _Connection(TypedDict):
    """What every class of this vendor wants of its resource."""

    base_url: str
    auth_url: str
    auth: ClientCredentials | None
    meter: Meter


class KameleoonResource(VendorResource):
    """Credentials of a Kameleoon API client. The Data API also answers without, at a tenth of the GET rate: ask for
    that with `access: anonymous` in the site's block.
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
        return KameleoonClient.connect(**self._connection(ids, ledger))

    def writer(
        self, ids: Mapping[str, str], ledger: Ledger, opt_in: WriteOptIn
    ) -> AbstractContextManager[KameleoonWriter]:
        """A writer on the same accounts as `connect`; POST has a bucket of its own.

        Raises:
            ConfigurationError: the opt-in is not for this vendor or gives no reason.
        """
        return KameleoonWriter.connect(opt_in=opt_in, **self._connection(ids, ledger))

    def erasure(
        self, ids: Mapping[str, str], ledger: Ledger, opt_in: WriteOptIn
    ) -> AbstractContextManager[KameleoonErasure]:
        """The class that makes the vendor forget visitors, on the same accounts; arguments as `writer`."""
        return KameleoonErasure.connect(opt_in=opt_in, **self._connection(ids, ledger))

    def quota_policy(self, ids: Mapping[str, str]) -> QuotaPolicy:
        """By this host's IP, so all its sites share one account; every verb is a bucket of its own."""
        is_authenticated = ids.get("access") != "anonymous"
        return QuotaPolicy(
            account=account_key(VENDOR, self.base_url), windows=quota_windows(is_authenticated=is_authenticated)
        )

    def next_plan(self, ids: Mapping[str, str]) -> tuple[str, QuotaPolicy] | None:
        """Credentials are the next plan of an anonymous site: ten times the rate."""
        if ids.get("access") != "anonymous":
            return None
        return "authenticated", self.quota_policy({**ids, "access": "authenticated"})

    def _connection(self, ids: Mapping[str, str], ledger: Ledger) -> _Connection:
        is_authenticated = ids.get("access") != "anonymous"
        data = ledger.meter(self.quota_policy(ids))
        if not is_authenticated:
            return {"base_url": self.base_url, "auth_url": self.auth_url, "auth": None, "meter": data}
        token_policy = QuotaPolicy(account=account_key(VENDOR, self.client_id), windows=TOKEN_QUOTA)
        return {
            "base_url": self.base_url,
            "auth_url": self.auth_url,
            "auth": shared_credentials(
                client_id=SecretStr(self.client_id),
                client_secret=SecretStr(self.client_secret),
                auth_url=self.auth_url,
            ),
            "meter": TwoHostMeter(data=data, token=ledger.meter(token_policy, max_wait_seconds=POLITE_WAIT_SECONDS)),
        }


RESOURCE = KameleoonResource
