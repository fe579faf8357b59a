"""Servers whose repository is on GitHub: what they ask it, and what they make of it."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from flask.testing import FlaskClient

from private_pypi import cli
from private_pypi.backend import Access, Secret
from private_pypi.distributions.filenames import normalize
from private_pypi.errors import BackendError, NotAllowed
from private_pypi.index.document_reader import read_document
from private_pypi.index.rebuilding import update_index
from private_pypi.repositories import Grant
from private_pypi.storage.strangers import WRONG_SECRETS
from private_pypi.testing.distributions import encode_multipart, form_for, make_wheel
from private_pypi.web import create_app
from tests.github.fake import FakeGitHub
from tests.web import conftest
from tests.web.conftest import Deploy, deploy

__all__ = ["deploy"]

DEMO = normalize("demo")


def basic(token: str) -> dict[str, str]:
    return conftest.basic("acme", token)


@pytest.fixture
def github(github: FakeGitHub) -> FakeGitHub:
    github.make_repo("acme", "pkgs", private=True)
    return github


class Server:
    """A server with a folder of its own, and its client with a token that may write."""

    def __init__(
        self, github: FakeGitHub, deploy: Deploy, root: Path, token: str, more: str
    ) -> None:
        config = f'[acme]\ntype = "github"\nowner = "acme"\nrepo = "pkgs"\n{more}\n'
        config += f'api_url = "{github.api_url}"\nsync_index_interval = 3600\n'
        admin = f'[acme]\ntype = "github"\nraw = "{token}"\n'
        self.deployment = deploy(config, admin, root=root)
        self.client: FlaskClient = create_app(self.deployment).test_client()
        self.token = Secret(token)
        self.headers = basic(token)
        (self.repository,) = self.deployment.repositories
        self.repository.wait_until_ready(30)

    def publish(self, filename: str, content: bytes) -> int:
        answer = conftest.publish(self.client, filename, content, headers=self.headers)
        return answer.status_code

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
def serve(github: FakeGitHub, deploy: Deploy, tmp_path: Path) -> Serve:
    token = github.make_token(user="walter", rights={"acme/pkgs": "write"})
    made = itertools.count()

    def make(more: str = "", *, root: Path | None = None) -> Server:
        return Server(github, deploy, root or tmp_path / f"root-{next(made)}", token, more)

    return make


def rebuild(server: Server, folder: Path) -> str:
    """What the workflow of the repository does, and says."""
    update = update_index(
        server.repository.storage(server.token),
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
    answer = server.client.get("/simple/", headers=basic("ghp_" + "a" * 36))
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


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/simple/demo/1.0/yank"),
        ("DELETE", "/simple/demo/1.0"),
        ("GET", "/simple/demo/demo-1.0-py3-none-any.whl"),
        ("POST", "/simple/"),
    ],
)
def test_a_token_that_was_revoked_is_401_whatever_it_is_used_for(
    github: FakeGitHub, serve: Serve, method: str, path: str
) -> None:
    """And nothing is believed of it afterwards: its pages are 401 as well."""
    server = serve()
    filename, content = make_wheel("demo", "1.0")
    assert server.publish(filename, content) == 200
    other = github.make_token(user="wanda", rights={"acme/pkgs": "write"})
    page = {"path": "/simple/demo/", "headers": basic(other)}
    assert server.client.get(**page).status_code == 200
    # What it may do was asked before.
    server.client.post("/simple/never-was/1.0/yank", headers=basic(other))
    github.revoke(other)
    body = encode_multipart(form_for(*make_wheel("demo", "2.0")), *make_wheel("demo", "2.0"))
    sent = {"data": body[1], "content_type": body[0]} if path == "/simple/" else {}
    answer = server.client.open(path, method=method, headers=basic(other), **sent)
    assert answer.status_code == 401, answer.text
    assert server.client.get(**page).status_code == 401


def test_what_cannot_be_a_token_is_refused_without_asking_github(
    github: FakeGitHub, serve: Serve
) -> None:
    server = serve()
    github.forget_requests()
    for secret in ("hunter2", "a password with spaces", "x" * 3000, "contraseña-contraseña"):
        answer = server.client.get("/simple/", headers=basic(secret))
        assert answer.status_code == 401, secret
    assert github.requests == []


def test_made_up_tokens_of_one_client_are_asked_about_so_many_times(
    github: FakeGitHub, serve: Serve
) -> None:
    """Others are asked about meanwhile, and GitHub is not asked on and on."""
    server = serve()

    def status(token: str, address: str) -> int:
        answer = server.client.get(
            "/simple/", headers=basic(token), environ_base={"REMOTE_ADDR": address}
        )
        assert (answer.status_code == 503) == ("Retry-After" in answer.headers)
        return answer.status_code

    github.forget_requests()
    junk = [status(f"ghp_{number:036}", "192.0.2.1") for number in range(WRONG_SECRETS + 30)]
    assert junk == [401] * WRONG_SECRETS + [503] * 30
    assert len(github.requests) == WRONG_SECRETS
    right = github.make_token(user="rita", rights={"acme/pkgs": "read"})
    assert status(right, "192.0.2.2") == 200
    assert status(right, "192.0.2.1") == 200  # it is known now


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


@pytest.mark.needs("time")
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

    def broken_off(reason: str | None, kind: Literal["403", "500"] = "500") -> None:
        github.fail(kind, on="PUT /repos/*/contents/*", times=9)
        with pytest.raises(NotAllowed if kind == "403" else BackendError):
            granted.yank([file], reason)
        github.heal()

    broken_off("refused", "403")  # which is undone, where trouble leaves what was done
    rebuild(server, tmp_path)
    assert yanks(server) == [None]
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


def test_a_restored_name_is_taken_by_every_server(
    github: FakeGitHub, serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By that of the ROOT where it was restored at once, by others after a synchronisation."""
    one, other = serve(), serve()
    filename, content = make_wheel("demo", "1.0")
    new = make_wheel("demo", "1.0", files={"other.py": b"other"})[1]
    assert one.publish(filename, content) == 200
    path = f"/simple/demo/{filename}"
    assert one.client.delete(path, headers=one.headers).status_code == 200
    other.repository.synchronize()
    assert (one.publish(filename, new), other.publish(filename, new)) == (400, 400)
    config = tmp_path / "config.toml"
    config.write_text(
        f'[acme]\ntype = "github"\nowner = "acme"\nrepo = "pkgs"\napi_url = "{github.api_url}"\n'
    )
    words = ["restore_name", str(tmp_path / "root-0"), "acme", filename, "--config", str(config)]
    environ = {
        "WRITES": one.token.reveal(),
        "READS": github.make_token(user="rita", rights={"acme/pkgs": "read"}),
    }
    assert cli.main([*words, "--secret_env=READS"], environ) == 1
    assert "may read the storage of 'acme', but not write to it" in capsys.readouterr().err
    for _ in range(2):
        assert cli.main([*words, "--secret_env=WRITES"], environ) == 0
    assert capsys.readouterr().out == (
        f"acme: the name {filename} can be used again\n"
        f"acme: no file named {filename} was deleted; nothing to do\n"
    )
    other.repository.synchronize()
    assert other.publish(filename, new) == 200
    one.repository.synchronize()
    assert one.get(path) == new
