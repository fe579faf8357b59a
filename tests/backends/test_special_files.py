"""Links and special files in a storage folder, to which other people may write."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType

import pytest

from private_pypi.backend import NO_INDEX, Folders
from private_pypi.errors import (
    BackendError,
    FileAlreadyExists,
    FileNotFound,
    InvalidUpload,
)
from private_pypi.model import Unlisted
from private_pypi.testing.contract.helpers import (
    content_of,
    document,
    make_upload,
    published,
)
from private_pypi_file_system.backend import FileSystemStorage
from tests.backends.folders import (
    leftovers,
    listed,
    over,
    use,
)

# Links and special files: other people may write to the folder.


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """Fail when it takes longer, for what used to wait for ever."""

    def fail(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"it takes longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def make_socket(path: Path) -> None:
    # The path of a socket may have a hundred bytes; that of a test is longer.
    with socket.socket(socket.AF_UNIX) as made, contextlib.chdir(path.parent):
        made.bind(path.name)


def make_device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # zeros without end
    except PermissionError:
        pytest.skip("this user may not make devices")


def make_link(path: Path) -> None:
    secret = path.parent.parent.parent / "secret"
    secret.write_bytes(b"secret")
    path.symlink_to(secret)


def make_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


OTHER_KINDS = {
    "a symbolic link": make_link,
    "a dangling link": make_dangling_link,
    "a FIFO": os.mkfifo,
    "a socket": make_socket,
    "a device": make_device,
    "a folder": Path.mkdir,
}


@pytest.fixture(params=OTHER_KINDS)
def other_kind(request: pytest.FixtureRequest) -> tuple[str, Callable[[Path], None]]:
    kind = request.param.replace("dangling", "symbolic")
    return kind, OTHER_KINDS[request.param]


OtherKind = tuple[str, Callable[[Path], None]]


def test_what_has_the_name_of_a_file_and_is_none_is_listed_and_never_opened(
    other_kind: OtherKind, backend: FileSystemStorage, storage: Path, tmp_path: Path
) -> None:
    """So that somebody is told of it, and its project is known to be ours."""
    kind, make = other_kind
    path = storage / "demo" / "demo-1.0.tar.gz"
    path.parent.mkdir()
    make(path)
    upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"secret")
    with within(20):
        (stored,) = listed(backend).values()
        assert (stored.filename, stored.location, stored.record) == (path.name, str(path), None)
        assert stored.stamp.startswith(f"{kind}:")
        for location in ("", str(path), str(tmp_path / "secret")):
            with pytest.raises(InvalidUpload, match=f"'{path}' is {kind}, not a file; it is"):
                backend.open_file(replace(upload.file, location=location))
            with pytest.raises(InvalidUpload, match=kind):
                backend.open_core_metadata(replace(upload.file, location=location))
        with pytest.raises(FileAlreadyExists):
            backend.put_file(upload)
        backend.delete_file(upload.file)
    assert os.path.lexists(path)
    assert leftovers(storage) == []


def test_a_file_counts_more_than_a_link_of_its_name(
    backend: FileSystemStorage, storage: Path
) -> None:
    (storage / "Wheels").mkdir()
    (storage / "demo").mkdir()
    (storage / "Wheels" / "demo-1.0.tar.gz").write_bytes(b"content")
    (storage / "demo" / "demo-1.0.tar.gz").symlink_to("../Wheels/demo-1.0.tar.gz")
    (stored,) = listed(backend).values()
    assert stored.location == str(storage / "Wheels" / "demo-1.0.tar.gz")


def test_a_linked_folder_is_told_and_not_looked_into(
    backend: FileSystemStorage, storage: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "demo-1.0.tar.gz").write_bytes(b"secret")
    (storage / "demo").symlink_to(outside)
    assert list(backend.list_files()) == [
        Unlisted(
            location=f"{storage}/demo/",
            problem=f"'{storage}/demo' is a symbolic link; it is not followed",
            may_hold_files=False,
        )
    ]
    upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"secret")
    for location in ("", str(outside / "demo-1.0.tar.gz"), str(storage / "demo-1.0.tar.gz")):
        # It is not absent: nobody can tell what became of the folder.
        with pytest.raises(BackendError, match="is a symbolic link, not a folder"):
            backend.open_file(replace(upload.file, location=location))
    backend.delete_file(upload.file)
    with pytest.raises(BackendError, match="is a symbolic link, not a folder"):
        backend.put_file(upload)
    assert [path.name for path in outside.iterdir()] == ["demo-1.0.tar.gz"]
    assert leftovers(storage) == []


def test_records_and_core_metadata_are_files_or_none(
    other_kind: OtherKind, backend: FileSystemStorage, storage: Path, tmp_path: Path
) -> None:
    _, make = other_kind
    upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
    stored = backend.put_file(upload)
    metadata, record = (Path(f"{stored.location}.{suffix}") for suffix in ("metadata", "meta"))
    metadata.unlink()
    make(metadata)
    with within(20):
        with pytest.raises(FileNotFound):
            backend.open_core_metadata(upload.file)
        record.unlink()
        make(record)
        assert listed(backend) == {upload.file.filename: replace(stored, record=None)}
        with pytest.raises(FileNotFound):
            backend.open_core_metadata(upload.file)
        assert content_of(backend.open_file(upload.file)) == b"content"


def test_an_index_that_is_no_file_is_trouble(
    other_kind: OtherKind, backend: FileSystemStorage, storage: Path, tmp_path: Path
) -> None:
    """Not an absence, and nobody waits for it."""
    kind, make = other_kind
    make(storage / "index.toml")
    calls: list[Callable[[], object]] = [
        lambda: backend.read_index(tmp_path / "read"),
        lambda: backend.write_index(document(tmp_path, b"mtime = 1\n"), NO_INDEX),
    ]
    for call in calls:
        with within(20), pytest.raises(BackendError, match=f"index.toml' is {kind}, not a file"):
            call()
    assert not (tmp_path / "read").exists()
    assert leftovers(storage) == []


def test_an_index_that_would_fill_the_disk_is_not_copied(
    backend: FileSystemStorage, storage: Path, tmp_path: Path
) -> None:
    (storage / "index.toml").write_bytes(b"")
    os.truncate(storage / "index.toml", 2**40)
    with pytest.raises(BackendError, match="1099511627776 bytes; at most 1073741824 are read"):
        backend.read_index(tmp_path / "read")
    assert not (tmp_path / "read").exists()


@pytest.mark.parametrize("link", ["", "tmp", "lock"])
def test_no_folder_of_our_own_is_a_link(
    link: str, backend: FileSystemStorage, storage: Path, tmp_path: Path
) -> None:
    """What is below a link is neither swept, nor written to, nor locked."""
    use(backend, tmp_path)
    outside = tmp_path / "outside"
    for path in ("lock/index", "tmp/7f-0123/file", "tmp/index-0123", "7f-0123/demo/file", "id"):
        (outside / path).parent.mkdir(parents=True, exist_ok=True)
        (outside / path).write_bytes(b"precious")
    before = {str(path): path.stat().st_mode for path in outside.rglob("*")}
    own = storage / ".private_pypi" / link
    own.rename(tmp_path / "moved")
    own.symlink_to(outside)
    upload = make_upload(tmp_path, "demo-2.0.tar.gz", b"content")
    calls: list[Callable[[], object]] = [
        lambda: backend.put_file(upload),
        lambda: backend.delete_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"content").file),
        lambda: backend.write_index(document(tmp_path, b"mtime = 1\n"), NO_INDEX),
    ]
    if link != "lock":  # nothing was left to be swept, so nothing was locked
        calls.append(backend.sweep)
    for call in calls:
        with pytest.raises(BackendError, match="is a symbolic link, not a folder"):
            call()
    assert {str(path): path.stat().st_mode for path in outside.rglob("*")} == before
    own.unlink()
    (tmp_path / "moved").rename(own)
    backend.put_file(upload)
    assert sorted(listed(backend)) == ["demo-1.0.tar.gz", "demo-2.0.tar.gz"]


def test_no_lock_is_something_else_than_a_file(
    other_kind: OtherKind, backend: FileSystemStorage, storage: Path, tmp_path: Path
) -> None:
    kind, make = other_kind
    use(backend, tmp_path)
    lock = storage / ".private_pypi" / "lock" / "index"
    lock.unlink()
    if kind == "a symbolic link":
        (tmp_path / "victim").write_bytes(b"precious")
        lock.symlink_to(tmp_path / "victim")
    else:
        make(lock)
    with within(20), pytest.raises(BackendError, match=f"lock/index' is {kind}, not a file"):
        backend.write_index(document(tmp_path, b"mtime = 1\n"), NO_INDEX)
    if kind == "a symbolic link":
        assert (tmp_path / "victim").read_bytes() == b"precious"


def test_a_link_in_a_stage_is_removed_and_not_what_it_leads_to(
    backend: FileSystemStorage, storage: Path, tmp_path: Path
) -> None:
    use(backend, tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "demo-9.0.tar.gz.meta").write_bytes(b"precious")
    stages = storage / ".private_pypi" / "tmp"
    (stages / "7f-link").symlink_to(outside)
    (stages / "7f-folder" / "demo").mkdir(parents=True)
    (stages / "7f-folder" / "link").symlink_to(outside)
    (stages / "7f-folder" / "demo" / "link").symlink_to(outside)
    # Folders that are links in the storage, where a stage says that there is something to clean up.
    (storage / "linked").symlink_to(outside)
    (stages / "7f-folder" / "linked").mkdir()
    (stages / "7f-folder" / "linked" / "demo-9.0.tar.gz").write_bytes(b"")
    backend.sweep()
    assert [path.name for path in stages.iterdir()] == ["7f-link"]
    assert (outside / "demo-9.0.tar.gz.meta").read_bytes() == b"precious"


def test_what_somebody_put_into_the_stages_disturbs_nobody(
    backend: FileSystemStorage, storage: Path, tmp_path: Path
) -> None:
    """No writer of ours makes such: it stays, and the rest goes on."""
    use(backend, tmp_path)
    stages = storage / ".private_pypi" / "tmp"
    for path in ("7f-deep/a/b/c/d/file", "..-name/file", "zz/file"):
        (stages / path).parent.mkdir(parents=True)
        (stages / path).write_bytes(b"")
    assert list(listed(backend)) == ["demo-1.0.tar.gz"]
    backend.put_file(make_upload(tmp_path, "demo-2.0.tar.gz", b"content"))
    assert (stages / "7f-deep/a/b/c/d/file").exists()


def test_a_file_that_is_swapped_while_it_is_opened_gives_nothing_away(
    backend: FileSystemStorage, storage: Path, tmp_path: Path
) -> None:
    """What was opened is what is sent; and whenever a link is there, nothing is opened."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
    path = Path(backend.put_file(upload).location)
    opened = backend.open_file(upload.file)
    spare, link, ended = tmp_path / "spare", tmp_path / "link", threading.Event()
    path.rename(spare)
    path.symlink_to(secret)
    assert content_of(opened) == b"content"

    def swap() -> None:
        while not ended.is_set():
            for source in (spare, secret):
                if source is spare:
                    os.link(source, link)
                else:
                    link.symlink_to(source)
                link.replace(path)

    swapping = threading.Thread(target=swap)
    swapping.start()
    found = set()
    try:
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline or not found:
            with contextlib.suppress(InvalidUpload, BackendError):
                found.add(content_of(backend.open_file(upload.file)))
    finally:
        ended.set()
        swapping.join()
    assert found == {b"content"}


def test_an_id_of_whatever_bytes_is_another_one(
    backend: FileSystemStorage, storage: Path, tmp_path: Path
) -> None:
    use(backend, tmp_path)
    (storage / ".private_pypi" / "id").write_bytes(b"\xff" * 5000)
    with pytest.raises(BackendError, match="not the one that was used before"):
        listed(backend)


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
    backend: FileSystemStorage, storage: Path, tmp_path: Path
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
    backend: FileSystemStorage, storage: Path, tmp_path: Path
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
    place: str, backend: FileSystemStorage, storage: Path, tmp_path: Path
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
    backend: FileSystemStorage, storage: Path, tmp_path: Path
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
    backend: FileSystemStorage, storage: Path, tmp_path: Path
) -> None:
    (storage / "demo" / "demo-1.0.tar.gz").mkdir(parents=True)
    with pytest.raises(FileAlreadyExists):
        backend.put_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"content"))
    assert leftovers(storage) == []


def test_a_storage_can_be_moved(
    backend: FileSystemStorage, storage: Path, folders: Folders, tmp_path: Path
) -> None:
    (storage / "Folder").mkdir()
    (storage / "Folder" / "demo-1.0.tar.gz").write_bytes(b"content")
    upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
    file = published(upload, listed(backend)["demo-1.0.tar.gz"])
    moved = storage.rename(tmp_path / "moved")
    assert content_of(over(moved, folders).open_file(file)) == b"content"
