"""The simple repository API over HTTP: which page or file an address means (PEP 503, 658, 691)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import IO, cast

from flask import Blueprint, Response, request
from packaging.utils import NormalizedName
from werkzeug.wsgi import wrap_file

from private_pypi.backend import Access
from private_pypi.errors import BackendUnavailable, ProjectNotFound
from private_pypi.filenames import normalize
from private_pypi.model import Redirect
from private_pypi.repositories import Grant
from private_pypi.simple_api import (
    Representation,
    named_representation,
    negotiate,
    project_detail,
    project_list,
)
from private_pypi.web.answers import answer_text
from private_pypi.web.content import (
    BLOCK,
    VARY,
    Conditions,
    Content,
    Page,
    PageCache,
    PageKey,
    Served,
    core_metadata,
    distribution_file,
    file_content,
    make_page,
    page_content,
)
from private_pypi.web.deployment import Deployment
from private_pypi.web.requests import grant, redirect_within, respond

_METADATA = ".metadata"
_OF_REPOSITORY = re.compile(r"/r/([^/]+)/")


def make_blueprint(pages: PageCache) -> Blueprint:
    """The routes, relative to the root or to `/r/<repository>`."""
    blueprint = Blueprint("simple", __name__)

    def root(repository: str | None = None, version: str | None = None) -> Response:
        granted = grant(repository, Access.READ)
        representation = _representation(version)
        if representation is None:
            return _not_acceptable()
        return send(list_content(pages, granted, representation, conditions()))

    def project(name: str, repository: str | None = None, version: str | None = None) -> Response:
        granted = grant(repository, Access.READ)
        normalized = normalize(name)
        if name != normalized:
            return redirect_within("..", normalized, "")
        representation = _representation(version)
        if representation is None:
            return _not_acceptable()
        base = f"../../{normalized}/" if version else ""
        content = project_content(
            pages, granted, normalized, representation, conditions(), base=base
        )
        return _elsewhere(granted, normalized) if content is None else send(content)

    def alias(name: str, to_root: str, repository: str | None = None) -> Response:
        # hatch looks here for what is published already, and reads HTML only (protocol 94).
        granted = grant(repository, Access.READ)
        normalized = normalize(name)
        content = project_content(
            pages,
            granted,
            normalized,
            Representation.TEXT_HTML,
            conditions(),
            base=f"{to_root}simple/{normalized}/",
        )
        if content is None:
            raise ProjectNotFound(normalized)
        return send(content)

    def file(name: str, filename: str, repository: str | None = None) -> Response:
        granted = grant(repository, Access.READ)
        normalized = normalize(name)
        if name != normalized:
            return redirect_within("..", normalized, filename)
        return send(file_of(granted, normalized, filename, conditions()))

    def asset(asset_id: str, name: str, repository: str | None = None) -> Response:
        # The addresses in lock files that were made with PyPIHub.
        granted = grant(repository, Access.READ)
        return send(asset_content(granted, asset_id, name, conditions()))

    def to_slash(
        name: str | None = None, repository: str | None = None, version: str | None = None
    ) -> Response:
        if name is not None and name != normalize(name):
            return redirect_within(normalize(name), "")
        return redirect_within(request.path.rsplit("/", 1)[1], "")

    versions = "<any('v1+json', 'v1+html'):version>"
    for rule, view in (
        ("/simple/", root),
        ("/simple", to_slash),
        (f"/simple/{versions}/", root),
        (f"/simple/{versions}", to_slash),
        (f"/simple/{versions}/<name>/", project),
        (f"/simple/{versions}/<name>", to_slash),
        ("/simple/<name>/", project),
        ("/simple/<name>", to_slash),
        ("/simple/<name>/<filename>", file),
        ("/asset/<asset_id>/<name>", asset),
    ):
        blueprint.add_url_rule(rule, view_func=view, methods=["GET"])
    # Below each address that takes uploads, because hatch appends it to the one it was given.
    for rule, to_root in (
        ("/+simple/<name>/", "../../"),
        ("/simple/+simple/<name>/", "../../../"),
        ("/legacy/+simple/<name>/", "../../../"),
    ):
        blueprint.add_url_rule(
            rule, view_func=alias, methods=["GET"], defaults={"to_root": to_root}
        )
    return blueprint


def list_content(
    pages: PageCache, granted: Grant, representation: Representation, asked: Conditions
) -> Content:
    """The list of the projects that the caller may see."""
    repository = granted.repository
    repository.require_ready()
    if not repository.looks_up:
        index = repository.index
        key = PageKey(index, None, index.serial(), representation, "")
        page = pages.get(key, lambda: _list_page(index.projects(), key))
        return page_content(page, asked, public=repository.is_public)
    # What the storage shows to this secret; the page is the same for whoever is shown the same.
    projects, stale = granted.list_projects()
    names = "\n".join(name for name, _ in projects).encode()
    key = PageKey(hashlib.sha256(names).digest(), None, 0, representation, "")
    page = pages.get(key, lambda: _list_page(projects, key))
    return page_content(page, asked, public=repository.is_public, stale=stale)


def _list_page(projects: Sequence[tuple[NormalizedName, int]], key: PageKey) -> Page:
    text = project_list(projects, key.representation, serial=key.serial)
    return make_page(text, key.representation, key.serial)


def project_content(
    pages: PageCache,
    granted: Grant,
    project: NormalizedName,
    representation: Representation,
    asked: Conditions,
    *,
    base: str = "",
) -> Content | None:
    """The page of a project; None when the caller is known to be shown no such project."""
    try:
        stale = granted.look(project)
    except ProjectNotFound:
        return None
    page = _project_page(pages, granted, project, representation, base)
    if page is None:
        if stale is not None:
            raise BackendUnavailable(
                f"whether there is a project {project!r} cannot be told now", retry_after=30
            )
        return None
    return page_content(page, asked, public=granted.repository.is_public, stale=stale)


def _project_page(
    pages: PageCache,
    granted: Grant,
    project: NormalizedName,
    representation: Representation,
    base: str,
) -> Page | None:
    """The page of a project; None when it has no files. Costs one look-up when it is rendered."""
    key = page_key(granted, project, representation, base)
    if key is None:
        granted.repository.require_ready()
        return None
    index, serial = granted.repository.index, key.serial

    def render() -> Page:
        text = project_detail(
            project, index.project_files(project), representation, serial=serial, base=base
        )
        return make_page(text, representation, serial)

    return pages.get(key, render)


def page_key(
    granted: Grant, project: NormalizedName, representation: Representation, base: str = ""
) -> PageKey | None:
    """What a page is kept under; None without files, or before the index is ready."""
    index = granted.repository.index
    serial = index.page_serial(project)
    return None if serial is None else PageKey(index, project, serial, representation, base)


def file_of(granted: Grant, project: NormalizedName, filename: str, asked: Conditions) -> Content:
    """A file of a project, or its core metadata under `<filename>.metadata` (PEP 658)."""
    public = granted.repository.is_public
    if filename.endswith(_METADATA):
        file = granted.file(project, filename.removesuffix(_METADATA))
        opened = granted.open_core_metadata(file)
        return file_content(core_metadata(file), opened, asked, public=public)
    file = granted.file(project, filename)
    opened = granted.open_file(file)
    return file_content(distribution_file(file), opened, asked, public=public)


def asset_content(granted: Grant, asset_id: str, filename: str, asked: Conditions) -> Content:
    """A file under the identifier by which an older server gave it away."""
    asset = granted.open_asset(asset_id, filename)
    public = granted.repository.is_public
    if asset.sha256 is None and isinstance(asset.opened, Redirect):
        return Content("302 Found", [("Location", asset.opened.url), ("Cache-Control", "no-store")])
    served = Served(
        sha256=asset.sha256 or "",
        size=asset.size,
        content_type="application/octet-stream",
        last_modified=None,
    )
    return file_content(served, asset.opened, asked, public=public)


def may_wait(served: Deployment, path: str) -> bool:
    """Whether the page at this address may have to be looked up in a storage first."""
    repositories = served.known_repositories
    match = _OF_REPOSITORY.match(path)
    return repositories is None or repositories.may_look_up(match[1] if match else None)


def conditions() -> Conditions:
    """Those of the request that is being answered."""
    headers = request.headers
    return Conditions(
        method=request.method,
        accept_encoding=headers.get("Accept-Encoding"),
        if_none_match=headers.get("If-None-Match"),
        if_range=headers.get("If-Range"),
        range=headers.get("Range"),
    )


def send(content: Content) -> Response:
    """Content as Flask sends it."""
    if isinstance(content.body, bytes):
        # As a list: of bytes alone Flask tells the length, which would be 0 in answers to HEAD.
        return Response([content.body], status=content.status, headers=content.headers)
    # The server sends it without holding a thread while the client is slow.
    body = wrap_file(request.environ, cast(IO[bytes], content.body), BLOCK)
    response = Response(
        body, status=content.status, headers=content.headers, direct_passthrough=True
    )
    response.call_on_close(content.body.close)
    return response


def _elsewhere(granted: Grant, project: NormalizedName) -> Response:
    """An unknown project: the extra index, or 404; trouble is neither."""
    granted.repository.require_fresh()
    url = granted.repository.extra_index_url(project)
    if url is None:
        raise ProjectNotFound(project)
    # Never 304, whatever the client has: it may be the page of a project that we had since.
    return Response(status=302, headers={"Location": url, "Cache-Control": "no-store"})


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
            "not acceptable; this page is there as " + ", ".join(r.value for r in Representation),
            None,
            [("Vary", VARY)],
        )
    )
