"""What operators ask of a server: a new configuration, and when an index was synchronised."""

from __future__ import annotations

from flask import Blueprint, Response, request

from private_pypi.backend import Access
from private_pypi.errors import ConfigurationError
from private_pypi.web.auth import parse_credentials
from private_pypi.web.operations.changes import INITIALIZE
from private_pypi.web.requests import deployment, grant, noted, require_own_form


def make_blueprint() -> Blueprint:
    """The routes of one repository, relative to the root or to `/r/<repository>`."""
    blueprint = Blueprint("admin", __name__)

    def index_mtime(repository: str | None = None) -> Response:
        granted = grant(repository, Access.READ)
        served = granted.repository
        served.require_ready()
        synced_at = served.index.sync_state().synced_at if served.has_index() else None
        return _text(str(int(synced_at or 0)))

    for rule in ("/index_mtime/", "/index_mtime"):
        blueprint.add_url_rule(rule, view_func=index_mtime, methods=["GET"])
    return blueprint


def initialize() -> Response:
    """`POST /initialize/`: form fields or files `config` and `admin_secret`, in TOML."""
    served = deployment()
    credentials = parse_credentials(request.headers.get("Authorization"))
    with noted(INITIALIZE) as change:
        trusted = served.authorize_initialize(credentials)
        change.let_in("", credentials.secret if trusted and credentials is not None else None)
        require_own_form()
        config = _submitted("config")
        if config is None:
            raise ConfigurationError("the form has no field or file 'config'")
        served.initialize(config, _submitted("admin_secret"), trusted=trusted)
        change.repositories = [repository.name for repository in served.repositories]
    return _text("Done")


def _submitted(name: str) -> str | None:
    """The text of a field or of an uploaded file, given once."""
    texts = request.form.getlist(name)
    for file in request.files.getlist(name):
        try:
            texts.append(file.stream.read().decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{name!r} is not UTF-8: {error}") from error
    if len(texts) > 1:
        raise ConfigurationError(f"{name!r} is given {len(texts)} times")
    return texts[0] if texts else None


def _text(text: str) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(text, content_type="text/plain; charset=utf-8", headers=headers)
