"""Waiting for what other threads and processes do."""

from __future__ import annotations

import time
from collections.abc import Callable


def eventually(
    holds: Callable[[], object], what: str | Callable[[], str] = "it holds", *, within: float = 60.0
) -> None:
    """Wait until it holds; fails with `what` when it does not `within` so many seconds."""
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, (
            f"not within {within:g} s: {what if isinstance(what, str) else what()}"
        )
        time.sleep(0.01)
