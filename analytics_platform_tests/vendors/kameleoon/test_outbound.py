"""Events and maps on their way to Kameleoon: the bytes, what arrives of them, and what is refused before it is sent."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics_platform.core.errors import (
    ConfigurationError,
    ForeignOrigin,
    RequestRejected,
    VendorUnreachable,
)
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.opt_in import WriteOptIn
from analytics_platform.sandbox import faults
from analytics_platform.vendors.kameleoon.outbound import (
    MAX_BODY_BYTES,
    MAX_MAPS_BYTES,
    KameleoonWriter,
    ProductEvent,
    VisitEvent,
    batches,
    new_nonce,
)
from analytics_platform.vendors.kameleoon.tables import CONVERSIONS, VISITS
from analytics_platform_tests.vendors.kameleoon.conftest import OPT_IN, QUICK, VISIBLE_SECONDS, Site


def every_kind() -> list[VisitEvent]:
    """One event of each kind, each with a nonce of its own."""
    return [
        VisitEvent.page(href="https://e.com/?a=1&b=é", title="T & é", referrer_href="https://s.example/"),
        VisitEvent.conversion(goal_id=85, revenue=12.5, metadata={4: ["a"]}),
        VisitEvent.custom_data(index=3, values=["x", "y"]),
        VisitEvent.experiment(experiment_id=1, variation_id=0),
        VisitEvent.personalization(personalization_id=7, variation_id=8),
        VisitEvent.targeting_segment(segment_id=5),
        VisitEvent.geolocation(country="France", region="IDF", latitude=48.85),
        VisitEvent.static_data(device_type="DESKTOP", browser="CHROME", browser_version=99.0, visit_number=0),
        VisitEvent.activity(clicks=4),
    ]


class Recorder:
    """A loopback server that keeps what it gets and answers 204."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes]] = []
        recorder = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                recorder.seen.append((self.path, self.headers["content-type"], body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:
                """Quiet."""

        self._server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.close()


def later(site: Site) -> None:
    site.sandbox.context.advance(VISIBLE_SECONDS)


# --------------------------------------------------------------------------------------------------------------- bytes


def test_the_text_body_is_the_one_the_vendors_own_client_sends(recorder: Recorder) -> None:
    custom = VisitEvent.custom_data(index=3, values={"x": 1, "y": 1}, visitor_code="visitor1")
    sold = VisitEvent.conversion(goal_id=85, revenue=12.5, visitor_code="visitor1")
    with KameleoonWriter.connect(base_url=recorder.url, opt_in=OPT_IN) as writer:
        writer.post_events(site_code="f17c21u1ag", events=[custom, sold])
    ((target, content_type, body),) = recorder.seen
    assert target == "/visit/events?siteCode=f17c21u1ag"
    assert content_type.startswith("text/plain")
    assert body.decode().splitlines() == [
        f"nonce={custom.nonce}&eventType=customData&index=3&valuesCountMap=%7B%22x%22%3A1%2C%22y%22%3A1%7D"
        "&overwrite=true&visitorCode=visitor1",
        f"nonce={sold.nonce}&eventType=conversion&goalId=85&revenue=12.5&negative=false&visitorCode=visitor1",
    ]


def test_the_json_body_is_an_array_of_objects(recorder: Recorder) -> None:
    sold = VisitEvent.conversion(goal_id=85, revenue=12.5)
    with KameleoonWriter.connect(base_url=recorder.url, opt_in=OPT_IN) as writer:
        writer.post_events(site_code="s", events=[sold], visitor_code="v w", as_json=True)
    ((target, content_type, body),) = recorder.seen
    assert (target, content_type) == ("/visit/events?siteCode=s&visitorCode=v%20w&json=true", "application/json")
    expected = {"nonce": sold.nonce, "eventType": "conversion", "goalId": 85, "revenue": 12.5, "negative": False}
    assert json.loads(body) == [expected]


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


@given(title=texts, href=texts)
def test_a_line_holds_any_text_and_reads_back(title: str, href: str) -> None:
    event = VisitEvent.page(href=href, title=title)
    line = event.as_line()
    assert "\n" not in line
    assert " " not in line
    read = dict(pair.split("=", 1) for pair in line.split("&"))
    assert (unquote(read["title"]), unquote(read["href"]), read["nonce"]) == (title, href, event.nonce)


@given(event=st.sampled_from(every_kind()), code=st.none() | st.just("v"))
def test_a_stored_event_is_the_same_event(event: VisitEvent, code: str | None) -> None:
    event = VisitEvent(kind=event.kind, parameters=event.parameters, visitor_code=code, nonce=event.nonce)
    assert VisitEvent.from_object(json.loads(json.dumps(event.as_object()))) == event
    bought = ProductEvent(kind="productBuy", parameters={"quantity": 2}, ean=code, nonce=None if code else new_nonce())
    assert ProductEvent.from_object(json.loads(json.dumps(bought.as_object()))) == bought


@settings(max_examples=40)
@given(sizes=st.lists(st.integers(1, 400), max_size=30), most=st.integers(700, 3000), as_json=st.booleans())
def test_batches_keep_order_and_size(sizes: Sequence[int], most: int, *, as_json: bool) -> None:
    events = [VisitEvent.page(href="h", title="x" * size) for size in sizes]
    cut = list(batches(events, most_bytes=most, as_json=as_json))
    assert [event for batch in cut for event in batch] == events
    assert all(cut)
    for batch in cut:
        text = json.dumps([event.as_object() for event in batch], separators=(",", ":"))
        body = text if as_json else "\n".join(event.as_line() for event in batch)
        assert len(body.encode()) <= most


def test_one_event_too_large_for_any_body_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="One event"):
        list(batches([VisitEvent.page(href="h", title="x" * 800)], most_bytes=700))


# -------------------------------------------------------------------------------------------------------- what arrives


@pytest.mark.parametrize("as_json", [False, True])
def test_every_kind_is_read_back_after_the_delay(site: Site, *, as_json: bool) -> None:
    site.writer.post_events(site_code=site.code, visitor_code=site.new, events=every_kind(), as_json=as_json)
    assert site.visits(site.new) == [], "accepted is not yet visible"
    later(site)
    (visit,) = site.visits(site.new)
    told = {name: value for name, value in visit.items() if name != "timeLastEvent" and "Event" in name}
    data = {name: (value[0] if isinstance(value, list) else value)["data"] for name, value in told.items()}
    assert data["pageEvents"]["title"] == "T & é"
    assert data["pageEvents"]["href"] == "https://e.com/?a=1&b=é"
    assert data["conversionEvents"] == {"goalId": 85, "revenue": 12.5, "negative": False, "metadata": {"4": ["a"]}}
    assert data["customDataEvents"]["valuesCountMap"] == {"x": 1, "y": 1}
    assert data["experimentEvents"] == {"id": 1, "variationId": 0}
    assert data["personalizationEvents"] == {"id": 7, "variationId": 8}
    assert data["targetingSegmentEvents"] == {"id": 5}
    assert (data["geolocationEvents"]["region"], data["geolocationEvents"]["latitude"]) == ("IDF", 48.85)
    assert data["staticDataEvent"]["deviceType"] == "DESKTOP"
    assert data["activityEvents"] == {"clicks": 4}


def test_what_was_written_is_read_into_the_lake_like_any_visit(site: Site, tmp_path: Path) -> None:
    events = [VisitEvent.page(href="https://e.com/", title="T"), VisitEvent.conversion(goal_id=85, revenue=12.5)]
    site.writer.post_events(site_code=site.code, visitor_code=site.new, events=events)
    site.sandbox.context.advance(1900)
    page = site.client.visitor(site_code=site.code, visitor_code=site.new)
    (visit,) = json.loads(page.body)["previousVisits"]
    day = datetime.fromtimestamp(visit["timeStarted"] / 1000, UTC).date()
    lake = Lake(tmp_path / "lake")
    with Landing(tmp_path / "landing").open_batch(
        vendor="kameleoon", stream="visits", site="shop", first_day=day, last_day=day, run_id="run-1"
    ) as landing:
        landing.append(page)
        batch = landing.complete()
    rows = {}
    for spec in (VISITS, CONVERSIONS):
        lake.decode(spec, [(batch, (day,))], site="shop")
        with duckdb.connect() as engine:
            path = str(lake.partition_path(spec, "shop", day))
            rows[spec.name] = engine.execute("SELECT * FROM read_parquet(?)", [path]).df().to_dict("records")
    ((visits,), (conversion,)) = rows["visits"], rows["conversions"]
    assert visits["visitor_code"] == site.new
    assert (conversion["goal_id"], conversion["revenue"], conversion["is_reversal"]) == ("85", 12.5, False)


def test_the_same_nonce_twice_counts_once(site: Site) -> None:
    sold = VisitEvent.conversion(goal_id=85, revenue=12.5, visitor_code=site.new)
    for _ in range(2):
        site.writer.post_events(site_code=site.code, events=[sold, sold])
    later(site)
    (visit,) = site.visits(site.new)
    assert len(visit["conversionEvents"]) == 1


def test_an_answer_that_was_lost_is_asked_for_again_with_the_same_nonces(site: Site) -> None:
    # The reset comes after the vendor has taken the events in.
    site.sandbox.faults.add("kameleoon", "/visit/events", fault=faults.reset())
    site.writer.post_events(site_code=site.code, visitor_code=site.new, events=[VisitEvent.conversion(goal_id=85)])
    later(site)
    assert site.sandbox.requests.count(path="/visit/events") == 2
    (visit,) = site.visits(site.new)
    assert len(visit["conversionEvents"]) == 1


@pytest.mark.parametrize(("has_nonce", "requests"), [(True, 2), (False, 1)])
def test_product_events_are_sent_again_only_with_a_nonce(site: Site, requests: int, *, has_nonce: bool) -> None:
    event = ProductEvent(
        kind="productBuy", parameters={"quantity": 2}, ean=site.new, nonce=new_nonce() if has_nonce else None
    )
    site.sandbox.faults.add("kameleoon", "/product/events", fault=faults.reset())
    if has_nonce:
        site.writer.post_product_events(site_code=site.code, events=[event])
    else:
        with pytest.raises(VendorUnreachable):
            site.writer.post_product_events(site_code=site.code, events=[event])
    later(site)
    assert site.sandbox.requests.count(path="/product/events") == requests
    assert json.loads(site.client.product_counters(site_code=site.code, eans=[site.new]).body) == {site.new: {"bq": 2}}


def test_product_attributes_are_kept_and_the_product_of_the_call_counts(site: Site) -> None:
    seen = ProductEvent.page(attributes={"name": "Mug & co", "price": 9.5})
    site.writer.post_product_events(
        site_code=site.code, ean=site.new, events=[seen, ProductEvent.add_to_cart(quantity=2)]
    )
    later(site)
    page = site.client.product_data(site_code=site.code, eans=[site.new])
    assert json.loads(page.body) == {site.new: {"name": "Mug & co", "price": 9.5}}
    counted = site.client.product_counters(site_code=site.code, eans=[site.new])
    assert json.loads(counted.body) == {site.new: {"v": 1, "atcq": 2}}


def test_a_mapping_value_names_the_person_of_several_devices(site: Site) -> None:
    linked = VisitEvent.custom_data(index=3, values=["login-7"], is_mapping_identifier=True)
    for device in ("phone", "laptop"):
        site.writer.post_events(site_code=site.code, visitor_code=device, events=[linked])
        linked = VisitEvent.custom_data(index=3, values=["login-7"], is_mapping_identifier=True)
        later(site)
    site.writer.post_events(site_code=site.code, mapping_value="login-7", events=[VisitEvent.conversion(goal_id=1)])
    site.sandbox.context.advance(1900)
    visits = site.visits(mapping_value="login-7")
    sold = {visit["visitorCode"]: len(visit["conversionEvents"]) for visit in visits}
    assert sold == {"laptop": 1, "phone": 0}, "the event goes to the device seen last"


def test_a_map_replaces_the_map_before_it_and_an_empty_one_removes_it(site: Site) -> None:
    site.writer.write_maps(site_code=site.code, maps={site.new: {"a": 1, "b": 2}, "other": {"x": 1}})
    site.writer.write_maps(site_code=site.code, maps={site.new: {"b": 3}})
    later(site)
    assert site.client.stored_map(site_code=site.code, key=site.new) == {"b": 3}, "not merged"
    site.writer.write_maps(site_code=site.code, maps={site.new: {}})
    later(site)
    assert site.client.stored_maps(site_code=site.code, keys=[site.new, "other"]) == {"other": {"x": 1}}


# ------------------------------------------------------------------------------------------------------------- refused


def _refusals() -> list[Callable[[KameleoonWriter], object]]:
    activity = VisitEvent.activity(clicks=1)
    bought = ProductEvent.buy(quantity=1)
    too_long = "x" * 101
    large = [VisitEvent.page(href="h", title="x" * 1000, visitor_code="v")] * (MAX_BODY_BYTES // 1000)
    return [
        lambda w: w.post_events(site_code="s", events=[]),
        lambda w: w.post_events(site_code="s", events=[activity]),
        lambda w: w.post_events(site_code="s", events=[activity], visitor_code="v", mapping_value="m"),
        lambda w: w.post_events(site_code="s", events=[activity], visitor_code=too_long),
        lambda w: w.post_events(site_code="s", events=[activity], visitor_code=""),
        lambda w: w.post_events(site_code="s", events=[VisitEvent.activity(clicks=1, visitor_code="a")],
                                visitor_code="b"),
        lambda w: w.post_events(site_code="s", events=large),
        lambda w: w.post_events(site_code="s", events=large, as_json=True),
        lambda w: w.post_product_events(site_code="s", events=[]),
        lambda w: w.post_product_events(site_code="s", events=[bought]),
        lambda w: w.post_product_events(site_code="s", events=[ProductEvent.buy(quantity=1, ean="a")], ean="b"),
        lambda w: w.write_maps(site_code="s", maps={}),
        lambda w: w.write_maps(site_code="s", maps={too_long: {}}),
        lambda w: w.write_maps(site_code="s", maps={"k": {"f" * 1025: 1}}),
        lambda w: w.write_maps(site_code="s", maps={"k": {"f": "x" * MAX_MAPS_BYTES}}),
        lambda w: w.write_maps(site_code="s", maps={"k": {"f": float("nan")}}),
        lambda w: w.write_maps(site_code="s", maps={"k": {"f": object()}}),
        lambda w: w.write_maps(site_code="s", maps={"k": {}}, ttl_hours=0),
        lambda w: w.write_maps(site_code="s", maps={"k": {}}, ttl_hours=8785),
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(len(_refusals())))
def test_what_the_vendor_would_drop_is_refused_before_it_is_sent(recorder: Recorder, number: int) -> None:
    with (
        KameleoonWriter.connect(base_url=recorder.url, opt_in=OPT_IN) as writer,
        pytest.raises(ConfigurationError) as caught,
    ):
        _refusals()[number](writer)
    assert recorder.seen == []
    assert "x" * 30 not in str(caught.value)


@pytest.mark.parametrize(
    "made",
    [
        lambda: VisitEvent(kind="page", parameters={}, nonce="short"),
        lambda: VisitEvent(kind="unknown", parameters={}),  # type: ignore[arg-type]
        lambda: VisitEvent(kind="page", parameters={"nonce": "x"}),
        lambda: VisitEvent(kind="page", parameters={"a&b": "x"}),
        lambda: VisitEvent.conversion(goal_id=1, revenue=-1.0),
        lambda: VisitEvent.conversion(goal_id=1, revenue=float("inf")),
        lambda: VisitEvent.activity(clicks=1, visitor_code="two\nlines"),
        lambda: VisitEvent.from_object({"eventType": "productBuy", "nonce": new_nonce()}),
        lambda: VisitEvent.from_object({"eventType": "page"}),
        lambda: ProductEvent(kind="page", parameters={}),  # type: ignore[arg-type]
        lambda: ProductEvent.buy(quantity=0),
        lambda: ProductEvent.buy(quantity=1, ean="x" * 101),
        lambda: ProductEvent.from_object({"eventType": "page", "nonce": None}),
    ],
)
def test_an_event_that_would_vanish_cannot_be_made(made: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError):
        made()


def test_nonces_differ() -> None:
    assert len({new_nonce() for _ in range(1000)}) == 1000


def test_writing_must_be_agreed_to(recorder: Recorder) -> None:
    for opt_in in (WriteOptIn(vendor="pirsch", reason="tests"), WriteOptIn(vendor="kameleoon", reason=" ")):
        with pytest.raises(ConfigurationError):
            KameleoonWriter.connect(base_url=recorder.url, opt_in=opt_in)


def test_neither_class_can_do_the_others_work(site: Site) -> None:
    reading: Any = site.client._http
    writing: Any = site.writer._http
    with pytest.raises(ConfigurationError, match="POST"):
        reading.request("POST", "/map/maps", endpoint="test", content=b"{}")
    with pytest.raises(ConfigurationError, match="GET"):
        writing.request("GET", "/map/maps", endpoint="test")
    with pytest.raises(ForeignOrigin):
        writing.request("POST", "/visit/forget", endpoint="test", content=b"x")
    assert site.sandbox.requests.count(vendor="kameleoon") == 0


def test_an_unknown_site_is_told_at_once(site: Site) -> None:
    with pytest.raises(RequestRejected, match="unknown siteCode"):
        site.writer.post_events(site_code="nope", visitor_code="v", events=[VisitEvent.activity(clicks=1)])


def test_an_anonymous_writer_signs_nothing(site: Site) -> None:
    writer = site.connected(KameleoonWriter, anonymous=True, opt_in=OPT_IN, limits=QUICK)
    writer.post_events(site_code=site.code, visitor_code="v", events=[VisitEvent.activity(clicks=1)])
    (record,) = site.sandbox.requests.records()
    assert (record.authorization_seen, dict(parse_qsl(record.query))["visitorCode"]) == (False, "v")
