"""Inspectlet's API v1, one method an endpoint: asks, pages, and hands over what came back.

Belongs here: paths, the search form with every documented condition, both envelopes, errors inside a 200. Does not
belong here: which days to ask for (`streams`), what the fields mean (`tables`), Dagster, files. The API has nothing
that writes, and the transport sends GET and POST only.

Source: vendor_docs/inspectlet.txt; contracts/inspectlet §2.1 (envelope, double encoding), §2.3 (traps).
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, NoReturn, Self

from pydantic import SecretStr

from analytics_platform.core.auth import Basic
from analytics_platform.core.clock import SYSTEM_CLOCK, Clock
from analytics_platform.core.country_codes import COUNTRY_CODES
from analytics_platform.core.endpoints import endpoint
from analytics_platform.core.errors import (
    AuthenticationFailed,
    ConfigurationError,
    MalformedResponse,
    NotFound,
    PermissionDenied,
    VendorError,
    VendorReportedError,
    Where,
)
from analytics_platform.core.http import HttpClient, HttpLimits, Meter, NullMeter, Response
from analytics_platform.core.origin import path_segment
from analytics_platform.core.paging import NextRequest, Page, PageNumber, paginate, single_page
from analytics_platform.core.redaction import redact
from analytics_platform.core.strict_json import parse

__all__ = [
    "BROWSERS",
    "DEFAULT_BASE_URL",
    "MAX_PAGE",
    "URL_OPERATORS",
    "InspectletClient",
    "SessionSearch",
    "Tag",
    "UrlMatch",
    "records_of",
]

_VENDOR = "inspectlet"
_DOCUMENT = "vendor document, "
DEFAULT_BASE_URL = "https://api.inspectlet.com"
MAX_PAGE: Final = 100
"""The documented maximum of `limit`: beyond it the vendor may clamp in silence, so more is refused here."""

BROWSERS: Final[tuple[str, ...]] = (
    "chrome", "firefox", "safari", "mobile safari", "chrome mobile (ios)", "ie", "android", "opera", "other",
)  # fmt: skip
"""Families the vendor knows, lower case and with their spaces (contract §2.3, trap 10)."""

URL_OPERATORS: Final[tuple[str, ...]] = (
    "is", "beginswith", "contains", "patternmatch", "notis", "notbeginswith", "notcontains",
)  # fmt: skip
"""How a URL is matched (vendor document, Searching by URLs)."""

Browser = Literal[
    "chrome", "firefox", "safari", "mobile safari", "chrome mobile (ios)", "ie", "android", "opera", "other"
]  # fmt: skip
UrlOperator = Literal["is", "beginswith", "contains", "patternmatch", "notis", "notbeginswith", "notcontains"]

_SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*://")


@dataclass(frozen=True, kw_only=True)
class Tag:
    """A tag that a session must have.

    Args:
        name: as the site set it; the vendor's sample finds `converted-purchase` by `converted`, so a name may match
            longer ones.
        value: its value, any when None. Text by the document; True as in its sample, which comes back as `"1"`.
    """

    name: str
    value: str | bool | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class UrlMatch:
    """A condition on a page's URL.

    Args:
        url: what to look for. A scheme is taken off: the document's examples have none although stored URLs do, so
            one would match nothing (contract §2.3, trap 12). `*` stands for anything with `patternmatch`.
        operator: one of `URL_OPERATORS`.
    """

    url: str
    operator: UrlOperator = "is"

    def body(self) -> dict[str, str]:
        """As sent."""
        return {"operator": self.operator, "url": _SCHEME.sub("", self.url)}


@dataclass(frozen=True, kw_only=True)
class SessionSearch:
    """What to search for; all conditions must hold, those left out are not sent. The names carry the units.

    Whether the vendor's bounds are inclusive, and whether it means the start or any part of a session, is not said:
    ask with a margin. Without a range the vendor's own window applies, which it does not state.

    Args:
        start, end: aware instants of a custom range; both or none.
        last: `week` or `30days` before now, instead of a custom range.
        display_name: the visitor's name, exactly as the site gave it.
        country: ISO 3166-1 alpha-2, upper case (the document says ISO 639, which would be a language).
        ip_address: the visitor's.
        browser: one of `BROWSERS`.
        device: `desktop` or `phone`: there is no tablet.
        includes_new, includes_returning: which visitors; not neither.
        tags: tags of the session, joined by `tags_operator`.
        tags_operator: `and`: all of them; `or`: any.
        is_starred_only: only sessions an analyst starred.
        pages_at_least, pages_at_most: number of pages (`seslength_*`: "duration in pages").
        duration_seconds_at_least, duration_seconds_at_most: length in seconds (`sestime_*`), although answers give
            milliseconds.
        start_page, visited_page, exit_page: first, any and last page.
        traffic_source: in the vendor's words, which it does not list.

    Raises:
        ConfigurationError: a value the vendor does not have, or a condition that nothing can meet.
    """

    start: datetime | None = None
    end: datetime | None = None
    last: Literal["30days", "week"] | None = None
    display_name: str | None = field(default=None, repr=False)
    country: str | None = None
    ip_address: str | None = field(default=None, repr=False)
    browser: Browser | None = None
    device: Literal["desktop", "phone"] | None = None
    includes_new: bool = True
    includes_returning: bool = True
    tags: Sequence[Tag] = ()
    tags_operator: Literal["and", "or"] = "and"
    is_starred_only: bool = False
    pages_at_least: int | None = None
    pages_at_most: int | None = None
    duration_seconds_at_least: int | None = None
    duration_seconds_at_most: int | None = None
    start_page: UrlMatch | None = None
    visited_page: UrlMatch | None = None
    exit_page: UrlMatch | None = None
    traffic_source: str | None = None

    def __post_init__(self) -> None:
        self._check_range()
        self._check_values()
        _check_bounds("pages", self.pages_at_least, self.pages_at_most)
        _check_bounds("seconds", self.duration_seconds_at_least, self.duration_seconds_at_most)

    def conditions(self) -> dict[str, object]:
        """The search object as the document names it; instants as strings of Unix seconds (contract §2.1)."""
        found: dict[str, object] = {
            "displayname": self.display_name,
            "country": self.country,
            "ipaddress": self.ip_address,
            "browser": self.browser,
            "devices": self.device,
            "showstarredonly": True if self.is_starred_only else None,
            # Two names that sound alike: session length counts pages, session time counts seconds (trap 2).
            "seslength_start": self.pages_at_least,
            "seslength_end": self.pages_at_most,
            "sestime_start": self.duration_seconds_at_least,
            "sestime_end": self.duration_seconds_at_most,
            "startpage": self.start_page and self.start_page.body(),
            "visitedpage": self.visited_page and self.visited_page.body(),
            "exitpage": self.exit_page and self.exit_page.body(),
            "trafficsource": self.traffic_source,
            "newold": self._visitors(),
            "tags": self._tags(),
            **self._range(),
        }
        return {name: value for name, value in found.items() if value is not None}

    def form_value(self) -> str:
        """The `search` field: JSON inside a form."""
        return json.dumps(self.conditions(), separators=(",", ":"))

    def _range(self) -> dict[str, object]:
        if self.last is not None:
            return {"daterange": self.last}
        if self.start is None or self.end is None:
            return {}
        bounds = {"start": str(math.floor(self.start.timestamp())), "end": str(math.ceil(self.end.timestamp()))}
        return {"daterange": "custom", "daterangecustom": bounds}

    def _visitors(self) -> dict[str, bool] | None:
        if self.includes_new and self.includes_returning:
            return None
        return {"new": self.includes_new, "old": self.includes_returning}

    def _tags(self) -> dict[str, object] | None:
        if not self.tags:
            return None
        listed: list[dict[str, str | bool]] = [
            {"tag": tag.name} if tag.value is None else {"tag": tag.name, "value": tag.value} for tag in self.tags
        ]
        return {"tagslist": listed, "operator": self.tags_operator}

    def _check_range(self) -> None:
        if (self.start is None) != (self.end is None):
            _refuse("A custom range has a start and an end", "An open window shifts while it is paged: close it.")
        if self.last is not None and self.start is not None:
            _refuse("A search has one range: `last`, or start and end")
        if self.start is not None and self.end is not None:
            if self.start.tzinfo is None or self.end.tzinfo is None:
                _refuse("The range needs aware instants")
            if self.start > self.end:
                _refuse("The range ends before it starts")

    def _check_values(self) -> None:
        if self.country is not None and self.country not in COUNTRY_CODES:
            _refuse("The country is no ISO 3166-1 alpha-2 code in upper case", "Write US, GB, CZ, …")
        if self.ip_address is not None and not _is_address(self.ip_address):
            _refuse("The IP address cannot be read")
        if not (self.includes_new or self.includes_returning):
            _refuse("Visitors that are neither new nor returning do not exist")
        chosen = {
            "last": (self.last, ("30days", "week")),
            "browser": (self.browser, BROWSERS),
            "device": (self.device, ("desktop", "phone")),
            "tags_operator": (self.tags_operator, ("and", "or")),
            **{name: (match and match.operator, URL_OPERATORS) for name, match in self._url_matches().items()},
        }
        for name, (value, known) in chosen.items():
            if value is not None and value not in known:
                _refuse(f"{name} does not have this value", f"It has: {', '.join(known)}.")
        # The vendor reads an empty text as "no condition": it would answer everybody.
        texts = (self.display_name, self.traffic_source, *(tag.name for tag in self.tags))
        urls = (match and match.body()["url"] for match in self._url_matches().values())
        if "" in (*texts, *urls):
            _refuse("A condition is empty", "Leave it out.")

    def _url_matches(self) -> dict[str, UrlMatch | None]:
        return {"start_page": self.start_page, "visited_page": self.visited_page, "exit_page": self.exit_page}


def _check_bounds(unit: str, at_least: int | None, at_most: int | None) -> None:
    if any(bound is not None and (isinstance(bound, bool) or bound < 0) for bound in (at_least, at_most)):
        _refuse(f"A number of {unit} is not negative")
    if at_least is not None and at_most is not None and at_least > at_most:
        _refuse(f"The bounds of {unit} exclude each other")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _refuse(what: str, next_step: str = "") -> NoReturn:
    raise ConfigurationError(f"{what}; nothing was sent.", next_step, Where(vendor=_VENDOR))


_EVERYTHING = SessionSearch()


class InspectletClient:
    """One Inspectlet account. Thread-safe as `HttpClient` is; a context manager.

    Every method may raise the VendorError and QuotaError classes of `core.errors`.
    """

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    @classmethod
    def connect(
        cls,
        *,
        username: SecretStr,
        api_token: SecretStr,
        base_url: str = DEFAULT_BASE_URL,
        variables: tuple[str, str] = ("INSPECTLET_USERNAME", "INSPECTLET_API_TOKEN"),
        meter: Meter | None = None,
        limits: HttpLimits | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> Self:
        """A client on the pinned origin of `base_url`.

        Raises:
            ConfigurationError: the base URL, user name or token cannot be used; names the variable.
        """
        http = HttpClient(
            vendor=_VENDOR,
            base_url=base_url,
            auth=Basic(username, api_token, variables=variables),
            meter=meter or NullMeter(),
            limits=limits or HttpLimits(),
            path_prefixes=("/v1/",),
            methods=frozenset({"GET", "POST"}),
            clock=clock,
        )
        return cls(http)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @endpoint("GET /v1/websites", source=_DOCUMENT + "Listing Your Sites")
    def websites(self, *, call: str = "websites", context: Mapping[str, str] | None = None) -> Page:
        """Every website of the account; `date_added` in Unix seconds (call kind `website_list`)."""
        response = self._get_websites()
        records = len(_records(response.json(), response.endpoint))
        return single_page(response, call=call, call_kind="website_list", context=context or {}, records=records)

    @endpoint("POST /v1/websites/{wid}/sessions", source=_DOCUMENT + "Listing and Searching Sessions")
    def search_sessions(
        self,
        wid: str,
        search: SessionSearch = _EVERYTHING,
        *,
        call: str,
        context: Mapping[str, str] | None = None,
        limit: int = MAX_PAGE,
        first_page: int = 1,
    ) -> Iterator[Page]:
        """Sessions that meet the search, newest first (call kind `session_search`).

        There is no total and no link: the walk ends at a short page. Close the range, or pages shift while sessions
        arrive; the same session may then come twice (its key is wid and sid). `session_duration` has been seen in
        milliseconds although documented in seconds (contract §2.3, traps 1 and 4).

        Args:
            wid: the website.
            search: without conditions it is left out, and the vendor lists the most recent sessions.
            call: stamped on the pages.
            context: stamped on the pages.
            limit: sessions a page, 1 to 100.
            first_page: where to begin, from 1.

        Raises:
            ConfigurationError: a limit or page the vendor does not have; nothing was sent.
            PermissionDenied: the credentials are good, but not for this website.
            VendorReportedError: an error inside a 200.
        """
        if isinstance(limit, bool) or not 1 <= limit <= MAX_PAGE or first_page < 1:
            _refuse(f"A page has 1 to {MAX_PAGE} sessions, and pages count from 1")
        path = f"/v1/websites/{path_segment(wid)}/sessions"
        label = "POST /v1/websites/{wid}/sessions"
        form = {"search": search.form_value()} if search.conditions() else {}

        def send(upcoming: NextRequest) -> Response:
            try:
                # A search only reads, so it may be repeated.
                return self._http.request("POST", path, endpoint=label, form={**form, **upcoming.params}, retry=True)
            except AuthenticationFailed as error:
                raise self._explained(error, label) from error

        return paginate(
            send=send,
            strategy=PageNumber(size=limit, first_page=first_page),
            records_of=lambda parsed: _records(parsed, label),
            call=call,
            call_kind="session_search",
            context=context or {},
            vendor=_VENDOR,
        )

    @endpoint("GET /v1/websites/{wid}/sessions/{sid}", source=_DOCUMENT + "Retrieving an Individual Session")
    def session(self, wid: str, sid: str, *, call: str = "session", context: Mapping[str, str] | None = None) -> Page:
        """One session: documented as an object, sampled as an array of one, either is read (call kind `session`).

        Raises:
            RequestRejected: no such session (the vendor documents 400, 401 and 429 only).
            NotFound: the answer is an empty list.
            PermissionDenied: the credentials are good, but not for this website.
        """
        label = "GET /v1/websites/{wid}/sessions/{sid}"
        path = f"/v1/websites/{path_segment(wid)}/sessions/{path_segment(sid)}"
        try:
            response = self._http.request("GET", path, endpoint=label)
        except AuthenticationFailed as error:
            raise self._explained(error, label) from error
        records = len(_records(response.json(), label))
        if records == 0:
            raise NotFound(
                "The vendor answered without a session.", where=Where(vendor=_VENDOR, endpoint=label), status=200
            )
        return single_page(response, call=call, call_kind="session", context=context or {}, records=records)

    def _get_websites(self) -> Response:
        return self._http.request("GET", "/v1/websites", endpoint="GET /v1/websites")

    def _explained(self, error: AuthenticationFailed, label: str) -> VendorError:
        """A 401 means a bad token or a website that is not ours (vendor document, Errors): one more request tells
        which.
        """
        try:
            self._get_websites()
        except VendorError:
            return error
        return PermissionDenied(
            "Inspectlet accepts the credentials, but not for this website.",
            "Compare the site's wid in sites.yaml with the list of GET /v1/websites; other sites are not affected.",
            Where(vendor=_VENDOR, endpoint=label),
            401,
        )


def records_of(page: Page) -> list[Mapping[str, object]]:
    """The websites or sessions in a page, whatever envelope they came in.

    Raises:
        MalformedResponse: an entry is no object.
    """
    found = _records(parse(page.body), page.endpoint)
    if not all(isinstance(entry, dict) for entry in found):
        raise _unexpected(page.endpoint)
    return [entry for entry in found if isinstance(entry, dict)]


def _records(parsed: object, label: str) -> list[object]:
    """Records under `response`: a list, an object with `sessions`, an object with `session`, or the object itself.

    Raises:
        VendorReportedError: the body has an `error`, whatever the status (contract §2.3, trap 18).
        MalformedResponse: there is no `response`.
    """
    if not isinstance(parsed, dict):
        raise _unexpected(label)
    if parsed.get("error"):
        raise VendorReportedError(
            f"Inspectlet answered 200 with an error: {redact(json.dumps(parsed['error']))[:200]}",
            "Read the vendor's words; compare the request with vendors/inspectlet/README.md.",
            Where(vendor=_VENDOR, endpoint=label),
            200,
        )
    if "response" not in parsed:
        raise _unexpected(label)
    found = parsed["response"]
    for name in ("sessions", "session"):
        if isinstance(found, dict) and name in found:
            found = found[name]
    if found is None:
        return []
    if isinstance(found, dict):
        # PHP writes an empty list as {} when it was an empty map.
        return [found] if found else []
    if not isinstance(found, list):
        raise _unexpected(label)
    return found


def _unexpected(label: str) -> MalformedResponse:
    return MalformedResponse(
        "The answer has no list under `response`.",
        "The vendor may have changed the endpoint; compare with vendors/inspectlet/README.md.",
        Where(vendor=_VENDOR, endpoint=label),
        200,
    )
