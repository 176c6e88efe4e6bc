"""What a lake table is: explicit columns, natural key, where its records sit inside a vendor page.

Belongs here: the value types every `vendors/<v>/tables.py` is written in, and facts derivable from them alone.
Does not belong here: reading pages (`core.landing`), running SQL (`core.lake`), Dagster, any vendor's name.

A decode is set-based. For each landed page DuckDB sees two things a column expression may use:

* `r`  the record as a STRUCT, read with the table's declared `wire` fields (absent field = NULL, never inferred);
* `c`  the page's context as a STRUCT of VARCHARs, declared in `context` (what the request asked for: day, dimension,
code…).

With `explode`, `e` is one element of the list `r.<explode>` and the table has one row per element (`i` is its
1-based index).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

__all__ = [
    "ANYWHERE_KINDS",
    "SYSTEM_COLUMNS",
    "WEAK_KINDS",
    "Column",
    "KindOf",
    "Sensitivity",
    "TableSpec",
    "is_record_kind",
    "normalised_key",
]

WEAK_KINDS: Final = frozenset({"ip", "display_name"})
"""Kinds of key that several people share. They find rows when a person gave them, and lead to nobody else's rows."""

ANYWHERE_KINDS: Final = frozenset({"email"})
"""Kinds whose value means the same person at every site; any other value may be somebody else at another site."""


def is_record_kind(kind: str) -> bool:
    """Whether a kind names one recording (a session, its replay link) rather than a person."""
    return kind.endswith(("_session", "_session_link"))


def normalised_key(kind: str, value: str) -> str:
    """The spelling in which two values of a kind are compared: e-mails without case, everything else as it is."""
    return value.strip().lower() if kind == "email" else value


class Sensitivity(StrEnum):
    """How a column may travel. Anything but PUBLIC is masked in previews, metadata and check results."""

    PUBLIC = "public"
    PSEUDONYMOUS = "pseudonymous"
    """A vendor's own visitor or user id: joins, but names nobody by itself."""
    PERSONAL = "personal"
    """E-mail, IP, display name, user agent, free text about a person."""
    SECRET = "secret"  # noqa: S105  (a classification, not a value)
    """A capability: whoever holds the value can act or watch (replay links, ingestion keys)."""


@dataclass(frozen=True, kw_only=True)
class KindOf:
    """For columns that hold another kind of key in each row: the kind is told by a second column.

    Args:
        column: the column of the same table that tells (`tag`).
        kinds: its value → kind of key; rows with any other value identify nobody.
    """

    column: str
    kinds: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Column:
    """One lake column.

    Args:
        name: snake_case with its unit (`duration_seconds`), `_at` for UTC instants, `_date` for local dates.
        type: DuckDB type in the Parquet file.
        description: what it means, and the vendor's own field name where it differs.
        expr: DuckDB expression over `r`, `c`, `e`, `i`; default is `r."<name>"`. Cast to `type` by the decoder.
        nullable: False makes the blocking not-null expectation.
        sensitivity: see `Sensitivity`.
        minimum, maximum: inclusive bounds for the range expectation, in the column's unit.
        allowed: closed vocabulary, checked as a warning (a new value passes as unknown).
        identifies: kind of key by which the value names a person or one recording of them (`email`, `uid`,
            `<vendor>_visitor`, `<vendor>_session`); the right to erasure finds rows by it. Two columns of one kind
            name the same person where their values are equal.
    """

    name: str
    type: str
    description: str
    expr: str | None = None
    nullable: bool = True
    sensitivity: Sensitivity = Sensitivity.PUBLIC
    minimum: float | None = None
    maximum: float | None = None
    allowed: tuple[str, ...] = ()
    identifies: str | KindOf | None = None


SYSTEM_COLUMNS: tuple[Column, ...] = (
    Column(name="_site", type="VARCHAR", description="Site key of sites.yaml.", nullable=False),
    Column(
        name="_day", type="DATE", description="Partition day (see the vendor's README for whose day).", nullable=False
    ),
    Column(name="_landed_at", type="TIMESTAMP", description="UTC instant the page was landed.", nullable=False),
    Column(name="_run_id", type="VARCHAR", description="Dagster run that landed the page.", nullable=False),
    Column(
        name="_extra",
        type="VARCHAR",
        description="JSON object of top-level wire fields the table does not declare; NULL when none.",
        sensitivity=Sensitivity.PERSONAL,
    ),
)
"""Stamped by the lake on every row, after the table's own columns."""


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """One lake table of one vendor.

    Args:
        vendor, name: the asset key, the landing and lake path, and `stg_<vendor>__<name>`.
        description: opens with the grain ("One row per …"); then source document and section.
        key: natural key; the newest landed record of a key wins, one row stays.
        columns: the table's own columns in order.
        wire: record fields and their DuckDB JSON types, e.g. `{"id": "VARCHAR", "pageUrl": "VARCHAR[]"}`. VARCHAR
        also reads
            numbers and objects as text, so declare loosely what the vendor varies and cast in `Column.expr`.
        calls: which kinds of call this table is decoded from (`Page.call_kind`); a stream may serve several tables.
        records: where the records are in a page: JSON field paths tried in order, "" is the root. A root or member
        that is null is
            an empty list, an object is a list of one; a path ending in "{}" makes each member of an object a record
            `{"key": …, "value": …}`.
        union_records: read every path of `records`, not only the first that exists.
        context: names of page-context values used as `c.<name>`.
        explode: wire field, or DuckDB expression over `r` and `c`, of the list that makes one row per element.
        merge_calls: rows of one key from several kinds of call are one row: each column takes its newest non-NULL
        value.
        day: DuckDB expression for the partition day; rows of other days are dropped (the range asked with a margin).
            Default: the day in the page context (`c.day`).
        where: optional DuckDB predicate over the decoded columns' inputs (`r`, `c`, `e`).
        day_basis: "utc", "site" (the site's local day) or "snapshot" (today only, cannot be backfilled).
        minimum_rows: blocking row floor for a closed day (0: an empty day is legal).
        anchor: column whose newest value measures freshness, an instant or date; None where rows carry no time.
        identifies: kind of key → DuckDB expression over `r` and `c` (VARCHAR), for values of the wire that name a
            person and have no column (an IP address).
        is_counted: `Page.records` counts exactly the records at this table's `records` (before `explode` and `where`),
            so that a page of which fewer are decoded is noticed. Not where it counts what lies inside a record.
        measures: metric → DuckDB aggregate over the table's columns, the vendor's number of a partition day as it
            stood when it was read. Kept for every read, so that it shows how far numbers move afterwards.
    """

    vendor: str
    name: str
    description: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    wire: Mapping[str, str]
    calls: tuple[str, ...]
    records: tuple[str, ...] = ("",)
    union_records: bool = False
    merge_calls: bool = False
    context: tuple[str, ...] = ("day",)
    explode: str | None = None
    day: str = "CAST(c.day AS DATE)"
    where: str | None = None
    day_basis: str = "utc"
    minimum_rows: int = 0
    anchor: str | None = None
    source_url: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    identifies: Mapping[str, str] = field(default_factory=dict)
    measures: Mapping[str, str] = field(default_factory=dict)
    is_counted: bool = False

    @property
    def all_columns(self) -> tuple[Column, ...]:
        """Own columns followed by the system columns: the exact Parquet schema."""
        return self.columns + SYSTEM_COLUMNS

    @property
    def asset_key(self) -> tuple[str, str]:
        return (self.vendor, self.name)

    @property
    def qualified_name(self) -> str:
        return f"{self.vendor}/{self.name}"

    def column(self, name: str) -> Column:
        for column in self.all_columns:
            if column.name == name:
                return column
        raise KeyError(f"{self.qualified_name} has no column {name!r}")

    def sensitive_columns(self) -> tuple[str, ...]:
        """Columns whose values may not be shown in previews, metadata, logs or check results."""
        return tuple(c.name for c in self.all_columns if c.sensitivity is not Sensitivity.PUBLIC)

    @property
    def identifying_columns(self) -> tuple[Column, ...]:
        """Columns whose values name a person or a recording."""
        return tuple(column for column in self.columns if column.identifies is not None)

    @property
    def identity_kinds(self) -> frozenset[str]:
        """Every kind of key a record or row of this table may carry."""
        kinds = set(self.identifies)
        for column in self.columns:
            if isinstance(column.identifies, KindOf):
                kinds |= set(column.identifies.kinds.values())
            elif column.identifies is not None:
                kinds.add(column.identifies)
        return frozenset(kinds)

    def __post_init__(self) -> None:
        names = [c.name for c in self.all_columns]
        duplicates = {n for n in names if names.count(n) > 1}
        if duplicates:
            raise ValueError(f"{self.qualified_name}: duplicate columns {sorted(duplicates)}")
        unknown = set(self.key) - set(names)
        if unknown:
            raise ValueError(f"{self.qualified_name}: key columns {sorted(unknown)} are not columns")
        told_by = {c.identifies.column for c in self.columns if isinstance(c.identifies, KindOf)}
        if told_by - set(names):
            raise ValueError(f"{self.qualified_name}: kinds are told by {sorted(told_by - set(names))}, not columns")
