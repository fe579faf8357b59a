"""The simple repository API: which page or file an address means (PEP 503, 658, 691)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import IO, cast

from flask import Response, request
from packaging.utils import NormalizedName
from werkzeug.exceptions import BadRequest
from werkzeug.wsgi import wrap_file

from private_pypi.backend import Access
from private_pypi.backend.times import parse_past_instant
from private_pypi.distributions.filenames import normalize
from private_pypi.errors import ProjectNotFound
from private_pypi.model import ListedFile, Redirect
from private_pypi.pages.simple_api import (
    Representation,
    named_representation,
    negotiate,
)
from private_pypi.repositories import Absent, Elsewhere, Found, Grant
from private_pypi.storage.arriving import Arriving
from private_pypi.web.api.simple_content import (
    begin_to_wait,
    file_content_of,
    found_content,
    list_content,
    looked_for_file,
    redirect,
)
from private_pypi.web.http.answers import answer_text
from private_pypi.web.http.content import (
    VARY,
    Conditions,
    Content,
    FileFacts,
    conditions_of,
    file_content,
    outcome,
)
from private_pypi.web.http.page_cache import BLOCK
from private_pypi.web.http.routes import Route
from private_pypi.web.requests import grant, page_cache, redirect_within, respond

_INDEX_HTML = normalize("index.html")  # a project may have this name


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
    return send(looked_for_file(granted, normalized, filename, conditions_of_request()))


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


def _asset_content(granted: Grant, asset_id: str, filename: str, conditions: Conditions) -> Content:
    found = granted.open_alias(asset_id, filename, conditions.awaited)
    if isinstance(found, ListedFile):
        return file_content_of(granted, found, conditions)
    opened = outcome(found, conditions) if isinstance(found, Arriving) else found
    if not isinstance(opened, Arriving):
        assert isinstance(opened, Redirect)
        return redirect(opened.url)
    facts = FileFacts(sha256=opened.sha256 or "", size=opened.size)
    return file_content(facts, lambda: opened, conditions, public=granted.is_public)


def conditions_of_request() -> Conditions:
    """The headers of the present request that decide which content is sent."""
    return conditions_of(request.environ)


def wait_without_thread(
    granted: Grant, project: NormalizedName, *, for_installer: bool = False
) -> None:
    """Raise `Later` if another index has to be asked for a page, and the server supports that.

    Every view that is about one project calls it before it asks for the project, because installers
    ask for dozens of projects at the same time. `for_installer`: see `Repository.begin_find`.
    """
    waiting = conditions_of_request().waiting
    begin_to_wait(granted, project, waiting, for_installer=for_installer)


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
    is_json = representation is Representation.JSON
    wait_without_thread(granted, project, for_installer=is_json)
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
