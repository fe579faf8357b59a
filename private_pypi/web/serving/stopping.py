"""How a running server is told to end. This is the same for all engines and the parent process."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""The signals that end a server."""


class Stop:
    """Ends what waits for it, from another thread or from a signal handler."""

    def __init__(self) -> None:
        self._wake: Callable[[], None] | None = None
        # Guards _wake, which the loop takes away when it ends. It is re-entrant, because a signal
        # handler may run in the thread that holds it.
        self._lock = threading.RLock()
        self.requested = False

    def request(self) -> None:
        """Let the loop finish open requests and end. May be called early, and repeatedly."""
        self.requested = True
        with self._lock:
            if self._wake is not None:
                self._wake()

    def wakes(self, wake: Callable[[], None] | None) -> None:
        """Set what makes the running loop look at `requested`; None when it has ended."""
        with self._lock:
            self._wake = wake


@contextlib.contextmanager
def stopped_by_signals(
    stop: Stop, *, before_the_end: Callable[[], None] | None = None
) -> Iterator[None]:
    """Let SIGTERM, SIGINT and SIGHUP request the stop.

    SIGTERM or SIGINT after one of these two ends the process at once, and `before_the_end` is
    called first if it is given. SIGHUP does not: a terminal that is closed sends it, and the shell
    in it may send it again. If it is ignored, as with `nohup`, it stays so. Signals are only
    handled in the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        assert before_the_end is not None
        before_the_end()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    def handle(number: int, frame: FrameType | None) -> None:
        if number != signal.SIGHUP:
            for wanted in (signal.SIGTERM, signal.SIGINT):
                # The system's own handler ends the process even if this thread hangs.
                signal.signal(wanted, signal.SIG_DFL if before_the_end is None else end)
        stop.request()

    before: dict[signal.Signals, Any] = {}
    for wanted in SIGNALS:
        if wanted != signal.SIGHUP or signal.getsignal(wanted) != signal.SIG_IGN:
            before[wanted] = signal.signal(wanted, handle)
    try:
        yield
    finally:
        for wanted, handler in before.items():
            signal.signal(wanted, handler)
