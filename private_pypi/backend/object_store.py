"""The interface of an object store: what `private_pypi.backend.objects` needs of one.

An object has a key, content, a revision and a time.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from private_pypi.errors import NotFound
from private_pypi.model import Download, Stream

NO_OBJECT = ""
"""The revision of an object that does not exist."""

RESERVED = ".private_pypi/"
"""What the keys of all objects begin with that are neither files nor belong to one."""

PARTS = f"{RESERVED}parts/"
"""What the keys begin with under which a store may keep something while it stores an object. What
is left there by a process that was killed is removed after a day."""


class ObjectNotFound(NotFound):
    """There is no object with this key. Do not raise it for failures such as a missing bucket."""


class ObjectChanged(Exception):
    """The object was not replaced, because it no longer has the expected revision."""


class ObjectUnchanged(Exception):
    """The object was not sent, because it still has the revision that the caller knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """An object in a listing."""

    key: str
    size: int  # bytes
    revision: str  # a different one for each content; never `NO_OBJECT`
    modified_at: datetime  # UTC, by the clock of the store


class ObjectStore(abc.ABC):
    """An object store. Its methods raise the same errors as a `Storage`, and do not retry.

    What a key has before its last slash is called its folder here.
    """

    lists_from_anywhere: bool = False
    """Whether a listing that begins in the middle costs no more than its own pages. A large store
    is then listed by several threads."""

    @abc.abstractmethod
    def get(self, key: str, unless: str = NO_OBJECT) -> tuple[Stream, str]:
        """The content of an object and its revision.

        Raises `ObjectNotFound`, and `ObjectUnchanged` if the revision is `unless`.
        """

    @abc.abstractmethod
    def get_part(self, key: str, start: int, length: int) -> bytes:
        """The `length` bytes from position `start`; fewer at the end. Raises `ObjectNotFound`."""

    @abc.abstractmethod
    def put(self, key: str, content: Path | bytes, *, replaces: str) -> str:
        """Store an object if its revision is still `replaces`, and return the new revision.

        With `NO_OBJECT`, store it only if there is no such object. Otherwise, raise
        `ObjectChanged`. When the call returns, the object must survive a power cut. The revisions
        of this method and of `get` are the same; those of a listing may be others.
        """

    @abc.abstractmethod
    def list(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        """The objects whose keys begin with `prefix` and come after `after`.

        Those of one folder come one after another, ordered by their keys as bytes. Folders are
        ordered by their names, with or without the slash (`object_listing`). Pages are fetched
        inside the iterator. An object is included as soon as `put` has returned.
        """

    def folders(self) -> Iterable[str]:
        """What keys have before their first slash, in any order; asked for in order to divide a
        long listing. Override it if the store can do this without listing everything."""
        return {each.key.partition("/")[0] for each in self.list("") if "/" in each.key}

    @abc.abstractmethod
    def delete(self, *keys: str) -> None:
        """Delete those of the objects that exist."""

    @abc.abstractmethod
    def link(self, key: str, filename: str) -> Download | None:
        """An address where clients can fetch an object without credentials; None if impossible.

        The answer there should have the name `filename` in Content-Disposition.
        """

    def sweep(self) -> None:  # noqa: B027 - most stores have nothing of this kind
        """Remove what killed writers left more than a day ago, and what no listing shows."""

    def close(self) -> None:  # noqa: B027 - most stores have nothing to close
        """Close all connections."""
