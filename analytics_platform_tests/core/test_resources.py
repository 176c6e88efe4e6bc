"""Secrets stay names, all missing ones are named at once, and a home has one ledger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import dagster as dg
import pytest

from analytics_platform.core import resources
from analytics_platform.core.errors import MissingCredentials
from analytics_platform.core.quota import Ledger, QuotaPolicy, Window
from analytics_platform.core.resources import (
    PlatformResource,
    VendorResource,
    open_ledger,
    secret_variable,
)
from analytics_platform.settings import Home, load_settings
from analytics_platform.vendors import vendor_names, vendor_resource
from analytics_platform_tests.conftest import House


class Acme(VendorResource):
    """Needs two variables."""

    first: str = ""
    second: str = ""

    @property
    def vendor(self) -> str:
        return "acme"

    def missing_variables(self, ids: Mapping[str, str]) -> tuple[str, ...]:
        given = {"ACME_FIRST": self.first, "ACME_SECOND": self.second}
        return tuple(name for name, value in given.items() if not value)

    def quota_policy(self, ids: Mapping[str, str]) -> QuotaPolicy:
        return QuotaPolicy(account="acme:1", windows={"any": (Window(1000, 60.0),)})

    def connect(self, ids: Mapping[str, str], ledger: Ledger) -> AbstractContextManager[Any]:
        raise NotImplementedError


def test_every_missing_variable_is_named_at_once() -> None:
    with pytest.raises(MissingCredentials) as caught:
        Acme().require({})
    assert str(caught.value).startswith(
        "acme is off: ACME_FIRST, ACME_SECOND are not set. [vendor acme] Next: Set them"
    )
    with pytest.raises(MissingCredentials, match="ACME_SECOND is not set"):
        Acme(first="x").require({})
    Acme(first="x", second="y").require({})


def test_a_secret_stays_a_name_until_a_run_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_FIRST", "canary-value-of-a-secret")
    monkeypatch.delenv("ACME_SECOND", raising=False)
    resource = Acme(first=secret_variable("ACME_FIRST"), second=secret_variable("ACME_SECOND"))
    assert isinstance(secret_variable("ACME_FIRST"), dg.EnvVar)
    assert "canary" not in repr(resource)
    with dg.build_resources({"acme": resource}) as built:
        assert (built.acme.first, built.acme.second) == ("canary-value-of-a-secret", "")


def test_every_vendor_names_its_variables_when_none_is_set(home: Home) -> None:
    for name in vendor_names():
        missing = vendor_resource(name).missing_variables({})
        assert missing, name
        assert all(variable.isupper() and variable.startswith(name.upper()) for variable in missing)


def test_every_vendor_is_on_in_the_sandboxs_environment(house: House) -> None:
    for name in vendor_names():
        for site in house.settings.sites_with(name):
            assert vendor_resource(name).missing_variables(site.ids(name) or {}) == ()


@pytest.fixture(autouse=True)
def _close_shared_ledgers() -> Iterator[None]:
    yield
    resources._shared_ledger.cache_clear()


def test_one_ledger_a_home(home: Home) -> None:
    with dg.build_resources({"platform": PlatformResource()}) as built:
        assert built.platform.ledger is built.platform.ledger
        assert built.platform.landing.root == home.landing
        assert built.platform.lake.root == home.lake
    assert home.ledger.is_file()
    with open_ledger(load_settings()) as ledger:
        assert ledger.deferrals() == ()
