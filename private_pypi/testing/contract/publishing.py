"""The contract of `SupportsPublish`."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import tracemalloc
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest

from private_pypi.backend import (
    SupportsCoreMetadata,
    SupportsPublish,
    capability,
)
from private_pypi.errors import (
    FileAlreadyExists,
    FileNotFound,
    InvalidUpload,
    PrivatePypiError,
)
from private_pypi.index.examining import with_record
from private_pypi.index.publishing import publish
from private_pypi.index.readers import examine_all, take_file
from private_pypi.model import DistributionFile, StoredFile, Stream
from private_pypi.testing.contract.base import StorageContract
from private_pypi.testing.contract.helpers import (
    MIB,
    Tested,
    at_once,
    chunks_of,
    content_of,
    folder,
    garbage_files,
    make_upload,
    outcome,
    published,
)
from private_pypi.testing.distributions import make_wheel


class PublishContract(StorageContract):
    """`SupportsPublish`: files can be published, and are then listed and opened."""

    protocol: ClassVar[type | None] = SupportsPublish

    constant_memory: ClassVar[bool] = True
    """Override with False for a storage in memory."""

    # -- files -----------------------------------------------------------------------------------

    def test_what_was_put_is_listed_and_opened(self, storage: Tested, tmp_path: Path) -> None:
        """A listing gives the same as `put_file` returned, and the content is right."""
        upload = make_upload(tmp_path, "demo-1.0-py3-none-any.whl", b"content")
        stored = self.put(storage, upload)
        listed = self.listing(storage, "demo-1.0-py3-none-any.whl")
        assert listed == {"demo-1.0-py3-none-any.whl": stored}
        assert (stored.filename, stored.size) == ("demo-1.0-py3-none-any.whl", 7)
        assert content_of(storage.open_file(published(upload, stored))) == b"content"

    def test_what_one_server_put_another_one_sees(self, place: Any, tmp_path: Path) -> None:
        """Everything is in the storage, and nothing only in the backend object or its folders."""
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
        stored = self.put(self.open_another(place, tmp_path), upload)
        other = self.open_another(place, tmp_path)
        assert self.listing(other, "demo-1.0.tar.gz") == {"demo-1.0.tar.gz": stored}
        file = published(upload, stored)
        assert content_of(other.open_file(file)) == b"content"
        self.check_core_metadata(other, upload, stored)

    def test_an_empty_file_is_a_file(self, storage: Tested, tmp_path: Path) -> None:
        """The storage accepts any content, because the core has checked the file before."""
        upload = make_upload(tmp_path, "demo-1.0.zip", b"")
        stored = self.put(storage, upload)
        assert stored.size == 0
        assert content_of(storage.open_file(published(upload, stored))) == b""

    def test_the_same_bytes_again_return_the_first_file(
        self, storage: Tested, tmp_path: Path
    ) -> None:
        """An upload can be repeated if the first answer was lost. The first record is kept."""
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content", {"keywords": "first"})
        first = self.put(storage, upload)
        again = make_upload(tmp_path, "demo-1.0.tar.gz", b"content", {"keywords": "second"})
        assert self.put(storage, again) == first
        assert self.listing(storage, "demo-1.0.tar.gz") == {"demo-1.0.tar.gz": first}

    @pytest.mark.parametrize("other", [b"CONTENT", b"longer content", b""])
    def test_other_bytes_under_a_name_are_refused(
        self, storage: Tested, tmp_path: Path, other: bytes
    ) -> None:
        """Other content is refused, even of the same size, and the first file is not changed."""
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
        stored = self.put(storage, upload)
        with pytest.raises(FileAlreadyExists):
            storage.put_file(make_upload(tmp_path, "demo-1.0.tar.gz", other))
        assert self.listing(storage, "demo-1.0.tar.gz") == {"demo-1.0.tar.gz": stored}
        assert content_of(storage.open_file(published(upload, stored))) == b"content"

    def test_one_stem_may_have_two_suffixes(self, storage: Tested, tmp_path: Path) -> None:
        """There can be a `demo-1.0.zip` and a `demo-1.0.tar.gz` (private-pypi 0.2 crashed)."""
        stored = {
            name: self.put(storage, make_upload(tmp_path, name, name.encode()))
            for name in ("demo-1.0.zip", "demo-1.0.tar.gz")
        }
        assert self.listing(storage, *stored) == stored

    def test_a_name_may_begin_with_another(self, storage: Tested, tmp_path: Path) -> None:
        """Files of `demo` and `demo-extra` are not confused with each other."""
        uploads = {
            name: make_upload(tmp_path, name, name.encode())
            for name in (
                "demo-1.0.tar.gz",
                "demo_extra-1.0.tar.gz",
                "demo-1.0.post1.tar.gz",
                "demo-1.0+local.1.tar.gz",
            )
        }
        stored = {name: self.put(storage, upload) for name, upload in uploads.items()}
        assert self.listing(storage, *stored) == stored
        for name, upload in uploads.items():
            content = content_of(storage.open_file(published(upload, stored[name])))
            assert content == name.encode()

    def test_a_name_as_long_as_real_ones_is_kept(self, storage: Tested, tmp_path: Path) -> None:
        """A filename may have 200 characters, like the longest ones on the public index."""
        tags = ".".join(f"manylinux_2_{minor}_x86_64" for minor in range(17, 25))
        name = f"demo-1.0-cp311-cp311-{tags}.whl"
        assert len(name) == 200
        stored = self.put(storage, make_upload(tmp_path, name, b"content"))
        assert self.listing(storage, name) == {name: stored}

    def test_a_missing_file_is_a_known_absence(self, storage: Tested, tmp_path: Path) -> None:
        """It raises `FileNotFound`, whether the project exists or not."""
        missing = make_upload(tmp_path, "demo-2.0.tar.gz", b"").file
        other_project = make_upload(tmp_path, "other-1.0.tar.gz", b"").file
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
        stored = self.put(storage, upload)
        with_its_place = replace(missing, location=stored.location.replace("1.0", "2.0"))
        for file in (missing, other_project, with_its_place):
            with pytest.raises(FileNotFound):
                content_of(storage.open_file(file))
            if capability(storage, SupportsCoreMetadata) is not None:
                with pytest.raises(FileNotFound):
                    content_of(storage.open_core_metadata(file))

    def test_a_location_from_elsewhere_opens_nothing_else(
        self, storage: Tested, tmp_path: Path
    ) -> None:
        """A location from an edited index document never leads to another file."""
        secret = tmp_path / "secret.txt"
        secret.write_text("secret")
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
        stored = self.put(storage, upload)
        climbing = f"{stored.location}/../../../../../../{secret}"
        for location in (str(secret), secret.as_uri(), climbing, "", "/", "..", "\x00"):
            file = replace(published(upload, stored), location=location)
            with contextlib.suppress(PrivatePypiError):
                assert content_of(storage.open_file(file)) == b"content"

    def test_a_refused_upload_changes_nothing(self, storage: Tested, tmp_path: Path) -> None:
        """The record and the core metadata of the first file are not changed."""
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
        stored = self.put(storage, upload)
        with pytest.raises(FileAlreadyExists):
            storage.put_file(
                make_upload(tmp_path, "demo-1.0.tar.gz", b"other", {"a": "b"}, core_metadata=b"X")
            )
        assert self.listing(storage, "demo-1.0.tar.gz") == {"demo-1.0.tar.gz": stored}
        self.check_core_metadata(storage, upload, stored)

    # -- large and damaged files -----------------------------------------------------------------

    def test_a_big_file_takes_constant_memory(self, storage: Tested, tmp_path: Path) -> None:
        """A file is never read into memory as a whole, and chunks have at most a few MiB."""
        size = 64 * MIB
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", zeros=size)
        tracemalloc.start()
        try:
            stored = self.put(storage, upload)
            digest, received, largest = hashlib.sha256(), 0, 0
            for chunk in chunks_of(storage.open_file(published(upload, stored))):
                digest.update(chunk)
                received += len(chunk)
                largest = max(largest, len(chunk))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert (received, digest.hexdigest()) == (size, upload.file.sha256)
        if self.constant_memory:
            assert peak < 24 * MIB
        assert largest <= 8 * MIB

    def test_a_download_may_be_given_up(self, storage: Tested, tmp_path: Path) -> None:
        """If a stream is closed early, the next reader still gets the whole file."""
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", zeros=4 * MIB)
        file = published(upload, storage.put_file(upload))
        download = storage.open_file(file)
        if isinstance(download, Stream):
            next(download.chunks)
            if isinstance(download.chunks, Generator):
                download.chunks.close()
        received = hashlib.sha256(content_of(storage.open_file(file)))
        assert received.hexdigest() == upload.file.sha256

    def test_what_is_no_archive_is_a_broken_file(self, storage: Tested, tmp_path: Path) -> None:
        """A damaged file is returned unchanged, so that the core can report what is wrong.

        The report names the file, and the other files are examined as well.
        """
        good, content = make_wheel()
        stored = [
            storage.put_file(make_upload(tmp_path, name, garbage))
            for name, garbage in {**garbage_files(), good: content}.items()
        ]
        outcomes = {
            each.filename: outcome
            for each, outcome in examine_all(storage, stored, folder(tmp_path), take_file)
        }
        assert {name: type(outcome) for name, outcome in outcomes.items()} == {
            **dict.fromkeys(garbage_files(), InvalidUpload),
            good: DistributionFile,
        }
        for name in garbage_files():
            assert str(outcomes[name]).startswith(f"{name}: ")

    # -- several writers at the same time --------------------------------------------------------

    def test_sixteen_threads_put_the_same_file(self, place: Any, tmp_path: Path) -> None:
        """All of them succeed, and get the same file."""
        uploads = [make_upload(tmp_path, "demo-1.0.tar.gz", b"content") for _ in range(16)]
        storages = [self.open_another(place, tmp_path) for _ in range(2)]
        stored = at_once(
            [partial(self.put, storages[n % 2], upload) for n, upload in enumerate(uploads)]
        )
        assert stored == [stored[0]] * 16
        assert self.listing(storages[0], "demo-1.0.tar.gz") == {"demo-1.0.tar.gz": stored[0]}

    def test_sixteen_threads_put_other_bytes_under_one_name(
        self, place: Any, tmp_path: Path
    ) -> None:
        """One succeeds, and everything that is stored is from it. The others get an error."""
        uploads = [
            make_upload(
                tmp_path,
                "demo-1.0.tar.gz",
                f"content {number:02}".encode(),
                {"keywords": str(number)},
                core_metadata=str(number).encode(),
            )
            for number in range(16)
        ]
        storages = [self.open_another(place, tmp_path) for _ in range(2)]
        outcomes = at_once(
            [partial(outcome, storages[n % 2].put_file, u) for n, u in enumerate(uploads)]
        )
        winners = [n for n, result in enumerate(outcomes) if isinstance(result, StoredFile)]
        assert len(winners) == 1
        others = {type(result) for result in outcomes if not isinstance(result, StoredFile)}
        assert others == {FileAlreadyExists}
        winner = uploads[winners[0]]
        listed = self.listing(storages[0], "demo-1.0.tar.gz")["demo-1.0.tar.gz"]
        assert listed.record == self.record_of(winner)
        file = published(winner, listed)
        content = content_of(storages[1].open_file(file))
        assert hashlib.sha256(content).hexdigest() == winner.file.sha256
        self.check_core_metadata(storages[1], winner, listed)

    def test_a_listing_never_misses_what_was_there_before(self, place: Any, tmp_path: Path) -> None:
        """A listing is complete while files are published, and every listed file is complete."""
        storage = self.open_another(place, tmp_path)
        before = {f"demo-{number}.tar.gz" for number in range(20)}
        for name in before:
            storage.put_file(make_upload(tmp_path, name, name.encode()))
        self.listing(storage, *before)
        uploads = {
            name: make_upload(tmp_path, name, name.encode())
            for name in (f"other-{number}.tar.gz" for number in range(20))
        }
        finished = threading.Event()

        def publish() -> None:
            try:
                writer = self.open_another(place, tmp_path)
                for upload in uploads.values():
                    writer.put_file(upload)
            finally:
                finished.set()

        with ThreadPoolExecutor(1) as pool:
            publishing = pool.submit(publish)
            while not finished.is_set():
                listed = {file.filename: file for file in self.listed(storage)}
                assert before <= set(listed) <= before | set(uploads)
                for name in set(listed) & set(uploads):
                    complete = with_record(storage, listed[name])
                    assert complete.record == self.record_of(uploads[name])
                    self.check_core_metadata(storage, uploads[name], complete)
            publishing.result()
        assert set(self.listing(storage, *before, *uploads)) == before | set(uploads)

    # -- different spellings of a filename, which the core compares ------------------------------

    def test_a_file_is_published_under_one_spelling(self, storage: Tested, tmp_path: Path) -> None:
        """Eight writers use different spellings or content at the same time; one succeeds."""
        index = self.index_of(storage)
        spellings = ("demo-1.0.tar.gz", "Demo-1.0.tar.gz", "demo-1.0.0.tar.gz", "demo-v1.tar.gz")
        uploads = [
            make_upload(tmp_path, spelling, content)
            for spelling in spellings
            for content in (b"content", b"other content")
        ]
        store = partial(publish, storage=storage, index=index, backend_type="contract")
        outcomes = at_once([partial(outcome, store, upload) for upload in uploads])
        files = [result for result in outcomes if isinstance(result, DistributionFile)]
        assert files == [files[0]] * 4  # writers of the same content get the published file
        others = {type(result) for result in outcomes if not isinstance(result, DistributionFile)}
        assert others == {FileAlreadyExists}
        assert set(self.listing(storage, files[0].filename)) == {files[0].filename}
