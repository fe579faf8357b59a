"""The contract over a fake GitHub, and what is special about it: access, layout, downloads."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import tomli

from private_pypi.backend import NO_INDEX, Access, Folders, Secret
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    FileAlreadyExists,
    FileNotFound,
    InvalidUpload,
    NotAllowed,
    WrongSecret,
)
from private_pypi.model import Redirect, StoredFile
from private_pypi.testing.contract import (
    BackendContract,
    DeletingContract,
    FindContract,
    PublicAddressesContract,
    RecentContract,
    RemoteContract,
    SweepContract,
    UsageContract,
    YankingContract,
)
from private_pypi.testing.contract.helpers import (
    content_of,
    document,
    make_upload,
    new_folders,
    outcome,
    published,
)
from private_pypi_github import GitHubBackend
from private_pypi_github.backend import GitHubStorage
from tests.github.fake import FakeGitHub
from tests.github.packages import (
    EPOCH,
    HALF_AN_HOUR,
    OLD_NOTES,
    WHEEL,
    Storage,
    backend_of,
    call,
    make_storage,
    open_github,
    put_as_0_2_did,
    with_new_memory,
    with_token,
)

# The contract.


class GitHubContract(
    BackendContract,
    FindContract,
    DeletingContract,
    RecentContract,
    YankingContract,
    SweepContract,
    PublicAddressesContract,
    UsageContract,
    RemoteContract,
):
    """What the contract needs to know of this storage."""

    github: FakeGitHub

    @pytest.fixture
    def place(self, github: FakeGitHub) -> Storage:
        return self.make_storage(github)

    def make_storage(self, github: FakeGitHub) -> Storage:
        return make_storage(github)

    def open_backend(self, place: Storage, folders: Folders) -> GitHubBackend:
        return backend_of(place, folders)

    def secret(self, place: Storage, name: str) -> Secret:
        return Secret(place.tokens.get(name, name))

    def break_storage(self, place: Storage) -> None:
        self.github.fail("500", times=10_000)

    def make_public(self, place: Storage) -> None:
        self.github.repo("acme/pkgs").private = False

    def requests_made(self, place: Storage) -> int:
        return len(self.github.requests)

    @pytest.fixture(autouse=True)
    def keep_github(self, github: FakeGitHub, tmp_path: Path) -> None:
        self.github, self.tmp_path = github, tmp_path

    def leftovers(self, place: Storage) -> list[str]:
        """Drafts that are there when their time is over and the storage was swept once more."""
        self.github.clock.advance(HALF_AN_HOUR)
        self.open_another(place, self.tmp_path).sweep()
        releases = self.github.releases("acme/pkgs", drafts=True)
        return [release.tag_name for release in releases if release.draft]

    def test_an_empty_file_is_a_file(self, storage: Any, tmp_path: Path) -> None:
        """GitHub refuses empty assets, and no distribution file is empty: so it is said."""
        with pytest.raises(InvalidUpload, match="GitHub stores no empty files"):
            storage.put_file(make_upload(tmp_path, "demo-1.0.zip", b""))
        assert self.github.releases("acme/pkgs", drafts=True) == []


class TestProxied(GitHubContract):
    """Files stream through us; nothing but owner and repository is configured."""


class TestRedirected(GitHubContract):
    """Clients get their files from GitHub itself."""

    # Writing is the same as in TestProxied; these start processes.
    test_two_processes_share_only_the_storage = None
    test_a_writer_that_is_killed_leaves_a_whole_file_or_none = None

    def make_storage(self, github: FakeGitHub) -> Storage:
        return make_storage(github, download="redirect")


class TestEnterpriseServer(GitHubContract):
    """Another host and path, a branch of its own, no digests, and ties listed in any order."""

    # Writing is the same as in TestProxied; these start processes.
    test_two_processes_share_only_the_storage = None
    test_a_writer_that_is_killed_leaves_a_whole_file_or_none = None

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
def backend(storage: Storage, tmp_path: Path) -> GitHubStorage:
    return open_github(storage, "write-secret", new_folders(tmp_path))


def test_a_token_without_a_user_is_believed_until_github_refuses(
    github: FakeGitHub, backend: GitHubStorage, tmp_path: Path
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
    github: FakeGitHub, backend: GitHubStorage, prefix: str
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
    github: FakeGitHub, backend: GitHubStorage
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
    github: FakeGitHub, backend: GitHubStorage, tmp_path: Path
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
    storage: Storage, backend: GitHubStorage, tmp_path: Path
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
    github: FakeGitHub, storage: Storage, backend: GitHubStorage
) -> None:
    github.set_remaining(storage.tokens["write-secret"], 0)
    with pytest.raises(BackendUnavailable) as caught:
        backend.access()
    assert 3000 < caught.value.retry_after <= 3601


# The layout of private-pypi 0.2.


@pytest.mark.parametrize("digests", [True, False])
def test_what_0_2_published_is_read(
    github: FakeGitHub, storage: Storage, backend: GitHubStorage, digests: bool
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
    github: FakeGitHub, storage: Storage, backend: GitHubStorage, tmp_path: Path, digests: bool
) -> None:
    """Also when GitHub has no digest, as of everything before 2025."""
    github.offers_digests = digests
    put_as_0_2_did(storage, WHEEL, b"content", OLD_NOTES.format("0" * 64))
    (stored,) = backend.list_files()
    assert backend.put_file(make_upload(tmp_path, WHEEL, b"content")) == stored
    with pytest.raises(FileAlreadyExists):
        backend.put_file(make_upload(tmp_path, WHEEL, b"CONTENT"))


def test_a_record_of_other_bytes_is_not_believed(storage: Storage, backend: GitHubStorage) -> None:
    """0.2 took the hash that the client named."""
    put_as_0_2_did(storage, WHEEL, b"content", OLD_NOTES.format("0" * 64))
    assert [stored.record for stored in backend.list_files()] == [None]


def test_what_we_publish_0_2_reads(
    github: FakeGitHub, storage: Storage, backend: GitHubStorage, tmp_path: Path
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
    storage: Storage, backend: GitHubStorage, tmp_path: Path
) -> None:
    stored = backend.put_file(make_upload(tmp_path, WHEEL, b"content"))
    release = call(storage, "GET", f"/releases/tags/{WHEEL}")
    edited = {"body": release["body"].replace("\n", "\r\n")}
    call(storage, "PATCH", f"/releases/{release['id']}", edited)
    assert list(backend.list_files()) == [stored]


def test_an_asset_that_somebody_replaced_has_no_record_and_no_metadata(
    storage: Storage, backend: GitHubStorage, tmp_path: Path
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
    github: FakeGitHub, backend: GitHubStorage, tmp_path: Path, digests: bool
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
    storage: Storage, backend: GitHubStorage, tmp_path: Path
) -> None:
    stored = backend.put_file(make_upload(tmp_path, WHEEL, b"content"))
    for tag, draft in (("v1.0", False), ("demo-2.0.tar.gz", False), ("demo-3.0.tar.gz", True)):
        call(storage, "POST", "/releases", {"tag_name": tag, "draft": draft})
    assert list(backend.list_files()) == [stored]
    with pytest.raises(BackendError, match="lacks its file"):
        backend.put_file(make_upload(tmp_path, "demo-2.0.tar.gz", b"content"))


def test_values_that_notes_cannot_hold_are_left_out(backend: GitHubStorage, tmp_path: Path) -> None:
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
    github: FakeGitHub, storage: Storage, backend: GitHubStorage, tmp_path: Path
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
    assert signed(github) == 5  # the stranger's absence was asked for twice


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
    github: FakeGitHub, backend: GitHubStorage, tmp_path: Path
) -> None:
    upload = make_upload(tmp_path, WHEEL, b"content")
    file = published(upload, backend.put_file(upload))
    assert content_of(backend.open_file(file)) == b"content"
    github.clock.advance(3600)
    assert content_of(backend.open_file(file)) == b"content"
    assert signed(github) == 2


def test_a_file_of_a_repository_that_is_gone_is_trouble(
    github: FakeGitHub, backend: GitHubStorage, tmp_path: Path
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
