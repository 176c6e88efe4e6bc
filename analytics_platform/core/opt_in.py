"""Saying yes: what a class that writes to a vendor wants before it exists, and what a destructive call wants each time.

Belongs here: the two values, and the check that they say what they must. Does not belong here: the calls they allow
(`vendors/<v>/outbound.py`, `vendors/<v>/management.py`), who may give them (settings, the command line).

A reading client cannot be turned into a writing one: it is another class with another transport. So a leaked or
mistyped configuration can at worst read.
"""

from __future__ import annotations

from dataclasses import dataclass

from analytics_platform.core.errors import ConfigurationError

__all__ = ["Confirmation", "WriteOptIn"]


@dataclass(frozen=True, kw_only=True)
class WriteOptIn:
    """An explicit yes to writing at one vendor: passed to the class that writes, never read from a default.

    Args:
        vendor: the vendor this yes is for; another vendor's class refuses it.
        reason: who said so, for the people who read the outbox later ("sites.yaml of shop", "forget 3f2a…").
    """

    vendor: str
    reason: str

    def require(self, vendor: str) -> None:
        """Raises ConfigurationError unless this is a yes to this vendor that gives its reason."""
        if self.vendor != vendor or not self.reason.strip():
            raise ConfigurationError(
                f"Writing to {vendor} was not agreed to: the opt-in is for {self.vendor or 'nobody'}.",
                f'Pass WriteOptIn(vendor="{vendor}", reason="…") where writing is meant.',
            )


@dataclass(frozen=True)
class Confirmation:
    """The words somebody typed before a call that destroys something, for example `delete domain A5kgYzK14m`."""

    phrase: str

    def require(self, phrase: str) -> None:
        """Raises ConfigurationError unless exactly these words were typed."""
        if self.phrase != phrase:
            raise ConfigurationError(
                "This call destroys data at the vendor and was not confirmed.", f"Confirm with the words: {phrase}"
            )
