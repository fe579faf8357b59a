"""What every request comes to first: the hot path, and after it the application in Flask.

Flask and all views are loaded when the first request needs them, because that takes longer than
everything else that a start needs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

from private_pypi.backend.chains import chained, parse_chain
from private_pypi.web.api.hot_path import HotPath
from private_pypi.web.deployment import Deployment
from private_pypi.web.http.page_cache import PageCache
from private_pypi.web.operations.logs import RequestLog
from private_pypi.web.operations.request_statistics import RequestStatistics, Tell
from private_pypi.web.root_addresses import RootAddresses
from private_pypi.web.serving import Answer, RequestHead, Stop, Verdict
from private_pypi.web.sessions.sessions import load_seal

if TYPE_CHECKING:
    from flask import Flask

    from private_pypi.web.api.metrics import AllMetrics
    from private_pypi.web.serving import Gate

HOT_PATH = "private_pypi.hot_path"
"""The key of the `HotPath` in `Flask.extensions`."""


class Front:
    """A WSGI application for a deployment, with what the engine asks before it calls it."""

    def __init__(
        self,
        served: Deployment,
        request_log: RequestLog | None = None,
        tell: Tell | None = None,
        stop: Stop | None = None,
    ) -> None:
        """Raises `ConfigurationError` for a wrong key of sessions."""
        self._served = served
        self._stop = stop or Stop()
        self._seal = load_seal(served.root, served.environ, served.options.session_key)
        self._pages = PageCache()
        self._lock = threading.Lock()  # held while the application is made
        self._views: Callable[..., Iterable[bytes]]  # what Flask calls `wsgi_app`
        self._hot_path = HotPath(self._call_application, served, self._pages)
        self.statistics = RequestStatistics(self._find_route, request_log, tell)
        self.aliases = RootAddresses(served, self._own_addresses)

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        self.aliases.translate(environ)
        with _chain_of(environ):
            return self._hot_path(environ, start_response)

    def at_once(self, environ: dict[str, Any]) -> Answer | None:
        """See `serving.AtOnce`."""
        self.aliases.translate(environ)
        if "HTTP_CDN_LOOP" not in environ:  # even an empty context takes time
            return self._hot_path.at_once(environ)
        with _chain_of(environ):
            return self._hot_path.at_once(environ)

    def gate(self, head: RequestHead) -> Verdict:
        """See `serving.Gate`."""
        return self._gate(self.aliases.of_head(head))

    def application(self) -> Flask:
        """The application in Flask, which is made at the first call."""
        with self._lock:
            return self._application

    @cached_property
    def _application(self) -> Flask:
        from private_pypi.web.application import make_application

        app = make_application(self._served, self._seal, self._pages, self.statistics, self._stop)
        app.extensions[HOT_PATH] = self._hot_path
        self._views = app.wsgi_app
        app.wsgi_app = self  # type: ignore[method-assign]  # under other servers, too
        return app

    def metrics(self) -> AllMetrics:
        """The metrics of the server."""
        from private_pypi.web.api.metrics import METRICS

        collector: AllMetrics = self.application().extensions[METRICS]
        return collector

    def close(self) -> None:
        """Let what this process has counted count for the process that replaces it."""
        if "_application" in self.__dict__:
            self.metrics().close()

    def _call_application(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        self.application()
        return self._views(environ, start_response)

    @cached_property
    def _gate(self) -> Gate:
        from private_pypi.web.api.legacy import make_gate

        return make_gate(self._served)

    def _find_route(self, path: str, method: str) -> str | None:
        """The route of a request that did not get to the application."""
        from private_pypi.web.application import find_route

        return find_route(self.application(), path, method)

    def _own_addresses(self) -> Collection[str]:
        """The first segments of all addresses that are not those of tenants."""
        rules = self.application().url_map.iter_rules()
        return {rule.rule.split("/")[1] for rule in rules}


def _chain_of(environ: dict[str, Any]) -> AbstractContextManager[None]:
    """The context of a request: through which mirrors it came."""
    header = environ.get("HTTP_CDN_LOOP")
    return nullcontext() if header is None else chained(parse_chain(header))
