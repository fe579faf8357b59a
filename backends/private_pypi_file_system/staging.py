"""Locks and stages: how writers exclude each other, and prepare what they are about to change.

Both are in the folder `.private_pypi` of the storage. A stage is a folder for one operation. Its
name begins with that of the lock that its writer holds; so a stage whose lock is free was left by
a writer that was killed, and can be removed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Collection, Iterable, Iterator
from io import BufferedIOBase
from pathlib import Path

from private_pypi.backend.open_folder import OpenFolder, WrongKind
from private_pypi.errors import BackendUnavailable
from private_pypi_file_system.names import is_distribution, is_plain
from private_pypi_file_system.records import remove_sidecars

OWN_FOLDER = ".private_pypi"

NOT_WRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT}
"""Errors (errno) of a file system that cannot be written to at the moment."""

_CANNOT_LINK = {errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_LOCK_TIMEOUT = 60.0  # seconds
_LOCK_POLLS = (0.0005, 0.01)  # seconds between the first two attempts to get a lock, and at most
_STAGE = re.compile(r"(index|[0-9a-f]{2})-([0-9a-f]*).*")


def folder_mode(storage: OpenFolder) -> int:
    """The permissions of new folders: those of the storage folder, which its owner chose."""
    return storage.status().st_mode & 0o2777


def file_mode(storage: OpenFolder) -> int:
    """The permissions of new files: users who may read the storage folder may read them."""
    return storage.status().st_mode & 0o044 | 0o600


def make_own_folders(storage: OpenFolder) -> None:
    """Make the folders for locks and stages, unless they exist."""
    mode = folder_mode(storage)
    storage.make(OWN_FOLDER, mode)
    with storage.enter(OWN_FOLDER) as own:
        for name in ("lock", "tmp"):
            own.make(name, mode)


@contextlib.contextmanager
def locked(storage: OpenFolder, bucket: str, timeout: float = _LOCK_TIMEOUT) -> Iterator[None]:
    """Exclude all other writers of a bucket, on every server that shares the storage.

    Raises `BackendUnavailable` if the lock is not free within `timeout` seconds. It is taken with
    `flock`, so it also excludes older versions, which used `filelock`. That library is not used
    here, because it opens the lock file by its path.
    """
    mode = storage.status().st_mode & 0o066 | 0o600
    deadline = time.monotonic() + timeout
    pause, longest_pause = _LOCK_POLLS
    with storage.enter(OWN_FOLDER) as own, own.enter("lock") as folder:
        while (descriptor := _lock(folder, bucket, mode)) is None:
            if time.monotonic() >= deadline:
                path = f"{folder.path}/{bucket}"
                raise BackendUnavailable(f"another writer holds the lock {path!r}")
            time.sleep(pause)
            pause = min(2 * pause, longest_pause)
    try:
        yield
    finally:
        os.close(descriptor)  # this also releases the lock


def _lock(folder: OpenFolder, name: str, mode: int) -> int | None:
    """A descriptor that holds the lock until it is closed; None if another writer holds it."""
    try:
        descriptor = folder.open_lock(name, mode)
    except (FileExistsError, FileNotFoundError, BlockingIOError):
        return None  # made or removed at this moment
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # If the file was removed or replaced meanwhile, this lock does not exclude anybody.
        if os.path.samestat(os.fstat(descriptor), folder.status(name)):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


@contextlib.contextmanager
def new_stage(storage: OpenFolder, bucket: str, writer: str) -> Iterator[OpenFolder]:
    """A stage for one operation, by a writer that holds the lock of this bucket.

    `writer`: a name that no other process uses, see `sweep_stages`.
    """
    name = f"{bucket}-{writer}-{secrets.token_hex(4)}"
    with storage.enter(OWN_FOLDER) as own, own.enter("tmp") as tmp:
        tmp.make(name, folder_mode(storage))
        try:
            with tmp.enter(name) as stage:
                yield stage
        finally:
            _discard(storage, tmp, name)


@contextlib.contextmanager
def staged_folder(stage: OpenFolder, folder: OpenFolder) -> Iterator[OpenFolder]:
    """The folder of a stage that stands for this folder of the storage."""
    if not folder.name:  # the storage folder itself
        yield stage
        return
    stage.make(folder.name, 0o700)
    with stage.enter(folder.name) as staged:
        yield staged


def stage_content(content: Path, staged: OpenFolder, filename: str, mode: int) -> BufferedIOBase:
    """Link the content of an upload into a stage, or copy it.

    Returns the open file, which the caller has to sync and to close.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(content.open("rb"))
        try:
            staged.link(content, filename)
        except OSError as error:
            if error.errno not in _CANNOT_LINK:
                raise
            return staged.begin(filename, mode, file)
        # Through this descriptor, because others may replace names in a stage.
        os.fchmod(file.fileno(), mode)
        stack.pop_all()
        return file


def publish_staged(staged: OpenFolder, folder: OpenFolder, filename: str) -> None:
    """Move a file from a stage into the storage; raises `FileExistsError` if the name is taken."""
    try:
        staged.link_to(filename, folder, filename)
    except OSError as error:
        if error.errno not in _CANNOT_LINK:
            raise
        # This file system has no links. A rename would replace an existing file; the lock makes
        # sure that no other writer creates one after this check.
        if folder.has(filename):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), filename) from error
        staged.move_to(filename, folder, filename)


def sweep_stages(storage: OpenFolder, *, by: str | None = None) -> None:
    """Remove the stages of writers that were killed.

    This looks into one folder, which is usually empty, and tries one lock for each stage in it,
    except for those of the writer `by`, which lives.
    """
    with contextlib.ExitStack() as stack:
        try:
            own = stack.enter_context(storage.enter(OWN_FOLDER))
            tmp = stack.enter_context(own.enter("tmp"))
        except FileNotFoundError:
            return
        for name in tmp.names():
            stage = _STAGE.fullmatch(name)
            if stage is None or stage[2] == by:
                continue  # not made by a writer, or not killed
            # A reader of a read-only storage leaves stages to the writers. A stage into which
            # somebody else has put a folder stays.
            with (
                ignoring(NOT_WRITABLE | {errno.ENOTEMPTY, errno.EEXIST}),
                contextlib.suppress(BackendUnavailable, FileNotFoundError),
                locked(storage, stage[1], timeout=0),
            ):
                if stat.S_ISDIR(tmp.status(name).st_mode):
                    _discard(storage, tmp, name)


def _discard(storage: OpenFolder, tmp: OpenFolder, name: str) -> None:
    """Remove a stage, and the sidecars that its writer wrote for files that were not published."""
    with tmp.enter(name) as stage:
        for each in stage.names():
            if not stat.S_ISDIR(stage.status(each).st_mode):
                _remove_orphans(storage, [each])
            elif is_plain(each):
                with (
                    contextlib.suppress(FileNotFoundError, WrongKind),
                    stage.enter(each) as staged,
                    storage.enter(each) as folder,
                ):
                    _remove_orphans(folder, staged.names())
    tmp.remove_folder(name, levels=1)


def _remove_orphans(folder: OpenFolder, staged: Iterable[str]) -> None:
    for name in staged:
        if is_distribution(name) and not folder.has(name):
            remove_sidecars(folder, name)


def sync(folder: OpenFolder) -> None:
    """Make the names in a folder survive a power cut, if the file system can do that."""
    with ignoring({errno.EINVAL}):
        folder.sync()


@contextlib.contextmanager
def ignoring(numbers: Collection[int]) -> Iterator[None]:
    """Ignore these errors of the operating system, given by their `errno`."""
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            raise
