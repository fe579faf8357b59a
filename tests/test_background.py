"""Calls that go on when nobody waits for them any more."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from private_pypi.background import Background, StillRunning
from private_pypi.errors import BackendError, BackendUnavailable, ProjectNotFound


@pytest.fixture
def background() -> Iterator[Background]:
    background = Background("test", most=2)
    yield background
    background.close()


class Held:
    """A call that ends when it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        assert self.go.wait(60)
        return self.calls


def test_a_call_gives_what_it_returns_or_raises(background: Background) -> None:
    assert background.result("one", lambda: 7, wait=60) == 7

    def fail() -> int:
        raise ProjectNotFound("demo")

    def err() -> int:
        raise ZeroDivisionError

    with pytest.raises(ProjectNotFound):
        background.result("one", fail, wait=60)
    with pytest.raises(BackendError, match="ZeroDivisionError"):
        background.result("one", err, wait=60)


def test_equal_calls_are_one(background: Background) -> None:
    held = Held()
    with ThreadPoolExecutor(8) as pool:
        results = [pool.submit(background.result, "same", held, wait=60) for _ in range(8)]
        held.go.set()
        # Whoever came after its end made another one.
        assert {result.result() for result in results} <= set(range(1, held.calls + 1))
    held = Held()
    for _ in range(3):
        with pytest.raises(StillRunning):
            background.result("late", held, wait=0.01)
    assert held.calls == 1
    held.go.set()


def test_a_call_that_was_given_up_goes_on(background: Background) -> None:
    held = Held()
    done = threading.Event()

    def call() -> None:
        held()
        done.set()

    with pytest.raises(StillRunning):
        background.result("key", call, wait=0.01)
    assert not done.is_set()
    held.go.set()
    assert done.wait(60)
    assert background.result("key", lambda: "the next", wait=60) == "the next"


def test_no_more_than_so_many_run(background: Background) -> None:
    held = Held()
    for key in ("one", "two"):
        with pytest.raises(StillRunning):
            background.result(key, held, wait=0.01)
    # All of them were given up: nobody waits for a place among them.
    with pytest.raises(BackendUnavailable, match="too much"):
        background.result("three", held, wait=60)
    assert held.calls == 2
    held.go.set()


def test_a_place_is_waited_for_while_the_others_get_on(background: Background) -> None:
    held = Held()
    with ThreadPoolExecutor(3) as pool:
        results = [pool.submit(background.result, key, held, wait=60) for key in "abc"]
        held.go.set()
        assert len([result.result() for result in results]) == 3
    assert held.calls == 3


def test_after_the_end_nothing_begins() -> None:
    background = Background("test", most=2)
    held = Held()
    with pytest.raises(StillRunning):
        background.result("key", held, wait=0.01)
    threading.Timer(0.05, held.go.set).start()
    background.close()
    assert background.is_closed
    assert held.go.is_set()  # it was waited for
    with pytest.raises(BackendUnavailable, match="stopping"):
        background.result("key", lambda: 1, wait=60)
