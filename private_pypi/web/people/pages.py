"""The pages for people: the list of projects, a release, and how to set up tools.

What they show of a package was written by strangers. Templates escape it, and descriptions come as
safe HTML from `readme`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from urllib.parse import quote

from flask import Response, after_this_request, current_app, request
from markupsafe import Markup
from packaging.version import Version
from werkzeug.exceptions import NotFound
from werkzeug.routing import BaseConverter

from private_pypi.backend import Access
from private_pypi.distributions.descriptions import NOTHING, Description, parse_description
from private_pypi.distributions.filenames import is_version, normalize
from private_pypi.errors import PrivatePypiError, ProjectNotFound
from private_pypi.pages.readme import Readmes
from private_pypi.pages.releases import Release, current_release, releases_of
from private_pypi.repositories import Grant, Group, ListNotRead, Mirror
from private_pypi.repositories.collisions import known_collisions
from private_pypi.web.api.simple import wait_without_thread
from private_pypi.web.http.routes import Route
from private_pypi.web.people.explain import explanation_page
from private_pypi.web.people.pagination import Pagination, page_number, part
from private_pypi.web.people.rendering import send_page, tool_settings
from private_pypi.web.people.tool_settings import install_commands
from private_pypi.web.releases import core_metadata_of, find_release
from private_pypi.web.requests import (
    deployment,
    grant,
    redirect_within,
    server_address,
)
from private_pypi.web.sessions.browsers import is_browser, is_cross_site, to_root
from private_pypi.web.sessions.request_session import find_session, keep_session, vary_by_cookie
from private_pypi.web.sessions.sessions import SessionTooLarge

logger = logging.getLogger(__name__)

READMES = "private_pypi.readmes"
"""The key of the `Readmes` in `Flask.extensions`."""

_PROJECTS = 50  # on one page
_RELEASES = 50  # on one page
_FILES = 100  # on one page
_HIDDEN = 20  # files that are not served; all of them are on a page of their own
_NEWEST = 6  # releases on the start page
_COLLISIONS = 20  # private names that are public too, with their versions
_CLAIMED_NAMES = 5  # of each claimed pattern that public names match
_MOST_WORDS = 5  # of a search


_HINT = (
    "This is a private Python package index. Give your tools an address of this form, with the "
    "name of a repository as user and its secret as password:\n\n"
    "    pip install --index-url http://NAME:SECRET@HOST/r/NAME/simple/ PROJECT\n"
    "    twine upload --repository-url http://HOST/r/NAME/ -u NAME dist/*\n"
)
_NO_CONFIGURATION = (
    "This is a private Python package index without a configuration. Start it with --config, or "
    "submit one:\n\n"
    "    curl -F config=@config.toml -F admin_secret=@admin_secret.toml {address}/initialize/\n"
)


class VersionConverter(BaseConverter):
    """`<version:…>` in a route: what could be a version. Other addresses are then not found."""

    regex = "[0-9][^/]*"


# -- addresses without a repository --------------------------------------------------------------


def server_start() -> Response:
    """The start page of the current repository; help if this cannot be a browser."""
    has_any = len(deployment().repositories) > 0
    if not is_browser(request.headers) and not request.headers.get("Authorization"):
        hint = _HINT if has_any else _NO_CONFIGURATION.format(address=server_address())
        headers = {"Cache-Control": "no-store"}  # a browser gets something else
        return Response(hint, content_type="text/plain; charset=utf-8", headers=headers)
    if not has_any:
        return send_page("unconfigured.html", address=server_address())
    is_stranger = not request.headers.get("Authorization") and find_session() is None
    if is_stranger and deployment().repositories.have_root_addresses():
        after_this_request(vary_by_cookie)
        return send_page("root_addresses.html", base=server_address())
    return to_current()


def to_current(name: str = "", version: str = "") -> Response:
    """Redirect to the same page of the current repository (see `Session.current_name`)."""
    granted = grant(None, Access.READ)
    location = f"{to_root(request.path)}r/{granted.name}{quote(request.path)}"
    if request.query_string:
        location += "?" + request.query_string.decode("latin-1")
    return Response(status=302, headers={"Location": location, "Cache-Control": "no-store"})


# -- pages of a repository -----------------------------------------------------------------------


def start(repository: str) -> Response:
    """The list of projects, or what was found by a search."""
    granted = _grant_of_person(repository)
    granted.require_ready()
    search = request.args.get("q", "")[:200]
    words = tuple(islice(search.split(), _MOST_WORDS))
    number = page_number("page")
    unread = False
    try:
        total, lines = granted.search(words, limit=_PROJECTS, offset=(number - 1) * _PROJECTS)
    except ListNotRead:
        total, lines, unread = 0, [], True
    is_first = not words and number == 1
    known = None
    if isinstance(granted.repository, Group) and (is_first or words):
        known = known_collisions(
            granted.repository, granted.secret, most=_COLLISIONS, most_names=_CLAIMED_NAMES
        )
    return send_page(
        "start.html",
        repository=granted,
        search=search,
        projects=lines,
        newest=granted.newest_releases(_NEWEST) if is_first else (),
        kind=_kind(granted),
        known=known,
        is_first=is_first,
        unread=[granted.name] if unread else [] if known is None else known.unread,
        pagination=Pagination(total, _PROJECTS, number, "page", {"q": search} if search else {}),
        settings=tool_settings(granted),
    )


def project(repository: str, name: str, version: str | None = None) -> Response:
    """A release of a project: the given one, or the current one."""
    granted = _grant_of_person(repository)
    normalized = normalize(name)
    if name != normalized:
        tail = ("",) if version is None else (version, "")
        return redirect_within(*[".."] * len(tail), normalized, *tail)
    wait_without_thread(granted, normalized)
    said = granted.explain(normalized)
    releases = releases_of(said.files)
    if any(_is_of(each.version, version) for each in said.hidden) and not any(
        _is_of(each.version, version) for each in releases
    ):
        return explanation_page(granted, said, {} if version is None else {"version": version})
    if not releases:
        raise ProjectNotFound(normalized)
    current = current_release(releases)
    shown = current if version is None else find_release(releases, normalized, version)
    description, trouble = _description(granted, shown)
    readmes: Readmes = current_app.extensions[READMES]
    number, files_number = page_number("page"), page_number("files")
    settings = tool_settings(granted)
    return send_page(
        "project.html",
        repository=granted,
        project=normalized,
        title=current.published_name or normalized,
        release=shown,
        current=current,
        is_current=shown is current,
        description=description,
        # Safe, because `readme` has made this HTML, or has escaped the text.
        readme=Markup(readmes.html(description, granted.name)),  # noqa: S704
        trouble=trouble,
        stale=None if said.freshness.age is None else math.ceil(said.freshness.age / 60),
        hidden=said.hidden[: -_HIDDEN - 1 : -1],
        hidden_total=len(said.hidden),
        notes=said.notes,
        releases=part(releases, number, _RELEASES),
        pagination=Pagination(len(releases), _RELEASES, number, "page", {}),
        files=part(shown.files, files_number, _FILES),
        file_pagination=Pagination(len(shown.files), _FILES, files_number, "files", {}),
        commands=install_commands(
            settings, normalized, None if shown is current else shown.version
        ),
        settings=settings,
    )


def setup(repository: str) -> Response:
    """How to set up pip, uv, poetry and twine for a repository."""
    granted = _grant_of_person(repository)
    return send_page(
        "setup.html", repository=granted, settings=tool_settings(granted), kind=_kind(granted)
    )


def hatch_release(name: str, version: str, folders: int, repository: str | None = None) -> Response:
    """Redirect from the address that hatch prints after an upload to the page of the release."""
    try:
        Version(version)
    except ValueError:  # InvalidVersion, or a number with more digits than Python reads
        raise NotFound from None
    return redirect_within(*[".."] * folders, "project", normalize(name), version, "")


def add_slash_to_start(repository: str) -> Response:
    """Redirect from `/r/<repository>` to its start page."""
    return redirect_within(repository, "")


# hatch appends name and version to the address that it uploads to.
_HATCH_ROUTES = tuple(
    Route(
        f"{upload_path}<name>/<version:version>/",
        hatch_release,
        options={"defaults": {"folders": folders}},
    )
    for upload_path, folders in (("/", 2), ("/simple/", 3), ("/legacy/", 3))
)
ROUTES = (
    Route("/", start),
    Route("/setup/", setup),
    Route("/project/<name>/", project),
    Route("/project/<name>/<version>/", project),
    *_HATCH_ROUTES,
)
SERVER_ROUTES = (
    Route("/", server_start),
    Route("/setup/", to_current),
    Route("/project/<name>/", to_current),
    Route("/project/<name>/<version>/", to_current),
    *_HATCH_ROUTES,
    Route("/r/<repository>", add_slash_to_start),
)


@dataclass(frozen=True, slots=True)
class _Member:
    """A member of a group."""

    name: str
    type: str
    claimed: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """What a repository is made of, as far as the caller may know it."""

    name: str  # "mirror", "group" or "stored"
    members: Sequence[_Member] = ()  # of a group
    publishes_to: str | None = None  # where what is published goes; None: nothing can be


def _kind(granted: Grant) -> _Kind:
    repository = granted.repository
    if isinstance(repository, Mirror):
        return _Kind(name="mirror")
    if not isinstance(repository, Group):
        return _Kind(name="stored", publishes_to=repository.name)
    seen = repository.members_for(granted.secret)
    to = repository.publish_to
    members = [
        # What members of a member claim may not be for this caller.
        _Member(each.name, each.type, each.own_claims if isinstance(each, Group) else each.claimed)
        for each in seen
    ]
    publishes_to = to.name if to is not None and to in seen else None
    return _Kind(name="group", members=members, publishes_to=publishes_to)


def _grant_of_person(repository: str) -> Grant:
    """The grant to read. The repository becomes the current one of the person's session."""
    granted = grant(repository, Access.READ)
    session = find_session()
    name = granted.name
    if (
        session is not None
        and session.current != name
        and not is_cross_site(request.headers)
        and not request.headers.get("Authorization")
    ):
        with suppress(SessionTooLarge):  # then the session keeps its current repository
            keep_session(session.with_current(name))
    return granted


def _is_of(found: str | None, version: str | None) -> bool:
    """Whether a file or a release of the version `found` is of `version`; None: of any."""
    return version is None or (found is not None and is_version(version, Version(found)))


def _description(granted: Grant, release: Release) -> tuple[Description, str]:
    """The description of a release, and why it cannot be shown ("" if it can)."""
    try:
        content = core_metadata_of(granted, release)
    except (PrivatePypiError, OSError) as error:
        # The page is useful without it: it has the files.
        logger.warning("the description of %s cannot be read: %s", release.files[0].project, error)
        return NOTHING, f"The description cannot be read now: {error}."
    return (NOTHING if content is None else parse_description(content)), ""
