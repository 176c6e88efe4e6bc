"""The ledger on PostgreSQL: the same promises as in an SQLite file, with a server between the processes.

The behaviour tests of `test_quota` run here again, by import, with `path` being a server's URL. Loss (D7) has no
meaning here: whoever loses the server loses it for everybody, and its backups are its owner's.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.errors import QuotaExhausted, StorageError
from analytics_platform.core.quota import AccountMeter, Ledger, QuotaPolicy, Window
from analytics_platform_tests.core.postgres import PostgresServer, running_server, unavailable
from analytics_platform_tests.core.test_quota import (  # noqa: F401  (collected here with this module's `path`)
    ACCOUNT,
    ENDPOINT,
    HOURLY,
    START,
    clock,
    go,
    most_in_any_window,
    sent_by,
    spend,
    start,
    test_a_429_blocks_until_it_says_or_the_window_ends,
    test_a_backfill_leaves_the_reserve_to_today,
    test_a_call_that_counts_several_times,
    test_a_lowered_limit_slows_and_never_bursts,
    test_a_running_meter_obeys_a_limit_learned_by_another_process,
    test_a_slot_further_than_the_longest_wait_is_not_taken,
    test_accounts_and_method_classes_are_separate,
    test_deferred_work_comes_due_newest_day_first,
    test_four_processes_share_twenty_an_hour,
    test_hourly_limit_raises_with_the_instant_a_slot_is_free,
    test_kameleoon_style_policy_gives_each_verb_its_own_bucket,
    test_one_bucket_for_all_verbs,
    test_per_second_limit_waits_in_line,
    test_repeated_429s_find_an_unknown_longer_window_without_hammering,
    test_requests_are_counted_by_what_they_were_for,
    test_the_status_screen,
    test_the_tightest_of_several_windows_decides,
    test_threads_share_a_limit,
    test_usage_above_ours_is_adopted_and_below_ours_is_not,
)

pytestmark = pytest.mark.skipif(bool(unavailable()), reason=unavailable())


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running_server() as running:
        yield running


@pytest.fixture
def path(server: PostgresServer, request: pytest.FixtureRequest) -> str:
    """The URL of an empty schema of this test alone."""
    schema = f"t{abs(hash(request.node.nodeid)):x}"
    engine = sa.create_engine(server.url())
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
    engine.dispose()
    return server.url(schema)


def stamps(url: str) -> tuple[list[float], float]:
    """Every request's instant in seconds, and the one time line's offset."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT ledger_us FROM requests ORDER BY ledger_us").scalars().all()
        offset_us = connection.exec_driver_sql("SELECT offset_us FROM timelines").scalar_one()
    engine.dispose()
    return [us / 1e6 for us in found], offset_us / 1e6


def test_four_processes_share_a_limit_a_second(path: str) -> None:
    processes = [start(path, ACCOUNT, 10, "20/0.5") for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        go(process)
    sent = [instant for process in processes for instant in sent_by(process, process.communicate(timeout=60)[0])]
    assert len(sent) == 40
    written, offset = stamps(path)
    assert most_in_any_window(written, 0.5) == 20
    assert all(left + offset >= stamp for left, stamp in zip(sorted(sent), written, strict=True))


def test_a_killed_process_keeps_what_it_spent(path: str) -> None:
    """D5: kill -9 in the middle of spending; the others go on at once, spent stays spent."""
    victim = start(path, ACCOUNT, 1000, "2000/3600")
    assert victim.stdout is not None
    for _ in range(2):
        if victim.stdout.readline() == "ready\n":
            go(victim)
    victim.kill()
    sent = victim.communicate()[0].count("sent") + 1
    with closing(Ledger.open(path)) as ledger:
        spent = sum(ledger.requests_by_endpoint(ACCOUNT, START - timedelta(days=9999)).values())
        # The last one may be committed and not yet told, and others were written ahead.
        assert sent <= spent <= sent + 1 + 32
        spend(ledger, 1, windows=(Window(2000, 3600),))


DECLARE = textwrap.dedent(
    """
    import sys
    from analytics_platform.core.quota import AccountMeter, Ledger, QuotaPolicy, Window
    url, account = sys.argv[1:]
    print("ready", flush=True)
    for line in sys.stdin:
        ledger = Ledger.open(url)
        for limit in range(20, 40):
            AccountMeter(ledger, QuotaPolicy(account=account, windows={"any": (Window(limit, 3600),)}))
        ledger.close()
    """
)


def test_four_processes_declare_a_limit_at_once(path: str) -> None:
    """A daemon and its runs start together after a plan was changed: nobody's declaration may fail."""
    with closing(Ledger.open(path)):
        pass
    command = [sys.executable, "-c", DECLARE, path, ACCOUNT]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        go(process)
    failed = [error for process in processes if (error := process.communicate("", timeout=60)[1])]
    assert failed == []
    with closing(Ledger.open(path)) as ledger:
        assert [usage.limit for usage in ledger.usage(ACCOUNT)] == [39]


HOLD = textwrap.dedent(
    """
    import sys, time
    import psycopg2
    connection = psycopg2.connect(sys.argv[1])
    cursor = connection.cursor()
    cursor.execute("LOCK TABLE " + sys.argv[2] + ".requests IN ACCESS EXCLUSIVE MODE")
    cursor.execute("DELETE FROM " + sys.argv[2] + ".requests")
    print("held", flush=True)
    time.sleep(60)
    """
)


def test_a_holder_killed_inside_its_transaction_blocks_nobody(path: str, server: PostgresServer) -> None:
    """D5, on a server: its connection ends with it, and so does what it had not committed."""
    with closing(Ledger.open(path)) as ledger:
        spend(ledger, 3)
        engine = sa.create_engine(path)
        with engine.connect() as connection:
            schema = str(connection.exec_driver_sql("SELECT current_schema()").scalar_one())
        engine.dispose()
        command = [sys.executable, "-c", HOLD, server.dsn(), schema]
        holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        timer = threading.Timer(0.2, holder.kill)
        timer.start()
        spend(ledger, 1)  # waits until the holder dies
        timer.join()
        holder.communicate()
        assert sum(ledger.requests_by_endpoint(ACCOUNT, START - timedelta(days=9999)).values()) == 4


@pytest.mark.parametrize("wrong_by", [timedelta(minutes=-7), timedelta(hours=2), timedelta(hours=-2)])
def test_several_hosts_share_a_limit_whatever_their_clocks_say(path: str, wrong_by: timedelta) -> None:
    """D6 between hosts: a wall clock that is wrong neither frees a slot early nor keeps its host from its share."""
    one, other = ManualClock(START), ManualClock(START + wrong_by)
    with closing(Ledger.open(path, one)) as here:
        spend(here, 10)
        with closing(Ledger.open(path, other)) as there:
            sent = 0
            for _ in range(15):
                with suppress(QuotaExhausted):
                    spend(there, 1)
                    sent += 1
            assert sent == 10
            for ledger in (here, there):
                with pytest.raises(QuotaExhausted):
                    spend(ledger, 1)
            one.advance(3602)
            other.advance(3602)
            for ledger in (here, there) * 10:
                spend(ledger, 1)
            for ledger in (here, there):
                with pytest.raises(QuotaExhausted):
                    spend(ledger, 1)


def test_the_vendors_figure_is_adopted(path: str) -> None:
    with closing(Ledger.open(path)) as ledger:
        AccountMeter(ledger, QuotaPolicy(account=ACCOUNT, windows={"any": HOURLY}))
        spend(ledger, 5)
        ledger.adopt_usage(ACCOUNT, "any", 12)
        assert ledger.usage(ACCOUNT)[0].remaining == 8


def test_the_report_of_the_quota_assets_can_be_read(path: str) -> None:
    with closing(Ledger.open(path)) as ledger:
        policy = QuotaPolicy(account=ACCOUNT, windows={"any": HOURLY})
        AccountMeter(ledger, policy)
        spend(ledger, 3)
        ledger.learn(ACCOUNT, "any", HOURLY, endpoint=ENDPOINT, status=429, retry_after_seconds=60)
        since = datetime.now(UTC) - timedelta(hours=2)
        assert sum(ledger.requests_by_hour([ACCOUNT], since).values()) == 3
        assert ledger.refused([ACCOUNT], since) == 1
        assert len(ledger.departures(ACCOUNT, "any", HOURLY)) == 20  # a block counts as a full window
        assert [usage.used for usage in ledger.usage_of(policy, "any")] == [3]


# The last one: it takes the server away.
def test_a_server_that_died_sends_nothing_and_forgets_nothing(path: str, server: PostgresServer) -> None:
    with closing(Ledger.open(path)) as ledger:
        spend(ledger, 7)
        server.control("-m", "immediate", "stop")
        with pytest.raises(StorageError):
            spend(ledger, 1)
        server.start()
        spend(ledger, 13)
        with pytest.raises(QuotaExhausted):
            spend(ledger, 1)
