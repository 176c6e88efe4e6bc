"""Pirsch over HTTP: the domain list and every read statistic of the API, one method an endpoint.

Belongs here: paths, filter parameters, the shape of an answer (list, object, null), what a refusal means at Pirsch.
Does not belong here: what is asked for which day (`streams`), columns (`tables`), files, Dagster. Nothing here
writes: hits and domain settings share the same token, and several of those calls destroy data.

Source: vendor document "API" of 2022-01-19 ("Filter", "Statistics"), and the wire contract. Answers have at most 100
rows and no paging, so every statistic is one `Page`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from types import TracebackType
from typing import Final, Literal, Self

from pydantic import SecretStr

from analytics_platform.core.auth import ClientCredentials
from analytics_platform.core.clock import SYSTEM_CLOCK, Clock
from analytics_platform.core.errors import (
    AuthenticationFailed,
    ConfigurationError,
    MalformedResponse,
    VendorReportedError,
    Where,
)
from analytics_platform.core.http import HttpClient, HttpLimits, Meter, NullMeter, Response
from analytics_platform.core.paging import Page, single_page

__all__ = [
    "DEFAULT_BASE_URL",
    "DEFAULT_REQUESTS_PER_MINUTE",
    "MAX_DAYS_PER_SERIES",
    "BreakdownMethod",
    "Domain",
    "PirschClient",
    "StatisticsFilter",
    "call_name",
]

VENDOR: Final = "pirsch"
DEFAULT_BASE_URL: Final = "https://api.pirsch.io"
DEFAULT_REQUESTS_PER_MINUTE: Final = 600
"""Polite default: the document gives no limit for statistics (a later changelog calls them unlimited)."""
MAX_ROWS: Final = 100
MAX_DAYS_PER_SERIES: Final = 100
"""The engine puts the row limit on day series too (contract A5), so a longer range would lose days silently."""
MAX_START_SECONDS: Final = 3600

VARIABLES: Final = ("PIRSCH_CLIENT_ID", "PIRSCH_CLIENT_SECRET")

_API: Final = "/api/v1"


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


@dataclass(frozen=True, kw_only=True)
class Domain:
    """A website at Pirsch. `timezone` is None where the list does not say it (the document's list does not)."""

    domain_id: str
    hostname: str
    timezone: str | None
    user_role: str


def call_name(label: str, query: StatisticsFilter) -> str:
    """Identity of one statistic: `label/day` or `label/first_last`, plus the fingerprint of what narrows the filter."""
    days = str(query.first_day) if query.first_day == query.last_day else f"{query.first_day}_{query.last_day}"
    fingerprint = query.fingerprint()
    return f"{label}/{days}/{fingerprint}" if fingerprint else f"{label}/{days}"


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
        """A client with its own connection pool and token (document, "Getting an Access Token": a JSON body).

        Raises:
            ConfigurationError: base URL or credentials cannot be used.
        """
        auth = ClientCredentials(
            client_id=client_id,
            client_secret=client_secret,
            token_url=f"{_API}/token",
            encoding="json",
            variables=VARIABLES,
            clock=clock,
        )
        return cls(
            HttpClient(
                vendor=VENDOR,
                base_url=base_url,
                auth=auth,
                meter=meter or NullMeter(),
                limits=limits or HttpLimits(),
                path_prefixes=(_API,),
                methods=frozenset({"GET"}),
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

    # ------------------------------------------------------------------------------------------------------ domains

    def domains(self) -> tuple[Domain, ...]:
        """Domains the credentials may read; a domain client sees exactly one ("Getting the Domain ID")."""
        endpoint = f"GET {_API}/domain"
        response = self._http.request("GET", f"{_API}/domain", endpoint=endpoint)
        found = []
        for record in _list_of(response):
            if not isinstance(record, dict) or not isinstance(record.get("id"), str):
                raise _malformed(response, "a domain without an id")
            timezone = record.get("timezone")
            found.append(
                Domain(
                    domain_id=record["id"],
                    hostname=str(record.get("hostname") or ""),
                    timezone=timezone if isinstance(timezone, str) and timezone else None,
                    user_role=str(record.get("user_role") or "").lower(),
                )
            )
        return tuple(found)

    # -------------------------------------------------------------------------------------------------- whole window

    def total(self, query: StatisticsFilter) -> Page:
        """Totals of the whole window, returning visitors counted once ("Total Visitors")."""
        return self._statistic("total", query, path="total", kind="total", shape="object")

    def growth(self, query: StatisticsFilter) -> Page:
        """Change against the previous window of the same length, as fractions ("Growth Rates")."""
        return self._statistic("growth", query, path="growth", kind="growth", shape="object")

    def active(self, query: StatisticsFilter) -> Page:
        """Visitors of the last minutes, by page ("Active Visitors"); changes from call to call."""
        return self._statistic("active", query, path="active", kind="active", shape="object")

    # --------------------------------------------------------------------------------------------------------- series

    def visitors(self, query: StatisticsFilter) -> Page:
        """Visitors, views, sessions, bounces by local day, zero-filled; ask ≤ 100 days ("Visitors")."""
        return self._statistic("visitor", query, path="visitor", kind="visitor_series")

    def session_duration(self, query: StatisticsFilter) -> Page:
        """Mean session seconds by day; ask ≤ 100 days ("Session Duration")."""
        return self._statistic("duration/session", query, path="duration/session", kind="duration_series")

    def time_on_page(self, query: StatisticsFilter) -> Page:
        """Mean seconds on page by day; the path of the document's example is empty on the wire ("Time on Page")."""
        return self._statistic("duration/page", query, path="duration/page", kind="page_duration_series")

    def hours(self, query: StatisticsFilter) -> Page:
        """Traffic by hour of day in the domain's zone, 0 to 23 ("Visitors by Time of Day")."""
        return self._statistic("hours", query, path="hours", kind="hours")

    # ---------------------------------------------------------------------------------------------------------- pages

    def pages(self, query: StatisticsFilter) -> Page:
        """Traffic by path ("Pages"); time on page only with `include_average_time_on_page`."""
        return self._statistic("page", query, path="page", kind="page")

    def entry_pages(self, query: StatisticsFilter) -> Page:
        """Entries by path ("Entry Pages"); its visitors and sessions are the page's, not the entries'."""
        return self._statistic("page/entry", query, path="page/entry", kind="page_entry")

    def exit_pages(self, query: StatisticsFilter) -> Page:
        """Exits by path ("Exit Pages"); its visitors and sessions are the page's, not the exits'."""
        return self._statistic("page/exit", query, path="page/exit", kind="page_exit")

    # --------------------------------------------------------------------------------------------- goals and events

    def goals(self, query: StatisticsFilter) -> Page:
        """Conversion goals with their figures ("Conversion Goals"): `cr` a fraction, `cr_goal` a percentage."""
        return self._statistic("goals", query, path="goals", kind="goals")

    def events(self, query: StatisticsFilter) -> Page:
        """Events with their metadata keys ("Events")."""
        return self._statistic("events", query, path="events", kind="events")

    def event_metadata(self, query: StatisticsFilter) -> Page:
        """One event by the values of one metadata key ("Event Metadata").

        Raises:
            ConfigurationError: `event` or `event_meta_key` is missing: the vendor would answer an empty list.
        """
        if not query.event or not query.event_meta_key:
            raise ConfigurationError("Pirsch event metadata needs an event and an event_meta_key in the filter.")
        return self._statistic("event/meta", query, path="event/meta", kind="event_meta")

    def event_list(self, query: StatisticsFilter) -> Page:
        """Events by name and whole metadata ("Listing Events"): expensive and cut at 100 combinations."""
        return self._statistic("event/list", query, path="event/list", kind="event_list")

    def keywords(self, query: StatisticsFilter) -> Page:
        """Google Search Console keywords ("Keywords"); needs that integration."""
        return self._statistic("keywords", query, path="keywords", kind="keywords")

    # --------------------------------------------------------------------------------- breakdowns, by one dimension

    def utm_source(self, query: StatisticsFilter) -> Page:
        """Visitors by utm_source ("UTM Source")."""
        return self._breakdown("utm_source", query, path="utm/source")

    def utm_medium(self, query: StatisticsFilter) -> Page:
        """Visitors by utm_medium ("UTM Medium")."""
        return self._breakdown("utm_medium", query, path="utm/medium")

    def utm_campaign(self, query: StatisticsFilter) -> Page:
        """Visitors by utm_campaign ("UTM Campaign")."""
        return self._breakdown("utm_campaign", query, path="utm/campaign")

    def utm_content(self, query: StatisticsFilter) -> Page:
        """Visitors by utm_content ("UTM Content")."""
        return self._breakdown("utm_content", query, path="utm/content")

    def utm_term(self, query: StatisticsFilter) -> Page:
        """Visitors by utm_term ("UTM Term")."""
        return self._breakdown("utm_term", query, path="utm/term")

    def referrer(self, query: StatisticsFilter) -> Page:
        """Visitors, sessions and bounces by referrer name; `referrer` is one arbitrary URL of it ("Referrer")."""
        return self._breakdown("referrer", query, path="referrer")

    def language(self, query: StatisticsFilter) -> Page:
        """Visitors by language ("Languages")."""
        return self._breakdown("language", query, path="language")

    def country(self, query: StatisticsFilter) -> Page:
        """Visitors by country; the key is `country_code` on the wire, `country` in the document ("Country")."""
        return self._breakdown("country", query, path="country")

    def city(self, query: StatisticsFilter) -> Page:
        """Visitors by city ("City")."""
        return self._breakdown("city", query, path="city")

    def os(self, query: StatisticsFilter) -> Page:
        """Visitors by operating system ("Operating System")."""
        return self._breakdown("os", query, path="os")

    def os_version(self, query: StatisticsFilter) -> Page:
        """Visitors by operating system version: the document prints /statistics/os twice, the API has /os/version.

        Raises:
            NotFound: an installation without that path; there is no other source.
        """
        return self._breakdown("os_version", query, path="os/version")

    def browser(self, query: StatisticsFilter) -> Page:
        """Visitors by browser ("Browser")."""
        return self._breakdown("browser", query, path="browser")

    def browser_version(self, query: StatisticsFilter) -> Page:
        """Visitors by browser version ("Browser Version")."""
        return self._breakdown("browser_version", query, path="browser/version")

    def platform(self, query: StatisticsFilter) -> Page:
        """Desktop, mobile (tablets included) and unknown, in one wide object ("Platform")."""
        return self._breakdown("platform", query, path="platform", shape="object")

    def screen_class(self, query: StatisticsFilter) -> Page:
        """Visitors by screen class ("Screen Classes")."""
        return self._breakdown("screen_class", query, path="screen")

    # -------------------------------------------------------------------------------------------------------- sending

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
        endpoint = f"GET {_API}/statistics/{path}"
        try:
            response = self._http.request(
                "GET", f"{_API}/statistics/{path}", endpoint=endpoint, params=query.parameters()
            )
        except AuthenticationFailed as error:
            # Until 2023-07 the API answered 401 for a domain it does not know, which no new token cures (contract A6).
            error.next_step = (
                f"{error.next_step} Pirsch also answers 401 for an unknown domain: compare domain_id in sites.yaml "
                "with the account's domains."
            ).strip()
            raise
        records = len(_list_of(response)) if shape == "list" else _object_in(response)
        return single_page(
            response,
            call=call_name(label, query),
            call_kind=kind,
            context={**_days_of(query), **(context or {})},
            records=records,
        )


BreakdownMethod = Callable[[PirschClient, StatisticsFilter], Page]


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
