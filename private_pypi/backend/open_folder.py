"""A folder that is kept open, and operations on the names in it that never follow a link.

Other people may write to a storage folder. A path that was checked a moment ago may now be a
symbolic link to the configuration of the server, and opening a FIFO waits until somebody writes to
it. So nothing in the storage is opened by its path: each step is a single name, relative to the
descriptor of the open folder. Only regular files are read. This is checked after a file was opened,
and callers get the open file instead of its path.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import BinaryIO, Self

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_WRITE = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CREATE = _WRITE | os.O_CREAT | os.O_EXCL

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


class WrongKind(Exception):
    """A name belongs to something else than expected, such as a symbolic link."""

    def __init__(self, path: str, kind: str, wanted: str) -> None:
        super().__init__(f"{path!r} is {kind}, not {wanted}")
        self.wanted = wanted


def kind_of(status: os.stat_result) -> str | None:
    """What something is, such as "a folder"; None for a regular file."""
    if stat.S_ISREG(status.st_mode):
        return None
    return _KINDS.get(stat.S_IFMT(status.st_mode), "something unknown")


class OpenFolder:
    """An open folder. It is a context manager, which closes the folder at the end.

    Every `name` is a single component of a path. Methods raise the errors of the operating system,
    and `WrongKind` if a name belongs to something else than the file or the folder that the method
    expects.
    """

    def __init__(self, descriptor: int, path: str, name: str = "") -> None:
        """`path` is for messages and locations only. `name` is the name in the parent folder."""
        self.descriptor = descriptor
        self.path = path
        self.name = name

    @classmethod
    def at(cls, path: Path) -> Self:
        """Open the folder at a path from the configuration, in which links are allowed."""
        return cls(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), str(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the folder. Files and folders that were opened in it stay open."""
        os.close(self.descriptor)

    # Looking.

    def enter(self, name: str) -> OpenFolder:
        """Open the folder of this name."""
        try:
            descriptor = os.open(name, _READ | os.O_DIRECTORY, dir_fd=self.descriptor)
        except FileNotFoundError:
            raise
        except OSError as error:  # for a link, it depends on the system which one
            self._require(name, "a folder", error)
            raise
        return OpenFolder(descriptor, f"{self.path}/{name}", name)

    def open(self, name: str) -> BufferedReader:
        """Open the regular file of this name for reading; the caller has to close it."""
        return open(self._open(name), "rb")  # noqa: PTH123 - a descriptor

    def read(self, name: str, most: int) -> bytes:
        """The content of a file, at most its first `most` bytes."""
        descriptor = self._open(name)
        try:
            chunks = []
            while most and (chunk := os.read(descriptor, min(most, 1 << 20))):
                chunks.append(chunk)
                most -= len(chunk)
            return b"".join(chunks)
        finally:
            os.close(descriptor)

    def _open(self, name: str) -> int:
        try:
            descriptor = os.open(name, _READ, dir_fd=self.descriptor)
        except FileNotFoundError:
            raise
        except OSError as error:
            self._require(name, "a file", error)
            raise
        return self._regular(descriptor, name)

    def _regular(self, descriptor: int, name: str) -> int:
        """The same descriptor, if it is of a regular file; otherwise close it and raise."""
        try:
            kind = kind_of(os.fstat(descriptor))
            if kind is not None:
                raise WrongKind(f"{self.path}/{name}", kind, "a file")
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def status(self, name: str | None = None) -> os.stat_result:
        """The status of this name (a link is not followed), or of the folder itself."""
        if name is None:
            return os.fstat(self.descriptor)
        return os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)

    def has(self, name: str) -> bool:
        """Whether this name exists, even if it is a broken link."""
        try:
            self.status(name)
        except FileNotFoundError:
            return False
        return True

    def names(self) -> list[str]:
        """All names in the folder."""
        return os.listdir(self.descriptor)  # noqa: PTH208 - a descriptor

    def entries(self) -> contextlib.AbstractContextManager[Iterator[os.DirEntry[str]]]:
        """Like `os.scandir`; the entries can be used as long as the folder is open."""
        return os.scandir(self.descriptor)

    def _require(self, name: str, wanted: str, error: OSError) -> None:
        """Raise `WrongKind` if this is why `name` could not be opened."""
        try:
            status = self.status(name)
        except OSError:
            raise error from None
        kind = kind_of(status) or "a file"
        if kind != wanted:
            raise WrongKind(f"{self.path}/{name}", kind, wanted) from error

    # Changing.

    def create(self, name: str, mode: int, content: bytes | BinaryIO) -> None:
        """Write a new file. Its content survives a power cut; its name does so after `sync`."""
        with self.begin(name, mode, content) as file:
            os.fsync(file.fileno())

    def begin(self, name: str, mode: int, content: bytes | BinaryIO) -> BufferedWriter:
        """Write a new file that the caller has to sync and to close, for example with others."""
        descriptor = os.open(name, _CREATE, 0o600, dir_fd=self.descriptor)
        file = open(descriptor, "wb")  # noqa: PTH123, SIM115 - a descriptor, which stays open
        try:
            if isinstance(content, bytes):
                file.write(content)
            else:
                while chunk := content.read(1 << 20):
                    file.write(chunk)
            file.flush()
            os.fchmod(descriptor, mode)
        except BaseException:
            # Closing writes what is left, which may fail again on a full disk.
            with contextlib.suppress(OSError):
                file.close()
            raise
        return file

    def open_lock(self, name: str, mode: int) -> int:
        """A descriptor of the regular file of this name, which is created if it does not exist."""
        try:
            # First without O_CREAT, which some systems refuse even for an existing file: in a
            # folder with the sticky bit, and on a read-only file system.
            descriptor = os.open(name, _WRITE, dir_fd=self.descriptor)
        except FileNotFoundError:
            descriptor = os.open(name, _CREATE, mode, dir_fd=self.descriptor)
            os.fchmod(descriptor, mode)  # without what the umask took away
            return descriptor
        except OSError as error:
            self._require(name, "a file", error)
            raise
        return self._regular(descriptor, name)

    def make(self, name: str, mode: int) -> bool:
        """Create a folder with exactly these permissions; False if the name is taken."""
        try:
            os.mkdir(name, mode, dir_fd=self.descriptor)
        except FileExistsError:
            return False
        with self.enter(name) as made, contextlib.suppress(PermissionError):
            os.fchmod(made.descriptor, mode)
        return True

    def link(self, source: Path, name: str) -> None:
        """Link a file of this server into the folder; raises `FileExistsError`."""
        os.link(source, name, dst_dir_fd=self.descriptor, follow_symlinks=False)

    def link_to(self, name: str, other: OpenFolder, other_name: str) -> None:
        """Link a file of this folder into another folder; raises `FileExistsError`."""
        os.link(
            name,
            other_name,
            src_dir_fd=self.descriptor,
            dst_dir_fd=other.descriptor,
            follow_symlinks=False,
        )

    def move_to(self, name: str, other: OpenFolder, other_name: str) -> None:
        """Move a file into another folder, replacing the file of that name."""
        os.rename(name, other_name, src_dir_fd=self.descriptor, dst_dir_fd=other.descriptor)

    def remove(self, name: str) -> None:
        """Remove a file or a link. It is not an error if the name does not exist."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.descriptor)

    def remove_folder(self, name: str, *, levels: int) -> None:
        """Remove a folder with its files, and with `levels` levels of folders below it.

        If there are deeper levels, this raises `OSError`, because the folder is not empty.
        """
        with self.enter(name) as folder:
            for each in folder.names():
                if not stat.S_ISDIR(folder.status(each).st_mode):
                    folder.remove(each)
                elif levels:
                    folder.remove_folder(each, levels=levels - 1)
        os.rmdir(name, dir_fd=self.descriptor)

    def sync(self) -> None:
        """Make the names in the folder survive a power cut."""
        os.fsync(self.descriptor)
