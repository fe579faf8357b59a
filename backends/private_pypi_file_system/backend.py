"""Distribution files in a folder, laid out as private-pypi 0.2 did; it opens none of them.

    <storage>/<project>/<filename>             the file
    <storage>/<project>/<filename>.meta        its record: a flat TOML table of strings
    <storage>/<project>/<filename>.metadata    its core metadata
    <storage>/index.toml                       the index document
    <storage>/.private_pypi/id                 which storage this is
    <storage>/.private_pypi/lock/<bucket>      exclusion between all writers of the storage
    <storage>/.private_pypi/tmp/<bucket>-…/    what a writer is about to publish or to delete

A file is published by its last link, after its metadata and its record: a crash leaves nothing
visible. What a killed writer left in `tmp` is known by its lock, which nobody holds any more; the
next listing or write removes it.

The first line of a record is a comment that names the size, the time and the hash of the bytes that
it describes. Bytes that came under this name since do not inherit it.

Files that somebody dropped into `<storage>/<any folder>/` or `<storage>/` are listed as well.
Symbolic links below the storage folder are not followed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import filelock
import tomli

from private_pypi.backend import (
    NO_INDEX,
    Access,
    Backend,
    BackendSettings,
    Capabilities,
    Folders,
    Known,
    Secret,
)
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    FileAlreadyExists,
    FileNotFound,
    InvalidFilename,
    StaleIndex,
    StorageFull,
)
from private_pypi.model import DistributionFile, Download, LocalFile, Record, StoredFile, Upload

_SUFFIXES = (".whl", ".tar.gz", ".zip")
_LONGEST_FILENAME = 255 - len(".metadata")  # bytes; 255 is the limit of nearly every file system
_BUCKETS = 256  # of locks; one upload in so many waits for another without need
_LOCK_TIMEOUT = 60.0  # seconds
_CLOCK_TICK = 2.0  # seconds; file systems note times no finer than that

_FULL = {errno.ENOSPC, errno.EDQUOT}
_PASSING = {errno.EAGAIN, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE}
_NOT_WRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM} | _FULL
_CANNOT_LINK = {errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


@dataclass(frozen=True, kw_only=True)
class FileSystemSettings(BackendSettings):
    """The table of a `file_system` repository. An empty secret matches nobody."""

    path: Path | None = None  # of the storage folder; None: `cache/<name>/storage` below ROOT
    read_secret: tuple[Secret, ...] = ()
    write_secret: tuple[Secret, ...] = ()


class FileSystemBackend(Backend[FileSystemSettings]):
    """A folder on a disk of this machine, or mounted, that several servers may share."""

    Settings = FileSystemSettings
    capabilities = Capabilities(largest_file=5 * 2**30 - 1, is_local=True, needs_admin_secret=False)
    location_key = "package_path"

    def __init__(self, settings: FileSystemSettings, secret: Secret, folders: Folders) -> None:
        super().__init__(settings, secret, folders)
        # The index document that was hashed last, and its revision; replaced as a whole.
        self._noted: tuple[tuple[int, ...], str] | None = None

    def access(self, project: str | None = None) -> Access:
        may_write = _matches(self.secret, self.settings.write_secret)
        may_read = _matches(self.secret, self.settings.read_secret)
        if may_write:
            return Access.WRITE
        return Access.READ if may_read else Access.NONE

    def list_files(self, known: Known | None = None) -> Iterator[StoredFile]:
        with self._trouble("list files"):
            if not self._exists():
                return
            self._sweep()
            before = self._storage.stat()
            given: set[str] = set()
            for folder, name, status in _distribution_files(str(self._storage)):
                if name not in given:
                    given.add(name)
                    yield _stored_file(f"{folder}/{name}", status, known)
            # When a disk goes away in the middle, what it had is only not found.
            after = self._storage.stat()
            if (before.st_dev, before.st_ino) != (after.st_dev, after.st_ino):
                raise BackendUnavailable(f"the storage {self._name} was replaced meanwhile")
            if given:
                with _unless(_NOT_WRITABLE):
                    self._remember()

    def open_file(self, file: DistributionFile) -> Download:
        with self._trouble(f"open {file.filename!r}"):
            return LocalFile(self._find_or_raise(file))

    def open_core_metadata(self, file: DistributionFile) -> Download:
        with self._trouble(f"open the core metadata of {file.filename!r}"):
            path = self._find_or_raise(file)
            core_metadata = _beside(path, ".metadata")
            # Without a record of these very bytes it may be the metadata of others.
            if _has_seal(path) and core_metadata.exists():
                return LocalFile(core_metadata)
            raise FileNotFound(core_metadata.name)

    def put_file(self, upload: Upload) -> StoredFile:
        filename = upload.file.filename
        if len(os.fsencode(filename)) > _LONGEST_FILENAME:
            raise InvalidFilename(filename, f"longer than {_LONGEST_FILENAME} bytes")
        if not _is_plain(upload.file.project) or not _is_distribution(filename):
            raise InvalidFilename(filename, "no name that this storage can keep")
        with self._trouble(f"store {filename!r}"):
            self._prepare()
            self._sweep()
            with self._locked(_bucket(filename)):
                stored = self._put(upload)
            with _unless(_NOT_WRITABLE):
                upload.content.unlink(missing_ok=True)
            return stored

    def delete_file(self, file: DistributionFile) -> None:
        with self._trouble(f"delete {file.filename!r}"):
            if not self._exists():
                return
            self._prepare()
            self._sweep()
            bucket = _bucket(file.filename)
            with self._locked(bucket):
                path = self._find(file)
                if path is None:
                    return
                with self._staging(bucket) as stage:
                    # The staged name makes sure that record and metadata go with the file.
                    self._staged(stage, path).touch()
                    path.unlink(missing_ok=True)
                _sync_folder(path.parent)

    def read_index(self, into: Path, unless: str | None = None) -> str:
        with self._trouble("read the index"):
            if not self._exists():
                return NO_INDEX
            try:
                document = self._index.open("rb")
            except FileNotFoundError:
                return NO_INDEX
            with document:
                if unless is not None and self._has_revision(document, unless):
                    return unless
                revision = hashlib.file_digest(document, "sha256").hexdigest()
                self._note_revision(document, revision)
                if revision == unless:
                    return revision
                document.seek(0)
                # Hashed again: somebody may edit the document by hand at this moment.
                copied = hashlib.sha256()
                with into.open("wb") as copy:
                    while chunk := document.read(1 << 20):
                        copied.update(chunk)
                        copy.write(chunk)
                return copied.hexdigest()

    def write_index(self, content: Path, replaces: str) -> str:
        with self._trouble("write the index"):
            self._prepare()
            self._sweep()
            with self._locked("index"), self._staging("index") as stage:
                if self._index_revision() != replaces:
                    raise StaleIndex("the index was written by somebody else since it was read")
                staged = stage / self._index.name
                shutil.copyfile(content, staged)
                _sync_file(staged)
                with staged.open("rb") as document:
                    revision = hashlib.file_digest(document, "sha256").hexdigest()
                staged.chmod(self._file_mode())
                staged.replace(self._index)
                _sync_folder(self._storage)
                return revision

    # Where things are.

    @property
    def _storage(self) -> Path:
        path = self.settings.path
        return (self.folders.cache / "storage" if path is None else path).absolute()

    @property
    def _name(self) -> str:
        return f"{str(self._storage)!r} of repository {self.settings.name!r}"

    @property
    def _own(self) -> Path:
        return self._storage / ".private_pypi"

    @property
    def _index(self) -> Path:
        return self._storage / "index.toml"

    def _has_revision(self, document: BinaryIO, revision: str) -> bool:
        """Whether an unchanged document, hashed before by this object, had this revision."""
        return self._noted == (_identity(os.fstat(document.fileno())), revision)

    def _note_revision(self, document: BinaryIO, revision: str) -> None:
        status = os.fstat(document.fileno())
        # Somebody may write again within the same tick of the clock: as git does, believe a time
        # only when it has passed.
        is_settled = time.time() - status.st_mtime > _CLOCK_TICK
        self._noted = (_identity(status), revision) if is_settled else None

    def _index_revision(self) -> str:
        try:
            with self._index.open("rb") as document:
                return hashlib.file_digest(document, "sha256").hexdigest()
        except FileNotFoundError:
            return NO_INDEX

    def _find(self, file: DistributionFile) -> Path | None:
        """The path of a file below the storage folder, whatever a document says of its place.

        Only the last folder of `location` is believed: a storage may have been moved.
        """
        listed = Path(file.location)
        folders = [listed.parent.name] if listed.name == file.filename else []
        if not _is_distribution(file.filename):
            return None
        for folder in dict.fromkeys([*folders, file.project, ""]):
            if folder and not _is_plain(folder):
                continue
            parent = self._storage / folder
            path = parent / file.filename
            try:
                # No symbolic link below the storage: it could lead out of it.
                if folder and not stat.S_ISDIR(parent.lstat().st_mode):
                    continue
                if stat.S_ISREG(path.lstat().st_mode):
                    return path
            except (FileNotFoundError, NotADirectoryError):
                continue
        return None

    def _find_or_raise(self, file: DistributionFile) -> Path:
        path = self._find(file)
        if path is None:
            self._exists()  # a storage that vanished is trouble
            raise FileNotFound(file.filename)
        return path

    # Whether the folder is the storage that it was: an unmounted disk is not an empty one.

    def _exists(self) -> bool:
        """Whether there is a storage yet; raises BackendError when it is no longer there."""
        remembered = self._remembered_id()
        try:
            is_folder = stat.S_ISDIR(self._storage.stat().st_mode)
        except FileNotFoundError as error:
            if self.settings.path is None and remembered is None:
                return False
            raise BackendError(
                f"the storage folder {self._name} does not exist; mount it, or make it"
            ) from error
        if not is_folder:
            raise BackendError(f"the storage folder {self._name} is no folder")
        if remembered is not None and self._read_id() != remembered:
            raise BackendError(
                f"the storage folder {self._name} is not the one that was used before "
                f"({str(self._own / 'id')!r} differs); mount the right one, or remove "
                f"{str(self._memory)!r} to use this one from now on"
            )
        return True

    @property
    def _memory(self) -> Path:
        return self.folders.cache / "storage_id"

    def _remembered_id(self) -> str | None:
        """The id of the storage at this path when this server used it last."""
        try:
            identity, path = self._memory.read_text().split("\n", 1)
        except (FileNotFoundError, ValueError):
            return None
        return identity if path == str(self._storage) else None

    def _read_id(self) -> str | None:
        try:
            return (self._own / "id").read_text()
        except FileNotFoundError:
            return None

    def _remember(self) -> None:
        """Give the storage an id, unless it has one, and keep it in mind."""
        identity = self._read_id()
        if identity is None:
            self._make_own_folders()
            with self._locked("index"), self._staging("index") as stage:
                identity = self._read_id()
                if identity is None:
                    identity = secrets.token_hex(16)
                    self._write_staged(stage / "id", identity.encode()).replace(self._own / "id")
        if self._remembered_id() != identity:
            written = self._memory.with_name(f"{self._memory.name}.{secrets.token_hex(8)}")
            written.write_text(f"{identity}\n{self._storage}")
            written.replace(self._memory)

    # Writing.

    def _prepare(self) -> None:
        if not self._exists():
            self._storage.mkdir(parents=True, exist_ok=True)
        self._make_own_folders()
        self._remember()

    def _make_own_folders(self) -> None:
        for folder in (self._own, self._own / "lock", self._own / "tmp"):
            self._make_folder(folder)

    def _make_folder(self, folder: Path) -> bool:
        """Make a folder as open as the storage folder is: its owner decides who may share it."""
        try:
            folder.mkdir()
        except FileExistsError:
            return False
        with _unless({errno.EPERM}):
            folder.chmod(self._storage.stat().st_mode & 0o2777)
        return True

    def _file_mode(self) -> int:
        return self._storage.stat().st_mode & 0o044 | 0o600

    def _put(self, upload: Upload) -> StoredFile:
        existing = self._find(upload.file)
        if existing is not None:
            return self._put_again(existing, upload)
        target = self._storage / upload.file.project / upload.file.filename
        if self._make_folder(target.parent):
            _sync_folder(self._storage)
        if target.parent.is_symlink():
            raise BackendError(f"{str(target.parent)!r} is a symbolic link; make it a folder")
        with self._staging(_bucket(target.name)) as stage:
            staged = self._staged(stage, target)
            _link_or_copy(upload.content, staged)
            staged.chmod(self._file_mode())
            _sync_file(staged)
            status = staged.stat()
            self._place_sidecars(stage, target, status, upload)
            try:
                _link_or_rename(staged, target)
            except FileExistsError:
                # Somebody dropped a file here at this moment, or something that is no file.
                _remove_sidecars(target)
                existing = self._find(upload.file)
                if existing is None:
                    raise FileAlreadyExists(target.name) from None
                return self._put_again(existing, upload)
        _sync_folder(target.parent)
        return _stored_file(str(target), status, None)

    def _put_again(self, existing: Path, upload: Upload) -> StoredFile:
        status = existing.stat()
        record = _read_record(str(existing), _stamp(status))
        sealed = record is not None and record.sha256 is not None
        if status.st_size != upload.file.size:
            raise FileAlreadyExists(existing.name)
        sha256 = record.sha256 if record is not None and sealed else _sha256(existing)
        if sha256 != upload.file.sha256:
            raise FileAlreadyExists(existing.name)
        if not sealed:
            _sync_file(existing)
            with self._staging(_bucket(existing.name)) as stage:
                self._place_sidecars(stage, existing, status, upload)
        _sync_folder(existing.parent)
        return _stored_file(str(existing), status, None)

    def _place_sidecars(
        self, stage: Path, target: Path, status: os.stat_result, upload: Upload
    ) -> None:
        """Metadata first: a record says that the metadata beside it is of the same bytes."""
        core_metadata = _beside(target, ".metadata")
        if upload.core_metadata is None:
            core_metadata.unlink(missing_ok=True)
        else:
            self._write_staged(stage / "metadata", upload.core_metadata).replace(core_metadata)
        content = _format_record(upload.record, _stamp(status), upload.file.sha256)
        self._write_staged(stage / "record", content).replace(_beside(target, ".meta"))

    def _write_staged(self, path: Path, content: bytes) -> Path:
        path.write_bytes(content)
        path.chmod(self._file_mode())
        _sync_file(path)
        return path

    @contextlib.contextmanager
    def _locked(self, bucket: str, timeout: float = _LOCK_TIMEOUT) -> Iterator[None]:
        """Exclude every other writer of this bucket, on whatever server."""
        mode = self._storage.stat().st_mode & 0o066 | 0o600
        path = self._own / "lock" / bucket
        # A new object per use: one that is shared does not exclude threads.
        lock = filelock.FileLock(path, timeout=timeout, mode=mode)
        try:
            lock.acquire(poll_interval=0.01)
        except filelock.Timeout as error:
            raise BackendUnavailable(f"another writer holds {str(path)!r}") from error
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def _staging(self, bucket: str) -> Iterator[Path]:
        """A folder for one operation, below a name that says which lock its writer holds."""
        stage = self._own / "tmp" / f"{bucket}-{secrets.token_hex(8)}"
        self._make_folder(stage)
        try:
            yield stage
        finally:
            self._discard(stage)

    def _staged(self, stage: Path, target: Path) -> Path:
        """The path in the stage that stands for `target`."""
        staged = stage / target.relative_to(self._storage)
        if staged.parent != stage:
            self._make_folder(staged.parent)
        return staged

    def _discard(self, stage: Path) -> None:
        """Remove a stage, and what its writer put beside a file that is not there."""
        for staged in stage.rglob("*"):
            target = self._storage / staged.relative_to(stage)
            if _is_distribution(staged.name) and not os.path.lexists(target):
                _remove_sidecars(target)
        shutil.rmtree(stage)

    def _sweep(self) -> None:
        """Discard the stages of writers that are no more: their lock is free.

        Costs one look at an empty folder, or one attempt for each upload of this moment.
        """
        try:
            stages = list((self._own / "tmp").iterdir())
        except FileNotFoundError:
            return
        for stage in stages:
            bucket = stage.name.partition("-")[0]
            # A reader of a read-only storage leaves it to the writers.
            with (
                _unless(_NOT_WRITABLE),
                contextlib.suppress(BackendUnavailable),
                self._locked(bucket, timeout=0),
            ):
                if stage.is_dir():
                    self._discard(stage)

    @contextlib.contextmanager
    def _trouble(self, what: str) -> Iterator[None]:
        """Turn what the operating system refuses into errors of ours."""
        try:
            yield
        except OSError as error:
            why = f"cannot {what} in {self._name}: {error.strerror or error}"
            if error.errno in _FULL:
                raise StorageFull(why) from error
            if error.errno in _PASSING:
                raise BackendUnavailable(why) from error
            raise BackendError(why) from error


def _matches(given: Secret, accepted: Sequence[Secret]) -> bool:
    """Compare with every secret, each in constant time, so that time tells nothing."""
    candidate = given.reveal().encode("utf-8", "surrogatepass")
    verdicts = [
        hmac.compare_digest(candidate, secret.reveal().encode("utf-8", "surrogatepass"))
        for secret in accepted
        if secret
    ]
    return any(verdicts)


# Listing.


def _distribution_files(root: str) -> Iterator[tuple[str, str, os.stat_result]]:
    """Folder, filename and status of every distribution file, at most one folder deep.

    Folders with normalised names come first, so that the first of two equal filenames is ours.
    """
    folders: list[str] = []
    with os.scandir(root) as entries:
        dropped = []
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith("."):
                    folders.append(entry.name)
            else:
                dropped.append(entry)
    folders.sort(key=lambda name: re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) is None)
    for name in folders:
        folder = f"{root}/{name}"
        try:
            entries = os.scandir(folder)
        except (FileNotFoundError, NotADirectoryError):
            continue  # removed since
        with entries:
            yield from _those_of(folder, entries)
    yield from _those_of(root, dropped)


def _those_of(
    folder: str, entries: Iterable[os.DirEntry[str]]
) -> Iterator[tuple[str, str, os.stat_result]]:
    for entry in entries:
        if _is_distribution(entry.name) and entry.is_file(follow_symlinks=False):
            with contextlib.suppress(FileNotFoundError):  # removed since
                yield folder, entry.name, entry.stat(follow_symlinks=False)


def _stored_file(path: str, status: os.stat_result, known: Known | None) -> StoredFile:
    filename = path.rpartition("/")[2]
    stamp = _stamp(status)
    record = None if known is not None and known(filename, stamp) else _read_record(path, stamp)
    return StoredFile(
        filename=filename,
        size=status.st_size,
        location=path,
        stamp=stamp,
        record=None if record is None else record.values,
    )


def _identity(status: os.stat_result) -> tuple[int, ...]:
    """What differs when a file was replaced or written to."""
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_size}:{status.st_mtime_ns}"


def _is_distribution(name: str) -> bool:
    return name.endswith(_SUFFIXES) and _is_plain(name)


def _is_plain(name: str) -> bool:
    """Whether this is one visible component of a path."""
    return name.isprintable() and "/" not in name and not name.startswith(".") and bool(name)


# Records.


@dataclass(frozen=True, slots=True)
class _ReadRecord:
    values: Record
    sha256: str | None  # of the bytes that it describes; None: private-pypi 0.2 did not say


_SEAL = re.compile(rb"# describes (?P<stamp>[0-9]+:-?[0-9]+) sha256:(?P<sha256>[0-9a-f]{64})\n")


def _format_record(record: Record, stamp: str, sha256: str) -> bytes:
    """A comment that binds the record to its bytes, then a line for each value."""
    lines = [f"# describes {stamp} sha256:{sha256}"]
    lines += [f"{_toml_string(key)} = {_toml_string(value)}" for key, value in record.items()]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")


def _toml_string(text: str) -> str:
    """A basic string (TOML 1.0): quotes, backslashes and all control characters are escaped."""
    return '"' + re.sub(r'["\\\x00-\x1f\x7f]', _escape, text) + '"'


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _read_record(path: str, stamp: str) -> _ReadRecord | None:
    """The record beside a file; None when it is of other bytes, damaged or not there."""
    try:
        with open(f"{path}.meta", "rb") as file:  # noqa: PTH123 (Path costs more than the rest)
            content = file.read()
        seal = _SEAL.match(content)
        if seal is not None and seal["stamp"].decode() != stamp:
            return None
        table = tomli.loads(content.decode())
    except (OSError, UnicodeDecodeError, tomli.TOMLDecodeError, RecursionError):
        # Whatever is wrong with a record, the file itself says the same: the core opens it.
        return None
    values = {key: value for key, value in table.items() if isinstance(value, str)}
    return _ReadRecord(values, None if seal is None else seal["sha256"].decode())


def _has_seal(path: Path) -> bool:
    """Whether the record beside a file says that it describes these bytes."""
    try:
        stamp = _stamp(path.stat())
        with open(f"{path}.meta", "rb") as file:  # noqa: PTH123 (Path costs more than the rest)
            seal = _SEAL.match(file.readline(512))
    except OSError:  # not there, or deleted at this moment: the file itself says the same
        return False
    return seal is not None and seal["stamp"].decode() == stamp


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _remove_sidecars(path: Path) -> None:
    _beside(path, ".meta").unlink(missing_ok=True)
    _beside(path, ".metadata").unlink(missing_ok=True)


# The file system.


def _bucket(filename: str) -> str:
    return f"{hashlib.sha256(os.fsencode(filename)).digest()[0] % _BUCKETS:02x}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno not in _CANNOT_LINK:
            raise
        shutil.copyfile(source, target)


def _link_or_rename(source: Path, target: Path) -> None:
    """Give a file its name unless the name is taken (FileExistsError)."""
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno not in _CANNOT_LINK:
            raise
        # No links here: the lock keeps other writers away, and only they matter.
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from error
        source.rename(target)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut, where the file system has such a thing."""
    with _unless({errno.EINVAL}):
        _sync_file(path)


@contextlib.contextmanager
def _unless(passed_over: Collection[int]) -> Iterator[None]:
    """Let these errors of the operating system (errno) pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in passed_over:
            raise
