# ruff: noqa: S608 - all SQL is composed of constants
"""The tables of a local index: definition, upgrades, and what is taken over from an old file."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from private_pypi.distributions.filenames import named_projects
from private_pypi.index.identity import Identity
from private_pypi.index.rows import BURNT, FACTS_TABLE

SCHEMA = 2
BUSY_SECONDS = 20.0
"""For which a statement waits for the transaction of another process."""

TABLES = f"""
CREATE TABLE state (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    schema INTEGER NOT NULL,
    identity TEXT NOT NULL,
    serial INTEGER NOT NULL,
    ready INTEGER NOT NULL DEFAULT 0,
    synced_at REAL,
    index_mtime INTEGER,
    revision TEXT,
    error TEXT,
    listed_at REAL,
    listing_seconds REAL,
    boot TEXT
);
CREATE TABLE files ({FACTS_TABLE},
    documented INTEGER NOT NULL,  -- whether the last applied index document has it
    seen_at REAL NOT NULL,  -- unix seconds, our clock
    serial INTEGER NOT NULL
);
CREATE INDEX files_of_project ON files (project, version_key, filename);
CREATE INDEX files_by_time ON files (uploaded_at);
-- Every project that has or had files. Projects are never forgotten.
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
-- Files that this server removed. A listing that began before `serial` may still have them.
CREATE TABLE removed (filename TEXT PRIMARY KEY, serial INTEGER NOT NULL) WITHOUT ROWID;
-- Stored files that cannot be shown, so that they are not opened again until their stamp changes.
CREATE TABLE broken (
    filename TEXT PRIMARY KEY,
    stamp TEXT NOT NULL,
    problem TEXT NOT NULL
) WITHOUT ROWID;

-- When the last complete lookup of a project began. The names are those of earlier versions.
CREATE TABLE looks (
    project TEXT PRIMARY KEY,
    looked_at REAL NOT NULL  -- unix seconds, our clock
) WITHOUT ROWID;

-- Stored files that are not shown now, by the projects that they name, each with the reason.
CREATE TABLE unshown (
    project TEXT NOT NULL,
    filename TEXT NOT NULL,
    problem TEXT NOT NULL,
    PRIMARY KEY (project, filename)
) WITHOUT ROWID;
-- Burnt names of the storages that this repository had before.
CREATE TABLE burnt_elsewhere (
    identity TEXT NOT NULL,
    filename TEXT NOT NULL,
    project TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    deleted_at INTEGER NOT NULL,
    PRIMARY KEY (identity, filename)
) WITHOUT ROWID;
CREATE INDEX burnt_of_project ON burnt (project);

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

# Columns and tables that the files of earlier versions lack. They are only ever added, so `SCHEMA`
# stays the same, and earlier versions can still read the file.
_LATER_COLUMNS = {
    "state": {"listed_at": "REAL", "listing_seconds": "REAL", "boot": "TEXT"},
    "files": {"published_name": "TEXT", "keywords": "TEXT"},
}
_LATER_TABLES = ("unshown", "burnt_elsewhere", "burnt_of_project")

NEXT_SERIAL = "UPDATE state SET serial = serial + 1"
NAME_PROJECT = """
INSERT OR IGNORE INTO projects (name, serial, files) SELECT ?, serial, 0 FROM state
"""
"""Remember that a project belongs to this repository, whether or not it has files."""


def found_identity(path: Path) -> tuple[int, str] | None:
    """The schema and the identity of a file; None if it is damaged or not a local index."""
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
        try:
            row = connection.execute("SELECT schema, identity FROM state").fetchone()
        except sqlite3.DatabaseError as error:
            # SQLITE_ERROR means that the statement is wrong: there is no such table or column.
            if is_damage(error) or primary_code(error) == sqlite3.SQLITE_ERROR:
                return None
            raise
    return None if row is None else (row[0], row[1])


def create(connection: sqlite3.Connection, identity: Identity, *, ready: bool, old: Path) -> None:
    """Make the tables in an empty file, with the names that the file `old` has."""
    connection.executescript(f"BEGIN IMMEDIATE;{TABLES}")
    connection.execute(
        "INSERT INTO state (only_row, schema, identity, serial, ready) VALUES (1, ?, ?, ?, ?)",
        # A new file begins with a serial that no earlier file reached, so that a page kept under
        # an old serial is never taken for a new one.
        (SCHEMA, identity.text, time.time_ns() // 1_000_000, int(ready)),
    )
    if old.exists():
        _carry_over(old, connection, identity)
    connection.execute("COMMIT")


def complete(connection: sqlite3.Connection, *, read_again: bool) -> None:
    """Add what a file of an earlier version lacks.

    `read_again`: the next synchronisation reads the records and the document again, if columns
    were added whose values are there.
    """
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    missing = {
        (table, column): kind
        for table, columns in _LATER_COLUMNS.items()
        for column, kind in columns.items()
        if column not in _columns(connection, table)
    }
    if names.issuperset(_LATER_TABLES) and not missing:
        return
    connection.execute("BEGIN IMMEDIATE")
    for (table, column), kind in missing.items():
        connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
    if ("files", "keywords") in missing and read_again:
        connection.execute("UPDATE files SET stamp = NULL")
        connection.execute("UPDATE state SET revision = NULL")
    for statement in _statements(TABLES):
        if any(f" {name} " in statement for name in _LATER_TABLES if name not in names):
            connection.execute(statement)
    if "unshown" not in names:
        broken = connection.execute("SELECT filename, problem FROM broken").fetchall()
        for filename, problem in broken:
            rows = [(project, filename, problem) for project in named_projects(filename)]
            note_unshown(connection, rows)
    connection.execute("COMMIT")


def note_boot(connection: sqlite3.Connection, boot: str | None) -> None:
    """Call nothing absent until the next listing, if the machine was started again since.

    The last transactions before a power cut may be lost, and with them files whose uploads were
    acknowledged. The storage has these files, so the next listing, which is due at once then, finds
    them. Until then, it is not known what is absent. `boot`: see `system.boots`.
    """
    (noted,) = connection.execute("SELECT boot FROM state").fetchone()
    if boot is not None and noted != boot:
        connection.execute("UPDATE state SET boot = ?, listed_at = NULL", (boot,))


def note_unshown(connection: sqlite3.Connection, rows: Sequence[tuple[str, str, str]]) -> None:
    """Remember files that are not shown, each as project, filename and problem.

    Their projects belong to this repository.
    """
    connection.executemany(NAME_PROJECT, [row[:1] for row in rows])
    connection.executemany("INSERT OR REPLACE INTO unshown VALUES (?, ?, ?)", rows)


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether an error says that the file is damaged."""
    return primary_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def primary_code(error: sqlite3.DatabaseError) -> int:
    """The code of an error without its details, such as `sqlite3.SQLITE_FULL`."""
    # Errors that the module `sqlite3` raises by itself have no code.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _carry_over(old: Path, connection: sqlite3.Connection, identity: Identity) -> None:
    """Take over the names that an old file has, as far as it can be read."""
    connection.executemany(NAME_PROJECT, _salvaged(old, "projects", "name"))
    old_identity = next((row[0] for row in _salvaged(old, "state", "identity")), None)
    burnt = [(old_identity, *row) for row in _salvaged(old, "burnt", BURNT)]
    burnt += _salvaged(old, "burnt_elsewhere", f"identity, {BURNT}")
    for of, *row in burnt:
        # A file whose identity cannot be read any more is believed to have been of this storage.
        if of is None or identity.is_same_storage(of):
            connection.execute(f"INSERT OR IGNORE INTO burnt ({BURNT}) VALUES (?, ?, ?, ?)", row)
        else:
            connection.execute(
                f"INSERT OR IGNORE INTO burnt_elsewhere (identity, {BURNT}) VALUES (?, ?, ?, ?, ?)",
                (of, *row),
            )
        connection.execute(NAME_PROJECT, (row[1],))


def _salvaged(path: Path, table: str, columns: str) -> list[tuple[Any, ...]]:
    """The rows of a table in a file that may be damaged, read from both ends as far as possible."""
    rows: dict[tuple[Any, ...], None] = {}
    first = columns.partition(",")[0]
    for direction in ("ASC", "DESC"):
        # A read-only connection would not read the log that came with the file.
        with (
            suppress(sqlite3.DatabaseError),
            closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as found,
        ):
            for row in found.execute(f"SELECT {columns} FROM {table} ORDER BY {first} {direction}"):
                # Where there should be text, bytes are damage as well.
                if all(isinstance(value, (str, int)) for value in row):
                    rows.setdefault(row)
    return list(rows)


def _statements(script: str) -> Iterator[str]:
    """The statements of a script; that of a trigger has other statements within it."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
