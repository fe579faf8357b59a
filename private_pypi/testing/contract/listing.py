"""The contracts of the abilities to list, to find and to sweep."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from private_pypi.backend import (
    SupportsDelete,
    SupportsFind,
    SupportsKeepOpen,
    SupportsList,
    SupportsListingMark,
    SupportsListParts,
    SupportsRecent,
    SupportsSweep,
    capability,
)
from private_pypi.errors import FileNotFound
from private_pypi.index.examining import find_named, with_record
from private_pypi.model import StoredFile, StoredName
from private_pypi.testing.contract.base import StorageContract
from private_pypi.testing.contract.helpers import (
    Tested,
    content_of,
    listed_in_parts,
    make_upload,
    published,
)


class ListContract(StorageContract):
    """`SupportsList`: the storage can list all its files."""

    protocol: ClassVar[type | None] = SupportsList

    def listed(self, storage: Tested) -> list[StoredFile]:
        given = []
        for each in storage.list_files():
            found = find_named(storage, each) if isinstance(each, StoredName) else each
            assert isinstance(found, StoredFile), f"left out: {found}"
            given.append(found)
        return given

    def test_an_empty_storage_has_no_files(self, storage: Tested) -> None:
        """A new storage can be listed; nothing needs to be prepared."""
        assert self.listed(storage) == []

    def test_a_project_may_be_called_whatever_the_public_index_allows(
        self, storage: Tested, tmp_path: Path
    ) -> None:
        """No project name conflicts with names that the storage uses itself."""
        projects = "metadata", "record", "meta", "id", "lock", "tmp", "index", "index-toml", "0"
        stored = {}
        for project in projects:
            filename = f"{project.replace('-', '_')}-1.0-py3-none-any.whl"
            content = project.encode()
            upload = make_upload(tmp_path, filename, content, core_metadata=content)
            stored[filename] = self.put(storage, upload)
            file = published(upload, stored[filename])
            assert content_of(storage.open_file(file)) == content
            self.check_core_metadata(storage, upload, stored[filename])
        assert self.listing(storage, *stored) == stored


class ListPartsContract(StorageContract):
    """`SupportsListParts`: the listing can be divided."""

    protocol: ClassVar[type | None] = SupportsListParts

    def test_the_parts_together_have_all_files(self, storage: Tested, tmp_path: Path) -> None:
        """Each file is in one part, also one that is stored after the listing was divided."""
        names = ["demo-1.0.tar.gz", "a-1.0.tar.gz", "zebra-1.0.tar.gz", "a_b-1.0.tar.gz"]
        self.put(storage, make_upload(tmp_path, names[0]))
        parts = storage.list_parts()
        for name in names[1:]:
            self.put(storage, make_upload(tmp_path, name))
        listed = [file for part in parts for file in storage.list_part(part)]
        assert sorted(file.filename for file in listed) == sorted(names)
        assert sorted(file.filename for file in listed_in_parts(storage)) == sorted(names)
        assert {file.filename: file for file in listed} == {
            file.filename: file for file in storage.list_files()
        }


class ListingMarkContract(StorageContract):
    """`SupportsListingMark`: the storage can say that nothing was added or removed."""

    protocol: ClassVar[type | None] = SupportsListingMark

    def mark(self, storage: Tested) -> str:
        """The mark, as soon as it is known."""
        deadline = time.monotonic() + 30
        while True:
            time.sleep(0.02)  # longer than a tick of most clocks
            found: str | None = storage.listing_mark()
            if found is not None:
                return found
            assert time.monotonic() < deadline, "there is no mark after half a minute"

    def test_a_mark_changes_with_each_file_that_comes_or_goes(
        self, storage: Tested, tmp_path: Path
    ) -> None:
        """Listing and reading do not change it."""
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
        stored = self.put(storage, upload)
        marks = [self.mark(storage)]
        assert [file.filename for file in storage.list_files()] == [stored.filename]
        content_of(storage.open_file(published(upload, stored)))
        assert self.mark(storage) == marks[0]
        for filename in ("demo-2.0.tar.gz", "other-1.0.tar.gz"):
            self.put(storage, make_upload(tmp_path, filename))
            marks.append(self.mark(storage))
        deleting = capability(storage, SupportsDelete)
        if deleting is not None:
            deleting.delete_file(published(upload, stored))
            marks.append(self.mark(storage))
        assert len(set(marks)) == len(marks)


class KeepOpenContract(StorageContract):
    """`SupportsKeepOpen`: the storage can be kept open while many files are read."""

    protocol: ClassVar[type | None] = SupportsKeepOpen

    def test_what_is_kept_open_reads_what_is_there_now(
        self, storage: Tested, tmp_path: Path
    ) -> None:
        names = ["demo-1.0.tar.gz", "demo-2.0.tar.gz", "other-1.0.tar.gz", "demo-3.0.tar.gz"]
        uploads = [make_upload(tmp_path, name, name.encode()) for name in names]
        files = [published(each, self.put(storage, each)) for each in uploads[:3]]
        with storage.kept_open() as kept:
            assert [content_of(kept.open_file(each)) for each in files] == [
                name.encode() for name in names[:3]
            ]
            files.append(published(uploads[3], self.put(storage, uploads[3])))
            assert content_of(kept.open_file(files[3])) == names[3].encode()
            deleting = capability(storage, SupportsDelete)
            if deleting is not None:
                deleting.delete_file(files[2])
                with pytest.raises(FileNotFound):
                    kept.open_file(files[2])
            assert content_of(kept.open_file(files[0])) == names[0].encode()


class FindContract(StorageContract):
    """`SupportsFind`: the storage can find a file by its name."""

    protocol: ClassVar[type | None] = SupportsFind

    def test_a_file_is_found_as_it_is_listed(self, storage: Tested, tmp_path: Path) -> None:
        """A found file is equal to the listed one, even if the listing could give its name only."""
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
        self.put(storage, upload)
        [listed] = self.listed(storage)
        assert storage.find_file("demo-1.0.tar.gz") == listed
        assert storage.find_file("demo-2.0.tar.gz") is None


class RecentContract(StorageContract):
    """`SupportsRecent`: the storage can list new files."""

    protocol: ClassVar[type | None] = SupportsRecent

    def test_recent_files_are_those_since(self, storage: Tested, tmp_path: Path) -> None:
        """All files published at or after a time are included, and equal to the listed ones."""
        start = datetime.now(UTC) - timedelta(minutes=5)
        first = self.put(storage, make_upload(tmp_path, "demo-1.0.tar.gz", b"first"))
        second = self.put(storage, make_upload(tmp_path, "demo-2.0.tar.gz", b"second"))
        self.listing(storage, first.filename, second.filename)
        recent = {file.filename: with_record(storage, file) for file in storage.recent_files(start)}
        assert recent == {first.filename: first, second.filename: second}


class SweepContract(StorageContract):
    """`SupportsSweep`: the storage can be cleaned up.

    `ProcessesContract` tests that this removes what killed writers have left.
    """

    protocol: ClassVar[type | None] = SupportsSweep

    def test_an_empty_storage_can_be_swept(self, place: Any, tmp_path: Path) -> None:
        """There is no error with a secret that may only read, or before the first listing."""
        for secret in (self.read_secret, self.write_secret):
            storage = self.open_another(place, tmp_path, secret)
            storage.sweep()
            assert self.listed(storage) == []
            storage.sweep()

    def test_sweeping_disturbs_no_writer(self, place: Any, tmp_path: Path) -> None:
        """All uploads to another server succeed while the storage is swept."""
        writer, other = (self.open_another(place, tmp_path) for _ in range(2))
        names = [f"demo-{number}.tar.gz" for number in range(20)]
        finished = threading.Event()

        def write() -> None:
            try:
                for name in names:
                    writer.put_file(make_upload(tmp_path, name, name.encode()))
            finally:
                finished.set()

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            while not finished.is_set():
                list(other.list_files())
                other.sweep()
            writing.result()
        listed = self.listing(other, *names)
        assert set(listed) == set(names)
        for name, stored in listed.items():
            upload = make_upload(tmp_path, name, name.encode())
            assert content_of(other.open_file(published(upload, stored))) == name.encode()
            self.check_core_metadata(other, upload, stored)
