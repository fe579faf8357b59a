"""What the simple API answers, as HTTP content: the list, pages of projects, and files.

It knows neither routes nor Flask, so that `hot_path` can answer before Flask is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from packaging.utils import NormalizedName

from private_pypi.errors import FileNotFound
from private_pypi.model import ListedFile
from private_pypi.pages.simple_api import Representation, project_detail, project_list
from private_pypi.repositories import Found, Grant, Opened
from private_pypi.web.http.content import (
    Conditions,
    Content,
    FileFacts,
    Page,
    PageKey,
    file_content,
    make_page,
    page_content,
)

_METADATA = ".metadata"


class Pages(Protocol):
    """Rendered pages: a `PageCache`, or a part of one."""

    def get(self, key: PageKey, render: Callable[[], Page]) -> Page:
        """The page with this key, which is rendered if need be."""


def list_content(
    pages: Pages, granted: Grant, representation: Representation, conditions: Conditions
) -> Content:
    """The list of the projects that the caller may see."""
    listed = granted.list_projects()

    def render() -> Page:
        pieces = project_list(listed.read(), representation, serial=listed.serial)
        return make_page(pieces, representation.content_type, listed.serial)

    key = PageKey(listed.kept_in, None, listed.serial, representation, "")
    return page_content(
        pages.get(key, render),
        conditions,
        public=granted.is_public,
        freshness=listed.freshness,
    )


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

    def render() -> Page:
        said = found.read()
        text = project_detail(
            found.project,
            said.files,
            representation,
            serial=found.serial,
            status=said.status,
            base=base,
        )
        return make_page(text, representation.content_type, found.serial)

    key = PageKey(found.kept_in, found.project, found.serial, representation, base)
    page = pages.get(key, render)
    return page_content(page, conditions, public=granted.is_public, freshness=found.freshness)


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
    if not filename.endswith(_METADATA):
        return file_content_of(granted, granted.file(project, filename), conditions, open_small)
    file = granted.file(project, filename.removesuffix(_METADATA))
    if not file.offers_core_metadata:
        raise FileNotFound(filename)
    return file_content(
        FileFacts(
            sha256=file.core_metadata_sha256,
            size=None,
            content_type="text/plain; charset=utf-8",
            last_modified=file.uploaded_at,
        ),
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
        FileFacts(sha256=file.sha256, size=file.size, last_modified=file.uploaded_at),
        lambda: open_small(
            granted, file.sha256, lambda: granted.open_file(file, conditions.awaited)
        ),
        conditions,
        public=granted.is_public,
        opens_for_head=granted.opens_files_here,
    )
