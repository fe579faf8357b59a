"""What operators ask of a server: a new configuration, and when an index was synchronised."""

from __future__ import annotations

from flask import Response, request

from private_pypi.backend import Access
from private_pypi.errors import ConfigurationError
from private_pypi.web.http.credentials import parse_credentials
from private_pypi.web.http.routes import Route
from private_pypi.web.operations.changes import INITIALIZE
from private_pypi.web.requests import deployment, grant, noted, require_own_form


def index_mtime(repository: str | None = None) -> Response:
    """When the index was last synchronised, in whole Unix seconds; 0 if it never was."""
    granted = grant(repository, Access.READ)
    return _text(str(int(granted.synced_at() or 0)))


def initialize() -> Response:
    """Use a new configuration. It comes as form fields or files `config` and `admin_secret`."""
    served = deployment()
    credentials = parse_credentials(request.headers.get("Authorization"))
    with noted(INITIALIZE) as change:
        trusted = served.authorize_initialize(credentials, request.headers.get("Host"))
        change.let_in("", credentials.secret if trusted and credentials is not None else None)
        require_own_form()
        config = _submitted("config")
        if config is None:
            raise ConfigurationError("the form has no field or file 'config'")
        served.initialize(config, _submitted("admin_secret"), trusted=trusted)
        change.repositories = [repository.name for repository in served.repositories]
    return _text("Done")


ROUTES = (Route("/index_mtime/", index_mtime), Route("/index_mtime", index_mtime))
SERVER_ROUTES = (
    Route("/initialize/", initialize, ("POST",)),
    Route("/initialize", initialize, ("POST",)),
)


def _submitted(name: str) -> str | None:
    """The text of the field or file with this name; None if there is none."""
    texts = request.form.getlist(name)
    for file in request.files.getlist(name):
        try:
            texts.append(file.stream.read().decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{name!r} is not UTF-8: {error}") from error
    if len(texts) > 1:
        raise ConfigurationError(f"{name!r} is given {len(texts)} times; give it once")
    return texts[0] if texts else None


def _text(text: str) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(text, content_type="text/plain; charset=utf-8", headers=headers)
