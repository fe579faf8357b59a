"""Copies of files of a remote storage on the local disk, named by their hashes.

They are never the only copies: everything in the folder may be deleted at any time, also while a
server runs.

One fetch serves all callers who ask for the same file while it arrives (see `arriving`). A file
gets its name in the cache when it is complete, checked and synced to the disk. Then its
modification time is set to a fixed moment of the past. A file with another modification time was
changed by another program or is of an older version, and its hash is checked before it is used. The
access time is the time of the last use.

Small files are not synced: for the 120 files of an installation that took longer than to fetch
them. Instead, the hash of a small file is checked at each use, which takes less than 0.1 ms.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from private_pypi.errors import BackendError, BackendUnavailable, PrivatePypiError
from private_pypi.model import Download, LocalFile, Redirect, Stream
from private_pypi.storage.arriving import SMALL, Arriving, Check, GivenUp
from private_pypi.system.background import DaemonThreads

_log = logging.getLogger(__name__)

_SWEEP_BELOW = 0.9  # of the size limit, so that the next new file does not sweep again
_CHECKED = 1_000_000_000  # unix seconds: the modification time of files that were checked
_BLOCK = 1 << 20  # bytes
_ATTEMPTS = 3  # to fetch a file whose transfer breaks off
_PAUSE = 0.5  # seconds between them
_MOST_FETCHES = 8  # at the same time, in all caches that share a limit


@dataclass(frozen=True, slots=True)
class CachedFile:
    """A complete file of the cache, open. The caller closes it."""

    file: BinaryIO
    size: int  # bytes


class FileCache:
    """Files in `folder`, named by their sha256, of at most `max_bytes` together.

    Safe for many threads and processes.
    """

    def __init__(
        self,
        folder: Path,
        tmp: Path,
        *,
        max_bytes: int,
        others: str = "",
        of: FileCache | None = None,
        most_fetches: int = _MOST_FETCHES,
    ) -> None:
        """`tmp`: a folder for temporary files on the same file system.

        Several caches may share the limits of one of them: that one is given as `of` to the others,
        and its `others` is a glob pattern, relative to the parent of its folder, of their folders.
        At most `most_fetches` files are fetched at the same time.
        """
        self._folder = folder
        self._others = others
        self._of = of
        self._tmp = tmp
        self._max_bytes = max_bytes
        self._threads: DaemonThreads = (
            DaemonThreads(most_fetches, f"fetch {folder.name}") if of is None else of._threads
        )
        self._arriving_lock = threading.Lock()  # guards these
        self._arriving: dict[Hashable, Arriving] = {}  # what is being fetched, by its key
        self._ended = 0  # how many of them have ended
        self._size_lock = threading.Lock()  # guards _size
        self._size: int | None = None
        self._count_lock = threading.Lock()  # guards the counts
        self._is_refused = False  # whether the disk did not take the last file
        self.hits = 0
        """How often a file was found here or was arriving, in this process."""
        self.misses = 0
        """How often a file had to be fetched."""
        self.damaged = 0
        """How many files were dropped because they had the wrong content."""
        self.not_kept = 0
        """How many files were passed on without being kept, because the disk did not take them."""

    @property
    def size(self) -> int | None:
        """Bytes in all caches that share the limit, as counted by this process.

        None before this process has kept its first file.
        """
        return self._size if self._of is None else self._of.size

    @property
    def fetching(self) -> int:
        """How many files are being fetched, or wait for that."""
        return len(self._arriving)

    def find(self, sha256: str, size: int | None = None) -> CachedFile | None:
        """The file with this hash and size (None: any size), if it is here and complete."""
        found = self._open(sha256, size)
        self._count(hit=found is not None)
        return found

    def note_hit(self) -> None:
        """Count a file that was here, and of which the caller had the content in memory."""
        self._count(hit=True)

    def has(self, sha256: str) -> bool:
        """Whether a file with this hash is here; it is not opened, and does not count as a hit."""
        return self._path(sha256).is_file()

    def fetch(
        self,
        key: Hashable,
        ask: Callable[[Arriving], Download],
        *,
        sha256: str | None,
        size: int | None,
        asked_with: bytes = b"",
        awaited: Arriving | None = None,
        check: Check | None = None,
    ) -> CachedFile | Arriving:
        """The file if it is here, else a transfer that has begun; waits for nothing.

        One call of `ask`, in another thread, fetches the file for all callers with the same key. It
        may set the size and the hash of the `Arriving` if they are None. `awaited`: what an earlier
        call returned, if the caller has waited for it. Then this is the result again, however the
        transfer ended. `check`: see `Check`.
        """
        if awaited is not None and awaited.key == key and awaited.can_serve(0):
            return awaited
        ended = self._ended
        found = self._here(key, sha256, size)
        self._count(hit=found is not None)
        if found is not None:
            return found
        with self._arriving_lock:
            # It may be here by now: a transfer is kept on the disk before it is forgotten here.
            if key in self._arriving or ended != self._ended:
                found = self._here(key, sha256, size)
            if found is not None:
                return found
            arriving = Arriving(key, sha256=sha256, size=size, asked_with=asked_with, check=check)
            self._arriving[key] = arriving
        self._threads.submit(self._fetched, arriving, ask)
        return arriving

    def keep(self, sha256: str, content: bytes) -> None:
        """Keep a file whose hash was checked. An error of the disk is only logged."""
        scratch = self._scratch()
        try:
            file = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                rest = memoryview(content)
                while rest:
                    rest = rest[os.write(file, rest) :]
                if len(content) > SMALL:
                    os.utime(file, (time.time(), _CHECKED))
                    os.fsync(file)
            finally:
                os.close(file)
            self._move(scratch, sha256)
        except OSError as error:
            _unlink(scratch)
            self._refused(error)
        else:
            self._grow(len(content))

    # -- fetching: in other threads --------------------------------------------------------------

    def _fetched(self, arriving: Arriving, ask: Callable[[Arriving], Download]) -> None:
        try:
            if arriving.is_forsaken:  # while other files were fetched
                raise BackendUnavailable("nobody waits for the file any more")
            opened = _as_stream(ask(arriving))
            if isinstance(opened, Stream):
                self._receive(arriving, opened, ask)
            else:
                arriving.is_elsewhere(opened)
        except PrivatePypiError as error:
            arriving.fail(error)
        except Exception as error:
            _log.exception("a file could not be fetched")
            arriving.fail(BackendError(f"internal error ({type(error).__name__})"))
        finally:
            with self._arriving_lock:
                self._ended += 1
                for key in (arriving.key, arriving.digest):
                    if self._arriving.get(key) is arriving:
                        del self._arriving[key]

    def _receive(
        self, arriving: Arriving, stream: Stream, ask: Callable[[Arriving], Download]
    ) -> None:
        scratch = self._scratch()
        try:
            with _closing(stream):
                arriving.begin(stream.size, scratch)
                self._follow(arriving, stream, ask)
            # A caller may know the hash as soon as `finish` does, before the file has its name.
            with self._arriving_lock:
                self._arriving.setdefault(arriving.digest, arriving)
            arriving.finish()
            self._keep_arrived(arriving, scratch)
        except PrivatePypiError as error:
            if arriving.has() and not arriving.is_over:
                _log.warning("a transfer to clients breaks off: %s", error)
            raise
        finally:
            if arriving.small_content is None:
                _unlink(scratch)

    def _follow(
        self, arriving: Arriving, stream: Stream, ask: Callable[[Arriving], Download]
    ) -> None:
        """Feed what the storage sends. If it breaks off, ask again and go on with the rest.

        Readers have received the first part already, and most clients do not ask again. If no hash
        is known, the rest may belong to another file, so such a transfer is not continued.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                _feed(arriving, stream)
                return
            except GivenUp:
                raise
            except BackendUnavailable as error:
                if attempt == _ATTEMPTS or (arriving.received and not arriving.is_verifiable):
                    raise
                _log.info("a transfer is begun again: %s", error)
            time.sleep(_PAUSE)
            again = _as_stream(ask(arriving))
            if not isinstance(again, Stream):
                raise BackendUnavailable("the storage broke off, and then had the file elsewhere")
            stream = again

    def _keep_arrived(self, arriving: Arriving, scratch: Path) -> None:
        assert arriving.sha256 is not None
        assert arriving.size is not None
        if arriving.refusal is not None:
            self._refused(arriving.refusal)
            return
        content = arriving.small_content
        if content is not None:
            self.keep(arriving.sha256, content)
            return
        try:
            # First the content, then the name: a power cut must not leave an empty file.
            arriving.mark_and_sync(_CHECKED)
            self._move(scratch, arriving.sha256)
        except OSError as error:
            self._refused(error)
        else:
            self._grow(arriving.size)

    def _scratch(self) -> Path:
        return self._tmp / f"cache-{secrets.token_hex(8)}"

    def _move(self, scratch: Path, sha256: str) -> None:
        path = self._path(sha256)
        try:
            scratch.replace(path)
        except FileNotFoundError:  # the first file of this folder
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch.replace(path)
        self._is_refused = False

    def _refused(self, error: OSError) -> None:
        with self._count_lock:
            self.not_kept += 1
            is_news, self._is_refused = not self._is_refused, True
        if is_news:
            _log.warning(
                "files are handed on without being kept: %s or %s cannot be written: %s",
                self._tmp,
                self._folder,
                error.strerror,
            )

    def _here(
        self, key: Hashable, sha256: str | None, size: int | None
    ) -> CachedFile | Arriving | None:
        """The file, or its transfer. One that is over counts only if the hash is known."""
        arriving = self._arriving.get(key)
        is_asked_for = sha256 is not None or (arriving is not None and not arriving.is_over)
        if arriving is not None and arriving.can_be_joined and is_asked_for:
            return arriving
        return None if sha256 is None else self._open(sha256, size)

    def _count(self, *, hit: bool) -> None:
        with self._count_lock:
            if hit:
                self.hits += 1
            else:
                self.misses += 1

    # -- what is kept ----------------------------------------------------------------------------

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256

    def _open(self, sha256: str, size: int | None) -> CachedFile | None:
        path = self._path(sha256)
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return None
        except OSError as error:
            self._drop(path, error.strerror or "unreadable")
            return None
        try:
            stat = os.fstat(file.fileno())
            is_synced = stat.st_size > SMALL and stat.st_mtime == _CHECKED
            problem = None
            if size not in (None, stat.st_size):
                problem = f"it has {stat.st_size} bytes instead of {size}"
            elif not is_synced and _sha256(file, stat.st_size) != sha256:
                problem = "it has other bytes than it should"
            if problem is None:
                with contextlib.suppress(OSError):  # a disk that is read-only by now
                    # `_sweep` removes the files with the oldest access times.
                    os.utime(file.fileno(), (time.time(), _CHECKED))
                return CachedFile(file, stat.st_size)
        except OSError as error:
            problem = error.strerror or "unreadable"
        except BaseException:
            file.close()
            raise
        file.close()
        self._drop(path, problem)
        return None

    def _drop(self, path: Path, problem: str) -> None:
        _log.warning("an entry of the cache is dropped: %s: %s", path, problem)
        with self._count_lock:
            self.damaged += 1
        _unlink(path)

    def _grow(self, size: int) -> None:
        if self._of is not None:
            self._of._grow(size)
            return
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
        with contextlib.suppress(OSError):  # what cannot be seen is not counted
            for folder in (self._folder, *others):
                for path in folder.glob("*/*"):
                    with contextlib.suppress(OSError):
                        stat = path.stat()
                        entries.append((stat.st_atime, stat.st_size, path))
        return entries

    def _sweep(self) -> int:
        entries = sorted(self._entries())
        size = sum(entry[1] for entry in entries)
        # What was used a moment ago is likely to be used again.
        young = time.time() - 60
        for asked_at, file_size, path in entries:
            if size <= self._max_bytes * _SWEEP_BELOW or asked_at > young:
                break
            if _unlink(path):
                size -= file_size
        return size


def _sha256(file: io.BufferedReader, size: int) -> str:
    if size <= SMALL:  # `file_digest` makes a buffer of 256 KiB
        digest = hashlib.sha256(file.read(SMALL + 1))
    else:
        digest = hashlib.file_digest(file, "sha256")
    file.seek(0)
    return digest.hexdigest()


def _unlink(path: Path) -> bool:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False  # the disk cannot be written
    return True


def _as_stream(opened: Download) -> Stream | Redirect:
    """What a storage gave, with an open file as a stream: many callers may wait for its content."""
    if isinstance(opened, LocalFile):
        return Stream(blocks(opened.file), os.fstat(opened.file.fileno()).st_size)
    return opened


def blocks(file: BinaryIO) -> Iterator[bytes]:
    """The content of an open file in pieces. The file is closed at the end."""
    with file:
        while block := file.read(_BLOCK):
            yield block


def _feed(arriving: Arriving, stream: Stream) -> None:
    """Feed what comes after the bytes that were received before."""
    place = 0
    with _closing(stream):
        for chunk in stream.chunks:
            news = chunk[max(0, arriving.received - place) :]
            place += len(chunk)
            arriving.feed(news)
    if arriving.received < (arriving.size or 0):
        raise BackendUnavailable(
            f"the storage sent {arriving.received} bytes of {arriving.size}, then nothing more"
        )


@contextlib.contextmanager
def _closing(stream: Stream) -> Iterator[None]:
    try:
        yield
    finally:
        close_stream(stream)


def close_stream(opened: Stream) -> None:
    """End the transfer of a stream."""
    close = getattr(opened.chunks, "close", None)
    if close is not None:
        close()
