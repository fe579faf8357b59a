"""Small files and core metadata in memory, so that the loop of the server can send them at once.

The bytes are those that the index names: they are kept by their SHA-256, after it was checked.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Callable, Hashable
from io import BytesIO

from private_pypi.errors import BackendUnavailable
from private_pypi.model import LocalFile
from private_pypi.repositories import Grant, Opened
from private_pypi.storage.bounded import BoundedBytes
from private_pypi.storage.file_cache import CachedFile

_BYTES = 16 * 2**20
_LARGEST = 32 * 1024  # bytes; the kernel takes as much of an answer at once, also from slow clients


class NotInMemory(BackendUnavailable):
    """The file has to be opened, which the loop must not do."""

    def __init__(self) -> None:
        super().__init__("the file is not in memory")


class SmallFiles:
    """The content of files that were asked for lately.

    Whoever asks for a file here was let in and found the file in the index before. Only content
    that a repository sends itself is kept: where it redirects, it goes on to do so.
    """

    def __init__(self) -> None:
        self._files: BoundedBytes[bytes] = BoundedBytes(_BYTES)

    def find(
        self, granted: Grant, sha256: str | None, open_it: Callable[[], Opened] | None = None
    ) -> CachedFile:
        """The content with this hash from memory; raises `NotInMemory`. Calls nothing."""
        content = self._files.find(_key(granted, sha256))
        if content is None:
            raise NotInMemory
        return CachedFile(BytesIO(content), len(content))

    def open(self, granted: Grant, sha256: str | None, open_it: Callable[[], Opened]) -> Opened:
        """The content with this hash from memory, or else by `open_it`; it is kept if small."""
        try:
            return self.find(granted, sha256)
        except NotInMemory:
            opened = open_it()
        content = _small_content(opened, sha256)
        if content is None:
            return opened
        self._files.keep(_key(granted, sha256), content, len(content) + 500)
        return CachedFile(BytesIO(content), len(content))


def _key(granted: Grant, sha256: str | None) -> Hashable:
    # Of each repository, because another one may redirect to the same file. A weak reference, so
    # that one of a former configuration is not kept.
    return weakref.ref(granted.repository), sha256


def _small_content(opened: Opened, sha256: str | None) -> bytes | None:
    """The bytes of an open file, which is closed; None if it is none to keep, and still open."""
    if sha256 is None:
        return None
    match opened:
        case LocalFile(file=file):
            size = os.fstat(file.fileno()).st_size
        case CachedFile(file=file, size=size):
            pass
        case _:
            return None
    if size > _LARGEST:
        return None
    try:
        content = file.read(size)
    except OSError as error:
        file.close()
        raise BackendUnavailable(f"the file cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        file.seek(0)  # somebody has changed it: answered as a file that is not small
        return None
    file.close()
    return content
