"""What the outbox can send to Kameleoon: events of visits and products, and maps.

Belongs here: the operations with their guarantees, how a message is encoded, and which call delivers it. Does not
belong here: the calls (`outbound`), which rows are worth sending (`assets`, marts), states (`core.outbox`).

    operation        guarantee       why
    visit_events     deduplicated    every event has a nonce, by which the vendor knows a repeated one (contract B4)
    maps             deduplicated    a map replaces what the key held: twice is once (contract B8), in order only
    product_events   at_most_once    the vendor's own browser client sends them without a nonce (contract B7)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final

from analytics_platform.core.errors import ConfigurationError, Where
from analytics_platform.core.opt_in import WriteOptIn
from analytics_platform.core.outbox_delivery import Operation
from analytics_platform.core.outbox_messages import Draft, Message
from analytics_platform.vendors.kameleoon.access import VENDOR
from analytics_platform.vendors.kameleoon.outbound import KameleoonWriter, ProductEvent, VisitEvent

if TYPE_CHECKING:
    from analytics_platform.core.quota import Ledger
    from analytics_platform.vendors.kameleoon.resource import KameleoonResource

__all__ = [
    "MAPS",
    "MAP_TTL_HOURS",
    "OPERATIONS",
    "PRODUCT_EVENTS",
    "VISIT_EVENTS",
    "connect",
    "map_draft",
    "product_event_draft",
    "visit_event_draft",
]

MAP_TTL_HOURS: Final = 28 * 24
"""How long a map lives that is not written again: the look-back of the audiences."""


def connect(
    resource: KameleoonResource, ids: Mapping[str, str], ledger: Ledger, opt_in: WriteOptIn
) -> AbstractContextManager[KameleoonWriter]:
    """The writer for a site, metered by the ledger.

    Raises:
        MissingCredentials: naming every missing variable.
        ConfigurationError: the site's block has no site_code.
    """
    resource.require(ids)
    if not ids.get("site_code", "").strip():
        raise ConfigurationError(
            "The site's block has no site_code.", "Copy it from the site's settings.", Where(vendor=VENDOR)
        )
    return resource.writer(ids, ledger, opt_in)


def visit_event_draft(site_key: str, event: VisitEvent) -> Draft:
    """A visit event as a draft; its nonce is what it is known by, at the vendor and here."""
    return Draft(site_key=site_key, payload=_encoded(event.as_object()), dedupe_key=event.nonce, nonce=event.nonce)


def product_event_draft(site_key: str, event: ProductEvent, *, dedupe_key: str | None = None) -> Draft:
    """A product event as a draft, known by its nonce or by a key of the caller's.

    Raises:
        ConfigurationError: neither is there.
    """
    key = dedupe_key or event.nonce
    if key is None:
        raise ConfigurationError("A product event without a nonce needs a dedupe key.")
    return Draft(site_key=site_key, payload=_encoded(event.as_object()), dedupe_key=key, nonce=event.nonce or "")


def map_draft(site_key: str, *, key: str, fields: Mapping[str, object], version: str) -> Draft:
    """A map to store under a key. `version` tells one writing of the same content from a later one (a date, say)."""
    payload = _encoded({"key": key, "fields": fields})
    digest = hashlib.sha256(payload).hexdigest()
    return Draft(site_key=site_key, payload=payload, dedupe_key=f"{version}/{digest}", nonce=digest[:16])


def _encoded(value: object) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True).encode()
    except (TypeError, ValueError):
        raise ConfigurationError("What is to be sent cannot be written as JSON.") from None


def _decoded(message: Message) -> Mapping[str, object]:
    found = json.loads(message.payload)
    if not isinstance(found, dict):
        raise ConfigurationError(f"Message {message.id} does not hold what this operation sends.")
    return found


def _send_visit_events(writer: KameleoonWriter, ids: Mapping[str, str], batch: Sequence[Message]) -> None:
    writer.post_events(
        site_code=ids["site_code"], events=[VisitEvent.from_object(_decoded(message)) for message in batch]
    )


def _send_product_events(writer: KameleoonWriter, ids: Mapping[str, str], batch: Sequence[Message]) -> None:
    writer.post_product_events(
        site_code=ids["site_code"], events=[ProductEvent.from_object(_decoded(message)) for message in batch]
    )


def _send_maps(writer: KameleoonWriter, ids: Mapping[str, str], batch: Sequence[Message]) -> None:
    # In the order they were enqueued: of two maps of one key the later stays.
    maps: dict[str, Mapping[str, object]] = {}
    for message in batch:
        found = _decoded(message)
        key, fields = found.get("key"), found.get("fields")
        if not isinstance(key, str) or not isinstance(fields, dict):
            raise ConfigurationError(f"Message {message.id} does not hold a map.")
        maps[key] = fields
    writer.write_maps(site_code=ids["site_code"], maps=maps, ttl_hours=MAP_TTL_HOURS)


# Bytes are those of the payloads: a text body of events may be three times as long, and 2.5 MB is where it is cut.
VISIT_EVENTS: Final = Operation(
    vendor=VENDOR,
    name="visit_events",
    guarantee="deduplicated",
    deliver=_send_visit_events,
    max_batch=500,
    max_batch_bytes=700_000,
)
PRODUCT_EVENTS: Final = Operation(
    vendor=VENDOR,
    name="product_events",
    guarantee="at_most_once",
    deliver=_send_product_events,
    max_batch=500,
    max_batch_bytes=700_000,
)
MAPS: Final = Operation(
    vendor=VENDOR,
    name="maps",
    guarantee="deduplicated",
    deliver=_send_maps,
    max_batch=1000,
    max_batch_bytes=900_000,
    is_ordered=True,
)
OPERATIONS: Final[Mapping[str, Operation]] = {
    operation.name: operation for operation in (VISIT_EVENTS, PRODUCT_EVENTS, MAPS)
}
