"""The legacy JSON API over HTTP (protocol 72), and what XML-RPC is told."""

from __future__ import annotations

import re
import xmlrpc.client
from typing import Any

import pytest
from flask.testing import FlaskClient

from private_pypi.testing.distributions import make_sdist, make_wheel
from private_pypi.web import create_app
from tests.web.conftest import MINE, OTHER, READER, WRITER, Deploy, basic, publish


@pytest.fixture
def filled(client: FlaskClient) -> FlaskClient:
    summary = [("Summary", "A demo"), ("Project-URL", "Source, https://demo.example/source")]
    for filename, content in (
        make_sdist("demo", "1.0", extra_metadata=summary),
        make_wheel("demo", "1.0", extra_metadata=summary),
        make_wheel("demo", "2.0a1"),
    ):
        assert publish(client, filename, content).status_code == 200
    return client


def get(client: FlaskClient, path: str) -> dict[str, Any]:
    answer = client.get(path, headers=READER)
    assert (answer.status_code, answer.content_type) == (200, "application/json"), answer.text
    found: dict[str, Any] = answer.json
    return found


@pytest.mark.parametrize(
    "path", ["/r/mine/pypi/demo/json", "/r/mine/pypi/demo/json/", "/pypi/demo/json"]
)
def test_a_project_is_about_the_release_that_installers_take(
    filled: FlaskClient, path: str
) -> None:
    found = get(filled, path)
    assert list(found["releases"]) == ["1.0", "2.0a1"]
    assert [file["filename"] for file in found["urls"]] == [
        "demo-1.0-py3-none-any.whl",
        "demo-1.0.tar.gz",
    ]
    info = found["info"]
    assert (info["version"], info["summary"]) == ("1.0", "A demo")
    assert info["project_urls"] == {"Source": "https://demo.example/source"}
    assert info["package_url"] == "http://localhost/r/mine/project/demo/"


def test_a_release_is_found_however_its_version_is_spelled(filled: FlaskClient) -> None:
    found = get(filled, "/r/mine/pypi/demo/v2.0.0-alpha.1/json")
    assert found["info"]["version"] == "2.0a1"
    assert [file["filename"] for file in found["urls"]] == ["demo-2.0a1-py3-none-any.whl"]


def test_the_addresses_of_files_give_the_files(filled: FlaskClient) -> None:
    for file in get(filled, "/r/mine/pypi/demo/json")["urls"]:
        assert file["url"].startswith("http://localhost/packages/mine/demo/")
        path = file["url"].removeprefix("http://localhost")
        answer = filled.get(path, headers=READER)
        assert (answer.status_code, len(answer.data)) == (200, file["size"])
        assert filled.get(path).status_code == 401


def test_the_serial_is_that_of_the_list_of_projects(filled: FlaskClient) -> None:
    # bandersnatch fetches a project again until the header is as new as the list says.
    accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
    listed = filled.get("/r/mine/simple/", headers=READER | accept).json["projects"]
    answer = filled.get("/r/mine/pypi/demo/json", headers=READER)
    serial = answer.json["last_serial"]
    assert listed == [{"name": "demo", "_last-serial": serial}]
    assert answer.headers["X-PyPI-Last-Serial"] == str(serial)


def test_a_client_that_has_it_is_told_so(filled: FlaskClient) -> None:
    path = "/r/mine/pypi/demo/json"
    etag = filled.get(path, headers=READER).headers["ETag"]
    assert filled.get(path, headers=READER | {"If-None-Match": etag}).status_code == 304
    assert publish(filled, *make_wheel("demo", "3.0")).status_code == 200
    answer = filled.get(path, headers=READER | {"If-None-Match": etag})
    assert (answer.status_code, answer.json["info"]["version"]) == (200, "3.0")


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/r/mine/pypi/De.mo/json", "../de-mo/json"),
        ("/r/mine/pypi/De.mo/1.0/json", "../../de-mo/1.0/json"),
    ],
)
def test_other_spellings_of_a_name_lead_to_the_normalised_one(
    client: FlaskClient, path: str, location: str
) -> None:
    answer = client.get(path, headers=READER)
    assert (answer.status_code, answer.headers["Location"]) == (301, location)


@pytest.mark.parametrize("path", ["/r/mine/pypi/nothing/json", "/r/mine/pypi/demo/9.9/json"])
def test_what_is_not_there_is_404_and_never_the_public_index(
    filled: FlaskClient, path: str
) -> None:
    assert filled.get(path, headers=READER).status_code == 404


def test_strangers_and_other_repositories_read_nothing(deploy: Deploy) -> None:
    client = create_app(deploy(MINE + OTHER)).test_client()
    assert publish(client, *make_wheel(), path="/r/mine/").status_code == 200
    for path in ("/r/mine/pypi/demo/json", "/packages/mine/demo/demo-1.0-py3-none-any.whl"):
        assert client.get(path).status_code == 401
        assert client.get(path, headers=basic("other", "wrong")).status_code == 401
    assert client.get("/packages/mine/demo/demo-1.0-py3-none-any.whl", headers=READER).data


@pytest.mark.parametrize(
    "path",
    [
        *("/pypi", "/pypi/", "/RPC2", "/r/mine/pypi", "/r/mine/pypi/"),
        *("/", "/simple/", "/simple", "/r/mine", "/r/mine/", "/r/mine/simple/"),
    ],
)
def test_xml_rpc_is_told_where_to_look(client: FlaskClient, path: str) -> None:
    call = xmlrpc.client.dumps(({"name": "demo"}, "or"), "search")
    answer = client.post(path, data=call, content_type="text/xml", headers=WRITER)
    assert (answer.status_code, answer.mimetype) == (200, "text/xml")
    with pytest.raises(xmlrpc.client.Fault, match=re.escape("http://localhost/")):
        xmlrpc.client.loads(answer.text)
