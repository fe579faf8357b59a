"""An object store in this process that seems to have any number of files, and keeps none of them.

Its keys are computed when they are listed, so that what is measured is the memory of who lists.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Final

from private_pypi.backend import Folders, Secret, Traits
from private_pypi.backend.object_store import (
    NO_OBJECT,
    ObjectChanged,
    ObjectNotFound,
    ObjectStore,
    ObjectUnchanged,
    StoredObject,
)
from private_pypi.backend.objects import ObjectsBackend, ObjectsSettings
from private_pypi.errors import BackendUnavailable
from private_pypi.index.rebuilding import IndexUpdate, update_index
from private_pypi.model import Download, Stream, format_time
from private_pypi.storage.retrying import retrying

_FILES: Final = 10  # of each project
_INDEX: Final = "index.toml"
_PAGE: Final = 1000  # objects that a request gives
_STORED: Final = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class ManyObjects(ObjectStore):
    """A store with `files` files, a multiple of ten, of which each has a record and metadata."""

    files: int
    index: Path
    """Where the index document is."""
    delay: float = 0.0  # seconds that each page of a listing takes; nothing else takes any
    after_page: Callable[[], None] = lambda: None
    """Called after each page of a whole listing. It may raise an error, or end the process."""
    pages: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.lists_from_anywhere = True
        self._projects = range(self.files // _FILES)

    def list(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        """The keys below a prefix, in pages as a real store gives them."""
        begin = max(prefix, after).partition("/")[0]
        first = max(0, bisect.bisect_left(self._projects, begin, key=_name) - 1)
        given = 0
        for number in self._projects[first:]:
            for each in _objects_of(_name(number)):
                if each.key[: len(prefix)] > prefix and not each.key.startswith(prefix):
                    return
                if each.key > after and each.key.startswith(prefix):
                    if given % _PAGE == 0 and not prefix:
                        self._turn_page()
                    given += 1
                    yield each

    def _turn_page(self) -> None:
        time.sleep(self.delay)
        self.pages += 1
        self.after_page()

    def folders(self) -> Iterable[str]:
        """The names of the projects."""
        return map(_name, self._projects)

    def get(self, key: str, unless: str = NO_OBJECT) -> tuple[Stream, str]:
        """The index document, or a record."""
        if key == _INDEX:
            if not self.index.exists():
                raise ObjectNotFound(key)
            revision = self._revision()
            if revision == unless:
                raise ObjectUnchanged
            file = self.index.open("rb")
            chunks = iter(lambda: file.read(2**20), b"")
            return Stream(chunks, self.index.stat().st_size), revision
        filename = key.partition("/")[2]
        content = json.dumps(_record_of(filename.rpartition(".whl.")[0] + ".whl")).encode()
        return Stream(iter([content]), len(content)), "1"

    def put(self, key: str, content: Path | bytes, *, replaces: str) -> str:
        """Only the index document is kept."""
        assert key == _INDEX
        assert isinstance(content, Path)
        if (self._revision() if self.index.exists() else NO_OBJECT) != replaces:
            raise ObjectChanged
        copy = self.index.with_suffix(".new")
        shutil.copyfile(content, copy)
        copy.replace(self.index)
        return self._revision()

    def _revision(self) -> str:
        status = self.index.stat()
        return f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"

    def get_part(self, key: str, start: int, length: int) -> bytes:
        """There is no content."""
        raise BackendUnavailable("these files have no content")

    def delete(self, *keys: str) -> None:
        """There is nothing that could be deleted."""

    def link(self, key: str, filename: str) -> Download | None:
        """There are no addresses."""
        return None


def _name(number: int) -> str:
    return f"acme-{number:07d}"


def _objects_of(project: str) -> Iterator[StoredObject]:
    for version in range(_FILES):
        filename = f"{project.replace('-', '_')}-{version}.0-py3-none-any.whl"
        key = f"{project}/{filename}"
        digest = hashlib.sha256(filename.encode()).hexdigest()
        for suffix in ("", f".{digest}.metadata", f".{digest}.record"):
            yield StoredObject(
                key=f"{key}{suffix}", size=len(filename), revision=digest[:32], modified_at=_STORED
            )


def _record_of(filename: str) -> dict[str, str]:
    return {
        "name": filename.partition("-")[0],
        "sha256": hashlib.sha256(filename.encode()).hexdigest(),
        "size": str(len(filename)),
        "uploaded_at": format_time(_STORED),
        "requires_python": ">=3.9",
        "summary": "A package that is only listed",
    }


class ManyObjectsBackend(ObjectsBackend[ObjectsSettings]):
    """A repository in such a store."""

    traits: ClassVar[Traits] = Traits(
        largest_file=2**30, answers_exactly=True, needs_admin_secret=False
    )

    def __init__(self, store: ManyObjects, folders: Folders) -> None:
        settings = ObjectsSettings(
            name="many", max_file_bytes=2**30, write_secret=(Secret("write"),)
        )
        super().__init__(settings, folders)
        self._many = store

    def open_store(self) -> ObjectStore:
        """The store."""
        return self._many


def folders_of(folder: Path) -> Folders:
    """The folders of a server, which are made."""
    folders = Folders(cache=folder / "cache", lock=folder / "lock", tmp=folder / "tmp")
    for each in (folders.cache, folders.lock, folders.tmp):
        each.mkdir(exist_ok=True, parents=True)
    return folders


def update(folder: Path, store: ManyObjects) -> IndexUpdate:
    """Update the index document of such a store; `folder` is that of a server, below which there
    is everything."""
    folders = folders_of(folder)
    storage = ManyObjectsBackend(store, folders).seen_with(Secret("write"))
    return update_index(
        retrying(storage),
        backend_type="many",
        name="many",
        folder=folders.tmp,
        keep=folders.cache,
    )
