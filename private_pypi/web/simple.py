"""The simple repository API over HTTP: which page or file an address means (PEP 503, 658, 691)."""

from __future__ import annotations

from typing import IO, cast

from flask import Blueprint, Response, request
from packaging.utils import NormalizedName
from werkzeug.wsgi import wrap_file

from private_pypi.backend import Access
from private_pypi.errors import ProjectNotFound
from private_pypi.filenames import normalize
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
    core_metadata,
    distribution_file,
    file_content,
    make_page,
    page_content,
)
from private_pypi.web.requests import grant, redirect_within, respond

_METADATA = ".metadata"


def make_blueprint(pages: PageCache) -> Blueprint:
    """The routes, relative to the root or to `/r/<repository>`."""
    blueprint = Blueprint("simple", __name__)

    def root(repository: str | None = None, version: str | None = None) -> Response:
        granted = grant(repository, Access.READ)
        representation = _representation(version)
        if representation is None:
            return _not_acceptable()
        granted.repository.require_ready()
        index = granted.repository.index
        serial = index.serial()
        page = pages.get(
            PageKey(index, None, serial, representation, ""),
            lambda: make_page(
                project_list(index.projects(), representation, serial=serial),
                representation,
                serial,
            ),
        )
        return send(page_content(page, conditions(), public=granted.repository.is_public))

    def project(name: str, repository: str | None = None, version: str | None = None) -> Response:
        granted = grant(repository, Access.READ)
        normalized = normalize(name)
        if name != normalized:
            return redirect_within("..", normalized, "")
        representation = _representation(version)
        if representation is None:
            return _not_acceptable()
        base = f"../../{normalized}/" if version else ""
        page = project_page(pages, granted, normalized, representation, base)
        if page is None:
            return _elsewhere(granted, normalized)
        return send(page_content(page, conditions(), public=granted.repository.is_public))

    def alias(name: str, to_root: str, repository: str | None = None) -> Response:
        # hatch looks here for what is published already, and reads HTML only (protocol 94).
        granted = grant(repository, Access.READ)
        normalized = normalize(name)
        base = f"{to_root}simple/{normalized}/"
        page = project_page(pages, granted, normalized, Representation.TEXT_HTML, base)
        if page is None:
            raise ProjectNotFound(normalized)
        return send(page_content(page, conditions(), public=granted.repository.is_public))

    def file(name: str, filename: str, repository: str | None = None) -> Response:
        granted = grant(repository, Access.READ)
        normalized = normalize(name)
        if name != normalized:
            return redirect_within("..", normalized, filename)
        return send(file_of(granted, normalized, filename, conditions()))

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


def project_page(
    pages: PageCache,
    granted: Grant,
    project: NormalizedName,
    representation: Representation,
    base: str = "",
) -> Page | None:
    """The page of a project; None when it has no files. Costs one look-up when it is rendered."""
    granted.check_project(project)
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
    granted.check_project(project)
    public = granted.repository.is_public
    if filename.endswith(_METADATA):
        file = granted.repository.file(project, filename.removesuffix(_METADATA))
        opened = granted.open_core_metadata(file)
        return file_content(core_metadata(file), opened, asked, public=public)
    file = granted.repository.file(project, filename)
    opened = granted.open_file(file)
    return file_content(distribution_file(file), opened, asked, public=public)


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
        return Response(content.body, status=content.status, headers=content.headers)
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
