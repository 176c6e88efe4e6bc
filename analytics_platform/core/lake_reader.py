"""Read access to lake tables as a stream has it, while it extracts and while it forecasts.

Belongs here: the protocol. Does not belong here: views and files (`core.lake`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

__all__ = ["LakeReader"]


class LakeReader(Protocol):
    """Read access to lake tables a stream depends on, as views named `<vendor>.<table>` (anchors already excluded)."""

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Rows of one SELECT; values are bound, never formatted into the text."""
        ...
