"""A folder of generated files: what earlier runs wrote is replaced and removed, nothing else.

`.private_pypi-site.json` lists everything that was written, so that the next run can remove old
pages and files without touching anything else. The list is written before the first page and again
after the last. So if a run is killed, the next one completes it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Set
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath

from private_pypi.errors import BackendUnavailable, ConfigurationError, StorageFull

LIST = ".private_pypi-site.json"
"""The name of the file that lists everything that was written."""

_TEMPORARY = ".private_pypi-site.tmp"
# On some file systems of networks, folders cannot be locked.
_NO_LOCKS = {errno.ENOLCK, errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EISDIR}
_TOLD = 5  # how many files a message names


class OutputFolder:
    """The folder while it is written. Files are written to a temporary place, and then moved."""

    def __init__(self, folder: Path, wanted: Set[str], old: Set[str]) -> None:
        self.folder = folder
        self.old = frozenset(old)  # what earlier runs wrote
        self.part = folder / _TEMPORARY / "part"
        self._wanted = set(wanted)
        self._listed = old | wanted  # what the list has, before the first page is written
        self._made: set[Path] = set()

    def write(self, path: str, content: bytes) -> None:
        """Write a file, unless it has this content already."""
        target = self.target(path)
        with suppress(FileNotFoundError):
            if target.stat().st_size == len(content) and target.read_bytes() == content:
                return  # keep its modification time, which caches and copying tools use
        self.part.write_bytes(content)
        self.part.replace(target)

    def target(self, path: str) -> Path:
        """Where a file belongs; its folder is created."""
        target = self.folder / path
        if target.parent not in self._made:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._made.add(target.parent)
        return target

    def give_up(self, path: str) -> None:
        """Remove at the end a file that was wanted, if there is one."""
        self._wanted.discard(path)

    def finish(self) -> int:
        """Remove what is no longer wanted, and write the list; returns how much was removed."""
        removed = sum(self._remove(path) for path in sorted(self.old - self._wanted))
        if self._wanted != self._listed:
            self.write(LIST, _format_list(self._wanted))
        return removed

    def _remove(self, path: str) -> bool:
        """Remove a page or file, and the folders that are empty then."""
        target = self.folder / path
        parents = [self.folder / parent for parent in PurePosixPath(path).parents][:-1]
        if any(parent.is_symlink() for parent in parents):
            return False
        try:
            target.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
        for parent in parents:
            with suppress(OSError):  # it is not empty
                parent.rmdir()
        return True


@contextmanager
def writing(folder: Path, wanted: Set[str], known: re.Pattern[str]) -> Iterator[OutputFolder]:
    """Write these files into a folder, given by their paths in it with `/`.

    `known` matches all paths that this or any earlier version may have written. Raises
    `ConfigurationError`, before anything is written, if the folder contains something else at the
    place of a file, and `BackendUnavailable` if another command is writing into it.
    """
    with _usable(folder), ExitStack() as stack:
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(_alone(folder))
        old = _read_list(folder, known)
        _refuse_foreign(folder, wanted, old)
        output = OutputFolder(folder, wanted, old)
        stack.enter_context(_emptied(folder / _TEMPORARY))
        output.write(LIST, _format_list(old | wanted))
        yield output


def _read_list(folder: Path, known: re.Pattern[str]) -> set[str]:
    path = folder / LIST
    try:
        paths = json.loads(path.read_text(encoding="utf-8"))["paths"]
        if not all(isinstance(each, str) and known.fullmatch(each) for each in paths):
            raise ValueError
    except FileNotFoundError:
        return set()
    except (KeyError, TypeError, ValueError) as error:
        # Files that it names are removed, so it must not be anything else.
        raise ConfigurationError(
            f"{str(path)!r} was not written by this command; choose an empty folder"
        ) from error
    return set(paths)


def _format_list(paths: Iterable[str]) -> bytes:
    return json.dumps({"paths": sorted(paths)}, indent=0).encode() + b"\n"


def _refuse_foreign(folder: Path, wanted: Set[str], old: Set[str]) -> None:
    foreign = {path for path in wanted - old if os.path.lexists(f"{folder}/{path}")}
    parents: set[str] = set()
    for path in wanted:
        parent = path.rpartition("/")[0]
        while parent and parent not in parents:
            parents.add(parent)
            parent = parent.rpartition("/")[0]
    for parent in parents:
        with suppress(FileNotFoundError, NotADirectoryError):
            if not stat.S_ISDIR(os.lstat(f"{folder}/{parent}").st_mode):
                foreign.add(parent)
    if foreign:
        named = sorted(foreign)
        more = f" and {len(named) - _TOLD} more" if len(named) > _TOLD else ""
        raise ConfigurationError(
            f"{str(folder)!r} contains {', '.join(map(repr, named[:_TOLD]))}{more}, which this "
            "command did not write; choose an empty folder, or move these files"
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Exclude others that write into the folder. There is no file for that, which would be served.

    Two of them would take the temporary files of each other for their own.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackendUnavailable(
                f"another command is writing into {str(folder)!r}; wait for it"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    """Create an empty temporary folder, and remove it afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _usable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"no space left for the pages in {str(folder)!r}") from error
        raise ConfigurationError(
            f"cannot write the pages into {str(folder)!r}: {error.strerror or error}"
        ) from error
