"""Listings and the index document of a repository on a fake GitHub, and trouble at any request."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import private_pypi_github.backend
import private_pypi_github.listing
from private_pypi.backend import NO_INDEX, Access
from private_pypi.errors import (
    BackendError,
    NotAllowed,
    StaleIndex,
)
from private_pypi.index.rebuilding import update_index
from private_pypi.model import StoredFile, StoredName, Upload
from private_pypi.testing.contract.helpers import (
    MIB,
    content_of,
    document,
    make_upload,
    new_folders,
    outcome,
    published,
)
from private_pypi_github.answers import GitHubAnswer
from private_pypi_github.backend import GitHubStorage
from tests.github.fake import FakeGitHub
from tests.github.packages import (
    EPOCH,
    FAULTS,
    WHEEL,
    Storage,
    call,
    drafts,
    make_storage,
    names,
    open_github,
    put_as_0_2_did,
    put_releases,
    swept,
    tried,
    with_new_memory,
)


@pytest.fixture
def storage(github: FakeGitHub) -> Storage:
    return make_storage(github)


@pytest.fixture
def backend(storage: Storage, tmp_path: Path) -> GitHubStorage:
    return open_github(storage, "write-secret", new_folders(tmp_path))


# The index.


def test_an_index_of_any_size_is_one_request(
    github: FakeGitHub, backend: GitHubStorage, tmp_path: Path
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
    backend: GitHubStorage, tmp_path: Path
) -> None:
    """Whoever has lost the ETag finds the same git id."""
    revision = backend.write_index(document(tmp_path, b"mtime = 1\n"), NO_INDEX)
    started = with_new_memory(backend)
    assert started.read_index(tmp_path / "read", unless=revision) == revision
    assert list(tmp_path.glob("read*")) == []


def test_an_index_that_did_not_change_costs_nothing(
    github: FakeGitHub, backend: GitHubStorage, tmp_path: Path
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
    github: FakeGitHub, backend: GitHubStorage, tmp_path: Path
) -> None:
    """Who is told to read again would do so for ever."""
    revision = backend.write_index(document(tmp_path, b"mtime = 1\n"), NO_INDEX)
    github.fail("422", on="PUT /repos/*/contents/*")
    with pytest.raises(BackendError, match="refuses to write"):
        backend.write_index(document(tmp_path, b"mtime = 2\n"), revision)


def test_other_commits_do_not_hinder_a_writer(
    github: FakeGitHub, backend: GitHubStorage, tmp_path: Path
) -> None:
    revision = backend.write_index(document(tmp_path, b"mtime = 1\n"), NO_INDEX)
    github.commit("acme/pkgs", "README.md", b"changed")
    backend.write_index(document(tmp_path, b"mtime = 2\n"), revision)
    with pytest.raises(StaleIndex):
        backend.write_index(document(tmp_path, b"mtime = 3\n"), revision)


# What is new, and whole listings.


@pytest.mark.parametrize("shuffled", [False, True])
def test_what_is_new_is_found_whatever_the_order_of_releases_of_one_commit(
    github: FakeGitHub, storage: Storage, backend: GitHubStorage, shuffled: bool
) -> None:
    github.shuffles_ties = shuffled
    put_releases(github, storage, 120)
    since = github.now()
    put_as_0_2_did(storage, "demo-new.tar.gz", b"content", "")
    assert "demo-new.tar.gz" in names(backend.recent_files(since))
    pages = len(github.asked("GET /repos/*/releases"))
    assert pages == (2 if shuffled else 1)


def test_what_is_new_needs_one_page_once_the_index_was_written(
    github: FakeGitHub, storage: Storage, backend: GitHubStorage, tmp_path: Path
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
    github: FakeGitHub, backend: GitHubStorage, tmp_path: Path
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
    github: FakeGitHub, storage: Storage, backend: GitHubStorage
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
    monkeypatch.setattr(private_pypi_github.listing, "LISTING_ENDS_AT", 100)
    github.forget_requests()
    listed = list(backend.list_files())
    assert {each.filename for each in listed} == set(stored)
    names = [each.filename for each in listed if isinstance(each, StoredName)]
    assert len(names) == 10
    assert len(github.requests) == 1 + 1 + 1
    github.forget_requests()
    assert {name: backend.find_file(name) for name in names} == {n: stored[n] for n in names}
    assert len(github.requests) == 10


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_tag_without_a_release_is_no_file(
    github: FakeGitHub,
    storage: Storage,
    backend: GitHubStorage,
    monkeypatch: pytest.MonkeyPatch,
    is_cut: bool,
) -> None:
    """Somebody deleted releases by hand; a hundred tags are asked for at once, known or not."""
    put_releases(github, storage, 130)
    for release in github.releases("acme/pkgs")[10:]:
        call(storage, "DELETE", f"/releases/{release.id}")
    if is_cut:
        github.listing_limit = 5
        monkeypatch.setattr(private_pypi_github.listing, "LISTING_ENDS_AT", 5)
    github.forget_requests()
    listed = names(backend.list_files())
    assert sorted(listed) == sorted(f"demo-{number}.tar.gz" for number in range(120, 130))
    assert len(github.requests) == 1 + 1 + 2


def test_a_draft_beyond_the_end_of_the_listing_is_no_file(
    github: FakeGitHub,
    storage: Storage,
    backend: GitHubStorage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put_releases(github, storage, 3)
    oldest = github.releases("acme/pkgs")[-1]
    call(storage, "DELETE", f"/releases/{oldest.id}")  # the tag stays
    github.make_release("acme/pkgs", oldest.tag_name, draft=True)
    github.listing_limit = 1
    monkeypatch.setattr(private_pypi_github.listing, "LISTING_ENDS_AT", 1)
    listed = names(backend.list_files())
    assert sorted(listed) == ["demo-1.tar.gz", "demo-2.tar.gz"]


@pytest.mark.parametrize(("kind", "applied"), FAULTS)
def test_trouble_with_tags_is_no_absence(
    github: FakeGitHub,
    storage: Storage,
    backend: GitHubStorage,
    monkeypatch: pytest.MonkeyPatch,
    kind: Any,
    applied: bool,
) -> None:
    put_releases(github, storage, 3)
    github.listing_limit = 1
    monkeypatch.setattr(private_pypi_github.listing, "LISTING_ENDS_AT", 1)
    known = {f"demo-{number}.tar.gz" for number in range(3)}

    def listing() -> set[str]:
        return set(names(backend.list_files()))

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
    backend: GitHubStorage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """GitHub describes a Link header for this listing, and no way to ask for a page."""
    put_releases(github, storage, 5)
    github.listing_limit = 1
    monkeypatch.setattr(private_pypi_github.listing, "LISTING_ENDS_AT", 1)
    get = backend._client.get
    path = "/repos/acme/pkgs/git/matching-refs/tags/"
    second = f"{storage.api_url}/repositories/1/git/matching-refs/tags/?page=2"

    def paged(asked: str, **arguments: Any) -> GitHubAnswer:
        if asked not in (path, second):
            return get(asked, **arguments)
        answer = get(path, **arguments)
        tags, headers = answer.json(), dict(answer.headers)
        if asked == path:
            headers["Link"] = f'<{second}>; rel="next", <{second}>; rel="last"'
        part = tags[:2] if asked == path else tags[2:]
        return replace(answer, headers=headers, body=json.dumps(part).encode())

    monkeypatch.setattr(backend._client, "get", paged)
    listed = names(backend.list_files())
    assert sorted(listed) == [f"demo-{number}.tar.gz" for number in range(5)]


def test_one_false_absence_of_a_release_is_not_believed(
    github: FakeGitHub,
    storage: Storage,
    backend: GitHubStorage,
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
    monkeypatch.setattr(private_pypi_github.listing, "LISTING_ENDS_AT", 1)
    calls: dict[str, tuple[Callable[[], Any], Any]] = {
        "find": (lambda: names(iter([backend.find_file(WHEEL)])), [WHEEL]),
        "open": (lambda: content_of(backend.open_file(replace(file, location=""))), b"content"),
        "yank": (lambda: backend.yank_file(file, "broken"), None),
    }
    for what, (ask, right) in calls.items():
        fault = github.fail("404", on="GET /repos/*/releases/tags/*")
        assert (what, outcome(ask)) == (what, right)
        assert fault.happened == 1


# Trouble at every single request.


def is_whole(backend: GitHubStorage, upload: Upload) -> bool:
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
    backend: GitHubStorage,
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
    backend.sweep()
    assert drafts(github) == []


@pytest.mark.parametrize(("kind", "applied"), FAULTS)
def test_publishing_on_an_old_tag_survives_trouble_at_every_request(
    github: FakeGitHub,
    storage: Storage,
    backend: GitHubStorage,
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
    github: FakeGitHub, backend: GitHubStorage, tmp_path: Path, kind: Any, applied: bool
) -> None:
    """Trouble is an error, never a shorter listing, an absence or other bytes."""
    upload = make_upload(tmp_path, WHEEL, b"content")
    stored = backend.put_file(upload)
    file = published(upload, stored)
    large = b"# 0123456789abcdef\n" * (2 * MIB // 18)
    revision = backend.write_index(document(tmp_path, large), NO_INDEX)

    def read_index(reader: GitHubStorage) -> tuple[str, bytes]:
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


def test_a_release_that_was_made_by_hand_has_the_time_of_its_publication(
    github: FakeGitHub, storage: Storage, backend: GitHubStorage
) -> None:
    """GitHub knows it; a record has the time of an upload itself."""
    put_as_0_2_did(storage, WHEEL, b"content", "Our first release")
    (release,) = github.releases("acme/pkgs")
    (stored,) = swept(backend)
    assert stored.record is None
    assert stored.uploaded_at == release.published_at is not None
