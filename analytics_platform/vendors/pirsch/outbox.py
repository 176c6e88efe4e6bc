"""What the outbox can send to Pirsch: hits, events and signs of life, one request each, each at most once.

Belongs here: the operations, how a message is encoded, which call delivers it, and what is refused before it is written
down. Does not belong here: the calls (`outbound`), states (`core.outbox`).

Pirsch knows no idempotency key and the document's calls no time: a hit counts when it arrives (contract A3). So an
answer that did not come leaves `unknown`, and what waited for half an hour, the length of a session, is not sent at
all. The batch calls, which know a time, are not used: one lost answer would make a hundred hits unknown.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from pydantic import SecretStr

from analytics_platform.core.errors import ConfigurationError
from analytics_platform.core.opt_in import WriteOptIn
from analytics_platform.core.outbox_delivery import Operation
from analytics_platform.core.outbox_messages import Draft, Message
from analytics_platform.vendors.pirsch.access import VENDOR
from analytics_platform.vendors.pirsch.outbound import Event, Hit, PirschTracker, Session

if TYPE_CHECKING:
    from analytics_platform.core.quota import Ledger
    from analytics_platform.vendors.pirsch.resource import PirschResource

__all__ = ["EVENT", "HIT", "OPERATIONS", "SESSION", "connect", "draft"]

_Sent = TypeVar("_Sent", bound=Session)
_LONGEST_DELAY: Final = timedelta(minutes=30)


def connect(
    resource: PirschResource, ids: Mapping[str, str], ledger: Ledger, opt_in: WriteOptIn
) -> AbstractContextManager[PirschTracker]:
    """The tracker for a site, on the ledger account of the reading client; waits no longer than a slot is worth.

    Raises:
        MissingCredentials: naming every missing variable.
    """
    resource.require(ids)
    return PirschTracker.connect(
        client_id=SecretStr(resource.client_id),
        client_secret=SecretStr(resource.client_secret),
        base_url=resource.base_url,
        meter=ledger.meter(resource.quota_policy(ids)),
        opt_in=opt_in,
    )


def draft(site_key: str, sent: Hit | Event | Session, *, dedupe_key: str) -> Draft | None:
    """A hit, event or sign of life as a draft; None where the visitor asked not to be tracked (DNT: 1).

    Args:
        dedupe_key: what makes it this one: your request's id, say. Without one nothing can be told apart here.

    Raises:
        ConfigurationError: an address that is none or is of a private network: the vendor would drop or misplace it.
    """
    if sent.dnt == "1":
        return None
    try:
        address = ipaddress.ip_address(sent.ip)
    except ValueError:
        raise ConfigurationError("The address of a visitor is no IP address.") from None
    if not address.is_global:
        raise ConfigurationError("The address of a visitor is of a private or special network.")
    told = {name: value for name, value in asdict(sent).items() if value is not None and name != "at"}
    payload = json.dumps(told, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return Draft(site_key=site_key, payload=payload, dedupe_key=dedupe_key)


def _sender(
    kind: type[_Sent], call: Callable[[PirschTracker, _Sent], None]
) -> Callable[[PirschTracker, Mapping[str, str], Sequence[Message]], None]:
    def send(tracker: PirschTracker, _: Mapping[str, str], batch: Sequence[Message]) -> None:
        for message in batch:
            try:
                sent = kind(**json.loads(message.payload))
            except (TypeError, ValueError):
                raise ConfigurationError(f"Message {message.id} does not hold what this operation sends.") from None
            call(tracker, sent)

    return send


def _operation(name: str, kind: type[_Sent], call: Callable[[PirschTracker, _Sent], None]) -> Operation:
    return Operation(
        vendor=VENDOR,
        name=name,
        guarantee="at_most_once",
        deliver=_sender(kind, call),
        max_batch=1,
        longest_delay=_LONGEST_DELAY,
    )


HIT: Final = _operation("hit", Hit, PirschTracker.hit)
EVENT: Final = _operation("event", Event, PirschTracker.event)
SESSION: Final = _operation("session", Session, PirschTracker.session)
OPERATIONS: Final[Mapping[str, Operation]] = {operation.name: operation for operation in (HIT, EVENT, SESSION)}
