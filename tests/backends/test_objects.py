"""The contract over `ObjectsBackend`, with an object store that is a folder of pickled objects."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from io import BufferedReader
from pathlib import Path
from typing import Any, ClassVar

import pytest

from private_pypi.backend import Folders, Secret, Traits, system_errors
from private_pypi.backend.object_journal import JOURNAL
from private_pypi.backend.object_listing import divide, list_folders
from private_pypi.backend.object_store import (
    NO_OBJECT,
    PARTS,
    RESERVED,
    ObjectChanged,
    ObjectNotFound,
    ObjectStore,
    ObjectUnchanged,
    StoredObject,
)
from private_pypi.backend.objects import ObjectsBackend, ObjectsSettings
from private_pypi.errors import BackendUnavailable, InvalidFilename
from private_pypi.model import Download, StoredFile, Stream
from private_pypi.testing.contract import (
    BackendContract,
    DeletingContract,
    ListPartsContract,
    PartsContract,
    RecentContract,
    RecordsContract,
    RemoteContract,
    SweepContract,
)
from private_pypi.testing.contract.helpers import (
    at_once,
    content_of,
    document,
    make_upload,
    new_folders,
    published,
)

_CHUNK = 1 << 20  # bytes
WHEEL = "demo-1.0-py3-none-any.whl"


class FolderStore(ObjectStore):
    """Each object is a file that begins with a line, the key, and is named by its hash."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    lists_from_anywhere = True

    def get(self, key: str, unless: str = NO_OBJECT) -> tuple[Stream, str]:
        file, found = self._open(key)
        if found.revision == unless:
            file.close()
            raise ObjectUnchanged
        return Stream(iter(lambda: file.read(_CHUNK), b""), found.size), found.revision

    def get_part(self, key: str, start: int, length: int) -> bytes:
        file, _ = self._open(key)
        with file:
            file.seek(start, os.SEEK_CUR)
            return file.read(length)

    def put(self, key: str, content: Path | bytes, *, replaces: str) -> str:
        with system_errors("cannot put"), self._locked():
            current = NO_OBJECT
            with contextlib.suppress(ObjectNotFound):
                file, found = self._open(key)
                file.close()
                current = found.revision
            if current != replaces:
                raise ObjectChanged
            part = self._folder / f".part-{secrets.token_hex(8)}"
            source = io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")
            with source, part.open("wb") as written:
                written.write(f"{key}\n".encode())
                shutil.copyfileobj(source, written, _CHUNK)
                written.flush()
                os.fsync(written.fileno())
            part.replace(self._path(key))
        file, found = self._open(key)
        file.close()
        return found.revision

    def list(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        found = []
        with system_errors("cannot list"):
            for path in self._folder.glob("[!.]*"):
                with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                    found.append(self._read_head(file))
            self._folder.stat()  # a store that vanished is not an empty one
        found.sort(key=lambda each: each.key.encode())
        return (each for each in found if each.key.startswith(prefix) and each.key > after)

    def delete(self, *keys: str) -> None:
        with system_errors("cannot delete"):
            self._folder.stat()
            for key in keys:
                self._path(key).unlink(missing_ok=True)

    def link(self, key: str, filename: str) -> Download | None:
        return None

    def _path(self, key: str) -> Path:
        return self._folder / hashlib.sha256(key.encode()).hexdigest()

    def _open(self, key: str) -> tuple[BufferedReader, StoredObject]:
        """The object, open at the beginning of its content."""
        with system_errors("cannot get"):
            self._folder.stat()
            try:
                file = self._path(key).open("rb")
            except FileNotFoundError:
                raise ObjectNotFound(key) from None
            return file, self._read_head(file)

    @staticmethod
    def _read_head(file: BufferedReader) -> StoredObject:
        head, status = file.readline(), os.fstat(file.fileno())
        return StoredObject(
            key=head.decode().rstrip("\n"),
            size=status.st_size - len(head),
            revision=f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}",
            modified_at=datetime.fromtimestamp(status.st_mtime, UTC),
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


@dataclass(frozen=True, kw_only=True)
class FolderSettings(ObjectsSettings):
    folder: Path


class FolderBackend(ObjectsBackend[FolderSettings]):
    """What an author writes: settings, traits, and how the store is opened."""

    Settings = FolderSettings
    traits: ClassVar[Traits] = Traits(
        largest_file=5 * 2**30, lists_cheaply=True, answers_exactly=True, needs_admin_secret=False
    )

    def open_store(self) -> ObjectStore:
        return FolderStore(self.settings.folder)


def over(place: Path, folders: Folders) -> FolderBackend:
    settings = FolderSettings(
        name="mine",
        max_file_bytes=1 << 30,
        folder=place,
        read_secret=(Secret(BackendContract.read_secret),),
        write_secret=(Secret(BackendContract.write_secret),),
    )
    return FolderBackend(settings, folders)


class TestObjectsBackend(
    BackendContract,
    DeletingContract,
    RecordsContract,
    ListPartsContract,
    RecentContract,
    PartsContract,
    SweepContract,
    RemoteContract,
):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        path = tmp_path / "bucket"
        path.mkdir()
        return path

    def open_backend(self, place: Any, folders: Folders) -> FolderBackend:
        return over(place, folders)

    def break_storage(self, place: Any) -> None:
        place.rename(place.with_name("gone"))


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    path = tmp_path / "bucket"
    path.mkdir()
    return path


@pytest.fixture
def storage(bucket: Path, tmp_path: Path) -> Any:
    return over(bucket, new_folders(tmp_path)).seen_with(Secret(BackendContract.write_secret))


def keys(bucket: Path) -> list[str]:
    """Those of files and of what belongs to them."""
    found = [each.key for each in FolderStore(bucket).list("")]
    return [key for key in found if not key.startswith(RESERVED)]


def journal(bucket: Path) -> list[str]:
    """The filenames in the journal, newest first."""
    return [each.key.rpartition("/")[2] for each in FolderStore(bucket).list(JOURNAL)]


def sweep(storage: Any) -> None:
    list(storage.list_files())
    storage.sweep()


def drop(bucket: Path, key: str, content: bytes) -> None:
    """Store an object by another way than the server."""
    store = FolderStore(bucket)
    store.delete(key)
    store.put(key, content, replaces=NO_OBJECT)


def aged(bucket: Path, age: timedelta) -> None:
    """Let everything that is stored now be so much older."""
    for path in bucket.iterdir():
        modified_at = path.stat().st_mtime - age.total_seconds()
        os.utime(path, (modified_at, modified_at))


def test_a_file_lies_where_people_look_for_it(bucket: Path, storage: Any, tmp_path: Path) -> None:
    upload = make_upload(tmp_path, WHEEL, b"content")
    stored = storage.put_file(upload)
    sha256 = hashlib.sha256(b"content").hexdigest()
    assert stored.location == f"demo/{WHEEL}"
    assert keys(bucket) == [
        f"demo/{WHEEL}",
        f"demo/{WHEEL}.{sha256}.metadata",
        f"demo/{WHEEL}.{sha256}.record",
    ]
    [listed] = storage.list_files()
    assert (listed.sha256, listed.project) == (sha256, "demo")
    storage.delete_file(published(upload, stored))
    assert keys(bucket) == []


def test_what_others_put_there_is_listed_without_a_record(bucket: Path, storage: Any) -> None:
    for key in ("Demo_Folder/demo-2.0.zip", "readme.txt", "a/b/demo-3.0.zip", "demo/notes.txt"):
        drop(bucket, key, b"dropped")
    [listed] = storage.list_files()
    assert (listed.location, listed.sha256) == ("Demo_Folder/demo-2.0.zip", None)
    assert storage.read_record(listed) is None


def test_bytes_that_were_replaced_lose_their_record(
    bucket: Path, storage: Any, tmp_path: Path
) -> None:
    """Also when they are of the same size: the record is much older than they are."""
    storage.put_file(make_upload(tmp_path, WHEEL, b"content"))
    aged(bucket, timedelta(days=2))
    for content in (b"CONTENT", b"other content"):
        drop(bucket, f"demo/{WHEEL}", content)
        [listed] = storage.list_files()
        assert storage.read_record(listed) is None
        assert listed.sha256 is None


def test_what_a_killed_writer_left_is_removed_after_a_day(
    bucket: Path, storage: Any, tmp_path: Path
) -> None:
    upload = make_upload(tmp_path, WHEEL, b"content")
    storage.put_file(upload)
    FolderStore(bucket).delete(f"demo/{WHEEL}")
    aged(bucket, timedelta(hours=23))
    sweep(storage)
    assert len(keys(bucket)) == 2
    assert list(storage.list_files()) == []
    aged(bucket, timedelta(hours=2))
    sweep(storage)
    assert keys(bucket) == []


def test_what_was_left_is_remembered_once_however_often_it_is_listed(
    bucket: Path, storage: Any, tmp_path: Path
) -> None:
    storage.put_file(make_upload(tmp_path, WHEEL, b"content"))
    FolderStore(bucket).delete(f"demo/{WHEEL}")
    aged(bucket, timedelta(hours=25))
    for _ in range(3):  # such as by synchronisations that fail afterwards
        assert list(storage.list_files()) == []
    assert sorted(storage.backend.take_leftovers()) == sorted(keys(bucket))
    assert storage.backend.take_leftovers() is None


def test_a_loser_takes_its_record_with_it(bucket: Path, storage: Any, tmp_path: Path) -> None:
    """Two writers passed the look at the name before either had stored its file."""
    winner = make_upload(tmp_path, WHEEL, b"winner!")
    loser = make_upload(tmp_path, WHEEL, b"loser!!")
    put, todo = storage._store.put, [True]

    def overtaken(key: str, content: Path | bytes, *, replaces: str) -> str:
        if key == f"demo/{WHEEL}" and todo:
            todo.clear()
            storage.put_file(winner)
        revision: str = put(key, content, replaces=replaces)
        return revision

    storage._store.put = overtaken
    with pytest.raises(Exception, match="already exists"):
        storage.put_file(loser)
    [listed] = storage.list_files()
    assert isinstance(listed, StoredFile)
    assert storage.read_record(listed) == winner.record
    assert len(keys(bucket)) == 3
    assert content_of(storage.open_core_metadata(published(winner, listed)))


def test_a_killed_upload_of_other_bytes_hides_no_record_for_long(
    bucket: Path, storage: Any, tmp_path: Path
) -> None:
    """Somebody was killed, built again, and published: two records are beside the file."""
    upload = make_upload(tmp_path, WHEEL, b"content")
    other = make_upload(tmp_path, WHEEL, b"CONTENT")
    storage.put_file(other)
    FolderStore(bucket).delete(f"demo/{WHEEL}")
    assert storage.put_file(upload).record == upload.record
    [listed] = storage.list_files()
    assert listed.sha256 is None  # the core opens the file
    aged(bucket, timedelta(hours=25))
    sweep(storage)
    assert len(keys(bucket)) == 3
    [listed] = storage.list_files()
    assert storage.read_record(listed) == upload.record


def test_a_killed_upload_that_is_repeated_days_later_has_its_record(
    bucket: Path, storage: Any, tmp_path: Path
) -> None:
    upload = make_upload(tmp_path, WHEEL, b"content")
    storage.put_file(upload)
    FolderStore(bucket).delete(f"demo/{WHEEL}")
    aged(bucket, timedelta(days=2))
    storage.put_file(upload)
    [listed] = storage.list_files()
    assert storage.read_record(listed) == upload.record


def test_the_store_is_opened_once(bucket: Path, tmp_path: Path) -> None:
    opened = []

    class Counting(FolderBackend):
        def open_store(self) -> ObjectStore:
            opened.append(1)
            time.sleep(0.02)
            return super().open_store()

    settings = over(bucket, new_folders(tmp_path)).settings
    backend = Counting(settings, new_folders(tmp_path))
    at_once([lambda: backend.seen_with(Secret("")) for _ in range(5)])
    assert opened == [1]


def document_of(moment: datetime, tmp_path: Path) -> Path:
    """An index document that was made from a listing at this time."""
    return document(tmp_path, b"mtime = %d\n" % moment.timestamp())


def test_the_journal_has_the_newest_file_of_a_name_first(
    bucket: Path, storage: Any, tmp_path: Path
) -> None:
    for name in ("demo-1.0.tar.gz", "demo-2.0.tar.gz"):
        storage.put_file(make_upload(tmp_path, name, b"old"))
    storage.put_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"old"))  # notes nothing anew
    assert journal(bucket) == ["demo-2.0.tar.gz", "demo-1.0.tar.gz"]
    FolderStore(bucket).delete("demo/demo-1.0.tar.gz")  # by somebody who knows no journal
    again = storage.put_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"again"))
    recent = list(storage.recent_files(datetime.now(UTC)))
    assert [each.filename for each in recent] == ["demo-1.0.tar.gz", "demo-2.0.tar.gz"]
    assert recent[0] == replace(again, record=None)


def test_a_deleted_file_leaves_the_journal(bucket: Path, storage: Any, tmp_path: Path) -> None:
    uploads = [make_upload(tmp_path, f"{name}-1.0.zip", b"") for name in ("demo", "demo_demo")]
    files = [published(upload, storage.put_file(upload)) for upload in uploads]
    storage.delete_file(files[0])
    assert journal(bucket) == ["demo_demo-1.0.zip"]


def test_a_new_document_makes_the_journal_shorter(
    bucket: Path, storage: Any, tmp_path: Path
) -> None:
    """Entries of the last hour before its listing stay; an edit of the document removes nothing."""
    storage.put_file(make_upload(tmp_path, WHEEL, b"content"))
    now = datetime.now(UTC)
    revision = storage.write_index(document_of(now, tmp_path), "")
    assert len(journal(bucket)) == 1
    revision = storage.write_index(document_of(now - timedelta(hours=1), tmp_path), revision)
    assert len(journal(bucket)) == 1
    storage.write_index(document_of(now + timedelta(hours=2), tmp_path), revision)
    assert journal(bucket) == []


def test_what_is_no_entry_of_the_journal_is_passed_over(bucket: Path, storage: Any) -> None:
    for name in ("x", "1.2/demo/a.zip", "9.x.y.z/demo/a.zip", f"{'9' * 40}.1.a.b/demo/a.zip"):
        drop(bucket, f"{JOURNAL}{name}", b"")
    assert list(storage.recent_files(datetime.now(UTC) - timedelta(days=1))) == []


def test_once_a_day_everything_is_listed(bucket: Path, storage: Any) -> None:
    """So a file without an entry is found: its writer was killed, or is no server of ours."""
    now = datetime.now(UTC)
    drop(bucket, "demo/demo-1.0.zip", b"dropped")
    assert list(storage.recent_files(now)) == []
    aged(storage.backend.folders.cache, timedelta(hours=25))
    [found] = storage.recent_files(now)
    assert found.filename == "demo-1.0.zip"
    assert list(storage.recent_files(now)) == []


def test_parts_of_an_interrupted_upload_are_removed_after_a_day(bucket: Path, storage: Any) -> None:
    drop(bucket, f"{PARTS}old", b"part")
    aged(bucket, timedelta(hours=25))
    drop(bucket, f"{PARTS}new", b"part")
    sweep(storage)
    assert [each.key for each in FolderStore(bucket).list("")] == [f"{PARTS}new"]


class LongStore(FolderStore):
    """Many objects, which are not really there; the listing fails at some of them once."""

    def __init__(self, keys: list[str], failing: set[str]) -> None:
        self._keys = sorted(keys)
        self._failing = failing

    def list(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        for key in self._keys:
            if key > after and key.startswith(prefix):
                if key in self._failing:
                    self._failing.discard(key)
                    raise BackendUnavailable("busy", retry_after=0)
                yield StoredObject(key=key, size=1, revision="1", modified_at=datetime.now(UTC))

    def folders(self) -> Iterable[str]:
        return {key.partition("/")[0] for key in self._keys if "/" in key}


NAMES = [
    f"{first}{number}"
    for first in ("0", "a", "a-", "z", "p", "A", "~", "ä")
    for number in range(225)
]
LONG = [f"{name}/{name}-{version}.zip" for name in NAMES for version in range(5)]


def test_a_long_listing_is_divided_and_goes_on_after_trouble() -> None:
    long = LongStore([*LONG, f"{JOURNAL}x", "index.toml"], {LONG[7], "p7/p7-1.zip", "z9/z9-0.zip"})
    assert len(divide(long)) > 50
    found = {}
    for name, objects in list_folders(long):
        assert name not in found
        found[name] = [each.key for each in objects]
    assert sorted(found) == sorted(NAMES)
    assert sorted(key for each in found.values() for key in each) == sorted(LONG)


def test_a_listing_that_cannot_go_on_is_no_shorter_one() -> None:
    class Failing(LongStore):
        def list(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
            self._failing.add("p7/p7-1.zip")
            return super().list(prefix, after)

    with pytest.raises(BackendUnavailable):
        list(list_folders(Failing(LONG, set())))


def test_no_part_of_a_key_is_longer_than_folders_allow(
    bucket: Path, storage: Any, tmp_path: Path
) -> None:
    """Stores that keep objects in folders refuse more than 255 bytes between two slashes."""
    for length in (180, 202):
        name = f"demo-1.0-py3-none-any{'x' * (length - 25)}.whl"
        upload = make_upload(tmp_path, name, b"content")
        stored = storage.put_file(upload)
        assert len(name) == length
        assert (stored.sha256, stored.record) == (upload.file.sha256, upload.record)
        assert content_of(storage.open_core_metadata(published(upload, stored)))
    assert max(len(part) for key in keys(bucket) for part in key.split("/")) <= 255
    with pytest.raises(InvalidFilename):
        storage.put_file(make_upload(tmp_path, f"demo-1.0-py3-none-any{'x' * 178}.whl", b""))


def test_of_a_long_journal_only_the_beginning_is_read_again(
    bucket: Path, storage: Any, tmp_path: Path
) -> None:
    """Until the index document changes, as it does with each deletion."""
    old = [f"demo-1.{number}.zip" for number in range(5)]
    new = ["demo-2.0.zip", "demo-2.1.zip"]
    since = datetime.now(UTC) - timedelta(hours=1)
    for name, age in [(name, timedelta(minutes=30)) for name in old] + [
        (name, timedelta()) for name in new
    ]:
        file = storage.put_file(make_upload(tmp_path, name, b""))
        storage.backend.journal.forget(storage._store, file.location)
        aged_file = replace(file, modified_at=file.modified_at - age)
        storage.backend.journal.add(storage._store, aged_file)
    read: list[str] = []
    store_list = storage._store.list

    def noting(prefix: str, after: str = "") -> Iterator[StoredObject]:
        for each in store_list(prefix, after):
            read.append(each.key)
            yield each

    storage._store.list = noting

    def names() -> list[str]:
        read.clear()
        return sorted(each.filename for each in storage.recent_files(since))

    storage.read_index(tmp_path / "index.toml")
    assert names() == old + new
    assert len(read) == 7
    assert names() == old + new
    assert len(read) == 3  # both, and the first one that is too old
    assert sorted(e.filename for e in storage.recent_files(since - timedelta(days=1))) == old + new
    assert len(read) == 10  # an earlier time needs all of them
    other = over(bucket, new_folders(tmp_path)).seen_with(storage.secret)
    other.delete_file(make_upload(tmp_path, old[0], b"").file)
    other.write_index(document_of(since, tmp_path), "")
    storage.read_index(tmp_path / "index.toml")
    assert names() == old[1:] + new
