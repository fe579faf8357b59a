"""The RSS feeds of a repository: newest releases, newest projects, releases of a project."""

from __future__ import annotations

from urllib.parse import quote

from flask import Response

from private_pypi.backend import Access
from private_pypi.distributions.filenames import normalize
from private_pypi.pages.feeds import Item, feed
from private_pypi.pages.releases import current_release
from private_pypi.repositories import Grant
from private_pypi.web.api.simple import conditions_of_request, send, wait_without_thread
from private_pypi.web.http.content import page_content
from private_pypi.web.http.page_cache import make_page
from private_pypi.web.http.routes import Route
from private_pypi.web.releases import find_releases
from private_pypi.web.requests import grant, redirect_within, server_address

_MOST = 100  # items of a feed


def updates(repository: str | None = None) -> Response:
    """The most recently uploaded releases."""
    granted = grant(repository, Access.READ)
    granted.require_ready()
    items = [
        Item(
            title=f"{line.title} {line.version}",
            link=f"{_address(granted)}project/{line.name}/{quote(line.version, safe='')}/",
            summary=line.summary,
            published_at=line.uploaded_at,
        )
        for line in granted.newest_releases(_MOST, once_each=False)
    ]
    name = granted.name
    return _send(granted, f"{name}: new releases", f"The newest releases in {name}.", items)


def packages(repository: str | None = None) -> Response:
    """The most recently added projects."""
    granted = grant(repository, Access.READ)
    granted.require_ready()
    items = [
        Item(
            title=f"{line.title} added",
            link=f"{_address(granted)}project/{line.name}/",
            summary=line.summary,
            published_at=line.uploaded_at,
        )
        for line in granted.newest_projects(_MOST)
    ]
    name = granted.name
    return _send(granted, f"{name}: new projects", f"The newest projects in {name}.", items)


def project_releases(name: str, repository: str | None = None) -> Response:
    """The releases of a project, the newest version first."""
    granted = grant(repository, Access.READ)
    normalized = normalize(name)
    if name != normalized:
        return redirect_within("..", normalized, "releases.xml")
    wait_without_thread(granted, normalized)
    releases, _ = find_releases(granted, normalized)
    address = f"{_address(granted)}project/{normalized}/"
    items = [
        Item(
            title=release.version,
            link=f"{address}{quote(release.version, safe='')}/",
            summary=next((file.summary for file in release.files if file.summary), None),
            published_at=release.uploaded_at,
        )
        for release in releases[:_MOST]
    ]
    title = current_release(releases).published_name or normalized
    return _send(granted, f"{title}: releases", f"The releases of {title}.", items)


ROUTES = (
    Route("/rss/updates.xml", updates),
    Route("/rss/packages.xml", packages),
    Route("/rss/project/<name>/releases.xml", project_releases),
)


def _address(granted: Grant) -> str:
    return f"{server_address()}/r/{quote(granted.name, safe='')}/"


def _send(granted: Grant, title: str, description: str, items: list[Item]) -> Response:
    text = feed(title, _address(granted), description, items)
    # It is not kept, so it is never asked for again.
    page = make_page(text, "application/rss+xml; charset=utf-8", granted.serial()).compressed()
    return send(page_content(page, conditions_of_request(), public=granted.is_public))
