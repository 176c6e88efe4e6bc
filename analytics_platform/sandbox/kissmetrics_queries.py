"""Kissmetrics' query API as the sandbox plays it: saved people searches, run over the truth, in both generations.

Belongs here: the life of a query (accepted, not yet, done, its pages of people), and the metric queries that are
**invented** and only answer where a profile says so. Does not belong here: the catalogue (`kissmetrics`), the truth,
anything a client shares.

One saved search exists: who did `Visited Site` within the dates, with how often ever and when last. The `last` column
is in unix seconds of the product's wall clock, as the real one is.

Sources: contracts/kissmetrics §3.2 (generation 1), §3.3 (v2 and the time zone of its results), §3.5 (nothing public
about metric queries).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pandas as pd
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from analytics_platform.sandbox.observe import Refusal, answer, fault_kind, identifier, uuid_text
from analytics_platform.sandbox.truth import World
from analytics_platform.sandbox.wire import bearer_token

__all__ = ["QueryApi"]

_DEFAULT_LIMIT: Final = 50
_MAX_LIMIT: Final = 10_000
_COLUMNS: Final = (
    {"display_name": "KMID", "type": "internal", "return_option": "internal", "display_return_option": "internal"},
    {"display_name": "Identity", "type": "internal", "return_option": "internal", "display_return_option": "internal"},
    {
        "type": "event",
        "display_name": "Visited Site",
        "return_option": "total_times_ever",
        "display_return_option": "Total Times Ever",
    },
    {"type": "event", "display_name": "Visited Site", "return_option": "last", "display_return_option": "Last"},
)
_Record = Mapping[str, object]
_Row = list[object]


def _refuse(status: int, error: str, message: str) -> Refusal:
    return Refusal(status, {"message": message, "error": error, "status": status})


@dataclass
class _Query:
    guid: str
    generation: int
    rows: list[_Row]
    polls_left: int
    polls: int


class QueryApi:
    """Routes of the query API; one instance serves one port and remembers the queries it accepted.

    Args:
        world: for identities, conversions and their people.
        token: the bearer token.
        reports: catalogue records by id.
        metrics: catalogue records by id.
        timezones: of each product.
        visits: of each product, `visitor_id` and `at_ms` of every `Visited Site`.
        polls: how often a status says "not yet".
        query_host: host name in links to the query host.
        status_on_query_host: generation 1 sends its callers to `/v1` there.
        with_invented_metrics: answer metric queries at all.
    """

    def __init__(
        self,
        world: World,
        *,
        token: str,
        reports: Mapping[str, _Record],
        metrics: Mapping[str, _Record],
        timezones: Mapping[str, str],
        visits: Mapping[str, pd.DataFrame],
        polls: int,
        query_host: str | None,
        status_on_query_host: bool,
        with_invented_metrics: bool,
    ) -> None:
        self._world = world
        self._token = token
        self._reports = reports
        self._metrics = metrics
        self._zones = {product: ZoneInfo(name) for product, name in timezones.items()}
        self._visits = visits
        self._polls = polls
        self._query_host = query_host
        self._status_on_query_host = status_on_query_host
        self._with_invented_metrics = with_invented_metrics
        self._queries: dict[str, _Query] = {}

    def routes(self) -> list[Route]:
        """Everything below `/query`, `/v1` and `/v2`."""
        found = [
            ("POST", "/query/reports/{report_id}/run", self.run),
            ("POST", "/v2/products/{product_id}/reports/{report_id}/run", self.run_v2),
            ("GET", "/query/metrics/{metric_id}/over-time", self.over_time),
            ("GET", "/query/metrics/{metric_id}/by-segment", self.by_segment),
        ]
        for family in ("query", "v1", "v2"):
            found.append(("GET", f"/{family}/queries/{{query_id}}/status", self.status))
            found.append(("GET", f"/{family}/queries/{{query_id}}/results", self.results))
        return [Route(path, self._guarded(handler), methods=[method]) for method, path, handler in found]

    def _guarded(self, handler: Callable[[Request, bytes], Response]) -> Callable[[Request], Awaitable[Response]]:
        async def serve(request: Request) -> Response:
            try:
                if bearer_token(request) != self._token:
                    raise _refuse(401, "Unauthorized", "Invalid or missing token.")
                return handler(request, await request.body())
            except Refusal as refusal:
                return refusal.response()

        return serve

    # a query's life --------------------------------------------------------------------------------------------------

    def run(self, request: Request, body: bytes) -> Response:
        """POST /query/reports/<id>/run: dates in unix seconds."""
        report = self._report(request.path_params["report_id"])
        asked = _json_object(request, body).get("report")
        dates = [asked.get(name) for name in ("start_date", "end_date")] if isinstance(asked, dict) else []
        if len(dates) != 2 or not all(isinstance(date, int) and not isinstance(date, bool) for date in dates):
            raise _refuse(400, "Bad Request", "start_date and end_date must be unix timestamps in seconds.")
        query = self._accept(report, [int(str(date)) * 1000 for date in dates], generation=1)
        location = self._address(request, query, "status")
        return answer({"success": True, "query_guid": query.guid}, status=202, headers={"location": location})

    def run_v2(self, request: Request, body: bytes) -> Response:
        """POST /v2/products/<id>/reports/<id>/run: ISO 8601, or unix seconds as the vendor's prose has it."""
        report = self._report(request.path_params["report_id"])
        if report["product_id"] != request.path_params["product_id"]:
            raise _refuse(404, "Not Found", "Invalid report_guid provided: report not found.")
        asked = _json_object(request, body)
        query = self._accept(report, [_epoch_ms(asked.get(name)) for name in ("start_date", "end_date")], generation=2)
        location = self._address(request, query, "status")
        link = {"name": "Status", "rel": "query-status", "href": location, "templated": False}
        return answer(
            {"meta": {"status": 202}, "data": {"message": "success"}, "links": [link]},
            status=202,
            headers={"location": location},
        )

    def status(self, request: Request, _: bytes) -> Response:
        """GET …/queries/<id>/status: 200 until it is done, then 201; a failure is a 200 with an error."""
        query = self._query(request)
        if fault_kind(request) == "query_fails":
            return answer({"completed": False, "progress": 0.5, "error": "The query could not be completed."})
        is_completed = query.polls_left == 0
        progress = 1.0 if is_completed else 1 - query.polls_left / (query.polls + 1)
        query.polls_left = max(0, query.polls_left - 1)
        told: dict[str, object] = {"completed": is_completed, "progress": progress}
        headers, status = {}, 200
        if is_completed:
            headers, status = {"location": self._address(request, query, "results")}, 201
        if query.generation == 1:
            return answer(told, status=status, headers=headers)
        links = [_link("Self", "self", self._address(request, query, "status"))]
        if is_completed:
            links.append(_link("Results", "query-results", headers["location"]))
        return answer({"meta": {"status": status}, "data": told, "links": links}, status=status, headers=headers)

    def results(self, request: Request, _: bytes) -> Response:
        """GET …/queries/<id>/results: a page of people."""
        query = self._query(request)
        limit, offset = _number(request, "limit", _DEFAULT_LIMIT), _number(request, "offset", 0)
        if not 1 <= limit <= _MAX_LIMIT:
            raise _refuse(400, "Bad Request", f"limit must be between 1 and {_MAX_LIMIT}.")
        shown = query.rows[offset : offset + limit]
        address = self._address(request, query, "results")
        if query.generation == 2:
            # Self and export only, as the vendor's page shows: no link leads to the next page.
            links = [_link("Self", "self", address), _link("Export", "export", self._export(request, query))]
            pagination = {"limit": limit, "offset": offset, "total": len(query.rows)}
            return _escaped({"meta": {"status": 200}, "data": shown, "pagination": pagination, "links": links})

        def at(position: int) -> str:
            return f"{address}?limit={limit}&offset={position}&query_guid={query.guid}"

        total = len(query.rows)
        links = [
            _link("Self", "self", at(offset)),
            _link("First", "first", at(0)),
            _link("Last", "last", at(max(0, (total - 1) // limit * limit))),
            _link("Export", "export", self._export(request, query)),
        ]
        if offset + limit < total:
            links.append(_link("Next", "next", at(offset + limit)))
        metadata = {"limit": limit, "offset": offset}
        return _escaped({"total": total, "links": links, "metadata": metadata, "columns": _COLUMNS, "rows": shown})

    def _report(self, report_id: str) -> _Record:
        report = self._reports.get(report_id)
        if report is None or report["product_id"] not in self._visits:
            raise _refuse(404, "Not Found", "Invalid report_guid provided: report not found.")
        if report["report_type"] != "people_search_v2":
            raise _refuse(400, "Bad Request", "Only people_search_v2 reports may be run.")
        return report

    def _accept(self, report: _Record, window_ms: Sequence[int], *, generation: int) -> _Query:
        start_ms, end_ms = window_ms
        if start_ms > end_ms:
            raise _refuse(400, "Bad Request", "start_date must not be after end_date.")
        guid = uuid_text("kissmetrics-query", len(self._queries))
        rows = self._people(str(report["product_id"]), start_ms, end_ms)
        query = _Query(guid=guid, generation=generation, rows=rows, polls_left=self._polls, polls=self._polls)
        self._queries[guid] = query
        return query

    def _query(self, request: Request) -> _Query:
        query = self._queries.get(request.path_params["query_id"])
        family = 2 if request.url.path.startswith("/v2/") else 1
        if query is None or query.generation != family:
            raise _refuse(404, "Not Found", "Query not found.")
        is_result = request.url.path.endswith("/results")
        if is_result and query.polls_left:
            raise _refuse(404, "Not Found", "The query has not completed.")
        return query

    def _people(self, product_id: str, start_ms: int, end_ms: int) -> list[_Row]:
        visits = self._visits[product_id]
        inside = visits.loc[(visits["at_ms"] >= start_ms) & (visits["at_ms"] <= end_ms)]
        last = inside.groupby("visitor_id", sort=True)["at_ms"].max()
        ever = Counter(visits["visitor_id"].tolist())
        people = self._world.visitors
        emails = dict(zip(people["visitor_id"].tolist(), people["email"].tolist(), strict=True))
        zone = self._zones[product_id]
        return [
            [who, _identity(who, emails[who]), ever[who], _wall_seconds(at_ms, zone)]
            for who, at_ms in zip(last.index.tolist(), last.tolist(), strict=True)
        ]

    # addresses -------------------------------------------------------------------------------------------------------

    def _address(self, request: Request, query: _Query, what: str) -> str:
        if query.generation == 2:
            return f"{self._query_base(request)}/v2/queries/{query.guid}/{what}"
        if self._status_on_query_host:
            return f"{self._query_base(request)}/v1/queries/{query.guid}/{what}"
        return f"{_base(request)}/query/queries/{query.guid}/{what}"

    def _export(self, request: Request, query: _Query) -> str:
        return f"{self._query_base(request)}/v1/queries/{query.guid}/export?format=csv&query_guid={query.guid}"

    def _query_base(self, request: Request) -> str:
        if self._query_host is None:
            return _base(request)
        return f"{request.url.scheme}://{self._query_host}:{request.url.port}"

    # metric queries: invented ----------------------------------------------------------------------------------------

    def over_time(self, request: Request, _: bytes) -> Response:
        """GET /query/metrics/<id>/over-time: one value a day of the product's zone. The body is **invented**."""
        metric, facts = self._metric_facts(request)
        points = [[day, _value(metric, part)] for day, part in facts.groupby("day", sort=True)]
        return self._invented(request, metric, {"points": points})

    def by_segment(self, request: Request, _: bytes) -> Response:
        """GET /query/metrics/<id>/by-segment: one value a browser. The body is **invented**."""
        metric, facts = self._metric_facts(request)
        segments = [{"segment": name, "value": _value(metric, part)} for name, part in facts.groupby("browser")]
        return self._invented(request, metric, {"property": "browser", "segments": segments})

    def _metric_facts(self, request: Request) -> tuple[_Record, pd.DataFrame]:
        """The metric, and what people of its product did: one row a visit or a conversion."""
        metric = self._metrics.get(request.path_params["metric_id"])
        if metric is None or not self._with_invented_metrics:
            raise _refuse(404, "Not Found", "Metric query not found.")
        product_id = str(metric["product_id"])
        visits = self._visits[product_id].assign(goal="", revenue=0.0)
        done = self._world.conversions
        done = done.loc[done["visitor_id"].isin(visits["visitor_id"]), ["visitor_id", "at_ms", "goal", "revenue"]]
        facts = pd.concat([visits, done], ignore_index=True)
        zone = self._zones[product_id]
        facts["day"] = [datetime.fromtimestamp(at / 1000, zone).date().isoformat() for at in facts["at_ms"]]
        facts["browser"] = self._world.visitors.set_index("visitor_id")["browser"].loc[facts["visitor_id"]].to_numpy()
        first = visits.groupby("visitor_id")["at_ms"].min()
        facts["since_first_ms"] = facts["at_ms"].to_numpy(np.int64) - first.loc[facts["visitor_id"]].to_numpy(np.int64)
        return metric, facts

    def _invented(self, request: Request, metric: _Record, data: Mapping[str, object]) -> Response:
        body = {"metric_id": metric["id"], "unit_type": metric["unit_type"], "invented": True, **data}
        links = [_link("Self", "self", str(request.url))]
        return answer({"meta": {"status": 200}, "data": body, "links": links})


def _value(metric: _Record, facts: pd.DataFrame) -> float | None:
    """The metric of these facts; None where nobody did what it is about."""
    people = facts["visitor_id"].nunique()
    if metric["title"] == "Average Revenue Per Person":
        return round(float(facts["revenue"].sum()) / people, 2)
    if metric["title"] == "Visits":
        return float((facts["goal"] == "").sum())
    if metric["title"] == "Time to Purchase":
        bought = facts.loc[facts["goal"] == "purchase", "since_first_ms"]
        return round(float(bought.mean()) / 1000, 1) if len(bought) else None
    signed_up = facts.loc[facts["goal"] == "signup", "visitor_id"].nunique()
    return round(100 * signed_up / people, 2)


def _identity(visitor_id: int, email: object) -> str:
    """Whoever never said who they are has the random identity of their cookie."""
    return str(email) if email else identifier("kissmetrics-identity", visitor_id, length=27)


def _wall_seconds(at_ms: int, zone: ZoneInfo) -> int:
    """Unix seconds as if the product's wall clock showed UTC (contract §3.3)."""
    moment = datetime.fromtimestamp(at_ms // 1000, zone)
    offset = moment.utcoffset()
    return at_ms // 1000 + (int(offset.total_seconds()) if offset is not None else 0)


def _json_object(request: Request, body: bytes) -> dict[str, object]:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise _refuse(415, "Unsupported Media Type", "Content-Type must be application/json.")
    try:
        found = json.loads(body)
    except ValueError:
        raise _refuse(400, "Bad Request", "The body is not JSON.") from None
    if not isinstance(found, dict):
        raise _refuse(400, "Bad Request", "The body is not a JSON object.")
    return found


def _epoch_ms(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value * 1000
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        raise _refuse(400, "Bad Request", "start_date and end_date must be ISO 8601.") from None
    if moment.tzinfo is None:
        raise _refuse(400, "Bad Request", "start_date and end_date need an offset.")
    return int(moment.timestamp() * 1000)


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise _refuse(400, "Bad Request", "limit and offset must be integers.")
    return int(text)


def _link(name: str, rel: str, href: str) -> dict[str, object]:
    return {"templated": False, "href": href, "rel": rel, "name": name}


def _escaped(body: object) -> Response:
    """JSON with every ampersand escaped (backslash, u0026), as the vendor's encoder writes them."""
    return answer(msgspec.json.encode(body).replace(b"&", b"\\u0026"))


def _base(request: Request) -> str:
    return str(request.base_url).rstrip("/")
