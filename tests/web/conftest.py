"""A deployment with real folders, and test clients of Flask with credentials."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from private_pypi.backend import Secret
from private_pypi.configuration.config import ConfigurationText
from private_pypi.testing.distributions import encode_multipart, form_for
from private_pypi.web import HOT_PATH, create_app
from private_pypi.web.deployment import Deployment
from private_pypi.web.options import ServerOptions
from private_pypi.web.serving import Answer

MINE = """
[mine]
type = "file_system"
read_secret = "reader"
write_secret = "writer"
claimed = ["acme-*"]
sync_index_interval = 3600
"""
OTHER = """
[other]
type = "file_system"
read_secret = "other-reader"
write_secret = "other-writer"
sync_index_interval = 3600
"""


def basic(user: str, password: str) -> dict[str, str]:
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {token}"}


READER = basic("mine", "reader")
WRITER = basic("mine", "writer")

Deploy = Callable[..., Deployment]


def sent_by_the_loop(app: Flask, environ: dict[str, Any]) -> Answer | None:
    """What the loop of a server sends for a GET; None: a thread has to answer.

    Once a second it is a thread that answers, because the files of the configuration have to be
    checked. Here they count as checked, however slow the machine is.
    """
    app.extensions["private_pypi"]._looked_at = time.monotonic()
    answer = app.extensions[HOT_PATH].at_once(environ)
    assert answer is None or isinstance(answer, Answer)
    return answer


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Deploy]:
    """Make deployments over `tmp_path/root`; they are closed at the end."""
    made: list[Deployment] = []

    def make(
        config: str | ConfigurationText | None,
        admin_secret: str | None = None,
        *,
        root: Path = tmp_path / "root",
        extra_index_url: str = "",
        admin_token: str = "",
        environ: dict[str, str] | None = None,
        **options: Any,
    ) -> Deployment:
        root.mkdir(exist_ok=True)
        deployment = Deployment(
            ServerOptions(
                root=root,
                config=ConfigurationText(text=config, name="config", folder=root)
                if isinstance(config, str)
                else config,
                admin_secret=None
                if admin_secret is None
                else ConfigurationText(text=admin_secret, name="admin_secret", folder=root),
                extra_index_url=extra_index_url,
                admin_token=Secret(admin_token) if admin_token else None,
                environ=environ or {},
                **options,
            )
        )
        made.append(deployment)
        return deployment

    yield make
    for deployment in made:
        deployment.close()


@pytest.fixture
def client(deploy: Deploy) -> FlaskClient:
    """A client of a server with the one repository `mine`."""
    return create_app(deploy(MINE)).test_client()


def publish(
    client: FlaskClient,
    filename: str,
    content: bytes,
    *,
    path: str = "/simple/",
    headers: dict[str, str] | None = None,
    **overrides: Any,
) -> TestResponse:
    """Upload a file as twine does."""
    content_type, body = encode_multipart(
        form_for(filename, content, **overrides), filename, content
    )
    return client.post(
        path, data=body, content_type=content_type, headers=WRITER if headers is None else headers
    )
