"""What the platform knows of its own work, as Parquet beside the lake: requests, quota, partitions, first readings.

Belongs here: the four files below `lake/_ops`, taken from ledger, landing and lake before the models are built. Does
not belong here: counting requests (`core.quota`), deciding what a day's state is (`core.fetch`), what the models make
of the files, any vendor's name.

    _ops/http_requests/part.parquet       UTC hour × account × endpoint: requests, answers 429, bytes received
    _ops/quota_windows/part.parquet       UTC date × account × window: the fullest span, the limit, when it will run out
    _ops/partition_status/part.parquet    table × site × partition day: how it stands, why, rows, cost
    _ops/partition_measures/month=…/      table × site × partition day × read: the vendor's numbers as they were read

The first three hold the last `KEPT_DAYS` days. Of finished hours and dates the rows of the file stay as they are: they
were true under the limits of then, and reading all of the ledger again would cost more with every month. The state of
partitions is derived anew each time.

Measures are never dropped, so that what a model makes of them does not depend on when it was built. A read is a
complete batch in the landing. The newest one of a day is measured in the lake; one that was replaced before anybody
measured it is decoded once more, into a folder that is thrown away. So the file can be lost and is made again from the
landing. Each file is replaced by one rename; readers need no lock.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from filelock import FileLock

from analytics_platform.core.durable import make_directories, storage_errors
from analytics_platform.core.errors import DataError
from analytics_platform.core.fetch import DayState, SiteContext, state_of_days
from analytics_platform.core.lake import Lake, connect, replace_rows
from analytics_platform.core.landing import Batch, Landing
from analytics_platform.core.partitions import today
from analytics_platform.core.quota_policy import SYNCED_FROM_SECONDS, Deferral, Window
from analytics_platform.core.streams import Stream
from analytics_platform.core.tables import TableSpec
from analytics_platform.core.truths import HELD_BACK

if TYPE_CHECKING:
    import pyarrow as pa

    from analytics_platform.core.quota import Ledger

__all__ = ["KEPT_DAYS", "OpsLog", "SiteStreams", "exhausted_at"]

KEPT_DAYS: Final = 90
_REPLACED_BATCHES_AT_ONCE: Final = 50
"""How many replaced batches one export decodes again; an old home catches up over its next builds."""

_PARTITION: Final = ("vendor", "table_name", "site_key", "partition_date")

Row = dict[str, Any]


def _fields(text: str) -> tuple[tuple[str, str], ...]:
    """(name, Arrow type) of a list such as `vendor string, hour_at timestamp`."""
    return tuple((name, kind) for name, kind in (part.split() for part in text.split(",")))


_SCHEMAS: Final = {
    "http_requests": _fields(
        "hour_at timestamp, vendor string, account string, method_class string, endpoint string, "
        "requests int64, answers_429 int64, received_bytes int64"
    ),
    "quota_windows": _fields(
        "date_utc date, vendor string, account string, method_class string, window_seconds double, "
        "request_limit int64, used int64, requests int64, answers_429 int64, observed_at timestamp, "
        "forecast_exhaustion_at timestamp"
    ),
    "partition_status": _fields(
        "vendor string, table_name string, site_key string, partition_date date, status string, reason string, "
        "row_count int64, requests int64, batch_days int64, landed_at timestamp, resume_at timestamp, "
        "observed_at timestamp"
    ),
    "partition_measures": _fields(
        "vendor string, table_name string, site_key string, partition_date date, day_basis string, batch string, "
        "asked_at timestamp, metric string, value int64"
    ),
}


@dataclass(frozen=True, kw_only=True)
class SiteStreams:
    """A site at a vendor: the vendor's streams, and the first day the site has data."""

    site: SiteContext
    start_date: date
    streams: tuple[Stream, ...]


class OpsLog:
    """The operational files of one lake."""

    def __init__(self, lake: Lake, landing: Landing) -> None:
        self._lake = lake
        self._landing = landing
        self._root = lake.root / "_ops"

    def prepare(self) -> None:
        """Write the files that are missing, without rows: readers may count on them."""
        with self._held():
            self._ensure_all()

    def export(self, sites: Sequence[SiteStreams], ledger: Ledger | None, now: datetime) -> None:
        """Bring all files up to date.

        Args:
            sites: every configured site at every vendor it uses.
            ledger: None where no request was ever sent.
            now: aware UTC.

        Raises:
            StorageError: the ledger, landing or lake cannot be read or written. Files are old or new, never torn.
        """
        with self._held():
            self._ensure_all()
            if ledger is not None:
                self._export_requests(ledger, now)
                self._export_quota(ledger, now)
            deferrals = () if ledger is None else ledger.deferrals()
            self._write("partition_status", list(self._partition_rows(sites, deferrals, now)))
            self._export_measures(sites)

    def _held(self) -> FileLock:
        with storage_errors("Preparing the operational files"):
            make_directories(self._root)
        return FileLock(self._root / ".lock")

    # -- requests ------------------------------------------------------------------------------------------------

    def _export_requests(self, ledger: Ledger, now: datetime) -> None:
        """Hours from the last written one on are counted again; what is finished stays."""
        oldest = _hour(now) - timedelta(days=KEPT_DAYS)
        kept = [row for row in self._read("http_requests") if row["hour_at"] >= _naive(oldest)]
        newest = max((row["hour_at"] for row in kept), default=None)
        since = oldest if newest is None else newest.replace(tzinfo=UTC) - timedelta(hours=1)
        kept = [row for row in kept if row["hour_at"] < _naive(since)]
        counted: dict[tuple[datetime, str, str, str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        accounts: dict[tuple[str, str, str], tuple[str, str]] = {}
        for hourly in ledger.hourly(since):
            key = (_naive(hourly.hour_at), hourly.vendor, hourly.account, hourly.method_class, hourly.endpoint)
            counted[key][0] += hourly.requests
            counted[key][1] += hourly.refused
            accounts[hourly.vendor, hourly.site, hourly.endpoint] = (hourly.account, hourly.method_class)
        for vendor, site, endpoint, at, size in self._received(since):
            account = accounts.get((vendor, site, endpoint))
            if account is not None:
                counted[_naive(_hour(at)), vendor, *account, endpoint][2] += size
        names = ("hour_at", "vendor", "account", "method_class", "endpoint")
        fresh = [
            {**dict(zip(names, key, strict=True)), "requests": sent, "answers_429": refused, "received_bytes": size}
            for key, (sent, refused, size) in counted.items()
        ]
        self._write("http_requests", sorted([*kept, *fresh], key=lambda row: tuple(map(str, _values(row, names)))))

    def _received(self, since: datetime) -> Iterator[tuple[str, str, str, datetime, int]]:
        """(vendor, site, endpoint, received at, bytes before compression) of landed pages from an instant on."""
        for vendor, stream, site in self._landing.streams():
            for batch in self._landing.batches(vendor, stream, site):
                if batch.landed_at is not None and batch.landed_at < since:
                    continue
                for page in batch.index():
                    if page.received_at >= since:
                        yield vendor, site, page.endpoint, page.received_at, page.size

    # -- quota ---------------------------------------------------------------------------------------------------

    def _export_quota(self, ledger: Ledger, now: datetime) -> None:
        """The newest date that was written is counted again; dates before it stay, with the limits of then."""
        oldest = now.date() - timedelta(days=KEPT_DAYS)
        rows = [row for row in self._read("quota_windows") if row["date_utc"] >= oldest]
        since = max((row["date_utc"] for row in rows), default=oldest)
        kept = [row for row in rows if row["date_utc"] < since]
        fresh = []
        for account in ledger.accounts():
            limits = {(usage.method_class, usage.window_seconds): usage for usage in ledger.usage(account)}
            for day in ledger.daily_usage(account, since):
                usage = limits[day.method_class, day.window_seconds]
                is_running = day.date_utc == now.date() and day.window_seconds > SYNCED_FROM_SECONDS
                ends_at = None
                if is_running:
                    window = Window(day.limit, day.window_seconds)
                    departures = ledger.departures(account, day.method_class, [window])
                    ends_at = now if usage.remaining == 0 else exhausted_at(departures, window, now)
                fresh.append(
                    {
                        "date_utc": day.date_utc,
                        "vendor": account.partition(":")[0],
                        "account": account,
                        "method_class": day.method_class,
                        "window_seconds": day.window_seconds,
                        # A limit that was lowered during the date held before: nobody sent more than was allowed then.
                        "request_limit": max(day.limit, _limit_of(rows, day)),
                        "used": day.used,
                        "requests": day.requests,
                        "answers_429": day.refused,
                        "observed_at": _naive(now),
                        "forecast_exhaustion_at": None if ends_at is None else _naive(ends_at),
                    }
                )
        names = ("date_utc", "account", "method_class", "window_seconds")
        self._write("quota_windows", sorted([*kept, *fresh], key=lambda row: tuple(map(str, _values(row, names)))))

    # -- partitions ----------------------------------------------------------------------------------------------

    def _partition_rows(
        self, sites: Sequence[SiteStreams], deferrals: Sequence[Deferral], now: datetime
    ) -> Iterator[Row]:
        blocked = set(self._lake.blocked())
        held_back = {(vendor, site, day) for vendor, name, site, day in blocked if name.startswith(HELD_BACK)}
        before = {_values(row, _PARTITION): row for row in self._read("partition_status")}
        for item in sites:
            for stream in item.streams:
                table = stream.tables[0]
                newest = today(table, now, item.site.timezone)
                days = _days(max(item.start_date, newest - timedelta(days=KEPT_DAYS)), newest)
                states = state_of_days(stream, self._landing, item.site, days, now)
                open_days = self._open_days(stream, item.site.key)
                for spec in stream.tables:
                    counts = self._row_counts(spec, item.site.key, days, before)
                    for day in days:
                        is_blocked = (spec.vendor, spec.name, item.site.key, day) in blocked or (
                            (spec.vendor, item.site.key, day) in held_back
                        )
                        waiting = _deferral(deferrals, stream, item.site.key, day)
                        status, reason = _verdict(
                            states[day],
                            is_decoded=day in counts,
                            is_blocked=is_blocked,
                            waiting=waiting,
                            is_begun=day in open_days,
                        )
                        batch = states[day].batch
                        yield {
                            "vendor": spec.vendor,
                            "table_name": spec.name,
                            "site_key": item.site.key,
                            "partition_date": day,
                            "status": status,
                            "reason": reason,
                            "row_count": counts.get(day),
                            "requests": None if batch is None else batch.requests,
                            "batch_days": None if batch is None else len(batch.days),
                            "landed_at": None if batch is None or batch.landed_at is None else _naive(batch.landed_at),
                            "resume_at": None if waiting is None else _naive(waiting.resume_at),
                            "observed_at": _naive(now),
                        }

    def _row_counts(
        self, spec: TableSpec, site: str, days: Sequence[date], before: Mapping[tuple[Any, ...], Row]
    ) -> dict[date, int]:
        """Rows of each partition that is there; a file not written since the last export holds what it held then."""
        counts: dict[date, int] = {}
        unknown = []
        for day in days:
            written_at = self._lake.written_at(spec, site, day)
            if written_at is None:
                continue
            row = before.get((spec.vendor, spec.name, site, day), {})
            counted = row.get("row_count")
            if counted is not None and written_at + 1.0 < row["observed_at"].replace(tzinfo=UTC).timestamp():
                counts[day] = counted
            else:
                unknown.append(day)
        return counts | self._lake.row_counts(spec, site, unknown)

    def _open_days(self, stream: Stream, site: str) -> set[date]:
        """Days of batches that were begun and are not complete."""
        batches = self._landing.batches(stream.vendor, stream.name, site)
        return {day for batch in batches if not batch.is_complete for day in batch.days}

    # -- measures ------------------------------------------------------------------------------------------------

    def _export_measures(self, sites: Sequence[SiteStreams]) -> None:
        known = self._measured()
        found: list[Row] = []
        budget = _REPLACED_BATCHES_AT_ONCE
        for item in sites:
            for stream in item.streams:
                for spec in (spec for spec in stream.tables if spec.measures):
                    reads = self._unmeasured(stream, spec, item.site.key, known)
                    found += self._measured_in_lake(spec, item.site.key, reads.newest)
                    for batch, days in reads.replaced[: max(0, budget)]:
                        budget -= 1
                        found += self._measured_again(spec, item.site.key, batch, days)
        by_month: dict[str, list[Row]] = defaultdict(list)
        for row in found:
            by_month[f"month={row['partition_date']:%Y-%m}"].append(row)
        for month, rows in sorted(by_month.items()):
            self._write("partition_measures", [*self._read("partition_measures", month), *rows], month)

    def _measured(self) -> set[tuple[Any, ...]]:
        """(vendor, table, site, day, batch) of every read in the file."""
        paths = [str(path) for path in (self._root / "partition_measures").glob("month=*/part.parquet")]
        with connect() as engine:
            return set(
                engine.execute(
                    "SELECT DISTINCT vendor, table_name, site_key, partition_date, batch "
                    "FROM read_parquet(?, hive_partitioning = false)",
                    [paths],
                ).fetchall()
            )

    def _unmeasured(self, stream: Stream, spec: TableSpec, site: str, known: set[tuple[Any, ...]]) -> _Reads:
        """Reads of the table that are not in the file: the newest of their days, and those replaced since."""
        batches = [b for b in self._landing.batches(stream.vendor, stream.name, site) if b.is_complete]
        days = sorted({day for batch in batches for day in batch.days})
        newest = self._landing.newest_complete(stream.vendor, stream.name, site, days)
        reads = _Reads(newest={}, replaced=[])
        for day, batch in newest.items():
            if (spec.vendor, spec.name, site, day, _name(batch)) not in known:
                reads.newest[day] = batch
        for batch in batches:
            replaced = [
                day
                for day in batch.days
                if newest[day].path != batch.path and (spec.vendor, spec.name, site, day, _name(batch)) not in known
            ]
            if replaced:
                reads.replaced.append((batch, replaced))
        return reads

    def _measured_in_lake(self, spec: TableSpec, site: str, newest: Mapping[date, Batch]) -> Iterator[Row]:
        """What the lake holds, where it was decoded from these batches: an older partition is of an older batch."""
        decoded = [
            day
            for day, batch in newest.items()
            if batch.landed_at is not None
            and (self._lake.written_at(spec, site, day) or 0.0) >= batch.landed_at.timestamp() - 1.0
        ]
        for day, values in self._lake.measures(spec, site, decoded).items():
            yield from _measure_rows(spec, site, day, newest[day], values)

    def _measured_again(self, spec: TableSpec, site: str, batch: Batch, days: Sequence[date]) -> Iterator[Row]:
        with self._lake.scratch() as folder:
            apart = self._lake.beside(folder)
            try:
                apart.decode(spec, [(batch, days)], site=site)
            except DataError:
                # It never was a number of the lake either.
                return
            for day, values in apart.measures(spec, site, days).items():
                yield from _measure_rows(spec, site, day, batch, values)

    # -- files ---------------------------------------------------------------------------------------------------

    def _ensure_all(self) -> None:
        for table in _SCHEMAS:
            part = "month=none" if table == "partition_measures" else ""
            path = self._root / table / part / "part.parquet"
            if not path.is_file() or not _has_schema(path, table):
                self._write(table, [], part)

    def _read(self, table: str, part: str = "") -> list[Row]:
        path = self._root / table / part / "part.parquet"
        return _read_parquet(path) if path.is_file() else []

    def _write(self, table: str, rows: Sequence[Row], part: str = "") -> None:
        import pyarrow as pa

        table_of_rows = pa.Table.from_pylist(list(rows), schema=_schema(table))
        replace_rows(table_of_rows, self._root / table / part / "part.parquet")


@dataclass
class _Reads:
    newest: dict[date, Batch]
    replaced: list[tuple[Batch, list[date]]]


def exhausted_at(departures: Sequence[datetime], window: Window, now: datetime) -> datetime | None:
    """When a sliding window will be full if requests go on as in its last quarter; None where it never will be.

    Args:
        departures: instants of the requests inside the window, ascending.
    """
    quarter = timedelta(seconds=window.seconds / 4)
    pace = sum(at > now - quarter for at in departures) / quarter.total_seconds()
    if pace == 0:
        return None
    for step in range(1, math.ceil(window.seconds / 60) + 1):
        at = now + timedelta(minutes=step)
        inside = len(departures) - bisect_right(departures, at - timedelta(seconds=window.seconds))
        to_come = pace * min(step * 60, window.seconds)
        if inside + to_come >= window.limit:
            return at
    return None


def _verdict(
    state: DayState, *, is_decoded: bool, is_blocked: bool, waiting: Deferral | None, is_begun: bool
) -> tuple[str, str | None]:
    """Status of a partition and, where it is not ok, the reason in words."""
    if is_blocked:
        return "blocked", "a blocking check failed: the models leave it out"
    if state.batch is not None and not is_decoded:
        return "failed", "landed, and not decoded: see the newest run of this partition"
    if waiting is not None and not state.is_final:
        return "deferred", waiting.reason
    if is_decoded and state.batch is None:
        return "ok", "its landed pages are gone"
    if state.is_final:
        return "ok", None
    if state.batch is not None:
        return "partial", "asked before the day was settled: the next run asks again"
    if is_begun:
        return "partial", "interrupted: the next run goes on where it stopped"
    if not state.is_backfillable:
        return "not_backfillable", "the vendor tells of the present only, and nobody asked on that day"
    return "missing", "never asked for"


def _deferral(deferrals: Iterable[Deferral], stream: Stream, site: str, day: date) -> Deferral | None:
    for deferral in deferrals:
        where = (deferral.vendor, deferral.stream, deferral.site)
        if where == (stream.vendor, stream.name, site) and deferral.first_day <= day <= deferral.last_day:
            return deferral
    return None


def _measure_rows(
    spec: TableSpec, site: str, day: date, batch: Batch, values: Mapping[str, int | None]
) -> Iterator[Row]:
    asked_at = batch.asked_since or batch.landed_at
    for metric, value in values.items():
        yield {
            "vendor": spec.vendor,
            "table_name": spec.name,
            "site_key": site,
            "partition_date": day,
            "day_basis": spec.day_basis,
            "batch": _name(batch),
            "asked_at": None if asked_at is None else _naive(asked_at),
            "metric": metric,
            "value": value,
        }


def _name(batch: Batch) -> str:
    """The batch's own name, which it keeps when a forgotten person is taken out of its pages."""
    return batch.path.name.partition(".e")[0]


def _limit_of(rows: Iterable[Row], day: Any) -> int:
    wanted = (day.date_utc, day.account, day.method_class, day.window_seconds)
    names = ("date_utc", "account", "method_class", "window_seconds")
    return next((int(row["request_limit"]) for row in rows if _values(row, names) == wanted), 0)


def _values(row: Row, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


def _days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def _hour(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _naive(at: datetime) -> datetime:
    """An instant as the lake keeps it: UTC, without a zone."""
    return at.astimezone(UTC).replace(tzinfo=None)


def _schema(table: str) -> pa.Schema:
    import pyarrow as pa

    kinds = {
        "string": pa.string(),
        "int64": pa.int64(),
        "double": pa.float64(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us"),
    }
    return pa.schema([(name, kinds[kind]) for name, kind in _SCHEMAS[table]])


def _has_schema(path: Path, table: str) -> bool:
    import pyarrow.parquet as pq

    found: bool = pq.read_schema(path).remove_metadata().equals(_schema(table))
    return found


def _read_parquet(path: Path) -> list[Row]:
    import pyarrow.parquet as pq

    # One file, read as such: the folder's name is not a column.
    rows: list[Row] = pq.ParquetFile(path).read().to_pylist()
    return rows
