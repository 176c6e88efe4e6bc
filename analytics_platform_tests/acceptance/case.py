"""What the acceptance suite knows of each vendor, as data.

Belongs here: `VendorCase` and the five of them. Does not belong here: how a stream is run (`rig`), what is asserted
(the test modules).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from analytics_platform.core.streams import Stream
from analytics_platform.core.tables import TableSpec
from analytics_platform.vendors import all_tables, streams_of
from analytics_platform.vendors.inspectlet.client import InspectletClient
from analytics_platform.vendors.kameleoon.client import KameleoonClient
from analytics_platform.vendors.kissmetrics.client import KissmetricsClient
from analytics_platform.vendors.pirsch.client import PirschClient
from analytics_platform.vendors.smartlook.client import SmartlookClient

Environment = Mapping[str, str]
Ids = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Drift:
    """A field whose schema drifts: where it is in the answer, and which columns it feeds."""

    at: str
    field: str
    columns: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class VendorCase:
    """One vendor under acceptance.

    Args:
        connect: opens the vendor's own client from the environment and a site's ids; what else is given is passed on.
        variables: what a site needs in the environment; `secret` is the one that is wrong in the bad-credentials test.
        ask: one cheap request through the client.
        refusals: requests a wrong credential may cost one run of `probe` at most.
        probe: the stream that wire faults are tried on, `route` the requests of it that suffer, `table` what they fill.
        empty: an answer with no record, where an empty day cannot be asked for.
        drift: the field that drifts, in answers to `route`.
        link: a member of the answer that looks like a link to the next page, as this vendor or its like would write it.
        follows_links: whether the vendor's protocol pages by links.
        walks: whether a call can have several pages.
        asked_again: requests a resumed stream may repeat, with the reason.
        empty_tables: tables that this small world leaves empty, with the reason.
        undeclared: top-level wire fields that are kept in `_extra` on purpose, by table.
        ids: changes to the site's block that keep the suite small.
        reasons: why a kind means something else here, by kind (the test's name without `test_`).
    """

    vendor: str
    connect: Callable[..., Any]
    ask: Callable[[Any, Ids], object]
    variables: tuple[str, ...]
    secret: str
    refusals: int
    probe: str
    route: str
    table: str
    drift: Drift
    link: tuple[str, object]
    follows_links: bool
    walks: bool
    empty: str = ""
    asked_again: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    empty_tables: Mapping[str, str] = field(default_factory=dict)
    undeclared: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ids: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.vendor

    @property
    def streams(self) -> tuple[Stream, ...]:
        return streams_of(self.vendor)

    def stream(self, name: str) -> Stream:
        return next(stream for stream in self.streams if stream.name == name)

    @property
    def probe_stream(self) -> Stream:
        return self.stream(self.probe)

    @property
    def probe_table(self) -> TableSpec:
        return all_tables()[f"{self.vendor}/{self.table}"]

    @property
    def is_snapshot(self) -> bool:
        return self.probe_stream.span == "snapshot"


def _smartlook(environment: Environment, ids: Ids, **how: Any) -> SmartlookClient:
    name = ids["api_token_env"]
    return SmartlookClient.connect(
        base_url=environment["SMARTLOOK_BASE_URL"], token=SecretStr(environment[name]), variable=name, **how
    )


def _inspectlet(environment: Environment, ids: Ids, **how: Any) -> InspectletClient:
    return InspectletClient.connect(
        username=SecretStr(environment["INSPECTLET_USERNAME"]),
        api_token=SecretStr(environment["INSPECTLET_API_TOKEN"]),
        base_url=environment["INSPECTLET_BASE_URL"],
        **how,
    )


def _pirsch(environment: Environment, ids: Ids, **how: Any) -> PirschClient:
    return PirschClient.connect(
        client_id=SecretStr(environment["PIRSCH_CLIENT_ID"]),
        client_secret=SecretStr(environment["PIRSCH_CLIENT_SECRET"]),
        base_url=environment["PIRSCH_BASE_URL"],
        **how,
    )


def _kameleoon(environment: Environment, ids: Ids, **how: Any) -> KameleoonClient:
    return KameleoonClient.connect(
        client_id=SecretStr(environment["KAMELEOON_CLIENT_ID"]),
        client_secret=SecretStr(environment["KAMELEOON_CLIENT_SECRET"]),
        base_url=environment["KAMELEOON_BASE_URL"],
        auth_url=environment["KAMELEOON_AUTH_URL"],
        **how,
    )


def _kissmetrics(environment: Environment, ids: Ids, **how: Any) -> KissmetricsClient:
    return KissmetricsClient.connect(
        token=SecretStr(environment["KISSMETRICS_API_TOKEN"]), base_url=environment["KISSMETRICS_BASE_URL"], **how
    )


_LIST_AGAIN = "the list names what the calls that are left are about"

SMARTLOOK = VendorCase(
    vendor="smartlook",
    connect=_smartlook,
    ask=lambda client, ids: client.me(),
    variables=("SMARTLOOK_API_TOKEN",),
    secret="SMARTLOOK_API_TOKEN",
    refusals=1,
    probe="sessions",
    route="/sessions/search",
    table="sessions",
    drift=Drift(at="sessions", field="duration", columns=frozenset({"duration_seconds"})),
    link=("_links", {"nextPage": "{foreign}"}),
    follows_links=True,
    walks=True,
    asked_again={"event_daily": (1, _LIST_AGAIN), "funnels": (1, _LIST_AGAIN)},
)
INSPECTLET = VendorCase(
    vendor="inspectlet",
    connect=_inspectlet,
    ask=lambda client, ids: client.websites(),
    variables=("INSPECTLET_USERNAME", "INSPECTLET_API_TOKEN"),
    secret="INSPECTLET_API_TOKEN",
    refusals=2,
    probe="sessions",
    route="/sessions",
    table="sessions",
    drift=Drift(at="response.sessions", field="num_pages", columns=frozenset({"num_pages"})),
    link=("next", "{foreign}"),
    follows_links=False,
    walks=True,
    reasons={
        "check_bad_credentials": "a 401 also means a website of somebody else: one more request tells which",
        "foreign_link_is_refused": "pages are counted, no answer holds a link: one that does is not looked at",
    },
)
PIRSCH = VendorCase(
    vendor="pirsch",
    connect=_pirsch,
    ask=lambda client, ids: client.domains(),
    variables=("PIRSCH_CLIENT_ID", "PIRSCH_CLIENT_SECRET"),
    secret="PIRSCH_CLIENT_SECRET",
    refusals=1,
    probe="daily_stats",
    route="/statistics/visitor",
    table="daily_stats",
    drift=Drift(at="", field="bounces", columns=frozenset({"bounces"})),
    link=("next", "{foreign}"),
    follows_links=False,
    walks=False,
    asked_again={"daily_stats": (1, "the domain names the zone of the days")},
    reasons={
        "foreign_link_is_refused": "nothing is paged, no answer holds a link: one that does is not looked at",
        "endless_list_is_refused": "every report is one answer of at most 100 rows: there is no next page to loop to",
    },
)
KAMELEOON = VendorCase(
    vendor="kameleoon",
    connect=_kameleoon,
    ask=lambda client, ids: client.visitor(site_code=ids["site_code"], visitor_code="abcdef0123456789"),
    variables=("KAMELEOON_CLIENT_ID", "KAMELEOON_CLIENT_SECRET"),
    secret="KAMELEOON_CLIENT_SECRET",
    refusals=1,
    probe="visits",
    route="/visit/visitor",
    table="visits",
    drift=Drift(at="previousVisits", field="timeLastEvent", columns=frozenset({"last_event_at", "duration_seconds"})),
    link=("next", "{foreign}"),
    follows_links=False,
    walks=False,
    ids={"visitor_sample": "0.05"},
    empty_tables={"conversions": "none of the five sampled visitors bought anything (vendors/kameleoon has rows)"},
    reasons={
        "foreign_link_is_refused": "nothing is paged, no answer holds a link: one that does is not looked at",
        "endless_list_is_refused": "a visitor's 25 newest visits are one answer: there is no next page to loop to",
        "duplicate_rows_are_kept_once": "a visit comes once an answer; its second coming is the refreshed visitor",
    },
)
KISSMETRICS = VendorCase(
    vendor="kissmetrics",
    connect=_kissmetrics,
    ask=lambda client, ids: client.root(),
    variables=("KISSMETRICS_API_TOKEN",),
    secret="KISSMETRICS_API_TOKEN",
    refusals=1,
    probe="catalogue",
    route="/events",
    table="events",
    drift=Drift(at="data", field="total", columns=frozenset({"total"})),
    link=("links", [{"rel": "next", "href": "{foreign}", "templated": False}]),
    follows_links=True,
    walks=True,
    empty='{"meta": {"status": 200}, "data": [], "links": [], "pagination": {"limit": 100, "offset": 0, "total": 0}}',
    asked_again={"catalogue": (1, "the product names its account")},
    reasons={
        "empty_stream": "a catalogue is of today, not of a day without traffic: a product without events stands in",
        "future_state": "a snapshot of another day than today is refused, not asked for",
    },
)

CASES = (SMARTLOOK, INSPECTLET, PIRSCH, KAMELEOON, KISSMETRICS)
