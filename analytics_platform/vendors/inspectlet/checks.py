"""What the shape of inspectlet's tables cannot say by itself: checks only this vendor needs.

Belongs here: named checks on one table's frame. Does not belong here: keys, types, ranges, row floors and drift,
which follow from
the table's declaration (`core.checks`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from analytics_platform.core.vendor_checks import VendorCheck

__all__ = ["CHECKS"]

CHECKS: Final[Sequence[VendorCheck]] = ()
