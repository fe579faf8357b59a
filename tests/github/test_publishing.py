"""Uploads, deletions and yanks in one repository on a fake GitHub."""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tomli

import private_pypi_github.backend
import private_pypi_github.listing
from private_pypi.backend import NO_INDEX, Folders
from private_pypi.distributions.filenames import normalize
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    FileAlreadyExists,
    FileNotFound,
    InvalidUpload,
    NotAllowed,
)
from private_pypi.model import DistributionFile, StoredFile
from private_pypi.testing.contract.helpers import (
    MIB,
    content_of,
    make_upload,
    new_folders,
    outcome,
    published,
)
from private_pypi.testing.contract.processes import child_process
from private_pypi_github.backend import GitHubStorage
from private_pypi_github.releases import format_draft_notes
from tests.github.fake import FakeGitHub
from tests.github.fake.server import Request
from tests.github.packages import (
    EPOCH,
    FAULTS,
    HALF_AN_HOUR,
    OLD_NOTES,
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
    with_token,
)


@pytest.fixture
def storage(github: FakeGitHub) -> Storage:
    return make_storage(github)


@pytest.fixture
def backend(storage: Storage, tmp_path: Path) -> GitHubStorage:
    return open_github(storage, "write-secret", new_folders(tmp_path))


# Publishing.


def test_an_undisturbed_upload_is_five_requests(
    github: FakeGitHub, backend: GitHubStorage, tmp_path: Path
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
    github: FakeGitHub, storage: Storage, backend: GitHubStorage, tmp_path: Path, what: str
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
    backend.sweep()
    assert sorted(drafts(github)) == [WHEEL, "demo-9.0.tar.gz"]
    github.clock.advance(120)
    assert list(listing()) == []
    assert sorted(drafts(github)) == [WHEEL, "demo-9.0.tar.gz"]  # a listing removes nothing
    backend.sweep()
    assert drafts(github) == ["demo-9.0.tar.gz"]


def test_a_large_file_has_more_time(
    github: FakeGitHub, backend: GitHubStorage, tmp_path: Path
) -> None:
    """64 KiB a second at least; nobody removes the draft of somebody who sends that fast."""
    upload = make_upload(tmp_path, WHEEL, zeros=128 * MIB)
    github.fail("reset", on="DELETE /repos/*/releases/*")
    github.fail("reset", on="POST /repos/*/assets")
    with pytest.raises(BackendUnavailable):
        backend.put_file(upload)
    github.clock.advance(25 * 60 + 2048 - 60)
    assert (swept(backend), drafts(github)) == ([], [WHEEL])
    github.clock.advance(120)
    assert (swept(backend), drafts(github)) == ([], [])


def test_who_sends_too_slowly_gives_up(
    github: FakeGitHub, backend: GitHubStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    assert {s.filename: s for s in swept(backend)} == {
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
    during_an_upload(github, lambda: (other.put_file(second), swept(other)))
    stored = one.put_file(make_upload(tmp_path, WHEEL, b"content"))
    assert stored in list(other.list_files())
    assert len(names(other.list_files())) == 2


@pytest.mark.parametrize("content", [b"content", b"CONTENT"])
def test_a_writer_whose_draft_was_in_vain_is_told_what_is_published(
    github: FakeGitHub, storage: Storage, backend: GitHubStorage, tmp_path: Path, content: bytes
) -> None:
    """A sweep removes drafts under published names, also when somebody still sends."""
    other = open_github(storage, "write-secret", new_folders(tmp_path))
    winner = make_upload(tmp_path, WHEEL, b"content")
    won: list[StoredFile] = []
    during_an_upload(github, lambda: (won.append(other.put_file(winner)), swept(other)))
    result = outcome(backend.put_file, make_upload(tmp_path, WHEEL, content))
    assert list(backend.list_files()) == won
    if content == b"content":
        assert result == won[0]
    else:
        assert isinstance(result, FileAlreadyExists)
    assert drafts(github) == []


def test_what_was_published_is_not_taken_for_a_draft(
    github: FakeGitHub, backend: GitHubStorage, tmp_path: Path
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
    backend: GitHubStorage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is seen twice: on one page as a draft, on a later one under its name."""
    monkeypatch.setattr(private_pypi_github.listing, "PAGE", 1)
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
    swept(backend)
    pages = [r for r in github.asked("GET /repos/*/releases") if r.status == 200]
    assert len(pages) == 3
    listed = [release.tag_name for release in github.releases("acme/pkgs", drafts=True)]
    assert listed == ["v1.0", WHEEL, "demo-0.tar.gz"]


def test_a_writer_that_has_just_sent_everything_is_not_taken_for_a_killed_one(
    github: FakeGitHub,
    storage: Storage,
    backend: GitHubStorage,
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
    github: FakeGitHub, storage: Storage, backend: GitHubStorage, tmp_path: Path
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
    github: FakeGitHub, storage: Storage, backend: GitHubStorage, tmp_path: Path
) -> None:
    put_as_0_2_did(storage, WHEEL, b"content", "")
    release = call(storage, "GET", f"/releases/tags/{WHEEL}")
    call(storage, "DELETE", f"/releases/{release['id']}")
    github.commit("acme/pkgs", "README.md", b"changed")
    github.fail("403", on="PATCH /repos/*/git/refs/*")
    stored = backend.put_file(make_upload(tmp_path, WHEEL, b"content"))
    assert list(backend.list_files()) == [stored]


def test_bytes_that_changed_on_their_way_are_not_published(
    github: FakeGitHub, backend: GitHubStorage, tmp_path: Path
) -> None:
    upload = make_upload(tmp_path, WHEEL, b"content")
    other = replace(upload, file=replace(upload.file, sha256="0" * 64))
    with pytest.raises(BackendUnavailable, match="other bytes"):
        backend.put_file(other)
    assert github.releases("acme/pkgs", drafts=True) == []


def test_what_github_refuses_is_said(
    github: FakeGitHub, backend: GitHubStorage, tmp_path: Path
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
    github: FakeGitHub, backend: GitHubStorage, tmp_path: Path
) -> None:
    upload = make_upload(tmp_path, WHEEL, b"content")
    backend.delete_file(published(upload, backend.put_file(upload)))
    assert github.releases("acme/pkgs", drafts=True) == []
    assert f"refs/tags/{WHEEL}" not in github.repo("acme/pkgs").refs


def test_an_immutable_release_can_be_deleted(
    github: FakeGitHub, backend: GitHubStorage, tmp_path: Path
) -> None:
    github.repo("acme/pkgs").immutable_releases = True
    upload = make_upload(tmp_path, WHEEL, b"content")
    file = published(upload, backend.put_file(upload))
    assert content_of(backend.open_file(file)) == b"content"
    backend.delete_file(file)
    with pytest.raises(FileNotFound):
        backend.open_file(file)


def test_a_protected_tag_may_stay(
    github: FakeGitHub, backend: GitHubStorage, tmp_path: Path
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
    github: FakeGitHub, backend: GitHubStorage, tmp_path: Path, answer: Any
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
    storage: Storage, backend: GitHubStorage, tmp_path: Path
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
def test_any_release_can_be_yanked(storage: Storage, backend: GitHubStorage, notes: str) -> None:
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


def test_a_form_cannot_yank(backend: GitHubStorage, tmp_path: Path) -> None:
    upload = make_upload(
        tmp_path,
        WHEEL,
        b"content",
        {"yanked": "x", "a": "\n# private_pypi: yanked\n", "# private_pypi: yanked": ""},
    )
    stored = backend.put_file(upload)
    assert (stored.record, stored.yanked) == (upload.record, None)


def test_an_immutable_release_can_be_yanked(
    github: FakeGitHub, storage: Storage, backend: GitHubStorage, tmp_path: Path
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
    github: FakeGitHub, storage: Storage, backend: GitHubStorage, tmp_path: Path
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


def test_a_record_leaves_room_for_a_reason(backend: GitHubStorage, tmp_path: Path) -> None:
    long = {f"field {number}": "x" * 1000 for number in range(200)}
    upload = make_upload(tmp_path, WHEEL, b"content", long)
    stored = backend.put_file(upload)
    backend.yank_file(published(upload, stored), "r" * 1500)
    assert [s.yanked for s in backend.list_files()] == ["r" * 1500]


@pytest.mark.parametrize(("kind", "applied"), FAULTS)
def test_yanking_survives_trouble_at_every_request(
    github: FakeGitHub, backend: GitHubStorage, tmp_path: Path, kind: Any, applied: bool
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
