"""Paging against a loopback vendor: three strategies, and every way a list can fail to end (RELIABILITY C1-C16)."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.errors import (
    CursorExpired,
    ForeignOrigin,
    MalformedResponse,
    NotFound,
    PageLoop,
    RequestRejected,
)
from analytics_platform.core.http import HttpClient, HttpLimits, Response
from analytics_platform.core.paging import (
    CursorLink,
    NextRequest,
    OffsetLimit,
    Page,
    PageNumber,
    Strategy,
    paginate,
    single_page,
)
from analytics_platform_tests.core.loopback import Exchange, Loopback, Seen

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
BODY = {"filters": [{"name": "recording_date", "operator": "is", "value": "2026-10-05"}]}


def records_of(parsed: object) -> list[object]:
    if isinstance(parsed, list):
        return parsed
    assert isinstance(parsed, dict)
    return next((parsed[name] for name in ("data", "sessions", "response") if name in parsed), [])


def rows(first: int, count: int) -> list[object]:
    return [{"id": n} for n in range(first, first + count)]


def walk(answer: Callable[[Seen, int], object], strategy: Strategy, **options: object) -> tuple[list[Page], list[Seen]]:
    """Drive a real client against `answer(seen, number)`; tuples are (status, value, headers)."""

    def handler(exchange: Exchange) -> None:
        given_answer = answer(exchange.seen, exchange.number)
        status, value, headers = given_answer if isinstance(given_answer, tuple) else (200, given_answer, {})
        exchange.json(value, status, **headers)

    with (
        Loopback(handler) as vendor,
        HttpClient(vendor="acme", base_url=vendor.url, clock=ManualClock(START), path_prefixes=("/api/",)) as http,
    ):

        def send(upcoming: NextRequest) -> Response:
            if upcoming.link is not None:
                return http.follow("POST", upcoming.link, endpoint="POST /api/search", json=BODY, retry=True)
            return http.request("POST", "/api/search", endpoint="POST /api/search", params=upcoming.params, json=BODY)

        pages: list[Page] = []
        try:
            pages.extend(
                paginate(
                    send=send,
                    strategy=strategy,
                    records_of=records_of,
                    call="sessions",
                    call_kind="session_search",
                    context={"day": "2026-10-05"},
                    vendor="acme",
                    **options,  # type: ignore[arg-type]
                )
            )
        except Exception as error:
            error.seen = vendor.seen  # type: ignore[attr-defined]
            raise
        return pages, vendor.seen


def ids(pages: list[Page]) -> list[int]:
    return [record["id"] for page in pages for record in records_of(json.loads(page.body))]  # type: ignore[index]


def query(seen: Seen) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(seen.target).query).items()}


# ---- cursor links (Smartlook) --------------------------------------------------------------------------------------


def by_cursor(seen: Seen, number: int) -> object:
    page = int(query(seen).get("after", "0"))
    link = {"nextPage": f"/api/search?after={page + 1}&limit=2"} if page < 3 else {}
    return {"sessions": rows(page * 2, 2), "_links": link}


def test_cursor_links_are_posted_with_the_same_body_until_none_is_left() -> None:
    pages, seen = walk(by_cursor, CursorLink(params={"limit": "2"}))
    assert ids(pages) == list(range(8))
    assert [page.sequence for page in pages] == [0, 1, 2, 3]
    assert [page.is_last for page in pages] == [False, False, False, True]
    assert {page.records for page in pages} == {2}
    assert all(json.loads(request.body) == BODY and request.method == "POST" for request in seen)
    assert seen[0].target == "/api/search?limit=2"
    assert (pages[0].call, pages[0].call_kind, pages[0].context) == (
        "sessions",
        "session_search",
        {"day": "2026-10-05"},
    )
    assert (pages[0].status, pages[0].endpoint, pages[0].received_at, pages[0].attempts) == (
        200,
        "POST /api/search",
        START,
        1,
    )


@pytest.mark.parametrize(
    "end", [{}, {"_links": None}, {"_links": {}}, {"_links": {"nextPage": None}}, {"_links": {"nextPage": ""}}]
)
def test_every_spelling_of_no_next_page_is_the_end(end: dict[str, object]) -> None:
    pages, seen = walk(lambda s, n: {"sessions": rows(0, 1), **end}, CursorLink())
    assert (len(pages), pages[0].is_last, len(seen)) == (1, True, 1)


def test_an_empty_page_with_a_link_is_not_the_end() -> None:
    def answer(seen: Seen, number: int) -> object:
        return {
            "sessions": rows(number, 1) if number in {1, 4} else [],
            "_links": {"nextPage": f"/api/search?after={number}"} if number < 4 else {},
        }

    pages, _ = walk(answer, CursorLink())
    assert ids(pages) == [1, 4]


@pytest.mark.parametrize("cycle", [["a"], ["a", "b"], ["a", "b", "c"]])
def test_a_cursor_that_comes_back_is_a_loop_and_no_page_is_last(cycle: list[str]) -> None:
    def answer(seen: Seen, number: int) -> object:
        link = f"/api/search?after={cycle[(number - 1) % len(cycle)]}"
        return {"sessions": rows(number, 1), "_links": {"nextPage": link}}

    with pytest.raises(PageLoop) as loop:
        walk(answer, CursorLink())
    assert len(loop.value.seen) == len(cycle) + 1  # type: ignore[attr-defined]
    assert loop.value.where.endpoint == "POST /api/search"
    assert loop.value.where.vendor == "acme"


def test_the_same_page_under_new_cursors_is_a_loop() -> None:
    answered = {"sessions": rows(0, 2), "_links": {"nextPage": "/api/search?after="}}

    def answer(seen: Seen, number: int) -> object:
        return (
            answered if number % 2 else {"sessions": rows(9, 1), "_links": {"nextPage": f"/api/search?after={number}"}}
        )

    with pytest.raises(PageLoop, match="same page"):
        walk(answer, CursorLink())


def test_empty_pages_for_ever_stop_after_ten() -> None:
    with pytest.raises(PageLoop, match="11 pages in a row") as loop:
        walk(lambda s, n: {"sessions": [], "_links": {"nextPage": f"/api/search?after={n}"}}, CursorLink())
    assert len(loop.value.seen) == 11  # type: ignore[attr-defined]


def test_a_list_longer_than_the_cap_is_refused() -> None:
    with pytest.raises(PageLoop, match="longer than 5 pages") as loop:
        walk(
            lambda s, n: {"sessions": rows(n, 1), "_links": {"nextPage": f"/api/search?after={n}"}},
            CursorLink(),
            max_pages=5,
        )
    assert len(loop.value.seen) == 5  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "link", ["https://evil.example/api/search", "//evil.example/api/search", "/admin", "/api/%2e%2e/admin"]
)
def test_a_foreign_next_link_is_refused_unsent(link: str) -> None:
    with pytest.raises(ForeignOrigin) as refusal:
        walk(lambda s, n: {"sessions": rows(0, 1), "_links": {"nextPage": link}}, CursorLink())
    assert len(refusal.value.seen) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("link", [5, True, {"href": "/api/x"}, ["/api/x"]])
def test_a_next_link_that_is_no_text_is_malformed(link: object) -> None:
    with pytest.raises(MalformedResponse):
        walk(lambda s, n: {"sessions": rows(0, 1), "_links": {"nextPage": link}}, CursorLink())


@pytest.mark.parametrize("status", [400, 404, 410])
def test_a_followed_cursor_the_vendor_forgot_is_expired(status: int) -> None:
    with pytest.raises(CursorExpired) as expired:
        walk(lambda s, n: by_cursor(s, n) if n < 4 else (status, {"error": "invalid cursor"}, {}), CursorLink())
    assert expired.value.where.endpoint == "POST /api/search"
    assert expired.value.status == status


@pytest.mark.parametrize(("status", "kind"), [(400, RequestRejected), (404, NotFound)])
def test_a_refused_first_request_is_not_an_expired_cursor(status: int, kind: type[Exception]) -> None:
    with pytest.raises(kind) as refusal:
        walk(lambda s, n: (status, {}, {}), CursorLink())
    assert type(refusal.value) is kind


def test_an_expiring_token_or_a_503_on_page_three_loses_nothing() -> None:
    calls = {"n": 0}

    def answer(seen: Seen, number: int) -> object:
        calls["n"] += 1
        return (503, {}, {}) if calls["n"] == 3 else by_cursor(seen, number)

    pages, _ = walk(answer, CursorLink())
    assert ids(pages) == list(range(8))
    assert [page.attempts for page in pages] == [1, 1, 2, 1]


def test_the_next_request_waits_until_the_page_was_taken() -> None:
    sent: list[int] = []

    def send(upcoming: NextRequest) -> Response:
        sent.append(upcoming.sequence)
        body = json.dumps(
            {"sessions": rows(upcoming.sequence, 1), "_links": {"nextPage": f"/{upcoming.sequence}"}}
        ).encode()
        return Response(200, body, {}, "e", 1, START)

    walked = paginate(send=send, strategy=CursorLink(), records_of=records_of, call="c", call_kind="k", context={})
    assert sent == []
    next(walked)
    assert sent == [0]
    next(walked)
    assert sent == [0, 1]
    walked.close()
    assert sent == [0, 1]


# ---- page numbers (Inspectlet) -------------------------------------------------------------------------------------


def numbered(total: int, *, clamp: int = 100) -> Callable[[Seen, int], object]:
    def answer(seen: Seen, number: int) -> object:
        size = min(int(query(seen)["limit"]), clamp)
        start = (int(query(seen)["page"]) - 1) * size
        return {"response": rows(start, max(0, min(size, total - start)))}

    return answer


@pytest.mark.parametrize(
    ("total", "requests"), [(0, 1), (1, 1), (99, 1), (100, 2), (101, 2), (250, 3), (300, 4), (20, 2), (50, 2)]
)
def test_page_numbers_end_at_a_short_or_empty_page(total: int, requests: int) -> None:
    pages, seen = walk(numbered(total), PageNumber(size=100))
    assert ids(pages) == list(range(total))
    assert len(seen) == requests
    assert [page.is_last for page in pages] == [False] * (requests - 1) + [True]
    assert [query(request)["page"] for request in seen] == [str(n + 1) for n in range(requests)]


@pytest.mark.parametrize("clamp", [10, 20, 25, 50])
def test_a_clamped_limit_is_not_mistaken_for_the_end(clamp: int) -> None:
    pages, _ = walk(numbered(105, clamp=clamp), PageNumber(size=100))
    assert ids(pages) == list(range(105))


def test_a_limit_that_is_ignored_upwards_still_ends() -> None:
    def answer(seen: Seen, number: int) -> object:
        return {"response": rows(0, 1000) if query(seen)["page"] == "1" else []}

    pages, _ = walk(answer, PageNumber(size=100))
    assert ids(pages) == list(range(1000))


def test_a_vendor_that_ignores_the_page_number_is_a_loop() -> None:
    with pytest.raises(PageLoop, match="same page") as loop:
        walk(lambda s, n: {"response": rows(0, 100)}, PageNumber(size=100))
    assert len(loop.value.seen) == 2  # type: ignore[attr-defined]


# ---- offset and limit (Kissmetrics) --------------------------------------------------------------------------------


def enveloped(total: int, **extra: object) -> Callable[[Seen, int], object]:
    def answer(seen: Seen, number: int) -> object:
        asked = query(seen)
        offset, limit = int(asked["offset"]), int(asked["limit"])
        return {
            "meta": {"status": 200},
            "data": rows(offset, max(0, min(limit, total - offset))),
            "pagination": {"total": total, "offset": offset, "limit": limit},
            **extra,
        }

    return answer


@pytest.mark.parametrize(("total", "requests"), [(0, 1), (20, 1), (21, 2), (60, 3)])
def test_offsets_go_by_the_total_without_links(total: int, requests: int) -> None:
    pages, seen = walk(enveloped(total), OffsetLimit(size=20))
    assert ids(pages) == list(range(total))
    assert len(seen) == requests


def linked(key: str, total: int) -> Callable[[Seen, int], object]:
    def answer(seen: Seen, number: int) -> object:
        offset = int(query(seen)["offset"])
        links = [
            {"rel": "self", "href": f"/api/search?limit=20&offset={offset}", "templated": False},
            {"rel": "event-detail", "href": "/api/events/{event_id}", "templated": True},
            {"rel": "last", "href": "/api/search?limit=20&offset=40", "templated": False},
        ]
        if offset + 20 < total:
            links.append({"rel": "next", "href": f"/api/search?limit=20&offset={offset + 20}", "templated": False})
        body = {"data": rows(offset, min(20, total - offset)), "pagination": {"total": -7}}
        if key != "header":
            return {**body, key: links}
        header = ",".join(f'<{x["href"]}>; rel="{x["rel"]}"; templated="{str(x["templated"]).lower()}"' for x in links)
        return 200, body["data"], {"link": header}

    return answer


@pytest.mark.parametrize("key", ["links", "link", "header"])
def test_links_are_trusted_over_length_and_total(key: str) -> None:
    pages, seen = walk(linked(key, 45), OffsetLimit(size=20))
    assert ids(pages) == list(range(45))
    assert [urlsplit(request.target).query for request in seen][1:] == ["limit=20&offset=20", "limit=20&offset=40"]


@pytest.mark.parametrize("total", [None, -1, "60", 2.5, True, [], {}])
def test_an_unusable_total_falls_back_to_the_length(total: object) -> None:
    def answer(seen: Seen, number: int) -> object:
        offset = int(query(seen)["offset"])
        return {"data": rows(offset, max(0, min(20, 45 - offset))), "pagination": {"total": total}}

    pages, _ = walk(answer, OffsetLimit(size=20))
    assert ids(pages) == list(range(45))


def test_bare_arrays_without_links_go_by_length_even_when_the_limit_is_clamped() -> None:
    def answer(seen: Seen, number: int) -> object:
        offset = int(query(seen)["offset"])
        return rows(offset, max(0, min(20, 45 - offset)))

    pages, seen = walk(answer, OffsetLimit(size=100))
    assert ids(pages) == list(range(45))
    assert len(seen) == 3


def test_a_total_that_grows_or_shrinks_on_the_way_still_ends() -> None:
    def answer(seen: Seen, number: int) -> object:
        offset = int(query(seen)["offset"])
        return {"data": rows(offset, 20 if offset < 60 else 0), "pagination": {"total": 40 if number == 1 else 10**9}}

    pages, _ = walk(answer, OffsetLimit(size=20))
    assert ids(pages) == list(range(60))
    assert pages[-1].is_last


@pytest.mark.parametrize("href", ["https://apikissmetrics.com/api/search", "http://api.kissmetrics.com/api/search"])
def test_the_vendor_s_own_typo_gets_no_token(href: str) -> None:
    with pytest.raises(ForeignOrigin):
        walk(lambda s, n: {"data": rows(0, 1), "links": [{"rel": "next", "href": href}]}, OffsetLimit(size=20))


def test_a_self_referring_next_link_is_a_loop() -> None:
    def answer(seen: Seen, number: int) -> object:
        return {"data": rows(number, 1), "links": [{"rel": "next", "href": "/api/search?offset=0&limit=20"}]}

    with pytest.raises(PageLoop):
        walk(answer, OffsetLimit(size=20))


@given(st.text(alphabet='<>;,="\\ relnxtmpad/:', max_size=120))
def test_any_link_header_can_be_read(header: str) -> None:
    response = Response(200, b"[]", {"link": header}, "e", 1, START)
    walked = paginate(
        send=lambda n: response,
        strategy=OffsetLimit(size=5),
        records_of=records_of,
        call="c",
        call_kind="k",
        context={},
    )
    next(walked)


# ---- all of them ---------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 400),
    st.integers(1, 120),
    st.sampled_from([10, 20, 25, 50, 1000]),
    st.sampled_from(["number", "offset", "total"]),
)
def test_nothing_is_lost_or_read_twice(total: int, size: int, clamp: int, style: str) -> None:
    effective = min(size, clamp)

    def send(upcoming: NextRequest) -> Response:
        asked = upcoming.params
        start = int(asked["offset"]) if "offset" in asked else (int(asked["page"]) - 1) * effective
        data = rows(start, max(0, min(effective, total - start)))
        body: object = {"data": data, "pagination": {"total": total}} if style == "total" else data
        return Response(200, json.dumps(body).encode(), {}, "e", 1, START)

    strategy: Strategy = PageNumber(size=size) if style == "number" else OffsetLimit(size=size)
    pages = list(paginate(send=send, strategy=strategy, records_of=records_of, call="c", call_kind="k", context={}))
    assert ids(pages) == list(range(total))
    assert [page.is_last for page in pages] == [False] * (len(pages) - 1) + [True]


def test_a_single_page_is_its_own_last() -> None:
    response = Response(200, b"[1,2]", {}, "GET /api/x", 2, START)
    page = single_page(response, call="x", call_kind="k", context={"day": "2026-10-05", "visitor": "canary"}, records=2)
    assert (page.sequence, page.is_last, page.records, page.attempts, page.body) == (0, True, 2, 2, b"[1,2]")
    assert "canary" not in repr(page)
    assert "[1,2]" not in repr(page)


def test_the_default_limits_are_the_published_ones() -> None:
    limits = HttpLimits()
    assert (limits.max_attempts, limits.total_seconds, limits.max_ratio, limits.max_depth) == (3, 30, 200, 64)
    assert limits.max_decoded_bytes == 64 * 1024 * 1024
