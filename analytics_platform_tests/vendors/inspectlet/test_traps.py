"""The eighteen traps of the Inspectlet document (contract Inspectlet §2.3), one test each, by their numbers.

Belongs here: what the naive reading of the document would do wrong, on the wire or in the lake. Does not belong here:
traps nobody numbered, which have their tests where their code is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pydantic import SecretStr

from analytics_platform.core.errors import (
    AuthenticationFailed,
    ConfigurationError,
    NotFound,
    PermissionDenied,
    VendorReportedError,
)
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.paging import Page
from analytics_platform.core.tables import Sensitivity, TableSpec
from analytics_platform.sandbox import faults
from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import World, generate
from analytics_platform.vendors.inspectlet.client import (
    BROWSERS,
    InspectletClient,
    SessionSearch,
    Tag,
    UrlMatch,
    records_of,
)
from analytics_platform.vendors.inspectlet.tables import SESSION_PAGES, SESSION_TAGS, SESSIONS, TABLES, WEBSITES

FIRST = date(2026, 10, 5)
NOON = datetime(2026, 10, 20, 12, tzinfo=UTC)
JSON = {"content-type": "application/json"}
SAMPLE: dict[str, Any] = {
    "sid": 2606721012,
    "wid": 12345678,
    "date_start_session": 1446772479,
    "date_end_session": 1446772768,
    "session_duration": 286893,
    "num_pages": 1,
    "uid": 2099309727,
    "ip": "53.68.13.141",
    "browser": "chrome",
    "referrer": {"source": "d"},
    "useragent": "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_11_1)",
    "new_visitor": True,
    "starred": False,
    "country": "US",
    "landing_page": "http://www.example.com/?utm_campaign=media",
    "exit_page": "http://www.example.com/product-1123",
    "device_type": "desktop",
    "display_name": "Johnny Appleseed",
    "sessionlink": "http://www.inspectlet.com/dashboard/watchsession/12345678/2606721012?pn=1&accessResourceKey=2e1a5838e3",
    "tags": [
        {"tag": "converted-purchase", "value": "1", "timestamp": 1446772657},
        {"tag": "email", "value": "johnny.appleseed@gmail.com", "timestamp": 1446772552},
    ],
    "pages": [
        {
            "rid": 2017992525,
            "opened_at": 1446772479,
            "pagetitle": "Title of first page in session.",
            "url": "http://www.example.com/?utm_campaign=media",
        }
    ],
}
"""The document's own (Listing and Searching Sessions), the key of its link shortened."""
SAMPLE_DAY = date(2015, 11, 6)


@pytest.fixture(scope="module")
def world() -> World:
    return generate(first_day=FIRST, days=2, scale=0.2)


@pytest.fixture(scope="module")
def running(world: World) -> Iterator[Sandbox]:
    with Sandbox(world, vendors=("inspectlet",)) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Iterator[Sandbox]:
    running.faults.clear()
    running.requests.clear()
    yield running
    running.faults.clear()


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[InspectletClient]:
    with connect(sandbox) as opened:
        yield opened


@pytest.fixture
def wid(world: World) -> str:
    return str(world.sites[0].wid)


def connect(sandbox: Sandbox, *, token: str | None = None) -> InspectletClient:
    secret = sandbox.context.credentials
    return InspectletClient.connect(
        base_url=sandbox.base_urls["inspectlet"],
        username=SecretStr(secret.inspectlet_username),
        api_token=SecretStr(token or secret.inspectlet_api_token),
    )


def answer(sandbox: Sandbox, body: object, *, route: str = "/sessions", nth: int = 1, times: int = 1) -> None:
    """The nth answer of the route from now, and so many, are this body."""
    text = json.dumps(body).replace("/", "\\/")  # as the vendor's PHP writes it
    sandbox.faults.add("inspectlet", route, fault=faults.status(200, headers=JSON, body=text), nth=nth, times=times)


def found(client: InspectletClient, wid: str, search: SessionSearch, **asked: Any) -> list[dict[str, Any]]:
    return [dict(s) for page in client.search_sessions(wid, search, call="s", **asked) for s in records_of(page)]


def decoded(
    tmp_path: Path, spec: TableSpec, records: Sequence[Mapping[str, object]], day: date = SAMPLE_DAY
) -> list[dict[str, Any]]:
    """Records as rows of the lake: landed, decoded, read back."""
    landing, lake = Landing(tmp_path / "landing"), Lake(tmp_path / "lake")
    with landing.open_batch(
        vendor=spec.vendor, stream=spec.name, site="shop", first_day=day, last_day=day, run_id="r", fresh=True
    ) as writer:
        writer.append(
            Page(
                call="c",
                call_kind=spec.calls[0],
                sequence=0,
                is_last=True,
                body=json.dumps({"response": {"sessions": list(records)}}).encode(),
                status=200,
                endpoint="e",
                received_at=NOON,
                context={},
                records=len(records),
                attempts=1,
            )
        )
        batch = writer.complete()
    lake.decode(spec, [(batch, [day])], site="shop")
    path = str(lake.partition_path(spec, "shop", day))
    cursor = duckdb.connect().execute("SELECT * FROM read_parquet(?, hive_partitioning = false)", [path])
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


@pytest.mark.parametrize(
    ("raw", "span", "unit", "seconds"),
    [
        (286893, 289, "milliseconds", 286.893),
        (1_200_000, 1200, "milliseconds", 1200.0),
        (1200, 1203, "seconds", 1200.0),
    ],
)
def test_trap_01_duration_is_in_the_unit_that_the_span_confirms(
    tmp_path: Path, raw: int, span: int, unit: str, seconds: float
) -> None:
    start = SAMPLE["date_start_session"]
    session = {**SAMPLE, "session_duration": raw, "date_end_session": start + span}
    (row,) = decoded(tmp_path, SESSIONS, [session])
    assert (row["duration_unit"], row["duration_seconds"], row["session_duration_raw"]) == (unit, seconds, raw)


def test_trap_02_length_is_in_pages_and_time_in_seconds(client: InspectletClient, wid: str) -> None:
    assert SessionSearch(pages_at_least=2, pages_at_most=9).conditions() == {"seslength_start": 2, "seslength_end": 9}
    asked = SessionSearch(duration_seconds_at_least=2, duration_seconds_at_most=9)
    assert asked.conditions() == {"sestime_start": 2, "sestime_end": 9}
    by_pages, by_time = (
        found(client, wid, search)
        for search in (SessionSearch(pages_at_least=4), SessionSearch(duration_seconds_at_least=4))
    )
    assert min(s["num_pages"] for s in by_pages) >= 4
    assert {s["num_pages"] for s in by_time} & {1, 2, 3}
    assert min(s["session_duration"] for s in by_time) >= 4_000


def test_trap_03_bounds_are_strings_of_seconds_and_both_included_or_not(client: InspectletClient, wid: str) -> None:
    instant = datetime.fromtimestamp(1_446_772_479, tz=UTC)
    assert SessionSearch(start=instant, end=instant).conditions() == {
        "daterange": "custom",
        "daterangecustom": {"start": "1446772479", "end": "1446772479"},
    }
    session = found(client, wid, SessionSearch(), limit=7)[7]
    began = datetime.fromtimestamp(session["date_start_session"], tz=UTC)
    assert session in found(client, wid, SessionSearch(start=began, end=began))
    # Without a range nothing is said of one: the vendor's unstated default applies, never a guess of ours.
    assert "daterange" not in SessionSearch(country="US").conditions()


def test_trap_04_pages_shift_and_limits_are_clamped(
    client: InspectletClient, sandbox: Sandbox, wid: str, tmp_path: Path
) -> None:
    # A vendor that clamps 100 to 50: its first page is short, and yet not the end.
    for page in range(2):
        sessions = [{**SAMPLE, "sid": 50 * page + n} for n in range(50)]
        answer(sandbox, {"response": {"sessions": sessions}}, nth=page + 1)
    answer(sandbox, {"response": {"sessions": []}}, nth=3)
    assert len(found(client, wid, SessionSearch())) == 100
    assert sandbox.requests.count(vendor="inspectlet") == 3
    with pytest.raises(ConfigurationError):
        client.search_sessions(wid, SessionSearch(), call="s", limit=500)
    # A session that slid onto the next page came twice: one row.
    assert len(decoded(tmp_path, SESSIONS, [SAMPLE, SAMPLE])) == 1


@pytest.mark.parametrize("shape", ["list", "object", "session", "sessions"])
@pytest.mark.parametrize("envelope", ["sessions", "bare"])
def test_trap_05_the_wrapper_differs(world: World, wid: str, shape: str, envelope: str) -> None:
    profile = {"envelope": envelope, "single_envelope": shape}
    with Sandbox(world, profiles={"inspectlet": profile}, vendors=("inspectlet",)) as other, connect(other) as client:
        newest = records_of(next(client.search_sessions(wid, call="s", limit=3)))
        assert len(newest) == 3
        page = client.session(wid, str(newest[1]["sid"]))
        assert records_of(page) == [newest[1]]
        assert page.records == 1
        answer(other, {"response": []}, route="GET /v1/websites/")
        with pytest.raises(NotFound):
            client.session(wid, "1")


def test_trap_06_the_exit_is_not_the_last_page_listed(tmp_path: Path) -> None:
    (row,) = decoded(tmp_path, SESSIONS, [SAMPLE])
    assert (row["num_pages"], row["listed_page_count"]) == (1, 1)
    assert row["landing_url"] == SAMPLE["landing_page"]
    assert row["exit_url"] == SAMPLE["exit_page"] != SAMPLE["pages"][-1]["url"]


def test_trap_07_documented_fields_are_absent_and_the_source_is_an_object(
    world: World, wid: str, tmp_path: Path
) -> None:
    (row,) = decoded(tmp_path / "absent", SESSIONS, [SAMPLE])
    assert (row["viewport_width_px"], row["viewport_height_px"]) == (None, None)
    assert (row["referrer_source"], json.loads(row["referrer_json"])) == ("d", {"source": "d"})
    (other,) = decoded(
        tmp_path / "text", SESSIONS, [{**SAMPLE, "referrer": "s", "page_width": 1280, "page_height": 720}]
    )
    assert (other["referrer_source"], other["viewport_width_px"], other["viewport_height_px"]) == ("s", 1280, 720)
    profile = {"has_page_size": True}
    with Sandbox(world, profiles={"inspectlet": profile}, vendors=("inspectlet",)) as wide, connect(wide) as client:
        (session,) = records_of(next(client.search_sessions(wid, call="s", limit=1)))
        assert int(str(session["page_width"])) > 0


def test_trap_08_tags_are_text_or_true_unsorted_and_may_repeat(
    client: InspectletClient, wid: str, tmp_path: Path
) -> None:
    asked = SessionSearch(tags=(Tag(name="converted", value=True), Tag(name="plan", value="pro"))).conditions()
    assert asked["tags"] == {
        "tagslist": [{"tag": "converted", "value": True}, {"tag": "plan", "value": "pro"}],
        "operator": "and",
    }
    converted = found(client, wid, SessionSearch(tags=(Tag(name="converted", value=True),)))
    assert converted
    assert all(any(t["tag"].startswith("converted-") and t["value"] == "1" for t in s["tags"]) for s in converted)
    repeated = {"tag": "email", "value": True, "timestamp": 1446772552}
    rows = decoded(tmp_path, SESSION_TAGS, [{**SAMPLE, "tags": [*SAMPLE["tags"], repeated, repeated]}])
    assert [(row["tag_index"], row["tag"], row["value"]) for row in sorted(rows, key=lambda row: row["tag_index"])] == [
        (1, "converted-purchase", "1"),
        (2, "email", "johnny.appleseed@gmail.com"),
        (3, "email", "true"),
        (4, "email", "true"),
    ]
    assert rows[0]["tagged_at"] != sorted(row["tagged_at"] for row in rows)[0]


def test_trap_09_the_country_code_is_of_countries(tmp_path: Path) -> None:
    assert SessionSearch(country="GB").conditions() == {"country": "GB"}
    with pytest.raises(ConfigurationError, match="3166"):
        SessionSearch(country="EN")  # ISO 639 for English, and no country
    (row,) = decoded(tmp_path, SESSIONS, [{**SAMPLE, "country": "us"}])
    assert row["country_code"] == "US"


def test_trap_10_browsers_are_families_and_there_is_no_tablet(client: InspectletClient, wid: str) -> None:
    everything = found(client, wid, SessionSearch())
    assert {session["browser"] for session in everything} <= set(BROWSERS)
    assert {session["device_type"] for session in everything} == {"desktop", "phone"}
    assert "chrome mobile (ios)" in BROWSERS
    for wrong in ({"browser": "Mobile Safari"}, {"device": "tablet"}):
        with pytest.raises(ConfigurationError):
            SessionSearch(**wrong)  # type: ignore[arg-type]


def test_trap_11_the_website_is_in_the_path_and_the_search_is_posted(
    client: InspectletClient, sandbox: Sandbox, wid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies: list[Mapping[str, str]] = []
    send = client._http.request

    def watched(method: str, path: str, **asked: Any) -> Any:
        bodies.append(asked.get("form") or {})
        return send(method, path, **asked)

    monkeypatch.setattr(client._http, "request", watched)
    next(client.search_sessions(wid, SessionSearch(country="US"), call="s"))
    client.websites()
    calls = [(record.method, record.path, record.query) for record in sandbox.requests.records()]
    assert calls == [("POST", f"/v1/websites/{wid}/sessions", ""), ("GET", "/v1/websites", "")]
    assert bodies == [{"search": '{"country":"US"}', "page": "1", "limit": "100"}, {}]


@pytest.mark.parametrize("scheme", ["", "http://", "HTTPS://"])
def test_trap_12_urls_are_asked_for_without_their_scheme(client: InspectletClient, wid: str, scheme: str) -> None:
    landing = UrlMatch(url=f"{scheme}www.shop.example/")
    assert landing.body() == {"operator": "is", "url": "www.shop.example/"}
    sessions = found(client, wid, SessionSearch(start_page=landing))
    assert sessions
    assert {session["landing_page"] for session in sessions} == {"https://www.shop.example/"}
    pattern = UrlMatch(url="*/product/*", operator="patternmatch")
    assert pattern.body()["url"] == "*/product/*"  # the asterisks that the document lost


def test_trap_13_ids_pass_two_to_the_31(tmp_path: Path) -> None:
    session = {**SAMPLE, "sid": 2**40 + 1, "uid": 2**33}
    (row,) = decoded(tmp_path, SESSIONS, [session])
    assert (row["sid"], row["uid"]) == (2**40 + 1, 2**33)
    types = {column.type for table in TABLES for column in table.columns if column.name in ("sid", "wid", "uid", "rid")}
    assert types == {"BIGINT"}


def test_trap_14_a_session_link_lets_anyone_watch(client: InspectletClient, sandbox: Sandbox, wid: str) -> None:
    marked = {column.name: column.sensitivity for column in SESSIONS.columns}
    assert marked["session_link"] is Sensitivity.SECRET
    assert {marked[name] for name in ("user_agent", "display_name")} == {Sensitivity.PERSONAL}
    assert {c.name: c.sensitivity for c in SESSION_TAGS.columns}["value"] is Sensitivity.PERSONAL
    assert "ip" not in {column.name for table in TABLES for column in table.columns}
    page = next(client.search_sessions(wid, call="s"))
    assert "accessResourceKey" in page.body.decode()
    assert "accessResourceKey" not in repr(page)
    assert "Johnny" not in repr(SessionSearch(display_name="Johnny Appleseed"))
    answer(sandbox, {"error": f"cannot show {SAMPLE['sessionlink']} to {SAMPLE['ip']}"})
    with pytest.raises(VendorReportedError, match="cannot show") as caught:
        found(client, wid, SessionSearch())
    assert "2e1a5838e3" not in str(caught.value)
    assert SAMPLE["ip"] not in str(caught.value)


def test_trap_15_a_401_is_the_token_or_one_website(client: InspectletClient, sandbox: Sandbox, wid: str) -> None:
    for ask in (lambda: found(client, "99", SessionSearch()), lambda: client.session("99", "1")):
        with pytest.raises(PermissionDenied, match="not for this website"):
            ask()
    assert found(client, wid, SessionSearch(pages_at_least=9))
    with connect(sandbox, token="0" * 40) as stranger:
        for refused in (lambda: found(stranger, wid, SessionSearch()), lambda: stranger.session(wid, "1")):
            with pytest.raises(AuthenticationFailed, match="INSPECTLET_USERNAME"):
                refused()
    with pytest.raises(ConfigurationError, match="colon"):
        InspectletClient.connect(username=SecretStr("a:b@example.org"), api_token=SecretStr("t0ken"))


def test_trap_16_times_are_unix_seconds_in_utc(tmp_path: Path, client: InspectletClient) -> None:
    (row,) = decoded(tmp_path / "s", SESSIONS, [SAMPLE])
    utc = datetime(2015, 11, 6, 1, 14, 39)  # noqa: DTZ001  (a lake TIMESTAMP is naive and in UTC)
    assert (row["started_at"], row["ended_at"]) == (utc, utc + timedelta(seconds=289))
    (page,) = decoded(
        tmp_path / "p", SESSION_PAGES, [{**SAMPLE, "date_start_session": str(SAMPLE["date_start_session"])}]
    )
    assert page["opened_at"] == page["session_started_at"] == utc
    (added,) = (column for column in WEBSITES.columns if column.name == "added_at")
    assert added.type == "TIMESTAMP"
    assert all(isinstance(site["date_added"], int) for site in records_of(client.websites()))


def test_trap_17_a_traffic_source_is_whatever_the_vendor_takes(client: InspectletClient, wid: str) -> None:
    assert SessionSearch(traffic_source="d").conditions() == {"trafficsource": "d"}
    for code in ("d", "s"):
        sessions = found(client, wid, SessionSearch(traffic_source=code))
        assert sessions
        assert {session["referrer"]["source"] for session in sessions} == {code}


@pytest.mark.parametrize("error", ["no such plan", {"message": "no such plan", "code": 7}, ["no such plan"]])
def test_trap_18_an_error_inside_a_200_is_seen_before_the_response(
    client: InspectletClient, sandbox: Sandbox, wid: str, error: object
) -> None:
    answer(sandbox, {"response": [SAMPLE], "error": error}, route="/v1/", times=3)
    for ask in (
        lambda: found(client, wid, SessionSearch()),
        lambda: client.session(wid, "1"),
        lambda: client.websites(),
    ):
        with pytest.raises(VendorReportedError, match="no such plan"):
            ask()


def test_every_trap_has_its_number() -> None:
    numbers = sorted({int(name.split("_")[2]) for name in globals() if name.startswith("test_trap_")})
    assert numbers == list(range(1, 19))
