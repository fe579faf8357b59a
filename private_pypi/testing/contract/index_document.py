"""The contracts of `SupportsReplaceIndex` and `SupportsOverwriteIndex`."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest

from private_pypi.backend import (
    NO_INDEX,
    SupportsIndex,
    SupportsOverwriteIndex,
    SupportsReplaceIndex,
)
from private_pypi.errors import StaleIndex
from private_pypi.index.document import IndexEdit
from private_pypi.index.document_reader import read_document
from private_pypi.index.stored_document import edit_index, has_index, replace_index
from private_pypi.testing.contract.base import StorageContract
from private_pypi.testing.contract.helpers import (
    MIB,
    Tested,
    at_once,
    document,
    make_upload,
    outcome,
    published,
)


class IndexContract(StorageContract):
    """`SupportsIndex`: the storage can store the index document.

    Derive from one of the two classes below, depending on how the document is written.
    """

    protocol: ClassVar[type | None] = SupportsIndex

    def write(self, storage: Tested, content: Path, replaces: str) -> str:
        """Replace the document as the core does; return the new revision."""
        return replace_index(storage, content, replaces)

    def test_a_document_that_can_be_read_can_be_written(self, storage: Tested) -> None:
        """The document can be written; this is necessary to yank and delete files."""
        assert has_index(storage)

    def test_an_empty_storage_has_no_index(self, storage: Tested, tmp_path: Path) -> None:
        """In a new storage, the revision is `NO_INDEX`, and nothing needs to be prepared."""
        assert storage.read_index(tmp_path / "index.toml") == NO_INDEX
        assert not (tmp_path / "index.toml").exists()

    def test_an_index_comes_back_with_its_revision(self, storage: Tested, tmp_path: Path) -> None:
        """`read_index` returns the same revision as `write_index`."""
        revision = self.write(storage, document(tmp_path, b"mtime = 1\n"), NO_INDEX)
        assert revision != NO_INDEX
        assert storage.read_index(tmp_path / "read") == revision
        assert (tmp_path / "read").read_bytes() == b"mtime = 1\n"

    def test_an_unchanged_index_is_not_sent_again(self, storage: Tested, tmp_path: Path) -> None:
        """If the reader has the current revision (`unless`), nothing is written to its file."""
        first = self.write(storage, document(tmp_path, b"mtime = 1\n"), NO_INDEX)
        into = tmp_path / "read"
        assert storage.read_index(into, unless=first) == first
        assert not into.exists()
        second = self.write(storage, document(tmp_path, b"mtime = 2\n"), first)
        assert storage.read_index(into, unless=first) == second
        assert into.read_bytes() == b"mtime = 2\n"

    def test_a_shorter_index_replaces_all_of_a_longer_one(
        self, storage: Tested, tmp_path: Path
    ) -> None:
        """No rest of the longer one is left, neither in the storage nor in the reader's file."""
        into = tmp_path / "read"
        into.write_bytes(b"x" * 1000)
        first = self.write(storage, document(tmp_path, b"mtime = 1111111111\n"), NO_INDEX)
        self.write(storage, document(tmp_path, b"mtime = 2\n"), first)
        storage.read_index(into)
        assert into.read_bytes() == b"mtime = 2\n"

    def test_a_writer_that_knows_an_older_document_loses(self, place: Any, tmp_path: Path) -> None:
        """It raises `StaleIndex` if the document has changed, unless both write simultaneously."""
        mine, theirs = (self.open_another(place, tmp_path) for _ in range(2))
        first = self.write(mine, document(tmp_path, b"mtime = 1\n"), NO_INDEX)
        second = self.write(theirs, document(tmp_path, b"mtime = 2\n"), first)
        for stale in (first, NO_INDEX, "no revision at all"):
            with pytest.raises(StaleIndex):
                self.write(mine, document(tmp_path, b"mtime = 3\n"), stale)
        assert mine.read_index(tmp_path / "read") == second
        assert (tmp_path / "read").read_bytes() == b"mtime = 2\n"

    def test_no_edit_of_one_server_is_lost(self, place: Any, tmp_path: Path) -> None:
        """If a server yanks several files at the same time, all are yanked in the document."""
        storage = self.open_another(place, tmp_path)
        uploads = [make_upload(tmp_path, f"demo-{n}.0.tar.gz", b"content") for n in range(8)]
        files = [published(upload, self.put(storage, upload)) for upload in uploads]
        same_server = self.open_backend(place, storage.backend.folders).seen_with(storage.secret)
        at_once(
            [
                partial(
                    edit_index,
                    (storage, same_server)[number % 2],
                    IndexEdit(yank={file.filename: "broken"}, files=[file]),
                    backend_type="contract",
                )
                for number, file in enumerate(files)
            ]
        )
        storage.read_index(tmp_path / "read")
        location_key = storage.backend.location_key
        edited, problems = read_document(tmp_path / "read", location_key=location_key)
        assert not problems
        assert {entry.file.filename: entry.file.yanked for entry in edited.entries} == {
            file.filename: "broken" for file in files
        }

    def test_the_index_is_no_distribution_file(self, storage: Tested, tmp_path: Path) -> None:
        """A listing does not include the index document."""
        self.write(storage, document(tmp_path, b"mtime = 1\n"), NO_INDEX)
        assert list(storage.list_files()) == []
        storage.put_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"content"))
        assert list(self.listing(storage, "demo-1.0.tar.gz")) == ["demo-1.0.tar.gz"]


class ReplaceIndexContract(IndexContract):
    """`SupportsReplaceIndex`: the storage can replace a certain revision of the document."""

    protocol: ClassVar[type | None] = SupportsReplaceIndex

    def test_a_stale_writer_loses(self, place: Any, tmp_path: Path) -> None:
        """A write with an old revision raises `StaleIndex`. All revisions are different."""
        mine, theirs = (self.open_another(place, tmp_path) for _ in range(2))
        first = mine.write_index(document(tmp_path, b"mtime = 1\n"), NO_INDEX)
        second = theirs.write_index(document(tmp_path, b"mtime = 2\n"), first)
        for stale in (first, NO_INDEX, "no revision at all"):
            with pytest.raises(StaleIndex):
                mine.write_index(document(tmp_path, b"mtime = 3\n"), stale)
        assert mine.read_index(tmp_path / "read") == second
        assert (tmp_path / "read").read_bytes() == b"mtime = 2\n"
        third = mine.write_index(document(tmp_path, b"mtime = 3\n"), second)
        assert len({NO_INDEX, first, second, third}) == 4

    def test_an_index_that_is_not_there_cannot_be_replaced(
        self, storage: Tested, tmp_path: Path
    ) -> None:
        """It raises `StaleIndex` if there is no document, but a revision is expected."""
        with pytest.raises(StaleIndex):
            storage.write_index(document(tmp_path, b"mtime = 1\n"), "a revision")
        assert storage.read_index(tmp_path / "read") == NO_INDEX

    def test_of_many_first_writers_one_wins(self, place: Any, tmp_path: Path) -> None:
        """If several servers write the first document, one succeeds, and its document is there."""
        contents = [f"mtime = {number}\n".encode() * 1000 for number in range(8)]
        storages = [self.open_another(place, tmp_path) for _ in range(2)]
        outcomes = at_once(
            [
                partial(outcome, storages[n % 2].write_index, document(tmp_path, content), NO_INDEX)
                for n, content in enumerate(contents)
            ]
        )
        winners = [n for n, result in enumerate(outcomes) if isinstance(result, str)]
        assert len(winners) == 1
        assert {type(result) for result in outcomes} == {str, StaleIndex}
        assert storages[0].read_index(tmp_path / "read") == outcomes[winners[0]]
        assert (tmp_path / "read").read_bytes() == contents[winners[0]]

    def test_a_big_index_is_never_read_in_halves(self, place: Any, tmp_path: Path) -> None:
        """While the document is replaced, readers get the old or the new one, completely."""
        contents = [bytes([letter]) * (4 * MIB) for letter in b"abcd"]
        writer, reader = (self.open_another(place, tmp_path) for _ in range(2))
        revisions = {writer.write_index(document(tmp_path, contents[0]), NO_INDEX): contents[0]}
        finished = threading.Event()

        def write() -> None:
            try:
                revision = next(iter(revisions))
                for content in contents[1:]:
                    revision = writer.write_index(document(tmp_path, content), revision)
                    revisions[revision] = content
            finally:
                finished.set()

        seen: list[tuple[str, bytes]] = []
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            while not finished.is_set():
                revision = reader.read_index(tmp_path / "read")
                seen.append((revision, (tmp_path / "read").read_bytes()))
            writing.result()
        assert all(revisions[revision] == content for revision, content in seen)
        assert reader.read_index(tmp_path / "read") in revisions
        assert (tmp_path / "read").read_bytes() == contents[-1]


class OverwriteIndexContract(IndexContract):
    """`SupportsOverwriteIndex`: the storage can only overwrite the document."""

    protocol: ClassVar[type | None] = SupportsOverwriteIndex

    def test_of_many_first_writers_of_one_server_one_wins(self, place: Any, tmp_path: Path) -> None:
        """The core uses a lock, so that one of several writers on the same server succeeds."""
        storage = self.open_another(place, tmp_path)
        contents = [f"mtime = {number}\n".encode() * 1000 for number in range(8)]
        outcomes = at_once(
            [
                partial(outcome, self.write, storage, document(tmp_path, content), NO_INDEX)
                for content in contents
            ]
        )
        winners = [n for n, result in enumerate(outcomes) if isinstance(result, str)]
        assert len(winners) == 1
        assert {type(result) for result in outcomes} == {str, StaleIndex}
        assert storage.read_index(tmp_path / "read") == outcomes[winners[0]]
        assert (tmp_path / "read").read_bytes() == contents[winners[0]]

    def test_a_writer_notices_that_another_server_was_later(
        self, place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After writing, the core raises `StaleIndex` if its document is not there any more."""
        mine, theirs = (self.open_another(place, tmp_path) for _ in range(2))
        overwrite = mine.overwrite_index

        def overtaken(content: Path) -> str:
            revision: str = overwrite(content)
            theirs.overwrite_index(document(tmp_path, b"mtime = 2\n"))
            return revision

        monkeypatch.setattr(mine, "overwrite_index", overtaken)
        with pytest.raises(StaleIndex):
            self.write(mine, document(tmp_path, b"mtime = 1\n"), NO_INDEX)
