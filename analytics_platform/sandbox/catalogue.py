"""What the sites consist of: pages, products, campaigns, referrers.

Belongs here: the content tables and their popularity. Does not belong here: who reads them (`population`, `traffic`).
A shop has 160 distinct paths, so that a vendor's list of at most 100 rows is really cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

__all__ = ["CAMPAIGNS", "REFERRERS", "Catalogue", "Product", "catalogue"]


@dataclass(frozen=True)
class Product:
    """One thing a shop sells. `price` in the shop's currency."""

    sku: str
    name: str
    price: float
    path: str


@dataclass(frozen=True)
class Catalogue:
    """The pages of one site as parallel arrays; weights sum to 1 over the pages.

    `product_of_page` and `page_of_product` translate between page index and product index (-1: not a product page).
    `tail` holds the page indexes of the conversion path, in order (cart, checkout, thank-you; or newsletter, thanks).
    """

    kind: str
    paths: npt.NDArray[np.object_]
    queries: npt.NDArray[np.object_]
    titles: npt.NDArray[np.object_]
    landing: npt.NDArray[np.float64]
    inner: npt.NDArray[np.float64]
    tail: tuple[int, ...]
    goal: str
    products: tuple[Product, ...]
    product_of_page: npt.NDArray[np.int64]
    page_of_product: npt.NDArray[np.int64]


_CATEGORIES = ("shoes", "jackets", "bags", "hats", "socks", "belts", "scarves", "gloves")
_ADJECTIVES = (
    "trail",
    "city",
    "storm",
    "linen",
    "classic",
    "light",
    "winter",
    "nordic",
    "urban",
    "solid",
    "merino",
    "soft",
)
_TOPICS = (
    "dagster",
    "duckdb",
    "parquet",
    "quotas",
    "bounces",
    "consent",
    "sessions",
    "funnels",
    "experiments",
    "cohorts",
)
_ANGLES = ("in-practice", "explained", "gone-wrong", "for-beginners", "at-scale", "in-one-hour", "revisited")
_TERMS = ("rain jacket", "wool socks", "running shoes", "gift card", "backpack 20l", "größe 42")

# weight, source, medium, campaign, content, term; the case variants are what real campaigns look like
CAMPAIGNS: tuple[tuple[float, str, str, str, str, str], ...] = (
    (30, "newsletter", "email", "autumn-sale", "header", ""),
    (9, "Newsletter", "Email", "Autumn-Sale", "Header", ""),
    (25, "google", "cpc", "brand", "", "shop example"),
    (6, "Google", "CPC", "Brand", "", "Shop Example"),
    (18, "facebook", "social", "retargeting", "carousel", ""),
    (8, "facebook", "paid_social", "retargeting", "video", ""),
    (6, "partner.example", "affiliate", "q4-partners", "", ""),
    (4, "linkedin", "social", "hiring", "post", ""),
)
# weight, referrer of the landing view
REFERRERS: tuple[tuple[float, str], ...] = (
    (42, ""),
    (30, "https://www.google.com/"),
    (4, "https://www.bing.com/"),
    (5, "https://duckduckgo.com/"),
    (5, "https://www.facebook.com/"),
    (3, "https://t.co/Zx81kQp0aB"),
    (4, "https://news.ycombinator.com/item?id=41890113"),
    (4, "https://partner.example/deals/list"),
    (2, "https://www.reddit.com/r/dataengineering/"),
    (1, "https://chatgpt.com/"),
)


@cache
def catalogue(kind: str) -> Catalogue:
    """The pages of a site of this kind: "shop" or "blog"."""
    return _blog() if kind == "blog" else _shop()


def _zipf(count: int, exponent: float) -> npt.NDArray[np.float64]:
    return np.asarray(1.0 / np.arange(1, count + 1) ** exponent, dtype=np.float64)


def _normal(weights: list[float]) -> npt.NDArray[np.float64]:
    array = np.array(weights, dtype=np.float64)
    return np.asarray(array / array.sum(), dtype=np.float64)


def _build(
    kind: str,
    rows: list[tuple[str, str, str, float, float, int]],
    *,
    tail: tuple[str, ...],
    goal: str,
    products: tuple[Product, ...],
) -> Catalogue:
    """Rows are (path, query, title, landing weight, inner weight, product index or -1)."""
    product_of_page = np.array([row[5] for row in rows], dtype=np.int64)
    page_of_product = np.full(len(products), -1, dtype=np.int64)
    for page, product in enumerate(product_of_page):
        if product >= 0:
            page_of_product[product] = page
    paths = [row[0] for row in rows]
    return Catalogue(
        kind=kind,
        paths=np.array(paths, dtype=object),
        queries=np.array([row[1] for row in rows], dtype=object),
        titles=np.array([row[2] for row in rows], dtype=object),
        landing=_normal([row[3] for row in rows]),
        inner=_normal([row[4] for row in rows]),
        tail=tuple(paths.index(path) for path in tail),
        goal=goal,
        products=products,
        product_of_page=product_of_page,
        page_of_product=page_of_product,
    )


def _shop() -> Catalogue:
    products = []
    for number in range(140):
        category = _CATEGORIES[number % len(_CATEGORIES)]
        adjective = _ADJECTIVES[(number // len(_CATEGORIES)) % len(_ADJECTIVES)]
        name = f"{adjective.title()} {category.title()} {100 + number}"
        price = round(9.9 + (number * 37 % 181) + 0.09 * (number % 7), 2)
        products.append(Product(f"SKU-{1000 + number}", name, price, f"/product/{adjective}-{category}-{100 + number}"))
    rows: list[tuple[str, str, str, float, float, int]] = [("/", "", "Shop: good things to wear", 30.0, 6.0, -1)]
    rows += [(f"/category/{c}", "", f"{c.title()} | Shop", 3.0, 5.0, -1) for c in _CATEGORIES]
    popularity = _zipf(len(products), 0.8)
    rows += [
        (product.path, "", f"{product.name} | Shop", float(4 * weight), float(3 * weight), index)
        for index, (product, weight) in enumerate(zip(products, popularity, strict=True))
    ]
    rows += [("/search", f"q={term.replace(' ', '+')}", f"Search: {term}", 0.1, 1.0, -1) for term in _TERMS]
    for path, title, landing, inner in (
        ("/sale", "Sale", 6.0, 3.0), ("/about", "About us", 0.5, 0.5),
        ("/shipping", "Shipping & returns", 0.5, 1.0),
        ("/account", "Your account", 1.0, 1.0), ("/stores", "Stores", 1.0, 0.4),
        ("/gift-cards", "Gift cards", 0.5, 0.4),
        ("/cart", "Cart", 0.3, 1.2),
        ("/checkout", "Checkout", 0.0, 0.3), ("/checkout/thank-you", "Thank you", 0.0, 0.0),
    ):  # fmt: skip
        rows.append((path, "", title, landing, inner, -1))
    return _build(
        "shop", rows, tail=("/cart", "/checkout", "/checkout/thank-you"), goal="purchase", products=tuple(products)
    )


def _blog() -> Catalogue:
    rows: list[tuple[str, str, str, float, float, int]] = [("/", "", "The analytics blog", 14.0, 8.0, -1)]
    articles = [(topic, angle) for angle in _ANGLES for topic in _TOPICS]
    for (topic, angle), weight in zip(articles, _zipf(len(articles), 0.9), strict=True):
        title = f"{topic.title()} {angle.replace('-', ' ')}"
        rows.append((f"/articles/{topic}-{angle}", "", title, float(16 * weight), float(7 * weight), -1))
    rows += [(f"/tags/{topic}", "", f"Tag: {topic}", 0.4, 0.7, -1) for topic in _TOPICS]
    for path, title, landing, inner in (
        ("/about", "About", 0.6, 1.0), ("/archive", "Archive", 0.4, 1.0),
        ("/newsletter", "Newsletter", 0.5, 0.8), ("/newsletter/thanks", "Thanks", 0.0, 0.0),
    ):  # fmt: skip
        rows.append((path, "", title, landing, inner, -1))
    return _build("blog", rows, tail=("/newsletter", "/newsletter/thanks"), goal="signup", products=())
