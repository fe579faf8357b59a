"""Distribution files in a folder, in the layout of private-pypi 0.2; no archive is looked into.

    <storage>/<project>/<filename>             the file
    <storage>/<project>/<filename>.meta        its record: a flat TOML table of strings
    <storage>/<project>/<filename>.metadata    its core metadata
    <storage>/index.toml                       the index document
    <storage>/.private_pypi/id                 identifies the storage
    <storage>/.private_pypi/lock/<bucket>      locks that all writers of the storage use
    <storage>/.private_pypi/tmp/<bucket>-…/    what a writer is about to publish or to delete

A file is published by giving it its final name, after its core metadata and its record have been
written. So a crash leaves nothing visible. What a killed writer left in `tmp` is removed after the
next listing (`sweep`) or by the next write (see `staging`).

Files that somebody copied into `<storage>/<any folder>/` or into `<storage>/` are listed as well.

Other people may write to the storage, so nothing in it is opened by its path (see `open_folder`).
The storage folder itself may be a symbolic link, but no link below it is followed. A link or a FIFO
with the name of a distribution file is listed, so that the name is taken, but cannot be opened.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from private_pypi.backend import (
    NO_INDEX,
    Access,
    AnyStorage,
    Backend,
    Folders,
    Secret,
    SecretsSettings,
    Storage,
    Traits,
    system_errors,
)
from private_pypi.backend.open_folder import OpenFolder, WrongKind, kind_of
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    FileAlreadyExists,
    FileNotFound,
    InvalidFilename,
    InvalidUpload,
    StaleIndex,
)
from private_pypi.model import (
    DistributionFile,
    Download,
    FileHandle,
    LocalFile,
    Record,
    StoredFile,
    Unlisted,
    Upload,
)
from private_pypi_file_system.kept_open import KeptOpen
from private_pypi_file_system.listing import (
    CLOCK_TICK,
    list_distributions,
    mark_of,
    stored_file,
)
from private_pypi_file_system.names import (
    LONGEST_FILENAME,
    bucket_of,
    is_distribution,
    is_plain,
)
from private_pypi_file_system.records import (
    has_seal,
    move_sidecars,
    read_record,
    remove_sidecars,
    stage_sidecars,
    stamp_of,
)
from private_pypi_file_system.staging import (
    NOT_WRITABLE,
    OWN_FOLDER,
    file_mode,
    folder_mode,
    ignoring,
    locked,
    make_own_folders,
    new_stage,
    publish_staged,
    stage_content,
    staged_folder,
    sweep_stages,
    sync,
)
from private_pypi_file_system.syncing import Syncs

_LONGEST_ID = 1024  # bytes
_LARGEST_INDEX = 2**30  # bytes; more than the document of a million files
_BLOCK = 2**20  # bytes read at a time
_INDEX = "index.toml"


@dataclass(frozen=True, kw_only=True)
class FileSystemSettings(SecretsSettings):
    """The table of a `file_system` repository."""

    names_storage = ("path",)

    path: Path | None = None  # the storage folder; None: `cache/<name>/storage` in ROOT


class FileSystemStorage(Storage["FileSystemBackend"]):
    """A local or mounted folder, which several servers may share."""

    def __init__(self, backend: FileSystemBackend, secret: Secret) -> None:
        super().__init__(backend, secret)
        self.settings, self.folders = backend.settings, backend.folders
        path = self.settings.path
        self._storage = (self.folders.cache / "storage" if path is None else path).absolute()
        self._kept: KeptOpen | None = None  # None: each method opens the folders itself

    def access(self, project: str | None = None) -> Access:
        return self.settings.access_of(self.secret)

    def list_files(self) -> Iterator[StoredFile | Unlisted]:
        with self._trouble("list files"), self._opened() as storage:
            if storage is None:
                return
            self._check_identity(storage)
            is_empty = True
            for found in list_distributions(storage):
                is_empty = is_empty and isinstance(found, Unlisted)
                yield found
            # If a disk is unmounted during the listing, its files only seem to be absent.
            before, after = storage.status(), self._storage.stat()
            if (before.st_dev, before.st_ino) != (after.st_dev, after.st_ino):
                raise BackendUnavailable(
                    f"the storage {self.name} was replaced while it was listed"
                )
            if not is_empty:
                with ignoring(NOT_WRITABLE):
                    self._remember(storage)

    def listing_mark(self) -> str | None:
        with self._trouble("look for new files"), self._opened() as storage:
            if storage is None:
                return None
            self._check_identity(storage)
            return mark_of(storage)

    @contextlib.contextmanager
    def kept_open(self) -> Iterator[AnyStorage]:
        view = FileSystemStorage(self.backend, self.secret)
        with KeptOpen(self._storage) as view._kept:
            yield view

    def read_record(self, file: StoredFile) -> Record | None:
        folder_name = file.project or ""  # a listing takes the project from the folder
        if not is_distribution(file.filename) or not (folder_name == "" or is_plain(folder_name)):
            return None
        with self._trouble(f"read the record of {file.filename!r}"):
            kept = None if self._kept is None else self._kept.folder(folder_name)
            if kept is not None:
                record = read_record(kept, file.filename, file.stamp)
                return None if record is None else record.values
            with self._opened() as storage, contextlib.ExitStack() as stack:
                if storage is None:
                    return None
                try:
                    folder = _entered(stack, storage, folder_name)
                except (FileNotFoundError, WrongKind):
                    return None
                record = read_record(folder, file.filename, file.stamp)
        return None if record is None else record.values

    def sweep(self) -> None:
        with self._trouble("remove what killed writers left"), self._opened() as storage:
            if storage is not None:
                self._check_identity(storage)
                sweep_stages(storage)

    def open_file(self, file: FileHandle) -> Download:
        with self._trouble(f"open {file.filename!r}"):
            names = _folder_names(file)
            if self._kept is not None and names:
                kept = self._kept.open(names[0], file.filename)
                if kept is not None:
                    return LocalFile(kept)
            with self._opened() as storage:
                return LocalFile(self._open(storage, file))

    def open_core_metadata(self, file: DistributionFile) -> Download:
        name = f"{file.filename}.metadata"
        with (
            self._trouble(f"open the core metadata of {file.filename!r}"),
            self._opened() as storage,
            self._folder_of(storage, file) as folder,
        ):
            if folder is None:
                self._open(storage, file).close()  # raises an error that says why
            # Without a seal, the core metadata may be those of other bytes.
            elif has_seal(folder, file.filename):
                # Without them, the core reads the metadata from the distribution file.
                with contextlib.suppress(FileNotFoundError, WrongKind):
                    return LocalFile(folder.open(name))
            raise FileNotFound(name)

    def put_file(self, upload: Upload) -> StoredFile:
        filename = upload.file.filename
        if len(os.fsencode(filename)) > LONGEST_FILENAME:
            raise InvalidFilename(filename, f"longer than {LONGEST_FILENAME} bytes")
        if not is_plain(upload.file.project) or not is_distribution(filename):
            raise InvalidFilename(filename, "this storage cannot keep files with such a name")
        with self._trouble(f"store {filename!r}"):
            with self._prepared() as storage, locked(storage, bucket_of(filename)):
                stored = self._put(storage, upload)
            with ignoring(NOT_WRITABLE):
                upload.content.unlink(missing_ok=True)
            return stored

    def delete_file(self, file: FileHandle) -> None:
        with self._trouble(f"delete {file.filename!r}"):
            with self._opened() as storage:
                if storage is None:
                    return
            bucket = bucket_of(file.filename)
            with (
                self._prepared() as storage,
                locked(storage, bucket),
                self._folder_of(storage, file) as folder,
            ):
                if folder is None:
                    return
                with self._stage(storage, bucket) as stage:
                    # If this process is killed after it removed the file, the name in the stage
                    # tells the next writer to remove the record and the metadata as well.
                    with staged_folder(stage, folder) as staged:
                        staged.create(file.filename, 0o600, b"")
                    folder.remove(file.filename)
                sync(folder)

    def read_index(self, into: Path, unless: str | None = None) -> str:
        with self._trouble("read the index"), self._opened() as storage:
            if storage is None:
                return NO_INDEX
            self._check_identity(storage)
            try:
                document = storage.open(_INDEX)
            except FileNotFoundError:
                return NO_INDEX
            with document:
                self._check_size(document)
                if unless is not None and self._has_revision(document, unless):
                    return unless
                revision = hashlib.file_digest(document, "sha256").hexdigest()
                self._note_revision(document, revision)
                if revision == unless:
                    return revision
                document.seek(0)
                # Hashed again, because somebody may edit the document by hand at this moment.
                copied = hashlib.sha256()
                with into.open("wb") as copy:
                    while chunk := document.read(_BLOCK):
                        copied.update(chunk)
                        copy.write(chunk)
                return copied.hexdigest()

    def write_index(self, content: Path, replaces: str) -> str:
        with (
            self._trouble("write the index"),
            self._prepared() as storage,
            locked(storage, "index"),
            self._stage(storage, "index") as stage,
        ):
            if self._index_revision(storage) != replaces:
                raise StaleIndex("the index was written by somebody else since it was read")
            with content.open("rb") as document:
                stage.create(_INDEX, file_mode(storage), document)
                document.seek(0)
                revision = hashlib.file_digest(document, "sha256").hexdigest()
            stage.move_to(_INDEX, storage, _INDEX)
            sync(storage)
            return revision

    # Where things are.

    @property
    def name(self) -> str:
        """Which storage it is, for messages."""
        return f"{str(self._storage)!r} of repository {self.settings.name!r}"

    def _has_revision(self, document: BinaryIO, revision: str) -> bool:
        """Whether the document is known to have this revision, without hashing it again."""
        return self.backend.noted == (_identity(os.fstat(document.fileno())), revision)

    def _note_revision(self, document: BinaryIO, revision: str) -> None:
        status = os.fstat(document.fileno())
        # A second change within the same tick of the clock would not change the modification time.
        # So, as in git, this time is trusted only after the tick is over.
        is_settled = time.time() - status.st_mtime > CLOCK_TICK
        self.backend.noted = (_identity(status), revision) if is_settled else None

    def _check_size(self, document: BufferedReader) -> None:
        size = os.fstat(document.fileno()).st_size
        if size > _LARGEST_INDEX:
            raise BackendError(
                f"{_INDEX} in {self.name} has {size} bytes; at most {_LARGEST_INDEX} are read: "
                "remove it, and let `private_pypi update_index` write a new one"
            )

    def _index_revision(self, storage: OpenFolder) -> str:
        try:
            with storage.open(_INDEX) as document:
                self._check_size(document)
                return hashlib.file_digest(document, "sha256").hexdigest()
        except FileNotFoundError:
            return NO_INDEX

    @contextlib.contextmanager
    def _folder_of(
        self, storage: OpenFolder | None, file: FileHandle
    ) -> Iterator[OpenFolder | None]:
        """The folder that has this file; None if there is none.

        Of `file.location` only the last folder is used: the storage may have been moved, and
        anybody may have edited the index document.
        """
        for name in () if storage is None else _folder_names(file):
            assert storage is not None
            with contextlib.ExitStack() as stack:
                try:
                    folder = _entered(stack, storage, name)
                    status = folder.status(file.filename)
                except (FileNotFoundError, WrongKind):
                    continue
                if kind_of(status) is None:
                    yield folder
                    return
        yield None

    def _open(self, storage: OpenFolder | None, file: FileHandle) -> BufferedReader:
        """Open a file; raises `FileNotFound` only if it is known to be gone."""
        if storage is None:
            raise FileNotFound(file.filename)
        other: WrongKind | None = None
        for name in _folder_names(file):
            with contextlib.ExitStack() as stack:
                try:
                    folder = _entered(stack, storage, name)
                    return folder.open(file.filename)
                except FileNotFoundError:
                    continue
                except WrongKind as error:
                    other = other or error
        self._check_identity(storage)  # in another storage, the file is not known to be gone
        if other is None:
            raise FileNotFound(file.filename)
        if other.wanted == "a folder":
            raise other
        raise InvalidUpload(
            f"{file.filename}: {other}; it is not served, put the file itself there"
        ) from other

    # Whether the folder is still the same storage. The folder of a disk that is not mounted is
    # empty, and must not be mistaken for an empty storage.

    @contextlib.contextmanager
    def _opened(self) -> Iterator[OpenFolder | None]:
        """The storage folder; None if it has not been created yet."""
        try:
            storage = self._existing()
            if storage is None and (
                self.settings.path is not None or self._remembered_id() is not None
            ):
                # Another upload may have created the storage after the first attempt.
                storage = self._existing()
                if storage is None:
                    raise BackendError(
                        f"the storage folder {self.name} does not exist; mount it, or create it"
                    )
        except NotADirectoryError as error:
            raise BackendError(f"the storage folder {self.name} is not a folder") from error
        if storage is None:
            yield None
            return
        with storage:
            yield storage

    def _existing(self) -> OpenFolder | None:
        try:
            return OpenFolder.at(self._storage)
        except FileNotFoundError:
            return None

    def _check_identity(self, storage: OpenFolder) -> bool:
        """Whether it is known to be the right one; raises `BackendError` if it is another one."""
        remembered = self._remembered_id()
        if remembered is None:
            return False
        if self._read_id(storage) != remembered:
            raise BackendError(
                f"the storage folder {self.name} is not the one that was used before "
                f"({str(self._storage / OWN_FOLDER / 'id')!r} differs); mount the right one, "
                f"or remove {str(self._memory)!r} to use this one from now on"
            )
        return True

    @property
    def _memory(self) -> Path:
        return self.folders.cache / "storage_id"

    def _remembered_id(self) -> str | None:
        """The id that the storage at this path had when this server used it last."""
        try:
            identity, path = self._memory.read_text().split("\n", 1)
        except FileNotFoundError:
            # A server makes this folder when it starts. If it was moved away since, and perhaps the
            # storage in it as well, it is not known which storage was used.
            if not self.folders.cache.is_dir():
                raise BackendError(
                    f"the folder {str(self.folders.cache)!r} is gone; put it back, or restart the "
                    "server to begin with an empty one"
                ) from None
            return None
        except ValueError:
            return None
        return identity if path == str(self._storage) else None

    def _read_id(self, storage: OpenFolder) -> str | None:
        try:
            with storage.enter(OWN_FOLDER) as own:
                return own.read("id", _LONGEST_ID).decode(errors="replace")
        except FileNotFoundError:
            return None

    def _remember(self, storage: OpenFolder) -> None:
        """Give the storage an id if it has none, and remember it in the folder of the server."""
        identity = self._read_id(storage)
        if identity is None:
            make_own_folders(storage)
            with (
                locked(storage, "index"),
                self._stage(storage, "index") as stage,
                storage.enter(OWN_FOLDER) as own,
            ):
                identity = self._read_id(storage)
                if identity is None:
                    identity = secrets.token_hex(16)
                    stage.create("id", file_mode(storage), identity.encode())
                    stage.move_to("id", own, "id")
        if self._remembered_id() != identity:
            written = self._memory.with_name(f"{self._memory.name}.{secrets.token_hex(8)}")
            written.write_text(f"{identity}\n{self._storage}")
            written.replace(self._memory)

    # Writing.

    @contextlib.contextmanager
    def _prepared(self) -> Iterator[OpenFolder]:
        """The storage folder, created if necessary and ready to be written to."""
        with contextlib.ExitStack() as stack:
            storage = stack.enter_context(self._opened())
            if storage is None:
                self._storage.mkdir(parents=True, exist_ok=True)
                for folder in self._storage.parents:  # any of these names may be new
                    with contextlib.suppress(PermissionError), OpenFolder.at(folder) as parent:
                        sync(parent)
                storage = stack.enter_context(OpenFolder.at(self._storage))
            is_known = self._check_identity(storage)
            make_own_folders(storage)
            if not is_known:
                self._remember(storage)
            sweep_stages(storage, by=self.backend.writer)
            yield storage

    def _stage(
        self, storage: OpenFolder, bucket: str
    ) -> contextlib.AbstractContextManager[OpenFolder]:
        return new_stage(storage, bucket, self.backend.writer)

    def _put(self, storage: OpenFolder, upload: Upload) -> StoredFile:
        with self._folder_of(storage, upload.file) as existing:
            if existing is not None:
                return self._put_again(storage, existing, upload)
        filename = upload.file.filename
        mode = file_mode(storage)
        storage.make(upload.file.project, folder_mode(storage))
        with storage.enter(upload.file.project) as folder:
            with (
                self._stage(storage, bucket_of(filename)) as stage,
                staged_folder(stage, folder) as staged,
            ):
                with contextlib.ExitStack() as stack:
                    content = stack.enter_context(
                        stage_content(upload.content, staged, filename, mode)
                    )
                    # A network file system writes what it holds back before it tells the time.
                    status = os.fstat(content.fileno())
                    self._sync_with_sidecars(content.fileno(), stage, mode, status, upload)
                move_sidecars(stage, folder, upload)
                try:
                    publish_staged(staged, folder, filename)
                except FileExistsError:
                    # At this moment somebody created something of this name by other means.
                    remove_sidecars(folder, filename)
                    with self._folder_of(storage, upload.file) as existing:
                        if existing is None:
                            raise FileAlreadyExists(filename) from None
                        return self._put_again(storage, existing, upload)
            self._sync_names(storage, folder)
            return replace(stored_file(folder, filename, status), record=upload.record)

    def _sync_with_sidecars(
        self,
        content: int,
        stage: OpenFolder,
        mode: int,
        status: os.stat_result,
        upload: Upload,
    ) -> None:
        """Write the sidecars of a file into a stage, and make all of them survive a power cut.

        `content`: the descriptor of the file. Only after this, any of them gets its final name.
        """
        with contextlib.ExitStack() as stack:
            sidecars = [
                stack.enter_context(file) for file in stage_sidecars(stage, mode, status, upload)
            ]
            self.backend.syncs.together(
                partial(os.fsync, content),
                *(partial(os.fsync, file.fileno()) for file in sidecars),
            )

    def _sync_names(self, storage: OpenFolder, folder: OpenFolder) -> None:
        """Make the names in a folder survive a power cut, and the name of the folder itself.

        Another upload may have made the folder, or the file, and not have synced it yet.
        """
        self.backend.syncs.together(partial(sync, folder), partial(sync, storage))

    def _put_again(self, storage: OpenFolder, folder: OpenFolder, upload: Upload) -> StoredFile:
        """The file that is published under this name, if it has the same bytes.

        If its record has no seal, which is so for files that somebody copied into the storage, it
        gets the record and the core metadata of this upload.
        """
        filename = upload.file.filename
        with folder.open(filename) as content:
            status = os.fstat(content.fileno())
            if status.st_size != upload.file.size:
                raise FileAlreadyExists(filename)
            record = read_record(folder, filename, stamp_of(status))
            sealed = None if record is None else record.sha256
            sha256 = sealed or hashlib.file_digest(content, "sha256").hexdigest()
            if sha256 != upload.file.sha256:
                raise FileAlreadyExists(filename)
            if sealed is None:
                with self._stage(storage, bucket_of(filename)) as stage:
                    mode = file_mode(storage)
                    self._sync_with_sidecars(content.fileno(), stage, mode, status, upload)
                    move_sidecars(stage, folder, upload)
        self._sync_names(storage, folder)
        values = upload.record if record is None or sealed is None else record.values
        return replace(stored_file(folder, filename, status), record=values)

    def _trouble(self, what: str) -> _Trouble:
        """Turn errors of the operating system, and `WrongKind`, into errors of private_pypi."""
        return _Trouble(self, what)


class _Trouble:
    """The context of `FileSystemStorage._trouble`: a generator takes longer."""

    __slots__ = ("_storage", "_what")

    def __init__(self, storage: FileSystemStorage, what: str) -> None:
        self._storage = storage
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: object
    ) -> None:
        if isinstance(error, (OSError, WrongKind)):
            failed = f"cannot {self._what} in {self._storage.name}"
            if isinstance(error, WrongKind):
                raise BackendError(f"{failed}: {error}; remove it") from error
            with system_errors(failed):
                raise error


class FileSystemBackend(Backend[FileSystemSettings]):
    """The folder of one repository."""

    Settings = FileSystemSettings
    View = FileSystemStorage
    traits = Traits(
        largest_file=5 * 2**30 - 1,
        lists_cheaply=True,
        opens_here=True,
        answers_at_once=True,
        answers_exactly=True,
        needs_admin_secret=False,
    )
    location_key = "package_path"

    def __init__(self, settings: FileSystemSettings, folders: Folders) -> None:
        super().__init__(settings, folders)
        # The status and the revision of the index document that was hashed last. Threads replace
        # this tuple as a whole.
        self.noted: tuple[tuple[int, ...], str] | None = None
        self.syncs = Syncs()
        self._token = secrets.token_hex(8)

    @property
    def writer(self) -> str:
        """The name under which this process makes stages; no other process has it, nor a child."""
        return f"{self._token}{os.getpid():08x}"


def _entered(stack: contextlib.ExitStack, storage: OpenFolder, name: str) -> OpenFolder:
    """A folder of the storage; "" is the storage folder itself."""
    return stack.enter_context(storage.enter(name)) if name else storage


def _folder_names(file: FileHandle) -> list[str]:
    """The names of the folders that may have a file; "" is the storage folder itself."""
    if not is_distribution(file.filename):
        return []
    *_, listed_in, name = ["", *file.location.rsplit("/", 2)]
    folders = [listed_in] if name == file.filename else []
    return [
        folder
        for folder in dict.fromkeys([*folders, file.project, ""])
        if not folder or is_plain(folder)
    ]


def _identity(status: os.stat_result) -> tuple[int, ...]:
    """Values of which at least one changes when a file is replaced or written to."""
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )
