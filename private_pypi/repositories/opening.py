"""The content of files, from the storage or from the cache on the local disk; checks no rights."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, TypeVar, cast

from private_pypi.backend import (
    AnyBackend,
    AnyStorage,
    CachedSettings,
    SupportsAliases,
    SupportsCoreMetadata,
    SupportsParts,
    capability,
)
from private_pypi.distributions.core_metadata import LARGEST_METADATA, read_core_metadata
from private_pypi.errors import (
    AccessError,
    BackendError,
    BackendUnavailable,
    FileNotFound,
    InvalidUpload,
    NotFound,
    PrivatePypiError,
    WrongSecret,
)
from private_pypi.index.examining import chunks_of, handle_of, remote_file
from private_pypi.model import DistributionFile, Download, LocalFile, Redirect, Stream
from private_pypi.storage.arriving import Arriving
from private_pypi.storage.file_cache import CachedFile, FileCache, blocks, close_stream
from private_pypi.storage.recent_trouble import RecentTrouble
from private_pypi.storage.remote_files import RemoteFile

T = TypeVar("T")

Opened = LocalFile | CachedFile | Arriving | Redirect
"""The content of a file: here, arriving, or elsewhere."""

_CACHE_BYTES = 5 * 2**30  # if the settings of the backend have no limit


@dataclass(frozen=True, slots=True)
class SeenWith:
    """A storage as one secret sees it."""

    storage: AnyStorage
    key: bytes  # of the secret
    forget: Callable[[], None]  # forgets the rights of the secret

    def ask(self, call: Callable[[], T]) -> T:
        """Make a call of the storage. If it refuses the secret, its rights are forgotten."""
        try:
            return call()
        except WrongSecret:
            self.forget()
            raise


class Opener:
    """Opens the files of one repository."""

    def __init__(
        self,
        backend: AnyBackend,
        *,
        trouble: RecentTrouble,
        share: Opener | None = None,
    ) -> None:
        """`trouble`: errors of the storage that are repeated for a moment.

        `share`: for a tenant, the opener of its table: the limits of that one's caches are for the
        table and all its tenants together.
        """
        settings, folders = backend.settings, backend.folders
        self.opens_here = backend.traits.opens_here
        self._trouble = trouble
        limit = settings.cache_bytes if isinstance(settings, CachedSettings) else _CACHE_BYTES
        self.files: FileCache = FileCache(
            folders.cache / "files",
            folders.tmp,
            max_bytes=limit,
            others="tenants/*/files",
            of=None if share is None else share.files,
        )
        self.metadata: FileCache = FileCache(
            folders.cache / "metadata",
            folders.tmp,
            max_bytes=limit // 10,
            others="tenants/*/metadata",
            of=None if share is None else share.metadata,
        )

    def open_file(self, file: DistributionFile, seen: SeenWith, awaited: Arriving | None) -> Opened:
        """The content of a file. Files of remote storages go through the disk cache."""
        if self.opens_here:
            try:
                opened = seen.storage.open_file(file)
            except InvalidUpload as error:  # it has become something else since it was listed
                raise BackendError(str(error)) from error
            if not isinstance(opened, Stream):
                return opened
            close_stream(opened)
        return self._fetch(
            self.files,
            file.sha256,
            file.size,
            lambda: seen.storage.open_file(file),
            seen,
            awaited,
        )

    def open_core_metadata(
        self, file: DistributionFile, seen: SeenWith, awaited: Arriving | None
    ) -> Opened:
        """The core metadata as advertised, byte for byte (protocol 29).

        They are read from the file if the storage has none beside it, because it was not published
        through a server, or if those in the storage are not what is advertised.
        """
        sha256 = file.core_metadata_sha256
        if sha256 is None:
            raise FileNotFound(file.filename + ".metadata")
        keeping = capability(seen.storage, SupportsCoreMetadata)
        if keeping is not None and self.opens_here:
            try:
                opened = keeping.open_core_metadata(file)
            except FileNotFound:
                keeping = None
            else:
                if isinstance(opened, Redirect):
                    return opened
                if isinstance(opened, Stream):
                    close_stream(opened)
                elif _has_sha256(opened, sha256):
                    return opened
                else:
                    keeping = None

        def ask() -> Download:
            if keeping is not None:
                with contextlib.suppress(FileNotFound):
                    return keeping.open_core_metadata(file)
            content = self._read_core_metadata(file, seen)
            return Stream(iter([content]), len(content))

        return self._fetch(self.metadata, sha256, None, ask, seen, awaited)

    def open_alias(
        self,
        alias: str,
        filename: str,
        storage: SupportsAliases,
        seen: SeenWith,
        awaited: Arriving | None,
    ) -> Opened:
        """What the storage has under an alias: an address that an older server gave to a file."""

        def ask(arriving: Arriving) -> Download:
            stored = seen.ask(lambda: storage.find_alias(alias, filename))
            arriving.sha256, arriving.size = stored.sha256, stored.size
            kept = None if stored.sha256 is None else self.files.find(stored.sha256, stored.size)
            if kept is not None:
                return Stream(blocks(kept.file), kept.size)
            return seen.ask(lambda: seen.storage.open_file(handle_of(stored)))

        # Another secret may not be allowed to see it, so the key of the secret is a part.
        key = ("alias", alias, filename, seen.key)
        return self.files.fetch(key, ask, sha256=None, size=None, awaited=awaited)

    def _fetch(
        self,
        cache: FileCache,
        sha256: str,
        size: int | None,
        ask: Callable[[], Download],
        seen: SeenWith,
        awaited: Arriving | None,
    ) -> Opened:
        mine = seen.key
        if awaited is not None and awaited.asked_with != mine and _is_refusal(awaited.error):
            awaited = None  # the storage refused another secret, and may accept this one
        return cache.fetch(
            sha256,
            lambda arriving: self._trouble.ask((mine, sha256), lambda: seen.ask(ask)),
            sha256=sha256,
            size=size,
            asked_with=mine,
            awaited=awaited,
        )

    def _read_core_metadata(self, file: DistributionFile, seen: SeenWith) -> bytes:
        return seen.ask(lambda: core_metadata_in(self._readable(file, seen), file.filename))

    def _readable(self, file: DistributionFile, seen: SeenWith) -> BinaryIO:
        """The file, open. If the storage can give parts of a file, only a few parts are fetched."""
        parts = capability(seen.storage, SupportsParts)
        if parts is not None:
            kept = self.files.find(file.sha256, file.size)
            return remote_file(parts, file, file.size) if kept is None else kept.file
        opened = whole(self.open_file(file, seen, None))
        if isinstance(opened, Redirect):
            there = opened
            arriving = self.files.fetch(
                ("elsewhere", file.sha256),
                lambda arriving: Stream(chunks_of(there, file.filename), file.size),
                sha256=file.sha256,
                size=file.size,
            )
            opened = whole(arriving)
        assert not isinstance(opened, Redirect)
        return opened


def core_metadata_in(source: BinaryIO, filename: str) -> bytes:
    """The core metadata in an open file, which is closed. Raises `BackendError`."""
    try:
        with contextlib.closing(source):
            content = read_core_metadata(source, filename)
    except InvalidUpload as error:
        raise BackendError(str(error)) from error
    except OSError as error:
        raise BackendUnavailable(f"{filename!r} cannot be read: {error.strerror}") from error
    if content is None:
        raise BackendError(f"{filename!r} has no core metadata")
    return content


def whole(opened: Opened) -> BinaryIO | Redirect:
    """Wait until the content is here, and return it as an open file, which the caller closes.

    Raises the error of the storage, and `OSError`.
    """
    if isinstance(opened, Arriving):
        opened.wait_for_all()
        outcome = opened.outcome()
        if isinstance(outcome, Arriving):
            assert outcome.size is not None
            return cast(BinaryIO, RemoteFile(outcome.size, outcome.peek))
        opened = outcome
    match opened:
        case LocalFile(file=file) | CachedFile(file=file):
            return file
        case Redirect():
            return opened


def _has_sha256(opened: LocalFile, sha256: str) -> bool:
    """Whether a file has this hash. If not, it is closed."""
    digest = ""
    try:
        digest = hashlib.sha256(opened.file.read(LARGEST_METADATA + 1)).hexdigest()
        opened.file.seek(0)
    except OSError as error:
        raise BackendError(f"core metadata cannot be read: {error.strerror}") from error
    finally:
        if digest != sha256:
            opened.file.close()
    return digest == sha256


def _is_refusal(error: PrivatePypiError | None) -> bool:
    return isinstance(error, AccessError | NotFound)
