"""Faults between a client and GitHub. The server asks for them before each request."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

Host = Literal["api", "uploads", "storage"]

Kind = Literal[
    "timeout",  # no answer at all
    "reset",  # the connection is reset instead of an answer
    "cut",  # the connection is reset in the middle of the answer
    "short",  # a proxy passes half of the answer on as a whole one, its ETag included
    "403",
    "404",
    "422",
    "429",
    "500",
    "502",
    "503",
    "rate-limit",  # 403, primary: nothing remains until `seconds` have passed
    "secondary",  # 403, secondary: retry-after `seconds`
]


@dataclass(eq=False, kw_only=True)
class Fault:
    """A fault that waits for its request.

    `applied` tells whether the request takes effect nevertheless, which the client cannot know. An
    upload that is not applied leaves an asset in state "starter", as it may on GitHub.
    """

    kind: Kind
    on: str = "*"  # a shell pattern for "METHOD /path"
    host: Host | None = None
    after: int = 0  # matching requests that pass before it happens
    times: int = 1
    applied: bool = False
    seconds: float = 60.0
    happened: int = 0
    _passed: int = field(default=0, repr=False)

    def _takes(self, host: Host, name: str) -> bool:
        if self.host not in (None, host) or not fnmatchcase(name, self.on):
            return False
        self._passed += 1
        return self._passed > self.after and self.happened < self.times


class Faults:
    """All faults that wait for their requests, oldest first."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()  # guards the counters of all faults

    def add(self, fault: Fault) -> Fault:
        """Add a fault."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._faults.clear()

    def take(self, host: Host, name: str) -> Fault | None:
        """The fault for this request, if any; all waiting faults count the request."""
        with self._lock:
            struck: Sequence[Fault] = [fault for fault in self._faults if fault._takes(host, name)]
            if not struck:
                return None
            struck[0].happened += 1
            return struck[0]
