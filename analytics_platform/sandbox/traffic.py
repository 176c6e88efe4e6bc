"""What happens on a site: visits, page views, events, conversions, exposures.

Belongs here: drawing the traffic of one site and assembling the frames of a world. Does not belong here: the tables of
people and pages (`population`, `catalogue`), any vendor's definition of a session: the truth knows page views, not
sessions.

The shape that makes vendors disagree is on purpose: pauses of 16 to 29 minutes (two Smartlook sessions, one for the
others), pauses beyond 30 minutes, readers who stay over an hour, visits over midnight, reloads, returning visitors.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd

from analytics_platform.sandbox.catalogue import CAMPAIGNS, REFERRERS, Catalogue, catalogue
from analytics_platform.sandbox.population import country_codes, people
from analytics_platform.sandbox.truth import SiteTruth, Story

__all__ = ["EXPERIMENTS", "assemble", "site_traffic"]

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Objects = npt.NDArray[np.object_]

_MINUTE_MS = 60_000
_RETURN_SHARE = 0.35
_VISITS_A_DAY = {"shop": 150.0, "blog": 70.0}
_CRAWLER_VISITS_A_DAY = 4.0
_WEEKDAY = {
    "shop": (1.0, 0.98, 0.97, 1.0, 1.02, 1.12, 1.15),
    "blog": (1.1, 1.12, 1.1, 1.05, 0.95, 0.7, 0.75),
}
_HOUR = {
    "shop": (5, 3, 2, 1, 1, 2, 4, 8, 12, 15, 17, 18, 20, 19, 17, 16, 17, 20, 25, 30, 33, 30, 22, 12),
    "blog": (8, 6, 4, 3, 3, 4, 7, 12, 20, 26, 27, 25, 24, 26, 26, 24, 20, 16, 14, 14, 15, 15, 14, 11),
}
# kind of site -> (experiment id, reference variation, other variation, pages it runs on, lift of the other variation)
EXPERIMENTS: dict[str, tuple[int, int, int, str, float]] = {
    "shop": (210501, 0, 880101, "/product/", 1.3),
    "blog": (210502, 0, 880201, "/articles/", 1.0),
}
_FLIP_SHARE = 0.01


@dataclass(frozen=True)
class _Visits:
    """Parallel arrays, one entry a visit; `visitor` indexes the site's people."""

    visitor: Ints
    start_ms: Ints
    views: Ints
    converts: Bools
    reader: Bools


def site_traffic(
    rng: np.random.Generator,
    site: SiteTruth,
    *,
    further: np.random.Generator,
    first_day: date,
    days: int,
    scale: float,
    stories: Sequence[Story],
) -> dict[str, pd.DataFrame]:
    """All frames of one site; visitor ids are local (0…), `assemble` makes them unique.

    `further` draws what the second and later stories of one name add.
    """
    kind = "blog" if site.key.startswith("blog") else "shop"
    pages = catalogue(kind)
    mine: dict[str, list[Story]] = defaultdict(list)
    for story in stories:
        if story.site_key == site.key:
            mine[story.name].append(story)
    starts = _visit_starts(rng, site, kind, first_day=first_day, days=days, scale=scale)
    visitor, countries, consent = _returning(rng, site, starts, mine["consent_banner"])
    human_count = len(countries)
    bot_starts, bot_views, bot_kinds = _bots(rng, further, site, first_day, days, scale, mine["bot_burst"])
    visitors = people(
        rng,
        site_key=site.key,
        countries=np.concatenate([countries, np.full(len(bot_starts), "US", dtype=object)]),
        bot_kinds=np.concatenate([np.full(human_count, "", dtype=object), bot_kinds]),
        consent_override=np.concatenate([consent, np.full(len(bot_starts), np.nan)]),
        login_share=0.12 if kind == "shop" else 0.05,
    )
    broken = mine["broken_split"]
    lifted = rng.random(len(visitors)) < (broken[0].parameters["other_share"] if broken else 0.5)
    human = _human_visits(rng, visitor, starts, kind, lifted)
    visits = _Visits(
        visitor=np.concatenate([human.visitor, human_count + np.arange(len(bot_starts))]),
        start_ms=np.concatenate([human.start_ms, bot_starts]),
        views=np.concatenate([human.views, bot_views]),
        converts=np.concatenate([human.converts, np.zeros(len(bot_starts), dtype=bool)]),
        reader=np.concatenate([human.reader, np.zeros(len(bot_starts), dtype=bool)]),
    )
    views = _views(rng, site, pages, visits)
    views["is_bot"] = views["visitor_id"].to_numpy() >= human_count
    first_view = views.groupby("visitor_id")["at_ms"].min().reindex(range(len(visitors))).to_numpy(dtype=np.int64)
    visitors["visitor_id"] = np.arange(len(visitors))
    visitors["first_seen_at_ms"] = _first_seen(rng, first_view, visitors["is_bot"].to_numpy(dtype=bool))
    conversions = _conversions(rng, site, pages, views)
    return {
        "visitors": visitors,
        "views": views,
        "events": _events(rng, site, kind, views, conversions),
        "conversions": conversions,
        "exposures": _exposures(rng, site, kind, views, lifted),
        "products": pd.DataFrame(
            [(site.key, p.sku, p.name, p.price) for p in pages.products], columns=["site_key", "sku", "name", "price"]
        ),
        "product_events": _product_events(site, pages, views, conversions),
    }


# --- visits ----------------------------------------------------------------------------------------------------------


def _visit_starts(
    rng: np.random.Generator, site: SiteTruth, kind: str, *, first_day: date, days: int, scale: float
) -> Ints:
    """Sorted UTC epoch ms of human visits, drawn on the local clock (so a 25-hour day is one day)."""
    calendar = [first_day + timedelta(days=offset) for offset in range(days)]
    weekday = np.array([_WEEKDAY[kind][day.weekday()] for day in calendar])
    counts = rng.poisson(_VISITS_A_DAY[kind] * scale * weekday)
    hours = np.array(_HOUR[kind], dtype=float)
    total = int(counts.sum())
    day_index = np.repeat(np.arange(days), counts)
    hour = rng.choice(24, size=total, p=hours / hours.sum())
    wall = np.datetime64(first_day, "ms") + (
        day_index * 86_400_000 + hour * 3_600_000 + rng.integers(0, 3_600_000, size=total)
    ).astype("timedelta64[ms]")
    return np.sort(_to_utc_ms(wall, site.timezone, rng.random(total) < 0.5))


def _to_utc_ms(wall: npt.NDArray[np.datetime64], timezone: str, first_pass: Bools) -> Ints:
    local = pd.DatetimeIndex(wall).tz_localize(timezone, ambiguous=first_pass, nonexistent="shift_forward")
    return local.tz_convert("UTC").tz_localize(None).to_numpy().astype("datetime64[ms]").astype(np.int64)


def _returning(
    rng: np.random.Generator, site: SiteTruth, starts: Ints, banners: Sequence[Story]
) -> tuple[Ints, Objects, npt.NDArray[np.float64]]:
    """Who makes each visit → (visitor index of each visit, country of each visitor, consent override of each visitor).

    A returning visit points to an earlier one, half of them a recent one; following the pointers finds the person.
    A consent banner resets cookies in its country: the same person is another visitor from that instant on, and once
    more with every later banner there.
    """
    count = len(starts)
    order = np.arange(count)
    recent = order - 1 - rng.exponential(40.0, size=count).astype(np.int64)
    anywhere = (rng.random(count) * order).astype(np.int64)
    parent = np.clip(np.where(rng.random(count) < 0.5, recent, anywhere), 0, None)
    parent = np.where(
        (rng.random(count) < _RETURN_SHARE) & (order > 0), np.minimum(parent, np.maximum(order - 1, 0)), order
    )
    while not np.array_equal(parent, parent[parent]):
        parent = parent[parent]
    country_of_root = country_codes(rng, site.key, count)
    country = country_of_root[parent]
    asked = np.zeros(count, dtype=np.int64)
    answers = np.full(count, np.nan)
    for banner in sorted(banners, key=lambda story: story.first_day):
        live = _to_utc_ms(np.array([np.datetime64(banner.first_day, "ms")]), site.timezone, np.array([True]))[0]
        sees = (country == banner.parameters["country"]) & (starts >= live)
        asked += sees
        answers[sees] = banner.parameters["consent_rate"]
    _, first_visit, visitor = np.unique(parent * (len(banners) + 1) + asked, return_index=True, return_inverse=True)
    return visitor.astype(np.int64), country[first_visit], answers[first_visit]


def _bots(
    rng: np.random.Generator,
    further: np.random.Generator,
    site: SiteTruth,
    first_day: date,
    days: int,
    scale: float,
    bursts: Sequence[Story],
) -> tuple[Ints, Ints, Objects]:
    """One visit a bot → (start, number of views, kind)."""
    crawlers = int(rng.poisson(_CRAWLER_VISITS_A_DAY * scale * days))
    wall = np.datetime64(first_day, "ms") + rng.integers(0, days * 86_400_000, size=crawlers).astype("timedelta64[ms]")
    starts = [_to_utc_ms(wall, site.timezone, np.ones(crawlers, dtype=bool))]
    views = [rng.integers(1, 7, size=crawlers)]
    kinds = [np.full(crawlers, "crawler", dtype=object)]
    for burst, drawn in zip(bursts, (rng, *[further] * len(bursts)), strict=False):
        size = max(1, round(burst.parameters["visitors"] * scale))
        # Three hours after lunch, densest in the middle: a scraper, not an audience.
        minute = np.clip(drawn.normal(14.5 * 60, 35, size=size), 13 * 60, 16 * 60)
        wall = np.datetime64(burst.first_day, "ms") + (minute * _MINUTE_MS).astype("timedelta64[ms]")
        starts.append(_to_utc_ms(wall, site.timezone, np.ones(size, dtype=bool)))
        views.append(np.ones(size, dtype=np.int64))
        runs_javascript = drawn.random(size) < burst.parameters["javascript_share"]
        kinds.append(np.where(runs_javascript, "headless_js", "headless").astype(object))
    return np.concatenate(starts), np.concatenate(views), np.concatenate(kinds)


def _human_visits(rng: np.random.Generator, visitor: Ints, starts: Ints, kind: str, lifted: Bools) -> _Visits:
    count = len(starts)
    single = rng.random(count) < (0.42 if kind == "shop" else 0.52)
    length = np.where(single, 1, np.minimum(1 + rng.geometric(0.26, size=count), 40))
    reader = rng.random(count) < 0.02
    length = np.where(reader, rng.integers(18, 40, size=count), length)
    chance = 0.085 if kind == "shop" else 0.05
    lift = np.where(lifted[visitor], EXPERIMENTS[kind][4], 1.0)
    converts = (length >= 2) & (rng.random(count) < chance * lift)
    tail = 4 if kind == "shop" else 2  # shop: the product bought, then the conversion path
    return _Visits(visitor, starts, length + np.where(converts, tail, 0), converts, reader)


def _first_seen(rng: np.random.Generator, first_view_ms: Ints, is_bot: Bools) -> Ints:
    """First view ever: for a share of the early visitors it lies before the range."""
    known = (rng.random(len(first_view_ms)) < 0.08) & ~is_bot
    back = rng.integers(1, 60 * 24 * 60, size=len(first_view_ms)) * _MINUTE_MS
    return np.where(known, first_view_ms - back, first_view_ms)


# --- views -----------------------------------------------------------------------------------------------------------


def _views(rng: np.random.Generator, site: SiteTruth, pages: Catalogue, visits: _Visits) -> pd.DataFrame:
    visit = np.repeat(np.arange(len(visits.views)), visits.views)
    first = np.cumsum(visits.views) - visits.views
    position = np.arange(len(visit)) - first[visit]
    from_end = visits.views[visit] - 1 - position
    page, source = _pages(rng, pages, visits, visit, position, from_end)
    at_ms = _times(rng, visits, visit, position, first)
    url, referrer = _urls(rng, site, pages, page, source, position, visits, visit)
    same_visit = position > 0
    is_reload = np.zeros(len(visit), dtype=bool)
    is_reload[1:] = same_visit[1:] & (url[1:] == url[:-1])
    path_query = np.array([u.split(site.hostname, 1)[1] for u in url], dtype=object)
    return pd.DataFrame(
        {
            "site_key": np.full(len(visit), site.key, dtype=object),
            "visitor_id": visits.visitor[visit],
            "at_ms": at_ms,
            "url": url,
            "path": pages.paths[page],
            "query": np.array([text.partition("?")[2] for text in path_query], dtype=object),
            "title": pages.titles[page],
            "referrer": referrer,
            "is_reload": is_reload,
            "page": page,
            "visit": visit,
            "converts": visits.converts[visit] & (from_end == 0),
        }
    )


def _pages(
    rng: np.random.Generator,
    pages: Catalogue,
    visits: _Visits,
    visit: Ints,
    position: Ints,
    from_end: Ints,
) -> tuple[Ints, Ints]:
    """Page of each view, and the index of the view whose URL it repeats (itself unless a reload)."""
    total = len(visit)
    page = np.where(
        position == 0,
        rng.choice(len(pages.paths), size=total, p=pages.landing),
        rng.choice(len(pages.paths), size=total, p=pages.inner),
    )
    converts = visits.converts[visit]
    in_tail = np.zeros(total, dtype=bool)
    for step, tail_page in enumerate(reversed(pages.tail)):
        here = converts & (from_end == step)
        page[here] = tail_page
        in_tail |= here
    if pages.products:
        bought = converts & (from_end == len(pages.tail))
        weights = pages.inner[pages.page_of_product]
        chosen = rng.choice(len(pages.products), size=int(bought.sum()), p=weights / weights.sum())
        page[bought] = pages.page_of_product[chosen]
        in_tail |= bought
    reload = (position > 0) & ~in_tail & (rng.random(total) < 0.045)
    source = np.maximum.accumulate(np.where(reload, 0, np.arange(total)))
    return page[source], source


def _times(rng: np.random.Generator, visits: _Visits, visit: Ints, position: Ints, first: Ints) -> Ints:
    total = len(visit)
    gap = np.clip(np.exp(rng.normal(np.log(38), 1.1, size=total)), 1.0, 840.0)  # seconds, below any idle rule
    gap = np.where(visits.reader[visit], rng.uniform(90, 420, size=total), gap)
    pause = rng.random(total)
    gap = np.where(pause < 0.03, rng.uniform(16 * 60, 29 * 60, size=total), gap)
    gap = np.where((pause >= 0.03) & (pause < 0.042), rng.uniform(31 * 60, 55 * 60, size=total), gap)
    gap_ms = np.where(position == 0, 0, (gap * 1000).astype(np.int64))
    elapsed = np.cumsum(gap_ms)
    return np.asarray(visits.start_ms[visit] + elapsed - elapsed[first][visit], dtype=np.int64)


def _urls(
    rng: np.random.Generator,
    site: SiteTruth,
    pages: Catalogue,
    page: Ints,
    source: Ints,
    position: Ints,
    visits: _Visits,
    visit: Ints,
) -> tuple[Objects, Objects]:
    base = [
        f"https://{site.hostname}{path}{'?' + query if query else ''}"
        for path, query in zip(pages.paths, pages.queries, strict=True)
    ]
    url = np.array(base, dtype=object)[page]
    count = len(visits.views)
    campaign = rng.choice(len(CAMPAIGNS), size=count, p=_shares([row[0] for row in CAMPAIGNS]))
    tagged = rng.random(count) < 0.22
    entry = rng.choice(len(REFERRERS), size=count, p=_shares([row[0] for row in REFERRERS]))
    suffixes = [_utm(row) for row in CAMPAIGNS]
    for index in np.flatnonzero((position == 0) & tagged[visit]):
        joiner = "&" if "?" in url[index] else "?"
        url[index] = f"{url[index]}{joiner}{suffixes[campaign[visit[index]]]}"
    url = url[source]
    landing_referrer = np.array([row[1] for row in REFERRERS], dtype=object)[entry]
    # The e-mail program sends no referrer.
    landing_referrer[tagged & (campaign < 2)] = ""
    previous = np.concatenate([np.array([""], dtype=object), url[:-1]])
    return url, np.where(position == 0, landing_referrer[visit], previous)


def _shares(weights: Sequence[float]) -> npt.NDArray[np.float64]:
    array = np.array(weights, dtype=np.float64)
    return np.asarray(array / array.sum(), dtype=np.float64)


def _utm(row: tuple[float, str, str, str, str, str]) -> str:
    names = ("utm_source", "utm_medium", "utm_campaign", "utm_content", "utm_term")
    return "&".join(f"{name}={value.replace(' ', '+')}" for name, value in zip(names, row[1:], strict=True) if value)


# --- what happens on the pages ---------------------------------------------------------------------------------------


def _conversions(rng: np.random.Generator, site: SiteTruth, pages: Catalogue, views: pd.DataFrame) -> pd.DataFrame:
    last = np.flatnonzero(views["converts"].to_numpy())
    rows = views.iloc[last]
    quantity = 1 + (rng.random(len(last)) < 0.25).astype(np.int64) + (rng.random(len(last)) < 0.06)
    frame = pd.DataFrame(
        {
            "site_key": rows["site_key"].to_numpy(),
            "visitor_id": rows["visitor_id"].to_numpy(),
            "at_ms": rows["at_ms"].to_numpy(),
            "goal": np.full(len(last), pages.goal, dtype=object),
        }
    )
    if not pages.products:
        frame["revenue"], frame["order_id"], frame["product_sku"], frame["quantity"] = 0.0, "", "", 0
        return frame
    bought = pages.product_of_page[views["page"].to_numpy()[last - len(pages.tail)]]
    price = np.array([product.price for product in pages.products])[bought]
    frame["revenue"] = np.round(price * quantity, 2)
    frame["order_id"] = np.array([f"{site.key.upper()}-{100001 + n}" for n in range(len(last))], dtype=object)
    frame["product_sku"] = np.array([product.sku for product in pages.products], dtype=object)[bought]
    frame["quantity"] = quantity
    return frame


def _exposures(
    rng: np.random.Generator, site: SiteTruth, kind: str, views: pd.DataFrame, lifted: Bools
) -> pd.DataFrame:
    """The first eligible page view of each human visit; about 1 % see the other variation once (a cleared cookie)."""
    experiment, reference, other, prefix, _ = EXPERIMENTS[kind]
    eligible = views[views["path"].str.startswith(prefix) & ~views["is_bot"]].drop_duplicates("visit")
    visitor = eligible["visitor_id"].to_numpy()
    flip = rng.random(len(visitor)) < _FLIP_SHARE
    return pd.DataFrame(
        {
            "site_key": np.full(len(visitor), site.key, dtype=object),
            "visitor_id": visitor,
            "experiment_id": np.full(len(visitor), experiment, dtype=np.int64),
            "variation_id": np.where(lifted[visitor] ^ flip, other, reference).astype(np.int64),
            "at_ms": eligible["at_ms"].to_numpy() + 40,
        }
    )


def _product_events(site: SiteTruth, pages: Catalogue, views: pd.DataFrame, conversions: pd.DataFrame) -> pd.DataFrame:
    columns = ["site_key", "visitor_id", "at_ms", "sku", "kind", "quantity"]
    if not pages.products:
        return pd.DataFrame(columns=columns).astype({"visitor_id": np.int64, "at_ms": np.int64, "quantity": np.int64})
    product = pages.product_of_page[views["page"].to_numpy()]
    seen = (product >= 0) & ~views["is_bot"].to_numpy()
    skus = np.array([item.sku for item in pages.products], dtype=object)
    viewed = views.loc[seen, ["site_key", "visitor_id", "at_ms"]].assign(
        sku=skus[product[seen]], kind="view", quantity=1
    )
    # The cart page is two views before the conversion.
    cart_at = views["at_ms"].to_numpy()[np.flatnonzero(views["converts"].to_numpy()) - len(pages.tail) + 1]
    bought = conversions.rename(columns={"product_sku": "sku"})[["site_key", "visitor_id", "at_ms", "sku", "quantity"]]
    added = bought.assign(at_ms=cart_at, kind="add_to_cart")
    every: pd.DataFrame = pd.concat([viewed, added, bought.assign(kind="purchase")], ignore_index=True)
    return every.reindex(columns=columns)


def _events(
    rng: np.random.Generator, site: SiteTruth, kind: str, views: pd.DataFrame, conversions: pd.DataFrame
) -> pd.DataFrame:
    """Clicks, errors and named events of people, each between its page view and the next (page views are not
    repeated).
    """
    at = views["at_ms"].to_numpy()
    same_visit_next = np.append(views["visit"].to_numpy()[1:] == views["visit"].to_numpy()[:-1], False)
    room = np.where(same_visit_next, np.append(at[1:], 0) - at, 25_000)
    human = ~views["is_bot"].to_numpy()
    path = views["path"].astype(str)
    parts: list[pd.DataFrame] = []

    def add(
        mask: Bools, name: str, *, of_kind: str, value: str, meta: str = "{}", seconds: Bools | Ints | int = 0
    ) -> None:
        index = np.flatnonzero(mask & human)
        delay = (rng.random(len(index)) * np.maximum(room[index] - 1, 1)).astype(np.int64)
        parts.append(
            pd.DataFrame(
                {
                    "visitor_id": views["visitor_id"].to_numpy()[index],
                    "at_ms": at[index] + delay,
                    "name": name,
                    "kind": of_kind,
                    "value": value,
                    "path": path.to_numpy()[index],
                    "meta": meta,
                    "duration_seconds": seconds if isinstance(seconds, int) else np.asarray(seconds)[index],
                }
            )
        )

    count = len(views)
    draw = rng.random((4, count))
    dwell = np.minimum(room // 1000, 300).astype(np.int64)
    add(draw[0] < 0.5, "click", of_kind="click", value="a.teaser")
    add(draw[1] < 0.008, "error", of_kind="error", value="TypeError: undefined is not a function")
    add((draw[1] > 0.994), "rage_click", of_kind="rage_click", value="button.pay" if kind == "shop" else "a.more")
    if kind == "shop":
        product = path.str.startswith("/product/").to_numpy()
        for quality, low, high in (("hd", 0.0, 0.04), ("sd", 0.04, 0.06)):
            meta = json.dumps({"quality": quality})
            add(
                product & (draw[2] >= low) & (draw[2] < high),
                "Video play",
                of_kind="custom",
                value=quality,
                meta=meta,
                seconds=dwell,
            )
        add((path == "/cart").to_numpy(), "Add to cart", of_kind="custom", value="cart")
    else:
        article = path.str.startswith("/articles/").to_numpy()
        for author, low, high in (("mira", 0.0, 0.2), ("jonas", 0.2, 0.3), ("team", 0.3, 0.38)):
            meta = json.dumps({"author": author, "depth": "full" if author != "team" else "half"})
            add(
                article & (draw[2] >= low) & (draw[2] < high),
                "Read article",
                of_kind="custom",
                value=author,
                meta=meta,
                seconds=dwell,
            )
    frame = pd.concat(parts, ignore_index=True)
    goal = "Purchase" if kind == "shop" else "Newsletter signup"
    done = conversions[["visitor_id", "at_ms"]].assign(
        name=goal,
        kind="custom",
        value=conversions["revenue"].map("{:.2f}".format) if kind == "shop" else "",
        path="/checkout/thank-you" if kind == "shop" else "/newsletter/thanks",
        meta=[json.dumps({"currency": "EUR", "quantity": str(q)}) for q in conversions["quantity"]]
        if kind == "shop"
        else "{}",
        duration_seconds=0,
    )
    frame = pd.concat([frame, done], ignore_index=True)
    frame["site_key"] = site.key
    return frame


# --- assembly --------------------------------------------------------------------------------------------------------

_COLUMNS: dict[str, tuple[str | None, tuple[str, ...], tuple[str, ...]]] = {
    # frame: (name of the generated id, columns in order, sort order)
    "visitors": (
        None,
        ("visitor_id", "site_key", "country", "country_name", "region", "city", "language", "device", "browser",
         "browser_version", "os", "os_version", "screen_width", "screen_height", "user_agent", "ip", "is_bot",
         "bot_kind", "is_data_centre", "consents", "sends_dnt", "blocks_ads", "block_rank", "first_seen_at_ms", "email",
         "display_name", "uid", "kameleoon_code"),
        ("site_key", "visitor_id"),
    ),
    "views": (
        "view_id",
        ("site_key", "visitor_id", "at_ms", "url", "path", "query", "title", "referrer", "is_reload"),
        ("site_key", "visitor_id", "at_ms", "url"),
    ),
    "events": (
        "event_id",
        ("site_key", "visitor_id", "at_ms", "name", "kind", "value", "path", "meta", "duration_seconds"),
        ("site_key", "visitor_id", "at_ms", "name"),
    ),
    "conversions": (
        "conversion_id",
        ("site_key", "visitor_id", "at_ms", "goal", "revenue", "order_id", "product_sku", "quantity"),
        ("site_key", "visitor_id", "at_ms"),
    ),
    "exposures": (
        None,
        ("site_key", "visitor_id", "experiment_id", "variation_id", "at_ms"),
        ("site_key", "visitor_id", "at_ms"),
    ),
    "products": (None, ("site_key", "sku", "name", "price"), ("site_key", "sku")),
    "product_events": (
        None,
        ("site_key", "visitor_id", "at_ms", "sku", "kind", "quantity"),
        ("site_key", "visitor_id", "at_ms", "kind"),
    ),
}  # fmt: skip
_INTEGERS = frozenset({"visitor_id", "at_ms", "first_seen_at_ms", "screen_width", "screen_height", "experiment_id",
                       "variation_id", "quantity", "duration_seconds"})  # fmt: skip


def assemble(parts: Sequence[dict[str, pd.DataFrame]]) -> dict[str, pd.DataFrame]:
    """One frame a kind over all sites: unique visitor ids, contract columns, sorted, ids added."""
    frames: dict[str, pd.DataFrame] = {}
    for name, (identifier, columns, order) in _COLUMNS.items():
        pieces = []
        for number, part in enumerate(parts, start=1):
            piece = part[name]
            if "visitor_id" in piece:
                piece = piece.assign(visitor_id=piece["visitor_id"].to_numpy(dtype=np.int64) + number * 1_000_000)
            pieces.append(piece)
        filled = [piece for piece in pieces if len(piece)] or pieces[:1]
        frame = pd.concat(filled, ignore_index=True)[list(columns)]
        frame = frame.sort_values(list(order), kind="stable", ignore_index=True)
        for column in _INTEGERS.intersection(columns):
            frame[column] = frame[column].astype(np.int64)
        if identifier:
            frame.insert(0, identifier, np.arange(1, len(frame) + 1, dtype=np.int64))
        frames[name] = frame
    return frames
