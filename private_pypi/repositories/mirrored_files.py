"""The files and core metadata of a mirror, from the disk cache or from the upstream.

If the upstream does not say a hash, the file is checked to be what its name says, and its hash is
remembered in the local index: other bytes under this name are refused from then on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from io import BytesIO
from typing import BinaryIO, cast

from private_pypi.backend import (
    AnyStorage,
    Folders,
    SupportsParts,
    SupportsUpstream,
    capability,
)
from private_pypi.distributions.core_metadata import (
    LARGEST_METADATA,
    require_release,
    require_sound,
)
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    FileNotFound,
    InvalidUpload,
    StorageFull,
    Unsupported,
)
from private_pypi.index.examining import remote_file
from private_pypi.index.mirrored import MirroredFile, MirroredIndex
from private_pypi.model import Download, ListedFile, Redirect, Stream
from private_pypi.repositories.opening import Opened, core_metadata_in, whole
from private_pypi.storage.arriving import Arriving, Check
from private_pypi.storage.file_cache import CachedFile, FileCache
from private_pypi.storage.recent_trouble import RecentTrouble
from private_pypi.storage.remote_files import ReadPart, RemoteFile

_log = logging.getLogger(__name__)

_MOST_FETCHES = 32  # files that are fetched at the same time
_MOST_AHEAD = 100  # core metadata that are in memory until somebody asks
_LARGEST_AHEAD = 32 * 1024  # bytes of each of them
_LARGEST_UNKNOWN = 8 * 2**30  # bytes of a file whose size the upstream does not say


class MirroredFiles:
    """Opens the files of one upstream."""

    def __init__(
        self,
        index: MirroredIndex,
        storage: AnyStorage,
        upstream: SupportsUpstream,
        trouble: RecentTrouble,
        *,
        folders: Folders,
        cache_bytes: int,
        offline: bool,
        write_pages: Callable[[], object],
    ) -> None:
        """`upstream` is the same object as `storage`. With `offline`, it is never asked.

        `write_pages` has all pages written into the local index.
        """
        self._index = index
        self._storage = storage
        self._upstream = upstream
        self._trouble = trouble
        self._offline = offline
        self._write_pages = write_pages
        self._ahead: dict[str, bytes] = {}  # core metadata by hash, for the first who asks
        self._ahead_lock = threading.Lock()  # guards them
        self._files = FileCache(
            folders.cache / "files",
            folders.tmp,
            max_bytes=cache_bytes,
            most_fetches=_MOST_FETCHES,
        )
        self._metadata = FileCache(
            folders.cache / "metadata",
            folders.tmp,
            max_bytes=cache_bytes // 10,
            most_fetches=_MOST_FETCHES,
        )

    def caches(self) -> Mapping[str, FileCache]:
        """The disk caches by name."""
        return {"files": self._files, "metadata": self._metadata}

    def is_kept(self, file: ListedFile) -> bool:
        """Whether a file is in the disk cache."""
        return file.sha256 is not None and self._files.has(file.sha256)

    def has_to_fetch(self, file: MirroredFile, core_metadata: bool) -> bool:
        """Whether a file (or its core metadata) is known by its hash and not in the disk cache.

        It may be in memory, because it was fetched ahead.
        """
        sha256 = file.core_metadata_sha256 if core_metadata else file.sha256
        cache = self._metadata if core_metadata else self._files
        return sha256 is not None and (sha256 in self._ahead or not cache.has(sha256))

    def open_file(self, file: MirroredFile, awaited: Arriving | None) -> Opened:
        """The content of a file; see `Repository.open_file`."""

        def ask(arriving: Arriving) -> Download:
            self._require_online(file.filename)
            try:
                return self._storage.open_file(file)
            except FileNotFound:
                raise _gone(file) from None

        key: Hashable = file.sha256 or ("file", file.location)
        return self._files.fetch(
            key,
            lambda arriving: self._trouble.ask(("file", key), lambda: ask(arriving)),
            sha256=file.sha256,
            size=file.size,
            awaited=awaited,
            check=Check(
                hashes=file.hashes,
                arrived=partial(self._learn_file, file) if file.sha256 is None else _accept,
                largest=_LARGEST_UNKNOWN,
            ),
        )

    def _learn_file(
        self, file: MirroredFile, sha256: str, size: int, read: ReadPart | None
    ) -> None:
        """Remember the hash of a file that is what its name says."""
        if read is None:
            _log.warning("the hash of %s is not remembered: the disk is full", file.filename)
            return
        try:
            require_sound(cast(BinaryIO, RemoteFile(size, read)), file.filename)
        except InvalidUpload as error:
            raise BackendError(f"the upstream sent a damaged file: {error}") from None
        self._learn(file, self._index.learn_file, sha256, size)

    def open_core_metadata(
        self, file: MirroredFile, awaited: Arriving | None, *, ahead: bool = False
    ) -> Opened:
        """The core metadata, from the disk cache, from the upstream, or read from the wheel.

        `ahead`: nobody has asked for them yet.
        """
        sha256 = file.core_metadata_sha256
        content = self._taken(sha256) if sha256 is not None and awaited is None else None
        if content is not None:
            return CachedFile(BytesIO(content), len(content))

        def ask(arriving: Arriving) -> Download:
            if file.has_upstream_metadata and not self._offline:
                try:
                    return self._upstream.open_metadata(file)
                except FileNotFound:
                    if not file.filename.endswith(".whl"):
                        raise BackendError(
                            f"the upstream announces core metadata of {file.filename!r}, and then "
                            "says that they do not exist"
                        ) from None
            content = self._core_metadata_in(file)
            return Stream(iter([content]), len(content))

        def learn(digest: str, size: int, read: ReadPart | None) -> None:
            if read is None:
                return  # the disk is full
            try:
                require_release(read(0, size), file.filename)
            except InvalidUpload as error:
                raise BackendError(f"the upstream has wrong core metadata: {error}") from None
            self._learn(file, self._index.learn_metadata, digest, size)

        arrived = learn if sha256 is None else self._keep_ahead if ahead else _accept
        key: Hashable = sha256 or ("metadata", file.location)
        return self._metadata.fetch(
            key,
            lambda arriving: self._trouble.ask(("metadata", key), lambda: ask(arriving)),
            sha256=sha256,
            size=None,
            awaited=awaited,
            check=Check(arrived=arrived, largest=LARGEST_METADATA),
        )

    def fetch_core_metadata(self, file: MirroredFile) -> None:
        """Begin to fetch core metadata whose hash is known, for somebody who may ask for them.

        Nothing is done while many are fetched for those who have asked.
        """
        sha256 = file.core_metadata_sha256
        if sha256 is None or self._metadata.fetching >= _MOST_FETCHES or self._metadata.has(sha256):
            return
        opened = self.open_core_metadata(file, None, ahead=True)
        if isinstance(opened, CachedFile):
            opened.file.close()

    def _keep_ahead(self, sha256: str, size: int, read: ReadPart | None) -> None:
        """Keep what nobody has asked for yet in memory as well, until somebody does."""
        if read is None or size > _LARGEST_AHEAD:
            return
        with self._ahead_lock:
            self._ahead[sha256] = read(0, size)
            if len(self._ahead) > _MOST_AHEAD:
                del self._ahead[next(iter(self._ahead))]

    def _taken(self, sha256: str) -> bytes | None:
        """Core metadata that were kept in memory, which they are no longer; None: they were not."""
        with self._ahead_lock:
            content = self._ahead.pop(sha256, None)
        if content is not None:
            self._metadata.note_hit()
        return content

    def _core_metadata_in(self, file: MirroredFile) -> bytes:
        """The core metadata from the file, of which only some parts are fetched if possible."""
        kept = None if file.sha256 is None else self._files.find(file.sha256, file.size)
        if kept is not None:
            return core_metadata_in(kept.file, file.filename)
        self._require_online(file.filename)
        parts = capability(self._storage, SupportsParts)
        try:
            size = self._upstream.file_size(file) if file.size is None else file.size
            if parts is not None and size is not None:
                return core_metadata_in(remote_file(parts, file, size), file.filename)
        except Unsupported:
            pass
        except FileNotFound:
            raise _gone(file) from None
        opened = whole(self.open_file(file, None))
        assert not isinstance(opened, Redirect)
        return core_metadata_in(opened, file.filename)

    def _require_online(self, filename: str) -> None:
        if self._offline:
            raise BackendUnavailable(
                f"this mirror is offline, and {filename!r} was not downloaded before"
            )

    def _learn(
        self,
        file: MirroredFile,
        learn: Callable[[ListedFile, str, int], str],
        sha256: str,
        size: int,
    ) -> None:
        """Remember a hash that the upstream does not say. Raises if another one is remembered."""
        try:
            self._write_pages()  # a hash is remembered in the row of a file that is there
            counts = learn(file, sha256, size)
        except StorageFull as error:
            _log.warning("the hash of %s is not remembered: %s", file.filename, error)
            return
        if counts != sha256:
            raise BackendError(
                f"{file.filename!r} has sha256 {sha256}, but when it was downloaded first, it had "
                f"{counts}: the upstream, which does not tell hashes, has replaced it"
            )


def _accept(sha256: str, size: int, read: ReadPart | None) -> None:
    """What is known already was compared."""


def _gone(file: MirroredFile) -> BackendError:
    return BackendError(
        f"the upstream lists {file.filename!r}, and then says that it does not exist"
    )
