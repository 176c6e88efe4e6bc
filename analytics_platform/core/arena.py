"""Memory of a page's size is kept for the next page, instead of being given back to the system and asked for again.

Belongs here: the one setting of the C library's allocator that this takes. Does not belong here: anything that holds
memory.

By default glibc maps every block from 128 KiB on anew and gives it back when it is freed: each page of a large answer
then costs 1,200 page faults, more than half of what looking at it costs. Both of its thresholds grow with the largest
block that was ever freed (mallopt(3), M_MMAP_THRESHOLD: "dynamic"), so one large block, never touched, is asked for
and freed. Where the environment sets a threshold (MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_) that setting stays,
and other C libraries do what they always do.
"""

from __future__ import annotations

import functools
from typing import Final

__all__ = ["KEPT_BYTES", "keep_freed_memory"]

KEPT_BYTES: Final = 16 * 1024 * 1024
"""Blocks below are kept; at the end of the heap at most twice as much lies free."""


@functools.lru_cache(maxsize=1)
def keep_freed_memory() -> None:
    """From now on, in this process. Costs microseconds, once."""
    import numpy as np

    np.empty(KEPT_BYTES, np.uint8)
