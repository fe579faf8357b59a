# ruff: noqa: S608 - all SQL is composed of constants
"""The local index of a mirror: what another index, the *upstream*, said of its projects.

It is a SQLite file for all processes of a ROOT, like that of other repositories (`local`), but it
keeps other facts: for each page what the upstream gave to ask again whether it has changed, when it
was asked last, and that a project was absent. It can be deleted: then the upstream is asked again.
What is lost with it is what only this server knew: when a file was seen first, and the hashes of
files that the upstream lists without them. Pages that were not asked for lately are removed when
the file is too large, but not what only this server knew (`forgotten`).

Each change of a page takes the next serial number of the file.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from packaging.utils import NormalizedName, is_normalized_name
from packaging.version import Version

from private_pypi.backend import UpstreamFile, UpstreamPage
from private_pypi.distributions.filenames import normalize, parse_filename
from private_pypi.errors import BackendUnavailable, InvalidFilename
from private_pypi.index import forgotten
from private_pypi.index.connections import IndexFile
from private_pypi.index.rows import from_microseconds, microseconds, version_key
from private_pypi.index.schema import NEXT_SERIAL, SCHEMA
from private_pypi.model import ListedFile, ProjectStatus

_TABLES = """
CREATE TABLE state (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    schema INTEGER NOT NULL,
    identity TEXT NOT NULL,
    serial INTEGER NOT NULL,
    -- The list of projects: which rows of `names` it is, and when it was read.
    names_generation INTEGER,
    names_validator TEXT NOT NULL DEFAULT '',
    names_checked_at REAL,  -- unix seconds, our clock
    names_count INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE pages (
    project TEXT PRIMARY KEY,
    serial INTEGER NOT NULL,
    is_there INTEGER NOT NULL,  -- 0: the upstream has no such project
    checked_at REAL NOT NULL,  -- unix seconds, our clock
    validator TEXT NOT NULL,
    status TEXT,
    status_reason TEXT
) WITHOUT ROWID;
CREATE INDEX absent_pages ON pages (checked_at) WHERE is_there = 0;
CREATE TABLE files (
    project TEXT NOT NULL,
    filename TEXT NOT NULL,
    version TEXT NOT NULL,
    version_key TEXT NOT NULL,
    url TEXT NOT NULL,
    sha256 TEXT,
    hashes TEXT NOT NULL,  -- others, as JSON
    size INTEGER,
    uploaded_at INTEGER,  -- microseconds since 1970
    requires_python TEXT,
    yanked TEXT,
    metadata TEXT,  -- of the core metadata at the upstream: its sha256, '' if unknown; NULL: none
    provenance TEXT,
    first_seen_at INTEGER NOT NULL,  -- microseconds since 1970, our clock
    learned_sha256 TEXT,  -- of a file that the upstream lists without hash
    learned_size INTEGER,
    learned_metadata TEXT,  -- the sha256 of core metadata whose hash the upstream does not say
    PRIMARY KEY (project, filename)
) WITHOUT ROWID;
CREATE INDEX files_by_version ON files (project, version_key, filename);
-- What a page lists and is no distribution file, with the reason.
CREATE TABLE others (
    project TEXT NOT NULL,
    filename TEXT NOT NULL,
    problem TEXT NOT NULL,
    PRIMARY KEY (project, filename)
) WITHOUT ROWID;
CREATE TABLE names (
    generation INTEGER NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (generation, name)
) WITHOUT ROWID;
"""

_FROM_UPSTREAM = (
    *("filename", "version", "version_key", "url", "sha256", "hashes", "size", "uploaded_at"),
    *("requires_python", "yanked", "metadata", "provenance"),
)
_OURS = ("project", "first_seen_at", "learned_sha256", "learned_size", "learned_metadata")
_COLUMNS = ", ".join((*_FROM_UPSTREAM, *_OURS))
_INSERT = f"""
INSERT INTO files (project, first_seen_at, {", ".join(_FROM_UPSTREAM)})
VALUES (?, ?, {", ".join("?" * len(_FROM_UPSTREAM))})
ON CONFLICT (project, filename) DO UPDATE SET
    -- A file of the same name with other bytes is another file, and was not seen before.
    first_seen_at = CASE WHEN sha256 = excluded.sha256 THEN first_seen_at
        WHEN sha256 <> excluded.sha256 OR learned_sha256 <> excluded.sha256
            OR size <> excluded.size
            OR (hashes <> excluded.hashes AND '{{}}' NOT IN (hashes, excluded.hashes))
        THEN excluded.first_seen_at ELSE first_seen_at END,
    -- What was learned of other bytes does not count, if the upstream says that they are others.
    learned_metadata = CASE WHEN metadata IS excluded.metadata AND sha256 IS excluded.sha256
        AND hashes = excluded.hashes THEN learned_metadata END,
    -- A hash that the upstream does not tell any more counts as one that was learned.
    learned_sha256 = CASE WHEN excluded.sha256 IS NULL AND sha256 IS NOT NULL THEN sha256
        WHEN hashes = excluded.hashes OR '{{}}' IN (hashes, excluded.hashes)
        THEN learned_sha256 END,
    learned_size = CASE WHEN hashes = excluded.hashes OR '{{}}' IN (hashes, excluded.hashes)
        THEN learned_size END,
    {", ".join(f"{name} = excluded.{name}" for name in _FROM_UPSTREAM)}
"""
_MOST_ABSENT = 10_000  # projects that are absent, because anybody can ask for names made up
_MOST_REMOVED = 200  # pages that one call of `make_room` removes
_BATCH = 5_000  # names in one transaction, so that others can write in between


@dataclass(frozen=True, slots=True, kw_only=True)
class MirroredFile(ListedFile):
    """A file of the upstream. `location` is its URL."""

    first_seen_at: datetime  # UTC; when a page of the upstream listed it first, by our clock
    has_upstream_metadata: bool
    """Whether the upstream has the core metadata; if not, they are read from the wheel."""
    allowance: Mapping[str, object] | None = None
    """What an audit line says, if the file is only served because somebody has allowed it."""


@dataclass(frozen=True, slots=True)
class PageState:
    """What is known of a page, without its files."""

    serial: int  # grows with every change of the page
    is_there: bool  # False: the upstream said that it has no such project
    checked_at: float  # unix seconds, our clock: when the upstream confirmed it last
    validator: str  # see `UpstreamPage`
    status: ProjectStatus | None


@dataclass(frozen=True, slots=True)
class NamesState:
    """What is known of the list of projects."""

    generation: int | None  # changes with the list; None: it was never read
    validator: str
    checked_at: float | None  # unix seconds, our clock
    count: int


class MirroredIndex(IndexFile):
    """What an upstream said; safe for many threads and processes."""

    def _create(self, connection: sqlite3.Connection, old: Path) -> None:
        connection.executescript(f"BEGIN IMMEDIATE;{_TABLES}{forgotten.TABLES}")
        connection.execute(
            "INSERT INTO state (only_row, schema, identity, serial) VALUES (1, ?, ?, ?)",
            # As in other local indexes: no earlier file reached this serial.
            (SCHEMA, self._identity.text, time.time_ns() // 1_000_000),
        )
        connection.execute("COMMIT")

    def _complete(self, connection: sqlite3.Connection) -> None:
        connection.executescript(f"BEGIN IMMEDIATE;{forgotten.TABLES}COMMIT;")

    # -- pages -----------------------------------------------------------------------------------

    def serial(self) -> int:
        """A number that grows with every change."""
        return int(self._state("serial")[0])

    def page(self, project: str) -> PageState | None:
        """What is known of a page; None: it was never asked for."""
        row = self._first(
            "SELECT serial, is_there, checked_at, validator, status, status_reason FROM pages"
            " WHERE project = ?",
            (project,),
        )
        if row is None:
            return None
        serial, is_there, checked_at, validator, status, reason = row
        marker = None if status is None else ProjectStatus(status, reason)
        return PageState(serial, bool(is_there), checked_at, validator, marker)

    def files(self, project: str) -> list[MirroredFile]:
        """The files of a page, ordered by version (PEP 440), then by name."""
        rows = self._all(
            f"SELECT {_COLUMNS} FROM files WHERE project = ? ORDER BY version_key, filename",
            (project,),
        )
        return [_file(row) for row in rows]

    def file(self, project: str, filename: str) -> MirroredFile | None:
        """A file of a page."""
        row = self._first(
            f"SELECT {_COLUMNS} FROM files WHERE project = ? AND filename = ?", (project, filename)
        )
        return None if row is None else _file(row)

    def has_files(self, project: str) -> bool:
        """Whether anything of a project's files is remembered, also if its page is not."""
        return any(
            self._first(f"SELECT 1 FROM {table} WHERE project = ? LIMIT 1", (project,)) is not None
            for table in ("files", "facts")
        )

    def others(self, project: str) -> list[tuple[str, str]]:
        """What the page lists and is no distribution file, each with the reason."""
        return self._all(
            "SELECT filename, problem FROM others WHERE project = ? ORDER BY filename", (project,)
        )

    def take_page(
        self,
        project: NormalizedName,
        page: UpstreamPage | None,
        *,
        asked_at: float,
        serial: int | None = None,
        connection: sqlite3.Connection | None = None,
    ) -> None:
        """Make a page what the upstream has (None: it has no such project), in one transaction.

        `asked_at` (unix seconds): when the upstream was asked. An answer to an earlier question
        than the last one is ignored. Absent projects are only remembered up to `_MOST_ABSENT`, the
        oldest answers are forgotten. `serial`: under which a page that is new here was shown
        since then. `connection`: one with a transaction that the page becomes a part of.

        The files of a project that is absent are kept for the case that it comes back, because only
        this file knows when they were seen first, and which hashes were learned.
        """
        rows, others = ({}, {}) if page is None else _rows(project, page.files)
        status = None if page is None else page.status
        facts = (None, None) if status is None else (status.status, status.reason)
        begun = self.transaction() if connection is None else nullcontext(connection)
        with begun as connection:
            known = connection.execute(
                "SELECT is_there, status, status_reason, checked_at FROM pages WHERE project = ?",
                (project,),
            ).fetchone()
            if known is not None and asked_at < known[3] <= time.time():
                return
            is_new = known is None or known[:3] != (int(page is not None), *facts)
            is_changed = False
            if page is not None:
                seen_at = (
                    datetime.now(UTC) if serial is None else datetime.fromtimestamp(asked_at, UTC)
                )
                if known is None or not known[0]:
                    forgotten.recall(connection, project)
                is_changed = _take_files(connection, project, rows, seen_at)
                is_changed |= _take_others(connection, project, others)
            shown = serial if known is None else None
            if is_new or is_changed:
                connection.execute(NEXT_SERIAL)
                if shown is not None:
                    connection.execute("UPDATE state SET serial = max(serial, ?)", (shown,))
            connection.execute(
                "INSERT INTO pages (project, serial, is_there, checked_at, validator, status,"
                " status_reason)"
                " VALUES (?, coalesce(?, (SELECT serial FROM state)), ?, ?, ?, ?, ?)"
                " ON CONFLICT (project) DO UPDATE SET"
                " serial = CASE WHEN ? THEN excluded.serial ELSE serial END,"
                " is_there = excluded.is_there, checked_at = excluded.checked_at,"
                " validator = excluded.validator, status = excluded.status,"
                " status_reason = excluded.status_reason",
                (
                    *(project, shown, int(page is not None), asked_at),
                    *("" if page is None else page.validator, *facts, is_new or is_changed),
                ),
            )
            if is_new and page is None:
                forgotten.forget_absent(connection, most=_MOST_ABSENT)

    def confirm_page(self, project: str, *, asked_at: float) -> None:
        """Note that the upstream has not changed a page since it was asked before."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE pages SET checked_at = ? WHERE project = ?", (asked_at, project)
            )

    def files_of(
        self, project: NormalizedName, page: UpstreamPage, *, is_new: bool = False
    ) -> list[MirroredFile]:
        """What `files` would return after `take_page`; nothing is written.

        `is_new`: nothing is known of the project, so nothing is read either.
        """
        ours = ", ".join(_OURS[1:])
        known = {
            row[0]: row[1:]
            for row in (
                ()
                if is_new
                else self._all(f"SELECT filename, {ours} FROM files WHERE project = ?", (project,))
            )
        }
        if not known and not is_new:
            with self.translated():
                known = dict(forgotten.facts_of(self.connection(), project))
        new = (microseconds(datetime.now(UTC)), None, None, None)
        rows = sorted(_rows(project, page.files)[0].values(), key=lambda row: (row[2], row[0]))
        return [_file((*row, project, *known.get(row[0], new))) for row in rows]

    def is_larger_than(self, most: int) -> bool:
        """Whether the file uses more than `most` bytes; quick."""
        with self.translated():
            return forgotten.used_bytes(self.connection()) > most

    def make_room(self, most: int) -> None:
        """Remove pages that were asked for longest ago until at most `most` bytes are used.

        The newest pages, the list of projects and the facts of `forgotten` stay. Others can write
        after each page. A call removes at most `_MOST_REMOVED` pages, so that it ends soon.
        """
        for _ in range(_MOST_REMOVED):
            if not self.is_larger_than(most):
                break
            with self.transaction() as connection:
                is_removed = forgotten.forget_oldest(connection)
            if not is_removed:
                break
        with self.translated():
            is_too_much = forgotten.has_too_many_sights(self.connection())
        if is_too_much:
            with self.transaction() as connection:
                forgotten.forget_sights(connection)

    # -- what the upstream does not say -----------------------------------------------------------

    def learn_file(self, file: ListedFile, sha256: str, size: int) -> str:
        """Remember the hash of a file that the upstream lists without one.

        Returns the hash that counts: that of the first download, if there was one before.
        """
        return self._learn(
            file, "learned_sha256", sha256, "sha256 IS NULL", f", learned_size = {int(size)}"
        )

    def learn_metadata(self, file: ListedFile, sha256: str, size: int) -> str:
        """Remember the hash of core metadata; see `learn_file`."""
        return self._learn(file, "learned_metadata", sha256, "true", "")

    def _learn(
        self, file: ListedFile, column: str, value: str, condition: str, further: str
    ) -> str:
        key = (file.project, file.filename)
        with self.writing() as connection:
            # The page may have been removed while the file arrived.
            for table in ("files", "facts"):
                changed = connection.execute(
                    f"UPDATE {table} SET {column} = ?{further}"
                    f" WHERE project = ? AND filename = ? AND {column} IS NULL AND {condition}",
                    (value, *key),
                ).rowcount
                if changed:
                    connection.execute(
                        "UPDATE pages SET serial = (SELECT serial FROM state) WHERE project = ?",
                        key[:1],
                    )
                row = connection.execute(
                    f"SELECT {column} FROM {table} WHERE project = ? AND filename = ?", key
                ).fetchone()
                if row is not None:
                    break
        return value if row is None or row[0] is None else str(row[0])

    # -- the list of projects ----------------------------------------------------------------------

    def names_state(self) -> NamesState:
        """What is known of the list of projects."""
        return NamesState(
            *self._state("names_generation, names_validator, names_checked_at, names_count")
        )

    def names(self) -> Iterator[NormalizedName]:
        """The projects of the list in order, read piece by piece.

        Raises `BackendUnavailable` if another list has taken its place before all are read.
        """
        generation, last = self.names_state().generation, ""
        while True:
            rows = self._all(
                "SELECT name FROM names WHERE generation = ? AND name > ? ORDER BY name LIMIT ?",
                (generation, last, _BATCH),
            )
            if not rows:
                if self.names_state().generation != generation:
                    raise BackendUnavailable(
                        "the list of projects was replaced while it was read; ask again",
                        retry_after=1,
                    )
                return
            yield from (name for (name,) in rows)
            last = rows[-1][0]

    def has_name(self, name: str) -> bool:
        """Whether the list of projects has a name."""
        return bool(self.names_among([name]))

    def names_among(self, names: Iterable[str]) -> set[NormalizedName]:
        """Those of the names that the list of projects has."""
        found: set[NormalizedName] = set()
        for part in _batches(names, 500):
            marks = ", ".join("?" * len(part))
            rows = self._all(
                "SELECT name FROM names WHERE generation ="
                f" (SELECT names_generation FROM state) AND name IN ({marks})",
                part,
            )
            found.update(name for (name,) in rows)
        return found

    def names_like(self, pattern: str, *, limit: int) -> tuple[int, list[NormalizedName]]:
        """How many names of the list match a pattern as of `fnmatch`, and the first of them."""
        where = "generation = (SELECT names_generation FROM state) AND name GLOB ?"
        parameters = (pattern.replace("[!", "[^"),)  # as SQLite writes it
        total = self._first(f"SELECT count(*) FROM names WHERE {where}", parameters)[0]
        rows = self._all(
            f"SELECT name FROM names WHERE {where} ORDER BY name LIMIT ?", (*parameters, limit)
        )
        return total, [name for (name,) in rows]

    def search(
        self,
        words: Sequence[str],
        *,
        limit: int,
        offset: int,
        only: Sequence[str] = (),
        without: Sequence[str] = (),
    ) -> tuple[int, list[NormalizedName]]:
        """How many names of the list have every word in them, and some of these names.

        A name of exactly these words comes first, the others are ordered. `only`: patterns as for
        `fnmatch`, of which a name must match one, if there are any. `without`: of which it must
        match none.
        """
        # SQLite and `fnmatch` have the same patterns, but for this.
        globs = [pattern.replace("[!", "[^") for pattern in (*only, *without)]
        parameters = (*(word.lower() for word in words), *globs)
        where = "generation = (SELECT names_generation FROM state)"
        where += "".join(" AND instr(name, ?)" for _ in words)
        where += f" AND ({' OR '.join(['name GLOB ?'] * len(only))})" if only else ""
        where += "".join(" AND NOT name GLOB ?" for _ in without)
        if parameters:
            total = self._first(f"SELECT count(*) FROM names WHERE {where}", parameters)[0]
        else:
            total = self.names_state().count
        rows = self._all(
            f"SELECT name FROM names WHERE {where} ORDER BY name <> ?, name LIMIT ? OFFSET ?"
            if words
            else f"SELECT name FROM names WHERE {where} ORDER BY name LIMIT ? OFFSET ?",
            (*parameters, *(("-".join(words).lower(),) if words else ()), limit, offset),
        )
        return total, [name for (name,) in rows]

    def take_names(self, names: Iterable[str], validator: str, *, asked_at: float) -> None:
        """Replace the list of projects. Its old names are there until all of the new ones are.

        The caller makes sure that only one process does this at a time. What `names` raises is
        raised, and the old list stays.
        """
        with self.transaction() as connection:
            connection.execute(NEXT_SERIAL)
            (generation,) = connection.execute("SELECT serial FROM state").fetchone()
        self._drop_names()
        for part in _batches(names, _BATCH):
            with self.transaction() as connection:
                # Other texts could not be asked for, and need escaping on pages.
                usable = filter(is_normalized_name, map(normalize, part))
                connection.executemany(
                    "INSERT OR IGNORE INTO names VALUES (?, ?)",
                    [(generation, name) for name in usable],
                )
        with self.transaction() as connection:
            connection.execute(
                "UPDATE state SET names_generation = ?, names_validator = ?, names_checked_at = ?,"
                " names_count = (SELECT count(*) FROM names WHERE generation = ?)",
                (generation, validator, asked_at, generation),
            )
        self._drop_names()

    def confirm_names(self, *, asked_at: float) -> None:
        """Note that the list has not changed since the upstream was asked before."""
        with self.transaction() as connection:
            connection.execute("UPDATE state SET names_checked_at = ?", (asked_at,))

    def _drop_names(self) -> None:
        """Remove the names of other lists than the present one."""
        present = self.names_state().generation or 0
        while True:
            with self.transaction() as connection:
                dropped = connection.execute(
                    # In a form for which SQLite uses the primary key.
                    "DELETE FROM names WHERE (generation, name) IN (SELECT * FROM ("
                    " SELECT generation, name FROM names WHERE generation < ?1 UNION ALL"
                    " SELECT generation, name FROM names WHERE generation > ?1) LIMIT ?2)",
                    (present, _BATCH),
                ).rowcount
            if not dropped:
                return


def names_of_strangers(project: NormalizedName, files: Iterable[UpstreamFile]) -> list[str]:
    """The names of the files of other projects on a page; none if there is any of the project."""
    found = []
    for file in files:
        try:
            parsed = parse_filename(file.filename)
        except InvalidFilename:
            continue
        if parsed.project == project:
            return []
        found.append(file.filename)
    return found


def _batches(names: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(names)
    while part := list(islice(iterator, size)):
        yield part


def _rows(
    project: NormalizedName, files: Iterable[UpstreamFile]
) -> tuple[dict[str, tuple[object, ...]], dict[str, str]]:
    """The columns `_FROM_UPSTREAM` by filename, and what is no distribution file of the project."""
    rows: dict[str, tuple[object, ...]] = {}
    others: dict[str, str] = {}
    for file in files:
        try:
            parsed = parse_filename(file.filename)
        except InvalidFilename as error:
            others.setdefault(file.filename, str(error))
            continue
        if parsed.project != project:
            others.setdefault(
                file.filename, f"its name is that of a file of project {parsed.project!r}"
            )
            continue
        rows.setdefault(file.filename, _row(file, parsed.version))
    for filename in rows:
        others.pop(filename, None)
    return rows, others


def _row(file: UpstreamFile, version: Version) -> tuple[object, ...]:
    hashes = dict(file.hashes)
    sha256 = hashes.pop("sha256", None)
    metadata = None if file.core_metadata is None else file.core_metadata.get("sha256", "")
    return (
        *(file.filename, str(version), version_key(version), file.url, sha256),
        *(json.dumps(hashes, sort_keys=True), file.size),
        None if file.uploaded_at is None else microseconds(file.uploaded_at),
        *(file.requires_python, file.yanked, metadata, file.provenance),
    )


def _take_files(
    connection: sqlite3.Connection,
    project: str,
    rows: dict[str, tuple[object, ...]],
    seen_at: datetime,
) -> bool:
    """Make the files of a project these; whether anything has changed."""
    columns = ", ".join(_FROM_UPSTREAM)
    known = {
        row[0]: row
        for row in connection.execute(f"SELECT {columns} FROM files WHERE project = ?", (project,))
    }
    now = microseconds(seen_at)
    gone = [(project, name) for name in known.keys() - rows.keys()]
    news = [(project, now, *row) for name, row in rows.items() if known.get(name) != row]
    connection.executemany("DELETE FROM files WHERE project = ? AND filename = ?", gone)
    connection.executemany(_INSERT, news)
    return bool(gone or news)


def _take_others(connection: sqlite3.Connection, project: str, others: dict[str, str]) -> bool:
    known = dict(
        connection.execute(
            "SELECT filename, problem FROM others WHERE project = ?", (project,)
        ).fetchall()
    )
    if known == others:
        return False
    connection.execute("DELETE FROM others WHERE project = ?", (project,))
    connection.executemany(
        "INSERT INTO others VALUES (?, ?, ?)",
        [(project, filename, problem) for filename, problem in others.items()],
    )
    return True


def _file(row: Sequence[Any]) -> MirroredFile:
    filename, version, _, url, sha256, hashes, size, uploaded_at = row[:8]
    requires_python, yanked, metadata, provenance, project, first_seen_at = row[8:14]
    learned_sha256, learned_size, learned_metadata = row[14:]
    first_seen = from_microseconds(first_seen_at)
    assert first_seen is not None
    metadata_sha256 = metadata or learned_metadata
    return MirroredFile(
        project=project,
        filename=filename,
        size=learned_size if size is None else size,
        sha256=sha256 or learned_sha256,
        location=url,
        version=version,
        uploaded_at=from_microseconds(uploaded_at),
        requires_python=requires_python,
        yanked=yanked,
        core_metadata_sha256=metadata_sha256,
        # Every wheel has core metadata, which can be read from it.
        offers_unhashed_metadata=metadata_sha256 is None
        and (metadata == "" or filename.endswith(".whl")),
        hashes=json.loads(hashes) if hashes != "{}" else {},
        provenance=provenance,
        first_seen_at=first_seen,
        has_upstream_metadata=metadata is not None,
    )
