# ruff: noqa: E501 - the tables are read by column; broken user agents help nobody
"""Who the visitors are: devices, places, consent, identity.

Belongs here: the weighted tables and `people()`, which draws one row a visitor. Does not belong here: when they come or
what they read (`traffic`). Addresses come from ranges that never route (100.64.0.0/10 for people, 198.51.100.0/24 and
203.0.113.0/24 for data centres), e-mail addresses from example.org.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = ["COUNTRIES", "country_codes", "people"]


@dataclass(frozen=True)
class _Place:
    name: str
    language: str
    cities: tuple[tuple[str, str], ...]  # (region, city)
    consent: float


@dataclass(frozen=True)
class _Profile:
    weight: float
    device: str
    os: str
    os_version: str
    browser: str
    versions: tuple[str, ...]
    screens: tuple[tuple[int, int], ...]
    user_agent: str  # {v} = browser version, {m} = its major part


COUNTRIES: dict[str, _Place] = {
    "DE": _Place("Germany", "de", (("Berlin", "Berlin"), ("Bavaria", "Munich"), ("Hamburg", "Hamburg"), ("Hesse", "Frankfurt"), ("Saxony", "Leipzig")), 0.80),
    "FR": _Place("France", "fr", (("Île-de-France", "Paris"), ("Auvergne-Rhône-Alpes", "Lyon"), ("Occitanie", "Toulouse")), 0.82),
    "AT": _Place("Austria", "de", (("Vienna", "Vienna"), ("Styria", "Graz")), 0.82),
    "CH": _Place("Switzerland", "de", (("Zurich", "Zurich"), ("Geneva", "Geneva")), 0.90),
    "NL": _Place("Netherlands", "nl", (("North Holland", "Amsterdam"), ("Utrecht", "Utrecht")), 0.84),
    "PL": _Place("Poland", "pl", (("Masovia", "Warsaw"), ("Lesser Poland", "Kraków")), 0.86),
    "ES": _Place("Spain", "es", (("Madrid", "Madrid"), ("Catalonia", "Barcelona")), 0.85),
    "IT": _Place("Italy", "it", (("Lombardy", "Milan"), ("Lazio", "Rome")), 0.85),
    "GB": _Place("United Kingdom", "en", (("England", "London"), ("Scotland", "Edinburgh"), ("England", "Manchester")), 0.86),
    "US": _Place("United States", "en", (("New York", "New York"), ("California", "San Francisco"), ("Texas", "Austin"), ("Illinois", "Chicago"), ("Washington", "Seattle")), 0.97),
    "CA": _Place("Canada", "en", (("Ontario", "Toronto"), ("Quebec", "Montréal")), 0.95),
    "IN": _Place("India", "en", (("Karnataka", "Bengaluru"), ("Maharashtra", "Mumbai")), 0.98),
    "AU": _Place("Australia", "en", (("New South Wales", "Sydney"), ("Victoria", "Melbourne")), 0.97),
    "BR": _Place("Brazil", "pt", (("São Paulo", "São Paulo"),), 0.95),
    "JP": _Place("Japan", "ja", (("Tokyo", "Tokyo"), ("Osaka", "Osaka")), 0.97),
    "MX": _Place("Mexico", "es", (("Mexico City", "Mexico City"),), 0.97),
}  # fmt: skip

_MIX: dict[str, dict[str, float]] = {
    "shop": {"DE": 44, "FR": 16, "AT": 8, "CH": 6, "NL": 5, "GB": 6, "US": 6, "PL": 4, "ES": 3, "IT": 2},
    "blog": {"US": 52, "CA": 10, "GB": 9, "IN": 7, "DE": 6, "AU": 5, "FR": 4, "BR": 3, "JP": 2, "MX": 2},
}

_WIN = "Mozilla/5.0 (Windows NT 10.0; Win64; x64)"
_MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)"
_AND = "Mozilla/5.0 (Linux; Android 10; K)"
_KIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
_PROFILES: tuple[_Profile, ...] = (
    _Profile(26, "desktop", "Windows", "10.0", "Chrome", ("140.0", "141.0"), ((1920, 1080), (2560, 1440), (1536, 864)), f"{_WIN} {_KIT} Chrome/{{m}}.0.0.0 Safari/537.36"),
    _Profile(6, "desktop", "Windows", "10.0", "Edge", ("140.0", "141.0"), ((1920, 1080), (1366, 768)), f"{_WIN} {_KIT} Chrome/{{m}}.0.0.0 Safari/537.36 Edg/{{m}}.0.0.0"),
    _Profile(7, "desktop", "Windows", "10.0", "Firefox", ("142.0", "143.0"), ((1920, 1080), (3840, 2160)), "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:{v}) Gecko/20100101 Firefox/{v}"),
    _Profile(2, "desktop", "Windows", "6.1", "IE", ("11.0",), ((1366, 768), (1024, 768)), "Mozilla/5.0 (Windows NT 6.1; WOW64; Trident/7.0; rv:11.0) like Gecko"),
    _Profile(1, "desktop", "Windows", "10.0", "Opera", ("122.0",), ((1920, 1080),), f"{_WIN} {_KIT} Chrome/138.0.0.0 Safari/537.36 OPR/{{m}}.0.0.0"),
    _Profile(8, "desktop", "Mac", "10.15", "Chrome", ("140.0", "141.0"), ((1440, 900), (1728, 1117)), f"{_MAC} {_KIT} Chrome/{{m}}.0.0.0 Safari/537.36"),
    _Profile(7, "desktop", "Mac", "10.15", "Safari", ("18.6", "26.0"), ((1440, 900), (5120, 2880)), f"{_MAC} AppleWebKit/605.1.15 (KHTML, like Gecko) Version/{{v}} Safari/605.1.15"),
    _Profile(3, "desktop", "Linux", "", "Firefox", ("142.0", "143.0"), ((1920, 1200), (1600, 900)), "Mozilla/5.0 (X11; Linux x86_64; rv:{v}) Gecko/20100101 Firefox/{v}"),
    _Profile(19, "phone", "Android", "10.0", "Chrome", ("140.0", "141.0"), ((412, 915), (360, 800)), f"{_AND} {_KIT} Chrome/{{m}}.0.0.0 Mobile Safari/537.36"),
    _Profile(15, "phone", "iOS", "18.6", "Safari", ("18.6", "26.0"), ((390, 844), (430, 932)), "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/{v} Mobile/15E148 Safari/604.1"),
    _Profile(2, "phone", "iOS", "18.6", "Chrome", ("141.0",), ((390, 844),), "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/{v} Mobile/15E148 Safari/604.1"),
    _Profile(3, "tablet", "iOS", "18.6", "Safari", ("18.6",), ((820, 1180),), "Mozilla/5.0 (iPad; CPU OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/{v} Mobile/15E148 Safari/604.1"),
    _Profile(1, "tablet", "Android", "10.0", "Chrome", ("140.0",), ((800, 1280),), f"{_AND} {_KIT} Chrome/{{m}}.0.0.0 Safari/537.36"),
)  # fmt: skip
_CRAWLER_UA = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
_HEADLESS_UA = f"Mozilla/5.0 (X11; Linux x86_64) {_KIT} HeadlessChrome/129.0.0.0 Safari/537.36"
_FIRST_NAMES = (
    "Ada",
    "Ben",
    "Chloé",
    "Dmitri",
    "Elif",
    "Femke",
    "Gustav",
    "Hana",
    "Igor",
    "Jule",
    "Kofi",
    "Lena",
    "Mateo",
)
_LAST_NAMES = (
    "Albrecht",
    "Bernard",
    "Costa",
    "Dubois",
    "Eriksen",
    "Fischer",
    "Gruber",
    "Haddad",
    "Ivanov",
    "Jansen",
    "Kato",
)
_CODE_LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz0123456789"))


def country_codes(rng: np.random.Generator, site_key: str, count: int) -> npt.NDArray[np.object_]:
    """Draw `count` countries (alpha-2 upper) from the site's mix."""
    mix = _MIX["blog" if site_key.startswith("blog") else "shop"]
    weights = np.array(list(mix.values()), dtype=float)
    return np.array(list(mix), dtype=object)[rng.choice(len(mix), size=count, p=weights / weights.sum())]


def people(
    rng: np.random.Generator,
    *,
    site_key: str,
    countries: npt.NDArray[np.object_],
    bot_kinds: npt.NDArray[np.object_],
    consent_override: npt.NDArray[np.float64],
    login_share: float,
) -> pd.DataFrame:
    """One row a visitor, in order, without visitor_id and first_seen_at_ms (the caller knows those).

    Args:
        rng: the world's generator.
        site_key: stamped on every row.
        countries: alpha-2 codes, one a visitor.
        bot_kinds: "" for a person, else crawler | headless | headless_js.
        consent_override: probability to consent where not NaN, instead of the country's.
        login_share: share of consenting people with a login (uid, e-mail, display name).
    """
    count = len(countries)
    frame = pd.DataFrame({"site_key": np.full(count, site_key, dtype=object), "country": countries})
    _places(rng, frame)
    _devices(rng, frame)
    is_bot = bot_kinds != ""
    frame["is_bot"] = is_bot
    frame["bot_kind"] = bot_kinds
    frame["is_data_centre"] = is_bot
    frame["ip"] = _addresses(rng, is_bot)
    frame.loc[bot_kinds == "crawler", "user_agent"] = _CRAWLER_UA
    headless = np.isin(bot_kinds.astype(str), ("headless", "headless_js"))
    frame.loc[headless, "user_agent"] = _HEADLESS_UA
    for column, value in (("device", "desktop"), ("os", "Linux"), ("os_version", ""), ("browser", "Chrome"),
                          ("browser_version", "129.0"), ("screen_width", 800), ("screen_height", 600)):  # fmt: skip
        frame.loc[is_bot, column] = value
    base = np.array([COUNTRIES[code].consent for code in countries], dtype=float)
    chance = np.where(np.isnan(consent_override), base, consent_override)
    # A headless browser never refuses the banner; nobody asks a crawler, and it runs no tag anyway.
    frame["consents"] = np.where(is_bot, bot_kinds == "headless_js", rng.random(count) < chance)
    frame["sends_dnt"] = (rng.random(count) < 0.06) & ~is_bot
    rank = rng.random(count)
    frame["block_rank"] = np.where(is_bot, 1.0, rank)
    frame["blocks_ads"] = frame["block_rank"] < 0.03
    _identities(rng, frame, login_share)
    letters = rng.integers(0, len(_CODE_LETTERS), size=(count, 16))
    frame["kameleoon_code"] = ["".join(row) for row in _CODE_LETTERS[letters]]
    return frame


def _places(rng: np.random.Generator, frame: pd.DataFrame) -> None:
    draw = rng.random(len(frame))
    names, regions, cities, languages = [], [], [], []
    for code, u in zip(frame["country"], draw, strict=True):
        place = COUNTRIES[code]
        # The first city is the largest: squaring the draw favours it.
        region, city = place.cities[int(u * u * len(place.cities))]
        names.append(place.name)
        regions.append(region)
        cities.append(city)
        languages.append(place.language)
    for column, values in (("country_name", names), ("region", regions), ("city", cities), ("language", languages)):
        frame[column] = pd.Series(values, dtype=object)


def _devices(rng: np.random.Generator, frame: pd.DataFrame) -> None:
    weights = np.array([profile.weight for profile in _PROFILES])
    chosen = rng.choice(len(_PROFILES), size=len(frame), p=weights / weights.sum())
    spin = rng.random((2, len(frame)))
    rows = []
    for index, u, w in zip(chosen, spin[0], spin[1], strict=True):
        profile = _PROFILES[index]
        version = profile.versions[int(u * len(profile.versions))]
        width, height = profile.screens[int(w * len(profile.screens))]
        agent = profile.user_agent.replace("{v}", version).replace("{m}", version.split(".")[0])
        rows.append((profile.device, profile.browser, version, profile.os, profile.os_version, width, height, agent))
    columns = (
        "device",
        "browser",
        "browser_version",
        "os",
        "os_version",
        "screen_width",
        "screen_height",
        "user_agent",
    )
    devices = pd.DataFrame(rows, columns=list(columns))
    for column in columns:
        frame[column] = devices[column]


def _addresses(rng: np.random.Generator, is_data_centre: npt.NDArray[np.bool_]) -> list[str]:
    octets = rng.integers(0, 256, size=(len(is_data_centre), 3))
    return [
        f"{('198.51.100', '203.0.113')[int(a) % 2]}.{1 + int(c) % 254}"
        if hosted
        else f"100.{64 + int(a) % 64}.{b}.{1 + int(c) % 254}"
        for hosted, (a, b, c) in zip(is_data_centre, octets, strict=True)
    ]


def _identities(rng: np.random.Generator, frame: pd.DataFrame, login_share: float) -> None:
    count = len(frame)
    known = (rng.random(count) < login_share) & frame["consents"].to_numpy(dtype=bool) & ~frame["is_bot"].to_numpy()
    numbers = rng.permutation(90_000)[: int(known.sum())] + 10_000 if known.sum() <= 90_000 else np.arange(known.sum())
    picks = rng.integers(0, 10_000, size=(count, 2))
    uid, email, name = np.full((3, count), None, dtype=object)
    site_key = frame["site_key"].iloc[0] if count else ""
    for position, number in zip(np.flatnonzero(known), numbers, strict=True):
        first = _FIRST_NAMES[picks[position, 0] % len(_FIRST_NAMES)]
        last = _LAST_NAMES[picks[position, 1] % len(_LAST_NAMES)]
        uid[position] = f"{site_key}-{number}"
        email[position] = f"{first.lower().replace('é', 'e')}.{last.lower()}.{number}@example.org"
        name[position] = f"{first} {last}"
    frame["email"], frame["display_name"], frame["uid"] = email, name, uid
