"""How often somebody may fail to sign in before being told to wait; knows no secrets.

A right secret is never refused: what is limited are failures, and only those of the form. Tools
send theirs with each request, and a broken pipeline must not lock its owner out.
"""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

FAILURES_OF_ADDRESS = 10
FAILURES_OF_REPOSITORY = 50  # people share a repository
WINDOW = 300.0  # seconds in which a limit is used up once

_MOST_KEPT = 10_000  # addresses and names; the least recently used are forgotten


class FailedSignIns:
    """Failures by address and by repository, of this process; safe for many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # guards _free_at
        # When the whole limit of a key is there again. It is spent by pushing that moment on.
        self._free_at: OrderedDict[tuple[str, str], float] = OrderedDict()

    def add(self, address: str | None, repository: str) -> int | None:
        """Note a failure; whole seconds to wait when there were too many, else None."""
        keys = (
            (("address", network_of(address)), FAILURES_OF_ADDRESS),
            # Names that nobody has are counted like any: the answer must not tell them apart.
            (("repository", repository.lower()[:200]), FAILURES_OF_REPOSITORY),
        )
        now = self._clock()
        wait = 0.0
        with self._lock:
            for key, limit in keys:
                each = WINDOW / limit
                free_at = max(self._free_at.get(key, now), now) + each
                if free_at - now > WINDOW:
                    wait = max(wait, free_at - now - WINDOW)
                    free_at = now + WINDOW  # failing on and on does not make it longer
                self._free_at[key] = free_at
                self._free_at.move_to_end(key)
            while len(self._free_at) > _MOST_KEPT:
                self._free_at.popitem(last=False)
        return math.ceil(wait) or None


def network_of(address: str | None) -> str:
    """The address, or the /64 of an IPv6 one: that much has a single subscriber."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return address or ""
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
