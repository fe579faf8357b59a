"""Calls in the background go on when nobody waits for them any more."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from private_pypi.errors import BackendError, BackendUnavailable, ProjectNotFound
from private_pypi.system.background import Background, DaemonThreads, StillRunning
from tests.waiting import eventually


@pytest.fixture
def background() -> Iterator[Background]:
    background = Background("test", most=2)
    yield background
    background.close()


class Held:
    """A call that ends when `go` is set."""

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
        # Callers after its end started another call.
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
    # All running calls hang, so there is no point in waiting for one of them to end.
    with pytest.raises(BackendUnavailable, match="too many requests"):
        background.result("three", held, wait=60)
    eventually(lambda: held.calls == 2)  # on a busy machine, a thread begins later
    held.go.set()


def test_a_place_is_waited_for_while_the_others_get_on(background: Background) -> None:
    held = Held()
    with ThreadPoolExecutor(3) as pool:
        results = [pool.submit(background.result, key, held, wait=60) for key in "abc"]
        held.go.set()
        assert len([result.result() for result in results]) == 3
    assert held.calls == 3


def test_what_was_begun_waits_for_a_thread_without_holding_one(background: Background) -> None:
    held = Held()
    before = threading.active_count()
    begun = [background.begin(key, held) for key in range(20)]
    over = [threading.Event() for _ in begun]
    for pending, event in zip(begun, over, strict=True):
        assert pending is not None
        pending.call_when_over(event.set)
    assert threading.active_count() <= before + 2
    held.go.set()
    assert all(event.wait(60) for event in over)
    assert held.calls == 20


def test_a_call_that_a_waiting_request_gave_up_is_not_waited_for(background: Background) -> None:
    held = Held()
    pending = background.begin("key", held)
    assert pending is not None
    pending.give_up()
    with pytest.raises(StillRunning):
        background.result("key", held, wait=600)
    other = background.begin("other", held)
    assert other is not None
    other.give_up()
    assert background.begin("third", held) is None  # all threads hang
    held.go.set()


def test_what_waits_for_a_thread_is_dropped_at_the_end() -> None:
    background = Background("test", most=1)
    held, over = Held(), threading.Event()
    background.begin("one", held)
    eventually(lambda: held.calls == 1)
    pending = background.begin("two", held)
    assert pending is not None
    pending.call_when_over(over.set)
    background.close(0)
    assert over.wait(60)
    held.go.set()
    assert held.calls == 1


def test_after_the_end_nothing_begins() -> None:
    background = Background("test", most=2)
    held = Held()
    with pytest.raises(StillRunning):
        background.result("key", held, wait=0.01)
    eventually(lambda: held.calls == 1, "it runs")
    threading.Timer(0.05, held.go.set).start()
    background.close()
    assert background.is_closed
    assert held.go.is_set()  # `close` waited for it
    with pytest.raises(BackendUnavailable, match="stopping"):
        background.result("key", lambda: 1, wait=60)


def test_daemon_threads_give_results_in_order_and_errors_as_they_are() -> None:
    with DaemonThreads(3, "test") as threads:
        assert list(threads.map(lambda number: number * 2, range(50))) == list(range(0, 100, 2))
        with pytest.raises(ValueError, match="broken"):
            threads.submit(int, "broken").result(60)
    with pytest.raises(RuntimeError):
        threads.submit(int)


def test_tasks_wait_for_a_thread_in_their_order_and_threads_end_after_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("private_pypi.system.background._LINGER_SECONDS", 0.1)
    threads, gate = DaemonThreads(2, "ends"), threading.Event()
    running: list[int] = []

    def task(number: int) -> None:
        running.append(number)
        gate.wait(60)

    for number in range(5):
        threads.submit(task, number)
    eventually(lambda: len(running) == 2, "two run")
    assert sorted(running) == [0, 1]
    gate.set()
    eventually(lambda: len(running) == 5, "all ran")
    eventually(lambda: "ends" not in {each.name for each in threading.enumerate()}, "they ended")


def test_what_did_not_begin_can_be_cancelled() -> None:
    threads = DaemonThreads(1, "test")
    begun, go = threading.Event(), threading.Event()

    def first() -> str:
        begun.set()
        go.wait(60)
        return "done"

    futures = [threads.submit(first), threads.submit(str), threads.submit(str)]
    assert begun.wait(60)
    threads.shutdown(wait=False, cancel_futures=True)
    go.set()
    threads.shutdown()
    assert futures[0].result(60) == "done"
    assert [future.cancelled() for future in futures] == [False, True, True]


def test_a_process_that_ends_does_not_wait_for_them() -> None:
    program = (
        "import threading\n"
        "from private_pypi.system.background import DaemonThreads\n"
        "begun = threading.Event()\n"
        "def hang():\n"
        "    begun.set()\n"
        "    threading.Event().wait()\n"
        "DaemonThreads(1, 'test').submit(hang)\n"
        "begun.wait()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
