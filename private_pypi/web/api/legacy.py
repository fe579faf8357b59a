"""The legacy upload API, and deletes and yanks, which that API does not have.

An upload is checked twice: by the gate when its head has arrived, before the body is read, and by
the view when the file is on disk.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus

from flask import Response, jsonify, request

from private_pypi.backend import Access
from private_pypi.distributions.filenames import is_filename, normalize, normalize_version
from private_pypi.distributions.upload import check_upload
from private_pypi.errors import (
    InvalidUpload,
    NotAllowed,
    PrivatePypiError,
    StorageFull,
    TooLarge,
)
from private_pypi.model import ListedFile
from private_pypi.repositories import Grant
from private_pypi.web.api.legacy_json import no_xml_rpc
from private_pypi.web.deployment import Deployment
from private_pypi.web.http.answers import answer_error
from private_pypi.web.http.credentials import parse_credentials
from private_pypi.web.http.routes import Route
from private_pypi.web.operations.changes import (
    DELETE,
    PUBLISH,
    UNYANK,
    YANK,
    Change,
    Requester,
)
from private_pypi.web.requests import deployment, grant_change, noted
from private_pypi.web.serving import Answer, Gate, PassOn, ReceiveForm, RequestHead
from private_pypi.web.serving.receiving import FormLimits, receive_form
from private_pypi.web.sessions.attempts import network_of

# People use all of these, and twine and poetry follow no redirect (protocol 47).
_UPLOAD_PATHS = ("/", "/simple/", "/legacy/")
_UPLOAD_PATH = re.compile(r"(?:/r/(?P<repository>[^/]+))?(?:/|/simple/?|/legacy/?)?")
_XML = "text/xml"  # the content type of XML-RPC
_SMALL_BODY = 2**20  # bytes; the limit for requests that are not uploads
_SPARE = 64 * 2**20  # bytes that an upload has to leave free for the index and the logs


def make_gate(served: Deployment) -> Gate:
    """The gate of the engine: it refuses a bad upload before the body is read."""

    def gate(head: RequestHead) -> Answer | ReceiveForm | PassOn:
        match = _UPLOAD_PATH.fullmatch(head.path)
        is_xml = head.headers.get("CONTENT_TYPE", "").lower().startswith(_XML)
        if head.method != "POST" or match is None or is_xml:
            return PassOn(max_body_bytes=_SMALL_BODY)
        client = network_of(head.remote_addr)
        credentials = parse_credentials(head.headers.get("AUTHORIZATION"), client)
        change = Change(action=PUBLISH)
        try:
            served.require_served(head.headers.get("HOST"))
            granted = served.repositories.authorize(
                credentials, name=match["repository"], need=Access.WRITE
            )
            change.let_in(granted.name, granted.secret)
            limits = served.options.limits.for_files(granted.max_file_bytes)
            _check_head(head, granted, served, limits)
        except PrivatePypiError as error:
            if isinstance(error, NotAllowed):
                change.refuse(served.repositories.meant(credentials, name=match["repository"]))
            requester = Requester(
                address=head.remote_addr,
                user_agent=head.headers.get("USER_AGENT", ""),
                request_id=head.request_id,
            )
            served.changes.note(change, requester, error)
            return answer_error(error, head.headers.get("ACCEPT"))
        return ReceiveForm(folder=served.tmp, limits=limits)

    return gate


def _check_head(head: RequestHead, granted: Grant, served: Deployment, limits: FormLimits) -> None:
    granted.require_ready()  # until then, it is not known which names are burnt
    content_type = head.headers.get("CONTENT_TYPE", "")
    if not content_type.lower().startswith("multipart/form-data"):
        raise InvalidUpload(f"an upload is multipart/form-data, not {content_type or 'untyped'}")
    if head.content_length is None:
        return
    if head.content_length > limits.max_body_bytes:
        raise TooLarge(
            f"a body of {head.content_length} bytes is over the limit: the file may have "
            f"{limits.max_file_bytes} bytes, and the rest of the form {limits.max_field_bytes}"
        )
    free = shutil.disk_usage(served.tmp).free
    if head.content_length + _SPARE > free:
        raise StorageFull(
            f"no space left for an upload of {head.content_length} bytes ({free} bytes are free)"
        )


# -- views ---------------------------------------------------------------------------------------


def upload(repository: str | None = None) -> Response:
    """Publish the file of a form."""
    if request.mimetype == _XML:  # `pip search` uses the address of `pip install`
        return no_xml_rpc(repository)
    with noted(PUBLISH) as change:
        return _publish(change, repository)


def _publish(change: Change, repository: str | None) -> Response:
    granted = grant_change(change, repository)
    served = deployment()
    limits = served.options.limits.for_files(granted.max_file_bytes)
    form = receive_form(request.environ, served.tmp, limits)
    try:
        action = next((value for name, value in form.fields if name == ":action"), "")
        if action in ("submit", "verify"):
            # Sent by the old command `register`, and still by poetry (protocol 46).
            change.is_made = False
            return _done("nothing to do: projects are made by their first upload")
        if action != "file_upload":
            raise InvalidUpload(f"unknown :action {action!r}; it must be 'file_upload'")
        if form.file is None:
            raise InvalidUpload("the form has no file: part 'content' is missing")
        checked = check_upload(
            form.fields,
            form.file,
            max_file_bytes=granted.max_file_bytes,
            now=datetime.now(UTC),
        )
        change.files = (checked.file,)
        change.is_repeated = granted.is_published(checked)
        file = granted.publish(checked)
    finally:
        form.close()
    return _done(f"{file.filename} is published", *checked.warnings)


def remove(name: str, target: str, repository: str | None = None) -> Response:
    """Delete a file, or all files of a release."""
    with noted(DELETE) as change:
        granted = grant_change(change, repository)
        change.files = files = _target(granted, name, target)
        granted.delete(files)
    return _files(files)


def yank(name: str, target: str, repository: str | None = None) -> Response:
    """Yank a file or all files of a release (POST), or undo that (DELETE)."""
    with noted(YANK if request.method == "POST" else UNYANK) as change:
        granted = grant_change(change, repository)
        change.files = files = _target(granted, name, target)
        reason = request.form.get("reason", "").strip() if request.method == "POST" else None
        if reason is not None and not _is_line(reason):
            raise InvalidUpload("a reason is one line of printable text, at most 500 characters")
        change.reason = reason
        granted.yank(files, reason)
    return _files(files)


ROUTES = (
    # Without strict slashes, an upload to `/r/<repository>` is taken and not redirected.
    *(Route(path, upload, ("POST",), {"strict_slashes": False}) for path in _UPLOAD_PATHS),
    Route("/simple/<name>/<target>", remove, ("DELETE",)),
    Route("/simple/<name>/<target>/", remove, ("DELETE",)),
    Route("/simple/<name>/<target>/yank", yank, ("POST", "DELETE")),
    Route("/simple/<name>/<target>/yank/", yank, ("POST", "DELETE")),
)


def _target(granted: Grant, name: str, target: str) -> Sequence[ListedFile]:
    """The files that an address names by a filename or a version."""
    project = normalize(name)
    if is_filename(target):
        return (granted.file(project, target, Access.WRITE),)
    return granted.release(project, normalize_version(target), Access.WRITE)


def _is_line(text: str) -> bool:
    return len(text) <= 500 and (not text or text.isprintable())


def _done(sentence: str, *warnings: str) -> Response:
    lines = [sentence, *(f"warning: {warning}" for warning in warnings)]
    return Response(
        "".join(f"{line}\n" for line in lines),
        status=HTTPStatus.OK,
        content_type="text/plain; charset=utf-8",
    )


def _files(files: Sequence[ListedFile]) -> Response:
    return jsonify({"files": [file.filename for file in files]})
