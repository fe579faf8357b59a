"""Answer what installers ask for most, pages and files of projects, without Flask.

The routing, the request context and the response object of Flask take several times as long as the
answer itself. All decisions are made by the same functions that the views call. Every request that
needs more than that (another method, a query, a person in a browser, an error) goes on to the
application.

What is in memory is sent by the thread that gets the requests, because to hand a request over to
another one and back takes about as long as to answer it. Everything else is answered in a worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from typing import Any, cast

from packaging.utils import NormalizedName

from private_pypi.backend import Access
from private_pypi.errors import FileNotFound, PrivatePypiError, ProjectNotFound
from private_pypi.model import Freshness
from private_pypi.pages.simple_api import Representation
from private_pypi.repositories import Absent, Elsewhere, Found, Grant, Repositories
from private_pypi.repositories.repository import NotAtHand
from private_pypi.web.api.asked import Asked, AskedBefore
from private_pypi.web.api.simple_content import (
    Pages,
    begin_look,
    begin_to_wait,
    content_of_file,
    content_to_fetch,
    file_of,
    file_with_hash,
    found_content,
    later_than,
    list_content,
    open_any,
    redirect,
    rendered,
    rendered_list,
)
from private_pypi.web.deployment import Deployment
from private_pypi.web.http.answers import answer_error
from private_pypi.web.http.content import (
    Conditions,
    Content,
    page_content,
)
from private_pypi.web.http.page_cache import BLOCK, Page, PageCache, PageKey
from private_pypi.web.http.small_files import NotInMemory, SmallFiles
from private_pypi.web.operations.request_statistics import REPOSITORY, ROUTE
from private_pypi.web.serving import LET_IN, WAITING, Answer

_LARGE = 64 * 1024  # bytes, compressed; no larger page is prepared for a request that waits
_FEW = 20  # files; a page of so few is rendered in less time than another thread takes to begin

_Source = tuple[Hashable, int, Freshness, bool]
"""What an answer with a page follows from: where the page is kept, its serial, how fresh it is, and
whether the repository is public. The first two identify one state of a page."""

WSGI = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class HotPath:
    """A WSGI application in front of another one."""

    def __init__(self, application: WSGI, served: Deployment, pages: PageCache) -> None:
        self._application = application
        self._served = served
        self._pages = pages
        self._in_memory = _Kept(pages)
        self._files = SmallFiles()
        self._asked = AskedBefore()

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        content = None
        if environ["REQUEST_METHOD"] == "GET":
            content = self._content(environ)
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
        the thread that asks makes the answer as well. Also raises it if an unknown file has to be
        looked for in the storage.
        """
        repositories = self._served.known_repositories
        if repositories is None or not self._is_plain(environ):
            return None
        asked = self._asked.read(environ)
        if asked is None:
            return None
        try:
            granted = _authorize(repositories, environ, asked)
            if asked.project is None:
                return self._list_at_once(granted, asked)
            if asked.filename:
                return self._file_at_once(environ, granted, asked, asked.project, asked.filename)
            return self._page_at_once(environ, granted, asked, asked.project)
        except PrivatePypiError:
            return None  # the view raises the same error, and it is answered there

    def _content(self, environ: dict[str, Any]) -> Content | None:
        """The answer in a thread; None: the application has to give it."""
        repositories = self._served.repositories
        if not self._is_plain(environ):
            return None
        asked = self._asked.read(environ)
        if asked is None:
            return None
        conditions = replace(asked.fields.conditions, waiting=environ.get(WAITING))
        try:
            granted = _authorize(repositories, environ, asked)
            if asked.project is None:
                if asked.fields.representation is None or not granted.has_everything:
                    return None
                return list_content(self._pages, granted, asked.fields.representation, conditions)
            if asked.filename:
                if not granted.is_at_hand(asked.project):
                    return None
                # What is kept is only looked at by `at_once`.
                open_small = self._files.open if granted.has_everything else open_any
                return file_of(granted, asked.project, asked.filename, conditions, open_small)
            if asked.fields.representation is None:
                return None
            found = granted.find(asked.project, ask=False)
            if isinstance(found, Found):
                return found_content(
                    self._pages, granted, found, asked.fields.representation, conditions
                )
            return _content_without(found, asked, asked.project)
        except PrivatePypiError:
            return None

    def _is_plain(self, environ: dict[str, Any]) -> bool:
        return not environ.get("QUERY_STRING") and self._served.serves(environ.get("HTTP_HOST"))

    def _list_at_once(self, granted: Grant, asked: Asked) -> Answer | None:
        representation = asked.fields.representation
        if representation is None or not granted.has_everything:
            return None
        listed = granted.list_projects()
        made_of = (listed.kept_in, listed.serial, listed.freshness, granted.is_public)
        last = self._last_page(asked, made_of)
        if last is not None:
            return last
        page = rendered_list(self._in_memory, listed, representation)
        return self._page_answer(granted, asked, self._in_memory, page, made_of)

    def _page_at_once(
        self,
        environ: dict[str, Any],
        granted: Grant,
        asked: Asked,
        project: NormalizedName,
    ) -> Answer | None:
        representation = asked.fields.representation
        if representation is None:
            return None
        try:
            found = granted.find(project, ask=False)
        except NotAtHand:
            self._begin_to_wait(environ, granted, project, representation, asked.fields.conditions)
            return None
        if not isinstance(found, Found):
            if asked.last is not None and asked.last[0] == (found,):
                return asked.last[1]
            content = _content_without(found, asked, project)
            return None if content is None else self._asked.keep(asked, (found,), content)
        made_of = (found.kept_in, found.serial, found.freshness, granted.is_public)
        last = self._last_page(asked, made_of)
        if last is not None:
            return last
        is_quick = found.count is not None and found.count <= _FEW
        pages = self._pages if is_quick else self._in_memory
        page = rendered(pages, found, representation)
        return self._page_answer(granted, asked, pages, page, made_of)

    def _last_page(self, asked: Asked, made_of: _Source) -> Answer | None:
        """The last answer, if it was made of the same; then the page need not be looked for."""
        if asked.last is None or asked.last[0] != made_of:
            return None
        self._pages.sent_again += 1
        return asked.last[1]

    def _page_answer(
        self, granted: Grant, asked: Asked, pages: Pages, page: Page, made_of: _Source
    ) -> Answer | None:
        content = page_content(
            page,
            asked.fields.conditions,
            public=granted.is_public,
            freshness=made_of[2],
            text_of=pages.text,
        )
        # A short page is compressed when it is asked for again.
        is_last_form = page.is_compressed or not page.is_worth_compressing
        return self._asked.keep(asked, made_of if is_last_form else None, content)

    def _file_at_once(
        self,
        environ: dict[str, Any],
        granted: Grant,
        asked: Asked,
        project: NormalizedName,
        filename: str,
    ) -> Answer | None:
        if not granted.has_everything:
            conditions = replace(asked.fields.conditions, waiting=environ.get(WAITING))
            to_fetch = content_to_fetch(granted, project, filename, conditions)
            return None if to_fetch is None else to_fetch.as_answer()
        try:
            file, _ = file_with_hash(granted, project, filename)
        except FileNotFound:
            look = begin_look(granted, project, filename, time.monotonic())
            if look is not None and WAITING in environ:
                raise later_than(look) from None
            raise
        made_of = (file, granted.is_public)
        if asked.last is not None and asked.last[0] == made_of:
            return asked.last[1]
        content = content_of_file(
            granted, file, filename, asked.fields.conditions, self._files.find
        )
        return self._asked.keep(asked, made_of, content)

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


def _authorize(repositories: Repositories, environ: dict[str, Any], asked: Asked) -> Grant:
    """The grant to read, without asking a storage. Notes in the environment what is known."""
    granted = repositories.authorize(
        asked.fields.credentials,
        name=asked.name,
        need=Access.READ,
        ask=False,  # for a new secret the storage is asked once, by the view
    )
    environ[LET_IN] = "HTTP_AUTHORIZATION" in environ
    environ[REPOSITORY] = granted.name
    environ[ROUTE] = asked.route
    return granted


def _content_without(
    found: Elsewhere | Absent, asked: Asked, project: NormalizedName
) -> Content | None:
    """The answer if the repository does not have the project; None: a person gets a page."""
    if isinstance(found, Elsewhere):
        return redirect(found.url)
    if asked.fields.may_be_browser:
        return None
    answer = answer_error(ProjectNotFound(project), asked.fields.accept)
    return Content(f"{answer.status} {answer.reason}", list(answer.headers), answer.body)


def _blocks(file: Any, size: int) -> Iterable[bytes]:
    """A `wsgi.file_wrapper` for servers that do not have one."""
    try:
        while block := file.read(size):
            yield block
    finally:
        file.close()
