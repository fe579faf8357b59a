# ruff: noqa: S608 - all SQL is composed of constants
"""The local index of a repository, which its pages are made of: queries and changes.

It is a SQLite file for all processes of a ROOT, and a copy of what the storage has. So it can be
deleted, and it is replaced when it is damaged or a copy of another repository (`connections`). Then
`synchronizing` fills a new one. Two things are taken over from the old file, as far as it can be
read, because not every storage keeps them: the names of the projects that this repository
ever had, which must never be looked for at a public index, and the names of deleted files, which
are burnt. Burnt names of another storage are kept until that storage comes back.

Serials order everything. Each transaction that changes something takes the next serial, and writes
it to the rows and the projects it changes. A synchronisation remembers the serial at which it began
and touches no row with a later one: an upload, a yank or a delete wins over a listing or a document
that was read before it.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from packaging.utils import NormalizedName

from private_pypi.distributions.filenames import file_key, parse_filename
from private_pypi.errors import FilenameBurnt, InvalidFilename
from private_pypi.index import schema
from private_pypi.index.connections import IndexFile
from private_pypi.index.identity import Identity
from private_pypi.index.rows import (
    BURNT,
    FACTS,
    FACTS_VALUES,
    FILE,
    SHOWN_ROW,
    burnt_from_row,
    file_from_row,
    file_row,
    from_microseconds,
    microseconds,
    version_key,
)
from private_pypi.model import BurntName, DistributionFile, ShownColumns
from private_pypi.storage.bounded import BoundedBytes
from private_pypi.system.boots import boot_id

_CLOCKS_DIFFER = 24 * 60 * 60.0  # seconds, at most

_UPLOAD = f"""
INSERT INTO files ({FACTS}, documented, seen_at, serial)
VALUES ({FACTS_VALUES}, 0, ?, (SELECT serial FROM state))
ON CONFLICT (filename) DO UPDATE SET
    size = excluded.size, uploaded_at = excluded.uploaded_at,
    requires_python = excluded.requires_python,
    -- The same bytes again do not undo a yank.
    yanked = CASE WHEN sha256 = excluded.sha256 THEN yanked ELSE excluded.yanked END,
    sha256 = excluded.sha256,
    core_metadata_sha256 = excluded.core_metadata_sha256,
    summary = excluded.summary,
    published_name = excluded.published_name, keywords = excluded.keywords,
    location = excluded.location, stamp = excluded.stamp,
    documented = 0, seen_at = excluded.seen_at, serial = excluded.serial
"""

# The file that represents a project: one of its newest final release that is not yanked, if it has
# one. A key of `version_key` with "~" in two places belongs to a version that is not a pre-release.
_NEWEST = """
SELECT filename FROM files WHERE project = name
ORDER BY yanked IS NOT NULL, version_key NOT LIKE '%!~%~%', version_key DESC, filename LIMIT 1
"""
# These change with every change of a file. The location alone changes without a new serial.
_CHANGES = "files.serial, files.sha256, files.location"
_IF_READY = "FROM files, state WHERE filename = ? AND state.ready"
_CHANGES_OF = f"SELECT {_CHANGES} {_IF_READY}"
_LAST_FILES, _OF_ONE_FILE = 4 * 2**20, 2000  # bytes, about: of all files in memory, and of one
_NEWEST_FILES = 500  # among which the newest releases are searched for


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectLine:
    """A project in a list for people."""

    name: NormalizedName
    version: str  # the newest, or that of the listed upload; "" if unknown
    summary: str | None
    uploaded_at: datetime | None  # UTC
    published_name: str | None = None  # None: it is written like `name`

    @property
    def title(self) -> str:
        """The name as people wrote it."""
        return self.published_name or self.name


@dataclass(frozen=True, slots=True)
class SyncState:
    """How fresh the local index is."""

    synced_at: float | None  # unix seconds of the last complete synchronisation; None: never
    index_mtime: int | None  # of the document that was applied last, unix seconds
    revision: str | None  # of that document
    error: str | None  # why the last synchronisation failed; None: it did not fail
    listing_seconds: float | None = None  # how long it took to read the last complete listing
    listed_at: float | None = None  # when that began, unix seconds; None: there was none
    ready: bool = False  # see `LocalIndex.ready`


@dataclass(frozen=True, slots=True)
class _Sight:
    """When this process first saw a certain time of a listing."""

    listed_at: float  # unix seconds
    age: float  # of the listing at that moment, in seconds
    seen_at: float  # time.monotonic()


class LocalIndex(IndexFile):
    """A copy of the index of one repository; safe for many threads and processes."""

    def __init__(self, path: Path, *, identity: Identity | str, always_ready: bool = False) -> None:
        """`always_ready`: there is no first listing to wait for, because projects are looked up."""
        super().__init__(path, identity=identity)
        self._always_ready = always_ready
        self._sight: _Sight | None = None
        # Lately found, each with its `_CHANGES`. To read them takes half the time of the whole row.
        self._last_files: BoundedBytes[tuple[object, DistributionFile]] = BoundedBytes(_LAST_FILES)

    def _create(self, connection: sqlite3.Connection, old: Path) -> None:
        schema.create(connection, self._identity, ready=self._always_ready, old=old)
        schema.note_boot(connection, boot_id())

    def _complete(self, connection: sqlite3.Connection) -> None:
        # If projects are looked up, their files stay as they are: otherwise every file would be
        # requested at once. New files have the new columns.
        schema.complete(connection, read_again=not self._always_ready)
        schema.note_boot(connection, boot_id())

    # -- reading: a few microseconds each ---------------------------------------------------------

    def ready(self) -> bool:
        """Whether a first listing was complete. Before that, nothing may be called absent."""
        return bool(self._state("ready")[0])

    def serial(self) -> int:
        """A number that grows with every change of the repository."""
        return int(self._state("serial")[0])

    def project_serial(self, project: str) -> int | None:
        """A number that grows with every change of the project's page; None: it was never here.

        Read it before the files. Then what is kept under a serial is never older than the serial.
        """
        row = self._first("SELECT serial FROM projects WHERE name = ?", (project,))
        return None if row is None else row[0]

    def page_of(self, project: str) -> tuple[int, int] | None:
        """`project_serial` of a project and how many files it has, once the index is ready.

        None if it has no files.
        """
        found: tuple[int, int] | None = self._first(
            "SELECT p.serial, p.files FROM projects AS p, state AS s "
            "WHERE p.name = ? AND p.files > 0 AND s.ready",
            (project,),
        )
        return found

    def has_files(self, project: str) -> bool:
        """Whether the project has files now."""
        row = self._first("SELECT files FROM projects WHERE name = ?", (project,))
        return row is not None and row[0] > 0

    def project_files(self, project: str) -> tuple[DistributionFile, ...]:
        """The files of a project, ordered by version (PEP 440), then by name."""
        rows = self._all(
            f"SELECT {FILE} FROM files WHERE project = ? ORDER BY version_key, filename",
            (project,),
        )
        return tuple(map(file_from_row, rows))

    def shown_rows(self, project: str) -> list[ShownColumns]:
        """As `project_files`, but only what pages for tools say, and as plain tuples.

        To make an object of each takes longer than to read it.
        """
        return self._all(
            f"SELECT {SHOWN_ROW} FROM files WHERE project = ? ORDER BY version_key, filename",
            (project,),
        )

    def projects(self) -> list[tuple[NormalizedName, int]]:
        """Every project that has files, by name, with its serial."""
        return self._all("SELECT name, serial FROM projects WHERE files > 0 ORDER BY name")

    def had_names(self) -> set[NormalizedName]:
        """The names of all projects that this repository has or ever had."""
        return {name for (name,) in self._all("SELECT name FROM projects")}

    def search(
        self,
        words: Sequence[str] = (),
        *,
        limit: int,
        offset: int = 0,
        among: Collection[str] | None = None,
    ) -> tuple[int, list[ProjectLine]]:
        """How many projects have every word in their name, summary or keywords, and some of them.

        A project of exactly this name comes first, the others are ordered by name. `among`: search
        these only; None: all.
        """
        where, parameters = _searched(words, among)
        total = self._first(f"SELECT count(*) FROM projects WHERE {where}", parameters)[0]
        rows = self._all(
            "SELECT name, version, summary, uploaded_at, published_name FROM"
            f" (SELECT name FROM projects WHERE {where}"
            "  ORDER BY name <> ?, name LIMIT ? OFFSET ?) AS found"
            f" LEFT JOIN files ON filename = ({_NEWEST})",
            (*parameters, "-".join(words).lower(), limit, offset),
        )
        return total, [_line(row) for row in rows]

    def newest_releases(
        self, limit: int, *, among: Collection[str] | None = None, once_each: bool = True
    ) -> list[ProjectLine]:
        """The releases that were uploaded last, if the time is known.

        `once_each`: only the newest release of each project.
        """
        where, parameters = _one_of("project", among)
        rows = self._all(
            "SELECT project, version, summary, uploaded_at, published_name FROM files"
            f" WHERE uploaded_at IS NOT NULL AND yanked IS NULL{where}"
            f" ORDER BY uploaded_at DESC LIMIT {_NEWEST_FILES}",
            parameters,
        )
        newest: dict[tuple[str, str], ProjectLine] = {}
        for row in rows:
            key = (row[0], "" if once_each else row[1])
            newest.setdefault(key, _line(row))
            if len(newest) == limit:
                break
        return list(newest.values())

    def newest_projects(
        self, limit: int, *, among: Collection[str] | None = None
    ) -> list[ProjectLine]:
        """The projects whose first upload was last, if the time is known."""
        where, parameters = _one_of("project", among)
        rows = self._all(
            "SELECT project, version, summary, min(uploaded_at) AS first, published_name FROM files"
            f" WHERE uploaded_at IS NOT NULL{where}"
            f" GROUP BY project ORDER BY first DESC LIMIT {int(limit)}",
            parameters,
        )
        return [_line(row) for row in rows]

    def file(self, filename: str) -> DistributionFile | None:
        """The published file of this name."""
        row = self._first(f"SELECT {FILE} FROM files WHERE filename = ?", (filename,))
        return None if row is None else file_from_row(row)

    def file_if_ready(self, filename: str) -> DistributionFile | None:
        """The same once the index is ready, else None.

        It is the same object as before, if nothing of the file has changed.
        """
        last = self._last_files.find(filename)
        if last is not None and last[0] == self._first(_CHANGES_OF, (filename,)):
            return last[1]
        row = self._first(f"SELECT {FILE}, {_CHANGES} {_IF_READY}", (filename,))
        if row is None:
            return None
        file = file_from_row(row)
        self._last_files.keep(filename, (row[-3:], file), _OF_ONE_FILE)
        return file

    def same_files(self, filename: str) -> tuple[DistributionFile, ...]:
        """The published files that installers take for this one: of this name in any spelling.

        The file of exactly this name comes first. There is more than one only if a storage had
        several before servers compared spellings.
        """
        try:
            parsed = parse_filename(filename)
        except InvalidFilename:
            return ()
        rows = self._all(
            f"SELECT {FILE} FROM files WHERE project = ? AND version_key = ?"
            " ORDER BY filename <> ?, filename",
            (parsed.project, version_key(parsed.version), filename),
        )
        return tuple(
            file for file in map(file_from_row, rows) if file_key(file.filename) == parsed.key
        )

    def burnt(self, filename: str) -> BurntName | None:
        """The deleted file that had this name in any spelling (`ParsedFilename.key`)."""
        with self.translated():
            found = _burnt(self.connection(), filename)
        row = self._first(f"SELECT {BURNT} FROM burnt WHERE filename = ?", (found,))
        return None if row is None else burnt_from_row(row)

    def sync_state(self) -> SyncState:
        """When and from what the copy was taken."""
        columns = "synced_at, index_mtime, revision, error, listing_seconds, listed_at, ready"
        return SyncState(*self._state(columns))

    def age(self, state: SyncState | None = None) -> float | None:
        """Seconds since the last complete listing of the storage began.

        What was not listed was absent at that moment. None: unknown, because there was no listing,
        or because its time is in the future after the clock was set back. Once this process has
        seen a time, it uses the monotonic clock, which nobody sets. `state`: as it was read last.
        """
        listed_at = (state or self.sync_state()).listed_at
        if listed_at is None:
            return None
        by_clock = time.time() - listed_at
        sight = self._sight
        if sight is None or sight.listed_at != listed_at:
            if by_clock < 0:
                return None
            sight = self._sight = _Sight(listed_at, by_clock, time.monotonic())
        return max(by_clock, sight.age + time.monotonic() - sight.seen_at)

    def unshown(self, project: str | None = None) -> dict[str, str]:
        """The stored files that name the project and are not shown, each with the reason.

        None: those of all projects.
        """
        return dict(
            self._all(
                "SELECT filename, problem FROM unshown WHERE project = coalesce(?, project)"
                " ORDER BY filename",
                (project,),
            )
        )

    def broken(self) -> dict[str, str]:
        """Stored files that cannot be shown, each with the reason."""
        return dict(self._all("SELECT filename, problem FROM broken ORDER BY filename"))

    # -- changing: visible to every process when the call returns ---------------------------------

    def add_file(
        self, file: DistributionFile, stamp: str | None, *, is_listed: bool = False
    ) -> None:
        """Show a file that was just stored. The same file again changes nothing on pages.

        Raises `FilenameBurnt` for the name of a deleted file. Another spelling of such a name is
        accepted only for a file that is published already.

        That the name of a new project belongs to this repository must not be forgotten in a power
        cut, or it would be looked for at a public index. `is_listed`: the next listing of the
        storage has the file for certain. Then nothing is synced here, because `schema.note_boot`
        waits for that listing.
        """
        is_found = is_listed and boot_id() is not None
        is_durable = not is_found and self.project_serial(file.project) is None
        with self.writing(durable=is_durable) as connection:
            burnt = _burnt(connection, file.filename)
            if burnt is not None and (burnt == file.filename or not _has(connection, file)):
                raise FilenameBurnt(file.filename, deleted=burnt)
            connection.execute(_UPLOAD, (*file_row(file, stamp), time.time()))
            connection.execute("DELETE FROM removed WHERE filename = ?", (file.filename,))
            connection.execute("DELETE FROM unshown WHERE filename = ?", (file.filename,))

    def remove_files(self, filenames: Sequence[str], *, burn: bool, at: datetime) -> None:
        """Stop showing files; `burn` their names so that they are never shown again.

        Unknown names are ignored. When this returns, the burnt names survive a power cut.
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

    def restore_files(self, files: Sequence[DistributionFile]) -> None:
        """Undo `remove_files(burn=True)`: show the files again, and allow their names."""
        with self.writing(durable=True) as connection:
            for file in files:
                for table in ("burnt", "removed"):
                    connection.execute(f"DELETE FROM {table} WHERE filename = ?", (file.filename,))
                connection.execute(_UPLOAD, (*file_row(file, None), time.time()))

    def restore_names(self, filenames: Sequence[str]) -> None:
        """Allow burnt names again. What is stored under them is shown when it is listed."""
        with self.writing(durable=True) as connection:
            for filename in filenames:
                connection.execute("DELETE FROM burnt WHERE filename = ?", (filename,))
            # Files that were hidden because of these names are examined again.
            connection.execute("DELETE FROM broken")
            # The storage may have such a file. Nothing may be called absent until the next listing,
            # which is due at once now.
            connection.execute("UPDATE state SET listed_at = NULL")

    def set_yanked(self, filenames: Sequence[str], reason: str | None) -> None:
        """Yank files with a reason ("": none was given), or un-yank them (None)."""
        with self.writing() as connection:
            connection.executemany(
                "UPDATE files SET yanked = ?, serial = (SELECT serial FROM state)"
                " WHERE filename = ?",
                [(reason, filename) for filename in filenames],
            )

    def note_error(self, error: str | None) -> None:
        """Remember why a synchronisation failed, for every process."""
        with self.translated():
            self.connection().execute("UPDATE state SET error = ?", (error,))

    def published_since(self, moment: float) -> set[NormalizedName]:
        """Projects with files that are known here since then (unix seconds, our clock)."""
        # The upload time is of the storage's clock, which may differ from the clock here.
        rows = self._all(
            "SELECT DISTINCT project FROM files WHERE uploaded_at >= ? AND seen_at >= ?",
            (int((moment - _CLOCKS_DIFFER) * 1_000_000), moment),
        )
        return {row[0] for row in rows}

    # -- for `lookups` alone -------------------------------------------------------------------

    def looked_up_at(self, project: str) -> float | None:
        """When the last complete lookup of a project began (unix seconds); None: there was none."""
        row = self._first("SELECT looked_at FROM looks WHERE project = ?", (project,))
        return None if row is None else row[0]

    def stamped_files(self, project: str) -> dict[str, tuple[DistributionFile, str | None]]:
        """The files of a project by name, each with the stamp that it had when it was read."""
        rows = self._all(f"SELECT {FILE}, stamp FROM files WHERE project = ?", (project,))
        found = [(file_from_row(row), row[-1]) for row in rows]
        return {file.filename: (file, stamp) for file, stamp in found}

    def burnt_names(self, project: str) -> dict[str, BurntName]:
        """The burnt filenames of a project, by name."""
        rows = self._all(f"SELECT {BURNT} FROM burnt WHERE project = ?", (project,))
        return {burnt.filename: burnt for burnt in map(burnt_from_row, rows)}


def _line(row: Sequence[Any]) -> ProjectLine:
    return ProjectLine(
        name=row[0],
        version=row[1] or "",  # None: its last file was removed between two statements
        summary=row[2],
        uploaded_at=from_microseconds(row[3]),
        published_name=row[4],
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
            " WHERE project = name"
            " AND (summary LIKE ? ESCAPE '\\' OR keywords LIKE ? ESCAPE '\\')))"
        )
        # In names `_` and `.` are written `-`.
        in_name = escaped.replace("\\_", "-").replace(".", "-")
        parameters += (f"%{in_name}%", f"%{escaped}%", f"%{escaped}%")
    return where, parameters


def _one_of(column: str, among: Collection[str] | None) -> tuple[str, tuple[object, ...]]:
    if among is None:
        return "", ()
    return f" AND {column} IN (SELECT value FROM json_each(?))", (json.dumps(sorted(among)),)


def _burnt(connection: sqlite3.Connection, filename: str) -> str | None:
    """The burnt name that equals this one, in the spelling in which it was burnt."""
    row = connection.execute("SELECT 1 FROM burnt WHERE filename = ?", (filename,)).fetchone()
    if row is not None:
        return filename
    try:
        parsed = parse_filename(filename)
    except InvalidFilename:
        return None
    names = connection.execute("SELECT filename FROM burnt WHERE project = ?", (parsed.project,))
    return next((name for (name,) in names if file_key(name) == parsed.key), None)


def _has(connection: sqlite3.Connection, file: DistributionFile) -> bool:
    row = connection.execute("SELECT 1 FROM files WHERE filename = ?", (file.filename,)).fetchone()
    return row is not None
