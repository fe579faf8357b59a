"""The pages for people: which projects there are, what a release says of itself, how to use both.

Whatever they show of a package is what a stranger wrote; templates escape it, and its description
comes as safe HTML from `readme`.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeVar
from urllib.parse import quote

from flask import Blueprint, Response, request
from markupsafe import Markup
from packaging.utils import NormalizedName
from packaging.version import Version

from private_pypi.backend import Access
from private_pypi.core_metadata import read_core_metadata
from private_pypi.descriptions import NOTHING, Description, parse_description
from private_pypi.errors import (
    BackendUnavailable,
    FileNotFound,
    InvalidUpload,
    NotFound,
    PrivatePypiError,
    ProjectNotFound,
)
from private_pypi.filenames import is_version, normalize
from private_pypi.indexing import chunks_of
from private_pypi.local_index import ProjectLine
from private_pypi.model import DistributionFile, LocalFile, Redirect
from private_pypi.readme import Readmes
from private_pypi.repositories import Grant
from private_pypi.web.people.browsers import is_browser, is_cross_site, to_root
from private_pypi.web.people.human_pages import place_of, send_page, server_address
from private_pypi.web.people.presenting import (
    Release,
    current_release,
    install_commands,
    releases_of,
    with_metadata_first,
)
from private_pypi.web.people.sessions import SessionTooLarge
from private_pypi.web.requests import (
    deployment,
    find_session,
    grant,
    keep_session,
    redirect_within,
)

logger = logging.getLogger(__name__)

_Item = TypeVar("_Item")

_PROJECTS = 50  # of one page
_RELEASES = 50
_FILES = 100
_NEWEST = 6
_MOST_WORDS = 5  # of a search
_LARGEST_OPENED = 64 * 2**20  # bytes of a file that is opened for its description
_MOST_OPENED = 3  # files of a release, of which the first ones say nothing
_LARGEST_METADATA = 16 * 2**20  # bytes

_START = re.compile("/r/[^/]+/")

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


def make_root_blueprint() -> Blueprint:
    """The addresses without a repository: they mean the session's current one."""
    blueprint = Blueprint("current", __name__)

    def start() -> Response:
        has_any = len(deployment().repositories) > 0
        if not is_browser(request.headers) and not request.headers.get("Authorization"):
            hint = _HINT if has_any else _NO_CONFIGURATION.format(address=server_address())
            headers = {"Cache-Control": "no-store"}  # a person gets something else
            return Response(hint, content_type="text/plain; charset=utf-8", headers=headers)
        if not has_any:
            return send_page("unconfigured.html", address=server_address())
        return _to_current()

    def elsewhere(name: str = "", version: str = "") -> Response:
        return _to_current()

    blueprint.add_url_rule("/", view_func=start, methods=["GET"])
    for rule in ("/setup/", "/project/<name>/", "/project/<name>/<version>/"):
        blueprint.add_url_rule(rule, view_func=elsewhere, methods=["GET"])
    return blueprint


def make_blueprint() -> Blueprint:
    """The pages of one repository, relative to `/r/<repository>`."""
    blueprint = Blueprint("pages", __name__)
    readmes = Readmes()

    def start(repository: str) -> Response:
        granted = _reader(repository)
        granted.repository.require_ready()
        asked = request.args.get("q", "")[:200]
        words = tuple(islice(asked.split(), _MOST_WORDS))
        number = _page_number("page")
        shown = _projects(granted, words, (number - 1) * _PROJECTS)
        is_first = not words and number == 1
        return send_page(
            "start.html",
            repository=granted.repository,
            asked=asked,
            projects=shown.lines,
            newest=_newest(granted) if is_first else (),
            pages=Pages(shown.total, _PROJECTS, number, "page", {"q": asked} if asked else {}),
            place=place_of(granted.repository),
        )

    def project(repository: str, name: str, version: str | None = None) -> Response:
        granted = _reader(repository)
        normalized = normalize(name)
        if name != normalized:
            tail = ("",) if version is None else (version, "")
            return redirect_within(*[".."] * len(tail), normalized, *tail)
        releases, stale = _releases(granted, normalized)
        current = current_release(releases)
        shown = current if version is None else _release(releases, normalized, version)
        description, trouble = _description(granted, shown)
        number, files_number = _page_number("page"), _page_number("files")
        place = place_of(granted.repository)
        return send_page(
            "project.html",
            repository=granted.repository,
            project=normalized,
            release=shown,
            current=current,
            is_current=shown is current,
            description=description,
            # Safe: `readme` made it, or escaped the text.
            readme=Markup(readmes.html(description)),  # noqa: S704
            trouble=trouble,
            stale=None if stale is None else math.ceil(stale / 60),
            releases=_part(releases, number, _RELEASES),
            pages=Pages(len(releases), _RELEASES, number, "page", {}),
            files=_part(shown.files, files_number, _FILES),
            file_pages=Pages(len(shown.files), _FILES, files_number, "files", {}),
            commands=install_commands(
                place, normalized, None if shown is current else shown.version
            ),
            place=place,
        )

    def setup(repository: str) -> Response:
        granted = _reader(repository)
        return send_page(
            "setup.html", repository=granted.repository, place=place_of(granted.repository)
        )

    for rule, view in (
        ("/", start),
        ("/setup/", setup),
        ("/project/<name>/", project),
        ("/project/<name>/<version>/", project),
    ):
        blueprint.add_url_rule(rule, view_func=view, methods=["GET"])
    return blueprint


def to_slash(repository: str) -> Response:
    """From `/r/<repository>` to its start page."""
    return redirect_within(repository, "")


def may_wait(path: str) -> bool:
    """Whether the GET of a page may wait for a storage: for a description, a project, a list."""
    return "/project/" in path or _START.fullmatch(path) is not None


@dataclass(frozen=True, slots=True)
class Pages:
    """A list in parts, of which one is shown."""

    total: int
    size: int
    number: int  # from 1
    parameter: str
    others: dict[str, str]  # further parameters of each address

    @property
    def last(self) -> int:
        """The number of the last part."""
        return max(1, -(-self.total // self.size))

    def parameters(self, number: int) -> dict[str, str]:
        """Those of the address of another part."""
        return {**self.others, self.parameter: str(number)}


def _page_number(parameter: str) -> int:
    text = request.args.get(parameter, "1")
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 7 else 1


def _part(items: Sequence[_Item], number: int, size: int) -> Sequence[_Item]:
    return items[(number - 1) * size : number * size]


def _reader(repository: str) -> Grant:
    """The grant of the person, for whom this repository is the current one from now on."""
    granted = grant(repository, Access.READ)
    session = find_session()
    name = granted.repository.name
    if (
        session is not None
        and session.current != name
        and not is_cross_site(request.headers)
        and not request.headers.get("Authorization")
    ):
        with suppress(SessionTooLarge):  # then it is not remembered, and nothing is lost
            keep_session(session.with_current(name))
    return granted


def _to_current() -> Response:
    granted = grant(None, Access.READ)
    location = f"{to_root(request.path)}r/{granted.repository.name}{quote(request.path)}"
    if request.query_string:
        location += "?" + request.query_string.decode("latin-1")
    return Response(status=302, headers={"Location": location, "Cache-Control": "no-store"})


# -- what is there -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Shown:
    total: int
    lines: Sequence[ProjectLine]


def _projects(granted: Grant, words: Sequence[str], offset: int) -> _Shown:
    """A part of the projects that have every word in their name or summary."""
    index = granted.repository.index
    if not granted.repository.looks_up:
        return _Shown(*index.search(words, limit=_PROJECTS, offset=offset))
    # The local index has those that somebody looked up, and maybe some that this secret may not
    # see. So the storage's list counts, and what is known of the projects in it is added.
    names = [name for name, _ in granted.projects()]
    has_index = granted.repository.has_index()
    if words:
        known = index.search(words, limit=len(names), among=names)[1] if has_index else ()
        with_summary = {line.name for line in known}
        names = [
            name
            for name in names
            if name in with_summary or all(word.lower() in name for word in words)
        ]
    part = names[offset : offset + _PROJECTS]
    found = index.search(limit=len(part), among=part)[1] if has_index else ()
    lines = {line.name: line for line in found}
    nothing_known = partial(ProjectLine, version="", summary=None, uploaded_at=None)
    return _Shown(len(names), [lines.get(name) or nothing_known(name=name) for name in part])


def _newest(granted: Grant) -> Sequence[ProjectLine]:
    repository = granted.repository
    if not repository.has_index():
        return ()
    among = [name for name, _ in granted.projects()] if repository.looks_up else None
    return repository.index.newest_releases(_NEWEST, among=among)


def _releases(granted: Grant, project: NormalizedName) -> tuple[tuple[Release, ...], float | None]:
    """The releases, and how old this is (seconds) if the storage cannot be asked just now."""
    stale = granted.look(project)
    granted.repository.require_ready()
    files = granted.repository.index.project_files(project)
    if not files:
        if stale is not None:
            raise BackendUnavailable(f"whether there is a project {project!r} cannot be told now")
        granted.repository.require_fresh()
        raise ProjectNotFound(project)
    return releases_of(files), stale


def _release(releases: Sequence[Release], project: str, version: str) -> Release:
    for release in releases:
        if is_version(version, Version(release.version)):
            return release
    raise NotFound(f"no release {version!r} of project {project!r} in this repository")


def _description(granted: Grant, release: Release) -> tuple[Description, str]:
    """What a release says of itself, or why that cannot be told now."""
    for file in with_metadata_first(release.files)[:_MOST_OPENED]:
        try:
            content = _core_metadata(granted, file)
        except (FileNotFound, InvalidUpload):
            continue
        except (PrivatePypiError, OSError) as error:
            # The files are what people came for; the words can wait.
            logger.warning("the description of %s cannot be read: %s", file.filename, error)
            return NOTHING, f"The description cannot be read now: {error}."
        if content is not None:
            return parse_description(content), ""
    return NOTHING, ""


def _core_metadata(granted: Grant, file: DistributionFile) -> bytes | None:
    """That which is stored beside the file; else, where it is worth it, that in the file."""
    if file.core_metadata_sha256 is not None:
        match granted.open_core_metadata(file):
            case LocalFile(path=path):
                with path.open("rb") as content:
                    return content.read(_LARGEST_METADATA)
            case Redirect() as there:
                return _all_of(there, file.filename)
    if file.size > _LARGEST_OPENED:
        return None
    opened = granted.open_file(file)
    if isinstance(opened, Redirect):
        return None
    return read_core_metadata(opened.path, file.filename)


def _all_of(there: Redirect, filename: str) -> bytes | None:
    content = bytearray()
    for chunk in chunks_of(there, filename):
        content += chunk
        if len(content) > _LARGEST_METADATA:
            return None
    return bytes(content)
