"""The request that installers send most, a project's page, answered without Flask; nothing else is.

Routing, a request context and a response object cost several times what the page itself does. All
that is decided here is decided by the functions that the view calls too, and whatever is not plain
(another method, a query, a redirect, an error) goes on to the application.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from typing import Any, cast

from packaging.utils import NormalizedName

from private_pypi.backend import Access
from private_pypi.errors import PrivatePypiError
from private_pypi.simple_api import negotiate
from private_pypi.web.auth import parse_credentials
from private_pypi.web.deployment import Deployment
from private_pypi.web.simple import PageCache, page_answer, project_page

# Normalised names only: others are redirected (protocol 7).
_PAGE = re.compile(r"(?:/r/([^/]+))?/simple/([a-z0-9]+(?:-[a-z0-9]+)*)/")

_negotiate = functools.lru_cache(maxsize=256)(negotiate)

WSGI = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class HotPath:
    """A WSGI application in front of another one."""

    def __init__(self, application: WSGI, served: Deployment, pages: PageCache) -> None:
        self._application = application
        self._served = served
        self._pages = pages

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        answer = self._answer(environ)
        if answer is None:
            return self._application(environ, start_response)
        status, headers, body = answer
        start_response(status, headers)
        return [body]

    def _answer(self, environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes] | None:
        if environ["REQUEST_METHOD"] != "GET" or environ.get("QUERY_STRING"):
            return None
        match = _PAGE.fullmatch(environ["PATH_INFO"])
        representation = _negotiate(environ.get("HTTP_ACCEPT"))
        if match is None or representation is None:
            return None
        try:
            granted = self._served.repositories.authorize(
                parse_credentials(environ.get("HTTP_AUTHORIZATION")),
                name=match[1],
                need=Access.READ,
            )
            page = project_page(
                self._pages, granted, cast(NormalizedName, match[2]), representation
            )
        except PrivatePypiError:
            return None  # the application finds the same, and says it
        if page is None:
            return None
        return page_answer(
            page,
            public=granted.repository.is_public,
            accept_encoding=environ.get("HTTP_ACCEPT_ENCODING"),
            if_none_match=environ.get("HTTP_IF_NONE_MATCH"),
        )
