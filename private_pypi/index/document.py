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

import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from json.encoder import encode_basestring
from pathlib import Path

from packaging.utils import NormalizedName

from private_pypi.distributions.filenames import parse_filename, split_suffix
from private_pypi.model import BurntName, DistributionFile, Record, format_time

Scalar = str | int | bool

_LONGEST_META = 200  # characters
NEVER_WRITTEN = frozenset({"description"})  # 0.2 kept complete READMEs in the index


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


def write_document(
    document: IndexDocument, path: Path, *, backend_type: str, location_key: str
) -> None:
    """Write the document to a new file; this is not atomic. Equal documents give equal bytes."""
    entries: list[IndexEntry | UnexaminedEntry] = [*document.entries, *document.unexamined]
    texts = [
        (filename_of(each), entry_text(each, backend_type=backend_type, location_key=location_key))
        for each in entries
    ]
    write_texts(document, sorted(texts), path)


def write_texts(rest: IndexDocument, entries: Iterable[tuple[str, str]], path: Path) -> None:
    """Write a document of which the texts of all entries are known (`entry_text`).

    `rest` has everything else. `entries` are filenames and texts, ordered by filename, so that a
    rewrite is a small change. They are not kept in memory.
    """
    with (
        path.open("w", encoding="utf-8", errors="replace", newline="\n") as output,
        tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n", dir=path.parent) as more_pkgs,
    ):
        output.write(f"mtime = {rest.mtime}\n")
        for key, names in (
            ("former_projects", rest.former_projects),
            ("skipped", rest.skipped),
            ("restored", rest.restored),
        ):
            if names:
                output.write(f"{key} = [{', '.join(map(_quoted, sorted(set(names))))}]\n")
        is_empty = True
        stems: list[str] = []  # those of which the next filenames begin
        for filename, text in entries:
            while stems and not filename.startswith(f"{stems[-1]}."):
                stems.pop()
            stem = split_suffix(filename)[0]
            if stem in stems:
                more_pkgs.write(f"\n[[more_pkgs]]\n{text.replace(_META, _MORE_META, 1)}")
            else:
                output.write(f"\n[[pkgs]]\n{text}")
                stems.append(stem)
            is_empty = False
        if is_empty:
            output.write("pkgs = []\n")  # 0.2 needs the key
        more_pkgs.seek(0)
        shutil.copyfileobj(more_pkgs, output)
        for burnt in sorted(rest.deleted, key=lambda burnt: burnt.filename):
            output.write(
                f"\n[[deleted]]\n"
                f"distrib = {_quoted(burnt.project)}\n"
                f"filename = {_quoted(burnt.filename)}\n"
                f"sha256 = {_quoted(burnt.sha256)}\n"
                f"deleted_at = {_quoted(format_time(burnt.deleted_at))}\n"
            )


_META = "\n[pkgs.meta]\n"
_MORE_META = "\n[more_pkgs.meta]\n"


def filename_of(entry: IndexEntry | UnexaminedEntry) -> str:
    """The filename of an entry of either kind."""
    return entry.file.filename if isinstance(entry, IndexEntry) else entry.filename


def entry_text(entry: IndexEntry | UnexaminedEntry, *, backend_type: str, location_key: str) -> str:
    """The lines of an entry after `[[pkgs]]`. Equal entries have equal texts."""
    if isinstance(entry, IndexEntry):
        facts = _facts(backend_type, location_key, entry)
    else:
        project = parse_filename(entry.filename).project
        facts = _head(
            backend_type, project, entry.filename, entry.sha256, location_key, entry.location
        )
    return _without_delete(f"{facts}{_META}{_lines(entry.meta)}")


def _facts(backend_type: str, location_key: str, entry: IndexEntry) -> str:
    file = entry.file
    text = _head(
        backend_type, file.project, file.filename, file.sha256, location_key, file.location
    )
    text += f"size = {file.size}\n"
    if file.uploaded_at is not None:
        text += f'uploaded_at = "{file.upload_time}"\n'
    if file.requires_python is not None:
        text += f"requires_python = {_json(file.requires_python)}\n"
    if file.yanked is not None:
        text += f"yanked = {_json(file.yanked) if file.yanked else 'true'}\n"
    if file.core_metadata_sha256 is not None:
        text += f"core_metadata_sha256 = {_json(file.core_metadata_sha256)}\n"
    if entry.stamp is not None:
        text += f"stamp = {_json(entry.stamp)}\n"
    for key, value in sorted(entry.extra.items()):
        text += f"{_json(key)} = {_json(value) if isinstance(value, str) else str(value).lower()}\n"
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
        f"type = {_json(backend_type)}\n"
        f"distrib = {_json(project)}\n"
        f"package = {_json(package)}\n"
        f"ext = {_json(ext)}\n"
        f"sha256 = {_json(sha256)}\n"
        f"{location_key} = {_json(location)}\n"
    )


def _lines(meta: Record) -> str:
    return "".join(
        f"{_json(key)} = {_json(value)}\n"
        for key, value in meta.items()
        if key not in NEVER_WRITTEN
    )


def _quoted(text: str) -> str:
    return _without_delete(_json(text))


# A JSON string is a TOML basic string, except for one control character, which is replaced in the
# text of a whole entry.
_json = encode_basestring


def _without_delete(text: str) -> str:
    return text.replace("\x7f", "\\u007F")
