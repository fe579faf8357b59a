"""What installers ask for most, pages and files of projects, answered without Flask.

Routing, a request context and a response object cost several times what the answer itself does.
Everything is decided by the functions that the views call too, and whatever is not plain (another
method, a query, a redirect, an error) goes on to the application.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from typing import Any, cast

from packaging.utils import NormalizedName

from private_pypi.backend import Access
from private_pypi.errors import PrivatePypiError
from private_pypi.simple_api import Representation, negotiate
from private_pypi.web.auth import parse_credentials
from private_pypi.web.content import (
    BLOCK,
    LONGEST_KEPT,
    Conditions,
    Content,
    PageCache,
    page_content,
)
from private_pypi.web.deployment import Deployment
from private_pypi.web.operations.watching import REPOSITORY, ROUTE
from private_pypi.web.serving import Answer
from private_pypi.web.simple import file_of, page_key, project_content

# Normalised names only: others are redirected (protocol 7).
_PLAIN = re.compile(r"(?:/r/([^/]+))?/simple/([a-z0-9]+(?:-[a-z0-9]+)*)/([^/]*)")

_negotiate = functools.lru_cache(maxsize=256)(negotiate)

_LARGE = 64 * 1024  # bytes, compressed; larger pages may keep the loop too long

_PAGE_ROUTE = "/simple/<name>/"
_FILE_ROUTE = "/simple/<name>/<filename>"

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
        content = None
        if environ["REQUEST_METHOD"] == "GET" and not environ.get("QUERY_STRING"):
            match = _PLAIN.fullmatch(environ["PATH_INFO"])
            if match is not None:
                content = self._content(environ, match)
        if content is None:
            return self._application(environ, start_response)
        start_response(content.status, content.headers)
        if isinstance(content.body, bytes):
            return [content.body]
        wrapper = environ.get("wsgi.file_wrapper", _blocks)
        return cast(Iterable[bytes], wrapper(content.body, BLOCK))

    def at_once(self, environ: dict[str, Any]) -> Answer | None:
        """A page that is rendered already, for one who was let in before; waits for nothing."""
        match = _PLAIN.fullmatch(environ["PATH_INFO"])
        repositories = self._served.known_repositories
        representation = _representation(environ)
        if (
            environ.get("QUERY_STRING")
            or match is None
            or match[3]  # a file: it is on a disk
            or repositories is None
            or representation is None
        ):
            return None
        try:
            granted = repositories.authorize(
                parse_credentials(environ.get("HTTP_AUTHORIZATION")),
                name=match[1],
                need=Access.READ,
                ask=False,
            )
            project = cast(NormalizedName, match[2])
            if not granted.is_at_hand(project):
                return None
            key = page_key(granted, project, representation)
        except PrivatePypiError:
            return None
        page = None if key is None else self._pages.find(key)
        if page is None or page.size > _LARGE:
            return None
        content = page_content(page, _conditions(environ), public=granted.repository.is_public)
        assert isinstance(content.body, bytes)
        environ[ROUTE] = _PAGE_ROUTE
        environ[REPOSITORY] = granted.repository.name
        return content.status, content.headers, content.body

    def _content(self, environ: dict[str, Any], match: re.Match[str]) -> Content | None:
        repository, name, filename = match.groups()
        project = cast(NormalizedName, name)
        asked = _conditions(environ)
        try:
            granted = self._served.repositories.authorize(
                parse_credentials(environ.get("HTTP_AUTHORIZATION")),
                name=repository,
                need=Access.READ,
                ask=False,  # who is here for the first time is asked about once, further on
            )
            environ[ROUTE] = _FILE_ROUTE if filename else _PAGE_ROUTE
            environ[REPOSITORY] = granted.repository.name
            if not granted.is_at_hand(project):
                return None
            if filename:
                return file_of(granted, project, filename, asked)
            representation = _representation(environ)
            if representation is None:
                return None
            return project_content(self._pages, granted, project, representation, asked)
        except PrivatePypiError:
            return None  # the application finds the same, and says it


def _representation(environ: dict[str, Any]) -> Representation | None:
    """What is asked for; None when it is nothing that we have, or is said in too many words."""
    accept = environ.get("HTTP_ACCEPT")
    return None if accept is not None and len(accept) > LONGEST_KEPT else _negotiate(accept)


def _conditions(environ: dict[str, Any]) -> Conditions:
    return Conditions(
        "GET",
        environ.get("HTTP_ACCEPT_ENCODING"),
        environ.get("HTTP_IF_NONE_MATCH"),
        environ.get("HTTP_IF_RANGE"),
        environ.get("HTTP_RANGE"),
    )


def _blocks(file: Any, size: int) -> Iterable[bytes]:
    """For servers that have no way of their own to send a file."""
    try:
        while block := file.read(size):
            yield block
    finally:
        file.close()
