"""The document `index.toml` as values: reads what 0.2 and we wrote, writes what both can read.

It knows neither who keeps the document (a backend) nor what is made of it (`local_index`).

A document of 0.2 has `mtime` and `[[pkgs]]` with `type, distrib, package, ext, sha256`, one key for
the location and a flat table of strings `[pkgs.meta]`. Its readers ignore further keys of an entry
and of the document, and die of two entries with one `package`. So ours adds

- to an entry: `size`, `uploaded_at`, `requires_python`, `yanked` (true or the reason),
  `core_metadata_sha256`, `stamp`;
- to the document: `[[more_pkgs]]` (the second file of one stem, such as `a-1.0.zip` beside
  `a-1.0.tar.gz`), `[[deleted]]` (burnt names) and `former_projects`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any

import tomli
from packaging.utils import NormalizedName

from private_pypi.errors import InvalidFilename, InvalidIndex
from private_pypi.filenames import normalize, parse_filename, split_suffix
from private_pypi.model import BurntName, DistributionFile, Record
from private_pypi.records import format_time, one_line, parse_time

Scalar = str | int | bool

_LONGEST_META = 200  # characters
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NEVER_WRITTEN = frozenset({"description"})  # 0.2 kept whole READMEs in the index


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexEntry:
    """A file with all its facts; never opened again while its stamp stays the same."""

    file: DistributionFile
    stamp: str | None  # of the storage, when the facts were taken; None when unknown
    meta: Record
    extra: Mapping[str, Scalar]  # keys of a newer writer, carried over


@dataclass(frozen=True, slots=True, kw_only=True)
class UnexaminedEntry:
    """An entry of 0.2: no size, and a hash that nobody checked. The file has to be opened once."""

    filename: str
    location: str
    sha256: str  # as written
    meta: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexDocument:
    """What `index.toml` says: all that a listing of the storage, begun at `mtime`, found."""

    mtime: int  # unix seconds; 0: never made from a listing
    entries: tuple[IndexEntry, ...] = ()
    unexamined: tuple[UnexaminedEntry, ...] = ()
    deleted: tuple[BurntName, ...] = ()
    former_projects: tuple[NormalizedName, ...] = ()
    """Projects that once had files, and may have: their names never go to the public index."""

    def edited(self, edit: IndexEdit) -> IndexDocument:
        """The document after an edit; a yank of a file that nobody knows is passed over."""
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
        for file in edit.delete:
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
            former_projects=tuple({*self.former_projects, *(file.project for file in edit.delete)}),
        )


EMPTY = IndexDocument(mtime=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexEdit:
    """A rare change that is made to the document at once, without a listing."""

    at: datetime  # UTC
    yank: Mapping[str, str | None]  # filename -> reason ("" for none given), or None to un-yank
    delete: tuple[DistributionFile, ...]
    files: tuple[DistributionFile, ...]  # facts of files that the document may not have yet


def new_entry(
    file: DistributionFile, *, stamp: str | None, record: Record | None = None
) -> IndexEntry:
    """An entry as we write it; its meta is for people and for 0.2, we read its summary alone."""
    parsed = parse_filename(file.filename)
    meta = {
        "name": file.project,
        "version": file.version,
        "filetype": "bdist_wheel" if parsed.kind == "wheel" else "sdist",
        "pyversion": parsed.pyversion,
    }
    for key in meta.keys() & (record or {}).keys():
        meta[key] = (record or {})[key][:_LONGEST_META]
    if file.summary is not None:
        meta["summary"] = file.summary
    return IndexEntry(file=file, stamp=stamp, meta=meta, extra={})


def read_document(path: Path, *, location_key: str) -> tuple[IndexDocument, tuple[str, ...]]:
    """The document and, for each broken entry, a sentence; broken entries are left out.

    `location_key` is the backend's. Raises `InvalidIndex` for what is no TOML, or has no entries.
    """
    try:
        tables = tomli.loads(path.read_text(encoding="utf-8"))
    except tomli.TOMLDecodeError as error:
        raise InvalidIndex(
            f"{path.name}, line {error.lineno}, column {error.colno}: {error.msg}"
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidIndex(f"{path.name} is not UTF-8: {error}") from error
    return _Reader(tables, location_key).document()


def write_document(
    document: IndexDocument, path: Path, *, backend_type: str, location_key: str
) -> None:
    """Write the document; equal documents make equal bytes. Not atomic: `path` is a new file."""
    with path.open("w", encoding="utf-8", errors="replace", newline="\n") as output:
        output.write(f"mtime = {document.mtime}\n")
        if document.former_projects:
            names = ", ".join(map(_quoted, sorted(set(document.former_projects))))
            output.write(f"former_projects = [{names}]\n")
        pkgs, more_pkgs = _tables(document, backend_type, location_key)
        if not pkgs:
            output.write("pkgs = []\n")  # 0.2 wants the key
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
    # A JSON string is a TOML basic string, but for the one control character JSON lets through.
    return encode_basestring(text).replace("\x7f", "\\u007F")


# -- reading -------------------------------------------------------------------------------------


class _Broken(Exception):
    """Why an entry is left out."""


class _Reader:
    """Turns the tables of one document into values, and remembers what was wrong with it."""

    _OURS = frozenset(
        {"type", "distrib", "package", "ext", "sha256", "meta", "size", "uploaded_at"}
        | {"requires_python", "yanked", "core_metadata_sha256", "stamp"}
    )

    def __init__(self, tables: dict[str, Any], location_key: str) -> None:
        self._tables = tables
        self._location_key = location_key
        self._problems: list[str] = []
        self._filenames: set[str] = set()

    def document(self) -> tuple[IndexDocument, tuple[str, ...]]:
        mtime = self._tables.get("mtime")
        if not isinstance(mtime, int) or "pkgs" not in self._tables:
            raise InvalidIndex("index.toml has no `mtime` (unix seconds) or no `pkgs`")
        entries: list[IndexEntry] = []
        unexamined: list[UnexaminedEntry] = []
        for key in ("pkgs", "more_pkgs"):
            for place, table in self._each(key):
                try:
                    entry = self._entry(table)
                except _Broken as error:
                    self._problems.append(f"index.toml, {place}: {error}")
                    continue
                if isinstance(entry, IndexEntry):
                    entries.append(entry)
                else:
                    unexamined.append(entry)
        document = IndexDocument(
            mtime=mtime,
            entries=tuple(entries),
            unexamined=tuple(unexamined),
            deleted=tuple(self._deleted()),
            former_projects=tuple(self._former_projects()),
        )
        return document, tuple(self._problems)

    def _each(self, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
        tables = self._tables.get(key, [])
        if not isinstance(tables, list):
            raise InvalidIndex(f"index.toml: `{key}` is no array of tables")
        for number, table in enumerate(tables, 1):
            if isinstance(table, dict):
                yield f"[[{key}]] number {number}", table
            else:
                raise InvalidIndex(f"index.toml: `{key}` is no array of tables")

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
            raise _Broken(f"{filename!r}: `meta` is no table")
        meta = {
            key: value
            for key, value in meta.items()
            if isinstance(value, str) and key not in _NEVER_WRITTEN
        }
        if "size" not in table:
            self._filenames.add(filename)
            return UnexaminedEntry(filename=filename, location=location, sha256=sha256, meta=meta)
        size = table["size"]
        if not _is_integer(size) or size < 0:
            raise _Broken(f"{filename!r}: `size` is no number of bytes: {size!r}")
        uploaded_at = _optional_text(table, "uploaded_at")
        yanked = table.get("yanked", False)
        if not isinstance(yanked, (bool, str)):
            raise _Broken(f"{filename!r}: `yanked` is neither true nor a reason: {yanked!r}")
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
        )
        self._filenames.add(filename)
        return IndexEntry(
            file=file, stamp=_optional_text(table, "stamp"), meta=meta, extra=self._extra(table)
        )

    def _extra(self, table: dict[str, Any]) -> Mapping[str, Scalar]:
        return {
            key: table[key]
            for key in table.keys() - self._OURS - {self._location_key}
            if isinstance(table[key], (str, int))  # a bool is an int
        }

    # A name that was deleted, or once ours, must not come free through a slip of a text editor:
    # here anything broken is an error of the whole document.

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
                raise InvalidIndex(f"index.toml, {place}: {error}") from error

    def _former_projects(self) -> Iterator[NormalizedName]:
        names = self._tables.get("former_projects", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InvalidIndex("index.toml: `former_projects` is no array of names")
        yield from map(normalize, names)


def _text(table: dict[str, Any], key: str) -> str:
    value = table.get(key)
    if not isinstance(value, str):
        raise _Broken(f"`{key}` is no text: {value!r}" if key in table else f"`{key}` is missing")
    return value


def _optional_text(table: dict[str, Any], key: str) -> str | None:
    return _text(table, key) if key in table else None


def _hash(text: str, key: str) -> str:
    if not _SHA256.fullmatch(text):
        raise _Broken(f"`{key}` is no SHA-256 in lower-case hex: {text!r}")
    return text


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
