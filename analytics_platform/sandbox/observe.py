"""What every tag-based observer needs: whose page views its tag saw, cut into its own sessions, with stable ids.

Belongs here: loss filters, session frames, joining events to sessions, stable pseudo-random ids and JSON answers, all
free of any one vendor. Does not belong here: a vendor's definitions (idle time, caps, units), its routes, or the truth.
Pirsch sees the server side, not a tag, and needs none of this.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from hashlib import blake2b
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
from starlette.requests import Request
from starlette.responses import Response

from analytics_platform.sandbox.sessionize import sessionize
from analytics_platform.sandbox.truth import World

__all__ = [
    "DAY_MS",
    "Refusal",
    "SessionFrame",
    "answer",
    "build_sessions",
    "fault_kind",
    "form_fields",
    "groups",
    "identifier",
    "iso_millis",
    "iso_seconds",
    "parse_day",
    "records",
    "repeated",
    "site_views",
    "stable_fraction",
    "tagged_visitors",
    "utc_days",
    "uuid_text",
    "visitor_positions",
]

DAY_MS: Final = 86_400_000
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()


class Refusal(Exception):  # an answer, not a failure of ours
    """An answer other than 200: `status`, the JSON `body` (or bytes as they are), and headers."""

    def __init__(self, status: int, body: object = b"", headers: dict[str, str] | None = None) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.body = body
        self.headers = headers or {}

    def response(self) -> Response:
        """The refusal as it goes over the wire."""
        return answer(self.body, status=self.status, headers=self.headers)


def answer(body: object, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer; `bytes` are sent as they are (already encoded, or empty)."""
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return Response(content, status_code=status, headers=headers, media_type="application/json" if content else None)


def fault_kind(request: Request) -> str:
    """Kind of the fault ordered for this request, "" when none: observers act on the flags they understand."""
    return str(getattr(getattr(request.state, "fault", None), "kind", ""))


def form_fields(body: bytes) -> dict[str, str]:
    """Fields of an `application/x-www-form-urlencoded` body; of a repeated one the last."""
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


def repeated(rows: list[Any], kind: str) -> list[Any]:
    """The rows of a page, the first half of them a second time when the fault `duplicate_rows` is ordered."""
    return rows + rows[: (len(rows) + 1) // 2] if kind == "duplicate_rows" else rows


def identifier(*parts: object, length: int = 24) -> str:
    """A stable lower-case hexadecimal id of what it names: same parts, same id."""
    return blake2b("\x1f".join(map(str, parts)).encode(), digest_size=32).hexdigest()[:length]


def uuid_text(*parts: object) -> str:
    """A stable UUID-shaped text (Kissmetrics' are v1-like: no version is promised)."""
    digest = identifier(*parts, length=32)
    return f"{digest[:8]}-{digest[8:12]}-0131-{digest[16:20]}-{digest[20:32]}"


def stable_fraction(values: npt.ArrayLike, salt: int) -> npt.NDArray[np.float64]:
    """A uniform 0..1 for each integer, the same in every run (splitmix64); `salt` makes draws independent."""
    with np.errstate(over="ignore"):
        mixed = np.asarray(values).astype(np.uint64) + np.uint64((salt * 0x9E3779B97F4A7C15) % 2**64)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
    return (mixed >> np.uint64(11)).astype(np.float64) / float(2**53)


def utc_days(at_ms: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Days since 1970-01-01 (UTC) of epoch milliseconds."""
    return np.asarray(at_ms, dtype=np.int64) // DAY_MS


def parse_day(text: object) -> int:
    """Days since 1970-01-01 of `YYYY-MM-DD` (anything behind the date is ignored); raises ValueError."""
    if not isinstance(text, str):
        raise ValueError("a date is a string")
    return date.fromisoformat(text[:10]).toordinal() - _EPOCH_ORDINAL


def iso_millis(at_ms: int) -> str:
    """`2026-10-05T08:00:00.123Z`."""
    instant = datetime.fromtimestamp(at_ms // 1000, tz=UTC)
    return f"{instant:%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}Z"


def iso_seconds(at_ms: int, *, suffix: str = "Z") -> str:
    """`2026-10-05T08:00:00` and the suffix."""
    return f"{datetime.fromtimestamp(at_ms // 1000, tz=UTC):%Y-%m-%dT%H:%M:%S}{suffix}"


def groups(codes: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Bounds of runs of equal codes in a sorted array: rows of code `i` are `[bounds[i], bounds[i + 1])`."""
    return np.searchsorted(codes, np.arange(count + 1)).astype(np.int64)


def tagged_visitors(
    world: World, site_key: str, *, block_cut: float, exclude_browsers: Iterable[str] = ()
) -> pd.DataFrame:
    """The site's visitors on whose machine a consent-bound tag runs, indexed from 0 by visitor_id.

    Consenting people (and bots that run JavaScript: they never refuse a banner), minus those whose blocker knows the
    vendor. `block_cut` is the blocked share: who ranks lower is lost, so a vendor on more lists loses more.
    """
    visitors = world.visitors
    blocked = visitors["block_rank"].to_numpy(float) < block_cut
    runs_tags = ~visitors["is_bot"].to_numpy(bool) | (visitors["bot_kind"] == "headless_js").to_numpy(bool)
    keep = (
        (visitors["site_key"] == site_key).to_numpy(bool)
        & visitors["consents"].to_numpy(bool)
        & runs_tags
        & ~blocked
        & ~visitors["browser"].isin(list(exclude_browsers)).to_numpy(bool)
    )
    tagged: pd.DataFrame = visitors.loc[keep].sort_values("visitor_id", kind="stable").reset_index(drop=True)
    return tagged


def site_views(world: World, site_key: str, visitors: pd.DataFrame) -> pd.DataFrame:
    """Page views of these visitors on the site, sorted by (visitor_id, at_ms, url) as in the truth."""
    views = world.views
    keep = (views["site_key"] == site_key).to_numpy(bool)
    keep &= _member(views["visitor_id"].to_numpy(np.int64), visitors["visitor_id"].to_numpy(np.int64))
    return views.loc[keep].reset_index(drop=True)


def _member(values: npt.NDArray[np.int64], sorted_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    if not len(sorted_ids):
        return np.zeros(len(values), dtype=bool)
    position = np.minimum(np.searchsorted(sorted_ids, values), len(sorted_ids) - 1)
    return np.asarray(sorted_ids[position] == values, dtype=np.bool_)


@dataclass(frozen=True)
class SessionFrame:
    """One observer's sessions on one site, in order of (visitor, start).

    Attributes:
        views: the page views it saw, grouped by session: session `i` owns rows `[bounds[i], bounds[i + 1])`.
        bounds: see `views`.
        visitor: position of the session's visitor in the visitors frame it was built from.
        start_ms, last_view_ms: epoch milliseconds of the first and the last view.
        idle_ms, cap_ms: the rule the sessions were cut with.
    """

    views: pd.DataFrame
    bounds: npt.NDArray[np.int64]
    visitor: npt.NDArray[np.int64]
    start_ms: npt.NDArray[np.int64]
    last_view_ms: npt.NDArray[np.int64]
    idle_ms: int
    cap_ms: int

    def __len__(self) -> int:
        return len(self.start_ms)

    def keep(self, mask: npt.NDArray[np.bool_]) -> SessionFrame:
        """Only the sessions of the mask, with their views."""
        counts = np.diff(self.bounds)
        views = self.views.loc[np.repeat(mask, counts)].reset_index(drop=True)
        bounds = np.concatenate(([0], np.cumsum(counts[mask]))).astype(np.int64)
        return SessionFrame(
            views, bounds, self.visitor[mask], self.start_ms[mask], self.last_view_ms[mask], self.idle_ms, self.cap_ms
        )

    def locate(self, visitor: npt.NDArray[np.int64], at_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The session each (visitor position, instant) falls in; -1 where this observer had none open.

        An instant belongs to the visitor's latest session that began at or before it, unless that one was over by then:
        more than the idle time after its last view, or beyond the cap.
        """
        if not len(self):
            return np.full(len(at_ms), -1, dtype=np.int64)
        # 2^42 ms is the year 2109; visitors stay below 2^20, so the pair fits one int64 and sorts as the pair does.
        keys = (self.visitor << 42) | self.start_ms
        found = np.searchsorted(keys, (visitor << 42) | at_ms, side="right") - 1
        safe = np.maximum(found, 0)
        inside = (found >= 0) & (visitor >= 0) & (self.visitor[safe] == visitor)
        inside &= at_ms - self.last_view_ms[safe] <= self.idle_ms
        inside &= at_ms - self.start_ms[safe] <= self.cap_ms
        return np.where(inside, found, -1).astype(np.int64)


def visitor_positions(visitors: pd.DataFrame, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Position of each visitor id in the visitors frame, -1 when it is not in it."""
    known = visitors["visitor_id"].to_numpy(np.int64)
    if not len(known):
        return np.full(len(ids), -1, dtype=np.int64)
    position = np.searchsorted(known, ids)
    safe = np.minimum(position, len(known) - 1)
    return np.where(known[safe] == ids, safe, -1).astype(np.int64)


def build_sessions(views: pd.DataFrame, visitors: pd.DataFrame, *, idle_seconds: int, cap_seconds: int) -> SessionFrame:
    """Cut the views (sorted by visitor and time) into sessions by the observer's own rule."""
    cut = sessionize(views, idle_seconds=idle_seconds, cap_seconds=cap_seconds).reset_index(drop=True)
    visitor = visitor_positions(visitors, cut["visitor_id"].to_numpy(np.int64))
    start = cut["session_start_ms"].to_numpy(np.int64)
    at_ms = cut["at_ms"].to_numpy(np.int64)
    first = np.ones(len(cut), dtype=bool)
    first[1:] = (visitor[1:] != visitor[:-1]) | (start[1:] != start[:-1])
    begins = np.flatnonzero(first)
    bounds = np.concatenate((begins, [len(cut)])).astype(np.int64)
    return SessionFrame(
        views=cut,
        bounds=bounds,
        visitor=visitor[begins],
        start_ms=at_ms[begins],
        last_view_ms=at_ms[bounds[1:] - 1] if len(begins) else at_ms[:0],
        idle_ms=idle_seconds * 1000,
        cap_ms=cap_seconds * 1000,
    )


def records(frame: pd.DataFrame, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """Rows as tuples of plain Python values, in column order (far quicker than iterrows)."""
    return list(zip(*(frame[column].tolist() for column in columns), strict=True))
