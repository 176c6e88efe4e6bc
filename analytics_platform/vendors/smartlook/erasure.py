"""Forgetting people at Smartlook: their visitors and recordings are deleted, and it is safe to do it again.

Belongs here: which deletes make the vendor forget a person, and what is reported of it. Does not belong here: the other
changes to a project (`management`), finding a person's ids, our own stores (`core`), Dagster.

Source: contracts/smartlook §1.1 (DELETE visitors/{visitorId}, DELETE visitors?uids=).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from pydantic import SecretStr

from analytics_platform.core.clock import SYSTEM_CLOCK, Clock
from analytics_platform.core.errors import NotFound
from analytics_platform.core.http import HttpClient, HttpLimits, Meter
from analytics_platform.core.opt_in import Confirmation, WriteOptIn
from analytics_platform.core.origin import path_segment
from analytics_platform.vendors.smartlook.management import deleted_items, http_for_writing, uids_parameter

__all__ = ["Forgotten", "SmartlookErasure", "forget_phrase"]

_VENDOR = "smartlook"
_UIDS_PER_REQUEST = 50
"""A query has to fit into a line of a server's log and memory; nobody states a maximum."""


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """What a `forget` did, in numbers only.

    Args:
        deleted_visitors: visitor ids whose delete the vendor confirmed now.
        absent_visitors: visitor ids the vendor does not know: deleted before, or never its own.
        deleted_by_uid: visitors the vendor says it deleted for the uids.
        requests: deletes answered, each paid from the hourly limit.
    """

    deleted_visitors: int
    absent_visitors: int
    deleted_by_uid: int
    requests: int


def forget_phrase(*, visitor_ids: Sequence[str], uids: Sequence[str]) -> str:
    """The words that confirm a `forget`: `forget 2 visitors and 1 uids`. Numbers, since the ids are personal."""
    return f"forget {len(dict.fromkeys(visitor_ids))} visitors and {len(dict.fromkeys(uids))} uids"


class SmartlookErasure:
    """One project of Smartlook, from which people are deleted. Can send nothing but DELETE."""

    def __init__(self, http: HttpClient, *, opt_in: WriteOptIn) -> None:
        opt_in.require(_VENDOR)
        self._http = http

    @classmethod
    def connect(
        cls,
        *,
        base_url: str,
        token: SecretStr,
        opt_in: WriteOptIn,
        variable: str = "SMARTLOOK_API_TOKEN",
        meter: Meter | None = None,
        limits: HttpLimits | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> Self:
        """A deleting client on the pinned origin of `base_url`.

        Raises:
            ConfigurationError: no yes to this vendor; the base URL or the token cannot be used.
        """
        opt_in.require(_VENDOR)
        http = http_for_writing(
            methods=frozenset({"DELETE"}),
            base_url=base_url,
            token=token,
            variable=variable,
            meter=meter,
            limits=limits,
            clock=clock,
        )
        return cls(http, opt_in=opt_in)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def forget(self, *, visitor_ids: Sequence[str], uids: Sequence[str], confirm: Confirmation) -> Forgotten:
        """Delete these visitors, and all visitors the site identified by these uids. Do it again after any failure.

        Both are needed: a person's visitors that were never identified have no uid, and later ones get new ids. Each
        delete may be repeated (its effect is the same), so the transport retries it; a visitor that is already gone
        counts as absent. The ids a person's uid once had at the vendor are best read before this call.

        Raises:
            ConfigurationError: other words than `forget_phrase`; a uid that cannot be sent. Nothing was deleted.
            VendorError, QuotaError: some may be deleted already; the same call finishes the rest.
        """
        confirm.require(forget_phrase(visitor_ids=visitor_ids, uids=uids))
        people = [path_segment(visitor_id) for visitor_id in dict.fromkeys(visitor_ids)]
        names = list(dict.fromkeys(uids))
        batches = [
            uids_parameter(names[start : start + _UIDS_PER_REQUEST])
            for start in range(0, len(names), _UIDS_PER_REQUEST)
        ]
        gone = sum(self._delete(person) for person in people)
        by_uid = sum(self._delete_by_uid(batch) for batch in batches)
        return Forgotten(
            deleted_visitors=gone,
            absent_visitors=len(people) - gone,
            deleted_by_uid=by_uid,
            requests=len(people) + len(batches),
        )

    def _delete(self, visitor: str) -> bool:
        """Whether there was such a visitor; told by 404, by a count, or by an empty yes (contract §1.1 has both)."""
        label = "DELETE /api/v1/visitors/{visitor_id}"
        path = f"/api/v1/visitors/{visitor}"
        try:
            response = self._http.request("DELETE", path, endpoint=label, expect="any", retry=True)
        except NotFound:
            return False
        return not response.body or deleted_items(response) > 0

    def _delete_by_uid(self, batch: str) -> int:
        label, params = "DELETE /api/v1/visitors", {"uids": batch}
        try:
            response = self._http.request("DELETE", "/api/v1/visitors", endpoint=label, params=params, retry=True)
        except NotFound:
            return 0
        return deleted_items(response)
