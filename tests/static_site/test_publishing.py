"""Publishing into the folder of a site: commits, pushes, refusals, and writers that are killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from private_pypi.backend import Secret
from private_pypi.backend.open_folder import OpenFolder
from private_pypi.errors import BackendError, FileAlreadyExists, InvalidUpload, TooLarge
from private_pypi.model import StoredFile, Upload
from private_pypi.testing.contract.helpers import content_of, make_upload, new_folders, published
from private_pypi_static_site import StaticSiteBackend, StaticSiteSettings
from private_pypi_static_site.folder import SiteFolder
from private_pypi_static_site.git import Git
from tests.static_site.sites import (
    clone,
    commit_all,
    git,
    leftovers,
    make_repository,
    make_site,
    make_upstream,
    messages,
)

Publish = Literal["files", "commits"]


def open_site(
    path: Path, tmp_path: Path, publish: Publish = "commits", *, push: bool = False
) -> Any:
    settings = StaticSiteSettings(
        name="mine", max_file_bytes=1 << 30, path=path, publish=publish, push=push
    )
    return StaticSiteBackend(settings, new_folders(tmp_path)).seen_with(Secret("any"))


def put(storage: Any, tmp_path: Path, filename: str, content: bytes = b"content") -> StoredFile:
    stored: StoredFile = storage.put_file(make_upload(tmp_path, filename, content))
    return stored


def names(storage: Any) -> list[str]:
    return sorted(each.filename for each in storage.list_files())


@pytest.fixture
def site(tmp_path: Path) -> SiteFolder:
    return make_site(tmp_path / "site")


@pytest.fixture
def repository(site: SiteFolder) -> SiteFolder:
    make_repository(site.root)
    return site


# -- files -----------------------------------------------------------------------------------------


def test_comments_of_people_and_burnt_names_are_in_the_file(
    site: SiteFolder, tmp_path: Path
) -> None:
    storage = open_site(site.root, tmp_path, "files")
    first = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
    file = published(first, storage.put_file(first))
    path = site.root / "projects" / "demo.toml"
    path.write_text("# Ask Ann about this.\n" + path.read_text())
    put(storage, tmp_path, "demo-2.0.tar.gz")
    storage.delete_file(file)
    text = path.read_text()
    assert text.startswith("# Ask Ann about this.\n")
    assert 'burnt = [\n    "demo-1.0.tar.gz",\n]' in text
    assert leftovers(site.root) == []


def test_a_version_that_is_a_link_gets_no_files(site: SiteFolder, tmp_path: Path) -> None:
    (site.root / "projects").mkdir()
    text = (
        'name = "demo"\n[[versions]]\nversion = "1.0"\ntag = "v1"\ngit = "https://code.example/d"'
    )
    (site.root / "projects" / "demo.toml").write_text(text)
    storage = open_site(site.root, tmp_path, "files")
    with pytest.raises(InvalidUpload, match="is a link to"):
        put(storage, tmp_path, "demo-1.0.tar.gz")
    assert (site.root / "projects" / "demo.toml").read_text() == text
    assert leftovers(site.root) == []


def test_what_the_file_of_a_project_cannot_say_is_refused(site: SiteFolder, tmp_path: Path) -> None:
    storage = open_site(site.root, tmp_path, "files")
    upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
    strange = replace(upload, file=replace(upload.file, requires_python="a snake"))
    with pytest.raises(InvalidUpload, match="requires_python"):
        storage.put_file(strange)
    assert (names(storage), leftovers(site.root)) == ([], [])


def test_a_wrong_file_of_a_project_is_not_overwritten(site: SiteFolder, tmp_path: Path) -> None:
    (site.root / "projects").mkdir()
    path = site.root / "projects" / "demo.toml"
    path.write_text("name = [")
    with pytest.raises(BackendError, match="no TOML"):
        put(open_site(site.root, tmp_path, "files"), tmp_path, "demo-1.0.tar.gz")
    assert path.read_text() == "name = ["


def test_a_lost_file_is_put_back_when_it_is_published_again(
    site: SiteFolder, tmp_path: Path
) -> None:
    storage = open_site(site.root, tmp_path, "files")
    upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
    file = published(upload, storage.put_file(upload))
    (site.root / "packages" / "demo" / "demo-1.0.tar.gz").unlink()
    put(storage, tmp_path, "demo-1.0.tar.gz")
    assert content_of(storage.open_file(file)) == b"content"


@pytest.mark.parametrize(
    "note", ['{"filename": "../../x-1.0.zip", "message": "", "before": ""}', "[]", "{", "x"]
)
def test_a_note_by_somebody_else_touches_nothing(
    note: str, site: SiteFolder, tmp_path: Path
) -> None:
    victim = tmp_path / "x-1.0.zip"
    victim.touch()
    (site.root / ".private_pypi-change").write_text(note)
    with pytest.raises(BackendError, match="remove it"):
        put(open_site(site.root, tmp_path, "files"), tmp_path, "demo-1.0.tar.gz")
    assert victim.exists()


# -- commits ---------------------------------------------------------------------------------------


@pytest.mark.needs("git")
def test_each_change_is_one_commit_that_says_what(repository: SiteFolder, tmp_path: Path) -> None:
    storage = open_site(repository.root, tmp_path)
    upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
    file = published(upload, storage.put_file(upload))
    assert git(repository.root, "show", "--name-only", "--format=%an").split() == [
        "Ann",
        "packages/demo/demo-1.0.tar.gz",
        "packages/demo/demo-1.0.tar.gz.metadata",
        "projects/demo.toml",
    ]
    put(storage, tmp_path, "demo-1.0.tar.gz")
    storage.yank_file(file, "broken")
    storage.yank_file(file, "broken")
    storage.yank_file(file, None)
    storage.delete_file(file)
    storage.restore_name("demo", "demo-1.0.tar.gz")
    assert messages(repository.root) == [
        "Allow the name demo-1.0.tar.gz again",
        "Delete demo-1.0.tar.gz",
        "Take back the yank of demo-1.0.tar.gz",
        "Yank demo-1.0.tar.gz",
        "Add demo-1.0.tar.gz",
        "Begin",
    ]
    assert git(repository.root, "status", "--porcelain") == ""


@pytest.mark.needs("git")
@pytest.mark.parametrize("inside", ["", 'a site [of "us"] * é'])
def test_git_keeps_every_byte_of_hosted_files(tmp_path: Path, inside: str) -> None:
    top = tmp_path / "repository"
    site = make_site(top / inside)
    make_repository(top)
    (top / ".gitattributes").write_text("*.whl text ident working-tree-encoding=ISO-8859-1\n")
    commit_all(top, "attributes")
    content = b"no zero byte\r\nand\n $Id: 1 $ \xff\n"
    put(open_site(site.root, tmp_path), tmp_path, "demo-1.0-py3-none-any.whl", content)
    path = f"{inside}/packages/demo/demo-1.0-py3-none-any.whl".lstrip("/")
    exact = git(top, "hash-object", "--no-filters", "--", path)
    assert git(top, "rev-parse", f"HEAD:{path}") == exact


@pytest.mark.needs("git")
def test_nothing_is_committed_where_no_branch_is_checked_out(
    repository: SiteFolder, tmp_path: Path
) -> None:
    storage = open_site(repository.root, tmp_path)
    put(storage, tmp_path, "demo-1.0.tar.gz")
    git(repository.root, "checkout", "--quiet", "--detach")
    before = messages(repository.root)
    with pytest.raises(BackendError, match="no branch is checked out"):
        put(storage, tmp_path, "demo-1.1.tar.gz")
    assert messages(repository.root) == before
    assert names(storage) == ["demo-1.0.tar.gz"]
    assert leftovers(repository.root) == []
    git(repository.root, "switch", "--quiet", "-")
    put(storage, tmp_path, "demo-1.1.tar.gz")
    assert names(storage) == ["demo-1.0.tar.gz", "demo-1.1.tar.gz"]


@pytest.mark.needs("git")
def test_github_takes_no_files_over_100_mb(repository: SiteFolder, tmp_path: Path) -> None:
    upload = make_upload(tmp_path, "demo-1.0.tar.gz", zeros=100_000_001)
    with pytest.raises(TooLarge, match=r"100 MB.*attach it to a release"):
        open_site(repository.root, tmp_path).put_file(upload)
    assert messages(repository.root) == ["Begin"]


@pytest.mark.needs("git")
def test_what_cannot_be_committed_has_not_happened(repository: SiteFolder, tmp_path: Path) -> None:
    storage = open_site(repository.root, tmp_path)
    upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
    file = published(upload, storage.put_file(upload))
    hook = repository.root / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho not on a Friday >&2\nexit 1\n")
    hook.chmod(0o755)
    before = list(storage.list_files())
    changes: list[Callable[[], object]] = [
        lambda: put(storage, tmp_path, "demo-2.0.tar.gz"),
        lambda: put(storage, tmp_path, "other-2.0.tar.gz"),
        lambda: storage.yank_file(file, "broken"),
        lambda: storage.delete_file(file),
    ]
    for change in changes:
        with pytest.raises(BackendError, match="not on a Friday"):
            change()
        assert list(storage.list_files()) == before
        assert content_of(storage.open_file(file)) == b"content"
        assert content_of(storage.open_core_metadata(file)) == upload.core_metadata
        assert leftovers(repository.root) == []
        assert git(repository.root, "status", "--porcelain") == ""
    hook.unlink()
    for change in changes:
        change()
    assert names(storage) == ["demo-2.0.tar.gz", "other-2.0.tar.gz"]


@pytest.mark.needs("git")
def test_a_folder_outside_of_any_repository_says_so(site: SiteFolder, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="not a git repository"):
        put(open_site(site.root, tmp_path), tmp_path, "demo-1.0.tar.gz")
    assert leftovers(site.root) == []


# -- pushes ----------------------------------------------------------------------------------------


@pytest.fixture
def clones(repository: SiteFolder, tmp_path: Path) -> tuple[Path, Path, Path]:
    """Two clones of one upstream, and the upstream."""
    bare = tmp_path / "upstream"
    make_upstream(repository.root, bare)
    clone(bare, tmp_path / "other")
    return repository.root, tmp_path / "other", bare


@pytest.mark.needs("git")
def test_two_servers_add_to_one_project(clones: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """The second one makes its change on top of what the first one has pushed."""
    one, other, bare = clones
    storages = [open_site(path, tmp_path, push=True) for path in (one, other)]
    for number in range(4):
        put(storages[number % 2], tmp_path, f"demo-{number}.0.tar.gz")
    assert messages(bare) == [*(f"Add demo-{n}.0.tar.gz" for n in (3, 2, 1, 0)), "Begin"]
    assert names(storages[1]) == [f"demo-{n}.0.tar.gz" for n in range(4)]
    for path in (one, other):
        assert git(path, "status", "--porcelain") == ""


@pytest.mark.needs("git")
def test_the_upstream_decides_whose_file_it_is(
    clones: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    one, other = (open_site(path, tmp_path, push=True) for path in clones[:2])
    put(one, tmp_path, "demo-1.0.tar.gz")
    with pytest.raises(FileAlreadyExists):
        put(other, tmp_path, "demo-1.0.tar.gz", b"other")
    assert put(other, tmp_path, "demo-1.0.tar.gz").sha256 == next(one.list_files()).sha256
    assert messages(clones[2]) == ["Add demo-1.0.tar.gz", "Begin"]
    assert git(clones[1], "status", "--porcelain") == ""


@pytest.mark.needs("git")
def test_what_cannot_be_pushed_has_not_happened(
    clones: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    one, _, bare = clones
    storage = open_site(one, tmp_path, push=True)
    bare.rename(bare.with_name("unplugged"))
    with pytest.raises(BackendError):
        put(storage, tmp_path, "demo-1.0.tar.gz")
    assert names(storage) == []
    assert messages(one) == ["Begin"]
    assert git(one, "status", "--porcelain") == ""
    bare.with_name("unplugged").rename(bare)
    put(storage, tmp_path, "demo-1.0.tar.gz")
    assert messages(bare) == ["Add demo-1.0.tar.gz", "Begin"]


@pytest.mark.needs("git")
def test_a_commit_of_a_killed_writer_gives_way_to_what_others_pushed(
    clones: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    one, other, bare = clones

    def killed() -> None:
        storage = open_site(one, tmp_path, push=True)
        Git.push = lambda self: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment,method-assign,return-value]
        put(storage, tmp_path, "demo-1.0.tar.gz", b"lost")

    assert in_a_child(killed) == -signal.SIGKILL
    assert messages(one) == ["Add demo-1.0.tar.gz", "Begin"]
    put(open_site(other, tmp_path, push=True), tmp_path, "demo-1.0.tar.gz", b"first")
    storage = open_site(one, tmp_path, push=True)
    put(storage, tmp_path, "demo-2.0.tar.gz")
    assert names(storage) == ["demo-1.0.tar.gz", "demo-2.0.tar.gz"]
    assert messages(bare) == ["Add demo-2.0.tar.gz", "Add demo-1.0.tar.gz", "Begin"]
    assert git(one, "status", "--porcelain") == ""


# -- writers that are killed -----------------------------------------------------------------------


def in_a_child(work: Callable[[], object]) -> int:
    """How a child process ended that did this: 0, or the signal that killed it, negative."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_before_step(number: int) -> None:
    """End this process before it does the step of this number; steps change folder or git."""
    count = 0

    def counting(method: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return method(*arguments, **options)

        return step

    for kind, methods in (
        (OpenFolder, ("create", "move_to", "remove", "make", "sync")),
        (Git, ("_run",)),
    ):
        for name in methods:
            setattr(kind, name, counting(getattr(kind, name)))


@pytest.mark.parametrize(
    ("mode", "change"),
    [
        ("files", "put"),
        ("files", "delete"),
        ("files", "yank"),
        # A commit that is pushed has every step of one that is not.
        *(
            pytest.param(mode, change, marks=pytest.mark.needs("git"))
            for mode, change in (
                ("commits", "yank"),
                ("push", "put"),
                ("push", "delete"),
                ("push", "yank"),
            )
        ),
    ],
)
def test_a_writer_is_killed_at_any_step(mode: str, change: str, tmp_path: Path) -> None:
    """What others see is one of the two states, also after the next writer has cleaned up."""
    number, seen = 0, set()
    while True:
        number += 1
        base = tmp_path / str(number)
        site = make_site(base / "site")
        publish: Publish = "files" if mode == "files" else "commits"
        if publish == "commits":
            make_repository(site.root)
        if mode == "push":
            make_upstream(site.root, base / "upstream")

        def again(path: Path = site.root, publish: Publish = publish) -> Any:
            return open_site(path, tmp_path, publish, push=mode == "push")

        kept = make_upload(tmp_path, "demo-1.0.tar.gz", b"kept")
        file = published(kept, again().put_file(kept))
        new = make_upload(tmp_path, "demo-2.0.tar.gz", b"new")

        def work(again: Any = again, new: Upload = new, file: Any = file, at: int = number) -> None:
            storage = again()
            kill_before_step(at)
            match change:
                case "put":
                    storage.put_file(new)
                case "delete":
                    storage.delete_file(file)
                case _:
                    storage.yank_file(file, "broken")

        ended = in_a_child(work)
        assert ended in (0, -signal.SIGKILL)
        states = []
        for sweeps in (False, True):
            storage = again()
            if sweeps:
                storage.sweep()
            stored = {each.filename: each for each in storage.list_files()}
            if "demo-1.0.tar.gz" in stored:
                assert content_of(storage.open_file(file)) == b"kept"
                assert content_of(storage.open_core_metadata(file)) == kept.core_metadata
            if "demo-2.0.tar.gz" in stored:
                opened = storage.open_file(published(new, stored["demo-2.0.tar.gz"]))
                assert content_of(opened) == b"new"
            states.append([(each.filename, each.yanked) for each in stored.values()])
        assert states[0] == states[1], f"step {number}"
        before = [("demo-1.0.tar.gz", None)]
        after = {
            "put": [*before, ("demo-2.0.tar.gz", None)],
            "delete": [],
            "yank": [("demo-1.0.tar.gz", "broken")],
        }[change]
        assert states[1] == after or (ended and states[1] == before)
        seen.add(str(states[1]))
        assert leftovers(site.root) == []
        if publish == "commits":
            assert git(site.root, "status", "--porcelain") == ""
        if mode == "push":
            assert git(site.root, "rev-list", "@{upstream}..HEAD") == ""
        put(again(), tmp_path, "demo-3.0.tar.gz")
        if not ended:
            break
    assert number > 5
    assert len(seen) == 2


@pytest.mark.needs("git")
def test_changes_of_people_stay_as_they_are(repository: SiteFolder, tmp_path: Path) -> None:
    """Also what they have prepared for a pull request: files without a project's file."""
    commit_all(repository.root, "Prepare")
    prepared = repository.root / "packages" / "other" / "other-1.0.tar.gz"
    prepared.parent.mkdir(parents=True)
    prepared.write_bytes(b"prepared")
    (repository.root / "site.toml").write_text('title = "New title"\n')
    storage = open_site(repository.root, tmp_path)
    put(storage, tmp_path, "demo-1.0.tar.gz")
    storage.sweep()
    assert prepared.read_bytes() == b"prepared"
    status = git(repository.root, "status", "--porcelain").splitlines()
    assert status == [" M site.toml", "?? packages/other/"]
