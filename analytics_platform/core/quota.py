"""The request ledger: every request any process sends is written down first, so no vendor window is ever exceeded.

Belongs here: the persisted sliding log, what a vendor's 429 or usage endpoint teaches it, the meter `core.http`
calls before each attempt, the list of deferred work, and questions about requests spent. Sources: DESIGN section 3,
RELIABILITY D1-D14.
Does not belong here: any vendor's figures (`vendors/<v>/` own their `QuotaPolicy`), HTTP, planning, Dagster.

How it decides. One row is one request, stamped with the instant it may leave. A request may leave at the latest of:
now; for each window, the stamp of the `limit`-th newest row plus the window's span, and of the newest plus what the
policy wants them apart; the end of a block or of a loss.
That is a sliding log: no span of `seconds`, and so no fixed window either, ever holds more than `limit` sends,
whichever process sends them. If the instant is near (per-second limits) the row is written with it and the caller
sleeps until then, so waiters leave in order; if it is far, nothing is written and `QuotaExhausted(resume_at)` is
raised. A limit learned from the vendor is read with the facts, so every meter of every process obeys it at once.

Ahead. Whoever asks again and again has rows written ahead, for the same label, in one transaction: as many as it used
lately, at most a sixtieth of a window and a fifth of what is free in it: a plan of 100 requests never has any. They are
stamped with the last instant they may be used, at most a quarter of a second (and half the guard) later: counted from
their latest possible departure, decided by their earliest. What is not used by then is given back with the next
statement of this process; a process that is killed has spent it.

Guard. The vendor counts arrivals, we count sends. A request delayed by up to `guard_seconds` more than its
successors cannot break the limit, because spans are `seconds + guard_seconds`: 5 % of the window, at most 2 s,
unless the policy says otherwise (D8: jitter of 0-500 ms at 5 a second needs `guard_seconds=0.5`).

Time. Stamps are on the ledger's own time line, driven by the monotonic clock, which all processes of one boot
share: wall clock jumps neither free nor block anything (D6). A new boot continues from the newest row by the wall
clock, but by no more than the machine has been up: nobody can tell hours switched off from a clock that was corrected
meanwhile, so they count like hours of sleep, for nothing, and cost at most one window. A wall clock that went backwards
adds nothing. Hosts that share a Postgres ledger join by the server's clock: theirs may differ by hours. `resume_at` and
`sent_at` are wall clock, for people and sensors.

Loss. Beside an SQLite ledger stands `<ledger>.created`, written once when the home is new, with the number of the
last row. Where it says there was a ledger and the file is missing, unreadable or ends earlier (D7), every window
counts as spent for one span from now, or until the vendor's own figure is adopted. The unreadable file is kept as
`<ledger>.corrupt-<instant>`.

Durability. A decision is committed before the request leaves; kill -9 forgets nothing. For windows longer than a
minute the commit is also synced to disk; shorter windows are over before a machine is back from a power cut.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, Self

import sqlalchemy as sa

from analytics_platform.core import quota_tables as tables
from analytics_platform.core.clock import Clock, SystemClock
from analytics_platform.core.errors import ConfigurationError, StorageError
from analytics_platform.core.quota_ahead import ROOM_AHEAD, Ahead, Allowance, RowsAhead
from analytics_platform.core.quota_decision import (
    Answer,
    Ask,
    Label,
    Rows,
    ask_of,
    by_seconds,
    earliest_us,
    exhausted,
    minute,
    offset,
    tolerated_us,
    with_limit,
)
from analytics_platform.core.quota_file import LedgerFile
from analytics_platform.core.quota_policy import (
    MICROSECONDS,
    SYNCED_FROM_SECONDS,
    Deferral,
    QuotaPolicy,
    Spending,
    Spent,
    Window,
    WindowUsage,
    account_key,
    per_minute_windows,
    spending,
    spending_now,
)
from analytics_platform.core.quota_questions import LedgerQuestions
from analytics_platform.core.quota_statements import (
    BLOCKED_UNTIL,
    INSERT_REQUEST,
    CoreStatements,
    Statements,
    since_binds,
)
from analytics_platform.core.quota_tables import from_us, to_us
from analytics_platform.core.waiting import waiting

__all__ = [
    "AccountMeter",
    "Deferral",
    "Ledger",
    "NotingMeter",
    "QuotaPolicy",
    "Spending",
    "Spent",
    "Window",
    "WindowUsage",
    "account_key",
    "per_minute_windows",
    "spending",
]

logger = logging.getLogger(__name__)

_LONGEST_TRUSTED_RETRY_AFTER_SECONDS: Final = 86_400.0
_LONGEST_ESCALATION_SECONDS: Final = 3_600.0
_LATE_TRIES: Final = 8
"""A host that oversleeps as often as that in a row cannot keep any appointment: the request leaves."""
_ASK_AGAIN_AFTER_SECONDS: Final = 600.0
"""A vendor's own count is asked for at most once in this time and account: it may cost a request itself."""


class Ledger(LedgerQuestions):
    """One per process and data home; thread-safe. See the module docstring for what it promises.

    Every method raises StorageError where the database cannot be read or written: then nothing may be sent.
    """

    def __init__(self, *, file: LedgerFile | None, url: str, clock: Clock) -> None:
        super().__init__(file=file, url=url, clock=clock)
        self._struck: set[tuple[str, str]] = set()
        self._asks: list[Ask] = []
        self._asks_lock = threading.Lock()
        self._ahead = RowsAhead()

    @classmethod
    def open(cls, url_or_path: str | Path, clock: Clock | None = None) -> Self:
        """Open or create: a path (or `sqlite:///path`) is a file, `postgresql+psycopg2://…` is for several hosts."""
        text = str(url_or_path)
        clock = clock or SystemClock()
        if text.startswith("sqlite:///"):
            text = text.removeprefix("sqlite:///")
        if "://" in text:
            ledger = cls(file=None, url=text, clock=clock)
        else:
            ledger = cls(file=LedgerFile(Path(text)), url="", clock=clock)
        with ledger._lock:
            ledger._connect()
        return ledger

    def meter(self, policy: QuotaPolicy, *, max_wait_seconds: float = 5.0) -> AccountMeter:
        """What a vendor's client asks before each attempt; see `AccountMeter` for how long it may sleep."""
        return AccountMeter(self, policy, max_wait_seconds=max_wait_seconds)

    def noting_meter(self, policy: QuotaPolicy) -> NotingMeter:
        """For the question what the vendor counted: writes down, never refuses."""
        return NotingMeter(self, policy)

    def close(self) -> None:
        with self._lock:
            with suppress(StorageError):  # then it stays spent
                self._give_back()
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------------- decisions

    def acquire(
        self,
        account: str,
        method_class: str,
        windows: Sequence[Window],
        endpoint: str,
        *,
        cost: int = 1,
        max_wait_seconds: float = 2.0,
        keep_free: int = 0,
        work: Spending | None = None,
    ) -> datetime:
        """Write down `cost` requests and return when they may leave, having slept until then: the caller sends at once.

        Args:
            account: from `account_key`.
            method_class: the bucket the vendor counts in.
            windows: all limits of that bucket.
            endpoint: stable label ("GET /api/v1/events"), no ids.
            cost: how many requests the vendor will count.
            max_wait_seconds: longest sleep; a slot further away raises.
            keep_free: leave this many requests of windows longer than a minute to others (the reserve).
            work: what the requests are for, in the request log.

        Raises:
            QuotaExhausted: no slot within `max_wait_seconds`; nothing was written, nothing may be sent before
                `resume_at`.
            StorageError: the ledger cannot be written.
        """
        windows = tuple(windows)
        work = work or Spending()
        label = (account, method_class, windows, endpoint, keep_free, work) if cost == 1 else None
        follows = label is not None and self._ahead.is_to_follow(label)
        if label is not None and not follows and self._ahead.use(label, self._now_us()):
            return self._clock.now()
        ask = ask_of(
            account,
            method_class,
            windows,
            endpoint,
            cost=cost,
            keep_free=keep_free,
            max_wait_seconds=max_wait_seconds,
            work=work,
            label=label,
            follows=follows,
        )
        for _ in range(_LATE_TRIES):
            answer = self._decide(ask)
            leave_at = answer.wall + timedelta(microseconds=answer.wait_us)
            if not answer.is_granted:
                raise exhausted(account, method_class, endpoint, leave_at, answer.windows)
            if answer.strikes:
                self._struck.add((account, method_class))
            if answer.wait_us <= 0 or answer.rows is None:
                return leave_at
            self._clock.sleep(answer.wait_us / MICROSECONDS)
            self._still_allowed(account, method_class, endpoint, windows)
            if self._now_us() - answer.leave_us <= tolerated_us(windows):
                return leave_at
            # Overslept (a busy host, a suspended laptop): others have left meanwhile by the instant written down, and
            # this one would join them. Its row is taken back, for it was not sent.
            ask = ask.again(instead_of=answer.rows)
        return leave_at

    def _decide(self, ask: Ask) -> Answer:
        """Group commit: whoever gets the lock decides for everybody who queued meanwhile, in one transaction."""
        with self._asks_lock:
            self._asks.append(ask)
        with self._lock:
            if not ask.is_settled:
                with self._asks_lock:
                    batch, self._asks = self._asks, []
                self._decide_together(batch)
        if ask.error is not None:
            raise ask.error
        if ask.answer is None:
            raise AssertionError("unreachable")
        return ask.answer

    def _decide_together(self, batch: Sequence[Ask]) -> None:
        synced = any(window.seconds > SYNCED_FROM_SECONDS for ask in batch for window in ask.windows)
        mode: Literal["quick", "durable"] = "durable" if synced else "quick"
        try:
            if self._file is None:
                answers, ahead = self._run_on_core(
                    lambda connection: self._decide_serially(connection, batch), mode=mode
                )
            else:
                answers, ahead = self._run_on_driver(lambda statements: self._decide_each(statements, batch), mode=mode)
        except Exception as error:
            for ask in batch:
                ask.error = error
            return
        last_rows = [answer.rows.last_row for answer in answers if answer.rows is not None]
        if last_rows and self._file is not None:
            self._file.note_last_row(max(last_rows))
        self._ahead.add(ahead)
        for ask, answer in zip(batch, answers, strict=True):
            ask.answer = answer

    def _decide_serially(
        self, connection: sa.Connection, batch: Sequence[Ask]
    ) -> tuple[list[Answer], dict[Label, Ahead]]:
        for account, method_class in sorted({(str(a.row["account"]), str(a.row["method_class"])) for a in batch}):
            self._serialise(connection, account, method_class)
        return self._decide_each(CoreStatements(connection), batch)

    def _decide_each(self, statements: Statements, batch: Sequence[Ask]) -> tuple[list[Answer], dict[Label, Ahead]]:
        """In one transaction. Rows written ahead are for the others of the batch, then for whoever asks next."""
        for unused in self._ahead.take_out(lambda ahead: ahead.rows.stamp_us < self._now_us()):
            statements.take_back(unused)
        ahead: dict[Label, Ahead] = {}
        asking = Counter(ask.label for ask in batch)
        answers: list[Answer] = []
        for ask in batch:
            mine = ahead.get(ask.label) if ask.label is not None else None
            if mine is not None:
                mine.ids.popleft()
                if not mine.ids:
                    del ahead[mine.label]
                answers.append(self._granted_ahead(ask))
            elif ask.label is not None and not ask.follows and self._ahead.use(ask.label, self._now_us()):
                answers.append(self._granted_ahead(ask))
            else:
                answer, written = self._decide_one(statements, ask, asking[ask.label])
                answers.append(answer)
                if written is not None:
                    ahead[written.label] = written
        return answers, ahead

    def _granted_ahead(self, ask: Ask) -> Answer:
        return Answer(self._now_us(), 0, self._clock.now(), ask.windows, is_granted=True)

    def _decide_one(self, statements: Statements, ask: Ask, asking: int) -> tuple[Answer, Ahead | None]:
        now_us, wall = self._now_us(), self._clock.now()
        if ask.instead_of is not None:
            statements.take_back(ask.instead_of)
        facts = statements.facts(ask, now_us)
        learned = facts.limit_in_force(now_us)
        if learned is not None and learned < max(ask.windows, key=by_seconds).limit:
            ask = ask.below(learned)
            facts = statements.facts(ask, now_us)
        leave_us = earliest_us(now_us, ask.windows, facts)
        wait_us = leave_us - now_us
        if wait_us > 0 and ask.follows and ask.label is not None and self._ahead.use(ask.label, self._now_us()):
            return self._granted_ahead(ask), None
        if wait_us > ask.longest_wait_us:
            return Answer(leave_us, wait_us, wall, ask.windows), None
        times, stamp_us = ask.cost, leave_us
        if ask.label is not None and wait_us <= 0:
            times = self._times(statements, ask, now_us, asking)
            if times > 1:
                stamp_us += Allowance.under(ask.windows).hold_us
        ids = statements.write(ask.row | {"ledger_us": stamp_us, "sent_us": to_us(wall) + stamp_us - now_us}, times)
        account, method_class = str(ask.row["account"]), str(ask.row["method_class"])
        rows = Rows(account, method_class, ids[0], ids[-1], stamp_us, now_us)
        answer = Answer(leave_us, wait_us, wall, ask.windows, facts.strikes, is_granted=True, rows=rows)
        if ask.label is None or times <= 1:
            return answer, None
        return answer, Ahead(ask.label, rows, deque(ids[1:]), times)

    def _times(self, statements: Statements, ask: Ask, now_us: int, asking: int) -> int:
        """How many rows to write for a label that may leave now: its own, and some ahead."""
        allowance = Allowance.under(ask.windows)
        if ask.label is None or allowance.most <= 1:
            return 1
        wanted = self._ahead.wanted(ask.label, allowance, now_us, asking)
        if wanted > 1:
            inside = zip(ask.windows, statements.counts(ask, now_us), strict=True)
            free = min(offset(window, cost=1, keep_free=ask.keep_free) + 1 - count for window, count in inside)
            wanted = max(1, min(wanted, free // ROOM_AHEAD))
        self._ahead.note(ask.label, wanted, now_us)
        return wanted

    def _still_allowed(self, account: str, method_class: str, endpoint: str, windows: Sequence[Window]) -> None:
        """After a sleep: somebody else may have met a 429 meanwhile. The slot stays spent, nothing is sent."""
        bucket = {"account": account, "method_class": method_class}
        with self._lock:
            if self._file is None:
                blocked_until_us = self._run_on_core(lambda c: c.execute(BLOCKED_UNTIL, bucket).scalar(), mode="read")
            else:
                # Between the instant written down and the departure: through the driver, one statement is a tenth.
                blocked_until_us = self._run_on_driver(lambda s: s.blocked_until_us(bucket), mode="read")
        blocked_us = int(blocked_until_us or 0) - self._now_us()
        if blocked_us > 0:
            resume_at = self._clock.now() + timedelta(microseconds=blocked_us)
            raise exhausted(account, method_class, endpoint, resume_at, windows)

    def _give_back(self) -> None:
        """All that was written ahead and is not used: whoever counts requests wants those that were sent."""
        if not self._ahead:
            return

        def take_back(connection: sa.Connection) -> None:
            statements = CoreStatements(connection)
            for unused in self._ahead.take_out(lambda _: True):
                statements.take_back(unused)

        self._run_on_core(take_back, mode="quick")

    def _before_transaction(self) -> None:
        self._give_back()

    def _opened_anew(self) -> None:
        self._ahead.clear()

    # -------------------------------------------------------------------------------------------------------- learning

    def learn(
        self,
        account: str,
        method_class: str,
        windows: Sequence[Window],
        *,
        endpoint: str,
        status: int,
        retry_after_seconds: float | None = None,
    ) -> datetime | None:
        """Take in an answer. A 429 blocks the bucket; returns until when (None for any other answer).

        The block lasts `retry_after_seconds` where that is positive and at most a day (or the longest window), else
        the longest window (D2, D3). A 429 that comes after a block was obeyed doubles it, up to an hour: with only
        a per-second limit known, an undocumented longer one is found without hammering. Any other answer below 500
        ends the doubling.
        """
        if status != 429:
            if status < 500 and (account, method_class) in self._struck:
                self._struck.discard((account, method_class))
                self._run(lambda c: self._update_bucket(c, account, method_class, strikes=0), mode="quick")
            return None
        longest_seconds = max(window.span_us for window in windows) / MICROSECONDS
        trusted_seconds = max(_LONGEST_TRUSTED_RETRY_AFTER_SECONDS, longest_seconds)

        def block(connection: sa.Connection) -> int:
            self._serialise(connection, account, method_class)
            now_us = self._now_us()
            known = self._bucket(connection, account, method_class)
            # Several requests in flight meet the same refusal: one strike, not ten.
            new_episode = now_us >= known.blocked_until_us
            seconds = min(longest_seconds * 2**known.strikes, max(longest_seconds, _LONGEST_ESCALATION_SECONDS))
            if retry_after_seconds is not None and 0 < retry_after_seconds <= trusted_seconds:
                seconds = retry_after_seconds
            until_us = max(known.blocked_until_us, now_us + math.ceil(seconds * MICROSECONDS))
            strikes = min(known.strikes + new_episode, 20)
            self._update_bucket(connection, account, method_class, blocked_until_us=until_us, strikes=strikes)
            connection.execute(
                tables.refusals.insert(),
                {
                    "account": account,
                    "method_class": method_class,
                    "ledger_us": now_us,
                    "endpoint": endpoint[:200],
                    "retry_after_seconds": retry_after_seconds,
                },
            )
            return int(until_us - now_us)

        blocked_us = self._run(block, mode="durable")
        self._struck.add((account, method_class))
        until = self._clock.now() + timedelta(microseconds=blocked_us)
        logger.warning("%s answered 429 to %s; no %s request before %s", account, endpoint, method_class, minute(until))
        return until

    def note(self, account: str, method_class: str, endpoint: str, work: Spending | None = None) -> None:
        """Count a request that is sent whatever the windows say: the question how many requests the vendor counted.

        Remembers when it was asked, for `is_in_doubt` and `adopt_usage`.
        """
        spent = work or Spending()
        row: dict[str, object] = {"account": account, "method_class": method_class, "kind": "sent"}
        row |= {"endpoint": endpoint[:200], "vendor": account.partition(":")[0]}
        row |= {"stream": spent.stream, "site": spent.site, "run_id": spent.run_id}

        def write(connection: sa.Connection) -> None:
            self._serialise(connection, account, method_class)
            now_us = self._now_us()
            stamped = row | {"ledger_us": now_us, "sent_us": to_us(self._clock.now())}
            connection.execute(INSERT_REQUEST, stamped)
            self._update_report(connection, account, method_class, asked_us=now_us)

        self._run(write, mode="durable")

    def is_in_doubt(self, policy: QuotaPolicy, method_class: str) -> bool:
        """Whether the vendor's own count would change ours, and nobody asked for it in the last ten minutes.

        It would after a loss, after a 429 although we counted room, and while requests that somebody else sent keep
        ours waiting.
        """
        window = max(policy.windows_for(method_class), key=by_seconds)

        def read(connection: sa.Connection) -> bool:
            now_us = self._now_us()
            report = self._report(connection, policy.account, method_class)
            if report is not None and report.asked_us > now_us - _ASK_AGAIN_AFTER_SECONDS * MICROSECONDS:
                return False
            binds = {"account": policy.account, "method_class": method_class, "offset_0": window.limit - 1}
            facts = self._facts(connection, 1, binds | since_binds(now_us, (window,)))
            if facts.lost_us is not None and facts.trusted_us < facts.lost_us:
                return facts.lost_us + window.span_us > now_us
            since_us = now_us - window.span_us
            own, foreign = self._counted(connection, policy.account, method_class, since_us, now_us)
            refusal = self._newest_refusal(connection, policy.account, method_class, since_us)
            is_surprising = refusal is not None and refusal.ledger_us > facts.trusted_us and own < window.limit
            return is_surprising or (foreign > 0 and earliest_us(now_us, (window,), facts) > now_us)

        return self._run(read, mode="read")

    def adopt_usage(self, account: str, method_class: str, used: int, *, possible_limits: Sequence[int] = ()) -> None:
        """Believe the vendor's own count of its current (longest declared) window.

        More than we counted when it was asked (`note`; else now): the difference is somebody else's and is counted as
        sent now. A loss or a guessed block ends, because the true figure is known. Fewer than we counted changes
        nothing: the vendor's window may be a fixed one that has just begun, and a sliding count is safe for both.

        A 429 since the last such count although this one is below the limit: the vendor's limit is another one than
        ours. The largest of `possible_limits` that the count reaches is taken for it, for a day or until a later window
        holds more; where there is none, or the 429 may have been about a burst, the block stays.
        """
        if used < 0:
            raise ValueError("a vendor cannot have counted fewer than 0 requests")

        def adopt(connection: sa.Connection) -> None:
            self._serialise(connection, account, method_class)
            now_us = self._now_us()
            declared = self._declared(connection, account)
            windows = declared.get(method_class) or declared.get("*", ())
            if not windows:
                raise ConfigurationError(f"no window is declared for {method_class} of {account}")
            learned = self._learned(connection, account, now_us)
            if method_class in learned:
                windows = with_limit(windows, learned[method_class])
            window = max(windows, key=by_seconds)
            since_us = now_us - window.span_us
            known = self._bucket(connection, account, method_class)
            report = self._report(connection, account, method_class)
            refusal = self._newest_refusal(connection, account, method_class, since_us)
            is_unexplained = refusal is not None and refusal.ledger_us > known.trusted_us and used < window.limit
            limit = window.limit
            if is_unexplained and _speaks_of_hours(refusal, known.strikes):
                limit = max((n for n in possible_limits if 1 <= n <= used), default=window.limit)
            if limit < window.limit:
                self._update_report(connection, account, method_class, learned_limit=limit, learned_us=now_us)
                logger.warning(
                    "%s refuses after %d requests: its limit is taken to be %d in %g s, not %d, for a day; "
                    "set the plan in sites.yaml",
                    account,
                    used,
                    limit,
                    window.seconds,
                    window.limit,
                )
            elif _is_outgrown(report, used, since_us):
                self._update_report(connection, account, method_class, learned_limit=None)
            asked_us = now_us
            if report is not None and report.asked_us > now_us - _ASK_AGAIN_AFTER_SECONDS * MICROSECONDS:
                asked_us = report.asked_us
            self._replace_foreign(connection, account, method_class, since_us, asked_us, now_us, min(used, limit))
            is_stated = refusal is not None and (refusal.retry_after_seconds or 0.0) > 0
            stays = used >= limit or is_unexplained or is_stated
            self._update_bucket(
                connection,
                account,
                method_class,
                trusted_us=now_us,
                blocked_until_us=known.blocked_until_us if stays else 0,
                strikes=known.strikes if is_unexplained else 0,
            )

        self._run(adopt, mode="durable")

    def _replace_foreign(
        self,
        connection: sa.Connection,
        account: str,
        method_class: str,
        since_us: int,
        asked_us: int,
        now_us: int,
        used: int,
    ) -> None:
        """What the vendor counted and we did not, as rows of now; those adopted before are part of it."""
        mine = (tables.requests.c.account == account) & (tables.requests.c.method_class == method_class)
        inside = mine & (tables.requests.c.ledger_us > since_us)
        connection.execute(tables.requests.delete().where(inside & (tables.requests.c.kind == "adopted")))
        own, _ = self._counted(connection, account, method_class, since_us, asked_us)
        if used > own:
            row = {"account": account, "method_class": method_class, "ledger_us": now_us, "kind": "adopted"}
            row |= {"sent_us": to_us(self._clock.now()), "endpoint": "", "vendor": account.partition(":")[0]}
            row |= {"stream": "", "site": "", "run_id": ""}
            connection.execute(INSERT_REQUEST, [row] * (used - own))

    def declare(self, policy: QuotaPolicy) -> None:
        """Keep a policy's limits in the ledger, so that status screens know them without building a vendor."""
        rows = [
            {
                "account": policy.account,
                "method_class": method_class,
                "seconds": window.seconds,
                "request_limit": window.limit,
                "guard_seconds": window.guard_seconds,
            }
            for method_class, windows in policy.windows.items()
            for window in windows
        ]

        def write(connection: sa.Connection) -> None:
            self._serialise(connection, policy.account, "windows")
            connection.execute(tables.windows.delete().where(tables.windows.c.account == policy.account))
            connection.execute(tables.windows.insert(), rows)

        def said(declared: Mapping[str, tuple[Window, ...]]) -> set[tuple[str, float, int, float]]:
            return {(name, w.seconds, w.limit, w.guard_seconds) for name, ws in declared.items() for w in ws}

        if said(policy.windows) != said(self._run(lambda c: self._declared(c, policy.account), mode="read")):
            self._run(write, mode="durable")

    def _bucket(self, connection: sa.Connection, account: str, method_class: str) -> Any:
        mine = (tables.buckets.c.account == account) & (tables.buckets.c.method_class == method_class)
        found = connection.execute(sa.select(tables.buckets).where(mine)).one_or_none()
        if found is None:
            connection.execute(tables.buckets.insert(), {"account": account, "method_class": method_class})
            found = connection.execute(sa.select(tables.buckets).where(mine)).one()
        return found

    @staticmethod
    def _update_bucket(connection: sa.Connection, account: str, method_class: str, **values: int) -> None:
        mine = (tables.buckets.c.account == account) & (tables.buckets.c.method_class == method_class)
        connection.execute(tables.buckets.update().where(mine).values(**values))

    @staticmethod
    def _counted(
        connection: sa.Connection, account: str, method_class: str, since_us: int, until_us: int
    ) -> tuple[int, int]:
        """Requests after `since_us`, to `until_us`: (sent by us, sent by somebody else)."""
        query = (
            sa.select(tables.requests.c.kind, sa.func.count())
            .where(
                tables.requests.c.account == account,
                tables.requests.c.method_class == method_class,
                tables.requests.c.ledger_us > since_us,
                tables.requests.c.ledger_us <= until_us,
            )
            .group_by(tables.requests.c.kind)
        )
        found = {str(kind): int(number) for kind, number in connection.execute(query)}
        return found.get("sent", 0), found.get("adopted", 0)

    @staticmethod
    def _newest_refusal(connection: sa.Connection, account: str, method_class: str, since_us: int) -> Any:
        query = sa.select(tables.refusals).where(
            tables.refusals.c.account == account,
            tables.refusals.c.method_class == method_class,
            tables.refusals.c.ledger_us > since_us,
        )
        return connection.execute(query.order_by(tables.refusals.c.id.desc()).limit(1)).one_or_none()

    @staticmethod
    def _report(connection: sa.Connection, account: str, method_class: str) -> Any:
        mine = (tables.reports.c.account == account) & (tables.reports.c.method_class == method_class)
        return connection.execute(sa.select(tables.reports).where(mine)).one_or_none()

    def _update_report(self, connection: sa.Connection, account: str, method_class: str, **values: int | None) -> None:
        mine = (tables.reports.c.account == account) & (tables.reports.c.method_class == method_class)
        if self._report(connection, account, method_class) is None:
            connection.execute(tables.reports.insert(), {"account": account, "method_class": method_class} | values)
        else:
            connection.execute(tables.reports.update().where(mine).values(**values))

    # ------------------------------------------------------------------------------------------------------- deferrals

    def defer(
        self,
        *,
        vendor: str,
        stream: str,
        site: str,
        first_day: date,
        last_day: date,
        resume_at: datetime,
        reason: str,
        landed_records: int = 0,
    ) -> None:
        """Remember work to resume. Replaces whatever was deferred for the same days of the same stream and site."""
        if last_day < first_day:
            raise ValueError(f"the deferred range ends before it starts: {first_day} to {last_day}")
        row = {"vendor": vendor, "stream": stream, "site": site, "first_day": first_day, "last_day": last_day}
        row |= {"resume_us": to_us(resume_at), "reason": reason[:400], "landed_records": landed_records}
        row |= {"recorded_us": to_us(self._clock.now())}

        def write(connection: sa.Connection) -> None:
            self._serialise(connection, vendor, "deferrals")
            self._cut_out(connection, vendor, stream, site, first_day, last_day)
            connection.execute(tables.deferrals.insert(), row)

        self._run(write, mode="durable")

    def clear(
        self, *, vendor: str, stream: str, site: str, first_day: date | None = None, last_day: date | None = None
    ) -> None:
        """Forget deferrals for days that are done (no days: all). A longer deferral keeps its other days."""

        def write(connection: sa.Connection) -> None:
            self._serialise(connection, vendor, "deferrals")
            self._cut_out(connection, vendor, stream, site, first_day or date.min, last_day or date.max)

        self._run(write, mode="durable")

    def deferrals(self) -> tuple[Deferral, ...]:
        """All deferred work, newest day first."""
        return self._run(lambda c: tuple(_read_deferrals(c, sa.true())), mode="read")

    def due(self, now: datetime) -> tuple[Deferral, ...]:
        """Deferred work whose time has come, newest day first (DESIGN section 3)."""
        return self._run(lambda c: tuple(_read_deferrals(c, tables.deferrals.c.resume_us <= to_us(now))), mode="read")

    @staticmethod
    def _cut_out(
        connection: sa.Connection, vendor: str, stream: str, site: str, first_day: date, last_day: date
    ) -> None:
        touched = (
            (tables.deferrals.c.vendor == vendor)
            & (tables.deferrals.c.stream == stream)
            & (tables.deferrals.c.site == site)
            & (tables.deferrals.c.first_day <= last_day)
            & (tables.deferrals.c.last_day >= first_day)
        )
        rows = [dict(row) for row in connection.execute(sa.select(tables.deferrals).where(touched)).mappings()]
        connection.execute(tables.deferrals.delete().where(touched))
        for row in rows:
            if row["first_day"] < first_day:
                connection.execute(tables.deferrals.insert(), row | {"last_day": first_day - timedelta(days=1)})
            if row["last_day"] > last_day:
                connection.execute(tables.deferrals.insert(), row | {"first_day": last_day + timedelta(days=1)})


def _read_deferrals(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> Iterator[Deferral]:
    order = (
        tables.deferrals.c.last_day.desc(),
        tables.deferrals.c.vendor,
        tables.deferrals.c.stream,
        tables.deferrals.c.site,
    )
    for row in connection.execute(sa.select(tables.deferrals).where(condition).order_by(*order)):
        yield Deferral(
            vendor=row.vendor,
            stream=row.stream,
            site=row.site,
            first_day=row.first_day,
            last_day=row.last_day,
            resume_at=from_us(row.resume_us),
            reason=row.reason,
            landed_records=row.landed_records,
            recorded_at=from_us(row.recorded_us),
        )


def _speaks_of_hours(refusal: Any, strikes: int) -> bool:
    """Whether a 429 is about a long window: it says to wait longer than a minute, or came again after a wait. A hidden
    limit of bursts must not be taken for a smaller plan.
    """
    return (refusal.retry_after_seconds or 0.0) > SYNCED_FROM_SECONDS or strikes > 1


def _is_outgrown(report: Any, used: int, since_us: int) -> bool:
    """Whether a whole window after a limit was learned the vendor counts more than it."""
    if report is None or report.learned_limit is None:
        return False
    return bool(report.learned_us < since_us and used > report.learned_limit)


# ------------------------------------------------------------------------------------------------------------ meter


@dataclass(frozen=True)
class AccountMeter:
    """The `Meter` of `core.http` for one vendor account: asks the ledger before each attempt, tells it each answer.

    Args:
        ledger, policy: where requests are counted, and against what.
        max_wait_seconds: longest sleep for a slot; long enough that ten connections share five requests a second,
            and short enough that an hourly limit always raises QuotaExhausted instead.
        work: label for requests made outside a `spending(...)` block.
    """

    ledger: Ledger
    policy: QuotaPolicy
    max_wait_seconds: float = 5.0
    work: Spending = field(default_factory=Spending)

    def __post_init__(self) -> None:
        self.ledger.declare(self.policy)

    def labelled(self, work: Spending) -> AccountMeter:
        """The same meter with another default label."""
        return replace(self, work=work)

    def acquire(self, *, method: str, endpoint: str) -> None:
        """Before every attempt. May sleep up to `max_wait_seconds`; raises QuotaExhausted, StorageError."""
        method_class = self.policy.method_class(method)
        work = spending_now() or self.work
        with waiting():
            self.ledger.acquire(
                self.policy.account,
                method_class,
                self.policy.windows_for(method_class),
                endpoint,
                max_wait_seconds=self.max_wait_seconds,
                keep_free=self.policy.reserve if work.backfill else 0,
                work=work,
            )

    def learn(self, *, method: str, endpoint: str, status: int, retry_after_seconds: float | None) -> None:
        """After every answer."""
        method_class = self.policy.method_class(method)
        self.ledger.learn(
            self.policy.account,
            method_class,
            self.policy.windows_for(method_class),
            endpoint=endpoint,
            status=status,
            retry_after_seconds=retry_after_seconds,
        )


@dataclass(frozen=True)
class NotingMeter:
    """The `Meter` of the one question that is asked although no window has room: what the vendor itself has counted.

    Written down like every request, because the vendor may count it; an answer 429 is learned as always.
    """

    ledger: Ledger
    policy: QuotaPolicy
    work: Spending = field(default_factory=lambda: Spending(stream="usage"))

    def __post_init__(self) -> None:
        self.ledger.declare(self.policy)

    def acquire(self, *, method: str, endpoint: str) -> None:
        """Before every attempt. Raises StorageError."""
        around = spending_now() or Spending()
        work = replace(self.work, site=around.site, run_id=around.run_id)
        self.ledger.note(self.policy.account, self.policy.method_class(method), endpoint, work)

    def learn(self, *, method: str, endpoint: str, status: int, retry_after_seconds: float | None) -> None:
        """After every answer."""
        meter = AccountMeter(self.ledger, self.policy)
        meter.learn(method=method, endpoint=endpoint, status=status, retry_after_seconds=retry_after_seconds)
