"""The contract over a folder, and what is peculiar to folders."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from private_pypi.backend import NO_INDEX, Access, Folders, Secret
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    FileAlreadyExists,
    FileNotFound,
    InvalidFilename,
    StaleIndex,
    StorageFull,
)
from private_pypi.model import LocalFile, StoredFile, Upload
from private_pypi.records import file_from_record
from private_pypi.testing.contract import (
    BackendContract,
    DeletingContract,
    content_of,
    document,
    make_upload,
    new_folders,
    published,
)
from private_pypi_file_system import FileSystemBackend
from private_pypi_file_system.backend import FileSystemSettings


class TestFileSystemBackend(BackendContract, DeletingContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Path:
        path = tmp_path / "storage"
        path.mkdir()
        return path

    def open_backend(self, storage: Any, secret: str, folders: Folders) -> FileSystemBackend:
        settings = FileSystemSettings(
            name="mine",
            max_file_bytes=1 << 30,
            path=storage,
            read_secret=(Secret(self.read_secret),),
            write_secret=(Secret(self.write_secret),),
        )
        return FileSystemBackend(settings, Secret(secret), folders)

    def leftovers(self, storage: Path) -> list[str]:
        return leftovers(storage)


class TestWithoutHardLinks(TestFileSystemBackend):
    """Some file systems have none; the content is copied then, and the file is renamed."""

    @pytest.fixture(autouse=True)
    def no_links(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Path, "hardlink_to", refusing(errno.EPERM))


class TestDefaultStorage(TestFileSystemBackend):
    """Without `path` the storage is below ROOT; servers that share a ROOT share it."""

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Path:
        (tmp_path / "shared").mkdir()
        return tmp_path / "shared" / "storage"

    def open_backend(self, storage: Any, secret: str, folders: Folders) -> FileSystemBackend:
        settings = FileSystemSettings(
            name="mine",
            max_file_bytes=1 << 30,
            read_secret=(Secret(self.read_secret),),
            write_secret=(Secret(self.write_secret),),
        )
        shared = replace(folders, cache=storage.parent)
        return FileSystemBackend(settings, Secret(secret), shared)


def leftovers(storage: Path) -> list[str]:
    """Stages of writers, and records or metadata without a file."""
    staged = [str(path) for path in (storage / ".private_pypi" / "tmp").iterdir()]
    orphans = [
        str(path)
        for suffix in (".meta", ".metadata")
        for path in storage.rglob(f"*{suffix}")
        if not os.path.lexists(str(path).removesuffix(suffix))
    ]
    return staged + orphans


def refusing(number: int) -> Callable[..., None]:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    path = tmp_path / "storage"
    path.mkdir()
    return path


def over(
    path: Path | None, folders: Folders, secret: str = "", **secrets: tuple[Secret, ...]
) -> FileSystemBackend:
    table = FileSystemSettings(name="mine", max_file_bytes=1 << 30, path=path, **secrets)
    return FileSystemBackend(table, Secret(secret), folders)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return new_folders(tmp_path)


@pytest.fixture
def backend(storage: Path, folders: Folders) -> FileSystemBackend:
    return over(storage, folders)


def listed(backend: FileSystemBackend) -> dict[str, StoredFile]:
    return {file.filename: file for file in backend.list_files()}


# The layout.


def test_the_layout_is_that_of_0_2(
    backend: FileSystemBackend, storage: Path, tmp_path: Path
) -> None:
    upload = make_upload(tmp_path, "Demo.Pkg-1.0.tar.gz", b"content", {"summary": "a demo"})
    stored = backend.put_file(upload)
    backend.write_index(document(tmp_path, b"mtime = 1\n"), NO_INDEX)
    visible = {str(p.relative_to(storage)) for p in storage.glob("[!.]*")} | {
        str(p.relative_to(storage)) for p in storage.glob("[!.]*/*")
    }
    assert visible == {
        "index.toml",
        "demo-pkg",
        "demo-pkg/Demo.Pkg-1.0.tar.gz",
        "demo-pkg/Demo.Pkg-1.0.tar.gz.meta",
        "demo-pkg/Demo.Pkg-1.0.tar.gz.metadata",
    }
    assert stored.location == str(storage / "demo-pkg" / "Demo.Pkg-1.0.tar.gz")
    assert Path(stored.location).read_bytes() == b"content"
    assert (storage / "index.toml").read_bytes() == b"mtime = 1\n"
    assert FileSystemBackend.location_key == "package_path"


def test_a_file_of_0_2_is_served_as_it_is(backend: FileSystemBackend, storage: Path) -> None:
    folder = storage / "demo"
    folder.mkdir()
    (folder / "demo-1.0.tar.gz").write_bytes(b"content")
    (folder / "demo-1.0.tar.gz.meta").write_text(
        'name = "demo"\nversion = "1.0"\n":action" = "file_upload"\n'
        'requires_python = ">=3.6"\nsha256 = "unchecked"\n'
    )
    stored = listed(backend)["demo-1.0.tar.gz"]
    assert stored.record == {
        "name": "demo",
        "version": "1.0",
        ":action": "file_upload",
        "requires_python": ">=3.6",
        "sha256": "unchecked",
    }
    # Nobody checked that hash, so the core opens the file once.
    assert file_from_record(stored) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"no toml at all",
        b'name = "cut',
        b"a = " + b"[" * 100_000,
        b"# describes 7:0 sha256:" + b"0" * 64 + b"\n",
    ],
    ids=["empty", "not utf-8", "not toml", "cut", "deep", "of other bytes"],
)
def test_a_damaged_record_never_hides_a_file(
    content: bytes, backend: FileSystemBackend, storage: Path
) -> None:
    (storage / "demo-1.0.tar.gz").write_bytes(b"content")
    (storage / "demo-1.0.tar.gz.meta").write_bytes(content)
    assert not listed(backend)["demo-1.0.tar.gz"].record


def test_only_strings_of_a_record_are_taken(backend: FileSystemBackend, storage: Path) -> None:
    (storage / "demo-1.0.tar.gz").write_bytes(b"content")
    (storage / "demo-1.0.tar.gz.meta").write_text('a = "b"\nlist = ["c"]\nnumber = 1\n[table]\n')
    assert listed(backend)["demo-1.0.tar.gz"].record == {"a": "b"}


def test_a_record_that_is_a_folder_is_none(backend: FileSystemBackend, storage: Path) -> None:
    (storage / "demo-1.0.tar.gz").write_bytes(b"content")
    (storage / "demo-1.0.tar.gz.meta").mkdir()
    assert listed(backend)["demo-1.0.tar.gz"].record is None


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    record=strategies.dictionaries(
        strategies.text(strategies.characters(exclude_categories=["Cs"])),
        strategies.text(strategies.characters(exclude_categories=["Cs"])),
    )
)
def test_any_text_survives_in_a_record(
    record: dict[str, str], backend: FileSystemBackend, tmp_path: Path
) -> None:
    upload = replace(make_upload(tmp_path, "demo-1.0.tar.gz", b"content"), record=record)
    assert backend.put_file(upload).record == record
    backend.delete_file(upload.file)


# What others put there.


def test_files_of_others_are_listed(backend: FileSystemBackend, storage: Path) -> None:
    for path in ("demo-1.0.tar.gz", "Any Folder/demo-2.0.zip", "x/y/demo-3.0.tar.gz"):
        (storage / path).parent.mkdir(parents=True, exist_ok=True)
        (storage / path).write_bytes(b"content")
    found = listed(backend)
    assert {name: (file.location, file.record) for name, file in found.items()} == {
        "demo-1.0.tar.gz": (str(storage / "demo-1.0.tar.gz"), None),
        "demo-2.0.zip": (str(storage / "Any Folder" / "demo-2.0.zip"), None),
    }


def test_what_is_no_distribution_file_is_not_listed(
    backend: FileSystemBackend, storage: Path
) -> None:
    folder = storage / "demo"
    folder.mkdir()
    for name in (
        "README.md",
        ".hidden-1.0.tar.gz",
        "demo-1.0.tar.gz.meta",
        "demo-1.0.tar.gz.metadata",
        "demo-1.0.tar.gz.asc",
        "demo-1.0.tar.gz.part",
        "demo-1.0\n.tar.gz",
    ):
        (folder / name).write_bytes(b"")
    (folder / "demo-2.0.tar.gz").mkdir()
    (storage / ".cache").mkdir()
    (storage / ".cache" / "demo-3.0.tar.gz").write_bytes(b"")
    os.mkfifo(folder / "demo-4.0.tar.gz")
    (folder / os.fsdecode(b"demo-5.0\xff.tar.gz")).write_bytes(b"")
    assert listed(backend) == {}


def test_a_name_in_two_folders_is_listed_once(backend: FileSystemBackend, storage: Path) -> None:
    for folder in ("Demo", "demo", "."):
        (storage / folder).mkdir(exist_ok=True)
        (storage / folder / "demo-1.0.tar.gz").write_bytes(folder.encode())
    (stored,) = backend.list_files()
    assert stored.location == str(storage / "demo" / "demo-1.0.tar.gz")


def test_symbolic_links_lead_nowhere(
    backend: FileSystemBackend, storage: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "demo-1.0.tar.gz").write_bytes(b"secret")
    (storage / "demo-1.0.tar.gz").symlink_to(outside / "demo-1.0.tar.gz")
    (storage / "demo").symlink_to(outside)
    assert listed(backend) == {}
    upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"secret")
    for location in ("", str(outside / "demo-1.0.tar.gz"), str(storage / "demo-1.0.tar.gz")):
        with pytest.raises(FileNotFound):
            backend.open_file(replace(upload.file, location=location))
    backend.delete_file(upload.file)
    with pytest.raises(BackendError, match="symbolic link"):
        backend.put_file(upload)
    assert [path.name for path in outside.iterdir()] == ["demo-1.0.tar.gz"]


def test_the_storage_folder_itself_may_be_a_link(
    storage: Path, folders: Folders, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(storage)
    backend = over(tmp_path / "link", folders)
    upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
    stored = backend.put_file(upload)
    assert listed(backend) == {"demo-1.0.tar.gz": stored}
    assert content_of(backend.open_file(published(upload, stored))) == b"content"


def test_a_file_that_was_replaced_loses_its_record(
    backend: FileSystemBackend, storage: Path, tmp_path: Path
) -> None:
    upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
    stored = backend.put_file(upload)
    path = Path(stored.location)
    path.unlink()
    path.write_bytes(b"CONTENT")
    now = listed(backend)["demo-1.0.tar.gz"]
    assert (now.record, now.size) == (None, 7)
    assert now.stamp != stored.stamp
    file = published(upload, stored)
    assert content_of(backend.open_file(file)) == b"CONTENT"
    with pytest.raises(FileNotFound):
        backend.open_core_metadata(file)


def test_a_file_that_was_removed_is_gone_and_can_be_put_again(
    backend: FileSystemBackend, storage: Path, tmp_path: Path
) -> None:
    stored = backend.put_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"first"))
    Path(stored.location).unlink()
    assert listed(backend) == {}
    second = make_upload(tmp_path, "demo-1.0.tar.gz", b"second", core_metadata=None)
    assert backend.put_file(second).record == second.record
    with pytest.raises(FileNotFound):
        backend.open_core_metadata(second.file)


@pytest.mark.parametrize("place", ["demo/demo-1.0.tar.gz", "demo-1.0.tar.gz"])
def test_the_bytes_of_a_dropped_file_may_be_uploaded(
    place: str, backend: FileSystemBackend, storage: Path, tmp_path: Path
) -> None:
    path = storage / place
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"content")
    with pytest.raises(FileAlreadyExists):
        backend.put_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"CONTENT"))
    assert listed(backend)["demo-1.0.tar.gz"].record is None
    inode = path.stat().st_ino
    upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content", {"summary": "a demo"})
    stored = backend.put_file(upload)
    assert (stored.location, stored.record) == (str(path), upload.record)
    assert listed(backend) == {"demo-1.0.tar.gz": stored}
    metadata = backend.open_core_metadata(published(upload, stored))
    assert content_of(metadata) == upload.core_metadata
    assert (path.read_bytes(), path.stat().st_ino) == (b"content", inode)


def test_a_name_that_is_taken_in_another_folder_stays_taken(
    backend: FileSystemBackend, storage: Path, tmp_path: Path
) -> None:
    """When the core knows where: nobody looks into all folders for an upload."""
    (storage / "Folder").mkdir()
    (storage / "Folder" / "demo-1.0.tar.gz").write_bytes(b"content")
    place = listed(backend)["demo-1.0.tar.gz"].location
    other = make_upload(tmp_path, "demo-1.0.tar.gz", b"CONTENT")
    with pytest.raises(FileAlreadyExists):
        backend.put_file(replace(other, file=replace(other.file, location=place)))
    same = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
    stored = backend.put_file(replace(same, file=replace(same.file, location=place)))
    assert (stored.location, stored.record) == (place, same.record)


def test_something_that_is_no_file_keeps_its_name(
    backend: FileSystemBackend, storage: Path, tmp_path: Path
) -> None:
    (storage / "demo" / "demo-1.0.tar.gz").mkdir(parents=True)
    with pytest.raises(FileAlreadyExists):
        backend.put_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"content"))
    assert leftovers(storage) == []


def test_a_storage_can_be_moved(
    backend: FileSystemBackend, storage: Path, folders: Folders, tmp_path: Path
) -> None:
    (storage / "Folder").mkdir()
    (storage / "Folder" / "demo-1.0.tar.gz").write_bytes(b"content")
    upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
    file = published(upload, listed(backend)["demo-1.0.tar.gz"])
    moved = storage.rename(tmp_path / "moved")
    opened = over(moved, folders).open_file(file)
    assert opened == LocalFile(moved / "Folder" / "demo-1.0.tar.gz")


# What is stored.


def test_content_on_the_same_disk_is_not_copied(backend: FileSystemBackend, tmp_path: Path) -> None:
    upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
    inode = upload.content.stat().st_ino
    stored = backend.put_file(upload)
    status = Path(stored.location).stat()
    assert (status.st_ino, status.st_nlink) == (inode, 1)
    assert not upload.content.exists()


@pytest.mark.parametrize(("open_to", "expected"), [(0o755, 0o644), (0o700, 0o600), (0o770, 0o640)])
def test_files_are_as_readable_as_the_storage_folder(
    open_to: int, expected: int, backend: FileSystemBackend, storage: Path, tmp_path: Path
) -> None:
    storage.chmod(open_to)
    upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
    upload.content.chmod(0o600)
    path = Path(backend.put_file(upload).location)
    backend.write_index(document(tmp_path, b"mtime = 1\n"), NO_INDEX)
    files = [path, Path(f"{path}.meta"), Path(f"{path}.metadata"), storage / "index.toml"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {expected}
    assert stat.S_IMODE(path.parent.stat().st_mode) == open_to


def test_a_name_that_leaves_no_room_for_its_metadata_is_refused(
    backend: FileSystemBackend, storage: Path, tmp_path: Path
) -> None:
    longest = f"demo-1.0+{'x' * (246 - len('demo-1.0+.tar.gz'))}.tar.gz"
    stored = backend.put_file(make_upload(tmp_path, longest, b"content"))
    assert listed(backend) == {longest: stored}
    with pytest.raises(InvalidFilename, match="longer than 246"):
        backend.put_file(make_upload(tmp_path, longest.replace("+", "+x"), b"content"))


@pytest.mark.parametrize("project", ["..", ".private_pypi", "a/b", ""])
def test_no_project_leads_out_of_its_folder(
    project: str, backend: FileSystemBackend, tmp_path: Path
) -> None:
    upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
    climbing: Any = project
    with pytest.raises(InvalidFilename):
        backend.put_file(replace(upload, file=replace(upload.file, project=climbing)))


# The index.


def test_an_index_that_was_edited_by_hand_is_noticed(
    backend: FileSystemBackend, storage: Path, tmp_path: Path
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


def use(backend: FileSystemBackend, tmp_path: Path) -> None:
    backend.put_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"content"))


def only_look(backend: FileSystemBackend, tmp_path: Path) -> None:
    storage = backend.settings.path
    assert storage is not None
    (storage / "demo-1.0.tar.gz").write_bytes(b"content")
    assert len(listed(backend)) == 1


@pytest.mark.parametrize("before", [use, only_look])
def test_an_unmounted_storage_is_not_an_empty_one(
    before: Callable[[FileSystemBackend, Path], None],
    backend: FileSystemBackend,
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


def test_another_storage_can_be_accepted(
    backend: FileSystemBackend, storage: Path, folders: Folders, tmp_path: Path
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
    backend: FileSystemBackend, folders: Folders, tmp_path: Path
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
    backend: FileSystemBackend, storage: Path, tmp_path: Path
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
    with pytest.raises(BackendError, match="is no folder"):
        listed(over(tmp_path / "file", folders))


# Trouble with the disk.


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of root, for whom no permission is missing."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter: pytest's own are closed to nobody."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o777)
        yield path


def test_a_folder_that_cannot_be_read_is_trouble(open_folder: Path) -> None:
    storage = open_folder / "storage"
    for name in ("demo", "other"):
        (storage / name).mkdir(parents=True)
        (storage / name / f"{name}-1.0.tar.gz").write_bytes(b"content")
    folders = new_folders(open_folder)
    folders.cache.parent.chmod(0o755)
    with as_nobody():
        assert len(listed(over(storage, folders))) == 2
    (storage / "other").chmod(0)
    try:
        with as_nobody(), pytest.raises(BackendError, match="Permission denied"):
            listed(over(storage, folders))
    finally:
        (storage / "other").chmod(0o755)


def test_a_storage_that_cannot_be_written_can_be_read(open_folder: Path, tmp_path: Path) -> None:
    storage = open_folder / "storage"
    storage.mkdir()
    upload = make_upload(open_folder, "demo-1.0.tar.gz", b"content")
    stored = over(storage, new_folders(open_folder)).put_file(upload)
    stage = storage / ".private_pypi" / "tmp" / "00-killed"
    stage.mkdir()
    again = make_upload(open_folder, "demo-2.0.tar.gz", b"content")
    for path in [*storage.rglob("*"), storage]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    folders = new_folders(open_folder)
    for path in open_folder.iterdir():
        if path != storage:
            for below in [path, *path.rglob("*")]:
                below.chmod(0o777)
    try:
        with as_nobody():
            reader = over(storage, folders)
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
@pytest.mark.parametrize("step", ["os.fsync", "shutil.rmtree", "os.link"])
def test_trouble_while_storing_is_told_and_leaves_nothing_visible(
    step: str,
    number: int,
    expected: type[BackendError],
    backend: FileSystemBackend,
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
    if step != "shutil.rmtree":
        assert list(listed(backend)) == ["demo-1.0.tar.gz"]
        assert leftovers(storage) == []
    assert upload.content.exists()
    stored = backend.put_file(upload)
    assert listed(backend)["demo-2.0.tar.gz"] == stored
    assert leftovers(storage) == []


# Killed between any two steps.


def put(backend: FileSystemBackend, upload: Upload) -> None:
    backend.put_file(upload)


def delete(backend: FileSystemBackend, upload: Upload) -> None:
    backend.delete_file(upload.file)


def killed_before_step(step: int, storage: Path, action: Callable[[], None]) -> bool:
    """Run `action` in a child that kills itself before that step; whether there was such a step.

    A step is whatever the interpreter does with a path of the storage.
    """
    child = os.fork()
    if child == 0:
        steps = 0

        def count(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal steps
            if (event == "open" or event.startswith(("os.", "shutil."))) and any(
                str(storage) in str(argument) for argument in arguments
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
        monkeypatch.setattr(Path, "hardlink_to", refusing(errno.EXDEV))
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


def test_a_deletion_may_be_killed_at_any_step(
    backend: FileSystemBackend, storage: Path, tmp_path: Path
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
    backend: FileSystemBackend, storage: Path, tmp_path: Path
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
    backend: FileSystemBackend, storage: Path, tmp_path: Path
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


# Exclusion.


def test_a_stage_of_a_living_writer_is_left_alone(
    backend: FileSystemBackend, storage: Path, tmp_path: Path
) -> None:
    use(backend, tmp_path)
    with backend._locked("7f"), backend._staging("7f") as stage:
        other = over(storage, new_folders(tmp_path))
        assert len(listed(other)) == 1
        other.put_file(make_upload(tmp_path, "demo-2.0.tar.gz", b"content"))
        assert stage.exists()
    assert not stage.exists()


def test_a_stray_file_among_the_stages_disturbs_nobody(
    backend: FileSystemBackend, storage: Path, tmp_path: Path
) -> None:
    use(backend, tmp_path)
    (storage / ".private_pypi" / "tmp" / "stray").write_bytes(b"")
    assert len(listed(backend)) == 1


def test_a_writer_that_hangs_makes_others_wait_and_then_say_so(
    backend: FileSystemBackend, storage: Path, tmp_path: Path
) -> None:
    use(backend, tmp_path)
    with (
        backend._locked("index"),
        pytest.raises(BackendUnavailable, match="another writer"),
        over(storage, new_folders(tmp_path))._locked("index", timeout=0.1),
    ):
        raise AssertionError("two writers at once")


def test_the_number_of_lock_files_is_bounded(
    backend: FileSystemBackend, storage: Path, tmp_path: Path
) -> None:
    for number in range(300):
        backend.put_file(make_upload(tmp_path, f"demo-{number}.tar.gz", b"content"))
    backend.write_index(document(tmp_path, b"mtime = 1\n"), NO_INDEX)
    locks = {path.name for path in (storage / ".private_pypi" / "lock").iterdir()}
    assert locks <= {"index", *(f"{bucket:02x}" for bucket in range(256))}


# Secrets.


def test_secrets_can_be_rotated(folders: Folders, storage: Path) -> None:
    secrets = {
        "read_secret": (Secret("old-read"), Secret("new-read")),
        "write_secret": (Secret("old-write"), Secret("new-write")),
    }
    verdicts = {
        secret: over(storage, folders, secret, **secrets).access()
        for secret in ("old-read", "new-read", "old-write", "new-write", "neither")
    }
    assert verdicts == {
        "old-read": Access.READ,
        "new-read": Access.READ,
        "old-write": Access.WRITE,
        "new-write": Access.WRITE,
        "neither": Access.NONE,
    }


@pytest.mark.parametrize("accepted", [(), (Secret(""),)])
def test_an_unset_or_empty_secret_matches_nobody(
    accepted: tuple[Secret, ...], folders: Folders, storage: Path
) -> None:
    backend = over(storage, folders, "", read_secret=accepted, write_secret=accepted)
    assert backend.access() == Access.NONE


def test_a_secret_that_reads_and_writes_writes(folders: Folders, storage: Path) -> None:
    both = (Secret("both"),)
    backend = over(storage, folders, "both", read_secret=both, write_secret=both)
    assert backend.access() == Access.WRITE
