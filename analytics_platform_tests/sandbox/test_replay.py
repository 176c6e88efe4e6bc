"""A web log as the truth: what counts as a page view, and the known numbers of a real day."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from analytics_platform.sandbox.replay import HEADER, replay_world
from analytics_platform.sandbox.sessionize import sessionize
from analytics_platform.sandbox.truth import generate

REAL_LOG = Path(__file__).parents[3] / "shared" / "real_data" / "nasa_19950801.tsv"


def write_log(path: Path, *rows: tuple[str, int | str, str, str, int | str]) -> Path:
    """Rows are (host, time, method, url, response)."""
    lines = ["\t".join(HEADER)]
    lines += [f"{host}\t-\t{time}\t{method}\t{url}\t{code}\t100\t\t" for host, time, method, url, code in rows]
    path.write_bytes(("\n".join(lines) + "\n").encode("latin-1"))
    return path


def test_only_pages_answered_well_are_views(tmp_path: Path) -> None:
    log = write_log(
        tmp_path / "log.tsv",
        ("a.example", 807256800, "GET", "/index.html", 200),
        ("a.example", 807256801, "HEAD", "/head.html", 304),
        ("a.example", 807256802, "POST", "/form", 200),
        ("a.example", 807256803, "GET", "/gone.html", 404),
        ("a.example", 807256804, "GET", "/LOGO.GIF", 200),
        ("a.example", 807256805, "GET", "/cgi/map?logo.gif", 200),
        ("a.example", 807256806, "GET", "/pic.jpg?size=2", 200),
        ("a.example", "soon", "GET", "/broken.html", 200),
    )
    world = replay_world(log)
    assert world.views["path"].tolist() == ["/index.html", "/head.html", "/cgi/map"]
    assert world.views["query"].tolist() == ["", "", "logo.gif"]
    assert world.views["url"].iloc[2] == "https://www.ksc.nasa.gov/cgi/map?logo.gif"


def test_odd_bytes_do_not_break_lines(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.tsv", ("a.example", 807256800, "GET", "/caf\xe9\x85\r\x0c.html", 200))
    assert replay_world(log).views["path"].tolist() == ["/caf\xe9\x85\r\x0c.html"]


def test_one_second_is_ordered_by_url_and_days_are_local(tmp_path: Path) -> None:
    log = write_log(
        tmp_path / "log.tsv",
        ("b.example", 807249540, "GET", "/b.html", 200),  # 1995-07-31 23:59 in New York
        ("b.example", 807249540, "GET", "/a.html", 200),
        ("a.example", 807256800, "GET", "/c.html", 200),
    )
    world = replay_world(log)
    assert world.views["path"].tolist() == ["/c.html", "/a.html", "/b.html"]
    assert (world.first_day, world.last_day) == (date(1995, 7, 31), date(1995, 8, 1))
    assert world.now.isoformat() == "1995-08-02T12:00:00+00:00"


def test_nobody_is_lost_and_no_host_is_kept(tmp_path: Path) -> None:
    world = replay_world(write_log(tmp_path / "log.tsv", ("secret-host.example", 807256800, "GET", "/", 200)))
    assert world.visitors["consents"].all()
    assert not world.visitors["is_bot"].any()
    assert not world.visitors["blocks_ads"].any()
    assert world.stories == ()
    assert "secret-host" not in world.visitors.to_csv() + world.views.to_csv()


def test_frames_have_the_columns_of_a_generated_world(tmp_path: Path) -> None:
    world = replay_world(write_log(tmp_path / "log.tsv", ("a.example", 807256800, "GET", "/", 200)))
    other = generate(days=1)
    for name in ("visitors", "views", "events", "conversions", "exposures", "products", "product_events"):
        assert set(getattr(world, name).columns) == set(getattr(other, name).columns), name


@pytest.mark.parametrize("content", [b"host\ttime\nx\t1\n", b""])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log.tsv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"header|No columns"):
        replay_world(path)


def test_a_log_without_pages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no page view"):
        replay_world(write_log(tmp_path / "log.tsv", ("a.example", 807256800, "GET", "/a.gif", 200)))


@pytest.mark.skipif(not REAL_LOG.is_file(), reason="the real log is not next to this checkout")
@pytest.mark.parametrize(
    ("idle", "cap", "drop", "sessions", "views", "bounce"),
    [
        (1800, 86_400, False, 2835, 8997, 0.5026),
        (900, 3600, False, 3085, 8997, None),
        (1800, 86_400, True, 2835, 8311, 0.5725),
    ],
)
def test_the_real_day_has_its_known_numbers(
    idle: int, cap: int, drop: bool, sessions: int, views: int, bounce: float | None
) -> None:
    world = replay_world(REAL_LOG)
    assert len(world.visitors) == 2235
    got = sessionize(world.views, idle_seconds=idle, cap_seconds=cap, drop_reloads=drop)
    sizes = got.groupby("session_index").size()
    assert (len(sizes), len(got)) == (sessions, views)
    if bounce is not None:
        assert (sizes == 1).mean() == pytest.approx(bounce, abs=5e-5)
