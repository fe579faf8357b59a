"""Answer what installers ask for most, pages and files of projects, without Flask.

The routing, the request context and the response object of Flask take several times as long as the
answer itself. All decisions are made by the same functions that the views call. Every request that
needs more than that (another method, a query, a person in a browser, an error) goes on to the
application.

What is in memory is sent by the loop of the server itself, because to hand a request over to a
thread and back takes about as long as to answer it. Everything else is answered in a thread.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from typing import Any, cast

from packaging.utils import NormalizedName

from private_pypi.backend import Access
from private_pypi.errors import PrivatePypiError, ProjectNotFound
from private_pypi.pages.simple_api import Representation, negotiate
from private_pypi.repositories import Absent, Elsewhere, Found, Grant, Repositories
from private_pypi.repositories.repository import NotAtHand
from private_pypi.web.api.simple_content import (
    begin_to_wait,
    content_to_fetch,
    file_of,
    found_content,
    list_content,
    open_any,
    redirect,
    rendered,
)
from private_pypi.web.deployment import Deployment
from private_pypi.web.http.answers import answer_error
from private_pypi.web.http.content import (
    LONGEST_KEPT,
    Conditions,
    Content,
    conditions_of,
    page_content,
)
from private_pypi.web.http.credentials import parse_credentials
from private_pypi.web.http.page_cache import BLOCK, Page, PageCache, PageKey
from private_pypi.web.http.small_files import NotInMemory, SmallFiles
from private_pypi.web.operations.request_statistics import REPOSITORY, ROUTE
from private_pypi.web.serving import LET_IN, WAITING, Answer

# Only with normalized names, because others are redirected (protocol 7).
_PLAIN = re.compile(r"(?:/r/([^/]+))?/simple/(?:([a-z0-9]+(?:-[a-z0-9]+)*)/([^/]*))?")

_negotiate = functools.lru_cache(maxsize=256)(negotiate)

_LARGE = 64 * 1024  # bytes, compressed; no larger page is prepared for a request that waits
_FEW = 20  # files; a page of so few is rendered in less time than another thread takes to begin

WSGI = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class HotPath:
    """A WSGI application in front of another one."""

    def __init__(self, application: WSGI, served: Deployment, pages: PageCache) -> None:
        self._application = application
        self._served = served
        self._pages = pages
        self._files = SmallFiles()

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        content = None
        if environ["REQUEST_METHOD"] == "GET":
            content = self._content(environ, self._served.repositories, in_loop=False)
        if content is None:
            return self._application(environ, start_response)
        start_response(content.status, content.headers)
        if isinstance(content.body, bytes):
            return [content.body]
        wrapper = environ.get("wsgi.file_wrapper", _blocks)
        return cast(Iterable[bytes], wrapper(content.body, BLOCK))

    def at_once(self, environ: dict[str, Any]) -> Answer | None:
        """What is in memory, for a caller who was let in before (see `serving.gate.AtOnce`).

        Raises `Later` if the upstream of a mirror has to be asked for a page or a file first. Then
        the thread that asks makes the answer as well.
        """
        repositories = self._served.known_repositories
        if repositories is None:
            return None
        content = self._content(environ, repositories, in_loop=True)
        return None if content is None else content.as_answer()

    def _content(
        self, environ: dict[str, Any], repositories: Repositories, *, in_loop: bool
    ) -> Content | None:
        """The answer; None: the application has to give it, or `in_loop` a thread."""
        if environ.get("QUERY_STRING") or not self._served.serves(environ.get("HTTP_HOST")):
            return None
        match = _PLAIN.fullmatch(environ["PATH_INFO"])
        if match is None:
            return None
        name, project, filename = match[1], cast("NormalizedName | None", match[2]), match[3]
        conditions = conditions_of(environ, is_plain=True)
        try:
            granted = _authorize(repositories, environ, name)
            if project is None:
                environ[ROUTE] = "/simple/"
                return self._list(environ, granted, conditions, in_loop=in_loop)
            if not filename:
                environ[ROUTE] = "/simple/<name>/"
                return self._page(environ, granted, project, conditions, in_loop=in_loop)
            environ[ROUTE] = "/simple/<name>/<filename>"
            if in_loop:
                if not granted.has_everything:
                    return content_to_fetch(granted, project, filename, conditions)
                return file_of(granted, project, filename, conditions, self._files.find)
            if not granted.is_at_hand(project):
                return None
            # What is kept is only looked at by the loop.
            open_small = self._files.open if granted.has_everything else open_any
            return file_of(granted, project, filename, conditions, open_small)
        except PrivatePypiError:
            return None  # the view raises the same error, and it is answered there

    def _list(
        self, environ: dict[str, Any], granted: Grant, conditions: Conditions, *, in_loop: bool
    ) -> Content | None:
        representation = _representation(environ)
        if representation is None or not granted.has_everything:
            return None
        pages = _Kept(self._pages) if in_loop else self._pages
        return list_content(pages, granted, representation, conditions)

    def _page(
        self,
        environ: dict[str, Any],
        granted: Grant,
        project: NormalizedName,
        conditions: Conditions,
        *,
        in_loop: bool,
    ) -> Content | None:
        representation = _representation(environ)
        if representation is None:
            return None
        try:
            found = granted.find(project, ask=False)
        except NotAtHand:
            if in_loop:
                self._begin_to_wait(environ, granted, project, representation, conditions)
            return None
        match found:
            case Found(count=count):
                is_quick = not in_loop or (count is not None and count <= _FEW)
                pages = self._pages if is_quick else _Kept(self._pages)
                return found_content(pages, granted, found, representation, conditions)
            case Elsewhere(url):
                return redirect(url)
            case Absent():
                if _may_be_browser(environ):
                    return None  # a person gets a page
                answer = answer_error(ProjectNotFound(project), environ.get("HTTP_ACCEPT"))
                status = f"{answer.status} {answer.reason}"
                return Content(status, list(answer.headers), answer.body)

    def _begin_to_wait(
        self,
        environ: dict[str, Any],
        granted: Grant,
        project: NormalizedName,
        representation: Representation,
        conditions: Conditions,
    ) -> None:
        def prepare() -> Answer | None:
            """The page that was read meanwhile; None: a thread answers, or reports why."""
            try:
                found = granted.find(project, ask=False)
                if not isinstance(found, Found):
                    return None
                page = rendered(self._pages, found, representation)
            except PrivatePypiError:
                return None
            if page.size > _LARGE:
                return None
            content = page_content(
                page,
                conditions,
                public=granted.is_public,
                freshness=found.freshness,
                text_of=self._pages.text,
            )
            return content.as_answer()

        begin_to_wait(
            granted,
            project,
            environ.get(WAITING),
            # Other kinds of repositories would open connections to their local indexes there.
            prepare if granted.repository.is_mirror else None,
            for_installer=representation is Representation.JSON,
        )


class _Kept:
    """The pages and texts of a `PageCache` that are in memory; others raise `NotInMemory`."""

    def __init__(self, pages: PageCache) -> None:
        self._pages = pages

    def get(self, key: PageKey, render: Callable[[], Page]) -> Page:
        page = self._pages.find(key)
        if page is None:
            raise NotInMemory
        return page

    def text(self, page: Page) -> bytes:
        text = self._pages.find_text(page)
        if text is None:
            raise NotInMemory
        return text


def _authorize(repositories: Repositories, environ: dict[str, Any], name: str | None) -> Grant:
    """The grant to read, without asking a storage. Notes in the environment what is known."""
    granted = repositories.authorize(
        parse_credentials(environ.get("HTTP_AUTHORIZATION")),
        name=name,
        need=Access.READ,
        ask=False,  # for a new secret the storage is asked once, by the view
    )
    environ[LET_IN] = "HTTP_AUTHORIZATION" in environ
    environ[REPOSITORY] = granted.name
    return granted


def _may_be_browser(environ: dict[str, Any]) -> bool:
    """Whether the view has to decide whether this is a browser (see `browsers.is_browser`)."""
    return not environ.get("HTTP_AUTHORIZATION") and (
        "HTTP_SEC_FETCH_MODE" in environ
        or environ.get("HTTP_USER_AGENT", "").startswith("Mozilla/")
    )


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
