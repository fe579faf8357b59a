# ruff: noqa: S608 - all SQL is composed of constants
"""Removes pages from the local index of a mirror, and keeps what only this server knew of them.

A page can be asked for again, so those that the upstream was asked for longest ago are removed when
the file is too large. A page that is in use is asked for again every interval, so it is not among
them. Two facts about files cannot be asked for again. The hash of a file that the upstream lists
without one protects everybody who downloads it later, so it is never removed: there is one for each
file that was downloaded whole. When a file was seen first counts for the policy if the upstream
gives no upload time; these facts are limited in number, and a file whose fact was removed counts as
new, so that nothing is served too early.

A page is removed in one transaction, so readers see all of its files or none.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

TABLES = """
CREATE TABLE IF NOT EXISTS facts (
    project TEXT NOT NULL,
    filename TEXT NOT NULL,
    sha256 TEXT,
    hashes TEXT NOT NULL,
    size INTEGER,
    metadata TEXT,
    first_seen_at INTEGER NOT NULL,
    learned_sha256 TEXT,
    learned_size INTEGER,
    learned_metadata TEXT,
    PRIMARY KEY (project, filename)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sights ON facts (first_seen_at)
    WHERE learned_sha256 IS NULL;
CREATE INDEX IF NOT EXISTS pages_by_age ON pages (checked_at);
"""

MOST_SIGHTS = 500_000
"""Facts of files whose hash was not learned, such as when they were seen first; about 100 MB."""

NEWEST = 128
"""Pages that are never removed, because they were asked for a moment ago, and may be read now."""

_OURS = "first_seen_at, learned_sha256, learned_size, learned_metadata"
_KEPT = f"project, filename, sha256, hashes, size, metadata, {_OURS}"
_IS_SIGHT = "learned_sha256 IS NULL"


def used_bytes(connection: sqlite3.Connection) -> int:
    """The bytes of the file that are in use; what was removed is used again for what comes."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    return int((pages - free) * size)


def forget_oldest(connection: sqlite3.Connection) -> bool:
    """Remove the page that was asked for longest ago; False: only the newest are left."""
    row = connection.execute(
        "SELECT project FROM pages WHERE checked_at <"
        " (SELECT checked_at FROM pages ORDER BY checked_at DESC LIMIT 1 OFFSET ?)"
        " ORDER BY checked_at LIMIT 1",
        (NEWEST - 1,),
    ).fetchone()
    if row is None:
        return False
    forget(connection, row[0])
    return True


def forget(connection: sqlite3.Connection, project: str) -> None:
    """Remove a page, and keep the facts of its files that the upstream does not tell."""
    connection.execute(
        f"INSERT OR REPLACE INTO facts ({_KEPT}) SELECT {_KEPT} FROM files WHERE project = ?"
        " AND (uploaded_at IS NULL OR sha256 IS NULL OR learned_sha256 IS NOT NULL"
        " OR learned_metadata IS NOT NULL)",
        (project,),
    )
    for table in ("files", "others", "pages"):
        connection.execute(f"DELETE FROM {table} WHERE project = ?", (project,))


def forget_absent(connection: sqlite3.Connection, *, most: int) -> None:
    """Remember at most `most` projects that the upstream does not have, the last ones."""
    for (project,) in connection.execute(
        "SELECT project FROM pages WHERE is_there = 0 ORDER BY checked_at DESC LIMIT -1 OFFSET ?",
        (most,),
    ).fetchall():
        forget(connection, project)


def has_too_many_sights(connection: sqlite3.Connection) -> bool:
    """Whether `forget_sights` has something to do."""
    row = connection.execute(
        f"SELECT 1 FROM facts WHERE {_IS_SIGHT} ORDER BY first_seen_at LIMIT 1 OFFSET ?",
        (MOST_SIGHTS,),
    ).fetchone()
    return row is not None


def forget_sights(connection: sqlite3.Connection) -> None:
    """Remove facts of files whose hash was not learned, until `MOST_SIGHTS` of them are left.

    Those that were seen first stay, so whoever has many pages removed cannot make known files count
    as new.
    """
    connection.execute(
        "DELETE FROM facts WHERE (project, filename) IN (SELECT project, filename FROM facts"
        f" WHERE {_IS_SIGHT} ORDER BY first_seen_at LIMIT -1 OFFSET ?)",
        (MOST_SIGHTS,),
    )


def recall(connection: sqlite3.Connection, project: str) -> None:
    """Make the facts of a removed page rows of `files` again, before the page itself is taken."""
    connection.execute(
        f"INSERT OR IGNORE INTO files ({_KEPT}, version, version_key, url)"
        f" SELECT {_KEPT}, '', '', '' FROM facts WHERE project = ?",
        (project,),
    )
    connection.execute("DELETE FROM facts WHERE project = ?", (project,))


def facts_of(connection: sqlite3.Connection, project: str) -> Mapping[str, tuple[Any, ...]]:
    """By filename, of a removed page: first_seen_at and what was learned."""
    rows = connection.execute(
        f"SELECT filename, {_OURS} FROM facts WHERE project = ?", (project,)
    ).fetchall()
    return {row[0]: row[1:] for row in rows}
