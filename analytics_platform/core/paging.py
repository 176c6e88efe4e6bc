"""Walking a vendor's list, page by page, without ever trusting it to end.

Belongs here: `Page` (what a client yields and landing keeps), the three ways our vendors page, and the guards.
Does not belong here: sending (the client hands in `send`), where records sit (`records_of`), storing pages
(`core.landing`).

A page is yielded before the next request is sent, so a page paid for with quota is on disk before the next one is
bought. Cursors live inside one walk only: Smartlook's "quickly may become invalid" (vendor document, Pagination), so
nothing here can be stored.

    def sessions(self, ...) -> Iterator[Page]:
        def send(next_request: NextRequest) -> Response:
            if next_request.link is not None:
                return self._http.follow("POST", next_request.link, endpoint=ENDPOINT, json=body, retry=True)
            return self._http.request("POST", PATH, endpoint=ENDPOINT, params=next_request.params, json=body,
            retry=True)
        return paginate(send=send, strategy=CursorLink(), records_of=_sessions_of, call="sessions",
                        call_kind="session_search", context={"day": "2026-10-05"})
"""

from __future__ import annotations

import functools
import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from analytics_platform.core.errors import (
    CursorExpired,
    MalformedResponse,
    NotFound,
    PageLoop,
    RequestRejected,
    Where,
)
from analytics_platform.core.http import Response
from analytics_platform.core.strict_json import Listed

__all__ = [
    "CursorLink",
    "NextRequest",
    "OffsetLimit",
    "Page",
    "PageNumber",
    "Progress",
    "Strategy",
    "paginate",
    "single_page",
]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Page:
    """One answer of a vendor, as received, with what is needed to find and decode it again.

    Args:
        call: identity of the logical request inside a batch ("sessions", "breakdown/utm_source/2026-10-05"); same
            call and same sequence is the same page.
        call_kind: which decoder reads it (`TableSpec.calls`).
        sequence: 0-based page number within the call.
        is_last: the call is complete with this page.
        body: as received, after content-encoding.
        status, endpoint, received_at, attempts: of the answer.
        context: for `TableSpec.context`; has "day" when the call is for one day.
        records: number of records in the page.
        digest: a body and its sha256, where somebody has computed it.
        split: a body and its list of records, where somebody has split it off.
    """

    call: str
    call_kind: str
    sequence: int
    is_last: bool
    body: bytes = field(repr=False)
    status: int
    endpoint: str
    received_at: datetime
    context: Mapping[str, str] = field(repr=False)
    records: int
    attempts: int
    digest: tuple[bytes, str] | None = field(default=None, repr=False, compare=False)
    split: tuple[bytes, Listed] | None = field(default=None, repr=False, compare=False)

    @functools.cached_property
    def listed(self) -> Listed | None:
        """The list of records where it is at hand; None where the body has to be split, also because raw line ends in
        it would not do as lines.
        """
        if self.split is None or self.split[0] is not self.body:
            return None
        return None if b"\n" in self.body or b"\r" in self.body else self.split[1]

    @property
    def sha256(self) -> str:
        """Of the body, in hexadecimal; computed anew when the body is another one than `digest` was taken of."""
        if self.digest is not None and self.digest[0] is self.body:
            return self.digest[1]
        return hashlib.sha256(self.body).hexdigest()


@dataclass(frozen=True, kw_only=True)
class NextRequest:
    """What to ask next.

    Args:
        sequence: 0-based number of the page asked for.
        link: the vendor's own link, to be followed verbatim with `HttpClient.follow` and the same body; None for the
            first page and for strategies that count.
        params: paging parameters to add to the request's own (query or form, as the vendor wants); empty when `link`
            is set.
    """

    sequence: int
    link: str | None = None
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a strategy may look at to decide what comes next."""

    sequence: int
    parsed: object
    records: int
    records_before: int
    first_records: int
    response: Response


class Strategy(Protocol):
    """How one vendor pages. A value: it keeps no state between pages."""

    @property
    def expired_statuses(self) -> frozenset[int]:
        """Answers to a followed link that mean "cursor no longer known"."""
        ...

    def first(self) -> NextRequest:
        """The request for page 0."""
        ...

    def after(self, progress: Progress) -> NextRequest | None:
        """The request after this page, or None when it is the last."""
        ...


@dataclass(frozen=True, kw_only=True)
class CursorLink:
    """The answer holds a ready link to the next page (Smartlook `_links.nextPage`); absent, null or "" is the end.

    Args:
        path: where the link sits in the body.
        params: parameters of the first request (`limit`); the vendor carries them on in its links.
        expired_statuses: answers to a followed link that mean "cursor no longer known" and become `CursorExpired`.
    """

    path: tuple[str, ...] = ("_links", "nextPage")
    params: Mapping[str, str] = field(default_factory=dict)
    expired_statuses: frozenset[int] = frozenset({400, 404, 410})

    def first(self) -> NextRequest:
        """Page 0: only `params`."""
        return NextRequest(sequence=0, params=self.params)

    def after(self, progress: Progress) -> NextRequest | None:
        """Follow the link. An empty page with a link goes on: only the guards of `paginate` end an endless list."""
        found: object = progress.parsed
        for name in self.path:
            found = found.get(name) if isinstance(found, dict) else None
        link = _link_text(found)
        return None if link is None else NextRequest(sequence=progress.sequence + 1, link=link)


@dataclass(frozen=True, kw_only=True)
class PageNumber:
    """The request counts pages; no total and no link comes back (Inspectlet `page`, `limit` ≤ 100, newest first).

    The list ends at an empty page or at one shorter than the others. A first page that is short by a round number (20
    of 100) may be a clamped limit instead of the end (contract, Inspectlet 2.3 no. 4): then one more request settles
    it, because a silently lost rest costs more than a request.

    Args:
        size: records asked for per page.
        page_parameter, size_parameter: names on the wire.
        first_page: number of page 0 on the wire.
        clamps: first-page counts below `size` that are read as "perhaps clamped".
    """

    size: int
    page_parameter: str = "page"
    size_parameter: str = "limit"
    first_page: int = 1
    clamps: frozenset[int] = frozenset({10, 20, 25, 50})
    expired_statuses: frozenset[int] = frozenset()

    def first(self) -> NextRequest:
        """Page 0."""
        return self._at(0)

    def after(self, progress: Progress) -> NextRequest | None:
        """The next number, unless this page is empty or short."""
        if _is_short(progress, self.size, self.clamps):
            return None
        return self._at(progress.sequence + 1)

    def _at(self, sequence: int) -> NextRequest:
        params = {self.page_parameter: str(self.first_page + sequence), self.size_parameter: str(self.size)}
        return NextRequest(sequence=sequence, params=params)


@dataclass(frozen=True, kw_only=True)
class OffsetLimit:
    """Offset and limit, with links where the vendor sends them.

    Kissmetrics: body `links` or `link`, the `Link` header, `pagination.total`.

    Order of trust: a `rel=next` link; any other link (then there is no next: the vendor omits it at the end, recorded
    wire of 2015); `total`; the length of the page.

    Args:
        size: records asked for per page.
        offset_parameter, size_parameter: names on the wire.
        total_path: where the total sits in the body.
        clamps: as in `PageNumber`, for bodies with neither links nor total.
    """

    size: int
    offset_parameter: str = "offset"
    size_parameter: str = "limit"
    total_path: tuple[str, ...] = ("pagination", "total")
    clamps: frozenset[int] = frozenset({10, 20, 25, 50})
    expired_statuses: frozenset[int] = frozenset()

    def first(self) -> NextRequest:
        """Offset 0."""
        return self._at(0, 0)

    def after(self, progress: Progress) -> NextRequest | None:
        """See the order of trust above."""
        received = progress.records_before + progress.records
        total = self._total(progress.parsed)
        links = _body_links(progress.parsed) or _header_links(progress.response.headers.get("link", ""))
        paging_links = {
            rel: href for rel, href in links if rel in {"next", "prev", "previous", "first", "last", "self"}
        }
        if paging_links:
            link = _link_text(paging_links.get("next"))
            if link is not None:
                return NextRequest(sequence=progress.sequence + 1, link=link)
            if total is not None and total != received:
                _log.warning(
                    "%s: the links end after %d records, the vendor's total says %d",
                    progress.response.endpoint,
                    received,
                    total,
                )
            return None
        if total is not None:
            is_done = progress.records == 0 or received >= total
        else:
            is_done = _is_short(progress, self.size, self.clamps)
        return None if is_done else self._at(progress.sequence + 1, received)

    def _at(self, sequence: int, offset: int) -> NextRequest:
        params = {self.offset_parameter: str(offset), self.size_parameter: str(self.size)}
        return NextRequest(sequence=sequence, params=params)

    def _total(self, parsed: object) -> int | None:
        found = parsed
        for name in self.total_path:
            found = found.get(name) if isinstance(found, dict) else None
        return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None


def paginate(
    *,
    send: Callable[[NextRequest], Response],
    strategy: Strategy,
    records_of: Callable[[object], list[object]],
    call: str,
    call_kind: str,
    context: Mapping[str, str],
    records_at: str | None = None,
    vendor: str | None = None,
    max_pages: int = 10_000,
    max_empty_pages: int = 10,
) -> Iterator[Page]:
    """Walk a list; nothing is sent before the first `next()`, and page n+1 is asked for only after page n was taken.

    Args:
        send: sends one request; see the module docstring.
        strategy: `CursorLink`, `PageNumber` or `OffsetLimit`.
        records_of: the list of records in a parsed body; raises for a body that is an error.
        call: stamped on each `Page`.
        call_kind: stamped on each `Page`.
        context: stamped on each `Page`.
        records_at: member of the body that is the list of records, where nobody looks into them here: `records_of` then
            gets a body whose records are not built.
        vendor: for messages.
        max_pages: the walk is refused beyond this many.
        max_empty_pages: consecutive pages without a record before the walk is refused (Fivetran's figure).

    Raises:
        PageLoop: a link, a set of parameters or a non-empty page came a second time, or a cap was passed. No page was
            `is_last`, so nothing counts as complete.
        CursorExpired: a followed link is no longer known; restart the window.
        PlatformError: whatever `send` and `records_of` raise.
    """
    guard = _LoopGuard(where=Where(vendor=vendor), max_pages=max_pages, max_empty_pages=max_empty_pages)
    upcoming: NextRequest | None = strategy.first()
    received = first_records = 0
    while upcoming is not None:
        response = _send(send, upcoming, strategy)
        parsed = response.json() if records_at is None else response.document.outline(records_at)
        records = len(records_of(parsed))
        guard.saw_page(response, records)
        if upcoming.sequence == 0:
            first_records = records
        progress = Progress(
            sequence=upcoming.sequence,
            parsed=parsed,
            records=records,
            records_before=received,
            first_records=first_records,
            response=response,
        )
        received += records
        following = strategy.after(progress)
        if following is not None:
            guard.will_ask(following, response)
        yield _page(
            response,
            sequence=upcoming.sequence,
            is_last=following is None,
            call=call,
            call_kind=call_kind,
            context=context,
            records=records,
            records_at=records_at,
        )
        upcoming = following


def single_page(response: Response, *, call: str, call_kind: str, context: Mapping[str, str], records: int) -> Page:
    """The one page of a call that is not paged."""
    return _page(response, sequence=0, is_last=True, call=call, call_kind=call_kind, context=context, records=records)


def _page(
    response: Response,
    *,
    sequence: int,
    is_last: bool,
    call: str,
    call_kind: str,
    context: Mapping[str, str],
    records: int,
    records_at: str | None = None,
) -> Page:
    listed = None if records_at is None else response.document.listed(records_at)
    return Page(
        call=call,
        call_kind=call_kind,
        sequence=sequence,
        is_last=is_last,
        body=response.body,
        status=response.status,
        endpoint=response.endpoint,
        received_at=response.received_at,
        context=context,
        records=records,
        attempts=response.attempts,
        digest=(response.body, response.sha256),
        split=None if listed is None else (response.body, listed),
    )


def _send(send: Callable[[NextRequest], Response], upcoming: NextRequest, strategy: Strategy) -> Response:
    try:
        return send(upcoming)
    except (RequestRejected, NotFound) as error:
        if upcoming.link is None or error.status not in strategy.expired_statuses:
            raise
        raise CursorExpired(
            f"The vendor refused the link to page {upcoming.sequence + 1} with {error.status}: its cursor is gone.",
            "The window is restarted from its edge; landed pages stay. A smaller window ends before cursors do.",
            error.where,
            error.status,
        ) from error


class _LoopGuard:
    """Remembers what was asked and what came back within one walk."""

    def __init__(self, *, where: Where, max_pages: int, max_empty_pages: int) -> None:
        self._where = where
        self._max_pages = max_pages
        self._max_empty_pages = max_empty_pages
        self._asked: set[tuple[object, ...]] = set()
        self._bodies: set[str] = set()
        self._empty_pages = 0

    def saw_page(self, response: Response, records: int) -> None:
        if records == 0:
            # Empty pages are alike by nature; only their number says something.
            self._empty_pages += 1
            if self._empty_pages > self._max_empty_pages:
                self._refuse(f"{self._empty_pages} pages in a row held no record and the list did not end", response)
            return
        self._empty_pages = 0
        digest = response.sha256
        if digest in self._bodies:
            self._refuse("the same page came a second time", response)
        self._bodies.add(digest)

    def will_ask(self, following: NextRequest, response: Response) -> None:
        identity = (following.link, *sorted(following.params.items()))
        if identity in self._asked:
            self._refuse("the same link to a next page came a second time", response)
        self._asked.add(identity)
        if following.sequence >= self._max_pages:
            self._refuse(f"the list is longer than {self._max_pages} pages", response)

    def _refuse(self, reason: str, response: Response) -> None:
        raise PageLoop(
            f"Paging stopped: {reason}.",
            "Nothing of this call counts as complete. Ask for a smaller window; report it if it stays.",
            Where(vendor=self._where.vendor, endpoint=response.endpoint),
            response.status,
        )


def _is_short(progress: Progress, size: int, clamps: frozenset[int]) -> bool:
    if progress.records == 0:
        return True
    if progress.sequence == 0:
        return progress.records < size and progress.records not in clamps
    return progress.records < min(size, progress.first_records)


def _link_text(found: object) -> str | None:
    if found is None or found == "":
        return None
    if not isinstance(found, str):
        raise MalformedResponse(f"The link to the next page is of type {type(found).__name__}, not text.")
    return found


def _body_links(parsed: object) -> list[tuple[str, object]]:
    """Top-level `links` (or `link`) of an envelope as (rel, href); templated links are not pages and are left out."""
    if not isinstance(parsed, dict):
        return []
    listed = parsed.get("links") or parsed.get("link")
    if not isinstance(listed, list):
        return []
    return [
        (str(link.get("rel", "")).lower(), link.get("href"))
        for link in listed
        if isinstance(link, dict) and link.get("templated") not in (True, "true")
    ]


_LINK_VALUE = re.compile(r'<([^<>]{0,8192})>((?:\s*;\s*[\w*!-]+\s*(?:=\s*(?:"[^"]*"|[^\s",;]*))?)*)')
_LINK_PARAMETER = re.compile(r';\s*([\w*!-]+)\s*(?:=\s*(?:"([^"]*)"|([^\s",;]*)))?')


def _header_links(header: str) -> list[tuple[str, object]]:
    """RFC 8288 `Link` as (rel, href), commas inside <> respected; templated ones are left out."""
    links: list[tuple[str, object]] = []
    for href, parameters in _LINK_VALUE.findall(header):
        named = {name.lower(): quoted or plain for name, quoted, plain in reversed(_LINK_PARAMETER.findall(parameters))}
        if named.get("templated", "").lower() != "true":
            links += [(rel, href) for rel in named.get("rel", "").lower().split()]
    return links
