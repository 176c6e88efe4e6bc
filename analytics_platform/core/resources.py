"""Dagster resources: the platform's own stores, and the shape every vendor's resource has.

Belongs here: opening landing, lake and ledger from settings; the abstract vendor resource; secrets as environment
variables.
Does not belong here: any vendor's credentials or hosts (`vendors/<v>/resource.py`), asset bodies (`core.ingest`).
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import dagster as dg
from pydantic import PrivateAttr

from analytics_platform.core.clock import Clock, SystemClock
from analytics_platform.core.errors import MissingCredentials, Where
from analytics_platform.core.identity import person_key
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.quota_policy import QuotaPolicy, ReportedUsage
from analytics_platform.core.run_notes import RunNote
from analytics_platform.core.sweeping import sweep_killed_runs
from analytics_platform.settings import Settings, load_settings

if TYPE_CHECKING:
    from analytics_platform.core.quota import Ledger

__all__ = [
    "POLITE_WAIT_SECONDS",
    "PlatformResource",
    "VendorResource",
    "open_ledger",
    "secret_variable",
]


def secret_variable(name: str) -> Any:  # str to the type checker, an EnvVar reference to Dagster
    """A secret by the name of its environment variable, so that the UI and the event log only ever hold the name.

    Dagster refuses to start a run when a referenced variable is unset, which would take the other vendors down with
    it; an unset
    variable is therefore an empty value here, and the vendor's resource raises MissingCredentials with every name at
    once.
    """
    return dg.EnvVar(name) if os.environ.get(name) else ""


def open_ledger(settings: Settings, clock: Clock | None = None) -> Ledger:
    """The request ledger: the database named by the environment, else the home's SQLite file."""
    return _open_ledger(_ledger_location(settings), clock or SystemClock())


def _ledger_location(settings: Settings) -> str:
    return settings.database_url or str(settings.home.ledger)


def _open_ledger(location: str, clock: Clock) -> Ledger:
    # A database toolkit is a quarter of the time it takes to import the definitions, and they open no ledger.
    from analytics_platform.core.quota import Ledger

    if "://" not in location:
        Path(location).parent.mkdir(parents=True, exist_ok=True)
    return Ledger.open(location, clock)


POLITE_WAIT_SECONDS: Final = 65.0
"""Longest sleep for a slot of a per-minute limit of our own choosing: just over one window."""


@lru_cache(maxsize=8)
def _shared_ledger(location: str) -> Ledger:
    return _open_ledger(location, SystemClock())


class PlatformResource(dg.ConfigurableResource):  # type: ignore[type-arg]  # generic only for IO managers
    """Landing, lake, ledger and settings of one ANALYTICS_PLATFORM_HOME."""

    _clock: Clock = PrivateAttr(default_factory=SystemClock)
    _note: RunNote | None = PrivateAttr(default=None)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Sweep up after runs that were killed, before a step of this one asks for a pool slot; note that it is alive.

        Dagster sets resources up in the process that runs the steps, before it claims anything for them.
        """
        if context.run is None or context.instance is None:
            return
        settings = self.settings
        sweep_killed_runs(context.instance, settings.home.running)
        self._note = RunNote.open(settings.home.running, context.run.run_id)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """The run is over, however it ended; its note goes."""
        if self._note is not None:
            self._note.close()
            self._note = None

    def note_child(self, pid: int | None) -> None:
        """The process that works for this run now, to be ended if this one is killed; None when it is over."""
        if self._note is not None:
            self._note.tell(pid)

    @property
    def settings(self) -> Settings:
        return load_settings()

    @property
    def clock(self) -> Clock:
        return self._clock

    @property
    def landing(self) -> Landing:
        return Landing(self.settings.home.landing, clock=self._clock)

    @property
    def lake(self) -> Lake:
        settings = self.settings
        return Lake(settings.home.lake, person_key=person_key(settings))

    @property
    def ledger(self) -> Ledger:
        """One ledger object a process and home; the file or server behind it is shared by all."""
        return _shared_ledger(_ledger_location(self.settings))


class VendorResource(dg.ConfigurableResource, ABC):  # type: ignore[type-arg]  # as above
    """One vendor's connection settings. Subclasses hold `base_url` and secrets as fields given by `secret_variable`."""

    @property
    @abstractmethod
    def vendor(self) -> str:
        """The vendor's folder name."""

    @abstractmethod
    def missing_variables(self, ids: Mapping[str, str]) -> tuple[str, ...]:
        """Environment variables a site with these ids needs and does not have; empty when the vendor is on."""

    @abstractmethod
    def connect(self, ids: Mapping[str, str], ledger: Ledger) -> AbstractContextManager[Any]:
        """The vendor's client for a site, metered by the ledger. Call `require` first."""

    @abstractmethod
    def quota_policy(self, ids: Mapping[str, str]) -> QuotaPolicy:
        """What the site's account may spend on reading: what `connect` is metered by."""

    def next_plan(self, ids: Mapping[str, str]) -> tuple[str, QuotaPolicy] | None:
        """Name and policy of the next plan up; None at the top, or where the vendor sells no plans by requests."""
        return None

    def connection_requests(self, ids: Mapping[str, str]) -> int:
        """Requests of the same account that a run costs before its first page (a token)."""
        return 0

    def reported_usage(self, ids: Mapping[str, str], ledger: Ledger) -> ReportedUsage | None:
        """Ask the vendor what it counted, by `Ledger.noting_meter`; None where it does not say. `core.usage` calls
        this, seldom: the question may be counted itself. May raise any VendorError or QuotaError.
        """
        return None

    def require(self, ids: Mapping[str, str]) -> None:
        """Raises MissingCredentials naming every missing variable at once."""
        missing = self.missing_variables(ids)
        if missing:
            raise MissingCredentials(
                f"{self.vendor} is off: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set.",
                f"Set {'it' if len(missing) == 1 else 'them'} (see .env.example and "
                f"vendors/{self.vendor}/README.md), or remove "
                f"{self.vendor} from the site in sites.yaml. The other vendors are not affected.",
                Where(vendor=self.vendor),
            )
