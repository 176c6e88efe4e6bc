"""The pinned origin: whatever a link says, what comes out is a path and query for this host (T1, C4-C6)."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from analytics_platform.core.errors import ConfigurationError, ForeignOrigin, MalformedResponse
from analytics_platform.core.origin import Origin, check_path, path_segment

ORIGIN = Origin.parse("https://api.example.com")
ALPHABET = "ab./\\:@?#%2eF[]{}&=; \tevil.comhttps-_é\n"


@given(st.text(alphabet=ALPHABET, max_size=60) | st.text(max_size=30))
@example("//evil.com")
@example("https://api.example.com@evil.com/")
@example("/\\evil.com")
@example("/api")
@example("/apis/x")
def test_no_link_leaves_the_origin(link: str) -> None:
    try:
        path, query = ORIGIN.resolve(link, relative_to="/api/v1/x")
        check_path(path, ("/api/",))
    except (ForeignOrigin, MalformedResponse):
        return
    url = ORIGIN.url(path, query)
    assert (url.scheme, url.host, url.port) == ("https", "api.example.com", None)
    segments = url.raw_path.partition(b"?")[0].split(b"/")
    assert segments[:2] == [b"", b"api"]
    assert b".." not in segments


@given(st.text(max_size=40))
def test_an_id_is_one_segment_or_refused(value: str) -> None:
    try:
        segment = path_segment(value)
    except ConfigurationError:
        return
    path = f"/api/{segment}/x"
    try:
        check_path(path, ("/api",))
    except ForeignOrigin:
        assert "%" in value or ";" in value  # an id that is itself an encoded separator or dot segment
        return
    assert ORIGIN.url(path).raw_path.count(b"/") == 3


@pytest.mark.parametrize("value", ["../../x", "/etc/x", "a\0b", "..", ".", "", "x" * 301, "a\\b", "a\nb"])
def test_ids_that_are_paths_are_refused(value: str) -> None:
    with pytest.raises(ConfigurationError):
        path_segment(value)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://[2606:4700::1111]:8443", "https://[2606:4700::1111]:8443"),
        ("HTTPS://API.example.com:443", str(ORIGIN)),
    ],
)
def test_origins_print_as_they_are_pinned(text: str, url: str) -> None:
    assert str(Origin.parse(text)) == url


@pytest.mark.parametrize(
    "link", ["https://api.example.com:443/api/x", "//API.EXAMPLE.COM/api/x", "HTTPS://api.example.com/api/x"]
)
def test_spellings_of_the_same_origin_are_the_same(link: str) -> None:
    assert ORIGIN.resolve(link) == ("/api/x", "")
