"""The backend for object stores in the cloud, and for those that speak like them."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from private_pypi.backend import Folders, Traits, system_errors
from private_pypi.backend.objects import ObjectsBackend, ObjectsStorage
from private_pypi.model import StoredFile, Upload
from private_pypi_object_storage.settings import ObjectStorageSettings
from private_pypi_object_storage.store import Abilities, CloudStore


class ObjectStorageView(ObjectsStorage):
    """The view of a repository in a bucket.

    Before a synchronisation and before an upload it is made sure that the store heeds conditions.
    """

    backend: ObjectStorageBackend

    def read_index(self, into: Path, unless: str | None = None) -> str:
        self.backend.check_store()
        return super().read_index(into, unless)

    def list_files(self) -> Iterator[StoredFile]:
        self.backend.check_store()
        yield from super().list_files()

    def list_parts(self) -> Sequence[str]:
        self.backend.check_store()
        return super().list_parts()

    def list_part(self, part: str) -> Iterator[StoredFile]:
        self.backend.check_store()  # another process may have divided the listing
        return super().list_part(part)

    def put_file(self, upload: Upload) -> StoredFile:
        self.backend.check_store()
        return super().put_file(upload)

    def sweep(self) -> None:
        if any(self.backend.settings.write_secret):  # else the credentials may only read
            super().sweep()


class ObjectStorageBackend(ObjectsBackend[ObjectStorageSettings]):
    """A bucket, or the part of it below a prefix."""

    Settings = ObjectStorageSettings
    View = ObjectStorageView
    traits = Traits(
        largest_file=5 * 2**30,  # what S3 stores with one request, and copies with one
        has_journal=True,
        answers_exactly=True,
        needs_admin_secret=False,
    )

    def __init__(self, settings: ObjectStorageSettings, folders: Folders) -> None:
        super().__init__(settings, folders)
        self._checking = threading.Lock()  # held while the store is asked
        self._checked = threading.Event()

    def open_store(self) -> CloudStore:
        return CloudStore(self.settings)

    def check_store(self) -> None:
        """Raise `BackendError` if the store does not heed conditions.

        The store is asked once, and the answer is kept in ROOT. A server that only reads does not
        need conditions, and its credentials may not allow to find out.
        """
        if self._checked.is_set() or not any(self.settings.write_secret):
            return
        with self._checking:
            if self._checked.is_set():
                return
            store = self.store
            assert isinstance(store, CloudStore)
            known = _Remembered(self.folders.cache / "object-storage-probe.json", self.settings)
            found = known.read()
            if found is None:
                found = store.probe()
                known.write(found)
            store.copies, store.lists_from_anywhere = found.copies, found.lists_from_anywhere
            self._checked.set()


@dataclass(frozen=True, slots=True)
class _Remembered:
    """A file that says what was found out about a store."""

    path: Path
    settings: ObjectStorageSettings

    def read(self) -> Abilities | None:
        """What this store can; None if that is not known."""
        try:
            match json.loads(self.path.read_bytes()):
                case {"store": store, "copies": str(copies), "lists_from_anywhere": bool(lists)}:
                    return Abilities(copies, lists) if store == self._store() else None
        except (OSError, ValueError):
            pass
        return None

    def write(self, found: Abilities) -> None:
        with system_errors(f"cannot write {self.path.name!r}"):
            self.path.write_text(json.dumps({"store": self._store(), **asdict(found)}))

    def _store(self) -> str:
        return hashlib.sha256(f"{self.settings.url} {self.settings.endpoint}".encode()).hexdigest()
