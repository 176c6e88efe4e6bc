"""The one sessioniser against a plain loop, and its edges."""

from __future__ import annotations

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics_platform.sandbox.sessionize import sessionize


def views(*rows: tuple[int, int, str]) -> pd.DataFrame:
    return pd.DataFrame(
        [("s", visitor, second * 1000, url) for visitor, second, url in rows],
        columns=["site_key", "visitor_id", "at_ms", "url"],
    ).astype({"visitor_id": "int64", "at_ms": "int64"})


def by_loop(frame: pd.DataFrame, idle: int, cap: int) -> list[tuple[int, int]]:
    """(session index, session start) of each sorted view."""
    found: list[tuple[int, int]] = []
    index, start, before = -1, 0, None
    for row in frame.sort_values(["site_key", "visitor_id", "at_ms", "url"], kind="stable").itertuples():
        fresh = before is None or before.visitor_id != row.visitor_id
        if fresh or row.at_ms - before.at_ms > idle * 1000 or row.at_ms - start > cap * 1000:
            index, start = index + 1, row.at_ms
        before = row
        found.append((index, start))
    return found


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 400), st.sampled_from("ab")), max_size=40),
    idle=st.integers(1, 60),
    cap=st.integers(1, 120),
)
def test_it_equals_the_plain_loop(rows: list[tuple[int, int, str]], idle: int, cap: int) -> None:
    frame = views(*rows)
    got = sessionize(frame, idle_seconds=idle, cap_seconds=cap)
    assert list(zip(got["session_index"], got["session_start_ms"], strict=True)) == by_loop(frame, idle, cap)


def test_a_gap_of_exactly_the_idle_time_is_the_same_session() -> None:
    assert sessionize(views((1, 0, "a"), (1, 900, "b")), idle_seconds=900, cap_seconds=3600)[
        "session_index"
    ].tolist() == [0, 0]
    assert sessionize(views((1, 0, "a"), (1, 901, "b")), idle_seconds=900, cap_seconds=3600)[
        "session_index"
    ].tolist() == [0, 1]


def test_the_cap_counts_from_each_new_start() -> None:
    frame = views(*[(1, minute * 60, f"p{minute}") for minute in range(0, 190, 10)])
    starts = sessionize(frame, idle_seconds=900, cap_seconds=3600)["session_start_ms"].unique() // 60_000
    assert starts.tolist() == [0, 70, 140]


def test_a_dropped_reload_still_keeps_the_session_alive() -> None:
    frame = views((1, 0, "a"), (1, 800, "a"), (1, 1600, "a"), (1, 2400, "b"), (1, 2500, "a"))
    got = sessionize(frame, idle_seconds=900, cap_seconds=86_400, drop_reloads=True)
    assert got["url"].tolist() == ["a", "b", "a"]
    assert got["session_index"].unique().tolist() == [0]
    assert got["session_end_ms"].unique().tolist() == [2_500_000]


def test_the_first_view_of_a_session_is_never_a_reload() -> None:
    got = sessionize(
        views((1, 0, "a"), (1, 5000, "a"), (2, 5000, "a")), idle_seconds=900, cap_seconds=3600, drop_reloads=True
    )
    assert len(got) == 3


def test_an_empty_frame_keeps_its_columns() -> None:
    got = sessionize(views(), idle_seconds=1, cap_seconds=1)
    assert got.empty
    assert {"session_index", "session_start_ms", "session_end_ms"} <= set(got.columns)
