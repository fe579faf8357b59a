"""The legacy upload API, and the deletes and yanks that it lacks; what is right is decided below.

The gate runs when the headers of an upload are complete and before its body is read; the view runs
when the file is on the disk.
"""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime
from http import HTTPStatus

from flask import Blueprint, Response, jsonify, request

from private_pypi.backend import Access
from private_pypi.errors import (
    InvalidUpload,
    NotAllowed,
    PrivatePypiError,
    StorageFull,
    TooLarge,
)
from private_pypi.filenames import is_filename, normalize, normalize_version
from private_pypi.model import DistributionFile
from private_pypi.repositories import Grant
from private_pypi.upload import check_upload
from private_pypi.web.answers import answer_error
from private_pypi.web.auth import parse_credentials
from private_pypi.web.deployment import Deployment
from private_pypi.web.operations.changes import (
    DELETE,
    PUBLISH,
    UNYANK,
    YANK,
    Asker,
    Change,
)
from private_pypi.web.receiving import FormLimits, receive_form
from private_pypi.web.requests import deployment, grant_change, noted
from private_pypi.web.serving import Gate, PassOn, ReceiveForm, Refuse, RequestHead

# People type all of these, and twine and poetry follow no redirect (protocol 47).
_UPLOAD_PATHS = ("/", "/simple/", "/legacy/")
_UPLOAD_PATH = re.compile(r"(?:/r/(?P<repository>[^/]+))?(?:/|/simple/?|/legacy/?)?")
_SMALL_BODY = 2**20  # bytes; for every other request
_SPARE = 64 * 2**20  # bytes that an upload leaves free for the index and the logs


def make_gate(served: Deployment, limits: FormLimits) -> Gate:
    """Who may send what: decided before the body, so that a refusal costs nothing.

    `limits.max_file_bytes` is replaced by the repository's own.
    """

    def gate(head: RequestHead) -> Refuse | ReceiveForm | PassOn:
        match = _UPLOAD_PATH.fullmatch(head.path)
        if head.method != "POST" or match is None:
            return PassOn(max_body_bytes=_SMALL_BODY)
        credentials = parse_credentials(head.headers.get("AUTHORIZATION"))
        change = Change(action=PUBLISH)
        try:
            granted = served.repositories.authorize(
                credentials, name=match["repository"], need=Access.WRITE
            )
            change.let_in(granted.repository.name, granted.secret)
            own_limits = limits.for_files(granted.repository.settings.max_file_bytes)
            _check_head(head, granted, served, own_limits)
        except PrivatePypiError as error:
            if isinstance(error, NotAllowed):
                change.refuse(served.repositories.meant(credentials, name=match["repository"]))
            asker = Asker(
                address=head.remote_addr,
                user_agent=head.headers.get("USER_AGENT", ""),
                request_id=head.request_id,
            )
            served.changes.note(change, asker, error)
            answer = answer_error(error, head.headers.get("ACCEPT"))
            return Refuse(
                status=answer.status,
                reason=answer.reason,
                headers=answer.headers,
                body=answer.body,
            )
        return ReceiveForm(folder=served.tmp, limits=own_limits)

    return gate


def _check_head(head: RequestHead, granted: Grant, served: Deployment, limits: FormLimits) -> None:
    granted.repository.require_ready()  # its burnt names are not known before
    content_type = head.headers.get("CONTENT_TYPE", "")
    if not content_type.lower().startswith("multipart/form-data"):
        raise InvalidUpload(f"an upload is multipart/form-data, not {content_type or 'untyped'}")
    if head.content_length is None:
        return
    if head.content_length > limits.max_body_bytes:
        raise TooLarge(
            f"a body of {head.content_length} bytes is over the limit: a file may have "
            f"{limits.max_file_bytes} bytes, its form {limits.max_field_bytes}"
        )
    free = shutil.disk_usage(served.tmp).free
    if head.content_length + _SPARE > free:
        raise StorageFull(
            f"no space left for an upload of {head.content_length} bytes ({free} bytes are free)"
        )


def make_blueprint(limits: FormLimits) -> Blueprint:
    """The routes, relative to the root or to `/r/<repository>`."""
    blueprint = Blueprint("legacy", __name__)

    def upload(repository: str | None = None) -> Response:
        with noted(PUBLISH) as change:
            return receive(change, repository)

    def receive(change: Change, repository: str | None) -> Response:
        granted = grant_change(change, repository)
        own_limits = limits.for_files(granted.repository.settings.max_file_bytes)
        form = receive_form(request.environ, deployment().tmp, own_limits)
        try:
            action = next((value for name, value in form.fields if name == ":action"), "")
            if action in ("submit", "verify"):
                # What `register` sent; poetry still does (protocol 46).
                change.is_made = False
                return _done("nothing to do: projects are made by their first upload")
            if action != "file_upload":
                raise InvalidUpload(f"unknown :action {action!r}; it must be 'file_upload'")
            if form.file is None:
                raise InvalidUpload("the form has no file: part 'content' is missing")
            checked = check_upload(
                form.fields,
                form.file,
                max_file_bytes=granted.repository.settings.max_file_bytes,
                now=datetime.now(UTC),
            )
            change.files = (checked.file,)
            change.is_repeated = granted.is_published(checked)
            file = granted.publish(checked)
        finally:
            form.close()
        return _done(f"{file.filename} is published")

    def remove(name: str, target: str, repository: str | None = None) -> Response:
        with noted(DELETE) as change:
            granted = grant_change(change, repository)
            change.files = files = _target(granted, name, target)
            granted.delete(files)
        return _files(files)

    def yank(name: str, target: str, repository: str | None = None) -> Response:
        with noted(YANK if request.method == "POST" else UNYANK) as change:
            granted = grant_change(change, repository)
            change.files = files = _target(granted, name, target)
            reason = request.form.get("reason", "").strip() if request.method == "POST" else None
            if reason is not None and not _is_line(reason):
                raise InvalidUpload(
                    "a reason is one line of printable text, at most 500 characters"
                )
            change.reason = reason
            granted.yank(files, reason)
        return _files(files)

    for rule in _UPLOAD_PATHS:
        # Without strict slashes `/r/<repository>` is the upload itself, never a redirect to it.
        blueprint.add_url_rule(rule, view_func=upload, methods=["POST"], strict_slashes=False)
    for rule in ("/simple/<name>/<target>", "/simple/<name>/<target>/"):
        blueprint.add_url_rule(rule, view_func=remove, methods=["DELETE"])
    for rule in ("/simple/<name>/<target>/yank", "/simple/<name>/<target>/yank/"):
        blueprint.add_url_rule(rule, view_func=yank, methods=["POST", "DELETE"])
    return blueprint


def _target(granted: Grant, name: str, target: str) -> tuple[DistributionFile, ...]:
    """The files that an address names: one file, or all of a release."""
    project = normalize(name)
    if is_filename(target):
        return (granted.file(project, target, Access.WRITE),)
    return granted.release(project, normalize_version(target), Access.WRITE)


def _is_line(text: str) -> bool:
    return len(text) <= 500 and (not text or text.isprintable())


def _done(sentence: str) -> Response:
    return Response(sentence + "\n", status=HTTPStatus.OK, content_type="text/plain; charset=utf-8")


def _files(files: tuple[DistributionFile, ...]) -> Response:
    return jsonify({"files": [file.filename for file in files]})
