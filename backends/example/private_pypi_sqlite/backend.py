"""Distribution files as rows of 1 MiB in a SQLite file, with their records and the index.

Each call opens the SQLite file, so a backend may be used from any thread. Writes are atomic because
of SQLite's transactions, and its lock makes writers wait for each other. A transaction lasts no
longer than a call, or than reading one chunk, so slow readers do not block writers.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from private_pypi.backend import (
    NO_INDEX,
    Access,
    Backend,
    SecretsSettings,
    Storage,
    Traits,
)
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    FileAlreadyExists,
    FileNotFound,
    StaleIndex,
    StorageFull,
)
from private_pypi.model import (
    DistributionFile,
    Download,
    FileHandle,
    StoredFile,
    Stream,
    Upload,
)

_CHUNK = 1 << 20  # bytes
_PAGE = 1000  # files
_LOCK_TIMEOUT = 60.0  # seconds
_VERSION = 1  # of the schema

# With AUTOINCREMENT, the number of a deleted file is never used again, so it can be a stamp.
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS files (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    filename TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    record TEXT NOT NULL,
    core_metadata BLOB
);
CREATE TABLE IF NOT EXISTS chunks (
    file INTEGER NOT NULL,
    number INTEGER NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (file, number)
);
CREATE TABLE IF NOT EXISTS documents (
    revision INTEGER PRIMARY KEY AUTOINCREMENT,
    content BLOB NOT NULL
);
PRAGMA user_version = {_VERSION};
COMMIT;
"""


@dataclass(frozen=True, kw_only=True)
class SqliteSettings(SecretsSettings):
    """The table of a `sqlite` repository."""

    names_storage = ("path",)

    path: Path  # of the database; an empty file is an empty repository


class SqliteStorage(Storage["SqliteBackend"]):
    """A SQLite file on a disk of this machine."""

    def access(self, project: str | None = None) -> Access:
        return self.backend.settings.access_of(self.secret)

    def list_files(self) -> Iterator[StoredFile]:
        page: Sequence[tuple[str, int, int, str]] = []
        while True:
            # Page by page, because the caller may take any time, and a transaction must be short.
            with self._database() as database:
                page = database.execute(
                    "SELECT filename, number, size, record FROM files "
                    "WHERE filename > ? ORDER BY filename LIMIT ?",
                    (page[-1][0] if page else "", _PAGE),
                ).fetchall()
            if not page:
                return
            for row in page:
                yield _stored_file(*row)

    def open_file(self, file: FileHandle) -> Download:
        with self._database() as database:
            row = database.execute(
                "SELECT number, size FROM files WHERE filename = ?", (file.filename,)
            ).fetchone()
        if row is None:
            raise FileNotFound(file.filename)
        number, size = row
        return Stream(self._chunks(number, size), size)

    def open_core_metadata(self, file: DistributionFile) -> Download:
        with self._database() as database:
            row = database.execute(
                "SELECT core_metadata FROM files WHERE filename = ?", (file.filename,)
            ).fetchone()
        if row is None or row[0] is None:
            raise FileNotFound(f"{file.filename}.metadata")
        return Stream(iter([row[0]]), len(row[0]))

    def put_file(self, upload: Upload) -> StoredFile:
        file = upload.file
        with self._database(writing=True) as database:
            row = database.execute(
                "SELECT filename, number, size, record, sha256 FROM files WHERE filename = ?",
                (file.filename,),
            ).fetchone()
            if row is not None:
                *first, sha256 = row
                if sha256 != file.sha256:
                    raise FileAlreadyExists(file.filename)
                return _stored_file(*first)
            record = json.dumps(dict(upload.record))
            number = database.execute(
                "INSERT INTO files (filename, size, sha256, record, core_metadata) "
                "VALUES (?, ?, ?, ?, ?)",
                (file.filename, file.size, file.sha256, record, upload.core_metadata),
            ).lastrowid
            assert number is not None
            with upload.content.open("rb") as content:
                for part, chunk in enumerate(iter(lambda: content.read(_CHUNK), b"")):
                    database.execute("INSERT INTO chunks VALUES (?, ?, ?)", (number, part, chunk))
            return _stored_file(file.filename, number, file.size, record)

    def delete_file(self, file: FileHandle) -> None:
        with self._database(writing=True) as database:
            database.execute(
                "DELETE FROM chunks WHERE file IN (SELECT number FROM files WHERE filename = ?)",
                (file.filename,),
            )
            database.execute("DELETE FROM files WHERE filename = ?", (file.filename,))

    def read_index(self, into: Path, unless: str | None = None) -> str:
        with self._database() as database:
            revision = _revision(database)
            if revision not in (NO_INDEX, unless):
                (content,) = database.execute("SELECT content FROM documents").fetchone()
                into.write_bytes(content)
            return revision

    def write_index(self, content: Path, replaces: str) -> str:
        with self._database(writing=True) as database:
            if _revision(database) != replaces:
                raise StaleIndex("the index was written by somebody else since it was read")
            database.execute("DELETE FROM documents")
            database.execute("INSERT INTO documents (content) VALUES (?)", (content.read_bytes(),))
            return _revision(database)

    def _chunks(self, number: int, size: int) -> Iterator[bytes]:
        for part in range(-(-size // _CHUNK)):
            with self._database() as database:
                row = database.execute(
                    "SELECT content FROM chunks WHERE file = ? AND number = ?", (number, part)
                ).fetchone()
            if row is None:
                raise BackendError("the file was deleted while it was sent")
            yield row[0]

    @contextlib.contextmanager
    def _database(self, *, writing: bool = False) -> Iterator[sqlite3.Connection]:
        """A transaction: it is committed unless something is raised."""
        # Without mode=rw, SQLite would create an empty database if the disk is not mounted.
        address = f"{self.backend.settings.path.absolute().as_uri()}?mode=rw"
        try:
            with contextlib.closing(
                sqlite3.connect(address, uri=True, timeout=_LOCK_TIMEOUT, isolation_level=None)
            ) as database:
                if database.execute("PRAGMA user_version").fetchone() != (_VERSION,):
                    database.executescript(_SCHEMA)
                database.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
                yield database
                database.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._trouble(error) from error
        except OSError as error:
            raise BackendError(f"cannot read what was uploaded: {error}") from error

    def _trouble(self, error: sqlite3.Error) -> BackendError:
        settings = self.backend.settings
        why = f"the database {str(settings.path)!r} of {settings.name!r}: {error}"
        match getattr(error, "sqlite_errorcode", None):
            case sqlite3.SQLITE_FULL:
                return StorageFull(why)
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return BackendUnavailable(why)
        return BackendError(why)


class SqliteBackend(Backend[SqliteSettings]):
    """The SQLite file of one repository."""

    Settings = SqliteSettings
    View = SqliteStorage
    traits = Traits(
        largest_file=2**31 - 1,
        lists_cheaply=True,
        opens_here=True,
        answers_at_once=True,
        answers_exactly=True,
        needs_admin_secret=False,
    )


def _stored_file(filename: str, number: int, size: int, record: str) -> StoredFile:
    return StoredFile(
        filename=filename,
        size=size,
        location=filename,
        stamp=str(number),
        record=json.loads(record),
    )


def _revision(database: sqlite3.Connection) -> str:
    row = database.execute("SELECT revision FROM documents").fetchone()
    return NO_INDEX if row is None else str(row[0])
