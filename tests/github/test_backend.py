"""The contract over a GitHub that behaves as the real one, and what is peculiar to it."""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tomli

import private_pypi_github.backend
from private_pypi.backend import NO_INDEX, Access, AnyBackend, Folders, Secret
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    FileAlreadyExists,
    FileNotFound,
    InvalidUpload,
    NotAllowed,
    StaleIndex,
    WrongSecret,
)
from private_pypi.filenames import normalize
from private_pypi.indexing import update_index
from private_pypi.model import DistributionFile, Redirect, StoredFile, Upload
from private_pypi.testing.contract import (
    MIB,
    BackendContract,
    DeletingContract,
    RecentContract,
    YankingContract,
    child_process,
    content_of,
    document,
    make_upload,
    new_folders,
    outcome,
    published,
)
from private_pypi_github import GitHubBackend, GitHubSettings
from private_pypi_github.client import Answer, Connection
from private_pypi_github.releases import format_draft_notes
from tests.github.fake import FakeGitHub
from tests.github.fake.server import Request

HALF_AN_HOUR = 30 * 60  # seconds; more than the upload of a small file may take
WHEEL = "demo-1.0-py3-none-any.whl"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Storage:
    """A repository on a fake GitHub, as other processes reach it."""

    api_url: str
    tokens: Mapping[str, str]
    settings: Mapping[str, Any]


def make_storage(github: FakeGitHub, *, private: bool = True, **settings: Any) -> Storage:
    """A repository with a reader and a writer."""
    github.make_repo("acme", "pkgs", private=private)
    tokens = {
        "read-secret": github.make_token(user="rita", rights={"acme/pkgs": "read"}),
        "write-secret": github.make_token(user="walter", rights={"acme/pkgs": "write"}),
        "stranger": github.make_token(user="stranger", rights={}),
    }
    return Storage(github.api_url, tokens, settings)


def open_github(storage: Storage, secret: str, folders: Folders) -> GitHubBackend:
    settings = GitHubSettings(
        name="mine",
        max_file_bytes=1 << 30,
        owner="acme",
        repo="pkgs",
        **{"api_url": storage.api_url, **storage.settings},
    )
    return GitHubBackend(settings, Secret(storage.tokens.get(secret, secret)), folders)


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    with FakeGitHub() as github:
        yield github


# What may go wrong with a request; with True it takes effect all the same.


FAULTS = [
    ("timeout", False),
    ("reset", False),
    ("reset", True),
    ("cut", True),
    ("403", False),
    ("404", False),
    ("422", False),
    ("429", False),
    ("500", False),
    ("502", True),
    ("rate-limit", False),
    ("secondary", False),
]


def tried(kind: str, call: Callable[..., Any], *arguments: Any) -> Any:
    """What comes of a call during a fault; no answer at all is not waited for long."""
    if kind != "timeout":
        return outcome(call, *arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Connection, "timeout", (1, 0.4))
        patch.setattr(Connection, "upload_timeout", (1, 0.4))
        return outcome(call, *arguments)


# The contract.


class GitHubContract(BackendContract, DeletingContract, RecentContract, YankingContract):
    """What the contract needs to know of this storage."""

    github: FakeGitHub

    @pytest.fixture
    def storage(self, github: FakeGitHub) -> Storage:
        return self.make_storage(github)

    def make_storage(self, github: FakeGitHub) -> Storage:
        return make_storage(github)

    def open_backend(self, storage: Storage, secret: str, folders: Folders) -> GitHubBackend:
        return open_github(storage, secret, folders)

    @pytest.fixture(autouse=True)
    def keep_github(self, github: FakeGitHub, tmp_path: Path) -> None:
        self.github, self.tmp_path = github, tmp_path

    def leftovers(self, storage: Storage) -> list[str]:
        """Drafts that are there when their time is over and the storage was listed once more."""
        self.github.clock.advance(HALF_AN_HOUR)
        list(self.open_another(storage, self.tmp_path).list_files())
        releases = self.github.releases("acme/pkgs", drafts=True)
        return [release.tag_name for release in releases if release.draft]

    def test_an_empty_file_is_a_file(self, backend: AnyBackend, tmp_path: Path) -> None:
        """GitHub refuses empty assets, and no distribution file is empty: so it is said."""
        with pytest.raises(InvalidUpload, match="GitHub stores no empty files"):
            backend.put_file(make_upload(tmp_path, "demo-1.0.zip", b""))
        assert self.github.releases("acme/pkgs", drafts=True) == []


class TestProxied(GitHubContract):
    """Files stream through us; nothing but owner and repository is configured."""


class TestRedirected(GitHubContract):
    """Clients get their files from GitHub itself."""

    def make_storage(self, github: FakeGitHub) -> Storage:
        return make_storage(github, download="redirect")


class TestEnterpriseServer(GitHubContract):
    """Another host and path, a branch of its own, no digests, and ties listed in any order."""

    def make_storage(self, github: FakeGitHub) -> Storage:
        github.offers_digests = False
        github.shuffles_ties = True
        storage = make_storage(
            github, api_url=github.enterprise_url, branch="index", index_filename="of/pkgs.toml"
        )
        github.commit("acme/pkgs", "README", b"the branch of the index", branch="index")
        return storage


# Access.


@pytest.fixture
def storage(github: FakeGitHub) -> Storage:
    return make_storage(github)


@pytest.fixture
def backend(storage: Storage, tmp_path: Path) -> GitHubBackend:
    return open_github(storage, "write-secret", new_folders(tmp_path))


def with_token(backend: GitHubBackend, token: str) -> GitHubBackend:
    """The same repository of the same server, with another secret."""
    return GitHubBackend(backend.settings, Secret(token), backend.folders)


def test_a_token_without_a_user_is_believed_until_github_refuses(
    github: FakeGitHub, backend: GitHubBackend, tmp_path: Path
) -> None:
    """It reads `push: false` of every repository, and may not ask who it is."""
    writer = with_token(backend, github.make_token(rights={"acme/pkgs": "write"}))
    reader = with_token(backend, github.make_token(rights={"acme/pkgs": "read"}))
    assert (writer.access(), reader.access()) == (Access.WRITE, Access.WRITE)
    writer.put_file(make_upload(tmp_path, WHEEL, b"content"))
    with pytest.raises(NotAllowed, match="Resource not accessible by integration"):
        reader.put_file(make_upload(tmp_path, "demo-2.0.tar.gz", b"content"))
    assert not github.asked("GET /user*")


@pytest.mark.parametrize("prefix", ["v1.", "next_"])
def test_a_token_without_a_user_is_known_whatever_it_looks_like(
    github: FakeGitHub, backend: GitHubBackend, prefix: str
) -> None:
    """Those of an older Enterprise Server; what is granted to installations alone tells."""
    rights = {"acme/pkgs": "read"}
    installation = github.make_token(rights=rights, prefix=prefix)
    fine_grained = github.make_token("rita", rights, limited_to=rights, prefix=prefix)
    classic = github.make_token("rita", rights, prefix=prefix)
    found = [with_token(backend, token).access() for token in (installation, fine_grained, classic)]
    assert found == [Access.WRITE, Access.READ, Access.READ]
    # A classic token is told by the header that lists its scopes.
    assert [r.token for r in github.asked("GET /installation/repositories")] == [
        f"installation:{installation[-4:]}",
        f"rita:{fine_grained[-4:]}",
    ]


def test_a_token_whose_rights_did_not_change_is_checked_for_nothing(
    github: FakeGitHub, backend: GitHubBackend
) -> None:
    """And one whose rights did is found out."""
    token = github.make_token(user="wanda", rights={"acme/pkgs": "write"})
    assert with_token(backend, token).access() == Access.WRITE
    github.forget_requests()
    again = with_token(backend, token)
    assert again.access() == Access.WRITE
    assert [(r.status, r.counted) for r in github.requests] == [(304, False)]
    github.set_rights("wanda", {"acme/pkgs": "read"})
    assert again.access() == Access.READ
    github.set_rights("wanda", {"acme/pkgs": "none"})
    assert again.access() == Access.NONE
    github.revoke(token)
    assert again.access() == Access.NONE


def test_a_token_with_less_than_its_user_is_told_what_it_may_not(
    github: FakeGitHub, backend: GitHubBackend, tmp_path: Path
) -> None:
    token = github.make_token(
        user="walter", rights={"acme/pkgs": "write"}, limited_to={"acme/pkgs": "read"}
    )
    limited = with_token(backend, token)
    upload = make_upload(tmp_path, WHEEL, b"content")
    file = published(upload, backend.put_file(upload))
    revision = backend.write_index(document(tmp_path, b"mtime = 1\n"), NO_INDEX)
    assert limited.access() == Access.WRITE  # of its user; GitHub does not say more
    with pytest.raises(NotAllowed, match="personal access token"):
        limited.put_file(make_upload(tmp_path, "demo-2.0.tar.gz", b"content"))
    with pytest.raises(NotAllowed, match="personal access token"):
        limited.delete_file(file)
    with pytest.raises(NotAllowed, match="personal access token"):
        limited.write_index(document(tmp_path, b"mtime = 2\n"), revision)


def test_a_reader_cannot_write_even_when_asked_to(
    storage: Storage, backend: GitHubBackend, tmp_path: Path
) -> None:
    """GitHub answers a classic token 404 where it may read: that is no absence."""
    reader = with_token(backend, storage.tokens["read-secret"])
    upload = make_upload(tmp_path, WHEEL, b"content")
    file = published(upload, backend.put_file(upload))
    with pytest.raises(NotAllowed):
        reader.put_file(make_upload(tmp_path, "demo-2.0.tar.gz", b"content"))
    with pytest.raises(NotAllowed):
        reader.delete_file(file)
    with pytest.raises(NotAllowed):
        reader.write_index(document(tmp_path, b"mtime = 1\n"), NO_INDEX)
    assert list(reader.list_files()) == list(backend.list_files())


def test_every_user_of_github_may_read_a_public_repository(
    github: FakeGitHub, tmp_path: Path
) -> None:
    storage = make_storage(github, private=False)
    folders = new_folders(tmp_path)
    found = {
        secret: open_github(storage, secret, folders).access()
        for secret in ("read-secret", "write-secret", "stranger", "wrong", "")
    }
    assert found == {
        "read-secret": Access.READ,
        "write-secret": Access.WRITE,
        "stranger": Access.READ,
        "wrong": Access.NONE,
        "": Access.NONE,
    }


def test_a_spent_limit_is_no_verdict_on_a_token(
    github: FakeGitHub, storage: Storage, backend: GitHubBackend
) -> None:
    github.set_remaining(storage.tokens["write-secret"], 0)
    with pytest.raises(BackendUnavailable) as caught:
        backend.access()
    assert 3000 < caught.value.retry_after <= 3601


# The layout of private-pypi 0.2.


OLD_NOTES = (
    'name = "demo"\nversion = "1.0"\ndistrib = "demo"\nsha256 = "{}"\n":action" = "file_upload"\n'
)


def call(
    storage: Storage, method: str, url: str, value: object = None, *, raw: bytes | None = None
) -> Any:
    """A request as anybody could make it."""
    request = urllib.request.Request(
        url if url.startswith("http") else f"{storage.api_url}/repos/acme/pkgs{url}",
        method=method,
        data=raw if raw is not None else None if value is None else json.dumps(value).encode(),
        headers={
            "Authorization": f"token {storage.tokens['write-secret']}",
            "Content-Type": "application/json" if raw is None else "application/zip",
        },
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        body = answer.read()
    return json.loads(body) if body else None


def put_as_0_2_did(storage: Storage, name: str, content: bytes, notes: str) -> Any:
    draft = call(
        storage, "POST", "/releases", {"tag_name": name, "name": name, "body": "", "draft": True}
    )
    url = draft["upload_url"].partition("{")[0]
    asset = call(storage, "POST", f"{url}?name={name}", raw=content)
    call(storage, "PATCH", f"/releases/{draft['id']}", {"body": notes, "draft": False})
    return asset


@pytest.mark.parametrize("digests", [True, False])
def test_what_0_2_published_is_read(
    github: FakeGitHub, storage: Storage, backend: GitHubBackend, digests: bool
) -> None:
    github.offers_digests = digests
    sha256 = hashlib.sha256(b"content").hexdigest()
    asset = put_as_0_2_did(storage, WHEEL, b"content", OLD_NOTES.format(sha256))
    assert list(backend.list_files()) == [
        StoredFile(
            filename=WHEEL,
            size=7,
            location=asset["url"] + (f"#sha256={sha256}" if digests else ""),
            stamp=f"{asset['id']}:7",
            record={
                "name": "demo",
                "version": "1.0",
                "distrib": "demo",
                "sha256": sha256,
                ":action": "file_upload",
            },
        )
    ]


@pytest.mark.parametrize("digests", [True, False])
def test_the_same_bytes_again_are_known_whoever_put_them_first(
    github: FakeGitHub, storage: Storage, backend: GitHubBackend, tmp_path: Path, digests: bool
) -> None:
    """Also when GitHub has no digest, as of everything before 2025."""
    github.offers_digests = digests
    put_as_0_2_did(storage, WHEEL, b"content", OLD_NOTES.format("0" * 64))
    (stored,) = backend.list_files()
    assert backend.put_file(make_upload(tmp_path, WHEEL, b"content")) == stored
    with pytest.raises(FileAlreadyExists):
        backend.put_file(make_upload(tmp_path, WHEEL, b"CONTENT"))


def test_a_record_of_other_bytes_is_not_believed(storage: Storage, backend: GitHubBackend) -> None:
    """0.2 took the hash that the client named."""
    put_as_0_2_did(storage, WHEEL, b"content", OLD_NOTES.format("0" * 64))
    assert [stored.record for stored in backend.list_files()] == [None]


def test_what_we_publish_0_2_reads(
    github: FakeGitHub, storage: Storage, backend: GitHubBackend, tmp_path: Path
) -> None:
    """A flat table of strings, an asset named like the tag, and an address it can ask."""
    upload = make_upload(tmp_path, WHEEL, b"content", {"summary": "A demo"})
    stored = backend.put_file(upload)
    release = call(storage, "GET", f"/releases/tags/{WHEEL}")
    assert (release["tag_name"], release["name"], release["draft"]) == (WHEEL, WHEEL, False)
    assert [asset["name"] for asset in release["assets"]] == [WHEEL, f"{WHEEL}.metadata"]
    assert tomli.loads(release["body"]) == dict(upload.record)
    assert stored.location.partition("#")[0] == release["assets"][0]["url"]


def test_notes_that_somebody_saved_in_a_browser_are_read(
    storage: Storage, backend: GitHubBackend, tmp_path: Path
) -> None:
    stored = backend.put_file(make_upload(tmp_path, WHEEL, b"content"))
    release = call(storage, "GET", f"/releases/tags/{WHEEL}")
    edited = {"body": release["body"].replace("\n", "\r\n")}
    call(storage, "PATCH", f"/releases/{release['id']}", edited)
    assert list(backend.list_files()) == [stored]


def test_an_asset_that_somebody_replaced_has_no_record_and_no_metadata(
    storage: Storage, backend: GitHubBackend, tmp_path: Path
) -> None:
    upload = make_upload(tmp_path, WHEEL, b"content")
    before = backend.put_file(upload)
    release = call(storage, "GET", f"/releases/tags/{WHEEL}")
    call(storage, "DELETE", f"/releases/assets/{release['assets'][0]['id']}")
    url = release["upload_url"].partition("{")[0]
    call(storage, "POST", f"{url}?name={WHEEL}", raw=b"CONTENT")
    (stored,) = backend.list_files()
    assert (stored.record, stored.size) == (None, 7)
    assert stored.stamp != before.stamp
    replaced = replace(published(upload, stored), sha256=hashlib.sha256(b"CONTENT").hexdigest())
    assert content_of(backend.open_file(replaced)) == b"CONTENT"
    with pytest.raises(FileNotFound):
        backend.open_core_metadata(replaced)


@pytest.mark.parametrize("digests", [True, False])
def test_a_name_that_github_changes_stays_the_name_of_the_file(
    github: FakeGitHub, backend: GitHubBackend, tmp_path: Path, digests: bool
) -> None:
    github.offers_digests = digests
    name = "demo-1!2.0+local.1-py3-none-any.whl"
    upload = make_upload(tmp_path, name, b"content")
    stored = backend.put_file(upload)
    (release,) = github.releases("acme/pkgs")
    assert [asset.name for asset in release.assets.values()] == [
        "demo-1.2.0+local.1-py3-none-any.whl",
        "demo-1.2.0+local.1-py3-none-any.whl.metadata",
    ]
    assert stored.filename == name
    assert list(backend.list_files()) == [stored]
    for location in (stored.location, ""):
        file = replace(upload.file, location=location)
        assert content_of(backend.open_file(file)) == b"content"
        assert content_of(backend.open_core_metadata(file)) == upload.core_metadata


def test_releases_of_anything_else_are_passed_over(
    storage: Storage, backend: GitHubBackend, tmp_path: Path
) -> None:
    stored = backend.put_file(make_upload(tmp_path, WHEEL, b"content"))
    for tag, draft in (("v1.0", False), ("demo-2.0.tar.gz", False), ("demo-3.0.tar.gz", True)):
        call(storage, "POST", "/releases", {"tag_name": tag, "draft": draft})
    assert list(backend.list_files()) == [stored]
    with pytest.raises(BackendError, match="without its file"):
        backend.put_file(make_upload(tmp_path, "demo-2.0.tar.gz", b"content"))


def test_values_that_notes_cannot_hold_are_left_out(backend: GitHubBackend, tmp_path: Path) -> None:
    """The longest first, never the facts; GitHub takes 125,000 characters."""
    long = {f"field {number}": f"{number} " * 40_000 for number in range(3)}
    control = {"control": "\x01" * 20_000}
    upload = make_upload(tmp_path, WHEEL, b"content", {**long, **control, "summary": "short"})
    stored = backend.put_file(upload)
    kept = {**upload.record}
    for key in ("field 0", "field 1", "field 2", "control"):
        del kept[key]
    assert stored.record is not None
    assert {**stored.record, "field 2": ""} == {**kept, "field 2": ""}
    assert list(backend.list_files()) == [stored]


# Publishing.


def drafts(github: FakeGitHub) -> list[str]:
    return [r.tag_name for r in github.releases("acme/pkgs", drafts=True) if r.draft]


def test_an_undisturbed_upload_is_five_requests(
    github: FakeGitHub, backend: GitHubBackend, tmp_path: Path
) -> None:
    github.forget_requests()
    backend.put_file(make_upload(tmp_path, WHEEL, b"content"))
    assert [request.method for request in github.requests] == [
        "GET",
        "POST",
        "POST",
        "POST",
        "PATCH",
    ]


@pytest.mark.parametrize("what", ["all", "recent"])
def test_a_draft_that_stayed_is_removed_when_its_time_is_over(
    github: FakeGitHub, storage: Storage, backend: GitHubBackend, tmp_path: Path, what: str
) -> None:
    """Not before, since it may be of a writer that still sends; and never one of other people."""
    call(storage, "POST", "/releases", {"tag_name": "demo-9.0.tar.gz", "draft": True})
    github.fail("reset", on="DELETE /repos/*/releases/*")
    github.fail("reset", on="POST /repos/*/assets")
    with pytest.raises(BackendUnavailable):
        backend.put_file(make_upload(tmp_path, WHEEL, b"content"))
    assert sorted(drafts(github)) == [WHEEL, "demo-9.0.tar.gz"]
    listing = backend.list_files if what == "all" else partial(backend.recent_files, EPOCH)
    github.clock.advance(24 * 60)  # ten minutes for any upload, and a margin of fifteen
    assert list(listing()) == []
    assert sorted(drafts(github)) == [WHEEL, "demo-9.0.tar.gz"]
    github.clock.advance(120)
    assert list(listing()) == []
    assert drafts(github) == ["demo-9.0.tar.gz"]


def test_a_large_file_has_more_time(
    github: FakeGitHub, backend: GitHubBackend, tmp_path: Path
) -> None:
    """64 KiB a second at least; nobody removes the draft of somebody who sends that fast."""
    upload = make_upload(tmp_path, WHEEL, zeros=128 * MIB)
    github.fail("reset", on="DELETE /repos/*/releases/*")
    github.fail("reset", on="POST /repos/*/assets")
    with pytest.raises(BackendUnavailable):
        backend.put_file(upload)
    github.clock.advance(25 * 60 + 2048 - 60)
    assert (list(backend.list_files()), drafts(github)) == ([], [WHEEL])
    github.clock.advance(120)
    assert (list(backend.list_files()), drafts(github)) == ([], [])


def test_who_sends_too_slowly_gives_up(
    github: FakeGitHub, backend: GitHubBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the draft could be published after others took it for abandoned."""
    monkeypatch.setattr(private_pypi_github.backend, "_SHORTEST", -1.0)
    with pytest.raises(BackendUnavailable, match="takes too long"):
        backend.put_file(make_upload(tmp_path, WHEEL, b"content"))
    assert github.releases("acme/pkgs", drafts=True) == []


def put_one(
    connection: Any, storage: Storage, folders: Folders, tmp_path: Path, filename: str
) -> None:
    """In a child process: put a file as the server of these folders."""
    backend = open_github(storage, "write-secret", folders)
    backend.put_file(make_upload(tmp_path, filename, b"content"))


@pytest.mark.parametrize("at", range(1, 6))
def test_what_a_killed_writer_left_is_removed(
    github: FakeGitHub, storage: Storage, tmp_path: Path, at: int
) -> None:
    """By the next publisher of the same ROOT at once, whatever it publishes; by every listing once
    the name is published; and the file is there whole, or not at all."""
    folders = new_folders(tmp_path)
    upload = make_upload(tmp_path, WHEEL, b"content")
    with child_process(put_one, storage, folders, tmp_path, WHEEL) as child:
        killed = kill_at(github, at, child.kill)
        assert killed.wait(60)
    steps = ["GET", "POST", "POST", "POST", "PATCH"]
    assert [r.method for r in settled(github, at)] == steps[:at]
    backend = open_github(storage, "write-secret", folders)
    other = backend.put_file(make_upload(tmp_path, "other-1.0.tar.gz", b"content"))
    if at in (2, 5):
        # GitHub may have made the draft, although nobody was told its id; or published it, or not.
        assert set(drafts(github)) <= {WHEEL}
    else:
        assert drafts(github) == []
        assert names(backend.list_files()) == [other.filename]
    stored = backend.put_file(upload)
    assert {s.filename: s for s in backend.list_files()} == {
        WHEEL: stored,
        "other-1.0.tar.gz": other,
    }
    assert drafts(github) == []
    assert list(folders.lock.iterdir()) == []


def kill_at(github: FakeGitHub, at: int, kill: Callable[[], None]) -> threading.Event:
    """Call `kill` when the request of that number has come, and before GitHub does anything."""
    numbers = itertools.count(1)
    killed = threading.Event()

    def hook(_: str) -> None:
        if next(numbers) == at:
            github.before_request(None)
            kill()
            killed.set()

    github.before_request(hook)
    return killed


def settled(github: FakeGitHub, count: int) -> list[Request]:
    """The requests so far, once there are so many: GitHub goes on when its client is gone."""
    deadline = time.monotonic() + 30
    while len(github.requests) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    return github.requests


def during_an_upload(github: FakeGitHub, call: Callable[[], object]) -> None:
    """Call this once, when somebody begins to send an asset."""

    def hook(name: str) -> None:
        if name.startswith("POST") and name.endswith("/assets"):
            github.before_request(None)
            call()

    github.before_request(hook)


def test_the_draft_of_a_writer_at_work_stays(
    github: FakeGitHub, storage: Storage, tmp_path: Path
) -> None:
    """Another one of the same ROOT publishes meanwhile, and everything is listed."""
    folders = new_folders(tmp_path)
    one, other = (open_github(storage, "write-secret", folders) for _ in range(2))
    second = make_upload(tmp_path, "other-1.0.tar.gz", b"content")
    during_an_upload(github, lambda: (other.put_file(second), list(other.list_files())))
    stored = one.put_file(make_upload(tmp_path, WHEEL, b"content"))
    assert stored in list(other.list_files())
    assert len(names(other.list_files())) == 2


@pytest.mark.parametrize("content", [b"content", b"CONTENT"])
def test_a_writer_whose_draft_was_in_vain_is_told_what_is_published(
    github: FakeGitHub, storage: Storage, backend: GitHubBackend, tmp_path: Path, content: bytes
) -> None:
    """A listing removes drafts under published names, whoever still sends."""
    other = open_github(storage, "write-secret", new_folders(tmp_path))
    winner = make_upload(tmp_path, WHEEL, b"content")
    won: list[StoredFile] = []
    during_an_upload(github, lambda: (won.append(other.put_file(winner)), list(other.list_files())))
    result = outcome(backend.put_file, make_upload(tmp_path, WHEEL, content))
    assert list(backend.list_files()) == won
    if content == b"content":
        assert result == won[0]
    else:
        assert isinstance(result, FileAlreadyExists)
    assert drafts(github) == []


def test_what_was_published_is_not_taken_for_a_draft(
    github: FakeGitHub, backend: GitHubBackend, tmp_path: Path
) -> None:
    """After a power cut a file of a lock may come back that was removed before the publication."""
    stored = backend.put_file(make_upload(tmp_path, WHEEL, b"content"))
    (release,) = github.releases("acme/pkgs")
    lock = backend.folders.lock / f"draft-{release.id}"
    lock.touch()
    other = backend.put_file(make_upload(tmp_path, "other-1.0.tar.gz", b"content"))
    assert {s.filename: s for s in backend.list_files()} == {WHEEL: stored, other.filename: other}
    assert not lock.exists()


def test_a_draft_that_is_published_while_everything_is_listed_stays(
    github: FakeGitHub,
    storage: Storage,
    backend: GitHubBackend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is seen twice: on one page as a draft, on a later one under its name."""
    monkeypatch.setattr(private_pypi_github.backend, "_PAGE", 1)
    put_releases(github, storage, 1)
    github.clock.advance(60)
    notes = format_draft_notes(github.now() + timedelta(hours=1))
    value = {"tag_name": WHEEL, "body": notes, "draft": True}
    draft = call(storage, "POST", "/releases", value)

    def hook(_: str) -> None:
        if len(github.requests) == 1:  # the first page was read
            github.before_request(None)
            call(storage, "PATCH", f"/releases/{draft['id']}", {"draft": False})
            github.clock.advance(60)
            github.commit("acme/pkgs", "README.md", b"changed")
            github.make_release("acme/pkgs", "v1.0")

    github.forget_requests()
    github.before_request(hook)
    list(backend.list_files())
    pages = [r for r in github.asked("GET /repos/*/releases") if r.status == 200]
    assert len(pages) == 3
    listed = [release.tag_name for release in github.releases("acme/pkgs", drafts=True)]
    assert listed == ["v1.0", WHEEL, "demo-0.tar.gz"]


def test_a_writer_that_has_just_sent_everything_is_not_taken_for_a_killed_one(
    github: FakeGitHub,
    storage: Storage,
    backend: GitHubBackend,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who looked before it was done finds its draft, not held and not published for a moment."""
    notes = format_draft_notes(github.now() + timedelta(hours=1))
    value = {"tag_name": WHEEL, "body": notes, "draft": True}
    draft = call(storage, "POST", "/releases", value)
    seen = [backend.folders.lock / f"draft-{draft['id']}"]
    monkeypatch.setattr(Path, "glob", lambda *_: iter(seen))
    backend.put_file(make_upload(tmp_path, "other-1.0.tar.gz", b"content"))
    assert drafts(github) == [WHEEL]
    assert list(backend.folders.lock.iterdir()) == []


def test_a_file_is_new_also_on_a_tag_that_was_there(
    github: FakeGitHub, storage: Storage, backend: GitHubBackend, tmp_path: Path
) -> None:
    """Whoever deletes a release by hand leaves its tag; GitHub sorts releases by their commits."""
    put_as_0_2_did(storage, WHEEL, b"content", "")
    release = call(storage, "GET", f"/releases/tags/{WHEEL}")
    call(storage, "DELETE", f"/releases/{release['id']}")
    github.clock.advance(HALF_AN_HOUR)
    github.commit("acme/pkgs", "README.md", b"changed")
    put_releases(github, storage, 120)
    since = github.now()
    backend.put_file(make_upload(tmp_path, WHEEL, b"content"))
    assert names(backend.recent_files(since)) == [WHEEL]


def test_a_tag_that_is_protected_hinders_nobody(
    github: FakeGitHub, storage: Storage, backend: GitHubBackend, tmp_path: Path
) -> None:
    put_as_0_2_did(storage, WHEEL, b"content", "")
    release = call(storage, "GET", f"/releases/tags/{WHEEL}")
    call(storage, "DELETE", f"/releases/{release['id']}")
    github.commit("acme/pkgs", "README.md", b"changed")
    github.fail("403", on="PATCH /repos/*/git/refs/*")
    stored = backend.put_file(make_upload(tmp_path, WHEEL, b"content"))
    assert list(backend.list_files()) == [stored]


def test_bytes_that_changed_on_their_way_are_not_published(
    github: FakeGitHub, backend: GitHubBackend, tmp_path: Path
) -> None:
    upload = make_upload(tmp_path, WHEEL, b"content")
    other = replace(upload, file=replace(upload.file, sha256="0" * 64))
    with pytest.raises(BackendUnavailable, match="other bytes"):
        backend.put_file(other)
    assert github.releases("acme/pkgs", drafts=True) == []


def test_what_github_refuses_is_said(
    github: FakeGitHub, backend: GitHubBackend, tmp_path: Path
) -> None:
    """A name of an immutable release that was deleted cannot be used again, says GitHub."""
    github.repo("acme/pkgs").immutable_releases = True
    upload = make_upload(tmp_path, WHEEL, b"content")
    backend.delete_file(published(upload, backend.put_file(upload)))
    assert list(backend.list_files()) == []
    with pytest.raises(BackendError, match="used by an immutable release"):
        backend.put_file(make_upload(tmp_path, WHEEL, b"content"))
    assert github.releases("acme/pkgs", drafts=True) == []


def test_an_empty_repository_says_what_is_missing(github: FakeGitHub, tmp_path: Path) -> None:
    github.make_repo("acme", "pkgs", private=True, empty=True)
    token = github.make_token(user="walter", rights={"acme/pkgs": "write"})
    storage = Storage(github.api_url, {}, {})
    backend = open_github(storage, token, new_folders(tmp_path))
    assert list(backend.list_files()) == []
    assert backend.read_index(tmp_path / "index.toml") == NO_INDEX
    with pytest.raises(BackendError, match="Repository is empty"):
        backend.put_file(make_upload(tmp_path, WHEEL, b"content"))


def test_a_deletion_takes_release_and_tag(
    github: FakeGitHub, backend: GitHubBackend, tmp_path: Path
) -> None:
    upload = make_upload(tmp_path, WHEEL, b"content")
    backend.delete_file(published(upload, backend.put_file(upload)))
    assert github.releases("acme/pkgs", drafts=True) == []
    assert f"refs/tags/{WHEEL}" not in github.repo("acme/pkgs").refs


def test_an_immutable_release_can_be_deleted(
    github: FakeGitHub, backend: GitHubBackend, tmp_path: Path
) -> None:
    github.repo("acme/pkgs").immutable_releases = True
    upload = make_upload(tmp_path, WHEEL, b"content")
    file = published(upload, backend.put_file(upload))
    assert content_of(backend.open_file(file)) == b"content"
    backend.delete_file(file)
    with pytest.raises(FileNotFound):
        backend.open_file(file)


def test_a_protected_tag_may_stay(
    github: FakeGitHub, backend: GitHubBackend, tmp_path: Path
) -> None:
    """The file is gone, and the tag is only a name."""
    upload = make_upload(tmp_path, WHEEL, b"content")
    file = published(upload, backend.put_file(upload))
    github.fail("403", on="DELETE /repos/*/git/refs/*")
    backend.delete_file(file)
    assert github.releases("acme/pkgs", drafts=True) == []
    assert list(backend.list_files()) == []


@pytest.mark.parametrize("answer", ["404", "403", "422"])
def test_a_deletion_that_was_told_nonsense_leaves_a_whole_file_or_none(
    github: FakeGitHub, backend: GitHubBackend, tmp_path: Path, answer: Any
) -> None:
    """A release without its tag would turn into a draft that nobody removes."""
    upload = make_upload(tmp_path, WHEEL, b"content")
    stored = backend.put_file(upload)
    github.fail(answer, on="GET /repos/*/releases/tags/*")
    result = outcome(backend.delete_file, published(upload, stored))
    github.heal()
    if result is None:
        assert github.releases("acme/pkgs", drafts=True) == []
    else:
        assert list(backend.list_files()) == [stored]


# Yanks.


def test_a_yank_is_a_comment_in_the_notes(
    storage: Storage, backend: GitHubBackend, tmp_path: Path
) -> None:
    """Which 0.2 skips; everything else in them stays, byte for byte."""
    upload = make_upload(tmp_path, WHEEL, b"content", {"summary": "A demo"})
    file = published(upload, backend.put_file(upload))
    before = call(storage, "GET", f"/releases/tags/{WHEEL}")
    backend.yank_file(file, 'it is "broken"\nreally')
    after = call(storage, "GET", f"/releases/tags/{WHEEL}")
    first, rest = before["body"].split("\n", 1)
    comment = '# private_pypi: yanked "it is \\u0022broken\\u0022\\u000areally"'
    assert after["body"] == f"{first}\n{comment}\n{rest}"
    assert tomli.loads(after["body"]) == dict(upload.record)
    backend.yank_file(file, None)
    assert call(storage, "GET", f"/releases/tags/{WHEEL}")["body"] == before["body"]


@pytest.mark.parametrize(
    "notes",
    [
        OLD_NOTES.format(hashlib.sha256(b"content").hexdigest()),
        OLD_NOTES.format("0" * 64),
        OLD_NOTES.format(hashlib.sha256(b"content").hexdigest()).replace("\n", "\r\n"),
        'long = """\n# private_pypi: yanked "not this"\n"""\n',
        "# private_pypi: yanked",
        '# private_pypi: yanked it is "broken"\r\n# Notes\n\n',
        "What changed: *everything*",
        "",
    ],
)
def test_any_release_can_be_yanked(storage: Storage, backend: GitHubBackend, notes: str) -> None:
    """Of 0.2, with a hash that is not believed, saved in a browser, or made by hand."""
    put_as_0_2_did(storage, WHEEL, b"content", notes)
    by_hand = {"# private_pypi: yanked": "", "# private_pypi: yanked it": 'it is "broken"'}
    (stored,) = backend.list_files()
    assert stored.yanked == by_hand.get(notes[:25])
    file = make_upload_of(stored)
    for reason in ("broken", "", None):
        backend.yank_file(file, reason)
        assert list(backend.list_files()) == [replace(stored, yanked=reason)]
    if stored.yanked is None:
        assert call(storage, "GET", f"/releases/tags/{WHEEL}")["body"] == notes


def make_upload_of(stored: StoredFile) -> DistributionFile:
    return DistributionFile(
        project=normalize("demo"),
        filename=stored.filename,
        version="1.0",
        size=stored.size,
        sha256="",
        uploaded_at=None,
        requires_python=None,
        yanked=None,
        core_metadata_sha256=None,
        location=stored.location,
    )


def test_a_form_cannot_yank(backend: GitHubBackend, tmp_path: Path) -> None:
    upload = make_upload(
        tmp_path,
        WHEEL,
        b"content",
        {"yanked": "x", "a": "\n# private_pypi: yanked\n", "# private_pypi: yanked": ""},
    )
    stored = backend.put_file(upload)
    assert (stored.record, stored.yanked) == (upload.record, None)


def test_an_immutable_release_can_be_yanked(
    github: FakeGitHub, storage: Storage, backend: GitHubBackend, tmp_path: Path
) -> None:
    """Its title and notes may be edited, its tag and assets may not (GitHub documentation,
    "Immutable releases")."""
    github.repo("acme/pkgs").immutable_releases = True
    upload = make_upload(tmp_path, WHEEL, b"content")
    stored = backend.put_file(upload)
    assert call(storage, "GET", f"/releases/tags/{WHEEL}")["immutable"] is True
    backend.yank_file(published(upload, stored), "broken")
    assert list(backend.list_files()) == [replace(stored, yanked="broken")]


def test_who_may_not_yank_is_told(
    github: FakeGitHub, storage: Storage, backend: GitHubBackend, tmp_path: Path
) -> None:
    upload = make_upload(tmp_path, WHEEL, b"content")
    stored = backend.put_file(upload)
    file = published(upload, stored)
    rights = {"acme/pkgs": "read"}
    for token in (
        storage.tokens["read-secret"],
        github.make_token(rights=rights),
        github.make_token("walter", {"acme/pkgs": "write"}, limited_to=rights),
    ):
        with pytest.raises(NotAllowed):
            with_token(backend, token).yank_file(file, "broken")
    github.fail("422", on="PATCH /repos/*/releases/*")
    with pytest.raises(BackendError, match=r"refuses to edit the notes of .*: Validation"):
        backend.yank_file(file, "broken")
    with pytest.raises(InvalidUpload, match="the reason does not fit"):
        backend.yank_file(file, "x" * 130_000)
    assert list(backend.list_files()) == [stored]


def test_a_record_leaves_room_for_a_reason(backend: GitHubBackend, tmp_path: Path) -> None:
    long = {f"field {number}": "x" * 1000 for number in range(200)}
    upload = make_upload(tmp_path, WHEEL, b"content", long)
    stored = backend.put_file(upload)
    backend.yank_file(published(upload, stored), "r" * 1500)
    assert [s.yanked for s in backend.list_files()] == ["r" * 1500]


@pytest.mark.parametrize(("kind", "applied"), FAULTS)
def test_yanking_survives_trouble_at_every_request(
    github: FakeGitHub, backend: GitHubBackend, tmp_path: Path, kind: Any, applied: bool
) -> None:
    """Success means yanked; after an error it is one or the other, and again makes it so."""
    upload = make_upload(tmp_path, WHEEL, b"content")
    stored = backend.put_file(upload)
    file = published(upload, stored)
    for at, method in enumerate(("GET", "PATCH")):
        github.fail(kind, at=at + 1, applied=applied and method != "GET")
        result = tried(kind, backend.yank_file, file, "broken")
        github.heal()
        (found,) = backend.list_files()
        if result is None:
            assert found == replace(stored, yanked="broken")
        else:
            believed = (at, kind, type(result)) == (0, "404", FileNotFound)
            assert believed or isinstance(result, (BackendError, NotAllowed)), result
            assert found.yanked in (None, "broken")
        backend.yank_file(file, "broken")
        assert list(backend.list_files()) == [replace(stored, yanked="broken")]
        backend.yank_file(file, None)


# Downloads.


def signed(github: FakeGitHub) -> int:
    """How often an address of an asset was asked for."""
    return len(github.asked("GET /repos/*/releases/assets/*"))


@pytest.mark.parametrize("download", ["proxy", "redirect"])
def test_a_signed_address_is_asked_for_once_while_it_holds(
    github: FakeGitHub, tmp_path: Path, download: str
) -> None:
    storage = make_storage(github, download=download)
    backend = open_github(storage, "write-secret", new_folders(tmp_path))
    upload = make_upload(tmp_path, WHEEL, b"content")
    file = published(upload, backend.put_file(upload))
    for _ in range(3):
        assert content_of(backend.open_file(file)) == b"content"
        assert content_of(backend.open_core_metadata(file)) == upload.core_metadata
        # Every request of a client makes a backend of its own.
        backend = with_token(backend, storage.tokens["write-secret"])
    assert signed(github) == 2


def test_a_signed_address_is_asked_for_once_by_all_who_want_it_at_a_time(
    github: FakeGitHub, storage: Storage, tmp_path: Path
) -> None:
    storage = replace(storage, settings={"download": "redirect"})
    backend = open_github(storage, "write-secret", new_folders(tmp_path))
    upload = make_upload(tmp_path, WHEEL, b"content")
    file = published(upload, backend.put_file(upload))
    github.latency = 0.3
    github.forget_requests()
    with ThreadPoolExecutor(8) as threads:
        found = [threads.submit(backend.open_file, file) for _ in range(8)]
    github.latency = 0
    assert len({each.result() for each in found}) == 1
    assert len(github.requests) == 1
    # Who waited for somebody who failed asks for itself.
    other = with_new_memory(backend)
    github.fail("500")
    github.latency = 0.3
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda _: outcome(other.open_file, file), range(4)))
    github.latency = 0
    assert sum(isinstance(each, BackendUnavailable) for each in results) == 1
    assert sum(isinstance(each, Redirect) for each in results) == 3


def test_a_signed_address_is_kept_for_its_secret_alone(
    github: FakeGitHub, storage: Storage, backend: GitHubBackend, tmp_path: Path
) -> None:
    """Nobody gets a private file by what another one was told."""
    upload = make_upload(tmp_path, WHEEL, b"content")
    file = published(upload, backend.put_file(upload))
    content_of(backend.open_file(file))
    for token, error in ((storage.tokens["stranger"], BackendError), ("wrong", WrongSecret)):
        with pytest.raises(error):
            with_token(backend, token).open_file(file)
    reader = with_token(backend, storage.tokens["read-secret"])
    assert content_of(reader.open_file(file)) == b"content"
    assert signed(github) == 4


def test_a_signed_address_is_given_away_only_while_it_holds(
    github: FakeGitHub, tmp_path: Path
) -> None:
    storage = make_storage(github, download="redirect")
    backend = open_github(storage, "write-secret", new_folders(tmp_path))
    upload = make_upload(tmp_path, WHEEL, b"content")
    file = published(upload, backend.put_file(upload))
    github.asset_url_validity = timedelta(seconds=10)  # less than the margin
    first, second = backend.open_file(file), backend.open_file(file)
    assert isinstance(first, Redirect)
    assert isinstance(second, Redirect)
    assert signed(github) == 2
    assert first.expires_at is not None
    assert abs(first.expires_at - github.now() - timedelta(seconds=10)) < timedelta(seconds=5)


def test_an_address_that_ended_early_is_asked_for_again(
    github: FakeGitHub, backend: GitHubBackend, tmp_path: Path
) -> None:
    upload = make_upload(tmp_path, WHEEL, b"content")
    file = published(upload, backend.put_file(upload))
    assert content_of(backend.open_file(file)) == b"content"
    github.clock.advance(3600)
    assert content_of(backend.open_file(file)) == b"content"
    assert signed(github) == 2


def test_a_file_of_a_repository_that_is_gone_is_trouble(
    github: FakeGitHub, backend: GitHubBackend, tmp_path: Path
) -> None:
    """GitHub answers 404 for a file that is gone, and for one that we may not see any more."""
    upload = make_upload(tmp_path, WHEEL, b"content")
    file = published(upload, backend.put_file(upload))
    github.set_rights("walter", {"acme/pkgs": "none"})
    for call_ in (
        lambda: backend.open_file(file),
        lambda: backend.open_core_metadata(file),
        lambda: list(backend.list_files()),
        lambda: list(backend.recent_files(EPOCH)),
        lambda: backend.read_index(tmp_path / "index.toml"),
        lambda: backend.delete_file(file),
    ):
        error = outcome(call_)
        assert type(error) is BackendError, error


# The index.


def test_an_index_of_any_size_is_one_request(
    github: FakeGitHub, backend: GitHubBackend, tmp_path: Path
) -> None:
    """0.2 could read up to 1 MB."""
    revision = backend.write_index(document(tmp_path, b"mtime = 1\n"), NO_INDEX)
    github.forget_requests()
    backend.read_index(tmp_path / "read")
    assert len(github.requests) == 1
    large = b"# 0123456789abcdef\n" * (3 * MIB // 18)
    revision = backend.write_index(document(tmp_path, large), revision)
    github.forget_requests()
    assert backend.read_index(tmp_path / "read") == revision
    assert (tmp_path / "read").read_bytes() == large
    assert len(github.requests) == 1
    assert github.file("acme/pkgs", "index.toml") == large


def test_an_index_that_was_known_before_the_start_is_not_written(
    backend: GitHubBackend, tmp_path: Path
) -> None:
    """Whoever has lost the ETag finds the same git id."""
    revision = backend.write_index(document(tmp_path, b"mtime = 1\n"), NO_INDEX)
    started = with_new_memory(backend)
    assert started.read_index(tmp_path / "read", unless=revision) == revision
    assert list(tmp_path.glob("read*")) == []


def test_an_index_that_did_not_change_costs_nothing(
    github: FakeGitHub, backend: GitHubBackend, tmp_path: Path
) -> None:
    revision = backend.write_index(document(tmp_path, b"mtime = 1\n"), NO_INDEX)
    backend.read_index(tmp_path / "read")
    github.forget_requests()
    assert backend.read_index(tmp_path / "read", unless=revision) == revision
    assert [(r.status, r.counted) for r in github.requests] == [(304, False)]


@pytest.mark.parametrize("index_filename", ["index.toml", "indexes/mine.toml"])
def test_an_index_that_is_still_not_there_costs_nothing(
    github: FakeGitHub, tmp_path: Path, index_filename: str
) -> None:
    """GitHub counts each 404, but not the folder that did not change."""
    storage = make_storage(github, index_filename=index_filename)
    backend = open_github(storage, "write-secret", new_folders(tmp_path))
    github.commit("acme/pkgs", "indexes/README.md", b"nothing here")
    for _ in range(2):
        assert backend.read_index(tmp_path / "read") == NO_INDEX
    github.forget_requests()
    assert backend.read_index(tmp_path / "read") == NO_INDEX
    assert [(r.status, r.counted) for r in github.requests] == [(304, False)]
    other = with_new_memory(backend)
    revision = other.write_index(document(tmp_path, b"mtime = 1\n"), NO_INDEX)
    assert backend.read_index(tmp_path / "read") == revision
    github.commit("acme/pkgs", index_filename, None)
    assert backend.read_index(tmp_path / "read") == NO_INDEX


def test_a_missing_branch_is_no_missing_index(github: FakeGitHub, tmp_path: Path) -> None:
    storage = make_storage(github, branch="indexes")
    backend = open_github(storage, "write-secret", new_folders(tmp_path))
    with pytest.raises(BackendError, match="no branch 'indexes'"):
        backend.read_index(tmp_path / "read")


def test_a_refusal_of_a_right_revision_is_not_staleness(
    github: FakeGitHub, backend: GitHubBackend, tmp_path: Path
) -> None:
    """Who is told to read again would do so for ever."""
    revision = backend.write_index(document(tmp_path, b"mtime = 1\n"), NO_INDEX)
    github.fail("422", on="PUT /repos/*/contents/*")
    with pytest.raises(BackendError, match="refuses to write"):
        backend.write_index(document(tmp_path, b"mtime = 2\n"), revision)


def test_other_commits_do_not_hinder_a_writer(
    github: FakeGitHub, backend: GitHubBackend, tmp_path: Path
) -> None:
    revision = backend.write_index(document(tmp_path, b"mtime = 1\n"), NO_INDEX)
    github.commit("acme/pkgs", "README.md", b"changed")
    backend.write_index(document(tmp_path, b"mtime = 2\n"), revision)
    with pytest.raises(StaleIndex):
        backend.write_index(document(tmp_path, b"mtime = 3\n"), revision)


# What is new, and whole listings.


def names(stored_files: Iterator[StoredFile]) -> list[str]:
    return [stored.filename for stored in stored_files]


def put_releases(github: FakeGitHub, storage: Storage, count: int) -> None:
    """So many releases with a file, one second apart."""
    notes = OLD_NOTES.format(hashlib.sha256(b"content").hexdigest())
    for number in range(count):
        put_as_0_2_did(storage, f"demo-{number}.tar.gz", b"content", notes)
        github.clock.advance(1)


@pytest.mark.parametrize("shuffled", [False, True])
def test_what_is_new_is_found_whatever_the_order_of_releases_of_one_commit(
    github: FakeGitHub, storage: Storage, backend: GitHubBackend, shuffled: bool
) -> None:
    github.shuffles_ties = shuffled
    put_releases(github, storage, 120)
    since = github.now()
    put_as_0_2_did(storage, "demo-new.tar.gz", b"content", "")
    assert "demo-new.tar.gz" in names(backend.recent_files(since))
    pages = len(github.asked("GET /repos/*/releases"))
    assert pages == (2 if shuffled else 1)


def test_what_is_new_needs_one_page_once_the_index_was_written(
    github: FakeGitHub, storage: Storage, backend: GitHubBackend, tmp_path: Path
) -> None:
    """The index is a commit, so what came later has a younger one."""
    github.shuffles_ties = True
    put_releases(github, storage, 120)
    github.clock.advance(600)
    since = github.now()
    backend.write_index(document(tmp_path, b"mtime = 1\n"), NO_INDEX)
    put_releases_of_other = [f"other-{number}.tar.gz" for number in range(3)]
    for name in put_releases_of_other:
        put_as_0_2_did(storage, name, b"content", "")
    assert sorted(names(backend.recent_files(since))) == put_releases_of_other
    assert len(github.asked("GET /repos/*/releases")) <= 2


def test_asking_what_is_new_costs_nothing_while_nothing_happens(
    github: FakeGitHub, backend: GitHubBackend, tmp_path: Path
) -> None:
    upload = make_upload(tmp_path, WHEEL, b"content")
    file = published(upload, backend.put_file(upload))
    first = list(backend.recent_files(EPOCH))
    github.forget_requests()
    assert list(backend.recent_files(EPOCH)) == first
    assert [(r.status, r.counted) for r in github.requests] == [(304, False)]
    content_of(backend.open_file(file))  # changes the count of downloads, and so the ETag
    github.forget_requests()
    assert list(backend.recent_files(EPOCH)) == first
    assert [(r.status, r.counted) for r in github.requests] == [(200, True)]


def test_a_file_that_moved_between_two_pages_is_listed(
    github: FakeGitHub, storage: Storage, backend: GitHubBackend
) -> None:
    """When a release is deleted while we list, those behind it move up."""
    put_releases(github, storage, 150)
    first = call(storage, "GET", "/releases?per_page=1")[0]
    listing = backend.list_files()
    listed = [next(listing).filename]
    call(storage, "DELETE", f"/releases/{first['id']}")
    listed += names(listing)
    assert set(listed) == {f"demo-{number}.tar.gz" for number in range(150)}
    assert len(listed) == 150


@pytest.mark.parametrize("enterprise", [False, True])
def test_releases_beyond_the_end_of_the_listing_are_confirmed_by_their_tags(
    github: FakeGitHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enterprise: bool
) -> None:
    storage = make_storage(github, api_url=github.enterprise_url if enterprise else github.api_url)
    backend = open_github(storage, "write-secret", new_folders(tmp_path))
    put_releases(github, storage, 110)
    report = update_index(backend, backend_type="github", name="mine", folder=tmp_path)
    assert (report.added, report.unchanged) == (0, 0)  # they are no distributions
    assert len(report.skipped) == 110
    stored = {s.filename: s for s in backend.list_files()}
    github.listing_limit = 100
    monkeypatch.setattr(private_pypi_github.backend, "LISTING_ENDS_AT", 100)
    github.forget_requests()
    assert {s.filename: s for s in backend.list_files()} == stored
    assert len(github.requests) == 1 + 1 + 1 + 10
    github.forget_requests()
    listed = list(backend.list_files(lambda filename, stamp: stamp in ("", stored[filename].stamp)))
    assert {s.filename for s in listed} == set(stored)
    assert sum(s.stamp == "" for s in listed) == 10
    assert len(github.requests) == 1 + 1 + 1


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_tag_without_a_release_is_no_file(
    github: FakeGitHub,
    storage: Storage,
    backend: GitHubBackend,
    monkeypatch: pytest.MonkeyPatch,
    is_cut: bool,
) -> None:
    """Somebody deleted releases by hand; a hundred tags are asked for at once, known or not."""
    put_releases(github, storage, 130)
    for release in github.releases("acme/pkgs")[10:]:
        call(storage, "DELETE", f"/releases/{release.id}")
    if is_cut:
        github.listing_limit = 5
        monkeypatch.setattr(private_pypi_github.backend, "LISTING_ENDS_AT", 5)
    github.forget_requests()
    listed = names(backend.list_files(lambda filename, stamp: True))
    assert sorted(listed) == sorted(f"demo-{number}.tar.gz" for number in range(120, 130))
    assert len(github.requests) == 1 + 1 + 2


def test_a_draft_beyond_the_end_of_the_listing_is_no_file(
    github: FakeGitHub,
    storage: Storage,
    backend: GitHubBackend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put_releases(github, storage, 3)
    oldest = github.releases("acme/pkgs")[-1]
    call(storage, "DELETE", f"/releases/{oldest.id}")  # the tag stays
    github.make_release("acme/pkgs", oldest.tag_name, draft=True)
    github.listing_limit = 1
    monkeypatch.setattr(private_pypi_github.backend, "LISTING_ENDS_AT", 1)
    listed = names(backend.list_files(lambda filename, stamp: True))
    assert sorted(listed) == ["demo-1.tar.gz", "demo-2.tar.gz"]


@pytest.mark.parametrize(("kind", "applied"), FAULTS)
def test_trouble_with_tags_is_no_absence(
    github: FakeGitHub,
    storage: Storage,
    backend: GitHubBackend,
    monkeypatch: pytest.MonkeyPatch,
    kind: Any,
    applied: bool,
) -> None:
    put_releases(github, storage, 3)
    github.listing_limit = 1
    monkeypatch.setattr(private_pypi_github.backend, "LISTING_ENDS_AT", 1)
    known = {f"demo-{number}.tar.gz" for number in range(3)}

    def listing() -> set[str]:
        return set(names(backend.list_files(lambda filename, stamp: filename in known)))

    for path in ("GET /repos/*/git/matching-refs/*", "POST /graphql"):
        fault = github.fail(kind, on=path, applied=applied)
        result = tried(kind, listing)
        github.heal()
        assert fault.happened == 1
        assert isinstance(result, (BackendError, NotAllowed)), (path, result)
        assert listing() == known


def test_tags_that_come_in_pages_are_all_read(
    github: FakeGitHub,
    storage: Storage,
    backend: GitHubBackend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """GitHub describes a Link header for this listing, and no way to ask for a page."""
    put_releases(github, storage, 5)
    github.listing_limit = 1
    monkeypatch.setattr(private_pypi_github.backend, "LISTING_ENDS_AT", 1)
    get = backend._client.get
    path = "/repos/acme/pkgs/git/matching-refs/tags/"
    second = f"{storage.api_url}/repositories/1/git/matching-refs/tags/?page=2"

    def paged(asked: str, **arguments: Any) -> Answer:
        if asked not in (path, second):
            return get(asked, **arguments)
        answer = get(path, **arguments)
        tags, headers = answer.json(), dict(answer.headers)
        if asked == path:
            headers["Link"] = f'<{second}>; rel="next", <{second}>; rel="last"'
        part = tags[:2] if asked == path else tags[2:]
        return replace(answer, headers=headers, body=json.dumps(part).encode())

    monkeypatch.setattr(backend._client, "get", paged)
    listed = names(backend.list_files(lambda filename, stamp: True))
    assert sorted(listed) == [f"demo-{number}.tar.gz" for number in range(5)]


def test_one_false_absence_of_a_release_is_not_believed(
    github: FakeGitHub,
    storage: Storage,
    backend: GitHubBackend,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In moments of trouble GitHub answers 404, too."""
    upload = make_upload(tmp_path, WHEEL, b"content")
    file = published(upload, backend.put_file(upload))
    github.clock.advance(60)
    github.commit("acme/pkgs", "README.md", b"changed")
    github.make_release("acme/pkgs", "v1.0")
    github.listing_limit = 1
    monkeypatch.setattr(private_pypi_github.backend, "LISTING_ENDS_AT", 1)
    calls: dict[str, tuple[Callable[[], Any], Any]] = {
        "list": (lambda: names(backend.list_files()), [WHEEL]),
        "open": (lambda: content_of(backend.open_file(replace(file, location=""))), b"content"),
        "yank": (lambda: backend.yank_file(file, "broken"), None),
    }
    for what, (ask, right) in calls.items():
        fault = github.fail("404", on="GET /repos/*/releases/tags/*")
        assert (what, outcome(ask)) == (what, right)
        assert fault.happened == 1


# Trouble at every single request.


def is_whole(backend: GitHubBackend, upload: Upload) -> bool:
    """Whether the file is published; an error when half of it is."""
    stored = list(backend.list_files())
    if not stored:
        return False
    assert [s.record for s in stored] == [upload.record]
    file = published(upload, stored[0])
    assert content_of(backend.open_file(file)) == upload.content.read_bytes()
    assert content_of(backend.open_core_metadata(file)) == upload.core_metadata
    return True


@pytest.mark.parametrize("at", range(5))
@pytest.mark.parametrize(("kind", "applied"), FAULTS)
def test_publishing_survives_trouble_at_every_request(
    github: FakeGitHub,
    backend: GitHubBackend,
    tmp_path: Path,
    at: int,
    kind: Any,
    applied: bool,
) -> None:
    """Success means published; an error means whole or not at all; again makes it whole."""
    upload = make_upload(tmp_path, WHEEL, b"content")
    methods = ["GET", "POST", "POST", "POST", "PATCH"]
    github.fail(kind, at=at + 1, applied=applied and methods[at] != "GET")
    result = tried(kind, backend.put_file, upload)
    github.heal()
    if isinstance(result, StoredFile):
        assert is_whole(backend, upload)
    else:
        assert isinstance(result, (BackendError, NotAllowed)), result
        if is_whole(backend, upload):
            assert (at, applied) == (4, True)
    assert backend.put_file(upload).record == upload.record
    assert is_whole(backend, upload)
    assert drafts(github) == []


@pytest.mark.parametrize(("kind", "applied"), FAULTS)
def test_publishing_on_an_old_tag_survives_trouble_at_every_request(
    github: FakeGitHub,
    storage: Storage,
    backend: GitHubBackend,
    tmp_path: Path,
    kind: Any,
    applied: bool,
) -> None:
    """The tag, the release, the repository, its head; and the tag is moved."""
    upload = make_upload(tmp_path, WHEEL, b"content")
    for at, method in enumerate(("GET", "GET", "GET", "GET", "PATCH")):
        backend.delete_file(published(upload, backend.put_file(upload)))
        old = github.repo("acme/pkgs").head()
        assert old is not None
        github.repo("acme/pkgs").refs[f"refs/tags/{WHEEL}"] = old.sha
        github.commit("acme/pkgs", "README.md", f"{at}".encode())
        reader = with_new_memory(backend)
        fault = github.fail(kind, at=at + 1, applied=applied and method != "GET")
        result = tried(kind, reader.put_file, upload)
        github.heal()
        assert fault.happened == 1
        assert isinstance(result, (BackendError, StoredFile)), result
        assert is_whole(backend, upload) == isinstance(result, StoredFile)
        assert backend.put_file(upload).record == upload.record
        assert drafts(github) == []


@pytest.mark.parametrize(("kind", "applied"), FAULTS)
def test_reading_survives_trouble_at_every_request(
    github: FakeGitHub, backend: GitHubBackend, tmp_path: Path, kind: Any, applied: bool
) -> None:
    """Trouble is an error, never a shorter listing, an absence or other bytes."""
    upload = make_upload(tmp_path, WHEEL, b"content")
    stored = backend.put_file(upload)
    file = published(upload, stored)
    large = b"# 0123456789abcdef\n" * (2 * MIB // 18)
    revision = backend.write_index(document(tmp_path, large), NO_INDEX)

    def read_index(reader: GitHubBackend) -> tuple[str, bytes]:
        return reader.read_index(tmp_path / "read"), (tmp_path / "read").read_bytes()

    calls: dict[str, tuple[Any, Any]] = {
        "list": (lambda reader: list(reader.list_files()), [stored]),
        "recent": (lambda reader: list(reader.recent_files(EPOCH)), [stored]),
        "open": (lambda reader: content_of(reader.open_file(file)), b"content"),
        "metadata": (
            lambda reader: content_of(reader.open_core_metadata(file)),
            upload.core_metadata,
        ),
        "index": (read_index, (revision, large)),
        "access": (lambda reader: reader.access(), Access.WRITE),
    }
    # Where a false answer is what a true one would be: a token that is refused.
    believed = {("access", 0, "403")}
    for what, (ask, right) in calls.items():
        reader = with_new_memory(backend)
        github.forget_requests()
        assert ask(reader) == right
        for at in range(len(github.requests)):
            reader = with_new_memory(backend)
            fault = github.fail(kind, at=at + 1, applied=applied)
            result = tried(kind, ask, reader)
            github.heal()
            assert fault.happened == 1
            expected = isinstance(result, BackendError) or result == right
            assert expected or (what, at, kind) in believed, (what, at, kind, result)
            assert ask(reader) == right


def with_new_memory(backend: GitHubBackend) -> GitHubBackend:
    """The backend of a server that was just started."""
    return GitHubBackend(replace(backend.settings), backend.secret, backend.folders)
