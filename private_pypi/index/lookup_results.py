# ruff: noqa: S608 - all SQL is composed of constants
"""What a lookup has found of one project, taken over into the local index; it asks no storage."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from private_pypi.distributions.filenames import parse_filename
from private_pypi.errors import InvalidFilename
from private_pypi.index.local import LocalIndex
from private_pypi.index.rows import FACTS, FACTS_VALUES, file_row
from private_pypi.index.schema import NAME_PROJECT, NEXT_SERIAL
from private_pypi.model import DistributionFile

_LOOKED_UP = f"""
INSERT INTO files ({FACTS}, documented, seen_at, serial)
VALUES ({FACTS_VALUES}, 1, ?, (SELECT serial FROM state))
ON CONFLICT (filename) DO UPDATE SET
    {", ".join(f"{name} = excluded.{name}" for name in FACTS.split(", "))},
    documented = 1, seen_at = excluded.seen_at, serial = excluded.serial
"""

_Statement = tuple[str, tuple[object, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """All that a storage has of one project."""

    project: str
    begun: int  # the serial of the index before the storage was asked
    looked_up_at: float  # unix seconds, before the storage was asked
    uploads_since: float
    """Unix seconds. Files that were uploaded through this server since then stay, even if the
    storage does not list them yet."""
    files: Mapping[str, tuple[DistributionFile, str]] = field(default_factory=dict)
    """By filename, each with its stamp."""
    broken: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Filename -> stamp and problem, of files that cannot be shown."""
    misnamed: Mapping[str, str] = field(default_factory=dict)
    """Filename -> problem, of files that name the project but are not distribution files."""


def take_lookup(index: LocalIndex, lookup: Lookup) -> None:
    """Make a project what its storage has, in one transaction. No change takes no serial.

    What happened after the lookup began stays as it is: an upload, a yank or a delete wins, and so
    does a later lookup of another process.
    """
    is_new = index.project_serial(lookup.project) is None
    has_something = bool(lookup.files or lookup.broken or lookup.misnamed)
    with index.transaction(durable=is_new and has_something) as connection:
        row = connection.execute(
            "SELECT looked_at FROM looks WHERE project = ?", (lookup.project,)
        ).fetchone()
        # A time in the future says nothing about the order: a clock was set back.
        if row is not None and lookup.looked_up_at < row[0] <= time.time():
            return
        statements = list(_changes(connection, lookup))
        if statements:
            connection.execute(NEXT_SERIAL)
        for sql, parameters in statements:
            connection.execute(sql, parameters)
        connection.execute(
            "INSERT OR REPLACE INTO looks VALUES (?, ?)", (lookup.project, lookup.looked_up_at)
        )
        connection.execute("UPDATE state SET synced_at = ?", (lookup.looked_up_at,))


def _changes(connection: sqlite3.Connection, lookup: Lookup) -> Iterator[_Statement]:
    """The statements that make a project what its storage has; none if nothing has changed."""
    now = {
        row[0]: row[1:]
        for row in connection.execute(
            f"SELECT filename, serial, documented, seen_at, {FACTS} FROM files WHERE project = ?",
            (lookup.project,),
        )
    }
    for filename, (serial, documented, seen_at, *_) in now.items():
        is_awaited = not documented and seen_at >= lookup.uploads_since
        if filename not in lookup.files and serial <= lookup.begun and not is_awaited:
            yield "DELETE FROM files WHERE filename = ?", (filename,)
    kept_out = {
        filename
        for (filename,) in connection.execute(
            "SELECT filename FROM burnt WHERE project = ?"
            " UNION ALL SELECT filename FROM removed WHERE serial > ?",
            (lookup.project, lookup.begun),
        )
    }
    for filename, (file, stamp) in lookup.files.items():
        if filename in kept_out:
            continue
        row = file_row(file, stamp)
        if filename in now:
            serial, documented, _, *facts = now[filename]
            if serial > lookup.begun or (documented and tuple(facts) == row):
                continue
        yield _LOOKED_UP, (*row, lookup.looked_up_at)
    was_unshown = dict(
        connection.execute(
            "SELECT filename, problem FROM unshown WHERE project = ?", (lookup.project,)
        ).fetchall()
    )
    unshown = {**{name: why for name, (_, why) in lookup.broken.items()}, **lookup.misnamed}
    if was_unshown != unshown:
        yield "DELETE FROM unshown WHERE project = ?", (lookup.project,)
        for filename, problem in unshown.items():
            yield "INSERT INTO unshown VALUES (?, ?, ?)", (lookup.project, filename, problem)
        if unshown:
            yield NAME_PROJECT, (lookup.project,)
    was_broken = {
        row[0]: row[1:]
        for row in connection.execute("SELECT filename, stamp, problem FROM broken")
        if _project_of(row[0]) == lookup.project
    }
    for filename in was_broken.keys() - lookup.broken.keys():
        yield "DELETE FROM broken WHERE filename = ?", (filename,)
    for filename, found in lookup.broken.items():
        if was_broken.get(filename) != found:
            yield "INSERT OR REPLACE INTO broken VALUES (?, ?, ?)", (filename, *found)


def _project_of(filename: str) -> str | None:
    try:
        return parse_filename(filename).project
    except InvalidFilename:
        return None
