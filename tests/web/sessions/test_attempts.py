"""Attempts of the sign-in form are counted by address and by repository, in little memory."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from private_pypi.errors import BackendUnavailable
from private_pypi.web.sessions.attempts import (
    COST_UNDER_ATTACK,
    FAILURES_OF_ADDRESS,
    FAILURES_OF_REPOSITORY,
    WINDOW,
    SignInAttempts,
    network_of,
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def attempts(clock: Clock) -> SignInAttempts:
    return SignInAttempts(clock)


def waits(attempts: SignInAttempts, address: str, repository: str, times: int) -> list[int | None]:
    return [attempts.begin(address, repository).wait for _ in range(times)]


def attack(attempts: SignInAttempts, repository: str) -> None:
    """Use up the limit of a repository from many addresses."""
    for number in range(FAILURES_OF_REPOSITORY):
        assert attempts.begin(f"198.51.100.{number}", repository).wait is None


def test_an_address_may_fail_so_often(attempts: SignInAttempts) -> None:
    failed = [attempts.begin("192.0.2.1", f"r{n}").wait for n in range(FAILURES_OF_ADDRESS + 2)]
    assert failed == [None] * FAILURES_OF_ADDRESS + [30, 30]
    assert attempts.begin("192.0.2.2", "r").wait is None


def test_what_was_no_failure_counts_for_nothing(attempts: SignInAttempts) -> None:
    for _ in range(FAILURES_OF_REPOSITORY * 2):
        attempt = attempts.begin("192.0.2.1", "mine")
        assert attempt.wait is None
        attempts.take_back(attempt)
    assert waits(attempts, "192.0.2.1", "mine", 10) == [None] * 10


def test_an_attempt_counts_while_it_is_made(attempts: SignInAttempts) -> None:
    begun = [attempts.begin("192.0.2.1", "mine") for _ in range(FAILURES_OF_ADDRESS)]
    assert attempts.begin("192.0.2.1", "mine").wait == 30
    attempts.take_back(begun[0])
    assert attempts.begin("192.0.2.1", "mine").wait is None


def test_guesses_from_many_addresses_become_fewer_and_lock_nobody_out(
    attempts: SignInAttempts, clock: Clock
) -> None:
    attack(attempts, "Mine")
    # An address without failures can always sign in. One that guesses has two attempts, not ten.
    assert waits(attempts, "192.0.2.1", "mine", 3) == [None, None, 30 * COST_UNDER_ATTACK]
    assert waits(attempts, "192.0.2.1", "other", 1) == [30]
    assert waits(attempts, "192.0.2.2", "other", 10) == [None] * 10
    clock.now += WINDOW
    assert waits(attempts, "192.0.2.1", "mine", 10) == [None] * 10


def test_a_right_secret_under_attack_leaves_no_trace(attempts: SignInAttempts) -> None:
    attack(attempts, "mine")
    for _ in range(20):
        attempt = attempts.begin("192.0.2.1", "mine")
        assert attempt.wait is None
        attempts.take_back(attempt)


def test_time_heals(attempts: SignInAttempts, clock: Clock) -> None:
    wait = waits(attempts, "192.0.2.1", "mine", FAILURES_OF_ADDRESS * 3)[-1]
    assert wait == 30  # failing on and on does not make it longer
    clock.now += wait
    assert waits(attempts, "192.0.2.1", "mine", 2) == [None, 30]
    clock.now += WINDOW
    assert waits(attempts, "192.0.2.1", "mine", 3) == [None] * 3


def test_memory_is_bounded(attempts: SignInAttempts) -> None:
    for number in range(12_000):
        attempts.begin(f"10.0.{number // 256}.{number % 256}", str(number))
    counts = attempts._connection.execute("SELECT kind, count(*) FROM attempts GROUP BY kind")
    assert dict(counts.fetchall()) == {"address": 10_000, "repository": 10_000}


def test_time_frees_the_memory(attempts: SignInAttempts, clock: Clock) -> None:
    attack(attempts, "mine")
    clock.now += WINDOW
    attack(attempts, "other")
    keys = attempts._connection.execute("SELECT key FROM attempts WHERE kind = 'repository'")
    assert keys.fetchall() == [("other",)]


def test_those_who_share_a_file_count_together(tmp_path: Path, clock: Clock) -> None:
    both = [SignInAttempts(clock, path=tmp_path / "attempts.sqlite") for _ in range(2)]
    begun = [both[n % 2].begin("192.0.2.1", "mine") for n in range(FAILURES_OF_ADDRESS)]
    assert [each.begin("192.0.2.1", "mine").wait for each in both] == [30, 30]
    both[1].take_back(begun[0])
    assert [each.begin("192.0.2.1", "mine").wait for each in both] == [None, 30]


def test_what_cannot_be_counted_is_not_allowed(tmp_path: Path) -> None:
    path = tmp_path / "attempts.sqlite"
    attempts = SignInAttempts(path=path)
    path.write_bytes(b"damaged" * 10_000)
    with pytest.raises(BackendUnavailable, match="could not be counted"):
        attempts.begin("192.0.2.1", "mine")


def test_a_commit_that_failed_does_not_end_all_counting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("private_pypi.web.sessions.attempts._BUSY_SECONDS", 0.01)
    path = tmp_path / "attempts.sqlite"
    attempts = SignInAttempts(path=path)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM attempts").fetchall()  # now nobody else can commit
        with pytest.raises(BackendUnavailable, match="database is locked"):
            attempts.begin("192.0.2.1", "mine")
    assert waits(attempts, "192.0.2.1", "mine", 10) == [None] * 10


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("unix", "unix"),
        (None, ""),
    ],
)
def test_an_address_counts_as_its_network(address: str | None, network: str) -> None:
    assert network_of(address) == network
