"""The rows that every loader is given: nested session records of about 650 bytes, in pages of a thousand.

Belongs here: what a record looks like, and a page's bytes. Does not belong here: serving them (`server`).

A record has the field names of the session search (contract Smartlook §1.1). A page is rendered once with place
holders where its number and its second of the day go, so that millions of rows cost the server one replacement a page
and no two pages hold the same id.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

__all__ = ["ROWS_A_PAGE", "Pages", "World"]

ROWS_A_PAGE = 1_000

_TEMPLATES = 50
_NUMBER = "@NUMBER@"
_BEGUN = "@BEGUN@@"
_ENDED = "@ENDED@@"
_LENGTH = "@LEN"
_SECONDS_A_DAY = 86_400
_LONGEST_SECONDS = 1_800
_SECTIONS = ("category", "product", "checkout", "blog", "account", "help")
_COUNTRIES = (
    ("Germany", "de", "Berlin"),
    ("France", "fr", "Lyon"),
    ("Spain", "es", "Madrid"),
    ("Italy", "it", "Turin"),
)
_SYSTEMS = ("Windows", "macOS", "Linux", "Android", "iOS")
_BROWSERS = ("Chrome", "Firefox", "Safari", "Edge")
_REFERRERS = ("https://www.google.com/", "https://duckduckgo.com/", "https://news.example/today", "")
_NOTES = ("vip", "returned", "newsletter", "checkout-error", "mobile-menu")


@dataclass(frozen=True, kw_only=True)
class World:
    """How much there is.

    Args:
        pages: of `ROWS_A_PAGE` records each, newest first.
        days: consecutive days they belong to, the same number of pages each.
        last_day: the newest.
    """

    pages: int
    days: int
    last_day: date

    @property
    def rows(self) -> int:
        return self.pages * ROWS_A_PAGE

    @property
    def first_day(self) -> date:
        return self.last_day - timedelta(days=self.days - 1)

    def day_of(self, page: int) -> date:
        """The day of a page; a page never straddles two."""
        return self.last_day - timedelta(days=page * self.days // self.pages)

    def first_page_before(self, day: date) -> int:
        """The first page of records older than the day."""
        return next((page for page in range(self.pages) if self.day_of(page) < day), self.pages)


class Pages:
    """The bodies of a world's pages."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._templates = [_template(number) for number in range(min(_TEMPLATES, world.pages))]

    def body(self, page: int, next_link: str | None) -> bytes:
        """One page with the link to the next."""
        world = self._world
        day = world.day_of(page)
        of_day = page * world.days // world.pages
        first_of_day = -(-of_day * world.pages // world.days)
        last_of_day = -(-(of_day + 1) * world.pages // world.days)
        share = (page - first_of_day) / max(1, last_of_day - first_of_day)
        second = int((_SECONDS_A_DAY - 1) * (1 - share))
        length = 60 + (page * 37) % (_LONGEST_SECONDS - 60)
        replaced = {
            _NUMBER: f"{page:08x}",
            _BEGUN: _instant(day, second),
            _ENDED: _instant(day, second + length),
            f'"{_LENGTH}"': str(length),
        }
        records = self._templates[page % len(self._templates)]
        for token, value in replaced.items():
            records = records.replace(token.encode(), value.encode())
        link = json.dumps(next_link).encode()
        return b'{"sessions":[' + records + b'],"_links":{"nextPage":' + link + b"}}"


def _instant(day: date, second: int) -> str:
    moment = day + timedelta(days=second // _SECONDS_A_DAY)
    hour, rest = divmod(second % _SECONDS_A_DAY, 3600)
    return f"{moment.isoformat()}T{hour:02d}:{rest // 60:02d}:{rest % 60:02d}"


def _template(number: int) -> bytes:
    drawn = random.Random(number)
    records = (_record(drawn, position) for position in range(ROWS_A_PAGE))
    return b",".join(json.dumps(record, separators=(",", ":")).encode() for record in records)


def _record(drawn: random.Random, position: int) -> Mapping[str, object]:
    visitor = f"{drawn.getrandbits(40):010x}"
    country, code, city = drawn.choice(_COUNTRIES)
    urls = [
        f"https://shop.example/{drawn.choice(_SECTIONS)}/{drawn.randrange(10_000)}" for _ in range(drawn.randint(1, 4))
    ]
    is_known = drawn.random() < 0.2
    millisecond = 999 - position * 1_000 // ROWS_A_PAGE
    return {
        "id": f"s{_NUMBER}{drawn.getrandbits(32):08x}{position:04x}",
        "visitorId": f"vis-{visitor}",
        "identification": {
            "uid": f"customer-{visitor[:6]}" if is_known else "",
            "properties": {"email": f"{visitor}@people.example", "plan": "gold"} if is_known else {},
            "browser": {"name": drawn.choice(_BROWSERS), "userAgent": "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101"},
            "platform": {"name": "desktop", "operatingSystem": drawn.choice(_SYSTEMS)},
            "country": {"name": country, "code": code, "region": city[:2].upper(), "city": city},
            "device": {"type": "desktop", "width": 1920, "height": 1080},
        },
        "duration": f"{_LENGTH}",
        "startedAt": f"{_BEGUN}.{millisecond:03d}Z",
        "endedAt": f"{_ENDED}.{millisecond:03d}Z",
        "referrer": drawn.choice(_REFERRERS),
        "pageUrl": urls,
        "notes": drawn.sample(_NOTES, drawn.randint(0, 2)),
        "domain": "shop.example",
    }
