"""The index document `index.toml` as values, in a form that version 0.2 can read as well.

It knows neither where the document is kept (a backend) nor how it is used (`reconciling`).

A document of 0.2 has `mtime` and `[[pkgs]]` with `type, distrib, package, ext, sha256`, one key for
the location and a flat table of strings `[pkgs.meta]`. Version 0.2 ignores further keys of an entry
and of the document, and fails if two entries have the same `package`. So this version adds

- to an entry: `size`, `uploaded_at`, `requires_python`, `yanked` (true or the reason),
  `core_metadata_sha256`, `stamp`;
- to the document: `[[more_pkgs]]` (further files of one `package`, such as `a-1.0.zip` beside
  `a-1.0.tar.gz`), `[[deleted]]` (burnt names), `former_projects`, `skipped` (files that are stored
  and could not be read) and `restored` (names that are no longer burnt).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any

import tomli
from packaging.utils import NormalizedName

from private_pypi.distributions.filenames import normalize, parse_filename, split_suffix
from private_pypi.distributions.records import (
    format_time,
    one_line,
    parse_time,
    printable,
    published_name,
)
from private_pypi.errors import InvalidFilename, InvalidIndex
from private_pypi.model import BurntName, DistributionFile, Record

Scalar = str | int | bool

_LONGEST_META = 200  # characters
_LARGEST = 512 * 2**20  # bytes of a document: about a million files
_LATEST = 2**37  # unix seconds; a moment that Python still has a date for
_LARGEST_INTEGER = 2**63 - 1  # of TOML and of SQLite
_MOST_PROBLEMS = 1000  # sentences about broken entries; further ones are only counted
_LONGEST_NAME = 255  # characters of a filename or the name of a project
_LONGEST_PROBLEM = 300  # characters
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NEVER_WRITTEN = frozenset({"description"})  # 0.2 kept complete READMEs in the index


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexEntry:
    """A file with all its facts. It is not opened again while its stamp stays the same."""

    file: DistributionFile
    stamp: str | None  # of the storage when the file was read; None: unknown
    meta: Record
    extra: Mapping[str, Scalar]  # keys of later versions, which are written back


@dataclass(frozen=True, slots=True, kw_only=True)
class UnexaminedEntry:
    """An entry of 0.2, without a size and with an unchecked hash. Its file has to be opened."""

    filename: str
    location: str
    sha256: str  # as written
    meta: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexDocument:
    """What `index.toml` says: the result of a listing of the storage, with the edits since then."""

    mtime: int  # unix seconds when the listing began; 0: it was never made from a listing
    entries: tuple[IndexEntry, ...] = ()
    unexamined: tuple[UnexaminedEntry, ...] = ()
    deleted: tuple[BurntName, ...] = ()
    former_projects: tuple[NormalizedName, ...] = ()
    """Projects that had files once. Their names must never be looked for at the public index."""
    skipped: tuple[str, ...] = ()
    """Filenames that are stored and have no entry, because the files could not be read."""
    restored: tuple[str, ...] = ()
    """Filenames that are no longer burnt, because the storage refused to delete their files or
    because an operator has restored them. Servers may have read the document while they were burnt.
    """

    def edited(self, edit: IndexEdit) -> IndexDocument:
        """The document after an edit. A yank of an unknown file is ignored."""
        entries = {entry.file.filename: entry for entry in self.entries}
        unexamined = {entry.filename: entry for entry in self.unexamined}
        deleted = {burnt.filename: burnt for burnt in self.deleted}
        for file in edit.files:
            if file.filename not in entries:
                entries[file.filename] = new_entry(file, stamp=None)
                unexamined.pop(file.filename, None)
        for filename, reason in edit.yank.items():
            entry = entries.get(filename)
            if entry is not None:
                entries[filename] = replace(entry, file=replace(entry.file, yanked=reason))
        skipped, restored = set(self.skipped), set(self.restored)
        for file in edit.restore:
            deleted.pop(file.filename, None)
            restored.add(file.filename)
            entries.setdefault(file.filename, new_entry(file, stamp=None))
        for burnt in edit.lift:
            deleted.pop(burnt.filename, None)
            restored.add(burnt.filename)
        for file in edit.delete:
            skipped.discard(file.filename)
            restored.discard(file.filename)
            entries.pop(file.filename, None)
            unexamined.pop(file.filename, None)
            deleted.setdefault(
                file.filename,
                BurntName(
                    project=file.project,
                    filename=file.filename,
                    sha256=file.sha256,
                    deleted_at=edit.at,
                ),
            )
        return replace(
            self,
            entries=tuple(entries.values()),
            unexamined=tuple(unexamined.values()),
            deleted=tuple(deleted.values()),
            former_projects=tuple(
                {
                    *self.former_projects,
                    *(file.project for file in edit.delete),
                    *(burnt.project for burnt in edit.lift),
                }
            ),
            skipped=tuple(sorted(skipped)),
            restored=tuple(sorted(restored)),
        )


EMPTY = IndexDocument(mtime=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexEdit:
    """A change of the document that is made at once, without a listing."""

    yank: Mapping[str, str | None] = field(default_factory=dict)
    """Filename -> reason ("": none was given), or None to un-yank."""
    delete: Sequence[DistributionFile] = ()
    files: Sequence[DistributionFile] = ()  # files that the document may not have yet
    restore: Sequence[DistributionFile] = ()  # files that the storage has refused to delete
    lift: Sequence[BurntName] = ()  # names that may be used again
    at: datetime = field(default_factory=partial(datetime.now, UTC))


def new_entry(
    file: DistributionFile, *, stamp: str | None, record: Record | None = None
) -> IndexEntry:
    """The entry of a file. Its `meta` is for people and for version 0.2.

    This version reads the name, the summary and the keywords from it.
    """
    parsed = parse_filename(file.filename)
    meta = {
        "name": file.project,
        "version": file.version,
        "filetype": "bdist_wheel" if parsed.kind == "wheel" else "sdist",
        "pyversion": parsed.pyversion,
    }
    for key in meta.keys() & (record or {}).keys():
        meta[key] = (record or {})[key][:_LONGEST_META]
    for key, value in (
        ("name", file.published_name),
        ("summary", file.summary),
        ("keywords", file.keywords),
    ):
        if value is not None:
            meta[key] = value
    return IndexEntry(file=file, stamp=stamp, meta=meta, extra={})


def read_document(path: Path, *, location_key: str) -> tuple[IndexDocument, tuple[str, ...]]:
    """The document without broken entries, and a sentence for each of these.

    `location_key` is that of the backend. Raises `InvalidIndex` if the file is not TOML or is not
    an index: anybody who may write to the storage may have written anything.
    """
    size = path.stat().st_size
    if size > _LARGEST:
        raise InvalidIndex(f"{path.name} has {size} bytes; at most {_LARGEST} can be read")
    try:
        tables = tomli.loads(path.read_text(encoding="utf-8"))
    except tomli.TOMLDecodeError as error:
        raise InvalidIndex(
            f"{path.name}, line {error.lineno}, column {error.colno}: {error.msg}"
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidIndex(f"{path.name} is not UTF-8: {error}") from error
    except RecursionError as error:
        raise InvalidIndex(f"{path.name} has tables or arrays nested too deeply") from error
    except (ValueError, OverflowError) as error:
        raise InvalidIndex(f"{path.name} has a number or a time that is out of range") from error
    return _Reader(tables, location_key).document()


def write_document(
    document: IndexDocument, path: Path, *, backend_type: str, location_key: str
) -> None:
    """Write the document to a new file; this is not atomic. Equal documents give equal bytes."""
    with path.open("w", encoding="utf-8", errors="replace", newline="\n") as output:
        output.write(f"mtime = {document.mtime}\n")
        if document.former_projects:
            names = ", ".join(map(_quoted, sorted(set(document.former_projects))))
            output.write(f"former_projects = [{names}]\n")
        for key, filenames in (("skipped", document.skipped), ("restored", document.restored)):
            if filenames:
                output.write(f"{key} = [{', '.join(map(_quoted, sorted(set(filenames))))}]\n")
        pkgs, more_pkgs = _tables(document, backend_type, location_key)
        if not pkgs:
            output.write("pkgs = []\n")  # 0.2 needs the key
        for facts, meta in pkgs:
            output.write(f"\n[[pkgs]]\n{facts}\n[pkgs.meta]\n{meta}")
        for facts, meta in more_pkgs:
            output.write(f"\n[[more_pkgs]]\n{facts}\n[more_pkgs.meta]\n{meta}")
        for burnt in sorted(document.deleted, key=lambda burnt: burnt.filename):
            output.write(
                f"\n[[deleted]]\n"
                f"distrib = {_quoted(burnt.project)}\n"
                f"filename = {_quoted(burnt.filename)}\n"
                f"sha256 = {_quoted(burnt.sha256)}\n"
                f"deleted_at = {_quoted(format_time(burnt.deleted_at))}\n"
            )


# -- writing -------------------------------------------------------------------------------------

_Table = tuple[str, str]  # the lines of an entry, and those of its meta


def _tables(
    document: IndexDocument, backend_type: str, location_key: str
) -> tuple[list[_Table], list[_Table]]:
    """`[[pkgs]]` and `[[more_pkgs]]`, ordered by filename so that a rewrite is a small change."""
    written: dict[str, _Table] = {}
    for entry in document.entries:
        written[entry.file.filename] = (
            _facts(backend_type, location_key, entry),
            _lines(entry.meta),
        )
    for old in document.unexamined:
        project = parse_filename(old.filename).project
        written[old.filename] = (
            _head(backend_type, project, old.filename, old.sha256, location_key, old.location),
            _lines(old.meta),
        )
    pkgs: list[_Table] = []
    more_pkgs: list[_Table] = []
    stems: set[str] = set()
    for filename in sorted(written):
        stem = split_suffix(filename)[0]
        (more_pkgs if stem in stems else pkgs).append(written[filename])
        stems.add(stem)
    return pkgs, more_pkgs


def _facts(backend_type: str, location_key: str, entry: IndexEntry) -> str:
    file = entry.file
    text = _head(
        backend_type, file.project, file.filename, file.sha256, location_key, file.location
    )
    text += f"size = {file.size}\n"
    if file.uploaded_at is not None:
        text += f'uploaded_at = "{format_time(file.uploaded_at)}"\n'
    if file.requires_python is not None:
        text += f"requires_python = {_quoted(file.requires_python)}\n"
    if file.yanked is not None:
        text += f"yanked = {_quoted(file.yanked) if file.yanked else 'true'}\n"
    if file.core_metadata_sha256 is not None:
        text += f"core_metadata_sha256 = {_quoted(file.core_metadata_sha256)}\n"
    if entry.stamp is not None:
        text += f"stamp = {_quoted(entry.stamp)}\n"
    for key, value in sorted(entry.extra.items()):
        text += (
            f"{_quoted(key)} = {_quoted(value) if isinstance(value, str) else str(value).lower()}\n"
        )
    return text


def _head(
    backend_type: str,
    project: str,
    filename: str,
    sha256: str,
    location_key: str,
    location: str,
) -> str:
    package, ext = split_suffix(filename)
    return (
        f"type = {_quoted(backend_type)}\n"
        f"distrib = {_quoted(project)}\n"
        f"package = {_quoted(package)}\n"
        f"ext = {_quoted(ext)}\n"
        f"sha256 = {_quoted(sha256)}\n"
        f"{location_key} = {_quoted(location)}\n"
    )


def _lines(meta: Record) -> str:
    return "".join(
        f"{_quoted(key)} = {_quoted(value)}\n"
        for key, value in meta.items()
        if key not in _NEVER_WRITTEN
    )


def _quoted(text: str) -> str:
    # A JSON string is a TOML basic string, except for one control character.
    return encode_basestring(text).replace("\x7f", "\\u007F")


# -- reading -------------------------------------------------------------------------------------


class _Broken(Exception):
    """Why an entry is left out."""


class _Reader:
    """Turns the tables of one document into values, and collects what is wrong with it."""

    _OURS = frozenset(
        {"type", "distrib", "package", "ext", "sha256", "meta", "size", "uploaded_at"}
        | {"requires_python", "yanked", "core_metadata_sha256", "stamp"}
    )

    def __init__(self, tables: dict[str, Any], location_key: str) -> None:
        self._tables = tables
        self._location_key = location_key
        self._problems: list[str] = []
        self._filenames: set[str] = set()
        self._skipped: set[str] = set()  # filenames of broken entries
        self._projects: set[str] = set()  # of broken entries

    def document(self) -> tuple[IndexDocument, tuple[str, ...]]:
        mtime = self._tables.get("mtime")
        if not isinstance(mtime, int) or "pkgs" not in self._tables:
            raise InvalidIndex("index.toml has no `mtime` (unix seconds) or no `pkgs`")
        if not -_LATEST < mtime < _LATEST:
            raise InvalidIndex("index.toml: `mtime` is not a time in unix seconds")
        entries: list[IndexEntry] = []
        unexamined: list[UnexaminedEntry] = []
        broken = 0
        for key in ("pkgs", "more_pkgs"):
            for place, table in self._each(key):
                try:
                    entry = self._entry(table)
                except _Broken as error:
                    self._skip(table)
                    broken += 1
                    if broken <= _MOST_PROBLEMS:
                        problem = f"index.toml, {place}: {error}"
                        self._problems.append(printable(problem)[:_LONGEST_PROBLEM])
                    continue
                if isinstance(entry, IndexEntry):
                    entries.append(entry)
                else:
                    unexamined.append(entry)
        if broken > _MOST_PROBLEMS:
            self._problems.append(
                f"index.toml: {broken - _MOST_PROBLEMS} further entries are broken"
            )
        document = IndexDocument(
            mtime=mtime,
            entries=tuple(entries),
            unexamined=tuple(unexamined),
            deleted=tuple(self._deleted()),
            former_projects=tuple(self._former_projects()),
            skipped=tuple(sorted({*self._names("skipped"), *self._skipped} - self._filenames)),
            restored=tuple(sorted(self._names("restored"))),
        )
        return document, tuple(self._problems)

    def _skip(self, table: dict[str, Any]) -> None:
        """Remember the names in a broken entry: the project belongs to this repository."""
        package, ext, project = (table.get(key) for key in ("package", "ext", "distrib"))
        if isinstance(package, str) and isinstance(ext, str):
            filename = f"{package}.{ext}"
            if len(filename) <= _LONGEST_NAME:
                self._skipped.add(filename)
        if isinstance(project, str) and len(project) <= _LONGEST_NAME:
            self._projects.add(project)

    def _each(self, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
        tables = self._tables.get(key, [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise InvalidIndex(f"index.toml: `{key}` is not an array of tables")
        for number, table in enumerate(tables, 1):
            yield f"[[{key}]] number {number}", table

    def _entry(self, table: dict[str, Any]) -> IndexEntry | UnexaminedEntry:
        filename = f"{_text(table, 'package')}.{_text(table, 'ext')}"
        try:
            parsed = parse_filename(filename)
        except InvalidFilename as error:
            raise _Broken(str(error)) from error
        if filename in self._filenames:
            raise _Broken(f"{filename!r} is there twice")
        location = _text(table, self._location_key)
        sha256 = _text(table, "sha256")
        meta = table.get("meta", {})
        if not isinstance(meta, dict):
            raise _Broken(f"{filename!r}: `meta` is not a table")
        meta = {
            key: value
            for key, value in meta.items()
            if isinstance(value, str) and key not in _NEVER_WRITTEN
        }
        if "size" not in table:
            self._filenames.add(filename)
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
        self._filenames.add(filename)
        return IndexEntry(
            file=file, stamp=_optional_text(table, "stamp"), meta=meta, extra=self._extra(table)
        )

    def _extra(self, table: dict[str, Any]) -> Mapping[str, Scalar]:
        return {
            key: table[key]
            for key in table.keys() - self._OURS - {self._location_key}
            if isinstance(value := table[key], str)
            or (isinstance(value, int) and abs(value) <= _LARGEST_INTEGER)  # a bool is an int
        }

    # A mistake in an edited document must not make a burnt name or a former project free again.
    # So here a broken value is an error of the whole document.

    def _deleted(self) -> Iterator[BurntName]:
        for place, table in self._each("deleted"):
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

    def _former_projects(self) -> Iterator[NormalizedName]:
        yield from map(normalize, [*self._names("former_projects"), *sorted(self._projects)])

    def _names(self, key: str) -> list[str]:
        names = self._tables.get(key, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InvalidIndex(f"index.toml: `{key}` is not an array of names")
        return names


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
