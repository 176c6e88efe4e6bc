"""Strict JSON: refuses what parsers read differently, keeps the rest exactly (RELIABILITY E1-E6, M19)."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics_platform.core.errors import MalformedResponse
from analytics_platform.core.strict_json import parse

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
