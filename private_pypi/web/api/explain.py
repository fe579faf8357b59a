"""Explains which files of a project are not served, by which rule, and which do not suit."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from flask import Response, request
from packaging.utils import NormalizedName
from werkzeug.exceptions import BadRequest

from private_pypi.distributions.interpreters import parse_interpreter, parse_wanted
from private_pypi.pages.explanations import (
    Report,
    ReportedFile,
    groups_of,
    report_json,
    report_text,
)
from private_pypi.repositories import Explanation, Grant

PARAMETERS = ("python", "platform", "version", "all")
_NO_STORE = {"Cache-Control": "no-store", "Vary": "Accept", "X-Content-Type-Options": "nosniff"}


def report_of(granted: Grant, explanation: Explanation, asked: Mapping[str, str]) -> Report:
    """The explanation as an answer to what is asked for; `asked` may have the keys `PARAMETERS`.

    It lists all files.

    Raises `BadRequest` with a sentence that says what would be right.
    """
    python, platform, version = (asked.get(key, "").strip() or None for key in PARAMETERS[:3])
    try:
        interpreter = parse_interpreter(python, platform)
        # A project has many files of one version.
        is_wanted = (lambda _: True) if version is None else cache(parse_wanted(version))
    except ValueError as error:
        raise BadRequest(f"the query is wrong: {error}") from None
    asks_for_interpreter = bool(interpreter.title)
    served, hidden = [], []
    for file in explanation.files:
        if is_wanted(file.version):
            objection = interpreter.objection(file.filename, file.requires_python)
            served.append(
                ReportedFile(
                    filename=file.filename,
                    version=file.version,
                    is_served=True,
                    reason=objection,
                    suits=objection is None if asks_for_interpreter else None,
                    yanked=file.yanked,
                    exception=explanation.exceptions.get(file.filename),
                    source=file.source,
                )
            )
    for other in explanation.hidden:
        # A file of an unknown version may be of the wanted one.
        if other.version is None or is_wanted(other.version):
            hidden.append(
                ReportedFile(
                    filename=other.filename,
                    version=other.version,
                    is_served=False,
                    rule=other.rule,
                    reason=other.reason,
                    until=other.until,
                )
            )
    notes = list(explanation.notes)
    if explanation.elsewhere is not None:
        notes.append(f"it has no such project; clients are sent to {explanation.elsewhere}")
    if explanation.freshness.age is not None:
        notes.append(
            f"the index that is read is in trouble: this is what it had "
            f"{explanation.freshness.age:.0f} seconds ago"
        )
    return Report(
        repository=granted.name,
        project=explanation.project,
        is_found=explanation.is_found,
        python=python,
        platform=platform,
        version=version,
        notes=notes,
        groups=groups_of([*served, *hidden]),
    )


def asked_of_request() -> Mapping[str, str]:
    """What the query of the present request asks for; raises `BadRequest` if it is not clear."""
    known = (*PARAMETERS, "page")
    for key, values in request.args.lists():
        if key not in known:
            raise BadRequest(
                f"the query is wrong: {key[:50]!r} is unknown; there are {', '.join(PARAMETERS)}"
            )
        if len(values) > 1:
            raise BadRequest(f"the query is wrong: {key!r} is given {len(values)} times")
    if request.args.get("all", "true") not in ("true", "false"):
        raise BadRequest("the query is wrong: 'all' must be true or false")
    return request.args


def explain(granted: Grant, project: NormalizedName, asked: Mapping[str, str]) -> Response:
    """The explanation for tools: JSON if they accept nothing but that, else text."""
    report = report_of(granted, granted.explain(project), asked)
    if asked.get("all") != "true":
        report = report.summary()
    wanted = request.accept_mimetypes.best_match(("text/plain", "application/json"))
    if wanted == "application/json":
        return Response(report_json(report), content_type=wanted, headers=_NO_STORE)
    text = "".join(f"{line}\n" for line in report_text(report, "add all=true to the query for all"))
    return Response(text, content_type="text/plain; charset=utf-8", headers=_NO_STORE)
