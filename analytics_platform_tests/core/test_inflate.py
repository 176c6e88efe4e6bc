"""The bounded decoder as a function of bytes, however they are cut (A6, A8, M4, M5)."""

from __future__ import annotations

import contextlib
import gzip
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_platform.core.errors import MalformedResponse, ResponseTooLarge, TruncatedResponse
from analytics_platform.core.inflate import Decoder

MIB = 1024 * 1024


def decode(encoding: str, data: bytes, step: int = 1000, *, max_bytes: int = 64 * MIB, max_ratio: float = 200) -> bytes:
    decoder = Decoder(encoding, max_bytes=max_bytes, max_ratio=max_ratio)
    for start in range(0, len(data), step):
        decoder.feed(data[start : start + step])
    return decoder.finish()


@given(st.binary(max_size=5000), st.sampled_from(["gzip", "deflate", "identity"]), st.integers(1, 6000))
def test_any_cutting_into_chunks_gives_the_same_bytes(data: bytes, encoding: str, step: int) -> None:
    wire = {"gzip": gzip.compress(data), "deflate": zlib.compress(data), "identity": data}[encoding]
    assert decode(encoding, wire, step) == data


@given(st.binary(min_size=1, max_size=2000), st.data())
def test_every_cut_is_noticed(data: bytes, draw: st.DataObject) -> None:
    wire = gzip.compress(data)
    with pytest.raises(TruncatedResponse):
        decode("gzip", wire[: draw.draw(st.integers(1, len(wire) - 1))])


def test_output_that_zlib_still_holds_back_is_not_a_cut() -> None:
    for size in (256 * 1024 - 1, 256 * 1024, 256 * 1024 + 1, MIB, MIB + 7):
        data = b"x" * size
        assert decode("gzip", gzip.compress(data), 10**9, max_ratio=10**6) == data
        raw = zlib.compressobj(wbits=-15)  # no trailer keeps input pending while output is
        assert decode("deflate", raw.compress(data) + raw.flush(), 10**9, max_ratio=10**6) == data


def test_the_ratio_is_judged_past_one_mebibyte_only() -> None:
    small, large = gzip.compress(b"0" * MIB), gzip.compress(b"0" * (MIB + 1))
    assert len(decode("gzip", small)) == MIB
    with pytest.raises(ResponseTooLarge, match="200 times"):
        decode("gzip", large)


def test_the_cap_on_bytes_holds_for_every_encoding() -> None:
    data = random.Random(1).randbytes(2 * MIB)
    for encoding, wire in (("identity", data), ("gzip", gzip.compress(data)), ("deflate", zlib.compress(data))):
        assert decode(encoding, wire, max_bytes=len(data)) == data
        with pytest.raises(ResponseTooLarge):
            decode(encoding, wire, max_bytes=len(data) - 1)


@pytest.mark.parametrize("encoding", ["gzip, gzip", "gzip,deflate", "br", "compress", "gzip;q=1", "exi"])
def test_unasked_and_chained_encodings_are_refused(encoding: str) -> None:
    with pytest.raises(MalformedResponse):
        Decoder(encoding, max_bytes=1, max_ratio=1)


@given(st.binary(max_size=300), st.sampled_from(["gzip", "deflate"]))
def test_noise_is_an_error_of_ours_or_bytes(data: bytes, encoding: str) -> None:
    with contextlib.suppress(MalformedResponse, TruncatedResponse, ResponseTooLarge):
        decode(encoding, data, 7)
