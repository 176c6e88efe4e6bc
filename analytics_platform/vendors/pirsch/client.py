"""Reading Pirsch over HTTP: every statistic and every list of an account, one method an endpoint.

Belongs here: paths, filter parameters, the shape of an answer (list, object, null), what a refusal means at Pirsch.
Does not belong here: what is asked for which day (`streams`), columns (`tables`), files, Dagster, and anything that
writes: hits (`outbound`) and settings (`management`) take other classes, because the same token can also destroy data.

Source: vendor document "API" of 2022-01-19, and the wire contract. Answers have at most 100 rows, no paging and no
total, so every statistic is one `Page`, and one that is full says `possibly_truncated` in its context.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import date
from types import TracebackType
from typing import Final, Literal, Self, TypeVar

from pydantic import SecretStr

from analytics_platform.core.clock import SYSTEM_CLOCK, Clock
from analytics_platform.core.endpoints import endpoint
from analytics_platform.core.errors import (
    AuthenticationFailed,
    ConfigurationError,
    MalformedResponse,
    VendorReportedError,
    Where,
)
from analytics_platform.core.http import HttpClient, HttpLimits, Meter, Response
from analytics_platform.core.paging import Page, single_page
from analytics_platform.vendors.pirsch.access import (
    API,
    DEFAULT_BASE_URL,
    VARIABLES,
    VENDOR,
    AccessLink,
    ConversionGoal,
    Domain,
    DomainClient,
    EmailReport,
    Member,
    NotTheShape,
    credentials,
    required,
    transport,
)

__all__ = [
    "DEFAULT_BASE_URL",
    "DEFAULT_REQUESTS_PER_MINUTE",
    "MAX_DAYS_PER_SERIES",
    "OTHER",
    "VARIABLES",
    "VENDOR",
    "BreakdownMethod",
    "CompletedList",
    "Domain",
    "PirschClient",
    "StatisticsFilter",
    "call_name",
    "complete",
    "is_possibly_truncated",
    "with_other_row",
]

DEFAULT_REQUESTS_PER_MINUTE: Final = 600
"""Polite default: the document gives no limit for statistics (a later changelog calls them unlimited)."""
MAX_ROWS: Final = 100
MAX_DAYS_PER_SERIES: Final = 100
"""The engine puts the row limit on day series too (contract A5), so a longer range would lose days silently."""
MAX_START_SECONDS: Final = 3600

_STATISTICS: Final = f"{API}/statistics"
DOMAIN_CALL: Final = "domain"
"""Identity of the call whose page is the answer of GET /domain."""
_COMPLETE_KINDS: Final = frozenset({"visitor_series", "duration_series", "page_duration_series", "hours"})
"""Lists whose length is known beforehand: a row a day or an hour."""


@dataclass(frozen=True, kw_only=True)
class StatisticsFilter:
    """What a statistic is asked about (document, "Filter"). None leaves a parameter out.

    A value `!x` means not x and `null` means unknown or empty, for every text field (engine, contract A5).

    Args:
        domain_id: the domain (wire `id`).
        first_day: first local date of the domain (wire `from`).
        last_day: last local date, inclusive (wire `to`). The vendor swaps the two silently when reversed; refused here.
        start_seconds: only the last so many seconds, at most 3600; the dates are then ignored by the vendor. The window
            moves with the vendor's clock, so never use it for batch loads.
        path, entry_path, exit_path: exact URL paths; `path` wins over `pattern`.
        pattern: RE2 expression over paths, as in conversion goals.
        event, event_meta_key: event name, and one of its metadata keys.
        meta: metadata key to value, all of which must match (wire `meta_<key>`).
        language, country, city: ISO-639-1, ISO-3166 alpha-2, name.
        referrer, referrer_name: URL or name; host name usually.
        os, browser, platform, screen_class: as the statistics name them.
        screen_width, screen_height: pixels, text on the wire.
        utm_source, utm_medium, utm_campaign, utm_content, utm_term: as received by the site.
        limit: rows, 1 to 100.
        include_average_time_on_page: page statistics then fill average_time_spent_seconds (wire
            include_avg_time_on_page).

    Raises:
        ConfigurationError: dates reversed, `limit` or `start_seconds` out of range.
    """

    domain_id: str
    first_day: date
    last_day: date
    start_seconds: int | None = None
    path: str | None = None
    entry_path: str | None = None
    exit_path: str | None = None
    pattern: str | None = None
    event: str | None = None
    event_meta_key: str | None = None
    meta: Mapping[str, str] = field(default_factory=dict)
    language: str | None = None
    country: str | None = None
    city: str | None = None
    referrer: str | None = None
    referrer_name: str | None = None
    os: str | None = None
    browser: str | None = None
    platform: str | None = None
    screen_class: str | None = None
    screen_width: str | None = None
    screen_height: str | None = None
    utm_source: str | None = None
    utm_medium: str | None = None
    utm_campaign: str | None = None
    utm_content: str | None = None
    utm_term: str | None = None
    limit: int = MAX_ROWS
    include_average_time_on_page: bool = False

    def __post_init__(self) -> None:
        if self.first_day > self.last_day:
            raise ConfigurationError(
                f"A Pirsch filter runs from {self.first_day} to {self.last_day}, which is backwards."
            )
        if not 1 <= self.limit <= MAX_ROWS:
            raise ConfigurationError(f"A Pirsch filter asks for {self.limit} rows; the API gives 1 to {MAX_ROWS}.")
        if self.start_seconds is not None and not 1 <= self.start_seconds <= MAX_START_SECONDS:
            raise ConfigurationError(f"A Pirsch filter may start 1 to {MAX_START_SECONDS} seconds ago.")

    def parameters(self) -> list[tuple[str, str]]:
        """Query parameters in a fixed order."""
        return [
            ("id", self.domain_id),
            ("from", self.first_day.isoformat()),
            ("to", self.last_day.isoformat()),
            *self._narrowing(),
            ("limit", str(self.limit)),
        ]

    def fingerprint(self) -> str:
        """Eight hex digits naming what narrows the filter beyond domain and days; empty where nothing does."""
        narrowing = self._narrowing()
        return hashlib.sha256(repr(narrowing).encode()).hexdigest()[:8] if narrowing else ""

    def _narrowing(self) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        if self.start_seconds is not None:
            found.append(("start", str(self.start_seconds)))
        found += [(name, value) for name in _PLAIN_FIELDS if (value := getattr(self, name)) is not None]
        found += [(f"meta_{key}", value) for key, value in sorted(self.meta.items())]
        if self.include_average_time_on_page:
            found.append(("include_avg_time_on_page", "true"))
        return found


_RENAMED_FIELDS: Final = frozenset(
    {"domain_id", "first_day", "last_day", "start_seconds", "meta", "limit", "include_average_time_on_page"}
)
_PLAIN_FIELDS: Final = tuple(f.name for f in fields(StatisticsFilter) if f.name not in _RENAMED_FIELDS)


def call_name(label: str, query: StatisticsFilter) -> str:
    """Identity of one statistic: `label/day` or `label/first_last`, plus the fingerprint of what narrows the filter."""
    days = str(query.first_day) if query.first_day == query.last_day else f"{query.first_day}_{query.last_day}"
    fingerprint = query.fingerprint()
    return f"{label}/{days}/{fingerprint}" if fingerprint else f"{label}/{days}"


def is_possibly_truncated(page: Page) -> bool:
    """Whether the answer held as many rows as it may: the vendor cuts there without saying so."""
    return page.context.get("possibly_truncated") == "true"


class PirschClient:
    """Read access to one Pirsch account; safe to share between threads.

    Every method sends one request, retried by the transport while the failure is transient, and raises

        AuthenticationFailed   401 that a fresh token did not cure; also for an unknown domain id (API before 2023-07)
        PermissionDenied       the client's scope or domain does not allow it
        NotFound, RequestRejected, RateLimited, QuotaExhausted, VendorUnreachable, VendorUnavailable
        VendorReportedError    200 with the error object of the document ("Error Handling") as its body
        MalformedResponse      not JSON, or not of the documented shape

    Args:
        http: a transport for the API's origin.
    """

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    @endpoint("POST /api/v1/token", source="Pirsch API, Getting an Access Token")
    @classmethod
    def connect(
        cls,
        *,
        client_id: SecretStr,
        client_secret: SecretStr,
        base_url: str = DEFAULT_BASE_URL,
        meter: Meter | None = None,
        limits: HttpLimits | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> Self:
        """A client with its own connection pool, which fetches a token when first needed ("Getting an Access Token").

        Raises:
            ConfigurationError: base URL or credentials cannot be used.
        """
        return cls(
            transport(
                base_url=base_url,
                auth=credentials(client_id, client_secret, clock),
                methods=frozenset({"GET"}),
                meter=meter,
                limits=limits,
                clock=clock,
            )
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------------ account

    @endpoint("GET /api/v1/domain", source="Pirsch API, Getting the Domain ID")
    def domains(self) -> tuple[Domain, ...]:
        """Domains the credentials may read; a domain client sees exactly one ("Getting the Domain ID")."""
        return self._account("domain", {}, Domain.from_wire)

    @endpoint("GET /api/v1/domain", source="Pirsch API, Getting the Domain ID")
    def domain_page(self) -> tuple[Page, tuple[Domain, ...]]:
        """The same answer as it came, to be landed, and what it says."""
        response = self._account_list("domain", {})
        found = _values(response, Domain.from_wire)
        return single_page(response, call=DOMAIN_CALL, call_kind="domain_list", context={}, records=len(found)), found

    @endpoint("GET /api/v1/domain/link", source="Pirsch API, Managing Domains (access links)")
    def access_links(self, domain_id: str) -> tuple[AccessLink, ...]:
        """Access links of a domain; each code is a key to its dashboard."""
        return self._account("domain/link", {"domain_id": required("domain_id", domain_id)}, AccessLink.from_wire)

    @endpoint("GET /api/v1/member", source="Pirsch API, Listing Members")
    def members(self, domain_id: str) -> tuple[Member, ...]:
        """Who may see a domain, with e-mail addresses ("Listing Members"; `id` is the domain's)."""
        return self._account("member", {"id": required("domain_id", domain_id)}, Member.from_wire)

    @endpoint("GET /api/v1/client", source="Pirsch API, Listing Clients")
    def clients(self, domain_id: str) -> tuple[DomainClient, ...]:
        """Clients of a domain, without their secrets; needs a user client ("Listing Clients")."""
        return self._account("client", {"id": required("domain_id", domain_id)}, DomainClient.from_wire)

    @endpoint("GET /api/v1/report", source="Pirsch API, Listing Email Reports")
    def email_reports(self, domain_id: str) -> tuple[EmailReport, ...]:
        """E-mail reports of a domain ("Listing Email Reports")."""
        return self._account("report", {"id": required("domain_id", domain_id)}, EmailReport.from_wire)

    @endpoint("GET /api/v1/goal", source="Pirsch API, Listing Conversion Goals")
    def conversion_goals(self, domain_id: str) -> tuple[ConversionGoal, ...]:
        """Conversion goals as configured; their figures are `goals` ("Listing Conversion Goals")."""
        return self._account("goal", {"id": required("domain_id", domain_id)}, ConversionGoal.from_wire)

    # -------------------------------------------------------------------------------------------------- whole window

    @endpoint("GET /api/v1/statistics/total", source="Pirsch API, Total Visitors")
    def total(self, query: StatisticsFilter) -> Page:
        """Totals of the whole window, returning visitors counted once ("Total Visitors")."""
        return self._statistic("total", query, path="total", kind="total", shape="object")

    @endpoint("GET /api/v1/statistics/growth", source="Pirsch API, Growth Rates")
    def growth(self, query: StatisticsFilter) -> Page:
        """Change against the previous window of the same length, as fractions ("Growth Rates")."""
        return self._statistic("growth", query, path="growth", kind="growth", shape="object")

    @endpoint("GET /api/v1/statistics/active", source="Pirsch API, Active Visitors")
    def active(self, query: StatisticsFilter) -> Page:
        """Visitors of the last minutes, by page ("Active Visitors"); changes from call to call."""
        return self._statistic("active", query, path="active", kind="active", shape="object")

    # --------------------------------------------------------------------------------------------------------- series

    @endpoint("GET /api/v1/statistics/visitor", source="Pirsch API, Visitors")
    def visitors(self, query: StatisticsFilter) -> Page:
        """Visitors, views, sessions, bounces by local day, zero-filled; ask ≤ 100 days ("Visitors")."""
        return self._statistic("visitor", query, path="visitor", kind="visitor_series")

    @endpoint("GET /api/v1/statistics/duration/session", source="Pirsch API, Session Duration")
    def session_duration(self, query: StatisticsFilter) -> Page:
        """Mean session seconds by day; ask ≤ 100 days ("Session Duration")."""
        return self._statistic("duration/session", query, path="duration/session", kind="duration_series")

    @endpoint("GET /api/v1/statistics/duration/page", source="Pirsch API, Time on Page")
    def time_on_page(self, query: StatisticsFilter) -> Page:
        """Mean seconds on page by day; the path of the document's example is empty on the wire ("Time on Page")."""
        return self._statistic("duration/page", query, path="duration/page", kind="page_duration_series")

    @endpoint("GET /api/v1/statistics/hours", source="Pirsch API, Visitors by Time of Day")
    def hours(self, query: StatisticsFilter) -> Page:
        """Traffic by hour of day in the domain's zone, 0 to 23 ("Visitors by Time of Day")."""
        return self._statistic("hours", query, path="hours", kind="hours")

    # ---------------------------------------------------------------------------------------------------------- pages

    @endpoint("GET /api/v1/statistics/page", source="Pirsch API, Pages")
    def pages(self, query: StatisticsFilter) -> Page:
        """Traffic by path ("Pages"); time on page only with `include_average_time_on_page`."""
        return self._statistic("page", query, path="page", kind="page")

    @endpoint("GET /api/v1/statistics/page/entry", source="Pirsch API, Entry Pages")
    def entry_pages(self, query: StatisticsFilter) -> Page:
        """Entries by path ("Entry Pages"); its visitors and sessions are the page's, not the entries'."""
        return self._statistic("page/entry", query, path="page/entry", kind="page_entry")

    @endpoint("GET /api/v1/statistics/page/exit", source="Pirsch API, Exit Pages")
    def exit_pages(self, query: StatisticsFilter) -> Page:
        """Exits by path ("Exit Pages"); its visitors and sessions are the page's, not the exits'."""
        return self._statistic("page/exit", query, path="page/exit", kind="page_exit")

    # --------------------------------------------------------------------------------------------- goals and events

    @endpoint("GET /api/v1/statistics/goals", source="Pirsch API, Conversion Goals")
    def goals(self, query: StatisticsFilter) -> Page:
        """Conversion goals with their figures ("Conversion Goals"): `cr` a fraction, `cr_goal` a percentage."""
        return self._statistic("goals", query, path="goals", kind="goals")

    @endpoint("GET /api/v1/statistics/events", source="Pirsch API, Events")
    def events(self, query: StatisticsFilter) -> Page:
        """Events with their metadata keys ("Events")."""
        return self._statistic("events", query, path="events", kind="events")

    @endpoint("GET /api/v1/statistics/event/meta", source="Pirsch API, Event Metadata")
    def event_metadata(self, query: StatisticsFilter) -> Page:
        """One event by the values of one metadata key ("Event Metadata").

        Raises:
            ConfigurationError: `event` or `event_meta_key` is missing: the vendor would answer an empty list.
        """
        if not query.event or not query.event_meta_key:
            raise ConfigurationError("Pirsch event metadata needs an event and an event_meta_key in the filter.")
        return self._statistic("event/meta", query, path="event/meta", kind="event_meta")

    @endpoint("GET /api/v1/statistics/event/list", source="Pirsch API, Listing Events")
    def event_list(self, query: StatisticsFilter) -> Page:
        """Events by name and whole metadata ("Listing Events"): expensive and cut at 100 combinations."""
        return self._statistic("event/list", query, path="event/list", kind="event_list")

    @endpoint("GET /api/v1/statistics/keywords", source="Pirsch API, Keywords")
    def keywords(self, query: StatisticsFilter) -> Page:
        """Google Search Console keywords ("Keywords"); needs that integration."""
        return self._statistic("keywords", query, path="keywords", kind="keywords")

    # --------------------------------------------------------------------------------- breakdowns, by one dimension

    @endpoint("GET /api/v1/statistics/utm/source", source="Pirsch API, UTM Source")
    def utm_source(self, query: StatisticsFilter) -> Page:
        """Visitors by utm_source ("UTM Source")."""
        return self._breakdown("utm_source", query, path="utm/source")

    @endpoint("GET /api/v1/statistics/utm/medium", source="Pirsch API, UTM Medium")
    def utm_medium(self, query: StatisticsFilter) -> Page:
        """Visitors by utm_medium ("UTM Medium")."""
        return self._breakdown("utm_medium", query, path="utm/medium")

    @endpoint("GET /api/v1/statistics/utm/campaign", source="Pirsch API, UTM Campaign")
    def utm_campaign(self, query: StatisticsFilter) -> Page:
        """Visitors by utm_campaign ("UTM Campaign")."""
        return self._breakdown("utm_campaign", query, path="utm/campaign")

    @endpoint("GET /api/v1/statistics/utm/content", source="Pirsch API, UTM Content")
    def utm_content(self, query: StatisticsFilter) -> Page:
        """Visitors by utm_content ("UTM Content")."""
        return self._breakdown("utm_content", query, path="utm/content")

    @endpoint("GET /api/v1/statistics/utm/term", source="Pirsch API, UTM Term")
    def utm_term(self, query: StatisticsFilter) -> Page:
        """Visitors by utm_term ("UTM Term")."""
        return self._breakdown("utm_term", query, path="utm/term")

    @endpoint("GET /api/v1/statistics/referrer", source="Pirsch API, Referrer")
    def referrer(self, query: StatisticsFilter) -> Page:
        """Visitors, sessions and bounces by referrer name; `referrer` is one arbitrary URL of it ("Referrer")."""
        return self._breakdown("referrer", query, path="referrer")

    @endpoint("GET /api/v1/statistics/language", source="Pirsch API, Languages")
    def language(self, query: StatisticsFilter) -> Page:
        """Visitors by language ("Languages")."""
        return self._breakdown("language", query, path="language")

    @endpoint("GET /api/v1/statistics/country", source="Pirsch API, Country")
    def country(self, query: StatisticsFilter) -> Page:
        """Visitors by country; the key is `country_code` on the wire, `country` in the document ("Country")."""
        return self._breakdown("country", query, path="country")

    @endpoint("GET /api/v1/statistics/city", source="Pirsch API, City")
    def city(self, query: StatisticsFilter) -> Page:
        """Visitors by city ("City")."""
        return self._breakdown("city", query, path="city")

    @endpoint("GET /api/v1/statistics/os", source="Pirsch API, Operating System")
    def os(self, query: StatisticsFilter) -> Page:
        """Visitors by operating system ("Operating System")."""
        return self._breakdown("os", query, path="os")

    @endpoint(
        "GET /api/v1/statistics/os/version", source="Pirsch API, Operating System Version (contract A4: the path)"
    )
    def os_version(self, query: StatisticsFilter) -> Page:
        """Visitors by operating system version: the document prints /statistics/os twice, the API has /os/version.

        Raises:
            NotFound: an installation without that path; there is no other source.
        """
        return self._breakdown("os_version", query, path="os/version")

    @endpoint("GET /api/v1/statistics/browser", source="Pirsch API, Browser")
    def browser(self, query: StatisticsFilter) -> Page:
        """Visitors by browser ("Browser")."""
        return self._breakdown("browser", query, path="browser")

    @endpoint("GET /api/v1/statistics/browser/version", source="Pirsch API, Browser Version")
    def browser_version(self, query: StatisticsFilter) -> Page:
        """Visitors by browser version ("Browser Version")."""
        return self._breakdown("browser_version", query, path="browser/version")

    @endpoint("GET /api/v1/statistics/platform", source="Pirsch API, Platform")
    def platform(self, query: StatisticsFilter) -> Page:
        """Desktop, mobile (tablets included) and unknown, in one wide object ("Platform")."""
        return self._breakdown("platform", query, path="platform", shape="object")

    @endpoint("GET /api/v1/statistics/screen", source="Pirsch API, Screen Classes")
    def screen_class(self, query: StatisticsFilter) -> Page:
        """Visitors by screen class ("Screen Classes")."""
        return self._breakdown("screen_class", query, path="screen")

    # -------------------------------------------------------------------------------------------------------- sending

    def _account(
        self, path: str, params: Mapping[str, str], read: Callable[[Mapping[str, object]], _Found]
    ) -> tuple[_Found, ...]:
        """A list of the account as values."""
        return _values(self._account_list(path, params), read)

    def _account_list(self, path: str, params: Mapping[str, str]) -> Response:
        return self._http.request("GET", f"{API}/{path}", endpoint=f"GET {API}/{path}", params=params)

    def _breakdown(
        self, dimension: str, query: StatisticsFilter, *, path: str, shape: Literal["list", "object"] = "list"
    ) -> Page:
        return self._statistic(
            f"breakdown/{dimension}", query, path=path, kind="breakdown", shape=shape, context={"dimension": dimension}
        )

    def _statistic(
        self,
        label: str,
        query: StatisticsFilter,
        *,
        path: str,
        kind: str,
        shape: Literal["list", "object"] = "list",
        context: Mapping[str, str] | None = None,
    ) -> Page:
        try:
            response = self._http.request(
                "GET", f"{_STATISTICS}/{path}", endpoint=f"GET {_STATISTICS}/{path}", params=query.parameters()
            )
        except AuthenticationFailed as error:
            # Until 2023-07 the API answered 401 for a domain it does not know, which no new token cures (contract A6).
            error.next_step = (
                f"{error.next_step} Pirsch also answers 401 for an unknown domain: compare domain_id in sites.yaml "
                "with the account's domains."
            ).strip()
            raise
        records = len(_list_of(response)) if shape == "list" else _object_in(response)
        is_full = shape == "list" and kind not in _COMPLETE_KINDS and records >= query.limit
        truncated = {"possibly_truncated": "true"} if is_full else {}
        return single_page(
            response,
            call=call_name(label, query),
            call_kind=kind,
            context={**_days_of(query), **(context or {}), **truncated},
            records=records,
        )


_Found = TypeVar("_Found")
BreakdownMethod = Callable[[PirschClient, StatisticsFilter], Page]


def _values(response: Response, read: Callable[[Mapping[str, object]], _Found]) -> tuple[_Found, ...]:
    found = []
    for record in _list_of(response):
        if not isinstance(record, dict):
            raise _malformed(response, "an item that is no object")
        try:
            found.append(read(record))
        except NotTheShape as error:
            raise _malformed(response, f"an item without a usable {error}") from None
    return tuple(found)


def _days_of(query: StatisticsFilter) -> dict[str, str]:
    if query.first_day == query.last_day:
        return {"day": query.first_day.isoformat()}
    return {"first_day": query.first_day.isoformat(), "last_day": query.last_day.isoformat()}


def _list_of(response: Response) -> list[object]:
    """The records of a list; the API writes an empty list as null."""
    parsed = response.json()
    if parsed is None:
        return []
    if isinstance(parsed, list):
        return parsed
    _raise_reported(response, parsed)
    raise _malformed(response, f"a {type(parsed).__name__} where a list is documented")


def _object_in(response: Response) -> int:
    """1 for an object, 0 for null (no data)."""
    parsed = response.json()
    if parsed is None:
        return 0
    _raise_reported(response, parsed)
    if not isinstance(parsed, dict):
        raise _malformed(response, f"a {type(parsed).__name__} where an object is documented")
    return 1


def _raise_reported(response: Response, parsed: object) -> None:
    if isinstance(parsed, dict) and (parsed.get("error") or parsed.get("validation")):
        validation = parsed.get("validation")
        names = ", ".join(sorted(str(name) for name in validation)) if isinstance(validation, dict) else ""
        raise VendorReportedError(
            "Pirsch answered 200 with an error object" + (f" about {names[:200]}." if names else "."),
            "Check domain_id and dates; the texts of the vendor are not stable enough to quote.",
            Where(vendor=VENDOR, endpoint=response.endpoint),
            response.status,
        )


def _malformed(response: Response, what: str) -> MalformedResponse:
    return MalformedResponse(
        f"Pirsch answered with {what}.",
        "Compare the answer with vendors/pirsch/README.md; the API may have changed.",
        Where(vendor=VENDOR, endpoint=response.endpoint),
        response.status,
    )


# ------------------------------------------------------------------------------------------------ lists that were cut
#
# A list adds up only where each view or session stands in exactly one row: views over pages, entries and exits over
# pages, sessions and bounces over referrers. Visitors are distinct people and add up nowhere. In SQL the same rule is
# int_pirsch__lists_completed.

OTHER: Final = "(other)"

ListName = Literal["page", "page/entry", "page/exit", "referrer"]
Row = Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class _Additive:
    """One list: how it is asked, what names a row, and the figure of `total` each measure adds up to."""

    ask: Callable[[PirschClient, StatisticsFilter], Page]
    label: str
    totals: Mapping[str, str]


_LISTS: Final[Mapping[ListName, _Additive]] = {
    "page": _Additive(ask=PirschClient.pages, label="path", totals={"views": "views"}),
    "page/entry": _Additive(ask=PirschClient.entry_pages, label="path", totals={"entries": "sessions"}),
    "page/exit": _Additive(ask=PirschClient.exit_pages, label="path", totals={"exits": "sessions"}),
    "referrer": _Additive(
        ask=PirschClient.referrer, label="referrer_name", totals={"sessions": "sessions", "bounces": "bounces"}
    ),
}


@dataclass(frozen=True, kw_only=True)
class CompletedList:
    """A list and whether the vendor cut it; if so its last row may be `(other)`, with None where nothing adds up."""

    rows: tuple[Row, ...]
    was_cut: bool


def complete(client: PirschClient, query: StatisticsFilter, name: ListName) -> CompletedList:
    """Ask a list, and the total when it is full; two requests at most.

    Raises:
        VendorError: see `PirschClient`.
    """
    wanted = _LISTS[name]
    page = wanted.ask(client, replace(query, limit=MAX_ROWS))
    rows: list[Row] = json.loads(page.body) or []
    if not is_possibly_truncated(page):
        return CompletedList(rows=tuple(rows), was_cut=False)
    figures = json.loads(client.total(query).body)
    totals = {measure: figures[figure] for measure, figure in wanted.totals.items()}
    return CompletedList(rows=with_other_row(rows, label=wanted.label, totals=totals), was_cut=True)


def with_other_row(rows: Sequence[Row], *, label: str, totals: Mapping[str, int]) -> tuple[Row, ...]:
    """The rows, and behind them `(other)` with what is left of each total.

    Args:
        rows: all of one list, cut or not.
        label: the field that names a row.
        totals: measure to the total all its rows would add up to.

    Returns:
        No `(other)` row where nothing is left. A measure whose rows exceed its total is None in it: the two answers
        are of different moments, and a negative rest would be a lie.
    """
    rest = {measure: total - sum(_count(row.get(measure)) for row in rows) for measure, total in totals.items()}
    if not rows or not any(rest.values()):
        return tuple(rows)
    empty: dict[str, object] = dict.fromkeys(rows[0])
    left = {measure: value if value >= 0 else None for measure, value in rest.items()}
    return (*rows, {**empty, label: OTHER, **left})


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
