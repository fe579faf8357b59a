"""The simple repository API: which page or file an address means (PEP 503, 658, 691)."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import IO, Protocol, cast

from flask import Response, request
from packaging.utils import NormalizedName
from werkzeug.exceptions import BadRequest
from werkzeug.wsgi import wrap_file

from private_pypi.backend import Access
from private_pypi.backend.times import parse_past_instant
from private_pypi.distributions.filenames import normalize
from private_pypi.errors import FileNotFound, ProjectNotFound
from private_pypi.model import ListedFile, Redirect
from private_pypi.pages.simple_api import (
    Representation,
    named_representation,
    negotiate,
    project_detail,
    project_list,
)
from private_pypi.repositories import Absent, Elsewhere, Found, Grant, Opened
from private_pypi.storage.arriving import Arriving
from private_pypi.system.background import Pending
from private_pypi.web.deployment import Deployment
from private_pypi.web.http.answers import answer_text
from private_pypi.web.http.content import (
    BLOCK,
    VARY,
    Conditions,
    Content,
    FileFacts,
    Page,
    PageKey,
    conditions_of,
    file_content,
    make_page,
    outcome,
    page_content,
)
from private_pypi.web.http.routes import Route
from private_pypi.web.requests import grant, page_cache, redirect_within, respond
from private_pypi.web.serving import Later

_PAGE_WAIT = 15.0
"""Seconds for which a request waits for a page of another index. Then it gets what is known of the
page, if anything. Installers give up a little later."""

_METADATA = ".metadata"
_INDEX_HTML = normalize("index.html")  # a project may have this name
_OF_REPOSITORY = re.compile(r"/r/([^/]+)/")


# -- views ---------------------------------------------------------------------------------------


def project_list_page(
    repository: str | None = None, version: str | None = None, instant: str | None = None
) -> Response:
    """The list of projects. `version` is that of the API in the address, such as "v1+json".

    `instant`, here and in other views: the index as it was then (see `Repository.at`).
    """
    granted = readable(repository, instant)
    representation = _representation(version)
    if representation is None:
        return _not_acceptable()
    return send(list_content(page_cache(), granted, representation, conditions_of_request()))


def project_page(
    name: str,
    repository: str | None = None,
    version: str | None = None,
    instant: str | None = None,
) -> Response:
    """The page of a project: its files."""
    granted = readable(repository, instant)
    normalized = normalize(name)
    if name != normalized:
        return redirect_within("..", normalized, "")
    representation = _representation(version)
    if representation is None:
        return _not_acceptable()
    base = f"../../{normalized}/" if version else ""
    return _project(granted, normalized, representation, base=base)


def project_page_of_hatch(name: str, to_root: str, repository: str | None = None) -> Response:
    """The page where hatch looks for what is published already. It only reads HTML (protocol 94).

    `to_root` is the relative path to the root of the repository.
    """
    granted = grant(repository, Access.READ)
    normalized = normalize(name)
    wait_without_thread(granted, normalized)
    found = granted.find(normalized)
    if not isinstance(found, Found):
        raise ProjectNotFound(normalized)
    base = f"{to_root}simple/{normalized}/"
    html = Representation.TEXT_HTML
    return send(
        found_content(page_cache(), granted, found, html, conditions_of_request(), base=base)
    )


def project_file(
    name: str, filename: str, repository: str | None = None, instant: str | None = None
) -> Response:
    """A file, or its core metadata."""
    granted = readable(repository, instant)
    normalized = normalize(name)
    if name != normalized:
        return redirect_within("..", normalized, filename)
    wait_without_thread(granted, normalized)
    return send(file_of(granted, normalized, filename, conditions_of_request()))


def asset(asset_id: str, name: str, repository: str | None = None) -> Response:
    """A file under its address of PyPIHub, as old lock files have it."""
    granted = grant(repository, Access.READ)
    return send(_asset_content(granted, asset_id, name, conditions_of_request()))


def index_html(
    name: str | None = None, repository: str | None = None, instant: str | None = None
) -> Response:
    """The same pages for mirrors and clients of static indexes (protocol 81); always HTML."""
    granted = readable(repository, instant)
    html = Representation.TEXT_HTML
    if name is None:
        if granted.has_files(_INDEX_HTML):
            return redirect_within(_INDEX_HTML, "")
        return send(list_content(page_cache(), granted, html, conditions_of_request()))
    normalized = normalize(name)
    if name != normalized:
        return redirect_within("..", normalized, "index.html")
    return _project(granted, normalized, html)


def add_slash(
    name: str | None = None,
    repository: str | None = None,
    version: str | None = None,
    instant: str | None = None,
) -> Response:
    """Redirect to the same address with a final slash, and with the normalized name."""
    if name is not None and name != normalize(name):
        return redirect_within(normalize(name), "")
    return redirect_within(request.path.rsplit("/", 1)[1], "")


def readable(repository: str | None, instant: str | None) -> Grant:
    """The grant to read a repository, as it was at an instant if the address has one."""
    granted = grant(repository, Access.READ)
    if instant is None:
        return granted
    try:
        return granted.at(parse_past_instant(instant, now=datetime.now(UTC)))
    except ValueError as error:
        raise BadRequest(f"the address is wrong: {error}") from None


_VERSION = "<any('v1+json', 'v1+html'):version>"
_READING = (
    Route("/simple/", project_list_page),
    Route("/simple", add_slash),
    Route(f"/simple/{_VERSION}/", project_list_page),
    Route(f"/simple/{_VERSION}", add_slash),
    Route(f"/simple/{_VERSION}/<name>/", project_page),
    Route(f"/simple/{_VERSION}/<name>", add_slash),
    Route("/simple/<name>/", project_page),
    Route("/simple/<name>", add_slash),
    Route("/simple/index.html", index_html),
    Route("/simple/<name>/index.html", index_html),
    Route("/simple/<name>/<filename>", project_file),
)
ROUTES = (
    *_READING,
    # The same as it was at an instant, for builds that are repeated.
    *(route._replace(path=f"/at/<instant>{route.path}") for route in _READING),
    Route("/asset/<asset_id>/<name>", asset),
    # hatch appends these to the address that it uploads to.
    *(
        Route(
            f"{upload_path}+simple/<name>/",
            project_page_of_hatch,
            options={"defaults": {"to_root": to_root}},
        )
        for upload_path, to_root in (
            ("/", "../../"),
            ("/simple/", "../../../"),
            ("/legacy/", "../../../"),
        )
    ),
)


# -- content -------------------------------------------------------------------------------------


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
        return _file_content(granted, granted.file(project, filename), conditions, open_small)
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


def _file_content(
    granted: Grant, file: ListedFile, conditions: Conditions, open_small: OpenSmall = open_any
) -> Content:
    return file_content(
        FileFacts(sha256=file.sha256, size=file.size, last_modified=file.uploaded_at),
        lambda: open_small(
            granted, file.sha256, lambda: granted.open_file(file, conditions.awaited)
        ),
        conditions,
        public=granted.is_public,
        opens_for_head=granted.opens_files_here,
    )


def _asset_content(granted: Grant, asset_id: str, filename: str, conditions: Conditions) -> Content:
    found = granted.open_alias(asset_id, filename, conditions.awaited)
    if isinstance(found, ListedFile):
        return _file_content(granted, found, conditions)
    opened = outcome(found, conditions) if isinstance(found, Arriving) else found
    if not isinstance(opened, Arriving):
        assert isinstance(opened, Redirect)
        return redirect(opened.url)
    facts = FileFacts(sha256=opened.sha256 or "", size=opened.size)
    return file_content(facts, lambda: opened, conditions, public=granted.is_public)


def may_wait(served: Deployment, path: str) -> bool:
    """Whether the page at this path may have to wait until a storage was asked."""
    match = _OF_REPOSITORY.match(path)
    return served.last_repositories.may_look_up(match[1] if match else None)


def conditions_of_request() -> Conditions:
    """The headers of the present request that decide which content is sent."""
    return conditions_of(request.environ)


def wait_without_thread(granted: Grant, project: NormalizedName) -> None:
    """Raise `Later` if another index has to be asked for a page, and the server supports that.

    Every view that is about one project calls it before it asks for the project, because installers
    ask for dozens of projects at the same time.
    """
    waiting = conditions_of_request().waiting
    if waiting is None:
        return
    if isinstance(waiting.awaited, Pending):
        waiting.awaited.give_up()  # if it is not over after this time, no thread waits for it
    if waiting.awaited is not None or waiting.is_over:
        return
    pending = granted.begin_find(project)
    if pending is not None:
        raise Later(pending, pending.call_when_over, pending.forget, seconds=_PAGE_WAIT)


def send(content: Content) -> Response:
    """Content as a response of Flask."""
    if isinstance(content.body, bytes):
        # In a list, so that Flask does not set Content-Length: for HEAD it would set 0.
        return Response([content.body], status=content.status, headers=content.headers)
    # Our server sends this without holding a thread while the client is slow.
    body = wrap_file(request.environ, cast(IO[bytes], content.body), BLOCK)
    response = Response(
        body, status=content.status, headers=content.headers, direct_passthrough=True
    )
    response.call_on_close(content.body.close)
    return response


def _project(
    granted: Grant, project: NormalizedName, representation: Representation, *, base: str = ""
) -> Response:
    """The page of a project, a redirect to another index, or `ProjectNotFound`."""
    wait_without_thread(granted, project)
    match granted.find(project):
        case Found() as found:
            conditions = conditions_of_request()
            return send(
                found_content(page_cache(), granted, found, representation, conditions, base=base)
            )
        case Elsewhere(url):
            return send(redirect(url))
        case Absent():
            raise ProjectNotFound(project)


def _representation(version: str | None) -> Representation | None:
    if version is not None:
        return Representation.JSON if version == "v1+json" else Representation.HTML
    name = request.args.get("format")
    if name is not None:
        return named_representation(name)
    return negotiate(request.headers.get("Accept"))


def _not_acceptable() -> Response:
    return respond(
        answer_text(
            406,
            "not acceptable; this page exists as " + ", ".join(r.value for r in Representation),
            None,
            [("Vary", VARY)],
        )
    )
