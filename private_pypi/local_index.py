# ruff: noqa: S608 - all SQL is composed of constants
"""The synced copy of a repository's index: SQLite, for all processes of a ROOT; not the truth.

The truth is the storage. What is here can be thrown away, and is when it is damaged or of another
repository; `synchronizing` fills it again, through `reconciling`.

Serials order everything: each transaction that changes something takes the next one, and writes it
to the rows and the projects it changes. A synchronisation remembers the serial at which it began
and touches no row that is younger: an upload, a yank or a delete wins over a listing or a document
that was read before it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from filelock import FileLock
from packaging.utils import NormalizedName
from packaging.version import Version

from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    FilenameBurnt,
    PrivatePypiError,
    StorageFull,
)
from private_pypi.model import BurntName, DistributionFile

_SCHEMA = 1
_BUSY_SECONDS = 20.0
_CACHE_KIB = 1024  # for each connection, and there is one per thread
_LOOK_EVERY = 1.0  # seconds after which a connection looks whether the file was replaced

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_NOT_OURS = (*_DAMAGED, sqlite3.SQLITE_ERROR)  # an error of the statement: no such table, column

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

SHOWN = (
    "project, filename, version, size, sha256, uploaded_at, requires_python, yanked, "
    "core_metadata_sha256, location"
)
FACTS = f"{SHOWN}, version_key, stamp"
FACTS_TABLE = """
    filename TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    version TEXT NOT NULL,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    uploaded_at INTEGER,  -- microseconds since 1970
    requires_python TEXT,
    yanked TEXT,
    core_metadata_sha256 TEXT,
    location TEXT NOT NULL,
    version_key TEXT NOT NULL,
    stamp TEXT
"""

_TABLES = f"""
CREATE TABLE state (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    schema INTEGER NOT NULL,
    identity TEXT NOT NULL,
    serial INTEGER NOT NULL,
    ready INTEGER NOT NULL DEFAULT 0,
    synced_at REAL,
    index_mtime INTEGER,
    revision TEXT,
    error TEXT
);
CREATE TABLE files ({FACTS_TABLE},
    documented INTEGER NOT NULL,  -- whether the index document that was applied last has it
    seen_at REAL NOT NULL,  -- unix seconds, our clock
    serial INTEGER NOT NULL
);
CREATE INDEX files_of_project ON files (project, version_key, filename);
-- Every project that has or had files; those without are never forgotten.
CREATE TABLE projects (
    name TEXT PRIMARY KEY,
    serial INTEGER NOT NULL,
    files INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE burnt (
    filename TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    deleted_at INTEGER NOT NULL
) WITHOUT ROWID;
-- Removed by us, and maybe still in a listing that began before `serial`.
CREATE TABLE removed (filename TEXT PRIMARY KEY, serial INTEGER NOT NULL) WITHOUT ROWID;
-- Stored files that cannot be shown, so that they are not opened again until their stamp changes.
CREATE TABLE broken (
    filename TEXT PRIMARY KEY,
    stamp TEXT NOT NULL,
    problem TEXT NOT NULL
) WITHOUT ROWID;

CREATE TRIGGER file_added AFTER INSERT ON files BEGIN
    INSERT INTO projects (name, serial, files) VALUES (NEW.project, NEW.serial, 1)
    ON CONFLICT (name) DO UPDATE SET serial = excluded.serial, files = files + 1;
END;
CREATE TRIGGER file_removed AFTER DELETE ON files BEGIN
    UPDATE projects SET serial = (SELECT serial FROM state), files = files - 1
    WHERE name = OLD.project;
END;
CREATE TRIGGER file_changed AFTER UPDATE ON files
WHEN (OLD.size, OLD.sha256, OLD.uploaded_at, OLD.requires_python, OLD.yanked,
      OLD.core_metadata_sha256)
     IS NOT (NEW.size, NEW.sha256, NEW.uploaded_at, NEW.requires_python, NEW.yanked,
             NEW.core_metadata_sha256)
BEGIN
    UPDATE projects SET serial = NEW.serial WHERE name = NEW.project;
END;
"""

_UPLOAD = f"""
INSERT INTO files ({FACTS}, documented, seen_at, serial)
VALUES ({", ".join("?" * 12)}, 0, ?, (SELECT serial FROM state))
ON CONFLICT (filename) DO UPDATE SET
    size = excluded.size, uploaded_at = excluded.uploaded_at,
    requires_python = excluded.requires_python,
    -- The same bytes again do not undo a yank.
    yanked = CASE WHEN sha256 = excluded.sha256 THEN yanked ELSE excluded.yanked END,
    sha256 = excluded.sha256,
    core_metadata_sha256 = excluded.core_metadata_sha256,
    location = excluded.location, stamp = excluded.stamp,
    documented = 0, seen_at = excluded.seen_at, serial = excluded.serial
"""


@dataclass(frozen=True, slots=True)
class SyncState:
    """How fresh the local index is."""

    synced_at: float | None  # unix seconds of the last whole synchronisation; None: never
    index_mtime: int | None  # of the document that was applied last, unix seconds
    revision: str | None  # of that document
    error: str | None  # why the last synchronisation failed; None: it did not


class LocalIndex:
    """A copy of the index of one repository; safe for many threads and processes.

    Construction does no I/O. Every thread has its own connection, opened at first use and never
    carried over a fork. `identity` says what this is a copy of: a file that says otherwise, or that
    is damaged, is set aside and the copy begins again, not `ready`.

    Every method raises `BackendUnavailable` while the file is being rebuilt, `StorageFull` when
    the disk of ROOT is full and `BackendError` for other trouble with it.
    """

    def __init__(self, path: Path, *, identity: str) -> None:
        self._path = path
        self._identity = identity
        self._taken_over = False  # whether the file was ours once, in this process
        self._inherited: list[object] = []
        self._forget_connections()

    # -- reading: a few microseconds each ---------------------------------------------------------

    def ready(self) -> bool:
        """Whether a first listing was whole: before that, nothing may be called absent."""
        return bool(self._one("SELECT ready FROM state")[0])

    def serial(self) -> int:
        """Grows with every change of the repository."""
        return int(self._one("SELECT serial FROM state")[0])

    def project_serial(self, project: str) -> int | None:
        """Grows with every change of the project's page; None when we never had the project.

        Read it before the files: then files kept under a serial are never older than it.
        """
        row = self._first("SELECT serial FROM projects WHERE name = ?", (project,))
        return None if row is None else row[0]

    def page_serial(self, project: str) -> int | None:
        """`project_serial` of a project that has files, once the index is ready; else None."""
        row = self._first(
            "SELECT p.serial FROM projects AS p, state AS s "
            "WHERE p.name = ? AND p.files > 0 AND s.ready",
            (project,),
        )
        return None if row is None else row[0]

    def has_files(self, project: str) -> bool:
        """Whether the project has files now."""
        row = self._first("SELECT files FROM projects WHERE name = ?", (project,))
        return row is not None and row[0] > 0

    def project_files(self, project: str) -> tuple[DistributionFile, ...]:
        """The files of a project, ordered by version (PEP 440), then by name."""
        rows = self._all(
            f"SELECT {SHOWN} FROM files WHERE project = ? ORDER BY version_key, filename",
            (project,),
        )
        return tuple(map(_file, rows))

    def projects(self) -> list[tuple[NormalizedName, int]]:
        """Every project that has files, by name, with its serial."""
        return self._all("SELECT name, serial FROM projects WHERE files > 0 ORDER BY name")

    def file(self, filename: str) -> DistributionFile | None:
        """The published file of this name."""
        row = self._first(f"SELECT {SHOWN} FROM files WHERE filename = ?", (filename,))
        return None if row is None else _file(row)

    def burnt(self, filename: str) -> BurntName | None:
        """The deleted file that had this name."""
        row = self._first(
            "SELECT project, filename, sha256, deleted_at FROM burnt WHERE filename = ?",
            (filename,),
        )
        if row is None:
            return None
        return BurntName(
            project=row[0],
            filename=row[1],
            sha256=row[2],
            deleted_at=_EPOCH + row[3] * _MICROSECOND,
        )

    def sync_state(self) -> SyncState:
        """When and from what the copy was taken."""
        return SyncState(*self._one("SELECT synced_at, index_mtime, revision, error FROM state"))

    def broken(self) -> dict[str, str]:
        """Stored files that cannot be shown, each with the reason."""
        return dict(self._all("SELECT filename, problem FROM broken ORDER BY filename"))

    # -- changing: visible to every process when the call returns ---------------------------------

    def add_file(self, file: DistributionFile, stamp: str | None) -> None:
        """Show a file that was just stored; the same file again changes nothing that is shown.

        Raises `FilenameBurnt` for the name of a deleted file.
        """
        new_project = self.project_serial(file.project) is None
        with self.writing(durable=new_project) as connection:
            if _burnt(connection, file.filename):
                raise FilenameBurnt(file.filename)
            connection.execute(_UPLOAD, (*file_row(file, stamp), time.time()))
            connection.execute("DELETE FROM removed WHERE filename = ?", (file.filename,))

    def remove_files(self, filenames: Sequence[str], *, burn: bool, at: datetime) -> None:
        """Stop showing files; `burn` their names so that they are never shown again.

        Names that are not there are passed over. When this returns, burnt names survive a power
        cut.
        """
        with self.writing(durable=True) as connection:
            for filename in filenames:
                if burn:
                    connection.execute(
                        "INSERT OR IGNORE INTO burnt (filename, project, sha256, deleted_at)"
                        " SELECT filename, project, sha256, ? FROM files WHERE filename = ?",
                        (microseconds(at), filename),
                    )
                connection.execute("DELETE FROM files WHERE filename = ?", (filename,))
                connection.execute(
                    "INSERT OR REPLACE INTO removed SELECT ?, serial FROM state", (filename,)
                )

    def set_yanked(self, filenames: Sequence[str], reason: str | None) -> None:
        """Yank files with a reason ("" for none given), or un-yank them (None)."""
        with self.writing() as connection:
            connection.executemany(
                "UPDATE files SET yanked = ?, serial = (SELECT serial FROM state)"
                " WHERE filename = ?",
                [(reason, filename) for filename in filenames],
            )

    def note_error(self, error: str | None) -> None:
        """Remember why a synchronisation failed, for every process."""
        with self.translated():
            self._connection().execute("UPDATE state SET error = ?", (error,))

    def close(self) -> None:
        """Close the connections of this process; the next call opens them again."""
        if self._pid != os.getpid():
            return  # of our parent: not ours to close
        with self._connections_lock:
            for _, connection in self._connections:
                connection.close()
            self._connections.clear()
            self._local = threading.local()

    # -- for `reconciling` alone ------------------------------------------------------------------

    def knows(self, filename: str, stamp: str) -> bool:
        """Whether a stored file need not be looked at: its facts are here, or it has none."""
        return bool(
            self._all(
                "SELECT 1 FROM files WHERE filename = ?1 AND stamp = ?2"
                " UNION ALL SELECT 1 FROM broken WHERE filename = ?1 AND stamp = ?2 LIMIT 1",
                (filename, stamp),
            )
        )

    def open_connection(self) -> sqlite3.Connection:
        """A further connection, for one thread, which closes it."""
        with self.translated():
            self._connection()  # makes or rebuilds the file
            return self._open()

    def check(self) -> bool:
        """Read the whole file (about 0.1 s for 100,000 files); False: damaged, and set aside."""
        try:
            sound = self._connection().execute("PRAGMA quick_check(1)").fetchall() == [("ok",)]
        except sqlite3.DatabaseError as error:
            if _primary_code(error) not in _DAMAGED:
                raise self._trouble(error) from error
            sound = False
        if not sound:
            self._set_aside()
        return sound

    # -- connections ------------------------------------------------------------------------------

    def _forget_connections(self) -> None:
        self._pid = os.getpid()
        self._local = threading.local()
        # Every connection, to close it once its thread is gone.
        self._connections: list[tuple[threading.Thread, sqlite3.Connection]] = []
        self._connections_lock: threading.Lock = threading.Lock()  # guards _connections, opening
        # Threads of one process wait here: quicker and fairer than SQLite's polling.
        self._write_lock: threading.Lock = threading.Lock()

    def _connection(self) -> sqlite3.Connection:
        if self._pid != os.getpid():
            # Never used and never closed, which SQLite forbids in a forked child.
            self._inherited.append(self._connections)
            self._forget_connections()
        now = time.monotonic()
        local = self._local
        try:
            if now - local.looked_at < _LOOK_EVERY:
                return local.connection  # type: ignore[no-any-return]  # threading.local
            if local.inode == _inode(self._path):
                local.looked_at = now
                return local.connection  # type: ignore[no-any-return]
        except AttributeError:
            pass
        return self._reopen(local, now)

    def _reopen(self, local: threading.local, now: float) -> sqlite3.Connection:
        local.__dict__.clear()  # should we fail, the next call begins here again
        with self._connections_lock:
            current = threading.current_thread()
            kept = []
            for thread, connection in self._connections:
                if thread is current or not thread.is_alive():
                    connection.close()
                else:
                    kept.append((thread, connection))
            self._connections[:] = kept
            self._make_ready()
            local.inode = _inode(self._path)
            connection = self._open()
            local.connection, local.looked_at = connection, now
            self._connections.append((current, connection))
        return connection

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path,
            timeout=_BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=64,
        )
        # Temporary tables in memory: there may be no writable temporary folder.
        connection.executescript(
            f"PRAGMA synchronous = NORMAL; PRAGMA cache_size = -{_CACHE_KIB};"
            "PRAGMA temp_store = MEMORY;"
        )
        return connection

    def _make_ready(self) -> None:
        """Make the file, or check that it is ours; one process of this ROOT at a time."""
        with FileLock(self._path.with_name(self._path.name + ".lock")):
            found = self._found_identity() if self._path.exists() else None
            if found == (_SCHEMA, self._identity):
                self._taken_over = True
                return
            if found is not None and self._taken_over:
                # A configuration changes process by process. The new one takes the file over, and
                # the old one must not take it back.
                raise BackendUnavailable(
                    "the local index now belongs to another configuration of this repository"
                )
            if self._path.exists():
                self._move_away()
            connection = self._open()
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(f"BEGIN IMMEDIATE;{_TABLES}")
                connection.execute(
                    "INSERT INTO state (only_row, schema, identity, serial) VALUES (1, ?, ?, ?)",
                    # A copy that is made anew goes on where no earlier one was: nobody may take
                    # a page kept under an old serial for a new one.
                    (_SCHEMA, self._identity, time.time_ns() // 1_000_000),
                )
                connection.execute("COMMIT")
            finally:
                connection.close()
            self._taken_over = True

    def _found_identity(self) -> tuple[int, str] | None:
        """What the file says it is; None when it is damaged or nothing of ours."""
        connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            row = connection.execute("SELECT schema, identity FROM state").fetchone()
        except sqlite3.DatabaseError as error:
            if _primary_code(error) not in _NOT_OURS:
                raise
            return None
        finally:
            connection.close()
        return None if row is None else (row[0], row[1])

    def _set_aside(self) -> None:
        """Move a damaged file away, unless somebody was quicker."""
        with (
            self._connections_lock,
            FileLock(self._path.with_name(self._path.name + ".lock")),
        ):
            if getattr(self._local, "inode", None) == _inode(self._path):
                self._move_away()
                self._taken_over = False
                self._local = threading.local()  # every thread opens anew

    def _move_away(self) -> None:
        # The log goes with its file: a new file must never find an old log.
        for suffix in ("-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        self._path.replace(self._path.with_name(self._path.name + ".old"))

    # -- trouble ----------------------------------------------------------------------------------

    @contextmanager
    def translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise self._trouble(error) from error

    def _trouble(self, error: sqlite3.DatabaseError) -> PrivatePypiError:
        code = _primary_code(error)
        if code in _DAMAGED:
            self._set_aside()
            return BackendUnavailable("the local index was damaged and is being rebuilt")
        if code == sqlite3.SQLITE_FULL:
            return StorageFull(f"no space left for the local index {self._path}")
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return BackendUnavailable(f"the local index {self._path} is busy")
        return BackendError(f"trouble with the local index {self._path}: {error}")

    # -- statements -------------------------------------------------------------------------------

    def _all(self, sql: str, parameters: Sequence[object] = ()) -> list[Any]:
        try:
            return self._connection().execute(sql, parameters).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._trouble(error) from error

    def _first(self, sql: str, parameters: Sequence[object] = ()) -> Any:
        rows = self._all(sql, parameters)
        return rows[0] if rows else None

    def _one(self, sql: str) -> Any:
        row = self._first(sql)
        if row is None:
            raise BackendError(f"the local index {self._path} has lost its state")
        return row

    @contextmanager
    def writing(
        self, connection: sqlite3.Connection | None = None, *, durable: bool = False
    ) -> Iterator[sqlite3.Connection]:
        """A transaction with a serial of its own; `durable` ones survive a power cut."""
        with self.translated():
            if connection is None:
                connection = self._connection()
            with self._write_lock:
                if durable:
                    connection.execute("PRAGMA synchronous = FULL")
                try:
                    connection.execute("BEGIN IMMEDIATE")
                    try:
                        connection.execute("UPDATE state SET serial = serial + 1")
                        yield connection
                        connection.execute("COMMIT")
                    except BaseException:
                        if connection.in_transaction:
                            connection.execute("ROLLBACK")
                        raise
                finally:
                    if durable:
                        connection.execute("PRAGMA synchronous = NORMAL")


def version_key(version: Version) -> str:
    """A text that sorts (by code point) as PEP 440 orders versions."""

    def number(value: int) -> str:
        digits = str(value)
        return f"{len(digits):03d}{digits}"  # a longer number is a larger one

    release = version.release
    while len(release) > 1 and release[-1] == 0:
        release = release[:-1]
    # "!" ends a part and sorts before everything that could follow instead.
    key = number(version.epoch) + "".join(f".{number(part)}" for part in release) + "!"
    if version.pre is not None:
        key += version.pre[0][0] + number(version.pre[1])  # a, b, r(c)
    elif version.post is None and version.dev is not None:
        key += "0"  # 1.0.dev1 comes before 1.0a1
    else:
        key += "~"
    key += "!" if version.post is None else f"1{number(version.post)}"
    key += "~" if version.dev is None else f"0{number(version.dev)}"
    if version.local is not None:
        for part in version.local.split("."):
            key += f".1{number(int(part))}" if part.isdigit() else f".0{part}!"
    return key + "!"


def file_row(file: DistributionFile, stamp: str | None) -> tuple[object, ...]:
    return (
        file.project,
        file.filename,
        file.version,
        file.size,
        file.sha256,
        None if file.uploaded_at is None else microseconds(file.uploaded_at),
        file.requires_python,
        file.yanked,
        file.core_metadata_sha256,
        file.location,
        version_key(Version(file.version)),
        stamp,
    )


def _file(row: Sequence[Any]) -> DistributionFile:
    return DistributionFile(
        project=row[0],
        filename=row[1],
        version=row[2],
        size=row[3],
        sha256=row[4],
        uploaded_at=None if row[5] is None else _EPOCH + row[5] * _MICROSECOND,
        requires_python=row[6],
        yanked=row[7],
        core_metadata_sha256=row[8],
        location=row[9],
    )


def _burnt(connection: sqlite3.Connection, filename: str) -> bool:
    row = connection.execute("SELECT 1 FROM burnt WHERE filename = ?", (filename,)).fetchone()
    return row is not None


def microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _primary_code(error: sqlite3.DatabaseError) -> int:
    # Errors that the module `sqlite3` raises by itself have no code.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
