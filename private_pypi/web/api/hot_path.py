"""Answer what installers ask for most, pages and files of projects, without Flask.

The routing, the request context and the response object of Flask take several times as long as the
answer itself. All decisions are made by the same functions that the views call. Every request that
needs more than that (another method, a query, a redirect, an error) goes on to the application.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

from packaging.utils import NormalizedName

from private_pypi.backend import Access
from private_pypi.errors import PrivatePypiError
from private_pypi.pages.simple_api import Representation, negotiate
from private_pypi.repositories import Grant, Repositories
from private_pypi.web.api.simple import begin_to_wait, file_of, found_content, page_key, rendered
from private_pypi.web.deployment import Deployment
from private_pypi.web.http.content import (
    BLOCK,
    LONGEST_KEPT,
    Content,
    Page,
    PageCache,
    conditions_of,
    page_content,
)
from private_pypi.web.http.credentials import parse_credentials
from private_pypi.web.operations.request_statistics import REPOSITORY, ROUTE
from private_pypi.web.serving import LET_IN, WAITING, Answer

# Only with normalized names, because others are redirected (protocol 7).
_PLAIN = re.compile(r"(?:/r/([^/]+))?/simple/([a-z0-9]+(?:-[a-z0-9]+)*)/([^/]*)")

_negotiate = functools.lru_cache(maxsize=256)(negotiate)

_LARGE = 64 * 1024  # bytes, compressed; the loop does not send larger pages

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
        match = self._match(environ) if environ["REQUEST_METHOD"] == "GET" else None
        content = None if match is None else self._content(environ, match)
        if content is None:
            return self._application(environ, start_response)
        start_response(content.status, content.headers)
        if isinstance(content.body, bytes):
            return [content.body]
        wrapper = environ.get("wsgi.file_wrapper", _blocks)
        return cast(Iterable[bytes], wrapper(content.body, BLOCK))

    def at_once(self, environ: dict[str, Any]) -> Answer | None:
        """A rendered page for a caller who was let in before (see `serving.gate.AtOnce`).

        Raises `Later` if a mirror has to be asked for it. Then the thread that asks renders the
        page as well.
        """
        match = self._match(environ)
        repositories = self._served.known_repositories
        representation = _representation(environ)
        # A file, for which match[3] is its name, has to be read from disk.
        if match is None or match[3] or repositories is None or representation is None:
            return None
        try:
            project = cast(NormalizedName, match[2])
            granted = _authorize(repositories, environ, match)
            found = granted.find_at_hand(project)
            if found is None:
                # Other kinds of repositories would open connections to their local indexes there.
                prepare = partial(self._answer, granted, project, representation, environ)
                begin_to_wait(
                    granted,
                    project,
                    environ.get(WAITING),
                    prepare if granted.repository.is_mirror else None,
                    for_installer=representation is Representation.JSON,
                )
                return None
        except PrivatePypiError:
            return None
        page = self._pages.find(page_key(found, representation))
        return None if page is None else _answer_with(page, granted, environ)

    def _answer(
        self,
        granted: Grant,
        project: NormalizedName,
        representation: Representation,
        environ: dict[str, Any],
    ) -> Answer | None:
        """The page of a project that was read meanwhile; None: a worker answers, or reports why."""
        try:
            found = granted.find_at_hand(project)
            page = None if found is None else rendered(self._pages, found, representation)
        except PrivatePypiError:
            return None
        return None if page is None else _answer_with(page, granted, environ)

    def _match(self, environ: dict[str, Any]) -> re.Match[str] | None:
        """The match of `_PLAIN` if the request can be answered here."""
        if environ.get("QUERY_STRING") or not self._served.serves(environ.get("HTTP_HOST")):
            return None
        return _PLAIN.fullmatch(environ["PATH_INFO"])

    def _content(self, environ: dict[str, Any], match: re.Match[str]) -> Content | None:
        project, filename = cast(NormalizedName, match[2]), match[3]
        conditions = conditions_of(environ, is_plain=True)
        try:
            granted = _authorize(self._served.repositories, environ, match)
            if filename:
                at_hand = granted.is_at_hand(project)
                return file_of(granted, project, filename, conditions) if at_hand else None
            representation = _representation(environ)
            found = granted.find_at_hand(project)
            if representation is None or found is None:
                return None
            return found_content(self._pages, granted, found, representation, conditions)
        except PrivatePypiError:
            return None  # the view raises the same error, and it is answered there


def _answer_with(page: Page, granted: Grant, environ: dict[str, Any]) -> Answer | None:
    """The answer with a page; None if it is so large that a worker has to send it."""
    if page.size > _LARGE:
        return None
    return page_content(page, conditions_of(environ), public=granted.is_public).as_answer()


def _authorize(repositories: Repositories, environ: dict[str, Any], match: re.Match[str]) -> Grant:
    """The grant to read, without asking a storage. Notes in the environment what is known."""
    granted = repositories.authorize(
        parse_credentials(environ.get("HTTP_AUTHORIZATION")),
        name=match[1],
        need=Access.READ,
        ask=False,  # for a new secret the storage is asked once, by the view
    )
    environ[LET_IN] = "HTTP_AUTHORIZATION" in environ
    environ[ROUTE] = _FILE_ROUTE if match[3] else _PAGE_ROUTE
    environ[REPOSITORY] = granted.name
    return granted


def _representation(environ: dict[str, Any]) -> Representation | None:
    """The representation to send; None if there is none, or the header is too long to cache."""
    accept = environ.get("HTTP_ACCEPT")
    return None if accept is not None and len(accept) > LONGEST_KEPT else _negotiate(accept)


def _blocks(file: Any, size: int) -> Iterable[bytes]:
    """A `wsgi.file_wrapper` for servers that do not have one."""
    try:
        while block := file.read(size):
            yield block
    finally:
        file.close()
