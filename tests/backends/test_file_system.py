"""The contract over a folder, and what is special about folders."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from private_pypi.backend import NO_INDEX, Access, Folders, Secret
from private_pypi.backend.open_folder import OpenFolder
from private_pypi.distributions.records import file_from_record
from private_pypi.errors import (
    BackendUnavailable,
    FileNotFound,
    InvalidFilename,
    InvalidUpload,
)
from private_pypi.index.examining import handle_of
from private_pypi.model import StoredFile, Unlisted
from private_pypi.testing.contract import (
    BackendContract,
    DeletingContract,
    KeepOpenContract,
    ListingMarkContract,
    RecordsContract,
    SweepContract,
)
from private_pypi.testing.contract.helpers import (
    content_of,
    document,
    make_upload,
    new_folders,
)
from private_pypi_file_system import FileSystemBackend
from private_pypi_file_system.backend import FileSystemSettings, FileSystemStorage
from private_pypi_file_system.staging import locked, new_stage
from tests.backends.folders import (
    leftovers,
    listed,
    over,
    refusing,
    use,
)


class TestFileSystemBackend(
    BackendContract,
    DeletingContract,
    KeepOpenContract,
    ListingMarkContract,
    RecordsContract,
    SweepContract,
):
    @pytest.fixture(autouse=True)
    def fine_clock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("private_pypi_file_system.listing.CLOCK_TICK", 0)

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        path = tmp_path / "storage"
        path.mkdir()
        return path

    def open_backend(self, place: Any, folders: Folders) -> FileSystemBackend:
        settings = FileSystemSettings(
            name="mine",
            max_file_bytes=1 << 30,
            path=place,
            read_secret=(Secret(self.read_secret),),
            write_secret=(Secret(self.write_secret),),
        )
        return FileSystemBackend(settings, folders)

    def break_storage(self, place: Path) -> None:
        place.rename(place.with_name("unmounted"))

    def leftovers(self, place: Path) -> list[str]:
        return leftovers(place)


class TestWithoutHardLinks(TestFileSystemBackend):
    """Some file systems have none; the content is copied then, and the file is renamed."""

    # These start processes, in which there are hard links.
    test_two_processes_share_only_the_storage = None
    test_a_writer_that_is_killed_leaves_a_whole_file_or_none = None

    @pytest.fixture(autouse=True)
    def no_links(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "link", refusing(errno.EPERM))


class TestDefaultStorage(TestFileSystemBackend):
    """Without `path` the storage is below ROOT; servers that share a ROOT share it."""

    # Writing is the same as with a path; this starts processes.
    test_a_writer_that_is_killed_leaves_a_whole_file_or_none = None

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        (tmp_path / "shared").mkdir()
        return tmp_path / "shared" / "storage"

    def open_backend(self, place: Any, folders: Folders) -> FileSystemBackend:
        settings = FileSystemSettings(
            name="mine",
            max_file_bytes=1 << 30,
            read_secret=(Secret(self.read_secret),),
            write_secret=(Secret(self.write_secret),),
        )
        return FileSystemBackend(settings, replace(folders, cache=place.parent))


# The layout.


def test_the_layout_is_that_of_0_2(
    backend: FileSystemStorage, storage: Path, tmp_path: Path
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


def test_a_file_of_0_2_is_served_as_it_is(backend: FileSystemStorage, storage: Path) -> None:
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
        b"a = " + b"9" * 5000,
        b'a = "' + b"x" * (16 * 2**20) + b'"',
        b"# describes 7:0 sha256:" + b"0" * 64 + b"\n",
    ],
    ids=["empty", "not utf-8", "not toml", "cut", "deep", "huge", "long", "of other bytes"],
)
def test_a_damaged_record_never_hides_a_file(
    content: bytes, backend: FileSystemStorage, storage: Path
) -> None:
    (storage / "demo-1.0.tar.gz").write_bytes(b"content")
    (storage / "demo-1.0.tar.gz.meta").write_bytes(content)
    assert not listed(backend)["demo-1.0.tar.gz"].record


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=strategies.one_of(
        strategies.binary(max_size=200),
        strategies.text("a=[]{}\"'\\#\n-+_.:0123456789TZeinf ", max_size=60).map(str.encode),
    )
)
def test_no_record_ends_a_listing(
    content: bytes, backend: FileSystemStorage, storage: Path
) -> None:
    (storage / "demo-1.0.tar.gz").write_bytes(b"content")
    (storage / "demo-1.0.tar.gz.meta").write_bytes(content)
    assert list(listed(backend)) == ["demo-1.0.tar.gz"]


def test_only_strings_of_a_record_are_taken(backend: FileSystemStorage, storage: Path) -> None:
    (storage / "demo-1.0.tar.gz").write_bytes(b"content")
    (storage / "demo-1.0.tar.gz.meta").write_text('a = "b"\nlist = ["c"]\nnumber = 1\n[table]\n')
    assert listed(backend)["demo-1.0.tar.gz"].record == {"a": "b"}


def test_a_record_that_is_a_folder_is_none(backend: FileSystemStorage, storage: Path) -> None:
    (storage / "demo-1.0.tar.gz").write_bytes(b"content")
    (storage / "demo-1.0.tar.gz.meta").mkdir()
    assert listed(backend)["demo-1.0.tar.gz"].record is None


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    record=strategies.dictionaries(
        strategies.text(strategies.characters(exclude_categories=["Cs"])),
        strategies.text(strategies.characters(exclude_categories=["Cs"])),
    )
)
def test_any_text_survives_in_a_record(
    record: dict[str, str], backend: FileSystemStorage, tmp_path: Path
) -> None:
    upload = replace(make_upload(tmp_path, "demo-1.0.tar.gz", b"content"), record=record)
    assert backend.put_file(upload).record == record
    backend.delete_file(upload.file)


# What others put there.


def test_files_of_others_are_listed(backend: FileSystemStorage, storage: Path) -> None:
    for path in ("demo-1.0.tar.gz", "Any Folder/demo-2.0.zip", "x/y/demo-3.0.tar.gz"):
        (storage / path).parent.mkdir(parents=True, exist_ok=True)
        (storage / path).write_bytes(b"content")
    found = {each.filename: each for each in backend.list_files() if isinstance(each, StoredFile)}
    assert {name: (file.location, file.record) for name, file in found.items()} == {
        "demo-1.0.tar.gz": (str(storage / "demo-1.0.tar.gz"), None),
        "demo-2.0.zip": (str(storage / "Any Folder" / "demo-2.0.zip"), None),
    }


def test_what_is_no_distribution_file_is_not_listed(
    backend: FileSystemStorage, storage: Path
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
    for hidden in (".cache", "lost+found"):
        (storage / hidden).mkdir()
        (storage / hidden / "demo-3.0.tar.gz").write_bytes(b"")
    (folder / os.fsdecode(b"demo-5.0\xff.tar.gz")).write_bytes(b"")
    assert listed(backend) == {}


def test_a_name_in_two_folders_is_listed_once(backend: FileSystemStorage, storage: Path) -> None:
    for folder in ("Demo", "demo", "."):
        (storage / folder).mkdir(exist_ok=True)
        (storage / folder / "demo-1.0.tar.gz").write_bytes(folder.encode())
    stored, *reports = backend.list_files()
    assert isinstance(stored, StoredFile)
    assert stored.location == str(storage / "demo" / "demo-1.0.tar.gz")
    assert [isinstance(each, Unlisted) and each.location for each in reports] == [
        str(storage / "Demo" / "demo-1.0.tar.gz"),
        str(storage / "demo-1.0.tar.gz"),
    ]


# What is stored.


def test_content_on_the_same_disk_is_not_copied(backend: FileSystemStorage, tmp_path: Path) -> None:
    upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
    inode = upload.content.stat().st_ino
    stored = backend.put_file(upload)
    status = Path(stored.location).stat()
    assert (status.st_ino, status.st_nlink) == (inode, 1)
    assert not upload.content.exists()


@pytest.mark.parametrize(("open_to", "expected"), [(0o755, 0o644), (0o700, 0o600), (0o770, 0o640)])
def test_files_are_as_readable_as_the_storage_folder(
    open_to: int, expected: int, backend: FileSystemStorage, storage: Path, tmp_path: Path
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
    backend: FileSystemStorage, storage: Path, tmp_path: Path
) -> None:
    longest = f"demo-1.0+{'x' * (246 - len('demo-1.0+.tar.gz'))}.tar.gz"
    stored = backend.put_file(make_upload(tmp_path, longest, b"content"))
    assert listed(backend) == {longest: stored}
    with pytest.raises(InvalidFilename, match="longer than 246"):
        backend.put_file(make_upload(tmp_path, longest.replace("+", "+x"), b"content"))


@pytest.mark.parametrize("project", ["..", ".private_pypi", "a/b", ""])
def test_no_project_leads_out_of_its_folder(
    project: str, backend: FileSystemStorage, tmp_path: Path
) -> None:
    upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
    climbing: Any = project
    with pytest.raises(InvalidFilename):
        backend.put_file(replace(upload, file=replace(upload.file, project=climbing)))


@pytest.mark.parametrize("project", ["metadata", "record", "index-toml", "lost-found"])
def test_no_project_is_in_the_way_of_our_own_files(
    project: str, backend: FileSystemStorage, tmp_path: Path
) -> None:
    upload = make_upload(tmp_path, f"{project.replace('-', '_')}-1.0.tar.gz", b"content")
    stored = backend.put_file(upload)
    assert listed(backend) == {upload.file.filename: stored}


# Exclusion.


def test_a_stage_of_a_living_writer_is_left_alone(
    backend: FileSystemStorage, storage: Path, tmp_path: Path
) -> None:
    use(backend, tmp_path)
    with (
        OpenFolder.at(storage) as folder,
        locked(folder, "7f"),
        new_stage(folder, "7f", "0123") as stage,
    ):
        other = over(storage, new_folders(tmp_path))
        assert len(listed(other)) == 1
        other.put_file(make_upload(tmp_path, "demo-2.0.tar.gz", b"content"))
        assert Path(stage.path).exists()
    assert not Path(stage.path).exists()


def test_a_stray_file_among_the_stages_disturbs_nobody(
    backend: FileSystemStorage, storage: Path, tmp_path: Path
) -> None:
    use(backend, tmp_path)
    (storage / ".private_pypi" / "tmp" / "stray").write_bytes(b"")
    assert len(listed(backend)) == 1


def test_a_writer_that_hangs_makes_others_wait_and_then_say_so(
    backend: FileSystemStorage, storage: Path, tmp_path: Path
) -> None:
    use(backend, tmp_path)
    with (
        OpenFolder.at(storage) as folder,
        locked(folder, "index"),
        pytest.raises(BackendUnavailable, match="another writer"),
        locked(folder, "index", timeout=0.1),
    ):
        raise AssertionError("two writers at once")


def test_the_number_of_lock_files_is_bounded(
    backend: FileSystemStorage, storage: Path, tmp_path: Path
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


def test_a_storage_made_since_the_look_for_it_has_not_vanished(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = TestDefaultStorage()

    backend = kind.open_backend(folders.cache / "storage", folders)
    first, second = (backend.seen_with(Secret(kind.write_secret)) for _ in range(2))
    looks = 0
    look = OpenFolder.at

    def looked(path: Path) -> OpenFolder:
        nonlocal looks
        looks += 1
        if looks == 1:
            with contextlib.suppress(FileNotFoundError):
                return look(path)
            second.put_file(make_upload(folders.tmp, "b-1.0.tar.gz"))
            raise FileNotFoundError(path)
        return look(path)

    monkeypatch.setattr(OpenFolder, "at", staticmethod(looked))
    first.put_file(make_upload(folders.tmp, "a-1.0.tar.gz"))
    stored = [file for file in first.list_files() if isinstance(file, StoredFile)]
    assert {file.filename for file in stored} == {"a-1.0.tar.gz", "b-1.0.tar.gz"}


def test_a_folder_that_is_replaced_while_it_is_kept_open_has_its_new_files(
    storage: Path, backend: Any
) -> None:
    (storage / "demo").mkdir(parents=True)
    for name in ("demo-1.0.tar.gz", "demo-2.0.tar.gz", "demo-3.0.tar.gz"):
        (storage / "demo" / name).write_bytes(b"old")
    one, two, three = sorted(backend.list_files(), key=lambda each: each.filename)
    with backend.kept_open() as kept:
        assert content_of(kept.open_file(handle_of(one))) == b"old"
        (storage / "demo").rename(storage / ".away")
        (storage / "demo").mkdir()
        (storage / ".away" / two.filename).unlink()
        (storage / "demo" / two.filename).write_bytes(b"new")
        assert content_of(kept.open_file(handle_of(two))) == b"new"
        (storage / ".away" / three.filename).unlink()
        (storage / "demo" / three.filename).symlink_to("/etc/passwd")
        with pytest.raises(InvalidUpload, match="is a symbolic link"):
            kept.open_file(handle_of(three))
        (storage / "demo" / three.filename).unlink()
        with pytest.raises(FileNotFound):
            kept.open_file(handle_of(three))


def test_a_mark_changes_with_each_file_that_comes_or_goes(
    storage: Path, backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("private_pypi_file_system.listing.CLOCK_TICK", 0)
    (storage / "demo").mkdir(parents=True)
    (storage / "demo" / "demo-1.0.tar.gz").write_bytes(b"one")

    def changed(change: Callable[[], object]) -> bool:
        before = backend.listing_mark()
        time.sleep(0.02)  # a tick of the clock
        change()
        time.sleep(0.02)
        after = backend.listing_mark()
        assert None not in (before, after)
        return bool(before != after)

    file = storage / "demo" / "demo-2.0.tar.gz"
    list(backend.list_files())  # the first one gives the storage an id
    assert not changed(lambda: None)
    assert not changed(lambda: list(backend.list_files()))
    assert changed(lambda: file.write_bytes(b"two"))
    assert changed(lambda: file.rename(storage / "demo" / "demo-3.0.tar.gz"))
    assert changed(lambda: (storage / "demo" / "demo-3.0.tar.gz").unlink())
    assert changed(lambda: (storage / "new").mkdir())
    assert changed(lambda: (storage / "new" / "new-1.0.tar.gz").write_bytes(b"new"))
    assert changed(lambda: (storage / "demo").chmod(0o700))
    assert changed(lambda: (storage / "demo-4.0.zip").write_bytes(b"four"))
    assert changed(lambda: shutil.rmtree(storage / "new"))


def test_a_folder_that_has_just_changed_gives_no_mark(storage: Path, backend: Any) -> None:
    """A second change within the same tick of the clock would not change its time."""
    storage.mkdir(exist_ok=True, parents=True)
    (storage / "demo-1.0.tar.gz").write_bytes(b"one")
    assert backend.listing_mark() is None
    long_ago = time.time() - 60
    os.utime(storage, (long_ago, long_ago))
    assert backend.listing_mark() is None  # `ctime` cannot be set back
