"""What all requests of a running server share, whatever its engine is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from private_pypi.web.serving.gate import AtOnce, Gate, KindOf, RequestObserver, ShareOf
from private_pypi.web.serving.pools import Pools


@dataclass(slots=True, kw_only=True)
class RunningServer:
    """The functions of the application that an engine calls, and the threads that it has."""

    gate: Gate
    pools: Pools
    max_body_bytes: int  # the operator's own limit
    at_once: AtOnce
    observer: RequestObserver | None
    find_client: Callable[[dict[str, Any]], bool]
    """Puts into a WSGI environment what a trusted proxy says; see `options.find_client_of`."""
    kind_of: KindOf
    share_of: ShareOf
