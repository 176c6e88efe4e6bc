"""The right to erasure: one person out of every store of a home, and out of the vendors that offer it.

Belongs here: the names the command and the Dagster job use. Does not belong here: anything that imports Dagster or dbt
at import time (`steps` does, inside the functions that need them).

    request    what was asked, who it turned out to be, how far it got: one private file that goes at the end
    person     a person's other keys, from the rows and pages that carry two of them; how much there is
    vendors    asking the vendors to forget, and whether they have
    steps      landing, lake, outbox, warehouse, published versions, Dagster's storage, logs
    search     every byte and every decoded value of the home, before and after
    erasing    the order of it all, and the receipt
"""

from __future__ import annotations

from analytics_platform.erasure.erasing import Erasure, Receipt
from analytics_platform.erasure.person import DEFAULT_MAXIMUM_KEYS, Found, ImplausiblePerson, find_person, known_kinds
from analytics_platform.erasure.request import Request, RequestStore, confirmation_words, parse_keys

__all__ = [
    "DEFAULT_MAXIMUM_KEYS",
    "Erasure",
    "Found",
    "ImplausiblePerson",
    "Receipt",
    "Request",
    "RequestStore",
    "confirmation_words",
    "find_person",
    "known_kinds",
    "parse_keys",
]
