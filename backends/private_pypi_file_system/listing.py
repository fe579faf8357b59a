"""Which distribution files are in a storage folder, found without opening any of them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from private_pypi.backend.open_folder import OpenFolder, WrongKind, kind_of
from private_pypi.model import StoredFile, Unlisted
from private_pypi_file_system.names import is_distribution, is_plain
from private_pypi_file_system.records import stamp_of
from private_pypi_file_system.reports import NOT_SERVED, Reports

CLOCK_TICK = 2.0
"""Seconds; the coarsest resolution of modification times."""

_NEVER_LISTED = {"lost+found"}
"""Tools of the file system create this folder. It holds nameless fragments, and only root may read
it."""

_TROUBLE_OF_THIS_PROCESS = {errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


def list_distributions(storage: OpenFolder) -> Iterator[StoredFile | Unlisted]:
    """All files that are served, and a report for each thing that is not.

    If several files have the same name, the first one in the order of `_candidates` is served. A
    link, or anything else that is not a regular file, is listed only if no file has its name.
    """
    served: dict[str, tuple[str, int]] = {}  # filename -> its folder and its size
    others: list[StoredFile] = []
    reports = Reports()
    for found in _candidates(storage, reports):
        if isinstance(found, Unlisted):
            yield found
            continue
        folder, name, status = found
        if kind_of(status) is not None:
            others.append(_stored_other(folder, name, status))
        elif name not in served:
            served[name] = folder.path, status.st_size
            yield stored_file(folder, name, status)
        else:
            path, size = served[name]
            reports.duplicate(
                f"{folder.path}/{name}", f"{path}/{name}", same_size=size == status.st_size
            )
    names = set(served)
    for other in others:
        if other.filename not in names:
            names.add(other.filename)
            yield other
    yield from reports.all()


def mark_of(storage: OpenFolder) -> str | None:
    """A text that changes when a file is added to a folder that is searched, or removed from it.

    None if a folder was changed a moment ago: a second change within the same tick of the clock
    would not be seen.
    """
    digest = hashlib.blake2b(digest_size=16)
    latest = 0
    with contextlib.suppress(FileNotFoundError), storage.entries() as entries:  # removed since
        found = [("", storage.status())]
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                found.append((entry.name, entry.stat(follow_symlinks=False)))
        for name, status in sorted(found, key=lambda each: each[0]):
            times = (status.st_mtime_ns, status.st_ctime_ns)
            latest = max(latest, *times)
            digest.update(repr((name, status.st_dev, status.st_ino, *times)).encode())
        if time.time_ns() - latest > CLOCK_TICK * 10**9:
            return digest.hexdigest()
    return None


def stored_file(folder: OpenFolder, filename: str, status: os.stat_result) -> StoredFile:
    """A regular file in a folder of the storage."""
    return StoredFile(
        filename=filename,
        size=status.st_size,
        location=f"{folder.path}/{filename}",
        stamp=stamp_of(status),
        modified_at=_modified_at(status),
        # The folder decides, even if the filename says otherwise: somebody created it for this
        # project.
        project=folder.name or None,
    )


def _stored_other(folder: OpenFolder, filename: str, status: os.stat_result) -> StoredFile:
    """Something with the name of a distribution file that is not a file, such as a link.

    An attempt to open it raises an error that says so.
    """
    return StoredFile(
        filename=filename,
        size=status.st_size,
        location=f"{folder.path}/{filename}",
        stamp=f"{kind_of(status)}:{stamp_of(status)}",
        project=folder.name or None,
    )


def _modified_at(status: os.stat_result) -> datetime | None:
    """When the file was last modified; None for a time that `datetime` cannot express."""
    try:
        return datetime.fromtimestamp(status.st_mtime, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _candidates(
    storage: OpenFolder, reports: Reports
) -> Iterator[tuple[OpenFolder, str, os.stat_result] | Unlisted]:
    """Folder, name and status of everything with the name of a distribution file.

    Only the storage folder and the folders in it are searched. Folders whose names are normalised
    come first, because uploads go there; then the other folders; then the storage folder itself.
    """
    folders: list[str] = []
    dropped: list[os.DirEntry[str]] = []
    with storage.entries() as entries:
        for entry in entries:
            name = entry.name
            if entry.is_dir(follow_symlinks=False):
                if not name.startswith(".") and name not in _NEVER_LISTED:
                    folders.append(name)
            elif is_distribution(name) or name.endswith(NOT_SERVED):
                dropped.append(entry)
            elif entry.is_symlink() and is_plain(name):
                yield Unlisted(
                    location=f"{storage.path}/{name}/",
                    problem=f"{f'{storage.path}/{name}'!r} is a symbolic link; it is not followed",
                    may_hold_files=False,
                )
    folders.sort(key=lambda name: (re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) is None, name))
    for name in folders:
        try:
            with storage.enter(name) as folder, folder.entries() as entries:
                yield from _candidates_in(folder, entries, reports)
        except (FileNotFoundError, WrongKind):
            continue  # removed since
        except OSError as error:
            if error.errno in _TROUBLE_OF_THIS_PROCESS:
                raise
            yield Unlisted(
                location=f"{storage.path}/{name}/",
                problem=f"the folder {f'{storage.path}/{name}'!r} cannot be read "
                f"({error.strerror}), so it is not known which files are in it: let this server "
                "read it, or move it out of the storage",
                may_hold_files=True,
            )
    yield from _candidates_in(storage, dropped, reports)


def _candidates_in(
    folder: OpenFolder, entries: Iterable[os.DirEntry[str]], reports: Reports
) -> Iterator[tuple[OpenFolder, str, os.stat_result]]:
    below: list[str] = []
    for entry in entries:
        name = entry.name
        if is_distribution(name):
            with contextlib.suppress(FileNotFoundError):  # removed since
                status = entry.stat(follow_symlinks=False)
                yield folder, name, status
        elif name.endswith(NOT_SERVED) and is_plain(name):
            reports.wrong_format(f"{folder.path}/{name}")
        elif entry.is_dir(follow_symlinks=False) and is_plain(name):
            below.append(name)
    for name in sorted(below):
        # Nothing in these folders is served, so it does not matter if one cannot be read.
        with (
            contextlib.suppress(OSError, WrongKind),
            folder.enter(name) as deep,
            deep.entries() as entries,
        ):
            for entry in entries:
                if is_distribution(entry.name) and entry.is_file(follow_symlinks=False):
                    reports.too_deep(f"{deep.path}/{entry.name}", folder.path)
