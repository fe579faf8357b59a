"""What the simple API answers, as HTTP content: the list, pages of projects, and files.

It knows neither routes nor Flask, so that `hot_path` can answer before Flask is loaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from packaging.utils import NormalizedName

from private_pypi.errors import BackendUnavailable, FileHidden, FileNotFound
from private_pypi.index.looking import Look
from private_pypi.model import ListedFile
from private_pypi.pages.simple_api import (
    Representation,
    project_detail,
    project_list,
    project_of_rows,
)
from private_pypi.repositories import Found, Grant, Opened, ProjectList
from private_pypi.system.background import Pending
from private_pypi.web.http.content import (
    Conditions,
    Content,
    FileFacts,
    file_content,
    page_content,
)
from private_pypi.web.http.page_cache import Page, PageKey, make_page
from private_pypi.web.serving import Answer, Later, Waiting

_METADATA = ".metadata"

_PAGE_WAIT = 15.0
"""Seconds for which a request waits for a page of another index. Then it gets what is known of the
page, if anything. Installers give up a little later."""

_LOOK_WAIT = 10.0
"""Seconds for which a request waits until the storage was looked at for an unknown file."""


class Pages(Protocol):
    """Rendered pages: a `PageCache`, or a part of one."""

    def get(self, key: PageKey, render: Callable[[], Page]) -> Page:
        """The page with this key, which is rendered if need be."""

    def text(self, page: Page) -> bytes:
        """The text of a page that is not `is_long`."""


def list_content(
    pages: Pages, granted: Grant, representation: Representation, conditions: Conditions
) -> Content:
    """The list of the projects that the caller may see."""
    listed = granted.list_projects()
    return page_content(
        rendered_list(pages, listed, representation),
        conditions,
        public=granted.is_public,
        freshness=listed.freshness,
        text_of=pages.text,
    )


def rendered_list(pages: Pages, listed: ProjectList, representation: Representation) -> Page:
    """A list of projects as it is kept in memory, rendered if it is not there."""

    def render() -> Page:
        pieces = project_list(listed.read(), representation, serial=listed.serial)
        return make_page(pieces, representation.content_type, listed.serial)

    return pages.get(PageKey(listed.kept_in, None, listed.serial, representation, ""), render)


def found_content(
    pages: Pages,
    granted: Grant,
    found: Found,
    representation: Representation,
    conditions: Conditions,
    *,
    base: str = "",
) -> Content:
    """The page of a project; to render it costs one query of the local index.

    `base` is put before the names of files to make relative addresses.
    """
    page = rendered(pages, found, representation, base)
    return page_content(
        page,
        conditions,
        public=granted.is_public,
        freshness=found.freshness,
        text_of=pages.text,
    )


def rendered(pages: Pages, found: Found, representation: Representation, base: str = "") -> Page:
    """The page of a project as it is kept in memory, rendered if it is not there."""

    def render() -> Page:
        rows = found.rows()
        if rows is not None:
            text = project_of_rows(
                found.project, rows, representation, serial=found.serial, base=base
            )
        else:
            page = found.read()
            text = project_detail(
                found.project,
                page.files,
                representation,
                serial=found.serial,
                status=page.status,
                base=base,
            )
        return make_page(text, representation.content_type, found.serial)

    key = PageKey(found.kept_in, found.project, found.serial, representation, base)
    return pages.get(key, render)


def begin_to_wait(
    granted: Grant,
    project: NormalizedName,
    waiting: Waiting | None,
    prepare: Callable[[], Answer | None] | None = None,
    *,
    for_installer: bool = False,
) -> None:
    """Raise `Later` if another index has to be asked for a page, and the server supports that.

    `waiting`: how the request has waited, from its environment. `prepare`: see `Later`.
    `for_installer`: see `Repository.begin_find`.
    """
    if waiting is None:
        return
    if isinstance(waiting.awaited, Pending):
        waiting.awaited.give_up()  # if it is not over after this time, no thread waits for it
    if waiting.awaited is not None or waiting.is_over:
        return
    pending = granted.begin_find(project, for_installer=for_installer)
    if pending is not None:
        raise Later(
            pending,
            pending.call_when_over,
            pending.forget,
            seconds=_PAGE_WAIT,
            prepare=prepare,
        )


def redirect(url: str) -> Content:
    """A redirect to the page of another index.

    It is never 304: what the client has may be our own page, from when the project was here.
    """
    return Content("302 Found", [("Location", url), ("Cache-Control", "no-store")])


OpenSmall = Callable[[Grant, str | None, Callable[[], Opened]], Opened]
"""Opens a file that the caller may read, given its hash and a function that opens it."""


def open_any(granted: Grant, sha256: str | None, open_it: Callable[[], Opened]) -> Opened:
    """Open the file, whatever its content is."""
    return open_it()


def file_of(
    granted: Grant,
    project: NormalizedName,
    filename: str,
    conditions: Conditions,
    open_small: OpenSmall = open_any,
) -> Content:
    """A file of a project, or its core metadata under `<filename>.metadata` (PEP 658).

    `open_small` is called to open the file, and may know the content already. Raises
    `FileNotFound`, and what `Grant.file` and `file_content` raise.
    """
    file, _ = file_with_hash(granted, project, filename)
    return content_of_file(granted, file, filename, conditions, open_small)


def looked_for_file(
    granted: Grant, project: NormalizedName, filename: str, conditions: Conditions
) -> Content:
    """The same, but a file that is not known here is looked for before it is called absent.

    Another server may have published it a moment ago. Raises `Later` if the server supports that,
    and `BackendUnavailable` if the storage takes too long.
    """
    waiting = conditions.waiting
    awaited = None if waiting is None else waiting.awaited
    since = awaited.since if isinstance(awaited, Look) else None
    has_waited = waiting is not None and waiting.is_over
    while True:
        # This comes before the file is asked for, so that what a look has found is there.
        look = None if since is None else begin_look(granted, project, filename, since)
        try:
            return file_of(granted, project, filename, conditions)
        except FileHidden:
            raise
        except FileNotFound:
            if since is not None and look is None:
                raise
        if look is None:
            since = time.monotonic()
        elif has_waited:
            raise BackendUnavailable(
                f"whether {filename!r} exists is not known yet, because the storage takes too long",
                retry_after=5,
            )
        elif waiting is not None:
            raise later_than(look)
        else:
            look.wait(_LOOK_WAIT)
            has_waited = True


def begin_look(granted: Grant, project: NormalizedName, filename: str, since: float) -> Look | None:
    """Begin to look for a file, or that of core metadata; see `Repository.begin_look`."""
    return granted.begin_look(project, filename.removesuffix(_METADATA), since)


def later_than(look: Look) -> Later:
    """What a request raises that waits for a look."""
    return Later(look, look.call_when_over, look.forget, seconds=_LOOK_WAIT)


def file_with_hash(
    granted: Grant, project: NormalizedName, filename: str
) -> tuple[ListedFile, str | None]:
    """The file that `filename` names, and the hash of what is to be sent: it or its core metadata.

    Raises `FileNotFound`, and what `Grant.file` raises.
    """
    file = granted.file(project, filename.removesuffix(_METADATA))
    if not filename.endswith(_METADATA):
        return file, file.sha256
    if not file.offers_core_metadata:
        raise FileNotFound(filename)
    return file, file.core_metadata_sha256


def content_of_file(
    granted: Grant,
    file: ListedFile,
    filename: str,
    conditions: Conditions,
    open_small: OpenSmall = open_any,
) -> Content:
    """What `filename` names: the file, or its core metadata; see `file_of`."""
    if not filename.endswith(_METADATA):
        return file_content_of(granted, file, conditions, open_small)
    return file_content(
        _facts_of_core_metadata(file),
        lambda: open_small(
            granted,
            file.core_metadata_sha256,
            lambda: granted.open_core_metadata(file, conditions.awaited),
        ),
        conditions,
        public=granted.is_public,
    )


def file_content_of(
    granted: Grant, file: ListedFile, conditions: Conditions, open_small: OpenSmall = open_any
) -> Content:
    """The content of a file that was found; see `file_of`."""
    return file_content(
        _facts_of(file),
        lambda: open_small(
            granted, file.sha256, lambda: granted.open_file(file, conditions.awaited)
        ),
        conditions,
        public=granted.is_public,
        opens_for_head=granted.opens_files_here,
    )


def content_to_fetch(
    granted: Grant, project: NormalizedName, filename: str, conditions: Conditions
) -> Content | None:
    """The same of a file that has to be fetched from another index, without waiting.

    None: a thread has to find out what the answer is. Raises `Later` when the transfer has begun.
    """
    if conditions.waiting is None:
        return None
    of_metadata = filename.endswith(_METADATA)
    name = filename.removesuffix(_METADATA) if of_metadata else filename
    found = granted.to_fetch(project, name, core_metadata=of_metadata)
    if found is None:
        return None
    facts = _facts_of_core_metadata(found.file) if of_metadata else _facts_of(found.file)
    return file_content(facts, found.begin, conditions, public=granted.is_public)


def _facts_of(file: ListedFile) -> FileFacts:
    return FileFacts(sha256=file.sha256, size=file.size, last_modified=file.uploaded_at)


def _facts_of_core_metadata(file: ListedFile) -> FileFacts:
    return FileFacts(
        sha256=file.core_metadata_sha256,
        size=None,
        content_type="text/plain; charset=utf-8",
        last_modified=file.uploaded_at,
    )
