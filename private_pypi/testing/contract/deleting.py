"""The contracts of `SupportsDelete` and `SupportsRestore`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest

from private_pypi.backend import (
    SupportsCoreMetadata,
    SupportsDelete,
    SupportsList,
    SupportsRestore,
    capability,
)
from private_pypi.errors import FilenameBurnt, FileNotFound, NotAllowed
from private_pypi.index.publishing import delete, publish
from private_pypi.model import FileHandle
from private_pypi.testing.contract.base import StorageContract
from private_pypi.testing.contract.helpers import (
    Tested,
    content_of,
    make_upload,
    new_folders,
    published,
)


class AnyDeletingContract(StorageContract):
    """`SupportsDelete`: the storage can delete files.

    Derive from one of the two classes below, depending on where burnt names are stored.
    """

    protocol: ClassVar[type | None] = SupportsDelete

    def test_a_deleted_file_is_gone(self, storage: Tested, tmp_path: Path) -> None:
        """Its core metadata is deleted as well, and it can be deleted again without an error."""
        uploads = [
            make_upload(tmp_path, name, b"content")
            for name in ("demo-1.0.tar.gz", "demo-1.0.zip", "demo_extra-1.0.tar.gz")
        ]
        files = [published(upload, storage.put_file(upload)) for upload in uploads]
        for _ in range(2):
            storage.delete_file(files[0])
        assert set(self.listing(storage, files[1].filename, files[2].filename)) == {
            files[1].filename,
            files[2].filename,
        }
        with pytest.raises(FileNotFound):
            content_of(storage.open_file(files[0]))
        if capability(storage, SupportsCoreMetadata) is not None:
            with pytest.raises(FileNotFound):
                content_of(storage.open_core_metadata(files[0]))

    def test_a_file_that_never_was_can_be_deleted(self, storage: Tested, tmp_path: Path) -> None:
        """There is no error, because a deletion is repeated if the first answer was lost."""
        storage.delete_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"").file)
        assert self.listed(storage) == []


class DeletingContract(AnyDeletingContract):
    """A storage with an index document, in which the core stores burnt names."""

    def test_a_name_can_be_put_again_after_it_was_deleted(
        self, storage: Tested, tmp_path: Path
    ) -> None:
        """The storage does not burn names, and nothing of the deleted file comes back."""
        first = make_upload(tmp_path, "demo-1.0.tar.gz", b"first", {"keywords": "first"})
        first_stored = storage.put_file(first)
        storage.delete_file(published(first, first_stored))
        second = make_upload(tmp_path, "demo-1.0.tar.gz", b"other", core_metadata=None)
        stored = self.put(storage, second)
        assert stored.record == self.record_of(second)
        assert stored.stamp != first_stored.stamp
        assert self.listing(storage, "demo-1.0.tar.gz") == {"demo-1.0.tar.gz": stored}
        assert content_of(storage.open_file(published(second, stored))) == b"other"
        self.check_core_metadata(storage, second, stored)


class BurningContract(AnyDeletingContract):
    """A storage without an index document, which stores burnt names itself."""

    protocol: ClassVar[type | None] = SupportsRestore

    def test_a_deleted_name_is_burnt_for_every_server(self, place: Any, tmp_path: Path) -> None:
        """The name cannot be used for any content. Names that were not deleted are not burnt."""
        one, other = (self.open_another(place, tmp_path) for _ in range(2))
        name, never = "demo-1.0.tar.gz", "demo-2.0.tar.gz"
        first = make_upload(tmp_path, name, b"first")
        file = published(first, one.put_file(first))
        one.delete_file(file)
        one.delete_file(make_upload(tmp_path, never, b"").file)
        other.delete_file(file)
        for storage in (one, other):
            for content in (b"first", b"other"):
                with pytest.raises(FilenameBurnt):
                    storage.put_file(make_upload(tmp_path, name, content))
        kept = {each: make_upload(tmp_path, each, b"content") for each in ("demo-1.0.zip", never)}
        for upload in kept.values():
            other.put_file(upload)
        assert set(self.listing(one, *kept)) == set(kept)
        with pytest.raises(FilenameBurnt):
            other.put_file(make_upload(tmp_path, name, b"other"))

    def test_a_burnt_name_is_restored_for_every_server(self, place: Any, tmp_path: Path) -> None:
        """It can be restored in any spelling, and twice without an error. Others stay burnt."""
        one, other = (self.open_another(place, tmp_path) for _ in range(2))
        name, kept = "demo-1.0.tar.gz", "demo-1.0.zip"
        assert one.restore_name("demo", "demo-0.1.tar.gz") == []
        for each in (name, kept):
            upload = make_upload(tmp_path, each, b"first")
            one.delete_file(published(upload, one.put_file(upload)))
        assert list(other.restore_name("demo", "Demo-1.0.0.tar.gz")) == [name]
        assert list(one.restore_name("demo", name)) == []
        again = make_upload(tmp_path, name, b"other")
        stored = one.put_file(again)
        assert content_of(other.open_file(published(again, stored))) == b"other"
        with pytest.raises(FilenameBurnt):
            other.put_file(make_upload(tmp_path, kept, b"first"))

    def test_a_deleted_file_does_not_come_back_in_another_spelling(
        self, storage: Tested, tmp_path: Path
    ) -> None:
        """A file with another spelling of the name is refused if it is the same to installers."""
        index = self.index_of(storage)
        store = partial(publish, storage=storage, index=index, backend_type="contract")
        file = store(make_upload(tmp_path, "demo-1.0.tar.gz", b"content"))
        delete([file], storage=storage, index=index, backend_type="contract")
        for spelling in ("demo-1.0.tar.gz", "Demo-1.0.tar.gz", "demo-v1.0.0.tar.gz"):
            with pytest.raises(FilenameBurnt):
                store(make_upload(tmp_path, spelling, b"content"))
        other = store(make_upload(tmp_path, "demo-1.0.zip", b"content"))
        assert set(self.listing(storage, other.filename)) == {other.filename}

    def test_a_delete_that_is_refused_leaves_the_file_and_its_name(
        self, place: Any, storage: Tested, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If the storage refuses to delete a file, the core leaves it in the index, not burnt."""
        index = self.index_of(storage)
        store = partial(publish, storage=storage, index=index, backend_type="contract")
        file = store(make_upload(tmp_path, "demo-1.0.tar.gz", b"content"))

        def refuse(_: FileHandle) -> None:
            raise NotAllowed("this storage never forgets")

        monkeypatch.setattr(storage, "delete_file", refuse)
        with pytest.raises(NotAllowed):
            delete([file], storage=storage, index=index, backend_type="contract")
        assert index.file(file.filename) == file
        other = self.open_backend(place, new_folders(tmp_path)).seen_with(storage.secret)
        again = self.index_of(other)
        if capability(storage, SupportsList) is not None:
            assert [each.filename for each in again.project_files("demo")] == [file.filename]
        assert index.burnt(file.filename) is again.burnt(file.filename) is None
        assert store(make_upload(tmp_path, file.filename, b"content")).sha256 == file.sha256
        assert content_of(storage.open_file(file)) == b"content"
