"""Cutting page views into sessions by an idle rule and a length cap, vectorised.

Belongs here: the one rule with its parameters. Does not belong here: which vendor uses which parameters (its observer).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = ["sessionize"]

Ints = npt.NDArray[np.int64]


def sessionize(
    views: pd.DataFrame, *, idle_seconds: float, cap_seconds: float, drop_reloads: bool = False
) -> pd.DataFrame:
    """Add the session of each view.

    A view starts a new session when the gap to the visitor's previous view is longer than `idle_seconds` (equal is
    not), or when it is more than `cap_seconds` after the start of the running session.

    Args:
        views: at least site_key, visitor_id, at_ms, url; any order.
        idle_seconds: the idle rule.
        cap_seconds: the longest a session may last.
        drop_reloads: leave out views whose full URL equals the previous view's in the same session. They still keep the
            session alive: only the count of views changes.

    Returns:
        A sorted copy with session_index (int64, 0… in the order site, visitor, start), session_start_ms and
        session_end_ms (the last view, dropped reloads included).
    """
    frame = views.sort_values(["site_key", "visitor_id", "at_ms", "url"], kind="stable", ignore_index=True)
    if frame.empty:
        return frame.assign(
            **{name: np.zeros(0, np.int64) for name in ("session_index", "session_start_ms", "session_end_ms")}
        )
    at = frame["at_ms"].to_numpy(dtype=np.int64)
    site = pd.factorize(frame["site_key"])[0]
    visitor = frame["visitor_id"].to_numpy()
    starts = np.ones(len(frame), dtype=bool)
    starts[1:] = (site[1:] != site[:-1]) | (visitor[1:] != visitor[:-1]) | (np.diff(at) > idle_seconds * 1000)
    _split_at_cap(starts, at, cap_seconds * 1000)
    session = np.cumsum(starts) - 1
    first = np.flatnonzero(starts)
    last = np.append(first[1:], len(frame)) - 1
    frame["session_index"] = session.astype(np.int64)
    frame["session_start_ms"] = at[first][session]
    frame["session_end_ms"] = at[last][session]
    if not drop_reloads:
        return frame
    url = frame["url"].to_numpy(dtype=object)
    reload = np.zeros(len(frame), dtype=bool)
    reload[1:] = ~starts[1:] & (url[1:] == url[:-1])
    return frame[~reload].reset_index(drop=True)


def _split_at_cap(starts: npt.NDArray[np.bool_], at: Ints, cap_ms: float) -> None:
    """Mark the starts the cap adds, in place: each round takes the first view beyond the cap in every session."""
    while True:
        first = np.flatnonzero(starts)
        session = np.cumsum(starts) - 1
        beyond = np.flatnonzero(at - at[first][session] > cap_ms)
        if not len(beyond):
            return
        _, earliest = np.unique(session[beyond], return_index=True)
        starts[beyond[earliest]] = True
