"""The definition of a backend, as a test class for pytest; it knows no storage.

    from private_pypi.testing.contract import BackendContract

    class TestMyBackend(BackendContract):
        @pytest.fixture
        def storage(self, tmp_path):
            return tmp_path / "storage.db"

        def open_backend(self, storage, secret, folders):
            settings = MySettings(name="mine", max_file_bytes=1 << 30, path=storage)
            return MyBackend(settings, Secret(secret), folders)

A backend that can delete, or tell what is new, derives from those contracts as well:
`class TestMyBackend(BackendContract, DeletingContract, RecentContract)`. One that answers for a
project at a time, and has no listing and no index, derives from `LookupContract` instead of
`BackendContract`, and from what else it can:
`class TestMyLookups(ProcessesContract, LookupContract, RightsPerProjectContract, PartsContract)`.

Give it an empty storage that nobody else uses: it writes and deletes files of the projects `demo`,
`demo-extra` and `other`, replaces the index, and kills its own child processes in the middle of
writing. It may grow: a bug that was found in one backend becomes a test here, so a later version
of private_pypi may refuse a backend that an earlier one accepted.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import random
import tempfile
import threading
import time
import tracemalloc
import urllib.request
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import pytest

from private_pypi.backend import (
    NO_INDEX,
    Access,
    AnyBackend,
    Folders,
    Known,
    SupportsAssetIds,
    SupportsDelete,
    SupportsLookup,
    SupportsParts,
    SupportsRecent,
    SupportsYank,
)
from private_pypi.errors import (
    FileAlreadyExists,
    FileNotFound,
    NotAllowed,
    PrivatePypiError,
    ProjectNotFound,
    StaleIndex,
    Unsupported,
    WrongSecret,
)
from private_pypi.filenames import normalize, parse_filename
from private_pypi.model import (
    DistributionFile,
    Download,
    LocalFile,
    Record,
    Redirect,
    StoredFile,
    Stream,
    Upload,
)
from private_pypi.records import make_record

MIB = 1 << 20  # bytes


class FilesContract:
    """What holds for every storage: files, core metadata and secrets; says not how it lists."""

    read_secret: ClassVar[str] = "read-secret"
    write_secret: ClassVar[str] = "write-secret"
    wrong_secret: ClassVar[str] = "wrong-secret"

    constant_memory: ClassVar[bool] = True
    """False for a storage that is memory."""

    keeps_records: ClassVar[bool] = True
    """False for a storage that has no place for records: it gives None for each."""

    visible_after: ClassVar[timedelta] = timedelta(0)
    """How long the storage may take until a listing shows what was published or deleted."""

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Any:
        """Override: an empty storage that knows `read_secret` and `write_secret`."""
        raise NotImplementedError("override the fixture `storage`")

    def open_backend(self, storage: Any, secret: str, folders: Folders) -> AnyBackend:
        """Override: a new backend object over `storage`, also called in child processes."""
        raise NotImplementedError("override `open_backend`")

    def leftovers(self, storage: Any) -> Sequence[str]:
        """Override where it can be told: what is in the storage and belongs to nothing there.

        Asked after a writer was killed and another one has listed the storage.
        """
        return ()

    # What the tests use.

    @pytest.fixture
    def backend(self, storage: Any, tmp_path: Path) -> AnyBackend:
        return self.open_another(storage, tmp_path)

    def open_another(self, storage: Any, tmp_path: Path, secret: str | None = None) -> AnyBackend:
        """A backend as another server has it: over the same storage, with folders of its own."""
        folders = new_folders(tmp_path)
        return self.open_backend(storage, self.write_secret if secret is None else secret, folders)

    def listed(self, backend: AnyBackend, known: Known | None = None) -> list[StoredFile]:
        """All files of the projects that the tests write."""
        raise NotImplementedError("derive from InProcessContract or from LookupContract")

    def record_of(self, upload: Upload) -> Record | None:
        """What a listing has to say beside a file."""
        return upload.record if self.keeps_records else None

    def listing(self, backend: AnyBackend, *filenames: str) -> dict[str, StoredFile]:
        """What is listed, once it is exactly `filenames` or `visible_after` is over."""
        deadline = time.monotonic() + self.visible_after.total_seconds()
        while True:
            stored = self.listed(backend)
            listed = {file.filename: file for file in stored}
            assert len(stored) == len(listed), "a file was listed twice"
            if set(listed) == set(filenames) or time.monotonic() >= deadline:
                return listed
            time.sleep(0.2)

    # Files.

    def test_an_empty_storage_has_no_files(self, backend: AnyBackend) -> None:
        """Nothing needs to be prepared before a storage can be read."""
        assert self.listed(backend) == []

    def test_what_was_put_is_listed_and_opened(self, backend: AnyBackend, tmp_path: Path) -> None:
        """A listing says the same as `put_file` did, and the bytes are those that were sent."""
        upload = make_upload(tmp_path, "demo-1.0-py3-none-any.whl", b"content")
        stored = backend.put_file(upload)
        listed = self.listing(backend, "demo-1.0-py3-none-any.whl")
        assert listed == {"demo-1.0-py3-none-any.whl": stored}
        assert (stored.filename, stored.size) == ("demo-1.0-py3-none-any.whl", 7)
        assert content_of(backend.open_file(published(upload, stored))) == b"content"

    def test_what_one_server_put_another_one_sees(self, storage: Any, tmp_path: Path) -> None:
        """Nothing that counts is kept in the backend object or in its folders."""
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
        stored = self.open_another(storage, tmp_path).put_file(upload)
        other = self.open_another(storage, tmp_path)
        assert self.listing(other, "demo-1.0.tar.gz") == {"demo-1.0.tar.gz": stored}
        file = published(upload, stored)
        assert content_of(other.open_file(file)) == b"content"
        assert content_of(other.open_core_metadata(file)) == upload.core_metadata

    def test_an_empty_file_is_a_file(self, backend: AnyBackend, tmp_path: Path) -> None:
        """The storage does not judge: what is a distribution file is decided before."""
        upload = make_upload(tmp_path, "demo-1.0.zip", b"")
        stored = backend.put_file(upload)
        assert stored.size == 0
        assert content_of(backend.open_file(published(upload, stored))) == b""

    def test_the_same_bytes_again_return_the_first_file(
        self, backend: AnyBackend, tmp_path: Path
    ) -> None:
        """An upload that is repeated after a lost answer succeeds, and keeps the first record."""
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content", {"keywords": "first"})
        first = backend.put_file(upload)
        again = make_upload(tmp_path, "demo-1.0.tar.gz", b"content", {"keywords": "second"})
        assert backend.put_file(again) == first
        assert self.listing(backend, "demo-1.0.tar.gz") == {"demo-1.0.tar.gz": first}

    @pytest.mark.parametrize("other", [b"CONTENT", b"longer content", b""])
    def test_other_bytes_under_a_name_are_refused(
        self, backend: AnyBackend, tmp_path: Path, other: bytes
    ) -> None:
        """Also when they are of the same size; the first file stays as it is (protocol 36)."""
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
        stored = backend.put_file(upload)
        with pytest.raises(FileAlreadyExists):
            backend.put_file(make_upload(tmp_path, "demo-1.0.tar.gz", other))
        assert self.listing(backend, "demo-1.0.tar.gz") == {"demo-1.0.tar.gz": stored}
        assert content_of(backend.open_file(published(upload, stored))) == b"content"

    def test_one_stem_may_have_two_suffixes(self, backend: AnyBackend, tmp_path: Path) -> None:
        """`demo-1.0.zip` beside `demo-1.0.tar.gz` took private-pypi 0.2 down."""
        stored = {
            name: backend.put_file(make_upload(tmp_path, name, name.encode()))
            for name in ("demo-1.0.zip", "demo-1.0.tar.gz")
        }
        assert self.listing(backend, *stored) == stored

    def test_a_name_may_begin_with_another(self, backend: AnyBackend, tmp_path: Path) -> None:
        """`demo` and `demo-extra` do not see, hide or delete each other's files."""
        uploads = {
            name: make_upload(tmp_path, name, name.encode())
            for name in (
                "demo-1.0.tar.gz",
                "demo_extra-1.0.tar.gz",
                "demo-1.0.post1.tar.gz",
                "demo-1.0+local.1.tar.gz",
            )
        }
        stored = {name: backend.put_file(upload) for name, upload in uploads.items()}
        assert self.listing(backend, *stored) == stored
        for name, upload in uploads.items():
            content = content_of(backend.open_file(published(upload, stored[name])))
            assert content == name.encode()

    def test_a_name_as_long_as_real_ones_is_kept(self, backend: AnyBackend, tmp_path: Path) -> None:
        """The longest names of public wheels have about 200 characters."""
        tags = ".".join(f"manylinux_2_{minor}_x86_64" for minor in range(17, 25))
        name = f"demo-1.0-cp311-cp311-{tags}.whl"
        assert len(name) == 200
        stored = backend.put_file(make_upload(tmp_path, name, b"content"))
        assert self.listing(backend, name) == {name: stored}

    def test_a_missing_file_is_a_known_absence(self, backend: AnyBackend, tmp_path: Path) -> None:
        """`FileNotFound`, whether the project exists or not; never trouble."""
        missing = make_upload(tmp_path, "demo-2.0.tar.gz", b"").file
        other_project = make_upload(tmp_path, "other-1.0.tar.gz", b"").file
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
        stored = backend.put_file(upload)
        with_its_place = replace(missing, location=stored.location.replace("1.0", "2.0"))
        for file in (missing, other_project, with_its_place):
            with pytest.raises(FileNotFound):
                content_of(backend.open_file(file))
            with pytest.raises(FileNotFound):
                content_of(backend.open_core_metadata(file))

    def test_a_location_from_elsewhere_opens_nothing_else(
        self, backend: AnyBackend, tmp_path: Path
    ) -> None:
        """An index document may say anything: no location reaches another file than the named."""
        secret = tmp_path / "secret.txt"
        secret.write_text("secret")
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
        stored = backend.put_file(upload)
        climbing = f"{stored.location}/../../../../../../{secret}"
        for location in (str(secret), secret.as_uri(), climbing, "", "/", "..", "\x00"):
            file = replace(published(upload, stored), location=location)
            with contextlib.suppress(PrivatePypiError):
                assert content_of(backend.open_file(file)) == b"content"

    # Metadata.

    def test_core_metadata_is_kept_byte_for_byte(self, backend: AnyBackend, tmp_path: Path) -> None:
        """Installers compare its hash (protocol 29)."""
        content = "Metadata-Version: 2.4\r\nName: demo\n\nÜber\x00\n\n".encode()
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content", core_metadata=content)
        file = published(upload, backend.put_file(upload))
        assert content_of(backend.open_core_metadata(file)) == content

    def test_no_core_metadata_is_an_absence(self, backend: AnyBackend, tmp_path: Path) -> None:
        """The core then reads it from the file itself."""
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content", core_metadata=None)
        file = published(upload, backend.put_file(upload))
        with pytest.raises(FileNotFound):
            content_of(backend.open_core_metadata(file))
        assert content_of(backend.open_file(file)) == b"content"

    def test_a_refused_upload_changes_nothing(self, backend: AnyBackend, tmp_path: Path) -> None:
        """Neither the record nor the metadata of the first file become those of the second."""
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
        stored = backend.put_file(upload)
        with pytest.raises(FileAlreadyExists):
            backend.put_file(
                make_upload(tmp_path, "demo-1.0.tar.gz", b"other", {"a": "b"}, core_metadata=b"X")
            )
        assert self.listing(backend, "demo-1.0.tar.gz") == {"demo-1.0.tar.gz": stored}
        metadata = backend.open_core_metadata(published(upload, stored))
        assert content_of(metadata) == upload.core_metadata

    # Big things.

    def test_a_big_file_takes_constant_memory(self, backend: AnyBackend, tmp_path: Path) -> None:
        """Neither storing nor fetching holds a file in memory; chunks are a few MiB at most."""
        size = 64 * MIB
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", zeros=size)
        tracemalloc.start()
        try:
            stored = backend.put_file(upload)
            digest, received, largest = hashlib.sha256(), 0, 0
            for chunk in chunks_of(backend.open_file(published(upload, stored))):
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

    def test_a_download_may_be_given_up(self, backend: AnyBackend, tmp_path: Path) -> None:
        """Closing a stream ends it; the file stays, and the next reader gets all of it."""
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", zeros=4 * MIB)
        file = published(upload, backend.put_file(upload))
        download = backend.open_file(file)
        if isinstance(download, Stream):
            next(download.chunks)
            if isinstance(download.chunks, Generator):
                download.chunks.close()
        received = hashlib.sha256(content_of(backend.open_file(file)))
        assert received.hexdigest() == upload.file.sha256

    # Many at once.

    def test_sixteen_threads_put_the_same_file(self, storage: Any, tmp_path: Path) -> None:
        """All of them succeed, and all are told of one and the same file."""
        uploads = [make_upload(tmp_path, "demo-1.0.tar.gz", b"content") for _ in range(16)]
        backends = [self.open_another(storage, tmp_path) for _ in range(2)]
        stored = at_once(
            [partial(backends[n % 2].put_file, upload) for n, upload in enumerate(uploads)]
        )
        assert stored == [stored[0]] * 16
        assert self.listing(backends[0], "demo-1.0.tar.gz") == {"demo-1.0.tar.gz": stored[0]}

    def test_sixteen_threads_put_other_bytes_under_one_name(
        self, storage: Any, tmp_path: Path
    ) -> None:
        """One wins, and everything that is kept is of the winner; the others are told."""
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
        backends = [self.open_another(storage, tmp_path) for _ in range(2)]
        outcomes = at_once(
            [partial(outcome, backends[n % 2].put_file, u) for n, u in enumerate(uploads)]
        )
        winners = [n for n, result in enumerate(outcomes) if isinstance(result, StoredFile)]
        assert len(winners) == 1
        others = {type(result) for result in outcomes if not isinstance(result, StoredFile)}
        assert others == {FileAlreadyExists}
        winner = uploads[winners[0]]
        listed = self.listing(backends[0], "demo-1.0.tar.gz")["demo-1.0.tar.gz"]
        assert listed.record == self.record_of(winner)
        file = published(winner, listed)
        content = content_of(backends[1].open_file(file))
        assert hashlib.sha256(content).hexdigest() == winner.file.sha256
        assert content_of(backends[1].open_core_metadata(file)) == winner.core_metadata

    def test_a_listing_never_misses_what_was_there_before(
        self, storage: Any, tmp_path: Path
    ) -> None:
        """Whatever else is published meanwhile; and everything that it gives is whole."""
        backend = self.open_another(storage, tmp_path)
        before = {f"demo-{number}.tar.gz" for number in range(20)}
        for name in before:
            backend.put_file(make_upload(tmp_path, name, name.encode()))
        self.listing(backend, *before)
        uploads = {
            name: make_upload(tmp_path, name, name.encode())
            for name in (f"other-{number}.tar.gz" for number in range(20))
        }
        finished = threading.Event()

        def publish() -> None:
            try:
                writer = self.open_another(storage, tmp_path)
                for upload in uploads.values():
                    writer.put_file(upload)
            finally:
                finished.set()

        with ThreadPoolExecutor(1) as pool:
            publishing = pool.submit(publish)
            while not finished.is_set():
                listed = {file.filename: file for file in self.listed(backend)}
                assert before <= set(listed) <= before | set(uploads)
                for name in set(listed) & set(uploads):
                    assert listed[name].record == self.record_of(uploads[name])
            publishing.result()
        assert set(self.listing(backend, *before, *uploads)) == before | set(uploads)

    # Secrets.

    def test_a_secret_may_do_what_the_storage_says(self, storage: Any, tmp_path: Path) -> None:
        """Two secrets with different rights, a wrong one, none, and some that are nearly right."""
        expected = {
            self.read_secret: Access.READ,
            self.write_secret: Access.WRITE,
            self.wrong_secret: Access.NONE,
            "": Access.NONE,
            self.write_secret + "x": Access.NONE,
            self.write_secret[:-1]: Access.NONE,
            self.write_secret.swapcase(): Access.NONE,
            "Ünïcode 李": Access.NONE,
        }
        found = {
            secret: self.open_another(storage, tmp_path, secret).access() for secret in expected
        }
        assert found == expected

    def test_a_secret_may_do_the_same_with_a_project(self, storage: Any, tmp_path: Path) -> None:
        """Unless the capabilities say that rights differ per project."""
        for secret in (self.read_secret, self.write_secret, self.wrong_secret):
            backend = self.open_another(storage, tmp_path, secret)
            differs = backend.capabilities.rights_per_project
            assert differs or backend.access("demo") == backend.access()

    def test_making_a_backend_touches_nothing(
        self, storage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Construction does no I/O: a storage in trouble never stops a server's start."""
        folders = new_folders(tmp_path)

        def refuse(*arguments: object, **_options: object) -> None:
            raise AssertionError(f"construction opened something: {arguments!r}")

        with monkeypatch.context() as patch:
            for opener in ("builtins.open", "io.open", "os.open", "os.mkdir", "sqlite3.connect"):
                patch.setattr(opener, refuse)
            patch.setattr("socket.socket.connect", refuse)
            backend = self.open_backend(storage, self.write_secret, folders)
        assert self.listed(backend) == []

    def test_what_a_backend_can_is_tested(self, backend: AnyBackend) -> None:
        """Whoever supports deleting or telling what is new derives from those classes as well."""
        assert isinstance(self, DeletingContract) == isinstance(backend, SupportsDelete)
        assert isinstance(self, RecentContract) == isinstance(backend, SupportsRecent)
        assert isinstance(self, YankingContract) == isinstance(backend, SupportsYank)
        assert isinstance(self, LookupContract) == isinstance(backend, SupportsLookup)
        assert isinstance(self, PartsContract) == isinstance(backend, SupportsParts)
        assert isinstance(self, AssetIdsContract) == isinstance(backend, SupportsAssetIds)
        can = backend.capabilities
        assert isinstance(self, InProcessContract) == can.lists_files
        assert isinstance(self, RightsPerProjectContract) == can.rights_per_project


class RecordsContract(FilesContract):
    """For a storage that keeps records."""

    def test_a_record_comes_back_exactly(self, backend: AnyBackend, tmp_path: Path) -> None:
        """Whatever is in it: quotes, control characters, every plane of Unicode, no text at all."""
        strange = {
            "keywords": 'She said "no"\\n, \'\'\' and """ \\u0041 #',
            "author": "Ørsted 李 🦄 \u2028\u200f\ufeff",
            "lines": "one\ntwo\r\nthree\ttabbed \x00\x07\x1b\x7f\x85",
            "key with spaces.and = [signs] \"'\n": "value",
            "": "empty key",
            "empty value": "",
            ":action": "file_upload",
            "stamp": "a field of the form",
            "long": "x" * 50_000,
        }
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content", strange)
        assert set(strange) < set(upload.record)
        assert backend.put_file(upload).record == upload.record
        listed = self.listing(backend, "demo-1.0.tar.gz")
        assert listed["demo-1.0.tar.gz"].record == upload.record

    def test_known_files_are_listed_all_the_same(self, backend: AnyBackend, tmp_path: Path) -> None:
        """Only the record may be left out, and only of a file that is known with this stamp."""
        names = ["demo-1.0.tar.gz", "demo-2.0.tar.gz"]
        stored = {name: backend.put_file(make_upload(tmp_path, name, b"content")) for name in names}
        assert self.listing(backend, *names) == stored
        first = stored[names[0]]
        listed = {
            file.filename: file
            for file in self.listed(backend, lambda *known: known == (first.filename, first.stamp))
        }
        assert listed[names[1]] == stored[names[1]]
        assert replace(listed[names[0]], record=first.record) == first


class InProcessContract(RecordsContract):
    """All but what takes several processes, for a storage that lives and dies with one."""

    def listed(self, backend: AnyBackend, known: Known | None = None) -> list[StoredFile]:
        return list(backend.list_files(known))

    def test_an_empty_storage_has_no_index(self, backend: AnyBackend, tmp_path: Path) -> None:
        """Nothing needs to be prepared before it can be read."""
        assert backend.read_index(tmp_path / "index.toml") == NO_INDEX
        assert not (tmp_path / "index.toml").exists()

    def test_an_index_comes_back_with_its_revision(
        self, backend: AnyBackend, tmp_path: Path
    ) -> None:
        """The revision that `write_index` returns is the one that `read_index` gives."""
        revision = backend.write_index(document(tmp_path, b"mtime = 1\n"), NO_INDEX)
        assert revision != NO_INDEX
        assert backend.read_index(tmp_path / "read") == revision
        assert (tmp_path / "read").read_bytes() == b"mtime = 1\n"

    def test_an_unchanged_index_is_not_sent_again(
        self, backend: AnyBackend, tmp_path: Path
    ) -> None:
        """`unless` the revision that the reader has: nothing is written."""
        first = backend.write_index(document(tmp_path, b"mtime = 1\n"), NO_INDEX)
        into = tmp_path / "read"
        assert backend.read_index(into, unless=first) == first
        assert not into.exists()
        second = backend.write_index(document(tmp_path, b"mtime = 2\n"), first)
        assert backend.read_index(into, unless=first) == second
        assert into.read_bytes() == b"mtime = 2\n"

    def test_a_shorter_index_replaces_all_of_a_longer_one(
        self, backend: AnyBackend, tmp_path: Path
    ) -> None:
        """In the storage, and in a file of the reader that exists already."""
        into = tmp_path / "read"
        into.write_bytes(b"x" * 1000)
        first = backend.write_index(document(tmp_path, b"mtime = 1111111111\n"), NO_INDEX)
        backend.write_index(document(tmp_path, b"mtime = 2\n"), first)
        backend.read_index(into)
        assert into.read_bytes() == b"mtime = 2\n"

    def test_a_stale_writer_loses(self, storage: Any, tmp_path: Path) -> None:
        """Also when it wrote before: a revision never stands for two documents."""
        mine, theirs = (self.open_another(storage, tmp_path) for _ in range(2))
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
        self, backend: AnyBackend, tmp_path: Path
    ) -> None:
        """A writer whose document vanished is stale."""
        with pytest.raises(StaleIndex):
            backend.write_index(document(tmp_path, b"mtime = 1\n"), "a revision")
        assert backend.read_index(tmp_path / "read") == NO_INDEX

    def test_of_many_first_writers_one_wins(self, storage: Any, tmp_path: Path) -> None:
        """And the document is the winner's, whole."""
        contents = [f"mtime = {number}\n".encode() * 1000 for number in range(8)]
        backends = [self.open_another(storage, tmp_path) for _ in range(2)]
        outcomes = at_once(
            [
                partial(outcome, backends[n % 2].write_index, document(tmp_path, content), NO_INDEX)
                for n, content in enumerate(contents)
            ]
        )
        winners = [n for n, result in enumerate(outcomes) if isinstance(result, str)]
        assert len(winners) == 1
        assert {type(result) for result in outcomes} == {str, StaleIndex}
        assert backends[0].read_index(tmp_path / "read") == outcomes[winners[0]]
        assert (tmp_path / "read").read_bytes() == contents[winners[0]]

    def test_a_big_index_is_never_read_in_halves(self, storage: Any, tmp_path: Path) -> None:
        """Readers beside a writer get one whole document or another."""
        contents = [bytes([letter]) * (4 * MIB) for letter in b"abcd"]
        writer, reader = (self.open_another(storage, tmp_path) for _ in range(2))
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

    def test_the_index_is_no_distribution_file(self, backend: AnyBackend, tmp_path: Path) -> None:
        """A listing has published files and nothing else."""
        backend.write_index(document(tmp_path, b"mtime = 1\n"), NO_INDEX)
        assert list(backend.list_files()) == []
        backend.put_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"content"))
        assert list(self.listing(backend, "demo-1.0.tar.gz")) == ["demo-1.0.tar.gz"]


class ProcessesContract(FilesContract):
    """What several processes do to one storage, which is pickled and opened by each of them."""

    def test_two_processes_share_only_the_storage(self, storage: Any, tmp_path: Path) -> None:
        """Of two servers that publish one name at once, one wins; nothing of theirs is mixed."""
        names = [f"demo-{number}.tar.gz" for number in range(10)]
        with contextlib.ExitStack() as stack:
            children = [
                stack.enter_context(
                    child_process(put_all, type(self), storage, folder(tmp_path), names, text)
                )
                for text in ("from the first", "from the second")
            ]
            for child in children:
                assert child.receive() == "ready"
            for child in children:
                child.send("go")
            results = [child.receive() for child in children]
        assert [sorted(pair) for pair in zip(*results, strict=True)] == [
            ["FileAlreadyExists", "stored"]
        ] * len(names)
        backend = self.open_another(storage, tmp_path)
        listed = self.listing(backend, *names)
        assert set(listed) == set(names)
        for number, name in enumerate(names):
            text = "from the first" if results[0][number] == "stored" else "from the second"
            upload = make_upload(tmp_path, name, text.encode(), {"keywords": text})
            assert listed[name].record == self.record_of(upload)
            file = published(upload, listed[name])
            assert content_of(backend.open_file(file)) == text.encode()

    def test_a_writer_that_is_killed_leaves_a_whole_file_or_none(
        self, storage: Any, tmp_path: Path
    ) -> None:
        """Nothing half is visible, nothing blocks the next writer, and nothing is left behind."""
        chance = random.Random(1)
        content = bytes(range(256)) * 4096
        names = [f"demo-{number}.tar.gz" for number in range(200)]
        told: set[str] = set()
        for _ in range(6):
            arguments = (type(self), storage, folder(tmp_path), names, content)
            with child_process(put_until_killed, *arguments) as child:
                assert child.receive() == "ready"
                time.sleep(chance.uniform(0, 0.1))
                child.kill()
                told |= child.received()
        backend = self.open_another(storage, tmp_path)
        listed = {file.filename: file for file in self.listed(backend)}
        assert told <= set(listed) <= set(names)
        upload = make_upload(tmp_path, names[0], content)
        for name, stored in listed.items():
            file = replace(published(upload, stored), filename=name)
            assert content_of(backend.open_file(file)) == content
            if stored.record is not None or not self.keeps_records:
                assert content_of(backend.open_core_metadata(file)) == upload.core_metadata
        assert list(self.leftovers(storage)) == []
        for name in names[: len(listed) + 2]:
            backend.put_file(make_upload(tmp_path, name, content))


class BackendContract(ProcessesContract, InProcessContract):
    """Derive from it, name the subclass `Test…`, and override what says so.

    The storage that the fixture gives is pickled, and opened by child processes as well.
    """


class DeletingContract(FilesContract):
    """What `SupportsDelete` promises, beside everything else."""

    def test_a_deleted_file_is_gone(self, backend: AnyBackend, tmp_path: Path) -> None:
        """With its metadata and its record; deleting it again is no error."""
        assert isinstance(backend, SupportsDelete)
        uploads = [
            make_upload(tmp_path, name, b"content")
            for name in ("demo-1.0.tar.gz", "demo-1.0.zip", "demo_extra-1.0.tar.gz")
        ]
        files = [published(upload, backend.put_file(upload)) for upload in uploads]
        for _ in range(2):
            backend.delete_file(files[0])
        assert set(self.listing(backend, files[1].filename, files[2].filename)) == {
            files[1].filename,
            files[2].filename,
        }
        for opened in (backend.open_file, backend.open_core_metadata):
            with pytest.raises(FileNotFound):
                content_of(opened(files[0]))

    def test_a_name_can_be_put_again_after_it_was_deleted(
        self, backend: AnyBackend, tmp_path: Path
    ) -> None:
        """The index burns names, not the storage; and nothing of the first file comes back."""
        assert isinstance(backend, SupportsDelete)
        first = make_upload(tmp_path, "demo-1.0.tar.gz", b"first", {"keywords": "first"})
        first_stored = backend.put_file(first)
        backend.delete_file(published(first, first_stored))
        second = make_upload(tmp_path, "demo-1.0.tar.gz", b"other", core_metadata=None)
        stored = backend.put_file(second)
        assert stored.record == self.record_of(second)
        assert stored.stamp != first_stored.stamp
        assert self.listing(backend, "demo-1.0.tar.gz") == {"demo-1.0.tar.gz": stored}
        assert content_of(backend.open_file(published(second, stored))) == b"other"
        with pytest.raises(FileNotFound):
            content_of(backend.open_core_metadata(published(second, stored)))

    def test_a_file_that_never_was_can_be_deleted(
        self, backend: AnyBackend, tmp_path: Path
    ) -> None:
        """Whoever repeats a deletion after a lost answer gets the same answer."""
        assert isinstance(backend, SupportsDelete)
        backend.delete_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"").file)
        assert self.listed(backend) == []


class YankingContract(FilesContract):
    """What `SupportsYank` promises, beside everything else."""

    def test_a_yank_is_kept_beside_the_file_and_changes_nothing_else(
        self, storage: Any, tmp_path: Path
    ) -> None:
        """Every server reads it; reasons of any text come back exactly, also none at all."""
        backend, other = (self.open_another(storage, tmp_path) for _ in range(2))
        assert isinstance(backend, SupportsYank)
        uploads = [
            make_upload(tmp_path, name, name.encode())
            for name in ("demo-1.0.tar.gz", "demo-1.0.zip", "demo_extra-1.0.tar.gz")
        ]
        stored = {upload.file.filename: backend.put_file(upload) for upload in uploads}
        name = uploads[0].file.filename
        file = published(uploads[0], stored[name])
        strange = 'She said "no"\\n\n# \x00\x7f Ørsted 李 🦄 \u2028\u200f\ufeff'
        for reason in ("broken", "broken", "", strange, None, None, "again"):
            backend.yank_file(file, reason)
            yanked = replace(stored[name], yanked=reason)
            assert self.listing(other, *stored) == {**stored, name: yanked}
            assert content_of(other.open_file(file)) == name.encode()
            assert content_of(other.open_core_metadata(file)) == uploads[0].core_metadata
        # The same bytes again are no new file, and do not undo it.
        assert other.put_file(uploads[0]) == yanked

    def test_a_file_that_is_not_there_cannot_be_yanked(
        self, backend: AnyBackend, tmp_path: Path
    ) -> None:
        """Nor is it made by that."""
        assert isinstance(backend, SupportsYank)
        for reason in ("broken", None):
            with pytest.raises(FileNotFound):
                backend.yank_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"").file, reason)
        assert self.listed(backend) == []


class RecentContract(InProcessContract):
    """What `SupportsRecent` promises, beside everything else."""

    def test_recent_files_are_those_since(self, backend: AnyBackend, tmp_path: Path) -> None:
        """At least every file that was published at or after that time, as a listing gives it."""
        assert isinstance(backend, SupportsRecent)
        start = datetime.now(UTC) - timedelta(minutes=5)
        first = backend.put_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"first"))
        second = backend.put_file(make_upload(tmp_path, "demo-2.0.tar.gz", b"second"))
        self.listing(backend, first.filename, second.filename)
        recent = {file.filename: file for file in backend.recent_files(start)}
        assert recent == {first.filename: first, second.filename: second}


class LookupContract(FilesContract):
    """What `SupportsLookup` promises, for a storage without a listing and an index.

    The projects `demo`, `demo-extra` and `other` can be published to; `never-was` does not exist.
    """

    projects: ClassVar[Sequence[str]] = ("demo", "demo-extra", "other")

    def listed(self, backend: AnyBackend, known: Known | None = None) -> list[StoredFile]:
        return [file for project in self.projects for file in files_of(backend, project, known)]

    def test_a_project_that_never_was_is_a_known_absence(
        self, backend: AnyBackend, tmp_path: Path
    ) -> None:
        """`ProjectNotFound`, also beside projects that exist; never an empty listing."""
        assert isinstance(backend, SupportsLookup)
        for _ in range(2):
            with pytest.raises(ProjectNotFound):
                list(backend.project_files("never-was"))
            backend.put_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"content"))

    def test_each_file_of_a_project_is_given_once(
        self, backend: AnyBackend, tmp_path: Path
    ) -> None:
        """Whatever its version, and however often it is asked; with what the storage knows."""
        assert isinstance(backend, SupportsLookup)
        uploads = {
            name: make_upload(tmp_path, name, name.encode())
            for name in (
                "demo-10.0.tar.gz",
                "demo-9.0.tar.gz",
                "demo-9.0-py3-none-any.whl",
                "demo-1.0rc1.tar.gz",
                "demo_extra-1.0.tar.gz",
            )
        }
        for upload in uploads.values():
            backend.put_file(upload)
        self.listing(backend, *uploads)
        for _ in range(2):
            stored = list(backend.project_files("demo"))
            mine = {f.filename: f for f in stored if not f.filename.startswith("demo_extra")}
            assert len({file.filename for file in stored}) == len(stored)
            assert set(mine) == set(uploads) - {"demo_extra-1.0.tar.gz"}
            for name, file in mine.items():
                assert file.size == len(name)
                assert file.sha256 in (None, uploads[name].file.sha256)
                assert file.uploaded_at is None or file.uploaded_at.utcoffset() == timedelta(0)

    def test_what_changed_is_given_the_next_time(self, storage: Any, tmp_path: Path) -> None:
        """Whoever changed it: what is kept to ask conditionally never hides anything."""
        mine, theirs = (self.open_another(storage, tmp_path) for _ in range(2))
        names = [f"demo-{number}.0.tar.gz" for number in range(3)]
        for count, name in enumerate(names, 1):
            theirs.put_file(make_upload(tmp_path, name, name.encode()))
            assert set(self.listing(mine, *names[:count])) == set(names[:count])
            if isinstance(theirs, SupportsDelete) and count == 2:
                theirs.delete_file(make_upload(tmp_path, names[0], b"").file)
                assert set(self.listing(mine, names[1])) == {names[1]}
                theirs.put_file(make_upload(tmp_path, names[0], names[0].encode()))

    def test_the_projects_are_those_that_may_be_read(
        self, backend: AnyBackend, tmp_path: Path
    ) -> None:
        """By normalised name, each once."""
        assert isinstance(backend, SupportsLookup)
        backend.put_file(make_upload(tmp_path, "demo_extra-1.0.tar.gz", b"content"))
        names = list(backend.projects())
        assert len(names) == len(set(names))
        assert "demo-extra" in names
        assert "never-was" not in names
        assert [name for name in names if normalize(name) != name] == []

    def test_there_is_neither_a_listing_nor_an_index(
        self, backend: AnyBackend, tmp_path: Path
    ) -> None:
        """Said plainly, and not as an absence."""
        for call in (
            lambda: list(backend.list_files()),
            lambda: backend.read_index(tmp_path / "index.toml"),
            lambda: backend.write_index(document(tmp_path, b"mtime = 1\n"), NO_INDEX),
        ):
            with pytest.raises(Unsupported):
                call()


class RightsPerProjectContract(LookupContract):
    """For a storage that decides for each project what a secret may do there."""

    partial_secret: ClassVar[str] = "partial-secret"
    """Override: may read `demo`, and is not shown `other`; the other two may do all alike."""

    def test_a_secret_may_do_what_the_storage_says(self, storage: Any, tmp_path: Path) -> None:
        """Whether it is any good is one question, what it may do with a project another."""
        good = (self.read_secret, self.write_secret, self.partial_secret)
        for secret in good:
            assert self.open_another(storage, tmp_path, secret).access() >= Access.READ
        for secret in (self.wrong_secret, "", self.write_secret + "x", "Ünïcode 李"):
            assert self.open_another(storage, tmp_path, secret).access() is Access.NONE
        rights = {
            (secret, project): access_of(self.open_another(storage, tmp_path, secret), project)
            for secret in good
            for project in ("demo", "other", "never-was")
        }
        wrong = self.open_another(storage, tmp_path, self.wrong_secret)
        for project in ("demo", "other", "never-was"):
            # The storage may as well say that it is the secret that is wrong.
            result = outcome(wrong.access, project)
            assert result is Access.NONE or isinstance(result, WrongSecret)
        assert rights == {
            (self.read_secret, "demo"): Access.READ,
            (self.read_secret, "other"): Access.READ,
            (self.read_secret, "never-was"): Access.NONE,
            (self.write_secret, "demo"): Access.WRITE,
            (self.write_secret, "other"): Access.WRITE,
            (self.write_secret, "never-was"): Access.NONE,
            (self.partial_secret, "demo"): Access.READ,
            (self.partial_secret, "other"): Access.NONE,
            (self.partial_secret, "never-was"): Access.NONE,
        }

    def test_what_is_not_shown_to_a_secret_is_absent(self, storage: Any, tmp_path: Path) -> None:
        """Also right after another secret was shown it, by whatever the two share."""
        writer = self.open_another(storage, tmp_path)
        partial = self.open_another(storage, tmp_path, self.partial_secret)
        assert isinstance(partial, SupportsLookup)
        upload = make_upload(tmp_path, "other-1.0.tar.gz", b"content")
        writer.put_file(upload)
        stored = self.listing(writer, "other-1.0.tar.gz")["other-1.0.tar.gz"]
        file = published(upload, stored)
        assert content_of(writer.open_file(file)) == b"content"
        with pytest.raises(ProjectNotFound):
            list(partial.project_files("other"))
        with pytest.raises(FileNotFound):
            content_of(partial.open_file(file))
        assert "other" not in list(partial.projects())

    def test_a_secret_that_may_only_read_publishes_nothing(
        self, storage: Any, tmp_path: Path
    ) -> None:
        """The storage refuses, whatever we believed."""
        reader = self.open_another(storage, tmp_path, self.read_secret)
        with pytest.raises((NotAllowed, ProjectNotFound)):
            reader.put_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"content"))
        assert self.listed(reader) == []


class PartsContract(FilesContract):
    """What `SupportsParts` promises, beside everything else."""

    def test_parts_are_those_of_the_whole(self, backend: AnyBackend, tmp_path: Path) -> None:
        """At either end, over the end and beyond it."""
        assert isinstance(backend, SupportsParts)
        content = random.Random(7).randbytes(300_000)
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", content)
        location = backend.put_file(upload).location
        for start, length in (
            (0, 1),
            (0, 300_000),
            (1, 65_536),
            (299_999, 1),
            (299_990, 100),
            (300_000, 1),
            (400_000, 5),
        ):
            assert backend.read_part(location, start, length) == content[start : start + length]

    def test_a_part_of_a_file_from_elsewhere_is_refused(
        self, backend: AnyBackend, tmp_path: Path
    ) -> None:
        """As for whole files: a location reaches nothing but what the storage gave it to."""
        assert isinstance(backend, SupportsParts)
        secret = tmp_path / "secret.txt"
        secret.write_text("secret")
        backend.put_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"content"))
        for location in (str(secret), secret.as_uri(), "", "/", "..", "\x00"):
            with pytest.raises(PrivatePypiError):
                backend.read_part(location, 0, 6)


class AssetIdsContract(FilesContract):
    """What `SupportsAssetIds` promises, beside everything else."""

    def asset_id(self, storage: Any, stored: StoredFile) -> str:
        """Override: under which identifier older servers gave this file away."""
        raise NotImplementedError("override `asset_id`")

    def test_an_identifier_opens_its_file(self, storage: Any, tmp_path: Path) -> None:
        """With its true name; and no identifier that nobody gave away opens anything."""
        backend = self.open_another(storage, tmp_path)
        assert isinstance(backend, SupportsAssetIds)
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
        stored = backend.put_file(upload)
        found, download = backend.open_asset(self.asset_id(storage, stored), "demo-1.0.tar.gz")
        assert (found.filename, found.size) == ("demo-1.0.tar.gz", 7)
        assert found.sha256 in (None, upload.file.sha256)
        assert content_of(download) == b"content"
        for unknown in ("x", "RA_unknown", "../demo", "%00"):
            with pytest.raises(FileNotFound):
                backend.open_asset(unknown, "demo-1.0.tar.gz")


# What the tests are written with; also for tests of what is peculiar to one backend.


def access_of(backend: AnyBackend, project: str) -> Access:
    """What a secret may do with a project; one that is no good may also be told so."""
    try:
        return backend.access(project)
    except WrongSecret:
        return Access.NONE


def files_of(backend: AnyBackend, project: str, known: Known | None = None) -> list[StoredFile]:
    """The files of a project as a lookup gives them, without those of other projects."""
    assert isinstance(backend, SupportsLookup)
    try:
        stored = list(backend.project_files(project, known))
    except ProjectNotFound:
        return []
    return [file for file in stored if parse_filename(file.filename).project == project]


def folder(tmp_path: Path) -> Path:
    """A new folder below `tmp_path`."""
    return Path(tempfile.mkdtemp(dir=tmp_path))


def new_folders(tmp_path: Path) -> Folders:
    """The folders of one more server."""
    root = folder(tmp_path)
    folders = Folders(cache=root / "cache", lock=root / "lock", tmp=root / "tmp")
    for path in (folders.cache, folders.lock, folders.tmp):
        path.mkdir()
    return folders


def make_upload(
    tmp_path: Path,
    filename: str,
    content: bytes = b"",
    fields: Record = MappingProxyType({}),
    *,
    core_metadata: bytes | None = b"Metadata-Version: 2.1\nName: demo\n",
    zeros: int = 0,
) -> Upload:
    """An upload of `content` (or of so many zero bytes), as the core hands it over."""
    path = folder(tmp_path) / "content"
    path.write_bytes(content)
    if zeros:
        os.truncate(path, zeros)
    parsed = parse_filename(filename)
    with path.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    file = DistributionFile(
        project=parsed.project,
        filename=filename,
        version=str(parsed.version),
        size=path.stat().st_size,
        sha256=sha256,
        uploaded_at=datetime(2026, 11, 20, 12, 30, 0, 123456, tzinfo=UTC),
        requires_python=">=3.8",
        yanked=None,
        core_metadata_sha256=(
            None if core_metadata is None else hashlib.sha256(core_metadata).hexdigest()
        ),
        location="",
    )
    record = make_record(file, list(fields.items()))
    return Upload(file=file, content=path, core_metadata=core_metadata, record=record)


def published(upload: Upload, stored: StoredFile) -> DistributionFile:
    """The file of an upload once it has a place."""
    return replace(upload.file, location=stored.location)


def document(tmp_path: Path, content: bytes) -> Path:
    """A file to be written as the index."""
    path = folder(tmp_path) / "index.toml"
    path.write_bytes(content)
    return path


def chunks_of(download: Download) -> Iterator[bytes]:
    """The content of a download, as a server would send it."""
    match download:
        case LocalFile(path):
            with path.open("rb") as file:
                while chunk := file.read(MIB):
                    yield chunk
        case Redirect(url, _):
            # Without credentials: the address is all that a client gets.
            with urllib.request.urlopen(url, timeout=60) as answer:
                while chunk := answer.read(MIB):
                    yield chunk
        case Stream(chunks, _):
            yield from chunks


def content_of(download: Download) -> bytes:
    """All of a download; a stream has as many bytes as it promised."""
    content = b"".join(chunks_of(download))
    if isinstance(download, Stream):
        assert len(content) == download.size
    return content


def at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """The results of all calls, each made in a thread of its own at the same moment."""
    start = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        start.wait(timeout=60)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    """What a call returns, or which error of ours it raises."""
    try:
        return call(*arguments)
    except PrivatePypiError as error:
        return error


class Child:
    """A child process that can be talked to, and killed."""

    def __init__(self, process: SpawnProcess, connection: Connection) -> None:
        self._process = process
        self._connection = connection

    def send(self, message: object) -> None:
        self._connection.send(message)

    def receive(self) -> Any:
        """The next message; an error when there is none for a minute."""
        assert self._connection.poll(60), "the child process does not answer"
        return self._connection.recv()

    def kill(self) -> None:
        """SIGKILL: nothing that the child could do about it."""
        self._process.kill()
        self._process.join()

    def received(self) -> set[Any]:
        """All messages that the child sent before it ended."""
        messages = set()
        with contextlib.suppress(EOFError, OSError):
            while True:
                messages.add(self._connection.recv())
        return messages


@contextlib.contextmanager
def child_process(target: Callable[..., None], *arguments: Any) -> Iterator[Child]:
    """Run `target(connection, *arguments)` in a new interpreter; it is gone afterwards."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments))
    process.start()
    theirs.close()
    try:
        yield Child(process, ours)
        process.join(60)
    finally:
        process.kill()
        process.join()
        ours.close()


def put_all(
    connection: Connection,
    contract: type[FilesContract],
    storage: Any,
    tmp_path: Path,
    names: Sequence[str],
    text: str,
) -> None:
    """In a child process: put a file under every name, and tell how each went."""
    backend = contract().open_another(storage, tmp_path)
    uploads = [make_upload(tmp_path, name, text.encode(), {"keywords": text}) for name in names]
    connection.send("ready")
    connection.recv()
    results = [outcome(backend.put_file, upload) for upload in uploads]
    connection.send(
        [
            "stored" if isinstance(result, StoredFile) else type(result).__name__
            for result in results
        ]
    )


def put_until_killed(
    connection: Connection,
    contract: type[FilesContract],
    storage: Any,
    tmp_path: Path,
    names: Sequence[str],
    content: bytes,
) -> None:
    """In a child process: put a file under every name, and tell of each that is stored."""
    backend = contract().open_another(storage, tmp_path)
    connection.send("ready")
    for name in names:
        backend.put_file(make_upload(tmp_path, name, content))
        connection.send(name)
