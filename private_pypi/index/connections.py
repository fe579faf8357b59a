"""The SQLite file of a local index: connections, transactions, and what happens when it breaks.

There are two kinds of local indexes, `local` and `mirrored`, which define tables and queries.
"""

from __future__ import annotations

import abc
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from private_pypi.errors import BackendError, BackendUnavailable, PrivatePypiError, StorageFull
from private_pypi.index import schema
from private_pypi.index.identity import Identity
from private_pypi.system.transactions import transaction

_CACHE_KIB = 1024  # for each connection, and there is one per thread
_CHECK_EVERY = 1.0  # seconds after which a thread checks whether the file was replaced


class IndexFile(abc.ABC):
    """The file of one local index, which many threads and processes use at the same time.

    Every thread has a connection of its own, opened at first use. A file that is damaged, or that
    is a copy of something else than `identity` says, is moved away, and a new one is made, which
    may take something over from the old one.

    Every method raises `BackendUnavailable` while the file is being rebuilt, `StorageFull` when
    the disk of ROOT is full and `BackendError` for other trouble with it.
    """

    def __init__(self, path: Path, *, identity: Identity | str) -> None:
        """Construction does no I/O. `identity`: a text is a type without settings."""
        self._path = path
        self._identity = Identity(identity) if isinstance(identity, str) else identity
        self._taken_over = False  # whether this process has used the file before
        self._checked_inode: tuple[int, int] | None = None  # of the file that was checked last
        self._local = threading.local()
        # All connections, so that they can be closed once their threads have ended.
        self._connections: list[tuple[threading.Thread, sqlite3.Connection]] = []
        self._connections_lock = threading.Lock()  # guards _connections, opening
        # Threads of one process wait here, which is quicker and fairer than SQLite's polling.
        self._write_lock = threading.Lock()

    @abc.abstractmethod
    def _create(self, connection: sqlite3.Connection, old: Path) -> None:
        """Make the tables in an empty file. `old`: the file that was moved away, if it exists."""

    def _complete(self, connection: sqlite3.Connection) -> None:  # noqa: B027
        """Add what a file of an earlier version lacks."""

    def exists(self) -> bool:
        """Whether the file is there and is of this storage and these settings; changes nothing.

        Raises `BackendError` for a file of another configuration, or of another user.
        """
        try:
            owner = self._path.stat().st_uid
        except FileNotFoundError:
            return False
        if owner != os.geteuid():  # that user could not write the files that SQLite adds beside it
            raise BackendError(
                f"{self._path} belongs to user {owner}, and this is user {os.geteuid()}: run this "
                "as the user of the server"
            )
        with self.translated():
            found = schema.found_identity(self._path)
        if found is None or not self._is_ours(*found):
            raise BackendError(
                f"{self._path} is of another configuration of this repository: give the one that "
                "the server has"
            )
        return True

    def check(self) -> bool:
        """Read the whole file (about 0.1 s for 100,000 files); False: damaged, and moved away."""
        with self.translated():
            try:
                rows = self.connection().execute("PRAGMA quick_check(1)").fetchall()
                is_sound = rows == [("ok",)]
            except sqlite3.DatabaseError as error:
                if not schema.is_damage(error):
                    raise
                is_sound = False
        if not is_sound:
            self._set_aside()
        return is_sound

    def close(self) -> None:
        """Close the connections of this process; the next call opens them again."""
        with self._connections_lock:
            # Another thread may be in the middle of a statement, where closing crashes the
            # process. Its connection is closed when the thread lets go of it.
            self._close_ended()
            self._connections.clear()
            self._local = threading.local()

    # -- statements -------------------------------------------------------------------------------

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn errors of SQLite into errors of this package. A damaged file is moved away."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise self._trouble(error) from error

    @contextmanager
    def writing(
        self, connection: sqlite3.Connection | None = None, *, durable: bool = False
    ) -> Iterator[sqlite3.Connection]:
        """A transaction with a serial of its own; `durable` ones survive a power cut.

        `connection`: one of `open_connection`; None: that of this thread.
        """
        with self.transaction(connection, durable=durable) as used:
            used.execute(schema.NEXT_SERIAL)
            yield used

    @contextmanager
    def transaction(
        self, connection: sqlite3.Connection | None = None, *, durable: bool = False
    ) -> Iterator[sqlite3.Connection]:
        """As `writing`, but the transaction takes no serial."""
        with self.translated():
            if connection is None:
                connection = self.connection()
            with self._write_lock:
                if durable:
                    connection.execute("PRAGMA synchronous = FULL")
                try:
                    with transaction(connection):
                        yield connection
                finally:
                    if durable:
                        connection.execute("PRAGMA synchronous = NORMAL")

    def _all(self, sql: str, parameters: Sequence[object] = ()) -> list[Any]:
        try:  # `translated` would take longer than most statements
            return self.connection().execute(sql, parameters).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._trouble(error) from error

    def _first(self, sql: str, parameters: Sequence[object] = ()) -> Any:
        """The first row; None: there is none."""
        rows = self._all(sql, parameters)
        return rows[0] if rows else None

    def _state(self, columns: str) -> Any:
        """These columns of the table `state`, which has one row."""
        row = self._first(f"SELECT {columns} FROM state")  # noqa: S608 - constants
        if row is None:
            raise BackendError(f"the local index {self._path} has lost its state")
        return row

    def _trouble(self, error: sqlite3.DatabaseError) -> PrivatePypiError:
        if schema.is_damage(error):
            self._set_aside()
            return BackendUnavailable("the local index was damaged and is being rebuilt")
        code = schema.primary_code(error)
        if code == sqlite3.SQLITE_FULL:
            return StorageFull(f"no space left for the local index {self._path}")
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return BackendUnavailable(f"the local index {self._path} is busy")
        return BackendError(f"trouble with the local index {self._path}: {error}")

    # -- connections ------------------------------------------------------------------------------

    def connection(self) -> sqlite3.Connection:
        """The connection of this thread; inside `translated` only."""
        now = time.monotonic()
        local = self._local
        try:
            if now - local.checked_at < _CHECK_EVERY:
                return local.connection  # type: ignore[no-any-return]  # threading.local
            if local.inode == _inode(self._path):
                local.checked_at = now
                return local.connection  # type: ignore[no-any-return]
        except AttributeError:
            pass
        return self._reopen(local, now)

    def open_connection(self) -> sqlite3.Connection:
        """A further connection, for one thread, which closes it."""
        with self.translated():
            self.connection()  # makes or rebuilds the file
            return _open(self._path)

    def _reopen(self, local: threading.local, now: float) -> sqlite3.Connection:
        local.__dict__.clear()  # should this fail, the next call begins here again
        with self._connections_lock:
            self._close_ended()
            # Threads come and go, and checking takes longer than opening.
            if not self._taken_over or _inode(self._path) != self._checked_inode:
                self._make_ready()
            local.inode = _inode(self._path)
            connection = _open(self._path)
            local.connection, local.checked_at = connection, now
            self._connections.append((threading.current_thread(), connection))
        return connection

    def _close_ended(self) -> None:
        """Close the connections of this thread and of threads that have ended."""
        current = threading.current_thread()
        kept = []
        for thread, connection in self._connections:
            if thread is current or not thread.is_alive():
                connection.close()
            else:
                kept.append((thread, connection))
        self._connections[:] = kept

    # -- the file ---------------------------------------------------------------------------------

    def _lock(self) -> FileLock:
        """Excludes the other processes of this ROOT from making or moving the file."""
        return FileLock(_beside(self._path, ".lock"))

    def _is_ours(self, found_schema: int, identity: str) -> bool:
        return found_schema == schema.SCHEMA and self._identity.is_same(identity)

    def _make_ready(self) -> None:
        """Make the file, or check that it is of this storage and these settings."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock():
            found = schema.found_identity(self._path) if self._path.exists() else None
            if found is None or not self._is_ours(*found):
                if found is not None and self._taken_over:
                    # A configuration changes process by process. The new one takes the file over,
                    # and the old one must not take it back.
                    raise BackendUnavailable(
                        "the local index now belongs to another configuration of this repository"
                    )
                if self._path.exists():
                    self._move_away()
                self._make()
            elif not self._taken_over:
                with closing(_open(self._path)) as connection:
                    self._complete(connection)
            self._taken_over = True
            self._checked_inode = _inode(self._path)

    def _make(self) -> None:
        # The file has another name until it is whole. A process that is killed before the file has
        # the names of the old one must not leave a file that looks as if it needed none.
        being_made = _beside(self._path, ".new")
        for suffix in ("", "-wal", "-shm", "-journal"):
            _beside(being_made, suffix).unlink(missing_ok=True)
        with closing(_open(being_made)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            self._create(connection, self._old_path())
        being_made.replace(self._path)  # closing has removed its log

    def _set_aside(self) -> None:
        """Move a damaged file away, unless another thread or process did so before."""
        with self._connections_lock, self._lock():
            if getattr(self._local, "inode", None) == _inode(self._path):
                self._move_away()
                self._taken_over = False
                self._local = threading.local()  # every thread opens a new connection

    def _move_away(self) -> None:
        # The log goes with its file, because it may have the only copy of names that were burnt a
        # moment ago. It goes first, because a new file must never find an old log.
        old = self._old_path()
        for suffix in ("-wal", "-shm"):
            _beside(old, suffix).unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            _beside(self._path, "-wal").replace(_beside(old, "-wal"))
        _beside(self._path, "-shm").unlink(missing_ok=True)
        self._path.replace(old)

    def _old_path(self) -> Path:
        return _beside(self._path, ".old")


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path,
        timeout=schema.BUSY_SECONDS,
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


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
