"""Questions about requests: what is used and left, what was spent on what, when the next may leave. They cost none.

Belongs here: everything that reads the ledger and writes nothing. Does not belong here: deciding, learning and
deferring (`core.quota`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

import sqlalchemy as sa

from analytics_platform.core import quota_tables as tables
from analytics_platform.core.quota_decision import (
    LEARNED_LIMIT_SECONDS,
    Facts,
    by_seconds,
    earliest_us,
    with_limit,
    with_limits,
)
from analytics_platform.core.quota_policy import (
    MICROSECONDS,
    DayUsage,
    HourlyRequests,
    QuotaPolicy,
    Spent,
    Window,
    WindowUsage,
)
from analytics_platform.core.quota_statements import facts_of, facts_query, since_binds
from analytics_platform.core.quota_store import LedgerStore
from analytics_platform.core.quota_tables import from_us, to_us

__all__ = ["LedgerQuestions"]


class LedgerQuestions(LedgerStore):
    """What the ledger answers. Every method raises StorageError where the database cannot be read."""

    def accounts(self) -> tuple[str, ...]:
        """Every account a policy was declared for."""

        def read(connection: sa.Connection) -> tuple[str, ...]:
            return tuple(
                connection.execute(
                    sa.select(tables.windows.c.account).distinct().order_by(tables.windows.c.account)
                ).scalars()
            )

        return self._run(read, mode="read")

    def usage(self, account: str) -> tuple[WindowUsage, ...]:
        """Each window of an account as it stands now, shortest first within a class; costs no request."""

        def read(connection: sa.Connection) -> tuple[WindowUsage, ...]:
            declared = self._declared(connection, account)
            each = declared.pop("*", ())
            if each:
                seen = sa.select(tables.requests.c.method_class).where(tables.requests.c.account == account).distinct()
                declared |= {verb: each for verb in connection.execute(seen).scalars() if verb not in declared}
            for method_class, limit in self._learned(connection, account, self._now_us()).items():
                if method_class in declared:
                    declared[method_class] = with_limit(declared[method_class], limit)
            return tuple(
                self._window_usage(connection, account, method_class, window)
                for method_class, windows in sorted(declared.items())
                for window in windows
            )

        return self._run(read, mode="read")

    def _window_usage(self, connection: sa.Connection, account: str, method_class: str, window: Window) -> WindowUsage:
        now_us, wall = self._now_us(), self._clock.now()
        binds = {"account": account, "method_class": method_class, "offset_0": window.limit - 1}
        facts = self._facts(connection, 1, binds | since_binds(now_us, (window,)))
        since_us = now_us - window.span_us

        def count(table: sa.Table) -> int:
            query = sa.select(sa.func.count()).select_from(table)
            inside = (table.c.account == account, table.c.method_class == method_class, table.c.ledger_us > since_us)
            return int(connection.execute(query.where(*inside)).scalar_one())

        def instant(us: int) -> datetime | None:
            return wall + timedelta(microseconds=us - now_us) if us > now_us else None

        lost_until_us = 0
        if facts.lost_us is not None and facts.trusted_us < facts.lost_us:
            lost_until_us = facts.lost_us + window.span_us
        spent = lost_until_us > now_us or facts.blocked_until_us > now_us
        used = window.limit if lost_until_us > now_us else count(tables.requests)
        resets_us = max(
            lost_until_us, facts.blocked_until_us, facts.newest_us + window.span_us if facts.newest_us else 0
        )
        return WindowUsage(
            account=account,
            method_class=method_class,
            limit=window.limit,
            window_seconds=window.seconds,
            used=used,
            remaining=0 if spent else max(0, window.limit - used),
            next_slot_at=instant(earliest_us(now_us, (window,), facts)),
            resets_at=instant(resets_us),
            blocked_until=instant(facts.blocked_until_us),
            refused=count(tables.refusals),
        )

    def departures(self, account: str, method_class: str, windows: Sequence[Window]) -> tuple[datetime, ...]:
        """When the requests still inside the longest of these windows left (or will leave): wall clock, ascending.

        A lost ledger, or a block, counts as a full window that began at the loss or ends with the block.
        """
        longest = max(windows, key=by_seconds)

        def read(connection: sa.Connection) -> tuple[datetime, ...]:
            now_us, wall = self._now_us(), self._clock.now()
            binds = {"account": account, "method_class": method_class, "offset_0": longest.limit - 1}
            facts = self._facts(connection, 1, binds | since_binds(now_us, (longest,)))
            query = sa.select(tables.requests.c.ledger_us).where(
                tables.requests.c.account == account,
                tables.requests.c.method_class == method_class,
                tables.requests.c.ledger_us > now_us - longest.span_us,
            )
            stamps = [int(us) for us in connection.execute(query.order_by(tables.requests.c.ledger_us)).scalars()]
            free_us = earliest_us(now_us, (longest,), facts)
            if free_us > now_us and len(stamps) < longest.limit:
                stamps = [free_us - longest.span_us] * longest.limit
            return tuple(wall + timedelta(microseconds=us - now_us) for us in stamps)

        return self._run(read, mode="read")

    def usage_of(self, policy: QuotaPolicy, method_class: str) -> tuple[WindowUsage, ...]:
        """One bucket's windows as they stand now, whether the policy was declared before or not."""
        policy = self.capped(policy)

        def read(connection: sa.Connection) -> tuple[WindowUsage, ...]:
            return tuple(
                self._window_usage(connection, policy.account, method_class, window)
                for window in policy.windows_for(method_class)
            )

        return self._run(read, mode="read")

    def requests_by_endpoint(self, account: str, since: datetime) -> dict[str, int]:
        """Requests sent by us on an account since an instant (wall clock), by endpoint label."""

        def read(connection: sa.Connection) -> dict[str, int]:
            query = (
                sa.select(tables.requests.c.endpoint, sa.func.count())
                .where(
                    tables.requests.c.account == account,
                    tables.requests.c.kind == "sent",
                    tables.requests.c.sent_us >= to_us(since),
                )
                .group_by(tables.requests.c.endpoint)
                .order_by(tables.requests.c.endpoint)
            )
            return {str(endpoint): int(requests) for endpoint, requests in connection.execute(query)}

        return self._run(read, mode="read")

    def requests_by_hour(self, accounts: Sequence[str], since: datetime) -> dict[tuple[datetime, str], int]:
        """Requests sent by us since an instant, by the UTC hour they left in and the stream they were for."""
        hour_us = 3_600 * MICROSECONDS

        def read(connection: sa.Connection) -> dict[tuple[datetime, str], int]:
            begun = tables.requests.c.sent_us - tables.requests.c.sent_us % hour_us
            query = (
                sa.select(begun.label("hour_us"), tables.requests.c.stream, sa.func.count())
                .where(
                    tables.requests.c.account.in_(list(accounts)),
                    tables.requests.c.kind == "sent",
                    tables.requests.c.sent_us >= to_us(since),
                )
                .group_by(sa.text("1"), tables.requests.c.stream)
                .order_by(sa.text("1"), tables.requests.c.stream)
            )
            return {(from_us(int(at)), str(stream)): int(n) for at, stream, n in connection.execute(query)}

        return self._run(read, mode="read")

    def refused(self, accounts: Sequence[str], since: datetime) -> int:
        """Answers 429 since an instant of this ledger's clock."""

        def read(connection: sa.Connection) -> int:
            since_us = self._now_us() - (to_us(self._clock.now()) - to_us(since))
            query = (
                sa.select(sa.func.count())
                .select_from(tables.refusals)
                .where(tables.refusals.c.account.in_(list(accounts)), tables.refusals.c.ledger_us >= since_us)
            )
            return int(connection.execute(query).scalar_one())

        return self._run(read, mode="read")

    def hourly(self, since: datetime) -> tuple[HourlyRequests, ...]:
        """Requests sent by us and answers 429 by UTC hour, account, endpoint and site; `since` (wall clock) inclusive.

        Answers carry no site: theirs is "".
        """
        hour_us = 3_600 * MICROSECONDS
        sent_at = tables.requests.c.sent_us
        group = [tables.requests.c[name] for name in ("vendor", "account", "method_class", "endpoint", "site")]
        sent = (
            sa.select((sent_at - sent_at % hour_us).label("hour_us"), *group, sa.func.count())
            .where(tables.requests.c.kind == "sent", sent_at >= to_us(since))
            .group_by(sa.text("1"), *group)
        )

        def read(connection: sa.Connection) -> tuple[HourlyRequests, ...]:
            counts = {tuple(row[:-1]): [int(row[-1]), 0] for row in connection.execute(sent)}
            for at_us, account, method_class, endpoint in self._refusals_since(connection, to_us(since)):
                vendor = account.partition(":")[0]
                counts.setdefault((at_us - at_us % hour_us, vendor, account, method_class, endpoint, ""), [0, 0])[
                    1
                ] += 1
            return tuple(
                HourlyRequests(
                    hour_at=from_us(int(key[0])),
                    vendor=key[1],
                    account=key[2],
                    method_class=key[3],
                    endpoint=key[4],
                    site=key[5],
                    requests=requests,
                    refused=refused,
                )
                for key, (requests, refused) in sorted(counts.items())
            )

        return self._run(read, mode="read")

    def daily_usage(self, account: str, since: date) -> tuple[DayUsage, ...]:
        """How full each window of an account was by UTC date, from `since` on; dates without a request are absent.

        The grid's spans are as long as the window and shorter than what the ledger keeps apart (`Window.span_us`), so
        no span holds more than the limit that was in force.
        """
        windows = [(usage.method_class, usage.window_seconds, usage.limit) for usage in self.usage(account)]
        since_us = to_us(datetime(since.year, since.month, since.day, tzinfo=UTC))

        def read(connection: sa.Connection) -> tuple[DayUsage, ...]:
            refused: dict[tuple[str, date], int] = {}
            for at_us, refusing, method_class, _ in self._refusals_since(connection, since_us):
                if refusing == account:
                    key = (method_class, from_us(at_us).date())
                    refused[key] = refused.get(key, 0) + 1
            return tuple(
                DayUsage(
                    account=account,
                    method_class=method_class,
                    window_seconds=seconds,
                    limit=limit,
                    date_utc=at,
                    used=used,
                    requests=requests,
                    refused=refused.get((method_class, at), 0),
                )
                for method_class, seconds, limit in windows
                for at, used, requests in self._fullest(connection, account, method_class, seconds, since_us)
            )

        return self._run(read, mode="read")

    @staticmethod
    def _fullest(
        connection: sa.Connection, account: str, method_class: str, seconds: float, since_us: int
    ) -> list[tuple[date, int, int]]:
        """(UTC date, requests of the fullest span, requests sent by us) of each date."""
        day_us = 86_400 * MICROSECONDS
        span_us = max(1, math.floor(seconds * MICROSECONDS))
        spans = (
            sa.select(
                sa.func.min(tables.requests.c.sent_us).label("first_us"),
                sa.func.count().label("counted"),
                sa.func.sum(sa.case((tables.requests.c.kind == "sent", 1), else_=0)).label("sent"),
            )
            .where(
                tables.requests.c.account == account,
                tables.requests.c.method_class == method_class,
                tables.requests.c.sent_us >= since_us,
            )
            .group_by(tables.requests.c.ledger_us - tables.requests.c.ledger_us % span_us)
            .subquery()
        )
        begun = spans.c.first_us - spans.c.first_us % day_us
        query = sa.select(begun, sa.func.max(spans.c.counted), sa.func.sum(spans.c.sent)).group_by(sa.text("1"))
        found = connection.execute(query.order_by(sa.text("1")))
        return [(from_us(int(at)).date(), int(used), int(sent)) for at, used, sent in found]

    def _refusals_since(self, connection: sa.Connection, since_us: int) -> list[tuple[int, str, str, str]]:
        """(wall clock in microseconds, account, method class, endpoint) of answers 429, oldest first.

        They are kept on the ledger's time line; the request before one tells how far that was from the wall clock.
        """
        before = (
            sa.select(tables.requests.c.sent_us - tables.requests.c.ledger_us)
            .where(
                tables.requests.c.account == tables.refusals.c.account,
                tables.requests.c.method_class == tables.refusals.c.method_class,
                tables.requests.c.ledger_us <= tables.refusals.c.ledger_us,
            )
            .order_by(tables.requests.c.ledger_us.desc())
            .limit(1)
            .scalar_subquery()
        )
        now_apart_us = to_us(self._clock.now()) - self._now_us()
        wall_us = tables.refusals.c.ledger_us + sa.func.coalesce(before, now_apart_us)
        columns = (tables.refusals.c.account, tables.refusals.c.method_class, tables.refusals.c.endpoint)
        found = connection.execute(
            sa.select(wall_us, *columns).order_by(tables.refusals.c.ledger_us, tables.refusals.c.id)
        )
        return [(int(at), str(a), str(m), str(e)) for at, a, m, e in found if int(at) >= since_us]

    def spent(
        self,
        *,
        vendor: str | None = None,
        stream: str | None = None,
        site: str | None = None,
        run_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> tuple[Spent, ...]:
        """Requests spent, grouped by vendor, stream, site and endpoint; `since` inclusive, `until` exclusive."""
        wanted = {"vendor": vendor, "stream": stream, "site": site, "run_id": run_id}

        def read(connection: sa.Connection) -> tuple[Spent, ...]:
            group = (
                tables.requests.c.vendor,
                tables.requests.c.stream,
                tables.requests.c.site,
                tables.requests.c.endpoint,
            )
            query = (
                sa.select(*group, sa.func.count())
                .where(tables.requests.c.kind == "sent")
                .group_by(*group)
                .order_by(*group)
            )
            for name, value in wanted.items():
                if value is not None:
                    query = query.where(tables.requests.c[name] == value)
            if since is not None:
                query = query.where(tables.requests.c.sent_us >= to_us(since))
            if until is not None:
                query = query.where(tables.requests.c.sent_us < to_us(until))
            return tuple(
                Spent(vendor=row[0], stream=row[1], site=row[2], endpoint=row[3], requests=row[4])
                for row in connection.execute(query)
            )

        return self._run(read, mode="read")

    def capped(self, policy: QuotaPolicy) -> QuotaPolicy:
        """The policy with what 429s taught about its longest windows (`adopt_usage`): for forecasts and screens.

        Decisions read it themselves, each time: a meter obeys what was learned after it was made.
        """
        learned = self._run(lambda c: self._learned(c, policy.account, self._now_us()), mode="read")
        return policy if not learned else with_limits(policy, learned)

    def _facts(self, connection: sa.Connection, window_count: int, binds: Mapping[str, object]) -> Facts:
        return facts_of(connection.execute(facts_query(window_count), binds).one())

    def _declared(self, connection: sa.Connection, account: str) -> dict[str, tuple[Window, ...]]:
        found: dict[str, tuple[Window, ...]] = {}
        query = sa.select(tables.windows).where(tables.windows.c.account == account).order_by(tables.windows.c.seconds)
        for row in connection.execute(query):
            window = Window(row.request_limit, row.seconds, row.guard_seconds)
            found[row.method_class] = (*found.get(row.method_class, ()), window)
        return found

    @staticmethod
    def _learned(connection: sa.Connection, account: str, now_us: int) -> dict[str, int]:
        """Limits of longest windows that 429s taught and that are still believed, by method class."""
        since_us = now_us - math.floor(LEARNED_LIMIT_SECONDS * MICROSECONDS)
        query = sa.select(tables.reports.c.method_class, tables.reports.c.learned_limit).where(
            tables.reports.c.account == account,
            tables.reports.c.learned_limit.is_not(None),
            tables.reports.c.learned_us > since_us,
        )
        return {str(name): int(limit) for name, limit in connection.execute(query)}
