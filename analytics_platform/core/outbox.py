"""The outbox: what is to be sent to a vendor is written down first, so that no crash sends it twice or forgets it.

Belongs here: the persisted messages, their states, who may move them from one to the other, and questions about them.
Does not belong here: the values (`core.outbox_messages`), sending (`core.outbox_delivery`), any vendor's operations
(`vendors/<v>/outbox.py`), what is worth sending (marts), Dagster. Sources: RELIABILITY J1-J8, P9.

    enqueue ─▶ pending ─claim─▶ in_flight ─settle─▶ sent
                  ▲                 │  ├──────────▶ dead      refused, with a reason
                  │                 │  └──────────▶ unknown   sent, no answer, and a second time would count twice
                  ├─────────────────┘  certainly not acted on, or the vendor knows it by its nonce
                  └── resend ── unknown, dead: by a person only

What holds. A claim is committed and synced before the request leaves. A message found in flight whose holder is gone
(its process, its boot, or its lease) was perhaps sent: at most once means it becomes `unknown` and is shown;
deduplicated means it goes again with the same nonce. The same thing enqueued twice is one message: vendor, operation,
site and the digest of its dedupe key are unique, also after it was sent.

What is kept. A sent message loses its payload; what is left names nobody. `forget` deletes messages of a person and
rewrites the file, so that no byte of them stays (SQLite: secure_delete, VACUUM, and the write-ahead log emptied).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from analytics_platform.core.clock import SYSTEM_CLOCK, Clock
from analytics_platform.core.errors import ConfigurationError
from analytics_platform.core.failpoints import passing
from analytics_platform.core.opt_in import Confirmation
from analytics_platform.core.outbox_messages import (
    STATES,
    Claim,
    Counts,
    Draft,
    Enqueued,
    Guarantee,
    Holder,
    Message,
    Settlement,
    State,
)
from analytics_platform.core.outbox_store import OutboxStore, from_us, messages, to_us
from analytics_platform.core.redaction import redact
from analytics_platform.settings import Settings

__all__ = ["LEASE", "Outbox", "open_outbox"]

LEASE: Final = timedelta(minutes=30)
"""A holder on another machine that has not settled by then counts as gone: far longer than any request with its
retries may take."""

_KEPT: Final = timedelta(days=400)
_LONGEST_REASON: Final = 300
_CHUNK: Final = 500
_DISCARDED: Final = "discarded by hand"


class Outbox:
    """One per process and data home; thread-safe; several processes may share the file or the server.

    Every method raises StorageError where the database cannot be read or written: then nothing may be sent.
    """

    def __init__(self, store: OutboxStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    @classmethod
    def open(cls, url_or_path: str | Path, clock: Clock = SYSTEM_CLOCK) -> Self:
        """Open or create: a path is an SQLite file, `postgresql+psycopg2://…` is shared by several hosts."""
        outbox = cls(OutboxStore(str(url_or_path)), clock)
        outbox._drop_old()
        return outbox

    def close(self) -> None:
        """Close the connections."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- putting in

    def enqueue(
        self,
        drafts: Iterable[Draft],
        *,
        vendor: str,
        operation: str,
        guarantee: Guarantee,
        run_id: str = "",
    ) -> Enqueued:
        """Write drafts down as pending, all or none. One that is known already (in whatever state) changes nothing."""
        now_us = to_us(self._clock.now())
        rows = [
            {
                "vendor": vendor,
                "operation": operation,
                "site_key": draft.site_key,
                "dedupe_digest": hashlib.sha256(draft.dedupe_key.encode()).hexdigest(),
                "payload": draft.payload,
                "nonce": draft.nonce,
                "guarantee": guarantee,
                "state": "pending",
                "enqueued_us": now_us,
                "run_id": run_id,
            }
            for draft in drafts
        ]

        def write(connection: sa.Connection) -> tuple[int, ...]:
            insert = postgres_insert if connection.dialect.name == "postgresql" else sqlite_insert
            statement = insert(messages).on_conflict_do_nothing().returning(messages.c.id)
            found = (connection.execute(statement, row).scalar() for row in rows)
            return tuple(int(number) for number in found if number is not None)

        ids = self._store.write(write) if rows else ()
        passing("outbox.enqueued")
        return Enqueued(ids=ids, known=len(rows) - len(ids))

    # ---- delivery's side

    def claim(
        self,
        *,
        vendor: str,
        operation: str,
        site_key: str,
        holder: Holder,
        limit: int,
        most_bytes: int,
        after_id: int = 0,
        only: Sequence[int] = (),
        alone: bool = False,
        run_id: str = "",
    ) -> Claim:
        """Move pending messages to in_flight, committed and synced on return. Oldest first.

        Args:
            limit, most_bytes: bounds of one batch; a first message larger than that comes alone.
            after_id: only messages with a larger id: what was given back in this delivery is not tried twice.
            only: just these ids.
            alone: nothing, if somebody else has messages of the group in flight: order matters to the vendor.
        """
        group = _group(vendor, operation, site_key)

        def take(connection: sa.Connection) -> Claim:
            self._store.serialise(connection, f"{vendor}/{operation}/{site_key}" if alone else "")
            if alone:
                others = group & (messages.c.state == "in_flight") & (messages.c.holder != str(holder))
                if connection.execute(sa.select(messages.c.id).where(others).limit(1)).first() is not None:
                    return Claim(messages=(), is_busy=True)
            wanted = group & (messages.c.state == "pending") & (messages.c.id > after_id)
            if only:
                wanted &= messages.c.id.in_(only)
            query = sa.select(messages).where(wanted).order_by(messages.c.id).limit(limit)
            rows = connection.execute(query.with_for_update(skip_locked=True)).mappings().all()
            chosen = _within([dict(row) for row in rows], most_bytes)
            now_us = to_us(self._clock.now())
            mark = {"state": "in_flight", "holder": str(holder), "claimed_us": now_us, "run_id": run_id, "reason": ""}
            self._update(connection, [row["id"] for row in chosen], mark)
            return Claim(messages=tuple(_message({**row, **mark}) for row in chosen))

        return self._store.write(take)

    def settle(self, ids: Sequence[int], settlement: Settlement, *, holder: Holder) -> int:
        """Say what came of claimed messages. Returns how many were still ours: a late answer to a message that was
        called unknown meanwhile counts, one that somebody else holds by now does not.
        """
        now_us = to_us(self._clock.now())
        values: dict[str, Any] = {
            "state": settlement.state,
            "reason": redact(settlement.reason)[:_LONGEST_REASON],
            "settled_us": now_us,
        }
        if settlement.counts:
            values["attempts"] = messages.c.attempts + 1
        if settlement.state == "sent":
            values["payload"] = b""
        ours = (messages.c.holder == str(holder)) & messages.c.state.in_(("in_flight", "unknown"))

        def write(connection: sa.Connection) -> int:
            return self._update(connection, ids, values, condition=ours)

        return self._store.write(write)

    def recover(self) -> int:
        """Judge messages in flight whose holder is gone; returns how many. See the module docstring."""
        now = self._clock.now()
        query = sa.select(messages.c.id, messages.c.guarantee, messages.c.holder, messages.c.claimed_us)

        def write(connection: sa.Connection) -> int:
            rows = connection.execute(query.where(messages.c.state == "in_flight").with_for_update(skip_locked=True))
            lost: dict[str, list[int]] = {"unknown": [], "pending": []}
            for row in rows.all():
                if Holder.parse(row.holder).is_gone(claimed_at=from_us(row.claimed_us), now=now, lease=LEASE):
                    lost["unknown" if row.guarantee == "at_most_once" else "pending"].append(row.id)
            for state, ids in lost.items():
                reason = "its sender died before the answer: it may have arrived"
                values = {"state": state, "reason": reason, "settled_us": to_us(now)}
                self._update(connection, ids, {**values, "attempts": messages.c.attempts + 1})
            return sum(map(len, lost.values()))

        return self._store.write(write)

    def bury(self, *, vendor: str, operation: str, where: Literal["expired", "spent"], bound: int, reason: str) -> int:
        """Pending messages past a bound become dead: older than `bound` seconds, or sent `bound` times in vain."""
        mine = (messages.c.vendor == vendor) & (messages.c.operation == operation) & (messages.c.state == "pending")
        now = self._clock.now()
        limit_us = to_us(now - timedelta(seconds=bound)) if where == "expired" else 0
        past = messages.c.enqueued_us < limit_us if where == "expired" else messages.c.attempts >= bound
        values = {"state": "dead", "reason": reason, "settled_us": to_us(now)}
        return self._store.write(
            lambda connection: connection.execute(messages.update().where(mine & past).values(**values)).rowcount
        )

    def groups(self, *, vendor: str | None = None, operation: str | None = None) -> tuple[tuple[str, str, str], ...]:
        """(vendor, operation, site_key) that have something pending, in order."""
        columns = (messages.c.vendor, messages.c.operation, messages.c.site_key)
        query = sa.select(*columns).where(messages.c.state == "pending").distinct().order_by(*columns)
        if vendor is not None:
            query = query.where(messages.c.vendor == vendor)
        if operation is not None:
            query = query.where(messages.c.operation == operation)
        return tuple((row[0], row[1], row[2]) for row in self._store.read(lambda c: c.execute(query).all()))

    # ---- a person's side

    def messages(
        self, *, state: State | None = None, vendor: str | None = None, limit: int = 200
    ) -> tuple[Message, ...]:
        """Newest first."""
        query = sa.select(messages).order_by(messages.c.id.desc()).limit(limit)
        if state is not None:
            query = query.where(messages.c.state == state)
        if vendor is not None:
            query = query.where(messages.c.vendor == vendor)
        return tuple(_message(dict(row)) for row in self._store.read(lambda c: c.execute(query).mappings().all()))

    def get(self, number: int) -> Message:
        """One message. Raises ConfigurationError where there is none with this id."""
        query = sa.select(messages).where(messages.c.id == number)
        found = self._store.read(lambda c: c.execute(query).mappings().one_or_none())
        if found is None:
            raise ConfigurationError(f"There is no message {number}.", "See `analytics-platform outbox list`.")
        return _message(dict(found))

    def states_of(self, ids: Sequence[int]) -> Mapping[State, int]:
        """How many of these messages stand where."""
        found: dict[State, int] = dict.fromkeys(STATES, 0)
        for some in _chunks(ids):
            query = sa.select(messages.c.state, sa.func.count()).where(messages.c.id.in_(some)).group_by("state")
            for state, number in self._store.read(lambda c, query=query: c.execute(query).all()):  # type: ignore[misc]
                found[state] += number
        return found

    def counts(self, *, vendor: str | None = None, operation: str | None = None) -> tuple[Counts, ...]:
        """Messages by vendor, operation, site and state."""
        is_discarded = messages.c.reason == _DISCARDED
        keys = (messages.c.vendor, messages.c.operation, messages.c.site_key)
        query = sa.select(*keys, messages.c.state, is_discarded, sa.func.count()).group_by(
            *keys, messages.c.state, is_discarded
        )
        if vendor is not None:
            query = query.where(messages.c.vendor == vendor)
        if operation is not None:
            query = query.where(messages.c.operation == operation)
        found: dict[tuple[str, str, str], dict[str, int]] = {}
        for of_vendor, name, site, state, discarded, number in self._store.read(lambda c: c.execute(query).all()):
            numbers = found.setdefault((of_vendor, name, site), {})
            where = "discarded" if state == "dead" and discarded else state
            numbers[where] = numbers.get(where, 0) + number
        return tuple(
            Counts(vendor=key[0], operation=key[1], site_key=key[2], **numbers)
            for key, numbers in sorted(found.items())
        )

    def resend(self, number: int, confirm: Confirmation) -> Message:
        """Put an unknown or dead message back to pending. Whoever does it answers for its being counted twice.

        Raises:
            ConfigurationError: not confirmed with `resend <id>`, or the message is in another state.
        """
        message = self._require(number, ("unknown", "dead"), "sent again")
        confirm.require(f"resend {number}")
        values = {"state": "pending", "reason": "sent again by hand", "attempts": 0, "holder": "", "settled_us": None}
        values["enqueued_us"] = to_us(self._clock.now())
        self._store.write(lambda c: self._update(c, [number], values, condition=messages.c.state == message.state))
        return self.get(number)

    def discard(self, number: int) -> Message:
        """Give a pending, unknown or dead message up. It stays known, without its payload: it is not enqueued again.

        Raises:
            ConfigurationError: the message is in another state.
        """
        message = self._require(number, ("pending", "unknown", "dead"), "discarded")
        values = {"state": "dead", "reason": _DISCARDED, "payload": b"", "settled_us": to_us(self._clock.now())}
        self._store.write(lambda c: self._update(c, [number], values, condition=messages.c.state == message.state))
        return self.get(number)

    def forget(self, matches: Callable[[bytes], bool]) -> int:
        """Delete every message whose payload matches, and leave no byte of it. Returns how many.

        Safe to repeat: a crash half-way leaves rows or free pages that the next call deletes and rewrites.
        """

        def delete(connection: sa.Connection) -> int:
            query = sa.select(messages.c.id, messages.c.payload).where(messages.c.payload != b"")
            doomed = [row.id for row in connection.execute(query) if matches(bytes(row.payload))]
            for some in _chunks(doomed):
                connection.execute(messages.delete().where(messages.c.id.in_(some)))
            return len(doomed)

        forgotten = self._store.write(delete)
        passing("outbox.before_vacuum")
        self._store.compact()
        return forgotten

    # ---- details

    def _require(self, number: int, states: Sequence[State], done: str) -> Message:
        message = self.get(number)
        if message.state not in states or (message.reason == _DISCARDED and done == "sent again"):
            state = "discarded" if message.reason == _DISCARDED else message.state.replace("_", " ")
            raise ConfigurationError(
                f"Message {number} is {state}: it cannot be {done}.",
                f"That is for messages that are {', '.join(states)}.",
            )
        return message

    def _update(
        self,
        connection: sa.Connection,
        ids: Sequence[int],
        values: Mapping[str, Any],
        *,
        condition: sa.ColumnElement[bool] | None = None,
    ) -> int:
        changed = 0
        for some in _chunks(ids):
            statement = messages.update().where(messages.c.id.in_(some)).values(**values)
            changed += connection.execute(statement if condition is None else statement.where(condition)).rowcount
        return changed

    def _drop_old(self) -> None:
        """What was settled long ago will not be enqueued again: its days are out of every window."""
        limit_us = to_us(self._clock.now() - _KEPT)
        old = messages.c.state.in_(("sent", "dead")) & (messages.c.settled_us < limit_us)
        if self._store.read(lambda c: c.execute(sa.select(messages.c.id).where(old).limit(1)).first()) is not None:
            self._store.write(lambda c: c.execute(messages.delete().where(old)).rowcount)


def open_outbox(settings: Settings, clock: Clock = SYSTEM_CLOCK) -> Outbox:
    """The outbox of these settings: the database named by the environment, else the home's SQLite file."""
    return Outbox.open(settings.database_url or settings.home.outbox, clock)


def _group(vendor: str, operation: str, site_key: str) -> sa.ColumnElement[bool]:
    return sa.and_(messages.c.vendor == vendor, messages.c.operation == operation, messages.c.site_key == site_key)


def _within(rows: Sequence[Mapping[str, Any]], most_bytes: int) -> list[Mapping[str, Any]]:
    """The first rows that fit together; always at least one."""
    chosen: list[Mapping[str, Any]] = []
    size = 0
    for row in rows:
        size += len(row["payload"])
        if chosen and size > most_bytes:
            break
        chosen.append(row)
    return chosen


def _chunks(ids: Sequence[int]) -> Iterable[Sequence[int]]:
    return (ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK))


def _message(row: Mapping[str, Any]) -> Message:
    def instant(name: str) -> datetime | None:
        return None if row[name] is None else from_us(row[name])

    return Message(
        id=row["id"],
        vendor=row["vendor"],
        operation=row["operation"],
        site_key=row["site_key"],
        nonce=row["nonce"],
        guarantee=row["guarantee"],
        state=row["state"],
        reason=row["reason"],
        attempts=row["attempts"],
        enqueued_at=from_us(row["enqueued_us"]),
        claimed_at=instant("claimed_us"),
        settled_at=instant("settled_us"),
        run_id=row["run_id"],
        payload=bytes(row["payload"]),
    )
