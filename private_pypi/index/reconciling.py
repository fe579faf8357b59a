# ruff: noqa: S608 - all SQL is composed of constants
"""What one synchronisation changes in a local index, in SQL; it reads no storage.

What was read from the storage goes into a scratch database (`staging`). The differences to the
index are found in SQL, which does not hold up the requests of other threads, and are applied in
short transactions.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from packaging.utils import NormalizedName

from private_pypi.distributions.filenames import file_key, named_projects, project_name
from private_pypi.distributions.records import first_seen
from private_pypi.index.local import LocalIndex
from private_pypi.index.rows import (
    BURNT,
    FACTS,
    FACTS_VALUES,
    FOR_PEOPLE,
    SHOWN,
    burnt_from_row,
    file_row,
    from_microseconds,
    microseconds,
)
from private_pypi.index.schema import note_unshown
from private_pypi.index.staging import make_tables
from private_pypi.model import BurntName, DistributionFile, StoredFile, StoredName, Unlisted
from private_pypi.system.transactions import transaction

_CHUNK = 500  # rows of one transaction: some milliseconds
_NOT_EXAMINED = "it is not examined yet"
SKIPPED_BY_DOCUMENT = "it could not be read when index.toml was written"
"""The reason why a file is not shown that only the document says of."""

_Parameters = Sequence[object] | Mapping[str, object]
# Nobody has changed the row since this synchronisation began, except the synchronisation itself.
_UNTOUCHED = "(files.serial <= :begun OR files.serial IN (SELECT serial FROM own))"

_APPLY_INCOMING = f"""
INSERT INTO files ({FACTS}, documented, seen_at, serial)
SELECT {FACTS}, documented, :now, (SELECT serial FROM state)
FROM incoming
WHERE id BETWEEN :first AND :last
  AND filename NOT IN (SELECT filename FROM burnt)
  AND NOT EXISTS (
      SELECT 1 FROM removed
      WHERE removed.filename = incoming.filename AND removed.serial > :begun)
ON CONFLICT (filename) DO UPDATE SET
    size = excluded.size,
    -- The same bytes keep their first time: touching a file is not an upload.
    uploaded_at = CASE WHEN sha256 = excluded.sha256 THEN
            CASE WHEN excluded.documented THEN coalesce(excluded.uploaded_at, uploaded_at)
            ELSE min(coalesce(excluded.uploaded_at, uploaded_at),
                     coalesce(uploaded_at, excluded.uploaded_at)) END
        ELSE excluded.uploaded_at END,
    requires_python = excluded.requires_python,
    -- The document says which of the known files are yanked, even if the storage keeps yanks as
    -- well (`publishing.yank` writes both): a listing may be older than an edit.
    yanked = CASE WHEN excluded.documented THEN excluded.yanked ELSE yanked END,
    stamp = CASE WHEN sha256 = excluded.sha256 THEN coalesce(excluded.stamp, stamp)
            ELSE excluded.stamp END,
    -- Documents of earlier versions lack some of these.
    {
    ", ".join(
        f"{name} = CASE WHEN sha256 = excluded.sha256 THEN coalesce(excluded.{name}, {name})"
        f" ELSE excluded.{name} END"
        for name in FOR_PEOPLE
    )
},
    sha256 = excluded.sha256,
    core_metadata_sha256 = excluded.core_metadata_sha256,
    location = excluded.location,
    documented = max(documented, excluded.documented),
    seen_at = excluded.seen_at, serial = excluded.serial
WHERE {_UNTOUCHED}
"""


class Reconciliation:
    """What one synchronisation changes; a context manager, for one thread.

    Its connection sees the index together with the scratch database, a temporary file at `scratch`.
    Its counts (`added`, `changed`, `removed`) grow while changes are applied.

    `revision` and `was_ready` were read through this connection. The file of the index may have
    been replaced since a thread opened it, and a new file has to be filled from the beginning.
    """

    def __init__(self, index: LocalIndex, scratch: Path) -> None:
        self._index = index
        self._connection = index.open_connection()
        try:
            with index.translated():
                self._connection.execute("ATTACH DATABASE ? AS scratch", (str(scratch),))
                make_tables(self._connection, "scratch")
            state = self._rows("SELECT serial, revision, ready FROM state")[0]
        except BaseException:
            self._connection.close()
            raise
        self._begun: int = state[0]
        self.revision: str | None = state[1]
        self.was_ready = bool(state[2])
        self.added = 0
        self.changed = 0
        self.removed = 0
        self.has_trouble = False  # whether a file could not be examined now
        self.skipped: list[str] = []  # a sentence for each file that was found to be broken
        self.unlisted: list[Unlisted] = []  # what the listing left out
        self._projects: dict[str, NormalizedName | None] = {}  # by the spelling of the storage
        self._burnt_keys: dict[str, BurntName] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    # -- what was read ----------------------------------------------------------------------------

    def without_unlisted(
        self, given: Iterable[StoredFile | StoredName | Unlisted]
    ) -> Iterator[StoredFile | StoredName]:
        """The files of a listing. What the listing left out is remembered in `unlisted`."""
        told = set(self.unlisted)  # a listing that was interrupted gives some of them again
        for each in given:
            if not isinstance(each, Unlisted):
                yield each
            elif each not in told:
                told.add(each)
                self.unlisted.append(each)

    def is_known_by_name(self, named: StoredName) -> bool:
        """Whether the index has a file of which a listing gave only the name.

        If so, the file counts as listed.
        """
        is_known = bool(self._rows("SELECT 1 FROM files WHERE filename = ?", (named.filename,)))
        if is_known:
            self._put("listed (filename)", [(named.filename,)])
        return is_known

    def listed(self, chunk: Sequence[StoredFile]) -> list[StoredFile]:
        """Take some of the stored files, and return those that are new or have changed.

        The first of two files with one name counts. Files that are not shown are remembered as
        well, because their projects belong to this repository.
        """
        stored_files = {stored.filename: stored for stored in reversed(chunk)}
        listed = []
        for s in stored_files.values():
            modified_at = s.modified_at and microseconds(first_seen(s))
            listed.append((s.filename, s.size, s.location, s.stamp, modified_at, s.yanked))
        self._put("listed", listed)
        names = ", ".join("?" * len(stored_files))
        rows = self._rows(
            "SELECT filename, listed.stamp, files.filename IS NULL, broken.problem,"
            "       broken.stamp IS listed.stamp"
            " FROM listed LEFT JOIN files USING (filename) LEFT JOIN broken USING (filename)"
            f" WHERE filename IN ({names})"
            "   AND listed.stamp IS NOT files.stamp"
            "   AND filename NOT IN (SELECT filename FROM burnt)",
            list(stored_files),
        )
        unknown = []
        hidden = []
        for filename, stamp, is_hidden, problem, is_broken in rows:
            stored = stored_files[filename]
            if is_hidden:
                why = problem if is_broken else _NOT_EXAMINED
                hidden += [(project, filename, why) for project in self._projects_of(stored)]
            if stored.stamp == stamp and not is_broken:
                unknown.append(stored)
        folders = {self._normalized(s.project) for s in chunk if s.project is not None} - {None}
        self._put("named", [(project,) for project in folders])
        self._put("hidden", hidden)
        return unknown

    def name_projects(self, projects: Iterable[str]) -> None:
        """Take the names of projects that belong to this repository, also without files."""
        self._put("named", [(project,) for project in projects])

    @property
    def burnt_keys(self) -> Mapping[str, BurntName]:
        """The burnt names by their `file_key`; read once."""
        if self._burnt_keys is None:
            burnt = map(burnt_from_row, self._rows(f"SELECT {BURNT} FROM burnt"))
            self._burnt_keys = {file_key(each.filename): each for each in burnt}
        return self._burnt_keys

    def is_new(self, filename: str) -> bool:
        """Whether a file is neither in the index nor in the document."""
        return not self._rows(
            "SELECT 1 FROM files WHERE filename = ?1"
            " UNION ALL SELECT 1 FROM staged_entries WHERE filename = ?1"
            " UNION ALL SELECT 1 FROM staged_unexamined WHERE filename = ?1",
            (filename,),
        )

    def _projects_of(self, stored: StoredFile) -> set[str]:
        names: set[str] = set(named_projects(stored.filename))
        if stored.project is not None:
            names |= {self._normalized(stored.project) or ""} - {""}
        return names

    def _normalized(self, project: str) -> NormalizedName | None:
        if project not in self._projects:
            self._projects[project] = project_name(project)
        return self._projects[project]

    def postpone(self, chunk: Sequence[StoredFile]) -> None:
        """Remember files that have no record, so that the document or the files are read."""
        columns = "filename, size, location, stamp, project, uploaded_at"
        rows = []
        for s in chunk:
            uploaded_at = microseconds(s.uploaded_at or first_seen(s))
            rows.append((s.filename, s.size, s.location, s.stamp, s.project, uploaded_at))
        self._put(f"pending ({columns})", rows)

    # -- changes ----------------------------------------------------------------------------------

    def burn(self) -> None:
        """Take over the burnt names, the restored names and the former projects of the document."""
        # What was deleted since this synchronisation began was deleted again after it was restored.
        restored = (
            "filename IN (SELECT filename FROM staged_restored)"
            " AND filename NOT IN (SELECT filename FROM removed WHERE serial > :begun)"
        )
        parameters = {"begun": self._begun}
        new = self._rows(
            "SELECT 1 FROM staged_burnt WHERE filename NOT IN (SELECT filename FROM burnt)"
            " OR filename IN (SELECT filename FROM files)"
            " UNION ALL"
            " SELECT 1 FROM staged_former WHERE name NOT IN (SELECT name FROM projects)"
            " UNION ALL"
            f" SELECT 1 FROM burnt WHERE {restored} LIMIT 1",
            parameters,
        )
        if not new:
            return
        with self._writing(durable=True) as connection:
            if connection.execute(f"DELETE FROM burnt WHERE {restored}", parameters).rowcount:
                # Files that were hidden because of these names are examined again.
                connection.execute("DELETE FROM broken")
            connection.execute(
                "INSERT OR IGNORE INTO burnt (filename, project, sha256, deleted_at)"
                " SELECT filename, project, sha256, deleted_at FROM staged_burnt"
            )
            self.removed += connection.execute(
                "DELETE FROM files WHERE filename IN (SELECT filename FROM burnt)"
            ).rowcount
            connection.execute(
                "INSERT OR IGNORE INTO projects (name, serial, files)"
                " SELECT name, (SELECT serial FROM state), 0 FROM"
                " (SELECT name FROM staged_former UNION SELECT project FROM staged_burnt)"
            )

    def note_names(self, *, at: float, seconds: float, by_document: bool, is_whole: bool) -> None:
        """Note that a listing, begun at `at` (unix seconds), has ended; it took `seconds`.

        From now on all names of the storage are known, even if files still have to be examined.
        Every project with a listed file belongs to this repository. `by_document`: the document is
        a part of the listing. `is_whole`: what is not listed is not stored any more.
        """
        with self._scratch_writing():
            self._connection.execute(
                "DELETE FROM hidden WHERE filename IN (SELECT filename FROM files)"
                " OR filename IN (SELECT filename FROM burnt)"
            )
            documented = self._rows(
                "SELECT filename, ?1 FROM staged_unexamined WHERE ?3 UNION ALL"
                " SELECT filename, ?2 FROM staged_skipped WHERE ?3",
                (_NOT_EXAMINED, SKIPPED_BY_DOCUMENT, by_document),
            )
            self._connection.executemany(
                "INSERT OR IGNORE INTO hidden SELECT ?1, ?2, ?3"
                " WHERE ?2 NOT IN (SELECT filename FROM files)"
                "   AND ?2 NOT IN (SELECT filename FROM burnt)",
                [
                    (project, filename, problem)
                    for filename, problem in documented
                    for project in named_projects(filename)
                ],
            )
            self._connection.execute("INSERT OR IGNORE INTO named SELECT project FROM hidden")
        # Entries of files that are shown now, or burnt, or gone.
        ended = (
            "filename IN (SELECT filename FROM files) OR filename IN (SELECT filename FROM burnt)"
        )
        if is_whole:
            ended += " OR (project, filename) NOT IN (SELECT project, filename FROM hidden)"
        is_new = self._rows(
            "SELECT 1 FROM named WHERE project NOT IN (SELECT name FROM projects)"
            " UNION ALL SELECT 1 FROM hidden"
            "  WHERE (project, filename) NOT IN (SELECT project, filename FROM unshown)"
            f" UNION ALL SELECT 1 FROM unshown WHERE {ended} LIMIT 1"
        )
        if is_new:
            with self._writing(durable=True) as connection:
                connection.execute(
                    "INSERT OR IGNORE INTO projects (name, serial, files)"
                    " SELECT project, (SELECT serial FROM state), 0 FROM named"
                )
                connection.execute(f"DELETE FROM unshown WHERE {ended}")
                connection.execute(
                    "INSERT OR IGNORE INTO unshown SELECT project, filename, problem FROM hidden"
                )
        with self._index.translated():
            self._connection.execute(
                "UPDATE state SET listed_at = ?, listing_seconds = ?", (at, seconds)
            )

    def note_unchanged(self, *, at: float) -> None:
        """Note that the storage, at `at` (unix seconds), had what it had in the last listing."""
        with self._index.translated():
            self._connection.execute(
                "UPDATE state SET listed_at = ?1, synced_at = ?1, error = NULL", (at,)
            )

    def take_document(self, margin: float) -> None:
        """If the document is the listing: apply what it changes, and remove what it proves gone.

        A file that was never in a document stays, unless it was seen more than `margin` seconds
        before the listing of which the document was made.
        """
        with self._scratch_writing():
            self._connection.execute(
                f"INSERT OR IGNORE INTO incoming ({FACTS}, documented)"
                f" SELECT {_qualified('staged', FACTS)}, 1"
                " FROM staged_entries AS staged LEFT JOIN files USING (filename)"
                " WHERE files.filename IS NULL OR files.documented = 0"
                f" OR ({_qualified('staged', SHOWN)}) IS NOT ({_qualified('files', SHOWN)})"
                + "".join(
                    f" OR coalesce(staged.{name}, files.{name}) IS NOT files.{name}"
                    for name in FOR_PEOPLE
                )
                + " OR coalesce(staged.stamp, files.stamp) IS NOT files.stamp"
            )
            self._connection.execute(
                "INSERT OR IGNORE INTO pending (filename, size, location, stamp)"
                " SELECT filename, -1, staged.location, staged.location"
                " FROM staged_unexamined AS staged LEFT JOIN files USING (filename)"
                " WHERE staged.location IS NOT files.location"
                "   AND filename NOT IN (SELECT filename FROM burnt)"
                "   AND (filename, staged.location) NOT IN (SELECT filename, stamp FROM broken)"
            )
            self._connection.execute(
                "INSERT OR IGNORE INTO gone (filename) SELECT filename FROM files"
                " WHERE filename NOT IN (SELECT filename FROM staged_entries)"
                "   AND filename NOT IN (SELECT filename FROM staged_unexamined)"
                "   AND (documented OR seen_at < (SELECT mtime FROM staged_document) - ?)",
                (margin,),
            )
        self._apply()

    def take_documented_facts(self) -> None:
        """Show postponed files if the document has the facts of the same bytes."""
        with self._scratch_writing():
            self._connection.execute(
                f"INSERT OR IGNORE INTO incoming ({FACTS}, documented)"
                f" SELECT {_qualified('staged', FACTS)}, 1"
                " FROM staged_entries AS staged JOIN pending USING (filename)"
                " WHERE staged.stamp = pending.stamp AND staged.size = pending.size"
            )
            self._connection.execute(
                "UPDATE incoming SET location = pending.location,"
                " uploaded_at = coalesce(incoming.uploaded_at, pending.uploaded_at) FROM pending"
                " WHERE incoming.filename = pending.filename"
            )
            self._connection.execute(
                "DELETE FROM pending WHERE filename IN (SELECT filename FROM incoming)"
            )
        self._apply()

    def take_yanks(self) -> None:
        """If the storage is the listing: yank and un-yank files as the document says."""
        self.changed += self._update_files(
            "yanked = staged.yanked, serial = (SELECT serial FROM state)",
            "staged_entries AS staged",
            "staged.filename = files.filename AND staged.yanked IS NOT files.yanked"
            f" AND {_UNTOUCHED}",
            {"begun": self._begun},
        )

    def take_listed_yanks(self) -> None:
        """If there is no document: yank and un-yank files as the listing says."""
        self.changed += self._update_files(
            "yanked = listed.yanked, serial = (SELECT serial FROM state)",
            "listed",
            "listed.filename = files.filename AND listed.stamp = files.stamp"
            f" AND listed.yanked IS NOT files.yanked AND {_UNTOUCHED}",
            {"begun": self._begun},
        )

    def drop_unlisted(self) -> None:
        """After a complete listing: remove files that are not in it, and take over new locations.

        Files in a folder that could not be read stay.
        """
        with self._scratch_writing():
            self._connection.executemany(
                "INSERT OR IGNORE INTO listed (filename) SELECT filename FROM files"
                " WHERE substr(location, 1, length(?1)) = ?1",
                [(folder.location,) for folder in self.unlisted if folder.may_hold_files],
            )
            self._connection.execute(
                "INSERT OR IGNORE INTO gone (filename) SELECT filename FROM files"
                " WHERE filename NOT IN (SELECT filename FROM listed)"
            )
        self._apply()
        same = "listed.filename = files.filename AND listed.stamp = files.stamp"
        self._update_files(
            "location = listed.location",
            "listed",
            f"{same} AND listed.location IS NOT files.location",
        )
        # Earlier versions gave no upload time to files that were put into the storage without a
        # server. Their modification time is used instead.
        self.changed += self._update_files(
            "uploaded_at = listed.modified_at, serial = (SELECT serial FROM state)",
            "listed",
            f"{same} AND files.uploaded_at IS NULL AND listed.modified_at IS NOT NULL",
        )
        unlisted = "FROM broken WHERE filename NOT IN (SELECT filename FROM listed)"
        if self._rows(f"SELECT 1 {unlisted} LIMIT 1"):
            with self._writing() as connection:
                connection.execute(f"DELETE {unlisted}")

    def _update_files(
        self, changes: str, source: str, condition: str, parameters: _Parameters = ()
    ) -> int:
        """Update files from another table, unless that changes nothing; how many were changed."""
        if not self._rows(f"SELECT 1 FROM files, {source} WHERE {condition} LIMIT 1", parameters):
            return 0  # a transaction would take a serial
        with self._writing() as connection:
            return connection.execute(
                f"UPDATE files SET {changes} FROM {source} WHERE {condition}", parameters
            ).rowcount

    def pending(self) -> int:
        """How many postponed files there are."""
        return int(self._rows("SELECT count(*) FROM pending")[0][0])

    def each_pending(self) -> Iterator[StoredFile]:
        """The postponed files. Those of entries of 0.2 have the size -1, which means unknown.

        Files that were passed over before come last, so that they do not delay the others. Other
        methods may be called between two files.
        """
        with self._scratch_writing():
            self._connection.execute(
                "UPDATE pending SET is_late = 1"
                " WHERE filename IN (SELECT filename FROM unshown WHERE problem <> ?)",
                (_NOT_EXAMINED,),
            )
        after = (-1, 0)
        while rows := self._rows(
            "SELECT is_late, id, filename, size, location, stamp, project, uploaded_at"
            " FROM pending"
            " WHERE (is_late, id) > (?, ?) ORDER BY is_late, id LIMIT ?",
            (*after, _CHUNK),
        ):
            for is_late, id_, filename, size, location, stamp, project, uploaded_at in rows:
                yield StoredFile(
                    filename=filename,
                    size=size,
                    location=location,
                    stamp=stamp,
                    project=project,
                    uploaded_at=from_microseconds(uploaded_at),
                )
                after = (is_late, id_)

    def add(
        self, files: Sequence[tuple[DistributionFile, str]], *, documented: bool = False
    ) -> None:
        """Show files, each given with the stamp that it had when it was read.

        `documented`: the index document has them.
        """
        if not files:
            return
        with self._scratch_writing():
            self._connection.executemany(
                f"INSERT OR REPLACE INTO incoming ({FACTS}, documented)"
                f" VALUES ({FACTS_VALUES}, {int(documented)})",
                [file_row(file, stamp) for file, stamp in files],
            )
        self._apply()

    def skip(self, stored: StoredFile, problem: str) -> None:
        """Do not show a file, and do not examine it again before its stamp changes."""
        self.skipped.append(problem)
        with self._scratch_writing():
            self._connection.execute(
                "INSERT OR IGNORE INTO gone (filename) VALUES (?)", (stored.filename,)
            )
        self._apply()
        with self._writing(durable=True) as connection:
            connection.execute(
                "INSERT OR REPLACE INTO broken VALUES (?, ?, ?)",
                (stored.filename, stored.stamp, problem),
            )
            self._note_unshown(connection, stored, problem)

    def pass_over(self, stored: StoredFile, problem: str) -> None:
        """Do not show a file that cannot be examined now; the next synchronisation tries again."""
        self.has_trouble = True
        told = self._rows(
            "SELECT 1 FROM unshown WHERE filename = ? AND problem = ?", (stored.filename, problem)
        )
        if told:
            return
        self.skipped.append(problem)
        with self._writing(durable=True) as connection:
            self._note_unshown(connection, stored, problem)

    def _note_unshown(
        self, connection: sqlite3.Connection, stored: StoredFile, problem: str
    ) -> None:
        """Remember that a file is not shown, unless the index still shows it as it was before."""
        filename = stored.filename
        if not self._rows("SELECT 1 FROM files WHERE filename = ?", (filename,)):
            others = self._rows("SELECT project FROM hidden WHERE filename = ?", (filename,))
            projects = self._projects_of(stored) | {project for (project,) in others}
            note_unshown(connection, [(project, filename, problem) for project in projects])

    def finish(self, revision: str | None, *, now: float, error: str | None = None) -> None:
        """Note that this synchronisation is complete.

        `revision`: of the document that was applied; None: a part of it is missing, so that the
        next synchronisation has to read the document again. `now`: unix seconds. `error`: why the
        listing is incomplete; what it has counts all the same.
        """
        with self._index.translated():
            self._connection.execute(
                "UPDATE state SET ready = 1, synced_at = ?, error = ?", (now, error)
            )
            if revision is not None:
                self._connection.execute(
                    "UPDATE state SET revision = ?,"
                    " index_mtime = coalesce((SELECT mtime FROM staged_document), index_mtime)",
                    (revision,),
                )
            self._connection.execute(
                "DELETE FROM unshown WHERE filename IN (SELECT filename FROM files)"
            )
            self._connection.execute("DELETE FROM removed WHERE serial <= ?", (self._begun,))
            self._connection.execute(
                "DELETE FROM broken WHERE filename IN (SELECT filename FROM files)"
            )

    def is_settled(self) -> bool:
        """Whether nothing was changed, and all files are shown.

        Otherwise somebody may be writing to a file that was read: copying a large one takes a
        while.
        """
        changed = self.added or self.changed or self.removed or self.skipped or self.has_trouble
        hidden = "SELECT filename FROM unshown UNION ALL SELECT filename FROM broken LIMIT 1"
        return not changed and not self._rows(hidden)

    def document_mtime(self) -> int | None:
        """When the document was made (unix seconds): the staged one, else the one before."""
        rows = self._rows(
            "SELECT coalesce((SELECT mtime FROM staged_document), index_mtime) FROM state"
        )
        return rows[0][0] if rows else None

    def document_problems(self) -> list[str]:
        """What was wrong with the document that was staged."""
        return [problem for (problem,) in self._rows("SELECT problem FROM staged_problems")]

    # -- statements -------------------------------------------------------------------------------

    def _apply(self) -> None:
        """Add the files in `incoming` and remove those in `gone`, unless others changed them."""
        for first, last in self._chunks("incoming"):
            with self._writing() as connection:
                parameters = {"first": first, "last": last, "begun": self._begun}
                known = (
                    "SELECT count(*) FROM incoming JOIN files USING (filename)"
                    " WHERE id BETWEEN ? AND ?"
                )
                before = self._rows(known, (first, last))[0][0]
                touched = connection.execute(
                    _APPLY_INCOMING, {**parameters, "now": time.time()}
                ).rowcount
                added = self._rows(known, (first, last))[0][0] - before
                self.added += added
                self.changed += touched - added
        for first, last in self._chunks("gone"):
            with self._writing(durable=True) as connection:
                self.removed += connection.execute(
                    f"DELETE FROM files WHERE {_UNTOUCHED} AND filename IN"
                    " (SELECT filename FROM gone WHERE id BETWEEN :first AND :last)",
                    {"begun": self._begun, "first": first, "last": last},
                ).rowcount
        with self._scratch_writing():
            self._connection.execute("DELETE FROM incoming")
            self._connection.execute("DELETE FROM gone")

    def _chunks(self, table: str) -> Iterator[tuple[int, int]]:
        first, last = self._rows(f"SELECT min(id), max(id) FROM {table}")[0]
        if first is not None:
            for start in range(first, last + 1, _CHUNK):
                yield start, start + _CHUNK - 1

    @contextmanager
    def _writing(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        with self._index.writing(self._connection, durable=durable) as connection:
            connection.execute("INSERT INTO own SELECT serial FROM state")
            yield connection

    def _rows(self, sql: str, parameters: _Parameters = ()) -> list[Any]:
        with self._index.translated():
            return self._connection.execute(sql, parameters).fetchall()

    def _put(self, table: str, rows: Sequence[tuple[object, ...]]) -> None:
        """Add rows to a table of the scratch database; rows that are there stay as they are."""
        if rows:
            values = ", ".join("?" * len(rows[0]))
            with self._scratch_writing():
                self._connection.executemany(
                    f"INSERT OR IGNORE INTO {table} VALUES ({values})", rows
                )

    @contextmanager
    def _scratch_writing(self) -> Iterator[None]:
        with self._index.translated(), transaction(self._connection, immediate=False):
            yield


def _qualified(table: str, columns: str) -> str:
    return ", ".join(f"{table}.{column.strip()}" for column in columns.split(","))
