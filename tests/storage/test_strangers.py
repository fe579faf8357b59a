"""Secrets that nobody knows: who is asked about when many send them, and when no more is asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from private_pypi.backend import Access
from private_pypi.errors import BackendUnavailable, NotAllowed
from private_pypi.storage import strangers, verdicts
from private_pypi.storage.strangers import WRONG_SECRETS, Strangers
from private_pypi.storage.verdicts import Expiry, Question, Verdicts
from private_pypi.system.background import Background

EXPIRY = Expiry(timedelta(hours=1), timedelta(minutes=5))


@pytest.fixture
def background() -> Iterator[Background]:
    background = Background("test", most=16)
    yield background
    background.close()


@pytest.fixture
def asking(background: Background) -> Verdicts:
    return Verdicts("mine", EXPIRY, background=background)


def answer(access: Access, asked: list[object] | None = None) -> Callable[[], Access]:
    def ask() -> Access:
        if asked is not None:
            asked.append(access)
        return access

    return ask


def ask(
    asking: Verdicts, secret: str, access: Access, client: str, asked: list[object] | None = None
) -> Access | BackendUnavailable:
    try:
        return asking.access(
            Question(secret.encode(), None), Access.READ, answer(access, asked), client=client
        )
    except BackendUnavailable as error:
        return error


def test_who_sends_many_waits_behind_who_sends_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "_WAIT_SECONDS", 60.0)
    monkeypatch.setattr(strangers, "_HANGING_SECONDS", 60.0)
    turns = Strangers("mine")
    go, order = threading.Semaphore(0), list[str]()
    held = threading.Semaphore(0)

    def hold() -> None:
        with turns.turn("many"):
            held.release()
            go.acquire(timeout=60)

    def once(client: str) -> None:
        with turns.turn(client):
            order.append(client)

    with ThreadPoolExecutor(8) as pool:
        holding = [pool.submit(hold) for _ in range(3)]
        for _ in holding:
            assert held.acquire(timeout=60)
        waiting = []
        for number, client in enumerate(["many", "one", "another"], 1):
            waiting.append(pool.submit(once, client))
            while len(turns._waiting) < number:
                time.sleep(0.001)
        # A second one of the same client does not wait at all, and takes no thread.
        with pytest.raises(BackendUnavailable, match="too many unknown secrets"):
            once("many")
        go.release()  # one place, which they are given one after the other
        for each in waiting:
            each.result(60)
        go.release(2)
        for each in holding:
            each.result(60)
    assert order == ["one", "another", "many"]


def test_a_storage_that_hangs_holds_a_few_threads_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(strangers, "_HANGING_SECONDS", 0.0)
    turns = Strangers("mine")
    with turns.turn("a"), turns.turn("b"), turns.turn("c"):
        time.sleep(0.001)
        with pytest.raises(BackendUnavailable), turns.turn("d"):
            pass
    with turns.turn("d"):
        pass


def test_wrong_secrets_of_one_client_are_asked_about_so_many_times(asking: Verdicts) -> None:
    asked: list[object] = []
    for number in range(WRONG_SECRETS):
        assert ask(asking, f"junk-{number}", Access.NONE, "stranger", asked) is Access.NONE
    refused = ask(asking, "one more", Access.NONE, "stranger", asked)
    assert isinstance(refused, BackendUnavailable)
    assert "too many wrong secrets" in str(refused)
    assert 0 < refused.retry_after <= strangers.REFILL_SECONDS
    assert len(asked) == WRONG_SECRETS
    # Everybody else is asked about, and who is known already is served.
    assert ask(asking, "right", Access.WRITE, "somebody") is Access.WRITE
    assert ask(asking, "right", Access.NONE, "stranger") is Access.WRITE


def test_a_wrong_secret_comes_back_after_a_while(
    asking: Verdicts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strangers, "REFILL_SECONDS", 0.02)
    for number in range(WRONG_SECRETS):
        ask(asking, f"junk-{number}", Access.NONE, "stranger")
    time.sleep(0.1)
    assert ask(asking, "right", Access.READ, "stranger") is Access.READ


def test_the_same_wrong_secret_again_and_again_counts_once_and_is_asked_about_less_and_less(
    asking: Verdicts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipeline whose token has ended does not keep its colleagues out."""
    now = [1000.0]
    monkeypatch.setattr(verdicts.time, "monotonic", lambda: now[0])
    asked: list[object] = []
    times = []
    for _ in range(400):
        before = len(asked)
        assert ask(asking, "ended", Access.NONE, "office", asked) is Access.NONE
        if len(asked) > before:
            times.append(now[0] - 1000.0)
        now[0] += 1.0
    assert times[:5] == [0.0, 10.0, 30.0, 70.0, 130.0]
    assert ask(asking, "right", Access.READ, "office") is Access.READ


def test_made_up_secrets_push_out_no_verdict_that_was_given(
    asking: Verdicts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "_MAX_VERDICTS", 5)
    assert ask(asking, "right", Access.READ, "somebody") is Access.READ
    for number in range(10):
        ask(asking, f"junk-{number}", Access.NONE, "stranger")
    assert ask(asking, "right", Access.NONE, "somebody") is Access.READ


def test_first_requests_are_answered_while_a_stranger_sends_made_up_secrets(
    asking: Verdicts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As fast as he can, to a storage that takes a while for each."""
    monkeypatch.setattr(strangers, "_WAIT_SECONDS", 60.0)
    monkeypatch.setattr(strangers, "_HANGING_SECONDS", 60.0)
    stop = threading.Event()

    def slow(access: Access) -> Callable[[], Access]:
        def ask() -> Access:
            time.sleep(0.02)
            return access

        return ask

    def stranger(number: int) -> None:
        count = 0
        while not stop.is_set():
            count += 1
            asked = Question(f"junk-{number}-{count}".encode(), None)
            try:
                asking.access(asked, Access.READ, slow(Access.NONE), client=f"network-{number % 2}")
            except BackendUnavailable:
                time.sleep(0.001)

    with ThreadPoolExecutor(8) as pool:
        for number in range(8):
            pool.submit(stranger, number)
        try:
            for number in range(20):
                asked = Question(f"right-{number}".encode(), None)
                found = asking.access(asked, Access.READ, slow(Access.READ), client="somebody")
                assert found is Access.READ
        finally:
            stop.set()


def test_equal_questions_are_one(asking: Verdicts) -> None:
    """An installer sends many requests at once, the first time, too."""
    asked: list[object] = []
    begun, go = threading.Semaphore(0), threading.Event()

    def slow() -> Access:
        asked.append(None)
        go.wait(60)
        return Access.READ

    def first() -> Access:
        begun.release()
        return asking.access(Question(b"right", None), Access.READ, slow, client="somebody")

    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(first) for _ in range(20)]
        for _ in waiting:
            assert begun.acquire(timeout=60)
        go.set()
        assert {each.result(60) for each in waiting} == {Access.READ}
    assert len(asked) == 1


def test_trouble_is_told_to_who_asks_the_same_at_once(asking: Verdicts) -> None:
    asked: list[object] = []

    def trouble() -> Access:
        asked.append(None)
        raise BackendUnavailable("down", retry_after=7)

    def told(secret: bytes) -> tuple[str, int]:
        with pytest.raises(BackendUnavailable) as caught:
            asking.access(Question(secret, None), Access.READ, trouble)
        return str(caught.value), caught.value.retry_after

    assert [told(b"one"), told(b"one")] == [("down", 7)] * 2
    assert len(asked) == 1
    assert told(b"other") == ("down", 7)  # what one secret meets says nothing about another
    assert len(asked) == 2


def test_a_refusal_with_a_reason_is_told_again_without_asking(asking: Verdicts) -> None:
    asked: list[object] = []

    def refuse() -> Access:
        asked.append(None)
        raise NotAllowed("the organization forbids it")

    for _ in range(2):
        with pytest.raises(NotAllowed, match="the organization forbids it"):
            asking.access(Question(b"one", None), Access.READ, refuse)
    assert len(asked) == 1


def test_a_refusal_ends_when_what_it_is_about_changed(asking: Verdicts) -> None:
    asked = Question(b"right", "demo")
    versions = [None, None, 7]
    found = [
        asking.access(asked, Access.READ, answer(access), version=lambda each=version: each)
        for version, access in zip(versions, (Access.NONE, Access.READ, Access.READ), strict=True)
    ]
    assert found == [Access.NONE, Access.NONE, Access.READ]
