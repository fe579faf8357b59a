"""Servers whose repository is on GitHub: what they ask it, and what they make of it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from private_pypi.backend import Access, Secret
from private_pypi.config import Source
from private_pypi.errors import NotAllowed
from private_pypi.filenames import normalize
from private_pypi.index_file import read_document
from private_pypi.indexing import update_index
from private_pypi.repositories import Grant
from private_pypi.testing.distributions import encode_multipart, form_for, make_wheel
from private_pypi.verdicts import Expiry
from private_pypi.web import create_app
from private_pypi.web.deployment import Deployment
from tests.github.fake import FakeGitHub

DEMO = normalize("demo")


def basic(token: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"acme:{token}".encode()).decode()}


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    with FakeGitHub() as github:
        github.make_repo("acme", "pkgs", private=True)
        yield github


class Server:
    """A server with a folder of its own, and its client with a token that may write."""

    def __init__(self, github: FakeGitHub, root: Path, token: str, more: str) -> None:
        root.mkdir(exist_ok=True)
        config = f'[acme]\ntype = "github"\nowner = "acme"\nrepo = "pkgs"\n{more}\n'
        config += f'api_url = "{github.api_url}"\nsync_index_interval = 3600\n'
        admin = f'[acme]\ntype = "github"\nraw = "{token}"\n'
        self.deployment = Deployment(
            root,
            config=Source(text=config, name="config", folder=root),
            admin_secret=Source(text=admin, name="admin_secret", folder=root),
            expiry=Expiry(timedelta(hours=1), timedelta(minutes=5)),
            extra_index_url="",
            admin_token=None,
            allowed_env=frozenset(),
            environ={},
        )
        self.client: FlaskClient = create_app(self.deployment).test_client()
        self.token = Secret(token)
        self.headers = basic(token)
        (self.repository,) = self.deployment.repositories
        self.repository.wait_until_ready(10)

    def publish(self, filename: str, content: bytes) -> int:
        content_type, body = encode_multipart(form_for(filename, content), filename, content)
        return self.client.post(
            "/simple/", data=body, content_type=content_type, headers=self.headers
        ).status_code

    def files(self, project: str) -> list[str]:
        answer = self.client.get(
            f"/simple/{project}/",
            headers={**self.headers, "Accept": "application/vnd.pypi.simple.v1+json"},
        )
        return [file["filename"] for file in answer.json["files"]] if answer.json else []

    def get(self, path: str) -> bytes:
        answer = self.client.get(path, headers=self.headers)
        assert answer.status_code == 200, answer.text
        return answer.data


Serve = Callable[..., Server]


@pytest.fixture
def serve(github: FakeGitHub, tmp_path: Path) -> Iterator[Serve]:
    token = github.make_token(user="walter", rights={"acme/pkgs": "write"})
    made: list[Server] = []

    def make(more: str = "", *, root: Path | None = None) -> Server:
        made.append(Server(github, root or tmp_path / f"root-{len(made)}", token, more))
        return made[-1]

    yield make
    for server in made:
        server.deployment.close()


def rebuild(server: Server, folder: Path) -> str:
    """What the workflow of the repository does, and says."""
    update = update_index(
        server.repository.backend(server.token),
        backend_type="github",
        name="acme",
        folder=folder,
    )
    return str(update)


@pytest.mark.parametrize("download", ["proxy", "redirect"])
def test_twenty_packages_are_forty_addresses_cold_and_none_warm(
    github: FakeGitHub, serve: Serve, download: str
) -> None:
    first, server = serve(), serve(f'download = "{download}"')
    for number in range(20):
        assert first.publish(*make_wheel(f"demo{number}", "1.0")) == 200
    server.repository.synchronize()
    server.files("demo0")  # access is known now
    github.forget_requests()

    def install() -> None:
        for number in range(20):
            (filename,) = server.files(f"demo{number}")
            path = f"/simple/demo{number}/{filename}"
            for address in (f"{path}.metadata", path):
                status = server.client.get(address, headers=server.headers).status_code
                assert status == (200 if download == "proxy" else 302)

    install()
    assert len([r for r in github.requests if r.host == "api"]) == 40
    github.forget_requests()
    install()
    assert github.requests == []


def test_an_upload_is_five_requests_once_access_is_known(github: FakeGitHub, serve: Serve) -> None:
    server = serve()
    assert server.publish(*make_wheel("demo", "1.0")) == 200
    github.forget_requests()
    assert server.publish(*make_wheel("demo", "2.0")) == 200
    assert len(github.requests) == 5


def test_an_upload_is_seen_by_another_server_without_any_workflow(
    github: FakeGitHub, serve: Serve, tmp_path: Path
) -> None:
    one, other = serve(), serve()
    filename, content = make_wheel("demo", "1.0")
    assert one.publish(filename, content) == 200
    assert one.files("demo") == [filename]
    other.repository.synchronize()
    assert other.files("demo") == [filename]
    assert other.get(f"/simple/demo/{filename}") == content
    # Nor does it vanish when the index is written, or when another one is published.
    rebuild(one, tmp_path)
    assert one.publish(*make_wheel("demo", "2.0")) == 200
    for server in (one, other):
        server.repository.synchronize()
        assert server.files("demo") == [filename, "demo-2.0-py3-none-any.whl"]


def test_a_synchronisation_without_change_costs_nothing(
    github: FakeGitHub, serve: Serve, tmp_path: Path
) -> None:
    server = serve()
    assert server.publish(*make_wheel("demo", "1.0")) == 200
    rebuild(server, tmp_path)
    server.repository.synchronize()
    github.forget_requests()
    server.repository.synchronize()
    assert [(r.status, r.counted) for r in github.requests] == [(304, False)] * 2


def test_a_synchronisation_after_a_change_costs_two(
    github: FakeGitHub, serve: Serve, tmp_path: Path
) -> None:
    """Of the limit: the listing, and an index up to 1 MB."""
    one, other = serve(), serve()
    assert one.publish(*make_wheel("demo", "1.0")) == 200
    rebuild(one, tmp_path)
    other.repository.synchronize()
    assert one.publish(*make_wheel("demo", "2.0")) == 200
    rebuild(one, tmp_path)
    github.forget_requests()
    other.repository.synchronize()
    assert github.counted <= 2
    assert len(other.files("demo")) == 2


@pytest.mark.parametrize("immutable", [False, True])
def test_a_yank_and_a_deletion_reach_every_server(
    github: FakeGitHub, serve: Serve, tmp_path: Path, immutable: bool
) -> None:
    github.repo("acme/pkgs").immutable_releases = immutable
    one, other = serve(), serve()
    filename, content = make_wheel("demo", "1.0")
    second, _ = make_wheel("demo", "2.0")
    assert one.publish(filename, content) == 200
    assert one.publish(*make_wheel("demo", "2.0")) == 200
    files = {file.filename: file for file in one.repository.index.project_files(DEMO)}
    granted = Grant(one.repository, Access.WRITE, one.token)
    granted.yank([files[second]], "broken")
    granted.delete([files[filename]])
    for server in (one, other):
        server.repository.synchronize()
        (left,) = server.repository.index.project_files(DEMO)
        assert (left.filename, left.yanked) == (second, "broken")
    rebuild(one, tmp_path)
    other.repository.synchronize()
    (left,) = other.repository.index.project_files(DEMO)
    assert (left.filename, left.yanked) == (second, "broken")
    assert other.publish(filename, content) == 400  # the name is burnt


def test_pages_are_served_while_github_is_down(github: FakeGitHub, serve: Serve) -> None:
    server = serve()
    filename, content = make_wheel("demo", "1.0")
    assert server.publish(filename, content) == 200
    assert server.get(f"/simple/demo/{filename}") == content
    github.fail("secondary", times=1000)
    assert server.files("demo") == [filename]
    assert server.get(f"/simple/demo/{filename}") == content
    answer = server.client.get("/simple/", headers=basic("another-token"))
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0


def test_a_wrong_secret_is_401_and_a_refused_one_403(github: FakeGitHub, serve: Serve) -> None:
    server = serve()
    stranger = github.make_token(user="eve", rights={})
    installation = github.make_token(rights={"acme/pkgs": "read"})
    for token in ("nonsense", stranger):
        assert server.client.get("/simple/", headers=basic(token)).status_code == 401
    assert server.client.get("/simple/", headers=basic(installation)).status_code == 200
    server.headers = basic(installation)
    assert server.publish(*make_wheel("demo", "1.0")) == 403


def test_a_token_that_was_revoked_is_401_although_it_was_believed(
    github: FakeGitHub, serve: Serve
) -> None:
    server = serve()
    filename, content = make_wheel("demo", "1.0")
    assert server.publish(filename, content) == 200
    writer = github.make_token(user="amy", rights={"acme/pkgs": "write"})
    server.headers = basic(writer)
    assert server.publish(*make_wheel("demo", "2.0")) == 200
    github.revoke(writer)
    assert server.publish(*make_wheel("demo", "3.0")) == 401
    assert server.client.get("/simple/", headers=basic(writer)).status_code == 401


@pytest.mark.parametrize("download", ["proxy", "redirect"])
def test_core_metadata_of_a_file_of_0_2_is_read_from_the_file(
    github: FakeGitHub, serve: Serve, tmp_path: Path, download: str
) -> None:
    """0.2 kept none; it is served all the same, also where files are redirected."""
    server = serve(f'download = "{download}"')
    filename, content = make_wheel("demo", "1.0")
    assert server.publish(filename, content) == 200
    (release,) = github.releases("acme/pkgs")
    release.body = "distrib = 'demo'\n"
    other = serve(f'download = "{download}"')
    metadata = other.get(f"/simple/demo/{filename}.metadata")
    (file,) = other.repository.index.project_files(DEMO)
    assert hashlib.sha256(metadata).hexdigest() == file.core_metadata_sha256
    assert b"Name: demo\n" in metadata


def test_how_files_come_is_no_reason_to_list_anew(
    github: FakeGitHub, tmp_path: Path, serve: Serve
) -> None:
    """The local index is a copy of the repository, whatever `download` says."""
    server = serve()
    assert server.publish(*make_wheel("demo", "1.0")) == 200
    server.deployment.close()
    github.fail("secondary", times=1000)
    again = serve('download = "redirect"\ncache_bytes = 1000', root=tmp_path / "root-0")
    assert again.repository.index.has_files(DEMO)


def test_ten_thousand_releases_and_more_are_updated_within_a_hundred_and_ten_requests(
    github: FakeGitHub, serve: Serve, tmp_path: Path
) -> None:
    """GitHub lists ten thousand; the older ones stay, and are confirmed a hundred at once."""
    server = serve()
    assert server.publish(*make_wheel("demo", "1.0")) == 200
    old = [f"demo-{number}.0-py3-none-any.whl" for number in range(1, 251)]
    github.copy_release("acme/pkgs", old[0], old[1:])
    assert rebuild(server, tmp_path) == "acme: 250 added, 0 removed, 0 unchanged"
    new = [f"demo-{number}.0-py3-none-any.whl" for number in range(251, 10_251)]
    github.copy_release("acme/pkgs", old[0], new)
    # Somebody deletes a release by hand, and its tag stays.
    releases = github.repo("acme/pkgs").releases
    del releases[next(r.id for r in releases.values() if r.tag_name == old[100])]
    github.forget_requests()
    assert rebuild(server, tmp_path) == "acme: 10000 added, 1 removed, 249 unchanged"
    assert len(github.asked("GET /repos/*/releases")) == 100
    assert len(github.requests) <= 110
    (tmp_path / "index.toml").write_bytes(github.file("acme/pkgs", "index.toml") or b"")
    document, _ = read_document(tmp_path / "index.toml", location_key="url")
    assert {e.file.filename for e in document.entries} == {*old, *new} - {old[100]}


def test_a_yank_outlives_the_index(github: FakeGitHub, serve: Serve, tmp_path: Path) -> None:
    """private-pypi 0.2 writes a document without yanks, and people delete documents."""
    one = serve()
    for version in ("1.0", "2.0", "3.0"):
        assert one.publish(*make_wheel("demo", version)) == 200
    granted = Grant(one.repository, Access.WRITE, one.token)
    first, second, _ = one.repository.index.project_files(DEMO)
    granted.yank([first, second], "broken")
    granted.yank([second], None)
    github.commit("acme/pkgs", "index.toml", b"mtime = 1\npkgs = []\n")
    rebuild(one, tmp_path)
    other = serve()
    for server in (one, other):
        server.repository.synchronize()
        yanks = [file.yanked for file in server.repository.index.project_files(DEMO)]
        assert yanks == ["broken", None, None]


def test_a_yank_that_was_broken_off_is_completed(
    github: FakeGitHub, serve: Serve, tmp_path: Path
) -> None:
    """The notes are edited first; who undoes it again has to reach the document as well."""
    server = serve()
    assert server.publish(*make_wheel("demo", "1.0")) == 200
    rebuild(server, tmp_path)
    granted = Grant(server.repository, Access.WRITE, server.token)
    (file,) = server.repository.index.project_files(DEMO)

    def yanks(server: Server) -> list[str | None]:
        server.repository.synchronize()
        return [file.yanked for file in server.repository.index.project_files(DEMO)]

    def broken_off(reason: str | None) -> None:
        github.fail("403", on="PUT /repos/*/contents/*")
        with pytest.raises(NotAllowed):
            granted.yank([file], reason)
        github.heal()

    broken_off("broken")
    assert yanks(server) == [None]
    rebuild(server, tmp_path)
    assert yanks(server) == ["broken"]
    broken_off(None)
    rebuild(server, tmp_path)
    assert yanks(server) == ["broken"]
    granted.yank([file], None)
    rebuild(server, tmp_path)
    assert yanks(server) == [None]


def test_what_github_refuses_to_yank_is_not_yanked_anywhere(
    github: FakeGitHub, serve: Serve
) -> None:
    server = serve()
    assert server.publish(*make_wheel("demo", "1.0")) == 200
    (file,) = server.repository.index.project_files(DEMO)
    reader = github.make_token(rights={"acme/pkgs": "read"})
    with pytest.raises(NotAllowed, match="Resource not accessible by integration"):
        Grant(server.repository, Access.WRITE, Secret(reader)).yank([file], "broken")
    assert github.file("acme/pkgs", "index.toml") is None
    assert server.repository.index.project_files(DEMO) == (file,)
