"""Servers over the repositories of owners on GitHub: what they ask it, and who gets what."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from private_pypi import cli
from private_pypi.storage import recent_trouble
from private_pypi.testing.distributions import make_wheel
from private_pypi.web import create_app
from tests.github.fake import FakeGitHub
from tests.github.owner import PROJECTS, asset_id
from tests.waiting import eventually
from tests.web.conftest import Deploy, basic, deploy, publish

__all__ = ["deploy"]

JSON = "application/vnd.pypi.simple.v1+json"
FILENAME, WHEEL = make_wheel("demo", "1.0", requires_python=">=3.8")


@pytest.fixture
def github(github: FakeGitHub) -> FakeGitHub:
    for name in PROJECTS:
        github.make_repo("acme", name, private=True)
    return github


class Server:
    """A server with a folder of its own, and its client."""

    def __init__(self, github: FakeGitHub, deploy: Deploy, root: Path, keys: str) -> None:
        config = f'[hub]\ntype = "github_projects"\napi_url = "{github.api_url}"\n{keys}\n'
        self.deployment = deploy(
            config, root=root, extra_index_url="https://elsewhere.example/simple/"
        )
        self.client: FlaskClient = create_app(self.deployment).test_client()

    def get(self, path: str, user: str, token: str, accept: str = JSON) -> TestResponse:
        return self.client.get(path, headers={**basic(user, token), "Accept": accept})

    def files(self, project: str, user: str, token: str) -> list[dict[str, Any]]:
        answer = self.get(f"/simple/{project}/", user, token)
        assert answer.status_code == 200, answer.text
        assert answer.json is not None
        return list(answer.json["files"])

    def publish(self, filename: str, content: bytes, user: str, token: str) -> TestResponse:
        return publish(self.client, filename, content, headers=basic(user, token))


Serve = Callable[..., Server]


@pytest.fixture
def serve(github: FakeGitHub, deploy: Deploy, tmp_path: Path) -> Serve:
    made = itertools.count()

    def make(keys: str = 'owner = "acme"') -> Server:
        return Server(github, deploy, tmp_path / f"root-{next(made)}", keys)

    return make


@pytest.fixture
def writer(github: FakeGitHub) -> str:
    return github.make_token(
        "walter", dict.fromkeys([f"acme/{name}" for name in PROJECTS], "write")
    )


@pytest.mark.parametrize("digests", [True, False])
def test_a_page_says_what_the_files_say(
    github: FakeGitHub, serve: Serve, writer: str, digests: bool
) -> None:
    """PyPIHub gave names alone."""
    github.offers_digests = digests
    release = github.make_release("acme/demo", "v1.0", {FILENAME: WHEEL, "README.md": b"text"})
    server = serve()
    (file,) = server.files("demo", "hub", writer)
    metadata = server.get(f"/simple/demo/{FILENAME}.metadata", "hub", writer)
    assert release.published_at is not None
    assert file["filename"] == FILENAME
    assert file["size"] == len(WHEEL)
    assert file["hashes"] == {"sha256": hashlib.sha256(WHEEL).hexdigest()}
    assert file["requires-python"] == ">=3.8"
    assert file["upload-time"][:19] == release.published_at.isoformat()[:19]
    assert file["core-metadata"] == {"sha256": hashlib.sha256(metadata.data).hexdigest()}
    assert b"Name: demo\n" in metadata.data
    assert server.get(f"/simple/demo/{FILENAME}", "hub", writer).data == WHEEL


def test_what_the_pages_of_a_project_cost(github: FakeGitHub, serve: Serve, writer: str) -> None:
    """The first look reads a part of each wheel; a later one is one conditional request."""
    for number in range(10):
        filename, content = make_wheel("demo", f"{number}.0")
        github.make_release("acme/demo", f"v{number}.0", {filename: content})
    server = serve("owner = 'acme'\nsync_index_interval = 0.001")
    server.files("demo", "hub", writer)
    api = [request for request in github.requests if request.host == "api"]
    assert [r.name for r in api[:3]] == [
        "GET /rate_limit",
        "GET /repos/acme/demo",
        "GET /repos/acme/demo/releases",
    ]
    assert {r.name.rpartition("/")[0] for r in api[3:]} == {"GET /repos/acme/demo/releases/assets"}
    assert len(api) == 3 + 10
    for is_counted in (True, False):  # the listing has the counts of downloads, also of ours
        github.forget_requests()
        server.files("demo", "hub", writer)
        assert [(r.name, r.counted) for r in github.requests] == [
            ("GET /repos/acme/demo/releases", is_counted)
        ]
    github.forget_requests()
    for number in range(10):
        path = f"/simple/demo/{make_wheel('demo', f'{number}.0')[0]}.metadata"
        assert server.get(path, "hub", writer).status_code == 200
    assert {r.name for r in github.requests} <= {"GET /repos/acme/demo/releases"}
    assert github.counted == 0


def test_a_yank_is_kept_in_the_label_of_the_asset(
    github: FakeGitHub, serve: Serve, writer: str
) -> None:
    """So other servers know of it, and people can do it on GitHub."""
    release = github.make_release("acme/demo", "v1.0", {FILENAME: WHEEL})
    (asset,) = release.assets.values()
    one, other = serve(), serve("owner = 'acme'\nsync_index_interval = 0.001")
    one.files("demo", "hub", writer)
    path, headers = "/simple/demo/1.0/yank", basic("hub", writer)
    yanked = one.client.post(path, data={"reason": "broken"}, headers=headers)
    assert yanked.status_code == 200, yanked.text
    assert asset.label == f'{FILENAME} (yanked: "broken")'
    for server in (one, other):
        assert [file["yanked"] for file in server.files("demo", "hub", writer)] == ["broken"]
    asset.label = ""
    assert [file["yanked"] for file in other.files("demo", "hub", writer)] == [False]


def test_a_deleted_file_is_gone_from_github_and_its_name_is_burnt(
    github: FakeGitHub, serve: Serve, writer: str
) -> None:
    server, headers = serve(), basic("hub", writer)
    assert server.publish(FILENAME, WHEEL, "hub", writer).status_code == 200
    path = f"/simple/demo/{FILENAME}"
    assert server.client.delete(path, headers=headers).status_code == 200
    (release,) = github.releases("acme/demo")
    assert [asset.name for asset in release.assets.values()] == [f"{FILENAME}.deleted"]
    assert server.get(path, "hub", writer).status_code == 404
    # A server with a folder of its own knows it as well, for these bytes and for others.
    for each in (server, serve()):
        for content in (WHEEL, make_wheel("demo", "1.0", files={"other.py": b"other"})[1]):
            answer = each.publish(FILENAME, content, "hub", writer)
            assert answer.status_code == 400, answer.text
            assert "previously used by a file that has since been deleted" in answer.text
        assert each.get("/simple/demo/", "hub", writer).status_code == 404


@pytest.mark.parametrize("user", ["hub", "acme"])
def test_a_restored_name_is_taken_by_every_server(
    github: FakeGitHub,
    serve: Serve,
    writer: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    user: str,
) -> None:
    """Also of an owner whose name is no table."""
    keys = 'owner = "acme"' if user == "hub" else "any_owner = true"
    server = serve(keys)
    other_content = make_wheel("demo", "1.0", files={"other.py": b"other"})[1]
    assert server.publish(FILENAME, WHEEL, user, writer).status_code == 200
    path = f"/simple/demo/{FILENAME}"
    assert server.client.delete(path, headers=basic(user, writer)).status_code == 200
    config = tmp_path / "config.toml"
    config.write_text(f'[hub]\ntype = "github_projects"\napi_url = "{github.api_url}"\n{keys}\n')
    words = ["restore_name", str(tmp_path / "root-0"), "hub", FILENAME, "--config", str(config)]
    if user != "hub":
        words += ["--user", user]
    assert cli.main(words, {}) == 1
    reader = github.make_token("rita", {"acme/demo": "read"})
    assert cli.main([*words, "--secret", reader], {}) == 1
    told = capsys.readouterr().err
    assert "needs a secret that may write" in told
    assert f"may read project 'demo' of '{user}', but not write to it" in told
    assert server.publish(FILENAME, WHEEL, user, writer).status_code == 400
    for _ in range(2):
        assert cli.main([*words, "--secret_env=TOKEN"], {"TOKEN": writer}) == 0
    assert capsys.readouterr().out == (
        f"{user}: the name {FILENAME} can be used again\n"
        f"{user}: no file named {FILENAME} was deleted; nothing to do\n"
    )
    for each in (server, serve(keys)):
        assert each.publish(FILENAME, other_content, user, writer).status_code == 200
        assert each.get(path, user, writer).data == other_content


def test_what_is_published_here_is_known_here_at_once(
    github: FakeGitHub, serve: Serve, writer: str
) -> None:
    """Whatever was said of its project a moment ago, and to whom: pages, absences and lists."""
    server = serve()
    github.make_repo("acme", "late", private=True)
    reader = github.make_token("rita", {"acme/demo": "read"})
    newcomer = github.make_token("walter")
    filename, content = make_wheel("late", "1.0")

    def listed(token: str) -> list[str]:
        answer = server.get("/simple/", "hub", token)
        assert answer.json is not None
        return [project["name"] for project in answer.json["projects"]]

    for token in (reader, newcomer):
        assert server.get("/simple/late/", "hub", token).status_code == 404
        assert "late" not in listed(token)
    assert "late" not in listed(writer)
    github.set_rights("walter", {"acme/late": "write"})
    github.set_rights("rita", {"acme/late": "read"})
    assert server.publish(filename, content, "hub", writer).status_code == 200
    for token in (writer, newcomer, reader):
        assert "late" in listed(token)
        (file,) = server.files("late", "hub", token)
        assert file["filename"] == filename


def test_the_address_of_pypihub_works_unchanged(
    github: FakeGitHub, serve: Serve, writer: str
) -> None:
    """http://OWNER:TOKEN@host/simple/, and the links that lock files keep."""
    github.make_release("acme/demo", "v1.0", {FILENAME: WHEEL})
    server = serve("any_owner = true\nowners = ['Acme']")
    for user in ("acme", "ACME"):
        (file,) = server.files("demo", user, writer)
        assert file["filename"] == FILENAME
        answer = server.get("/simple/", user, writer)
        assert answer.json is not None
        assert [project["name"] for project in answer.json["projects"]] == list(PROJECTS)
    link = f"/asset/{asset_id(github, 'acme/demo', FILENAME)}/{FILENAME}"
    assert server.get(link, "acme", writer).data == WHEEL
    for user, token, status in (("others", writer, 403), ("acme", "wrong", 401)):
        assert server.get("/simple/demo/", user, token).status_code == status
        assert server.get(link, user, token).status_code == status


def test_absence_refusal_and_trouble_are_three_things(
    github: FakeGitHub, serve: Serve, writer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyPIHub answered 404 to all of them, and installers took the public package."""
    monkeypatch.setattr(recent_trouble, "MOST", 0.0)
    github.make_release("acme/demo", "v1.0", {FILENAME: WHEEL})
    server = serve()
    assert server.get("/simple/never-was/", "hub", writer).status_code == 404
    assert server.get("/simple/demo/", "hub", "wrong").status_code == 401
    github.fail("500", on="GET /repos/*", times=100)
    assert server.get("/simple/demo/", "hub", writer).status_code in (502, 503)
    github.heal()
    github.fail("rate-limit", on="GET /repos/*", times=100, seconds=600)
    limited = server.get("/simple/demo/", "hub", writer)
    assert (limited.status_code, int(limited.headers["Retry-After"]) > 0) == (503, True)
    github.heal()
    github.revoke(writer)
    answered = []

    def is_refused() -> bool:
        answered.append(server.get("/simple/demo/", "hub", writer).status_code)
        return answered[-1] == 401

    # What was asked before may take longer than a request waits; then it is 503 until that is over.
    eventually(is_refused)
    assert set(answered) <= {401, 503}


def test_nothing_of_a_project_is_given_to_whom_github_does_not_show_it(
    github: FakeGitHub, serve: Serve, writer: str
) -> None:
    """Whatever was looked up, downloaded and kept for somebody else."""
    github.make_release("acme/demo", "v1.0", {FILENAME: WHEEL})
    partial = github.make_token("paul", {"acme/other": "read"})
    server = serve()
    link = f"/asset/{asset_id(github, 'acme/demo', FILENAME)}/{FILENAME}"
    paths = [
        "/simple/demo/",
        f"/simple/demo/{FILENAME}",
        f"/simple/demo/{FILENAME}.metadata",
        link,
    ]
    assert [server.get(path, "hub", writer).status_code for path in paths] == [200] * 4
    assert [server.get(path, "hub", partial).status_code for path in paths] == [404] * 4
    listed = server.get("/simple/", "hub", partial).json
    assert listed is not None
    assert [project["name"] for project in listed["projects"]] == ["other"]


def test_a_token_that_sees_a_repository_but_not_its_contents_gets_nothing_of_it(
    github: FakeGitHub, serve: Serve, writer: str
) -> None:
    """GitHub shows the repository itself to every fine-grained token for it, and to every job."""
    github.make_release("acme/demo", "v1.0", {FILENAME: WHEEL})
    server = serve()
    paths = [
        "/simple/demo/",
        f"/simple/demo/{FILENAME}",
        f"/simple/demo/{FILENAME}.metadata",
        f"/asset/{asset_id(github, 'acme/demo', FILENAME)}/{FILENAME}",
        "/r/hub/project/demo/",
    ]
    assert [server.get(path, "hub", writer).status_code for path in paths] == [200] * 5
    right = {"acme/demo": "metadata"}
    for token in (
        github.make_token("mia", {"acme/demo": "read"}, limited_to=right),
        github.make_token(rights=right),
    ):
        assert [server.get(path, "hub", token).status_code for path in paths] == [403] * 5
        assert "Resource not accessible by" in server.get(paths[0], "hub", token).text
        # The start page says what is known of listed projects: version, summary and time.
        for path in ("/simple/", "/r/hub/", "/r/hub/?q=demo"):
            assert server.get(path, "hub", token).status_code == 403


def test_the_time_of_an_upload_is_that_of_its_asset_on_every_server(
    github: FakeGitHub, serve: Serve, writer: str
) -> None:
    """Also where the same bytes are uploaded again, to a server that never saw the page."""
    github.make_release("acme/demo", "v1.0", {FILENAME: WHEEL})
    github.clock.advance(86400)
    one, other = serve(), serve()
    assert one.publish(FILENAME, WHEEL, "hub", writer).status_code == 200
    new, content = make_wheel("demo", "2.0")
    assert one.publish(new, content, "hub", writer).status_code == 200
    times = [
        {file["filename"]: file["upload-time"] for file in server.files("demo", "hub", writer)}
        for server in (one, other)
    ]
    assert times[0] == times[1]
    assert times[0][FILENAME] < times[0][new]


def test_an_upload_becomes_an_asset_and_is_on_the_page_at_once(
    github: FakeGitHub, serve: Serve, writer: str
) -> None:
    server = serve()
    assert server.publish(FILENAME, WHEEL, "hub", writer).status_code == 200
    assert [file["filename"] for file in server.files("demo", "hub", writer)] == [FILENAME]
    assert github.asset_content("acme/demo", "v1.0", FILENAME) == WHEEL
    assert server.publish(FILENAME, WHEEL, "hub", writer).status_code == 200
    other = make_wheel("demo", "1.0", files={"demo/more.py": b"more"})[1]
    assert server.publish(FILENAME, other, "hub", writer).status_code == 409
    reader = github.make_token("rita", {"acme/demo": "read"})
    filename, content = make_wheel("demo", "2.0")
    assert server.publish(filename, content, "hub", reader).status_code == 403
    filename, content = make_wheel("never-was", "1.0")
    assert server.publish(filename, content, "hub", writer).status_code == 404
