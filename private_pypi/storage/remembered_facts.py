"""Remembers what was read in files, so that a file is read once: SQLite, for all processes.

Everything here may be lost at any time; then files are read again. If the storage gives the hash of
a file, its facts count wherever the same bytes are stored, so that all projects and all tenants of
a table share them. Otherwise they count for a filename with its stamp in one storage.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sqlite3
import threading
import time
from pathlib import Path

from private_pypi.distributions.records import first_seen
from private_pypi.errors import InvalidUpload
from private_pypi.model import DistributionFile, StoredFile

_log = logging.getLogger(__name__)

_TABLE = """
CREATE TABLE IF NOT EXISTS facts (
    key TEXT PRIMARY KEY,
    facts TEXT NOT NULL,
    kept_at INTEGER NOT NULL  -- unix seconds
) WITHOUT ROWID
"""
_BUSY_SECONDS = 5.0
_MOST = 500_000  # rows, of some 300 bytes
_SWEEP_EVERY = 1000  # rows added

# What the storage says of a file each time it is listed.
_OF_THE_LISTING = {"filename", "location", "uploaded_at", "yanked"}
_LATER = {"published_name", "keywords"}  # earlier versions did not remember these
# What only files of another index have.
_OF_MIRRORS = {"offers_unhashed_metadata", "hashes", "provenance", "source"}
_OF_THE_CONTENT = (
    {field.name for field in dataclasses.fields(DistributionFile)} - _OF_THE_LISTING - _OF_MIRRORS
)


class RememberedFacts:
    """Facts of files, kept in the SQLite file `path`; safe for many threads and processes.

    Construction does no I/O. Trouble with the file is only logged: then nothing is remembered.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()  # guards the connection
        self._connection: sqlite3.Connection | None = None
        self._added = 0

    def find(self, stored: StoredFile, place: str) -> DistributionFile | InvalidUpload | None:
        """The file, or what is wrong with it; None if nothing is remembered.

        `place` identifies the storage, because stamps of two storages may be equal.
        """
        text = self._get(_key(stored, place))
        if text is None:
            return None
        facts = json.loads(text)
        if set(facts) == {"problem"}:
            return InvalidUpload(facts["problem"])
        if not _OF_THE_CONTENT - _LATER <= set(facts) <= _OF_THE_CONTENT:  # by another version
            return None
        return DistributionFile(
            filename=stored.filename,
            location=stored.location,
            uploaded_at=stored.uploaded_at or first_seen(stored),
            yanked=stored.yanked,
            **facts,
        )

    def keep(self, stored: StoredFile, place: str, found: DistributionFile | InvalidUpload) -> None:
        """Remember what was found in a file."""
        if isinstance(found, InvalidUpload):
            facts: dict[str, object] = {"problem": str(found)}
        else:
            facts = {name: getattr(found, name) for name in _OF_THE_CONTENT}
        self._put(_key(stored, place), json.dumps(facts))

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        with self._lock:
            self._forget_connection()

    # -- the file --------------------------------------------------------------------------------

    def _get(self, key: str) -> str | None:
        with self._lock:
            try:
                found = self._opened().execute("SELECT facts FROM facts WHERE key = ?", (key,))
                row = found.fetchone()
            except (sqlite3.Error, OSError) as error:
                self._give_up(error)
                return None
        return None if row is None else str(row[0])

    def _put(self, key: str, facts: str) -> None:
        with self._lock:
            try:
                connection = self._opened()
                connection.execute(
                    "INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", (key, facts, int(time.time()))
                )
                self._added += 1
                if self._added % _SWEEP_EVERY == 0:
                    connection.execute(
                        "DELETE FROM facts WHERE key IN (SELECT key FROM facts"
                        " ORDER BY kept_at DESC LIMIT -1 OFFSET ?)",
                        (_MOST,),
                    )
            except (sqlite3.Error, OSError) as error:
                self._give_up(error)

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                self._path,
                timeout=_BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute(_TABLE)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _give_up(self, error: Exception) -> None:
        _log.warning("remembered facts %s: %s", self._path, error)
        self._forget_connection()
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            for suffix in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def _forget_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _key(stored: StoredFile, place: str) -> str:
    """The filename is a part of the key, because the content was compared with it as well."""
    if stored.sha256 is not None:
        return f"{stored.sha256} {stored.size} {stored.filename}"
    return f"{place} {stored.stamp} {stored.size} {stored.filename}"
