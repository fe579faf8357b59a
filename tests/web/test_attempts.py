"""Failures of the sign-in form are counted by address and by repository, in little memory."""

from __future__ import annotations

import pytest

from private_pypi.web.people.attempts import (
    FAILURES_OF_ADDRESS,
    FAILURES_OF_REPOSITORY,
    WINDOW,
    FailedSignIns,
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
def failures(clock: Clock) -> FailedSignIns:
    return FailedSignIns(clock)


def test_an_address_may_fail_so_often(failures: FailedSignIns) -> None:
    waits = [failures.add("192.0.2.1", f"r{n}") for n in range(FAILURES_OF_ADDRESS + 1)]
    assert waits == [None] * FAILURES_OF_ADDRESS + [30]
    assert failures.add("192.0.2.2", "r") is None


def test_a_repository_may_fail_so_often_from_wherever(failures: FailedSignIns) -> None:
    names = ("mine", "Mine")
    waits = [failures.add(f"192.0.2.{n}", names[n % 2]) for n in range(FAILURES_OF_REPOSITORY + 1)]
    assert waits == [None] * FAILURES_OF_REPOSITORY + [6]
    assert failures.add("192.0.2.99", "other") is None


def test_time_heals(failures: FailedSignIns, clock: Clock) -> None:
    for _ in range(FAILURES_OF_ADDRESS * 3):
        wait = failures.add("192.0.2.1", "mine")
    assert wait is not None
    clock.now += wait
    assert failures.add("192.0.2.1", "mine") is None
    assert failures.add("192.0.2.1", "mine") is not None
    clock.now += WINDOW
    assert [failures.add("192.0.2.1", "mine") for _ in range(3)] == [None] * 3


def test_memory_is_bounded(failures: FailedSignIns) -> None:
    for number in range(12_000):
        failures.add(f"10.0.{number // 256}.{number % 256}", str(number))
    assert len(failures._free_at) == 10_000


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
