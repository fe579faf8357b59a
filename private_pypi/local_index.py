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

import json
import os
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
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
    InvalidFilename,
    PrivatePypiError,
    StorageFull,
)
from private_pypi.filenames import parse_filename
from private_pypi.model import BurntName, DistributionFile

_SCHEMA = 2
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
FACTS = f"{SHOWN}, summary, version_key, stamp"
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
    summary TEXT,
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
CREATE INDEX files_by_time ON files (uploaded_at);
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

-- When a storage that answers for one project at a time was asked last, and answered whole.
CREATE TABLE looks (
    project TEXT PRIMARY KEY,
    looked_at REAL NOT NULL  -- unix seconds, our clock, before it was asked
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
VALUES ({", ".join("?" * 13)}, 0, ?, (SELECT serial FROM state))
ON CONFLICT (filename) DO UPDATE SET
    size = excluded.size, uploaded_at = excluded.uploaded_at,
    requires_python = excluded.requires_python,
    -- The same bytes again do not undo a yank.
    yanked = CASE WHEN sha256 = excluded.sha256 THEN yanked ELSE excluded.yanked END,
    sha256 = excluded.sha256,
    core_metadata_sha256 = excluded.core_metadata_sha256,
    summary = excluded.summary,
    location = excluded.location, stamp = excluded.stamp,
    documented = 0, seen_at = excluded.seen_at, serial = excluded.serial
"""


# The file that stands for a project: of its newest final release that is not yanked, if it has one.
# A key of `version_key` with "~" in two places is of a version that is no pre-release.
_NEWEST = """
SELECT filename FROM files WHERE project = name
ORDER BY yanked IS NOT NULL, version_key NOT LIKE '%!~%~%', version_key DESC, filename LIMIT 1
"""
_NEWEST_LOOKED_AT = 500  # files, in which the newest releases are looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectLine:
    """A project as a list for people shows it."""

    name: NormalizedName
    version: str  # the newest, or that of the upload that is listed
    summary: str | None
    uploaded_at: datetime | None  # UTC


_LOOKED_UP = f"""
INSERT INTO files ({FACTS}, documented, seen_at, serial)
VALUES ({", ".join("?" * 13)}, 1, ?, (SELECT serial FROM state))
ON CONFLICT (filename) DO UPDATE SET
    {", ".join(f"{name.strip()} = excluded.{name.strip()}" for name in FACTS.split(","))},
    documented = 1, seen_at = excluded.seen_at, serial = excluded.serial
"""


@dataclass(frozen=True, slots=True)
class SyncState:
    """How fresh the local index is."""

    synced_at: float | None  # unix seconds of the last whole synchronisation; None: never
    index_mtime: int | None  # of the document that was applied last, unix seconds
    revision: str | None  # of that document
    error: str | None  # why the last synchronisation failed; None: it did not


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a storage said of one project: all of it."""

    project: str
    files: Mapping[str, tuple[DistributionFile, str]]  # by filename, each with its stamp
    broken: Mapping[str, tuple[str, str]]  # filename -> stamp, problem; not to be shown
    begun: int  # the serial of the index before the storage was asked
    looked_at: float  # unix seconds, likewise
    uploads_since: float
    """Unix seconds: what was uploaded through us since then stays, should the storage not list it
    yet."""


class LocalIndex:
    """A copy of the index of one repository; safe for many threads and processes.

    Construction does no I/O. Every thread has its own connection, opened at first use and never
    carried over a fork. `identity` says what this is a copy of: a file that says otherwise, or that
    is damaged, is set aside and the copy begins again, not `ready`.

    Every method raises `BackendUnavailable` while the file is being rebuilt, `StorageFull` when
    the disk of ROOT is full and `BackendError` for other trouble with it.
    """

    def __init__(self, path: Path, *, identity: str, always_ready: bool = False) -> None:
        """`always_ready`: there is no first listing to wait for, projects are looked up."""
        self._path = path
        self._identity = identity
        self._always_ready = always_ready
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
            f"SELECT {SHOWN}, summary FROM files WHERE project = ? ORDER BY version_key, filename",
            (project,),
        )
        return tuple(map(_file, rows))

    def projects(self) -> list[tuple[NormalizedName, int]]:
        """Every project that has files, by name, with its serial."""
        return self._all("SELECT name, serial FROM projects WHERE files > 0 ORDER BY name")

    def search(
        self,
        words: Sequence[str] = (),
        *,
        limit: int,
        offset: int = 0,
        among: Collection[str] | None = None,
    ) -> tuple[int, list[ProjectLine]]:
        """How many projects have every word in their name or summary, and a part of them by name.

        A project of exactly that name comes first. `among`: only of these; None: of all.
        """
        where, parameters = _searched(words, among)
        total = self._first(f"SELECT count(*) FROM projects WHERE {where}", parameters)[0]
        rows = self._all(
            "SELECT name, version, summary, uploaded_at FROM"
            f" (SELECT name FROM projects WHERE {where}"
            "  ORDER BY name <> ?, name LIMIT ? OFFSET ?) AS found"
            f" LEFT JOIN files ON filename = ({_NEWEST})",
            (*parameters, "-".join(words).lower(), limit, offset),
        )
        return total, [_line(row) for row in rows]

    def newest_releases(
        self, limit: int, *, among: Collection[str] | None = None
    ) -> list[ProjectLine]:
        """What was uploaded last: one release of each project, where the time is known."""
        where, parameters = _one_of("project", among)
        rows = self._all(
            "SELECT project, version, summary, uploaded_at FROM files"
            f" WHERE uploaded_at IS NOT NULL AND yanked IS NULL{where}"
            f" ORDER BY uploaded_at DESC LIMIT {_NEWEST_LOOKED_AT}",
            parameters,
        )
        newest: dict[str, ProjectLine] = {}
        for row in rows:
            newest.setdefault(row[0], _line(row))
            if len(newest) == limit:
                break
        return list(newest.values())

    def file(self, filename: str) -> DistributionFile | None:
        """The published file of this name."""
        row = self._first(f"SELECT {SHOWN}, summary FROM files WHERE filename = ?", (filename,))
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

    # -- for `looking_up` alone -------------------------------------------------------------------

    def looked_at(self, project: str) -> float | None:
        """When the storage was asked for this project last (unix seconds), and answered whole."""
        row = self._first("SELECT looked_at FROM looks WHERE project = ?", (project,))
        return None if row is None else row[0]

    def stamped_files(self, project: str) -> dict[str, tuple[DistributionFile, str | None]]:
        """The files of a project by name, each with the stamp at which its facts were taken."""
        rows = self._all(f"SELECT {SHOWN}, summary, stamp FROM files WHERE project = ?", (project,))
        return {row[1]: (_file(row), row[-1]) for row in rows}

    def burnt_names(self, project: str) -> frozenset[str]:
        """The filenames of a project that are never used again."""
        rows = self._all("SELECT filename FROM burnt WHERE project = ?", (project,))
        return frozenset(row[0] for row in rows)

    def take_look(self, look: Look) -> None:
        """Make a project what its storage said, in one transaction; unchanged takes no serial.

        What is younger than the look stays as it is: an upload, a yank or a delete wins, and so
        does a later look of another process.
        """
        with self.translated():
            connection = self._connection()
            if _is_overtaken(connection, look):
                return
            changes = _changes(connection, look)
            if not changes:
                with self._write_lock:
                    _note_look(connection, look)
                return
        new_project = self.project_serial(look.project) is None
        with self.writing(durable=new_project) as connection:
            # Once more: others may have written since.
            if _is_overtaken(connection, look):
                return
            for sql, parameters in _changes(connection, look):
                connection.execute(sql, parameters)
            _note_look(connection, look)

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
        self._path.parent.mkdir(parents=True, exist_ok=True)
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
                    "INSERT INTO state (only_row, schema, identity, serial, ready)"
                    " VALUES (1, ?, ?, ?, ?)",
                    # A copy that is made anew goes on where no earlier one was: nobody may take
                    # a page kept under an old serial for a new one.
                    (
                        _SCHEMA,
                        self._identity,
                        time.time_ns() // 1_000_000,
                        int(self._always_ready),
                    ),
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


def _changes(connection: sqlite3.Connection, look: Look) -> list[tuple[str, tuple[object, ...]]]:
    """The statements that make a project what its storage said; none when it is that already."""
    statements: list[tuple[str, tuple[object, ...]]] = []
    now = {
        row[0]: row[1:]
        for row in connection.execute(
            f"SELECT filename, serial, documented, seen_at, {FACTS} FROM files WHERE project = ?",
            (look.project,),
        )
    }
    for filename, (serial, documented, seen_at, *_) in now.items():
        is_awaited = not documented and seen_at >= look.uploads_since
        if filename not in look.files and serial <= look.begun and not is_awaited:
            statements.append(("DELETE FROM files WHERE filename = ?", (filename,)))
    kept_out = {
        row[0]
        for row in connection.execute(
            "SELECT filename FROM burnt WHERE project = ?"
            " UNION ALL SELECT filename FROM removed WHERE serial > ?",
            (look.project, look.begun),
        )
    }
    for filename, (file, stamp) in look.files.items():
        row = file_row(file, stamp)
        if filename in kept_out:
            continue
        if filename in now:
            serial, documented, _, *facts = now[filename]
            if serial > look.begun or (documented and tuple(facts) == row):
                continue
        statements.append((_LOOKED_UP, (*row, look.looked_at)))
    broken = {
        row[0]: row[1:]
        for row in connection.execute("SELECT filename, stamp, problem FROM broken")
        if _project_of(row[0]) == look.project
    }
    for filename in broken.keys() - look.broken.keys():
        statements.append(("DELETE FROM broken WHERE filename = ?", (filename,)))
    for filename, found in look.broken.items():
        if broken.get(filename) != found:
            statements.append(
                ("INSERT OR REPLACE INTO broken VALUES (?, ?, ?)", (filename, *found))
            )
    return statements


def _is_overtaken(connection: sqlite3.Connection, look: Look) -> bool:
    """Whether the storage was asked again since; a time that is yet to come says nothing."""
    row = connection.execute(
        "SELECT looked_at FROM looks WHERE project = ?", (look.project,)
    ).fetchone()
    return row is not None and look.looked_at < row[0] <= time.time()


def _note_look(connection: sqlite3.Connection, look: Look) -> None:
    connection.execute("INSERT OR REPLACE INTO looks VALUES (?, ?)", (look.project, look.looked_at))
    connection.execute("UPDATE state SET synced_at = ?", (look.looked_at,))


def _project_of(filename: str) -> str | None:
    try:
        return parse_filename(filename).project
    except InvalidFilename:
        return None


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
        file.summary,
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
        summary=row[10],
    )


def _line(row: Sequence[Any]) -> ProjectLine:
    return ProjectLine(
        name=row[0],
        version=row[1] or "",  # its last file went between two looks
        summary=row[2],
        uploaded_at=None if row[3] is None else _EPOCH + row[3] * _MICROSECOND,
    )


def _searched(
    words: Sequence[str], among: Collection[str] | None
) -> tuple[str, tuple[object, ...]]:
    where, parameters = _one_of("name", among)
    where = "files > 0" + where
    for word in words:
        escaped = word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        where += (
            " AND (name LIKE ? ESCAPE '\\' OR EXISTS (SELECT 1 FROM files"
            " WHERE project = name AND summary LIKE ? ESCAPE '\\'))"
        )
        # In names `_` and `.` are written `-`.
        in_name = escaped.replace("\\_", "-").replace(".", "-")
        parameters += (f"%{in_name}%", f"%{escaped}%")
    return where, parameters


def _one_of(column: str, among: Collection[str] | None) -> tuple[str, tuple[object, ...]]:
    if among is None:
        return "", ()
    return f" AND {column} IN (SELECT value FROM json_each(?))", (json.dumps(sorted(among)),)


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
