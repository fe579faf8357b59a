"""What a remote storage sent, kept on the local disk and checked by hash; never the only copy.

Everything in the folder may be deleted at any time, also while a server runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from private_pypi.errors import BackendError

_SWEEP_BELOW = 0.9  # of the size limit: leave room, so that not every new file sweeps again


class FileCache:
    """Files named by their sha256 in `folder`, at most `max_bytes` of them (bytes)."""

    def __init__(
        self,
        folder: Path,
        tmp: Path,
        *,
        max_bytes: int,
        others: str = "",
        of: FileCache | None = None,
    ) -> None:
        """`others`: a pattern, seen from the parent of `folder`, of the folders of caches that are
        made `of` this one: its limit is for all of them together.
        """
        self._folder = folder
        self._others = others
        self._of = of
        self._tmp = tmp
        self._max_bytes = max_bytes
        # One download for any number of callers that miss the same file at the same time.
        self._stripes = tuple(threading.Lock() for _ in range(64))
        self._size_lock = threading.Lock()  # guards _size
        self._size: int | None = None
        self._count_lock = threading.Lock()  # guards hits and misses
        self.hits = 0
        """How often `find` found something, in this process."""
        self.misses = 0

    def find(self, sha256: str) -> Path | None:
        """The file with this hash, when it is here."""
        path = self._path(sha256)
        try:
            os.utime(path)  # the sweep removes what was not asked for the longest
        except OSError:
            with self._count_lock:
                self.misses += 1
            return None
        with self._count_lock:
            self.hits += 1
        return path

    @property
    def size(self) -> int | None:
        """Bytes that are kept, as far as this process knows; None before its first `add`.

        With those of all caches that share the limit.
        """
        return self._size if self._of is None else self._of.size

    def missing(self, sha256: str) -> threading.Lock:
        """The lock to hold between `find` and `add` of one file."""
        return self._stripes[int(sha256[:2], 16) % len(self._stripes)]

    def add(self, sha256: str, chunks: Iterable[bytes]) -> Path:
        """Store the chunks under their hash; raises `BackendError` when it is another one."""
        return self.take(sha256, chunks)[1]

    def take(self, sha256: str | None, chunks: Iterable[bytes]) -> tuple[str, Path]:
        """The same, with None for whatever hash they have; the hash, and where they are."""
        part = self._tmp / f"cache-{sha256 or 'unnamed'}-{threading.get_ident()}"
        digest = hashlib.sha256()
        size = 0
        try:
            with part.open("wb") as file:
                for chunk in chunks:
                    digest.update(chunk)
                    size += file.write(chunk)
            found = digest.hexdigest()
            if sha256 not in (None, found):
                raise BackendError(
                    f"the storage sent {size} bytes with sha256 {found}, the index says {sha256}"
                )
            path = self._path(found)
            path.parent.mkdir(parents=True, exist_ok=True)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
            close = getattr(chunks, "close", None)
            if close is not None:
                close()
        (self._of or self)._grow(size)
        return found, path

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256

    def _grow(self, size: int) -> None:
        with self._size_lock:
            if self._size is None:
                self._size = sum(entry[1] for entry in self._entries())
            else:
                self._size += size
            if self._size > self._max_bytes:
                self._size = self._sweep()

    def _entries(self) -> list[tuple[float, int, Path]]:
        entries = []
        others = self._folder.parent.glob(self._others) if self._others else ()
        for folder in (self._folder, *others):
            for path in folder.glob("*/*"):
                with contextlib.suppress(FileNotFoundError):
                    stat = path.stat()
                    entries.append((stat.st_mtime, stat.st_size, path))
        return entries

    def _sweep(self) -> int:
        entries = sorted(self._entries())
        size = sum(entry[1] for entry in entries)
        # A response may just be opening a file that was asked for a moment ago.
        young = time.time() - 60
        for asked_at, file_size, path in entries:
            if size <= self._max_bytes * _SWEEP_BELOW or asked_at > young:
                break
            path.unlink(missing_ok=True)
            size -= file_size
        return size
