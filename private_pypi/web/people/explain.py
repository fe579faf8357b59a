"""The address that explains a project: a page for people, and text or JSON for tools."""

from __future__ import annotations

from collections.abc import Mapping

from flask import Response, request

from private_pypi.distributions.filenames import normalize
from private_pypi.pages.explanations import count_of, title_of
from private_pypi.repositories import Explanation, Grant
from private_pypi.web.api.explain import PARAMETERS, asked_of_request, explain, report_of
from private_pypi.web.api.simple import readable, wait_without_thread
from private_pypi.web.http.routes import Route
from private_pypi.web.people.pagination import Pagination, page_number, part
from private_pypi.web.people.rendering import send_page
from private_pypi.web.requests import redirect_within

_FILES = 100  # on one page


def explanation(name: str, repository: str | None = None, instant: str | None = None) -> Response:
    """All files of a project: which are not served or do not suit, and why."""
    granted = readable(repository, instant)
    normalized = normalize(name)
    if name != normalized:
        is_folder = request.path.endswith("/")
        return redirect_within(*(("..", normalized, "") if is_folder else (normalized,)))
    asked = asked_of_request()
    wait_without_thread(granted, normalized)
    accepted = request.accept_mimetypes.best_match(("text/plain", "application/json", "text/html"))
    if accepted != "text/html":
        return explain(granted, normalized, asked)
    page = explanation_page(granted, granted.explain(normalized), asked, instant=instant)
    page.vary.add("Accept")
    return page


def explanation_page(
    granted: Grant,
    explanation: Explanation,
    asked: Mapping[str, str],
    *,
    instant: str | None = None,
) -> Response:
    """The page for people."""
    report = report_of(granted, explanation, asked)
    number = page_number("page")
    files = report.files
    return send_page(
        "explain.html",
        repository=granted,
        project=report.project,
        report=report,
        instant=instant,
        files=part(files, number, _FILES),
        count_of=count_of,
        title_of=title_of,
        pagination=Pagination(
            len(files),
            _FILES,
            number,
            "page",
            {key: asked[key] for key in PARAMETERS if asked.get(key)},
        ),
    )


ROUTES = tuple(
    Route(f"{prefix}/explain/<name>{slash}", explanation)
    for prefix in ("", "/at/<instant>")
    for slash in ("", "/")
)
