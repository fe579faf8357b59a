"""Count the answers of the engine, and have a line of the log written and a span sent for each.

`answered` also runs where requests are answered at once, for pages that take less than a hundred
microseconds in all. So it only adds to a few numbers and formats one line.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import Any

from private_pypi.web.operations.logs import RequestLog
from private_pypi.web.serving import Exchange, Load

ROUTE = "private_pypi.route"
"""The key in a WSGI environment of the request's route, such as `/simple/<name>/`."""

REPOSITORY = "private_pypi.repository"
"""The key there of the repository's name, which is set when the caller was let in."""

NO_ROUTE = "(none)"
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""Upper bounds of the histogram of latencies, in seconds."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OF_REPOSITORY = "/r/<repository>"

Key = tuple[str, str, int]
"""Method, route and status. Each of them has few values."""

FindRoute = Callable[[str, str], str | None]
"""The route for a path and a method, for requests that did not get to the application."""


Tell = Callable[[Exchange, str, str, str], None]
"""Called with each answer and the method, route and repository. Must not block."""


class Series:
    """The requests with one method, route and status."""

    __slots__ = ("counts", "seconds", "sent")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)  # in each bucket; the last one has no upper bound
        self.seconds = 0.0
        self.sent = 0  # bytes


class RequestStatistics:
    """Counts of requests by method, route and status. It is a `serving.RequestObserver`."""

    def __init__(
        self, find_route: FindRoute, log: RequestLog | None = None, tell: Tell | None = None
    ) -> None:
        self._find_route = find_route
        self.log = log
        self._tell = tell
        self._lock = threading.Lock()  # guards _series and what is in it
        self._series: dict[Key, Series] = {}
        self._load: Callable[[], Load] | None = None

    def serving(self, load: Callable[[], Load]) -> None:
        """See `serving.RequestObserver`."""
        self._load = load

    def answered(self, exchange: Exchange) -> None:
        """See `serving.RequestObserver`."""
        method, route = "(none)", NO_ROUTE
        environ = exchange.environ
        if environ is not None:
            method = environ["REQUEST_METHOD"]
            route = environ.get(ROUTE) or self._route_of(environ, method)
            if method not in _METHODS:
                method = "(other)"
        key = (method, route, exchange.status)
        bucket = bisect_left(BUCKETS, exchange.seconds)
        with self._lock:
            series = self._series.get(key)
            if series is None:
                series = self._series[key] = Series()
            series.counts[bucket] += 1
            series.seconds += exchange.seconds
            series.sent += exchange.sent
        repository = "" if environ is None else environ.get(REPOSITORY, "")
        if self.log is not None:
            self.log.append(exchange, route, repository)
        if self._tell is not None:
            self._tell(exchange, method, route, repository)

    def series(self) -> dict[Key, tuple[tuple[int, ...], float, int]]:
        """For all requests so far: how many in each bucket, their seconds and their bytes."""
        with self._lock:
            return {
                key: (tuple(series.counts), series.seconds, series.sent)
                for key, series in self._series.items()
            }

    def load(self) -> Load | None:
        """How busy the engine is; None if the application runs in another server."""
        return None if self._load is None else self._load()

    def _route_of(self, environ: Mapping[str, Any], method: str) -> str:
        return template(self._find_route(environ["PATH_INFO"], method))


def template(rule: str | None) -> str:
    """The route to count: the same one with and without a repository in the path."""
    if rule is None:
        return NO_ROUTE
    return rule.removeprefix(_OF_REPOSITORY) or "/"
