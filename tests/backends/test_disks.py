"""Disks that are missing, full or broken, and writers that are killed."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from private_pypi.backend import NO_INDEX, Folders
from private_pypi.backend.open_folder import OpenFolder
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    FileNotFound,
    StaleIndex,
    StorageFull,
)
from private_pypi.model import StoredFile, Unlisted, Upload
from private_pypi.testing.contract.helpers import (
    content_of,
    document,
    make_upload,
    new_folders,
    published,
)
from private_pypi_file_system import FileSystemBackend
from private_pypi_file_system.backend import FileSystemStorage
from tests.backends.folders import (
    leftovers,
    listed,
    over,
    refusing,
    use,
)
from tests.permissions import under_permissions

# The index.


def test_an_index_that_was_edited_by_hand_is_noticed(
    backend: FileSystemStorage, storage: Path, tmp_path: Path
) -> None:
    first = backend.write_index(document(tmp_path, b"mtime = 1\n"), NO_INDEX)
    path = storage / "index.toml"
    status = path.stat()
    path.write_bytes(b"mtime = 2\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(StaleIndex):
        backend.write_index(document(tmp_path, b"mtime = 3\n"), first)
    assert backend.read_index(tmp_path / "read", unless=first) != first
    assert (tmp_path / "read").read_bytes() == b"mtime = 2\n"


# A disk that is not there is not an empty one.


def test_a_configured_folder_that_does_not_exist_is_trouble(
    folders: Folders, tmp_path: Path
) -> None:
    missing = tmp_path / "missing"
    backend = over(missing, folders)
    upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
    calls: list[Callable[[], object]] = [
        lambda: list(backend.list_files()),
        lambda: backend.read_index(tmp_path / "read"),
        lambda: backend.write_index(document(tmp_path, b""), NO_INDEX),
        lambda: backend.open_file(upload.file),
        lambda: backend.put_file(upload),
        lambda: backend.delete_file(upload.file),
    ]
    for call in calls:
        with pytest.raises(BackendError, match=f"{str(missing)!r} .*does not exist"):
            call()
    assert not missing.exists()


def only_look(backend: FileSystemStorage, tmp_path: Path) -> None:
    storage = backend.settings.path
    assert storage is not None
    (storage / "demo-1.0.tar.gz").write_bytes(b"content")
    assert len(listed(backend)) == 1


@pytest.mark.parametrize("before", [use, only_look])
def test_an_unmounted_storage_is_not_an_empty_one(
    before: Callable[[FileSystemBackend, Path], None],
    backend: FileSystemStorage,
    storage: Path,
    folders: Folders,
    tmp_path: Path,
) -> None:
    before(backend, tmp_path)
    disk = storage.rename(tmp_path / "disk")
    storage.mkdir()
    after_restart = over(storage, folders)
    upload = make_upload(tmp_path, "demo-2.0.tar.gz", b"content")
    calls: list[Callable[[], object]] = [
        lambda: list(after_restart.list_files()),
        lambda: after_restart.read_index(tmp_path / "read"),
        lambda: after_restart.write_index(document(tmp_path, b""), NO_INDEX),
        lambda: after_restart.open_file(upload.file),
        lambda: after_restart.put_file(upload),
        lambda: after_restart.delete_file(upload.file),
    ]
    for call in calls:
        with pytest.raises(BackendError, match="not the one that was used before"):
            call()
    assert list(storage.iterdir()) == []
    storage.rmdir()
    disk.rename(storage)
    assert list(listed(after_restart)) == ["demo-1.0.tar.gz"]


@pytest.mark.parametrize("path", [None, "storage"])
def test_a_server_whose_own_folder_is_gone_has_no_empty_storage(
    path: str | None, folders: Folders, tmp_path: Path
) -> None:
    """Without it, names of this storage would be called absent, and be taken from elsewhere."""
    backend = over(None if path is None else tmp_path / path, folders)
    if path is not None:
        (tmp_path / path).mkdir()
    use(backend, tmp_path)
    aside = folders.cache.rename(tmp_path / "aside")
    if path is not None:
        (tmp_path / path).rename(tmp_path / "unmounted")
        (tmp_path / path).mkdir()
    upload = make_upload(tmp_path, "demo-2.0.tar.gz", b"content")
    calls: list[Callable[[], object]] = [
        lambda: list(backend.list_files()),
        lambda: backend.open_file(upload.file),
        lambda: backend.put_file(upload),
    ]
    for call in calls:
        with pytest.raises(BackendError, match="is gone; put it back"):
            call()
    assert not folders.cache.exists()
    aside.rename(folders.cache)
    if path is None:
        assert list(listed(backend)) == ["demo-1.0.tar.gz"]


def test_another_storage_can_be_accepted(
    backend: FileSystemStorage, storage: Path, folders: Folders, tmp_path: Path
) -> None:
    use(backend, tmp_path)
    storage.rename(tmp_path / "old")
    storage.mkdir()
    with pytest.raises(BackendError) as raised:
        listed(backend)
    memory = folders.cache / "storage_id"
    assert f"remove {str(memory)!r}" in str(raised.value)
    memory.unlink()
    assert listed(backend) == {}


def test_another_path_is_another_storage(
    backend: FileSystemStorage, folders: Folders, tmp_path: Path
) -> None:
    use(backend, tmp_path)
    (tmp_path / "elsewhere").mkdir()
    assert listed(over(tmp_path / "elsewhere", folders)) == {}


def test_the_default_storage_appears_with_the_first_file_and_stays(
    folders: Folders, tmp_path: Path
) -> None:
    backend = over(None, folders)
    assert listed(backend) == {}
    assert list(folders.cache.iterdir()) == []
    use(backend, tmp_path)
    assert (folders.cache / "storage" / "demo" / "demo-1.0.tar.gz").read_bytes() == b"content"
    (folders.cache / "storage").rename(tmp_path / "elsewhere")
    with pytest.raises(BackendError, match="does not exist"):
        listed(backend)


def test_a_storage_that_is_replaced_while_it_is_listed_is_trouble(
    backend: FileSystemStorage, storage: Path, tmp_path: Path
) -> None:
    for number in range(5):
        (storage / f"folder{number}").mkdir()
        (storage / f"folder{number}" / f"demo-{number}.tar.gz").write_bytes(b"content")
    listing = backend.list_files()
    next(listing)
    storage.rename(tmp_path / "old")
    storage.mkdir()
    with pytest.raises(BackendUnavailable, match="replaced"):
        list(listing)


def test_a_file_where_the_folder_should_be_is_trouble(folders: Folders, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BackendError, match="is not a folder"):
        listed(over(tmp_path / "file", folders))


# Trouble with the disk.


@pytest.mark.parametrize("mode", [0, 0o444, 0o111], ids=["closed", "not entered", "not listed"])
def test_a_folder_that_cannot_be_read_is_told_and_the_others_are_listed(
    mode: int, tmp_path: Path
) -> None:
    storage = tmp_path / "storage"
    for name in ("demo", "other", "team"):
        (storage / name).mkdir(parents=True)
        (storage / name / f"{name}-1.0.tar.gz").write_bytes(b"content")
    backend = over(storage, new_folders(tmp_path))
    files = listed(backend)
    assert sorted(files) == ["demo-1.0.tar.gz", "other-1.0.tar.gz", "team-1.0.tar.gz"]
    (storage / "other").chmod(mode)
    del files["other-1.0.tar.gz"]
    try:
        with under_permissions():
            given = list(backend.list_files())
            folder = next(each for each in given if isinstance(each, Unlisted))
            given.remove(folder)
            assert {s.filename: s for s in given if isinstance(s, StoredFile)} == files
            assert (folder.location, folder.may_hold_files) == (f"{storage}/other/", True)
            assert folder.problem.startswith(
                f"the folder '{storage}/other' cannot be read (Permission denied), so"
            )
            # What else is done there goes on.
            backend.put_file(make_upload(tmp_path, "demo-2.0.tar.gz", b"content"))
            with pytest.raises(BackendError, match="Permission denied"):
                backend.put_file(make_upload(tmp_path, "other-2.0.tar.gz", b"content"))
    finally:
        (storage / "other").chmod(0o755)


def test_too_many_open_files_are_no_trouble_of_a_folder(
    backend: FileSystemStorage, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (storage / "demo").mkdir()
    (storage / "demo" / "demo-1.0.tar.gz").write_bytes(b"content")
    enter = OpenFolder.enter

    def refuse(self: OpenFolder, name: str) -> OpenFolder:
        if name == "demo":
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return enter(self, name)

    monkeypatch.setattr(OpenFolder, "enter", refuse)
    with pytest.raises(BackendUnavailable, match="Too many open files"):
        listed(backend)


def test_a_storage_that_cannot_be_written_can_be_read(tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    storage.mkdir()
    upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
    stored = over(storage, new_folders(tmp_path)).put_file(upload)
    stage = storage / ".private_pypi" / "tmp" / "00-killed"
    stage.mkdir()
    again = make_upload(tmp_path, "demo-2.0.tar.gz", b"content")
    for path in [*storage.rglob("*"), storage]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        with under_permissions():
            reader = over(storage, new_folders(tmp_path))
            assert listed(reader) == {"demo-1.0.tar.gz": stored}
            assert content_of(reader.open_file(published(upload, stored))) == b"content"
            with pytest.raises(BackendError, match="Permission denied"):
                reader.put_file(again)
            assert again.content.exists()
    finally:
        for path in [storage, *storage.rglob("*")]:
            path.chmod(0o755)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EIO, BackendError),
        (errno.EROFS, BackendError),
        (errno.ESTALE, BackendUnavailable),
    ],
    ids=lambda value: errno.errorcode.get(value, "") if isinstance(value, int) else value.__name__,
)
@pytest.mark.parametrize("step", ["os.fsync", "os.rmdir", "os.link"])
def test_trouble_while_storing_is_told_and_leaves_nothing_visible(
    step: str,
    number: int,
    expected: type[BackendError],
    backend: FileSystemStorage,
    storage: Path,
    tmp_path: Path,
) -> None:
    """At whatever step; the space comes back, and the same upload succeeds afterwards."""
    use(backend, tmp_path)
    upload = make_upload(tmp_path, "demo-2.0.tar.gz", b"content")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, refusing(number))
        with pytest.raises(expected) as raised:
            backend.put_file(upload)
        assert type(raised.value) is expected
        assert "'demo-2.0.tar.gz'" in str(raised.value)
    if step != "os.rmdir":
        assert list(listed(backend)) == ["demo-1.0.tar.gz"]
        assert leftovers(storage) == []
    assert upload.content.exists()
    stored = backend.put_file(upload)
    assert listed(backend)["demo-2.0.tar.gz"] == stored
    assert leftovers(storage) == []


# Killed between any two steps.


def put(backend: FileSystemStorage, upload: Upload) -> None:
    backend.put_file(upload)


def delete(backend: FileSystemStorage, upload: Upload) -> None:
    backend.delete_file(upload.file)


def killed_before_step(step: int, storage: Path, action: Callable[[], None]) -> bool:
    """Run `action` in a child that kills itself before that step; whether there was such a step.

    A step is whatever the interpreter does with a path of the storage, or with a name in a folder
    that it has open.
    """
    child = os.fork()
    if child == 0:
        steps = 0

        def count(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal steps
            if (event == "open" or event.startswith("os.")) and any(
                isinstance(argument, (str, Path))
                and (str(storage) in str(argument) or not Path(argument).is_absolute())
                for argument in arguments[: 2 if event in ("os.link", "os.rename") else 1]
            ):
                if steps == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                steps += 1

        sys.addaudithook(count)
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    if os.WIFSIGNALED(ended):
        return True
    assert os.WEXITSTATUS(ended) == 0
    return False


def every_step(storage: Path, action: Callable[[int], None]) -> Iterator[int]:
    """Kill the action before its first step, its second, … as often as it has steps."""
    step = 0
    while killed_before_step(step, storage, partial(action, step)):
        yield step
        step += 1
    assert step > 5


@pytest.mark.parametrize("links", [True, False], ids=["linked", "copied"])
def test_an_upload_may_be_killed_at_any_step(
    links: bool, storage: Path, folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", refusing(errno.EXDEV))
    backend = over(storage, folders)
    backend.put_file(make_upload(tmp_path, "demo-0.tar.gz", b"content"))

    def upload_one(step: int) -> None:
        backend.put_file(make_upload(tmp_path, f"demo-1.{step}.tar.gz", b"content"))

    visible = []
    for step in every_step(storage, upload_one):
        name = f"demo-1.{step}.tar.gz"
        upload = make_upload(tmp_path, name, b"content")
        found = listed(backend).get(name)
        visible.append(found is not None)
        if found is not None:
            assert found.record == upload.record
            assert content_of(backend.open_file(upload.file)) == b"content"
            assert content_of(backend.open_core_metadata(upload.file)) == upload.core_metadata
        assert leftovers(storage) == []
        assert backend.put_file(upload).record == upload.record
    # First it is not there, then it is, and both were seen.
    assert visible == sorted(visible)
    assert len(set(visible)) == 2


@pytest.mark.needs("time")
def test_a_deletion_may_be_killed_at_any_step(
    backend: FileSystemStorage, storage: Path, tmp_path: Path
) -> None:
    names = [f"demo-1.{number}.tar.gz" for number in range(100)]
    for name in names:
        backend.put_file(make_upload(tmp_path, name, b"content"))

    def delete_one(step: int) -> None:
        backend.delete_file(make_upload(tmp_path, names[step], b"content").file)

    visible = []
    for step in every_step(storage, delete_one):
        upload = make_upload(tmp_path, names[step], b"content")
        found = listed(backend).get(names[step])
        visible.append(found is not None)
        if found is not None:
            assert found.record == upload.record
            assert content_of(backend.open_core_metadata(upload.file)) == upload.core_metadata
        assert leftovers(storage) == []
        backend.delete_file(upload.file)
        assert names[step] not in listed(backend)
    assert visible == sorted(visible, reverse=True)
    assert len(set(visible)) == 2


def test_a_dropped_file_survives_whatever_is_killed(
    backend: FileSystemStorage, storage: Path, tmp_path: Path
) -> None:
    use(backend, tmp_path)

    def complete_one(step: int) -> None:
        name = f"demo-1.{step}.tar.gz"
        (storage / name).write_bytes(b"content")
        (storage / f"{name}.meta").write_text('name = "demo"\n')
        (storage / f"{name}.metadata").write_text("Name: something-else\n")
        backend.put_file(make_upload(tmp_path, name, b"content"))

    for step in every_step(storage, complete_one):
        name = f"demo-1.{step}.tar.gz"
        upload = make_upload(tmp_path, name, b"content")
        if not (storage / name).exists():
            continue  # killed before it was dropped
        found = listed(backend)[name]
        assert found.record in (None, {}, {"name": "demo"}, upload.record)
        assert content_of(backend.open_file(upload.file)) == b"content"
        if found.record == upload.record:
            assert content_of(backend.open_core_metadata(upload.file)) == upload.core_metadata
        else:
            with pytest.raises(FileNotFound):
                backend.open_core_metadata(upload.file)
        assert list((storage / ".private_pypi" / "tmp").iterdir()) == []


def test_a_writer_of_the_index_may_be_killed_at_any_step(
    backend: FileSystemStorage, storage: Path, tmp_path: Path
) -> None:
    revision = backend.write_index(document(tmp_path, b"mtime = 0\n"), NO_INDEX)

    def write_one(step: int) -> None:
        backend.write_index(document(tmp_path, f"mtime = {step + 1}\n".encode()), revision)

    for step in every_step(storage, write_one):
        revision = backend.read_index(tmp_path / "read")
        mtimes = (f"mtime = {step}\n", f"mtime = {step + 1}\n")
        assert (tmp_path / "read").read_text() in mtimes
        assert listed(backend) == {}
        assert leftovers(storage) == []
        content = document(tmp_path, f"mtime = {step + 1}\n".encode())
        revision = backend.write_index(content, revision)


@pytest.mark.needs("time")
def test_a_storage_may_be_killed_while_it_is_made(folders: Folders, tmp_path: Path) -> None:
    """The id and the folders of our own: whoever comes next completes them."""
    root = tmp_path / "roots"
    root.mkdir()

    def first_upload(step: int) -> None:
        (root / str(step)).mkdir()
        backend = over(root / str(step), folders)
        backend.put_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"content"))

    for step in every_step(root, first_upload):
        storage = root / str(step)
        storage.mkdir(exist_ok=True)
        backend = over(storage, folders)
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
        stored = backend.put_file(upload)
        assert stored.record == upload.record
        assert listed(backend) == {"demo-1.0.tar.gz": stored}
        assert leftovers(storage) == []
