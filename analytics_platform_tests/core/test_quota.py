"""The ledger never lets more requests leave than the limit: any window, any process, any clock, any crash."""

from __future__ import annotations

import os
import queue
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from analytics_platform.core.clock import ManualClock
from analytics_platform.core.errors import ConfigurationError, QuotaExhausted, StorageError
from analytics_platform.core.quota import (
    AccountMeter,
    Ledger,
    QuotaPolicy,
    Spending,
    Window,
    account_key,
    per_minute_windows,
    spending,
)

START = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
HOURLY = (Window(20, 3600),)
PER_SECOND = (Window(5, 1),)
ACCOUNT = account_key("smartlook", "token-of-a-test")
ENDPOINT = "POST /api/v1/sessions/search"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "ledger.sqlite3"


def spend(ledger: Ledger, times: int, *, windows: tuple[Window, ...] = HOURLY, **options: object) -> list[datetime]:
    return [ledger.acquire(ACCOUNT, "any", windows, ENDPOINT, **options) for _ in range(times)]  # type: ignore[arg-type]


def most_in_any_window(instants: list[float], seconds: float) -> int:
    """The largest number of instants in any half-open window of `seconds` (the strictest sliding vendor)."""
    ordered, most, first = sorted(instants), 0, 0
    for last, instant in enumerate(ordered):
        while ordered[first] <= instant - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


# --------------------------------------------------------------------------------------------------------- one process


def test_hourly_limit_raises_with_the_instant_a_slot_is_free(path: Path, clock: ManualClock) -> None:
    with closing(Ledger.open(path, clock)) as ledger:
        spend(ledger, 1)
        clock.advance(60)
        spend(ledger, 19)
        with pytest.raises(QuotaExhausted) as refused:
            spend(ledger, 1)
        # The first request of the window leaves it one hour and the guard of two seconds after it was sent.
        assert refused.value.resume_at == START + timedelta(seconds=3602)
        assert refused.value.where.vendor == "smartlook"
        assert refused.value.where.endpoint == ENDPOINT
        assert clock.slept == ()
        clock.advance(3542)
        spend(ledger, 1)
        with pytest.raises(QuotaExhausted):
            spend(ledger, 1)


def test_per_second_limit_waits_in_line(path: Path, clock: ManualClock) -> None:
    with closing(Ledger.open(path, clock)) as ledger:
        sent = spend(ledger, 12, windows=PER_SECOND)
    seconds = [(instant - START).total_seconds() for instant in sent]
    assert seconds == pytest.approx([0] * 5 + [1.05] * 5 + [2.1] * 2)
    assert most_in_any_window(seconds, 1.0) == 5


def test_a_slot_further_than_the_longest_wait_is_not_taken(path: Path, clock: ManualClock) -> None:
    with closing(Ledger.open(path, clock)) as ledger:
        spend(ledger, 5, windows=PER_SECOND)
        with pytest.raises(QuotaExhausted) as refused:
            spend(ledger, 1, windows=PER_SECOND, max_wait_seconds=0.5)
        assert refused.value.resume_at == START + timedelta(seconds=1.05)
        assert sum(ledger.requests_by_endpoint(ACCOUNT, START).values()) == 5


def test_the_tightest_of_several_windows_decides(path: Path, clock: ManualClock) -> None:
    windows = (Window(2, 1), Window(3, 3600))
    with closing(Ledger.open(path, clock)) as ledger:
        spend(ledger, 3, windows=windows)
        assert clock.slept == pytest.approx((1.05,))
        with pytest.raises(QuotaExhausted):
            spend(ledger, 1, windows=windows)


def test_a_lowered_limit_slows_and_never_bursts(path: Path, clock: ManualClock) -> None:
    with closing(Ledger.open(path, clock)) as ledger:
        spend(ledger, 60, windows=(Window(100, 3600),))
        clock.advance(3000)
        with pytest.raises(QuotaExhausted) as refused:
            spend(ledger, 1)
        assert refused.value.resume_at == START + timedelta(seconds=3602)


def test_a_call_that_counts_several_times(path: Path, clock: ManualClock) -> None:
    with closing(Ledger.open(path, clock)) as ledger:
        spend(ledger, 1, cost=18)
        with pytest.raises(QuotaExhausted):
            spend(ledger, 1, cost=3)
        spend(ledger, 1, cost=2)
        with pytest.raises(QuotaExhausted):
            spend(ledger, 1)
        with pytest.raises(ConfigurationError):
            spend(ledger, 1, cost=21)


def test_accounts_and_method_classes_are_separate(path: Path, clock: ManualClock) -> None:
    with closing(Ledger.open(path, clock)) as ledger:
        one = (Window(1, 3600),)
        for account in (account_key("v", "a"), account_key("v", "b")):
            for method_class in ("GET", "POST"):
                ledger.acquire(account, method_class, one, ENDPOINT)
                with pytest.raises(QuotaExhausted):
                    ledger.acquire(account, method_class, one, ENDPOINT)


def test_the_account_name_is_stable_and_hides_the_credential() -> None:
    secret = "s3cr3t-token-value"
    assert account_key("smartlook", secret) == account_key("smartlook", secret)
    assert account_key("smartlook", secret) != account_key("inspectlet", secret).replace("inspectlet", "smartlook")
    assert secret not in account_key("smartlook", secret)


def resume_at_or_sent(ledger: Ledger, windows: tuple[Window, ...], *, max_wait_seconds: float) -> datetime | None:
    try:
        ledger.acquire(ACCOUNT, "any", windows, ENDPOINT, max_wait_seconds=max_wait_seconds)
    except QuotaExhausted as refused:
        return refused.resume_at or datetime.max.replace(tzinfo=UTC)
    return None


@given(
    limit=st.one_of(st.integers(1, 6), st.integers(120, 400)),
    seconds=st.sampled_from([0.5, 1.0, 60.0, 3600.0]),
    second_limit=st.one_of(st.integers(1, 12), st.integers(120, 600)),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["send", "send", "send", "burst", "burst", "advance", "jump", "reopen", "reboot"]),
            st.floats(0, 1.3),
        ),
        max_size=40,
    ),
)
@example(limit=1, seconds=60.0, second_limit=1, steps=[("send", 0), ("jump", 1.3), ("reboot", 0), ("send", 0)])
@example(
    limit=3, seconds=1.0, second_limit=3, steps=[("jump", 0), ("burst", 1), ("reboot", 0), ("jump", 1.3), ("burst", 1)]
)
@example(
    limit=240,
    seconds=60.0,
    second_limit=600,
    steps=[("burst", 1.0), ("advance", 0.7), ("burst", 1), ("burst", 1), ("burst", 1), ("burst", 1)],
)
@example(
    limit=120, seconds=1.0, second_limit=600, steps=[("burst", 0.02)] * 10 + [("advance", 0.99)] + [("burst", 1.0)] * 3
)
@settings(max_examples=40, deadline=None)
def test_no_window_is_ever_exceeded_whatever_the_clock_does(
    tmp_path_factory: pytest.TempPathFactory,
    limit: int,
    seconds: float,
    second_limit: int,
    steps: list[tuple[str, float]],
) -> None:
    """D6: the wall clock jumps both ways at any time, also while the machine is off; processes, boots come and go."""
    clock = ManualClock(START)
    windows = (Window(limit, seconds), Window(second_limit, 3 * seconds))
    longest_seconds = max(window.span_us for window in windows) / 1e6
    path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite3"
    sent: list[float] = []
    booted_at = 0.0  # true time: what the monotonic readings of all boots add up to

    def send() -> None:
        resume_at = resume_at_or_sent(ledger, windows, max_wait_seconds=0.3 * seconds)
        if resume_at is None:
            sent.append(booted_at + clock.monotonic())
        else:
            # However wrong the wall clock was, nobody waits longer than the longest window, and a row written ahead.
            assert timedelta(0) < resume_at - clock.now() <= timedelta(seconds=longest_seconds + 0.251)

    ledger = Ledger.open(path, clock)
    for action, amount in steps:
        if action == "send":
            send()
        elif action == "burst":
            for _ in range(100):
                clock.advance(0.0001 * amount * seconds)
                send()
        elif action == "advance":
            clock.advance(amount * seconds)
        elif action == "jump":
            clock.jump((amount - 0.65) * 4 * seconds)
        elif action == "reopen":
            ledger.close()
            ledger = Ledger.open(path, clock)
        else:
            ledger.close()
            off_seconds = amount * seconds
            booted_at += clock.monotonic() + off_seconds
            clock.reboot(off_seconds=off_seconds)
            ledger = Ledger.open(path, clock)
    ledger.close()
    for window in windows:
        assert most_in_any_window(sent, window.seconds) <= window.limit


@given(latencies=st.lists(st.floats(0, 0.5), min_size=20, max_size=60))
@settings(max_examples=20, deadline=None)
def test_jitter_on_the_way_is_covered_by_the_guard(
    tmp_path_factory: pytest.TempPathFactory, latencies: list[float]
) -> None:
    """D8: 0-500 ms at 5 a second; arrivals, not sends, are what the vendor counts."""
    clock = ManualClock(START)
    with closing(Ledger.open(tmp_path_factory.mktemp("ledger") / "l.sqlite3", clock)) as ledger:
        windows = (Window(5, 1, guard_seconds=0.5),)
        arrivals = [
            (ledger.acquire(ACCOUNT, "GET", windows, ENDPOINT) - START).total_seconds() + latency
            for latency in latencies
        ]
    assert most_in_any_window(arrivals, 1.0) <= 5


def test_threads_share_a_limit(path: Path, clock: ManualClock) -> None:
    results: list[bool] = []

    def work(ledger: Ledger) -> None:
        for _ in range(10):
            try:
                spend(ledger, 1)
            except QuotaExhausted:
                results.append(False)
            else:
                results.append(True)

    with closing(Ledger.open(path, clock)) as ledger:
        threads = [threading.Thread(target=work, args=(ledger,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (results.count(True), results.count(False)) == (20, 60)


# ----------------------------------------------------------------------------------------------------------- processes

HAMMER = textwrap.dedent(
    """
    import sys, time
    from analytics_platform.core.errors import QuotaExhausted
    from analytics_platform.core.quota import Ledger, Window
    path, account, tries, windows = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4].split("/")
    windows = (Window(int(windows[0]), float(windows[1])),)
    ledger = Ledger.open(path)
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(tries):
        try:
            ledger.acquire(account, "any", windows, "GET /x", max_wait_seconds=2)
            print("sent", time.monotonic(), flush=True)
        except QuotaExhausted:
            print("no", flush=True)
    """
)


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HAMMER, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def sent_by(process: subprocess.Popen[str], output: str) -> list[float]:
    assert process.returncode == 0
    return [float(line.split()[1]) for line in output.splitlines() if line.startswith("sent")]


def test_four_processes_share_twenty_an_hour(path: Path) -> None:
    """D4: the figure of M21, 20 of 20."""
    processes = [start(path, ACCOUNT, 50, "20/3600") for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        go(process)
    sent = [instant for process in processes for instant in sent_by(process, process.communicate(timeout=60)[0])]
    assert len(sent) == 20


def test_four_processes_share_a_limit_a_second(path: Path) -> None:
    processes = [start(path, ACCOUNT, 15, "20/0.5") for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        go(process)
    sent = [instant for process in processes for instant in sent_by(process, process.communicate(timeout=60)[0])]
    assert len(sent) == 60
    with closing(sqlite3.connect(path)) as connection:
        stamps = [us / 1e6 for (us,) in connection.execute("SELECT ledger_us FROM requests ORDER BY ledger_us")]
        ((offset_us,),) = connection.execute("SELECT offset_us FROM timelines")  # one boot, one time line
    assert most_in_any_window(stamps, 0.5) == 20
    # A busy machine may send late, never early.
    assert all(left + offset_us / 1e6 >= stamp for left, stamp in zip(sorted(sent), stamps, strict=True))


def test_killed_processes_keep_what_they_spent(path: Path) -> None:
    """D5: kill -9 at any moment; spent stays spent, the others go on at once."""
    sent = 0
    for round_number in range(6):
        victim = start(path, ACCOUNT, 1000, "40/3600")
        assert victim.stdout is not None
        victim.stdout.readline()
        go(victim)
        for _ in range(2 + round_number):
            sent += victim.stdout.readline().startswith("sent")
        victim.kill()
        sent += victim.communicate(timeout=30)[0].count("sent")
        assert victim.returncode == -signal.SIGKILL
    survivor = start(path, ACCOUNT, 60, "40/3600")
    output, _ = survivor.communicate("go\n", timeout=30)
    assert sent + output.count("sent") <= 40
    with closing(Ledger.open(path)) as ledger:
        assert sum(ledger.requests_by_endpoint(ACCOUNT, START).values()) == 40


def test_a_holder_killed_inside_its_transaction_blocks_nobody(path: Path, clock: ManualClock) -> None:
    with closing(Ledger.open(path, clock)) as ledger:
        spend(ledger, 3)
        holder = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import sqlite3, sys, time\n"
                "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
                "c.execute('BEGIN IMMEDIATE')\n"
                "c.execute('DELETE FROM requests')\n"
                "print('held', flush=True)\n"
                "time.sleep(60)\n",
                str(path),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        timer = threading.Timer(0.2, holder.kill)
        timer.start()
        spend(ledger, 1)  # waits for the lock until the holder dies
        timer.join()
        holder.communicate()
        assert sum(ledger.requests_by_endpoint(ACCOUNT, START).values()) == 4


# ---------------------------------------------------------------------------------------------------------------- loss


def lose_file(path: Path) -> None:
    for part in ("", "-wal", "-shm"):
        path.with_name(path.name + part).unlink(missing_ok=True)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 3)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def scribble(path: Path) -> None:
    path.write_bytes(b"this is no database" * 500)


def flip(path: Path) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[4096:8192] = os.urandom(4096)
    path.write_bytes(damaged)


def restore_an_old_copy(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM requests")
        connection.execute("UPDATE sqlite_sequence SET seq = 0 WHERE name = 'requests'")
        connection.commit()


@pytest.mark.parametrize("damage", [lose_file, truncate, empty, scribble, flip, restore_an_old_copy])
def test_a_lost_ledger_counts_as_spent_for_one_window(
    path: Path, clock: ManualClock, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Ledger.open(path, clock)) as ledger:
        spend(ledger, 3)
    damage(path)  # type: ignore[operator]
    clock.advance(600)
    with closing(Ledger.open(path, clock)) as ledger:
        assert "counts as spent" in caplog.text
        with pytest.raises(QuotaExhausted) as refused:
            spend(ledger, 1)
        assert refused.value.resume_at == START + timedelta(seconds=600 + 3602)
        clock.advance(3602)
        spend(ledger, 20)
        with pytest.raises(QuotaExhausted):
            spend(ledger, 1)
    if damage in (truncate, scribble, flip):
        assert len(list(path.parent.glob("*.corrupt-*"))) >= 1
    caplog.clear()
    with closing(Ledger.open(path, clock)):
        assert caplog.text == ""  # said once, not at every start


def test_a_ledger_removed_under_a_running_process_is_noticed(path: Path, clock: ManualClock) -> None:
    with closing(Ledger.open(path, clock)) as ledger:
        spend(ledger, 3)
        lose_file(path)
        with pytest.raises(QuotaExhausted):
            spend(ledger, 1)


def test_a_new_home_starts_with_its_whole_quota(path: Path, clock: ManualClock) -> None:
    with closing(Ledger.open(path, clock)) as ledger:
        spend(ledger, 20)
    for file in (path, path.with_name(path.name + ".created")):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_lost_marker_alone_loses_nothing(path: Path, clock: ManualClock) -> None:
    with closing(Ledger.open(path, clock)) as ledger:
        spend(ledger, 19)
    path.with_name(path.name + ".created").unlink()
    with closing(Ledger.open(path, clock)) as ledger:
        spend(ledger, 1)
        with pytest.raises(QuotaExhausted):
            spend(ledger, 1)


def test_the_vendors_own_figure_ends_the_assumption(path: Path, clock: ManualClock) -> None:
    policy = QuotaPolicy(account=ACCOUNT, windows={"any": HOURLY})
    with closing(Ledger.open(path, clock)) as ledger:
        AccountMeter(ledger, policy)
        spend(ledger, 5)
    lose_file(path)
    with closing(Ledger.open(path, clock)) as ledger:
        AccountMeter(ledger, policy)
        assert ledger.usage(ACCOUNT)[0].remaining == 0
        ledger.adopt_usage(ACCOUNT, "any", 5)
        assert ledger.usage(ACCOUNT)[0].remaining == 15
        spend(ledger, 15)
        with pytest.raises(QuotaExhausted):
            spend(ledger, 1)


def test_a_read_only_home_is_a_storage_error(path: Path, clock: ManualClock) -> None:
    path.parent.write_text("a file where the folder should be")
    with pytest.raises(StorageError):
        Ledger.open(path, clock)


def test_a_database_url_never_shows_its_password(clock: ManualClock) -> None:
    for url in ("mysql://root:hunter2@host/db", "postgresql+nodriver://root:hunter2@host/db", "://"):
        with pytest.raises(ConfigurationError) as refused:
            Ledger.open(url, clock)
        assert "hunter2" not in str(refused.value)


# -------------------------------------------------------------------------------------------------------- what 429 says


@pytest.mark.parametrize(
    ("retry_after_seconds", "blocked_seconds"),
    [(90.0, 90), (None, 3602), (0.0, 3602), (-5.0, 3602), (1e9, 3602), (7200.0, 7200)],
)
def test_a_429_blocks_until_it_says_or_the_window_ends(
    path: Path, clock: ManualClock, retry_after_seconds: float | None, blocked_seconds: int
) -> None:
    """D2 and D3: our ledger says free, the vendor says no, the vendor is right."""
    meter = AccountMeter(Ledger.open(path, clock), QuotaPolicy(account=ACCOUNT, windows={"any": HOURLY}))
    meter.acquire(method="GET", endpoint=ENDPOINT)
    for _ in range(3):  # several in flight meet the same refusal
        meter.learn(method="GET", endpoint=ENDPOINT, status=429, retry_after_seconds=retry_after_seconds)
    with pytest.raises(QuotaExhausted) as refused:
        meter.acquire(method="GET", endpoint=ENDPOINT)
    assert refused.value.resume_at == START + timedelta(seconds=blocked_seconds)
    (usage,) = meter.ledger.usage(ACCOUNT)
    assert (usage.remaining, usage.refused, usage.blocked_until) == (0, 3, refused.value.resume_at)
    clock.advance(blocked_seconds)
    meter.acquire(method="GET", endpoint=ENDPOINT)
    meter.ledger.close()


def test_repeated_429s_find_an_unknown_longer_window_without_hammering(path: Path, clock: ManualClock) -> None:
    window = (Window(5, 1, guard_seconds=0),)
    with closing(Ledger.open(path, clock)) as ledger:
        waits = []
        for _ in range(14):
            until = ledger.learn(ACCOUNT, "any", window, endpoint=ENDPOINT, status=429)
            assert until is not None
            waits.append((until - clock.now()).total_seconds())
            clock.advance(waits[-1])
        assert waits == [2.0**n for n in range(12)] + [3600.0, 3600.0]
        assert ledger.learn(ACCOUNT, "any", window, endpoint=ENDPOINT, status=503) is None
        assert ledger.learn(ACCOUNT, "any", window, endpoint=ENDPOINT, status=200) is None
        until = ledger.learn(ACCOUNT, "any", window, endpoint=ENDPOINT, status=429)
        assert until == clock.now() + timedelta(seconds=1)


def test_usage_above_ours_is_adopted_and_below_ours_is_not(path: Path, clock: ManualClock) -> None:
    with closing(Ledger.open(path, clock)) as ledger:
        ledger.declare(QuotaPolicy(account=ACCOUNT, windows={"any": HOURLY}))
        spend(ledger, 4)
        for vendor_says, remaining in ((9, 11), (2, 16), (12, 8), (500, 0)):
            ledger.adopt_usage(ACCOUNT, "any", vendor_says)
            assert ledger.usage(ACCOUNT)[0].remaining == remaining
        assert sum(ledger.requests_by_endpoint(ACCOUNT, START).values()) == 4


# ------------------------------------------------------------------------------------------------- meter and questions


def test_kameleoon_style_policy_gives_each_verb_its_own_bucket(path: Path, clock: ManualClock) -> None:
    policy = QuotaPolicy(account="kameleoon:x", windows={"GET": (Window(1, 3600),), "*": (Window(2, 3600),)})
    with closing(Ledger.open(path, clock)) as ledger:
        meter = AccountMeter(ledger, policy)
        for method, allowed in (("GET", 1), ("POST", 2), ("PUT", 2)):
            for _ in range(allowed):
                meter.acquire(method=method, endpoint=f"{method} /x")
            with pytest.raises(QuotaExhausted):
                meter.acquire(method=method, endpoint=f"{method} /x")
        assert {u.method_class: u.used for u in ledger.usage("kameleoon:x")} == {"GET": 1, "POST": 2, "PUT": 2}
    with pytest.raises(ConfigurationError):
        QuotaPolicy(account="v:x", windows={"GET": (Window(1, 1),)}).method_class("POST")


def test_one_bucket_for_all_verbs(path: Path, clock: ManualClock) -> None:
    with closing(Ledger.open(path, clock)) as ledger:
        meter = AccountMeter(ledger, QuotaPolicy(account=ACCOUNT, windows={"any": (Window(2, 3600),)}))
        meter.acquire(method="GET", endpoint="GET /x")
        meter.acquire(method="POST", endpoint="POST /x")
        with pytest.raises(QuotaExhausted):
            meter.acquire(method="GET", endpoint="GET /x")


def test_a_backfill_leaves_the_reserve_to_today(path: Path, clock: ManualClock) -> None:
    with closing(Ledger.open(path, clock)) as ledger:
        meter = AccountMeter(ledger, QuotaPolicy(account=ACCOUNT, windows={"any": HOURLY}, reserve=5))
        with spending(stream="sessions", site="shop", run_id="r1", backfill=True):
            for _ in range(15):
                meter.acquire(method="GET", endpoint=ENDPOINT)
            with pytest.raises(QuotaExhausted):
                meter.acquire(method="GET", endpoint=ENDPOINT)
        for _ in range(5):
            meter.acquire(method="GET", endpoint=ENDPOINT)
        with pytest.raises(QuotaExhausted):
            meter.acquire(method="GET", endpoint=ENDPOINT)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Window(0, 1),
        lambda: Window(1, 0),
        lambda: Window(1, float("inf")),
        lambda: QuotaPolicy(account="v:x", windows={}),
        lambda: QuotaPolicy(account="v:x", windows={"any": HOURLY}, reserve=20),
    ],
)
def test_unusable_policies_are_refused(build: object) -> None:
    with pytest.raises(ConfigurationError):
        build()  # type: ignore[operator]


def test_requests_are_counted_by_what_they_were_for(path: Path, clock: ManualClock) -> None:
    with closing(Ledger.open(path, clock)) as ledger:
        meter = AccountMeter(ledger, QuotaPolicy(account=ACCOUNT, windows={"any": HOURLY}))
        meter = meter.labelled(Spending(stream="users", site="blog", run_id="r0"))
        meter.acquire(method="GET", endpoint="GET /users")
        clock.advance(10)
        with spending(stream="sessions", site="shop", run_id="r1"):
            meter.acquire(method="POST", endpoint=ENDPOINT)
            meter.acquire(method="POST", endpoint=ENDPOINT)
        found = {(s.vendor, s.stream, s.site, s.endpoint): s.requests for s in ledger.spent()}
        assert found == {
            ("smartlook", "users", "blog", "GET /users"): 1,
            ("smartlook", "sessions", "shop", ENDPOINT): 2,
        }
        assert [s.requests for s in ledger.spent(run_id="r1", vendor="smartlook")] == [2]
        assert ledger.spent(site="nowhere") == ()
        assert [s.stream for s in ledger.spent(until=START + timedelta(seconds=5))] == ["users"]
        assert ledger.requests_by_endpoint(ACCOUNT, START + timedelta(seconds=5)) == {ENDPOINT: 2}
        assert ledger.accounts() == (ACCOUNT,)


def test_the_status_screen(path: Path, clock: ManualClock) -> None:
    with closing(Ledger.open(path, clock)) as ledger:
        ledger.declare(QuotaPolicy(account=ACCOUNT, windows={"any": (Window(50, 1), Window(20, 3600))}))
        short, hour = ledger.usage(ACCOUNT)
        assert (hour.limit, hour.used, hour.remaining, hour.next_slot_at, hour.resets_at) == (20, 0, 20, None, None)
        spend(ledger, 20)
        clock.advance(100)
        short, hour = ledger.usage(ACCOUNT)
        assert (short.used, short.resets_at) == (0, None)
        assert (hour.used, hour.remaining, hour.refused) == (20, 0, 0)
        assert hour.next_slot_at == hour.resets_at == START + timedelta(seconds=3602)


# ----------------------------------------------------------------------------------------------------------- deferrals


def test_deferred_work_comes_due_newest_day_first(path: Path, clock: ManualClock) -> None:
    later = START + timedelta(hours=1)

    def defer(ledger: Ledger, first: int, last: int, resume_at: datetime = later) -> None:
        ledger.defer(
            vendor="smartlook",
            stream="sessions",
            site="shop",
            first_day=date(2026, 11, first),
            last_day=date(2026, 11, last),
            resume_at=resume_at,
            reason="20 of 20 requests spent",
            landed_records=312,
        )

    def days(ledger: Ledger) -> list[tuple[int, int]]:
        return [(d.first_day.day, d.last_day.day) for d in ledger.deferrals()]

    with closing(Ledger.open(path, clock)) as ledger:
        defer(ledger, 1, 10)
        defer(ledger, 12, 12, START)
        assert ledger.due(START)[0].last_day == date(2026, 11, 12)
        assert len(ledger.due(START)) == 1
        assert [d.last_day.day for d in ledger.due(later)] == [12, 10]
        assert ledger.due(later)[1].landed_records == 312
        defer(ledger, 1, 10)  # the same again is one
        assert days(ledger) == [(12, 12), (1, 10)]
        ledger.clear(
            vendor="smartlook", stream="sessions", site="shop", first_day=date(2026, 11, 4), last_day=date(2026, 11, 5)
        )
        assert days(ledger) == [(12, 12), (6, 10), (1, 3)]
        defer(ledger, 2, 8)
        assert days(ledger) == [(12, 12), (9, 10), (2, 8), (1, 1)]
        ledger.clear(vendor="smartlook", stream="sessions", site="blog")
        ledger.clear(vendor="smartlook", stream="users", site="shop")
        assert len(days(ledger)) == 4
    with closing(Ledger.open(path, clock)) as ledger:
        ledger.clear(vendor="smartlook", stream="sessions", site="shop")
        assert ledger.deferrals() == ()


@pytest.mark.parametrize("stated", ["0", "-1", "1.5", "many", ""])
def test_a_stated_rate_that_is_no_whole_number_is_refused(stated: str) -> None:
    with pytest.raises(ConfigurationError, match=r"sites\.yaml"):
        per_minute_windows({"requests_per_minute": stated}, 60)


def test_an_undocumented_quota_is_polite_unless_told_otherwise() -> None:
    assert per_minute_windows({}, 60)["any"][0].limit == 60
    assert per_minute_windows({"requests_per_minute": "600"}, 60)["any"][0].limit == 600


class DrowsyClock(ManualClock):
    """Sleeps longer than it was told, so often."""

    def __init__(self, start: datetime, *, times: int, seconds: float) -> None:
        super().__init__(start)
        self.times, self.seconds = times, seconds

    def sleep(self, seconds: float) -> None:
        late = self.seconds if self.times > 0 else 0.0
        self.times -= 1
        super().sleep(seconds + late)


def test_whoever_overslept_asks_again_and_pays_once(path: Path) -> None:
    clock = DrowsyClock(START, times=1, seconds=0.3)
    with closing(Ledger.open(path, clock)) as ledger:
        sent = spend(ledger, 6, windows=PER_SECOND)
        # The sixth was to leave at 1.05 and woke at 1.35: it leaves then, and that instant is written down.
        assert (sent[-1] - START).total_seconds() == pytest.approx(1.35)
        assert sum(ledger.requests_by_endpoint(ACCOUNT, START).values()) == 6
        assert ledger.departures(ACCOUNT, "any", (Window(9, 60),))[-1] == sent[-1]


def test_a_host_that_always_oversleeps_still_gets_on(path: Path) -> None:
    clock = DrowsyClock(START, times=10_000, seconds=0.3)
    with closing(Ledger.open(path, clock)) as ledger:
        spend(ledger, 30, windows=PER_SECOND)
        assert sum(ledger.requests_by_endpoint(ACCOUNT, START).values()) == 30


def test_a_little_late_is_what_the_guard_is_for(path: Path) -> None:
    clock = DrowsyClock(START, times=1, seconds=0.02)
    with closing(Ledger.open(path, clock)) as ledger:
        sent = spend(ledger, 6, windows=PER_SECOND)
    assert (sent[-1] - START).total_seconds() == pytest.approx(1.05)
    assert len(clock.slept) == 1


# --------------------------------------------------------------------------------------------------------------- ahead

THOUSAND = (Window(1000, 3600),)


def rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM requests").fetchone()[0])


def test_rows_are_written_ahead_and_those_not_used_are_given_back(path: Path, clock: ManualClock) -> None:
    with closing(Ledger.open(path, clock)) as ledger, closing(Ledger.open(path, clock)) as other:
        spend(ledger, 100, windows=THOUSAND)
        assert 100 < rows(path) <= 116  # a sixtieth of the window at most
        clock.advance(0.3)
        spend(ledger, 1, windows=THOUSAND)  # too late for them: the next statement takes them back
        assert 101 <= rows(path) < 109  # and fewer are written ahead, for fewer were used
        assert sum(ledger.requests_by_endpoint(ACCOUNT, START).values()) == 101
        assert rows(path) == 101
        for number in range(101, 1000):
            spend((ledger, other)[number % 2], 1, windows=THOUSAND)
        for each in (ledger, other):
            with pytest.raises(QuotaExhausted):
                spend(each, 1, windows=THOUSAND)


def test_one_writes_the_next_rows_while_the_others_use_those_left(path: Path, clock: ManualClock) -> None:
    done: queue.Queue[int] = queue.Queue()

    def ask(ledger: Ledger, number: int) -> None:
        spend(ledger, 1, windows=THOUSAND)
        done.put(number)

    with closing(Ledger.open(path, clock)) as ledger, closing(sqlite3.connect(path)) as other:
        spend(ledger, 50, windows=THOUSAND)
        spent = 50
        while (left := rows(path) - spent) != 4:  # a quarter of sixteen
            spend(ledger, 1, windows=THOUSAND)
            spent += 1
        asking = [threading.Thread(target=ask, args=(ledger, number)) for number in range(left)]
        other.execute("BEGIN IMMEDIATE")
        for thread in asking:
            thread.start()
        for _ in range(left - 1):
            done.get(timeout=20)
        other.rollback()
        for thread in asking:
            thread.join(timeout=20)
        assert rows(path) > spent + left
    assert rows(path) == spent + left


def test_a_small_plan_has_nothing_written_ahead(path: Path, clock: ManualClock) -> None:
    with closing(Ledger.open(path, clock)) as ledger:
        for number in range(1, 61):
            spend(ledger, 1, windows=(Window(100, 3600),))
            assert rows(path) == number


def test_nothing_ahead_survives_a_refusal_or_a_close(path: Path, clock: ManualClock) -> None:
    with closing(Ledger.open(path, clock)) as ledger:
        spend(ledger, 50, windows=THOUSAND)
        ledger.learn(ACCOUNT, "any", THOUSAND, endpoint=ENDPOINT, status=429, retry_after_seconds=60)
        assert rows(path) == 50
        with pytest.raises(QuotaExhausted):
            spend(ledger, 1, windows=THOUSAND)
        clock.advance(61)
        spend(ledger, 50, windows=THOUSAND)
        assert rows(path) > 100
    assert rows(path) == 100


def test_what_a_vendors_figure_was_compared_with_is_not_given_back(path: Path, clock: ManualClock) -> None:
    with closing(Ledger.open(path, clock)) as ledger, closing(Ledger.open(path, clock)) as other:
        ledger.declare(QuotaPolicy(account=ACCOUNT, windows={"any": THOUSAND}))
        spend(ledger, 50, windows=THOUSAND)
        written = rows(path)
        assert written > 50
        clock.advance(1)
        other.adopt_usage(ACCOUNT, "any", written + 5)
        assert ledger.usage(ACCOUNT)[0].used == written + 5


def test_a_fork_uses_nothing_its_parent_wrote_ahead(path: Path, clock: ManualClock) -> None:
    with closing(Ledger.open(path, clock)) as ledger:
        spend(ledger, 50, windows=THOUSAND)
        child = os.fork()
        if child == 0:
            spend(ledger, 10, windows=THOUSAND)
            ledger.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        spend(ledger, 10, windows=THOUSAND)
        assert sum(ledger.requests_by_endpoint(ACCOUNT, START).values()) == 70


def test_killed_processes_have_spent_what_was_written_ahead(path: Path) -> None:
    sent = 0
    for _ in range(3):
        with start(path, ACCOUNT, 5000, "1200/3600") as victim:
            assert victim.stdout is not None
            victim.stdout.readline()
            go(victim)
            for _ in range(100):
                sent += victim.stdout.readline().startswith("sent")
            victim.kill()
            sent += victim.stdout.read().count("sent")  # communicate() would leave out what readline() read further
    survivor = start(path, ACCOUNT, 1500, "1200/3600")
    sent += survivor.communicate("go\n", timeout=60)[0].count("sent")
    assert rows(path) == 1200
    assert 1200 - 3 * 20 <= sent <= 1200


# ------------------------------------------------------------------------------------------------------- learned limits


def test_a_running_meter_obeys_a_limit_learned_by_another_process(path: Path, clock: ManualClock) -> None:
    policy = QuotaPolicy(account=ACCOUNT, windows={"any": (Window(100, 3600),)}, reserve=30)
    with closing(Ledger.open(path, clock)) as here, closing(Ledger.open(path, clock)) as there:
        meter = here.meter(policy)
        for _ in range(15):
            meter.acquire(method="GET", endpoint=ENDPOINT)
        there.learn(ACCOUNT, "any", policy.windows["any"], endpoint=ENDPOINT, status=429, retry_after_seconds=600)
        there.adopt_usage(ACCOUNT, "any", 20, possible_limits=(20, 100))
        assert [usage.limit for usage in here.usage(ACCOUNT)] == [20]
        clock.advance(3602)
        for _ in range(20):
            meter.acquire(method="GET", endpoint=ENDPOINT)
        with pytest.raises(QuotaExhausted, match="20 in 3600 s"):
            meter.acquire(method="GET", endpoint=ENDPOINT)
        # A backfill keeps what of its reserve still makes sense.
        clock.advance(3602)
        with spending(stream="sessions", backfill=True):
            meter.acquire(method="GET", endpoint=ENDPOINT)
            with pytest.raises(QuotaExhausted):
                meter.acquire(method="GET", endpoint=ENDPOINT)
        # After a day the declared limit is tried again, by the same meter.
        clock.advance(86_400)
        for _ in range(100):
            meter.acquire(method="GET", endpoint=ENDPOINT)
        assert [usage.limit for usage in here.usage(ACCOUNT)] == [100]
