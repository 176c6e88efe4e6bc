"""Running Kissmetrics' people searches: start one, wait for it within a budget, page through its people.

Belongs here: the query API of both generations, its second host, and the vendor's idea of time. Does not belong here:
the catalogue (`client`: it can send nothing but GET), Dagster, files.

It destroys nothing, but it posts, it makes the vendor work, and its answers are lists of people with their e-mail
addresses. So it is a class of its own with an opt-in, and nothing of the platform runs it by itself.

The API is deprecated (contract Kissmetrics §3.1): expect a refused certificate, a 404 or an HTML page, each of which
is an error of `core.errors` and no empty result.

    run / run_v2 ──▶ QueryRun ──▶ wait ──▶ FinishedQuery ──▶ results ──▶ Page … ──▶ people_of
                      Location     │ 200 {"completed": false}, 200 {"error": …} is a failure, 201 is done
                                   └ status, every 15 s, 150 s in all

Source: contract Kissmetrics §3.2 (generation 1), §3.3 (v2), §3.5 (metric queries), §3.6 traps 1 and 11. The vendor
document only says that people_search_v2 reports "may be run via the API"; the section that said how was removed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal, NoReturn, Self
from urllib.parse import parse_qsl
from zoneinfo import ZoneInfo

from pydantic import SecretStr

from analytics_platform.core.auth import Bearer
from analytics_platform.core.clock import SYSTEM_CLOCK, Clock
from analytics_platform.core.endpoints import endpoint
from analytics_platform.core.errors import (
    ConfigurationError,
    ForeignOrigin,
    MalformedResponse,
    PlatformError,
    VendorReportedError,
    VendorUnavailable,
    Where,
)
from analytics_platform.core.http import HttpClient, HttpLimits, Meter, NullMeter, Response
from analytics_platform.core.opt_in import WriteOptIn
from analytics_platform.core.origin import Origin, check_path, path_segment
from analytics_platform.core.paging import NextRequest, OffsetLimit, Page, Progress, paginate, single_page
from analytics_platform.core.redaction import redact
from analytics_platform.core.strict_json import parse
from analytics_platform.vendors.kissmetrics.client import DEFAULT_BASE_URL, Link

__all__ = [
    "DEFAULT_QUERY_BASE_URL",
    "FinishedQuery",
    "KissmetricsQueries",
    "QueryRun",
    "QueryStatus",
    "ResultColumn",
    "columns_of",
    "instant_of",
    "people_of",
]

_VENDOR: Final = "kissmetrics"
DEFAULT_QUERY_BASE_URL: Final = "https://query.kissmetrics.com"
_PAGE_SIZE: Final = 100
"""The vendor's default is 50, its own example asks for 100 (contract §3.2)."""
_POLL_SECONDS: Final = 15.0
_BUDGET_SECONDS: Final = 150.0
"""What a client in production did: every 15 s, ten times (contract §3.3)."""

_CORE_PREFIXES: Final = ("/query",)
_QUERY_PREFIXES: Final = ("/v1", "/v2")

Generation = Literal[1, 2]


@dataclass(frozen=True, kw_only=True)
class QueryRun:
    """A query the vendor has accepted.

    Attributes:
        generation: 1 (`/query`) or 2 (`/v2`).
        status_link: where its progress is told; it may be on the second host.
    """

    generation: Generation
    status_link: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class QueryStatus:
    """How far a query is.

    Attributes:
        is_completed: its results can be read.
        progress: 0 … 1.
        results_link: where, once completed.
    """

    is_completed: bool
    progress: float
    results_link: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class FinishedQuery:
    """A query whose results wait; reading them again asks this link, it runs nothing a second time."""

    generation: Generation
    results_link: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class ResultColumn:
    """One column of a result of generation 1 (`columns`).

    Attributes:
        name: `display_name`.
        kind: `type`, e.g. internal or event.
        option: `return_option`: internal, total_times, total_times_ever, last.
    """

    name: str
    kind: str
    option: str


@dataclass(frozen=True)
class _Host:
    """One origin the token may go to, and the paths on it."""

    origin: Origin
    prefixes: tuple[str, ...]
    http: HttpClient

    def accepts(self, link: str) -> bool:
        try:
            path, _ = self.origin.resolve(link)
            check_path(path, self.prefixes)
        except ForeignOrigin:
            return False
        return True


class KissmetricsQueries:
    """Runs reports with one personal token. A context manager; every method may raise VendorError and QuotaError.

    The token goes to two hosts and no third: `base_url` below `/query`, and `query_base_url` below `/v1` and `/v2`.
    A `Location`, a status link or a next link that names anything else is refused before a byte is sent.
    """

    def __init__(
        self,
        *,
        core: HttpClient,
        query: HttpClient,
        origins: tuple[Origin, Origin],
        opt_in: WriteOptIn,
        clock: Clock = SYSTEM_CLOCK,
        with_undocumented_metric_queries: bool = False,
    ) -> None:
        opt_in.require(_VENDOR)
        self._core = _Host(origins[0], _CORE_PREFIXES, core)
        self._query = _Host(origins[1], _QUERY_PREFIXES, query)
        self._clock = clock
        self._with_metric_queries = with_undocumented_metric_queries

    @classmethod
    def connect(
        cls,
        *,
        token: SecretStr,
        base_url: str = DEFAULT_BASE_URL,
        query_base_url: str = DEFAULT_QUERY_BASE_URL,
        variable: str = "KISSMETRICS_API_TOKEN",
        meter: Meter | None = None,
        limits: HttpLimits | None = None,
        opt_in: WriteOptIn,
        clock: Clock = SYSTEM_CLOCK,
        with_undocumented_metric_queries: bool = False,
    ) -> Self:
        """A client of the two hosts.

        Args:
            token: the personal token of `KissmetricsClient`.
            base_url: origin of generation 1.
            query_base_url: origin of v2.
            variable: the token's environment variable, for messages.
            meter: the ledger, shared by both hosts.
            limits: bounds of the transport.
            opt_in: an explicit yes; posting is not reading.
            clock: for polling.
            with_undocumented_metric_queries: let `metric_over_time` and `metric_by_segment` ask what nobody documents.

        Raises:
            ConfigurationError: a base URL, the token or the opt-in cannot be used.
        """
        auth = Bearer(token, variable=variable)
        core, query = (
            HttpClient(
                vendor=_VENDOR,
                base_url=url,
                auth=auth,
                meter=meter or NullMeter(),
                limits=limits or HttpLimits(),
                path_prefixes=prefixes,
                methods=frozenset({"GET", "POST"}),
                clock=clock,
            )
            for url, prefixes in ((base_url, _CORE_PREFIXES), (query_base_url, _QUERY_PREFIXES))
        )
        return cls(
            core=core,
            query=query,
            origins=(Origin.parse(base_url), Origin.parse(query_base_url)),
            opt_in=opt_in,
            clock=clock,
            with_undocumented_metric_queries=with_undocumented_metric_queries,
        )

    def close(self) -> None:
        """Close the connections to both hosts."""
        self._core.http.close()
        self._query.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # a people search -------------------------------------------------------------------------------------------------

    @endpoint(
        "POST /query/reports/{report_id}/run", source="contract Kissmetrics §3.2; vendor document, Report Details"
    )
    def run(self, report_id: str, *, start_at: datetime, end_at: datetime) -> QueryRun:
        """Start a saved people search, generation 1. Sent once: an answer that was lost is not asked for again.

        Args:
            report_id: of a report of type people_search_v2; the vendor runs no other.
            start_at: aware; sent as whole unix seconds.
            end_at: aware, inclusive, as `start_at`.

        Raises:
            NotFound: no such report. ConfigurationError: naive or reversed instants.
        """
        label = "POST /query/reports/{report_id}/run"
        start_at, end_at = _window(start_at, end_at)
        report = {"start_date": int(start_at.timestamp()), "end_date": int(end_at.timestamp())}
        path = f"/query/reports/{path_segment(report_id)}/run"
        response = self._core.http.request("POST", path, endpoint=label, json={"report": report})
        _raise_reported(response.json(), label)
        return QueryRun(generation=1, status_link=self._location(response, "query-status"))

    @endpoint("POST /v2/products/{product_id}/reports/{report_id}/run", source="contract Kissmetrics §3.3")
    def run_v2(self, product_id: str, report_id: str, *, start_at: datetime, end_at: datetime) -> QueryRun:
        """Start a saved people search on the second host.

        The instants go out as ISO 8601 with their own offset, as in the vendor's example: pass them in the product's
        zone. Its prose says unix seconds (a contradiction on the same page).
        """
        label = "POST /v2/products/{product_id}/reports/{report_id}/run"
        start_at, end_at = _window(start_at, end_at)
        body = {
            "start_date": start_at.isoformat(timespec="seconds"),
            "end_date": end_at.isoformat(timespec="seconds"),
        }
        path = f"/v2/products/{path_segment(product_id)}/reports/{path_segment(report_id)}/run"
        response = self._query.http.request("POST", path, endpoint=label, json=body)
        _raise_reported(response.json(), label)
        return QueryRun(generation=2, status_link=self._location(response, "query-status"))

    @endpoint("GET /query/queries/{query_id}/status", source="contract Kissmetrics §3.2")
    @endpoint("GET /v1/queries/{query_id}/status", source="contract Kissmetrics §3.2 (Location on the other host)")
    @endpoint("GET /v2/queries/{query_id}/status", source="contract Kissmetrics §3.3")
    def status(self, run: QueryRun) -> QueryStatus:
        """How far the query is.

        Raises:
            VendorReportedError: it failed, which the vendor says with a 200 and an `error`.
        """
        response = self._follow(run.status_link, "status")
        label = response.endpoint
        parsed = response.json()
        _raise_reported(parsed, label)
        told = parsed.get("data", parsed) if isinstance(parsed, dict) else None
        if not isinstance(told, dict) or not isinstance(told.get("completed"), bool):
            raise MalformedResponse("The status of a query does not say whether it is completed.", where=_at(label))
        progress = told.get("progress")
        return QueryStatus(
            is_completed=told["completed"],
            progress=float(progress) if isinstance(progress, int | float) else 0.0,
            results_link=self._location(response, "query-results") if told["completed"] else None,
        )

    def wait(
        self, run: QueryRun, *, budget_seconds: float = _BUDGET_SECONDS, poll_seconds: float = _POLL_SECONDS
    ) -> FinishedQuery:
        """Ask for the status until the query is completed.

        Args:
            run: what `run` or `run_v2` gave.
            budget_seconds: how long to wait in all; the query goes on at the vendor, and the same run can be waited
                for again.
            poll_seconds: pause between two questions.

        Raises:
            VendorUnavailable: not completed within the budget. VendorReportedError: it failed.
        """
        gives_up_at = self._clock.monotonic() + budget_seconds
        while True:
            found = self.status(run)
            if found.results_link is not None:
                return FinishedQuery(generation=run.generation, results_link=found.results_link)
            if self._clock.monotonic() + poll_seconds > gives_up_at:
                raise VendorUnavailable(
                    f"A query was at {found.progress:.0%} after {budget_seconds:g} s.",
                    "Wait for the same run again, or narrow its dates.",
                    Where(vendor=_VENDOR),
                )
            self._clock.sleep(poll_seconds)

    @endpoint("GET /query/queries/{query_id}/results", source="contract Kissmetrics §3.2")
    @endpoint("GET /v1/queries/{query_id}/results", source="contract Kissmetrics §3.2 (Location on the other host)")
    @endpoint("GET /v2/queries/{query_id}/results", source="contract Kissmetrics §3.3")
    def results(
        self,
        finished: FinishedQuery,
        *,
        page_size: int = _PAGE_SIZE,
        call: str = "results",
        context: Mapping[str, str] | None = None,
    ) -> Iterator[Page]:
        """The people found, page by page (call kind `query_results`). **Rows hold e-mail addresses.**

        Reading again, or with another page size, asks the results URL again; the search is not run again.
        """
        host = self._host(finished.results_link, "results of a query")
        path, query = host.origin.resolve(finished.results_link)
        label = _query_label(path, "results")
        kept = {name: value for name, value in parse_qsl(query) if name not in ("limit", "offset")}

        def send(upcoming: NextRequest) -> Response:
            if upcoming.link is not None:
                return self._follow(upcoming.link, "results")
            return host.http.request("GET", path, endpoint=label, params={**kept, **upcoming.params})

        return paginate(
            send=send,
            strategy=_ResultPages(
                size=page_size, total_path=("total",) if finished.generation == 1 else ("pagination", "total")
            ),
            records_of=lambda parsed: _rows(parsed, label),
            call=call,
            call_kind="query_results",
            context=context or {},
            vendor=_VENDOR,
        )

    # metrics ---------------------------------------------------------------------------------------------------------

    @endpoint(
        "GET /query/metrics/{metric_id}/over-time",
        source="Kissmetrics Core API (in beta), All Metrics (link rel metric-over-time only; contract §3.5)",
    )
    def metric_over_time(
        self, link: Link, *, call: str = "metric_over_time", context: Mapping[str, str] | None = None
    ) -> Page:
        """A metric's values over time, by its discovered link.

        **No public contract exists**: neither verb, parameters nor body are described anywhere. The link is followed
        with GET as links are, the answer is handed over as it came, and nothing of the platform reads it. Off unless
        the class was made `with_undocumented_metric_queries`.

        Args:
            link: of rel `metric-over-time`, from a metric's record (`client.links_of`).
            call: stamped on the page.
            context: stamped on the page.

        Raises:
            ConfigurationError: not switched on, or a link of another rel. ForeignOrigin: a link elsewhere.
        """
        return self._metric_query(link, "metric-over-time", call=call, context=context)

    @endpoint(
        "GET /query/metrics/{metric_id}/by-segment",
        source="Kissmetrics Core API (in beta), All Metrics (link rel metric-by-segment only; contract §3.5)",
    )
    def metric_by_segment(
        self, link: Link, *, call: str = "metric_by_segment", context: Mapping[str, str] | None = None
    ) -> Page:
        """A metric's values by segment, by its discovered link of rel `metric-by-segment`.

        **No public contract exists**: see `metric_over_time`.
        """
        return self._metric_query(link, "metric-by-segment", call=call, context=context)

    def _metric_query(self, link: Link, rel: str, *, call: str, context: Mapping[str, str] | None) -> Page:
        if not self._with_metric_queries:
            raise ConfigurationError(
                "Metric queries are off: the vendor documents their links and nothing else.",
                "Pass with_undocumented_metric_queries=True to try them at your own risk.",
            )
        if link.rel != rel:
            raise ConfigurationError(f"This call follows links of rel {rel}.", "Take the link from a metric's record.")
        label = f"GET link {rel}"
        response = self._core.http.follow("GET", link.expanded({}), endpoint=label)
        _raise_reported(response.json(), label)
        return single_page(response, call=call, call_kind="metric_query", context=context or {}, records=1)

    # the two hosts ---------------------------------------------------------------------------------------------------

    def _follow(self, link: str, what: Literal["status", "results"]) -> Response:
        host = self._host(link, f"{what} of a query")
        path, _ = host.origin.resolve(link)
        return host.http.follow("GET", link, endpoint=_query_label(path, what))

    def _host(self, link: str, label: str) -> _Host:
        """The allowed host this link is on.

        Raises:
            ForeignOrigin: on none of the two.
        """
        try:
            accepting = [host for host in (self._core, self._query) if host.accepts(link)]
        except PlatformError as error:
            error.located(vendor=_VENDOR, endpoint=label)
            raise
        return accepting[0] if accepting else _foreign(label)

    def _location(self, response: Response, rel: str) -> str:
        """`Location`, else the body's link of this rel; on an allowed host, or refused already here."""
        parsed = response.json()
        listed = parsed.get("links") if isinstance(parsed, dict) else None
        linked = (link for link in listed or [] if isinstance(link, dict) and link.get("rel") == rel)
        found = response.headers.get("location") or next((link.get("href") for link in linked), None)
        if not isinstance(found, str) or not found:
            raise MalformedResponse(
                f"The answer names no {rel}.", "Compare it with vendors/kissmetrics/README.md.", _at(response.endpoint)
            )
        self._host(found, response.endpoint)
        return found


@dataclass(frozen=True, kw_only=True)
class _ResultPages(OffsetLimit):
    """Results of v2 link to themselves and to an export, never to a next page: their total says when they end."""

    def after(self, progress: Progress) -> NextRequest | None:
        following = super().after(progress)
        total = self._total(progress.parsed)
        received = progress.records_before + progress.records
        if following is None and total is not None and progress.records and received < total:
            return self._at(progress.sequence + 1, received)
        return following


# --- what a result says -----------------------------------------------------------------------------------------------


def columns_of(page: Page) -> tuple[ResultColumn, ...]:
    """Columns of a page of generation 1; empty for v2, whose rows name none."""
    parsed = parse(page.body)
    listed = parsed.get("columns") if isinstance(parsed, dict) else None
    return tuple(
        ResultColumn(
            name=str(column.get("display_name", "")),
            kind=str(column.get("type", "")),
            option=str(column.get("return_option", "")),
        )
        for column in (listed if isinstance(listed, list) else [])
        if isinstance(column, dict)
    )


def people_of(page: Page) -> list[tuple[object, ...]]:
    """Rows of a results page, one a person: KMID, identity (often an e-mail address), then the report's columns.

    An ad hoc search answers objects (`{"identity", "columns"}`); their identity comes first, the KMID is not told.
    """
    found = []
    for row in _rows(parse(page.body), page.endpoint):
        if isinstance(row, dict):
            columns = row.get("columns")
            found.append((row.get("identity"), *(columns if isinstance(columns, list) else ())))
        else:
            found.append(tuple(row) if isinstance(row, list) else (row,))
    return found


def instant_of(product_seconds: float, timezone: str) -> datetime:
    """The UTC instant behind a time in a result.

    The vendor sends unix seconds **of the product's wall clock**, as if that clock showed UTC (contract §3.3): read as
    they are they are wrong by the zone's offset, in summer by another one than in winter.

    Args:
        product_seconds: as received.
        timezone: the product's `timezone`; legacy aliases (`US/Pacific`) are known.

    An hour that the wall clock shows twice is read as the first of the two, one that it skips as if summer time had
    not begun yet (PEP 495, fold 0).

    Raises:
        ConfigurationError: no such time zone.
    """
    try:
        zone = ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):
        raise ConfigurationError(
            "The product's time zone is in no time zone database.", "Set it in the vendor's product settings."
        ) from None
    wall = datetime.fromtimestamp(product_seconds, UTC).replace(tzinfo=None)
    return wall.replace(tzinfo=zone).astimezone(UTC)


def _window(start_at: datetime, end_at: datetime) -> tuple[datetime, datetime]:
    if start_at.tzinfo is None or end_at.tzinfo is None:
        raise ConfigurationError("A report's dates need a time zone.", "Pass aware instants.")
    if start_at > end_at:
        raise ConfigurationError("A report's dates end before they start.")
    return start_at, end_at


def _rows(parsed: object, label: str) -> list[object]:
    _raise_reported(parsed, label)
    found = parsed.get("rows", parsed.get("data")) if isinstance(parsed, dict) else None
    if not isinstance(found, list):
        raise MalformedResponse("The results hold no rows.", "Compare with vendors/kissmetrics/README.md.", _at(label))
    return found


def _raise_reported(parsed: object, label: str) -> None:
    """Raises VendorReportedError where the body has an `error` although the status is a good one."""
    if not isinstance(parsed, dict):
        return
    told = parsed.get("data")
    said = parsed.get("error") or (told.get("error") if isinstance(told, dict) else None)
    if said:
        raise VendorReportedError(
            f"Kissmetrics answered with an error: {redact(str(said))[:200]}",
            "Read the vendor's words; run the report by hand in its dashboard.",
            _at(label),
            200,
        )


def _query_label(path: str, what: Literal["status", "results"]) -> str:
    """`GET /v2/queries/{query_id}/status`: the family is one of those a host accepted."""
    return f"GET /{path.split('/')[1]}/queries/{{query_id}}/{what}"


def _at(label: str) -> Where:
    return Where(vendor=_VENDOR, endpoint=label)


def _foreign(label: str) -> NoReturn:
    raise ForeignOrigin(
        "A link leads to neither of the two hosts this token is for.",
        "Nothing was sent. Set query_base_url if the vendor moved its query host.",
        _at(label),
    )
