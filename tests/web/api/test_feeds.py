"""The feeds of a repository over HTTP (protocol 74)."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from flask.testing import FlaskClient

from private_pypi.testing.distributions import make_sdist, make_wheel
from tests.web.conftest import READER, publish

ALL = ("/rss/updates.xml", "/rss/packages.xml", "/rss/project/demo/releases.xml")


@pytest.fixture
def filled(client: FlaskClient) -> FlaskClient:
    for filename, content in (
        make_wheel("demo", "1.0"),
        make_sdist("demo", "1.0"),
        make_wheel("other", "5"),
        make_wheel("demo", "2.0", extra_metadata=[("Summary", "<b>A & B</b>")]),
    ):
        assert publish(client, filename, content).status_code == 200
    return client


def items(client: FlaskClient, path: str) -> list[tuple[str, str]]:
    answer = client.get(path, headers=READER)
    assert (answer.status_code, answer.mimetype) == (200, "application/rss+xml")
    return [
        (item.findtext("title", ""), item.findtext("link", ""))
        for item in ElementTree.fromstring(answer.text).iter("item")
    ]


def test_updates_are_releases_the_newest_first(filled: FlaskClient) -> None:
    base = "http://localhost/r/mine/project/"
    assert items(filled, "/r/mine/rss/updates.xml") == [
        ("demo 2.0", base + "demo/2.0/"),
        ("other 5", base + "other/5/"),
        ("demo 1.0", base + "demo/1.0/"),
    ]


def test_packages_are_projects_by_their_first_upload(filled: FlaskClient) -> None:
    assert [title for title, _ in items(filled, "/r/mine/rss/packages.xml")] == [
        "other added",
        "demo added",
    ]


def test_projects_are_called_as_their_metadata_calls_them(client: FlaskClient) -> None:
    assert publish(client, *make_wheel("PyYAML_Tools"), name="PyYAML_Tools").status_code == 200
    base = "http://localhost/r/mine/project/pyyaml-tools/"
    assert items(client, "/r/mine/rss/updates.xml") == [("PyYAML_Tools 1.0", base + "1.0/")]
    assert items(client, "/r/mine/rss/packages.xml") == [("PyYAML_Tools added", base)]
    feed = client.get("/rss/project/pyyaml-tools/releases.xml", headers=READER).text
    assert "<title>PyYAML_Tools: releases</title>" in feed


def test_a_project_has_a_feed_of_its_releases(filled: FlaskClient) -> None:
    assert [title for title, _ in items(filled, "/rss/project/demo/releases.xml")] == ["2.0", "1.0"]
    answer = filled.get("/rss/project/De.mo/releases.xml", headers=READER)
    assert (answer.status_code, answer.headers["Location"]) == (301, "../de-mo/releases.xml")
    assert filled.get("/rss/project/nothing/releases.xml", headers=READER).status_code == 404


@pytest.mark.parametrize("path", ALL)
def test_feeds_have_the_rights_of_pages_and_cost_nothing_while_nothing_changes(
    filled: FlaskClient, path: str
) -> None:
    assert filled.get(path).status_code == 401
    answer = filled.get(path, headers=READER)
    again = filled.get(path, headers=READER | {"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304
