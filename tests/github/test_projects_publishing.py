"""How uploads become assets of releases: which release, what is left behind, and all that fails."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from private_pypi.backend import Access, AnyBackend, SupportsDelete
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    FileAlreadyExists,
    FilenameBurnt,
    FileNotFound,
    InvalidUpload,
    NotAllowed,
    ProjectNotFound,
)
from private_pypi.model import StoredFile, Upload
from private_pypi.storage.retrying import retrying
from private_pypi.testing.contract.helpers import (
    at_once,
    content_of,
    make_upload,
    new_folders,
    outcome,
    published,
)
from private_pypi_github.project_names import Replacement
from private_pypi_github.projects import GitHubProjectsStorage
from tests.github.fake import FakeGitHub
from tests.github.owner import (
    DAY,
    WHEEL,
    Storage,
    impatient,
    leftovers,
    make_storage,
    open_projects,
    restarted,
    with_settings,
    with_token,
)

SDIST = "demo-1.0.tar.gz"


@pytest.fixture
def storage(github: FakeGitHub) -> Storage:
    return make_storage(github)


@pytest.fixture
def backend(storage: Storage, tmp_path: Path) -> GitHubProjectsStorage:
    return open_projects(storage, "write-secret", new_folders(tmp_path))


def tags(github: FakeGitHub, name: str = "acme/demo") -> list[str]:
    return sorted(release.tag_name for release in github.releases(name))


def assets(github: FakeGitHub, tag: str, name: str = "acme/demo") -> dict[str, str | None]:
    """The names of a release's assets, with their labels."""
    (release,) = (r for r in github.releases(name) if r.tag_name == tag)
    return {asset.name: asset.label for asset in release.assets.values()}


# Which release it is.


@pytest.mark.parametrize(
    "tag",
    ["1.0", "v1.0", "1.0.0", "v1.0.0", "demo-1.0", "demo-v1.0", "demo@1.0", "Demo/v1.0.0"],
)
def test_a_file_is_added_to_the_release_of_its_version(
    github: FakeGitHub, backend: GitHubProjectsStorage, tmp_path: Path, tag: str
) -> None:
    """Which stays as somebody made it."""
    release = github.make_release("acme/demo", tag, {"notes.pdf": b"text"}, body="First!")
    backend.put_file(make_upload(tmp_path, WHEEL, b"wheel"))
    backend.put_file(make_upload(tmp_path, SDIST, b"sdist"))
    assert tags(github) == [tag]
    assert list(assets(github, tag)) == [
        "notes.pdf",
        WHEEL,
        f"{WHEEL}.metadata",
        SDIST,
        f"{SDIST}.metadata",
    ]
    assert (release.body, release.name) == ("First!", tag)
    assert leftovers(github, "acme/demo") == []


@pytest.mark.parametrize(
    ("tagged", "made"),
    [
        ([], "v1.0"),
        (["v0.9"], "v1.0"),
        (["0.9"], "1.0"),
        (["v0.8", "0.9"], "1.0"),
        (["demo-v0.9"], "demo-v1.0"),
        (["Demo@0.9"], "Demo@1.0"),
        (["nightly", "release-0.9"], "v1.0"),
        (["demo-0.9", "nightly"], "demo-1.0"),
    ],
)
def test_a_release_that_is_missing_is_tagged_like_the_newest(
    github: FakeGitHub,
    backend: GitHubProjectsStorage,
    tmp_path: Path,
    tagged: list[str],
    made: str,
) -> None:
    for tag in tagged:
        github.make_release("acme/demo", tag)
    backend.put_file(make_upload(tmp_path, WHEEL, b"wheel"))
    (release,) = (r for r in github.releases("acme/demo") if r.tag_name not in tagged)
    assert (release.tag_name, release.name, release.body) == (made, made, "")
    assert (release.draft, release.prerelease) == (False, False)
    assert list(assets(github, made)) == [WHEEL, f"{WHEEL}.metadata"]
    backend.put_file(make_upload(tmp_path, SDIST, b"sdist"))
    assert tags(github) == sorted([*tagged, made])


def test_a_tag_that_was_pushed_gets_its_release(
    github: FakeGitHub, backend: GitHubProjectsStorage, tmp_path: Path
) -> None:
    """The push of a tag often starts the workflow that publishes."""
    repository = github.repo("acme/demo")
    first = repository.refs["refs/heads/main"]
    repository.refs["refs/tags/1.0.0"] = first
    github.commit("acme/demo", "README.md", b"later")
    backend.put_file(make_upload(tmp_path, WHEEL, b"wheel"))
    assert tags(github) == ["1.0.0"]
    assert repository.refs["refs/tags/1.0.0"] == first


def test_projects_of_one_repository_have_releases_of_their_own(
    github: FakeGitHub, backend: GitHubProjectsStorage, tmp_path: Path
) -> None:
    """As soon as its tags name projects."""
    shared = with_settings(backend, replace=(Replacement("^(demo-extra|other)$", "demo"),))
    github.make_release("acme/demo", "other/v1.0", {"other-1.0.zip": b"content"})
    for name in (WHEEL, "demo_extra-1.0.zip", "other-1.0.tar.gz"):
        shared.put_file(make_upload(tmp_path, name, b"content"))
    assert tags(github) == ["demo-extra/v1.0", "demo/v1.0", "other/v1.0"]
    assert [f.filename for f in shared.project_files("other")] == [
        "other-1.0.zip",
        "other-1.0.tar.gz",
    ]


def test_a_release_that_names_the_project_is_preferred(
    github: FakeGitHub, backend: GitHubProjectsStorage, tmp_path: Path
) -> None:
    for tag in ("v1.0", "demo@1.0", "1.0"):
        github.make_release("acme/demo", tag)
    backend.put_file(make_upload(tmp_path, WHEEL, b"content"))
    assert list(assets(github, "demo@1.0")) == [WHEEL, f"{WHEEL}.metadata"]


def test_a_version_that_is_a_pre_release_makes_one(
    github: FakeGitHub, backend: GitHubProjectsStorage, tmp_path: Path
) -> None:
    backend.put_file(make_upload(tmp_path, "demo-1.0rc1.zip", b"content"))
    (release,) = github.releases("acme/demo")
    assert (release.tag_name, release.prerelease) == ("v1.0rc1", True)


def test_a_draft_of_somebody_else_is_left_alone(
    github: FakeGitHub, backend: GitHubProjectsStorage, tmp_path: Path
) -> None:
    """Also one that waits for this version: what is added to it would be seen by nobody."""
    theirs = github.make_release("acme/demo", "v1.0", draft=True)
    backend.put_file(make_upload(tmp_path, WHEEL, b"content"))
    assert [file.filename for file in backend.project_files("demo")] == [WHEEL]
    assert theirs.assets == {}
    assert leftovers(github, "acme/demo") == ["draft v1.0"]


@pytest.mark.parametrize("release", [None, "v1!2.0"])
def test_a_name_that_github_changes_stays_the_name_of_the_file(
    github: FakeGitHub, backend: GitHubProjectsStorage, tmp_path: Path, release: str | None
) -> None:
    """Its label keeps it; other assets get none."""
    if release is not None:
        github.make_release("acme/demo", release)
    name = "demo-1!2.0+local.1-py3-none-any.whl"
    upload = make_upload(tmp_path, name, b"content")
    if release is not None:
        upload = replace(upload, file=replace(upload.file, version="1!2.0"))
    stored = backend.put_file(upload)
    (made,) = tags(github)
    assert assets(github, made) == {
        "demo-1.2.0+local.1-py3-none-any.whl": name,
        "demo-1.2.0+local.1-py3-none-any.whl.metadata": f"{name}.metadata",
    }
    assert list(backend.project_files("demo")) == [stored]
    file = published(upload, stored)
    assert content_of(backend.open_core_metadata(file)) == upload.core_metadata
    assert backend.put_file(upload) == stored
    backend.yank_file(file, "broken")
    assert list(backend.project_files("demo")) == [replace(stored, yanked="broken")]
    backend.yank_file(file, None)
    assert list(backend.project_files("demo")) == [stored]
    backend.delete_file(file)
    assert assets(github, made) == {
        "demo-1.2.0+local.1-py3-none-any.whl.deleted": f"{name}.deleted"
    }


# What it costs, and what is never seen.


def test_an_undisturbed_upload_is_five_requests_or_six(
    github: FakeGitHub, backend: GitHubProjectsStorage, tmp_path: Path
) -> None:
    """Six where the release is made; listing the releases is conditional."""
    backend.put_file(make_upload(tmp_path, WHEEL, b"wheel"))
    assert [request.method for request in github.requests] == [
        "GET",  # releases
        "GET",  # tags
        "POST",  # a draft
        "POST",  # the file
        "POST",  # its core metadata
        "PATCH",  # published
    ]
    github.forget_requests()
    backend.put_file(make_upload(tmp_path, SDIST, b"sdist"))
    assert [request.method for request in github.requests] == [
        "GET",  # releases
        "POST",  # the file, under another name
        "PATCH",  # its own name
        "POST",  # its core metadata
        "PATCH",
    ]


def test_nothing_half_is_ever_seen(
    github: FakeGitHub, storage: Storage, backend: GitHubProjectsStorage, tmp_path: Path
) -> None:
    """Before each request of two uploads a reader finds whole files only."""
    reader = open_projects(storage, "read-secret", new_folders(tmp_path))
    uploads = {name: make_upload(tmp_path, name, name.encode()) for name in (WHEEL, SDIST)}
    seen: list[set[str]] = []

    def look(_: str) -> None:
        github.before_request(None)
        listed = {file.filename: file for file in reader.project_files("demo")}
        for name, stored in listed.items():
            assert content_of(reader.open_file(published(uploads[name], stored))) == name.encode()
        seen.append(set(listed))
        github.before_request(look)

    github.before_request(look)
    for upload in uploads.values():
        backend.put_file(upload)
    github.before_request(None)
    assert seen == [set()] * 6 + [{WHEEL}] * 3 + [{WHEEL, SDIST}] * 2


def test_bytes_that_changed_on_their_way_are_not_published(
    github: FakeGitHub, backend: GitHubProjectsStorage, tmp_path: Path
) -> None:
    backend.put_file(make_upload(tmp_path, "demo-2.0.zip", b"content"))
    for name in (WHEEL, "demo-2.0.tar.gz"):
        upload = make_upload(tmp_path, name, b"content")
        other = replace(upload, file=replace(upload.file, sha256="0" * 64))
        with pytest.raises(BackendUnavailable, match="other bytes"):
            backend.put_file(other)
    assert tags(github) == ["v2.0"]
    assert list(assets(github, "v2.0")) == ["demo-2.0.zip", "demo-2.0.zip.metadata"]
    assert leftovers(github, "acme/demo") == []


# What is refused.


@pytest.mark.parametrize("digests", [True, False])
def test_what_others_attached_is_there_already(
    github: FakeGitHub, backend: GitHubProjectsStorage, tmp_path: Path, digests: bool
) -> None:
    """Also when GitHub has no digest of it."""
    github.offers_digests = digests
    github.make_release("acme/demo", "nightly", {WHEEL: b"content"})
    assert backend.put_file(make_upload(tmp_path, WHEEL, b"content")).filename == WHEEL
    with pytest.raises(FileAlreadyExists):
        backend.put_file(make_upload(tmp_path, WHEEL, b"CONTENT"))
    assert tags(github) == ["nightly"]


def test_a_project_without_a_repository_is_not_published(
    backend: GitHubProjectsStorage, tmp_path: Path
) -> None:
    with pytest.raises(ProjectNotFound):
        backend.put_file(make_upload(tmp_path, "never_was-1.0.zip", b"content"))


def test_what_would_not_be_shown_is_not_published(
    github: FakeGitHub, backend: GitHubProjectsStorage, tmp_path: Path
) -> None:
    """An upload that succeeds and is never seen helps nobody."""
    limited = with_settings(backend, prereleases=False, exclude=("*.zip",))
    github.make_release("acme/demo", "v3.0", prerelease=True)
    for name, said in (
        ("demo-1.0.zip", "include, exclude"),
        ("demo-1.0rc1.tar.gz", "prereleases"),
        ("demo-3.0.tar.gz", "prereleases"),
    ):
        with pytest.raises(InvalidUpload, match=said):
            limited.put_file(make_upload(tmp_path, name, b"content"))
    assert tags(github) == ["v3.0"]


def test_an_immutable_release_takes_no_further_file(
    github: FakeGitHub, backend: GitHubProjectsStorage, tmp_path: Path
) -> None:
    """And loses none; what can be done is said."""
    github.repo("acme/demo").immutable_releases = True
    upload = make_upload(tmp_path, WHEEL, b"wheel")
    stored = backend.put_file(upload)
    with pytest.raises(NotAllowed, match=r"'v1\.0' is immutable, .* publish a new version"):
        backend.put_file(make_upload(tmp_path, SDIST, b"sdist"))
    with pytest.raises(NotAllowed, match=r"'v1\.0' is immutable, .* delete the release"):
        backend.delete_file(published(upload, stored))
    with pytest.raises(NotAllowed, match="refuses to label"):
        backend.yank_file(published(upload, stored), "broken")
    assert backend.put_file(upload) == stored
    assert list(backend.project_files("demo")) == [stored]


def test_an_empty_repository_says_what_is_missing(
    github: FakeGitHub, backend: GitHubProjectsStorage, tmp_path: Path
) -> None:
    github.make_repo("acme", "empty", private=True, empty=True)
    github.set_rights("walter", {"acme/empty": "write"})
    assert list(backend.project_files("empty")) == []
    with pytest.raises(BackendError, match="Repository is empty"):
        backend.put_file(make_upload(tmp_path, "empty-1.0.zip", b"content"))


def test_a_reader_changes_nothing(
    github: FakeGitHub, storage: Storage, backend: GitHubProjectsStorage, tmp_path: Path
) -> None:
    """GitHub answers a classic token 404 where it may read: that is no absence."""
    upload = make_upload(tmp_path, WHEEL, b"wheel")
    file = published(upload, backend.put_file(upload))
    reader = with_token(backend, storage.tokens["read-secret"])
    limited = with_token(
        backend, github.make_token("walter", limited_to={"acme/demo": "read"}, rights={})
    )
    assert (reader.access("demo"), limited.access("demo")) == (Access.READ, Access.WRITE)
    calls: list[Callable[[GitHubProjectsStorage], Any]] = [
        lambda each: each.put_file(make_upload(tmp_path, SDIST, b"sdist")),
        lambda each: each.put_file(make_upload(tmp_path, "demo-2.0.zip", b"content")),
        lambda each: each.delete_file(file),
        lambda each: each.yank_file(file, "broken"),
    ]
    for each in (reader, limited):
        for call in calls:
            with pytest.raises(NotAllowed):
                call(each)
    assert [f.filename for f in backend.project_files("demo")] == [WHEEL]
    assert leftovers(github, "acme/demo") == []


# Several writers.


def test_files_of_one_version_are_published_at_once(
    github: FakeGitHub, storage: Storage, tmp_path: Path
) -> None:
    """By the jobs of a matrix, before there is a release: all files end in one."""
    names = [f"demo-1.0-cp3{minor}-cp3{minor}-linux_x86_64.whl" for minor in range(8, 14)]
    uploads = [make_upload(tmp_path, name, name.encode()) for name in names]
    writers = [open_projects(storage, "write-secret", new_folders(tmp_path)) for _ in uploads]

    def put(writer: GitHubProjectsStorage, upload: Upload) -> StoredFile:
        return writer.put_file(upload)

    at_once([lambda w=w, u=u: put(w, u) for w, u in zip(writers, uploads, strict=True)])
    assert tags(github) == ["v1.0"]
    assert set(assets(github, "v1.0")) == {*names, *(f"{name}.metadata" for name in names)}
    assert leftovers(github, "acme/demo") == []


def test_what_a_killed_writer_left_hinders_nobody_and_is_removed_after_a_day(
    github: FakeGitHub, backend: GitHubProjectsStorage, tmp_path: Path
) -> None:
    """Not before, since it may be of a writer that still sends; and never what others drafted."""
    github.make_release("acme/demo", "theirs", draft=True)
    backend.put_file(make_upload(tmp_path, "demo-2.0.zip", b"content"))
    for name in (WHEEL, "demo-2.0.tar.gz"):
        upload = make_upload(tmp_path, name, b"content")
        github.fail("reset", on="POST /repos/*/assets", applied=True)
        github.fail("reset", on="DELETE *", times=10)
        with pytest.raises(BackendUnavailable):
            backend.put_file(upload)
        github.heal()
    left = sorted(leftovers(github, "acme/demo"))
    assert [each.partition("-")[0] for each in left] == [
        "draft theirs",
        "draft v1.0",
        "private_pypi",
    ]
    for name in (WHEEL, "demo-2.0.tar.gz"):
        backend.put_file(make_upload(tmp_path, name, b"content"))
    assert sorted(leftovers(github, "acme/demo")) == left
    github.clock.advance(DAY + 60)
    backend.put_file(make_upload(tmp_path, SDIST, b"content"))
    assert leftovers(github, "acme/demo") == ["draft theirs"]
    assert len(list(backend.project_files("demo"))) == 4


# Deleting.


def test_a_deletion_takes_every_asset_of_the_name_and_leaves_the_rest(
    github: FakeGitHub, backend: GitHubProjectsStorage, tmp_path: Path
) -> None:
    """Otherwise the file would come back from a release that repeats it."""
    upload = make_upload(tmp_path, WHEEL, b"content")
    file = published(upload, backend.put_file(upload))
    backend.put_file(make_upload(tmp_path, SDIST, b"sdist"))
    github.make_release("acme/demo", "nightly", {WHEEL: b"content", "notes.pdf": b"text"})
    backend.delete_file(file)
    assert list(assets(github, "v1.0")) == [SDIST, f"{SDIST}.metadata"]
    assert list(assets(github, "nightly")) == ["notes.pdf", f"{WHEEL}.deleted"]
    with pytest.raises(FileNotFound):
        backend.open_file(file)


@pytest.mark.parametrize(
    "respelled",
    ["demo-1.0.0-py3-none-any.whl", "Demo-1.0-py3-none-any.whl", "demo-1.0-PY3-none-any.whl"],
)
def test_a_burnt_name_stays_burnt_however_it_is_spelled(
    backend: GitHubProjectsStorage, tmp_path: Path, respelled: str
) -> None:
    upload = make_upload(tmp_path, WHEEL, b"content")
    backend.delete_file(published(upload, backend.put_file(upload)))
    with pytest.raises(FilenameBurnt):
        backend.put_file(make_upload(tmp_path, respelled, b"other"))


def test_a_name_that_github_changes_is_burnt_as_well(
    github: FakeGitHub, backend: GitHubProjectsStorage, tmp_path: Path
) -> None:
    upload = make_upload(tmp_path, "demo-1!2.0.zip", b"content")
    backend.delete_file(published(upload, backend.put_file(upload)))
    assert assets(github, "v1!2.0") == {"demo-1.2.0.zip.deleted": "demo-1!2.0.zip.deleted"}
    with pytest.raises(FilenameBurnt):
        backend.put_file(upload)
    backend.put_file(make_upload(tmp_path, "demo-1.2.0.zip", b"content"))


def test_people_lift_a_burnt_name_by_removing_what_says_so(
    github: FakeGitHub, backend: GitHubProjectsStorage, tmp_path: Path
) -> None:
    upload = make_upload(tmp_path, WHEEL, b"content")
    backend.delete_file(published(upload, backend.put_file(upload)))
    (release,) = github.releases("acme/demo")
    release.assets.clear()
    backend.put_file(make_upload(tmp_path, WHEEL, b"other"))
    assert [file.filename for file in backend.project_files("demo")] == [WHEEL]


def test_what_people_attach_under_a_burnt_name_is_not_shown_and_stays_theirs(
    github: FakeGitHub, backend: GitHubProjectsStorage, tmp_path: Path
) -> None:
    upload = make_upload(tmp_path, WHEEL, b"content")
    backend.delete_file(published(upload, backend.put_file(upload)))
    github.make_release("acme/demo", "nightly", {WHEEL: b"again"})
    assert list(backend.project_files("demo")) == []
    backend.put_file(make_upload(tmp_path, "demo-2.0.zip", b"content"))
    assert list(assets(github, "nightly")) == [WHEEL]


def test_what_an_interrupted_deletion_left_is_not_shown_and_removed_by_the_next_upload(
    github: FakeGitHub, backend: GitHubProjectsStorage, tmp_path: Path
) -> None:
    upload = make_upload(tmp_path, WHEEL, b"content")
    file = published(upload, backend.put_file(upload))
    github.fail("reset", on="DELETE *")
    with pytest.raises(BackendUnavailable):
        backend.delete_file(file)
    assert set(assets(github, "v1.0")) == {WHEEL, f"{WHEEL}.metadata", f"{WHEEL}.deleted"}
    assert list(backend.project_files("demo")) == []
    backend.put_file(make_upload(tmp_path, "demo-2.0.zip", b"content"))
    assert set(assets(github, "v1.0")) == {f"{WHEEL}.deleted"}


def test_an_immutable_release_keeps_its_files_and_no_name_is_burnt(
    github: FakeGitHub, backend: GitHubProjectsStorage, tmp_path: Path
) -> None:
    github.make_release("acme/demo", "nightly", {WHEEL: b"content"})
    github.repo("acme/demo").immutable_releases = True
    github.make_release("acme/demo", "v1.0", {WHEEL: b"content"})
    (stored,) = backend.project_files("demo")
    upload = make_upload(tmp_path, WHEEL, b"content")
    with pytest.raises(NotAllowed, match="immutable"):
        backend.delete_file(published(upload, stored))
    assert list(backend.project_files("demo")) == [stored]


def test_servers_that_delete_at_once_agree(
    github: FakeGitHub, storage: Storage, tmp_path: Path
) -> None:
    """One meets the unfinished mark of another, and is told to ask again, as the core does."""
    backends = [
        retrying(open_projects(storage, "write-secret", new_folders(tmp_path))) for _ in range(4)
    ]
    upload = make_upload(tmp_path, WHEEL, b"content")
    file = published(upload, backends[0].put_file(upload))
    barrier = threading.Barrier(len(backends))

    def delete(backend: AnyBackend) -> object:
        assert isinstance(backend, SupportsDelete)
        barrier.wait()
        return outcome(backend.delete_file, file)

    with ThreadPoolExecutor(len(backends)) as pool:
        assert list(pool.map(delete, backends)) == [None] * len(backends)
    assert assets(github, "v1.0") == {f"{WHEEL}.deleted": ""}


def test_core_metadata_of_an_earlier_file_is_replaced(
    github: FakeGitHub, backend: GitHubProjectsStorage, tmp_path: Path
) -> None:
    """Somebody has deleted the wheel in the browser, and nothing else."""
    github.make_release("acme/demo", "v1.0", {f"{WHEEL}.metadata": b"of another file"})
    upload = make_upload(tmp_path, WHEEL, b"content")
    file = published(upload, backend.put_file(upload))
    assert content_of(backend.open_core_metadata(file)) == upload.core_metadata


# Trouble at every single request.


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


def is_whole(backend: GitHubProjectsStorage, upload: Upload) -> bool:
    """Whether the file is published; an error when half of it is, or other bytes."""
    listed = {file.filename: file for file in backend.project_files("demo")}
    stored = listed.get(upload.file.filename)
    if stored is None:
        return False
    assert stored.sha256 == hashlib.sha256(upload.content.read_bytes()).hexdigest()
    content = content_of(backend.open_file(published(upload, stored)))
    assert content == upload.content.read_bytes()
    return True


@pytest.mark.parametrize(
    ("has_release", "at"), [*((False, at) for at in range(6)), *((True, at) for at in range(5))]
)
@pytest.mark.parametrize(("kind", "applied"), FAULTS)
def test_publishing_survives_trouble_at_every_request(
    github: FakeGitHub,
    backend: GitHubProjectsStorage,
    tmp_path: Path,
    at: int,
    kind: Any,
    applied: bool,
    has_release: bool,
) -> None:
    """Success means published; an error means whole or not at all; again makes it whole."""
    if has_release:
        github.make_release("acme/demo", "v1.0", {SDIST: b"sdist"})
    upload = make_upload(tmp_path, WHEEL, b"content")
    changes = at >= (1 if has_release else 2)
    fault = github.fail(kind, at=at + 1, applied=applied and (changes or kind == "cut"))
    with impatient(kind, 1.0):
        result = outcome(backend.put_file, upload)
    github.heal()
    # A machine that is busy may be too slow for one of the requests before: that is trouble, too.
    assert fault.happened == 1 or (kind == "timeout" and isinstance(result, BackendUnavailable))
    if isinstance(result, StoredFile):
        assert is_whole(restarted(backend), upload)
    else:
        assert isinstance(result, (BackendError, NotAllowed, ProjectNotFound)), result
        if is_whole(restarted(backend), upload):
            assert applied or kind == "timeout"
            assert at == (2 if has_release else 5)
    # A connection that broke behind a whole answer is found out by the next request.
    assert retrying(backend).put_file(upload).filename == WHEEL
    assert is_whole(backend, upload)
    assert tags(github) == ["v1.0"]
    github.clock.advance(DAY + 60)
    backend.put_file(make_upload(tmp_path, "demo-2.0.zip", b"content"))
    assert is_whole(backend, upload)
    assert leftovers(github, "acme/demo") == []


@pytest.mark.parametrize(("kind", "applied"), FAULTS)
def test_deleting_survives_trouble_at_every_request(
    github: FakeGitHub,
    backend: GitHubProjectsStorage,
    tmp_path: Path,
    kind: Any,
    applied: bool,
) -> None:
    """Success means gone; again after an error makes it so."""
    for at in range(4):
        name = f"demo-{at}.0.zip"
        upload = make_upload(tmp_path, name, b"content")
        file = published(upload, backend.put_file(upload))
        fault = github.fail(kind, at=at + 1, applied=applied and (at > 0 or kind == "cut"))
        with impatient(kind, 1.0):
            result = outcome(backend.delete_file, file)
        github.heal()
        assert fault.happened == 1 or (kind == "timeout" and isinstance(result, BackendUnavailable))
        left = {f.filename for f in restarted(backend).project_files("demo")}
        if result is None:
            assert left == set()
        else:
            assert isinstance(result, (BackendError, NotAllowed, ProjectNotFound)), result
            assert left <= {name}
        again = retrying(backend)
        assert isinstance(again, SupportsDelete)
        again.delete_file(file)
        assert list(backend.project_files("demo")) == []


@pytest.mark.parametrize(("kind", "applied"), FAULTS)
def test_yanking_survives_trouble_at_every_request(
    github: FakeGitHub,
    backend: GitHubProjectsStorage,
    tmp_path: Path,
    kind: Any,
    applied: bool,
) -> None:
    """Success means yanked; again after an error makes it so; the file is there all the time."""
    for at in range(2):
        upload = make_upload(tmp_path, f"demo-{at}.0.zip", b"content")
        file = published(upload, backend.put_file(upload))
        fault = github.fail(kind, at=at + 1, applied=applied and (at > 0 or kind == "cut"))
        with impatient(kind, 1.0):
            result = outcome(backend.yank_file, file, "broken")
        github.heal()
        assert fault.happened == 1 or (kind == "timeout" and isinstance(result, BackendUnavailable))
        reader = restarted(backend)
        (left,) = (f for f in reader.project_files("demo") if f.filename == file.filename)
        if result is None:
            assert left.yanked == "broken"
        else:
            assert isinstance(result, (BackendError, NotAllowed, ProjectNotFound)), result
            assert left.yanked in (None, "broken")
        backend.yank_file(file, "broken")
        assert {f.yanked for f in restarted(backend).project_files("demo")} == {"broken"}
        assert content_of(reader.open_file(file)) == b"content"
