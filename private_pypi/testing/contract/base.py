"""The base class of all contracts: what an author has to define, and tests for every storage."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from private_pypi.backend import (
    Access,
    AnyBackend,
    Folders,
    RemoteSettings,
    Secret,
    SupportsCoreMetadata,
    SupportsList,
    SupportsSweep,
    capability,
    missing_capability,
)
from private_pypi.errors import BackendError, FileNotFound
from private_pypi.index.examining import with_record
from private_pypi.index.local import LocalIndex
from private_pypi.index.stored_document import has_index
from private_pypi.index.synchronizing import Synchronizer
from private_pypi.model import Record, Redirect, StoredFile, Upload
from private_pypi.testing.contract.helpers import (
    Tested,
    calls_of,
    content_of,
    make_upload,
    new_folders,
    outcome,
    published,
)


class StorageContract:
    """Tests of what every storage can do, and methods that all contracts use."""

    read_secret: ClassVar[str] = "read-secret"
    write_secret: ClassVar[str] = "write-secret"
    wrong_secret: ClassVar[str] = "wrong-secret"

    protocol: ClassVar[type | None] = None
    """The protocol that this contract tests. Authors do not override it."""

    keeps_records: ClassVar[bool] = True
    """Override with False for a storage that cannot store records."""

    visible_after: ClassVar[timedelta] = timedelta(0)
    """Override with the time that may pass before a listing shows an upload or a deletion."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Any:
        """Override: create an empty storage; return what is needed to open it, such as a path.

        The storage must accept `read_secret` and `write_secret`.
        """
        raise NotImplementedError("override the fixture `place`")

    def open_backend(self, place: Any, folders: Folders) -> AnyBackend:
        """Override: return a new backend for the storage. It is also called in child processes."""
        raise NotImplementedError("override `open_backend`")

    def secret(self, place: Any, name: str) -> Secret:
        """The secret that the tests refer to by this name, such as `read_secret`.

        Override this if the storage generates its secrets. Return other names unchanged.
        """
        return Secret(name)

    def break_storage(self, place: Any) -> None:
        """Override: make the storage disappear or fail, like a disk that is unmounted."""
        raise NotImplementedError("override `break_storage`")

    def requests_made(self, place: Any) -> int | None:
        """Override if possible: the number of requests that the storage has received until now."""
        return None

    def leftovers(self, place: Any) -> Sequence[str]:
        """Override if possible: names of things in the storage that do not belong to any file.

        This is called after a writer was killed, and the storage was listed and swept.
        """
        return ()

    # -- for the tests ---------------------------------------------------------------------------

    @pytest.fixture
    def storage(self, place: Any, tmp_path: Path) -> Tested:
        """A view of the storage with the secret that may write."""
        return self.open_another(place, tmp_path)

    def open_another(self, place: Any, tmp_path: Path, secret: str | None = None) -> Tested:
        """A view of the same storage on another server, which has folders of its own."""
        backend = self.open_backend(place, new_folders(tmp_path))
        name = self.write_secret if secret is None else secret
        return backend.seen_with(self.secret(place, name))

    def listed(self, storage: Tested) -> list[StoredFile]:
        """All files of the projects that the tests write."""
        raise NotImplementedError("derive from ListContract or from LookupContract")

    def rights(self) -> Mapping[str, Access]:
        """What the right secrets may do."""
        return {self.read_secret: Access.READ, self.write_secret: Access.WRITE}

    def record_of(self, upload: Upload) -> Record | None:
        """The record that the storage should return for an uploaded file."""
        return upload.record if self.keeps_records else None

    def put(self, storage: Tested, upload: Upload) -> StoredFile:
        """Publish a file; return it as a listing would, with its record."""
        stored: StoredFile = storage.put_file(upload)
        return with_record(storage, stored)

    def listing(self, storage: Tested, *filenames: str) -> dict[str, StoredFile]:
        """The listed files by name; wait up to `visible_after` until they are `filenames`."""
        deadline = time.monotonic() + self.visible_after.total_seconds()
        while True:
            stored = [with_record(storage, each) for each in self.listed(storage)]
            listed = {file.filename: file for file in stored}
            assert len(stored) == len(listed), "a file was listed twice"
            if set(listed) == set(filenames) or time.monotonic() >= deadline:
                return listed
            time.sleep(0.2)

    def check_core_metadata(self, storage: Tested, upload: Upload, stored: StoredFile) -> None:
        """Check that the storage returns the core metadata of an upload, if it stores any."""
        if capability(storage, SupportsCoreMetadata) is None:
            return
        try:
            content = content_of(storage.open_core_metadata(published(upload, stored)))
        except FileNotFound:
            content = None
        assert content == upload.core_metadata

    def sweep(self, storage: Tested) -> None:
        """Remove what killed writers have left, as the core does after a listing."""
        sweeping = capability(storage, SupportsSweep)
        if sweeping is not None:
            sweeping.sweep()

    def index_of(self, storage: Tested) -> LocalIndex:
        """The local index of a server for this storage. It is up to date."""
        lists = capability(storage, SupportsList) is not None
        index = LocalIndex(
            storage.backend.folders.cache / "contract.sqlite",
            identity="contract",
            always_ready=not lists,
        )
        if lists:
            Synchronizer(
                storage,
                index,
                backend_type="contract",
                name="contract",
                interval=timedelta(seconds=60),
            ).synchronize()
        return index

    # -- secrets ---------------------------------------------------------------------------------

    def test_a_secret_may_do_what_the_storage_says(self, place: Any, tmp_path: Path) -> None:
        """Only exactly the right secrets are accepted; similar and empty ones may do nothing."""
        expected = {
            **self.rights(),
            self.wrong_secret: Access.NONE,
            "": Access.NONE,
            self.write_secret + "x": Access.NONE,
            self.write_secret[:-1]: Access.NONE,
            self.write_secret.swapcase(): Access.NONE,
            "Ünïcode 李": Access.NONE,
        }
        found = {secret: self.open_another(place, tmp_path, secret).access() for secret in expected}
        assert found == expected

    def test_a_secret_may_do_the_same_with_a_project(self, place: Any, tmp_path: Path) -> None:
        """Rights are the same for all projects, unless `rights_per_project` is in the traits."""
        for secret in (self.read_secret, self.write_secret, self.wrong_secret):
            storage = self.open_another(place, tmp_path, secret)
            differs = storage.backend.traits.rights_per_project
            assert differs or storage.access("demo") == storage.access()

    # -- a backend and its views -----------------------------------------------------------------

    def test_making_a_backend_touches_nothing(
        self, place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Creating a backend does no I/O, so that a server can start while the storage is down."""
        folders = new_folders(tmp_path)

        def refuse(*arguments: object, **_options: object) -> None:
            raise AssertionError(f"construction opened something: {arguments!r}")

        with monkeypatch.context() as patch:
            for opener in ("builtins.open", "io.open", "os.open", "os.mkdir", "sqlite3.connect"):
                patch.setattr(opener, refuse)
            patch.setattr("socket.socket.connect", refuse)
            secret = self.secret(place, self.write_secret)
            storage = self.open_backend(place, folders).seen_with(secret)
        assert self.listed(storage) == []

    def test_a_backend_can_be_closed(self, place: Any, tmp_path: Path) -> None:
        """It can be closed unused or used. Another backend for the same storage still works."""
        unused = self.open_backend(place, new_folders(tmp_path))
        unused.close()
        backend = self.open_backend(place, new_folders(tmp_path))
        other = self.open_another(place, tmp_path)
        assert self.listed(backend.seen_with(other.secret)) == []
        assert self.listed(other) == []
        backend.close()
        assert self.listed(other) == []

    def test_what_a_storage_can_do_is_tested(self, storage: Tested) -> None:
        """The test class derives from the contracts of exactly those protocols that it supports."""
        contracts = {
            contract.protocol
            for contract in type(self).__mro__
            if issubclass(contract, StorageContract) and "protocol" in vars(contract)
        } - {None}
        for contract in _all_contracts(StorageContract):
            protocol = vars(contract).get("protocol")
            if protocol is not None:
                can = capability(storage, protocol) is not None
                assert protocol in contracts or not can, (
                    f"the storage has the methods of {protocol.__name__}: derive the test class "
                    f"from {contract.__name__}, or put the protocol into `lacks` of the storage"
                )
                assert protocol not in contracts or can, (
                    f"the test class derives from {contract.__name__}, but the storage lacks "
                    f"methods of {protocol.__name__}, or has it in `lacks`"
                )

    def test_a_storage_behind_a_network_is_tested_as_one(self, storage: Tested) -> None:
        """The test class derives from `RemoteContract` if the settings are `RemoteSettings`."""
        is_remote = isinstance(storage.backend.settings, RemoteSettings)
        assert isinstance(self, RemoteContract) == is_remote

    def test_what_it_can_do_is_enough(self, storage: Tested) -> None:
        """The combination of protocols works; a server refuses others."""
        assert missing_capability(type(storage.backend), storage.lacks) is None

    def test_trouble_is_never_an_absence(self, place: Any, tmp_path: Path) -> None:
        """Every method raises `BackendError` while the storage is missing or fails.

        It must not return an empty result or report that something is missing, and it must not
        raise errors of a library or of the system. It must not retry either, because the core does.
        """
        storage = self.open_another(place, tmp_path)
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
        stored = self.put(storage, upload)
        self.listing(storage, "demo-1.0.tar.gz")
        index = storage.read_index(tmp_path / "index.toml") if has_index(storage) else ""
        self.break_storage(place)
        # With the server that has used the storage, and after a restart of this server.
        again = self.open_backend(place, storage.backend.folders)
        for view in (storage, again.seen_with(storage.secret)):
            for verb, call in calls_of(view, upload, stored, index, tmp_path).items():
                before = self.requests_made(place)
                found = outcome(call)
                # `sweep` says nothing that could be wrong, and may have nothing to do.
                is_silent = verb == "sweep" and found is None
                assert is_silent or isinstance(found, BackendError), f"{verb}: {found!r}"
                secret = storage.secret.reveal()
                assert not secret or secret not in str(found), f"{verb}: the error has the secret"
                after = self.requests_made(place)
                if before is not None and after is not None:
                    assert after - before <= 2, f"{verb} made {after - before} requests"


class RemoteContract(StorageContract):
    """For a storage whose settings derive from `RemoteSettings`."""

    def test_files_go_through_the_server_unless_it_redirects(
        self, storage: Tested, tmp_path: Path
    ) -> None:
        """With `download = "proxy"`, clients are never redirected to the storage."""
        settings = storage.backend.settings
        upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
        file = published(upload, self.put(storage, upload))
        for download in ("proxy", "redirect"):
            backend = type(storage.backend)(
                replace(settings, download=download), storage.backend.folders
            )
            opened = backend.seen_with(storage.secret).open_file(file)
            assert download == "redirect" or not isinstance(opened, Redirect)
            assert content_of(opened) == b"content"


def _all_contracts(base: type[StorageContract]) -> list[type[StorageContract]]:
    found = [base]
    for each in base.__subclasses__():
        found += _all_contracts(each)
    return found
