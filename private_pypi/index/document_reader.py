"""Reads the index document `index.toml`, whose form `document` describes, in pieces.

A parser of TOML needs about ten times the size of what it parses as memory, and the document of a
million files has more than 600 MB. So it is cut before the headers of its entries, and some of them
are read at a time: by `written_entries` if they have the form in which we write them, and by the
parser if they have any other form. Whoever has to keep the entries keeps them on disk (`staging`,
`draft`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import tomli

from private_pypi.distributions.filenames import normalize, parse_filename
from private_pypi.distributions.records import one_line, parse_time, printable, published_name
from private_pypi.errors import InvalidFilename, InvalidIndex
from private_pypi.index.document import (
    EMPTY,
    NEVER_WRITTEN,
    IndexDocument,
    IndexEntry,
    Scalar,
    UnexaminedEntry,
)
from private_pypi.index.exact_entries import ExactEntries, ExactEntry
from private_pypi.index.written_entries import WrittenEntries
from private_pypi.model import BurntName, DistributionFile

_LARGEST: Final = 2**30  # bytes of a document: more than a million files
_PIECE: Final = 2**18  # bytes that are read at a time; about as many are parsed at a time
_HEADER: Final = re.compile(rb"^\[\[(?:pkgs|more_pkgs|deleted)\]\][ \t]*\r?\n", re.MULTILINE)
_HEADER_LENGTH: Final = 32  # bytes; if a longer one is not seen, the document is cut at the next
_LATEST: Final = 2**37  # unix seconds; a moment that Python still has a date for
_LARGEST_INTEGER: Final = 2**63 - 1  # of TOML and of SQLite
_MOST_PROBLEMS: Final = 1000  # sentences about broken entries; further ones are only counted
_LONGEST_NAME: Final = 255  # characters of a filename or the name of a project
_LONGEST_PROBLEM: Final = 300  # characters
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def read_document(path: Path, *, location_key: str) -> tuple[IndexDocument, tuple[str, ...]]:
    """The document without broken entries, and a sentence for each of these.

    `location_key` is that of the backend. Raises `InvalidIndex` if the file is not TOML or is not
    an index: anybody who may write to the storage may have written anything.
    """
    reader = DocumentReader(path, location_key=location_key, names=NamesInMemory())
    found = list(reader.entries())
    document = replace(
        reader.rest(),
        entries=tuple(each for each in found if isinstance(each, IndexEntry)),
        unexamined=tuple(each for each in found if isinstance(each, UnexaminedEntry)),
    )
    return document, reader.problems()


def read_entry(text: str, *, location_key: str) -> IndexEntry:
    """The inverse of `document.entry_text`, for the entry of an examined file."""
    [table] = tomli.loads(f"[[pkgs]]\n{text}")["pkgs"]
    entry = _Entries(location_key, NamesInMemory()).entry(table)
    assert isinstance(entry, IndexEntry)
    return entry


class Names(Protocol):
    """The filenames of the entries that were read; an entry with one of them again is broken."""

    def add(self, filename: str) -> bool:
        """Add a filename, and return whether it is new."""

    def __contains__(self, filename: object) -> bool: ...


class NamesInMemory:
    """`Names` for a document that is in memory anyway."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def add(self, filename: str) -> bool:
        """Add a filename, and return whether it is new."""
        before = len(self._names)
        self._names.add(filename)
        return len(self._names) > before

    def __contains__(self, filename: object) -> bool:
        return filename in self._names


class DocumentReader:
    """Reads one document: first `entries`, to their end, and then `rest` and `problems`."""

    def __init__(self, path: Path, *, location_key: str, names: Names) -> None:
        """`location_key` is that of the backend. Nothing is read yet."""
        self._path = path
        self._location_key = location_key
        self._names = names
        self._entries = _Entries(location_key, names)
        self._head: dict[str, Any] = {}
        self._deleted: list[BurntName] = []
        self._problems: list[str] = []
        self._broken = 0
        self._skipped: set[str] = set()  # filenames of broken entries
        self._projects: set[str] = set()  # of broken entries
        self._counts: dict[str, int] = {}  # of the tables that were read, by their array

    def entries(self) -> Iterator[IndexEntry | UnexaminedEntry]:
        """All entries that are not broken. Raises `InvalidIndex`."""
        for entry in self.entries_or_exact(None):
            assert not isinstance(entry, ExactEntry)
            yield entry

    def entries_or_exact(
        self, exact: ExactEntries | None
    ) -> Iterator[IndexEntry | UnexaminedEntry | ExactEntry]:
        """The same, with many of them as `exact` gives them."""
        for number, tables in enumerate(_tables(self._path, self._location_key, exact)):
            if isinstance(tables, list):
                yield from self._not_twice(tables)
                continue
            if number == 0:
                self._head = tables
                self._check_head()
            for key in ("pkgs", "more_pkgs"):
                for place, table in self._each(tables, key):
                    try:
                        yield self._entries.entry(table)
                    except _Broken as error:
                        self._skip(place, table, error)
            self._deleted += self._burnt(tables)
        if self._counts.get("pkgs") is None:
            raise InvalidIndex("index.toml has no `mtime` (unix seconds) or no `pkgs`")

    def rest(self) -> IndexDocument:
        """Everything but the entries. Raises `InvalidIndex`."""
        former = [*self._strings("former_projects"), *sorted(self._projects)]
        skipped = {*self._strings("skipped"), *self._skipped}
        return replace(
            EMPTY,
            mtime=self._head["mtime"],
            deleted=tuple(self._deleted),
            former_projects=tuple(map(normalize, former)),
            skipped=tuple(sorted(each for each in skipped if each not in self._names)),
            restored=tuple(sorted(self._strings("restored"))),
        )

    def problems(self) -> tuple[str, ...]:
        """A sentence for each broken entry."""
        more = self._broken - _MOST_PROBLEMS
        further = [f"index.toml: {more} further entries are broken"] if more > 0 else []
        return (*self._problems, *further)

    def _check_head(self) -> None:
        mtime = self._head.get("mtime")
        if not isinstance(mtime, int):
            raise InvalidIndex("index.toml has no `mtime` (unix seconds) or no `pkgs`")
        if not -_LATEST < mtime < _LATEST:
            raise InvalidIndex("index.toml: `mtime` is not a time in unix seconds")

    def _each(self, tables: dict[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
        if key not in tables:
            return
        found = tables[key]
        if not isinstance(found, list) or not all(isinstance(table, dict) for table in found):
            raise InvalidIndex(f"index.toml: `{key}` is not an array of tables")
        first = self._counts.get(key, 0) + 1
        self._counts[key] = first + len(found) - 1
        for number, table in enumerate(found, first):
            yield f"[[{key}]] number {number}", table

    def _not_twice(self, entries: list[ExactEntry]) -> Iterator[ExactEntry]:
        for entry in entries:
            number = self._counts[entry.array] = self._counts.get(entry.array, 0) + 1
            if self._names.add(entry.filename):
                yield entry
            else:
                table = {"package": entry.package, "ext": entry.ext, "distrib": entry.project}
                self._skip(f"[[{entry.array}]] number {number}", table, _twice(entry.filename))

    def _skip(self, place: str, table: dict[str, Any], error: _Broken) -> None:
        """Remember the names in a broken entry: the project belongs to this repository."""
        package, ext, project = (table.get(key) for key in ("package", "ext", "distrib"))
        if isinstance(package, str) and isinstance(ext, str):
            filename = f"{package}.{ext}"
            if len(filename) <= _LONGEST_NAME:
                self._skipped.add(filename)
        if isinstance(project, str) and len(project) <= _LONGEST_NAME:
            self._projects.add(project)
        self._broken += 1
        if self._broken <= _MOST_PROBLEMS:
            self._problems.append(printable(f"index.toml, {place}: {error}")[:_LONGEST_PROBLEM])

    # A mistake in an edited document must not make a burnt name or a former project free again.
    # So here a broken value is an error of the whole document.

    def _burnt(self, tables: dict[str, Any]) -> Iterator[BurntName]:
        for place, table in self._each(tables, "deleted"):
            try:
                yield BurntName(
                    project=normalize(_text(table, "distrib")),
                    filename=_text(table, "filename"),
                    sha256=_text(table, "sha256"),
                    deleted_at=parse_time(_text(table, "deleted_at")),
                )
            except (_Broken, ValueError) as error:
                sentence = printable(f"index.toml, {place}: {error}")
                raise InvalidIndex(sentence[:_LONGEST_PROBLEM]) from error

    def _strings(self, key: str) -> list[str]:
        names = self._head.get(key, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InvalidIndex(f"index.toml: `{key}` is not an array of names")
        return names


# -- pieces --------------------------------------------------------------------------------------


def _tables(
    path: Path, location_key: str, exact: ExactEntries | None
) -> Iterator[dict[str, Any] | list[ExactEntry]]:
    """The document as tables: its beginning, and then some entries at a time.

    Entries that `exact` can read are given as it reads them.
    """
    size = path.stat().st_size
    if size > _LARGEST:
        raise InvalidIndex(f"{path.name} has {size} bytes; at most {_LARGEST} can be read")
    written = WrittenEntries(location_key)
    with path.open("rb") as file:
        pieces = _cut(file)
        line = 1
        for piece in pieces:
            text = _decoded(path.name, piece)
            entries = None if exact is None or not text else exact.entries(text)
            if entries is not None:
                yield entries
                line += piece.count(b"\n")
                continue
            tables = written.tables(text)
            if tables is None:
                try:
                    tables = _parsed(path.name, text, line)
                except InvalidIndex:
                    if b'"""' not in piece and b"'''" not in piece:
                        raise
                    # Inside a string of several lines, a line may look like the header of an entry
                    # without being one, and the piece may have been cut there.
                    rest = _decoded(path.name, b"".join((piece, *pieces)))
                    tables = _parsed(path.name, rest, line)
            yield tables
            line += piece.count(b"\n")


def _cut(file: BinaryIO) -> Iterator[bytes]:
    """The content of a file in pieces, of which each but the first begins with a header."""
    held = bytearray()
    is_first = True
    while block := file.read(_PIECE):
        # The end of what was read before may be the beginning of a header.
        searched = max(0 if is_first else 1, len(held) - _HEADER_LENGTH)
        held += block
        if header := _HEADER.search(held, searched):
            yield bytes(held[: header.start()])
            del held[: header.start()]
            is_first = False
    yield bytes(held)


def _decoded(name: str, piece: bytes) -> str:
    try:
        return piece.decode()
    except UnicodeDecodeError as error:
        raise InvalidIndex(f"{name} is not UTF-8: {error}") from error


def _parsed(name: str, text: str, line: int) -> dict[str, Any]:
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise InvalidIndex(
            f"{name}, line {error.lineno + line - 1}, column {error.colno}: {error.msg}"
        ) from error
    except RecursionError as error:
        raise InvalidIndex(f"{name} has tables or arrays nested too deeply") from error
    except (ValueError, OverflowError) as error:
        raise InvalidIndex(f"{name} has a number or a time that is out of range") from error


# -- entries -------------------------------------------------------------------------------------


class _Broken(Exception):
    """Why an entry is left out."""


class _Entries:
    """Turns tables into entries."""

    _OURS = frozenset(
        {"type", "distrib", "package", "ext", "sha256", "meta", "size", "uploaded_at"}
        | {"requires_python", "yanked", "core_metadata_sha256", "stamp"}
    )

    def __init__(self, location_key: str, names: Names) -> None:
        self._location_key = location_key
        self._known = self._OURS | {location_key}
        self._names = names

    def entry(self, table: dict[str, Any]) -> IndexEntry | UnexaminedEntry:
        """The entry of a table; raises `_Broken`."""
        filename = f"{_text(table, 'package')}.{_text(table, 'ext')}"
        try:
            parsed = parse_filename(filename)
        except InvalidFilename as error:
            raise _Broken(str(error)) from error
        location = _text(table, self._location_key)
        sha256 = _text(table, "sha256")
        meta = table.get("meta", {})
        if not isinstance(meta, dict):
            raise _Broken(f"{filename!r}: `meta` is not a table")
        meta = {
            key: value
            for key, value in meta.items()
            if isinstance(value, str) and key not in NEVER_WRITTEN
        }
        if "size" not in table:
            self._check_name(filename)
            return UnexaminedEntry(filename=filename, location=location, sha256=sha256, meta=meta)
        size = table["size"]
        if not _is_integer(size) or not 0 <= size <= _LARGEST_INTEGER:
            raise _Broken(f"{filename!r}: `size` is not a number of bytes: {_shown(size)}")
        uploaded_at = _optional_text(table, "uploaded_at")
        yanked = table.get("yanked", False)
        if not isinstance(yanked, (bool, str)):
            raise _Broken(f"{filename!r}: `yanked` is neither true nor a reason: {_shown(yanked)}")
        try:
            moment = None if uploaded_at is None else parse_time(uploaded_at)
        except ValueError as error:
            raise _Broken(f"{filename!r}: `uploaded_at`: {error}") from error
        file = DistributionFile(
            project=parsed.project,
            filename=filename,
            version=str(parsed.version),
            size=size,
            sha256=_hash(sha256, "sha256"),
            uploaded_at=moment,
            requires_python=_optional_text(table, "requires_python") or None,
            yanked=yanked if isinstance(yanked, str) else "" if yanked else None,
            core_metadata_sha256=(
                _hash(_text(table, "core_metadata_sha256"), "core_metadata_sha256")
                if "core_metadata_sha256" in table
                else None
            ),
            location=location,
            summary=one_line(meta.get("summary")),
            published_name=published_name(meta.get("name"), parsed.project),
            keywords=one_line(meta.get("keywords")),
        )
        self._check_name(filename)
        return IndexEntry(
            file=file, stamp=_optional_text(table, "stamp"), meta=meta, extra=self._extra(table)
        )

    def _extra(self, table: dict[str, Any]) -> Mapping[str, Scalar]:
        return {
            key: table[key]
            for key in table.keys() - self._known
            if isinstance(value := table[key], str)
            or (isinstance(value, int) and abs(value) <= _LARGEST_INTEGER)  # a bool is an int
        }

    def _check_name(self, filename: str) -> None:
        # At last, so that a broken entry does not take the name of one that is not.
        if not self._names.add(filename):
            raise _twice(filename)


def _twice(filename: str) -> _Broken:
    return _Broken(f"{filename!r} is there twice")


def _text(table: dict[str, Any], key: str) -> str:
    value = table.get(key)
    if not isinstance(value, str):
        raise _Broken(
            f"`{key}` is not a string: {_shown(value)}" if key in table else f"`{key}` is missing"
        )
    return value


def _optional_text(table: dict[str, Any], key: str) -> str | None:
    return _text(table, key) if key in table else None


def _hash(text: str, key: str) -> str:
    if not _SHA256.fullmatch(text):
        raise _Broken(f"`{key}` is not a SHA-256 in lower-case hex: {_shown(text)}")
    return text


def _shown(value: object) -> str:
    """A value of the document, shortened for a message."""
    if isinstance(value, str):
        return repr(value[:100])
    if isinstance(value, (dict, list)):
        return "a table" if isinstance(value, dict) else "an array"
    if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
        return "a number of more than 64 bits"
    return repr(value)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
