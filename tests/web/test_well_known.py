"""Addresses that programs ask every server for."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from private_pypi.testing.distributions import make_wheel
from private_pypi.web import create_app
from tests.web.conftest import MINE, READER, Deploy, publish


def test_crawlers_are_kept_out(client: FlaskClient) -> None:
    answer = client.get("/robots.txt")
    assert (answer.status_code, answer.mimetype) == (200, "text/plain")
    assert answer.text == "User-agent: *\nDisallow: /\n"


def test_there_is_an_icon(client: FlaskClient) -> None:
    answer = client.get("/favicon.ico")
    assert (answer.status_code, answer.mimetype) == (200, "image/svg+xml")
    assert answer.headers["Cache-Control"] == "public, max-age=86400"


def test_security_txt_is_there_only_when_it_was_configured(deploy: Deploy) -> None:
    path = "/.well-known/security.txt"
    assert create_app(deploy(MINE)).test_client().get(path).status_code == 404
    text = "Contact: mailto:security@acme.example\nExpires: 2027-01-01T00:00:00Z\n"
    answer = create_app(deploy(MINE, security_txt=text)).test_client().get(path)
    assert (answer.status_code, answer.mimetype, answer.text) == (200, "text/plain", text)


@pytest.mark.parametrize("accept", ["*/*", "application/vnd.pypi.simple.v1+json"])
def test_index_html_is_the_page(client: FlaskClient, accept: str) -> None:
    assert publish(client, *make_wheel()).status_code == 200
    headers = READER | {"Accept": accept}
    for path, link in (
        ("/r/mine/simple/index.html", 'href="demo/"'),
        ("/r/mine/simple/demo/index.html", 'href="demo-1.0-py3-none-any.whl#'),
    ):
        answer = client.get(path, headers=headers)
        assert (answer.status_code, answer.mimetype) == (200, "text/html")
        assert link in answer.text
        assert client.get(path).status_code == 401
    assert client.get("/simple/nothing/index.html", headers=headers).status_code == 404
    answer = client.get("/simple/De.mo/index.html", headers=headers)
    assert answer.headers["Location"] == "../de-mo/index.html"


def test_a_project_may_be_called_index_html(client: FlaskClient) -> None:
    assert publish(client, *make_wheel("index.html")).status_code == 200
    answer = client.get("/simple/index.html", headers=READER)
    assert (answer.status_code, answer.headers["Location"]) == (301, "index-html/")
