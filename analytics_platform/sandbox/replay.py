"""A real web server log as the truth.

Belongs here: reading the tab-separated log and turning requests into page views. Does not belong here: sessions (each
observer cuts its own). A replayed world has no losses: everyone consents, nobody is a bot, nothing is blocked, capped
or planted.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analytics_platform.sandbox.truth import SiteTruth, World, local_dates, sandbox_now

__all__ = ["NOT_A_PAGE", "read_log", "replay_world"]

HEADER = ("host", "logname", "time", "method", "url", "response", "bytes", "referer", "useragent")
NOT_A_PAGE = (".gif", ".jpg", ".jpeg", ".xbm", ".bmp", ".mpg", ".mov", ".wav", ".au", ".txt")
_FIRST_VISITOR_ID = 1_000_000
_RELOAD_MS = 30 * 60 * 1000  # the same URL later than this is a new visit, whatever the vendor


def read_log(path: Path | str) -> pd.DataFrame:
    r"""Every request of the log as text columns named as in its header (`HEADER`), `time` as int64 epoch seconds.

    The file is latin-1 with tab-separated fields and lines that end in "\n" only. Lines whose time is no number are
    left out. Raises ValueError when the header is another one.
    """
    frame = pd.read_csv(
        path, sep="\t", encoding="latin-1", dtype=str, keep_default_na=False, quoting=3, lineterminator="\n",
        on_bad_lines="skip",
    )  # fmt: skip
    if tuple(frame.columns) != HEADER:
        raise ValueError(f"the log must start with the tab-separated header {' '.join(HEADER)}")
    frame = frame[frame["time"].str.fullmatch(r"\d{1,12}")]
    return frame.assign(time=frame["time"].astype(np.int64)).reset_index(drop=True)


def replay_world(
    path: Path | str,
    *,
    site_key: str = "replay",
    hostname: str = "www.ksc.nasa.gov",
    timezone: str = "America/New_York",
) -> World:
    """The world of one logged site.

    A visitor is a host. A page view is a GET or HEAD answered 200 or 304 whose path (without query) ends in none of
    `NOT_A_PAGE`, whatever the case. The log knows seconds only: requests of one visitor in the same second are taken in
    the order of their URLs. Raises ValueError when nothing is left.
    """
    views = _views(read_log(path), site_key, hostname)
    days = local_dates(views["at_ms"].to_numpy(), timezone)
    first_day, last_day = (date.fromisoformat(str(day)) for day in (days.min(), days.max()))
    site = SiteTruth(
        key=site_key,
        hostname=hostname,
        timezone=timezone,
        wid=17345030,
        smartlook_token="sbx-smartlook-replay-07d1b6a4e2c9",  # noqa: S106 - opens a loopback server only
        smartlook_project_id="7c90e2ab41d38",
        pirsch_domain_id="R3p1ayNa5a",
        kameleoon_site_code="r5p0l1a2y9",
        kissmetrics_product_id="0b9cbb20-0edf-0131-ead5-12313b0d181e",
        kissmetrics_account_id="c5d2f1e0-0edf-0131-ead2-12313b0d181e",
    )
    return World(
        seed=0,
        first_day=first_day,
        last_day=last_day,
        now=sandbox_now(last_day),
        sites=(site,),
        visitors=_visitors(views),
        views=views.drop(columns=["user_agent"]),
        stories=(),
        **_nothing_else(),
    )


def _views(log: pd.DataFrame, site_key: str, hostname: str) -> pd.DataFrame:
    # An absolute URL (a proxy request) counts by its path.
    target = log["url"].str.replace(r"^[a-zA-Z][a-zA-Z0-9+.-]*://[^/]*", "", regex=True)
    path = target.str.partition("?")[0]
    is_view = (
        log["method"].isin(["GET", "HEAD"])
        & log["response"].isin(["200", "304"])
        & ~path.str.lower().str.endswith(NOT_A_PAGE)
    )
    if not is_view.any():
        raise ValueError("the log holds no page view")
    log, target, path = log[is_view], target[is_view], path[is_view]
    frame = pd.DataFrame(
        {
            "site_key": site_key,
            "visitor_id": pd.factorize(log["host"], sort=True)[0].astype(np.int64) + _FIRST_VISITOR_ID,
            "at_ms": log["time"].to_numpy() * 1000,
            "url": ("https://" + hostname + target).to_numpy(),
            "path": path.to_numpy(),
            "query": target.str.partition("?")[2].to_numpy(),
            "title": path.to_numpy(),
            "referrer": log["referer"].replace("-", "").to_numpy(),
            "user_agent": log["useragent"].to_numpy(),
        }
    )
    frame = frame.sort_values(["site_key", "visitor_id", "at_ms", "url"], kind="stable", ignore_index=True)
    before = frame.shift()
    same = frame["visitor_id"].eq(before["visitor_id"]) & frame["url"].eq(before["url"])
    soon = frame["at_ms"].sub(before["at_ms"]).le(_RELOAD_MS)
    frame.insert(8, "is_reload", (same & soon).to_numpy(dtype=bool))
    frame.insert(0, "view_id", np.arange(1, len(frame) + 1, dtype=np.int64))
    return frame


def _visitors(views: pd.DataFrame) -> pd.DataFrame:
    """What a log of 1995 cannot know is one constant for everyone."""
    first = views.drop_duplicates("visitor_id")
    count = len(first)
    index = np.arange(count)
    constants: dict[str, Any] = {
        "country": "US", "country_name": "United States", "region": "", "city": "", "language": "en",
        "device": "desktop", "browser": "", "browser_version": "", "os": "", "os_version": "",
        "screen_width": 0, "screen_height": 0,
    }  # fmt: skip
    frame = pd.DataFrame({"visitor_id": first["visitor_id"].to_numpy(), "site_key": first["site_key"].to_numpy()})
    for name, value in constants.items():
        frame[name] = pd.Series([value] * count, dtype=np.int64 if isinstance(value, int) else object)
    frame["user_agent"] = first["user_agent"].to_numpy(dtype=object)
    # Not the host of the log: an address that never routes, one a visitor.
    frame["ip"] = [f"100.{64 + (n >> 16) % 64}.{(n >> 8) % 256}.{n % 256}" for n in index]
    frame["is_bot"], frame["bot_kind"], frame["is_data_centre"] = False, "", False
    frame["consents"], frame["sends_dnt"], frame["blocks_ads"], frame["block_rank"] = True, False, False, 1.0
    frame["first_seen_at_ms"] = first["at_ms"].to_numpy()
    for name in ("email", "display_name", "uid"):
        frame[name] = np.full(count, None, dtype=object)
    frame["kameleoon_code"] = [f"replay{n:010d}" for n in index]
    return frame


def _nothing_else() -> dict[str, pd.DataFrame]:
    """A log has page views only: the other frames are empty, with the columns and types of a generated world."""
    text, whole, real = object, np.int64, np.float64
    schemas: dict[str, dict[str, Any]] = {
        "events": {"event_id": whole, "site_key": text, "visitor_id": whole, "at_ms": whole, "name": text, "kind": text,
                   "value": text, "path": text, "meta": text, "duration_seconds": whole},
        "conversions": {"conversion_id": whole, "site_key": text, "visitor_id": whole, "at_ms": whole, "goal": text,
                        "revenue": real, "order_id": text, "product_sku": text, "quantity": whole},
        "exposures": {"site_key": text, "visitor_id": whole, "experiment_id": whole, "variation_id": whole,
                      "at_ms": whole},
        "products": {"site_key": text, "sku": text, "name": text, "price": real},
        "product_events": {"site_key": text, "visitor_id": whole, "at_ms": whole, "sku": text, "kind": text,
                           "quantity": whole},
    }  # fmt: skip
    return {
        name: pd.DataFrame({column: pd.Series([], dtype=kind) for column, kind in schema.items()})
        for name, schema in schemas.items()
    }
