"""The ledger's tables, and the instants they hold.

Belongs here: columns, keys, indexes, microseconds to instants and back. Does not belong here: statements.

`ledger_us` is on the ledger's own time line, `sent_us` the wall clock's (`core.quota`, "Time").
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import sqlalchemy as sa

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

metadata = sa.MetaData()
_Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

ledger = sa.Table(
    "ledger",
    metadata,
    sa.Column("ledger_id", sa.String(36), primary_key=True),
    sa.Column("schema_version", sa.Integer, nullable=False),
    sa.Column("created_us", sa.BigInteger, nullable=False),
    sa.Column("lost_us", sa.BigInteger),
)
timelines = sa.Table(
    "timelines",
    metadata,
    sa.Column("source", sa.String(80), primary_key=True),
    sa.Column("offset_us", sa.BigInteger, nullable=False),
)
requests = sa.Table(
    "requests",
    metadata,
    sa.Column("id", _Id, primary_key=True, autoincrement=True),
    sa.Column("account", sa.String(80), nullable=False),
    sa.Column("method_class", sa.String(16), nullable=False),
    sa.Column("ledger_us", sa.BigInteger, nullable=False),
    sa.Column("sent_us", sa.BigInteger, nullable=False),
    sa.Column(
        "kind", sa.String(8), nullable=False
    ),  # "sent", or "adopted": counted by the vendor, sent by somebody else
    sa.Column("endpoint", sa.String(200), nullable=False),
    sa.Column("vendor", sa.String(60), nullable=False),
    sa.Column("stream", sa.String(120), nullable=False),
    sa.Column("site", sa.String(120), nullable=False),
    sa.Column("run_id", sa.String(80), nullable=False),
    sa.Index("requests_by_window", "account", "method_class", "ledger_us"),
    sa.Index("requests_by_instant", "sent_us"),
    sqlite_autoincrement=True,
)
buckets = sa.Table(
    "buckets",
    metadata,
    sa.Column("account", sa.String(80), primary_key=True),
    sa.Column("method_class", sa.String(16), primary_key=True),
    sa.Column("blocked_until_us", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("strikes", sa.Integer, nullable=False, server_default="0"),
    sa.Column("trusted_us", sa.BigInteger, nullable=False, server_default="0"),
)
windows = sa.Table(
    "windows",
    metadata,
    sa.Column("account", sa.String(80), primary_key=True),
    sa.Column("method_class", sa.String(16), primary_key=True),
    sa.Column("seconds", sa.Float, primary_key=True),
    sa.Column("request_limit", sa.Integer, nullable=False),
    sa.Column("guard_seconds", sa.Float, nullable=False),
)
refusals = sa.Table(
    "refusals",
    metadata,
    sa.Column("id", _Id, primary_key=True, autoincrement=True),
    sa.Column("account", sa.String(80), nullable=False),
    sa.Column("method_class", sa.String(16), nullable=False),
    sa.Column("ledger_us", sa.BigInteger, nullable=False),
    sa.Column("endpoint", sa.String(200), nullable=False),
    sa.Column("retry_after_seconds", sa.Float),
)
reports = sa.Table(
    "vendor_reports",
    metadata,
    sa.Column("account", sa.String(80), primary_key=True),
    sa.Column("method_class", sa.String(16), primary_key=True),
    sa.Column("asked_us", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("learned_limit", sa.Integer),
    sa.Column("learned_us", sa.BigInteger, nullable=False, server_default="0"),
)
deferrals = sa.Table(
    "deferrals",
    metadata,
    sa.Column("vendor", sa.String(60), primary_key=True),
    sa.Column("stream", sa.String(120), primary_key=True),
    sa.Column("site", sa.String(120), primary_key=True),
    sa.Column("first_day", sa.Date, primary_key=True),
    sa.Column("last_day", sa.Date, primary_key=True),
    sa.Column("resume_us", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.String(400), nullable=False),
    sa.Column("landed_records", sa.BigInteger, nullable=False),
    sa.Column("recorded_us", sa.BigInteger, nullable=False),
)


def to_us(instant: datetime) -> int:
    """Microseconds since 1970."""
    return (instant - EPOCH) // timedelta(microseconds=1)


def from_us(us: int) -> datetime:
    """The instant, aware, UTC."""
    return EPOCH + timedelta(microseconds=us)
