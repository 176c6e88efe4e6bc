"""Strict JSON: refuses what parsers read differently, keeps the rest exactly (RELIABILITY E1-E6, M19)."""

from __future__ import annotations

import json
import re
import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from analytics_platform.core import strict_json
from analytics_platform.core.errors import MalformedResponse
from analytics_platform.core.strict_json import Document, parse, picked, texts_of

REFUSED = {
    "empty": b"",
    "blank": b"  \n",
    "NaN": b'{"a":NaN}',
    "Infinity": b"[Infinity]",
    "-Infinity": b"[-Infinity]",
    "overflow": b"[1e999]",
    "negative overflow": b"[-1e999]",
    "long overflow": b"[" + b"9" * 400 + b".0]",
    "duplicate key": b'{"sid":1,"sid":2}',
    "duplicate key deep": b'[{"x":{"sid":1,"sid":1}}]',
    "duplicate by escape": b'{"a":1,"\\u0061":2}',
    "trailing comma": b'{"a":1,}',
    "trailing comma in list": b"[1,]",
    "comment": b"[1] // yes",
    "two documents": b"{} {}",
    "single quotes": b"{'a':1}",
    "bare word": b"hello",
    "cut": b'{"a":[1,2',
    "BOM": b"\xef\xbb\xbf[]",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "Latin-1": '["é"]'.encode("latin-1"),
    "encoded surrogate": b'["\xed\xa0\x80"]',
    "overlong": b'["\xc0\xaf"]',
    "lone high": b'["\\ud800"]',
    "lone low": b'["\\uDC00"]',
    "two highs": b'["\\ud800\\ud800"]',
    "low high": b'["\\udc00\\ud800"]',
    "lone after backslashes": b'["\\\\\\ud800"]',
    "lone in key": b'{"\\udfff":1}',
    "raw newline in string": b'["a\nb"]',
    "raw NUL": b'["a\x00b"]',
    "leading zero": b"[01]",
    "hex": b"[0x1]",
    "plus": b"[+1]",
    "dot": b"[1.]",
    "5,000 digits": b"[" + b"9" * 5000 + b"]",
    "100,000 brackets": b"[" * 100_000,
    "100,000 braces": b'{"a":' * 100_000,
    "100,000 matched": b"[" * 100_000 + b"]" * 100_000,
    "mixed nesting": b'[{"a":' * 33 + b"1" + b"}]" * 33,
    "65 levels": b"[" * 65 + b"]" * 65,
    "65 levels after a string of brackets": b'["]]]]",' + b"[" * 64 + b"]" * 64 + b"]",
    "brackets hidden by an odd backslash": b'["\\\\",' + b"[" * 70 + b'"\\""' + b"]" * 71,
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED.keys())
def test_what_parsers_disagree_about_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedResponse):
        parse(body)


ACCEPTED = {
    "scalar": (b"null", None),
    "big int": (b"[18446744073709551616]", [2**64]),
    "4,300 digits": (b"[" + b"9" * 4300 + b"]", [int("9" * 4300)]),
    "2^53+1": (b"9007199254740993", 9007199254740993),
    "float": (b"[1.5, -0.0, 1e-999]", [1.5, -0.0, 0.0]),
    "escaped slash": (b'{"u":"http:\\/\\/x"}', {"u": "http://x"}),
    "pair": ('["\\ud83d\\ude00","😀"]'.encode(), ["😀", "😀"]),
    "escaped backslash before u": (b'["\\\\ud800"]', ["\\ud800"]),
    "NUL escape": (b'["a\\u0000b"]', ["a\0b"]),
    "brackets in strings": (b'["' + b"[{" * 1000 + b'\\"[[[\\\\"]', ["[{" * 1000 + '"[[[\\']),
    "64 levels": (b"[" * 64 + b"]" * 64, None),
    "wide": (b"[" + b"{}," * 5000 + b"{}]", [{}] * 5001),
    "case twins": (b'{"a":1,"A":2}', {"a": 1, "A": 2}),
}


@pytest.mark.parametrize(("body", "value"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_what_has_one_meaning_is_kept_exactly(body: bytes, value: object) -> None:
    parsed = parse(body)
    if value is not None:
        assert parsed == value


def test_the_message_never_quotes_the_body() -> None:
    for body in (b'{"canary@example.com": canary}', b'{"canary":1,"canary":2}', b'["canary'):
        with pytest.raises(MalformedResponse) as refusal:
            parse(body)
        assert "canary" not in str(refusal.value)
        assert refusal.value.__cause__ is None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_round_trip(value: object, ascii_only: bool) -> None:
    assert parse(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


def depth(value: object) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(VALUES, st.integers(0, 6))
def test_the_depth_cap_counts_levels_exactly(value: object, cap: int) -> None:
    body = json.dumps(value, indent=1).encode()
    if depth(value) <= cap:
        assert parse(body, max_depth=cap) == value
    else:
        with pytest.raises(MalformedResponse):
            parse(body, max_depth=cap)


@settings(max_examples=200)
@given(st.binary(max_size=60) | st.text(alphabet='[]{}",:\\u0d8e1.-NaInfity ', max_size=40).map(str.encode))
def test_anything_else_is_a_value_or_the_one_error(body: bytes) -> None:
    try:
        value = parse(body)
    except MalformedResponse:
        return
    assert json.loads(body) == value


def test_an_ordinary_page_is_cheap() -> None:
    session = {"id": "s" * 20, "pages": [{"url": "https:\\/\\/x/" + "y" * 60, "at": 1.5}] * 20, "tags": {"a": "b"}}
    body = json.dumps({"sessions": [session] * 500}).encode()
    parse(body)
    begun = time.process_time()
    parse(body)
    assert time.process_time() - begun < 0.5, f"{len(body):,} bytes"


# ------------------------------------------------------------------------------------------------ large bodies


@pytest.fixture
def every_body_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_json, "_LARGE_BYTES", 0)


def exactly(body: bytes) -> object:
    """The exact reader's word: a value, or None and the refusal."""
    try:
        return strict_json._read_exactly(body, 64)
    except MalformedResponse as refused:
        return str(refused)


def quickly(body: bytes) -> object:
    try:
        value = parse(body)
        assert Document(body).value == value
    except MalformedResponse as refused:
        with pytest.raises(MalformedResponse, match=re.escape(str(refused))):
            _ = Document(body).value
        return str(refused)
    return value


@pytest.mark.usefixtures("every_body_is_large")
@pytest.mark.parametrize("body", [*REFUSED.values(), *(body for body, _ in ACCEPTED.values())])
def test_a_large_body_is_read_and_refused_as_a_small_one(body: bytes) -> None:
    assert repr(quickly(body)) == repr(exactly(body))


TOKENS = (
    ["[", "]", "{", "}", ",", ":", '"a"', '"b"', '"aa"', '"a":', '"b":', '"', "\\", '\\"', "\\u0061", "\\ud83d", "\n"],
    ["1", "-0", "-", "0", "1.5", "1e5", "1e999", "9223372036854775808", "null", "NaN", "é", '"c":[1,{"a":2}]', " "],
)
SCRAPS = st.lists(st.sampled_from([token for tokens in TOKENS for token in tokens]), max_size=14).map("".join)


@pytest.mark.usefixtures("every_body_is_large")
@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    SCRAPS | st.sampled_from(['{"a":%s}', "[%s]", '{"a":1,%s}']).flatmap(lambda shape: SCRAPS.map(lambda t: shape % t))
)
def test_no_scrap_of_json_is_read_differently_when_it_is_large(text: str) -> None:
    body = text.encode()
    assert repr(quickly(body)) == repr(exactly(body))


@pytest.mark.usefixtures("every_body_is_large")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(VALUES, st.sampled_from([None, 1]), st.booleans())
def test_a_large_value_comes_back_whole(value: object, indent: int | None, ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert repr(quickly(body)) == repr(value)


@pytest.mark.usefixtures("every_body_is_large")
@pytest.mark.parametrize("name", ["id", "a_name_of_more_than_sixteen_bytes", "é" * 9, ""])
@pytest.mark.parametrize("others", [0, 40])
def test_a_name_twice_is_found_wherever_it_is(name: str, others: int) -> None:
    more = "".join(f'"other_{n}":{{"{name}":[{{"{name}":1}}]}},' for n in range(others))
    once = f'[{{{more}"{name}":1}},{{"{name}":1}}]'
    assert parse(once.encode()) == json.loads(once)
    for twice in ('[{"%s":0,%s"%s":1}]', '[{"x":{"y":1}},{"%s":0,%s"%s":1}]', '{"%s":[],%s"%s":1}'):
        with pytest.raises(MalformedResponse, match="same key twice"):
            parse((twice % (name, more, name)).encode())


PAGE = {
    "total": 3,
    "empty": [],
    "sessions": [{"id": n, "tags": ["a", "b"], "at": "x"} for n in range(2000)],
    "_links": {"next": "l"},
}


@pytest.mark.parametrize("indent", [None, 1])
def test_an_outline_has_everything_but_the_records(indent: int | None) -> None:
    body = json.dumps(PAGE, indent=indent).encode()
    outline = Document(body).outline("sessions")
    assert isinstance(outline, dict)
    assert list(outline) == list(PAGE)
    assert [json.loads(bytes(raw)) for raw in outline["sessions"]] == PAGE["sessions"]
    assert {**outline, "sessions": PAGE["sessions"]} == PAGE
    assert Document(body).outline("empty") == PAGE
    assert [json.loads(bytes(raw)) for raw in Document(json.dumps(PAGE["sessions"]).encode()).outline("")] == PAGE[
        "sessions"
    ]  # type: ignore[attr-defined]


def test_only_the_picked_fields_are_built() -> None:
    found = picked(json.dumps(PAGE).encode(), "sessions", ("id", "absent"))
    assert found == ([*range(2000)], [None] * 2000)
    assert picked(b'{"sessions":[1]}', "sessions", ("id",)) is None
    assert picked(b'{"other":[]}', "sessions", ("id",)) is None


@pytest.mark.usefixtures("every_body_is_large")
@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)  # two shared cores
@given(st.lists(st.dictionaries(st.sampled_from(["id", "a b", "é", "x" * 24, "x" * 25, "at"]), VALUES), min_size=1))
@example([{"id": None, "at": None}, {"at": None}])
@example([{"id": None, "at": None}, {"at": None}, {"id": None, "at": None}, {"at": None}])
def test_the_fields_of_the_records_are_told_without_reading_them(records: list[dict[str, object]]) -> None:
    body = json.dumps({"before": {"no": 1}, "rows": records, "after": [1]}, ensure_ascii=False).encode()
    listed = Document(body).listed("rows")
    if listed is None:  # another list is longer, or the exact reader had to look
        return
    names = {name for record in records for name in record}
    assert listed.fields == (None if "x" * 25 in names else tuple(sorted(names)))
    assert json.loads(body[listed.start : listed.end]) == records


def is_written_plainly(value: object) -> bool:
    return isinstance(value, str) and json.dumps(value, ensure_ascii=False) == f'"{value}"'


TEXTS = (
    st.text(max_size=3) | st.sampled_from(["2026-10-05", "2026-10-06", 'quo"ted', "back\\slash", "nul\x00"]) | VALUES
)


@pytest.mark.usefixtures("every_body_is_large")
@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)  # two shared cores
@given(
    st.lists(st.fixed_dictionaries({"at": TEXTS}, optional={"id": TEXTS, "x": VALUES, "é" * 20: TEXTS}), min_size=1),
    st.sampled_from([(",", ":"), (", ", ": ")]),
)
def test_texts_are_told_by_where_they_are(records: list[dict[str, object]], separators: tuple[str, str]) -> None:
    body = json.dumps({"rows": records, "z": {"at": "y"}}, ensure_ascii=False, separators=separators).encode()
    listed = Document(body).listed("rows")
    for name in ("at", "id", "é" * 20, "absent"):
        values = [record.get(name) for record in records]
        found = texts_of(body, listed, (name,))
        assert found is None or found == (values,)
        if listed is not None and separators == (",", ":") and all(map(is_written_plainly, values)):
            assert found is not None


def test_texts_of_a_page_are_those_that_reading_it_gives() -> None:
    records = [
        {"at": f"2026-10-05T12:00:{n % 60:02}", "n": n, "id": f"s{n}", "more": {"id": "no"}} for n in range(2000)
    ]
    body = json.dumps({"sessions": records}, separators=(",", ":")).encode()
    listed = Document(body).listed("sessions")
    found = texts_of(body, listed, ("at", "id"))
    assert found == picked(body, "sessions", ("at", "id"))
    assert found == ([record["at"] for record in records], [record["id"] for record in records])
    assert texts_of(body, listed, ("n",)) is None


def test_a_list_whose_name_is_empty_is_not_taken_for_the_root() -> None:
    body = json.dumps({"": [{"id": n} for n in range(9000)]}).encode()
    assert Document(body).listed("") is None
    assert Document(body).value == {"": [{"id": n} for n in range(9000)]}
