"""The signals that end a server."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest

from private_pypi.web.serving.stopping import SIGNALS, Stop, stopped_by_signals


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_requests_the_stop(number: signal.Signals) -> None:
    stop, before = Stop(), signal.getsignal(number)
    with stopped_by_signals(stop):
        assert not stop.requested
        signal.raise_signal(number)
        assert stop.requested
    assert signal.getsignal(number) is before


def test_the_second_signal_ends_the_process() -> None:
    ended: list[str] = []
    with pytest.raises(KeyboardInterrupt), stopped_by_signals(Stop(), before_the_end=fail(ended)):
        signal.raise_signal(signal.SIGTERM)
        assert ended == []
        signal.raise_signal(signal.SIGINT)
    assert ended == ["now"]


def test_a_terminal_that_is_closed_ends_nothing_at_once() -> None:
    ended: list[str] = []
    with stopped_by_signals(Stop(), before_the_end=fail(ended)):
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
            signal.raise_signal(number)
    assert ended == []


def fail(ended: list[str]) -> Callable[[], None]:
    def before_the_end() -> None:
        ended.append("now")
        raise KeyboardInterrupt  # in place of the end of this process

    return before_the_end


def test_what_nohup_ignores_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = Stop()
    with stopped_by_signals(stop):
        signal.raise_signal(signal.SIGHUP)
        assert not stop.requested
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
