"""What is remembered of trouble: for whom, for how long, and never as something else."""

from __future__ import annotations

import pytest

from private_pypi.errors import BackendError, BackendUnavailable, FileNotFound, PrivatePypiError
from private_pypi.storage import recent_trouble
from private_pypi.storage.recent_trouble import RecentTrouble


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(recent_trouble, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (BackendError("broken"), 2.0),
        (BackendUnavailable("down", retry_after=0), 2.0),
        (BackendUnavailable("down", retry_after=5), 5.0),
        (BackendUnavailable("limited", retry_after=3600), 10.0),
    ],
)
def test_trouble_is_met_once_for_as_long_as_it_says_within_bounds(
    clock: Clock, error: PrivatePypiError, seconds: float
) -> None:
    trouble, calls = RecentTrouble(), list[float]()

    def fail() -> None:
        calls.append(clock.now)
        raise error

    for step in (0.0, seconds - 0.1, 0.2):
        clock.now += step
        with pytest.raises(type(error), match=str(error)) as caught:
            trouble.ask("question", fail)
        if isinstance(error, BackendUnavailable):
            assert caught.value.retry_after >= 2
    assert calls == [1000.0, 1000.0 + seconds + 0.1]


def test_other_questions_are_asked(clock: Clock) -> None:
    trouble = RecentTrouble()
    trouble.note("one", BackendError("broken"))
    assert trouble.ask("other", lambda: "answer") == "answer"


def test_an_absence_is_no_trouble(clock: Clock) -> None:
    trouble = RecentTrouble()
    answers = iter([FileNotFound("demo-1.0.tar.gz"), None])

    def call() -> str:
        error = next(answers)
        if error is not None:
            raise error
        return "there"

    with pytest.raises(FileNotFound):
        trouble.ask("question", call)
    assert trouble.ask("question", call) == "there"


def test_no_more_than_so_many_are_kept(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_trouble, "_MAX_KEPT", 2)
    trouble = RecentTrouble()
    for number in range(3):
        trouble.note(number, BackendError("broken"))
    assert [trouble.find(number) is not None for number in range(3)] == [False, True, True]
